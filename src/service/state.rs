//! The state folder: what the box remembers, in the one place it writes to.
//!
//! ```text
//! STATE/lock                      held by the one process that uses it, whose number it holds
//! STATE/journal                   what has changed since the last checkpoint (engine/journal)
//! STATE/slots                     which torrents there are (engine/library/catalog)
//! STATE/staging, STATE/lookup     a checkpoint on its way into the slots; a cache of where in them
//! STATE/damaged                   what stood in slots that were damaged
//! STATE/wanted/HASH.json          what of a torrent is wanted (service/wanted)
//! STATE/watched/KEY               what a watched folder held (service/remembered)
//! STATE/volumes                   which disks are known (service/volume)
//! STATE/control                   the socket for the owner's commands (service/control)
//! STATE/dht                       nodes of the DHT that were known last (service/dht)
//! STATE/torrents/HASH-CRC/facts     what is known of one; CRC is theirs
//! STATE/torrents/HASH-CRC/extents   which file holds which bytes
//! STATE/torrents/HASH-CRC/have      its bitfield, when it is not whole
//! STATE/torrents/HASH-CRC/progress  its bitfield while it is fetched (engine/library/progress)
//! STATE/torrents/HASH-CRC/NAME.torrent
//! STATE/new/1/                      one being made; cleared away at the next start
//! ```
//!
//! A torrent's folder is made whole and synced under `new/1`, then renamed, then recorded. Other
//! facts make another folder, and the old one goes once the record is durable: a cut at any
//! instant leaves a torrent as before or as after.

use super::clock;
use super::control::what::What;
use super::draft;
use super::flash_file::{FlashFile, FlashFileError};
use super::known::{Known, Spoiled, trackers_of};
use super::refusal::Refusal;
use super::shelf_file::{self, ShelfFile};
use super::volume::Found;
use super::volume::kept::Kept;
use crate::engine::journal::JournalError;
use crate::engine::library::catalog::{Catalog, CatalogError, Damaged, Lent, Opened};
use crate::engine::library::shelf::ShelfError;
use crate::engine::library::{Entry, Facts, Record, root_key as root_key_of};
use crate::engine::units::InfoHash;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// The open state folder.
pub struct State<'m> {
    folder: PathBuf,
    catalog: Catalog<'m, FlashFile, ShelfFile>,
    /// The volumes that content is on.
    pub(super) kept: Kept,
    /// Torrents whose files are damaged.
    pub(super) spoiled: Spoiled,
    /// Folders made so far: each is made under a name of its own.
    made: Cell<u32>,
    /// Torrents were lost to damage when it was opened.
    has_lost_torrents: bool,
    /// Held open: the lock lasts as long as the process.
    _lock: File,
}

impl<'m> State<'m> {
    /// Opens the folder, and makes it when there is none.
    pub fn open(
        given: &Path,
        journal_kib: u32,
        lent: Lent<'m>,
        torrents_max: u32,
    ) -> Result<State<'m>, Refusal> {
        let (folder, torrents) = (given, given.join("torrents"));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder.create(&torrents).and_then(|()| builder.create(given.join(NEW)));
        // Absolute from here on: what is printed has to be found from anywhere.
        let folder = made.and_then(|()| fs::canonicalize(folder));
        let folder = &folder.map_err(|error| refused(given, error))?;
        let lock = lock(folder)?;
        let path = folder.join("journal");
        let flash = FlashFile::open(&path, 2 * 1024 * journal_kib);
        let flash = flash.map_err(|error| refused_flash(&path, error))?;
        let shelves = shelf_file::open(folder).map_err(|error| refused(folder, error))?;
        let mut keep = |damaged: Damaged<'_>| keep_damaged(folder, &damaged);
        let (catalog, opened) = Catalog::open(flash, shelves, lent, torrents_max, &mut keep)
            .map_err(|error| refused_catalog(folder, error))?;
        say_what_was_lost(folder, &opened);
        let (folder, made) = (folder.to_path_buf(), Cell::new(0));
        let kept = Kept::open(&folder);
        let has_lost_torrents =
            opened.damaged_slots > 0 || opened.is_header_lost || opened.replay.lost_commits > 0;
        let spoiled = Spoiled::default();
        let state = State { folder, catalog, kept, spoiled, made, has_lost_torrents, _lock: lock };
        state.clear_new_folders();
        Ok(state)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The torrent of that name; none while the library cannot be read, which is said.
    pub fn get(&mut self, info_hash: &InfoHash) -> Option<Entry> {
        let found = self.catalog.get(info_hash);
        found.inspect_err(|error| warn!("{}: {error}", self.folder.display())).ok().flatten()
    }

    /// The torrents whose content lies at a path.
    pub fn at(&mut self, path: &Path) -> Vec<Entry> {
        let stored = self.stored_path(path);
        self.under(root_key_of(stored.as_os_str().as_encoded_bytes()))
    }

    /// The torrents whose content lies there.
    pub fn under(&mut self, root_key: u64) -> Vec<Entry> {
        let mut found = Vec::new();
        if let Err(error) = self.catalog.under(root_key, &mut |entry| found.push(*entry)) {
            warn!("{}: {error}", self.folder.display());
        }
        found
    }

    /// The torrent behind the one in that slot; the first without one.
    pub fn next(&mut self, after: Option<u32>) -> Option<(u32, Entry)> {
        let found = self.catalog.next(after);
        found.inspect_err(|error| warn!("{}: {error}", self.folder.display())).ok().flatten()
    }

    /// The trackers of a torrent: tier and address.
    pub fn trackers(&self, entry: &Entry) -> Vec<(u8, String)> {
        let read = |torrent: &str, folder: &Path| {
            Some(trackers_of(&File::open(folder.join(torrent)).ok()?))
        };
        self.with_facts(entry, |facts, folder| read(facts.torrent, folder))
            .flatten()
            .unwrap_or_default()
    }

    /// Whether a torrent may not be spoken of (BEP 27). One of which nothing is known may not.
    pub fn is_private(&self, entry: &Entry) -> bool {
        self.with_facts(entry, |facts, _| facts.private).unwrap_or(true)
    }

    /// What the facts of a torrent say, if they are what the journal vouches for.
    pub fn with_facts<T>(
        &self,
        entry: &Entry,
        read: impl FnOnce(&Facts<'_>, &Path) -> T,
    ) -> Option<T> {
        let folder = self.torrent_folder(&entry.info_hash, entry.facts_crc);
        let bytes = fs::read(folder.join("facts")).ok()?;
        Facts::parse(&bytes, entry.facts_crc).map(|facts| read(&facts, &folder))
    }

    /// Whether torrents were lost to damage when it was opened.
    pub fn has_lost_torrents(&self) -> bool {
        self.has_lost_torrents
    }

    /// How many torrents there are.
    pub fn count(&self) -> u32 {
        self.catalog.count()
    }

    /// There is no place for another torrent.
    pub fn is_full(&self) -> bool {
        self.catalog.is_full()
    }

    /// The files of a torrent, if they are what the journal vouches for; that they are not is said.
    pub fn load(&self, entry: &Entry) -> Option<Known> {
        let folder = self.torrent_folder(&entry.info_hash, entry.facts_crc);
        let known = Known::load(&folder, entry.facts_crc, |stored| self.place_of(entry, stored));
        self.spoiled.note(&entry.info_hash, &folder, known.is_none());
        known
    }

    /// Where the files of a torrent with these facts are.
    pub fn torrent_folder(&self, info_hash: &InfoHash, facts_crc: u32) -> PathBuf {
        self.folder.join("torrents").join(folder_name(info_hash, facts_crc))
    }

    /// An empty folder in which a torrent's files can be made.
    pub fn new_folder(&self) -> Result<PathBuf, Refusal> {
        self.made.set(self.made.get().wrapping_add(1));
        let folder = self.folder.join(std::format!("{NEW}/{}", self.made.get()));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| refused(&folder, error))?;
        Ok(folder)
    }

    /// Removes what was being made and will not be finished.
    pub fn discard_new_folders(&self) {
        for number in 1..=self.made.get() {
            // It has been put in its place, or cannot be removed now: the next start tries again.
            let _ = fs::remove_dir_all(self.folder.join(std::format!("{NEW}/{number}")));
        }
    }

    /// Puts a folder that is whole in its place, and records that its torrent exists, on the volume
    /// that was found; without one, on that which it was on before. Gives back where the folder is,
    /// and what stands there.
    pub fn admit(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        found: Option<&Found>,
    ) -> Result<(PathBuf, Known), Refusal> {
        self.place(new_folder, info_hash, facts_crc, (false, &[]), found)
    }

    /// The same in the place of others, which are no longer there: a cut leaves these or the new one.
    pub fn admit_instead_of(
        &mut self,
        others: &[Entry],
        new_folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        found: &Found,
    ) -> Result<(PathBuf, Known), Refusal> {
        self.place(new_folder, info_hash, facts_crc, (false, others), Some(found))
    }

    /// The same of a torrent that is still to be fetched.
    pub fn begin(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        found: &Found,
    ) -> Result<(PathBuf, Known), Refusal> {
        self.place(new_folder, info_hash, facts_crc, (true, &[]), Some(found))
    }

    fn place(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        (fetching, instead_of): (bool, &[Entry]),
        found: Option<&Found>,
    ) -> Result<(PathBuf, Known), Refusal> {
        let wrong = |folder: &Path| {
            let problem = "does not hold what has just been written to it";
            Refusal::new(folder.display(), problem, "check the disk it is on")
        };
        let path = new_folder.join("facts");
        let bytes = fs::read(&path).map_err(|error| refused(&path, error))?;
        let facts = Facts::parse(&bytes, facts_crc).ok_or_else(|| wrong(new_folder))?;
        let (volume, stored) = self.stand(&info_hash, found, Path::new(facts.root))?;
        let facts_crc = match stored == Path::new(facts.root) {
            true => facts_crc,
            false => {
                let facts = Facts { root: draft::utf8(&stored)?, ..facts };
                draft::write_facts(new_folder, &facts)?
            }
        };
        let folder = self.torrent_folder(&info_hash, facts_crc);
        let place = || -> io::Result<()> {
            sync_folder(new_folder)?;
            if folder.exists() {
                // The same facts, and yet it was made again: something in it was damaged.
                fs::remove_dir_all(&folder)?;
            }
            fs::rename(new_folder, &folder)?;
            sync_folder(&self.folder.join("torrents"))
        };
        place().map_err(|error| refused(&folder, error))?;
        let before = self.get(&info_hash);
        let added_s = before.map_or_else(clock::unix_s, |entry| entry.added_s);
        let root_key = root_key_of(stored.as_os_str().as_encoded_bytes());
        let placed = Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume };
        let gone = instead_of.iter().map(|other| Record::Forgotten { info_hash: other.info_hash });
        let records: Vec<Record> = std::iter::once(placed).chain(gone).collect();
        let recorded = self.catalog.record_all(&records);
        recorded.map_err(|error| refused_catalog(&self.folder, error))?;
        let before = before.filter(|entry| entry.facts_crc != facts_crc);
        for old in before.iter().chain(instead_of) {
            // Should it stay for now, the next start clears it away.
            let _ = fs::remove_dir_all(self.torrent_folder(&old.info_hash, old.facts_crc));
        }
        let entry = self.get(&info_hash);
        let known = entry.and_then(|entry| self.load(&entry));
        Ok((folder.clone(), known.ok_or_else(|| wrong(&folder))?))
    }

    /// What lay at one path lies at another: its torrents are the same. Gives back what they are now.
    pub fn reroot_all(
        &mut self,
        root_key: u64,
        to: &Path,
        found: &Found,
    ) -> Result<Vec<Entry>, Refusal> {
        let mut moved = Vec::new();
        for entry in self.lying_at(root_key) {
            let folder = self.new_folder()?;
            let made = self.with_facts(&entry, |facts, old| {
                copy_but(old, &folder, &["facts"]).map_err(|error| refused(&folder, error))?;
                let facts = Facts { root: draft::utf8(to)?, ..*facts };
                draft::write_facts(&folder, &facts)
            });
            let Some(facts_crc) = made.transpose()? else { continue };
            let how = (entry.fetching, &[][..]);
            self.place(&folder, entry.info_hash, facts_crc, how, Some(found))?;
            moved.extend(self.get(&entry.info_hash));
        }
        Ok(moved)
    }

    /// A torrent's content lies at another path from here on; what is known of it now.
    pub fn place_moved(
        &mut self,
        entry: &Entry,
        folder: &Path,
        facts_crc: u32,
        found: &Found,
    ) -> Result<Entry, Refusal> {
        let now = self.get(&entry.info_hash);
        if now.is_none_or(|now| now.facts_crc != entry.facts_crc) {
            let problem = "has been removed, or shared anew, meanwhile";
            return Err(Refusal::new(entry.info_hash, problem, "delete what was copied of it"));
        }
        self.place(folder, entry.info_hash, facts_crc, (false, &[]), Some(found))?;
        Ok(self.get(&entry.info_hash).unwrap_or(*entry))
    }

    /// A torrent is no longer there.
    pub fn forget(&mut self, entry: &Entry) -> Result<(), Refusal> {
        self.record(Record::Forgotten { info_hash: entry.info_hash })?;
        // Should its folder stay for now, the next start clears it away.
        let _ = fs::remove_dir_all(self.torrent_folder(&entry.info_hash, entry.facts_crc));
        Ok(())
    }

    /// So many more bytes of each torrent's content were sent.
    pub fn count_sent(&mut self, sent: &[(InfoHash, u64)]) -> Result<(), Refusal> {
        let mut records = Vec::with_capacity(sent.len());
        for (info_hash, sent_bytes) in sent.iter().filter(|(_, bytes)| *bytes > 0) {
            // A name whose metadata never came is none of the library's.
            if let Some(entry) = self.get(info_hash) {
                let bytes = entry.sent_bytes.saturating_add(*sent_bytes);
                records.push(Record::Sent { info_hash: *info_hash, bytes });
            }
        }
        let recorded = self.catalog.record_all(&records);
        recorded.map_err(|error| refused_catalog(&self.folder, error))
    }

    /// Records something; when this returns it will be known after any power cut.
    pub fn record(&mut self, record: Record) -> Result<(), Refusal> {
        self.catalog.record(record).map_err(|error| refused_catalog(&self.folder, error))
    }

    /// Checkpoints made and bytes of the journal written since it was opened.
    pub fn written(&self) -> (u64, u64) {
        let wear = self.catalog.journal().wear();
        (self.catalog.checkpoints(), wear.written_bytes)
    }

    /// Brings what has changed into the slots when there is much of it: for a quiet moment.
    pub fn tidy(&mut self) -> Result<(), Refusal> {
        let State { catalog, folder, .. } = self;
        if catalog.is_damaged() {
            let mut keep = |damaged: Damaged<'_>| keep_damaged(folder, &damaged);
            let count = catalog.mend(&mut keep).map_err(|error| refused_catalog(folder, error))?;
            warn!("{}: {count} torrents are lost: {DAMAGED}", folder.display());
        }
        match catalog.checkpoint_due() {
            true => catalog.checkpoint().map_err(|error| refused_catalog(folder, error)),
            false => Ok(()),
        }
    }

    /// Removes folders that were being made when the last life ended.
    fn clear_new_folders(&self) {
        let Ok(folders) = fs::read_dir(self.folder.join(NEW)) else { return };
        folders.flatten().for_each(|entry| remove_stray(&entry.path()));
    }

    /// The folders of all torrents, for [`State::clear_away_strays`].
    pub fn folders(&self) -> Option<fs::ReadDir> {
        fs::read_dir(self.folder.join("torrents")).ok()
    }

    /// Removes folders of ours that no record vouches for: what a cut left behind. What has another
    /// kind of name is somebody else's. Looks at some of them, and gives back where the others
    /// are, so that whoever asks for something else meanwhile hardly waits.
    pub fn clear_away_strays(&mut self, mut folders: fs::ReadDir) -> Option<fs::ReadDir> {
        for _ in 0..STRAYS_LOOKED_AT {
            let Ok(entry) = folders.next()? else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(OLD_NEW) {
                remove_stray(&entry.path());
            }
            let Some((info_hash, facts_crc)) = parse_name(&name) else { continue };
            // While the library cannot be read everything stays.
            let Ok(known) = self.catalog.get(&info_hash) else { continue };
            if self.has_lost_torrents || self.catalog.is_damaged() {
                // Where torrents were lost their folders may be all there is of them.
                if known.is_none() {
                    self.recall_by_folder(&entry.path(), info_hash, facts_crc);
                }
            } else if known.is_none_or(|entry| entry.facts_crc != facts_crc) {
                remove_stray(&entry.path());
            }
        }
        Some(folders)
    }

    /// A torrent whose slot was damaged is known again by its folder. One that was removed in the
    /// last moment before may come back so, which is the lesser harm.
    fn recall_by_folder(&mut self, path: &Path, info_hash: InfoHash, facts_crc: u32) {
        let Some(bytes) = fs::read(path.join("facts")).ok() else { return };
        let Some(facts) = Facts::parse(&bytes, facts_crc) else { return };
        let (name, root_key) = (facts.torrent, root_key_of(facts.root.as_bytes()));
        let (fetching, added_s) = (path.join("progress").exists(), clock::unix_s());
        // On which disk it was is lost too; it is looked for where it was recorded.
        let volume = 0;
        let placed = Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume };
        match self.record(placed) {
            Ok(()) => info!("{name}: was lost, and is known again by its folder"),
            Err(refusal) => warn!("{refusal}"),
        }
    }
}

/// Copies and syncs the files of a torrent's folder, but for some.
pub fn copy_but(from: &Path, to: &Path, but: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !but.iter().any(|but| entry.file_name() == *but) {
            let copy = to.join(entry.file_name());
            fs::copy(entry.path(), &copy)?;
            File::open(&copy)?.sync_all()?;
        }
    }
    Ok(())
}

fn remove_stray(path: &Path) {
    info!("clearing away {}", path.display());
    if let Err(error) = fs::remove_dir_all(path) {
        warn!("{}: {error}", path.display());
    }
}

/// What stood in a damaged slot goes to the end of a file, for whoever wants to look at it.
fn keep_damaged(folder: &Path, damaged: &Damaged<'_>) {
    let path = folder.join("damaged");
    let kept = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    if let Err(error) = kept.and_then(|mut file| file.write_all(damaged.bytes)) {
        warn!("{}: {error}", path.display());
    }
}

fn say_what_was_lost(folder: &Path, opened: &Opened) {
    let folder = folder.display();
    if opened.replay.lost_commits > 0 {
        warn!("{folder}: {} commits of the journal were lost to decay", opened.replay.lost_commits);
    }
    if opened.damaged_slots > 0 {
        warn!("{folder}: {} torrents are lost: {DAMAGED}", opened.damaged_slots);
    }
    if opened.is_header_lost {
        warn!("{folder}: the head of `slots` was damaged, and has been made anew");
    }
}

/// Where state is kept when nobody says (XDG base directories).
pub fn usual_folder() -> Result<PathBuf, Refusal> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    base.map(|base| base.join("perennial"))
        .ok_or_else(|| Refusal::new("HOME", "is not set", "say where with --state DIR"))
}

/// Makes a new file in a folder being made, and says where it is when that fails.
pub fn create(path: &Path) -> Result<File, Refusal> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|error| refused(path, error))
}

/// What went wrong in the state folder, as the owner is told.
pub fn refused(path: &Path, error: io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "give --state a folder that can be written to"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or give --state a folder on another disk"
        }
        _ => "look at the folder, or give --state another one",
    };
    Refusal::new(path.display(), error, remedy)
}

fn refused_flash(path: &Path, error: FlashFileError) -> Refusal {
    match error {
        FlashFileError::Io { cause, .. } => refused(path, io::Error::from(cause)),
        other => Refusal::new(path.display(), other, MOVE_AWAY),
    }
}

fn refused_catalog(folder: &Path, error: CatalogError<FlashFileError, Errno>) -> Refusal {
    match error {
        CatalogError::Journal(JournalError::Flash { cause, .. }) => {
            refused_flash(&folder.join("journal"), cause)
        }
        CatalogError::Journal(error @ JournalError::Full) => {
            Refusal::new(folder.join("journal").display(), error, LARGER_BOARD)
        }
        CatalogError::Journal(other) => {
            Refusal::new(folder.join("journal").display(), other, MOVE_AWAY)
        }
        CatalogError::Shelf(ShelfError::Failed { shelf, cause, .. }) => {
            refused(&folder.join(shelf.file_name()), cause.into())
        }
        CatalogError::Shelf(other) => Refusal::new(folder.display(), other, NEWER),
        CatalogError::Full { torrents_max } => {
            let problem = std::format!("the library holds {torrents_max} torrents and is full");
            Refusal::new(folder.display(), problem, LARGER_BOARD)
        }
    }
}

/// Takes the lock, or says who has it.
fn lock(folder: &Path) -> Result<File, Refusal> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|error| refused(&path, error))?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    if let Err(error) = locked
        && error != rustix::io::Errno::WOULDBLOCK
    {
        return Err(refused(&path, error.into()));
    }
    if locked.is_err() {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        let problem = std::format!("is in use by process {}", owner.trim());
        let remedy = "stop that one first, or give --state another folder";
        return Err(Refusal::new(folder.display(), problem, remedy));
    }
    let number = std::format!("{}\n", std::process::id());
    // Over what is there, which needs no room; it is for people, and a full disk can do without.
    let written = file.write_all_at(number.as_bytes(), 0);
    match written.and_then(|()| file.set_len(number.len() as u64)) {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(refused(&path, error)),
        _ => Ok(file),
    }
}

fn folder_name(info_hash: &InfoHash, facts_crc: u32) -> String {
    std::format!("{info_hash}-{facts_crc:08x}")
}

/// What a folder that only we name so is for.
fn parse_name(name: &str) -> Option<(InfoHash, u32)> {
    let (info_hash, facts_crc) = name.split_once('-')?;
    let facts_crc = u32::from_str_radix(facts_crc, 16).ok().filter(|_| facts_crc.len() == 8)?;
    Some((What::new(info_hash).info_hash()?, facts_crc))
}

/// Puts `bytes` where the file at `path` is, whose folder is there: after a cut it is the old one or
/// the new one, and once this returns the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Where folders are being made.
const NEW: &str = "new";

/// Names of those began so, among the others, in older versions.
const OLD_NEW: &str = ".new";

/// Folders looked at between two questions of others.
const STRAYS_LOOKED_AT: usize = 32;

const DAMAGED: &str = "their slots were damaged, and are kept in `damaged`; what is not known again by its folder has \
     to be shared or fetched anew";
const NEWER: &str = "use the newer perennial, or give --state another folder";
const LARGER_BOARD: &str = "choose a larger board with --board";
const MOVE_AWAY: &str = "move it away to start afresh; nothing that is shared is lost";
