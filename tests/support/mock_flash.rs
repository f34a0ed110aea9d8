//! A NOR flash in memory that is stricter than the real ones and remembers everything.
//!
//! Bits only fall, except by an erase of whole sectors. A word (the write unit) may be programmed
//! once between two erases, all-ones included, and a word or sector caught by a power cut may not
//! be programmed before it is erased; breaking a rule panics, for it is the program that is wrong.
//!
//! Every byte that changes goes onto a [`Tape`], in order, with the syncs between them: a test runs
//! its scenario once, winds the tape back, and looks at the flash as it was after any byte. From
//! then on it may lose power in several ways, see [`MockFlash::tear_write`] and its neighbours.
//! Operations can be made to fail half-way, as a chip or a full disk would.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::{
    self, ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use perennial::engine::journal::Durable;

use crate::prng::Prng;

/// One thing that happened to a flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The byte at `at` was programmed; `value` is what it was to become.
    Write { at: u32, value: u8 },
    /// The byte at `at` was erased; its sector's others come before and after.
    Erase { at: u32 },
    /// Everything before is durable.
    Sync,
    /// A sync failed: everything since the last one may be durable or not, and no later sync is
    /// about it any more.
    FailedSync,
    /// A note by the scenario: from here on these are the states a replay may give.
    Expect { old: u32, new: u32 },
}

/// What happened to a flash, shared between it and the test that drives it.
pub type Tape = Rc<RefCell<Vec<Step>>>;

/// The flash. `WRITE` bytes are a word, `ERASE` bytes a sector.
#[derive(Clone, Debug)]
pub struct MockFlash<const WRITE: usize, const ERASE: usize> {
    pub bytes: Vec<u8>,
    /// Per word: programmed, or caught by a power cut, since its last erase.
    spent: Vec<bool>,
    tape: Option<Tape>,
    faults: Option<Faults>,
    /// Programming a word twice ends with the bits of both instead of a panic.
    pub forgiving: bool,
}

/// Which operations fail.
#[derive(Clone, Debug)]
pub enum Faults {
    /// After so many more that do not fail, so many that do.
    Run { after: u32, count: u32 },
    /// One in `n`, by chance.
    OneIn(u32, Prng),
}

/// An operation was made to fail, or was none for this flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockError {
    Fault,
    Misuse(NorFlashErrorKind),
}

impl<const WRITE: usize, const ERASE: usize> MockFlash<WRITE, ERASE> {
    /// An erased flash.
    pub fn new(capacity: usize) -> Self {
        Self::from_bytes(vec![0xFF; capacity])
    }

    /// A flash that holds `bytes`; the words that are not erased have been programmed.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let spent = bytes.chunks(WRITE).map(|word| !is_erased(word)).collect();
        MockFlash { bytes, spent, tape: None, faults: None, forgiving: false }
    }

    /// Records onto `tape` from now on.
    pub fn record(&mut self, tape: &Tape) {
        self.tape = Some(Rc::clone(tape));
    }

    /// Lets operations fail from now on.
    pub fn set_faults(&mut self, faults: Option<Faults>) {
        self.faults = faults;
    }

    /// Takes over the content of `other`, but not its tape or faults.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.copy_from_slice(&other.bytes);
        self.spent.copy_from_slice(&other.spent);
    }

    /// Does to this flash what `step` did to the one it was recorded on.
    pub fn apply(&mut self, step: Step) {
        match step {
            Step::Write { at, value } => {
                let at = at as usize;
                self.bytes[at] &= value;
                // A word that power fails in is spent once a bit of it has fallen.
                self.spent[at / WRITE] |= value != 0xFF || (at + 1).is_multiple_of(WRITE);
            }
            Step::Erase { at } => {
                let at = at as usize;
                self.bytes[at] = 0xFF;
                let sector = at / ERASE * ERASE;
                let spent = &mut self.spent[sector / WRITE..(sector + ERASE) / WRITE];
                if at == sector {
                    spent.fill(true);
                }
                if at + 1 == sector + ERASE {
                    spent.fill(false);
                }
            }
            Step::Sync | Step::FailedSync | Step::Expect { .. } => {}
        }
    }

    /// Power fails while the word at `at` is programmed, and leaves anything there.
    pub fn tear_write(&mut self, at: u32, prng: &mut Prng) {
        let start = at as usize / WRITE * WRITE;
        let word = &mut self.bytes[start..start + WRITE];
        prng.fill(word);
        self.spent[start / WRITE] = !is_erased(word);
    }

    /// Power fails while the word at `at` is programmed, when it is on its way to `target`: of the
    /// bits that still had to fall some have.
    pub fn fall_partly(&mut self, at: u32, target: &[u8], prng: &mut Prng) {
        let start = at as usize / WRITE * WRITE;
        let word = &mut self.bytes[start..start + WRITE];
        for (byte, target) in word.iter_mut().zip(target) {
            *byte &= target | prng.next_u8();
        }
        self.spent[start / WRITE] = !is_erased(word);
    }

    /// Power fails while the sector of `at` is erased: every bit of it may be anything, or, if
    /// `only_risen`, of those that were 0 some are 1 already.
    pub fn tear_erase(&mut self, at: u32, only_risen: bool, prng: &mut Prng) {
        let start = at as usize / ERASE * ERASE;
        for byte in &mut self.bytes[start..start + ERASE] {
            *byte = prng.next_u8() | if only_risen { *byte } else { 0 };
        }
        self.spent[start / WRITE..(start + ERASE) / WRITE].fill(true);
    }

    /// Copies the word at `at` from `other`: a sector that got to the disk before others did.
    pub fn take_word(&mut self, at: usize, other: &Self) {
        self.bytes[at..at + WRITE].copy_from_slice(&other.bytes[at..at + WRITE]);
        self.spent[at / WRITE] = other.spent[at / WRITE];
    }

    /// Takes every word that reads as erased for one that may be programmed: true of a disk.
    pub fn forget_spent(&mut self) {
        for (spent, word) in self.spent.iter_mut().zip(self.bytes.chunks(WRITE)) {
            *spent = !is_erased(word);
        }
    }

    fn note(&self, step: Step) {
        if let Some(tape) = &self.tape {
            tape.borrow_mut().push(step);
        }
    }

    fn step(&mut self, step: Step) {
        self.note(step);
        self.apply(step);
    }

    fn fails(&mut self) -> bool {
        match &mut self.faults {
            None => false,
            Some(Faults::OneIn(n, prng)) => prng.one_in(*n),
            Some(Faults::Run { after: 0, count }) => {
                let fails = *count > 0;
                *count = count.saturating_sub(1);
                fails
            }
            Some(Faults::Run { after, .. }) => {
                *after -= 1;
                false
            }
        }
    }
}

impl<const WRITE: usize, const ERASE: usize> ErrorType for MockFlash<WRITE, ERASE> {
    type Error = MockError;
}

impl<const WRITE: usize, const ERASE: usize> ReadNorFlash for MockFlash<WRITE, ERASE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), MockError> {
        nor_flash::check_read(self, offset, bytes.len()).map_err(MockError::Misuse)?;
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize> NorFlash for MockFlash<WRITE, ERASE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), MockError> {
        nor_flash::check_erase(self, from, to).map_err(MockError::Misuse)?;
        let fails = self.fails();
        let end = if fails { from + (to - from) / 2 } else { to };
        for at in from..end {
            self.step(Step::Erase { at });
        }
        if fails { Err(MockError::Fault) } else { Ok(()) }
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MockError> {
        nor_flash::check_write(self, offset, bytes.len()).map_err(MockError::Misuse)?;
        let fails = self.fails();
        let end = if fails { bytes.len() / 2 } else { bytes.len() };
        for (at, &value) in (offset..).zip(&bytes[..end]) {
            let again = (at as usize).is_multiple_of(WRITE) && self.spent[at as usize / WRITE];
            assert!(self.forgiving || !again, "the word at byte {at} is programmed twice");
            self.step(Step::Write { at, value });
        }
        if fails { Err(MockError::Fault) } else { Ok(()) }
    }
}

impl<const WRITE: usize, const ERASE: usize> Durable for MockFlash<WRITE, ERASE> {
    fn sync(&mut self) -> Result<(), MockError> {
        if self.fails() {
            self.note(Step::FailedSync);
            return Err(MockError::Fault);
        }
        self.note(Step::Sync);
        Ok(())
    }
}

impl NorFlashError for MockError {
    fn kind(&self) -> NorFlashErrorKind {
        match *self {
            MockError::Fault => NorFlashErrorKind::Other,
            MockError::Misuse(kind) => kind,
        }
    }
}

impl std::fmt::Display for MockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

fn is_erased(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0xFF)
}
