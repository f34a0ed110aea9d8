//! Whose turn it is to be served.
//!
//! A fixed number of peers is unchoked at a time. While slots are free, whoever is interested
//! gets one at once. When none is free and somebody waits, slots go round: a peer keeps its slot
//! for [`UNCHOKE_TERM_MS`], or until it has taken nothing for [`UNCHOKE_UNUSED_MS`], and then
//! goes to the end of the queue. So among any number of leechers everyone is served for the same
//! time, nobody can hold a slot by doing nothing, and while nobody waits no timer runs.
//!
//! BEP 3 leaves a seed's policy open; rate-based ones starve the slow, whom a seed is there for.
//!
//! Of a torrent that we are fetching ourselves, [`RECIPROCAL_MAX`] peers are served at a time, and
//! while more than that want something it is those who give most: every [`RECIPROCAL_TERM_MS`] all
//! but one of the slots go to whoever sent the most blocks since the last time, and one to who has
//! waited for longest, so that newcomers can show what they have (BEP 3).

use super::roster::{Member, Roster};
use crate::engine::limits::{
    RECIPROCAL_MAX, RECIPROCAL_TERM_MS, UNCHOKE_TERM_MS, UNCHOKE_UNUSED_MS,
};
use crate::engine::units::{Deadline, Instant, PeerSlot};

/// The policy; its state is in the roster.
pub struct Choker {
    unchoked_max: u16,
    deadline: Deadline,
    /// When those who give were last ranked.
    ranked: Instant,
}

impl Choker {
    /// A policy with so many slots.
    pub fn new(unchoked_max: u16) -> Choker {
        Choker { unchoked_max, deadline: Deadline::NONE, ranked: Instant::default() }
    }

    /// Hands out free slots, and takes back those whose term is over while others wait.
    ///
    /// # Work
    /// One pass over the roster for each slot that changes hands, and one more.
    pub fn review(&mut self, roster: &mut Roster<'_>, now: Instant) {
        self.hand_out(roster, now);
        let terms = unchoked(roster).map(end).min();
        self.deadline = match longest_waiting(roster).and(terms) {
            Some(at) => Deadline { at, why: "upload slots go round" },
            None => Deadline::NONE,
        };
    }

    /// When to review again; [`Deadline::NONE`] while nobody waits. Terms that have grown longer
    /// since are seen then.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Hands out the slots of torrents that are being fetched; after [`Choker::review`].
    ///
    /// # Work
    /// One pass over the roster for each slot.
    pub fn rank(&mut self, roster: &mut Roster<'_>, now: Instant) {
        let most = usize::from(self.unchoked_max.min(RECIPROCAL_MAX));
        while let Some(slot) = first(roster, |m| m.reciprocal && m.unchoked && !m.interested) {
            set(roster, slot, false, now);
        }
        let wants =
            |member: &Member| member.reciprocal && member.interested && member.farewell.is_none();
        let crowded = roster.members().filter(|member| wants(member)).count() > most;
        let next = self.ranked.after(RECIPROCAL_TERM_MS);
        if crowded && now >= next {
            self.ranked = now;
            self.rank_anew(roster, most, now);
        }
        let served = |roster: &Roster<'_>| {
            roster.members().filter(|member| member.reciprocal && member.unchoked).count()
        };
        while served(roster) < most
            && let Some(slot) = first(roster, |member| wants(member) && !member.unchoked)
        {
            set(roster, slot, true, now);
        }
        if crowded {
            let at = self.ranked.after(RECIPROCAL_TERM_MS);
            self.deadline = self.deadline.or(Deadline { at, why: "who gives most is served" });
        }
    }

    fn rank_anew(&self, roster: &mut Roster<'_>, most: usize, now: Instant) {
        let waits = |m: &Member| m.reciprocal && m.interested && m.farewell.is_none();
        let hopeful = first(roster, |member| waits(member) && !member.unchoked);
        let mut kept = 0;
        // Those who gave something, the most generous first, stay or come in; they are marked by
        // what they gave being taken for counted.
        while kept + 1 < most {
            let giving = roster.slots().filter(|(_, member)| waits(member) && member.given > 0);
            let Some((slot, _)) = giving.max_by_key(|(_, member)| member.given) else { break };
            let Some(member) = roster.get_mut(slot) else { break };
            (member.given, member.kept) = (0, true);
            kept += 1;
        }
        for index in 0..roster.len() {
            let slot = PeerSlot(index as u16);
            let Some(member) = roster.get_mut(slot).filter(|member| member.reciprocal) else {
                continue;
            };
            let stays = core::mem::take(&mut member.kept) || Some(slot) == hopeful;
            member.given = 0;
            if member.unchoked != stays {
                set(roster, slot, stays, now);
            }
        }
    }

    fn hand_out(&self, roster: &mut Roster<'_>, now: Instant) {
        while let Some(slot) = first(roster, |m| !m.reciprocal && m.unchoked && !m.interested) {
            set(roster, slot, false, now);
        }
        while let Some(next) = longest_waiting(roster) {
            if unchoked(roster).count() >= self.unchoked_max.into() {
                let Some(over) = first(roster, |m| !m.reciprocal && m.unchoked && end(m) <= now)
                else {
                    return;
                };
                set(roster, over, false, now);
            }
            set(roster, next, true, now);
        }
    }
}

/// When a peer's turn is over, should others wait.
fn end(member: &Member) -> Instant {
    let unused = member.since.max(member.last_sent).after(UNCHOKE_UNUSED_MS);
    member.since.after(UNCHOKE_TERM_MS).min(unused)
}

fn unchoked<'r>(roster: &'r Roster<'_>) -> impl Iterator<Item = &'r Member> {
    roster.members().filter(|member| member.unchoked && !member.reciprocal)
}

/// Of those who came at the same moment, the one that has been given least.
fn longest_waiting(roster: &Roster<'_>) -> Option<PeerSlot> {
    let waits = |m: &Member| !m.reciprocal && m.interested && !m.unchoked && m.farewell.is_none();
    let waiting = roster.slots().filter(|(_, member)| waits(member));
    waiting.min_by_key(|(_, member)| (member.since, member.sent_bytes)).map(|(slot, _)| slot)
}

/// The one that has been in that state for longest.
fn first(roster: &Roster<'_>, state: impl Fn(&Member) -> bool) -> Option<PeerSlot> {
    let matching = roster.slots().filter(|(_, member)| state(member));
    matching.min_by_key(|(_, member)| member.since).map(|(slot, _)| slot)
}

fn set(roster: &mut Roster<'_>, slot: PeerSlot, unchoked: bool, now: Instant) {
    if let Some(member) = roster.get_mut(slot) {
        member.unchoked = unchoked;
        member.since = now;
        roster.nudge(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::super::SwarmLimits;
    use super::*;
    use crate::engine::units::{PeerId, TorrentSlot};
    use core::net::SocketAddr;
    use std::vec::Vec;

    /// Runs `test` on a roster of `count` peers, all interested from the start.
    fn with_roster(count: u16, test: impl FnOnce(&mut Roster<'_>)) {
        let mut members = std::vec![None; count.into()];
        let mut nudged = std::vec![PeerSlot(0); count.into()];
        let limits = SwarmLimits { peers_max: count, unchoked_max: 0, per_address_max: count };
        let mut roster = Roster::new(&mut members, &mut nudged, limits);
        for slot in 0..count {
            let address = SocketAddr::from(([10, 0, 0, 1], slot));
            let id = PeerId([slot as u8; 20]);
            let now = Instant::from_millis(slot.into());
            let mut member = Member::new(TorrentSlot(0), address, id, true, now);
            member.interested = true;
            roster.admit(PeerSlot(slot), member, PeerId::default(), now).unwrap();
        }
        test(&mut roster);
    }

    fn served(roster: &Roster<'_>) -> Vec<u16> {
        roster.slots().filter(|(_, m)| m.unchoked).map(|(slot, _)| slot.0).collect()
    }

    #[test]
    fn free_slots_are_given_at_once_and_nothing_ticks() {
        with_roster(3, |roster| {
            let mut choker = Choker::new(3);
            choker.review(roster, Instant::from_millis(10));
            assert_eq!(served(roster), [0, 1, 2]);
            assert_eq!(choker.deadline(), Deadline::NONE);
        });
    }

    #[test]
    fn slots_go_round_among_those_who_wait() {
        with_roster(5, |roster| {
            let mut choker = Choker::new(2);
            let mut turns = [0; 5];
            let mut now = Instant::from_millis(10);
            for _ in 0..50 {
                choker.review(roster, now);
                for slot in served(roster) {
                    turns[slot as usize] += 1;
                    let member = roster.get_mut(PeerSlot(slot)).unwrap();
                    member.last_sent = now.after(19_000);
                    member.sent_bytes += 1;
                }
                assert_eq!(served(roster).len(), 2);
                now = now.after(UNCHOKE_TERM_MS);
            }
            assert!(turns.iter().all(|turns| *turns == 20), "{turns:?}");
        });
    }

    #[test]
    fn while_fetching_those_who_give_are_served_and_one_who_hopes() {
        let count = RECIPROCAL_MAX + 10;
        with_roster(count, |roster| {
            let mut choker = Choker::new(count);
            (0..count).for_each(|slot| roster.get_mut(PeerSlot(slot)).unwrap().reciprocal = true);
            let (mut now, mut hopeful) = (Instant::from_millis(10), Vec::new());
            for _ in 0..12 {
                // The last few give, the others only take.
                for slot in count - 5..count {
                    roster.get_mut(PeerSlot(slot)).unwrap().given = slot;
                }
                choker.review(roster, now);
                choker.rank(roster, now);
                let served = served(roster);
                assert_eq!(served.len(), usize::from(RECIPROCAL_MAX));
                hopeful.extend(served.iter().filter(|slot| **slot < count - 5).copied());
                now = choker.deadline().at.max(now.after(1));
            }
            let served = served(roster);
            assert!((count - 5..count).all(|slot| served.contains(&slot)), "{served:?}");
            hopeful.sort_unstable();
            hopeful.dedup();
            assert_eq!(hopeful.len(), usize::from(count - 5), "everybody has a turn");
        });
    }

    #[test]
    fn who_takes_nothing_loses_its_turn_early() {
        with_roster(3, |roster| {
            let mut choker = Choker::new(2);
            choker.review(roster, Instant::from_millis(10));
            roster.get_mut(PeerSlot(1)).unwrap().last_sent = Instant::from_millis(4_000);
            let due = choker.deadline().at;
            assert_eq!(due, Instant::from_millis(10 + UNCHOKE_UNUSED_MS));
            choker.review(roster, due);
            assert_eq!(served(roster), [1, 2]);
        });
    }
}
