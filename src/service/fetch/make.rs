//! The files a torrent is to be fetched into: made once, before the first byte comes.
//!
//! A file that is wanted is made with its full length, sparse. One that is not wanted is made only
//! where a wanted piece reaches into it. What lies there already under that name is left as it is
//! and reported, for its content to be checked. Names are made safe, folders are entered without
//! following links, and nothing is made outside the target folder, whatever the torrent says.
//!
//! All of this may sleep: it runs before serving begins, or on a lane.

use crate::engine::bencode::Sink;
use crate::engine::library::extents::{Naming, Stamp};
use crate::engine::library::{Extent, ExtentMap};
use crate::engine::limits::PATH_BYTES_MAX;
use crate::engine::metainfo::glob::Glob;
use crate::engine::metainfo::{self, MetainfoError, Summary};
use crate::engine::units::Span;
use crate::service::content::{Content, FileSource, numbered, volume_of};
use crate::service::draft::{Counted, torrent_name};
use crate::service::known::WINDOW_BYTES;
use crate::service::share::BROKEN_TORRENT;
use crate::service::state::refused;
use crate::service::{Refusal, walk};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// What is to be made.
#[derive(Clone, Debug)]
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
    /// Files that lay there already, by number.
    pub existing: Vec<u32>,
}

/// Makes it. See the module.
pub fn make(plan: &Plan) -> Result<Made, Refusal> {
    let broken = |error: MetainfoError<io::Error>| {
        Refusal::new(plan.torrent.display(), error, BROKEN_TORRENT)
    };
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
    let not_made = |path: &Path, error| target_refused(path, error);
    fs::create_dir_all(&plan.output).map_err(|error| not_made(&plan.output, error))?;
    let output = fs::canonicalize(&plan.output).map_err(|error| not_made(&plan.output, error))?;
    let root = output.join(summary.name.as_str());
    let extents_path = plan.folder.join("extents");
    let mut maker = Maker {
        folder: open_folder(&output, summary.files.is_some().then_some(summary.name.as_str()))
            .map_err(|error| not_made(&root, error))?,
        root: root.clone(),
        extents: Counted::create(&extents_path)?,
        extents_path: extents_path.clone(),
        existing: Vec::new(),
        force: plan.force,
        count: 0,
    };
    let (mut source, mut window) = (FileSource(&metainfo), std::vec![0; WINDOW_BYTES]);
    let mut files = summary.files(&mut source, &mut window);
    while let Some(file) = files.next_file().map_err(broken)? {
        let span = Span { at: file.start, length: file.length };
        let mut pieces = summary.layout.pieces_of(span);
        let is_wanted = |piece: u32| wanted[piece as usize / 8] & (0x80 >> (piece % 8)) != 0;
        let needed = pieces.any(is_wanted) || span.length == 0 && plan.files.is_empty();
        let (path_at, naming) = (file.path_at, Naming::MadeSafe);
        let extent =
            Extent { span, path_at, stamp: Stamp::default(), padding: file.padding, naming };
        let mut room = [0; PATH_BYTES_MAX];
        let path = match path_at {
            0 => summary.name.as_str(),
            _ => metainfo::read_safe_path(
                &mut FileSource(&metainfo),
                summary.info.at + path_at,
                &mut room,
            )
            .map_err(broken)?,
        };
        maker.add(extent, path, needed && !file.padding)?;
    }
    let Maker { extents, existing, .. } = maker;
    let extents_crc = extents.crc();
    let content = Content {
        volume: volume_of(&root),
        root,
        extents: extents.finish(&extents_path)?,
        metainfo,
        file_count: summary.file_count,
        info: summary.info,
        pieces: summary.pieces,
        layout: summary.layout,
        growing: true,
    };
    Ok(Made { summary, content, torrent_name, extents_crc, wanted, wanted_bytes, existing })
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
            wanted[piece as usize / 8] |= 0x80 >> (piece % 8);
        }
    }
    Ok((wanted, bytes))
}

/// What files are made with.
struct Maker {
    /// The folder all of them are below.
    folder: OwnedFd,
    root: PathBuf,
    extents: Counted,
    extents_path: PathBuf,
    existing: Vec<u32>,
    force: bool,
    count: u32,
}

impl Maker {
    /// Makes a file that is needed, and puts its record into the extent map.
    fn add(&mut self, mut extent: Extent, path: &str, needed: bool) -> Result<(), Refusal> {
        let index = self.count;
        self.count += 1;
        if needed {
            let mut made = self.create(path, &extent);
            if let Ok(Place::Ours) = made {
                // Two paths of the torrent have become one.
                extent.naming = Naming::Numbered;
                made = self.create(&numbered(path, extent.path_at), &extent);
            }
            match made.map_err(|error| target_refused(&self.root.join(path), error))? {
                Place::Made(inode) => extent.stamp.inode = inode,
                Place::Existing(inode) => {
                    extent.stamp.inode = inode;
                    self.existing.push(index);
                }
                Place::Ours | Place::Taken => {
                    let place = self.root.join(path);
                    return Err(Refusal::new(place.display(), "exists with other content", FORCE));
                }
            }
        }
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
                rustix::fs::ftruncate(&file, extent.span.length)?;
                return Ok(Place::Made(rustix::fs::fstat(&file)?.st_ino));
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let file = rustix::fs::openat(&at, name, access, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Place::Taken);
        }
        if self.is_ours(stat.st_ino)? {
            return Ok(Place::Ours);
        }
        if stat.st_size as u64 != extent.span.length {
            if !self.force {
                return Ok(Place::Taken);
            }
            rustix::fs::ftruncate(&file, extent.span.length)?;
        }
        Ok(Place::Existing(stat.st_ino))
    }

    /// Whether a file of that number has been made, or found, for another path of this torrent.
    ///
    /// # Work
    /// One pass over the extent map so far, and only where a name is taken.
    fn is_ours(&mut self, inode: u64) -> io::Result<bool> {
        self.extents.flush()?;
        let map = File::open(&self.extents_path)?;
        let (mut source, count) = (FileSource(&map), self.count - 1);
        for index in 0..count {
            let extent = ExtentMap::new(&mut source, count).read(index)?;
            if extent.is_some_and(|extent| extent.stamp.inode == inode) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is at a path now.
enum Place {
    /// A file that has just been made.
    Made(u64),
    /// A file that lay there.
    Existing(u64),
    /// Another file of the same torrent.
    Ours,
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
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
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

/// What helps when something else is in the way.
pub const FORCE: &str = "move it away, give -o another folder, or write over it with --force";
