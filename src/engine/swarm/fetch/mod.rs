//! What is being fetched, from whom, and what is asked for next.
//!
//! A torrent that lacks something has an entry here beside its entry in the swarm; a connection
//! that may give us something has a [`Link`] beside its entry in the roster. Everything
//! that costs memory for each piece or for each peer comes from one pool and one table of pieces
//! under way, so that fetching costs what the board's profile says and no more.
//!
//! ```text
//!  lacking  1 1 0 1 1 1   wanted and not verified: what makes a peer interesting
//!  open     1 0 0 1 0 1   lacking and not under way: what can be begun
//!               |     |
//!           partials: pieces under way, with their blocks
//! ```
//!
//! - [`link`]: what a peer has and what it was asked for
//! - [`metadata`]: what a torrent is, when only its name is known
//! - [`partial`]: a piece under way
//! - [`picker`]: what a peer is asked for next
//! - [`run`]: the same for a web seed, which brings pieces in a row
//! - [`store`]: payload on its way to a lane, and what comes back
//! - [`talk`]: what a connection tells the fetcher, and asks of it
//! - [`unveil`]: a share of ours that nobody else has, given out piece by piece
//!
//! # When full
//!
//! | what | answer |
//! | --- | --- |
//! | torrents being fetched | [`begin`](Fetcher::begin) says so |
//! | the pool, by what peers have, but for two pieces | of a peer only what it tells later is known |
//! | the pool or the table, by pieces under way | no further piece is begun; peers help with those there are |
//!
//! Journey 3: a message from [`peer`](crate::engine::peer) -> [`picker`] -> a request; a block ->
//! [`store`] -> a lane of the service -> verified, and told to the others.

pub mod link;
pub mod metadata;
pub mod partial;
pub mod picker;
pub mod run;
pub mod store;
pub mod talk;
pub mod unveil;

pub use talk::{Fetching, Say, SeedOnly};

use super::super::limits::{BLOCK_BYTES, VERIFIED_TOLD_MAX};
use super::super::metainfo::Layout;
use super::super::units::{Instant, PeerSlot, TorrentSlot};
use crate::engine::swarm::pool::{Pool, Span};
use link::{Ask, AskState, Asks, Has, Link};
use metadata::Sought;
use partial::Partial;
use store::Stores;
use unveil::{Unveilings, Veil};

/// In which order pieces are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The rarest first, the first few at random.
    Rarest,
    /// From front to back.
    Sequential,
}

/// A torrent that lacks something.
pub struct Fetch {
    /// Its place in the swarm.
    torrent: TorrentSlot,
    layout: Layout,
    lacking: Span,
    lacking_count: u32,
    open: Span,
    open_count: u32,
    /// Peers that have each piece, but for those that have all: a counter each.
    availability: Span,
    order: Order,
    /// Somebody waits for this piece, and then for those behind it.
    awaited: Option<u32>,
    /// State of its own dice.
    chance: u32,
    /// Nothing is asked for: there is no room to store it.
    paused: bool,
    /// The last pieces that were verified, for those who are still to be told.
    verified: [u32; VERIFIED_TOLD_MAX],
    verified_count: u32,
    /// Pieces that did not match their hash.
    failed_count: u32,
    received_bytes: u64,
    wasted_bytes: u64,
    /// Its metadata, while that is not known.
    sought: Option<Sought>,
}

impl Fetch {
    /// Nothing is lacking yet.
    fn new(torrent: TorrentSlot, layout: Layout, order: Order, chance: u32) -> Fetch {
        Fetch {
            torrent,
            layout,
            lacking: Span::EMPTY,
            lacking_count: 0,
            open: Span::EMPTY,
            open_count: 0,
            availability: Span::EMPTY,
            order,
            awaited: None,
            chance: chance | 1,
            paused: false,
            verified: [0; VERIFIED_TOLD_MAX],
            verified_count: 0,
            failed_count: 0,
            received_bytes: 0,
            wasted_bytes: 0,
            sought: None,
        }
    }

    /// Bytes of the pool that what peers have must leave free: for the blocks of two pieces.
    fn kept_bytes(&self) -> usize {
        Pool::bytes_of(self.layout.piece_bytes.div_ceil(BLOCK_BYTES), 2 * 2)
    }

    /// The piece that is to come first, when they come in order.
    fn front(&self) -> Option<u32> {
        self.awaited.or((self.order == Order::Sequential).then_some(0))
    }

    /// What the pool would have to have.
    fn too_large(&self, pool: &Pool<'_>) -> FetchFull {
        let count = self.layout.piece_count();
        let bitmaps = Pool::bytes_of(count, 2) + Pool::bytes_of(count.saturating_mul(16), 1);
        FetchFull::Pool {
            needed_bytes: (bitmaps + self.kept_bytes()) as u64,
            free_bytes: pool.free_bytes() as u64,
        }
    }
}

/// How a fetch stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Pieces wanted and not verified.
    pub lacking: u32,
    /// Bytes of blocks that have come.
    pub received_bytes: u64,
    /// Of these, bytes that were of no use: they came twice, or did not match.
    pub wasted_bytes: u64,
    /// Pieces that did not match their hash.
    pub failed: u32,
    /// Peers that have something we lack.
    pub useful_peers: u32,
}

/// There is no room for another fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFull {
    /// Every place of `fetching_max` is taken.
    Places,
    /// The pool has too few bytes left: so many are needed, so many are free.
    Pool {
        /// For the pieces of this torrent.
        needed_bytes: u64,
        /// In all, perhaps not in one run.
        free_bytes: u64,
    },
}

/// What the service lends a fetcher. Each length is a number of the board's profile.
pub struct FetchMemory<'m> {
    /// Torrents being fetched: `fetching_max`.
    pub fetches: &'m mut [Option<Fetch>],
    /// Pieces under way: `partials_max`.
    pub partials: &'m mut [Option<Partial>],
    /// One for each connection: as long as the roster, and `web_seeds_max` behind them.
    pub links: &'m mut [Option<Link>],
    /// Requests of ours: `asks_per_peer` for each link.
    pub asks: &'m mut [Ask],
    /// What each connection is told of shares that nobody else has: as long as the roster.
    pub veils: &'m mut [Veil],
    /// Bitmaps: `fetch_bits_kib`.
    pub pool: &'m mut [u8],
}

/// See the module.
pub struct Fetcher<'m> {
    fetches: &'m mut [Option<Fetch>],
    partials: &'m mut [Option<Partial>],
    links: &'m mut [Option<Link>],
    asks: &'m mut [Ask],
    asks_each: usize,
    pool: Pool<'m>,
    unveilings: Unveilings<'m>,
    /// Payload of the last read, on its way to a lane.
    stores: Stores,
    /// Some link has something to look at.
    nudged: bool,
    /// DHT nodes that peers have told of, for the service to hand on.
    pub dht_nodes: heapless::Deque<core::net::SocketAddr, DHT_NODES_MAX>,
    /// Crowds that have sent bad data.
    banned: heapless::Deque<core::net::IpAddr, BANNED_MAX>,
}

impl<'m> Fetcher<'m> {
    /// A fetcher with nothing to fetch, in the memory lent to it.
    pub fn new(memory: FetchMemory<'m>) -> Fetcher<'m> {
        let asks_each = memory.asks.len() / memory.links.len().max(1);
        Fetcher {
            fetches: memory.fetches,
            partials: memory.partials,
            links: memory.links,
            asks: memory.asks,
            asks_each,
            pool: Pool::new(memory.pool),
            unveilings: Unveilings::new(memory.veils),
            stores: Stores::default(),
            nudged: false,
            dht_nodes: heapless::Deque::new(),
            banned: heapless::Deque::new(),
        }
    }

    /// Begins to fetch the pieces that are `lacking`. `chance` seeds its dice. Says how many are;
    /// when none is, nothing has begun.
    pub fn begin(
        &mut self,
        torrent: TorrentSlot,
        layout: Layout,
        lacking: impl Fn(u32) -> bool,
        order: Order,
        chance: u32,
    ) -> Result<u32, FetchFull> {
        if !(0..layout.piece_count()).any(&lacking) {
            return Ok(0);
        }
        let place = self.fetches.iter().position(Option::is_none).ok_or(FetchFull::Places)?;
        let mut fetch = Fetch::new(torrent, layout, order, chance);
        let count = self.take_spans(&mut fetch, &lacking)?;
        self.fetches[place] = Some(fetch);
        Ok(count)
    }

    /// The metadata of a torrent has been found: fetches the pieces that are `lacking`. As
    /// [`Fetcher::begin`]; should there be too little room, the metadata is still sought.
    pub fn reveal(
        &mut self,
        torrent: TorrentSlot,
        layout: Layout,
        lacking: impl Fn(u32) -> bool,
    ) -> Result<u32, FetchFull> {
        let of = |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(|f| f.torrent == torrent);
        let Some(place) = self.fetches.iter().position(of) else { return Ok(0) };
        let Some(mut fetch) = self.fetches[place].take() else { return Ok(0) };
        let sought = fetch.sought.take();
        (fetch.layout, fetch.lacking_count) = (layout, 0);
        let count = match self.take_spans(&mut fetch, &lacking) {
            Ok(count) => count,
            Err(full) => {
                (fetch.sought, fetch.lacking_count) = (sought, 1);
                self.fetches[place] = Some(fetch);
                return Err(full);
            }
        };
        for link in self.links.iter_mut().flatten().filter(|link| link.fetch == place as u16) {
            weigh(link, &fetch, &mut self.pool);
        }
        self.nudged = true;
        self.fetches[place] = Some(fetch);
        if count == 0 {
            self.finish(place as u16);
        }
        Ok(count)
    }

    /// Takes the bitmaps of a fetch; how many pieces are lacking.
    fn take_spans(
        &mut self,
        fetch: &mut Fetch,
        lacking: &impl Fn(u32) -> bool,
    ) -> Result<u32, FetchFull> {
        let count = fetch.layout.piece_count();
        let (pool, kept_bytes) = (&mut self.pool, fetch.kept_bytes());
        let spans = [pool.take(count), pool.take(count), pool.take_counters(count)];
        let [Some(lacking_span), Some(open), Some(availability)] = spans else {
            spans.into_iter().flatten().for_each(|span| pool.give_back(span));
            return Err(fetch.too_large(pool));
        };
        if pool.free_bytes() < kept_bytes {
            [lacking_span, open, availability].into_iter().for_each(|span| pool.give_back(span));
            return Err(fetch.too_large(pool));
        }
        for piece in (0..count).filter(|piece| lacking(*piece)) {
            self.pool.set(lacking_span, piece);
            self.pool.set(open, piece);
            fetch.lacking_count += 1;
        }
        fetch.open_count = fetch.lacking_count;
        (fetch.lacking, fetch.open, fetch.availability) = (lacking_span, open, availability);
        Ok(fetch.lacking_count)
    }

    /// Pauses a fetch, or goes on with it: nothing is asked for meanwhile.
    pub fn pause(&mut self, torrent: TorrentSlot, paused: bool) {
        for place in 0..self.fetches.len() {
            let fetch = self.fetches[place].as_mut().filter(|fetch| fetch.torrent == torrent);
            if let Some(fetch) = fetch {
                fetch.paused = paused;
                // Nothing else would tell them.
                self.wake(place as u16);
            }
        }
    }

    /// Somebody waits for a piece, and then for those behind it; or nobody does any more.
    pub fn await_piece(&mut self, torrent: TorrentSlot, piece: Option<u32>) {
        let is_its = |fetch: &&mut Fetch| fetch.torrent == torrent;
        if let Some(fetch) = self.fetches.iter_mut().flatten().find(is_its) {
            fetch.awaited = piece;
        }
    }

    /// How a torrent's fetch stands; `None` when nothing is lacking.
    pub fn standing(&self, torrent: TorrentSlot) -> Option<Standing> {
        let lacking = |fetch: &&Fetch| fetch.torrent == torrent && fetch.lacking_count > 0;
        let fetch = self.fetches.iter().flatten().find(lacking)?;
        let useful = |link: &&Link| link.torrent == torrent && link.useful > 0;
        Some(Standing {
            lacking: fetch.lacking_count,
            received_bytes: fetch.received_bytes,
            wasted_bytes: fetch.wasted_bytes,
            failed: fetch.failed_count,
            useful_peers: self.links.iter().flatten().filter(useful).count() as u32,
        })
    }

    /// Lets nobody of that crowd in any more.
    ///
    /// # When full
    /// The one that was banned first is forgotten.
    pub fn ban(&mut self, crowd: core::net::IpAddr) {
        if self.banned.is_full() {
            self.banned.pop_front();
        }
        // There is room now.
        let _ = self.banned.push_back(crowd);
    }

    /// Whether what goes to a connection is scarce.
    pub fn set_scarce(&mut self, slot: PeerSlot, scarce: bool) {
        self.unveilings.set_scarce(slot.index(), scarce);
    }

    /// Nothing more is lacking: what it held is given back, but for its place, which stays until
    /// everybody has been told of the last pieces.
    fn finish(&mut self, place: u16) {
        for index in 0..self.links.len() {
            let slot = PeerSlot(index as u16);
            let Some(link) = self.links[index].as_mut().filter(|link| link.fetch == place) else {
                continue;
            };
            let complete = link.has == Has::All;
            self.forget_pieces(slot);
            if let Some(link) = &mut self.links[index] {
                link.has = if complete { Has::All } else { Has::Nothing };
            }
            if let Some(mut asks) = self.asks(slot) {
                asks.call_off_all();
            }
        }
        let Fetcher { partials, fetches, pool, .. } = self;
        for entry in
            partials.iter_mut().filter(|entry| entry.as_ref().is_some_and(|p| p.fetch == place))
        {
            if let Some(partial) = entry.take() {
                partial.end(pool);
            }
        }
        if let Some(fetch) = &mut fetches[usize::from(place)] {
            for span in [&mut fetch.lacking, &mut fetch.open, &mut fetch.availability] {
                pool.give_back(core::mem::take(span));
            }
        }
        self.free_place(place);
    }

    /// A peer of a fetch that is over has been told everything.
    fn retire(&mut self, slot: PeerSlot) {
        let Some(link) = self.links[slot.index()].as_mut() else { return };
        let place = core::mem::replace(&mut link.fetch, OVER);
        // What it may still be sending belongs to nothing.
        (link.have_after, link.receiving) = (Instant::NEVER, None);
        self.free_place(place);
    }

    /// Gives back the place of a fetch that is over, once nobody has to be told anything.
    fn free_place(&mut self, place: u16) {
        let Some(entry) = self.fetches.get_mut(usize::from(place)) else { return };
        let over = entry.as_ref().is_some_and(|fetch| fetch.lacking_count == 0);
        if over && !self.links.iter().flatten().any(|link| link.fetch == place) {
            *entry = None;
        }
    }

    /// The link of a connection with its requests.
    fn asks(&mut self, slot: PeerSlot) -> Option<Asks<'_>> {
        let link = self.links.get_mut(slot.index())?.as_mut()?;
        let first = slot.index() * self.asks_each;
        Some(Asks::new(link, &mut self.asks[first..first + self.asks_each]))
    }

    fn link(&mut self, slot: PeerSlot) -> Option<(&mut Link, &mut Fetch, &mut Pool<'m>)> {
        let link = self.links.get_mut(slot.index())?.as_mut()?;
        let fetch = self.fetches.get_mut(usize::from(link.fetch))?.as_mut()?;
        Some((link, fetch, &mut self.pool))
    }

    /// Lets others have what a peer was asked for.
    fn give_up_asks(&mut self, slot: PeerSlot) {
        let Some(place) = self.links[slot.index()].as_ref().map(|link| link.fetch) else { return };
        while let Some(ask) = self.asks(slot).and_then(|mut asks| asks.give_up_last()) {
            self.unask(slot, ask);
        }
        self.wake(place);
    }

    /// Nobody is asked for that block by this link any more.
    fn unask(&mut self, slot: PeerSlot, ask: Ask) {
        // Another has been asked for what is to be taken back.
        if ask.state == AskState::Over {
            return;
        }
        let Some(fetch) = self.links[slot.index()].as_ref().map(|link| link.fetch) else { return };
        let Fetcher { partials, pool, .. } = self;
        let of = |p: &&mut Partial| p.fetch == fetch && p.piece == ask.piece;
        if let Some(partial) = partials.iter_mut().flatten().find(of) {
            partial.unask(pool, ask.block);
        }
    }

    /// Gives back what is kept of a peer's pieces.
    fn forget_pieces(&mut self, slot: PeerSlot) {
        let Some((link, fetch, pool)) = self.link(slot) else { return };
        if let Has::Some(span) = link.has {
            for piece in 0..fetch.layout.piece_count() {
                if pool.get(span, piece) {
                    pool.count(fetch.availability, piece, false);
                }
            }
            pool.give_back(span);
        }
        (link.has, link.useful) = (Has::Nothing, 0);
    }
}

/// What a peer has said before the metadata was known is held against it.
fn weigh(link: &mut Link, fetch: &Fetch, pool: &mut Pool<'_>) {
    let count = fetch.layout.piece_count();
    (link.dry, link.nudge) = (false, true);
    match link.has {
        Has::Some(span) if pool.bytes(span).len() as u32 == fetch.layout.bitfield_bytes() => {
            for piece in 0..count {
                if pool.get(span, piece) {
                    pool.count(fetch.availability, piece, true);
                    link.useful += u32::from(pool.get(fetch.lacking, piece));
                }
            }
        }
        Has::Some(span) => {
            // It is of another torrent, or none at all: nothing it says counts.
            pool.give_back(span);
            link.has = Has::Untold;
        }
        Has::All => link.useful = fetch.lacking_count,
        Has::Nothing | Has::Untold => {}
    }
}

/// The place of a link whose fetch is over.
const OVER: u16 = u16::MAX;

/// DHT nodes that wait to be handed on.
const DHT_NODES_MAX: usize = 8;

/// Crowds that have sent bad data and are remembered; the one that did so first is forgotten.
const BANNED_MAX: usize = 32;
