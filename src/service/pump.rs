//! A pump: the task that moves one connection's bytes between its socket and its [`Peer`].
//!
//! There are exactly as many pumps as connections the board can hold, each with its own lent
//! request queue; a pump takes a socket from the [`lobby`](super::lobby), carries it to its end
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

use super::Service;
use super::content::ContentError;
use super::disk::Reading;
use super::lanes::{Buffer, Done, Job, Receipt};
use super::lobby::Arrival;
use crate::engine::limits::COLD_RETRY_MS;
use crate::engine::peer::serve::Request;
use crate::engine::peer::{Output, Peer, Serving};
use crate::engine::swarm::DialEnd;
use crate::engine::swarm::roster::Farewell;
use crate::engine::units::{Deadline, Instant, PeerSlot, Span, TorrentSlot};
use crate::engine::wire::PeerFault;
use async_io::Async;
use log::{debug, warn};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
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
        let ending = match connect(service, slot, arrival).await {
            Some(stream) => converse(service, slot, &stream, address, dialled, requests).await,
            None => {
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
        if let Some(torrent) = dialled {
            let end = match ending {
                Ending::Farewell(Farewell::Complete) => DialEnd::Complete,
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

async fn connect(
    service: &Service<'_>,
    slot: PeerSlot,
    arrival: Arrival,
) -> Option<Async<TcpStream>> {
    match arrival {
        Arrival::Accepted(stream, _) => Some(stream),
        Arrival::Dial(candidate) => {
            let at = service.clock.now().after(DIAL_TIMEOUT_MS);
            let dial = async { super::lobby::dial(service, candidate.address).await.ok() };
            let late = async {
                let place = service.clock.slot(slot.index());
                while service.clock.now() < at {
                    service.clock.wait(place, Deadline { at, why: "a dial" }).await;
                }
                None
            };
            smol::future::or(dial, late).await
        }
    }
}

async fn converse(
    service: &Service<'_>,
    slot: PeerSlot,
    stream: &Async<TcpStream>,
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
    let mut pump = Pump {
        service,
        slot,
        stream,
        peer,
        writable: Writable::Yes,
        smooth: 0,
        cold: Cold::No,
        greeted: false,
    };
    let ending = poll_fn(|cx| pump.turn(cx)).await;
    if !pump.greeted {
        service.lobby.greeted(slot);
    }
    ending
}

/// One connection under way.
struct Pump<'p, 's> {
    service: &'p Service<'s>,
    slot: PeerSlot,
    stream: &'p Async<TcpStream>,
    peer: Peer<'p>,
    writable: Writable,
    /// Sends in a row that the socket took whole.
    smooth: u32,
    cold: Cold,
    /// The lobby knows that hands have been shaken.
    greeted: bool,
}

/// What is known of the room in the socket's send queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writable {
    Yes,
    /// It took all it was given: it must be asked before more is read for it.
    Unknown,
    No,
}

impl Writable {
    /// Whether the socket takes bytes; if not, the task is woken when it does.
    fn ask(&mut self, stream: &Async<TcpStream>, cx: &mut Context<'_>) -> Result<bool, Ending> {
        if *self == Writable::Unknown {
            let mut poll = [PollFd::new(stream, PollFlags::OUT)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut poll, Some(&at_once)).is_ok_and(|ready| ready > 0);
            *self = if ready { Writable::Yes } else { Writable::No };
        }
        if *self == Writable::No && stream.poll_writable(cx).map_err(|_| Ending::Gone)?.is_ready() {
            *self = Writable::Yes;
        }
        Ok(*self == Writable::Yes)
    }
}

/// What is known of a read that would have slept.
enum Cold {
    No,
    /// The kernel has started to read; a second try comes first.
    Tried,
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
        let full = self.peer.appetite() == 0;
        if let Err(ending) = self.feed(cx, now) {
            return Poll::Ready(ending);
        }
        if let Err(ending) = self.collect(cx, now) {
            return Poll::Ready(ending);
        }
        let again = match self.act(cx, now) {
            Ok(again) => again,
            Err(ending) => return Poll::Ready(ending),
        };
        self.service.ring_nudged();
        if let Err(fault) = self.peer.handle_time(now) {
            return Poll::Ready(Ending::Fault(fault));
        }
        let slot = self.service.clock.slot(self.slot.index());
        self.service.clock.ring_at(slot, self.peer.deadline());
        let rung = self.service.clock.bell(slot).poll(cx).is_ready();
        // What did not fit the queue was left unread: now there is room.
        let room = full && self.peer.appetite() > 0;
        if again || rung || room {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads once, as much as the peer has appetite for; what it cannot take stays in the kernel.
    fn feed(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Ending> {
        let appetite = self.peer.appetite();
        if appetite == 0 {
            return Ok(());
        }
        // Asked once a turn: bytes that are left make the socket readable again at once.
        if self.stream.poll_readable(cx).map_err(|_| Ending::Gone)?.is_pending() {
            return Ok(());
        }
        let mut received = self.service.received.borrow_mut();
        let room = appetite.min(received.len());
        let read = match rustix::net::recv(self.stream, &mut received[..room], RecvFlags::DONTWAIT)
        {
            Ok((_, 0)) => return Err(Ending::Gone),
            Ok((_, read)) => read,
            Err(Errno::AGAIN | Errno::INTR) => {
                // Woken for nothing: asks again.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            Err(_) => return Err(Ending::Gone),
        };
        let mut swarm = self.service.swarm.borrow_mut();
        let handled = self.peer.handle_received(&received[..read], now, &mut swarm);
        drop(swarm);
        handled.map_err(Ending::Fault)?;
        if !self.greeted && self.peer.torrent().is_some() {
            self.greeted = true;
            self.service.lobby.greeted(self.slot);
        }
        // Asks to be woken for what comes next.
        if self.stream.poll_readable(cx).map_err(|_| Ending::Gone)?.is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Takes what a lane has read.
    fn collect(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Ending> {
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
        self.service.lanes.give_back(buffer);
        match error {
            ContentError::Changed(span) => {
                self.service.withhold(torrent, span);
                if self.peer.handle_lost() { Err(Ending::Lost) } else { Ok(()) }
            }
            // It may be readable again soon; should it not be, the peer is let go as stalled.
            ContentError::Unreadable(span, error) => {
                let path = self.service.content(torrent).path_at(span.at);
                self.service.complain(&path, &error);
                self.peer.handle_cold(now.after(UNREADABLE_PAUSE_MS));
                Ok(())
            }
            ContentError::NoMetadata(error) => {
                self.service.complain(Path::new("the .torrent of a share"), &error);
                Err(Ending::Lost)
            }
        }
    }

    /// Does what the peer wants done. `true` when there is more to do at once.
    fn act(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Ending> {
        for _ in 0..ACTS_A_TURN {
            let mut swarm = self.service.swarm.borrow_mut();
            match self.peer.poll_output(now, &mut swarm) {
                Output::Bytes(bytes) => {
                    if !self.writable.ask(self.stream, cx)? {
                        return Ok(false);
                    }
                    let sent = send(self.stream, bytes)?;
                    self.writable = if sent < bytes.len() { Writable::No } else { self.writable };
                    self.peer.handle_sent(sent, now, &mut swarm);
                }
                Output::Serve(serving) => {
                    drop(swarm);
                    if !self.writable.ask(self.stream, cx)? {
                        return Ok(false);
                    }
                    self.serve(&serving, now)?;
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

    /// Reads and sends the head of the queue once.
    fn serve(&mut self, serving: &Serving, now: Instant) -> Result<(), Ending> {
        let service = self.service;
        if let Cold::Warm { buffer, filled, revision } = &self.cold
            && *revision == serving.revision
        {
            let (sent, filled) = (send(self.stream, &buffer[..*filled]), *filled);
            self.release();
            self.sent(sent?, filled, now);
            return Ok(());
        }
        self.release();
        let content = service.content(serving.torrent);
        match service.disk.try_read(&content, serving, now) {
            Reading::Ready(filled) => {
                self.cold = Cold::No;
                let sent = send(self.stream, &service.disk.scratch()[..filled])?;
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

    /// Takes note of a send. A socket that has taken everything for long is given more unasked: a
    /// read in vain once in a while costs less than a question before each.
    fn sent(&mut self, sent: usize, offered: usize, now: Instant) {
        self.smooth = if sent < offered { 0 } else { self.smooth.saturating_add(1) };
        self.writable = match self.smooth {
            0 => Writable::No,
            1..SMOOTH_SENDS => Writable::Unknown,
            SMOOTH_SENDS.. => Writable::Yes,
        };
        let mut swarm = self.service.swarm.borrow_mut();
        self.peer.handle_sent(sent, now, &mut swarm);
    }

    /// Hands the read to a lane.
    fn read_on_a_lane(&mut self, content: Arc<super::Content>, serving: &Serving, now: Instant) {
        let receipt = self.service.lanes.take_buffer().and_then(|buffer| {
            self.service.lanes.submit(Job::Read { content, serving: serving.clone(), buffer })
        });
        match receipt {
            Some(receipt) => {
                self.cold = Cold::Lane { receipt, revision: serving.revision };
                self.peer.handle_cold(Instant::NEVER);
            }
            // Every lane is taken: the request stays where it is and is tried again.
            None => self.peer.handle_cold(now.after(BUSY_RETRY_MS)),
        }
    }

    /// Gives back what a lane has read, if it has not been sent.
    fn release(&mut self) {
        match std::mem::replace(&mut self.cold, Cold::No) {
            Cold::Warm { buffer, .. } => self.service.lanes.give_back(buffer),
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

    /// Says that something cannot be read, once a minute: peers must not be able to fill a log.
    fn complain(&self, path: &Path, error: &std::io::Error) {
        let now = self.clock.now();
        if now >= self.complain_after.get() {
            self.complain_after.set(now.after(COMPLAINT_PAUSE_MS));
            warn!("{}: cannot be read: {error}; it is tried again", path.display());
        }
    }
}

/// Sends what the socket takes at once; 0 when it takes nothing.
fn send(stream: &Async<TcpStream>, bytes: &[u8]) -> Result<usize, Ending> {
    match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(0),
        Err(_) => Err(Ending::Gone),
    }
}

/// Before a lane is asked again when all of them were taken.
const BUSY_RETRY_MS: u64 = 30;

/// Before what could not be read is read again.
const UNREADABLE_PAUSE_MS: u64 = 5_000;

/// Between two complaints about what cannot be read.
const COMPLAINT_PAUSE_MS: u64 = 60_000;

/// After so many whole sends a socket is given more unasked; one read in 17 may then be in vain.
const SMOOTH_SENDS: u32 = 16;

/// Sends before others have their turn: 1 MiB of blocks at most, about 0.4 ms.
const ACTS_A_TURN: usize = 4;

/// A peer that does not answer a dial by then is not there.
const DIAL_TIMEOUT_MS: u64 = 8_000;
