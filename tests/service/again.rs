//! A second start, and a start after a crash.

use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, Folder, PATIENCE, wait_until};
use crate::torrent::Metainfo;
use crate::{assert_arrives, bytes, film, names_under};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_second_start_reads_nothing_of_what_is_shared() {
    let home = Folder::new("second-start");
    let film = film(&home, 20_000_000);
    let first = Call::share(&home, &[&film]).start();
    assert!(first.log().contains("hashing"), "{}", first.log());
    assert!(first.proc_number("io", "rchar") > 20_000_000);
    let info_hash = first.shares[0].info_hash;
    first.stop();
    let second = Call::share(&home, &[&film]).start();
    assert!(!second.log().contains("hashing"), "{}", second.log());
    let read = second.proc_number("io", "rchar");
    assert!(read < 4_000_000, "{read} bytes read");
    assert_eq!(second.shares[0].info_hash, info_hash);
    assert_arrives(&second, &second.shares[0], &film, MODERN, 64);
    second.stop();
}

#[test]
fn the_same_tree_has_the_same_name_in_every_copy_and_every_run() {
    let homes = [Folder::new("copy"), Folder::new("copy")];
    let mut seen = Vec::new();
    for home in &homes {
        // Written in another order each time, so that the folder's own order differs.
        let mut names: Vec<u64> = (0..40).collect();
        if !seen.is_empty() {
            names.reverse();
        }
        for number in names {
            home.write(format!("tree/{}/{number}", number % 7), &bytes(number, 5_000));
        }
        let root = home.path().join("tree");
        for state in ["one", "two"] {
            let state = home.path().join(state);
            let program = Call::share(home, &[&root]).state(&state).start();
            seen.push(program.shares[0].info_hash);
            program.stop();
        }
    }
    assert!(seen.iter().all(|hash| *hash == seen[0]), "{seen:?}");
}

#[test]
fn another_tracker_or_another_listener_is_no_reason_to_hash() {
    let home = Folder::new("other-options");
    let film = film(&home, 2_000_000);
    let first = Call::share(&home, &[&film]).start();
    let info_hash = first.shares[0].info_hash;
    first.stop();
    for tracker in [&["--tracker", "http://127.0.0.1:9/announce"][..], &[]] {
        let again = Call::share(&home, &[&film]).with(tracker).start();
        assert!(!again.log().contains("hashing"), "{}", again.log());
        assert_eq!(again.shares[0].info_hash, info_hash);
        let named = fs::read(&again.shares[0].torrent).unwrap();
        let named = String::from_utf8_lossy(&named).contains("127.0.0.1:9");
        assert_eq!(named, !tracker.is_empty(), "the .torrent names the trackers of today");
        assert_arrives(&again, &again.shares[0], &film, MODERN, 64);
        again.stop();
    }
}

#[test]
fn a_tree_that_has_changed_is_hashed_anew() {
    let home = Folder::new("changed-tree");
    let root = crate::season(&home);
    let first = Call::share(&home, &[&root]).start();
    let info_hash = first.shares[0].info_hash;
    first.stop();
    home.write("season/three", &bytes(3, 30_000));
    let second = Call::share(&home, &[&root]).start();
    assert_ne!(second.shares[0].info_hash, info_hash);
    assert_eq!(second.shares[0].files, 4);
    assert_arrives(&second, &second.shares[0], &root, MODERN, 64);
    second.stop();
}

#[test]
fn killed_while_it_hashes_it_starts_afresh() {
    let home = Folder::new("killed-hashing");
    let film = large(&home);
    for after_ms in [0, 30, 100] {
        let program = Call::share(&home, &[&film]).launch();
        program.wait_for_words("hashing");
        wait_for(after_ms);
        program.kill();
    }
    let program = Call::share(&home, &[&film]).start();
    assert_first_and_last(&program, &film);
    assert_eq!(torrents_in(program.state()), 1, "what was half-made has been cleared away");
    program.stop();
}

#[test]
fn interrupted_while_it_hashes_it_leaves_nothing_half_done() {
    let home = Folder::new("interrupted");
    let film = large(&home);
    for signal in [Signal::INT, Signal::TERM] {
        let program = Call::share(&home, &[&film]).launch();
        program.wait_for_words("hashing");
        wait_for(50);
        let asked = Instant::now();
        program.signal(signal);
        let (_, events) = program.wait();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(events.is_empty(), "{events:?}");
        let left = names_under(&home.path().join("state/torrents"));
        assert!(left.is_empty(), "{left:?}");
    }
    let program = Call::share(&home, &[&film]).start();
    assert_first_and_last(&program, &film);
    program.stop();
}

#[test]
fn killed_while_it_serves_it_goes_on_without_hashing() {
    let home = Folder::new("killed-serving");
    let film = film(&home, 20_000_000);
    Call::share(&home, &[&film]).start().stop();
    for after_ms in [0, 5, 20] {
        let program = Call::share(&home, &[&film]).start();
        assert!(!program.log().contains("hashing"), "{}", program.log());
        let (address, hash) = (program.address, program.shares[0].info_hash);
        let torrent = Metainfo::read(&program.shares[0].torrent);
        let fetching = std::thread::spawn(move || {
            let mut leecher = Leecher::enter(address, hash, MODERN)?;
            leecher.fetch_all(&torrent, 64)
        });
        wait_for(after_ms);
        program.kill();
        // Cut off or done, as it happens: nothing is to be learnt from it.
        let _ = fetching.join().unwrap();
    }
    let program = Call::share(&home, &[&film]).start();
    assert!(!program.log().contains("hashing"), "{}", program.log());
    assert_arrives(&program, &program.shares[0], &film, MODERN, 64);
    program.stop();
}

#[test]
fn a_damaged_state_folder_costs_a_hash_and_nothing_else() {
    let home = Folder::new("damaged");
    let film = film(&home, 2_000_000);
    let program = Call::share(&home, &[&film]).start();
    let torrent = Metainfo::read(&program.shares[0].torrent);
    let folder = program.shares[0].torrent.parent().unwrap().to_owned();
    program.stop();
    for (name, damage) in [
        ("facts", Damage::Flip(10)),
        ("extents", Damage::Flip(3)),
        ("facts", Damage::Empty),
        ("extents", Damage::Empty),
        ("film.mkv.torrent", Damage::Empty),
        ("film.mkv.torrent", Damage::Gone),
        ("extents", Damage::Gone),
    ] {
        damage.is_done_to(&folder.join(name));
        let program = Call::share(&home, &[&film]).start();
        let share = &program.shares[0];
        assert_eq!(share.info_hash, torrent.info_hash, "{name}, {damage:?}");
        let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
        let info = leecher.fetch_metadata().unwrap();
        assert_eq!(Metainfo::of(&info), torrent, "{name}, {damage:?}");
        let content = leecher.fetch_all(&torrent, 64).unwrap();
        torrent.assert_is(&content, &film);
        program.stop();
    }
}

#[test]
fn a_journal_that_is_none_is_refused_and_made_anew_once_it_is_gone() {
    let home = Folder::new("journal");
    let film = film(&home, 500_000);
    Call::share(&home, &[&film]).start().stop();
    let journal = home.path().join("state/journal");
    let length = fs::metadata(&journal).unwrap().len() as usize;
    for content in [bytes(9, length), vec![0; length], Vec::new(), b"short".to_vec()] {
        fs::write(&journal, &content).unwrap();
        if !content.is_empty() {
            let line = Call::share(&home, &[&film]).refusal();
            assert!(line.contains("state/journal: ") && line.contains("move it away"), "{line}");
            fs::remove_file(&journal).unwrap();
        }
        let program = Call::share(&home, &[&film]).start();
        assert!(program.log().contains("hashing"), "{}", program.log());
        program.stop();
    }
    let program = Call::share(&home, &[&film]).start();
    assert_arrives(&program, &program.shares[0], &film, MODERN, 64);
    program.stop();
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64),
    Empty,
    Gone,
}

impl Damage {
    fn is_done_to(self, path: &Path) {
        match self {
            Damage::Flip(at) => {
                let file = File::options().read(true).write(true).open(path).unwrap();
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            }
            Damage::Empty => drop(File::create(path).unwrap()),
            Damage::Gone => fs::remove_file(path).unwrap(),
        }
    }
}

/// A file that takes a while to hash: most of it is a hole.
fn large(home: &Folder) -> std::path::PathBuf {
    let path = home.write("large.img", &bytes(1, 100_000));
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(LARGE_BYTES).unwrap();
    file.write_all_at(&bytes(2, 100_000), LARGE_BYTES - 100_000).unwrap();
    path
}

/// Fetches a block from each end of the only share.
fn assert_first_and_last(program: &crate::program::Program, film: &Path) {
    let share = &program.shares[0];
    let blocks = Metainfo::read(&share.torrent).blocks();
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let file = File::open(film).unwrap();
    let torrent = Metainfo::read(&share.torrent);
    for block in [blocks[0], blocks[blocks.len() - 1]] {
        let mut expected = vec![0; block.length as usize];
        file.read_exact_at(&mut expected, torrent.offset(block) as u64).unwrap();
        let sink = |_, bytes: &[u8]| assert!(bytes == expected);
        assert_eq!(leecher.fetch([block], 1, sink).unwrap(), []);
    }
}

fn torrents_in(state: &Path) -> usize {
    fs::read_dir(state.join("torrents")).unwrap().count()
}

/// Lets so much time pass: it is the moment of the cut that is to vary.
fn wait_for(ms: u64) {
    let until = Instant::now() + Duration::from_millis(ms);
    wait_until("time passes", PATIENCE, || (Instant::now() >= until).then_some(()), String::new);
}

const LARGE_BYTES: u64 = 1 << 30;
