//! Addresses known but not connected: whom to dial, and when again.
//!
//! A seed dials too: a peer behind a router that forwards nothing can be reached no other way.
//! The table has a fixed length; a new address takes the place of the least useful one.

use super::super::announce::can_be_dialled;
use super::super::units::{Deadline, Instant, TorrentSlot};
use core::net::{IpAddr, SocketAddr};

/// An address where a peer for `torrent` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub address: SocketAddr,
    /// What for.
    pub torrent: TorrentSlot,
    /// Not to be dialled before.
    pub after: Instant,
    /// How often in a row nobody answered.
    pub misses: u8,
    /// Named by the user: never forgotten, and gives way to nobody.
    pub named: bool,
}

/// All of them.
pub struct Candidates<'m> {
    table: &'m mut [Option<Candidate>],
    next_dial: Instant,
    /// Somebody may be dialled sooner than [`Candidates::deadline`] said last.
    sooner: bool,
}

impl<'m> Candidates<'m> {
    /// An empty table in the memory lent to it.
    pub fn new(table: &'m mut [Option<Candidate>]) -> Candidates<'m> {
        Candidates { table, next_dial: Instant::default(), sooner: false }
    }

    /// Takes note of an address; `true` when it was not known. One that cannot be dialled is
    /// passed over.
    ///
    /// # When full
    /// The address that missed most often gives way, then the one to be dialled last.
    pub fn note(&mut self, torrent: TorrentSlot, address: SocketAddr, now: Instant) -> bool {
        self.add(torrent, address, now, false)
    }

    /// Takes note of an address the user named: it is kept however often nobody answers there.
    /// `true` when it was not known.
    pub fn note_named(&mut self, torrent: TorrentSlot, address: SocketAddr, now: Instant) -> bool {
        self.add(torrent, address, now, true)
    }

    fn add(
        &mut self,
        torrent: TorrentSlot,
        address: SocketAddr,
        now: Instant,
        named: bool,
    ) -> bool {
        let address = match address.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
            // As it is: a link-local address is nothing without its interface.
            IpAddr::V6(_) => address,
        };
        if !can_be_dialled(&address) || self.known(torrent, address) {
            return false;
        }
        let may_give_way = |place: &&mut Option<Candidate>| place.is_none_or(|known| !known.named);
        let place = self.table.iter_mut().filter(may_give_way).min_by_key(|place| {
            place.as_ref().map_or((0, 0, 0), |known| {
                (1, u64::from(u8::MAX - known.misses), u64::MAX - known.after.as_millis())
            })
        });
        let Some(place) = place else { return false };
        self.sooner = true;
        *place = Some(Candidate { address, torrent, after: now, misses: 0, named });
        true
    }

    /// The next address to dial, which is then put off as if it had ended at once.
    pub fn take_due(&mut self, now: Instant) -> Option<Candidate> {
        if now < self.next_dial {
            return None;
        }
        let due = self.table.iter_mut().flatten().filter(|known| known.after <= now);
        let first = due.min_by_key(|known| (known.after, known.misses))?;
        let candidate = *first;
        first.after = now.after(AGAIN_MS);
        // What was not used of late may be made up for at once.
        let earliest = Instant::from_millis(now.as_millis().saturating_sub(DIALS_AT_ONCE_MS));
        self.next_dial = self.next_dial.max(earliest).after(BETWEEN_DIALS_MS);
        Some(candidate)
    }

    /// When the next address is to be dialled.
    pub fn deadline(&self) -> Deadline {
        let first = self.table.iter().flatten().map(|known| known.after).min();
        match first {
            None => Deadline::NONE,
            Some(at) => Deadline { at: at.max(self.next_dial), why: "a peer to dial" },
        }
    }

    /// Whether [`Candidates::deadline`] may have come nearer since this was last asked.
    pub fn take_sooner(&mut self) -> bool {
        core::mem::take(&mut self.sooner)
    }

    /// Takes note of somebody who has just spoken on the LAN; `true` when it was not known. Known,
    /// it is dialled within seconds all the same: what it says now counts more than what was.
    pub fn hear(&mut self, torrent: TorrentSlot, address: SocketAddr, now: Instant) -> bool {
        if self.note(torrent, address, now) {
            return true;
        }
        let soon = now.after(SOON_MS);
        let same = |known: &&mut Candidate| known.torrent == torrent && known.address == address;
        if let Some(known) = self.table.iter_mut().flatten().find(same) {
            known.after = known.after.min(soon);
            self.sooner = true;
        }
        false
    }

    /// Puts an address off, for one torrent or for all; after too many misses in a row it is
    /// forgotten, unless the user named it.
    pub fn put_off(
        &mut self,
        torrent: Option<TorrentSlot>,
        address: SocketAddr,
        now: Instant,
        wait_ms: u64,
        missed: bool,
    ) {
        let same = |known: &Candidate| {
            known.address == address && torrent.is_none_or(|torrent| known.torrent == torrent)
        };
        for place in self.table.iter_mut().filter(|place| place.as_ref().is_some_and(same)) {
            let Some(known) = place else { continue };
            self.sooner = true;
            known.misses = if missed { known.misses.saturating_add(1) } else { 0 };
            known.after = now.after(wait_ms << known.misses.min(6));
            if known.misses >= MISSES_MAX {
                match known.named {
                    true => known.misses = MISSES_MAX - 1,
                    false => *place = None,
                }
            }
        }
    }

    /// Forgets who was known for a torrent.
    pub fn forget(&mut self, torrent: TorrentSlot) {
        let of = |place: &&mut Option<Candidate>| place.is_some_and(|one| one.torrent == torrent);
        self.table.iter_mut().filter(of).for_each(|place| *place = None);
    }

    /// How many addresses are known for a torrent.
    pub fn count_of(&self, torrent: TorrentSlot) -> usize {
        self.table.iter().flatten().filter(|known| known.torrent == torrent).count()
    }

    /// A connection to somebody who may have what we lack has ended: it is dialled again soon, and
    /// later each time in a row that it was brief.
    pub fn ended(&mut self, torrent: TorrentSlot, address: SocketAddr, now: Instant) {
        let same = |known: &&mut Candidate| known.torrent == torrent && known.address == address;
        let Some(known) = self.table.iter_mut().flatten().find(same) else { return };
        if known.after > now.after(AGAIN_MS) {
            // It has been put off for a reason meanwhile.
            return;
        }
        // As `take_due` has left it.
        let dialled_ms = known.after.as_millis().saturating_sub(AGAIN_MS);
        let brief = now.as_millis() < dialled_ms + BRIEF_MS;
        known.misses = if brief { (known.misses + 1).min(MISSES_MAX - 1) } else { 0 };
        known.after = now.after(HUNGRY_MS << (2 * known.misses.saturating_sub(1)));
        self.sooner = true;
    }

    /// How many addresses are known.
    pub fn count(&self) -> usize {
        self.table.iter().flatten().count()
    }

    fn known(&self, torrent: TorrentSlot, address: SocketAddr) -> bool {
        let same = |known: &Candidate| known.torrent == torrent && known.address == address;
        self.table.iter().flatten().any(same)
    }
}

/// Between two dials: a tracker's list of 200 addresses is gone through in half a minute.
const BETWEEN_DIALS_MS: u64 = 150;

/// After a pause up to sixteen are dialled at once: a swarm of friends is together in no time.
const DIALS_AT_ONCE_MS: u64 = 15 * BETWEEN_DIALS_MS;

/// After somebody known has spoken on the LAN.
const SOON_MS: u64 = 2_000;

/// After nobody answered; doubled for each miss in a row.
pub const RETRY_MS: u64 = 60_000;

/// After a connection that ended as connections do.
pub const AGAIN_MS: u64 = 120_000;

/// After a connection that ended while we lacked something; four times that after a second one in
/// a row that was brief, sixteen times after a third.
pub const HUNGRY_MS: u64 = 5_000;

/// A connection that lasted no longer was brief.
const BRIEF_MS: u64 = 60_000;

/// After it turned out to have everything.
pub const COMPLETE_MS: u64 = 3_600_000;

/// After it broke the protocol.
pub const SHUN_MS: u64 = 3_600_000;

/// After so many misses in a row an address is forgotten.
const MISSES_MAX: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6881))
    }

    #[test]
    fn each_address_is_dialled_once_and_then_put_off() {
        let mut table = [None; 3];
        let mut candidates = Candidates::new(&mut table);
        let now = Instant::from_millis(0);
        for last in [1, 2, 1, 0] {
            candidates.note(TorrentSlot(0), address(last), now);
        }
        candidates.note(TorrentSlot(0), SocketAddr::from(([0; 4], 1)), now);
        candidates.note(TorrentSlot(0), SocketAddr::from(([10, 0, 0, 1], 0)), now);
        assert_eq!(candidates.count(), 3);
        let mut now = Instant::from_millis(1_000_000);
        for last in [1, 2, 0] {
            assert_eq!(candidates.take_due(now).map(|c| c.address), Some(address(last)));
        }
        assert_eq!(candidates.take_due(now), None);
        assert_eq!(candidates.deadline().at, now.after(AGAIN_MS));
        now = now.after(AGAIN_MS);
        assert_eq!(candidates.take_due(now).map(|c| c.address), Some(address(1)));
    }

    #[test]
    fn after_a_few_at_once_one_is_dialled_at_a_time() {
        let mut table = [None; 40];
        let mut candidates = Candidates::new(&mut table);
        let now = Instant::from_millis(1_000_000);
        (0..40).for_each(|last| {
            candidates.note(TorrentSlot(0), address(last), now);
        });
        assert_eq!(std::iter::from_fn(|| candidates.take_due(now)).count(), 16);
        let next = candidates.deadline().at;
        assert_eq!(next, now.after(BETWEEN_DIALS_MS));
        assert!(candidates.take_due(next).is_some() && candidates.take_due(next).is_none());
    }

    #[test]
    fn somebody_of_use_who_hangs_up_is_dialled_again_soon_and_later_each_time() {
        let mut table = [None; 1];
        let mut candidates = Candidates::new(&mut table);
        let mut now = Instant::from_millis(0);
        candidates.note(TorrentSlot(0), address(1), now);
        for wait_s in [5, 20, 80, 80] {
            assert!(candidates.take_due(now).is_some());
            candidates.ended(TorrentSlot(0), address(1), now.after(1_000));
            assert_eq!(candidates.deadline().at, now.after(1_000 + wait_s * 1_000));
            now = candidates.deadline().at;
        }
        // It stayed for long.
        assert!(candidates.take_due(now).is_some());
        candidates.ended(TorrentSlot(0), address(1), now.after(BRIEF_MS));
        assert_eq!(candidates.deadline().at, now.after(BRIEF_MS + HUNGRY_MS));
    }

    #[test]
    fn what_the_user_named_is_dialled_for_ever() {
        let mut table = [None; 1];
        let mut candidates = Candidates::new(&mut table);
        let mut now = Instant::from_millis(0);
        assert!(candidates.note_named(TorrentSlot(0), address(1), now));
        for _ in 0..3 * MISSES_MAX {
            now = candidates.deadline().at;
            assert_eq!(candidates.take_due(now).map(|c| c.address), Some(address(1)));
            candidates.put_off(None, address(1), now, RETRY_MS, true);
            candidates.note(TorrentSlot(0), address(2), now);
            assert!(candidates.deadline().at <= now.after(RETRY_MS << MISSES_MAX));
        }
        assert!(candidates.known(TorrentSlot(0), address(1)));
    }

    #[test]
    fn the_least_useful_address_gives_way() {
        let mut table = [None; 2];
        let mut candidates = Candidates::new(&mut table);
        let now = Instant::from_millis(5);
        candidates.note(TorrentSlot(0), address(1), now);
        candidates.note(TorrentSlot(0), address(2), now);
        candidates.put_off(None, address(2), now, RETRY_MS, true);
        candidates.note(TorrentSlot(0), address(3), now);
        assert!(candidates.known(TorrentSlot(0), address(1)));
        assert!(!candidates.known(TorrentSlot(0), address(2)));
        (0..MISSES_MAX).for_each(|_| candidates.put_off(None, address(1), now, RETRY_MS, true));
        assert_eq!(candidates.count(), 1);
    }
}
