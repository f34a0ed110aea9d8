//! Whose turn it is to be served.
//!
//! A fixed number of peers is unchoked at a time. While slots are free, whoever is interested
//! gets one at once. When none is free and somebody waits, slots go round: a peer keeps its slot
//! for [`UNCHOKE_TERM_MS`], or until it has taken nothing for [`UNCHOKE_UNUSED_MS`], and then
//! goes to the end of the queue. So among any number of leechers everyone is served for the same
//! time, nobody can hold a slot by doing nothing, and while nobody waits no timer runs.
//!
//! BEP 3 leaves a seed's policy open; rate-based ones starve the slow, whom a seed is there for.

use super::roster::{Member, Roster};
use crate::engine::limits::{UNCHOKE_TERM_MS, UNCHOKE_UNUSED_MS};
use crate::engine::units::{Deadline, Instant, PeerSlot};

/// The policy; its state is in the roster.
pub struct Choker {
    unchoked_max: u16,
    deadline: Deadline,
}

impl Choker {
    /// A policy with so many slots.
    pub fn new(unchoked_max: u16) -> Choker {
        Choker { unchoked_max, deadline: Deadline::NONE }
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

    fn hand_out(&self, roster: &mut Roster<'_>, now: Instant) {
        while let Some(slot) = first(roster, |member| member.unchoked && !member.interested) {
            set(roster, slot, false, now);
        }
        while let Some(next) = longest_waiting(roster) {
            if unchoked(roster).count() >= self.unchoked_max.into() {
                let Some(over) = first(roster, |member| member.unchoked && end(member) <= now)
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
    roster.members().filter(|member| member.unchoked)
}

/// Of those who came at the same moment, the one that has been given least.
fn longest_waiting(roster: &Roster<'_>) -> Option<PeerSlot> {
    let waits =
        |member: &Member| member.interested && !member.unchoked && member.farewell.is_none();
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
            roster.admit(PeerSlot(slot), member, now).unwrap();
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
