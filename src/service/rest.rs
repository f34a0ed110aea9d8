//! Torrents at rest: whoever asks for one wakes it, and those that nobody uses make room.
//!
//! A torrent that is known and not active is a record in the library and files in the state folder,
//! and costs no memory. When a peer asks for it the archive is asked, and it becomes active; it
//! stays so until its place is needed for another.
//!
//! ```text
//! pump: a peer asks for a name that is not active -> Rest -> archive: known? -> a place -> active
//!       <------------------------------------------------------------------- the pump is rung
//! ```
//!
//! # When full
//! Of the torrents that nobody is connected for and nothing is fetched of, the one whose turn it is
//! rests. When every place is in use the newcomer's torrent stays at rest, and the newcomer goes.

use super::clock::Bell;
use super::fetch::Keeper;
use super::known::Known;
use super::life::take_in::place;
use super::share::Share;
use super::state::State;
use super::walk::LeftOut;
use super::{Refusal, Service};
use crate::engine::swarm::fetch::Fetching as _;
use crate::engine::units::{InfoHash, PeerSlot, TorrentSlot};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::vec::Vec;

/// Who asks for what is at rest.
pub struct Rest {
    /// By pump.
    asking: RefCell<Vec<Option<Asking>>>,
    /// Rung when one more asks.
    bell: Bell,
    /// Which place is next to make room.
    hand: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Asking {
    /// The torrent, as it stands on the wire.
    name: [u8; 20],
    answered: bool,
}

impl Rest {
    /// Nobody asks for anything, at so many pumps.
    pub fn new(pumps: usize) -> Rest {
        let asking = RefCell::new(std::vec![None; pumps]);
        Rest { asking, bell: Bell::default(), hand: Cell::new(0) }
    }

    /// Whether it is known by now what becomes of a torrent that a peer asks for; the first time
    /// that is begun to be looked for.
    pub fn is_answered(&self, slot: PeerSlot, name: [u8; 20]) -> bool {
        let mut asking = self.asking.borrow_mut();
        let place = &mut asking[slot.index()];
        if place.is_none() {
            *place = Some(Asking { name, answered: false });
            self.bell.ring();
        }
        place.is_some_and(|asking| asking.answered)
    }

    /// The connection has what it asked for, or is over.
    pub fn forget(&self, slot: PeerSlot) {
        self.asking.borrow_mut()[slot.index()] = None;
    }

    fn next(&self) -> Option<(PeerSlot, [u8; 20])> {
        let asking = self.asking.borrow();
        let mut numbered = asking.iter().enumerate();
        numbered.find_map(|(index, asking)| {
            let asking = asking.as_ref().filter(|asking| !asking.answered)?;
            Some((PeerSlot(index as u16), asking.name))
        })
    }

    fn answer(&self, slot: PeerSlot, name: [u8; 20]) {
        let mut asking = self.asking.borrow_mut();
        // Another may have come in its place.
        if let Some(asking) = asking[slot.index()].as_mut().filter(|asking| asking.name == name) {
            asking.answered = true;
        }
    }
}

/// Wakes what is asked for, for ever.
pub async fn run(service: &Service<'_>, keeper: &Keeper<'_>) {
    loop {
        let Some((slot, name)) = service.rest.next() else {
            service.rest.bell.rung().await;
            continue;
        };
        if let Err(why) = wake(service, keeper, InfoHash::V1(name)).await {
            debug!("{why}");
        }
        service.rest.answer(slot, name);
        service.clock.ring(slot.index());
    }
}

/// Makes a torrent active that is known and at rest; its place, also when it was active already.
/// `None` when there is no such torrent, or it is not to be served now.
pub async fn wake(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    info_hash: InfoHash,
) -> Result<Option<TorrentSlot>, Refusal> {
    let find = move |state: &mut State<'_>| {
        let entry = state.get(&info_hash).filter(|entry| !entry.fetching && !entry.paused)?;
        if state.is_asleep(&entry) {
            debug!("{info_hash}: is on a disk that is away, and not offered");
            return None;
        }
        // Of what was placed before disks were known by name nothing else can be asked.
        let is_there = |known: &Known| entry.volume != 0 || known.content.root.exists();
        state.load(&entry).filter(is_there)
    };
    let look = move |state: &mut State<'_>| (find(state).is_some(), state.seeks_volumes());
    let (is_known, seeks_volumes) = keeper.archive.ask(look).await;
    if seeks_volumes {
        service.grounds.asked.ring();
    }
    if is_known {
        make_room(service, keeper).await;
    }
    // Looked up once more: from the answer on nobody can come between, who pauses it say.
    let known = keeper.archive.ask(find).await;
    let active = service.swarm.borrow().find(&info_hash.on_the_wire());
    let (Some(known), None) = (known, active) else { return Ok(active) };
    let share: Share = known.into_share(LeftOut::default(), 0);
    place(service, &share).map(|(slot, _)| Some(slot))
}

/// Whether a place is free that nobody has to leave.
pub fn has_room(service: &Service<'_>) -> bool {
    service.swarm.borrow().torrents().count() < service.contents.borrow().len()
}

/// Sees to it that a place is free, if one can be.
pub async fn make_room(service: &Service<'_>, keeper: &Keeper<'_>) {
    if has_room(service) {
        return;
    }
    let places = service.contents.borrow().len();
    for _ in 0..places {
        let at = service.rest.hand.get() % places;
        service.rest.hand.set(at + 1);
        if lay_down(service, keeper, TorrentSlot(at as u16)).await {
            return;
        }
    }
}

/// Lets a torrent rest; `false` while it is in use.
pub async fn lay_down(service: &Service<'_>, keeper: &Keeper<'_>, slot: TorrentSlot) -> bool {
    // A lane that works with its content holds it.
    let free =
        |content: &Option<Arc<_>>| content.as_ref().is_some_and(|c| Arc::strong_count(c) == 1);
    if !free(&service.contents.borrow()[slot.index()])
        || service.lobby.is_dialled(slot)
        || !service.fetched.is_settled(slot)
        || service.webseeds.is_visited(slot)
    {
        return false;
    }
    let (info_hash, sent_bytes) = {
        let mut swarm = service.swarm.borrow_mut();
        if !swarm.is_active(slot) {
            return false;
        }
        let torrent = swarm.torrent(slot);
        let counted = (torrent.info_hash, torrent.sent_bytes);
        if !swarm.rest(slot) {
            return false;
        }
        counted
    };
    service.disk.close_all(slot);
    service.contents.borrow_mut()[slot.index()] = None;
    // So that nothing of it keeps its disk from being unmounted.
    service.lanes.sweep();
    service.fetched.forget(slot);
    keeper.announcer.remove(slot);
    service.webseeds.forget(slot);
    if sent_bytes > 0 {
        let counted = keeper.archive.ask(move |state| state.count_sent(&[(info_hash, sent_bytes)]));
        // It rests all the same, and nobody is sent away for a number.
        counted.await.unwrap_or_else(|refusal| warn!("{refusal}"));
    }
    true
}

/// Ends all that is under way of a torrent: peers are let go, lanes give back what they have of it,
/// and what was verified is recorded. Then it rests.
pub async fn take_off_the_air(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    info_hash: InfoHash,
) -> Result<(), Refusal> {
    let Some(slot) = service.swarm.borrow().find(&info_hash.on_the_wire()) else { return Ok(()) };
    service.fetched.withdraw(slot);
    service.swarm.borrow_mut().withdraw(slot);
    service.ring_nudged();
    for _ in 0..WITHDRAWN_MS / LOOK_MS {
        service.clock.ring(service.duties.fetch);
        if is_over(service, slot) && lay_down(service, keeper, slot).await {
            return Ok(());
        }
        service.clock.sleep(LOOK_MS, "the end of a torrent").await;
    }
    service.swarm.borrow_mut().let_in(slot);
    let problem = "is still being written or read";
    Err(Refusal::new(info_hash, problem, "try again in a minute"))
}

/// Nothing of a torrent that was withdrawn is with a lane any more, and what was verified is
/// recorded.
pub fn is_over(service: &Service<'_>, slot: TorrentSlot) -> bool {
    !service.swarm.borrow().fetcher.is_fetched(slot) && service.fetched.drop_withdrawn(slot)
}

/// A disk that sleeps wakes within this.
const WITHDRAWN_MS: u64 = 30_000;

/// Between two looks whether it is over.
const LOOK_MS: u64 = 20;
