//! What peers share: active torrents, who is connected, who is unchoked, whom to dial.
//!
//! A [`Peer`](super::peer::Peer) is handed the swarm for the length of one call. Peers send each
//! other nothing: when one's input concerns another (a freed upload slot, a piece that is no
//! longer offered), the swarm writes it down here and lists the other's slot; the service rings
//! it, and that peer finds in its next `poll_output` what has changed.
//!
//! - [`torrent`]: an active torrent and which of its pieces are offered
//! - [`pool`]: bitmaps that come and go
//! - `relay`: what fetching means for those who are connected
//! - [`roster`]: one entry for each connection past its handshake
//! - [`choker`]: whose turn it is to be served
//! - [`candidates`]: addresses known but not connected
//! - [`bucket`]: how many bytes a cap on bandwidth lets go
//! - [`fetch`]: what is being fetched, on boards that fetch
//!
//! All memory is lent at start; each limit's answer stands with the method that meets it.
//!
//! Journey 2: a handshake asks [`Swarm::find`] and [`Swarm::join`]; interest goes to the choker;
//! what is sent is counted here and shown in the live line.

pub mod bucket;
pub mod candidates;
pub mod choker;
pub mod fetch;
pub mod pool;
mod relay;
pub mod roster;
pub mod torrent;

use super::announce::is_private;
use super::units::{Deadline, Instant, PeerId, PeerSlot, TorrentSlot};
use super::wire::PeerFault;
use super::wire::extended::EXCHANGE_PEERS_MAX;
use candidates::Candidates;
use choker::Choker;
use fetch::{Fetching, SeedOnly};
use pool::{Pool, Span};
use roster::{Farewell, Member, Roster};
use torrent::{Have, Torrent};

/// What the box says of itself in handshakes.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Our name (BEP 20).
    pub peer_id: PeerId,
    /// Where others reach us; 0 when they cannot.
    pub listen_port: u16,
    /// Requests kept for each peer (`reqq`).
    pub requests_max: u16,
    /// Peers may be told of others (BEP 11).
    pub exchanges: bool,
    /// Where our DHT node listens; 0 when there is none.
    pub dht_port: u16,
}

/// What the service lends a swarm. Each length is a number of the board's profile.
pub struct SwarmMemory<'m> {
    /// Active torrents: `seeding_max`.
    pub torrents: &'m mut [Option<Torrent>],
    /// Connections: `peers_max` and the spare ones.
    pub members: &'m mut [Option<Member>],
    /// Slots to ring: as long as `members`.
    pub nudged: &'m mut [PeerSlot],
    /// Bitfields of torrents that are not whole: `bits_kib`.
    pub bits: &'m mut [u8],
    /// Addresses known: `candidates_max`.
    pub candidates: &'m mut [Option<candidates::Candidate>],
}

/// Limits of a swarm that are not the length of something lent.
#[derive(Clone, Copy, Debug)]
pub struct SwarmLimits {
    /// Peers past their handshake; those beyond have to make room or go.
    pub peers_max: u16,
    /// Peers served at a time.
    pub unchoked_max: u16,
    /// Peers of one address.
    pub per_address_max: u16,
}

/// Everything peers share. See the module. `F` is what it fetches with: nothing, unless said.
pub struct Swarm<'m, F: Fetching = SeedOnly> {
    identity: Identity,
    torrents: &'m mut [Option<Torrent>],
    roster: Roster<'m>,
    choker: Choker,
    bits: Pool<'m>,
    withdrawals: u32,
    /// Torrents that nobody is let in for. When it is full, those who come are let go once more.
    closed: heapless::Vec<TorrentSlot, CLOSED_MAX>,
    /// Torrents that are not active may exist all the same, at rest: who asks for one of them waits
    /// until it has been looked for. Not so unless said.
    pub torrents_rest: bool,
    /// Whom to dial.
    pub candidates: Candidates<'m>,
    /// Bytes of content sent since start.
    pub sent_bytes: u64,
    /// What is being fetched.
    pub fetcher: F,
}

/// Torrents that are being withdrawn at a time: as many as the owner has commands under way, and some.
const CLOSED_MAX: usize = 8;

/// Why a peer that shook hands is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken by connections that are of more use.
    Full,
    /// Its address has as many connections as one address may have.
    Crowded,
    /// It is connected already.
    Twice,
    /// Its address has sent data that did not match.
    Banned,
}

impl<'m> Swarm<'m> {
    /// An empty swarm that fetches nothing, in the memory lent to it.
    pub fn new(memory: SwarmMemory<'m>, limits: SwarmLimits, identity: Identity) -> Swarm<'m> {
        Swarm::with_fetcher(memory, limits, identity, SeedOnly)
    }
}

impl<'m, F: Fetching> Swarm<'m, F> {
    /// An empty swarm in the memory lent to it.
    pub fn with_fetcher(
        memory: SwarmMemory<'m>,
        limits: SwarmLimits,
        identity: Identity,
        fetcher: F,
    ) -> Swarm<'m, F> {
        Swarm {
            identity,
            torrents: memory.torrents,
            roster: Roster::new(memory.members, memory.nudged, limits),
            choker: Choker::new(limits.unchoked_max),
            bits: Pool::new(memory.bits),
            withdrawals: 0,
            closed: heapless::Vec::new(),
            torrents_rest: false,
            candidates: Candidates::new(memory.candidates),
            sent_bytes: 0,
            fetcher,
        }
    }

    /// What we say of ourselves.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Makes a torrent active.
    ///
    /// # When full
    /// `None`: every place of `seeding_max` is taken.
    pub fn activate(&mut self, torrent: Torrent) -> Option<TorrentSlot> {
        let index = self.torrents.iter().position(Option::is_none)?;
        self.torrents[index] = Some(torrent);
        Some(TorrentSlot(index as u16))
    }

    /// A torrent rests: its place may be given to another. `false`, and nothing has changed, while
    /// somebody is connected for it or something of it is fetched.
    pub fn rest(&mut self, slot: TorrentSlot) -> bool {
        let is_used = self.members().any(|member| member.torrent == slot);
        if is_used || self.fetcher.is_fetched(slot) {
            return false;
        }
        let Some(torrent) = self.torrents[slot.index()].take() else { return false };
        if let Have::Some(span) = torrent.have {
            self.bits.give_back(span);
        }
        self.candidates.forget(slot);
        self.fetcher.forget(slot);
        self.let_in(slot);
        true
    }

    /// Nothing more is served or fetched of a torrent: whoever is connected for it is let go, nobody
    /// is let in, and once all have left it can [rest](Swarm::rest).
    pub fn withdraw(&mut self, slot: TorrentSlot) {
        if !self.closed.contains(&slot) {
            let _ = self.closed.push(slot);
        }
        self.fetcher.abandon(slot);
        self.candidates.forget(slot);
        self.roster.let_go(|member| (member.torrent == slot).then_some(Farewell::Withdrawn));
    }

    /// Peers are let in again for a torrent that was withdrawn.
    pub fn let_in(&mut self, slot: TorrentSlot) {
        self.closed.retain(|closed| *closed != slot);
    }

    /// The active torrent of that name, if peers are let in for it.
    pub fn find_open(&self, on_the_wire: &[u8; 20]) -> Option<TorrentSlot> {
        self.find(on_the_wire).filter(|slot| !self.closed.contains(slot))
    }

    /// Whether that place is taken.
    pub fn is_active(&self, slot: TorrentSlot) -> bool {
        self.torrents.get(slot.index()).is_some_and(Option::is_some)
    }

    /// The active torrent of that name.
    pub fn find(&self, on_the_wire: &[u8; 20]) -> Option<TorrentSlot> {
        let same = |torrent: &Torrent| torrent.info_hash.on_the_wire() == *on_the_wire;
        let index = self.torrents.iter().position(|place| place.as_ref().is_some_and(same))?;
        Some(TorrentSlot(index as u16))
    }

    /// An active torrent.
    ///
    /// # Panics
    /// When the slot is empty: slots come from [`Swarm::find`], and a torrent that is in use does
    /// not rest.
    pub fn torrent(&self, slot: TorrentSlot) -> &Torrent {
        self.torrents[slot.index()].as_ref().expect("a slot that was given out is filled")
    }

    /// Every active torrent.
    pub fn torrents(&self) -> impl Iterator<Item = (TorrentSlot, &Torrent)> {
        let numbered = self.torrents.iter().enumerate();
        numbered.filter_map(|(i, place)| Some((TorrentSlot(i as u16), place.as_ref()?)))
    }

    /// Whether a piece is offered, and so may be sent.
    pub fn offers(&self, slot: TorrentSlot, piece: u32) -> bool {
        let torrent = self.torrent(slot);
        torrent.have.contains(&self.bits, torrent.layout.piece_count(), piece)
    }

    /// The part of the bitfield from byte `offset` on that fits `into`; its length.
    pub fn bitfield(&self, slot: TorrentSlot, offset: u32, into: &mut [u8]) -> usize {
        let torrent = self.torrent(slot);
        let whole = torrent.layout.bitfield_bytes();
        let length = into.len().min((whole - offset.min(whole)) as usize);
        let count = torrent.layout.piece_count();
        for (at, byte) in into[..length].iter_mut().enumerate() {
            *byte = torrent.have.byte(&self.bits, count, offset + at as u32);
        }
        length
    }

    /// Stops offering `pieces`: their file has changed. Peers that could not be told otherwise
    /// (no BEP 6) are let go, so that they learn it when they come back.
    ///
    /// # When full
    /// When there is no room for another bitfield nothing of the torrent is offered any more.
    pub fn withhold(&mut self, slot: TorrentSlot, pieces: core::ops::Range<u32>) {
        let Some(torrent) = self.torrents[slot.index()].as_mut() else { return };
        let count = torrent.layout.piece_count();
        if pieces.clone().all(|piece| !torrent.have.contains(&self.bits, count, piece)) {
            return;
        }
        if torrent.have == Have::All {
            torrent.have = match self.bits.take(count) {
                Some(span) => {
                    for piece in 0..count {
                        self.bits.set(span, piece);
                    }
                    Have::Some(span)
                }
                None => Have::Nothing,
            };
        }
        if let Have::Some(span) = torrent.have {
            for piece in pieces {
                self.bits.clear(span, piece);
            }
        }
        self.withdrawals = self.withdrawals.wrapping_add(1);
        self.roster.nudge_all(slot);
        self.roster.let_go(|member| {
            (member.torrent == slot && !member.fast).then_some(Farewell::Withdrawn)
        });
    }

    /// Offers all of a torrent again: what was withheld of it is there after all.
    pub fn restore(&mut self, slot: TorrentSlot) {
        let Some(torrent) = self.torrents[slot.index()].as_mut() else { return };
        if let Have::Some(span) = core::mem::replace(&mut torrent.have, Have::All) {
            self.bits.give_back(span);
        }
    }

    /// Changes whenever something that was offered no longer is.
    pub fn withdrawals(&self) -> u32 {
        self.withdrawals
    }

    /// Takes bits for a torrent of which only some pieces are there, all clear; `None` when full.
    pub fn take_bits(&mut self, piece_count: u32) -> Option<Span> {
        self.bits.take(piece_count)
    }

    /// Sets the bit of a piece that is there.
    pub fn set_bit(&mut self, span: Span, piece: u32) {
        self.bits.set(span, piece);
    }

    /// Lets a peer in that has shaken hands.
    ///
    /// # When full
    /// The least useful connection is told to make room; when all are of use, the newcomer goes.
    pub fn join(
        &mut self,
        slot: PeerSlot,
        mut member: Member,
        now: Instant,
    ) -> Result<(), Refused> {
        if self.fetcher.is_banned(roster::crowd_of(member.address.ip())) {
            return Err(Refused::Banned);
        }
        let torrent = member.torrent;
        member.reciprocal = F::FETCHES && self.fetcher.is_fetched(torrent);
        self.roster.admit(slot, member, self.identity.peer_id, now)?;
        self.fetcher.greet(slot, torrent, now);
        if F::FETCHES && self.torrent(torrent).have == Have::All {
            let of = |(other, member): &(PeerSlot, &Member)| {
                *other != slot && member.torrent == torrent && member.farewell.is_none()
            };
            let mut others = self.roster.slots().filter(of).peekable();
            let alone = others.peek().is_some() && others.all(|(_, member)| !member.complete);
            let count = self.torrent(torrent).layout.piece_count();
            self.fetcher.veil(slot, torrent, count, alone, now);
        }
        Ok(())
    }

    /// Forgets a connection, whatever stage it had reached.
    pub fn leave(&mut self, slot: PeerSlot, now: Instant) {
        self.fetcher.leave(slot);
        if self.roster.remove(slot).is_some_and(|member| member.interested) {
            self.review(now);
        }
    }

    /// A connection past its handshake.
    pub fn member(&self, slot: PeerSlot) -> Option<&Member> {
        self.roster.get(slot)
    }

    /// How many are past their handshake.
    pub fn member_count(&self) -> u16 {
        self.roster.count()
    }

    /// Everyone past their handshake.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.roster.members()
    }

    /// Whether whoever listens at that address is here for the torrent already. Several peers may
    /// share an IP address; one that has not said where it listens is taken for the one meant.
    pub fn knows(&self, torrent: TorrentSlot, address: core::net::SocketAddr) -> bool {
        self.members().any(|member| {
            let same_port = [0, address.port()].contains(&member.listen_port);
            member.torrent == torrent && member.address.ip() == address.ip() && same_port
        })
    }

    /// The peer says where it listens; 0 when it does not.
    pub fn note_listen_port(&mut self, slot: PeerSlot, port: u16) {
        if let Some(member) = self.roster.get_mut(slot)
            && port != 0
        {
            member.listen_port = port;
        }
    }

    /// A peer tells of another (BEP 11). Only one in our own network may send us into it.
    pub fn exchange(&mut self, slot: PeerSlot, address: core::net::SocketAddr, now: Instant) {
        let Some(member) = self.roster.get(slot) else { return };
        let (torrent, from_inside) = (member.torrent, is_private(member.address.ip()));
        let private = self.torrent(torrent).private || !self.identity.exchanges;
        if !private && (from_inside || !is_private(address.ip())) {
            self.candidates.note(torrent, address, now);
        }
    }

    /// Where peers listen who are here for the same torrent and came after `since`: the first few,
    /// without `slot` itself.
    pub fn peers_since(
        &self,
        slot: PeerSlot,
        since: Instant,
    ) -> heapless::Vec<core::net::SocketAddr, EXCHANGE_PEERS_MAX> {
        let mut peers = heapless::Vec::new();
        let Some(asking) = self.roster.get(slot) else { return peers };
        let tells_of = |other: &&Member| {
            other.torrent == asking.torrent && other.joined >= since && other.listen_port != 0
        };
        let others = self.roster.slots().filter(|(other, _)| *other != slot);
        for member in others.map(|(_, member)| member).filter(tells_of) {
            let address = core::net::SocketAddr::new(member.address.ip(), member.listen_port);
            // What lies in our network is of no use outside it, and nobody's business there.
            let fits = !is_private(address.ip()) || is_private(asking.address.ip());
            if fits && peers.push(address).is_err() {
                break;
            }
        }
        peers
    }

    /// The peer wants something of ours, or no longer does.
    pub fn set_interested(&mut self, slot: PeerSlot, interested: bool, now: Instant) {
        let Some(member) = self.roster.get_mut(slot) else { return };
        if member.interested != interested {
            member.interested = interested;
            member.since = now;
            let (complete, torrent) = (member.complete, member.torrent);
            if complete && !interested && !self.fetcher.is_fetched(torrent) {
                self.roster.end(slot, Farewell::Complete);
            }
            self.review(now);
        }
    }

    /// The peer says that it has everything: a seed has nothing to give it, nor it to us. As long
    /// as it wants something all the same, it has counted otherwise than we.
    pub fn set_complete(&mut self, slot: PeerSlot) {
        let Some(member) = self.roster.get_mut(slot) else { return };
        member.complete = true;
        let (interested, torrent) = (member.interested, member.torrent);
        self.fetcher.note_all(slot);
        self.fetcher.unveil(torrent);
        if !interested && !self.fetcher.is_fetched(torrent) {
            self.roster.end(slot, Farewell::Complete);
        }
    }

    /// So many bytes of content went to the peer.
    pub fn count_sent(&mut self, slot: PeerSlot, bytes: u64, now: Instant) {
        self.sent_bytes += bytes;
        let Some(member) = self.roster.get_mut(slot) else { return };
        member.sent_bytes += bytes;
        if bytes > 0 {
            member.last_sent = now;
        }
        if let Some(torrent) = self.torrents[member.torrent.index()].as_mut() {
            torrent.sent_bytes += bytes;
        }
    }

    /// So many bytes of a torrent's content went to somebody who is no peer.
    pub fn count_handed_out(&mut self, slot: TorrentSlot, bytes: u64) {
        self.sent_bytes += bytes;
        if let Some(torrent) = self.torrents[slot.index()].as_mut() {
            torrent.sent_bytes += bytes;
        }
    }

    /// Reviews whose turn it is; to be called at [`Swarm::deadline`].
    pub fn handle_time(&mut self, now: Instant) {
        self.review(now);
    }

    fn review(&mut self, now: Instant) {
        self.choker.review(&mut self.roster, now);
        if F::FETCHES {
            self.choker.rank(&mut self.roster, now);
        }
    }

    /// A block of ours begins to come from a peer.
    pub fn count_given(&mut self, slot: PeerSlot) {
        if let Some(member) = self.roster.get_mut(slot) {
            member.given = member.given.saturating_add(1);
        }
    }

    /// When upload slots are next to change hands; [`Deadline::NONE`] while nobody waits for one.
    pub fn deadline(&self) -> Deadline {
        self.choker.deadline()
    }

    /// Tells everyone to go.
    pub fn close(&mut self) {
        self.roster.let_go(|_| Some(Farewell::Stopping));
    }

    /// The next connection whose standing has changed since it last looked.
    pub fn take_nudged(&mut self) -> Option<PeerSlot> {
        self.roster.take_nudged().or_else(|| self.fetcher.take_nudged())
    }

    /// Notes what came of an address we dialled for a torrent. That nobody is there, or somebody
    /// who breaks the protocol, is so for all torrents; anything else for this one.
    pub fn dialled(
        &mut self,
        torrent: TorrentSlot,
        address: core::net::SocketAddr,
        end: DialEnd,
        now: Instant,
    ) {
        let shunned = |fault: PeerFault| fault.penalty() == super::wire::Penalty::Shun;
        if end == DialEnd::Ended && self.fetcher.is_fetched(torrent) {
            return self.candidates.ended(torrent, address, now);
        }
        let (torrent, wait_ms) = match end {
            DialEnd::Unreachable => (None, candidates::RETRY_MS),
            DialEnd::Fault(fault) if shunned(fault) => (None, candidates::SHUN_MS),
            DialEnd::Corrupt => (None, candidates::SHUN_MS),
            DialEnd::Complete => (Some(torrent), candidates::COMPLETE_MS),
            DialEnd::Ended | DialEnd::Fault(_) => (Some(torrent), candidates::AGAIN_MS),
        };
        let missed = end == DialEnd::Unreachable;
        self.candidates.put_off(torrent, address, now, wait_ms, missed);
    }
}

/// What came of dialling an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEnd {
    /// Nobody answered.
    Unreachable,
    /// It has everything already.
    Complete,
    /// The connection ended as connections do.
    Ended,
    /// The peer broke the protocol.
    Fault(PeerFault),
    /// It sent data that did not match.
    Corrupt,
}
