//! A state folder that knows any number of torrents, made as fast as a disk takes files.
//!
//! Everything in it is what the program would have written: for each torrent a small file of its own
//! as content, a folder with facts, extents and metainfo, and a slot that came through the journal.
//! Only nothing is synced: whoever makes a library for a test makes it again after a power cut.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use perennial::engine::bencode::Sink;
use perennial::engine::digest::PieceHasher;
use perennial::engine::journal::Durable;
use perennial::engine::library::catalog::{Change, Damaged, Lent};
use perennial::engine::library::extents::Stamp;
use perennial::engine::library::facts::FACTS_BYTES_MAX;
use perennial::engine::library::shelf::{Shelf, Shelves};
use perennial::engine::library::slots::PAGE_BYTES;
use perennial::engine::library::{Catalog, Extent, Facts, Record, root_key};
use perennial::engine::metainfo::{Layout, author};
use perennial::engine::units::{InfoHash, Span};
use perennial::service::archive::{OVERLAY_MAX, PAGES_MAX};
use perennial::service::board::{Board, JOURNAL_BUFFER_BYTES};
use perennial::service::flash_file::FlashFile;
use perennial::service::shelf_file::{self, ShelfFile};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How a library is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'w> {
    /// How many torrents it knows.
    pub count: u32,
    /// Its state folder, which must not know any yet.
    pub state: &'w Path,
    /// Where their content goes: a file of less than 1 KiB each, a thousand to a folder.
    pub content: &'w Path,
    /// A tracker that each names.
    pub tracker: Option<&'w str>,
    /// The board it is for.
    pub board: &'static str,
}

/// Makes a library.
pub fn make(wish: Wish<'_>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(wish.state.join("torrents"))?;
    fs::create_dir_all(wish.content)?;
    let (state, content) = (fs::canonicalize(wish.state)?, fs::canonicalize(wish.content)?);
    let board = Board::named(wish.board).ok_or_else(|| io::Error::other("no such board"))?;
    let journal = FlashFile::open(&state.join("journal"), 2 * 1024 * board.disk.journal_kib);
    let journal = Lazy(journal.map_err(io::Error::other)?);
    let Shelves { slots, staging, lookup } = shelf_file::open(&state)?;
    let shelves = Shelves { slots: Lazy(slots), staging: Lazy(staging), lookup: Lazy(lookup) };
    let mut overlay: Vec<Option<Change>> = vec![None; OVERLAY_MAX];
    let (mut room, mut pages) = (vec![0; JOURNAL_BUFFER_BYTES], vec![0; PAGES_MAX * PAGE_BYTES]);
    let lent = Lent { journal: &mut room, overlay: &mut overlay, pages: &mut pages };
    let mut no_damage = |damaged: Damaged<'_>| panic!("a new library is whole: {damaged:?}");
    let torrents_max = board.pools.torrents_max;
    let opened = Catalog::open(journal, shelves, lent, torrents_max, &mut no_damage);
    let (mut catalog, _) = opened.map_err(io::Error::other)?;
    assert_eq!(catalog.count(), 0, "{}: knows torrents already", state.display());
    for number in 0..wish.count {
        let record = make_torrent(&state, &content, number, wish.tracker)?;
        catalog.record(record).map_err(io::Error::other)?;
    }
    catalog.checkpoint().map_err(io::Error::other)
}

/// The content of a torrent: bytes that no other has, and fewer than a piece.
pub fn content_of(number: u32) -> Vec<u8> {
    format!("letter {number:06}\n").repeat(1 + number as usize % 60).into_bytes()
}

/// Where it lies in the folder of all content.
pub fn path_of(number: u32) -> PathBuf {
    format!("{:03}/letter-{number:06}.txt", number / 1_000).into()
}

/// The info-hash of a torrent of such a library.
pub fn info_hash_of(number: u32) -> [u8; 20] {
    let (info, _) = info_of(number);
    sha1(&info)
}

/// Writes a torrent's files; the record from which on it exists.
fn make_torrent(
    state: &Path,
    content: &Path,
    number: u32,
    tracker: Option<&str>,
) -> io::Result<Record> {
    let (path, bytes) = (content.join(path_of(number)), content_of(number));
    if number.is_multiple_of(1_000) {
        fs::create_dir_all(path.parent().unwrap_or(content))?;
    }
    let mut file = File::create(&path)?;
    file.write_all(&bytes)?;
    let look = file.metadata()?;
    let (length, modified) = (bytes.len() as u64, (look.mtime(), look.mtime_nsec() as u32));
    let stamp = Stamp { inode: look.ino(), modified };
    let span = Span { at: 0, length };
    let extents = Extent { span, stamp, ..Extent::default() }.write();
    let (info, hash_at) = info_of(number);
    let mut metainfo = Bytes::default();
    let Ok(()) = author::write_head(&mut metainfo, tracker.into_iter());
    let info_at = metainfo.0.len() as u64;
    metainfo.0.extend(&info);
    metainfo.0.push(b'e');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (torrent, info_hash) = (format!("{name}.torrent"), InfoHash::V1(sha1(&info)));
    let root = path.to_str().ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
    let facts = Facts {
        info_hash,
        root,
        torrent: &torrent,
        layout: Layout { total_bytes: length, piece_bytes: PIECE_BYTES },
        info: Span { at: info_at, length: info.len() as u64 },
        pieces: Span { at: info_at + hash_at, length: 20 },
        file_count: 1,
        private: false,
        authored: true,
        extents_crc: crc32fast::hash(&extents),
        have_crc: None,
    };
    let mut room = [0; FACTS_BYTES_MAX];
    let (facts, facts_crc) =
        facts.write(&mut room).ok_or_else(|| io::Error::other("its path is too long"))?;
    let folder = state.join(format!("torrents/{info_hash}-{facts_crc:08x}"));
    DirBuilder::new().mode(0o700).create(&folder)?;
    fs::write(folder.join("facts"), facts)?;
    fs::write(folder.join("extents"), extents)?;
    fs::write(folder.join(&torrent), &metainfo.0)?;
    let root_key = root_key(root.as_bytes());
    let added_s = 1_700_000_000 + u64::from(number);
    Ok(Record::Placed { info_hash, root_key, facts_crc, fetching: false, added_s, volume: 0 })
}

/// The `info` dictionary of a torrent, and where in it the hash of its one piece stands.
fn info_of(number: u32) -> (Vec<u8>, u64) {
    let bytes = content_of(number);
    let layout = Layout { total_bytes: bytes.len() as u64, piece_bytes: PIECE_BYTES };
    let path = path_of(number);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut info = Bytes::default();
    let Ok(()) = author::open_info(&mut info, Some(layout.total_bytes));
    let Ok(()) = author::write_pieces_head(&mut info, &name, &layout, false);
    let hash_at = info.0.len() as u64;
    info.0.extend(sha1(&bytes));
    info.0.push(b'e');
    (info.0, hash_at)
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut hasher = PieceHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Takes what is written.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend(bytes);
        Ok(())
    }
}

/// A file of the library that is not synced.
struct Lazy<F>(F);

impl Shelf for Lazy<ShelfFile> {
    type Error = <ShelfFile as Shelf>::Error;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read_at(at, into)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.write_at(at, bytes)
    }

    fn clear(&mut self) -> Result<(), Self::Error> {
        self.0.clear()
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn length(&mut self) -> Result<u64, Self::Error> {
        self.0.length()
    }
}

impl<F: ErrorType> ErrorType for Lazy<F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> ReadNorFlash for Lazy<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> NorFlash for Lazy<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        self.0.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.0.write(offset, bytes)
    }
}

impl<F: NorFlash> Durable for Lazy<F> {
    fn sync(&mut self) -> Result<(), F::Error> {
        Ok(())
    }
}

/// Every torrent is of one piece.
const PIECE_BYTES: u32 = 16 * 1024;
