//! What has changed since the last checkpoint, in lent memory: before the slots, whoever asks for a
//! torrent looks here.

use super::super::super::units::InfoHash;
use super::super::Entry;

/// A torrent that is other than its slot says.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Where it lies or will lie.
    pub(super) slot: u32,
    /// Where its content lay when its slot was last written; `None` when that holds no torrent.
    pub(super) rested_under: Option<u64>,
    /// It is no longer there. The slot is given to nobody else before it has been written.
    pub(super) is_gone: bool,
    /// What it is, or was.
    pub(super) entry: Entry,
}

/// The changes, one for each torrent concerned.
pub(super) struct Overlay<'m> {
    places: &'m mut [Option<Change>],
    used: usize,
}

impl<'m> Overlay<'m> {
    /// An empty one, in as many places as are lent.
    pub fn new(places: &'m mut [Option<Change>]) -> Overlay<'m> {
        Overlay { places, used: 0 }
    }

    /// All of them.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.places[..self.used].iter().flatten()
    }

    /// The change of that torrent.
    pub fn find(&self, info_hash: &InfoHash) -> Option<&Change> {
        self.changes().find(|change| change.entry.info_hash == *info_hash)
    }

    /// The change that lies in that slot.
    pub fn at_slot(&self, slot: u32) -> Option<&Change> {
        self.changes().find(|change| change.slot == slot)
    }

    /// Takes a change, in the place of an older one of the same torrent.
    ///
    /// # Panics
    /// When there is no [room](Overlay::room): whoever puts has looked.
    pub fn put(&mut self, change: Change) {
        let is_same = |known: &&mut Option<Change>| {
            known.is_some_and(|known| known.entry.info_hash == change.entry.info_hash)
        };
        if let Some(place) = self.places[..self.used].iter_mut().find(is_same) {
            *place = Some(change);
            return;
        }
        self.places[self.used] = Some(change);
        self.used += 1;
    }

    /// Brings them into the order of their slots.
    pub fn sort(&mut self) {
        self.places[..self.used].sort_unstable_by_key(|place| place.map(|change| change.slot));
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// How many more there can be.
    pub fn room(&self) -> usize {
        self.places.len() - self.used
    }
}
