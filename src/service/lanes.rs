//! Lanes: a few threads for everything that can sleep in the kernel.
//!
//! The protocol's thread never waits for a disk or a name server. It hands a [`Job`] to a lane and
//! goes on; the answer wakes the task that asked. Jobs are data, one enum; a buffer *moves* to the
//! lane inside its job and comes back inside the answer, and nothing lent crosses a thread.
//!
//! ```text
//!  pump ── Job::Read{buffer} ──> | bounded queue | ──> lane: pread ──> Done::Read{buffer} ──> pump
//! ```
//!
//! Threads, their stacks, the queue and the buffers are made at start; each is a line of the
//! board's contract. When the queue is full the job comes back and the caller tries again later.

use super::Refusal;
use super::content::{Content, ContentError, Opened, Sight};
use super::fetch::make::{self, Made, Plan};
use super::fetch::progress::{Progress, Unrecorded};
use super::fetch::{magnet, settle};
use super::handout::{Errand, Outcome};
use super::known::Known;
use super::moving::Copying;
use super::store::Files;
use super::update::{Step, Went, Work as Updating};
use super::volume::{Anchor, Found, Query, Sight as Sighted, System, Whose};
use super::watch::Watch;
use super::webseed::address::Place;
use crate::engine::peer::Serving;
use crate::engine::swarm::fetch::store::{self, Work};
use crate::engine::units::{InfoHash, Instant, PieceIndex, TorrentSlot};
use std::boxed::Box;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::Pin;
use std::string::String;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

/// What a lane reads into: moved there and back.
pub type Buffer = Box<[u8]>;

/// Something that may sleep.
#[expect(clippy::large_enum_variant, reason = "jobs lie in the queue in place, so none allocates")]
pub enum Job {
    /// Read what a peer is to be sent next, headers included, into `buffer`.
    Read {
        /// Whose content.
        content: Arc<Content>,
        /// What.
        serving: Serving,
        /// Where to.
        buffer: Buffer,
    },
    /// Write what a peer has sent, and hash what can be hashed of it.
    Store {
        /// Whose content.
        content: Arc<Content>,
        /// What.
        work: Work,
        /// What was read from the peer; nothing when there is only something to hash.
        buffer: Buffer,
    },
    /// Sync what is verified of a fetch, and record it.
    Record {
        /// Whose.
        torrent: TorrentSlot,
        /// Whose content.
        content: Arc<Content>,
        /// What is verified and what is recorded.
        progress: Box<Progress>,
    },
    /// Look once more at the files of a torrent that is whole.
    Settle {
        /// Whose.
        torrent: TorrentSlot,
        /// Where, and what of it.
        task: Box<settle::Task>,
    },
    /// Hold metadata that has come against the name of its torrent.
    JudgeMetadata {
        /// Whose.
        torrent: TorrentSlot,
        /// Where it is.
        content: Arc<Content>,
        /// How long it is.
        bytes: u32,
        /// What it has to hash to.
        name: InfoHash,
    },
    /// Look at what has happened to a watched folder.
    Watch {
        /// The folder.
        watch: Box<Watch>,
        /// When it is.
        now: Instant,
    },
    /// Look at what is mounted.
    Look {
        /// What is sought.
        query: Query,
        /// Who is asked.
        whose: Whose,
    },
    /// Find the volume of something that is to be placed.
    TakeUp {
        /// What is known of volumes.
        query: Query,
        /// Where it is to lie.
        path: PathBuf,
    },
    /// See whether a volume is there and holds a path.
    IsThere {
        /// The volume.
        anchor: Arc<Anchor>,
        /// The path.
        path: PathBuf,
    },
    /// Copy some more of a torrent's content elsewhere.
    Copy(Box<Copying>),
    /// Delete the files of a torrent.
    Delete(Box<Known>),
    /// Make the files of a torrent that is to be fetched.
    Make(Box<Plan>),
    /// Remove them again.
    Unmake(Box<Made>),
    /// Hash a piece.
    Hash {
        /// Whose content.
        content: Arc<Content>,
        /// Which piece.
        piece: PieceIndex,
    },
    /// See whether files still look as they did when they were hashed.
    Inspect {
        /// Whose content.
        content: Arc<Content>,
        /// The first file to look at.
        from: u32,
    },
    /// Put bytes in the place of a small file.
    Save {
        /// The file.
        path: PathBuf,
        /// What it is to hold.
        bytes: Vec<u8>,
    },
    /// Find the file that holds a byte of the content, as web seeds call it.
    Locate {
        /// Whose content.
        content: Arc<Content>,
        /// Which byte.
        at: u64,
    },
    /// Some of an update.
    Update(Box<Updating>, Step),
    /// Something for a body of the page's.
    HandOut(Errand),
    /// Ask for the addresses of a host.
    Resolve {
        /// Its name, or an address.
        host: String,
        /// Put into the answers.
        port: u16,
    },
}

/// What became of a job.
#[expect(clippy::large_enum_variant, reason = "tickets hold answers in place, so none allocates")]
pub enum Done {
    /// Of [`Job::Read`].
    Read {
        /// Holds what was read.
        buffer: Buffer,
        /// How much of it is filled, or why nothing is.
        result: Result<usize, ContentError>,
        /// The last file that was opened for it, to be kept open.
        opened: Option<Opened>,
    },
    /// Of [`Job::Store`].
    Store {
        /// To be given back.
        buffer: Buffer,
        /// For the fetcher.
        done: store::Done,
        /// What went wrong.
        error: Option<io::Error>,
    },
    /// Of [`Job::Record`].
    Recorded {
        /// Whose.
        torrent: TorrentSlot,
        /// To be kept.
        progress: Box<Progress>,
        /// Bytes written to its journal.
        result: Result<u64, Unrecorded>,
    },
    /// Of [`Job::Settle`].
    Settled {
        /// Whose.
        torrent: TorrentSlot,
        /// Its folder.
        result: Box<Result<settle::Settled, Refusal>>,
    },
    /// Of [`Job::JudgeMetadata`].
    Judged {
        /// Whose.
        torrent: TorrentSlot,
        /// Whether it is.
        result: io::Result<bool>,
    },
    /// Of [`Job::Watch`].
    Watched(Box<Watch>),
    /// Of [`Job::Look`].
    Looked(Box<io::Result<Sighted>>),
    /// Of [`Job::TakeUp`].
    TakenUp(Box<Result<Found, Refusal>>),
    /// Of [`Job::IsThere`].
    IsThere(bool),
    /// Of [`Job::Copy`]; whether there is more to come.
    Copied(Box<Copying>, Result<bool, Refusal>),
    /// Of [`Job::Delete`]: the files that are left because they are others.
    Deleted(io::Result<Vec<String>>),
    /// Of [`Job::Make`].
    Made(Box<Result<Made, Refusal>>),
    /// Of [`Job::Unmake`].
    Unmade,
    /// Of [`Job::Hash`].
    Hash(PieceIndex, Result<[u8; 20], ContentError>),
    /// Of [`Job::Inspect`].
    Inspect(Sight),
    /// Of [`Job::Save`]; the bytes come back.
    Saved(Vec<u8>, io::Result<()>),
    /// Of [`Job::Locate`].
    Located(io::Result<Place>),
    /// Of [`Job::Update`].
    Updated(Box<Updating>, Box<Result<Went, Refusal>>),
    /// Of [`Job::HandOut`].
    HandedOut(Outcome),
    /// Of [`Job::Resolve`].
    Resolve(io::Result<Vec<SocketAddr>>),
}

/// The lanes. Dropping them ends the threads.
pub struct Lanes {
    shared: Arc<Shared>,
    count: usize,
}

/// What a board gives its lanes.
#[derive(Clone, Copy, Debug)]
pub struct LaneSizes {
    /// Threads.
    pub lanes: usize,
    /// Stack of each, in bytes.
    pub stack_bytes: usize,
    /// What each hashes through; 0 for one that never does.
    pub scratch_bytes: usize,
    /// Buffers for [`Job::Read`].
    pub buffers: usize,
    /// Length of each, in bytes.
    pub buffer_bytes: usize,
    /// Jobs waiting or being done.
    pub jobs_max: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    queue: VecDeque<(usize, Job)>,
    tickets: Vec<Ticket>,
    buffers: Vec<Buffer>,
    /// How often lanes were told to close files.
    sweeps: u64,
    ended: bool,
}

/// Where a job's answer is left.
#[expect(clippy::large_enum_variant, reason = "answers lie in place, so none allocates")]
enum Ticket {
    Free,
    Waiting(Option<Waker>),
    Done(Done),
    /// Nobody waits for it any more.
    Abandoned,
}

impl Lanes {
    /// Starts the threads.
    pub fn start(sizes: LaneSizes) -> io::Result<Lanes> {
        let buffer = || std::vec![0; sizes.buffer_bytes].into_boxed_slice();
        let state = State {
            queue: VecDeque::with_capacity(sizes.jobs_max),
            tickets: (0..sizes.jobs_max).map(|_| Ticket::Free).collect(),
            buffers: (0..sizes.buffers).map(|_| buffer()).collect(),
            sweeps: 0,
            ended: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() });
        for _ in 0..sizes.lanes {
            let (shared, scratch_bytes) = (Arc::clone(&shared), sizes.scratch_bytes);
            let thread = std::thread::Builder::new().name("lane".into());
            thread.stack_size(sizes.stack_bytes).spawn(move || shared.run(scratch_bytes))?;
        }
        Ok(Lanes { shared, count: sizes.lanes })
    }

    /// How many threads.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Has every lane close the files of content that is no longer in use.
    pub fn sweep(&self) {
        self.shared.lock().sweeps += 1;
        self.shared.work.notify_all();
    }

    /// A free buffer, if there is one.
    pub fn take_buffer(&self) -> Option<Buffer> {
        self.shared.lock().buffers.pop()
    }

    /// Gives a buffer back.
    pub fn give_back(&self, buffer: Buffer) {
        self.shared.lock().give_back(buffer);
    }

    /// Hands a job over; the receipt is a future of what became of it.
    ///
    /// # When full
    /// The job comes back.
    #[expect(
        clippy::result_large_err,
        reason = "a job is handed back as it came; there is no heap"
    )]
    pub fn submit(&self, job: Job) -> Result<Receipt, Job> {
        let mut state = self.shared.lock();
        let free = state.tickets.iter().position(|ticket| matches!(ticket, Ticket::Free));
        let Some(ticket) = free else { return Err(job) };
        state.tickets[ticket] = Ticket::Waiting(None);
        state.queue.push_back((ticket, job));
        drop(state);
        self.shared.work.notify_one();
        Ok(Receipt { shared: Arc::clone(&self.shared), ticket: Some(ticket) })
    }

    /// Hands a job over and waits for what became of it; `None` when the queue is full.
    pub async fn run(&self, job: Job) -> Option<Done> {
        Some(self.submit(job).ok()?.await)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // Not waited for: one may be asleep in the kernel for as long as a disk or a name server
        // likes, and what lanes do needs no ending.
        self.shared.lock().ended = true;
        self.shared.work.notify_all();
    }
}

/// The promise of an answer. Dropped, the answer is thrown away and its buffer given back.
pub struct Receipt {
    shared: Arc<Shared>,
    ticket: Option<usize>,
}

impl Future for Receipt {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let ticket = self.ticket.expect("a receipt is not polled after it was honoured");
        let mut state = self.shared.lock();
        match &mut state.tickets[ticket] {
            Ticket::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            place => {
                let answer = std::mem::replace(place, Ticket::Free);
                drop(state);
                self.ticket = None;
                match answer {
                    Ticket::Done(done) => Poll::Ready(done),
                    _ => unreachable!("a ticket with a receipt is waiting or done"),
                }
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        match std::mem::replace(&mut state.tickets[ticket], Ticket::Abandoned) {
            Ticket::Done(done) => {
                state.tickets[ticket] = Ticket::Free;
                state.reclaim(done);
            }
            Ticket::Waiting(_) | Ticket::Abandoned | Ticket::Free => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panics ends the process (`panic = "abort"`), so nothing is half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane's life.
    fn run(&self, scratch_bytes: usize) {
        let (mut scratch, mut files) = (std::vec![0; scratch_bytes], Files::default());
        let mut state = self.lock();
        let mut swept = state.sweeps;
        loop {
            if state.ended {
                return;
            }
            if state.sweeps != swept {
                swept = state.sweeps;
                drop(state);
                files.sweep();
                state = self.lock();
                continue;
            }
            let Some((ticket, job)) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let done = job.run(&mut scratch, &mut files);
            state = self.lock();
            match std::mem::replace(&mut state.tickets[ticket], Ticket::Free) {
                Ticket::Waiting(waker) => {
                    state.tickets[ticket] = Ticket::Done(done);
                    // Whoever wakes looks for the answer at once.
                    drop(state);
                    waker.into_iter().for_each(Waker::wake);
                    state = self.lock();
                }
                _ => state.reclaim(done),
            }
        }
    }
}

impl State {
    fn give_back(&mut self, buffer: Buffer) {
        // A job that only hashes has none.
        if !buffer.is_empty() {
            self.buffers.push(buffer);
        }
    }

    fn reclaim(&mut self, done: Done) {
        if let Done::Read { buffer, .. } | Done::Store { buffer, .. } = done {
            self.give_back(buffer);
        }
    }
}

impl Job {
    /// The buffer that travels with it.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Job::Read { buffer, .. } | Job::Store { buffer, .. } => Some(buffer),
            _ => None,
        }
    }

    fn run(self, scratch: &mut [u8], files: &mut Files) -> Done {
        match self {
            Job::Read { content, serving, mut buffer } => {
                let mut opened = None;
                let result = content.read(&serving, &mut buffer, &mut opened);
                Done::Read { buffer, result, opened }
            }
            Job::Store { content, work, buffer } => {
                let (done, error) = super::store::run(&content, work, &buffer, scratch, files);
                Done::Store { buffer, done, error }
            }
            Job::Record { torrent, content, mut progress } => {
                let result = progress.record(&content, scratch);
                Done::Recorded { torrent, progress, result }
            }
            Job::Settle { torrent, task } => {
                files.close(&task.content);
                Done::Settled { torrent, result: Box::new(task.run()) }
            }
            Job::JudgeMetadata { torrent, content, bytes, name } => {
                let result = magnet::judge(&content, bytes, name);
                Done::Judged { torrent, result }
            }
            Job::Watch { mut watch, now } => {
                watch.turn(now);
                Done::Watched(watch)
            }
            Job::Look { query, whose } => Done::Looked(Box::new(query.run(&mut System, whose))),
            Job::TakeUp { query, path } => Done::TakenUp(Box::new(query.take_up(&path, true))),
            Job::IsThere { anchor, path } => Done::IsThere(anchor.holds(&path)),
            Job::Copy(mut copying) => {
                let result = copying.step();
                Done::Copied(copying, result)
            }
            Job::Delete(known) => Done::Deleted(known.delete_files()),
            Job::Make(plan) => Done::Made(Box::new(make::make(&plan))),
            Job::Unmake(made) => {
                made.remove();
                Done::Unmade
            }
            Job::Hash { content, piece } => Done::Hash(piece, content.hash(piece, scratch)),
            Job::Inspect { content, from } => Done::Inspect(content.inspect(from)),
            Job::Save { path, bytes } => {
                let outcome = super::state::replace(&path, &bytes);
                Done::Saved(bytes, outcome)
            }
            Job::Locate { content, at } => Done::Located(Place::find(&content, at)),
            Job::Update(mut work, step) => {
                let went = work.step(step);
                Done::Updated(work, Box::new(went))
            }
            Job::HandOut(errand) => Done::HandedOut(errand.run()),
            Job::Resolve { host, port } => {
                let found = (host.as_str(), port).to_socket_addrs();
                Done::Resolve(found.map(|addresses| addresses.take(RESOLVED_MAX).collect()))
            }
        }
    }
}

/// Addresses of one host that are looked at.
const RESOLVED_MAX: usize = 8;
