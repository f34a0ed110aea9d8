//! Every byte arrives, however it is asked for.

use crate::leecher::{Block, Leecher, MODERN, Manners, Message, PLAIN, cancel, request};
use crate::program::{Call, Folder};
use crate::torrent::Metainfo;
use crate::{assert_arrives, bytes, film};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

#[test]
fn every_byte_of_a_file_arrives_with_bep_6_and_without() {
    let home = Folder::new("file");
    let film = film(&home, 3_333_333);
    let program = Call::share(&home, &[&film]).start();
    let [share] = &program.shares[..] else { panic!("one share") };
    assert_eq!((share.name.as_str(), share.bytes, share.files), ("film.mkv", 3_333_333, 1));
    for (manners, depth) in [(MODERN, 64), (PLAIN, 64), (MODERN, 1), (PLAIN, 1)] {
        assert_arrives(&program, share, &film, manners, depth);
    }
    let totals = program.stop();
    assert_eq!(totals.sent_bytes, 4 * 3_333_333);
}

#[test]
fn a_tree_arrives_whatever_its_names_and_sizes_are() {
    let home = Folder::new("tree");
    let names = [
        ("plain.txt", 1),
        ("folder in folder/deeper/deepest.bin", 100_000),
        ("folder in folder/empty", 0),
        ("Größe/ñandú 日本語.bin", 70_000),
        ("cafe\u{301}/as two code points", 16_384),
        ("caf\u{e9}/as one code point", 16_385),
        ("100% & #1; it's [here] +plus=equals.txt", 65_537),
        ("zz last and empty", 0),
    ];
    for (number, (name, length)) in names.iter().enumerate() {
        home.write(Path::new("tree").join(name), &bytes(number as u64, *length));
    }
    for number in 0..300 {
        home.write(format!("tree/letters/{number:03}"), &bytes(number, number as usize * 7 % 999));
    }
    for name in ["half.part", ".hidden", "Thumbs.db", "@eaDir/index", ".DS_Store", "b.crdownload"] {
        home.write(Path::new("tree").join(name), b"nobody means to share this");
    }
    let root = home.path().join("tree");
    fs::create_dir(root.join("a folder without files")).unwrap();
    symlink("/etc/passwd", root.join("a link")).unwrap();
    symlink("/etc", root.join("a link to a folder")).unwrap();

    let call = Call::share(&home, &[&root]).with(&["--piece-size", "16K"]);
    let program = call.start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    assert_eq!((torrent.name.as_str(), torrent.piece_bytes), ("tree", 16_384));
    assert_eq!(torrent.files.len() as u64, share.files);
    let mut found: Vec<PathBuf> = torrent.files.iter().map(|(path, _)| path.clone()).collect();
    let mut wanted: Vec<PathBuf> = names.iter().map(|(name, _)| PathBuf::from(name)).collect();
    wanted.extend((0..300).map(|number| PathBuf::from(format!("letters/{number:03}"))));
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_arrives(&program, share, &root, MODERN, 64);
    assert_arrives(&program, share, &root, PLAIN, 5);
    program.stop();
}

#[test]
fn who_has_only_the_magnet_link_gets_the_metadata() {
    let home = Folder::new("magnet");
    let film = film(&home, 1_000 * 16_384 + 1);
    let program = Call::share(&home, &[&film]).with(&["--piece-size", "16K"]).start();
    let share = &program.shares[0];
    let digits: String = share.info_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let link = format!("magnet:?xt=urn:btih:{digits}&dn=film.mkv&xl=16384001");
    assert!(share.magnet.starts_with(&link), "{}", share.magnet);
    let plain = Manners { fast: false, ..MODERN };
    for manners in [MODERN, plain] {
        let mut leecher = Leecher::connect(program.address, share.info_hash, manners).unwrap();
        leecher.say_hello().unwrap();
        let info = leecher.fetch_metadata().unwrap();
        assert!(info.len() > 16_384, "it takes more than one piece of metadata");
        let torrent = Metainfo::of(&info);
        assert_eq!(torrent.info_hash, share.info_hash);
        assert_eq!(torrent, Metainfo::read(&share.torrent));
        let reqq = leecher.requests_max.expect("it says how many requests it keeps");
        assert_eq!(reqq, 480, "requests_per_peer of the board `small`");
    }
    program.stop();
}

#[test]
fn eight_at_once_and_two_shares_get_every_byte() {
    let home = Folder::new("several");
    let film = film(&home, 5_000_000);
    let other = home.write("other", &bytes(7, 700_000));
    let program = Call::share(&home, &[&film, &other]).start();
    let [first, second] = &program.shares[..] else { panic!("two shares") };
    thread::scope(|scope| {
        for number in 0..8 {
            let manners = if number % 2 == 0 { MODERN } else { PLAIN };
            let (share, root) = if number < 6 { (first, &film) } else { (second, &other) };
            let program = &program;
            let from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, number)));
            let manners = Manners { from, ..manners };
            scope.spawn(move || assert_arrives(program, share, root, manners, 1 << number));
        }
    });
    program.stop();
}

#[test]
fn more_requests_than_are_kept_are_all_answered_in_time() {
    let home = Folder::new("deep");
    let film = film(&home, 1_000 * 16_384);
    let program = Call::share(&home, &[&film]).start();
    // Without BEP 10 it has not heard how many requests are kept.
    assert_arrives(&program, &program.shares[0], &film, PLAIN, 1_000);
    program.stop();
}

#[test]
fn messages_may_come_byte_by_byte() {
    let home = Folder::new("dripping");
    let film = film(&home, 10 * 16_384);
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let requests: Vec<u8> = torrent.blocks().into_iter().flat_map(request).collect();
    leecher.send_dripping(&requests).unwrap();
    let mut content = vec![0; 10 * 16_384];
    for _ in 0..10 {
        let Message::Piece(block, bytes) = next_answer(&mut leecher) else { panic!("a reject") };
        content[torrent.offset(block)..][..bytes.len()].copy_from_slice(&bytes);
    }
    torrent.assert_is(&content, &film);
    program.stop();
}

#[test]
fn blocks_of_any_size_and_place_arrive() {
    let home = Folder::new("odd-blocks");
    let film = film(&home, 400_000);
    let program = Call::share(&home, &[&film]).with(&["--piece-size", "128K"]).start();
    let share = &program.shares[0];
    let content = fs::read(&film).unwrap();
    let places = [(0, 1), (131_071, 1), (1, 32_768), (98_304, 32_768), (16_383, 16_385)];
    for manners in [MODERN, PLAIN] {
        let mut leecher = Leecher::enter(program.address, share.info_hash, manners).unwrap();
        let blocks =
            (0..3).flat_map(|piece| places.map(|(begin, length)| Block { piece, begin, length }));
        let mut count = 0;
        let sink = |block: Block, bytes: &[u8]| {
            let at = block.piece as usize * 131_072 + block.begin as usize;
            assert!(bytes == &content[at..at + block.length as usize], "{block:?}");
            count += 1;
        };
        assert_eq!(leecher.fetch(blocks, 7, sink).unwrap(), []);
        assert_eq!(count, 15);
    }
    program.stop();
}

#[test]
fn a_request_taken_back_is_answered_once_at_most() {
    let home = Folder::new("cancel");
    let film = film(&home, 64 * 16_384);
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    let blocks = Metainfo::read(&share.torrent).blocks();
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let asked = blocks.iter().flat_map(|block| request(*block));
    let taken_back = blocks.iter().skip(1).step_by(2).flat_map(|block| cancel(*block));
    leecher.send(&asked.chain(taken_back).collect::<Vec<u8>>()).unwrap();
    let mut answered = Vec::new();
    while answered.len() < blocks.len() {
        match next_answer(&mut leecher) {
            Message::Piece(block, _) => answered.push(block),
            Message::Reject(block) => {
                let at = blocks.iter().position(|other| *other == block).unwrap();
                assert_eq!(at % 2, 1, "only what was taken back is rejected");
                answered.push(block);
            }
            _ => {}
        }
    }
    answered.sort();
    assert_eq!(answered, blocks);
    program.stop();
}

#[test]
fn content_that_is_not_in_memory_is_served() {
    let home = Folder::new("cold");
    let film = film(&home, 40 << 20);
    let program = Call::share(&home, &[&film]).start();
    for manners in [MODERN, PLAIN] {
        let file = File::open(&film).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let before = program.proc_number("io", "read_bytes");
        assert_arrives_first(&program, 20 << 20, manners);
        let read = program.proc_number("io", "read_bytes") - before;
        let storage = fs::read_to_string("/proc/self/mounts").unwrap();
        let is_disk = !storage.contains(" / overlay ") && !storage.contains(" / tmpfs ");
        assert!(!is_disk || read >= 20 << 20, "only {read} bytes came from the disk");
    }
    program.stop();
}

#[test]
fn content_and_state_on_tmpfs_are_served() {
    let shm = Path::new("/dev/shm");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if !mounts.contains(" /dev/shm tmpfs ") {
        eprintln!("not run: /dev/shm is no tmpfs");
        return;
    }
    let home = Folder::within(shm, "perennial-test");
    let film = film(&home, 10_000_000);
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    thread::scope(|scope| {
        for manners in [MODERN, PLAIN, MODERN, PLAIN] {
            let (program, film) = (&program, &film);
            scope.spawn(move || assert_arrives(program, share, film, manners, 64));
        }
    });
    let mut leecher = Leecher::connect(program.address, share.info_hash, MODERN).unwrap();
    leecher.say_hello().unwrap();
    assert_eq!(Metainfo::of(&leecher.fetch_metadata().unwrap()).info_hash, share.info_hash);
    program.stop();
}

#[test]
fn what_is_in_memory_and_what_is_not_are_served_side_by_side() {
    let home = Folder::new("warm-and-cold");
    let (cold, warm) = (film(&home, 40 << 20), home.write("warm", &bytes(3, 4 << 20)));
    let program = Call::share(&home, &[&cold, &warm]).start();
    let file = File::open(&cold).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| assert_arrives(&program, &program.shares[0], &cold, MODERN, 64));
        for number in 0..4 {
            let from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, number)));
            let (program, warm, manners) = (&program, &warm, Manners { from, ..PLAIN });
            scope.spawn(move || assert_arrives(program, &program.shares[1], warm, manners, 64));
        }
    });
    program.stop();
}

#[test]
fn content_is_served_over_ipv6() {
    let home = Folder::new("ipv6");
    let film = film(&home, 1_000_000);
    let program = Call::share(&home, &[&film]).listen(Some("[::1]:0")).start();
    assert!(program.address.is_ipv6());
    assert_arrives(&program, &program.shares[0], &film, MODERN, 16);
    program.stop();
}

#[test]
fn people_are_told_the_same_in_sentences() {
    let home = Folder::new("sentences");
    let film = film(&home, 300_000);
    let program = Call::share(&home, &[&film]).for_people().launch();
    let said = program.lines_until("Serving on port").join("\n");
    for words in ["film.mkv\n", "1 file\n", "magnet     magnet:?xt=urn:btih:", ".torrent\n"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    program.signal(rustix::process::Signal::TERM);
    let said = program.lines_until("Stopped.").join("\n");
    assert!(said.contains("sent"), "{said}");
}

/// Fetches the first bytes of the only share, which is a file of random bytes.
fn assert_arrives_first(program: &crate::program::Program, bytes: usize, manners: Manners) {
    let share = &program.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let mut leecher = Leecher::enter(program.address, share.info_hash, manners).unwrap();
    let mut content = vec![0; bytes];
    let blocks = torrent.blocks().into_iter().take(bytes / 16_384);
    let put = |block: Block, bytes: &[u8]| {
        content[torrent.offset(block)..][..bytes.len()].copy_from_slice(bytes);
    };
    assert_eq!(leecher.fetch(blocks, 64, put).unwrap(), []);
    let expected = crate::bytes(torrent.total_bytes(), torrent.total_bytes() as usize);
    assert!(content == expected[..bytes], "every byte is the file's");
}

/// The next block or reject.
fn next_answer(leecher: &mut Leecher) -> Message {
    loop {
        let message = leecher.receive().unwrap();
        if matches!(message, Message::Piece(..) | Message::Reject(_)) {
            return message;
        }
    }
}
