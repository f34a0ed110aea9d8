//! What a peer is asked for next.
//!
//! In this order:
//!
//! 1. the piece it works on, block after block, so that hashing can go along with writing;
//! 2. a piece nobody works on: the rarest of those it has, so that what could be lost is fetched
//!    first (BEP 3 leaves the choice open); the first few at random, so that there is soon
//!    something to give; or the first one, when the owner wants to watch meanwhile, from where
//!    somebody watches on;
//! 3. a piece that others work on and that has blocks nobody was asked for;
//! 4. when there is nothing else for it: a block that another was asked for and that would be here
//!    much later from there, by the pace of both. The other is told to stop. So nobody waits for a
//!    slow peer while a fast one has nothing to do, neither at the end nor before.
//!
//! A peer that would take longer than ten seconds for a piece helps first (3 before 2): many pieces
//! half done are of no use to anybody.
//!
//! # Work
//!
//! One pass over the bitmaps for each piece begun, one over the table of pieces under way for each
//! that is helped with; a peer from which nothing more is to be had is not looked through again
//! until something changes.

use super::link::{Ask, AskState, Has};
use super::partial::Partial;
use super::{Fetch, Fetcher};
use crate::engine::units::{Block, Instant, PeerSlot, PieceIndex};

impl Fetcher<'_> {
    /// The next block to ask a peer for; it is noted as asked for.
    pub(super) fn next_ask(&mut self, slot: PeerSlot, now: Instant) -> Option<Block> {
        let asks_each = self.asks_each as u16;
        let (link, fetch, _) = self.link(slot)?;
        for after in [&mut link.relieve_after, &mut link.ask_after] {
            *after = if now < *after { *after } else { Instant::default() };
        }
        if link.ask_after != Instant::default() {
            return None;
        }
        if !link.unchoked || link.useful == 0 || fetch.paused {
            return None;
        }
        // What comes after a block that does not come is not to be counted on.
        if link.snubbed && link.receiving.is_some() {
            return None;
        }
        let most = if link.snubbed { 1 } else { link.asks_max.min(link.reqq).min(asks_each) };
        // Requests go in batches: one packet for many.
        link.filling = link.asks_count() < most && (link.filling || link.asks_count() <= most / 2);
        if !link.filling {
            return None;
        }
        if link.asks_count() == 0 && link.receiving.is_none() {
            // It is late from now on, not from the last time it had something to send.
            link.expect(now);
        }
        let (at, block) = self.choose(slot, now)?;
        let partial = self.partials[at].as_mut()?;
        partial.ask(&mut self.pool, block);
        let (piece, asked) = (partial.piece, partial.block(block));
        // There is room: the number of requests was looked at above.
        self.asks(slot)?.push(Ask { piece, block, state: AskState::Said });
        Some(asked)
    }

    /// Where the piece under way is, and which of its blocks.
    fn choose(&mut self, slot: PeerSlot, now: Instant) -> Option<(usize, u16)> {
        if let Some(found) = self.go_on(slot) {
            return Some(found);
        }
        let at = if self.helps_first(slot, now) {
            self.help(slot).or_else(|| self.begin_piece(slot, None))
        } else {
            self.begin_piece(slot, None).or_else(|| self.help(slot))
        };
        let at = at.or_else(|| self.begin_in_place_of_another(slot));
        let Some(at) = at else { return self.relieve(slot, now) };
        let block = self.partials[at].as_ref()?.first_unasked(&self.pool)?;
        self.links[slot.index()].as_mut()?.working_on = Some(at as u16);
        Some((at, block))
    }

    /// The piece it works on, if that has blocks left.
    pub(super) fn go_on(&mut self, slot: PeerSlot) -> Option<(usize, u16)> {
        let link = self.links[slot.index()].as_mut()?;
        let at = usize::from(link.working_on?);
        let fits = |partial: &&Partial| partial.fetch == link.fetch && partial.is_for(slot);
        let partial = self.partials[at].as_ref().filter(fits);
        // The place may have been given to another piece since.
        let partial = partial.filter(|partial| link.has.contains(&self.pool, partial.piece));
        let block = partial.and_then(|partial| partial.first_unasked(&self.pool));
        if block.is_none() {
            link.working_on = None;
        }
        Some((at, block?))
    }

    fn helps_first(&mut self, slot: PeerSlot, now: Instant) -> bool {
        let crowded = self.partials.iter().flatten().count() * 2 >= self.partials.len();
        let Some((link, fetch, _)) = self.link(slot) else { return true };
        if link.on_parole {
            return false;
        }
        let blocks = fetch.layout.piece_bytes.div_ceil(crate::engine::limits::BLOCK_BYTES);
        let quick = u32::from(link.blocks_a_second(now)) * ALONE_SECONDS >= blocks;
        crowded || !(quick || blocks <= SMALL_BLOCKS)
    }

    /// Begins a piece; where it is. Of several that are as good, the first from `near` on, or any.
    ///
    /// # When full
    /// `None`: pieces under way come first.
    pub(super) fn begin_piece(
        &mut self,
        slot: PeerSlot,
        near: Option<PieceIndex>,
    ) -> Option<usize> {
        let place = self.partials.iter().position(Option::is_none)?;
        let Fetcher { links, fetches, partials, pool, .. } = self;
        let link = links[slot.index()].as_mut()?;
        let fetch = fetches[usize::from(link.fetch)].as_mut()?;
        if link.dry || fetch.open_count == 0 {
            return None;
        }
        let has = match link.has {
            Has::All => None,
            Has::Some(span) => Some(pool.bytes(span)),
            Has::Nothing | Has::Untold => return None,
        };
        let in_order = fetch.front();
        let random = in_order.is_none() && fetch.verified_count < RANDOM_FIRST;
        let start = match in_order.or(near.map(|near| near.0)) {
            Some(piece) => piece,
            None => fetch.draw(),
        };
        let rarity = |piece| match in_order {
            None if !random => pool.counter(fetch.availability, piece),
            _ => 0,
        };
        let found = pick(pool.bytes(fetch.open), has, start, rarity);
        let Some(piece) = found else {
            link.dry = true;
            return None;
        };
        let alone = link.on_parole.then_some(slot);
        let partial = Partial::begin(pool, link.fetch, piece, &fetch.layout, alone)?;
        partials[place] = Some(partial);
        pool.clear(fetch.open, piece);
        fetch.open_count -= 1;
        Some(place)
    }

    /// A piece others work on with blocks left that nobody was asked for: the one with the fewest.
    pub(super) fn help(&self, slot: PeerSlot) -> Option<usize> {
        let link = self.links[slot.index()].as_ref()?;
        if link.on_parole {
            return None;
        }
        let fits = |partial: &Partial| {
            partial.fetch == link.fetch
                && partial.unasked_count() > 0
                && partial.is_for(slot)
                && link.has.contains(&self.pool, partial.piece)
        };
        let numbered = self.partials.iter().enumerate();
        let fitting = numbered.filter_map(|(at, partial)| {
            let partial = partial.as_ref().filter(|partial| fits(partial))?;
            Some((partial.unasked_count(), at))
        });
        fitting.min().map(|(_, at)| at)
    }

    /// Begins a piece where one stands that nobody is at work on, and that this peer cannot help
    /// with: one of which nobody who is here has the rest must not be in the way for ever. Who works
    /// alone begins that piece itself afresh, when there is no other.
    fn begin_in_place_of_another(&mut self, slot: PeerSlot) -> Option<usize> {
        let link = self.links[slot.index()].as_ref()?;
        let fetch = self.fetches[usize::from(link.fetch)].as_ref()?;
        let has = match link.has {
            Has::All => None,
            Has::Some(span) => Some(self.pool.bytes(span)),
            Has::Nothing | Has::Untold => return None,
        };
        let open = self.pool.bytes(fetch.open);
        let nothing_open = link.dry || pick(open, has, 0, |_| 0).is_none();
        if nothing_open && !link.on_parole {
            return None;
        }
        let fits = |partial: &Partial| {
            let has = partial.fetch == link.fetch && link.has.contains(&self.pool, partial.piece);
            !nothing_open || has
        };
        let numbered = self.partials.iter().enumerate();
        let idle = numbered.filter_map(|(at, partial)| {
            let partial = partial.as_ref().filter(|partial| fits(partial))?;
            Some((partial.idle_count()?, at))
        });
        let (_, at) = idle.min()?;
        self.reopen(at);
        self.begin_piece(slot, None)
    }

    /// A block that another was asked for and that this peer is likely to send much earlier. The
    /// other is told to stop, unless it has begun to send it.
    fn relieve(&mut self, slot: PeerSlot, now: Instant) -> Option<(usize, u16)> {
        let link = self.links[slot.index()].as_mut()?;
        if link.on_parole || link.relieve_after != Instant::default() {
            return None;
        }
        let (has, place) = (link.has, link.fetch);
        let own_ms = link.arrives_in_ms(link.asks_count(), now);
        let (mut worst, mut waits) = (2 * own_ms + RELIEF_MS, false);
        let mut found = None;
        for index in (0..self.links.len()).filter(|index| *index != slot.index()) {
            let Some(link) = self.links[index].as_ref().filter(|link| link.fetch == place) else {
                continue;
            };
            waits |= link.is_due_something();
            let first = index * self.asks_each;
            let asks = &self.asks[first..first + usize::from(link.asks_count())];
            let coming = link.receiving.filter(|_| link.receiving_wanted);
            let behind = asks.iter().enumerate().rev().map(|(at, ask)| (at as u16 + 1, *ask));
            for (behind, ask) in behind.chain(coming.map(|ask| (0, ask))) {
                let late_ms = link.arrives_in_ms(behind, now);
                if late_ms <= worst {
                    break;
                }
                if ask.state == AskState::Said
                    && has.contains(&self.pool, ask.piece)
                    && self.can_relieve(slot, place, ask)
                {
                    (worst, found) = (late_ms, Some((index, behind > 0, ask)));
                    break;
                }
            }
        }
        let Some((index, stoppable, ask)) = found else {
            let link = self.links[slot.index()].as_mut()?;
            link.relieve_after =
                if waits { now.after(RELIEVE_LOOK_MS) } else { link.relieve_after };
            return None;
        };
        if stoppable {
            self.asks(PeerSlot(index as u16))?.call_off(ask.piece, ask.block);
            self.nudge(index);
        }
        let at = self.find(place, ask.piece)?;
        self.partials[at].as_mut()?.shared = true;
        Some((at, ask.block))
    }

    /// Whether a block can be asked of a peer that another was asked for.
    fn can_relieve(&self, slot: PeerSlot, place: u16, ask: Ask) -> bool {
        let Some(link) = &self.links[slot.index()] else { return false };
        let same = |other: &Ask| (other.piece, other.block) == (ask.piece, ask.block);
        let first = slot.index() * self.asks_each;
        let own = &self.asks[first..first + usize::from(link.asks_count())];
        !own.iter().chain(&link.receiving).any(same) && self.wants(slot, place, ask)
    }
}

impl Fetch {
    /// A number nobody can foretell who does not know the seed (xorshift, period 2^32 - 1).
    fn draw(&mut self) -> u32 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        self.chance
    }
}

/// The piece that is `open`, is among those the peer `has` (nothing: all), and is of the least
/// `rarity`; of equals the first from `start` on, going round.
fn pick(open: &[u8], has: Option<&[u8]>, start: u32, rarity: impl Fn(u32) -> u16) -> Option<u32> {
    let first = start as usize / 8 % open.len().max(1);
    let mut best: Option<(u16, u32)> = None;
    // The first byte from its bit on, and once more in the end for what stands before that.
    let (behind, before) = (0xff >> (start % 8), !(0xff >> (start % 8)));
    let round = (first + 1..open.len()).chain(0..first).map(|at| (at, 0xff));
    let ends = |mask: u8| (first < open.len()).then_some((first, mask));
    for (at, mask) in ends(behind).into_iter().chain(round).chain(ends(before)) {
        let mut bits = open[at] & mask & has.map_or(0xff, |has| has[at]);
        while bits != 0 {
            let bit = bits.leading_zeros();
            bits &= !(0x80 >> bit);
            let piece = at as u32 * 8 + bit;
            let rarity = rarity(piece);
            // Nothing is rarer than what one peer alone has.
            if rarity <= 1 && (has.is_some() || rarity == 0) {
                return Some(piece);
            }
            if best.is_none_or(|(least, _)| rarity < least) {
                best = Some((rarity, piece));
            }
        }
    }
    best.map(|(_, piece)| piece)
}

/// A peer that needs longer for a piece helps others with theirs first.
const ALONE_SECONDS: u32 = 10;

/// Pieces of so few blocks are worth beginning for anybody.
const SMALL_BLOCKS: u32 = 8;

/// Pieces that are chosen at random before the rarest: a newcomer needs something to give.
const RANDOM_FIRST: u32 = 4;

/// A peer is not relieved of a block for less than that.
const RELIEF_MS: u64 = 300;

/// Between two looks whether another is to be relieved.
const RELIEVE_LOOK_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_piece_the_peer_has_is_picked_and_equals_go_round() {
        let open = [0b0111_1111, 0b1100_0000];
        let rarity = |piece| [9, 5, 5, 3, 9, 9, 9, 9, 3, 9][piece as usize];
        assert_eq!(pick(&open, None, 0, rarity), Some(3));
        assert_eq!(pick(&open, None, 4, rarity), Some(8));
        assert_eq!(pick(&open, None, 9, rarity), Some(3));
        assert_eq!(pick(&open, Some(&[0b0110_0000, 0]), 2, rarity), Some(2));
        assert_eq!(pick(&open, Some(&[0b0110_0000, 0]), 1, rarity), Some(1));
        assert_eq!(pick(&open, Some(&[0b1000_0000, 0]), 0, rarity), None);
        assert_eq!(pick(&[], None, 7, rarity), None);
        // From front to back everything is of one rarity.
        assert_eq!(pick(&open, None, 0, |_| 0), Some(1));
    }
}
