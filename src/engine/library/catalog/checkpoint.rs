//! How changes come into the slots, and how slots and look-up are brought in order.
//!
//! ```text
//! overlay -> staging, sync -> slots, sync -> look-up, sync -> (journal begins anew) -> nothing staged
//! ```
//!
//! Each step can be done again from the one before: whatever fails or is cut, what is staged lands
//! in the slots before anything else is recorded or staged.

use super::super::lookup::{Key, LookupError};
use super::super::shelf::{Shelf, ShelfError, Which};
use super::super::slots::{self, Header, Inspection, PAGE_BYTES, PAGE_SLOTS, SLOT_BYTES, Slot};
use super::super::staging::Staged;
use super::core::Core;
use super::overlay::Change;
use super::{Damaged, hopeless};

/// What was found on the shelves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Pages of a checkpoint that was cut short: they are in their places now.
    pub landed_pages: u32,
    /// The slots' header was damaged, and made anew from them.
    pub is_header_lost: bool,
    /// The look-up was filled again.
    pub is_refilled: bool,
    /// Slots that were damaged.
    pub damaged_slots: u32,
}

/// What a reading of all slots has found.
#[derive(Clone, Copy, Debug, Default)]
struct Survey {
    torrents: u32,
    free: u32,
    damaged: u32,
    /// Slots up to the last that is not all zeros.
    used: u32,
}

impl<S: Shelf> Core<'_, S> {
    /// Brings the shelves in order.
    ///
    /// # Work
    /// Reads three headers; more when a power cut or damage makes it necessary.
    pub fn start(
        &mut self,
        visit: &mut impl FnMut(Damaged<'_>),
    ) -> Result<Start, ShelfError<S::Error>> {
        let mut start = Start::default();
        let mut found = self.slots.inspect()?;
        let staged = self.staging.inspect(self.room)?;
        if let Some(staged) = staged.filter(|staged| belongs(staged, &found)) {
            self.staging.land(staged, &mut self.slots, self.room)?;
            self.staging.dismiss()?;
            found = self.slots.inspect()?;
            start.landed_pages = staged.count;
        }
        let room = self.slots.room()?;
        match found {
            Inspection::Nothing => {}
            Inspection::Header(header) if header.fits(room) => self.header = header,
            // A header that speaks of what is not there is as good as none.
            Inspection::Header(_) | Inspection::Garbage => {
                start.is_header_lost = true;
                self.header.used = room;
            }
        }
        (self.unused, self.free) = (self.header.used, self.header.free);
        self.lookup.resize(self.lookup_max());
        self.is_sound = !start.is_header_lost && self.lookup.is_of(self.header.generation)?;
        if !self.is_sound {
            start.is_refilled = self.header.used > 0;
            let survey = self.refill()?;
            if start.is_header_lost {
                self.salvage(&survey)?;
            }
            if start.is_header_lost || survey.damaged > 0 {
                start.damaged_slots = self.mend(visit)?;
            }
        }
        Ok(start)
    }

    /// Brings all changes into the slots, and writes there that `log` is the first of the journal's
    /// logs of which they do not hold everything.
    pub fn checkpoint(&mut self, log: u64) -> Result<(), ShelfError<S::Error>> {
        self.settle()?;
        self.stage(log)?;
        self.settle()
    }

    /// Brings what is staged to its end.
    pub fn settle(&mut self) -> Result<(), ShelfError<S::Error>> {
        let Some(staged) = self.staged else { return Ok(()) };
        self.walked = (0, 0);
        self.staging.land(staged, &mut self.slots, self.room)?;
        if self.is_sound {
            // What has failed half-way is not known to be durable whatever a later sync says.
            self.is_sound = self.index().is_ok();
        }
        if !self.is_sound {
            self.refill()?;
        }
        self.overlay.clear();
        self.staged = None;
        Ok(())
    }

    /// Makes sure that the look-up can be asked.
    pub fn vouch(&mut self) -> Result<(), ShelfError<S::Error>> {
        if !self.is_sound {
            self.settle()?;
        }
        if !self.is_sound {
            self.refill()?;
        }
        Ok(())
    }

    /// Frees slots that are damaged and links all free ones anew, in the order of their pages. There
    /// are no changes.
    pub fn mend(
        &mut self,
        visit: &mut impl FnMut(Damaged<'_>),
    ) -> Result<u32, ShelfError<S::Error>> {
        let (mut damaged, mut live, mut free) = (0, 0, None);
        self.walked = (0, 0);
        self.staging.begin();
        for page in 1..=Self::pages(self.header.used) {
            let first = (page - 1) * PAGE_SLOTS;
            let mut is_changed = false;
            self.slots.read_pages(page, &mut self.room[..PAGE_BYTES])?;
            for slot in first..first.saturating_add(PAGE_SLOTS).min(self.header.used) {
                let bytes = slots::slot_in(self.room, slot);
                match Slot::parse(slot, &bytes) {
                    Some(Slot::Torrent(_)) => {
                        live += 1;
                        continue;
                    }
                    Some(Slot::Free { .. }) => {}
                    None => {
                        damaged += 1;
                        visit(Damaged { slot, bytes: &bytes });
                    }
                }
                let freed = Slot::Free { next: free }.write(slot);
                is_changed |= freed != bytes;
                self.room[slots::place_of(slot)].copy_from_slice(&freed);
                free = Some(slot);
            }
            if is_changed {
                self.staging.put(page, &self.room[..PAGE_BYTES])?;
            }
        }
        let generation = self.header.generation.wrapping_add(1);
        self.seal(Header { generation, live, free, ..self.header })?;
        self.settle()?;
        self.staging.dismiss()?;
        self.is_damaged = false;
        Ok(damaged)
    }

    /// Takes what a reading of all slots has found for what the header said.
    fn salvage(&mut self, survey: &Survey) -> Result<(), ShelfError<S::Error>> {
        if survey.torrents + survey.free == 0 {
            return Err(ShelfError::NotOurs { shelf: Which::Slots });
        }
        // Log 0: what the journal holds is applied again, should it be in the slots already.
        self.header.used = survey.used;
        self.unused = survey.used;
        Ok(())
    }

    /// Fills the look-up again.
    ///
    /// # Work
    /// Reads all slots once, from the first to the last, and writes two cells for each torrent.
    fn refill(&mut self) -> Result<Survey, ShelfError<S::Error>> {
        self.is_sound = false;
        self.walked = (0, 0);
        self.lookup.clear(self.lookup_max())?;
        let mut survey = Survey::default();
        for slot in 0..self.header.used {
            let bytes = self.walk_to(slot)?;
            match Slot::parse(slot, &bytes) {
                Some(Slot::Torrent(entry)) => {
                    survey.torrents += 1;
                    for key in [Key::Name(entry.info_hash), Key::Root(entry.root_key)] {
                        self.lookup.insert(key, slot).map_err(hopeless)?;
                    }
                }
                Some(Slot::Free { .. }) => survey.free += 1,
                None => survey.damaged += 1,
            }
            if bytes != [0; SLOT_BYTES] {
                survey.used = slot + 1;
            }
        }
        self.lookup.vouch(self.header.generation, true)?;
        self.is_sound = true;
        self.is_damaged |= survey.damaged > 0;
        Ok(survey)
    }

    /// Stages the pages that the changes concern.
    fn stage(&mut self, log: u64) -> Result<(), ShelfError<S::Error>> {
        let (live, mut free) = (self.count(), self.free);
        self.walked = (0, 0);
        self.overlay.sort();
        self.staging.begin();
        let mut changes = self.overlay.changes().peekable();
        while let Some(page) = changes.peek().map(|change| slots::page_of(change.slot)) {
            let room = &mut self.room[..PAGE_BYTES];
            self.slots.read_pages(page, room)?;
            while let Some(change) = changes.next_if(|c| slots::page_of(c.slot) == page) {
                let slot = match change.is_gone {
                    true => Slot::Free { next: free.replace(change.slot) },
                    false => Slot::Torrent(change.entry),
                };
                room[slots::place_of(change.slot)].copy_from_slice(&slot.write(change.slot));
            }
            self.staging.put(page, room)?;
        }
        drop(changes);
        let (generation, used) = (self.header.generation.wrapping_add(1), self.unused);
        self.seal(Header { generation, log, used, live, free })
    }

    /// Puts the header in front of what was staged, and makes it durable.
    fn seal(&mut self, header: Header) -> Result<(), ShelfError<S::Error>> {
        let page = &mut self.room[..PAGE_BYTES];
        header.write(page);
        self.staging.put(0, page)?;
        // From here on it may be found whole, and with it a newer beginning of the journal.
        self.is_doubtful = true;
        self.staged = Some(self.staging.seal(header.generation)?);
        self.is_doubtful = false;
        self.header = header;
        (self.unused, self.free) = (header.used, header.free);
        Ok(())
    }

    /// Tells the look-up of the changes.
    fn index(&mut self) -> Result<(), LookupError<S::Error>> {
        let mut is_changed = false;
        for change in self.overlay.changes() {
            let (slot, name) = (change.slot, Key::Name(change.entry.info_hash));
            let Change { rested_under: before, is_gone, entry, .. } = *change;
            let after = (!is_gone).then_some(entry.root_key);
            if before == after {
                continue;
            }
            is_changed = true;
            if let Some(root_key) = before {
                self.lookup.remove(Key::Root(root_key), slot)?;
            }
            if let Some(root_key) = after {
                self.lookup.insert(Key::Root(root_key), slot)?;
            }
            match (before, after) {
                (None, _) => self.lookup.insert(name, slot)?,
                (_, None) => self.lookup.remove(name, slot)?,
                _ => {}
            }
        }
        Ok(self.lookup.vouch(self.header.generation, is_changed)?)
    }

    /// Torrents the look-up has to have room for.
    fn lookup_max(&self) -> u32 {
        self.torrents_max.max(self.header.used)
    }
}

/// Whether a whole staging is of these slots: not of others, that have been put in their place.
fn belongs(staged: &Staged, found: &Inspection) -> bool {
    match found {
        Inspection::Nothing => staged.generation == 1,
        Inspection::Header(header) => staged.generation.wrapping_sub(header.generation) <= 1,
        Inspection::Garbage => true,
    }
}
