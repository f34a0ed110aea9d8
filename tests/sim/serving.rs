//! Leechers of every kind fetch whole torrents.

use perennial::engine::swarm::roster::Farewell;

use crate::fake_peer::Speaks;
use crate::for_seeds;
use crate::leecher::Habits;
use crate::line::Pace;
use crate::prng::Prng;
use crate::pump::Ending;
use crate::sim_net::PipeKind;
use crate::world::{Board, Caller, World};

const MINUTE_MS: u64 = 60_000;

fn all_complete(world: &World, callers: &[Caller]) -> bool {
    callers.iter().all(|caller| world.leecher(*caller).is_complete())
}

/// Any leechers on any links, with storage that is sometimes cold.
fn anything_goes(seed: u64, cuts: u32) -> World {
    let mut prng = Prng::new(seed);
    let board = Board { unchoked_max: 1 + prng.below(6) as u16, ..Board::ROOMY };
    let mut world = World::new(board, seed);
    world.storage.cold_one_in = prng.below(2) * 9;
    world.storage.short_one_in = prng.below(2) * 5;
    world.storage.lane_ms = u64::from(prng.below(40));
    let goals = [world.serve(300_000, 32 << 10), world.serve(150_001, 16 << 10)];
    let callers: Vec<Caller> = (0..8)
        .map(|at| {
            let mut chance = world.draw();
            let habits = Habits::drawn(&mut chance);
            let kinds = [PipeKind::drawn(&mut chance), PipeKind::drawn(&mut chance)];
            world.leech(goals[at % 2], habits, kinds)
        })
        .collect();
    for _ in 0..cuts {
        world.run_for(prng.below(4_000).into());
        let carried = world.carried();
        if let Some(caller) = carried.get(prng.below(8) as usize) {
            world.cut(*caller);
        }
    }
    world.run_until(60 * MINUTE_MS, |world| all_complete(world, &callers));
    world.run_for(MINUTE_MS);
    assert_eq!((world.carried(), world.swarm.member_count()), (Vec::new(), 0));
    world
}

#[test]
fn leechers_of_every_kind_get_every_byte() {
    for_seeds(12, |seed| {
        anything_goes(seed, 0);
    });
}

#[test]
fn connections_that_are_cut_and_made_again_lose_nothing() {
    for_seeds(12, |seed| {
        anything_goes(seed, 30);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let digests: Vec<u64> = [5, 5, 6].map(|seed| anything_goes(seed, 10).trace.digest()).into();
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[test]
fn streams_cut_into_single_bytes_are_read_and_written_as_any_other() {
    for speaks in [Speaks::PLAIN, Speaks::ALL] {
        let mut world = World::new(Board::ROOMY, 1);
        let goal = world.serve(3 * 16_384 + 7, 16 << 10);
        let habits =
            Habits { speaks, wants_metadata: speaks.extended, cancels_one_in: 2, ..Habits::USUAL };
        let caller = world.leech(goal, habits, [PipeKind::ONE_BYTE; 2]);
        world.run_until(MINUTE_MS, |world| world.ending(caller).is_some());
        assert!(world.leecher(caller).is_complete());
        assert_eq!(world.ending(caller), Some(Ending::Farewell(Farewell::Complete)));
    }
}

#[test]
fn slow_peers_do_not_hold_up_fast_ones() {
    let mut world = World::new(Board::ROOMY, 2);
    let goal = world.serve(1 << 20, 64 << 10);
    let paces = [2_000, 20_000, 200_000, 2_000_000, 20_000_000];
    let callers = paces.map(|rate| {
        let habits = Habits { pace: Pace::BytesPerSecond(rate), ..Habits::USUAL };
        world.leech(goal, habits, [PipeKind::LAN; 2])
    });
    for (caller, rate) in callers.into_iter().zip(paces).rev() {
        let fair_ms = (1 << 20) * 1_000 / u64::from(rate.min(12_000_000));
        let limit_ms = 2 * fair_ms + 500 - world.now().as_millis().min(fair_ms);
        world.run_until(limit_ms, |world| world.leecher(caller).is_complete());
    }
}

#[test]
fn more_leechers_than_upload_slots_are_served_for_the_same_time() {
    for_seeds(3, |seed| {
        let mut world = World::new(Board { unchoked_max: 3, ..Board::ROOMY }, seed);
        let goal = world.serve(64 << 20, 256 << 10);
        let callers: Vec<Caller> = (0..10)
            .map(|at| {
                // Half of them ten times as fast as the others.
                let pace = Pace::BytesPerSecond(if at % 2 == 0 { 5_000 } else { 50_000 });
                let speaks = Speaks { fast: at % 4 < 2, extended: true };
                let habits = Habits { pace, speaks, ..Habits::USUAL };
                let narrow = PipeKind { queue_bytes: 32 << 10, ..PipeKind::LAN };
                world.leech(goal, habits, [PipeKind::LAN, narrow])
            })
            .collect();
        world.run_for(20 * MINUTE_MS);
        let times = callers.iter().map(|caller| world.unchoked_ms(*caller));
        let (least, most) = (times.clone().min().unwrap(), times.clone().max().unwrap());
        assert!(most < least * 3 / 2, "served between {least} and {most} ms");
        // Three slots were never idle.
        assert!(times.sum::<u64>() > 3 * 19 * MINUTE_MS);
        for (a, b) in [(0, 2), (1, 3)] {
            let got = [a, b].map(|at: usize| world.leecher(callers[at]).got_bytes);
            assert!(got[0] * 5 > got[1] * 4 && got[1] * 5 > got[0] * 4, "{got:?} bytes");
        }
    });
}

#[test]
fn crowds_larger_than_the_board_get_their_turn_in_the_end() {
    for_seeds(4, |seed| {
        let board = Board { peers_max: 4, unchoked_max: 2, ..Board::ROOMY };
        let mut world = World::new(board, seed);
        let goal = world.serve(200_000, 32 << 10);
        let habits = Habits { comes_back: true, ..Habits::USUAL };
        let callers: Vec<Caller> =
            (0..20).map(|_| world.leech(goal, habits, [PipeKind::LAN; 2])).collect();
        world.run_until(30 * MINUTE_MS, |world| all_complete(world, &callers));
    });
}
