//! Entries between two names: the kernel has told of the first half of a rename.
//!
//! It tells of the second right after, unless that is outside of the folder.

use super::table::Entry;
use crate::engine::units::Instant;

/// See the module; those that left first come first.
#[derive(Default)]
pub struct Parted {
    halves: heapless::Deque<Half, HALVES_MAX>,
}

struct Half {
    cookie: u32,
    entry: Entry,
    until: Instant,
}

impl Parted {
    /// Gives up the first when there is no room for another.
    pub fn make_room(&mut self) -> Option<Entry> {
        if self.halves.is_full() { self.halves.pop_front().map(|half| half.entry) } else { None }
    }

    /// Takes one in, for which room was made.
    pub fn push(&mut self, cookie: u32, entry: Entry, now: Instant) {
        let _ = self.halves.push_back(Half { cookie, entry, until: now.after(PART_MS) });
    }

    /// The one whose second half has come.
    pub fn take(&mut self, cookie: u32) -> Option<Entry> {
        let mut found = None;
        for _ in 0..self.halves.len() {
            match self.halves.pop_front() {
                Some(half) if half.cookie == cookie => found = Some(half.entry),
                // There is room: it was in there a moment ago.
                Some(half) => drop(self.halves.push_back(half)),
                None => {}
            }
        }
        found
    }

    /// When the first has waited for long enough.
    pub fn first_due(&self) -> Instant {
        self.halves.front().map_or(Instant::NEVER, |half| half.until)
    }

    /// One that has waited until then.
    pub fn take_due(&mut self, by: Instant) -> Option<Entry> {
        let is_due = !self.halves.is_empty() && self.first_due() <= by;
        if is_due { self.halves.pop_front().map(|half| half.entry) } else { None }
    }
}

/// At a time; events come in order, so more than one is rare.
const HALVES_MAX: usize = 16;

/// The second half comes within this, or the entry went elsewhere.
pub const PART_MS: u64 = 100;
