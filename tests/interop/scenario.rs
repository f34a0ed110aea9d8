//! The parts the tests are put together from: trackers, links, and the wait for everybody to
//! finish.

use std::cell::RefCell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clients::{Client, Discovery, Fetch, http_body};
use crate::content::{self, Kind, Way};
use crate::hosts::{Host, Lan};
use crate::process::{Process, program, wait_until};
use crate::seed::{Seed, Share};
use crate::tracker::{Introduces, Tracker};

/// Each of `kinds` twice: once to be fetched by `.torrent`, once by magnet link.
pub fn both_ways(kinds: &[Kind]) -> Vec<PathBuf> {
    let ways = [Way::Torrent, Way::Magnet];
    ways.iter().flat_map(|&way| kinds.iter().map(move |&kind| content::path(kind, way))).collect()
}

/// What clients are given: a magnet link for shares meant to be fetched so, a `.torrent` for the
/// others.
pub fn links(shares: &[Share]) -> Vec<String> {
    let link = |share: &Share| {
        if content::is_by_magnet(&share.path) {
            share.magnet_without_addresses()
        } else {
            share.torrent.display().to_string()
        }
    };
    shares.iter().map(link).collect()
}

/// A machine for each client.
pub fn machines(lan: &Lan, clients: &[Client]) -> Vec<(Client, Host)> {
    clients.iter().map(|&client| (client, lan.host(client.role()))).collect()
}

/// Starts each client on its machine.
pub fn fetch_all<'h>(
    machines: &'h [(Client, Host)],
    links: &[String],
    discovery: Discovery,
) -> Vec<Fetch<'h>> {
    machines.iter().map(|(client, host)| client.fetch(host, links, discovery)).collect()
}

/// Waits until every client is done and compares what each of them got with what was shared.
pub fn expect_everything(fetches: &[Fetch], seed: &Seed, limit: Duration) {
    expect_shares(fetches, &seed.shares, limit, || seed.last_words());
}

/// As [`expect_everything`], whoever it is that `shares` came from and has `words` to say.
pub fn expect_shares(
    fetches: &[Fetch],
    shares: &[Share],
    limit: Duration,
    words: impl Fn() -> String,
) {
    let deadline = Instant::now() + limit;
    for fetch in fetches {
        wait_until(
            &format!("{:?} has everything", fetch.client()),
            deadline.saturating_duration_since(Instant::now()),
            || fetch.is_complete().then_some(()),
            || fetch.last_words() + &words(),
        );
    }
    for fetch in fetches {
        for share in shares {
            let name = share.path.file_name().expect("a share has a name");
            let arrived = fetch.downloads().join(name);
            let empty_files = fetch.client().makes_empty_files();
            let difference = RefCell::new(String::new());
            wait_until(
                &format!("what {:?} wrote is what was shared", fetch.client()),
                WRITE_LIMIT,
                || {
                    let outcome = content::compare(&share.path, &arrived, empty_files);
                    outcome.map_err(|found| *difference.borrow_mut() = found).ok()
                },
                || format!("{}\n{}", difference.borrow(), fetch.last_words()),
            );
        }
    }
}

/// A tracker of our own on every address of `host`.
pub fn start_tracker(host: &Host, introduces: Introduces) -> Tracker {
    let addresses: Vec<SocketAddr> =
        host.addresses().into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
    host.run(|| Tracker::start(&addresses, introduces)).expect("a free port on a new machine")
}

/// Waits until `tracker` has heard of every share of `seed`.
pub fn wait_until_seeded(tracker: &Tracker, seed: &Seed) {
    let is_heard = |share: &Share| {
        let info_hash = share.info_hash_bytes();
        tracker.heard().iter().any(|heard| heard.info_hash == info_hash && heard.left == 0)
    };
    wait_until(
        "the tracker knows the seed",
        ANNOUNCE_LIMIT,
        || seed.shares.iter().all(is_heard).then_some(()),
        || seed.last_words(),
    );
}

/// Debian's tracker, for `shares` and no other torrents, and the URL to announce to by `scheme`.
pub fn start_opentracker(host: &Host, shares: &[Share], scheme: &str) -> (Process, String) {
    // It moves its root to this folder and becomes `nobody` before it reads the list.
    let root = host.home().join("opentracker");
    fs::create_dir(&root).expect("the test's own folder is writable");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let list: String = shares.iter().map(|share| share.info_hash.clone() + "\n").collect();
    fs::write(root.join("whitelist"), list).expect("the test's own folder is writable");
    let address = opentracker_address(host);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = program("opentracker");
    command.args(["-i", &ip, "-p", &port, "-P", &port, "-w", "/whitelist", "-d"]).arg(root);
    (Process::start(host, &mut command), format!("{scheme}://{address}/announce"))
}

/// Waits until opentracker counts one peer for each of `shares`: one that is still looking at what
/// it has is no seed yet.
pub fn wait_until_seeded_at_opentracker(
    host: &Host,
    opentracker: &Process,
    shares: &[Share],
    words: impl Fn() -> String,
) {
    let escaped = |byte: u8| format!("%{byte:02x}");
    let queries = shares.iter().map(|share| {
        let info_hash = share.info_hash_bytes().map(escaped).concat();
        format!("info_hash={info_hash}")
    });
    let path = format!("/scrape?{}", queries.collect::<Vec<_>>().join("&"));
    wait_until(
        "opentracker knows the seed",
        ANNOUNCE_LIMIT,
        || {
            let answer = http_body(host, opentracker_address(host), &path).ok()?;
            let answer = String::from_utf8_lossy(&answer);
            let seeded = answer.matches("completei1e").count();
            (seeded == shares.len()).then_some(())
        },
        || opentracker.last_words() + &words(),
    );
}

/// Whether our program at `server` answers a handshake for `share` sent from `host`, or hangs up.
pub fn shakes_hands(host: &Host, server: SocketAddr, share: &Share) -> bool {
    let mut handshake = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    handshake.extend_from_slice(&share.info_hash_bytes());
    handshake.extend_from_slice(b"-XX0000-abcdefghijkl");
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&handshake)?;
        stream.read_exact(&mut [0; 68])
    };
    match host.run(exchange).map_err(|error| error.kind()) {
        Ok(()) => true,
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
        Err(other) => {
            panic!("{server} neither answers nor hangs up on {:?}: {other}", host.addresses())
        }
    }
}

fn opentracker_address(host: &Host) -> SocketAddr {
    let v4 = host.addresses().into_iter().find(IpAddr::is_ipv4);
    SocketAddr::new(v4.expect("opentracker speaks IPv4 only"), 6969)
}

/// How long a tracker may wait for the first word of those just started.
const ANNOUNCE_LIMIT: Duration = Duration::from_secs(60);

/// How long the last bytes may be on their way to the disk after a client says that all is here:
/// those made of libtorrent verify what they still hold in memory.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
