//! A service's life: memory, state, sockets and tasks are made in this order, and end in reverse.
//!
//! ```text
//! board -> state folder (lock, journal) -> listener -> lanes -> shares (hash what is new)
//!       -> swarm in memory lent here -> tasks -> "ready" ... signal -> trackers told -> stopped
//! ```
//!
//! All memory whose size a board sets is allocated in [`live()`], once; the engine borrows it.

mod charge;
pub(super) mod make;
pub(super) mod take_in;

use crate::engine::peer::request::NO_REQUEST;
use crate::engine::swarm::SwarmMemory;
use crate::engine::swarm::fetch::link::Ask;
use crate::engine::swarm::fetch::unveil::Veil;
use crate::engine::swarm::fetch::{FetchMemory, Fetcher};
use crate::engine::swarm::pool::Pool;
use crate::engine::swarm::torrent::Torrent;
use crate::engine::units::{InfoHash, PeerSlot};
use crate::service::announcer::{self, Announcer};
use crate::service::archive::Archive;
use crate::service::config::Config;
use crate::service::confine::confine;
use crate::service::control::server::{self, PATIENCE_MS, PLACES, Socket};
use crate::service::fetch::magnet;
use crate::service::fetch::{self, Keeper};
use crate::service::grounds::Grounds;
use crate::service::lanes::Lanes;
use crate::service::notify::Notify;
use crate::service::options::{Opened, Options, open_all};
use crate::service::owner::{Owner, Page};
use crate::service::report::{Report, Totals};
use crate::service::rest::{self};
use crate::service::settings::Settings;
use crate::service::share::Workshop;
use crate::service::steward::Steward;
use crate::service::update::Slots;
use crate::service::webseed::{self};
use crate::service::{
    Refusal, Service, dht, discovery, grounds, live, lobby, pass, portmap, pump, scrub,
};
use async_io::Async;
use async_signal::{Signal, Signals};
use smol::LocalExecutor;
use smol::lock::Mutex;
use smol::stream::StreamExt;
use std::boxed::Box;
use std::cell::RefCell;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::vec::Vec;

use charge::Charge;
use make::{
    HashTable, cannot_listen, listen, listen_for_page, make_service, no_signals, raise_descriptors,
    start_lanes,
};
use take_in::{take_in, tell, withdraw};

/// Shares and fetches what is asked for, until a signal comes.
pub fn live(options: &Options, report: &mut Report, web: &Web) -> Result<(), Refusal> {
    live_with(options, None, report, web).map(|_| ())
}

/// Does what a configuration says, and what the owner says meanwhile, until somebody ends it.
/// `read` reads the configuration again.
pub fn run(
    config: Config,
    read: &dyn Fn() -> Result<Config, Refusal>,
    host: Host,
    report: &mut Report,
    web: &Web,
) -> Result<End, Refusal> {
    let mut options = config.options()?;
    if !confine(&options)? {
        options.keep_to.clear();
    }
    let charge = Charge::new(config, read, host);
    live_with(&options, Some(&charge), report, web)
}

/// What a box runs on.
#[derive(Default)]
pub struct Host {
    /// Who is told how it goes.
    pub notify: Notify,
    /// Its slots, if it was flashed.
    pub slots: Option<Arc<dyn Slots>>,
}

/// How a life has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody has ended it.
    Stopped,
    /// It has been updated: the machine is to start anew.
    Restart,
}

fn live_with(
    options: &Options,
    charge: Option<&Charge<'_>>,
    report: &mut Report,
    web: &Web,
) -> Result<End, Refusal> {
    let board = &options.board;
    if let Some(objection) = board.objection() {
        return Err(objection);
    }
    raise_descriptors(board);
    let archive = Archive::open(&options.state, board)?;
    let listener = listen(options)?;
    let page = listen_for_page(options)?;
    let (lanes, grounds) = (start_lanes(board)?, Grounds::start(board)?);
    smol::block_on(async {
        let heeded = [Signal::Int, Signal::Term, Signal::Hup];
        let heeded = if charge.is_some() { &heeded[..] } else { &heeded[..2] };
        let mut signals = Signals::new(heeded).map_err(no_signals)?;
        if charge.is_none() {
            archive.clear_away_strays().await;
        }
        grounds.look_first(&archive).await;
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
        let page = match page {
            None => None,
            Some(listener) => {
                let owner = archive.ask(|state| Owner::open(state.path())).await?;
                Some((listener, owner, web))
            }
        };
        let parts = Parts { listener, page, lanes, grounds, opened, charge };
        let (sent, end) = serve(options, report, parts, &keeper, &mut signals).await?;
        archive.ask(move |state| state.count_sent(&sent)).await.map(|()| end)
    })
}

/// Answers whoever comes to the page, for ever.
pub type Web = dyn for<'a, 's, 'm> Fn(
    &'a Steward<'s, 'm>,
    Async<TcpListener>,
) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What has been made before anything is served.
struct Parts<'c> {
    listener: Async<TcpListener>,
    page: Option<(Async<TcpListener>, Owner, &'c Web)>,
    lanes: Lanes,
    grounds: Grounds,
    opened: Opened,
    charge: Option<&'c Charge<'c>>,
}

/// Serves until a signal comes; bytes sent of each share, and how it has ended.
async fn serve(
    options: &Options,
    report: &Report,
    Parts { listener, page, lanes, grounds, opened, charge }: Parts<'_>,
    keeper: &Keeper<'_>,
    signals: &mut Signals,
) -> Result<(Vec<(InfoHash, u64)>, End), Refusal> {
    let (board, pools) = (&options.board, options.board.pools);
    let pumps = usize::from(board.pumps());
    let address = listener.get_ref().local_addr().map_err(|error| cannot_listen("", error))?;
    let mut torrents: Vec<Option<Torrent>> = (0..pools.seeding_max).map(|_| None).collect();
    let mut members: Vec<_> = (0..pumps).map(|_| None).collect();
    let mut nudged = std::vec![PeerSlot::default(); pumps];
    let mut bits = std::vec![0; Pool::lent_bytes(pools.bits_kib as usize * 1024)];
    let mut candidates = std::vec![None; pools.candidates_max as usize];
    let requests_each = usize::from(pools.requests_per_peer);
    let mut requests = std::vec![NO_REQUEST; pumps * requests_each];
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
    let service = make_service(options, address, dht_port, memory, fetcher, (lanes, grounds))?;
    service.swarm.borrow_mut().torrents_rest = options.all_that_is_known;
    let node = hash_table.open(&mut nodes, service.clock.now());
    let world = dht::OnService { service: &service, file: hash_table.file.clone() };
    let announcer = keeper.announcer;
    service.fetched.says_pieces.set(report.is_json());
    let mut told = Vec::with_capacity(opened.taken.len());
    for mut one in opened.taken {
        let (info_hash, made) = (one.share.info_hash, one.made.take());
        let taken_in = take_in(&service, keeper, one).await;
        if let (Err(_), Some(made)) = (&taken_in, made) {
            withdraw(&service, keeper, info_hash, made).await;
        }
        told.push(taken_in?);
    }
    for lead in opened.leads {
        magnet::seek(&service, keeper, lead).await?;
    }
    told.iter().for_each(|(slot, share)| tell(&service, *slot, share, options, report));
    let nodes_known = node.as_ref().map(|node| || node.contact_count(service.clock.now()));
    let (pages, page) = match page {
        None => (None, None),
        Some((listener, owner, web)) => {
            let at = listener.get_ref().local_addr();
            let at = at.map_err(|error| cannot_listen("the page", error))?;
            (
                Some((listener, web)),
                Some(Page { at, owner: RefCell::new(owner), turn: Mutex::new(()) }),
            )
        }
    };
    let nodes_known = nodes_known.as_ref().map(|count| count as _);
    let settings = Settings::open(keeper.archive.folder())?;
    let slots = charge.and_then(|charge| charge.slots.clone());
    let steward = Steward::new(&service, keeper, nodes_known, page, slots, settings);
    steward.heed_settings();
    let socket = match charge {
        None => None,
        Some(_) => Some(Socket::open(keeper.archive.folder(), PATIENCE_MS)?),
    };
    let exit = options.fetch.exit;
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
    executor.spawn(grounds::run(&steward)).detach();
    executor.spawn(discovery::run(&service, keeper)).detach();
    if options.map_port {
        executor.spawn(portmap::run(&service)).detach();
    }
    if let Some(node) = &node {
        executor.spawn(dht::run(&world, node)).detach();
        executor.spawn(dht::heed_peers(&world, node)).detach();
    }
    if options.all_that_is_known {
        let dht = node.as_ref().map(|node| (&world, node));
        executor.spawn(pass::run(&service, keeper, dht)).detach();
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
    if let (Some(socket), Some(charge)) = (&socket, charge) {
        for _ in 0..PLACES {
            executor.spawn(server::run(socket, &service.clock, &steward)).detach();
        }
        executor.spawn(charge.look_after(&steward)).detach();
        executor.spawn(steward.run_wanted()).detach();
        executor.spawn(steward.run_moves()).detach();
        executor.spawn(charge.watchdog(&service)).detach();
        executor.spawn(charge.look_back(&steward)).detach();
    }
    if let Some((listener, web)) = pages {
        executor.spawn(web(&steward, listener)).detach();
    }
    if let Some(page) = &steward.page {
        report.page(&steward.pages(), &page.owner.borrow());
    }
    report.ready(address);
    if let Some(charge) = charge {
        charge.notify.ready("on the air");
    }
    let leave_dht = async {
        if let Some(node) = &node {
            dht::stop(&world, node).await;
        }
    };
    let end = async {
        until_told(&service, &steward, charge, exit, signals).await;
        if let Some(charge) = charge {
            charge.notify.stopping();
        }
        stop(&service, announcer, leave_dht).await;
    };
    let end = executor.spawn(end);
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
    let sent = swarm.torrents().map(|(_, torrent)| (torrent.info_hash, torrent.sent_bytes));
    let end = if steward.restarts.get() { End::Restart } else { End::Stopped };
    Ok((sent.collect(), end))
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

/// Waits for a signal, the owner's word, or the end of what was to be fetched.
async fn until_told(
    service: &Service<'_>,
    steward: &Steward<'_, '_>,
    charge: Option<&Charge<'_>>,
    exit: bool,
    signals: &mut Signals,
) {
    let signal = async {
        while let Some(Ok(Signal::Hup)) = signals.next().await {
            if let Some(charge) = charge {
                charge.reload(steward);
            }
        }
    };
    let reload = async {
        loop {
            steward.reload.rung().await;
            if let Some(charge) = charge {
                charge.reload(steward);
            }
        }
    };
    let told = smol::future::or(steward.stop.rung(), reload);
    let signal = smol::future::or(signal, told);
    let complete = async {
        while !exit || !(service.fetched.is_done() || service.fetched.failure().is_some()) {
            service.fetched.settled.rung().await;
        }
    };
    smol::future::or(signal, complete).await;
}

/// Lets peers go and tells trackers and the router, within [`STOP_MS`].
async fn stop(service: &Service<'_>, announcer: &Announcer, leave_dht: impl Future<Output = ()>) {
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

/// Tasks run between two looks at the streams; a task that serves takes about 0.1 ms.
const TASKS_BETWEEN_LOOKS: usize = 32;

/// The reactor is looked at no less often than this while there is work; `async-io` waits 10 ms.
const REACTOR_PAUSE_MS: u64 = 4;

/// Peers and trackers are told within this, so that the whole stop takes less than 2 s.
const STOP_MS: u64 = 1_500;
