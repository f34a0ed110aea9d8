//! The facts of one torrent: everything that is needed to serve it, in a few hundred bytes.

use super::super::limits::PATH_BYTES_MAX;
use super::super::metainfo::Layout;
use super::super::units::{InfoHash, Span};
use serde::{Deserialize, Serialize};

/// What is known of a torrent. Kept in `postcard` behind a CRC-32; the journal vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts<'a> {
    /// Its name.
    pub info_hash: InfoHash,
    /// The file or folder its content is in: an absolute path.
    pub root: &'a str,
    /// The name of the `.torrent` beside these facts.
    pub torrent: &'a str,
    /// Sizes of its content.
    pub layout: Layout,
    /// Where its `info` dictionary stands in the metainfo.
    pub info: Span,
    /// Where the piece hashes stand in the metainfo.
    pub pieces: Span,
    /// How many files, empty ones included.
    pub file_count: u32,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// It was made here from what lay there; else it describes what was handed to us.
    pub authored: bool,
    /// CRC-32 of the extent map.
    pub extents_crc: u32,
    /// CRC-32 of the bitfield of what is there; nothing when all is.
    pub have_crc: Option<u32>,
}

impl<'a> Facts<'a> {
    /// The facts as bytes, and the checksum the journal vouches for; `None` when too long.
    pub fn write<'b>(&self, into: &'b mut [u8; FACTS_BYTES_MAX]) -> Option<(&'b [u8], u32)> {
        let bytes: &[u8] = postcard::to_slice(self, into).ok()?;
        Some((bytes, crc32fast::hash(bytes)))
    }

    /// Reads facts whose checksum is known; `None` when they are others.
    pub fn parse(bytes: &'a [u8], facts_crc: u32) -> Option<Facts<'a>> {
        if crc32fast::hash(bytes) != facts_crc {
            return None;
        }
        postcard::from_bytes(bytes).ok()
    }
}

/// A path, a name and some numbers.
pub const FACTS_BYTES_MAX: usize = PATH_BYTES_MAX + 1024;
