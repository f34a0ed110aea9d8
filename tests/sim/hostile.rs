//! Rubbish, conversations gone wrong, floods: each ends in a fault or is served, and whoever sits
//! beside them is served all the same.
//!
//! The memory of a connection is fixed by construction (`tests/budget` pins its size), so there is
//! nothing to measure here but that nobody panics and that nobody waits.

use perennial::engine::wire::PeerFault;

use crate::fake_peer::{self as say, Speaks};
use crate::for_seeds;
use crate::leecher::{Goal, Habits};
use crate::line::Pace;
use crate::prng::Prng;
use crate::pump::Ending;
use crate::script::Act;
use crate::sim_net::PipeKind;
use crate::world::{Board, Caller, World};

const TOTAL_BYTES: u64 = 100_000;

/// Runs hostile guests beside a good one, and all of them to their end.
fn survive(seed: u64, guests: impl Fn(&mut World, Goal, &mut Prng) -> Vec<Caller>) -> Vec<Ending> {
    let mut prng = Prng::new(seed);
    let requests_per_peer = 1 + prng.below(20) as u16;
    let mut world = World::new(Board { requests_per_peer, ..Board::ROOMY }, seed);
    let goal = world.serve(TOTAL_BYTES, 16 << 10);
    let guests = guests(&mut world, goal, &mut prng);
    let bystander = world.leech(goal, Habits::USUAL, [PipeKind::LAN; 2]);
    world.run_until(60_000, |world| world.leecher(bystander).is_complete());
    world.run_until(3_600_000, |world| guests.iter().all(|guest| world.ending(*guest).is_some()));
    guests.iter().filter_map(|guest| world.ending(*guest)).collect()
}

fn cut_up(bytes: &[u8], prng: &mut Prng) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1 + prng.below(700) as usize));
        acts.push(Act::Say(now.to_vec()));
        if prng.one_in(8) {
            acts.push(Act::Pause(prng.below(300).into()));
        }
        rest = later;
    }
    acts.push(Act::Shut);
    acts
}

fn call(world: &mut World, bytes: &[u8], prng: &mut Prng) -> Caller {
    let kinds = [PipeKind::drawn(prng), PipeKind::drawn(prng)];
    let mut acts = cut_up(bytes, prng);
    if prng.one_in(3) {
        let pace = if prng.one_in(2) { Pace::Never } else { Pace::BytesPerSecond(10_000) };
        acts.insert(prng.below(acts.len() as u32) as usize, Act::Read(pace));
    }
    world.script_from(world.next_address(), kinds, acts)
}

#[test]
fn rubbish_is_a_fault_or_is_passed_over() {
    for_seeds(60, |seed| {
        survive(seed, |world, goal, prng| {
            let guest = |number: u8, world: &mut World, prng: &mut Prng| {
                let speaks = Speaks { fast: prng.one_in(2), extended: prng.one_in(2) };
                let mut bytes = say::handshake(goal.info_hash, [number; 20], speaks);
                if prng.one_in(4) {
                    bytes.clear();
                }
                let start = bytes.len();
                bytes.resize(start + prng.below(3_000) as usize, 0);
                prng.fill(&mut bytes[start..]);
                // Lengths that make sense get further than those that do not.
                for at in (start..bytes.len().saturating_sub(4)).step_by(37) {
                    if prng.one_in(2) {
                        bytes[at..at + 4].copy_from_slice(&prng.below(40).to_be_bytes());
                    }
                }
                call(world, &bytes, prng)
            };
            (0..10).map(|number| guest(number, world, prng)).collect()
        });
    });
}

/// One of everything a leecher says, and then some.
fn conversation(goal: Goal, number: u8, speaks: Speaks) -> Vec<Vec<u8>> {
    let mut parts = vec![say::handshake(goal.info_hash, [number; 20], speaks)];
    if speaks.fast {
        parts.push(say::have_none());
    } else {
        parts.push(say::bitfield(&[0]));
    }
    if speaks.extended {
        parts.extend([say::hello(3), say::metadata_request(1, 0), say::metadata_request(1, 77)]);
    }
    parts.extend([say::interested(), say::keep_alive(), say::unchoke(), say::choke()]);
    for piece in 0..6 {
        parts.push(say::request((piece, 0, 16 << 10)));
        parts.push(say::cancel((piece, 0, 16 << 10)));
        parts.push(say::have(piece));
    }
    parts.extend([say::not_interested(), say::message(99, &[1; 300]), say::interested()]);
    parts
}

fn mutate(mut parts: Vec<Vec<u8>>, prng: &mut Prng) -> Vec<u8> {
    for _ in 0..1 + prng.below(4) {
        let at = prng.below(parts.len() as u32) as usize;
        let inside = prng.below(parts[at].len() as u32) as usize;
        match prng.below(7) {
            0 => parts[at][inside] ^= 1 << prng.below(8),
            1 => parts[at][inside] = prng.next_u8(),
            2 => parts[at].truncate(inside + 1),
            3 => parts[at].insert(inside, prng.next_u8()),
            4 => drop(parts.remove(at)),
            5 => {
                let again = parts[at].clone();
                parts.insert(prng.below(parts.len() as u32 + 1) as usize, again);
            }
            _ => {
                let other = prng.below(parts.len() as u32) as usize;
                parts.swap(at, other);
            }
        }
        if parts.iter().all(Vec::is_empty) {
            return vec![0];
        }
        parts.retain(|part| !part.is_empty());
    }
    parts.concat()
}

#[test]
fn conversations_gone_wrong_are_a_fault_or_are_served() {
    let faults = std::cell::Cell::new(0);
    for_seeds(80, |seed| {
        let endings = survive(seed, |world, goal, prng| {
            let guest = |number: u8, world: &mut World, prng: &mut Prng| {
                let speaks = Speaks { fast: prng.one_in(2), extended: prng.one_in(2) };
                let bytes = mutate(conversation(goal, number, speaks), prng);
                call(world, &bytes, prng)
            };
            (0..10).map(|number| guest(number, world, prng)).collect()
        });
        let faulty = endings.iter().filter(|ending| matches!(ending, Ending::Fault(_)));
        faults.set(faults.get() + faulty.count());
    });
    let faults = faults.get();
    assert!((100..700).contains(&faults), "{faults} of 800 conversations ended in a fault");
}

/// What follows when this is said 5,000 times over by a peer that reads so fast.
fn flood(said: &[u8], pace: Pace) -> Ending {
    let endings = survive(1, |world, goal, _| {
        let handshake = say::handshake(goal.info_hash, [1; 20], Speaks::ALL);
        let flood = [say::hello(3), say::interested(), said.repeat(5_000)].concat();
        let acts = [Act::Say(handshake), Act::Read(pace), Act::Say(flood), Act::Shut];
        vec![world.script(acts)]
    });
    endings[0]
}

#[test]
fn floods_without_purpose_end_in_a_fault() {
    let floods = [
        say::keep_alive(),
        say::cancel((0, 0, 16 << 10)),
        say::metadata_request(1, 9_999),
        say::message(99, &[7; 50]),
        say::extended(50, b"de"),
        [say::not_interested(), say::interested()].concat(),
    ];
    for said in floods {
        for pace in [Pace::AtOnce, Pace::Never] {
            assert_eq!(flood(&said, pace), Ending::Fault(PeerFault::Pointless), "{said:?}");
        }
    }
}

#[test]
fn floods_that_may_mean_something_hold_up_nobody() {
    let block = (0, 0, 16 << 10);
    let floods = [
        say::request(block),
        [say::request(block), say::cancel(block)].concat(),
        [say::choke(), say::unchoke()].concat(),
        say::have(3),
        say::hello(3),
        say::metadata_request(1, 0),
    ];
    for said in floods {
        for pace in [Pace::AtOnce, Pace::Never] {
            flood(&said, pace);
        }
    }
}
