//! What the state folder knows of one torrent, read back and held against what lies there now.

use super::content::{Content, FileSource, stamp_of};
use super::draft;
use super::refusal::Refusal;
use super::volume::Anchor;
use super::walk::{LeftOut, Walk};
use crate::engine::library::extents::{EXTENT_BYTES, Stamp};
use crate::engine::library::{Extent, ExtentMap, Facts};
use crate::engine::metainfo::trackers;
use crate::engine::units::InfoHash;
use rustix::fs::{AtFlags, CWD, FileType};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

/// Where content is now.
pub struct Place {
    /// Its path.
    pub root: PathBuf,
    /// The volume it is on, if that is known.
    pub anchor: Option<Arc<Anchor>>,
}

/// A torrent's folder in the state folder, checked against what the journal vouches for.
pub struct Known {
    /// Its name on the network.
    pub info_hash: InfoHash,
    /// Its `.torrent`.
    pub torrent: PathBuf,
    /// It was made here from what lay there.
    pub authored: bool,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// Which pieces match; nothing when all do.
    pub have: Option<Vec<u8>>,
    /// Where its content lies; or lay, when it is asleep.
    pub content: Content,
    /// The volume its content is on is away.
    pub asleep: bool,
    folder: PathBuf,
    extents_crc: u32,
}

impl Known {
    /// Reads a torrent's folder; `None` when it is not what the journal vouches for. `place` says
    /// where it is that was recorded at some path.
    pub fn load(
        folder: &Path,
        facts_crc: u32,
        place: impl FnOnce(&Path) -> Option<Place>,
    ) -> Option<Known> {
        let bytes = fs::read(folder.join("facts")).ok()?;
        let facts = Facts::parse(&bytes, facts_crc)?;
        let torrent = folder.join(facts.torrent);
        let extents = File::open(folder.join("extents")).ok()?;
        let crc = crc_of(&extents, u64::from(facts.file_count) * EXTENT_BYTES as u64)?;
        if crc != facts.extents_crc {
            return None;
        }
        let have = match facts.have_crc {
            None => None,
            Some(crc) => {
                let have = fs::read(folder.join("have")).ok()?;
                let whole = have.len() == facts.layout.bitfield_bytes() as usize;
                Some(have).filter(|have| whole && crc32fast::hash(have) == crc)?.into()
            }
        };
        let metainfo = File::open(&torrent).ok()?;
        if draft::info_hash_of(&metainfo, facts.info).ok()? != facts.info_hash {
            return None;
        }
        let place = place(Path::new(facts.root));
        let asleep = place.is_none();
        let stored = || Place { root: PathBuf::from(facts.root), anchor: None };
        let Place { root, anchor } = place.unwrap_or_else(stored);
        let content = Content {
            root,
            anchor,
            metainfo,
            extents,
            file_count: facts.file_count,
            info: facts.info,
            pieces: facts.pieces,
            layout: facts.layout,
            growing: false,
        };
        Some(Known {
            info_hash: facts.info_hash,
            torrent,
            authored: facts.authored,
            private: facts.private,
            have,
            content,
            asleep,
            folder: folder.to_path_buf(),
            extents_crc: facts.extents_crc,
        })
    }

    /// Whether a walk finds the very files that were hashed; if so, what it leaves out.
    pub async fn is_unchanged(&self, walk_kib: u32) -> Result<Option<LeftOut>, Refusal> {
        let mut walk = Walk::new(&self.content.root, walk_kib)?;
        for index in 0.. {
            let (found, known) = (walk.next_file().await?, self.extent(index));
            let same = match (&found, &known) {
                (None, None) => return Ok(Some(walk.left_out)),
                (Some(found), Some(extent)) => {
                    found.length == extent.span.length
                        && found.stamp == extent.stamp
                        && self.content.path_of(extent).is_ok_and(|path| path == found.path)
                }
                _ => false,
            };
            if !same {
                break;
            }
        }
        Ok(None)
    }

    /// Whether every file the torrent names looks as it did when it was checked, missing ones
    /// included.
    pub fn looks_the_same(&self) -> bool {
        let mut all = (0..self.content.file_count).map_while(|index| self.extent(index));
        all.all(|extent| {
            let Ok(path) = self.content.path_of(&extent) else { return false };
            extent.padding
                || stamp_now(&self.content.root, &path, extent.span.length) == extent.stamp
        })
    }

    /// The trackers its `.torrent` names: tier and address.
    pub fn trackers(&self) -> Vec<(u8, String)> {
        trackers_of(&self.content.metainfo)
    }

    /// Where its files are, and the checksum of its extent map.
    pub fn files(&self) -> (&Path, u32) {
        (&self.folder, self.extents_crc)
    }

    /// Deletes the files that are still what was hashed or fetched, and folders that are empty then.
    /// Gives back the paths of those that are not; what is not the torrent's is not looked at.
    pub fn delete_files(&self) -> io::Result<Vec<String>> {
        let (root, mut left) = (&self.content.root, Vec::new());
        if self.asleep || !self.content.is_there() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the disk it is on is not there"));
        }
        for index in 0..self.content.file_count {
            let Some(extent) = self.extent(index).filter(|extent| !extent.padding) else {
                continue;
            };
            let path = self.content.path_of(&extent)?;
            let whole = if path.is_empty() { root.clone() } else { root.join(&path) };
            let seen = stamp_now(root, &path, extent.span.length);
            if seen == Stamp::default() && !whole.exists() {
                continue;
            }
            // A file that is still being fetched changes all the time.
            let is_ours = self.content.growing && seen.inode == extent.stamp.inode;
            if seen != extent.stamp && !is_ours {
                left.push(whole.display().to_string());
                continue;
            }
            fs::remove_file(&whole)?;
            let mut folder = whole.parent();
            while let Some(empty) = folder.filter(|folder| folder.starts_with(root))
                && fs::remove_dir(empty).is_ok()
            {
                folder = empty.parent();
            }
        }
        Ok(left)
    }

    /// What the extent map says of each file.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        (0..self.content.file_count).map_while(|index| self.extent(index))
    }

    fn extent(&self, index: u32) -> Option<Extent> {
        let mut source = FileSource(&self.content.extents);
        ExtentMap::new(&mut source, self.content.file_count).read(index).ok().flatten()
    }
}

/// Torrents whose files in the state folder were found not to be what the journal vouches for. They
/// stay as they are until their torrent is added anew.
#[derive(Default)]
pub struct Spoiled(RefCell<heapless::Vec<InfoHash, SPOILED_MAX>>);

impl Spoiled {
    /// The files of a torrent, in that folder, have been read: whether they are damaged, which is
    /// said once.
    ///
    /// # When full
    /// No more is said of others, but to those who ask for them.
    pub fn note(&self, info_hash: &InfoHash, folder: &Path, is_damaged: bool) {
        let mut all = self.0.borrow_mut();
        match all.iter().position(|known| known == info_hash) {
            Some(at) if !is_damaged => drop(all.swap_remove(at)),
            None if is_damaged && all.push(*info_hash).is_ok() => {
                warn!("{}: {DAMAGED}", folder.display());
            }
            _ => {}
        }
    }

    /// Whether the files of a torrent were found damaged.
    pub fn holds(&self, info_hash: &InfoHash) -> bool {
        self.0.borrow().contains(info_hash)
    }
}

/// What is said of a torrent whose files are damaged.
pub const DAMAGED: &str = "its files in the state folder are damaged: add it anew";

/// Torrents that this is remembered of.
const SPOILED_MAX: usize = 64;

/// The trackers a `.torrent` names.
pub fn trackers_of(metainfo: &File) -> Vec<(u8, String)> {
    let (mut all, mut window) = (Vec::new(), std::vec![0; WINDOW_BYTES]);
    let mut visit = |tier: u8, address: &[u8]| {
        if let Ok(address) = std::str::from_utf8(address) {
            all.push((tier, address.to_string()));
        }
    };
    // The file has been read whole before; what cannot be read now is not announced.
    let _ = trackers::read(&mut FileSource(metainfo), &mut window, &mut visit);
    all
}

/// What a file of that length looks like now; the default stamp when there is none such.
pub fn stamp_now(root: &Path, path: &str, length: u64) -> Stamp {
    let whole = if path.is_empty() { root.to_path_buf() } else { root.join(path) };
    match rustix::fs::statat(CWD, &whole, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_size as u64 == length =>
        {
            stamp_of(&stat)
        }
        _ => Stamp::default(),
    }
}

/// CRC-32 of a file of that length; `None` when it has another or cannot be read.
fn crc_of(mut file: &File, length: u64) -> Option<u32> {
    if file.metadata().ok()?.len() != length {
        return None;
    }
    let (mut hasher, mut buffer) = (crc32fast::Hasher::new(), std::vec![0; WINDOW_BYTES]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// What files of ours are read through.
pub const WINDOW_BYTES: usize = 16 * 1024;
