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
mod reach;
mod route;
mod ssdp;
mod upnp;
mod xml;

pub use igd::Fault;
pub use reach::{Method, Portmap, Problem, Reachability};

use super::Service;
use super::clock::Slot;
use crate::engine::portmap::{Mapping, Protocol, Refusal};
use crate::engine::units::Deadline;
use datagrams::Path;
use reach::is_public;
use smol::future;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::Poll;
use upnp::{Kept, No, Place};

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

/// Whether an address is still one of this machine.
fn is_ours(service: &Service<'_>, ip: IpAddr) -> bool {
    let any = Ipv4Addr::UNSPECIFIED.into();
    service.lan().interfaces(any).any(|(own, _)| own == ip)
}

fn slot_of(service: &Service<'_>, family: usize) -> Slot {
    service.clock.slot(service.duties.portmap + family)
}

/// Slots on the clock: one for each family.
pub const FAMILIES: usize = 2;

/// Places of [`Clock::sleep`](super::clock::Clock::sleep) at a time: two for giving both ports back
/// by UPnP, one for the end of that.
pub const SLEEPERS: usize = 3;

/// Takes a description or an answer in UPnP, whole; descriptions of 2 to 20 KiB have been seen.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// What asks over both families, with room for the longest datagrams: 19.5 KiB were measured.
pub const TASK_BYTES: usize = 24 * 1024;

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

    #[test]
    fn the_task_has_the_room_its_line_of_the_contract_says() {
        fn size<F: Future>(_: impl Fn(&'static Service<'static>) -> F) -> usize {
            size_of::<F>()
        }
        let task = size(run);
        assert!(task <= TASK_BYTES, "{task} bytes");
    }
}
