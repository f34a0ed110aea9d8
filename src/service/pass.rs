//! The rolling pass: torrents at rest are announced one after the other.
//!
//! A torrent that is fetched, or that the owner named on the command line, has a schedule of its own
//! ([`announcer`](super::announcer)). All others share this walk through the library: it keeps a
//! place and no timer for each, so a library of any size costs memory for one torrent, and trackers
//! and the DHT a bounded number of packets. With few torrents a pass takes half an hour; with many
//! as long as its budget asks, and `stats` says how long that was.
//!
//! ```text
//! every turn:  news, then the library from where the last turn ended
//!                -> trackers of the torrent, ANNOUNCES_MAX a turn
//!                -> the DHT's queue, as much as it takes
//! ```
//!
//! Turns come as often as the library asks for, TICK_MS apart or more, and tell of several torrents
//! at a time, so that a box with few of them sleeps in between. What names no tracker, and may not be
//! told to the DHT, is passed over without one: a box with nothing to announce wakes for that once
//! in a pass.

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
    /// Torrents that were admitted since the last turn: they come first.
    news: RefCell<VecDeque<InfoHash>>,
    trackers: Walk,
    dht: Walk,
}

/// A walk through the library.
#[derive(Default)]
struct Walk {
    /// The slot that was looked at last; nothing between two walks.
    after: Cell<Option<u32>>,
    begun: Cell<Instant>,
    took_ms: Cell<Option<u64>>,
    /// Torrents looked at in this walk.
    seen: Cell<u32>,
    /// Torrents told of in this walk.
    told: Cell<u32>,
    /// How many it will probably be: as in the last walk, at first all there are.
    expected: Cell<u32>,
    /// When it goes on.
    due: Cell<Instant>,
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

/// What a look into the library has found.
pub struct Page<T> {
    /// Torrents to be told of, with what is needed for that.
    pub found: Vec<(Entry, T)>,
    /// The slot it ended at; nothing at the end of the library.
    pub after: Option<u32>,
    /// Torrents looked at.
    pub looked_at: u32,
}

impl Pass {
    /// How the walks stand that tell trackers and the DHT.
    pub fn standing(&self) -> [Standing; 2] {
        [&self.trackers, &self.dht].map(|walk| Standing {
            begun: walk.begun.get(),
            seen: walk.seen.get(),
            took_ms: walk.took_ms.get(),
        })
    }
}

impl Service<'_> {
    /// A torrent is new on the air, or wanted from now on: its turn to be announced comes first.
    ///
    /// # When full
    /// It is found in its turn: by the pass, or by the DHT's round through those that are active.
    pub fn announce_next(&self, info_hash: InfoHash) {
        let mut news = self.pass.news.borrow_mut();
        if news.len() < NEWS_MAX {
            news.push_back(info_hash);
        }
        self.clock.ring(self.duties.pass);
    }
}

impl Walk {
    /// Goes on from where the last turn ended, as far as this one goes. `wanted`, on the archive's
    /// thread, says whether a torrent is to be told of; `tell`, whether that was done.
    async fn turn<T: Send + 'static>(
        &self,
        service: &Service<'_>,
        keeper: &Keeper<'_>,
        most: u32,
        wanted: impl Fn(&State<'_>, &Entry) -> Option<T> + Clone + Send + 'static,
        mut tell: impl AsyncFnMut(Entry, T) -> bool,
    ) {
        let now = service.clock.now();
        if now < self.due.get() {
            return;
        }
        if self.after.get().is_none() {
            self.begin(now, keeper.archive.ask(|state| state.count()).await);
        }
        let (at_once, pause_ms) = pace(self.expected.get());
        let (at_once, mut told, mut looked_at) = (at_once.min(most), 0, 0);
        while told < at_once && looked_at < LOOKED_AT_MAX {
            let (after, wanted, many) = (self.after.get(), wanted.clone(), at_once - told);
            let page = keeper.archive.ask(move |state| page(state, after, many, wanted)).await;
            for (entry, what) in page.found {
                told += u32::from(tell(entry, what).await);
            }
            looked_at += page.looked_at;
            self.seen.set(self.seen.get() + page.looked_at);
            self.after.set(page.after);
            if page.after.is_none() {
                self.told.set(self.told.get() + told);
                return self.end(service.clock.now());
            }
        }
        self.told.set(self.told.get() + told);
        self.due.set(now.after(if most < at_once { TICK_MS } else { pause_ms }));
    }

    fn begin(&self, now: Instant, count: u32) {
        self.begun.set(now);
        let last = self.took_ms.get().map(|_| self.told.get());
        self.expected.set(last.unwrap_or(count));
        self.seen.set(0);
        self.told.set(0);
    }

    fn end(&self, now: Instant) {
        self.took_ms.set(Some(now.since(self.begun.get())));
        self.due.set(self.begun.get().after(PASS_MS).max(now.after(TICK_MS)));
    }
}

/// How many of so many torrents are told of at a time, and how long a walk then rests, so that it
/// takes [`PASS_MS`] or longer.
fn pace(expected: u32) -> (u32, u64) {
    let turns_max = (PASS_MS / TICK_MS) as u32;
    let at_once = expected.div_ceil(turns_max).clamp(AT_ONCE_MIN, ANNOUNCES_MAX);
    let turns = u64::from(expected.div_ceil(at_once).max(1));
    (at_once, (PASS_MS / turns).max(TICK_MS))
}

/// Goes on behind a slot, for `PAGE_MAX` torrents or until `most` have been found that are whole, on
/// the air and `wanted`.
pub fn page<T>(
    state: &mut State<'_>,
    mut after: Option<u32>,
    most: u32,
    wanted: impl Fn(&State<'_>, &Entry) -> Option<T>,
) -> Page<T> {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    while looked_at < PAGE_MAX && found.len() < most as usize {
        let next = state.next(after);
        after = next.map(|(slot, _)| slot);
        let Some((_, entry)) = next else { break };
        looked_at += 1;
        if !entry.fetching
            && !entry.paused
            && let Some(what) = wanted(state, &entry)
        {
            found.push((entry, what));
        }
    }
    Page { found, after, looked_at }
}

/// Goes through the library, for ever.
pub async fn run(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    dht: Option<(&OnService<'_, '_>, &Node<'_>)>,
) {
    let (slot, pass) = (service.clock.slot(service.duties.pass), &service.pass);
    let mut buffer = std::vec![0; BUFFER_BYTES];
    // Nobody waits for announces as a start does for those who ask.
    let first = service.clock.now().after(TICK_MS);
    let tells_trackers = !keeper.options.lan;
    pass.trackers.due.set(if tells_trackers { first } else { Instant::NEVER });
    pass.dht.due.set(if dht.is_some() { first } else { Instant::NEVER });
    loop {
        let at = pass.trackers.due.get().min(pass.dht.due.get());
        while service.clock.now() < at && pass.news.borrow().is_empty() {
            service.clock.wait(slot, Deadline { at, why: "announces of torrents at rest" }).await;
        }
        let news: Vec<_> = pass.news.borrow_mut().drain(..).collect();
        for info_hash in news {
            tell_news(service, keeper, info_hash, dht, &mut buffer).await;
        }
        let are_all_told = !keeper.options.trackers.is_empty();
        let named = move |state: &State<'_>, entry: &Entry| {
            Some(state.trackers(entry)).filter(|named| are_all_told || !named.is_empty())
        };
        let tell = async |entry: Entry, named: Vec<_>| {
            tell_trackers(service, keeper, entry, named, &mut buffer).await
        };
        pass.trackers.turn(service, keeper, ANNOUNCES_MAX, named, tell).await;
        if let Some((world, node)) = dht {
            let room = node.room_for_news() as u32;
            if room == 0 || node.contact_count(service.clock.now()) == 0 {
                // Who knows nobody will hardly know somebody in a moment.
                let pause_ms = if room == 0 { TICK_MS } else { AWAY_MS };
                pass.dht.due.set(pass.dht.due.get().max(service.clock.now().after(pause_ms)));
                continue;
            }
            let public =
                |state: &State<'_>, entry: &Entry| (!state.is_private(entry)).then_some(());
            let tell = async |entry: Entry, ()| tell_dht(service, &entry, world, node);
            pass.dht.turn(service, keeper, room, public, tell).await;
        }
    }
}

/// Tells everybody of a torrent that is new. One that is fetched has its trackers told already.
async fn tell_news(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    info_hash: InfoHash,
    dht: Option<(&OnService<'_, '_>, &Node<'_>)>,
    buffer: &mut [u8],
) {
    let name = info_hash.on_the_wire();
    let find = move |state: &mut State<'_>| {
        let entry = state.get(&info_hash).filter(|entry| !entry.fetching && !entry.paused)?;
        Some((entry, state.trackers(&entry), state.is_private(&entry)))
    };
    let resting = keeper.archive.ask(find).await;
    let may_be_spoken_of = match &resting {
        Some((.., is_private)) => !is_private,
        None => service.public(&name).is_some(),
    };
    if let Some((world, node)) = dht.filter(|_| may_be_spoken_of) {
        node.announce_soon(world, name);
    }
    if let Some((entry, named, _)) = resting.filter(|_| !keeper.options.lan) {
        tell_trackers(service, keeper, entry, named, buffer).await;
    }
}

/// Tells the trackers of a torrent that we are here, unless it is announced on a schedule of its
/// own.
async fn tell_trackers(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    entry: Entry,
    mut named: Vec<(u8, String)>,
    buffer: &mut [u8],
) -> bool {
    let active = service.swarm.borrow().find(&entry.info_hash.on_the_wire());
    if active.is_some_and(|slot| keeper.announcer.tells_of(slot)) {
        return false;
    }
    let options = keeper.options;
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
    true
}

/// Has the DHT told of a torrent that may be spoken of (BEP 27).
fn tell_dht(
    service: &Service<'_>,
    entry: &Entry,
    world: &OnService<'_, '_>,
    node: &Node<'_>,
) -> bool {
    let name = entry.info_hash.on_the_wire();
    // Active ones have their turn in the node's own round.
    let is_resting = service.swarm.borrow().find(&name).is_none();
    if is_resting {
        node.announce_soon(world, name);
    }
    is_resting
}

/// Between two turns at least.
const TICK_MS: u64 = 30_000;

/// A pass takes no less.
const PASS_MS: u64 = 1_800_000;

/// While no node of the DHT answers.
const AWAY_MS: u64 = 300_000;

/// Torrents told of in a turn: at least so many, when there are, and at most ten a second.
const AT_ONCE_MIN: u32 = 5;
const ANNOUNCES_MAX: u32 = 300;

/// Torrents looked at in a turn at most.
const LOOKED_AT_MAX: u32 = 1_000;

/// Torrents looked at between two questions of others: each costs up to three reads of a card.
const PAGE_MAX: u32 = 16;

/// New torrents that wait for their turn.
const NEWS_MAX: usize = 64;

/// What one answer may hold: we ask for no peers.
const BUFFER_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_half_an_hour_or_as_long_as_its_budget_asks() {
        for expected in [0, 1, 9, 10, 11, 100, 599, 600, 601, 5_000, 18_000] {
            let (at_once, pause_ms) = pace(expected);
            let turns = u64::from(expected.div_ceil(at_once));
            let took_ms = turns.saturating_sub(1) * pause_ms;
            assert!(took_ms <= PASS_MS && pause_ms >= TICK_MS, "{expected}");
            assert!(expected < 5 || turns * pause_ms >= PASS_MS - turns, "{expected}");
        }
        // A hundred wake the box for twenty turns, and 100,000 for ten announces a second.
        assert_eq!(pace(100), (5, 90_000));
        assert_eq!(pace(100_000), (300, TICK_MS));
    }
}
