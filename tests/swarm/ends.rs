//! The last pieces, and the rare ones.

use crate::content::Content;
use crate::for_seeds;
use crate::guest::{Habits, Vice};
use crate::host::Board;
use crate::sim_net::PipeKind;
use crate::spread::SHARED;
use crate::world::World;

#[test]
fn a_slow_peer_does_not_hold_up_the_end() {
    for_seeds(5, |seed| {
        let took = |slow_ms: Option<u64>| {
            let content = Content::new(4 << 20, 256 << 10, seed);
            let mut world = World::new(&content, seed);
            let host = world.leecher(Board::ROOMY);
            for _ in 0..3 {
                let habits = Habits { block_ms: 10, ..Habits::GOOD };
                world.invite(host, habits, |_| true, PipeKind::LAN);
            }
            if let Some(block_ms) = slow_ms {
                let habits = Habits { block_ms, ..Habits::GOOD };
                world.invite(host, habits, |_| true, PipeKind::LAN);
            }
            let took = world.run_until_whole(120_000);
            world.part();
            took
        };
        let alone = took(None);
        for slow_ms in [100, 1_000, 10_000] {
            let beside = took(Some(slow_ms));
            println!("{alone} ms without, {beside} ms beside one that needs {slow_ms} ms a block");
            assert!(beside <= alone * 3 / 2 + 500, "{alone} ms without, {beside} ms beside it");
        }
    });
}

#[test]
fn what_one_peer_alone_has_is_fetched_first() {
    for_seeds(8, |seed| {
        let content = Content::new(4 << 20, 64 << 10, seed);
        let count = content.piece_count();
        let rare = seed as u32 * 7 % count;
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        for _ in 0..4 {
            let habits = Habits { block_ms: 40, ..Habits::GOOD };
            world.invite(host, habits, |piece| piece != rare, PipeKind::LAN);
        }
        let leaves = Habits { block_ms: 40, ..Habits::with(Vice::LeavesAfter(40)) };
        let guest = world.invite(host, leaves, |_| true, PipeKind::LAN);
        world.never_again(guest);
        world.run_until_whole(60_000);
        let order = &world.hosts[host].desk.disk.order;
        let at = order.iter().position(|piece| *piece == rare).expect("it came");
        assert!(at < count as usize / 2, "piece {rare} was number {at} of {count}");
    });
}

#[test]
fn what_is_left_when_the_source_goes_is_exchanged() {
    for_seeds(4, |seed| {
        let content = Content::new(4 << 20, 32 << 10, seed);
        let count = content.piece_count();
        let mut world = World::new(&content, seed);
        // Ten hosts with 99 in 100 pieces, each piece with nine of them.
        for number in 0..10 {
            world.host(Board::ROOMY, |piece| piece % 10 != number || piece >= 100);
            world.limit_uplink(number as usize, 1_000_000);
            (0..number).for_each(|other| {
                world.connect(number as usize, other as usize, SHARED);
            });
        }
        assert!(world.hosts.iter().all(|host| host.desk.disk.verified_count > count * 9 / 10));
        let took = world.run_until_whole(20_000);
        println!(
            "{took} ms for the last {} pieces",
            count - world.hosts[0].desk.disk.order.len() as u32
        );
        world.part();
    });
}

#[test]
fn the_origin_goes_as_soon_as_each_piece_is_somewhere() {
    for_seeds(4, |seed| {
        let content = Content::new(2 << 20, 32 << 10, seed);
        let mut world = World::new(&content, seed);
        let origin = world.origin(Board::ROOMY);
        world.limit_uplink(origin, 1_000_000);
        for number in 1..=8 {
            world.leecher(Board::ROOMY);
            world.limit_uplink(number, 1_000_000);
            (0..number).for_each(|other| {
                world.connect(number, other, SHARED);
            });
        }
        let somewhere =
            |world: &World, piece| world.hosts[1..].iter().any(|host| host.desk.disk.has(piece));
        world.run_until(60_000, |world| {
            (0..world.content.piece_count()).all(|piece| somewhere(world, piece))
        });
        world.vanish(origin);
        world.run_until_whole(20_000);
        world.part();
    });
}
