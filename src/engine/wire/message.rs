//! Small messages we send, written into a fixed buffer (BEP 3, 6).
//!
//! Payload is none of them: a block's header is [`piece_header`], its bytes come straight from
//! storage.

use super::super::limits::PIECE_HEADER_BYTES;
use super::super::units::{Block, PieceIndex};

/// Ids of messages (BEP 3, 5, 6, 10).
pub mod id {
    #![expect(missing_docs, reason = "the names are the specification's own")]
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

/// A message of which this is all: choke, unchoke, interested, have-all, have-none and the like.
pub fn bare(id: u8) -> [u8; 5] {
    [0, 0, 0, 1, id]
}

/// Nothing, to say that we are still here (BEP 3).
pub const KEEP_ALIVE: [u8; 4] = [0; 4];

/// Rejects a request (BEP 6).
pub fn reject(block: Block) -> [u8; 17] {
    three(id::REJECT, block)
}

/// Takes a request back.
pub fn cancel(block: Block) -> [u8; 17] {
    three(id::CANCEL, block)
}

/// Asks for a block.
pub fn request(block: Block) -> [u8; 17] {
    three(id::REQUEST, block)
}

/// A piece has become available.
pub fn have(piece: PieceIndex) -> [u8; 9] {
    let mut bytes = [0, 0, 0, 5, id::HAVE, 0, 0, 0, 0];
    bytes[5..].copy_from_slice(&piece.0.to_be_bytes());
    bytes
}

/// Where our DHT node listens (BEP 5).
pub fn port(port: u16) -> [u8; 7] {
    let [high, low] = port.to_be_bytes();
    [0, 0, 0, 3, id::PORT, high, low]
}

/// What stands before the bytes of a block.
pub fn piece_header(block: Block) -> [u8; PIECE_HEADER_BYTES] {
    let mut bytes = [0; PIECE_HEADER_BYTES];
    bytes[..4].copy_from_slice(&(9 + block.length).to_be_bytes());
    bytes[4] = id::PIECE;
    bytes[5..9].copy_from_slice(&block.piece.0.to_be_bytes());
    bytes[9..].copy_from_slice(&block.begin.to_be_bytes());
    bytes
}

/// What stands before the bytes of a bitfield.
pub fn bitfield_header(bitfield_bytes: u32) -> [u8; 5] {
    let [a, b, c, d] = (bitfield_bytes + 1).to_be_bytes();
    [a, b, c, d, id::BITFIELD]
}

fn three(id: u8, block: Block) -> [u8; 17] {
    let mut bytes = [0, 0, 0, 13, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[5..9].copy_from_slice(&block.piece.0.to_be_bytes());
    bytes[9..13].copy_from_slice(&block.begin.to_be_bytes());
    bytes[13..].copy_from_slice(&block.length.to_be_bytes());
    bytes
}
