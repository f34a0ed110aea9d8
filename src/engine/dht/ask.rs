//! What we ask, and when: searches first, each in its turn, then what keeps the table.
//!
//! One allowance holds all of it to [`QUERIES_S`] a second, and each question takes a place among
//! those [in flight](super::inflight), so neither a search nor a stranger's list of nodes makes a
//! flood of us.

use super::allowance::Allowance;
use super::endpoint::Endpoint;
use super::id::NodeId;
use super::inflight::{Purpose, Question};
use super::message::{self, Ask, Want};
use super::search::{Goal, Search, SearchId, Step, TOKEN_BYTES_MAX};
use super::table::{BUCKET_MAX, Contact};
use super::{Dht, Next, whole_minute};
use crate::engine::units::{Deadline, Instant};

impl Dht<'_> {
    /// The next question, or the moment for one that is due.
    pub(super) fn next_question(&mut self, now: Instant) -> Result<Next, Deadline> {
        if !self.in_flight.has_room() {
            return Err(Deadline::NONE);
        }
        // Whether somebody is to be asked is seen when somebody can be.
        if self.queries.ready_at(1) > now && self.has_questions(now) {
            // An answer that comes earlier has the next one asked; by itself it wakes for several.
            let at = self.queries.ready_at(QUERIES_A_TURN);
            return Err(Deadline { at, why: "DHT: our turn to ask" });
        }
        let searching = match self.next_of_searches(now) {
            Ok(next) => return Ok(next),
            Err(deadline) => deadline,
        };
        match self.next_of_upkeep(now) {
            Ok(next) => Ok(next),
            Err(deadline) => Err(searching.or(deadline)),
        }
    }

    fn has_questions(&self, now: Instant) -> bool {
        let searching = self.joining.is_some() || self.search_count() > 0;
        let named = !self.introductions.is_empty() || self.recheck.is_some();
        searching || named || self.upkeep_at <= now
    }

    /// A step of a search, each in its turn.
    fn next_of_searches(&mut self, now: Instant) -> Result<Next, Deadline> {
        let mut wait = Deadline::NONE;
        let (joining, usual) = (self.wanted_to_join(), Want::only(self.settings.family));
        let places = self.searches.len() + 1;
        for _ in 0..places {
            self.turn = (self.turn + 1) % places;
            let place = match self.turn {
                0 => &mut self.joining,
                other => &mut self.searches[other - 1],
            };
            let Some(search) = place else { continue };
            let (id, target) = (search.id, search.target);
            match search.step(now) {
                Step::Ask(to) => {
                    let ask = match search.goal {
                        Goal::Neighbours => Ask::FindNode(target, joining),
                        Goal::Peers { .. } => Ask::GetPeers(target, usual),
                    };
                    return Ok(self.ask(to, &ask, Purpose::Search(id), now));
                }
                Step::Tell(to) => {
                    let token = search.token(to);
                    let token =
                        heapless::Vec::<u8, TOKEN_BYTES_MAX>::from_slice(token).unwrap_or_default();
                    let Goal::Peers { announce: port } = search.goal else { continue };
                    let ask = Ask::AnnouncePeer { info_hash: target, port, token: &token };
                    return Ok(self.ask(to, &ask, Purpose::Announce(id), now));
                }
                Step::Wait(at) => wait = wait.or(Deadline { at, why: "DHT: a slow node" }),
                Step::Over => {
                    let (goal, found, told) = (search.goal, search.found, search.announced_to);
                    *place = None;
                    if goal == Goal::Neighbours {
                        self.joined = true;
                        continue;
                    }
                    self.counts.searches += 1;
                    return Ok(Next::Ended(id, target, found, told));
                }
            }
        }
        Err(wait)
    }

    /// Nodes of both families until we have joined, if both are ours; later our own.
    fn wanted_to_join(&self) -> Want {
        let both = self.settings.has_twin && !self.joined;
        if both { Want::BOTH } else { Want::only(self.settings.family) }
    }

    /// An introduction, a second try or a contact that is due.
    fn next_of_upkeep(&mut self, now: Instant) -> Result<Next, Deadline> {
        if self.in_flight.upkeep() >= UPKEEP_MAX {
            return Err(Deadline::NONE);
        }
        if let Some((to, keep)) = self.introductions.pop_front() {
            let ask = Ask::FindNode(*self.table.own(), self.wanted_to_join());
            return Ok(self.ask(to, &ask, Purpose::Introduction { keep }, now));
        }
        if let Some((to, heir)) = self.recheck.take() {
            return Ok(self.ask(to, &Ask::Ping, Purpose::Check { heir, again: true }, now));
        }
        if now >= self.upkeep_at {
            if let Some(contact) = self.table.take_due(now) {
                let wish = self.table.wish(&contact, self.chance.bytes());
                let want = Want::only(self.settings.family);
                let ask = wish.map_or(Ask::Ping, |target| Ask::FindNode(target, want));
                let purpose = Purpose::Check { heir: None, again: false };
                return Ok(self.ask(contact.endpoint, &ask, purpose, now));
            }
            self.upkeep_at = whole_minute(self.table.next_due().max(now.after(1)));
        }
        Err(Deadline { at: self.upkeep_at, why: "DHT: contacts to look after" })
    }

    fn ask(&mut self, to: Endpoint, ask: &Ask<'_>, purpose: Purpose, now: Instant) -> Next {
        let transaction = self.chance.number();
        self.datagram.clear();
        let (own, read_only) = (self.table.own(), self.settings.read_only);
        let bytes = transaction.to_be_bytes();
        let written = message::write_query(&mut self.datagram, bytes, own, read_only, ask);
        written.expect("the longest question is far shorter than an answer may be");
        let spent = self.queries.take(1, now);
        debug_assert!(spent, "whoever asks looks at the allowance first");
        self.counts.queries_out += 1;
        self.in_flight.push(Question { to, transaction, sent: now, purpose });
        Next::Send(to)
    }

    /// Starts the search for our neighbours when it is due.
    pub(super) fn join(&mut self, now: Instant) {
        if now >= self.join_at && self.joining.is_none() {
            let own = *self.table.own();
            self.joining = Some(self.begin(own, Goal::Neighbours, now));
            self.join_at = now.after(self.join_pause_ms);
            self.join_pause_ms = (2 * self.join_pause_ms).min(JOIN_MS_MAX);
        }
    }

    pub(super) fn begin(&mut self, target: NodeId, goal: Goal, now: Instant) -> Search {
        self.last_search = self.last_search.wrapping_add(1);
        let mut search = Search::new(SearchId(self.last_search), target, goal, now);
        let known = self.table.closest::<{ 2 * BUCKET_MAX }>(&target, Contact::has_answered);
        known.into_iter().for_each(|(id, endpoint)| search.note(id, endpoint, None));
        search
    }
}

/// What all our questions together may be.
pub(super) fn allowance() -> Allowance {
    Allowance::new(QUERIES_S, QUERIES_MOST)
}

/// Our questions a second, and at once: a search takes about fifty, and a small router keeps each
/// in mind for a minute.
pub const QUERIES_S: u32 = 20;
const QUERIES_MOST: u32 = 20;

/// Questions that a node wakes for when it has asked all it may.
const QUERIES_A_TURN: u32 = 15;

/// Questions about the table under way at a time.
const UPKEEP_MAX: usize = 8;

/// How soon our neighbours are looked for again, at first and in the long run: they come by
/// themselves too, once they know of us.
pub(super) const JOIN_MS_MIN: u64 = 60_000;
const JOIN_MS_MAX: u64 = 3_600_000;
