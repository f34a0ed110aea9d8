//! What a connection, a torrent and an address cost. A profile's sums are made of these.

use std::mem::size_of;

use perennial::engine::peer::request::Request;
use perennial::engine::peer::{Output, Peer, Serving};
use perennial::engine::swarm::Swarm;
use perennial::engine::swarm::candidates::Candidate;
use perennial::engine::swarm::fetch::Fetch;
use perennial::engine::swarm::fetch::link::{Ask, Link};
use perennial::engine::swarm::fetch::partial::Partial;
use perennial::engine::swarm::roster::Member;
use perennial::engine::swarm::torrent::Torrent;

#[test]
fn a_connection_with_its_queue_stays_under_3_kib() {
    let queue = 128 * size_of::<Request>();
    let whole = size_of::<Peer<'_>>() + queue + size_of::<Option<Member>>();
    assert!(whole <= 3 << 10, "{whole} bytes");
}

#[test]
fn what_is_lent_by_the_piece_has_its_size() {
    let sizes = [
        ("Request", size_of::<Request>(), 12),
        ("Peer", size_of::<Peer<'_>>(), 1_280),
        ("Member", size_of::<Option<Member>>(), 128),
        ("Torrent", size_of::<Option<Torrent>>(), 96),
        ("Candidate", size_of::<Option<Candidate>>(), 56),
        ("Swarm", size_of::<Swarm<'_>>(), 256),
        ("Ask", size_of::<Ask>(), 8),
        ("Link", size_of::<Option<Link>>(), 144),
        ("Partial", size_of::<Option<Partial>>(), 192),
        ("Fetch", size_of::<Option<Fetch>>(), 1_280),
        // On the stack for the length of one call.
        ("Serving", size_of::<Serving>(), 1_024),
        ("Output", size_of::<Output<'_>>(), 1_024),
    ];
    for (name, bytes, most) in sizes {
        assert!(bytes <= most, "{name} takes {bytes} bytes, {most} at most");
        println!("{name} {bytes}");
    }
}
