//! What was sent, counted and kept over power cuts: the journal of a microcontroller.
//!
//! One record says how many bytes were sent, ever. It is written at a start, so that no two starts
//! leave the flash alike, and from then on after every [`RECORD_BYTES`] or [`RECORD_MS`], whichever
//! comes first; an idle box writes nothing.

use super::region::Region;
use crate::engine::journal::{Journal, JournalError};
use crate::engine::library::{Library, RECORD_BYTES_MAX, Record};
use crate::engine::units::{Deadline, InfoHash, Instant};
use embedded_storage::nor_flash::{NorFlash, NorFlashErrorKind};

/// A journal that cannot be read or written, and why.
pub type CounterError = JournalError<NorFlashErrorKind>;

/// The count and its journal.
pub struct Counter<'m, F: NorFlash> {
    journal: Journal<'m, Region<'m, F>>,
    info_hash: InfoHash,
    /// What a start before this one found: the checksum of the metainfo whose pieces were all good,
    /// 0 when some were not; nothing before the first check.
    found: Option<u32>,
    /// Bytes sent before this start.
    before: u64,
    /// Bytes sent in this run that have been recorded.
    recorded: u64,
    /// When what is not recorded yet will be.
    due: Instant,
    /// The last try to record failed: the next one waits until then, however much is sent.
    failed: bool,
}

impl<'m, F: NorFlash> Counter<'m, F> {
    /// Opens the journal in `region` and reads what it says of the share.
    #[inline(never)]
    pub fn open(
        region: Region<'m, F>,
        buffer: &'m mut [u8],
        info_hash: InfoHash,
    ) -> Result<Counter<'m, F>, CounterError> {
        let mut entries = [None];
        let mut library = Library::new(&mut entries);
        let (journal, _) = Journal::open(region, buffer, &mut |bytes| {
            // There is one share and a place for one: a record of another is of no use here.
            let _ = Record::parse(bytes).map(|record| library.apply(record));
        })?;
        let known = library.get(&info_hash).copied();
        let found = known.map(|entry| entry.facts_crc);
        let before = known.map_or(0, |entry| entry.sent_bytes);
        let (recorded, due) = (0, Instant::NEVER);
        let failed = false;
        let mut counter = Counter { journal, info_hash, found, before, recorded, due, failed };
        counter.record(0)?;
        Ok(counter)
    }

    /// Bytes sent before this start.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Bytes that are counted whatever happens now.
    pub fn recorded(&self) -> u64 {
        self.before.saturating_add(self.recorded)
    }

    /// Whether a start before this one found every piece of that metainfo good.
    pub fn was_whole(&self, metainfo_crc: u32) -> bool {
        self.found == Some(metainfo_crc)
    }

    /// Notes what a check has found: the metainfo's checksum when every piece was good, else 0.
    pub fn note_check(&mut self, found: u32) -> Result<(), CounterError> {
        if self.found == Some(found) {
            return Ok(());
        }
        self.found = Some(found);
        let admitted =
            Record::Admitted { info_hash: self.info_hash, root_key: 0, facts_crc: found };
        self.write(admitted)
    }

    /// Records what was sent in this run, once enough has been or enough time has passed.
    pub fn count(&mut self, sent_bytes: u64, now: Instant) -> Result<(), CounterError> {
        if sent_bytes == self.recorded {
            self.due = Instant::NEVER;
            return Ok(());
        }
        self.due = self.due.min(now.after(RECORD_MS));
        let enough = sent_bytes - self.recorded >= RECORD_BYTES && !self.failed;
        if now < self.due && !enough {
            return Ok(());
        }
        self.due = now.after(RECORD_MS);
        let recorded = self.record(sent_bytes);
        self.failed = recorded.is_err();
        recorded
    }

    /// Records what was sent in this run.
    pub fn record(&mut self, sent_bytes: u64) -> Result<(), CounterError> {
        let bytes = self.before.saturating_add(sent_bytes);
        self.write(Record::Sent { info_hash: self.info_hash, bytes })?;
        (self.recorded, self.due) = (sent_bytes, Instant::NEVER);
        Ok(())
    }

    /// When [`Counter::count`] has something to record.
    pub fn deadline(&self) -> Deadline {
        Deadline { at: self.due, why: "counting" }
    }

    /// Differs between any two starts: every one of them writes.
    pub fn chance(&self) -> [u32; 2] {
        [self.journal.sequence(), self.journal.free_bytes()]
    }

    #[inline(never)]
    fn write(&mut self, record: Record) -> Result<(), CounterError> {
        let mut room = [0; RECORD_BYTES_MAX];
        // A batch whose commit failed takes nothing more: only the other half helps.
        if !self.journal.needs_compaction() && self.journal.push(record.write(&mut room)).is_ok() {
            return self.journal.commit();
        }
        let (info_hash, found) = (self.info_hash, self.found);
        let bytes = match record {
            Record::Sent { bytes, .. } => bytes,
            _ => self.recorded(),
        };
        let mut compaction = self.journal.begin_compaction()?;
        if let Some(facts_crc) = found {
            let admitted = Record::Admitted { info_hash, root_key: 0, facts_crc };
            compaction.push(admitted.write(&mut room))?;
        }
        compaction.push(Record::Sent { info_hash, bytes }.write(&mut room))?;
        compaction.finish()
    }
}

/// What a power cut costs at most: so much, or what was sent in so long.
const RECORD_BYTES: u64 = 4 << 20;
const RECORD_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use embedded_storage::nor_flash::{ErrorType, ReadNorFlash};
    use std::vec::Vec;

    /// A chip that takes what it is given until it is worn out.
    struct Chip {
        cells: Vec<u8>,
        writes_left: u32,
    }

    impl ErrorType for Chip {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for Chip {
        const READ_SIZE: usize = 1;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            bytes.copy_from_slice(&self.cells[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.cells.len()
        }
    }

    impl NorFlash for Chip {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 1024;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
            self.cells[from as usize..to as usize].fill(0xff);
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
            self.writes_left = self.writes_left.checked_sub(1).ok_or(NorFlashErrorKind::Other)?;
            for (cell, byte) in self.cells[offset as usize..].iter_mut().zip(bytes) {
                *cell &= byte;
            }
            Ok(())
        }
    }

    fn chip() -> RefCell<Chip> {
        RefCell::new(Chip { cells: std::vec![0xff; 8 * 1024], writes_left: u32::MAX })
    }

    fn open<'m>(
        chip: &'m RefCell<Chip>,
        buffer: &'m mut [u8],
    ) -> Result<Counter<'m, Chip>, CounterError> {
        Counter::open(Region::new(chip, 4096, 4096), buffer, InfoHash::V1([7; 20]))
    }

    #[test]
    fn every_start_finds_what_was_recorded_however_often_the_journal_moves() {
        let (chip, mut total, mut chances) = (chip(), 0, Vec::new());
        for start in 0..50 {
            let mut buffer = [0; 256];
            let mut counter = open(&chip, &mut buffer).unwrap();
            assert_eq!((counter.before(), counter.was_whole(9)), (total, start > 0));
            chances.push(counter.chance());
            counter.note_check(9).unwrap();
            for _ in 0..7 {
                let sent = counter.recorded() - counter.before() + 5_000_000;
                counter.count(sent, Instant::default()).unwrap();
            }
            total = counter.recorded();
        }
        assert_eq!(total, 50 * 7 * 5_000_000);
        chances.sort_unstable();
        chances.dedup();
        assert_eq!(chances.len(), 50, "no two starts are alike");
        assert!(
            chip.borrow().cells[..4096].iter().all(|cell| *cell == 0xff),
            "it keeps to its part"
        );
    }

    #[test]
    fn a_little_is_recorded_after_a_while_and_nothing_when_nothing_was_sent() {
        let (chip, mut buffer) = (chip(), [0; 256]);
        let mut counter = open(&chip, &mut buffer).unwrap();
        counter.note_check(0).unwrap();
        assert!(!counter.was_whole(9));
        let at = Instant::from_millis;
        counter.count(1_000, at(5)).unwrap();
        assert_eq!((counter.recorded(), counter.deadline().at), (0, at(5 + RECORD_MS)));
        counter.count(2_000, at(5 + RECORD_MS)).unwrap();
        assert_eq!((counter.recorded(), counter.deadline().at), (2_000, Instant::NEVER));
        let left = chip.borrow().writes_left;
        counter.count(2_000, at(100 * RECORD_MS)).unwrap();
        assert_eq!(chip.borrow().writes_left, left);
    }

    #[test]
    fn a_chip_that_takes_no_more_is_said_and_not_tried_in_a_loop() {
        let (chip, mut buffer) = (chip(), [0; 256]);
        let mut counter = open(&chip, &mut buffer).unwrap();
        counter.note_check(9).unwrap();
        chip.borrow_mut().writes_left = 0;
        assert!(counter.count(8 << 20, Instant::default()).is_err());
        assert_eq!(counter.deadline().at, Instant::from_millis(RECORD_MS));
        assert_eq!(counter.recorded(), 0);
        chip.borrow_mut().writes_left = u32::MAX;
        counter.count(16 << 20, Instant::from_millis(1)).unwrap();
        assert_eq!(counter.recorded(), 0, "not tried again at once");
        counter.count(8 << 20, Instant::from_millis(RECORD_MS)).unwrap();
        assert_eq!(counter.recorded(), 8 << 20, "the other half took it");
    }
}
