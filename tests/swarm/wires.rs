//! Wires: connections that are made, lost and made again, and the uplinks they share.

use perennial::engine::peer::Peer;
use perennial::engine::units::{Instant, PeerSlot};

use crate::pump::{Ending, Pump, Side};
use crate::sim_net::{Link, PipeKind};
use crate::world::{Event, World};

/// Who is at the far end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    Host(usize),
    Guest(usize),
}

/// A connection that is made, lost and made again.
pub struct Wire {
    pub near: usize,
    pub far: Far,
    pub kinds: [PipeKind; 2],
    pub link: Link,
    pub slots: [Option<PeerSlot>; 2],
    /// It is made again so long after it was lost; `None`: it is not.
    pub again_ms: Option<u64>,
    /// When the far end's and the near end's next bytes are known to arrive.
    pub arrives: [Instant; 2],
    /// How the near end has ended so far.
    pub endings: Vec<Ending>,
    /// How the far end, a host, has.
    pub far_endings: Vec<Ending>,
    pub made_count: u32,
}

impl World {
    pub fn wire(
        &mut self,
        near: usize,
        far: Far,
        kinds: [PipeKind; 2],
        again_ms: Option<u64>,
    ) -> usize {
        let number = self.wires.len();
        let mut link = Link::new(kinds[0], kinds[1]);
        link.cut();
        self.wires.push(Wire {
            near,
            far,
            kinds,
            link,
            slots: [None; 2],
            again_ms,
            arrives: [Instant::NEVER; 2],
            endings: Vec::new(),
            far_endings: Vec::new(),
            made_count: 0,
        });
        self.hosts[near].wires.push(number);
        self.at(self.now(), Event::Dial(number));
        number
    }

    /// The connection is lost, at both ends.
    pub fn cut(&mut self, wire: usize) {
        self.wires[wire].link.cut();
        self.look_at_wire(wire);
    }

    /// The host loses every connection, and nobody finds it any more.
    pub fn vanish(&mut self, host: usize) {
        for wire in self.hosts[host].wires.clone() {
            self.wires[wire].again_ms = None;
            self.cut(wire);
        }
    }

    /// It is found again.
    pub fn appear(&mut self, host: usize) {
        for wire in self.hosts[host].wires.clone() {
            self.wires[wire].again_ms = Some(1_000);
            if self.wires[wire].slots == [None; 2] {
                self.at(self.now(), Event::Dial(wire));
            }
        }
    }

    /// Wakes whoever waits for one of the ends, and notes when the next bytes arrive.
    pub fn look_at_wire(&mut self, number: usize) {
        let now = self.now();
        for (side, at) in [(Side::Near, 0), (Side::Far, 1)] {
            let wire = &mut self.wires[number];
            let host = if at == 0 { Far::Host(wire.near) } else { wire.far };
            let sends = side.out(&mut wire.link).has_unsent();
            let writable = side.out(&mut wire.link).writable();
            let pipe = side.into(&mut wire.link);
            let readable = pipe.readable(now);
            let arrives = pipe.next_arrival();
            if arrives < wire.arrives[at] {
                wire.arrives[at] = arrives;
                self.at(arrives, Event::Arrival(number));
            }
            match (host, self.wires[number].slots[at]) {
                (Far::Host(host), slot) => {
                    if sends {
                        self.run_uplink(host);
                    }
                    let Some(slot) = slot else { continue };
                    let pump = self.hosts[host].pumps[slot.index()].as_ref();
                    let waits = |pump: &Pump| {
                        pump.waits_readable && readable || pump.waits_writable && writable
                    };
                    if pump.is_some_and(waits) {
                        self.ready(host, slot);
                    }
                }
                (Far::Guest(guest), _) => {
                    if readable && !self.guests[guest].ended {
                        self.ready_guest(guest);
                    }
                }
            }
        }
    }

    /// Passes on what the host's connections have for its uplink, a segment of each in turn.
    pub fn run_uplink(&mut self, host: usize) {
        let now = self.now();
        let limit_us = (now.as_millis() + 1) * 1_000;
        loop {
            let here = &mut self.hosts[host];
            let Some(uplink) = &mut here.uplink else { return };
            if uplink.busy_until_us >= limit_us {
                return;
            }
            let count = here.wires.len();
            let wires = &mut self.wires;
            let next = (0..count).map(|step| (uplink.next + step) % count).find(|at| {
                let wire = &mut wires[here.wires[*at]];
                let side = if wire.near == host { Side::Near } else { Side::Far };
                side.out(&mut wire.link).has_unsent()
            });
            let Some(next) = next else { return };
            uplink.next = next + 1;
            let number = here.wires[next];
            let wire = &mut wires[number];
            let (side, at) = if wire.near == host { (Side::Near, 1) } else { (Side::Far, 0) };
            let start_us = uplink.busy_until_us.max(now.as_millis() * 1_000);
            let pipe = side.out(&mut wire.link);
            uplink.busy_until_us = pipe.pass_on(start_us, uplink.bytes_per_s);
            let busy_until = Instant::from_millis(uplink.busy_until_us / 1_000);
            let arrives = pipe.next_arrival();
            if arrives < wire.arrives[at] {
                wire.arrives[at] = arrives;
                self.at(arrives, Event::Arrival(number));
            }
            if busy_until > now {
                self.at(busy_until, Event::Uplink(host));
            }
        }
    }

    pub fn dial(&mut self, number: usize) {
        let wire = &self.wires[number];
        let (near, far) = (wire.near, wire.far);
        if wire.slots != [None; 2] || wire.again_ms.is_none() && wire.made_count > 0 {
            return;
        }
        if let Far::Host(far) = far
            && self.hosts[near].is_whole()
            && self.hosts[far].is_whole()
        {
            return;
        }
        let far_slot = match far {
            Far::Host(far) => self.hosts[far].free_slot(),
            Far::Guest(_) => Some(PeerSlot(0)),
        };
        let (Some(slot), Some(far_slot)) = (self.hosts[near].free_slot(), far_slot) else {
            return self.at(self.now().after(3_000), Event::Dial(number));
        };
        let wire = &mut self.wires[number];
        wire.link = Link::new(wire.kinds[0], wire.kinds[1]);
        wire.arrives = [Instant::NEVER; 2];
        wire.made_count += 1;
        wire.slots = [Some(slot), None];
        for (host, slot) in [(Far::Host(near), slot), (far, far_slot)] {
            if let Far::Host(host) = host {
                let scarce = self.hosts[host].uplink.is_some();
                self.hosts[host].swarm.set_scarce(slot, scarce);
            }
        }
        let (requests, now) = (self.hosts[near].requests(), self.now());
        let peer = match far {
            Far::Guest(guest) => {
                self.guests[guest].begin();
                self.ready_guest(guest);
                Peer::accepted(slot, World::guest_address(guest), requests, now)
            }
            Far::Host(far) => {
                let address = self.hosts[far].address;
                let here = &self.hosts[near];
                let peer = Peer::dialled(slot, address, requests, here.torrent, now, &here.swarm);
                let requests = self.hosts[far].requests();
                let other = Peer::accepted(far_slot, here.address, requests, now);
                self.wires[number].slots[1] = Some(far_slot);
                let pump = Pump::new(far_slot, number, Side::Far, other);
                self.hosts[far].pumps[far_slot.index()] = Some(pump);
                self.ready(far, far_slot);
                peer
            }
        };
        let pump = Pump::new(slot, number, Side::Near, peer);
        self.hosts[near].pumps[slot.index()] = Some(pump);
        self.ready(near, slot);
    }
}
