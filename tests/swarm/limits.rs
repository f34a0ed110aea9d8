//! Every pool of the fetcher at its limit: slower, and everything comes all the same.

use perennial::engine::swarm::fetch::Order;

use crate::content::Content;
use crate::for_seeds;
use crate::guest::{Habits, Vice};
use crate::host::Board;
use crate::sim_net::PipeKind;
use crate::spread::SHARED;
use crate::world::World;

/// What two bitmaps, counters and little more take for the pieces of `mixed`.
const POOL_BYTES: usize = 1_024;

const TIGHT: Board = Board {
    requests_per_peer: 4,
    asks_per_peer: 1,
    partials_max: 1,
    lanes: 1,
    lane_buffers: 1,
    lane_buffer_bytes: 36 << 10,
    ..Board::ROOMY
};

/// An origin, leechers that know it and each other, guests with a part each and a liar or two.
fn mixed(board: Board, seed: u64) {
    let content = Content::new((1 << 20) + 5_000, 64 << 10, seed);
    let mut world = World::new(&content, seed);
    world.origin(Board::ROOMY);
    for number in 1..=4 {
        world.leecher(board);
        (0..number).for_each(|other| {
            world.connect(number, other, SHARED);
        });
        world.limit_uplink(number, 2_000_000);
        world.invite(number, Habits::GOOD, |piece| piece % 3 == 0, PipeKind::LAN);
        world.invite(number, Habits::with(Vice::Rejects), |_| true, PipeKind::LAN);
        world.invite(number, Habits::with(Vice::Silent), |_| true, PipeKind::LAN);
    }
    world.limit_uplink(0, 2_000_000);
    let took = world.run_until_whole(600_000);
    println!("{took} ms with {} partials, {} asks", board.partials_max, board.asks_per_peer);
    world.part();
}

#[test]
fn one_piece_under_way_at_a_time_is_enough() {
    for_seeds(4, |seed| {
        for partials_max in [1, 2, 3] {
            mixed(Board { partials_max, ..Board::ROOMY }, seed);
        }
    });
}

#[test]
fn one_request_at_a_time_is_enough() {
    for_seeds(4, |seed| {
        mixed(Board { asks_per_peer: 1, ..Board::ROOMY }, seed);
        mixed(Board { asks_per_peer: 2, requests_per_peer: 2, ..Board::ROOMY }, seed);
    });
}

#[test]
fn one_buffer_is_enough() {
    for_seeds(4, |seed| {
        let board = Board { lanes: 1, lane_buffers: 1, lane_ms: 40, ..Board::ROOMY };
        mixed(board, seed);
        mixed(Board { lane_buffer_bytes: 17 << 10, ..board }, seed);
    });
}

#[test]
fn a_pool_too_small_for_what_peers_have_is_enough() {
    for_seeds(4, |seed| {
        for pool_bytes in [POOL_BYTES / 2, POOL_BYTES, 2 * POOL_BYTES] {
            mixed(Board { pool_bytes, ..Board::ROOMY }, seed);
        }
    });
}

#[test]
fn all_of_it_together_is_enough() {
    for_seeds(8, |seed| {
        mixed(Board { pool_bytes: POOL_BYTES, ..TIGHT }, seed);
        mixed(Board { order: Order::Sequential, ..TIGHT }, seed);
    });
}

#[test]
fn a_piece_of_which_nobody_has_the_rest_is_not_in_the_way() {
    for_seeds(4, |seed| {
        let content = Content::new(1 << 20, 64 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board { partials_max: 1, ..Board::ROOMY });
        // It begins a piece nobody else has, and goes.
        let first = Habits { block_ms: 100, ..Habits::with(Vice::LeavesAfter(2)) };
        let gone = world.invite(host, first, |piece| piece == 3, PipeKind::LAN);
        world.never_again(gone);
        world.run_until(10_000, |world| world.guests[gone].ended);
        world.invite(host, Habits::GOOD, |piece| piece != 3, PipeKind::LAN);
        let others = world.content.piece_count() - 1;
        world.run_until(30_000, |world| world.hosts[host].desk.disk.verified_count == others);
        world.invite(host, Habits::GOOD, |_| true, PipeKind::LAN);
        world.run_until_whole(30_000);
        world.part();
    });
}
