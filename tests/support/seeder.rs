//! A BitTorrent seed (BEP 3, 6) that blocks, counts and can misbehave: one torrent, from memory.
//!
//! It shares no code with the program. What it was asked for and what it has sent is counted piece
//! by piece; how it behaves can be changed while it runs.
//!
//! ```text
//! accept -> one thread a connection: handshake, have all, unchoke -> request -> Habits -> block
//! ```

#![allow(dead_code, reason = "each test crate uses what it needs")]

use super::author::Torrent;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How a seed behaves.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Bytes a second it sends, over all connections; as many as it can without.
    pub rate: Option<u32>,
    /// After so many blocks, counted over all connections, it sends no more and stays there.
    pub stalls_after: Option<u32>,
    /// In the middle of this block, counted as above, it stops sending and stays there.
    pub stalls_inside: Option<u32>,
    /// It hangs up after each so many blocks of a connection.
    pub hangs_up_after: Option<u32>,
    /// Every block it sends of this piece is wrong.
    pub spoils: Option<u32>,
    /// It is a seed of BEP 3 alone.
    pub plain: bool,
    /// It has these pieces and no others.
    pub has: Option<std::ops::Range<u32>>,
}

/// A running seed; dropped, it hangs up and listens no more.
pub struct Seeder {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    torrent: Arc<Torrent>,
    habits: Mutex<Habits>,
    tallies: Mutex<Tallies>,
    /// Nothing is sent before, so that all connections together keep to the rate.
    send_after: Mutex<Instant>,
    streams: Mutex<Vec<TcpStream>>,
    blocks_sent: AtomicU32,
    closed: AtomicBool,
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Blocks asked for, of each piece.
    pub asked: Vec<u32>,
    /// Blocks sent, of each piece.
    pub sent: Vec<u32>,
    /// Pieces in the order in which they were first asked for.
    pub order: Vec<u32>,
    /// Handshakes.
    pub connections: u32,
    /// Bytes of blocks that were sent.
    pub sent_bytes: u64,
}

impl Seeder {
    /// Listens at a free port of 127.0.0.1.
    pub fn start(torrent: &Arc<Torrent>, habits: Habits) -> Seeder {
        Seeder::start_at("127.0.0.1:0".parse().expect("an address"), torrent, habits)
    }

    /// Listens at `address`.
    pub fn start_at(address: SocketAddr, torrent: &Arc<Torrent>, habits: Habits) -> Seeder {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            torrent: Arc::clone(torrent),
            habits: Mutex::new(habits),
            tallies: Mutex::new(Tallies::of(torrent.piece_count())),
            send_after: Mutex::new(Instant::now()),
            streams: Mutex::default(),
            blocks_sent: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                lock(&accepting.streams).extend(stream.try_clone());
                carry(&accepting, stream, false);
            }
        });
        Seeder { address, shared }
    }

    /// Calls somebody who listens at `address`.
    pub fn call(&self, address: SocketAddr) {
        let from = SocketAddr::new(self.address.ip(), 0);
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        );
        let connected = socket.and_then(|socket| {
            socket.bind(&from.into())?;
            socket.connect(&address.into())?;
            Ok(TcpStream::from(socket))
        });
        let stream = connected.unwrap_or_else(|e| panic!("{address}: {e}"));
        lock(&self.shared.streams).extend(stream.try_clone());
        carry(&self.shared, stream, true);
    }

    /// `--peer` and where it listens.
    pub fn as_peer(&self) -> [String; 2] {
        ["--peer".into(), self.address.to_string()]
    }

    /// Behaves otherwise from here on.
    pub fn behave(&self, habits: Habits) {
        *lock(&self.shared.habits) = habits;
    }

    /// What has been counted so far.
    pub fn tallies(&self) -> Tallies {
        lock(&self.shared.tallies).clone()
    }

    /// What has been counted so far; from here on everything is counted from 0.
    pub fn take_tallies(&self) -> Tallies {
        let fresh = Tallies::of(self.shared.torrent.piece_count());
        std::mem::replace(&mut *lock(&self.shared.tallies), fresh)
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        for stream in lock(&self.shared.streams).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes who accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn converse(&self, mut stream: &TcpStream, calls: bool) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if calls {
            stream.write_all(&self.handshake())?;
        }
        let mut input = BufReader::new(stream.try_clone()?);
        let mut theirs = [0; 68];
        input.read_exact(&mut theirs)?;
        if theirs[28..48] != self.torrent.info_hash {
            return Ok(());
        }
        let habits = lock(&self.habits).clone();
        lock(&self.tallies).connections += 1;
        if !calls {
            stream.write_all(&self.handshake())?;
        }
        stream.write_all(&self.offer(&habits, theirs[27] & 0x04 != 0))?;
        let mut sent = 0;
        loop {
            let mut head = [0; 4];
            input.read_exact(&mut head)?;
            let mut message = vec![0; u32::from_be_bytes(head) as usize];
            assert!(message.len() <= MESSAGE_BYTES_MAX, "a message of {} bytes", message.len());
            input.read_exact(&mut message)?;
            match message.first() {
                // Interested: it may ask.
                Some(2) => stream.write_all(&[0, 0, 0, 1, 1])?,
                Some(6) => {
                    let number = |at: usize| {
                        u32::from_be_bytes(message[at..at + 4].try_into().expect("four bytes"))
                    };
                    self.answer(stream, (number(1), number(5), number(9)), &mut sent)?;
                }
                _ => {}
            }
        }
    }

    fn handshake(&self) -> Vec<u8> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut handshake = b"\x13BitTorrent protocol\0\0\0\0\0\0\0".to_vec();
        handshake.push(if lock(&self.habits).plain { 0 } else { 0x04 });
        handshake.extend(self.torrent.info_hash);
        handshake.extend(format!("-TS0001-{:012}", COUNT.fetch_add(1, Ordering::Relaxed)).bytes());
        handshake
    }

    fn offer(&self, habits: &Habits, fast: bool) -> Vec<u8> {
        if fast && !habits.plain && habits.has.is_none() {
            return vec![0, 0, 0, 1, 14];
        }
        let count = self.torrent.piece_count();
        let mut bits = vec![0; count.div_ceil(8) as usize];
        for piece in habits.has.clone().unwrap_or(0..count) {
            bits[piece as usize / 8] |= 0x80 >> (piece % 8);
        }
        [&(bits.len() as u32 + 1).to_be_bytes()[..], &[5], &bits].concat()
    }

    fn answer(
        &self,
        mut stream: &TcpStream,
        (piece, begin, length): (u32, u32, u32),
        sent: &mut u32,
    ) -> io::Result<()> {
        let at = u64::from(piece) * u64::from(self.torrent.piece_bytes) + u64::from(begin);
        assert!(length <= 16 * 1024 && at + u64::from(length) <= self.torrent.content.bytes());
        let mut tallies = lock(&self.tallies);
        if tallies.asked[piece as usize] == 0 {
            tallies.order.push(piece);
        }
        tallies.asked[piece as usize] += 1;
        drop(tallies);
        let habits = lock(&self.habits).clone();
        if habits.hangs_up_after.is_some_and(|most| *sent >= most) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        while lock(&self.habits)
            .stalls_after
            .is_some_and(|most| self.blocks_sent.load(Ordering::Relaxed) >= most)
        {
            if self.closed.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(POLL);
        }
        if let Some(rate) = habits.rate {
            let mut after = lock(&self.send_after);
            let due = (*after).max(Instant::now());
            *after = due + Duration::from_secs_f64(f64::from(length) / f64::from(rate));
            drop(after);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let mut block = (length + 9).to_be_bytes().to_vec();
        block.push(7);
        block.extend(piece.to_be_bytes());
        block.extend(begin.to_be_bytes());
        block.resize(13 + length as usize, 0);
        self.torrent.content.read(at, &mut block[13..]);
        if habits.spoils == Some(piece) {
            block[13] ^= 1;
        }
        // Counted first: by the time the other side has it, it has been.
        let mut tallies = lock(&self.tallies);
        tallies.sent[piece as usize] += 1;
        tallies.sent_bytes += u64::from(length);
        drop(tallies);
        let before = self.blocks_sent.fetch_add(1, Ordering::Relaxed);
        *sent += 1;
        if habits.stalls_inside == Some(before) {
            stream.write_all(&block[..block.len() / 2])?;
            while !self.closed.load(Ordering::Relaxed) {
                thread::sleep(POLL);
            }
        }
        stream.write_all(&block)
    }
}

impl Tallies {
    fn of(pieces: u32) -> Tallies {
        let none = vec![0; pieces as usize];
        Tallies { asked: none.clone(), sent: none, ..Tallies::default() }
    }

    /// Pieces that were asked for.
    pub fn asked_for(&self) -> Vec<u32> {
        (0..self.asked.len()).filter(|piece| self.asked[*piece] > 0).map(|p| p as u32).collect()
    }
}

/// Carries a connection to its end. However it ends, it is the other side's to notice.
fn carry(shared: &Arc<Shared>, stream: TcpStream, calls: bool) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _ = shared.converse(&stream, calls);
        hang_up(&stream);
    });
}

/// What was sent before arrives: a stream that is closed with something unread is reset.
fn hang_up(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    let _ = stream.shutdown(Shutdown::Both);
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().expect("no thread panics while it counts")
}

/// The longest message a leecher sends: the bitfield of 4 million pieces.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
