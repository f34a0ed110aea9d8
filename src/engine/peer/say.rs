//! What we say to a peer besides blocks: handshake, bitfield, choke, rejects, keep-alives.
//!
//! Nothing is queued. Each small message follows from what the peer has been told so far and what
//! is true now, and is written when the socket has taken everything before it.

use super::{Peer, Session, Stage, Told};
use crate::engine::limits::{EXCHANGE_MS, KEEPALIVE_MS, OUT_BYTES, REQUEST_BYTES};
use crate::engine::swarm::Swarm;
use crate::engine::swarm::fetch::{Fetching, Say};
use crate::engine::swarm::torrent::Have;
use crate::engine::units::{Instant, PeerSlot, TorrentSlot};
use crate::engine::wire::extended::{
    Hello, write_exchange, write_metadata_reject, write_metadata_request,
};
use crate::engine::wire::handshake::{Features, Handshake};
use crate::engine::wire::message::{self, id};
use core::net::IpAddr;

impl Peer<'_> {
    /// Our handshake, before anything else.
    pub(super) fn put_handshake(&mut self, torrent: TorrentSlot, swarm: &Swarm<'_, impl Fetching>) {
        let handshake = Handshake {
            info_hash: swarm.torrent(torrent).info_hash.on_the_wire(),
            peer_id: swarm.identity().peer_id,
            features: Features { fast: true, extended: true, dht: swarm.identity().dht_port != 0 },
        };
        // There is room: nothing has been put out before it.
        let _ = self.out.extend_from_slice(&handshake.write());
    }

    /// Refuses requests for pieces that are no longer offered. `false` when the rest of a block
    /// that has been begun is among them: only the end of the connection can say that.
    pub(super) fn refuse_what_is_gone(&mut self, swarm: &Swarm<'_, impl Fetching>) -> bool {
        let Stage::Member(session) = &mut self.stage else { return true };
        let (torrent, fast) = (session.torrent, session.features.fast);
        let seen = core::mem::replace(&mut session.withdrawals, swarm.withdrawals());
        if seen == swarm.withdrawals() {
            return true;
        }
        self.queue.refuse_all_but(|piece| swarm.offers(torrent, piece), fast);
        self.queue.begun_piece().is_none_or(|piece| swarm.offers(torrent, piece))
    }

    /// Writes small messages that are due, as many as fit.
    pub(super) fn compose<F: Fetching>(
        &mut self,
        unchoked: bool,
        now: Instant,
        swarm: &mut Swarm<'_, F>,
    ) {
        let Stage::Member(session) = &mut self.stage else { return };
        if let Some(offset) = session.bitfield_at {
            let veiled = swarm.fetcher.is_veiled(self.slot);
            session.bitfield_at = write_bitfield(&mut self.out, offset, session, veiled, swarm);
            if session.bitfield_at.is_some() {
                return;
            }
        }
        session.say_hello(self.address.ip(), &mut self.out, swarm);
        if session.told_unchoked != unchoked {
            let id = if unchoked { id::UNCHOKE } else { id::CHOKE };
            if self.out.extend_from_slice(&message::bare(id)).is_ok() {
                session.told_unchoked = unchoked;
                swarm.fetcher.note_served(self.slot, unchoked);
                if !unchoked {
                    self.queue.choke(session.features.fast);
                }
            }
        }
        while let Some(piece) = session.metadata_denied.front() {
            if write_metadata_reject(&mut self.out, session.metadata_id, *piece).is_err() {
                return;
            }
            session.metadata_denied.pop_front();
        }
        while self.out.len() + REQUEST_BYTES <= OUT_BYTES
            && let Some(block) = self.queue.take_rejected()
        {
            // There is room: that is the loop's condition.
            let _ = self.out.extend_from_slice(&message::reject(block));
        }
        while self.out.len() + REQUEST_BYTES <= OUT_BYTES
            && let Some(say) = swarm.fetcher.next_say(self.slot, now)
        {
            // There is room: none of these is longer than a request.
            let _ = match say {
                Say::Interested(true) => self.out.extend_from_slice(&message::bare(id::INTERESTED)),
                Say::Interested(false) => {
                    self.out.extend_from_slice(&message::bare(id::NOT_INTERESTED))
                }
                Say::Have(piece) => self.out.extend_from_slice(&message::have(piece)),
                Say::Cancel(block) => self.out.extend_from_slice(&message::cancel(block)),
                Say::Ask(block) => self.out.extend_from_slice(&message::request(block)),
                Say::AskMetadata(piece) => {
                    let written = write_metadata_request(&mut self.out, session.metadata_id, piece);
                    written.map_err(|_| Default::default())
                }
            };
        }
        if F::FETCHES && core::mem::take(&mut session.port_due) {
            // Without room it is not told: others tell it of nodes as well.
            let _ = self.out.extend_from_slice(&message::port(swarm.identity().dht_port));
        }
        if F::FETCHES {
            session.exchange_peers(self.slot, &mut self.out, now, swarm);
        }
        if self.out.is_empty() && self.queue.is_empty() && now >= self.last_sent.after(KEEPALIVE_MS)
        {
            let _ = self.out.extend_from_slice(&message::KEEP_ALIVE);
        }
    }
}

impl Session {
    /// What we are, once at first and again when it has changed (BEP 10 allows that).
    fn say_hello<F: Fetching>(
        &mut self,
        your_ip: IpAddr,
        out: &mut heapless::Vec<u8, OUT_BYTES>,
        swarm: &Swarm<'_, F>,
    ) {
        let torrent = swarm.torrent(self.torrent);
        let now = Told {
            metadata_bytes: torrent.metadata_bytes,
            upload_only: !swarm.fetcher.is_fetched(self.torrent),
        };
        if !self.features.extended || self.told == Some(now) {
            return;
        }
        let hello = Hello {
            metadata_bytes: now.metadata_bytes,
            requests_max: swarm.identity().requests_max,
            listen_port: swarm.identity().listen_port,
            your_ip,
            upload_only: now.upload_only,
            exchange: F::FETCHES && !torrent.private && swarm.identity().exchanges,
        };
        // Without room it is said next time.
        if hello.write(out).is_ok() {
            self.told = Some(now);
        }
    }

    /// Tells of peers that came since it was last told (BEP 11).
    fn exchange_peers<F: Fetching>(
        &mut self,
        slot: PeerSlot,
        out: &mut heapless::Vec<u8, OUT_BYTES>,
        now: Instant,
        swarm: &Swarm<'_, F>,
    ) {
        let private = swarm.torrent(self.torrent).private;
        let off = self.exchange_id == 0 || private || !swarm.identity().exchanges;
        if off || now < self.exchange_after || !out.is_empty() {
            return;
        }
        let peers = swarm.peers_since(slot, self.exchanged);
        self.exchange_after = now.after(EXCHANGE_MS);
        if !peers.is_empty() && write_exchange(out, self.exchange_id, &peers).is_ok() {
            self.exchanged = now;
        }
    }
}

/// Writes what we have, from byte `offset` of the bitfield; where to go on, `None` at the end.
fn write_bitfield(
    out: &mut heapless::Vec<u8, OUT_BYTES>,
    offset: u32,
    session: &Session,
    veiled: bool,
    swarm: &Swarm<'_, impl Fetching>,
) -> Option<u32> {
    let torrent = swarm.torrent(session.torrent);
    if veiled && !session.features.fast {
        // It is told of pieces one by one (BEP 16).
        return None;
    }
    let short = match torrent.have {
        Have::All if veiled => Some(id::HAVE_NONE),
        Have::All if session.features.fast => Some(id::HAVE_ALL),
        Have::Nothing if session.features.fast => Some(id::HAVE_NONE),
        _ => None,
    };
    if let Some(id) = short {
        return out.extend_from_slice(&message::bare(id)).err().map(|_| 0);
    }
    let whole = torrent.layout.bitfield_bytes();
    if whole == 0 {
        // Without metadata nobody can say which pieces there are.
        return None;
    }
    if offset == 0 {
        // There is room: nothing stands before it.
        let _ = out.extend_from_slice(&message::bitfield_header(whole));
    }
    let filled = out.len();
    // There is room for as many as that: it is the capacity.
    let _ = out.resize(OUT_BYTES, 0);
    let written = swarm.bitfield(session.torrent, offset, &mut out[filled..]);
    out.truncate(filled + written);
    let next = offset + written as u32;
    (next < whole).then_some(next)
}
