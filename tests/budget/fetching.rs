//! A torrent fetched from three peers, one of which lies, counted: not one allocation.
//!
//! Its content is zeros, so that any block can be said without being looked up; the driver works on
//! the stack.

use perennial::engine::digest::PieceHasher;
use perennial::engine::limits::SNUB_MS;
use perennial::engine::metainfo::Layout;
use perennial::engine::peer::request::Request;
use perennial::engine::peer::{Output, Peer};
use perennial::engine::swarm::fetch::link::Ask;
use perennial::engine::swarm::fetch::store::{Done, Stores, Verdict, Work};
use perennial::engine::swarm::fetch::unveil::Veil;
use perennial::engine::swarm::fetch::{FetchMemory, Fetcher, Fetching, Order};
use perennial::engine::swarm::pool::Pool;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::swarm::{Identity, Swarm, SwarmLimits, SwarmMemory};
use perennial::engine::units::{InfoHash, Instant, PeerId, PeerSlot};

use crate::count_alloc::allocations_of;
use crate::fake_peer::{self as say, Speaks};

const INFO_HASH: [u8; 20] = [9; 20];
const LAYOUT: Layout = Layout { total_bytes: 64 * (64 << 10) - 100, piece_bytes: 64 << 10 };
const PEERS: usize = 3;
const REQUESTS: usize = 16;
/// The peer that lies, as long as it is let in.
const LIAR: usize = 1;
/// The peer that seldom answers, and has not everything.
const SLOW: usize = 2;

/// What was seen to happen.
#[derive(Debug, Default)]
struct Seen {
    jobs: u32,
    asked: u32,
    cancelled: u32,
    haves: u32,
    verified: u32,
    failed: u32,
    guilty: u32,
    read_back: u32,
    unwritten: u32,
    late: bool,
    gone: u32,
}

/// What a peer has been asked for and has not sent.
type Waiting = heapless::Deque<(u32, u32, u32), 64>;

struct Evening<'m> {
    swarm: Swarm<'m, Fetcher<'m>>,
    now: Instant,
    expected: [[u8; 20]; 2],
    seen: Seen,
    buffer: [u8; 20 << 10],
    held: Option<Work>,
}

impl Evening<'_> {
    /// Hands in what a peer says, and to a lane what of it is payload.
    fn hear(&mut self, peer: &mut Peer<'_>, slot: PeerSlot, length: usize) -> Option<()> {
        let heard = peer.handle_received(&self.buffer[..length], self.now, &mut self.swarm);
        let mut stores = Stores::new();
        self.swarm.fetcher.take_stores(slot, 0, &mut stores);
        if heard.is_err() {
            self.swarm.fetcher.drop_stores(slot, stores);
            return None;
        }
        let work = self.swarm.fetcher.make_work(slot, stores);
        // A lane is slow with what the slow one sends: others write to the same piece meanwhile.
        match work {
            Some(work) if slot.index() == SLOW => self.held = Some(work),
            Some(work) => self.run(work, slot.index() == LIAR),
            None => return None,
        }
        self.judge();
        Some(())
    }

    /// Pieces that are whole and were not hashed along.
    fn judge(&mut self) {
        while let Some(work) = self.swarm.fetcher.take_verify() {
            self.seen.read_back += 1;
            self.run(work, false);
        }
    }

    /// What a lane does: the disk holds zeros wherever the liar has not been.
    fn run(&mut self, mut work: Work, of_liar: bool) {
        let mut matched = heapless::Vec::new();
        self.seen.jobs += 1;
        let written = !self.seen.jobs.is_multiple_of(50);
        self.seen.unwritten += u32::from(!written);
        for hashing in &mut work.hashings {
            let zeros = [0; 1 << 10];
            let mut left = hashing.upto - hashing.from;
            while left > 0 {
                let part = left.min(zeros.len() as u32);
                hashing.hasher.update(&zeros[..part as usize]);
                left -= part;
            }
            if of_liar {
                hashing.hasher.update(&[1]);
            }
            let last = hashing.piece.0 + 1 == LAYOUT.piece_count();
            let expected = self.expected[usize::from(last)];
            let judged = hashing.whole.then(|| hashing.hasher.finish() == expected);
            let _ = matched.push(judged.filter(|_| written));
        }
        self.swarm.handle_done(Done { work, matched, written }, |verdict| match verdict {
            Verdict::Verified(_) => self.seen.verified += 1,
            Verdict::Failed(_, culprit) => {
                self.seen.failed += 1;
                self.seen.guilty += u32::from(culprit.is_some());
            }
        });
    }

    /// Does what the peer wants done; `false` when it is over.
    fn drain(&mut self, peer: &mut Peer<'_>, waiting: &mut Waiting) -> bool {
        loop {
            let sent = match peer.poll_output(self.now, &mut self.swarm) {
                Output::Wait(_) => return true,
                Output::Close(_) => return false,
                Output::Serve(serving) => panic!("nobody asks: {serving:?}"),
                Output::Bytes(bytes) => {
                    self.read_wishes(bytes, waiting);
                    bytes.len()
                }
            };
            peer.handle_sent(sent, self.now, &mut self.swarm);
        }
    }

    fn read_wishes(&mut self, mut bytes: &[u8], waiting: &mut Waiting) {
        if bytes.starts_with(b"\x13BitTorrent") {
            bytes = &bytes[68..];
        }
        let number = |bytes: &[u8], at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        while !bytes.is_empty() {
            let (message, rest) = bytes.split_at(4 + number(bytes, 0) as usize);
            bytes = rest;
            match message.get(4) {
                Some(4) => self.seen.haves += 1,
                Some(6) => {
                    self.seen.asked += 1;
                    let wanted = (number(message, 5), number(message, 9), number(message, 13));
                    waiting.push_back(wanted).expect("no more than it may");
                }
                Some(8) => self.seen.cancelled += 1,
                _ => {}
            }
        }
    }

    /// Sends what was asked for first.
    fn answer(&mut self, at: usize, peer: &mut Peer<'_>, waiting: &mut Waiting) {
        let Some((piece, begin, length)) = waiting.pop_front() else { return };
        self.buffer[..4].copy_from_slice(&(9 + length).to_be_bytes());
        self.buffer[4] = 7;
        self.buffer[5..9].copy_from_slice(&piece.to_be_bytes());
        self.buffer[9..13].copy_from_slice(&begin.to_be_bytes());
        let end = 13 + length as usize;
        self.buffer[13..end].fill(u8::from(at == LIAR));
        self.hear(peer, PeerSlot(at as u16), end);
    }

    /// Everybody is asked and answers, the last one seldom, until all is there.
    fn pass(&mut self, peers: &mut [Peer<'_>; PEERS], greetings: &[Vec<u8>]) {
        let mut waiting = [const { Waiting::new() }; PEERS];
        let mut here = [true; PEERS];
        for (at, greeting) in greetings.iter().enumerate() {
            self.buffer[..greeting.len()].copy_from_slice(greeting);
            self.hear(&mut peers[at], PeerSlot(at as u16), greeting.len());
        }
        for round in 0..2_000 {
            self.now = self.now.after(20);
            if round == 100 {
                // Nobody says anything for a while.
                self.now = self.now.after(SNUB_MS);
                self.seen.late = true;
            }
            while self.swarm.take_nudged().is_some() {}
            if round % 10 == 9
                && let Some(work) = self.held.take()
            {
                self.run(work, false);
                self.judge();
            }
            for at in 0..PEERS {
                if !here[at] {
                    continue;
                }
                if at != SLOW || self.held.is_none() {
                    self.answer(at, &mut peers[at], &mut waiting[at]);
                }
                here[at] = self.drain(&mut peers[at], &mut waiting[at]);
                if !here[at] {
                    self.seen.gone += 1;
                    self.swarm.leave(PeerSlot(at as u16), self.now);
                }
            }
        }
    }
}

#[test]
fn a_whole_torrent_is_fetched_without_allocating() {
    let speaks = [Speaks::ALL, Speaks::ALL, Speaks::PLAIN];
    let bits = [0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff];
    let greetings: Vec<Vec<u8>> = (0..PEERS)
        .map(|at| {
            let mut bytes = say::handshake(INFO_HASH, [at as u8; 20], speaks[at]);
            bytes.extend(if at == SLOW { say::bitfield(&bits) } else { say::have_all() });
            bytes.extend(say::unchoke());
            bytes
        })
        .collect();
    let expected = [64 << 10, (64 << 10) - 100].map(|length| {
        let mut hasher = PieceHasher::default();
        hasher.update(&vec![0; length]);
        hasher.finish()
    });
    let mut torrents = [None];
    let mut members = [const { None }; PEERS];
    let mut nudged = [PeerSlot(0); PEERS];
    let mut bits = [0; Pool::lent_bytes(64)];
    let mut candidates = [None; 4];
    let mut fetches = [const { None }];
    let mut partials = [const { None }; 8];
    let mut links = [const { None }; PEERS];
    let mut asks = [Ask::default(); 16 * PEERS];
    let mut veils: [Veil; PEERS] = Default::default();
    let mut pool = [0; 8 << 10];
    let mut requests = [[Request::default(); REQUESTS]; PEERS];
    let (count, seen) = allocations_of(|| {
        let fetcher = Fetcher::new(FetchMemory {
            fetches: &mut fetches,
            partials: &mut partials,
            links: &mut links,
            asks: &mut asks,
            veils: &mut veils,
            pool: &mut pool,
        });
        let memory = SwarmMemory {
            torrents: &mut torrents,
            members: &mut members,
            nudged: &mut nudged,
            bits: &mut bits,
            candidates: &mut candidates,
        };
        let limits = SwarmLimits { peers_max: PEERS as u16, unchoked_max: 3, per_address_max: 1 };
        let identity = Identity {
            peer_id: PeerId([b'x'; 20]),
            listen_port: 6_881,
            requests_max: REQUESTS as u16,
            exchanges: false,
            dht_port: 0,
        };
        let mut swarm = Swarm::with_fetcher(memory, limits, identity, fetcher);
        let have = Have::Some(swarm.take_bits(LAYOUT.piece_count()).expect("a bit for each"));
        let torrent = swarm.activate(Torrent {
            info_hash: InfoHash::V1(INFO_HASH),
            layout: LAYOUT,
            metadata_bytes: 40_000,
            have,
            private: false,
            sent_bytes: 0,
        });
        let torrent = torrent.expect("a place");
        swarm.begin_fetch(torrent, |_| true, Order::Rarest, 7).expect("room for it");
        let now = Instant::from_millis(1_000);
        let mut lent = requests.iter_mut();
        let mut peers: [Peer<'_>; PEERS] = core::array::from_fn(|at| {
            let queue = lent.next().expect("one for each");
            let address = ([10, 0, 0, at as u8], 6_881).into();
            Peer::accepted(PeerSlot(at as u16), address, queue, now)
        });
        let (seen, buffer) = (Seen::default(), [0; 20 << 10]);
        let mut evening = Evening { swarm, now, expected, seen, buffer, held: None };
        evening.pass(&mut peers, &greetings);
        assert!(!evening.swarm.fetcher.is_fetched(torrent), "{:?}", evening.seen);
        evening.seen
    });
    assert_eq!(count, 0, "{seen:?}");
    let Seen { asked, haves, verified, failed, guilty, read_back, unwritten, .. } = seen;
    assert!(asked > 256 && haves > 0 && verified == LAYOUT.piece_count(), "{seen:?}");
    assert!(failed > 0 && guilty > 0 && read_back > 0 && unwritten > 0, "{seen:?}");
    assert!(seen.cancelled > 0 && seen.late && seen.gone > 0, "{seen:?}");
}
