//! A guest's end of its link: what it has yet to say, and what it has heard so far.

use perennial::engine::units::Instant;

use crate::fake_peer::{Ear, Heard};
use crate::prng::Prng;
use crate::sim_net::{Link, Read};

/// How fast a guest reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All there is.
    AtOnce,
    /// So many bytes a second.
    BytesPerSecond(u32),
    /// Nothing at all.
    Never,
}

/// One guest's end.
#[derive(Debug)]
pub struct Line {
    out: Vec<u8>,
    ear: Ear,
    pub pace: Pace,
    reads_next: Instant,
    /// The connection is over, as far as the guest can tell.
    pub ended: bool,
    hangs_up: bool,
    /// Bytes heard.
    pub heard_bytes: u64,
}

impl Line {
    pub fn new(pace: Pace) -> Line {
        Line {
            out: Vec::new(),
            ear: Ear::default(),
            pace,
            reads_next: Instant::default(),
            ended: false,
            hangs_up: false,
            heard_bytes: 0,
        }
    }

    /// Says this as soon as the link takes it.
    pub fn say(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    /// Says no more, once all has been said; goes on reading.
    pub fn shut(&mut self) {
        self.hangs_up = true;
    }

    /// Everything said has gone.
    pub fn is_said(&self) -> bool {
        self.out.is_empty()
    }

    /// Moves what can be moved now; whether anything was.
    pub fn move_bytes(&mut self, link: &mut Link, now: Instant, prng: &mut Prng) -> bool {
        let mut moved = self.write(link, now, prng);
        let mut room = match self.pace {
            Pace::AtOnce => usize::MAX,
            Pace::BytesPerSecond(_) if now < self.reads_next => 0,
            Pace::BytesPerSecond(rate) => (rate / TURNS_PER_S).max(1) as usize,
            Pace::Never => 0,
        };
        let mut buffer = [0; 16 << 10];
        while room > 0 && !self.ended {
            let length = room.min(buffer.len());
            match link.from_us.read(&mut buffer[..length], now) {
                Read::Nothing => break,
                Read::End => self.ended = true,
                Read::Some(read) => {
                    self.ear.hear(&buffer[..read]);
                    self.heard_bytes += read as u64;
                    room -= read;
                    self.reads_next = now.after(1_000 / u64::from(TURNS_PER_S));
                }
            }
            moved = true;
        }
        moved
    }

    fn write(&mut self, link: &mut Link, now: Instant, prng: &mut Prng) -> bool {
        let sent = match link.to_us.write(&self.out, now, prng) {
            Ok(sent) => sent,
            // What was sent before may still be read.
            Err(_) => self.out.len(),
        };
        self.out.drain(..sent);
        if self.hangs_up && self.out.is_empty() {
            link.to_us.close();
        }
        sent > 0
    }

    /// The next message heard.
    pub fn next(&mut self) -> Option<Heard> {
        self.ear.next()
    }

    /// When it wants to read again.
    pub fn wakes_at(&self, now: Instant) -> Instant {
        match self.pace {
            Pace::BytesPerSecond(_) if self.reads_next > now => self.reads_next,
            _ => Instant::NEVER,
        }
    }
}

/// A slow reader reads so often.
const TURNS_PER_S: u32 = 20;
