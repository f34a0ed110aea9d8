//! The appliance: images made by `scripts/make-image`, started in QEMU, as whoever flashes a card
//! meets them.
//!
//! Nothing here has run on hardware. The quick tests start the smallest machine, without firmware;
//! with `PERENNIAL_FULL=1` the images for machines with UEFI go through real firmware too, and what
//! takes longer is tried. The program for ARM has to be built: `scripts/cross-build aarch64`, which
//! `scripts/test` has done for the packages.

#![cfg(all(feature = "std", target_os = "linux"))]

#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/program.rs"]
mod program;

mod card;
mod machine;
mod updates;

use card::{Card, Stick};
use machine::{Machine, PATIENCE, Uefi, get, root};
use prng::Prng;
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

    claim(&card, &machine);

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
fn a_card_that_is_too_small_is_told_so_and_the_box_serves_from_memory() {
    let card = Card::new("virt-arm64", 150);
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("the card is smaller than the image that was written to it", PATIENCE);
    machine.wait_for("on the air", PATIENCE);
    assert_eq!(pulse(&machine)["torrents"], 0);
    machine.switch_off();
}

#[test]
fn a_disk_that_is_plugged_in_is_shared_and_sleeps_when_it_is_pulled_out() {
    let card = Card::new("virt-arm64", 256);
    let song = noise(300_000);
    let (stick, empty) = (Stick::new(&[("song.ogg", &song)]), Stick::new(&[]));
    let drive = |id: &str, stick: &Stick| {
        format!("if=none,id={id},format=raw,file={}", stick.path().display())
    };
    let (with_song, without) = (drive("song", &stick), drive("empty", &empty));
    let more = ["-device", "qemu-xhci,id=usb", "-drive", &with_song, "-drive", &without];
    let machine = Machine::virt(&card, 64, "", &more);
    machine.wait_for("on the air", PATIENCE);
    let torrents = |state: &'static str| {
        let machine = &machine;
        move || {
            let stats = machine.look("/api/v1/stats");
            let stats: Value = serde_json::from_slice(&stats).expect("it is JSON");
            (stats["stats"]["torrents"][state] == 1).then_some(())
        }
    };
    machine.monitor("device_add usb-storage,id=stick,drive=song,bus=usb.0");
    wait_until("its song is shared", PATIENCE, torrents("all"), || machine.last_words());
    let hash = info_hash(&machine, "song.ogg");
    assert_eq!(machine.look(&format!("/s/{hash}/song.ogg")), song);
    machine.monitor("device_del stick");
    wait_until("its song sleeps", PATIENCE, torrents("asleep"), || machine.last_words());
    // The same drive cannot be had twice in one run of QEMU; another stick can.
    machine.monitor("device_add usb-storage,id=other,drive=empty,bus=usb.0");
    let said = "what is put into its folder Share is shared";
    let twice = || (machine.times_said(said) == 2).then_some(());
    wait_until("the other stick is there", PATIENCE, twice, || machine.last_words());
    machine.switch_off();
    assert!(empty.has("Share"), "a folder was made for what is to be shared");
}

/// The watchdog of this machine waits for 30 s.
#[test]
fn a_program_that_hangs_is_reset_and_one_that_ticks_is_not() {
    if !is_full() {
        return;
    }
    let card = Card::new("virt-arm64", 256);
    let port = machine::free_ports()[0].port();
    let gdb = format!("tcp:127.0.0.1:{port}");
    let more = ["-device", "i6300esb", "-action", "watchdog=reset", "-gdb", &gdb];
    let mut machine = Machine::virt(&card, 64, "", &more);
    machine.wait_for("watchdog: resets the machine when nothing ticks for 30 s", PATIENCE);
    machine.wait_for("on the air", PATIENCE);
    std::thread::sleep(Duration::from_secs(45));
    assert_eq!(pulse(&machine)["torrents"], 0, "it is still there");
    machine.hang_program(port);
    let hung = Instant::now();
    machine.ended(Duration::from_secs(50));
    println!("a program that hangs is reset after {:.1} s", hung.elapsed().as_secs_f64());
    assert!(hung.elapsed() > Duration::from_secs(5), "something else has ended it");
}

#[test]
fn an_arm_machine_with_uefi_starts_from_its_card() {
    starts_from_its_card("uefi-arm64", |card| Machine::uefi(card, Uefi::Arm), 512);
}

#[test]
fn a_pc_starts_from_its_disk() {
    starts_from_its_card("uefi-x86_64", |card| Machine::uefi(card, Uefi::Pc), 512);
}

/// Without its firmware, which QEMU has not got; and over an adapter on USB that moves 0.1 MB a second.
#[test]
fn a_raspberry_pi_starts_from_its_card() {
    starts_from_its_card("rpi-arm64", Machine::raspberry, 256);
}

fn starts_from_its_card(board: &str, start: impl FnOnce(&Card) -> Machine, mib: u64) {
    if !is_full() {
        return;
    }
    let card = Card::new(board, mib);
    let film = noise(400_000);
    card.fill(&[("film.mkv".into(), film.clone())]);
    let (begun, machine) = (Instant::now(), start(&card));
    wait_until_shared(&machine);
    println!("{board}: {:.1} s from power to sharing", begun.elapsed().as_secs_f64());
    let hash = info_hash(&machine, "film.mkv");
    let torrent = machine.look(&format!("/s/{hash}.torrent"));
    assert_eq!(fetch_by_libtorrent(&torrent, machine.peer, "film.mkv"), film);
    machine.monitor("system_powerdown");
    drop(machine);
    assert!(card.has("claim.txt"));
}

#[test]
fn two_images_made_of_the_same_are_the_same() {
    if !is_full() {
        return;
    }
    let folder = Folder::new("twice");
    for board in ["rpi-arm64", "uefi-arm64", "uefi-x86_64", "virt-arm64"] {
        let [one, other] = ["one", "other"].map(|name| {
            let image = folder.path().join(format!("{name}.img.xz"));
            let mut command = Command::new(root().join("scripts/make-image"));
            command.args([board, "--built", "--current", "-o"]).arg(&image);
            let output = command.output().expect("the script is there");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // Times are those of the sources, not of the clock.
            std::thread::sleep(Duration::from_millis(2_100));
            fs::read(image).expect("it has been made")
        });
        println!("{board}: {} bytes compressed", one.len());
        assert!(one == other, "{board}");
        assert!(one.len() <= 64 << 20, "{board}");
    }
}

#[test]
fn a_box_that_nobody_has_told_the_hour_says_no_date() {
    let card = Card::new("virt-arm64", 256);
    let date = |rtc: &str| {
        let machine = Machine::virt(&card, 64, "", &["-rtc", rtc]);
        machine.wait_for("on the air", PATIENCE);
        let (head, _) = machine.ask(&get("/robots.txt"), PATIENCE).expect("it answers");
        let date = head.lines().find_map(|line| line.strip_prefix("Date: "));
        date.map(str::to_string)
    };
    assert_eq!(date("base=1970-01-01T00:00:05"), None);
    let told = date("base=2027-03-04T05:06:07").expect("this machine's clock is set");
    assert!(told.starts_with("Thu, 04 Mar 2027 05:06:"), "{told}");
}

#[test]
fn a_full_data_partition_serves_what_it_has_and_takes_nothing_more() {
    if !is_full() {
        return;
    }
    let card = Card::new("virt-arm64", 256);
    let film = noise(400_000);
    card.fill(&[("film.mkv".into(), film.clone())]);
    let machine = Machine::virt(&card, 64, "", &[]);
    let shared = || (pulse(&machine)["torrents"] == 1).then_some(());
    wait_until("it is shared", PATIENCE, shared, || machine.last_words());
    machine.switch_off();
    card.fill_up();
    let machine = Machine::virt(&card, 64, "", &[]);
    machine.wait_for("No space left", PATIENCE);
    let hash = info_hash(&machine, "film.mkv");
    assert_eq!(machine.look(&format!("/s/{hash}/film.mkv")), film);
    let torrent = machine.look(&format!("/s/{hash}.torrent"));
    assert_eq!(fetch_by_libtorrent(&torrent, machine.peer, "film.mkv"), film);
    machine.switch_off();
    card.check_data();
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

/// Waits until it shares its one film.
fn wait_until_shared(machine: &Machine) {
    let shared = || {
        let (_, body) = machine.ask(&get("/api/v1/pulse"), Duration::from_secs(2))?;
        let pulse: Value = serde_json::from_slice(&body).ok()?;
        (pulse["torrents"] == 1).then_some(())
    };
    wait_until("it shares its film", START, shared, || machine.last_words());
}

/// Brings it the secret that stands on its card; a token for its owner.
fn claim(card: &Card, machine: &Machine) -> String {
    let told = || card.has("claim.txt").then(|| card.read("claim.txt"));
    let claim = wait_until("its secret is on the card", PATIENCE, told, || machine.last_words());
    let claim = String::from_utf8(claim).expect("it is text");
    let secret = claim.lines().nth(2).expect("it stands alone");
    let body = format!("{{\"secret\":\"{secret}\"}}");
    let request = format!(
        "POST /api/v1/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (head, body) = machine.ask(&request, PATIENCE).expect("it answers");
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    let token: Value = serde_json::from_slice(&body).expect("it is JSON");
    token["token"].as_str().expect("it is a token").into()
}

/// Bytes that cannot be guessed or compressed.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Prng::new(length as u64).fill(&mut bytes);
    bytes
}

/// Whether there is time for what takes longer.
fn is_full() -> bool {
    std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1")
}

/// A machine with firmware, emulated, on a machine that does other things too.
const START: Duration = Duration::from_secs(180);

/// A thousand files are hashed and written down, on an emulated card.
const SHARING: Duration = Duration::from_secs(110);

/// From PID 1's start to the first byte served, of the guest's time.
const FIRST_BYTE: Duration = Duration::from_millis(1_500);
