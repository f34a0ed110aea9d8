//! A journal of records on NOR flash, or on anything that behaves like it, that a power cut at any
//! instant leaves as it was before the last commit or as it is after it.
//!
//! ```text
//! flash   | first half                           | second half                          |
//! a half  | header | commit | commit | (torn) | commit | erased ...                     |
//! commit  | head: sequence, number, length, CRCs | record | record | ... | padding       |
//! ```
//!
//! One half is the journal: the one whose header is whole and has the higher sequence. Commits are
//! appended to it. When it is full, [`Journal::begin_compaction`] writes what is still true into
//! the other half and that half's header last, and from then on the other half is the journal.
//!
//! - The unit of everything is the *commit*: records are [pushed](Journal::push) into a batch and
//!   [`Journal::commit`] writes the batch and syncs. Once it returns `Ok` the batch is durable; cut
//!   short, all of its records are replayed or none.
//! - A commit fills whole write units, so no later write can harm one that was acknowledged.
//! - A word is written once between two erases, and never after an interrupted erase.
//! - Bytes on the flash are never trusted: garbage is stepped over and counted. A flash that holds
//!   something other than a journal, or the journal of a newer release, is refused untouched.
//! - A commit that failed may be on the flash all the same. Its batch stays, to be committed again;
//!   replay counts it once, whichever tries got through.
//! - No memory of its own beyond the lent buffer, which bounds a commit. A half may be as large as
//!   the flash: replay streams.
//!
//! What the records mean, and which are still true, is the caller's to know; so is what happens
//! when a half has no room even after compaction. `half` holds the rules by which the end of a log
//! is found, `frame` the bytes.
//!
//! Records come from the library's admissions and from verified pieces (journeys 1 and 3) and go to
//! a file through `service::flash_file` or to a chip; at power-up (journey 5) they come back
//! through the visitor of [`Journal::open`].

mod frame;
mod half;

use core::error::Error;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;

use frame::{Batch, Header};
use half::{Half, Inspection, Log, Medium};

/// A flash that can say when what was written to it will outlive the power.
pub trait Durable: NorFlash {
    /// Returns when everything written and erased before is durable: at once on a chip, after
    /// `fdatasync` on a file.
    ///
    /// After an error what was written since the last success may be durable or not, and reading it
    /// back proves nothing: the journal never trusts a later success to have covered it.
    fn sync(&mut self) -> Result<(), Self::Error>;
}

impl<F: Durable> Durable for &mut F {
    fn sync(&mut self) -> Result<(), Self::Error> {
        F::sync(self)
    }
}

/// The journal on one flash, with the buffer it was lent.
pub struct Journal<'m, F: Durable> {
    medium: Medium<F>,
    batch: Batch<'m>,
    log: Log,
    /// What the buffer allows; the half in use may have been begun with a smaller one.
    commit_bytes_max: u32,
    /// A commit of the batch failed, so what is in it may be on the flash: nothing may be added.
    sealed: bool,
    /// The other half may have, or may turn out to have, a header that is after ours.
    rival: bool,
}

impl<'m, F: Durable> Journal<'m, F> {
    /// Opens the journal on `flash` and hands every record to `visit`, oldest first.
    ///
    /// An erased flash is formatted; so is one on which a power cut interrupted just that. The
    /// length of `buffer` bounds a commit and must not be less than it was when the half in use was
    /// begun. Records stay valid only for the call of `visit`.
    ///
    /// A journal of version 1 is replayed like one of version 2.
    pub fn open(
        flash: F,
        buffer: &'m mut [u8],
        visit: &mut impl FnMut(&[u8]),
    ) -> Result<(Journal<'m, F>, Replay), JournalError<F::Error>> {
        let mut medium = Medium::new(flash)?;
        let commit_bytes_max = medium.commit_bytes_max(buffer.len());
        if commit_bytes_max == 0 {
            return Err(JournalError::BufferTooSmall { needed: Medium::<F>::UNIT });
        }
        // A program that was killed may have left a commit in the system's cache. It is about to be
        // replayed, and what was replayed once must not be lost to a later power cut.
        medium.sync()?;
        let first = medium.inspect(Half::First, buffer)?;
        let second = medium.inspect(Half::Second, buffer)?;
        let (half, header, loser) = match (first, second) {
            (Inspection::Header(a), Inspection::Header(b)) if b.is_after(&a) => {
                (Half::Second, b, first)
            }
            (Inspection::Header(a), _) => (Half::First, a, second),
            (_, Inspection::Header(b)) => (Half::Second, b, first),
            _ => return Journal::format(medium, buffer),
        };
        check(&header, &medium, buffer.len())?;
        let mut log = Log::new(half, header, Medium::<F>::UNIT);
        let replay = log.replay(&mut medium, buffer, visit)?;
        // A cell caught while it was written may read one way today and another tomorrow.
        let rival = loser == Inspection::Garbage;
        let batch = Batch::new(buffer);
        let journal = Journal { medium, batch, log, commit_bytes_max, sealed: false, rival };
        Ok((journal, replay))
    }

    /// Adds a record to the batch.
    ///
    /// # When full
    /// The batch stays as it was: commit it, or [discard](Journal::discard) what must not be torn
    /// apart. A record longer than [`record_bytes_max`](Journal::record_bytes_max) fits no batch.
    /// Nothing fits a batch whose commit failed, until it is committed.
    pub fn push(&mut self, record: &[u8]) -> Result<(), Full> {
        if self.sealed {
            return Err(Full);
        }
        self.batch.push(record, self.log.header.commit_bytes_max)
    }

    /// Drops what was pushed since the last commit, unless a commit of it failed.
    ///
    /// Such a batch may already be on the flash, where only another try, or a compaction, settles
    /// what became of it.
    pub fn discard(&mut self) {
        if !self.sealed {
            self.batch.clear();
        }
    }

    /// Makes the batch durable, all of it or nothing. An empty batch costs nothing.
    ///
    /// After an error other than [`JournalError::Full`] the batch may be on the flash or not, and
    /// stays: commit again, or compact.
    ///
    /// # When full
    /// Nothing is written and the batch stays. A journal that does not
    /// [need compaction](Journal::needs_compaction) takes any batch.
    pub fn commit(&mut self) -> Result<(), JournalError<F::Error>> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.batch.extent(Medium::<F>::UNIT) > self.log.room() {
            return Err(JournalError::Full);
        }
        self.silence_rival()?;
        self.sealed = true;
        self.log.append(&mut self.medium, &mut self.batch)?;
        self.medium.sync()?;
        self.log.acknowledge();
        self.sealed = false;
        self.batch.clear();
        Ok(())
    }

    /// Starts a new journal in the other half. It takes the place of this one when it is
    /// [finished](Compaction::finish); until then, and if it is dropped before, nothing changes.
    ///
    /// What was pushed and not committed is dropped. If a commit of it had failed, this journal
    /// takes no more commits, and only a finished compaction helps.
    ///
    /// # Work
    /// Erases the other half, however large: the one slow step a journal has.
    pub fn begin_compaction(&mut self) -> Result<Compaction<'_, 'm, F>, JournalError<F::Error>> {
        self.batch.clear();
        if core::mem::take(&mut self.sealed) {
            self.log.close();
        }
        // First, and durably: a rival's header must not reappear above half-erased commits.
        self.silence_rival()?;
        let half = self.log.half.other();
        let start = half.start(self.medium.half_bytes);
        self.medium.erase(start, start + self.medium.half_bytes)?;
        let sequence = self.log.header.sequence.wrapping_add(1);
        let header = self.medium.header(self.commit_bytes_max, sequence);
        let log = Log::new(half, header, Medium::<F>::UNIT);
        Ok(Compaction { journal: self, log })
    }

    /// Whether the half in use may have no room for the next batch, or is of an older release. Still
    /// true right after a compaction, what is true no longer fits: refuse what would make it more.
    pub fn needs_compaction(&self) -> bool {
        let outgrown = self.commit_bytes_max > self.log.header.commit_bytes_max;
        // An older release would step over records it does not know as if they were none.
        let outdated = self.log.header.version < FORMAT_VERSION;
        outgrown || outdated || self.log.room() < self.commit_bytes_max
    }

    /// How often the journal has moved to its other half; with [`free_bytes`](Self::free_bytes) it
    /// says which commit was the last.
    pub fn sequence(&self) -> u32 {
        self.log.header.sequence
    }

    /// Bytes of the half that no commit has taken yet. Commits take whole write units.
    pub fn free_bytes(&self) -> u32 {
        self.log.free_bytes()
    }

    /// Bytes of a half. What is true should stay well below, or every few commits cost an erase.
    pub fn half_bytes(&self) -> u32 {
        self.medium.half_bytes
    }

    /// The longest record that fits a batch.
    pub fn record_bytes_max(&self) -> u32 {
        let payload_bytes_max = self.log.header.commit_bytes_max - frame::HEAD_BYTES as u32;
        payload_bytes_max.saturating_sub(frame::RECORD_LENGTH_BYTES_MAX)
    }

    /// What the flash has been put through since the journal was opened.
    pub fn wear(&self) -> Wear {
        self.medium.wear
    }

    /// Makes a first half of a flash that is erased, or that was when this was last tried.
    fn format(
        mut medium: Medium<F>,
        buffer: &'m mut [u8],
    ) -> Result<(Journal<'m, F>, Replay), JournalError<F::Error>> {
        // A cut while a first header is written or its sector erased leaves the rest as it was.
        let sector = F::ERASE_SIZE as u32;
        if !medium.is_blank(sector, 2 * medium.half_bytes, buffer)? {
            return Err(JournalError::NotAJournal);
        }
        if !medium.is_blank(0, sector, buffer)? {
            medium.erase(0, sector)?;
        }
        let commit_bytes_max = medium.commit_bytes_max(buffer.len());
        let header = medium.header(commit_bytes_max, 1);
        let log = Log::new(Half::First, header, Medium::<F>::UNIT);
        log.write_header(&mut medium, buffer)?;
        medium.sync()?;
        let batch = Batch::new(buffer);
        let journal = Journal { medium, batch, log, commit_bytes_max, sealed: false, rival: false };
        Ok((journal, Replay { fresh: true, ..Replay::default() }))
    }

    /// Erases a header in the other half that might one day count instead of ours.
    fn silence_rival(&mut self) -> Result<(), JournalError<F::Error>> {
        if self.rival {
            let start = self.log.half.other().start(self.medium.half_bytes);
            self.medium.erase(start, start + F::ERASE_SIZE as u32)?;
            self.medium.sync()?;
            self.rival = false;
        }
        Ok(())
    }
}

/// A journal being written into the other half, with the records that are still true.
pub struct Compaction<'j, 'm, F: Durable> {
    journal: &'j mut Journal<'m, F>,
    log: Log,
}

impl<F: Durable> Compaction<'_, '_, F> {
    /// Adds a record, writing out a commit when the buffer is full.
    ///
    /// # When full
    /// [`JournalError::Full`]: what is true does not fit a half, or a record no commit. Drop the
    /// compaction; the journal is as it was before.
    pub fn push(&mut self, record: &[u8]) -> Result<(), JournalError<F::Error>> {
        let commit_bytes_max = self.log.header.commit_bytes_max;
        if self.journal.batch.push(record, commit_bytes_max).is_ok() {
            return Ok(());
        }
        self.flush()?;
        self.journal.batch.push(record, commit_bytes_max).map_err(|Full| JournalError::Full)
    }

    /// Makes the other half the journal. After an error the old one still is.
    pub fn finish(mut self) -> Result<(), JournalError<F::Error>> {
        self.flush()?;
        let journal = &mut *self.journal;
        // The header vouches for what is behind it, so that has to be durable before.
        journal.medium.sync()?;
        journal.rival = true;
        self.log.write_header(&mut journal.medium, journal.batch.scratch())?;
        journal.medium.sync()?;
        journal.rival = false;
        journal.log = self.log;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError<F::Error>> {
        let Journal { medium, batch, .. } = &mut *self.journal;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.extent(Medium::<F>::UNIT) > self.log.room() {
            return Err(JournalError::Full);
        }
        self.log.append(medium, batch)?;
        // Nothing depends on it being durable before `finish` has synced.
        self.log.acknowledge();
        batch.clear();
        Ok(())
    }
}

impl<F: Durable> Drop for Compaction<'_, '_, F> {
    /// What an unfinished compaction gathered must not become part of the next commit.
    fn drop(&mut self) {
        self.journal.batch.clear();
    }
}

/// What [`Journal::open`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The flash was erased and has just been formatted.
    pub fresh: bool,
    /// Commits replayed.
    pub commits: u32,
    /// Records visited.
    pub records: u32,
    /// Commits that are missing before others that are there. A power cut takes the last commit
    /// only, and only while it is not acknowledged: these were lost to decay.
    pub lost_commits: u32,
    /// Bytes stepped over between commits and behind the last: torn, decayed or never complete.
    pub garbage_bytes: u32,
}

/// What a flash has been put through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Bytes written, heads and padding included, whether the write succeeded or not.
    pub written_bytes: u64,
    /// Bytes erased.
    pub erased_bytes: u64,
}

/// The batch takes no such record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What stands between a journal and its next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError<E> {
    /// The flash failed: retry, then report.
    Flash {
        /// What was being done.
        operation: Operation,
        /// The first byte concerned.
        offset: u32,
        /// What the flash says.
        cause: E,
    },
    /// The half has no room: compact; if that is what failed, refuse what would make it more.
    Full,
    /// The flash holds something else. It was left as it is.
    NotAJournal,
    /// The journal of a newer release. It was left as it is.
    NewerVersion {
        /// Its version, above [`FORMAT_VERSION`].
        found: u32,
    },
    /// The journal of an older release, to be migrated. It was left as it is.
    OlderVersion {
        /// Its version, below [`FORMAT_VERSION_OLDEST`].
        found: u32,
    },
    /// A journal made for a flash of another shape. It was left as it is.
    OtherShape {
        /// The write unit it was made for.
        write_bytes: u32,
        /// The size of its halves.
        half_bytes: u32,
    },
    /// The flash is too small for two halves.
    FlashTooSmall {
        /// Bytes that would do.
        needed: u32,
    },
    /// The buffer is shorter than a commit may be.
    BufferTooSmall {
        /// Bytes that would do.
        needed: u32,
    },
}

impl<E> JournalError<E> {
    /// A closure that gives a cause its place.
    fn at(operation: Operation, offset: u32) -> impl FnOnce(E) -> JournalError<E> {
        move |cause| JournalError::Flash { operation, offset, cause }
    }
}

impl<E: fmt::Display> fmt::Display for JournalError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Flash { operation: Operation::Sync, cause, .. } => {
                write!(f, "cannot sync the journal: {cause}")
            }
            JournalError::Flash { operation, offset, cause } => {
                write!(f, "cannot {operation} the journal at byte {offset}: {cause}")
            }
            JournalError::Full => f.write_str("the journal is full"),
            JournalError::NotAJournal => f.write_str("this is not a journal, and not erased"),
            JournalError::NewerVersion { found } => {
                write!(f, "the journal is of version {found}, this program reads {FORMAT_VERSION}")
            }
            JournalError::OlderVersion { found } => {
                write!(f, "the journal is of version {found} and needs to be migrated")
            }
            JournalError::OtherShape { write_bytes, half_bytes } => write!(
                f,
                "the journal has halves of {half_bytes} bytes in units of {write_bytes}, \
                 this flash has others"
            ),
            JournalError::FlashTooSmall { needed } => {
                write!(f, "a journal takes at least {needed} bytes")
            }
            JournalError::BufferTooSmall { needed } => {
                write!(f, "the journal holds commits of {needed} bytes, its buffer less")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for JournalError<E> {}

/// What can fail on a flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Read,
    Write,
    Erase,
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Erase => "erase",
            Operation::Sync => "sync",
        })
    }
}

/// Whether this release, on this flash and with such a buffer, can go on from `header`.
fn check<F: Durable>(
    header: &Header,
    medium: &Medium<F>,
    buffer_bytes: usize,
) -> Result<(), JournalError<F::Error>> {
    let Header { version, write_bytes, half_bytes, commit_bytes_max, .. } = *header;
    if version > FORMAT_VERSION {
        return Err(JournalError::NewerVersion { found: version });
    }
    if version < FORMAT_VERSION_OLDEST {
        return Err(JournalError::OlderVersion { found: version });
    }
    if write_bytes != F::WRITE_SIZE as u32 || half_bytes != medium.half_bytes {
        return Err(JournalError::OtherShape { write_bytes, half_bytes });
    }
    // No release writes such a header, whatever its CRC says.
    let unit = Medium::<F>::UNIT;
    let longest = half_bytes - unit;
    if !(unit..=longest).contains(&commit_bytes_max) || !commit_bytes_max.is_multiple_of(unit) {
        return Err(JournalError::NotAJournal);
    }
    if commit_bytes_max as usize > buffer_bytes {
        return Err(JournalError::BufferTooSmall { needed: commit_bytes_max });
    }
    Ok(())
}

/// The version of header, frames and records together: whoever changes one of them raises it, and
/// says in [`Journal::open`] what becomes of the older ones.
///
/// - 1: the first.
/// - 2: the same bytes; records of the library may stand in for slots
///   ([`Record::Continues`](super::library::Record::Continues)), and there are more kinds of them.
pub const FORMAT_VERSION: u32 = 2;

/// A journal of this version or a later one is replayed, and [asks](Journal::needs_compaction) to be
/// compacted into one of today's before anything is added.
pub const FORMAT_VERSION_OLDEST: u32 = 1;
