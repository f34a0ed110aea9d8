//! Files of a torrent as the page hands them out: found by path, sent by `sendfile`.
//!
//! What lies in the page cache is sent at once; for everything else a lane does the same call, so
//! that a disk that has to wake stops nobody but who waits for it. The bytes never pass through
//! memory of ours.

use super::Refusal;
use super::content::{Content, ContentError, FileSource, Opened, look};
use super::lanes::Buffer;
use super::owner::Password;
use super::state::sync_folder;
use crate::engine::library::{Extent, ExtentMap};
use async_io::Async;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;

/// A file that is to be handed out.
#[derive(Debug)]
pub struct Found {
    /// Its number in the torrent.
    pub index: u32,
    /// It, looking as it did.
    pub opened: Opened,
}

/// Finds a file by its path below the torrent's root and opens it; `None` when there is none. May
/// sleep: on a lane.
pub fn find(content: &Content, path: &str) -> Result<Option<Found>, ContentError> {
    for index in 0..content.file_count {
        let Some(extent) = extent(content, index)? else { break };
        if extent.padding || !content.path_of(&extent).is_ok_and(|known| known == path) {
            continue;
        }
        return content.open(&extent).map(|opened| Some(Found { index, opened }));
    }
    Ok(None)
}

/// All files of a torrent together, but those that only fill up a piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measure {
    /// How many there are.
    pub files: u64,
    /// How long their paths are below the torrent's root, in bytes.
    pub path_bytes: u64,
    /// How long they are.
    pub bytes: u64,
}

/// Measures the files of a torrent. May sleep: on a lane.
pub fn measure(content: &Content) -> io::Result<Measure> {
    let mut all = Measure::default();
    for index in 0..content.file_count {
        let extent = extent(content, index).map_err(as_it_is)?;
        let extent = extent.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !extent.padding {
            all.files += 1;
            all.path_bytes += content.path_of(&extent)?.len() as u64;
            all.bytes += extent.span.length;
        }
    }
    Ok(all)
}

/// What the extent map says of one file.
pub fn extent(content: &Content, index: u32) -> Result<Option<Extent>, ContentError> {
    let mut source = FileSource(&content.extents);
    let read = ExtentMap::new(&mut source, content.file_count).read(index);
    read.map_err(ContentError::NoMetadata)
}

/// Sends part of a file to whoever reads `stream`, as much as that takes now. An error of kind
/// [`io::ErrorKind::WouldBlock`] says that it takes nothing, `Ok(0)` that the file ends before `at`.
pub fn send(stream: &Async<TcpStream>, file: &Opened, at: u64, bytes: usize) -> io::Result<usize> {
    let mut offset = at;
    loop {
        match rustix::fs::sendfile(stream, &file.file, Some(&mut offset), bytes) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Whether a byte of a file can be read without waiting for a disk.
pub fn is_cached(file: &Opened, at: u64) -> bool {
    let mut byte = [0];
    let mut room = [IoSliceMut::new(&mut byte)];
    let read = rustix::io::preadv2(&file.file, &mut room, at, ReadWriteFlags::NOWAIT);
    read.is_ok_and(|read| read == 1)
}

/// Whether a file still looks as it did when it was opened.
pub fn is_as_it_was(file: &Opened) -> bool {
    look(&file.file).is_ok_and(|seen| file.is_as_it_was(seen))
}

/// What a lane does for a body.
pub enum Errand {
    /// [`find`].
    Find {
        /// Whose file.
        content: Arc<Content>,
        /// Its path.
        path: String,
    },
    /// [`measure`].
    Measure {
        /// What.
        content: Arc<Content>,
    },
    /// [`send`].
    Send {
        /// To whom.
        stream: Arc<Async<TcpStream>>,
        /// What.
        file: Arc<Opened>,
        /// From here on.
        at: u64,
        /// At most so much.
        bytes: usize,
    },
    /// Read a run of content into a buffer.
    Read {
        /// Whose content.
        content: Arc<Content>,
        /// Where it begins.
        at: u64,
        /// How long it is; no more than the buffer.
        bytes: usize,
        /// Where to. It is whoever's asks, and no lane's.
        buffer: Buffer,
    },
    /// Hash a password that is chosen, or that is brought for the one that was.
    Password {
        /// What was typed.
        text: String,
        /// What it is to be.
        is: Option<Password>,
        /// Memory for it.
        mib: u8,
    },
    /// Keep a file that is whole under its own name, if nobody else has that.
    Keep {
        /// It.
        file: Arc<File>,
        /// How long it is.
        bytes: u64,
        /// What it is called so far.
        part: PathBuf,
        /// What it is to be called, in the same folder.
        whole: PathBuf,
    },
    /// Write what somebody sends to a file that is being made.
    Put {
        /// The file.
        file: Arc<File>,
        /// Where to.
        at: u64,
        /// How much of the buffer.
        bytes: usize,
        /// What. It is whoever's asks, and no lane's.
        buffer: Buffer,
    },
}

/// What became of an [`Errand`].
pub enum Outcome {
    /// Of [`Errand::Find`].
    Found(Result<Option<Found>, ContentError>),
    /// Of [`Errand::Measure`].
    Measured(io::Result<Measure>),
    /// Of [`Errand::Send`].
    Sent(io::Result<usize>),
    /// Of [`Errand::Password`], chosen.
    Chosen(Result<Password, Refusal>),
    /// Of [`Errand::Password`], brought: whether it is the one.
    Is(Result<bool, Refusal>),
    /// Of [`Errand::Keep`].
    Kept(io::Result<()>),
    /// Of [`Errand::Read`] and [`Errand::Put`]: the buffer comes back.
    Moved(Buffer, io::Result<()>),
}

impl Errand {
    /// Does it. May sleep: on a lane.
    pub fn run(self) -> Outcome {
        match self {
            Errand::Find { content, path } => Outcome::Found(find(&content, &path)),
            Errand::Measure { content } => Outcome::Measured(measure(&content)),
            Errand::Send { stream, file, at, bytes } => {
                Outcome::Sent(send(&stream, &file, at, bytes))
            }
            Errand::Read { content, at, bytes, mut buffer } => {
                let span = crate::engine::units::Span { at, length: bytes as u64 };
                let read = content.read_content(span, &mut buffer[..bytes], &mut None);
                Outcome::Moved(buffer, read.map_err(as_it_is))
            }
            Errand::Password { text, is: Some(password), mib } => {
                Outcome::Is(password.is(&text, mib))
            }
            Errand::Password { text, is: None, mib } => {
                Outcome::Chosen(Password::choose(&text, mib))
            }
            Errand::Keep { file, bytes, part, whole } => {
                Outcome::Kept(keep(&file, bytes, &part, &whole))
            }
            Errand::Put { file, at, bytes, buffer } => {
                let put = file.write_all_at(&buffer[..bytes], at);
                Outcome::Moved(buffer, put)
            }
        }
    }
}

fn keep(file: &File, bytes: u64, part: &Path, whole: &Path) -> io::Result<()> {
    file.set_len(bytes)?;
    file.sync_all()?;
    renameat_with(CWD, part, CWD, whole, RenameFlags::NOREPLACE)?;
    // Whoever is told that it is here may throw its own away.
    whole.parent().map_or(Ok(()), sync_folder)
}

fn as_it_is(error: ContentError) -> io::Error {
    match error {
        ContentError::Changed(_) => io::Error::other("it has changed since it was hashed"),
        ContentError::Unreadable(_, error) | ContentError::NoMetadata(error) => error,
    }
}
