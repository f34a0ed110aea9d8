//! A `.torrent` made by others: what of it matches is served, and nothing else is offered.

use crate::leecher::{Block, Leecher, MODERN, Message, Offered, PLAIN, request};
use crate::program::{Call, Folder, Share};
use crate::torrent::{Metainfo, sha1};
use crate::{assert_arrives, bytes, film, names_under, season};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[test]
fn content_that_matches_is_served_from_wherever_it_is_named() {
    let home = Folder::new("adopt");
    let (film, root) = (film(&home, 3_000_000), season(&home));
    for path in [&film, &root] {
        let (torrent, info_hash) = torrent_of(&home, path);
        // The content itself, and the folder it lies in.
        for named in [path.as_path(), home.path()] {
            let state = Folder::new("adopt-state");
            let call = || Call::share(&state, &[named]).with(&[Path::new("--torrent"), &torrent]);
            let program = call().start();
            assert_eq!(program.shares[0].info_hash, info_hash);
            assert_arrives(&program, &program.shares[0], path, MODERN, 64);
            assert_arrives(&program, &program.shares[0], path, PLAIN, 64);
            program.stop();
            let again = call().start();
            assert!(!again.log().contains("hashing"), "{}", again.log());
            assert_arrives(&again, &again.shares[0], path, MODERN, 64);
            again.stop();
        }
    }
}

#[test]
fn pieces_that_do_not_match_are_neither_offered_nor_sent() {
    let home = Folder::new("adopt-part");
    let root = season(&home);
    let (torrent, info_hash) = torrent_of(&home, &root);
    let metainfo = Metainfo::read(&torrent);
    let intact: Vec<Vec<u8>> =
        metainfo.files.iter().map(|(path, _)| fs::read(root.join(path)).unwrap()).collect();
    let intact = intact.concat();
    // Piece 2 in the first file, all four of the second, and the last of the third.
    File::options().write(true).open(root.join("one")).unwrap().write_all_at(b"?", 40_000).unwrap();
    fs::remove_file(root.join("two")).unwrap();
    File::options().write(true).open(root.join("zero")).unwrap().set_len(8 * 16_384 - 1).unwrap();
    let missing = [2, 8, 9, 10, 11, 19];
    let state = Folder::new("adopt-part-state");
    for start in ["first", "second"] {
        let call = Call::share(&state, &[&root]).with(&[Path::new("--torrent"), &torrent]);
        let program = call.start();
        assert_eq!(program.log().contains("hashing"), start == "first", "{}", program.log());
        for manners in [MODERN, PLAIN] {
            let mut leecher = Leecher::enter(program.address, info_hash, manners).unwrap();
            let offered = leecher.wait_for_offer().unwrap();
            let (have, lack): (Vec<u32>, _) = (0..20).partition(|piece| offered.contains(*piece));
            // A file that is too short is as good as none.
            assert!(missing.iter().all(|piece| lack.contains(piece)), "{lack:?}");
            assert!(lack.iter().all(|piece| missing.contains(piece) || *piece > 11), "{lack:?}");
            let sink = |block: Block, bytes: &[u8]| {
                assert!(bytes == &intact[metainfo.offset(block)..][..bytes.len()], "{block:?}");
            };
            let blocks = have.iter().flat_map(|piece| metainfo.blocks_of(*piece));
            assert_eq!(leecher.fetch(blocks, 16, sink).unwrap(), []);
            // Whoever asks all the same is told no, or nothing.
            let unasked = Block { piece: 2, begin: 0, length: 16_384 };
            let known = Block { piece: 0, begin: 0, length: 16_384 };
            leecher.send(&[request(unasked), request(known)].concat()).unwrap();
            loop {
                match leecher.receive().unwrap() {
                    Message::Piece(block, _) => {
                        assert_eq!(block, known);
                        break;
                    }
                    Message::Reject(block) => assert_eq!(block, unasked),
                    _ => {}
                }
            }
        }
        program.stop();
    }
}

#[test]
fn content_of_something_else_is_refused() {
    let home = Folder::new("adopt-other");
    let film = film(&home, 1_000_000);
    let (torrent, _) = torrent_of(&home, &film);
    let other = home.write("other/film.mkv", &bytes(5, 1_000_000));
    for path in [&other, other.parent().unwrap()] {
        let state = Folder::new("adopt-other-state");
        let line = Call::share(&state, &[path]).with(&[Path::new("--torrent"), &torrent]).refusal();
        assert!(line.contains("matches") && line.contains("film.mkv"), "{line}");
        assert_eq!(names_under(&state.path().join("state/torrents")), [""; 0]);
    }
}

#[test]
fn a_broken_torrent_is_refused_with_the_place_that_is_broken() {
    let home = Folder::new("broken");
    let film = film(&home, 1_000_000);
    let (good, _) = torrent_of(&home, &film);
    let good = fs::read(good).unwrap();
    let half = good.len() / 2;
    let cases = [
        (b"".to_vec(), "byte 0"),
        (b"<html>no torrent</html>".to_vec(), "byte 0"),
        (good[..half].to_vec(), "byte "),
        (good[..good.len() - 1].to_vec(), "byte "),
        ([&good[..], b"e"].concat(), &format!("byte {}", good.len())),
        (b"d8:announce3:abce".to_vec(), "`info`"),
        (b"d4:info4:spame".to_vec(), "byte 7"),
        (vec![b'l'; 100_000], "byte "),
        (b"d4:infod6:lengthi99999999999999999999e".to_vec(), "byte "),
        (b"d4:info999999999999999999999999:".to_vec(), "byte "),
    ];
    for (content, place) in cases {
        let torrent = home.write("broken.torrent", &content);
        let state = Folder::new("broken-state");
        let line =
            Call::share(&state, &[&film]).with(&[Path::new("--torrent"), &torrent]).refusal();
        assert!(line.contains("broken.torrent: ") && line.contains(place), "{place}: {line}");
        assert_eq!(names_under(&state.path().join("state/torrents")), [""; 0]);
    }
}

#[test]
fn a_torrent_that_lies_is_refused_and_nothing_outside_is_touched() {
    let home = Folder::new("lies");
    let film = film(&home, 16_384);
    home.write("secret", &bytes(1, 16_384));
    let hash = "h".repeat(20);
    let one = |name: &str, length: &str, piece: &str, pieces: &str| {
        let (named, held) = (name.len(), pieces.len());
        format!(
            "d4:infod6:length{length}4:name{named}:{name}12:piece length{piece}\
             6:pieces{held}:{pieces}ee"
        )
    };
    let many = |path: &str| {
        format!(
            "d4:infod5:filesld6:lengthi16384e4:path{path}ee4:name1:x12:piece lengthi16384e\
             6:pieces20:{hash}ee"
        )
    };
    let cases = [
        (one("film.mkv", "i16384e", "i16384e", &hash.repeat(2)), "more pieces than bytes"),
        (one("film.mkv", "i32768e", "i16384e", &hash), "fewer pieces than bytes"),
        (one("film.mkv", "i-5e", "i16384e", &hash), "a negative length"),
        (one("film.mkv", "i0e", "i16384e", ""), "nothing"),
        (one("film.mkv", "i16384e", "i0e", &hash), "pieces without length"),
        (one("film.mkv", "i16384e", "i9999999999e", &hash), "a piece larger than any"),
        (one("film.mkv", "i16384e", "i16384e", "short"), "half a hash"),
        (one("../secret", "i16384e", "i16384e", &hash), "a name that leads out"),
        (one("..", "i16384e", "i16384e", &hash), "the folder above"),
        (one("", "i16384e", "i16384e", &hash), "no name"),
        (many("l2:..6:secrete"), "a path that leads out"),
        (many("l9:../secrete"), "a name with a separator"),
        (many("l1:\x006:secrete"), "a name with a zero"),
        (many("le"), "an empty path"),
        (many("6:secret"), "a path that is no list"),
        (format!("d4:infod12:meta versioni2e4:name1:x12:piece lengthi16384eee{hash}"), "v2 only"),
    ];
    for (text, lie) in cases {
        let torrent = home.write("lies.torrent", text.as_bytes());
        let state = Folder::new("lies-state");
        let line =
            Call::share(&state, &[home.path()]).with(&[Path::new("--torrent"), &torrent]).refusal();
        assert!(line.contains("lies.torrent: byte "), "{lie}: {line}");
        assert_eq!(names_under(&state.path().join("state/torrents")), [""; 0], "{lie}");
    }
    assert!(film.exists());
}

#[test]
fn padding_between_files_is_served_as_zeros() {
    let home = Folder::new("padding");
    let files = [bytes(1, 20_000), bytes(2, 40_000)];
    let padding = vec![0; 2 * 16_384 - 20_000];
    home.write("padded/a", &files[0]);
    home.write("padded/b", &files[1]);
    let content = [&files[0][..], &padding, &files[1]].concat();
    let hashes: Vec<u8> = content.chunks(16_384).flat_map(sha1).collect();
    let head = format!(
        "d4:infod5:filesld6:lengthi20000e4:pathl1:aeed4:attr1:p6:lengthi{}e4:pathl4:.pad5:12768ee\
         d6:lengthi40000e4:pathl1:beee4:name6:padded12:piece lengthi16384e6:pieces{}:",
        padding.len(),
        hashes.len(),
    );
    let torrent = [head.as_bytes(), &hashes, b"ee"].concat();
    let torrent = home.write("padded.torrent", &torrent);
    let root = home.path().join("padded");
    let program = Call::share(&home, &[&root]).with(&[Path::new("--torrent"), &torrent]).start();
    let metainfo = Metainfo::read(&torrent);
    let mut leecher = Leecher::enter(program.address, program.shares[0].info_hash, MODERN).unwrap();
    assert_eq!(leecher.wait_for_offer().unwrap(), Offered::All);
    assert!(leecher.fetch_all(&metainfo, 8).unwrap() == content);
    program.stop();
}

#[test]
fn a_folder_that_is_a_link_to_another_place_is_not_read() {
    let home = Folder::new("adopt-link");
    let root = home.path().join("tree");
    home.write("tree/inside/file", &bytes(4, 64 * 1_024));
    home.write("tree/other", &bytes(5, 64 * 1_024));
    let (torrent, info_hash) = torrent_of(&home, &root);
    let outside = home.path().join("outside");
    fs::rename(root.join("inside"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("inside")).unwrap();
    let state = Folder::new("adopt-link-state");
    let program = Call::share(&state, &[&root]).with(&[Path::new("--torrent"), &torrent]).start();
    let mut leecher = Leecher::enter(program.address, info_hash, MODERN).unwrap();
    let offered = leecher.wait_for_offer().unwrap();
    assert_eq!((offered.contains(0), offered.contains(7)), (false, true));
    program.stop();
}

/// The `.torrent` of a path, made by sharing it once, and its info-hash.
fn torrent_of(home: &Folder, path: &Path) -> (PathBuf, [u8; 20]) {
    let state = Folder::new("author");
    let call = Call::share(&state, &[path]).with(&["--piece-size", "16K"]);
    let program = call.start();
    let Share { torrent, info_hash, name, .. } = program.shares[0].clone();
    let kept = home.path().join(format!("{name}.torrent"));
    fs::copy(torrent, &kept).unwrap();
    program.stop();
    (kept, info_hash)
}
