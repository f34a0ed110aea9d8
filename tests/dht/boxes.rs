//! A box with nothing but its DHT node: the service's own sockets and rounds, on loopback.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as StdInstant};

use perennial::engine::announce::Family;
use perennial::engine::units::{Deadline, Instant};
use perennial::service::clock::{Clock, Slot};
use perennial::service::dht::{self, Memory, Node, Stats, Wish, World};
use smol::channel::Sender;

/// What the test sees of a box.
#[derive(Default)]
pub struct Seen {
    /// Peers it met, each with its torrent.
    pub met: Vec<([u8; 20], SocketAddr)>,
    /// What its nodes have done: IPv4, IPv6.
    pub stats: [Stats; 2],
    /// What it saved.
    pub saved: Vec<u8>,
}

/// A box on a thread of its own.
pub struct Running {
    /// Where its nodes are heard.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

struct Small {
    clock: Clock,
    slot: Slot,
    torrents: RefCell<Vec<[u8; 20]>>,
    seen: Arc<Mutex<Seen>>,
}

impl World for Small {
    fn lan_only(&self) -> bool {
        false
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn ring_at(&self, deadline: Deadline) {
        self.clock.ring_at(self.slot, deadline);
    }

    async fn rung(&self) {
        self.clock.bell(self.slot).rung().await;
    }

    async fn sleep(&self, ms: u64, why: &'static str) {
        self.clock.sleep(ms, why).await;
    }

    async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other(format!("{host}: no names are looked up in a test")))
    }

    fn next_torrent(&self, after: Option<[u8; 20]>) -> Option<[u8; 20]> {
        let torrents = self.torrents.borrow();
        torrents.iter().copied().filter(|hash| after.is_none_or(|after| *hash > after)).min()
    }

    fn torrent_count(&self) -> u32 {
        self.torrents.borrow().len() as u32
    }

    fn meet(&self, info_hash: &[u8; 20], peer: SocketAddr) {
        look(&self.seen).met.push((*info_hash, peer));
    }

    async fn save(&self, bytes: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
        look(&self.seen).saved = bytes.clone();
        (bytes, Ok(()))
    }
}

impl Running {
    /// Starts a box that has these torrents, and listens on a free port of an address in loopback.
    pub fn start(
        listen: &str,
        entries: &[SocketAddr],
        torrents: &[[u8; 20]],
        saved: &[u8],
    ) -> Running {
        let listen = free_port(listen);
        let entries: Vec<_> =
            entries.iter().map(|entry| (entry.ip().to_string(), entry.port())).collect();
        let (torrents, saved) = (torrents.to_vec(), saved.to_vec());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = smol::channel::bounded(1);
        let (opened, open) = mpsc::channel();
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let mut memory = Memory::new(208, 100, 2);
            let entries: Vec<_> = entries.iter().map(|(ip, port)| (ip.as_str(), *port)).collect();
            let seeds = [[listen.port() as u8; 16], [listen.port() as u8 ^ 0x55; 16]];
            let (read_only, allow_private) = (false, true);
            let wish = Wish { listen, seeds, read_only, allow_private, entries: &entries };
            let clock = Clock::new(1, dht::SLEEPERS + 1);
            let slot = clock.slot(0);
            let world = Small { clock, slot, torrents: torrents.into(), seen: shared };
            let node = Node::open(wish, &saved, &mut memory, world.now());
            let family = Family::of(&listen);
            opened.send(node.address(family).expect("the port is free")).expect("it is awaited");
            smol::block_on(async {
                let report = async {
                    loop {
                        world.clock.sleep(50, "a look").await;
                        let stats = [Family::V4, Family::V6].map(|f| node.stats(f, world.now()));
                        look(&world.seen).stats = stats;
                    }
                };
                let runs = smol::future::zip(dht::run(&world, &node), world.clock.run());
                let runs = async { smol::future::zip(runs, report).await.1 };
                // A test that is gone says nothing, and that is the end too.
                let ends = async { stopped.recv().await.unwrap_or_default() };
                smol::future::or(ends, runs).await;
                dht::stop(&world, &node).await;
            });
        });
        let address = open.recv_timeout(Duration::from_secs(10)).expect("it opens its sockets");
        Running { address, seen, stop, thread: Some(thread) }
    }

    /// Waits until `is_so`, for twenty seconds at most.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let begun = StdInstant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if is_so(&look(&self.seen)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let seen = look(&self.seen);
        panic!("not {what}: {:?}, met {:?}", seen.stats, seen.met);
    }

    /// Stops it politely; what it saved.
    pub fn stop(mut self) -> Vec<u8> {
        self.end();
        std::mem::take(&mut look(&self.seen).saved)
    }

    fn end(&mut self) {
        // It may have ended by itself, which `join` then says.
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a box panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is seen, also by one who looks after another failed.
fn look(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address with a port that was free a moment ago, for TCP and UDP alike.
fn free_port(ip: &str) -> SocketAddr {
    let socket = std::net::UdpSocket::bind((ip, 0)).expect("loopback has a free port");
    socket.local_addr().expect("it is bound")
}
