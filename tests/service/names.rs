//! Names that must not meet a file system: whatever a torrent calls its files, each arrives, once,
//! below the torrent's own folder, and nothing is made anywhere else.

use crate::author::{File, Torrent};
use crate::leecher::MODERN;
use crate::program::{Call, Folder};
use crate::seeder::{Habits, Seeder};
use crate::{bytes, names_under};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

/// Fetches a folder of files with these paths, and checks that each file arrives once, in a place
/// of its own below one folder of the target, under names that are plain.
#[track_caller]
fn assert_arrive_safely(name: &[u8], paths: &[&[&[u8]]]) {
    let home = Folder::new("names");
    let content = |number: usize| bytes(number as u64, 20_000 + number);
    let files: Vec<File<'_>> =
        paths.iter().enumerate().map(|(number, path)| (path.to_vec(), content(number))).collect();
    let torrent = Arc::new(Torrent::of_any_names(name, 16 << 10, &files));
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "names.torrent");
    let around = names_under(home.path());
    let call = || Call::get(&home, &[&path]).with(&seeder.as_peer());
    call().with(&["--exit"]).start().ended();
    let got = home.path().join("got");
    let tops: Vec<_> = fs::read_dir(&got).unwrap().flatten().collect();
    assert_eq!(tops.len(), 1, "{:?}", names_under(&got));
    let made = names_under(&got);
    let (mut arrived, mut expected) =
        (Vec::new(), (0..paths.len()).map(content).collect::<Vec<_>>());
    for below in &made {
        for part in Path::new(below).components() {
            let part = part.as_os_str().to_str().expect("it is UTF-8");
            assert!(part.len() <= 255 && !part.contains(char::is_control), "{part:?}");
            assert!(part != ".." && part != "." && !part.contains(['\\', ':']), "{part:?}");
        }
        if got.join(below).is_file() {
            arrived.push(fs::read(got.join(below)).unwrap());
        }
    }
    arrived.sort_unstable();
    expected.sort_unstable();
    assert!(arrived == expected, "{made:?}");
    // Beside the target folder there is nothing that was not there before but what is ours.
    let ours =
        |name: &String| ["got", "state", "log."].iter().any(|prefix| name.starts_with(prefix));
    let beside: Vec<String> = names_under(home.path()).into_iter().filter(|n| !ours(n)).collect();
    assert_eq!(beside, around);
    // It is found again under its names, and everybody gets every byte of it.
    let program = call().start();
    assert!(!program.log().contains("hashing"), "{}", program.log());
    let address = program.address;
    let mut leecher = crate::leecher::Leecher::enter(address, torrent.info_hash, MODERN).unwrap();
    let meta = leecher_metainfo(&torrent);
    assert!(leecher.fetch_all(&meta, 16).unwrap() == torrent.content.all());
    program.stop();
}

/// What a leecher needs of it: names that are no text are of no interest to one.
fn leecher_metainfo(torrent: &Torrent) -> crate::torrent::Metainfo {
    let hashes = torrent.content.all().chunks(torrent.piece_bytes as usize);
    crate::torrent::Metainfo {
        info_hash: torrent.info_hash,
        name: String::new(),
        piece_bytes: torrent.piece_bytes,
        hashes: hashes.map(crate::torrent::sha1).collect(),
        files: vec![(Default::default(), torrent.content.bytes())],
        info: Vec::new(),
    }
}

#[test]
fn paths_that_lead_up_or_to_the_root_stay_below() {
    assert_arrive_safely(
        b"trip",
        &[
            &[b"..", b"..", b"x"],
            &[b"../../y"],
            &[b"", b"etc", b"x"],
            &[b"/etc/x"],
            &[b"a", b"..", b"b"],
            &[b".", b"c"],
            &[b"..\\..\\windows"],
        ],
    );
    for name in [&b".."[..], b"../../x", b"/etc/x", b".", b"/"] {
        assert_arrive_safely(name, &[&[b"x"], &[b"..", b"y"]]);
    }
}

#[test]
fn control_characters_and_bytes_that_are_no_text_are_replaced() {
    assert_arrive_safely(
        b"be\x07ll\n",
        &[
            &[b"new\nline"],
            &[b"nul\0byte"],
            &[b"\x1b[31mred"],
            &[b"caf\xe9"],
            &[b"folder\r", b"\x7f"],
            &["\u{202e}gpj.exe".as_bytes()],
            &[b"con"],
            &[b"trailing. "],
        ],
    );
}

#[test]
fn names_that_become_one_are_kept_apart() {
    assert_arrive_safely(
        b"twins",
        &[
            &[b"a:b"],
            &[b"a?b"],
            &[b"a_b"],
            &[b"a*b"],
            &[b"same"],
            &[b"same"],
            &[b"x.txt"],
            &[b"x.txt"],
            &[b"f", b"g:"],
            &[b"f", b"g?"],
        ],
    );
}

#[test]
fn names_too_long_for_a_file_system_are_cut_and_kept_apart() {
    let long = |end: &str| [&[b'n'; 300][..], end.as_bytes()].concat();
    let wide = "ä".repeat(150);
    let deep: Vec<&[u8]> = (0..100).map(|_| &b"deep"[..]).collect();
    assert_arrive_safely(
        &long(""),
        &[
            &[&long("")],
            &[&long("1")],
            &[&long(".txt")],
            &[&long("2.txt")],
            &[wide.as_bytes()],
            &[["b", &wide].concat().as_bytes(), wide.as_bytes()[..299].as_ref()],
            &deep,
        ],
    );
}

#[test]
fn links_in_the_target_folder_that_lead_out_of_it_are_never_followed() {
    let torrent = Arc::new(Torrent::folder(
        "links",
        16 << 10,
        &[("file", bytes(1, 40_000)), ("folder/inner", bytes(2, 40_000))],
    ));
    for (at, to) in [("file", "outside"), ("folder", "outer"), ("", "outer")] {
        for force in [&[][..], &["--force"]] {
            let home = Folder::new("names-links");
            let path = torrent.write(home.path(), "links.torrent");
            let outside = home.write("outside", &[7; 40_000]);
            let inner = home.write("outer/inner", b"theirs");
            let link = home.path().join("got/links").join(at);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let link = if at.is_empty() { home.path().join("got/links") } else { link };
            symlink(home.path().join(to), &link).unwrap();
            let line = Call::get(&home, &[&path]).with(force).refusal();
            assert!(line.contains("got/links"), "{line}");
            assert!(fs::read(&outside).unwrap() == [7; 40_000]);
            assert_eq!(fs::read(&inner).unwrap(), b"theirs");
            assert_eq!(names_under(&home.path().join("outer")), ["inner"]);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
    }
}

#[test]
fn a_single_file_whose_place_is_taken_by_a_link_is_refused() {
    let home = Folder::new("names-single-link");
    let torrent = Arc::new(Torrent::single("film.mkv", 16 << 10, bytes(5, 50_000)));
    let path = torrent.write(home.path(), "film.torrent");
    let outside = home.write("outside", &bytes(5, 50_000));
    fs::create_dir(home.path().join("got")).unwrap();
    symlink(&outside, home.path().join("got/film.mkv")).unwrap();
    let line = Call::get(&home, &[&path]).with(&["--force"]).refusal();
    assert!(line.contains("got/film.mkv"), "{line}");
}

#[test]
fn the_target_folder_itself_may_be_a_link() {
    let home = Folder::new("names-target-link");
    let torrent = Arc::new(Torrent::folder("few", 16 << 10, &[("file", bytes(1, 40_000))]));
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "few.torrent");
    fs::create_dir(home.path().join("disk")).unwrap();
    symlink("disk", home.path().join("got")).unwrap();
    let call = Call::get(&home, &[&path]).with(&seeder.as_peer()).with(&["--exit"]);
    call.start().ended();
    assert!(fs::read(home.path().join("disk/few/file")).unwrap() == bytes(1, 40_000));
}

#[test]
fn a_file_that_is_also_a_folder_is_refused() {
    let home = Folder::new("names-both");
    let files = [("a", bytes(1, 20_000)), ("a/b", bytes(2, 20_000))];
    let torrent = Torrent::folder("both", 16 << 10, &files);
    let path = torrent.write(home.path(), "both.torrent");
    let line = Call::get(&home, &[&path]).refusal();
    assert!(line.contains("both/a"), "{line}");
    assert_eq!(names_under(&home.path().join("got")), [""; 0], "nothing half-done");
}
