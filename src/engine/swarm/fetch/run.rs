//! What a web seed is asked for: pieces in a row, as much as is worth a request.
//!
//! A web seed (BEP 19) is a link like that of a peer, in one of the places behind those of
//! connections. It has everything and lets us ask, but it is asked for one long run of bytes and
//! not for blocks: the run's blocks count as asked for, so that no peer is asked for them too, and
//! what comes goes the way of all payload. A piece that fails is traced to a web seed as it is to a
//! peer.
//!
//! ```text
//! attach -> begin_run -> note_run, take_stores, make_work .. -> end_run -> begin_run .. -> leave
//!                         |  piece 7  |  piece 8  |  pie|
//!                         ^ at, moves on ->             ^ end: no more than was asked for
//! ```
//!
//! In this order it is given the rest of the piece it was stopped in; the piece a peer would be
//! given, from where the last run ended, with those behind it; blocks that peers have left undone;
//! and when nothing is left to begin, the last blocks of a piece others are slow with.

use super::Fetcher;
use super::link::Ask;
use super::partial::Partial;
use super::talk::Fetching;
use crate::engine::limits::BLOCK_BYTES;
use crate::engine::metainfo::Layout;
use crate::engine::units::{Block, Instant, PeerSlot, PieceIndex, TorrentSlot};

/// Content that a web seed is to bring, front to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Of which torrent.
    pub torrent: TorrentSlot,
    /// Offset of the next byte in the content.
    pub at: u64,
    /// Offset of the byte after the last one.
    pub end: u64,
}

impl Run {
    /// Bytes that are still to come.
    pub fn left_bytes(&self) -> u64 {
        self.end - self.at
    }
}

impl Fetcher<'_> {
    /// Takes a web seed on. `false` when the torrent lacks nothing.
    pub fn attach(&mut self, slot: PeerSlot, torrent: TorrentSlot, now: Instant) -> bool {
        self.greet(slot, torrent, now);
        self.note_all(slot);
        self.note_choke(slot, false, true, now);
        let Some((link, ..)) = self.link(slot) else { return false };
        // There is nobody to be told what we have.
        link.have_after = Instant::NEVER;
        true
    }

    /// Whether what a web seed brings is wanted now: its torrent lacks something and is not paused.
    pub fn is_wanted(&mut self, slot: PeerSlot) -> bool {
        self.link(slot).is_some_and(|(_, fetch, _)| fetch.lacking_count > 0 && !fetch.paused)
    }

    /// What a web seed is to bring next, in about `bytes_max` bytes; it is noted as asked for.
    /// `near` is where its last run ended. What fits into one run begins at its front, if it can.
    ///
    /// # When full
    /// As with peers, pieces under way come first; half of the table is left to others.
    pub fn begin_run(
        &mut self,
        slot: PeerSlot,
        bytes_max: u64,
        near: Option<PieceIndex>,
    ) -> Option<Run> {
        if !self.is_wanted(slot) {
            return None;
        }
        let (_, fetch, _) = self.link(slot)?;
        // A server that gives no ranges can bring what fits into one run, from its front.
        let fits = fetch.layout.total_bytes <= bytes_max;
        let near = near.or(fits.then_some(PieceIndex(0)));
        let (at, block) = self.choose_run(slot, near)?;
        let (link, fetch, _) = self.link(slot)?;
        let (torrent, place, layout) = (link.torrent, link.fetch, fetch.layout);
        let (in_a_row, first) = (!link.on_parole, self.partials[at].as_ref()?.piece);
        let start = layout.offset(PieceIndex(first)) + u64::from(block) * u64::from(BLOCK_BYTES);
        let mut run = Run { torrent, at: start, end: start };
        let (mut at, mut piece) = (at, first);
        loop {
            let whole = self.ask_row(at, &layout, &mut run, bytes_max);
            self.links[slot.index()].as_mut()?.working_on = Some(at as u16);
            piece += 1;
            if !whole || !in_a_row || run.left_bytes() >= bytes_max {
                return Some(run);
            }
            match self.begin_next(place, piece, &layout) {
                Some(next) => at = next,
                None => return Some(run),
            }
        }
    }

    /// Where a run begins: the piece under way, and which of its blocks.
    fn choose_run(&mut self, slot: PeerSlot, near: Option<PieceIndex>) -> Option<(usize, u16)> {
        if let Some(found) = self.go_on(slot) {
            return Some(found);
        }
        let front = self.link(slot)?.1.front();
        // Who watches meanwhile waits for what is half done in front.
        let at = front.and_then(|front| self.left_in_front(slot, front));
        let at = at.or_else(|| self.begin_piece(slot, near)).or_else(|| self.help(slot));
        let Some(at) = at else { return self.begin_tail(slot) };
        let block = self.partials[at].as_ref()?.first_unasked(&self.pool)?;
        Some((at, block))
    }

    /// The first piece under way with blocks that nobody was asked for, if no open one is before it.
    fn left_in_front(&mut self, slot: PeerSlot, front: u32) -> Option<usize> {
        let at = {
            let link = self.links[slot.index()].as_ref()?;
            let fits = |partial: &Partial| {
                let is_ours = !link.on_parole || partial.alone == Some(slot);
                let is_left = partial.fetch == link.fetch && partial.unasked_count() > 0;
                is_left && is_ours && partial.is_for(slot)
            };
            let numbered = self.partials.iter().enumerate();
            let fitting = numbered.filter_map(|(at, partial)| {
                let partial = partial.as_ref().filter(|partial| fits(partial))?;
                // Those before where somebody watches come last.
                Some((partial.piece < front, partial.piece, at))
            });
            fitting.min()?
        };
        let (_, fetch, pool) = self.link(slot)?;
        let (is_behind, piece, at) = at;
        let count = if is_behind { fetch.layout.piece_count() } else { piece };
        let behind = if is_behind { 0..piece } else { 0..0 };
        let before = (front..count).chain(behind).any(|piece| pool.get(fetch.open, piece));
        (!before).then_some(at)
    }

    /// The last blocks of a piece that others were asked for and have not sent, when nothing is
    /// left to begin. They are fetched from the front, so that is where they come from next.
    fn begin_tail(&mut self, slot: PeerSlot) -> Option<(usize, u16)> {
        let (link, fetch, _) = self.link(slot)?;
        let (place, idle) = (link.fetch, !link.on_parole && fetch.open_count == 0);
        if !idle {
            return None;
        }
        let fits = |partial: &Partial| {
            partial.fetch == place && partial.is_for(slot) && !partial.is_whole()
        };
        let at = self.partials.iter().position(|partial| partial.as_ref().is_some_and(fits))?;
        let (partial, pool) = (self.partials[at].as_mut()?, &mut self.pool);
        let last = (0..partial.blocks).rev().find(|block| !partial.has_arrived(pool, *block))?;
        let first = (0..=last).rev().take(TAIL_BLOCKS);
        let first = first.take_while(|block| !partial.has_arrived(pool, *block)).last()?;
        // Asked for anew, by us: whoever else was asked is told once they are here.
        partial.shared = true;
        (first..=last).for_each(|block| partial.unask(pool, block));
        Some((at, first))
    }

    /// Notes blocks of a piece as asked for, from where the run ends until one that is, or until
    /// the run is long enough. Whether the piece's end was reached.
    fn ask_row(&mut self, at: usize, layout: &Layout, run: &mut Run, bytes_max: u64) -> bool {
        let Some(partial) = self.partials[at].as_mut() else { return false };
        let start = layout.offset(PieceIndex(partial.piece));
        let first = ((run.end - start) / u64::from(BLOCK_BYTES)) as u16;
        for block in first..partial.blocks {
            let is_long = run.left_bytes() >= bytes_max.max(1);
            if is_long || partial.is_asked(&self.pool, block) {
                return false;
            }
            partial.ask(&mut self.pool, block);
            run.end += u64::from(partial.block(block).length);
        }
        true
    }

    /// Begins the piece behind, if it is open and the table has room to spare.
    fn begin_next(&mut self, place: u16, piece: u32, layout: &Layout) -> Option<usize> {
        let Fetcher { fetches, partials, pool, .. } = self;
        if partials.iter().flatten().count() * 2 >= partials.len() {
            return None;
        }
        let free = partials.iter().position(Option::is_none)?;
        let fetch = fetches[usize::from(place)].as_mut()?;
        if !pool.get(fetch.open, piece) {
            return None;
        }
        partials[free] = Some(Partial::begin(pool, place, piece, layout, None)?);
        pool.clear(fetch.open, piece);
        fetch.open_count -= 1;
        Some(free)
    }

    /// The next `length` bytes of a run have come; they stand at `at` of what was read. Bytes
    /// beyond its end are passed over.
    pub fn note_run(
        &mut self,
        slot: PeerSlot,
        run: &mut Run,
        at: usize,
        length: usize,
        now: Instant,
    ) {
        let (mut at, mut left) = (at, run.left_bytes().min(length as u64));
        while left > 0 {
            let Some((_, fetch, _)) = self.link(slot) else {
                run.at += left;
                return;
            };
            let (block, offset) = block_at(&fetch.layout, run.at);
            if offset == 0 {
                self.begin_block(slot, ask_of(block), block, now);
            }
            let taken = left.min(u64::from(block.length - offset));
            self.receive_payload(slot, offset, at, taken as usize);
            (at, left, run.at) = (at + taken as usize, left - taken, run.at + taken);
        }
    }

    /// A run is over: what of it has not come is anybody's again.
    ///
    /// # Work
    /// One look at the table for each block.
    pub fn end_run(&mut self, slot: PeerSlot, run: Run) {
        self.stop_receiving(slot);
        let Some((link, fetch, _)) = self.link(slot) else { return };
        let (place, layout, mut at) = (link.fetch, fetch.layout, run.at);
        while at < run.end {
            let (block, offset) = block_at(&layout, at);
            at += u64::from(block.length - offset);
            let ask = ask_of(block);
            let Some(found) = self.find(place, ask.piece) else { continue };
            let Some(partial) = &self.partials[found] else { continue };
            if !partial.has_arrived(&self.pool, ask.block) {
                self.interrupt(slot, ask);
            }
            if self.partials[found].as_ref().is_some_and(Partial::is_untouched) {
                self.reopen(found);
            }
        }
    }
}

/// The block that holds byte `at` of the content, and where in it that is.
fn block_at(layout: &Layout, at: u64) -> (Block, u32) {
    let piece = PieceIndex((at / u64::from(layout.piece_bytes)) as u32);
    let within = (at - layout.offset(piece)) as u32;
    let begin = within / BLOCK_BYTES * BLOCK_BYTES;
    let length = BLOCK_BYTES.min(layout.piece_len(piece) - begin);
    (Block { piece, begin, length }, within - begin)
}

fn ask_of(block: Block) -> Ask {
    let (piece, block) = (block.piece.0, (block.begin / BLOCK_BYTES) as u16);
    Ask { piece, block, ..Ask::default() }
}

/// Blocks that are fetched although others were asked for them, at a time.
const TAIL_BLOCKS: usize = 16;

#[cfg(test)]
mod tests;
