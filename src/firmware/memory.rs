//! All memory the firmware's loop works in, as statics whose sizes the linker knows.

use super::line::Line;
use super::tracker::{ANSWER_BYTES, REQUEST_BYTES};
use crate::engine::announce::local::DATAGRAM_BYTES_MAX;
use crate::engine::peer::request::{NO_REQUEST, Request};
use crate::engine::swarm::pool::Pool;
use crate::engine::swarm::roster::Member;
use crate::engine::swarm::torrent::Torrent;
use crate::engine::units::PeerSlot;
use smoltcp::iface::SocketStorage;
use smoltcp::socket::{tcp, udp};

/// What [`run`](super::run) works in. `LINES` connections, one more than the board's `peers_max`
/// so that a newcomer can be told to go; `REQUESTS` entries of each request queue.
pub struct Memory<const LINES: usize, const REQUESTS: usize> {
    pub(super) lines: [Option<Line>; LINES],
    pub(super) requests: [[Request; REQUESTS]; LINES],
    pub(super) members: [Option<Member>; LINES],
    pub(super) nudged: [PeerSlot; LINES],
    pub(super) torrents: [Option<Torrent>; 1],
    pub(super) bits: [u8; Pool::lent_bytes(BITS_BYTES)],
}

/// What the network stack works in besides its rings: a static of its own, as it is not engine
/// state.
pub struct Sockets {
    pub(super) all: [SocketStorage<'static>; SOCKETS_MAX],
    pub(super) local: Marks,
    pub(super) tracker: Marks,
}

/// Bytes and nothing else, so that no flash is spent on what they are at the start: TCP's rings,
/// `RX` and `TX` bytes for each line, and what is read and written through.
pub struct Buffers<const LINES: usize, const RX: usize, const TX: usize> {
    pub(super) rings: [Rings<RX, TX>; LINES],
    pub(super) others: OtherRings,
    pub(super) journal: [u8; JOURNAL_BUFFER_BYTES],
    pub(super) scratch: [u8; SCRATCH_BYTES],
}

/// Rings of the sockets that are no line's.
pub(super) struct OtherRings {
    pub local: Rings<DATAGRAM_BYTES_MAX, 256>,
    /// An answer has room for 200 peers, which some give although none are asked for.
    pub tracker: Rings<1_220, 512>,
    pub http: Rings<ANSWER_BYTES, REQUEST_BYTES>,
}

/// Where a UDP socket's datagrams begin and end in its rings.
pub(super) struct Marks {
    received: [udp::PacketMetadata; 2],
    sent: [udp::PacketMetadata; 2],
}

/// What has come and what is to go.
pub(super) struct Rings<const RX: usize, const TX: usize> {
    rx: [u8; RX],
    tx: [u8; TX],
}

impl<const LINES: usize, const REQUESTS: usize> Memory<LINES, REQUESTS> {
    /// Memory as it is before a run.
    #[expect(clippy::new_without_default, reason = "it is made once, at compile time")]
    pub const fn new() -> Self {
        const { assert!(LINES + OTHER_SOCKETS <= SOCKETS_MAX, "raise SOCKETS_MAX") };
        Memory {
            lines: [const { None }; LINES],
            requests: [const { [NO_REQUEST; REQUESTS] }; LINES],
            members: [const { None }; LINES],
            nudged: [PeerSlot(0); LINES],
            torrents: [const { None }],
            bits: [0; Pool::lent_bytes(BITS_BYTES)],
        }
    }
}

impl Sockets {
    /// No socket yet.
    #[expect(clippy::new_without_default, reason = "it is made once, at compile time")]
    pub const fn new() -> Sockets {
        let (local, tracker) = (Marks::new(), Marks::new());
        Sockets { all: [SocketStorage::EMPTY; SOCKETS_MAX], local, tracker }
    }
}

impl<const LINES: usize, const RX: usize, const TX: usize> Buffers<LINES, RX, TX> {
    /// Empty ones.
    #[expect(clippy::new_without_default, reason = "it is made once, at compile time")]
    pub const fn new() -> Self {
        let others = OtherRings { local: Rings::new(), tracker: Rings::new(), http: Rings::new() };
        let (journal, scratch) = ([0; JOURNAL_BUFFER_BYTES], [0; SCRATCH_BYTES]);
        Buffers { rings: [const { Rings::new() }; LINES], others, journal, scratch }
    }
}

impl<const RX: usize, const TX: usize> Rings<RX, TX> {
    const fn new() -> Self {
        Rings { rx: [0; RX], tx: [0; TX] }
    }

    /// A TCP socket that works in them.
    pub fn stream(&'static mut self) -> tcp::Socket<'static> {
        let received = tcp::SocketBuffer::new(&mut self.rx[..]);
        tcp::Socket::new(received, tcp::SocketBuffer::new(&mut self.tx[..]))
    }

    /// A UDP socket that works in them.
    pub fn datagrams(&'static mut self, marks: &'static mut Marks) -> udp::Socket<'static> {
        let received = udp::PacketBuffer::new(&mut marks.received[..], &mut self.rx[..]);
        udp::Socket::new(received, udp::PacketBuffer::new(&mut marks.sent[..], &mut self.tx[..]))
    }
}

impl Marks {
    const fn new() -> Marks {
        let none = [udp::PacketMetadata::EMPTY; 2];
        Marks { received: none, sent: none }
    }
}

/// Sockets beside the lines: DHCP, local discovery, and a tracker over UDP and over TCP.
const OTHER_SOCKETS: usize = 4;

/// Sockets at most; a board with more lines raises it.
const SOCKETS_MAX: usize = 9;

/// A bit for each piece, `bits_kib` of every firmware board: 8,192 pieces.
pub const BITS_BYTES: usize = 1024;

/// Two write units of a card: one commit of the journal, and one to look at.
const JOURNAL_BUFFER_BYTES: usize = 1024;

/// What is hashed or checked at a time.
const SCRATCH_BYTES: usize = 512;
