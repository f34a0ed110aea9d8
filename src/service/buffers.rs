//! Who has a lane's buffer next.
//!
//! A board has a few, and every connection whose bytes go through a lane needs one: to gather what
//! is written, or to have read what is sent. Who finds none stands in line and is rung when one
//! comes back. While somebody does, a fast peer whose buffer is with a lane gathers no second one,
//! and a buffer that holds little goes to its lane without waiting for more: so each comes round in
//! the time a lane takes for a few jobs.

use super::Service;
use super::lanes::Buffer;
use crate::engine::units::{Deadline, PeerSlot};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Connections that wait for a buffer, the first to be rung first; empty when there are some.
pub struct Line(RefCell<VecDeque<PeerSlot>>);

impl Line {
    /// Room for so many connections.
    pub fn new(links: usize) -> Line {
        Line(RefCell::new(VecDeque::with_capacity(links)))
    }

    /// Somebody waits.
    pub fn is_standing(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// It waits no longer: it has one, or wants none.
    pub fn leave(&self, slot: PeerSlot) {
        self.0.borrow_mut().retain(|waiting| *waiting != slot);
    }

    fn join(&self, slot: PeerSlot) {
        let mut line = self.0.borrow_mut();
        if !line.contains(&slot) {
            line.push_back(slot);
        }
    }
}

impl Service<'_> {
    /// A buffer. Who finds none stands in line: it is rung, or looks by itself, for those of
    /// connections that end with a read under way come back without a word.
    pub fn take_buffer(&self, slot: PeerSlot) -> Option<Buffer> {
        let Some(buffer) = self.lanes.take_buffer() else {
            self.line.join(slot);
            let due = Deadline { at: self.clock.now().after(PAUSE_MS), why: "a lane's buffer" };
            self.clock.ring_at(self.clock.slot(slot.index()), due);
            return None;
        };
        self.line.leave(slot);
        // There may be another.
        self.ring_first_in_line();
        Some(buffer)
    }

    /// A buffer to gather payload in. To one whose last `is_with_a_lane` it is a second: that it has
    /// only while nobody is without, and without standing in line, for that lane wakes it.
    pub fn take_buffer_to_gather(&self, slot: PeerSlot, is_with_a_lane: bool) -> Option<Buffer> {
        match is_with_a_lane {
            false => self.take_buffer(slot),
            true if self.line.is_standing() => None,
            true => self.lanes.take_buffer(),
        }
    }

    /// Gives a buffer back.
    pub fn give_back(&self, buffer: Buffer) {
        self.lanes.give_back(buffer);
        self.ring_first_in_line();
    }

    fn ring_first_in_line(&self) {
        if let Some(slot) = self.line.0.borrow().front() {
            self.clock.ring(slot.index());
        }
    }
}

/// Who waits for a buffer looks by itself after this.
const PAUSE_MS: u64 = 100;
