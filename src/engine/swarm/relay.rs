//! Fetching, as far as it concerns who is connected: a piece that is verified is offered, whoever
//! sent a bad one is let go, and once nothing is lacking whoever has it all has no use for us.

use super::Swarm;
use super::fetch::store::{Done, Verdict};
use super::fetch::{FetchFull, Fetcher, Fetching, Order};
use super::roster::{self, Farewell};
use super::torrent::{Have, Torrent};
use crate::engine::units::{Instant, PeerSlot, PieceIndex, TorrentSlot};

impl<'m> Swarm<'m, Fetcher<'m>> {
    /// Whether what goes to a connection is scarce: bandwidth that others want too.
    pub fn set_scarce(&mut self, slot: PeerSlot, scarce: bool) {
        self.fetcher.set_scarce(slot, scarce);
    }

    /// Begins to fetch what is `wanted` of a torrent and not offered already. Says how many pieces
    /// are lacking.
    ///
    /// # When full
    /// An error says of what there is too little; nothing has begun.
    pub fn begin_fetch(
        &mut self,
        slot: TorrentSlot,
        wanted: impl Fn(u32) -> bool,
        order: Order,
        chance: u32,
    ) -> Result<u32, FetchFull> {
        let (torrent, bits) = (self.torrents[slot.index()].as_ref(), &self.bits);
        let torrent = torrent.expect("a slot that was given out is filled");
        let (layout, have) = (torrent.layout, torrent.have);
        let count = layout.piece_count();
        let lacking = |piece| wanted(piece) && !have.contains(bits, count, piece);
        self.fetcher.begin(slot, layout, lacking, order, chance)
    }

    /// Makes a torrent active of which only the name is known, and begins to look for its metadata.
    ///
    /// # When full
    /// `None`: every place of `seeding_max`, or of `fetching_max`, is taken.
    pub fn seek(&mut self, torrent: Torrent, order: Order, chance: u32) -> Option<TorrentSlot> {
        let slot = self.activate(torrent)?;
        if !self.fetcher.seek(slot, order, chance) {
            self.rest(slot);
            return None;
        }
        Some(slot)
    }

    /// The metadata has been found: what is `wanted` and not there is fetched from here on.
    ///
    /// # When full
    /// An error says of what there is too little; nothing has changed.
    pub fn reveal(
        &mut self,
        slot: TorrentSlot,
        found: Torrent,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<u32, FetchFull> {
        let (layout, have, bits) = (found.layout, found.have, &self.bits);
        let count = layout.piece_count();
        let lacking = |piece| wanted(piece) && !have.contains(bits, count, piece);
        let lacking = self.fetcher.reveal(slot, layout, lacking)?;
        self.torrents[slot.index()] = Some(found);
        self.roster.nudge_all(slot);
        if lacking == 0 {
            self.settle(slot);
        }
        Ok(lacking)
    }

    /// A peer has sent metadata that is not the torrent's: it is let go, and the next is asked.
    pub fn reject_metadata(&mut self, slot: TorrentSlot, now: Instant) {
        if let Some(culprit) = self.fetcher.seek_again(slot, now) {
            self.let_go_for_good(culprit);
        }
    }

    fn let_go_for_good(&mut self, culprit: PeerSlot) {
        // A web seed is on no roster: whoever runs it sees to it.
        if let Some(member) = self.roster.get(culprit) {
            self.fetcher.ban(roster::crowd_of(member.address.ip()));
            self.roster.end(culprit, Farewell::Corrupt);
        }
    }

    /// Takes what a lane has done with payload; each verdict is handed to `visit`.
    pub fn handle_done(&mut self, done: Done, mut visit: impl FnMut(Verdict)) {
        let slot = done.work.torrent;
        let fetched = self.fetcher.is_fetched(slot);
        for verdict in self.fetcher.handle_done(done) {
            match verdict {
                Verdict::Verified(piece) => self.offer(slot, piece),
                Verdict::Failed(_, Some(culprit)) => self.let_go_for_good(culprit),
                Verdict::Failed(_, None) => {}
            }
            visit(verdict);
        }
        if fetched && !self.fetcher.is_fetched(slot) {
            self.settle(slot);
        }
    }

    /// A piece is there: from here on it is served.
    fn offer(&mut self, slot: TorrentSlot, piece: PieceIndex) {
        let Some(torrent) = self.torrents[slot.index()].as_mut() else { return };
        if let Have::Some(span) = torrent.have {
            self.bits.set(span, piece.0);
        }
    }

    /// What was wanted is there: a torrent that is whole needs no bitfield, and whoever has all of
    /// it too has no use for us.
    fn settle(&mut self, slot: TorrentSlot) {
        let Some(torrent) = self.torrents[slot.index()].as_mut() else { return };
        let count = torrent.layout.piece_count();
        if (0..count).all(|piece| torrent.have.contains(&self.bits, count, piece))
            && let Have::Some(span) = core::mem::replace(&mut torrent.have, Have::All)
        {
            self.bits.give_back(span);
        }
        self.roster.settle(slot);
        self.roster.let_go(|member| {
            let idle = member.torrent == slot && member.complete && !member.interested;
            idle.then_some(Farewell::Complete)
        });
    }
}
