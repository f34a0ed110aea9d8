//! The appliance: images made by `scripts/make-image`, started in QEMU, as whoever flashes a card
//! meets them.
//!
//! Nothing here has run on hardware. The quick tests start the smallest machine, without firmware;
//! with `PERENNIAL_FULL=1` the images for machines with UEFI go through real firmware too, and what
//! takes longer is tried. The program for ARM has to be built: `scripts/cross-build aarch64`, which
//! `scripts/test` has done for the packages.

#![cfg(all(feature = "std", target_os = "linux"))]

#[path = "../support/program.rs"]
mod program;

mod card;
mod machine;

use card::Card;
use machine::{Machine, PATIENCE, root};
use program::{Folder, wait_until};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_card_in_64_mib_serves_a_thousand_shares_and_is_claimed() {
    let card = Card::new("virt-arm64", 1024);
    let film = noise(6_000_000);
    let mut files: Vec<_> = (0..1_000)
        .map(|n| (format!("letter {n:04}.txt").replace(' ', "-"), noise(1_000 + n)))
        .collect();
    files.push(("film.mkv".into(), film.clone()));
    card.fill(&files);
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("/data: takes all of the disk", PATIENCE);
    machine.wait_for("on the air", PATIENCE);
    let count = || pulse(&machine)["torrents"].as_u64().filter(|count| *count == 1_001);
    wait_until("all is shared", SHARING, count, || machine.last_words());

    let hash = info_hash(&machine, "film.mkv");
    let torrent = machine.look(&format!("/s/{hash}.torrent"));
    assert_eq!(fetch_by_libtorrent(&torrent, machine.peer, "film.mkv"), film);
    assert_eq!(machine.look(&format!("/s/{hash}/film.mkv")), film);

    let claim = String::from_utf8(card.read("claim.txt")).expect("it is text");
    let secret = claim.lines().nth(2).expect("it stands alone");
    let body = format!("{{\"secret\":\"{secret}\"}}");
    let request = format!(
        "POST /api/v1/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (head, _) = machine.ask(&request, PATIENCE).expect("it answers");
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");

    let lines = machine.switch_off();
    let held = lines.iter().find_map(|line| line.strip_prefix("held at most "));
    let held_kib: u64 =
        held.and_then(|held| held.split(' ').next()?.parse().ok()).expect("it says");
    println!("64 MiB, 1,001 shares: the process held at most {held_kib} KiB");
    assert!(held_kib <= 10 << 10, "{held_kib} KiB");
    assert!(card.check_data() > 850 << 20, "it takes all of the card");

    let machine = Machine::virt(&card, 64, "", &[]);
    let (started, _) = machine.wait_for("perennial ", PATIENCE);
    let took = machine.first_byte() - started;
    println!("from PID 1's start to the first byte of its page: {:.2} s", took.as_secs_f64());
    assert_eq!(pulse(&machine)["torrents"], 1_001);
    assert!(!machine.has_said("takes all of the disk"), "it has, before");
    assert!(took <= FIRST_BYTE, "{took:?}");
    machine.switch_off();
}

#[test]
fn what_the_owner_puts_on_the_card_is_taken_over_if_it_is_right() {
    let card = Card::new("virt-arm64", 256);
    card.write("perennial.toml", "name = \"Attic\"\n[[share]]\nfolder = \"/data/Films\"\n");
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("perennial.toml: is taken over", PATIENCE);
    machine.wait_for("on the air", PATIENCE);
    machine.switch_off();
    let claim = String::from_utf8(card.read("claim.txt")).expect("it is text");
    assert!(claim.starts_with("Claim the box at http://attic.local:8080/"), "{claim}");

    card.write("perennial.toml", "name = \"Cellar\"\nnmae = \"Cellar\"\n");
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("the box goes by the former one", PATIENCE);
    machine.wait_for("attic.local", PATIENCE);
    machine.switch_off();
    let wrong = String::from_utf8(card.read("perennial-wrong.txt")).expect("it is text");
    assert!(wrong.contains("perennial.toml, line 2") && wrong.contains("nmae"), "{wrong}");

    card.write("perennial.toml", "name = \"Cellar\"\n");
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("cellar.local", PATIENCE);
    machine.switch_off();
    assert!(!card.has("perennial-wrong.txt"), "nothing is wrong any more");
}

#[test]
fn a_damaged_data_partition_is_left_alone_and_the_box_serves_from_memory() {
    let card = Card::new("virt-arm64", 256);
    card.damage_data();
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("what was on it is left alone, and the box serves from memory", PATIENCE);
    machine.wait_for("on the air", PATIENCE);
    assert_eq!(pulse(&machine)["torrents"], 0);
    machine.switch_off();
    let data = fs::read(card.path()).expect("it is there");
    assert!(data[129 << 20..130 << 20].iter().all(|byte| *byte == 0xa5), "it was written to");
}

#[test]
fn boards_that_do_not_exist_and_keys_that_are_none_are_refused() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(root().join("scripts/make-image")).args(arguments).output();
        let output = output.expect("the script is there");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("it is text")
    };
    let words = refused(&["toaster"]);
    for board in ["rpi-arm64", "uefi-arm64", "uefi-x86_64", "virt-arm64"] {
        assert!(words.contains(board), "{words}");
    }
    let words = refused(&["virt-arm64", "--built", "--key", "/dev/null"]);
    assert!(words.contains("/dev/null: is no public key"), "{words}");
}

/// How the box is.
fn pulse(machine: &Machine) -> Value {
    serde_json::from_slice(&machine.look("/api/v1/pulse")).expect("it is JSON")
}

/// The info-hash of the share of that name.
fn info_hash(machine: &Machine, name: &str) -> String {
    let page = machine.look(&format!("/api/v1/torrents?filter={name}"));
    let page: Value = serde_json::from_slice(&page).expect("it is JSON");
    let hash = page["torrents"][0]["info_hash"].as_str();
    hash.unwrap_or_else(|| panic!("no {name}: {page}")).into()
}

/// What libtorrent fetches of a torrent from one peer.
fn fetch_by_libtorrent(torrent: &[u8], peer: SocketAddr, name: &str) -> Vec<u8> {
    let folder = Folder::new("libtorrent");
    let torrent = folder.write("share.torrent", torrent);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(root().join("tests/boards/libtorrent_peer.py")).arg(folder.path()).arg(torrent);
    command.arg(peer.to_string()).stdin(Stdio::null());
    let mut child = command.spawn().expect("Python is installed");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("libtorrent has not got it after {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success(), "libtorrent: {status}");
    fs::read(folder.path().join(name)).expect("it is there")
}

/// Bytes that cannot be guessed or compressed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A thousand files are hashed and written down, on an emulated card.
const SHARING: Duration = Duration::from_secs(110);

/// From PID 1's start to the first byte served, of the guest's time.
const FIRST_BYTE: Duration = Duration::from_millis(1_500);
