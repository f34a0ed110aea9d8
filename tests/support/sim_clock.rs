//! A clock that stands still until a test moves it, and remembers what it rang for.

use std::collections::BTreeMap;

use perennial::engine::units::{Deadline, Instant};

/// Virtual time.
#[derive(Debug, Default)]
pub struct SimClock {
    now: Instant,
    rung: BTreeMap<&'static str, u32>,
}

impl SimClock {
    /// What time it is.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Moves on to `at`.
    ///
    /// # Panics
    /// When that is not later: something is due again and again and time stands still.
    pub fn jump_to(&mut self, at: Instant) {
        assert!(at > self.now, "time does not move on from {:?} to {at:?}", self.now);
        self.now = at;
    }

    /// Notes that a deadline has woken somebody.
    pub fn ring(&mut self, deadline: Deadline) {
        *self.rung.entry(deadline.why).or_default() += 1;
    }

    /// What has woken somebody, and how often.
    pub fn rung(&self) -> &BTreeMap<&'static str, u32> {
        &self.rung
    }

    /// Forgets what has rung so far.
    pub fn forget(&mut self) {
        self.rung.clear();
    }
}
