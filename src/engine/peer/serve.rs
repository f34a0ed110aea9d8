//! A peer's request queue, and the view of its head that is read and sent next.
//!
//! The queue is the only place a request stands in. [`Queue::view`] shows up to 24 blocks from
//! its head, and how much of the first has gone; the service reads and sends them, and
//! [`Queue::advance`] takes off what went. Nothing is copied out and nothing is in flight, so a
//! short send costs a second read and no buffer, and whatever reaches the queue meanwhile
//! (cancel, choke, a file that changed) reaches every block but the one already begun.
//!
//! ```text
//!  head                                   tail
//! | block | block | block | ... | block |        requests: a ring in what was lent
//!  ^^ sent  <---- view, `burst` ---->
//! ```
//!
//! `burst` is how much the socket took of late: doubled when it took all it was offered, cut to
//! what it took when it did not, so that few bytes are read twice.

use super::request::{Asked, Request};
use crate::engine::limits::{
    METADATA_HEADER_BYTES_MAX, METADATA_PIECE_BYTES, METADATA_REQUESTS_MAX, PIECE_HEADER_BYTES,
    SERVE_BLOCKS_MAX, SERVE_BYTES_MAX,
};
use crate::engine::metainfo::Layout;
use crate::engine::units::{Block, Span, TorrentSlot};
use crate::engine::wire::{extended, message};

/// What is to be read and sent next: one send's worth from the head of a queue.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Whose content it is.
    pub torrent: TorrentSlot,
    /// Headers and what stands behind them, in order; at least one.
    pub items: heapless::Vec<Item, SERVE_BLOCKS_MAX>,
    /// Bytes of the first item, header included, that have gone already.
    pub skip: usize,
    /// Changes whenever the head of the queue does: what a lane read for another one is void.
    pub revision: u32,
}

impl Serving {
    /// Writes headers and payload into `into`, as much as fits, from where the first item was broken
    /// off; `read` reads payload. How much that is: less when a read fails, an error when the first
    /// one does.
    pub fn fill<E>(
        &self,
        into: &mut [u8],
        mut read: impl FnMut(Source, Span, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut at, mut skip) = (0, self.skip);
        for item in &self.items {
            let begun = at;
            let mut header = [0; METADATA_HEADER_BYTES_MAX];
            let header_bytes = item.write_header(&mut header);
            let header = &header[skip.min(header_bytes)..header_bytes];
            let fitting = header.len().min(into.len() - at);
            into[at..at + fitting].copy_from_slice(&header[..fitting]);
            at += fitting;
            let gone = skip.saturating_sub(header_bytes) as u64;
            let length = (item.span.length - gone).min((into.len() - at) as u64);
            if length > 0 {
                let span = Span { at: item.span.at + gone, length };
                match read(item.source, span, &mut into[at..at + length as usize]) {
                    Ok(()) => at += length as usize,
                    Err(_) if begun > 0 => return Ok(begun),
                    Err(error) => return Err(error),
                }
            }
            if at == into.len() {
                break;
            }
            skip = 0;
        }
        Ok(at)
    }
}

/// One message with payload: its header is written, its payload read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where the payload comes from.
    pub source: Source,
    /// Which bytes of it.
    pub span: Span,
}

/// Where an item's payload comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The torrent's content; the span counts from its front.
    Content(Block),
    /// The torrent's `info` dictionary (BEP 9); the span counts from its front.
    Metadata {
        /// Number the peer gave to metadata messages.
        peer_metadata_id: u8,
        /// Which piece of the dictionary.
        piece: u32,
        /// Length of the dictionary.
        total_bytes: u32,
    },
}

impl Item {
    /// Writes the header at the front of `into`; its length.
    ///
    /// # Panics
    /// When `into` is shorter than [`METADATA_HEADER_BYTES_MAX`].
    pub fn write_header(&self, into: &mut [u8]) -> usize {
        match self.source {
            Source::Content(block) => {
                into[..PIECE_HEADER_BYTES].copy_from_slice(&message::piece_header(block));
                PIECE_HEADER_BYTES
            }
            Source::Metadata { peer_metadata_id, piece, total_bytes } => {
                let bytes = self.span.length as u32;
                let header = extended::metadata_header(peer_metadata_id, piece, bytes, total_bytes);
                into[..header.len()].copy_from_slice(&header);
                header.len()
            }
        }
    }

    /// Header and payload together.
    pub fn wire_bytes(&self) -> usize {
        let header = match self.source {
            Source::Content(_) => PIECE_HEADER_BYTES,
            Source::Metadata { .. } => self.write_header(&mut [0; METADATA_HEADER_BYTES_MAX]),
        };
        header + self.span.length as usize
    }
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// A peer's requests in order. See the module.
pub struct Queue<'m> {
    ring: &'m mut [Request],
    first: usize,
    count: usize,
    /// How many of them are to be rejected.
    rejected: usize,
    metadata: heapless::Deque<u32, METADATA_REQUESTS_MAX>,
    /// The metadata piece at the head, once it has been shown; else the head is a block.
    metadata_head: Option<Item>,
    /// Bytes of the head that have gone, header included; 0 when it has not been begun.
    head_sent: usize,
    /// What `view` showed last, in bytes.
    shown_bytes: usize,
    burst: Burst,
    revision: u32,
}

impl<'m> Queue<'m> {
    /// Gives back what was lent.
    pub fn into_ring(self) -> &'m mut [Request] {
        self.ring
    }

    /// An empty queue in what was lent.
    pub fn new(ring: &'m mut [Request]) -> Queue<'m> {
        Queue {
            ring,
            first: 0,
            count: 0,
            rejected: 0,
            metadata: heapless::Deque::new(),
            metadata_head: None,
            head_sent: 0,
            shown_bytes: 0,
            burst: Burst::default(),
            revision: 0,
        }
    }

    /// How many requests still fit.
    pub fn free(&self) -> usize {
        self.ring.len() - self.count
    }

    /// Nothing waits to be answered.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.metadata.is_empty()
    }

    /// A message has been begun: only its own bytes may follow.
    pub fn head_begun(&self) -> bool {
        self.head_sent > 0
    }

    /// The piece of the block that has been begun.
    pub fn begun_piece(&self) -> Option<u32> {
        (self.fixed() > 0).then(|| self.asked(0).piece)
    }

    /// Adds a request, to be served or to be rejected.
    pub fn push(&mut self, block: Block, served: bool) -> Result<(), QueueFull> {
        if self.free() == 0 {
            return Err(QueueFull);
        }
        let at = self.place(self.count);
        let (piece, begin, length) = (block.piece.0, block.begin, block.length);
        self.ring[at] = Asked { piece, begin, length, rejected: !served }.packed();
        self.count += 1;
        self.rejected += usize::from(!served);
        Ok(())
    }

    /// Adds a request for a piece of the metadata.
    pub fn push_metadata(&mut self, piece: u32) -> Result<(), QueueFull> {
        self.metadata.push_back(piece).map_err(|_| QueueFull)?;
        // It goes before blocks: unless one has been begun, the head is another now.
        if self.head_sent == 0 {
            self.revision = self.revision.wrapping_add(1);
        }
        Ok(())
    }

    /// The peer takes a request back. BEP 6 wants it rejected then. `false` when there is none.
    pub fn cancel(&mut self, block: Block, fast: bool) -> bool {
        let at = (0..self.count).find(|at| {
            let request = self.asked(*at);
            !request.rejected && request.block() == block
        });
        match at {
            Some(at) if at >= self.fixed() => self.refuse(at, fast),
            Some(_) => {}
            None => return false,
        }
        true
    }

    /// The peer has been choked: what is not begun is not served (BEP 6: rejected).
    pub fn choke(&mut self, fast: bool) {
        self.refuse_all_but(|_| false, fast);
    }

    /// Refuses what asks for pieces that are not `offered`.
    pub fn refuse_all_but(&mut self, offered: impl Fn(u32) -> bool, fast: bool) {
        let mut at = self.fixed();
        while at < self.count {
            let request = self.asked(at);
            if request.rejected || offered(request.piece) {
                at += 1;
            } else {
                self.refuse(at, fast);
                at += usize::from(fast);
            }
        }
    }

    /// The next request to be rejected; it is taken off.
    pub fn take_rejected(&mut self) -> Option<Block> {
        if self.rejected == 0 {
            return None;
        }
        let at = (0..self.count).find(|at| self.asked(*at).rejected)?;
        let block = self.asked(at).block();
        self.remove(at);
        self.rejected -= 1;
        Some(block)
    }

    /// What is to be read and sent next, at most so many blocks; `None` when nothing is.
    pub fn view(
        &mut self,
        torrent: TorrentSlot,
        (layout, metadata_bytes): (Layout, u32),
        peer_metadata_id: u8,
        most: usize,
    ) -> Option<Serving> {
        let mut items = heapless::Vec::new();
        if self.head_sent == 0 {
            let next = self.metadata.front().copied();
            self.metadata_head =
                next.map(|piece| metadata_item(piece, metadata_bytes, peer_metadata_id));
        }
        match self.metadata_head {
            Some(item) => items.extend([item]),
            None => {
                let mut room = self.burst.bytes + self.head_sent;
                for at in 0..self.count.min(most).min(SERVE_BLOCKS_MAX) {
                    let request = self.asked(at);
                    // Ranges were checked on the way in; rejects go before anything is shown.
                    let Ok(span) = layout.locate(request.block()) else { break };
                    let item = Item { source: Source::Content(request.block()), span };
                    if request.rejected || (at > 0 && item.wire_bytes() > room) {
                        break;
                    }
                    room = room.saturating_sub(item.wire_bytes());
                    items.extend([item]);
                }
            }
        }
        if items.is_empty() {
            return None;
        }
        self.shown_bytes = items.iter().map(Item::wire_bytes).sum::<usize>() - self.head_sent;
        Some(Serving { torrent, items, skip: self.head_sent, revision: self.revision })
    }

    /// So many bytes of the last view went. Says how many of them were content, and how many
    /// blocks are done.
    pub fn advance(&mut self, sent: usize) -> (u64, u32) {
        self.burst.adapt(self.shown_bytes, sent);
        self.revision = self.revision.wrapping_add(1);
        if let Some(item) = self.metadata_head {
            self.head_sent += sent;
            if self.head_sent >= item.wire_bytes() {
                self.metadata.pop_front();
                (self.metadata_head, self.head_sent) = (None, 0);
            }
            return (0, 0);
        }
        let (mut left, mut content_bytes, mut blocks) = (sent, 0, 0);
        while left > 0 && self.count > 0 {
            let length = self.asked(0).length as usize;
            let step = left.min(PIECE_HEADER_BYTES + length - self.head_sent);
            let content = |at: usize| at.saturating_sub(PIECE_HEADER_BYTES) as u64;
            content_bytes += content(self.head_sent + step) - content(self.head_sent);
            left -= step;
            self.head_sent += step;
            if self.head_sent == PIECE_HEADER_BYTES + length {
                self.remove(0);
                self.head_sent = 0;
                blocks += 1;
            }
        }
        (content_bytes, blocks)
    }

    /// How many requests at the head can no longer be taken back: the one that has been begun.
    fn fixed(&self) -> usize {
        usize::from(self.head_sent > 0 && self.metadata_head.is_none())
    }

    fn refuse(&mut self, at: usize, fast: bool) {
        self.revision = self.revision.wrapping_add(1);
        if fast {
            let rejected = Asked { rejected: true, ..self.asked(at) };
            let at = self.place(at);
            self.ring[at] = rejected.packed();
            self.rejected += 1;
        } else {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if at == 0 {
            self.first = self.place(1);
        } else {
            for at in at..self.count - 1 {
                let (to, from) = (self.place(at), self.place(at + 1));
                self.ring[to] = self.ring[from];
            }
        }
        self.count -= 1;
        // From the front again: an idle connection then touches little of what it was lent.
        if self.count == 0 {
            self.first = 0;
        }
    }

    fn place(&self, at: usize) -> usize {
        (self.first + at) % self.ring.len()
    }

    fn asked(&self, at: usize) -> Asked {
        Asked::of(self.ring[self.place(at)])
    }
}

/// How many bytes are shown at a time.
struct Burst {
    bytes: usize,
    /// The socket has been seen to take less than it was offered.
    met_its_limit: bool,
}

impl Default for Burst {
    fn default() -> Self {
        Burst { bytes: BURST_BYTES_MIN, met_its_limit: false }
    }
}

impl Burst {
    fn adapt(&mut self, shown: usize, sent: usize) {
        let step = if self.met_its_limit { BURST_BYTES_MIN } else { self.bytes };
        if sent < shown {
            self.met_its_limit = true;
            self.bytes = sent.max(BURST_BYTES_MIN);
        } else if shown + BURST_BYTES_MIN > self.bytes {
            self.bytes = (self.bytes + step).min(SERVE_BYTES_MAX);
        }
    }
}

fn metadata_item(piece: u32, total_bytes: u32, peer_metadata_id: u8) -> Item {
    let at = u64::from(piece) * u64::from(METADATA_PIECE_BYTES);
    // Only pieces that exist are queued.
    let length = u64::from(METADATA_PIECE_BYTES).min(u64::from(total_bytes).saturating_sub(at));
    let source = Source::Metadata { peer_metadata_id, piece, total_bytes };
    Item { source, span: Span { at, length } }
}

/// One block with its header.
const BURST_BYTES_MIN: usize = SERVE_BYTES_MAX / SERVE_BLOCKS_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::PieceIndex;
    use std::vec::Vec;

    const LAYOUT: Layout = Layout { total_bytes: 1 << 24, piece_bytes: 1 << 20 };
    const SIZES: (Layout, u32) = (LAYOUT, 20_000);

    fn block(piece: u32) -> Block {
        Block { piece: PieceIndex(piece), begin: 0, length: 16_384 }
    }

    fn shown(queue: &mut Queue<'_>) -> Vec<u32> {
        let serving = queue.view(TorrentSlot(0), SIZES, 1, SERVE_BLOCKS_MAX);
        let items = serving.iter().flat_map(|serving| &serving.items);
        let pieces = items.map(|item| match item.source {
            Source::Content(block) => block.piece.0,
            Source::Metadata { piece, .. } => 1_000 + piece,
        });
        pieces.collect()
    }

    #[test]
    fn nothing_leaves_the_queue_before_its_last_byte_has_gone() {
        let mut ring = [Request::default(); 4];
        let mut queue = Queue::new(&mut ring);
        (0..4).for_each(|piece| queue.push(block(piece), true).unwrap());
        assert_eq!(queue.push(block(4), true), Err(QueueFull));
        assert_eq!(shown(&mut queue), [0]);
        assert_eq!(queue.advance(13 + 16_383), (16_383, 0));
        assert_eq!((shown(&mut queue)[0], queue.free()), (0, 0));
        assert_eq!(queue.advance(1), (1, 1));
        assert_eq!(shown(&mut queue)[0], 1);
        assert_eq!(queue.advance(10), (0, 0));
        assert!(queue.head_begun());
    }

    #[test]
    fn cancel_and_choke_reach_all_but_what_has_been_begun() {
        for fast in [false, true] {
            let mut ring = [Request::default(); 4];
            let mut queue = Queue::new(&mut ring);
            (0..4).for_each(|piece| queue.push(block(piece), true).unwrap());
            shown(&mut queue);
            queue.advance(5);
            assert!(queue.cancel(block(0), fast) && queue.cancel(block(2), fast));
            assert!(!queue.cancel(block(9), fast));
            queue.choke(fast);
            let rejected: Vec<_> = core::iter::from_fn(|| queue.take_rejected()).collect();
            let wanted = if fast { Vec::from([1, 2, 3].map(block)) } else { Vec::new() };
            assert_eq!(rejected, wanted);
            assert_eq!(shown(&mut queue), [0]);
            assert_eq!(queue.advance(13 + 16_384 - 5), (16_384, 1));
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn the_view_follows_what_the_socket_takes() {
        let mut ring = [Request::default(); 64];
        let mut queue = Queue::new(&mut ring);
        (0..64).for_each(|_| queue.push(block(1), true).unwrap());
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let blocks = shown(&mut queue).len();
            sizes.push(blocks);
            queue.advance(blocks * 16_397);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16]);
        shown(&mut queue);
        queue.advance(3 * 16_397 + 100);
        assert_eq!(shown(&mut queue).len(), 3);
        assert_eq!(queue.view(TorrentSlot(0), SIZES, 1, SERVE_BLOCKS_MAX).unwrap().skip, 100);
        queue.advance(3 * 16_397 - 100);
        assert_eq!(shown(&mut queue).len(), 4);
    }

    /// What a connection gets that is filled `step` bytes at a time.
    fn stream(step: usize) -> Vec<u8> {
        let mut ring = [Request::default(); 4];
        let mut queue = Queue::new(&mut ring);
        (0..3).for_each(|piece| queue.push(block(piece), true).unwrap());
        queue.push_metadata(1).unwrap();
        let (mut stream, mut buffer) = (Vec::new(), std::vec![0; step]);
        while let Some(serving) = queue.view(TorrentSlot(0), SIZES, 1, SERVE_BLOCKS_MAX) {
            let filled = serving.fill(&mut buffer, |source, span, into| {
                let salt = u64::from(matches!(source, Source::Metadata { .. }));
                for (at, byte) in (span.at..).zip(into) {
                    *byte = ((at + salt) % 251) as u8;
                }
                Ok::<(), ()>(())
            });
            stream.extend_from_slice(&buffer[..filled.unwrap()]);
            queue.advance(filled.unwrap());
        }
        stream
    }

    #[test]
    fn a_ring_of_any_size_is_filled_with_the_same_stream() {
        let whole = stream(1 << 20);
        assert_eq!(whole.len(), 3 * (13 + 16_384) + (20_000 - 16_384) + 51);
        for step in [1, 7, 13, 14, 4_096, 16_397, 40_000] {
            assert!(stream(step) == whole, "{step} bytes at a time");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_begun() {
        let mut ring = [Request::default(); 4];
        let mut queue = Queue::new(&mut ring);
        (0..2).for_each(|piece| queue.push(block(piece), true).unwrap());
        shown(&mut queue);
        queue.advance(16_397);
        queue.push(block(2), true).unwrap();
        let serving = queue.view(TorrentSlot(0), SIZES, 1, SERVE_BLOCKS_MAX).unwrap();
        let mut reads = 0;
        let mut fill = |bad: u32| {
            reads = 0;
            serving.fill(&mut [0; 40_000], |_, _, _| {
                reads += 1;
                if reads == bad { Err(()) } else { Ok(()) }
            })
        };
        assert_eq!((fill(1), fill(2), fill(3)), (Err(()), Ok(16_397), Ok(32_794)));
    }

    #[test]
    fn metadata_goes_between_blocks_and_never_inside_one() {
        let mut ring = [Request::default(); 4];
        let mut queue = Queue::new(&mut ring);
        queue.push(block(0), true).unwrap();
        shown(&mut queue);
        queue.advance(100);
        queue.push_metadata(1).unwrap();
        assert_eq!(shown(&mut queue), [0]);
        queue.advance(13 + 16_384 - 100);
        assert_eq!(shown(&mut queue), [1_001]);
        let serving = queue.view(TorrentSlot(0), SIZES, 1, SERVE_BLOCKS_MAX).unwrap();
        assert_eq!(serving.items[0].span, Span { at: 16_384, length: 3_616 });
        assert_eq!(queue.advance(serving.items[0].wire_bytes()), (0, 0));
        assert!(queue.is_empty());
    }
}
