//! Ports and the house, each in a network of its own: nothing here
//! depends on which ports of this machine are free, and nothing leaves it.

use crate::leecher::{Leecher, MODERN, Manners};
use crate::program::{Call, Folder, Program};
use crate::tracker_server::{Introduces, Tracker, Transport};
use crate::{assert_arrives, film, lacks_root};
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};

#[test]
fn the_usual_port_is_used_and_the_next_free_one_when_it_is_taken() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("ports");
    let film = film(&home, 300_000);
    let call =
        |state: &str| Call::share(&home, &[&film]).listen(None).state(&home.path().join(state));
    let first = call("first").in_its_own_network("").start();
    assert_eq!(first.address, "[::]:6881".parse().unwrap());
    assert!(!first.log().contains("taken"), "{}", first.log());
    assert_served_at(&first, "127.0.0.1:6881");
    assert_served_at(&first, "[::1]:6881");

    let mut others: Vec<Program> = Vec::new();
    for port in 6882..=6889 {
        let next = call(&port.to_string()).in_the_network_of(&first).start();
        assert_eq!(next.address.port(), port);
        let said = format!("6881 is taken; listening on {port}");
        assert!(next.log().contains(&said), "{}", next.log());
        others.push(next);
    }
    assert_served_at(&others[0], "[::1]:6882");
    let line = call("none").in_the_network_of(&first).refusal();
    assert!(line.contains("6881 to 6889") && line.contains("--listen"), "{line}");
    let line = call("none").listen(Some("[::]:6885")).in_the_network_of(&first).refusal();
    assert!(line.contains("--listen [::]:6885"), "{line}");
    for program in others {
        program.stop();
    }
    first.stop();
}

#[test]
fn for_the_house_only_means_no_tracker_and_no_strangers() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("house");
    let film = film(&home, 300_000);
    for lan in [true, false] {
        let tracker = ["--tracker", "http://127.0.0.1:7000/announce"];
        let options = if lan { &["--lan"][..] } else { &tracker };
        let set_up = "ip address add 10.9.0.1/24 dev lo; ip address add 10.9.0.2/24 dev lo\n\
                      ip address add 198.51.100.1/24 dev lo; ip address add 198.51.100.2/24 dev lo";
        let call = Call::share(&home, &[&film]).listen(None).with(options);
        let program = call.in_its_own_network(set_up).start();
        let share = &program.shares[0];
        assert_eq!(share.magnet.contains("&tr="), !lan, "{}", share.magnet);
        assert!(share.magnet.contains("&x.pe=10.9.0.1:6881"), "{}", share.magnet);
        assert!(!share.magnet.contains("198.51.100"), "{}", share.magnet);
        let come = |to: &str, from: &str| {
            let to: IpAddr = to.parse().unwrap();
            let manners = Manners { from: Some(from.parse().unwrap()), ..MODERN };
            let address = SocketAddr::new(to, 6881);
            let enter = || Leecher::enter(address, share.info_hash, manners).is_ok();
            program.in_its_network(enter)
        };
        assert!(come("10.9.0.1", "10.9.0.2"));
        assert!(come("127.0.0.1", "127.0.0.1"));
        assert!(come("::1", "::1"));
        assert_eq!(come("198.51.100.1", "198.51.100.2"), !lan);
        assert_eq!(program.log().contains("http://127.0.0.1:7000"), !lan, "{}", program.log());
        program.stop();
    }
}

#[test]
fn on_loopback_the_house_is_served_and_trackers_hear_nothing() {
    let home = Folder::new("house-loopback");
    let film = film(&home, 300_000);
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let tracker = Tracker::start(&[address], Introduces::Everyone).unwrap();
    let url = tracker.url(Transport::Http, 0);
    // A .torrent that names a tracker, made by a box that is given one and never serves.
    let author = Call::share(&home, &[&film]).with(&["--tracker", &url]).start();
    let torrent = home.path().join("film.torrent");
    std::fs::copy(&author.shares[0].torrent, &torrent).unwrap();
    author.stop();
    let before = tracker.heard().len();
    let call = Call::share(&home, &[&film]).state(&home.path().join("house"));
    let program = call.with(&[OsStr::new("--lan"), "--torrent".as_ref(), torrent.as_ref()]).start();
    assert!(!program.shares[0].magnet.contains("&tr="), "{}", program.shares[0].magnet);
    assert_arrives(&program, &program.shares[0], &film, MODERN, 16);
    program.stop();
    assert_eq!(tracker.heard().len(), before);
}

/// Fetches everything at an address in the program's own network.
fn assert_served_at(program: &Program, address: &str) {
    let share = &program.shares[0];
    let torrent = crate::torrent::Metainfo::read(&share.torrent);
    let address: SocketAddr = address.parse().unwrap();
    let content = program.in_its_network(|| {
        let mut leecher = Leecher::enter(address, share.info_hash, MODERN).unwrap();
        leecher.fetch_all(&torrent, 16).unwrap()
    });
    assert_eq!(content.len() as u64, share.bytes);
}
