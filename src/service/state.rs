//! The state folder: what the box remembers, in the one place it writes to.
//!
//! ```text
//! STATE/lock                      held by the one process that uses it, whose number it holds
//! STATE/journal                   which torrents exist (engine/journal, engine/library)
//! STATE/dht                       nodes of the DHT that were known last (service/dht)
//! STATE/torrents/HASH-CRC/facts     what is known of one; CRC is theirs
//! STATE/torrents/HASH-CRC/extents   which file holds which bytes
//! STATE/torrents/HASH-CRC/have      its bitfield, when it is not whole
//! STATE/torrents/HASH-CRC/progress  its bitfield while it is fetched (engine/library/progress)
//! STATE/torrents/HASH-CRC/NAME.torrent
//! STATE/torrents/.new1/             one being made; cleared away at the next start
//! ```
//!
//! A torrent's folder is made whole and synced under `.new1`, then renamed, then recorded. Other
//! facts make another folder, and the old one goes once the record is durable: a cut at any
//! instant leaves a torrent as before or as after.

use super::flash_file::{FlashFile, FlashFileError};
use super::known::{Known, trackers_of};
use super::refusal::Refusal;
use crate::engine::journal::{Journal, JournalError};
use crate::engine::library::{Entry, Facts, Library, LibraryFull, RECORD_BYTES_MAX, Record};
use crate::engine::units::InfoHash;
use log::{info, warn};
use rustix::fs::FlockOperation;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// The open state folder.
pub struct State<'m> {
    folder: PathBuf,
    journal: Journal<'m, FlashFile>,
    /// What the journal says.
    library: Library<'m>,
    /// Folders made so far: each is made under a name of its own.
    made: Cell<u32>,
    /// Held open: the lock lasts as long as the process.
    _lock: File,
}

impl<'m> State<'m> {
    /// Opens the folder, makes it when there is none, and fills `library`, which is empty, from its
    /// journal.
    pub fn open(
        given: &Path,
        journal_kib: u32,
        buffer: &'m mut [u8],
        mut library: Library<'m>,
    ) -> Result<State<'m>, Refusal> {
        let (folder, torrents) = (given, given.join("torrents"));
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&torrents);
        // Absolute from here on: what is printed has to be found from anywhere.
        let folder = made.and_then(|()| fs::canonicalize(folder));
        let folder = &folder.map_err(|error| refused(given, error))?;
        let lock = lock(folder)?;
        let path = folder.join("journal");
        let flash = FlashFile::open(&path, 2 * 1024 * journal_kib);
        let flash = flash.map_err(|error| refused_flash(&path, error))?;
        let mut overflow = None;
        let mut visit = |record: &[u8]| {
            if let Some(record) = Record::parse(record) {
                overflow = overflow.or(library.apply(record).err());
            }
        };
        let (journal, replay) = Journal::open(flash, buffer, &mut visit)
            .map_err(|error| refused_journal(&path, error))?;
        if let Some(LibraryFull { torrents_max }) = overflow {
            let problem = std::format!("holds more torrents than the board's {torrents_max}");
            return Err(Refusal::new(path.display(), problem, LARGER_BOARD));
        }
        if replay.lost_commits > 0 {
            warn!("{}: {} commits were lost to decay", path.display(), replay.lost_commits);
        }
        let (folder, made) = (folder.to_path_buf(), Cell::new(0));
        let state = State { folder, journal, library, made, _lock: lock };
        state.clear_away();
        Ok(state)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The torrent of that name.
    pub fn get(&self, info_hash: &InfoHash) -> Option<Entry> {
        self.library.get(info_hash).copied()
    }

    /// The torrents whose content lies there.
    pub fn under(&self, root_key: u64) -> Vec<Entry> {
        self.library.under(root_key).copied().collect()
    }

    /// The torrent after the one in that slot; from the first on without one.
    pub fn next(&self, after: Option<u32>) -> Option<(u32, Entry)> {
        let from = after.map_or(0, |after| after as usize + 1);
        let mut numbered = (0..).zip(self.library.entries()).skip(from);
        numbered.next().map(|(slot, entry)| (slot, *entry))
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

    /// How many torrents there are.
    pub fn count(&self) -> usize {
        self.library.entries().count()
    }

    /// There is no place for another torrent.
    pub fn is_full(&self) -> bool {
        self.library.is_full()
    }

    /// The files of a torrent, if they are what the journal vouches for.
    pub fn load(&self, entry: &Entry) -> Option<Known> {
        Known::load(&self.torrent_folder(&entry.info_hash, entry.facts_crc), entry.facts_crc)
    }

    /// Where the files of a torrent with these facts are.
    pub fn torrent_folder(&self, info_hash: &InfoHash, facts_crc: u32) -> PathBuf {
        self.folder.join("torrents").join(folder_name(info_hash, facts_crc))
    }

    /// An empty folder in which a torrent's files can be made.
    pub fn new_folder(&self) -> Result<PathBuf, Refusal> {
        self.made.set(self.made.get().wrapping_add(1));
        let name = std::format!("torrents/{NEW}{}", self.made.get());
        let folder = self.folder.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| refused(&folder, error))?;
        Ok(folder)
    }

    /// Removes what was being made and will not be finished.
    pub fn discard_new_folders(&self) {
        for number in 1..=self.made.get() {
            // It has been put in its place, or cannot be removed now: the next start tries again.
            let _ = fs::remove_dir_all(self.folder.join(std::format!("torrents/{NEW}{number}")));
        }
    }

    /// Puts a folder that is whole in its place, and records that its torrent exists. Gives back
    /// where it is, and what stands there.
    pub fn admit(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        root_key: u64,
        facts_crc: u32,
    ) -> Result<(PathBuf, Known), Refusal> {
        let record = Record::Admitted { info_hash, root_key, facts_crc };
        let folder = self.place(new_folder, info_hash, facts_crc, record)?;
        let known = Known::load(&folder, facts_crc).ok_or_else(|| {
            let problem = "does not hold what has just been written to it";
            Refusal::new(folder.display(), problem, "check the disk it is on")
        })?;
        Ok((folder, known))
    }

    /// The same of a torrent that is still to be fetched.
    pub fn begin(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        root_key: u64,
        facts_crc: u32,
    ) -> Result<PathBuf, Refusal> {
        let record = Record::Begun { info_hash, root_key, facts_crc };
        self.place(new_folder, info_hash, facts_crc, record)
    }

    fn place(
        &mut self,
        new_folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        record: Record,
    ) -> Result<PathBuf, Refusal> {
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
        let old = self.library.get(&info_hash).map(|entry| entry.facts_crc);
        self.record(record)?;
        if let Some(old) = old.filter(|old| *old != facts_crc) {
            // Should it stay for now, the next start clears it away.
            let _ = fs::remove_dir_all(self.torrent_folder(&info_hash, old));
        }
        Ok(folder)
    }

    /// A torrent is no longer there.
    pub fn forget(&mut self, entry: &Entry) -> Result<(), Refusal> {
        self.record(Record::Forgotten { info_hash: entry.info_hash })?;
        // Should its folder stay for now, the next start clears it away.
        let _ = fs::remove_dir_all(self.torrent_folder(&entry.info_hash, entry.facts_crc));
        Ok(())
    }

    /// So many more bytes of a torrent's content were sent.
    pub fn count_sent(&mut self, info_hash: InfoHash, sent_bytes: u64) -> Result<(), Refusal> {
        // A name whose metadata never came is none of the library's.
        let Some(entry) = self.get(&info_hash) else { return Ok(()) };
        let bytes = entry.sent_bytes.saturating_add(sent_bytes);
        self.record(Record::Sent { info_hash, bytes })
    }

    /// Records something; when this returns it will be known after any power cut.
    pub fn record(&mut self, record: Record) -> Result<(), Refusal> {
        self.library.apply(record).map_err(|LibraryFull { torrents_max }| {
            let problem = std::format!("the library holds {torrents_max} torrents and is full");
            Refusal::new(self.folder.display(), problem, LARGER_BOARD)
        })?;
        self.write(record).map_err(|error| refused_journal(&self.folder.join("journal"), error))
    }

    fn write(&mut self, record: Record) -> Result<(), JournalError<FlashFileError>> {
        let mut room = [0; RECORD_BYTES_MAX];
        if self.journal.needs_compaction() {
            let mut compaction = self.journal.begin_compaction()?;
            for record in self.library.records() {
                compaction.push(record.write(&mut room))?;
            }
            return compaction.finish();
        }
        self.journal.push(record.write(&mut room)).map_err(|_| JournalError::Full)?;
        self.journal.commit()
    }

    /// Removes folders of ours that no record vouches for: what a cut left half-made. What has
    /// another kind of name is somebody else's.
    fn clear_away(&self) {
        let torrents = self.folder.join("torrents");
        let Ok(entries) = fs::read_dir(&torrents) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let vouched_for =
                |known: &Entry| folder_name(&known.info_hash, known.facts_crc) == name;
            if is_ours(&name) && !self.library.entries().any(vouched_for) {
                info!("clearing away {}", entry.path().display());
                if let Err(error) = fs::remove_dir_all(entry.path()) {
                    warn!("{}: {error}", entry.path().display());
                }
            }
        }
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

fn refused_journal(path: &Path, error: JournalError<FlashFileError>) -> Refusal {
    match error {
        JournalError::Flash { cause, .. } => refused_flash(path, cause),
        JournalError::Full => Refusal::new(path.display(), error, LARGER_BOARD),
        other => Refusal::new(path.display(), other, MOVE_AWAY),
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
    let written = file.set_len(0).and_then(|()| file.write_all(number.as_bytes()));
    written.map_err(|error| refused(&path, error))?;
    Ok(file)
}

fn folder_name(info_hash: &InfoHash, facts_crc: u32) -> String {
    std::format!("{info_hash}-{facts_crc:08x}")
}

/// Whether a folder has a name that only we give.
fn is_ours(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.starts_with(NEW)
        || name.split_once('-').is_some_and(|(hash, crc)| {
            matches!(hash.len(), 40 | 64) && crc.len() == 8 && hex(hash) && hex(crc)
        })
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Names of folders that are being made begin so.
const NEW: &str = ".new";

const LARGER_BOARD: &str = "choose a larger board with --board";
const MOVE_AWAY: &str = "move it away to start afresh; nothing that is shared is lost";
