//! Payload from a socket into a lane's buffer, and from there to the lane.
//!
//! One read goes into the buffer behind the one before it. While a lane has a buffer of this
//! connection the next is filled, and a buffer that holds little waits a moment for more, unless
//! somebody else waits for a buffer: the busier the box, the more a lane is woken for.
//!
//! Journey 3: the socket -> [`Peer`](crate::engine::peer::Peer) (what of it is payload) ->
//! `engine/swarm/fetch/store` (what of that is wanted) -> `service/store` on a lane.

use super::{Ending, Pump};
use crate::engine::swarm::fetch::Fetching;
use crate::engine::swarm::fetch::store::Stores;
use crate::engine::units::{Deadline, Instant};
use crate::service::lanes::Buffer;
use crate::service::{Service, sys};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Payload on its way to a lane.
pub struct Gathered {
    pub(super) buffer: Buffer,
    filled: usize,
    pub(super) stores: Stores,
    /// When it goes to a lane, however little it holds.
    due: Instant,
}

impl Pump<'_, '_> {
    /// Reads once into a buffer that a lane then writes from. While a lane has one, the next is
    /// filled: the busier the lanes, the more a job brings.
    pub(super) fn feed_payload(&mut self, appetite: usize, now: Instant) -> Result<(), Ending> {
        if self.gathered.is_none() {
            let is_second = self.storing.is_some();
            let Some(buffer) = self.service.take_buffer_to_gather(self.slot, is_second) else {
                self.waits_for_buffer = true;
                return Ok(());
            };
            let due = now.after(GATHER_MS);
            self.gathered = Some(Gathered { buffer, filled: 0, stores: Stores::new(), due });
        }
        let allowed = self.may_read(now);
        let is_capped = self.is_capped();
        let Some(Gathered { buffer, filled, stores, .. }) = &mut self.gathered else {
            return Ok(());
        };
        let end = buffer.len().min(*filled + appetite.min(allowed));
        let room = &mut buffer[*filled..end];
        if room.is_empty() {
            return Ok(());
        }
        let read = match self.stream.receive(room)? {
            Some(0) => return Err(Ending::Gone),
            Some(read) => read,
            None => 0,
        };
        if let Some(torrent) = self.peer.torrent().filter(|_| is_capped) {
            self.service.down.take(torrent, read, now);
        }
        let mut swarm = self.service.swarm.borrow_mut();
        let handled = self.peer.handle_received(&room[..read], now, &mut swarm);
        // Of a read that ends in a fault too: the list is everybody's, and the next would take it.
        swarm.fetcher.take_stores(self.slot, *filled, stores);
        drop(swarm);
        *filled += read;
        handled.map_err(Ending::Fault)?;
        self.store(now);
        Ok(())
    }

    /// How many bytes the caps allow to be read now.
    fn may_read(&mut self, now: Instant) -> usize {
        let Some(torrent) = self.peer.torrent().filter(|_| self.is_capped()) else {
            return usize::MAX;
        };
        match self.service.down.allowance(torrent, now) {
            Ok(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Err(due) => {
                self.waits_for_cap = true;
                self.service.clock.ring_at(self.service.clock.slot(self.slot.index()), due);
                0
            }
        }
    }

    /// Hands what has been gathered to a lane, unless one has some of it already, or more of it is
    /// to come any moment: a lane that is woken for little costs more than its work.
    pub(super) fn store(&mut self, now: Instant) {
        let Some(gathered) = &self.gathered else { return };
        let half_full = gathered.filled >= gathered.buffer.len() / 2;
        let more = self.service.swarm.borrow().fetcher.awaits_payload(self.slot);
        let is_due = now >= gathered.due
            || half_full
            || !more
            || gathered.stores.is_empty()
            || self.service.line.is_standing();
        if self.storing.is_some() {
            return;
        }
        if !is_due {
            let due = Deadline { at: gathered.due, why: "payload gathered for a lane" };
            return self.service.clock.ring_at(self.service.clock.slot(self.slot.index()), due);
        }
        self.service.note_haste(half_full && now < gathered.due);
        let Some(Gathered { buffer, stores, .. }) = self.gathered.take() else { return };
        self.storing = self.service.store(self.slot, buffer, stores);
    }

    /// Takes what a lane has written, and hands it what has been gathered meanwhile.
    pub(super) fn collect_stored(&mut self, cx: &mut Context<'_>) {
        // Ends with a receipt that has been asked: only then does it wake this connection.
        loop {
            self.store(self.service.clock.now());
            let Some(receipt) = &mut self.storing else { return };
            let Poll::Ready(done) = Pin::new(receipt).poll(cx) else { return };
            self.storing = None;
            self.service.handle_done(done);
        }
    }

    /// Whether a lane's buffer has room for what is to be read next.
    pub(super) fn has_room(&self) -> bool {
        !self.waits_for_buffer
            && !self.waits_for_cap
            && self.gathered.as_ref().is_none_or(|gathered| gathered.filled < gathered.buffer.len())
    }
}

impl Service<'_> {
    /// Notes whether a buffer was full before its time. While they all are, this thread waits for its
    /// turn rather than push a lane off the processor for whatever comes: with one core that is less
    /// than half of the switches, and a tenth of what a fetch costs. Whoever fetches at leisure answers
    /// at once.
    fn note_haste(&self, full: bool) {
        let before = self.full_in_a_row.get();
        let count = if full { (before + 1).min(HASTE) } else { 0 };
        self.full_in_a_row.set(count);
        if (before == HASTE) != (count == HASTE)
            && let Err(error) = sys::wait_for_turns(count == HASTE)
        {
            debug!("the scheduler's batch policy: {error}");
        }
    }
}

/// So many buffers in a row are no chance: 2 MiB.
const HASTE: u32 = 16;

/// How long payload is gathered for a lane before it goes there, half a buffer or not.
const GATHER_MS: u64 = 2;
