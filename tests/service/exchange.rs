//! Peers tell each other of peers (BEP 11), except those of a private torrent (BEP 27).

use crate::author::Torrent;
use crate::bytes;
use crate::program::{Call, Folder, PATIENCE, Program, wait_until};
use crate::seeder::{Habits, Seeder};
use std::sync::Arc;

/// Pieces the only source has, of more: both fetches go on as long as the test.
const THERE: u32 = 8;

/// One fetch is told of the source, another of that fetch: how often the source has been called
/// when the second has got all there is, from the first at least, and `met` says so.
fn calls_of_the_source(name: &str, torrent: Torrent, met: impl Fn(u32) -> bool) -> u32 {
    let torrent = Arc::new(torrent);
    let source = Seeder::start(&torrent, Habits { has: Some(0..THERE), ..Habits::default() });
    let homes = [Folder::new(&format!("{name}-near")), Folder::new(&format!("{name}-far"))];
    let path = torrent.write(homes[0].path(), "some.torrent");
    let arrived = |program: &Program| {
        for _ in 0..THERE {
            program.events_until("piece");
        }
    };
    let near = Call::get(&homes[0], &[&path]).with(&source.as_peer()).start();
    arrived(&near);
    let peer = ["--peer", &near.address.to_string()];
    let far = Call::get(&homes[1], &[&path]).with(&peer).start();
    arrived(&far);
    let calls = || source.tallies().connections;
    wait_until("calls", PATIENCE, || met(calls()).then_some(()), || far.log());
    calls()
}

fn film() -> Torrent {
    Torrent::single("film.mkv", 16 << 10, bytes(70, 20 * (16 << 10)))
}

#[test]
fn a_peer_is_heard_of_from_a_peer() {
    calls_of_the_source("exchange", film(), |calls| calls >= 2);
}

#[test]
fn nobody_hears_of_the_peers_of_a_private_torrent() {
    let calls = calls_of_the_source("exchange-private", film().into_private(), |_| true);
    assert_eq!(calls, 1);
}
