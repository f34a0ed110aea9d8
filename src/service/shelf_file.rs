//! A shelf of the library in a file: see [`Shelf`].

use crate::engine::library::shelf::Shelf;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;

/// A file as a shelf.
#[derive(Debug)]
pub struct ShelfFile(File);

impl ShelfFile {
    /// Opens the file at `path`, or makes an empty one.
    pub fn open(path: &Path) -> io::Result<ShelfFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(ShelfFile)
    }
}

impl Shelf for ShelfFile {
    type Error = io::Error;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.set_len(0)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&mut self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
