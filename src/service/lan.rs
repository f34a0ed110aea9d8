//! What counts as the LAN: an interface's own prefix, and an address that is private.
//!
//! Both are asked for: behind a carrier's NAT half the neighbourhood has private addresses, and on
//! a public network the neighbours share the prefix.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::{IpAddr, SocketAddr};
use std::string::{String, ToString as _};
use std::vec::Vec;

/// The addresses of this machine's interfaces, with their prefixes.
#[derive(Clone, Debug, Default)]
pub struct Lan {
    interfaces: Vec<Interface>,
}

/// One address of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    ip: IpAddr,
    prefix: u8,
    /// The interface's number.
    index: u32,
}

impl Lan {
    /// Asks the system.
    pub fn look() -> Lan {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        let interfaces = interfaces.map(|interface| {
            let index = interface.index.unwrap_or(0);
            let (ip, prefix) = match interface.addr {
                if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            Interface { ip, prefix, index }
        });
        Lan { interfaces: interfaces.collect() }
    }

    /// Whether an address is in the house.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match ip {
            _ if ip.is_loopback() => true,
            IpAddr::V4(v4) => (v4.is_private() || v4.is_link_local()) && self.shares_a_prefix(ip),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || self.shares_a_prefix(ip),
        }
    }

    /// Addresses under which somebody on the LAN can reach `port` here.
    pub fn reachable_at(&self, port: u16) -> impl Iterator<Item = SocketAddr> {
        let usable = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
            // A link-local address means nothing without the name of an interface.
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let addresses = self.interfaces.iter().map(|interface| interface.ip).filter(usable);
        addresses.map(move |ip| SocketAddr::new(ip, port))
    }

    /// Addresses and numbers of the interfaces on which somebody may be told that we listen at
    /// `listen`: all but loopback, or the one that has just that address.
    pub fn interfaces(&self, listen: IpAddr) -> impl Iterator<Item = (IpAddr, u32)> {
        let only = self.interfaces.iter().find(|interface| interface.ip == listen);
        let only = only.map(|interface| interface.index);
        let all = self.interfaces.iter().filter(move |interface| {
            let heard = listen.is_unspecified() || only == Some(interface.index);
            heard && !interface.ip.is_loopback()
        });
        all.map(|interface| (interface.ip, interface.index))
    }

    fn shares_a_prefix(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|Interface { ip: own, prefix, .. }| match (own, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
                *prefix > 0 && own.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*prefix)).unwrap_or(0);
                *prefix > 0 && own.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        })
    }
}

/// A magnet link (BEP 9): name, size, trackers, and where a peer on the LAN can connect to.
pub fn magnet(
    info_hash: &crate::engine::units::InfoHash,
    name: &str,
    bytes: u64,
    trackers: impl Iterator<Item = impl AsRef<str>>,
    peers: impl Iterator<Item = SocketAddr>,
) -> String {
    let name = percent_encoded(name);
    let mut link = std::format!("magnet:?xt=urn:btih:{info_hash}&dn={name}&xl={bytes}");
    for tracker in trackers {
        link += &std::format!("&tr={}", percent_encoded(tracker.as_ref()));
    }
    for peer in peers {
        link += &std::format!("&x.pe={peer}");
    }
    link
}

/// Text as it stands in an address.
pub fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Everything but what may stand in a query as it is (RFC 3986).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::InfoHash;

    #[test]
    fn the_lan_is_a_prefix_of_ours_and_a_private_address() {
        let interfaces = [("192.168.1.5", 24), ("198.51.100.7", 24), ("2001:db8::1", 64)];
        let interfaces =
            interfaces.map(|(ip, prefix)| Interface { ip: ip.parse().unwrap(), prefix, index: 1 });
        let lan = Lan { interfaces: interfaces.to_vec() };
        let inside = ["192.168.1.200", "127.0.0.1", "::1", "fe80::9", "2001:db8::77"];
        let outside = ["192.168.2.1", "10.0.0.1", "198.51.100.8", "8.8.8.8", "2001:db8:1::1"];
        assert!(inside.iter().all(|ip| lan.contains(ip.parse().unwrap())));
        assert!(!outside.iter().any(|ip| lan.contains(ip.parse().unwrap())));
        assert!(lan.contains("::ffff:192.168.1.9".parse().unwrap()));
        let reachable: Vec<_> = lan.reachable_at(7).collect();
        let wanted = ["192.168.1.5:7", "[2001:db8::1]:7"].map(|at| at.parse().unwrap());
        assert_eq!(reachable, wanted);
    }

    #[test]
    fn a_magnet_link_holds_everything_in_its_own_letters() {
        let link = magnet(
            &InfoHash::V1([0xab; 20]),
            "ä b&c",
            7,
            ["http://t/a?b=c"].iter(),
            ["[fd00::1]:6881".parse().unwrap()].into_iter(),
        );
        assert!(link.starts_with("magnet:?xt=urn:btih:abab"));
        assert!(link.ends_with(
            "&dn=%C3%A4%20b%26c&xl=7&tr=http%3A%2F%2Ft%2Fa%3Fb%3Dc&x.pe=[fd00::1]:6881"
        ));
    }

    #[test]
    fn a_magnet_link_of_ours_is_read_back() {
        let info_hash = InfoHash::V1(std::array::from_fn(|at| at as u8 * 13));
        let name = "50% + \u{e4} &amp; [x]=\"1\" 日本.mkv";
        let trackers = ["udp://t.example:80/announce?k=1&l=%2B", "https://u.example/a+b"];
        let peers = ["192.0.2.1:6881", "[fd00::1]:7"].map(|peer| peer.parse().unwrap());
        let link = magnet(&info_hash, name, u64::MAX, trackers.iter(), peers.into_iter());
        let read = crate::engine::magnet::Magnet::parse(&link).unwrap();
        assert_eq!((read.info_hash, read.v2, read.bytes), (info_hash, None, Some(u64::MAX)));
        assert_eq!(read.name().unwrap().text(&mut [0; 99]), Ok(name));
        let decoded = read.trackers().map(|tracker| {
            let mut room = [0; 99];
            String::from(tracker.text(&mut room).unwrap())
        });
        assert_eq!(decoded.collect::<Vec<_>>(), trackers);
        assert_eq!(read.peers().collect::<Vec<_>>(), peers.map(Ok));
    }
}
