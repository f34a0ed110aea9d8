//! The table of volumes as the archive keeps it: `STATE/volumes`, and where a torrent is now.
//!
//! A torrent's record names its volume, and its facts the path it had when that volume was at
//! home. The file is written before the record, so that no record names a volume that nobody knows.
//! Should it be lost, volumes are found again by their names, once their torrents are asked for.

use super::identity::Space;
use super::{Change, Deed, Found, Query, Sight, State as How, Volumes};
use crate::engine::library::{Entry, root_key};
use crate::engine::units::{Deadline, InfoHash, Instant};
use crate::service::config::Reserve;
use crate::service::draft::write_synced;
use crate::service::known::Place;
use crate::service::refusal::Refusal;
use crate::service::state::{State, refused, sync_folder};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// The table, and what of it is on disk.
pub struct Kept {
    table: Volumes,
    /// What is on disk; nothing when that is not all there was.
    saved: String,
    /// What has not been told yet.
    news: Vec<Change>,
    /// Volumes that torrents are on and nobody knows.
    lost: RefCell<Vec<u64>>,
    /// There is one more of them since the last look.
    seeks: Cell<bool>,
}

/// What somebody has met with on a volume.
#[derive(Debug)]
pub enum Word {
    /// An error.
    Error(Deed, io::Error),
    /// Something was written and synced.
    Written,
}

/// How a volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which: the front of its id.
    pub volume: u64,
    /// Its state.
    pub state: How,
    /// What is on it can be served.
    pub is_there: bool,
    /// What is fetched may be written to it.
    pub may_fetch: bool,
    /// As much may be written without touching what is kept free.
    pub room_bytes: u64,
    /// As much has been written since a look found that.
    pub stored_bytes: u64,
    /// Nothing more is to be written before the next look.
    pub waits: bool,
}

/// How all of them stand.
pub struct Survey {
    /// What has become of them since the last.
    pub changes: Vec<Change>,
    /// Each of them.
    pub standings: Vec<Standing>,
    /// When they are to be looked at again.
    pub due: Deadline,
}

/// What the owner is told of one.
pub struct Told {
    /// The front of its id.
    pub volume: u64,
    /// What tells it from others.
    pub name: String,
    /// Where it is, or was.
    pub at: PathBuf,
    /// Its state.
    pub state: How,
    /// What is free, where it is there.
    pub free_bytes: Option<u64>,
}

impl Kept {
    /// Reads what was written down.
    pub fn open(folder: &Path) -> Kept {
        // Until the configuration says more, if there is one.
        let mut table = Volumes::new(VOLUMES_MAX, Reserve::Bytes(0));
        let path = folder.join(FILE);
        let read = fs::read_to_string(&path);
        let lost = table.read(read.as_deref().unwrap_or_default());
        if lost > 0 {
            warn!("{}: {lost} disks in it cannot be read; they are looked for", path.display());
        }
        let saved = read.ok().filter(|_| lost == 0).unwrap_or_default();
        let (news, lost, seeks) = (Vec::new(), RefCell::default(), Cell::new(false));
        Kept { table, saved, news, lost, seeks }
    }

    fn save(&mut self, folder: &Path) -> Result<(), Refusal> {
        let text = self.table.to_text();
        if text == self.saved {
            return Ok(());
        }
        let (path, new) = (folder.join(FILE), folder.join(NEW_FILE));
        write_synced(&new, text.as_bytes())?;
        let renamed = fs::rename(&new, &path).and_then(|()| sync_folder(folder));
        renamed.map_err(|error| refused(&path, error))?;
        self.saved = text;
        Ok(())
    }
}

impl State<'_> {
    /// Where it is now that was recorded at `stored`; `None` while it is asleep.
    pub fn place_of(&self, entry: &Entry, stored: &Path) -> Option<Place> {
        if entry.volume == 0 {
            return Some(Place { root: stored.to_path_buf(), anchor: None });
        }
        if !self.knows_volume(entry.volume) {
            return None;
        }
        let root = self.kept.table.path_now(entry.volume, stored)?;
        let anchor = self.kept.table.anchor(entry.volume).map(Arc::new);
        Some(Place { root, anchor })
    }

    /// Whether the volume a torrent is on is away.
    pub fn is_asleep(&self, entry: &Entry) -> bool {
        let is_there = |volume| self.knows_volume(volume) && self.kept.table.is_placed(volume);
        entry.volume != 0 && !is_there(entry.volume)
    }

    /// On which volume something is that has just been placed at `root`, and what is recorded of
    /// where. Without anything found it is where the torrent was before.
    pub(in crate::service) fn stand(
        &mut self,
        info_hash: &InfoHash,
        found: Option<&Found>,
        root: &Path,
    ) -> Result<(u64, PathBuf), Refusal> {
        let Some(found) = found else {
            let volume = self.get(info_hash).map_or(0, |entry| entry.volume);
            if volume == 0 {
                return Ok((0, root.to_path_buf()));
            }
            let stored = self.kept.table.stored(volume, root);
            let away = || Refusal::new(root.display(), AWAY, "plug its disk in");
            return Ok((volume, stored.ok_or_else(away)?));
        };
        self.note(found)?;
        Ok((found.id.front(), self.kept.table.path_to_store(found, root)))
    }

    /// A volume is there on which something is, or is to be.
    ///
    /// # When full
    /// Those that no torrent is on are forgotten; if there are none, it is refused.
    pub fn note(&mut self, found: &Found) -> Result<(), Refusal> {
        if !self.kept.table.has_room_for(found.id.front()) {
            let (mut used, mut after) = (Vec::new(), None);
            while let Some((slot, entry)) = self.next(after) {
                after = Some(slot);
                if !used.contains(&entry.volume) {
                    used.push(entry.volume);
                }
            }
            self.kept.table.forget_all_but(&used);
        }
        let changes = self.kept.table.note(found)?;
        self.kept.news.extend(changes);
        let folder = self.path().to_path_buf();
        self.kept.save(&folder)
    }

    /// What is recorded of something that lies at `path`, as far as that is known.
    pub fn stored_path(&self, path: &Path) -> PathBuf {
        self.kept.table.stored_path(path)
    }

    /// The torrents of which the content lies now, or lay before it fell asleep, at the path that
    /// `key` stands for.
    ///
    /// # Work
    /// While a disk is mounted elsewhere than at home the torrents on it are gone through.
    pub fn lying_at(&mut self, key: u64) -> Vec<Entry> {
        let mut found = self.under(key);
        found.retain(|entry| self.key_now(entry).is_none_or(|now| now == key));
        let displaced = self.kept.table.displaced();
        let mut after = None;
        while !displaced.is_empty()
            && let Some((slot, entry)) = self.next(after)
        {
            after = Some(slot);
            let is_new = !found.iter().any(|other| other.info_hash == entry.info_hash);
            if displaced.contains(&entry.volume) && is_new && self.key_now(&entry) == Some(key) {
                found.push(entry);
            }
        }
        found
    }

    fn key_now(&self, entry: &Entry) -> Option<u64> {
        let place = self.with_facts(entry, |facts, _| self.place_of(entry, Path::new(facts.root)));
        Some(root_key(place??.root.as_os_str().as_encoded_bytes()))
    }

    /// What a lane is to look at.
    pub fn query(&self) -> Query {
        self.kept.table.query()
    }

    /// As much may be written where there is that space, without touching what is kept free.
    pub fn room_bytes(&self, space: Space) -> u64 {
        self.kept.table.room_bytes(space)
    }

    /// What is left free of a volume of so many bytes.
    pub fn reserve_bytes(&self, total_bytes: u64) -> u64 {
        super::health::reserve(total_bytes, self.kept.table.reserve())
    }

    /// How much is to be left free from now on.
    pub fn keep_free(&mut self, reserve: Reserve) {
        self.kept.table.keep_free(reserve);
    }

    /// Takes what looks have shown and what others have met with, and says how all volumes stand.
    /// `writing`: something is fetched. `watched`: the kernel tells what is mounted.
    pub fn survey(
        &mut self,
        sights: &[Sight],
        words: &[(u64, Word)],
        (writing, watched): (bool, bool),
        now: Instant,
    ) -> Survey {
        for sight in sights {
            self.find_again(sight);
            let changes = self.kept.table.handle_sight(sight, now);
            self.kept.news.extend(changes);
        }
        let table = &mut self.kept.table;
        if self.kept.seeks.take() {
            table.want_look();
        }
        for (volume, word) in words {
            self.kept.news.extend(match word {
                Word::Error(deed, error) => table.note_error(*volume, *deed, error, now),
                Word::Written => table.note_written(*volume, now),
            });
        }
        let folder = self.path().to_path_buf();
        if let Err(refusal) = self.kept.save(&folder) {
            warn!("{refusal}");
        }
        let table = &self.kept.table;
        let standing = |status: super::Status<'_>| {
            let (volume, state, is_there) = (status.id.front(), status.state, status.is_there);
            let room_bytes = table.room_bytes(status.health.space());
            let may_fetch = table.may_fetch(volume, now);
            let (stored_bytes, waits) = (0, false);
            Standing { volume, state, is_there, may_fetch, room_bytes, stored_bytes, waits }
        };
        let standings = table.statuses().map(standing).collect();
        let due = table.deadline(writing, watched);
        Survey { changes: std::mem::take(&mut self.kept.news), standings, due }
    }

    /// What the owner is told of each volume.
    pub fn volumes_told(&self) -> Vec<Told> {
        let told = |status: super::Status<'_>| Told {
            volume: status.id.front(),
            name: status.id.short(),
            at: status.at.to_path_buf(),
            state: status.state,
            free_bytes: status.is_there.then(|| status.health.space().free_bytes),
        };
        self.kept.table.statuses().map(told).collect()
    }

    /// What the owner is told of the volume a torrent is on.
    pub fn volume_words(&self, entry: &Entry) -> Option<String> {
        let status = self.kept.table.status(entry.volume)?;
        let (at, id, state) = (status.at.display(), status.id.short(), status.state.word());
        Some(std::format!("{at} ({id}), {state}"))
    }

    /// Whether a torrent has been met since that is on a volume nobody knows: a look may find it.
    pub fn seeks_volumes(&self) -> bool {
        self.kept.seeks.get()
    }

    /// Whether a volume is known; one that is not is looked for in all that is mounted.
    fn knows_volume(&self, volume: u64) -> bool {
        if self.kept.table.knows(volume) {
            return true;
        }
        let mut lost = self.kept.lost.borrow_mut();
        if !lost.contains(&volume) && lost.len() < VOLUMES_MAX {
            lost.push(volume);
            self.kept.seeks.set(true);
        }
        false
    }

    fn find_again(&mut self, sight: &Sight) {
        for found in &sight.seen {
            let volume = found.id.front();
            let is_lost = self.kept.lost.borrow().contains(&volume);
            if is_lost && self.note(found).is_ok() {
                self.kept.lost.borrow_mut().retain(|lost| *lost != volume);
            }
        }
    }
}

/// Disks that torrents are on.
pub const VOLUMES_MAX: usize = 16;

/// What is kept of one: its names, and where it is and was.
pub const VOLUME_BYTES: usize = 1024;

const FILE: &str = "volumes";

const NEW_FILE: &str = "volumes.new";

const AWAY: &str = "is on a disk that is not there";
