//! Entries of a folder that could not be shared or fetched: each is tried again every hour, all of
//! them at once, and what was wrong is said when it is another thing than the last time.

use crate::engine::units::{Deadline, Instant};
use crate::service::watch::Identity;
use std::string::{String, ToString};
use std::vec::Vec;

/// See the module.
#[derive(Default)]
pub struct Failures {
    all: Vec<Failed>,
    /// When they are next tried.
    due: Option<Instant>,
}

struct Failed {
    name: String,
    identity: Identity,
    /// What was wrong.
    said: String,
}

impl Failures {
    /// An entry has been taken up, or what was `wrong` with it; whether that is news.
    ///
    /// # When full
    /// It is tried when it changes, or when the configuration is read again.
    pub fn note(
        &mut self,
        name: String,
        identity: Identity,
        wrong: Option<&str>,
        now: Instant,
    ) -> bool {
        let before = self.all.iter().position(|one| one.name == name);
        let before = before.map(|at| self.all.swap_remove(at).said);
        let Some(wrong) = wrong else { return false };
        if self.all.len() < FAILED_MAX {
            self.all.push(Failed { name, identity, said: wrong.to_string() });
            self.due = self.due.or(Some(now.after(RETRY_MS)));
        }
        before.as_deref() != Some(wrong)
    }

    /// Those of these names are gone.
    pub fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.all.retain(|one| !is_gone(&one.name));
    }

    /// When there is something to try.
    pub fn deadline(&self) -> Deadline {
        let at = self.due.filter(|_| !self.all.is_empty()).unwrap_or(Instant::NEVER);
        Deadline { at, why: "what could not be shared" }
    }

    /// What is to be tried now; each is [noted](Failures::note) again.
    pub fn take_due(&mut self, now: Instant) -> Vec<(String, Identity)> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = None;
        self.all.iter().map(|one| (one.name.clone(), one.identity)).collect()
    }
}

/// Entries of a folder that are tried again.
const FAILED_MAX: usize = 16;

/// Before they are.
const RETRY_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_each_hour_and_said_once() {
        let (mut failures, now) = (Failures::default(), Instant::from_millis(1_000));
        let identity = Identity { inode: 1, stamp: 2 };
        assert!(failures.note("a".into(), identity, Some("is full"), now));
        assert!(failures.note("b".into(), identity, Some("is full"), now.after(60_000)));
        assert!(!failures.note("c".into(), identity, None, now), "nothing is wrong with it");
        // One deadline for all of them, an hour after the first.
        assert_eq!(failures.deadline().at, now.after(RETRY_MS));
        assert!(failures.take_due(now.after(RETRY_MS - 1)).is_empty());
        let later = now.after(RETRY_MS);
        assert_eq!(failures.take_due(later), [("a".into(), identity), ("b".into(), identity)]);
        assert!(!failures.note("a".into(), identity, Some("is full"), later), "it has been said");
        assert!(!failures.note("b".into(), identity, None, later));
        assert_eq!(failures.deadline().at, later.after(RETRY_MS));
        assert!(failures.note("a".into(), identity, Some("is closed"), later), "that is news");
        failures.forget(|name| name == "a");
        assert_eq!(failures.deadline().at, Instant::NEVER);
        assert!(failures.take_due(later.after(RETRY_MS)).is_empty());
    }

    #[test]
    fn beyond_what_is_remembered_nothing_is_kept() {
        let mut failures = Failures::default();
        for number in 0..2 * FAILED_MAX {
            let name = std::format!("{number}");
            let identity = Identity::default();
            assert!(failures.note(name, identity, Some("is full"), Instant::default()));
        }
        let due = failures.take_due(Instant::from_millis(RETRY_MS));
        assert_eq!(due.len(), FAILED_MAX);
    }
}
