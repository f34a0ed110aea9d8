//! The cable, the address on it, and the network stack behind it.

use crate::engine::units::{Deadline, Instant};
use core::net::Ipv4Addr;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage,
};
use smoltcp::phy::Device;
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

/// One interface with its sockets.
pub struct Link<'d, N> {
    nic: &'d mut N,
    /// The stack.
    pub interface: Interface,
    /// Every socket there is.
    pub sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    address: Option<Ipv4Cidr>,
    /// The address is from before the cable was out: kept, so that connections live on, until the
    /// server says otherwise or says nothing.
    doubtful: bool,
    /// There may be more frames than the last turn took.
    flooded: bool,
    /// Nothing is known of the cable before the first look.
    up: Option<bool>,
    /// When the lack of an address is next complained of.
    complain_at: Instant,
}

/// What has become of the cable or of the address on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A cable is in.
    Up,
    /// It is not.
    Down,
    /// The DHCP server gave us this address.
    Address(Ipv4Cidr),
    /// The lease is over, or the server took it back.
    Lost,
    /// No server has answered for a while; it is asked on.
    Silent,
}

impl<'d, N: Device> Link<'d, N> {
    /// A link over `nic`. `chance` is where its sequence numbers start from.
    #[inline(never)]
    pub fn new(
        nic: &'d mut N,
        hardware_address: [u8; 6],
        chance: u64,
        storage: &'static mut [SocketStorage<'static>],
        now: Instant,
    ) -> Link<'d, N> {
        // Whatever is burnt in there: the stack refuses the address of a group.
        let mut address = hardware_address;
        address[0] &= !1;
        let mut config = Config::new(EthernetAddress(address).into());
        config.random_seed = chance;
        let interface = Interface::new(config, nic, stack_time(now));
        let mut sockets = SocketSet::new(storage);
        let dhcp = sockets.add(dhcpv4::Socket::new());
        let complain_at = now.after(SILENT_MS);
        let (address, doubtful, flooded, up) = (None, false, false, None);
        Link { nic, interface, sockets, dhcp, address, doubtful, flooded, up, complain_at }
    }

    /// The address we have.
    pub fn address(&self) -> Option<Ipv4Cidr> {
        self.address
    }

    /// Takes and sends frames; at most one piece of news.
    #[inline(never)]
    pub fn turn(&mut self, carrier: bool, now: Instant) -> Option<News> {
        if self.up != Some(carrier) {
            self.up = Some(carrier);
            self.complain_at = now.after(SILENT_MS);
            self.doubtful = self.address.is_some();
            self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).reset();
            return Some(if carrier { News::Up } else { News::Down });
        }
        if !carrier {
            return None;
        }
        self.poll(now);
        let asking = self.is_asking();
        let silent = asking && now >= self.complain_at;
        let news = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).poll() {
            None if silent => return self.configure(None, now).or(Some(News::Silent)),
            None => return None,
            Some(dhcpv4::Event::Deconfigured) if asking => return None,
            Some(dhcpv4::Event::Deconfigured) => None,
            // Whatever a server says, the stack stands no address of this kind that is anybody's or
            // nobody's: not of ours, nor of the router, nor of the server it will ask again.
            Some(dhcpv4::Event::Configured(config)) => {
                let router = config.router.filter(is_somebodys);
                let ours = is_somebodys(&config.address.address());
                let usable = ours && is_somebodys(&config.server.address);
                usable.then_some((config.address, router))
            }
        };
        if news.is_none() {
            self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).reset();
        }
        self.configure(news, now)
    }

    /// Takes a bounded number of frames, so that a flood of them stops nothing else, and sends what
    /// there is to send.
    fn poll(&mut self, now: Instant) {
        let (at, sockets) = (stack_time(now), &mut self.sockets);
        self.interface.poll_maintenance(at);
        let more = |_: &usize| {
            let taken = self.interface.poll_ingress_single(at, self.nic, sockets);
            !matches!(taken, PollIngressSingleResult::None)
        };
        self.flooded = (0..FRAMES_A_TURN).take_while(more).count() == FRAMES_A_TURN;
        while self.interface.poll_egress(at, self.nic, sockets) != PollResult::None {}
    }

    /// When something is due.
    pub fn deadline(&mut self, now: Instant) -> Deadline {
        if self.up != Some(true) {
            return Deadline { at: now.after(LOOK_MS), why: "a look at the cable" };
        }
        if self.flooded {
            return Deadline { at: now, why: "more frames" };
        }
        let at = match self.interface.poll_at(stack_time(now), &self.sockets) {
            Some(at) => Instant::from_millis(at.total_millis().max(0) as u64),
            None => Instant::NEVER,
        };
        let complaint = if self.is_asking() { self.complain_at } else { Instant::NEVER };
        let look = Deadline { at: now.after(LOOK_UP_MS), why: "a look at the cable" };
        Deadline { at, why: "the network" }.or(look).or(Deadline { at: complaint, why: "DHCP" })
    }

    /// The server has yet to say what our address is.
    fn is_asking(&self) -> bool {
        self.address.is_none() || self.doubtful
    }

    fn configure(
        &mut self,
        given: Option<(Ipv4Cidr, Option<Ipv4Addr>)>,
        now: Instant,
    ) -> Option<News> {
        let before = core::mem::replace(&mut self.address, given.map(|(address, _)| address));
        self.doubtful = false;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room for one.
            let _ = given.map(|(address, _)| addresses.push(IpCidr::Ipv4(address)));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some((_, Some(router))) = given {
            // And for one of these.
            let _ = routes.add_default_ipv4_route(router);
        }
        self.complain_at = now.after(COMPLAINT_PAUSE_MS);
        match (before, self.address) {
            (before, after) if before == after => None,
            (_, Some(address)) => Some(News::Address(address)),
            (_, None) => Some(News::Lost),
        }
    }
}

/// Whether an address can be one machine's.
fn is_somebodys(address: &Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

/// The stack counts milliseconds too, in a number of another kind.
fn stack_time(now: Instant) -> StackInstant {
    StackInstant::from_millis(now.as_millis() as i64)
}

/// Frames taken in one turn: a few of each connection's window.
const FRAMES_A_TURN: usize = 32;

/// Without an address for so long it is said, and said again so often.
const SILENT_MS: u64 = 10_000;
const COMPLAINT_PAUSE_MS: u64 = 60_000;

/// How often the cable is looked at while it is out, and while it is in.
const LOOK_MS: u64 = 500;
const LOOK_UP_MS: u64 = 5_000;

#[cfg(test)]
mod tests;
