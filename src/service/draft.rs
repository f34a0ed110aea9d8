//! A torrent's files while they are being made: metainfo, extents, facts.
//!
//! Everything is written into a folder of its own and synced there; `service/state` puts it in
//! its place. See [`author`] for the order in which a metainfo file comes about.

use super::content::{Content, FileSource};
use super::known::{Known, WINDOW_BYTES, stamp_now};
use super::refusal::Refusal;
use super::share::BROKEN_TORRENT;
use super::state::{create, refused};
use super::walk::{LeftOut, Walk, unreadable};
use crate::engine::bencode::Sink;
use crate::engine::digest::PieceHasher;
use crate::engine::library::facts::FACTS_BYTES_MAX;
use crate::engine::library::{Extent, Facts};
use crate::engine::limits::{PATH_BYTES_MAX, PIECES_MAX};
use crate::engine::metainfo::{self, Layout, MetainfoError, Summary, author, names};
use crate::engine::units::{InfoHash, PieceIndex, Span};
use std::boxed::Box;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;

/// A torrent being made of what lies under a root. Its pieces are still to be hashed.
pub struct Draft {
    /// What the walk left out.
    pub left_out: LeftOut,
    /// Its content, to hash from.
    pub content: Arc<Content>,
    /// Its name for people.
    pub name: String,
    folder: PathBuf,
    torrent: String,
    extents_crc: u32,
}

impl Draft {
    /// Walks `root` and writes all but the piece hashes.
    pub async fn write(
        folder: &Path,
        root: &Path,
        piece_bytes: Option<u32>,
        trackers: &[String],
        walk_kib: u32,
    ) -> Result<Draft, Refusal> {
        let name = name_of(root)?;
        let torrent = torrent_name(&name);
        let path = folder.join(&torrent);
        let (mut metainfo, extents_path) = (Counted::create(&path)?, folder.join("extents"));
        let mut extents = Counted::create(&extents_path)?;
        let mut walk = Walk::new(root, walk_kib)?;
        let single = root.is_file().then(|| fs::metadata(root).map(|file| file.len()));
        let single = single.transpose().map_err(|error| unreadable(root, error))?;

        let addresses = trackers.iter().map(String::as_str);
        let full = |error| refused(&path, error);
        author::write_head(&mut metainfo, addresses).map_err(full)?;
        let info_at = metainfo.count;
        author::open_info(&mut metainfo, single).map_err(full)?;
        let (mut total_bytes, mut file_count) = (0u64, 0u32);
        while let Some(found) = walk.next_file().await? {
            let mut path_at = 0;
            if single.is_none() {
                path_at = metainfo.count - info_at + author::path_offset(found.length);
                author::write_file(&mut metainfo, found.length, &found.path).map_err(full)?;
            }
            let span = Span { at: total_bytes, length: found.length };
            let extent = Extent { span, path_at, stamp: found.stamp, ..Extent::default() };
            extents.put(&extent.write()).map_err(|error| refused(&extents_path, error))?;
            (total_bytes, file_count) = (total_bytes + found.length, file_count + 1);
        }
        if total_bytes == 0 {
            let problem =
                if single.is_some() { "is empty" } else { "holds no file with a byte in it" };
            return Err(Refusal::new(root.display(), problem, "put something into it first"));
        }
        let piece_bytes = piece_bytes.unwrap_or_else(|| author::piece_bytes_for(total_bytes));
        if total_bytes.div_ceil(u64::from(piece_bytes)) > u64::from(PIECES_MAX) {
            let problem = std::format!("pieces of {piece_bytes} bytes would be too many");
            return Err(Refusal::new(root.display(), problem, "leave --piece-size to us"));
        }
        let layout = Layout { total_bytes, piece_bytes };
        author::write_pieces_head(&mut metainfo, &name, &layout, single.is_none()).map_err(full)?;
        let pieces = Span { at: metainfo.count, length: u64::from(layout.piece_count()) * 20 };
        let extents_crc = extents.crc();
        let info = Span { at: info_at, length: pieces.end() + 1 - info_at };
        let metainfo = metainfo.finish(&path)?;
        author::write_tail(&mut Tail { file: &metainfo, at: pieces.end() }).map_err(full)?;
        let root = root.to_path_buf();
        let extents = extents.finish(&extents_path)?;
        let content = Content {
            root,
            anchor: None,
            metainfo,
            extents,
            file_count,
            info,
            pieces,
            layout,
            growing: false,
        };
        let (folder, content) = (folder.to_path_buf(), Arc::new(content));
        Ok(Draft { left_out: walk.left_out, content, name, folder, torrent, extents_crc })
    }

    /// Writes and syncs what is left once every piece has been hashed.
    pub fn finish(&self) -> Result<(InfoHash, u32), Refusal> {
        let content = &self.content;
        let path = self.folder.join(&self.torrent);
        content.metainfo.sync_all().map_err(|error| refused(&path, error))?;
        let info_hash =
            info_hash_of(&content.metainfo, content.info).map_err(|error| refused(&path, error))?;
        let facts = Facts {
            info_hash,
            root: utf8(&content.root)?,
            torrent: &self.torrent,
            layout: content.layout,
            info: content.info,
            pieces: content.pieces,
            file_count: content.file_count,
            private: false,
            authored: true,
            extents_crc: self.extents_crc,
            have_crc: None,
        };
        Ok((info_hash, write_facts(&self.folder, &facts)?))
    }
}

/// Puts the hash of a piece where it belongs.
pub fn put_hash(content: &Content, piece: PieceIndex, hash: &[u8; 20]) -> io::Result<()> {
    content.metainfo.write_all_at(hash, content.pieces.at + u64::from(piece.0) * 20)
}

/// Writes the files of a torrent that others have made, but for its `have`; its content.
pub fn adopt(
    folder: &Path,
    torrent: &Path,
    summary: &Summary,
    root: &Path,
) -> Result<(Content, String, u32), Refusal> {
    let name = torrent_name(&summary.name);
    let path = folder.join(&name);
    fs::copy(torrent, &path).map_err(|error| refused(&path, error))?;
    let metainfo = File::open(&path).map_err(|error| refused(&path, error))?;
    metainfo.sync_all().map_err(|error| refused(&path, error))?;
    let extents_path = folder.join("extents");
    let mut extents = Counted::create(&extents_path)?;
    let (mut source, mut window) = (FileSource(&metainfo), std::vec![0; WINDOW_BYTES]);
    let mut files = summary.files(&mut source, &mut window);
    let broken =
        |error: MetainfoError<io::Error>| Refusal::new(torrent.display(), error, BROKEN_TORRENT);
    while let Some(file) = files.next_file().map_err(broken)? {
        let mut room = [0; PATH_BYTES_MAX];
        let at = summary.info.at + file.path_at;
        let path = match file.path_at {
            0 => "",
            _ => metainfo::read_path(&mut FileSource(&metainfo), at, &mut room).map_err(broken)?,
        };
        let span = Span { at: file.start, length: file.length };
        let stamp =
            if file.padding { Default::default() } else { stamp_now(root, path, file.length) };
        let (path_at, padding) = (file.path_at, file.padding);
        let extent = Extent { span, path_at, stamp, padding, ..Extent::default() };
        extents.put(&extent.write()).map_err(|error| refused(&extents_path, error))?;
    }
    let extents_crc = extents.crc();
    let content = Content {
        root: root.to_path_buf(),
        anchor: None,
        extents: extents.finish(&extents_path)?,
        metainfo,
        file_count: summary.file_count,
        info: summary.info,
        pieces: summary.pieces,
        layout: summary.layout,
        growing: false,
    };
    Ok((content, name, extents_crc))
}

/// Writes a torrent's files again with other trackers in front of the same `info` dictionary.
pub fn rewrite(known: &Known, folder: &Path, trackers: &[String]) -> Result<u32, Refusal> {
    let (old_folder, extents_crc) = known.files();
    let torrent = known.torrent.file_name().unwrap_or_default();
    let (path, old) = (folder.join(torrent), &known.content);
    let mut metainfo = Counted::create(&path)?;
    let written = (|| -> io::Result<u64> {
        author::write_head(&mut metainfo, trackers.iter().map(String::as_str))?;
        let at = metainfo.count;
        let (mut from, mut buffer) = (old.info.at, std::vec![0; WINDOW_BYTES]);
        while from < old.info.end() {
            let length = (old.info.end() - from).min(buffer.len() as u64) as usize;
            old.metainfo.read_exact_at(&mut buffer[..length], from)?;
            metainfo.put(&buffer[..length])?;
            from += length as u64;
        }
        metainfo.put(b"e")?;
        Ok(at)
    })();
    let at = written.map_err(|error| refused(&path, error))?;
    metainfo.finish(&path)?.sync_all().map_err(|error| refused(&path, error))?;
    let extents = folder.join("extents");
    let copied = fs::copy(old_folder.join("extents"), &extents).and_then(|_| File::open(&extents));
    copied.and_then(|file| file.sync_all()).map_err(|error| refused(&extents, error))?;
    let facts = Facts {
        info_hash: known.info_hash,
        root: utf8(&old.root)?,
        torrent: utf8(Path::new(torrent))?,
        layout: old.layout,
        info: Span { at, ..old.info },
        pieces: Span { at: old.pieces.at - old.info.at + at, ..old.pieces },
        file_count: old.file_count,
        private: false,
        authored: true,
        extents_crc,
        have_crc: None,
    };
    write_facts(folder, &facts)
}

/// Writes and syncs the facts; their checksum.
pub fn write_facts(folder: &Path, facts: &Facts<'_>) -> Result<u32, Refusal> {
    let mut room = Box::new([0; FACTS_BYTES_MAX]);
    let Some((bytes, crc)) = facts.write(&mut room) else {
        let remedy = "share it from a path that is shorter";
        return Err(Refusal::new(facts.root, "its path is too long", remedy));
    };
    write_synced(&folder.join("facts"), bytes)?;
    Ok(crc)
}

/// Writes a small file and syncs it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let mut file = create(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| refused(path, error))
}

/// SHA-1 of the `info` dictionary as it stands.
pub fn info_hash_of(metainfo: &File, info: Span) -> io::Result<InfoHash> {
    let (mut hasher, mut buffer) = (PieceHasher::default(), std::vec![0; WINDOW_BYTES]);
    let mut at = info.at;
    while at < info.end() {
        let length = (info.end() - at).min(buffer.len() as u64) as usize;
        metainfo.read_exact_at(&mut buffer[..length], at)?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(InfoHash::V1(hasher.finish()))
}

/// A path as the text it has to be.
pub fn utf8(path: &Path) -> Result<&str, Refusal> {
    path.to_str().ok_or_else(|| Refusal::new(path.display(), "its path is not UTF-8", "rename it"))
}

fn name_of(root: &Path) -> Result<String, Refusal> {
    let Some(name) = root.file_name() else {
        return Err(Refusal::new(root.display(), "has no name", "share the folders in it"));
    };
    let name = utf8(Path::new(name))?;
    match names::check(name) {
        Ok(()) => Ok(name.to_string()),
        Err(what) => {
            Err(Refusal::new(root.display(), std::format!("its name {what}"), "rename it"))
        }
    }
}

/// What the `.torrent` of a share is called; names are cut where they would be too long.
pub(super) fn torrent_name(name: &str) -> String {
    let mut end = name.len().min(TORRENT_STEM_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    std::format!("{}.torrent", &name[..end])
}

/// A file being written, with its length and checksum so far.
pub(super) struct Counted {
    file: BufWriter<File>,
    count: u64,
    crc: crc32fast::Hasher,
}

impl Counted {
    /// CRC-32 of what has been put.
    pub fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// A new file.
    pub fn create(path: &Path) -> Result<Counted, Refusal> {
        let file = BufWriter::new(create(path)?);
        Ok(Counted { file, count: 0, crc: crc32fast::Hasher::new() })
    }

    /// Bytes that have been put.
    pub fn length(&self) -> u64 {
        self.count
    }

    /// Hands all that has been put to the system, so that others can read it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Everything written and synced.
    pub fn finish(self, path: &Path) -> Result<File, Refusal> {
        let file = self.file.into_inner().map_err(|error| refused(path, error.into_error()))?;
        file.sync_all().map_err(|error| refused(path, error))?;
        Ok(file)
    }
}

impl Sink for Counted {
    type Error = io::Error;

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count += bytes.len() as u64;
        self.crc.update(bytes);
        self.file.write_all(bytes)
    }
}

/// The end of a metainfo file, behind hashes that are still to come.
struct Tail<'f> {
    file: &'f File,
    at: u64,
}

impl Sink for Tail<'_> {
    type Error = io::Error;

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// With `.torrent` behind it a name of 255 bytes at most.
const TORRENT_STEM_BYTES_MAX: usize = 240;
