//! Single messages at awkward moments: what is sent is a stream that can be read.

use perennial::engine::swarm::roster::Farewell;

use crate::fake_peer::{self as say, Heard, Speaks};
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, SEED_ID, World};

/// So little room that a block, or a long bitfield, is half sent for a while.
fn narrow() -> [PipeKind; 2] {
    [PipeKind::LAN, PipeKind { queue_bytes: 100, ..PipeKind::LAN }]
}

fn greeting(goal: Goal, speaks: Speaks) -> Act {
    Act::Say(say::handshake(goal.info_hash, [2; 20], speaks))
}

fn is_metadata_reject(heard: &Heard) -> bool {
    matches!(heard, Heard::Metadata { dictionary, .. } if dictionary.starts_with("d8:msg_typei2e"))
}

#[test]
fn rejected_metadata_is_not_said_in_the_middle_of_a_block() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let address = world.next_address();
    let caller = world.script_from(
        address,
        narrow(),
        [
            greeting(goal, Speaks::ALL),
            Act::Say(say::hello(3)),
            Act::Say(say::interested()),
            Act::AwaitUnchoke,
            Act::Read(Pace::BytesPerSecond(2_000)),
            Act::Say(say::request((0, 0, 16 << 10))),
            Act::Pause(1_000),
            Act::Say(say::metadata_request(1, 9_999)),
        ],
    );
    world.run_for(20_000);
    let heard = &world.scripted(caller).heard;
    assert!(matches!(heard[heard.len() - 2], Heard::Piece { piece: 0, .. }));
    assert!(is_metadata_reject(&heard[heard.len() - 1]));
}

#[test]
fn rejected_metadata_is_not_said_in_the_middle_of_a_bitfield() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(16_384 * 8_000, 16 << 10);
    let address = world.next_address();
    let speaks = Speaks { fast: false, extended: true };
    let caller = world.script_from(
        address,
        narrow(),
        [
            Act::Read(Pace::BytesPerSecond(200)),
            greeting(goal, speaks),
            Act::Say(say::hello(3)),
            Act::Pause(3_000),
            Act::Say(say::metadata_request(1, 9_999)),
        ],
    );
    world.run_for(30_000);
    let heard = &world.scripted(caller).heard;
    assert_eq!(heard[1], Heard::Bitfield(vec![0xff; 1_000]));
    assert!(heard.iter().any(is_metadata_reject));
}

#[test]
fn metadata_and_blocks_come_between_each_other() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let asks: Vec<u8> = (0..6).flat_map(|piece| say::request((piece, 0, 16 << 10))).collect();
    let caller = world.script([
        greeting(goal, Speaks::ALL),
        Act::Say(say::hello(3)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Say(
            [asks, say::metadata_request(1, 2), say::metadata_request(1, 0)].concat().to_vec(),
        ),
    ]);
    world.run_for(1_000);
    let script = world.scripted(caller);
    assert_eq!(script.count(|heard| matches!(heard, Heard::Piece { .. })), 6);
    let metadata = script.heard.iter().filter_map(|heard| match heard {
        Heard::Metadata { data, .. } => Some(data.len()),
        _ => None,
    });
    assert_eq!(metadata.collect::<Vec<_>>(), [40_000 - 2 * 16_384, 16_384]);
}

#[test]
fn a_choke_is_said_right_after_the_block_that_was_begun() {
    for speaks in [Speaks::PLAIN, Speaks::ALL] {
        let mut world = World::new(Board { unchoked_max: 1, ..Board::ROOMY }, 1);
        let goal = world.serve(1 << 20, 64 << 10);
        // One, two and then three blocks and a half go while the reader pauses.
        let wide = PipeKind { queue_bytes: 6 * 16_397 + 8_000, ..PipeKind::LAN };
        let address = world.next_address();
        let acts = [
            greeting(goal, speaks),
            Act::Say(say::interested()),
            Act::AwaitUnchoke,
            Act::Read(Pace::Never),
            Act::Say((0..12).flat_map(|piece| say::request((piece, 0, 16 << 10))).collect()),
            Act::Pause(10_000),
            Act::Read(Pace::AtOnce),
        ];
        let caller = world.script_from(address, [PipeKind::LAN, wide], acts);
        world.run_for(1_000);
        // Whoever takes nothing for five seconds gives way to somebody who waits.
        world.script([greeting(goal, Speaks::ALL), Act::Say(say::interested())]);
        world.run_for(14_000);
        let heard = &world.scripted(caller).heard;
        let at = heard.iter().position(|heard| *heard == Heard::Choke).expect("a choke");
        let is_block = |heard: &Heard| matches!(heard, Heard::Piece { .. });
        assert_eq!(heard[..at].iter().filter(|heard| is_block(heard)).count(), 7);
        let after = &heard[at + 1..at + 1 + if speaks.fast { 5 } else { 0 }];
        assert!(after.iter().all(|heard| matches!(heard, Heard::Reject(_))), "{after:?}");
    }
}

#[test]
fn requests_right_behind_a_handshake_in_two_parts_are_no_flood() {
    let mut world = World::new(Board { requests_per_peer: 4, ..Board::ROOMY }, 1);
    let goal = world.serve(100_000, 16 << 10);
    let handshake = say::handshake(goal.info_hash, [2; 20], Speaks::ALL);
    let asks = say::request((0, 0, 16 << 10)).repeat(50);
    let caller = world.script([
        Act::Say(handshake[..60].to_vec()),
        Act::Pause(100),
        Act::Say([&handshake[60..], &asks].concat()),
    ]);
    world.run_for(1_000);
    let rejects = world.scripted(caller).count(|heard| matches!(heard, Heard::Reject(_)));
    assert_eq!((rejects, world.ending(caller)), (50, None));
}

#[test]
fn a_bitfield_may_come_after_an_extended_handshake() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let caller = world.script([
        greeting(goal, Speaks::ALL),
        Act::Say(say::hello(3)),
        Act::Say(say::bitfield(&[0b0100_0000])),
        Act::Say(say::have(0)),
    ]);
    world.run_for(1_000);
    assert_eq!(world.ending(caller), None);
}

#[test]
fn a_peer_that_has_everything_is_let_go() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let having = [
        say::have_all(),
        say::bitfield(&[0b1111_1110]),
        (0..7).flat_map(say::have).collect::<Vec<u8>>(),
    ];
    for having in having {
        let caller = world.script([greeting(goal, Speaks::ALL), Act::Say(having)]);
        world.run_for(1_000);
        assert_eq!(world.ending(caller), Some(Ending::Farewell(Farewell::Complete)));
    }
}

#[test]
fn whoever_is_dialled_hears_the_handshake_first() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let caller = world.dial(
        goal,
        [
            Act::Pause(1_000),
            greeting(goal, Speaks::ALL),
            Act::Say(say::interested()),
            Act::AwaitUnchoke,
            Act::Say(say::request((6, 0, 100_000 - 6 * 16_384))),
        ],
    );
    world.run_for(500);
    let Goal { info_hash, .. } = goal;
    let hello = Heard::Handshake { info_hash, peer_id: SEED_ID, speaks: Speaks::ALL };
    assert_eq!(world.scripted(caller).heard, [hello]);
    world.run_for(1_000);
    let script = world.scripted(caller);
    assert!(matches!(script.heard.last(), Some(Heard::Piece { piece: 6, begin: 0, .. })));
}

#[test]
fn a_peer_that_closes_its_half_is_gone() {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(100_000, 16 << 10);
    let caller = world.script([
        greeting(goal, Speaks::ALL),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Say(say::request((0, 0, 16 << 10))),
        Act::Shut,
    ]);
    let beside = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(10_000, |world| world.leecher(beside).is_complete());
    assert_eq!(world.ending(caller), Some(Ending::Gone));
}

#[test]
fn a_cut_while_shaking_hands_leaves_nothing_behind() {
    for kept in [0, 1, 67, 68, 100] {
        let mut world = World::new(Board::ROOMY, 1);
        let goal = world.serve(100_000, 16 << 10);
        let mut bytes = say::handshake(goal.info_hash, [2; 20], Speaks::ALL);
        bytes.extend(say::hello(3));
        bytes.truncate(kept);
        let caller = world.script([Act::Say(bytes)]);
        world.run_for(500);
        world.cut(caller);
        world.run_for(500);
        assert_eq!((world.ending(caller), world.swarm.member_count()), (Some(Ending::Gone), 0));
    }
}

#[test]
fn bitfields_of_any_length_arrive_whole() {
    for bytes in (1..4).chain(376..388).chain(760..768) {
        let mut world = World::new(Board::ROOMY, 1);
        let pieces = 8 * bytes - 3;
        let goal = world.serve(16_384 * pieces, 16 << 10);
        let speaks = Speaks { fast: false, extended: true };
        let caller = world.script([greeting(goal, speaks)]);
        world.run_for(1_000);
        let mut bits = vec![0xff; bytes as usize - 1];
        bits.push(0b1111_1000);
        let heard = &world.scripted(caller).heard;
        assert_eq!(heard[1], Heard::Bitfield(bits));
        assert!(matches!(heard[2], Heard::Hello(_)), "what did not fit with it comes next");
    }
}

#[test]
fn a_bitfield_may_end_with_any_bit_of_its_last_byte() {
    for pieces in 1..20 {
        let mut world = World::new(Board::ROOMY, 1);
        let goal = world.serve(16_384 * pieces, 16 << 10);
        let mut bits = vec![0; goal.layout.bitfield_bytes() as usize];
        bits[(pieces as usize - 1) / 8] |= 0x80 >> ((pieces - 1) % 8);
        let caller = world.script([greeting(goal, Speaks::ALL), Act::Say(say::bitfield(&bits))]);
        world.run_for(1_000);
        let has_all = pieces == 1;
        let complete = Ending::Farewell(Farewell::Complete);
        assert_eq!(world.ending(caller), has_all.then_some(complete), "{pieces} pieces");
    }
}

#[test]
fn a_long_message_that_is_passed_over_ends_where_it_says() {
    for cut in 1..10 {
        let mut world = World::new(Board::ROOMY, 1);
        let goal = world.serve(100_000, 16 << 10);
        let unknown = say::message(99, &[7; 3_000]);
        let caller = world.script([
            greeting(goal, Speaks::ALL),
            Act::Say(unknown[..cut].to_vec()),
            Act::Pause(10),
            Act::Say([&unknown[cut..], &say::request((6, 0, 9))].concat()),
        ]);
        world.run_for(1_000);
        assert_eq!(world.scripted(caller).heard.last(), Some(&Heard::Reject((6, 0, 9))));
        assert_eq!(world.ending(caller), None);
    }
}
