//! What is known of each entry of a watched folder: a record of fixed size, and no name.
//!
//! An entry is found by its [`Key`], and one that has come to rest also by its [`Identity`]: that is
//! how a name that is gone and a name that is new turn out to be the same thing. Records lie in
//! one vector made at start; the two look-ups beside it hold their numbers, in open addressing.
//!
//! # When full
//! [`Table::insert`] gives nothing, and nothing that is known is forgotten for it.

use crate::engine::library::root_key;
use crate::engine::units::Instant;
use std::path::Path;
use std::vec::Vec;

/// Stands for an entry: its path, hashed as the library's [`root_key`] is. The same on every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

impl Key {
    /// Of a name in the watched folder.
    pub fn of(folder: &Path, name: &str) -> Key {
        Key(root_key(folder.join(name).as_os_str().as_encoded_bytes()))
    }
}

/// What an entry looked like at rest. A rename leaves all of it as it is, any other change does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its number in its file system; 0 where such numbers do not last.
    pub inode: u64,
    /// The files in it: where each is below the entry, its length, its inode, when it was written.
    pub stamp: u64,
}

/// A record's place in the table, and which of those that have been in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    at: u32,
    epoch: u32,
}

/// What is known of an entry.
#[derive(Debug)]
pub struct Record {
    /// What it is called.
    pub key: Key,
    /// What the owner of the watch knows of it, once `told`; before that, what the last look saw.
    pub identity: Identity,
    /// When it last stirred.
    pub stirred: Instant,
    /// Its place among those under observation, [`NONE`] when it is not; the next free record.
    pub place: u32,
    epoch: u32,
    /// How it stands with its name.
    pub standing: Standing,
    /// Whether the owner of the watch has been told that it is there.
    pub told: bool,
    /// Its name has come up since the reading of names began.
    pub named: bool,
    /// It has to be looked at, and has no place to be observed in yet.
    pub stale: bool,
    /// Its name was found by reading, and nobody has looked at it yet.
    pub fresh: bool,
    /// It is a file somebody is writing to: said of one without a place.
    pub open: bool,
    /// Not all who write to files in it could be counted.
    pub crowded: bool,
    /// It may have changed without a word: only two looks that agree tell that it rests.
    pub vague: bool,
}

/// How a record stands with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No entry's.
    Free,
    /// The entry is there.
    Here,
    /// Its name was not among those that were read.
    Missing,
    /// It has left its name; the next event may give it another. No key leads to it.
    Parted,
}

/// See the module.
pub struct Table {
    records: Vec<Record>,
    records_max: u32,
    count: u32,
    free: u32,
    by_key: Index,
    by_identity: Index,
}

impl Table {
    /// A table of so many entries.
    pub fn new(entries_max: u32) -> Table {
        Table {
            records: Vec::with_capacity(entries_max as usize),
            records_max: entries_max,
            count: 0,
            free: NONE,
            by_key: Index::new(entries_max),
            by_identity: Index::new(entries_max),
        }
    }

    /// What one holds, in bytes.
    pub const fn memory_bytes(entries_max: u32) -> u64 {
        entries_max as u64 * size_of::<Record>() as u64 + 2 * Index::memory_bytes(entries_max)
    }

    /// How many entries are known.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The entry of that name.
    pub fn find(&self, key: Key) -> Option<Entry> {
        let found = self.by_key.find(key.0, |at| self.records[at as usize].key == key);
        found.map(|at| self.entry(at))
    }

    /// An entry that was told, is missing and was the same thing.
    pub fn find_missing(&self, identity: Identity) -> Option<Entry> {
        let found = self.by_identity.find(hash_of(identity), |at| {
            let record = &self.records[at as usize];
            record.identity == identity && record.standing == Standing::Missing
        });
        found.filter(|_| identity.inode != 0).map(|at| self.entry(at))
    }

    /// Takes in an entry of a name that leads to none; `None` when there is no room.
    pub fn insert(&mut self, key: Key) -> Option<Entry> {
        let at = match self.free {
            NONE if self.records.len() as u32 == self.records_max => return None,
            NONE => {
                self.records.push(Record::default());
                self.records.len() as u32 - 1
            }
            at => {
                self.free = self.records[at as usize].place;
                at
            }
        };
        let epoch = self.records[at as usize].epoch;
        self.records[at as usize] =
            Record { key, epoch, standing: Standing::Here, ..Record::default() };
        self.by_key.insert(key.0, at);
        self.count += 1;
        Some(self.entry(at))
    }

    /// Forgets an entry.
    pub fn remove(&mut self, entry: Entry) {
        self.untell(entry);
        self.part(entry);
        let free = self.free;
        let record = &mut self[entry];
        record.standing = Standing::Free;
        record.epoch = record.epoch.wrapping_add(1);
        record.place = free;
        self.free = entry.at;
        self.count -= 1;
    }

    /// Takes an entry's name from it.
    pub fn part(&mut self, entry: Entry) {
        if self[entry].standing != Standing::Parted {
            let Table { by_key, records, .. } = self;
            by_key.remove(entry.at, |at| records[at as usize].key.0);
            self[entry].standing = Standing::Parted;
        }
    }

    /// Gives an entry another name, which leads to none.
    pub fn rename(&mut self, entry: Entry, key: Key) {
        self.part(entry);
        self[entry].key = key;
        self[entry].standing = Standing::Here;
        self.by_key.insert(key.0, entry.at);
    }

    /// Notes that the owner knows an entry, and as what.
    pub fn tell(&mut self, entry: Entry, identity: Identity) {
        self.untell(entry);
        self[entry].identity = identity;
        self[entry].told = true;
        self.by_identity.insert(hash_of(identity), entry.at);
    }

    /// Notes that the owner no longer knows an entry.
    pub fn untell(&mut self, entry: Entry) {
        if self[entry].told {
            let Table { by_identity, records, .. } = self;
            by_identity.remove(entry.at, |at| hash_of(records[at as usize].identity));
            self[entry].told = false;
        }
    }

    /// Whether that entry is still known.
    pub fn holds(&self, entry: Entry) -> bool {
        let record = &self.records[entry.at as usize];
        record.epoch == entry.epoch && record.standing != Standing::Free
    }

    /// The first entry that is known from place `from` on, and the place behind it.
    pub fn next(&self, from: u32) -> Option<(Entry, u32)> {
        let mut later = self.records.iter().enumerate().skip(from as usize);
        let (at, _) = later.find(|(_, record)| record.standing != Standing::Free)?;
        Some((self.entry(at as u32), at as u32 + 1))
    }

    /// All records, those that are free too.
    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut()
    }

    fn entry(&self, at: u32) -> Entry {
        Entry { at, epoch: self.records[at as usize].epoch }
    }
}

impl std::ops::Index<Entry> for Table {
    type Output = Record;

    fn index(&self, entry: Entry) -> &Record {
        &self.records[entry.at as usize]
    }
}

impl std::ops::IndexMut<Entry> for Table {
    fn index_mut(&mut self, entry: Entry) -> &mut Record {
        &mut self.records[entry.at as usize]
    }
}

impl Default for Record {
    fn default() -> Record {
        Record {
            key: Key(0),
            identity: Identity::default(),
            stirred: Instant::default(),
            place: NONE,
            epoch: 0,
            standing: Standing::Free,
            told: false,
            named: true,
            stale: false,
            fresh: false,
            open: false,
            crowded: false,
            vague: false,
        }
    }
}

fn hash_of(identity: Identity) -> u64 {
    identity.inode.wrapping_mul(SPREAD) ^ identity.stamp
}

/// Numbers of things, found by a hash of each: open addressing, a quarter of it always free.
pub struct Index {
    /// Each holds the number after one's own, 0 when free: what was never used costs no page.
    slots: Vec<u32>,
}

impl Index {
    /// One for so many.
    pub fn new(count_max: u32) -> Index {
        Index { slots: std::vec![0; Index::slots(count_max)] }
    }

    /// What it holds, in bytes.
    pub const fn memory_bytes(count_max: u32) -> u64 {
        Index::slots(count_max) as u64 * size_of::<u32>() as u64
    }

    const fn slots(count_max: u32) -> usize {
        count_max as usize / 3 * 4 + 4
    }

    /// The first of that hash that `is_it`.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut slot = self.home(hash);
        while let Some(number) = self.slots[slot].checked_sub(1) {
            if is_it(number) {
                return Some(number);
            }
            slot = self.behind(slot);
        }
        None
    }

    /// Takes in one. There is room: who numbers things has fewer than it was made for.
    pub fn insert(&mut self, hash: u64, number: u32) {
        let mut slot = self.home(hash);
        while self.slots[slot] != 0 {
            slot = self.behind(slot);
        }
        self.slots[slot] = number + 1;
    }

    /// Takes out one that is in it.
    pub fn remove(&mut self, number: u32, hash_of: impl Fn(u32) -> u64) {
        let mut hole = self.home(hash_of(number));
        while self.slots[hole] != number + 1 {
            assert_ne!(self.slots[hole], 0, "what is removed was there");
            hole = self.behind(hole);
        }
        // What stands behind moves up, unless it stands where it belongs or nearer to it.
        let mut slot = self.behind(hole);
        while let Some(number) = self.slots[slot].checked_sub(1) {
            let home = self.home(hash_of(number));
            let stays = if hole <= slot {
                hole < home && home <= slot
            } else {
                hole < home || home <= slot
            };
            if !stays {
                self.slots[hole] = number + 1;
                hole = slot;
            }
            slot = self.behind(slot);
        }
        self.slots[hole] = 0;
    }

    fn home(&self, hash: u64) -> usize {
        let spread = hash.wrapping_mul(SPREAD);
        ((u128::from(spread) * self.slots.len() as u128) >> 64) as usize
    }

    fn behind(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }
}

/// No number.
pub const NONE: u32 = u32::MAX;

/// Spreads numbers that are close over all 64 bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_go_and_change_their_names_and_all_others_are_still_found() {
        let mut table = Table::new(300);
        let mut there: Vec<(Key, Entry)> = Vec::new();
        let mut chance = 1_u64;
        for step in 0..20_000_u64 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let pick = (chance >> 33) as usize;
            match pick % 4 {
                0 | 1 if there.len() < 300 => {
                    let entry = table.insert(Key(chance)).expect("there is room");
                    table.tell(entry, Identity { inode: chance % 7, stamp: chance % 5 });
                    there.push((Key(chance), entry));
                }
                2 if !there.is_empty() => {
                    let (_, entry) = there.swap_remove(pick % there.len());
                    table.remove(entry);
                    assert!(!table.holds(entry));
                }
                3 if !there.is_empty() => {
                    let at = pick % there.len();
                    there[at].0 = Key(step);
                    table.rename(there[at].1, Key(step));
                }
                _ => assert!(there.len() < 300 || table.insert(Key(chance)).is_none()),
            }
            assert_eq!(table.count() as usize, there.len());
            if step % 50 == 0 {
                assert!(there.iter().all(|(key, entry)| table.find(*key) == Some(*entry)));
            }
        }
    }

    #[test]
    fn only_what_is_missing_is_found_by_what_it_is() {
        let mut table = Table::new(4);
        let identity = Identity { inode: 5, stamp: 6 };
        let entry = table.insert(Key(1)).unwrap();
        table.tell(entry, identity);
        assert_eq!(table.find_missing(identity), None);
        table[entry].standing = Standing::Missing;
        assert_eq!(table.find_missing(identity), Some(entry));
        table.untell(entry);
        assert_eq!(table.find_missing(identity), None);
        assert_eq!((size_of::<Record>(), Table::memory_bytes(300)), (48, 300 * 48 + 2 * 404 * 4));
    }
}
