//! A pump: the task that moves one connection's bytes between its socket and its [`Peer`].
//!
//! There are exactly as many pumps as connections the board can hold, each with its own lent
//! request queue; a pump takes a socket from the [`lobby`], carries it to its end
//! and comes back for the next. It decides nothing: it hands in what it reads, and does what
//! [`Peer::poll_output`] says.
//!
//! ```text
//!            ┌── feed: readable and the peer has appetite -> one recv -> handle_received
//!   turn ────┤
//!            └── act:  poll_output -> Bytes, Serve: tried once, never awaited -> sent | blocked | cold
//!                                  -> Wait: arm the one clock and sleep
//! ```
//!
//! Both halves run in one turn, so that a socket that takes no bytes can still give some. Nothing
//! is read from disk before the kernel says that the socket takes bytes, so little is read twice.
//! Nothing is borrowed over an `.await`, and nothing allocates.
//!
//! Journey 2 ends here: `engine/peer/serve` -> `service/disk` -> the socket.

mod payload;

use super::Service;
use super::content::ContentError;
use super::disk::Reading;
use super::lanes::{Buffer, Done, Job, Receipt};
use super::lobby::{self, Arrival};
use super::streams::Stream;
use super::volume::Deed;
use super::windows::Window;
use crate::engine::limits::COLD_RETRY_MS;
use crate::engine::peer::request::Request;
use crate::engine::peer::{Output, Peer, Serving};
use crate::engine::swarm::DialEnd;
use crate::engine::swarm::candidates::SHUN_MS;
use crate::engine::swarm::fetch::Fetching;
use crate::engine::swarm::roster::Farewell;
use crate::engine::units::{Deadline, Instant, PeerSlot, Span, TorrentSlot};
use crate::engine::wire::PeerFault;
use payload::Gathered;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The other side closed it, or the network did.
    Gone,
    /// The peer broke the protocol.
    Fault(PeerFault),
    /// We had a reason of our own.
    Farewell(Farewell),
    /// The rest of a block could no longer be read.
    Lost,
}

/// Carries connections, one after the other, for ever.
pub async fn run(service: &Service<'_>, slot: PeerSlot, requests: &mut [Request]) {
    loop {
        let arrival = service.lobby.next(service, slot).await;
        let (address, dialled) = (arrival.address(), arrival.torrent());
        // Its own as long as it is connected.
        let window = service.windows.take(dialled.is_some());
        let ending = match connect(service, slot, arrival, &window).await {
            Ok(stream) => converse(service, slot, &stream, address, dialled, requests).await,
            Err(error) => {
                debug!("{address}: {error}");
                service.lobby.greeted(slot);
                let now = service.clock.now();
                if let Some(torrent) = dialled {
                    let mut swarm = service.swarm.borrow_mut();
                    swarm.dialled(torrent, address, DialEnd::Unreachable, now);
                }
                continue;
            }
        };
        let now = service.clock.now();
        let mut swarm = service.swarm.borrow_mut();
        swarm.leave(slot, now);
        if ending == Ending::Fault(PeerFault::Ourselves) {
            // Whoever told us of a peer there told us of ourselves.
            let own = SocketAddr::new(address.ip(), service.listen.port());
            swarm.candidates.put_off(None, own, now, SHUN_MS, false);
        }
        if let Some(torrent) = dialled {
            let end = match ending {
                Ending::Farewell(Farewell::Complete) => DialEnd::Complete,
                Ending::Farewell(Farewell::Corrupt) => DialEnd::Corrupt,
                Ending::Fault(fault) => DialEnd::Fault(fault),
                _ => DialEnd::Ended,
            };
            swarm.dialled(torrent, address, end, now);
        }
        drop(swarm);
        service.ring_nudged();
        debug!("{address}: {ending:?}");
    }
}

async fn connect<'s>(
    service: &'s Service<'_>,
    slot: PeerSlot,
    arrival: Arrival,
    window: &Window<'_>,
) -> io::Result<Stream<'s>> {
    let candidate = match arrival {
        Arrival::Accepted(stream, _) => return service.streams.take_in(slot, stream),
        Arrival::Dial(candidate) => candidate,
    };
    let dialled = lobby::dial(service, candidate.address, window)?;
    let stream = service.streams.take_in(slot, dialled)?;
    let at = service.clock.now().after(DIAL_TIMEOUT_MS);
    let place = service.clock.slot(slot.index());
    while !stream.is_writable() {
        if service.clock.now() >= at {
            return Err(io::ErrorKind::TimedOut.into());
        }
        service.clock.wait(place, Deadline { at, why: "a dial" }).await;
    }
    stream.take_error()?;
    Ok(stream)
}

async fn converse(
    service: &Service<'_>,
    slot: PeerSlot,
    stream: &Stream<'_>,
    address: SocketAddr,
    dialled: Option<TorrentSlot>,
    requests: &mut [Request],
) -> Ending {
    let now = service.clock.now();
    let peer = match dialled {
        None => Peer::accepted(slot, address, requests, now),
        Some(torrent) => {
            Peer::dialled(slot, address, requests, torrent, now, &service.swarm.borrow())
        }
    };
    let in_the_house = service.lan().contains(address.ip());
    let is_scarce = service.is_capped(in_the_house) || !in_the_house;
    service.swarm.borrow_mut().set_scarce(slot, is_scarce);
    let mut pump = Pump {
        service,
        slot,
        stream,
        peer,
        smooth: 0,
        cold: Cold::No,
        storing: None,
        gathered: None,
        waits_for_buffer: false,
        in_the_house,
        waits_for_cap: false,
        greeted: false,
    };
    let ending = poll_fn(|cx| pump.turn(cx)).await;
    service.line.leave(slot);
    // What a lane has of it is waited for: the fetcher counts on an answer.
    if let Some(receipt) = pump.storing.take() {
        service.handle_done(receipt.await);
    }
    // What came before the other side hung up is as good as any.
    if ending == Ending::Gone {
        pump.store(Instant::NEVER);
        if let Some(receipt) = pump.storing.take() {
            service.handle_done(receipt.await);
        }
    }
    if let Some(gathered) = pump.gathered.take() {
        service.swarm.borrow_mut().fetcher.drop_stores(slot, gathered.stores);
        service.give_back(gathered.buffer);
    }
    if !pump.greeted {
        service.lobby.greeted(slot);
        service.rest.forget(slot);
    }
    ending
}

/// One connection under way.
struct Pump<'p, 's> {
    service: &'p Service<'s>,
    slot: PeerSlot,
    stream: &'p Stream<'p>,
    peer: Peer<'p>,
    /// Sends in a row that the socket took whole.
    smooth: u32,
    cold: Cold,
    /// Payload that is being written.
    storing: Option<Receipt>,
    /// Payload that is gathered meanwhile.
    gathered: Option<Gathered>,
    /// Payload is to be read, and every buffer is taken.
    waits_for_buffer: bool,
    /// It is where caps hold only if the owner says so.
    in_the_house: bool,
    /// They allow no more to be read for now.
    waits_for_cap: bool,
    /// The lobby knows that hands have been shaken.
    greeted: bool,
}

/// What is known of a read that would have slept.
enum Cold {
    No,
    /// The kernel has started to read; a second try comes first.
    Tried,
    /// A lane is to read it, and every buffer is taken.
    Unbuffered,
    /// A lane reads it, for this revision of the queue.
    Lane {
        receipt: Receipt,
        revision: u32,
    },
    /// A lane has read it: so many bytes, for this revision of the queue.
    Warm {
        buffer: Buffer,
        filled: usize,
        revision: u32,
    },
}

impl Pump<'_, '_> {
    /// One turn: feed, then act until there is nothing to do or the socket takes no more. Gives
    /// way after a few full sends, so that everybody is served in turn.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let now = self.service.clock.now();
        let slot = self.service.clock.slot(self.slot.index());
        // Asked first: whatever rings from here on brings another turn.
        let _ = self.service.clock.bell(slot).poll(cx);
        self.collect_stored(cx);
        if let Err(ending) = self.feed(now) {
            return Poll::Ready(ending);
        }
        if let Err(fault) = self.find_torrent(now) {
            return Poll::Ready(Ending::Fault(fault));
        }
        self.collect_stored(cx);
        if let Err(ending) = self.collect(cx, now) {
            return Poll::Ready(ending);
        }
        let again = match self.act(now) {
            Ok(again) => again,
            Err(ending) => return Poll::Ready(ending),
        };
        self.service.ring_nudged();
        if let Err(fault) = self.peer.handle_time(now) {
            return Poll::Ready(Ending::Fault(fault));
        }
        let swarm = self.service.swarm.borrow();
        self.service.clock.ring_at(slot, self.peer.deadline(&swarm));
        // What did not fit the queue was left unread: there may be room now.
        let has_room = self.has_room();
        if !has_room {
            self.stream.hush();
        }
        if !self.waits_for_buffer && !matches!(self.cold, Cold::Unbuffered) {
            self.service.line.leave(self.slot);
        }
        let hungry = has_room && self.stream.is_readable() && self.peer.appetite(&swarm) > 0;
        if again || hungry {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads once, as much as the peer has appetite for; what it cannot take stays in the kernel.
    fn feed(&mut self, now: Instant) -> Result<(), Ending> {
        (self.waits_for_buffer, self.waits_for_cap) = (false, false);
        if !self.stream.is_readable() {
            return Ok(());
        }
        let swarm = self.service.swarm.borrow();
        let appetite = self.peer.appetite(&swarm);
        let payload = swarm.fetcher.awaits_payload(self.slot);
        drop(swarm);
        if appetite == 0 {
            return Ok(());
        }
        if payload {
            return self.feed_payload(appetite, now);
        }
        let mut received = self.service.received.borrow_mut();
        let room = appetite.min(received.len());
        let Some(read) = self.stream.receive(&mut received[..room])? else { return Ok(()) };
        if read == 0 {
            return Err(Ending::Gone);
        }
        let mut swarm = self.service.swarm.borrow_mut();
        let handled = self.peer.handle_received(&received[..read], now, &mut swarm);
        drop(swarm);
        handled.map_err(Ending::Fault)?;
        self.note_greeted();
        Ok(())
    }

    /// Has the torrent looked for that the peer asks for, where it is not active.
    fn find_torrent(&mut self, now: Instant) -> Result<(), PeerFault> {
        let Some(name) = self.peer.sought() else { return Ok(()) };
        if !self.service.rest.is_answered(self.slot, name) {
            return Ok(());
        }
        self.service.rest.forget(self.slot);
        let result = self.peer.handle_sought(now, &mut self.service.swarm.borrow_mut());
        self.note_greeted();
        result
    }

    /// Hands have been shaken: the lobby has to know.
    fn note_greeted(&mut self) {
        if !self.greeted && self.peer.torrent().is_some() {
            self.greeted = true;
            self.service.lobby.greeted(self.slot);
            self.service.clock.ring(self.service.duties.scrub);
        }
    }

    /// Takes what a lane has read.
    fn collect(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Ending> {
        if matches!(self.cold, Cold::Unbuffered) {
            // It may be in the page cache by now; else a lane is asked at once.
            self.cold = Cold::Tried;
            self.peer.handle_warm();
        }
        let Cold::Lane { receipt, revision } = &mut self.cold else { return Ok(()) };
        let revision = *revision;
        let Poll::Ready(done) = Pin::new(receipt).poll(cx) else { return Ok(()) };
        self.cold = Cold::No;
        self.peer.handle_warm();
        let (Done::Read { buffer, result, opened }, Some(torrent)) = (done, self.peer.torrent())
        else {
            return Ok(());
        };
        if let Some(opened) = opened {
            self.service.disk.keep(torrent, opened, now);
        }
        let error = match result {
            Ok(filled) => {
                self.service.disk.count_read(filled);
                self.cold = Cold::Warm { buffer, filled, revision };
                return Ok(());
            }
            Err(error) => error,
        };
        self.service.give_back(buffer);
        match error {
            ContentError::Changed(span) => {
                self.service.withhold(torrent, span);
                if self.peer.handle_lost() { Err(Ending::Lost) } else { Ok(()) }
            }
            // It may be readable again soon; should it not be, the peer is let go as stalled.
            ContentError::Unreadable(span, error) => {
                let content = self.service.content(torrent);
                if !self.service.grounds.note_error(&content, Deed::Read, &error) {
                    let path = content.path_at(span.at);
                    let what = format_args!("{}: cannot be read", path.display());
                    self.service.complain(what, &error);
                }
                self.peer.handle_cold(now.after(UNREADABLE_PAUSE_MS));
                Ok(())
            }
            ContentError::NoMetadata(error) => {
                self.service
                    .complain(format_args!("the .torrent of a share: cannot be read"), &error);
                Err(Ending::Lost)
            }
        }
    }

    /// Does what the peer wants done. `true` when there is more to do at once.
    fn act(&mut self, now: Instant) -> Result<bool, Ending> {
        for _ in 0..ACTS_A_TURN {
            let mut swarm = self.service.swarm.borrow_mut();
            match self.peer.poll_output(now, &mut swarm) {
                Output::Bytes(bytes) => {
                    if !self.stream.is_writable() {
                        return Ok(false);
                    }
                    let sent = self.stream.send(bytes, true)?;
                    self.peer.handle_sent(sent, now, &mut swarm);
                }
                Output::Serve(mut serving) => {
                    drop(swarm);
                    if !self.stream.is_writable() {
                        return Ok(false);
                    }
                    if self.is_capped() && !self.may_serve(&mut serving, now) {
                        continue;
                    }
                    self.serve(&serving, now)?;
                    // Who is capped takes turns with the others who are.
                    if self.is_capped() {
                        return Ok(true);
                    }
                    // The lane's receipt is looked at in the next turn.
                    if matches!(self.cold, Cold::Lane { .. }) {
                        return Ok(true);
                    }
                }
                Output::Wait(_) => {
                    // What was read ahead for a queue that is no longer so is of no use.
                    drop(swarm);
                    self.release();
                    return Ok(false);
                }
                Output::Close(farewell) => return Err(Ending::Farewell(farewell)),
            }
        }
        Ok(true)
    }

    /// Cuts what is to be served to what the caps allow now; without any of it serving waits.
    fn may_serve(&mut self, serving: &mut Serving, now: Instant) -> bool {
        match self.service.up.allowance(serving.torrent, now) {
            Ok(bytes) => {
                let (mut room, mut fitting) = (bytes, 0);
                for item in &serving.items {
                    if room < item.span.length || fitting == CAPPED_BLOCKS_MAX {
                        break;
                    }
                    (room, fitting) = (room - item.span.length, fitting + 1);
                }
                serving.items.truncate(fitting.max(1));
                true
            }
            Err(due) => {
                self.peer.handle_cold(due.at);
                false
            }
        }
    }

    /// Reads and sends the head of the queue once.
    fn serve(&mut self, serving: &Serving, now: Instant) -> Result<(), Ending> {
        let service = self.service;
        if let Cold::Warm { buffer, filled, revision } = &self.cold
            && *revision == serving.revision
        {
            let (sent, filled) = (self.stream.send(&buffer[..*filled], self.trusting()), *filled);
            self.release();
            self.sent(sent?, filled, now);
            return Ok(());
        }
        self.release();
        let content = service.content(serving.torrent);
        match service.disk.try_read(&content, serving, now) {
            Reading::Ready(filled) => {
                self.cold = Cold::No;
                let scratch = service.disk.scratch();
                let sent = self.stream.send(&scratch[..filled], self.trusting())?;
                drop(scratch);
                self.sent(sent, filled, now);
            }
            Reading::Cold { lane: false } if !matches!(self.cold, Cold::Tried) => {
                self.cold = Cold::Tried;
                self.peer.handle_cold(now.after(COLD_RETRY_MS));
            }
            Reading::Cold { .. } => self.read_on_a_lane(content, serving, now),
            Reading::Changed(span) => {
                service.withhold(serving.torrent, span);
                if self.peer.handle_lost() {
                    return Err(Ending::Lost);
                }
            }
        }
        Ok(())
    }

    /// A stream that has taken everything for long is given more unasked: a read in vain once in a
    /// while costs less than a question before each.
    fn trusting(&self) -> bool {
        self.smooth.saturating_add(1) >= SMOOTH_SENDS
    }

    /// Caps on bandwidth hold for the peer.
    fn is_capped(&self) -> bool {
        self.service.is_capped(self.in_the_house)
    }

    fn sent(&mut self, sent: usize, offered: usize, now: Instant) {
        self.smooth = if sent < offered { 0 } else { self.smooth.saturating_add(1) };
        if let Some(torrent) = self.peer.torrent().filter(|_| self.is_capped()) {
            self.service.up.take(torrent, sent, now);
        }
        let mut swarm = self.service.swarm.borrow_mut();
        self.peer.handle_sent(sent, now, &mut swarm);
    }

    /// Hands the read to a lane.
    fn read_on_a_lane(&mut self, content: Arc<super::Content>, serving: &Serving, now: Instant) {
        // While every buffer is taken the request stays where it is.
        let Some(buffer) = self.service.take_buffer(self.slot) else {
            self.cold = Cold::Unbuffered;
            return self.peer.handle_cold(Instant::NEVER);
        };
        match self.service.lanes.submit(Job::Read { content, serving: serving.clone(), buffer }) {
            Ok(receipt) => {
                self.cold = Cold::Lane { receipt, revision: serving.revision };
                self.peer.handle_cold(Instant::NEVER);
            }
            Err(job) => {
                job.into_buffer().into_iter().for_each(|buffer| self.service.give_back(buffer));
                self.peer.handle_cold(now.after(BUSY_RETRY_MS));
            }
        }
    }

    /// Gives back what a lane has read, if it has not been sent.
    fn release(&mut self) {
        match std::mem::replace(&mut self.cold, Cold::No) {
            Cold::Warm { buffer, .. } => self.service.give_back(buffer),
            other => self.cold = other,
        }
    }
}

impl Drop for Pump<'_, '_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl Service<'_> {
    /// Stops offering what a file held that is no longer what was hashed, and says so.
    pub fn withhold(&self, torrent: TorrentSlot, span: Span) {
        self.disk.close(torrent, span);
        let mut swarm = self.swarm.borrow_mut();
        let pieces = swarm.torrent(torrent).layout.pieces_of(span);
        if !pieces.clone().any(|piece| swarm.offers(torrent, piece)) {
            return;
        }
        swarm.withhold(torrent, pieces.clone());
        drop(swarm);
        let content = self.content(torrent);
        let path = content.path_at(span.at);
        let what = "has changed since it was hashed";
        warn!("{}: {what}; {} pieces are no longer offered", path.display(), pieces.len());
        self.ring_nudged();
    }
}

impl From<io::Error> for Ending {
    /// Whatever the kernel says of a stream that fails: it is over.
    fn from(_: io::Error) -> Ending {
        Ending::Gone
    }
}

/// Blocks that a peer for whom caps hold is sent at a time: small turns, so that all have theirs.
const CAPPED_BLOCKS_MAX: usize = 4;

/// Before a lane is asked again when all of them were taken.
const BUSY_RETRY_MS: u64 = 30;

/// Before what could not be read is read again.
const UNREADABLE_PAUSE_MS: u64 = 5_000;

/// After so many whole sends a socket is given more unasked; one read in 17 may then be in vain.
const SMOOTH_SENDS: u32 = 16;

/// Sends before others have their turn: 1 MiB of blocks at most, about 0.4 ms.
const ACTS_A_TURN: usize = 4;

/// A peer that does not answer a dial by then is not there.
const DIAL_TIMEOUT_MS: u64 = 8_000;
