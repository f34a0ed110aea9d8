//! The simulator: one swarm and its pumps, any number of guests, a network between them, and a
//! clock that jumps from one thing that happens to the next.
//!
//! ```text
//!   guests: leechers, scripts <== Link ==> Pump + Peer  (one a slot, like the service's)
//!                                              |
//!                                            Swarm, Storage, SimClock
//! ```
//!
//! Everything is on one thread and follows from a seed. At each instant everybody who can do
//! something does it, in an order drawn from the seed, until nobody can; then the clock jumps to
//! the earliest arrival or deadline. A run that goes on for too many turns is stuck in a loop, and
//! one in which nothing is due any more has been forgotten by somebody: both panic.

use std::collections::VecDeque;
use std::net::SocketAddr;

use perennial::engine::metainfo::Layout;
use perennial::engine::peer::Peer;
use perennial::engine::peer::request::Request;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::swarm::{Identity, Swarm, SwarmLimits, SwarmMemory};
use perennial::engine::units::{InfoHash, Instant, PeerId, PeerSlot, Span, TorrentSlot};

use crate::leecher::{Goal, Habits, Leecher};
use crate::prng::Prng;
use crate::pump::{Context, Ending, Pump};
use crate::script::{Act, Script};
use crate::sim_clock::SimClock;
use crate::sim_net::{Link, PipeKind};
use crate::storage::Storage;
use crate::trace::Trace;

/// The numbers of a board that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    pub peers_max: u16,
    /// Pumps beyond that, in which newcomers are heard.
    pub spare_pumps: u16,
    pub unchoked_max: u16,
    pub per_address_max: u16,
    pub requests_per_peer: u16,
    pub bits_bytes: usize,
    pub candidates_max: usize,
    pub torrents_max: usize,
}

impl Board {
    /// Room for every scenario that is not about limits.
    pub const ROOMY: Board = Board {
        peers_max: 50,
        spare_pumps: 2,
        unchoked_max: 50,
        per_address_max: 50,
        requests_per_peer: 128,
        bits_bytes: 1 << 10,
        candidates_max: 8,
        torrents_max: 2,
    };
}

/// The number of a guest, in the order in which they called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller(pub usize);

enum Guest {
    Leecher(Box<Leecher>),
    Script(Box<Script>),
}

struct Call {
    guest: Guest,
    address: SocketAddr,
    /// How the link behaves, towards us and from us.
    kinds: [PipeKind; 2],
    link: Link,
    pump: Option<Pump>,
    ending: Option<Ending>,
    /// When a leecher comes back.
    again_at: Instant,
    unchoked_ms: u64,
}

/// See the module.
pub struct World {
    pub clock: SimClock,
    pub swarm: Swarm<'static>,
    pub storage: Storage,
    pub trace: Trace,
    /// Pumps read no more than their peers have appetite for.
    pub heeds_appetite: bool,
    board: Board,
    prng: Prng,
    calls: Vec<Call>,
    /// Who wait to be accepted.
    knocking: VecDeque<Caller>,
    seats: Vec<Option<Caller>>,
    turns_left: u32,
}

impl World {
    /// A box with nothing to serve yet.
    pub fn new(board: Board, seed: u64) -> World {
        let slots = usize::from(board.peers_max + board.spare_pumps);
        World {
            clock: SimClock::default(),
            swarm: swarm_of(&board),
            storage: Storage::default(),
            trace: Trace::new(),
            heeds_appetite: true,
            board,
            prng: Prng::new(seed),
            calls: Vec::new(),
            knocking: VecDeque::new(),
            seats: vec![None; slots],
            turns_left: TURNS_MAX,
        }
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Another seed's worth of chance.
    pub fn draw(&mut self) -> Prng {
        Prng::new(self.prng.next_u64())
    }

    /// Serves one torrent more; `None` when there is no place for it.
    pub fn try_serve(&mut self, layout: Layout, metadata_bytes: u32) -> Option<Goal> {
        let number = self.swarm.torrents().count() as u8;
        let info_hash = [100 + number; 20];
        let torrent = self.swarm.activate(Torrent {
            info_hash: InfoHash::V1(info_hash),
            layout,
            metadata_bytes,
            have: Have::All,
            private: false,
            sent_bytes: 0,
        })?;
        Some(Goal { torrent, info_hash, layout, metadata_bytes, seed_id: SEED_ID })
    }

    /// Serves one torrent more.
    pub fn serve(&mut self, total_bytes: u64, piece_bytes: u32) -> Goal {
        let layout = Layout { total_bytes, piece_bytes };
        self.try_serve(layout, 40_000).expect("a place for a torrent")
    }

    /// A leecher calls, from an address of its own.
    pub fn leech(&mut self, goal: Goal, habits: Habits, kinds: [PipeKind; 2]) -> Caller {
        let mut leecher = Leecher::new(habits, goal, self.prng.next_u64());
        leecher.begin();
        let address = self.next_address();
        self.call(Guest::Leecher(Box::new(leecher)), address, kinds)
    }

    /// A scripted guest calls over a good link, from an address of its own.
    pub fn script(&mut self, acts: impl IntoIterator<Item = Act>) -> Caller {
        self.script_from(self.next_address(), [PipeKind::LAN; 2], acts)
    }

    /// A scripted guest calls.
    pub fn script_from(
        &mut self,
        address: SocketAddr,
        kinds: [PipeKind; 2],
        acts: impl IntoIterator<Item = Act>,
    ) -> Caller {
        let guest = Guest::Script(Box::new(Script::new(acts)));
        self.call(guest, address, kinds)
    }

    /// The box dials a scripted guest; there has to be a free pump.
    pub fn dial(&mut self, goal: Goal, acts: impl IntoIterator<Item = Act>) -> Caller {
        let caller = self.script(acts);
        self.knocking.retain(|knocking| *knocking != caller);
        let slot = self.free_slot().expect("a free pump to dial with");
        let address = self.calls[caller.0].address;
        let requests = lend(self.board.requests_per_peer.into(), Request::default());
        let now = self.now();
        let peer = Peer::dialled(slot, address, requests, goal.torrent, now, &self.swarm);
        self.seat(caller, slot, peer);
        caller
    }

    fn call(&mut self, guest: Guest, address: SocketAddr, kinds: [PipeKind; 2]) -> Caller {
        let caller = Caller(self.calls.len());
        let link = Link::new(kinds[0], kinds[1]);
        let again_at = Instant::NEVER;
        let (pump, ending) = (None, None);
        let unchoked_ms = 0;
        self.calls.push(Call { guest, address, kinds, link, pump, ending, again_at, unchoked_ms });
        self.knocking.push_back(caller);
        caller
    }

    pub fn leecher(&self, caller: Caller) -> &Leecher {
        match &self.calls[caller.0].guest {
            Guest::Leecher(leecher) => leecher,
            Guest::Script(_) => panic!("{caller:?} is a script"),
        }
    }

    pub fn scripted(&mut self, caller: Caller) -> &mut Script {
        match &mut self.calls[caller.0].guest {
            Guest::Script(script) => script,
            Guest::Leecher(_) => panic!("{caller:?} is a leecher"),
        }
    }

    /// How the connection ended, once it has.
    pub fn ending(&self, caller: Caller) -> Option<Ending> {
        self.calls[caller.0].ending
    }

    /// How long it could ask.
    pub fn unchoked_ms(&self, caller: Caller) -> u64 {
        self.calls[caller.0].unchoked_ms
    }

    /// Everyone who is carried just now.
    pub fn carried(&self) -> Vec<Caller> {
        self.seats.iter().flatten().copied().collect()
    }

    /// The connection is lost, at both ends.
    pub fn cut(&mut self, caller: Caller) {
        self.calls[caller.0].link.cut();
    }

    /// A file that holds `span` is found to have changed.
    pub fn withhold(&mut self, torrent: TorrentSlot, span: Span) {
        let pieces = self.swarm.torrent(torrent).layout.pieces_of(span);
        self.swarm.withhold(torrent, pieces);
        self.ring_nudged();
    }

    /// The box stops.
    pub fn close(&mut self) {
        self.swarm.close();
        self.ring_nudged();
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now().after(ms);
        loop {
            self.settle();
            let next = self.next_instant();
            if next > end {
                break;
            }
            self.jump_to(next);
        }
        if self.now() < end {
            self.jump_to(end);
            self.settle();
        }
    }

    /// Runs until `goal` holds.
    ///
    /// # Panics
    /// When it does not within `limit_ms`, or never will.
    pub fn run_until(&mut self, limit_ms: u64, goal: impl Fn(&World) -> bool) {
        let end = self.now().after(limit_ms);
        loop {
            self.settle();
            if goal(self) {
                return;
            }
            let next = self.next_instant();
            assert!(next < Instant::NEVER, "at {:?} nothing is due any more", self.now());
            assert!(next <= end, "the goal is not reached by {:?}: {}", self.now(), self.tell());
            self.jump_to(next);
        }
    }

    fn jump_to(&mut self, next: Instant) {
        let passed_ms = next.since(self.now());
        for caller in self.seats.iter().flatten() {
            let call = &mut self.calls[caller.0];
            let slot = call.pump.as_ref().map(Pump::slot);
            let member = slot.and_then(|slot| self.swarm.member(slot));
            if member.is_some_and(|member| member.unchoked) {
                call.unchoked_ms += passed_ms;
            }
        }
        self.clock.jump_to(next);
    }

    /// Does everything that can be done at this instant.
    fn settle(&mut self) {
        loop {
            self.accept();
            let now = self.now();
            let first = self.prng.below(self.calls.len().max(1) as u32) as usize;
            let mut busy = false;
            for at in 0..self.calls.len() {
                let caller = Caller((first + at) % self.calls.len());
                self.calls[caller.0].link.settle(now);
                busy |= self.turn(caller) | self.guest_turn(caller);
            }
            let due = self.swarm.deadline();
            if due.at <= now {
                self.clock.ring(due);
                self.swarm.handle_time(now);
                self.ring_nudged();
                let next = self.swarm.deadline();
                assert!(next.at > now, "{:?} is due and always will be", next.why);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    /// Runs the pump of a connection, if it has been woken.
    fn turn(&mut self, caller: Caller) -> bool {
        let now = self.now();
        let call = &mut self.calls[caller.0];
        let Some(pump) = call.pump.as_mut().filter(|pump| pump.is_woken(&mut call.link, now))
        else {
            return false;
        };
        assert!(self.turns_left > 0, "at {now:?} there is no end in sight");
        self.turns_left -= 1;
        if let Some(deadline) = pump.due(now) {
            self.clock.ring(deadline);
        }
        let mut context = Context {
            now,
            swarm: &mut self.swarm,
            storage: &self.storage,
            prng: &mut self.prng,
            trace: &mut self.trace,
        };
        if let Err(ending) = pump.turn(&mut call.link, &mut context) {
            let slot = pump.slot();
            self.trace.note(now, slot.0, b'e', format!("{ending:?}").as_bytes());
            call.link.hang_up();
            (call.ending, call.pump) = (Some(ending), None);
            self.seats[slot.index()] = None;
            self.swarm.leave(slot, now);
        }
        self.ring_nudged();
        true
    }

    fn guest_turn(&mut self, caller: Caller) -> bool {
        let now = self.now();
        let call = &mut self.calls[caller.0];
        match &mut call.guest {
            Guest::Script(script) => script.act(&mut call.link, now, &mut self.prng),
            Guest::Leecher(leecher) if !leecher.talk.line.ended => {
                let moved = leecher.act(&mut call.link, now, &mut self.prng);
                if leecher.talk.line.ended && leecher.habits.comes_back && !leecher.is_complete() {
                    call.again_at = now.after(500 + u64::from(self.prng.below(5_000)));
                }
                moved
            }
            Guest::Leecher(leecher) if call.again_at <= now => {
                leecher.begin();
                call.link = Link::new(call.kinds[0], call.kinds[1]);
                call.again_at = Instant::NEVER;
                self.knocking.push_back(caller);
                true
            }
            Guest::Leecher(_) => false,
        }
    }

    /// Hands those who knock to free pumps.
    fn accept(&mut self) {
        while let Some(caller) = self.knocking.front().copied()
            && let Some(slot) = self.free_slot()
        {
            self.knocking.pop_front();
            let requests = lend(self.board.requests_per_peer.into(), Request::default());
            let address = self.calls[caller.0].address;
            let peer = Peer::accepted(slot, address, requests, self.now());
            self.seat(caller, slot, peer);
        }
    }

    fn seat(&mut self, caller: Caller, slot: PeerSlot, peer: Peer<'static>) {
        let mut pump = Pump::new(slot, peer);
        pump.heeds_appetite = self.heeds_appetite;
        self.calls[caller.0].pump = Some(pump);
        self.calls[caller.0].ending = None;
        self.seats[slot.index()] = Some(caller);
    }

    fn free_slot(&self) -> Option<PeerSlot> {
        self.seats.iter().position(Option::is_none).map(|slot| PeerSlot(slot as u16))
    }

    fn ring_nudged(&mut self) {
        while let Some(slot) = self.swarm.take_nudged() {
            let Some(caller) = self.seats[slot.index()] else { continue };
            if let Some(pump) = &mut self.calls[caller.0].pump {
                pump.bell = true;
            }
        }
    }

    /// The next moment at which anything happens.
    fn next_instant(&self) -> Instant {
        let now = self.now();
        let of_call = |call: &Call| {
            let guest = match &call.guest {
                Guest::Script(script) => script.wakes_at(now),
                Guest::Leecher(leecher) => leecher.wakes_at(now),
            };
            let pump = call.pump.as_ref().map_or(Instant::NEVER, Pump::wakes_at);
            guest.min(pump).min(call.link.next_arrival()).min(call.again_at)
        };
        let first = self.calls.iter().map(of_call).min().unwrap_or(Instant::NEVER);
        first.min(self.swarm.deadline().at)
    }

    /// The address of the next guest.
    pub fn next_address(&self) -> SocketAddr {
        address(self.calls.len() as u8, 50_000)
    }

    /// Where everybody stands, for a failure's message.
    fn tell(&self) -> String {
        let mut text = String::new();
        for (at, call) in self.calls.iter().enumerate() {
            let state = match &call.guest {
                Guest::Leecher(leecher) => {
                    format!("{} bytes, {:?}", leecher.got_bytes, leecher.habits)
                }
                Guest::Script(script) => format!("{:?}", script.heard.last()),
            };
            text += &format!("\n{at}: {:?} {state}", call.ending);
        }
        text
    }
}

/// The address of guest `number`.
pub fn address(number: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, number], port))
}

/// An empty swarm in a board's sizes.
pub fn swarm_of(board: &Board) -> Swarm<'static> {
    let slots = usize::from(board.peers_max + board.spare_pumps);
    // Lent for good: a test's process is short.
    let memory = SwarmMemory {
        torrents: lend(board.torrents_max, None),
        members: lend(slots, None),
        nudged: lend(slots, PeerSlot(0)),
        bits: lend(board.bits_bytes, 0),
        candidates: lend(board.candidates_max, None),
    };
    let limits = SwarmLimits {
        peers_max: board.peers_max,
        unchoked_max: board.unchoked_max,
        per_address_max: board.per_address_max,
    };
    let identity = Identity {
        peer_id: PeerId(SEED_ID),
        listen_port: 6_881,
        requests_max: board.requests_per_peer,
        exchanges: false,
        dht_port: 0,
    };
    Swarm::new(memory, limits, identity)
}

fn lend<T: Clone>(count: usize, value: T) -> &'static mut [T] {
    vec![value; count].leak()
}

/// What the box calls itself.
pub const SEED_ID: [u8; 20] = *b"-PN0100-simulation..";

/// More turns than any scenario takes.
const TURNS_MAX: u32 = 3_000_000;
