//! What a box fetches: from a folder of links, in its turn, and not again.

use super::{Home, assert_served, foreign, settle, strays, wait_until_gone};
use crate::author::Torrent;
use crate::bytes;
use crate::program::{Call, PATIENCE, Program, digits, wait_until};
use crate::seeder::{Habits, Seeder};
use crate::tracker_server::{Announce, Event, Introduces, Tracker, Transport};
use serde_json::Value;
use std::fs;
use std::time::Instant;

#[test]
fn what_is_dropped_into_the_folder_of_links_is_fetched_once() {
    let home = Home::new("run-wishes");
    let (torrent, program) = (foreign("film.mkv", 1, 400_000), home.start());
    let seeder = Seeder::start(&torrent, Habits::default());
    torrent.write(&home.at("wishes"), "film.torrent");
    program.wait_for("film.mkv", |_| true);
    seeder.call(program.address);
    program.wait_for_share("film.mkv");
    // A magnet link leads to another box, which knows what it is of.
    let other = Home::new("run-wishes-other");
    let song = other.drop_file("song.ogg", &bytes(2, 300_000));
    let source = Call::share(&other.0, &[&song]).start();
    let link = format!("{}&x.pe={}\n", source.shares[0].magnet, source.address);
    home.drop_file("wishes/song.magnet", link.as_bytes());
    home.drop_file("wishes/notes.txt", b"nothing to fetch");
    home.drop_file("wishes/broken.magnet", b"magnet:?xt=urn:nothing");
    let fetched = assert_served(&program, "song.ogg", &home.at("fetched/song.ogg"));
    assert_eq!(fetched.info_hash, source.shares[0].info_hash);
    program.wait_for_words("broken.magnet");
    // What the owner removes is not wished for again because the box is started again.
    program.ask(&["remove", "film.mkv", "--delete", "--yes"]);
    program.end();
    let program = home.start();
    settle(&program, &home);
    assert!(program.find("film.mkv").is_none(), "{}", program.log());
    assert_served(&program, "song.ogg", &home.at("fetched/song.ogg"));
    // But because its file has come again.
    fs::remove_file(home.at("wishes/film.torrent")).unwrap();
    settle_again(&program, &home);
    torrent.write(&home.at("wishes"), "film.torrent");
    program.wait_for("film.mkv", |_| true);
    program.end();
}

/// The folders have been looked at once more.
fn settle_again(program: &Program, home: &Home) {
    home.drop_file("shared/once more", b"once more");
    program.wait_for_share("once more");
}

#[test]
fn links_beyond_what_the_board_fetches_wait_and_go_on_by_themselves() {
    let home = Home::new("run-queue");
    let call = || Call::run_box(&home.0, &home.config("")).board(Some("test-tiny"));
    let program = call().start();
    let torrents: Vec<_> =
        (0..4).map(|n| foreign(&format!("film-{n}"), n, 200_000 + n as usize)).collect();
    let seeders: Vec<Seeder> = torrents
        .iter()
        .map(|torrent| Seeder::start(torrent, Habits { rate: Some(150_000), ..Habits::default() }))
        .collect();
    // Only its name is known, and nobody has it: it takes the one place there is.
    let nobody = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=nobody";
    program.ask(&["add", nobody]);
    for (torrent, seeder) in torrents.iter().zip(&seeders) {
        let path = torrent.write(home.0.path(), &format!("{}.torrent", digits(&torrent.info_hash)));
        let peer = seeder.as_peer();
        program.ask(&["add", path.to_str().unwrap(), &peer[0], &peer[1]]);
    }
    let waits =
        |item: &Value| item["trouble"].as_str().is_some_and(|words| words.contains("waits"));
    assert_eq!(program.list().iter().filter(|item| waits(item)).count(), 4, "{:?}", program.list());
    program.end();
    // Nobody has to say it again after a restart.
    let program = call().start();
    let all = program.list();
    assert_eq!(all.len(), 5, "{all:?}");
    program.ask(&["remove", "nobody"]);
    wait_until_gone(&program, "nobody");
    for torrent in &torrents {
        let name = digits(&torrent.info_hash);
        let share = program.wait_for_share(&name);
        assert_eq!(fs::read(home.at("fetched").join(&share.name)).unwrap(), torrent.content.all());
        assert_served(&program, &name, &home.at("fetched").join(&share.name));
    }
    assert!(!program.list().iter().any(waits));
    assert_eq!(strays(&program), [""; 0]);
    program.end();
}

#[test]
fn a_link_whose_place_is_wrong_is_put_off_and_the_next_has_its_turn() {
    let home = Home::new("run-put-off");
    let other = Home::new("run-put-off-other");
    let song = other.drop_file("song.ogg", &bytes(2, 100_000));
    let source = Call::share(&other.0, &[&song]).start();
    let link = format!("{}&x.pe={}", source.shares[0].magnet, source.address);
    let program = Call::run_box(&home.0, &home.config("")).board(Some("test-tiny")).start();
    let into = home.drop_file("file", b"no folder").join("into");
    program.ask(&["add", &link, "--into", into.to_str().unwrap()]);
    let trouble = program.wait_for("song.ogg", |detail| detail["torrent"]["state"] == "trouble");
    assert!(trouble["torrent"]["trouble"].as_str().unwrap().contains("into"), "{trouble}");
    let torrent = foreign("film.mkv", 1, 100_000);
    let (path, seeder) =
        (torrent.write(home.0.path(), "film.torrent"), Seeder::start(&torrent, Habits::default()));
    let peer = seeder.as_peer();
    program.ask(&["add", path.to_str().unwrap(), &peer[0], &peer[1]]);
    program.wait_for_share("film.mkv");
    // Said once, and not again for each try.
    let said = || program.log().lines().filter(|line| line.starts_with("warn: ")).count();
    assert!(said() <= 2, "{}", program.log());
    // With another place it is fetched.
    program.ask(&["add", &link]);
    let here = || home.at("fetched/song.ogg").exists().then_some(());
    wait_until("it is fetched", PATIENCE, here, || program.log());
    assert_served(&program, "song.ogg", &home.at("fetched/song.ogg"));
    assert_eq!(strays(&program), [""; 0]);
    program.end();
}

#[test]
fn a_fetch_that_is_refused_leaves_nothing_behind() {
    let home = Home::new("run-refused");
    let call = || Call::run_box(&home.0, &home.config("")).board(Some("test-tiny"));
    let program = call().start();
    // More pieces than the board has bits for, whatever else is fetched.
    let torrent = Torrent::zeros("film.mkv", 16 << 10, 40_000 * (16 << 10));
    let path = torrent.write(home.0.path(), "film.torrent");
    let ended = program.tell(&["add", path.to_str().unwrap()]);
    assert!(!ended.status.success() && ended.stderr.contains("larger board"), "{}", ended.stderr);
    let is_clean = || {
        assert!(program.list().is_empty(), "{:?}", program.list());
        for (folder, what) in [("state/wanted", "a wish"), ("state/torrents", "a torrent")] {
            let names = fs::read_dir(home.at(folder)).into_iter().flatten().flatten();
            assert_eq!(names.count(), 0, "{what} is left in {folder}");
        }
        assert!(!home.at("fetched/film.mkv").exists());
    };
    is_clean();
    program.end();
    // Nor is it begun by a command that runs alone.
    let line = Call::get(&home.0, &[&path]).board(Some("test-tiny")).refusal();
    assert!(line.contains("larger board") && !home.at("got/film.mkv").exists(), "{line}");
    let program = call().start();
    assert!(program.list().is_empty(), "{:?}", program.list());
    assert_eq!(fs::read_dir(home.at("state/wanted")).into_iter().flatten().count(), 0);
    program.end();
}

#[test]
fn trackers_that_the_owner_names_for_a_fetch_outlast_restarts() {
    let home = Home::new("run-own-trackers");
    let heard_at = |ip: [u8; 4]| Tracker::start(&[(ip, 0).into()], Introduces::Everyone).unwrap();
    let (first, second) = (heard_at([127, 0, 0, 1]), heard_at([127, 0, 0, 1]));
    let torrent = foreign("film.mkv", 1, 400_000);
    let path = torrent.write(home.0.path(), "film.torrent");
    let link = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=song";
    let are_told = |program: &Program, since: Instant| {
        for tracker in [&first, &second] {
            let is_told = |one: &Announce| one.at > since && one.event == Event::Started;
            let told = || tracker.heard().iter().any(is_told).then_some(());
            wait_until("its tracker is told", PATIENCE, told, || program.log());
        }
    };
    let (begun, program) = (Instant::now(), home.start());
    for (link, tracker) in [(path.to_str().unwrap(), &first), (link, &second)] {
        program.ask(&["add", link, "--tracker", &tracker.url(Transport::Http, 0)]);
    }
    // At once, though the box had no tracker to wake for.
    are_told(&program, begun);
    program.end();
    for _ in 0..2 {
        let (begun, program) = (Instant::now(), home.start());
        are_told(&program, begun);
        program.end();
    }
}
