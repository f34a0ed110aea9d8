//! A cap on bandwidth: how many bytes may go now, and when there will be more.
//!
//! A token bucket. It fills at its rate, up to a burst of a quarter second's worth or 32 KiB,
//! whichever is more, and what goes is taken out of it. A send that is on its way already may take
//! out more than there is; what is owed then has to come in again before anything else goes. So
//! over any length of time no more goes than the rate allows, one burst and one send.
//!
//! It is asked and told, never driven: nothing ticks while nobody sends. The level is kept in
//! thousandths of a byte, which a whole number of comes in each millisecond, so nothing is rounded
//! and nothing drifts, however often or seldom it is looked at.
//!
//! A torrent's cap inside that of the box is two buckets: what may go is the lesser allowance,
//! what went is taken out of both, and the later of two [`Bucket::ready_at`] is waited for.
//!
//! Journey 2: asked before the head of a peer's queue is served, told what was sent.

use crate::engine::limits::{BLOCK_BYTES, BLOCK_BYTES_MAX};
use crate::engine::units::{Deadline, Instant};

/// A cap on bandwidth, or none. See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// 0 is no cap.
    bytes_per_second: u64,
    /// Thousandths of a byte that were there at `at`; below 0 they are owed.
    level: i128,
    at: Instant,
}

impl Bucket {
    /// A full bucket. A rate of 0 is no cap, as it is on the command line.
    pub fn new(bytes_per_second: Option<u64>) -> Bucket {
        let bytes_per_second = bytes_per_second.unwrap_or(0);
        Bucket { bytes_per_second, level: full(bytes_per_second), at: Instant::default() }
    }

    /// Bytes that may go now; `u64::MAX` without a cap.
    pub fn allowance(&self, now: Instant) -> u64 {
        if self.bytes_per_second == 0 {
            return u64::MAX;
        }
        u64::try_from(self.level_at(now).max(0) / MILLI).unwrap_or(u64::MAX)
    }

    /// Notes that so many bytes went; the last send may be larger than the allowance was.
    pub fn take(&mut self, bytes: u64, now: Instant) {
        if self.bytes_per_second > 0 {
            self.settle(now);
            self.level = self.level.saturating_sub(i128::from(bytes) * MILLI);
        }
    }

    /// When a send is worth its while again: for one block, or for a tenth of a second's worth if
    /// that is more. A moment that has passed once there is as much; always without a cap.
    pub fn ready_at(&self) -> Deadline {
        let why = "the bandwidth cap allows more";
        let wanted = u64::from(BLOCK_BYTES).max(self.bytes_per_second / WAKES_PER_SECOND_MAX);
        let missing = i128::from(wanted) * MILLI - self.level;
        if self.bytes_per_second == 0 || missing <= 0 {
            return Deadline { at: Instant::default(), why };
        }
        let wait_ms = missing.unsigned_abs().div_ceil(u128::from(self.bytes_per_second));
        Deadline { at: self.at.after(u64::try_from(wait_ms).unwrap_or(u64::MAX)), why }
    }

    /// Caps at another rate from now on. What is owed stays owed, and where there was no cap a full
    /// bucket begins.
    pub fn set_rate(&mut self, bytes_per_second: Option<u64>, now: Instant) {
        let bytes_per_second = bytes_per_second.unwrap_or(0);
        self.settle(now);
        self.level = match self.bytes_per_second {
            0 => full(bytes_per_second),
            _ => self.level.min(full(bytes_per_second)),
        };
        self.bytes_per_second = bytes_per_second;
    }

    /// Brings the level up to `now`; a moment in the past changes nothing.
    fn settle(&mut self, now: Instant) {
        (self.level, self.at) = (self.level_at(now), self.at.max(now));
    }

    fn level_at(&self, now: Instant) -> i128 {
        // A byte a second is a thousandth of a byte each millisecond.
        let came = u128::from(self.bytes_per_second) * u128::from(now.since(self.at));
        let came = i128::try_from(came).unwrap_or(i128::MAX);
        self.level.saturating_add(came).min(full(self.bytes_per_second))
    }
}

/// The burst, in thousandths of a byte.
fn full(bytes_per_second: u64) -> i128 {
    i128::from((bytes_per_second / 4).max(BLOCK_BYTES_MAX.into())) * MILLI
}

/// Thousandths in a byte.
const MILLI: i128 = 1_000;

/// How often a sender that is held back is woken: at 100 MB/s a wake for each block were 6,000.
const WAKES_PER_SECOND_MAX: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::SERVE_BYTES_MAX;

    const BLOCK: u64 = BLOCK_BYTES as u64;
    const YEAR_MS: u64 = 365 * 24 * 3_600 * 1_000;

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Sends all that may go, whenever there is enough, and says how much went by `end`.
    fn sent_by(bucket: &mut Bucket, start: Instant, end: Instant) -> u64 {
        let (mut now, mut sent) = (start, 0);
        while now <= end {
            // In whole blocks, the last of which may be too much.
            let bytes = bucket.allowance(now).div_ceil(BLOCK) * BLOCK;
            bucket.take(bytes, now);
            sent += bytes;
            let ready = bucket.ready_at().at;
            assert!(ready > now, "a sender that waits is not woken in vain");
            now = ready;
        }
        sent
    }

    #[test]
    fn a_year_at_the_cap_is_a_years_worth_to_within_a_block() {
        for (rate, end) in [(997, YEAR_MS), (12_345, YEAR_MS / 10), (7_654_321, YEAR_MS / 100)] {
            let mut bucket = Bucket::new(Some(rate));
            let sent = sent_by(&mut bucket, ms(0), ms(end));
            let burst = 32_768.max(rate / 4);
            let worth = burst + (u128::from(rate) * u128::from(end) / 1_000) as u64;
            // What has come in since the last send is less than what is worth a wake.
            let left = bucket.allowance(ms(end));
            let owed = sent.saturating_sub(worth);
            assert!(owed < BLOCK, "{rate}: {owed} bytes too many");
            assert!(worth - sent.min(worth) <= left + 1, "{rate}: {sent} of {worth}");
            assert!(left <= BLOCK.max(rate / 10), "{rate}");
        }
    }

    #[test]
    fn how_often_it_is_looked_at_changes_nothing() {
        let (mut often, mut seldom) = (Bucket::new(Some(1_999)), Bucket::new(Some(1_999)));
        often.take(5_000_000, ms(0));
        seldom.take(5_000_000, ms(0));
        for now in 0..2_500_000 {
            often.take(0, ms(now));
        }
        assert_eq!(often.allowance(ms(2_510_000)), seldom.allowance(ms(2_510_000)));
        assert!(often.allowance(ms(2_510_000)) > 0);
    }

    #[test]
    fn a_long_rest_saves_up_one_burst_and_no_more() {
        for (rate, burst) in [(1, 32_768), (100_000, 32_768), (1 << 20, 1 << 18)] {
            let mut bucket = Bucket::new(Some(rate));
            assert_eq!(bucket.allowance(ms(0)), burst);
            bucket.take(burst, ms(0));
            assert_eq!(bucket.allowance(ms(0)), 0);
            assert_eq!(bucket.allowance(ms(YEAR_MS)), burst);
        }
    }

    #[test]
    fn what_is_owed_comes_in_before_anything_goes() {
        let mut bucket = Bucket::new(Some(10_000));
        bucket.take(32_768 + SERVE_BYTES_MAX as u64, ms(1_000));
        assert_eq!(bucket.allowance(ms(1_000)), 0);
        let ready = bucket.ready_at();
        assert_eq!(ready.at, ms(1_000 + (SERVE_BYTES_MAX as u64 + BLOCK).div_ceil(10)));
        assert_eq!(ready.why, "the bandwidth cap allows more");
        assert!(bucket.allowance(ready.at) >= BLOCK);
        assert!(bucket.allowance(ms(ready.at.as_millis() - 1)) < BLOCK);
        bucket.take(0, ready.at);
        assert!(bucket.ready_at().at <= ready.at, "there is enough now");
    }

    #[test]
    fn a_fast_sender_is_woken_ten_times_a_second() {
        let mut bucket = Bucket::new(Some(100_000_000));
        assert_eq!(bucket.ready_at().at, ms(0));
        bucket.take(25_000_000, ms(5));
        assert_eq!(bucket.ready_at().at, ms(105));
    }

    #[test]
    fn without_a_cap_everything_may_go_at_once() {
        for none in [None, Some(0)] {
            let mut bucket = Bucket::new(none);
            bucket.take(u64::MAX, ms(7));
            assert_eq!(bucket.allowance(ms(7)), u64::MAX);
            assert_eq!(bucket.ready_at().at, ms(0));
        }
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let mut bucket = Bucket::new(None);
        bucket.take(1 << 40, ms(0));
        bucket.set_rate(Some(1 << 20), ms(10_000));
        assert_eq!(bucket.allowance(ms(10_000)), 1 << 18);
        bucket.set_rate(Some(1_000), ms(20_000));
        assert_eq!(bucket.allowance(ms(20_000)), 32_768);
        bucket.take(32_768 + 500, ms(20_000));
        // 500 are owed: a quarter second at the old rate, half of one at the new one.
        bucket.set_rate(Some(1_000_000), ms(20_250));
        assert_eq!(bucket.allowance(ms(20_250)), 0);
        assert_eq!(bucket.allowance(ms(20_251)), 750);
        bucket.set_rate(None, ms(20_251));
        assert_eq!(bucket.allowance(ms(20_251)), u64::MAX);
    }

    #[test]
    fn the_far_ends_of_clock_and_rate_are_no_harm() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match state >> 62 {
                0 => u64::MAX - (state >> 33 & 3),
                1 => state >> 33 & 3,
                _ => state.rotate_left(20) >> (state >> 33 & 63),
            }
        };
        let mut bucket = Bucket::new(Some(u64::MAX));
        for _ in 0..100_000 {
            match next() % 3 {
                0 => bucket.set_rate(Some(next()), ms(next())),
                _ => bucket.take(next(), ms(next())),
            }
            let now = ms(next());
            let (allowance, ready) = (bucket.allowance(now), bucket.ready_at().at);
            assert!(allowance <= bucket.allowance(now.after(1)));
            assert!(ready == Instant::NEVER || bucket.allowance(ready) >= BLOCK);
        }
    }
}
