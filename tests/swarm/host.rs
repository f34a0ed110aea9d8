//! One machine of ours: an engine that fetches and serves, its disk, its lanes and its uplink.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use perennial::engine::peer::request::Request;
use perennial::engine::swarm::fetch::link::Ask;
use perennial::engine::swarm::fetch::store::{Done, Verdict, Work};
use perennial::engine::swarm::fetch::unveil::Veil;
use perennial::engine::swarm::fetch::{FetchFull, FetchMemory, Fetcher, Fetching, Order};
use perennial::engine::swarm::pool::Pool;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::swarm::{Identity, Swarm, SwarmLimits, SwarmMemory};
use perennial::engine::units::{InfoHash, Instant, PeerId, PeerSlot, TorrentSlot};

use crate::content::{Content, Disk};
use crate::prng::Prng;
use crate::pump::{Desk, Pump};

/// The numbers of a board that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    pub peers_max: u16,
    pub unchoked_max: u16,
    pub requests_per_peer: u16,
    pub asks_per_peer: u16,
    pub partials_max: usize,
    pub pool_bytes: usize,
    pub lanes: usize,
    pub lane_buffers: usize,
    pub lane_buffer_bytes: usize,
    /// A lane takes up to so long.
    pub lane_ms: u32,
    /// One job in so many cannot be written; 0 for none.
    pub fails_one_in: u32,
    pub order: Order,
}

impl Board {
    /// Room for every scenario that is not about limits.
    pub const ROOMY: Board = Board {
        peers_max: 50,
        unchoked_max: 50,
        requests_per_peer: 128,
        asks_per_peer: 64,
        partials_max: 64,
        pool_bytes: 64 << 10,
        lanes: 2,
        lane_buffers: 16,
        lane_buffer_bytes: 260 << 10,
        lane_ms: 10,
        fails_one_in: 0,
        order: Order::Rarest,
    };
}

/// What a lane has.
pub struct Job {
    pub slot: Option<PeerSlot>,
    state: JobState,
}

enum JobState {
    /// It is written when it is due.
    Late(Work, Vec<u8>),
    /// It has been written; the answer is on its way.
    Early(Done),
    Failed(Work),
}

/// What passes on what a host sends, a segment of each connection in turn.
pub struct Uplink {
    pub bytes_per_s: u64,
    pub busy_until_us: u64,
    pub next: usize,
}

/// See the module.
pub struct Host {
    pub swarm: Swarm<'static, Fetcher<'static>>,
    pub torrent: TorrentSlot,
    pub desk: Desk,
    pub board: Board,
    pub address: SocketAddr,
    pub pumps: Vec<Option<Pump>>,
    pub jobs: Vec<Option<Job>>,
    pub verifying: usize,
    pub uplink: Option<Uplink>,
    /// Every wire it has an end of, with that end.
    pub wires: Vec<usize>,
    pub choke_at: Instant,
    pub resume_at: Instant,
    /// When it had everything.
    pub whole_at: Option<Instant>,
    pub failed_count: u32,
    /// Who were found to be the only senders of bad pieces.
    pub culprits: Vec<SocketAddr>,
    /// Bytes of the pool that are free when nobody is connected and nothing has come.
    pub received_bytes: u64,
    pub wasted_bytes: u64,
    pub prng: Prng,
    free_at_start: usize,
}

impl Host {
    /// A host that has some pieces, and wants the others.
    pub fn new(
        number: usize,
        board: Board,
        content: &Rc<Content>,
        has: impl Fn(u32) -> bool,
        seed: u64,
    ) -> Host {
        let mut prng = Prng::new(seed);
        let slots = usize::from(board.peers_max) + 2;
        let count = content.piece_count();
        let fetcher = Fetcher::new(FetchMemory {
            fetches: lend_each(1, || None),
            partials: lend_each(board.partials_max, || None),
            links: lend_each(slots, || None),
            asks: lend_each(slots * usize::from(board.asks_per_peer), Ask::default),
            veils: lend_each(slots, Veil::default),
            pool: lend_each(board.pool_bytes, || 0),
        });
        let memory = SwarmMemory {
            torrents: lend_each(1, || None),
            members: lend_each(slots, || None),
            nudged: lend_each(slots, || PeerSlot(0)),
            bits: lend_each(Pool::lent_bytes(content.layout.bitfield_bytes() as usize), || 0),
            candidates: lend_each(1, || None),
        };
        let limits = SwarmLimits {
            peers_max: board.peers_max,
            unchoked_max: board.unchoked_max,
            per_address_max: board.peers_max,
        };
        let mut peer_id = *b"-PN0100-swarm.......";
        peer_id[16..].copy_from_slice(&(number as u32).to_be_bytes());
        let identity = Identity {
            peer_id: PeerId(peer_id),
            listen_port: 6_881,
            requests_max: board.requests_per_peer,
            exchanges: false,
            dht_port: 0,
        };
        let mut swarm = Swarm::with_fetcher(memory, limits, identity, fetcher);
        let disk = Disk::new(content, has);
        let have = if disk.is_whole() {
            Have::All
        } else {
            let span = swarm.take_bits(count).expect("a bit for each piece");
            (0..count).filter(|piece| disk.has(*piece)).for_each(|p| swarm.set_bit(span, p));
            Have::Some(span)
        };
        let torrent = swarm.activate(Torrent {
            info_hash: InfoHash::V1(content.info_hash),
            layout: content.layout,
            metadata_bytes: 40_000,
            have,
            private: false,
            sent_bytes: 0,
        });
        let torrent = torrent.expect("there is one place");
        let free_at_start = free_bytes(&mut swarm, torrent);
        let lacking = swarm.begin_fetch(torrent, |_| true, board.order, prng.next_u32());
        assert_eq!(lacking, Ok(count - disk.verified_count), "room for what it lacks");
        let desk = Desk {
            disk,
            buffer_bytes: board.lane_buffer_bytes,
            buffers_free: board.lane_buffers,
            hungry: VecDeque::new(),
            submitted: Vec::new(),
            first_sent: None,
            sent_bytes: 0,
        };
        Host {
            swarm,
            torrent,
            desk,
            board,
            address: SocketAddr::from(([10, 1, (number / 250) as u8, (number % 250) as u8], 6_881)),
            pumps: (0..slots).map(|_| None).collect(),
            jobs: Vec::new(),
            verifying: 0,
            uplink: None,
            wires: Vec::new(),
            choke_at: Instant::NEVER,
            resume_at: Instant::NEVER,
            whole_at: None,
            failed_count: 0,
            culprits: Vec::new(),
            received_bytes: 0,
            wasted_bytes: 0,
            prng,
            free_at_start,
        }
    }

    pub fn is_whole(&self) -> bool {
        self.desk.disk.is_whole()
    }

    pub fn free_slot(&self) -> Option<PeerSlot> {
        self.pumps.iter().position(Option::is_none).map(|slot| PeerSlot(slot as u16))
    }

    /// Room for the requests of one connection.
    pub fn requests(&self) -> &'static mut [Request] {
        lend_each(self.board.requests_per_peer.into(), Request::default)
    }

    /// Gives what was submitted to lanes, and whole pieces that were not hashed along; jobs that
    /// are new are told to `schedule`.
    pub fn give_to_lanes(&mut self, now: Instant, mut schedule: impl FnMut(usize, Instant)) {
        while self.verifying < self.board.lanes {
            let Some(work) = self.swarm.fetcher.take_verify() else { break };
            self.verifying += 1;
            self.desk.submitted.push((None, work, Vec::new()));
        }
        for (slot, work, buffer) in std::mem::take(&mut self.desk.submitted) {
            let fails = self.board.fails_one_in;
            let state = if fails > 0 && self.prng.one_in(fails) {
                JobState::Failed(work)
            } else if self.prng.one_in(2) {
                JobState::Early(self.desk.disk.run(work, &buffer))
            } else {
                JobState::Late(work, buffer)
            };
            let done_at = now.after(u64::from(self.prng.below(self.board.lane_ms + 1)));
            let place = self.jobs.iter().position(Option::is_none).unwrap_or(self.jobs.len());
            if place == self.jobs.len() {
                self.jobs.push(None);
            }
            self.jobs[place] = Some(Job { slot, state });
            schedule(place, done_at);
        }
    }

    /// A lane is done. Whose payload it was.
    pub fn handle_lane(&mut self, place: usize, now: Instant) -> Option<PeerSlot> {
        let job = self.jobs[place].take().expect("a job that was scheduled");
        let (done, failed) = match job.state {
            JobState::Early(done) => (done, false),
            JobState::Late(work, buffer) => (self.desk.disk.run(work, &buffer), false),
            JobState::Failed(work) => {
                (Done { work, matched: heapless::Vec::new(), written: false }, true)
            }
        };
        match job.slot {
            Some(_) => self.desk.buffers_free += 1,
            None => self.verifying -= 1,
        }
        if failed {
            // As the service does: it pauses and is tried again.
            self.swarm.fetcher.pause(self.torrent, true);
            self.resume_at = now.after(TROUBLE_MS);
        }
        let before = self.swarm.fetcher.standing(self.torrent);
        let (mut failed_pieces, mut culprits) = (0, Vec::new());
        let disk = &mut self.desk.disk;
        self.swarm.handle_done(done, |verdict| match verdict {
            Verdict::Verified(piece) => disk.verify(piece.0),
            Verdict::Failed(_, culprit) => {
                failed_pieces += 1;
                culprits.extend(culprit);
            }
        });
        self.failed_count += failed_pieces;
        for culprit in culprits {
            let member = self.swarm.member(culprit).expect("a culprit is still here");
            self.culprits.push(member.address);
        }
        if let Some(standing) = self.swarm.fetcher.standing(self.torrent).or(before) {
            self.received_bytes = standing.received_bytes;
            self.wasted_bytes = standing.wasted_bytes;
        }
        if self.is_whole() && self.whole_at.is_none() {
            self.whole_at = Some(now);
            assert!(!self.swarm.fetcher.is_fetched(self.torrent), "nothing is lacking any more");
        }
        job.slot
    }

    /// Nobody is connected, nothing is with a lane and nothing is lacking: the pool is as it was.
    pub fn check_nothing_leaked(&mut self) {
        assert!(self.pumps.iter().all(Option::is_none) && self.jobs.iter().all(Option::is_none));
        assert_eq!(self.desk.buffers_free, self.board.lane_buffers, "buffers of lanes");
        assert!(self.is_whole());
        // An origin remembers what it has given out.
        if self.whole_at.is_some() {
            assert_eq!(free_bytes(&mut self.swarm, self.torrent), self.free_at_start, "the pool");
        }
    }
}

/// What the fetcher says is free when it is asked for more than there is.
fn free_bytes(swarm: &mut Swarm<'static, Fetcher<'static>>, torrent: TorrentSlot) -> usize {
    let mut layout = swarm.torrent(torrent).layout;
    layout.total_bytes = u64::from(layout.piece_bytes) << 22;
    match swarm.fetcher.begin(torrent, layout, |_| true, Order::Rarest, 1) {
        Err(FetchFull::Pool { free_bytes, .. }) => free_bytes as usize,
        other => panic!("there is no room for so much: {other:?}"),
    }
}

/// Lent for good: a test's process is short.
fn lend_each<T>(count: usize, value: impl Fn() -> T) -> &'static mut [T] {
    let all: Vec<T> = (0..count).map(|_| value()).collect();
    all.leak()
}

/// After something could not be written, before it is tried again.
const TROUBLE_MS: u64 = 10_000;
