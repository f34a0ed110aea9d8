//! A port that the router forwards to us: what is asked for, and what routers answer.
//!
//! [`pcp`] and [`natpmp`] know how both look on the wire, [`mapper`] whom to ask what and when, and
//! keeps the port for as long as it is polled. None of them touches a socket, a clock or a source
//! of randomness.
//!
//! The service (`service/portmap`) sends from a socket connected to the router's port
//! [`ROUTER_PORT`], so that nobody else is heard, and turns to UPnP after [`Output::Failed`].

pub mod mapper;
pub mod natpmp;
pub mod pcp;

pub use mapper::{Mapper, Output, Wish};

use core::fmt;
use core::net::IpAddr;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The language a router understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
}

/// Why a router says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks another version of the protocol.
    Version,
    /// Its owner has not allowed it.
    NotAuthorised,
    /// It does not do such things.
    NotOffered,
    /// It has no address of its own at the moment.
    NoConnection,
    /// It has given away all it has.
    NoRoom,
    /// It sees us at another address than we have: another router is between us.
    OtherNetwork,
    /// It said yes and meant no: for no time, or no port.
    Nothing,
    /// Another number.
    Other(u16),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Version => "it speaks another version",
            Refusal::NotAuthorised => "not authorised",
            Refusal::NotOffered => "it does not offer that",
            Refusal::NoConnection => "it has no connection itself",
            Refusal::NoRoom => "it has no room for more",
            Refusal::OtherNetwork => "there is another router between",
            Refusal::Nothing => "it grants nothing",
            Refusal::Other(number) => return write!(f, "error {number}"),
        })
    }
}

/// What a router has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Its address outside, if it has one.
    Address(Option<IpAddr>),
    /// A port.
    Port {
        /// What it is outside.
        external_port: u16,
        /// For how long.
        lifetime_s: u32,
        /// At which address, where the protocol says so.
        external_ip: Option<IpAddr>,
    },
}

/// What a router says to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Seconds since it last forgot everything.
    pub epoch_s: u32,
    /// Yes or no.
    pub outcome: Result<Granted, Refusal>,
    /// For how long a no is one.
    pub hold_off_s: u32,
}

/// What a router forwards to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// How it was asked.
    pub protocol: Protocol,
    /// Its address outside, if it has said it.
    pub external_ip: Option<IpAddr>,
    /// The port outside.
    pub tcp_port: u16,
    /// The same for datagrams; none when it forwards only connections.
    pub udp_port: Option<u16>,
}

/// Why nothing is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the router said; nothing when it said nothing at all.
    pub refusal: Option<Refusal>,
    /// How long to wait before it is asked again.
    pub hold_off_ms: u64,
}

impl Transport {
    /// Both, TCP first.
    pub const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    const fn index(self) -> usize {
        match self {
            Transport::Tcp => 0,
            Transport::Udp => 1,
        }
    }
}

/// Where routers are asked (RFC 6886, section 3; RFC 6887, section 19.1).
pub const ROUTER_PORT: u16 = 5351;

/// Where routers tell everybody that they have restarted.
pub const ANNOUNCE_PORT: u16 = 5350;
