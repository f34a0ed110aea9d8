//! Local discovery: the share is announced on the LAN, and whoever looks for it is answered
//! (BEP 14). Nobody is dialled: who wants something comes.

use crate::engine::announce::Family;
use crate::engine::announce::local::{self, Beacon, Cookie, GROUP_V4, PORT};
use crate::engine::units::{Deadline, Instant};
use core::net::Ipv4Addr;
use smoltcp::iface::Interface;
use smoltcp::socket::udp;
use smoltcp::wire::IpAddress;

/// The share's voice on the LAN.
pub struct Local {
    beacon: Beacon,
    cookie: Cookie,
    hash: [u8; 20],
    port: u16,
    /// Who has been heard of late: those are not answered again.
    heard: heapless::Deque<Ipv4Addr, HEARD_MAX>,
    joined: bool,
}

impl Local {
    /// Speaks of the torrent `hash`, which can be had at `port`.
    pub fn new(hash: [u8; 20], port: u16, chance: u32, now: Instant) -> Local {
        let (beacon, cookie) = (Beacon::new(now), Cookie(chance));
        Local { beacon, cookie, hash, port, heard: heapless::Deque::new(), joined: false }
    }

    /// There is an address to speak from, perhaps a new one.
    pub fn begin(&mut self, now: Instant) {
        self.beacon = Beacon::new(now);
    }

    /// Hears and speaks; who was heard for the first time, if somebody was.
    #[inline(never)]
    pub fn turn(
        &mut self,
        interface: &mut Interface,
        socket: &mut udp::Socket<'_>,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        if !self.joined {
            // Both fail only for a second time.
            self.joined = interface.join_multicast_group(IpAddress::Ipv4(GROUP_V4)).is_ok()
                && socket.bind(PORT).is_ok();
        }
        let mut newcomer = None;
        while socket.can_recv() {
            newcomer = self.hear(socket).or(newcomer);
        }
        if newcomer.is_some() {
            self.beacon.handle_newcomer(now);
        }
        if socket.can_send() && self.beacon.poll(now) {
            let mut datagram = heapless::Vec::<u8, SPOKEN_BYTES>::new();
            let mut hashes = core::iter::once(self.hash);
            let written =
                local::write(Family::V4, self.port, self.cookie, &mut hashes, &mut datagram);
            if written.is_ok() {
                // The ring is empty: there is room.
                let _ = socket.send_slice(&datagram, (IpAddress::Ipv4(GROUP_V4), PORT));
            }
        }
        newcomer
    }

    /// When it next speaks.
    pub fn deadline(&self) -> Deadline {
        self.beacon.deadline()
    }

    /// Takes one datagram.
    fn hear(&mut self, socket: &mut udp::Socket<'_>) -> Option<Ipv4Addr> {
        let (bytes, from) = socket.recv().ok()?;
        let search = local::parse(bytes, self.cookie)?;
        let IpAddress::Ipv4(address) = from.endpoint.addr;
        if !search.hashes.clone().any(|hash| hash == self.hash)
            || self.heard.iter().any(|known| *known == address)
        {
            return None;
        }
        if self.heard.is_full() {
            self.heard.pop_front();
        }
        // There is room now.
        let _ = self.heard.push_back(address);
        Some(address)
    }
}

/// One info-hash with all that stands around it.
const SPOKEN_BYTES: usize = 256;

/// Addresses remembered; of more, the longest known may be answered again.
const HEARD_MAX: usize = 8;
