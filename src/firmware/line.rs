//! A line: one TCP connection's bytes, between its socket and its [`Peer`].
//!
//! What `service/pump` is on Linux. A line listens until somebody comes, carries the connection to
//! its end and listens again. There is one line more than peers, so that a newcomer is heard before
//! it is told to go.

use super::share::Share;
use crate::engine::peer::request::Request;
use crate::engine::peer::{Output, Peer};
use crate::engine::swarm::Swarm;
use crate::engine::units::{Deadline, Instant, PeerSlot};
use core::net::SocketAddr;
use embedded_storage::nor_flash::NorFlash;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

/// One connection, or the wait for one.
pub struct Line {
    /// Its socket, in the loop's set.
    pub socket: SocketHandle,
    slot: PeerSlot,
    stage: Stage,
    /// When who is there came.
    since: Instant,
}

#[expect(clippy::large_enum_variant, reason = "it lies in a static; there is no heap")]
enum Stage {
    /// Nobody is there; the queue waits for the next one.
    Listening(&'static mut [Request]),
    /// Somebody is.
    Talking(Peer<'static>),
    /// Our end is closed; the other side has until then to close its own.
    Closing(&'static mut [Request], Instant),
    /// Only while one stage follows another.
    Between,
}

/// How a turn leaves a connection.
enum Ending {
    /// In an orderly way.
    Close,
    /// At once: the peer broke the protocol or is gone.
    Abort,
}

impl Line {
    /// A line that listens on `socket`.
    pub fn new(slot: PeerSlot, socket: SocketHandle, requests: &'static mut [Request]) -> Line {
        Line { socket, slot, stage: Stage::Listening(requests), since: Instant::default() }
    }

    /// Moves what there is to move. Newcomers are heard at `port`, while there is one.
    #[inline(never)]
    pub fn turn<F: NorFlash>(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        swarm: &mut Swarm<'_>,
        share: &Share<'_, F>,
        port: Option<u16>,
        now: Instant,
    ) {
        if let Stage::Listening(_) = self.stage {
            self.listen(socket, port, now);
        }
        if let Stage::Talking(peer) = &mut self.stage
            && let Err(ending) = converse(peer, socket, swarm, share, now)
        {
            swarm.leave(self.slot, now);
            self.end(socket, ending, now);
        }
        if let Stage::Closing(_, until) = &mut self.stage {
            // Whatever still comes is of no use; unread it would keep the other side from closing.
            while socket.recv(|bytes| (bytes.len(), ())).is_ok() && socket.can_recv() {}
            if now >= *until && socket.is_open() {
                socket.abort();
                *until = now.after(CLOSE_MS);
            }
            // What aborts has a last word to say, which listening would take back.
            let said = socket.remote_endpoint().is_none() || now >= *until;
            if socket.state() == tcp::State::TimeWait || (!socket.is_open() && said) {
                self.become_listening();
                // At once: who comes before the next turn is not to find the door shut.
                self.listen(socket, port, now);
            }
        }
    }

    /// Nobody is there.
    pub fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Listening(_))
    }

    /// Since when somebody is there who has not shaken hands, if that is so.
    pub fn greeting_since(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Talking(peer) if peer.torrent().is_none() => Some(self.since),
            _ => None,
        }
    }

    /// Lets somebody go who has said nothing.
    pub fn give_up(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) {
        self.end(socket, Ending::Abort, now);
    }

    /// When it next has something to do by itself.
    pub fn deadline(&self, swarm: &Swarm<'_>) -> Deadline {
        match &self.stage {
            Stage::Talking(peer) => peer.deadline(swarm),
            Stage::Closing(_, at) => Deadline { at: *at, why: "a connection that closes" },
            Stage::Listening(_) | Stage::Between => Deadline::NONE,
        }
    }

    #[inline(never)]
    fn listen(&mut self, socket: &mut tcp::Socket<'_>, port: Option<u16>, now: Instant) {
        match (port, socket.is_open()) {
            // It fails only for an open socket or port 0.
            (Some(port), false) => drop(socket.listen(port)),
            (None, true) if socket.is_listening() => socket.close(),
            _ => {}
        }
        let Some(remote) = socket.remote_endpoint().filter(|_| socket.is_active()) else { return };
        let address = SocketAddr::new(remote.addr.into(), remote.port);
        self.since = now;
        if let Stage::Listening(requests) = core::mem::replace(&mut self.stage, Stage::Between) {
            self.stage = Stage::Talking(Peer::accepted(self.slot, address, requests, now));
        }
    }

    #[inline(never)]
    fn end(&mut self, socket: &mut tcp::Socket<'_>, ending: Ending, now: Instant) {
        match ending {
            Ending::Close => socket.close(),
            Ending::Abort => socket.abort(),
        }
        if let Stage::Talking(peer) = core::mem::replace(&mut self.stage, Stage::Between) {
            self.stage = Stage::Closing(peer.into_requests(), now.after(CLOSE_MS));
        }
    }

    #[inline(never)]
    fn become_listening(&mut self) {
        if let Stage::Closing(requests, _) = core::mem::replace(&mut self.stage, Stage::Between) {
            self.stage = Stage::Listening(requests);
        }
    }
}

/// Feeds the peer what has come and does what it wants done, until there is nothing to do or no
/// room in the ring.
#[inline(never)]
fn converse<F: NorFlash>(
    peer: &mut Peer<'static>,
    socket: &mut tcp::Socket<'_>,
    swarm: &mut Swarm<'_>,
    share: &Share<'_, F>,
    now: Instant,
) -> Result<(), Ending> {
    for _ in 0..TURNS {
        let heard = feed(peer, socket, swarm, now)?;
        let said = act(peer, socket, swarm, share, now)?;
        if !heard && !said {
            break;
        }
    }
    if !socket.may_recv() && !socket.can_recv() && socket.state() != tcp::State::SynReceived {
        return Err(Ending::Close);
    }
    peer.handle_time(now).map_err(|_| Ending::Abort)
}

/// Hands over what has come, as far as the peer has appetite. `true` when it was something.
fn feed(
    peer: &mut Peer<'static>,
    socket: &mut tcp::Socket<'_>,
    swarm: &mut Swarm<'_>,
    now: Instant,
) -> Result<bool, Ending> {
    let appetite = peer.appetite(swarm);
    if appetite == 0 || !socket.can_recv() {
        return Ok(false);
    }
    let heard = socket.recv(|bytes| {
        let taken = bytes.len().min(appetite);
        (taken, peer.handle_received(&bytes[..taken], now, swarm))
    });
    match heard {
        Ok(Ok(())) => Ok(true),
        Ok(Err(_)) | Err(_) => Err(Ending::Abort),
    }
}

/// Does what the peer wants done. `true` when something went into the ring.
fn act<F: NorFlash>(
    peer: &mut Peer<'static>,
    socket: &mut tcp::Socket<'_>,
    swarm: &mut Swarm<'_>,
    share: &Share<'_, F>,
    now: Instant,
) -> Result<bool, Ending> {
    let sent = match peer.poll_output(now, swarm) {
        Output::Bytes(bytes) => socket.send_slice(bytes).map_err(|_| Ending::Close)?,
        Output::Serve(serving) => {
            let filled = socket.send(|ring| match share.fill(&serving, ring) {
                Ok(filled) => (filled, Ok(filled)),
                Err(error) => (0, Err(error)),
            });
            match filled.map_err(|_| Ending::Close)? {
                Ok(filled) => filled,
                Err(_) => {
                    peer.handle_cold(now.after(UNREADABLE_PAUSE_MS));
                    return Ok(false);
                }
            }
        }
        Output::Wait(_) => return Ok(false),
        Output::Close(_) => return Err(Ending::Close),
    };
    peer.handle_sent(sent, now, swarm);
    Ok(sent > 0)
}

/// Rounds of hearing and saying in one turn; the rings hold less than that moves.
const TURNS: usize = 8;

/// A peer has so long to close its end.
const CLOSE_MS: u64 = 3_000;

/// Before what could not be read is read again.
const UNREADABLE_PAUSE_MS: u64 = 5_000;
