//! Shelves: the files the library lies in, as the engine asks for them.
//!
//! A shelf is bytes that can be read and written anywhere, and that grow by being written behind
//! their end. Of a power cut a shelf promises nothing but this: what was written before a `sync`
//! that succeeded is there, unless it lies in a sector (4096 bytes at most) that was being written
//! when the power went. What was not synced may be there or not, in any order.
//!
//! The catalogue asks for three of them; what they hold is told by [`slots`](super::slots),
//! [`staging`](super::staging) and [`lookup`](super::lookup). `service::shelf_file` makes them out
//! of files.

use super::super::journal::Operation;
use core::error::Error;
use core::fmt;

/// Bytes in a file, or in whatever behaves like one.
pub trait Shelf {
    /// What may go wrong.
    type Error;

    /// Reads at `at` as much as there is and fits: less only at the end.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error>;

    /// Writes all of `bytes` at `at`. What was never written before it reads as zeros.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes it empty.
    fn clear(&mut self) -> Result<(), Self::Error>;

    /// Returns when everything done before is durable.
    ///
    /// After an error what was done since the last success may be durable or not, and no later
    /// success says anything about it: whoever needs it durable does it again.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// How many bytes there are.
    fn length(&mut self) -> Result<u64, Self::Error>;
}

impl<S: Shelf> Shelf for &mut S {
    type Error = S::Error;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, S::Error> {
        S::read_at(self, at, into)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), S::Error> {
        S::write_at(self, at, bytes)
    }

    fn clear(&mut self) -> Result<(), S::Error> {
        S::clear(self)
    }

    fn sync(&mut self) -> Result<(), S::Error> {
        S::sync(self)
    }

    fn length(&mut self) -> Result<u64, S::Error> {
        S::length(self)
    }
}

/// What a library lies in.
#[derive(Debug)]
pub struct Shelves<S> {
    /// The torrents.
    pub slots: S,
    /// Pages on their way to the slots.
    pub staging: S,
    /// Where in the slots a torrent is: a cache.
    pub lookup: S,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Which {
    Slots,
    Staging,
    Lookup,
}

impl Which {
    /// What its file is called.
    pub fn file_name(self) -> &'static str {
        match self {
            Which::Slots => "slots",
            Which::Staging => "staging",
            Which::Lookup => "lookup",
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Which::Slots => "slots",
            Which::Staging => "staging",
            Which::Lookup => "look-up",
        })
    }
}

/// What stands between the library and one of its shelves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShelfError<E> {
    /// It failed: retry, then report.
    Failed {
        /// Which one.
        shelf: Which,
        /// What was being done.
        operation: Operation,
        /// The first byte concerned.
        at: u64,
        /// What it says.
        cause: E,
    },
    /// It was written by a newer release. It was left as it is.
    NewerVersion {
        /// Which one.
        shelf: Which,
        /// Its version.
        found: u32,
    },
    /// It holds something else. It was left as it is.
    NotOurs {
        /// Which one.
        shelf: Which,
    },
    /// It does not give back what was written to it.
    Unreliable {
        /// Which one.
        shelf: Which,
    },
}

impl<E: fmt::Display> fmt::Display for ShelfError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShelfError::Failed { shelf, operation: Operation::Sync, cause, .. } => {
                write!(f, "cannot sync the {shelf}: {cause}")
            }
            ShelfError::Failed { shelf, operation, at, cause } => {
                write!(f, "cannot {operation} the {shelf} at byte {at}: {cause}")
            }
            ShelfError::NewerVersion { shelf, found } => {
                write!(f, "{shelf} of version {found}, which this program does not read")
            }
            ShelfError::NotOurs { shelf } => write!(f, "this holds no {shelf} of ours"),
            ShelfError::Unreliable { shelf } => {
                write!(f, "the {shelf} does not give back what was written to it")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for ShelfError<E> {}

/// A shelf whose errors say which one it is.
#[derive(Debug)]
pub(super) struct Named<S> {
    pub shelf: S,
    which: Which,
}

impl<S: Shelf> Named<S> {
    pub fn new(shelf: S, which: Which) -> Named<S> {
        Named { shelf, which }
    }

    /// Fills `into`, with zeros where there is nothing.
    pub fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), ShelfError<S::Error>> {
        let read = self.shelf.read_at(at, into);
        let read = read.map_err(|cause| self.failed(Operation::Read, at, cause))?;
        into[read..].fill(0);
        Ok(())
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), ShelfError<S::Error>> {
        let written = self.shelf.write_at(at, bytes);
        written.map_err(|cause| self.failed(Operation::Write, at, cause))
    }

    pub fn clear(&mut self) -> Result<(), ShelfError<S::Error>> {
        let cleared = self.shelf.clear();
        cleared.map_err(|cause| self.failed(Operation::Erase, 0, cause))
    }

    pub fn sync(&mut self) -> Result<(), ShelfError<S::Error>> {
        let synced = self.shelf.sync();
        synced.map_err(|cause| self.failed(Operation::Sync, 0, cause))
    }

    pub fn length(&mut self) -> Result<u64, ShelfError<S::Error>> {
        let length = self.shelf.length();
        length.map_err(|cause| self.failed(Operation::Read, 0, cause))
    }

    fn failed(&self, operation: Operation, at: u64, cause: S::Error) -> ShelfError<S::Error> {
        ShelfError::Failed { shelf: self.which, operation, at, cause }
    }
}

/// Reads numbers of a record that is as long as it must be.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The same of longer ones.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
pub(super) mod memory {
    //! A shelf in memory that counts what is asked of it.

    use super::*;
    use std::vec::Vec;

    /// Bytes, and calls so far.
    #[derive(Debug, Default)]
    pub struct Memory {
        pub bytes: Vec<u8>,
        pub reads: u32,
        pub read_bytes: u64,
        pub writes: u32,
        pub syncs: u32,
    }

    impl Shelf for Memory {
        type Error = core::convert::Infallible;

        fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error> {
            let rest = self.bytes.get(at as usize..).unwrap_or(&[]);
            let length = rest.len().min(into.len());
            into[..length].copy_from_slice(&rest[..length]);
            self.reads += 1;
            self.read_bytes += length as u64;
            Ok(length)
        }

        fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
            let end = at as usize + bytes.len();
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            self.bytes[at as usize..end].copy_from_slice(bytes);
            self.writes += 1;
            Ok(())
        }

        fn clear(&mut self) -> Result<(), Self::Error> {
            self.bytes.clear();
            self.writes += 1;
            Ok(())
        }

        fn sync(&mut self) -> Result<(), Self::Error> {
            self.syncs += 1;
            Ok(())
        }

        fn length(&mut self) -> Result<u64, Self::Error> {
            Ok(self.bytes.len() as u64)
        }
    }
}
