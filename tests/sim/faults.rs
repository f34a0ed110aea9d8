//! Every way to break the protocol has a peer that does it, and ends for just that reason.

use perennial::engine::wire::PeerFault;

use crate::fake_peer::{self as say, Speaks};
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, Caller, SEED_ID, World};

/// One test for each line, and one `match` that does not compile while a variant has no line.
macro_rules! provoked {
    ($($name:ident: $fault:ident by $provoke:expr;)*) => {
        $(
            #[test]
            fn $name() {
                provoke(PeerFault::$fault, $provoke);
            }
        )*

        #[expect(dead_code, reason = "it is there to be compiled")]
        fn every_fault_is_provoked(fault: PeerFault) {
            match fault {
                $(PeerFault::$fault => {})*
            }
        }
    };
}

provoked! {
    another_protocol_is_let_go_at_its_first_bytes: NotBitTorrent by
        |world, _| world.script([Act::Say(b"GET / HTTP/1.1\r\n".to_vec())]);
    a_torrent_that_is_not_here_is_not_served: UnknownTorrent by
        |world, _| world.script([Act::Say(say::handshake([1; 20], [2; 20], Speaks::ALL))]);
    whoever_we_dial_answers_for_the_torrent_it_was_dialled_for: OtherTorrent by
        answers_for_another_torrent;
    the_box_does_not_talk_to_itself: Ourselves by
        |world, goal| {
            world.script([Act::Say(say::handshake(goal.info_hash, SEED_ID, Speaks::ALL))])
        };
    a_handshake_is_not_waited_for_for_ever: HandshakeLate by
        |world, _| world.script([Act::Say(b"\x13BitTorrent pro".to_vec())]);
    a_peer_that_falls_silent_is_let_go: Silent by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::interested());
    a_reader_that_takes_nothing_is_let_go: Stalled by takes_nothing;
    a_message_longer_than_any_is_not_waited_for: FrameTooLong by
        |world, goal| after_handshake(world, goal, Speaks::ALL, vec![0x7f, 0, 0, 0, 99]);
    a_message_is_as_long_as_its_kind: FrameLength by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::message(2, &[0]));
    a_bitfield_is_as_long_as_the_torrent: BitfieldLength by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::bitfield(&[0; 9]));
    a_bitfield_ends_with_the_last_piece: BitfieldSpare by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::bitfield(&[0, 1]));
    pieces_beyond_the_last_cannot_be_had: PieceRange by
        |world, goal| after_handshake(world, goal, Speaks::PLAIN, say::have(15));
    bytes_beyond_a_piece_cannot_be_asked_for: RequestRange by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::request((0, 1, 16 << 10)));
    requests_beyond_what_was_read_for_are_a_flood: RequestFlood by floods_a_careless_pump;
    blocks_nobody_asked_for_are_not_taken: Unrequested by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::piece((0, 0), &[0; 16]));
    extensions_are_used_by_agreement_only: NotNegotiated by
        |world, goal| after_handshake(world, goal, Speaks::PLAIN, say::have_none());
    an_extended_message_is_a_dictionary: Extended by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::extended(0, b"rubbish"));
    a_peer_cannot_go_on_saying_nothing_of_use: Pointless by
        |world, goal| after_handshake(world, goal, Speaks::ALL, say::keep_alive().repeat(3_000));
}

/// The faulty peer ends for `fault`; one beside it that does nothing wrong is served.
fn provoke(fault: PeerFault, guest: impl FnOnce(&mut World, Goal) -> Caller) {
    let mut world = World::new(Board::ROOMY, 1);
    let goal = world.serve(15 * 16_384, 16 << 10);
    let caller = guest(&mut world, goal);
    let bystander = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(10_000, |world| world.leecher(bystander).is_complete());
    world.run_until(300_000, |world| world.ending(caller).is_some());
    assert_eq!(world.ending(caller), Some(Ending::Fault(fault)), "{fault}");
}

fn after_handshake(world: &mut World, goal: Goal, speaks: Speaks, then: Vec<u8>) -> Caller {
    let handshake = say::handshake(goal.info_hash, [2; 20], speaks);
    world.script([Act::Say(handshake), Act::Say(then)])
}

fn answers_for_another_torrent(world: &mut World, goal: Goal) -> Caller {
    let other = world.serve(20_000, 16 << 10);
    world.dial(goal, [Act::Say(say::handshake(other.info_hash, [2; 20], Speaks::ALL))])
}

/// More than the kernels keep, and a word now and then so that it is not silent.
fn takes_nothing(world: &mut World, goal: Goal) -> Caller {
    let asks = (0..15).flat_map(|piece| say::request((piece, 0, 16 << 10))).collect();
    let mut acts = vec![
        Act::Say(say::handshake(goal.info_hash, [2; 20], Speaks::ALL)),
        Act::Say(say::interested()),
        Act::AwaitUnchoke,
        Act::Read(Pace::Never),
        Act::Say(asks),
    ];
    for _ in 0..5 {
        acts.extend([Act::Pause(60_000), Act::Say(say::keep_alive())]);
    }
    world.script(acts)
}

fn floods_a_careless_pump(world: &mut World, goal: Goal) -> Caller {
    world.heeds_appetite = false;
    let asks = say::request((0, 0, 16 << 10)).repeat(200);
    after_handshake(world, goal, Speaks::ALL, asks)
}
