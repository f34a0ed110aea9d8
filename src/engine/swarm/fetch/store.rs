//! Payload on its way to a lane, and what comes back: verified, failed, or to be read again.
//!
//! A connection has one job with a lane at a time, and meanwhile gathers the next buffer.
//! [`Fetcher::take_stores`] says what of the last read belongs where; [`Fetcher::make_work`] makes a
//! job of what has been gathered, and says which of it can be hashed along;
//! [`Fetcher::handle_done`] takes the answer. A piece that could not be hashed along is handed out by [`Fetcher::take_verify`] once
//! all of it is written.
//!
//! A piece that does not match is traced to its senders. One alone is guilty: it is let go and its
//! crowd is not let in again. Of several none is, but from then on each works alone, on pieces of
//! its own: the innocent prove it with the next piece, the guilty are then alone.

use super::link::Ask;
use super::partial::{Partial, SENDERS_MAX};
use super::{Fetch, Fetcher, OVER};
use crate::engine::digest::PieceHasher;
use crate::engine::limits::{BLOCK_BYTES, VERIFIED_TOLD_MAX};
use crate::engine::units::{Block, Instant, PeerSlot, PieceIndex, TorrentSlot};

/// A run of payload and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which piece.
    pub piece: PieceIndex,
    /// Where in the piece.
    pub begin: u32,
    /// How many bytes.
    pub length: u32,
    /// Where in the buffer.
    pub at: u32,
    /// The last of its block.
    pub last: bool,
}

impl Store {
    /// The request it answers.
    fn ask(&self) -> Ask {
        let (piece, block) = (self.piece.0, (self.begin / BLOCK_BYTES) as u16);
        Ask { piece, block, ..Ask::default() }
    }

    /// Whether `next` goes on where this ends: in its block, and in the buffer.
    fn is_followed_by(&self, next: &Store) -> bool {
        self.piece == next.piece
            && !self.last
            && self.begin + self.length == next.begin
            && self.at + self.length == next.at
    }
}

/// All runs of one buffer.
pub type Stores = heapless::Vec<Store, STORES_MAX>;

/// Bytes of a piece that are to be hashed.
#[derive(Clone)]
pub struct Hashing {
    /// Which piece.
    pub piece: PieceIndex,
    /// Has seen all bytes before `from`.
    pub hasher: PieceHasher,
    /// The first byte to be hashed.
    pub from: u32,
    /// The byte after the last one.
    pub upto: u32,
    /// These are the last of the piece: it is then held against its hash.
    pub whole: bool,
}

/// What a lane is to do with a buffer.
pub struct Work {
    /// Whose content it is.
    pub torrent: TorrentSlot,
    /// It is metadata, sent by that peer; its pieces are those of BEP 9.
    pub metadata: Option<PeerSlot>,
    /// What is written.
    pub stores: Stores,
    /// What is hashed after that; what is not in the buffer is read back.
    pub hashings: heapless::Vec<Hashing, HASHINGS_MAX>,
}

/// What has become of it.
pub struct Done {
    /// As it was handed out; hashers have seen what they were to see.
    pub work: Work,
    /// For each of its hashings of a whole piece: whether it matched.
    pub matched: heapless::Vec<Option<bool>, HASHINGS_MAX>,
    /// All has been written.
    pub written: bool,
}

/// What follows for the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The piece is there.
    Verified(PieceIndex),
    /// It did not match; the one peer that sent it, if it was one.
    Failed(PieceIndex, Option<PeerSlot>),
}

impl Fetcher<'_> {
    /// A block begins to come. `false` when it was not asked for.
    pub(super) fn receive_block(&mut self, slot: PeerSlot, block: Block, now: Instant) -> bool {
        // What it was asked for once, and somebody else since, is welcome all the same.
        let ask = match self.take_ask(slot, block) {
            Some(ask) => ask,
            None if self.forgive(slot) => match self.would_be(slot, block) {
                Some(ask) => ask,
                None => return true,
            },
            None => return false,
        };
        self.begin_block(slot, ask, block, now);
        true
    }

    /// A block that was asked for begins to come.
    pub(super) fn begin_block(&mut self, slot: PeerSlot, ask: Ask, block: Block, now: Instant) {
        let most = self.asks_each as u16;
        let Some(link) = self.links[slot.index()].as_mut() else { return };
        link.count_block(now, most);
        link.receiving = Some(ask);
        let place = link.fetch;
        let wanted = self.wants(slot, place, ask);
        if wanted && let Some(at) = self.find(place, ask.piece) {
            let Fetcher { partials, pool, .. } = self;
            partials[at].iter_mut().for_each(|partial| partial.ask(pool, ask.block));
        }
        if let Some(fetch) = self.fetches.get_mut(usize::from(place)).and_then(Option::as_mut) {
            fetch.received_bytes += u64::from(block.length);
            fetch.wasted_bytes += if wanted { 0 } else { u64::from(block.length) };
        }
        if let Some(link) = &mut self.links[slot.index()] {
            link.receiving_wanted = wanted;
        }
    }

    /// Whether a peer may send a block, and it is lacking.
    pub(super) fn wants(&self, slot: PeerSlot, place: u16, ask: Ask) -> bool {
        let partial = self.find(place, ask.piece).and_then(|at| self.partials[at].as_ref());
        partial.is_some_and(|partial| {
            partial.is_for(slot) && !partial.has_arrived(&self.pool, ask.block)
        })
    }

    /// The request that a block would answer, were it still asked for.
    fn would_be(&mut self, slot: PeerSlot, block: Block) -> Option<Ask> {
        let ask = Ask {
            piece: block.piece.0,
            block: u16::try_from(block.begin / BLOCK_BYTES).ok()?,
            ..Ask::default()
        };
        // Else it was not read for payload, and no lane will have it.
        let awaited = self.links[slot.index()].as_ref()?.asks_count() > 0;
        let exists = awaited
            && block.begin.is_multiple_of(BLOCK_BYTES)
            && self.block_of(slot, ask) == Some(block)
            && block.length > 0;
        exists.then_some(ask)
    }

    /// So many bytes of the block under way have come.
    pub(super) fn receive_payload(
        &mut self,
        slot: PeerSlot,
        offset: u32,
        at: usize,
        length: usize,
    ) {
        let Some(link) = self.links.get_mut(slot.index()).and_then(Option::as_mut) else { return };
        let Some(ask) = link.receiving else { return };
        link.received[0] = offset + length as u32;
        let (place, wanted) = (link.fetch, link.receiving_wanted);
        let Some(found) = self.find(place, ask.piece) else { return self.stop_receiving(slot) };
        let Some(partial) = &self.partials[found] else { return };
        let block = partial.block(ask.block);
        let last = offset + length as u32 >= block.length;
        // Another may have sent it meanwhile.
        let wanted = wanted && self.wants(slot, place, ask);
        if wanted && length > 0 {
            let (piece, begin) = (block.piece, block.begin + offset);
            let store = Store { piece, begin, length: length as u32, at: at as u32, last };
            if self.stores.push(store).is_err() {
                // A read holds no more blocks of the length we ask for than there is room for.
                self.interrupt(slot, ask);
            }
        }
        if last || !wanted {
            self.stop_receiving(slot);
        }
    }

    pub(super) fn stop_receiving(&mut self, slot: PeerSlot) {
        if let Some(link) = &mut self.links[slot.index()] {
            link.receiving = None;
        }
    }

    /// The connection ends in the middle of a block.
    pub(super) fn interrupt(&mut self, slot: PeerSlot, ask: Ask) {
        let place = self.links[slot.index()].as_ref().map_or(OVER, |link| link.fetch);
        let Some(at) = self.find(place, ask.piece) else { return };
        let Fetcher { partials, pool, .. } = self;
        let Some(partial) = &mut partials[at] else { return };
        partial.unask(pool, ask.block);
        // Another will write over what has been hashed of it.
        if partial.hashed_bytes > u32::from(ask.block) * BLOCK_BYTES {
            partial.forget_hash();
        }
        self.wake(place);
    }

    /// What of the last read belongs where, behind what has been gathered in the same buffer; the
    /// read began at `base` of it.
    ///
    /// # When full
    /// The block is asked for again. A buffer of [`RECEIVE_BYTES_MAX`] does not hold so many.
    pub fn take_stores(&mut self, slot: PeerSlot, base: usize, gathered: &mut Stores) {
        for store in core::mem::take(&mut self.stores) {
            let store = Store { at: store.at + base as u32, ..store };
            let before = gathered.last_mut().filter(|before| before.is_followed_by(&store));
            if let Some(before) = before {
                (before.length, before.last) = (before.length + store.length, store.last);
            } else if gathered.push(store).is_err() {
                self.interrupt(slot, store.ask());
            }
        }
    }

    /// What has been gathered goes nowhere: the connection ends.
    pub fn drop_stores(&mut self, slot: PeerSlot, gathered: Stores) {
        for store in core::mem::take(&mut self.stores).into_iter().chain(gathered) {
            self.interrupt(slot, store.ask());
        }
    }

    /// Makes a job of what a connection has gathered; nothing when none of it is wanted any more.
    pub fn make_work(&mut self, slot: PeerSlot, mut stores: Stores) -> Option<Work> {
        let metadata = self.sends_metadata(slot).then_some(slot);
        let link = self.links[slot.index()].as_ref()?;
        let (torrent, place) = (link.torrent, link.fetch);
        // Another may have sent it meanwhile.
        stores.retain(|store| metadata.is_some() || self.wants(slot, place, store.ask()));
        if stores.is_empty() {
            return None;
        }
        let mut work = Work { torrent, metadata, stores, hashings: heapless::Vec::new() };
        if metadata.is_some() {
            return Some(work);
        }
        let Fetcher { partials, pool, .. } = self;
        for run in work.stores.chunk_by(|a, b| a.piece == b.piece) {
            let piece = run[0].piece;
            let of = |partial: &&mut Partial| partial.fetch == place && partial.piece == piece.0;
            let Some(partial) = partials.iter_mut().flatten().find(of) else { continue };
            // What another sent of a block and was hashed is written over.
            if run.iter().any(|store| store.begin < partial.hashed_bytes) {
                partial.forget_hash();
                partial.shared = true;
            }
            for store in run.iter().filter(|store| store.last) {
                partial.arrive(pool, (store.begin / BLOCK_BYTES) as u16);
            }
            partial.note_sender(slot);
            partial.writing += 1;
            if !work.hashings.is_full()
                && partial.writing == 1
                && let Some(hashing) = hash_along(partial, pool, run)
            {
                let _ = work.hashings.push(hashing);
            }
        }
        for store in work.stores.iter().filter(|store| store.last) {
            self.call_off(slot, place, store.ask());
        }
        Some(work)
    }

    /// Others who were asked for a block that has come are told to stop.
    fn call_off(&mut self, slot: PeerSlot, place: u16, ask: Ask) {
        let partial = self.find(place, ask.piece).and_then(|at| self.partials[at].as_ref());
        if !partial.is_some_and(|partial| partial.shared) {
            return;
        }
        for index in (0..self.links.len()).filter(|index| *index != slot.index()) {
            let same = self.links[index].as_ref().is_some_and(|link| link.fetch == place);
            let asks = self.asks(PeerSlot(index as u16)).filter(|_| same);
            if asks.is_some_and(|mut asks| asks.call_off(ask.piece, ask.block)) {
                self.nudge(index);
            }
        }
    }

    /// A connection has something to look at.
    pub(super) fn nudge(&mut self, index: usize) {
        if let Some(link) = &mut self.links[index] {
            (link.nudge, self.nudged) = (true, true);
        }
    }

    /// A piece that is all there and is to be read back and hashed.
    pub fn take_verify(&mut self) -> Option<Work> {
        let due = |partial: &&mut Partial| {
            partial.is_whole() && partial.writing == 0 && !partial.judged && !partial.spoilt
        };
        let partial = self.partials.iter_mut().flatten().find(due)?;
        let torrent = self.fetches.get(usize::from(partial.fetch))?.as_ref()?.torrent;
        partial.judged = true;
        partial.writing = 1;
        let from = core::mem::replace(&mut partial.hashed_bytes, partial.bytes);
        let hasher = partial.hasher.take().unwrap_or_default();
        let piece = PieceIndex(partial.piece);
        let hashing = Hashing { piece, hasher, from, upto: partial.bytes, whole: true };
        let hashings = heapless::Vec::from_iter([hashing]);
        Some(Work { torrent, metadata: None, stores: Stores::new(), hashings })
    }

    /// Takes what a lane has done, and says what follows.
    pub fn handle_done(&mut self, done: Done) -> heapless::Vec<Verdict, HASHINGS_MAX> {
        let mut verdicts = heapless::Vec::new();
        let Done { work, matched, written } = done;
        if let Some(slot) = work.metadata {
            self.metadata_done(slot, &work.stores, written);
            return verdicts;
        }
        let of_torrent = |fetch: &Option<Fetch>| {
            fetch.as_ref().is_some_and(|fetch| fetch.torrent == work.torrent)
        };
        let Some(place) = self.fetches.iter().position(of_torrent) else { return verdicts };
        let place = place as u16;
        let verified_alone = work.stores.is_empty();
        for run in work.stores.chunk_by(|a, b| a.piece == b.piece) {
            self.end_writing(place, run[0].piece.0, written);
        }
        for (at, hashing) in work.hashings.into_iter().enumerate() {
            let matched = matched.get(at).copied().flatten();
            let piece = hashing.piece.0;
            if verified_alone {
                self.end_writing(place, piece, written);
            }
            let Some(at) = self.find(place, piece) else { continue };
            let Some(partial) = &mut self.partials[at] else { continue };
            // It may have been told to begin again meanwhile.
            let same = partial.hashed_bytes == hashing.upto;
            partial.hasher = Some(if same { hashing.hasher } else { PieceHasher::default() });
            if !same {
                partial.hashed_bytes = 0;
            }
            match matched.filter(|_| !partial.spoilt && partial.judged) {
                Some(true) => {
                    self.verify(at);
                    let _ = verdicts.push(Verdict::Verified(hashing.piece));
                }
                Some(false) => {
                    let culprit = self.fail(at);
                    let _ = verdicts.push(Verdict::Failed(hashing.piece, culprit));
                }
                // It was to be judged and could not be read.
                None => partial.spoilt |= hashing.whole,
            }
        }
        self.reopen_spoilt(place);
        verdicts
    }

    /// A job that held bytes of a piece is over.
    fn end_writing(&mut self, place: u16, piece: u32, written: bool) {
        let Some(at) = self.find(place, piece) else { return };
        let Some(partial) = &mut self.partials[at] else { return };
        partial.writing = partial.writing.saturating_sub(1);
        partial.spoilt |= !written;
    }

    /// Pieces that a peer was to send alone are anybody's again.
    pub(super) fn free_lone_pieces(&mut self, slot: PeerSlot) {
        let mut place = OVER;
        for partial in self.partials.iter_mut().flatten() {
            if partial.alone == Some(slot) && !partial.judged {
                (partial.spoilt, place) = (true, partial.fetch);
            }
        }
        self.reopen_spoilt(place);
    }

    /// Opens spoilt pieces again once nobody writes to them.
    fn reopen_spoilt(&mut self, place: u16) {
        for at in 0..self.partials.len() {
            let spoilt = |partial: &Partial| partial.spoilt && partial.writing == 0;
            if self.partials[at].as_ref().is_some_and(|p| p.fetch == place && spoilt(p)) {
                self.reopen(at);
            }
        }
    }

    /// A piece matches its hash.
    fn verify(&mut self, at: usize) {
        let Some(partial) = self.partials[at].take() else { return };
        let (place, piece) = (partial.fetch, partial.piece);
        let alone = partial.alone;
        partial.end(&mut self.pool);
        self.wake_the_others(place);
        let Fetcher { fetches, links, pool, .. } = self;
        let Some(fetch) = &mut fetches[usize::from(place)] else { return };
        if pool.clear(fetch.lacking, piece) {
            fetch.lacking_count -= 1;
        }
        fetch.verified[fetch.verified_count as usize % VERIFIED_TOLD_MAX] = piece;
        fetch.verified_count += 1;
        for (index, link) in links.iter_mut().enumerate() {
            let Some(link) = link.as_mut().filter(|link| link.fetch == place) else { continue };
            link.on_parole &= alone != Some(PeerSlot(index as u16));
            if link.has.contains(pool, piece) {
                link.useful = link.useful.saturating_sub(1);
            }
            // There is the first news for it, or much of it, or it has nothing more to wait for.
            let untold = fetch.verified_count - link.told_verified;
            link.nudge |= [1, VERIFIED_TOLD_MAX as u32 / 2].contains(&untold) || link.useful == 0;
        }
        self.nudged = true;
        if fetch.lacking_count == 0 {
            self.finish(place);
        }
    }

    /// A piece does not match its hash. The one who sent it, if it was one.
    fn fail(&mut self, at: usize) -> Option<PeerSlot> {
        let partial = self.partials[at].as_ref()?;
        let (place, bytes) = (partial.fetch, u64::from(partial.bytes));
        let (senders, alone) = partial.senders();
        let senders: heapless::Vec<PeerSlot, SENDERS_MAX> = senders.iter().copied().collect();
        if let Some(fetch) = &mut self.fetches[usize::from(place)] {
            fetch.failed_count += 1;
            fetch.wasted_bytes += bytes;
        }
        self.reopen(at);
        if let [only] = senders[..]
            && alone
        {
            return Some(only);
        }
        for sender in senders {
            if let Some(link) = &mut self.links[sender.index()] {
                (link.on_parole, link.working_on) = (true, None);
            }
        }
        None
    }

    /// A piece under way is open again, and nothing of it counts.
    pub(super) fn reopen(&mut self, at: usize) {
        let Some(partial) = self.partials[at].take() else { return };
        let (place, piece) = (partial.fetch, partial.piece);
        partial.end(&mut self.pool);
        self.wake_the_others(place);
        let Fetcher { fetches, links, pool, .. } = self;
        if let Some(fetch) = &mut fetches[usize::from(place)]
            && pool.set(fetch.open, piece)
        {
            fetch.open_count += 1;
        }
        for link in links.iter_mut().flatten().filter(|link| link.fetch == place) {
            link.dry = false;
        }
        // Its blocks may soon be asked for anew, of anybody.
        for index in 0..self.links.len() {
            let same = self.links[index].as_ref().is_some_and(|link| link.fetch == place);
            let asks = self.asks(PeerSlot(index as u16)).filter(|_| same);
            if asks.is_some_and(|mut asks| asks.call_off_piece(piece)) {
                self.nudge(index);
            }
        }
        self.wake(place);
    }

    /// The request that a block answers; it is taken off.
    pub(super) fn take_ask(&mut self, slot: PeerSlot, block: Block) -> Option<Ask> {
        if !block.begin.is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let layout = self.link(slot)?.1.layout;
        let number = u16::try_from(block.begin / BLOCK_BYTES).ok()?;
        let mut asks = self.asks(slot)?;
        let at = asks.find(block.piece.0, number)?;
        let length = BLOCK_BYTES.min(layout.piece_len(block.piece) - block.begin);
        (block.length == length).then(|| asks.remove(at))
    }

    /// Whether a peer may send what we no longer ask for: it cannot have known.
    pub(super) fn forgive(&mut self, slot: PeerSlot) -> bool {
        let Some(link) = self.links.get_mut(slot.index()).and_then(Option::as_mut) else {
            return false;
        };
        link.receiving = None;
        let forgiven = link.forgiven > 0;
        link.forgiven = link.forgiven.saturating_sub(1);
        forgiven
    }

    /// What stands on the wire for a request.
    pub(super) fn block_of(&self, slot: PeerSlot, ask: Ask) -> Option<Block> {
        let link = self.links[slot.index()].as_ref()?;
        let layout = self.fetches.get(usize::from(link.fetch))?.as_ref()?.layout;
        let (piece, begin) = (PieceIndex(ask.piece), u32::from(ask.block) * BLOCK_BYTES);
        let length = BLOCK_BYTES.min(layout.piece_len(piece).saturating_sub(begin));
        Some(Block { piece, begin, length })
    }

    /// Lets peers of a fetch look again for something to ask for.
    pub(super) fn wake(&mut self, place: u16) {
        self.nudged = true;
        for link in self.links.iter_mut().flatten() {
            link.nudge |= link.fetch == place && link.unchoked && link.asks_count() == 0;
        }
    }

    /// There is a place for another piece: where every other was taken, peers of other fetches
    /// look again.
    fn wake_the_others(&mut self, place: u16) {
        if self.partials.iter().filter(|partial| partial.is_none()).count() == 1 {
            for other in (0..self.fetches.len() as u16).filter(|other| *other != place) {
                self.wake(other);
            }
        }
    }

    /// Where a piece is among those under way.
    pub(super) fn find(&self, place: u16, piece: u32) -> Option<usize> {
        let of = |partial: &Partial| partial.fetch == place && partial.piece == piece;
        self.partials.iter().position(|partial| partial.as_ref().is_some_and(of))
    }
}

/// What the hasher of a piece can be given with this job, if it is here: all that has arrived
/// without a gap, and the front of the block that is still coming.
fn hash_along(
    partial: &mut Partial,
    pool: &crate::engine::swarm::pool::Pool<'_>,
    run: &[Store],
) -> Option<Hashing> {
    let mut upto = partial.front_bytes(pool);
    let coming =
        run.last().filter(|store| !store.last && store.begin / BLOCK_BYTES == upto / BLOCK_BYTES);
    // Of a block that two may send the front is not the front of one.
    let coming = coming.filter(|_| !partial.shared);
    if let Some(store) = coming {
        upto = store.begin + store.length;
    }
    if upto <= partial.hashed_bytes {
        return None;
    }
    let hasher = partial.hasher.take()?;
    let from = core::mem::replace(&mut partial.hashed_bytes, upto);
    let whole = partial.is_whole() && upto == partial.bytes;
    partial.judged = whole;
    Some(Hashing { piece: PieceIndex(partial.piece), hasher, from, upto, whole })
}

/// Runs of payload in one buffer: it holds so many blocks, with the tail of one before them, the
/// front of one behind them and the short last block of the torrent.
pub const STORES_MAX: usize = 28;

/// Pieces one job hashes along; others are read back.
pub const HASHINGS_MAX: usize = 4;

/// The longest buffer whose payload [`STORES_MAX`] runs describe.
pub const RECEIVE_BYTES_MAX: usize = (STORES_MAX - 3) * BLOCK_BYTES as usize;
