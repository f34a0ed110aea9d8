//! A swarm and its peers through a long evening, counted: not one allocation.
//!
//! What the peers say is written down before the count begins, and the driver works on the stack.
//! That it was a full evening is checked afterwards, by what was seen to happen.

use perennial::engine::limits::{KEEPALIVE_MS, SILENCE_TIMEOUT_MS};
use perennial::engine::metainfo::Layout;
use perennial::engine::peer::request::Request;
use perennial::engine::peer::{Item, Output, Peer};
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::swarm::{DialEnd, Identity, Swarm, SwarmLimits, SwarmMemory};
use perennial::engine::units::{InfoHash, Instant, PeerId, PeerSlot, TorrentSlot};
use perennial::engine::wire::PeerFault;

use crate::count_alloc::allocations_of;
use crate::fake_peer::{self as say, Speaks};
use crate::prng::Prng;

const INFO_HASH: [u8; 20] = [7; 20];
const LAYOUT: Layout = Layout { total_bytes: 5_000 * 16_384 - 1, piece_bytes: 16 << 10 };
const PEERS: usize = 6;
const REQUESTS: usize = 16;

/// What was seen to happen.
#[derive(Debug, Default)]
struct Seen {
    bytes: u32,
    served: u32,
    short: u32,
    cold: u32,
    farewells: u32,
    refusals: u32,
    faults: u32,
    keep_alives: u32,
    metadata: u32,
    rejects: u32,
}

/// What peers say, written down before.
struct Phrases {
    greetings: Vec<Vec<u8>>,
    /// Something to say in an ordinary turn.
    turns: Vec<Vec<u8>>,
    nonsense: Vec<u8>,
    twice: Vec<u8>,
}

impl Phrases {
    fn new() -> Phrases {
        let speaks = |name: usize| Speaks { fast: name.is_multiple_of(2), extended: name % 3 != 2 };
        let greeting = |name: usize| {
            let mut bytes = say::handshake(INFO_HASH, [name as u8; 20], speaks(name));
            bytes.extend(if speaks(name).fast { say::have_none() } else { Vec::new() });
            bytes.extend(if speaks(name).extended { say::hello(3) } else { Vec::new() });
            bytes.extend(say::interested());
            bytes
        };
        let ask = |piece| say::request((piece, 0, 16 << 10));
        Phrases {
            greetings: (0..PEERS).map(greeting).collect(),
            turns: vec![
                (0..12).flat_map(|piece| ask(piece * 7)).collect(),
                [ask(1), ask(2), ask(3), say::cancel((2, 0, 16 << 10)), say::have(9)].concat(),
                [say::cancel((99, 0, 5)), say::keep_alive(), say::message(99, &[1; 700])].concat(),
                [say::not_interested(), say::interested(), say::choke(), say::unchoke()].concat(),
            ],
            nonsense: say::have(1_000_000),
            twice: say::metadata_request(1, 1).repeat(6),
        }
    }
}

/// Everything the driver needs, none of it on the heap.
struct Evening<'m> {
    swarm: Swarm<'m>,
    now: Instant,
    prng: Prng,
    seen: Seen,
}

impl Evening<'_> {
    /// Hands in as much as the peer has appetite for.
    fn hear(&mut self, peer: &mut Peer<'_>, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = peer.appetite(&self.swarm).min(1 + self.prng.below(200) as usize);
            if most == 0 {
                break;
            }
            let (part, later) = rest.split_at(rest.len().min(most));
            rest = later;
            if peer.handle_received(part, self.now, &mut self.swarm).is_err() {
                self.seen.faults += 1;
                return false;
            }
            if !self.drain(peer) {
                return false;
            }
        }
        true
    }

    /// Does what the peer wants done; `false` when it is over.
    fn drain(&mut self, peer: &mut Peer<'_>) -> bool {
        for _ in 0..20 {
            let (offered, serves) = match peer.poll_output(self.now, &mut self.swarm) {
                Output::Wait(_) => return true,
                Output::Close(farewell) => {
                    self.seen.farewells += 1;
                    let refused = matches!(farewell, Farewell::Refused(_));
                    self.seen.refusals += u32::from(refused);
                    return false;
                }
                Output::Bytes(bytes) => {
                    self.seen.bytes += 1;
                    self.seen.keep_alives += u32::from(bytes == [0; 4]);
                    let reject = bytes.windows(5).any(|part| part == [0, 0, 0, 13, 16]);
                    self.seen.rejects += u32::from(reject);
                    (bytes.len(), false)
                }
                Output::Serve(serving) => {
                    self.seen.served += serving.items.len() as u32;
                    let mut header = [0; 96];
                    let head = serving.items[0].write_header(&mut header);
                    self.seen.metadata += u32::from(head > 13);
                    let whole: usize = serving.items.iter().map(Item::wire_bytes).sum();
                    (whole - serving.skip, true)
                }
            };
            if serves && self.prng.one_in(10) {
                self.seen.cold += 1;
                peer.handle_cold(self.now.after(3));
                if self.prng.one_in(2) {
                    peer.handle_warm();
                }
                continue;
            }
            let sent = if self.prng.one_in(3) {
                self.seen.short += 1;
                self.prng.below(offered as u32) as usize
            } else {
                offered
            };
            peer.handle_sent(sent, self.now, &mut self.swarm);
        }
        true
    }

    /// One evening: everybody comes, asks, is choked and unchoked, and falls silent.
    fn pass(&mut self, peers: &mut [Peer<'_>; PEERS], phrases: &Phrases) {
        for (peer, greeting) in peers.iter_mut().zip(&phrases.greetings) {
            assert!(self.hear(peer, greeting));
        }
        for round in 0..400 {
            self.now = self.now.after(500);
            if self.swarm.deadline().at <= self.now {
                self.swarm.handle_time(self.now);
            }
            if round == 200 {
                self.swarm.withhold(TorrentSlot(0), 10..20);
            }
            while self.swarm.take_nudged().is_some() {}
            for peer in peers.iter_mut() {
                let turn = self.prng.below(phrases.turns.len() as u32) as usize;
                let stays = self.hear(peer, &phrases.turns[turn])
                    && self.drain(peer)
                    && peer.handle_time(self.now).is_ok();
                // From then on those go that cannot be told what is withheld.
                assert!(stays || round >= 200, "{:?}", self.seen);
            }
        }
    }

    /// The end of it: a newcomer is refused, a fault, silence, addresses to dial.
    fn close(&mut self, peers: &mut [Peer<'_>; PEERS], spare: &mut [Request], phrases: &Phrases) {
        let address = ([10, 0, 0, 1], 5).into();
        let mut newcomer = Peer::accepted(PeerSlot(PEERS as u16), address, spare, self.now);
        assert!(!self.hear(&mut newcomer, &phrases.greetings[1]), "it is here already");
        assert_eq!(self.swarm.member_count(), PEERS as u16);
        self.hear(&mut peers[0], &phrases.twice);
        self.now = self.now.after(KEEPALIVE_MS);
        self.drain(&mut peers[2]);
        assert!(!self.hear(&mut peers[2], &phrases.nonsense));
        self.now = self.now.after(SILENCE_TIMEOUT_MS);
        let silent = peers.iter_mut().map(|peer| peer.handle_time(self.now).is_err());
        assert!(silent.filter(|silent| *silent).count() > 0);
        for (slot, fault) in [(0, PeerFault::Silent), (2, PeerFault::PieceRange)] {
            self.swarm.leave(PeerSlot(slot), self.now);
            self.swarm.dialled(TorrentSlot(0), address, DialEnd::Fault(fault), self.now);
        }
        for last in 0..9 {
            let address = ([10, 0, 1, last], 6_881).into();
            self.swarm.candidates.note(TorrentSlot(0), address, self.now);
        }
        assert!(self.swarm.candidates.take_due(self.now).is_some());
        self.swarm.close();
        while self.swarm.take_nudged().is_some() {}
        assert!(!self.drain(&mut peers[4]));
    }
}

#[test]
fn a_whole_conversation_allocates_nothing() {
    let phrases = Phrases::new();
    let mut torrents = [const { None }; 2];
    let mut members = [const { None }; PEERS + 2];
    let mut nudged = [PeerSlot(0); PEERS + 2];
    let mut bits = [0; 1_024];
    let mut candidates = [None; 4];
    let mut requests = [[Request::default(); REQUESTS]; PEERS + 1];
    let (count, seen) = allocations_of(|| {
        let memory = SwarmMemory {
            torrents: &mut torrents,
            members: &mut members,
            nudged: &mut nudged,
            bits: &mut bits,
            candidates: &mut candidates,
        };
        let limits =
            SwarmLimits { peers_max: PEERS as u16, unchoked_max: 2, per_address_max: PEERS as u16 };
        let identity = Identity {
            exchanges: false,
            dht_port: 0,
            peer_id: PeerId([b'x'; 20]),
            listen_port: 6_881,
            requests_max: REQUESTS as u16,
        };
        let mut swarm = Swarm::new(memory, limits, identity);
        let torrent = swarm.activate(Torrent {
            info_hash: InfoHash::V1(INFO_HASH),
            layout: LAYOUT,
            metadata_bytes: 40_000,
            have: Have::All,
            private: false,
            sent_bytes: 0,
        });
        let torrent = torrent.expect("a place");
        let now = Instant::from_millis(1_000);
        let address = |last: usize| ([10, 0, 0, last as u8], 6_881).into();
        let (lent, spare) = requests.split_at_mut(PEERS);
        let mut lent = lent.iter_mut();
        let mut peers: [Peer<'_>; PEERS] = core::array::from_fn(|at| {
            let queue = lent.next().expect("one for each");
            let slot = PeerSlot(at as u16);
            match at {
                0 => Peer::dialled(slot, address(at), queue, torrent, now, &swarm),
                _ => Peer::accepted(slot, address(at), queue, now),
            }
        });
        let mut evening = Evening { swarm, now, prng: Prng::new(1), seen: Seen::default() };
        evening.pass(&mut peers, &phrases);
        evening.close(&mut peers, &mut spare[0], &phrases);
        evening.seen
    });
    assert_eq!(count, 0, "{seen:?}");
    let Seen { bytes, served, short, cold, .. } = seen;
    assert!(bytes > 100 && served > 500 && short > 100 && cold > 20, "{seen:?}");
    assert!(seen.farewells > 0 && seen.refusals == 1 && seen.faults > 0, "{seen:?}");
    assert!(seen.keep_alives > 0 && seen.metadata > 0 && seen.rejects > 0, "{seen:?}");
}
