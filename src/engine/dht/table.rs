//! The routing table: nodes worth knowing, eight for each distance from us.
//!
//! A node belongs to the bucket of as many bits as its name shares with ours, and a bucket is
//! nothing but the contacts of which that is true: the table is one flat slice, lent at start, and
//! is walked whole, which for the two hundred nodes of a network of ten million takes a
//! microsecond. Nothing is ever split, and when our own name changes (BEP 42) nothing has to move.
//!
//! ```text
//! shared bits   0         1         2     ...   20        21     22 ...
//! contacts   [8 of half][8 of a 4th][8 ..]     [8 of 2^-21][5]   [2]    all there are near us
//! ```
//!
//! A contact has answered us once or is on trial. It is *good* while it was heard of within 15
//! minutes, then questionable, and bad after two silences in a row (BEP 5, *Routing Table*). How
//! often it is looked after follows from its age: who has been there for an hour will be there in
//! another (Kademlia, section 2.1). So an old table costs one question a bucket in 15 minutes,
//! which is BEP 5's refresh of that bucket too.
//!
//! Nobody gets more than one place by having many addresses of one crowd, nor more than two of a
//! bucket's eight in a wider circle.
//!
//! # When full
//! In a bucket a bad contact gives way, then one on trial, then one whose name does not suit its
//! address, then a questionable one that does not answer a question put to it for this. When the
//! whole slice is full, the fullest bucket gives a contact to one that has fewer.

use super::endpoint::Endpoint;
use super::id::NodeId;
use crate::engine::units::Instant;
use core::num::NonZeroU32;

/// A node that may be worth asking.
#[derive(Clone, Copy, Debug)]
pub struct Contact {
    /// Its name.
    pub id: NodeId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Second of the clock at which it came in.
    since_s: u32,
    /// When it last answered us; nothing while it is on trial.
    answered_s: Option<NonZeroU32>,
    /// When it last asked us something.
    asked_s: u32,
    /// When it is to be looked after.
    due_s: u32,
    /// Questions of ours in a row that it did not answer.
    misses: u8,
}

impl Contact {
    /// It has answered us, and since then whenever it was asked.
    pub fn is_reliable(&self) -> bool {
        self.answered_s.is_some() && self.misses == 0
    }

    /// It has answered us, at least once.
    pub fn has_answered(&self) -> bool {
        self.answered_s.is_some()
    }

    fn is_bad(&self) -> bool {
        self.misses >= BAD_MISSES
    }

    /// BEP 5's good: heard of within 15 minutes by one who has answered.
    fn is_good(&self, now_s: u32) -> bool {
        let heard_s = self.answered_s.map(|at| at.get().max(self.asked_s));
        self.misses == 0 && heard_s.is_some_and(|at| now_s.saturating_sub(at) <= FRESH_S)
    }

    fn is_compliant(&self) -> bool {
        self.endpoint.may_bear(&self.id)
    }
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the table, on trial or with a place.
    Admitted,
    /// It was there.
    Known,
    /// Its bucket is full, and this contact is questionable: if it does not answer, the newcomer
    /// has its place.
    Ask(Endpoint),
    /// There is no place for it.
    Refused,
}

/// All of them.
pub struct Table<'m> {
    contacts: &'m mut [Option<Contact>],
    own: NodeId,
}

impl<'m> Table<'m> {
    /// An empty table around `own` in the memory lent to it.
    pub fn new(contacts: &'m mut [Option<Contact>], own: NodeId) -> Table<'m> {
        contacts.fill(None);
        Table { contacts, own }
    }

    /// Our own name.
    pub fn own(&self) -> &NodeId {
        &self.own
    }

    /// We have another name from here on: every contact is in another bucket.
    pub fn rename(&mut self, own: NodeId) {
        self.own = own;
    }

    /// Every contact.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.iter().flatten()
    }

    /// The contact at that address.
    pub fn at(&self, endpoint: Endpoint) -> Option<&Contact> {
        self.contacts().find(|contact| contact.endpoint == endpoint)
    }

    /// The nodes closest to `target` that `pass`, nearest first.
    pub fn closest<const N: usize>(
        &self,
        target: &NodeId,
        pass: impl Fn(&Contact) -> bool,
    ) -> heapless::Vec<(NodeId, Endpoint), N> {
        let mut nearest = heapless::Vec::<(NodeId, Endpoint), N>::new();
        for contact in self.contacts().filter(|contact| pass(contact)) {
            let distance = contact.id.distance(target);
            let at = nearest.partition_point(|(id, _)| id.distance(target) <= distance);
            if nearest.is_full() && at < N {
                nearest.pop();
            }
            // Behind the last place of a full list there is none.
            let _ = nearest.insert(at, (contact.id, contact.endpoint));
        }
        nearest
    }

    /// A node answered us: whoever it is, it is good now.
    pub fn handle_answer(&mut self, id: NodeId, endpoint: Endpoint, now: Instant) -> Offer {
        let now_s = seconds(now);
        let members = self.members(&id);
        for place in self.contacts.iter_mut() {
            let Some(contact) = place.as_mut().filter(|known| known.endpoint == endpoint) else {
                continue;
            };
            if contact.id != id {
                // Another node is there now, or the same under another name.
                *place = None;
                continue;
            }
            contact.answered_s = NonZeroU32::new(now_s.max(1));
            contact.misses = 0;
            contact.due_s = now_s + rest_s(contact, now_s, members);
            return Offer::Known;
        }
        self.offer(id, endpoint, true, now)
    }

    /// A node asked us something or was named to us: it may come in on trial.
    pub fn handle_rumour(&mut self, id: NodeId, endpoint: Endpoint, now: Instant) -> Offer {
        self.offer(id, endpoint, false, now)
    }

    /// Somebody asked us something. A contact that now calls itself otherwise is looked after at
    /// once: its answer says who is there. Says whether that is so.
    pub fn handle_question(&mut self, id: &NodeId, endpoint: Endpoint, now: Instant) -> bool {
        let now_s = seconds(now);
        let mut all = self.contacts.iter_mut().flatten();
        let Some(contact) = all.find(|contact| contact.endpoint == endpoint) else { return false };
        if contact.id == *id {
            contact.asked_s = now_s;
            return false;
        }
        // Anybody can say so under its address: it is not asked more often than others are.
        let heard_s = contact.answered_s.map_or(0, NonZeroU32::get);
        let is_news = now_s >= heard_s + AGAIN_S;
        if is_news {
            contact.due_s = contact.due_s.min(now_s);
        }
        is_news
    }

    /// A contact did not answer. One on trial goes, one that has been silent often does too.
    pub fn handle_silence(&mut self, endpoint: Endpoint, now: Instant) {
        let same = |place: &&mut Option<Contact>| {
            place.as_ref().is_some_and(|contact| contact.endpoint == endpoint)
        };
        let Some(place) = self.contacts.iter_mut().find(same) else { return };
        let Some(contact) = place else { return };
        contact.misses = contact.misses.saturating_add(1);
        contact.due_s = seconds(now) + AGAIN_S;
        if contact.answered_s.is_none() || contact.misses >= MISSES_MAX {
            *place = None;
        }
    }

    /// Nobody can be reached, for reasons that are not theirs: all are looked after later, so that
    /// no more than a few questions a minute try the line.
    pub fn put_off(&mut self, now: Instant) {
        let again_s = seconds(now) + AGAIN_S;
        let all = self.contacts.iter_mut().flatten();
        all.for_each(|contact| contact.due_s = contact.due_s.max(again_s));
    }

    /// The contact that has waited longest to be looked after, if one is due. It is not due again
    /// for a minute.
    pub fn take_due(&mut self, now: Instant) -> Option<Contact> {
        let now_s = seconds(now);
        let due = self.contacts.iter_mut().flatten().filter(|contact| contact.due_s <= now_s);
        let contact = due.min_by_key(|contact| contact.due_s)?;
        contact.due_s = now_s + AGAIN_S;
        Some(*contact)
    }

    /// What to ask a contact for, so that its bucket is filled: a name in that bucket, made of
    /// `chance`, or ours where nobody is nearer to us. Nothing when the bucket is full.
    pub fn wish(&self, contact: &Contact, chance: [u8; 20]) -> Option<NodeId> {
        let bits = self.own.shared_bits(&contact.id);
        if self.members(&contact.id) >= BUCKET_MAX {
            return None;
        }
        let is_nearest = self.contacts().all(|other| self.own.shared_bits(&other.id) <= bits);
        Some(if is_nearest { self.own } else { self.own.sharing(bits, chance) })
    }

    /// When [`take_due`](Self::take_due) next has one.
    pub fn next_due(&self) -> Instant {
        let first = self.contacts().map(|contact| contact.due_s).min();
        first.map_or(Instant::NEVER, |at_s| Instant::from_millis(u64::from(at_s) * 1_000))
    }

    fn offer(&mut self, id: NodeId, endpoint: Endpoint, answered: bool, now: Instant) -> Offer {
        let now_s = seconds(now);
        let newcomer = Contact {
            id,
            endpoint,
            since_s: now_s,
            answered_s: NonZeroU32::new(now_s.max(1)).filter(|_| answered),
            asked_s: 0,
            due_s: if answered { now_s + FRESH_S } else { now_s },
            misses: 0,
        };
        match self.place_for(&newcomer, now_s) {
            Ok(place) => {
                self.contacts[place] = Some(newcomer);
                Offer::Admitted
            }
            Err(offer) => offer,
        }
    }

    /// Where a newcomer goes, or why it does not.
    fn place_for(&self, newcomer: &Contact, now_s: u32) -> Result<usize, Offer> {
        let bucket = self.own.shared_bits(&newcomer.id);
        let (crowd, circle) = (newcomer.endpoint.crowd(), newcomer.endpoint.circle());
        let (mut members, mut in_circle, mut weakest) = (0, 0, None);
        for (place, contact) in self.places() {
            if contact.id == newcomer.id || contact.endpoint == newcomer.endpoint {
                return Err(Offer::Known);
            }
            if contact.endpoint.crowd() == crowd {
                return Err(Offer::Refused);
            }
            if self.own.shared_bits(&contact.id) == bucket {
                members += 1;
                in_circle += usize::from(contact.endpoint.circle() == circle);
                let rank = weakness(contact, newcomer);
                let weaker = |best: &(_, u8, _)| (rank, best.2) > (best.1, contact.due_s);
                if weakest.as_ref().is_none_or(weaker) {
                    weakest = Some((place, rank, contact.due_s));
                }
            }
        }
        if bucket == 160 || in_circle >= CIRCLE_MAX {
            return Err(Offer::Refused);
        }
        if members < BUCKET_MAX {
            return self.free_place(members);
        }
        match weakest {
            Some((place, rank, _)) if rank > 0 => Ok(place),
            _ if newcomer.answered_s.is_some() => Err(self.questionable(bucket, now_s)),
            _ => Err(Offer::Refused),
        }
    }

    /// A place for a bucket that has `members`.
    fn free_place(&self, members: usize) -> Result<usize, Offer> {
        if let Some(free) = self.contacts.iter().position(Option::is_none) {
            return Ok(free);
        }
        let mut sizes = [0usize; 161];
        let bucket = |contact: &Contact| self.own.shared_bits(&contact.id) as usize;
        self.contacts().for_each(|contact| sizes[bucket(contact)] += 1);
        let rank = |contact: &Contact| {
            (contact.is_bad(), sizes[bucket(contact)], contact.answered_s.is_none())
        };
        let first = self.places().max_by_key(|(_, contact)| rank(contact));
        let first =
            first.filter(|(_, contact)| contact.is_bad() || sizes[bucket(contact)] > members + 1);
        first.map(|(place, _)| place).ok_or(Offer::Refused)
    }

    /// The contact of a full bucket that was not heard of for longest, if it is questionable.
    fn questionable(&self, bucket: u32, now_s: u32) -> Offer {
        let members = self.contacts().filter(|c| self.own.shared_bits(&c.id) == bucket);
        let stale = members.filter(|contact| !contact.is_good(now_s));
        let stalest = stale.min_by_key(|contact| contact.answered_s);
        stalest.map_or(Offer::Refused, |contact| Offer::Ask(contact.endpoint))
    }

    /// How many are in the bucket of `id`.
    fn members(&self, id: &NodeId) -> usize {
        let bucket = self.own.shared_bits(id);
        self.contacts().filter(|contact| self.own.shared_bits(&contact.id) == bucket).count()
    }

    fn places(&self) -> impl Iterator<Item = (usize, &Contact)> {
        let all = self.contacts.iter().enumerate();
        all.filter_map(|(place, contact)| Some((place, contact.as_ref()?)))
    }
}

/// How readily a contact gives way to a newcomer; 0 for not at all.
fn weakness(contact: &Contact, newcomer: &Contact) -> u8 {
    let answered = newcomer.answered_s.is_some();
    match contact {
        _ if contact.is_bad() => 3,
        _ if answered && contact.answered_s.is_none() => 2,
        _ if answered && newcomer.is_compliant() && !contact.is_compliant() => 1,
        _ => 0,
    }
}

/// How long a contact that has just answered is left alone: as long as it has been known, and
/// never longer than lets its bucket be heard of every 15 minutes. Less up to a quarter, by its
/// name, so that those who came together are not due together.
fn rest_s(contact: &Contact, now_s: u32, members: usize) -> u32 {
    let age_s = now_s.saturating_sub(contact.since_s);
    let rest_s = age_s.clamp(FRESH_S, FRESH_S * members.clamp(1, BUCKET_MAX) as u32);
    rest_s - rest_s / 4 * u32::from(contact.id.0[19]) / 256
}

/// Seconds of the clock; they last for 136 years.
fn seconds(now: Instant) -> u32 {
    (now.as_millis() / 1_000) as u32
}

/// Contacts in a bucket (BEP 5: K).
pub const BUCKET_MAX: usize = 8;

/// How long a contact is good without being heard of (BEP 5: 15 minutes).
const FRESH_S: u32 = 900;

/// After a question that is not answered, the next.
const AGAIN_S: u32 = 60;

/// Silences in a row after which a contact is bad (BEP 5: "multiple").
const BAD_MISSES: u8 = 2;

/// Silences in a row after which it is forgotten although nobody wants its place.
const MISSES_MAX: u8 = 4;

/// Contacts of one circle in a bucket.
const CIRCLE_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId([0; 20]);

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    /// A node that shares so many bits with us, at an address of its own circle.
    fn node(bits: u32, number: u8) -> (NodeId, Endpoint) {
        let ip = [20 + number, bits as u8, number, 1];
        (OWN.sharing(bits, [number; 20]), Endpoint::of((ip, 6_881).into()))
    }

    fn fill(table: &mut Table<'_>, bits: u32, count: u8, now: Instant) {
        for number in 0..count {
            let (id, endpoint) = node(bits, number);
            assert_eq!(table.handle_answer(id, endpoint, now), Offer::Admitted);
        }
    }

    #[test]
    fn a_full_bucket_of_good_contacts_takes_nobody_and_a_questionable_one_is_asked_first() {
        let mut memory = [None; 32];
        let mut table = Table::new(&mut memory, OWN);
        fill(&mut table, 3, 8, at(1_000));
        let (id, endpoint) = node(3, 9);
        assert_eq!(table.handle_answer(id, endpoint, at(1_800)), Offer::Refused);
        (1..8).for_each(|number| {
            let (id, endpoint) = node(3, number);
            assert_eq!(table.handle_answer(id, endpoint, at(1_800)), Offer::Known);
        });
        // Only the one that was not heard of for 15 minutes is in question.
        let stale = node(3, 0).1;
        assert_eq!(table.handle_answer(id, endpoint, at(1_901)), Offer::Ask(stale));
        assert_eq!(table.handle_rumour(id, endpoint, at(1_901)), Offer::Refused);
        // It asked us something: that counts too.
        table.handle_question(&node(3, 0).0, stale, at(1_902));
        assert_eq!(table.handle_answer(id, endpoint, at(1_902)), Offer::Refused);
        // Two silences make it bad, and a newcomer has its place.
        (0..2).for_each(|_| table.handle_silence(stale, at(1_903)));
        assert_eq!(table.handle_answer(id, endpoint, at(1_904)), Offer::Admitted);
        assert!(table.at(stale).is_none() && table.contacts().count() == 8);
    }

    #[test]
    fn who_is_on_trial_gives_way_to_who_has_answered_and_goes_with_its_first_silence() {
        let mut memory = [None; 32];
        let mut table = Table::new(&mut memory, OWN);
        for number in 0..8 {
            let (id, endpoint) = node(2, number);
            assert_eq!(table.handle_rumour(id, endpoint, at(5)), Offer::Admitted);
        }
        let (id, endpoint) = node(2, 8);
        assert_eq!(table.handle_rumour(id, endpoint, at(5)), Offer::Refused);
        assert_eq!(table.handle_answer(id, endpoint, at(5)), Offer::Admitted);
        let first = table.take_due(at(5)).unwrap();
        table.handle_silence(first.endpoint, at(9));
        assert_eq!((table.at(first.endpoint).map(|_| ()), table.contacts().count()), (None, 7));
    }

    #[test]
    fn a_node_under_another_name_is_another_node() {
        let mut memory = [None; 8];
        let mut table = Table::new(&mut memory, OWN);
        let (id, endpoint) = node(1, 1);
        table.handle_answer(id, endpoint, at(5));
        let other = OWN.sharing(7, [3; 20]);
        assert!(!table.handle_question(&other, endpoint, at(6)), "it has just answered");
        assert!(table.handle_question(&other, endpoint, at(70)));
        assert_eq!(table.take_due(at(70)).map(|contact| contact.endpoint), Some(endpoint));
        assert_eq!(table.handle_answer(other, endpoint, at(71)), Offer::Admitted);
        assert_eq!(table.contacts().map(|contact| contact.id).next(), Some(other));
    }

    #[test]
    fn nobody_has_two_places_and_no_circle_more_than_two_of_a_bucket() {
        let mut memory = [None; 32];
        let mut table = Table::new(&mut memory, OWN);
        let place = |last: u8| Endpoint::of(([20, 1, 1, last], 1).into());
        let mut offer = |bits, number: u8, last| {
            table.handle_answer(OWN.sharing(bits, [number; 20]), place(last), at(5))
        };
        assert_eq!(offer(1, 1, 1), Offer::Admitted);
        assert_eq!(offer(5, 2, 1), Offer::Admitted, "the same address under another name");
        assert_eq!(offer(5, 3, 2), Offer::Admitted);
        assert_eq!(offer(5, 4, 3), Offer::Refused);
        assert_eq!(offer(6, 4, 3), Offer::Admitted);
    }

    #[test]
    fn a_small_table_is_shared_by_all_distances() {
        let mut memory = [None; 16];
        let mut table = Table::new(&mut memory, OWN);
        fill(&mut table, 0, 8, at(5));
        fill(&mut table, 1, 8, at(5));
        fill(&mut table, 2, 5, at(6));
        let count =
            |bits| table.contacts().filter(|contact| OWN.shared_bits(&contact.id) == bits).count();
        assert_eq!([count(0), count(1), count(2)].iter().sum::<usize>(), 16);
        assert!(count(0) >= 5 && count(1) >= 5 && count(2) == 5);
    }

    #[test]
    fn the_old_are_looked_after_less_often_and_each_bucket_every_15_minutes() {
        let mut memory = [None; 8];
        let mut table = Table::new(&mut memory, OWN);
        fill(&mut table, 4, 8, at(1_000));
        let (mut now, mut asked) = (1_000, 0);
        // A day, in which everybody answers.
        while now < 1_000 + 86_400 {
            now = table.next_due().as_millis() / 1_000;
            let contact = table.take_due(at(now)).unwrap();
            table.handle_answer(contact.id, contact.endpoint, at(now));
            asked += u32::from(now > 1_000 + 43_200);
        }
        let twelve_hours = 12 * 4;
        assert!((twelve_hours..twelve_hours * 2).contains(&asked), "{asked}");
    }
}
