//! What moves one simulated connection's bytes, step for step as `service/pump` does.
//!
//! It is run only when something it waits for has happened: the link can be read and the peer has
//! appetite, the link takes bytes again, a deadline is due, a lane is done, its bell was rung. So a
//! peer that forgets to say when it wants to be run is found out: nobody else runs it.

use perennial::engine::limits::COLD_RETRY_MS;
use perennial::engine::peer::{Output, Peer, Serving};
use perennial::engine::swarm::Swarm;
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::units::{Deadline, Instant, PeerSlot, Span, TorrentSlot};
use perennial::engine::wire::PeerFault;

use crate::prng::Prng;
use crate::sim_net::{Gone, Link, Read};
use crate::storage::{self, Reading, Storage};
use crate::trace::Trace;

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

impl From<Gone> for Ending {
    fn from(Gone: Gone) -> Ending {
        Ending::Gone
    }
}

/// What a pump is lent for one turn.
pub struct Context<'w, 'm> {
    pub now: Instant,
    pub swarm: &'w mut Swarm<'m>,
    pub storage: &'w Storage,
    pub prng: &'w mut Prng,
    pub trace: &'w mut Trace,
}

/// One connection under way.
pub struct Pump {
    slot: PeerSlot,
    peer: Peer<'static>,
    writable: Writable,
    /// Sends in a row that the link took whole.
    smooth: u32,
    cold: Cold,
    /// Reads no more than the peer has appetite for; a pump that does not is a broken one.
    pub heeds_appetite: bool,
    pub bell: bool,
    waits_readable: bool,
    waits_writable: bool,
    rings_at: Deadline,
}

/// What is known of the room in the link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writable {
    Yes,
    /// It took all it was given: it must be asked before more is read for it.
    Unknown,
    No,
}

/// What is known of a read that would have slept.
enum Cold {
    No,
    Tried,
    Lane { serving: Box<Serving>, done_at: Instant },
    Warm { bytes: Vec<u8>, revision: u32 },
}

impl Pump {
    /// A pump for a connection that has just been made.
    pub fn new(slot: PeerSlot, peer: Peer<'static>) -> Pump {
        Pump {
            slot,
            peer,
            writable: Writable::Yes,
            smooth: 0,
            cold: Cold::No,
            heeds_appetite: true,
            bell: true,
            waits_readable: false,
            waits_writable: false,
            rings_at: Deadline::NONE,
        }
    }

    pub fn slot(&self) -> PeerSlot {
        self.slot
    }

    /// The deadline it has to be run at, when it is due.
    pub fn due(&self, now: Instant) -> Option<Deadline> {
        (self.rings_at.at <= now).then_some(self.rings_at)
    }

    /// Whether anything it waits for has happened.
    pub fn is_woken(&self, link: &mut Link, now: Instant) -> bool {
        self.bell
            || self.due(now).is_some()
            || self.lane_done_at() <= now
            || (self.waits_readable && link.to_us.readable(now))
            || (self.waits_writable && link.from_us.writable())
    }

    /// When it wants to be run, should nothing else happen.
    pub fn wakes_at(&self) -> Instant {
        self.rings_at.at.min(self.lane_done_at())
    }

    fn lane_done_at(&self) -> Instant {
        match self.cold {
            Cold::Lane { done_at, .. } => done_at,
            _ => Instant::NEVER,
        }
    }

    /// One turn: feed, then act until there is nothing to do or the link takes no more.
    pub fn turn(&mut self, link: &mut Link, cx: &mut Context<'_, '_>) -> Result<(), Ending> {
        (self.bell, self.waits_readable, self.waits_writable) = (false, false, false);
        if self.due(cx.now).is_some() {
            self.rings_at = Deadline::NONE;
        }
        let hungry = self.peer.appetite(cx.swarm) > 0;
        self.feed(link, cx)?;
        self.collect(cx)?;
        let again = self.act(link, cx)?;
        self.peer.handle_time(cx.now).map_err(Ending::Fault)?;
        let due = self.peer.deadline(cx.swarm);
        assert!(
            again || due.at > cx.now,
            "{:?}: {:?} is due at {:?} and always will be",
            cx.now,
            due.why,
            due.at
        );
        // As in the service: a deadline that is put off rings once too early.
        if due.at < self.rings_at.at {
            self.rings_at = due;
        }
        let appetite_is_back = !hungry && self.peer.appetite(cx.swarm) > 0;
        self.bell |= again || appetite_is_back;
        Ok(())
    }

    /// Reads once, as much as the peer has appetite for.
    fn feed(&mut self, link: &mut Link, cx: &mut Context<'_, '_>) -> Result<(), Ending> {
        let mut received = [0; 8 << 10];
        let appetite = match self.heeds_appetite {
            true => self.peer.appetite(cx.swarm).min(received.len()),
            false => received.len(),
        };
        if appetite == 0 {
            return Ok(());
        }
        self.waits_readable = true;
        match link.to_us.read(&mut received[..appetite], cx.now) {
            Read::Nothing => Ok(()),
            Read::End => Err(Ending::Gone),
            Read::Some(read) => {
                cx.trace.note(cx.now, self.slot.0, b'r', &received[..read]);
                let handled = self.peer.handle_received(&received[..read], cx.now, cx.swarm);
                handled.map_err(Ending::Fault)
            }
        }
    }

    /// Takes what a lane has read.
    fn collect(&mut self, cx: &mut Context<'_, '_>) -> Result<(), Ending> {
        if self.lane_done_at() > cx.now {
            return Ok(());
        }
        let Cold::Lane { serving, .. } = std::mem::replace(&mut self.cold, Cold::No) else {
            return Ok(());
        };
        self.peer.handle_warm();
        match cx.storage.read(&serving, cx.prng) {
            Reading::Ready(bytes) => {
                self.cold = Cold::Warm { bytes, revision: serving.revision };
                Ok(())
            }
            Reading::Changed(span) => self.lose(serving.torrent, span, cx),
            Reading::Cold => unreachable!("a lane may sleep"),
        }
    }

    /// Does what the peer wants done. `true` when there is more to do at once.
    fn act(&mut self, link: &mut Link, cx: &mut Context<'_, '_>) -> Result<bool, Ending> {
        for _ in 0..ACTS_A_TURN {
            match self.peer.poll_output(cx.now, cx.swarm) {
                Output::Bytes(bytes) => {
                    if !may_write(&mut self.writable, link) {
                        self.waits_writable = true;
                        return Ok(false);
                    }
                    let sent = link.from_us.write(bytes, cx.now, cx.prng)?;
                    cx.trace.note(cx.now, self.slot.0, b'w', &bytes[..sent]);
                    if sent < bytes.len() {
                        self.writable = Writable::No;
                    }
                    self.peer.handle_sent(sent, cx.now, cx.swarm);
                }
                Output::Serve(serving) => {
                    if !may_write(&mut self.writable, link) {
                        self.waits_writable = true;
                        return Ok(false);
                    }
                    self.serve(&serving, link, cx)?;
                }
                Output::Wait(_) => {
                    self.release();
                    return Ok(false);
                }
                Output::Close(farewell) => return Err(Ending::Farewell(farewell)),
            }
        }
        Ok(true)
    }

    /// Reads and sends the head of the queue once.
    fn serve(
        &mut self,
        serving: &Serving,
        link: &mut Link,
        cx: &mut Context<'_, '_>,
    ) -> Result<(), Ending> {
        storage::check_offered(serving, cx.swarm);
        if let Cold::Warm { bytes, revision } = &mut self.cold
            && *revision == serving.revision
        {
            let bytes = std::mem::take(bytes);
            self.release();
            return self.send(&bytes, link, cx);
        }
        self.release();
        match cx.storage.try_read(serving, cx.prng) {
            Reading::Ready(bytes) => {
                self.cold = Cold::No;
                self.send(&bytes, link, cx)?;
            }
            Reading::Cold if !matches!(self.cold, Cold::Tried) => {
                self.cold = Cold::Tried;
                self.peer.handle_cold(cx.now.after(COLD_RETRY_MS));
            }
            Reading::Cold => {
                let done_at = cx.now.after(cx.storage.lane_ms);
                self.cold = Cold::Lane { serving: Box::new(serving.clone()), done_at };
                self.peer.handle_cold(Instant::NEVER);
            }
            Reading::Changed(span) => self.lose(serving.torrent, span, cx)?,
        }
        Ok(())
    }

    fn send(
        &mut self,
        bytes: &[u8],
        link: &mut Link,
        cx: &mut Context<'_, '_>,
    ) -> Result<(), Ending> {
        let sent = link.from_us.write(bytes, cx.now, cx.prng)?;
        cx.trace.note(cx.now, self.slot.0, b's', &bytes[..sent]);
        self.smooth = if sent < bytes.len() { 0 } else { self.smooth + 1 };
        self.writable = match self.smooth {
            0 => Writable::No,
            1..SMOOTH_SENDS => Writable::Unknown,
            SMOOTH_SENDS.. => Writable::Yes,
        };
        self.peer.handle_sent(sent, cx.now, cx.swarm);
        Ok(())
    }

    /// What a file held has changed: it is no longer offered.
    fn lose(
        &mut self,
        torrent: TorrentSlot,
        changed: Span,
        cx: &mut Context<'_, '_>,
    ) -> Result<(), Ending> {
        let pieces = cx.swarm.torrent(torrent).layout.pieces_of(changed);
        cx.swarm.withhold(torrent, pieces);
        if self.peer.handle_lost() { Err(Ending::Lost) } else { Ok(()) }
    }

    fn release(&mut self) {
        if matches!(self.cold, Cold::Warm { .. }) {
            self.cold = Cold::No;
        }
    }
}

/// Whether the link takes bytes. After a short write it is asked again only when it says so.
fn may_write(writable: &mut Writable, link: &Link) -> bool {
    if *writable != Writable::Yes {
        *writable = if link.from_us.writable() { Writable::Yes } else { Writable::No };
    }
    *writable == Writable::Yes
}

/// Sends before others have their turn.
const ACTS_A_TURN: usize = 4;

/// After so many whole sends the link is given more unasked, and may take nothing.
const SMOOTH_SENDS: u32 = 16;
