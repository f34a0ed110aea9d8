//! The piece space of a torrent: its content as one run of bytes, cut into pieces.

use super::super::limits::BLOCK_BYTES_MAX;
use super::super::units::{Block, PieceIndex, Span};

/// Sizes of a torrent's content. `total_bytes` is at least 1, `piece_bytes` at least 16 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// All files together.
    pub total_bytes: u64,
    /// Every piece but the last one.
    pub piece_bytes: u32,
}

/// Why a request is out of the torrent's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// There is no such piece.
    Piece,
    /// The block is empty or reaches beyond its piece.
    Block,
    /// The block is larger than anybody asks for.
    TooLong,
}

impl Layout {
    /// How many pieces.
    pub const fn piece_count(&self) -> u32 {
        self.total_bytes.div_ceil(self.piece_bytes as u64) as u32
    }

    /// Length of `piece`, 0 for one that does not exist.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let left = self.total_bytes.saturating_sub(self.offset(piece));
        left.min(u64::from(self.piece_bytes)) as u32
    }

    /// Where `piece` begins in the content.
    pub const fn offset(&self, piece: PieceIndex) -> u64 {
        piece.0 as u64 * self.piece_bytes as u64
    }

    /// Bytes of the `have` bitfield (BEP 3).
    pub const fn bitfield_bytes(&self) -> u32 {
        self.piece_count().div_ceil(8)
    }

    /// The pieces that hold any byte of `span`.
    pub fn pieces_of(&self, span: Span) -> core::ops::Range<u32> {
        let piece_bytes = u64::from(self.piece_bytes);
        let first = span.at / piece_bytes;
        let end = if span.length == 0 { first } else { span.end().div_ceil(piece_bytes) };
        let count = u64::from(self.piece_count());
        first.min(count) as u32..end.min(count) as u32
    }

    /// Where a block that somebody asks for lies in the content.
    pub fn locate(&self, block: Block) -> Result<Span, OutOfRange> {
        if block.piece.0 >= self.piece_count() {
            return Err(OutOfRange::Piece);
        }
        if block.length > BLOCK_BYTES_MAX {
            return Err(OutOfRange::TooLong);
        }
        let piece_len = u64::from(self.piece_len(block.piece));
        if block.length == 0 || u64::from(block.begin) + u64::from(block.length) > piece_len {
            return Err(OutOfRange::Block);
        }
        let at = self.offset(block.piece) + u64::from(block.begin);
        Ok(Span { at, length: u64::from(block.length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { total_bytes: 100_000, piece_bytes: 32_768 };

    fn block(piece: u32, begin: u32, length: u32) -> Block {
        Block { piece: PieceIndex(piece), begin, length }
    }

    #[test]
    fn the_last_piece_is_what_is_left() {
        assert_eq!(LAYOUT.piece_count(), 4);
        assert_eq!(LAYOUT.piece_len(PieceIndex(2)), 32_768);
        assert_eq!(LAYOUT.piece_len(PieceIndex(3)), 100_000 - 3 * 32_768);
        assert_eq!(LAYOUT.piece_len(PieceIndex(4)), 0);
    }

    #[test]
    fn only_blocks_inside_their_piece_are_located() {
        let span = Span { at: 32_768 + 16_384, length: 16_384 };
        assert_eq!(LAYOUT.locate(block(1, 16_384, 16_384)), Ok(span));
        assert_eq!(LAYOUT.locate(block(4, 0, 1)), Err(OutOfRange::Piece));
        assert_eq!(LAYOUT.locate(block(u32::MAX, 0, 1)), Err(OutOfRange::Piece));
        assert_eq!(LAYOUT.locate(block(3, 1_696, 1)), Err(OutOfRange::Block));
        assert_eq!(LAYOUT.locate(block(0, u32::MAX, 16_384)), Err(OutOfRange::Block));
        assert_eq!(LAYOUT.locate(block(0, 0, 0)), Err(OutOfRange::Block));
        assert_eq!(LAYOUT.locate(block(0, 0, 32_769)), Err(OutOfRange::TooLong));
    }

    #[test]
    fn a_span_touches_the_pieces_it_reaches_into() {
        assert_eq!(LAYOUT.pieces_of(Span { at: 0, length: 1 }), 0..1);
        assert_eq!(LAYOUT.pieces_of(Span { at: 32_767, length: 2 }), 0..2);
        assert_eq!(LAYOUT.pieces_of(Span { at: 40_000, length: 0 }), 1..1);
        assert_eq!(LAYOUT.pieces_of(Span { at: 0, length: u64::MAX }), 0..4);
    }
}
