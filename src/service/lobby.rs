//! Where connections come in, and where pumps wait for the next one.
//!
//! Newcomers are accepted only while a pump is free: what cannot be carried stays in the kernel's
//! backlog. Besides the pumps for `peers_max` connections there are [`SPARE_PUMPS`], so that a
//! newcomer is heard (it has 5 s to shake hands) even when every place is taken; then the least
//! useful connection makes room, or the newcomer goes. Connections of one address that are still
//! shaking hands may hold half of the idle pumps, so that nobody can hold all of them.
//!
//! The box dials too ([`run_dials`]), but only into places that are free.

use super::Service;
use super::clock::Bell;
use super::windows::Window;
use crate::engine::swarm::candidates::Candidate;
use crate::engine::swarm::roster::crowd_of;
use crate::engine::units::{PeerSlot, TorrentSlot};
use async_io::Async;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::vec::Vec;

/// Pumps beyond `peers_max`.
pub const SPARE_PUMPS: u16 = 2;

/// A connection for a pump to carry.
pub enum Arrival {
    /// Somebody came.
    Accepted(TcpStream, SocketAddr),
    /// Somebody is to be dialled.
    Dial(Candidate),
}

impl Arrival {
    /// Whom it is with.
    pub fn address(&self) -> SocketAddr {
        match self {
            Arrival::Accepted(_, address) => *address,
            Arrival::Dial(candidate) => candidate.address,
        }
    }

    /// The torrent it was dialled for.
    pub fn torrent(&self) -> Option<TorrentSlot> {
        match self {
            Arrival::Accepted(..) => None,
            Arrival::Dial(candidate) => Some(candidate.torrent),
        }
    }
}

/// See the module.
pub struct Lobby {
    /// What waits for each pump.
    inboxes: RefCell<Vec<Option<Arrival>>>,
    idle: RefCell<Vec<PeerSlot>>,
    /// Rung when a pump becomes idle.
    idle_bell: Bell,
    /// Whose crowd is shaking hands at each pump.
    greeting: RefCell<Vec<Option<IpAddr>>>,
    /// For which torrent each pump has dialled.
    dialled: RefCell<Vec<Option<TorrentSlot>>>,
}

impl Lobby {
    /// A lobby for so many pumps.
    pub fn new(pumps: usize) -> Lobby {
        Lobby {
            inboxes: RefCell::new((0..pumps).map(|_| None).collect()),
            idle: RefCell::new(Vec::with_capacity(pumps)),
            idle_bell: Bell::default(),
            greeting: RefCell::new(std::vec![None; pumps]),
            dialled: RefCell::new(std::vec![None; pumps]),
        }
    }

    /// The next connection for a pump.
    pub async fn next(&self, service: &Service<'_>, slot: PeerSlot) -> Arrival {
        self.dialled.borrow_mut()[slot.index()] = None;
        self.idle.borrow_mut().push(slot);
        self.idle_bell.ring();
        let bell = service.clock.bell(service.clock.slot(slot.index()));
        loop {
            if let Some(arrival) = self.inboxes.borrow_mut()[slot.index()].take() {
                return arrival;
            }
            bell.rung().await;
        }
    }

    /// Hands have been shaken, or never will be.
    pub fn greeted(&self, slot: PeerSlot) {
        self.greeting.borrow_mut()[slot.index()] = None;
    }

    /// Somebody is, or was just now, dialled for a torrent.
    pub fn is_dialled(&self, torrent: TorrentSlot) -> bool {
        self.dialled.borrow().contains(&Some(torrent))
    }

    /// How many pumps wait.
    pub fn idle_count(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Waits until a pump is idle.
    async fn idle(&self) {
        while self.idle_count() == 0 {
            self.idle_bell.rung().await;
        }
    }

    fn hand_over(&self, service: &Service<'_>, arrival: Arrival) {
        let slot = self.idle.borrow_mut().pop();
        // Without an idle pump the connection closes; callers have made sure of one.
        let Some(slot) = slot else { return };
        if let Arrival::Accepted(_, address) = &arrival {
            self.greeting.borrow_mut()[slot.index()] = Some(crowd_of(address.ip()));
        }
        self.dialled.borrow_mut()[slot.index()] = arrival.torrent();
        self.inboxes.borrow_mut()[slot.index()] = Some(arrival);
        service.clock.ring(slot.index());
    }

    fn greeting_from(&self, ip: IpAddr) -> usize {
        let crowd = Some(crowd_of(ip));
        self.greeting.borrow().iter().filter(|other| **other == crowd).count()
    }
}

/// Accepts at one address for ever.
pub async fn run_listener(service: &Service<'_>, listener: &Async<TcpListener>) {
    loop {
        service.lobby.idle().await;
        match listener.read_with(TcpListener::accept).await {
            Ok((stream, address)) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                // Half of the idle pumps; one when only the spare ones are left.
                let greeting_max = (service.lobby.idle_count() / 2).max(1);
                if !service.admits(address.ip())
                    || service.lobby.greeting_from(address.ip()) >= greeting_max
                {
                    debug!("{address}: not let in");
                    smol::future::yield_now().await;
                    continue;
                }
                // Without its options a connection only costs more kernel memory than planned.
                let _ = tune(&stream, service.unsent_bytes);
                service.lobby.hand_over(service, Arrival::Accepted(stream, address));
            }
            Err(error) => {
                // Out of file descriptors, or a connection that ended before it was accepted.
                service.complain("a connection could not be accepted", &error);
                service.clock.sleep(ACCEPT_PAUSE_MS, "accepting again").await;
            }
        }
    }
}

/// Dials candidates for ever, while places are free.
pub async fn run_dials(service: &Service<'_>) {
    let slot = service.clock.slot(service.duties.dials);
    loop {
        let deadline = service.swarm.borrow().candidates.deadline();
        service.clock.wait(slot, deadline).await;
        let room = service.swarm.borrow().member_count() < service.dialled_max;
        // A dial never takes the last pumps: newcomers need them to be heard.
        if !room || service.lobby.idle_count() <= usize::from(SPARE_PUMPS) {
            service.clock.sleep(FULL_PAUSE_MS, "a place to dial from").await;
            continue;
        }
        let due = service.swarm.borrow_mut().candidates.take_due(service.clock.now());
        let wanted = due.filter(|candidate| {
            let Candidate { address, torrent, .. } = *candidate;
            service.admits(address.ip()) && !service.swarm.borrow().knows(torrent, address)
        });
        if let Some(candidate) = wanted {
            service.lobby.hand_over(service, Arrival::Dial(candidate));
        }
    }
}

/// Begins to connect to a peer: the stream is writable when it has come to something.
pub fn dial(
    service: &Service<'_>,
    address: SocketAddr,
    window: &Window<'_>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(window.bytes())?;
    socket.set_nonblocking(true)?;
    let stream = match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => TcpStream::from(socket),
    };
    tune(&stream, service.unsent_bytes)?;
    Ok(stream)
}

/// Opens a listening socket. An IPv6 one takes IPv4 too when it is for any address.
pub fn listen(address: SocketAddr, receive_bytes: usize) -> io::Result<Async<TcpListener>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    // Set before listening: the window's scale is agreed on with the first packet.
    socket.set_recv_buffer_size(receive_bytes)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Async::new(socket.into())
}

fn tune(stream: &TcpStream, unsent_bytes: u32) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(unsent_bytes)
}

/// Connections the kernel keeps while every pump is busy.
const BACKLOG: i32 = 128;

/// Pause after an accept that failed, so that a full table of descriptors is not asked in a loop.
const ACCEPT_PAUSE_MS: u64 = 200;

/// Pause of the dialler while there is no place.
const FULL_PAUSE_MS: u64 = 10_000;
