//! What moves one connection's bytes, step for step as `service/pump` does: what is fetched is
//! gathered in a buffer and goes to a lane, one job at a time.
//!
//! It is run only when something it waits for has happened, so that an engine that forgets to say
//! when it wants to be run is found out.

use perennial::engine::peer::{Output, Peer, Serving, Source};
use perennial::engine::swarm::Swarm;
use perennial::engine::swarm::fetch::store::{Stores, Work};
use perennial::engine::swarm::fetch::{Fetcher, Fetching};
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::units::{Deadline, Instant, PeerSlot, Span};
use perennial::engine::wire::PeerFault;
use std::collections::VecDeque;

use crate::content::Disk;
use crate::prng::Prng;
use crate::sim_net::{Gone, Link, Pipe, Read};
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
}

impl From<Gone> for Ending {
    fn from(Gone: Gone) -> Ending {
        Ending::Gone
    }
}

/// Which end of a wire is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Near,
    Far,
}

impl Side {
    /// What this side writes into.
    pub fn out(self, link: &mut Link) -> &mut Pipe {
        match self {
            Side::Near => &mut link.from_us,
            Side::Far => &mut link.to_us,
        }
    }

    /// What this side reads from.
    pub fn into(self, link: &mut Link) -> &mut Pipe {
        match self {
            Side::Near => &mut link.to_us,
            Side::Far => &mut link.from_us,
        }
    }
}

/// A lane's buffers, and what goes to lanes.
pub struct Desk {
    pub disk: Disk,
    pub buffer_bytes: usize,
    pub buffers_free: usize,
    /// Who wait for a buffer.
    pub hungry: VecDeque<PeerSlot>,
    /// Handed in and not yet under way.
    pub submitted: Vec<(Option<PeerSlot>, Work, Vec<u8>)>,
    /// Pieces that were there when the first byte of content left.
    pub first_sent: Option<u32>,
    pub sent_bytes: u64,
}

/// What a pump is lent for one turn.
pub struct Context<'w> {
    pub now: Instant,
    pub link: &'w mut Link,
    pub swarm: &'w mut Swarm<'static, Fetcher<'static>>,
    pub desk: &'w mut Desk,
    pub prng: &'w mut Prng,
    pub trace: &'w mut Option<Trace>,
    pub scratch: &'w mut [u8],
}

impl Context<'_> {
    pub fn note(&mut self, slot: PeerSlot, what: u8, bytes: &[u8]) {
        if let Some(trace) = self.trace {
            trace.note(self.now, slot.0, what, bytes);
        }
    }
}

/// One connection under way.
pub struct Pump {
    pub slot: PeerSlot,
    pub wire: usize,
    pub side: Side,
    peer: Peer<'static>,
    writable: Writable,
    /// Sends in a row that the link took whole.
    smooth: u32,
    /// A lane has some of its payload.
    pub storing: bool,
    pub gathered: Option<Gathered>,
    waits_for_buffer: bool,
    pub waits_readable: bool,
    pub waits_writable: bool,
    pub rings_at: Deadline,
    /// It waits in the list of those to be run.
    pub is_ready: bool,
    /// It is over, and a lane still has some of its payload.
    pub ending: Option<Ending>,
}

/// Payload on its way to a lane.
pub struct Gathered {
    pub buffer: Vec<u8>,
    filled: usize,
    pub stores: Stores,
    /// When it goes to a lane, however little it holds.
    due: Instant,
}

/// What is known of the room in the link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writable {
    Yes,
    /// It took all it was given: it must be asked before more is read for it.
    Unknown,
    No,
}

impl Pump {
    pub fn new(slot: PeerSlot, wire: usize, side: Side, peer: Peer<'static>) -> Pump {
        Pump {
            slot,
            wire,
            side,
            peer,
            writable: Writable::Yes,
            smooth: 0,
            storing: false,
            gathered: None,
            waits_for_buffer: false,
            waits_readable: false,
            waits_writable: false,
            rings_at: Deadline::NONE,
            is_ready: false,
            ending: None,
        }
    }

    /// One turn: feed, then act until there is nothing to do or the link takes no more. `true` when
    /// there is more to do at once.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        self.waits_writable = false;
        if self.rings_at.at <= cx.now {
            self.rings_at = Deadline::NONE;
        }
        self.store(cx.now, cx.swarm, cx.desk);
        self.feed(cx)?;
        self.store(cx.now, cx.swarm, cx.desk);
        let again = self.act(cx)?;
        self.peer.handle_time(cx.now).map_err(Ending::Fault)?;
        let due = self.peer.deadline(cx.swarm);
        assert!(
            again || due.at > cx.now,
            "{:?}: {:?} is due at {:?} and always will be",
            cx.now,
            due.why,
            due.at
        );
        self.ring_at(due);
        self.waits_readable = self.has_room() && self.peer.appetite(cx.swarm) > 0;
        Ok(again || self.waits_readable && self.side.into(cx.link).readable(cx.now))
    }

    /// As in the service: a deadline that is put off rings once too early.
    fn ring_at(&mut self, due: Deadline) {
        if due.at < self.rings_at.at {
            self.rings_at = due;
        }
    }

    fn feed(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        self.waits_for_buffer = false;
        if !self.side.into(cx.link).readable(cx.now) {
            return Ok(());
        }
        let appetite = self.peer.appetite(cx.swarm);
        if appetite == 0 {
            return Ok(());
        }
        if cx.swarm.fetcher.awaits_payload(self.slot) {
            return self.feed_payload(appetite, cx);
        }
        let mut received = [0; 16 << 10];
        let room = appetite.min(received.len());
        match self.side.into(cx.link).read(&mut received[..room], cx.now) {
            Read::Nothing => Ok(()),
            Read::End => Err(Ending::Gone),
            Read::Some(read) => {
                cx.note(self.slot, b'r', &received[..read]);
                let handled = self.peer.handle_received(&received[..read], cx.now, cx.swarm);
                handled.map_err(Ending::Fault)
            }
        }
    }

    fn feed_payload(&mut self, appetite: usize, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.gathered.is_none() {
            if cx.desk.buffers_free == 0 {
                self.waits_for_buffer = true;
                if !cx.desk.hungry.contains(&self.slot) {
                    cx.desk.hungry.push_back(self.slot);
                }
                let at = cx.now.after(BUFFER_PAUSE_MS);
                self.ring_at(Deadline { at, why: "a lane's buffer" });
                return Ok(());
            }
            cx.desk.buffers_free -= 1;
            let buffer = vec![0; cx.desk.buffer_bytes];
            let due = cx.now.after(GATHER_MS);
            self.gathered = Some(Gathered { buffer, filled: 0, stores: Stores::new(), due });
        }
        let Some(Gathered { buffer, filled, stores, .. }) = &mut self.gathered else {
            return Ok(());
        };
        let end = buffer.len().min(*filled + appetite);
        let room = &mut buffer[*filled..end];
        if room.is_empty() {
            return Ok(());
        }
        let read = match self.side.into(cx.link).read(room, cx.now) {
            Read::End => return Err(Ending::Gone),
            Read::Some(read) => read,
            Read::Nothing => 0,
        };
        if let Some(trace) = cx.trace {
            trace.note(cx.now, self.slot.0, b'p', &room[..read]);
        }
        let handled = self.peer.handle_received(&room[..read], cx.now, cx.swarm);
        handled.map_err(Ending::Fault)?;
        cx.swarm.fetcher.take_stores(self.slot, *filled, stores);
        *filled += read;
        self.store(cx.now, cx.swarm, cx.desk);
        Ok(())
    }

    /// Hands what has been gathered to a lane, unless one has some of it already, or more of it is
    /// to come any moment.
    pub fn store(
        &mut self,
        now: Instant,
        swarm: &mut Swarm<'static, Fetcher<'static>>,
        desk: &mut Desk,
    ) {
        let Some(gathered) = &self.gathered else { return };
        let half_full = gathered.filled >= gathered.buffer.len() / 2;
        let more = swarm.fetcher.awaits_payload(self.slot);
        let is_due = now >= gathered.due || half_full || !more || gathered.stores.is_empty();
        if self.storing {
            return;
        }
        if !is_due {
            let at = gathered.due;
            return self.ring_at(Deadline { at, why: "payload gathered for a lane" });
        }
        let Some(Gathered { buffer, stores, .. }) = self.gathered.take() else { return };
        match swarm.fetcher.make_work(self.slot, stores) {
            Some(work) => {
                desk.submitted.push((Some(self.slot), work, buffer));
                self.storing = true;
            }
            None => desk.buffers_free += 1,
        }
    }

    fn has_room(&self) -> bool {
        !self.waits_for_buffer
            && self.gathered.as_ref().is_none_or(|gathered| gathered.filled < gathered.buffer.len())
    }

    /// Does what the peer wants done. `true` when there is more to do at once.
    fn act(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        for _ in 0..ACTS_A_TURN {
            match self.peer.poll_output(cx.now, cx.swarm) {
                Output::Bytes(bytes) => {
                    let pipe = self.side.out(cx.link);
                    if !may_write(&mut self.writable, pipe) {
                        self.waits_writable = true;
                        return Ok(false);
                    }
                    let sent = pipe.write(bytes, cx.now, cx.prng)?;
                    if let Some(trace) = cx.trace {
                        trace.note(cx.now, self.slot.0, b'w', &bytes[..sent]);
                    }
                    if sent < bytes.len() {
                        self.writable = Writable::No;
                    }
                    self.peer.handle_sent(sent, cx.now, cx.swarm);
                }
                Output::Serve(serving) => {
                    if !may_write(&mut self.writable, self.side.out(cx.link)) {
                        self.waits_writable = true;
                        return Ok(false);
                    }
                    self.serve(&serving, cx)?;
                }
                Output::Wait(_) => return Ok(false),
                Output::Close(farewell) => return Err(Ending::Farewell(farewell)),
            }
        }
        Ok(true)
    }

    fn serve(&mut self, serving: &Serving, cx: &mut Context<'_>) -> Result<(), Ending> {
        let disk = &cx.desk.disk;
        let filled = serving.fill(cx.scratch, |source, span: Span, into| {
            let Source::Content(block) = source else { panic!("nobody asks for metadata") };
            let begin = span.at - disk.content.layout.offset(block.piece);
            into.copy_from_slice(disk.read(block.piece.0, begin as u32, span.length as u32));
            Ok::<(), ()>(())
        });
        let filled = filled.expect("it can be read");
        let pipe = self.side.out(cx.link);
        let sent = pipe.write(&cx.scratch[..filled], cx.now, cx.prng)?;
        if let Some(trace) = cx.trace {
            trace.note(cx.now, self.slot.0, b's', &cx.scratch[..sent]);
        }
        cx.desk.first_sent.get_or_insert(cx.desk.disk.verified_count);
        cx.desk.sent_bytes += sent as u64;
        self.smooth = if sent < filled { 0 } else { self.smooth + 1 };
        self.writable = match self.smooth {
            0 => Writable::No,
            1..SMOOTH_SENDS => Writable::Unknown,
            SMOOTH_SENDS.. => Writable::Yes,
        };
        self.peer.handle_sent(sent, cx.now, cx.swarm);
        Ok(())
    }
}

/// Whether the link takes bytes. After a short write it is asked again only when it says so.
fn may_write(writable: &mut Writable, pipe: &Pipe) -> bool {
    if *writable != Writable::Yes {
        *writable = if pipe.writable() { Writable::Yes } else { Writable::No };
    }
    *writable == Writable::Yes
}

/// Sends before others have their turn.
const ACTS_A_TURN: usize = 4;

/// After so many whole sends the link is given more unasked, and may take nothing.
const SMOOTH_SENDS: u32 = 16;

/// How long payload is gathered for a lane.
const GATHER_MS: u64 = 2;

/// A pump that waits for a buffer looks by itself after this.
const BUFFER_PAUSE_MS: u64 = 100;
