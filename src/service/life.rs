//! A service's life: memory, state, sockets and tasks are made in this order, and end in reverse.
//!
//! ```text
//! board -> state folder (lock, journal) -> listener -> lanes -> shares (hash what is new)
//!       -> swarm in memory lent here -> tasks -> "ready" ... signal -> trackers told -> stopped
//! ```
//!
//! All memory whose size a board sets is allocated in [`live()`], once; the engine borrows it.

use super::announcer::{self, Announcer};
use super::archive::Archive;
use super::board::{Board, Pools, RECEIVED_BYTES};
use super::caps::Caps;
use super::clock::{Bell, Clock};
use super::content::HASH_SCRATCH_BYTES;
use super::disk::Disk;
use super::fetch::magnet;
use super::fetch::open::Taken;
use super::fetch::{self, Desk, Goal, Keeper};
use super::lan::{Lan, magnet};
use super::lanes::{LaneSizes, Lanes};
use super::lobby::Lobby;
use super::options::{DhtOptions, Opened, Options, open_all};
use super::portmap::Portmap;
use super::report::{Report, Totals};
use super::rest::{self, Rest};
use super::share::{Share, Workshop};
use super::streams::Streams;
use super::webseed::{self, WebSeeds};
use super::windows::Windows;
use super::{Duties, Refusal, Service, Swarm, dht, discovery, live, lobby, portmap, pump, scrub};
use crate::engine::peer::serve::Request;
use crate::engine::swarm::fetch::link::Ask;
use crate::engine::swarm::fetch::unveil::Veil;
use crate::engine::swarm::fetch::{FetchFull, FetchMemory, Fetcher};
use crate::engine::swarm::pool::Pool;
use crate::engine::swarm::torrent::{Have, Torrent};
use crate::engine::swarm::{Identity, SwarmLimits, SwarmMemory};
use crate::engine::units::{InfoHash, Instant, PeerId, PeerSlot, PieceIndex, TorrentSlot};
use async_io::Async;
use async_signal::{Signal, Signals};
use log::{info, warn};
use rustix::process::{Resource, Rlimit};
use smol::LocalExecutor;
use smol::stream::StreamExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// Shares and fetches what is asked for, until a signal comes.
pub fn live(options: &Options, report: &mut Report) -> Result<(), Refusal> {
    let board = &options.board;
    if let Some(objection) = board.objection() {
        return Err(objection);
    }
    raise_descriptors(board);
    let archive = Archive::open(&options.state, board)?;
    let listener = listen(options)?;
    let lanes = start_lanes(board)?;
    smol::block_on(async {
        let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(no_signals)?;
        let mut workshop = Workshop { archive: &archive, lanes: &lanes };
        let interrupted = async {
            let _ = signals.next().await;
            Err(Refusal::new("hashing", "was interrupted", "start again to share"))
        };
        let opening = open_all(&mut workshop, options, report);
        let opened = smol::future::or(interrupted, opening).await;
        if opened.is_err() {
            archive.ask(|state| state.discard_new_folders()).await;
        }
        let opened = opened?;
        let announcer = Announcer::default();
        let keeper = Keeper { archive: &archive, announcer: &announcer, options };
        let sent = serve(options, report, listener, lanes, opened, &keeper, &mut signals).await?;
        for (info_hash, sent_bytes) in sent.into_iter().filter(|(_, bytes)| *bytes > 0) {
            archive.ask(move |state| state.count_sent(info_hash, sent_bytes)).await?;
        }
        Ok(())
    })
}

/// Serves until a signal comes; bytes sent of each share.
async fn serve(
    options: &Options,
    report: &Report,
    listener: Async<TcpListener>,
    lanes: Lanes,
    opened: Opened,
    keeper: &Keeper<'_>,
    signals: &mut Signals,
) -> Result<Vec<(InfoHash, u64)>, Refusal> {
    let (board, pools) = (&options.board, options.board.pools);
    let pumps = usize::from(board.pumps());
    let address = listener.get_ref().local_addr().map_err(|error| cannot_listen("", error))?;
    let mut torrents: Vec<Option<Torrent>> = (0..pools.seeding_max).map(|_| None).collect();
    let mut members: Vec<_> = (0..pumps).map(|_| None).collect();
    let mut nudged = std::vec![PeerSlot::default(); pumps];
    let mut bits = std::vec![0; Pool::lent_bytes(pools.bits_kib as usize * 1024)];
    let mut candidates = std::vec![None; pools.candidates_max as usize];
    let requests_each = usize::from(pools.requests_per_peer);
    let mut requests = std::vec![Request::default(); pumps * requests_each];
    let memory = SwarmMemory {
        torrents: &mut torrents,
        members: &mut members,
        nudged: &mut nudged,
        bits: &mut bits,
        candidates: &mut candidates,
    };
    let asks_each = usize::from(pools.asks_per_peer);
    let mut fetches: Vec<_> = (0..pools.fetching_max).map(|_| None).collect();
    let mut partials: Vec<_> = (0..pools.partials_max).map(|_| None).collect();
    let mut links: Vec<_> = (0..board.links()).map(|_| None).collect();
    let mut asks = std::vec![Ask::default(); links.len() * asks_each];
    let mut veils = std::vec![Veil::default(); pumps];
    let mut pool = std::vec![0; pools.fetch_bits_kib as usize * 1024];
    let fetcher = Fetcher::new(FetchMemory {
        fetches: &mut fetches,
        partials: &mut partials,
        links: &mut links,
        asks: &mut asks,
        veils: &mut veils,
        pool: &mut pool,
    });
    let hash_table = HashTable::new(options, address, keeper.archive.folder());
    let mut nodes = hash_table.memory(board);
    let dht_port = if hash_table.is_on { address.port() } else { 0 };
    let service = make_service(options, address, dht_port, memory, fetcher, lanes)?;
    service.swarm.borrow_mut().torrents_rest = options.all_that_is_known;
    let node = hash_table.open(&mut nodes, service.clock.now());
    let world = dht::OnService { service: &service, file: hash_table.file.clone() };
    let announcer = keeper.announcer;
    service.fetched.says_pieces.set(report.is_json());
    let mut told = Vec::with_capacity(opened.taken.len());
    for one in opened.taken {
        told.push(take_in(&service, keeper, one)?);
    }
    for lead in opened.leads {
        magnet::seek(&service, keeper, lead).await?;
    }
    told.iter().for_each(|(slot, share)| tell(&service, *slot, share, options, report));
    let executor = LocalExecutor::new();
    for (slot, queue) in requests.chunks_mut(requests_each).enumerate() {
        executor.spawn(pump::run(&service, PeerSlot(slot as u16), queue)).detach();
    }
    executor.spawn(service.clock.run()).detach();
    executor.spawn(service.run_choker()).detach();
    executor.spawn(lobby::run_listener(&service, &listener)).detach();
    executor.spawn(lobby::run_dials(&service)).detach();
    executor.spawn(rest::run(&service, keeper)).detach();
    executor.spawn(scrub::run(&service)).detach();
    executor.spawn(discovery::run(&service)).detach();
    executor.spawn(portmap::run(&service)).detach();
    if let Some(node) = &node {
        executor.spawn(dht::run(&world, node)).detach();
        executor.spawn(dht::heed_peers(&world, node)).detach();
    }
    let dht_nodes = || node.as_ref().map(|node| node.contact_count(service.clock.now()));
    executor.spawn(live::run(&service, announcer, report, dht_nodes)).detach();
    executor.spawn(fetch::run(&service, keeper, report)).detach();
    executor.spawn(magnet::run(&service, keeper, report)).detach();
    for slot in board.pumps()..board.links() {
        executor.spawn(webseed::run(&service, PeerSlot(slot))).detach();
    }
    for worker in 0..announcer::EXCHANGES_MAX {
        executor.spawn(announcer::run(&service, announcer, worker)).detach();
    }
    report.ready(address);
    let exit = options.fetch.exit;
    let leave_dht = async {
        if let Some(node) = &node {
            dht::stop(&world, node).await;
        }
    };
    let end = executor.spawn(until_stopped(&service, announcer, exit, leave_dht, signals));
    drive(&service, &executor, end).await;
    if let Some(failure) = service.fetched.failure().filter(|_| exit) {
        return Err(failure);
    }
    let swarm = service.swarm.borrow();
    report.stopped(Totals {
        sent_bytes: swarm.sent_bytes,
        read_bytes: service.disk.read_bytes(),
        seconds: service.clock.now().as_millis() / 1_000,
    });
    Ok(swarm.torrents().map(|(_, torrent)| (torrent.info_hash, torrent.sent_bytes)).collect())
}

/// Whether and how the box takes part in the distributed hash table.
struct HashTable<'o> {
    is_on: bool,
    listen: SocketAddr,
    options: &'o DhtOptions,
    entries: Vec<(&'o str, u16)>,
    /// Where nodes are kept over a restart.
    file: PathBuf,
}

impl<'o> HashTable<'o> {
    fn new(options: &'o Options, listen: SocketAddr, state: &Path) -> HashTable<'o> {
        let chosen = options.dht.entries.iter().map(|(host, port)| (host.as_str(), *port));
        let entries: Vec<_> = chosen.collect();
        // From a loopback address nobody else can be reached, unless the owner says who.
        let reaches_somebody = !listen.ip().is_loopback() || !entries.is_empty();
        let is_on = !options.lan && !options.dht.off && reaches_somebody;
        let file = state.join(dht::FILE);
        HashTable { is_on, listen, options: &options.dht, entries, file }
    }

    fn memory(&self, board: &Board) -> dht::Memory {
        let Pools { dht_nodes_max, dht_peers_max, dht_searches_max, .. } = board.pools;
        match self.is_on {
            true => dht::Memory::new(dht_nodes_max, dht_peers_max, dht_searches_max),
            false => dht::Memory::new(0, 0, 0),
        }
    }

    fn open<'m>(&'m self, memory: &'m mut dht::Memory, now: Instant) -> Option<dht::Node<'m>> {
        let own = !self.entries.is_empty();
        let wish = dht::Wish {
            listen: self.listen,
            seeds: std::array::from_fn(|_| std::array::from_fn(|_| announcer::random() as u8)),
            read_only: self.options.read_only,
            // Entries of the owner's own may lead into a network of the owner's own.
            allow_private: own,
            entries: if own { &self.entries } else { &dht::ENTRIES },
        };
        // Without the file, or when it cannot be read, the entries are asked.
        let saved = std::fs::read(&self.file).unwrap_or_default();
        self.is_on.then(|| dht::Node::open(wish, &saved, memory, now))
    }
}

/// Everything tasks share, in the sizes of the board.
fn make_service<'m>(
    options: &Options,
    address: SocketAddr,
    dht_port: u16,
    memory: SwarmMemory<'m>,
    fetcher: Fetcher<'m>,
    lanes: Lanes,
) -> Result<Service<'m>, Refusal> {
    let Board { pools, disk, sockets, .. } = &options.board;
    let (pumps, links) = (options.board.pumps().into(), usize::from(options.board.links()));
    let limits = SwarmLimits {
        peers_max: pools.peers_max,
        unchoked_max: pools.unchoked_max,
        per_address_max: pools.per_address_max,
    };
    let identity = Identity {
        peer_id: PeerId::ours(std::array::from_fn(|_| announcer::random() as u8)),
        listen_port: address.port(),
        requests_max: pools.requests_per_peer,
        exchanges: !options.lan,
        dht_port,
    };
    Ok(Service {
        clock: Clock::new(links + Duties::COUNT, SLEEPERS + usize::from(pools.web_seeds_max)),
        lanes,
        names: start_names(&options.board)?,
        complain_after: Cell::default(),
        disk: Disk::new(pools.open_files_max as usize, disk.serve_kib as usize * 1024),
        streams: Streams::new(pumps).map_err(no_descriptors)?,
        lobby: Lobby::new(pumps),
        swarm: RefCell::new(Swarm::with_fetcher(memory, limits, identity, fetcher)),
        hungry: RefCell::new(VecDeque::with_capacity(links)),
        fetched: Desk::default(),
        dht_told: Bell::default(),
        up: Caps::new(options.caps.up, pools.seeding_max.into()),
        down: Caps::new(options.caps.down, pools.seeding_max.into()),
        caps: options.caps,
        webseeds: WebSeeds::new(options.board.pumps(), pools.web_seeds_max),
        contents: RefCell::new(std::vec![None; pools.seeding_max.into()]),
        rest: Rest::new(pumps),
        received: RefCell::new(std::vec![0; RECEIVED_BYTES].into_boxed_slice()),
        windows: Windows::of(sockets),
        unsent_bytes: sockets.unsent_kib * 1024,
        dialled_max: pools.peers_max - pools.peers_max / 4,
        portmap: Portmap::new(address.port()),
        duties: Duties::after(links),
        lan_only: options.lan,
        listen: address,
        lan: RefCell::new(Lan::look()),
        lan_looked_ms: Cell::new(0),
    })
}

/// The link for everybody: with the owner's trackers, and where peers on the LAN can connect to.
pub(super) fn magnet_of(service: &Service<'_>, share: &Share, options: &Options) -> String {
    let address = service.listen;
    let trackers = share.trackers.iter().map(|(_, address)| address).filter(|_| !options.lan);
    let lan = service.lan();
    let heard = |peer: &SocketAddr| match address.ip() {
        // An IPv6 socket for any address takes IPv4 too.
        ip if ip.is_unspecified() => peer.is_ipv4() || address.is_ipv6(),
        ip => peer.ip() == ip,
    };
    let peers = lan.reachable_at(address.port()).filter(heard);
    magnet(&share.info_hash, &share.name, share.content.layout.total_bytes, trackers, peers)
}

/// Runs tasks until `end` is over.
///
/// While there is work the streams are looked at after every few tasks, and the reactor (timers,
/// signals, every other socket) every few milliseconds: `async-io` keeps a thread that takes the
/// reactor over when nobody has looked at it for 10 ms, and every event would then cross threads.
/// Without work the thread sleeps in the reactor, which waits for the streams' set too.
async fn drive(service: &Service<'_>, executor: &LocalExecutor<'_>, end: impl Future<Output = ()>) {
    let tasks = async {
        loop {
            let begun = service.clock.now();
            let idle = loop {
                let ran = (0..TASKS_BETWEEN_LOOKS).take_while(|_| executor.try_tick()).count();
                service.streams.look(&service.clock);
                if ran == 0 {
                    break true;
                }
                if service.clock.now() >= begun.after(REACTOR_PAUSE_MS) {
                    break false;
                }
            };
            if idle {
                smol::future::or(executor.tick(), service.streams.news()).await;
            } else {
                smol::future::yield_now().await;
            }
        }
    };
    smol::future::or(end, tasks).await;
}

/// Waits for a signal, then lets peers go and tells trackers and the router, within [`STOP_MS`].
async fn until_stopped(
    service: &Service<'_>,
    announcer: &Announcer,
    exit: bool,
    leave_dht: impl Future<Output = ()>,
    signals: &mut Signals,
) {
    let signal = async {
        let _ = signals.next().await;
    };
    let complete = async {
        while !exit || !(service.fetched.is_done() || service.fetched.failure().is_some()) {
            service.fetched.settled.rung().await;
        }
    };
    smol::future::or(signal, complete).await;
    info!("stopping");
    service.swarm.borrow_mut().close();
    service.ring_nudged();
    let told = smol::future::zip(announcer::stop(service, announcer), portmap::stop(service));
    let told = smol::future::zip(told, smol::future::zip(fetch::stop(service), leave_dht));
    let late = service.clock.sleep(STOP_MS, "the end");
    let told = async {
        told.await;
    };
    smol::future::or(told, late).await;
}

/// Takes in what has been opened: it is shared from here on, and what is lacking fetched.
fn take_in(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    taken: Taken,
) -> Result<(TorrentSlot, Share), Refusal> {
    let (options, Taken { share, errand, peers }) = (keeper.options, taken);
    let slot = activate(service, keeper.announcer, &share, options)?;
    let Some(errand) = errand else { return Ok((slot, share)) };
    let (order, chance) = (keeper.order(), announcer::random());
    let wanted = |piece: u32| errand.wants(piece);
    let begun = service.swarm.borrow_mut().begin_fetch(slot, wanted, order, chance);
    begun.map_err(|full| fetch_refused(&share.name, full))?;
    let now = service.clock.now();
    for peer in options.fetch.peers.iter().chain(&peers) {
        service.swarm.borrow_mut().candidates.note_named(slot, *peer, now);
    }
    service.ring_nudged();
    let named = options.fetch.web_seeds.iter().map(|url| (url.as_str(), true));
    service.webseeds.add_all(service, slot, &share.content, named);
    service.fetched.goals.borrow_mut().push(Goal::new(slot, &share, errand));
    Ok((slot, share))
}

/// Says what has been taken in.
fn tell(
    service: &Service<'_>,
    slot: TorrentSlot,
    share: &Share,
    options: &Options,
    report: &Report,
) {
    let magnet = magnet_of(service, share, options);
    match service.fetched.goals.borrow().iter().find(|goal| goal.torrent == slot) {
        Some(goal) => report.added(share, &magnet, goal),
        None => report.share(share, &magnet),
    }
}

/// Why a torrent cannot be fetched for now.
pub(super) fn fetch_refused(name: &str, full: FetchFull) -> Refusal {
    let problem = match full {
        FetchFull::Places => "as many torrents are fetched as the board's fetching_max".into(),
        FetchFull::Pool { needed_bytes, free_bytes } => std::format!(
            "its pieces need {needed_bytes} bytes of the board's fetch_bits_kib, and {free_bytes} \
             are free"
        ),
    };
    Refusal::new(name, problem, "fetch fewer at a time, or choose a larger board with --board")
}

/// Makes a share active: from here on peers can ask for it.
fn activate(
    service: &Service<'_>,
    announcer: &Announcer,
    share: &Share,
    options: &Options,
) -> Result<TorrentSlot, Refusal> {
    let (slot, left) = place(service, share)?;
    announce(service, announcer, slot, share, left, options);
    Ok(slot)
}

/// Gives a share a place among those that are active; how many bytes of it are missing.
pub(super) fn place(service: &Service<'_>, share: &Share) -> Result<(TorrentSlot, u64), Refusal> {
    let layout = share.content.layout;
    let (have, left) = have_of(service, share)?;
    let mut swarm = service.swarm.borrow_mut();
    let torrent = Torrent {
        info_hash: share.info_hash,
        layout,
        metadata_bytes: share.content.info.length as u32,
        have,
        private: share.private,
        sent_bytes: 0,
    };
    let slot = swarm.activate(torrent).ok_or_else(|| {
        Refusal::new(&share.name, "every place is taken", "share fewer, or choose a larger board")
    })?;
    drop(swarm);
    service.contents.borrow_mut()[slot.index()] = Some(Arc::clone(&share.content));
    Ok((slot, left))
}

/// From here on trackers are told of a share.
fn announce(
    service: &Service<'_>,
    announcer: &Announcer,
    slot: TorrentSlot,
    share: &Share,
    left: u64,
    options: &Options,
) {
    if !options.lan {
        let now = service.clock.now();
        let (own, named): (Vec<_>, Vec<_>) =
            share.trackers.iter().partition(|(_, address)| options.trackers.contains(address));
        let named = named.iter().map(|(tier, address)| (*tier, address.as_str()));
        announcer.add(slot, named, false, left, now);
        // Each tracker the owner names is told; BEP 12 would stop at the first that answers.
        for (_, address) in own {
            announcer.add(slot, std::iter::once((0, address.as_str())), true, left, now);
        }
    }
}

/// What is there of a share, in the swarm's own bits, and how many bytes are missing.
pub(super) fn have_of(service: &Service<'_>, share: &Share) -> Result<(Have, u64), Refusal> {
    let (layout, mut left) = (share.content.layout, 0);
    let Some(bits) = &share.have else { return Ok((Have::All, 0)) };
    let mut swarm = service.swarm.borrow_mut();
    let span = swarm.take_bits(layout.piece_count()).ok_or_else(|| {
        let problem = "there is no room for its bitfield";
        Refusal::new(&share.name, problem, "share fewer, or choose a larger board")
    })?;
    for piece in 0..layout.piece_count() {
        if bits[piece as usize / 8] & (0x80 >> (piece % 8)) != 0 {
            swarm.set_bit(span, piece);
        } else {
            left += u64::from(layout.piece_len(PieceIndex(piece)));
        }
    }
    Ok((Have::Some(span), left))
}

/// Opens the listening socket: where the owner says, or at the first free port of the usual ones.
fn listen(options: &Options) -> Result<Async<TcpListener>, Refusal> {
    let receive_bytes = Windows::of(&options.board.sockets).least();
    if let Some(address) = options.listen {
        return lobby::listen(address, receive_bytes)
            .map_err(|error| cannot_listen(std::format!("--listen {address}"), error));
    }
    let mut last = None;
    for port in PORTS {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let tried = lobby::listen(any, receive_bytes).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            // A kernel without IPv6.
            _ => lobby::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), receive_bytes),
        });
        match tried {
            Ok(listener) => {
                if port != *PORTS.start() {
                    warn!("port {} is taken; listening on {port}", PORTS.start());
                }
                return Ok(listener);
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(cannot_listen(std::format!("ports {} to {}", PORTS.start(), PORTS.end()), error))
}

fn cannot_listen(what: impl std::fmt::Display, error: io::Error) -> Refusal {
    Refusal::new(what, error, "name another address with --listen ADDR:PORT")
}

pub(super) fn no_signals(error: io::Error) -> Refusal {
    Refusal::new("signals", error, "look at the system's limits")
}

/// A lane that only looks up names.
fn start_names(board: &Board) -> Result<Lanes, Refusal> {
    let sizes = LaneSizes {
        lanes: 1,
        stack_bytes: board.disk.lane_stack_kib as usize * 1024,
        scratch_bytes: 0,
        buffers: 0,
        buffer_bytes: 0,
        jobs_max: 2 * announcer::EXCHANGES_MAX + usize::from(board.pools.web_seeds_max),
    };
    Lanes::start(sizes).map_err(no_threads)
}

pub(super) fn start_lanes(board: &Board) -> Result<Lanes, Refusal> {
    let disk = &board.disk;
    let sizes = LaneSizes {
        lanes: disk.lanes.into(),
        stack_bytes: disk.lane_stack_kib as usize * 1024,
        scratch_bytes: HASH_SCRATCH_BYTES,
        buffers: disk.lane_buffers.into(),
        buffer_bytes: disk.lane_buffer_kib as usize * 1024,
        // Reads and writes are bounded by their buffers, hashing by three a lane, each web seed
        // looks for one file; the rest is one of a kind.
        jobs_max: usize::from(disk.lane_buffers + 3 * disk.lanes + board.pools.web_seeds_max)
            + fetch::JOBS_MAX
            + ODD_JOBS,
    };
    Lanes::start(sizes).map_err(no_threads)
}

fn no_descriptors(error: io::Error) -> Refusal {
    Refusal::new("streams", error, "look at the system's limits")
}

fn no_threads(error: io::Error) -> Refusal {
    Refusal::new("threads", error, "look at the system's limits")
}

/// Sees to it that the process may hold as many descriptors as the board needs.
fn raise_descriptors(board: &Board) {
    let needed = board.descriptors();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let most = limit.maximum.unwrap_or(needed).min(needed);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() || most < needed {
        warn!("only {most} open files are allowed and the board may need {needed}: see ulimit -n");
    }
}

/// Tasks run between two looks at the streams; a task that serves takes about 0.1 ms.
const TASKS_BETWEEN_LOOKS: usize = 32;

/// The reactor is looked at no less often than this while there is work; `async-io` waits 10 ms.
const REACTOR_PAUSE_MS: u64 = 4;

/// Where BitTorrent is looked for.
const PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;

/// Peers and trackers are told within this, so that the whole stop takes less than 2 s.
const STOP_MS: u64 = 1_500;

/// An announce sleeps up to five times at once (two families, two bounds each, and the whole);
/// then accepting, dialling, discovery twice, stopping three times, what asks the router, the DHT's.
/// Each web seed sleeps once beside.
const SLEEPERS: usize = 5 * announcer::EXCHANGES_MAX + 7 + portmap::SLEEPERS + dht::SLEEPERS;

/// A look at shared files, and one to spare.
const ODD_JOBS: usize = 2;
