//! What the kernel says of a folder and all below it: inotify, and which watch is whose.
//!
//! There is one watch for the folder and one for each folder below it, as far as the board and the
//! kernel have room. A watch that belongs to an entry that is no longer known is given back when
//! it next says something, or when there is no room for another.
//!
//! Events are read when they have been gathered for a while: a file that is being written says the
//! same thing over and over, and the kernel then keeps one word of it instead of thousands.

use super::places::{ITSELF, Touch};
use super::rests::Rests;
use super::table::{Entry, Index, NONE};
use super::{Change, Why};
use crate::engine::metainfo::names;
use crate::engine::units::Instant;
use async_io::Async;
use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::io::Errno;
use std::boxed::Box;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::vec::Vec;

/// See the module.
pub struct Ears {
    inotify: Inotify,
    /// The same descriptor again, for whoever waits until there is something to read.
    ready: Async<OwnedFd>,
    folder: WatchDescriptor,
    /// Files in the folder itself are listened to one by one.
    each: bool,
    watches: Vec<Watched>,
    watches_max: u32,
    free: Vec<u32>,
    by_id: Index,
    buffer: Box<[u8]>,
    /// Why there are no more watches.
    pub spent: Option<Why>,
}

/// A folder below an entry.
struct Watched {
    descriptor: WatchDescriptor,
    entry: Entry,
    is_free: bool,
}

/// Whether what happens in a folder is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was before.
    Already,
    /// It is from now on.
    FromNowOn,
    /// It cannot be.
    Never,
}

/// What became of the folder itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// How many events there were.
    pub events: u32,
    /// The folder has moved or gone.
    pub doubtful: bool,
    /// There may be more to read.
    pub more: bool,
}

impl Ears {
    /// For the folder at that path; when `each` file in it is listened to by itself, only what comes
    /// and goes there is heard. Fails with why there is nothing to be heard.
    pub fn open(folder: &Path, each: bool, watches_max: u32) -> Result<Ears, Why> {
        let inotify = Inotify::init().map_err(|error| why(&error))?;
        let mask = if each { NAMES } else { MASK };
        let mask = mask | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        let folder = inotify.watches().add(folder, mask).map_err(|error| why(&error))?;
        let again = inotify.as_fd().try_clone_to_owned().map_err(|error| why(&error))?;
        let ready = Async::new_nonblocking(again).map_err(|error| why(&error))?;
        let buffer = std::vec![0; BUFFER_BYTES].into_boxed_slice();
        let by_id = Index::new(watches_max);
        let (watches, free) = (Vec::new(), Vec::new());
        let spent = None;
        Ok(Ears { inotify, ready, folder, each, watches, watches_max, free, by_id, buffer, spent })
    }

    /// What one holds, in bytes.
    pub const fn memory_bytes(watches_max: u32) -> u64 {
        let fixed = (size_of::<Watched>() + size_of::<u32>()) as u64;
        watches_max as u64 * fixed + Index::memory_bytes(watches_max) + BUFFER_BYTES as u64
    }

    /// How many watches there are.
    pub fn count(&self) -> u32 {
        1 + self.watches.len() as u32 - self.free.len() as u32
    }

    /// Waits until there is something to hear.
    pub async fn news(&self) {
        // It cannot fail: the descriptor is ours and stays open.
        let _ = self.ready.readable().await;
    }

    /// Listens to an entry that is a file, if files are listened to one by one.
    pub fn listen_to_file(&mut self, file: &Path, entry: Entry) -> Heard {
        if self.each { self.add(file, FILE, entry) } else { Heard::Already }
    }

    /// Listens to a folder below an entry, for that entry.
    pub fn listen(&mut self, folder: &Path, entry: Entry) -> Heard {
        self.add(folder, MASK, entry)
    }

    fn add(&mut self, path: &Path, mask: WatchMask, entry: Entry) -> Heard {
        if self.spent.is_some() {
            return Heard::Never;
        }
        let descriptor = match self.inotify.watches().add(path, mask) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                self.spent = (error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()))
                    .then_some(Why::WatchesOfKernel);
                return Heard::Never;
            }
        };
        if let Some(at) = self.find(&descriptor) {
            // It may have come from another entry.
            let is_known = std::mem::replace(&mut self.watches[at as usize].entry, entry) == entry;
            return if is_known { Heard::Already } else { Heard::FromNowOn };
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.watches.len() as u32 == self.watches_max => {
                // It is gone already if this fails.
                let _ = self.inotify.watches().remove(descriptor);
                self.spent = Some(Why::WatchesOfBoard);
                return Heard::Never;
            }
            None => self.watches.len() as u32,
        };
        let watched = Watched { descriptor, entry, is_free: false };
        match self.watches.get_mut(at as usize) {
            Some(place) => *place = watched,
            None => self.watches.push(watched),
        }
        self.by_id.insert(id_of(&self.watches[at as usize].descriptor), at);
        Heard::FromNowOn
    }

    /// Hands on what was said since the last time, as far as it fits the buffer.
    pub fn hear(&mut self, rests: &mut Rests, now: Instant) -> News {
        let mut news = News::default();
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Ok(events) = self.inotify.read_events(&mut buffer) {
            for event in events {
                news.events += 1;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    rests.handle_lost(now);
                } else if event.wd == self.folder {
                    let ends = EventMask::DELETE_SELF | EventMask::MOVE_SELF | ENDED;
                    news.doubtful |= event.mask.intersects(ends);
                    hand_on(&event, rests, now);
                } else {
                    self.hand_on_below(&event, rests, now);
                }
            }
            news.more = true;
        }
        self.buffer = buffer;
        news
    }

    /// Gives back the watches of entries that are no longer known; says whether there were any.
    pub fn sweep(&mut self, rests: &Rests) -> bool {
        let mut swept = false;
        for at in 0..self.watches.len() as u32 {
            let watched = &self.watches[at as usize];
            if !watched.is_free && !rests.holds(watched.entry) {
                let descriptor = watched.descriptor.clone();
                self.forget(at);
                let _ = self.inotify.watches().remove(descriptor);
                swept = true;
            }
        }
        if swept {
            self.spent = None;
        }
        swept
    }

    fn hand_on_below(&mut self, event: &Event<&OsStr>, rests: &mut Rests, now: Instant) {
        let Some(at) = self.find(&event.wd) else { return };
        if event.mask.intersects(ENDED) {
            return self.forget(at);
        }
        let entry = self.watches[at as usize].entry;
        if !rests.holds(entry) {
            self.forget(at);
            let _ = self.inotify.watches().remove(event.wd.clone());
            return;
        }
        rests.handle_below(entry, touch_below(event), now);
    }

    fn find(&self, descriptor: &WatchDescriptor) -> Option<u32> {
        self.by_id.find(id_of(descriptor), |at| self.watches[at as usize].descriptor == *descriptor)
    }

    fn forget(&mut self, at: u32) {
        let Ears { by_id, watches, free, .. } = self;
        by_id.remove(at, |at| id_of(&watches[at as usize].descriptor));
        free.push(at);
        watches[at as usize].is_free = true;
    }
}

/// Hands on an event of the folder itself.
fn hand_on(event: &Event<&OsStr>, rests: &mut Rests, now: Instant) {
    let name = match event.name.map(judge) {
        Some(Ok(name)) => name,
        Some(Err(Some(left_out))) if event.mask.intersects(COMES) => return rests.say(left_out),
        _ => return,
    };
    let is_folder = event.mask.contains(EventMask::ISDIR);
    match event.mask.difference(EventMask::ISDIR) {
        EventMask::MOVED_FROM => rests.handle_parted(name, event.cookie, now),
        EventMask::MOVED_TO => rests.handle_arrived(name, event.cookie, is_folder, now),
        EventMask::DELETE => rests.handle_gone(name, now),
        EventMask::CREATE if is_folder => rests.handle_named(name, Touch::Folder, now),
        EventMask::MODIFY => rests.handle_named(name, Touch::Written(ITSELF), now),
        EventMask::CLOSE_WRITE => rests.handle_named(name, Touch::Closed(ITSELF), now),
        _ => rests.handle_named(name, Touch::Stirred, now),
    }
}

/// What an event below an entry says of it.
fn touch_below(event: &Event<&OsStr>) -> Touch {
    let mask = event.mask.difference(EventMask::ISDIR);
    let name = event.name.unwrap_or_default();
    if event.mask.contains(EventMask::ISDIR) {
        let has_left = mask == EventMask::MOVED_FROM;
        return if has_left { Touch::Upset } else { Touch::Stirred };
    }
    let file = || {
        let hash = crc32fast::hash(name.as_encoded_bytes()) ^ id_of(&event.wd) as u32;
        if hash == ITSELF { NONE } else { hash }
    };
    match mask {
        // One that is not shared may stay open for as long as it likes.
        EventMask::MODIFY if name.to_str().is_none_or(names::is_left_out) => Touch::Stirred,
        EventMask::MODIFY => Touch::Written(file()),
        EventMask::CLOSE_WRITE | EventMask::DELETE | EventMask::MOVED_FROM => Touch::Closed(file()),
        _ => Touch::Stirred,
    }
}

/// Whether a name in a watched folder is that of an entry: not hidden, not half-made, and not the
/// copy under way of a program that puts a tilde in front of it. A name that is none by mistake
/// comes with what is to be said of it.
pub fn judge(name: &OsStr) -> Result<&str, Option<Change>> {
    let left_out = |why| Some(Change::LeftOut { name: name.to_string_lossy().into_owned(), why });
    let name = name.to_str().ok_or_else(|| left_out("its name is not UTF-8"))?;
    names::check(name).map_err(left_out)?;
    if names::is_left_out(name) || name.starts_with('~') { Err(None) } else { Ok(name) }
}

fn why(error: &io::Error) -> Why {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => Why::WatchesOfKernel,
        _ => Why::NoInotify,
    }
}

fn id_of(descriptor: &WatchDescriptor) -> u64 {
    descriptor.get_watch_descriptor_id() as u64
}

/// What is heard of a folder. Reading a file says nothing, so serving wakes nobody.
const MASK: WatchMask = WatchMask::CREATE
    .union(WatchMask::MODIFY)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::MOVE)
    .union(WatchMask::DELETE)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::DONT_FOLLOW);

/// What is heard of a folder in which each file is listened to by itself, and of such a file.
const NAMES: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVE)
    .union(WatchMask::DELETE)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::DONT_FOLLOW);
const FILE: WatchMask = WatchMask::MODIFY
    .union(WatchMask::ATTRIB)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::DONT_FOLLOW);

/// A name that was not there before.
const COMES: EventMask = EventMask::CREATE.union(EventMask::MOVED_TO);

/// The watch is no more.
const ENDED: EventMask = EventMask::IGNORED.union(EventMask::UNMOUNT);

/// Events that are read at a time: 256 at most, 16 bytes each and a name. One always fits.
const BUFFER_BYTES: usize = 4096;
