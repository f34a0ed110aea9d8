//! A tracker of the tests' own: HTTP (BEP 3, 7, 23) and UDP (BEP 15) on whatever addresses it is
//! given.
//!
//! Debian's `opentracker` speaks IPv4 only and keeps a whitelist, and no tracker says afterwards
//! what it was told. This one listens on IPv4 and IPv6 alike, remembers every announce in the order
//! it came, and can be told whom to introduce to whom: kept in the dark, a leecher gets something
//! only from a seed that dials out.
//!
//! ```text
//! socket -> Announce (one shape for both protocols) -> Register::admit -> peers to tell -> socket
//! ```
//!
//! It trusts whoever asks and forgets nobody but those who say `stopped`: it lives as long as one
//! test. Sockets are bound by the thread that calls [`Tracker::start`], in that thread's network
//! namespace.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Who is told about whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Introduces {
    /// Everybody hears of everybody else.
    Everyone,
    /// Seeds hear of leechers and leechers hear of nobody: a seed that waits to be called serves
    /// none.
    LeechersToSeeds,
    /// Leechers hear of seeds and of nobody else: each fetches all it gets from a seed.
    SeedsToLeechers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Regular,
    Completed,
    Started,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    Udp,
}

/// One announce as it was heard.
#[derive(Clone, Debug)]
pub struct Announce {
    pub transport: Transport,
    pub info_hash: [u8; 20],
    pub peer_id: [u8; 20],
    /// Where the announce came from, with the port it says it listens on.
    pub address: SocketAddr,
    pub left: u64,
    pub event: Event,
    pub at: Instant,
}

/// A running tracker; dropped, it stops listening.
pub struct Tracker {
    addresses: Vec<SocketAddr>,
    register: Arc<Register>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tracker {
    /// Listens with HTTP and UDP on one port of each address; port 0 takes a free one.
    pub fn start(addresses: &[SocketAddr], introduces: Introduces) -> io::Result<Tracker> {
        let register = Arc::new(Register { introduces, heard: Mutex::default() });
        let mut tracker = Tracker {
            addresses: Vec::new(),
            register,
            stopping: Arc::default(),
            threads: Vec::new(),
        };
        for &address in addresses {
            let listener = TcpListener::bind(address)?;
            // Polled, so that the thread sees the tracker being dropped: nobody outside the
            // namespace can wake a blocked `accept` by calling it.
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(POLL))?;

            let (register, stopping) = (tracker.register.clone(), tracker.stopping.clone());
            let http = thread::spawn(move || accept_http(&listener, &register, &stopping));
            let (register, stopping) = (tracker.register.clone(), tracker.stopping.clone());
            let udp = thread::spawn(move || answer_udp(&socket, &register, &stopping));
            tracker.threads.extend([http, udp]);
            tracker.addresses.push(address);
        }
        Ok(tracker)
    }

    /// The URL to announce to at the `index`th address it was started with.
    pub fn url(&self, transport: Transport, index: usize) -> String {
        let scheme = match transport {
            Transport::Http => "http",
            Transport::Udp => "udp",
        };
        format!("{scheme}://{}/announce", self.addresses[index])
    }

    /// Every announce so far, oldest first.
    pub fn heard(&self) -> Vec<Announce> {
        self.register.heard().clone()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Its port is free again when this returns. A thread that panicked has said so already.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What all of a tracker's sockets share: the announces, from which swarms are read when asked for.
struct Register {
    introduces: Introduces,
    heard: Mutex<Vec<Announce>>,
}

impl Register {
    fn heard(&self) -> MutexGuard<'_, Vec<Announce>> {
        self.heard.lock().expect("no thread panics while it notes an announce")
    }

    /// Notes an announce and answers with the peers to tell its sender about.
    fn admit(&self, announce: Announce) -> Vec<SocketAddr> {
        let mut heard = self.heard();
        heard.push(announce.clone());
        if announce.event == Event::Stopped {
            return Vec::new();
        }
        let mut peers: Vec<&Announce> = Vec::new();
        for other in heard.iter().filter(|other| other.info_hash == announce.info_hash) {
            peers.retain(|peer| peer.address != other.address);
            if other.event != Event::Stopped && other.peer_id != announce.peer_id {
                peers.push(other);
            }
        }
        let is_seed = |peer: &Announce| peer.left == 0;
        peers.retain(|peer| match self.introduces {
            Introduces::Everyone => true,
            Introduces::LeechersToSeeds => is_seed(&announce) && !is_seed(peer),
            Introduces::SeedsToLeechers => !is_seed(&announce) && is_seed(peer),
        });
        peers.iter().map(|peer| peer.address).collect()
    }
}

fn accept_http(listener: &TcpListener, register: &Arc<Register>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                let register = register.clone();
                // One who connects and says nothing must not keep the others waiting. What goes
                // wrong on a connection is the caller's to notice: it gets no answer.
                thread::spawn(move || answer_http(stream, from, &register));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn answer_http(mut stream: TcpStream, from: SocketAddr, register: &Register) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut part = [0; 2048];
        let len = stream.read(&mut part)?;
        if len == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(&part[..len]);
    }
    let body = match parse_http(&head, from) {
        Some(announce) => bencoded_peers(&register.admit(announce)),
        None => b"d14:failure reason15:not an announcee".to_vec(),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&body)
}

/// The announce in a request's first line: `GET /announce?info_hash=...&port=... HTTP/1.1`.
fn parse_http(head: &[u8], from: SocketAddr) -> Option<Announce> {
    let target = head.split(|&byte| byte == b' ').nth(1)?;
    let query = target.strip_prefix(b"/announce?")?;
    let parameter = |name: &str| {
        query.split(|&byte| byte == b'&').find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            percent_decoded(value)
        })
    };
    let number = |name: &str| String::from_utf8(parameter(name)?).ok()?.parse::<u64>().ok();
    Some(Announce {
        transport: Transport::Http,
        info_hash: parameter("info_hash")?.try_into().ok()?,
        peer_id: parameter("peer_id")?.try_into().ok()?,
        address: SocketAddr::new(from.ip(), number("port")?.try_into().ok()?),
        left: number("left")?,
        event: match parameter("event").as_deref() {
            Some(b"started") => Event::Started,
            Some(b"stopped") => Event::Stopped,
            Some(b"completed") => Event::Completed,
            Some(b"" | b"empty") | None => Event::Regular,
            Some(_) => return None,
        },
        at: Instant::now(),
    })
}

/// `text` with every `%xx` replaced by its byte, or `None` where one is broken.
pub fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

/// An HTTP answer: IPv4 peers under `peers` (BEP 23), IPv6 ones under `peers6` (BEP 7).
fn bencoded_peers(peers: &[SocketAddr]) -> Vec<u8> {
    let (v4, v6): (Vec<SocketAddr>, _) = peers.iter().partition(|peer| peer.is_ipv4());
    let mut body = format!("d8:intervali{INTERVAL_S}e").into_bytes();
    for (key, peers) in [("5:peers", v4), ("6:peers6", v6)] {
        let packed = packed_peers(&peers);
        body.extend_from_slice(format!("{key}{}:", packed.len()).as_bytes());
        body.extend_from_slice(&packed);
    }
    body.push(b'e');
    body
}

fn packed_peers(peers: &[SocketAddr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for peer in peers {
        match peer.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&peer.port().to_be_bytes());
    }
    bytes
}

fn answer_udp(socket: &UdpSocket, register: &Register, stopping: &AtomicBool) {
    let mut packet = [0; 2048];
    while !stopping.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
        if let Some(answer) = udp_answer(&packet[..len], from, register) {
            // A lost answer is UDP's ordinary life: the client asks again.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to one packet, or `None` for what deserves none.
///
/// ```text
/// connect   0 magic  8 action=0  12 transaction
/// scrape    0 connection  8 action=2  12 transaction  16 info-hash, info-hash, ...
/// announce  0 connection  8 action=1  12 transaction  16 info-hash  36 peer id  56 downloaded
///           64 left  72 uploaded  80 event  84 ip  88 key  92 wanted  96 port
/// ```
fn udp_answer(packet: &[u8], from: SocketAddr, register: &Register) -> Option<Vec<u8>> {
    let action = u32::from_be_bytes(field(packet, 8)?);
    let transaction: [u8; 4] = field(packet, 12)?;
    let mut answer = [action.to_be_bytes(), transaction].concat();
    if action == 0 && field(packet, 0)? == CONNECT_MAGIC.to_be_bytes() {
        answer.extend_from_slice(&connection_id(from));
        return Some(answer);
    }
    let is_connected = field(packet, 0)? == connection_id(from);
    if action == 2 && is_connected {
        // Three numbers for each info-hash; that they are 0 is as good as any to those who ask.
        answer.resize(8 + packet[16..].len() / 20 * 12, 0);
        return Some(answer);
    }
    if action != 1 || !is_connected {
        let refusal = [3_u32.to_be_bytes(), transaction].concat();
        return Some([&refusal[..], b"connect first, then announce"].concat());
    }
    let port = u16::from_be_bytes(field(packet, 96)?);
    let peers = register.admit(Announce {
        transport: Transport::Udp,
        info_hash: field(packet, 16)?,
        peer_id: field(packet, 36)?,
        address: SocketAddr::new(from.ip(), port),
        left: u64::from_be_bytes(field(packet, 64)?),
        event: match u32::from_be_bytes(field(packet, 80)?) {
            0 => Event::Regular,
            1 => Event::Completed,
            2 => Event::Started,
            3 => Event::Stopped,
            _ => return None,
        },
        at: Instant::now(),
    });
    // A UDP answer holds addresses of the family it travels by, and no others (BEP 15).
    let told: Vec<SocketAddr> =
        peers.into_iter().filter(|peer| peer.is_ipv4() == from.is_ipv4()).collect();
    answer.extend_from_slice(&INTERVAL_S.to_be_bytes());
    answer.extend_from_slice(&[0; 8]); // how many leechers and seeds: nobody here asks
    answer.extend_from_slice(&packed_peers(&told));
    Some(answer)
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

/// The connection id given to `from`: it follows from the address, so none has to be kept.
fn connection_id(from: SocketAddr) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    hasher.finish().to_be_bytes()
}

/// The first eight bytes of every connect request (BEP 15).
const CONNECT_MAGIC: u64 = 0x417_2710_1980;

/// How long clients are told to wait before they announce again, in seconds: longer than a test.
const INTERVAL_S: u32 = 900;

/// The longest request head read: 5,000 info-hashes are not scraped here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How often the threads look whether the tracker was dropped.
const POLL: Duration = Duration::from_millis(20);

/// How long a caller may take to send its request.
const PATIENCE: Duration = Duration::from_secs(5);
