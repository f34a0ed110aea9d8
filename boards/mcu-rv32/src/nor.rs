//! The second NOR flash bank: where the image lies, and the journal in it.
//!
//! Two 16-bit chips side by side make 32 bits; both get every command at once, each in its half
//! of the word (Intel's command set). The bank reads like memory unless it is busy with a command,
//! and the program runs from the other bank, so nothing has to be moved to RAM for it.
//!
//! Bits only fall until their block is erased. QEMU would let them rise; [`Nor`] does not.

use crate::clock;
use crate::mmio::{Register, copy_from};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

/// The bank.
pub struct Nor {
    _private: (),
}

impl Nor {
    /// Turns to reading, whatever the bank was told before.
    pub fn start() -> Nor {
        word(0).write(CLEAR_STATUS);
        word(0).write(READ_ARRAY);
        Nor { _private: () }
    }

    /// Writes words until one fails; the bank is left as it then is, not yet reading.
    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        for (at, word_bytes) in (offset..).step_by(WORD_BYTES).zip(bytes.as_chunks().0) {
            word(at).write(PROGRAM);
            word(at).write(u32::from_le_bytes(*word_bytes));
            self.settle(at, PROGRAM_MS_MAX)?;
        }
        Ok(())
    }

    /// Waits for both chips to finish and asks how it went.
    fn settle(&mut self, offset: u32, ms_max: u64) -> Result<(), NorFlashErrorKind> {
        let until = clock::now().after(ms_max);
        loop {
            let status = word(offset).read();
            if status & READY == READY {
                return if status & FAULTS == 0 { Ok(()) } else { Err(NorFlashErrorKind::Other) };
            }
            if clock::now() > until {
                return Err(NorFlashErrorKind::Other);
            }
        }
    }
}

impl ErrorType for Nor {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        copy_from(BANK + offset as usize, bytes);
        Ok(())
    }

    fn capacity(&self) -> usize {
        BANK_BYTES
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = 256 * 1024;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        for block in (from..to).step_by(Self::ERASE_SIZE) {
            word(block).write(ERASE);
            word(block).write(CONFIRM);
            let erased = self.settle(block, ERASE_MS_MAX);
            *self = Nor::start();
            erased?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let words = || (offset..).step_by(WORD_BYTES).zip(bytes.as_chunks().0);
        let rises =
            |(at, wanted): (u32, &[u8; 4])| u32::from_le_bytes(*wanted) & !word(at).read() != 0;
        if words().any(rises) {
            return Err(NorFlashErrorKind::Other);
        }
        let programmed = self.program(offset, bytes);
        *self = Nor::start();
        programmed?;
        let holds = words().all(|(at, wanted)| word(at).read() == u32::from_le_bytes(*wanted));
        if holds { Ok(()) } else { Err(NorFlashErrorKind::Other) }
    }
}

/// The word at `offset`; callers have checked that it lies in the bank.
fn word(offset: u32) -> Register<u32> {
    Register::at(BANK + offset as usize)
}

const BANK: usize = 0x2200_0000;
const BANK_BYTES: usize = 32 * 1024 * 1024;
const WORD_BYTES: usize = 4;

/// Commands, one for each chip.
const ERASE: u32 = 0x0020_0020;
const PROGRAM: u32 = 0x0040_0040;
const CLEAR_STATUS: u32 = 0x0050_0050;
const CONFIRM: u32 = 0x00d0_00d0;
const READ_ARRAY: u32 = 0x00ff_00ff;

/// Both chips have finished.
const READY: u32 = 0x0080_0080;

/// Erase, program, voltage and lock, of either chip.
const FAULTS: u32 = 0x003a_003a;

/// Chips of this kind take up to 4 s for a block and below 1 ms for a word.
const ERASE_MS_MAX: u64 = 5_000;
const PROGRAM_MS_MAX: u64 = 10;
