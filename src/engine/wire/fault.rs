//! What a peer can do wrong: one variant each, and one `match` that says what follows.

use core::fmt;

/// A violation that ends the connection. Each variant has a test that provokes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// The first bytes are not those of BEP 3: another protocol, or an encrypted connection.
    NotBitTorrent,
    /// It came for a torrent that is not here.
    UnknownTorrent,
    /// It answered a dial with another torrent than the one asked for.
    OtherTorrent,
    /// It is ourselves.
    Ourselves,
    /// No handshake within its time.
    HandshakeLate,
    /// Nothing received for longer than BEP 3's keep-alive allows.
    Silent,
    /// It asked, and then takes no byte.
    Stalled,
    /// A message longer than its kind can be, or than any we know.
    FrameTooLong,
    /// A length that does not fit the kind of message.
    FrameLength,
    /// A bitfield of another length than the torrent's.
    BitfieldLength,
    /// Bits set beyond the last piece.
    BitfieldSpare,
    /// A piece number beyond the torrent's.
    PieceRange,
    /// A request beyond its piece, empty, or larger than anybody asks for.
    RequestRange,
    /// More requests than we said we keep (`reqq`) and than it could have sent unread.
    RequestFlood,
    /// A block we never asked for.
    Unrequested,
    /// A message of BEP 6 or BEP 10 that the handshakes did not agree on.
    NotNegotiated,
    /// An extended message that is no dictionary.
    Extended,
    /// Nothing but messages without purpose.
    Pointless,
}

/// How long to stay away from an address after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// Nothing to hold against it: it may come back at once.
    None,
    /// It broke the protocol: not dialled again for an hour.
    Shun,
}

impl PeerFault {
    /// The ban policy, all of it.
    pub fn penalty(self) -> Penalty {
        match self {
            PeerFault::UnknownTorrent
            | PeerFault::OtherTorrent
            | PeerFault::HandshakeLate
            | PeerFault::Silent
            | PeerFault::Stalled => Penalty::None,
            PeerFault::NotBitTorrent
            | PeerFault::Ourselves
            | PeerFault::FrameTooLong
            | PeerFault::FrameLength
            | PeerFault::BitfieldLength
            | PeerFault::BitfieldSpare
            | PeerFault::PieceRange
            | PeerFault::RequestRange
            | PeerFault::RequestFlood
            | PeerFault::Unrequested
            | PeerFault::NotNegotiated
            | PeerFault::Extended
            | PeerFault::Pointless => Penalty::Shun,
        }
    }
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerFault::NotBitTorrent => "does not speak plain BitTorrent",
            PeerFault::UnknownTorrent => "came for a torrent that is not here",
            PeerFault::OtherTorrent => "answered for another torrent",
            PeerFault::Ourselves => "is ourselves",
            PeerFault::HandshakeLate => "did not shake hands in time",
            PeerFault::Silent => "fell silent",
            PeerFault::Stalled => "took nothing of what it asked for",
            PeerFault::FrameTooLong => "sent a message that is too long",
            PeerFault::FrameLength => "sent a message of a wrong length",
            PeerFault::BitfieldLength => "sent a bitfield of a wrong length",
            PeerFault::BitfieldSpare => "sent a bitfield with bits beyond the last piece",
            PeerFault::PieceRange => "spoke of a piece that does not exist",
            PeerFault::RequestRange => "asked for bytes that do not exist",
            PeerFault::RequestFlood => "sent more requests than it may",
            PeerFault::Unrequested => "sent a block nobody asked for",
            PeerFault::NotNegotiated => "used an extension that was not agreed on",
            PeerFault::Extended => "sent an extended message that is none",
            PeerFault::Pointless => "sent nothing but messages without purpose",
        })
    }
}

impl core::error::Error for PeerFault {}
