//! What the box knows: one entry for each torrent it was ever given, kept by the journal.
//!
//! The journal says *that* a torrent exists and what was counted of it; what it is stands in
//! three files beside, whose checksum the journal vouches for:
//!
//! ```text
//! journal   Admitted { info-hash, root key, checksum of facts } .. Sent { .. } .. Forgotten { .. }
//!                          |
//! facts     sizes, where its content lies, checksums of  --> extents   which file holds which bytes
//!                                                        --> metainfo  the .torrent as it came
//!                                                        --> have      its bitfield, unless whole
//! ```
//!
//! Files are written and synced first, then the record: from that record on the torrent exists.
//! A cut in between leaves files nobody vouches for, which the next start clears away.
//!
//! On a disk the entries lie in [`slots`], found through a [`lookup`], and the journal holds what has
//! changed since the last checkpoint: [`Catalog`], whose memory does not grow with the library. A
//! microcontroller has the journal alone and keeps its entries in memory: [`Library`].
//!
//! Journey 1: `service/share` asks [`Library::under`] whether it knows a folder, or admits what
//! it has hashed; [`Library::records`] is what a compaction of the
//! [`journal`](super::journal) keeps.

pub mod catalog;
pub mod extents;
pub mod facts;
pub mod lookup;
pub mod progress;
pub mod shelf;
pub mod slots;
pub mod staging;

pub use catalog::Catalog;
pub use extents::{Extent, ExtentMap};
pub use facts::Facts;

use super::units::InfoHash;
use serde::{Deserialize, Serialize};

/// What the journal holds, in `postcard`. New kinds go to the end: their order is the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A torrent exists from here on, or exists again with other facts.
    Admitted {
        /// Its name.
        info_hash: InfoHash,
        /// Stands for where its content lies, see [`root_key`].
        root_key: u64,
        /// CRC-32 of its facts.
        facts_crc: u32,
    },
    /// So many bytes of its content were sent, ever.
    Sent {
        /// Its name.
        info_hash: InfoHash,
        /// Bytes since it was admitted.
        bytes: u64,
    },
    /// It is no longer there.
    Forgotten {
        /// Its name.
        info_hash: InfoHash,
    },
    /// A torrent exists from here on and is still to be fetched: what is there of it stands in a
    /// journal of its own, see [`progress`].
    Begun {
        /// Its name.
        info_hash: InfoHash,
        /// Stands for where its content lies, see [`root_key`].
        root_key: u64,
        /// CRC-32 of its facts.
        facts_crc: u32,
    },
    /// It is not to be on the air for now, or is again.
    Paused {
        /// Its name.
        info_hash: InfoHash,
        /// Whether it rests.
        paused: bool,
    },
    /// A torrent exists from here on, or exists again at another place: all that is said of it when
    /// it comes. What was counted of it, and whether it is paused, stays.
    Placed {
        /// Its name.
        info_hash: InfoHash,
        /// Stands for where its content lies, see [`root_key`].
        root_key: u64,
        /// CRC-32 of its facts.
        facts_crc: u32,
        /// It is still to be fetched.
        fetching: bool,
        /// When it came, in seconds since 1970.
        added_s: u64,
        /// Front of the identity of the volume its content lies on; 0 when that is not known.
        volume: u64,
    },
    /// Whatever came before is in the slots; with this record, which stands first, the journal's
    /// log of that number begins. A journal without it is log 0.
    Continues {
        /// Each log's is higher than that of the one before.
        log: u64,
    },
}

impl Record {
    /// The record as bytes; at most [`RECORD_BYTES_MAX`].
    pub fn write<'b>(&self, into: &'b mut [u8; RECORD_BYTES_MAX]) -> &'b [u8] {
        postcard::to_slice(self, into).expect("a record is at most 34 + 3 * 10 + 5 + 1 bytes")
    }

    /// Reads a record; `None` for one of a kind this version does not know.
    pub fn parse(bytes: &[u8]) -> Option<Record> {
        postcard::from_bytes(bytes).ok()
    }

    /// The torrent it is about.
    fn info_hash(&self) -> Option<&InfoHash> {
        match self {
            Record::Admitted { info_hash, .. }
            | Record::Sent { info_hash, .. }
            | Record::Forgotten { info_hash }
            | Record::Begun { info_hash, .. }
            | Record::Paused { info_hash, .. }
            | Record::Placed { info_hash, .. } => Some(info_hash),
            Record::Continues { .. } => None,
        }
    }

    /// What is known of its torrent after it, when `before` was known until then.
    ///
    /// A record says what *is*, never by how much something changes, and one about a torrent that
    /// does not exist says nothing: a run of records that was already applied, or a part of it,
    /// can be applied again from its beginning.
    fn applied(&self, before: Option<Entry>) -> Option<Entry> {
        match *self {
            Record::Admitted { info_hash, root_key, facts_crc }
            | Record::Begun { info_hash, root_key, facts_crc } => {
                let fetching = matches!(self, Record::Begun { .. });
                let before = before.unwrap_or(Entry::unknown(info_hash));
                Some(Entry { root_key, facts_crc, fetching, ..before })
            }
            Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume } => {
                let before = before.unwrap_or(Entry::unknown(info_hash));
                Some(Entry { root_key, facts_crc, fetching, added_s, volume, ..before })
            }
            Record::Sent { bytes, .. } => before.map(|entry| Entry { sent_bytes: bytes, ..entry }),
            Record::Paused { paused, .. } => before.map(|entry| Entry { paused, ..entry }),
            Record::Forgotten { .. } => None,
            Record::Continues { .. } => before,
        }
    }
}

/// One torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub info_hash: InfoHash,
    /// Stands for where its content lies.
    pub root_key: u64,
    /// CRC-32 of its facts.
    pub facts_crc: u32,
    /// Bytes of its content sent, ever.
    pub sent_bytes: u64,
    /// It is still being fetched.
    pub fetching: bool,
    /// It is not to be on the air for now.
    pub paused: bool,
    /// When it came, in seconds since 1970; 0 when nobody said.
    pub added_s: u64,
    /// Front of the identity of the volume its content lies on; 0 when that is not known.
    pub volume: u64,
}

impl Entry {
    /// A torrent of which nothing is known but its name.
    fn unknown(info_hash: InfoHash) -> Entry {
        let (root_key, facts_crc, sent_bytes, added_s, volume) = (0, 0, 0, 0, 0);
        let (fetching, paused) = (false, false);
        Entry { info_hash, root_key, facts_crc, sent_bytes, fetching, paused, added_s, volume }
    }
}

/// The library has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryFull {
    /// How many torrents the board's profile holds (`torrents_max`).
    pub torrents_max: usize,
}

/// Every torrent, in the memory lent for `torrents_max` of them.
pub struct Library<'m> {
    entries: &'m mut [Option<Entry>],
}

impl<'m> Library<'m> {
    /// An empty library.
    pub fn new(entries: &'m mut [Option<Entry>]) -> Library<'m> {
        Library { entries }
    }

    /// Takes what a record says; also how the journal is replayed.
    ///
    /// # When full
    /// `Admitted` is refused; everything known stays.
    pub fn apply(&mut self, record: Record) -> Result<(), LibraryFull> {
        let Some(info_hash) = record.info_hash() else { return Ok(()) };
        let before = self.get(info_hash).copied();
        match record.applied(before) {
            None if before.is_none() => {}
            after => *self.place(info_hash)? = after,
        }
        Ok(())
    }

    /// The torrent of that name.
    pub fn get(&self, info_hash: &InfoHash) -> Option<&Entry> {
        self.entries().find(|entry| entry.info_hash == *info_hash)
    }

    /// The torrents whose content lies there.
    pub fn under(&self, root_key: u64) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.root_key == root_key)
    }

    /// Every place is taken.
    pub fn is_full(&self) -> bool {
        self.entries.iter().all(Option::is_some)
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// The records that say all of this, and nothing that is past.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.entries().flat_map(|entry| {
            let Entry { info_hash, root_key, facts_crc, fetching, added_s, volume, .. } = *entry;
            let exists = match (fetching, added_s, volume) {
                (false, 0, 0) => Record::Admitted { info_hash, root_key, facts_crc },
                (true, 0, 0) => Record::Begun { info_hash, root_key, facts_crc },
                _ => Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume },
            };
            let bytes = entry.sent_bytes;
            let sent = (bytes > 0).then_some(Record::Sent { info_hash, bytes });
            let paused = entry.paused.then_some(Record::Paused { info_hash, paused: true });
            core::iter::once(exists).chain(sent).chain(paused)
        })
    }

    fn place(&mut self, info_hash: &InfoHash) -> Result<&mut Option<Entry>, LibraryFull> {
        let known = |place: &Option<Entry>| place.is_some_and(|e| e.info_hash == *info_hash);
        let at = self.entries.iter().position(known);
        let at = at.or_else(|| self.entries.iter().position(Option::is_none));
        let full = LibraryFull { torrents_max: self.entries.len() };
        Ok(&mut self.entries[at.ok_or(full)?])
    }
}

/// What stands for the place where content lies: the front of the SHA-256 of its absolute path.
pub fn root_key(absolute_path: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = super::digest::sha256(absolute_path);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The largest record: two tags, a hash of 32 bytes, three numbers of ten bytes, a checksum of
/// five and a flag.
pub const RECORD_BYTES_MAX: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const A: InfoHash = InfoHash::V1([1; 20]);
    const B: InfoHash = InfoHash::V2([2; 32]);
    const C: InfoHash = InfoHash::V2([3; 32]);

    /// No record takes more bytes.
    const LONGEST: Record = Record::Placed {
        info_hash: C,
        root_key: u64::MAX,
        facts_crc: u32::MAX,
        fetching: true,
        added_s: u64::MAX,
        volume: u64::MAX,
    };

    fn admitted(info_hash: InfoHash, root_key: u64) -> Record {
        Record::Admitted { info_hash, root_key, facts_crc: u32::MAX }
    }

    #[test]
    fn its_records_make_the_same_library_again() {
        let mut entries = [None; 4];
        let mut library = Library::new(&mut entries);
        let story = [
            admitted(A, u64::MAX),
            admitted(B, 2),
            Record::Sent { info_hash: B, bytes: u64::MAX },
            Record::Sent { info_hash: InfoHash::V1([9; 20]), bytes: 1 },
            admitted(B, 3),
            Record::Forgotten { info_hash: A },
            admitted(A, 4),
            Record::Begun { info_hash: B, root_key: 3, facts_crc: 7 },
            Record::Paused { info_hash: B, paused: true },
            Record::Paused { info_hash: InfoHash::V1([9; 20]), paused: true },
            Record::Continues { log: u64::MAX },
            LONGEST,
        ];
        for record in story {
            let mut room = [0; RECORD_BYTES_MAX];
            library.apply(Record::parse(record.write(&mut room)).unwrap()).unwrap();
        }
        assert_eq!(library.under(3).map(|entry| entry.sent_bytes).collect::<Vec<_>>(), [u64::MAX]);
        assert_eq!(library.under(2).count(), 0);
        let mut again = [None; 4];
        let mut copy = Library::new(&mut again);
        library.records().for_each(|record| copy.apply(record).unwrap());
        assert!(library.entries().eq(copy.entries()));
        assert_eq!(copy.get(&C).map(|entry| entry.volume), Some(u64::MAX));
        assert_eq!(copy.get(&B).map(|entry| (entry.paused, entry.fetching)), Some((true, true)));
        assert_eq!(Record::parse(&[99, 1, 2]), None);
    }

    #[test]
    fn kinds_of_records_keep_their_numbers() {
        let records = [
            (admitted(A, 1), 0),
            (Record::Sent { info_hash: A, bytes: 1 }, 1),
            (Record::Forgotten { info_hash: A }, 2),
            (Record::Begun { info_hash: A, root_key: 1, facts_crc: 1 }, 3),
            (Record::Paused { info_hash: A, paused: true }, 4),
            (LONGEST, 5),
            (Record::Continues { log: 1 }, 6),
        ];
        for (record, number) in records {
            assert_eq!(record.write(&mut [0; RECORD_BYTES_MAX])[0], number);
        }
        assert_eq!(LONGEST.write(&mut [0; RECORD_BYTES_MAX]).len(), RECORD_BYTES_MAX);
    }

    #[test]
    fn a_full_library_refuses_and_keeps_what_it_has() {
        let mut entries = [None; 1];
        let mut library = Library::new(&mut entries);
        library.apply(admitted(A, 1)).unwrap();
        assert_eq!(library.apply(admitted(B, 2)), Err(LibraryFull { torrents_max: 1 }));
        library.apply(admitted(A, 5)).unwrap();
        assert_eq!(library.under(5).count(), 1);
    }
}
