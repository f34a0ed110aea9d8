//! Files that change while they are shared: their pieces go, and nothing else does.

use crate::leecher::{Block, Leecher, MODERN, Message, PLAIN, request};
use crate::program::{Call, Folder, PATIENCE, Program, wait_until};
use crate::torrent::Metainfo;
use crate::{bytes, lacks_root, season};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

#[test]
fn a_file_written_to_is_withheld() {
    assert_withheld(|path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xee; 3], 30_000).unwrap();
    });
}

#[test]
fn a_file_that_shrinks_is_withheld() {
    assert_withheld(|path| {
        File::options().write(true).open(path).unwrap().set_len(20_000).unwrap();
    });
}

#[test]
fn a_file_that_grows_is_withheld() {
    assert_withheld(|path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(b"more", 4 * 16_384).unwrap();
    });
}

#[test]
fn a_file_that_is_deleted_is_withheld() {
    assert_withheld(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_file_replaced_by_another_is_withheld() {
    assert_withheld(|path| {
        let other = path.with_file_name("other");
        fs::write(&other, bytes(77, 4 * 16_384)).unwrap();
        fs::rename(other, path).unwrap();
    });
}

#[test]
fn a_file_replaced_by_a_link_is_withheld_and_the_link_not_followed() {
    assert_withheld(|path| {
        let outside = path.ancestors().nth(2).unwrap().join("outside");
        fs::copy(path, &outside).unwrap();
        fs::remove_file(path).unwrap();
        symlink(outside, path).unwrap();
    });
}

#[test]
fn a_file_replaced_by_a_pipe_is_withheld_and_nothing_hangs() {
    assert_withheld(|path| {
        fs::remove_file(path).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let made = rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0);
        made.unwrap();
    });
}

#[test]
fn a_file_replaced_by_a_folder_is_withheld() {
    assert_withheld(|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
}

#[test]
fn a_whole_folder_that_goes_away_is_withheld_and_other_shares_go_on() {
    let home = Folder::new("gone");
    let root = season(&home);
    let other = home.write("other", &bytes(9, 500_000));
    let program = Call::share(&home, &[&root, &other]).start();
    fs::rename(&root, home.path().join("elsewhere")).unwrap();
    wait_until_withheld(&program, 0..20);
    crate::assert_arrives(&program, &program.shares[1], &other, MODERN, 64);
    program.stop();
}

#[test]
fn a_file_that_can_no_longer_be_read_is_withheld() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("unreadable");
    let root = season(&home);
    // Root without its privileges obeys the mode of its own files.
    let call = Call::share(&home, &[&root]).under(WITHOUT_PRIVILEGES);
    let program = call.start();
    fs::set_permissions(root.join("two"), fs::Permissions::from_mode(0o000)).unwrap();
    wait_until_withheld(&program, 8..12);
    program.stop();
}

#[test]
fn what_changes_while_nobody_asks_is_found_by_the_next_look() {
    let home = Folder::new("looked-at");
    let root = season(&home);
    let program = Call::share(&home, &[&root]).start();
    let hash = program.shares[0].info_hash;
    // One is written to; the other is open and only its name goes away.
    let mut leecher = Leecher::enter(program.address, hash, MODERN).unwrap();
    let block = Block { piece: 0, begin: 0, length: 16_384 };
    assert_eq!(leecher.fetch([block], 1, |_, _| {}).unwrap(), []);
    fs::write(root.join("two"), bytes(6, 4 * 16_384)).unwrap();
    fs::rename(root.join("one"), home.path().join("elsewhere")).unwrap();
    let limit = Duration::from_secs(40);
    let seen = || {
        let log = program.log();
        (log.contains("season/one: ") && log.contains("season/two: ")).then_some(())
    };
    wait_until("the next look", limit, seen, || program.log());
    let mut leecher = Leecher::connect(program.address, hash, MODERN).unwrap();
    let offered = leecher.wait_for_offer().unwrap();
    assert!((0..20).all(|piece| offered.contains(piece) == (12..20).contains(&piece)));
    program.stop();
}

#[test]
fn a_file_touched_after_the_last_start_is_hashed_at_the_next() {
    let home = Folder::new("next-start");
    let root = season(&home);
    let program = Call::share(&home, &[&root]).start();
    let before = program.shares[0].info_hash;
    fs::write(root.join("two"), bytes(6, 4 * 16_384)).unwrap();
    wait_until_withheld(&program, 8..12);
    program.stop();
    let program = Call::share(&home, &[&root]).start();
    assert_ne!(program.shares[0].info_hash, before);
    crate::assert_arrives(&program, &program.shares[0], &root, MODERN, 64);
    program.stop();
}

/// Shares three files, does something to the second, and checks what becomes of its pieces, for
/// peers that are connected, with BEP 6 and without, and for those who come later.
#[track_caller]
fn assert_withheld(change: impl FnOnce(&Path)) {
    let home = Folder::new("change");
    let root = season(&home);
    let program = Call::share(&home, &[&root]).with(&["--piece-size", "16K"]).start();
    let share = program.shares[0].clone();
    let torrent = Metainfo::read(&share.torrent);
    let content: Vec<Vec<u8>> =
        torrent.files.iter().map(|(path, _)| fs::read(root.join(path)).unwrap()).collect();
    let content = content.concat();
    let sink = |block: Block, bytes: &[u8]| {
        assert!(bytes == &content[torrent.offset(block)..][..bytes.len()], "{block:?}");
    };
    let mut modern = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    let mut plain = Leecher::enter(program.address, share.info_hash, PLAIN).unwrap();
    // All three files are open now.
    for leecher in [&mut modern, &mut plain] {
        assert_eq!(leecher.fetch(torrent.blocks(), 8, sink).unwrap(), []);
    }
    change(&root.join("two"));
    wait_until_withheld(&program, 8..12);
    // Who cannot be told otherwise is let go; who can is told no, and everything else goes on.
    plain.read_to_end().unwrap();
    let rejected = modern.fetch(torrent.blocks(), 8, sink).unwrap();
    let withheld: Vec<Block> = (8..12).flat_map(|piece| torrent.blocks_of(piece)).collect();
    assert_eq!(rejected, withheld);
    let others = || (0..20).filter(|piece| !(8..12).contains(piece));
    for manners in [MODERN, PLAIN] {
        let mut leecher = Leecher::enter(program.address, share.info_hash, manners).unwrap();
        let offered = leecher.wait_for_offer().unwrap();
        assert!((0..20).all(|piece| offered.contains(piece) != (8..12).contains(&piece)));
        let blocks = others().flat_map(|piece| torrent.blocks_of(piece));
        assert_eq!(leecher.fetch(blocks, 8, sink).unwrap(), []);
    }
    let log = program.log();
    let said: Vec<&str> = log.lines().filter(|line| line.starts_with("warn: ")).collect();
    assert!(said.iter().any(|line| line.contains("season/two: ")), "{said:?}");
    assert!(said.iter().all(|line| !line.contains("season/one")), "{said:?}");
    program.stop();
}

/// Asks for the first of some pieces until it is refused: an open file is good for a second.
fn wait_until_withheld(program: &Program, pieces: std::ops::Range<u32>) {
    let mut leecher = Leecher::enter(program.address, program.shares[0].info_hash, MODERN).unwrap();
    let block = Block { piece: pieces.start, begin: 0, length: 16_384 };
    let probe = || {
        leecher.send(&request(block)).unwrap();
        loop {
            match leecher.receive().unwrap() {
                Message::Reject(_) => return Some(()),
                Message::Piece(..) => return None,
                _ => {}
            }
        }
    };
    wait_until("its pieces are withheld", PATIENCE, probe, || program.log());
}

/// Runs a program as root without root's right to read everything.
pub const WITHOUT_PRIVILEGES: &[&str] =
    &["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--"];
