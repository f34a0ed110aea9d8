//! The journal on a file: the same bytes as on a flash, and what a disk can do to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use perennial::engine::journal::{Journal, JournalError, Replay};
use perennial::service::flash_file::{FileOperation, FlashFile, FlashFileError};
use rustix::io::Errno;

use crate::mock_flash::MockFlash;
use crate::model::{self, Scenario};
use crate::prng::Prng;

const CAPACITY: u32 = 64 << 10;

#[test]
fn file_and_flash_hold_the_same_bytes_and_reopen_alike() {
    let folder = Folder::new("same");
    let path = folder.0.join("journal");
    let scenario = || Scenario { prng: Prng::new(11), actions: 200, restarts: true };
    let mut flash = MockFlash::<512, 4096>::new(CAPACITY as usize);
    let states = scenario().run(&mut flash, &mut [0; 2048], |_, _| {});
    let mut file = FlashFile::open(&path, CAPACITY).expect("a writable folder");
    let states_of_file = scenario().run(&mut file, &mut [0; 2048], |_, _| {});
    assert!(states_of_file == states);
    drop(file);
    assert!(fs::read(&path).expect("the file is there") == flash.bytes);

    let file = FlashFile::open(&path, 2 * CAPACITY).expect("the file is there");
    assert_eq!(file.capacity(), CAPACITY as usize, "a file keeps its size");
    let mut buffer = [0; 2048];
    let (_, replay, state) = model::open(file, &mut buffer).expect("a whole journal");
    assert!(!replay.fresh);
    assert_eq!(Some(&state), states.last());
}

#[test]
fn file_left_empty_or_unfinished_is_made_anew() {
    let folder = Folder::new("anew");
    let path = folder.0.join("journal");
    fs::write(&path, b"").expect("a writable folder");
    fs::write(folder.0.join("journal.new"), b"half-made").expect("a writable folder");
    let file = FlashFile::open(&path, CAPACITY).expect("a writable folder");
    let opened = Journal::open(file, &mut [0; 2048], &mut |_| {}).map(|(_, replay)| replay);
    assert_eq!(opened, Ok(Replay { fresh: true, ..Replay::default() }));
    assert_eq!(folder.names(), ["journal"]);
}

#[test]
fn foreign_file_is_refused_and_left_alone() {
    let folder = Folder::new("foreign");
    let path = folder.0.join("journal");
    let letter = b"Dear reader, ".repeat(1000);
    fs::write(&path, &letter).expect("a writable folder");
    let mut file = FlashFile::open(&path, CAPACITY).expect("a file");
    assert_eq!(model::refusal(&mut file, 2048), Some(JournalError::NotAJournal));
    assert!(fs::read(&path).expect("still there") == letter);
}

#[test]
fn errors_name_operation_place_and_cause() {
    let folder = Folder::new("errors");
    let io = |operation, offset, cause| FlashFileError::Io { operation, offset, cause };
    let missing = FlashFile::open(&folder.0.join("none").join("journal"), CAPACITY);
    assert_eq!(missing.err(), Some(io(FileOperation::Create, 0, Errno::NOENT)));
    let opened = FlashFile::open(&folder.0, CAPACITY);
    assert_eq!(opened.err(), Some(io(FileOperation::Open, 0, Errno::ISDIR)));

    let path = folder.0.join("journal");
    let mut file = FlashFile::open(&path, CAPACITY).expect("a writable folder");
    let misused = file.write(100, &[0; 512]).expect_err("between two sectors");
    assert_eq!(misused.kind(), NorFlashErrorKind::NotAligned);
    let beyond = file.read(CAPACITY, &mut [0]).expect_err("behind the end");
    assert_eq!(beyond.kind(), NorFlashErrorKind::OutOfBounds);
    fs::write(&path, b"cut short behind our back").expect("a writable file");
    let short = file.read(4096, &mut [0; 512]).expect_err("nothing is there");
    assert_eq!(short, io(FileOperation::Read, 4096, Errno::IO));
}

#[test]
fn full_disk_refuses_a_new_journal_and_stops_no_old_one() {
    let folder = Folder::new("full");
    let Some(disk) = SmallDisk::mount(&folder.0) else {
        eprintln!("not tested: this user may not mount a disk of 192 KiB");
        return;
    };
    let too_large = FlashFile::open(&disk.0.join("large"), 1 << 20);
    let Err(FlashFileError::Io { operation: FileOperation::Create, offset, cause }) = too_large
    else {
        panic!("a MiB on 192 KiB: {too_large:?}");
    };
    assert_eq!(cause, Errno::NOSPC);
    assert!(offset > 0, "it began");
    assert_eq!(fs::read_dir(&disk.0).expect("mounted").count(), 0, "nothing is left behind");

    let mut file = FlashFile::open(&disk.0.join("journal"), CAPACITY).expect("64 of 192 KiB");
    fs::write(disk.0.join("films"), vec![1; 1 << 20]).expect_err("the disk is full now");
    let mut scenario = Scenario { prng: Prng::new(12), actions: 200, restarts: true };
    scenario.run(&mut file, &mut [0; 2048], |_, _| {});
}

/// A folder for one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("perennial-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable folder for temporary files");
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.expect("readable"))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A disk in memory with room for 192 KiB, unmounted when the test is over.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<SmallDisk> {
        let point = folder.join("disk");
        fs::create_dir(&point).expect("a writable folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=192k", "perennial-test"]).arg(&point);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(point))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
