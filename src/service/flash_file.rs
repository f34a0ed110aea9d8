//! A regular file that behaves like NOR flash, so that the journal of a box and that of a
//! microcontroller are the same code.
//!
//! The file has its full size from the start and keeps it: it is filled with erased bytes under
//! another name, synced, and only then given its own. A power cut leaves no half-made file, and a
//! disk that fills up later stops no commit, because every block is the file's already.
//!
//! The write unit is a sector of 512 bytes, the smallest a disk may tear. Nothing is promised about
//! the order in which sectors reach the disk before a sync, and the journal expects none. Erasing
//! writes 0xFF: erased means readable as such, on every file system, and a hole reads as zero.
//!
//! When `fdatasync` fails, Linux calls the pages clean although the disk does not have them. The
//! journal never takes a later success for theirs, and opening drops what is cached, so that a
//! replay reads what the disk has and not what it should have had.
//!
//! Commits come from `engine::journal`; this end of it is opened by the service at start and lives
//! on a lane, since every write and sync can sleep in the kernel.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use embedded_storage::nor_flash::{
    self, ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;

use crate::engine::journal::Durable;

/// A file as a flash of fixed size.
#[derive(Debug)]
pub struct FlashFile {
    file: File,
    /// Whole erase sectors; what a file has beyond them is left alone.
    capacity: u32,
}

impl FlashFile {
    /// Opens the file at `path`; makes one of `capacity` erased bytes if there is none.
    ///
    /// A file that exists keeps its size, whatever `capacity` says: the journal in it was laid out
    /// for that. An empty one counts as none.
    ///
    /// # When full
    /// If the disk has no room for all of the file, none of it is left behind.
    pub fn open(path: &Path, capacity: u32) -> Result<FlashFile, FlashFileError> {
        if !exists(path).map_err(failed(FileOperation::Open, 0))? {
            create(path, capacity)?;
        }
        Self::open_existing(path).map_err(failed(FileOperation::Open, 0))
    }

    fn open_existing(path: &Path) -> io::Result<FlashFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Errno::INVAL.into());
        }
        let capacity = whole_sectors(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
        // Only clean pages can be dropped, and only what is on the disk may be believed.
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(FlashFile { file, capacity })
    }
}

impl ErrorType for FlashFile {
    type Error = FlashFileError;
}

impl ReadNorFlash for FlashFile {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFileError> {
        nor_flash::check_read(self, offset, bytes.len())?;
        self.file
            .read_exact_at(bytes, u64::from(offset))
            .map_err(failed(FileOperation::Read, offset))
    }

    fn capacity(&self) -> usize {
        self.capacity as usize
    }
}

impl NorFlash for FlashFile {
    const WRITE_SIZE: usize = 512;
    const ERASE_SIZE: usize = SECTOR_BYTES as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFileError> {
        nor_flash::check_erase(self, from, to)?;
        write_erased(&self.file, from, to)
            .map_err(|(at, cause)| failed(FileOperation::Erase, at)(cause))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFileError> {
        nor_flash::check_write(self, offset, bytes.len())?;
        self.file
            .write_all_at(bytes, u64::from(offset))
            .map_err(failed(FileOperation::Write, offset))
    }
}

impl Durable for FlashFile {
    fn sync(&mut self) -> Result<(), FlashFileError> {
        // The size never changes, so the data is all there is to sync.
        self.file.sync_data().map_err(failed(FileOperation::Sync, 0))
    }
}

/// What went wrong with the file, where, and what the system says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashFileError {
    /// The system refused.
    Io {
        /// What was being done.
        operation: FileOperation,
        /// The first byte concerned.
        offset: u32,
        /// The system's reason.
        cause: Errno,
    },
    /// The caller asked for what no flash of this shape has.
    Misuse(NorFlashErrorKind),
}

impl NorFlashError for FlashFileError {
    fn kind(&self) -> NorFlashErrorKind {
        match *self {
            FlashFileError::Io { .. } => NorFlashErrorKind::Other,
            FlashFileError::Misuse(kind) => kind,
        }
    }
}

impl From<NorFlashErrorKind> for FlashFileError {
    fn from(kind: NorFlashErrorKind) -> FlashFileError {
        FlashFileError::Misuse(kind)
    }
}

impl fmt::Display for FlashFileError {
    /// The reason alone: whoever reports it names the file, and a
    /// [`JournalError`](crate::engine::journal::JournalError) has the operation and the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlashFileError::Io { cause, .. } => cause.fmt(f),
            FlashFileError::Misuse(kind) => kind.fmt(f),
        }
    }
}

impl std::error::Error for FlashFileError {}

/// What can fail on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileOperation {
    Create,
    Open,
    Read,
    Write,
    Erase,
    Sync,
}

/// Whether there is something at `path` to be opened. An empty file was never filled.
fn exists(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(!metadata.is_file() || metadata.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes an erased file of `capacity` bytes that is there for good, or none.
fn create(path: &Path, capacity: u32) -> Result<(), FlashFileError> {
    let mut unfinished = OsString::from(path);
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    let made = fill_and_rename(unfinished, path, whole_sectors(capacity));
    if made.is_err() {
        // It holds nothing and the next attempt begins by truncating it, so it may stay if it must.
        let _ = fs::remove_file(unfinished);
    }
    made.map_err(|(at, cause)| failed(FileOperation::Create, at)(cause))
}

fn fill_and_rename(unfinished: &Path, path: &Path, capacity: u32) -> Result<(), (u32, io::Error)> {
    let at_start = |error| (0, error);
    let mut options = OpenOptions::new();
    // What a box knows about its owner's shares is nobody else's business.
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(unfinished).map_err(at_start)?;
    write_erased(&file, 0, capacity)?;
    file.sync_all().map_err(at_start)?;
    fs::rename(unfinished, path).map_err(at_start)?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // The name is durable once its folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at_start)
}

/// Fills `from..to`, a number of sectors, with erased bytes; says which sector failed.
fn write_erased(file: &File, from: u32, to: u32) -> Result<(), (u32, io::Error)> {
    for at in (from..to).step_by(SECTOR_BYTES as usize) {
        file.write_all_at(&ERASED_SECTOR, u64::from(at)).map_err(|error| (at, error))?;
    }
    Ok(())
}

fn whole_sectors(bytes: u32) -> u32 {
    bytes / SECTOR_BYTES * SECTOR_BYTES
}

/// A closure that gives a cause its place. A file that ends too early counts as a failing disk.
fn failed(operation: FileOperation, offset: u32) -> impl FnOnce(io::Error) -> FlashFileError {
    move |error| {
        let cause = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        FlashFileError::Io { operation, offset, cause }
    }
}

/// A file system's block: what is erased at once.
const SECTOR_BYTES: u32 = 4096;

static ERASED_SECTOR: [u8; SECTOR_BYTES as usize] = [0xFF; SECTOR_BYTES as usize];
