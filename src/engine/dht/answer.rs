//! What strangers ask, what they are told, and what that may cost.
//!
//! The sender's address of a question proves nothing. Who has answered us at its address, or brings
//! a token that was sent there, has shown that it is there; all others get at most
//! [`AMPLIFICATION`] times the bytes of their question: first peers up to half of the room, then
//! nodes, then peers again. Nobody gains by asking us under a victim's address.

use super::allowance::Allowance;
use super::endpoint::{Endpoint, endpoint_bytes};
use super::id::NodeId;
use super::message::{self, Ask, Content, FRAME_BYTES_MAX, Fault, Query, Want};
use super::table::{BUCKET_MAX, Contact};
use super::{Dht, store};
use crate::engine::announce::Family;
use crate::engine::units::Instant;

/// Nodes as they are told.
type Nodes = heapless::Vec<(NodeId, Endpoint), BUCKET_MAX>;

/// Bytes an answer may still grow by.
struct Room(usize);

impl Room {
    /// How many things of `bytes` each fit, `most` at most; they are taken off.
    fn take(&mut self, most: usize, bytes: usize) -> usize {
        let count = most.min(self.0 / bytes);
        self.0 -= count * bytes;
        count
    }
}

impl Dht<'_> {
    pub(super) fn handle_query(
        &mut self,
        query: &Query<'_>,
        from: Endpoint,
        length: usize,
        now: Instant,
        twin: Option<&Dht<'_>>,
    ) {
        self.counts.queries_in += 1;
        self.heard_at = now;
        let is_ours = query.asker == *self.table.own();
        if self.settings.read_only || is_ours || !self.may_answer(from, now) {
            self.counts.unanswered += 1;
            return;
        }
        match query.ask {
            Ask::Ping => self.tell(query, from, length, None, now, twin),
            Ask::FindNode(target, want) => {
                self.tell(query, from, length, Some((target, want, false)), now, twin);
            }
            Ask::GetPeers(info_hash, want) => {
                self.tell(query, from, length, Some((info_hash, want, true)), now, twin);
            }
            Ask::AnnouncePeer { info_hash, port, token } => {
                let port = port.unwrap_or(from.address().port());
                if !self.chance.knows_token(token, from, now) {
                    return self.send_refusal(query.transaction, Fault::Token, from, length, now);
                }
                if port == 0 {
                    return self.send_refusal(
                        query.transaction,
                        Fault::Arguments,
                        from,
                        length,
                        now,
                    );
                }
                if self.admits(from) {
                    self.store.note(info_hash, from.with_port(port), now);
                }
                self.tell(query, from, length, None, now, twin);
            }
        }
        if !query.read_only {
            if self.table.handle_question(&query.asker, from, now) {
                self.upkeep_at = now;
            }
            self.hear_of(query.asker, from, now);
        }
    }

    /// Answers a query that is none.
    pub(super) fn refuse(
        &mut self,
        transaction: &[u8],
        fault: Fault,
        from: Endpoint,
        length: usize,
        now: Instant,
    ) {
        if self.settings.read_only || !self.may_answer(from, now) {
            self.counts.unanswered += 1;
            return;
        }
        self.send_refusal(transaction, fault, from, length, now);
    }

    fn send_refusal(
        &mut self,
        transaction: &[u8],
        fault: Fault,
        from: Endpoint,
        length: usize,
        now: Instant,
    ) {
        self.datagram.clear();
        let written = message::write_refusal(&mut self.datagram, transaction, from, fault);
        written.expect("a refusal is short");
        let most = self.answer_bytes_max(from, length);
        self.send_answer(from, most, now);
    }

    /// Writes an answer: with a target its closest nodes, and for peers these and a token.
    fn tell(
        &mut self,
        query: &Query<'_>,
        from: Endpoint,
        length: usize,
        about: Option<(NodeId, Want, bool)>,
        now: Instant,
        twin: Option<&Dht<'_>>,
    ) {
        let most = self.answer_bytes_max(from, length);
        let mut room = Room(most.saturating_sub(FRAME_BYTES_MAX));
        let (mut nodes, mut twins) = (Nodes::new(), None);
        let mut values = heapless::Vec::<Endpoint, { store::PER_TORRENT_MAX }>::new();
        let mut token = None;
        let mut want = Want::default();
        if let Some((target, wanted, peers)) = about {
            want = wanted;
            if peers {
                token = Some(self.chance.token(from, now));
                let start = self.chance.number();
                values.extend(self.store.peers(&target, start, now).take(store::PER_TORRENT_MAX));
            }
            let family = self.settings.family;
            let value_bytes = endpoint_bytes(family) + if family == Family::V4 { 2 } else { 3 };
            let first = Room(room.0 / 2).take(values.len(), value_bytes);
            room.0 -= first * value_bytes;
            if want.has(family) {
                nodes = self.known(&target, &mut room);
            }
            if let Some(twin) = twin.filter(|twin| want.has(twin.settings.family)) {
                twins = Some(twin.known(&target, &mut room));
            }
            let more = room.take(values.len() - first, value_bytes);
            values.truncate(first + more);
        }
        let (own_nodes, twins) = (want.has(self.settings.family).then_some(&nodes[..]), twins);
        let (v4, v6) = match self.settings.family {
            Family::V4 => (own_nodes, twins.as_deref()),
            Family::V6 => (twins.as_deref(), own_nodes),
        };
        let content = Content {
            own: self.table.own(),
            nodes: v4,
            nodes6: v6,
            token: token.as_ref().map(|token| &token[..]),
            values: &values,
        };
        self.datagram.clear();
        let written = message::write_answer(&mut self.datagram, query.transaction, from, &content);
        written.expect("what goes into an answer was measured");
        self.send_answer(from, most, now);
    }

    /// Nodes closest to a name that have never been silent lately, as far as there is room.
    fn known(&self, target: &NodeId, room: &mut Room) -> Nodes {
        let mut nodes = self.table.closest(target, Contact::is_reliable);
        let each = 20 + endpoint_bytes(self.settings.family);
        nodes.truncate(room.take(nodes.len(), each));
        nodes
    }

    fn may_answer(&mut self, from: Endpoint, now: Instant) -> bool {
        let place = self.chance.place(from.crowd());
        self.crowds.take(place, now)
    }

    /// What an answer to a question of `length` bytes may have.
    fn answer_bytes_max(&self, from: Endpoint, length: usize) -> usize {
        let has_shown = self.table.at(from).is_some_and(Contact::has_answered);
        if has_shown { ANSWER_BYTES_MAX } else { ANSWER_BYTES_MAX.min(length * AMPLIFICATION) }
    }

    fn send_answer(&mut self, to: Endpoint, most: usize, now: Instant) {
        let length = self.datagram.len();
        if length > most || !self.answers.take(length as u32, now) {
            self.counts.unanswered += 1;
            return;
        }
        self.counts.answers_out += 1;
        self.answer_to = Some(to);
    }
}

/// What all answers together may have.
pub(super) fn allowance() -> Allowance {
    Allowance::new(ANSWER_BYTES_S, 2 * ANSWER_BYTES_S)
}

/// The longest datagram we send (BEP 32, *Maximum packet size*): no network we know of cuts it up.
pub const ANSWER_BYTES_MAX: usize = 1_024;

/// Bytes of an answer for each byte of a question, to whoever has not shown that it is there. Four
/// let eight nodes of IPv4 through in any case, and more with the questions clients really send.
pub const AMPLIFICATION: usize = 4;

/// Bytes of all answers a second; twice that at once. Thirty usual answers a second.
pub const ANSWER_BYTES_S: u32 = 10_000;
