//! Entries of a watched folder that come, change, are renamed and go, while the box runs and while
//! it does not.

use super::{ALONE, Home, answers, assert_served, hashed, settle, strays, wait_until_gone};
use crate::bytes;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, PATIENCE, wait_until};
use crate::torrent::Metainfo;
use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn it_is_ready_and_answers_before_anything_is_hashed_and_ends_in_the_middle_of_that() {
    let home = Home::new("run-ready");
    // Nearly all of it is a hole: it takes no room, and its time to be hashed.
    let large = File::create(home.at("shared/large.img")).unwrap();
    large.set_len(4 << 30).unwrap();
    let program = home.start();
    assert!(program.list().is_empty(), "it is ready first");
    assert!(!program.ask(&["stats"]).is_empty());
    thread::sleep(Duration::from_millis(700));
    assert!(program.list().is_empty(), "{}", program.log());
    let asked = Instant::now();
    program.end();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    fs::remove_file(home.at("shared/large.img")).unwrap();
    let program = home.start();
    settle(&program, &home);
    assert_eq!(strays(&program), [""; 0], "nothing half-done stays");
}

#[test]
fn a_dropped_file_is_served_within_two_seconds_of_its_last_byte() {
    let home = Home::new("run-dropped");
    let program = home.start();
    settle(&program, &home);
    let (content, path) = (bytes(1, 1 << 20), home.at("shared/dropped.bin"));
    let mut file = File::create(&path).unwrap();
    for part in content.chunks(1 << 18) {
        file.write_all(part).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    assert!(program.find("dropped.bin").is_none(), "it is not taken half-copied");
    drop(file);
    let last_byte = Instant::now();
    assert_served(&program, "dropped.bin", &path);
    let took = last_byte.elapsed();
    println!("served after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    program.end();
}

#[test]
fn a_renamed_entry_keeps_its_info_hash_and_its_peers() {
    let home = Home::new("run-renamed");
    let content = bytes(2, 3_000_000);
    let path = home.drop_file("shared/before.bin", &content);
    let program = home.start();
    let share = program.wait_for_share("before.bin");
    settle(&program, &home);
    let hashed_before = hashed(&program);
    let torrent = Metainfo::read(&share.torrent);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let blocks = torrent.blocks();
    let (first, rest) = blocks.split_at(blocks.len() / 4);
    let mut got = vec![0; content.len()];
    let mut put = |block, bytes: &[u8]| {
        got[torrent.offset(block)..][..bytes.len()].copy_from_slice(bytes);
    };
    assert_eq!(leecher.fetch(first.to_vec(), 16, &mut put).unwrap(), []);
    fs::rename(&path, home.at("shared/after.bin")).unwrap();
    let moved = |detail: &serde_json::Value| {
        detail["torrent"]["path"].as_str().is_some_and(|path| path.ends_with("after.bin"))
    };
    program.wait_for(&crate::program::digits(&share.info_hash), moved);
    assert_eq!(leecher.fetch(rest.to_vec(), 16, &mut put).unwrap(), [], "nothing is refused");
    assert!(got == content, "every byte is right");
    assert_eq!(hashed(&program), hashed_before, "{}", program.log());
    drop(leecher);
    program.end();
    // And it is still known by that name after a restart.
    let program = home.start();
    settle(&program, &home);
    assert_eq!(hashed(&program), 1, "what the test itself has dropped: {}", program.log());
    assert!(answers(&program, share.info_hash));
    assert_eq!(strays(&program), [""; 0]);
}

#[test]
fn what_a_peer_asked_for_while_it_was_renamed_is_offered_again() {
    let home = Home::new("run-renamed-asked");
    let path = home.drop_file("shared/film-0", &bytes(3, 1_000_000));
    let program = home.start();
    let share = program.wait_for_share("film-0");
    let torrent = Metainfo::read(&share.torrent);
    let mut from = path;
    for round in 1..8 {
        let to = home.at(&format!("shared/film-{round}"));
        fs::rename(&from, &to).unwrap();
        from = to;
        // In the moment in which nobody knows yet where it is.
        if let Ok(mut leecher) = Leecher::enter(program.address, share.info_hash, MODERN) {
            let _ = leecher.fetch(torrent.blocks(), 16, |_, _| {});
        }
    }
    let whole = || {
        let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).ok()?;
        let mut count = 0;
        let rejected = leecher.fetch(torrent.blocks(), 16, |_, _| count += 1).ok()?;
        (rejected.is_empty() && count == torrent.blocks().len()).then_some(())
    };
    wait_until("all of it is served", PATIENCE, whole, || program.log());
    program.end();
}

#[test]
fn what_was_renamed_deleted_and_changed_while_it_was_off_is_noticed() {
    let home = Home::new("run-off");
    for (name, seed) in [("stays", 1), ("renamed", 2), ("deleted", 3), ("changed", 4)] {
        home.drop_file(&format!("shared/{name}"), &bytes(seed, 100_000));
    }
    home.drop_file("shared/album/one", &bytes(5, 50_000));
    home.drop_file("shared/album/two", &bytes(6, 50_000));
    let program = home.start();
    let hash_of = |name: &str| program.wait_for_share(name).info_hash;
    let [stays, renamed, deleted, changed, album] =
        ["stays", "renamed", "deleted", "changed", "album"].map(hash_of);
    program.end();
    fs::rename(home.at("shared/renamed"), home.at("shared/another name")).unwrap();
    fs::rename(home.at("shared/album"), home.at("shared/record")).unwrap();
    fs::remove_file(home.at("shared/deleted")).unwrap();
    home.drop_file("shared/changed", &bytes(7, 100_000));
    let program = home.start();
    let gone = |hash: &[u8; 20]| wait_until_gone(&program, &crate::program::digits(hash));
    gone(&deleted);
    gone(&changed);
    settle(&program, &home);
    // What changed, and what the test itself has dropped.
    assert_eq!(hashed(&program), 2, "{}", program.log());
    for hash in [stays, renamed, album] {
        assert!(answers(&program, hash));
    }
    let served =
        assert_served(&program, &crate::program::digits(&renamed), &home.at("shared/another name"));
    assert_eq!(served.info_hash, renamed);
    assert_served(&program, &crate::program::digits(&album), &home.at("shared/record"));
    for hash in [deleted, changed] {
        assert!(!answers(&program, hash));
    }
    assert_served(&program, "changed", &home.at("shared/changed"));
    program.end();
    // Once more nothing has happened at all.
    let program = home.start();
    settle(&program, &home);
    assert_eq!(hashed(&program), 1, "{}", program.log());
    assert_eq!(program.list().len(), 6, "{:?}", program.list());
}

#[test]
fn a_deleted_entry_is_forgotten_and_a_changed_one_becomes_another_torrent() {
    let home = Home::new("run-changed");
    let path = home.drop_file("shared/diary", &bytes(1, 200_000));
    home.drop_file("shared/letter", &bytes(2, 200_000));
    let program = home.start();
    let (old, letter) = (program.wait_for_share("diary"), program.wait_for_share("letter"));
    assert!(answers(&program, old.info_hash) && answers(&program, letter.info_hash));
    home.drop_file("shared/diary", &bytes(3, 250_000));
    wait_until_gone(&program, &crate::program::digits(&old.info_hash));
    let new = assert_served(&program, "diary", &path);
    assert_ne!(new.info_hash, old.info_hash);
    assert!(program.log().contains("has changed since it was last shared"), "{}", program.log());
    let is_let_go = || (!answers(&program, old.info_hash)).then_some(());
    wait_until("the old one is off the air", PATIENCE, is_let_go, || program.log());
    fs::remove_file(home.at("shared/letter")).unwrap();
    wait_until_gone(&program, "letter");
    assert!(!answers(&program, letter.info_hash));
    assert!(program.log().contains("is gone from its folder"), "{}", program.log());
    assert_eq!(program.list().len(), 1);
    assert_eq!(strays(&program), [""; 0]);
    program.end();
}

#[test]
fn what_happens_below_a_folder_changes_that_entry() {
    let home = Home::new("run-below");
    for track in ["a/one", "a/two", "b/three"] {
        home.drop_file(&format!("shared/album/{track}"), &bytes(track.len() as u64, 40_000));
    }
    let (root, program) = (home.at("shared/album"), home.start());
    let mut last = assert_served(&program, "album", &root).info_hash;
    let mut changed = |what: &str| {
        wait_until_gone(&program, &crate::program::digits(&last));
        let now = assert_served(&program, "album", &root);
        assert_ne!(now.info_hash, last, "{what}");
        last = now.info_hash;
        now.files
    };
    home.drop_file("shared/album/b/four", &bytes(9, 10_000));
    assert_eq!(changed("a file more"), 4);
    fs::remove_dir_all(home.at("shared/album/a")).unwrap();
    assert_eq!(changed("a folder less"), 2);
    fs::rename(home.at("shared/album/b/four"), home.at("shared/album/b/five")).unwrap();
    assert_eq!(changed("another name"), 2);
    fs::remove_dir_all(&root).unwrap();
    wait_until_gone(&program, "album");
    assert!(program.list().is_empty());
    program.end();
}

#[test]
fn an_entry_that_could_not_be_shared_is_when_its_name_is_better() {
    let home = Home::new("run-bad-name");
    let path = home.drop_file("shared/empty", b"");
    let program = home.start();
    settle(&program, &home);
    assert!(program.find("empty").is_none());
    // Long rests are for what has just been begun.
    fs::write(&path, bytes(1, 1_000)).unwrap();
    assert_served(&program, "empty", &path);
    program.end();
}

#[test]
fn a_thing_that_changes_is_shared_as_it_is_now_and_its_neighbours_wake_nobody() {
    let home = Home::new("run-things");
    let film = home.drop_file("films/film.mkv", &bytes(1, 100_000));
    home.drop_file("films/season/one", &bytes(2, 50_000));
    let season = home.at("films/season");
    let config = format!(
        "{ALONE}[[share]]\npath = \"{}\"\n[[share]]\npath = \"{}\"\n",
        film.display(),
        season.display()
    );
    let program = Call::run_box(&home.0, &config).start();
    let first = program.wait_for_share("film.mkv");
    program.wait_for_share("season");
    assert_eq!(hashed(&program), 2);
    // What else is written there is nobody's business.
    thread::sleep(Duration::from_secs(3));
    let woken = || program.proc_number("status", "voluntary_ctxt_switches");
    let (before, asked) = (woken(), woken());
    for _ in 0..20 {
        home.drop_file("films/film.mkv.part", &bytes(3, 10_000));
        thread::sleep(Duration::from_millis(60));
    }
    assert!(woken() - asked <= 12 + (asked - before), "{} times", woken() - asked);
    let is_of = |bytes: u64| move |detail: &serde_json::Value| detail["torrent"]["bytes"] == bytes;
    // Written over, replaced by another, and with one more in it.
    home.drop_file("films/film.mkv", &bytes(4, 100_001));
    program.wait_for("film.mkv", is_of(100_001));
    assert!(!answers(&program, first.info_hash));
    fs::rename(home.drop_file("films/new.part", &bytes(5, 100_002)), &film).unwrap();
    program.wait_for("film.mkv", is_of(100_002));
    home.drop_file("films/season/two", &bytes(6, 60_000));
    program.wait_for("season", is_of(110_000));
    assert_served(&program, "film.mkv", &film);
    assert_served(&program, "season", &season);
    // Gone it stays known, and is served when it is back.
    let aside = home.at("films/aside");
    fs::rename(&season, &aside).unwrap();
    program.wait_for_words("season: ");
    assert!(program.find("season").is_some());
    fs::rename(&aside, &season).unwrap();
    assert_served(&program, "season", &season);
    assert_eq!(hashed(&program), 5, "{}", program.log());
    program.end();
}

#[test]
fn an_entry_that_could_not_be_shared_is_tried_again_when_the_configuration_is_read_again() {
    let home = Home::new("run-again");
    // More torrents than this board knows: the last waits for a place in the library.
    let program = home.call().board(Some("test-tiny")).start();
    for number in 0..6 {
        let song = home.drop_file(&format!("song-{number}"), &bytes(number, 1_000));
        program.ask(&["add", song.to_str().unwrap()]);
    }
    let late = home.drop_file("shared/late", &bytes(9, 1_000));
    program.wait_for_words("is full");
    program.ask(&["remove", "song-0"]);
    assert!(program.find("late").is_none());
    program.signal(rustix::process::Signal::HUP);
    assert_served(&program, "late", &late);
    program.end();
}
