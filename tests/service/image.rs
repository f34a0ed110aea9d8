//! `share --for-board`: an image that holds a share byte for byte, or a refusal and no image.

use crate::bytes;
use crate::program::{Call, Ended, Folder};
use crate::torrent::Metainfo;
use crate::{film, lacks_root, names_under, season};
use perennial::engine::image::{HEAD_BYTES, Head};
use perennial::engine::units::Span;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A call that makes an image `out/NAME` of `path`.
fn image_of(home: &Folder, path: &Path, board: &str, name: &str) -> Call {
    fs::create_dir_all(home.path().join("out")).unwrap();
    let call = Call::share(home, &[path]).listen(None).board(None);
    call.with(&["--for-board", board, "-o"]).with(&[home.path().join("out").join(name)])
}

/// The event of an image that was made, and nothing beside it.
fn event_of(ended: &Ended) -> Value {
    assert!(ended.status.success(), "{ended:?}");
    let event: Value = serde_json::from_str(&ended.stdout).expect("one object on one line");
    assert_eq!(event["event"], "image", "{event}");
    event
}

/// An image, read back.
struct Image {
    event: Value,
    bytes: Vec<u8>,
}

impl Image {
    fn made(call: Call) -> Image {
        let event = event_of(&call.run());
        let path = Path::new(event["path"].as_str().expect("it says where it is"));
        assert!(path.is_absolute(), "{event}");
        let bytes = fs::read(path).unwrap();
        assert_eq!(event["bytes"], bytes.len());
        Image { event, bytes }
    }

    fn head(&self) -> Head<'_> {
        Head::parse(self.bytes.first_chunk::<HEAD_BYTES>().unwrap()).unwrap()
    }

    fn part(&self, span: Span) -> &[u8] {
        &self.bytes[span.at as usize..span.end() as usize]
    }

    fn torrent(&self) -> PathBuf {
        self.event["torrent"].as_str().expect("it says where the .torrent is").into()
    }

    /// Holds every byte against the share at `root`, and the parts against each other.
    fn assert_holds(&self, root: &Path, board: &str) -> Metainfo {
        let head = self.head();
        assert_eq!((head.board, &self.event["board"]), (board, &board.into()));
        assert_eq!(head.objection(self.bytes.len() as u64), None);
        let metainfo = self.part(head.metainfo);
        assert!(metainfo == fs::read(self.torrent()).unwrap(), "the metainfo is the .torrent");
        assert_eq!(head.metainfo_crc, crc32fast::hash(metainfo));
        let torrent = Metainfo::read(&self.torrent());
        let within = |span: Span| &metainfo[span.at as usize..span.end() as usize];
        assert_eq!(within(head.info), torrent.info);
        assert_eq!(within(head.pieces), torrent.hashes.concat());
        assert_eq!(head.info_hash.bytes(), torrent.info_hash);
        assert_eq!(self.event["info_hash"], head.info_hash.to_string());
        assert_eq!(head.layout.total_bytes, torrent.total_bytes());
        assert_eq!(head.layout.piece_bytes, torrent.piece_bytes);
        assert_eq!(head.content.length, torrent.total_bytes());
        torrent.assert_is(self.part(head.content), root);

        let erased = Span { at: HEAD_BYTES as u64, length: head.metainfo.at - HEAD_BYTES as u64 };
        assert!(self.part(erased).iter().all(|byte| *byte == 0xFF), "the journal is erased");
        assert!(head.metainfo.at.is_multiple_of(512) && head.content.at.is_multiple_of(512));
        assert!(self.bytes.len().is_power_of_two() && self.bytes.len() >= 1 << 20);
        torrent
    }
}

/// A folder with files side by side and in folders, an empty one among them.
fn tree(home: &Folder) -> PathBuf {
    for (name, length) in
        [("b", 70_000), ("a/one", 16_384), ("a/b/two", 1), ("a/none", 0), ("c/three", 1_500_000)]
    {
        home.write(format!("tree/{name}"), &bytes(length, length as usize));
    }
    home.path().join("tree")
}

/// Checks that a call is refused with these words and that nothing lies where images go.
#[track_caller]
fn assert_refused(home: &Folder, call: Call, words: &[&str]) {
    let line = call.refusal();
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert_eq!(names_under(&home.path().join("out")), [""; 0], "{line}");
}

#[test]
fn an_image_holds_every_byte_of_a_folder_on_every_board() {
    let home = Folder::new("image");
    let tree = tree(&home);
    let card = Image::made(image_of(&home, &tree, "mcu-lm3s6965", "card.img"));
    let torrent = card.assert_holds(&tree, "mcu-lm3s6965");
    assert_eq!(torrent.files.len(), 5);
    let head = card.head();
    assert_eq!(head.journal, Span { at: 4 << 10, length: 64 << 10 });
    assert_eq!((head.tracker, head.private), ("", false));
    assert_eq!(card.bytes.len(), 2 << 20);
    assert_eq!(names_under(&home.path().join("out")), ["card.img"]);

    let flash = Image::made(image_of(&home, &tree, "mcu-rv32", "flash.img"));
    assert_eq!(flash.assert_holds(&tree, "mcu-rv32"), torrent);
    let head = flash.head();
    assert_eq!(head.journal, Span { at: 256 << 10, length: 512 << 10 });
    assert_eq!(flash.bytes.len(), 32 << 20);
    let rest = &flash.bytes[head.content.end() as usize..];
    assert!(rest.iter().all(|byte| *byte == 0xFF), "the rest of a flash is erased");
}

#[test]
fn an_image_has_the_name_that_the_share_has_when_it_is_served() {
    let home = Folder::new("image-name");
    let film = film(&home, 3_000_000);
    let image = Image::made(image_of(&home, &film, "mcu-lm3s6965", "film.img"));
    let torrent = image.assert_holds(&film, "mcu-lm3s6965");
    let elsewhere = home.path().join("elsewhere");
    let program = Call::share(&home, &[&film]).state(&elsewhere).start();
    assert_eq!(program.shares[0].info_hash, torrent.info_hash);
    let (name, magnet) = (&image.event["name"], image.event["magnet"].as_str().unwrap());
    assert_eq!((name, &image.event["content_bytes"]), (&"film.mkv".into(), &3_000_000.into()));
    assert!(program.shares[0].magnet.starts_with(magnet), "{magnet}");
    program.stop();
}

#[test]
fn two_images_of_one_folder_differ_in_their_seed_alone_and_it_is_hashed_once() {
    let home = Folder::new("image-twice");
    let tree = tree(&home);
    let first = image_of(&home, &tree, "mcu-lm3s6965", "image").run();
    assert!(first.stderr.contains("hashing"), "{}", first.stderr);
    let first = event_of(&first);
    let before = fs::read(first["path"].as_str().unwrap()).unwrap();
    // It lies where the first one does, which is an image of ours and gives way.
    let second = image_of(&home, &tree, "mcu-lm3s6965", "image").run();
    assert!(!second.stderr.contains("hashing"), "{}", second.stderr);
    assert_eq!(event_of(&second), first);
    let after = fs::read(first["path"].as_str().unwrap()).unwrap();
    assert!(before[HEAD_BYTES..] == after[HEAD_BYTES..]);
    let parse = |image| Head::parse(<[u8]>::first_chunk::<HEAD_BYTES>(image).unwrap()).unwrap();
    let (before, after) = (parse(&before), parse(&after));
    assert_ne!(before.seed, after.seed);
    assert_eq!(before, Head { seed: before.seed, ..after });
}

#[test]
fn people_are_told_how_it_gets_onto_a_card() {
    let home = Folder::new("image-people");
    let film = film(&home, 300_000);
    let ended = image_of(&home, &film, "mcu-lm3s6965", "film.img").for_people().run();
    assert!(ended.status.success(), "{ended:?}");
    for words in ["film.mkv", "info-hash", "magnet:", ".torrent", "film.img, 1.00 MiB", "dd if="] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
}

#[test]
fn a_torrent_made_elsewhere_is_copied_as_it_came() {
    let home = Folder::new("image-torrent");
    let season = season(&home);
    let made = Call::share(&home, &[&season]).with(&["--piece-size", "32K"]).start();
    let torrent = fs::read(&made.shares[0].torrent).unwrap();
    made.stop();
    // Private, and with trackers of which the second is one that a board can speak to.
    let info = torrent.windows(7).position(|bytes| bytes == b"4:infod").unwrap() + 6;
    let trackers = tracker_list(&["https://t.example/announce", "http://10.1.2.3/announce?k=1"]);
    let mut theirs = format!("d13:announce-list{trackers}4:info").into_bytes();
    theirs.extend(&torrent[info..torrent.len() - 2]);
    theirs.extend(b"7:privatei1eee");
    let path = home.write("theirs.torrent", &theirs);
    let state = home.path().join("other-state");
    let call = || {
        let call = image_of(&home, &season, "mcu-rv32", "season.img").state(&state);
        call.with(&[Path::new("--torrent"), &path])
    };
    let image = Image::made(call());
    let found = image.assert_holds(&season, "mcu-rv32");
    assert_eq!(found, Metainfo::read(&path));
    assert!(image.part(image.head().metainfo) == theirs);
    assert_eq!(found.piece_bytes, 32 << 10);
    assert!(image.head().private);
    assert_eq!(image.head().tracker, "http://10.1.2.3:80/announce?k=1");

    // What is not all there makes no image.
    fs::remove_file(home.path().join("out/season.img")).unwrap();
    fs::write(season.join("two"), bytes(99, 4 * 16_384)).unwrap();
    assert_refused(&home, call(), &["season: ", "does not hold all"]);
}

/// A list of trackers as a `.torrent` has it, one a tier.
fn tracker_list(addresses: &[&str]) -> String {
    let tiers = addresses.iter().map(|address| format!("l{}:{address}e", address.len()));
    format!("l{}e", tiers.collect::<String>())
}

#[test]
fn a_tracker_is_named_with_its_address_and_port() {
    let home = Folder::new("image-tracker");
    let film = film(&home, 100_000);
    for (given, named) in [
        ("udp://10.0.0.1:6969", "udp://10.0.0.1:6969"),
        ("udp://10.0.0.1:6969/announce", "udp://10.0.0.1:6969/announce"),
        ("http://10.0.0.1/announce?key=1#top", "http://10.0.0.1:80/announce?key=1"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080/"),
    ] {
        let call = image_of(&home, &film, "mcu-rv32", "film.img").with(&["--tracker", given]);
        let image = Image::made(call);
        image.assert_holds(&film, "mcu-rv32");
        assert_eq!(image.head().tracker, named);
        assert!(image.event["magnet"].as_str().unwrap().contains("&tr="), "{}", image.event);
    }
}

#[test]
fn trackers_that_a_firmware_cannot_speak_to_are_refused() {
    let home = Folder::new("image-trackers");
    let film = film(&home, 100_000);
    let long = format!("http://10.0.0.1/{}", "a".repeat(400));
    for (trackers, words) in [
        (&["https://10.0.0.1/announce"][..], "no TLS"),
        (&["http://tracker.example/announce"], "give its address"),
        (&["udp://tracker.example:6969"], "give its address"),
        (&["udp://[::1]:6969"], "IPv4"),
        (&["udp://10.0.0.1:6969", "udp://10.0.0.2:6969"], "one tracker"),
        (&[&long], "too long"),
    ] {
        let options: Vec<&str> = trackers.iter().flat_map(|url| ["--tracker", url]).collect();
        let call = image_of(&home, &film, "mcu-rv32", "film.img").with(&options);
        assert_refused(&home, call, &["--tracker", trackers.last().unwrap(), words]);
    }
}

#[test]
fn what_the_command_line_leaves_out_or_has_too_much_of_is_said() {
    let home = Folder::new("image-options");
    let film = film(&home, 100_000);
    for board in ["toaster", "small"] {
        let call = image_of(&home, &film, board, "film.img");
        assert_refused(&home, call, &[board, "mcu-lm3s6965", "mcu-rv32"]);
    }
    let bare = || Call::share(&home, &[&film]).listen(None).board(None);
    assert_refused(&home, bare().with(&["--for-board", "mcu-rv32"]), &["-o FILE"]);
    assert_refused(&home, bare().with(&["-o", "film.img"]), &["--for-board NAME"]);
    let image = || image_of(&home, &film, "mcu-rv32", "film.img");
    assert_refused(&home, image().listen(Some("127.0.0.1:0")), &["--listen: "]);
    assert_refused(&home, image().board(Some("small")), &["--board: "]);
    assert_refused(&home, image().with(&["--lan"]), &["--lan: "]);
    assert_refused(&home, image().with(&[&film]), &["one PATH"]);
}

#[test]
fn what_is_too_large_for_a_board_is_refused_before_it_is_hashed() {
    let home = Folder::new("image-large");
    let large = home.write("large", b"x");
    let sized = |bytes: u64| {
        File::options().write(true).open(&large).unwrap().set_len(bytes).unwrap();
        large.as_path()
    };
    let not_hashed = |call: fn(&Folder, &Path) -> Call, bytes, words: &[&str]| {
        let ended = call(&home, sized(bytes)).run();
        assert!(!ended.stderr.contains("hashing"), "{}", ended.stderr);
        assert_refused(&home, call(&home, &large), words);
    };
    let flash = |home: &Folder, path: &Path| image_of(home, path, "mcu-rv32", "i");
    not_hashed(flash, 40 << 20, &["large: is 40 MiB", "holds 31 MiB", "share parts"]);
    let card = |home: &Folder, path: &Path| image_of(home, path, "mcu-lm3s6965", "i");
    not_hashed(card, 4 << 30, &["large: is 4096 MiB", "holds 4094 MiB", "share parts"]);
    let split = |home: &Folder, path: &Path| {
        image_of(home, path, "mcu-lm3s6965", "i").with(&["--piece-size", "16K"])
    };
    let pieces = 8192 * 16_384 + 1;
    not_hashed(split, pieces, &["8193 pieces of 16.00 KiB", "8192", "--piece-size"]);

    // To the last byte: the .torrent takes 79 sectors, 1,998 hashes and 115 bytes or so.
    let room = (32 << 20) - (768 << 10) - 79 * 512;
    let image = Image::made(flash(&home, sized(room)));
    image.assert_holds(&large, "mcu-rv32");
    assert_eq!(image.head().content.end(), 32 << 20);
    fs::remove_file(home.path().join("out/i")).unwrap();
    not_hashed(flash, room + 1, &["is 32 MiB", "holds 31 MiB"]);
}

#[test]
fn nothing_is_written_over_that_is_no_image() {
    let home = Folder::new("image-there");
    let film = film(&home, 100_000);
    for held in [&b""[..], b"perennia", &bytes(3, 5_000)] {
        let there = home.write("there/precious", held);
        let call = Call::share(&home, &[&film]).listen(None).board(None);
        let call = call.with(&["--for-board", "mcu-rv32", "-o"]).with(&[&there]);
        assert_refused(&home, call, &["precious: is there already", "move it away"]);
        assert_eq!(fs::read(&there).unwrap(), held);
        assert_eq!(names_under(&home.path().join("there")), ["precious"]);
    }
    for (path, words) in [
        (home.path().to_owned(), "neither a file nor a card"),
        (PathBuf::from("/dev/null"), "neither a file nor a card"),
        (home.path().join("nowhere/film.img"), "name a folder that is there"),
        (film.clone(), "is no image of ours"),
    ] {
        let call = Call::share(&home, &[&film]).listen(None).board(None);
        let call = call.with(&["--for-board", "mcu-rv32", "-o"]).with(&[&path]);
        assert_refused(&home, call, &[words]);
    }
}

#[test]
fn an_image_does_not_become_part_of_its_own_share() {
    let home = Folder::new("image-inside");
    let tree = tree(&home);
    let before = names_under(&tree);
    let call = |name: &str| {
        let call = Call::share(&home, &[&tree]).listen(None).board(None);
        call.with(&["--for-board", "mcu-rv32", "-o"]).with(&[tree.join(name)])
    };
    for name in ["tree.img", "c/tree.img"] {
        assert_refused(&home, call(name), &["part of what is shared", "elsewhere"]);
        assert_eq!(names_under(&tree), before);
    }
}

#[test]
fn bytes_that_changed_behind_their_date_make_no_image() {
    let home = Folder::new("image-rot");
    let film = film(&home, 500_000);
    Image::made(image_of(&home, &film, "mcu-rv32", "film.img"));
    fs::remove_file(home.path().join("out/film.img")).unwrap();
    let modified = fs::metadata(&film).unwrap().modified().unwrap();
    let mut rotten = bytes(500_000, 500_000);
    rotten[400_000] ^= 1;
    fs::write(&film, &rotten).unwrap();
    File::options().write(true).open(&film).unwrap().set_modified(modified).unwrap();
    let call = image_of(&home, &film, "mcu-rv32", "film.img");
    assert_refused(&home, call, &["film.mkv", "not what it was when it was hashed"]);
    // With a date of its own it is another film.
    fs::write(&film, &rotten).unwrap();
    let image = Image::made(image_of(&home, &film, "mcu-rv32", "film.img"));
    image.assert_holds(&film, "mcu-rv32");
}

#[test]
fn a_disk_that_is_full_holds_no_half_of_an_image() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("image-full");
    let film = film(&home, 3_000_000);
    let out = home.path().join("out");
    let left = home.path().join("left");
    fs::create_dir(&out).unwrap();
    let mount = format!("mount -t tmpfs -o size=2m none '{}'", out.display());
    let find = format!("find '{}' -mindepth 1 > '{}'", out.display(), left.display());
    let script = format!("{mount} && \"$@\"; code=$?; {find}; exit $code");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let call = image_of(&home, &film, "mcu-lm3s6965", "film.img").under(&wrapper);
    assert_refused(&home, call, &["film.img: ", "make room"]);
    assert_eq!(fs::read_to_string(&left).unwrap(), "", "nothing half-made");
}

#[test]
fn an_interrupted_image_leaves_the_one_before_it_as_it_was() {
    let home = Folder::new("image-interrupted");
    let small = film(&home, 100_000);
    let before = Image::made(image_of(&home, &small, "mcu-lm3s6965", "film.img"));
    let large = home.write("large", b"x");
    File::options().write(true).open(&large).unwrap().set_len(400 << 20).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let program = image_of(&home, &large, "mcu-lm3s6965", "film.img").launch();
        program.wait_for_words("writing");
        program.signal(signal);
        let (status, events) = program.wait();
        assert_eq!((status.code(), &events[..]), (Some(1), &[][..]));
        assert_eq!(names_under(&home.path().join("out")), ["film.img"]);
        assert!(fs::read(home.path().join("out/film.img")).unwrap() == before.bytes);
    }
}

#[test]
fn a_card_is_written_in_place_and_one_that_is_too_small_is_left_alone() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("image-card");
    let film = film(&home, 3_000_000);
    for (bytes, fits) in [(4 << 20, true), (2 << 20, false)] {
        let backing = home.write("card", &vec![0xA5; bytes]);
        let Some(card) = Card::with(&backing) else {
            eprintln!("not run: there is no loop device");
            return;
        };
        let call = Call::share(&home, &[&film]).listen(None).board(None);
        let call = call.with(&["--for-board", "mcu-lm3s6965", "-o"]).with(&[&card.0]);
        if fits {
            let event = event_of(&call.run());
            let image = Image { event, bytes: fs::read(&card.0).unwrap() };
            image.assert_holds(&film, "mcu-lm3s6965");
        } else {
            let line = call.refusal();
            assert!(line.contains("room for 2.00 MiB") && line.contains("larger card"), "{line}");
            assert!(fs::read(&card.0).unwrap().iter().all(|byte| *byte == 0xA5));
        }
    }
}

/// A file as a block device, for as long as this lives.
struct Card(PathBuf);

impl Card {
    fn with(backing: &Path) -> Option<Card> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(backing).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(Card(String::from_utf8(output.stdout).ok()?.trim().into()))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
