//! Web seeds: web servers that have content of what is fetched (BEP 19).
//!
//! A torrent names some, and so may the owner. Each is a source beside peers: a task here takes one
//! on, the engine says which bytes it is to bring, and what comes goes to lanes as peers' payload
//! does. One connection a server at a time; there are as many tasks as the board's `web_seeds_max`,
//! and with more servers than that they take turns.
//!
//! ```text
//! take ──> engine: begin_run ──> bring: GET, a range of each file ──> lanes ──> verified
//!  ^                                        |
//!  └── later, or never again ───────────────┘ why, said once
//! ```
//!
//! A URL from a torrent is a stranger's: it leads to no machine in the house (see
//! [`follow`](super::http::follow)), unless the box fetches for the house only. One from the command
//! line may.
//!
//! - [`address`]: what a server calls the files of a torrent
//! - `bring`: bytes on their way from a server to a lane

pub mod address;
mod bring;

use super::http::follow::{HttpUrl, parse_http_url};
use super::{Content, Refusal, Service};
use crate::engine::metainfo::web_seeds::WEB_SEEDS_MAX;
use crate::engine::swarm::fetch::Fetching;
use crate::engine::units::{Deadline, Instant, PeerSlot, TorrentSlot};
use address::OnTheWeb;
use bring::Bringer;
use std::cell::{Cell, RefCell};
use std::string::String;
use std::vec::Vec;

/// All that are known. See the module.
pub struct WebSeeds {
    /// The link of the first task; those of the others follow.
    first: u16,
    seeds: RefCell<Vec<Seed>>,
    /// For each task: what it brought did not match.
    corrupt: Vec<Cell<bool>>,
}

struct Seed {
    torrent: TorrentSlot,
    /// The torrent's own URL there.
    url: HttpUrl,
    /// The owner named it.
    named: bool,
    /// The task that fetches from it.
    taken: Option<PeerSlot>,
    /// Not before.
    again_at: Instant,
    /// Times in a row that it failed.
    failures: u32,
    /// It has brought something.
    used: bool,
}

/// A seed that has been taken on.
struct Visit {
    torrent: TorrentSlot,
    url: HttpUrl,
    named: bool,
}

/// How a visit ended.
enum End {
    /// The torrent lacks nothing any more.
    Over,
    /// There is nothing to bring for now, and others wait for a task.
    Idle,
    /// It failed; what is wrong, as a sentence's end.
    Later(String),
    /// It will fail again; what is wrong, as a sentence's end.
    Never(String),
}

/// Says what is wrong with a URL that the owner gave.
pub fn check_url(url: &str) -> Result<(), Refusal> {
    let wrong = |what| Refusal::new(std::format!("--web-seed {url}"), what, "give an http URL");
    parse_http_url(url).map(drop).map_err(wrong)
}

impl WebSeeds {
    /// None yet, and tasks for `count` of them, on links from `first` on.
    pub fn new(first: u16, count: u16) -> WebSeeds {
        let corrupt = (0..count).map(|_| Cell::new(false)).collect();
        WebSeeds { first, seeds: RefCell::default(), corrupt }
    }

    /// Takes note of the web seeds a torrent names, and of `others`, each with whether the owner
    /// named it. Reads the `.torrent`: that may sleep.
    pub fn add_all<'u>(
        &self,
        service: &Service<'_>,
        torrent: TorrentSlot,
        content: &Content,
        others: impl Iterator<Item = (&'u str, bool)>,
    ) {
        let found = match OnTheWeb::read(content) {
            Ok(found) => found,
            Err(error) => return warn!("{}: its web seeds: {error}", content.root.display()),
        };
        others.for_each(|(url, named)| self.add(torrent, &found, url, named));
        found.urls.iter().for_each(|url| self.add(torrent, &found, url, false));
        for slot in (self.first..).take(self.corrupt.len()) {
            service.clock.ring(slot.into());
        }
    }

    /// Takes note of one web seed, which the owner `named` or somebody else.
    ///
    /// # When full
    /// Those beyond [`WEB_SEEDS_MAX`] of a torrent are passed over.
    fn add(&self, torrent: TorrentSlot, of: &OnTheWeb, url: &str, named: bool) {
        let at = parse_http_url(url).map(|url| of.at(&url));
        let at = match at {
            Ok(Some(at)) => at,
            Ok(None) => return debug!("web seed {url}: too long with a name behind it"),
            // BEP 19: what cannot be spoken is ignored.
            Err(what) => return debug!("web seed {url}: {what}"),
        };
        let mut seeds = self.seeds.borrow_mut();
        let known = seeds.iter().filter(|seed| seed.torrent == torrent);
        let is_known = known.clone().any(|seed| seed.url == at);
        if self.corrupt.is_empty() || is_known || known.count() >= WEB_SEEDS_MAX {
            return debug!("web seed {at}: is passed over");
        }
        seeds.push(Seed {
            torrent,
            url: at,
            named,
            taken: None,
            again_at: Instant::default(),
            failures: 0,
            used: false,
        });
    }

    /// What a link brought did not match its hash. Links of peers are none of ours.
    pub fn note_corrupt(&self, slot: PeerSlot) {
        let task = slot.0.checked_sub(self.first).and_then(|at| self.corrupt.get(usize::from(at)));
        task.into_iter().for_each(|corrupt| corrupt.set(true));
    }

    /// A torrent's place may be another's: its seeds are forgotten.
    pub fn forget(&self, torrent: TorrentSlot) {
        self.seeds.borrow_mut().retain(|seed| seed.torrent != torrent);
    }

    /// Something of a torrent is being brought.
    pub fn is_visited(&self, torrent: TorrentSlot) -> bool {
        let seeds = self.seeds.borrow();
        seeds.iter().any(|seed| seed.torrent == torrent && seed.taken.is_some())
    }

    fn is_corrupt(&self, slot: PeerSlot) -> bool {
        self.corrupt[usize::from(slot.0 - self.first)].get()
    }

    /// A seed for a task: of a torrent that few others fetch, the one that has rested the longest.
    fn take(&self, service: &Service<'_>, slot: PeerSlot) -> Option<Visit> {
        let (swarm, now) = (service.swarm.borrow(), service.clock.now());
        let mut seeds = self.seeds.borrow_mut();
        seeds.retain(|seed| seed.taken.is_some() || swarm.fetcher.is_fetched(seed.torrent));
        let others = |torrent| {
            let taken = |seed: &&Seed| seed.torrent == torrent && seed.taken.is_some();
            seeds.iter().filter(taken).count()
        };
        let due = |seed: &Seed| seed.taken.is_none() && seed.again_at <= now;
        let numbered = seeds.iter().enumerate().filter(|(_, seed)| due(seed));
        let (_, _, at) =
            numbered.map(|(at, seed)| (others(seed.torrent), seed.again_at, at)).min()?;
        let seed = &mut seeds[at];
        seed.taken = Some(slot);
        self.corrupt[usize::from(slot.0 - self.first)].set(false);
        Some(Visit { torrent: seed.torrent, url: seed.url.clone(), named: seed.named })
    }

    /// When a seed is next due for a task.
    fn deadline(&self) -> Deadline {
        let seeds = self.seeds.borrow();
        let free = seeds.iter().filter(|seed| seed.taken.is_none());
        let at = free.map(|seed| seed.again_at).min();
        at.map_or(Deadline::NONE, |at| Deadline { at, why: "a web seed to try again" })
    }

    /// A seed has brought something.
    fn note_good(&self, slot: PeerSlot) {
        let mut seeds = self.seeds.borrow_mut();
        let Some(seed) = seeds.iter_mut().find(|seed| seed.taken == Some(slot)) else { return };
        seed.failures = 0;
        if !seed.used {
            seed.used = true;
            info!("web seed {}: is fetched from", seed.url);
        }
    }

    /// A task is done with its seed for now, or for good.
    fn give_back(&self, slot: PeerSlot, end: &End, now: Instant) {
        let mut seeds = self.seeds.borrow_mut();
        let Some(at) = seeds.iter().position(|seed| seed.taken == Some(slot)) else { return };
        let seed = &mut seeds[at];
        seed.taken = None;
        match end {
            End::Over => drop(seeds.swap_remove(at)),
            End::Idle => seed.again_at = now.after(TURN_MS),
            End::Later(what) => {
                if seed.failures == 0 {
                    warn!("web seed {}: {what}; it is tried again", seed.url);
                }
                seed.again_at = now.after((RETRY_MS << seed.failures.min(16)).min(RETRY_MS_MAX));
                seed.failures += 1;
            }
            End::Never(what) => {
                warn!("web seed {}: {what}; it is not used any more", seed.url);
                seeds.swap_remove(at);
            }
        }
    }
}

/// Fetches from one web seed after the other, for ever. There are `web_seeds_max` of these.
pub async fn run(service: &Service<'_>, slot: PeerSlot) {
    let seeds = &service.webseeds;
    let mut bringer = Bringer::new(service, slot);
    loop {
        match seeds.take(service, slot) {
            None => {
                service.clock.wait(service.clock.slot(slot.index()), seeds.deadline()).await;
            }
            Some(visit) => {
                let end = bringer.visit(&visit).await;
                seeds.give_back(slot, &end, service.clock.now());
            }
        }
    }
}

/// What the kernel takes in for a web seed ahead of us. Over a way of 50 ms it is 5 MiB a second.
pub const WINDOW_BYTES: usize = 256 * 1024;

/// With nothing to bring, a seed makes room for others for so long.
const TURN_MS: u64 = 5_000;

/// After a failure, before it is tried again; twice as long each time,
const RETRY_MS: u64 = 2_000;

/// but no longer than this.
const RETRY_MS_MAX: u64 = 600_000;
