//! The box's end of the control socket.
//!
//! [`PLACES`] tasks take one connection each, hear its one line, have it answered, and take the
//! next; whoever comes meanwhile waits in the kernel's backlog. A task has one buffer, for the line and
//! then for what is answered: lines gather in it and leave together, and a full one waits for the
//! socket, so that an answer of any length takes no more memory than that. Only the same user and
//! root are heard, whatever the socket's permissions have become.
//!
//! Requests that hash may take hours. [`LONG_MAX`] of them may be under way, so that a place is left
//! for the others.
//!
//! # When full
//! Connections wait; another long request is refused, saying why.

use super::answer::{Answer, Done};
use super::{FILE, LINE_BYTES_MAX, Request};
use crate::service::Refusal;
use crate::service::clock::Clock;
use crate::service::state::refused;
use async_io::Async;
use rustix::net::sockopt::socket_peercred;
use smol::future::FutureExt as _;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::vec::Vec;

/// Whoever does what is asked: the service.
pub trait Actions {
    /// Answers one request: lines into `reply`, then where the next page begins, when there is one.
    /// The last line is written by the caller.
    ///
    /// What takes long is begun and answered, or says [`Answer::Progress`] from time to time. Nothing may
    /// be borrowed over an `.await` that others need. [`Unanswered::Gone`] from `reply` is handed on.
    fn answer(
        &self,
        request: Request,
        reply: &mut Reply<'_>,
    ) -> impl Future<Output = Result<Option<u64>, Unanswered>>;
}

/// Why a request has no whole answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It cannot be done; whoever asked is told.
    Refused(Refusal),
    /// Whoever asked does not listen any more.
    Gone,
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Unanswered {
        Unanswered::Refused(refusal)
    }
}

/// The listening socket. It goes away with this, which is to be before the state folder's lock does.
pub struct Socket {
    listener: Async<UnixListener>,
    path: PathBuf,
    patience_ms: u64,
    /// Long requests under way.
    long: Cell<usize>,
}

impl Socket {
    /// Makes `STATE/control`, in place of what another life has left. The caller holds the lock of
    /// the state folder, so that nobody lives behind that. A client that does nothing for
    /// `patience_ms` is let go; see [`PATIENCE_MS`].
    pub fn open(state: &Path, patience_ms: u64) -> Result<Socket, Refusal> {
        let (path, new) = (state.join(FILE), std::format!("{FILE}.new"));
        let open = || -> io::Result<Async<UnixListener>> {
            match fs::remove_file(state.join(&new)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = at_address(state, &new, |address| UnixListener::bind(address))?;
            // It has its name only once it is locked.
            fs::set_permissions(state.join(&new), Permissions::from_mode(0o600))?;
            fs::rename(state.join(&new), &path)?;
            Async::new(listener)
        };
        let listener = open().map_err(|error| refused(&path, error))?;
        Ok(Socket { listener, path, patience_ms, long: Cell::new(0) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Should it stay, nobody answers behind it, and the next life replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Hears and answers one connection after the other, for ever. To be spawned [`PLACES`] times, with
/// a sleeper on the clock for each.
pub async fn run(socket: &Socket, clock: &Clock, actions: &impl Actions) {
    let mut buffer = std::vec![0; LINE_BYTES_MAX];
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let patience_ms = socket.patience_ms;
                let wire = Wire { stream, clock, patience_ms, buffer: &mut buffer, filled: 0 };
                let mut reply = Reply::Wire(wire);
                if let Err(Unanswered::Refused(refusal)) = attend(socket, actions, &mut reply).await
                {
                    debug!("control: {refusal}");
                    let _ = reply.finish(Answer::Error(refusal)).await;
                }
            }
            Err(error) => {
                warn!("{}: {error}; it is tried again", socket.path.display());
                clock.sleep(ACCEPT_PAUSE_MS, "another command of the owner's").await;
            }
        }
    }
}

/// One connection, but for what is refused.
async fn attend(
    socket: &Socket,
    actions: &impl Actions,
    reply: &mut Reply<'_>,
) -> Result<(), Unanswered> {
    let Reply::Wire(wire) = &mut *reply else { return Ok(()) };
    check_peer(&wire.stream)?;
    let request = wire.hear().await?;
    debug!("control: {request:?}");
    let _long = match request {
        Request::Add(_) | Request::Update(_) => Some(Long::begin(&socket.long)?),
        _ => None,
    };
    let next = actions.answer(request, reply).await?;
    reply.finish(Answer::Done(Done { next })).await
}

/// Who is at the other end: the same user, or root.
fn check_peer(stream: &Async<UnixStream>) -> Result<(), Unanswered> {
    // The kernel has no number for a process outside our namespace, which reads as an error.
    let peer = socket_peercred(stream).map_err(|_| {
        let problem = "cannot tell who asks";
        Refusal::new("the box", problem, "ask from the machine or container it runs in")
    })?;
    let ours = rustix::process::geteuid();
    if peer.uid == ours || peer.uid.is_root() {
        return Ok(());
    }
    let (peer, ours) = (peer.uid.as_raw(), ours.as_raw());
    warn!("control: user {peer} may not tell this box anything");
    let problem = std::format!("belongs to user {ours}, not to user {peer}");
    Err(Refusal::new("the box", problem, "ask as that user, or as root").into())
}

/// A long request under way.
struct Long<'s>(&'s Cell<usize>);

impl<'s> Long<'s> {
    fn begin(count: &'s Cell<usize>) -> Result<Long<'s>, Refusal> {
        if count.get() == LONG_MAX {
            let problem = std::format!("{LONG_MAX} others are under way");
            return Err(Refusal::new("add", problem, "ask again when one of them is done"));
        }
        count.set(count.get() + 1);
        Ok(Long(count))
    }
}

impl Drop for Long<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Where the answer to one request goes.
pub enum Reply<'c> {
    /// To whoever asks over the socket.
    Wire(Wire<'c>),
    /// Here, for whoever asks from within: the page.
    Kept(Vec<Answer>),
}

impl Reply<'_> {
    /// One line of the answer. On the wire lines leave when the buffer is full, when what is under way
    /// has progressed, and at the end; the wait for the socket is here.
    pub async fn item(&mut self, answer: Answer) -> Result<(), Unanswered> {
        match self {
            Reply::Wire(wire) => wire.item(&answer).await,
            Reply::Kept(kept) => {
                kept.push(answer);
                Ok(())
            }
        }
    }

    async fn finish(&mut self, last: Answer) -> Result<(), Unanswered> {
        self.item(last).await?;
        match self {
            Reply::Wire(wire) => wire.flush().await,
            Reply::Kept(_) => Ok(()),
        }
    }
}

/// One connection to the socket.
pub struct Wire<'c> {
    stream: Async<UnixStream>,
    clock: &'c Clock,
    patience_ms: u64,
    /// The request's line first, then lines that have not left yet.
    buffer: &'c mut [u8],
    filled: usize,
}

impl Wire<'_> {
    async fn item(&mut self, answer: &Answer) -> Result<(), Unanswered> {
        if !self.fits(answer) {
            self.flush().await?;
            if !self.fits(answer) {
                let problem = std::format!("has a line of more than {LINE_BYTES_MAX} bytes");
                return Err(
                    Refusal::new("answer", problem, "report this: it is our mistake").into()
                );
            }
        }
        match answer {
            Answer::Progress(_) => self.flush().await,
            _ => Ok(()),
        }
    }

    /// Puts a line behind the others, when there is room for it.
    fn fits(&mut self, answer: &Answer) -> bool {
        let mut room = &mut self.buffer[self.filled..];
        let free = room.len();
        let written = serde_json::to_writer(&mut room, answer);
        if written.is_err() || room.is_empty() {
            return false;
        }
        room[0] = b'\n';
        self.filled += free - room.len() + 1;
        true
    }

    async fn flush(&mut self) -> Result<(), Unanswered> {
        let mut sent = 0;
        while sent < self.filled {
            let mut stream = &self.stream;
            let write = stream.write(&self.buffer[sent..self.filled]);
            let late = async {
                self.clock.sleep(self.patience_ms, "the owner's terminal").await;
                Err(io::ErrorKind::TimedOut.into())
            };
            sent += match write.or(late).await {
                Ok(0) | Err(_) => return Err(Unanswered::Gone),
                Ok(length) => length,
            };
        }
        self.filled = 0;
        Ok(())
    }

    /// The request's line, whole and in time.
    async fn hear(&mut self) -> Result<Request, Unanswered> {
        let (stream, buffer) = (&self.stream, &mut *self.buffer);
        let whole = async {
            let mut filled = 0;
            loop {
                let length = match (&mut &*stream).read(&mut buffer[filled..]).await {
                    Ok(0) if filled == 0 => return Err(Unanswered::Gone),
                    Ok(0) => return Err(half_a_line("ends in the middle of its line")),
                    Ok(length) => length,
                    Err(_) => return Err(Unanswered::Gone),
                };
                let end = buffer[filled..filled + length].iter().position(|byte| *byte == b'\n');
                if let Some(end) = end {
                    return Ok(filled + end);
                }
                filled += length;
                if filled == buffer.len() {
                    let problem = std::format!("is longer than {LINE_BYTES_MAX} bytes");
                    return Err(Refusal::new("request", problem, "ask for less at a time").into());
                }
            }
        };
        let late = async {
            self.clock.sleep(self.patience_ms, "the owner's command").await;
            Err(half_a_line("did not come in time"))
        };
        let length = whole.or(late).await?;
        Ok(Request::parse(&self.buffer[..length])?)
    }
}

fn half_a_line(problem: &'static str) -> Unanswered {
    Refusal::new("request", problem, "send one line of JSON").into()
}

/// Binds or connects at a name in a folder, wherever that is: the address of a Unix socket holds
/// 107 bytes of path, and a deep folder has more. Its descriptor names it in less.
pub(super) fn at_address<T>(
    folder: &Path,
    name: &str,
    action: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let path = folder.join(name);
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return action(&path);
    }
    let folder = fs::File::open(folder)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
    action(&PathBuf::from(std::format!("/proc/self/fd/{number}/{name}")))
}

/// Connections at a time.
pub const PLACES: usize = 4;

/// A client that sends or takes nothing for so long is let go.
pub const PATIENCE_MS: u64 = 10_000;

/// Additions and updates at a time: they may take hours, and one place is for what is asked meanwhile.
pub const LONG_MAX: usize = PLACES - 1;

/// After a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE_MS: u64 = 1_000;

/// `sun_path` without the zero at its end (`unix(7)`).
const ADDRESS_BYTES_MAX: usize = 107;
