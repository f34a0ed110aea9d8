//! One entry for each connection past its handshake: what others need to know of it.
//!
//! The protocol's own state is in the [`Peer`](super::super::peer::Peer); here stands only what
//! the choker, the newcomer's welcome and the live line ask for.

use super::{Refused, SwarmLimits};
use crate::engine::limits::GRACE_MS;
use crate::engine::units::{Instant, PeerId, PeerSlot, TorrentSlot};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A connection past its handshake.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which torrent it is here for.
    pub torrent: TorrentSlot,
    /// Where it is.
    pub address: SocketAddr,
    /// The port it listens on; 0 when nobody knows.
    pub listen_port: u16,
    /// What it calls itself.
    pub peer_id: PeerId,
    /// It can be told that a piece is not to be had (BEP 6).
    pub fast: bool,
    /// It wants something of ours.
    pub interested: bool,
    /// It may ask.
    pub unchoked: bool,
    /// It has everything.
    pub complete: bool,
    /// When it came.
    pub joined: Instant,
    /// When its interest or its being unchoked last changed: its place in the queue.
    pub since: Instant,
    /// When bytes last went to it.
    pub last_sent: Instant,
    /// Bytes of content that went to it.
    pub sent_bytes: u64,
    /// We are fetching the torrent ourselves: it is served for what it gives.
    pub reciprocal: bool,
    /// Blocks it has sent since those who give were last ranked.
    pub given: u16,
    /// It gives enough to be served on.
    pub kept: bool,
    /// It has to go, and why.
    pub farewell: Option<Farewell>,
    /// It is listed among those to ring.
    nudged: bool,
}

/// Why we end a connection that did nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// A newcomer is of more use.
    MadeRoom,
    /// It has everything, and so have we.
    Complete,
    /// Something it was offered is no longer there.
    Withdrawn,
    /// It sent data that did not match.
    Corrupt,
    /// The box stops.
    Stopping,
    /// It was not let in.
    Refused(Refused),
}

impl Member {
    /// A peer that has just shaken hands.
    pub fn new(
        torrent: TorrentSlot,
        address: SocketAddr,
        peer_id: PeerId,
        fast: bool,
        now: Instant,
    ) -> Member {
        Member {
            torrent,
            address,
            listen_port: 0,
            peer_id,
            fast,
            interested: false,
            unchoked: false,
            complete: false,
            joined: now,
            since: now,
            last_sent: now,
            sent_bytes: 0,
            reciprocal: false,
            given: 0,
            kept: false,
            farewell: None,
            nudged: false,
        }
    }

    /// We went to it, and it did not come to us.
    fn is_dialled(&self) -> bool {
        self.listen_port == self.address.port()
    }
}

/// Who counts as one where an address may have only so many connections: over IPv6 the network of
/// 64 bits, of which anybody has all addresses (RFC 4291 section 2.5.1).
pub fn crowd_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

/// All connections past their handshake.
pub struct Roster<'m> {
    members: &'m mut [Option<Member>],
    nudged: &'m mut [PeerSlot],
    nudged_count: usize,
    count: u16,
    limits: SwarmLimits,
}

impl<'m> Roster<'m> {
    /// An empty roster; `nudged` is at least as long as `members`.
    pub fn new(
        members: &'m mut [Option<Member>],
        nudged: &'m mut [PeerSlot],
        limits: SwarmLimits,
    ) -> Roster<'m> {
        assert!(nudged.len() >= members.len(), "each slot may be listed once");
        Roster { members, nudged, nudged_count: 0, count: 0, limits }
    }

    /// Lets a peer in, or says why not; `own` is what we call ourselves. See [`Swarm::join`](super::Swarm::join).
    pub fn admit(
        &mut self,
        slot: PeerSlot,
        member: Member,
        own: PeerId,
        now: Instant,
    ) -> Result<(), Refused> {
        let same_address = |other: &Member| other.address.ip() == member.address.ip();
        let twice =
            |other: &Member| other.torrent == member.torrent && other.peer_id == member.peer_id;
        let known = self.slots().find(|(_, other)| same_address(other) && twice(other));
        if let Some((known, other)) = known {
            let crossed =
                other.is_dialled() != member.is_dialled() && now.since(other.joined) < CROSSED_MS;
            // Two that dial each other at once both keep the one of the greater name's. Else one that
            // took something of late is alive, or it left without a word and is back.
            let is_kept = match crossed {
                true => member.is_dialled() == (own.0 > member.peer_id.0),
                false => now.since(other.last_sent) >= TWICE_MS,
            };
            if !is_kept {
                return Err(Refused::Twice);
            }
            self.end(known, Farewell::MadeRoom);
        }
        let crowd = crowd_of(member.address.ip());
        let same_crowd = |other: &&Member| crowd_of(other.address.ip()) == crowd;
        if self.members().filter(same_crowd).count() >= self.limits.per_address_max.into() {
            return Err(Refused::Crowded);
        }
        if self.count >= self.limits.peers_max {
            let least = self.least_useful(now).ok_or(Refused::Full)?;
            self.end(least, Farewell::MadeRoom);
        }
        self.members[slot.index()] = Some(member);
        self.count += 1;
        Ok(())
    }

    /// Takes a connection off the roster.
    pub fn remove(&mut self, slot: PeerSlot) -> Option<Member> {
        let member = self.members[slot.index()].take()?;
        self.count -= 1;
        if member.nudged {
            let listed = &self.nudged[..self.nudged_count];
            if let Some(at) = listed.iter().position(|other| *other == slot) {
                self.nudged.copy_within(at + 1..self.nudged_count, at);
                self.nudged_count -= 1;
            }
        }
        Some(member)
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Nobody is past the handshake.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// One of them.
    pub fn get(&self, slot: PeerSlot) -> Option<&Member> {
        self.members.get(slot.index())?.as_ref()
    }

    /// One of them, to change.
    pub fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Member> {
        self.members.get_mut(slot.index())?.as_mut()
    }

    /// All of them.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// All of them with their slots.
    pub fn slots(&self) -> impl Iterator<Item = (PeerSlot, &Member)> {
        let numbered = self.members.iter().enumerate();
        numbered.filter_map(|(i, member)| Some((PeerSlot(i as u16), member.as_ref()?)))
    }

    /// Ends every connection for which `why` has a reason.
    pub fn let_go(&mut self, why: impl Fn(&Member) -> Option<Farewell>) {
        for index in 0..self.members.len() {
            let reason = self.members[index].as_ref().and_then(&why);
            if let Some(reason) = reason {
                self.end(PeerSlot(index as u16), reason);
            }
        }
    }

    /// A torrent is fetched no longer: nobody has to give for being served.
    pub fn settle(&mut self, torrent: TorrentSlot) {
        let members = self.members.iter_mut().flatten();
        members.filter(|member| member.torrent == torrent).for_each(|m| m.reciprocal = false);
    }

    /// Lists `slot` among those to ring.
    pub fn nudge(&mut self, slot: PeerSlot) {
        let Some(member) = self.members[slot.index()].as_mut() else { return };
        if !member.nudged {
            member.nudged = true;
            self.nudged[self.nudged_count] = slot;
            self.nudged_count += 1;
        }
    }

    /// Lists everyone who is here for a torrent.
    pub fn nudge_all(&mut self, torrent: TorrentSlot) {
        for index in 0..self.members.len() {
            if self.members[index].as_ref().is_some_and(|member| member.torrent == torrent) {
                self.nudge(PeerSlot(index as u16));
            }
        }
    }

    /// The next one to ring.
    pub fn take_nudged(&mut self) -> Option<PeerSlot> {
        self.nudged_count = self.nudged_count.checked_sub(1)?;
        let slot = self.nudged[self.nudged_count];
        if let Some(member) = self.get_mut(slot) {
            member.nudged = false;
        }
        Some(slot)
    }

    /// Tells one connection to go.
    pub fn end(&mut self, slot: PeerSlot, why: Farewell) {
        let Some(member) = self.members[slot.index()].as_mut() else { return };
        if member.farewell.is_none() {
            member.farewell = Some(why);
            self.nudge(slot);
        }
    }

    /// The connection that is of least use: one that has everything, else one that wants nothing,
    /// else an unchoked one that takes nothing; of these the one quiet for longest. `None` when
    /// all are being served, wait for it, or have only just come.
    fn least_useful(&self, now: Instant) -> Option<PeerSlot> {
        let rank = |member: &Member| match member {
            _ if member.farewell.is_some() || now.since(member.joined) < GRACE_MS => None,
            _ if member.complete => Some(0),
            _ if !member.interested => Some(1),
            _ if member.unchoked && now.since(member.last_sent) >= UNUSED_MS => Some(2),
            _ => None,
        };
        let ranked = self.slots().filter_map(|(slot, member)| {
            Some(((rank(member)?, member.last_sent.max(member.since)), slot))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, slot)| slot)
    }
}

/// Two connections between the same two within this have crossed.
const CROSSED_MS: u64 = 5_000;

/// A peer that comes back is believed to have gone when nothing went to it for so long.
const TWICE_MS: u64 = 30_000;

/// An unchoked peer that took nothing for so long is of no use while others wait at the door.
const UNUSED_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_counts_as_one_and_an_ipv4_address_alone() {
        let crowd = |text: &str| crowd_of(text.parse().unwrap());
        assert_eq!(crowd("2001:db8::1"), crowd("2001:db8::ffff:1:2:3"));
        assert_ne!(crowd("2001:db8::1"), crowd("2001:db8:0:1::1"));
        assert_ne!(crowd("192.0.2.1"), crowd("192.0.2.2"));
        assert_eq!(crowd("192.0.2.1"), crowd("::ffff:192.0.2.1"));
    }

    #[test]
    fn of_two_connections_that_cross_both_ends_keep_the_same_one() {
        let (low, high) = (PeerId([1; 20]), PeerId([2; 20]));
        let at = Instant::from_millis;
        // Whether the end called `own` keeps the one that was dialled by the end called `dialler`,
        // whichever of the two is there first.
        let keeps = |own: PeerId, other: PeerId, dialler: PeerId, is_first: bool| {
            let mut members = [const { None }; 2];
            let mut nudged = [PeerSlot(0); 2];
            let limits = SwarmLimits { peers_max: 2, unchoked_max: 2, per_address_max: 2 };
            let mut roster = Roster::new(&mut members, &mut nudged, limits);
            let connection = |dialled: bool| {
                let address =
                    SocketAddr::from(([10, 0, 0, 1], if dialled { 6_881 } else { 40_000 }));
                let mut member = Member::new(TorrentSlot(0), address, other, true, at(1));
                member.listen_port = if dialled { 6_881 } else { 0 };
                member
            };
            let meant = dialler == own;
            let (first, second) = if is_first { (meant, !meant) } else { (!meant, meant) };
            roster.admit(PeerSlot(0), connection(first), own, at(1)).unwrap();
            let admitted = roster.admit(PeerSlot(1), connection(second), own, at(9));
            if is_first { admitted.is_err() } else { admitted.is_ok() }
        };
        for is_first in [true, false] {
            for (own, other) in [(low, high), (high, low)] {
                assert!(keeps(own, other, high, is_first));
                assert!(!keeps(own, other, low, is_first));
            }
        }
    }
}
