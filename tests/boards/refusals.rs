//! Images that are damaged, foreign or missing: refused as a whole, or without the bad piece.

use crate::leecher::{Leecher, MODERN, Offered, PLAIN};
use crate::machine::{Board, Setting};
use crate::share::Image;
use crate::torrent::sha1;
use std::fs::{self, File};
use std::path::Path;

/// One bit at a time; every time the board refuses and ends.
pub fn a_bit_that_changed_in_head_or_metainfo_is_found(board: Board) {
    let image = Image::new(board);
    let metainfo = image.parts.metainfo;
    let last = u32::try_from(metainfo.length * 8 - 1).expect("a short .torrent");
    // Magic, version, length, checksum, what it says; the front, a middle and the end of another.
    for (at, bit, why) in [
        (0, 0, "there is no image"),
        (8, 3, "image"),
        (10, 1, "image"),
        (12, 31, "image"),
        (16, 0, "image"),
        (60, 7, "image"),
        (metainfo.at, 0, ".torrent is damaged"),
        (metainfo.at, last / 3, ".torrent is damaged"),
        (metainfo.at, last, ".torrent is damaged"),
    ] {
        image.flip(at, bit);
        assert_refused(board, &image.path, why);
        image.flip(at, bit);
    }
    // With every bit back in its place it is an image again.
    Setting::new(board, &image.path).start().quit();
}

/// Three pieces are bad: they are named, not offered and not given. All others are.
pub fn a_piece_that_changed_is_not_offered_and_the_others_are(board: Board) {
    let image = Image::new(board);
    let torrent = &image.torrent;
    let (count, piece_bytes) = (torrent.piece_count(), u64::from(torrent.piece_bytes));
    let bad = [0, count / 2, count - 1];
    for (piece, bit) in bad.into_iter().zip([7, 70_000, 1]) {
        image.flip(image.parts.content.at + u64::from(piece) * piece_bytes, bit);
    }
    let mut machine = Setting::new(board, &image.path).launch();
    for piece in bad {
        let line = machine.wait_for("check: piece ");
        assert_eq!(line, format!("{piece} does not match its hash: not offered"));
    }
    assert_eq!(machine.wait_for("check: "), format!("{} pieces are good", count - 3));
    machine.wait_for("listening on ");

    for manners in [MODERN, PLAIN] {
        let mut leecher = Leecher::enter(machine.address, torrent.info_hash, manners).unwrap();
        let offered = leecher.wait_for_offer().unwrap();
        let missing: Vec<u32> = (0..count).filter(|piece| !offered.contains(*piece)).collect();
        assert_eq!(missing, bad, "{offered:?}");
        assert!(matches!(offered, Offered::Some(_)));
        let good = (0..count).filter(|piece| offered.contains(*piece));
        let mut content = vec![0; torrent.total_bytes() as usize];
        let put = |block, bytes: &[u8]| {
            content[torrent.offset(block)..][..bytes.len()].copy_from_slice(bytes);
        };
        leecher.fetch(good.flat_map(|piece| torrent.blocks_of(piece)), 16, put).unwrap();
        let pieces = content.chunks(torrent.piece_bytes as usize);
        let wrong = pieces.zip(&torrent.hashes).map(|(piece, hash)| sha1(piece) != *hash);
        let wrong: Vec<u32> = (0..).zip(wrong).filter(|(_, wrong)| *wrong).map(|at| at.0).collect();
        assert_eq!(wrong, bad);
    }
    // Who asks all the same is told no, or shown out.
    let mut greedy = Leecher::enter(machine.address, torrent.info_hash, MODERN).unwrap();
    let asked: Vec<_> = torrent.blocks_of(bad[1]).collect();
    if let Ok(rejected) = greedy.fetch(asked.clone(), 1, |_, _| panic!("a bad block is given")) {
        assert_eq!(rejected, asked);
    }
    machine.quit();

    // What was found is not forgotten: the next start knows it, or looks again.
    let machine = Setting::new(board, &image.path).start();
    let mut leecher = Leecher::enter(machine.address, torrent.info_hash, MODERN).unwrap();
    let offered = leecher.wait_for_offer().unwrap();
    assert!(bad.iter().all(|piece| !offered.contains(*piece)), "{offered:?}");
    machine.quit();
}

/// After one good start the next lets peers come at once, and looks at the pieces all the same.
pub fn a_piece_that_rots_after_a_good_start_is_found_by_the_next(board: Board) {
    let image = Image::new(board);
    let torrent = &image.torrent;
    Setting::new(board, &image.path).start().quit();
    let rotten = torrent.piece_count() * 2 / 3;
    let at = u64::from(rotten) * u64::from(torrent.piece_bytes);
    image.flip(image.parts.content.at + at, 4_711);
    let mut machine = Setting::new(board, &image.path).start();
    let mut early = Leecher::enter(machine.address, torrent.info_hash, MODERN).unwrap();
    let line = machine.wait_for("check: piece ");
    assert_eq!(line, format!("{rotten} does not match its hash: not offered"));
    machine.wait_for(&format!("check: {} pieces are good", torrent.piece_count() - 1));
    let first = machine
        .lines()
        .into_iter()
        .find(|line| line.starts_with("check: ") || line.starts_with("listening on "));
    assert!(first.is_some_and(|line| line.starts_with("listening")), "nobody waits for a check");

    let mut late = Leecher::enter(machine.address, torrent.info_hash, PLAIN).unwrap();
    let offered = late.wait_for_offer().unwrap();
    assert!((0..torrent.piece_count()).all(|piece| offered.contains(piece) != (piece == rotten)));
    // Who was told before that it is there is told no.
    let asked: Vec<_> = torrent.blocks_of(rotten).collect();
    if let Ok(rejected) = early.fetch(asked.clone(), 1, |_, _| panic!("a bad block is given")) {
        assert_eq!(rejected, asked);
    }
    machine.quit();
}

/// Nothing that is not its own.
pub fn an_image_for_another_board_and_an_empty_card_are_refused(board: Board) {
    let foreign = Image::new(board.other());
    let card = foreign.home.path().join("card");
    fs::copy(&foreign.path, &card).expect("our folder is writable");
    let resize = |bytes| File::options().write(true).open(&card).unwrap().set_len(bytes).unwrap();
    if board == Board::Rv32 {
        resize(NOR_BYTES);
    }
    assert_refused(board, &card, "another board");
    for byte in [0x00, 0xff] {
        fs::write(&card, vec![byte; NOR_BYTES as usize]).expect("our folder is writable");
        assert_refused(board, &card, "there is no image");
    }
}

/// The board says that it refuses, says why, and ends with the status that stands for it.
fn assert_refused(board: Board, image: &Path, words: &str) {
    let mut machine = Setting::new(board, image).launch();
    let why = machine.wait_for("image refused: ");
    assert!(why.contains(words), "{why}");
    assert_eq!(machine.verdict(), 2);
    assert!(machine.said("listening on ").is_none());
}

/// The bank of flash that holds an image.
const NOR_BYTES: u64 = 32 << 20;
