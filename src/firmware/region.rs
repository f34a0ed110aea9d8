//! A part of the flash that is the journal's, while the rest is read beside it.

use crate::engine::journal::Durable;
use core::cell::RefCell;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Some erase units of a flash as a flash of their own.
pub struct Region<'f, F> {
    flash: &'f RefCell<F>,
    at: u32,
    length: u32,
}

impl<'f, F: NorFlash> Region<'f, F> {
    /// `length` bytes from `at` on, both whole erase units within the flash.
    pub fn new(flash: &'f RefCell<F>, at: u32, length: u32) -> Region<'f, F> {
        Region { flash, at, length }
    }

    /// `offset` in the whole flash, when so many bytes from there on are the region's.
    fn place(&self, offset: u32, length: usize) -> Result<u32, NorFlashErrorKind> {
        let end = u64::from(offset) + length as u64;
        if end > u64::from(self.length) {
            return Err(NorFlashErrorKind::OutOfBounds);
        }
        Ok(self.at + offset)
    }
}

impl<F: NorFlash> ErrorType for Region<'_, F> {
    type Error = NorFlashErrorKind;
}

impl<F: NorFlash> ReadNorFlash for Region<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let at = self.place(offset, bytes.len())?;
        self.flash.borrow_mut().read(at, bytes).map_err(|error| error.kind())
    }

    fn capacity(&self) -> usize {
        self.length as usize
    }
}

impl<F: NorFlash> NorFlash for Region<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let length = to.checked_sub(from).ok_or(NorFlashErrorKind::OutOfBounds)?;
        let at = self.place(from, length as usize)?;
        self.flash.borrow_mut().erase(at, at + length).map_err(|error| error.kind())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let at = self.place(offset, bytes.len())?;
        self.flash.borrow_mut().write(at, bytes).map_err(|error| error.kind())
    }
}

impl<F: NorFlash> Durable for Region<'_, F> {
    /// A chip has what it was given when the call returns, and so has a card that is no longer busy.
    fn sync(&mut self) -> Result<(), NorFlashErrorKind> {
        Ok(())
    }
}
