//! What a peer says, and what follows from it.
//!
//! Every message is held against what the handshakes agreed on and against the torrent's layout
//! before anything is done about it; what does not hold is a [`PeerFault`]. What is merely useless
//! is counted: a peer may say a good deal that serves no purpose, but not without end.
//!
//! Frames come from [`wire::frame`](crate::engine::wire::frame); requests go into the
//! [`queue`](super::serve), interest to the [`swarm`](crate::engine::swarm).

use super::{Peer, Session, Stage};
use crate::engine::limits::{METADATA_PIECE_BYTES, POINTLESS_MAX};
use crate::engine::metainfo::layout::OutOfRange;
use crate::engine::swarm::Swarm;
use crate::engine::swarm::fetch::Fetching;
use crate::engine::swarm::roster::Member;
use crate::engine::units::{Block, Instant, PeerSlot, PieceIndex, TorrentSlot};
use crate::engine::wire::PeerFault;
use crate::engine::wire::extended::{self, EXCHANGE_ID, METADATA_ID, Metadata, PeerHello};
use crate::engine::wire::frame::{Decoder, Frame};
use crate::engine::wire::handshake::Handshake;
use core::net::SocketAddr;

impl Peer<'_> {
    /// A whole handshake has come.
    pub(super) fn greet(
        &mut self,
        theirs: Handshake,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Greeting { dialled, since, .. } = self.stage else { return Ok(()) };
        match swarm.find_open(&theirs.info_hash) {
            Some(torrent) if dialled.is_some_and(|dialled| dialled != torrent) => {
                Err(PeerFault::OtherTorrent)
            }
            Some(torrent) => self.enter(theirs, torrent, dialled.is_some(), now, swarm),
            None if dialled.is_none() && swarm.torrents_rest => {
                self.stage = Stage::Asking { theirs, since };
                Ok(())
            }
            None => Err(PeerFault::UnknownTorrent),
        }
    }

    /// The torrent is known: the peer is let in, if there is room.
    pub(super) fn enter(
        &mut self,
        theirs: Handshake,
        torrent: TorrentSlot,
        dialled: bool,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        if theirs.peer_id == swarm.identity().peer_id {
            return Err(PeerFault::Ourselves);
        }
        let (address, features) = (self.address, theirs.features);
        let mut member = Member::new(torrent, address, theirs.peer_id, features.fast, now);
        if dialled {
            member.listen_port = address.port();
        }
        if let Err(refused) = swarm.join(self.slot, member, now) {
            self.stage = Stage::Refused(refused);
            return Ok(());
        }
        if !dialled {
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
            port_due: features.dht && swarm.identity().dht_port != 0,
            exchange_id: 0,
            exchange_after: Instant::default(),
            exchanged: Instant::default(),
            told: None,
            withdrawals: swarm.withdrawals(),
            told_unchoked: false,
        });
        Ok(())
    }

    /// One message, which ends at byte `read` of what was read.
    pub(super) fn handle_frame<F: Fetching>(
        &mut self,
        frame: Frame<'_>,
        read: usize,
        now: Instant,
        swarm: &mut Swarm<'_, F>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        let torrent = session.torrent;
        let layout = swarm.torrent(torrent).layout;
        // Without metadata nobody can say which pieces there are.
        let known = layout.total_bytes > 0;
        match frame {
            Frame::KeepAlive | Frame::Skipped | Frame::Advice => return self.count_pointless(),
            Frame::Port(port) => {
                swarm.fetcher.note_dht_node(SocketAddr::new(self.address.ip(), port));
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
                    swarm.count_given(self.slot);
                    self.pointless = self.pointless.saturating_sub(1);
                }
            }
            Frame::Interested(interested) => {
                // Everybody changes their mind now and then; doing nothing else is a flood.
                swarm.set_interested(self.slot, interested, now);
                return self.count_pointless();
            }
            Frame::Have(piece) if known && piece.0 >= layout.piece_count() => {
                return Err(PeerFault::PieceRange);
            }
            Frame::Have(_) if !known => return self.count_pointless(),
            Frame::Have(piece) => {
                swarm.fetcher.note_have(self.slot, piece);
                swarm.fetcher.note_spread(self.slot, torrent, piece);
                session.count_pieces(1, self.slot, swarm);
                if session.their_pieces > layout.piece_count() {
                    return self.count_pointless();
                }
            }
            Frame::Bitfield { offset, bytes, total } => {
                if known && total != layout.bitfield_bytes() {
                    return Err(PeerFault::BitfieldLength);
                }
                // BEP 3 wants it first and once; aria2 sends another in place of many `have`s.
                if offset == 0 {
                    session.their_pieces = 0;
                }
                let end = offset + bytes.len() as u32;
                let spare = (8 - layout.piece_count() % 8) % 8;
                let last = bytes.last().copied().unwrap_or(0);
                if known && end == total && last & !(0xff << spare) != 0 {
                    return Err(PeerFault::BitfieldSpare);
                }
                let count = bytes.iter().map(|byte| byte.count_ones()).sum();
                swarm.fetcher.note_bits(self.slot, (offset, total), bytes);
                if F::FETCHES {
                    for piece in pieces_of(offset, bytes) {
                        swarm.fetcher.note_spread(self.slot, torrent, piece);
                    }
                }
                session.count_pieces(count, self.slot, swarm);
            }
            Frame::HaveAll | Frame::HaveNone if !session.features.fast => {
                return Err(PeerFault::NotNegotiated);
            }
            Frame::HaveAll => swarm.set_complete(self.slot),
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
                return self.handle_extended(sub_id, payload, read, now, swarm);
            }
            Frame::Metadata { .. } if session.metadata_id == 0 => return self.count_pointless(),
            Frame::Metadata { offset: 0, bytes, total } => {
                return self.handle_metadata(Metadata::parse(bytes), total, now, swarm);
            }
            Frame::Metadata { offset, bytes, .. } => {
                let at = read - bytes.len();
                swarm.fetcher.note_metadata_payload(self.slot, offset, at, bytes.len());
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
        let layout = swarm.torrent(session.torrent).layout;
        match layout.locate(block) {
            // It cannot know that we do not even know what there is.
            Err(_) if layout.total_bytes == 0 => return self.count_pointless(),
            Err(OutOfRange::Piece) => return Err(PeerFault::PieceRange),
            Err(OutOfRange::Block | OutOfRange::TooLong) => return Err(PeerFault::RequestRange),
            Ok(_) => {}
        }
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

    fn handle_extended<F: Fetching>(
        &mut self,
        sub_id: u8,
        payload: &[u8],
        read: usize,
        now: Instant,
        swarm: &mut Swarm<'_, F>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        match sub_id {
            0 => {
                let hello = PeerHello::parse(payload).ok_or(PeerFault::Extended)?;
                session.metadata_id = hello.metadata_id;
                if F::FETCHES {
                    session.exchange_id = hello.exchange_id;
                    swarm.note_listen_port(self.slot, hello.listen_port);
                    let bytes = if hello.metadata_id == 0 { 0 } else { hello.metadata_bytes };
                    swarm.fetcher.note_reqq(self.slot, hello.requests_max);
                    swarm.fetcher.note_metadata(self.slot, bytes, now);
                }
                Ok(())
            }
            METADATA_ID if session.metadata_id != 0 => {
                let message = Metadata::parse(payload);
                self.handle_metadata(message, payload.len() as u32, now, swarm)?;
                if let Some(Metadata::Data { head, .. }) = message {
                    let length = payload.len() - head as usize;
                    let at = read - length;
                    swarm.fetcher.note_metadata_payload(self.slot, head, at, length);
                }
                Ok(())
            }
            EXCHANGE_ID if F::FETCHES => {
                for address in extended::exchanged(payload) {
                    swarm.exchange(self.slot, address, now);
                }
                self.count_pointless()
            }
            _ => self.count_pointless(),
        }
    }

    /// A metadata message of `total` bytes, or the front of it.
    fn handle_metadata(
        &mut self,
        message: Option<Metadata>,
        total: u32,
        now: Instant,
        swarm: &mut Swarm<'_, impl Fetching>,
    ) -> Result<(), PeerFault> {
        let Stage::Member(session) = &mut self.stage else { return Ok(()) };
        match message {
            Some(Metadata::Request(piece)) => {
                let bytes = swarm.torrent(session.torrent).metadata_bytes;
                let exists = piece < bytes.div_ceil(METADATA_PIECE_BYTES);
                if !exists || self.queue.push_metadata(piece).is_err() {
                    // Beyond what is kept it is not told; it asks again in any case.
                    let _ = session.metadata_denied.push_back(piece);
                    return self.count_pointless();
                }
            }
            Some(Metadata::Data { piece, total: bytes, head }) => {
                let (which, sizes) = ((piece, bytes), (head, total - head));
                if !swarm.fetcher.note_metadata_piece(self.slot, which, sizes, now) {
                    return self.count_pointless();
                }
            }
            Some(Metadata::Reject) => {
                swarm.fetcher.note_metadata_reject(self.slot, now);
                return self.count_pointless();
            }
            None => return self.count_pointless(),
        }
        Ok(())
    }

    /// One message more that serves no purpose.
    fn count_pointless(&mut self) -> Result<(), PeerFault> {
        self.pointless += 1;
        if self.pointless > POINTLESS_MAX { Err(PeerFault::Pointless) } else { Ok(()) }
    }
}

impl Session {
    /// The peer has so many pieces more; some may have been counted before.
    fn count_pieces(&mut self, count: u32, slot: PeerSlot, swarm: &mut Swarm<'_, impl Fetching>) {
        self.their_pieces = self.their_pieces.saturating_add(count);
        let all = swarm.torrent(self.torrent).layout.piece_count();
        if all > 0 && self.their_pieces >= all && swarm.fetcher.may_have_all(slot) {
            swarm.set_complete(slot);
        }
    }
}

/// The pieces whose bit is set in a part of a bitfield.
fn pieces_of(offset: u32, bytes: &[u8]) -> impl Iterator<Item = PieceIndex> + '_ {
    let each = (offset..).zip(bytes).filter(|(_, byte)| **byte != 0);
    each.flat_map(|(at, byte)| {
        (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| PieceIndex(at * 8 + bit))
    })
}
