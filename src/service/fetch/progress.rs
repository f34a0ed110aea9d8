//! What is recorded of a fetch: a bitfield in a journal of its own, behind the data it speaks of.
//!
//! A batch of verified pieces is recorded by a lane: the files they lie in are synced, then the
//! chunks of the bitfield that have changed are committed to `progress` in the torrent's folder.
//! Only what stands there is claimed after a restart; what was verified since is fetched again.
//!
//! The journal is opened for each batch and closed again, so a fetch at rest holds two bitfields
//! and nothing else. Replaying a few KiB costs less than the sync before it.

use crate::engine::journal::{Journal, JournalError, Operation};
use crate::engine::library::ExtentMap;
use crate::engine::library::progress::{self, CHUNK_RECORD_BYTES_MAX, Chunk};
use crate::engine::units::{PieceIndex, Span, has_bit};
use crate::service::board::JOURNAL_BUFFER_BYTES;
use crate::service::content::{Content, FileSource, open_beneath};
use crate::service::flash_file::{FlashFile, FlashFileError};
use crate::service::{Refusal, state};
use std::boxed::Box;
use std::io;
use std::path::{Path, PathBuf};

/// The record of one fetch.
pub struct Progress {
    path: PathBuf,
    /// What is recorded.
    recorded: Box<[u8]>,
    /// What is verified: to be recorded next.
    pub verified: Box<[u8]>,
}

/// Why something could not be recorded.
#[derive(Debug)]
pub enum Unrecorded {
    /// Its content could not be synced.
    Content(io::Error),
    /// The state folder did not take it.
    State(io::Error),
}

impl Progress {
    /// Opens the record in a torrent's folder, or begins it with what is there already.
    pub fn open(folder: &Path, bitfield_bytes: u32) -> Result<Progress, Refusal> {
        let path = folder.join("progress");
        let mut recorded = std::vec![0; bitfield_bytes as usize].into_boxed_slice();
        let mut scratch = std::vec![0; JOURNAL_BUFFER_BYTES];
        let mut visit = |record: &[u8]| {
            Chunk::apply(record, &mut recorded);
        };
        open(&path, bitfield_bytes, &mut scratch, &mut visit)
            .map_err(|error| refused(&path, error))?;
        let verified = recorded.clone();
        Ok(Progress { path, recorded, verified })
    }

    /// The torrent's folder has been put in its place.
    pub fn move_to(&mut self, folder: &Path) {
        self.path = folder.join("progress");
    }

    /// Nothing is verified that is not recorded.
    pub fn is_recorded(&self) -> bool {
        self.verified == self.recorded
    }

    /// Syncs what has been verified and records it; how many bytes that took in the journal.
    /// What could not be recorded is tried again with the next batch.
    pub fn record(&mut self, content: &Content, scratch: &mut [u8]) -> Result<u64, Unrecorded> {
        sync(content, &self.verified, &self.recorded).map_err(Unrecorded::Content)?;
        let bitfield_bytes = self.recorded.len() as u32;
        let written = self.write(bitfield_bytes, scratch).map_err(|error| match error {
            JournalError::Flash { cause: FlashFileError::Io { cause, .. }, .. } => cause.into(),
            other => io::Error::other(std::format!("{}: {other}", self.path.display())),
        });
        let written = written.map_err(Unrecorded::State)?;
        self.recorded.copy_from_slice(&self.verified);
        Ok(written)
    }

    fn write(
        &self,
        bitfield_bytes: u32,
        scratch: &mut [u8],
    ) -> Result<u64, JournalError<FlashFileError>> {
        let buffer = &mut scratch[..JOURNAL_BUFFER_BYTES];
        let mut journal = open(&self.path, bitfield_bytes, buffer, &mut |_| {})?;
        let (mut room, before) = ([0; CHUNK_RECORD_BYTES_MAX], journal.free_bytes());
        for chunk in progress::changed(&self.verified, &self.recorded) {
            if journal.push(chunk.write(&mut room)).is_ok() {
                continue;
            }
            // The batch is full: this much of it is durable by itself, data was synced before.
            if journal.needs_compaction() {
                return self.compact(journal);
            }
            journal.commit()?;
            journal.push(chunk.write(&mut room)).map_err(|_| JournalError::Full)?;
        }
        if journal.needs_compaction() {
            return self.compact(journal);
        }
        journal.commit()?;
        Ok(u64::from(before - journal.free_bytes()))
    }

    fn compact(
        &self,
        mut journal: Journal<'_, FlashFile>,
    ) -> Result<u64, JournalError<FlashFileError>> {
        let mut room = [0; CHUNK_RECORD_BYTES_MAX];
        let mut compaction = journal.begin_compaction()?;
        for chunk in progress::set(&self.verified) {
            compaction.push(chunk.write(&mut room))?;
        }
        compaction.finish()?;
        Ok(u64::from(capacity(self.recorded.len() as u32) / 2))
    }
}

fn open<'b>(
    path: &Path,
    bitfield_bytes: u32,
    buffer: &'b mut [u8],
    visit: &mut impl FnMut(&[u8]),
) -> Result<Journal<'b, FlashFile>, JournalError<FlashFileError>> {
    let flash = FlashFile::open(path, capacity(bitfield_bytes))
        .map_err(|cause| JournalError::Flash { operation: Operation::Read, offset: 0, cause })?;
    Ok(Journal::open(flash, buffer, visit)?.0)
}

/// Bytes of the journal: each half holds the whole bitfield and some dozens of batches.
fn capacity(bitfield_bytes: u32) -> u32 {
    2 * (progress::records_bytes(bitfield_bytes) + BATCHES_BYTES).next_multiple_of(4096)
}

/// Syncs the files that hold what is verified and not recorded.
fn sync(content: &Content, verified: &[u8], recorded: &[u8]) -> io::Result<()> {
    let mut files = heapless::Vec::<u32, SYNCED_MAX>::new();
    for piece in 0..content.layout.piece_count() {
        if !has_bit(verified, piece) || has_bit(recorded, piece) {
            continue;
        }
        let piece = PieceIndex(piece);
        let mut at = content.layout.offset(piece);
        let span = Span { at, length: content.layout.piece_len(piece).into() };
        while at < span.end() {
            let mut source = FileSource(&content.extents);
            let mut extents = ExtentMap::new(&mut source, content.file_count);
            let Some((index, extent)) = extents.find(at)? else {
                return Err(io::Error::other("the extent map is cut short"));
            };
            at = extent.span.end();
            if extent.padding || files.contains(&index) {
                continue;
            }
            if files.push(index).is_err() {
                // So many small files cost less all at once.
                let folder = std::fs::File::open(&content.root)?;
                return Ok(rustix::fs::syncfs(&folder)?);
            }
        }
    }
    for index in files {
        let mut source = FileSource(&content.extents);
        let extent = ExtentMap::new(&mut source, content.file_count).read(index)?;
        let extent = extent.unwrap_or_default();
        let path = content.path_of(&extent)?;
        let file = open_beneath(&content.root, &path).map_err(|error| {
            let path = content.path_at(extent.span.at);
            io::Error::new(error.kind(), std::format!("{}: {error}", path.display()))
        })?;
        rustix::fs::fdatasync(file)?;
    }
    Ok(())
}

fn refused(path: &Path, error: JournalError<FlashFileError>) -> Refusal {
    match error {
        JournalError::Flash { cause: FlashFileError::Io { cause, .. }, .. } => {
            state::refused(path, cause.into())
        }
        other => Refusal::new(path.display(), other, "remove it: what it is about is hashed again"),
    }
}

/// Room for batches between two compactions; each takes a sector at least.
const BATCHES_BYTES: u32 = 32 * 1024;

/// Files that are synced one by one.
const SYNCED_MAX: usize = 8;
