//! What the real program says, asked on the command line.

use crate::fake::FakeBox;
use crate::program::{Folder, binary};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn program(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--state").arg(state).stdin(Stdio::null());
    command
}

fn run(state: &Path, arguments: &[&str]) -> Output {
    program(state, arguments).output().expect("the program can be run")
}

/// What it says when it succeeds.
#[track_caller]
fn said(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("it speaks UTF-8")
}

/// What it says when it refuses.
#[track_caller]
fn refused(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("it speaks UTF-8")
}

#[test]
fn without_a_box_it_is_said_how_to_have_one() {
    let home = Folder::new("no-box");
    let wanted = format!(
        "perennial: {}: no box is running on it; start it with `perennial run`\n",
        home.path().display()
    );
    let commands: [&[&str]; 11] = [
        &["add", "x"],
        &["remove", "x"],
        &["pause", "all"],
        &["resume", "x"],
        &["list"],
        &["show", "x"],
        &["move", "x", "y"],
        &["update", "x"],
        &["stats"],
        &["stop", "--json"],
        &["remove", "x", "--delete", "--yes"],
    ];
    for arguments in commands {
        assert_eq!(refused(home.path(), arguments), wanted);
    }
}

#[test]
fn torrents_are_listed_for_people_and_for_programs() {
    let home = Folder::new("list");
    let _fake = FakeBox::start(home.path(), 1_200, 0, 10_000);
    let text = said(home.path(), &["list", "film 119"]);
    let wanted = "\
HASH      NAME                  SIZE  STATE             SENT  PEERS
8bc9953a  film 119          5.00 GiB  resting          119 B      0
";
    assert!(text.starts_with(wanted), "{text}");
    assert_eq!(text.lines().count(), 1 + 11);
    let lines = said(home.path(), &["list", "--json"]);
    assert_eq!(lines.lines().count(), 1_201);
    assert!(lines.lines().take(1_200).all(|line| line.starts_with("{\"torrent\":{\"info_hash\":")));
    assert_eq!(lines.lines().last(), Some("{\"done\":{}}"));
}

#[test]
fn a_torrent_is_shown_and_found_by_its_front() {
    let home = Folder::new("show");
    let _fake = FakeBox::start(home.path(), 1_200, 0, 10_000);
    let text = said(home.path(), &["show", "8bc9953a"]);
    assert!(text.starts_with("film 119\n  info-hash  8bc9953a"), "{text}");
    assert!(
        text.contains("\n  tracker    udp://tracker.example.org:6969: not asked yet\n  files\n")
    );
    assert!(text.ends_with("    1.00 MiB      here  part 1199\n"));
    assert_eq!(text.matches("files\n").count(), 1, "one heading over three pages");
    let error = refused(home.path(), &["show", "nothing"]);
    assert!(error.starts_with("perennial: nothing: no torrent has this name"), "{error}");
}

#[test]
fn the_rest_is_answered_in_a_line_or_two() {
    let home = Folder::new("rest");
    let _fake = FakeBox::start(home.path(), 10, 0, 10_000);
    let state = home.path();
    assert_eq!(said(state, &["resume", "all"]), "All go on.\n");
    let removed = "film 3: resting, nobody asks for it\nRemoved. Its files are where they were.\n";
    assert_eq!(said(state, &["remove", "film 3"]), removed);
    let both = said(state, &["remove", "film 3", "film 4", "--delete", "--yes"]);
    assert_eq!(both.matches("Removed, and its files deleted.").count(), 2);
    let error = refused(state, &["remove", "film 3", "--delete"]);
    let wanted = "perennial: --delete: there is no terminal to ask on whether its files may go; \
                  add --yes if they may\n";
    assert_eq!(error, wanted);
    let added = said(state, &["add", "/srv/film"]);
    let wanted = "film 0\n  5.00 GiB, 1200 files, resting, nobody asks for it\n  info-hash  ";
    assert!(added.starts_with(wanted), "{added}");
    let lines = said(state, &["add", "/srv/film", "--json"]);
    let kinds: Vec<&str> = lines.lines().map(|line| line.split('"').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["progress", "detail", "done"]);
    assert!(said(state, &["stats"]).contains("board small\n"));
    let updated = said(state, &["update", "next.update"]);
    let wanted = "It is on the card. The box starts it now, and returns to the version it had should the \
                  new one not do.\n";
    assert_eq!(updated, wanted);
    assert_eq!(said(state, &["update", "next.update", "--json"]), "{\"done\":{}}\n");
    let error = refused(state, &["add", "/srv/film", "--tracker", "nowhere"]);
    assert!(error.ends_with("give an http, https or udp URL\n"), "{error}");
    let error = refused(state, &["show", "all"]);
    assert!(error.contains("all: is understood by pause and resume only"), "{error}");
}

#[test]
fn many_things_are_added_in_parts() {
    let home = Folder::new("parts");
    let _fake = FakeBox::start(home.path(), 1, 0, 10_000);
    let paths: Vec<String> = (0..600).map(|number| format!("/srv/film {number}")).collect();
    let arguments: Vec<&str> =
        ["add", "--json"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let lines = said(home.path(), &arguments);
    // The box here answers a request with one torrent.
    assert_eq!(lines.matches("{\"detail\":").count(), 3);
}

#[test]
fn share_and_get_hand_over_to_a_box_that_runs() {
    let home = Folder::new("hand-over");
    let _fake = FakeBox::start(home.path(), 1, 0, 10_000);
    let state = home.path();
    let shared = said(state, &["share", "film.mkv"]);
    assert!(shared.starts_with("film 0\n  5.00 GiB, 1200 files, resting"), "{shared}");
    let magnet = "magnet:?xt=urn:btih:0123456789012345678901234567890123456789";
    // What the box here answers is complete.
    assert_eq!(said(state, &["get", magnet, "--exit", "-o", "in"]), shared);
    let lines = said(state, &["get", magnet, "--json"]);
    assert!(lines.ends_with("\n{\"done\":{}}\n") && lines.contains("{\"detail\":{"), "{lines}");
    let remedy = "belongs to the box that is running here; leave it out, or stop the box first with \
                  `perennial stop`\n";
    for option in ["--lan", "--no-dht", "--up=1M"] {
        let error = refused(state, &["share", "film.mkv", option]);
        assert!(error.ends_with(remedy), "{error}");
    }
}

#[test]
fn files_are_deleted_when_the_owner_says_so_on_a_terminal() {
    let home = Folder::new("terminal");
    let _fake = FakeBox::start(home.path(), 10, 0, 10_000);
    let question = "film 3 is removed, and its 1200 files (5.00 GiB) in /srv/film 3 deleted. \
                    Really? [y/N] ";
    for (answer, words) in [("n\n", "It is left as it was."), ("yes\n", "its files deleted.")] {
        let program = binary();
        let (program, state) = (program.display(), home.path().display());
        let call = format!("{program} remove 'film 3' --delete --state {state}");
        // It gives the program a terminal.
        let mut child = Command::new("script")
            .args(["-qec", &call, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bsdutils is there");
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(question), "{text}");
        assert!(text.contains(words), "{answer}: {text}");
    }
}

#[test]
fn who_has_read_enough_is_asked_for_no_more() {
    let home = Folder::new("head");
    let _fake = FakeBox::start(home.path(), 100_000, 0, 10_000);
    let mut child = program(home.path(), &["list"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HASH");
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn stop_returns_when_the_box_has_ended() {
    let home = Folder::new("stop");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commands::a_box_in_a_process_of_its_own"])
        .env(BOX, home.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while !home.path().join("control").exists() {
        assert!(Instant::now() < limit, "the box does not begin");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(said(home.path(), &["stop"]), "Stopped.\n");
    assert!(home.path().join("ended").exists(), "it was waited for");
    assert!(child.wait().unwrap().success());
}

/// What [`stop_returns_when_the_box_has_ended`] starts; by itself it is nothing.
#[test]
fn a_box_in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os(BOX) else { return };
    let mut fake = FakeBox::start(Path::new(&folder), 1, 0, 10_000);
    fake.wait_for_end();
    thread::sleep(Duration::from_millis(300));
    fs::write(Path::new(&folder).join("ended"), b"").unwrap();
}

/// Where that box is.
const BOX: &str = "PERENNIAL_TEST_BOX";
