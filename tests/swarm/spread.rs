//! Content goes from one to many: how long it takes until the last has it.
//!
//! Every host sends at most [`UPLINK`], so one leecher alone needs as long as the origin does to
//! send it all. With many, all of it leaves the origin little more than once, and what each
//! receives it passes on at once: the last has it not long after the only one would.

use crate::content::Content;
use crate::for_seeds;
use crate::host::Board;
use crate::prng::Prng;
use crate::sim_net::PipeKind;
use crate::world::World;

/// A wire whose rate is that of the sender's uplink.
pub const SHARED: PipeKind = PipeKind {
    latency_ms: 10,
    jitter_ms: 0,
    bytes_per_s: 0,
    segment_bytes: 8 << 10,
    queue_bytes: 64 << 10,
};

/// What each host sends at most.
const UPLINK: u64 = 1_000_000;

/// Sixty-four pieces: sent in a second.
const SMALL: (u64, u32) = (1 << 20, 16 << 10);

/// Eight are served at a time, as somebody at the end of a thin line does.
const BOARD: Board = Board { unchoked_max: 8, ..Board::ROOMY };

/// Says how it went; when the last had everything.
fn spread(world: &mut World) -> u64 {
    let took = world.run_until_whole(600_000);
    let sum = |of: fn(&crate::host::Host) -> u64| world.hosts.iter().map(of).sum::<u64>() >> 10;
    let (received, wasted) = (sum(|host| host.received_bytes), sum(|host| host.wasted_bytes));
    let leechers = world.hosts.len() - 1;
    let sent = world.hosts[0].desk.sent_bytes >> 10;
    println!("{leechers}: {took} ms, {wasted} of {received} KiB wasted, {sent} from the origin");
    assert!(wasted * 20 <= received, "{wasted} of {received} KiB wasted");
    took
}

/// So many leechers who all know each other.
fn mesh(leechers: usize, seed: u64) -> u64 {
    let content = Content::new(8 << 20, 32 << 10, seed);
    let mut world = World::new(&content, seed);
    for number in 0..=leechers {
        world.host(BOARD, |_| number == 0);
        world.limit_uplink(number, UPLINK);
        (0..number).for_each(|other| {
            world.connect(number, other, SHARED);
        });
    }
    spread(&mut world)
}

/// So many leechers of whom each knows a few, and some the origin.
fn crowd(leechers: usize, (total_bytes, piece_bytes): (u64, u32), uplink: u64, seed: u64) -> u64 {
    let content = Content::new(total_bytes, piece_bytes, seed);
    let mut world = World::new(&content, seed);
    let mut prng = Prng::new(seed ^ 99);
    for number in 0..=leechers {
        let board = Board { asks_per_peer: 32, pool_bytes: 8 << 10, ..BOARD };
        world.host(board, |_| number == 0);
        world.limit_uplink(number, uplink);
        let mut known = vec![number];
        for _ in 0..4 + prng.below(6).min(number as u32) {
            let other = prng.below(number.max(1) as u32) as usize;
            if !known.contains(&other) && world.hosts[other].wires.len() < 40 {
                known.push(other);
                world.connect(number, other, SHARED);
            }
        }
    }
    spread(&mut world)
}

/// With `--full` a thousand, else so many.
fn most(otherwise: usize) -> usize {
    if std::env::var("PERENNIAL_FULL").is_ok() { 1_000 } else { otherwise }
}

#[test]
fn many_have_it_soon_after_one_would() {
    for_seeds(2, |seed| {
        let alone = mesh(1, seed);
        for leechers in [2, 4, 8, 16, 32] {
            let took = mesh(leechers, seed);
            println!("{leechers} leechers: {:.2} of one", took as f64 / alone as f64);
            assert!(2 * took <= 3 * alone, "{leechers} leechers: {took} ms, one: {alone} ms");
        }
    });
}

#[test]
fn a_crowd_in_which_everybody_knows_a_few_has_it_in_twice_the_time_of_one_copy() {
    for_seeds(1, |seed| {
        const CROWD_UPLINK: u64 = 4_000_000;
        let file = (16 << 20, 64 << 10);
        let copy_ms = file.0 * 1_000 / CROWD_UPLINK;
        for leechers in [30, most(100)] {
            let took = crowd(leechers, file, CROWD_UPLINK, seed);
            println!("{leechers} leechers: {:.2} of one copy", took as f64 / copy_ms as f64);
            assert!(took <= 2 * copy_ms, "{leechers} leechers: {took} ms, a copy: {copy_ms} ms");
        }
    });
}

#[test]
fn a_crowd_has_a_small_file_soon() {
    for_seeds(1, |seed| {
        let alone = crowd(1, SMALL, UPLINK, seed);
        for leechers in [30, 100, most(300)] {
            let took = crowd(leechers, SMALL, UPLINK, seed);
            println!("{leechers} leechers: {:.2} of one", took as f64 / alone as f64);
            // Each piece has three or four steps to go, and there are few pieces: from step to step
            // it is one of eight that are sent at once, so the last is on its way for half the time
            // it takes to send all of it.
            assert!(took <= 3 * alone, "{leechers} leechers: {took} ms, one: {alone} ms");
        }
    });
}

#[test]
fn a_relay_passes_on_what_it_has_before_it_has_much() {
    for_seeds(3, |seed| {
        let content = Content::new(8 << 20, 32 << 10, seed);
        let mut world = World::new(&content, seed);
        for number in 0..10 {
            world.host(Board::ROOMY, |_| number == 0);
            world.limit_uplink(number, UPLINK);
        }
        world.connect(1, 0, SHARED);
        (2..10).for_each(|leecher| {
            world.connect(leecher, 1, SHARED);
        });
        let took = spread(&mut world);
        let first = world.hosts[1].desk.first_sent.expect("it has passed something on");
        let count = world.content.piece_count();
        println!("{took} ms; the first byte left the relay when it had {first} of {count}");
        assert!(first * 50 <= count, "it had {first} of {count} pieces");
        world.part();
    });
}
