//! Questions of ours that nobody has answered yet.
//!
//! An answer counts when it repeats the number we drew and comes from the address we asked:
//! whoever is not on the way between cannot know the number.
//!
//! # When full
//! Nothing is asked until one is answered or given up, four seconds later at the latest.

use super::endpoint::Endpoint;
use super::id::NodeId;
use super::search::SearchId;
use crate::engine::units::Instant;

/// A question under way.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Whom we asked.
    pub to: Endpoint,
    /// What it must repeat.
    pub transaction: u32,
    /// When.
    pub sent: Instant,
    /// Why.
    pub purpose: Purpose,
}

/// Why a node was asked, and who waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a contact is still there; if it is not, `heir` has its place.
    Check {
        /// A node that answered us and found its bucket full.
        heir: Option<(NodeId, Endpoint)>,
        /// The contact was silent a moment ago: this is the second try (BEP 5).
        again: bool,
    },
    /// Somebody named it: whether it is a node, and who its neighbours are.
    Introduction {
        /// It may stay in the table; a public entry to the network may not (BEP 5).
        keep: bool,
    },
    /// Part of a search.
    Search(SearchId),
    /// The last part of one.
    Announce(SearchId),
}

impl Purpose {
    /// It is for the table, not for a search.
    pub fn is_upkeep(&self) -> bool {
        matches!(self, Purpose::Check { .. } | Purpose::Introduction { .. })
    }
}

/// All of them.
#[derive(Default)]
pub struct InFlight(heapless::Vec<Question, IN_FLIGHT_MAX>);

impl InFlight {
    /// Whether another may be asked.
    pub fn has_room(&self) -> bool {
        !self.0.is_full()
    }

    /// Questions about the table.
    pub fn upkeep(&self) -> usize {
        self.0.iter().filter(|question| question.purpose.is_upkeep()).count()
    }

    /// Whether a question about the table is on its way to that node.
    pub fn is_checking(&self, endpoint: Endpoint) -> bool {
        self.0.iter().any(|question| question.to == endpoint && question.purpose.is_upkeep())
    }

    /// Takes note of a question; [`has_room`](Self::has_room) was asked before.
    pub fn push(&mut self, question: Question) {
        let pushed = self.0.push(question);
        assert!(pushed.is_ok(), "whoever asks looks for room first");
    }

    /// The question that is answered by `transaction` from there.
    pub fn take(&mut self, from: Endpoint, transaction: &[u8]) -> Option<Question> {
        let transaction = u32::from_be_bytes(transaction.try_into().ok()?);
        let answered =
            |question: &Question| question.transaction == transaction && question.to == from;
        let place = self.0.iter().position(answered)?;
        Some(self.0.swap_remove(place))
    }

    /// A question that nobody answered in time.
    pub fn take_silent(&mut self, now: Instant) -> Option<Question> {
        let late = |question: &Question| now >= question.sent.after(ANSWER_MS_MAX);
        let place = self.0.iter().position(late)?;
        Some(self.0.swap_remove(place))
    }

    /// When [`take_silent`](Self::take_silent) has the next.
    pub fn next_silent(&self) -> Instant {
        let first = self.0.iter().map(|question| question.sent).min();
        first.map_or(Instant::NEVER, |sent| sent.after(ANSWER_MS_MAX))
    }
}

/// Questions under way at a time: three and a few slow ones for each search, and the table's.
const IN_FLIGHT_MAX: usize = 64;

/// How long an answer is waited for.
pub const ANSWER_MS_MAX: u64 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_from_whom_was_asked_and_with_the_number_drawn() {
        let [here, there] =
            ["192.0.2.1:1", "192.0.2.2:1"].map(|text| Endpoint::of(text.parse().unwrap()));
        let purpose = Purpose::Introduction { keep: true };
        let sent = Instant::from_millis(5);
        let mut in_flight = InFlight::default();
        in_flight.push(Question { to: here, transaction: 7, sent, purpose });
        assert!(in_flight.take(there, &[0, 0, 0, 7]).is_none());
        assert!(in_flight.take(here, &[0, 0, 0, 8]).is_none());
        assert!(in_flight.take(here, &[0, 0, 7]).is_none());
        assert!(in_flight.take_silent(sent.after(ANSWER_MS_MAX - 1)).is_none());
        assert_eq!(in_flight.next_silent(), sent.after(ANSWER_MS_MAX));
        assert!(in_flight.take(here, &[0, 0, 0, 7]).is_some());
        assert!(in_flight.take(here, &[0, 0, 0, 7]).is_none());
    }
}
