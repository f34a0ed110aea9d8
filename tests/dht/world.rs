//! A network of nodes on one thread and a virtual clock.
//!
//! Every datagram takes its time and may be lost; both follow from the seed. A node is one of ours
//! or anything else that makes datagrams out of datagrams. What each node sends and receives is
//! counted, and the moments it wakes at by itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use perennial::engine::announce::Family;
use perennial::engine::dht::round::Round;
use perennial::engine::dht::{Dht, DhtMemory, Output, SearchId, Settings};
use perennial::engine::units::{Deadline, Instant};

use crate::prng::Prng;

/// Somebody on the network who is none of ours.
pub type Stranger = Box<dyn FnMut(SocketAddr, &[u8], &mut Prng) -> Vec<(SocketAddr, Vec<u8>)>>;

/// What one of our nodes found with a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub peers: Vec<SocketAddr>,
    pub announced_to: u8,
    pub took_ms: u64,
}

/// One of ours.
pub struct Node {
    pub address: SocketAddr,
    pub dht: Dht<'static>,
    /// Torrents it announces in turn, by name.
    pub torrents: Vec<[u8; 20]>,
    round: Round,
    wake_at: Instant,
    why: &'static str,
    /// What it woke for by itself.
    pub woken: BTreeMap<&'static str, u32>,
    /// When, in milliseconds.
    pub woken_at: Vec<u64>,
    /// Bytes sent, and datagrams.
    pub sent: (u64, u64),
    begun: HashMap<u32, Instant>,
    found: HashMap<[u8; 20], Found>,
    ended: HashMap<[u8; 20], Found>,
    /// Nodes of the other family it was told of.
    pub told_of: Vec<SocketAddr>,
    /// It is off the network.
    pub is_off: bool,
}

/// Sizes of the tables of a node.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub nodes: usize,
    pub peers: usize,
    pub searches: usize,
}

pub const USUAL: Sizes = Sizes { nodes: 208, peers: 200, searches: 3 };

pub struct World {
    pub now: Instant,
    pub prng: Prng,
    pub nodes: Vec<Node>,
    pub strangers: HashMap<SocketAddr, Stranger>,
    places: HashMap<SocketAddr, usize>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    datagrams: Vec<Option<Datagram>>,
    free: Vec<usize>,
    sequence: u64,
    /// One in so many datagrams is lost.
    pub loss_one_in: u32,
    /// Between the fastest and the slowest datagram.
    pub latency_ms: (u32, u32),
    /// Datagrams to addresses where nobody is, by address.
    pub astray: BTreeMap<SocketAddr, u64>,
}

enum Datagram {
    On { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Wake(usize),
}

impl Node {
    /// Begins to announce the next torrent and says nothing, or says when there is one to begin: as
    /// the service does it.
    fn next_of_round(&mut self, now: Instant) -> Option<Deadline> {
        if !self.dht.has_joined() {
            return Some(Deadline::NONE);
        }
        let after = |last: Option<[u8; 20]>| {
            let later = self.torrents.iter().filter(|name| last.is_none_or(|last| **name > last));
            later.min().copied()
        };
        match self.round.next(now, after) {
            Ok(next) if self.dht.search(next, Some(6881), now).is_ok() => {
                self.round.handle_begun(next, self.torrents.len() as u32, now);
                None
            }
            Ok(_) => Some(Deadline::NONE),
            Err(deadline) => Some(deadline),
        }
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: Instant::from_millis(1_000),
            prng: Prng::new(seed),
            nodes: Vec::new(),
            strangers: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
            datagrams: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            loss_one_in: u32::MAX,
            latency_ms: (10, 200),
            astray: BTreeMap::new(),
        }
    }

    /// An address of its own that anybody may be sent to.
    pub fn new_address(&mut self, family: Family) -> SocketAddr {
        loop {
            let number = self.prng.next_u64();
            let ip: IpAddr = match family {
                Family::V4 => Ipv4Addr::from_bits(number as u32).into(),
                Family::V6 => {
                    let high = 0x2001_0db8u128 << 96 | u128::from(number) << 40;
                    Ipv6Addr::from_bits(high | 1).into()
                }
            };
            let address = SocketAddr::new(ip, 1_024 + self.prng.below(60_000) as u16);
            let is_public = match ip {
                IpAddr::V4(ip) => matches!(ip.octets()[0], 11..=99 | 128..=168 | 173..=191),
                IpAddr::V6(_) => true,
            };
            if is_public && !self.places.contains_key(&address) {
                return address;
            }
        }
    }

    /// A node of ours; it knows nobody.
    pub fn add(&mut self, family: Family, sizes: Sizes) -> usize {
        let address = self.new_address(family);
        self.add_at(address, sizes, |settings| settings)
    }

    /// A node of ours at an address, with settings of its own.
    pub fn add_at(
        &mut self,
        address: SocketAddr,
        sizes: Sizes,
        change: impl FnOnce(Settings) -> Settings,
    ) -> usize {
        let mut seed = [0; 16];
        self.prng.fill(&mut seed);
        let settings = Settings {
            family: Family::of(&address),
            seed,
            read_only: false,
            has_twin: false,
            allow_private: false,
        };
        let memory = DhtMemory {
            nodes: vec![None; sizes.nodes].leak(),
            peers: vec![None; sizes.peers].leak(),
            searches: (0..sizes.searches).map(|_| None).collect::<Vec<_>>().leak(),
        };
        let place = self.nodes.len();
        self.places.insert(address, place);
        self.nodes.push(Node {
            address,
            dht: Dht::new(change(settings), memory),
            torrents: Vec::new(),
            round: Round::default(),
            wake_at: Instant::NEVER,
            why: "nothing",
            woken: BTreeMap::new(),
            woken_at: Vec::new(),
            sent: (0, 0),
            begun: HashMap::new(),
            found: HashMap::new(),
            ended: HashMap::new(),
            told_of: Vec::new(),
            is_off: false,
        });
        place
    }

    /// Somebody who is none of ours.
    pub fn add_stranger(&mut self, family: Family, stranger: Stranger) -> SocketAddr {
        let address = self.new_address(family);
        self.strangers.insert(address, stranger);
        address
    }

    /// So many nodes of ours, each introduced to one of the first three, again when it knows too few.
    pub fn grow(&mut self, family: Family, count: usize) {
        let (first, loss_one_in) = (self.nodes.len(), self.loss_one_in);
        for _ in 0..count {
            let place = self.add(family, USUAL);
            // Entries that did not know each other would be entries to several networks.
            self.loss_one_in = if place < first + 8 { u32::MAX } else { loss_one_in };
            self.introduce(place);
            self.run_for(if place < first + 8 { 1_000 } else { 200 });
        }
        for _ in 0..5 {
            self.run_for(5_000);
            for place in first..self.nodes.len() {
                if self.nodes[place].dht.needs_entry() {
                    self.introduce(place);
                }
            }
        }
    }

    /// Tells a node of one of the first three of its family.
    pub fn introduce(&mut self, place: usize) {
        let family = Family::of(&self.nodes[place].address);
        let before = self.nodes[..place].iter().map(|node| node.address);
        let first: Vec<SocketAddr> =
            before.filter(|address| Family::of(address) == family).take(3).collect();
        if !first.is_empty() {
            let entry = first[self.prng.below(first.len() as u32) as usize];
            self.nodes[place].dht.add_contact(entry);
            self.drain(place);
        }
    }

    /// Starts a search.
    pub fn search(&mut self, place: usize, info_hash: [u8; 20], port: Option<u16>) -> bool {
        let node = &mut self.nodes[place];
        let Ok(SearchId(id)) = node.dht.search(info_hash, port, self.now) else { return false };
        node.begun.insert(id, self.now);
        node.ended.remove(&info_hash);
        node.found.insert(info_hash, Found::default());
        self.drain(place);
        true
    }

    /// Has a torrent announced before those that have their turn.
    pub fn announce_soon(&mut self, place: usize, info_hash: [u8; 20]) {
        self.nodes[place].round.announce_soon(info_hash).expect("there is room for news");
        self.drain(place);
    }

    /// Searches until that has ended.
    pub fn search_to_end(&mut self, place: usize, info_hash: [u8; 20], port: Option<u16>) -> Found {
        assert!(self.search(place, info_hash, port), "there is room for a search");
        let end = self.now.after(61_000);
        while self.now < end {
            if let Some(found) = self.nodes[place].ended.remove(&info_hash) {
                return found;
            }
            self.step(end);
        }
        panic!("a search has no end");
    }

    /// What a search has found, if it has ended.
    pub fn take_found(&mut self, place: usize, info_hash: &[u8; 20]) -> Option<Found> {
        self.nodes[place].ended.remove(info_hash)
    }

    /// A datagram on its way, whoever it says it is from.
    pub fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.loss_one_in < u32::MAX && self.prng.one_in(self.loss_one_in) {
            return;
        }
        let (least, most) = self.latency_ms;
        let at = self.now.after(u64::from(least + self.prng.below(most - least + 1)));
        self.queue_at(at, Datagram::On { from, to, bytes });
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.step(end) {}
        self.now = end;
    }

    /// Polls a node until it waits.
    pub fn drain(&mut self, place: usize) {
        loop {
            let node = &mut self.nodes[place];
            match node.dht.poll_output(self.now) {
                Output::Send { to, bytes } => {
                    assert!(bytes.len() <= 1_200, "{} bytes", bytes.len());
                    node.sent.0 += bytes.len() as u64;
                    node.sent.1 += 1;
                    let (from, bytes) = (node.address, bytes.to_vec());
                    if !node.is_off {
                        self.post(from, to, bytes);
                    }
                }
                Output::Peer { info_hash, address } => {
                    let found = node.found.entry(info_hash).or_default();
                    if !found.peers.contains(&address) {
                        found.peers.push(address);
                    }
                }
                Output::OtherFamily(address) => node.told_of.push(address),
                Output::SearchEnded { search, info_hash, announced_to, .. } => {
                    let mut found = node.found.remove(&info_hash).unwrap_or_default();
                    // What is announced in turn nobody waits for.
                    let Some(begun) = node.begun.remove(&search.0) else { continue };
                    found.announced_to = announced_to;
                    found.took_ms = self.now.since(begun);
                    node.ended.insert(info_hash, found);
                }
                Output::Wait(deadline) => {
                    let Some(round) = node.next_of_round(self.now) else { continue };
                    let deadline = deadline.or(round);
                    assert!(deadline.at > self.now, "{} is due again and again", deadline.why);
                    // As the service's clock does it: a deadline that moves later is rung early.
                    if deadline.at < node.wake_at {
                        (node.wake_at, node.why) = (deadline.at, deadline.why);
                        self.queue_at(deadline.at, Datagram::Wake(place));
                    }
                    return;
                }
            }
        }
    }

    /// The next thing that happens until `end`; whether there was one.
    fn step(&mut self, end: Instant) -> bool {
        let Some(Reverse((at, _, slot))) =
            self.queue.peek().copied().filter(|next| next.0.0 <= end)
        else {
            self.now = end;
            return false;
        };
        self.queue.pop();
        self.now = self.now.max(at);
        self.free.push(slot);
        match self.datagrams[slot].take().expect("it is in the queue once") {
            Datagram::On { from, to, bytes } => self.deliver(from, to, &bytes),
            Datagram::Wake(place) => self.wake(place, at),
        }
        true
    }

    fn wake(&mut self, place: usize, at: Instant) {
        let node = &mut self.nodes[place];
        if node.wake_at == at {
            node.wake_at = Instant::NEVER;
            *node.woken.entry(node.why).or_default() += 1;
            node.woken_at.push(at.as_millis());
            self.drain(place);
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(place) = self.places.get(&to).copied() {
            if !self.nodes[place].is_off {
                self.nodes[place].dht.handle_datagram(from, bytes, self.now, None);
                self.drain(place);
            }
        } else if let Some(mut stranger) = self.strangers.remove(&to) {
            let answers = stranger(from, bytes, &mut self.prng);
            self.strangers.insert(to, stranger);
            answers.into_iter().for_each(|(whither, bytes)| self.post(to, whither, bytes));
        } else {
            *self.astray.entry(to).or_default() += 1;
        }
    }

    fn queue_at(&mut self, at: Instant, datagram: Datagram) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.datagrams.push(None);
            self.datagrams.len() - 1
        });
        self.datagrams[slot] = Some(datagram);
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, slot)));
    }
}

/// Twenty bytes that follow from a number.
pub fn hash(number: u64) -> [u8; 20] {
    let mut hash = [0; 20];
    Prng::new(number.wrapping_mul(0x5851_f42d_4c95_7f2d)).fill(&mut hash);
    hash
}
