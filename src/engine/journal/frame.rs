//! The bytes of a half: the header at its start and the frames of the commits behind it.
//!
//! ```text
//! header, the first 32 bytes of a half      frame, one commit
//!  0  magic             "PRNLJRNL"           0  sequence         of the half it was written for
//!  8  version           u32                  4  number           1, 2, 3.. within the half
//! 12  write_bytes       u32                  8  payload_bytes    u32
//! 16  half_bytes        u32                 12  payload_crc      u32
//! 20  commit_bytes_max  u32                 16  CRC of the 16 bytes before
//! 24  sequence          u32                 20  payload: records, each a length
//! 28  CRC of the 28 bytes before                (varint) and as many bytes; 0xFF to a unit's end
//! ```
//!
//! Numbers are little-endian. Nothing but values lives here: what is read was on a flash that may
//! hold anything, so a reader answers `None` and never panics; what is written has been sized by
//! its caller. The header's 32 bytes keep their places in every version to come, so that any
//! release can tell a journal of a newer one from garbage. A frame's head has a CRC of its own: the
//! length of a torn commit is then known, and its payload, which strangers may have had a hand in,
//! is stepped over instead of searched for commits.
//!
//! A [`Batch`] is filled by [`Journal::push`](super::Journal::push) and sealed into a frame that
//! [`half`](super::half) puts on the flash; on the way back [`half`](super::half) finds the frame
//! and [`records`] takes it apart.

use serde::{Deserialize, Serialize};

use super::Full;

/// What stands at the start of a half in use. It is written last, so it vouches for what is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    magic: [u8; 8],
    #[serde(with = "postcard::fixint::le")]
    pub version: u32,
    /// The flash's write unit: it decides where frames may begin.
    #[serde(with = "postcard::fixint::le")]
    pub write_bytes: u32,
    /// Where the other half begins.
    #[serde(with = "postcard::fixint::le")]
    pub half_bytes: u32,
    /// No frame in this half is longer: the buffer a reader needs, and how far a torn one reaches.
    #[serde(with = "postcard::fixint::le")]
    pub commit_bytes_max: u32,
    /// One more than that of the half this one was compacted from.
    #[serde(with = "postcard::fixint::le")]
    pub sequence: u32,
}

impl Header {
    pub fn new(write_bytes: u32, half_bytes: u32, commit_bytes_max: u32, sequence: u32) -> Header {
        let version = super::FORMAT_VERSION;
        Header { magic: MAGIC, version, write_bytes, half_bytes, commit_bytes_max, sequence }
    }

    /// The header at the start of `bytes`, of whatever version, if it is whole.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        read_checked(bytes).filter(|header: &Header| header.magic == MAGIC)
    }

    /// Fills `unit`: the header, then 0xFF.
    pub fn write(&self, unit: &mut [u8]) {
        let used = write_checked(self, unit);
        unit[used..].fill(ERASED);
    }

    /// Whether this header replaced `other`; right across the wrap after 2^32 compactions.
    pub fn is_after(&self, other: &Header) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }
}

/// The first [`HEAD_BYTES`] of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(with = "postcard::fixint::le")]
    pub sequence: u32,
    #[serde(with = "postcard::fixint::le")]
    pub number: u32,
    #[serde(with = "postcard::fixint::le")]
    pub payload_bytes: u32,
    #[serde(with = "postcard::fixint::le")]
    payload_crc: u32,
}

impl Head {
    /// The head at the start of `bytes`, if it is whole.
    pub fn read(bytes: &[u8]) -> Option<Head> {
        read_checked(bytes)
    }

    /// The bytes of the frame on the flash, padding included; `None` for a length nobody can have.
    pub fn extent(&self, unit: u32) -> Option<u32> {
        (HEAD_BYTES as u32).checked_add(self.payload_bytes)?.checked_next_multiple_of(unit)
    }

    /// The payload of `frame`, if it is what was once sealed under this head.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let payload = frame.get(HEAD_BYTES..)?.get(..self.payload_bytes as usize)?;
        (crc32fast::hash(payload) == self.payload_crc).then_some(payload)
    }
}

/// The records of a payload, in the order they were pushed.
pub(super) fn records(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Its CRC was right, so the payload parses; should it not, it ends where it stops making sense.
    core::iter::from_fn(move || {
        let (record, rest) = postcard::take_from_bytes(payload).ok()?;
        payload = rest;
        Some(record)
    })
}

/// The frame being filled, in the buffer the journal was lent.
pub(super) struct Batch<'m> {
    buffer: &'m mut [u8],
    /// Bytes in use, the head's place included.
    used: usize,
}

impl<'m> Batch<'m> {
    pub fn new(buffer: &'m mut [u8]) -> Batch<'m> {
        Batch { buffer, used: HEAD_BYTES }
    }

    pub fn is_empty(&self) -> bool {
        self.used == HEAD_BYTES
    }

    pub fn clear(&mut self) {
        self.used = HEAD_BYTES;
    }

    /// The bytes this batch will take on the flash.
    pub fn extent(&self, unit: u32) -> u32 {
        (self.used as u32).next_multiple_of(unit)
    }

    /// Adds a record, or leaves the batch as it is when the frame would exceed `commit_bytes_max`.
    pub fn push(&mut self, record: &[u8], commit_bytes_max: u32) -> Result<(), Full> {
        let space = &mut self.buffer[self.used..commit_bytes_max as usize];
        self.used += postcard::to_slice(record, space).map_err(|_| Full)?.len();
        Ok(())
    }

    /// The batch as a frame. Sealing again, under another number, is as good as the first time.
    pub fn seal(&mut self, sequence: u32, number: u32, unit: u32) -> &[u8] {
        let extent = self.extent(unit) as usize;
        let payload = &self.buffer[HEAD_BYTES..self.used];
        let payload_bytes = payload.len() as u32;
        let payload_crc = crc32fast::hash(payload);
        write_checked(&Head { sequence, number, payload_bytes, payload_crc }, self.buffer);
        self.buffer[self.used..extent].fill(ERASED);
        &self.buffer[..extent]
    }

    /// The buffer itself, for reading into. Only an empty batch has nothing to lose.
    pub fn scratch(&mut self) -> &mut [u8] {
        debug_assert!(self.is_empty());
        self.buffer
    }
}

/// Whether `bytes` read as never written.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    // A stretch at a time is a `memcmp`: a new flash is looked at from one end to the other.
    let stretch = [ERASED; 64];
    bytes.chunks(stretch.len()).all(|bytes| bytes == &stretch[..bytes.len()])
}

/// Writes `value` and the CRC of what it became; says how many bytes that took.
fn write_checked(value: &impl Serialize, bytes: &mut [u8]) -> usize {
    let used = postcard::to_slice(value, bytes).expect("a unit holds a header or a head").len();
    let crc = crc32fast::hash(&bytes[..used]).to_le_bytes();
    bytes[used..][..crc.len()].copy_from_slice(&crc);
    used + crc.len()
}

/// Reads what [`write_checked`] wrote, if its CRC is right.
fn read_checked<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    let (crc, _) = rest.split_first_chunk()?;
    let covered = &bytes[..bytes.len() - rest.len()];
    (crc32fast::hash(covered) == u32::from_le_bytes(*crc)).then_some(value)
}

/// Bytes of a frame before its payload.
pub(super) const HEAD_BYTES: usize = 20;

/// The most a record's length takes before it: a varint of 32 bits.
pub(super) const RECORD_LENGTH_BYTES_MAX: u32 = 5;

/// Frames begin at multiples of this or of the write unit, whichever is larger: a header and a
/// head then lie in one unit each, and searching behind a torn commit takes no step per byte.
pub(super) const UNIT_BYTES_MIN: u32 = 32;

/// What an erased byte reads as.
const ERASED: u8 = 0xFF;

const MAGIC: [u8; 8] = *b"PRNLJRNL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_keeps_its_places() {
        let mut unit = [0; 64];
        Header::new(0x0200, 0x0001_0000, 0x1000, 7).write(&mut unit);
        assert_eq!(unit[..8], *b"PRNLJRNL");
        assert_eq!(unit[8..12], [2, 0, 0, 0]);
        assert_eq!(unit[12..28], [0, 2, 0, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 7, 0, 0, 0]);
        assert_eq!(unit[28..32], crc32fast::hash(&unit[..28]).to_le_bytes());
        assert!(is_blank(&unit[32..]));
        assert_eq!(Header::read(&unit).map(|header| header.sequence), Some(7));
    }

    #[test]
    fn no_changed_bit_of_a_header_goes_unnoticed() {
        let mut unit = [0; 32];
        Header::new(4, 4096, 512, 1).write(&mut unit);
        for bit in 0..32 * 8 {
            unit[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&unit), None, "bit {bit}");
            unit[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn sequences_are_compared_across_their_wrap() {
        let [last, first] = [u32::MAX, 0].map(|sequence| Header::new(4, 4096, 512, sequence));
        assert!(first.is_after(&last));
        assert!(!last.is_after(&first));
        assert!(!first.is_after(&first));
    }

    #[test]
    fn frame_gives_its_records_back_in_order() {
        let mut buffer = [0; 256];
        let mut batch = Batch::new(&mut buffer);
        let long = [0xFF; 150];
        let pushed: [&[u8]; 4] = [b"one", b"", &long, b"four"];
        for record in pushed {
            batch.push(record, 256).expect("256 bytes hold them all");
        }
        let frame = batch.seal(3, 9, 32);
        let head = Head::read(frame).expect("just sealed");
        assert_eq!((head.sequence, head.number), (3, 9));
        assert_eq!(head.extent(32), Some(frame.len() as u32));
        let payload = head.payload(frame).expect("just sealed");
        assert!(records(payload).eq(pushed));
    }

    #[test]
    fn record_that_does_not_fit_leaves_the_batch_as_it_was() {
        let mut buffer = [0; 64];
        let mut batch = Batch::new(&mut buffer);
        batch.push(&[1; 30], 64).expect("31 of 44 bytes");
        assert_eq!(batch.push(&[2; 13], 64), Err(Full));
        batch.push(&[3; 12], 64).expect("the last 13 bytes");
        let frame = batch.seal(0, 1, 32);
        let payload = Head::read(frame).and_then(|head| head.payload(frame)).expect("just sealed");
        assert!(records(payload).eq([&[1u8; 30][..], &[3; 12]]));
    }

    #[test]
    fn lengths_nobody_can_have_are_refused() {
        let head = |payload_bytes| Head { sequence: 0, number: 1, payload_bytes, payload_crc: 0 };
        assert_eq!(head(u32::MAX).extent(512), None);
        assert_eq!(head(u32::MAX - 20).extent(512), None);
        assert_eq!(head(100).payload(&[0; 60]), None);
        assert_eq!(head(0).payload(&[0; 10]), None);
    }
}
