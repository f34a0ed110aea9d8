//! Addresses of nodes and peers, packed: 18 bytes for either family, as IPv6 writes both.
//!
//! Everything a stranger says about an address is judged here, in one place: whether anybody can
//! be there, whether it lies in a private network, where no stranger may send us, and who counts as
//! one crowd, so that nobody is many by having many addresses.

use super::id::NodeId;
use crate::engine::announce::{Family, can_be_dialled, is_private};
use crate::engine::bencode::Sink;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 in the clothes of IPv6.
    ip: [u8; 16],
    port: u16,
}

impl Endpoint {
    /// Packs an address; an interface's number is left out, for no stranger can name ours.
    pub fn of(address: SocketAddr) -> Endpoint {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Endpoint { ip: ip.octets(), port: address.port() }
    }

    /// Reads what is on the wire: 6 or 18 bytes, nothing else (BEP 5, BEP 32).
    pub fn parse(bytes: &[u8]) -> Option<Endpoint> {
        let (ip, port) = bytes.split_last_chunk()?;
        let v4 = <[u8; 4]>::try_from(ip).map(IpAddr::from);
        let ip = v4.or(<[u8; 16]>::try_from(ip).map(IpAddr::from)).ok()?;
        Some(Endpoint::of(SocketAddr::new(ip, u16::from_be_bytes(*port))))
    }

    /// Writes it as it stands on the wire.
    pub fn write<S: Sink>(&self, sink: &mut S) -> Result<(), S::Error> {
        sink.put(self.ip_bytes())?;
        sink.put(&self.port.to_be_bytes())
    }

    /// Unpacked.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port)
    }

    /// Its address alone.
    pub fn ip(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.ip)).to_canonical()
    }

    /// The same address with another port.
    pub fn with_port(self, port: u16) -> Endpoint {
        Endpoint { port, ..self }
    }

    /// The bytes of the address as its family writes them.
    pub fn ip_bytes(&self) -> &[u8] {
        match self.family() {
            Family::V4 => &self.ip[12..],
            Family::V6 => &self.ip,
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        if self.ip().is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Whether a node or peer can be there that a stranger may send us to: with `allow_private`
    /// (a test, or a network of its own) it may be in a private network too.
    pub fn may_be_followed(&self, allow_private: bool) -> bool {
        can_be_dialled(&self.address()) && (allow_private || !self.is_private())
    }

    /// Nothing that can be reached from anywhere. Such addresses bear any name (BEP 42,
    /// *Enforcement*).
    pub fn is_private(&self) -> bool {
        is_private(self.ip())
    }

    /// Whether a node there may have that name (BEP 42).
    pub fn may_bear(&self, id: &NodeId) -> bool {
        self.is_private() || id.suits(self.ip())
    }

    /// One address of IPv4, a network of 64 bits over IPv6: who has it is one, whatever it does. At
    /// a private address may be as many as somebody tests with, each at a port of its own.
    pub fn crowd(&self) -> u64 {
        match self.ip() {
            _ if self.is_private() => self.alone(),
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        }
    }

    /// A wider circle, as one customer of a provider may have it: 24 bits of IPv4, 48 of IPv6.
    pub fn circle(&self) -> u64 {
        match self.family() {
            _ if self.is_private() => self.alone(),
            Family::V4 => self.crowd() >> 8,
            Family::V6 => self.crowd() >> 16,
        }
    }

    /// A number that nobody shares but by a rare chance.
    fn alone(&self) -> u64 {
        let ip = u128::from_be_bytes(self.ip);
        (ip as u64 ^ (ip >> 64) as u64).rotate_left(16) ^ u64::from(self.port)
    }
}

/// Bytes of an address and port of `family` on the wire.
pub const fn endpoint_bytes(family: Family) -> usize {
    match family {
        Family::V4 => 6,
        Family::V6 => 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::of(text.parse().unwrap())
    }

    #[test]
    fn both_families_pack_and_unpack() {
        for (text, bytes) in [("192.0.2.1:6881", 6), ("[2001:db8::1]:1", 18)] {
            let there = endpoint(text);
            let mut wire = heapless::Vec::<u8, 18>::new();
            there.write(&mut wire).unwrap();
            assert_eq!((wire.len(), endpoint_bytes(there.family())), (bytes, bytes));
            assert_eq!(Endpoint::parse(&wire), Some(there));
            assert_eq!(there.address(), text.parse().unwrap());
            for cut in 0..wire.len() {
                assert!(cut == 6 || Endpoint::parse(&wire[..cut]).is_none());
            }
        }
        assert_eq!(endpoint("[::ffff:192.0.2.1]:5"), endpoint("192.0.2.1:5"));
        assert_eq!(size_of::<Endpoint>(), 18);
    }

    #[test]
    fn strangers_send_us_to_public_addresses_only() {
        for text in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            assert!(endpoint(text).may_be_followed(false), "{text}");
        }
        for text in ["127.0.0.1:1", "10.0.0.1:1", "169.254.1.1:1", "[::1]:1", "100.64.0.1:1"] {
            assert!(!endpoint(text).may_be_followed(false), "{text}");
            assert!(endpoint(text).may_be_followed(true), "{text}");
        }
        for text in ["192.0.2.1:0", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1", "0.0.0.0:1"]
        {
            assert!(!endpoint(text).may_be_followed(true), "{text}");
        }
    }

    #[test]
    fn a_network_of_64_bits_is_one_crowd() {
        assert_eq!(endpoint("[2001:db8::1]:1").crowd(), endpoint("[2001:db8::2]:2").crowd());
        assert_ne!(endpoint("192.0.2.1:1").crowd(), endpoint("192.0.2.2:1").crowd());
        assert_eq!(endpoint("192.0.2.1:1").crowd(), endpoint("192.0.2.1:2").crowd());
        assert_ne!(endpoint("127.0.0.1:1").crowd(), endpoint("127.0.0.1:2").crowd());
        assert_ne!(endpoint("[::1]:1").circle(), endpoint("[::1]:2").circle());
        assert_eq!(endpoint("192.0.2.1:1").circle(), endpoint("192.0.2.2:1").circle());
        assert_ne!(endpoint("192.0.2.1:1").circle(), endpoint("192.0.3.1:1").circle());
    }
}
