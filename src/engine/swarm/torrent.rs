//! An active torrent: its name, its sizes, and which of its pieces are offered.
//!
//! A torrent that is whole costs its entry and nothing else. One that is not takes a bitfield
//! from a pool the board sizes; bits stand in the order of the wire (BEP 3: the first piece is
//! the high bit of the first byte), so a bitfield is sent as it stands.

use super::super::metainfo::Layout;
use super::super::units::InfoHash;
use super::pool::{Pool, Span};

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
    Some(Span),
    /// None.
    Nothing,
}

impl Have {
    /// Whether `piece` of `count` is offered.
    pub fn contains(&self, pool: &Pool<'_>, count: u32, piece: u32) -> bool {
        match self {
            Have::All => piece < count,
            Have::Some(span) => piece < count && pool.get(*span, piece),
            Have::Nothing => false,
        }
    }

    /// Byte `offset` of the bitfield.
    pub fn byte(&self, pool: &Pool<'_>, count: u32, offset: u32) -> u8 {
        match self {
            Have::All if (offset + 1) * 8 <= count => 0xff,
            Have::All => !(0xffu8.checked_shr(count.saturating_sub(offset * 8)).unwrap_or(0)),
            Have::Some(span) => pool.bytes(*span).get(offset as usize).copied().unwrap_or(0),
            Have::Nothing => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_torrent_has_every_bit_and_no_spare_one() {
        let mut lent = [];
        let bits = Pool::new(&mut lent);
        for count in 1..70 {
            let all = (0..u32::div_ceil(count, 8)).map(|at| Have::All.byte(&bits, count, at));
            assert_eq!(all.clone().map(u8::count_ones).sum::<u32>(), count);
            assert!(all.enumerate().all(|(at, byte)| {
                (0..8).all(|bit| (byte & (0x80 >> bit) != 0) == (at as u32 * 8 + bit < count))
            }));
        }
    }
}
