//! One router asked in PCP or NAT-PMP: datagrams between the engine's mapper and a socket.
//!
//! The socket is connected to the router's port, so the kernel lets through nobody else's answers
//! and tells when nobody listens there. A second one hears what routers tell everybody when they
//! have restarted; without it that is seen when the port is asked for again.
//!
//! Journey 3: what others are told to connect to follows from what is granted here.

use super::is_ours;
use crate::engine::portmap::pcp::{self, Nonce};
use crate::engine::portmap::{ANNOUNCE_PORT, Failure, Mapper, Mapping, Output, ROUTER_PORT, Wish};
use crate::service::Service;
use crate::service::announcer::random;
use crate::service::clock::Slot;
use async_io::Async;
use sha2::{Digest, Sha256};
use smol::future;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::string::String;

/// A way to one router, from an address of ours.
pub struct Path {
    router: Async<UdpSocket>,
    /// Over IPv4 only.
    announcements: Option<Async<UdpSocket>>,
    gateway: SocketAddr,
    local: SocketAddr,
}

impl Path {
    /// To the router at `gateway`, from our address `from`, or from any.
    pub fn open(from: IpAddr, gateway: SocketAddr) -> io::Result<Path> {
        let router = UdpSocket::bind((from, 0))?;
        router.connect(gateway)?;
        let local = router.local_addr()?;
        let announcements = match gateway.is_ipv4() {
            true => hear_announcements().map_err(|error| debug!("port {ANNOUNCE_PORT}: {error}")),
            false => Err(()),
        };
        let (router, announcements) = (Async::new(router)?, announcements.ok());
        Ok(Path { router, announcements, gateway, local })
    }

    /// Our address, as the router sees it.
    pub fn local(&self) -> IpAddr {
        self.local.ip()
    }
}

/// Where a router of IPv4 is asked.
pub fn router(gateway: Ipv4Addr) -> SocketAddr {
    (gateway, ROUTER_PORT).into()
}

/// The same over IPv6, on the interface of that number.
pub fn router_v6(gateway: std::net::Ipv6Addr, interface: u32) -> SocketAddr {
    SocketAddrV6::new(gateway, ROUTER_PORT, 0, interface).into()
}

/// Keeps the port forwarded for as long as the router does that, and gives it back at the end.
/// `None` is that end.
pub async fn keep(
    service: &Service<'_>,
    slot: Slot,
    path: &Path,
    mut mapped: impl FnMut(Mapping),
) -> Option<Failure> {
    let port = service.listen.port();
    let gateway = path.gateway.ip();
    let wish = Wish { gateway, client: path.local(), port, nonce: nonce(port) };
    let mut mapper = Mapper::new(wish, service.clock.now());
    loop {
        if service.portmap.is_stopping() {
            mapper.stop(service.clock.now());
        }
        let deadline = match mapper.poll_output(service.clock.now()) {
            Output::Send(bytes) => {
                match path.router.get_ref().send(bytes).map_err(|error| error.kind()) {
                    // What has no room in the kernel is lost, as datagrams are, and sent again.
                    Ok(_) | Err(io::ErrorKind::WouldBlock) if is_ours(service, path.local()) => {}
                    Err(io::ErrorKind::ConnectionRefused) => {
                        mapper.handle_unreachable(service.clock.now());
                    }
                    // We have moved, or the network is down: there may be another way.
                    _ => return Some(Failure { refusal: None, hold_off_ms: 0 }),
                }
                continue;
            }
            Output::Mapped(mapping) => {
                mapped(mapping);
                continue;
            }
            Output::Failed(failure) => return Some(failure),
            Output::Wait(deadline) => deadline,
        };
        if mapper.is_over() {
            return None;
        }
        let mut datagram = [0; pcp::BYTES_MAX];
        let mut announcement = [0; ANNOUNCEMENT_BYTES_MAX];
        let heard = async { Woken::Heard(path.router.recv(&mut datagram).await) };
        let told = async { Woken::Told(hear(path, &mut announcement).await) };
        let due = async {
            service.clock.wait(slot, deadline).await;
            Woken::Due
        };
        let woken = future::or(heard, future::or(told, due)).await;
        let now = service.clock.now();
        match woken {
            Woken::Heard(Ok(length)) => mapper.handle_datagram(gateway, &datagram[..length], now),
            Woken::Heard(Err(_)) => mapper.handle_unreachable(now),
            Woken::Told((length, from)) => {
                mapper.handle_announcement(from, &announcement[..length], now);
            }
            Woken::Due => continue,
        }
        // Others have their turn between two datagrams, however fast they come.
        future::yield_now().await;
    }
}

enum Woken {
    Heard(io::Result<usize>),
    Told((usize, IpAddr)),
    Due,
}

/// The next announcement, or never.
async fn hear(path: &Path, announcement: &mut [u8]) -> (usize, IpAddr) {
    let Some(socket) = &path.announcements else { return future::pending().await };
    match socket.recv_from(announcement).await {
        Ok((length, from)) => (length, from.ip()),
        Err(_) => future::pending().await,
    }
}

/// Routers speak to all hosts (224.0.0.1), which no host has to join. Other programs may listen
/// too.
fn hear_announcements() -> io::Result<Async<UdpSocket>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCE_PORT));
    socket.bind(&any.into())?;
    Async::new(UdpSocket::from(socket))
}

/// What tells our questions from others': the same after a restart, for a router takes who comes
/// with another nonce for somebody else until what it granted before has run out. Nobody can guess
/// it who does not know the machine's id.
fn nonce(port: u16) -> Nonce {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    nonce_of(machine.trim(), port).unwrap_or_else(|| {
        let mut chance = [0; 12];
        chance.chunks_mut(4).for_each(|part| part.copy_from_slice(&random().to_le_bytes()));
        Nonce(chance)
    })
}

fn nonce_of(machine: &str, port: u16) -> Option<Nonce> {
    if machine.len() < MACHINE_ID_BYTES {
        return None;
    }
    let told: String = std::format!("perennial port {port} {machine}");
    let hash: [u8; 32] = Sha256::digest(told.as_bytes()).into();
    hash.first_chunk().map(|chunk| Nonce(*chunk))
}

/// An id of a machine (machine-id(5)); one that is shorter is not there yet.
const MACHINE_ID_BYTES: usize = 32;

/// An announcement is a head of PCP, or an address in NAT-PMP.
const ANNOUNCEMENT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_is_the_machines_and_the_ports() {
        let machine = "0123456789abcdef0123456789abcdef";
        let nonce = nonce_of(machine, 6881).unwrap();
        assert_eq!(nonce_of(machine, 6881), Some(nonce));
        assert_ne!(nonce_of(machine, 6882), Some(nonce));
        assert_ne!(nonce_of(&machine.replace('0', "1"), 6881), Some(nonce));
        assert_eq!(nonce_of("uninitialized", 6881), None);
    }
}
