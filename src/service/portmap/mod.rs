//! The box made reachable from outside: the router asked to forward the peer port, and only that.
//!
//! ```text
//! default gateway (route) -> PCP, NAT-PMP (datagrams) -> UPnP (ssdp, igd, upnp) -> Reachability
//!      none: again later      no, or no answer            no, or no answer: again later
//! ```
//!
//! Over IPv4 the first that works is kept for as long as the box runs, and given back when it
//! stops. Over IPv6, where nothing is translated, a router that speaks PCP is asked to let others
//! in to the address we go out from. Nothing is asked for with `--lan`, nor when the box listens on
//! loopback only. What came of it is said once per change and kept in [`Reachability`].
//!
//! Nothing a router says leads further than the LAN, and nothing grows: one buffer of
//! [`BUFFER_BYTES`] takes whatever it sends over HTTP.
//!
//! Journey 3: the port others must be told is [`Service::external_port`].

mod datagrams;
mod igd;
mod route;
mod ssdp;
mod upnp;
mod xml;

use super::Service;
use super::clock::{Bell, Slot};
use crate::engine::portmap::{Mapping, Protocol, Refusal};
use crate::engine::units::Deadline;
use core::fmt;
use datagrams::Path;
use igd::Fault;
use log::{debug, info, warn};
use smol::future;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::string::String;
use std::task::Poll;
use upnp::{Kept, No, Place};

/// How others reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// We have a public address: there is nothing to forward.
    Direct,
    /// The router was asked in PCP (RFC 6887).
    Pcp,
    /// In NAT-PMP (RFC 6886).
    NatPmp,
    /// By UPnP.
    Upnp,
}

/// Why others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no default route over IPv4.
    NoRoute,
    /// No router answered.
    Silent,
    /// The router said no, to what was asked first.
    Refused(Refusal),
    /// It said no, by UPnP.
    RefusedByUpnp(Fault),
    /// The address outside is not public.
    Shared(IpAddr),
}

/// What is known of how others reach us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// The port we listen on.
    pub port: u16,
    /// How over IPv4, if at all.
    pub method: Option<Method>,
    /// Our address outside, where it is known.
    pub external_ip: Option<IpAddr>,
    /// Our port outside, where it is forwarded.
    pub external_port: Option<u16>,
    /// Why not.
    pub problem: Option<Problem>,
    /// Where the router lets others in over IPv6, if it was asked and did.
    pub pinhole: Option<SocketAddr>,
}

impl fmt::Display for Reachability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match (self.problem, self.method, self.external_ip) {
            (Some(problem), ..) => problem.write(port, f),
            (None, Some(Method::Direct), Some(ip)) => {
                write!(f, "this machine has a public address: others see {ip}:{port}")
            }
            (None, Some(method), ip) => {
                write!(f, "the router forwards port {port} (by {method}): others see ")?;
                let external_port = self.external_port.unwrap_or(port);
                match ip {
                    Some(ip) => write!(f, "{}", SocketAddr::new(ip, external_port)),
                    None => write!(f, "port {external_port}"),
                }
            }
            (None, None, _) => f.write_str("no router has been asked to let others in yet"),
        }
    }
}

impl Problem {
    fn write(self, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no = match self {
            Problem::NoRoute => {
                return f.write_str(
                    "this machine has no default route over IPv4, so there is no router to ask to \
                     let others in",
                );
            }
            Problem::Shared(IpAddr::V4(ip)) if !is_of_a_carrier(ip) => {
                return write!(
                    f,
                    "the router's own address is {ip}: there is another router before it, or your \
                     provider shares one address among customers (CGNAT): peers outside cannot \
                     connect to you over IPv4"
                );
            }
            Problem::Shared(_) => {
                return f.write_str(
                    "your provider shares one address among customers (CGNAT): peers outside \
                     cannot connect to you over IPv4",
                );
            }
            Problem::Silent => String::from("no router answered"),
            Problem::Refused(refusal) => std::format!("the router answered no ({refusal})"),
            Problem::RefusedByUpnp(fault) => std::format!("the router answered no ({fault})"),
        };
        write!(f, "{no}: switch on UPnP or NAT-PMP there, or forward port {port} by hand")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Direct => "itself",
            Method::Pcp => "PCP",
            Method::NatPmp => "NAT-PMP",
            Method::Upnp => "UPnP",
        })
    }
}

/// What the service holds of this: the last outcome, and the way to end it.
pub struct Portmap {
    outcome: RefCell<Reachability>,
    is_stopping: Cell<bool>,
    at_work: Cell<bool>,
    over: Bell,
}

impl Portmap {
    /// Nothing is known yet of how others reach `port`.
    pub fn new(port: u16) -> Portmap {
        Portmap {
            outcome: RefCell::new(Reachability { port, ..Reachability::default() }),
            is_stopping: Cell::new(false),
            at_work: Cell::new(false),
            over: Bell::default(),
        }
    }

    /// What is known now.
    pub fn reachability(&self) -> Reachability {
        *self.outcome.borrow()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Takes note of what came of it over IPv4, and says it when it is news.
    fn note(&self, outcome: Reachability) {
        let before = self.reachability();
        let outcome = Reachability { port: before.port, pinhole: before.pinhole, ..outcome };
        if outcome == before {
            return;
        }
        *self.outcome.borrow_mut() = outcome;
        match outcome.problem {
            None | Some(Problem::NoRoute) => info!("{outcome}"),
            Some(_) => warn!("{outcome}"),
        }
    }

    fn note_problem(&self, problem: Problem) {
        self.note(Reachability { problem: Some(problem), ..Reachability::default() });
    }

    fn note_mapped(&self, method: Method, external_ip: Option<IpAddr>, external_port: u16) {
        let shared = external_ip.filter(|ip| !is_public(*ip)).map(Problem::Shared);
        self.note(Reachability {
            method: Some(method),
            external_ip,
            external_port: Some(external_port),
            problem: shared,
            ..Reachability::default()
        });
    }

    fn note_pinhole(&self, pinhole: Option<SocketAddr>) {
        let before = self.outcome.borrow().pinhole;
        self.outcome.borrow_mut().pinhole = pinhole;
        if let Some(address) = pinhole.filter(|_| pinhole != before) {
            info!("the router lets others in over IPv6 (by PCP), to {address}");
        }
    }
}

impl Service<'_> {
    /// The port others must be told: the router's when it forwards one, else the one we listen on.
    pub fn external_port(&self) -> u16 {
        let external_port = self.portmap.reachability().external_port;
        external_port.unwrap_or(self.listen.port())
    }
}

/// Keeps the peer port forwarded until [`stop`].
pub async fn run(service: &Service<'_>) {
    let ip = service.listen.ip().to_canonical();
    if service.lan_only || ip.is_loopback() || service.portmap.is_stopping() {
        return;
    }
    service.portmap.at_work.set(true);
    let any = ip.is_unspecified();
    let over_v4 = async {
        if ip.is_ipv4() || any {
            run_v4(service, if any { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ip }).await;
        }
    };
    let over_v6 = async {
        if ip.is_ipv6() {
            run_v6(service, ip).await;
        }
    };
    future::zip(over_v4, over_v6).await;
    service.portmap.at_work.set(false);
    service.portmap.over.ring();
}

/// Has the port given back; over when it is, or after half a second.
pub async fn stop(service: &Service<'_>) {
    service.portmap.is_stopping.set(true);
    for family in 0..FAMILIES {
        service.clock.bell(slot_of(service, family)).ring();
    }
    let given_back = async {
        while service.portmap.at_work.get() {
            service.portmap.over.rung().await;
        }
    };
    future::or(given_back, service.clock.sleep(GIVE_BACK_MS, "giving the port back")).await;
}

async fn run_v4(service: &Service<'_>, from: IpAddr) {
    let slot = slot_of(service, 0);
    let mut buffer = std::vec![0; BUFFER_BYTES];
    let mut pause_ms = PAUSE_MS_MIN;
    while !service.portmap.is_stopping() {
        let began = service.clock.now();
        let hold_off_ms = attempt(service, slot, from, &mut buffer).await;
        // One that held for long has found a router; it is looked for again soon.
        if service.clock.now().since(began) > PAUSE_MS_MAX {
            pause_ms = PAUSE_MS_MIN;
        }
        pause(service, slot, pause_ms.max(hold_off_ms.min(PAUSE_MS_MAX))).await;
        pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
    }
}

/// From the default route to the end of what it leads to; how long the router wants to be left
/// alone.
async fn attempt(service: &Service<'_>, slot: Slot, from: IpAddr, buffer: &mut [u8]) -> u64 {
    let portmap = &service.portmap;
    let Some(gateway) = route::gateway_v4() else {
        portmap.note_problem(Problem::NoRoute);
        return 0;
    };
    let path = match Path::open(from, datagrams::router(gateway)) {
        Ok(path) => path,
        Err(error) => {
            debug!("the router at {gateway}: {error}");
            portmap.note_problem(Problem::NoRoute);
            return 0;
        }
    };
    let IpAddr::V4(client) = path.local() else { return 0 };
    if is_public(client.into()) {
        let external_ip = Some(client.into());
        let method = Some(Method::Direct);
        portmap.note(Reachability { method, external_ip, ..Reachability::default() });
        return PAUSE_MS_MAX;
    }
    let mapped = |mapping: Mapping| {
        let method = match mapping.protocol {
            Protocol::Pcp => Method::Pcp,
            Protocol::NatPmp => Method::NatPmp,
        };
        portmap.note_mapped(method, mapping.external_ip, mapping.tcp_port);
    };
    let Some(failure) = datagrams::keep(service, slot, &path, mapped).await else { return 0 };
    drop(path);
    let mapped = |ip, port| portmap.note_mapped(Method::Upnp, Some(ip), port);
    let problem = match upnp::keep(service, slot, Place { client, gateway }, buffer, mapped).await {
        // What was lost may be found again: there is nothing to say yet.
        Kept::Stopped | Kept::Lost => return 0,
        Kept::Refused(No::Fault(fault)) => Problem::RefusedByUpnp(fault),
        Kept::Refused(No::NoConnection) => Problem::Refused(Refusal::NoConnection),
        Kept::Silent => failure.refusal.map_or(Problem::Silent, Problem::Refused),
    };
    portmap.note_problem(problem);
    failure.hold_off_ms
}

async fn run_v6(service: &Service<'_>, from: IpAddr) {
    let slot = slot_of(service, 1);
    while !service.portmap.is_stopping() {
        match path_v6(from) {
            Ok(Some(path)) => {
                let inside = SocketAddr::new(path.local(), service.listen.port());
                let mapped = |mapping: Mapping| {
                    let ip = mapping.external_ip.unwrap_or(inside.ip());
                    let pinhole = SocketAddr::new(ip, mapping.tcp_port);
                    service.portmap.note_pinhole(Some(pinhole));
                };
                if let Some(failure) = datagrams::keep(service, slot, &path, mapped).await {
                    debug!("the router over IPv6: {:?}", failure.refusal);
                }
                service.portmap.note_pinhole(None);
            }
            Ok(None) => {}
            Err(error) => debug!("the router over IPv6: {error}"),
        }
        pause(service, slot, PAUSE_MS_MAX).await;
    }
}

/// From the address we go out from to the default gateway; none when one of them is missing.
fn path_v6(from: IpAddr) -> std::io::Result<Option<Path>> {
    let Some((gateway, interface)) = route::gateway_v6() else { return Ok(None) };
    let socket = UdpSocket::bind((from, 0))?;
    let interface = rustix::net::netdevice::name_to_index(&socket, &interface)?;
    // Sends nothing: asks the kernel which of our addresses leads outside.
    socket.connect((OUTSIDE, 9))?;
    let local = socket.local_addr()?.ip();
    let is_usable = is_public(local) && !local.to_canonical().is_ipv4();
    is_usable.then(|| Path::open(local, datagrams::router_v6(gateway, interface))).transpose()
}

/// Waits, unless the box stops.
async fn pause(service: &Service<'_>, slot: Slot, ms: u64) {
    let at = service.clock.now().after(ms);
    while service.clock.now() < at && !service.portmap.is_stopping() {
        service.clock.wait(slot, Deadline { at, why: "looking for a router again" }).await;
    }
}

/// Does something unless the box stops first. What is done must not wait at `slot` itself.
async fn until_stopped<T>(
    service: &Service<'_>,
    slot: Slot,
    doing: impl Future<Output = T>,
) -> Option<T> {
    let stopped = poll_fn(|cx| {
        if service.portmap.is_stopping() {
            return Poll::Ready(None);
        }
        let _ = service.clock.bell(slot).poll(cx);
        Poll::Pending
    });
    future::or(async { Some(doing.await) }, stopped).await
}

fn slot_of(service: &Service<'_>, family: usize) -> Slot {
    service.clock.slot(service.duties.portmap + family)
}

/// Whether others can be sent there, as far as an address can tell.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let is_here = ip.is_private() || ip.is_loopback() || ip.is_link_local();
            !is_here && !ip.is_unspecified() && !ip.is_multicast() && !is_of_a_carrier(ip)
        }
        // 2000::/3 is all that has been given out.
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// 100.64.0.0/10: between a carrier's translator and its customers (RFC 6598).
fn is_of_a_carrier(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
}

/// Slots on the clock: one for each family.
pub const FAMILIES: usize = 2;

/// Places of [`Clock::sleep`](super::clock::Clock::sleep) at a time: two for giving both ports back
/// by UPnP, one for the end of that.
pub const SLEEPERS: usize = 3;

/// Takes a description or an answer in UPnP, whole; descriptions of 2 to 20 KiB have been seen.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// A port is given back within this.
const GIVE_BACK_MS: u64 = 500;

/// A box that has started with its router, after a power cut, is ready first.
const PAUSE_MS_MIN: u64 = 60_000;

/// Between two looks for a router that is not there, or says no.
const PAUSE_MS_MAX: u64 = 16 * 60_000;

/// An address outside, of nobody in particular.
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn mapped(ip: &str) -> String {
        let portmap = Portmap::new(6881);
        portmap.note_mapped(Method::Pcp, Some(ip.parse().unwrap()), 40_000);
        portmap.reachability().to_string()
    }

    #[test]
    fn what_came_of_it_is_said_in_plain_words() {
        let portmap = Portmap::new(6881);
        assert_eq!(
            portmap.reachability().to_string(),
            "no router has been asked to let others in yet"
        );
        assert_eq!(
            mapped("203.0.113.7"),
            "the router forwards port 6881 (by PCP): others see 203.0.113.7:40000"
        );
        portmap.note_mapped(Method::NatPmp, None, 6881);
        let text = portmap.reachability().to_string();
        assert_eq!(text, "the router forwards port 6881 (by NAT-PMP): others see port 6881");
        portmap.note_problem(Problem::Refused(Refusal::NotAuthorised));
        assert_eq!(
            portmap.reachability().to_string(),
            "the router answered no (not authorised): switch on UPnP or NAT-PMP there, or forward \
             port 6881 by hand"
        );
        portmap.note_problem(Problem::RefusedByUpnp(Fault(718)));
        assert!(portmap.reachability().to_string().contains("others have every port"));
        portmap.note_problem(Problem::Silent);
        assert!(portmap.reachability().to_string().starts_with("no router answered: "));
        assert_eq!(portmap.reachability().port, 6881);
    }

    #[test]
    fn an_address_that_is_shared_is_no_address() {
        for ip in ["100.64.0.1", "100.127.255.255"] {
            let words = "your provider shares one address among customers (CGNAT): peers outside \
                         cannot connect to you over IPv4";
            assert_eq!(mapped(ip), words);
        }
        for ip in ["10.0.0.1", "192.168.0.1", "172.16.0.1", "169.254.0.1"] {
            let words = mapped(ip);
            assert!(words.starts_with(&std::format!("the router's own address is {ip}: ")));
            assert!(words.contains("(CGNAT): peers outside cannot"), "{words}");
        }
        for ip in ["100.63.0.1", "100.128.0.1", "198.51.100.1"] {
            assert!(mapped(ip).contains(ip));
        }
        assert!(is_public("2001:db8::1".parse().unwrap()));
        for ip in ["fd00::1", "fe80::1", "::1", "::ffff:10.0.0.1"] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_pinhole_outlives_what_happens_over_ipv4() {
        let portmap = Portmap::new(6881);
        let address = "[2001:db8::5]:6881".parse().unwrap();
        portmap.note_pinhole(Some(address));
        portmap.note_problem(Problem::Silent);
        assert_eq!(portmap.reachability().pinhole, Some(address));
    }
}
