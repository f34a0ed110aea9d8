//! The SD card as flash: single bytes can be read, whole sectors written, [`UNIT_BYTES`] erased.
//!
//! `embedded-sdmmc` speaks with the card, [`Bus`] is the chip's serial bus to it. What is read goes
//! through a buffer of one sector that stays known: a read that goes on where another one ended does
//! not fetch the sector between them twice. (Several sectors for each command were no faster.)

use crate::chip::{CYCLES_PER_MS, spi};
use crate::profile::UNIT_BYTES;
use core::convert::Infallible;
use core::fmt;
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType as SpiErrorType, Operation, SpiDevice};
use embedded_sdmmc::{Block, BlockDevice, BlockIdx, SdCard, SdCardError};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// A sector as it is read or written.
pub type Sector = [Block; 1];

/// A buffer for it.
pub const EMPTY: Sector = [Block { contents: [0; Block::LEN] }];

/// A card that answers.
pub struct Card {
    card: SdCard<Bus, Wait>,
    buffer: &'static mut Sector,
    /// Which sector is in the buffer.
    known: Option<u32>,
    bytes: usize,
}

/// Why the card did not do as it was told.
#[derive(Clone, Copy, Debug)]
pub enum CardError {
    /// It did not answer, or what it said.
    Card(SdCardError),
    /// Beyond its end.
    OutOfBounds,
    /// Not whole sectors, or not whole units.
    NotAligned,
}

impl Card {
    /// Wakes the card.
    pub fn open(buffer: &'static mut Sector) -> Result<Card, CardError> {
        let card = SdCard::new(Bus::start(), Wait);
        let bytes = wake(&card)?;
        // Addresses are 32 bits wide: what a larger card has beyond is left alone.
        let bytes = bytes.min(u64::from(u32::MAX)) as usize & !(UNIT_BYTES - 1);
        Ok(Card { card, buffer, known: None, bytes })
    }

    /// Fetches a sector into the buffer. What was garbled on its way is asked for again, once; a
    /// card that was pulled out is not looked for: another one may be in its place.
    fn fetch(&mut self, sector: u32) -> Result<(), CardError> {
        self.known = None;
        let mut read = || self.card.read(self.buffer, BlockIdx(sector));
        match read() {
            Err(SdCardError::CrcError(..)) => {
                self.card.mark_card_uninit();
                wake(&self.card)?;
                read()?;
            }
            other => other?,
        }
        self.known = Some(sector);
        Ok(())
    }

    /// Writes sectors that `fill` says the bytes of, one after the other.
    fn put(
        &mut self,
        from: usize,
        to: usize,
        mut fill: impl FnMut(usize, &mut Block),
    ) -> Result<(), CardError> {
        if to > self.bytes {
            return Err(CardError::OutOfBounds);
        }
        self.known = None;
        for at in (from..to).step_by(Block::LEN) {
            fill(at - from, &mut self.buffer[0]);
            self.card.write(self.buffer, BlockIdx((at / Block::LEN) as u32))?;
        }
        Ok(())
    }
}

impl ErrorType for Card {
    type Error = CardError;
}

impl ReadNorFlash for Card {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, mut bytes: &mut [u8]) -> Result<(), CardError> {
        let mut at = offset as usize;
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.bytes) {
            return Err(CardError::OutOfBounds);
        }
        while !bytes.is_empty() {
            let (sector, within) = ((at / Block::LEN) as u32, at % Block::LEN);
            if self.known != Some(sector) {
                self.fetch(sector)?;
            }
            let (now, later) = bytes.split_at_mut(bytes.len().min(Block::LEN - within));
            now.copy_from_slice(&self.buffer[0][within..within + now.len()]);
            at += now.len();
            bytes = later;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes
    }
}

impl NorFlash for Card {
    const WRITE_SIZE: usize = Block::LEN;
    const ERASE_SIZE: usize = UNIT_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), CardError> {
        let (from, to) = (from as usize, to as usize);
        if !from.is_multiple_of(UNIT_BYTES) || !to.is_multiple_of(UNIT_BYTES) {
            return Err(CardError::NotAligned);
        }
        self.put(from, to, |_, block| block.fill(0xFF))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), CardError> {
        let from = offset as usize;
        if !from.is_multiple_of(Block::LEN) || !bytes.len().is_multiple_of(Block::LEN) {
            return Err(CardError::NotAligned);
        }
        let to = from.checked_add(bytes.len()).ok_or(CardError::OutOfBounds)?;
        self.put(from, to, |at, block| block.copy_from_slice(&bytes[at..at + Block::LEN]))
    }
}

impl NorFlashError for CardError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            CardError::Card(_) => NorFlashErrorKind::Other,
            CardError::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            CardError::NotAligned => NorFlashErrorKind::NotAligned,
        }
    }
}

impl From<SdCardError> for CardError {
    fn from(error: SdCardError) -> CardError {
        CardError::Card(error)
    }
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CardError::Card(SdCardError::CardNotFound) => f.write_str("there is no card"),
            CardError::Card(error) => write!(f, "the card: {error}"),
            CardError::OutOfBounds => f.write_str("beyond the end of the card"),
            CardError::NotAligned => f.write_str("not whole sectors of the card"),
        }
    }
}

/// Makes the card listen, as slowly as a card that sleeps wants it; how many bytes it has.
fn wake(card: &SdCard<Bus, Wait>) -> Result<u64, CardError> {
    card.spi(Bus::knock);
    let bytes = card.num_bytes()?;
    card.spi(|bus| bus.divide_by(FAST));
    Ok(bytes)
}

/// The serial bus with the card on it.
pub struct Bus {
    /// The answer that comes next is that to CMD58.
    registers_asked: bool,
}

impl Bus {
    fn start() -> Bus {
        spi::CONTROL.write(0);
        spi::PRESCALE.write(2);
        spi::FORMAT.write(spi::EIGHT_BITS);
        spi::CONTROL.write(spi::ENABLE);
        Bus { registers_asked: false }
    }

    /// 80 bits at 400 kHz with no card meant: from here on a card listens.
    fn knock(&mut self) {
        self.divide_by(SLOW);
        exchange(10, |_| 0xFF, |_, _| ());
    }

    /// A bit takes 2 cycles of the chip times this.
    fn divide_by(&mut self, divisor: u32) {
        spi::FORMAT.write((divisor - 1) << 8 | spi::EIGHT_BITS);
    }

    /// QEMU's card says in its answer to CMD58 that it is idle when it has just said in that to
    /// ACMD41 that it no longer is. The bit says nothing there.
    fn mend(&mut self, read: &mut [u8]) {
        if let [answer] = read
            && self.registers_asked
            && *answer & 0x80 == 0
        {
            *answer &= !1;
            self.registers_asked = false;
        }
    }
}

impl SpiErrorType for Bus {
    type Error = Infallible;
}

impl SpiDevice for Bus {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        spi::SELECT.write(0);
        for operation in operations {
            match operation {
                Operation::Read(read) => exchange(read.len(), |_| 0xFF, |at, byte| read[at] = byte),
                Operation::Write(write) => {
                    self.registers_asked = write.first() == Some(&CMD58);
                    exchange(write.len(), |at| write[at], |_, _| ());
                }
                Operation::Transfer(read, write) => {
                    if **write == [TOKEN] {
                        // At least one byte lies between the answer to a command and what follows.
                        exchange(1, |_| 0xFF, |_, _| ());
                    }
                    let count = read.len().max(write.len());
                    let out = |at| write.get(at).copied().unwrap_or(0xFF);
                    let keep = |at, byte| {
                        if let Some(place) = read.get_mut(at) {
                            *place = byte;
                        }
                    };
                    exchange(count, out, keep);
                    self.mend(read);
                }
                Operation::TransferInPlace(bytes) => {
                    let bytes = core::cell::Cell::from_mut(*bytes).as_slice_of_cells();
                    exchange(bytes.len(), |at| bytes[at].get(), |at, byte| bytes[at].set(byte));
                }
                Operation::DelayNs(ns) => Wait.delay_ns(*ns),
            }
        }
        spi::SELECT.write(1);
        Ok(())
    }
}

/// Sends and receives `count` bytes, as many at a time as the queues hold.
fn exchange(count: usize, out: impl Fn(usize) -> u8, mut keep: impl FnMut(usize, u8)) {
    for from in (0..count).step_by(spi::QUEUE) {
        let to = count.min(from + spi::QUEUE);
        (from..to).for_each(|at| spi::DATA.write(u32::from(out(at))));
        while spi::STATUS.read() & spi::BUSY != 0 {}
        for at in from..to {
            keep(at, spi::DATA.read() as u8);
        }
    }
}

/// Waits by counting.
pub struct Wait;

impl DelayNs for Wait {
    fn delay_ns(&mut self, ns: u32) {
        cortex_m::asm::delay((ns / 1_000).saturating_mul(CYCLES_PER_MS / 1_000).max(1));
    }
}

/// 391 kHz and 12.5 MHz.
const SLOW: u32 = 64;
const FAST: u32 = 2;
const CMD58: u8 = 0x40 | 58;
/// What comes before a sector that is written.
const TOKEN: u8 = 0xFE;
