//! The boot partition: a FAT, read-only but for moments, that firmware reads before any of us runs.
//!
//! All that `card`, [`slots`](super::slots) and [`update`](super::update) do to it is said in the few
//! operations of [`Files`], so that a test can cut the power between any two. FAT has no journal.
//! Three rules keep the box bootable whatever reaches the card, and in which order:
//!
//! - Nothing is renamed. A rename writes two entries; cut between them, two names share one chain of
//!   clusters, and who later removes one of them frees what the other needs.
//! - What is changed where it lies changes within its first sector, which a card writes whole.
//! - A file is believed once it was synced, forgotten by the page cache, and read back.

use rustix::fs::{Advice, Mode, OFlags, fadvise, fsync, open, statvfs};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

/// What is done to the boot partition. Paths are below it, `a/kernel`, with no dots in them.
pub trait Files: Send {
    /// Lets it be changed, or not any more. Each `true` is followed by one `false`.
    fn set_writable(&mut self, writable: bool) -> io::Result<()>;
    /// Names of a folder's files and their lengths; none when there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;
    /// Reads what there is from `at` on, as far as it fits; 0 at the end.
    fn read(&self, path: &str, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes into a file, which is made when it is not there.
    fn write(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Brings what was written of a file to the card; what is read next comes from there.
    fn sync(&mut self, path: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, path: &str) -> io::Result<()>;
    /// Makes a folder, unless it is there.
    fn make_folder(&mut self, folder: &str) -> io::Result<()>;
    /// Brings to the card which files a folder has.
    fn sync_folder(&mut self, folder: &str) -> io::Result<()>;
    /// How much more there is room for.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// The boot partition where it is mounted.
#[derive(Clone)]
pub struct Mounted {
    path: PathBuf,
    remount: fn(&Path, bool) -> io::Result<()>,
}

impl Mounted {
    /// Mounted read-only at `path`.
    pub fn read_only(path: &Path) -> Mounted {
        Mounted { path: path.to_path_buf(), remount }
    }

    /// A folder that may be written to as it is.
    pub fn writable(path: &Path) -> Mounted {
        Mounted { path: path.to_path_buf(), remount: |_, _| Ok(()) }
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(open(self.path.join(path), flags, Mode::from_raw_mode(0o644))?.into())
    }
}

impl Files for Mounted {
    fn set_writable(&mut self, writable: bool) -> io::Result<()> {
        (self.remount)(&self.path, writable)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(self.path.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            let entry = entry?;
            let meta = fs::symlink_metadata(entry.path())?;
            if let (Ok(name), true) = (entry.file_name().into_string(), meta.is_file()) {
                found.push((name, meta.len()));
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.open(path, OFlags::RDONLY)?.read_at(into, at)
    }

    fn write(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.open(path, OFlags::WRONLY | OFlags::CREATE)?.write_all_at(bytes, at)
    }

    fn sync(&mut self, path: &str) -> io::Result<()> {
        let file = self.open(path, OFlags::RDONLY)?;
        fsync(&file)?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(path))
    }

    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        match fs::create_dir(self.path.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        Ok(fsync(self.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// Mounts a boot partition anew so that it may be changed, or not any more. Of several who change
/// it at a time the last one locks it.
fn remount(path: &Path, writable: bool) -> io::Result<()> {
    static WRITERS: Mutex<usize> = Mutex::new(0);
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    if writable {
        if *writers == 0 {
            super::mounts::writable(path, true)?;
        }
        *writers += 1;
    } else {
        *writers = writers.saturating_sub(1);
        if *writers == 0 {
            super::mounts::writable(path, false)?;
        }
    }
    Ok(())
}

/// Does something while the boot partition may be changed.
pub(super) fn while_writable<T>(
    files: &mut dyn Files,
    what: impl FnOnce(&mut dyn Files) -> io::Result<T>,
) -> io::Result<T> {
    files.set_writable(true)?;
    let done = what(files);
    // What has been done holds, even should it stay open to changes.
    let locked = files.set_writable(false);
    let done = done?;
    locked.map(|()| done)
}

/// All of a small file, of no more than [`SMALL_BYTES_MAX`].
pub(super) fn read_small(files: &dyn Files, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = std::vec![0; SMALL_BYTES_MAX + 1];
    let mut filled = 0;
    loop {
        match files.read(path, filled as u64, &mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
        if filled > SMALL_BYTES_MAX {
            let words = std::format!("{path} is longer than {SMALL_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes into a small file, and sees that it lies there.
pub(super) fn write_small(
    files: &mut dyn Files,
    path: &str,
    at: u64,
    bytes: &[u8],
) -> io::Result<()> {
    files.write(path, at, bytes)?;
    files.sync(path)?;
    files.sync_folder(path.rsplit_once('/').map_or("", |(folder, _)| folder))?;
    let there = read_small(files, path)?;
    if there.get(at as usize..at as usize + bytes.len()) == Some(bytes) {
        return Ok(());
    }
    Err(io::Error::other(std::format!("{path} does not read back as it was written")))
}

/// Entries of a folder that are looked at; a slot has a few dozen.
const ENTRIES_MAX: usize = 512;

/// Small files, which are read whole: loader entries, `config.txt`, `cmdline.txt`.
pub(super) const SMALL_BYTES_MAX: usize = 16 * 1024;
