//! A node of the distributed hash table: peers are found, and ours are named, without any tracker.
//!
//! One [`Dht`] is one node of one family; a box with IPv4 and IPv6 has two (BEP 32), which know of
//! each other only that a question may ask for both families' nodes. Bytes of datagrams and `now`
//! go in, datagrams and found peers come out of [`poll_output`](Dht::poll_output); the tables are
//! lent at start and chance is one seed, so a run can be repeated.
//!
//! ```text
//!            handle_datagram                                   poll_output
//!  network ----> message ---- query ---> answer ---------------> Send
//!                   |                      | table, store, tokens
//!                   +------- answer --> in flight --> search --> Send, Peer, SearchEnded
//!                                          |          upkeep --> Send
//!                                          +--> table            Wait (why)
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | names, distances, names for addresses | [`id`] |
//! | nodes worth knowing, kept over restarts | [`table`], [`saved`] |
//! | our questions, who waits for the answers | `ask`, [`search`], [`inflight`], `listen` |
//! | peers others announced | [`store`] |
//! | when each of our torrents has its turn | [`round`] |
//! | what strangers ask, and what it may cost | `answer`, [`allowance`], [`chance`] |
//!
//! # What a stranger can make it do
//! Anybody can send a datagram, under any address. Whatever comes: an answer is at most
//! [`ANSWER_BYTES_MAX`] bytes long, and at most [`AMPLIFICATION`] times as long as the question
//! unless whoever asks has shown that it hears us at that address. All answers together stay under
//! [`ANSWER_BYTES_S`] a second, one crowd's under 4 datagrams a second. An address we are told is
//! asked once and, when nobody is there, not again for a while; eight such questions are under way
//! at a time, and all our questions together stay under [`QUERIES_S`] a second. Nobody sends us into a private network unless we were made for one.
//! Nothing grows: each table says what gives way in it.
//!
//! # When it wakes
//! An idle node wakes on whole minutes only, and only if a contact or a torrent is due: about two
//! questions a minute about the table, all sent at once.
//!
//! Journey 3: `service/dht` moves the datagrams; a peer that is found becomes a candidate of the
//! swarm.

pub mod allowance;
mod answer;
mod ask;
pub mod chance;
pub mod endpoint;
pub mod id;
pub mod inflight;
mod listen;
pub mod message;
pub mod round;
pub mod saved;
pub mod search;
pub mod store;
pub mod table;
#[cfg(test)]
mod tests;

pub use answer::{AMPLIFICATION, ANSWER_BYTES_MAX, ANSWER_BYTES_S};
pub use ask::QUERIES_S;
pub use search::SearchId;

use super::announce::Family;
use super::bencode::Full;
use super::units::{Deadline, Instant};
use allowance::{Allowance, Crowds};
use chance::Chance;
use core::net::{IpAddr, SocketAddr};
use endpoint::Endpoint;
use id::NodeId;
use inflight::InFlight;
use search::{Goal, Search};
use store::{Store, StoredPeer};
use table::{Contact, Table};

/// A node of one family.
pub struct Dht<'m> {
    settings: Settings,
    table: Table<'m>,
    store: Store<'m>,
    searches: &'m mut [Option<Search>],
    /// The search for our own neighbours has a place of its own: it makes all others short.
    joining: Option<Search>,
    /// When that is next due, and when again after that.
    join_at: Instant,
    join_pause_ms: u64,
    /// Since when there has been nobody to ask; who has, has joined.
    joined: bool,
    in_flight: InFlight,
    /// Addresses we were told, still to be asked; whether they may stay.
    introductions: heapless::Deque<(Endpoint, bool), INTRODUCTIONS_MAX>,
    chance: Chance,
    /// When the table is next looked after.
    upkeep_at: Instant,
    /// A contact whose second question is due at once, and who waits for its place.
    recheck: Option<(Endpoint, Option<(NodeId, Endpoint)>)>,
    /// Whom we were told of and did not find, with the moment: nobody sends us there again soon.
    absent: heapless::Deque<(Endpoint, Instant), ABSENT_MAX>,
    /// Where others say we are, and who said it last.
    voices: heapless::Deque<(u64, IpAddr), VOICES_MAX>,
    /// When anybody was last heard of: silence since then may be our own.
    heard_at: Instant,
    queries: Allowance,
    answers: Allowance,
    crowds: Crowds,
    /// The search whose turn is next.
    turn: usize,
    last_search: u32,
    /// What the last datagram brought, still to be handed out.
    found: heapless::Vec<Endpoint, FOUND_MAX>,
    found_for: NodeId,
    neighbours: heapless::Vec<Endpoint, { table::BUCKET_MAX }>,
    /// An answer lies in `datagram` for this address.
    answer_to: Option<Endpoint>,
    datagram: heapless::Vec<u8, ANSWER_BYTES_MAX>,
    counts: Counts,
}

/// What a node is made for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The family of its datagrams.
    pub family: Family,
    /// All its chance: nobody may be able to guess it.
    pub seed: [u8; 16],
    /// It asks and does not answer (BEP 43).
    pub read_only: bool,
    /// There is another node for the other family: nodes are asked for both at the start.
    pub has_twin: bool,
    /// Addresses in private networks are nodes and peers like others: for tests and for networks
    /// of their own.
    pub allow_private: bool,
}

/// What a node is lent.
pub struct DhtMemory<'m> {
    /// The routing table.
    pub nodes: &'m mut [Option<Contact>],
    /// Peers that others announced.
    pub peers: &'m mut [Option<StoredPeer>],
    /// Searches under way.
    pub searches: &'m mut [Option<Search>],
}

/// What a node wants done next: one thing at a time, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'o> {
    /// This datagram goes there.
    Send {
        /// Where to.
        to: SocketAddr,
        /// The datagram.
        bytes: &'o [u8],
    },
    /// Somebody is a peer of that torrent. The same one may come again.
    Peer {
        /// The torrent.
        info_hash: [u8; 20],
        /// The peer.
        address: SocketAddr,
    },
    /// Somebody is a node of the other family: for its [`Dht::add_entry`].
    OtherFamily(SocketAddr),
    /// A search is over.
    SearchEnded {
        /// Its number.
        search: SearchId,
        /// What was looked for.
        info_hash: [u8; 20],
        /// Peers that were named.
        found: u32,
        /// Nodes that took note of us.
        announced_to: u8,
    },
    /// Nothing until input or that moment.
    Wait(Deadline),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions to us.
    pub queries_in: u64,
    /// Answers and refusals of ours.
    pub answers_out: u64,
    /// Questions to us that were not answered: too many, or more than they may cost.
    pub unanswered: u64,
    /// Questions of ours.
    pub queries_out: u64,
    /// Answers to them.
    pub answers_in: u64,
    /// Questions of ours that nobody answered.
    pub silences: u64,
    /// Datagrams that were no message, or answered nothing we asked.
    pub dropped: u64,
    /// Searches that have ended.
    pub searches: u64,
    /// Peers handed out.
    pub peers: u64,
}

/// What to do next, before it is made an output.
enum Next {
    Send(Endpoint),
    Peer(Endpoint),
    OtherFamily(Endpoint),
    Ended(SearchId, NodeId, u32, u8),
    Wait(Deadline),
}

impl<'m> Dht<'m> {
    /// A node that knows nobody, in the memory lent to it.
    pub fn new(settings: Settings, memory: DhtMemory<'m>) -> Dht<'m> {
        let mut chance = Chance::new(settings.seed);
        let own = NodeId(chance.bytes());
        memory.searches.fill_with(|| None);
        Dht {
            settings,
            table: Table::new(memory.nodes, own),
            store: Store::new(memory.peers),
            searches: memory.searches,
            joining: None,
            join_at: Instant::NEVER,
            join_pause_ms: ask::JOIN_MS_MIN,
            joined: false,
            in_flight: InFlight::default(),
            introductions: heapless::Deque::new(),
            chance,
            upkeep_at: Instant::NEVER,
            recheck: None,
            absent: heapless::Deque::new(),
            voices: heapless::Deque::new(),
            heard_at: Instant::default(),
            queries: ask::allowance(),
            answers: answer::allowance(),
            crowds: Crowds::default(),
            turn: 0,
            last_search: 0,
            found: heapless::Vec::new(),
            found_for: own,
            neighbours: heapless::Vec::new(),
            answer_to: None,
            datagram: heapless::Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Looks for the peers of a torrent, and with a port tells the closest nodes that we are one.
    ///
    /// # When full
    /// As many searches are under way as there is memory for: try again when one has ended.
    pub fn search(
        &mut self,
        info_hash: [u8; 20],
        announce: Option<u16>,
        now: Instant,
    ) -> Result<SearchId, Full> {
        let place = self.searches.iter().position(Option::is_none).ok_or(Full)?;
        let search = self.begin(NodeId(info_hash), Goal::Peers { announce }, now);
        let id = search.id;
        self.searches[place] = Some(search);
        Ok(id)
    }

    /// Somebody may be a node there, as a peer says of itself (BEP 5, `port`): it is asked.
    ///
    /// # When full
    /// It is passed over: there are others.
    pub fn add_contact(&mut self, address: SocketAddr) {
        self.introduce(address, true);
    }

    /// There is an entry to the network there: it is asked for our neighbours, and is not kept.
    pub fn add_entry(&mut self, address: SocketAddr) {
        self.introduce(address, false);
    }

    /// Whether the neighbours have been found, so that searches find what there is.
    pub fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether so few nodes are known that entries to the network are to be asked again. In a
    /// network that small there is no harm in it.
    pub fn needs_entry(&self) -> bool {
        let is_asking = !self.introductions.is_empty() || self.in_flight.upkeep() > 0;
        self.table.contacts().count() < table::BUCKET_MAX && !is_asking
    }

    /// Contacts, and how many of them have answered whenever they were asked.
    pub fn contact_counts(&self) -> (usize, usize) {
        let reliable = self.table.contacts().filter(|contact| contact.is_reliable());
        (self.table.contacts().count(), reliable.count())
    }

    /// Peers that others announced to us and that are still told.
    pub fn stored_count(&self, now: Instant) -> usize {
        self.store.count(now)
    }

    /// Searches under way.
    pub fn search_count(&self) -> usize {
        self.searches.iter().flatten().count()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Our name.
    pub fn own_id(&self) -> [u8; 20] {
        self.table.own().0
    }

    /// What to do now; after each input this is called until it says [`Output::Wait`].
    ///
    /// # Work
    /// A few passes over the table and the candidates of one search.
    pub fn poll_output(&mut self, now: Instant) -> Output<'_> {
        match self.next(now) {
            Next::Send(to) => Output::Send { to: to.address(), bytes: &self.datagram },
            Next::Peer(peer) => {
                Output::Peer { info_hash: self.found_for.0, address: peer.address() }
            }
            Next::OtherFamily(node) => Output::OtherFamily(node.address()),
            Next::Ended(search, info_hash, found, announced_to) => {
                Output::SearchEnded { search, info_hash: info_hash.0, found, announced_to }
            }
            Next::Wait(deadline) => Output::Wait(deadline),
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        if let Some(to) = self.answer_to.take() {
            return Next::Send(to);
        }
        if let Some(peer) = self.found.pop() {
            self.counts.peers += 1;
            return Next::Peer(peer);
        }
        if let Some(node) = self.neighbours.pop() {
            return Next::OtherFamily(node);
        }
        while let Some(question) = self.in_flight.take_silent(now) {
            self.counts.silences += 1;
            self.handle_silence(question, now);
        }
        self.join(now);
        let mut wait = Deadline { at: self.join_at, why: "DHT: who is next to us" };
        match self.next_question(now) {
            Ok(next) => return next,
            Err(deadline) => wait = wait.or(deadline),
        }
        let silent = Deadline { at: self.in_flight.next_silent(), why: "DHT: a silent node" };
        Next::Wait(wait.or(silent))
    }

    fn introduce(&mut self, address: SocketAddr, keep: bool) {
        let endpoint = Endpoint::of(address);
        let known = self.introductions.iter().any(|(other, _)| *other == endpoint);
        if self.admits(endpoint) && !known && self.table.at(endpoint).is_none() {
            // Full: others have been named already.
            let _ = self.introductions.push_back((endpoint, keep));
        }
    }

    /// Whether somebody can be there whom we may speak to because a stranger says so.
    fn admits(&self, endpoint: Endpoint) -> bool {
        endpoint.family() == self.settings.family
            && endpoint.may_be_followed(self.settings.allow_private)
    }

    fn search_of(&mut self, id: SearchId) -> Option<&mut Search> {
        let all = self.searches.iter_mut().chain([&mut self.joining]).flatten();
        all.into_iter().find(|search| search.id == id)
    }
}

/// The end of the minute: what falls due in it is done at once, and both families' together.
fn whole_minute(at: Instant) -> Instant {
    let minutes = at.as_millis().div_ceil(MINUTE_MS);
    Instant::from_millis(minutes.saturating_mul(MINUTE_MS))
}

const MINUTE_MS: u64 = 60_000;

/// Addresses waiting to be asked.
const INTRODUCTIONS_MAX: usize = 16;

/// Peers taken from one datagram: more come with the next.
const FOUND_MAX: usize = 64;

/// Nodes remembered for not being there, and for how long.
const ABSENT_MAX: usize = 64;
const ABSENT_MS: u64 = 900_000;

/// Nodes that say where we are, and how many must agree before we believe it.
const VOICES_MAX: usize = 8;
const VOICES_AGREED: usize = 5;
