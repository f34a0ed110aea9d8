//! Payload written to its files on a lane, and hashed on the way.
//!
//! A [`Work`] says which runs of a buffer belong where. Neighbours go to the file in one call, the
//! headers between them left out; then what the fetcher wants hashed is hashed from the buffer,
//! while it is still in the processor's cache, and only what is not in the buffer is read back.
//!
//! A lane keeps the last few files open that it wrote to. They are opened beneath the target
//! folder, without following links, and only if they are the very files that were made for the
//! torrent: nothing else can be written to, whatever has been put in their place.
//!
//! Journey 3: from `service/pump` to here and back; whole pieces are judged here.

use super::content::{self, Content, FileSource};
use super::fetch::magnet;
use crate::engine::library::{Extent, ExtentMap};
use crate::engine::swarm::fetch::store::{Done, Hashing, STORES_MAX, Store, Work};
use crate::engine::units::Span;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

/// Files a lane keeps open to write to; the one used longest ago makes room.
#[derive(Default)]
pub struct Files {
    open: heapless::Vec<Open, FILES_MAX>,
}

struct Open {
    /// Only in use by others: a file is no reason to keep content.
    content: Weak<Content>,
    span: Span,
    file: OwnedFd,
}

/// Writes and hashes what `work` says of `buffer`; what went wrong, if something did.
pub fn run(
    content: &Arc<Content>,
    mut work: Work,
    buffer: &[u8],
    scratch: &mut [u8],
    files: &mut Files,
) -> (Done, Option<io::Error>) {
    let mut matched = heapless::Vec::new();
    let written = match work.metadata {
        Some(_) => magnet::write(content, &work.stores, buffer),
        None => write(content, &work.stores, buffer, files),
    };
    let mut error = written.err();
    let written = error.is_none();
    for hashing in &mut work.hashings {
        let judged = match &error {
            Some(_) => None,
            None => match hash(content, hashing, &work.stores, buffer, scratch, files) {
                Ok(judged) => judged,
                Err(cause) => {
                    error = Some(cause);
                    None
                }
            },
        };
        // There is room: one for each hashing.
        let _ = matched.push(judged);
    }
    (Done { work, matched, written }, error)
}

fn write(
    content: &Arc<Content>,
    stores: &[Store],
    buffer: &[u8],
    files: &mut Files,
) -> io::Result<()> {
    let place = |store: &Store| content.layout.offset(store.piece) + u64::from(store.begin);
    let follows = |a: &Store, b: &Store| place(a) + u64::from(a.length) == place(b);
    for run in stores.chunk_by(follows) {
        let length = run.iter().map(|store| u64::from(store.length)).sum();
        let (whole, mut done) = (Span { at: place(&run[0]), length }, 0);
        while done < length {
            let at = whole.at + done;
            let Some((file, span)) = files.find(content, at)? else {
                // Padding holds zeros and no file.
                done += padding_bytes(content, at, whole.end() - at)?;
                continue;
            };
            let fitting = (span.end() - at).min(length - done);
            let slices = slices(run, buffer, done, fitting);
            match rustix::io::pwritev(file, &slices, at - span.at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written as u64,
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }
    Ok(())
}

/// The parts of the buffer that hold `length` bytes of a run, after the first `skip`.
fn slices<'b>(
    run: &[Store],
    buffer: &'b [u8],
    mut skip: u64,
    mut length: u64,
) -> heapless::Vec<IoSlice<'b>, STORES_MAX> {
    let mut slices = heapless::Vec::new();
    for store in run {
        let gone = skip.min(store.length.into());
        let taken = (u64::from(store.length) - gone).min(length);
        if taken > 0 {
            let at = store.at as usize + gone as usize;
            // There is room: a work has no more stores than that.
            let _ = slices.push(IoSlice::new(&buffer[at..at + taken as usize]));
        }
        (skip, length) = (skip - gone, length - taken);
    }
    slices
}

/// Hashes what is to be hashed; for a whole piece whether it matches.
fn hash(
    content: &Arc<Content>,
    hashing: &mut Hashing,
    stores: &[Store],
    buffer: &[u8],
    scratch: &mut [u8],
    files: &mut Files,
) -> io::Result<Option<bool>> {
    let mut at = hashing.from;
    while at < hashing.upto {
        let of_piece = stores.iter().filter(|store| store.piece == hashing.piece);
        let holds = |store: &&Store| store.begin <= at && at < store.begin + store.length;
        let next = of_piece.clone().map(|store| store.begin).filter(|begin| *begin > at).min();
        if let Some(store) = of_piece.clone().find(holds) {
            let end = (store.begin + store.length).min(hashing.upto);
            let from = (store.at + at - store.begin) as usize;
            hashing.hasher.update(&buffer[from..from + (end - at) as usize]);
            at = end;
        } else {
            let end = next.unwrap_or(hashing.upto).min(hashing.upto);
            let length = (end - at).min(scratch.len() as u32);
            let part = &mut scratch[..length as usize];
            let span = Span {
                at: content.layout.offset(hashing.piece) + u64::from(at),
                length: length.into(),
            };
            read_back(content, span, part, files)?;
            hashing.hasher.update(part);
            at += length;
        }
    }
    if !hashing.whole {
        return Ok(None);
    }
    let hash = hashing.hasher.finish();
    Ok(Some(hash == content.expected(hashing.piece)?))
}

/// Reads what has been written.
fn read_back(
    content: &Arc<Content>,
    span: Span,
    into: &mut [u8],
    files: &mut Files,
) -> io::Result<()> {
    let mut at = span.at;
    while at < span.end() {
        let into = &mut into[(at - span.at) as usize..];
        let Some((file, held)) = files.find(content, at)? else {
            let length = padding_bytes(content, at, span.end() - at)?;
            into[..length as usize].fill(0);
            at += length;
            continue;
        };
        let fitting = (held.end().min(span.end()) - at) as usize;
        match rustix::io::pread(file, &mut into[..fitting], at - held.at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read as u64,
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

/// How many of `length` bytes from `at` on lie in the padding there.
fn padding_bytes(content: &Content, at: u64, length: u64) -> io::Result<u64> {
    Ok(extent_at(content, at)?.span.end().min(at + length) - at)
}

fn extent_at(content: &Content, at: u64) -> io::Result<Extent> {
    let mut source = FileSource(&content.extents);
    let found = ExtentMap::new(&mut source, content.file_count).find(at)?;
    let (_, extent) = found.ok_or_else(|| io::Error::other("the extent map is cut short"))?;
    Ok(extent)
}

impl Files {
    /// The file that holds byte `at` of a torrent's content, and which bytes it holds; nothing
    /// where there is padding.
    fn find(&mut self, content: &Arc<Content>, at: u64) -> io::Result<Option<(&OwnedFd, Span)>> {
        let holds = |open: &Open| open.is_of(content) && open.span.at <= at && at < open.span.end();
        let mut place = self.open.iter().position(holds);
        if let Some(stale) = place.filter(|place| !self.open[*place].is_in_place()) {
            self.open.remove(stale);
            place = None;
        }
        let place = match place {
            Some(place) => place,
            None => {
                let extent = extent_at(content, at)?;
                if extent.padding {
                    return Ok(None);
                }
                let file = open(content, &extent)?;
                if self.open.is_full() {
                    self.open.remove(0);
                }
                let open = Open { content: Arc::downgrade(content), span: extent.span, file };
                // There is room now.
                let _ = self.open.push(open);
                self.open.len() - 1
            }
        };
        // Used last, it stands last.
        self.open[place..].rotate_left(1);
        Ok(self.open.last().map(|open| (&open.file, open.span)))
    }

    /// Closes what belongs to content that is no longer written to.
    pub fn close(&mut self, content: &Arc<Content>) {
        self.open.retain(|open| !open.is_of(content));
    }

    /// Closes what belongs to content that is no longer in use.
    pub fn sweep(&mut self) {
        self.open.retain(|open| open.content.strong_count() > 0);
    }
}

impl Open {
    fn is_of(&self, content: &Arc<Content>) -> bool {
        std::ptr::eq(self.content.as_ptr(), Arc::as_ptr(content))
    }

    /// Whether it is still a file of its length under some name. One that has been cut short or
    /// removed takes what is written to it all the same, and the innocent would be blamed for what
    /// is then read back.
    fn is_in_place(&self) -> bool {
        let seen = rustix::fs::fstat(&self.file);
        seen.is_ok_and(|seen| seen.st_nlink > 0 && seen.st_size as u64 == self.span.length)
    }
}

/// Opens the file that was made for a torrent, to write to it.
fn open(content: &Content, extent: &Extent) -> io::Result<OwnedFd> {
    let path = content.path_of(extent)?;
    let named = |error: io::Error| {
        let path = content.path_at(extent.span.at);
        io::Error::new(error.kind(), std::format!("{}: {error}", path.display()))
    };
    let file = content::open_beneath_with(&content.root, &path, OFlags::RDWR).map_err(named)?;
    let (length, stamp) = content::look(&file).map_err(named)?;
    if length != extent.span.length || stamp.inode != extent.stamp.inode {
        let problem = "another file has taken its place, or it was cut short";
        return Err(named(io::Error::new(io::ErrorKind::NotFound, problem)));
    }
    Ok(file)
}

/// Two torrents at a time, and the seam between two files of each.
pub const FILES_MAX: usize = 4;
