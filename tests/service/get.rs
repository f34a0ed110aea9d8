//! What `get` does with a torrent, and what it refuses: fetched from a seed that counts.

use crate::author::Torrent;
use crate::leecher::MODERN;
use crate::program::{Call, Folder, PATIENCE, Program, Share, wait_until};
use crate::seeder::{Habits, Seeder};
use crate::{assert_arrives, bytes, names_under};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A torrent of one file that ends in the middle of a piece and of a block.
fn film() -> Arc<Torrent> {
    Arc::new(Torrent::single("film.mkv", 32 << 10, bytes(40, 1_000_000)))
}

/// A torrent of three files, of which no two share a piece with both others, and an empty one:
/// `one` ends and `two` begins in piece 6, `two` ends and `zero` begins in piece 12.
fn season() -> Arc<Torrent> {
    let files = [
        ("one", bytes(1, 100_001)),
        ("empty", vec![]),
        ("two", bytes(2, 100_000)),
        ("x/zero", bytes(3, 90_000)),
    ];
    Arc::new(Torrent::folder("season", 16 << 10, &files))
}

/// Fetches from one seed until all is there, and stops.
fn fetch(home: &Folder, torrent: &Path, seeder: &Seeder, options: &[&str]) -> Vec<Value> {
    let call = Call::get(home, &[torrent]).with(&seeder.as_peer()).with(&["--exit"]).with(options);
    let program = call.start();
    let (_, events) = program.ended();
    assert!(events.iter().any(|event| event["event"] == "complete"), "{events:?}");
    events
}

/// The pieces of which it said that they are there, in that order.
pub fn pieces(events: &[Value]) -> Vec<u32> {
    let said = events.iter().filter(|event| event["event"] == "piece");
    said.map(|event| event["piece"].as_u64().expect("a number") as u32).collect()
}

/// Checks that a call is refused with these words, and leaves nothing behind: no trace of a
/// torrent, and what was in the target folder before.
#[track_caller]
fn assert_refused(home: &Folder, call: Call, words: &[&str]) {
    let got = home.path().join("got");
    let before = names_under(&got);
    let line = call.refusal();
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert_eq!(names_under(&home.path().join("state/torrents")), [""; 0], "{line}");
    assert_eq!(names_under(&got), before, "{line}");
}

#[test]
fn one_file_arrives_and_exit_ends_it_with_status_0() {
    let home = Folder::new("get-film");
    let torrent = film();
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "film.torrent");
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]).start();
    let added = &program.added[0];
    assert_eq!(added.share.info_hash, torrent.info_hash);
    assert_eq!(
        (added.share.bytes, added.wanted_bytes, added.here_bytes),
        (1_000_000, 1_000_000, 0)
    );
    assert_eq!(added.path, home.path().canonicalize().unwrap().join("got/film.mkv"));
    let (_, events) = program.ended();
    let mut said = pieces(&events);
    said.sort_unstable();
    assert_eq!(said, (0..torrent.piece_count()).collect::<Vec<u32>>());
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert!(names.ends_with(&["complete", "settled"]), "{names:?}");
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), torrent.content.all());
    let tallies = seeder.tallies();
    assert_eq!(tallies.sent_bytes, 1_000_000, "no block twice");
}

#[test]
fn a_folder_arrives_with_its_empty_files_from_a_seed_that_speaks_bep_3_alone() {
    let home = Folder::new("get-season");
    let torrent = season();
    let seeder = Seeder::start(&torrent, Habits { plain: true, ..Habits::default() });
    let path = torrent.write(home.path(), "season.torrent");
    fetch(&home, &path, &seeder, &[]);
    assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
}

/// Checks that these files of the season are there, whole, and no others.
#[track_caller]
fn assert_season_is(home: &Folder, names: &[&str]) {
    let root = home.path().join("got/season");
    let content = |name: &str| match name {
        "one" => bytes(1, 100_001),
        "two" => bytes(2, 100_000),
        "x/zero" => bytes(3, 90_000),
        _ => Vec::new(),
    };
    for name in names {
        assert!(fs::read(root.join(name)).unwrap() == content(name), "{name}");
    }
    let found = names_under(&root).into_iter().filter(|name| root.join(name).is_file());
    let mut names = names.to_vec();
    names.sort_unstable();
    assert_eq!(found.collect::<Vec<_>>(), names);
}

#[test]
fn what_is_fetched_is_shared_at_once_and_by_the_next_get_and_by_share() {
    let home = Folder::new("get-share");
    let torrent = film();
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "film.torrent");
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).start();
    let events = program.events_until("settled");
    let kept = events.last().unwrap()["torrent"].as_str().unwrap();
    assert_eq!(fs::read(kept).unwrap(), torrent.metainfo);
    let got = home.path().join("got/film.mkv");
    let share = Share { torrent: kept.into(), ..program.added[0].share.clone() };
    assert_arrives(&program, &share, &got, MODERN, 16);
    let (totals, _) = program.ended_by_signal();
    assert_eq!(totals.sent_bytes, 1_000_000);
    drop(seeder.take_tallies());
    // The same command once more: it is a share like any other now.
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).start();
    assert_eq!((program.added.len(), program.shares.len()), (0, 1));
    assert!(!program.log().contains("hashing"), "{}", program.log());
    assert_arrives(&program, &program.shares[0], &got, MODERN, 16);
    program.stop();
    let ended = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]).start();
    ended.stopped();
    assert_eq!(seeder.tallies().asked_for(), [0; 0]);
    // And for a box that has never heard of it.
    let other = home.path().join("other");
    let call = Call::share(&home, &[&got]).with(&[Path::new("--torrent"), &path]).state(&other);
    let program = call.start();
    assert_eq!(program.shares[0].info_hash, torrent.info_hash);
    assert_arrives(&program, &program.shares[0], &got, MODERN, 16);
    program.stop();
}

#[test]
fn exit_waits_for_all_torrents_of_a_call() {
    let home = Folder::new("get-both");
    let (film, season) = (film(), season());
    let seeders = [&film, &season].map(|torrent| Seeder::start(torrent, Habits::default()));
    let paths = [film.write(home.path(), "a"), season.write(home.path(), "b")];
    let call = Call::get(&home, &[&paths[0], &paths[1]]).with(&["--exit"]);
    let call = seeders.iter().fold(call, |call, seeder| call.with(&seeder.as_peer()));
    let (_, events) = call.start().ended();
    assert_eq!(events.iter().filter(|event| event["event"] == "complete").count(), 2);
    assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), film.content.all());
}

#[test]
fn sequential_goes_from_front_to_back() {
    let home = Folder::new("get-sequential");
    let torrent = film();
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "film.torrent");
    let events = fetch(&home, &path, &seeder, &["--sequential"]);
    let all: Vec<u32> = (0..torrent.piece_count()).collect();
    assert_eq!(seeder.tallies().order, all);
    // Lanes work side by side, so what was asked for first need not be verified first.
    assert_eq!(pieces(&events).len(), all.len());
}

#[test]
fn files_picks_one_of_three_and_makes_others_only_where_a_piece_reaches_in() {
    let home = Folder::new("get-files");
    let torrent = season();
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "season.torrent");
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer());
    let program = call.with(&["--files", "zero", "--exit"]).start();
    // Its first piece is also the last one of `two`.
    let wanted: Vec<u32> = (12..18).collect();
    assert_eq!(program.added[0].wanted_bytes, 290_001 - 12 * 16_384);
    program.ended();
    assert_eq!(seeder.take_tallies().asked_for(), wanted);
    let root = home.path().join("got/season");
    assert!(fs::read(root.join("x/zero")).unwrap() == bytes(3, 90_000));
    assert_eq!(names_under(&root), ["two", "x", "x/zero"]);
    // The same again has nothing to do.
    let again = ["--files", "zero", "--exit"];
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&again).start();
    assert!(program.added.iter().all(|added| added.here_bytes == added.wanted_bytes));
    program.ended();
    assert_eq!(seeder.take_tallies().asked_for(), [0; 0]);
    // More of it later: what is there is not fetched again.
    fetch(&home, &path, &seeder, &["--files", "zero", "--files", "two"]);
    assert_eq!(seeder.take_tallies().asked_for(), (6..12).collect::<Vec<u32>>());
    fetch(&home, &path, &seeder, &[]);
    assert_eq!(seeder.take_tallies().asked_for(), (0..6).collect::<Vec<u32>>());
    assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
}

#[test]
fn files_can_be_more_of_them_while_it_is_still_being_fetched() {
    let home = Folder::new("get-more-files");
    let torrent = season();
    let seeder = Seeder::start(&torrent, Habits { stalls_after: Some(3), ..Habits::default() });
    let path = torrent.write(home.path(), "season.torrent");
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer());
    let program = call.with(&["--files", "one"]).start();
    program.events_until("piece");
    program.ended_by_signal();
    // Another one: what the first was still to answer must not be counted.
    let seeder = Seeder::start(&torrent, Habits::default());
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]);
    let program = call.start();
    let added = &program.added[0];
    assert!(added.here_bytes > 0 && added.wanted_bytes == 290_001, "{added:?}");
    let before = added.here_bytes;
    program.ended();
    assert_eq!(before + seeder.tallies().sent_bytes, 290_001);
    assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
}

#[test]
fn after_ctrl_c_it_goes_on_where_it_was() {
    let home = Folder::new("get-again");
    let torrent = film();
    let seeder = Seeder::start(&torrent, Habits { stalls_after: Some(30), ..Habits::default() });
    let path = torrent.write(home.path(), "film.torrent");
    let call = || Call::get(&home, &[&path]).with(&seeder.as_peer());
    let program = call().start();
    let mut said = vec![];
    while said.len() < 12 {
        said.extend(pieces(&program.events_until("piece")));
    }
    let asked = Instant::now();
    let (_, more) = program.ended_by_signal();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    said.extend(pieces(&more));
    let last = torrent.piece_count() - 1;
    let length = |piece: &u32| if *piece == last { 1_000_000 % 32_768 } else { 32_768 };
    let verified: u64 = said.iter().map(length).sum();
    // Started and stopped with nothing to be had: nothing is lost by that.
    let program = call().start();
    assert_eq!(program.added[0].here_bytes, verified, "what was verified is recorded");
    assert!(!program.log().contains("hashing"), "{}", program.log());
    program.ended_by_signal();
    // Another one: what the first was still to answer must not be counted.
    let seeder = Seeder::start(&torrent, Habits::default());
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]);
    let program = call.start();
    let here = program.added[0].here_bytes;
    assert_eq!(here, verified);
    program.ended();
    assert_eq!(here + seeder.tallies().sent_bytes, 1_000_000, "nothing is fetched twice");
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), torrent.content.all());
}

#[test]
fn a_seed_that_hangs_up_again_and_again_is_called_again() {
    let home = Folder::new("get-hangs-up");
    let torrent = Arc::new(Torrent::single("film.mkv", 16 << 10, bytes(41, 16 << 14)));
    let seeder = Seeder::start(&torrent, Habits { hangs_up_after: Some(8), ..Habits::default() });
    let path = torrent.write(home.path(), "film.torrent");
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).start();
    program.events_until("complete");
    assert!(seeder.tallies().connections >= 2);
    program.ended_by_signal();
}

#[test]
fn a_peer_that_stops_in_the_middle_of_a_block_does_not_hold_up_the_others() {
    let home = Folder::new("get-stuck");
    let torrent = Arc::new(Torrent::single("film.mkv", 16 << 10, bytes(42, 32 << 14)));
    let habits = Habits { stalls_inside: Some(0), has: Some(0..1), ..Habits::default() };
    let stuck = Seeder::start_at("127.0.3.1:0".parse().unwrap(), &torrent, habits);
    let path = torrent.write(home.path(), "film.torrent");
    let program = Call::get(&home, &[&path]).with(&stuck.as_peer()).start();
    let is_stuck = || (stuck.tallies().sent[0] == 1).then_some(());
    wait_until("it is stuck", PATIENCE, is_stuck, || program.log());
    let honest = Seeder::start(&torrent, Habits::default());
    honest.call(program.address);
    let others = || (honest.tallies().sent.iter().sum::<u32>() >= 31).then_some(());
    wait_until("all else is there", PATIENCE, others, || program.log());
    let limit = Duration::from_secs(40);
    let last = || (honest.tallies().sent[0] == 1).then_some(());
    wait_until("it is late, and the block asked for elsewhere", limit, last, || program.log());
    program.events_until("complete");
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), torrent.content.all());
    program.ended_by_signal();
}

#[test]
fn a_piece_that_is_wrong_is_never_there_and_others_send_it() {
    let home = Folder::new("get-spoilt");
    let torrent = film();
    let path = torrent.write(home.path(), "film.torrent");
    let liar = Seeder::start_at(
        "127.0.3.1:0".parse().unwrap(),
        &torrent,
        Habits { spoils: Some(7), ..Habits::default() },
    );
    let program = Call::get(&home, &[&path]).with(&liar.as_peer()).start();
    let asked = || liar.tallies().asked[7] >= 2;
    wait_until("it sends that piece", PATIENCE, || asked().then_some(()), || program.log());
    let (_, events) = program.ended_by_signal();
    assert!(!pieces(&events).contains(&7));
    let honest = Seeder::start(&torrent, Habits::default());
    let call = Call::get(&home, &[&path]).with(&liar.as_peer()).with(&honest.as_peer());
    let (_, events) = call.with(&["--exit"]).start().ended();
    assert!(pieces(&events).contains(&7));
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), torrent.content.all());
}

#[test]
fn what_lies_there_already_is_taken_up_without_fetching() {
    let home = Folder::new("get-adopted");
    let torrent = season();
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "season.torrent");
    home.write("got/season/one", &bytes(1, 100_001));
    home.write("got/season/two", &bytes(2, 100_000));
    home.write("got/season/x/zero", &bytes(3, 90_000));
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]).start();
    let (_, events) = program.ended();
    assert!(events.iter().any(|event| event["event"] == "complete"), "{events:?}");
    assert_eq!(seeder.tallies().asked_for(), [0; 0]);
    assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
}

#[test]
fn a_file_that_lies_there_whole_is_kept_and_the_others_fetched() {
    let home = Folder::new("get-one-there");
    let torrent = Arc::new(Torrent::folder(
        "pair",
        16 << 10,
        &[("one", bytes(1, 4 << 14)), ("two", bytes(2, 4 << 14))],
    ));
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "pair.torrent");
    home.write("got/pair/two", &bytes(2, 4 << 14));
    fetch(&home, &path, &seeder, &[]);
    assert_eq!(seeder.tallies().asked_for(), [0, 1, 2, 3]);
    assert!(fs::read(home.path().join("got/pair/one")).unwrap() == bytes(1, 4 << 14));
}

#[test]
fn what_lies_there_with_other_content_is_refused_and_untouched_until_force() {
    for other in [bytes(9, 100_000), bytes(9, 1_000), bytes(9, 200_000)] {
        let home = Folder::new("get-other");
        let torrent = season();
        let path = torrent.write(home.path(), "season.torrent");
        let file = home.write("got/season/two", &other);
        let call = || Call::get(&home, &[&path]);
        assert_refused(&home, call(), &["season/two: exists with other content", "--force"]);
        assert!(fs::read(&file).unwrap() == other);
        // Moved away, it is no longer in the way.
        fs::rename(&file, home.path().join("elsewhere")).unwrap();
        let seeder = Seeder::start(&torrent, Habits::default());
        call().with(&seeder.as_peer()).with(&["--exit"]).start().ended();
        assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
        let home = Folder::new("get-forced");
        let path = torrent.write(home.path(), "season.torrent");
        home.write("got/season/two", &other);
        fetch(&home, &path, &seeder, &["--force"]);
        assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
    }
}

#[test]
fn a_magnet_link_whose_file_is_in_the_way_ends_as_a_refusal_does() {
    let home = Folder::new("get-magnet-other");
    let film = crate::film(&home, 300_000);
    let source = Call::share(&home, &[&film]).state(&home.path().join("source")).start();
    let file = home.write("got/film.mkv", &bytes(9, 1_000));
    let peer = source.address.to_string();
    let call = Call::get(&home, &[Path::new(&source.shares[0].magnet)]);
    let ended = call.with(&["--exit", "--peer", &peer]).run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains("film.mkv: exists with other content; move it away"), "{last}");
    assert!(fs::read(&file).unwrap() == bytes(9, 1_000));
    source.stop();
}

#[test]
fn a_file_in_which_nothing_was_ever_written_is_filled() {
    for length in [0, 100_000, 70_000] {
        let home = Folder::new("get-hollow");
        let torrent = season();
        let seeder = Seeder::start(&torrent, Habits::default());
        let path = torrent.write(home.path(), "season.torrent");
        let file = home.write("got/season/two", b"");
        fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
        fetch(&home, &path, &seeder, &[]);
        assert_season_is(&home, &["one", "empty", "two", "x/zero"]);
    }
}

#[test]
fn what_is_no_file_is_refused_and_force_does_not_help() {
    let torrent = season();
    type Put = fn(&Path);
    let folder: Put = |path| fs::create_dir_all(path.join("deeper")).unwrap();
    let pipe: Put = |path| {
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    let file: Put = |path| fs::write(path, b"a file").unwrap();
    for (place, put) in [("two", folder), ("two", pipe), ("x", file)] {
        let home = Folder::new("get-no-file");
        let path = torrent.write(home.path(), "season.torrent");
        fs::create_dir_all(home.path().join("got/season")).unwrap();
        put(&home.path().join("got/season").join(place));
        assert_refused(&home, Call::get(&home, &[&path]), &["got/season"]);
        assert_refused(&home, Call::get(&home, &[&path]).with(&["--force"]), &["got/season"]);
    }
}

#[test]
fn files_that_match_nothing_and_patterns_that_are_none() {
    let home = Folder::new("get-no-match");
    let path = season().write(home.path(), "season.torrent");
    let call = |pattern: &str| Call::get(&home, &[&path]).with(&["--files", pattern]);
    assert_refused(&home, call("*.mkv"), &["season: no file in it matches *.mkv"]);
    for pattern in ["", "/", "[a", &"x".repeat(300)] {
        let line = call(pattern).refusal();
        assert!(line.contains(&format!("--files {pattern}: ")), "{line}");
    }
    assert!(!home.path().join("got").exists());
}

#[test]
fn a_torrent_that_is_broken_is_refused_with_the_byte_and_the_key() {
    let home = Folder::new("get-broken");
    let whole = season().metainfo.clone();
    let replaced = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        [&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat()
    };
    let cases: [(Vec<u8>, &[&str]); 14] = [
        (Vec::new(), &["byte 0"]),
        (b"<html>not found</html>".to_vec(), &["byte 0"]),
        (b"de".to_vec(), &["`info`"]),
        (b"d4:infodee".to_vec(), &["`name`"]),
        (whole[..whole.len() - 1].to_vec(), &["byte "]),
        (whole[..200].to_vec(), &["byte "]),
        ([&whole[..], b"e"].concat(), &["byte "]),
        (replaced("6:lengthi100000e", "6:lengthi900000e"), &["`pieces`", "20 bytes"]),
        (replaced("6:lengthi100000e", "6:lengthi-1e"), &["`length`", "negative"]),
        (replaced("6:lengthi100000e", "6:lengthi99999999999999999999e"), &["byte "]),
        (replaced("6:lengthi100000e", "6:lengthi9223372036854775807e"), &["`length`"]),
        (replaced("12:piece lengthi16384e", "12:piece lengthi0e"), &["`piece length`"]),
        (replaced("6:pieces", "6:piecez"), &["`pieces`"]),
        (replaced("4:pathl3:two", "4:pathl"), &["`path`"]),
    ];
    for (broken, words) in cases {
        let path = home.write("broken.torrent", &broken);
        let words: Vec<&str> = [&["broken.torrent: "], words].concat();
        assert_refused(&home, Call::get(&home, &[&path]), &words);
        assert!(!home.path().join("got").exists());
    }
}

#[test]
fn paths_that_cannot_be_read() {
    let home = Folder::new("get-missing");
    let missing = home.path().join("missing.torrent");
    assert_refused(&home, Call::get(&home, &[&missing]), &["missing.torrent: ", "spelling"]);
    assert_refused(&home, Call::get(&home, &[home.path()]), &["get-missing"]);
    let torrent = film();
    let whole = torrent.write(home.path(), "film.torrent");
    let line = Call::get(&home, &[&whole, &missing]).refusal();
    assert!(line.contains("missing.torrent: "), "{line}");
    // The other one is not in the way of itself.
    let seeder = Seeder::start(&torrent, Habits::default());
    fetch(&home, &whole, &seeder, &[]);
}

#[test]
fn a_target_that_cannot_be_written_to() {
    let home = Folder::new("get-target");
    let path = film().write(home.path(), "film.torrent");
    home.write("got", b"a file");
    assert_refused(&home, Call::get(&home, &[&path]), &["got: ", "-o"]);
    fs::remove_file(home.path().join("got")).unwrap();
    if crate::lacks_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let got = home.path().join("got");
    fs::create_dir(&got).unwrap();
    fs::set_permissions(&got, fs::Permissions::from_mode(0o555)).unwrap();
    let call = || Call::get(&home, &[&path]).under(crate::changes::WITHOUT_PRIVILEGES);
    assert_refused(&home, call(), &["got/film.mkv: ", "-o a folder that can be written to"]);
    fs::set_permissions(&got, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn more_torrents_than_the_board_fetches_at_a_time() {
    let home = Folder::new("get-many");
    let (film, season) = (film(), season());
    let paths = [film.write(home.path(), "a"), season.write(home.path(), "b")];
    let call = Call::get(&home, &[&paths[0], &paths[1]]).board(Some("test-tiny"));
    let line = call.refusal();
    assert!(line.contains("fetching_max") && line.contains("--board"), "{line}");
    // One of them alone goes on from there.
    let seeder = Seeder::start(&film, Habits::default());
    let call = Call::get(&home, &[&paths[0]]).board(Some("test-tiny"));
    call.with(&seeder.as_peer()).with(&["--exit"]).start().ended();
    assert_eq!(fs::read(home.path().join("got/film.mkv")).unwrap(), film.content.all());
}

#[test]
fn the_same_torrent_named_twice_is_fetched_once() {
    let home = Folder::new("get-twice");
    let torrent = film();
    let seeder = Seeder::start(&torrent, Habits::default());
    let hex: String = torrent.info_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let links = ["", "&dn=film"].map(|rest| format!("magnet:?xt=urn:btih:{hex}{rest}"));
    let paths = [torrent.write(home.path(), "a"), torrent.write(home.path(), "b")];
    let named = [Path::new(&links[0]), Path::new(&links[1]), &paths[0], &paths[1]];
    let call = Call::get(&home, &named).with(&seeder.as_peer());
    let program = call.with(&["--exit"]).start();
    assert_eq!(program.added.len(), 1);
    assert_eq!(program.log().matches("fetched already").count(), 2, "{}", program.log());
    program.ended();
    assert_eq!(seeder.tallies().sent_bytes, 1_000_000);
}

impl Program {
    /// Ends it as Ctrl-C does; its totals and what it said before.
    pub fn ended_by_signal(self) -> (crate::program::Totals, Vec<Value>) {
        self.signal(rustix::process::Signal::INT);
        self.ended()
    }
}
