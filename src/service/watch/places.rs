//! Places for entries under observation: what has stirred, until it rests.
//!
//! A place holds what a record of the table has no room for: the name, who writes, and what the
//! last look saw. Places are few; each that waits for a time of its own stands in one queue once.
//! One that is given up while it stands there, or while it is looked at, is free after that.

use super::table::{Entry, Record};
use crate::engine::units::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::string::String;
use std::vec::Vec;

/// What an event says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A folder of that name is there; what is in it is not heard before somebody looks.
    Folder,
    /// Something about it or in it has changed.
    Stirred,
    /// Something was written to the file with that number.
    Written(u32),
    /// That file has been closed, or is gone.
    Closed(u32),
    /// More has changed than can be told: a folder in it has gone elsewhere.
    Upset,
}

/// The number of a file that is an entry itself.
pub const ITSELF: u32 = 0;

/// An entry under observation.
#[derive(Default)]
pub struct Place {
    /// Whose place it is; `None` when it has been given up.
    pub entry: Option<Entry>,
    /// What the entry is called; empty while only its record is known.
    pub name: String,
    /// Files in it that somebody writes to, each as a number that stands for its name.
    pub writers: heapless::Vec<u32, WRITERS_MAX>,
    /// The stamp the last look saw.
    pub seen: Option<u64>,
    /// When the look under way began.
    pub looked_at: Instant,
    /// Looks that did not find it at rest.
    pub tries: u8,
    /// It is looked at without waiting for it to rest.
    pub at_once: bool,
    /// It has to rest for long: what it holds looks as if it were just being begun.
    pub lingers: bool,
    is_queued: bool,
    is_looked_at: bool,
}

impl Place {
    /// For how long it has to be still.
    pub fn rest_ms(&self, record: &Record) -> u64 {
        let rest = REST_MS << self.tries.min(8);
        if self.lingers || record.crowded { LONG_REST_MS } else { rest.min(LONG_REST_MS) }
    }

    /// Notes what an event says; says whether there was room to.
    pub fn note(&mut self, touch: Touch) -> bool {
        match touch {
            Touch::Folder => self.at_once = true,
            Touch::Stirred => {}
            Touch::Written(file) => {
                return self.writers.contains(&file) || self.writers.push(file).is_ok();
            }
            Touch::Closed(file) => self.writers.retain(|known| *known != file),
            Touch::Upset => {
                let was_still = self.writers.is_empty();
                self.writers.clear();
                return was_still;
            }
        }
        true
    }
}

/// All places.
pub struct Places {
    places: Vec<Place>,
    free: Vec<u32>,
    queue: BinaryHeap<Reverse<(Instant, u32)>>,
    nameless: u32,
}

impl Places {
    /// So many.
    pub fn new(places_max: u32) -> Places {
        let mut places = Vec::with_capacity(places_max as usize);
        places.resize_with(places_max as usize, Place::default);
        Places {
            places,
            free: (0..places_max).rev().collect(),
            queue: BinaryHeap::with_capacity(places_max as usize),
            nameless: 0,
        }
    }

    /// What so many hold at most, in bytes, names and all.
    pub const fn memory_bytes(places_max: u32) -> u64 {
        let fixed = size_of::<Place>() + size_of::<u32>() + size_of::<(Instant, u32)>();
        places_max as u64 * (fixed as u64 + crate::engine::limits::NAME_BYTES_MAX as u64)
    }

    /// How many are taken.
    pub fn count(&self) -> u32 {
        (self.places.len() - self.free.len()) as u32
    }

    /// Whether one is free.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes one, if one is free. Those without a name get half of them at most: the others have to
    /// go on while the folder is asked for names.
    pub fn take(&mut self, entry: Entry, name: &str) -> Option<u32> {
        if name.is_empty() && self.nameless as usize >= self.places.len() / 2 {
            return None;
        }
        let at = self.free.pop()?;
        self.nameless += u32::from(name.is_empty());
        self.places[at as usize] =
            Place { entry: Some(entry), name: name.into(), ..Place::default() };
        Some(at)
    }

    /// Gives one its name, if it has none.
    pub fn name(&mut self, at: u32, name: &str) {
        let place = &mut self.places[at as usize];
        if place.name.is_empty() && !name.is_empty() {
            place.name.push_str(name);
            self.nameless -= 1;
        }
    }

    /// Gives one up.
    pub fn release(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        self.nameless -= u32::from(place.name.is_empty());
        place.entry = None;
        place.name = String::new();
        self.free_if_done(at);
    }

    /// All that are taken and have not been given up.
    pub fn taken(&self) -> impl Iterator<Item = (u32, Entry)> {
        let all = (0..).zip(&self.places);
        all.filter_map(|(at, place)| place.entry.map(|entry| (at, entry)))
    }

    /// Has one come up at `due`, unless it waits for something else: its name, whoever writes to
    /// it, an earlier time, the end of a look.
    pub fn queue(&mut self, at: u32, due: Instant) {
        let place = &mut self.places[at as usize];
        let waits = place.name.is_empty() || !place.writers.is_empty() && !place.at_once;
        if !place.is_queued && !place.is_looked_at && !waits {
            place.is_queued = true;
            self.queue.push(Reverse((due, at)));
        }
    }

    /// When the next comes up.
    pub fn first_due(&self) -> Instant {
        self.queue.peek().map_or(Instant::NEVER, |Reverse((due, _))| *due)
    }

    /// The next that has come up, with its entry.
    pub fn take_due(&mut self, now: Instant) -> Option<(u32, Entry)> {
        while self.first_due() <= now {
            let Reverse((_, at)) = self.queue.pop()?;
            let place = &mut self.places[at as usize];
            place.is_queued = false;
            match place.entry {
                Some(entry) => return Some((at, entry)),
                None => self.free_if_done(at),
            }
        }
        None
    }

    /// A look at one begins.
    pub fn begin_look(&mut self, at: u32, now: Instant) {
        let place = &mut self.places[at as usize];
        place.is_looked_at = true;
        place.looked_at = now;
    }

    /// A look has ended: gives whose place it is, unless it was given up meanwhile.
    pub fn end_look(&mut self, at: u32) -> Option<Entry> {
        let place = &mut self.places[at as usize];
        place.is_looked_at = false;
        let entry = place.entry;
        if entry.is_none() {
            self.free_if_done(at);
        }
        entry
    }

    fn free_if_done(&mut self, at: u32) {
        let place = &self.places[at as usize];
        if !place.is_queued && !place.is_looked_at {
            self.free.push(at);
        }
    }
}

impl std::ops::Index<u32> for Places {
    type Output = Place;

    fn index(&self, at: u32) -> &Place {
        &self.places[at as usize]
    }
}

impl std::ops::IndexMut<u32> for Places {
    fn index_mut(&mut self, at: u32) -> &mut Place {
        &mut self.places[at as usize]
    }
}

/// An entry rests when nothing in it has changed for so long.
pub const REST_MS: u64 = 500;

/// One that has only been begun (it holds an empty file: its maker may wait for the first byte), one
/// with more writers than can be counted, and one that was found to be changing time and again.
pub const LONG_REST_MS: u64 = 10_000;

/// Writers of one entry that are told apart; with more it has to rest for long.
const WRITERS_MAX: usize = 8;
