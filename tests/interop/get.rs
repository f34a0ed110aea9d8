//! Our program fetches: from each of the other clients, in swarms of all of them, and as a relay.
//!
//! The other client seeds a copy of what the tests share ([`content`]). Its torrents are made by
//! ours, but for one that libtorrent makes with all it can put into one.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clients::{Client, Discovery, Fetch, downloads};
use crate::content::{self, Kind, Way};
use crate::hosts::{Family, Host, Lan};
use crate::ours::Getter;
use crate::process::{program, wait_until};
use crate::scenario::{
    expect_shares, fetch_all, links, machines, start_opentracker, start_tracker,
    wait_until_seeded_at_opentracker,
};
use crate::seed::{Seed, Share};
use crate::tracker::{Introduces, Transport};

#[test]
fn ours_fetches_from_transmission_by_address_and_through_opentracker() {
    fetches_by_address_and_through_opentracker(Client::Transmission, "udp", &[]);
}

#[test]
fn ours_fetches_from_aria2_by_address_and_through_opentracker() {
    fetches_by_address_and_through_opentracker(Client::Aria2, "http", &[]);
}

#[test]
fn ours_fetches_from_qbittorrent_by_address_and_through_opentracker() {
    fetches_by_address_and_through_opentracker(Client::Qbittorrent, "http", &[]);
}

#[test]
fn ours_fetches_from_libtorrent_by_address_and_through_opentracker() {
    let letters = [Kind::Letters];
    fetches_by_address_and_through_opentracker(Client::Libtorrent, "udp", &letters);
}

#[test]
fn ours_fetches_from_transmission_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Transmission, Family::V4, &["--lan"]);
}

#[test]
fn ours_fetches_from_aria2_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Aria2, Family::V4, &[]);
}

#[test]
fn ours_fetches_from_qbittorrent_by_local_discovery_alone() {
    fetches_by_local_discovery(Client::Qbittorrent, Family::V4, &[]);
}

#[test]
fn ours_fetches_from_libtorrent_by_local_discovery_over_ipv6_alone() {
    fetches_by_local_discovery(Client::Libtorrent, Family::V6, &[]);
}

#[test]
fn ours_fetches_from_qbittorrent_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Qbittorrent, Transport::Udp);
}

#[test]
fn ours_fetches_from_libtorrent_on_a_network_with_ipv6_only() {
    fetches_over_ipv6(Client::Libtorrent, Transport::Http);
}

#[test]
fn ours_fetches_a_torrent_of_both_versions_with_padding_that_libtorrent_made() {
    let lan = Lan::new(Family::V4);
    let (seed_host, our_host) = (lan.host("seed"), lan.host("ours"));
    let shared = content::path(Kind::Series, Way::Torrent);
    content::copy(&shared, &downloads(&seed_host));
    let copy = downloads(&seed_host).join(shared.file_name().expect("a share has a name"));
    let torrent = seed_host.home().join("hybrid.torrent");
    let script = seed_host.home().join("make_torrent.py");
    fs::write(&script, include_str!("make_torrent.py")).expect("the test's own folder is writable");
    let mut make = program("/usr/bin/python3");
    let status = make.arg(script).args([&copy, &torrent]).status();
    assert!(status.is_ok_and(|status| status.success()), "libtorrent makes no torrent");
    let torrents = [torrent.display().to_string()];
    let seed = Client::Libtorrent.seed(&seed_host, &torrents, Discovery::TrackersOnly, 0);
    wait_until_ready(&seed);
    let peer = address(&seed_host, Client::Libtorrent);
    let ours = Getter::start(&our_host, &torrents, &["--peer", &peer]);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
    expect_arrived(&ours, &[shared]);
}

#[test]
fn everybody_fetches_at_once_from_transmission_and_ours_uploads() {
    everybody_fetches_at_once(Client::Transmission, &[Client::Qbittorrent, Client::Libtorrent]);
}

#[test]
fn everybody_fetches_at_once_from_libtorrent_and_ours_uploads() {
    everybody_fetches_at_once(Client::Libtorrent, &[Client::Transmission, Client::Aria2]);
}

#[test]
fn everybody_fetches_what_ours_shares_through_ours_that_fetches_it() {
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host, our_host) =
        (lan.host("seed"), lan.host("tracker"), lan.host("ours"));
    let paths = film_and_series();
    // Of the origin knows only one of ours; the others know that one and each other.
    let origin = Seed::start(&seed_host, &paths, &["--lan"]);
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let url = tracker.url(Transport::Http, 0);
    let told = Seed::learn(&lan.host("author"), &paths, &["--tracker", &url]);
    let peer = SocketAddr::new(seed_host.addresses()[0], OUR_PORT).to_string();
    let ours = Getter::start(&our_host, &links(&told), &["--peer", &peer, "--tracker", &url]);
    let machines = machines(&lan, &[Client::Qbittorrent, Client::Libtorrent]);
    let others = fetch_all(&machines, &links(&told), Discovery::TrackersOnly);
    ours.wait_until_complete(FETCH_LIMIT, || origin.last_words());
    expect_arrived(&ours, &paths);
    expect_shares(&others, &told, FETCH_LIMIT, || ours.last_words());
    // Ours may have told them where it is, so what they got need not have come from ours alone.
    let sent = ours.stop();
    assert!(sent > 0, "ours only took\n{}", origin.last_words());
}

#[test]
fn transmission_gets_pieces_from_ours_while_ours_fetches_them_from_qbittorrent() {
    relays(Client::Qbittorrent, Client::Transmission);
}

#[test]
fn libtorrent_gets_pieces_from_ours_while_ours_fetches_them_from_transmission() {
    relays(Client::Transmission, Client::Libtorrent);
}

/// By the address of the seed alone, then by a real tracker alone, over IPv4.
fn fetches_by_address_and_through_opentracker(client: Client, scheme: &str, more: &[Kind]) {
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let mut paths = film_and_series();
    paths.extend(more.iter().map(|kind| content::path(*kind, Way::Magnet)));
    let untold = keep(&seed_host, &Seed::learn(&seed_host, &paths, &["--lan"]));
    let (opentracker, url) = start_opentracker(&tracker_host, &untold, scheme);
    let told = Seed::learn(&seed_host, &paths, &["--tracker", &url]);
    let seed = seed_all(client, &seed_host, &told, Discovery::TrackersOnly, 0);
    let by_address = lan.host("by-address");
    let peer = address(&seed_host, client);
    let ours = Getter::start(&by_address, &links(&untold), &["--peer", &peer]);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
    expect_arrived(&ours, &paths);
    ours.stop();

    let words = || seed.last_words();
    wait_until_seeded_at_opentracker(&tracker_host, &opentracker, &told, words);
    let by_tracker = lan.host("by-tracker");
    // A private address is asked because the owner names it.
    let ours = Getter::start(&by_tracker, &links(&told), &["--tracker", &url]);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words() + &opentracker.last_words());
    expect_arrived(&ours, &paths);
    ours.stop();
}

/// With nothing but private IPv6 on the link: by the seed's address, and by a tracker.
fn fetches_over_ipv6(client: Client, transport: Transport) {
    let lan = Lan::new(Family::V6);
    let (seed_host, tracker_host) = (lan.host("seed"), lan.host("tracker"));
    let paths = film_and_series();
    let untold = keep(&seed_host, &Seed::learn(&seed_host, &paths, &["--lan"]));
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let url = tracker.url(transport, 0);
    let told = Seed::learn(&seed_host, &paths, &["--tracker", &url]);
    let seed = seed_all(client, &seed_host, &told, Discovery::TrackersOnly, 0);
    for (role, shares, options) in [
        ("by-address", &untold, &["--peer", &address(&seed_host, client)][..]),
        ("by-tracker", &told, &["--tracker", &url]),
    ] {
        let our_host = lan.host(role);
        let ours = Getter::start(&our_host, &links(shares), options);
        ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
        expect_arrived(&ours, &paths);
        ours.stop();
    }
}

/// With no tracker and no address given.
fn fetches_by_local_discovery(client: Client, family: Family, options: &[&str]) {
    let lan = Lan::new(family);
    let (seed_host, our_host) = (lan.host("seed"), lan.host("ours"));
    let paths = film_and_series();
    let shares = Seed::learn(&seed_host, &paths, &["--lan"]);
    let seed = seed_all(client, &seed_host, &shares, Discovery::Local, 0);
    let ours = Getter::start(&our_host, &links(&shares), options);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
    expect_arrived(&ours, &paths);
}

/// One slow seed, and ours with two others fetching from it and from each other.
fn everybody_fetches_at_once(origin: Client, others: &[Client]) {
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host, our_host) =
        (lan.host("seed"), lan.host("tracker"), lan.host("ours"));
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let url = tracker.url(Transport::Http, 0);
    let paths = [content::path(Kind::Film, Way::Magnet)];
    let told = Seed::learn(&lan.host("author"), &paths, &["--tracker", &url]);
    let seed = seed_all(origin, &seed_host, &told, Discovery::TrackersOnly, SLOW_KIB);
    // Those that take longest to start, and then to look around again, come first.
    let machines = machines(&lan, others);
    let others = fetch_all(&machines, &links(&told), Discovery::TrackersOnly);
    let ours = Getter::start(&our_host, &links(&told), &["--tracker", &url]);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
    expect_arrived(&ours, &paths);
    expect_shares(&others, &told, FETCH_LIMIT, || seed.last_words());
    let sent = ours.stop();
    println!("{sent} bytes sent by ours");
    assert!(sent > 0, "ours only took\n{}", seed.last_words());
}

/// A leecher that knows nobody but ours, while ours fetches from a slow seed.
fn relays(origin: Client, leecher: Client) {
    let lan = Lan::new(Family::V4);
    let (seed_host, tracker_host, our_host) =
        (lan.host("seed"), lan.host("tracker"), lan.host("ours"));
    let paths = [content::path(Kind::Film, Way::Torrent)];
    let untold = keep(&seed_host, &Seed::learn(&seed_host, &paths, &["--lan"]));
    let tracker = start_tracker(&tracker_host, Introduces::Everyone);
    let url = tracker.url(Transport::Http, 0);
    let told = Seed::learn(&seed_host, &paths, &["--tracker", &url]);
    let seed = seed_all(origin, &seed_host, &untold, Discovery::TrackersOnly, SLOWER_KIB);
    let machines = machines(&lan, &[leecher]);
    let leechers = fetch_all(&machines, &links(&told), Discovery::TrackersOnly);
    let words = || leechers[0].last_words();
    let heard = || tracker.heard().iter().any(|announce| announce.left > 0).then_some(());
    wait_until("the leecher waits", FETCH_LIMIT, heard, words);
    let peer = address(&seed_host, origin);
    let ours = Getter::start(&our_host, &links(&told), &["--peer", &peer, "--tracker", &url]);
    let arrives = || {
        let bytes = content::bytes_on_disk(leechers[0].downloads());
        assert!(ours.count("complete") == 0, "ours was first\n{}{}", words(), ours.last_words());
        (bytes > 0).then_some(bytes)
    };
    let evidence = || ours.last_words() + &words() + &seed.last_words();
    wait_until("the first pieces are passed on", FETCH_LIMIT, arrives, evidence);
    ours.wait_until_complete(FETCH_LIMIT, || seed.last_words());
    expect_arrived(&ours, &paths);
    expect_shares(&leechers, &told, FETCH_LIMIT, || ours.last_words());
    assert!(ours.stop() > 0, "{}", seed.last_words());
}

/// The film by `.torrent` and the series by magnet link.
fn film_and_series() -> Vec<PathBuf> {
    vec![content::path(Kind::Film, Way::Torrent), content::path(Kind::Series, Way::Magnet)]
}

/// Keeps the torrents of `shares` as they are now: in the state folder they may be made anew.
fn keep(host: &Host, shares: &[Share]) -> Vec<Share> {
    let keep = |(number, share): (usize, &Share)| {
        let torrent = host.home().join(format!("kept {number}.torrent"));
        fs::copy(&share.torrent, &torrent).expect("the test's own folder is writable");
        Share { torrent, ..share.clone() }
    };
    shares.iter().enumerate().map(keep).collect()
}

/// A client that seeds all of `shares`, and has looked at its copies of them.
fn seed_all<'h>(
    client: Client,
    host: &'h Host,
    shares: &[Share],
    discovery: Discovery,
    upload_kib: u32,
) -> Fetch<'h> {
    shares.iter().for_each(|share| content::copy(&share.path, &downloads(host)));
    let torrents: Vec<String> =
        shares.iter().map(|share| share.torrent.display().to_string()).collect();
    let seed = client.seed(host, &torrents, discovery, upload_kib);
    wait_until_ready(&seed);
    seed
}

fn wait_until_ready(seed: &Fetch) {
    wait_until(
        &format!("{:?} has looked at what it is to seed", seed.client()),
        FETCH_LIMIT,
        || seed.is_complete().then_some(()),
        || seed.last_words(),
    );
}

/// Compares what ours got with what was shared.
fn expect_arrived(ours: &Getter, shared: &[PathBuf]) {
    for path in shared {
        let arrived = ours.downloads().join(path.file_name().expect("a share has a name"));
        let outcome = content::compare(path, &arrived, true);
        assert_eq!(outcome, Ok(()), "{}", ours.last_words());
    }
}

/// Where a client on `host` listens.
fn address(host: &Host, client: Client) -> String {
    SocketAddr::new(host.addresses()[0], client.port()).to_string()
}

/// Where ours listens.
const OUR_PORT: u16 = 6881;

/// What a slow seed sends: all of the film in some seconds.
const SLOW_KIB: u32 = 1_000;

/// What a seed sends that is to be slower than Transmission, which looks only every ten seconds
/// whom it is interested in.
const SLOWER_KIB: u32 = 600;

/// How long it may take until some megabytes are everywhere, most of it spent looking around.
const FETCH_LIMIT: Duration = Duration::from_secs(90);
