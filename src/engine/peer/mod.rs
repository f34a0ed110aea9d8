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

mod hear;
pub mod request;
mod say;
pub mod serve;

pub use serve::{Item, Serving, Source};

use super::limits::{
    HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT_MS, KEEPALIVE_MS, METADATA_REQUESTS_MAX, OUT_BYTES,
    REQUEST_BYTES, SERVE_BLOCKS_MAX, SILENCE_TIMEOUT_MS, STALL_TIMEOUT_MS,
};
use super::swarm::fetch::Fetching;
use super::swarm::fetch::store::RECEIVE_BYTES_MAX;
use super::swarm::roster::Farewell;
use super::swarm::{Refused, Swarm};
use super::units::{Deadline, Instant, PeerSlot, TorrentSlot};
use super::wire::PeerFault;
use super::wire::frame::Decoder;
use super::wire::handshake::{Features, Handshake, could_begin};
use core::net::SocketAddr;
use request::Request;
use serve::Queue;

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
    /// It asks for a torrent that may be at rest: whoever knows of those is asked.
    Asking { theirs: Handshake, since: Instant },
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
    /// Pieces the peer says it has.
    their_pieces: u32,
    metadata_id: u8,
    /// Pieces of the metadata it has been denied and not told so; beyond these it is not told.
    metadata_denied: heapless::Deque<u32, METADATA_REQUESTS_MAX>,
    /// The next byte of our bitfield to be sent; `None` when it has gone.
    bitfield_at: Option<u32>,
    /// It is still to be told where our DHT node listens.
    port_due: bool,
    /// The number it gave to peer exchange; 0 when it has none.
    exchange_id: u8,
    /// It is told of no peers before.
    exchange_after: Instant,
    /// It has been told of those who came before.
    exchanged: Instant,
    /// What our last extended handshake said; nothing before the first.
    told: Option<Told>,
    /// The swarm's [`withdrawals`](Swarm::withdrawals) when the queue was last looked through.
    withdrawals: u32,
    /// The peer has been told that it may ask.
    told_unchoked: bool,
}

/// What of our extended handshake may change while a connection lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    metadata_bytes: u32,
    upload_only: bool,
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
        swarm: &Swarm<'_, impl Fetching>,
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

    /// Ends it; gives back the queue that was lent to it.
    pub fn into_requests(self) -> &'m mut [Request] {
        self.queue.into_ring()
    }

    /// The torrent it is here for, once it has shaken hands.
    pub fn torrent(&self) -> Option<TorrentSlot> {
        match &self.stage {
            Stage::Member(session) => Some(session.torrent),
            Stage::Greeting { .. } | Stage::Asking { .. } | Stage::Refused(_) => None,
        }
    }

    /// The torrent it asks for, on the wire, while that is not active. Once it is, or is known not to
    /// exist, [`Peer::handle_sought`] goes on.
    pub fn sought(&self) -> Option<[u8; 20]> {
        match &self.stage {
            Stage::Asking { theirs, .. } => Some(theirs.info_hash),
            _ => None,
        }
    }

    /// What it asks for is active now, if it exists.
    pub fn handle_sought(
        &mut self,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        match self.stage {
            Stage::Asking { theirs, .. } => match swarm.find_open(&theirs.info_hash) {
                Some(torrent) => self.enter(theirs, torrent, false, now, swarm),
                None => Err(PeerFault::UnknownTorrent),
            },
            _ => Ok(()),
        }
    }

    /// How many bytes may be handed to [`Peer::handle_received`] next: no more than the queue
    /// takes should all of them be requests. 0 while it is full. A peer that has been asked for
    /// blocks is read on all the same; requests that then find the queue full are dropped.
    pub fn appetite(&self, swarm: &Swarm<'_, impl Fetching>) -> usize {
        match &self.stage {
            // Its torrent may have to be looked for before anything else can be understood.
            Stage::Greeting { received, .. } if swarm.torrents_rest => {
                HANDSHAKE_BYTES - received.len()
            }
            Stage::Greeting { received, .. } => {
                HANDSHAKE_BYTES - received.len() + REQUEST_BYTES * self.queue.free()
            }
            Stage::Asking { .. } | Stage::Refused(_) => 0,
            Stage::Member(_) if swarm.fetcher.awaits_payload(self.slot) => RECEIVE_BYTES_MAX,
            Stage::Member(_) => REQUEST_BYTES * self.queue.free(),
        }
    }

    /// Takes what was read from the socket, at most [`Peer::appetite`] bytes. Payload stays where it
    /// is: the swarm's fetcher says what of it belongs where.
    pub fn handle_received(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        self.last_received = now;
        let whole = bytes.len();
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
            let read = whole - bytes.len();
            result = frame.and_then(|frame| self.handle_frame(frame, read, now, swarm));
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
    pub fn handle_sent(&mut self, sent: usize, now: Instant, swarm: &mut Swarm<'_, impl Fetching>) {
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
            Stage::Greeting { since, .. } | Stage::Asking { since, .. }
                if now >= since.after(HANDSHAKE_TIMEOUT_MS) =>
            {
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
    pub fn poll_output(
        &mut self,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Output<'_> {
        let standing = swarm.member(self.slot).map(|member| (member.farewell, member.unchoked));
        if let Some((Some(farewell), _)) = standing {
            return Output::Close(farewell);
        }
        if let Stage::Refused(refused) = self.stage {
            return Output::Close(Farewell::Refused(refused));
        }
        let unchoked = standing.is_some_and(|(_, unchoked)| unchoked);
        if self.serve_after <= now {
            self.serve_after = Instant::default();
        }
        if !swarm.fetcher.handle_time(self.slot, now)
            && let Stage::Member(session) = &mut self.stage
            && session.bitfield_at.is_none()
        {
            session.bitfield_at = Some(0);
            swarm.fetcher.note_told(self.slot);
        }
        if !self.refuse_what_is_gone(swarm) {
            return Output::Close(Farewell::Withdrawn);
        }
        if self.out.is_empty() && !self.queue.head_begun() {
            self.compose(unchoked, now, swarm);
        }
        if !self.out.is_empty() {
            self.offered = Offered::Bytes;
            return Output::Bytes(&self.out[self.out_sent..]);
        }
        if self.serve_after == Instant::default()
            && let Stage::Member(session) = &self.stage
        {
            let torrent = swarm.torrent(session.torrent);
            let sizes = (torrent.layout, torrent.metadata_bytes);
            // Once it is to be choked nothing may follow what has been begun.
            let most = if session.told_unchoked && !unchoked { 1 } else { SERVE_BLOCKS_MAX };
            let serving = self.queue.view(session.torrent, sizes, session.metadata_id, most);
            if let Some(serving) = serving {
                self.offered = Offered::Serve;
                return Output::Serve(serving);
            }
        }
        if !self.has_output() {
            self.last_idle = now;
        }
        Output::Wait(self.deadline(swarm))
    }

    /// When [`Peer::handle_time`] or [`Peer::poll_output`] next has something to say.
    pub fn deadline(&self, swarm: &Swarm<'_, impl Fetching>) -> Deadline {
        let first = match &self.stage {
            Stage::Greeting { since, .. } | Stage::Asking { since, .. } => {
                Deadline { at: since.after(HANDSHAKE_TIMEOUT_MS), why: "a handshake" }
            }
            Stage::Refused(_) => Deadline::NONE,
            // While there is something else to say, that says that we are here.
            Stage::Member(_) if self.has_output() => {
                Deadline { at: self.stalls_at(), why: "a stalled peer" }
            }
            Stage::Member(_) => {
                Deadline { at: self.last_sent.after(KEEPALIVE_MS), why: "a keep-alive" }
            }
        };
        let mut silence = self.last_received.after(SILENCE_TIMEOUT_MS);
        if self.has_output() {
            silence = silence.max(self.stalls_at());
        }
        let mut due = first.or(Deadline { at: silence, why: "a silent peer" });
        // While something stands before it, what is to be said waits for the socket, not the clock.
        let may_say = self.out.is_empty() && !self.queue.head_begun();
        due = due.or(swarm.fetcher.deadline(self.slot, may_say));
        if !self.queue.is_empty() && self.serve_after != Instant::default() {
            due = due.or(Deadline { at: self.serve_after, why: "a cold read" });
        }
        due
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
}
