//! The files a torrent is to be fetched into: made once, before the first byte comes.
//!
//! A file that is wanted is made with its full length, and room is set aside for it where the file
//! system does that without writing. One that is not wanted is made only
//! where a wanted piece reaches into it. What lies there already under that name is left as it is
//! and reported, for its content to be checked. Names are made safe, folders are entered without
//! following links, and nothing is made outside the target folder, whatever the torrent says. When
//! the torrent is refused after all, what was made for it is removed again.
//!
//! All of this may sleep: it runs before serving begins, or on a lane.

use crate::engine::bencode::Sink;
use crate::engine::library::extents::{Naming, Stamp};
use crate::engine::library::{Extent, ExtentMap};
use crate::engine::limits::PATH_BYTES_MAX;
use crate::engine::metainfo::glob::Glob;
use crate::engine::metainfo::{self, MetainfoError, Summary};
use crate::engine::units::{Span, has_bit, set_bit};
use crate::service::content::{Content, FileSource, look, numbered, open_beneath};
use crate::service::draft::{Counted, torrent_name};
use crate::service::known::WINDOW_BYTES;
use crate::service::share::BROKEN_TORRENT;
use crate::service::state::refused;
use crate::service::{Refusal, walk};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// What is to be made.
pub struct Plan {
    /// The torrent, as it came.
    pub torrent: PathBuf,
    /// Where its own files go, in the state folder.
    pub folder: PathBuf,
    /// Where its content goes: the folder that holds it.
    pub output: PathBuf,
    /// Patterns of the files that are wanted; all are when there is none.
    pub files: Vec<String>,
    /// What lies there already may be written over.
    pub force: bool,
    /// What is known of it from before.
    pub before: Option<Before>,
    /// As much may be set aside for it.
    pub room_bytes: u64,
}

/// What has been made.
pub struct Made {
    /// What the torrent says.
    pub summary: Summary,
    /// Where it all is.
    pub content: Content,
    /// What the torrent's file is called in the state folder.
    pub torrent_name: String,
    /// CRC-32 of the extent map.
    pub extents_crc: u32,
    /// A bit for each piece that is wanted.
    pub wanted: Vec<u8>,
    /// Bytes of the files that are wanted.
    pub wanted_bytes: u64,
    /// Files that lay there already, by number, and what they are.
    pub found: Vec<(u32, Found)>,
}

/// What lay where a file was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file of which no byte was ever written: begun and cut off, or nobody's loss.
    Hollow,
    /// The very file that was made, or left whole, for this torrent before.
    Ours,
    /// Somebody's file.
    Foreign,
}

/// What an earlier call has left of the same torrent.
pub struct Before {
    /// Its files.
    pub content: Content,
    /// They were still being fetched.
    pub fetching: bool,
}

/// Makes it. See the module.
pub fn make(plan: &Plan) -> Result<Made, Refusal> {
    let broken = |error| broken(plan, error);
    let unreadable = |error| walk::unreadable(&plan.torrent, error);
    let source = File::open(&plan.torrent).map_err(unreadable)?;
    let mut window = std::vec![0; WINDOW_BYTES];
    let summary = Summary::read_any_names(&mut FileSource(&source), &mut window).map_err(broken)?;
    let torrent_name = torrent_name(&summary.name);
    let path = plan.folder.join(&torrent_name);
    fs::copy(&plan.torrent, &path).map_err(|error| refused(&path, error))?;
    let metainfo = File::open(&path).map_err(|error| refused(&path, error))?;
    metainfo.sync_all().map_err(|error| refused(&path, error))?;

    let (wanted, wanted_bytes) = wanted_pieces(&metainfo, &summary, &plan.files).map_err(broken)?;
    if wanted_bytes == 0 && !plan.files.is_empty() {
        let problem = std::format!("no file in it matches {}", plan.files.join(", "));
        return Err(Refusal::new(&summary.name, problem, "look at the names with another client"));
    }
    let mut maker = Maker::new(plan, &summary)?;
    let filled = maker.fill(plan, &summary, &metainfo, &wanted);
    let Maker { root, extents, extents_path, found, count, .. } = maker;
    let extents_crc = extents.crc();
    let content = Content {
        root,
        anchor: None,
        extents: extents.finish(&extents_path)?,
        metainfo,
        file_count: count,
        info: summary.info,
        pieces: summary.pieces,
        layout: summary.layout,
        growing: true,
    };
    let made = Made { summary, content, torrent_name, extents_crc, wanted, wanted_bytes, found };
    if let Err(refusal) = filled {
        made.remove();
        return Err(refusal);
    }
    Ok(made)
}

fn broken(plan: &Plan, error: MetainfoError<io::Error>) -> Refusal {
    Refusal::new(plan.torrent.display(), error, BROKEN_TORRENT)
}

impl Made {
    /// Removes the files that were made, and folders in which nothing is then left.
    pub fn remove(&self) {
        for index in 0..self.content.file_count {
            let mut source = FileSource(&self.content.extents);
            let extent = ExtentMap::new(&mut source, self.content.file_count).read(index);
            let Ok(Some(extent)) = extent else { return };
            let found = self.found.binary_search_by_key(&index, |(index, _)| *index).is_ok();
            if extent.stamp.inode != 0 && !found {
                // What cannot be removed stays: it is hollow, and in nobody's way.
                let _ = self.remove_file(&extent);
            }
        }
        if self.summary.files.is_some() {
            let _ = rustix::fs::rmdir(&self.content.root);
        }
    }

    fn remove_file(&self, extent: &Extent) -> io::Result<()> {
        let (root, path) = (&self.content.root, self.content.path_of(extent)?);
        if look(&open_beneath(root, &path)?)?.1.inode != extent.stamp.inode {
            return Ok(());
        }
        if path.is_empty() {
            return fs::remove_file(root);
        }
        let mut path = path.as_str();
        let mut flags = AtFlags::empty();
        while !path.is_empty() {
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            let mut folder = rustix::fs::openat(CWD, root, FOLDER, Mode::empty())?;
            for name in folders.split('/').filter(|name| !name.is_empty()) {
                folder = rustix::fs::openat(&folder, name, FOLDER, Mode::empty())?;
            }
            rustix::fs::unlinkat(&folder, name, flags)?;
            (path, flags) = (folders, AtFlags::REMOVEDIR);
        }
        Ok(())
    }
}

/// A bit for each piece that holds a byte of a wanted file, and how many bytes these files have.
pub fn wanted_pieces(
    metainfo: &File,
    summary: &Summary,
    patterns: &[String],
) -> Result<(Vec<u8>, u64), MetainfoError<io::Error>> {
    let layout = summary.layout;
    let mut wanted = std::vec![0u8; layout.bitfield_bytes() as usize];
    // They were checked when they were given.
    let globs: Vec<Glob<'_>> = patterns.iter().filter_map(|text| Glob::parse(text).ok()).collect();
    let (mut source, mut window) = (FileSource(metainfo), std::vec![0; WINDOW_BYTES]);
    let (mut files, mut bytes) = (summary.files(&mut source, &mut window), 0);
    while let Some(file) = files.next_file()? {
        let mut room = [0; PATH_BYTES_MAX];
        let chosen = globs.is_empty() || {
            let at = summary.info.at + file.path_at;
            let path = match file.path_at {
                0 => summary.name.as_str(),
                _ => metainfo::read_safe_path(&mut FileSource(metainfo), at, &mut room)?,
            };
            globs.iter().any(|glob| glob.matches(path))
        };
        if !chosen || file.padding {
            continue;
        }
        bytes += file.length;
        for piece in layout.pieces_of(Span { at: file.start, length: file.length }) {
            set_bit(&mut wanted, piece);
        }
    }
    Ok((wanted, bytes))
}

/// What files are made with.
struct Maker<'p> {
    /// The folder all of them are below.
    folder: OwnedFd,
    /// The torrent's own folder, or its one file.
    root: PathBuf,
    is_single: bool,
    extents: Counted,
    extents_path: PathBuf,
    before: Option<&'p Before>,
    found: Vec<(u32, Found)>,
    seen: Seen,
    force: bool,
    /// All of the torrent is wanted, and fits: room is set aside for its files, so that pieces that
    /// come in any order lie in theirs.
    reserves: bool,
    count: u32,
}

impl<'p> Maker<'p> {
    fn new(plan: &'p Plan, summary: &Summary) -> Result<Maker<'p>, Refusal> {
        let output = &plan.output;
        fs::create_dir_all(output).map_err(|error| target_refused(output, error))?;
        let output = fs::canonicalize(output).map_err(|error| target_refused(output, error))?;
        let (root, is_single) = (output.join(summary.name.as_str()), summary.files.is_none());
        let folder = open_folder(&output, (!is_single).then_some(summary.name.as_str()))
            .map_err(|error| target_refused(&root, error))?;
        let extents_path = plan.folder.join("extents");
        Ok(Maker {
            folder,
            root,
            is_single,
            extents: Counted::create(&extents_path)?,
            extents_path,
            before: plan.before.as_ref(),
            found: Vec::new(),
            seen: Seen::of(summary.file_count),
            force: plan.force,
            reserves: plan.files.is_empty() && summary.layout.total_bytes <= plan.room_bytes,
            count: 0,
        })
    }

    fn fill(
        &mut self,
        plan: &Plan,
        summary: &Summary,
        metainfo: &File,
        wanted: &[u8],
    ) -> Result<(), Refusal> {
        let broken = |error| broken(plan, error);
        let (mut source, mut window) = (FileSource(metainfo), std::vec![0; WINDOW_BYTES]);
        let mut files = summary.files(&mut source, &mut window);
        while let Some(file) = files.next_file().map_err(broken)? {
            let span = Span { at: file.start, length: file.length };
            let mut pieces = summary.layout.pieces_of(span);
            let is_wanted = |piece: u32| has_bit(wanted, piece);
            let needed = pieces.any(is_wanted) || span.length == 0 && plan.files.is_empty();
            let (path_at, naming) = (file.path_at, Naming::MadeSafe);
            let extent =
                Extent { span, path_at, stamp: Stamp::default(), padding: file.padding, naming };
            let mut room = [0; PATH_BYTES_MAX];
            let path = match path_at {
                0 => summary.name.as_str(),
                _ => metainfo::read_safe_path(
                    &mut FileSource(metainfo),
                    summary.info.at + path_at,
                    &mut room,
                )
                .map_err(broken)?,
            };
            self.add(extent, path, needed && !file.padding)?;
        }
        Ok(())
    }

    /// Makes a file that is needed, and puts its record into the extent map.
    fn add(&mut self, mut extent: Extent, path: &str, needed: bool) -> Result<(), Refusal> {
        if needed {
            let mut made = self.create(path, &extent);
            if let Ok(Place::Twin) = made {
                // Two paths of the torrent have become one.
                extent.naming = Naming::Numbered;
                made = self.create(&numbered(path, extent.path_at), &extent);
            }
            let place = if self.is_single { self.root.clone() } else { self.root.join(path) };
            match made.map_err(|error| target_refused(&place, error))? {
                Place::Made(inode) => extent.stamp.inode = inode,
                Place::Found(inode, found) => {
                    extent.stamp.inode = inode;
                    self.found.push((self.count, found));
                }
                Place::Twin | Place::Taken => {
                    return Err(Refusal::new(place.display(), "exists with other content", FORCE));
                }
            }
            self.seen.add(extent.stamp.inode);
        }
        self.count += 1;
        let put = self.extents.put(&extent.write());
        put.map_err(|error| refused(&self.extents_path, error))
    }

    fn create(&mut self, path: &str, extent: &Extent) -> io::Result<Place> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = rustix::io::dup(&self.folder)?;
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            at = enter(&at, folder)?;
        }
        let access = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let made = OFlags::CREATE | OFlags::EXCL;
        match rustix::fs::openat(&at, name, access | made, Mode::from_raw_mode(0o644)) {
            Ok(file) => {
                let sized = rustix::fs::ftruncate(&file, extent.span.length);
                let sized = sized.and_then(|()| rustix::fs::fstat(&file));
                if sized.is_err() {
                    let _ = rustix::fs::unlinkat(&at, name, AtFlags::empty());
                }
                let inode = sized?.st_ino;
                if self.reserves && extent.span.length >= RESERVED_MIN {
                    // Where it cannot be had, the file stays sparse.
                    let keep = FallocateFlags::KEEP_SIZE;
                    let _ = rustix::fs::fallocate(&file, keep, 0, extent.span.length);
                }
                return Ok(Place::Made(inode));
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let file = rustix::fs::openat(&at, name, access, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Place::Taken);
        }
        if self.is_twin(stat.st_ino)? {
            return Ok(Place::Twin);
        }
        let found = self.judge(&file)?;
        if stat.st_size as u64 != extent.span.length {
            if found == Found::Foreign && !self.force {
                return Ok(Place::Taken);
            }
            rustix::fs::ftruncate(&file, extent.span.length)?;
        }
        Ok(Place::Found(stat.st_ino, found))
    }

    /// What a file is that lies where the next one is to be made.
    fn judge(&self, file: &OwnedFd) -> io::Result<Found> {
        // A kernel or file system that cannot tell says that there is something.
        if rustix::fs::seek(file, SeekFrom::Data(0)) == Err(Errno::NXIO) {
            return Ok(Found::Hollow);
        }
        let Some(before) = self.before else { return Ok(Found::Foreign) };
        let (length, stamp) = look(file)?;
        let mut source = FileSource(&before.content.extents);
        let extent = ExtentMap::new(&mut source, before.content.file_count).read(self.count)?;
        let same = extent.is_some_and(|extent| {
            length == extent.span.length
                && (stamp == extent.stamp || before.fetching && stamp.inode == extent.stamp.inode)
        });
        Ok(if same { Found::Ours } else { Found::Foreign })
    }

    /// Whether a file of that number has been made, or found, for another path of this torrent.
    ///
    /// # Work
    /// One pass over the extent map so far, and only where a name is taken and the number seen.
    fn is_twin(&mut self, inode: u64) -> io::Result<bool> {
        if !self.seen.may_hold(inode) {
            return Ok(false);
        }
        self.extents.flush()?;
        let map = File::open(&self.extents_path)?;
        let mut source = FileSource(&map);
        for index in 0..self.count {
            let extent = ExtentMap::new(&mut source, self.count).read(index)?;
            if extent.is_some_and(|extent| extent.stamp.inode == inode) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Numbers of files that were seen: never wrong about one that was, seldom about one that was not
/// (a Bloom filter).
struct Seen(Vec<u64>);

impl Seen {
    /// One that is wrong once in a thousand times when so many have been added, up to a quarter of
    /// a million.
    fn of(files: u32) -> Seen {
        let words = (files / 4).next_power_of_two().clamp(8, SEEN_WORDS_MAX);
        Seen(std::vec![0; words as usize])
    }

    fn add(&mut self, inode: u64) {
        for bit in self.bits_of(inode) {
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn may_hold(&self, inode: u64) -> bool {
        self.bits_of(inode).iter().all(|bit| self.0[bit / 64] & 1 << (bit % 64) != 0)
    }

    fn bits_of(&self, inode: u64) -> [usize; 4] {
        let mixed = (inode ^ inode >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        // Four numbers of 16 bits would be too short: two of 32 make four.
        let (one, two) = (mixed as u32, (mixed >> 32) as u32 | 1);
        let bits = self.0.len() as u32 * 64;
        [0, 1, 2, 3].map(|turn: u32| (one.wrapping_add(turn.wrapping_mul(two)) % bits) as usize)
    }
}

/// What is at a path now.
enum Place {
    /// A file that has just been made.
    Made(u64),
    /// A file that lay there.
    Found(u64, Found),
    /// Another file of the same torrent.
    Twin,
    /// Something that is no file of that length.
    Taken,
}

/// The folder files go to: the target, or the torrent's own folder in it.
fn open_folder(output: &Path, name: Option<&str>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, output, flags, Mode::empty())?;
    match name {
        None => Ok(folder),
        Some(name) => enter(&folder, name),
    }
}

/// Opens a folder in a folder, made if there is none, and no link.
fn enter(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::openat(folder, name, FOLDER, Mode::empty())?)
}

/// What went wrong where content is to go, as the owner is told.
pub fn target_refused(path: &Path, error: io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "give -o a folder that can be written to"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or give -o a folder on another disk"
        }
        _ => "look at the folder, or give -o another one",
    };
    Refusal::new(path.display(), error.to_string(), remedy)
}

/// How a folder is opened that must be no link.
const FOLDER: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What helps when something else is in the way.
pub const FORCE: &str = "move it away, give -o another folder, or write over it with --force";

/// The filter of file numbers takes 512 KiB at most, while files are made.
const SEEN_WORDS_MAX: u32 = 64 << 10;

/// A smaller file is in one place anyway.
const RESERVED_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_knows_what_it_was_given_and_seldom_takes_another_for_it() {
        // Neighbours, as a file system numbers files that are made one after the other.
        let mut seen = Seen::of(10_000);
        (0..10_000).for_each(|number| seen.add(1_000_000 + number));
        assert!((0..10_000).all(|number| seen.may_hold(1_000_000 + number)));
        let wrong = (0..100_000).filter(|number| seen.may_hold(2_000_000 + number)).count();
        assert!(wrong < 1_000, "{wrong}");
    }
}
