//! A torrent in memory: what it holds, and what one host has of it.
//!
//! A host keeps bytes of its own for pieces under way only. When a piece is said to be verified
//! every byte of it is held against the original, and from then on it is served from there: so a
//! thousand hosts have room, and nothing that is wrong goes unseen.

use std::rc::Rc;

use perennial::engine::digest::PieceHasher;
use perennial::engine::metainfo::Layout;
use perennial::engine::swarm::fetch::store::{Done, Hashing, Store, Work};
use perennial::engine::units::PieceIndex;

use crate::prng::Prng;

/// What everybody wants.
pub struct Content {
    pub layout: Layout,
    pub info_hash: [u8; 20],
    bytes: Vec<u8>,
    hashes: Vec<[u8; 20]>,
}

impl Content {
    pub fn new(total_bytes: u64, piece_bytes: u32, seed: u64) -> Rc<Content> {
        let layout = Layout { total_bytes, piece_bytes };
        let mut bytes = vec![0; total_bytes as usize];
        Prng::new(seed ^ 0x00c0_ffee).fill(&mut bytes);
        let hash = |piece: &[u8]| {
            let mut hasher = PieceHasher::default();
            hasher.update(piece);
            hasher.finish()
        };
        let hashes = bytes.chunks(piece_bytes as usize).map(hash).collect();
        Rc::new(Content { layout, info_hash: [seed as u8; 20], bytes, hashes })
    }

    pub fn piece_count(&self) -> u32 {
        self.layout.piece_count()
    }

    /// Bytes of a piece.
    pub fn part(&self, piece: u32, begin: u32, length: u32) -> &[u8] {
        let at = self.layout.offset(PieceIndex(piece)) as usize + begin as usize;
        &self.bytes[at..at + length as usize]
    }

    fn piece(&self, piece: u32) -> &[u8] {
        self.part(piece, 0, self.layout.piece_len(PieceIndex(piece)))
    }
}

/// What stands on a host's disk.
enum Shelf {
    Empty,
    UnderWay(Box<[u8]>),
    Verified,
}

/// One host's disk.
pub struct Disk {
    pub content: Rc<Content>,
    shelves: Vec<Shelf>,
    pub verified_count: u32,
    /// In which order pieces were verified.
    pub order: Vec<u32>,
}

impl Disk {
    /// A disk on which the pieces for which `has` says so are there.
    pub fn new(content: &Rc<Content>, has: impl Fn(u32) -> bool) -> Disk {
        let shelf = |piece| if has(piece) { Shelf::Verified } else { Shelf::Empty };
        let shelves: Vec<Shelf> = (0..content.piece_count()).map(shelf).collect();
        let verified = shelves.iter().filter(|shelf| matches!(shelf, Shelf::Verified));
        let verified_count = verified.count() as u32;
        Disk { content: Rc::clone(content), shelves, verified_count, order: Vec::new() }
    }

    pub fn has(&self, piece: u32) -> bool {
        matches!(self.shelves[piece as usize], Shelf::Verified)
    }

    pub fn is_whole(&self) -> bool {
        self.verified_count == self.content.piece_count()
    }

    /// What is about to be sent to somebody.
    ///
    /// # Panics
    /// When it has not been verified.
    pub fn read(&self, piece: u32, begin: u32, length: u32) -> &[u8] {
        assert!(self.has(piece), "piece {piece}, which is not verified, is about to be sent");
        self.content.part(piece, begin, length)
    }

    /// A piece is said to match its hash.
    pub fn verify(&mut self, piece: u32) {
        let shelf = std::mem::replace(&mut self.shelves[piece as usize], Shelf::Verified);
        let Shelf::UnderWay(bytes) = shelf else { panic!("piece {piece} is verified once more") };
        assert!(*bytes == *self.content.piece(piece), "piece {piece} is wrong");
        self.verified_count += 1;
        self.order.push(piece);
    }

    /// What a lane does with payload.
    pub fn run(&mut self, mut work: Work, buffer: &[u8]) -> Done {
        for Store { piece, begin, length, at, .. } in &work.stores {
            let bytes = &buffer[*at as usize..][..*length as usize];
            self.under_way(piece.0)[*begin as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let mut matched = heapless::Vec::new();
        for hashing in &mut work.hashings {
            let Hashing { piece, from, upto, .. } = *hashing;
            hashing.hasher.update(&self.under_way(piece.0)[from as usize..upto as usize]);
            let hash = hashing.whole.then(|| hashing.hasher.finish());
            let _ = matched.push(hash.map(|hash| hash == self.content.hashes[piece.0 as usize]));
        }
        Done { work, matched, written: true }
    }

    fn under_way(&mut self, piece: u32) -> &mut [u8] {
        let length = self.content.piece(piece).len();
        let shelf = &mut self.shelves[piece as usize];
        if matches!(shelf, Shelf::Empty) {
            *shelf = Shelf::UnderWay(vec![0xee; length].into());
        }
        match shelf {
            Shelf::UnderWay(bytes) => bytes,
            _ => panic!("piece {piece} is verified and is written to"),
        }
    }
}
