//! The `info` dictionary of a torrent of which only the name is known (BEP 9).
//!
//! It is asked of one peer at a time, piece after piece, a few on their way: what a peer says of its
//! length is not to be believed before the hash of all of it is, and two peers may lie in different
//! ways. Whoever is late, refuses or sends what does not match makes room for the next. The bytes
//! go to a file the way payload does; the service hashes that file and says whether it matches.

use super::store::{Store, Stores};
use super::{Fetch, Fetcher, Order, Say};
use crate::engine::limits::{METADATA_BYTES_MAX, METADATA_LATE_MS, METADATA_PIECE_BYTES};
use crate::engine::metainfo::Layout;
use crate::engine::units::{Instant, PeerSlot, PieceIndex, TorrentSlot};

/// Metadata that is sought.
#[derive(Default)]
pub struct Sought {
    source: Option<Source>,
    /// Who was asked in vain of late; the first of them may be asked again when there are many.
    tried: heapless::Deque<PeerSlot, TRIED_MAX>,
    /// All of it has been written, and is being judged.
    judged: bool,
    /// Who has sent what is being judged, while it is here.
    culprit: Option<PeerSlot>,
}

/// The peer it is asked of.
struct Source {
    slot: PeerSlot,
    /// How long it says the dictionary is.
    bytes: u32,
    asked: u32,
    /// Pieces that have been written.
    come: u32,
    /// The piece that is coming, and the bytes before it in its message.
    receiving: Option<(u32, u32)>,
    last: Instant,
}

impl Source {
    fn pieces(&self) -> u32 {
        self.bytes.div_ceil(METADATA_PIECE_BYTES)
    }

    fn piece_len(&self, piece: u32) -> u32 {
        METADATA_PIECE_BYTES.min(self.bytes - piece * METADATA_PIECE_BYTES)
    }
}

impl Fetcher<'_> {
    /// Begins to look for the metadata of a torrent.
    ///
    /// # When full
    /// `false`: every place of `fetching_max` is taken.
    pub fn seek(&mut self, torrent: TorrentSlot, order: Order, chance: u32) -> bool {
        let Some(place) = self.fetches.iter_mut().find(|place| place.is_none()) else {
            return false;
        };
        let mut fetch =
            Fetch::new(torrent, Layout { total_bytes: 0, piece_bytes: 1 }, order, chance);
        // Something is lacking, though nobody knows what.
        (fetch.lacking_count, fetch.sought) = (1, Some(Sought::default()));
        *place = Some(fetch);
        true
    }

    /// A peer has metadata of so many bytes; 0 when it has none.
    pub(super) fn offer_metadata(&mut self, slot: PeerSlot, bytes: u32, now: Instant) {
        let Some((link, fetch, _)) = self.link(slot) else { return };
        link.metadata_bytes = if bytes <= METADATA_BYTES_MAX { bytes } else { 0 };
        let place = link.fetch;
        if fetch.sought.is_some() {
            self.choose_source(place, now);
        }
    }

    /// Asks the next peer that has the metadata, if nobody is asked.
    fn choose_source(&mut self, place: u16, now: Instant) {
        let Fetcher { links, fetches, .. } = self;
        let fetch = fetches.get_mut(usize::from(place)).and_then(Option::as_mut);
        let Some(sought) = fetch.and_then(|fetch| fetch.sought.as_mut()) else { return };
        if sought.source.is_some() || sought.judged {
            return;
        }
        for again in [false, true] {
            let fresh = links.iter_mut().enumerate().find_map(|(index, link)| {
                let (slot, link) = (PeerSlot(index as u16), link.as_mut()?);
                let tried = sought.tried.iter().any(|tried| *tried == slot);
                let has = link.fetch == place && link.metadata_bytes > 0;
                (has && (again || !tried)).then_some((slot, link))
            });
            if let Some((slot, link)) = fresh {
                let bytes = link.metadata_bytes;
                link.nudge = true;
                let source = Source { slot, bytes, asked: 0, come: 0, receiving: None, last: now };
                sought.source = Some(source);
                self.nudged = true;
                return;
            }
            sought.tried.clear();
        }
    }

    /// The next piece to ask a peer for.
    pub(super) fn next_metadata(&mut self, slot: PeerSlot, now: Instant) -> Option<Say> {
        let source = self.source(slot)?;
        if source.asked >= source.pieces() || source.asked >= source.come + ASKED_MAX {
            return None;
        }
        if source.asked == source.come {
            source.last = now;
        }
        source.asked += 1;
        Some(Say::AskMetadata(source.asked - 1))
    }

    /// A piece begins to come, of a dictionary of `total` bytes; its message has `payload` bytes
    /// after `head`. `false` when it is not wanted.
    pub(super) fn receive_metadata(
        &mut self,
        slot: PeerSlot,
        (piece, total): (u32, u32),
        (head, payload): (u32, u32),
        now: Instant,
    ) -> bool {
        let Some(source) = self.source(slot) else { return false };
        source.receiving = None;
        // They come in the order in which they were asked for.
        let fits = total == source.bytes && piece < source.asked && piece >= source.come;
        if !fits || payload != source.piece_len(piece) {
            self.give_up_source(slot, now);
            return false;
        }
        (source.receiving, source.last) = (Some((piece, head)), now);
        true
    }

    /// So many bytes of it, from `offset` of its message, stand at `at` of what was read.
    pub(super) fn receive_metadata_payload(
        &mut self,
        slot: PeerSlot,
        offset: u32,
        at: usize,
        length: usize,
    ) {
        let Some(source) = self.source(slot) else { return };
        let Some((piece, head)) = source.receiving else { return };
        let begin = offset.saturating_sub(head);
        let last = begin + length as u32 >= source.piece_len(piece);
        if last {
            source.receiving = None;
        }
        let (piece, length, at) = (PieceIndex(piece), length as u32, at as u32);
        // There is room: as for blocks, which are as long.
        let _ = self.stores.push(Store { piece, begin, length, at, last });
    }

    /// Whether what a peer sends is metadata: its torrent has no content yet.
    pub(super) fn sends_metadata(&mut self, slot: PeerSlot) -> bool {
        self.source(slot).is_some()
    }

    /// A job with metadata is done.
    pub(super) fn metadata_done(&mut self, slot: PeerSlot, stores: &Stores, written: bool) {
        let Some(source) = self.source(slot) else { return };
        if !written {
            // The disk is at fault: it is asked again once this is late.
            return;
        }
        source.come += stores.iter().filter(|store| store.last).count() as u32;
        let whole = source.come >= source.pieces();
        if let Some(link) = &mut self.links[slot.index()] {
            link.nudge = true;
        }
        self.nudged = true;
        if whole && let Some((_, fetch, _)) = self.link(slot) {
            // What is to be judged is taken by `take_metadata`.
            if let Some(sought) = &mut fetch.sought {
                sought.judged = true;
            }
        }
    }

    /// Metadata that has been written and is to be judged, and how long it is. Until
    /// [`Fetcher::seek_again`] or [`Fetcher::reveal`] nobody is asked.
    pub fn take_metadata(&mut self) -> Option<(TorrentSlot, u32)> {
        self.fetches.iter_mut().flatten().find_map(|fetch| {
            let sought = fetch.sought.as_mut().filter(|sought| sought.judged)?;
            let source = sought.source.take()?;
            sought.culprit = Some(source.slot);
            Some((fetch.torrent, source.bytes))
        })
    }

    /// What was to be judged was of no use: the next is asked. Who sent it, if it is still here.
    pub fn seek_again(&mut self, torrent: TorrentSlot, now: Instant) -> Option<PeerSlot> {
        let of = |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(|f| f.torrent == torrent);
        let place = self.fetches.iter().position(of)?;
        let sought = self.fetches[place].as_mut()?.sought.as_mut()?;
        sought.judged = false;
        let culprit = sought.culprit.take();
        self.choose_source(place as u16, now);
        culprit
    }

    /// The connection ends: nothing is asked of it or blamed on it.
    pub(super) fn forget_source(&mut self, slot: PeerSlot, now: Instant) {
        self.refuse_metadata(slot, now);
        if let Some((_, fetch, _)) = self.link(slot)
            && let Some(sought) = &mut fetch.sought
        {
            sought.culprit.take_if(|culprit| *culprit == slot);
        }
    }

    /// A peer gives no metadata: it is not asked again.
    pub(super) fn refuse_metadata(&mut self, slot: PeerSlot, now: Instant) {
        if let Some((link, ..)) = self.link(slot) {
            link.metadata_bytes = 0;
        }
        self.give_up_source(slot, now);
    }

    /// The peer is late or sends what does not fit: the next is asked.
    pub(super) fn give_up_source(&mut self, slot: PeerSlot, now: Instant) {
        if self.source(slot).is_none() {
            return;
        }
        let Some((link, fetch, _)) = self.link(slot) else { return };
        let place = link.fetch;
        if let Some(sought) = &mut fetch.sought {
            sought.source = None;
            if sought.tried.is_full() {
                sought.tried.pop_front();
            }
            // There is room now.
            let _ = sought.tried.push_back(slot);
        }
        self.choose_source(place, now);
    }

    /// Whether a peer's metadata is late, and when it will be.
    pub(super) fn metadata_late_at(&self, slot: PeerSlot) -> Option<Instant> {
        let link = self.links.get(slot.index())?.as_ref()?;
        let fetch = self.fetches.get(usize::from(link.fetch))?.as_ref()?;
        let source = fetch.sought.as_ref()?.source.as_ref()?;
        let waits = source.slot == slot && source.asked > source.come;
        waits.then(|| source.last.after(METADATA_LATE_MS))
    }

    /// The source, if it is that peer.
    fn source(&mut self, slot: PeerSlot) -> Option<&mut Source> {
        let sought = self.link(slot)?.1.sought.as_mut()?;
        sought.source.as_mut().filter(|source| source.slot == slot)
    }
}

/// Pieces of metadata on their way at a time.
const ASKED_MAX: u32 = 4;

/// Peers asked in vain that are remembered.
const TRIED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::link::Link;
    use super::super::{Ask, FetchMemory, Fetching as _};
    use super::*;

    #[test]
    fn once_the_one_that_was_asked_has_gone_the_next_is() {
        let mut links: [Option<Link>; 3] = core::array::from_fn(|_| None);
        let mut asks = [Ask::default(); 12];
        let (mut fetches, mut partials, mut pool) = ([None], [None], [0; 64]);
        let mut fetcher = Fetcher::new(FetchMemory {
            fetches: &mut fetches,
            partials: &mut partials,
            links: &mut links,
            asks: &mut asks,
            veils: &mut [],
            pool: &mut pool,
        });
        let (torrent, now) = (TorrentSlot(0), Instant::from_millis(1_000));
        assert!(fetcher.seek(torrent, Order::Rarest, 7));
        let asked = |fetcher: &mut Fetcher<'_>, slot| {
            core::iter::from_fn(|| fetcher.next_say(slot, now))
                .filter(|say| matches!(say, Say::AskMetadata(_)))
                .count()
        };
        // The only one there is goes, and comes back at another place.
        for slot in [PeerSlot(1), PeerSlot(2), PeerSlot(0)] {
            fetcher.greet(slot, torrent, now);
            fetcher.note_metadata(slot, 100, now);
            assert_eq!(asked(&mut fetcher, slot), 1);
            fetcher.leave(slot);
        }
    }
}
