//! Links that are cut, hosts that come and go, disks that fail, clocks that jump.

use crate::content::Content;
use crate::for_seeds;
use crate::guest::{Habits, Vice};
use crate::host::Board;
use crate::prng::Prng;
use crate::sim_net::PipeKind;
use crate::spread::SHARED;
use crate::trace::Trace;
use crate::world::World;

/// Six leechers and an origin over links drawn from the seed, in a random graph.
fn neighbourhood(board: Board, total_bytes: u64, seed: u64) -> World {
    let content = Content::new(total_bytes, 32 << 10, seed);
    let mut world = World::new(&content, seed);
    let mut prng = Prng::new(seed);
    world.origin(Board::ROOMY);
    for number in 1..=6 {
        world.leecher(board);
        world.connect(number, number - 1, PipeKind::drawn(&mut prng));
        for other in 0..number - 1 {
            if prng.one_in(2) {
                world.connect(number, other, PipeKind::drawn(&mut prng));
            }
        }
    }
    world
}

#[test]
fn links_that_are_cut_lose_nothing() {
    for_seeds(10, |seed| {
        let mut world = neighbourhood(Board::ROOMY, 1 << 20, seed);
        let mut prng = Prng::new(seed ^ 77);
        for _ in 0..40 {
            world.run_for(u64::from(prng.below(400)));
            let wire = prng.below(world.wires.len() as u32) as usize;
            world.cut(wire);
        }
        world.run_until_whole(600_000);
        world.part();
    });
}

#[test]
fn hosts_that_vanish_and_come_back_lose_nothing() {
    for_seeds(10, |seed| {
        let mut world = neighbourhood(Board::ROOMY, 1 << 20, seed);
        let mut prng = Prng::new(seed ^ 78);
        for _ in 0..20 {
            world.run_for(u64::from(prng.below(1_000)));
            let host = prng.below(7) as usize;
            world.vanish(host);
            world.run_for(u64::from(prng.below(3_000)));
            world.appear(host);
        }
        world.run_until_whole(600_000);
        world.part();
    });
}

#[test]
fn disks_that_fail_now_and_then_lose_nothing() {
    for_seeds(8, |seed| {
        let board = Board { fails_one_in: 12, lane_ms: 200, ..Board::ROOMY };
        let mut world = neighbourhood(board, 1 << 20, seed);
        world.run_until_whole(3_600_000);
        world.part();
    });
}

#[test]
fn lanes_that_take_their_time_lose_nothing() {
    for_seeds(6, |seed| {
        let board = Board { lane_ms: 3_000, lane_buffers: 3, ..Board::ROOMY };
        let mut world = neighbourhood(board, 1 << 20, seed);
        world.run_until_whole(1_200_000);
        world.part();
    });
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    for_seeds(6, |seed| {
        let mut world = neighbourhood(Board::ROOMY, 1 << 20, seed);
        let mut prng = Prng::new(seed ^ 79);
        for _ in 0..10 {
            world.run_for(u64::from(prng.below(700)));
            world.sleep_through(u64::from(prng.below(10)) * 60_000);
        }
        world.run_until_whole(1_200_000);
        world.part();
    });
}

#[test]
fn a_slow_reader_is_not_let_go_while_much_is_new() {
    for_seeds(2, |seed| {
        // A thousand pieces in a second or two, and a peer that takes a block in almost one.
        let content = Content::new(16 << 20, 16 << 10, seed);
        let mut world = World::new(&content, seed);
        world.origin(Board::ROOMY);
        let relay = world.leecher(Board::ROOMY);
        let slow = world.leecher(Board::ROOMY);
        let narrow = PipeKind { bytes_per_s: 20_000, queue_bytes: 32 << 10, ..PipeKind::LAN };
        world.connect(relay, 0, PipeKind::LAN);
        let wire = world.connect(slow, relay, narrow);
        world.run_until(60_000, |world| world.hosts[relay].is_whole());
        world.run_until_whole(3_600_000);
        assert_eq!(world.wires[wire].made_count, 1, "{:?}", world.wires[wire].far_endings);
        world.part();
    });
}

#[test]
fn one_byte_at_a_time_is_enough() {
    for_seeds(2, |seed| {
        let content = Content::new(60_000, 16 << 10, seed);
        let mut world = World::new(&content, seed);
        for number in 0..3 {
            let has_all = number == 0;
            world.host(Board::ROOMY, |_| has_all);
            (0..number).for_each(|other| {
                world.connect(number, other, PipeKind::ONE_BYTE);
            });
        }
        world.run_until_whole(600_000);
        world.part();
    });
}

#[test]
fn guests_that_come_and_go_in_the_middle_of_a_block_lose_nothing() {
    for_seeds(10, |seed| {
        let content = Content::new(1 << 20, 128 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        let slow = PipeKind { bytes_per_s: 60_000, segment_bytes: 700, ..PipeKind::LAN };
        for number in 0..5 {
            let habits = Habits { block_ms: 30, ..Habits::with(Vice::LeavesAfter(2 + number)) };
            world.invite(host, habits, |piece| piece % 5 != number, slow);
        }
        let mut prng = Prng::new(seed ^ 80);
        for _ in 0..30 {
            world.run_for(u64::from(prng.below(500)));
            world.cut(prng.below(5) as usize);
        }
        world.run_until_whole(600_000);
        world.part();
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed: u64| {
        let mut world = neighbourhood(Board { lane_ms: 50, ..Board::ROOMY }, 1 << 20, seed);
        world.trace = Some(Trace::new());
        world.connect(6, 0, SHARED);
        world.limit_uplink(0, 300_000);
        world.invite(2, Habits::with(Vice::BadData(5)), |_| true, PipeKind::LAN);
        world.run_for(2_000);
        world.cut(1);
        let took = world.run_until_whole(600_000);
        (took, world.trace.as_ref().map(Trace::digest))
    };
    for_seeds(3, |seed| {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    });
}
