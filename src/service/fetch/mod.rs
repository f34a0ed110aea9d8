//! The keeping of what is fetched: pieces are judged, recorded and, in the end, settled.
//!
//! What to ask whom is the engine's to decide, and payload goes from the pumps straight to lanes.
//! Here is what is left: pieces that could not be hashed along are handed to a lane once they are
//! whole; what is verified is synced and recorded in batches; and a torrent of which nothing is
//! lacking any more is *settled*: its files are looked at once more and it becomes a share like any
//! other.
//!
//! ```text
//! verified ── 64 MiB or 10 s ──> lane: sync, record ──> recorded
//!          ── nothing lacking ─> lane: record, look ──> settled: admitted as whole
//! disk full, or gone ──────────> paused until it is not (service/grounds); all else goes on
//! a file that cannot be written > paused, tried again every 10 s
//! ```
//!
//! - [`open`]: a torrent is taken up, begun or gone on with
//! - [`magnet`]: what it is, when only its name is known
//! - [`download`]: its `.torrent` is brought from the web
//! - [`make`]: its files
//! - [`progress`]: what is recorded of it
//! - [`put_off`]: what could not be begun
//! - [`settle`]: it is whole

pub mod download;
pub mod magnet;
pub mod make;
pub mod open;
pub mod progress;
pub mod put_off;
pub mod settle;

use super::announcer::Announcer;
use super::archive::Archive;
use super::clock::Bell;
use super::lanes::{Done, Job, Receipt};
use super::options::Options;
use super::report::Report;
use super::volume::{Deed, State as How};
use super::{Refusal, Service};
use crate::engine::swarm::fetch::Fetching;
use crate::engine::units::{Deadline, InfoHash, Instant, PieceIndex, TorrentSlot};
use progress::{Progress, Unrecorded};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::string::{String, ToString};
use std::sync::Arc;
use std::task::Poll;
use std::vec::Vec;

/// A torrent that is being fetched.
pub struct Goal {
    /// Its place in the swarm.
    pub torrent: TorrentSlot,
    /// Its name on the network.
    pub info_hash: InfoHash,
    /// Its name for people.
    pub name: String,
    /// What its file is called in the state folder.
    pub torrent_name: String,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// Its folder in the state folder.
    pub folder: PathBuf,
    /// Bytes of wanted pieces.
    pub wanted_bytes: u64,
    /// Bytes of these that are verified.
    pub here_bytes: u64,
    /// How many of them were when it was begun.
    begun_bytes: u64,
    /// What is recorded; not here while a lane has it.
    pub progress: Option<Box<Progress>>,
    /// Verified and not yet handed to a lane.
    unrecorded_bytes: u64,
    record_at: Instant,
    /// It could not be written, and since when it is not tried.
    trouble: Option<Trouble>,
    /// How the disk is onto which nothing is fetched now.
    held: Option<How>,
    /// Why it could not be recorded, last time.
    unrecorded_why: Option<io::ErrorKind>,
    stage: Stage,
    /// The owner has been told that nothing is lacking.
    said_complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fetching,
    /// A lane looks at its files once more.
    Settling,
    Settled,
    /// The owner wants it no more, or not now: what is verified is recorded, then it goes.
    Withdrawn,
}

struct Trouble {
    kind: io::ErrorKind,
    again_at: Instant,
}

impl Goal {
    /// What is to be kept of an errand whose torrent is active.
    pub fn new(torrent: TorrentSlot, share: &super::share::Share, errand: open::Errand) -> Goal {
        let name = share.torrent.file_name().unwrap_or_default();
        // What lay there and was found to be right is recorded as what comes is.
        let is_recorded = errand.progress.is_recorded();
        Goal {
            torrent,
            info_hash: share.info_hash,
            name: share.name.clone(),
            torrent_name: name.to_string_lossy().into_owned(),
            private: share.private,
            folder: errand.folder,
            wanted_bytes: errand.wanted_bytes,
            here_bytes: errand.here_bytes,
            begun_bytes: errand.here_bytes,
            progress: Some(Box::new(errand.progress)),
            unrecorded_bytes: u64::from(!is_recorded),
            record_at: if is_recorded { Instant::NEVER } else { Instant::default() },
            trouble: None,
            held: None,
            unrecorded_why: None,
            stage: Stage::Fetching,
            said_complete: false,
        }
    }

    /// What is wrong with it, if anything is.
    pub fn trouble_words(&self) -> Option<String> {
        if let Some(how) = self.held.filter(|how| *how != How::Well) {
            return Some(std::format!("waits: its disk is {}", how.word()));
        }
        let kind = self.trouble.as_ref().map(|trouble| trouble.kind).or(self.unrecorded_why)?;
        Some(std::format!("cannot be written: {kind}; it is tried again"))
    }

    /// Nothing of it is lacking any more, and it is a share like any other.
    pub fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }
}

/// Where pumps leave what has become of pieces.
#[derive(Default)]
pub struct Desk {
    /// All that is being fetched.
    pub goals: RefCell<Vec<Goal>>,
    /// Each verified piece is said on stdout.
    pub says_pieces: Cell<bool>,
    /// Torrents whose metadata is sought.
    pub hunts: RefCell<Vec<magnet::Hunt>>,
    /// Those whose metadata has been found, still to be taken up.
    pub found: RefCell<Vec<TorrentSlot>>,
    /// Rung when there is one more.
    pub found_bell: Bell,
    /// What could not be begun, and why: it is left alone for a while.
    put_off: RefCell<VecDeque<put_off::PutOff>>,
    /// Why something that was asked for will never come.
    failed: RefCell<Option<Refusal>>,
    /// Rung when a torrent has been settled, or will never be.
    pub settled: Bell,
    /// Rung when there is a place for another torrent to be fetched.
    pub place_free: Bell,
    /// Bytes of content that were fetched and verified.
    pub verified_bytes: Cell<u64>,
    /// Bytes of journals written for fetches.
    pub journal_bytes: Cell<u64>,
    stopping: Cell<bool>,
}

impl Desk {
    /// A piece is there.
    pub fn note_verified(&self, service: &Service<'_>, torrent: TorrentSlot, piece: PieceIndex) {
        let bytes = service.content(torrent).layout.piece_len(piece);
        self.verified_bytes.set(self.verified_bytes.get() + u64::from(bytes));
        let mut goals = self.goals.borrow_mut();
        let Some(goal) = goals.iter_mut().find(|goal| goal.torrent == torrent) else { return };
        goal.here_bytes += u64::from(bytes);
        if goal.unrecorded_bytes == 0 {
            goal.record_at = service.clock.now().after(RECORD_MS);
        }
        goal.unrecorded_bytes += u64::from(bytes);
        if self.says_pieces.get() {
            super::report::piece(&goal.info_hash, piece);
        }
    }

    /// Payload could not be written: the torrent pauses, and says so once. What is wrong with a disk
    /// is said of that, and pauses all that is fetched onto it.
    pub fn note_trouble(&self, service: &Service<'_>, torrent: TorrentSlot, error: &io::Error) {
        let content = service.content(torrent);
        let of_disk = service.grounds.note_error(&content, Deed::Write, error);
        let mut goals = self.goals.borrow_mut();
        let Some(goal) = goals.iter_mut().find(|goal| goal.torrent == torrent) else {
            return service.complain("metadata cannot be written", error);
        };
        let is_same = |trouble: &Trouble| trouble.kind == error.kind();
        if !goal.trouble.as_ref().is_some_and(is_same) && goal.held.is_none() {
            if !of_disk {
                let name = &goal.name;
                warn!("{name}: cannot be written: {error}; it pauses, and is tried again");
            }
            super::report::trouble(&goal.info_hash, &error.to_string(), self.says_pieces.get());
        }
        if of_disk {
            // Until it is known what is wrong with it.
            goal.held = goal.held.or(Some(How::Failing));
        } else {
            goal.rest(service, error.kind());
        }
        service.swarm.borrow_mut().fetcher.pause(torrent, true);
    }

    /// Pauses what is fetched onto disks that take nothing now, and goes on with the rest.
    pub fn hold(&self, service: &Service<'_>) {
        for goal in self.goals.borrow_mut().iter_mut().filter(|goal| !goal.is_settled()) {
            let held = service.grounds.held(service.content(goal.torrent).volume());
            // Until a look has been there it stands as it did.
            let held =
                held.map(|how| if how == How::Well { goal.held.unwrap_or(how) } else { how });
            let was = std::mem::replace(&mut goal.held, held);
            if was.is_some() != held.is_some() {
                let paused = held.is_some() || goal.trouble.is_some();
                service.swarm.borrow_mut().fetcher.pause(goal.torrent, paused);
            }
            // Until a look there may be nothing to say.
            let said = was.filter(|how| *how != How::Well);
            if let (None, Some(how)) = (said, held.filter(|how| *how != How::Well)) {
                let words = std::format!("its disk is {}: it pauses", how.word());
                super::report::trouble(&goal.info_hash, &words, self.says_pieces.get());
            }
        }
        service.ring_nudged();
    }

    /// Something is fetched, or would be if it could be written.
    pub fn is_fetching(&self) -> bool {
        self.goals.borrow().iter().any(|goal| !goal.is_settled())
    }

    /// Bytes that are wanted and not there; `None` for what is no fetch.
    pub fn left_bytes(&self, torrent: TorrentSlot) -> Option<u64> {
        let goals = self.goals.borrow();
        let goal = goals.iter().find(|goal| goal.torrent == torrent)?;
        Some(goal.wanted_bytes.saturating_sub(goal.here_bytes))
    }

    /// Bytes of a torrent that have come and been verified since it was begun.
    pub fn fetched_bytes(&self, torrent: TorrentSlot) -> u64 {
        let goals = self.goals.borrow();
        let goal = goals.iter().find(|goal| goal.torrent == torrent);
        goal.map_or(0, |goal| goal.here_bytes.saturating_sub(goal.begun_bytes))
    }

    /// Nothing is fetched at all.
    pub fn is_idle(&self) -> bool {
        self.hunts.borrow().is_empty() && self.goals.borrow().iter().all(Goal::is_settled)
    }

    /// The owner wants a torrent no more, or not now.
    pub fn withdraw(&self, torrent: TorrentSlot) {
        self.hunts.borrow_mut().retain(|hunt| hunt.torrent() != torrent);
        let mut goals = self.goals.borrow_mut();
        let of = |goal: &&mut Goal| goal.torrent == torrent && goal.stage == Stage::Fetching;
        if let Some(goal) = goals.iter_mut().find(of) {
            goal.stage = Stage::Withdrawn;
        }
    }

    /// Drops a torrent that was withdrawn, once what is verified of it is recorded; whether nothing
    /// is kept of it any more. What cannot be recorded is fetched again.
    pub fn drop_withdrawn(&self, torrent: TorrentSlot) -> bool {
        let mut goals = self.goals.borrow_mut();
        let is_over = |goal: &Goal| {
            let recorded = goal.unrecorded_bytes == 0 || goal.unrecorded_why.is_some();
            goal.stage == Stage::Withdrawn && goal.progress.is_some() && recorded
        };
        goals.retain(|goal| goal.torrent != torrent || !is_over(goal));
        let left = goals.iter().find(|goal| goal.torrent == torrent);
        left.is_none_or(Goal::is_settled)
    }

    /// Whether nothing of a torrent is fetched, recorded or looked for any more.
    pub fn is_settled(&self, torrent: TorrentSlot) -> bool {
        let goals = self.goals.borrow();
        let hunted = self.hunts.borrow().iter().any(|hunt| hunt.torrent() == torrent);
        let open = |goal: &Goal| goal.torrent == torrent && !goal.is_settled();
        !hunted && !self.found.borrow().contains(&torrent) && !goals.iter().any(open)
    }

    /// A torrent that is settled rests.
    pub fn forget(&self, torrent: TorrentSlot) {
        self.goals.borrow_mut().retain(|goal| goal.torrent != torrent);
    }

    /// Whether everything that was asked for is there and settled.
    pub fn is_done(&self) -> bool {
        let sought = !self.hunts.borrow().is_empty() || !self.found.borrow().is_empty();
        !sought && self.goals.borrow().iter().all(Goal::is_settled)
    }

    /// Something that was asked for will never come.
    pub fn fail(&self, refusal: Refusal) {
        self.failed.borrow_mut().get_or_insert(refusal);
    }

    /// Why something that was asked for will never come.
    pub fn failure(&self) -> Option<Refusal> {
        self.failed.borrow().clone()
    }

    fn deadline(&self) -> Deadline {
        let goals = self.goals.borrow();
        // While a lane records, its answer is what is waited for.
        let free = goals.iter().filter(|goal| goal.progress.is_some());
        let record = free.map(|goal| goal.record_at).min().unwrap_or(Instant::NEVER);
        let again = goals.iter().filter_map(|goal| Some(goal.trouble.as_ref()?.again_at)).min();
        let due = Deadline { at: record, why: "pieces to record" };
        match again {
            Some(at) => due.or(Deadline { at, why: "a disk to try again" }),
            None => due,
        }
    }
}

/// What settling a torrent changes.
pub struct Keeper<'k> {
    /// What is known.
    pub archive: &'k Archive,
    /// Tells trackers that a torrent is whole.
    pub announcer: &'k Announcer,
    /// What the owner asked for.
    pub options: &'k Options,
}

/// Judges, records and settles, for ever.
pub async fn run(service: &Service<'_>, keeper: &Keeper<'_>, report: &Report) {
    let slot = service.clock.slot(service.duties.fetch);
    let mut at_work: Vec<Receipt> = Vec::with_capacity(service.lanes.count() + JOBS_MAX);
    loop {
        say_what_is_complete(service, keeper, report);
        magnet::judge_what_has_come(service, &mut at_work);
        judge(service, &mut at_work);
        record(service, &mut at_work);
        settle_what_is_whole(service, keeper, &mut at_work).await;
        service.clock.ring_at(slot, service.fetched.deadline());
        let done = poll_fn(|cx| {
            for at in 0..at_work.len() {
                if let Poll::Ready(done) = Pin::new(&mut at_work[at]).poll(cx) {
                    at_work.swap_remove(at);
                    return Poll::Ready(Some(done));
                }
            }
            service.clock.bell(slot).poll(cx).map(|()| None)
        });
        match done.await {
            Some(Done::Recorded { torrent, progress, result }) => {
                recorded(service, torrent, progress, result);
            }
            Some(Done::Judged { torrent, result }) => {
                magnet::judged(service, torrent, result);
            }
            Some(Done::Settled { torrent, result }) => {
                settle::finish(service, keeper, torrent, *result).await;
            }
            Some(done) => service.handle_done(done),
            None => {}
        }
    }
}

/// Records what is verified, and returns when it is.
pub async fn stop(service: &Service<'_>) {
    service.fetched.stopping.set(true);
    let goals = &service.fetched.goals;
    let open = |goal: &Goal| goal.unrecorded_bytes > 0 || goal.progress.is_none();
    while goals.borrow().iter().any(|goal| !goal.is_settled() && open(goal)) {
        // Lanes may still be at work on what has come: more may be verified meanwhile.
        let now = service.clock.now();
        for goal in goals.borrow_mut().iter_mut().filter(|goal| goal.unrecorded_bytes > 0) {
            goal.record_at = now;
        }
        service.clock.ring(service.duties.fetch);
        service.clock.sleep(STOP_LOOK_MS, "the last record").await;
    }
}

/// Says of which torrents nothing is lacking any more.
fn say_what_is_complete(service: &Service<'_>, keeper: &Keeper<'_>, report: &Report) {
    let mut goals = service.fetched.goals.borrow_mut();
    let fetching = |goal: &&mut Goal| !goal.said_complete && goal.stage != Stage::Withdrawn;
    for goal in goals.iter_mut().filter(fetching) {
        if !service.swarm.borrow().fetcher.is_fetched(goal.torrent) {
            goal.said_complete = true;
            keeper.announcer.complete(service, goal.torrent);
            report.complete(goal);
        }
    }
}

/// Hands pieces that are whole and could not be hashed along to lanes.
fn judge(service: &Service<'_>, at_work: &mut Vec<Receipt>) {
    while at_work.len() < service.lanes.count() {
        let Some(work) = service.swarm.borrow_mut().fetcher.take_verify() else { return };
        let content = service.content(work.torrent);
        let job = Job::Store { content, work, buffer: Box::default() };
        match service.lanes.submit(job) {
            Ok(receipt) => at_work.push(receipt),
            // There is a ticket for it; without one the piece is fetched again.
            Err(job) => service.handle_undone(job),
        }
    }
}

/// Hands what is verified to a lane to be recorded, where that is due.
fn record(service: &Service<'_>, at_work: &mut Vec<Receipt>) {
    let now = service.clock.now();
    let mut goals = service.fetched.goals.borrow_mut();
    for goal in goals.iter_mut() {
        if goal.trouble.as_ref().is_some_and(|trouble| trouble.again_at <= now) {
            goal.trouble = None;
            service.swarm.borrow_mut().fetcher.pause(goal.torrent, goal.held.is_some());
            service.ring_nudged();
        }
        let whole = !service.swarm.borrow().fetcher.is_fetched(goal.torrent);
        let much = whole || goal.unrecorded_bytes >= RECORD_BYTES;
        // After a failure nothing is hurried.
        let due = goal.record_at <= now || (much && goal.unrecorded_why.is_none());
        if goal.unrecorded_bytes == 0 || !due {
            continue;
        }
        let Some(mut progress) = goal.progress.take() else { continue };
        service.swarm.borrow().bitfield(goal.torrent, 0, &mut progress.verified);
        (goal.unrecorded_bytes, goal.record_at) = (0, Instant::NEVER);
        let content = service.content(goal.torrent);
        match service.lanes.submit(Job::Record { torrent: goal.torrent, content, progress }) {
            Ok(receipt) => at_work.push(receipt),
            Err(job) => {
                if let Job::Record { progress, .. } = job {
                    goal.progress = Some(progress);
                }
                (goal.unrecorded_bytes, goal.record_at) = (1, now.after(RECORD_MS));
            }
        }
    }
}

fn recorded(
    service: &Service<'_>,
    torrent: TorrentSlot,
    progress: Box<Progress>,
    result: Result<u64, Unrecorded>,
) {
    let content = service.content(torrent);
    let mut goals = service.fetched.goals.borrow_mut();
    let Some(goal) = goals.iter_mut().find(|goal| goal.torrent == torrent) else { return };
    goal.progress = Some(progress);
    match result {
        Ok(bytes) => {
            goal.unrecorded_why = None;
            service.grounds.note_written(&content);
            let all = &service.fetched.journal_bytes;
            all.set(all.get() + bytes);
        }
        Err(why) => {
            let (error, of_disk) = match why {
                Unrecorded::State(error) => (error, false),
                Unrecorded::Content(error) => {
                    let of_disk = service.grounds.note_error(&content, Deed::Write, &error);
                    (error, of_disk)
                }
            };
            let what = std::format!("{}: what is fetched cannot be recorded", goal.name);
            if goal.unrecorded_why.replace(error.kind()) != Some(error.kind()) {
                let json = service.fetched.says_pieces.get();
                super::report::trouble(&goal.info_hash, &std::format!("{what}: {error}"), json);
            }
            if !of_disk {
                service.complain(what, &error);
            }
            // Nothing is lost by trying again, and what is not recorded is not claimed.
            goal.unrecorded_bytes = goal.unrecorded_bytes.max(1);
            goal.record_at = service.clock.now().after(RECORD_MS);
        }
    }
}

/// Has a lane look once more at the files of a torrent of which nothing is lacking.
async fn settle_what_is_whole(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    at_work: &mut Vec<Receipt>,
) {
    let settling = |goal: &Goal| goal.stage == Stage::Settling;
    // One at a time.
    if service.fetched.goals.borrow().iter().any(settling) || service.fetched.stopping.get() {
        return;
    }
    let whole = |goal: &Goal| {
        goal.stage == Stage::Fetching
            && goal.trouble.is_none()
            && goal.held != Some(How::Away)
            && goal.unrecorded_bytes == 0
            && goal.progress.is_some()
            && !service.swarm.borrow().fetcher.is_fetched(goal.torrent)
    };
    if !service.fetched.goals.borrow().iter().any(whole) {
        return;
    }
    let made = keeper.archive.ask(|state| state.new_folder()).await;
    let mut goals = service.fetched.goals.borrow_mut();
    let Some(goal) = goals.iter_mut().find(|goal| whole(goal)) else { return };
    let folder = match made {
        Ok(folder) => folder,
        Err(refusal) => {
            let error = io::Error::other(refusal.to_string());
            goal.rest(service, error.kind());
            return service.complain(std::format!("{}: cannot be settled yet", goal.name), &error);
        }
    };
    let have = goal.progress.as_ref().map(|progress| progress.verified.to_vec());
    let job = settle::Task {
        content: service.content(goal.torrent),
        info_hash: goal.info_hash,
        torrent: goal.folder.join(&goal.torrent_name),
        torrent_name: goal.torrent_name.clone(),
        private: goal.private,
        have: have.unwrap_or_default(),
        folder,
    };
    let job = Job::Settle { torrent: goal.torrent, task: Box::new(job) };
    match service.lanes.submit(job) {
        Ok(receipt) => {
            goal.stage = Stage::Settling;
            at_work.push(receipt);
        }
        // Its folder is empty; should it stay, the next start clears it away.
        Err(_) => goal.rest(service, io::ErrorKind::WouldBlock),
    }
}

impl Goal {
    /// Something went wrong: it is left alone for a while.
    fn rest(&mut self, service: &Service<'_>, kind: io::ErrorKind) {
        self.trouble = Some(Trouble { kind, again_at: service.clock.now().after(TROUBLE_MS) });
    }

    /// It is a share like any other from here on.
    fn settled(&mut self, service: &Service<'_>, content: super::Content) {
        self.stage = Stage::Settled;
        service.fetched.settled.ring();
        service.fetched.place_free.ring();
        service.disk.close_all(self.torrent);
        service.contents.borrow_mut()[self.torrent.index()] = Some(Arc::new(content));
    }
}

impl Service<'_> {
    /// Another torrent can be fetched.
    pub fn has_place_to_fetch(&self) -> bool {
        let open = self.fetched.goals.borrow().iter().filter(|goal| !goal.is_settled()).count();
        open + self.fetched.hunts.borrow().len() < self.fetching_max
    }
}

/// Verified pieces are recorded in batches of this many bytes,
const RECORD_BYTES: u64 = 64 << 20;

/// or after so long.
const RECORD_MS: u64 = 10_000;

/// After something could not be written, before it is tried again.
const TROUBLE_MS: u64 = 10_000;

/// Between two looks whether the last record is written.
const STOP_LOOK_MS: u64 = 20;

/// Records and settlings under way at a time, beside the pieces that lanes judge.
pub const JOBS_MAX: usize = 8;
