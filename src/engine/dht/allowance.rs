//! Allowances: how much may be said, so that a flood of questions is no flood of answers.
//!
//! An [`Allowance`] fills at a steady rate up to its most and is drawn from. [`Crowds`] has a small
//! one for every crowd of askers, by a number that the asker cannot steer: two crowds that happen
//! to share one are held to it together, and no table of addresses grows.

use crate::engine::units::Instant;

/// Something that may be spent at a rate.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Thousandths of what may be spent now.
    level: u64,
    per_s: u32,
    most: u32,
    filled: Instant,
}

impl Allowance {
    /// `per_s` each second, at most `most` at once; full at first.
    pub fn new(per_s: u32, most: u32) -> Allowance {
        Allowance { level: u64::from(most) * 1_000, per_s, most, filled: Instant::default() }
    }

    /// Spends `amount`, if there is so much.
    pub fn take(&mut self, amount: u32, now: Instant) -> bool {
        let gained = now.since(self.filled).saturating_mul(self.per_s.into());
        self.level = self.level.saturating_add(gained).min(u64::from(self.most) * 1_000);
        self.filled = self.filled.max(now);
        let needed = u64::from(amount) * 1_000;
        let there = needed <= self.level;
        if there {
            self.level -= needed;
        }
        there
    }

    /// When there will be so much to spend, at most all it holds.
    pub fn ready_at(&self, amount: u32) -> Instant {
        let missing = (u64::from(amount.min(self.most)) * 1_000).saturating_sub(self.level);
        self.filled.after(missing.div_ceil(self.per_s.max(1).into()))
    }
}

/// One allowance for each crowd, or for a few that share it.
pub struct Crowds([Allowance; CROWDS]);

impl Default for Crowds {
    /// All of them full.
    fn default() -> Crowds {
        Crowds([Allowance::new(PER_CROWD_S, PER_CROWD_MOST); CROWDS])
    }
}

impl Crowds {
    /// Spends one of that crowd's.
    pub fn take(&mut self, place: u64, now: Instant) -> bool {
        self.0[place as usize % CROWDS].take(1, now)
    }
}

/// Crowds told apart.
const CROWDS: usize = 64;

/// Answers one crowd is given each second, and at once: a client that walks through a handful of
/// torrents asks one node for each of them.
const PER_CROWD_S: u32 = 4;
const PER_CROWD_MOST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_fills_at_its_rate_up_to_its_most() {
        let mut allowance = Allowance::new(20, 5);
        let at = Instant::from_millis;
        assert!((0..5).all(|_| allowance.take(1, at(0))) && !allowance.take(1, at(0)));
        assert_eq!((allowance.ready_at(1), allowance.ready_at(3)), (at(50), at(150)));
        assert_eq!(allowance.ready_at(99), at(250));
        assert!(!allowance.take(1, at(49)) && allowance.take(1, at(50)));
        assert!(allowance.take(5, at(10_000)) && !allowance.take(1, at(10_000)));
    }
}
