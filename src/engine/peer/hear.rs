//! What a peer says, and what follows from it.
//!
//! Every message is held against what the handshakes agreed on and against the torrent's layout
//! before anything is done about it; what does not hold is a [`PeerFault`]. What is merely useless
//! is counted: a peer may say a good deal that serves no purpose, but not without end.
//!
//! Frames come from [`wire::frame`](crate::engine::wire::frame); requests go into the
//! [`queue`](super::serve), interest to the [`swarm`](crate::engine::swarm).

use super::{Peer, Session, Stage};
use crate::engine::limits::{BLOCK_BYTES_MAX, METADATA_PIECE_BYTES, POINTLESS_MAX};
use crate::engine::metainfo::layout::OutOfRange;
use crate::engine::swarm::Swarm;
use crate::engine::swarm::fetch::Fetching;
use crate::engine::swarm::roster::Member;
use crate::engine::units::{Block, Instant, PeerSlot};
use crate::engine::wire::PeerFault;
use crate::engine::wire::extended::{self, METADATA_ID, PeerHello};
use crate::engine::wire::frame::{Decoder, Frame};
use crate::engine::wire::handshake::Handshake;

impl Peer<'_> {
    /// A whole handshake has come.
    pub(super) fn greet(
        &mut self,
        theirs: Handshake,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Greeting { dialled, .. } = self.stage else { return Ok(()) };
        let torrent = swarm.find(&theirs.info_hash).ok_or(PeerFault::UnknownTorrent)?;
        if dialled.is_some_and(|dialled| dialled != torrent) {
            return Err(PeerFault::OtherTorrent);
        }
        if theirs.peer_id == swarm.identity().peer_id {
            return Err(PeerFault::Ourselves);
        }
        let (address, features) = (self.address, theirs.features);
        let member = Member::new(torrent, address, theirs.peer_id, features.fast, now);
        if let Err(refused) = swarm.join(self.slot, member, now) {
            self.stage = Stage::Refused(refused);
            return Ok(());
        }
        if dialled.is_none() {
            self.put_handshake(torrent, swarm);
        }
        self.stage = Stage::Member(Session {
            torrent,
            features,
            decoder: Decoder::default(),
            their_pieces: 0,
            metadata_id: 0,
            metadata_denied: Default::default(),
            bitfield_at: Some(0),
            hello_due: features.extended,
            withdrawals: swarm.withdrawals(),
            told_unchoked: false,
        });
        Ok(())
    }

    /// One message, which ends at byte `read` of what was read.
    pub(super) fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        read: usize,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        let torrent = session.torrent;
        let layout = swarm.torrent(torrent).layout;
        match frame {
            Frame::KeepAlive | Frame::Skipped | Frame::Advice | Frame::Port(_) => {
                return self.count_pointless();
            }
            Frame::Choke(choked) => {
                let fast = session.features.fast;
                swarm.fetcher.note_choke(self.slot, choked, fast, now);
                return self.count_pointless();
            }
            Frame::Reject(_) if !session.features.fast => return Err(PeerFault::NotNegotiated),
            Frame::Reject(block) => {
                if !swarm.fetcher.note_reject(self.slot, block, now) {
                    return Err(PeerFault::Unrequested);
                }
            }
            Frame::Piece { block, offset, bytes } => {
                if offset == 0 && !swarm.fetcher.note_block(self.slot, block, now) {
                    return Err(PeerFault::Unrequested);
                }
                swarm.fetcher.note_payload(self.slot, offset, read - bytes.len(), bytes.len());
                // Whoever gives may say this and that.
                if offset == 0 {
                    self.pointless = self.pointless.saturating_sub(1);
                }
            }
            Frame::Interested(interested) => {
                // Everybody changes their mind now and then; doing nothing else is a flood.
                swarm.set_interested(self.slot, interested, now);
                return self.count_pointless();
            }
            Frame::Have(piece) if piece.0 >= layout.piece_count() => {
                return Err(PeerFault::PieceRange);
            }
            Frame::Have(piece) => {
                swarm.fetcher.note_have(self.slot, piece);
                session.count_pieces(1, self.slot, swarm);
                if session.their_pieces > layout.piece_count() {
                    return self.count_pointless();
                }
            }
            Frame::Bitfield { offset, bytes, total } => {
                if total != layout.bitfield_bytes() {
                    return Err(PeerFault::BitfieldLength);
                }
                // BEP 3 wants it first and once; aria2 sends another in place of many `have`s.
                if offset == 0 {
                    session.their_pieces = 0;
                }
                let end = offset + bytes.len() as u32;
                let spare = (8 - layout.piece_count() % 8) % 8;
                let last = bytes.last().copied().unwrap_or(0);
                if end == total && last & !(0xff << spare) != 0 {
                    return Err(PeerFault::BitfieldSpare);
                }
                let count = bytes.iter().map(|byte| byte.count_ones()).sum();
                swarm.fetcher.note_bits(self.slot, offset, bytes);
                session.count_pieces(count, self.slot, swarm);
            }
            Frame::HaveAll | Frame::HaveNone if !session.features.fast => {
                return Err(PeerFault::NotNegotiated);
            }
            Frame::HaveAll => session.count_pieces(layout.piece_count(), self.slot, swarm),
            Frame::HaveNone => return self.count_pointless(),
            Frame::Request(block) => return self.handle_request(block, swarm),
            Frame::Cancel(block) => {
                let fast = session.features.fast;
                if !self.queue.cancel(block, fast) {
                    return self.count_pointless();
                }
            }
            Frame::Extended { .. } if !session.features.extended => {
                return Err(PeerFault::NotNegotiated);
            }
            Frame::Extended { sub_id, payload } => {
                return self.handle_extended(sub_id, payload, swarm);
            }
        }
        Ok(())
    }

    fn handle_request(
        &mut self,
        block: Block,
        swarm: &Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &self.stage else { return Ok(()) };
        match swarm.torrent(session.torrent).layout.locate(block) {
            Err(OutOfRange::Piece) => return Err(PeerFault::PieceRange),
            Err(OutOfRange::Block | OutOfRange::TooLong) => return Err(PeerFault::RequestRange),
            Ok(_) => {}
        }
        const { assert!(BLOCK_BYTES_MAX <= u16::MAX as u32, "a request keeps its length so") };
        let fast = session.features.fast;
        let answered = session.told_unchoked && swarm.offers(session.torrent, block.piece.0);
        if answered || fast {
            // Within the appetite there is room, unless blocks of ours are to come as well.
            if self.queue.push(block, answered).is_err() {
                let both = swarm.fetcher.awaits_payload(self.slot);
                return if both { self.count_pointless() } else { Err(PeerFault::RequestFlood) };
            }
        }
        if answered { Ok(()) } else { self.count_pointless() }
    }

    fn handle_extended(
        &mut self,
        sub_id: u8,
        payload: &[u8],
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        match sub_id {
            0 => {
                let hello = PeerHello::parse(payload).ok_or(PeerFault::Extended)?;
                session.metadata_id = hello.metadata_id;
                swarm.fetcher.note_reqq(self.slot, hello.requests_max);
                Ok(())
            }
            METADATA_ID if session.metadata_id != 0 => {
                let Some(piece) = extended::parse_metadata_request(payload) else {
                    return self.count_pointless();
                };
                let total = swarm.torrent(session.torrent).metadata_bytes;
                let exists = piece < total.div_ceil(METADATA_PIECE_BYTES);
                if !exists || self.queue.push_metadata(piece).is_err() {
                    // Beyond what is kept it is not told; it asks again in any case.
                    let _ = session.metadata_denied.push_back(piece);
                    return self.count_pointless();
                }
                Ok(())
            }
            _ => self.count_pointless(),
        }
    }

    /// One message more that serves no purpose.
    fn count_pointless(&mut self) -> Result<(), PeerFault> {
        self.pointless += 1;
        if self.pointless > POINTLESS_MAX { Err(PeerFault::Pointless) } else { Ok(()) }
    }
}

impl Session {
    /// The peer has so many pieces more.
    fn count_pieces(&mut self, count: u32, slot: PeerSlot, swarm: &mut Swarm<'_, impl Fetching>) {
        self.their_pieces = self.their_pieces.saturating_add(count);
        if self.their_pieces >= swarm.torrent(self.torrent).layout.piece_count() {
            swarm.set_complete(slot);
        }
    }
}
