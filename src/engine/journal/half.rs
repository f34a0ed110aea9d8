//! One half of the flash as a log: appended to while the box runs, replayed when it starts.
//!
//! ```text
//! start                anchor          head                    reach                  end
//! | header | 1 | 2 | 3 |  (torn) (4?)  |  erased ...             | erased ...          |
//! ```
//!
//! What is known about the end of a log, and why it is found without reading all of a half:
//!
//! - A frame goes to `head` and nowhere else, and `head` passes it before the first byte is
//!   written: whatever then happens, no word is written twice between two erases.
//! - A power cut leaves a torn frame or none. Sectors of a file may get to the disk in any order,
//!   so a torn frame may have erased units before units that are not. Replay therefore believes in
//!   the end of the log only when a whole *reach* is erased; a reach is a few of the largest
//!   commits the half's header allows. Appending keeps to it as well: `head` runs ahead of what is
//!   known to be durable (`anchor`) by less than a reach, however often a write or a sync fails.
//! - A unit that is neither erased nor the start of a frame is garbage, and the next one is looked
//!   at. Behind a whole head with a torn payload replay goes on where that frame would have ended.
//! - A frame counts only in the half and for the sequence it was written for; a half is erased
//!   before it gets a new one. A frame whose number was replayed before is the second try of a
//!   commit whose first try reached the flash unknown to the box: it is stepped over.
//!
//! Frames come from [`Batch`]; records leave for the caller of
//! [`Journal::open`](super::Journal::open).

use super::frame::{self, Batch, Head, Header, UNIT_BYTES_MIN};
use super::{Durable, JournalError, Operation, Replay, Wear};

/// The flash, its two halves, and what they have been put through.
pub(super) struct Medium<F> {
    pub flash: F,
    pub wear: Wear,
    /// Bytes of each half: a whole number of erase sectors.
    pub half_bytes: u32,
}

impl<F: Durable> Medium<F> {
    /// Frames begin at multiples of this.
    pub const UNIT: u32 = {
        assert!(F::WRITE_SIZE.is_multiple_of(F::READ_SIZE), "what is written can be read");
        let unit = UNIT_BYTES_MIN.next_multiple_of(F::WRITE_SIZE as u32);
        assert!((F::ERASE_SIZE as u32).is_multiple_of(unit), "a sector is a number of units");
        unit
    };

    pub fn new(flash: F) -> Result<Medium<F>, JournalError<F::Error>> {
        let capacity = u32::try_from(flash.capacity()).unwrap_or(u32::MAX);
        let sector = F::ERASE_SIZE as u32;
        let half_bytes = capacity / 2 / sector * sector;
        if half_bytes < 2 * Self::UNIT {
            return Err(JournalError::FlashTooSmall { needed: 2 * sector.max(2 * Self::UNIT) });
        }
        Ok(Medium { flash, wear: Wear::default(), half_bytes })
    }

    /// The largest commit a buffer of `buffer_bytes` and a half allow; 0 if that is none.
    pub fn commit_bytes_max(&self, buffer_bytes: usize) -> u32 {
        let buffer_bytes = u32::try_from(buffer_bytes).unwrap_or(u32::MAX);
        // A journal asks for compaction when the largest commit has no room: a batch that could
        // claim most of a half would have it ask all the time.
        let share = (self.half_bytes / 4).max(Self::UNIT);
        buffer_bytes.min(share) / Self::UNIT * Self::UNIT
    }

    /// The header of a half on this flash.
    pub fn header(&self, commit_bytes_max: u32, sequence: u32) -> Header {
        Header::new(F::WRITE_SIZE as u32, self.half_bytes, commit_bytes_max, sequence)
    }

    /// What stands where the header of `half` belongs.
    pub fn inspect(
        &mut self,
        half: Half,
        buffer: &mut [u8],
    ) -> Result<Inspection, JournalError<F::Error>> {
        let unit = &mut buffer[..Self::UNIT as usize];
        self.read(half.start(self.half_bytes), unit)?;
        Ok(match Header::read(unit) {
            Some(header) => Inspection::Header(header),
            None if frame::is_blank(unit) => Inspection::Blank,
            None => Inspection::Garbage,
        })
    }

    /// Whether everything in `from..to`, a number of units, reads as erased.
    pub fn is_blank(
        &mut self,
        from: u32,
        to: u32,
        buffer: &mut [u8],
    ) -> Result<bool, JournalError<F::Error>> {
        let stride = self.commit_bytes_max(buffer.len());
        let mut at = from;
        while at < to {
            let bytes = stride.min(to - at);
            let window = &mut buffer[..bytes as usize];
            self.read(at, window)?;
            if !frame::is_blank(window) {
                return Ok(false);
            }
            at += bytes;
        }
        Ok(true)
    }

    pub fn read(&mut self, at: u32, bytes: &mut [u8]) -> Result<(), JournalError<F::Error>> {
        self.flash.read(at, bytes).map_err(JournalError::at(Operation::Read, at))
    }

    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), JournalError<F::Error>> {
        self.wear.written_bytes += bytes.len() as u64;
        self.flash.write(at, bytes).map_err(JournalError::at(Operation::Write, at))
    }

    pub fn erase(&mut self, from: u32, to: u32) -> Result<(), JournalError<F::Error>> {
        self.wear.erased_bytes += u64::from(to - from);
        self.flash.erase(from, to).map_err(JournalError::at(Operation::Erase, from))
    }

    /// Waits until everything written and erased so far is durable.
    pub fn sync(&mut self) -> Result<(), JournalError<F::Error>> {
        self.flash.sync().map_err(JournalError::at(Operation::Sync, 0))
    }
}

/// One of the two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    First,
    Second,
}

impl Half {
    pub fn other(self) -> Half {
        match self {
            Half::First => Half::Second,
            Half::Second => Half::First,
        }
    }

    pub fn start(self, half_bytes: u32) -> u32 {
        match self {
            Half::First => 0,
            Half::Second => half_bytes,
        }
    }
}

/// What stands where a header belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inspection {
    Blank,
    Header(Header),
    /// Neither: torn while it was written or erased, or never a journal's.
    Garbage,
}

/// A half in use. Every place is an offset on the flash, at a multiple of the unit from `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    pub half: Half,
    pub header: Header,
    start: u32,
    end: u32,
    /// Where the next frame goes: everything from here to the reach is erased.
    head: u32,
    /// End of the last frame known to be durable; `head` differs from it only after failures.
    anchor: u32,
    /// Number of the last frame known to be durable; below the number of units in the half.
    number: u32,
}

impl Log {
    pub fn new(half: Half, header: Header, unit: u32) -> Log {
        let start = half.start(header.half_bytes);
        let head = start + unit;
        Log { half, header, start, end: start + header.half_bytes, head, anchor: head, number: 0 }
    }

    /// Bytes of the half behind the head.
    pub fn free_bytes(&self) -> u32 {
        self.end - self.head
    }

    /// Bytes the next frame may take: less than is free when it might not be found otherwise.
    pub fn room(&self) -> u32 {
        self.reach(self.anchor).saturating_sub(self.head)
    }

    /// Takes no frame any more: one whose fate is unknown can no longer be tried again.
    pub fn close(&mut self) {
        self.head = self.end;
    }

    /// Writes the header: from the next sync on this half is the journal, or its rival.
    pub fn write_header<F: Durable>(
        &self,
        medium: &mut Medium<F>,
        buffer: &mut [u8],
    ) -> Result<(), JournalError<F::Error>> {
        let unit = &mut buffer[..Medium::<F>::UNIT as usize];
        self.header.write(unit);
        medium.write(self.start, unit)
    }

    /// Writes `batch` at the head, for which there must be room. It is durable after a sync and
    /// counts after [`Log::acknowledge`]; until then the next append is another try of the same.
    pub fn append<F: Durable>(
        &mut self,
        medium: &mut Medium<F>,
        batch: &mut Batch<'_>,
    ) -> Result<(), JournalError<F::Error>> {
        let frame = batch.seal(self.header.sequence, self.number + 1, Medium::<F>::UNIT);
        let at = self.head;
        self.head += frame.len() as u32;
        medium.write(at, frame)
    }

    /// Counts the frame just appended.
    pub fn acknowledge(&mut self) {
        self.number += 1;
        self.anchor = self.head;
    }

    /// Visits every record of every whole frame in order and finds the head.
    ///
    /// # Work
    /// Reads every frame once, every unit of garbage once with at most one commit's bytes behind
    /// it, and one reach beyond the end, through the first `commit_bytes_max` bytes of `buffer`.
    pub fn replay<F: Durable>(
        &mut self,
        medium: &mut Medium<F>,
        buffer: &mut [u8],
        visit: &mut impl FnMut(&[u8]),
    ) -> Result<Replay, JournalError<F::Error>> {
        let unit = Medium::<F>::UNIT;
        let mut replay = Replay::default();
        let mut at = self.head;
        while at < self.reach(self.head) {
            let unit_bytes = &mut buffer[..unit as usize];
            medium.read(at, unit_bytes)?;
            if frame::is_blank(unit_bytes) {
                at += unit;
                continue;
            }
            // Erased units before this one belonged to a torn frame.
            replay.garbage_bytes += at - self.head;
            self.head = at;
            let Some((head, extent)) = self.frame_at(at, unit_bytes, unit) else {
                at += unit;
                replay.garbage_bytes += unit;
                self.head = at;
                continue;
            };
            medium.read(at + unit, &mut buffer[unit as usize..extent as usize])?;
            at += extent;
            self.head = at;
            match head.payload(&buffer[..extent as usize]) {
                Some(payload) if head.number > self.number => {
                    replay.lost_commits += head.number - self.number - 1;
                    replay.commits += 1;
                    self.number = head.number;
                    for record in frame::records(payload) {
                        replay.records += 1;
                        visit(record);
                    }
                }
                _ => replay.garbage_bytes += extent,
            }
        }
        self.anchor = self.head;
        Ok(replay)
    }

    /// The head in `unit_bytes`, and its frame's extent, if a frame of this log can begin at `at`.
    fn frame_at(&self, at: u32, unit_bytes: &[u8], unit: u32) -> Option<(Head, u32)> {
        let head = Head::read(unit_bytes)?;
        let extent = head.extent(unit)?;
        let fits = extent <= self.header.commit_bytes_max.min(self.end - at);
        let counted = head.number <= self.header.half_bytes / unit;
        (fits && counted && head.sequence == self.header.sequence).then_some((head, extent))
    }

    /// How far a log whose durable part ends at `from` may have been written.
    fn reach(&self, from: u32) -> u32 {
        let reach = self.header.commit_bytes_max.saturating_mul(REACH_COMMITS);
        from.saturating_add(reach).min(self.end)
    }
}

/// The largest commits that fit a reach: all but one may fail in a row before the half is given up.
/// More would cost a longer look at erased flash on every start.
const REACH_COMMITS: u32 = 4;
