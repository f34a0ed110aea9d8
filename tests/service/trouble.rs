//! Disks and files that fail a fetch: it pauses, says so once, and goes on when it can.

use crate::author::Torrent;
use crate::bytes;
use crate::get::pieces;
use crate::lacks_root;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, Folder, PATIENCE, wait_until};
use crate::seeder::{Habits, Seeder};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

/// Pieces of 16 KiB, so that a piece is a block.
fn film(pieces: usize) -> Arc<Torrent> {
    Arc::new(Torrent::single("film.mkv", 16 << 10, bytes(50, pieces << 14)))
}

#[test]
fn a_full_disk_pauses_a_fetch_until_there_is_room_and_harms_no_other() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("full-disk");
    let torrent = film(256);
    let other = Arc::new(Torrent::folder("other", 16 << 10, &[("file", bytes(51, 100 << 14))]));
    let seeder = Seeder::start(&torrent, Habits::default());
    let slow = Seeder::start(&other, Habits { rate: Some(200_000), ..Habits::default() });
    let paths =
        [torrent.write(home.path(), "film.torrent"), other.write(home.path(), "other.torrent")];
    let got = home.path().join("got");
    fs::create_dir(&got).unwrap();
    // 2 MiB for a film of 4, and another disk for the other torrent. Both are its alone: what the
    // test has to do there it does through `/proc`.
    let script = format!(
        "mount -t tmpfs -o size=2m none '{0}' && mkdir '{0}/other' && \
         mount -t tmpfs -o size=8m none '{0}/other' && exec \"$@\"",
        got.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let call = Call::get(&home, &[&paths[0], &paths[1]]).with(&seeder.as_peer());
    let program = call.with(&slow.as_peer()).under(&wrapper).start();
    let events = program.events_until("error");
    let error = events.last().unwrap();
    // Whether a look or a write was first to find it out.
    let words = error["error"].as_str().unwrap();
    assert!(words.contains("No space left") || words.contains("its disk is full"), "{error}");
    assert_eq!(error["info_hash"], hex(&torrent.info_hash));
    // The other goes on meanwhile.
    let events = program.events_until("complete");
    assert_eq!(events.last().unwrap()["info_hash"], hex(&other.info_hash));
    // A look and a write may each find it out, and each says so once.
    let again = events.iter().filter(|event| event["event"] == "error").count();
    assert!(again <= 1, "it is said over and over: {events:?}");
    // Nothing is asked for in vain while there is no room.
    let asked: u32 = seeder.tallies().asked.iter().sum();
    assert!(asked < 256 + 128, "{asked} blocks asked for");
    // What is there can be had.
    let mut leecher = Leecher::connect(program.address, torrent.info_hash, MODERN).unwrap();
    assert!((0..256).any(|piece| leecher.wait_for_offer().unwrap().contains(piece)));
    let inside = format!("/proc/{}/root{}", program.id(), got.display());
    let nsenter = ["nsenter", "--mount", "--target", &program.id().to_string()].map(String::from);
    let mut remount = std::process::Command::new(&nsenter[0]);
    remount.args(&nsenter[1..]).args(["mount", "-o", "remount,size=16m"]).arg(&got);
    assert!(remount.status().unwrap().success());
    program.events_until("complete");
    let film = fs::read(Path::new(&inside).join("film.mkv")).unwrap();
    assert!(film == torrent.content.all());
    program.ended_by_signal();
}

#[test]
fn a_full_state_folder_costs_a_line_and_no_byte_of_content() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("full-state");
    let torrent = film(256);
    let seeder = Seeder::start(&torrent, Habits { rate: Some(2_000_000), ..Habits::default() });
    let path = torrent.write(home.path(), "film.torrent");
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    // After the start the folder is filled up to the last byte.
    let script = format!("mount -t tmpfs -o size=4m none '{}' && exec \"$@\"", state.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer()).under(&wrapper);
    let program = call.start();
    let inside = format!("/proc/{}/root{}", program.id(), state.display());
    let filling = Path::new(&inside).join("filling");
    let mut file = File::create(&filling).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    let done = || fs::read(home.path().join("got/film.mkv")).ok();
    let done = || done().filter(|film| film == torrent.content.all()).map(drop);
    wait_until("it is all there", PATIENCE, done, || program.log());
    // It cannot be recorded or settled yet, and is served all the same.
    let mut leecher = Leecher::enter(program.address, torrent.info_hash, MODERN).unwrap();
    let blocks = (0..256).map(|piece| crate::leecher::Block { piece, begin: 0, length: 16_384 });
    assert_eq!(leecher.fetch(blocks, 16, |_, _| {}).unwrap(), []);
    drop(file);
    fs::remove_file(filling).unwrap();
    program.events_until("complete");
    program.ended_by_signal();
}

#[test]
fn a_file_cut_short_while_it_is_fetched_is_never_served_wrong_and_not_written_to() {
    assert_mended_after(
        |path| File::options().write(true).open(path).unwrap().set_len(3_000_000).unwrap(),
        |path, refusal| {
            // Half of the film was there, so some of it still is; and whoever did that may have had a
            // reason.
            assert!(refusal.unwrap().contains("exists with other content"));
            assert_eq!(fs::metadata(path).unwrap().len(), 3_000_000);
            fs::remove_file(path).unwrap();
        },
    );
}

#[test]
fn a_file_deleted_while_it_is_fetched_is_mended_by_the_next_start() {
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    assert_mended_after(gone, |_, refusal| assert_eq!(refusal, None));
}

#[test]
fn a_file_emptied_while_it_is_fetched_is_mended_by_the_next_start() {
    let emptied = |path: &Path| drop(File::create(path).unwrap());
    assert_mended_after(emptied, |_, refusal| assert_eq!(refusal, None));
}

#[test]
fn a_file_replaced_by_another_while_it_is_fetched_is_not_written_to() {
    let mine = bytes(77, 256 << 14);
    let theirs = mine.clone();
    assert_mended_after(
        move |path| {
            let other = path.with_file_name("other");
            fs::write(&other, &theirs).unwrap();
            fs::rename(other, path).unwrap();
        },
        move |path, refusal| {
            // It is somebody's file: nothing was written to it, and it has to be moved away.
            assert!(fs::read(path).unwrap() == mine);
            assert!(refusal.unwrap().contains("exists with other content"));
            fs::remove_file(path).unwrap();
        },
    );
}

#[test]
fn a_file_replaced_by_a_link_while_it_is_fetched_is_not_followed() {
    assert_mended_after(
        |path| {
            let outside = path.ancestors().nth(2).unwrap().join("outside");
            fs::write(&outside, vec![7; 256 << 14]).unwrap();
            fs::remove_file(path).unwrap();
            symlink(outside, path).unwrap();
        },
        |path, refusal| {
            let outside = path.ancestors().nth(2).unwrap().join("outside");
            assert!(fs::read(outside).unwrap() == vec![7; 256 << 14]);
            assert!(refusal.unwrap().contains("film.mkv"));
            fs::remove_file(path).unwrap();
        },
    );
}

/// Fetches half of a film, does something to it, lets it go on for a while, and starts again:
/// refused or not, which is looked at, in the end everything is there.
#[track_caller]
fn assert_mended_after(change: impl FnOnce(&Path), look: impl FnOnce(&Path, Option<String>)) {
    let home = Folder::new("mended");
    let torrent = film(256);
    let seeder = Seeder::start(&torrent, Habits { stalls_after: Some(128), ..Habits::default() });
    let path = torrent.write(home.path(), "film.torrent");
    let call = || Call::get(&home, &[&path]).with(&seeder.as_peer());
    let program = call().start();
    let mut said = Vec::new();
    while said.len() < 128 {
        said.extend(pieces(&program.events_until("piece")));
    }
    let film = home.path().join("got/film.mkv");
    change(&film);
    seeder.behave(Habits::default());
    let events = program.events_until("error");
    assert!(events.last().unwrap()["error"].as_str().unwrap().contains("film.mkv"), "{events:?}");
    // Whatever is served now is right.
    let mut leecher = Leecher::enter(program.address, torrent.info_hash, MODERN).unwrap();
    let blocks =
        said.iter().map(|&piece| crate::leecher::Block { piece, begin: 0, length: 16_384 });
    let right = |block: crate::leecher::Block, bytes: &[u8]| {
        assert!(*bytes == torrent.content.all()[block.piece as usize * 16_384..][..bytes.len()]);
    };
    // Told no or let go, it does not matter which.
    let _ = leecher.fetch(blocks, 8, right);
    program.ended_by_signal();
    let refused = || {
        let ended = call().with(&["--exit"]).run();
        let line = ended.stderr.lines().find(|line| line.starts_with("perennial: "));
        assert_eq!(ended.status.success(), line.is_none(), "{}", ended.stderr);
        line.map(String::from)
    };
    look(&film, refused());
    assert_eq!(refused(), None);
    assert!(fs::read(&film).unwrap() == torrent.content.all());
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
