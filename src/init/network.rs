//! The box's place in the network: an address for its first wired interface, and the hour.
//!
//! One thread. Every wired interface is switched on, and the first with something at the other end
//! of its cable is ours for as long as it is there; the kernel gives it IPv6 addresses by itself.
//! No router is needed: without one there is no way out of the house, and nothing else is missing.
//!
//! ```text
//! cable in -> dhcp -> address, route, resolv.conf -> sntp: DHCP's clocks, the router, the world's
//! ```

use super::dhcp::{Client, Lease, News, Step};
use super::link::{Links, Wired, wired};
use super::sntp;
use crate::service::announcer::random;
use crate::service::clock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_settime};
use socket2::{Domain, Protocol, Socket, Type};
use std::format;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::string::{String, ToString};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};
use std::vec::Vec;

/// Gives the box its place in the network, for ever. `name` is what it tells the router.
pub fn run(name: &str) {
    let links = match Links::open() {
        Ok(links) => links,
        Err(error) => return warn!("the network cannot be set up: {error}"),
    };
    if let Err(error) = links.bring_up(LOOPBACK) {
        warn!("lo: {error}");
    }
    loop {
        let wired = wait_for_cable(&links);
        info!("{}: the cable is in", wired.name);
        if let Err(error) = Attendance::begin(&links, &wired, name).and_then(Attendance::run) {
            warn!("{}: {error}", wired.name);
            thread::sleep(PAUSE);
        }
    }
}

/// Switches all wired interfaces on and waits for the first that has something at its other end.
fn wait_for_cable(links: &Links) -> Wired {
    let mut known: Vec<u32> = Vec::new();
    loop {
        links.have_changed();
        let all = wired();
        for one in all.iter().filter(|one| !known.contains(&one.index)) {
            if let Err(error) = links.bring_up(one.index) {
                warn!("{}: {error}", one.name);
            }
        }
        known = all.iter().map(|one| one.index).collect();
        // What has been switched on just now may be known to be connected at once.
        if let Some(one) = wired().into_iter().find(|one| one.has_carrier) {
            return one;
        }
        wait(&mut [PollFd::new(&links.ear(), PollFlags::IN)], CABLE_LOOK_MS);
    }
}

/// Attends to one interface.
struct Attendance<'l> {
    links: &'l Links,
    wired: &'l Wired,
    socket: UdpSocket,
    client: Client,
    lease: Option<Lease>,
    hour: Hour,
}

impl<'l> Attendance<'l> {
    fn begin(links: &'l Links, wired: &'l Wired, name: &str) -> io::Result<Attendance<'l>> {
        let client = Client::new(wired.hardware, name, random());
        let (socket, hour) = (open_socket(&wired.name)?, Hour::default());
        Ok(Attendance { links, wired, socket, client, lease: None, hour })
    }

    /// Until the interface is gone.
    fn run(mut self) -> io::Result<()> {
        let (mut had_carrier, mut buffer) = (true, [0; 1500]);
        loop {
            let now = now_ms();
            while let Some(step) = self.client.step(now, random()) {
                self.take(step);
            }
            if self.lease.is_some() && now >= self.hour.due_ms {
                self.hour.ask(self.lease.as_ref());
            }
            let hour_ms = self.lease.as_ref().map_or(u64::MAX, |_| self.hour.due_ms);
            let due_ms = self.client.due_ms().min(hour_ms);
            let ears = &mut [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.links.ear(), PollFlags::IN),
            ];
            wait(ears, due_ms.saturating_sub(now_ms()));
            while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                if let Some(news) = self.client.handle(&buffer[..length], now_ms()) {
                    self.heed(news);
                }
            }
            if self.links.have_changed() {
                let all = wired();
                let Some(one) = all.iter().find(|one| one.index == self.wired.index) else {
                    self.drop_address();
                    return Err(io::ErrorKind::NotConnected.into());
                };
                if one.has_carrier && !had_carrier {
                    self.client.handle_cable(now_ms());
                }
                if !one.has_carrier && all.iter().any(|other| other.has_carrier) {
                    // The cable has been put into another socket.
                    self.drop_address();
                    return Ok(());
                }
                had_carrier = one.has_carrier;
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Lost => self.drop_address(),
            Step::Send(to, packet) => {
                let to = SocketAddr::from((to.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT));
                if let Err(error) = self.socket.send_to(&packet, to) {
                    debug!("{}: {error}; it is asked again", self.wired.name);
                }
            }
        }
    }

    fn heed(&mut self, news: News) {
        let News::Given(lease) = news else { return self.drop_address() };
        let is_new = self.lease.as_ref().is_none_or(|held| *held != lease);
        if is_new {
            if self.lease.as_ref().is_some_and(|held| held.address != lease.address) {
                self.drop_address();
            }
            info!("{}: {}/{}", self.wired.name, lease.address, lease.prefix);
            if let Err(error) = self.settle(&lease) {
                warn!("{}: {}: {error}", self.wired.name, lease.address);
            }
            self.hour.due_ms = 0;
        }
        self.lease = Some(lease);
    }

    fn settle(&self, lease: &Lease) -> io::Result<()> {
        let index = self.wired.index;
        self.links.add_address(index, lease.address, lease.prefix)?;
        if let Some(router) = lease.router {
            self.links.route_through(index, router)?;
        }
        let lines = lease.names.iter().map(|server| format!("nameserver {server}\n"));
        fs::write(RESOLVER, lines.collect::<String>())
    }

    fn drop_address(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        warn!("{}: {} is ours no more", self.wired.name, lease.address);
        let (index, address) = (self.wired.index, lease.address);
        if let Err(error) = self.links.drop_address(index, address, lease.prefix) {
            debug!("{}: {error}", self.wired.name);
        }
    }
}

/// A socket for DHCP on one interface, whether that has an address or not.
fn open_socket(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
    Ok(socket.into())
}

/// The hour, when it is next asked for, and how long it is waited after nobody has told it.
#[derive(Default)]
struct Hour {
    due_ms: u64,
    pause_ms: u64,
}

impl Hour {
    /// Asks one after the other until somebody tells it; takes a few seconds where nobody does.
    fn ask(&mut self, lease: Option<&Lease>) {
        let near = lease.into_iter().flat_map(|lease| lease.clocks.iter().chain(&lease.router));
        let near = near.map(|address| address.to_string());
        let all = near.chain(CLOCKS.iter().map(|name| name.to_string()));
        let told = all.into_iter().find_map(|server| Some((ask_one(&server)?, server)));
        let Some((time, server)) = told else {
            self.pause_ms = (2 * self.pause_ms).clamp(HOUR_PAUSE_MS, HOUR_PAUSE_MAX_MS);
            self.due_ms = now_ms() + self.pause_ms;
            return;
        };
        (self.due_ms, self.pause_ms) = (now_ms() + DAY_MS, 0);
        let off_s = clock::unix_s().abs_diff(time.as_secs());
        let (tv_sec, tv_nsec) = (time.as_secs() as i64, time.subsec_nanos().into());
        if let Err(error) = clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec }) {
            warn!("the clock: {error}");
        } else if off_s > 1 {
            info!("{server} says that it is {}", httpdate::fmt_http_date(UNIX_EPOCH + time));
        }
    }
}

/// What a server says, by the time that is heard.
fn ask_one(server: &str) -> Option<Duration> {
    let at = (server, TIME_PORT).to_socket_addrs().ok()?.next()?;
    let any: IpAddr = match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(at).ok()?;
    socket.set_read_timeout(Some(ANSWER)).ok()?;
    let nonce = (u64::from(random()) << 32) | u64::from(random());
    let (asked_ms, mut buffer) = (now_ms(), [0; 512]);
    socket.send(&sntp::question(nonce)).ok()?;
    let length = socket.recv(&mut buffer).ok()?;
    let way = Duration::from_millis((now_ms() - asked_ms) / 2);
    Some(sntp::read(&buffer[..length], nonce)? + way)
}

/// Milliseconds of the kernel's clock that never goes back.
fn now_ms() -> u64 {
    clock::monotonic_us() / 1_000
}

/// Waits until one of them has something to say, or the time is over.
pub fn wait(ears: &mut [PollFd<'_>], ms: u64) {
    let (tv_sec, tv_nsec) = ((ms / 1_000).min(DAY_MS) as i64, (ms % 1_000 * 1_000_000) as i64);
    // Woken too early nothing is found to do, and it is waited again.
    let _ = poll(ears, Some(&Timespec { tv_sec, tv_nsec }));
}

/// Its number is the same everywhere.
const LOOPBACK: u32 = 1;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const TIME_PORT: u16 = 123;

/// Where programs look who knows names.
const RESOLVER: &str = "/etc/resolv.conf";

/// Who is asked for the hour when nobody in the house knows it.
const CLOCKS: [&str; 2] = ["time.cloudflare.com", "pool.ntp.org"];

/// A server that has not answered by then does not.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two rounds in which nobody has told the hour, at first and at most.
const HOUR_PAUSE_MS: u64 = 8_000;
const HOUR_PAUSE_MAX_MS: u64 = 3_600_000;

const DAY_MS: u64 = 24 * 3_600_000;

/// Some interfaces do not tell when a cable is put in.
const CABLE_LOOK_MS: u64 = 1_000;

/// After trouble with an interface.
const PAUSE: Duration = Duration::from_secs(2);
