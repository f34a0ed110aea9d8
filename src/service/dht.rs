//! The node of the distributed hash table: its sockets, its clock, its rounds through our torrents.
//!
//! One UDP socket for each family that the box listens on, on the port where peers are heard too,
//! and behind it one node of the engine ([`engine::dht`](crate::engine::dht)). What a node wants
//! sent is tried once and never awaited: a datagram that the kernel does not take now is lost like
//! any other. Each node goes round the torrents that may be spoken of
//! ([`engine::dht::round`](crate::engine::dht::round)): every one is looked for and announced, as
//! many at a time as there is memory for.
//!
//! ```text
//! socket -> handle_datagram --+-> poll_output -> socket, World::meet
//!           World::rung ------+        |  Wait: begin the next torrent's search, else World::ring_at
//! ```
//!
//! Entries to the network are asked for by name only while hardly anybody is known: the nodes
//! outlast a restart, in the file `dht` of the state folder, which is written when the box stops
//! and every six hours if it has changed. A damaged one is passed over.
//!
//! Journey 3: who is found becomes a candidate of the swarm.

use super::Service;
use super::lanes::{Done, Job};
use crate::engine::announce::Family;
use crate::engine::bencode::Sink;
use crate::engine::dht::round::Round;
use crate::engine::dht::saved::saved_bytes;
use crate::engine::dht::search::Search;
use crate::engine::dht::store::StoredPeer;
use crate::engine::dht::table::Contact;
use crate::engine::dht::{Counts, Dht, DhtMemory, Output, Settings};
use crate::engine::units::{Deadline, Instant};
use async_io::Async;
use smol::future;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::vec::Vec;

/// What a node needs of the box it runs on.
#[expect(async_fn_in_trait, reason = "one thread runs the protocol: nobody asks for `Send`")]
pub trait World {
    /// Whether the box is for the house only: then its nodes do nothing.
    fn lan_only(&self) -> bool;

    /// The one clock.
    fn now(&self) -> Instant;

    /// Rings no later than that.
    fn ring_at(&self, deadline: Deadline);

    /// Waits until it rings.
    async fn rung(&self);

    /// Returns after so many milliseconds. There are [`SLEEPERS`] of these at a time at most.
    async fn sleep(&self, ms: u64, why: &'static str);

    /// The addresses of `host`, looked up on a lane.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// The torrent that may be spoken of (BEP 27) whose info-hash comes next.
    fn next_torrent(&self, after: Option<[u8; 20]>) -> Option<[u8; 20]>;

    /// How many of these there are.
    fn torrent_count(&self) -> u32;

    /// Somebody is a peer of a torrent.
    fn meet(&self, info_hash: &[u8; 20], peer: SocketAddr);

    /// Puts `bytes` in the place of what was saved before, on a lane, and gives them back.
    async fn save(&self, bytes: Vec<u8>) -> (Vec<u8>, io::Result<()>);
}

/// Memory for the nodes of both families, in the sizes of the board.
pub struct Memory {
    nodes: [Vec<Option<Contact>>; 2],
    peers: [Vec<Option<StoredPeer>>; 2],
    searches: [Vec<Option<Search>>; 2],
    saved: Vec<u8>,
}

impl Memory {
    /// Allocates all of it. Each number is of one family.
    pub fn new(nodes_max: u32, peers_max: u32, searches_max: u16) -> Memory {
        let (nodes, peers) = (nodes_max as usize, peers_max as usize);
        Memory {
            nodes: std::array::from_fn(|_| std::vec![None; nodes]),
            peers: std::array::from_fn(|_| std::vec![None; peers]),
            searches: std::array::from_fn(|_| (0..searches_max).map(|_| None).collect()),
            saved: Vec::with_capacity(2 * saved_bytes(nodes)),
        }
    }
}

/// How the nodes are to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'w> {
    /// Where the box listens for peers: its families and its port are the nodes' too.
    pub listen: SocketAddr,
    /// Chance, for each family.
    pub seeds: [[u8; 16]; 2],
    /// Ask and do not answer (BEP 43).
    pub read_only: bool,
    /// Nodes and peers in private networks are like others.
    pub allow_private: bool,
    /// Hosts and ports of entries to the network.
    pub entries: &'w [(&'w str, u16)],
}

/// Our nodes, one for each family.
pub struct Node<'m> {
    sides: [Side<'m>; 2],
    entries: Vec<(&'m str, u16)>,
    /// Where peers reach us.
    port: u16,
    saved: Cell<Vec<u8>>,
    saved_crc: Cell<u32>,
}

/// The node of one family.
struct Side<'m> {
    socket: Option<Async<UdpSocket>>,
    dht: RefCell<Dht<'m>>,
    round: RefCell<Round>,
}

/// What the nodes have done so far, and what they know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Nodes known, and of these the ones that answer.
    pub nodes: (usize, usize),
    /// Peers that others announced to us.
    pub peers_stored: usize,
    /// Searches under way.
    pub searching: usize,
    /// What has happened.
    pub counts: Counts,
}

impl<'m> Node<'m> {
    /// Opens the sockets; `saved` is what was [saved](World::save) last, or nothing.
    ///
    /// A family whose socket cannot be opened is left out, and that is said.
    pub fn open(wish: Wish<'m>, saved: &[u8], memory: &'m mut Memory, now: Instant) -> Node<'m> {
        let families = [Family::V4, Family::V6];
        let sockets = families.map(|family| open(family, wish.listen));
        let has_twin = sockets.iter().all(Option::is_some);
        let [nodes_v4, nodes_v6] = &mut memory.nodes;
        let [peers_v4, peers_v6] = &mut memory.peers;
        let [searches_v4, searches_v6] = &mut memory.searches;
        let of_v4 = DhtMemory { nodes: nodes_v4, peers: peers_v4, searches: searches_v4 };
        let of_v6 = DhtMemory { nodes: nodes_v6, peers: peers_v6, searches: searches_v6 };
        let mut rest = saved;
        let mut side = |family, socket, seed, memory| {
            let (read_only, allow_private) = (wish.read_only, wish.allow_private);
            let settings = Settings { family, seed, read_only, has_twin, allow_private };
            let mut dht = Dht::new(settings, memory);
            let known;
            (known, rest) = dht.read_nodes(rest, now);
            debug!("DHT over {family:?}: {known} nodes known from before");
            Side { socket, dht: RefCell::new(dht), round: RefCell::default() }
        };
        let ([v4, v6], [seed_v4, seed_v6]) = (sockets, wish.seeds);
        let sides = [side(Family::V4, v4, seed_v4, of_v4), side(Family::V6, v6, seed_v6, of_v6)];
        Node {
            sides,
            entries: wish.entries.to_vec(),
            port: wish.listen.port(),
            saved: Cell::new(std::mem::take(&mut memory.saved)),
            saved_crc: Cell::new(crc32fast::hash(saved)),
        }
    }

    /// A peer says that it is a node too, at that address (BEP 5, `port`).
    pub fn add_contact(&self, world: &impl World, address: SocketAddr) {
        self.side(&address).dht.borrow_mut().add_contact(address);
        world.ring_at(at_once(world));
    }

    /// A torrent is to be announced before others.
    ///
    /// # When full
    /// It is not. Callers ask for room before, or have it announced in its turn.
    pub fn announce_soon(&self, world: &impl World, info_hash: [u8; 20]) {
        for side in self.open_sides() {
            // There is room, or it has its turn.
            let _ = side.round.borrow_mut().announce_soon(info_hash);
        }
        world.ring_at(at_once(world));
    }

    /// How many more torrents [`Node::announce_soon`] takes now.
    pub fn room_for_news(&self) -> usize {
        self.open_sides().map(|side| side.round.borrow().room_for_news()).min().unwrap_or(0)
    }

    /// How many nodes answer, over both families.
    pub fn contact_count(&self, now: Instant) -> usize {
        [Family::V4, Family::V6].map(|family| self.stats(family, now).nodes.1).iter().sum()
    }

    /// What the node of a family has done and knows.
    pub fn stats(&self, family: Family, now: Instant) -> Stats {
        let [v4, v6] = &self.sides;
        let dht = if family == Family::V4 { v4 } else { v6 }.dht.borrow();
        Stats {
            nodes: dht.contact_counts(),
            peers_stored: dht.stored_count(now),
            searching: dht.search_count(),
            counts: dht.counts(),
        }
    }

    /// Where the node of a family is heard.
    pub fn address(&self, family: Family) -> Option<SocketAddr> {
        let [v4, v6] = &self.sides;
        let socket = if family == Family::V4 { &v4.socket } else { &v6.socket };
        socket.as_ref()?.get_ref().local_addr().ok()
    }

    fn side(&self, address: &SocketAddr) -> &Side<'m> {
        let [v4, v6] = &self.sides;
        if address.is_ipv4() { v4 } else { v6 }
    }

    fn open_sides(&self) -> impl Iterator<Item = &Side<'m>> {
        self.sides.iter().filter(|side| side.socket.is_some())
    }

    /// Does what both nodes want done; when the next is due is left with the clock.
    fn drain(&self, world: &impl World) {
        let [v4, v6] = &self.sides;
        // A node may be told of one of the other family: then that one is polled once more.
        for (side, other) in [(v4, v6), (v6, v4), (v4, v6)] {
            if let Some(socket) = &side.socket {
                world.ring_at(side.drain(world, socket, other, self.port));
            }
        }
    }
}

impl Side<'_> {
    /// Does what the node wants done until it waits and no search can be begun.
    fn drain(
        &self,
        world: &impl World,
        socket: &Async<UdpSocket>,
        other: &Side<'_>,
        port: u16,
    ) -> Deadline {
        loop {
            let deadline = match self.dht.borrow_mut().poll_output(world.now()) {
                Output::Wait(deadline) => deadline,
                Output::Send { to, bytes } => {
                    if let Err(error) = socket.get_ref().send_to(bytes, to) {
                        debug!("DHT to {to}: {error}");
                    }
                    continue;
                }
                Output::Peer { info_hash, address } => {
                    world.meet(&info_hash, address);
                    continue;
                }
                Output::OtherFamily(node) => {
                    other.dht.borrow_mut().add_entry(node);
                    continue;
                }
                Output::SearchEnded { found, announced_to, .. } => {
                    debug!("DHT: {found} peers named, announced to {announced_to} nodes");
                    continue;
                }
            };
            if let Some(round) = self.next_of_round(world, port) {
                return deadline.or(round);
            }
        }
    }

    /// Begins the next torrent's search and says nothing, or says when there is one to begin.
    fn next_of_round(&self, world: &impl World, port: u16) -> Option<Deadline> {
        let (now, mut round, mut dht) =
            (world.now(), self.round.borrow_mut(), self.dht.borrow_mut());
        if !dht.has_joined() {
            return Some(Deadline::NONE);
        }
        let info_hash = match round.next(now, |last| world.next_torrent(last)) {
            Ok(info_hash) => info_hash,
            Err(deadline) => return Some(deadline),
        };
        if dht.search(info_hash, Some(port), now).is_err() {
            // When one ends this is asked again.
            return Some(Deadline::NONE);
        }
        round.handle_begun(info_hash, world.torrent_count(), now);
        None
    }
}

/// Runs the nodes for ever, or returns at once when there is nothing to run.
pub async fn run<W: World>(world: &W, node: &Node<'_>) {
    if world.lan_only() || node.open_sides().next().is_none() {
        return;
    }
    let [v4, v6] = &node.sides;
    let listening = future::zip(listen(world, node, v4, v6), listen(world, node, v6, v4));
    let standing = future::zip(enter(world, node), keep(world, node));
    let timed = async {
        loop {
            node.drain(world);
            world.rung().await;
        }
    };
    future::zip(future::zip(listening, standing), timed).await;
}

/// Saves what is known, for the next start.
pub async fn stop<W: World>(world: &W, node: &Node<'_>) {
    save(world, node).await;
}

/// Hears datagrams.
async fn listen<W: World>(world: &W, node: &Node<'_>, side: &Side<'_>, other: &Side<'_>) {
    let Some(socket) = &side.socket else { return };
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else {
            world.sleep(FAULT_PAUSE_MS, "DHT: its socket again").await;
            continue;
        };
        let twin = other.socket.is_some().then(|| other.dht.borrow());
        let bytes = &datagram[..length];
        side.dht.borrow_mut().handle_datagram(from, bytes, world.now(), twin.as_deref());
        drop(twin);
        world.ring_at(side.drain(world, socket, other, node.port));
        // Others have their turn between two datagrams, however fast they come.
        future::yield_now().await;
    }
}

/// Asks entries to the network while hardly anybody is known.
async fn enter<W: World>(world: &W, node: &Node<'_>) {
    let mut pause_ms = ENTRY_PAUSE_MS_MIN;
    loop {
        let is_needed = |side: &Side<'_>| side.dht.borrow().needs_entry();
        if node.open_sides().any(is_needed) {
            for (host, port) in &node.entries {
                let found = match host.parse::<IpAddr>() {
                    Ok(ip) => Ok(std::vec![SocketAddr::new(ip, *port)]),
                    Err(_) => world.resolve(host, *port).await,
                };
                match found {
                    Ok(found) => found.into_iter().for_each(|entry| {
                        node.side(&entry).dht.borrow_mut().add_entry(entry);
                    }),
                    Err(error) => debug!("DHT: {host}: {error}"),
                }
            }
            world.ring_at(at_once(world));
        } else {
            pause_ms = ENTRY_PAUSE_MS_MAX;
        }
        world.sleep(pause_ms, "DHT: whether anybody is known").await;
        pause_ms = (2 * pause_ms).min(ENTRY_PAUSE_MS_MAX);
    }
}

/// Saves what is known now and then.
async fn keep<W: World>(world: &W, node: &Node<'_>) {
    loop {
        world.sleep(SAVE_MS, "DHT: nodes to save").await;
        save(world, node).await;
    }
}

async fn save<W: World>(world: &W, node: &Node<'_>) {
    let mut bytes = node.saved.take();
    bytes.clear();
    for side in node.open_sides() {
        let written = side.dht.borrow().write_nodes(&mut Kept(&mut bytes));
        match written {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    let crc = crc32fast::hash(&bytes);
    if !bytes.is_empty() && crc != node.saved_crc.get() {
        let (returned, outcome) = world.save(bytes).await;
        bytes = returned;
        match outcome {
            Ok(()) => node.saved_crc.set(crc),
            Err(error) => debug!("DHT: nodes cannot be saved: {error}"),
        }
    }
    node.saved.set(bytes);
}

/// Takes what is written; what one board can know has room in it.
struct Kept<'v>(&'v mut Vec<u8>);

impl Sink for Kept<'_> {
    type Error = Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn at_once(world: &impl World) -> Deadline {
    Deadline { at: world.now(), why: "DHT: news" }
}

/// The socket of one family, if the box listens on it and it can be had.
fn open(family: Family, listen: SocketAddr) -> Option<Async<UdpSocket>> {
    let any = listen.ip().is_unspecified();
    let ip: IpAddr = match (family, listen.ip()) {
        (Family::V4, IpAddr::V4(ip)) => ip.into(),
        (Family::V6, IpAddr::V6(ip)) => ip.into(),
        // An IPv6 listener for any address takes IPv4 too.
        (Family::V4, IpAddr::V6(_)) if any => Ipv4Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let bind = || -> io::Result<Async<UdpSocket>> {
        let address = SocketAddr::new(ip, listen.port());
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.bind(&address.into())?;
        Async::new(socket.into())
    };
    match bind() {
        Ok(socket) => Some(socket),
        Err(error) => {
            info!("no DHT over {family:?}: {error}");
            None
        }
    }
}

/// The nodes' world, in the box itself.
pub struct OnService<'a, 's> {
    /// The box.
    pub service: &'a Service<'s>,
    /// The file that outlasts a restart.
    pub file: PathBuf,
}

impl World for OnService<'_, '_> {
    fn lan_only(&self) -> bool {
        self.service.lan_only
    }

    fn now(&self) -> Instant {
        self.service.clock.now()
    }

    fn ring_at(&self, deadline: Deadline) {
        let slot = self.service.clock.slot(self.service.duties.dht);
        self.service.clock.ring_at(slot, deadline);
    }

    async fn rung(&self) {
        let slot = self.service.clock.slot(self.service.duties.dht);
        self.service.clock.bell(slot).rung().await;
    }

    async fn sleep(&self, ms: u64, why: &'static str) {
        self.service.clock.sleep(ms, why).await;
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.service.resolve(host, port).await
    }

    fn next_torrent(&self, after: Option<[u8; 20]>) -> Option<[u8; 20]> {
        let swarm = self.service.swarm.borrow();
        let spoken_of = swarm.torrents().filter(|(_, torrent)| !torrent.private);
        let hashes = spoken_of.map(|(_, torrent)| torrent.info_hash.on_the_wire());
        hashes.filter(|hash| after.is_none_or(|after| *hash > after)).min()
    }

    fn torrent_count(&self) -> u32 {
        let swarm = self.service.swarm.borrow();
        swarm.torrents().filter(|(_, torrent)| !torrent.private).count() as u32
    }

    fn meet(&self, info_hash: &[u8; 20], peer: SocketAddr) {
        if let Some(torrent) = self.service.public(info_hash) {
            self.service.meet(torrent, peer);
        }
    }

    async fn save(&self, bytes: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
        let job = Job::Save { path: self.file.clone(), bytes };
        match self.service.lanes.run(job).await {
            Some(Done::Saved(bytes, outcome)) => (bytes, outcome),
            _ => (Vec::new(), Err(io::Error::other("every lane is taken"))),
        }
    }
}

/// Hands on the nodes that peers tell of (BEP 5), for ever.
pub async fn heed_peers(world: &OnService<'_, '_>, node: &Node<'_>) {
    loop {
        world.service.dht_told.rung().await;
        while let Some(address) = world.service.swarm.borrow_mut().fetcher.dht_nodes.pop_front() {
            node.add_contact(world, address);
        }
    }
}

/// Well-known entries to the network, kept by those who make clients.
pub const ENTRIES: [(&str, u16); 5] = [
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("dht.libtorrent.org", 25401),
    ("router.utorrent.com", 6881),
    ("dht.aelitis.com", 6881),
];

/// The file in the state folder.
pub const FILE: &str = "dht";

/// How many may [`sleep`](World::sleep) at a time: entries, saving, and a socket of each family.
pub const SLEEPERS: usize = 4;

/// A datagram at most; a longer one loses its tail and is no message then.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// What the kernel keeps for us of each family: a second of the fastest traffic we answer.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// What a datagram is heard into, for each family, and the task around it.
pub const TASK_BYTES: usize = 8 * 1024;

/// Between two looks whether entries are needed.
const ENTRY_PAUSE_MS_MIN: u64 = 5_000;
const ENTRY_PAUSE_MS_MAX: u64 = 3_600_000;

/// Between two looks whether there is something to save.
const SAVE_MS: u64 = 6 * 3_600_000;

/// Pause after a receive that failed: an interface may be on its way down.
const FAULT_PAUSE_MS: u64 = 1_000;
