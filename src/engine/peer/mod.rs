//! One connection as a state machine without I/O.
//!
//! Received bytes go in, and what is to be done next comes out, one thing at a time:
//!
//! ```text
//!   handle_received(bytes) ─┐                 ┌─> Bytes(..)   write these, then handle_sent(n)
//!   handle_sent(n)         ─┤  Peer  + Swarm  ├─> Serve(..)   read these blocks and send them,
//!   handle_cold(until)     ─┤ (for one call)  │               then handle_sent(n)
//!   handle_time(now)       ─┘                 ├─> Wait(..)    nothing until then or until input
//!                             poll_output ────┴─> Close(..)   end it; nothing was wrong
//! ```
//!
//! Contract: after each input, `poll_output` is drained until `Wait` or `Close`. Every call does
//! work bounded by its buffers. Payload never stays here: a [`Serving`] is a view of the head of
//! the request queue, and nothing is committed until `handle_sent` says how much went. A request
//! stands in one place, the queue, so that cancel, choke and a file that changed reach all of it
//! but the block whose first byte is gone.
//!
//! [`Peer::appetite`] says how many bytes may be read next. While the queue is full it is 0, and
//! the rest stays with the kernel: TCP pushes back, and no queue can overflow.
//!
//! Journey 2: from `service/pump` by [`wire::frame`](super::wire::frame) into the queue
//! ([`serve`]); interest goes to the [`swarm`](super::swarm); out by `service/disk`.

pub mod serve;

pub use serve::{Item, Serving, Source};

use super::limits::{
    BLOCK_BYTES_MAX, HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT_MS, KEEPALIVE_MS, METADATA_PIECE_BYTES,
    OUT_BYTES, POINTLESS_MAX, REQUEST_BYTES, SILENCE_TIMEOUT_MS, STALL_TIMEOUT_MS,
};
use super::metainfo::layout::OutOfRange;
use super::swarm::roster::{Farewell, Member};
use super::swarm::torrent::Have;
use super::swarm::{Refused, Swarm};
use super::units::{Block, Deadline, Instant, PeerSlot, TorrentSlot};
use super::wire::extended::{self, Hello, PeerHello};
use super::wire::frame::{Decoder, Frame};
use super::wire::handshake::{Features, Handshake, could_begin};
use super::wire::message::{self, id};
use super::wire::{PeerFault, extended::METADATA_ID};
use core::net::SocketAddr;
use serve::{Queue, Request};

/// What a connection wants done next.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack, for one call; there is no heap"
)]
pub enum Output<'a> {
    /// Write these bytes to the socket, then [`Peer::handle_sent`].
    Bytes(&'a [u8]),
    /// Read and send these, then [`Peer::handle_sent`], or [`Peer::handle_cold`].
    Serve(Serving),
    /// Nothing until input, a nudge, or the deadline.
    Wait(Deadline),
    /// End the connection; the peer did nothing wrong.
    Close(Farewell),
}

/// A connection. Everything it will ever hold is here or in the queue lent to it.
pub struct Peer<'m> {
    slot: PeerSlot,
    address: SocketAddr,
    stage: Stage,
    out: heapless::Vec<u8, OUT_BYTES>,
    out_sent: usize,
    queue: Queue<'m>,
    /// What `poll_output` offered last, so that `handle_sent` knows what went.
    offered: Offered,
    /// Serving pauses until then: a read would have blocked.
    serve_after: Instant,
    last_received: Instant,
    last_sent: Instant,
    /// When there last was nothing to send.
    last_idle: Instant,
    pointless: u32,
}

/// How far a connection has come.
#[expect(clippy::large_enum_variant, reason = "nearly every connection is the large one")]
enum Stage {
    /// Shaking hands.
    Greeting {
        /// What has come of the peer's handshake.
        received: heapless::Vec<u8, HANDSHAKE_BYTES>,
        /// The torrent we dialled for; we speak first then.
        dialled: Option<TorrentSlot>,
        since: Instant,
    },
    /// Not let in.
    Refused(Refused),
    /// Past it.
    Member(Session),
}

/// What is known of a peer past its handshake, and what we have told it.
struct Session {
    torrent: TorrentSlot,
    features: Features,
    decoder: Decoder,
    /// The peer has said what it has: a bitfield comes before any other word about pieces. (BEP 3
    /// wants it to be the first message; libtorrent sends its extended handshake before.)
    told_pieces: bool,
    /// Pieces the peer says it has.
    their_pieces: u32,
    metadata_id: u8,
    /// The next byte of our bitfield to be sent; `None` when it has gone.
    bitfield_at: Option<u32>,
    hello_due: bool,
    /// The swarm's [`withdrawals`](Swarm::withdrawals) when the queue was last looked through.
    withdrawals: u32,
    /// The peer has been told that it may ask.
    told_unchoked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Nothing,
    Bytes,
    Serve,
}

impl<'m> Peer<'m> {
    /// A connection that came to us. `requests` is its queue, `reqq` entries.
    pub fn accepted(
        slot: PeerSlot,
        address: SocketAddr,
        requests: &'m mut [Request],
        now: Instant,
    ) -> Peer<'m> {
        Peer::new(slot, address, requests, None, now)
    }

    /// A connection we made, for `torrent`.
    pub fn dialled(
        slot: PeerSlot,
        address: SocketAddr,
        requests: &'m mut [Request],
        torrent: TorrentSlot,
        now: Instant,
        swarm: &Swarm<'_>,
    ) -> Peer<'m> {
        let mut peer = Peer::new(slot, address, requests, Some(torrent), now);
        peer.put_handshake(torrent, swarm);
        peer
    }

    fn new(
        slot: PeerSlot,
        address: SocketAddr,
        requests: &'m mut [Request],
        dialled: Option<TorrentSlot>,
        now: Instant,
    ) -> Peer<'m> {
        let received = heapless::Vec::new();
        Peer {
            slot,
            address,
            stage: Stage::Greeting { received, dialled, since: now },
            out: heapless::Vec::new(),
            out_sent: 0,
            queue: Queue::new(requests),
            offered: Offered::Nothing,
            serve_after: Instant::default(),
            last_received: now,
            last_sent: now,
            last_idle: now,
            pointless: 0,
        }
    }

    /// The torrent it is here for, once it has shaken hands.
    pub fn torrent(&self) -> Option<TorrentSlot> {
        match &self.stage {
            Stage::Member(session) => Some(session.torrent),
            Stage::Greeting { .. } | Stage::Refused(_) => None,
        }
    }

    /// How many bytes may be handed to [`Peer::handle_received`] next: no more than the queue
    /// takes should all of them be requests. 0 while it is full.
    pub fn appetite(&self) -> usize {
        match self.stage {
            Stage::Greeting { .. } => HANDSHAKE_BYTES + REQUEST_BYTES * self.queue.free(),
            Stage::Refused(_) => 0,
            Stage::Member(_) => REQUEST_BYTES * self.queue.free(),
        }
    }

    /// Takes what was read from the socket, at most [`Peer::appetite`] bytes.
    pub fn handle_received(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        swarm: &mut Swarm<'_>,
    ) -> Result<(), PeerFault> {
        self.last_received = now;
        if let Stage::Greeting { received, .. } = &mut self.stage {
            let missing = received.capacity() - received.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            // There is room: `part` is no longer than what is missing.
            let _ = received.extend_from_slice(part);
            bytes = rest;
            if !could_begin(received) {
                return Err(PeerFault::NotBitTorrent);
            }
            let Ok(whole) = <&[u8; HANDSHAKE_BYTES]>::try_from(received.as_slice()) else {
                return Ok(());
            };
            let handshake = Handshake::parse(whole).ok_or(PeerFault::NotBitTorrent)?;
            self.greet(handshake, now, swarm)?;
        }
        // The decoder is taken out for the loop, so that a frame may borrow from it.
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        let mut decoder = core::mem::take(&mut session.decoder);
        let mut result = Ok(());
        while let Some(frame) = decoder.next(&mut bytes).transpose() {
            result = frame.and_then(|frame| self.handle_frame(frame, now, swarm));
            if result.is_err() {
                break;
            }
        }
        if let Stage::Member(session) = &mut self.stage {
            session.decoder = decoder;
        }
        result
    }

    /// So many bytes of what was offered last went to the socket; 0 when it took none.
    pub fn handle_sent(&mut self, sent: usize, now: Instant, swarm: &mut Swarm<'_>) {
        if sent > 0 {
            self.last_sent = now;
        }
        match core::mem::replace(&mut self.offered, Offered::Nothing) {
            Offered::Nothing => {}
            Offered::Bytes => {
                self.out_sent += sent;
                if self.out_sent >= self.out.len() {
                    self.out.clear();
                    self.out_sent = 0;
                }
            }
            Offered::Serve => {
                let (content_bytes, blocks) = self.queue.advance(sent);
                self.pointless = self.pointless.saturating_sub(blocks);
                swarm.count_sent(self.slot, content_bytes, now);
            }
        }
    }

    /// What was to be served cannot be read now without sleeping: other output goes on, serving
    /// pauses until `until` (or [`Peer::handle_warm`], when a lane reads it).
    pub fn handle_cold(&mut self, until: Instant) {
        self.offered = Offered::Nothing;
        self.serve_after = until;
    }

    /// A lane has read what was cold.
    pub fn handle_warm(&mut self) {
        self.serve_after = Instant::default();
    }

    /// What is left of a block that was begun can no longer be read, or may no longer be sent.
    /// `true` when the connection has to end because its first bytes are gone already.
    pub fn handle_lost(&mut self) -> bool {
        self.offered = Offered::Nothing;
        self.serve_after = Instant::default();
        self.queue.head_begun()
    }

    /// Looks at the clock: what has taken too long ends the connection.
    pub fn handle_time(&mut self, now: Instant) -> Result<(), PeerFault> {
        match &self.stage {
            Stage::Greeting { since, .. } if now >= since.after(HANDSHAKE_TIMEOUT_MS) => {
                Err(PeerFault::HandshakeLate)
            }
            _ if now >= self.last_received.after(SILENCE_TIMEOUT_MS) && !self.is_taking(now) => {
                Err(PeerFault::Silent)
            }
            _ if self.has_output() && now >= self.stalls_at() => Err(PeerFault::Stalled),
            _ => Ok(()),
        }
    }

    /// The next thing to do. See the module.
    pub fn poll_output(&mut self, now: Instant, swarm: &mut Swarm<'_>) -> Output<'_> {
        let standing = swarm.member(self.slot).map(|member| (member.farewell, member.unchoked));
        if let Some((Some(farewell), _)) = standing {
            return Output::Close(farewell);
        }
        if let Stage::Refused(refused) = self.stage {
            return Output::Close(Farewell::Refused(refused));
        }
        let unchoked = standing.is_some_and(|(_, unchoked)| unchoked);
        if self.out.is_empty() && !self.queue.head_begun() {
            self.compose(unchoked, now, swarm);
        }
        if !self.out.is_empty() {
            self.offered = Offered::Bytes;
            return Output::Bytes(&self.out[self.out_sent..]);
        }
        if self.serve_after <= now
            && let Stage::Member(session) = &self.stage
        {
            let torrent = swarm.torrent(session.torrent);
            let sizes = (torrent.layout, torrent.metadata_bytes);
            if let Some(serving) = self.queue.view(session.torrent, sizes, session.metadata_id) {
                self.offered = Offered::Serve;
                return Output::Serve(serving);
            }
        }
        if !self.has_output() {
            self.last_idle = now;
        }
        Output::Wait(self.deadline())
    }

    /// When [`Peer::handle_time`] or [`Peer::poll_output`] next has something to say.
    pub fn deadline(&self) -> Deadline {
        let first = match &self.stage {
            Stage::Greeting { since, .. } => {
                Deadline { at: since.after(HANDSHAKE_TIMEOUT_MS), why: "a handshake" }
            }
            Stage::Refused(_) => Deadline::NONE,
            Stage::Member(_) => {
                Deadline { at: self.last_sent.after(KEEPALIVE_MS), why: "a keep-alive" }
            }
        };
        let silence = self.last_received.after(SILENCE_TIMEOUT_MS);
        let mut due = first.or(Deadline { at: silence, why: "a silent peer" });
        if self.has_output() {
            due = due.or(Deadline { at: self.stalls_at(), why: "a stalled peer" });
        }
        if !self.queue.is_empty() && self.serve_after != Instant::default() {
            due = due.or(Deadline { at: self.serve_after, why: "a cold read" });
        }
        due
    }

    /// Changes whenever the head of its queue does.
    pub fn revision(&self) -> u32 {
        self.queue.revision()
    }

    fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.queue.is_empty()
    }

    /// A peer whose big requests we are still answering need not say anything meanwhile.
    fn is_taking(&self, now: Instant) -> bool {
        self.has_output() && now < self.stalls_at()
    }

    /// When a peer that has something to take and takes nothing has stalled.
    fn stalls_at(&self) -> Instant {
        self.last_sent.max(self.last_idle).after(STALL_TIMEOUT_MS)
    }

    /// A whole handshake has come.
    fn greet(
        &mut self,
        theirs: Handshake,
        now: Instant,
        swarm: &mut Swarm<'_>,
    ) -> Result<(), PeerFault> {
        let Stage::Greeting { dialled, .. } = self.stage else { return Ok(()) };
        let torrent = swarm.find(&theirs.info_hash).ok_or(PeerFault::UnknownTorrent)?;
        if dialled.is_some_and(|dialled| dialled != torrent) {
            return Err(PeerFault::OtherTorrent);
        }
        if theirs.peer_id == swarm.identity().peer_id {
            return Err(PeerFault::Ourselves);
        }
        let (address, features) = (self.address, theirs.features);
        let member = Member::new(torrent, address, theirs.peer_id, features.fast, now);
        if let Err(refused) = swarm.join(self.slot, member, now) {
            self.stage = Stage::Refused(refused);
            return Ok(());
        }
        if dialled.is_none() {
            self.put_handshake(torrent, swarm);
        }
        self.stage = Stage::Member(Session {
            torrent,
            features,
            decoder: Decoder::default(),
            told_pieces: false,
            their_pieces: 0,
            metadata_id: 0,
            bitfield_at: Some(0),
            hello_due: features.extended,
            withdrawals: swarm.withdrawals(),
            told_unchoked: false,
        });
        Ok(())
    }

    fn put_handshake(&mut self, torrent: TorrentSlot, swarm: &Swarm<'_>) {
        let handshake = Handshake {
            info_hash: swarm.torrent(torrent).info_hash.on_the_wire(),
            peer_id: swarm.identity().peer_id,
            features: Features { fast: true, extended: true },
        };
        // There is room: nothing has been put out before it.
        let _ = self.out.extend_from_slice(&handshake.write());
    }

    fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        now: Instant,
        swarm: &mut Swarm<'_>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        let torrent = session.torrent;
        let layout = swarm.torrent(torrent).layout;
        let first_word = match frame {
            Frame::Have(_) | Frame::HaveAll | Frame::HaveNone | Frame::Bitfield { .. } => {
                !core::mem::replace(&mut session.told_pieces, true)
            }
            _ => false,
        };
        match frame {
            Frame::KeepAlive | Frame::Skipped | Frame::Advice => return self.count_pointless(),
            // We ask for nothing: whether we may makes no difference.
            Frame::Choke(_) => {}
            Frame::Reject(_) if !session.features.fast => return Err(PeerFault::NotNegotiated),
            Frame::Reject(_) | Frame::Piece => return Err(PeerFault::Unrequested),
            Frame::Interested(interested) => swarm.set_interested(self.slot, interested, now),
            Frame::Have(piece) if piece.0 >= layout.piece_count() => {
                return Err(PeerFault::PieceRange);
            }
            Frame::Have(_) => session.count_pieces(1, self.slot, swarm),
            Frame::Bitfield { offset, bytes, total } => {
                if total != layout.bitfield_bytes() || (offset == 0 && !first_word) {
                    return Err(PeerFault::BitfieldLength);
                }
                let end = offset + bytes.len() as u32;
                let spare = (8 - layout.piece_count() % 8) % 8;
                let last = bytes.last().copied().unwrap_or(0);
                if end == total && last & !(0xff << spare) != 0 {
                    return Err(PeerFault::BitfieldSpare);
                }
                let count = bytes.iter().map(|byte| byte.count_ones()).sum();
                session.count_pieces(count, self.slot, swarm);
            }
            Frame::HaveAll | Frame::HaveNone if !session.features.fast => {
                return Err(PeerFault::NotNegotiated);
            }
            Frame::HaveAll => session.count_pieces(layout.piece_count(), self.slot, swarm),
            Frame::HaveNone => {}
            Frame::Request(block) => return self.handle_request(block, swarm),
            Frame::Cancel(block) => {
                let fast = session.features.fast;
                if !self.queue.cancel(block, fast) {
                    return self.count_pointless();
                }
            }
            Frame::Extended { .. } if !session.features.extended => {
                return Err(PeerFault::NotNegotiated);
            }
            Frame::Extended { sub_id, payload } => {
                return self.handle_extended(sub_id, payload, swarm);
            }
        }
        Ok(())
    }

    fn handle_request(&mut self, block: Block, swarm: &Swarm<'_>) -> Result<(), PeerFault> {
        let Stage::Member(session) = &self.stage else { return Ok(()) };
        match swarm.torrent(session.torrent).layout.locate(block) {
            Err(OutOfRange::Piece) => return Err(PeerFault::PieceRange),
            Err(OutOfRange::Block | OutOfRange::TooLong) => return Err(PeerFault::RequestRange),
            Ok(_) => {}
        }
        const { assert!(BLOCK_BYTES_MAX <= u16::MAX as u32, "a request keeps its length so") };
        let fast = session.features.fast;
        let answered = session.told_unchoked && swarm.offers(session.torrent, block.piece.0);
        if answered || fast {
            // Within the appetite there is always room; a caller that reads more gets a fault.
            self.queue.push(block, answered).map_err(|_| PeerFault::RequestFlood)?;
        }
        if answered { Ok(()) } else { self.count_pointless() }
    }

    fn handle_extended(
        &mut self,
        sub_id: u8,
        payload: &[u8],
        swarm: &Swarm<'_>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        match sub_id {
            0 => {
                let hello = PeerHello::parse(payload).ok_or(PeerFault::Extended)?;
                session.metadata_id = hello.metadata_id;
                Ok(())
            }
            METADATA_ID if session.metadata_id != 0 => {
                let Some(piece) = extended::parse_metadata_request(payload) else {
                    return self.count_pointless();
                };
                let total = swarm.torrent(session.torrent).metadata_bytes;
                let exists = piece < total.div_ceil(METADATA_PIECE_BYTES);
                if !exists || self.queue.push_metadata(piece).is_err() {
                    // Said if there is room to say it; the peer asks again in any case.
                    let id = session.metadata_id;
                    let _ = extended::write_metadata_reject(&mut self.out, id, piece);
                    return self.count_pointless();
                }
                Ok(())
            }
            _ => self.count_pointless(),
        }
    }

    /// One message more that serves no purpose.
    fn count_pointless(&mut self) -> Result<(), PeerFault> {
        self.pointless += 1;
        if self.pointless > POINTLESS_MAX { Err(PeerFault::Pointless) } else { Ok(()) }
    }

    /// Writes small messages that are due, as many as fit.
    fn compose(&mut self, unchoked: bool, now: Instant, swarm: &Swarm<'_>) {
        let Stage::Member(session) = &mut self.stage else { return };
        if let Some(offset) = session.bitfield_at {
            session.bitfield_at = write_bitfield(&mut self.out, offset, session, swarm);
            if session.bitfield_at.is_some() {
                return;
            }
        }
        if core::mem::take(&mut session.hello_due) {
            let torrent = swarm.torrent(session.torrent);
            let hello = Hello {
                metadata_bytes: torrent.metadata_bytes,
                requests_max: swarm.identity().requests_max,
                listen_port: swarm.identity().listen_port,
                your_ip: self.address.ip(),
                upload_only: true,
            };
            session.hello_due = hello.write(&mut self.out).is_err();
        }
        if session.told_unchoked != unchoked {
            let id = if unchoked { id::UNCHOKE } else { id::CHOKE };
            if self.out.extend_from_slice(&message::bare(id)).is_ok() {
                session.told_unchoked = unchoked;
                if !unchoked {
                    self.queue.choke(session.features.fast);
                }
            }
        }
        let (torrent, fast) = (session.torrent, session.features.fast);
        if core::mem::replace(&mut session.withdrawals, swarm.withdrawals()) != swarm.withdrawals()
        {
            self.queue.refuse_all_but(|piece| swarm.offers(torrent, piece), fast);
        }
        while self.out.len() + REQUEST_BYTES <= OUT_BYTES
            && let Some(block) = self.queue.take_rejected()
        {
            // There is room: that is the loop's condition.
            let _ = self.out.extend_from_slice(&message::reject(block));
        }
        if self.out.is_empty() && self.queue.is_empty() && now >= self.last_sent.after(KEEPALIVE_MS)
        {
            let _ = self.out.extend_from_slice(&message::KEEP_ALIVE);
        }
    }
}

impl Session {
    /// The peer has so many pieces more.
    fn count_pieces(&mut self, count: u32, slot: PeerSlot, swarm: &mut Swarm<'_>) {
        self.their_pieces = self.their_pieces.saturating_add(count);
        if self.their_pieces >= swarm.torrent(self.torrent).layout.piece_count() {
            swarm.set_complete(slot);
        }
    }
}

/// Writes what we have, from byte `offset` of the bitfield; where to go on, `None` at the end.
fn write_bitfield(
    out: &mut heapless::Vec<u8, OUT_BYTES>,
    offset: u32,
    session: &Session,
    swarm: &Swarm<'_>,
) -> Option<u32> {
    let torrent = swarm.torrent(session.torrent);
    let short = match torrent.have {
        Have::All if session.features.fast => Some(id::HAVE_ALL),
        Have::Nothing if session.features.fast => Some(id::HAVE_NONE),
        _ => None,
    };
    if let Some(id) = short {
        return out.extend_from_slice(&message::bare(id)).err().map(|_| 0);
    }
    let whole = torrent.layout.bitfield_bytes();
    if offset == 0 {
        // There is room: at most a handshake stands before it.
        let _ = out.extend_from_slice(&message::bitfield_header(whole));
    }
    let filled = out.len();
    // There is room for as many as that: it is the capacity.
    let _ = out.resize(OUT_BYTES, 0);
    let written = swarm.bitfield(session.torrent, offset, &mut out[filled..]);
    out.truncate(filled + written);
    let next = offset + written as u32;
    (next < whole).then_some(next)
}
