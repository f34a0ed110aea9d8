//! What an idle box wakes for, and how long it waits for whom.

use std::collections::BTreeMap;

use perennial::engine::limits::{
    HANDSHAKE_TIMEOUT_MS, KEEPALIVE_MS, SILENCE_TIMEOUT_MS, STALL_TIMEOUT_MS,
};
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::wire::PeerFault;

use crate::fake_peer::{self as say, Heard, Speaks};
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, World};

const HOUR_MS: u64 = 3_600_000;

/// Shakes hands, says `then`, and is heard of again every `again_ms`.
fn idler(goal: Goal, name: u8, then: Vec<u8>, again_ms: u64) -> Vec<Act> {
    let handshake = say::handshake(goal.info_hash, [name; 20], Speaks::ALL);
    let mut acts = vec![Act::Say(handshake), Act::Say(then)];
    for _ in 0..2 * HOUR_MS / again_ms {
        acts.extend([Act::Pause(again_ms), Act::Say(say::keep_alive())]);
    }
    acts
}

fn keep_alives(heard: &Heard) -> bool {
    *heard == Heard::KeepAlive
}

#[test]
fn an_idle_hour_wakes_the_box_for_keep_alives_only() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(1 << 20, 16 << 10);
    for name in 0..20 {
        let wants = if name % 2 == 0 { say::interested() } else { Vec::new() };
        let acts = idler(goal, name, wants, 115_000 - u64::from(name) * 1_000);
        world.script(acts);
    }
    world.run_for(60_000);
    world.clock.forget();
    world.run_for(HOUR_MS);
    let most = 20 * (HOUR_MS / KEEPALIVE_MS + 1) as u32;
    let rung = world.clock.rung();
    assert_eq!(rung.keys().collect::<Vec<_>>(), [&"a keep-alive"]);
    assert!(rung["a keep-alive"] <= most, "{rung:?}");
    assert_eq!(world.carried().len(), 20);
}

#[test]
fn a_box_without_peers_wakes_for_nothing() {
    let mut world = World::new(Board::ROOMY, 1);
    world.serve(1 << 20, 16 << 10);
    world.run_for(24 * HOUR_MS);
    assert_eq!(world.clock.rung(), &BTreeMap::new());
}

#[test]
fn a_peer_hears_from_us_every_two_minutes_however_often_we_hear_from_it() {
    for again_ms in [10_000, 60_000, 109_000, 119_000, 230_000] {
        let mut world = World::new(Board::ROOMY, 1);
        let goal = world.serve(1 << 20, 16 << 10);
        let caller = world.script(idler(goal, 1, Vec::new(), again_ms));
        world.run_for(HOUR_MS);
        let heard = world.scripted(caller).count(keep_alives) as u64;
        assert!(heard >= HOUR_MS / 120_000, "{heard} in an hour, ours come every {again_ms} ms");
        assert!(heard <= HOUR_MS / KEEPALIVE_MS, "{heard} in an hour");
        assert_eq!(world.ending(caller), None);
    }
}

#[test]
fn a_silent_peer_goes_after_its_time_and_not_before() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(1 << 20, 16 << 10);
    let handshake = say::handshake(goal.info_hash, [1; 20], Speaks::ALL);
    let caller = world.script([Act::Say(handshake)]);
    world.run_for(SILENCE_TIMEOUT_MS);
    assert_eq!(world.ending(caller), None);
    world.run_for(10);
    assert_eq!(world.ending(caller), Some(Ending::Fault(PeerFault::Silent)));
}

#[test]
fn a_handshake_is_waited_for_five_seconds_however_it_trickles_in() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(1 << 20, 16 << 10);
    let handshake = say::handshake(goal.info_hash, [1; 20], Speaks::ALL);
    let trickle = handshake.iter().flat_map(|byte| [Act::Say(vec![*byte]), Act::Pause(100)]);
    let caller = world.script(trickle);
    world.run_for(HANDSHAKE_TIMEOUT_MS - 1);
    assert_eq!(world.ending(caller), None);
    world.run_for(1);
    assert_eq!(world.ending(caller), Some(Ending::Fault(PeerFault::HandshakeLate)));
}

#[test]
fn a_peer_that_takes_what_it_asked_for_need_not_say_a_word() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    let asks: Vec<u8> = (0..64).flat_map(|piece| say::request((piece, 0, 32 << 10))).collect();
    let narrow = PipeKind { queue_bytes: 32 << 10, ..PipeKind::LAN };
    let address = world.next_address();
    let acts = [
        Act::Say(say::handshake(goal.info_hash, [1; 20], Speaks::ALL)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Read(Pace::BytesPerSecond(4_000)),
        Act::Say(asks),
    ];
    let caller = world.script_from(address, [PipeKind::LAN, narrow], acts);
    // 64 blocks at 4,000 bytes a second: nine minutes, more than twice what a silent peer has.
    world.run_for(540_000);
    let blocks = world.scripted(caller).count(|heard| matches!(heard, Heard::Piece { .. }));
    assert_eq!(blocks, 64);
    const { assert!(2 * SILENCE_TIMEOUT_MS < 540_000) };
}

#[test]
fn a_reader_that_stalls_is_let_go_after_its_time_and_costs_others_nothing() {
    let run = |stalled: usize| {
        let mut world = World::new(Board { unchoked_max: 4, ..Board::ROOMY }, 1);
        let goal = world.serve(4 << 20, 64 << 10);
        let asks: Vec<u8> = (0..64).flat_map(|piece| say::request((piece, 0, 16 << 10))).collect();
        let stalled: Vec<_> = (0..stalled)
            .map(|name| {
                world.script([
                    Act::Say(say::handshake(goal.info_hash, [name as u8; 20], Speaks::ALL)),
                    Act::Say(say::interested()),
                    Act::AwaitUnchoke,
                    Act::Read(Pace::Never),
                    Act::Say(asks.clone()),
                    Act::Pause(100_000),
                    Act::Say(say::keep_alive()),
                ])
            })
            .collect();
        world.run_for(1_000);
        let narrow = PipeKind { bytes_per_s: 1_000_000, ..PipeKind::LAN };
        let leecher = world.leech(goal, Habits::USUAL, [PipeKind::LAN, narrow]);
        world.run_until(120_000, |world| world.leecher(leecher).is_complete());
        let took = world.now().as_millis() - 1_000;
        world.run_for(STALL_TIMEOUT_MS);
        for caller in stalled {
            assert_eq!(world.ending(caller), Some(Ending::Fault(PeerFault::Stalled)));
        }
        took
    };
    let (alone, beside_three, beside_eight) = (run(0), run(3), run(8));
    assert_eq!(alone, beside_three);
    // They hold every upload slot for five seconds each, two rounds at most.
    assert!(beside_eight <= alone + 10_000, "{alone} ms alone, {beside_eight} ms beside eight");
}

#[test]
fn nobody_is_kept_when_the_box_stops() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    let idle = world.script(idler(goal, 1, Vec::new(), 60_000));
    let habits = Habits { pace: Pace::Never, ..Habits::USUAL };
    let stalled = world.leech(goal, habits, [PipeKind::LAN; 2]);
    world.run_for(1_000);
    world.close();
    world.run_for(1);
    for caller in [idle, stalled] {
        assert_eq!(world.ending(caller), Some(Ending::Farewell(Farewell::Stopping)));
    }
}

#[test]
fn a_cold_read_that_is_due_behind_a_full_link_is_not_due_for_ever() {
    let mut world = World::new(Board::ROOMY, 1);
    world.storage.cold_one_in = 1;
    let goal = world.serve(1 << 20, 64 << 10);
    let [ask, back] = [say::request, say::cancel].map(|say| (1..4).map(move |p| say((p, 0, 9))));
    let narrow = PipeKind { queue_bytes: 20, ..PipeKind::LAN };
    let address = world.next_address();
    let acts = [
        Act::Say(say::handshake(goal.info_hash, [1; 20], Speaks::ALL)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Read(Pace::Never),
        Act::Say(say::request((0, 0, 16 << 10))),
        Act::Pause(1),
        // Three rejects, of which the link takes one.
        Act::Say(ask.chain(back).flatten().collect()),
    ];
    let caller = world.script_from(address, [PipeKind::LAN, narrow], acts);
    world.run_for(STALL_TIMEOUT_MS + 1_000);
    assert_eq!(world.ending(caller), Some(Ending::Fault(PeerFault::Stalled)));
}
