//! The one clock: a fixed heap with one deadline for each slot, and one timer at the earliest.
//!
//! Every wait in the service is a slot here: one for each pump, one for each standing duty, a few
//! for tracker exchanges. A slot is rung when its deadline passes or when somebody rings it, and
//! the task that owns it looks at what has changed. Deadlines say what they are for, so that an
//! idle box can say why it woke (in the log, at level `trace`).
//!
//! A deadline that moves later costs nothing: the slot keeps its place in the heap, is rung once
//! too early, and its owner then says the true one. So a busy connection, whose deadlines move
//! with every byte, touches the timer once in its time-out and not with every byte.

use crate::engine::units::{Deadline, Instant};
use async_io::Timer;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

/// A place on the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// See the module.
pub struct Clock {
    started: std::time::Instant,
    heap: RefCell<Heap>,
    bells: Vec<Bell>,
    /// Rung when the earliest deadline has become earlier.
    earlier: Bell,
    /// Slots for [`Clock::sleep`] that are free.
    spare: RefCell<Vec<Slot>>,
    woken: Cell<u64>,
    /// For each kind of deadline, how often it has passed.
    wake_ups: RefCell<Vec<(&'static str, u64)>>,
}

/// A bell that one task listens to.
#[derive(Default)]
pub struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    /// Rings: the listener looks again, now or when it next listens.
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether it has been rung since last asked. The task is woken when it is rung next.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        if self.rung.replace(false) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for the next ring.
    pub async fn rung(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Clock {
    /// A clock that starts now, with `slots` places and `sleepers` more for [`Clock::sleep`].
    pub fn new(slots: usize, sleepers: usize) -> Clock {
        let all = slots + sleepers;
        Clock {
            started: std::time::Instant::now(),
            heap: RefCell::new(Heap::new(all)),
            bells: (0..all).map(|_| Bell::default()).collect(),
            earlier: Bell::default(),
            spare: RefCell::new((slots..all).map(Slot).collect()),
            woken: Cell::new(0),
            wake_ups: RefCell::default(),
        }
    }

    /// Place `index`, below `slots`.
    pub fn slot(&self, index: usize) -> Slot {
        assert!(index < self.bells.len(), "the clock has a place for every task");
        Slot(index)
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> Instant {
        Instant::from_millis(self.started.elapsed().as_millis() as u64)
    }

    /// How often each kind of deadline has passed, the most frequent first.
    pub fn wake_ups(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.wake_ups.borrow().clone();
        all.sort_unstable_by_key(|(why, count)| (u64::MAX - count, *why));
        all
    }

    /// How often a deadline has passed and woken somebody.
    pub fn woken(&self) -> u64 {
        self.woken.get()
    }

    /// The bell of a slot.
    pub fn bell(&self, slot: Slot) -> &Bell {
        &self.bells[slot.0]
    }

    /// Rings the bell of a place now.
    pub fn ring(&self, index: usize) {
        self.bell(self.slot(index)).ring();
    }

    /// Rings `slot` no later than `deadline`.
    pub fn ring_at(&self, slot: Slot, deadline: Deadline) {
        let mut heap = self.heap.borrow_mut();
        if deadline.at < heap.at(slot.0) {
            heap.set(slot.0, deadline.at);
            heap.why[slot.0] = deadline.why;
            if heap.first() == Some(slot.0) {
                self.earlier.ring();
            }
        }
    }

    /// Waits until the slot is rung or its deadline has passed.
    pub async fn wait(&self, slot: Slot, deadline: Deadline) {
        self.ring_at(slot, deadline);
        self.bell(slot).rung().await;
    }

    /// Sleeps.
    ///
    /// # Panics
    /// When more than `sleepers` sleep at a time: who may sleep is known when the clock is made.
    pub async fn sleep(&self, ms: u64, why: &'static str) {
        let slot = self.spare.borrow_mut().pop().expect("the clock has a place for every sleeper");
        let place = Sleeper { clock: self, slot };
        let at = self.now().after(ms);
        while self.now() < at {
            self.wait(place.slot, Deadline { at, why }).await;
        }
    }

    /// Rings whoever is due, for ever.
    pub async fn run(&self) {
        // The reactor keeps timers in a tree; with one far entry always in it, arming and
        // disarming the other never makes it allocate.
        let mut anchor = Timer::after(NEVER);
        let mut timer = Timer::after(FAR);
        let mut armed = Instant::NEVER;
        poll_fn(|cx| {
            let _ = poll_timer(&mut anchor, cx);
            loop {
                let now = self.now();
                self.ring_due(now);
                let first = self.heap.borrow().first_at();
                if first != armed {
                    armed = first;
                    let wait = std::time::Duration::from_millis(first.since(now)).min(FAR);
                    timer.set_after(wait);
                }
                let earlier = self.earlier.poll(cx).is_ready();
                let due = poll_timer(&mut timer, cx).is_ready();
                if due {
                    armed = Instant::NEVER;
                }
                if !earlier && !due {
                    return Poll::<()>::Pending;
                }
            }
        })
        .await;
    }

    fn count(&self, why: &'static str) {
        let mut all = self.wake_ups.borrow_mut();
        match all.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            // As many as there are words for deadlines in the program.
            None => all.push((why, 1)),
        }
    }

    fn ring_due(&self, now: Instant) {
        loop {
            let mut heap = self.heap.borrow_mut();
            match heap.first() {
                Some(slot) if heap.at(slot) <= now => {
                    trace!("{}: {} was due", now.as_millis(), heap.why[slot]);
                    let why = heap.why[slot];
                    heap.set(slot, Instant::NEVER);
                    drop(heap);
                    self.count(why);
                    self.woken.set(self.woken.get() + 1);
                    self.bells[slot].ring();
                }
                _ => return,
            }
        }
    }
}

fn poll_timer(timer: &mut Timer, cx: &mut Context<'_>) -> Poll<std::time::Instant> {
    std::pin::Pin::new(timer).poll(cx)
}

/// A place of [`Clock::sleep`], given back when the sleep ends or is dropped.
struct Sleeper<'c> {
    clock: &'c Clock,
    slot: Slot,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.heap.borrow_mut().set(self.slot.0, Instant::NEVER);
        self.clock.bell(self.slot).rung.set(false);
        self.clock.spare.borrow_mut().push(self.slot);
    }
}

/// A binary heap of slots by deadline that knows where each slot stands.
struct Heap {
    /// Slots; each is at most as late as the two below it.
    order: Vec<usize>,
    /// Where each slot stands in `order`.
    place: Vec<usize>,
    at: Vec<Instant>,
    /// What each deadline is for.
    why: Vec<&'static str>,
}

impl Heap {
    fn new(slots: usize) -> Heap {
        let order: Vec<usize> = (0..slots).collect();
        let (at, why) = (std::vec![Instant::NEVER; slots], std::vec!["nothing"; slots]);
        Heap { place: order.clone(), order, at, why }
    }

    fn at(&self, slot: usize) -> Instant {
        self.at[slot]
    }

    fn first(&self) -> Option<usize> {
        self.order.first().copied()
    }

    fn first_at(&self) -> Instant {
        self.first().map_or(Instant::NEVER, |slot| self.at[slot])
    }

    fn set(&mut self, slot: usize, at: Instant) {
        self.at[slot] = at;
        let mut place = self.place[slot];
        while place > 0 && self.earlier(place, (place - 1) / 2) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
        loop {
            let below = [2 * place + 1, 2 * place + 2].into_iter();
            let least = below
                .filter(|child| *child < self.order.len())
                .min_by_key(|child| self.at[self.order[*child]]);
            match least {
                Some(child) if self.earlier(child, place) => {
                    self.swap(child, place);
                    place = child;
                }
                _ => return,
            }
        }
    }

    fn earlier(&self, a: usize, b: usize) -> bool {
        self.at[self.order[a]] < self.at[self.order[b]]
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.order.swap(a, b);
        self.place[self.order[a]] = a;
        self.place[self.order[b]] = b;
    }
}

/// Seconds since 1970, for people, never for deadlines; 0 while the date is unknown: a board without a
/// clock wakes in 1970, until somebody has told it the hour.
pub fn unix_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs()).checked_sub(KNOWN_S).map_or(0, |since| since + KNOWN_S)
}

/// The moment on the kernel's clock that never goes back, in microseconds: what systemd counts by.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000 + (now.tv_nsec as u64) / 1_000
}

/// The start of 2026: clocks that say less have not been set.
pub const KNOWN_S: u64 = 1_767_225_600;

/// Longer than any box runs.
const NEVER: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 24 * 3600);

/// Further than any deadline, near enough for the kernel.
const FAR: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_gives_slots_in_the_order_of_their_deadlines() {
        let mut heap = Heap::new(50);
        let mut wanted: Vec<u64> = Vec::new();
        for slot in 0..50 {
            let at = (slot as u64 * 7_919) % 101;
            heap.set(slot, Instant::from_millis(at));
            wanted.push(at);
        }
        heap.set(3, Instant::from_millis(1_000));
        wanted[3] = 1_000;
        wanted.sort_unstable();
        for at in wanted {
            assert_eq!(heap.first_at(), Instant::from_millis(at));
            heap.set(heap.first().unwrap(), Instant::NEVER);
        }
        assert_eq!(heap.first_at(), Instant::NEVER);
    }

    #[test]
    fn deadlines_ring_and_sleeps_end() {
        let clock = Clock::new(1, 1);
        let slot = clock.slot(0);
        let story = async {
            let at = clock.now().after(20);
            clock.wait(slot, Deadline { at, why: "a test" }).await;
            assert!(clock.now() >= at);
            clock.sleep(10, "a test").await;
            clock.bell(slot).ring();
            clock.wait(slot, Deadline::NONE).await;
        };
        smol::block_on(smol::future::or(story, clock.run()));
        assert_eq!(clock.woken(), 2);
    }
}
