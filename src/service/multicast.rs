//! A group on the LAN, heard and spoken to on every interface.

use super::lan::Lan;
use async_io::Async;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// A socket that hears a group. Other programs may listen too.
pub struct Ear {
    group: SocketAddr,
    /// Where it is heard: on every interface, or on the one that has this address.
    listen: IpAddr,
    socket: Async<UdpSocket>,
}

impl Ear {
    /// Hears a group on the interfaces of `listen`.
    pub fn open(group: SocketAddr, lan: &Lan, listen: IpAddr) -> io::Result<Ear> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        let any: IpAddr = match group {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                Ipv6Addr::UNSPECIFIED.into()
            }
        };
        socket.bind(&SocketAddr::new(any, group.port()).into())?;
        let ear = Ear { group, listen, socket: Async::new(UdpSocket::from(socket))? };
        ear.join(lan);
        Ok(ear)
    }

    /// Hears it on interfaces that have come since.
    pub fn join(&self, lan: &Lan) {
        for (ip, index) in lan.interfaces(self.listen) {
            let socket = self.socket.get_ref();
            let joined = match (self.group.ip(), ip) {
                (IpAddr::V4(group), IpAddr::V4(ip)) => socket.join_multicast_v4(&group, &ip),
                (IpAddr::V6(group), IpAddr::V6(_)) => socket.join_multicast_v6(&group, index),
                _ => continue,
            };
            if let Err(error) = joined.or_else(joined_already) {
                debug!("{} on {ip}: {error}", self.group);
            }
        }
    }

    /// Says something on every interface. One that takes nothing now is spoken on again another time.
    pub fn say(&self, lan: &Lan, datagram: &[u8]) {
        for (ip, index) in lan.interfaces(self.listen) {
            if let Err(error) = self.say_on(ip, index, datagram) {
                debug!("{} on {ip}: {error}", self.group);
            }
        }
    }

    fn say_on(&self, ip: IpAddr, index: u32, datagram: &[u8]) -> io::Result<()> {
        let raw = SockRef::from(&self.socket);
        match (self.group, ip) {
            (SocketAddr::V4(_), IpAddr::V4(ip)) => raw.set_multicast_if_v4(&ip)?,
            (SocketAddr::V6(_), IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
                raw.set_multicast_if_v6(index)?;
            }
            _ => return Ok(()),
        }
        raw.send_to(datagram, &SockAddr::from(self.group)).map(|_| ())
    }

    /// Says something to one who asked.
    pub fn say_to(&self, to: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.socket.get_ref().send_to(datagram, to) {
            debug!("{}: to {to}: {error}", self.group);
        }
    }

    /// The next that is said, and by whom.
    pub async fn hear(&self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(datagram).await
    }
}

/// A group that is joined twice is an error that means nothing.
fn joined_already(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AddrInUse { Ok(()) } else { Err(error) }
}
