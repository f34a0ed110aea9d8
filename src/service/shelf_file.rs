//! Files as shelves: what the library lies in, beside its journal.
//!
//! ```text
//! STATE/slots     every torrent, 128 bytes each (engine/library/slots)
//! STATE/staging   pages on their way there (engine/library/staging)
//! STATE/lookup    where in the slots a torrent is (engine/library/lookup): may be deleted
//! ```
//!
//! Nothing is kept in memory of what is in them: that is the page cache's, and the system takes it
//! back when it needs to. Reads and writes can sleep in the kernel, so one thread has them to itself.
//!
//! When `fdatasync` fails, Linux calls the pages clean although the disk does not have them. The
//! engine never takes a later success for theirs, but a program that starts after one that had to
//! give up would read from the cache what a power cut then takes away. Of the staging that must not
//! be: opening drops what is cached of it. What is cached of the slots is either on the disk or, from
//! the staging, written again; the look-up is vouched for only after a sync that succeeded.

use crate::engine::library::shelf::{Shelf, Shelves};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A file as a shelf.
#[derive(Debug)]
pub struct ShelfFile {
    file: File,
}

/// Opens the library's shelves in a folder, and makes those that are not there.
pub fn open(folder: &Path) -> io::Result<Shelves<ShelfFile>> {
    let shelf = |name| -> io::Result<ShelfFile> {
        let mut options = OpenOptions::new();
        // What a box knows about its owner's shares is nobody else's business.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(ShelfFile { file: options.open(folder.join(name))? })
    };
    let shelves =
        Shelves { slots: shelf("slots")?, staging: shelf("staging")?, lookup: shelf("lookup")? };
    // Only clean pages can be dropped.
    shelves.staging.file.sync_data()?;
    fadvise(&shelves.staging.file, 0, None, Advice::DontNeed)?;
    // The names are durable once the folder is.
    File::open(folder)?.sync_all()?;
    Ok(shelves)
}

impl Shelf for ShelfFile {
    type Error = Errno;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < into.len() {
            let at = at + filled as u64;
            match retry_on_intr(|| rustix::io::pread(&self.file, &mut into[filled..], at))? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut written = 0;
        while written < bytes.len() {
            let at = at + written as u64;
            match retry_on_intr(|| rustix::io::pwrite(&self.file, &bytes[written..], at))? {
                0 => return Err(Errno::IO),
                more => written += more,
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Errno> {
        retry_on_intr(|| rustix::fs::ftruncate(&self.file, 0))
    }

    fn sync(&mut self) -> Result<(), Errno> {
        // It also makes durable how long the file is.
        retry_on_intr(|| rustix::fs::fdatasync(&self.file))
    }

    fn length(&mut self) -> Result<u64, Errno> {
        Ok(rustix::fs::fstat(&self.file)?.st_size.cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::library::catalog::Lent;
    use crate::engine::library::slots::PAGE_BYTES;
    use crate::engine::library::{Catalog, Record};
    use crate::engine::units::InfoHash;
    use crate::service::flash_file::FlashFile;
    use crate::service::test_folder::TestFolder;

    use std::string::ToString as _;

    #[test]
    fn what_is_put_on_a_shelf_stays_there() {
        let folder = TestFolder::new("shelf");
        let mut shelf = open(folder.path()).unwrap().slots;
        let mut bytes = [7; 8];
        assert_eq!((shelf.length(), shelf.read_at(3, &mut bytes)), (Ok(0), Ok(0)));
        shelf.write_at(6, b"seventh").unwrap();
        assert_eq!(shelf.read_at(3, &mut bytes), Ok(8));
        assert_eq!(&bytes, b"\0\0\0seven");
        shelf.sync().unwrap();
        let mut shelf = open(folder.path()).unwrap().slots;
        assert_eq!((shelf.length(), shelf.read_at(11, &mut bytes)), (Ok(13), Ok(2)));
        assert_eq!(&bytes[..2], b"th");
        shelf.clear().unwrap();
        assert_eq!(shelf.length(), Ok(0));
    }

    #[test]
    fn a_library_in_files_is_found_again_also_without_its_look_up() {
        let folder = TestFolder::new("library");
        let hash = |number: u8| InfoHash::V1([number; 20]);
        for round in 0..3 {
            let (mut journal, mut pages) = ([0; 4096], [0; PAGE_BYTES]);
            let mut overlay = [None; 8];
            let lent = Lent { journal: &mut journal, overlay: &mut overlay, pages: &mut pages };
            let flash = FlashFile::open(&folder.path().join("journal"), 64 << 10).unwrap();
            let shelves = open(folder.path()).unwrap();
            let (mut catalog, opened) =
                Catalog::open(flash, shelves, lent, 100, &mut |_| panic!("it is whole")).unwrap();
            assert_eq!((opened.is_refilled, catalog.count()), (round == 2, 20 * u32::from(round)));
            for number in round * 20..round * 20 + 20 {
                let root_key = number.into();
                let record = Record::Admitted { info_hash: hash(number), root_key, facts_crc: 1 };
                catalog.record(record).unwrap();
            }
            for number in 0..round * 20 + 20 {
                assert!(catalog.get(&hash(number)).unwrap().is_some());
            }
            if round == 1 {
                std::fs::remove_file(folder.path().join("lookup")).unwrap();
            }
        }
    }

    #[test]
    fn a_shelf_that_is_none_says_why() {
        let folder = TestFolder::new("none");
        std::fs::create_dir(folder.path().join("slots")).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("directory"), "{error}");
    }
}
