//! Datagrams coming in: whose they are, and what an answer to a question of ours changes.

use super::ask::JOIN_MS_MIN;
use super::endpoint::Endpoint;
use super::id::NodeId;
use super::inflight::{Purpose, Question};
use super::message::{self, Answer, Message};
use super::table::{BUCKET_MAX, Offer};
use super::{ABSENT_MS, Dht, VOICES_AGREED, whole_minute};
use crate::engine::announce::Family;
use crate::engine::units::Instant;
use core::net::SocketAddr;

impl Dht<'_> {
    /// Takes a datagram. `twin` is our node of the other family, whose nodes may be asked for.
    ///
    /// # Work
    /// A few passes over the datagram and the tables.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
        twin: Option<&Dht<'_>>,
    ) {
        let from = Endpoint::of(from);
        let family = self.settings.family;
        if from.family() != family || from.address().port() == 0 {
            self.counts.dropped += 1;
            return;
        }
        match message::parse(bytes, family) {
            Some(Message::Query(query)) => self.handle_query(&query, from, bytes.len(), now, twin),
            Some(Message::Unfit(transaction, fault)) => {
                self.counts.queries_in += 1;
                self.refuse(transaction, fault, from, bytes.len(), now);
            }
            Some(Message::Answer(answer)) => match self.in_flight.take(from, answer.transaction) {
                Some(question) => self.handle_answer(question, &answer, now),
                None => self.counts.dropped += 1,
            },
            Some(Message::Refusal(transaction)) => match self.in_flight.take(from, transaction) {
                Some(question) => {
                    self.heard_at = now;
                    self.handle_silence(question, now);
                }
                None => self.counts.dropped += 1,
            },
            None => self.counts.dropped += 1,
        }
    }

    fn handle_answer(&mut self, question: Question, answer: &Answer<'_>, now: Instant) {
        self.counts.answers_in += 1;
        self.heard_at = now;
        self.hear_voice(question.to, answer.seen_at, now);
        match question.purpose {
            Purpose::Introduction { keep } => {
                if keep {
                    self.keep(answer.id, question.to, now);
                }
                self.hear_of_all(answer, now);
            }
            Purpose::Check { heir, .. } => {
                self.keep(answer.id, question.to, now);
                self.hear_of_all(answer, now);
                // It is still there: the next questionable one of its bucket is asked, if any.
                if let Some((id, endpoint)) = heir {
                    self.keep(id, endpoint, now);
                }
            }
            Purpose::Search(search) => {
                self.keep(answer.id, question.to, now);
                self.hand_to_search(search, question.to, answer, now);
            }
            Purpose::Announce(search) => {
                self.keep(answer.id, question.to, now);
                if let Some(search) = self.search_of(search) {
                    search.handle_answer(answer.id, question.to, None);
                }
            }
        }
    }

    /// A node has answered us: it is worth a place in the table.
    fn keep(&mut self, id: NodeId, endpoint: Endpoint, now: Instant) {
        let first = !self.table.contacts().any(|contact| contact.has_answered());
        match self.table.handle_answer(id, endpoint, now) {
            Offer::Ask(questionable) if !self.in_flight.is_checking(questionable) => {
                self.recheck.get_or_insert((questionable, Some((id, endpoint))));
            }
            Offer::Admitted => self.plan_upkeep(),
            _ => {}
        }
        if first {
            self.join_at = self.join_at.min(now);
        }
    }

    /// Nodes we were told of may come in on trial.
    fn hear_of_all(&mut self, answer: &Answer<'_>, now: Instant) {
        for (id, endpoint) in answer.nodes(self.settings.family).take(BUCKET_MAX) {
            self.hear_of(id, endpoint, now);
        }
        self.tell_twin(answer);
    }

    /// A node we were told of; whether it comes in.
    pub(super) fn hear_of(&mut self, id: NodeId, endpoint: Endpoint, now: Instant) -> bool {
        let is_absent =
            |(absent, at): &(Endpoint, Instant)| *absent == endpoint && now.since(*at) < ABSENT_MS;
        if !self.admits(endpoint) || self.absent.iter().any(is_absent) {
            return false;
        }
        let admitted = self.table.handle_rumour(id, endpoint, now) == Offer::Admitted;
        if admitted {
            self.upkeep_at = self.upkeep_at.min(now);
        }
        admitted
    }

    fn tell_twin(&mut self, answer: &Answer<'_>) {
        if !self.settings.has_twin || self.joined {
            return;
        }
        let other = match self.settings.family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let allow_private = self.settings.allow_private;
        let named = answer.nodes(other).map(|(_, endpoint)| endpoint);
        for node in named.filter(|node| node.may_be_followed(allow_private)) {
            // Full: as many as one answer should hold.
            let _ = self.neighbours.push(node);
        }
    }

    fn hand_to_search(
        &mut self,
        id: super::SearchId,
        from: Endpoint,
        answer: &Answer<'_>,
        now: Instant,
    ) {
        let (family, allow_private) = (self.settings.family, self.settings.allow_private);
        let own = *self.table.own();
        let Some(search) = self.search_of(id) else { return };
        search.handle_answer(answer.id, from, answer.token);
        for (id, endpoint) in answer.nodes(family).take(BUCKET_MAX) {
            if id != own && endpoint.may_be_followed(allow_private) {
                search.note(id, endpoint, Some(from));
            }
        }
        let is_joining = search.goal == super::search::Goal::Neighbours;
        let target = search.target;
        if is_joining {
            self.hear_of_all(answer, now);
            return;
        }
        let mut found = 0;
        let usable =
            |peer: &Endpoint| peer.family() == family && peer.may_be_followed(allow_private);
        self.found_for = target;
        for peer in answer.peers().filter(usable) {
            if self.found.push(peer).is_err() {
                break;
            }
            found += 1;
        }
        if let Some(search) = self.search_of(id) {
            search.found = search.found.saturating_add(found);
        }
    }

    /// A question of ours was not answered, or refused.
    pub(super) fn handle_silence(&mut self, question: Question, now: Instant) {
        // Nobody at all has been heard of since: it is our own line that is silent.
        let is_ours = self.heard_at < question.sent;
        if is_ours {
            self.table.put_off(now);
        } else {
            self.table.handle_silence(question.to, now);
            if question.purpose.is_upkeep() && self.table.at(question.to).is_none() {
                if self.absent.is_full() {
                    self.absent.pop_front();
                }
                // There is room: it was made.
                let _ = self.absent.push_back((question.to, now));
            }
        }
        self.plan_upkeep();
        match question.purpose {
            Purpose::Check { heir: Some(heir), again: false } if !is_ours => {
                self.recheck.get_or_insert((question.to, Some(heir)));
            }
            Purpose::Check { heir: Some((id, endpoint)), again: true } if !is_ours => {
                self.keep(id, endpoint, now);
            }
            Purpose::Search(search) | Purpose::Announce(search) => {
                if let Some(search) = self.search_of(search) {
                    search.handle_silence(question.to);
                }
            }
            _ => {}
        }
    }

    /// What is due is done on whole minutes.
    fn plan_upkeep(&mut self) {
        self.upkeep_at = self.upkeep_at.min(whole_minute(self.table.next_due()));
    }

    /// A node says where it sees us. When most of the last few agree and our name does not suit
    /// that address, we take one that does (BEP 42, *Bootstrapping*).
    fn hear_voice(&mut self, voice: Endpoint, seen_at: Option<Endpoint>, now: Instant) {
        let Some(seen_at) = seen_at.filter(|seen_at| !seen_at.is_private()) else { return };
        if seen_at.family() != self.settings.family {
            return;
        }
        let crowd = voice.crowd();
        if self.voices.iter().any(|(known, _)| *known == crowd) {
            return;
        }
        if self.voices.is_full() {
            self.voices.pop_front();
        }
        // There is room: it was made.
        let _ = self.voices.push_back((crowd, seen_at.ip()));
        let agreed = self.voices.iter().filter(|(_, ip)| *ip == seen_at.ip()).count();
        if agreed >= VOICES_AGREED && !self.table.own().suits(seen_at.ip()) {
            let chance = self.chance.bytes();
            self.table.rename(NodeId::for_address(seen_at.ip(), chance));
            self.voices.clear();
            self.joining = None;
            (self.join_at, self.join_pause_ms) = (now, JOIN_MS_MIN);
        }
    }
}
