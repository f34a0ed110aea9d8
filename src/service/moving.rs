//! Content is put elsewhere while it is served: copied, checked, and only then switched to.
//!
//! ```text
//! STATE/moving/INFO-HASH.json: from, to
//!   copy to TO/.NAME.moving   on lanes, a few MiB at a time; on the same disk files are linked
//!   rename to TO/NAME         whole from here on
//!   hash it                   unless it was linked: a copy is believed once every piece matches
//!   record                    one record of the journal: it lies there from here on
//!   delete what lay at from   the files that are still as they were
//! ```
//!
//! Cut anywhere, the next start goes on: from what stands in the library and on the disks it is
//! seen how far it had come. Until the record the source is as it was; if the power goes right after
//! it, the source stays, and that is said.

use super::content::{Content, FileSource, look, open_beneath};
use super::draft::{self, Counted};
use super::known::{Known, Place};
use super::refusal::Refusal;
use super::state::{State, refused, replace, sync_folder};
use super::walk::unreadable;
use crate::engine::bencode::Sink;
use crate::engine::library::extents::Stamp;
use crate::engine::library::{Entry, ExtentMap, Facts};
use crate::engine::units::InfoHash;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// A torrent's content on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Where it lies.
    pub from: PathBuf,
    /// Where it is to lie.
    pub to: PathBuf,
    /// All of it has been copied: what lies at `to` from here on is ours.
    #[serde(default)]
    pub copied: bool,
}

impl Moving {
    /// Where it is while it is not whole: beside where it is to lie.
    pub fn draft(&self) -> PathBuf {
        let name = self.to.file_name().unwrap_or_default().to_string_lossy();
        self.to.with_file_name(std::format!(".{name}.moving"))
    }

    /// Removes what was copied and is not whole.
    pub fn clear(&self) -> io::Result<()> {
        remove(&self.draft())
    }

    /// Removes what was copied whole, and is not what it should be.
    pub fn discard(&self) -> io::Result<()> {
        remove(&self.to)
    }

    /// All of it is there: it gets its name, unless something else has that by now.
    pub fn finish(&self) -> io::Result<()> {
        let draft = self.draft();
        match rename_noreplace(&draft, &self.to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !draft.exists() => {}
            renamed => renamed?,
        }
        self.to.parent().map_or(Ok(()), sync_folder)
    }
}

fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        // File systems that cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// Makes the names in a folder and in all folders below it durable.
fn sync_below(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?;
        }
    }
    sync_folder(folder)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A copy being made.
pub struct Copying {
    content: Arc<Content>,
    to: PathBuf,
    index: u32,
    file: Option<Copied>,
    /// Bytes that are there.
    pub copied_bytes: u64,
    /// Some had to be copied, rather than linked.
    pub is_copy: bool,
}

struct Copied {
    from: OwnedFd,
    to: File,
    at: u64,
    length: u64,
}

impl Copying {
    /// Nothing is copied yet.
    pub fn new(content: Arc<Content>, to: PathBuf) -> Copying {
        Copying { content, to, index: 0, file: None, copied_bytes: 0, is_copy: false }
    }

    /// Copies some more; whether there is more to come. On a lane.
    pub fn step(&mut self) -> Result<bool, Refusal> {
        let mut left = STEP_BYTES;
        while left > 0 {
            let Some(file) = &mut self.file else {
                if !self.begin_next()? {
                    if self.to.is_dir() {
                        sync_below(&self.to).map_err(|error| refused(&self.to, error))?;
                    }
                    return Ok(false);
                }
                left = left.saturating_sub(FILE_BYTES);
                continue;
            };
            let copied = file
                .copy(left.min(file.length - file.at))
                .map_err(|error| refused(&self.to, error))?;
            (file.at, left) = (file.at + copied, left - copied);
            // As it goes: all of a large file at its end would hold the lane for minutes.
            file.to.sync_data().map_err(|error| refused(&self.to, error))?;
            self.copied_bytes += copied;
            if file.at == file.length {
                file.to.sync_all().map_err(|error| refused(&self.to, error))?;
                self.file = None;
            }
        }
        Ok(true)
    }

    /// Begins the next file; whether there is one.
    fn begin_next(&mut self) -> Result<bool, Refusal> {
        let content = &self.content;
        let mut source = FileSource(&content.extents);
        let extent = ExtentMap::new(&mut source, content.file_count).read(self.index);
        let Some(extent) = extent.map_err(|error| unreadable(&content.root, error))? else {
            return Ok(false);
        };
        self.index += 1;
        if extent.padding || extent.stamp == Stamp::default() {
            return Ok(true);
        }
        let path = content.path_of(&extent).map_err(|error| unreadable(&content.root, error))?;
        let join =
            |root: &Path| if path.is_empty() { root.to_path_buf() } else { root.join(&path) };
        let (from, to) = (join(&content.root), join(&self.to));
        let opened =
            open_beneath(&content.root, &path).map_err(|error| unreadable(&from, error))?;
        let seen = look(&opened).map_err(|error| unreadable(&from, error))?;
        if seen != (extent.span.length, extent.stamp) {
            let remedy = "let it be shared anew, then move it";
            return Err(Refusal::new(from.display(), "has changed since it was hashed", remedy));
        }
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.map_err(|error| refused(&to, error))?;
        if fs::hard_link(&from, &to).is_ok() {
            self.copied_bytes += extent.span.length;
            return Ok(true);
        }
        self.is_copy = true;
        let file = OpenOptions::new().write(true).create_new(true).open(&to);
        let file = file.map_err(|error| refused(&to, error))?;
        self.file = Some(Copied { from: opened, to: file, at: 0, length: extent.span.length });
        Ok(true)
    }
}

impl Copied {
    fn copy(&self, most: u64) -> io::Result<u64> {
        let (mut from_at, mut to_at) = (self.at, self.at);
        let (from_at, to_at) = (Some(&mut from_at), Some(&mut to_at));
        match rustix::fs::copy_file_range(&self.from, from_at, &self.to, to_at, most as usize) {
            Ok(0) if most > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => Ok(copied as u64),
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut buffer = std::vec![0; most.min(BUFFER_BYTES) as usize];
                let read = rustix::io::pread(&self.from, &mut buffer, self.at)?;
                if read == 0 && most > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                std::os::unix::fs::FileExt::write_all_at(&self.to, &buffer[..read], self.at)?;
                Ok(read as u64)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl State<'_> {
    /// Writes down that content is to be put elsewhere.
    pub fn keep_moving(&self, info_hash: &InfoHash, moving: &Moving) -> Result<(), Refusal> {
        let (folder, path) = (self.moving_folder(), self.moving_path(info_hash));
        let keep = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            replace(&path, &serde_json::to_vec(moving)?)
        };
        keep().map_err(|error| refused(&path, error))
    }

    /// It lies where it is to lie, or stays where it is.
    pub fn drop_moving(&self, info_hash: &InfoHash) {
        // Should it stay, the next start sees that nothing is left to do.
        let _ = fs::remove_file(self.moving_path(info_hash));
    }

    /// Where a torrent's content is on its way to.
    pub fn moving(&self, info_hash: &InfoHash) -> Option<Moving> {
        serde_json::from_slice(&fs::read(self.moving_path(info_hash)).ok()?).ok()
    }

    /// Every torrent whose content is on its way.
    pub fn all_moving(&self) -> Vec<InfoHash> {
        super::wanted::names_in(&self.moving_folder(), "json")
    }

    /// Makes the folder of a torrent whose content lies at another path now; gives back where, what
    /// stands there, and the checksum of its facts.
    pub fn draft_moved(&self, entry: &Entry, to: &Path) -> Result<(PathBuf, Known, u32), Refusal> {
        let folder = self.new_folder()?;
        let at_target = |_: &Path| Some(Place { root: to.to_path_buf(), anchor: None });
        let made = self.with_facts(entry, |facts, old| {
            let known = Known::load(old, entry.facts_crc, at_target);
            let known = known.ok_or_else(|| damaged(old))?;
            super::state::copy_but(old, &folder, &["facts", "extents"])
                .map_err(|error| refused(&folder, error))?;
            let extents_crc = remap(&known, &folder)?;
            let facts = Facts { root: draft::utf8(to)?, extents_crc, ..*facts };
            draft::write_facts(&folder, &facts)
        });
        let facts_crc = made.ok_or_else(|| damaged(&folder))??;
        let known = Known::load(&folder, facts_crc, at_target).ok_or_else(|| damaged(&folder))?;
        Ok((folder, known, facts_crc))
    }

    fn moving_folder(&self) -> PathBuf {
        self.path().join("moving")
    }

    fn moving_path(&self, info_hash: &InfoHash) -> PathBuf {
        self.moving_folder().join(std::format!("{info_hash}.json"))
    }
}

/// Writes the extent map of content that lies elsewhere now; its checksum.
fn remap(known: &Known, folder: &Path) -> Result<u32, Refusal> {
    let path = folder.join("extents");
    let mut extents = Counted::create(&path)?;
    for mut extent in known.extents() {
        if !extent.padding && extent.stamp != Stamp::default() {
            let seen = known
                .content
                .path_of(&extent)
                .and_then(|path| look(&open_beneath(&known.content.root, &path)?));
            let (length, stamp) = seen.map_err(|error| unreadable(&known.content.root, error))?;
            if length != extent.span.length {
                let thing = known.content.path_at(extent.span.at);
                let remedy = "delete what was copied, and move it again";
                return Err(Refusal::new(thing.display(), "is not what was copied", remedy));
            }
            extent.stamp = stamp;
        }
        extents.put(&extent.write()).map_err(|error| refused(&path, error))?;
    }
    let crc = extents.crc();
    extents.finish(&path)?;
    Ok(crc)
}

fn damaged(folder: &Path) -> Refusal {
    let problem = "is not what the library vouches for";
    Refusal::new(folder.display(), problem, "share or fetch the torrent anew")
}

/// Says why content cannot lie below that folder, if it cannot.
pub fn objection(from: &Path, folder: &Path, to: &Path, bytes: u64) -> Option<Refusal> {
    let name = folder.display();
    if !folder.is_dir() {
        return Some(Refusal::new(name, "is no folder", "make it first, or name another"));
    }
    if to.exists() {
        return Some(Refusal::new(
            to.display(),
            "is there already",
            "move it away, or name another",
        ));
    }
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    let space = rustix::fs::statvfs(folder).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // On the same disk nothing is copied.
    if free < bytes && device(folder) != device(from) {
        let problem = std::format!("has {free} bytes free, and {bytes} are needed");
        return Some(Refusal::new(name, problem, "make room there, or name another"));
    }
    // Whether one may write there is best asked by writing.
    let trial = folder.join(".perennial-trial");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let made = rustix::fs::open(&trial, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    let _ = fs::remove_file(&trial);
    let error: io::Error = made.err()?.into();
    let problem: String = std::format!("cannot be written to: {error}");
    Some(Refusal::new(name, problem, "give the box the right to, or name another"))
}

/// Copied in one go: a lane is held for no longer than that takes.
const STEP_BYTES: u64 = 8 << 20;

/// What a file costs beside its bytes, measured in bytes.
const FILE_BYTES: u64 = 64 << 10;

/// Copied through this where the kernel does not copy by itself.
const BUFFER_BYTES: u64 = 256 << 10;
