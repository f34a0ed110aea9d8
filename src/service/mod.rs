//! The service: sockets, files, threads and time for the engine, on smol.
//!
//! One thread runs everything that decides: one `LocalExecutor`, a fixed number of tasks, no
//! locks between them. What they share is in [`Service`]; it is borrowed for one call at a time
//! and never over an `.await`. What can sleep in the kernel runs on [`lanes`].
//!
//! | what | where |
//! | --- | --- |
//! | sizes | [`board`]; [`units`] as people write them |
//! | time | [`clock`]: one heap, one timer |
//! | connections | [`lobby`] (come in, go out), [`pump`] (one each), [`streams`] (what the kernel says of them), [`caps`], [`windows`] |
//! | bytes of content | [`disk`] (page cache), [`lanes`], [`buffers`] and [`content`] (everything else) |
//! | torrents at rest | [`rest`] (awake when somebody asks for them), [`pass`] (announced in turn) |
//! | shares | [`share`], [`walk`], [`draft`], [`known`]; [`archive`] with [`state`], [`flash_file`], [`shelf_file`] |
//! | shares for microcontrollers | [`image`] |
//! | peers to be found | [`announcer`], [`tracker`], [`http`], [`dht`], [`discovery`] over [`multicast`], [`lan`] |
//! | peers that come from outside | [`portmap`]: the router is asked to let them in |
//! | content from web servers | [`webseed`] |
//! | what the page above needs | [`handout`] (files), [`owner`] (who may change things), [`qr`] |
//! | files that change | [`scrub`] |
//! | the owner's word to a box that runs | [`control`], [`steward`] who does it |
//! | what is to be fetched, or put elsewhere | [`wanted`], [`moving`]: kept until it has been |
//! | folders whose entries become shares | [`house`], [`watch`], [`remembered`] over a restart |
//! | disks that come, go, fill up and fail | [`volume`], [`grounds`] who watches over them |
//! | a life from start to end | [`life`], [`options`], [`live`] |
//! | a flashed box becomes a newer one | [`update`] |
//! | what only the kernel can do, and `rustix` does not ask for | [`sys`] |
//! | what the kernel lets it reach, if its owner says so | [`confine`] |
//! | what `run` goes by, and what it tells systemd | [`config`], [`notify`], [`log_lines`] |

pub mod announcer;
pub mod archive;
pub mod board;
pub mod buffers;
pub mod caps;
pub mod clock;
pub mod config;
pub mod confine;
pub mod content;
pub mod control;
pub mod dht;
pub mod discovery;
pub mod disk;
pub mod draft;
pub mod fetch;
pub mod flash_file;
pub mod grounds;
pub mod handout;
pub mod house;
pub mod http;
pub mod image;
pub mod known;
pub mod lan;
pub mod lanes;
pub mod life;
pub mod live;
pub mod lobby;
pub mod log_lines;
pub mod moving;
pub mod multicast;
pub mod notify;
pub mod options;
pub mod owner;
pub mod pass;
pub mod portmap;
pub mod pump;
pub mod qr;
pub mod refusal;
pub mod remembered;
pub mod report;
pub mod rest;
pub mod scrub;
pub mod settings;
pub mod share;
pub mod shelf_file;
pub mod state;
pub mod steward;
pub mod store;
pub mod streams;
pub mod sys;
#[cfg(test)]
pub(crate) mod test_folder;
pub mod tracker;
pub mod units;
pub mod update;
pub mod volume;
pub mod walk;
pub mod wanted;
pub mod watch;
pub mod webseed;
pub mod windows;

pub use board::Board;
pub use content::Content;
pub use refusal::Refusal;

use crate::engine::swarm::fetch::Fetcher;
use crate::engine::swarm::fetch::store::{self as fetched, Verdict};
use crate::engine::units::{PeerSlot, TorrentSlot};
use caps::{CapOptions, Caps, Limit};
use clock::Clock;
use disk::Disk;
use lan::Lan;
use lanes::Lanes;
use lobby::Lobby;
use portmap::Portmap;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::vec::Vec;
use streams::Streams;
use windows::Windows;

/// What peers share, on a box that fetches.
pub type Swarm<'m> = crate::engine::swarm::Swarm<'m, Fetcher<'m>>;

/// What all tasks share.
pub struct Service<'m> {
    /// Time, and everybody's bell.
    pub clock: Clock,
    /// Threads for what may sleep.
    pub lanes: Lanes,
    /// A lane of its own for look-ups of names, which can sleep for very long.
    pub names: Lanes,
    /// The disks that content is on.
    pub grounds: grounds::Grounds,
    /// When something is next complained of.
    pub complain_after: Cell<crate::engine::units::Instant>,
    /// Open files and the serving scratch.
    pub disk: Disk,
    /// The connections' streams.
    pub streams: Streams,
    /// Where connections wait for a pump.
    pub lobby: Lobby,
    /// What peers share.
    pub swarm: RefCell<Swarm<'m>>,
    /// Where each active torrent's content is, by slot.
    pub contents: RefCell<Vec<Option<Arc<Content>>>>,
    /// Who asks for a torrent at rest.
    pub rest: rest::Rest,
    /// How far announces of those have come.
    pub pass: pass::Pass,
    /// Tells trackers that we are the same when our address changes.
    pub announce_key: u32,
    /// Who waits for a lane's buffer.
    pub line: buffers::Line,
    /// Torrents fetched at a time.
    pub fetching_max: usize,
    /// What has become of pieces that were fetched.
    pub fetched: fetch::Desk,
    /// Rung when a peer has told of a DHT node.
    pub dht_told: clock::Bell,
    /// How fast may be sent.
    pub up: Caps,
    /// How fast may be read.
    pub down: Caps,
    /// For whom that holds.
    pub caps: Cell<CapOptions>,
    /// Caps on some torrents alone.
    pub limits: RefCell<Vec<Limit>>,
    /// Web servers that have content of what is fetched.
    pub webseeds: webseed::WebSeeds,
    /// What one read from a socket is given.
    pub received: RefCell<Box<[u8]>>,
    /// Lanes' buffers in a row that were full before their time.
    pub full_in_a_row: Cell<u32>,
    /// Receive windows of connections.
    pub windows: Windows,
    /// `TCP_NOTSENT_LOWAT` of every connection.
    pub unsent_bytes: u32,
    /// Connections up to which we dial: some places are kept for those who come by themselves.
    pub dialled_max: u16,
    /// How others reach us from outside.
    pub portmap: Portmap,
    /// Where each standing duty is on the clock.
    pub duties: Duties,
    /// Peers from outside the house are refused.
    pub lan_only: bool,
    /// Where we listen; over IPv6 for any address, over IPv4 too.
    pub listen: SocketAddr,
    lan: RefCell<Lan>,
    lan_looked_ms: Cell<u64>,
}

/// Slots on the clock of what is always on duty, behind those of pumps and web seeds.
#[derive(Clone, Copy, Debug)]
pub struct Duties {
    /// Upload slots that go round.
    pub choke: usize,
    /// Candidates to dial.
    pub dials: usize,
    /// Trackers to tell: the first of as many slots as there are exchanges.
    pub announces: usize,
    /// The LAN to tell.
    pub discovery: usize,
    /// Files to look at.
    pub scrub: usize,
    /// The live line.
    pub report: usize,
    /// Pieces to be judged, recorded, and torrents to be completed.
    pub fetch: usize,
    /// Routers to ask: the first of as many slots as there are families.
    pub portmap: usize,
    /// Nodes of the distributed hash table.
    pub dht: usize,
    /// Torrents at rest to announce.
    pub pass: usize,
    /// Folders to look after.
    pub house: usize,
    /// Systemd, to be told that all is well.
    pub watchdog: usize,
    /// Disks to look at.
    pub grounds: usize,
}

impl Duties {
    /// The slots after those of links: of pumps and of web seeds.
    pub fn after(links: usize) -> Duties {
        let [
            choke,
            dials,
            discovery,
            scrub,
            report,
            fetch,
            dht,
            pass,
            house,
            watchdog,
            grounds,
            announces,
        ] = std::array::from_fn(|duty| links + duty);
        let portmap = announces + announcer::EXCHANGES_MAX;
        Duties {
            choke,
            dials,
            announces,
            discovery,
            scrub,
            report,
            fetch,
            portmap,
            dht,
            pass,
            house,
            watchdog,
            grounds,
        }
    }

    /// How many slots they take.
    pub const COUNT: usize = 11 + announcer::EXCHANGES_MAX + portmap::FAMILIES;
}

impl Service<'_> {
    /// Where an active torrent's content is.
    pub fn content(&self, torrent: TorrentSlot) -> Arc<Content> {
        let contents = self.contents.borrow();
        let content = contents[torrent.index()].as_ref();
        Arc::clone(content.expect("a torrent in use is active, and has content"))
    }

    /// Hands payload that a connection has gathered in `buffer` to a lane. Nothing when none of it
    /// is wanted any more. The receipt has to be asked once before it wakes anybody.
    pub fn store(
        &self,
        slot: PeerSlot,
        buffer: lanes::Buffer,
        stores: fetched::Stores,
    ) -> Option<lanes::Receipt> {
        let work = self.swarm.borrow_mut().fetcher.make_work(slot, stores);
        let Some(work) = work else {
            self.give_back(buffer);
            return None;
        };
        let content = self.content(work.torrent);
        let handed_over = self.lanes.submit(lanes::Job::Store { content, work, buffer });
        // There is a ticket for every buffer; without one the blocks are asked for again.
        handed_over.map_err(|job| self.handle_undone(job)).ok()
    }

    /// Has a lane do something, however long all of them are taken; `why` names the wait.
    pub async fn on_a_lane(&self, mut job: lanes::Job, why: &'static str) -> lanes::Done {
        loop {
            match self.lanes.submit(job) {
                Ok(receipt) => return receipt.await,
                Err(back) => job = back,
            }
            self.clock.sleep(BUSY_PAUSE_MS, why).await;
        }
    }

    /// Takes what a lane has done with payload.
    pub fn handle_done(&self, done: lanes::Done) {
        let lanes::Done::Store { buffer, done, error } = done else { return };
        self.give_back(buffer);
        let torrent = done.work.torrent;
        match error {
            Some(error) => self.fetched.note_trouble(self, torrent, &error),
            None => {
                let stores = done.work.stores.iter();
                let bytes = stores.map(|store| u64::from(store.length)).sum();
                if self.grounds.note_stored(&self.content(torrent), bytes) {
                    self.fetched.hold(self);
                }
            }
        }
        let mut swarm = self.swarm.borrow_mut();
        swarm.handle_done(done, |verdict| match verdict {
            Verdict::Verified(piece) => self.fetched.note_verified(self, torrent, piece),
            Verdict::Failed(piece, culprit) => {
                culprit.into_iter().for_each(|slot| self.webseeds.note_corrupt(slot));
                debug!("piece {} does not match its hash, sent by {culprit:?}", piece.0);
            }
        });
        drop(swarm);
        self.clock.ring(self.duties.fetch);
        self.ring_nudged();
    }

    /// Payload for which no lane has a place: its blocks are asked for again.
    pub fn handle_undone(&self, job: lanes::Job) {
        let lanes::Job::Store { work, buffer, .. } = job else { return };
        let done = fetched::Done { work, matched: heapless::Vec::new(), written: false };
        self.handle_done(lanes::Done::Store { buffer, done, error: None });
    }

    /// Rings every connection whose standing has changed, and sees to the next turn of slots and
    /// the next dial.
    pub fn ring_nudged(&self) {
        let mut swarm = self.swarm.borrow_mut();
        while let Some(slot) = swarm.take_nudged() {
            self.clock.ring(slot.index());
        }
        self.clock.ring_at(self.clock.slot(self.duties.choke), swarm.deadline());
        if swarm.candidates.take_sooner() {
            self.clock.ring(self.duties.dials);
        }
        if !swarm.fetcher.dht_nodes.is_empty() {
            self.dht_told.ring();
        }
    }

    /// Whether a peer at that address is wanted at all.
    pub fn admits(&self, ip: IpAddr) -> bool {
        !self.lan_only || self.lan().contains(ip)
    }

    /// The interfaces, looked at anew when the last look is old: addresses come and go.
    pub fn lan(&self) -> std::cell::Ref<'_, Lan> {
        let now = self.clock.now().as_millis();
        if now.saturating_sub(self.lan_looked_ms.get()) >= LAN_LOOK_MS {
            self.lan_looked_ms.set(now);
            *self.lan.borrow_mut() = Lan::look();
        }
        self.lan.borrow()
    }

    /// Says what goes wrong and may pass, once a minute: peers must not be able to fill a log.
    pub fn complain(&self, what: impl std::fmt::Display, error: &std::io::Error) {
        let now = self.clock.now();
        if now >= self.complain_after.get() {
            self.complain_after.set(now.after(COMPLAINT_PAUSE_MS));
            warn!("{what}: {error}; it is tried again");
        }
    }

    /// Lets upload slots go round, for ever.
    async fn run_choker(&self) {
        let slot = self.clock.slot(self.duties.choke);
        loop {
            let deadline = self.swarm.borrow().deadline();
            self.clock.wait(slot, deadline).await;
            self.swarm.borrow_mut().handle_time(self.clock.now());
            self.ring_nudged();
        }
    }
}

/// Between two complaints.
const COMPLAINT_PAUSE_MS: u64 = 60_000;

/// Before a lane is asked again when all of them were taken.
const BUSY_PAUSE_MS: u64 = 50;

/// A look at the interfaces is good for so long.
const LAN_LOOK_MS: u64 = 30_000;
