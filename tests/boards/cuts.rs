//! Power cuts: QEMU is killed while it serves, and started again with the card as it was.
//!
//! What is counted over them is bounded on both sides: by what the console had said to be recorded,
//! and by what was ever asked for.

use crate::leecher::{Leecher, MODERN};
use crate::machine::{Board, Machine, Setting};
use crate::prng::Prng;
use crate::program::PATIENCE;
use crate::share::Image;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Twenty runs, each cut at a moment of its own.
pub fn cut_off_twenty_times_it_loses_nothing_that_was_recorded(board: Board) {
    let image = Image::new(board);
    let mut chance = Prng::new(board as u64);
    let (mut recorded, mut asked, mut runs_recorded) = (0, 0, 0);
    // Enough for a few records: one comes every 4 MiB.
    let most = match board {
        Board::Lm3s6965 => 21 << 18,
        Board::Rv32 => 24 << 20,
    };
    for run in 0..CUTS {
        let machine = Setting::new(board, &image.path).start();
        let before = counted_before(&machine);
        assert!((recorded..=asked).contains(&before), "run {run}: {recorded} {before} {asked}");
        let enough = u64::from(most / CUTS * run + chance.below(most / CUTS));
        let (asked_now, lines) = serve_until_cut(&image, machine, enough);
        let last = last_recorded(&lines).unwrap_or(before);
        assert!(last >= before, "run {run}: {lines:?}");
        runs_recorded += u32::from(last > before);
        (recorded, asked) = (last, before + asked_now);
    }
    assert!(runs_recorded >= 2, "only {runs_recorded} runs recorded something");
    let machine = Setting::new(board, &image.path).start();
    let before = counted_before(&machine);
    assert!((recorded..=asked).contains(&before), "{recorded} {before} {asked}");
    assert_eq!(machine.quit().sent, before);
}

/// Serves two leechers until they have asked for `enough` bytes, then cuts the power. How many
/// bytes were asked for, and all the console has said.
fn serve_until_cut(image: &Image, mut machine: Machine, enough: u64) -> (u64, Vec<String>) {
    let asked = AtomicU64::new(0);
    let (address, torrent) = (machine.address, &image.torrent);
    let fetch_for_ever = || {
        let Ok(mut leecher) = Leecher::enter(address, torrent.info_hash, MODERN) else { return };
        loop {
            let blocks = torrent.blocks().into_iter().inspect(|block| {
                asked.fetch_add(block.length.into(), Ordering::Relaxed);
            });
            if leecher.fetch(blocks, DEPTH, |_, _| {}).is_err() {
                return;
            }
        }
    };
    let lines = thread::scope(|scope| {
        scope.spawn(fetch_for_ever);
        scope.spawn(fetch_for_ever);
        let until = Instant::now() + PATIENCE;
        while asked.load(Ordering::Relaxed) < enough && Instant::now() < until {
            machine.press(b's');
            thread::sleep(Duration::from_millis(15));
        }
        machine.cut()
    });
    (asked.into_inner(), lines)
}

/// What it says was sent in runs before this one.
fn counted_before(machine: &Machine) -> u64 {
    let line = machine.said("journal: ").expect("it says what was counted");
    let number = line.strip_suffix(" bytes sent before").expect("and says it in these words");
    number.parse().expect("a number")
}

/// What its last status says is recorded. A line that was cut short says nothing.
fn last_recorded(lines: &[String]) -> Option<u64> {
    let mut statuses = lines.iter().rev().filter_map(|line| Machine::parse_status(line));
    statuses.next().map(|status| status.recorded)
}

const CUTS: u32 = 20;

/// Requests on their way at a time.
const DEPTH: usize = 8;
