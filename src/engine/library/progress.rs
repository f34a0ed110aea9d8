//! What is there of a torrent that is being fetched: a journal of chunks of its bitfield.
//!
//! Each record says what a run of [`CHUNK_BYTES`] of the bitfield is from here on. Data is synced
//! first, then the chunks that have changed are committed together: what is claimed is there. A
//! compaction writes every chunk once. Replay in order gives the bitfield back, and a chunk that is
//! never spoken of is all clear.

use serde::{Deserialize, Serialize};

/// One record, in `postcard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    /// Which chunk, from 0.
    pub number: u32,
    /// Its bytes; the last chunk may be shorter.
    pub bits: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The record as bytes.
    pub fn write<'b>(&self, into: &'b mut [u8; CHUNK_RECORD_BYTES_MAX]) -> &'b [u8] {
        postcard::to_slice(self, into).expect("a number, a length and 32 bytes fit")
    }

    /// Puts what a record says into a bitfield. `false` when it does not fit that bitfield.
    pub fn apply(record: &'a [u8], bitfield: &mut [u8]) -> bool {
        let Ok(chunk) = postcard::from_bytes::<Chunk<'_>>(record) else { return false };
        let place = bitfield.chunks_mut(CHUNK_BYTES).nth(chunk.number as usize);
        let Some(place) = place.filter(|place| place.len() == chunk.bits.len()) else {
            return false;
        };
        place.copy_from_slice(chunk.bits);
        true
    }
}

/// The chunks of `bitfield` that differ from those of `known`, which is as long.
pub fn changed<'b>(
    bitfield: &'b [u8],
    known: &'b [u8],
) -> impl Iterator<Item = Chunk<'b>> + use<'b> {
    let chunks = bitfield.chunks(CHUNK_BYTES).zip(known.chunks(CHUNK_BYTES)).enumerate();
    let changed = chunks.filter(|(_, (bits, known))| bits != known);
    changed.map(|(number, (bits, _))| Chunk { number: number as u32, bits })
}

/// All chunks of `bitfield` in which a bit is set.
pub fn set(bitfield: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let chunks = bitfield.chunks(CHUNK_BYTES).enumerate();
    let set = chunks.filter(|(_, bits)| bits.iter().any(|byte| *byte != 0));
    set.map(|(number, bits)| Chunk { number: number as u32, bits })
}

/// Bytes that all chunks of a bitfield of `bitfield_bytes` take as records.
pub const fn records_bytes(bitfield_bytes: u32) -> u32 {
    let chunks = bitfield_bytes.div_ceil(CHUNK_BYTES as u32);
    chunks * (CHUNK_RECORD_BYTES_MAX as u32 + 8)
}

/// Bytes of a bitfield that one record holds: 256 pieces.
pub const CHUNK_BYTES: usize = 32;

/// The largest record: five bytes of a number, one of a length, and the chunk.
pub const CHUNK_RECORD_BYTES_MAX: usize = CHUNK_BYTES + 6;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn chunks_that_changed_make_the_same_bitfield_again() {
        let (mut known, mut bitfield) = (std::vec![0u8; 75], std::vec![0u8; 75]);
        for (at, bit) in [(0, 0x80), (33, 1), (74, 0x40)] {
            bitfield[at] |= bit;
        }
        let mut room = [0; CHUNK_RECORD_BYTES_MAX];
        let records: Vec<Vec<u8>> =
            changed(&bitfield, &known).map(|chunk| chunk.write(&mut room).to_vec()).collect();
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|record| Chunk::apply(record, &mut known)));
        assert_eq!(known, bitfield);
        assert_eq!(changed(&bitfield, &known).count(), 0);
        bitfield[33] = 0;
        assert_eq!(set(&bitfield).map(|chunk| chunk.number).collect::<Vec<_>>(), [0, 2]);
        assert!(records.iter().map(Vec::len).sum::<usize>() < records_bytes(75) as usize);
    }

    #[test]
    fn records_of_another_bitfield_are_passed_over() {
        let mut room = [0; CHUNK_RECORD_BYTES_MAX];
        let record = Chunk { number: 9, bits: &[1; 32] }.write(&mut room).to_vec();
        let mut bitfield = [0; 40];
        assert!(!Chunk::apply(&record, &mut bitfield));
        let record = Chunk { number: 1, bits: &[1; 32] }.write(&mut room).to_vec();
        assert!(!Chunk::apply(&record, &mut bitfield));
        assert!(!Chunk::apply(&[], &mut bitfield));
        assert_eq!(bitfield, [0; 40]);
    }
}
