//! The share of an image: its head in memory, everything else read where it lies.

use super::memory::BITS_BYTES;
use super::region::Region;
use crate::engine::digest::PieceHasher;
use crate::engine::image::{HEAD_BYTES, Head};
use crate::engine::peer::serve::{Serving, Source};
use crate::engine::swarm::torrent::{Have, Torrent};
use crate::engine::units::{PieceIndex, Span};
use core::cell::{Cell, RefCell};
use core::fmt;
use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

/// A share on its card or flash.
pub struct Share<'f, F: NorFlash> {
    /// What the image says of itself.
    pub head: Head<'f>,
    flash: &'f RefCell<F>,
    /// Why the last read that failed did.
    failure: Cell<Option<NorFlashErrorKind>>,
}

/// Why there is nothing to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// The card or flash could not be read.
    Unreadable(NorFlashErrorKind),
    /// The image says why not.
    Refused(&'static str),
}

impl fmt::Display for NoShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoShare::Unreadable(kind) => write!(f, "the card or flash cannot be read: {kind:?}"),
            NoShare::Refused(why) => f.write_str(why),
        }
    }
}

impl<'f, F: NorFlash> Share<'f, F> {
    /// Opens the image at the front of `flash`, which was made for `board`. Its metainfo is read
    /// once, through `scratch`, and held against its checksum.
    #[inline(never)]
    pub fn open(
        flash: &'f RefCell<F>,
        head: &'f [u8; HEAD_BYTES],
        board: &str,
        scratch: &mut [u8],
    ) -> Result<Share<'f, F>, NoShare> {
        let capacity = flash.borrow().capacity() as u64;
        let head = Head::parse(head).map_err(|error| NoShare::Refused(error.why()))?;
        if head.board != board {
            return Err(NoShare::Refused("the image was made for another board"));
        }
        if let Some(objection) = head.objection(capacity.min(u64::from(u32::MAX))) {
            return Err(NoShare::Refused(objection));
        }
        if head.layout.piece_count() > 8 * BITS_BYTES as u32 {
            return Err(NoShare::Refused("it has more pieces than the board has bits for"));
        }
        let unit = F::ERASE_SIZE as u64;
        if !head.journal.at.is_multiple_of(unit) || !head.journal.length.is_multiple_of(2 * unit) {
            return Err(NoShare::Refused("its journal does not lie on whole erase units"));
        }
        let share = Share { head, flash, failure: Cell::default() };
        let (mut crc, mut at) = (crc32fast::Hasher::new(), 0);
        while at < share.head.metainfo.length {
            let length = (share.head.metainfo.length - at).min(scratch.len() as u64) as usize;
            let part = &mut scratch[..length];
            share.read(share.head.metainfo.at + at, part).map_err(NoShare::Unreadable)?;
            crc.update(part);
            at += length as u64;
        }
        if crc.finalize() != share.head.metainfo_crc {
            return Err(NoShare::Refused("its .torrent is damaged"));
        }
        Ok(share)
    }

    /// The torrent as the swarm knows it.
    pub fn torrent(&self) -> Torrent {
        Torrent {
            info_hash: self.head.info_hash,
            layout: self.head.layout,
            metadata_bytes: self.head.info.length as u32,
            have: Have::All,
            private: self.head.private,
            sent_bytes: 0,
        }
    }

    /// Fills `into` with what is to be sent next.
    pub fn fill(&self, serving: &Serving, into: &mut [u8]) -> Result<usize, NorFlashErrorKind> {
        serving.fill(into, |source, span, into| {
            let at = match source {
                Source::Content(_) => self.head.content.at + span.at,
                Source::Metadata { .. } => self.head.metainfo.at + self.head.info.at + span.at,
            };
            self.read(at, into)
        })
    }

    /// What the metainfo says a piece hashes to.
    pub fn expected(&self, piece: PieceIndex) -> Result<[u8; 20], NorFlashErrorKind> {
        let mut hash = [0; 20];
        let at = self.head.metainfo.at + self.head.pieces.at + 20 * u64::from(piece.0);
        self.read(at, &mut hash)?;
        Ok(hash)
    }

    /// Hashes `span` of the content, through `scratch`.
    pub fn hash(
        &self,
        span: Span,
        hasher: &mut PieceHasher,
        scratch: &mut [u8],
    ) -> Result<(), NorFlashErrorKind> {
        let mut at = span.at;
        while at < span.end() {
            let length = (span.end() - at).min(scratch.len() as u64) as usize;
            self.read(self.head.content.at + at, &mut scratch[..length])?;
            hasher.update(&scratch[..length]);
            at += length as u64;
        }
        Ok(())
    }

    /// Why a read has failed since last asked, if one has.
    pub fn take_failure(&self) -> Option<NorFlashErrorKind> {
        self.failure.take()
    }

    /// Where its journal is kept.
    pub fn journal(&self) -> Region<'f, F> {
        let Span { at, length } = self.head.journal;
        // Both are below the capacity, which is below 2^32: `open` has looked.
        Region::new(self.flash, at as u32, length as u32)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let at = u32::try_from(at).map_err(|_| NorFlashErrorKind::OutOfBounds)?;
        let read = self.flash.borrow_mut().read(at, into).map_err(|error| error.kind());
        read.inspect_err(|kind| self.failure.set(Some(*kind)))
    }
}
