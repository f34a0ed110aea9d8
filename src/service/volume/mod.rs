//! The volumes that shares and targets are on: who they are, whether they are there, how they are.
//!
//! A path says nothing of what is mounted there today. So each share belongs to a [`VolumeId`]
//! ([`identity`]) and to a path below that volume's *home*, the place where it was first seen.
//! [`Volumes`] says where that is now, if it is anywhere, and keeps one [`State`] for each
//! ([`health`]): what has changed is told once, as a [`Change`], never once for each error.
//!
//! ```text
//! Watch: something was mounted ─┐
//! a deadline while it is needed ┴> query() ─ lane: Query::run ─> handle_sight() ─> changes
//! reads and writes end ──────────> note_error(), note_written() ─────────────────> changes
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | who a volume is | [`identity`], [`superblock`] |
//! | what is mounted | [`mounts`] |
//! | what is asked of the world, on lanes | [`look`] |
//! | how a volume is | [`health`] |
//! | what is said of it | [`status`] |
//! | what the archive keeps of them | [`kept`] |
//!
//! Nothing here sleeps but what goes to a lane, and an idle box is not woken: the kernel tells of
//! every change of what is mounted, and a deadline there is only while somebody wants to write.
//!
//! Journey 1 asks [`Query::take_up`] and [`Volumes::note`]; journeys 2 and 3 tell of their errors.

pub mod health;
pub mod identity;
pub mod kept;
pub mod look;
pub mod mounts;
pub mod status;
pub mod superblock;

#[cfg(test)]
mod tests;

pub use health::Deed;
pub use identity::{Found, Kind, MARKER, VolumeId, identify};
pub use look::{Anchor, Query, Sight, System, Whose};
pub use mounts::Watch;
pub use status::{State, Status};

use super::Refusal;
use super::config::Reserve;
use crate::engine::units::{Deadline, Instant};
use health::{Condition, Health, Trouble};
use look::{Known, Sought};
use mounts::{Mount, Standing};
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Every volume that something of ours is on.
pub struct Volumes {
    table: Vec<Volume>,
    volumes_max: usize,
    reserve: Reserve,
    /// When the last look was.
    looked: Option<Instant>,
    /// An error wants to be explained by a look.
    wants_look: bool,
}

/// Something that has become of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one: the front of its id.
    pub volume: u64,
    /// What has become of it.
    pub what: What,
    /// A sentence for the owner.
    pub text: String,
}

/// See [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is there, at this mount, where it was not before: its shares wake.
    Back(PathBuf),
    /// Its state is another one. With [`State::Away`] its shares sleep.
    Is(State),
}

struct Volume {
    known: Known,
    /// Where it was mounted when it was first seen: paths are recorded as if it still were.
    home: PathBuf,
    place: Option<Place>,
    /// Where it is if it is there twice, first the one that is used.
    twice: Option<[PathBuf; 2]>,
    /// An error said that it is gone; what stands there is not believed before.
    doubted: Option<(Standing, Instant)>,
    health: Health,
    /// What the owner was told last.
    said: Option<State>,
}

#[derive(Clone)]
struct Place {
    mount: Mount,
    standing: Standing,
}

impl Place {
    fn of(found: &Found) -> Place {
        Place { mount: found.mount.clone(), standing: found.standing }
    }
}

impl Volumes {
    /// None known yet. Of each some room is kept free.
    pub fn new(volumes_max: usize, reserve: Reserve) -> Volumes {
        let table = Vec::with_capacity(volumes_max);
        Volumes { table, volumes_max, reserve, looked: None, wants_look: false }
    }

    /// Takes up what [`Volumes::to_text`] wrote; how many lines say nothing, or find no room. None
    /// of these is there before the first look.
    pub fn read(&mut self, text: &str) -> usize {
        let mut lost = 0;
        for line in text.lines() {
            match status::parse(line) {
                Some((known, home)) if self.has_room() && self.find(known.id.front()).is_none() => {
                    self.table.push(Volume::new(known, home));
                }
                _ => lost += 1,
            }
        }
        lost
    }

    /// What is known of all of them, a line each, for the next start.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.table.iter().for_each(|volume| status::write(&volume.known, &volume.home, &mut text));
        text
    }

    /// Takes up a volume on which something is shared or fetched from now on.
    ///
    /// # When full
    /// It is refused.
    pub fn note(&mut self, found: &Found) -> Result<Vec<Change>, Refusal> {
        let reserve = self.reserve;
        let Some(at) = self.find(found.id.front()) else {
            if !self.has_room() {
                let problem = std::format!(
                    "is one disk more than the {} there is room for",
                    self.volumes_max
                );
                let remedy = "remove what is shared from one of the others";
                return Err(Refusal::new(found.mount.at.display(), problem, remedy));
            }
            let mut volume = Volume::new(Known::of(found), found.mount.at.clone());
            volume.settle(found, reserve);
            // The owner has just named it, and need not be told that it is there.
            volume.said = Some(volume.state());
            self.table.push(volume);
            return Ok(Vec::new());
        };
        let volume = &mut self.table[at];
        if let Some(place) = &volume.place
            && !place.mount.shows_the_same(&found.mount)
        {
            let (first, second) = (place.mount.at.display(), found.mount.at.display());
            let problem = std::format!("is the same disk as {first}, or a copy of it");
            let remedy = "unmount one of them, or delete its .perennial-volume if it is a copy";
            return Err(Refusal::new(second, problem, remedy));
        }
        let was = volume.at();
        if volume.place.as_ref().is_none_or(|place| place.mount.at == found.mount.at) {
            volume.settle(found, reserve);
        }
        Ok(volume.tell(was, reserve))
    }

    /// On all others nothing of ours is any more.
    pub fn forget_all_but(&mut self, used: &[u64]) {
        self.table.retain(|known| used.contains(&known.known.id.front()));
    }

    /// Whether it is known, or there is room for one more.
    pub fn has_room_for(&self, volume: u64) -> bool {
        self.has_room() || self.knows(volume)
    }

    /// What is left free on each.
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// How much is to be kept free from now on; the next look holds it against what is free.
    pub fn keep_free(&mut self, reserve: Reserve) {
        (self.reserve, self.wants_look) = (reserve, true);
    }

    /// As much may be written where there is that space, without touching what is kept free.
    pub fn room_bytes(&self, space: identity::Space) -> u64 {
        space.free_bytes.saturating_sub(health::reserve(space.total_bytes, self.reserve))
    }

    /// What a lane is to look at.
    pub fn query(&self) -> Query {
        let sought = self.table.iter().map(|volume| Sought {
            known: volume.known,
            home: volume.home.clone(),
            mount: volume.place.as_ref().map(|place| place.mount.clone()),
        });
        Query { volumes: sought.collect() }
    }

    /// Takes what a look has shown.
    pub fn handle_sight(&mut self, sight: &Sight, now: Instant) -> Vec<Change> {
        (self.looked, self.wants_look) = (Some(now), false);
        let mut changes = Vec::new();
        let known: Vec<Known> = self.table.iter().map(|volume| volume.known).collect();
        for volume in &mut self.table {
            if volume.is_among(&sight.unasked) {
                continue;
            }
            let was = volume.at();
            let named = sight.seen.iter().filter(|found| found.id == volume.known.id);
            let mut found: Vec<&Found> = named.collect();
            if found.is_empty() {
                let is_known = |found: &Found| known.iter().any(|other| other.id == found.id);
                let like = |found: &&Found| volume.known.resembles(found) && !is_known(found);
                found = sight.seen.iter().filter(like).collect();
            }
            volume.doubted = volume.doubted.filter(|(_, until)| now < *until);
            found.retain(|found| volume.doubted.is_none_or(|(gone, _)| gone != found.standing));
            volume.choose(&found, &sight.failing, self.reserve, now);
            volume.health.handle_time(now);
            changes.extend(volume.tell(was, self.reserve));
        }
        changes
    }

    /// A read or a write has ended with an error, which may be one of the volume and not of the
    /// file. What it changes is told once.
    pub fn note_error(
        &mut self,
        volume: u64,
        deed: Deed,
        error: &io::Error,
        now: Instant,
    ) -> Vec<Change> {
        let (Some(at), Some(trouble)) = (self.find(volume), Trouble::of(error)) else {
            return Vec::new();
        };
        let volume = &mut self.table[at];
        let was = volume.at();
        volume.health.note_error(trouble, deed, now);
        if trouble == Trouble::Away
            && let Some(place) = volume.place.take()
        {
            volume.doubted = Some((place.standing, now.after(health::TRIAL_MS)));
            volume.twice = None;
        }
        let changes = volume.tell(was, self.reserve);
        self.wants_look |= !changes.is_empty();
        changes
    }

    /// Something has been written and synced, or read back: nothing stands in the way.
    pub fn note_written(&mut self, volume: u64, now: Instant) -> Vec<Change> {
        let Some(at) = self.find(volume) else { return Vec::new() };
        let volume = &mut self.table[at];
        if volume.said == Some(State::Well) {
            return Vec::new();
        }
        volume.health.note_written(now);
        let was = volume.at();
        volume.tell(was, self.reserve)
    }

    /// When the next look is due. `writing`: something is fetched, or would be were there room.
    /// `watched`: the kernel tells of changes.
    pub fn deadline(&self, writing: bool, watched: bool) -> Deadline {
        let is_idle = self.table.is_empty() && !self.wants_look;
        let Some(looked) = self.looked.filter(|_| !is_idle) else {
            let at = if is_idle { Instant::NEVER } else { Instant::default() };
            return Deadline { at, why: "a first look at disks" };
        };
        let passes = self.table.iter().map(|volume| volume.health.passes_at()).min();
        let back = self.table.iter().filter_map(|volume| Some(volume.doubted?.1)).min();
        let some = |at: Option<Instant>, why| Deadline { at: at.unwrap_or(Instant::NEVER), why };
        let mut due = some(passes, "a disk that failed").or(some(back, "a disk that went away"));
        if self.wants_look {
            due = due.or(Deadline { at: looked.after(LOOK_PAUSE_MS), why: "a disk's error" });
        }
        if writing || !watched {
            due = due.or(Deadline { at: looked.after(LOOK_MS), why: "room on disks" });
        }
        due
    }

    /// Whether what is fetched may be written there now.
    pub fn may_fetch(&self, volume: u64, now: Instant) -> bool {
        self.find(volume).is_some_and(|at| {
            let volume = &self.table[at];
            volume.place.is_some() && volume.health.may_write(now)
        })
    }

    /// Where it was seen last, to be asked on a lane whether it is still there; `None` when it is
    /// known to be away.
    pub fn anchor(&self, volume: u64) -> Option<Anchor> {
        let volume = &self.table[self.find(volume)?];
        let Place { mount, standing } = volume.place.clone()?;
        Some(Anchor { known: volume.known, mount, standing })
    }

    /// Whether a volume is there this instant and holds `path`. Sleeps: on a lane ask an
    /// [`Anchor`].
    pub fn is_there(&self, volume: u64, path: &Path) -> bool {
        self.anchor(volume).is_some_and(|anchor| anchor.holds(path))
    }

    /// Where something is now that was recorded as `stored`; `None` while its volume is away.
    pub fn path_now(&self, volume: u64, stored: &Path) -> Option<PathBuf> {
        let volume = &self.table[self.find(volume)?];
        Some(relocate(&volume.home, &volume.place.as_ref()?.mount.at, stored))
    }

    /// What is to be recorded for a `path` on a volume that has just been found and noted.
    pub fn path_to_store(&self, found: &Found, path: &Path) -> PathBuf {
        let home = self.find(found.id.front()).map(|at| &self.table[at].home);
        home.map_or(path.to_path_buf(), |home| relocate(&found.mount.at, home, path))
    }

    /// What is to be recorded for something that is at `path` now, on a volume that is there.
    pub fn stored(&self, volume: u64, path: &Path) -> Option<PathBuf> {
        let volume = &self.table[self.find(volume)?];
        Some(relocate(&volume.place.as_ref()?.mount.at, &volume.home, path))
    }

    /// What is recorded of a path, as far as that can be said without asking anybody: it is on the
    /// volume with the deepest mount above it.
    pub fn stored_path(&self, path: &Path) -> PathBuf {
        let places = self.table.iter().filter_map(|volume| Some((volume, volume.place.as_ref()?)));
        let above = places.filter(|(_, place)| path.starts_with(&place.mount.at));
        let deepest = above.max_by_key(|(_, place)| place.mount.at.as_os_str().len());
        deepest.map_or(path.to_path_buf(), |(volume, place)| {
            relocate(&place.mount.at, &volume.home, path)
        })
    }

    /// Those that are there and not at home.
    pub fn displaced(&self) -> Vec<u64> {
        let away = |volume: &&Volume| volume.at().is_some_and(|at| at != volume.home);
        self.table.iter().filter(away).map(|volume| volume.known.id.front()).collect()
    }

    /// The next look is due.
    pub fn want_look(&mut self) {
        self.wants_look = true;
    }

    /// Whether it was there at the last look.
    pub fn is_placed(&self, volume: u64) -> bool {
        self.find(volume).is_some_and(|at| self.table[at].place.is_some())
    }

    /// Whether it is known.
    pub fn knows(&self, volume: u64) -> bool {
        self.find(volume).is_some()
    }

    /// What there is to say of each.
    pub fn statuses(&self) -> impl Iterator<Item = Status<'_>> {
        self.table.iter().map(|volume| volume.status(self.reserve))
    }

    /// What there is to say of one.
    pub fn status(&self, volume: u64) -> Option<Status<'_>> {
        self.find(volume).map(|at| self.table[at].status(self.reserve))
    }

    fn find(&self, volume: u64) -> Option<usize> {
        self.table.iter().position(|known| known.known.id.front() == volume)
    }

    fn has_room(&self) -> bool {
        self.table.len() < self.volumes_max
    }
}

impl Volume {
    fn new(known: Known, home: PathBuf) -> Volume {
        let health = Health::default();
        Volume { known, home, place: None, twice: None, doubted: None, health, said: None }
    }

    fn at(&self) -> Option<PathBuf> {
        self.place.as_ref().map(|place| place.mount.at.clone())
    }

    /// It is, or was, where one of these is mounted.
    fn is_among(&self, mounts: &[PathBuf]) -> bool {
        let at = self.place.as_ref().map_or(&self.home, |place| &place.mount.at);
        mounts.contains(at)
    }

    /// It is here.
    fn settle(&mut self, found: &Found, reserve: Reserve) {
        if found.id == self.known.id && found.kind == Kind::File {
            // Who was known without a file and has been given one is known by it from now on.
            self.known = Known::of(found);
        }
        self.place = Some(Place::of(found));
        self.health.note_space(found.space, reserve);
    }

    /// Decides which of those who say that they are it, it is.
    fn choose(&mut self, found: &[&Found], failing: &[Mount], reserve: Reserve, now: Instant) {
        // A folder that is mounted twice is there once: at the place that is known, if it can be.
        let rank = |found: &Found| {
            let is_used = self.at().is_some_and(|at| at == found.mount.at);
            (!is_used, self.home != found.mount.at)
        };
        let mut apart: Vec<&Found> = Vec::new();
        for found in found {
            match apart.iter_mut().find(|other| other.mount.shows_the_same(&found.mount)) {
                Some(other) if rank(found) < rank(other) => *other = found,
                Some(_) => {}
                None => apart.push(found),
            }
        }
        let is_used = |found: &&&Found| {
            self.place.as_ref().is_some_and(|place| place.mount.shows_the_same(&found.mount))
        };
        let is_home = |found: &&&Found| found.mount.at == self.home;
        let chosen = match apart[..] {
            [only] => Some(only),
            _ => apart.iter().find(is_used).or_else(|| apart.iter().find(is_home)).copied(),
        };
        let others = apart
            .iter()
            .filter(|other| chosen.is_none_or(|chosen| !other.mount.shows_the_same(&chosen.mount)));
        let mut places = chosen.into_iter().chain(others.copied()).map(|found| &found.mount.at);
        let pair = |first: &PathBuf, second: &PathBuf| [first.clone(), second.clone()];
        let twice = places.next().zip(places.next()).map(|(first, second)| pair(first, second));
        let fails = |place: &Place| failing.contains(&place.mount);
        match chosen {
            Some(found) => self.settle(found, reserve),
            // It is mounted, and answers, though with errors: whether it is there is not in doubt.
            None if apart.is_empty() && self.place.as_ref().is_some_and(fails) => {
                self.health.note_error(Trouble::Failing, Deed::Read, now);
            }
            None => self.place = None,
        }
        self.twice = twice;
    }

    fn state(&self) -> State {
        match (&self.twice, &self.place) {
            (Some(_), _) => State::Twice,
            (None, None) => State::Away,
            (None, Some(_)) => match self.health.condition() {
                Condition::Failing => State::Failing,
                Condition::ReadOnly => State::ReadOnly,
                Condition::Full => State::Full,
                Condition::Well => State::Well,
            },
        }
    }

    /// What the owner has not been told yet.
    fn tell(&mut self, was: Option<PathBuf>, reserve: Reserve) -> Vec<Change> {
        let (now, state, volume) = (self.at(), self.state(), self.known.id.front());
        let mut changes = Vec::new();
        if let Some(at) = now.filter(|now| Some(now) != was.as_ref()) {
            let (shown, id) = (at.display(), self.known.id.short());
            let text = std::format!("disk {shown} ({id}): is there, and its shares are awake");
            changes.push(Change { volume, what: What::Back(at), text });
            // That it is back says that it is well.
            self.said = Some(State::Well);
        }
        if self.said != Some(state) {
            let text = self.status(reserve).to_string();
            changes.push(Change { volume, what: What::Is(state), text });
            self.said = Some(state);
        }
        changes
    }

    fn status(&self, reserve: Reserve) -> Status<'_> {
        Status {
            id: self.known.id,
            state: self.state(),
            at: self.place.as_ref().map_or(&self.home, |place| &place.mount.at),
            is_there: self.place.is_some(),
            twice: self.twice.as_ref(),
            health: &self.health,
            reserve,
        }
    }
}

/// The path that one below `from` has when what is mounted there is mounted at `to`.
pub fn relocate(from: &Path, to: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(below) if below.as_os_str().is_empty() => to.to_path_buf(),
        Ok(below) => to.join(below),
        Err(_) => path.to_path_buf(),
    }
}

/// Between two looks while somebody wants to write.
const LOOK_MS: u64 = 10_000;

/// Between two looks at the least, however many errors there are.
const LOOK_PAUSE_MS: u64 = 1_000;
