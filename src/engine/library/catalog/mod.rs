//! The library on a disk: any number of torrents in memory that does not grow with them.
//!
//! ```text
//! record --> journal: one write, one sync --> overlay ..... checkpoint .....> slots, look-up
//! get    --> overlay, else look-up --> slot
//! ```
//!
//! [`Slots`](super::slots) hold every torrent as it was at the last checkpoint, the journal what was
//! recorded since, and the overlay the torrents these records concern. A checkpoint brings them
//! into the slots by way of a [`staging`](super::staging), and begins the journal anew. The
//! [`look-up`](super::lookup) is a cache of the slots.
//!
//! - A torrent is as the last record says from the moment [`Catalog::record`] returns, whatever
//!   then happens. Cut short, it is so or as before.
//! - Slots say which log of the journal is the first that they do not hold: a log is applied as a
//!   whole or, being in the slots already, not at all.
//! - While a journal has more changes than the overlay has places (one that was begun without slots,
//!   or with a larger overlay) they go into the slots as it is replayed, and it stays as it is: it can
//!   be replayed on top of what they have become.
//! - After an error everything known stays known. A record that failed may be found after a power
//!   cut, until the next one that succeeds: then it is not.
//! - A slot that is damaged costs its torrent and no other. It is met when somebody looks for it or
//!   walks past, and freed by [`Catalog::mend`].
//!
//! One thread asks for one thing at a time. Records come from `service::state`; whoever shakes hands
//! for a torrent is looked up with [`Catalog::get`], announces and lists walk with [`Catalog::next`].

mod checkpoint;
mod core;
mod overlay;

pub use overlay::Change;

use ::core::error::Error;
use ::core::fmt;
use checkpoint::Start;
use core::{Changing, Core};

use super::lookup::LookupError;
use super::shelf::{Shelf, ShelfError, Shelves, Which};
use super::slots::{PAGE_BYTES, SLOT_BYTES};
use super::{Entry, RECORD_BYTES_MAX, Record};
use crate::engine::journal::{Durable, Journal, JournalError, Replay};
use crate::engine::units::InfoHash;

/// The memory of a catalogue.
pub struct Lent<'m> {
    /// The journal's: bounds a commit, 512 bytes at least where that is its flash's write unit.
    pub journal: &'m mut [u8],
    /// A place for each torrent that may change between two checkpoints; one at least.
    pub overlay: &'m mut [Option<Change>],
    /// For pages of slots; one ([`PAGE_BYTES`]) at least. More makes readings of all slots faster.
    pub pages: &'m mut [u8],
}

/// A slot that is damaged: what it held is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged<'a> {
    /// Its number.
    pub slot: u32,
    /// What stands in it, to be kept for whoever wants to look at it.
    pub bytes: &'a [u8; SLOT_BYTES],
}

/// What opening has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// What the journal had to say.
    pub replay: Replay,
    /// Records of the journal that no version of this program writes: passed over.
    pub strange_records: u32,
    /// The journal was one whose records are all in the slots; it has been begun anew.
    pub is_log_spent: bool,
    /// Pages of a checkpoint that was cut short and has been finished.
    pub landed_pages: u32,
    /// The look-up was missing, of another size or not of these slots, and has been filled again.
    pub is_refilled: bool,
    /// The slots' header was damaged, and has been made anew from them.
    pub is_header_lost: bool,
    /// Slots that were damaged. Each has been shown, and is free now.
    pub damaged_slots: u32,
}

/// The library, on the journal's flash and three shelves.
pub struct Catalog<'m, F: Durable, S: Shelf> {
    journal: Journal<'m, F>,
    core: Core<'m, S>,
    /// The number of the journal's log. One below that of the slots is theirs already.
    log: u64,
    /// The one it was opened with.
    first_log: u64,
    torrents_max: u32,
    /// A commit failed: what it held may be on the flash.
    is_doubtful: bool,
}

impl<'m, F: Durable, S: Shelf> Catalog<'m, F, S> {
    /// Opens the library, or makes an empty one where there is nothing; shows what is damaged to
    /// `visit`.
    ///
    /// One that holds more than `torrents_max` torrents is opened and takes no others.
    ///
    /// # Work
    /// Reads the journal and three headers. After a power cut in a checkpoint reads all slots once,
    /// to fill the look-up again.
    ///
    /// # Panics
    /// When `lent` is less than it says.
    pub fn open(
        flash: F,
        shelves: Shelves<S>,
        lent: Lent<'m>,
        torrents_max: u32,
        visit: &mut impl FnMut(Damaged<'_>),
    ) -> Result<(Catalog<'m, F, S>, Opened), Failure<F, S>> {
        assert!(!lent.overlay.is_empty(), "an overlay has places");
        assert!(lent.pages.len() >= PAGE_BYTES, "a page of slots has room");
        let mut core = Core::new(shelves, lent.overlay, lent.pages, torrents_max);
        let start = core.start(visit)?;
        let mut replaying = Replaying { core: &mut core, log: 0, strange: 0, failed: None };
        let (journal, replay) =
            Journal::open(flash, lent.journal, &mut |record| replaying.take(record))?;
        let Replaying { log, strange: strange_records, failed, .. } = replaying;
        failed.map_or(Ok(()), Err)?;
        let is_log_spent = log < core.header.log;
        let mut catalog =
            Catalog { journal, core, log, first_log: log, torrents_max, is_doubtful: false };
        if is_log_spent {
            catalog.begin_log()?;
        }
        let Start { landed_pages, is_header_lost, is_refilled, damaged_slots } = start;
        let opened = Opened {
            replay,
            strange_records,
            is_log_spent,
            landed_pages,
            is_refilled,
            is_header_lost,
            damaged_slots,
        };
        Ok((catalog, opened))
    }

    /// How many torrents there are.
    pub fn count(&self) -> u32 {
        self.core.count()
    }

    /// Whether a newcomer would be refused.
    pub fn is_full(&self) -> bool {
        self.count() >= self.torrents_max
    }

    /// The torrent of that name.
    ///
    /// # Work
    /// Nothing when it has just changed, else two reads; the look-up is filled again when it turns
    /// out to be damaged.
    pub fn get(&mut self, info_hash: &InfoHash) -> Result<Option<Entry>, Failure<F, S>> {
        Ok(self.core.get(info_hash)?)
    }

    /// Visits the torrents whose content lies there, in no order.
    pub fn under(
        &mut self,
        root_key: u64,
        visit: &mut impl FnMut(&Entry),
    ) -> Result<(), Failure<F, S>> {
        Ok(self.core.under(root_key, visit)?)
    }

    /// The torrent in the first slot after `after` that holds one: from `None` on a walk past all
    /// of them, in constant memory. One that comes meanwhile may be passed by; none is met twice,
    /// but for one that was forgotten and has come again.
    ///
    /// # Work
    /// One read for as many slots as the lent pages hold.
    pub fn next(&mut self, after: Option<u32>) -> Result<Option<(u32, Entry)>, Failure<F, S>> {
        Ok(self.core.next(after)?)
    }

    /// Records something: when this returns it will be known after any power cut. What says nothing
    /// new, or is about a torrent that nobody knows, costs nothing.
    ///
    /// # Work
    /// One write and one sync of the journal. When it or the overlay is full, a
    /// [`checkpoint`](Catalog::checkpoint) before.
    ///
    /// # When full
    /// A newcomer is refused; everything known stays.
    pub fn record(&mut self, record: Record) -> Result<(), Failure<F, S>> {
        self.record_all(&[record])
    }

    /// Records many things, in their order. After an error, or cut short, some of the first are
    /// recorded and the others are not.
    ///
    /// # Work
    /// One write and one sync for as many as a commit holds, [`COMMIT_CHANGES_MAX`] at most.
    pub fn record_all(&mut self, records: &[Record]) -> Result<(), Failure<F, S>> {
        let mut rest = records;
        while !rest.is_empty() {
            let recorded = self.record_some(rest)?;
            rest = &rest[recorded..];
        }
        Ok(())
    }

    /// Whether a [`checkpoint`](Catalog::checkpoint) at a quiet moment would spare one at a busy one.
    pub fn checkpoint_due(&self) -> bool {
        let overlay = &self.core.overlay;
        overlay.room() <= overlay.len() / 3 || self.journal.needs_compaction()
    }

    /// Brings what has changed into the slots, and begins the journal anew.
    ///
    /// # Work
    /// Writes each page of slots that something in has changed twice, up to four pages of the
    /// look-up for each torrent, and erases half of the journal: five syncs.
    pub fn checkpoint(&mut self) -> Result<(), Failure<F, S>> {
        self.settle()?;
        let is_due = self.core.overlay.len() > 0 || self.journal.needs_compaction();
        if is_due || self.is_doubtful || self.core.is_doubtful {
            self.checkpoint_now()?;
        }
        Ok(())
    }

    /// Whether a damaged slot was met: [`mend`](Catalog::mend) shows and frees it.
    pub fn is_damaged(&self) -> bool {
        self.core.is_damaged
    }

    /// Shows all damaged slots to `visit`, frees them, and says how many there were.
    ///
    /// # Work
    /// A [`checkpoint`](Catalog::checkpoint); reads all slots, and writes those pages anew in which
    /// something was damaged or free.
    pub fn mend(&mut self, visit: &mut impl FnMut(Damaged<'_>)) -> Result<u32, Failure<F, S>> {
        self.checkpoint()?;
        Ok(self.core.mend(visit)?)
    }

    /// Checkpoints made since it was opened.
    pub fn checkpoints(&self) -> u64 {
        self.log - self.first_log
    }

    /// What the journal has been put through, and how full it is.
    pub fn journal(&self) -> &Journal<'m, F> {
        &self.journal
    }

    /// Records as many of the first as go into a commit, and says how many.
    fn record_some(&mut self, records: &[Record]) -> Result<usize, Failure<F, S>> {
        self.settle()?;
        let is_doubtful = self.is_doubtful || self.core.is_doubtful;
        if is_doubtful || self.journal.needs_compaction() || self.core.overlay.room() == 0 {
            self.checkpoint_now()?;
        }
        let mut changes = heapless::Vec::new();
        let left = (self.core.unused, self.core.free);
        let gathered = self.gather(records, &mut changes);
        // What they take is taken when they are made.
        (self.core.unused, self.core.free) = left;
        let recorded = gathered.inspect_err(|_| self.journal.discard())?;
        self.is_doubtful = true;
        self.journal.commit()?;
        self.is_doubtful = false;
        changes.iter().for_each(|changing| self.core.make(changing));
        Ok(recorded)
    }

    /// Puts as many of the first records as fit into the journal's batch, and says how many.
    fn gather(
        &mut self,
        records: &[Record],
        changes: &mut heapless::Vec<Changing, COMMIT_CHANGES_MAX>,
    ) -> Result<usize, Failure<F, S>> {
        for (at, record) in records.iter().enumerate() {
            let is_full = changes.is_full() || changes.len() >= self.core.overlay.room();
            // Of one torrent the next change builds on what the last one has made of it.
            let is_again = changes.iter().any(|known| known.info_hash() == record.info_hash());
            if is_full || is_again {
                return Ok(at);
            }
            let Some(changing) = self.core.change(record)? else { continue };
            let newcomers = changes.iter().filter(|known| known.is_newcomer).count() as u32;
            let has_place = self.count() + newcomers < self.torrents_max;
            let mut room = [0; RECORD_BYTES_MAX];
            if changing.is_newcomer && !has_place {
                let full = CatalogError::Full { torrents_max: self.torrents_max };
                return if changes.is_empty() { Err(full) } else { Ok(at) };
            }
            if self.journal.push(record.write(&mut room)).is_err() {
                let full = JournalError::Full.into();
                return if changes.is_empty() { Err(full) } else { Ok(at) };
            }
            self.core.take_slot(&changing);
            changes.push(changing).expect("it was not full");
        }
        Ok(records.len())
    }

    /// Finishes a checkpoint that failed half-way.
    fn settle(&mut self) -> Result<(), Failure<F, S>> {
        self.core.settle()?;
        if self.log < self.core.header.log { self.begin_log() } else { Ok(()) }
    }

    fn checkpoint_now(&mut self) -> Result<(), Failure<F, S>> {
        self.core.checkpoint(self.log.saturating_add(1))?;
        self.begin_log()
    }

    /// Begins the journal anew: all that it holds is in the slots.
    fn begin_log(&mut self) -> Result<(), Failure<F, S>> {
        let log = self.core.header.log;
        let mut compaction = self.journal.begin_compaction()?;
        compaction.push(Record::Continues { log }.write(&mut [0; RECORD_BYTES_MAX]))?;
        compaction.finish()?;
        (self.log, self.is_doubtful) = (log, false);
        Ok(self.core.staging.dismiss()?)
    }
}

/// A journal that is being replayed.
struct Replaying<'r, 'm, S: Shelf> {
    core: &'r mut Core<'m, S>,
    /// Which log it is.
    log: u64,
    strange: u32,
    failed: Option<ShelfError<S::Error>>,
}

impl<S: Shelf> Replaying<'_, '_, S> {
    fn take(&mut self, record: &[u8]) {
        match Record::parse(record) {
            None => self.strange += 1,
            Some(Record::Continues { log }) => self.log = log,
            Some(_) if self.log < self.core.header.log || self.failed.is_some() => {}
            Some(record) => self.failed = self.apply(&record).err(),
        }
    }

    fn apply(&mut self, record: &Record) -> Result<(), ShelfError<S::Error>> {
        if self.core.overlay.room() == 0 {
            // The journal goes on holding all of it, so the slots do not hold its log yet.
            self.core.checkpoint(self.core.header.log)?;
            self.core.staging.dismiss()?;
        }
        if let Some(changing) = self.core.change(record)? {
            self.core.make(&changing);
        }
        Ok(())
    }
}

/// What stands between the catalogue and its next record, of a flash and a shelf.
pub type Failure<F, S> =
    CatalogError<<F as embedded_storage::nor_flash::ErrorType>::Error, <S as Shelf>::Error>;

/// What stands between the catalogue and its next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogError<F, S> {
    /// It is the journal.
    Journal(JournalError<F>),
    /// It is a shelf.
    Shelf(ShelfError<S>),
    /// There are as many torrents as there may be.
    Full {
        /// How many that is (`torrents_max`).
        torrents_max: u32,
    },
}

impl<F, S> From<JournalError<F>> for CatalogError<F, S> {
    fn from(error: JournalError<F>) -> CatalogError<F, S> {
        CatalogError::Journal(error)
    }
}

impl<F, S> From<ShelfError<S>> for CatalogError<F, S> {
    fn from(error: ShelfError<S>) -> CatalogError<F, S> {
        CatalogError::Shelf(error)
    }
}

impl<F: fmt::Display, S: fmt::Display> fmt::Display for CatalogError<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogError::Journal(error) => error.fmt(f),
            CatalogError::Shelf(error) => error.fmt(f),
            CatalogError::Full { torrents_max } => {
                write!(f, "the library holds {torrents_max} torrents and is full")
            }
        }
    }
}

impl<F: fmt::Debug + fmt::Display, S: fmt::Debug + fmt::Display> Error for CatalogError<F, S> {}

/// Torrents that one commit of the journal may be about.
pub const COMMIT_CHANGES_MAX: usize = 32;

/// A look-up that was just filled is doubted: filling it again will not help.
fn hopeless<E>(error: LookupError<E>) -> ShelfError<E> {
    match error {
        LookupError::Doubted => ShelfError::Unreliable { shelf: Which::Lookup },
        LookupError::Shelf(error) => error,
    }
}

#[cfg(test)]
mod tests;
