//! A round through our torrents: each is looked for and announced before others forget us.
//!
//! The first round goes as fast as it may, for nobody knows of us yet: [`STAGGER_MS`] apart. Each
//! later one is spread over [`ROUND_MS`], a few torrents at a time, on the whole minutes on which a
//! node wakes for its table anyway. What is new has its turn at once.
//!
//! ```text
//! start   |||||||                       every torrent, a second apart
//! later   |||  |||  |||  |              AT_ONCE_MIN or more on a minute, as many minutes as it takes
//!         ^ begun                       ^ begun, ROUND_MS later
//! ```
//!
//! Torrents are walked in the order of their names, so that a round keeps one name and no list. A
//! search that finds no memory is begun when another has ended: more of them than can be made in
//! [`ROUND_MS`] make the round longer.

use super::{MINUTE_MS, whole_minute};
use crate::engine::bencode::Full;
use crate::engine::units::{Deadline, Instant};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Round {
    begun: Instant,
    /// The torrent that was begun last; nothing between two rounds.
    last: Option<[u8; 20]>,
    /// When the next may be begun.
    next_at: Instant,
    /// Torrents begun on this minute.
    at_once: u32,
    /// The first round is over.
    is_spread: bool,
    /// Torrents that come first.
    news: heapless::Deque<[u8; 20], NEWS_MAX>,
}

impl Round {
    /// A torrent is to be announced at once.
    ///
    /// # When full
    /// It has its turn in the round, if it is walked there.
    pub fn announce_soon(&mut self, info_hash: [u8; 20]) -> Result<(), Full> {
        if self.news.iter().any(|known| *known == info_hash) {
            return Ok(());
        }
        self.news.push_back(info_hash).map_err(|_| Full)
    }

    /// How many more torrents [`Round::announce_soon`] takes now.
    pub fn room_for_news(&self) -> usize {
        NEWS_MAX - self.news.len()
    }

    /// The torrent to be begun now, or when there is one to begin. `after` gives the torrent whose
    /// name comes next.
    pub fn next(
        &mut self,
        now: Instant,
        after: impl Fn(Option<[u8; 20]>) -> Option<[u8; 20]>,
    ) -> Result<[u8; 20], Deadline> {
        if let Some(news) = self.news.front() {
            return Ok(*news);
        }
        if now >= self.next_at {
            if let Some(next) = after(self.last) {
                return Ok(next);
            }
            let begun = if self.last.is_some() { self.begun } else { now };
            (self.last, self.at_once, self.is_spread) = (None, 0, true);
            let at = whole_minute(begun.after(ROUND_MS));
            if let Some(first) = after(None).filter(|_| at <= now) {
                return Ok(first);
            }
            self.next_at = at.max(whole_minute(now.after(1)));
        }
        Err(Deadline { at: self.next_at, why: "DHT: the next torrent" })
    }

    /// The search for [that torrent](Round::next) is under way, one of `count` that are walked.
    pub fn handle_begun(&mut self, info_hash: [u8; 20], count: u32, now: Instant) {
        if self.news.front() == Some(&info_hash) {
            self.news.pop_front();
            return;
        }
        if self.last.replace(info_hash).is_none() {
            self.begun = now;
        }
        if !self.is_spread {
            self.next_at = now.after(STAGGER_MS);
            return;
        }
        let (at_once, minutes) = pace(count);
        self.at_once += 1;
        if self.at_once >= at_once {
            self.at_once = 0;
            self.next_at = whole_minute(now.after(1)).after((minutes - 1) * MINUTE_MS);
        }
    }
}

/// How many of so many torrents are begun on a minute, and how many minutes later the next ones
/// are, so that the last have been begun when a round is over.
fn pace(count: u32) -> (u32, u64) {
    let minutes = ROUND_MS / MINUTE_MS;
    let at_once = count.div_ceil(minutes as u32).max(AT_ONCE_MIN);
    let turns = u64::from(count.div_ceil(at_once).max(1));
    (at_once, (minutes / turns).max(1))
}

/// From the beginning of one round to the next: others forget us after half an hour.
pub const ROUND_MS: u64 = 27 * MINUTE_MS;

/// Between two torrents of the first round.
pub const STAGGER_MS: u64 = 1_000;

/// Torrents begun on one minute, when there are so many: fewer would wake the box more often.
const AT_ONCE_MIN: u32 = 4;

/// New torrents that wait for their turn.
const NEWS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> [u8; 20] {
        let mut name = [0; 20];
        name[..4].copy_from_slice(&number.to_be_bytes());
        name
    }

    fn after(count: u32) -> impl Fn(Option<[u8; 20]>) -> Option<[u8; 20]> {
        move |last| (0..count).map(name).find(|next| last.is_none_or(|last| *next > last))
    }

    /// Begins so many of `count` torrents; when each was.
    fn run(round: &mut Round, mut now: Instant, begins: u32, count: u32) -> std::vec::Vec<u64> {
        let mut begun = std::vec::Vec::new();
        while begun.len() < begins as usize {
            match round.next(now, after(count)) {
                Ok(next) => {
                    round.handle_begun(next, count, now);
                    begun.push(now.as_millis());
                }
                Err(deadline) => now = deadline.at,
            }
        }
        begun
    }

    #[test]
    fn the_first_round_is_fast_and_later_ones_fill_their_time_on_whole_minutes() {
        for count in [1, 4, 5, 27, 100, 108, 109, 256, 1_000] {
            let now = Instant::from_millis(77_000);
            let begun = run(&mut Round::default(), now, 6 * count, count);
            let rounds: std::vec::Vec<_> = begun.chunks(count as usize).collect();
            let staggered = (0..u64::from(count)).map(|number| 77_000 + number * STAGGER_MS);
            assert!(staggered.eq(rounds[0].iter().copied()), "{count}");
            for (round, next) in rounds[1..].iter().zip(&rounds[2..]) {
                assert!(round.iter().all(|at| at % MINUTE_MS == 0), "{count}: {round:?}");
                let most = round.chunk_by(|a, b| a == b).map(<[u64]>::len).max();
                assert_eq!(most, Some(pace(count).0.min(count) as usize), "{count}");
                assert_eq!(next[0] - round[0], ROUND_MS, "{count}");
            }
        }
        // A hundred wake a node for 25 of 27 minutes, on which it wakes for its table anyway.
        assert_eq!((pace(100), pace(3), pace(12)), ((4, 1), (4, 27), (4, 9)));
    }

    #[test]
    fn news_have_their_turn_at_once_and_do_not_move_the_round() {
        let (mut round, now) = (Round::default(), Instant::from_millis(1_000));
        assert_eq!(run(&mut round, now, 3, 3), [1_000, 2_000, 3_000]);
        let now = Instant::from_millis(30_000);
        assert_eq!(round.next(now, after(3)).map_err(|due| due.at.as_millis()), Err(1_680_000));
        for number in 0..NEWS_MAX as u32 {
            assert_eq!(round.announce_soon(name(100 + number)), Ok(()));
            assert_eq!(round.announce_soon(name(100 + number)), Ok(()), "it is known");
        }
        assert_eq!((round.room_for_news(), round.announce_soon(name(9))), (0, Err(Full)));
        assert_eq!(round.next(now, |_| panic!("it comes later")), Ok(name(100)));
        assert_eq!(run(&mut round, now, NEWS_MAX as u32, 3), [30_000; NEWS_MAX]);
        assert_eq!(round.next(now, after(3)).map_err(|due| due.at.as_millis()), Err(1_680_000));
    }
}
