//! One test a bug, with its story: what somebody would have seen, and what it came of.

#![cfg(feature = "std")]

#[path = "support/leecher.rs"]
mod leecher;
#[path = "support/prng.rs"]
mod prng;
#[path = "support/program.rs"]
mod program;
#[path = "support/torrent.rs"]
mod torrent;

use leecher::{Leecher, MODERN};
use program::{Call, Folder, is_root};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use torrent::Metainfo;

/// Ctrl-C while the router was being restarted: the prompt came back after 18 seconds. A lane was
/// asking a name server for a tracker's address, and the end waited for the lane.
#[test]
fn a_name_server_that_answers_nothing_does_not_delay_the_end() {
    if !is_root() {
        return;
    }
    let home = Folder::new("names");
    let film = home.write("film.mkv", &bytes(1, 100_000));
    let resolver = home.write("resolv.conf", b"nameserver 192.0.2.1\noptions timeout:9\n");
    // What goes out by loopback to an address that is not there is lost without a word.
    let set_up = format!(
        "ip route add 192.0.2.0/24 dev lo\nmount --bind '{}' /etc/resolv.conf",
        resolver.display()
    );
    let call = Call::share(&home, &[&film])
        .with(&["--tracker", "http://one.example/a", "--tracker", "udp://two.example:1/a"])
        .with(&["--tracker", "http://three.example/a"]);
    let program = call.in_its_own_network(&set_up).start();
    // What is shared is served all the while, though both lanes are taken.
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let content = program.in_its_network(|| {
        let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
        leecher.fetch_all(&torrent, 16).unwrap()
    });
    torrent.assert_is(&content, &film);
    let asked = Instant::now();
    program.stop();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// A bit of a card rotted in the state folder, and everybody with the magnet link was sent piece
/// hashes that do not hash to the link, for ever. Facts and extents had their checksums; the
/// `.torrent` between them had none.
#[test]
fn rot_in_a_kept_torrent_does_not_leave_the_box() {
    let home = Folder::new("rot");
    let film = home.write("film.mkv", &bytes(2, 2_000_000));
    let program = Call::share(&home, &[&film]).start();
    let share = program.shares[0].clone();
    program.stop();
    let file = File::options().read(true).write(true).open(&share.torrent).unwrap();
    let at = file.metadata().unwrap().len() - 40;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    let program = Call::share(&home, &[&film]).start();
    let mut leecher = Leecher::connect(program.address, share.info_hash, MODERN).unwrap();
    leecher.say_hello().unwrap();
    let info = leecher.fetch_metadata().unwrap();
    assert_eq!(Metainfo::of(&info).info_hash, share.info_hash);
    program.stop();
}

/// The state folder's disk failed under a running box, and somebody asked for the metadata: the
/// same read was tried again at once, for ever, with a line in the log each time, and pieces of the
/// content were withheld because they stand where in the content the metadata stands in its file.
#[test]
fn metadata_that_cannot_be_read_costs_one_line_and_no_piece_of_the_content() {
    let home = Folder::new("metadata-gone");
    let film = home.write("film.mkv", &bytes(6, 1_000_000));
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let mut honest = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    File::options().write(true).open(&share.torrent).unwrap().set_len(10).unwrap();
    let mut asking = Leecher::connect(program.address, share.info_hash, MODERN).unwrap();
    asking.say_hello().unwrap();
    while asking.metadata.is_none() {
        asking.receive().unwrap();
    }
    asking.send(&leecher::extended(1, b"d8:msg_typei0e5:piecei0ee")).unwrap();
    // Told no or let go, it does not matter which.
    while let Ok(message) = asking.receive() {
        if matches!(message, leecher::Message::Extended(7, _)) {
            break;
        }
    }
    torrent.assert_is(&honest.fetch_all(&torrent, 16).unwrap(), &film);
    let said = program.log().lines().filter(|line| line.starts_with("warn: ")).count();
    assert!(said <= 2, "{said} warnings");
    program.stop();
}

/// A folder that gets a file a day is another torrent each day; none of the old ones was ever
/// forgotten, and one morning the library was full and the folder was refused.
#[test]
fn a_share_that_changes_every_day_never_fills_the_library() {
    let home = Folder::new("every-day");
    let root = home.path().join("diary");
    for day in 0..9 {
        home.write(format!("diary/{day}"), &bytes(day, 20_000));
        // This board's library holds six torrents.
        let program = Call::share(&home, &[&root]).board(Some("test-tiny")).start();
        assert_arrives(&program, &root);
        program.stop();
    }
}

/// The library was full, and the share it refused, hashed to the end, stayed in the state folder:
/// it had been put in its place before anybody asked whether there was one.
#[test]
fn a_full_library_refuses_the_next_share_and_keeps_nothing_of_it() {
    let home = Folder::new("full-library");
    let paths: Vec<PathBuf> =
        (0..7).map(|number| home.write(number.to_string(), &bytes(number, 100_000))).collect();
    let call = |paths: &[&Path]| Call::share(&home, paths).board(Some("test-tiny"));
    for path in &paths[..6] {
        call(&[path]).start().stop();
    }
    let torrents = home.path().join("state/torrents");
    let count = || fs::read_dir(&torrents).unwrap().count();
    let line = call(&[&paths[6]]).refusal();
    assert!(line.contains("6 torrents") && line.contains("larger board"), "{line}");
    assert_eq!(count(), 6, "nothing half-done");
    let program = call(&[&paths[0], &paths[1]]).start();
    assert!(!program.log().contains("hashing"), "{}", program.log());
    assert_arrives(&program, &paths[0]);
    program.stop();
}

/// `--listen 127.0.0.1:PORT`, and the magnet link sent to a friend named the LAN address, where
/// nobody listens.
#[test]
fn a_magnet_link_names_only_addresses_that_are_listened_at() {
    if !is_root() {
        return;
    }
    let home = Folder::new("magnet-addresses");
    let film = home.write("film.mkv", &bytes(3, 100_000));
    let set_up = "ip address add 10.9.0.1/24 dev lo; ip address add fd09::1/64 dev lo nodad";
    for (listen, named) in [
        ("[::]:7000", &["10.9.0.1:7000", "[fd09::1]:7000"][..]),
        ("0.0.0.0:7000", &["10.9.0.1:7000"]),
        ("10.9.0.1:7000", &["10.9.0.1:7000"]),
        ("[fd09::1]:7000", &["[fd09::1]:7000"]),
        ("127.0.0.1:7000", &[]),
    ] {
        let call = Call::share(&home, &[&film]).listen(Some(listen));
        let program = call.in_its_own_network(set_up).start();
        let magnet = &program.shares[0].magnet;
        let peers: Vec<&str> =
            magnet.split('&').filter_map(|part| part.strip_prefix("x.pe=")).collect();
        assert_eq!(peers, named, "--listen {listen}");
        program.stop();
    }
}

/// Under `--json`, as a service runs it, nobody was told that files had been left out, nor that
/// only some pieces match a `.torrent`: both were said on stdout, among the sentences, or not.
#[test]
fn what_is_left_out_or_does_not_match_is_said_under_json_too() {
    let home = Folder::new("said");
    home.write("tree/film", &bytes(4, 100_000));
    home.write("tree/film.part", b"half a film");
    let root = home.path().join("tree");
    symlink("/etc/passwd", root.join("link")).unwrap();
    let program = Call::share(&home, &[&root]).with(&["--piece-size", "16K"]).start();
    let log = program.log();
    assert!(log.contains("film.part") && log.contains("symbolic link"), "{log}");
    let torrent = home.path().join("kept.torrent");
    fs::copy(&program.shares[0].torrent, &torrent).unwrap();
    program.stop();
    File::options()
        .write(true)
        .open(root.join("film"))
        .unwrap()
        .write_all_at(b"?", 20_000)
        .unwrap();
    let other = home.path().join("other-state");
    let call = Call::share(&home, &[&root]).state(&other);
    let program = call.with(&[Path::new("--torrent"), &torrent]).start();
    assert!(program.log().contains("6 of 7 pieces match"), "{}", program.log());
    program.stop();
}

/// A neighbour adds ten torrents at once, or a house behind one address comes back after a power
/// cut: all but four connections were reset at once, though nearly every place was free.
#[test]
fn ten_connections_of_one_address_at_the_same_moment_are_all_let_in() {
    let home = Folder::new("ten-at-once");
    let film = home.write("film.mkv", &bytes(5, 500_000));
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    // All of them connect before the first one speaks.
    let calls: Vec<_> = (0..10).map(|_| leecher::dial(program.address, MODERN).unwrap()).collect();
    for call in calls {
        let mut leecher = Leecher::greet(call, share.info_hash, MODERN).unwrap();
        leecher.send(&leecher::interested()).unwrap();
        leecher.wait_for_unchoke().unwrap();
        torrent.assert_is(&leecher.fetch_all(&torrent, 16).unwrap(), &film);
    }
    program.stop();
}

/// Bytes that are like no others.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    prng::Prng::new(seed).fill(&mut bytes);
    bytes
}

/// Fetches all of the first share and compares it with what lies at `root`.
fn assert_arrives(program: &program::Program, root: &Path) {
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let content = leecher.fetch_all(&torrent, 16).unwrap();
    torrent.assert_is(&content, root);
}
