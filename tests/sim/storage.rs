//! What stands in for files: bytes that follow from where they are, and reads that may not do.
//!
//! A read may be cold, as from a disk that has to turn first; it may give less than was asked for;
//! and a stretch may turn out to have changed. That nothing is about to be sent which is withheld
//! is checked here too.

use perennial::engine::metainfo::Layout;
use perennial::engine::peer::{Item, Serving, Source};
use perennial::engine::swarm::Swarm;
use perennial::engine::units::{Span, TorrentSlot};

use crate::prng::Prng;

/// How reads turn out.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// One read in so many would sleep; 0 for none.
    pub cold_one_in: u32,
    /// One read in so many gives fewer items than were asked for; 0 for none.
    pub short_one_in: u32,
    /// How long a lane takes.
    pub lane_ms: u64,
    /// A stretch that is no longer what was hashed, though nobody knows yet.
    pub changed: Option<(TorrentSlot, Span)>,
}

/// What came of a read.
pub enum Reading {
    /// The bytes to send.
    Ready(Vec<u8>),
    /// It would sleep.
    Cold,
    /// This stretch has changed.
    Changed(Span),
}

impl Storage {
    /// Reads what can be read now.
    pub fn try_read(&self, serving: &Serving, prng: &mut Prng) -> Reading {
        if self.cold_one_in > 0 && prng.one_in(self.cold_one_in) {
            return Reading::Cold;
        }
        self.read(serving, prng)
    }

    /// Reads, however long it takes.
    pub fn read(&self, serving: &Serving, prng: &mut Prng) -> Reading {
        let mut count = serving.items.len();
        if self.short_one_in > 0 && prng.one_in(self.short_one_in) {
            count = 1 + prng.below(count as u32) as usize;
        }
        let mut bytes = Vec::new();
        for item in &serving.items[..count] {
            if let Some((torrent, changed)) = self.changed
                && torrent == serving.torrent
                && matches!(item.source, Source::Content(_))
                && changed.at < item.span.end()
                && item.span.at < changed.end()
            {
                return Reading::Changed(changed);
            }
            put_item(&mut bytes, serving.torrent, item);
        }
        bytes.drain(..serving.skip);
        Reading::Ready(bytes)
    }
}

/// Nothing is shown that is not offered.
pub fn check_offered(serving: &Serving, swarm: &Swarm<'_>) {
    for item in &serving.items {
        let Source::Content(block) = item.source else { continue };
        let offered = swarm.offers(serving.torrent, block.piece.0);
        assert!(offered, "{block:?}, which is withheld, is about to be sent");
    }
}

fn put_item(bytes: &mut Vec<u8>, torrent: TorrentSlot, item: &Item) {
    let mut header = [0; 96];
    let length = item.write_header(&mut header);
    bytes.extend(&header[..length]);
    let start = bytes.len();
    bytes.resize(start + item.span.length as usize, 0);
    match item.source {
        Source::Content(_) => content(torrent, item.span.at, &mut bytes[start..]),
        Source::Metadata { .. } => metadata(torrent, item.span.at, &mut bytes[start..]),
    }
}

/// Bytes of a torrent's content.
pub fn content(torrent: TorrentSlot, at: u64, into: &mut [u8]) {
    pattern(1 + 2 * u64::from(torrent.0), at, into);
}

/// Bytes of a torrent's `info` dictionary.
pub fn metadata(torrent: TorrentSlot, at: u64, into: &mut [u8]) {
    pattern(2 + 2 * u64::from(torrent.0), at, into);
}

/// Whether `data` is the block at `begin` of `piece`.
pub fn is_content(
    torrent: TorrentSlot,
    layout: &Layout,
    piece: u32,
    begin: u32,
    data: &[u8],
) -> bool {
    let at = u64::from(piece) * u64::from(layout.piece_bytes) + u64::from(begin);
    let mut wanted = vec![0; data.len()];
    content(torrent, at, &mut wanted);
    wanted == data
}

/// Eight bytes at a time, each eight from where they stand.
fn pattern(salt: u64, mut at: u64, mut into: &mut [u8]) {
    while !into.is_empty() {
        let word = Prng::new(salt << 56 ^ (at / 8)).next_u64().to_le_bytes();
        let word = &word[at as usize % 8..];
        let length = word.len().min(into.len());
        let (now, rest) = into.split_at_mut(length);
        now.copy_from_slice(&word[..length]);
        at += length as u64;
        into = rest;
    }
}
