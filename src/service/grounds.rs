//! The disks that content is on, while the box runs: they come, go, fill up and fail.
//!
//! The archive keeps the table of [`volume`](super::volume)s and decides how each stands. Here is
//! the one task that asks it: whenever something was mounted, somebody has met with an error, or a
//! look is due. What has changed is said once, and heeded:
//!
//! ```text
//! Watch: something was mounted ─┐
//! a deadline ───────────────────┴> looks on lanes of their own ─┐
//! lanes that read, write, record ──> Grounds::note_error ───────┴> archive: State::survey ─> heed
//!
//! away: its shares rest, its fetches pause    full, read-only, failing: fetches onto it pause
//! back: fetches go on, shares wake when they are asked for, folders are looked at again
//! ```
//!
//! Looks at what other machines answer for have a thread of their own beside that for all else: a
//! server that is gone may keep whoever asks waiting for ever, and holds up nobody.
//!
//! # When full
//! An error for which there is no place is met with again, or was not worth a word.

use super::archive::Archive;
use super::board::Board;
use super::clock::Bell;
use super::content::Content;
use super::lanes::{Done, Job, LaneSizes, Lanes, Receipt};
use super::life::make::no_threads;
use super::rest;
use super::state::State;
use super::steward::Steward;
use super::volume::health::Trouble;
use super::volume::kept::{Standing, Survey, Word};
use super::volume::{Deed, Found, Sight, State as How, Watch, What, Whose};
use super::{Refusal, Service};
use crate::engine::units::{Deadline, InfoHash, Instant, TorrentSlot};
use smol::future;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::string::ToString;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::vec::Vec;

/// What is known of disks where decisions are made, and what the archive is still to be told.
pub struct Grounds {
    looks: Lanes,
    words: RefCell<heapless::Vec<(u64, Word), WORDS_MAX>>,
    standings: RefCell<Vec<Standing>>,
    /// A disk may have less room by now than is kept free.
    low: Cell<bool>,
    /// Rung when the archive is to be asked.
    pub asked: Bell,
    /// Rung when a disk has come or gone: folders are to be looked at.
    pub moved: Bell,
}

impl Grounds {
    /// Threads that look.
    pub fn start(board: &Board) -> Result<Grounds, Refusal> {
        let sizes = LaneSizes {
            lanes: LOOKS,
            stack_bytes: board.disk.lane_stack_kib as usize * 1024,
            scratch_bytes: 0,
            buffers: 0,
            buffer_bytes: 0,
            jobs_max: LOOKS,
        };
        let (words, standings) = (RefCell::default(), RefCell::default());
        let looks = Lanes::start(sizes).map_err(no_threads)?;
        let (asked, moved) = (Bell::default(), Bell::default());
        Ok(Grounds { looks, words, standings, low: Cell::new(false), asked, moved })
    }

    /// The first look, before anything is taken up. A disk that does not answer by then is away
    /// until it does.
    pub async fn look_first(&self, archive: &Archive) {
        let query = archive.ask(|state| state.query()).await;
        let look = self.looks.run(Job::Look { query, whose: Whose::Ours });
        let late = async {
            async_io::Timer::after(Duration::from_millis(FIRST_LOOK_MS)).await;
            None
        };
        if let Some(Done::Looked(looked)) = future::or(look, late).await
            && let Ok(sight) = *looked
        {
            let survey = move |state: &mut State<'_>| {
                state.survey(&[sight], &[], (false, true), Instant::default())
            };
            let Survey { changes, standings, .. } = archive.ask(survey).await;
            // That a disk is there is what everybody expects at the start.
            let is_news = |what: &What| !matches!(what, What::Back(_));
            changes.iter().filter(|change| is_news(&change.what)).for_each(|c| warn!("{}", c.text));
            self.standings.replace(standings);
        }
    }

    /// Takes an error that may be one of the volume; whether it is, so that it is said for that.
    pub fn note_error(&self, content: &Content, deed: Deed, error: &io::Error) -> bool {
        let is_known = content.volume() != 0;
        if !is_known || Trouble::of(error).is_none() {
            return false;
        }
        let copy =
            error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        self.tell(content.volume(), Word::Error(deed, copy));
        if deed == Deed::Write {
            // A look comes first, so that the first word on it is the right one.
            self.low.set(true);
            let mut standings = self.standings.borrow_mut();
            let of = |standing: &&mut Standing| standing.volume == content.volume();
            standings.iter_mut().find(of).into_iter().for_each(|standing| standing.waits = true);
        }
        true
    }

    /// Something has been written to it and synced.
    pub fn note_written(&self, content: &Content) {
        let standings = self.standings.borrow();
        let of = |standing: &&Standing| standing.volume == content.volume();
        if standings.iter().find(of).is_some_and(|standing| standing.state != How::Well) {
            self.tell(content.volume(), Word::Written);
        }
    }

    /// So many bytes have been written to a volume. Before what is kept free may be used a look is
    /// due; `true` when nothing more is to be written before it.
    pub fn note_stored(&self, content: &Content, bytes: u64) -> bool {
        let mut standings = self.standings.borrow_mut();
        let of = |standing: &&mut Standing| standing.volume == content.volume();
        let Some(standing) = standings.iter_mut().find(of) else { return false };
        standing.stored_bytes += bytes;
        let is_close = standing.room_bytes < 2 * LOOK_BYTES_MIN;
        if standing.stored_bytes < LOOK_BYTES_MIN.max(standing.room_bytes / 2) {
            return false;
        }
        standing.stored_bytes = 0;
        standing.room_bytes /= 2;
        standing.waits |= is_close;
        self.low.set(true);
        self.asked.ring();
        is_close
    }

    /// Nobody has looked since: what has been written counts on.
    fn count_on(&self, standings: &mut [Standing]) {
        let before = self.standings.borrow();
        for standing in standings {
            let was = before.iter().find(|before| before.volume == standing.volume);
            if let Some(&Standing { room_bytes, stored_bytes, waits, .. }) = was {
                *standing = Standing { room_bytes, stored_bytes, waits, ..*standing };
            }
        }
    }

    /// How a volume stands on which nothing is to be written now.
    pub fn held(&self, volume: u64) -> Option<How> {
        let standings = self.standings.borrow();
        let is_held = |standing: &Standing| !standing.may_fetch || standing.waits;
        let of = |standing: &&Standing| standing.volume == volume && is_held(standing);
        standings.iter().find(of).map(|standing| standing.state)
    }

    fn is_away(&self, volume: u64) -> bool {
        let standings = self.standings.borrow();
        standings.iter().any(|standing| standing.volume == volume && !standing.is_there)
    }

    fn tell(&self, volume: u64, word: Word) {
        let same = |other: &(u64, Word)| match (&other.1, &word) {
            (Word::Error(deed, error), Word::Error(other_deed, other_error)) => {
                deed == other_deed && error.kind() == other_error.kind() && other.0 == volume
            }
            (Word::Written, Word::Written) => other.0 == volume,
            _ => false,
        };
        let mut words = self.words.borrow_mut();
        if !words.iter().any(same) {
            // See the module.
            let _ = words.push((volume, word));
        }
        self.asked.ring();
    }
}

/// Finds the volume of something that is to be placed, and gives it a file of ours if it has none.
/// Refused where the volume that belongs there is away.
pub async fn take_up(archive: &Archive, lanes: &Lanes, path: &Path) -> Result<Found, Refusal> {
    let (query, path) = (archive.ask(|state| state.query()).await, path.to_path_buf());
    let name = path.display().to_string();
    match lanes.run(Job::TakeUp { query, path }).await {
        Some(Done::TakenUp(found)) => *found,
        _ => Err(Refusal::new(name, "every lane is taken", "try again")),
    }
}

/// Whether the volume is there that a torrent is on: only then is what cannot be found gone.
pub async fn is_there(lanes: &Lanes, content: &Content) -> bool {
    let Some(anchor) = content.anchor.clone() else { return true };
    let job = Job::IsThere { anchor, path: content.root.clone() };
    matches!(lanes.run(job).await, Some(Done::IsThere(true)))
}

/// What the task keeps in mind.
#[derive(Default)]
struct Duty {
    /// Looks that are under way: at what is ours, and at the rest.
    looking: [Option<Receipt>; LOOKS],
    sights: Vec<Sight>,
    /// When the one at what is ours was begun.
    begun: Instant,
    /// When to look, because something was mounted.
    look_at: Instant,
    /// To look once more when what is under way is over: it may have begun before that.
    again: bool,
    /// Torrents that are laid down, because their disk went.
    leaving: Vec<(TorrentSlot, InfoHash)>,
}

/// Watches over disks, for ever.
pub async fn run(steward: &Steward<'_, '_>) {
    let service = steward.service;
    let slot = service.clock.slot(service.duties.grounds);
    let watch = Watch::new().inspect_err(|error| {
        warn!("what is mounted: {error}; disks are looked at now and then");
    });
    let (watch, mut duty) = (watch.ok(), Duty::default());
    loop {
        let now = service.clock.now();
        if duty.looking[0].is_none()
            && (service.grounds.low.take() | std::mem::take(&mut duty.again))
        {
            duty.begin_looks(steward).await;
        }
        let due = survey(steward, &mut duty, watch.is_some()).await;
        let leaves = lay_down(steward, &mut duty).await;
        // While a look is under way its answer is what is waited for.
        let mut due = due.filter(|_| duty.looking[0].is_none());
        if !service.grounds.words.borrow().is_empty() && duty.looking[0].is_some() {
            due = Some(Deadline { at: duty.begun.after(PATIENCE_MS), why: "a disk's error" });
        }
        let is_low = duty.looking[0].is_none() && service.grounds.low.get();
        if is_low {
            continue;
        }
        if due.is_some_and(|due| due.at <= now) || duty.look_at <= now {
            duty.begin_looks(steward).await;
            continue;
        }
        let mounted = Deadline { at: duty.look_at, why: "something that was mounted" };
        let mut deadline = due.unwrap_or(Deadline::NONE).or(mounted);
        if leaves {
            deadline = deadline.or(Deadline { at: now.after(LEAVE_MS), why: "a disk that went" });
        }
        service.clock.ring_at(slot, deadline);
        let is_mounted = duty.wait(service, watch.as_ref()).await;
        if is_mounted && duty.look_at == Instant::NEVER {
            // Others may be mounted with it.
            duty.look_at = service.clock.now().after(STORM_MS);
        }
    }
}

impl Duty {
    /// Waits until there is something to do; whether something was mounted.
    async fn wait(&mut self, service: &Service<'_>, watch: Option<&Watch>) -> bool {
        let slot = service.clock.slot(service.duties.grounds);
        let mounted = async {
            match watch {
                Some(watch) if watch.changed().await.is_ok() => true,
                _ => pending().await,
            }
        };
        let others = poll_fn(|cx| {
            let mut is_due = service.clock.bell(slot).poll(cx).is_ready();
            is_due |= service.grounds.asked.poll(cx).is_ready();
            for place in &mut self.looking {
                let Some(receipt) = place else { continue };
                let Poll::Ready(done) = Pin::new(receipt).poll(cx) else { continue };
                (*place, is_due) = (None, true);
                if let Done::Looked(looked) = done {
                    self.sights.extend(*looked);
                }
            }
            if is_due { Poll::Ready(false) } else { Poll::Pending }
        });
        future::or(others, mounted).await
    }

    async fn begin_looks(&mut self, steward: &Steward<'_, '_>) {
        if std::mem::replace(&mut self.look_at, Instant::NEVER) < Instant::NEVER {
            // Over a folder that is looked after, it may be, and never seen before.
            steward.service.grounds.moved.ring();
            self.again |= self.looking[0].is_some();
        }
        if self.looking[0].is_none() {
            self.begun = steward.service.clock.now();
        }
        for (at, whose) in [Whose::Ours, Whose::Others].into_iter().enumerate() {
            if self.looking[at].is_none() {
                let query = steward.keeper.archive.ask(|state| state.query()).await;
                let look = Job::Look { query, whose };
                self.looking[at] = steward.service.grounds.looks.submit(look).ok();
            }
        }
    }
}

/// Tells the archive all there is to tell, and heeds what it says; when to look again.
async fn survey(steward: &Steward<'_, '_>, duty: &mut Duty, watched: bool) -> Option<Deadline> {
    let (service, grounds) = (steward.service, &steward.service.grounds);
    let is_fresh = duty.looking[0].is_none() && !duty.sights.is_empty();
    let (writing, now) = (service.fetched.is_fetching(), service.clock.now());
    // A look says more than an error, if it does not take long.
    let is_looked_at = grounds.low.get() || duty.looking[0].is_some();
    let words = match is_looked_at && now < duty.begun.after(PATIENCE_MS) {
        true => heapless::Vec::new(),
        false => grounds.words.take(),
    };
    let sights = std::mem::take(&mut duty.sights);
    let ask = move |state: &mut State<'_>| state.survey(&sights, &words, (writing, watched), now);
    let Survey { changes, mut standings, due } = steward.keeper.archive.ask(ask).await;
    if !is_fresh || grounds.low.get() {
        grounds.count_on(&mut standings);
    }
    grounds.standings.replace(standings);
    let mut moved = false;
    for change in &changes {
        match &change.what {
            What::Back(_) | What::Is(How::Well) => info!("{}", change.text),
            What::Is(_) => warn!("{}", change.text),
        }
        match &change.what {
            What::Back(_) => put_back(steward, change.volume).await,
            What::Is(_) if grounds.is_away(change.volume) => {
                close_files(service, change.volume);
                duty.note_leaving(steward, change.volume);
            }
            What::Is(_) => {}
        }
        moved = true;
    }
    service.fetched.hold(service);
    if moved {
        grounds.moved.ring();
        service.fetched.place_free.ring();
    }
    Some(due).filter(|due| due.at < Instant::NEVER)
}

/// Torrents that are active on a volume.
fn active_on(service: &Service<'_>, volume: u64) -> Vec<TorrentSlot> {
    let contents = service.contents.borrow();
    let numbered = contents.iter().enumerate();
    let on_it = numbered.filter(|(_, content)| {
        content.as_ref().is_some_and(|content| volume != 0 && content.volume() == volume)
    });
    on_it.map(|(index, _)| TorrentSlot(index as u16)).collect()
}

fn close_files(service: &Service<'_>, volume: u64) {
    active_on(service, volume).into_iter().for_each(|slot| service.disk.close_all(slot));
}

/// Content that is active is where its volume is now.
async fn put_back(steward: &Steward<'_, '_>, volume: u64) {
    let service = steward.service;
    for slot in active_on(service, volume) {
        let info_hash = service.swarm.borrow().torrent(slot).info_hash;
        let load = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash)?;
            state.load(&entry).filter(|known| !known.asleep)
        };
        let Some(known) = steward.keeper.archive.ask(load).await else { continue };
        // It may have gone to rest meanwhile.
        if service.swarm.borrow().find(&info_hash.on_the_wire()) != Some(slot) {
            continue;
        }
        let growing = service.content(slot).growing;
        service.disk.close_all(slot);
        let content = Arc::new(Content { growing, ..known.content });
        service.contents.borrow_mut()[slot.index()] = Some(content);
    }
}

impl Duty {
    /// On a box that wakes torrents when they are asked for, those of a disk that is away rest:
    /// others may need their places.
    fn note_leaving(&mut self, steward: &Steward<'_, '_>, volume: u64) {
        if !steward.keeper.options.all_that_is_known {
            return;
        }
        let swarm = steward.service.swarm.borrow();
        for slot in active_on(steward.service, volume) {
            let leaving = (slot, swarm.torrent(slot).info_hash);
            if !self.leaving.contains(&leaving) {
                self.leaving.push(leaving);
            }
        }
    }
}

/// Lays torrents down whose disk went; whether some are still in use.
async fn lay_down(steward: &Steward<'_, '_>, duty: &mut Duty) -> bool {
    let service = steward.service;
    let before = duty.leaving.len();
    for (slot, info_hash) in std::mem::take(&mut duty.leaving) {
        if service.swarm.borrow().find(&info_hash.on_the_wire()) != Some(slot) {
            continue;
        }
        service.fetched.withdraw(slot);
        service.swarm.borrow_mut().withdraw(slot);
        service.ring_nudged();
        service.clock.ring(service.duties.fetch);
        let is_over = rest::is_over(service, slot);
        if !is_over || !rest::lay_down(service, steward.keeper, slot).await {
            duty.leaving.push((slot, info_hash));
        }
    }
    if duty.leaving.len() < before {
        // Another may have the place; and should the disk be back, so may they.
        service.fetched.place_free.ring();
    }
    !duty.leaving.is_empty()
}

/// One thread for what is ours, one for the rest.
pub const LOOKS: usize = 2;

/// Errors that wait to be told.
const WORDS_MAX: usize = 16;

/// A disk is looked at when half of its room to spare has been filled, or so many bytes.
const LOOK_BYTES_MIN: u64 = 256 << 10;

/// The first look is waited for so long.
const FIRST_LOOK_MS: u64 = 500;

/// Between what was mounted and the look at it.
const STORM_MS: u64 = 500;

/// An error waits for a look so long.
const PATIENCE_MS: u64 = 1_000;

/// Between two looks whether a torrent is out of use.
const LEAVE_MS: u64 = 100;
