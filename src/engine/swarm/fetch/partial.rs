//! A piece under way: which of its blocks were asked for and which have come.
//!
//! ```text
//! open --begin--> [ asked | asked+arrived | ... ] --all arrived, nobody writing--> hashed
//!                                                      matches: verified, the entry is free
//!                                                      does not: open again, and who sent it?
//! ```
//!
//! *Arrived* means that all bytes of a block have been handed to a lane, not that they are on the
//! disk; `writing` counts the lanes that still hold some. A piece is judged when all has arrived
//! and nobody writes any more, so no late write can change what was judged.
//!
//! Hashing goes along with writing while it can: the hasher travels with the one job that writes
//! the next bytes. As soon as two write at once it stays behind, and what it has not seen is read
//! back once all is there.

use crate::engine::digest::PieceHasher;
use crate::engine::limits::BLOCK_BYTES;
use crate::engine::metainfo::Layout;
use crate::engine::swarm::pool::{Pool, Span};
use crate::engine::units::{Block, PeerSlot, PieceIndex};

/// A piece under way.
pub struct Partial {
    /// The torrent's place among those being fetched.
    pub fetch: u16,
    /// Which piece.
    pub piece: u32,
    /// How many blocks it has.
    pub blocks: u16,
    /// Its length in bytes.
    pub bytes: u32,
    /// Blocks that need not be asked for.
    asked: Span,
    asked_count: u16,
    /// Blocks of which all bytes have been handed to a lane.
    arrived: Span,
    arrived_count: u16,
    /// Jobs that hold bytes of it.
    pub writing: u16,
    /// Bytes from its front that the hasher has seen, or will have when its job is done.
    pub hashed_bytes: u32,
    /// Here, or with a job.
    pub hasher: Option<PieceHasher>,
    /// It is being judged.
    pub judged: bool,
    /// Some of its bytes could not be written: it starts afresh once nobody writes.
    pub spoilt: bool,
    /// Only this peer may send it.
    pub alone: Option<PeerSlot>,
    /// Some block was asked of more than one peer.
    pub shared: bool,
    /// Who sent of it and is still here; those beyond the first few cannot be held to account.
    senders: heapless::Vec<PeerSlot, SENDERS_MAX>,
    /// Others have sent of it, too.
    other_senders: bool,
}

impl Partial {
    /// A piece of which nothing has come; `None` when the pool has no room for its bitmaps.
    pub fn begin(
        pool: &mut Pool<'_>,
        fetch: u16,
        piece: u32,
        layout: &Layout,
        alone: Option<PeerSlot>,
    ) -> Option<Partial> {
        let bytes = layout.piece_len(PieceIndex(piece));
        let blocks = bytes.div_ceil(BLOCK_BYTES) as u16;
        let asked = pool.take(blocks.into())?;
        let Some(arrived) = pool.take(blocks.into()) else {
            pool.give_back(asked);
            return None;
        };
        Some(Partial {
            fetch,
            piece,
            blocks,
            bytes,
            asked,
            asked_count: 0,
            arrived,
            arrived_count: 0,
            writing: 0,
            hashed_bytes: 0,
            hasher: Some(PieceHasher::default()),
            judged: false,
            spoilt: false,
            alone,
            shared: false,
            senders: heapless::Vec::new(),
            other_senders: false,
        })
    }

    /// Ends it.
    pub fn end(self, pool: &mut Pool<'_>) {
        pool.give_back(self.asked);
        pool.give_back(self.arrived);
    }

    /// All of `block`, as it stands on the wire.
    pub fn block(&self, block: u16) -> Block {
        let begin = u32::from(block) * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.bytes - begin);
        Block { piece: PieceIndex(self.piece), begin, length }
    }

    /// Whether `slot` may send of it.
    pub fn is_for(&self, slot: PeerSlot) -> bool {
        self.alone.is_none_or(|alone| alone == slot) && !self.judged && !self.spoilt
    }

    /// The first block nobody has been asked for.
    pub fn first_unasked(&self, pool: &Pool<'_>) -> Option<u16> {
        if self.asked_count == self.blocks {
            return None;
        }
        pool.first_clear(self.asked, 0, self.blocks.into()).map(|block| block as u16)
    }

    /// The first block from `from` on that has not arrived.
    pub fn first_missing(&self, pool: &Pool<'_>, from: u16) -> Option<u16> {
        pool.first_clear(self.arrived, from.into(), self.blocks.into()).map(|block| block as u16)
    }

    /// Whether a block need not be asked for.
    pub fn is_asked(&self, pool: &Pool<'_>, block: u16) -> bool {
        pool.get(self.asked, block.into())
    }

    /// Somebody is asked for a block.
    pub fn ask(&mut self, pool: &mut Pool<'_>, block: u16) {
        self.asked_count += u16::from(pool.set(self.asked, block.into()));
    }

    /// Nobody is asked for a block any more.
    pub fn unask(&mut self, pool: &mut Pool<'_>, block: u16) {
        if !self.has_arrived(pool, block) && pool.clear(self.asked, block.into()) {
            self.asked_count -= 1;
        }
    }

    /// All bytes of a block have been handed to a lane.
    pub fn arrive(&mut self, pool: &mut Pool<'_>, block: u16) {
        self.arrived_count += u16::from(pool.set(self.arrived, block.into()));
        self.ask(pool, block);
    }

    /// Whether all bytes of a block have been handed to a lane.
    pub fn has_arrived(&self, pool: &Pool<'_>, block: u16) -> bool {
        pool.get(self.arrived, block.into())
    }

    /// Every block has arrived.
    pub fn is_whole(&self) -> bool {
        self.arrived_count == self.blocks
    }

    /// Bytes from the front that have arrived without a gap.
    pub fn front_bytes(&self, pool: &Pool<'_>) -> u32 {
        let from = (self.hashed_bytes / BLOCK_BYTES) as u16;
        self.first_missing(pool, from).map_or(self.bytes, |block| u32::from(block) * BLOCK_BYTES)
    }

    /// Nothing of it has come or is to come.
    pub fn is_untouched(&self) -> bool {
        self.asked_count == 0 && self.writing == 0 && !self.judged && !self.spoilt
    }

    /// Blocks that nobody has been asked for.
    pub fn unasked_count(&self) -> u16 {
        self.blocks - self.asked_count
    }

    /// Nobody is asked for any of it, nobody writes, and it is not whole: how much has come.
    pub fn idle_count(&self) -> Option<u16> {
        let idle = self.asked_count == self.arrived_count && self.writing == 0 && !self.judged;
        (idle && !self.is_whole()).then_some(self.arrived_count)
    }

    /// A peer has sent of it.
    pub fn note_sender(&mut self, slot: PeerSlot) {
        if !self.senders.contains(&slot) && self.senders.push(slot).is_err() {
            self.other_senders = true;
        }
    }

    /// A peer that may have sent of it is gone, and another may soon be in its slot.
    pub fn forget_sender(&mut self, slot: PeerSlot) {
        let before = self.senders.len();
        self.senders.retain(|sender| *sender != slot);
        self.other_senders |= self.senders.len() < before;
    }

    /// Who sent of it, of those who are still here; and whether it was they alone.
    pub fn senders(&self) -> (&[PeerSlot], bool) {
        (&self.senders, !self.other_senders)
    }

    /// What was hashed of it no longer counts.
    pub fn forget_hash(&mut self) {
        self.hashed_bytes = 0;
        if let Some(hasher) = &mut self.hasher {
            *hasher = PieceHasher::default();
        }
    }
}

/// Peers that are held to account for a piece.
pub const SENDERS_MAX: usize = 8;
