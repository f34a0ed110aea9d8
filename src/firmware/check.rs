//! The slow pass over the content after a start: every piece is hashed where it lies.
//!
//! Before the first pass has found the share whole nothing is offered; at later starts it is
//! offered at once, and the pass takes back what has rotted. A turn of the loop hashes a little.

use super::share::Share;
use crate::engine::digest::PieceHasher;
use crate::engine::units::{PieceIndex, Span};
use embedded_storage::nor_flash::NorFlash;

/// How far the pass has come.
#[derive(Default)]
pub struct Check {
    piece: u32,
    /// Bytes of the piece that have been hashed.
    at: u32,
    hasher: PieceHasher,
    /// Pieces that are not as they should be.
    pub bad: u32,
    /// Of those, pieces that could not be read.
    unread: u32,
    /// How often this piece could not be read.
    failures: u8,
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// This piece is not what the metainfo says, or cannot be read.
    Bad(PieceIndex),
    /// Every piece has been hashed.
    Done,
}

impl Check {
    /// Hashes the next [`STEP_BYTES`], through `scratch`.
    pub fn step<F: NorFlash>(&mut self, share: &Share<'_, F>, scratch: &mut [u8]) -> Step {
        let layout = share.head.layout;
        let piece = PieceIndex(self.piece);
        if piece.0 >= layout.piece_count() {
            return Step::Done;
        }
        let whole = layout.piece_len(piece);
        let length = (whole - self.at).min(STEP_BYTES);
        let span = Span { at: layout.offset(piece) + u64::from(self.at), length: length.into() };
        let read = share.hash(span, &mut self.hasher, scratch);
        self.at += length;
        if read.is_ok() && self.at < whole {
            return Step::More;
        }
        self.at = 0;
        let hash = self.hasher.finish();
        if read.is_err() && self.failures < TRIES - 1 {
            self.failures += 1;
            return Step::More;
        }
        (self.piece, self.failures) = (self.piece + 1, 0);
        if read.is_ok() && share.expected(piece) == Ok(hash) {
            return Step::More;
        }
        self.bad += 1;
        self.unread += u32::from(read.is_err());
        Step::Bad(piece)
    }

    /// Whether all that is wrong is that something could not be read.
    pub fn is_in_doubt(&self) -> bool {
        self.unread > 0 && self.unread == self.bad
    }
}

/// A piece that cannot be read is tried so often.
const TRIES: u8 = 3;

/// Hashed in one turn of the loop: some milliseconds on the slowest board.
const STEP_BYTES: u32 = 4096;
