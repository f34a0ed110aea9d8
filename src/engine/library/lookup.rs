//! The look-up: in which slots a torrent may be, by its name or by the place of its content.
//!
//! ```text
//!    0  magic       "PRNLLOOK"        page, 512 bytes: 4096, 4608, ..
//!    8  version     u32, 1 here         0  CRC of the page's number and the 508 bytes behind
//!   12  pages       u32                 4  flags   1: more may be in the next page
//!   16  generation  u64, of the slots   5  zeros
//!   24  CRC of the 24 bytes before      8  84 cells: a slot and one, u32; a tag, u16
//! ```
//!
//! Numbers are little-endian, CRCs are CRC-32. Empty pages have their CRC too, so that one of zeros,
//! which is how some disks lose one, is known to be damaged.
//!
//! A hash table of pages: a key stands for a page, and its cell lies there or, that being full, in
//! the next one, as far as the flags lead. Its tag leaves hardly any other slot to be tried: finding
//! a torrent costs one read here and one of its slot. Who finds compares with the slot; a cell that
//! leads nowhere does no harm.
//!
//! It is a cache, and never repaired: when it is missing, of another size or not of the slots'
//! generation, or when a page of it is damaged, it is *doubted*, cleared, and filled again from one
//! reading of the slots. Its header, which lies in a sector of its own, is written after all
//! pages are durable, so a cut while pages are written leaves an older generation's: pages need none
//! of their own.

use super::super::units::InfoHash;
use super::shelf::{Named, Shelf, ShelfError, Which, u32_at, u64_at};

/// What a cell is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The name of a torrent.
    Name(InfoHash),
    /// Where its content lies, see [`root_key`](super::root_key).
    Root(u64),
}

impl Key {
    /// Spreads over all bits what is a hash already.
    fn mixed(&self) -> u64 {
        let number = match self {
            Key::Name(info_hash) => u64_at(info_hash.bytes(), 0),
            Key::Root(root_key) => *root_key,
        };
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    }

    /// The page of so many in which it is at home.
    fn home(&self, pages: u32) -> u32 {
        (((self.mixed() >> 32) * u64::from(pages)) >> 32) as u32
    }

    /// Names have even tags, places odd ones: no cell is for both.
    fn tag(&self) -> u16 {
        self.mixed() as u16 & !1 | u16::from(matches!(self, Key::Root(_)))
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError<E> {
    /// It is damaged, or too small: it has to be filled again.
    Doubted,
    /// Its shelf failed.
    Shelf(ShelfError<E>),
}

impl<E> From<ShelfError<E>> for LookupError<E> {
    fn from(error: ShelfError<E>) -> LookupError<E> {
        LookupError::Shelf(error)
    }
}

/// The look-up on its shelf.
#[derive(Debug)]
pub struct Lookup<S> {
    shelf: Named<S>,
    pages: u32,
}

impl<S: Shelf> Lookup<S> {
    /// The look-up on `shelf`, with room for so many torrents.
    pub fn new(shelf: S, torrents_max: u32) -> Lookup<S> {
        Lookup { shelf: Named::new(shelf, Which::Lookup), pages: pages_for(torrents_max) }
    }

    /// Takes it for one with room for so many torrents.
    pub fn resize(&mut self, torrents_max: u32) {
        self.pages = pages_for(torrents_max);
    }

    /// Whether it is of this size and tells of the slots of that generation.
    pub fn is_of(&mut self, generation: u64) -> Result<bool, ShelfError<S::Error>> {
        let mut header = [0; HEADER_BYTES];
        self.shelf.read(0, &mut header)?;
        Ok(header == self.header(generation))
    }

    /// Makes it an empty one with room for so many torrents, which nobody vouches for.
    ///
    /// # Work
    /// Writes all pages, from the first to the last.
    pub fn clear(&mut self, torrents_max: u32) -> Result<(), ShelfError<S::Error>> {
        self.resize(torrents_max);
        self.shelf.clear()?;
        // No page may be written while an old header could come back above it.
        self.shelf.sync()?;
        for first in (0..self.pages).step_by(PAGES_AT_ONCE) {
            let mut blank = [0; PAGES_AT_ONCE * PAGE_BYTES];
            let numbers = first..self.pages.min(first + PAGES_AT_ONCE as u32);
            let bytes = &mut blank[..numbers.len() * PAGE_BYTES];
            for (number, place) in numbers.zip(bytes.chunks_exact_mut(PAGE_BYTES)) {
                place.copy_from_slice(&Page([0; PAGE_BYTES]).sealed(number).0);
            }
            self.shelf.write(place(first), bytes)?;
        }
        Ok(())
    }

    /// Makes its pages durable. From then on it is of that generation.
    pub fn vouch(&mut self, generation: u64, changed: bool) -> Result<(), ShelfError<S::Error>> {
        if changed {
            self.shelf.sync()?;
        }
        // Lost, it costs the next start a reading of the slots, and a sync would cost every one.
        self.shelf.write(0, &self.header(generation))
    }

    /// The slots in which something of that key may be.
    pub fn find(&mut self, key: Key) -> Search<'_, S> {
        let number = key.home(self.pages);
        let page = Page([0; PAGE_BYTES]);
        Search { lookup: self, tag: key.tag(), number, page, next_cell: None, steps: 0 }
    }

    /// Says that something of that key is in `slot`.
    ///
    /// # When full
    /// It is doubted: a larger one has to be made.
    pub fn insert(&mut self, key: Key, slot: u32) -> Result<(), LookupError<S::Error>> {
        let cell = Cell { slot, tag: key.tag() };
        let mut number = key.home(self.pages);
        let mut free = None;
        for _ in 0..self.pages {
            let mut page = self.load(number)?;
            if page.position(|found| found == Some(cell)).is_some() {
                return Ok(());
            }
            match page.position(|found| found.is_none()) {
                Some(place) if !page.is_spilled() && free.is_none() => {
                    page.set(place, Some(cell));
                    return Ok(self.store(number, &mut page)?);
                }
                Some(_) if free.is_none() => free = Some(number),
                _ => {}
            }
            if !page.is_spilled() {
                if free.is_some() {
                    break;
                }
                page.spill();
                self.store(number, &mut page)?;
            }
            number = (number + 1) % self.pages;
        }
        let free = free.ok_or(LookupError::Doubted)?;
        let mut page = self.load(free)?;
        let place = page.position(|found| found.is_none()).ok_or(LookupError::Doubted)?;
        page.set(place, Some(cell));
        Ok(self.store(free, &mut page)?)
    }

    /// Says that nothing of that key is in `slot` any more.
    pub fn remove(&mut self, key: Key, slot: u32) -> Result<(), LookupError<S::Error>> {
        let cell = Cell { slot, tag: key.tag() };
        let mut number = key.home(self.pages);
        for _ in 0..self.pages {
            let mut page = self.load(number)?;
            if let Some(place) = page.position(|found| found == Some(cell)) {
                page.set(place, None);
                return Ok(self.store(number, &mut page)?);
            }
            if !page.is_spilled() {
                break;
            }
            number = (number + 1) % self.pages;
        }
        Ok(())
    }

    fn load(&mut self, number: u32) -> Result<Page, LookupError<S::Error>> {
        let mut page = Page([0; PAGE_BYTES]);
        self.shelf.read(place(number), &mut page.0)?;
        let is_whole = u32_at(&page.0, 0) == page.crc(number);
        if is_whole { Ok(page) } else { Err(LookupError::Doubted) }
    }

    fn store(&mut self, number: u32, page: &mut Page) -> Result<(), ShelfError<S::Error>> {
        self.shelf.write(place(number), &page.sealed(number).0)
    }

    fn header(&self, generation: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.pages.to_le_bytes());
        header[16..24].copy_from_slice(&generation.to_le_bytes());
        let crc = crc32fast::hash(&header[..24]).to_le_bytes();
        header[24..].copy_from_slice(&crc);
        header
    }
}

/// A look for one key, slot by slot.
pub struct Search<'l, S> {
    lookup: &'l mut Lookup<S>,
    tag: u16,
    /// The page it is in.
    number: u32,
    page: Page,
    /// Where in the page it goes on; nothing before the page was read.
    next_cell: Option<usize>,
    /// Pages read.
    steps: u32,
}

impl<S: Shelf> Search<'_, S> {
    /// The next slot to be tried; `None` when there is no other.
    pub fn step(&mut self) -> Result<Option<u32>, LookupError<S::Error>> {
        loop {
            let first = match self.next_cell {
                Some(first) => first,
                None if self.steps == self.lookup.pages => return Ok(None),
                None => {
                    self.page = self.lookup.load(self.number)?;
                    self.steps += 1;
                    0
                }
            };
            let tag = self.tag;
            let mut cells = self.page.cells().enumerate().skip(first);
            let hit = cells.find_map(|(at, cell)| Some((at, cell.filter(|cell| cell.tag == tag)?)));
            if let Some((at, cell)) = hit {
                self.next_cell = Some(at + 1);
                return Ok(Some(cell.slot));
            }
            if !self.page.is_spilled() {
                self.next_cell = Some(CELLS);
                return Ok(None);
            }
            self.next_cell = None;
            self.number = (self.number + 1) % self.lookup.pages;
        }
    }
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    slot: u32,
    tag: u16,
}

/// A page in memory.
struct Page([u8; PAGE_BYTES]);

impl Page {
    fn cells(&self) -> impl Iterator<Item = Option<Cell>> {
        self.0[CELLS_AT..].chunks_exact(CELL_BYTES).map(|bytes| {
            let slot = u32_at(bytes, 0).checked_sub(1)?;
            Some(Cell { slot, tag: u16::from_le_bytes([bytes[4], bytes[5]]) })
        })
    }

    fn position(&self, is: impl Fn(Option<Cell>) -> bool) -> Option<usize> {
        self.cells().position(is)
    }

    fn set(&mut self, place: usize, cell: Option<Cell>) {
        let bytes = &mut self.0[CELLS_AT + place * CELL_BYTES..][..CELL_BYTES];
        let (slot, tag) = cell.map_or((0, 0), |cell| (cell.slot + 1, cell.tag));
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        bytes[4..].copy_from_slice(&tag.to_le_bytes());
    }

    /// What is at home here may be in the next page. Only another filling takes that back.
    fn is_spilled(&self) -> bool {
        self.0[4] & SPILLED != 0
    }

    fn spill(&mut self) {
        self.0[4] |= SPILLED;
    }

    /// With its CRC, as page of that number.
    fn sealed(&mut self, number: u32) -> &Page {
        let crc = self.crc(number).to_le_bytes();
        self.0[..4].copy_from_slice(&crc);
        self
    }

    fn crc(&self, number: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.update(&self.0[4..]);
        hasher.finalize()
    }
}

/// Pages for so many torrents, each with two cells: two cells in three are then in use, and one page
/// in some thousands is full.
fn pages_for(torrents_max: u32) -> u32 {
    let cells = 2 * u64::from(torrents_max);
    u32::try_from(cells.div_ceil(CELLS_USED)).unwrap_or(u32::MAX).max(1)
}

fn place(number: u32) -> u64 {
    HEADER_SECTOR_BYTES + u64::from(number) * PAGE_BYTES as u64
}

/// The version written here. 1: as pictured above. One of another version is filled again.
pub const VERSION: u32 = 1;

/// No sector of a disk that is in use is larger.
const HEADER_SECTOR_BYTES: u64 = 4096;

const HEADER_BYTES: usize = 28;
const MAGIC: &[u8; 8] = b"PRNLLOOK";
const PAGE_BYTES: usize = 512;

/// Pages that are cleared with one write, of 8 KiB on the stack.
const PAGES_AT_ONCE: usize = 16;

const CELLS_AT: usize = 8;
const CELL_BYTES: usize = 6;
const CELLS: usize = (PAGE_BYTES - CELLS_AT) / CELL_BYTES;

/// Cells of a page that are in use, on average, when the library is full.
const CELLS_USED: u64 = 56;

const SPILLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::super::shelf::memory::Memory;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn key(number: u32) -> Key {
        Key::Root(super::super::root_key(&number.to_le_bytes()))
    }

    fn empty(torrents_max: u32) -> Lookup<Memory> {
        let mut lookup = Lookup::new(Memory::default(), 0);
        lookup.clear(torrents_max).unwrap();
        lookup
    }

    fn found<S: Shelf<Error: std::fmt::Debug>>(lookup: &mut Lookup<S>, key: Key) -> Vec<u32> {
        let mut search = lookup.find(key);
        std::iter::from_fn(|| search.step().unwrap()).collect()
    }

    #[test]
    fn what_was_put_in_is_found_and_what_was_taken_out_is_not() {
        for torrents_max in [1, 100, 1_000] {
            let mut lookup = empty(torrents_max);
            for slot in 0..2 * torrents_max {
                lookup.insert(key(slot), slot).unwrap();
                lookup.insert(key(slot), slot).unwrap();
            }
            for slot in (0..2 * torrents_max).step_by(2) {
                lookup.remove(key(slot), slot).unwrap();
                lookup.remove(key(slot), slot).unwrap();
            }
            for slot in 0..2 * torrents_max {
                let is_there = found(&mut lookup, key(slot)).contains(&slot);
                assert_eq!(is_there, slot % 2 == 1, "{slot} of {torrents_max}");
            }
        }
    }

    #[test]
    fn a_full_one_takes_half_again_as_much_and_tries_hardly_any_other_slot() {
        let torrents_max = 20_000;
        let mut lookup = empty(torrents_max);
        for slot in 0..2 * torrents_max {
            lookup.insert(key(slot), slot).unwrap();
        }
        let before = lookup.shelf_mut().reads;
        let tried: usize =
            (0..2 * torrents_max).map(|slot| found(&mut lookup, key(slot)).len()).sum();
        let reads = lookup.shelf_mut().reads - before;
        assert!(tried <= 40_100 && reads <= 40_100, "{tried} slots tried, {reads} reads");
        let mut slot = 2 * torrents_max;
        while lookup.insert(key(slot), slot).is_ok() {
            slot += 1;
        }
        assert!(slot > 3 * torrents_max - 100, "{slot}");
        assert_eq!(lookup.insert(key(slot), slot), Err(LookupError::Doubted));
    }

    #[test]
    fn many_under_one_key_are_all_found() {
        let mut lookup = empty(300);
        for slot in 0..400 {
            lookup.insert(Key::Root(1), slot).unwrap();
        }
        for slot in 0..200 {
            lookup.remove(Key::Root(1), slot).unwrap();
        }
        lookup.insert(Key::Root(1), 7).unwrap();
        lookup.insert(Key::Root(1), 399).unwrap();
        let slots = found(&mut lookup, Key::Root(1));
        assert_eq!(slots.len(), 201);
        let slots: BTreeSet<u32> = slots.into_iter().collect();
        assert!(slots.into_iter().eq([7].into_iter().chain(200..400)));
    }

    #[test]
    fn a_name_and_a_place_of_the_same_number_are_two() {
        let mut lookup = empty(1);
        let name = Key::Name(InfoHash::V1([1; 20]));
        let root = Key::Root(u64::from_le_bytes([1; 8]));
        lookup.insert(name, 3).unwrap();
        assert!(found(&mut lookup, root).is_empty());
        lookup.insert(root, 3).unwrap();
        lookup.remove(root, 3).unwrap();
        assert_eq!(found(&mut lookup, name), [3]);
    }

    #[test]
    fn a_page_with_any_bit_changed_is_doubted() {
        let mut lookup = empty(1);
        lookup.insert(key(1), 1).unwrap();
        for bit in 0..PAGE_BYTES * 8 {
            let byte = HEADER_SECTOR_BYTES as usize + bit / 8;
            lookup.shelf_mut().bytes[byte] ^= 1 << (bit % 8);
            assert_eq!(lookup.find(key(1)).step(), Err(LookupError::Doubted), "bit {bit}");
            lookup.shelf_mut().bytes[byte] ^= 1 << (bit % 8);
        }
        assert_eq!(found(&mut lookup, key(1)), [1]);
        lookup.shelf_mut().bytes[HEADER_SECTOR_BYTES as usize..].fill(0);
        assert_eq!(lookup.find(key(1)).step(), Err(LookupError::Doubted));
    }

    #[test]
    fn it_is_of_one_size_and_generation_or_not_at_all() {
        let mut lookup = empty(1_000);
        assert_eq!(lookup.is_of(0), Ok(false));
        lookup.insert(key(1), 1).unwrap();
        lookup.vouch(7, true).unwrap();
        assert_eq!((lookup.is_of(7), lookup.is_of(8)), (Ok(true), Ok(false)));
        let mut other = Lookup::new(lookup.shelf_mut(), 2_000);
        assert_eq!(other.is_of(7), Ok(false));
        assert_eq!(other.clear(1_000), Ok(()));
        assert_eq!(lookup.is_of(7), Ok(false));
        assert!(found(&mut lookup, key(1)).is_empty());
    }

    impl Lookup<Memory> {
        fn shelf_mut(&mut self) -> &mut Memory {
            &mut self.shelf.shelf
        }
    }
}
