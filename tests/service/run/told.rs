//! What the owner tells a box that runs.

use super::{
    ALONE, Home, answers, assert_served, content_of, foreign, hashed, strays, wait_until_gone,
};
use crate::author::Torrent;
use crate::bytes;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, PATIENCE, Program, Share, tell, wait_until};
use crate::seeder::{Habits, Seeder};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A box that looks after nothing by itself.
fn idle(home: &Home) -> Program {
    Call::run_box(&home.0, ALONE).start()
}

fn add(program: &Program, arguments: &[&str]) -> Vec<Share> {
    let answered = program.ask(&[&["add"], arguments].concat());
    answered.iter().filter(|line| line["detail"].is_object()).map(of).collect()
}

fn of(line: &Value) -> Share {
    Share::of(&line["detail"])
}

#[track_caller]
fn refused(program: &Program, arguments: &[&str], words: &[&str]) {
    let ended = program.tell(arguments);
    assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stdout);
    for words in words {
        assert!(ended.stderr.contains(words), "no {words}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("; "), "a remedy: {}", ended.stderr);
}

#[test]
fn added_paths_are_shared_and_known_from_then_on() {
    let home = Home::new("run-add");
    let film = home.drop_file("film.mkv", &bytes(1, 300_000));
    home.drop_file("season/one", &bytes(2, 50_000));
    let season = home.at("season");
    let program = idle(&home);
    let paths = [film.to_str().unwrap(), season.to_str().unwrap()];
    let shares = add(&program, &paths);
    assert_eq!(
        shares.iter().map(|share| share.name.as_str()).collect::<Vec<_>>(),
        ["film.mkv", "season"]
    );
    assert_served(&program, "film.mkv", &film);
    assert_served(&program, "season", &season);
    assert_eq!(add(&program, &paths).len(), 2, "known already");
    assert_eq!(hashed(&program), 2, "{}", program.log());
    refused(&program, &["add", "/no/such/path"], &["/no/such/path", "No such file"]);
    let state = program.state().to_path_buf();
    refused(&program, &["add", state.to_str().unwrap()], &["remembers"]);
    refused(&program, &["add", home.at("").to_str().unwrap()], &["remembers"]);
    program.end();
    let program = idle(&home);
    for share in &shares {
        assert!(answers(&program, share.info_hash));
    }
    assert_eq!(hashed(&program), 0);
}

#[test]
fn added_links_are_fetched_into_the_folder_that_is_named_and_not_without_one() {
    let home = Home::new("run-add-links");
    let torrent = foreign("film.mkv", 3, 400_000);
    let path = torrent.write(home.0.path(), "film.torrent");
    let seeder = Seeder::start(&torrent, Habits::default());
    let program = idle(&home);
    let (link, into) = (path.to_str().unwrap(), home.at("fetched"));
    refused(&program, &["add", link], &["where", "[fetch]"]);
    let file = home.drop_file("file", b"no folder");
    let within = file.join("into");
    refused(&program, &["add", link, "--into", within.to_str().unwrap()], &["into"]);
    assert_eq!(program.list().len(), 0, "{:?}", program.list());
    assert_eq!(strays(&program), [""; 0]);
    let peer = seeder.as_peer();
    let arguments = [link, "--into", into.to_str().unwrap(), &peer[0], &peer[1]];
    assert_eq!(add(&program, &arguments)[0].info_hash, torrent.info_hash);
    let share = program.wait_for_share("film.mkv");
    assert_eq!(fs::read(into.join("film.mkv")).unwrap(), torrent.content.all());
    assert!(content_of(&program, &share) == torrent.content.all());
    assert_eq!(strays(&program), [""; 0]);
    program.end();
}

#[test]
fn a_paused_share_lets_its_peers_go_and_stays_paused_until_it_is_resumed() {
    let home = Home::new("run-pause");
    let film = home.drop_file("film.mkv", &bytes(1, 300_000));
    let program = idle(&home);
    let share = add(&program, &[film.to_str().unwrap()]).remove(0);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let answered = program.ask(&["pause", "film.mkv"]);
    assert_eq!(answered[0]["torrent"]["state"], "paused");
    leecher.read_to_end().unwrap();
    assert!(!answers(&program, share.info_hash));
    program.end();
    let program = idle(&home);
    assert!(!answers(&program, share.info_hash));
    assert_eq!(program.list()[0]["state"], "paused");
    program.ask(&["resume", "film.mkv"]);
    assert_served(&program, "film.mkv", &film);
    assert_eq!(hashed(&program), 0);
    program.end();
}

/// A fetch under way: its box, its seed and its torrent.
fn under_way(home: &Home) -> (Program, Seeder, Arc<Torrent>) {
    let torrent = foreign("film.mkv", 4, 3_000_000);
    let path = torrent.write(home.0.path(), "film.torrent");
    let seeder = Seeder::start(&torrent, Habits { rate: Some(600_000), ..Habits::default() });
    let program = home.start();
    let peer = seeder.as_peer();
    add(&program, &[path.to_str().unwrap(), &peer[0], &peer[1]]);
    let some = |detail: &Value| detail["torrent"]["here_bytes"].as_u64() > Some(500_000);
    program.wait_for("film.mkv", some);
    (program, seeder, torrent)
}

#[test]
fn a_fetch_paused_in_the_middle_fetches_nothing_twice() {
    let home = Home::new("run-pause-fetch");
    let (program, seeder, torrent) = under_way(&home);
    let answered = program.ask(&["pause", "film.mkv"]);
    let here = answered[0]["torrent"]["here_bytes"].as_u64().unwrap();
    assert_eq!(answered[0]["torrent"]["state"], "paused");
    assert!(here > 500_000 && here < 3_000_000, "{answered:?}");
    // One block may have been on its way.
    thread::sleep(Duration::from_millis(200));
    seeder.take_tallies();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(seeder.tallies().sent_bytes, 0, "it is paused");
    // Also over a restart, before and after it goes on.
    program.end();
    let program = home.start();
    let paused = program.find("film.mkv").unwrap();
    assert_eq!(paused["torrent"]["state"], "paused");
    assert_eq!(paused["torrent"]["here_bytes"], here);
    seeder.behave(Habits::default());
    program.ask(&["resume", "film.mkv"]);
    program.wait_for_share("film.mkv");
    let asked = seeder.tallies().sent_bytes;
    assert!(asked <= 3_000_000 - here, "{asked} bytes, and {here} were there");
    assert_eq!(fs::read(home.at("fetched/film.mkv")).unwrap(), torrent.content.all());
    program.end();
}

#[test]
fn all_can_be_paused_and_go_on_together() {
    let home = Home::new("run-pause-all");
    let (program, seeder, _) = under_way(&home);
    home.drop_file("shared/song", &bytes(5, 100_000));
    let song = program.wait_for_share("song");
    // Nobody knows what this is.
    let nameless = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=unknown";
    add(&program, &[nameless]);
    program.ask(&["pause", "all"]);
    let states = |program: &Program| {
        let list = program.list();
        let mut states: Vec<String> =
            list.iter().map(|item| item["state"].as_str().unwrap().to_string()).collect();
        states.sort();
        states
    };
    assert_eq!(states(&program), ["paused"; 3]);
    assert!(!answers(&program, song.info_hash));
    program.end();
    let program = home.start();
    assert_eq!(states(&program), ["paused"; 3]);
    seeder.behave(Habits::default());
    program.ask(&["resume", "all"]);
    program.wait_for_share("film.mkv");
    assert!(answers(&program, song.info_hash));
    assert_eq!(program.find("unknown").unwrap()["torrent"]["state"], "fetching");
    program.ask(&["remove", "unknown"]);
    wait_until_gone(&program, "unknown");
    program.end();
}

#[test]
fn what_is_removed_is_gone_and_its_files_are_where_they_were() {
    let home = Home::new("run-remove");
    let (program, seeder, _) = under_way(&home);
    let film = home.drop_file("kept.mkv", &bytes(1, 300_000));
    let share = add(&program, &[film.to_str().unwrap()]).remove(0);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    program.ask(&["remove", "kept.mkv"]);
    leecher.read_to_end().unwrap();
    assert!(!answers(&program, share.info_hash) && film.exists());
    // In the middle of its fetch.
    let ended = program.tell(&["remove", "film.mkv", "--delete"]);
    assert!(!ended.status.success() && ended.stderr.contains("--yes"), "{}", ended.stderr);
    program.ask(&["remove", "film.mkv", "--delete", "--yes"]);
    assert!(!home.at("fetched/film.mkv").exists());
    // One block may have been on its way.
    thread::sleep(Duration::from_millis(200));
    seeder.take_tallies();
    assert!(program.list().is_empty());
    assert_eq!(strays(&program), [""; 0]);
    program.end();
    let program = home.start();
    thread::sleep(Duration::from_millis(300));
    assert!(program.list().is_empty() && film.exists());
    assert_eq!(seeder.tallies().sent_bytes, 0, "it is not begun again");
    refused(&program, &["remove", "kept.mkv"], &["no torrent"]);
}

#[test]
fn only_its_own_unchanged_files_are_deleted() {
    let home = Home::new("run-delete");
    for name in ["a", "deep/b", "deep/er/c", "changed"] {
        home.drop_file(&format!("season/{name}"), &bytes(name.len() as u64, 40_000));
    }
    let (program, season) = (idle(&home), home.at("season"));
    add(&program, &[season.to_str().unwrap()]);
    home.drop_file("season/deep/foreign", b"of somebody else");
    let changed = File::options().write(true).open(season.join("changed")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&changed, b"dear diary", 20_000).unwrap();
    program.ask(&["remove", "season", "--delete", "--yes"]);
    let mut left = crate::names_under(&season);
    left.sort();
    assert_eq!(left, ["changed", "deep", "deep/foreign"]);
    program.wait_for_words("is not as it was shared or fetched");
    assert!(program.list().is_empty());
    program.end();
}

#[test]
fn share_and_get_hand_over_to_the_box_that_runs() {
    let home = Home::new("run-hand-over");
    let program = idle(&home);
    let film = home.drop_file("film.mkv", &bytes(1, 300_000));
    let handed = |call: Call| call.listen(None).board(None).run();
    let ended = handed(Call::share(&home.0, &[&film]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("film.mkv"), "{}", ended.stdout);
    assert_served(&program, "film.mkv", &film);
    let torrent = foreign("other.mkv", 9, 1_000_000);
    let path = torrent.write(home.0.path(), "other.torrent");
    let seeder = Seeder::start(&torrent, Habits { rate: Some(700_000), ..Habits::default() });
    let call = Call::get(&home.0, &[&path]).with(&["--exit"]).with(&seeder.as_peer());
    let ended = handed(call);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(fs::read(home.at("got/other.mkv")).unwrap(), torrent.content.all());
    let line = Call::share(&home.0, &[&film]).board(None).refusal();
    assert!(line.contains("--listen") && line.contains("perennial stop"), "{line}");
    let ended = tell(program.state(), &["stop"]);
    assert!(ended.status.success(), "{}", ended.stderr);
    program.ended();
}

#[test]
fn the_box_answers_while_three_additions_hash() {
    let home = Home::new("run-three-adds");
    let song = home.drop_file("song", &bytes(1, 100_000));
    let program = idle(&home);
    add(&program, &[song.to_str().unwrap()]);
    let state = program.state().to_path_buf();
    let adds: Vec<_> = ["one", "two", "three"]
        .map(|name| {
            let path = home.at(name);
            File::create(&path).unwrap().set_len(4 << 30).unwrap();
            let state = state.clone();
            thread::spawn(move || tell(&state, &[Path::new("add"), &path]))
        })
        .into();
    thread::sleep(Duration::from_millis(300));
    for command in
        [&["list"][..], &["stats"], &["show", "song"], &["pause", "song"], &["resume", "song"]]
    {
        let asked = Instant::now();
        program.ask(command);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{command:?}: {took:?}");
    }
    assert_served(&program, "song", &song);
    let asked = Instant::now();
    program.end();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    for add in adds {
        assert!(!add.join().unwrap().status.success(), "it was interrupted");
    }
}

#[test]
fn a_removed_torrent_goes_although_its_peers_come_back_all_the_time() {
    let home = Home::new("run-remove-crowd");
    let film = home.drop_file("film.mkv", &bytes(1, 300_000));
    let program = idle(&home);
    let share = add(&program, &[film.to_str().unwrap()]).remove(0);
    let (address, over) = (program.address, Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let crowd: Vec<_> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok(mut leecher) = Leecher::connect(address, share.info_hash, MODERN) {
                        let _ = leecher.read_to_end();
                    }
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    program.ask(&["remove", "film.mkv"]);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    crowd.into_iter().for_each(|one| one.join().unwrap());
    let gone = || (!answers(&program, share.info_hash)).then_some(());
    wait_until("it is off the air", PATIENCE, gone, || program.log());
    program.end();
}
