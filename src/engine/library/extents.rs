//! The extent map: which file holds which bytes of a torrent's content.
//!
//! A file of fixed-size records in the order of the content, searched where it lies; nothing of
//! it is kept in memory. A record also says what the file looked like when it was hashed, so that
//! a look at the file tells whether its bytes are still those.
//!
//! ```text
//!  0        8         16       24        32         40      44      48
//! | start  | length  | path   | inode   | modified  | nanos | flags |    little endian
//! ```
//!
//! `path` is where the file's path stands in the `info` dictionary, so that no name is kept twice.

use super::super::metainfo::scan::Source;
use super::super::units::Span;

/// One file of a torrent, as it was when it was hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Which bytes of the content it holds; may be none.
    pub span: Span,
    /// Where its path stands, counted from the front of `info`; 0 when the torrent is one file.
    pub path_at: u64,
    /// What it looked like.
    pub stamp: Stamp,
    /// Padding (BEP 47): zeros that no file holds.
    pub padding: bool,
    /// What the file is called.
    pub naming: Naming,
}

/// How a file's name follows from its path in the torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// It is the path as it stands.
    #[default]
    AsItIs,
    /// It is the path made safe: the torrent was fetched.
    MadeSafe,
    /// The same, and a number, because another file of the torrent has that name.
    Numbered,
}

/// What a file looked like: when one of these differs it has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its number in its file system.
    pub inode: u64,
    /// When it was last written, in seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
}

impl Extent {
    /// The record as bytes.
    pub fn write(&self) -> [u8; EXTENT_BYTES] {
        let mut bytes = [0; EXTENT_BYTES];
        bytes[..8].copy_from_slice(&self.span.at.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.span.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.path_at.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.stamp.inode.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.stamp.modified.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.stamp.modified.1.to_le_bytes());
        let naming = match self.naming {
            Naming::AsItIs => 0,
            Naming::MadeSafe => MADE_SAFE,
            Naming::Numbered => NUMBERED,
        };
        let flags = if self.padding { naming | PADDING } else { naming };
        bytes[44..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    /// Reads a record.
    pub fn parse(bytes: &[u8; EXTENT_BYTES]) -> Extent {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let seconds_nanos = (long(32) as i64, long(40) as u32);
        let flags = (long(40) >> 32) as u32;
        let naming = match flags & (MADE_SAFE | NUMBERED) {
            0 => Naming::AsItIs,
            MADE_SAFE => Naming::MadeSafe,
            _ => Naming::Numbered,
        };
        Extent {
            span: Span { at: long(0), length: long(8) },
            path_at: long(16),
            stamp: Stamp { inode: long(24), modified: seconds_nanos },
            padding: flags & PADDING != 0,
            naming,
        }
    }
}

/// An extent map where it lies.
pub struct ExtentMap<'s, S: Source> {
    source: &'s mut S,
    count: u32,
}

impl<'s, S: Source> ExtentMap<'s, S> {
    /// The map of a torrent of so many files.
    pub fn new(source: &'s mut S, file_count: u32) -> ExtentMap<'s, S> {
        ExtentMap { source, count: file_count }
    }

    /// Record `index`; `None` beyond the last, or when the map is cut short.
    pub fn read(&mut self, index: u32) -> Result<Option<Extent>, S::Error> {
        if index >= self.count {
            return Ok(None);
        }
        let (mut bytes, mut filled) = ([0; EXTENT_BYTES], 0);
        while filled < EXTENT_BYTES {
            let at = u64::from(index) * EXTENT_BYTES as u64 + filled as u64;
            match self.source.read_at(at, &mut bytes[filled..])? {
                0 => return Ok(None),
                read => filled += read,
            }
        }
        Ok(Some(Extent::parse(&bytes)))
    }

    /// The index and record of the file that holds byte `at` of the content.
    ///
    /// # Work
    /// One read for each halving of the file count.
    pub fn find(&mut self, at: u64) -> Result<Option<(u32, Extent)>, S::Error> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(extent) = self.read(middle)? else { return Ok(None) };
            // An empty file holds nothing: whoever starts at or before `at` lies to its right.
            if at < extent.span.at {
                high = middle;
            } else if at < extent.span.end() {
                return Ok(Some((middle, extent)));
            } else {
                low = middle + 1;
            }
        }
        Ok(None)
    }
}

/// Bytes of a record.
pub const EXTENT_BYTES: usize = 48;

/// Flags of a record.
const PADDING: u32 = 1;
const MADE_SAFE: u32 = 2;
const NUMBERED: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_byte_is_found_in_its_file_and_empty_files_never() {
        let lengths = [0, 5, 0, 0, 1, 7, 0];
        let (mut at, mut bytes) = (0, Vec::new());
        for (path_at, length) in lengths.into_iter().enumerate() {
            let span = Span { at, length };
            let stamp = Stamp { inode: u64::MAX, modified: (-1, 999_999_999) };
            let naming = [Naming::AsItIs, Naming::MadeSafe, Naming::Numbered][path_at % 3];
            let path_at = path_at as u64;
            let extent = Extent { span, path_at, stamp, padding: length == 1, naming };
            assert_eq!(Extent::parse(&extent.write()), extent);
            bytes.extend(extent.write());
            at += length;
        }
        let mut source = bytes.as_slice();
        let mut map = ExtentMap::new(&mut source, lengths.len() as u32);
        for at in 0..13 {
            let (index, extent) = map.find(at).unwrap().unwrap();
            assert!(extent.span.at <= at && at < extent.span.end(), "{at}");
            assert_eq!(u64::from(index), extent.path_at);
        }
        assert_eq!(map.find(13), Ok(None));
    }
}
