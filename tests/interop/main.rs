//! Interop: other people's clients fetch from `perennial share`, and `perennial get` from them and
//! from other people's servers, over real sockets, on this machine.
//!
//! For anyone whose friend uses another client than they do, which is everyone. Each test builds a
//! small network of namespaces ([`hosts`]), starts our program on one machine ([`seed`]) and
//! clients from Debian on others ([`clients`]), and compares what arrives byte by byte
//! ([`content`]). Where ours fetches ([`get`]), a client is the seed, or everybody is both.
//!
//! A test fails, rather than being skipped, when it is not run as root or a program is missing: it
//! then names the package. Clients wait more than they work, so run more tests at once than there
//! are cores: `cargo test --test interop -- --test-threads=4` takes two to three minutes on two
//! cores. With `PERENNIAL_FULL=1`, every client fetches the file of more than 4 GiB, not only two,
//! and it takes longer.
//!
//! ```text
//! content -> Seed::learn (info-hashes) -> tracker -> Seed::start -> Client::fetch -> compare
//! ```

mod clients;
mod content;
mod get;
#[expect(dead_code, reason = "each test crate uses what it needs")]
#[path = "../support/hosts.rs"]
mod hosts;
mod ours;
mod process;
mod scenario;
mod seed;
#[path = "../support/tracker.rs"]
mod tracker;
mod web;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use clients::{Client, Discovery, Fetch, downloads};
use content::{Kind, Way};
use hosts::{Family, Lan};
use process::wait_until;
use scenario::{
    both_ways, expect_everything, fetch_all, links, machines, shakes_hands, start_opentracker,
    start_tracker, wait_until_seeded, wait_until_seeded_at_opentracker,
};
use seed::Seed;
use tracker::{Event, Introduces, Transport};
use web::Nginx;

#[test]
fn transmission_fetches_through_opentracker() {
    fetches_through_opentracker(Client::Transmission, "http");
}

#[test]
fn aria2_fetches_through_opentracker() {
    fetches_through_opentracker(Client::Aria2, "udp");
}

#[test]
fn qbittorrent_fetches_through_opentracker() {
    fetches_through_opentracker(Client::Qbittorrent, "udp");
}

#[test]
fn libtorrent_fetches_through_opentracker() {
    fetches_through_opentracker(Client::Libtorrent, "http");
}

#[test]
fn transmission_fetches_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Transmission, Transport::Http);
}

#[test]
fn aria2_fetches_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Aria2, Transport::Http);
}

#[test]
fn qbittorrent_fetches_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Qbittorrent, Transport::Udp);
}

#[test]
fn libtorrent_fetches_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Libtorrent, Transport::Udp);
}

#[test]
fn transmission_fetches_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Transmission, Family::V4, &[]);
}

#[test]
fn aria2_fetches_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Aria2, Family::V4, &["--lan"]);
}

#[test]
fn qbittorrent_fetches_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Qbittorrent, Family::V4, &["--lan"]);
}

#[test]
fn libtorrent_fetches_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Libtorrent, Family::V4, &[]);
}

#[test]
fn qbittorrent_fetches_by_local_discovery_over_ipv6_alone() {
    fetches_by_local_discovery(Client::Qbittorrent, Family::V6, &[]);
}

#[test]
fn libtorrent_fetches_by_local_discovery_over_ipv6_alone() {
    fetches_by_local_discovery(Client::Libtorrent, Family::V6, &["--lan"]);
}

#[test]
fn libtorrent_and_qbittorrent_fetch_by_the_addresses_in_the_magnet_link() {
    let lan = Lan::new(Family::Both);
    let seed_host = lan.host("seed");
    let path = content::path(Kind::Film, Way::Torrent);
    let seed = Seed::start(&seed_host, &[path], &[]);
    let links = [seed.shares[0].magnet.clone()];
    let plain = tracker::percent_decoded(links[0].as_bytes()).expect("a magnet link is a URI");
    let plain = String::from_utf8_lossy(&plain);
    for address in seed_host.addresses() {
        let address = SocketAddr::new(address, PORT);
        assert!(plain.contains(&format!("x.pe={address}")), "{address} is not in {plain}");
    }
    let machines = machines(&lan, &[Client::Libtorrent, Client::Qbittorrent]);
    let fetches = fetch_all(&machines, &links, Discovery::TrackersOnly);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

#[test]
fn seed_dials_leechers_that_never_hear_of_it_over_ipv4() {
    seed_dials_leechers_that_never_hear_of_it(Family::V4, Transport::Udp);
}

#[test]
fn seed_dials_leechers_that_never_hear_of_it_over_ipv6() {
    seed_dials_leechers_that_never_hear_of_it(Family::V6, Transport::Http);
}

#[test]
fn all_clients_at_once_fetch_everything() {
    let lan = Lan::new(Family::Both);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let urls = [tracker.url(Transport::Http, 0), tracker.url(Transport::Udp, 1)];
    let paths = both_ways(&[Kind::Film, Kind::Series]);
    let seed = Seed::start(&seed_host, &paths, &["--tracker", &urls[0], "--tracker", &urls[1]]);
    let links = links(&seed.shares);
    let machines = machines(&lan, &Client::ALL);
    let fetches = fetch_all(&machines, &links, Discovery::Local);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

#[test]
fn clients_fetch_a_file_over_4_gib() {
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let clients = if full { &Client::ALL[..] } else { &[Client::Aria2, Client::Libtorrent] };
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let path = content::path(Kind::Image, Way::Torrent);
    let tracker = start_tracker(&tracker_host, Introduces::SeedsToLeechers);
    let url = tracker.url(Transport::Http, 0);
    let seed = Seed::start(&seed_host, &[path], &["--tracker", &url]);
    wait_until_seeded(&tracker, &seed);
    // One after the other: a copy is gone, and the disk has its room back, before the next begins.
    for (client, host) in machines(&lan, clients) {
        if client == Client::Transmission {
            // It asks a peer for no more than `reqq` blocks a second, and would take half an hour.
            content::leave_a_hole(&seed.shares[0].path, &downloads(&host));
        }
        let fetch = client.fetch(&host, &links(&seed.shares), Discovery::TrackersOnly);
        expect_everything(&[fetch], &seed, IMAGE_LIMIT);
        fs::remove_dir_all(downloads(&host)).expect("the test's own folder is writable");
    }
}

#[test]
fn trackers_hear_started_and_stopped_over_http_and_udp_and_both_families() {
    let lan = Lan::new(Family::Both);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let paths = [content::path(Kind::Film, Way::Torrent)];
    for (transport, index) in
        [(Transport::Http, 0), (Transport::Http, 1), (Transport::Udp, 0), (Transport::Udp, 1)]
    {
        let tracker = start_tracker(&tracker_host, Introduces::Everyone);
        let url = tracker.url(transport, index);
        let seed = Seed::start(&seed_host, &paths, &["--tracker", &url]);
        wait_until_seeded(&tracker, &seed);
        let info_hash = seed.shares[0].info_hash_bytes();
        let asked = Instant::now();
        seed.stop();
        let heard = tracker.heard();
        let [first, .., last] = &heard[..] else {
            panic!("{url} heard {} announces, not a start and an end", heard.len())
        };
        for announce in [first, last] {
            assert_eq!(announce.info_hash, info_hash, "at {url}");
            assert_eq!(announce.peer_id[..3], *b"-PN", "at {url}");
            assert_eq!(announce.transport, transport, "at {url}");
            assert_eq!(announce.left, 0, "at {url}");
            let address = SocketAddr::new(seed_host.addresses()[index], PORT);
            assert_eq!(announce.address, address, "at {url}");
        }
        assert_eq!((first.event, last.event), (Event::Started, Event::Stopped), "at {url}");
        let completed = heard.iter().any(|announce| announce.event == Event::Completed);
        assert!(!completed, "{url} was told of a completion, but a seed has nothing to complete");
        assert!(last.at - asked < Duration::from_secs(2), "at {url}");
    }
}

#[test]
fn share_for_the_lan_refuses_peers_from_elsewhere() {
    let lan = Lan::new(Family::Both);
    let seed_host = lan.host("seed");
    let public_v4 = Ipv4Addr::new(198, 51, 100, 1);
    let public_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);
    seed_host.add_address(public_v4.into(), 24);
    seed_host.add_address(public_v6.into(), 64);
    let path = content::path(Kind::Film, Way::Torrent);
    let seed = Seed::start(&seed_host, &[path], &["--lan"]);
    assert!(!seed.shares[0].magnet.contains("tr="), "a tracker in {}", seed.shares[0].magnet);

    let neighbour = lan.host("neighbour");
    let elsewhere = lan.host_at(
        "elsewhere",
        Some(Ipv4Addr::new(10, 99, 0, 9)),
        Some(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9)),
    );
    let public = lan.host_at(
        "public",
        Some(Ipv4Addr::new(198, 51, 100, 9)),
        Some(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 9)),
    );
    let own = seed_host.addresses();
    // Over IPv4 a peer must be on an interface's prefix and have a private address; over IPv6,
    // where a house's prefix is as a rule public, the prefix alone decides.
    for (host, server, welcome) in [
        (&neighbour, own[0], true),
        (&neighbour, own[1], true),
        (&elsewhere, own[0], false),
        (&elsewhere, own[1], false),
        (&public, public_v4.into(), false),
        (&public, public_v6.into(), true),
    ] {
        let answered = shakes_hands(host, SocketAddr::new(server, PORT), &seed.shares[0]);
        let from = host.addresses();
        assert_eq!(answered, welcome, "{from:?} to {server}\n{}", seed.last_words());
    }
}

#[test]
fn our_program_fetches_from_nginx_alone() {
    let lan = Lan::new(Family::Both);
    let (author, web_host, host) = (lan.host("author"), web_host(&lan), lan.host("box"));
    let path = content::path(Kind::Series, Way::Torrent);
    let [share] = &Seed::learn(&author, &[path], &["--lan"])[..] else { panic!("one share") };
    let shelf = share.path.parent().expect("it lies on a shelf");
    let nginx = Nginx::start(&web_host, shelf, "0", "http://127.0.0.1/");
    let torrent = web::naming(&host, &share.torrent, &Nginx::urls(&web_host, "/pub/"));
    let (get, downloads) = web::get(&host, &torrent, &[]);
    expect_fetched(&get, &nginx, share, &downloads);
    let requests = nginx.requests();
    assert!(requests.iter().all(|request| request.starts_with("206 /pub/")), "{requests:?}");
}

#[test]
fn our_program_fetches_from_nginx_and_a_peer_at_once() {
    let lan = Lan::new(Family::V4);
    let (seed_host, web_host, host) = (lan.host("seed"), web_host(&lan), lan.host("box"));
    let path = content::path(Kind::Film, Way::Torrent);
    let seed = Seed::start(&seed_host, &[path], &["--lan"]);
    let share = &seed.shares[0];
    let shelf = share.path.parent().expect("it lies on a shelf");
    let nginx = Nginx::start(&web_host, shelf, "3m", "http://127.0.0.1/");
    let torrent = web::naming(&host, &share.torrent, &Nginx::urls(&web_host, "/pub/")[..1]);
    let peer = SocketAddr::new(seed_host.addresses()[0], PORT).to_string();
    let (get, downloads) = web::get(&host, &torrent, &["--peer", &peer]);
    expect_fetched(&get, &nginx, share, &downloads);
    assert!(!nginx.requests().is_empty(), "the web server had a part in it");
    let sent = seed.stop_and_count();
    assert!(sent > 0, "the peer had a part in it");
}

#[test]
fn nginx_sends_our_program_to_no_machine_in_the_house() {
    let lan = Lan::new(Family::V4);
    let (author, web_host, host) = (lan.host("author"), web_host(&lan), lan.host("box"));
    let path = content::path(Kind::Film, Way::Torrent);
    let [share] = &Seed::learn(&author, &[path], &["--lan"])[..] else { panic!("one share") };
    let shelf = share.path.parent().expect("it lies on a shelf");
    let house = host.addresses()[0];
    for away in [format!("http://{house}:8080/"), "http://127.0.0.1:8080/".into()] {
        let nginx = Nginx::start(&web_host, shelf, "0", &away);
        let torrent = web::naming(&host, &share.torrent, &Nginx::urls(&web_host, "/away/")[..1]);
        let (get, _) = web::get(&host, &torrent, &[]);
        wait_until(
            "it does not go where it is sent",
            FETCH_LIMIT,
            || get.last_words().contains("leads to an address inside a house").then_some(()),
            || get.last_words() + &nginx.process.last_words(),
        );
        assert_eq!(nginx.requests().len(), 1);
        let _ = std::fs::remove_file(web_host.home().join("requests"));
    }
}

/// A machine with public addresses, as far as anybody here can tell.
fn web_host(lan: &Lan) -> hosts::Host {
    let (v4, v6) = (Ipv4Addr::new(198, 51, 100, 9), "2001:db8:77::9".parse());
    lan.host_at("web", Some(v4), v6.ok())
}

/// Waits until our program has fetched a share and ended, and compares it.
fn expect_fetched(get: &process::Process, nginx: &Nginx, share: &seed::Share, downloads: &Path) {
    let words = || get.last_words() + &nginx.process.last_words();
    let status = wait_until("our program is done", FETCH_LIMIT, || get.ended(), words);
    assert!(status.success(), "{status}\n{}", words());
    let arrived = downloads.join(share.path.file_name().expect("a share has a name"));
    content::compare(&share.path, &arrived, true)
        .unwrap_or_else(|difference| panic!("{difference}\n{}", words()));
}

/// By `.torrent` and by magnet link, every kind of content, over IPv4.
fn fetches_through_opentracker(client: Client, scheme: &str) {
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let paths = both_ways(&[Kind::Film, Kind::Series, Kind::Letters]);
    // The tracker wants to know its torrents beforehand.
    let learned = Seed::learn(&seed_host, &paths, &["--lan"]);
    let (opentracker, url) = start_opentracker(&tracker_host, &learned, scheme);
    let seed = Seed::start(&seed_host, &paths, &["--tracker", &url]);
    let words = || seed.last_words();
    wait_until_seeded_at_opentracker(&tracker_host, &opentracker, &seed.shares, words);
    let machines = machines(&lan, &[client]);
    let fetches = fetch_all(&machines, &links(&seed.shares), Discovery::TrackersOnly);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

/// By `.torrent` and by magnet link, with nothing but private IPv6 on the link.
fn fetches_over_ipv6(client: Client, transport: Transport) {
    let lan = Lan::new(Family::V6);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let url = tracker.url(transport, 0);
    let paths = both_ways(&[Kind::Film, Kind::Series]);
    let seed = Seed::start(&seed_host, &paths, &["--tracker", &url]);
    wait_until_seeded(&tracker, &seed);
    let machines = machines(&lan, &[client]);
    let fetches = fetch_all(&machines, &links(&seed.shares), Discovery::TrackersOnly);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

/// By `.torrent` and by magnet link, with no tracker and no address given.
fn fetches_by_local_discovery(client: Client, family: Family, options: &[&str]) {
    let lan = Lan::new(family);
    let seed_host = lan.host("seed");
    // Transmission announces one torrent every five seconds: once each is enough.
    let paths = [
        content::path(Kind::Film, Way::Torrent),
        content::path(Kind::Series, Way::Magnet),
        content::path(Kind::Letters, Way::Magnet),
    ];
    let seed = Seed::start(&seed_host, &paths, options);
    let machines = machines(&lan, &[client]);
    let fetches = fetch_all(&machines, &links(&seed.shares), Discovery::Local);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

/// All clients at once, none of which is told of the seed: whatever they get, it came to them.
fn seed_dials_leechers_that_never_hear_of_it(family: Family, transport: Transport) {
    let lan = Lan::new(family);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let tracker = start_tracker(&tracker_host, Introduces::LeechersToSeeds);
    let url = tracker.url(transport, 0);
    let paths = [content::path(Kind::Film, Way::Torrent)];
    let shares = Seed::learn(&seed_host, &paths, &["--tracker", &url]);

    let machines = machines(&lan, &Client::ALL);
    let fetches = fetch_all(&machines, &links(&shares), Discovery::TrackersOnly);
    // A seed asks only once in a while: of whom it does not hear when it starts it hears much
    // later.
    wait_until(
        "the tracker knows all leechers",
        FETCH_LIMIT,
        || {
            let heard = tracker.heard();
            let leechers: BTreeSet<IpAddr> =
                heard.iter().filter(|peer| peer.left > 0).map(|peer| peer.address.ip()).collect();
            (leechers.len() == fetches.len()).then_some(())
        },
        || {
            let words: String = fetches.iter().map(Fetch::last_words).collect();
            format!("{:?}\n{words}", tracker.heard())
        },
    );
    let seed = Seed::start(&seed_host, &paths, &["--tracker", &url]);
    expect_everything(&fetches, &seed, FETCH_LIMIT);
}

/// Where our program listens unless told otherwise.
const PORT: u16 = 6881;

/// How long clients may take for some megabytes, most of which they spend starting and retrying.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// How long a client may take for a file over 4 GiB, on a slow disk.
const IMAGE_LIMIT: Duration = Duration::from_secs(600);
