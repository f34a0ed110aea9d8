//! Our node and other people's on loopback: each finds what the other announced.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mainline::{Dht, Id, Testnet};
use smol::stream::StreamExt;

use crate::boxes::{Running, Seen};
use crate::world::hash;

/// Boxes of ours, each an entry for the next, of which the first has a torrent that others want.
fn ours_find_each_other(listen: &str) {
    let entry = Running::start(listen, &[], &[], b"");
    let first = Running::start(listen, &[entry.address], &[hash(1)], b"");
    let family = usize::from(first.address.is_ipv6());
    first.wait_until("announced", |seen| seen.stats[family].counts.searches > 0);
    let others: Vec<_> = (0..5)
        .map(|number| Running::start(listen, &[first.address], &[hash(1), hash(2 + number)], b""))
        .collect();
    for other in &others {
        other.wait_until("through with both", |seen| seen.stats[family].counts.searches > 1);
        other.wait_until("meeting the first", |seen| {
            seen.met.iter().any(|met| *met == (hash(1), first.address))
        });
    }
    let saved = first.stop();
    assert!(saved.len() > 30, "{} bytes are saved", saved.len());
    // One that knows nobody but whom it knew before.
    let again = Running::start(listen, &[], &[hash(4)], &saved);
    again.wait_until("meeting who was there before", |seen| {
        seen.met.iter().any(|(info_hash, peer)| *info_hash == hash(4) && *peer == others[2].address)
    });
}

#[test]
fn boxes_find_each_other_over_ipv4_and_again_after_a_restart() {
    ours_find_each_other("127.0.0.1");
}

#[test]
fn boxes_find_each_other_over_ipv6_and_again_after_a_restart() {
    ours_find_each_other("::1");
}

#[test]
fn mainline_finds_what_we_announce_and_we_find_what_it_announces() {
    let net = Testnet::builder(10).build().expect("ten nodes have room on loopback");
    let theirs: Vec<SocketAddr> = net.bootstrap.iter().map(|at| at.parse().unwrap()).collect();
    let (a, b) = (hash(100), hash(101));
    let one = net.nodes[3].clone().as_async();
    smol::block_on(one.announce_peer(Id::from(b), Some(7_001))).expect("it is announced");
    let ours = Running::start("127.0.0.1", &theirs[..1], &[a, b], b"");
    ours.wait_until("meeting mainline's peer", |seen| {
        seen.met.contains(&(b, "127.0.0.1:7001".parse().unwrap()))
    });
    wait_until("mainline meets us", || smol::block_on(finds(&net.nodes[7], a, ours.address)));
    // It keeps us in its table too: a node that knows us alone finds both.
    let late = Dht::builder().bootstrap(&[ours.address]).build().expect("it starts");
    wait_until("a node that knows only us meets us", || {
        smol::block_on(finds(&late, a, ours.address))
    });
    wait_until("a node that knows only us meets mainline's peer", || {
        smol::block_on(finds(&late, b, "127.0.0.1:7001".parse().unwrap()))
    });
    ours.wait_until("answering", |seen| seen.stats[0].counts.answers_out > 0);
}

async fn finds(dht: &Dht, info_hash: [u8; 20], peer: SocketAddr) -> bool {
    let mut found = dht.clone().as_async().get_peers(Id::from(info_hash));
    while let Some(peers) = found.next().await {
        if peers.iter().any(|found| SocketAddr::V4(*found) == peer) {
            return true;
        }
    }
    false
}

#[test]
fn libtorrent_finds_what_we_announce_and_we_find_what_it_announces() {
    let (a, b) = (hash(200), hash(201));
    let first = Running::start("127.0.0.1", &[], &[], b"");
    let second = Running::start("127.0.0.1", &[first.address], &[a], b"");
    second.wait_until("joined", |seen| seen.stats[0].nodes.1 > 0);
    let mut client = Libtorrent::start(&[first.address, second.address], a, b);
    client.wait_for(&format!("found {}", second.address));
    // The second's torrent, and libtorrent's.
    first.wait_until("told of both", |seen| seen.stats[0].peers_stored >= 2);
    let third = Running::start("127.0.0.1", &[second.address], &[b], b"");
    let met = |seen: &Seen| {
        seen.met
            .iter()
            .any(|(info_hash, peer)| *info_hash == b && peer.ip() == Ipv4Addr::new(127, 0, 0, 2))
    };
    third.wait_until("meeting libtorrent's peer", met);
}

/// libtorrent's own DHT node, at an address of its own.
struct Libtorrent {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Libtorrent {
    fn start(entries: &[SocketAddr], wanted: [u8; 20], announced: [u8; 20]) -> Libtorrent {
        let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
        let hex = |hash: [u8; 20]| hash.map(|byte| format!("{byte:02x}")).concat();
        // Debian's own interpreter: another one that comes first in PATH has no libtorrent.
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", include_str!("libtorrent_node.py"), &entries.join(",")])
            .args([hex(wanted), hex(announced), std::env::temp_dir().display().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("install libtorrent with: apt install python3-libtorrent");
        let (sender, lines) = std::sync::mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody listens any more once the test is over.
                let _ = sender.send(line);
            }
        });
        Libtorrent { child, lines }
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut said = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                if line.contains(wanted) {
                    return;
                }
                said.push(line);
            }
        }
        panic!("libtorrent does not say {wanted:?}: {said:#?}");
    }
}

impl Drop for Libtorrent {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not so: {what}");
}
