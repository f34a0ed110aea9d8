//! What watched folders held when they were last looked at: `STATE/watched/KEY`.
//!
//! With it a box that was off notices what was renamed, deleted or changed meanwhile, and hashes
//! nothing again. A record is added for each entry that has been dealt with, after that; so whatever
//! is missing here after a power cut is told anew, which costs a look. Records are not synced one by
//! one: when all has been quiet for a while the file is written anew, whole and synced.
//!
//! ```text
//! record   key u64 | inode u64 | stamp u64 | 1 there, 0 gone u32 | CRC-32 of these u32   (32 bytes)
//! ```

use super::refusal::Refusal;
use super::state::{State, refused, replace};
use super::watch::{Identity, Key};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::vec::Vec;

impl State<'_> {
    /// What a watched folder held. `are_shares` when each entry is to be a torrent: one that was
    /// lost to damage is not remembered, so that it is shared again.
    ///
    /// # Work
    /// One read, and after damage a look into the library for each entry.
    pub fn remembered(&mut self, folder: Key, are_shares: bool) -> Vec<(Key, Identity)> {
        let path = self.remembered_path(folder);
        let all = read(&path).inspect_err(|error| warn!("{}: {error}", path.display()));
        let mut all: Vec<_> = all.unwrap_or_default().into_iter().collect();
        if are_shares && self.has_lost_torrents() {
            all.retain(|(key, _)| !self.lying_at(key.0).is_empty());
        }
        all
    }

    /// An entry of a watched folder has been dealt with: as what it was, or as one that is gone.
    pub fn remember(
        &self,
        folder: Key,
        key: Key,
        identity: Option<Identity>,
    ) -> Result<(), Refusal> {
        let path = self.remembered_path(folder);
        let remember = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            let mut file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(self.remembered_folder())?;
                    options.open(&path)?
                }
                opened => opened?,
            };
            // A cut may have left part of a record.
            let whole = file.metadata()?.len() / RECORD_BYTES as u64 * RECORD_BYTES as u64;
            file.set_len(whole)?;
            file.write_all(&record(key, identity))
        };
        remember().map_err(|error| refused(&path, error))
    }

    /// Writes what a watched folder held anew, without what is gone, and syncs it.
    pub fn tidy_remembered(&self, folder: Key) -> Result<(), Refusal> {
        let path = self.remembered_path(folder);
        let tidy = || -> io::Result<()> {
            let all = read(&path)?;
            let bytes: Vec<u8> =
                all.iter().flat_map(|(key, identity)| record(*key, Some(*identity))).collect();
            replace(&path, &bytes)
        };
        tidy().map_err(|error| refused(&path, error))
    }

    fn remembered_folder(&self) -> PathBuf {
        self.path().join("watched")
    }

    fn remembered_path(&self, folder: Key) -> PathBuf {
        self.remembered_folder().join(std::format!("{:016x}", folder.0))
    }
}

fn record(key: Key, identity: Option<Identity>) -> [u8; RECORD_BYTES] {
    let Identity { inode, stamp } = identity.unwrap_or_default();
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&key.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&inode.to_le_bytes());
    bytes[16..24].copy_from_slice(&stamp.to_le_bytes());
    bytes[24..28].copy_from_slice(&u32::from(identity.is_some()).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What all records together say; those that are damaged say nothing.
fn read(path: &Path) -> io::Result<HashMap<Key, Identity>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let mut all = HashMap::new();
    for record in bytes.chunks_exact(RECORD_BYTES) {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| record[at + byte]));
        if crc32fast::hash(&record[..28]) != (word(24) >> 32) as u32 {
            continue;
        }
        let (key, identity) = (Key(word(0)), Identity { inode: word(8), stamp: word(16) });
        match word(24) as u32 {
            0 => all.remove(&key),
            _ => all.insert(key, identity),
        };
    }
    Ok(all)
}

/// See the module.
const RECORD_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_of_an_entry_holds_and_damaged_ones_are_passed_over() {
        let path = std::env::temp_dir().join(std::format!("remembered-{}", std::process::id()));
        let identity = |inode| Identity { inode, stamp: inode << 40 };
        let mut bytes = [
            record(Key(1), Some(identity(1))),
            record(Key(2), Some(identity(2))),
            record(Key(3), Some(identity(3))),
            record(Key(1), None),
            record(Key(2), Some(identity(4))),
        ]
        .concat();
        bytes[2 * RECORD_BYTES + 9] ^= 1;
        // A cut in the middle of the last one.
        bytes.extend(&record(Key(9), Some(identity(9)))[..20]);
        fs::write(&path, &bytes).unwrap();
        let all = read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(all, HashMap::from([(Key(2), identity(4))]));
        assert!(read(&path).unwrap().is_empty());
    }
}
