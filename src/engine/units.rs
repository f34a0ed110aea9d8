//! The nouns every part of the engine shares: ids, lengths, instants, addresses of blocks.
//!
//! A number that means a piece, a slot or a moment has a type of its own, so that one cannot be
//! handed in where another is meant. Nothing here knows how it is stored or sent.

use core::fmt;

/// A moment on the monotonic clock, in milliseconds since the service (or the board) started.
///
/// The engine never asks what time it is; it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The far end of the clock: later than every deadline.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The moment `ms` milliseconds after the start.
    pub const fn from_millis(ms: u64) -> Instant {
        Instant(ms)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `ms` milliseconds later; stays at [`Instant::NEVER`] once there.
    pub const fn after(self, ms: u64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The number of a piece in its torrent, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceIndex(pub u32);

/// A connection's place in the roster, below `peers_max` and the spare ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerSlot(pub u16);

impl PeerSlot {
    /// The slot as an index into what the service lent.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An active torrent's place in the swarm, below `seeding_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TorrentSlot(pub u16);

impl TorrentSlot {
    /// The slot as an index into what the service lent.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What names a torrent: the hash of its `info` dictionary as it came.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum InfoHash {
    /// SHA-1 (BEP 3).
    V1([u8; 20]),
    /// SHA-256 (BEP 52).
    V2([u8; 32]),
}

impl InfoHash {
    /// The 20 bytes that stand for it in handshakes, announces and the DHT (BEP 52 truncates).
    pub fn on_the_wire(&self) -> [u8; 20] {
        match self {
            InfoHash::V1(hash) => *hash,
            InfoHash::V2(hash) => {
                let mut short = [0; 20];
                short.copy_from_slice(&hash[..20]);
                short
            }
        }
    }

    /// Every byte of the hash.
    pub fn bytes(&self) -> &[u8] {
        match self {
            InfoHash::V1(hash) => hash,
            InfoHash::V2(hash) => hash,
        }
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the bit of a piece is set, in the order of the wire (BEP 3); one beyond the end is not.
pub fn has_bit(bits: &[u8], piece: u32) -> bool {
    bits.get(piece as usize / 8).is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
}

/// Sets the bit of a piece.
///
/// # Panics
/// When it is beyond the end: bitfields are made as long as the layout says.
pub fn set_bit(bits: &mut [u8], piece: u32) {
    bits[piece as usize / 8] |= 0x80 >> (piece % 8);
}

/// The 20 bytes a peer calls itself (BEP 20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// A name of our own for one run: `-PN` and the version, then twelve letters made of chance.
    pub fn ours(chance: [u8; 12]) -> PeerId {
        let mut id = *b"-PN0100-............";
        for (letter, chance) in id[8..].iter_mut().zip(chance) {
            *letter = b'a' + chance % 26;
        }
        PeerId(id)
    }
}

/// What one `request` asks for: `length` bytes of `piece` from `begin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Which piece.
    pub piece: PieceIndex,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Bytes, at most [`BLOCK_BYTES_MAX`](super::limits::BLOCK_BYTES_MAX) once checked.
    pub length: u32,
}

/// A run of bytes in a file of ours or in a torrent's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// Offset of the first byte.
    pub at: u64,
    /// How many bytes.
    pub length: u64,
}

impl Span {
    /// Offset of the byte after the last one.
    pub const fn end(&self) -> u64 {
        self.at + self.length
    }
}

/// The next moment something is due, and what for: an idle box can say why it woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What for, as it stands in `stats`.
    pub why: &'static str,
}

impl Deadline {
    /// Nothing is due.
    pub const NONE: Deadline = Deadline { at: Instant::NEVER, why: "nothing" };

    /// The earlier of two.
    pub fn or(self, other: Deadline) -> Deadline {
        if other.at < self.at { other } else { self }
    }
}
