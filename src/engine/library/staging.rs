//! The staging: pages on their way to the [`slots`](super::slots), whole before any slot is touched.
//!
//! ```text
//!     0  magic       "PRNLSTAG"            4096  the first page's number, u32, and four zeros
//!     8  version     u32, 1 here           4104  its 4096 bytes
//!    12  count       u32, pages            8200  the second page's number ..
//!    16  generation  u64, of the slots
//!                    once they are there
//!    24  hash        SHA-1 of all pages
//!                    with their numbers
//!    44  CRC of the 44 bytes before
//! ```
//!
//! Numbers are little-endian, the CRC is CRC-32; magic, version and the header's CRC keep their
//! places in every version to come. The pages are not under a CRC: slots end with their own, and a
//! CRC does not see it when one that is whole takes the place of another.
//!
//! A checkpoint puts its pages here, seals them with a header and syncs; then it lands them in the
//! slots and syncs these. A cut before the first sync leaves a staging that is not whole, which is
//! nothing, and slots that were not touched. A cut after it leaves a whole one, which is landed at
//! the next start, however often: a slot that was torn, or its neighbours, are written again. That
//! a staging is done with is not synced: landing it once more changes nothing.

use super::super::digest::PieceHasher;
use super::shelf::{Named, Shelf, ShelfError, Which, u32_at, u64_at};
use super::slots::{PAGE_BYTES, Slots};

/// A staging that was found, or made, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its pages.
    pub count: u32,
    /// Of the slots once its pages are there.
    pub generation: u64,
}

/// The staging on its shelf.
pub struct Staging<S> {
    shelf: Named<S>,
    /// Pages put so far.
    count: u32,
    /// Of these, with their numbers.
    hasher: PieceHasher,
}

impl<S: Shelf> Staging<S> {
    /// The staging on `shelf`.
    pub fn new(shelf: S) -> Staging<S> {
        let shelf = Named::new(shelf, Which::Staging);
        Staging { shelf, count: 0, hasher: PieceHasher::default() }
    }

    /// Finds out whether there is a whole one, by way of `room`, which holds a page.
    ///
    /// # Work
    /// Reads its header, and its pages only if that says that there are any.
    pub fn inspect(&mut self, room: &mut [u8]) -> Result<Option<Staged>, ShelfError<S::Error>> {
        let mut header = [0; HEADER_BYTES];
        self.shelf.read(0, &mut header)?;
        let is_whole = crc32fast::hash(&header[..CRC_AT]) == u32_at(&header, CRC_AT);
        if header[..8] != *MAGIC || !is_whole {
            return Ok(None);
        }
        let found = u32_at(&header, 8);
        if found > VERSION {
            return Err(ShelfError::NewerVersion { shelf: Which::Staging, found });
        }
        let staged = Staged { count: u32_at(&header, 12), generation: u64_at(&header, 16) };
        if place(staged.count) > self.shelf.length()? {
            return Ok(None);
        }
        let mut hasher = PieceHasher::default();
        for index in 0..staged.count {
            let (mut number, page) = ([0; NUMBER_BYTES], &mut room[..PAGE_BYTES]);
            self.shelf.read(place(index), &mut number)?;
            self.shelf.read(place(index) + NUMBER_BYTES as u64, page)?;
            hasher.update(&number);
            hasher.update(page);
        }
        Ok((hasher.finish() == header[24..CRC_AT]).then_some(staged))
    }

    /// Begins an empty one.
    pub fn begin(&mut self) {
        (self.count, self.hasher) = (0, PieceHasher::default());
    }

    /// Puts a page into it.
    pub fn put(&mut self, number: u32, page: &[u8]) -> Result<(), ShelfError<S::Error>> {
        let mut head = [0; NUMBER_BYTES];
        head[..4].copy_from_slice(&number.to_le_bytes());
        self.shelf.write(place(self.count), &head)?;
        self.shelf.write(place(self.count) + NUMBER_BYTES as u64, page)?;
        self.hasher.update(&head);
        self.hasher.update(page);
        self.count += 1;
        Ok(())
    }

    /// Makes what was put into it whole and durable.
    pub fn seal(&mut self, generation: u64) -> Result<Staged, ShelfError<S::Error>> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.count.to_le_bytes());
        header[16..24].copy_from_slice(&generation.to_le_bytes());
        header[24..CRC_AT].copy_from_slice(&self.hasher.finish());
        let crc = crc32fast::hash(&header[..CRC_AT]).to_le_bytes();
        header[CRC_AT..].copy_from_slice(&crc);
        self.shelf.write(0, &header)?;
        self.shelf.sync()?;
        Ok(Staged { count: self.count, generation })
    }

    /// Writes the pages of a whole one in their places and makes them durable.
    pub fn land(
        &mut self,
        staged: Staged,
        slots: &mut Slots<S>,
        room: &mut [u8],
    ) -> Result<(), ShelfError<S::Error>> {
        for index in 0..staged.count {
            let (mut number, page) = ([0; NUMBER_BYTES], &mut room[..PAGE_BYTES]);
            self.shelf.read(place(index), &mut number)?;
            self.shelf.read(place(index) + NUMBER_BYTES as u64, page)?;
            slots.write_page(u32_at(&number, 0), page)?;
        }
        slots.sync()
    }

    /// Makes it nothing. Durable or not makes no difference but to the next start's work.
    pub fn dismiss(&mut self) -> Result<(), ShelfError<S::Error>> {
        self.shelf.write(0, &[0; HEADER_BYTES])
    }
}

/// Where a page's number stands, its bytes behind.
fn place(index: u32) -> u64 {
    PAGE_BYTES as u64 + u64::from(index) * (NUMBER_BYTES + PAGE_BYTES) as u64
}

/// The version written here. 1: as pictured above.
pub const VERSION: u32 = 1;

const NUMBER_BYTES: usize = 8;
const HEADER_BYTES: usize = 48;
const CRC_AT: usize = 44;
const MAGIC: &[u8; 8] = b"PRNLSTAG";

#[cfg(test)]
mod tests {
    use super::super::shelf::memory::Memory;
    use super::super::slots::{Slot, page_of};
    use super::*;

    fn staged(staging: &mut Staging<&mut Memory>) -> Staged {
        staging.begin();
        let mut page = [0; PAGE_BYTES];
        page[..128].copy_from_slice(&Slot::Free { next: None }.write(64));
        staging.put(page_of(64), &page).unwrap();
        staging.put(1, &[7; PAGE_BYTES]).unwrap();
        staging.seal(5).unwrap()
    }

    #[test]
    fn what_was_put_lands_in_its_place_and_again_as_well() {
        let mut memory = Memory::default();
        let mut staging = Staging::new(&mut memory);
        let mut room = [0; PAGE_BYTES];
        assert_eq!(staging.inspect(&mut room), Ok(None));
        let staged = staged(&mut staging);
        assert_eq!(staging.inspect(&mut room), Ok(Some(staged)));
        let mut shelf = Memory::default();
        let mut slots = Slots::new(&mut shelf);
        for _ in 0..2 {
            staging.land(staged, &mut slots, &mut room).unwrap();
            assert_eq!(slots.read(64), Ok(Some(Slot::Free { next: None })));
        }
        staging.dismiss().unwrap();
        assert_eq!(staging.inspect(&mut room), Ok(None));
        assert_eq!((memory.syncs, shelf.syncs), (1, 2));
        assert_eq!(shelf.bytes[PAGE_BYTES..2 * PAGE_BYTES], [7; PAGE_BYTES]);
    }

    #[test]
    fn one_that_is_not_whole_is_nothing() {
        let (mut memory, mut room) = (Memory::default(), [0; PAGE_BYTES]);
        staged(&mut Staging::new(&mut memory));
        let places = [0, 12, 20, 26, 30, 4096, 4104, 8199, 8200, 12295];
        for at in places {
            memory.bytes[at] ^= 1;
            assert_eq!(Staging::new(&mut memory).inspect(&mut room), Ok(None), "byte {at}");
            memory.bytes[at] ^= 1;
        }
        let whole = memory.bytes.len();
        memory.bytes.truncate(whole - 1);
        assert_eq!(Staging::new(&mut memory).inspect(&mut room), Ok(None));
    }

    #[test]
    fn one_with_a_whole_slot_of_another_is_nothing() {
        let (mut memory, mut room) = (Memory::default(), [0; PAGE_BYTES]);
        staged(&mut Staging::new(&mut memory));
        let other = Slot::Free { next: Some(3) }.write(64);
        memory.bytes[4104..4104 + other.len()].copy_from_slice(&other);
        assert_eq!(Staging::new(&mut memory).inspect(&mut room), Ok(None));
    }

    #[test]
    fn one_of_a_newer_release_is_refused() {
        let (mut memory, mut room) = (Memory::default(), [0; PAGE_BYTES]);
        staged(&mut Staging::new(&mut memory));
        memory.bytes[8] = 2;
        let crc = crc32fast::hash(&memory.bytes[..CRC_AT]).to_le_bytes();
        memory.bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc);
        let refusal = ShelfError::NewerVersion { shelf: Which::Staging, found: 2 };
        assert_eq!(Staging::new(&mut memory).inspect(&mut room), Err(refusal));
    }
}
