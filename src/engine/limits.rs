//! Fixed limits of the protocol and of single objects, each with its source.
//!
//! What a board scales stands in its `profile.toml` and reaches the engine as the length of what
//! it is lent.

/// A block as everybody requests it (BEP 3: 2^14).
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// The largest block a request may ask for. Clients ask for 16 KiB; some old ones for 32.
pub const BLOCK_BYTES_MAX: u32 = 32 * 1024;

/// Blocks of one peer that leave in one send. Measured: 4 cost more than 16, 24 take fewer system
/// calls for each MiB than 16 (see `tests/cost`), and 32 gain nothing but a larger scratch.
pub const SERVE_BLOCKS_MAX: usize = 24;

/// Bytes of one send at most: [`SERVE_BLOCKS_MAX`] blocks with their headers.
pub const SERVE_BYTES_MAX: usize = SERVE_BLOCKS_MAX * (BLOCK_BYTES as usize + PIECE_HEADER_BYTES);

/// Length, id, piece and begin before a block (BEP 3).
pub const PIECE_HEADER_BYTES: usize = 13;

/// A `request` on the wire: length, id, piece, begin, length (BEP 3).
pub const REQUEST_BYTES: usize = 17;

/// The handshake (BEP 3).
pub const HANDSHAKE_BYTES: usize = 68;

/// A message that must be seen whole and came in pieces is kept up to here; the extended
/// handshakes seen in the field are 150 to 350 bytes. A longer one that comes in pieces is skipped.
pub const CARRY_BYTES: usize = 512;

/// Small messages on their way to one peer's socket.
pub const OUT_BYTES: usize = 384;

/// The longest message of a kind we only skip or parse in place.
pub const FRAME_BYTES_MAX: u32 = 256 * 1024;

/// Metadata travels in pieces of this size (BEP 9).
pub const METADATA_PIECE_BYTES: u32 = 16 * 1024;

/// Metadata pieces one peer may have waiting; more are rejected (BEP 9).
pub const METADATA_REQUESTS_MAX: usize = 4;

/// The head of a metadata message: frame, id and dictionary, with room for 64-bit numbers.
pub const METADATA_HEADER_BYTES_MAX: usize = 96;

/// Smallest piece we make or accept (BEP 3 leaves it open; everybody's smallest block is 16 KiB).
pub const PIECE_BYTES_MIN: u32 = 16 * 1024;

/// Largest piece we make (beyond it a bad block costs too much).
pub const PIECE_BYTES_AUTHORED_MAX: u32 = 16 * 1024 * 1024;

/// Largest piece we accept in a torrent made by others: so a request is kept in 64 bits
/// ([`peer::request`](super::peer::request)).
pub const PIECE_BYTES_MAX: u32 = 128 * 1024 * 1024;

/// Pieces in a torrent at most, as in libtorrent unless it is told otherwise.
pub const PIECES_MAX: u32 = 1 << 21;

/// Nesting of lists and dictionaries in anything we read.
pub const BENCODE_DEPTH_MAX: usize = 16;

/// A path in a torrent: `PATH_MAX` of Linux, all components with their separators.
pub const PATH_BYTES_MAX: usize = 4096;

/// One name in a path: `NAME_MAX` of Linux.
pub const NAME_BYTES_MAX: usize = 255;

/// Folders of a fetched torrent, one inside the other, its file included. Names beyond are joined.
pub const PATH_NAMES_MAX: usize = 32;

/// A magnet link; one with 50 trackers has 2 to 3 KiB. A longer one is refused.
pub const MAGNET_BYTES_MAX: usize = 8 * 1024;

/// Trackers of one magnet link that are looked at; link collections name up to 50.
pub const MAGNET_TRACKERS_MAX: usize = 64;

/// A pattern that picks files. A longer one is refused.
pub const GLOB_BYTES_MAX: usize = 255;

/// A newcomer that has not shaken hands by then makes room.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;

/// Silence after which a peer is let go. BEP 3 asks for a keep-alive every two minutes.
pub const SILENCE_TIMEOUT_MS: u64 = 240_000;

/// Silence of ours after which a keep-alive is sent.
pub const KEEPALIVE_MS: u64 = 110_000;

/// A peer that asked and then takes no byte for so long is let go.
pub const STALL_TIMEOUT_MS: u64 = 120_000;

/// How long an unchoked peer keeps its slot when others wait for one.
pub const UNCHOKE_TERM_MS: u64 = 20_000;

/// An unchoked peer that takes nothing for so long loses its slot when others wait for one.
pub const UNCHOKE_UNUSED_MS: u64 = 5_000;

/// Peers served at a time of torrents that we are fetching ourselves.
pub const RECIPROCAL_MAX: u16 = 20;

/// How often those who give most are found anew (BEP 3: ten seconds).
pub const RECIPROCAL_TERM_MS: u64 = 10_000;

/// A connection younger than this is not pushed out by a newcomer.
pub const GRACE_MS: u64 = 20_000;

/// First wait after a read would have blocked: the kernel has started the read itself.
pub const COLD_RETRY_MS: u64 = 3;

/// Messages that serve no purpose (requests while choked, cancels of nothing, unknown ids,
/// repeated keep-alives) that a peer may send on top of one for each block it takes.
pub const POINTLESS_MAX: u32 = 2_000;

/// The longest `info` dictionary that is fetched: that of a million files is not longer.
pub const METADATA_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// A peer that was asked for metadata and sends nothing for so long makes room for another.
pub const METADATA_LATE_MS: u64 = 10_000;

/// Between two times that a peer is told of others (BEP 11: a minute).
pub const EXCHANGE_MS: u64 = 60_000;

/// Requests of ours that a peer has at a time at least: one block comes, one is on its way. With
/// more, each of many leechers at a slow origin asks it for what others will have before.
pub const ASKS_MIN: u16 = 2;

/// A peer that was asked and sends nothing for so long is late: others get its blocks.
pub const SNUB_MS: u64 = 20_000;

/// After news of verified pieces what comes next is gathered for so long, so that small pieces do
/// not become a packet each for each peer. The first is told at once: a relay's peers wait for it.
pub const HAVE_GATHER_MS: u64 = 100;

/// Verified pieces that peers are still told of one by one. A peer that has taken nothing while so
/// many were verified is told of all there are in another bitfield, as aria2 does.
pub const VERIFIED_TOLD_MAX: usize = 256;
