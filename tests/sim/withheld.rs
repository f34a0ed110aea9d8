//! A file changes while it is shared: what it held is no longer offered, nor sent.
//!
//! That nothing withheld is sent is checked where blocks are about to be read, see
//! [`storage`](crate::storage). Here stands what becomes of the peers.

use perennial::engine::swarm::roster::Farewell;
use perennial::engine::units::Span;

use crate::fake_peer::{self as say, Heard, Speaks};
use crate::for_seeds;
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::prng::Prng;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, Caller, World};

/// Pieces 5 to 9 of 20.
const CHANGED: Span = Span { at: 5 * 32_768 + 100, length: 4 * 32_768 };
const CHANGED_BYTES: u64 = 5 * 32_768;

fn leechers(world: &mut World, goal: Goal) -> Vec<Caller> {
    let callers = (0..8).map(|_| {
        let mut chance = world.draw();
        let kinds = [PipeKind::drawn(&mut chance), PipeKind::drawn(&mut chance)];
        world.leech(goal, Habits::drawn(&mut chance), kinds)
    });
    callers.collect()
}

/// Everybody has all that is left, perhaps more, and knows that there is no more to be had.
fn run_to_the_end(world: &mut World, goal: Goal, callers: &[Caller]) {
    world.run_until(3_600_000, |world| {
        callers.iter().all(|caller| world.leecher(*caller).is_content())
    });
    for caller in callers {
        let got = world.leecher(*caller).got_bytes;
        assert!(got >= goal.layout.total_bytes - CHANGED_BYTES, "{got} bytes");
    }
}

#[test]
fn everything_else_is_fetched_when_a_file_is_found_to_have_changed() {
    let rejects = std::cell::Cell::new(0);
    for_seeds(12, |seed| {
        let mut prng = Prng::new(seed);
        let board = Board { unchoked_max: 1 + prng.below(8) as u16, ..Board::ROOMY };
        let mut world = World::new(board, seed);
        world.storage.cold_one_in = prng.below(2) * 5;
        world.storage.lane_ms = 20;
        let goal = world.serve(20 * 32_768, 32 << 10);
        let callers = leechers(&mut world, goal);
        world.run_for(200 + u64::from(prng.below(5_000)));
        world.withhold(goal.torrent, CHANGED);
        run_to_the_end(&mut world, goal, &callers);
        let heard = callers.iter().map(|caller| world.leecher(*caller).rejects_heard);
        rejects.set(rejects.get() + heard.sum::<u32>());
    });
    assert!(rejects.get() > 0, "nobody has been refused anything");
}

#[test]
fn everything_else_is_fetched_when_reading_shows_that_a_file_has_changed() {
    for_seeds(12, |seed| {
        let mut prng = Prng::new(seed);
        let mut world = World::new(Board::ROOMY, seed);
        world.storage.cold_one_in = prng.below(2) * 3;
        world.storage.lane_ms = 20;
        let goal = world.serve(20 * 32_768, 32 << 10);
        let callers = leechers(&mut world, goal);
        world.run_for(200 + u64::from(prng.below(2_000)));
        world.storage.changed = Some((goal.torrent, CHANGED));
        run_to_the_end(&mut world, goal, &callers);
    });
}

/// A peer that asks for pieces 4, 5 and 6 and reads 1,000 bytes a second: the first block is
/// under way for a while.
fn slow_asker(goal: Goal, speaks: Speaks) -> Vec<Act> {
    let asks = [4, 5, 6].iter().flat_map(|piece| say::request((*piece, 0, 16 << 10))).collect();
    vec![
        Act::Say(say::handshake(goal.info_hash, [2; 20], speaks)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Read(Pace::BytesPerSecond(1_000)),
        Act::Say(asks),
    ]
}

fn narrow() -> [PipeKind; 2] {
    [PipeKind::LAN, PipeKind { queue_bytes: 2_000, ..PipeKind::LAN }]
}

#[test]
fn a_fast_peer_hears_rejects_after_the_block_that_was_begun() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(20 * 32_768, 32 << 10);
    let address = world.next_address();
    let caller = world.script_from(address, narrow(), slow_asker(goal, Speaks::ALL));
    world.run_for(5_000);
    world.withhold(goal.torrent, CHANGED);
    world.run_for(60_000);
    let rejected = |piece| Heard::Reject((piece, 0, 16 << 10));
    let script = world.scripted(caller);
    let tail: Vec<&Heard> = script.heard.iter().rev().take(3).collect();
    assert!(matches!(tail[2], Heard::Piece { piece: 4, .. }), "{:?}", script.heard.len());
    assert_eq!([tail[1], tail[0]], [&rejected(5), &rejected(6)]);
    assert_eq!(world.ending(caller), None);
}

#[test]
fn a_block_that_was_begun_and_is_gone_ends_with_its_connection() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(20 * 32_768, 32 << 10);
    let address = world.next_address();
    let caller = world.script_from(address, narrow(), slow_asker(goal, Speaks::ALL));
    world.run_for(5_000);
    world.withhold(goal.torrent, Span { at: 4 * 32_768, length: 1 });
    // It is found out when the link next takes bytes.
    world.run_for(3_000);
    assert_eq!(world.ending(caller), Some(Ending::Farewell(Farewell::Withdrawn)));
}

#[test]
fn a_send_that_was_cut_short_brings_nothing_withheld_along() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(20 * 32_768, 32 << 10);
    // One, two and then three blocks and a half go while the reader pauses: the seed has seen the
    // link take more than a block at a time.
    let wide = PipeKind { queue_bytes: 6 * 16_397 + 8_000, ..PipeKind::LAN };
    let blocks = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (4, 0), (5, 0), (6, 0), (4, 1)];
    let wanted = blocks.map(|(piece, at)| (piece, at * 16_384, 16_384));
    let address = world.next_address();
    let acts = [
        Act::Say(say::handshake(goal.info_hash, [2; 20], Speaks::ALL)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Read(Pace::Never),
        Act::Say(wanted.into_iter().flat_map(say::request).collect()),
        Act::Pause(2_000),
        Act::Read(Pace::AtOnce),
    ];
    let caller = world.script_from(address, [PipeKind::LAN, wide], acts);
    world.run_for(1_000);
    world.withhold(goal.torrent, CHANGED);
    world.run_for(2_000);
    let heard = &world.scripted(caller).heard;
    let told = heard.iter().filter_map(|heard| match heard {
        Heard::Piece { piece, .. } => Some((*piece, true)),
        Heard::Reject((piece, ..)) => Some((*piece, false)),
        _ => None,
    });
    let begun = [0, 0, 1, 1, 2, 2, 4].map(|piece| (piece, true));
    let after = [(5, false), (6, false), (4, true)];
    assert_eq!(told.collect::<Vec<_>>(), [&begun[..], &after].concat());
}

#[test]
fn a_peer_that_cannot_be_told_is_let_go() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(20 * 32_768, 32 << 10);
    let caller = world.script(slow_asker(goal, Speaks::PLAIN));
    let elsewhere = world.serve(20_000, 16 << 10);
    let other = world.script(slow_asker(elsewhere, Speaks::PLAIN)[..2].to_vec());
    world.run_for(1_000);
    world.withhold(goal.torrent, CHANGED);
    world.run_for(1);
    assert_eq!(world.ending(caller), Some(Ending::Farewell(Farewell::Withdrawn)));
    assert_eq!(world.ending(other), None, "its torrent is as it was");
}

#[test]
fn what_is_withheld_is_not_offered_to_newcomers() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(20 * 32_768, 32 << 10);
    world.withhold(goal.torrent, CHANGED);
    for speaks in [Speaks::PLAIN, Speaks::ALL] {
        let handshake = say::handshake(goal.info_hash, [2; 20], speaks);
        let caller = world.script([Act::Say(handshake)]);
        world.run_for(100);
        let bits = Heard::Bitfield(vec![0b1111_1000, 0b0011_1111, 0b1111_0000]);
        assert!(world.scripted(caller).heard.contains(&bits));
    }
}
