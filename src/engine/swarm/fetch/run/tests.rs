//! Web seeds beside a peer, on tables of a few places.

use super::super::store::{Done, Stores, Verdict, Work};
use super::super::{Fetch, FetchMemory, Say};
use super::*;
use crate::engine::swarm::fetch::Order;
use crate::engine::swarm::fetch::link::Link;
use std::vec::Vec;

const PEER: PeerSlot = PeerSlot(0);
const SEED: PeerSlot = PeerSlot(1);
const OTHER: PeerSlot = PeerSlot(2);
const TORRENT: TorrentSlot = TorrentSlot(3);
const NOW: Instant = Instant::from_millis(1_000);

/// Ten pieces of two blocks; the last one has a block and ten bytes.
const LAYOUT: Layout = Layout { total_bytes: 9 * 32_768 + 16_394, piece_bytes: 32_768 };
const PIECE: u64 = 32_768;

struct Memory {
    fetches: Vec<Option<Fetch>>,
    partials: Vec<Option<Partial>>,
    links: Vec<Option<Link>>,
    asks: Vec<Ask>,
    pool: Vec<u8>,
}

impl Memory {
    fn new(partials: usize) -> Memory {
        Memory {
            fetches: std::vec![None],
            partials: (0..partials).map(|_| None).collect(),
            links: std::vec![None; 3],
            asks: std::vec![Ask::default(); 12],
            pool: std::vec![0; 8192],
        }
    }

    /// A fetcher of everything, with both seeds attached and a peer that has all.
    fn fetcher(&mut self, order: Order) -> Fetcher<'_> {
        let mut fetcher = Fetcher::new(FetchMemory {
            fetches: &mut self.fetches,
            partials: &mut self.partials,
            links: &mut self.links,
            asks: &mut self.asks,
            veils: &mut [],
            pool: &mut self.pool,
        });
        assert_eq!(fetcher.begin(TORRENT, LAYOUT, |_| true, order, 7), Ok(10));
        for seed in [SEED, OTHER] {
            assert!(fetcher.attach(seed, TORRENT, NOW));
        }
        fetcher.greet(PEER, TORRENT, NOW);
        fetcher.note_all(PEER);
        fetcher.note_choke(PEER, false, true, NOW);
        fetcher
    }
}

/// What the peer is asked for until it has enough.
fn asked(fetcher: &mut Fetcher<'_>) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    while let Some(say) = fetcher.next_say(PEER, NOW) {
        if let Say::Ask(block) = say {
            all.push((block.piece.0, block.begin));
        }
    }
    all
}

/// So many bytes of a run come in one buffer and are handed to a lane.
fn comes(fetcher: &mut Fetcher<'_>, slot: PeerSlot, run: &mut Run, bytes: usize) -> Option<Work> {
    let mut stores = Stores::new();
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(40_000);
        fetcher.note_run(slot, run, 0, part, NOW);
        fetcher.take_stores(slot, done, &mut stores);
        done += part;
    }
    fetcher.make_work(slot, stores)
}

/// A lane has written all of it; each piece that is whole matches, or does not.
fn written(fetcher: &mut Fetcher<'_>, work: Option<Work>, matches: bool) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut work = work;
    while let Some(next) = work.take() {
        let matched =
            next.hashings.iter().map(|hashing| hashing.whole.then_some(matches)).collect();
        verdicts.extend(fetcher.handle_done(Done { work: next, matched, written: true }));
        work = fetcher.take_verify();
    }
    verdicts
}

#[test]
fn a_run_takes_pieces_in_a_row_and_no_peer_is_asked_for_them() {
    let mut memory = Memory::new(16);
    let mut fetcher = memory.fetcher(Order::Sequential);
    let run = fetcher.begin_run(SEED, 3 * PIECE, None).unwrap();
    assert_eq!(run, Run { torrent: TORRENT, at: 0, end: 3 * PIECE });
    let next = fetcher.begin_run(OTHER, PIECE + 1, None).unwrap();
    assert_eq!((next.at, next.end), (3 * PIECE, 4 * PIECE + 16_384), "to the end of a block");
    // The peer begins behind them, and helps with what was left in between only then.
    assert_eq!(asked(&mut fetcher), [(5, 0), (5, 16_384)]);
    let rest = fetcher.begin_run(OTHER, PIECE, None).unwrap();
    assert_eq!((rest.at, rest.end), (4 * PIECE + 16_384, 5 * PIECE), "up to what is asked for");
}

#[test]
fn what_somebody_waits_for_comes_first_and_then_what_is_behind_it() {
    let mut memory = Memory::new(16);
    let mut fetcher = memory.fetcher(Order::Rarest);
    fetcher.await_piece(TORRENT, Some(6));
    let pieces: Vec<u32> = asked(&mut fetcher).iter().map(|(piece, _)| *piece).collect();
    assert_eq!(pieces, [6, 6]);
    let run = fetcher.begin_run(SEED, 3 * PIECE, None).unwrap();
    assert_eq!((run.at, run.end), (7 * PIECE, LAYOUT.total_bytes));
    let run = fetcher.begin_run(OTHER, PIECE, None).unwrap();
    assert_eq!((run.at, run.end), (0, PIECE), "and round to the front");
    fetcher.await_piece(TORRENT, None);
    assert_eq!(fetcher.fetches[0].as_ref().unwrap().front(), None);
}

#[test]
fn half_of_the_table_is_left_to_peers() {
    let mut memory = Memory::new(4);
    let mut fetcher = memory.fetcher(Order::Sequential);
    assert_eq!(fetcher.begin_run(SEED, 9 * PIECE, None).unwrap().end, 2 * PIECE);
    assert_eq!(asked(&mut fetcher).len(), 2);
    let last = fetcher.begin_run(OTHER, 9 * PIECE, None).unwrap();
    assert_eq!((last.at, last.end), (3 * PIECE, 4 * PIECE));
    assert_eq!(fetcher.begin_run(OTHER, 9 * PIECE, None), None);
}

#[test]
fn runs_go_on_where_the_last_one_ended() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Rarest);
    let run = fetcher.begin_run(SEED, 2 * PIECE, Some(PieceIndex(8))).unwrap();
    assert_eq!((run.at, run.end), (8 * PIECE, LAYOUT.total_bytes));
    let next = fetcher.begin_run(SEED, 2 * PIECE, Some(PieceIndex(9))).unwrap();
    assert_eq!((next.at, next.end), (0, 2 * PIECE), "and round to the front");
}

#[test]
fn what_a_run_brings_is_verified_to_the_last_byte() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Sequential);
    let mut verified = Vec::new();
    while let Some(mut run) = fetcher.begin_run(SEED, 100_000, None) {
        while run.left_bytes() > 0 {
            let bytes = run.left_bytes().min(70_001) as usize;
            let work = comes(&mut fetcher, SEED, &mut run, bytes);
            verified.extend(written(&mut fetcher, work, true));
        }
        fetcher.end_run(SEED, run);
    }
    let wanted: Vec<Verdict> = (0..10).map(|piece| Verdict::Verified(PieceIndex(piece))).collect();
    assert_eq!(verified, wanted);
    assert!(!fetcher.is_wanted(SEED) && fetcher.standing(TORRENT).is_none());
    [SEED, OTHER, PEER].into_iter().for_each(|slot| fetcher.leave(slot));
    assert_eq!(fetcher.begin(TORRENT, LAYOUT, |_| true, Order::Rarest, 1), Ok(10), "all is free");
}

#[test]
fn what_a_run_did_not_bring_is_asked_of_others() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Sequential);
    let mut run = fetcher.begin_run(SEED, 3 * PIECE, None).unwrap();
    // It breaks off in the middle of the second piece's first block.
    let work = comes(&mut fetcher, SEED, &mut run, PIECE as usize + 5_000);
    let verified = written(&mut fetcher, work, true);
    assert_eq!(verified, [Verdict::Verified(PieceIndex(0))]);
    fetcher.end_run(SEED, run);
    fetcher.leave(SEED);
    assert_eq!(asked(&mut fetcher), [(1, 0), (1, 16_384)]);
    let next = fetcher.begin_run(OTHER, PIECE, None).unwrap();
    assert_eq!(next.at, 2 * PIECE);
}

#[test]
fn a_web_seed_alone_fetches_again_what_it_did_not_bring() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Sequential);
    for bytes in [5_000, 16_384, 4_000, 0] {
        let mut run = fetcher.begin_run(SEED, 2 * PIECE, None).unwrap();
        let work = comes(&mut fetcher, SEED, &mut run, bytes);
        assert_eq!(written(&mut fetcher, work, true), []);
        fetcher.end_run(SEED, run);
        assert!(run.at < PIECE);
    }
    let mut run = fetcher.begin_run(SEED, 2 * PIECE, None).unwrap();
    assert_eq!(run.at, 16_384, "one block has come by now");
    let bytes = run.left_bytes() as usize;
    let work = comes(&mut fetcher, SEED, &mut run, bytes);
    assert!(!written(&mut fetcher, work, true).is_empty());
}

#[test]
fn a_piece_that_fails_is_traced_to_the_web_seed_that_sent_it() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Sequential);
    let mut run = fetcher.begin_run(SEED, PIECE, None).unwrap();
    let work = comes(&mut fetcher, SEED, &mut run, PIECE as usize);
    let failed = written(&mut fetcher, work, false);
    assert_eq!(failed, [Verdict::Failed(PieceIndex(0), Some(SEED))]);
    // Two that had a part in it work alone from then on, a piece at a time.
    let mut run = fetcher.begin_run(SEED, 16_384, None).unwrap();
    let work = comes(&mut fetcher, SEED, &mut run, 16_384);
    written(&mut fetcher, work, false);
    fetcher.end_run(SEED, run);
    let mut run = fetcher.begin_run(OTHER, 16_384, None).unwrap();
    assert_eq!(run.at, 16_384);
    let work = comes(&mut fetcher, OTHER, &mut run, 16_384);
    assert_eq!(written(&mut fetcher, work, false), [Verdict::Failed(PieceIndex(0), None)]);
    let run = fetcher.begin_run(SEED, 9 * PIECE, None).unwrap();
    assert_eq!((run.at, run.end), (0, PIECE));
    assert_eq!(asked(&mut fetcher)[0], (1, 0), "and nobody helps");
}

#[test]
fn a_pause_ends_runs_and_its_end_rings_for_the_next() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Rarest);
    let run = fetcher.begin_run(SEED, PIECE, None).unwrap();
    fetcher.pause(TORRENT, true);
    assert!(!fetcher.is_wanted(SEED));
    fetcher.end_run(SEED, run);
    assert_eq!(fetcher.begin_run(SEED, PIECE, None), None);
    while fetcher.take_nudged().is_some() {}
    fetcher.pause(TORRENT, false);
    let rung: Vec<PeerSlot> = core::iter::from_fn(|| fetcher.take_nudged()).collect();
    assert_eq!(rung, [PEER, SEED, OTHER]);
    assert!(fetcher.begin_run(SEED, PIECE, None).is_some());
}

#[test]
fn the_end_does_not_wait_for_whoever_is_slow() {
    let mut memory = Memory::new(40);
    let mut fetcher = memory.fetcher(Order::Sequential);
    let mut run = fetcher.begin_run(SEED, 1 << 30, None).unwrap();
    assert_eq!(run.end, LAYOUT.total_bytes);
    let tail = fetcher.begin_run(OTHER, 1 << 30, None);
    let mut tail = tail.expect("the last blocks of a piece are asked for twice");
    assert_eq!((tail.at, tail.end), (0, PIECE));
    let bytes = tail.left_bytes() as usize;
    let work = comes(&mut fetcher, OTHER, &mut tail, bytes);
    assert_eq!(written(&mut fetcher, work, true), [Verdict::Verified(PieceIndex(0))]);
    // What the slow one brings of it is dropped, the rest is not.
    assert!(comes(&mut fetcher, SEED, &mut run, PIECE as usize).is_none());
    let work = comes(&mut fetcher, SEED, &mut run, PIECE as usize);
    assert_eq!(written(&mut fetcher, work, true), [Verdict::Verified(PieceIndex(1))]);
    assert_eq!(fetcher.standing(TORRENT).unwrap().wasted_bytes, PIECE);
}
