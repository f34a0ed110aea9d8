//! An active torrent: its name, its sizes, and which of its pieces are offered.
//!
//! A torrent that is whole costs its entry and nothing else. One that is not takes a bitfield
//! from a pool the board sizes; bits stand in the order of the wire (BEP 3: the first piece is
//! the high bit of the first byte), so a bitfield is sent as it stands.

use super::super::metainfo::Layout;
use super::super::units::InfoHash;

/// A torrent that can be served.
#[derive(Clone, Debug)]
pub struct Torrent {
    /// Its name.
    pub info_hash: InfoHash,
    /// Sizes of its content.
    pub layout: Layout,
    /// Bytes of its `info` dictionary, which peers can ask for (BEP 9).
    pub metadata_bytes: u32,
    /// Which pieces are offered.
    pub have: Have,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// Bytes of content sent since it became active.
    pub sent_bytes: u64,
}

/// Which pieces of a torrent are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// Every piece.
    All,
    /// Those whose bit is set.
    Some(BitSpan),
    /// None.
    Nothing,
}

/// A torrent's bits in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitSpan {
    at: u32,
    bytes: u32,
}

impl Have {
    /// Whether `piece` of `count` is offered.
    pub fn contains(&self, bits: &Bits<'_>, count: u32, piece: u32) -> bool {
        match self {
            Have::All => piece < count,
            Have::Some(span) => piece < count && bits.get(*span, piece),
            Have::Nothing => false,
        }
    }

    /// Byte `offset` of the bitfield.
    pub fn byte(&self, bits: &Bits<'_>, count: u32, offset: u32) -> u8 {
        match self {
            Have::All if (offset + 1) * 8 <= count => 0xff,
            Have::All => !(0xffu8.checked_shr(count.saturating_sub(offset * 8)).unwrap_or(0)),
            Have::Some(span) => bits.of(*span).get(offset as usize).copied().unwrap_or(0),
            Have::Nothing => 0,
        }
    }
}

/// The pool of bitfields: taken once for a torrent, kept while it is active.
pub struct Bits<'m> {
    pool: &'m mut [u8],
    taken: usize,
}

impl<'m> Bits<'m> {
    /// A pool in the memory lent to it.
    pub fn new(pool: &'m mut [u8]) -> Bits<'m> {
        Bits { pool, taken: 0 }
    }

    /// Bits for `count` pieces, all clear; `None` when the pool has too little left.
    pub fn take(&mut self, count: u32) -> Option<BitSpan> {
        let bytes = count.div_ceil(8);
        let end = self.taken.checked_add(bytes as usize).filter(|end| *end <= self.pool.len())?;
        let span = BitSpan { at: self.taken as u32, bytes };
        self.pool[self.taken..end].fill(0);
        self.taken = end;
        Some(span)
    }

    /// Bits for `count` pieces, all set.
    pub fn take_full(&mut self, count: u32) -> Option<BitSpan> {
        let span = self.take(count)?;
        (0..count).for_each(|piece| self.set(span, piece));
        Some(span)
    }

    /// Sets the bit of `piece`.
    pub fn set(&mut self, span: BitSpan, piece: u32) {
        if let Some(byte) = self.of_mut(span).get_mut(piece as usize / 8) {
            *byte |= 0x80 >> (piece % 8);
        }
    }

    /// Clears the bit of `piece`.
    pub fn clear(&mut self, span: BitSpan, piece: u32) {
        if let Some(byte) = self.of_mut(span).get_mut(piece as usize / 8) {
            *byte &= !(0x80 >> (piece % 8));
        }
    }

    fn get(&self, span: BitSpan, piece: u32) -> bool {
        let byte = self.of(span).get(piece as usize / 8);
        byte.is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
    }

    fn of(&self, span: BitSpan) -> &[u8] {
        &self.pool[span.at as usize..][..span.bytes as usize]
    }

    fn of_mut(&mut self, span: BitSpan) -> &mut [u8] {
        &mut self.pool[span.at as usize..][..span.bytes as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_torrent_has_every_bit_and_no_spare_one() {
        let bits = Bits::new(&mut []);
        for count in 1..70 {
            let all = (0..u32::div_ceil(count, 8)).map(|at| Have::All.byte(&bits, count, at));
            assert_eq!(all.clone().map(u8::count_ones).sum::<u32>(), count);
            assert!(all.enumerate().all(|(at, byte)| {
                (0..8).all(|bit| (byte & (0x80 >> bit) != 0) == (at as u32 * 8 + bit < count))
            }));
        }
    }

    #[test]
    fn a_pool_gives_what_it_has_and_no_more() {
        let mut pool = [0xaa; 4];
        let mut bits = Bits::new(&mut pool);
        let first = bits.take_full(9).unwrap();
        let second = bits.take(16).unwrap();
        assert_eq!(bits.take(1), None);
        bits.clear(first, 8);
        bits.set(second, 15);
        let (first, second) = (Have::Some(first), Have::Some(second));
        assert!(first.contains(&bits, 9, 7) && !first.contains(&bits, 9, 8));
        assert!(second.contains(&bits, 16, 15) && !second.contains(&bits, 16, 0));
        assert_eq!((first.byte(&bits, 9, 0), second.byte(&bits, 16, 1)), (0xff, 1));
    }
}
