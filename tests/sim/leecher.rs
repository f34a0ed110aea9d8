//! A guest that fetches a torrent, and takes nothing on trust: every byte is compared, every
//! message has to be one that may come just then.
//!
//! A peer of BEP 6 gets exactly one answer to each request, its block or a reject, whatever it
//! cancels and however often it is choked. Any other peer gets nothing but what it asked for, and
//! nothing between a choke and the next unchoke. What was taken back or dropped is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use perennial::engine::limits::METADATA_PIECE_BYTES;
use perennial::engine::metainfo::Layout;
use perennial::engine::units::{Instant, PieceIndex, TorrentSlot};

use crate::fake_peer::{self as say, Heard, Speaks, Wanted};
use crate::line::{Line, Pace};
use crate::prng::Prng;
use crate::sim_net::Link;
use crate::storage;

/// What kind of client it is.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub speaks: Speaks,
    /// Requests it keeps waiting.
    pub pipeline: usize,
    pub block_bytes: u32,
    pub pace: Pace,
    /// Takes back one request for so many blocks; 0 for never.
    pub cancels_one_in: u32,
    /// Loses interest for a second after one in so many blocks; 0 for never.
    pub sulks_one_in: u32,
    /// Asks for the `info` dictionary too (BEP 9).
    pub wants_metadata: bool,
    /// Sends its extended handshake before its bitfield, as Transmission does.
    pub hello_first: bool,
    /// Connects again after the connection ended before it had everything.
    pub comes_back: bool,
}

impl Habits {
    /// A common client with all extensions.
    pub const USUAL: Habits = Habits {
        speaks: Speaks::ALL,
        pipeline: 16,
        block_bytes: 16 << 10,
        pace: Pace::AtOnce,
        cancels_one_in: 0,
        sulks_one_in: 0,
        wants_metadata: false,
        hello_first: false,
        comes_back: false,
    };

    /// Any client there may be.
    pub fn drawn(prng: &mut Prng) -> Habits {
        let speaks = Speaks { fast: prng.one_in(2), extended: prng.one_in(2) };
        Habits {
            speaks,
            pipeline: 1 + prng.below(40) as usize,
            block_bytes: [16 << 10, 32 << 10, 5_000][prng.below(3) as usize],
            pace: match prng.below(3) {
                0 => Pace::BytesPerSecond(30_000 << prng.below(6)),
                _ => Pace::AtOnce,
            },
            cancels_one_in: prng.below(2) * 7,
            sulks_one_in: prng.below(2) * 23,
            wants_metadata: speaks.extended && prng.one_in(2),
            hello_first: prng.one_in(2),
            comes_back: true,
        }
    }
}

/// What it fetches.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub torrent: TorrentSlot,
    pub info_hash: [u8; 20],
    pub layout: Layout,
    pub metadata_bytes: u32,
    /// What the box calls itself.
    pub seed_id: [u8; 20],
}

/// See the module.
#[derive(Debug)]
pub struct Leecher {
    pub habits: Habits,
    goal: Goal,
    peer_id: [u8; 20],
    prng: Prng,
    /// Blocks to be asked for, the next one last.
    missing: Vec<Wanted>,
    got: BTreeSet<Wanted>,
    /// Bytes that each piece still lacks.
    lacking: Vec<u32>,
    metadata_missing: Vec<u32>,
    rejections: BTreeMap<Wanted, u32>,
    pub got_bytes: u64,
    pub rejects_heard: u32,
    pub chokes_heard: u32,
    pub talk: Talk,
}

/// What belongs to one connection.
#[derive(Debug)]
pub struct Talk {
    pub line: Line,
    messages: u32,
    unchoked: bool,
    interested: bool,
    sulks_until: Instant,
    offered: Vec<bool>,
    /// Asked for, and neither taken back nor answered.
    asked: Vec<Wanted>,
    /// Taken back or dropped: of these BEP 6 owes an answer, and otherwise they may yet come.
    doubtful: Vec<Wanted>,
    metadata_id: Option<u8>,
    metadata_asked: Vec<u32>,
    haves_due: Vec<u32>,
}

impl Talk {
    fn new(pace: Pace, piece_count: u32) -> Talk {
        Talk {
            line: Line::new(pace),
            messages: 0,
            unchoked: false,
            interested: false,
            sulks_until: Instant::default(),
            offered: vec![false; piece_count as usize],
            asked: Vec::new(),
            doubtful: Vec::new(),
            metadata_id: None,
            metadata_asked: Vec::new(),
            haves_due: Vec::new(),
        }
    }
}

impl Leecher {
    pub fn new(habits: Habits, goal: Goal, seed: u64) -> Leecher {
        let mut prng = Prng::new(seed);
        let mut peer_id = *b"-SIM00-............\0";
        prng.fill(&mut peer_id[7..]);
        let count = goal.layout.piece_count();
        let lacking: Vec<u32> =
            (0..count).map(|piece| goal.layout.piece_len(PieceIndex(piece))).collect();
        let mut missing = Vec::new();
        for (piece, length) in (0..).zip(&lacking) {
            for begin in (0..*length).step_by(habits.block_bytes as usize) {
                missing.push((piece, begin, habits.block_bytes.min(length - begin)));
            }
        }
        if prng.one_in(2) {
            missing.reverse();
        } else {
            shuffle(&mut missing, &mut prng);
        }
        let metadata_pieces = goal.metadata_bytes.div_ceil(METADATA_PIECE_BYTES);
        Leecher {
            habits,
            goal,
            peer_id,
            prng,
            missing,
            got: BTreeSet::new(),
            lacking,
            metadata_missing: (0..metadata_pieces).filter(|_| habits.wants_metadata).collect(),
            rejections: BTreeMap::new(),
            got_bytes: 0,
            rejects_heard: 0,
            chokes_heard: 0,
            talk: Talk::new(habits.pace, count),
        }
    }

    /// It has all that it was told there is, and every answer it is owed.
    pub fn is_content(&self) -> bool {
        let nothing_left = !self.missing.iter().any(|wanted| self.is_offered(wanted));
        let owed = self.habits.speaks.fast && !self.talk.doubtful.is_empty();
        let talked = self.talk.messages > 0 || self.is_complete();
        talked && nothing_left && self.talk.asked.is_empty() && !owed && self.has_metadata()
    }

    /// It has every byte.
    pub fn is_complete(&self) -> bool {
        self.got_bytes == self.goal.layout.total_bytes && self.has_metadata()
    }

    pub fn has_metadata(&self) -> bool {
        self.metadata_missing.is_empty() && self.talk.metadata_asked.is_empty()
    }

    /// A new connection: what was asked on the last one will not come.
    pub fn begin(&mut self) {
        let count = self.goal.layout.piece_count();
        let last = std::mem::replace(&mut self.talk, Talk::new(self.habits.pace, count));
        self.missing.extend(last.asked);
        if self.habits.speaks.fast {
            self.missing.extend(last.doubtful);
        }
        self.metadata_missing.extend(last.metadata_asked);
        let Habits { speaks, hello_first, .. } = self.habits;
        self.talk.line.say(&say::handshake(self.goal.info_hash, self.peer_id, speaks));
        let hello = if speaks.extended { say::hello(THEIR_METADATA_ID) } else { Vec::new() };
        if hello_first {
            self.talk.line.say(&hello);
        }
        self.say_what_it_has();
        if !hello_first {
            self.talk.line.say(&hello);
        }
    }

    fn say_what_it_has(&mut self) {
        let mut bits = vec![0; self.lacking.len().div_ceil(8)];
        for (piece, _) in self.lacking.iter().enumerate().filter(|(_, lacks)| **lacks == 0) {
            bits[piece / 8] |= 0x80 >> (piece % 8);
        }
        let nothing = bits.iter().all(|byte| *byte == 0);
        match (nothing, self.habits.speaks.fast) {
            (true, true) => self.talk.line.say(&say::have_none()),
            (true, false) => {}
            (false, _) => self.talk.line.say(&say::bitfield(&bits)),
        }
    }

    /// Does what can be done now; whether that was anything.
    pub fn act(&mut self, link: &mut Link, now: Instant, prng: &mut Prng) -> bool {
        let moved = self.talk.line.move_bytes(link, now, prng);
        while let Some(heard) = self.talk.line.next() {
            self.hear(heard, now);
        }
        if self.talk.messages > 0 {
            self.want(now);
        }
        moved | self.talk.line.move_bytes(link, now, prng)
    }

    /// When it wants to act, should nothing happen before.
    pub fn wakes_at(&self, now: Instant) -> Instant {
        let sulks = self.talk.sulks_until;
        let sulks = if sulks > now { sulks } else { Instant::NEVER };
        self.talk.line.wakes_at(now).min(sulks)
    }

    fn hear(&mut self, heard: Heard, now: Instant) {
        if let Heard::Handshake { info_hash, peer_id, speaks } = heard {
            let Goal { info_hash: wanted, seed_id, .. } = self.goal;
            assert_eq!((info_hash, peer_id, speaks), (wanted, seed_id, Speaks::ALL));
            return;
        }
        let first = self.talk.messages == 0;
        self.talk.messages += 1;
        let fast = self.habits.speaks.fast;
        match heard {
            Heard::Bitfield(bits) if first => self.hear_bitfield(&bits),
            Heard::HaveAll if first && fast => self.talk.offered.fill(true),
            Heard::HaveNone if first && fast => {}
            _ if first => panic!("{heard:?} comes before what the seed has"),
            Heard::KeepAlive => {}
            Heard::Unchoke => self.talk.unchoked = true,
            Heard::Choke => {
                self.talk.unchoked = false;
                self.chokes_heard += 1;
                if !fast {
                    let dropped = std::mem::take(&mut self.talk.asked);
                    self.missing.extend(&dropped);
                    self.talk.doubtful.extend(dropped);
                }
            }
            Heard::Piece { piece, begin, data } => self.hear_block(piece, begin, &data, now),
            Heard::Reject(wanted) if fast => self.hear_reject(wanted),
            Heard::Hello(payload) if self.habits.speaks.extended => {
                let size = say::number_of(&payload, "metadata_size");
                assert_eq!(size, Some(self.goal.metadata_bytes));
                let id = say::number_of(&payload, "ut_metadata").expect("a number for metadata");
                self.talk.metadata_id = Some(id as u8);
            }
            Heard::Metadata { dictionary, data } => self.hear_metadata(&dictionary, &data),
            other => panic!("{other:?} is not for this peer, or comes too late"),
        }
    }

    fn hear_bitfield(&mut self, bits: &[u8]) {
        assert_eq!(bits.len(), self.goal.layout.bitfield_bytes() as usize);
        for (piece, offered) in self.talk.offered.iter_mut().enumerate() {
            *offered = bits[piece / 8] & (0x80 >> (piece % 8)) != 0;
        }
    }

    fn hear_block(&mut self, piece: u32, begin: u32, data: &[u8], now: Instant) {
        let Goal { torrent, layout, .. } = self.goal;
        let wanted = (piece, begin, data.len() as u32);
        assert!(storage::is_content(torrent, &layout, piece, begin, data), "{wanted:?} is wrong");
        let fast = self.habits.speaks.fast;
        assert!(fast || self.talk.unchoked, "{wanted:?} comes while choked");
        let known = take(&mut self.talk.asked, wanted) || take(&mut self.talk.doubtful, wanted);
        assert!(known, "{wanted:?} was not asked for");
        // Taken back or dropped, it is also among what is to be asked for again.
        take(&mut self.missing, wanted);
        // Dropped and asked for again, it may come twice.
        if self.got.insert(wanted) {
            self.count(wanted);
        }
        let Habits { cancels_one_in, sulks_one_in, .. } = self.habits;
        if cancels_one_in > 0 && self.prng.one_in(cancels_one_in) {
            self.take_one_back();
        }
        if sulks_one_in > 0 && self.prng.one_in(sulks_one_in) {
            self.talk.sulks_until = now.after(1_000);
        }
    }

    fn count(&mut self, (piece, _, length): Wanted) {
        self.got_bytes += u64::from(length);
        self.lacking[piece as usize] -= length;
        if self.lacking[piece as usize] == 0 {
            self.talk.haves_due.push(piece);
        }
    }

    fn hear_reject(&mut self, wanted: Wanted) {
        self.rejects_heard += 1;
        let waited = take(&mut self.talk.asked, wanted);
        let known = waited || take(&mut self.talk.doubtful, wanted);
        assert!(known, "{wanted:?} is rejected and was not asked for");
        let times = self.rejections.entry(wanted).or_default();
        // While it is choked, and just after, a reject says nothing about the piece.
        *times += u32::from(waited && self.talk.unchoked);
        if *times < REJECTS_MAX {
            self.missing.push(wanted);
        }
    }

    fn hear_metadata(&mut self, dictionary: &str, data: &[u8]) {
        let number = |key| say::number_of(dictionary.as_bytes(), key);
        let piece = number("piece").expect("which piece it is");
        assert!(take(&mut self.talk.metadata_asked, piece), "{dictionary} was not asked for");
        if number("msg_type") == Some(2) {
            self.metadata_missing.push(piece);
            return;
        }
        assert_eq!(number("msg_type"), Some(1));
        assert_eq!(number("total_size"), Some(self.goal.metadata_bytes));
        let at = u64::from(piece * METADATA_PIECE_BYTES);
        let mut wanted = vec![0; data.len()];
        storage::metadata(self.goal.torrent, at, &mut wanted);
        assert_eq!(data, wanted);
        let whole = u64::from(METADATA_PIECE_BYTES.min(self.goal.metadata_bytes - at as u32));
        assert_eq!(data.len() as u64, whole);
    }

    fn take_one_back(&mut self) {
        if self.talk.asked.is_empty() {
            return;
        }
        let at = self.prng.below(self.talk.asked.len() as u32) as usize;
        let wanted = self.talk.asked.swap_remove(at);
        self.talk.line.say(&say::cancel(wanted));
        self.talk.doubtful.push(wanted);
        if !self.habits.speaks.fast {
            self.missing.push(wanted);
        }
    }

    /// Says what it wants next.
    fn want(&mut self, now: Instant) {
        let sulks = now < self.talk.sulks_until;
        let wants = !sulks && self.missing.iter().any(|wanted| self.is_offered(wanted));
        let waits = !self.talk.asked.is_empty();
        if wants != self.talk.interested && (wants || sulks || !waits) {
            self.talk.interested = wants;
            let word = if wants { say::interested() } else { say::not_interested() };
            self.talk.line.say(&word);
        }
        while self.talk.unchoked && wants && self.talk.asked.len() < self.habits.pipeline {
            let next = self.missing.iter().rposition(|wanted| self.is_offered(wanted));
            let Some(at) = next else { break };
            let wanted = self.missing.remove(at);
            self.talk.line.say(&say::request(wanted));
            self.talk.asked.push(wanted);
        }
        while let Some(id) = self.talk.metadata_id
            && self.talk.metadata_asked.len() < 2
            && let Some(piece) = self.metadata_missing.pop()
        {
            self.talk.line.say(&say::metadata_request(id, piece));
            self.talk.metadata_asked.push(piece);
        }
        // The last one ends the connection: not before everything owed has come.
        while let Some(piece) = self.talk.haves_due.last()
            && (self.talk.haves_due.len() > 1 || !self.is_complete() || self.is_content())
        {
            self.talk.line.say(&say::have(*piece));
            self.talk.haves_due.pop();
        }
    }

    fn is_offered(&self, wanted: &Wanted) -> bool {
        self.talk.offered[wanted.0 as usize]
    }
}

fn take<T: PartialEq>(list: &mut Vec<T>, item: T) -> bool {
    let at = list.iter().position(|other| *other == item);
    at.map(|at| list.swap_remove(at)).is_some()
}

fn shuffle<T>(list: &mut [T], prng: &mut Prng) {
    for last in (1..list.len()).rev() {
        list.swap(last, prng.below(last as u32 + 1) as usize);
    }
}

/// The number it gives to metadata messages.
const THEIR_METADATA_ID: u8 = 3;

/// So many rejects while it may ask, and it asks no more for that block.
const REJECTS_MAX: u32 = 3;
