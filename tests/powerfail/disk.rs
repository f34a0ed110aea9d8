//! A disk of a few files that remembers in which order they were changed, and loses power.
//!
//! Every write goes onto one tape, with the syncs between: a test runs its scenario once, then looks
//! at the disk as a cut after any byte may have left it. What was not synced got there or not, in
//! sectors of 512 or 4096 bytes and in any order, whichever file it is of; the sector that was being
//! written may hold anything, its neighbours' bytes included. Only of the journal no sector is larger
//! than its flash's word: that a commit fills whole sectors is what it builds on.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::{self, ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use perennial::engine::journal::Durable;
use perennial::engine::library::shelf::Shelf;

use crate::prng::Prng;

/// The bytes of all files.
pub type Image = [Vec<u8>; 4];

/// The files.
pub const JOURNAL: usize = 0;
pub const SLOTS: usize = 1;
pub const STAGING: usize = 2;
pub const LOOKUP: usize = 3;

/// One thing that happened to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Clear {
        file: usize,
    },
    Sync {
        file: usize,
    },
    /// A sync failed: what it was about may be durable or not, and no later one is about it.
    FailedSync {
        file: usize,
    },
    /// From here on these are the states that may be found.
    Expect {
        states: Vec<usize>,
    },
}

/// An operation was made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a fault")
    }
}

impl nor_flash::NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    image: Image,
    tape: Vec<Step>,
    /// One write or sync in so many fails half-way.
    faults: Option<(u32, Prng)>,
}

impl Disk {
    pub fn new(image: Image) -> Disk {
        Disk(Rc::new(RefCell::new(Inner { image, ..Inner::default() })))
    }

    pub fn file<const WORD: usize>(&self, file: usize) -> File<WORD> {
        File { disk: self.clone(), file }
    }

    pub fn expect(&self, states: &[usize]) {
        self.0.borrow_mut().tape.push(Step::Expect { states: states.to_vec() });
    }

    pub fn set_faults(&self, faults: Option<(u32, Prng)>) -> Option<(u32, Prng)> {
        std::mem::replace(&mut self.0.borrow_mut().faults, faults)
    }

    pub fn image(&self) -> Image {
        self.0.borrow().image.clone()
    }

    pub fn take_tape(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.borrow_mut().tape)
    }

    /// Puts another image in its place and forgets what happened.
    pub fn reset(&self, image: &Image) {
        let mut inner = self.0.borrow_mut();
        inner.image.clone_from(image);
        inner.tape.clear();
    }

    fn step(&self, step: Step) {
        let mut inner = self.0.borrow_mut();
        apply(&mut inner.image, &step);
        inner.tape.push(step);
    }

    fn fails(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.faults.as_mut().is_some_and(|(n, prng)| prng.one_in(*n))
    }
}

/// Does to an image what a step did to the one it was recorded on.
fn apply(image: &mut Image, step: &Step) {
    match step {
        Step::Write { file, at, bytes } => put(&mut image[*file], *at, bytes),
        Step::Clear { file } => image[*file].clear(),
        Step::Sync { .. } | Step::FailedSync { .. } | Step::Expect { .. } => {}
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// One file of a disk: a shelf, and a flash as `service::flash_file` makes one out of a file, with
/// words of so many bytes.
#[derive(Clone, Debug)]
pub struct File<const WORD: usize> {
    disk: Disk,
    file: usize,
}

impl<const WORD: usize> File<WORD> {
    fn put(&self, at: usize, bytes: &[u8]) -> Result<(), Fault> {
        let fails = self.disk.fails();
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        if !bytes.is_empty() {
            self.disk.step(Step::Write { file: self.file, at, bytes: bytes.to_vec() });
        }
        if fails { Err(Fault) } else { Ok(()) }
    }

    fn get(&self, at: usize, into: &mut [u8]) -> usize {
        let inner = self.disk.0.borrow();
        let rest = inner.image[self.file].get(at..).unwrap_or(&[]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        length
    }

    fn sync_all(&self) -> Result<(), Fault> {
        let file = self.file;
        if self.disk.fails() {
            self.disk.step(Step::FailedSync { file });
            return Err(Fault);
        }
        self.disk.step(Step::Sync { file });
        Ok(())
    }
}

impl<const WORD: usize> Shelf for File<WORD> {
    type Error = Fault;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Fault> {
        Ok(self.get(at as usize, into))
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.put(at as usize, bytes)
    }

    fn clear(&mut self) -> Result<(), Fault> {
        if self.disk.fails() {
            return Err(Fault);
        }
        self.disk.step(Step::Clear { file: self.file });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.sync_all()
    }

    fn length(&mut self) -> Result<u64, Fault> {
        Ok(self.disk.0.borrow().image[self.file].len() as u64)
    }
}

impl<const WORD: usize> ErrorType for File<WORD> {
    type Error = Fault;
}

impl<const WORD: usize> ReadNorFlash for File<WORD> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        assert_eq!(self.get(offset as usize, bytes), bytes.len(), "it lies in the flash");
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.disk.0.borrow().image[self.file].len()
    }
}

impl<const WORD: usize> NorFlash for File<WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        (from..to).step_by(4096).try_for_each(|at| self.put(at as usize, &[0xFF; 4096]))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.put(offset as usize, bytes)
    }
}

impl<const WORD: usize> Durable for File<WORD> {
    fn sync(&mut self) -> Result<(), Fault> {
        self.sync_all()
    }
}

/// How power fails.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Between two bytes, all before them written.
    Clean,
    /// The sector at work, of so many bytes, is left as garbage.
    Garbage(usize),
    /// Sectors of so many bytes since the last sync are there or not, in any combination, and the
    /// one at work may be garbage.
    Reordered(usize),
}

impl Cut {
    pub fn any(prng: &mut Prng) -> Cut {
        let sector = if prng.one_in(2) { 512 } else { 4096 };
        match prng.below(5) {
            0 => Cut::Clean,
            1 | 2 => Cut::Garbage(sector),
            _ => Cut::Reordered(sector),
        }
    }
}

/// A disk at some step of a tape: as it was, and as far as syncs have made it certain.
pub struct Cutter {
    pub image: Image,
    durable: Image,
    /// First bytes of the 512 that may differ between the two, by file.
    unsynced: [Vec<usize>; 4],
    /// Files that were emptied since their last sync.
    cleared: [bool; 4],
    /// Bytes of a word of the journal's flash.
    word: usize,
}

impl Cutter {
    pub fn new(image: Image, word: usize) -> Cutter {
        let durable = image.clone();
        Cutter { image, durable, unsynced: Default::default(), cleared: [false; 4], word }
    }

    /// Does what `step` did.
    pub fn advance(&mut self, step: &Step, prng: &mut Prng) {
        apply(&mut self.image, step);
        match *step {
            Step::Write { file, at, ref bytes } => self.note(file, at, bytes.len()),
            Step::Clear { file } => {
                self.cleared[file] = true;
                self.unsynced[file].clear();
            }
            Step::Sync { file } | Step::FailedSync { file } => {
                let gets_there =
                    |prng: &mut Prng| matches!(step, Step::Sync { .. }) || prng.one_in(2);
                if std::mem::take(&mut self.cleared[file]) && gets_there(prng) {
                    self.durable[file].clear();
                }
                for at in std::mem::take(&mut self.unsynced[file]) {
                    if gets_there(prng) {
                        take(&mut self.durable[file], &self.image[file], at, 512);
                    }
                }
            }
            Step::Expect { .. } => {}
        }
    }

    /// The disk after a cut when the first `done` bytes of the step that comes next were written.
    pub fn cut(&self, next: &Step, done: usize, cut: Cut, prng: &mut Prng, into: &mut Image) {
        let Step::Write { file, at, ref bytes } = *next else {
            return self.cut_between(cut, prng, into);
        };
        let mut now = Cutter {
            image: self.image.clone(),
            durable: self.durable.clone(),
            unsynced: self.unsynced.clone(),
            cleared: self.cleared,
            word: self.word,
        };
        put(&mut now.image[file], at, &bytes[..done]);
        now.note(file, at, done);
        now.cut_between(cut, prng, into);
        let (Cut::Garbage(sector) | Cut::Reordered(sector)) = cut else { return };
        if matches!(cut, Cut::Garbage(_)) || prng.one_in(2) {
            let sector = self.sector_of(file, sector);
            let start = (at + done.saturating_sub(1)) / sector * sector;
            let end = into[file].len().min(start + sector);
            let garbage = into[file].get_mut(start..end).unwrap_or(&mut []);
            match prng.below(4) {
                0 => garbage.fill(0),
                1 => garbage.fill(0xFF),
                _ => prng.fill(garbage),
            }
        }
    }

    fn cut_between(&self, cut: Cut, prng: &mut Prng, into: &mut Image) {
        let Cut::Reordered(sector) = cut else {
            into.clone_from(&self.image);
            return;
        };
        into.clone_from(&self.durable);
        // All of it, none of it, or any of it.
        let bias = prng.below(4);
        for (file, found) in into.iter_mut().enumerate() {
            if self.cleared[file] && prng.one_in(2) {
                found.clear();
            }
            let (mut last, sector) = (None, self.sector_of(file, sector));
            let mut sectors: Vec<usize> =
                self.unsynced[file].iter().map(|at| at / sector * sector).collect();
            sectors.sort_unstable();
            for at in sectors {
                if last.replace(at) != Some(at) && (bias == 0 || bias > 1 && prng.one_in(2)) {
                    take(found, &self.image[file], at, sector);
                }
            }
        }
    }

    fn sector_of(&self, file: usize, sector: usize) -> usize {
        if file == JOURNAL { sector.min(self.word) } else { sector }
    }

    fn note(&mut self, file: usize, at: usize, length: usize) {
        if length > 0 {
            let sectors = at / 512..=(at + length - 1) / 512;
            self.unsynced[file].extend(sectors.map(|sector| sector * 512));
        }
    }
}

/// Copies a sector, or as much of it as there is.
fn take(to: &mut Vec<u8>, from: &[u8], at: usize, sector: usize) {
    let end = from.len().min(at + sector);
    if let Some(bytes) = from.get(at..end).filter(|bytes| !bytes.is_empty()) {
        put(to, at, bytes);
    }
}
