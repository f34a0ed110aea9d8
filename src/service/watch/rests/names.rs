//! The folder's names: which are new, which are missing, and whether those are the same.
//!
//! Names are read twice. The first, full reading makes everything stale and finds what is missing;
//! the second gives each stale entry its place, to be looked at. What is new is *fresh* until it was
//! looked at: it may be what is missing, under another name. Only when nothing is fresh, and the
//! kernel was heard since, is what is still missing gone.

use super::super::Change;
use super::super::parted::PART_MS;
use super::super::places::{LONG_REST_MS, REST_MS, Touch};
use super::super::table::{Entry, Identity, Key, NONE, Standing};
use super::Rests;
use crate::engine::units::Instant;

impl Rests {
    /// Wants the folder's names read; `full` to have every entry looked at.
    pub fn want(&mut self, full: bool, at: Instant) {
        let (wanted_at, wanted_full) = self.wanted.unwrap_or((at, false));
        self.wanted = Some((at.min(wanted_at), full || wanted_full));
    }

    /// Whether names are to be read now. Then all of them follow, one by one.
    pub fn begin_reading(&mut self, now: Instant) -> bool {
        let may_be_full = self.missing_from.is_none();
        let poll = may_be_full && self.poll_at.is_some_and(|at| at <= now);
        let wanted = self.wanted.filter(|(at, _)| *at <= now);
        if self.reading.is_some() || !poll && wanted.is_none() {
            return false;
        }
        let wants_full = wanted.is_some_and(|(_, full)| full);
        let full = poll || may_be_full && wants_full;
        // What is missing has to be known before more can be.
        self.wanted = (wants_full && !full).then_some((now.after(REST_MS), true));
        if full {
            self.full_since = now;
            self.poll_at = self.poll_at.map(|_| Instant::NEVER);
        }
        self.refused = 0;
        self.table.records_mut().for_each(|record| record.named = false);
        self.reading = Some(full);
        true
    }

    /// A name in the folder. Says whether it was taken; if not, there was no place free for it, and
    /// it must be said again.
    pub fn handle_name(&mut self, name: &str, now: Instant) -> bool {
        let Some(full) = self.reading else { return true };
        let key = Key::of(&self.folder, name);
        let entry = match self.table.find(key) {
            Some(entry) => {
                self.note_there(entry);
                entry
            }
            None => {
                let Some(entry) = self.admit(key, name) else { return true };
                self.make_fresh(entry);
                self.make_stale(entry);
                entry
            }
        };
        let record = &self.table[entry];
        if record.place != NONE {
            self.places.name(record.place, name);
            self.places.queue(record.place, record.stirred.after(REST_MS));
        } else if full {
            self.make_stale(entry);
        } else if record.stale && !record.open {
            if !self.places.has_room() {
                return false;
            }
            match record.vague {
                true => self.observe(entry, name, now),
                false => self.stir(entry, name, Touch::Stirred, record.stirred),
            }
        }
        true
    }

    /// All names have been read; `false` when not all could be.
    pub fn end_reading(&mut self, all: bool, now: Instant) {
        let Some(full) = self.reading.take() else { return };
        if !all {
            return self.want(full, now.after(LONG_REST_MS));
        }
        self.full_said &= self.refused > 0;
        if !full {
            if let Some(poll_at) = self.poll_at.as_mut().filter(|at| **at == Instant::NEVER) {
                // What takes long is done less often: one part in twenty at most.
                let pause_ms = now.since(self.full_since).saturating_mul(20).min(POLL_MS_MAX);
                *poll_at = now.after(pause_ms.max(self.limits.poll_ms));
            }
            return self.lose_unnamed(now);
        }
        self.want(false, now);
        for record in self.table.records_mut() {
            if record.standing == Standing::Here && !record.named {
                record.standing = Standing::Missing;
                self.fresh -= u32::from(std::mem::take(&mut record.fresh));
                (self.missing_from, self.gone_at) = (Some(0), now.after(PART_MS));
            }
        }
    }

    /// Loses those that were waiting for their names to come up.
    fn lose_unnamed(&mut self, now: Instant) {
        let mut next = self.table.next(0);
        while let Some((entry, from)) = next {
            let record = &self.table[entry];
            let waits = match record.place {
                NONE => record.fresh,
                at => self.places[at].name.is_empty(),
            };
            if waits && !record.named && record.standing == Standing::Here {
                self.lose(entry, now);
            }
            next = self.table.next(from);
        }
    }

    /// One that is new may be one that is missing: then it keeps its identity.
    pub(super) fn adopt(&mut self, entry: Entry, identity: Identity) -> bool {
        let Some(missing) = self.table.find_missing(identity) else { return false };
        let from = self.table[missing].key;
        if self.table[missing].place != NONE {
            self.places.release(self.table[missing].place);
        }
        self.table.remove(missing);
        self.table.tell(entry, identity);
        let to = self.places[self.table[entry].place].name.clone();
        self.changes.push_back(Change::Renamed { from, to, identity });
        self.settle(entry);
        true
    }

    /// Its name is new, and it may be one that is missing.
    pub(super) fn make_fresh(&mut self, entry: Entry) {
        self.table[entry].fresh = true;
        self.fresh += 1;
    }

    /// Somebody has looked at it, or it is gone; says whether it was fresh.
    pub(super) fn note_looked(&mut self, entry: Entry) -> bool {
        let was_fresh = std::mem::take(&mut self.table[entry].fresh);
        self.fresh -= u32::from(was_fresh);
        was_fresh
    }

    /// What may have been the one that is missing has left its name again. The kernel tells of the
    /// next one; where it does not, names are read once more.
    pub(super) fn seek_on(&mut self, now: Instant) {
        self.gone_at = now.after(PART_MS);
        if self.poll_at.is_some() {
            self.missing_from = None;
            let records = self.table.records_mut();
            records
                .filter(|record| record.standing == Standing::Missing)
                .for_each(|record| record.standing = Standing::Here);
            self.want(true, now.after(REST_MS));
        }
    }

    /// Says what is gone, as far as there is room for it.
    pub(super) fn tell_missing(&mut self, now: Instant) {
        self.lose_parted(now, now);
        if now < self.gone_at {
            return;
        }
        while let Some(from) = self.missing_from.filter(|_| self.fresh == 0 && self.has_room()) {
            let next = self.table.next(from);
            self.missing_from = next.map(|(_, from)| from);
            if let Some((entry, _)) = next
                && self.table[entry].standing == Standing::Missing
            {
                self.lose(entry, now);
            }
        }
    }
}

/// The longest pause between two looks at a folder that does not tell.
const POLL_MS_MAX: u64 = 600_000;
