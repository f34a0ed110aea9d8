//! Content read without sleeping: what is in the page cache goes from here straight to a socket.
//!
//! [`Disk::try_read`] fills one scratch with the next blocks of a peer, headers between them, by
//! as few `preadv2(RWF_NOWAIT)` as there are runs of neighbouring blocks, so that the caller can
//! send all of it at once. It never sleeps: what is not in the page cache, lies in a file that is
//! not open, or on a file system that cannot say, is [`Reading::Cold`], and a lane reads it.
//!
//! Files are kept open up to `open_files_max`, the one used longest ago makes room. An open file
//! is looked at again whenever the last look is over a tenth of a second old, before its bytes are sent: one
//! that has changed is [`Reading::Changed`] and closed.
//!
//! Journey 2: spans come from `engine/peer/serve`; bytes go to `service/pump`.

use super::content::{self, Content, Opened, Part};
use crate::engine::limits::SERVE_BLOCKS_MAX;
use crate::engine::peer::Serving;
use crate::engine::units::{Instant, Span, TorrentSlot};
use rustix::io::{Errno, ReadWriteFlags};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::vec::Vec;

/// The open files and the scratch.
pub struct Disk {
    open: RefCell<Vec<Open>>,
    open_max: usize,
    scratch: RefCell<Box<[u8]>>,
    /// Bytes read for peers since start, to be held against the bytes sent.
    read_bytes: Cell<u64>,
}

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The front of the scratch holds so many bytes to be sent.
    Ready(usize),
    /// It would sleep. The kernel has started to read, where it can.
    Cold {
        /// Only a lane can go on: there is no open file, or no way to ask.
        lane: bool,
    },
    /// The file that holds this run of the content is no longer what was hashed.
    Changed(Span),
}

struct Open {
    torrent: TorrentSlot,
    opened: Opened,
    looked: Instant,
    used: Instant,
    /// The file system knows `RWF_NOWAIT`.
    nowait: bool,
}

impl Disk {
    /// No file open yet; a scratch of so many bytes.
    pub fn new(open_max: usize, scratch_bytes: usize) -> Disk {
        Disk {
            open: RefCell::new(Vec::with_capacity(open_max)),
            open_max,
            scratch: RefCell::new(std::vec![0; scratch_bytes].into_boxed_slice()),
            read_bytes: Cell::new(0),
        }
    }

    /// The scratch, where [`Reading::Ready`] left its bytes.
    pub fn scratch(&self) -> std::cell::Ref<'_, Box<[u8]>> {
        self.scratch.borrow()
    }

    /// Bytes read for peers since start.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Reads what can be read now of `serving`. See the module.
    pub fn try_read(&self, content: &Content, serving: &Serving, now: Instant) -> Reading {
        let mut scratch = self.scratch.borrow_mut();
        let (parts, length) = content::lay_out(serving, &mut scratch);
        let mut open = self.open.borrow_mut();
        let mut done = 0;
        while let Some(first) = parts.get(done) {
            let (file, base, nowait) = if first.metadata {
                (content.metainfo.as_fd(), content.info.at, true)
            } else {
                match find(&mut open, serving.torrent, first.span, now) {
                    Found::Open(at) => (open[at].opened.file.as_fd(), 0, open[at].nowait),
                    // What was read before it is good all the same.
                    Found::Changed(_) if done > 0 => break,
                    Found::Changed(span) => return Reading::Changed(span),
                    Found::Nowhere => break,
                }
            };
            let origin = if first.metadata { 0 } else { origin_of(&open, serving.torrent, first) };
            let run = run_length(&parts[done..], origin, &open, serving.torrent);
            let at = base + first.span.at - origin;
            let wanted: u64 = parts[done..done + run].iter().map(|part| part.span.length).sum();
            let read = nowait.then(|| read_run(file, &parts[done..done + run], at, &mut scratch));
            let read = match read {
                Some(Ok(read)) => read as u64,
                Some(Err(Errno::AGAIN)) if done == 0 => return Reading::Cold { lane: false },
                Some(Err(Errno::AGAIN)) => break,
                None | Some(Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => {
                    if !first.metadata {
                        no_nowait(&mut open, serving.torrent, first);
                    }
                    break;
                }
                // A lane reads it again and says what is wrong.
                Some(Err(_)) => break,
            };
            self.read_bytes.set(self.read_bytes.get() + read);
            if read < wanted {
                // The rest of the run is not in the page cache, or the file ends too early.
                return match whole_parts(&parts[done..done + run], read) {
                    0 if done == 0 => Reading::Cold { lane: read == 0 },
                    more => Reading::Ready(end_of(&parts[..done + more])),
                };
            }
            done += run;
        }
        match done {
            0 => Reading::Cold { lane: true },
            _ if done == parts.len() => Reading::Ready(length),
            _ => Reading::Ready(end_of(&parts[..done])),
        }
    }

    /// Counts what a lane has read for a peer.
    pub fn count_read(&self, bytes: usize) {
        self.read_bytes.set(self.read_bytes.get() + bytes as u64);
    }

    /// Keeps a file that a lane has opened.
    ///
    /// # When full
    /// The file used longest ago is closed.
    pub fn keep(&self, torrent: TorrentSlot, opened: Opened, now: Instant) {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|file| file.torrent == torrent && file.opened.span == opened.span) {
            return;
        }
        if open.len() >= self.open_max {
            let oldest = open.iter().enumerate().min_by_key(|(_, file)| file.used);
            if let Some(at) = oldest.map(|(at, _)| at) {
                open.swap_remove(at);
            }
        }
        open.push(Open { torrent, opened, looked: now, used: now, nowait: true });
    }

    /// Closes every file of a torrent: its content is elsewhere, or is no longer written to.
    pub fn close_all(&self, torrent: TorrentSlot) {
        self.open.borrow_mut().retain(|file| file.torrent != torrent);
    }

    /// Closes the file that holds a run of the content.
    pub fn close(&self, torrent: TorrentSlot, span: Span) {
        self.open.borrow_mut().retain(|file| file.torrent != torrent || file.opened.span != span);
    }
}

enum Found {
    Open(usize),
    Changed(Span),
    Nowhere,
}

/// The open file that holds all of `span`, still looking as it did.
fn find(open: &mut Vec<Open>, torrent: TorrentSlot, span: Span, now: Instant) -> Found {
    let Some(at) = place_of(open, torrent, span) else { return Found::Nowhere };
    let file = &mut open[at];
    file.used = now;
    if now.since(file.looked) >= LOOK_AGAIN_MS {
        file.looked = now;
        match content::look(&file.opened.file) {
            Ok(look) if file.opened.is_as_it_was(look) => {}
            Ok(_) => return Found::Changed(open.swap_remove(at).opened.span),
            // A share on a network that is away: a lane tries to open it, and says what is wrong.
            Err(_) => {
                open.swap_remove(at);
                return Found::Nowhere;
            }
        }
    }
    Found::Open(at)
}

fn place_of(open: &[Open], torrent: TorrentSlot, span: Span) -> Option<usize> {
    open.iter().position(|file| {
        let held = file.opened.span;
        file.torrent == torrent && held.at <= span.at && span.end() <= held.end()
    })
}

/// Where the file that holds `part` begins in the content.
fn origin_of(open: &[Open], torrent: TorrentSlot, part: &Part) -> u64 {
    place_of(open, torrent, part.span).map_or(0, |at| open[at].opened.span.at)
}

/// How many parts from the first on lie one behind the other in the same file.
fn run_length(parts: &[Part], origin: u64, open: &[Open], torrent: TorrentSlot) -> usize {
    let follows = parts.windows(2).take_while(|pair| {
        pair[1].span.at == pair[0].span.end()
            && !pair[1].metadata
            && place_of(open, torrent, pair[1].span)
                .is_some_and(|at| open[at].opened.span.at == origin)
    });
    1 + follows.count()
}

/// One read for a run of parts, each to its place between the headers.
fn read_run(
    file: BorrowedFd<'_>,
    parts: &[Part],
    at: u64,
    scratch: &mut [u8],
) -> Result<usize, Errno> {
    let mut slices = heapless::Vec::<IoSliceMut<'_>, SERVE_BLOCKS_MAX>::new();
    let (mut rest, mut base) = (scratch, 0);
    for part in parts {
        let (_, from) = rest.split_at_mut(part.at - base);
        let (into, after) = from.split_at_mut(part.span.length as usize);
        // There is room: a serving has no more items than that.
        let _ = slices.push(IoSliceMut::new(into));
        (rest, base) = (after, part.at + part.span.length as usize);
    }
    rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT)
}

fn no_nowait(open: &mut [Open], torrent: TorrentSlot, part: &Part) {
    if let Some(at) = place_of(open, torrent, part.span) {
        open[at].nowait = false;
    }
}

/// How many parts `read` bytes fill.
fn whole_parts(parts: &[Part], read: u64) -> usize {
    let mut left = read;
    let filled = parts.iter().take_while(|part| {
        let whole = left >= part.span.length;
        left = left.saturating_sub(part.span.length);
        whole
    });
    filled.count()
}

/// Where the last of `parts` ends in the scratch.
fn end_of(parts: &[Part]) -> usize {
    parts.last().map_or(0, |part| part.at + part.span.length as usize)
}

/// A look at an open file is good for so long.
const LOOK_AGAIN_MS: u64 = 100;
