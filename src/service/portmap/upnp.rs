//! One port kept forwarded by UPnP: a router found, told, and told again.
//!
//! ```text
//! search -> description -> an address outside? -> AddPortMapping TCP, UDP -> half an hour -> again
//!                                                  | 718: another port outside, 3 times
//!                                                  | 725, 402, 501: for ever, deleted at the end
//! ```
//!
//! A router that does not answer when it is told again is looked for anew: many listen at another
//! port after they have restarted. IPv6 firewalls (`WANIPv6FirewallControl`) are left to PCP.

use super::igd::{self, Control, Fault, Forward, IgdError};
use super::{is_ours, ssdp, until_stopped};
use crate::engine::portmap::Transport;
use crate::service::Service;
use crate::service::announcer::random;
use crate::service::clock::Slot;
use smol::future;
use std::net::{IpAddr, Ipv4Addr};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The box stops.
    Stopped,
    /// Nobody answered.
    Silent,
    /// A router said no.
    Refused(No),
    /// It was forwarded and may be no more.
    Lost,
}

/// A router's no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// It has no address outside.
    NoConnection,
    /// It says so.
    Fault(Fault),
}

/// Where we are, and where the router should be.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Our address.
    pub client: Ipv4Addr,
    /// Who is asked first.
    pub gateway: Ipv4Addr,
}

/// Keeps the port forwarded for as long as a router does that; `mapped` hears of the address and
/// port outside.
pub async fn keep(
    service: &Service<'_>,
    slot: Slot,
    place: Place,
    buffer: &mut [u8],
    mut mapped: impl FnMut(IpAddr, u16),
) -> Kept {
    let searching = ssdp::search(service, place.client, place.gateway);
    let Some(found) = until_stopped(service, slot, searching).await else { return Kept::Stopped };
    let mut verdict = Kept::Silent;
    for location in &found {
        let describing = igd::describe(service, location, buffer);
        let controls = match until_stopped(service, slot, describing).await {
            Some(Ok(controls)) => controls,
            Some(Err(error)) => {
                debug!("the router at {}: {error}", location.address);
                continue;
            }
            None => return Kept::Stopped,
        };
        for control in &controls {
            let mut held = Held::new(service, control, place.client);
            let keeping = held.keep(buffer, &mut mapped);
            match until_stopped(service, slot, keeping).await {
                Some(Kept::Silent) => {}
                Some(refused @ Kept::Refused(_)) => verdict = refused,
                Some(kept) => return kept,
                None => {
                    held.give_back(buffer).await;
                    return Kept::Stopped;
                }
            }
        }
    }
    verdict
}

/// What one router forwards to us, as far as we know.
struct Held<'a, 's> {
    service: &'a Service<'s>,
    control: &'a Control,
    client: Ipv4Addr,
    /// The port we have outside, or try next.
    external_port: u16,
    /// 0 once the router turned out to forward for ever only.
    lease_s: u32,
    /// The ports that may be ours, TCP's first: set before they are asked for.
    ports: [Option<u16>; 2],
}

impl<'a, 's> Held<'a, 's> {
    fn new(service: &'a Service<'s>, control: &'a Control, client: Ipv4Addr) -> Held<'a, 's> {
        let external_port = service.listen.port();
        Held { service, control, client, external_port, lease_s: LEASE_S, ports: [None; 2] }
    }

    /// Until the router says no, or nothing.
    async fn keep(&mut self, buffer: &mut [u8], mapped: &mut impl FnMut(IpAddr, u16)) -> Kept {
        let mut is_mapped = false;
        loop {
            match self.turn(buffer).await {
                Ok(Some(ip)) => mapped(ip, self.external_port),
                Ok(None) => return Kept::Refused(No::NoConnection),
                Err(error) => {
                    debug!("{}: {error}", self.control);
                    return match error {
                        IgdError::Fault(number) => Kept::Refused(No::Fault(Fault(number))),
                        _ if is_mapped => Kept::Lost,
                        _ => Kept::Silent,
                    };
                }
            }
            is_mapped = true;
            self.service.clock.sleep(RENEW_MS, "the forwarded port").await;
            if !is_ours(self.service, self.client.into()) {
                return Kept::Lost;
            }
        }
    }

    /// Asks for the address outside, then for both ports; the address when they are ours.
    async fn turn(&mut self, buffer: &mut [u8]) -> Result<Option<IpAddr>, IgdError> {
        let ip = self.control.external_ip(self.service, buffer).await?;
        if ip.is_some() {
            self.map(buffer).await?;
        }
        Ok(ip)
    }

    async fn map(&mut self, buffer: &mut [u8]) -> Result<(), IgdError> {
        let mut conflicts = 0;
        loop {
            let had = self.ports[0].is_some();
            let number = match self.add(0, buffer).await {
                Ok(()) => break,
                Err(IgdError::Fault(number)) => number,
                Err(error) => return Err(error),
            };
            if Fault(number).is_conflict() && had {
                // Some take us for another when we ask again.
                self.control
                    .delete(self.service, Transport::Tcp, self.external_port, buffer)
                    .await?;
            } else if Fault(number).is_conflict() && conflicts < CONFLICTS_MAX {
                conflicts += 1;
                self.external_port = PORTS_FROM + (random() % u32::from(PORTS)) as u16;
            } else if Fault(number).may_be_the_lease() && self.lease_s > 0 {
                self.lease_s = 0;
            } else {
                return Err(IgdError::Fault(number));
            }
        }
        // Connections are enough.
        if let Err(error) = self.add(1, buffer).await {
            debug!("{}, asked to forward datagrams: {error}", self.control);
        }
        Ok(())
    }

    async fn add(&mut self, which: usize, buffer: &mut [u8]) -> Result<(), IgdError> {
        let forward = Forward {
            transport: Transport::BOTH[which],
            external_port: self.external_port,
            client: self.client,
            port: self.service.listen.port(),
            lease_s: self.lease_s,
        };
        self.ports[which] = Some(self.external_port);
        let added = self.control.add(self.service, &forward, buffer).await;
        if let Err(IgdError::Fault(_)) = added {
            self.ports[which] = None;
        }
        added
    }

    /// Has both ports forwarded no more, at once: there is half a second.
    async fn give_back(&self, buffer: &mut [u8]) {
        let (left, right) = buffer.split_at_mut(buffer.len() / 2);
        future::zip(self.delete(0, left), self.delete(1, right)).await;
    }

    async fn delete(&self, which: usize, buffer: &mut [u8]) {
        let Some(port) = self.ports[which] else { return };
        let transport = Transport::BOTH[which];
        if let Err(error) = self.control.delete(self.service, transport, port, buffer).await {
            debug!("{}, asked to forget: {error}", self.control);
        }
    }
}

/// What is asked for.
const LEASE_S: u32 = 3_600;

/// Half of that; also what is for ever is asked for again, for the router may have restarted.
const RENEW_MS: u64 = LEASE_S as u64 * 500;

/// Other ports that are tried when others have ours.
const CONFLICTS_MAX: u32 = 3;

/// Where those are: below them are services, above them many systems' outgoing connections.
const PORTS_FROM: u16 = 20_000;
const PORTS: u16 = 12_000;
