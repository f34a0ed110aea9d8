//! A box that the kernel keeps to a few folders.

use super::{Home, assert_served};
use crate::bytes;
use crate::program::{Call, Folder, PATIENCE, Program, wait_until};
use perennial::service::sys;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;

/// A box that also looks after a folder that is a link to another place, and that place.
fn leading_out(name: &str, elsewhere: &Folder) -> Home {
    let home = Home::new(name);
    elsewhere.write("film.mkv", &bytes(1, 300_000));
    home.drop_file("shared/song.ogg", &bytes(2, 100_000));
    symlink(elsewhere.path(), home.at("shared-too")).unwrap();
    home
}

fn start(home: &Home, first: &str) -> Program {
    let too = format!("[[share]]\nfolder = \"{}\"\n", home.at("shared-too").display());
    Call::run_box(&home.0, &format!("{first}{}", home.config(&too))).start()
}

fn lacks_landlock() -> bool {
    let lacks = sys::landlock_version() < 2;
    if lacks {
        eprintln!("not run: this kernel has no Landlock");
    }
    lacks
}

fn kept_to(home: &Home) -> String {
    format!("keep-to = [\"{}\"]\n", home.at("").display())
}

#[test]
fn what_lies_elsewhere_is_out_of_reach_of_a_box_that_is_kept_to_its_folders() {
    if lacks_landlock() {
        return;
    }
    let elsewhere = Folder::new("run-kept-elsewhere");
    let home = leading_out("run-kept", &elsewhere);
    let program = start(&home, &kept_to(&home));
    assert_served(&program, "song.ogg", &home.at("shared/song.ogg"));
    let refused = || program.log().contains("Permission denied").then_some(());
    wait_until("the link leads nowhere", PATIENCE, refused, || program.log());
    assert!(program.list().iter().all(|share| share["name"] != "film.mkv"));
    let stats = program.tell(&["stats"]).stdout;
    assert!(stats.contains(&home.at("").display().to_string()), "{stats}");

    let film = elsewhere.path().join("film.mkv");
    let told = program.tell(&["add", film.to_str().unwrap()]);
    let said = told.stderr;
    assert!(!told.status.success() && said.contains("kept to; add one to `keep-to`"), "{said}");

    // Its own configuration is still read, and what comes into its folders is shared.
    let more = "[caps]\nup = \"9MB/s\"\n";
    fs::write(home.at("box.toml"), kept_to(&home) + &home.config(more)).unwrap();
    program.signal(Signal::HUP);
    let read = || program.log().contains("has been read again").then_some(());
    wait_until("it is read", PATIENCE, read, || program.log());
    home.drop_file("shared/later.ogg", &bytes(3, 100_000));
    assert_served(&program, "later.ogg", &home.at("shared/later.ogg"));
    program.stop();
}

#[test]
fn without_such_folders_a_link_is_followed_to_them() {
    let elsewhere = Folder::new("run-not-kept-elsewhere");
    let home = leading_out("run-not-kept", &elsewhere);
    let program = start(&home, "");
    assert_served(&program, "film.mkv", &elsewhere.path().join("film.mkv"));
    let stats = program.tell(&["stats"]).stdout;
    assert!(!stats.contains("by the kernel"), "{stats}");
    program.stop();
}

#[test]
fn a_folder_that_is_not_there_cannot_be_kept_to() {
    if lacks_landlock() {
        return;
    }
    let home = Home::new("run-kept-nowhere");
    let config = format!("keep-to = [\"{}\"]\n", home.at("nowhere").display());
    let line = Call::run_box(&home.0, &config).refusal();
    assert!(line.contains("nowhere: No such file") && line.contains("`keep-to`"), "{line}");
}
