//! Rubbish from peers we fetch from: nobody panics, nothing leaks, and the honest one beside them
//! is fetched from all the same.

use perennial::engine::swarm::fetch::Order;

use crate::content::Content;
use crate::fake_peer::Speaks;
use crate::for_seeds;
use crate::guest::{Guest, Habits, MESSAGES, Vice};
use crate::host::Board;
use crate::prng::Prng;
use crate::sim_net::PipeKind;
use crate::world::World;

/// So many messages of all guests together.
fn survive(seed: u64, vice: Vice, guests: u32) -> u32 {
    let content = Content::new((1 << 20) - 3_000, 64 << 10, seed);
    let mut world = World::new(&content, seed);
    let mut prng = Prng::new(seed);
    let board = Board {
        partials_max: 1 + prng.below(20) as usize,
        asks_per_peer: 1 + prng.below(20) as u16,
        requests_per_peer: 1 + prng.below(20) as u16,
        pool_bytes: 600 << prng.below(4),
        lane_buffers: 1 + prng.below(4) as usize,
        order: if prng.one_in(2) { Order::Rarest } else { Order::Sequential },
        ..Board::ROOMY
    };
    let host = world.leecher(board);
    for _ in 0..guests {
        let speaks = Speaks { fast: prng.one_in(2), extended: prng.one_in(2) };
        let habits = Habits { speaks, ..Habits::with(vice) };
        let pieces = 1 + prng.below(4);
        world.invite(host, habits, |piece| piece % pieces == 0, PipeKind::LAN);
    }
    world.run_for(20_000);
    world.invite(host, Habits::GOOD, |_| true, PipeKind::LAN);
    world.run_until_whole(1_200_000);
    world.part();
    let left: u32 = world.guests.iter().map(|guest: &Guest| guest.messages_left).sum();
    MESSAGES * (guests + 1) - left
}

#[test]
fn messages_that_mean_anything_do_no_harm() {
    let said = std::cell::Cell::new(0);
    for_seeds(50, |seed| said.set(said.get() + survive(seed, Vice::Raves, 6)));
    println!("{} messages", said.get());
    assert!(said.get() > 100_000 || std::env::var("SIM_SEED").is_ok(), "{}", said.get());
}

#[test]
fn bytes_that_mean_nothing_do_no_harm() {
    for_seeds(20, |seed| {
        survive(seed, Vice::Noise, 6);
    });
}
