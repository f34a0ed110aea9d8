//! A PC that was flashed becomes a newer version over its page, through the firmware that such
//! machines have: kept once it has served, left when it does not start, and cut in the middle.

use crate::card::Card;
use crate::machine::{Machine, PATIENCE, Uefi, get, root};
use crate::prng::Prng;
use crate::program::{Folder, wait_until};
use crate::{
    START, claim, fetch_by_libtorrent, info_hash, is_full, noise, pulse, wait_until_shared,
};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An image, what signs its updates, and what they are made of.
struct Workshop {
    home: Folder,
    key: PathBuf,
    slot: PathBuf,
}

impl Workshop {
    fn new() -> Workshop {
        let home = Folder::new("workshop");
        let (key, slot) = (home.path().join("update.key"), home.path().join("slot"));
        run("make-update", &[Path::new("--new-key"), &key]);
        let public = home.path().join("update.key.pub");
        let image = home.path().join("disk.img");
        run(
            "make-image",
            &[
                Path::new("uefi-x86_64"),
                Path::new("--built"),
                Path::new("--current"),
                Path::new("--key"),
                &public,
                Path::new("--slot"),
                &slot,
                Path::new("-o"),
                &image,
            ],
        );
        // It says which version that is, and it is to be others.
        fs::remove_file(slot.join("version")).expect("an image has one");
        Workshop { home, key, slot }
    }

    /// A card with the image and a film on it.
    fn card(&self, film: &[u8]) -> Card {
        let card = Card::of(&self.home.path().join("disk.img"), 512);
        card.fill(&[("film.mkv".into(), film.to_vec())]);
        card
    }

    fn update(&self, version: &str) -> Vec<u8> {
        let update = self.home.path().join(format!("update-{version}"));
        let words = ["--board", "uefi-x86_64", "--version", version, "--key"].map(Path::new);
        run(
            "make-update",
            &[&words[..], &[&self.key, Path::new("-o"), &update, &self.slot]].concat(),
        );
        fs::read(update).expect("it has been made")
    }
}

fn run(script: &str, arguments: &[&Path]) {
    let output = Command::new(root().join("scripts").join(script)).args(arguments).output();
    let output = output.expect("the script is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts it, and waits until it shares its film.
fn start(card: &Card) -> Machine {
    let machine = Machine::uefi(card, Uefi::Pc);
    wait_until_shared(&machine);
    machine
}

/// A card with a film on it, on a machine that runs, and a token for its owner.
fn begin(workshop: &Workshop, film: &[u8]) -> (Card, Machine, String) {
    let card = workshop.card(film);
    let machine = start(&card);
    let token = claim(&card, &machine);
    (card, machine, token)
}

/// Brings an update; what was answered, if anything was.
fn bring(page: SocketAddr, token: &str, update: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(page).ok()?;
    stream.set_read_timeout(Some(START)).ok()?;
    let head = format!(
        "POST /api/v1/update HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        update.len()
    );
    // Who is refused may be cut off before all of it is sent.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(update));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (!answer.is_empty()).then_some(answer)
}

/// What its page shows its owner of what it has said. Nobody sees its console.
fn has_said(machine: &Machine, token: &str, words: &str) -> bool {
    let bearer = format!("GET /box HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
    let request = get("/box").replacen("GET /box HTTP/1.1\r\n", &bearer, 1);
    let answer = machine.ask(&request, PATIENCE).unwrap_or_default();
    String::from_utf8_lossy(&answer.1).contains(words)
}

fn wait_for(machine: &Machine, token: &str, words: &str) {
    let said = || has_said(machine, token, words).then_some(());
    wait_until(words, PATIENCE, said, || machine.last_words());
}

#[track_caller]
fn update(machine: &mut Machine, token: &str, update: &[u8]) {
    let begun = Instant::now();
    let answer = bring(machine.page, token, update).unwrap_or_default();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}\n{}", machine.last_words());
    println!("{} bytes are on the card after {:.1?}", update.len(), begun.elapsed());
    // It starts anew: QEMU ends instead.
    machine.ended(START);
}

fn serve(machine: &Machine, film: &[u8]) {
    let hash = info_hash(machine, "film.mkv");
    let torrent = machine.look(&format!("/s/{hash}.torrent"));
    assert_eq!(fetch_by_libtorrent(&torrent, machine.peer, "film.mkv"), film);
}

#[test]
fn an_update_is_kept_once_it_has_served_and_nothing_else_is_taken() {
    if !is_full() {
        return;
    }
    let (workshop, film) = (Workshop::new(), noise(400_000));
    let (card, mut machine, token) = begin(&workshop, &film);
    let newer = workshop.update("7.1");
    for (wrong, words) in [
        (workshop.update("0.0.1"), "runs already"),
        (newer[..newer.len() - 1_000].to_vec(), "is cut off"),
        ([&newer[..newer.len() - 1], &[!newer[newer.len() - 1]]].concat(), "is garbled"),
        (Workshop::new().update("7.1"), "signed with another key"),
    ] {
        let answer = bring(machine.page, &token, &wrong).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains(words), "{words}: {answer}");
    }
    update(&mut machine, &token, &newer);
    let machine = start(&card);
    wait_for(&machine, &token, "slot b is on trial");
    serve(&machine, &film);
    wait_for(&machine, &token, "this version does");
    machine.switch_off();
    assert!(card.has("loader/entries/perennial-b.conf"));
    assert_eq!(card.read("b/version"), b"uefi-x86_64 7.1\n");
    let machine = start(&card);
    assert!(!has_said(&machine, &token, "on trial"));
    machine.switch_off();
    card.check_data();
}

#[test]
fn an_update_that_does_not_start_is_left_again_by_itself() {
    if !is_full() {
        return;
    }
    let (workshop, film) = (Workshop::new(), noise(400_000));
    let (card, mut machine, token) = begin(&workshop, &film);
    // Signed by whoever may, and no system for all that.
    fs::write(workshop.slot.join("initrd"), [0; 100_000]).expect("it is ours");
    update(&mut machine, &token, &workshop.update("7.2"));
    for _ in 0..3 {
        let mut machine = Machine::uefi(&card, Uefi::Pc);
        machine.wait_for("Kernel panic", START);
        machine.ended(START);
    }
    let machine = start(&card);
    assert!(has_said(&machine, &token, "the last update did not do"));
    serve(&machine, &film);
    machine.switch_off();
}

#[test]
fn a_cut_of_power_at_any_moment_of_an_update_leaves_a_box_that_starts() {
    if !is_full() {
        return;
    }
    let (workshop, film) = (Workshop::new(), noise(400_000));
    let (card, machine, token) = begin(&workshop, &film);
    drop(machine);
    let mut chance = Prng::new(7);
    let mut begun_anew = 0;
    for round in 0..CUTS {
        let machine = start(&card);
        begun_anew += u32::from(has_said(&machine, &token, "on trial"));
        let newer = workshop.update(&format!("8.{round}"));
        let cut_at = Duration::from_millis(chance.below(CUT_MS_MAX).into());
        let (page, token) = (machine.page, token.clone());
        std::thread::scope(|scope| {
            scope.spawn(move || bring(page, &token, &newer));
            std::thread::sleep(cut_at);
            // Its power goes with it.
            drop(machine);
        });
    }
    println!("after {CUTS} cuts: {begun_anew} starts of something new");
    let machine = start(&card);
    assert_eq!(pulse(&machine)["torrents"], 1);
    serve(&machine, &film);
    machine.switch_off();
    card.check_data();
}

/// Times that power is cut.
const CUTS: u32 = 20;

/// An update is written in less than that.
const CUT_MS_MAX: u32 = 1_500;
