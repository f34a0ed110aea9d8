//! A guest that says what it is told to, in order, and keeps what it hears.

use std::collections::VecDeque;

use perennial::engine::units::Instant;

use crate::fake_peer::Heard;
use crate::line::{Line, Pace};
use crate::prng::Prng;
use crate::sim_net::Link;

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this.
    Say(Vec<u8>),
    /// Does nothing for so many milliseconds.
    Pause(u64),
    /// Waits until it may ask.
    AwaitUnchoke,
    /// From here on reads so fast.
    Read(Pace),
    /// Says no more.
    Shut,
}

/// See the module.
#[derive(Debug)]
pub struct Script {
    pub line: Line,
    acts: VecDeque<Act>,
    goes_on_at: Instant,
    pub heard: Vec<Heard>,
}

impl Script {
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Script {
        Script {
            line: Line::new(Pace::AtOnce),
            acts: acts.into_iter().collect(),
            goes_on_at: Instant::default(),
            heard: Vec::new(),
        }
    }

    /// How often it has heard something.
    pub fn count(&self, what: impl Fn(&Heard) -> bool) -> usize {
        self.heard.iter().filter(|heard| what(heard)).count()
    }

    /// Does what can be done now; whether that was anything.
    pub fn act(&mut self, link: &mut Link, now: Instant, prng: &mut Prng) -> bool {
        let mut moved = self.line.move_bytes(link, now, prng);
        while let Some(heard) = self.line.next() {
            self.heard.push(heard);
        }
        while now >= self.goes_on_at && self.line.is_said() {
            if matches!(self.acts.front(), Some(Act::AwaitUnchoke)) && !self.may_ask() {
                break;
            }
            match self.acts.pop_front() {
                None => break,
                Some(Act::Say(bytes)) => self.line.say(&bytes),
                Some(Act::Pause(ms)) => self.goes_on_at = now.after(ms),
                Some(Act::AwaitUnchoke) => {}
                Some(Act::Read(pace)) => self.line.pace = pace,
                Some(Act::Shut) => self.line.shut(),
            }
            self.line.move_bytes(link, now, prng);
            moved = true;
        }
        moved
    }

    /// When it wants to act, should nothing happen before.
    pub fn wakes_at(&self, now: Instant) -> Instant {
        let goes_on = if self.goes_on_at > now { self.goes_on_at } else { Instant::NEVER };
        goes_on.min(self.line.wakes_at(now))
    }

    fn may_ask(&self) -> bool {
        let last = self.heard.iter().rev().find(|h| matches!(h, Heard::Choke | Heard::Unchoke));
        last == Some(&Heard::Unchoke)
    }
}
