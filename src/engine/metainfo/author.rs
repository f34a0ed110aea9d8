//! The making of a metainfo file, front to back, in constant memory.
//!
//! Everything before the piece hashes depends on names and lengths only, so the head is written
//! first and its length is then known. Lanes hash pieces in any order and put each hash straight
//! where it belongs, `head + 20 * piece`; the tail closes the file. Nothing is gathered.
//!
//! ```text
//! write_head -> d8:announce..4:info                     (one call)
//! open_info  ->   d5:filesl                             (one call)
//! write_file ->   d6:lengthi..e4:pathl..ee              (one call a file, in order)
//! write_pieces_head -> e4:name..12:piece lengthi..e6:pieces20000:
//!                      .................... hashes, in any order ....................
//! write_tail -> ee
//! ```
//!
//! There is no date and no name of ours inside `info`, so that the same tree gives the same
//! info-hash on every run and every machine (BEP 3; keys sorted as raw bytes).

use super::super::bencode::{Sink, Writer};
use super::super::limits::{PIECE_BYTES_AUTHORED_MAX, PIECE_BYTES_MIN};
use super::Layout;

/// The piece length that gives about 1,000 to 2,000 pieces: a power of two from 16 KiB to 16 MiB.
pub fn piece_bytes_for(total_bytes: u64) -> u32 {
    let wanted = total_bytes.div_ceil(PIECES_AIM_MAX).max(1);
    let power = wanted.checked_next_power_of_two().unwrap_or(u64::MAX);
    power.clamp(u64::from(PIECE_BYTES_MIN), u64::from(PIECE_BYTES_AUTHORED_MAX)) as u32
}

/// Opens the file; `info` comes next. `trackers` are one tier each (BEP 12).
pub fn write_head<'t, S: Sink>(
    sink: &mut S,
    trackers: impl Iterator<Item = &'t str> + Clone,
) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    writer.dictionary()?;
    if let Some(first) = trackers.clone().next() {
        writer.bytes(b"announce")?.bytes(first.as_bytes())?;
        writer.bytes(b"announce-list")?.list()?;
        for tracker in trackers {
            writer.list()?.bytes(tracker.as_bytes())?.end()?;
        }
        writer.end()?;
    }
    writer
        .bytes(b"created by")?
        .bytes(concat!("perennial/", env!("CARGO_PKG_VERSION")).as_bytes())?;
    writer.bytes(b"info")?;
    Ok(())
}

/// Opens `info`: of one file of so many bytes, or of a list of files.
pub fn open_info<S: Sink>(sink: &mut S, single_bytes: Option<u64>) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    writer.dictionary()?;
    match single_bytes {
        Some(length) => writer.bytes(b"length")?.integer(length)?,
        None => writer.bytes(b"files")?.list()?,
    };
    Ok(())
}

/// One file of a folder: `path` with `/` between its components, as in a relative path.
pub fn write_file<S: Sink>(sink: &mut S, length: u64, path: &str) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    writer.dictionary()?.bytes(b"length")?.integer(length)?.bytes(b"path")?.list()?;
    for name in path.split('/') {
        writer.bytes(name.as_bytes())?;
    }
    writer.end()?.end()?;
    Ok(())
}

/// Bytes of [`write_file`] before the `path` list: where a reader finds the path again.
pub fn path_offset(length: u64) -> u64 {
    let digits = u64::from(length.checked_ilog10().unwrap_or(0)) + 1;
    b"d6:lengthie4:path".len() as u64 + digits
}

/// Closes the file list and writes all that stands before the hashes.
pub fn write_pieces_head<S: Sink>(
    sink: &mut S,
    name: &str,
    layout: &Layout,
    folder: bool,
) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    if folder {
        writer.end()?;
    }
    writer.bytes(b"name")?.bytes(name.as_bytes())?;
    writer.bytes(b"piece length")?.integer(u64::from(layout.piece_bytes))?;
    writer.bytes(b"pieces")?.string_head(u64::from(layout.piece_count()) * 20)?;
    Ok(())
}

/// Closes `info` and the file.
pub fn write_tail<S: Sink>(sink: &mut S) -> Result<(), S::Error> {
    Writer::new(sink).end()?.end()?;
    Ok(())
}

/// No more pieces than this are aimed at; halving the piece length would pass it.
const PIECES_AIM_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_number_about_a_thousand_to_two() {
        const KIB: u64 = 1024;
        assert_eq!(piece_bytes_for(1), 16 * 1024);
        assert_eq!(piece_bytes_for(KIB * KIB * KIB), 1024 * 1024);
        assert_eq!(piece_bytes_for(u64::MAX), 16 * 1024 * 1024);
        for total in [20_000 * KIB, 777 * KIB * KIB, 5_000 * KIB * KIB, 32_000 * KIB * KIB] {
            let layout = Layout { total_bytes: total, piece_bytes: piece_bytes_for(total) };
            assert!((1_000..=2_000).contains(&layout.piece_count()), "{total}");
        }
    }

    #[test]
    fn the_path_of_a_file_stands_where_it_is_said_to() {
        for length in [0, 9, 10, 1 << 40] {
            let mut sink = heapless::Vec::<u8, 128>::new();
            write_file(&mut sink, length, "a/b c").unwrap();
            let at = path_offset(length) as usize;
            assert_eq!(&sink[at..], b"l1:a3:b cee", "{length}");
        }
    }
}
