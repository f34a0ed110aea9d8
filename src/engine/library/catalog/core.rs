//! The library without its journal: what is asked and changed here, [`checkpoint`](super::checkpoint)
//! brings to the shelves.

use super::super::lookup::{Key, Lookup, LookupError};
use super::super::shelf::{Shelf, ShelfError, Shelves};
use super::super::slots::{self, Header, PAGE_BYTES, PAGE_SLOTS, Slot, Slots};
use super::super::staging::{Staged, Staging};
use super::super::{Entry, Record};
use super::overlay::{Change, Overlay};
use crate::engine::units::InfoHash;

/// Shelves and overlay.
pub(super) struct Core<'m, S> {
    pub slots: Slots<S>,
    pub staging: Staging<S>,
    pub lookup: Lookup<S>,
    pub overlay: Overlay<'m>,
    /// A page at least.
    pub room: &'m mut [u8],
    /// The first page of the slots that lies in `room`, and how many do: for a walk.
    pub walked: (u32, u32),
    /// What the slots say of themselves, or will once what is staged has landed.
    pub header: Header,
    /// The first slot that was never given out, and the first that is free: the overlay's are.
    pub unused: u32,
    pub free: Option<u32>,
    /// A staging that is durable. Until it has landed nothing else may be staged or recorded: it may
    /// be the only whole copy of what it holds.
    pub staged: Option<Staged>,
    /// A staging may be durable although that failed: nothing may be recorded before another is.
    pub is_doubtful: bool,
    /// The look-up tells of these slots.
    pub is_sound: bool,
    /// A damaged slot was met.
    pub is_damaged: bool,
    /// The look-up has room for as many torrents, or for all slots if they are more.
    pub torrents_max: u32,
}

impl<'m, S: Shelf> Core<'m, S> {
    /// Nothing but the shelves: they are looked at by [`Core::start`](super::checkpoint).
    pub fn new(
        shelves: Shelves<S>,
        overlay: &'m mut [Option<Change>],
        room: &'m mut [u8],
        torrents_max: u32,
    ) -> Core<'m, S> {
        let whole_pages = room.len() / PAGE_BYTES * PAGE_BYTES;
        // A slot may be given away only after a checkpoint, so these may all be in use and gone.
        let torrents_max = torrents_max.saturating_add(overlay.len() as u32);
        Core {
            slots: Slots::new(shelves.slots),
            staging: Staging::new(shelves.staging),
            lookup: Lookup::new(shelves.lookup, torrents_max),
            overlay: Overlay::new(overlay),
            room: &mut room[..whole_pages],
            walked: (0, 0),
            header: Header::default(),
            unused: 0,
            free: None,
            staged: None,
            is_doubtful: false,
            is_sound: false,
            is_damaged: false,
            torrents_max,
        }
    }

    /// How many torrents there are.
    pub fn count(&self) -> u32 {
        if self.staged.is_some() {
            return self.header.live;
        }
        let come = self.overlay.changes().filter(|c| !c.is_gone && c.rested_under.is_none());
        let gone = self.overlay.changes().filter(|c| c.is_gone && c.rested_under.is_some());
        (self.header.live + come.count() as u32).saturating_sub(gone.count() as u32)
    }

    /// The torrent of that name.
    pub fn get(&mut self, info_hash: &InfoHash) -> Result<Option<Entry>, ShelfError<S::Error>> {
        if let Some(change) = self.overlay.find(info_hash) {
            return Ok((!change.is_gone).then_some(change.entry));
        }
        Ok(self.resting(info_hash)?.map(|(_, entry)| entry))
    }

    /// The torrent of that name in the slots, and in which.
    fn resting(
        &mut self,
        info_hash: &InfoHash,
    ) -> Result<Option<(u32, Entry)>, ShelfError<S::Error>> {
        let mut found = None;
        self.candidates(Key::Name(*info_hash), &mut |slot, entry| {
            if entry.info_hash == *info_hash {
                found = Some((slot, *entry));
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Visits the torrents whose content lies there.
    pub fn under(
        &mut self,
        root_key: u64,
        visit: &mut impl FnMut(&Entry),
    ) -> Result<(), ShelfError<S::Error>> {
        // A look-up that turns out to be damaged half-way must not show anything twice.
        self.candidates(Key::Root(root_key), &mut |_, _| true)?;
        self.candidates(Key::Root(root_key), &mut |_, entry| {
            if entry.root_key == root_key {
                visit(entry);
            }
            true
        })?;
        let changes = self.overlay.changes().filter(|change| !change.is_gone);
        let there = changes.filter(|change| change.entry.root_key == root_key);
        there.for_each(|change| visit(&change.entry));
        Ok(())
    }

    /// Visits torrents in the slots, and in no change, that may be of that key, until it has
    /// enough.
    fn candidates(
        &mut self,
        key: Key,
        visit: &mut impl FnMut(u32, &Entry) -> bool,
    ) -> Result<(), ShelfError<S::Error>> {
        self.vouch()?;
        match self.search(key, visit) {
            Ok(()) => Ok(()),
            Err(LookupError::Shelf(error)) => Err(error),
            Err(LookupError::Doubted) => {
                self.is_sound = false;
                self.vouch()?;
                self.search(key, visit).map_err(super::hopeless)
            }
        }
    }

    fn search(
        &mut self,
        key: Key,
        visit: &mut impl FnMut(u32, &Entry) -> bool,
    ) -> Result<(), LookupError<S::Error>> {
        let mut search = self.lookup.find(key);
        while let Some(slot) = search.step()? {
            if slot >= self.header.used || self.overlay.at_slot(slot).is_some() {
                continue;
            }
            match self.slots.read(slot)? {
                Some(Slot::Torrent(entry)) if !visit(slot, &entry) => break,
                Some(_) => {}
                None => self.is_damaged = true,
            }
        }
        Ok(())
    }

    /// The torrent in the first slot after `after` that holds one.
    pub fn next(
        &mut self,
        after: Option<u32>,
    ) -> Result<Option<(u32, Entry)>, ShelfError<S::Error>> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        for slot in first..self.unused {
            if let Some(change) = self.overlay.at_slot(slot) {
                if change.is_gone {
                    continue;
                }
                return Ok(Some((slot, change.entry)));
            }
            match Slot::parse(slot, &self.walk_to(slot)?) {
                Some(Slot::Torrent(entry)) => return Ok(Some((slot, entry))),
                Some(Slot::Free { .. }) => {}
                None => self.is_damaged = true,
            }
        }
        Ok(None)
    }

    /// The bytes of a slot; those of its neighbours come with them.
    pub fn walk_to(&mut self, slot: u32) -> Result<[u8; slots::SLOT_BYTES], ShelfError<S::Error>> {
        let page = slots::page_of(slot);
        let (first, count) = self.walked;
        if page < first || page - first >= count {
            self.walked = (0, 0);
            self.slots.read_pages(page, self.room)?;
            self.walked = (page, (self.room.len() / PAGE_BYTES) as u32);
        }
        let at = (page - self.walked.0) as usize * PAGE_BYTES;
        Ok(slots::slot_in(&self.room[at..], slot))
    }

    /// What a record changes; nothing when it says nothing new.
    pub fn change(&mut self, record: &Record) -> Result<Option<Changing>, ShelfError<S::Error>> {
        let Some(info_hash) = record.info_hash() else { return Ok(None) };
        let (unused, free) = (self.unused, self.free);
        let known = match self.overlay.find(info_hash) {
            Some(change) => Some(*change),
            None => self.resting(info_hash)?.map(|(slot, entry)| Change {
                slot,
                rested_under: Some(entry.root_key),
                is_gone: false,
                entry,
            }),
        };
        let before = known.filter(|change| !change.is_gone).map(|change| change.entry);
        let after = record.applied(before);
        if after == before {
            return Ok(None);
        }
        let is_newcomer = before.is_none();
        let known = known.map(|change| Changing { change, is_newcomer, unused, free });
        let changing = match (after, known) {
            (None, None) => None,
            (Some(entry), None) => Some(self.newcomer(entry)?),
            (None, Some(mut known)) => {
                known.change.is_gone = true;
                Some(known)
            }
            (Some(entry), Some(mut known)) => {
                (known.change.is_gone, known.change.entry) = (false, entry);
                Some(known)
            }
        };
        Ok(changing)
    }

    /// Finds a slot for a newcomer.
    fn newcomer(&mut self, entry: Entry) -> Result<Changing, ShelfError<S::Error>> {
        let unused = self.unused;
        let mut change = Change { slot: unused, rested_under: None, is_gone: false, entry };
        let fresh =
            Changing { change, is_newcomer: true, unused: unused.saturating_add(1), free: None };
        let Some(slot) = self.free else { return Ok(fresh) };
        match self.slots.read(slot)? {
            Some(Slot::Free { next }) if self.overlay.at_slot(slot).is_none() => {
                change.slot = slot;
                Ok(Changing { change, is_newcomer: true, unused, free: next })
            }
            _ => {
                // The list leads to what is not free: nothing it leads to is believed.
                self.is_damaged = true;
                Ok(fresh)
            }
        }
    }

    /// Makes a change, for which the overlay has a place.
    pub fn make(&mut self, changing: &Changing) {
        self.take_slot(changing);
        self.overlay.put(changing.change);
    }

    /// Gives the slot of a change away.
    pub fn take_slot(&mut self, changing: &Changing) {
        (self.unused, self.free) = (changing.unused, changing.free);
    }

    /// Pages that hold so many slots.
    pub fn pages(slots: u32) -> u32 {
        slots.div_ceil(PAGE_SLOTS)
    }
}

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changing {
    change: Change,
    /// There was no such torrent.
    pub is_newcomer: bool,
    /// The first slot that was never given out, and the first free one, once it is made.
    unused: u32,
    free: Option<u32>,
}

impl Changing {
    /// The torrent it is about.
    pub fn info_hash(&self) -> Option<&InfoHash> {
        Some(&self.change.entry.info_hash)
    }
}
