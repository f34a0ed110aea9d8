//! What has happened to a folder, told by [`Rests`] on a clock and in a folder of the test's own.

use super::look::Sight;
use super::places::{ITSELF, Touch};
use super::rests::Rests;
use super::table::{Identity, Key};
use super::{Change, Limits};
use crate::engine::units::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::string::{String, ToString};
use std::vec::Vec;

/// An entry of the folder, as a look would see it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Thing {
    inode: u64,
    stamp: u64,
    files: u64,
    is_empty: bool,
}

fn file(inode: u64) -> Thing {
    Thing { inode, stamp: inode * 1_000, files: 1, is_empty: false }
}

fn identity(thing: Thing) -> Identity {
    Identity { inode: thing.inode, stamp: thing.stamp }
}

/// A folder, a clock, and who is told.
struct Stage {
    rests: Rests,
    now: Instant,
    folder: BTreeMap<String, Thing>,
    /// Nobody tells what happens.
    is_silent: bool,
    /// Names still to be read, when some are.
    names: Option<VecDeque<String>>,
    looks: u32,
    told: Vec<Change>,
    /// What somebody who heeds all changes believes.
    belief: BTreeMap<Key, Identity>,
}

impl Stage {
    fn new(observed_max: u32, poll_ms: Option<u64>) -> Stage {
        let limits = Limits {
            entries_max: 20_000,
            observed_max,
            watches_max: 0,
            poll_ms: poll_ms.unwrap_or(0),
            listens: poll_ms.is_none(),
        };
        let mut rests = Rests::new(FOLDER.into(), None, limits);
        rests.handle_there(poll_ms.is_some(), Instant::default());
        Stage {
            rests,
            now: Instant::default(),
            folder: BTreeMap::new(),
            is_silent: poll_ms.is_some(),
            names: None,
            looks: 0,
            told: Vec::new(),
            belief: BTreeMap::new(),
        }
    }

    /// With that in the folder, known and at rest.
    fn with(observed_max: u32, poll_ms: Option<u64>, there: &[(&str, Thing)]) -> Stage {
        let mut stage = Stage::new(observed_max, poll_ms);
        for (name, thing) in there {
            assert!(stage.rests.know(Key::of(FOLDER.as_ref(), name), identity(*thing)));
            stage.belief.insert(Key::of(FOLDER.as_ref(), name), identity(*thing));
            stage.folder.insert(name.to_string(), *thing);
        }
        stage.wait(1_000);
        assert_eq!((stage.take_told(), stage.looks), (Vec::new(), there.len() as u32));
        stage.looks = 0;
        stage
    }

    /// Lets time pass, with everything done that is due.
    fn wait(&mut self, ms: u64) {
        let until = self.now.after(ms);
        loop {
            self.settle();
            let next = self.rests.deadline();
            if next.at > until {
                self.now = until;
                return;
            }
            assert!(next.at > self.now || self.names.is_some(), "{}: nothing moves", next.why);
            self.now = next.at.max(self.now);
        }
    }

    /// Does all that can be done now.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            let worked = self.work();
            let Some(change) = self.rests.take_change() else {
                match worked {
                    true => continue,
                    false => return,
                }
            };
            self.heed(&change);
            self.told.push(change);
        }
        panic!("it never comes to an end");
    }

    fn work(&mut self) -> bool {
        if let Some((at, _)) = self.rests.take_due(self.now) {
            self.looks += 1;
            let sight = match self.folder.get(self.rests.name(at)) {
                None => Sight::Nothing,
                Some(thing) => Sight::Seen {
                    identity: identity(*thing),
                    files: thing.files,
                    has_empty: thing.is_empty,
                    was_silent: self.is_silent,
                },
            };
            self.rests.looked(at, &sight, self.now);
            return true;
        }
        if let Some(names) = &mut self.names {
            let Some(name) = names.front() else {
                self.names = None;
                self.rests.end_reading(true, self.now);
                return true;
            };
            let taken = self.rests.handle_name(name, self.now);
            if taken {
                names.pop_front();
            }
            return taken;
        }
        if self.rests.begin_reading(self.now) {
            self.names = Some(self.folder.keys().cloned().collect());
            return true;
        }
        false
    }

    /// Does what the owner of a watch does.
    fn heed(&mut self, change: &Change) {
        match change {
            Change::Rests { name, identity } => {
                self.belief.insert(Key::of(FOLDER.as_ref(), name), *identity);
            }
            Change::Renamed { from, to, identity } => {
                assert_eq!(self.belief.remove(from), Some(*identity), "{to}: nothing is hashed");
                self.belief.insert(Key::of(FOLDER.as_ref(), to), *identity);
            }
            Change::Gone { key } => {
                assert!(self.belief.remove(key).is_some(), "what is gone was there");
            }
            _ => {}
        }
    }

    fn take_told(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.told)
    }

    /// A file is copied into the folder at once.
    fn drop_file(&mut self, name: &str, thing: Thing) {
        self.folder.insert(name.into(), thing);
        for touch in [Touch::Stirred, Touch::Written(ITSELF), Touch::Closed(ITSELF)] {
            self.rests.handle_named(name, touch, self.now);
        }
    }

    fn rename(&mut self, from: &str, to: &str, cookie: u32) {
        let thing = self.folder.remove(from).unwrap();
        self.folder.insert(to.into(), thing);
        self.rests.handle_parted(from, cookie, self.now);
        self.rests.handle_arrived(to, cookie, false, self.now);
    }

    fn assert_believed(&self) {
        let there = self.folder.iter().filter(|(_, thing)| thing.files > 0);
        let there = there.map(|(name, thing)| (Key::of(FOLDER.as_ref(), name), identity(*thing)));
        assert_eq!(self.belief, there.collect());
        assert_eq!(self.rests.counts().1, 0, "nothing is under observation");
    }
}

fn rests(name: &str, thing: Thing) -> Change {
    Change::Rests { name: name.into(), identity: identity(thing) }
}

fn gone(name: &str) -> Change {
    Change::Gone { key: Key::of(FOLDER.as_ref(), name) }
}

fn renamed(from: &str, to: &str, thing: Thing) -> Change {
    Change::Renamed {
        from: Key::of(FOLDER.as_ref(), from),
        to: to.into(),
        identity: identity(thing),
    }
}

#[test]
fn a_dropped_file_is_looked_at_once_half_a_second_after_its_last_byte() {
    let mut stage = Stage::with(4, None, &[]);
    stage.drop_file("film", file(1));
    stage.wait(499);
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 0));
    stage.wait(1);
    assert_eq!((stage.take_told(), stage.looks), ([rests("film", file(1))].into(), 1));
    assert_eq!(stage.rests.deadline().at, Instant::NEVER, "an idle watch wakes nobody");
    stage.assert_believed();
}

#[test]
fn a_file_that_is_still_open_is_not_told_of_however_slowly_it_grows() {
    let mut stage = Stage::with(4, None, &[]);
    stage.folder.insert("film".into(), file(1));
    stage.rests.handle_named("film", Touch::Stirred, stage.now);
    for _ in 0..10 {
        stage.rests.handle_named("film", Touch::Written(ITSELF), stage.now);
        stage.wait(60_000);
    }
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 0));
    assert_eq!(stage.rests.deadline().at, Instant::NEVER, "it waits for the end");
    stage.rests.handle_named("film", Touch::Closed(ITSELF), stage.now);
    stage.wait(500);
    assert_eq!((stage.take_told(), stage.looks), ([rests("film", file(1))].into(), 1));
}

#[test]
fn an_empty_file_may_only_have_been_begun() {
    let mut stage = Stage::with(4, None, &[]);
    let empty = Thing { is_empty: true, ..file(1) };
    stage.folder.insert("film".into(), empty);
    stage.rests.handle_named("film", Touch::Stirred, stage.now);
    stage.wait(9_999);
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 1));
    stage.wait(1);
    assert_eq!((stage.take_told(), stage.looks), ([rests("film", empty)].into(), 2));
}

#[test]
fn a_rename_is_told_at_once_and_nothing_is_looked_at() {
    let mut stage = Stage::with(4, None, &[("a", file(1)), ("b", file(2))]);
    stage.rename("a", "c", 7);
    stage.rename("c", "d", 8);
    stage.wait(10_000);
    let told = [renamed("a", "c", file(1)), renamed("c", "d", file(1))];
    assert_eq!((stage.take_told(), stage.looks), (told.into(), 0));
    // Half of one went elsewhere.
    stage.folder.remove("b");
    stage.rests.handle_parted("b", 9, stage.now);
    stage.wait(100);
    assert_eq!(stage.take_told(), [gone("b")]);
    stage.assert_believed();
}

#[test]
fn what_takes_the_name_of_another_or_changes_names_with_it_is_what_it_is() {
    let mut stage = Stage::with(4, None, &[("a", file(1)), ("b", file(2)), ("c", file(3))]);
    stage.rename("a", "b", 7);
    stage.wait(10_000);
    assert_eq!(stage.take_told(), [gone("b"), renamed("a", "b", file(1))]);
    assert_eq!(stage.looks, 2, "everything once");
    // Two that change their names with each other: the kernel tells of two renames.
    stage.folder = [("b", file(3)), ("c", file(1))].map(|(name, it)| (name.into(), it)).into();
    for (from, to, cookie) in [("b", "c", 8), ("c", "b", 9)] {
        stage.rests.handle_parted(from, cookie, stage.now);
        stage.rests.handle_arrived(to, cookie, false, stage.now);
    }
    stage.wait(10_000);
    stage.assert_believed();
}

#[test]
fn a_file_renamed_while_it_grows_waits_under_its_new_name() {
    let mut stage = Stage::with(4, None, &[]);
    stage.folder.insert("a".into(), file(1));
    stage.rests.handle_named("a", Touch::Written(ITSELF), stage.now);
    stage.rename("a", "b", 7);
    stage.wait(60_000);
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 0));
    stage.rests.handle_named("b", Touch::Closed(ITSELF), stage.now);
    stage.wait(500);
    assert_eq!((stage.take_told(), stage.looks), ([rests("b", file(1))].into(), 1));
}

#[test]
fn a_change_below_a_folder_has_changed_the_folder() {
    let folder = Thing { files: 3, ..file(1) };
    let mut stage = Stage::with(4, None, &[("folder", folder), ("other", file(2))]);
    let entry = {
        // The ears know whose watch it is.
        stage.rests.handle_named("folder", Touch::Stirred, stage.now);
        stage.rests.take_due(stage.now.after(500)).map(|(at, entry)| {
            let (files, has_empty, was_silent) = (3, false, false);
            let identity = identity(folder);
            let sight = Sight::Seen { identity, files, has_empty, was_silent };
            stage.rests.looked(at, &sight, stage.now.after(500));
            entry
        })
    };
    stage.wait(1_000);
    let changed = Thing { stamp: 77, ..folder };
    stage.folder.insert("folder".into(), changed);
    for touch in [Touch::Written(5), Touch::Written(6), Touch::Closed(6)] {
        stage.rests.handle_below(entry.unwrap(), touch, stage.now);
    }
    stage.wait(60_000);
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 0), "one of two is still open");
    stage.rests.handle_below(entry.unwrap(), Touch::Closed(5), stage.now);
    stage.wait(500);
    assert_eq!((stage.take_told(), stage.looks), ([rests("folder", changed)].into(), 1));
    // Emptied, it holds nothing to share; it is there all the same.
    stage.folder.insert("folder".into(), Thing { files: 0, stamp: 0, ..folder });
    stage.rests.handle_below(entry.unwrap(), Touch::Stirred, stage.now);
    stage.wait(500);
    assert_eq!(stage.take_told(), [gone("folder")]);
    stage.assert_believed();
}

#[test]
fn ten_thousand_files_are_looked_at_once_each_with_room_for_64() {
    let mut stage = Stage::with(64, None, &[]);
    for inode in 1..=10_000 {
        stage.drop_file(&inode.to_string(), file(inode));
    }
    stage.wait(2_000);
    assert_eq!(stage.looks, 10_000);
    stage.assert_believed();
}

#[test]
fn after_lost_events_everything_is_looked_at_once_more_and_nothing_is_missed() {
    let mut stage = Stage::with(64, None, &[]);
    for inode in 1..=1_000 {
        stage.drop_file(&inode.to_string(), file(inode));
    }
    stage.wait(2_000);
    (stage.looks, stage.told) = (0, Vec::new());
    stage.folder.insert("new".into(), file(2_000));
    stage.folder.insert("5".into(), Thing { stamp: 1, ..file(5) });
    stage.folder.remove("6");
    let moved = stage.folder.remove("7").unwrap();
    stage.folder.insert("seven".into(), moved);
    stage.rests.handle_lost(stage.now);
    stage.wait(3_000);
    stage.assert_believed();
    assert!(stage.told.contains(&renamed("7", "seven", file(7))));
    // Those that are new or differ have to look the same twice.
    assert_eq!((stage.told.len(), stage.looks), (4, 1_000 + 2));
}

#[test]
fn what_happened_while_nobody_was_there_is_told_and_nothing_else() {
    let mut stage = Stage::new(4, None);
    for (name, inode) in [("same", 1), ("old name", 2), ("gone", 3), ("changed", 4)] {
        assert!(stage.rests.know(Key::of(FOLDER.as_ref(), name), identity(file(inode))));
        stage.belief.insert(Key::of(FOLDER.as_ref(), name), identity(file(inode)));
    }
    let changed = Thing { stamp: 9, ..file(4) };
    let there = [("same", file(1)), ("new name", file(2)), ("changed", changed), ("new", file(5))];
    stage.folder = there.map(|(name, thing)| (name.into(), thing)).into();
    stage.wait(5_000);
    let told = stage.take_told();
    for change in [
        renamed("old name", "new name", file(2)),
        gone("gone"),
        rests("changed", changed),
        rests("new", file(5)),
    ] {
        assert!(told.contains(&change), "{change:?}");
    }
    assert_eq!((told.len(), stage.looks), (4, 6));
    stage.assert_believed();
}

/// One known by a name it has no more, with names being read: all of those are.
fn with_one_moved(poll_ms: Option<u64>, there: &str) -> Stage {
    let mut stage = Stage::new(4, poll_ms);
    assert!(stage.rests.know(Key::of(FOLDER.as_ref(), "film"), identity(file(1))));
    stage.belief.insert(Key::of(FOLDER.as_ref(), "film"), identity(file(1)));
    stage.folder.insert(there.into(), file(1));
    assert!(stage.work() && stage.names.is_some());
    stage
}

#[test]
fn what_is_renamed_again_before_it_is_looked_at_keeps_what_it_is() {
    let mut stage = with_one_moved(None, "film-1");
    while stage.rests.counts().1 == 0 {
        assert!(stage.work());
    }
    stage.folder = [("film-2".into(), file(1))].into();
    stage.wait(50);
    assert_eq!(stage.take_told(), [], "the kernel's word is yet to be heard");
    stage.rests.handle_parted("film-1", 7, stage.now);
    stage.rests.handle_arrived("film-2", 7, false, stage.now);
    stage.wait(5_000);
    assert_eq!(stage.take_told(), [renamed("film", "film-2", file(1))]);
    stage.assert_believed();
    // Where nothing is told, names are read once more.
    let mut stage = with_one_moved(Some(10_000), "film-1");
    while stage.rests.counts().1 == 0 {
        assert!(stage.work());
    }
    stage.folder = [("film-2".into(), file(1))].into();
    stage.wait(5_000);
    assert_eq!(stage.take_told(), [renamed("film", "film-2", file(1))]);
}

#[test]
fn what_is_renamed_past_whoever_reads_the_names_keeps_what_it_is() {
    let mut stage = with_one_moved(None, "film-1");
    stage.folder = [("film-2".into(), file(1))].into();
    // Neither name is read: the one was gone already, the other not there yet.
    stage.names = Some(VecDeque::new());
    stage.rests.handle_parted("film-1", 7, stage.now);
    stage.wait(50);
    stage.rests.handle_arrived("film-2", 7, false, stage.now);
    stage.wait(5_000);
    assert_eq!(stage.take_told(), [renamed("film", "film-2", file(1))]);
    stage.assert_believed();
    // What does not come again is gone all the same.
    let mut stage = with_one_moved(None, "other");
    stage.folder = BTreeMap::new();
    stage.names = Some(VecDeque::new());
    stage.wait(5_000);
    assert_eq!(stage.take_told(), [gone("film")]);
}

#[test]
fn a_folder_that_does_not_tell_is_looked_at_once_a_period() {
    let mut stage = Stage::with(4, Some(10_000), &[("a", file(1)), ("b", file(2))]);
    assert_eq!(stage.rests.deadline().why, "a watched folder that does not tell");
    let moved = stage.folder.remove("a").unwrap();
    stage.folder.insert("c".into(), moved);
    stage.folder.remove("b");
    stage.folder.insert("d".into(), file(4));
    stage.wait(12_000);
    let told = stage.take_told();
    for change in [renamed("a", "c", file(1)), gone("b"), rests("d", file(4))] {
        assert!(told.contains(&change), "{change:?}");
    }
    assert_eq!((told.len(), stage.looks), (3, 1 + 2));
    stage.looks = 0;
    stage.wait(100_000);
    assert_eq!((stage.take_told(), stage.looks), (Vec::new(), 2 * 10));
    // One that grows between any two looks is not told of.
    for stamp in 0..100 {
        stage.folder.insert("d".into(), Thing { stamp, ..file(4) });
        stage.wait(900);
    }
    assert_eq!(stage.take_told(), []);
    stage.wait(25_000);
    stage.assert_believed();
}

#[test]
fn a_folder_that_goes_away_takes_nothing_with_it() {
    let mut stage = Stage::with(4, None, &[("a", file(1)), ("b", file(2))]);
    stage.drop_file("c", file(3));
    stage.rests.handle_away(stage.now);
    stage.wait(100_000);
    assert_eq!((stage.take_told(), stage.looks), ([Change::Away].into(), 0));
    stage.folder.remove("b");
    stage.rests.handle_there(false, stage.now);
    stage.wait(2_000);
    assert_eq!(stage.take_told(), [gone("b"), rests("c", file(3))]);
    stage.assert_believed();
}

#[test]
fn more_entries_than_there_is_room_for_are_said_once_and_come_when_others_go() {
    let mut stage = Stage::new(4, None);
    let limits =
        Limits { entries_max: 10, observed_max: 4, watches_max: 0, poll_ms: 0, listens: true };
    stage.rests = Rests::new(FOLDER.into(), None, limits);
    for inode in 1..=15 {
        stage.drop_file(&inode.to_string(), file(inode));
    }
    stage.wait(5_000);
    assert_eq!(stage.belief.len(), 10);
    let full = Change::Full { entries_max: 10 };
    assert_eq!(stage.told.iter().filter(|told| **told == full).count(), 1);
    let there: Vec<String> = stage.folder.keys().cloned().collect();
    for name in there
        .iter()
        .filter(|name| stage.belief.contains_key(&Key::of(FOLDER.as_ref(), name)))
        .take(5)
    {
        stage.folder.remove(name);
        stage.rests.handle_gone(name, stage.now);
    }
    stage.wait(5_000);
    stage.assert_believed();
}

#[test]
fn a_watch_of_ten_thousand_entries_and_four_thousand_folders_holds_less_than_a_mebibyte() {
    let limits = Limits {
        entries_max: 10_000,
        observed_max: 256,
        watches_max: 4_096,
        poll_ms: 10_000,
        listens: true,
    };
    assert!(super::Watch::memory_bytes(limits) < 1 << 20);
}

#[test]
fn whatever_happens_in_whatever_order_the_owner_ends_up_knowing_what_is_there() {
    for seed in 0..300_u64 {
        run_by_chance(seed);
    }
}

fn run_by_chance(seed: u64) {
    let mut chance = seed;
    let mut draw = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (chance >> 33) % below
    };
    let poll_ms = (draw(4) == 0).then_some(2_000);
    let mut stage = Stage::new(1 + draw(6) as u32, poll_ms);
    let (mut next, mut lost) = (0, false);
    for _ in 0..200 {
        let name = draw(12).to_string();
        let hears = poll_ms.is_none() && draw(30) > 0;
        lost |= poll_ms.is_none() && !hears;
        next += 1;
        match (draw(6), stage.folder.contains_key(&name)) {
            (0 | 1, false) => {
                stage.folder.insert(name.clone(), file(next));
                if hears {
                    stage.drop_file(&name, file(next));
                }
            }
            (2, true) => {
                let changed = Thing { stamp: next + 500_000, ..stage.folder[&name] };
                stage.folder.insert(name.clone(), changed);
                if hears {
                    stage.drop_file(&name, changed);
                }
            }
            (3, true) => {
                stage.folder.remove(&name);
                if hears {
                    stage.rests.handle_gone(&name, stage.now);
                }
            }
            (4, true) => {
                let to = draw(12).to_string();
                if hears && to != name {
                    stage.rename(&name, &to, next as u32);
                } else {
                    let thing = stage.folder.remove(&name).unwrap();
                    stage.folder.insert(to, thing);
                }
            }
            (5, _) if draw(20) == 0 => {
                stage.rests.handle_away(stage.now);
                stage.names = None;
                stage.rests.handle_there(poll_ms.is_some(), stage.now);
            }
            _ => stage.wait(draw(1_500)),
        }
        if lost && draw(3) == 0 {
            lost = false;
            stage.rests.handle_lost(stage.now);
        }
    }
    stage.rests.handle_lost(stage.now);
    stage.wait(60_000);
    let observed = stage.rests.counts().1;
    let there =
        stage.folder.iter().map(|(name, thing)| (Key::of(FOLDER.as_ref(), name), identity(*thing)));
    assert_eq!((stage.belief, observed), (there.collect(), 0), "seed {seed}");
}

/// The folder that is watched.
const FOLDER: &str = "/watched";
