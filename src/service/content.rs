//! The files of one torrent, as lanes reach them.
//!
//! A [`Content`] knows where a torrent's content lies and what its files looked like when they
//! were hashed (the extent map); it finds, opens, reads and hashes. All of it may sleep, so all of
//! it runs on a lane. Whatever no longer looks as it did is [`ContentError::Changed`] and is not
//! read: what was hashed is sent, or nothing.
//!
//! Paths are resolved beneath the root without following symbolic links (`openat2`), so that
//! nothing outside the folder can be reached, whatever has been put into it since.
//!
//! Journey 2: `service/disk` reads what is in the page cache by itself and sends the rest here.

use super::volume::Anchor;
use crate::engine::digest::PieceHasher;
use crate::engine::library::extents::{Naming, Stamp};
use crate::engine::library::{Extent, ExtentMap};
use crate::engine::limits::{METADATA_HEADER_BYTES_MAX, PATH_BYTES_MAX, SERVE_BLOCKS_MAX};
use crate::engine::metainfo::{self, Layout, scan};
use crate::engine::peer::{Serving, Source};
use crate::engine::units::{PieceIndex, Span};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;

/// Where a torrent's content lies and what is known of it.
pub struct Content {
    /// The folder its files are in, or the one file it is.
    pub root: PathBuf,
    /// The volume it is on; not known of what has not been placed yet.
    pub anchor: Option<Arc<Anchor>>,
    /// The `.torrent`.
    pub metainfo: File,
    /// The extent map.
    pub extents: File,
    /// Records of the extent map.
    pub file_count: u32,
    /// Where the `info` dictionary stands in the metainfo.
    pub info: Span,
    /// Where the piece hashes stand in the metainfo.
    pub pieces: Span,
    /// Sizes.
    pub layout: Layout,
    /// It is being fetched: its files are ours to write, and change all the time.
    pub growing: bool,
}

/// Why bytes of the content cannot be had.
#[derive(Debug)]
pub enum ContentError {
    /// The file that holds `span` has changed, shrunk or gone since it was hashed.
    Changed(Span),
    /// The file that holds `span` cannot be read.
    Unreadable(Span, io::Error),
    /// The `info` dictionary cannot be read.
    NoMetadata(io::Error),
}

/// A file that has been opened and looks as it did when it was hashed.
#[derive(Debug)]
pub struct Opened {
    /// Which bytes of the content it holds.
    pub span: Span,
    /// The file.
    pub file: OwnedFd,
    /// What it looked like.
    pub stamp: Stamp,
    /// It is being written to: only which file it is counts.
    pub growing: bool,
}

impl Opened {
    /// Whether what is seen of the file now is what was seen of it.
    pub fn is_as_it_was(&self, (length, stamp): (u64, Stamp)) -> bool {
        let same = stamp == self.stamp || self.growing && stamp.inode == self.stamp.inode;
        length == self.span.length && same
    }
}

/// What a look at some files has shown.
pub struct Sight {
    /// Which bytes of the content the first one held that has changed.
    pub changed: Option<Span>,
    /// Why one could not be looked at.
    pub error: Option<io::Error>,
    /// Where to go on looking; `None` at the end.
    pub next: Option<u32>,
}

/// A run of payload in what is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where in the buffer it goes.
    pub at: usize,
    /// Which bytes of the source.
    pub span: Span,
    /// The source is the `info` dictionary, not the content.
    pub metadata: bool,
}

/// A file as the engine reads it.
pub struct FileSource<'f>(pub &'f File);

impl scan::Source for FileSource<'_> {
    type Error = io::Error;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(into, at)
    }
}

/// Writes the headers of `serving` into `into`, from where it was broken off, and says where the
/// payload between them goes. Takes as many items as fit; also gives the length of all.
pub fn lay_out(
    serving: &Serving,
    into: &mut [u8],
) -> (heapless::Vec<Part, SERVE_BLOCKS_MAX>, usize) {
    let (mut parts, mut at, mut skip) = (heapless::Vec::new(), 0, serving.skip);
    for item in &serving.items {
        if at + item.wire_bytes() - skip > into.len() {
            break;
        }
        let mut header = [0; METADATA_HEADER_BYTES_MAX];
        let header_bytes = item.write_header(&mut header);
        let header = &header[skip.min(header_bytes)..header_bytes];
        into[at..at + header.len()].copy_from_slice(header);
        at += header.len();
        let gone = skip.saturating_sub(header_bytes) as u64;
        let span = Span { at: item.span.at + gone, length: item.span.length - gone };
        let metadata = matches!(item.source, Source::Metadata { .. });
        // There is room: a serving has no more items than that.
        let _ = parts.push(Part { at, span, metadata });
        at += span.length as usize;
        skip = 0;
    }
    (parts, at)
}

impl Content {
    /// Reads as much of `serving` as fits `buffer`, headers included; how much that is. The last
    /// file opened on the way is left in `opened`.
    pub fn read(
        &self,
        serving: &Serving,
        buffer: &mut [u8],
        opened: &mut Option<Opened>,
    ) -> Result<usize, ContentError> {
        let (parts, length) = lay_out(serving, buffer);
        let mut done = 0;
        for part in parts {
            let into = &mut buffer[part.at..][..part.span.length as usize];
            let read = if part.metadata {
                let read = self.metainfo.read_exact_at(into, self.info.at + part.span.at);
                read.map_err(ContentError::NoMetadata)
            } else {
                self.read_content(part.span, into, opened)
            };
            match read {
                Ok(()) => done = part.at + part.span.length as usize,
                // What was read before it is good all the same.
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }

    /// SHA-1 of a piece as it lies there now.
    pub fn hash(&self, piece: PieceIndex, scratch: &mut [u8]) -> Result<[u8; 20], ContentError> {
        let (mut hasher, mut opened) = (PieceHasher::default(), None);
        let end = self.layout.offset(piece) + u64::from(self.layout.piece_len(piece));
        let mut at = self.layout.offset(piece);
        while at < end {
            let length = (end - at).min(scratch.len() as u64);
            let part = &mut scratch[..length as usize];
            self.read_content(Span { at, length }, part, &mut opened)?;
            hasher.update(part);
            at += length;
        }
        Ok(hasher.finish())
    }

    /// What the metainfo says a piece hashes to.
    pub fn expected(&self, piece: PieceIndex) -> io::Result<[u8; 20]> {
        let mut hash = [0; 20];
        self.metainfo.read_exact_at(&mut hash, self.pieces.at + u64::from(piece.0) * 20)?;
        Ok(hash)
    }

    /// The same content once more, as it is now.
    pub fn again(&self) -> io::Result<Content> {
        Ok(Content {
            root: self.root.clone(),
            anchor: self.anchor.clone(),
            metainfo: self.metainfo.try_clone()?,
            extents: self.extents.try_clone()?,
            ..*self
        })
    }

    /// The volume it is on: the front of its id, or 0 when that is not known.
    pub fn volume(&self) -> u64 {
        self.anchor.as_ref().map_or(0, |anchor| anchor.volume())
    }

    /// Whether its volume is there this instant, as far as that can be known. On a lane.
    pub fn is_there(&self) -> bool {
        self.anchor.as_ref().is_none_or(|anchor| anchor.holds(&self.root))
    }

    /// Looks at up to [`INSPECT_FILES`] files, from number `from` on, and stops at the first one
    /// that has changed.
    pub fn inspect(&self, from: u32) -> Sight {
        let mut error = None;
        for index in from..self.file_count.min(from + INSPECT_FILES) {
            let Ok(Some(extent)) =
                ExtentMap::new(&mut FileSource(&self.extents), self.file_count).read(index)
            else {
                break;
            };
            // A file that was never there is not offered, so nothing can have become of it.
            if extent.padding || extent.span.length == 0 || extent.stamp == Stamp::default() {
                continue;
            }
            match self.open(&extent) {
                Err(ContentError::Changed(_)) => {
                    let next = Some(index + 1).filter(|next| *next < self.file_count);
                    return Sight { changed: Some(extent.span), error, next };
                }
                // What cannot be looked at now (too many open files, a disk that is busy coming
                // back) has not changed for that.
                Err(ContentError::Unreadable(_, cause)) => error = Some(cause),
                Ok(_) | Err(ContentError::NoMetadata(_)) => {}
            }
        }
        let next = from.saturating_add(INSPECT_FILES);
        Sight { changed: None, error, next: (next < self.file_count).then_some(next) }
    }

    /// The path of a file below the root; empty when the root is the file.
    pub fn path_of(&self, extent: &Extent) -> io::Result<String> {
        if extent.path_at == 0 {
            return Ok(String::new());
        }
        let mut room = [0; PATH_BYTES_MAX];
        let (mut source, at) = (FileSource(&self.metainfo), self.info.at + extent.path_at);
        let path = match extent.naming {
            Naming::AsItIs => metainfo::read_path(&mut source, at, &mut room),
            Naming::MadeSafe | Naming::Numbered => {
                metainfo::read_safe_path(&mut source, at, &mut room)
            }
        };
        let path = path.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(match extent.naming {
            Naming::Numbered => numbered(path, extent.path_at),
            Naming::AsItIs | Naming::MadeSafe => path.to_string(),
        })
    }

    /// The path of the file that holds byte `at`, for a message.
    pub fn path_at(&self, at: u64) -> PathBuf {
        let span = Span { at, length: 1 };
        let path = self.extent_at(at, span).ok().and_then(|extent| self.path_of(&extent).ok());
        path.filter(|path| !path.is_empty()).map_or(self.root.clone(), |path| self.root.join(path))
    }

    /// Reads a run of content, which may lie in several files. The last file opened on the way is
    /// left in `opened`.
    pub fn read_content(
        &self,
        span: Span,
        into: &mut [u8],
        opened: &mut Option<Opened>,
    ) -> Result<(), ContentError> {
        let mut at = span.at;
        while at < span.end() {
            let into = &mut into[(at - span.at) as usize..];
            let holds = |file: &Opened| file.span.at <= at && at < file.span.end();
            if !opened.as_ref().is_some_and(holds) {
                let extent = self.extent_at(at, span)?;
                if extent.padding {
                    let length = (extent.span.end().min(span.end()) - at) as usize;
                    into[..length].fill(0);
                    at += length as u64;
                    continue;
                }
                *opened = Some(self.open(&extent)?);
            }
            let Some(file) = opened else { continue };
            let length = (file.span.end().min(span.end()) - at) as usize;
            let read = rustix::io::pread(&file.file, &mut into[..length], at - file.span.at);
            match read {
                Ok(0) => return Err(ContentError::Changed(file.span)),
                Ok(read) => at += read as u64,
                Err(Errno::INTR) => {}
                Err(error) => return Err(ContentError::Unreadable(file.span, error.into())),
            }
        }
        Ok(())
    }

    fn extent_at(&self, at: u64, span: Span) -> Result<Extent, ContentError> {
        let mut source = FileSource(&self.extents);
        match ExtentMap::new(&mut source, self.file_count).find(at) {
            Ok(Some((_, extent))) => Ok(extent),
            Ok(None) => {
                let error = io::Error::other("the extent map is cut short");
                Err(ContentError::Unreadable(span, error))
            }
            Err(error) => Err(ContentError::Unreadable(span, error)),
        }
    }

    /// Opens a file that looks as it did.
    pub fn open(&self, extent: &Extent) -> Result<Opened, ContentError> {
        let unreadable = |error| ContentError::Unreadable(extent.span, error);
        let path = self.path_of(extent).map_err(unreadable)?;
        let file = match open_beneath(&self.root, &path) {
            Ok(file) => file,
            // A volume that is not there now has taken its files along, and may bring them back.
            Err(error) if is_final(&error) && self.is_there() => {
                return Err(ContentError::Changed(extent.span));
            }
            Err(error) => return Err(unreadable(error)),
        };
        let seen = look(&file).map_err(unreadable)?;
        let (span, stamp, growing) = (extent.span, extent.stamp, self.growing);
        let opened = Opened { span, file, stamp, growing };
        if opened.is_as_it_was(seen) { Ok(opened) } else { Err(ContentError::Changed(span)) }
    }
}

/// A path whose last name is told from another of the same name by a number: that of its place in
/// the torrent, which no other file has.
pub fn numbered(path: &str, number: u64) -> String {
    let (folders, name) = path
        .rsplit_once('/')
        .map_or(("", path), |(_, name)| (&path[..path.len() - name.len()], name));
    let (stem, end) =
        name.rfind('.').filter(|at| *at > 0).map_or((name, ""), |at| name.split_at(at));
    let mut length = stem.len().min(NUMBERED_STEM_BYTES_MAX);
    while !stem.is_char_boundary(length) {
        length -= 1;
    }
    std::format!("{folders}{}~{number}{end}", &stem[..length])
}

/// Whether a file that cannot be opened for this is no longer the file that was hashed. Anything
/// else (too many open files, a disk on its way back) may pass.
fn is_final(error: &io::Error) -> bool {
    // What was a name on the way has become a symbolic link.
    let linked = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    let gone = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
    );
    linked || gone
}

/// Opens a regular file for reading: `path` below `root` without following symbolic links, or
/// `root` itself when `path` is empty.
pub fn open_beneath(root: &Path, path: &str) -> io::Result<OwnedFd> {
    open_beneath_with(root, path, OFlags::RDONLY)
}

/// As [`open_beneath`], for reading or for writing too.
pub fn open_beneath_with(root: &Path, path: &str, access: OFlags) -> io::Result<OwnedFd> {
    // Should a pipe or a device have taken the file's place, opening it must not hang.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = if path.is_empty() {
        rustix::fs::openat(CWD, root, flags | OFlags::NOFOLLOW, Mode::empty())?
    } else {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, root, folder, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&folder, path, flags, Mode::empty(), resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(folder, path, flags)?,
            opened => opened?,
        }
    };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is no regular file"));
    }
    Ok(file)
}

/// As `openat2` does it, for kernels that have none: no name on the way may be a symbolic link.
fn open_step_by_step(folder: OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = folder;
    for name in folders.split('/').filter(|name| !name.is_empty()) {
        at = rustix::fs::openat(&at, name, step, Mode::empty())?;
    }
    Ok(rustix::fs::openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Length and stamp of a file as it is now; a length of 0 when it has been deleted.
pub fn look(file: &OwnedFd) -> io::Result<(u64, Stamp)> {
    let stat = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?;
    let length = if stat.st_nlink == 0 { 0 } else { stat.st_size as u64 };
    Ok((length, stamp_of(&stat)))
}

/// The stamp in what `stat` says.
pub fn stamp_of(stat: &rustix::fs::Stat) -> Stamp {
    Stamp { inode: stat.st_ino, modified: (stat.st_mtime, stat.st_mtime_nsec as u32) }
}

/// What a lane hashes through: large enough that a read costs more than its call.
pub const HASH_SCRATCH_BYTES: usize = 64 * 1024;

/// What is kept of a name that is given a number: with 20 digits, and 17 bytes of what stands
/// behind its last dot, it is no longer than a name may be.
const NUMBERED_STEM_BYTES_MAX: usize = 200;

/// Files one [`Job::Inspect`](super::lanes::Job::Inspect) looks at.
pub const INSPECT_FILES: u32 = 64;
