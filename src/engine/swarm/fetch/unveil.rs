//! A share whose only source we are, given out piece by piece (BEP 16).
//!
//! When several peers come for a torrent that nobody else has whole, and what we can send is scarce,
//! each is told of a few pieces that no other has yet, and of the next when it has them. So every
//! piece goes out once before any goes out twice, and the rest of the copying is done by those who
//! come: sixteen of them take hardly longer than one.
//!
//! ```text
//!  seen   1 1 0 1 0 0 0     some peer has said that it has the piece
//!             ^ front: the next to be told of; each peer has up to PENDING_MAX that it was told of
//!               and has not fetched
//! ```
//!
//! Who may not ask is told of one piece, so that it wants something and waits for its turn. Most of
//! those who come to a thin line wait: what they were told of is gone through a second time and
//! given to those who may ask, or the source would stand idle with most pieces promised to nobody
//! who can take them.
//!
//! It ends by itself, for good, once every piece has gone out or another source has come; then
//! everybody is told of everything. A peer that does not take what it is told of is told of more
//! after a while, so nobody waits for nothing.
//!
//! # When full
//! A torrent for which there is no place, or no bits, is offered whole as any other.

use crate::engine::swarm::pool::{Pool, Span};
use crate::engine::units::{Deadline, Instant, PieceIndex, TorrentSlot};

/// A torrent that is given out piece by piece.
struct Unveiling {
    torrent: TorrentSlot,
    count: u32,
    seen: Span,
    /// Steps gone through the pieces.
    front: u32,
    /// Everybody is told of everything.
    over: bool,
    /// Pieces are gone through in steps of this, from here on: not two boxes in the same order.
    stride: u32,
    start: u32,
}

impl Unveiling {
    /// The next piece that no peer has said it has. For who is `served` all are gone through once
    /// more, but for those that somebody `fetches`.
    fn next(
        &mut self,
        pool: &Pool<'_>,
        served: bool,
        fetches: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let rounds = if served { 2 } else { 1 };
        while self.front < rounds * self.count {
            let step = u64::from(self.front) * u64::from(self.stride) + u64::from(self.start);
            let again = self.front >= self.count;
            self.front += 1;
            let piece = (step % u64::from(self.count)) as u32;
            let is_out = pool.get(self.seen, piece) || again && fetches(piece);
            if !is_out {
                return Some(piece);
            }
        }
        None
    }
}

/// What a connection is told of a torrent that is given out so.
#[derive(Clone, Debug, Default)]
pub struct Veil {
    /// What goes to it is scarce, so it may be veiled.
    pub scarce: bool,
    /// The peer may ask.
    served: bool,
    told: Option<Told>,
    /// Something has changed that it has to look at.
    pub nudge: bool,
}

#[derive(Clone, Debug)]
struct Told {
    torrent: TorrentSlot,
    pending: heapless::Vec<(u32, Instant), PENDING_MAX>,
    /// Once it is over: pieces told of, from the first on.
    swept: u32,
}

/// All of it.
pub struct Unveilings<'m> {
    torrents: heapless::Vec<Unveiling, UNVEILINGS_MAX>,
    veils: &'m mut [Veil],
    /// Some connection has something to look at.
    nudged: bool,
}

impl<'m> Unveilings<'m> {
    /// Nothing is given out so, yet.
    pub fn new(veils: &'m mut [Veil]) -> Unveilings<'m> {
        Unveilings { torrents: heapless::Vec::new(), veils, nudged: false }
    }

    /// What goes to that connection is scarce, or is not.
    pub fn set_scarce(&mut self, index: usize, scarce: bool) {
        self.veils[index] = Veil { scarce, ..Veil::default() };
    }

    /// A peer has come for a torrent of `count` pieces that is whole here; `alone` when nobody else
    /// is known to have it whole, and others have come who lack something. Whether it is veiled.
    pub fn greet(
        &mut self,
        index: usize,
        torrent: TorrentSlot,
        count: u32,
        alone: bool,
        chance: u32,
        pool: &mut Pool<'_>,
    ) -> bool {
        let Some(veil) = self.veils.get_mut(index) else { return false };
        if !veil.scarce || count < PIECES_MIN {
            return false;
        }
        let known = self.torrents.iter().find(|one| one.torrent == torrent);
        let under_way = match known {
            Some(unveiling) => !unveiling.over,
            None if !alone || self.torrents.is_full() => false,
            None => {
                let Some(seen) = pool.take(count) else { return false };
                let (start, stride) = (chance % count, coprime(chance, count));
                let over = false;
                let one = Unveiling { torrent, count, seen, front: 0, over, stride, start };
                self.torrents.push(one).is_ok()
            }
        };
        if under_way {
            veil.told = Some(Told { torrent, pending: heapless::Vec::new(), swept: 0 });
        }
        under_way
    }

    /// A connection has ended.
    pub fn leave(&mut self, index: usize, pool: &mut Pool<'_>) {
        if let Some(veil) = self.veils.get_mut(index) {
            let told = core::mem::take(veil).told;
            if let Some(told) = told {
                self.let_go(told.torrent, pool);
            }
        }
    }

    /// One connection less is told of a torrent: it may be the one the others have waited for, or
    /// nobody is left to be told of anything.
    fn let_go(&mut self, torrent: TorrentSlot, pool: &mut Pool<'_>) {
        self.nudged = true;
        let mut left = false;
        for veil in self.veils.iter_mut() {
            let same = veil.told.as_ref().is_some_and(|told| told.torrent == torrent);
            veil.nudge |= same;
            left |= same;
        }
        let at = self.torrents.iter().position(|one| one.torrent == torrent && !one.over);
        if let Some(at) = at.filter(|_| !left) {
            pool.give_back(self.torrents.swap_remove(at).seen);
        }
    }

    /// The torrent's place may be given to another.
    pub fn forget(&mut self, torrent: TorrentSlot, pool: &mut Pool<'_>) {
        if let Some(at) = self.torrents.iter().position(|one| one.torrent == torrent) {
            pool.give_back(self.torrents.swap_remove(at).seen);
        }
    }

    /// A connection may ask from here on, or no longer.
    pub fn set_served(&mut self, index: usize, served: bool) {
        if let Some(veil) = self.veils.get_mut(index) {
            veil.served = served;
        }
    }

    /// The connection is told of pieces one by one.
    pub fn is_veiled(&self, index: usize) -> bool {
        self.veils.get(index).is_some_and(|veil| veil.told.is_some())
    }

    /// A peer of a torrent has a piece.
    pub fn note_have(
        &mut self,
        index: usize,
        torrent: TorrentSlot,
        piece: u32,
        pool: &mut Pool<'_>,
    ) {
        let of = |one: &&mut Unveiling| one.torrent == torrent && !one.over;
        if let Some(unveiling) = self.torrents.iter_mut().find(of) {
            pool.set(unveiling.seen, piece);
        }
        if let Some(told) = self.veils.get_mut(index).and_then(|veil| veil.told.as_mut()) {
            told.pending.retain(|(pending, _)| *pending != piece);
        }
    }

    /// Another has a torrent whole: everybody is told of everything. As when all has gone out.
    pub fn end(&mut self, torrent: TorrentSlot, pool: &mut Pool<'_>) -> bool {
        let under_way = self.torrents.iter().any(|one| one.torrent == torrent && !one.over);
        if under_way {
            self.settle(torrent, pool);
        }
        under_way
    }

    /// The next piece to tell a peer of.
    pub fn next_have(
        &mut self,
        index: usize,
        now: Instant,
        pool: &mut Pool<'_>,
    ) -> Option<PieceIndex> {
        let veil = self.veils.get_mut(index)?;
        let told = veil.told.as_mut()?;
        let torrent = told.torrent;
        let unveiling = self.torrents.iter_mut().find(|one| one.torrent == torrent)?;
        if unveiling.over {
            let piece = PieceIndex(told.swept);
            told.swept += 1;
            if told.swept == unveiling.count {
                veil.told = None;
            }
            return Some(piece);
        }
        told.pending.retain(|(_, at)| now < at.after(UNTAKEN_MS));
        let (served, pending) = (veil.served, told.pending.len());
        if pending >= if served { PENDING_MAX } else { 1 } {
            return None;
        }
        let veils = &*self.veils;
        let fetches = |piece| fetched(veils, torrent).any(|fetched| fetched == piece);
        let next = unveiling.next(pool, served, fetches);
        if let Some(piece) = next {
            let told = self.veils[index].told.as_mut()?;
            // There is room: that was looked at.
            let _ = told.pending.push((piece, now));
        } else if served && fetched(veils, torrent).next().is_none() {
            self.settle(torrent, pool);
        }
        next.map(PieceIndex)
    }

    /// When the next piece is to be told of although none has been taken.
    pub fn deadline(&self, index: usize) -> Deadline {
        let told = self.veils.get(index).and_then(|veil| veil.told.as_ref());
        let first = told.and_then(|told| told.pending.iter().map(|(_, at)| *at).min());
        match first {
            Some(at) => Deadline { at: at.after(UNTAKEN_MS), why: "a piece nobody takes" },
            None => Deadline::NONE,
        }
    }

    /// The next connection that has something to look at.
    pub fn take_nudged(&mut self) -> Option<usize> {
        if !self.nudged {
            return None;
        }
        let next = self.veils.iter().position(|veil| veil.nudge);
        self.nudged = next.is_some();
        let at = next?;
        self.veils[at].nudge = false;
        Some(at)
    }

    /// Everything has gone out: the bits are given back, and everybody has to hear it.
    fn settle(&mut self, torrent: TorrentSlot, pool: &mut Pool<'_>) {
        if let Some(unveiling) = self.torrents.iter_mut().find(|one| one.torrent == torrent) {
            pool.give_back(core::mem::replace(&mut unveiling.seen, Span::EMPTY));
            unveiling.over = true;
        }
        self.nudged = true;
        for veil in self.veils.iter_mut() {
            veil.nudge |= veil.told.as_ref().is_some_and(|told| told.torrent == torrent);
        }
    }
}

/// Pieces that somebody who may ask has been told of and is still to fetch.
fn fetched(veils: &[Veil], torrent: TorrentSlot) -> impl Iterator<Item = u32> {
    let told = veils.iter().filter(|veil| veil.served).filter_map(|veil| veil.told.as_ref());
    let pending = told.filter(move |told| told.torrent == torrent).flat_map(|told| &told.pending);
    pending.map(|(piece, _)| *piece)
}

/// A number that has no divisor in common with `count`, so that steps of it meet every piece.
fn coprime(chance: u32, count: u32) -> u32 {
    let divides = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    let first = chance / 2 % count;
    (first..count).chain(0..first).find(|step| divides(*step, count)).unwrap_or(1)
}

/// Torrents that are, or were, given out so.
const UNVEILINGS_MAX: usize = 16;

/// Pieces a peer is told of and has not fetched: one comes, one is asked for, and of one the news that
/// it has come is on its way.
const PENDING_MAX: usize = 3;

/// A piece that has not been fetched after so long does not keep others from being told of.
const UNTAKEN_MS: u64 = 5_000;

/// With fewer pieces there is too little to be gained.
const PIECES_MIN: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const TORRENT: TorrentSlot = TorrentSlot(3);

    #[test]
    fn every_piece_goes_to_one_peer_before_any_goes_to_two() {
        let (mut lent, mut veils) = ([0; 1_024], std::vec![Veil::default(); 3]);
        let (mut pool, now) = (Pool::new(&mut lent), Instant::from_millis(7));
        let free = pool.free_bytes();
        let mut unveilings = Unveilings::new(&mut veils);
        for index in 0..3 {
            unveilings.set_scarce(index, true);
            assert!(unveilings.greet(index, TORRENT, 100, true, 99, &mut pool));
            unveilings.set_served(index, true);
        }
        // One has some already.
        (0..10).for_each(|piece| unveilings.note_have(2, TORRENT, piece, &mut pool));
        let mut out = Vec::new();
        for round in 0..100 {
            let index = round % 3;
            while let Some(piece) = unveilings.next_have(index, now, &mut pool) {
                if unveilings.torrents[0].over {
                    break;
                }
                out.push(piece.0);
            }
            // It takes what it was told of.
            (0..100).filter(|piece| out.contains(piece)).for_each(|piece| {
                unveilings.note_have(index, TORRENT, piece, &mut pool);
            });
        }
        let count = out.len();
        out.sort_unstable();
        out.dedup();
        assert!(out.len() == count && count >= 89, "{count}");
        assert_eq!(pool.free_bytes(), free);
        assert!((0..3).all(|index| !unveilings.is_veiled(index) || {
            while unveilings.next_have(index, now, &mut pool).is_some() {}
            !unveilings.is_veiled(index)
        }));
        assert!(!unveilings.greet(0, TORRENT, 100, true, 1, &mut pool), "it is over for good");
    }

    #[test]
    fn who_takes_nothing_is_told_of_more_after_a_while() {
        let (mut lent, mut veils) = ([0; 1_024], std::vec![Veil::default(); 1]);
        let (mut pool, mut now) = (Pool::new(&mut lent), Instant::from_millis(7));
        let mut unveilings = Unveilings::new(&mut veils);
        assert!(!unveilings.greet(0, TORRENT, 100, true, 1, &mut pool), "nothing is scarce");
        unveilings.set_scarce(0, true);
        assert!(!unveilings.greet(0, TORRENT, 100, false, 1, &mut pool), "another has it");
        assert!(unveilings.greet(0, TORRENT, 100, true, 1, &mut pool));
        unveilings.set_served(0, true);
        let mut told = 0;
        for _ in 0..3 {
            while unveilings.next_have(0, now, &mut pool).is_some() {
                told += 1;
            }
            now = unveilings.deadline(0).at;
        }
        assert_eq!(told, 3 * PENDING_MAX);
        assert!(unveilings.end(TORRENT, &mut pool) && !unveilings.end(TORRENT, &mut pool));
        assert_eq!(unveilings.take_nudged(), Some(0));
        assert_eq!(unveilings.next_have(0, now, &mut pool), Some(PieceIndex(0)));
    }

    #[test]
    fn what_a_peer_that_may_not_ask_was_told_of_goes_to_one_that_may() {
        let (mut lent, mut veils) = ([0; 1_024], std::vec![Veil::default(); 40]);
        let (mut pool, now) = (Pool::new(&mut lent), Instant::from_millis(7));
        let mut unveilings = Unveilings::new(&mut veils);
        let mut waiting = Vec::new();
        for index in 0..40 {
            unveilings.set_scarce(index, true);
            assert!(unveilings.greet(index, TORRENT, 40, true, 1, &mut pool));
            unveilings.set_served(index, index < 2);
            while let Some(piece) = unveilings.next_have(index, now, &mut pool) {
                waiting.extend((index >= 2).then_some(piece.0));
            }
        }
        assert_eq!(waiting.len(), 34, "one each, while there is one that nobody was told of");
        let mut out = Vec::new();
        for index in [0, 1].into_iter().cycle().take(40) {
            let pending = unveilings.veils[index].told.as_ref().unwrap().pending.clone();
            out.extend(pending.iter().map(|(piece, _)| *piece));
            for (piece, _) in pending {
                unveilings.note_have(index, TORRENT, piece, &mut pool);
            }
            while unveilings.next_have(index, now, &mut pool).is_some() {
                if unveilings.torrents[0].over {
                    break;
                }
            }
        }
        assert!(unveilings.torrents[0].over);
        out.sort_unstable();
        assert!(out.iter().copied().eq(0..40), "each once: {out:?}");
    }

    #[test]
    fn who_leaves_holds_nobody_up_and_the_last_one_gives_back_the_bits() {
        let (mut lent, mut veils) = ([0; 1_024], std::vec![Veil::default(); 2]);
        let (mut pool, now) = (Pool::new(&mut lent), Instant::from_millis(7));
        let free = pool.free_bytes();
        let mut unveilings = Unveilings::new(&mut veils);
        for index in 0..2 {
            unveilings.set_scarce(index, true);
            assert!(unveilings.greet(index, TORRENT, 40, true, 1, &mut pool));
            unveilings.set_served(index, true);
            while unveilings.next_have(index, now, &mut pool).is_some() {}
        }
        unveilings.leave(1, &mut pool);
        assert_eq!(unveilings.take_nudged(), Some(0));
        assert!(pool.free_bytes() < free);
        // The last one goes as well: nothing is kept of it, and it may begin anew.
        unveilings.leave(0, &mut pool);
        assert_eq!(pool.free_bytes(), free);
        unveilings.set_scarce(0, true);
        assert!(unveilings.greet(0, TORRENT, 40, true, 1, &mut pool));
    }

    #[test]
    fn steps_meet_every_piece() {
        for (chance, count) in [(0, 32), (u32::MAX, 100), (77, 97), (1 << 20, 65_536)] {
            let stride = coprime(chance, count);
            let mut met = std::vec![false; count as usize];
            (0..count).for_each(|step| {
                met[(u64::from(step) * u64::from(stride) % u64::from(count)) as usize] = true;
            });
            assert!(met.into_iter().all(|met| met), "{chance} {count}");
        }
    }
}
