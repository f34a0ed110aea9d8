//! Watched folders: each entry of a folder becomes a share by being there.
//!
//! A [`Watch`] says, as data, what has happened to a folder's entries, and decides nothing about
//! sharing. An entry is a file or a folder that lies in the watched one; what changes anywhere
//! below a folder has changed that entry. An entry is told of when it has come to rest: nobody has
//! it open for writing, as far as that is known, and nothing in it has changed for half a second.
//!
//! ```text
//!  inotify ──> ears ─┐ events          ┌─> Change: Rests, Renamed, Gone, Away, Back, ...
//!  stat    ──> look ─┼─────> rests ────┤
//!  readdir ──> names ┘  table, places  └─> what to look at next, and when
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | what has happened, without a clock or a file system | [`rests`] |
//! | entries at rest, 48 bytes each and no name | [`table`] |
//! | entries that change | [`places`], [`parted`] |
//! | what the kernel tells, what an entry is, what the folder stands on | [`ears`], [`look`], [`ground`] |
//! | a link in a file | [`magnet`] |
//!
//! Who owns a watch waits for [`Watch::news`] or [`Watch::deadline`], whichever comes first, has
//! [`Watch::turn`] run where it may sleep, and then takes every [`Change`]. With inotify an idle
//! watch has no deadline. Where the kernel does not tell (network file systems, no watches left), it
//! also looks by itself, says so once, and its deadline says what for.
//!
//! A name that is gone is told by its [`Key`], since no names are kept. What the owner knows from an
//! earlier run it hands in first ([`Watch::know`]); then only what differs is told, and neither
//! what is as it was nor what was renamed meanwhile has to be hashed again.
//!
//! Journey 1 begins here for what is dropped into a folder: a change goes to `share`.

pub mod ears;
pub mod ground;
pub mod look;
pub mod magnet;
pub mod parted;
pub mod places;
pub mod rests;
pub mod table;

pub use magnet::read_magnet;
pub use table::{Identity, Key};

use super::refusal::Refusal;
use super::walk::unreadable;
use crate::engine::units::{Deadline, Instant};
use ears::{Ears, judge};
use ground::Ground;
use look::{Look, Sight};
use rests::{ALIEN, Rests};
use std::fmt;
use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;
use table::{Entry, Table};

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry that is new or has changed has come to rest.
    Rests {
        /// What it is called.
        name: String,
        /// What it is.
        identity: Identity,
    },
    /// An entry has another name, and is what it was.
    Renamed {
        /// What it was called.
        from: Key,
        /// What it is called.
        to: String,
        /// What it is.
        identity: Identity,
    },
    /// An entry is no longer there, or no file is left in it.
    Gone {
        /// What it was called.
        key: Key,
    },
    /// The folder is gone, or the volume it is on. Its entries are not: they are kept in mind.
    Away,
    /// The folder is there again; what has changed meanwhile is told after this.
    Back,
    /// Not all changes are told by the kernel, so the folder is looked at now and then.
    Polling {
        /// Because of what.
        why: Why,
    },
    /// There are more entries than there is room for; those beyond are left alone until others go.
    Full {
        /// The board's limit.
        entries_max: u32,
    },
    /// Something in the folder cannot be shared.
    LeftOut {
        /// What it is called, as far as that can be said.
        name: String,
        /// What is wrong, as a sentence's end.
        why: &'static str,
    },
}

/// Why a folder is looked at although nothing was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The file system does not tell what others change.
    FileSystem(&'static str),
    /// The kernel has no watches left for this user.
    WatchesOfKernel,
    /// There are more folders than the board has room for.
    WatchesOfBoard,
    /// The kernel offers no inotify, or no more of it to this user.
    NoInotify,
    /// It was asked for.
    Asked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::FileSystem(name) => write!(f, "{name} does not tell what other machines change"),
            Why::WatchesOfKernel => {
                write!(f, "the kernel has no watches left; raise fs.inotify.max_user_watches")
            }
            Why::WatchesOfBoard => write!(f, "it holds more folders than the board can watch"),
            Why::NoInotify => {
                write!(f, "inotify is not to be had; see fs.inotify.max_user_instances")
            }
            Why::Asked => write!(f, "it was asked for"),
        }
    }
}

/// What a board gives a watch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of the folder.
    pub entries_max: u32,
    /// Entries under observation at a time; others that change wait for a place.
    pub observed_max: u32,
    /// Folders below the watched one that are listened to.
    pub watches_max: u32,
    /// Pause between two looks at a folder that does not tell, at least.
    pub poll_ms: u64,
    /// Whether the kernel is asked to tell at all.
    pub listens: bool,
}

/// How much was done: to be shown, and to be held against what had to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries known now.
    pub entries: u32,
    /// Entries under observation now.
    pub observed: u32,
    /// Folders listened to now.
    pub watches: u32,
    /// Events heard.
    pub events: u64,
    /// Looks at entries.
    pub looks: u64,
    /// Readings of the folder's names.
    pub readings: u64,
    /// Turns taken.
    pub turns: u64,
}

/// A watched folder. See the module.
pub struct Watch {
    folder: PathBuf,
    limits: Limits,
    /// Not all of its entries are watched, and so each file by itself.
    is_of_some: bool,
    rests: Rests,
    ears: Option<Ears>,
    /// What the folder stands on, or stood on when it was last there.
    ground: Option<Ground>,
    is_away: bool,
    /// When it is next looked whether it is back.
    return_at: Instant,
    /// The folder may not be what it was.
    is_doubted: bool,
    polling_said: bool,
    looking: Option<(u32, Entry, Look)>,
    reading: Option<Reading>,
    /// Events are being gathered until then.
    gather_until: Option<Instant>,
    is_busy: bool,
    counts: Counts,
}

/// Names being read.
struct Reading {
    names: ReadDir,
    /// One that there was no place for.
    held: Option<String>,
}

impl Watch {
    /// Watches the folder at that path, which may be away for now.
    ///
    /// # Work
    /// A few calls to its file system, which can sleep.
    pub fn open(folder: &Path, limits: Limits) -> Result<Watch, Refusal> {
        Watch::open_for(folder, None, limits)
    }

    /// The same of `only` some of its entries: what happens to others wakes nobody, but for their
    /// coming and going.
    pub fn open_for(
        folder: &Path,
        only: Option<Vec<String>>,
        limits: Limits,
    ) -> Result<Watch, Refusal> {
        let mut watch = Watch {
            folder: folder.to_path_buf(),
            limits,
            is_of_some: only.is_some(),
            rests: Rests::new(folder.to_path_buf(), only, limits),
            ears: None,
            ground: None,
            is_away: true,
            return_at: Instant::default(),
            is_doubted: false,
            polling_said: false,
            looking: None,
            reading: None,
            gather_until: None,
            is_busy: false,
            counts: Counts::default(),
        };
        match Ground::of(folder).and_then(|ground| folder.read_dir().map(|_| ground)) {
            Ok(ground) => watch.settle_on(ground, Instant::default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                watch.rests.handle_away(Instant::default());
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let remedy = "name a folder, or share the file itself";
                return Err(Refusal::new(folder.display(), "is not a folder", remedy));
            }
            Err(error) => return Err(unreadable(folder, error)),
        }
        Ok(watch)
    }

    /// What one may hold, in bytes.
    pub const fn memory_bytes(limits: Limits) -> u64 {
        Table::memory_bytes(limits.entries_max)
            + places::Places::memory_bytes(limits.observed_max)
            + Ears::memory_bytes(limits.watches_max)
    }

    /// Hands in what an entry was when it was last told of, in an earlier run. If it is missing, it
    /// is told to be gone; if it is as it was, nothing is told. Before the first turn.
    pub fn know(&mut self, key: Key, identity: Identity) -> Result<(), Refusal> {
        if self.rests.know(key, identity) {
            return Ok(());
        }
        let problem = std::format!("had more than {} entries before", self.limits.entries_max);
        Err(Refusal::new(self.folder.display(), problem, "choose a larger board with --board"))
    }

    /// Waits until the kernel has something to tell; for ever, if it does not tell or if what it
    /// tells is being gathered: there is a deadline for that.
    pub async fn news(&self) {
        match &self.ears {
            Some(ears) if self.gather_until.is_none() => ears.news().await,
            _ => std::future::pending().await,
        }
    }

    /// When the next turn is due even without news.
    pub fn deadline(&self) -> Deadline {
        let at = |at, why| Deadline { at, why };
        if self.is_away {
            return at(self.return_at, "a watched folder that is away");
        }
        let own = match self.is_busy {
            true => at(Instant::default(), "a watched folder with more to look at"),
            false => self.rests.deadline(),
        };
        let gathered = self.gather_until.unwrap_or(Instant::NEVER);
        own.or(at(gathered, "what happened in a watched folder"))
    }

    /// The volume may have come or gone, or something been mounted on the folder: the next turn,
    /// which is due at once, makes sure of it and looks at everything.
    pub fn doubt(&mut self) {
        (self.is_doubted, self.is_busy, self.return_at) = (true, true, Instant::default());
        self.rests.want(true, Instant::default());
    }

    /// Does what there is to do, and says what has become of it in changes to be taken.
    ///
    /// # Work
    /// Some hundred events and 64 calls to the file system; it sleeps for as long as they do. If
    /// there is more, the next turn is due at once.
    pub fn turn(&mut self, now: Instant) {
        self.counts.turns += 1;
        self.is_busy = false;
        if self.is_away && !self.come_back(now) {
            return;
        }
        self.hear(now);
        if std::mem::take(&mut self.is_doubted) && !self.stands() {
            return self.go_away(now);
        }
        let mut work = WORK_PER_TURN;
        let mut goes_on = true;
        while goes_on && work > 0 && self.rests.has_room() {
            goes_on = self.go_on(&mut work, now);
        }
        self.is_busy |= goes_on;
    }

    /// The next change that a turn has found.
    pub fn take_change(&mut self) -> Option<Change> {
        self.rests.take_change()
    }

    /// Where an entry lies.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How much was done.
    pub fn counts(&self) -> Counts {
        let (entries, observed) = self.rests.counts();
        let watches = self.ears.as_ref().map_or(0, Ears::count);
        Counts { entries, observed, watches, ..self.counts }
    }

    fn hear(&mut self, now: Instant) {
        self.gather_until = self.gather_until.filter(|until| now < *until);
        let Some(ears) = &mut self.ears else { return };
        for _ in 0..READS_PER_TURN {
            if !self.rests.has_room() {
                break;
            }
            let news = ears.hear(&mut self.rests, now);
            self.counts.events += u64::from(news.events);
            self.is_doubted |= news.doubtful;
            if !news.more {
                return;
            }
            self.gather_until = Some(now.after(GATHER_MS));
        }
        self.is_busy = true;
    }

    /// Does one thing; says whether there may be another.
    fn go_on(&mut self, work: &mut u32, now: Instant) -> bool {
        if let Some((at, entry, look)) = &mut self.looking {
            let Some(sight) = look.go_on(*entry, &mut self.ears, work) else { return true };
            let at = *at;
            self.looking = None;
            if matches!(sight, Sight::Nothing) && !self.stands() {
                self.rests.looked(at, &Sight::Trouble, now);
                self.go_away(now);
                return false;
            }
            self.heed_limits(now);
            self.rests.looked(at, &sight, now);
        } else if let Some((at, entry)) = self.rests.take_due(now) {
            self.counts.looks += 1;
            let path = self.folder.join(self.rests.name(at));
            let kind = self.ground.map(|ground| ground.kind);
            let is_silent = self.ears.is_none() || kind.is_some_and(|kind| kind.silent.is_some());
            let inodes_last = kind.is_some_and(|kind| kind.inodes_last);
            self.looking = Some((at, entry, Look::new(path, inodes_last, is_silent)));
        } else if self.reading.is_some() {
            *work -= 1;
            return self.read_names(now);
        } else if self.rests.begin_reading(now) {
            self.begin_reading(now);
        } else {
            return false;
        }
        true
    }

    fn begin_reading(&mut self, now: Instant) {
        if !self.stands() {
            return self.go_away(now);
        }
        self.counts.readings += 1;
        match self.folder.read_dir() {
            Ok(names) => self.reading = Some(Reading { names, held: None }),
            Err(_) => self.rests.end_reading(false, now),
        }
    }

    /// Reads some names; says whether that has led to anything.
    fn read_names(&mut self, now: Instant) -> bool {
        let is_first = self.counts.readings == 1;
        let Some(reading) = &mut self.reading else { return true };
        for taken in 0..NAMES_AT_ONCE {
            let name = match reading.held.take() {
                Some(name) => name,
                None => match reading.names.next().map(|found| found.map(|f| name_of(&f))) {
                    None => return self.end_reading(true, now),
                    Some(Err(_)) => return self.end_reading(false, now),
                    Some(Ok(Ok(name))) => name,
                    Some(Ok(Err(left_out))) => {
                        left_out.filter(|_| is_first).into_iter().for_each(|it| self.rests.say(it));
                        continue;
                    }
                },
            };
            if !self.rests.handle_name(&name, now) {
                reading.held = Some(name);
                return taken > 0;
            }
        }
        true
    }

    fn end_reading(&mut self, all: bool, now: Instant) -> bool {
        self.reading = None;
        if !self.stands() {
            self.go_away(now);
            return false;
        }
        self.rests.end_reading(all, now);
        true
    }

    /// Whether the folder is still the one it was.
    fn stands(&self) -> bool {
        self.ground.is_some_and(|ground| ground.is_at(&self.folder))
    }

    /// The folder is there, on that ground.
    fn settle_on(&mut self, ground: Ground, now: Instant) {
        self.is_away = false;
        self.ground = Some(ground);
        let silent = ground.kind.silent.map(Why::FileSystem);
        let heard = match self.limits.listens {
            true => Ears::open(&self.folder, self.is_of_some, self.limits.watches_max),
            false => Err(Why::Asked),
        };
        let why = heard.as_ref().err().copied().or(silent);
        self.ears = heard.ok();
        self.rests.handle_there(why.is_some(), now);
        why.into_iter().for_each(|why| self.say_polling(why));
    }

    fn come_back(&mut self, now: Instant) -> bool {
        if now < self.return_at {
            return false;
        }
        self.return_at = now.after(AWAY_PAUSE_MS);
        let Ok(ground) = Ground::of(&self.folder) else { return false };
        if self.ground.is_some_and(|was| !was.may_have_become(&ground)) {
            return false;
        }
        self.rests.say(Change::Back);
        self.is_doubted = false;
        self.settle_on(ground, now);
        true
    }

    fn go_away(&mut self, now: Instant) {
        self.rests.handle_away(now);
        if let Some((at, ..)) = self.looking.take() {
            self.rests.looked(at, &Sight::Trouble, now);
        }
        (self.ears, self.reading, self.gather_until) = (None, None, None);
        (self.is_away, self.is_doubted, self.is_busy) = (true, false, false);
        self.return_at = now.after(AWAY_PAUSE_MS);
    }

    /// When there are no more watches: those of entries that are gone are given back; without any,
    /// it is looked from now on.
    fn heed_limits(&mut self, now: Instant) {
        let Some(ears) = &mut self.ears else { return };
        let Some(why) = ears.spent else { return };
        if !ears.sweep(&self.rests) {
            self.rests.handle_silent(now);
            self.say_polling(why);
        }
    }

    fn say_polling(&mut self, why: Why) {
        if !std::mem::replace(&mut self.polling_said, true) {
            self.rests.say(Change::Polling { why });
        }
    }
}

/// The name of an entry, or what is to be said of what is none.
fn name_of(found: &DirEntry) -> Result<String, Option<Change>> {
    let name = found.file_name();
    let name = judge(&name)?.to_string();
    match found.file_type() {
        Ok(kind) if kind.is_file() || kind.is_dir() => Ok(name),
        Ok(_) => Err(Some(Change::LeftOut { name, why: ALIEN })),
        // It is gone, or the next look finds out.
        Err(_) => Ok(name),
    }
}

/// Calls to the file system in one turn.
const WORK_PER_TURN: u32 = 64;

/// Times that events are read in one turn.
const READS_PER_TURN: u32 = 32;

/// Names that are read for one call: they come by the hundred.
const NAMES_AT_ONCE: u32 = 32;

/// Events wake nobody for so long after some of them were read.
const GATHER_MS: u64 = 50;

/// Between two looks for a folder that is away.
const AWAY_PAUSE_MS: u64 = 5_000;

#[cfg(test)]
mod tests;
