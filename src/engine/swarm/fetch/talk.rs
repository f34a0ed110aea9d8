//! What a connection tells the fetcher, and asks of it.
//!
//! A [`Peer`](crate::engine::peer::Peer) knows its fetcher by [`Fetching`] alone. A box that only
//! seeds gives its swarm [`SeedOnly`], for which every answer is that of a box that fetches nothing:
//! none of the rest is in its program.

use super::link::{Has, Link};
use super::{Fetch, Fetcher, OVER};
use crate::engine::limits::{HAVE_GATHER_MS, SNUB_MS, VERIFIED_TOLD_MAX};
use crate::engine::units::{Block, Deadline, Instant, PeerSlot, PieceIndex, TorrentSlot};
use core::net::SocketAddr;

/// What a connection tells the fetcher, and asks of it. The defaults are those of a box that
/// fetches nothing.
pub trait Fetching {
    /// Whether anything is ever fetched, and peers are told of others for that.
    const FETCHES: bool = false;

    /// A peer has shaken hands.
    fn greet(&mut self, _slot: PeerSlot, _torrent: TorrentSlot, _now: Instant) {}

    /// A connection has ended.
    fn leave(&mut self, _slot: PeerSlot) {}

    /// A part of the peer's bitfield, which is so long `(offset, total)`: from byte `offset` on.
    fn note_bits(&mut self, _slot: PeerSlot, _part: (u32, u32), _bytes: &[u8]) {}

    /// The peer has one piece more.
    fn note_have(&mut self, _slot: PeerSlot, _piece: PieceIndex) {}

    /// The peer has everything.
    fn note_all(&mut self, _slot: PeerSlot) {}

    /// Nothing that is known of the peer says that it lacks something.
    fn may_have_all(&self, _slot: PeerSlot) -> bool {
        true
    }

    /// The peer keeps so many requests; 0 when it does not say.
    fn note_reqq(&mut self, _slot: PeerSlot, _reqq: u16) {}

    /// The peer lets us ask, or no longer does; without BEP 6 it then forgets what it was asked.
    fn note_choke(&mut self, _slot: PeerSlot, _choked: bool, _fast: bool, _now: Instant) {}

    /// The peer will not answer a request. `false` when there was none.
    fn note_reject(&mut self, _slot: PeerSlot, _block: Block, _now: Instant) -> bool {
        false
    }

    /// A block begins to come. `false` when it was not asked for.
    fn note_block(&mut self, _slot: PeerSlot, _block: Block, _now: Instant) -> bool {
        false
    }

    /// So many bytes of the block under way, from `offset` of it, stand at `at` of what was read.
    fn note_payload(&mut self, _slot: PeerSlot, _offset: u32, _at: usize, _length: usize) {}

    /// The next thing to say to the peer; it is taken for said.
    fn next_say(&mut self, _slot: PeerSlot, _now: Instant) -> Option<Say> {
        None
    }

    /// The peer has metadata of so many bytes (BEP 9); 0 when it has none.
    fn note_metadata(&mut self, _slot: PeerSlot, _bytes: u32, _now: Instant) {}

    /// Piece `piece` of metadata of `total` bytes begins to come: `sizes` are those of what stands
    /// before it in its message and of itself. `false` when it is not wanted.
    fn note_metadata_piece(
        &mut self,
        _slot: PeerSlot,
        (_piece, _total): (u32, u32),
        _sizes: (u32, u32),
        _now: Instant,
    ) -> bool {
        false
    }

    /// So many bytes of it, from `offset` of its message, stand at `at` of what was read.
    fn note_metadata_payload(&mut self, _slot: PeerSlot, _offset: u32, _at: usize, _length: usize) {
    }

    /// The peer refuses to give metadata.
    fn note_metadata_reject(&mut self, _slot: PeerSlot, _now: Instant) {}

    /// A peer has a DHT node there (BEP 5).
    fn note_dht_node(&mut self, _address: SocketAddr) {}

    /// A peer has come for a torrent of `count` pieces that is whole here; `alone` when nobody else
    /// has it whole and others want it. Whether it is told of pieces one by one (BEP 16).
    fn veil(
        &mut self,
        _slot: PeerSlot,
        _torrent: TorrentSlot,
        _count: u32,
        _alone: bool,
        _now: Instant,
    ) -> bool {
        false
    }

    /// The peer is told that it may ask us, or no longer.
    fn note_served(&mut self, _slot: PeerSlot, _served: bool) {}

    /// A peer is told of pieces one by one.
    fn is_veiled(&self, _slot: PeerSlot) -> bool {
        false
    }

    /// A peer of a torrent that may be given out so has a piece.
    fn note_spread(&mut self, _slot: PeerSlot, _torrent: TorrentSlot, _piece: PieceIndex) {}

    /// Another has a torrent whole: nobody is kept from anything.
    fn unveil(&mut self, _torrent: TorrentSlot) {}

    /// Nothing more of a torrent is fetched.
    fn abandon(&mut self, _torrent: TorrentSlot) {}

    /// A torrent rests, and its place may be given to another.
    fn forget(&mut self, _torrent: TorrentSlot) {}

    /// Blocks are to come: reads are for payload, and need a lane's buffer.
    fn awaits_payload(&self, _slot: PeerSlot) -> bool {
        false
    }

    /// What we have now goes to the peer in a bitfield.
    fn note_told(&mut self, _slot: PeerSlot) {}

    /// Looks at the clock. `false` when there is more to tell the peer than is known piece by piece.
    fn handle_time(&mut self, _slot: PeerSlot, _now: Instant) -> bool {
        true
    }

    /// When [`Fetching::handle_time`] next has something to do, or, if the peer can be told
    /// something now, [`Fetching::next_say`].
    fn deadline(&self, _slot: PeerSlot, _may_say: bool) -> Deadline {
        Deadline::NONE
    }

    /// The torrent lacks something of what is wanted.
    fn is_fetched(&self, _torrent: TorrentSlot) -> bool {
        false
    }

    /// The next connection that has something to look at.
    fn take_nudged(&mut self) -> Option<PeerSlot> {
        None
    }

    /// The crowd of that address has sent bad data and is not let in.
    fn is_banned(&self, _crowd: core::net::IpAddr) -> bool {
        false
    }
}

/// Nothing is fetched.
pub struct SeedOnly;

impl Fetching for SeedOnly {}

/// Something to say to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// It has something we lack (or no longer has).
    Interested(bool),
    /// We have one piece more.
    Have(PieceIndex),
    /// A request is taken back.
    Cancel(Block),
    /// A request.
    Ask(Block),
    /// A request for a piece of metadata.
    AskMetadata(u32),
}

impl Fetching for Fetcher<'_> {
    const FETCHES: bool = true;

    fn greet(&mut self, slot: PeerSlot, torrent: TorrentSlot, now: Instant) {
        let lacking = |fetch: &Fetch| fetch.torrent == torrent && fetch.lacking_count > 0;
        let of = |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(lacking);
        let Some(place) = self.fetches.iter().position(of) else { return };
        let mut link = Link::new(torrent, place as u16, now);
        // What we have goes out in the bitfield.
        link.told_verified = self.fetches[place].as_ref().map_or(0, |fetch| fetch.verified_count);
        self.links[slot.index()] = Some(link);
    }

    fn veil(
        &mut self,
        slot: PeerSlot,
        torrent: TorrentSlot,
        count: u32,
        alone: bool,
        now: Instant,
    ) -> bool {
        let (index, chance) = (slot.index(), now.as_millis() as u32);
        self.unveilings.greet(index, torrent, count, alone, chance, &mut self.pool)
    }

    fn note_served(&mut self, slot: PeerSlot, served: bool) {
        self.unveilings.set_served(slot.index(), served);
    }

    fn is_veiled(&self, slot: PeerSlot) -> bool {
        self.unveilings.is_veiled(slot.index())
    }

    fn note_spread(&mut self, slot: PeerSlot, torrent: TorrentSlot, piece: PieceIndex) {
        self.unveilings.note_have(slot.index(), torrent, piece.0, &mut self.pool);
    }

    fn unveil(&mut self, torrent: TorrentSlot) {
        self.unveilings.end(torrent, &mut self.pool);
    }

    fn leave(&mut self, slot: PeerSlot) {
        self.unveilings.leave(slot.index(), &mut self.pool);
        if let Some(link) = &self.links[slot.index()] {
            let last = link.last_block;
            self.forget_source(slot, last);
        }
        self.give_up_asks(slot);
        if let Some(ask) = self.links[slot.index()].as_ref().and_then(|link| link.receiving) {
            self.interrupt(slot, ask);
        }
        self.forget_pieces(slot);
        let link = self.links[slot.index()].take();
        self.free_place(link.map_or(OVER, |link| link.fetch));
        for partial in self.partials.iter_mut().flatten() {
            partial.forget_sender(slot);
        }
        self.free_lone_pieces(slot);
    }

    fn note_bits(&mut self, slot: PeerSlot, (offset, total): (u32, u32), bytes: &[u8]) {
        if offset == 0 {
            self.forget_pieces(slot);
        }
        let Some((link, fetch, pool)) = self.link(slot) else { return };
        // Once nothing is lacking nobody gives back what would be kept of it.
        if fetch.lacking_count == 0 {
            return;
        }
        if offset == 0 {
            // Without metadata only the length of what it says tells how much there is.
            let known = fetch.layout.piece_count();
            let bits = if fetch.sought.is_some() { 8 * total } else { known };
            let span = pool.take_but(bits, fetch.kept_bytes());
            link.has = span.map_or(Has::Untold, Has::Some);
        }
        let Has::Some(span) = link.has else { return };
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                let piece = (offset + at as u32) * 8 + bit;
                if pool.set(span, piece) {
                    pool.count(fetch.availability, piece, true);
                    link.useful += u32::from(pool.get(fetch.lacking, piece));
                }
            }
        }
        link.dry = false;
    }

    fn note_have(&mut self, slot: PeerSlot, piece: PieceIndex) {
        let Some((link, fetch, pool)) = self.link(slot) else { return };
        if fetch.lacking_count == 0 {
            return;
        }
        // Of one for whose bitfield there was no room some is known from here on.
        if matches!(link.has, Has::Nothing | Has::Untold) {
            let span = pool.take_but(fetch.layout.piece_count(), fetch.kept_bytes());
            link.has = span.map_or(Has::Untold, Has::Some);
        }
        let Has::Some(span) = link.has else { return };
        if pool.set(span, piece.0) {
            pool.count(fetch.availability, piece.0, true);
            if pool.get(fetch.lacking, piece.0) {
                link.useful += 1;
                (link.dry, link.relieve_after) = (false, Instant::default());
            }
        }
    }

    fn note_all(&mut self, slot: PeerSlot) {
        self.forget_pieces(slot);
        if let Some((link, fetch, _)) = self.link(slot) {
            (link.has, link.useful, link.dry) = (Has::All, fetch.lacking_count, false);
        }
    }

    fn may_have_all(&self, slot: PeerSlot) -> bool {
        let Some(Some(link)) = self.links.get(slot.index()) else { return true };
        let Has::Some(span) = link.has else { return true };
        let fetch = self.fetches.get(usize::from(link.fetch)).and_then(Option::as_ref);
        let count = fetch.map_or(0, |fetch| fetch.layout.piece_count());
        self.pool.first_clear(span, 0, count).is_none()
    }

    fn note_reqq(&mut self, slot: PeerSlot, reqq: u16) {
        if let Some((link, ..)) = self.link(slot) {
            link.reqq = if reqq == 0 { link.reqq } else { reqq };
        }
    }

    fn note_choke(&mut self, slot: PeerSlot, choked: bool, fast: bool, now: Instant) {
        let Some((link, ..)) = self.link(slot) else { return };
        link.unchoked = !choked;
        if !choked {
            link.unchoked_at = now;
        } else if !fast {
            self.give_up_asks(slot);
        }
    }

    fn note_reject(&mut self, slot: PeerSlot, block: Block, now: Instant) -> bool {
        let Some(ask) = self.take_ask(slot, block) else { return self.forgive(slot) };
        self.unask(slot, ask);
        let place = self.links[slot.index()].as_ref().map_or(OVER, |link| link.fetch);
        self.wake(place);
        // What was on its way while it did not let us ask says nothing.
        if let Some((link, ..)) = self.link(slot)
            && link.unchoked
            && now >= link.unchoked_at.after(REJECTED_PAUSE_MS)
        {
            link.ask_after = now.after(REJECTED_PAUSE_MS);
        }
        true
    }

    fn note_block(&mut self, slot: PeerSlot, block: Block, now: Instant) -> bool {
        self.receive_block(slot, block, now)
    }

    fn note_payload(&mut self, slot: PeerSlot, offset: u32, at: usize, length: usize) {
        self.receive_payload(slot, offset, at, length);
    }

    fn note_metadata(&mut self, slot: PeerSlot, bytes: u32, now: Instant) {
        self.offer_metadata(slot, bytes, now);
    }

    fn note_metadata_piece(
        &mut self,
        slot: PeerSlot,
        piece: (u32, u32),
        sizes: (u32, u32),
        now: Instant,
    ) -> bool {
        self.receive_metadata(slot, piece, sizes, now)
    }

    fn note_metadata_payload(&mut self, slot: PeerSlot, offset: u32, at: usize, length: usize) {
        self.receive_metadata_payload(slot, offset, at, length);
    }

    fn note_metadata_reject(&mut self, slot: PeerSlot, now: Instant) {
        // Whoever is asked for what it does not have refuses now and then; not the one that has it.
        if self.sends_metadata(slot) {
            self.refuse_metadata(slot, now);
        }
    }

    fn next_say(&mut self, slot: PeerSlot, now: Instant) -> Option<Say> {
        if let Some(piece) = self.unveilings.next_have(slot.index(), now, &mut self.pool) {
            return Some(Say::Have(piece));
        }
        let (link, fetch, _) = self.link(slot)?;
        if let Some(interested) = link.change_of_interest(fetch.lacking_count == 0, now) {
            link.told_interested = interested;
            return Some(Say::Interested(interested));
        }
        // Who has missed more of them than are kept is told in a bitfield.
        let kept = fetch.verified_count - link.told_verified <= VERIFIED_TOLD_MAX as u32;
        if link.have_after <= now && kept {
            while link.told_verified < fetch.verified_count {
                let piece = fetch.verified[link.told_verified as usize % VERIFIED_TOLD_MAX];
                link.told_verified += 1;
                if link.told_verified == fetch.verified_count {
                    // All is told; what comes next is gathered for a while.
                    link.have_after = now.after(HAVE_GATHER_MS);
                }
                // Who has all of it has no use for the news. Who has this piece may have told us of it
                // to see what becomes of it (BEP 16).
                if link.has != Has::All {
                    return Some(Say::Have(PieceIndex(piece)));
                }
            }
        }
        if let Some(over) = self.asks(slot)?.take_over() {
            return Some(Say::Cancel(self.block_of(slot, over)?));
        }
        let (link, fetch, _) = self.link(slot)?;
        if fetch.sought.is_some() {
            return self.next_metadata(slot, now);
        }
        if fetch.lacking_count == 0 {
            // Not before it has been told of the last pieces: there will be no other news.
            if link.told_verified == fetch.verified_count {
                self.retire(slot);
            }
            return None;
        }
        self.next_ask(slot, now).map(Say::Ask)
    }

    fn note_dht_node(&mut self, address: SocketAddr) {
        // There are more nodes than anybody needs: one that finds no place is not missed.
        let _ = self.dht_nodes.push_back(address);
    }

    fn note_told(&mut self, slot: PeerSlot) {
        if let Some((link, fetch, _)) = self.link(slot) {
            link.told_verified = fetch.verified_count;
        }
    }

    fn abandon(&mut self, torrent: TorrentSlot) {
        let of = |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(|f| f.torrent == torrent);
        let Some(place) = self.fetches.iter().position(of) else { return };
        if let Some(fetch) = &mut self.fetches[place] {
            (fetch.lacking_count, fetch.sought) = (0, None);
        }
        self.finish(place as u16);
    }

    fn forget(&mut self, torrent: TorrentSlot) {
        self.unveilings.forget(torrent, &mut self.pool);
    }

    fn awaits_payload(&self, slot: PeerSlot) -> bool {
        let link = self.links.get(slot.index()).and_then(Option::as_ref);
        link.is_some_and(Link::is_due_something) || self.metadata_late_at(slot).is_some()
    }

    fn handle_time(&mut self, slot: PeerSlot, now: Instant) -> bool {
        let Some((link, fetch, _)) = self.link(slot) else { return true };
        if link.has == Has::All {
            // It has no use for the news.
            link.told_verified = fetch.verified_count;
        }
        let untold = fetch.verified_count - link.told_verified;
        if untold >= VERIFIED_TOLD_MAX as u32 / 2 {
            link.have_after = now;
        }
        link.look(now);
        let (late, stuck) = (link.is_late(now), link.is_stuck(now));
        if self.metadata_late_at(slot).is_some_and(|at| at <= now) {
            self.give_up_source(slot, now);
        }
        let Some((link, ..)) = self.link(slot) else { return true };
        if late || stuck {
            // Others have a chance first; then it is asked for one block at a time.
            let pause_ms = if link.on_parole { SNUB_MS } else { REJECTED_PAUSE_MS };
            (link.snubbed, link.ask_after) = (true, now.after(pause_ms));
            link.expect(now);
            let broken_off = link.receiving.take_if(|_| stuck);
            self.give_up_asks(slot);
            if let Some(ask) = broken_off {
                self.interrupt(slot, ask);
            }
            self.free_lone_pieces(slot);
        }
        untold <= VERIFIED_TOLD_MAX as u32
    }

    fn deadline(&self, slot: PeerSlot, may_say: bool) -> Deadline {
        let mut due = Deadline::NONE;
        if let Some(at) = self.metadata_late_at(slot) {
            due = due.or(Deadline { at, why: "metadata that is late" });
        }
        let link = self.links.get(slot.index()).and_then(Option::as_ref);
        if let Some(link) = link {
            due = due.or(Deadline { at: link.late_at(), why: "a block that is late" });
        }
        if !may_say {
            return due;
        }
        due = due.or(self.unveilings.deadline(slot.index()));
        let Some(link) = link else { return due };
        let fetch = self.fetches.get(usize::from(link.fetch)).and_then(Option::as_ref);
        if fetch.is_some_and(|fetch| fetch.verified_count > link.told_verified) {
            due = due.or(Deadline { at: link.have_after, why: "news of verified pieces" });
        }
        due = due.or(Deadline { at: link.bored_at, why: "interest lost" });
        if link.unchoked && link.useful > 0 && link.ask_after != Instant::default() {
            due = due.or(Deadline { at: link.ask_after, why: "asking again" });
        }
        if link.unchoked && link.useful > 0 && link.relieve_after != Instant::default() {
            due = due.or(Deadline { at: link.relieve_after, why: "somebody to relieve" });
        }
        due
    }

    fn is_fetched(&self, torrent: TorrentSlot) -> bool {
        let lacking = |fetch: &Fetch| fetch.torrent == torrent && fetch.lacking_count > 0;
        self.fetches.iter().flatten().any(lacking)
    }

    fn take_nudged(&mut self) -> Option<PeerSlot> {
        if let Some(index) = self.unveilings.take_nudged() {
            return Some(PeerSlot(index as u16));
        }
        if !self.nudged {
            return None;
        }
        let nudged = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.nudge);
        let next = self.links.iter().position(nudged);
        self.nudged = next.is_some();
        let at = next?;
        if let Some(link) = &mut self.links[at] {
            link.nudge = false;
        }
        Some(PeerSlot(at as u16))
    }

    fn is_banned(&self, crowd: core::net::IpAddr) -> bool {
        self.banned.iter().any(|banned| *banned == crowd)
    }
}

/// After a peer that lets us ask has rejected a request, before it is asked again.
const REJECTED_PAUSE_MS: u64 = 2_000;
