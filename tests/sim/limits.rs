//! Limits of 1 to 4, and what is done when each of them is reached.

use perennial::engine::metainfo::Layout;
use perennial::engine::swarm::Refused;
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::units::{Span, TorrentSlot};

use crate::fake_peer::{self as say, Heard, Speaks};
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, Caller, World, address};

const TINY: Board = Board {
    peers_max: 2,
    spare_pumps: 2,
    unchoked_max: 1,
    per_address_max: 2,
    requests_per_peer: 4,
    bits_bytes: 4,
    candidates_max: 2,
    torrents_max: 2,
};

const MINUTE_MS: u64 = 60_000;

/// How metadata messages begin (BEP 9).
const DATA: &str = "d8:msg_typei1e";
const REJECT: &str = "d8:msg_typei2e";

/// Says hello under a name of its own, then `then`, and keeps the connection alive for an hour.
fn visitor(goal: Goal, name: u8, then: Vec<u8>) -> Vec<Act> {
    let handshake = say::handshake(goal.info_hash, [name; 20], Speaks::ALL);
    let mut acts = vec![Act::Say(handshake), Act::Say(then)];
    for _ in 0..30 {
        acts.extend([Act::Pause(2 * MINUTE_MS), Act::Say(say::keep_alive())]);
    }
    acts
}

/// Wants something, is unchoked, takes it slowly.
fn slow_leecher(world: &mut World, goal: Goal) -> Caller {
    let habits = Habits { pace: Pace::BytesPerSecond(4_000), ..Habits::USUAL };
    let narrow = PipeKind { queue_bytes: 8 << 10, ..PipeKind::LAN };
    world.leech(goal, habits, [PipeKind::LAN, narrow])
}

fn refused(why: Refused) -> Option<Ending> {
    Some(Ending::Farewell(Farewell::Refused(why)))
}

#[test]
fn a_newcomer_goes_while_everybody_is_being_served_or_waits_for_it() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    let callers = [slow_leecher(&mut world, goal), slow_leecher(&mut world, goal)];
    world.run_for(5 * MINUTE_MS);
    let newcomer = world.script(visitor(goal, 1, say::interested()));
    world.run_for(1_000);
    assert_eq!(world.ending(newcomer), refused(Refused::Full));
    assert_eq!(callers.map(|caller| world.ending(caller)), [None; 2]);
    assert_eq!(world.scripted(newcomer).heard, [], "it is not told anything either");
}

#[test]
fn the_least_useful_connection_makes_room_for_a_newcomer() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    let served = slow_leecher(&mut world, goal);
    let idle = world.script(visitor(goal, 1, Vec::new()));
    world.run_for(10_000);
    let too_early = world.script(visitor(goal, 2, say::interested()));
    world.run_for(15_000);
    assert_eq!(world.ending(too_early), refused(Refused::Full), "nobody is sent away at once");
    let newcomer = world.script(visitor(goal, 3, say::interested()));
    world.run_for(1_000);
    assert_eq!(world.ending(idle), Some(Ending::Farewell(Farewell::MadeRoom)));
    assert_eq!([served, newcomer].map(|caller| world.ending(caller)), [None; 2]);
    assert_eq!(world.swarm.member_count(), 2);
}

#[test]
fn a_peer_that_may_ask_and_does_not_makes_room_in_the_end() {
    let mut world = World::new(Board { unchoked_max: 2, ..TINY }, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    slow_leecher(&mut world, goal);
    let idle = world.script(visitor(goal, 1, say::interested()));
    world.run_for(2 * MINUTE_MS);
    let newcomer = world.script(visitor(goal, 2, say::interested()));
    world.run_for(1_000);
    assert_eq!(world.ending(idle), Some(Ending::Farewell(Farewell::MadeRoom)));
    assert_eq!(world.ending(newcomer), None);
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let mut world = World::new(Board { peers_max: 4, ..TINY }, 1);
    let goal = world.serve(100_000, 16 << 10);
    let calls = [(9, 1), (9, 2), (9, 3), (8, 4)].map(|(host, name)| {
        let from = address(host, 1_000 + u16::from(name));
        world.script_from(from, [PipeKind::LAN; 2], visitor(goal, name, Vec::new()))
    });
    world.run_for(1_000);
    let ends = calls.map(|caller| world.ending(caller));
    assert_eq!(ends, [None, None, refused(Refused::Crowded), None]);
}

#[test]
fn nobody_is_here_twice_for_the_same_torrent() {
    let mut world = World::new(Board { peers_max: 4, per_address_max: 4, ..TINY }, 1);
    let goal = world.serve(100_000, 16 << 10);
    let other = world.serve(100_000, 16 << 10);
    let calls =
        [(goal, 9, 1), (goal, 9, 1), (goal, 8, 1), (other, 9, 1)].map(|(goal, host, name)| {
            let from = address(host, 1_000);
            let call = world.script_from(from, [PipeKind::LAN; 2], visitor(goal, name, Vec::new()));
            world.run_for(100);
            call
        });
    let ends = calls.map(|caller| world.ending(caller));
    assert_eq!(ends, [None, refused(Refused::Twice), None, None]);
}

#[test]
fn a_peer_that_left_without_a_word_may_come_back() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let from = address(9, 1_000);
    let before = world.script_from(from, [PipeKind::LAN; 2], visitor(goal, 1, Vec::new()));
    world.run_for(MINUTE_MS);
    let again = world.script_from(from, [PipeKind::LAN; 2], visitor(goal, 1, Vec::new()));
    world.run_for(1_000);
    assert_eq!(world.ending(before), Some(Ending::Farewell(Farewell::MadeRoom)));
    assert_eq!((world.ending(again), world.swarm.member_count()), (None, 1));
}

#[test]
fn newcomers_wait_outside_until_a_pump_can_hear_them() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let mute: Vec<Caller> = (0..4).map(|_| world.script([Act::Pause(MINUTE_MS)])).collect();
    let leecher = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_for(4_999);
    assert_eq!(world.leecher(leecher).got_bytes, 0);
    world.run_until(2_000, |world| world.leecher(leecher).is_complete());
    assert!(mute.iter().all(|caller| world.ending(*caller).is_some()), "they never shook hands");
}

#[test]
fn requests_beyond_the_queue_stay_with_the_kernel_and_none_is_lost() {
    for requests_per_peer in [1, 2, 3, 4] {
        for speaks in [Speaks::PLAIN, Speaks::ALL] {
            let mut world = World::new(Board { requests_per_peer, ..TINY }, 1);
            let goal = world.serve(200_000, 32 << 10);
            let habits = Habits { speaks, pipeline: 100, cancels_one_in: 5, ..Habits::USUAL };
            let caller = world.leech(goal, habits, [PipeKind::LAN; 2]);
            world.run_until(MINUTE_MS, |world| world.leecher(caller).is_complete());
        }
    }
}

#[test]
fn rejects_go_on_when_the_queue_is_full_of_them() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(200_000, 32 << 10);
    let asks = say::request((0, 0, 16 << 10)).repeat(50);
    let caller = world.script(visitor(goal, 1, asks));
    world.run_for(1_000);
    let rejects = world.scripted(caller).count(|heard| matches!(heard, Heard::Reject(_)));
    assert_eq!((rejects, world.ending(caller)), (50, None));
}

#[test]
fn metadata_asked_for_beyond_the_queue_is_rejected() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(200_000, 32 << 10);
    let asks = [say::hello(3), say::metadata_request(1, 0).repeat(50)].concat();
    let caller = world.script(visitor(goal, 1, asks));
    world.run_for(1_000);
    let answers = |kind: &'static str| {
        move |heard: &Heard| match heard {
            Heard::Metadata { dictionary, .. } => dictionary.starts_with(kind),
            _ => false,
        }
    };
    let script = world.scripted(caller);
    assert!(script.count(answers(DATA)) >= 4 && script.count(answers(REJECT)) > 0);
}

#[test]
fn a_single_upload_slot_goes_round() {
    let mut world = World::new(Board { peers_max: 4, ..TINY }, 1);
    let goal = world.serve(400_000, 32 << 10);
    let callers: Vec<Caller> = (0..4).map(|_| slow_leecher(&mut world, goal)).collect();
    world.run_for(5 * MINUTE_MS);
    let times: Vec<u64> = callers.iter().map(|caller| world.unchoked_ms(*caller)).collect();
    assert!(times.iter().all(|ms| (60_000..=90_000).contains(ms)), "{times:?}");
    world.run_until(20 * MINUTE_MS, |world| {
        callers.iter().all(|caller| world.leecher(*caller).is_complete())
    });
}

#[test]
fn reads_that_always_sleep_are_left_to_a_lane() {
    let mut world = World::new(TINY, 1);
    (world.storage.cold_one_in, world.storage.lane_ms) = (1, 30);
    let goal = world.serve(200_000, 32 << 10);
    let caller = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(MINUTE_MS, |world| world.leecher(caller).is_complete());
}

#[test]
fn a_torrent_too_many_is_refused_and_the_others_go_on() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(100_000, 16 << 10);
    world.serve(100_000, 16 << 10);
    let layout = Layout { total_bytes: 100_000, piece_bytes: 16 << 10 };
    assert!(world.try_serve(layout, 100).is_none());
    let caller = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(MINUTE_MS, |world| world.leecher(caller).is_complete());
}

#[test]
fn without_room_for_a_bitfield_nothing_of_a_changed_torrent_is_offered() {
    let mut world = World::new(Board { bits_bytes: 1, ..TINY }, 1);
    let goal = world.serve(9 * 16_384, 16 << 10);
    let whole = world.serve(100_000, 16 << 10);
    world.withhold(goal.torrent, Span { at: 0, length: 1 });
    assert!((0..9).all(|piece| !world.swarm.offers(goal.torrent, piece)));
    let asks = [say::interested(), say::request((3, 0, 16 << 10))].concat();
    let caller = world.script(visitor(goal, 1, asks));
    let leecher = world.leech(whole, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(MINUTE_MS, |world| world.leecher(leecher).is_complete());
    let heard = &world.scripted(caller).heard;
    assert!(heard.contains(&Heard::HaveNone) && heard.contains(&Heard::Reject((3, 0, 16 << 10))));
}

#[test]
fn addresses_beyond_the_table_take_the_place_of_less_useful_ones() {
    let mut world = World::new(TINY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let now = world.now();
    for host in 1..=200 {
        world.swarm.candidates.note(goal.torrent, address(host, 6_881), now);
    }
    assert_eq!(world.swarm.candidates.count(), 2);
    let due = world.swarm.candidates.take_due(now).expect("one of them");
    assert_eq!(due.torrent, TorrentSlot(0));
}

#[test]
fn an_upload_slot_that_becomes_free_is_given_at_once() {
    let mut world = World::new(Board { peers_max: 4, ..TINY }, 1);
    let goal = world.serve(4 << 20, 64 << 10);
    let served = slow_leecher(&mut world, goal);
    world.run_for(100);
    let waiting = world.script(visitor(goal, 1, say::interested()));
    world.run_for(100);
    let unchokes = |heard: &Heard| *heard == Heard::Unchoke;
    assert_eq!(world.scripted(waiting).count(unchokes), 0);
    world.cut(served);
    world.run_for(100);
    assert_eq!(world.scripted(waiting).count(unchokes), 1);
}
