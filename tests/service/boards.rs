//! Boards, and limits small enough to be met: `test-tiny` has two connections, one upload slot,
//! four requests a peer, two torrents, one open file and 4 KiB for names.

use crate::leecher::{Block, Leecher, MODERN, Manners, Message, PLAIN, interested, request};
use crate::program::{Call, Folder, PATIENCE, Program, binary, wait_until};
use crate::torrent::Metainfo;
use crate::{assert_arrives, bytes, film, names_under, season};
use serde_json::Value;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn tiny(home: &Folder, paths: &[&Path]) -> Call {
    Call::share(home, paths).board(Some("test-tiny"))
}

fn board(arguments: &[&str]) -> String {
    let output = Command::new(binary()).arg("board").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_board_says_what_its_memory_is_for() {
    let this: Value = serde_json::from_str(&board(&["--json"])).unwrap();
    assert_eq!(this["board"], this["this_machine"]);
    let boards = this["boards"].as_array().unwrap();
    let names: Vec<&str> = boards.iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["tiny", "small", "pi-4", "nas", "test-tiny"] {
        assert!(names.contains(&name), "{names:?}");
        let json: Value = serde_json::from_str(&board(&[name, "--json"])).unwrap();
        assert_eq!(json["board"], name);
        for (holders, sum) in [("ours", "ours_bytes"), ("kernel", "kernel_bytes")] {
            let holders = json[holders].as_array().unwrap();
            let bytes: u64 = holders.iter().map(|holder| holder["bytes"].as_u64().unwrap()).sum();
            assert_eq!(bytes, json[sum].as_u64().unwrap(), "{name}: {json}");
            assert!(holders.iter().all(|holder| holder["from"].is_string()));
        }
        let promised = json["resident_bytes_max"].as_u64().unwrap();
        assert!(json["ours_bytes"].as_u64().unwrap() <= promised, "{name}");
        assert!(promised < json["ram_kib"].as_u64().unwrap() << 10, "{name}");

        let text = board(&[name]);
        let mib = promised >> 20;
        assert!(text.contains(&format!("{name}: at most {mib} MiB resident")), "{text}");
        for holder in json["ours"].as_array().unwrap() {
            assert!(text.contains(holder["what"].as_str().unwrap()), "{text}");
        }
    }
    for (name, mib) in [("tiny", 8), ("small", 16), ("pi-4", 32), ("nas", 64)] {
        let text = board(&[name]);
        assert!(text.starts_with("Boards: tiny, small, pi-4, nas."), "{text}");
        assert!(text.contains(&format!("at most {mib} MiB resident")), "{text}");
    }
}

#[test]
fn a_firmware_board_says_what_it_has_and_adds_nothing_up() {
    for (name, kib) in [("mcu-lm3s6965", 64), ("mcu-rv32", 256)] {
        let json: Value = serde_json::from_str(&board(&[name, "--json"])).unwrap();
        assert_eq!((&json["board"], &json["ram_kib"]), (&name.into(), &kib.into()));
        assert!(json["resident_bytes_max"].as_u64().unwrap() < kib << 10, "{json}");
        assert!(json["boards"].as_array().unwrap().contains(&name.into()), "{json}");
        for made_up in ["ours", "ours_bytes", "kernel", "kernel_bytes"] {
            assert!(json[made_up].is_null(), "{json}");
        }
        let text = board(&[name]);
        for words in
            [&format!("{name}: firmware, in {kib} KiB"), "linker", "--for-board", "journal"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("together"), "{text}");
    }
    let home = Folder::new("firmware-board");
    let film = film(&home, 1_000);
    let line = Call::share(&home, &[&film]).board(Some("mcu-rv32")).refusal();
    assert!(line.contains("mcu-rv32") && line.contains("--for-board"), "{line}");
}

#[test]
fn an_unknown_board_is_answered_with_those_there_are() {
    for arguments in [&["board", "toaster"][..], &["board", "toaster", "--json"]] {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("toaster") && said.contains("tiny, small, pi-4, nas"), "{said}");
    }
}

#[test]
fn the_third_connection_waits_at_the_door_until_there_is_a_place() {
    let home = Folder::new("third");
    let film = film(&home, 20 * 16_384);
    let program = tiny(&home, &[&film]).start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let come = || Leecher::connect(program.address, share.info_hash, MODERN);
    let mut first = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let mut second = come().unwrap();
    for _ in 0..6 {
        // Both have only just come: nobody makes room.
        assert!(come().is_err());
    }
    let content = first.fetch_all(&torrent, 4).unwrap();
    torrent.assert_is(&content, &film);
    drop(first);
    second.send(&interested()).unwrap();
    second.wait_for_unchoke().unwrap();
    let content = second.fetch_all(&torrent, 4).unwrap();
    torrent.assert_is(&content, &film);
    let mut third = wait_until("there is a place", PATIENCE, || come().ok(), || program.log());
    third.wait_for_offer().unwrap();
    program.stop();
}

#[test]
fn a_second_address_is_heard_while_the_first_has_all_it_may_have() {
    let home = Folder::new("per-address");
    let film = film(&home, 100_000);
    // This board has room for 50 connections, of which one address may have twelve.
    let program = Call::share(&home, &[&film]).board(Some("tiny")).start();
    let share = &program.shares[0];
    let from = |last| Manners { from: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))), ..MODERN };
    let come = |last| Leecher::connect(program.address, share.info_hash, from(last));
    let crowd: Vec<Leecher> = (0..12).map(|_| come(2).unwrap()).collect();
    assert!(come(2).is_err());
    let mut other = come(3).unwrap();
    other.wait_for_offer().unwrap();
    drop(crowd);
    let again = wait_until("its places are free again", PATIENCE, || come(2).ok(), String::new);
    drop(again);
    program.stop();
}

#[test]
fn the_only_upload_slot_goes_round() {
    let home = Folder::new("slot");
    let film = film(&home, 20 * 16_384);
    let program = tiny(&home, &[&film]).start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    // The first takes its slot and does nothing with it.
    let mut first = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let asked = Instant::now();
    let mut second = Leecher::enter(program.address, share.info_hash, PLAIN).unwrap();
    let waited = asked.elapsed();
    assert!(waited > Duration::from_secs(3) && waited < Duration::from_secs(12), "{waited:?}");
    let content = second.fetch_all(&torrent, 4).unwrap();
    torrent.assert_is(&content, &film);
    // Requests of who has no slot are rejected.
    let block = Block { piece: 1, begin: 0, length: 16_384 };
    first.send(&request(block)).unwrap();
    while first.receive().unwrap() != Message::Reject(block) {}
    drop(second);
    first.wait_for_unchoke().unwrap();
    let content = first.fetch_all(&torrent, 4).unwrap();
    torrent.assert_is(&content, &film);
    program.stop();
}

#[test]
fn four_requests_are_kept_and_two_hundred_are_answered() {
    let home = Folder::new("requests");
    let film = film(&home, 500 * 16_384);
    let program = tiny(&home, &[&film]).start();
    assert_arrives(&program, &program.shares[0], &film, PLAIN, 200);
    let mut leecher = Leecher::enter(program.address, program.shares[0].info_hash, MODERN).unwrap();
    while leecher.requests_max.is_none() {
        leecher.receive().unwrap();
    }
    assert_eq!(leecher.requests_max, Some(4));
    program.stop();
}

#[test]
fn one_open_file_is_enough_for_a_folder_of_many() {
    let home = Folder::new("open-files");
    for number in 0..40 {
        home.write(format!("tree/{number:02}"), &bytes(number, 3_000));
    }
    let root = home.path().join("tree");
    let program = tiny(&home, &[&root]).start();
    assert_arrives(&program, &program.shares[0], &root, MODERN, 4);
    assert_arrives(&program, &program.shares[0], &root, PLAIN, 64);
    program.stop();
}

#[test]
fn more_paths_than_the_board_has_room_for_are_refused() {
    let home = Folder::new("paths");
    let paths: Vec<_> =
        (0..3).map(|number| home.write(number.to_string(), &bytes(number, 100))).collect();
    let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let line = tiny(&home, &paths).refusal();
    assert!(line.contains("2 at a time") && line.contains("larger board"), "{line}");
    let program = tiny(&home, &paths[..2]).start();
    assert_arrives(&program, &program.shares[0], paths[0], MODERN, 4);
    assert_arrives(&program, &program.shares[1], paths[1], PLAIN, 4);
    program.stop();
}

#[test]
fn fewer_descriptors_than_the_board_needs_are_said_and_survived() {
    let home = Folder::new("descriptors");
    let film = film(&home, 500_000);
    let call = Call::share(&home, &[&film]).under(&["prlimit", "--nofile=32:32", "--"]);
    let program = call.start();
    assert!(program.log().contains("only 32 open files"), "{}", program.log());
    let share = &program.shares[0];
    let mut first = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    // More than there are descriptors for: they wait in the kernel, or are let go.
    let crowd: Vec<_> =
        (0..40).map(|_| crate::leecher::dial(program.address, MODERN).unwrap()).collect();
    let torrent = Metainfo::read(&share.torrent);
    torrent.assert_is(&first.fetch_all(&torrent, 16).unwrap(), &film);
    drop(crowd);
    let come = || Leecher::enter(program.address, share.info_hash, PLAIN).ok();
    let mut next = wait_until("newcomers are heard again", PATIENCE, come, || program.log());
    torrent.assert_is(&next.fetch_all(&torrent, 16).unwrap(), &film);
    program.stop();
}

#[test]
fn a_path_named_twice_is_one_share() {
    let home = Folder::new("twice");
    let film = film(&home, 500_000);
    let program = Call::share(&home, &[&film, &film]).start();
    assert_eq!(program.shares.len(), 1);
    assert!(program.log().contains("shared already"), "{}", program.log());
    assert_arrives(&program, &program.shares[0], &film, MODERN, 16);
    program.stop();
}

#[test]
fn a_folder_with_more_names_than_there_is_room_for_is_refused() {
    let home = Folder::new("names");
    for number in 0..100 {
        home.write(format!("tree/{number:050}"), b"x");
    }
    let root = home.path().join("tree");
    let line = tiny(&home, &[&root]).refusal();
    assert!(line.contains("tree") && line.contains("larger board"), "{line}");
    assert_eq!(names_under(&home.path().join("state/torrents")), [""; 0]);
}

#[test]
fn a_bitfield_there_is_no_room_for_is_refused_or_costs_only_its_own_torrent() {
    let home = Folder::new("bits");
    // 1 KiB of bitfields is 8,192 pieces; this has a few more, nearly all of them a hole.
    let large = home.write("large", &bytes(1, 16_384));
    let file = File::options().write(true).open(&large).unwrap();
    file.set_len(8_200 * 16_384).unwrap();
    let (film, split) = (film(&home, 300_000), &["--piece-size", "16K"]);
    let program = tiny(&home, &[&large, &film]).with(split).start();
    let torrent = home.path().join("large.torrent");
    fs::copy(&program.shares[0].torrent, &torrent).unwrap();
    file.write_all_at(&[1], 5_000 * 16_384).unwrap();
    // It cannot be told any more which pieces are whole: none of them is offered.
    let info_hash = program.shares[0].info_hash;
    let offers = || {
        let asked = Block { piece: 5_000, begin: 0, length: 16_384 };
        let mut leecher = Leecher::enter(program.address, info_hash, MODERN).ok()?;
        let _ = leecher.fetch([asked], 1, |_, _| {});
        leecher.offered.filter(|offered| !offered.contains(1)).map(|_| ())
    };
    wait_until("nothing of it is offered", PATIENCE, offers, || program.log());
    assert_arrives(&program, &program.shares[1], &film, MODERN, 4);
    program.stop();

    let state = Folder::new("bits-state");
    let call = tiny(&state, &[&large]).with(&[Path::new("--torrent"), &torrent]);
    let line = call.refusal();
    assert!(line.contains("bitfield") && line.contains("larger board"), "{line}");
}

#[test]
fn a_small_journal_is_written_over_and_over_and_forgets_nothing() {
    let home = Folder::new("small-journal");
    let root = season(&home);
    // Each run that has sent something leaves a record; 8 KiB hold a few of them.
    for run in 0..40 {
        let program: Program = tiny(&home, &[&root]).start();
        assert_eq!(program.log().contains("hashing"), run == 0, "run {run}: {}", program.log());
        let block = Block { piece: 0, begin: 0, length: 16_384 };
        let hash = program.shares[0].info_hash;
        let mut leecher = Leecher::enter(program.address, hash, PLAIN).unwrap();
        leecher.fetch([block], 1, |_, _| {}).unwrap();
        program.stop();
    }
}
