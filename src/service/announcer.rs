//! Announces: trackers are told that we are here, and say who else is.
//!
//! Each torrent's [`Schedule`] says when which tracker is due; up to [`EXCHANGES_MAX`] announces
//! are under way at a time, each with a buffer of its own, so that a tracker that does not answer
//! keeps nobody waiting. Peers become candidates of the swarm.
//!
//! Journey 3: `engine/announce/schedule` -> here -> `service/tracker` -> the swarm's candidates.

use super::Service;
use super::lanes::{Done, Job};
use super::tracker::{self, TrackerError, TrackerUrl, World};
use crate::engine::announce::schedule::{Due, Schedule};
use crate::engine::announce::{Announce, Answer, Event, Retry, TrackerId, is_private};
use crate::engine::units::{Deadline, InfoHash, Instant, TorrentSlot};
use smol::future;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::string::{String, ToString};
use std::vec::Vec;

/// Every torrent's trackers.
#[derive(Default)]
pub struct Announcer {
    torrents: RefCell<Vec<Announced>>,
    stopped: Cell<bool>,
    /// How many have been taken on, ever: each has its number.
    count: Cell<u64>,
}

/// Trackers of one torrent that are told in turn.
struct Announced {
    number: u64,
    torrent: TorrentSlot,
    schedule: Schedule,
    trackers: Vec<Known>,
    /// The owner named them: they may be in our own network.
    from_owner: bool,
    /// Bytes that are missing.
    left: u64,
    /// Tells trackers that we are the same when our address changes.
    key: u32,
}

struct Known {
    url: TrackerUrl,
    id: Option<TrackerId>,
    /// The last announce failed, and that has been said.
    failing: bool,
}

impl Announcer {
    /// Takes a torrent on, whose trackers are told from now on. Addresses we cannot speak to are
    /// passed over and said.
    /// `named` is the tier (BEP 12) and address of each; those of the owner, `from_owner`, may be
    /// in our own network.
    pub fn add<'t>(
        &self,
        service: &Service<'_>,
        torrent: TorrentSlot,
        named: impl Iterator<Item = (u8, &'t str)>,
        from_owner: bool,
        left: u64,
    ) {
        let (mut tiers, mut trackers) = (Vec::new(), Vec::new());
        for (tier, address) in named {
            match tracker::parse_tracker_url(address) {
                Ok(url) => {
                    tiers.push(tier);
                    trackers.push(Known { url, id: None, failing: false });
                }
                Err(error) => warn!("tracker {}: {error}", address.escape_debug()),
            }
        }
        let schedule = Schedule::new(tiers, random(), service.clock.now());
        let key = random();
        let number = self.count.get();
        self.count.set(number + 1);
        let one = Announced { number, torrent, schedule, trackers, from_owner, left, key };
        self.torrents.borrow_mut().push(one);
        ring_workers(service);
    }

    /// A torrent's trackers are told no more.
    pub fn remove(&self, torrent: TorrentSlot) {
        self.torrents.borrow_mut().retain(|one| one.torrent != torrent);
    }

    /// A torrent's trackers are told on a schedule of its own.
    pub fn tells_of(&self, torrent: TorrentSlot) -> bool {
        self.torrents.borrow().iter().any(|one| one.torrent == torrent)
    }

    fn with<T>(&self, number: u64, what: impl FnOnce(&mut Announced) -> T) -> Option<T> {
        let mut all = self.torrents.borrow_mut();
        all.iter_mut().find(|one| one.number == number).map(what)
    }

    /// A torrent that was fetched is whole: its trackers are told.
    pub fn complete(&self, service: &Service<'_>, torrent: TorrentSlot) {
        let now = service.clock.now();
        let mut all = self.torrents.borrow_mut();
        all.iter_mut()
            .filter(|one| one.torrent == torrent)
            .for_each(|one| one.schedule.complete(now));
        drop(all);
        ring_workers(service);
    }

    /// What became of asking a torrent's trackers, in words.
    pub fn tried(&self, torrent: TorrentSlot) -> String {
        let all = self.torrents.borrow();
        let known = all.iter().filter(|one| one.torrent == torrent).flat_map(|one| &one.trackers);
        let each: Vec<String> = known
            .map(|tracker| {
                let answer = if tracker.failing { "does not answer" } else { "knows nobody" };
                std::format!("{} {answer}", tracker.url)
            })
            .collect();
        if each.is_empty() { "none".into() } else { each.join(", ") }
    }

    /// What is known of a torrent's trackers.
    pub fn seen(&self, torrent: TorrentSlot) -> Vec<TrackerSeen> {
        let all = self.torrents.borrow();
        let known = all.iter().filter(|one| one.torrent == torrent).flat_map(|one| &one.trackers);
        let seen = known.map(|tracker| TrackerSeen {
            url: tracker.url.to_string(),
            error: tracker.failing.then(|| "does not answer".to_string()),
        });
        seen.collect()
    }

    /// When the next announce is due.
    fn deadline(&self) -> Deadline {
        let all = self.torrents.borrow();
        all.iter().fold(Deadline::NONE, |first, one| first.or(one.schedule.deadline()))
    }

    /// The next announce that is due, and which torrent's.
    fn take_due(&self, now: Instant) -> Option<(u64, Due)> {
        let mut all = self.torrents.borrow_mut();
        all.iter_mut().find_map(|one| Some((one.number, one.schedule.next(now)?)))
    }

    /// A tracker did not hear a goodbye in time.
    fn give_up(&self, number: u64, due: Due, now: Instant) {
        self.with(number, |one| one.schedule.handle_failure(due, Retry::Never, now));
    }

    /// Over once the box stops.
    async fn stopping(&self, service: &Service<'_>, worker: usize) {
        while !self.stopped.get() {
            service.clock.bell(service.clock.slot(service.duties.announces + worker)).rung().await;
        }
    }

    /// Nothing is left to say.
    fn is_over(&self) -> bool {
        self.torrents.borrow().iter().all(|one| one.schedule.is_over())
    }
}

/// Makes announces as they fall due, for ever. There are [`EXCHANGES_MAX`] of these.
pub async fn run(service: &Service<'_>, announcer: &Announcer, worker: usize) {
    let slot = service.clock.slot(service.duties.announces + worker);
    let mut buffer = std::vec![0; BUFFER_BYTES];
    loop {
        service.clock.wait(slot, announcer.deadline()).await;
        while let Some((number, due)) = announcer.take_due(service.clock.now()) {
            let told = tell(service, announcer, number, due, &mut buffer);
            if due.event == Event::Stopped {
                let late = service.clock.sleep(GOODBYE_MS, "a tracker's goodbye");
                if !future::or(
                    async {
                        told.await;
                        true
                    },
                    async {
                        late.await;
                        false
                    },
                )
                .await
                {
                    announcer.give_up(number, due, service.clock.now());
                }
            } else {
                // A tracker that does not answer must not keep others from hearing that we go.
                future::or(told, announcer.stopping(service, worker)).await;
            }
            ring_workers(service);
        }
    }
}

/// Tells every tracker that we are going; over when all have been told.
pub async fn stop(service: &Service<'_>, announcer: &Announcer) {
    announcer.stopped.set(true);
    announcer.torrents.borrow_mut().iter_mut().for_each(|one| one.schedule.stop());
    ring_workers(service);
    while !announcer.is_over() {
        service.clock.sleep(STOP_LOOK_MS, "the last announces").await;
    }
}

fn ring_workers(service: &Service<'_>) {
    for worker in 0..EXCHANGES_MAX {
        service.clock.ring(service.duties.announces + worker);
    }
}

async fn tell(
    service: &Service<'_>,
    announcer: &Announcer,
    number: u64,
    due: Due,
    buffer: &mut [u8],
) {
    let place = usize::from(due.tracker);
    let known = announcer.with(number, |one| {
        let known = &one.trackers[place];
        (one.torrent, known.url.clone(), one.from_owner, known.id.clone(), one.left, one.key)
    });
    let Some((torrent, url, from_owner, id, left, key)) = known else { return };
    let (info_hash, identity, uploaded) = {
        let swarm = service.swarm.borrow();
        let torrent = swarm.torrent(torrent);
        (torrent.info_hash, swarm.identity(), torrent.sent_bytes)
    };
    let announce = Announce {
        info_hash,
        peer_id: identity.peer_id,
        port: service.external_port(),
        uploaded,
        downloaded: service.fetched.fetched_bytes(torrent),
        left: service.fetched.left_bytes(torrent).unwrap_or(left),
        event: due.event,
        num_want: PEERS_WANTED,
        key,
        tracker_id: id.as_ref(),
    };
    let (world, mut found) = (OnService { service, from_owner }, 0u32);
    let mut note = |address: SocketAddr| {
        found += 1;
        // A stranger's tracker has no business sending us into our own network.
        let may_be = from_owner || !is_private(address.ip());
        // Its place may be another's by now.
        if may_be && announcer.with(number, |_| ()).is_some() {
            service.meet(torrent, address);
        }
    };
    let outcome = tracker::announce(&world, &url, &announce, buffer, &mut note).await;
    let now = service.clock.now();
    // It may have been laid down meanwhile.
    announcer.with(number, |one| one.handle(due, outcome, found, now));
}

impl Announced {
    /// What came of telling a tracker, which named so many peers.
    fn handle(
        &mut self,
        due: Due,
        outcome: Result<Answer, TrackerError>,
        found: u32,
        now: Instant,
    ) {
        let known = &mut self.trackers[usize::from(due.tracker)];
        let url = &known.url;
        match outcome {
            Ok(answer) => {
                if due.event == Event::Started || known.failing {
                    info!("tracker {url}: announced, {found} peers");
                }
                if let Some(warning) = &answer.warning {
                    warn!("tracker {url}: {warning}");
                }
                known.failing = false;
                known.id = answer.tracker_id.clone().or(known.id.take());
                self.schedule.handle_answer(due, &answer, now);
            }
            Err(error) => {
                if !known.failing && due.event != Event::Stopped {
                    warn!("tracker {url}: {error}");
                }
                known.failing = true;
                self.schedule.handle_failure(due, error.retry(), now);
            }
        }
    }
}

/// What is known of a tracker.
pub struct TrackerSeen {
    /// Its address.
    pub url: String,
    /// Why it is of no use now.
    pub error: Option<String>,
}

/// A torrent without a schedule of its own.
pub struct Resting {
    /// Its name.
    pub info_hash: InfoHash,
    /// Bytes of its content sent, ever.
    pub sent_bytes: u64,
}

/// Tells a tracker of a torrent that is whole and at rest; whether it has heard it. Nobody is asked
/// for. `from_owner`: the owner named it, so it may be in our own network.
pub async fn announce_once(
    service: &Service<'_>,
    resting: &Resting,
    address: &str,
    from_owner: bool,
    buffer: &mut [u8],
) -> bool {
    let Ok(url) = tracker::parse_tracker_url(address) else { return false };
    let announce = Announce {
        info_hash: resting.info_hash,
        peer_id: service.swarm.borrow().identity().peer_id,
        port: service.external_port(),
        uploaded: resting.sent_bytes,
        downloaded: 0,
        left: 0,
        event: Event::None,
        num_want: 0,
        key: service.announce_key,
        tracker_id: None,
    };
    let world = OnService { service, from_owner };
    let outcome = tracker::announce(&world, &url, &announce, buffer, &mut |_| {}).await;
    if let Err(error) = &outcome {
        debug!("tracker {url}: {error}");
    }
    outcome.is_ok()
}

impl Service<'_> {
    /// Takes note of somebody who may have or want a torrent; `true` when that is news.
    pub fn meet(&self, torrent: TorrentSlot, address: SocketAddr) -> bool {
        if !self.admits(address.ip().to_canonical()) {
            return false;
        }
        let now = self.clock.now();
        let news = self.swarm.borrow_mut().candidates.note(torrent, address, now);
        self.ring_nudged();
        news
    }

    /// The same of somebody who has just spoken on the LAN.
    pub fn hear(&self, torrent: TorrentSlot, address: SocketAddr) -> bool {
        let now = self.clock.now();
        let news = self.swarm.borrow_mut().candidates.hear(torrent, address, now);
        self.ring_nudged();
        news
    }

    /// Asks a lane for the addresses of a host.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.names.run(Job::Resolve { host: host.to_string(), port }).await {
            Some(Done::Resolve(found)) => found,
            _ => Err(io::Error::other("every lane is taken")),
        }
    }
}

/// What an announce needs of the service.
struct OnService<'a, 's> {
    service: &'a Service<'s>,
    from_owner: bool,
}

impl World for OnService<'_, '_> {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.service.resolve(host, port).await
    }

    async fn sleep(&self, ms: u64) {
        self.service.clock.sleep(ms, "a tracker's answer").await;
    }

    fn now(&self) -> Instant {
        self.service.clock.now()
    }

    fn random(&self) -> u32 {
        random()
    }

    fn admits(&self, address: &SocketAddr) -> bool {
        let listen = self.service.listen;
        let heard = if address.is_ipv6() {
            listen.is_ipv6()
        } else {
            listen.is_ipv4() || listen.ip().is_unspecified()
        };
        heard && (self.from_owner || !is_private(address.ip()))
    }
}

/// A random number that a stranger cannot guess.
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    // The kernel has randomness from boot on; on one that refuses, the process id must do.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => u32::from_le_bytes(bytes),
        _ => std::process::id(),
    }
}

/// Announces under way at a time.
pub const EXCHANGES_MAX: usize = 3;

/// What one answer may hold, over both families.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Addresses asked for.
const PEERS_WANTED: u16 = 50;

/// What a tracker is given to hear a goodbye: one that is away must not keep others from it.
const GOODBYE_MS: u64 = 450;

/// Between two looks whether the last announces are through.
const STOP_LOOK_MS: u64 = 20;
