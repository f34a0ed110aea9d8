//! Content is put elsewhere while it is served.

use super::{ALONE, Home, assert_served};
use crate::bytes;
use crate::program::{Call, PATIENCE, Program, wait_until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A box that shares a file and a folder, each by itself, and where they lie.
fn sharing(home: &Home) -> (Program, PathBuf, PathBuf) {
    let film = home.drop_file("film.mkv", &bytes(1, 9_000_000));
    home.drop_file("show/one", &bytes(2, 500_000));
    home.drop_file("show/extra/two", &bytes(3, 400_000));
    let show = home.at("show");
    let each = [&film, &show].map(|path| format!("[[share]]\npath = \"{}\"\n", path.display()));
    let program = Call::run_box(&home.0, &(ALONE.to_string() + &each.concat())).start();
    program.wait_for_share("film.mkv");
    program.wait_for_share("show");
    (program, film, show)
}

/// A folder on another disk, which goes with what is in it.
struct Elsewhere(crate::program::Folder);

impl Elsewhere {
    fn new(name: &str) -> Elsewhere {
        Elsewhere(crate::program::Folder::within(Path::new("/dev/shm"), name))
    }
}

fn lies_in(program: &Program, what: &str, path: &Path) {
    let there = |detail: &serde_json::Value| detail["torrent"]["path"] == path.to_str().unwrap();
    program.wait_for(what, there);
}

fn move_to(program: &Program, what: &str, to: &Path) -> Result<(), String> {
    let to = to.to_str().unwrap();
    let ended = program.tell(&["move", what, to]);
    if ended.status.success() { Ok(()) } else { Err(ended.stderr) }
}

#[test]
fn content_goes_to_another_disk_and_is_served_from_there() {
    let (home, elsewhere) = (Home::new("move-disk"), Elsewhere::new("move-disk"));
    let (program, film, show) = sharing(&home);
    let before = program.wait_for_share("film.mkv").info_hash;
    let to = elsewhere.0.path();
    move_to(&program, "film.mkv", to).unwrap();
    move_to(&program, "show", to).unwrap();
    lies_in(&program, "film.mkv", &to.join("film.mkv"));
    lies_in(&program, "show", &to.join("show"));
    wait_until(
        "the source is gone",
        PATIENCE,
        || (!film.exists() && !show.exists()).then_some(()),
        || program.log(),
    );
    assert_eq!(fs::read(to.join("film.mkv")).unwrap(), bytes(1, 9_000_000));
    let after = assert_served(&program, "film.mkv", &to.join("film.mkv"));
    assert_eq!(after.info_hash, before);
    assert_served(&program, "show", &to.join("show"));
    assert_eq!(fs::read_dir(to).unwrap().count(), 2, "nothing half-made stays");
    program.stop();
}

#[test]
fn on_the_same_disk_no_byte_is_copied() {
    let home = Home::new("move-link");
    let (program, film, _) = sharing(&home);
    let inode = fs::metadata(&film).unwrap().ino();
    let to = home.at("fetched");
    move_to(&program, "film.mkv", &to).unwrap();
    lies_in(&program, "film.mkv", &to.join("film.mkv"));
    assert_eq!(fs::metadata(to.join("film.mkv")).unwrap().ino(), inode);
    assert_served(&program, "film.mkv", &to.join("film.mkv"));
    program.stop();
}

#[test]
fn a_move_that_cannot_be_is_refused_and_the_source_stays_as_it_was() {
    let home = Home::new("move-refused");
    let (program, film, _) = sharing(&home);
    home.drop_file("fetched/film.mkv", b"another");
    let nowhere = home.at("nowhere");
    for (to, why) in [
        (nowhere.as_path(), "is no folder"),
        (&home.at("fetched"), "is there already"),
        (Path::new("/proc"), "bytes free, and 9000000 are needed"),
    ] {
        let refusal = move_to(&program, "film.mkv", to).unwrap_err();
        assert!(refusal.contains(why) && refusal.contains("; "), "{refusal}");
    }
    let refusal = move_to(&program, "no such film", &home.at("wishes")).unwrap_err();
    assert!(refusal.contains("no torrent"), "{refusal}");
    assert_eq!(fs::read(&film).unwrap(), bytes(1, 9_000_000));
    assert_served(&program, "film.mkv", &film);
    program.stop();
}

#[test]
fn a_source_that_changes_meanwhile_stays_where_it_is() {
    let (home, elsewhere) = (Home::new("move-changed"), Elsewhere::new("move-changed"));
    let (program, _, show) = sharing(&home);
    fs::write(show.join("one"), bytes(9, 500_000)).unwrap();
    move_to(&program, "show", elsewhere.0.path()).unwrap();
    program.wait_for_words("has changed since it was hashed");
    wait_until(
        "nothing half-made stays",
        PATIENCE,
        || (fs::read_dir(elsewhere.0.path()).unwrap().count() == 0).then_some(()),
        || program.log(),
    );
    assert!(show.join("extra/two").exists());
    program.stop();
}

#[test]
fn a_move_cut_short_anywhere_goes_on_by_itself() {
    let rounds = if std::env::var_os("PERENNIAL_FULL").is_some() { 200 } else { 12 };
    let (home, elsewhere) = (Home::new("move-killed"), Elsewhere::new("move-killed"));
    let (mut program, film, _) = sharing(&home);
    let content = bytes(1, 9_000_000);
    let places = [film.parent().unwrap().to_path_buf(), elsewhere.0.path().to_path_buf()];
    for round in 0..rounds {
        let (from, to) = (&places[round % 2], &places[(round + 1) % 2]);
        move_to(&program, "film.mkv", to).unwrap();
        std::thread::sleep(std::time::Duration::from_millis((round * 7 % 40) as u64));
        program.kill();
        program = Call::run_box(&home.0, ALONE).start();
        lies_in(&program, "film.mkv", &to.join("film.mkv"));
        assert_eq!(fs::read(to.join("film.mkv")).unwrap(), content, "round {round}");
        assert_served(&program, "film.mkv", &to.join("film.mkv"));
        // Once the record is written the source may stay, and that is said.
        let _ = fs::remove_file(from.join("film.mkv"));
    }
    program.stop();
}
