//! A look at an entry: what it is, without reading a byte of it.
//!
//! A file is looked at in one call, a folder in as many as it holds files, so a look goes on for as
//! long as it is given work and is then put down until the next turn. What [`walk`](super::super::walk)
//! leaves out is left out here too; the order in which files are found does not matter, so
//! none of their names are kept. Folders are entered up to 32 in each other, and each is watched
//! before it is read: what happens in it later is heard.

use super::super::content::stamp_of;
use super::ears::{Ears, Heard};
use super::table::{Entry, Identity};
use crate::engine::digest::PieceHasher;
use crate::engine::metainfo::names;
use rustix::fs::{Access, AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;
use std::fs::ReadDir;
use std::io;
use std::path::PathBuf;
use std::vec::Vec;

/// What a look saw.
#[derive(Debug)]
pub enum Sight {
    /// Nothing is there.
    Nothing,
    /// Something that is neither a file nor a folder.
    Alien,
    /// It could not be seen.
    Trouble,
    /// An entry.
    Seen {
        /// What it is.
        identity: Identity,
        /// How many files it holds.
        files: u64,
        /// Whether one of them is empty.
        has_empty: bool,
        /// Whether it has been able to change without a word until now.
        was_silent: bool,
    },
}

/// A look under way.
pub struct Look {
    /// What is looked at, and where in it.
    path: PathBuf,
    /// How much of `path` is that of the entry itself.
    entry_bytes: usize,
    folders: Vec<ReadDir>,
    begun: bool,
    inodes_last: bool,
    identity: Identity,
    files: u64,
    has_empty: bool,
    was_silent: bool,
}

impl Look {
    /// Of the entry at `path`. `is_silent` when nobody tells what happens to it.
    pub fn new(path: PathBuf, inodes_last: bool, is_silent: bool) -> Look {
        Look {
            entry_bytes: path.as_os_str().len(),
            path,
            folders: Vec::new(),
            begun: false,
            inodes_last,
            identity: Identity::default(),
            files: 0,
            has_empty: false,
            was_silent: is_silent,
        }
    }

    /// Goes on for as long as there is `work`, of which each call to the file system costs one.
    /// `None` when it is not over.
    pub fn go_on(
        &mut self,
        entry: Entry,
        ears: &mut Option<Ears>,
        work: &mut u32,
    ) -> Option<Sight> {
        while *work > 0 {
            *work -= 1;
            if !self.begun {
                self.begun = true;
                match self.begin(entry, ears) {
                    Ok(true) => continue,
                    Ok(false) => return Some(Sight::Alien),
                    Err(error) => return Some(trouble(error)),
                }
            }
            let Some(folder) = self.folders.last_mut() else {
                return Some(Sight::Seen {
                    identity: self.identity,
                    files: self.files,
                    has_empty: self.has_empty,
                    was_silent: self.was_silent,
                });
            };
            let outcome = match folder.next() {
                None => {
                    self.folders.pop();
                    self.path.pop();
                    continue;
                }
                Some(Ok(found)) => {
                    let name = found.file_name();
                    let is_left_out = name
                        .to_str()
                        .is_none_or(|n| names::check(n).is_err() || names::is_left_out(n));
                    if is_left_out {
                        continue;
                    }
                    self.path.push(name);
                    self.look(entry, ears)
                }
                Some(Err(error)) => Err(error),
            };
            if let Err(error) = outcome {
                return Some(trouble(error));
            }
        }
        None
    }

    /// Looks at the entry itself; says whether it is one.
    fn begin(&mut self, entry: Entry, ears: &mut Option<Ears>) -> io::Result<bool> {
        let stat = rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)?;
        self.identity.inode = if self.inodes_last { stat.st_ino } else { 0 };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let heard = ears.as_mut().map(|ears| ears.listen_to_file(&self.path, entry));
                self.was_silent |= heard.is_some_and(|heard| heard != Heard::Already);
                self.take_in(&stat)?;
            }
            FileType::Directory => self.enter(entry, ears)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Looks at what is in it.
    fn look(&mut self, entry: Entry, ears: &mut Option<Ears>) -> io::Result<()> {
        let stat = match rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its folder was read.
            Err(Errno::NOENT) => {
                self.path.pop();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.take_in(&stat)?,
            FileType::Directory if self.folders.len() < DEPTH_MAX => {
                return self.enter(entry, ears);
            }
            _ => {}
        }
        self.path.pop();
        Ok(())
    }

    /// Watches a folder, then begins to read it.
    fn enter(&mut self, entry: Entry, ears: &mut Option<Ears>) -> io::Result<()> {
        match ears.as_mut().map(|ears| ears.listen(&self.path, entry)) {
            Some(Heard::Already) => {}
            Some(Heard::FromNowOn | Heard::Never) | None => self.was_silent = true,
        }
        match self.path.read_dir() {
            Ok(folder) => self.folders.push(folder),
            Err(error) if self.folders.is_empty() && is_gone(&error) => return Err(error),
            Err(error) if is_gone(&error) => drop(self.path.pop()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // Once it can be read, the entry has changed.
                self.add(b"a closed folder");
                // Whoever asks for the entry's files will be told why it cannot have them.
                self.files += 1;
                if self.folders.is_empty() {
                    return Ok(());
                }
                self.path.pop();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds a file to what is seen. One that cannot be read has changed once it can.
    fn take_in(&mut self, stat: &Stat) -> io::Result<()> {
        let is_open = match rustix::fs::access(&self.path, Access::READ_OK) {
            Ok(()) => true,
            Err(Errno::ACCESS | Errno::PERM) => false,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let inode = if self.inodes_last { stat.st_ino } else { 0 };
        let (seconds, nanos) = stamp_of(stat).modified;
        let numbers =
            [stat.st_size as u64, inode, seconds as u64, nanos.into(), u64::from(is_open)];
        let mut bytes = [0; 40];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.add(&bytes);
        self.files += 1;
        self.has_empty |= stat.st_size == 0;
        Ok(())
    }

    /// Adds something that is at `path` to the stamp, which is the same in whatever order.
    fn add(&mut self, what: &[u8]) {
        let below = &self.path.as_os_str().as_encoded_bytes()[self.entry_bytes..];
        let mut hasher = PieceHasher::default();
        hasher.update(what);
        hasher.update(below);
        let hash = hasher.finish();
        let part = u64::from_le_bytes(*hash.first_chunk().expect("a hash is longer"));
        self.identity.stamp = self.identity.stamp.wrapping_add(part);
    }
}

fn trouble(error: io::Error) -> Sight {
    if is_gone(&error) { Sight::Nothing } else { Sight::Trouble }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Folders in each other, the entry included, as in a torrent (`PATH_NAMES_MAX`); each holds a
/// descriptor while it is read. What lies deeper is not looked at.
const DEPTH_MAX: usize = crate::engine::limits::PATH_NAMES_MAX;
