//! What has happened to the entries of a folder, made out of events, looks and names.
//!
//! Neither a clock nor a file system: it is told what the kernel says ([`Rests::handle_named`] and
//! its neighbours), what a look at an entry saw ([`Rests::looked`]) and which names the folder
//! holds ([`Rests::handle_name`]), says what is to be looked at or read next, and gives what
//! has become of it as [`Change`]s.
//!
//! - An entry that stirs takes a place and is looked at once it has rested. What the kernel tells
//!   of is looked at once; what may change without a word has to look the same twice.
//! - With no place free, the record notes that it is stale, and the folder's names are read again
//!   until every stale entry has had its place. Nothing is lost and nothing is looked at twice.
//! - A full reading of names makes everything stale: that is how a watch begins, and what helps after
//!   events were lost. Names that are missing after it are held against those that are new, by
//!   what they are: a rename ([`names`]).

pub mod names;

use super::look::Sight;
use super::parted::Parted;
use super::places::{ITSELF, LONG_REST_MS, Places, REST_MS, Touch};
use super::table::{Entry, Identity, Key, NONE, Standing, Table};
use super::{Change, Limits};
use crate::engine::units::{Deadline, Instant};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

/// See the module.
pub struct Rests {
    table: Table,
    places: Places,
    limits: Limits,
    parted: Parted,
    changes: VecDeque<Change>,
    /// Names are being read; whether everything is to be looked at.
    reading: Option<bool>,
    /// When everything was last to be looked at.
    full_since: Instant,
    /// Names are missing: those from this record on. They are gone when no name is fresh.
    missing_from: Option<u32>,
    /// Nor before this: what was renamed meanwhile is yet to be heard of.
    gone_at: Instant,
    /// How many names are fresh.
    fresh: u32,
    /// The next reading of names: when, and whether everything is to be looked at.
    wanted: Option<(Instant, bool)>,
    /// Where it is.
    folder: PathBuf,
    /// When names are read because the folder does not tell.
    poll_at: Option<Instant>,
    /// Entries there was no record for, in the last reading or since.
    refused: u32,
    full_said: bool,
    /// The names that are watched, when not all are.
    only: Option<Vec<String>>,
}

impl Rests {
    /// Of a folder nothing is known of; its names are wanted, or `only` some.
    pub fn new(folder: PathBuf, only: Option<Vec<String>>, limits: Limits) -> Rests {
        Rests {
            folder,
            only,
            table: Table::new(limits.entries_max),
            places: Places::new(limits.observed_max),
            limits,
            parted: Parted::default(),
            changes: VecDeque::new(),
            reading: None,
            full_since: Instant::default(),
            missing_from: None,
            gone_at: Instant::default(),
            fresh: 0,
            wanted: Some((Instant::default(), true)),
            poll_at: None,
            refused: 0,
            full_said: false,
        }
    }

    /// Notes what the owner knows from an earlier run; says whether there was room to.
    pub fn know(&mut self, key: Key, identity: Identity) -> bool {
        let entry = self.table.find(key).or_else(|| self.table.insert(key));
        entry.inspect(|entry| self.table.tell(*entry, identity)).is_some()
    }

    /// Whether that entry is still known.
    pub fn holds(&self, entry: Entry) -> bool {
        self.table.holds(entry)
    }

    /// Entries known, and those under observation.
    pub fn counts(&self) -> (u32, u32) {
        (self.table.count(), self.places.count())
    }

    /// The next change.
    pub fn take_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Says something itself.
    pub fn say(&mut self, change: Change) {
        let is_anothers = matches!(&change, Change::LeftOut { name, .. } if !self.is_meant(name));
        (!is_anothers).then(|| self.changes.push_back(change));
    }

    fn is_meant(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == name))
    }

    /// Whether there is room for more changes.
    pub fn has_room(&self) -> bool {
        self.changes.len() < CHANGES_MAX
    }

    /// When there is something to do without being told anything.
    pub fn deadline(&self) -> Deadline {
        let at = |at, why| Deadline { at, why };
        let is_free = self.reading.is_none();
        let read = self.wanted.filter(|_| is_free).map(|(at, _)| at);
        let poll = self.poll_at.filter(|_| is_free && self.missing_from.is_none());
        let missing = self.missing_from.filter(|_| self.fresh == 0).map(|_| self.gone_at);
        let or_never = |at: Option<Instant>| at.unwrap_or(Instant::NEVER);
        Deadline::NONE
            .or(at(self.places.first_due(), "a watched entry that may have come to rest"))
            .or(at(self.parted.first_due(), "half of a rename"))
            .or(at(or_never(read), "names in a watched folder"))
            .or(at(or_never(poll), "a watched folder that does not tell"))
            .or(at(or_never(missing), "names gone from a watched folder"))
    }

    /// An event names an entry of the folder.
    pub fn handle_named(&mut self, name: &str, touch: Touch, now: Instant) {
        let key = Key::of(&self.folder, name);
        let entry = match self.table.find(key) {
            Some(entry) => entry,
            None => {
                let Some(entry) = self.admit(key, name) else { return };
                // It may be one that is missing, or will be.
                if self.reading.is_some() || self.missing_from.is_some() {
                    self.make_fresh(entry);
                }
                entry
            }
        };
        self.note_there(entry);
        self.stir(entry, name, touch, now);
    }

    /// An event comes from below an entry.
    pub fn handle_below(&mut self, entry: Entry, touch: Touch, now: Instant) {
        match self.table[entry].standing {
            Standing::Parted => self.table[entry].stale = true,
            _ => self.stir(entry, "", touch, now),
        }
    }

    /// An entry was deleted.
    pub fn handle_gone(&mut self, name: &str, now: Instant) {
        if let Some(entry) = self.table.find(Key::of(&self.folder, name)) {
            self.lose(entry, now);
        }
    }

    /// The first half of a rename.
    pub fn handle_parted(&mut self, name: &str, cookie: u32, now: Instant) {
        let Some(entry) = self.table.find(Key::of(&self.folder, name)) else { return };
        if let Some(lost) = self.parted.make_room() {
            self.lose(lost, now);
        }
        let record = &mut self.table[entry];
        if record.place != NONE {
            let writers = &self.places[record.place].writers;
            record.open |= writers.contains(&ITSELF);
            record.crowded |= !writers.is_empty() && !record.open;
            record.stale = true;
            self.places.release(record.place);
            record.place = NONE;
        }
        self.table.part(entry);
        self.parted.push(cookie, entry, now);
    }

    /// The second half, or something that came from elsewhere.
    pub fn handle_arrived(&mut self, name: &str, cookie: u32, is_folder: bool, now: Instant) {
        let touch = if is_folder { Touch::Folder } else { Touch::Closed(ITSELF) };
        let Some(entry) = self.parted.take(cookie) else {
            return self.handle_named(name, touch, now);
        };
        if !self.is_meant(name) {
            return self.lose(entry, now);
        }
        let key = Key::of(&self.folder, name);
        if let Some(replaced) = self.table.find(key) {
            // Two that changed their names with each other look like this too: it must be seen.
            self.lose(replaced, now);
            self.want(true, now.after(REST_MS));
        }
        let from = self.table[entry].key;
        self.table.rename(entry, key);
        self.note_there(entry);
        let record = &mut self.table[entry];
        if record.told {
            self.changes.push_back(Change::Renamed {
                from,
                to: name.into(),
                identity: record.identity,
            });
        }
        if std::mem::take(&mut record.stale) {
            self.stir(entry, name, Touch::Stirred, now);
        }
    }

    /// Events were lost: whatever is known may have changed.
    pub fn handle_lost(&mut self, now: Instant) {
        let taken: Vec<(u32, Entry)> = self.places.taken().collect();
        for (at, entry) in taken {
            self.places[at].writers.clear();
            self.table[entry].stirred = now;
            self.table[entry].vague = true;
            self.places.queue(at, now.after(REST_MS));
        }
        for record in self.table.records_mut().filter(|record| record.stale) {
            record.open = false;
            record.vague = true;
        }
        self.want(true, now);
    }

    /// The folder is gone: what is known is kept, and nothing is looked at.
    pub fn handle_away(&mut self, now: Instant) {
        self.lose_parted(Instant::NEVER, now);
        let taken: Vec<(u32, Entry)> = self.places.taken().collect();
        for (at, entry) in taken {
            self.places.release(at);
            self.table[entry].place = NONE;
        }
        for record in self.table.records_mut() {
            let is_missing = record.standing == Standing::Missing;
            record.standing = if is_missing { Standing::Here } else { record.standing };
            (record.open, record.stale) = (false, false);
        }
        (self.reading, self.missing_from, self.wanted, self.poll_at) = (None, None, None, None);
        self.say(Change::Away);
    }

    /// The folder is there: all of it is to be looked at, and `polled` from then on.
    pub fn handle_there(&mut self, polled: bool, now: Instant) {
        self.poll_at = polled.then_some(Instant::NEVER);
        self.want(true, now);
    }

    /// From now on the folder does not tell all.
    pub fn handle_silent(&mut self, now: Instant) {
        self.poll_at = self.poll_at.or(Some(now.after(self.limits.poll_ms)));
    }

    /// The next entry to be looked at, by its place.
    pub fn take_due(&mut self, now: Instant) -> Option<(u32, Entry)> {
        self.tell_missing(now);
        loop {
            let (at, entry) = self.places.take_due(now)?;
            let (place, record) = (&mut self.places[at], &self.table[entry]);
            if !std::mem::take(&mut place.at_once) {
                let due = record.stirred.after(place.rest_ms(record));
                if due > now || !place.writers.is_empty() {
                    self.places.queue(at, due);
                    continue;
                }
            }
            self.places.begin_look(at, now);
            return Some((at, entry));
        }
    }

    /// What the entry at a place is called.
    pub fn name(&self, at: u32) -> &str {
        &self.places[at].name
    }

    /// A look at the entry at a place has ended.
    pub fn looked(&mut self, at: u32, sight: &Sight, now: Instant) {
        let Some(entry) = self.places.end_look(at) else { return };
        let was_fresh = self.note_looked(entry);
        match *sight {
            Sight::Nothing => {
                self.lose(entry, now);
                if was_fresh && self.missing_from.is_some() {
                    self.seek_on(now);
                }
            }
            Sight::Alien => {
                let name = self.places[at].name.clone();
                self.say(Change::LeftOut { name, why: ALIEN });
                self.lose(entry, now);
            }
            Sight::Trouble => {
                self.table[entry].stirred = now;
                self.places[at].lingers = true;
                self.places.queue(at, now.after(LONG_REST_MS));
            }
            Sight::Seen { identity, files, has_empty, was_silent } => {
                if !self.table[entry].told && self.adopt(entry, identity) {
                    return;
                }
                let is_crammed = !self.places.has_room();
                let (place, record) = (&mut self.places[at], &mut self.table[entry]);
                let has_stirred = record.stirred > place.looked_at || !place.writers.is_empty();
                if record.told && record.identity == identity && !has_stirred {
                    return self.settle(entry);
                }
                let before = place.seen.replace(identity.stamp);
                let agrees = before == Some(identity.stamp);
                place.tries += u8::from(before.is_some() && !agrees && place.tries < u8::MAX);
                place.lingers = has_empty;
                if !agrees && (record.vague || was_silent) {
                    // From here on it is known whether something was said or not.
                    record.vague = false;
                    record.stirred = now;
                    if !record.told && !has_stirred && is_crammed {
                        return self.set_aside(entry, identity, now);
                    }
                } else if !has_stirred && record.stirred.after(place.rest_ms(record)) <= now {
                    return self.rest(entry, identity, files);
                }
                let due = record.stirred.after(place.rest_ms(record));
                self.places.queue(at, due);
            }
        }
    }

    /// It has come to rest as what it is.
    fn rest(&mut self, entry: Entry, identity: Identity, files: u64) {
        let record = &self.table[entry];
        let name = self.places[record.place].name.clone();
        if files > 0 {
            self.table.tell(entry, identity);
            self.changes.push_back(Change::Rests { name, identity });
        } else if record.told {
            self.changes.push_back(Change::Gone { key: record.key });
            self.table.untell(entry);
        }
        self.settle(entry);
    }

    /// Leaves its place to others until it is looked at again.
    fn set_aside(&mut self, entry: Entry, identity: Identity, now: Instant) {
        let record = &mut self.table[entry];
        self.places.release(record.place);
        (record.place, record.stale, record.identity) = (NONE, true, identity);
        self.want(false, now.after(REST_MS));
    }

    /// Ends the observation of an entry.
    fn settle(&mut self, entry: Entry) {
        let record = &mut self.table[entry];
        self.places.release(record.place);
        record.place = NONE;
        (record.vague, record.crowded, record.open, record.stale) = (false, false, false, false);
    }

    /// Takes a name in that is watched.
    ///
    /// # When full
    /// It is said once, and the name is looked for again when another goes.
    fn admit(&mut self, key: Key, name: &str) -> Option<Entry> {
        let is_meant = self.is_meant(name);
        let entry = if is_meant { self.table.insert(key) } else { None };
        if entry.is_none() && is_meant {
            if !std::mem::replace(&mut self.full_said, true) {
                self.say(Change::Full { entries_max: self.limits.entries_max });
            }
            self.refused = self.refused.saturating_add(1);
        }
        entry
    }

    /// Nobody has told of it: it is to be looked at when there is a place for it.
    fn make_stale(&mut self, entry: Entry) {
        let record = &mut self.table[entry];
        record.vague = true;
        record.stale = record.place == NONE;
    }

    /// Has an entry looked at that nobody has told of.
    fn observe(&mut self, entry: Entry, name: &str, now: Instant) {
        let Some(at) = self.places.take(entry, name) else { return };
        let record = &mut self.table[entry];
        (record.place, record.stale, record.stirred) = (at, false, now);
        self.places[at].at_once = true;
        self.places.queue(at, now);
    }

    /// Its name has come up.
    fn note_there(&mut self, entry: Entry) {
        let record = &mut self.table[entry];
        record.named = true;
        record.standing = Standing::Here;
    }

    /// An entry has changed or is changing. Without a name the folder has to be asked for it.
    fn stir(&mut self, entry: Entry, name: &str, touch: Touch, now: Instant) {
        let record = &mut self.table[entry];
        record.stirred = now;
        if record.place == NONE {
            let Some(at) = self.places.take(entry, name) else {
                return self.put_off(entry, touch, now);
            };
            record.place = at;
            record.stale = false;
            let was_seen = !record.told && record.identity != Identity::default();
            self.places[at].seen = was_seen.then_some(record.identity.stamp);
            if std::mem::take(&mut record.open) {
                self.places[at].note(Touch::Written(ITSELF));
            }
        }
        let at = record.place;
        self.places.name(at, name);
        let place = &mut self.places[at];
        record.crowded |= !place.note(touch);
        if matches!(touch, Touch::Written(_)) {
            self.fresh -= u32::from(std::mem::take(&mut record.fresh));
        }
        let due = if place.at_once { now } else { now.after(REST_MS) };
        let is_nameless = place.name.is_empty();
        self.places.queue(at, due);
        if is_nameless {
            self.want(false, now);
        }
    }

    /// There is no place for it yet.
    fn put_off(&mut self, entry: Entry, touch: Touch, now: Instant) {
        let record = &mut self.table[entry];
        record.stale = true;
        match touch {
            Touch::Written(ITSELF) => record.open = true,
            Touch::Closed(ITSELF) => record.open = false,
            Touch::Written(_) | Touch::Upset => record.crowded = true,
            Touch::Folder => record.vague = true,
            Touch::Stirred | Touch::Closed(_) => {}
        }
        self.want(false, now.after(REST_MS));
    }

    /// An entry is no more.
    fn lose(&mut self, entry: Entry, now: Instant) {
        self.note_looked(entry);
        let record = &self.table[entry];
        if record.told {
            self.changes.push_back(Change::Gone { key: record.key });
        }
        if record.place != NONE {
            self.places.release(record.place);
        }
        self.table.remove(entry);
        if self.refused > 0 {
            self.want(false, now.after(REST_MS));
        }
    }

    /// Those that left their names by then have gone elsewhere.
    fn lose_parted(&mut self, by: Instant, now: Instant) {
        while let Some(entry) = self.parted.take_due(by) {
            self.lose(entry, now);
        }
    }
}

/// What is neither a file nor a folder: a link may lead anywhere, a pipe nowhere.
pub const ALIEN: &str = "is neither a file nor a folder";

/// Changes that wait to be taken; with more, nothing is looked at and no name is read.
const CHANGES_MAX: usize = 64;
