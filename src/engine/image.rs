//! A share as one image: what a microcontroller reads from its card or flash.
//!
//! ```text
//! 0         unit                                sector            sector
//! | head .. | journal, first half, second half | metainfo ...... | content, file after file |
//! ```
//!
//! The head takes the front of the first erase unit; the journal takes whole erase units and is
//! erased when the image is made; the `.torrent` lies there as it came, and behind it the content
//! in the order of the pieces, so that the extent map of an image is one extent. All of it is
//! written by `service/image` and read where it lies: of a share only its [`Head`] is in memory.
//!
//! The head carries a checksum of itself and of the metainfo, and the metainfo holds the piece
//! hashes: no bit of an image can change without being found.

use super::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, PIECES_MAX};
use super::metainfo::Layout;
use super::units::{InfoHash, Span};
use core::fmt;
use serde::{Deserialize, Serialize};

/// What the front of an image says. Spans count from the front of the image, or where it says so
/// from the front of the metainfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head<'a> {
    /// The board it was made for: another one's firmware refuses it.
    pub board: &'a str,
    /// The torrent's name.
    pub info_hash: InfoHash,
    /// Sizes of its content.
    pub layout: Layout,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// The `.torrent`, as it came.
    pub metainfo: Span,
    /// CRC-32 of the `.torrent`.
    pub metainfo_crc: u32,
    /// The `info` dictionary, in the metainfo.
    pub info: Span,
    /// The piece hashes, in the metainfo.
    pub pieces: Span,
    /// The content.
    pub content: Span,
    /// Both halves of the journal.
    pub journal: Span,
    /// A tracker to tell, with an address in place of a name: `udp://` or `http://`; may be empty.
    pub tracker: &'a str,
    /// Chance from the machine that made the image, for boards that have no source of their own.
    pub seed: [u8; 16],
}

/// Why the front of an image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is something else, or nothing.
    Foreign,
    /// It was damaged: its checksum is not that of its bytes.
    Damaged,
    /// A later version wrote it.
    Unknown,
    /// It fits no [`HEAD_BYTES`]: name or tracker are too long. Only on writing.
    TooLong,
}

impl HeadError {
    /// Why, as the end of a sentence.
    pub const fn why(self) -> &'static str {
        match self {
            HeadError::Foreign => "there is no image",
            HeadError::Damaged => "the head of the image is damaged",
            HeadError::Unknown => "the image was made by a later version",
            HeadError::TooLong => "the tracker's address is too long",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl core::error::Error for HeadError {}

impl<'a> Head<'a> {
    /// The head as bytes.
    pub fn write(&self) -> Result<[u8; HEAD_BYTES], HeadError> {
        let mut bytes = [0; HEAD_BYTES];
        let said = postcard::to_slice(self, &mut bytes[FRAME_BYTES..]);
        let length = said.map_err(|_| HeadError::TooLong)?.len();
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = VERSION;
        bytes[10..12].copy_from_slice(&(length as u16).to_le_bytes());
        let crc = crc32fast::hash(&bytes[FRAME_BYTES..FRAME_BYTES + length]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Reads a head. What it says fits together only as far as its checksum vouches for its author.
    pub fn parse(bytes: &'a [u8; HEAD_BYTES]) -> Result<Head<'a>, HeadError> {
        if bytes[..8] != *MAGIC {
            return Err(HeadError::Foreign);
        }
        let length = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let said = bytes.get(FRAME_BYTES..FRAME_BYTES + length).ok_or(HeadError::Damaged)?;
        if crc32fast::hash(said) != crc || bytes[9] != 0 {
            return Err(HeadError::Damaged);
        }
        if bytes[8] != VERSION {
            return Err(HeadError::Unknown);
        }
        postcard::from_bytes(said).map_err(|_| HeadError::Damaged)
    }
}

impl Head<'_> {
    /// Why what it says does not fit together, or not into `capacity` bytes, if it does not.
    pub fn objection(&self, capacity: u64) -> Option<&'static str> {
        let Layout { total_bytes, piece_bytes } = self.layout;
        let sizes = (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece_bytes)
            && (1..=u64::from(PIECES_MAX) * u64::from(piece_bytes)).contains(&total_bytes);
        if !sizes || self.content.length != total_bytes {
            return Some("the sizes of its content make no sense");
        }
        let behind =
            |at: u64, span: Span| span.at >= at && span.at.checked_add(span.length).is_some();
        let in_metainfo = |span: Span| span.end() <= self.metainfo.length;
        let hashes = 20 * u64::from(self.layout.piece_count());
        let in_order = behind(HEAD_BYTES as u64, self.journal)
            && behind(self.journal.end(), self.metainfo)
            && behind(self.metainfo.end(), self.content)
            && (behind(0, self.info) && in_metainfo(self.info))
            && (behind(0, self.pieces) && in_metainfo(self.pieces))
            && self.pieces.length == hashes;
        if !in_order {
            return Some("its parts do not lie as they should");
        }
        (self.content.end() > capacity).then_some("it is longer than the card or flash it lies on")
    }
}

/// The head of an image: one sector of a card.
pub const HEAD_BYTES: usize = 512;

/// Metainfo and content begin at multiples of this.
pub const SECTOR_BYTES: u64 = 512;

/// Magic, version, a byte that is 0, length, checksum.
const FRAME_BYTES: usize = 16;
const MAGIC: &[u8; 8] = b"perennia";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>() -> Head<'a> {
        Head {
            board: "mcu-test",
            info_hash: InfoHash::V1([7; 20]),
            layout: Layout { total_bytes: 100_000, piece_bytes: 16_384 },
            private: false,
            metainfo: Span { at: 12_288, length: 700 },
            metainfo_crc: 9,
            info: Span { at: 40, length: 600 },
            pieces: Span { at: 500, length: 7 * 20 },
            content: Span { at: 13_312, length: 100_000 },
            journal: Span { at: 4_096, length: 8_192 },
            tracker: "udp://192.168.1.2:6969",
            seed: [3; 16],
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_bit_of_it_can_change() {
        let bytes = head().write().unwrap();
        assert_eq!(Head::parse(&bytes), Ok(head()));
        assert_eq!(head().objection(113_312), None);
        let length = FRAME_BYTES + usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        for bit in 0..length * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::parse(&bytes).is_err(), "bit {bit}");
        }
        assert_eq!(Head::parse(&[0xff; HEAD_BYTES]), Err(HeadError::Foreign));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(head().objection(113_311).is_some());
        let wrong: [fn(&mut Head<'_>); 6] = [
            |head| head.layout.piece_bytes = 0,
            |head| head.layout.total_bytes = u64::MAX,
            |head| head.content.length += 1,
            |head| head.metainfo.at = u64::MAX,
            |head| head.pieces.at = 600,
            |head| head.journal.at = 0,
        ];
        for change in wrong {
            let mut head = head();
            change(&mut head);
            assert!(head.objection(u64::MAX).is_some(), "{head:?}");
        }
        let long = "x".repeat(HEAD_BYTES);
        assert_eq!(Head { tracker: &long, ..head() }.write(), Err(HeadError::TooLong));
    }
}
