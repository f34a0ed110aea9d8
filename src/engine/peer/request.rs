//! A peer's request, as its queue keeps it.

use crate::engine::limits::{BLOCK_BYTES_MAX, PIECE_BYTES_MAX, PIECES_MAX};
use crate::engine::units::{Block, PieceIndex};

/// One request as the queue keeps it: 8 bytes, a plain number. Of zeros alone a system lends as many
/// as are wished, and memory only of those that are written to.
pub type Request = u64;

/// What stands in a place of the queue that holds none.
pub const NO_REQUEST: Request = 0;

/// A request, unpacked.
pub(super) struct Asked {
    pub piece: u32,
    pub begin: u32,
    /// At least 1 and at most [`BLOCK_BYTES_MAX`].
    pub length: u32,
    /// It is to be answered with a reject (BEP 6), not with its block.
    pub rejected: bool,
}

impl Asked {
    pub fn of(packed: Request) -> Asked {
        let part = |at: u32, bits: u32| (packed >> at) as u32 & ((1 << bits) - 1);
        Asked {
            piece: part(PIECE_AT, PIECE_BITS),
            begin: part(BEGIN_AT, BEGIN_BITS),
            length: part(LENGTH_AT, LENGTH_BITS) + 1,
            rejected: part(0, 1) == 1,
        }
    }

    pub fn packed(&self) -> Request {
        u64::from(self.piece) << PIECE_AT
            | u64::from(self.begin) << BEGIN_AT
            | u64::from(self.length - 1) << LENGTH_AT
            | u64::from(self.rejected)
    }

    pub fn block(&self) -> Block {
        Block { piece: PieceIndex(self.piece), begin: self.begin, length: self.length }
    }
}

/// What the parts of a packed request take, after one bit for whether it is rejected: together 64.
const LENGTH_BITS: u32 = BLOCK_BYTES_MAX.ilog2();
const BEGIN_BITS: u32 = PIECE_BYTES_MAX.ilog2();
const PIECE_BITS: u32 = PIECES_MAX.ilog2();
const LENGTH_AT: u32 = 1;
const BEGIN_AT: u32 = LENGTH_AT + LENGTH_BITS;
const PIECE_AT: u32 = BEGIN_AT + BEGIN_BITS;
const _: () = assert!(PIECE_AT + PIECE_BITS == u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_at_every_edge() {
        for piece in [0, 1, PIECES_MAX - 1] {
            for begin in [0, 1, PIECE_BYTES_MAX - 1] {
                for length in [1, 2, BLOCK_BYTES_MAX] {
                    for rejected in [false, true] {
                        let asked = Asked { piece, begin, length, rejected };
                        let back = Asked::of(asked.packed());
                        assert_eq!((back.block(), back.rejected), (asked.block(), rejected));
                    }
                }
            }
        }
    }
}
