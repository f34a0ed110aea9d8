//! Peers that others announced to us, for those who ask.
//!
//! A slice of fixed length, lent at start. An announcement is good for half an hour and then
//! forgotten without a timer: what is older is neither counted nor told.
//!
//! # When full
//! The oldest gives way. A torrent has at most [`PER_TORRENT_MAX`] peers and a crowd at most an
//! eighth of the store: beyond that its own oldest gives way, so that nobody can make us forget
//! what others said.

use super::endpoint::Endpoint;
use super::id::NodeId;
use crate::engine::units::Instant;

/// Somebody's word that it is a peer of a torrent.
#[derive(Clone, Copy, Debug)]
pub struct StoredPeer {
    info_hash: NodeId,
    endpoint: Endpoint,
    /// Second of the clock.
    said_s: u32,
}

/// All of them.
pub struct Store<'m> {
    peers: &'m mut [Option<StoredPeer>],
}

impl<'m> Store<'m> {
    /// An empty store in the memory lent to it.
    pub fn new(peers: &'m mut [Option<StoredPeer>]) -> Store<'m> {
        peers.fill(None);
        Store { peers }
    }

    /// Takes note of a peer; another port of the same address takes the place of the first one.
    ///
    /// # Work
    /// One pass over the store.
    pub fn note(&mut self, info_hash: NodeId, endpoint: Endpoint, now: Instant) {
        let said_s = seconds(now);
        let (mut of_torrent, mut of_crowd) = (Group::default(), Group::default());
        let (mut oldest, mut again) = (Group::default(), None);
        for (place, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer.filter(|peer| is_fresh(peer, said_s)) else {
                oldest.free(place);
                continue;
            };
            let same_torrent = peer.info_hash == info_hash;
            let same_crowd = peer.endpoint.crowd() == endpoint.crowd();
            if same_torrent && same_crowd {
                again = Some(place);
            }
            if same_torrent {
                of_torrent.count(place, peer.said_s);
            }
            if same_crowd {
                of_crowd.count(place, peer.said_s);
            }
            oldest.count(place, peer.said_s);
        }
        let crowd_max = (self.peers.len() / 8).max(1);
        let place = match again {
            Some(place) => Some(place),
            None if of_crowd.members >= crowd_max => of_crowd.first(),
            None if of_torrent.members >= PER_TORRENT_MAX => of_torrent.first(),
            None => oldest.first(),
        };
        if let Some(place) = place {
            self.peers[place] = Some(StoredPeer { info_hash, endpoint, said_s });
        }
    }

    /// The peers of a torrent, from somewhere in the store on: with `start` by chance everybody is
    /// told in time, however few are told at once.
    pub fn peers(
        &self,
        info_hash: &NodeId,
        start: u32,
        now: Instant,
    ) -> impl Iterator<Item = Endpoint> {
        let now_s = seconds(now);
        let (before, behind) = self.peers.split_at(start as usize % self.peers.len().max(1));
        let wanted =
            move |peer: &&StoredPeer| peer.info_hash == *info_hash && is_fresh(peer, now_s);
        behind.iter().chain(before).flatten().filter(wanted).map(|peer| peer.endpoint)
    }

    /// How many peers are known.
    pub fn count(&self, now: Instant) -> usize {
        self.peers.iter().flatten().filter(|peer| is_fresh(peer, seconds(now))).count()
    }
}

/// A few places of the store, and which of them is the oldest.
#[derive(Default)]
struct Group {
    members: usize,
    /// When that was said; a free place is older than all.
    oldest: Option<(Option<u32>, usize)>,
}

impl Group {
    fn count(&mut self, place: usize, said_s: u32) {
        self.members += 1;
        self.see((Some(said_s), place));
    }

    fn free(&mut self, place: usize) {
        self.see((None, place));
    }

    fn see(&mut self, one: (Option<u32>, usize)) {
        self.oldest = Some(self.oldest.map_or(one, |oldest| oldest.min(one)));
    }

    fn first(&self) -> Option<usize> {
        self.oldest.map(|(_, place)| place)
    }
}

fn is_fresh(peer: &StoredPeer, now_s: u32) -> bool {
    now_s.saturating_sub(peer.said_s) < FORGOTTEN_S
}

fn seconds(now: Instant) -> u32 {
    (now.as_millis() / 1_000) as u32
}

/// How long an announcement is good: clients repeat theirs every 15 to 30 minutes.
const FORGOTTEN_S: u32 = 1_800;

/// Peers of one torrent: more than one answer can hold.
pub const PER_TORRENT_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: NodeId = NodeId([1; 20]);

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn peer(number: u8, port: u16) -> Endpoint {
        Endpoint::of((([198, 51, 100, number]), port).into())
    }

    #[test]
    fn peers_are_told_for_half_an_hour_each_address_once() {
        let mut memory = [None; 8];
        let mut store = Store::new(&mut memory);
        store.note(HASH, peer(1, 1), at(5));
        store.note(HASH, peer(1, 2), at(6));
        store.note(HASH, peer(2, 1), at(7));
        store.note(NodeId([2; 20]), peer(3, 1), at(7));
        for start in [0, 1, 2, u32::MAX] {
            assert_eq!(store.peers(&HASH, start, at(8)).count(), 2);
        }
        assert!(store.peers(&HASH, 0, at(8)).eq([peer(1, 2), peer(2, 1)]));
        assert!(store.peers(&HASH, 0, at(6 + 1_800)).eq([peer(2, 1)]));
        assert_eq!(store.count(at(7 + 1_800)), 0);
    }

    #[test]
    fn the_oldest_gives_way_and_nobody_takes_more_than_an_eighth() {
        let mut memory = [None; 16];
        let mut store = Store::new(&mut memory);
        for number in 0..20 {
            store.note(HASH, peer(number, 1), at(number.into()));
        }
        assert!(store.peers(&HASH, 0, at(20)).all(|known| known != peer(3, 1)));
        assert_eq!(store.peers(&HASH, 0, at(20)).count(), 16);
        for number in 2..100 {
            store.note(NodeId([number; 20]), peer(200, 1), at(30));
        }
        assert_eq!(store.peers(&HASH, 0, at(30)).count(), 14);
        let mut nothing = Store::new(&mut []);
        nothing.note(HASH, peer(1, 1), at(1));
        assert_eq!(nothing.peers(&HASH, 7, at(1)).count(), 0);
    }

    #[test]
    fn one_torrent_does_not_fill_the_store() {
        let mut memory = [None; 400];
        let mut store = Store::new(&mut memory);
        for number in 0..=255 {
            store.note(HASH, peer(number, 1), at(number.into()));
        }
        assert_eq!(store.count(at(255)), PER_TORRENT_MAX);
    }
}
