//! Disks under a box that runs: unplugged, plugged in elsewhere, full, locked, and slow.
//!
//! They are images of ext4 on loop devices, and file systems in memory, as in
//! [`volumes`](crate::volumes). Unplugged means unmounted with all that is open on them.

use super::{ALONE, answers, content_of, hashed};
use crate::author::Torrent;
use crate::bytes;
use crate::lacks_root;
use crate::program::{Call, Folder, PATIENCE, Program, Share, wait_until};
use crate::seeder::{Habits, Seeder};
use crate::volumes::{Disk, Mounted, image, not_run, run};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Takes a disk away from under those who use it.
fn unplug(mounted: Mounted) {
    run(&["umount", "-l", mounted.0.to_str().unwrap()]).unwrap();
    std::mem::forget(mounted);
}

fn sharing(home: &Folder, folder: &Path) -> Program {
    let config = format!("{ALONE}[[share]]\nfolder = \"{}\"\n", folder.display());
    Call::run_box(home, &config).start()
}

pub fn wait_for_state(program: &Program, name: &str, state: &str) -> Value {
    program.wait_for(name, |detail| detail["torrent"]["state"] == state)
}

/// How the disk at a path is, as `stats` has it.
pub fn disk_state(program: &Program, at: &Path) -> String {
    let lines = program.ask(&["stats"]);
    let disks = lines.iter().map(|line| &line["volume"]).filter(|disk| !disk.is_null());
    let found = disks.into_iter().find(|disk| disk["path"] == at.to_str().unwrap());
    found.map_or_else(String::new, |disk| disk["state"].as_str().unwrap().to_string())
}

pub fn wait_for_disk(program: &Program, at: &Path, state: &str) {
    let is_so = || (disk_state(program, at) == state).then_some(());
    wait_until(state, PATIENCE, is_so, || program.log());
}

pub fn said(program: &Program, words: &str) -> usize {
    program.log().matches(words).count()
}

/// Pieces of 16 KiB, so that a piece is a block.
pub fn film(pieces: usize) -> Arc<Torrent> {
    Arc::new(Torrent::single("film.mkv", 16 << 10, bytes(60, pieces << 14)))
}

#[test]
fn an_unplugged_disk_sleeps_and_is_served_again_from_wherever_it_comes_back() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-unplugged");
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    let test = || {
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let mounted = disk.plug(&here)?;
        let content = bytes(1, 600_000);
        home.write("here/share/film.mkv", &content);
        let program = sharing(&home, &here.join("share"));
        let share = program.wait_for_share("film.mkv");
        assert!(content_of(&program, &share) == content);
        unplug(mounted);
        let asleep = wait_for_state(&program, "film.mkv", "asleep");
        assert!(asleep["volume"].as_str().unwrap().ends_with("), away"), "{asleep}");
        assert!(!answers(&program, share.info_hash));
        // Something else in its place is not it, and nothing is believed to be gone.
        let other = home.write("here/share/other.mkv", &bytes(2, 100_000));
        let refused = program.tell(&["add", other.to_str().unwrap()]);
        assert!(refused.stderr.contains("the disk that belongs to"), "{}", refused.stderr);
        assert_eq!(disk_state(&program, &here), "away");
        wait_for_state(&program, "film.mkv", "asleep");
        assert!(program.find("other.mkv").is_none());
        let plugged = Instant::now();
        let mounted = disk.plug(&there).unwrap();
        wait_for_state(&program, "film.mkv", "resting");
        assert!(content_of(&program, &share) == content);
        assert!(plugged.elapsed() < Duration::from_secs(5), "{:?}", plugged.elapsed());
        assert_eq!((said(&program, "is not there: its"), said(&program, "is there, and")), (1, 1));
        assert_eq!(hashed(&program), 1);
        program.stop();
        // A box that starts without it knows it all the same.
        unplug(mounted);
        let program = sharing(&home, &here.join("share"));
        wait_for_state(&program, "film.mkv", "asleep");
        home.write("here/share/more.mkv", &bytes(3, 100_000));
        program.wait_for_words("more.mkv: the disk that belongs to");
        wait_for_state(&program, "film.mkv", "asleep");
        let _mounted = disk.plug(&here).unwrap();
        wait_for_state(&program, "film.mkv", "resting");
        assert!(content_of(&program, &share) == content);
        // What is deleted while the disk is there is gone.
        fs::remove_file(here.join("share/film.mkv")).unwrap();
        super::wait_until_gone(&program, "film.mkv");
        program.stop();
        Some(())
    };
    not_run(test());
}

#[test]
fn a_disk_that_is_mounted_for_the_first_time_over_a_watched_folder_is_shared() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-first-mount");
    let at = home.path().join("at");
    let test = || {
        // Filled elsewhere, by whoever had it before.
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let elsewhere = home.path().join("elsewhere");
        let mounted = disk.plug(&elsewhere)?;
        let content = bytes(1, 600_000);
        fs::write(elsewhere.join("film.mkv"), &content).unwrap();
        drop(mounted);
        fs::create_dir(&at).unwrap();
        let program = sharing(&home, &at);
        assert!(program.find("film.mkv").is_none());
        let _mounted = disk.plug(&at).unwrap();
        let share = program.wait_for_share("film.mkv");
        assert!(content_of(&program, &share) == content);
        program.stop();
        Some(())
    };
    not_run(test());
}

#[test]
fn a_box_that_has_forgotten_its_disks_knows_them_again_by_their_names() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-forgotten");
    let at = home.path().join("disk");
    let Some(_mounted) = not_run(Mounted::memory(&at, "16m")) else { return };
    let content = bytes(7, 300_000);
    home.write("disk/share/film.mkv", &content);
    let program = sharing(&home, &at.join("share"));
    let share = program.wait_for_share("film.mkv");
    let known = program.state().join("volumes");
    let before = fs::read_to_string(&known).unwrap();
    program.stop();
    for damaged in [String::new(), before.replace(' ', "x")] {
        fs::write(&known, damaged).unwrap();
        let program = sharing(&home, &at.join("share"));
        // Whoever asks for what is on them has them looked for.
        let awake = || answers(&program, share.info_hash).then_some(());
        wait_until("it is known again", PATIENCE, awake, || program.log());
        assert!(content_of(&program, &share) == content);
        assert_eq!((hashed(&program), fs::read_to_string(&known).unwrap() == before), (0, true));
        program.stop();
    }
}

/// A box that fetches a torrent into `into`, from that seeder, half of which is recorded.
fn half_fetched(home: &Folder, into: &Path, torrent: &Arc<Torrent>, seeder: &Seeder) -> Program {
    let path = torrent.write(home.path(), "film.torrent");
    let program = Call::run_box(home, ALONE).start();
    program.ask(&["add", path.to_str().unwrap(), "--into", into.to_str().unwrap()]);
    seeder.call(program.address);
    let half = torrent.content.all().len() as u64 / 2;
    program.wait_for("film.mkv", |detail| {
        detail["torrent"]["here_bytes"].as_u64().is_some_and(|here| here >= half)
    });
    program.ask(&["pause", "film.mkv"]);
    seeder.behave(Habits::default());
    program
}

fn wait_until_whole(program: &Program, path: &Path, torrent: &Torrent, seeder: &Seeder) {
    let whole = || {
        seeder.call(program.address);
        std::thread::sleep(Duration::from_millis(100));
        let state = program.find("film.mkv")?["torrent"]["state"].clone();
        (state != "fetching" && state != "trouble" && state != "asleep").then_some(())
    };
    wait_until("it is whole", PATIENCE, whole, || program.log());
    assert!(fs::read(path).unwrap() == torrent.content.all());
}

#[test]
fn a_fetch_onto_an_unplugged_disk_goes_on_where_it_was_when_that_is_back_elsewhere() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-fetch-unplugged");
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    let test = || {
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let mounted = disk.plug(&here)?;
        let torrent = film(200);
        let habits = Habits { stalls_after: Some(100), ..Habits::default() };
        let seeder = Seeder::start(&torrent, habits);
        let program = half_fetched(&home, &here.join("got"), &torrent, &seeder);
        // It goes away in the middle of everything.
        seeder.behave(Habits { stalls_after: Some(20), ..Habits::default() });
        program.ask(&["resume", "film.mkv"]);
        seeder.call(program.address);
        unplug(mounted);
        wait_for_state(&program, "film.mkv", "asleep");
        seeder.behave(Habits::default());
        // Nothing goes to the folder it was mounted on.
        assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
        let _mounted = disk.plug(&there).unwrap();
        wait_until_whole(&program, &there.join("got/film.mkv"), &torrent, &seeder);
        assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
        let asked: u32 = seeder.tallies().asked.iter().sum();
        assert!(asked <= 240, "what was recorded is asked for once: {asked}");
        assert_eq!(said(&program, "hashing"), 0);
        program.ended_by_signal();
        Some(())
    };
    not_run(test());
}

#[test]
fn a_disk_that_fills_up_keeps_its_reserve_and_the_fetch_goes_on_when_there_is_room() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-full");
    let got = home.path().join("got");
    let Some(_mounted) = not_run(Mounted::memory(&got, "64m")) else { return };
    let filling = File::create(got.join("filling")).unwrap();
    rustix::fs::fallocate(&filling, rustix::fs::FallocateFlags::empty(), 0, 52 << 20).unwrap();
    let torrent = film(700);
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "film.torrent");
    // A tenth of 64 MiB is kept free: of the 12 that are, some are for the 11 of the film.
    let config = ALONE.replace("\"1MB\"", "\"10%\"");
    let program = Call::run_box(&home, &config).start();
    program.ask(&["add", path.to_str().unwrap(), "--into", got.to_str().unwrap()]);
    seeder.call(program.address);
    wait_for_disk(&program, &got, "full");
    let detail = wait_for_state(&program, "film.mkv", "trouble");
    assert_eq!(detail["torrent"]["trouble"], "waits: its disk is full");
    let free = rustix::fs::statvfs(&got).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    // What was on its way to the disk is written all the same: 2 MiB on this board.
    assert!(free > 3 << 20, "a tenth is 6.4 MiB: {free}");
    assert_eq!(said(&program, ": full, "), 1);
    filling.set_len(0).unwrap();
    wait_until_whole(&program, &got.join("film.mkv"), &torrent, &seeder);
    assert_eq!((disk_state(&program, &got).as_str(), said(&program, ": full, ")), ("here", 1));
    program.ended_by_signal();
}

#[test]
fn a_disk_that_is_locked_pauses_a_fetch_until_it_can_be_written_to_and_is_served_from() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-locked");
    let at = home.path().join("disk");
    let test = || {
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let _mounted = disk.plug(&at)?;
        let torrent = film(100);
        let habits = Habits { stalls_after: Some(50), ..Habits::default() };
        let seeder = Seeder::start(&torrent, habits);
        let program = half_fetched(&home, &at.join("got"), &torrent, &seeder);
        let content = bytes(2, 100_000);
        let song = home.write("disk/song.ogg", &content);
        program.ask(&["add", song.to_str().unwrap()]);
        let share: Share = program.wait_for_share("song.ogg");
        // No lane keeps a file open to write to.
        let locked = || run(&["mount", "-o", "remount,ro", at.to_str().unwrap()]).map(drop);
        wait_until("it is locked", PATIENCE, locked, || program.log());
        wait_for_disk(&program, &at, "read-only");
        program.ask(&["resume", "film.mkv"]);
        seeder.call(program.address);
        let detail = wait_for_state(&program, "film.mkv", "trouble");
        assert_eq!(detail["torrent"]["trouble"], "waits: its disk is read-only");
        assert!(content_of(&program, &share) == content);
        assert_eq!(said(&program, ": read-only: fetching"), 1);
        run(&["mount", "-o", "remount,rw", at.to_str().unwrap()]).unwrap();
        wait_until_whole(&program, &at.join("got/film.mkv"), &torrent, &seeder);
        assert_eq!(disk_state(&program, &at), "here");
        program.ended_by_signal();
        Some(())
    };
    not_run(test());
}

#[test]
fn a_copy_of_a_disk_is_refused_with_both_places_named() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-twice");
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let test = || {
        let original = image(&home, "disk.img")?;
        let disk = Disk::attach(&original)?;
        let _mounted = disk.plug(&one)?;
        let content = bytes(4, 100_000);
        let song = home.write("one/song.ogg", &content);
        let program = Call::run_box(&home, ALONE).start();
        program.ask(&["add", song.to_str().unwrap()]);
        let share = program.wait_for_share("song.ogg");
        run(&["sync", "-f", one.to_str().unwrap()]).unwrap();
        fs::copy(&original, home.path().join("copy.img")).unwrap();
        let copy = Disk::attach(&home.path().join("copy.img")).unwrap();
        let copied = copy.plug(&two).unwrap();
        wait_for_disk(&program, &one, "twice");
        let other = home.write("two/other.ogg", &bytes(5, 100_000));
        let refused = program.tell(&["add", other.to_str().unwrap()]);
        assert!(!refused.status.success());
        for path in [&one, &two] {
            assert!(refused.stderr.contains(path.to_str().unwrap()), "{}", refused.stderr);
        }
        assert!(content_of(&program, &share) == content);
        drop(copied);
        wait_for_disk(&program, &one, "here");
        program.stop();
        Some(())
    };
    not_run(test());
}

#[test]
fn a_disk_that_hangs_holds_up_neither_what_is_served_nor_what_is_asked() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-slow");
    let at = home.path().join("disk");
    let test = || {
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let _mounted = disk.plug(&at)?;
        let content = bytes(6, 300_000);
        let song = home.write("song.ogg", &content);
        let torrent = film(100);
        let habits = Habits { stalls_after: Some(50), ..Habits::default() };
        let seeder = Seeder::start(&torrent, habits);
        let program = half_fetched(&home, &at.join("got"), &torrent, &seeder);
        program.ask(&["add", song.to_str().unwrap()]);
        let share = program.wait_for_share("song.ogg");
        assert!(content_of(&program, &share) == content);
        run(&["fsfreeze", "-f", at.to_str().unwrap()])?;
        program.ask(&["resume", "film.mkv"]);
        seeder.call(program.address);
        let asked = Instant::now();
        for _ in 0..5 {
            assert!(content_of(&program, &share) == content);
            program.list();
        }
        let took = asked.elapsed();
        run(&["fsfreeze", "-u", at.to_str().unwrap()]).unwrap();
        assert!(took < Duration::from_secs(3), "{took:?}");
        wait_until_whole(&program, &at.join("got/film.mkv"), &torrent, &seeder);
        program.ended_by_signal();
        Some(())
    };
    not_run(test());
}
