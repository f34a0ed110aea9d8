//! A network of byte streams in memory: latency, rate, short writes, cuts, half-closed ends.
//!
//! A [`Link`] is one connection, two [`Pipe`]s. What is written to a pipe is cut into segments;
//! each arrives after the pipe's latency, a jitter drawn from the seed, and the time its bytes take
//! at the pipe's rate, never before the segment ahead of it. A pipe holds so many bytes and then
//! takes no more until its reader reads: that is all there is of TCP's flow control.
//!
//! ```text
//!   write -> | flying: (arrival, length) ... | arrived | -> read
//!            '----------- queue_bytes at most ---------'
//! ```

#![allow(dead_code, reason = "each test crate uses what it needs")]

use std::collections::VecDeque;

use perennial::engine::units::Instant;

use crate::prng::Prng;

/// How one direction of a connection behaves.
#[derive(Clone, Copy, Debug)]
pub struct PipeKind {
    /// From one end to the other.
    pub latency_ms: u64,
    /// Up to so much on top, drawn anew for each segment.
    pub jitter_ms: u32,
    /// Bytes that pass in a second; 0 when its host's uplink passes them on.
    pub bytes_per_s: u64,
    /// Bytes that travel, and are read, at a time.
    pub segment_bytes: usize,
    /// Bytes on their way or unread: the room in both kernels.
    pub queue_bytes: usize,
}

impl PipeKind {
    /// A wire in a house: quick, and with room.
    pub const LAN: PipeKind = PipeKind {
        latency_ms: 1,
        jitter_ms: 0,
        bytes_per_s: 12_000_000,
        segment_bytes: 32 << 10,
        queue_bytes: 128 << 10,
    };

    /// Every byte travels alone, and there is room for one.
    pub const ONE_BYTE: PipeKind = PipeKind {
        latency_ms: 0,
        jitter_ms: 0,
        bytes_per_s: u64::MAX,
        segment_bytes: 1,
        queue_bytes: 1,
    };

    /// Something between a modem and a house's own wire, drawn from the seed.
    pub fn drawn(prng: &mut Prng) -> PipeKind {
        PipeKind {
            latency_ms: u64::from(prng.below(200)),
            jitter_ms: 1 + prng.below(50),
            bytes_per_s: 20_000 << prng.below(9),
            segment_bytes: 1 + prng.below(16 << 10) as usize,
            queue_bytes: (1 + prng.below(128) as usize) << 10,
        }
    }
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Some(usize),
    /// Nothing has arrived yet.
    Nothing,
    /// The other end has closed, and all it wrote has been read; or the connection is cut.
    End,
}

/// The connection has been cut, or the other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// One direction.
#[derive(Debug)]
pub struct Pipe {
    kind: PipeKind,
    bytes: VecDeque<u8>,
    /// How many of `bytes` can be read.
    arrived: usize,
    /// How many of `bytes`, the last ones, wait for the host's uplink.
    unsent: usize,
    flying: VecDeque<(Instant, usize)>,
    /// When the wire has passed on what was written so far, in microseconds.
    busy_until_us: u64,
    arrives_last: Instant,
    closed: bool,
    broken: bool,
}

impl Pipe {
    fn new(kind: PipeKind) -> Pipe {
        Pipe {
            kind,
            bytes: VecDeque::new(),
            arrived: 0,
            unsent: 0,
            flying: VecDeque::new(),
            busy_until_us: 0,
            arrives_last: Instant::default(),
            closed: false,
            broken: false,
        }
    }

    /// Writes what there is room for; how much that was.
    pub fn write(&mut self, bytes: &[u8], now: Instant, prng: &mut Prng) -> Result<usize, Gone> {
        if self.broken || self.closed {
            return Err(Gone);
        }
        let taken = bytes.len().min(self.kind.queue_bytes - self.bytes.len());
        if self.kind.bytes_per_s == 0 {
            self.unsent += taken;
            self.bytes.extend(&bytes[..taken]);
            return Ok(taken);
        }
        for segment in bytes[..taken].chunks(self.kind.segment_bytes) {
            let start_us = self.busy_until_us.max(now.as_millis() * 1_000);
            let wire_us = segment.len() as u64 * 1_000_000 / self.kind.bytes_per_s;
            self.busy_until_us = start_us + wire_us;
            let jitter_ms = match self.kind.jitter_ms {
                0 => 0,
                most => u64::from(prng.below(most)),
            };
            let arrives_ms = self.busy_until_us.div_ceil(1_000) + self.kind.latency_ms + jitter_ms;
            self.arrives_last = self.arrives_last.max(Instant::from_millis(arrives_ms));
            self.flying.push_back((self.arrives_last, segment.len()));
            self.bytes.extend(segment);
        }
        self.settle(now);
        Ok(taken)
    }

    /// Something waits for the host's uplink.
    pub fn has_unsent(&self) -> bool {
        self.unsent > 0 && !self.broken
    }

    /// The host's uplink, free at `start_us`, passes on a segment; when it will have done so.
    pub fn pass_on(&mut self, start_us: u64, bytes_per_s: u64) -> u64 {
        let length = self.unsent.min(self.kind.segment_bytes);
        self.unsent -= length;
        let done_us = start_us + length as u64 * 1_000_000 / bytes_per_s;
        let arrives = Instant::from_millis(done_us.div_ceil(1_000) + self.kind.latency_ms);
        self.arrives_last = self.arrives_last.max(arrives);
        self.flying.push_back((self.arrives_last, length));
        done_us
    }

    /// Reads at most a segment of what has arrived.
    pub fn read(&mut self, into: &mut [u8], now: Instant) -> Read {
        self.settle(now);
        if self.broken {
            return Read::End;
        }
        let length = into.len().min(self.arrived).min(self.kind.segment_bytes);
        if length == 0 {
            let over = self.closed && self.bytes.is_empty();
            return if over { Read::End } else { Read::Nothing };
        }
        let (first, second) = self.bytes.as_slices();
        let seam = first.len().min(length);
        into[..seam].copy_from_slice(&first[..seam]);
        into[seam..length].copy_from_slice(&second[..length - seam]);
        self.bytes.drain(..length);
        self.arrived -= length;
        Read::Some(length)
    }

    /// Whether a read would give something, be it the end.
    pub fn readable(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.arrived > 0 || self.broken || (self.closed && self.bytes.is_empty())
    }

    /// Whether a writer that waits for room is woken: like a kernel, not for the last few bytes.
    pub fn writable(&self) -> bool {
        self.broken || self.closed || self.bytes.len() <= self.kind.queue_bytes / 2
    }

    /// Nothing more is written; what is on its way arrives.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// When the next bytes arrive.
    pub fn next_arrival(&self) -> Instant {
        self.flying.front().map_or(Instant::NEVER, |(at, _)| *at)
    }

    fn settle(&mut self, now: Instant) {
        while let Some((at, length)) = self.flying.front()
            && *at <= now
        {
            self.arrived += length;
            self.flying.pop_front();
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// What the other side sends us.
    pub to_us: Pipe,
    /// What we send the other side.
    pub from_us: Pipe,
}

impl Link {
    /// A connection that behaves so, each way.
    pub fn new(to_us: PipeKind, from_us: PipeKind) -> Link {
        Link { to_us: Pipe::new(to_us), from_us: Pipe::new(from_us) }
    }

    /// Both ends lose it at once, and what was on its way.
    pub fn cut(&mut self) {
        for pipe in [&mut self.to_us, &mut self.from_us] {
            pipe.broken = true;
            pipe.unsent = 0;
            pipe.flying.clear();
        }
    }

    /// Our end closes it: what is on its way to the other side arrives, and nothing more is read.
    pub fn hang_up(&mut self) {
        self.from_us.close();
        self.to_us.broken = true;
        self.to_us.flying.clear();
    }

    /// The other side closes it, as in [`Link::hang_up`].
    pub fn hang_up_far(&mut self) {
        self.to_us.close();
        self.from_us.broken = true;
        self.from_us.flying.clear();
    }

    /// Lets arrive what has come by now, whether anybody reads it or not.
    pub fn settle(&mut self, now: Instant) {
        self.to_us.settle(now);
        self.from_us.settle(now);
    }

    /// When something arrives at either end, after it has been [settled](Link::settle).
    pub fn next_arrival(&self) -> Instant {
        self.to_us.next_arrival().min(self.from_us.next_arrival())
    }
}
