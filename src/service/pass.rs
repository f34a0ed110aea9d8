//! The rolling pass: torrents at rest are announced one after the other.
//!
//! A torrent that is fetched, or that the owner named on the command line, has a schedule of its own
//! ([`announcer`](super::announcer)). All others share this walk through the library: it keeps a
//! place and no timer for each, so a library of any size costs memory for one torrent, and trackers
//! and the DHT a bounded number of packets. With few torrents a pass takes half an hour; with many
//! as long as its budget asks, and `stats` says how long that was.
//!
//! ```text
//! every TICK_MS:  news, then the library from where the last tick ended
//!                   -> trackers of the torrent, ANNOUNCES_MAX a tick
//!                   -> the DHT's queue, as much as it takes
//! ```

use super::Service;
use super::announcer::{Resting, announce_once};
use super::dht::{Node, OnService};
use super::fetch::Keeper;
use super::state::State;
use crate::engine::library::Entry;
use crate::engine::units::{Deadline, InfoHash, Instant};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::string::String;
use std::vec::Vec;

/// How far the pass has come.
#[derive(Default)]
pub struct Pass {
    /// Torrents that were admitted since the last tick: their turn comes first.
    news: RefCell<VecDeque<InfoHash>>,
    trackers: Walk,
    dht: Walk,
}

/// A walk through the library.
#[derive(Default)]
struct Walk {
    /// The slot that was looked at last.
    after: Cell<Option<u32>>,
    begun: Cell<Instant>,
    took_ms: Cell<Option<u64>>,
    /// Torrents seen in this walk, and in the whole one before.
    seen: Cell<u32>,
    whole: Cell<u32>,
}

/// How a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When it was begun.
    pub begun: Instant,
    /// Torrents looked at since.
    pub seen: u32,
    /// How long the last whole one took.
    pub took_ms: Option<u64>,
}

impl Pass {
    /// A torrent is new.
    ///
    /// # When full
    /// The pass finds it in its turn.
    pub fn note_new(&self, info_hash: InfoHash) {
        let mut news = self.news.borrow_mut();
        if news.len() < NEWS_MAX {
            news.push_back(info_hash);
        }
    }

    /// How the walks stand that tell trackers and the DHT.
    pub fn standing(&self) -> [Standing; 2] {
        [&self.trackers, &self.dht].map(|walk| Standing {
            begun: walk.begun.get(),
            seen: walk.seen.get(),
            took_ms: walk.took_ms.get(),
        })
    }
}

impl Walk {
    /// How many torrents are due in a tick, so that a walk takes [`PASS_MS`] or longer.
    fn due(&self, most: u32) -> u32 {
        let ticks = (PASS_MS / TICK_MS) as u32;
        self.whole.get().div_ceil(ticks).clamp(1, most)
    }

    /// The next torrents; fewer at the end of the library, which is the end of a walk.
    async fn next(&self, service: &Service<'_>, keeper: &Keeper<'_>, most: u32) -> Vec<Entry> {
        let now = service.clock.now();
        if self.after.get().is_none() {
            // Between two walks there is a pause, so that a small library is not gone through at once.
            if self.took_ms.get().is_some() && now < self.begun.get().after(PASS_MS) {
                return Vec::new();
            }
            self.begun.set(now);
            self.seen.set(0);
        }
        let after = self.after.get();
        let page = keeper.archive.ask(move |state| page(state, after, most)).await;
        self.after.set(page.last().map(|(slot, _)| *slot));
        self.seen.set(self.seen.get() + page.len() as u32);
        if page.is_empty() {
            self.whole.set(self.seen.get());
            self.took_ms.set(Some(service.clock.now().since(self.begun.get())));
        }
        page.into_iter().map(|(_, entry)| entry).collect()
    }
}

fn page(state: &mut State<'_>, after: Option<u32>, most: u32) -> Vec<(u32, Entry)> {
    let (mut after, mut page) = (after, Vec::new());
    while page.len() < most as usize
        && let Some((slot, entry)) = state.next(after)
    {
        after = Some(slot);
        page.push((slot, entry));
    }
    page
}

/// Goes through the library, for ever.
pub async fn run(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    dht: Option<(&OnService<'_, '_>, &Node<'_>)>,
) {
    let slot = service.clock.slot(service.duties.pass);
    let mut buffer = std::vec![0; BUFFER_BYTES];
    loop {
        let at = service.clock.now().after(TICK_MS);
        while service.clock.now() < at && service.pass.news.borrow().is_empty() {
            service.clock.wait(slot, Deadline { at, why: "announces of torrents at rest" }).await;
        }
        let news: Vec<_> = service.pass.news.borrow_mut().drain(..).collect();
        for info_hash in news {
            let find = move |state: &mut State<'_>| state.get(&info_hash);
            if let Some(entry) = keeper.archive.ask(find).await {
                tell_trackers(service, keeper, entry, &mut buffer).await;
                if let Some((world, node)) = dht {
                    tell_dht(service, keeper, entry, world, node).await;
                }
            }
        }
        let due = service.pass.trackers.due(ANNOUNCES_MAX);
        for entry in service.pass.trackers.next(service, keeper, due).await {
            tell_trackers(service, keeper, entry, &mut buffer).await;
        }
        if let Some((world, node)) = dht {
            let due = service.pass.dht.due(node.room_for_news() as u32);
            if node.room_for_news() > 0 {
                for entry in service.pass.dht.next(service, keeper, due).await {
                    tell_dht(service, keeper, entry, world, node).await;
                }
            }
        }
    }
}

/// Whether a torrent's turn comes in the pass: not if it is paused, being fetched, or announced on
/// a schedule of its own.
fn is_ours(service: &Service<'_>, keeper: &Keeper<'_>, entry: &Entry) -> bool {
    let active = service.swarm.borrow().find(&entry.info_hash.on_the_wire());
    let scheduled = active.is_some_and(|slot| keeper.announcer.tells_of(slot));
    !entry.fetching && !entry.paused && !scheduled
}

/// Tells the trackers of a torrent that we are here.
async fn tell_trackers(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    entry: Entry,
    buffer: &mut [u8],
) {
    let options = keeper.options;
    if options.lan || !is_ours(service, keeper, &entry) {
        return;
    }
    let read = move |state: &mut State<'_>| state.trackers(&entry);
    let mut named: Vec<(u8, String)> = keeper.archive.ask(read).await;
    named.retain(|(_, address)| !options.trackers.contains(address));
    let resting = Resting { info_hash: entry.info_hash, sent_bytes: entry.sent_bytes };
    let mut told_tier = None;
    for (tier, address) in named {
        // One of a tier is enough, and of several tiers the first that answers (BEP 12).
        if told_tier.is_none() && announce_once(service, &resting, &address, false, buffer).await {
            told_tier = Some(tier);
        }
    }
    // Each tracker the owner names is told.
    for address in &options.trackers {
        announce_once(service, &resting, address, true, buffer).await;
    }
}

/// Has the DHT told of a torrent, if it may be spoken of (BEP 27).
async fn tell_dht(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    entry: Entry,
    world: &OnService<'_, '_>,
    node: &Node<'_>,
) {
    // Active ones have their turn in the node's own round.
    if entry.fetching
        || entry.paused
        || service.swarm.borrow().find(&entry.info_hash.on_the_wire()).is_some()
    {
        return;
    }
    if !keeper.archive.ask(move |state| state.is_private(&entry)).await {
        node.announce_soon(world, entry.info_hash.on_the_wire());
    }
}

/// Between two looks for what is to be announced.
const TICK_MS: u64 = 30_000;

/// A pass takes no less.
const PASS_MS: u64 = 1_800_000;

/// Torrents told to trackers in a tick: ten a second.
const ANNOUNCES_MAX: u32 = 300;

/// New torrents that wait for their turn.
const NEWS_MAX: usize = 64;

/// What one answer may hold: we ask for no peers.
const BUFFER_BYTES: usize = 8 * 1024;
