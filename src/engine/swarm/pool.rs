//! Bitmaps of any length, taken from one lent run of bytes and given back.
//!
//! A fetch needs bitmaps that come and go with connections and pieces: what a peer has, which
//! blocks of a piece have come. They are taken first fit, in units of 64 bytes, and stay in
//! one run each, so that a bit is one look away.
//!
//! ```text
//! lent | which units are taken, a bit each | unit | unit | unit | ...                 |
//!                                            ^^^^^^^^^^^ a span ^^^^
//! ```
//!
//! Bits stand in the order of the wire (BEP 3): the first is the high bit of the first byte. A span
//! also holds counters of 16 bits where bits are too little.

/// The pool. See the module.
pub struct Pool<'m> {
    taken: &'m mut [u8],
    units: &'m mut [u8],
    /// Nothing is free before this unit.
    first_free: usize,
    /// How many are free.
    free_count: usize,
}

/// A run of units that belongs to its holder until it is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    at: u32,
    bytes: u32,
}

impl Span {
    /// A span of nothing, which need not be given back.
    pub const EMPTY: Span = Span { at: 0, bytes: 0 };
}

impl<'m> Pool<'m> {
    /// A pool in the memory lent to it.
    pub fn new(lent: &'m mut [u8]) -> Pool<'m> {
        let units = lent.len() * 8 / (8 * UNIT_BYTES + 1);
        let (taken, units) = lent.split_at_mut(lent.len() - units * UNIT_BYTES);
        taken.fill(0);
        let free_count = units.len() / UNIT_BYTES;
        Pool { taken, units, first_free: 0, free_count }
    }

    /// How long what is lent has to be for spans of `bytes` in all: a bit for each unit beside it.
    pub const fn lent_bytes(bytes: usize) -> usize {
        let units = bytes.div_ceil(UNIT_BYTES);
        units * UNIT_BYTES + units.div_ceil(8)
    }

    /// Takes a span for so many bits, all clear.
    ///
    /// # Work
    /// One look at each unit.
    ///
    /// # When full
    /// `None`: no run of free units is long enough.
    pub fn take(&mut self, bits: u32) -> Option<Span> {
        let bytes = bits.div_ceil(8);
        let (wanted, all) = ((bytes as usize).div_ceil(UNIT_BYTES), self.units.len() / UNIT_BYTES);
        if wanted == 0 {
            return Some(Span::EMPTY);
        }
        let (mut start, mut run) = (self.first_free, 0);
        for unit in self.first_free..all {
            if self.is_taken(unit) {
                (start, run) = (unit + 1, 0);
                continue;
            }
            run += 1;
            if run == wanted {
                (start..=unit).for_each(|unit| self.taken[unit / 8] |= 1 << (unit % 8));
                if start == self.first_free {
                    self.first_free = unit + 1;
                }
                self.free_count -= wanted;
                self.units[start * UNIT_BYTES..][..bytes as usize].fill(0);
                return Some(Span { at: (start * UNIT_BYTES) as u32, bytes });
            }
        }
        None
    }

    /// Takes a span, as [`Pool::take`], unless fewer than `kept_bytes` would be free after that.
    pub fn take_but(&mut self, bits: u32, kept_bytes: usize) -> Option<Span> {
        let bytes = Pool::bytes_of(bits, 1);
        if self.free_bytes() < bytes + kept_bytes { None } else { self.take(bits) }
    }

    /// Bytes that spans of so many bits take, all together.
    pub const fn bytes_of(bits: u32, spans: usize) -> usize {
        (bits.div_ceil(8) as usize).next_multiple_of(UNIT_BYTES) * spans
    }

    /// Takes a span for so many counters, all 0. As [`Pool::take`].
    pub fn take_counters(&mut self, count: u32) -> Option<Span> {
        self.take(count.checked_mul(16)?)
    }

    /// Gives a span back.
    pub fn give_back(&mut self, span: Span) {
        let first = span.at as usize / UNIT_BYTES;
        let units = (span.bytes as usize).div_ceil(UNIT_BYTES);
        (first..first + units).for_each(|unit| self.taken[unit / 8] &= !(1 << (unit % 8)));
        self.free_count += units;
        if units > 0 {
            self.first_free = self.first_free.min(first);
        }
    }

    /// Bytes that no span holds.
    pub fn free_bytes(&self) -> usize {
        self.free_count * UNIT_BYTES
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.units[span.at as usize..][..span.bytes as usize]
    }

    /// The bytes of a span, to change.
    pub fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.units[span.at as usize..][..span.bytes as usize]
    }

    /// Bit `index`; one beyond the span is clear.
    pub fn get(&self, span: Span, index: u32) -> bool {
        let byte = self.bytes(span).get(index as usize / 8);
        byte.is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0)
    }

    /// Sets bit `index`; whether it was clear.
    pub fn set(&mut self, span: Span, index: u32) -> bool {
        let Some(byte) = self.bytes_mut(span).get_mut(index as usize / 8) else { return false };
        let bit = 0x80 >> (index % 8);
        let clear = *byte & bit == 0;
        *byte |= bit;
        clear
    }

    /// Clears bit `index`; whether it was set.
    pub fn clear(&mut self, span: Span, index: u32) -> bool {
        let Some(byte) = self.bytes_mut(span).get_mut(index as usize / 8) else { return false };
        let bit = 0x80 >> (index % 8);
        let set = *byte & bit != 0;
        *byte &= !bit;
        set
    }

    /// The first clear bit from `from` on, below `count`.
    ///
    /// # Work
    /// One look at each byte.
    pub fn first_clear(&self, span: Span, from: u32, count: u32) -> Option<u32> {
        let bytes = self.bytes(span);
        let mut index = from;
        while index < count {
            let byte = *bytes.get(index as usize / 8)? | !(0xff >> (index % 8));
            if byte != 0xff {
                let first = index / 8 * 8 + byte.leading_ones();
                return (first < count).then_some(first);
            }
            index = index / 8 * 8 + 8;
        }
        None
    }

    /// Counter `index`.
    pub fn counter(&self, span: Span, index: u32) -> u16 {
        let bytes = self.bytes(span).get(2 * index as usize..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    /// Adds to counter `index`, or takes away from it.
    pub fn count(&mut self, span: Span, index: u32, more: bool) {
        let bytes = self.bytes_mut(span).get_mut(2 * index as usize..);
        let Some(bytes) = bytes.and_then(|rest| rest.first_chunk_mut()) else { return };
        let count = u16::from_le_bytes(*bytes);
        let count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        *bytes = count.to_le_bytes();
    }

    fn is_taken(&self, unit: usize) -> bool {
        self.taken[unit / 8] & (1 << (unit % 8)) != 0
    }
}

/// The smallest span: what most torrents of ours need for a peer is a quarter of a KiB.
const UNIT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut lent = [0xaa; 5 * UNIT_BYTES + 1];
        let mut pool = Pool::new(&mut lent);
        assert_eq!(pool.free_bytes(), 5 * UNIT_BYTES);
        let spans = [512, 1_024, 512].map(|bits| pool.take(bits).unwrap());
        assert!(spans.iter().all(|span| pool.bytes(*span).iter().all(|byte| *byte == 0)));
        assert_eq!(pool.take(513), None);
        pool.give_back(spans[1]);
        let one = pool.take(8).unwrap();
        assert_eq!(pool.take(1_024), None);
        assert_eq!(pool.take(512).map(|span| span.at), Some(2 * UNIT_BYTES as u32));
        pool.give_back(one);
        pool.give_back(spans[0]);
        assert_eq!(pool.take(1_024).map(|span| span.at), Some(0));
        assert_eq!(pool.take(0), Some(Span::EMPTY));
        assert_eq!(pool.free_bytes(), UNIT_BYTES);
    }

    #[test]
    fn bits_and_counters_stay_in_their_span() {
        let mut lent = [0; 4 * UNIT_BYTES];
        let mut pool = Pool::new(&mut lent);
        let (bits, counters) = (pool.take(20).unwrap(), pool.take_counters(20).unwrap());
        assert!(pool.set(bits, 19) && !pool.set(bits, 19) && pool.get(bits, 19));
        assert!(!pool.set(bits, 600) && !pool.get(bits, 600));
        assert!(pool.clear(bits, 19) && !pool.clear(bits, 19));
        pool.count(counters, 19, true);
        pool.count(counters, 19, true);
        pool.count(counters, 19, false);
        pool.count(counters, 0, false);
        assert_eq!((pool.counter(counters, 19), pool.counter(counters, 0)), (1, 0));
        assert_eq!(pool.counter(counters, 40), 0);
    }

    #[test]
    fn the_first_clear_bit_is_found_across_bytes_and_not_beyond_the_count() {
        let mut lent = [0; 4 * UNIT_BYTES];
        let mut pool = Pool::new(&mut lent);
        let bits = pool.take(30).unwrap();
        (0..30).filter(|bit| ![3, 17, 29].contains(bit)).for_each(|bit| {
            pool.set(bits, bit);
        });
        assert_eq!(pool.first_clear(bits, 0, 30), Some(3));
        assert_eq!(pool.first_clear(bits, 4, 30), Some(17));
        assert_eq!(pool.first_clear(bits, 18, 30), Some(29));
        assert_eq!(pool.first_clear(bits, 18, 29), None);
        assert_eq!(pool.first_clear(bits, 30, 30), None);
    }
}
