//! The simulator: hosts of ours, guests, wires between them, and a clock that jumps from one thing
//! that happens to the next.
//!
//! ```text
//!   Host <== wire ==> Host <== wire ==> Guest      see `wires`
//!     '- pumps, lanes, uplink                      things to come: a heap of (when, what)
//! ```
//!
//! Whoever has something to do stands in a list, from which one is drawn at a time; when it is
//! empty the clock jumps to the next thing to come. A run in which nothing is to come any more has
//! been forgotten by somebody, and one that takes too many turns is stuck: both panic.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use perennial::engine::limits::SERVE_BYTES_MAX;
use perennial::engine::units::{Instant, PeerSlot};

use crate::content::Content;
use crate::guest::{Guest, Habits};
use crate::host::{Board, Host, Uplink};
use crate::prng::Prng;
use crate::pump::{Context, Ending, Side};
use crate::sim_net::PipeKind;
use crate::trace::Trace;
use crate::wires::{Far, Wire};

/// Something to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Bytes arrive.
    Arrival(usize),
    /// A connection's deadline.
    Pump(usize, u16),
    Guest(usize),
    /// A host's lane is done.
    Lane(usize, usize),
    Uplink(usize),
    /// Upload slots go round.
    Choke(usize),
    /// A disk is tried again.
    Resume(usize),
    Dial(usize),
}

/// Somebody who can do something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Pump(usize, PeerSlot),
    Guest(usize),
}

/// See the module.
pub struct World {
    pub content: Rc<Content>,
    pub hosts: Vec<Host>,
    pub guests: Vec<Guest>,
    pub wires: Vec<Wire>,
    pub trace: Option<Trace>,
    pub prng: Prng,
    guest_ready: Vec<bool>,
    /// The wire of each guest.
    pub guest_wires: Vec<usize>,
    now: Instant,
    ready: VecDeque<Ready>,
    coming: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    number: u64,
    scratch: Vec<u8>,
    turns_left: u32,
}

impl World {
    pub fn new(content: &Rc<Content>, seed: u64) -> World {
        World {
            content: Rc::clone(content),
            hosts: Vec::new(),
            guests: Vec::new(),
            wires: Vec::new(),
            trace: None,
            prng: Prng::new(seed),
            guest_ready: Vec::new(),
            guest_wires: Vec::new(),
            now: Instant::from_millis(1_000),
            ready: VecDeque::new(),
            coming: BinaryHeap::new(),
            number: 0,
            scratch: vec![0; SERVE_BYTES_MAX],
            turns_left: TURNS_MAX,
        }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// A host that has some pieces.
    pub fn host(&mut self, board: Board, has: impl Fn(u32) -> bool) -> usize {
        let number = self.hosts.len();
        let seed = self.prng.next_u64();
        self.hosts.push(Host::new(number, board, &self.content, has, seed));
        self.turns_left += TURNS_EACH;
        number
    }

    /// A host that has everything.
    pub fn origin(&mut self, board: Board) -> usize {
        self.host(board, |_| true)
    }

    /// A host that has nothing.
    pub fn leecher(&mut self, board: Board) -> usize {
        self.host(board, |_| false)
    }

    /// All that the host sends goes by one uplink.
    pub fn limit_uplink(&mut self, host: usize, bytes_per_s: u64) {
        self.hosts[host].uplink = Some(Uplink { bytes_per_s, busy_until_us: 0, next: 0 });
    }

    /// A host dials another, now and whenever the connection was lost.
    pub fn connect(&mut self, near: usize, far: usize, kind: PipeKind) -> usize {
        let wire = self.wire(near, Far::Host(far), [kind; 2], Some(1_000));
        self.hosts[far].wires.push(wire);
        wire
    }

    /// A guest calls a host, now and whenever the connection was lost.
    pub fn invite(
        &mut self,
        near: usize,
        habits: Habits,
        claims: impl Fn(u32) -> bool,
        kind: PipeKind,
    ) -> usize {
        let number = self.guests.len();
        let seed = self.prng.next_u64();
        self.guests.push(Guest::new(number as u8, habits, &self.content, claims, seed));
        self.guest_ready.push(false);
        let wire = self.wire(near, Far::Guest(number), [kind; 2], Some(1_000));
        self.guest_wires.push(wire);
        number
    }

    /// The connection of a guest is not made again.
    pub fn never_again(&mut self, guest: usize) {
        let wire = self.guest_wires[guest];
        self.wires[wire].again_ms = None;
    }

    /// How a guest's connections have ended so far, at the host.
    pub fn guest_endings(&self, guest: usize) -> &[Ending] {
        &self.wires[self.guest_wires[guest]].endings
    }

    pub fn guest_address(guest: usize) -> SocketAddr {
        SocketAddr::from(([10, 9, 0, guest as u8], 50_000))
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        if at < Instant::NEVER {
            self.number += 1;
            self.coming.push(Reverse((at, self.number, event)));
        }
    }

    /// Time passes while nobody looks.
    pub fn sleep_through(&mut self, ms: u64) {
        self.now = self.now.after(ms);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.after(ms);
        loop {
            self.settle();
            match self.coming.peek() {
                Some(Reverse((at, ..))) if *at <= end => self.jump(),
                _ => break,
            }
        }
        self.now = self.now.max(end);
    }

    /// Runs until `goal` holds; how long that took.
    ///
    /// # Panics
    /// When it does not within `limit_ms`, or never will.
    pub fn run_until(&mut self, limit_ms: u64, goal: impl Fn(&World) -> bool) -> u64 {
        let start = self.now;
        loop {
            self.settle();
            if goal(self) {
                return self.now.since(start);
            }
            let next = self.coming.peek().map(|Reverse((at, ..))| *at);
            let next = next.unwrap_or_else(|| panic!("nothing is to come: {}", self.tell()));
            assert!(next.since(start) <= limit_ms, "not within {limit_ms} ms: {}", self.tell());
            self.jump();
        }
    }

    /// Runs until every host has everything; how long that took.
    pub fn run_until_whole(&mut self, limit_ms: u64) -> u64 {
        self.run_until(limit_ms, |world| world.hosts.iter().all(Host::is_whole))
    }

    /// Everybody goes, and nothing is left behind.
    pub fn part(&mut self) {
        for wire in 0..self.wires.len() {
            self.wires[wire].again_ms = None;
        }
        // Twice: somebody may just be shaking hands.
        for _ in 0..2 {
            for host in 0..self.hosts.len() {
                self.hosts[host].swarm.close();
                self.look_at_host(host);
            }
            self.run_for(30_000);
        }
        self.hosts.iter_mut().for_each(Host::check_nothing_leaked);
        self.check_nothing_failed();
    }

    /// Where nobody sends what is wrong, no piece is.
    pub fn check_nothing_failed(&self) {
        if self.guests.iter().all(|guest| guest.is_truthful()) {
            let failed: u32 = self.hosts.iter().map(|host| host.failed_count).sum();
            assert_eq!(failed, 0, "pieces that are wrong: {}", self.tell());
        }
    }

    fn jump(&mut self) {
        let Some(Reverse((at, _, event))) = self.coming.pop() else { return };
        self.now = self.now.max(at);
        self.handle(event);
        while let Some(Reverse((at, ..))) = self.coming.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, event))) = self.coming.pop() else { return };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrival(wire) => {
                for at in self.wires[wire].arrives.iter_mut().filter(|at| **at <= now) {
                    *at = Instant::NEVER;
                }
                self.look_at_wire(wire);
            }
            Event::Pump(host, slot) => {
                let pump = self.hosts[host].pumps[usize::from(slot)].as_ref();
                if pump.is_some_and(|pump| pump.rings_at.at <= now) {
                    self.ready(host, PeerSlot(slot));
                }
            }
            Event::Guest(guest) => self.ready_guest(guest),
            Event::Lane(host, job) => self.handle_lane(host, job),
            Event::Uplink(host) => self.run_uplink(host),
            Event::Choke(host) => {
                if self.hosts[host].choke_at <= now {
                    self.hosts[host].choke_at = Instant::NEVER;
                    self.hosts[host].swarm.handle_time(now);
                    self.look_at_host(host);
                }
            }
            Event::Resume(host) => {
                let here = &mut self.hosts[host];
                if here.resume_at <= now {
                    here.resume_at = Instant::NEVER;
                    here.swarm.fetcher.pause(here.torrent, false);
                    self.look_at_host(host);
                }
            }
            Event::Dial(wire) => self.dial(wire),
        }
    }

    /// Does everything that can be done at this instant.
    fn settle(&mut self) {
        while !self.ready.is_empty() {
            assert!(self.turns_left > 0, "there is no end in sight: {}", self.tell());
            self.turns_left -= 1;
            let drawn = self.prng.below(self.ready.len().min(8) as u32) as usize;
            match self.ready.swap_remove_front(drawn) {
                Some(Ready::Pump(host, slot)) => self.turn(host, slot),
                Some(Ready::Guest(guest)) => self.guest_turn(guest),
                None => {}
            }
        }
    }

    pub fn ready(&mut self, host: usize, slot: PeerSlot) {
        if let Some(pump) = &mut self.hosts[host].pumps[slot.index()]
            && !pump.is_ready
        {
            pump.is_ready = true;
            self.ready.push_back(Ready::Pump(host, slot));
        }
    }

    pub fn ready_guest(&mut self, guest: usize) {
        if !std::mem::replace(&mut self.guest_ready[guest], true) {
            self.ready.push_back(Ready::Guest(guest));
        }
    }

    fn turn(&mut self, host: usize, slot: PeerSlot) {
        let here = &mut self.hosts[host];
        let Some(mut pump) = here.pumps[slot.index()].take() else { return };
        pump.is_ready = false;
        if pump.ending.is_some() {
            here.pumps[slot.index()] = Some(pump);
            return;
        }
        let (wire, rang) = (pump.wire, pump.rings_at.at);
        let mut context = Context {
            now: self.now,
            link: &mut self.wires[wire].link,
            swarm: &mut here.swarm,
            desk: &mut here.desk,
            prng: &mut self.prng,
            trace: &mut self.trace,
            scratch: &mut self.scratch,
        };
        let result = pump.turn(&mut context);
        let rings = pump.rings_at.at;
        match result {
            Ok(again) => {
                self.hosts[host].pumps[slot.index()] = Some(pump);
                if again {
                    self.ready(host, slot);
                }
                if rings != rang {
                    self.at(rings, Event::Pump(host, slot.0));
                }
            }
            Err(ending) => {
                pump.ending = Some(ending);
                let storing = pump.storing;
                self.hosts[host].pumps[slot.index()] = Some(pump);
                // What a lane has of it is waited for.
                if !storing {
                    self.end(host, slot);
                }
            }
        }
        self.look_at_host(host);
        self.look_at_wire(wire);
    }

    /// A connection is over, and no lane has anything of it.
    fn end(&mut self, host: usize, slot: PeerSlot) {
        let now = self.now;
        let here = &mut self.hosts[host];
        // What came before the other side hung up is as good as any.
        if let Some(pump) = &mut here.pumps[slot.index()]
            && pump.ending == Some(Ending::Gone)
        {
            pump.store(Instant::NEVER, &mut here.swarm, &mut here.desk);
            if pump.storing {
                return self.look_at_host(host);
            }
        }
        let here = &mut self.hosts[host];
        let Some(mut pump) = here.pumps[slot.index()].take() else { return };
        if let Some(gathered) = pump.gathered.take() {
            here.swarm.fetcher.drop_stores(slot, gathered.stores);
            here.desk.buffers_free += 1;
        }
        here.desk.hungry.retain(|hungry| *hungry != slot);
        here.swarm.leave(slot, now);
        let ending = pump.ending.unwrap_or(Ending::Gone);
        if let Some(trace) = &mut self.trace {
            trace.note(now, slot.0, b'e', format!("{ending:?}").as_bytes());
        }
        let wire = &mut self.wires[pump.wire];
        match pump.side {
            Side::Near => {
                wire.slots[0] = None;
                wire.endings.push(ending);
                wire.link.hang_up();
            }
            Side::Far => {
                wire.slots[1] = None;
                wire.far_endings.push(ending);
                wire.link.hang_up_far();
            }
        }
        let over = wire.slots == [None; 2];
        if over && let Some(again_ms) = wire.again_ms {
            let at = now.after(again_ms + u64::from(self.prng.below(500)));
            self.at(at, Event::Dial(pump.wire));
        }
        self.look_at_host(host);
        self.look_at_wire(pump.wire);
    }

    fn guest_turn(&mut self, guest: usize) {
        self.guest_ready[guest] = false;
        let wire = self.guest_wires[guest];
        let link = &mut self.wires[wire].link;
        let moved = self.guests[guest].act(link, self.now, &mut self.prng);
        if moved && !self.guests[guest].ended {
            self.ready_guest(guest);
        }
        let wakes_at = self.guests[guest].wakes_at(self.now);
        self.at(wakes_at, Event::Guest(guest));
        self.look_at_wire(wire);
    }

    fn handle_lane(&mut self, host: usize, job: usize) {
        let (now, here) = (self.now, &mut self.hosts[host]);
        let resumes = here.resume_at;
        let slot = here.handle_lane(job, now);
        if here.resume_at != resumes {
            let at = here.resume_at;
            self.at(at, Event::Resume(host));
        }
        let here = &mut self.hosts[host];
        if let Some(slot) = slot
            && let Some(pump) = &mut here.pumps[slot.index()]
        {
            pump.storing = false;
            if pump.ending.is_some() {
                self.end(host, slot);
            } else {
                self.ready(host, slot);
            }
        }
        self.look_at_host(host);
    }

    /// Whatever has changed at a host is seen to.
    fn look_at_host(&mut self, host: usize) {
        while let Some(slot) = self.hosts[host].swarm.take_nudged() {
            self.ready(host, slot);
        }
        let mut jobs = Vec::new();
        self.hosts[host].give_to_lanes(self.now, |job, at| jobs.push((job, at)));
        jobs.into_iter().for_each(|(job, at)| self.at(at, Event::Lane(host, job)));
        let here = &mut self.hosts[host];
        if here.desk.buffers_free > 0
            && let Some(slot) = here.desk.hungry.pop_front()
        {
            self.ready(host, slot);
        }
        let here = &mut self.hosts[host];
        let due = here.swarm.deadline().at;
        if due < here.choke_at {
            here.choke_at = due;
            self.at(due, Event::Choke(host));
        }
    }

    /// Where everybody stands, for a failure's message.
    pub fn tell(&self) -> String {
        let mut text = format!("at {:?}", self.now);
        for (at, host) in self.hosts.iter().enumerate() {
            let standing = host.swarm.fetcher.standing(host.torrent);
            text += &format!(
                "\nhost {at}: {} of {} pieces, {} members, {standing:?}",
                host.desk.disk.verified_count,
                self.content.piece_count(),
                host.swarm.member_count(),
            );
        }
        for (at, guest) in self.guests.iter().enumerate() {
            let (vice, asked) = (guest.habits.vice, guest.asked_count);
            let endings = self.guest_endings(at);
            let last = &endings[endings.len().saturating_sub(3)..];
            text += &format!("\nguest {at}: {vice:?}, asked {asked}, {last:?}");
        }
        text
    }
}

/// More turns than any scenario takes, and so many more for each host.
const TURNS_MAX: u32 = 5_000_000;
const TURNS_EACH: u32 = 50_000;
