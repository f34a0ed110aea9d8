//! State that was damaged, and places that are wrong: what can be done is, and the rest is said.

use super::{ALONE, Home, answers, assert_served, content_of, hashed};
use crate::bytes;
use crate::program::{Call, Program, Share, digits};
use std::fs;
use std::path::Path;

fn call(home: &Home) -> Call {
    Call::run_box(&home.0, ALONE).board(Some("test-tiny"))
}

fn add(program: &Program, path: &Path) -> Share {
    let answered = program.ask(&[Path::new("add"), path]);
    Share::of(&answered.last().unwrap()["detail"])
}

/// Three torrents that have been brought into the slots, on a box that has ended.
fn settled_in_slots(home: &Home) -> Vec<(Share, Vec<u8>)> {
    let program = call(home).start();
    let shares = [1, 2, 3].map(|seed| {
        let content = bytes(seed, 50_000);
        let path = home.drop_file(&format!("film-{seed}"), &content);
        (add(&program, &path), content)
    });
    let slots = home.at("state/slots");
    let is_there = |share: &Share| {
        let slots = fs::read(&slots).unwrap();
        slots.windows(20).any(|window| window == share.info_hash)
    };
    // This board's journal is small: before long it is brought into the slots.
    for _ in 0..200 {
        if shares.iter().all(|(share, _)| is_there(share)) {
            program.end();
            return shares.into();
        }
        program.ask(&["pause", "all"]);
        program.ask(&["resume", "all"]);
    }
    panic!("the journal never came into the slots: {}", program.log());
}

/// Where the slot of a torrent is in the file.
fn slot_of(slots: &[u8], share: &Share) -> usize {
    let at = slots.windows(20).position(|window| window == share.info_hash);
    at.expect("its slot is there") - 8
}

/// Spoils the slot of a torrent; what it is then.
fn spoil(home: &Home, share: &Share) -> Vec<u8> {
    let path = home.at("state/slots");
    let mut slots = fs::read(&path).unwrap();
    let at = slot_of(&slots, share);
    slots[at + 4] ^= 0xff;
    slots[at + 50] ^= 0xff;
    fs::write(&path, &slots).unwrap();
    // Rebuilt from the slots at the start: that is when they are looked at.
    let _ = fs::remove_file(home.at("state/lookup"));
    slots[at..at + 128].to_vec()
}

#[test]
fn a_damaged_slot_is_kept_and_its_torrent_known_again_by_its_folder() {
    let home = Home::new("run-bad-slot");
    let shares = settled_in_slots(&home);
    let damaged = spoil(&home, &shares[1].0);
    let program = call(&home).start();
    program.wait_for_words("1 torrents are lost");
    let kept = fs::read(home.at("state/damaged")).unwrap();
    assert!(kept.windows(128).any(|window| window == damaged), "the damaged copy is kept");
    program.wait_for_words("is known again by its folder");
    for (share, content) in &shares {
        assert!(content_of(&program, share) == *content);
    }
    assert_eq!(hashed(&program), 0);
    program.end();
    let program = call(&home).start();
    assert!(!program.log().contains("are lost"), "it has been mended: {}", program.log());
    assert_eq!(program.list().len(), 3);
}

#[test]
fn what_is_lost_for_good_costs_nobody_else_and_can_be_added_again() {
    let home = Home::new("run-lost");
    let shares = settled_in_slots(&home);
    spoil(&home, &shares[1].0);
    fs::remove_dir_all(shares[1].0.torrent.parent().unwrap()).unwrap();
    let program = call(&home).start();
    program.wait_for_words("1 torrents are lost");
    for at in [0, 2] {
        assert!(content_of(&program, &shares[at].0) == shares[at].1);
    }
    assert!(!answers(&program, shares[1].0.info_hash));
    assert_eq!(program.list().len(), 2);
    let again = add(&program, &home.at("film-2"));
    assert_eq!(again.info_hash, shares[1].0.info_hash);
    assert!(content_of(&program, &again) == shares[1].1);
    program.end();
}

#[test]
fn what_was_lost_is_shared_again_when_it_lies_in_a_watched_folder() {
    let home = Home::new("run-lost-watched");
    let path = home.drop_file("shared/film", &bytes(1, 50_000));
    let call = || home.call().board(Some("test-tiny"));
    let program = call().start();
    let share = program.wait_for_share("film");
    while !fs::read(home.at("state/slots")).unwrap().windows(20).any(|w| w == share.info_hash) {
        program.ask(&["pause", "all"]);
        program.ask(&["resume", "all"]);
    }
    program.end();
    spoil(&home, &share);
    fs::remove_dir_all(share.torrent.parent().unwrap()).unwrap();
    let program = call().start();
    let again = assert_served(&program, "film", &path);
    assert_eq!(again.info_hash, share.info_hash);
    program.end();
}

#[test]
fn slots_of_a_newer_version_are_left_alone() {
    let home = Home::new("run-newer");
    settled_in_slots(&home);
    let path = home.at("state/slots");
    let mut slots = fs::read(&path).unwrap();
    slots[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let crc = crc32fast::hash(&slots[..44]);
    slots[44..48].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &slots).unwrap();
    let before = crate::names_under(&home.at("state/torrents"));
    let line = call(&home).refusal();
    assert!(line.contains("newer"), "{line}");
    assert!(fs::read(&path).unwrap() == slots, "not a byte is touched");
    assert_eq!(crate::names_under(&home.at("state/torrents")), before);
}

#[test]
fn a_look_up_that_is_missing_or_damaged_is_made_anew() {
    let home = Home::new("run-lookup");
    let shares = settled_in_slots(&home);
    let path = home.at("state/lookup");
    let whole = fs::read(&path).unwrap();
    for damage in 0..4 {
        match damage {
            0 => fs::remove_file(&path).unwrap(),
            1 => fs::write(&path, &whole[..whole.len() / 2]).unwrap(),
            2 => fs::write(&path, bytes(7, whole.len())).unwrap(),
            _ => fs::write(&path, vec![0; whole.len()]).unwrap(),
        }
        let program = call(&home).start();
        for (share, content) in &shares {
            assert!(content_of(&program, share) == *content, "damage {damage}");
        }
        assert_eq!(hashed(&program), 0);
        assert!(!program.log().contains("are lost"), "{}", program.log());
        program.end();
    }
}

#[test]
fn a_torrent_whose_files_in_the_state_folder_are_damaged_is_in_trouble_alone() {
    let home = Home::new("run-bad-facts");
    let shares = settled_in_slots(&home);
    let facts = shares[0].0.torrent.with_file_name("facts");
    let mut bytes = fs::read(&facts).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&facts, bytes).unwrap();
    let program = call(&home).start();
    assert!(!answers(&program, shares[0].0.info_hash));
    for (share, content) in &shares[1..] {
        assert!(content_of(&program, share) == *content);
    }
    let name = digits(&shares[0].0.info_hash);
    let item = program.list().into_iter().find(|item| item["info_hash"] == name.as_str()).unwrap();
    assert_eq!(item["state"], "trouble");
    let again = add(&program, &home.at("film-1"));
    assert!(content_of(&program, &again) == shares[0].1);
    assert_eq!(program.list().len(), 3);
    program.end();
}

#[test]
fn a_place_that_is_wrong_is_said_and_the_others_are_looked_after() {
    let home = Home::new("run-wrong-places");
    let file = home.drop_file("file", b"no folder");
    let film = home.drop_file("shared/film", &bytes(1, 50_000));
    let state = home.at("state");
    let places =
        ["folder", "path"].map(|key| format!("[[share]]\n{key} = \"{}\"\n", state.display()));
    let more = format!(
        "[[share]]\nfolder = \"{}\"\n[[share]]\npath = \"{}\"\n{}{}",
        file.display(),
        home.at("nowhere").display(),
        places[0],
        places[1].replace("/state\"", "/state/torrents\"")
    );
    let program = Call::run_box(&home.0, &home.config(&more)).start();
    assert_served(&program, "film", &film);
    for words in ["file: is not a folder", "nowhere: ", "remembers"] {
        program.wait_for_words(words);
    }
    assert_eq!(program.list().len(), 1, "{:?}", program.list());
    let warnings = program.log().matches("warn: ").count();
    home.drop_file("shared/song", &bytes(2, 50_000));
    program.wait_for_share("song");
    assert_eq!(program.log().matches("warn: ").count(), warnings, "said once: {}", program.log());
    program.end();
}
