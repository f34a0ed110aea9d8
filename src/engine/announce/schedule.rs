//! Which tracker of a torrent is due when, and what it is to be told (BEP 12).
//!
//! Trackers stand in tiers. An announce goes to the first tracker of the first tier; when that one
//! fails, to the next at once, and so on through all tiers; the first that answers moves to the
//! front of its tier, and its interval says when the next announce is due. Within a tier the order
//! is shuffled, so that a swarm spreads over equals.
//!
//! ```text
//! tier 0: b a c   tier 1: d        b silent -> a answers:   a b c | d, next in a's interval
//!                                  all silent             : each rests 1, 2, 4 .. 60 minutes
//! ```
//!
//! A tracker that failed rests, longer each time and never twice alike, or as long as it asked for
//! (BEP 31); others are asked meanwhile. What each is owed is kept with it: `started` before
//! anything else, `completed` once, `stopped` at the end to those who know of us.
//!
//! A [`Schedule`] holds places in the metainfo's list and no URLs: who carries the announce reads
//! the URL from the metainfo file when it is due. It keeps no timer either: its
//! [`deadline`](Schedule::deadline) says when to ask again. All of it is 168 bytes at most, copied
//! as it stands.
//!
//! Journey 2 and 3: `service/tracker` carries what [`next`](Schedule::next) hands out and brings
//! the outcome back.

use super::{Answer, Event, INTERVAL_MAX_MS, INTERVAL_MIN_MS, Retry};
use crate::engine::units::{Deadline, Instant};

/// When and where to announce one torrent.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// In the order of trying. Only the first `count` mean something.
    places: [Place; TRACKERS_MAX],
    count: u8,
    /// Only goodbyes are left to say.
    stopping: bool,
    /// The announce that was handed out and not yet reported.
    under_way: Option<Due>,
    /// No announce is due before, but for goodbyes.
    round_at: Instant,
    /// How far a wish for peers may bring that forward.
    earliest_at: Instant,
    /// State of the generator behind the shuffle and the jitter.
    random: u32,
}

/// An announce to be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The tracker's place in the metainfo's list, all tiers in a row, from 0.
    pub tracker: u8,
    /// What to tell it.
    pub event: Event,
}

/// One tracker and where we stand with it.
#[derive(Clone, Copy, Debug)]
struct Place {
    tracker: u8,
    tier: u8,
    /// Failures in a row.
    failures: u8,
    /// What it is to be told next. [`Event::Started`]: it does not know of us.
    owed: Event,
    /// Not asked before this second of the clock; [`BARRED`] for never.
    rests_until_s: u32,
}

impl Schedule {
    /// A schedule whose first announce is due at once.
    ///
    /// `tiers` gives the tier of each tracker in the metainfo's order: a run of equal numbers is a
    /// tier. `seed` is random; the same one gives the same order and the same rests.
    ///
    /// # When full
    /// Trackers beyond [`TRACKERS_MAX`] are left out: the first few reach everybody.
    pub fn new(tiers: impl IntoIterator<Item = u8>, seed: u32, now: Instant) -> Schedule {
        let mut schedule = Schedule {
            places: [Place::new(0, 0); TRACKERS_MAX],
            count: 0,
            stopping: false,
            under_way: None,
            round_at: now,
            earliest_at: now,
            random: seed,
        };
        for (tier, place) in tiers.into_iter().zip(&mut schedule.places) {
            *place = Place::new(schedule.count, tier);
            schedule.count += 1;
        }
        schedule.shuffle();
        schedule
    }

    /// The announce to make now, if one is due. Each is answered with
    /// [`handle_answer`](Self::handle_answer) or [`handle_failure`](Self::handle_failure), also
    /// when it was dropped half-way: until then no other is due.
    pub fn next(&mut self, now: Instant) -> Option<Due> {
        if self.under_way.is_some() {
            return None;
        }
        // In the order of trying, not of waiting: whoever has rested and stands in front is first.
        let place = self.trackers().find(|place| self.due_at(place) <= now)?;
        self.under_way = Some(Due { tracker: place.tracker, event: place.owed });
        self.under_way
    }

    /// When [`next`](Self::next) has something; never, while an announce is under way.
    pub fn deadline(&self) -> Deadline {
        let at = self.trackers().map(|place| self.due_at(place)).min();
        match at {
            Some(at) if self.under_way.is_none() && at < Instant::NEVER => {
                Deadline { at, why: "tracker announce" }
            }
            _ => Deadline::NONE,
        }
    }

    /// The tracker answered. Ignored when nothing of the kind is under way.
    pub fn handle_answer(&mut self, due: Due, answer: &Answer, now: Instant) {
        let Some(at) = self.close(due) else { return };
        let place = &mut self.places[at];
        place.failures = 0;
        place.rests_until_s = 0;
        if place.owed == due.event {
            place.owed = after(due.event);
        }
        // What came up while this one was under way does not wait for the interval.
        let wait_ms = if place.owed == Event::None { answer.interval_ms } else { 0 };
        self.round_at = now.after(wait_ms);
        self.earliest_at = now.after(answer.min_interval_ms);
        self.promote(at);
    }

    /// The tracker did not answer, or refused. Ignored when nothing of the kind is under way.
    pub fn handle_failure(&mut self, due: Due, retry: Retry, now: Instant) {
        let Some(at) = self.close(due) else { return };
        let jitter = next_random(&mut self.random);
        let place = &mut self.places[at];
        place.failures = place.failures.saturating_add(1);
        // It may have lost its memory along with its voice: it is greeted anew.
        if place.owed != Event::Completed {
            place.owed = Event::Started;
        }
        let rest_ms = match retry {
            Retry::Unsaid => rest_ms(place.failures, jitter),
            Retry::After(ms) => ms.clamp(INTERVAL_MIN_MS, INTERVAL_MAX_MS),
            Retry::Never => u64::MAX,
        };
        place.rest_until(now.after(rest_ms));
    }

    /// The last piece is verified: the next announce is due at once, and each tracker that knows of
    /// us hears of it when its turn comes. Not for a torrent that was whole at the start (BEP 3).
    pub fn complete(&mut self, now: Instant) {
        let under_way = self.under_way;
        for place in self.trackers_mut() {
            if place.owed == Event::None || place.is_asked(under_way) {
                place.owed = Event::Completed;
            }
        }
        self.round_at = self.round_at.min(now);
    }

    /// The torrent has too few peers: the next announce is due as soon as the last tracker allows.
    pub fn want_peers(&mut self, now: Instant) {
        self.round_at = self.round_at.min(self.earliest_at.max(now));
    }

    /// We leave. What is under way is forgotten, and who may have heard of us is told, each once,
    /// one after the other, without regard to intervals; then nothing is due any more.
    pub fn stop(&mut self) {
        self.stopping = true;
        let under_way = self.under_way.take();
        for place in self.trackers_mut() {
            let knows = place.owed != Event::Started || place.is_asked(under_way);
            place.owed = if knows { Event::Stopped } else { Event::Started };
        }
    }

    /// Nothing is under way and nothing will ever be due.
    pub fn is_over(&self) -> bool {
        self.under_way.is_none() && self.deadline() == Deadline::NONE
    }

    fn trackers(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().take(usize::from(self.count))
    }

    fn trackers_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.places.iter_mut().take(usize::from(self.count))
    }

    fn due_at(&self, place: &Place) -> Instant {
        match (self.stopping, place.owed) {
            (true, Event::Stopped) => Instant::default(),
            (true, _) => Instant::NEVER,
            (false, _) => self.round_at.max(place.rested_at()),
        }
    }

    /// Ends what is under way when it is `due`, and gives the place of its tracker.
    fn close(&mut self, due: Due) -> Option<usize> {
        if self.under_way != Some(due) {
            return None;
        }
        self.under_way = None;
        self.trackers().position(|place| place.tracker == due.tracker)
    }

    /// Moves the place at `at` to the front of its tier (BEP 12).
    fn promote(&mut self, at: usize) {
        let tier = self.places[at].tier;
        let front = self.trackers().position(|place| place.tier == tier).unwrap_or(at);
        self.places[front..=at].rotate_right(1);
    }

    /// Shuffles each run of equal tiers (Fisher and Yates).
    fn shuffle(&mut self) {
        let places = &mut self.places[..usize::from(self.count)];
        for tier in places.chunk_by_mut(|a, b| a.tier == b.tier) {
            for last in (1..tier.len()).rev() {
                tier.swap(last, next_random(&mut self.random) as usize % (last + 1));
            }
        }
    }
}

impl Place {
    const fn new(tracker: u8, tier: u8) -> Place {
        Place { tracker, tier, failures: 0, owed: Event::Started, rests_until_s: 0 }
    }

    /// Whether the announce under way is with this tracker: it may have heard us already.
    fn is_asked(&self, under_way: Option<Due>) -> bool {
        under_way.is_some_and(|due| due.tracker == self.tracker)
    }

    fn rested_at(&self) -> Instant {
        match self.rests_until_s {
            BARRED => Instant::NEVER,
            seconds => Instant::from_millis(u64::from(seconds) * 1_000),
        }
    }

    fn rest_until(&mut self, at: Instant) {
        self.rests_until_s = u32::try_from(at.as_millis().div_ceil(1_000)).unwrap_or(BARRED);
    }
}

/// What a tracker is owed once it took `event`.
fn after(event: Event) -> Event {
    match event {
        Event::None | Event::Started | Event::Completed => Event::None,
        // Who took our goodbye does not know of us.
        Event::Stopped => Event::Started,
    }
}

/// How long a tracker rests after so many failures in a row: doubled each time, and up to half as
/// much again, so that a swarm that lost its tracker together does not return together.
fn rest_ms(failures: u8, random: u32) -> u64 {
    let doublings = u32::from(failures.saturating_sub(1)).min(16);
    let rest_ms = (REST_MS << doublings).min(REST_MAX_MS);
    rest_ms + u64::from(random) % (rest_ms / 2)
}

/// The next number of the sequence at `state`: a counter in steps of the golden ratio, scattered by
/// the finalizer of MurmurHash3, so that neighbouring seeds have no order in common.
const fn next_random(state: &mut u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9);
    let mixed = (*state ^ *state >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

/// Trackers of one torrent at most. Torrents in the field name 1 to 30, and the first few answer.
pub const TRACKERS_MAX: usize = 16;

/// The first rest of a tracker that failed.
const REST_MS: u64 = 60_000;

/// The longest rest of our own making: a tracker that returns after a week is found in the hour.
const REST_MAX_MS: u64 = 3_600_000;

/// A rest that does not end while we run: 136 years of seconds.
const BARRED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 20_080_207;

    fn at_s(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn answer() -> Answer {
        Answer { interval_ms: 1_800_000, min_interval_ms: 300_000, ..Answer::default() }
    }

    fn schedule(tiers: &[u8]) -> Schedule {
        Schedule::new(tiers.iter().copied(), SEED, at_s(0))
    }

    fn due(schedule: &mut Schedule, now: Instant) -> (u8, Event) {
        let due = schedule.next(now).expect("an announce is due");
        (due.tracker, due.event)
    }

    /// Asks all that are due at `now`: those in `dead` fail, until another answers.
    fn round(schedule: &mut Schedule, dead: &[u8], now: Instant) -> heapless::Vec<u8, 16> {
        let mut asked = heapless::Vec::new();
        while let Some(due) = schedule.next(now) {
            asked.push(due.tracker).unwrap();
            if dead.contains(&due.tracker) {
                schedule.handle_failure(due, Retry::Unsaid, now);
            } else {
                schedule.handle_answer(due, &answer(), now);
            }
        }
        asked
    }

    #[test]
    fn tiers_are_tried_in_order_and_shuffled_within() {
        let mut orders = heapless::Vec::<_, 64>::new();
        for seed in 0..64 {
            let mut schedule = Schedule::new([0, 0, 0, 7, 7], seed, at_s(0));
            let asked = round(&mut schedule, &[0, 1, 2, 3, 4], at_s(0));
            assert_eq!(asked.len(), 5, "seed {seed}");
            assert!(asked[..3].iter().all(|tracker| *tracker < 3), "seed {seed}: {asked:?}");
            if !orders.contains(&asked) {
                orders.push(asked).unwrap();
            }
        }
        assert_eq!(orders.len(), 3 * 2 * 2, "every order of both tiers is drawn");
    }

    #[test]
    fn who_answers_moves_to_the_front_of_its_tier_only() {
        let mut schedule = schedule(&[0, 1, 1, 1]);
        let asked = round(&mut schedule, &[0], at_s(0));
        let first = asked[1];
        let rest: heapless::Vec<u8, 4> = (1..4).filter(|tracker| *tracker != first).collect();
        let asked = round(&mut schedule, &[0, first, rest[0]], at_s(1_800));
        assert_eq!((asked[0], asked.last()), (0, Some(&rest[1])));
        // A day later all have rested: tier 0 first, then the one that answered last.
        let mut later = schedule;
        assert_eq!(round(&mut later, &[0], at_s(86_400))[..], [0, rest[1]]);
        assert_eq!(round(&mut schedule, &[], at_s(86_400))[..], [0]);
    }

    #[test]
    fn the_interval_is_kept_and_a_wish_for_peers_keeps_the_lesser_one() {
        let mut schedule = schedule(&[0]);
        assert_eq!(schedule.deadline().at, at_s(0));
        assert_eq!(round(&mut schedule, &[], at_s(0))[..], [0]);
        assert_eq!(schedule.deadline(), Deadline { at: at_s(1_800), why: "tracker announce" });
        assert_eq!(schedule.next(at_s(1_799)), None);
        schedule.want_peers(at_s(10));
        assert_eq!(schedule.deadline().at, at_s(300));
        assert_eq!(due(&mut schedule, at_s(300)), (0, Event::None));
        assert_eq!(schedule.deadline(), Deadline::NONE, "it is under way");
        assert_eq!(schedule.next(at_s(9_999)), None, "it is still under way");
    }

    #[test]
    fn rests_grow_to_an_hour_and_differ() {
        let mut schedule = schedule(&[0]);
        let mut now = at_s(0);
        for failures in 1..40 {
            let due = schedule.next(now).unwrap();
            schedule.handle_failure(due, Retry::Unsaid, now);
            let rested_s = schedule.deadline().at.since(now) / 1_000;
            let base_s = (60 << (failures - 1).min(10)).min(3_600);
            assert!((base_s..=base_s + base_s / 2).contains(&rested_s), "{failures}: {rested_s}");
            now = schedule.deadline().at;
        }
        let rests = [rest_ms(1, 1), rest_ms(1, 4_000_000_001), rest_ms(u8::MAX, u32::MAX)];
        assert_ne!(rests[0], rests[1]);
        assert!(rests[2] < 5_400_000);
    }

    #[test]
    fn a_tracker_rests_as_it_asked_and_others_go_on() {
        let mut schedule = schedule(&[0, 1]);
        let first = schedule.next(at_s(0)).unwrap();
        schedule.handle_failure(first, Retry::After(7_200_000), at_s(0));
        assert_eq!(round(&mut schedule, &[], at_s(0))[..], [1]);
        assert_eq!(round(&mut schedule, &[], at_s(1_800))[..], [1]);
        assert_eq!(round(&mut schedule, &[], at_s(7_200))[..], [0]);
    }

    #[test]
    fn a_tracker_that_says_never_is_not_asked_again() {
        let mut schedule = schedule(&[0]);
        let first = schedule.next(at_s(0)).unwrap();
        schedule.handle_failure(first, Retry::Never, at_s(0));
        assert_eq!((schedule.deadline(), schedule.is_over()), (Deadline::NONE, true));
        assert_eq!(schedule.next(at_s(u32::MAX.into())), None);
    }

    #[test]
    fn started_comes_first_again_after_a_failure_and_completed_once() {
        let mut schedule = schedule(&[0]);
        let said = |schedule: &mut Schedule, now_s| {
            let due = schedule.next(at_s(now_s)).unwrap();
            schedule.handle_answer(due, &answer(), at_s(now_s));
            due.event
        };
        assert_eq!(said(&mut schedule, 0), Event::Started);
        assert_eq!(said(&mut schedule, 1_800), Event::None);
        schedule.complete(at_s(1_801));
        assert_eq!(said(&mut schedule, 1_801), Event::Completed);
        assert_eq!(schedule.deadline().at, at_s(3_601));
        let lost = schedule.next(at_s(3_601)).unwrap();
        assert_eq!(lost.event, Event::None);
        schedule.handle_failure(lost, Retry::Unsaid, at_s(3_601));
        assert_eq!(said(&mut schedule, 9_000), Event::Started);
    }

    #[test]
    fn what_completes_while_an_announce_is_under_way_is_told_next() {
        let mut schedule = schedule(&[0]);
        let started = schedule.next(at_s(0)).unwrap();
        schedule.complete(at_s(1));
        schedule.handle_answer(started, &answer(), at_s(2));
        assert_eq!(due(&mut schedule, at_s(2)), (0, Event::Completed));
    }

    #[test]
    fn goodbye_is_said_once_to_those_who_know_of_us() {
        let mut schedule = schedule(&[0, 1, 2]);
        assert_eq!(round(&mut schedule, &[0], at_s(0))[..], [0, 1]);
        let late = schedule.next(at_s(1_800)).unwrap();
        assert_eq!(late, Due { tracker: 0, event: Event::Started });
        schedule.stop();
        // What was under way may have arrived; its own answer comes too late to matter.
        schedule.handle_answer(late, &answer(), at_s(1_800));
        let first = schedule.next(at_s(1_800)).unwrap();
        assert_eq!(first, Due { tracker: 0, event: Event::Stopped });
        schedule.handle_failure(first, Retry::Unsaid, at_s(1_800));
        let second = schedule.next(at_s(1_800)).unwrap();
        assert_eq!(second, Due { tracker: 1, event: Event::Stopped });
        assert!(!schedule.is_over());
        schedule.handle_answer(second, &answer(), at_s(1_800));
        assert!(schedule.is_over());
        assert_eq!(schedule.next(at_s(1_000_000_000)), None);
    }

    #[test]
    fn any_number_of_trackers_is_held_in_little_memory() {
        assert!(Schedule::new([], SEED, at_s(0)).is_over());
        let mut many = Schedule::new((0..=255).map(|n| n / 2), 0, at_s(0));
        let all: heapless::Vec<u8, 16> = (0..16).collect();
        assert_eq!(round(&mut many, &all, at_s(0)).len(), TRACKERS_MAX);
        assert!(size_of::<Schedule>() <= 168, "{}", size_of::<Schedule>());
    }
}
