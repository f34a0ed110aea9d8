//! What a service is made of, in the sizes of the board: sockets, threads, the swarm's surroundings.

use crate::engine::swarm::fetch::Fetcher;
use crate::engine::swarm::{Identity, SwarmLimits, SwarmMemory};
use crate::engine::units::{Instant, PeerId};
use crate::service::announcer::{self};
use crate::service::board::{Board, Pools, RECEIVED_BYTES};
use crate::service::buffers::Line;
use crate::service::caps::Caps;
use crate::service::clock::{Bell, Clock};
use crate::service::content::HASH_SCRATCH_BYTES;
use crate::service::control::server::PLACES;
use crate::service::disk::Disk;
use crate::service::fetch::{self, Desk};
use crate::service::grounds::Grounds;
use crate::service::lan::Lan;
use crate::service::lanes::{LaneSizes, Lanes};
use crate::service::lobby::Lobby;
use crate::service::options::{DhtOptions, Options, WebAt};
use crate::service::pass::Pass;
use crate::service::portmap::Portmap;
use crate::service::rest::Rest;
use crate::service::streams::Streams;
use crate::service::webseed::WebSeeds;
use crate::service::windows::Windows;
use crate::service::{Duties, Refusal, Service, Swarm, dht, lobby, portmap};
use async_io::Async;
use rustix::process::{Resource, Rlimit};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::vec::Vec;

/// Whether and how the box takes part in the distributed hash table.
pub(super) struct HashTable<'o> {
    pub(super) is_on: bool,
    listen: SocketAddr,
    options: &'o DhtOptions,
    entries: Vec<(&'o str, u16)>,
    /// Where nodes are kept over a restart.
    pub(super) file: PathBuf,
}

impl<'o> HashTable<'o> {
    pub(super) fn new(options: &'o Options, listen: SocketAddr, state: &Path) -> HashTable<'o> {
        let chosen = options.dht.entries.iter().map(|(host, port)| (host.as_str(), *port));
        let entries: Vec<_> = chosen.collect();
        // From a loopback address nobody else can be reached, unless the owner says who.
        let reaches_somebody = !listen.ip().is_loopback() || !entries.is_empty();
        let is_on = !options.lan && !options.dht.off && reaches_somebody;
        let file = state.join(dht::FILE);
        HashTable { is_on, listen, options: &options.dht, entries, file }
    }

    pub(super) fn memory(&self, board: &Board) -> dht::Memory {
        let Pools { dht_nodes_max, dht_peers_max, dht_searches_max, .. } = board.pools;
        match self.is_on {
            true => dht::Memory::new(dht_nodes_max, dht_peers_max, dht_searches_max),
            false => dht::Memory::new(0, 0, 0),
        }
    }

    pub(super) fn open<'m>(
        &'m self,
        memory: &'m mut dht::Memory,
        now: Instant,
    ) -> Option<dht::Node<'m>> {
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
pub(super) fn make_service<'m>(
    options: &Options,
    address: SocketAddr,
    dht_port: u16,
    memory: SwarmMemory<'m>,
    fetcher: Fetcher<'m>,
    (lanes, grounds): (Lanes, Grounds),
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
        clock: Clock::new(links + Duties::COUNT, sleepers(&options.board)),
        lanes,
        names: start_names(&options.board)?,
        grounds,
        complain_after: Cell::default(),
        disk: Disk::new(pools.open_files_max as usize, disk.serve_kib as usize * 1024),
        streams: Streams::new(pumps).map_err(no_descriptors)?,
        lobby: Lobby::new(pumps),
        swarm: RefCell::new(Swarm::with_fetcher(memory, limits, identity, fetcher)),
        line: Line::new(links),
        fetching_max: pools.fetching_max.into(),
        fetched: Desk::default(),
        dht_told: Bell::default(),
        up: Caps::new(options.caps.up, pools.seeding_max.into()),
        down: Caps::new(options.caps.down, pools.seeding_max.into()),
        caps: Cell::new(options.caps),
        limits: RefCell::default(),
        webseeds: WebSeeds::new(options.board.pumps(), pools.web_seeds_max),
        contents: RefCell::new(std::vec![None; pools.seeding_max.into()]),
        rest: Rest::new(pumps),
        pass: Pass::default(),
        announce_key: announcer::random(),
        received: RefCell::new(std::vec![0; RECEIVED_BYTES].into_boxed_slice()),
        full_in_a_row: Cell::new(0),
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

/// Opens the listening socket: where the owner says, or at the first free port of the usual ones.
pub(super) fn listen(options: &Options) -> Result<Async<TcpListener>, Refusal> {
    let receive_bytes = Windows::of(&options.board.sockets).least();
    if let Some(address) = options.listen {
        return lobby::listen(address, receive_bytes)
            .map_err(|error| cannot_listen(std::format!("--listen {address}"), error));
    }
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    listen_at_first_free(any, PORTS, receive_bytes).map_err(|error| {
        cannot_listen(std::format!("ports {} to {}", PORTS.start(), PORTS.end()), error)
    })
}

/// Listens at the first port that is free; on a kernel without IPv6 over IPv4.
fn listen_at_first_free(
    ip: IpAddr,
    ports: RangeInclusive<u16>,
    receive_bytes: usize,
) -> io::Result<Async<TcpListener>> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in ports.clone() {
        let tried = lobby::listen(SocketAddr::new(ip, port), receive_bytes);
        let tried = tried.or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            _ if ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Err(error),
            _ => lobby::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), receive_bytes),
        });
        match tried {
            Ok(listener) => {
                if port != *ports.start() {
                    warn!("port {} is taken; listening on {port}", ports.start());
                }
                return Ok(listener);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Opens the page's socket, if there is to be one: where the owner says, or at the first free port of
/// the usual ones. Without a free one the box does without.
pub(super) fn listen_for_page(options: &Options) -> Result<Option<Async<TcpListener>>, Refusal> {
    let receive_bytes = options.board.sockets.receive_kib as usize * 1024;
    match options.web.at {
        WebAt::Off => Ok(None),
        WebAt::Here(address) => lobby::listen(address, receive_bytes).map(Some).map_err(|error| {
            let remedy = "name another address with --web ADDR:PORT, or --web off";
            Refusal::new(std::format!("--web {address}"), error, remedy)
        }),
        WebAt::Usual => {
            let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            let ip = options.listen.map_or(any, |address| address.ip());
            let listener = listen_at_first_free(ip, WEB_PORTS, receive_bytes);
            Ok(listener.inspect_err(|error| warn!("there is no page: {error}")).ok())
        }
    }
}

pub(super) fn cannot_listen(what: impl std::fmt::Display, error: io::Error) -> Refusal {
    Refusal::new(what, error, "name another address with --listen ADDR:PORT")
}

pub(in crate::service) fn no_signals(error: io::Error) -> Refusal {
    Refusal::new("signals", error, "look at the system's limits")
}

/// A lane that only looks up names.
pub(super) fn start_names(board: &Board) -> Result<Lanes, Refusal> {
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

pub(in crate::service) fn start_lanes(board: &Board) -> Result<Lanes, Refusal> {
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
            + WEB_JOBS
            + ODD_JOBS,
    };
    Lanes::start(sizes).map_err(no_threads)
}

pub(super) fn no_descriptors(error: io::Error) -> Refusal {
    Refusal::new("streams", error, "look at the system's limits")
}

pub(in crate::service) fn no_threads(error: io::Error) -> Refusal {
    Refusal::new("threads", error, "look at the system's limits")
}

/// Sees to it that the process may hold as many descriptors as the board needs.
pub(super) fn raise_descriptors(board: &Board) {
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

/// Where BitTorrent is looked for.
pub(super) const PORTS: RangeInclusive<u16> = 6881..=6889;

/// Where the page is, when nobody says.
const WEB_PORTS: RangeInclusive<u16> = 8080..=8089;

/// Jobs for bodies of the page's, at a time; more wait.
const WEB_JOBS: usize = 8;

/// How many may sleep at a time: whoever comes to the page waits for it, and for what it asks; and
/// other boxes are looked for.
fn sleepers(board: &Board) -> usize {
    let pools = &board.pools;
    SLEEPERS + usize::from(pools.web_seeds_max) + 2 * usize::from(pools.web_connections_max) + 4
}

/// An announce sleeps up to five times at once (two families, two bounds each, and the whole);
/// then accepting, dialling, discovery twice, stopping three times, what asks the router, the DHT's.
/// Each web seed sleeps once beside. A command of the owner's sleeps three times, and the pass as an
/// announce does; folders, links that failed, those found to fail, what is carried elsewhere and what
/// the last life left are waited for by one each, and a version on trial. A few are to spare: without a place the box ends.
const SLEEPERS: usize =
    5 * announcer::EXCHANGES_MAX + 3 * PLACES + 21 + portmap::SLEEPERS + dht::SLEEPERS;

/// A look at shared files, at a watched folder, at the mounts, some more of a copy, files to be made,
/// what commands have deleted, and a few to spare.
pub(super) const ODD_JOBS: usize = 12;
