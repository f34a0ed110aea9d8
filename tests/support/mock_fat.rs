//! A boot partition in memory that loses power, and is as unkind as FAT without a journal may be.
//!
//! Until it is synced, anything written may be there after a cut or not: each name, each removal and
//! each sector by itself, in any order. A name whose removal may not have reached the card shares its
//! clusters with whatever is written next: that is a fault of whoever writes.

use crate::prng::Prng;
use perennial::init::fat::Files;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The partition; clones are of the same.
#[derive(Clone, Default)]
pub struct MockFat(Arc<Mutex<Card>>);

#[derive(Clone, Default)]
struct Card {
    /// As it looks while there is power.
    live: Tree,
    /// As it is for certain.
    kept: Tree,
    unsure: Vec<Change>,
    files_made: u32,
    /// Changes that are done before the power fails.
    left: Option<usize>,
    done: usize,
    writers: usize,
}

/// Names of files, and what is in them.
#[derive(Clone, Default)]
struct Tree {
    names: BTreeMap<String, u32>,
    bytes: BTreeMap<u32, Vec<u8>>,
}

#[derive(Clone)]
enum Change {
    Named(String, u32),
    Removed(String, u32),
    Written(u32, usize, Vec<u8>),
}

impl Tree {
    fn write(&mut self, file: u32, at: usize, bytes: &[u8]) {
        let whole = self.bytes.entry(file).or_default();
        whole.resize(whole.len().max(at + bytes.len()), 0);
        whole[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl MockFat {
    fn card(&self) -> MutexGuard<'_, Card> {
        self.0.lock().unwrap()
    }

    /// Puts a file there, for certain.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut card = self.card();
        let file = card.new_file();
        for tree in [true, false] {
            let tree = if tree { &mut card.live } else { &mut card.kept };
            tree.names.insert(path.into(), file);
            tree.write(file, 0, bytes);
        }
    }

    /// A file, if it is there.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let card = self.card();
        let file = card.live.names.get(path)?;
        Some(card.live.bytes.get(file).cloned().unwrap_or_default())
    }

    /// Takes a file away, for certain.
    pub fn take(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.get(path);
        let mut card = self.card();
        card.live.names.remove(path);
        card.kept.names.remove(path);
        bytes
    }

    /// How many changes there have been.
    pub fn done(&self) -> usize {
        self.card().done
    }

    /// Lets the power fail after so many more changes.
    pub fn cut_after(&self, changes: usize) {
        self.card().left = Some(changes);
    }

    /// What is there when the power comes back.
    pub fn restart(&self, prng: &mut Prng) -> MockFat {
        let Card { mut kept, unsure, files_made, .. } = self.card().clone();
        let (mut freed, mut reused): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for change in unsure {
            let is_there = prng.below(2) == 0;
            match change {
                Change::Named(name, file) if is_there => drop(kept.names.insert(name, file)),
                Change::Removed(name, file) => {
                    freed.push(file);
                    if is_there {
                        kept.names.remove(&name);
                    }
                }
                Change::Written(file, at, bytes) => {
                    // Whatever was freed before this may have been written over by it.
                    reused.append(&mut freed);
                    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if prng.below(2) == 0 {
                            kept.write(file, at + number * SECTOR_BYTES, sector);
                        }
                    }
                }
                Change::Named(..) => {}
            }
        }
        // Its removal would free what is another's by now.
        let shared = kept.names.iter().find(|(_, file)| reused.contains(file));
        assert!(shared.is_none(), "{shared:?} shares its clusters with what was written since");
        let card = Card { live: kept.clone(), kept, files_made, ..Card::default() };
        MockFat(Arc::new(Mutex::new(card)))
    }
}

impl Card {
    fn new_file(&mut self) -> u32 {
        self.files_made += 1;
        self.files_made
    }

    /// There is still power for a change.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::Error::other("the power has failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        assert!(self.writers > 0, "it is mounted read-only");
        self.done += 1;
        Ok(())
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Files for MockFat {
    fn set_writable(&mut self, writable: bool) -> io::Result<()> {
        let writers = &mut self.card().writers;
        *writers = if writable { *writers + 1 } else { writers.checked_sub(1).expect("in pairs") };
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let card = self.card();
        let names = card.live.names.iter().filter(|(path, _)| folder_of(path) == folder);
        let length = |file| card.live.bytes.get(file).map_or(0, |bytes| bytes.len() as u64);
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
        Ok(names.map(|(path, file)| (name(path), length(file))).collect())
    }

    fn read(&self, path: &str, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.get(path).ok_or(io::ErrorKind::NotFound)?;
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut card = self.card();
        card.change()?;
        let file = match card.live.names.get(path) {
            Some(file) => *file,
            None => {
                let file = card.new_file();
                card.live.names.insert(path.into(), file);
                card.unsure.push(Change::Named(path.into(), file));
                file
            }
        };
        card.live.write(file, at as usize, bytes);
        card.unsure.push(Change::Written(file, at as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self, path: &str) -> io::Result<()> {
        let mut card = self.card();
        card.change()?;
        let file = *card.live.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let is_its = |change: &Change| matches!(change, Change::Written(of, ..) if *of == file);
        let (its, rest) = std::mem::take(&mut card.unsure).into_iter().partition(is_its);
        card.unsure = rest;
        for change in its {
            let Change::Written(file, at, bytes) = change else { unreachable!("it is its") };
            card.kept.write(file, at, &bytes);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let mut card = self.card();
        card.change()?;
        let file = card.live.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        card.unsure.push(Change::Removed(path.into(), file));
        Ok(())
    }

    fn make_folder(&mut self, _: &str) -> io::Result<()> {
        self.card().change()
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        let mut card = self.card();
        card.change()?;
        let is_its = |change: &Change| match change {
            Change::Named(path, _) | Change::Removed(path, _) => folder_of(path) == folder,
            Change::Written(..) => false,
        };
        let (its, rest) = std::mem::take(&mut card.unsure).into_iter().partition(is_its);
        card.unsure = rest;
        for change in its {
            match change {
                Change::Named(path, file) => drop(card.kept.names.insert(path, file)),
                Change::Removed(path, _) => drop(card.kept.names.remove(&path)),
                Change::Written(..) => unreachable!("it is no folder's"),
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 30)
    }
}

/// What a card writes whole.
const SECTOR_BYTES: usize = 512;
