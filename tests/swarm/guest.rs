//! A peer that is not ours: it has content and habits, some of them bad.
//!
//! It says its messages by rules of its own, byte for byte, and understands only what it needs.

use std::collections::VecDeque;
use std::rc::Rc;

use perennial::engine::units::Instant;

use crate::content::Content;
use crate::fake_peer::{self as say, Speaks, Wanted};
use crate::prng::Prng;
use crate::sim_net::{Link, Read};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    None,
    /// One block in so many is not what it should be.
    BadData(u32),
    /// Its first block is bad, and then it leaves.
    BadAndGone,
    /// Nothing that is asked for is answered.
    Silent,
    /// The front of the first block comes, and no more.
    HalfABlock,
    /// The front of the first block comes, and then a byte a second.
    Drips,
    /// It never lets anybody ask.
    Choked,
    /// It changes its mind every so many milliseconds.
    Flaps(u64),
    /// It changes its mind, and answers nothing meanwhile.
    FlapsAndSilent(u64),
    /// It rejects everything, or says nothing where it cannot.
    Rejects,
    /// It sends what nobody asked for.
    Unasked,
    /// It sends each block twice.
    Twice,
    /// It sends blocks that are too short.
    Short,
    /// It tells of what it gets in bitfields, like aria2.
    Bitfields(u64),
    /// It tells of each of its pieces three times over.
    Repeats,
    /// It leaves after so many blocks.
    LeavesAfter(u32),
    /// It says things drawn from a seed.
    Raves,
    /// It sends bytes drawn from a seed.
    Noise,
}

/// How it behaves.
#[derive(Clone)]
pub struct Habits {
    pub speaks: Speaks,
    pub vice: Vice,
    /// Between two blocks.
    pub block_ms: u64,
    /// Requests it says it keeps.
    pub reqq: Option<u16>,
}

impl Habits {
    pub const GOOD: Habits =
        Habits { speaks: Speaks::ALL, vice: Vice::None, block_ms: 20, reqq: None };

    pub fn with(vice: Vice) -> Habits {
        Habits { vice, ..Habits::GOOD }
    }
}

/// See the module.
pub struct Guest {
    pub habits: Habits,
    content: Rc<Content>,
    /// Which pieces it says it has.
    claims: Vec<bool>,
    id: u8,
    prng: Prng,
    heard: Vec<u8>,
    greeted: bool,
    out: Vec<u8>,
    asked: VecDeque<Wanted>,
    taken_back: Vec<Wanted>,
    unchoked: bool,
    interested: bool,
    next_block: Instant,
    flaps_at: Instant,
    pub sent_blocks: u32,
    /// Requests heard in all.
    pub asked_count: u32,
    /// The most requests it had at a time.
    pub asked_most: usize,
    leaves: bool,
    /// It is in the middle of a block, for ever.
    stuck: bool,
    /// What is left of that block.
    drips: VecDeque<u8>,
    pub ended: bool,
    pub messages_left: u32,
}

impl Guest {
    pub fn new(
        id: u8,
        habits: Habits,
        content: &Rc<Content>,
        claims: impl Fn(u32) -> bool,
        seed: u64,
    ) -> Guest {
        Guest {
            habits,
            content: Rc::clone(content),
            claims: (0..content.piece_count()).map(claims).collect(),
            id,
            prng: Prng::new(seed),
            heard: Vec::new(),
            greeted: false,
            out: Vec::new(),
            asked: VecDeque::new(),
            taken_back: Vec::new(),
            unchoked: false,
            interested: false,
            next_block: Instant::default(),
            flaps_at: Instant::default(),
            sent_blocks: 0,
            asked_count: 0,
            asked_most: 0,
            leaves: false,
            stuck: false,
            drips: VecDeque::new(),
            ended: false,
            messages_left: MESSAGES,
        }
    }

    /// What it sends is right, as far as it goes.
    pub fn is_truthful(&self) -> bool {
        use Vice::{BadAndGone, BadData, Noise, Raves};
        !matches!(self.habits.vice, BadData(_) | BadAndGone | Noise | Raves)
    }

    /// A connection of its own to a host has just been made.
    pub fn begin(&mut self) {
        self.heard.clear();
        self.out.clear();
        self.asked.clear();
        (self.greeted, self.unchoked, self.interested) = (false, false, false);
        (self.leaves, self.ended, self.stuck) = (false, false, false);
        self.sent_blocks = 0;
        self.drips.clear();
        let speaks = self.habits.speaks;
        let bytes = say::handshake(self.content.info_hash, [self.id; 20], speaks);
        self.out.extend(bytes);
        if speaks.extended {
            let reqq = self.habits.reqq.map(|reqq| format!("4:reqqi{reqq}e")).unwrap_or_default();
            self.out.extend(say::extended(0, format!("d1:mde{reqq}e").as_bytes()));
        }
        let whole = self.claims.iter().all(|claim| *claim);
        let bits = match self.habits.vice {
            Vice::Bitfields(_) => self.bits(|piece| piece % 7 == 0),
            _ => self.bits(|_| true),
        };
        self.out.extend(if whole && speaks.fast && !self.is_aria() {
            say::have_all()
        } else {
            say::bitfield(&bits)
        });
        if self.habits.vice == Vice::Repeats {
            let mine = (0..self.content.piece_count()).filter(|p| self.claims[*p as usize]);
            let haves: Vec<u8> = mine.flat_map(say::have).collect();
            self.out.extend(haves.repeat(2));
        }
    }

    fn is_aria(&self) -> bool {
        matches!(self.habits.vice, Vice::Bitfields(_))
    }

    fn bits(&self, told: impl Fn(u32) -> bool) -> Vec<u8> {
        let mut bits = vec![0; self.claims.len().div_ceil(8)];
        let all = self.claims.iter().enumerate();
        for (piece, _) in all.filter(|(piece, claim)| **claim && told(*piece as u32)) {
            bits[piece / 8] |= 0x80 >> (piece % 8);
        }
        bits
    }

    /// Does what can be done now; whether that was anything.
    pub fn act(&mut self, link: &mut Link, now: Instant, prng: &mut Prng) -> bool {
        let mut moved = false;
        let mut buffer = [0; 4 << 10];
        loop {
            match link.from_us.read(&mut buffer, now) {
                Read::Nothing => break,
                Read::End => {
                    moved |= !self.ended;
                    self.ended = true;
                    break;
                }
                Read::Some(read) => {
                    self.heard.extend(&buffer[..read]);
                    moved = true;
                }
            }
        }
        if self.ended {
            return moved;
        }
        let before = self.out.len();
        while self.hear_one(now) {}
        self.misbehave(now);
        self.flap(now);
        // In the middle of a block nothing can be said.
        if self.stuck {
            self.out.truncate(before);
            self.drip(now);
        } else {
            self.answer(now);
        }
        let sent = link.to_us.write(&self.out, now, prng).unwrap_or(self.out.len());
        self.out.drain(..sent);
        moved |= sent > 0;
        if self.leaves && self.out.is_empty() {
            link.to_us.close();
            self.ended = true;
            moved = true;
        }
        moved
    }

    /// When it wants to act, should nothing happen before.
    pub fn wakes_at(&self, now: Instant) -> Instant {
        if self.ended || self.stuck {
            return if self.drips.is_empty() { Instant::NEVER } else { self.next_block };
        }
        let block = if self.asked.is_empty() { Instant::NEVER } else { self.next_block };
        let later = |at: Instant| if at > now { at } else { Instant::NEVER };
        later(block).min(later(self.flaps_at))
    }

    fn hear_one(&mut self, now: Instant) -> bool {
        if !self.greeted {
            if self.heard.len() < 68 {
                return false;
            }
            self.heard.drain(..68);
            self.greeted = true;
            self.flaps_at = now.after(1);
        }
        let Some(head) = self.heard.get(..4) else { return false };
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        if self.heard.len() < 4 + length {
            return false;
        }
        let whole: Vec<u8> = self.heard.drain(..4 + length).skip(4).collect();
        let number = |at: usize| u32::from_be_bytes(whole[at..at + 4].try_into().expect("four"));
        match whole.first() {
            Some(2) => self.interested = true,
            Some(3) => self.interested = false,
            Some(6) => self.hear_request((number(1), number(5), number(9))),
            Some(8) => {
                let wanted = (number(1), number(5), number(9));
                self.taken_back.push(wanted);
                let known = self.asked.iter().position(|asked| *asked == wanted);
                if let Some(at) = known {
                    self.asked.remove(at);
                    if self.habits.speaks.fast {
                        self.out.extend(say::reject(wanted));
                    }
                }
            }
            _ => {}
        }
        true
    }

    fn hear_request(&mut self, wanted: Wanted) {
        self.asked_count += 1;
        // Who raves says now this and now that.
        let claims = self.claims[wanted.0 as usize] || self.habits.vice == Vice::Raves;
        assert!(claims, "asked for {wanted:?}, which it has not");
        if !self.unchoked {
            if self.habits.speaks.fast {
                self.out.extend(say::reject(wanted));
            }
            return;
        }
        // Of one that answers late or not at all, a block may be wanted again; and what was taken
        // back and asked for again before that was known.
        let excused = self.habits.vice != Vice::None || self.taken_back.contains(&wanted);
        assert!(excused || !self.asked.contains(&wanted), "asked twice for {wanted:?}");
        self.asked.push_back(wanted);
        self.asked_most = self.asked_most.max(self.asked.len());
    }

    /// Lets the other side ask, or changes its mind.
    fn flap(&mut self, now: Instant) {
        let (Vice::Flaps(ms) | Vice::FlapsAndSilent(ms)) = self.habits.vice else {
            if !self.unchoked && self.interested && self.habits.vice != Vice::Choked {
                self.unchoked = true;
                self.out.extend(say::unchoke());
            }
            return;
        };
        if now < self.flaps_at || !self.greeted {
            return;
        }
        self.flaps_at = now.after(ms);
        self.unchoked = !self.unchoked;
        self.out.extend(if self.unchoked { say::unchoke() } else { say::choke() });
        if !self.unchoked && matches!(self.habits.vice, Vice::Flaps(_)) {
            for wanted in std::mem::take(&mut self.asked) {
                if self.habits.speaks.fast {
                    self.out.extend(say::reject(wanted));
                }
            }
        }
    }

    fn answer(&mut self, now: Instant) {
        while let Some(wanted) = self.asked.front().copied()
            && now >= self.next_block
            && self.out.len() < 64 << 10
        {
            match self.habits.vice {
                Vice::Silent | Vice::FlapsAndSilent(_) => {
                    self.next_block = Instant::NEVER;
                    return;
                }
                Vice::Rejects => {
                    self.asked.pop_front();
                    if self.habits.speaks.fast {
                        self.out.extend(say::reject(wanted));
                    }
                    continue;
                }
                _ => {}
            }
            self.asked.pop_front();
            self.send_block(wanted);
            self.next_block = now.after(self.habits.block_ms);
        }
    }

    fn drip(&mut self, now: Instant) {
        if now >= self.next_block {
            self.out.extend(self.drips.pop_front());
            self.next_block = now.after(1_000);
        }
    }

    fn send_block(&mut self, (piece, begin, length): Wanted) {
        let mut data = self.content.part(piece, begin, length).to_vec();
        self.sent_blocks += 1;
        match self.habits.vice {
            Vice::BadData(one_in) if self.prng.one_in(one_in) => {
                data[self.prng.below(length) as usize] ^= 0x40;
            }
            Vice::BadAndGone => {
                data[7] ^= 1;
                self.leaves = true;
            }
            Vice::Short => {
                data.pop();
            }
            Vice::LeavesAfter(blocks) => self.leaves |= self.sent_blocks >= blocks,
            _ => {}
        }
        let mut message = say::piece((piece, begin), &data);
        if matches!(self.habits.vice, Vice::HalfABlock | Vice::Drips) {
            let rest = message.split_off(message.len() / 2);
            if self.habits.vice == Vice::Drips {
                self.drips = rest.into();
            }
            self.stuck = true;
            self.asked.clear();
        }
        self.out.extend(message);
        match self.habits.vice {
            Vice::Twice => self.out.extend(say::piece((piece, begin), &data)),
            Vice::Unasked => {
                let other = self.prng.below(self.content.piece_count());
                self.out.extend(say::piece((other, 0), self.content.part(other, 0, 100)));
            }
            Vice::Bitfields(one_in) if self.sent_blocks.is_multiple_of(one_in as u32) => {
                let (modulus, sent) = (7, self.sent_blocks);
                let bits = self.bits(|piece| piece % modulus <= sent / one_in as u32);
                self.out.extend(say::bitfield(&bits));
            }
            _ => {}
        }
    }

    /// Says what comes to its mind.
    fn misbehave(&mut self, now: Instant) {
        if !self.greeted || self.out.len() > 32 << 10 || self.messages_left == 0 {
            return;
        }
        match self.habits.vice {
            Vice::Noise if self.flaps_at <= now => {
                let length = 1 + self.prng.below(2_000) as usize;
                let start = self.out.len();
                self.out.resize(start + length, 0);
                self.prng.fill(&mut self.out[start..]);
                self.messages_left -= 1;
                self.flaps_at = now.after(20);
            }
            Vice::Raves if self.flaps_at <= now => {
                for _ in 0..20 {
                    let message = self.rave();
                    self.out.extend(message);
                    self.messages_left = self.messages_left.saturating_sub(1);
                }
                self.flaps_at = now.after(10);
            }
            _ => {}
        }
    }

    /// A message that is whole, and means anything.
    fn rave(&mut self) -> Vec<u8> {
        let count = self.content.piece_count();
        let prng = &mut self.prng;
        let beyond = u32::from(prng.one_in(400));
        let piece = prng.below(count + beyond);
        let block = 16 << 10;
        let begin = prng.below(4) * block;
        let wanted = (piece, begin, block);
        let asked = self.asked.front().copied();
        match prng.below(22) {
            0 => say::choke(),
            1 | 2 => say::unchoke(),
            3 => say::interested(),
            4 => say::not_interested(),
            5 | 6 => say::have(piece),
            7 => say::bitfield(&self.bits(|piece| piece % 3 == 0)),
            8 if self.habits.speaks.fast => say::have_all(),
            9 if self.habits.speaks.fast => say::have_none(),
            10 => say::request((piece.min(count - 1), 0, 1 + prng.below(1_000))),
            11 => say::cancel(wanted),
            12 if self.habits.speaks.fast => say::reject(asked.unwrap_or(wanted)),
            13 => say::keep_alive(),
            14 if self.habits.speaks.extended => say::extended(0, b"d4:reqqi7ee"),
            15 => say::message(99, &[1; 9]),
            16 if prng.one_in(60) => say::piece((piece, begin), &[7; 16 << 10]),
            _ => {
                let Some((piece, begin, length)) = self.asked.pop_front() else {
                    return say::keep_alive();
                };
                let mut data = self.content.part(piece, begin, length).to_vec();
                if self.prng.one_in(3) {
                    data[0] ^= 1;
                }
                say::piece((piece, begin), &data)
            }
        }
    }
}

/// What a guest that raves has to say.
pub const MESSAGES: u32 = 4_000;
