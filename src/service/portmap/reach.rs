//! How others reach the box from outside, as far as it is known, in plain words.
//!
//! What came of asking is said once per change, as the log's own line, and kept for whoever asks
//! later: a page, a line of figures, the announcer.

use super::igd::Fault;
use crate::engine::announce::is_private;
use crate::engine::portmap::Refusal;
use crate::service::Service;
use crate::service::clock::Bell;
use core::fmt;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::string::String;

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
    pub(super) is_stopping: Cell<bool>,
    pub(super) at_work: Cell<bool>,
    /// Rung when nothing is at work any more.
    pub(super) over: Bell,
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

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Takes note of what came of it over IPv4, and says it when it is news.
    pub(super) fn note(&self, outcome: Reachability) {
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

    pub(super) fn note_problem(&self, problem: Problem) {
        self.note(Reachability { problem: Some(problem), ..Reachability::default() });
    }

    pub(super) fn note_mapped(
        &self,
        method: Method,
        external_ip: Option<IpAddr>,
        external_port: u16,
    ) {
        let shared = external_ip.filter(|ip| !is_public(*ip)).map(Problem::Shared);
        self.note(Reachability {
            method: Some(method),
            external_ip,
            external_port: Some(external_port),
            problem: shared,
            ..Reachability::default()
        });
    }

    pub(super) fn note_pinhole(&self, pinhole: Option<SocketAddr>) {
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

/// Whether others can be sent there, as far as an address can tell.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => !is_private(ip) && !v4.is_multicast(),
        // 2000::/3 is all that has been given out.
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// 100.64.0.0/10: between a carrier's translator and its customers (RFC 6598).
fn is_of_a_carrier(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
}

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
