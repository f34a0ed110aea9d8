//! The slots: every torrent of the library, each in a record of fixed size on a shelf.
//!
//! ```text
//! page 0    | header | zeros ..                       |    pages of 4096 bytes
//! page 1    | slot 0 | slot 1 | .. | slot 31          |
//! page 2    | slot 32 | ..                            |
//!
//! header                                     slot, 128 bytes
//!  0  magic       "PRNLSLOT"                  0  kind        1: a torrent, 2: free
//!  8  version     u32, 1 here                 1  flags       1: being fetched, 2: paused
//! 12  slot_bytes  u32, 128 in version 1       2  hash        1: v1, 2: v2
//! 16  generation  u64, checkpoints so far     3  zero
//! 24  log         u64, first of the journal's 4  facts_crc   u32; of a free one: the next free
//!                 logs that is not in here    8  info_hash   32 bytes, behind a v1 hash zeros
//! 32  used        u32, slots ever used       40  root_key    u64
//! 36  live        u32, torrents in them      48  sent_bytes  u64
//! 40  free        u32, the first free one    56  added_s     u64
//! 44  CRC of the 44 bytes before             64  volume      u64
//!                                            72  zeros, to spare
//!                                           124  CRC of the slot's number and these 124 bytes
//! ```
//!
//! Numbers are little-endian, CRCs are CRC-32, and no slot is `0xFFFF_FFFF`. Magic, version and the
//! header's CRC keep their places in every version to come, so that any release can tell the slots
//! of a newer one, which it leaves alone, from damage, which it mends. A slot's CRC is seeded with
//! its number: a page that a disk has put in the wrong place counts as damaged.
//!
//! Slots are given out from the front. One whose torrent is gone goes to the front of a list of
//! free ones that runs through the slots themselves. Only whole pages are written, and only by way
//! of [`staging`](super::staging): a sector torn in the middle of it harms no neighbour for good.

use super::super::units::InfoHash;
use super::Entry;
use super::shelf::{Named, Shelf, ShelfError, Which, u32_at, u64_at};

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A torrent.
    Torrent(Entry),
    /// Nothing any more.
    Free {
        /// The next free slot.
        next: Option<u32>,
    },
}

impl Slot {
    /// The slot of that number as bytes.
    pub fn write(&self, number: u32) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        match self {
            Slot::Torrent(entry) => {
                bytes[0] = TORRENT;
                bytes[1] = if entry.fetching { FETCHING } else { 0 };
                bytes[1] |= if entry.paused { PAUSED } else { 0 };
                let hash = entry.info_hash.bytes();
                bytes[2] = if matches!(entry.info_hash, InfoHash::V1(_)) { 1 } else { 2 };
                bytes[4..8].copy_from_slice(&entry.facts_crc.to_le_bytes());
                bytes[8..8 + hash.len()].copy_from_slice(hash);
                let numbers = [entry.root_key, entry.sent_bytes, entry.added_s, entry.volume];
                for (place, number) in bytes[40..72].chunks_exact_mut(8).zip(numbers) {
                    place.copy_from_slice(&number.to_le_bytes());
                }
            }
            Slot::Free { next } => {
                bytes[0] = FREE;
                bytes[4..8].copy_from_slice(&next.unwrap_or(NO_SLOT).to_le_bytes());
            }
        }
        let crc = crc_of(number, &bytes).to_le_bytes();
        bytes[CRC_AT..].copy_from_slice(&crc);
        bytes
    }

    /// Reads the slot of that number; `None` when it is damaged.
    pub fn parse(number: u32, bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
        if u32_at(bytes, CRC_AT) != crc_of(number, bytes) {
            return None;
        }
        match (bytes[0], bytes[2]) {
            (FREE, _) => Some(Slot::Free { next: some_slot(u32_at(bytes, 4)) }),
            (TORRENT, 1) => {
                let mut hash = [0; 20];
                hash.copy_from_slice(&bytes[8..28]);
                Some(Slot::Torrent(entry(InfoHash::V1(hash), bytes)))
            }
            (TORRENT, 2) => {
                let mut hash = [0; 32];
                hash.copy_from_slice(&bytes[8..40]);
                Some(Slot::Torrent(entry(InfoHash::V2(hash), bytes)))
            }
            _ => None,
        }
    }
}

/// What is said of all slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One more with each checkpoint.
    pub generation: u64,
    /// The first log of the journal that is not wholly in the slots.
    pub log: u64,
    /// Slots from here on were never used.
    pub used: u32,
    /// Torrents in the slots.
    pub live: u32,
    /// Where the list of free ones begins.
    pub free: Option<u32>,
}

impl Header {
    /// Whether it can be that of a shelf with room for so many slots.
    pub(super) fn fits(&self, room: u32) -> bool {
        let is_free_used = self.free.is_none_or(|free| free < self.used);
        self.used <= room && self.live <= self.used && is_free_used
    }

    /// Fills page 0, all of it.
    pub fn write(&self, page: &mut [u8]) {
        page.fill(0);
        page[..8].copy_from_slice(MAGIC);
        let head = [VERSION, SLOT_BYTES as u32];
        let tail = [self.used, self.live, self.free.unwrap_or(NO_SLOT)];
        for (place, number) in page[8..16].chunks_exact_mut(4).zip(head) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        page[16..24].copy_from_slice(&self.generation.to_le_bytes());
        page[24..32].copy_from_slice(&self.log.to_le_bytes());
        for (place, number) in page[32..44].chunks_exact_mut(4).zip(tail) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&page[..HEADER_CRC_AT]).to_le_bytes();
        page[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc);
    }
}

/// What stands where the header belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Nothing yet, and no slots either.
    Nothing,
    /// A header.
    Header(Header),
    /// Neither: it is damaged, or these are no slots.
    Garbage,
}

/// The slots on their shelf.
#[derive(Debug)]
pub struct Slots<S> {
    shelf: Named<S>,
}

impl<S: Shelf> Slots<S> {
    /// The slots on `shelf`.
    pub fn new(shelf: S) -> Slots<S> {
        Slots { shelf: Named::new(shelf, Which::Slots) }
    }

    /// Reads the header. Those of a newer release are an error.
    pub fn inspect(&mut self) -> Result<Inspection, ShelfError<S::Error>> {
        let mut bytes = [0; HEADER_BYTES];
        self.shelf.read(0, &mut bytes)?;
        if bytes == [0; HEADER_BYTES] && self.shelf.length()? <= PAGE_BYTES as u64 {
            return Ok(Inspection::Nothing);
        }
        let is_whole = crc32fast::hash(&bytes[..HEADER_CRC_AT]) == u32_at(&bytes, HEADER_CRC_AT);
        if bytes[..8] != *MAGIC || !is_whole {
            return Ok(Inspection::Garbage);
        }
        let found = u32_at(&bytes, 8);
        if found > VERSION {
            return Err(ShelfError::NewerVersion { shelf: Which::Slots, found });
        }
        if u32_at(&bytes, 12) != SLOT_BYTES as u32 {
            return Err(ShelfError::NotOurs { shelf: Which::Slots });
        }
        Ok(Inspection::Header(Header {
            generation: u64_at(&bytes, 16),
            log: u64_at(&bytes, 24),
            used: u32_at(&bytes, 32),
            live: u32_at(&bytes, 36),
            free: some_slot(u32_at(&bytes, 40)),
        }))
    }

    /// Reads a slot; `None` when it is damaged.
    pub fn read(&mut self, number: u32) -> Result<Option<Slot>, ShelfError<S::Error>> {
        let mut bytes = [0; SLOT_BYTES];
        let at = PAGE_BYTES as u64 + u64::from(number) * SLOT_BYTES as u64;
        self.shelf.read(at, &mut bytes)?;
        Ok(Slot::parse(number, &bytes))
    }

    /// Reads as many pages as fill `into`, from page `first` on.
    pub fn read_pages(&mut self, first: u32, into: &mut [u8]) -> Result<(), ShelfError<S::Error>> {
        self.shelf.read(u64::from(first) * PAGE_BYTES as u64, into)
    }

    /// Writes a page in its place.
    pub(super) fn write_page(
        &mut self,
        number: u32,
        page: &[u8],
    ) -> Result<(), ShelfError<S::Error>> {
        self.shelf.write(u64::from(number) * PAGE_BYTES as u64, page)
    }

    pub(super) fn sync(&mut self) -> Result<(), ShelfError<S::Error>> {
        self.shelf.sync()
    }

    /// How many slots the shelf is long enough for.
    pub(super) fn room(&mut self) -> Result<u32, ShelfError<S::Error>> {
        let slots = self.shelf.length()?.saturating_sub(PAGE_BYTES as u64) / SLOT_BYTES as u64;
        Ok(u32::try_from(slots).unwrap_or(NO_SLOT))
    }
}

/// The page a slot lies in.
pub fn page_of(slot: u32) -> u32 {
    1 + slot / PAGE_SLOTS
}

/// The place of a slot in its page.
pub(super) fn place_of(slot: u32) -> core::ops::Range<usize> {
    let at = (slot % PAGE_SLOTS) as usize * SLOT_BYTES;
    at..at + SLOT_BYTES
}

/// The bytes of a slot in its page, wherever that was read to.
pub(super) fn slot_in(page: &[u8], slot: u32) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes.copy_from_slice(&page[place_of(slot)]);
    bytes
}

fn entry(info_hash: InfoHash, bytes: &[u8; SLOT_BYTES]) -> Entry {
    Entry {
        info_hash,
        root_key: u64_at(bytes, 40),
        facts_crc: u32_at(bytes, 4),
        sent_bytes: u64_at(bytes, 48),
        fetching: bytes[1] & FETCHING != 0,
        paused: bytes[1] & PAUSED != 0,
        added_s: u64_at(bytes, 56),
        volume: u64_at(bytes, 64),
    }
}

fn some_slot(number: u32) -> Option<u32> {
    (number != NO_SLOT).then_some(number)
}

fn crc_of(number: u32, bytes: &[u8; SLOT_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&bytes[..CRC_AT]);
    hasher.finalize()
}

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 128;

/// What is written at once: no sector of a disk that is in use is larger.
pub const PAGE_BYTES: usize = 4096;

/// Slots in a page.
pub const PAGE_SLOTS: u32 = (PAGE_BYTES / SLOT_BYTES) as u32;

/// The version written here. 1: as pictured above.
pub const VERSION: u32 = 1;

/// Stands for no slot.
pub(super) const NO_SLOT: u32 = u32::MAX;

const HEADER_BYTES: usize = 48;
const HEADER_CRC_AT: usize = 44;
const CRC_AT: usize = SLOT_BYTES - 4;
const MAGIC: &[u8; 8] = b"PRNLSLOT";

const TORRENT: u8 = 1;
const FREE: u8 = 2;

const FETCHING: u8 = 1;
const PAUSED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::super::shelf::memory::Memory;
    use super::*;

    const ENTRY: Entry = Entry {
        info_hash: InfoHash::V2([0xAB; 32]),
        root_key: 0x0102_0304_0506_0708,
        facts_crc: 0x1112_1314,
        sent_bytes: 0x2122_2324_2526_2728,
        fetching: false,
        paused: true,
        added_s: 0x3132_3334_3536_3738,
        volume: 0x4142_4344_4546_4748,
    };

    #[test]
    fn slot_keeps_its_places() {
        let bytes = Slot::Torrent(ENTRY).write(5);
        assert_eq!(bytes[..8], [1, 2, 2, 0, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!(bytes[8..40], [0xAB; 32]);
        let firsts = [40, 48, 56, 64].map(|at| bytes[at]);
        assert_eq!(firsts, [0x08, 0x28, 0x38, 0x48]);
        assert_eq!(bytes[72..124], [0; 52]);
        let free = Slot::Free { next: Some(7) }.write(5);
        assert_eq!(free[..8], [2, 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn what_was_written_is_read_and_in_no_other_slot() {
        let v1 = Entry { info_hash: InfoHash::V1([9; 20]), fetching: true, paused: false, ..ENTRY };
        let slots = [
            Slot::Torrent(ENTRY),
            Slot::Torrent(v1),
            Slot::Free { next: None },
            Slot::Free { next: Some(0) },
        ];
        for slot in slots {
            assert_eq!(Slot::parse(3, &slot.write(3)), Some(slot));
            assert_eq!(Slot::parse(4, &slot.write(3)), None);
        }
        assert_eq!(Slot::parse(0, &[0; SLOT_BYTES]), None);
    }

    #[test]
    fn no_changed_bit_of_a_slot_goes_unnoticed() {
        let mut bytes = Slot::Torrent(ENTRY).write(1);
        for bit in 0..SLOT_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::parse(1, &bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn header_keeps_its_places_and_tells_what_it_does_not_know() {
        let header = Header { generation: 3, log: 4, used: 70, live: 60, free: Some(9) };
        let mut page = [1; PAGE_BYTES];
        header.write(&mut page);
        assert_eq!(page[..16], *b"PRNLSLOT\x01\0\0\0\x80\0\0\0");
        assert_eq!([16, 24, 32, 36, 40].map(|at| page[at]), [3, 4, 70, 60, 9]);
        let mut slots = Slots::new(Memory::default());
        assert_eq!(slots.inspect(), Ok(Inspection::Nothing));
        slots.write_page(0, &page).unwrap();
        assert_eq!(slots.inspect(), Ok(Inspection::Header(header)));
        for bit in 0..HEADER_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            slots.write_page(0, &page).unwrap();
            assert_eq!(slots.inspect(), Ok(Inspection::Garbage), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        page[8] = 2;
        let crc = crc32fast::hash(&page[..HEADER_CRC_AT]).to_le_bytes();
        page[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc);
        slots.write_page(0, &page).unwrap();
        let refusal = ShelfError::NewerVersion { shelf: Which::Slots, found: 2 };
        assert_eq!(slots.inspect(), Err(refusal));
    }

    #[test]
    fn slots_behind_a_header_that_reads_as_zeros_are_not_nothing() {
        let mut slots = Slots::new(Memory::default());
        slots.write_page(1, &[0; PAGE_BYTES]).unwrap();
        assert_eq!(slots.inspect(), Ok(Inspection::Garbage));
        assert_eq!(slots.room(), Ok(PAGE_SLOTS));
    }
}
