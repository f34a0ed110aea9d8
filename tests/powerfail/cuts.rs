//! One run of a scenario, wound back and cut after every byte.
//!
//! After each byte written or erased the flash is looked at as if power had failed there: cleanly,
//! with the word or sector at work turned to garbage, and with it stopped half-way. Where the flash
//! is a disk (words of 512 bytes and more) the words since the last sync also get there in any
//! order. Every time the journal replays to the state before the change or after it. At a sample of
//! the cuts life goes on: the next commit and a compaction work and are found again.

use std::cell::RefCell;
use std::rc::Rc;

use perennial::engine::journal::Journal;

use crate::mock_flash::{Faults, MockFlash, Step, Tape};
use crate::model::{self, Scenario, State};
use crate::prng::Prng;

#[test]
fn cut_anywhere_flash_of_single_bytes_holds_the_old_state_or_the_new() {
    Run { capacity: 16 << 10, buffer_bytes: 512, actions: 180, seed: 1, faults: false }
        .cut_everywhere::<1, 4096>();
}

#[test]
fn cut_anywhere_flash_of_words_holds_the_old_state_or_the_new() {
    Run { capacity: 16 << 10, buffer_bytes: 512, actions: 180, seed: 2, faults: false }
        .cut_everywhere::<4, 4096>();
}

#[test]
fn cut_anywhere_disk_of_small_sectors_holds_the_old_state_or_the_new() {
    Run { capacity: 16 << 10, buffer_bytes: 2048, actions: 36, seed: 3, faults: false }
        .cut_everywhere::<512, 4096>();
}

#[test]
fn cut_anywhere_disk_of_large_sectors_holds_the_old_state_or_the_new() {
    Run { capacity: 24 << 10, buffer_bytes: 4096, actions: 5, seed: 4, faults: false }
        .cut_everywhere::<4096, 4096>();
}

#[test]
fn cut_anywhere_failing_flash_holds_the_old_state_or_the_new() {
    Run { capacity: 16 << 10, buffer_bytes: 512, actions: 110, seed: 5, faults: true }
        .cut_everywhere::<4, 4096>();
}

#[test]
fn cut_anywhere_failing_disk_holds_the_old_state_or_the_new() {
    Run { capacity: 16 << 10, buffer_bytes: 2048, actions: 28, seed: 6, faults: true }
        .cut_everywhere::<512, 4096>();
}

/// A scenario on one kind of flash.
struct Run {
    capacity: usize,
    buffer_bytes: usize,
    actions: u32,
    seed: u64,
    /// One operation in ten fails half-way.
    faults: bool,
}

impl Run {
    fn cut_everywhere<const WRITE: usize, const ERASE: usize>(&self) {
        let tape: Tape = Rc::new(RefCell::new(Vec::new()));
        let mut flash = MockFlash::<WRITE, ERASE>::new(self.capacity);
        let mut buffer = vec![0; self.buffer_bytes];
        // Formatting is not retried by the scenario, so faults begin after it.
        flash.record(&tape);
        let _ = model::open(&mut flash, &mut buffer).expect("an erased flash is formatted");
        if self.faults {
            flash.set_faults(Some(Faults::OneIn(10, Prng::new(self.seed))));
        }
        let mut scenario =
            Scenario { prng: Prng::new(self.seed), actions: self.actions, restarts: !self.faults };
        let states = scenario.run(&mut flash, &mut buffer, |old, new| {
            tape.borrow_mut().push(Step::Expect { old, new });
        });

        let tape = tape.take();
        let erased = MockFlash::<WRITE, ERASE>::new(self.capacity);
        let mut cutter = Cutter {
            image: erased.clone(),
            durable: erased.clone(),
            unsynced: Vec::new(),
            scratch: erased,
            buffer,
            states,
            expected: (0, 0),
            prng: Prng::new(self.seed),
            seed: self.seed,
            cuts: 0,
        };
        for place in 0..tape.len() {
            cutter.advance(&tape, place);
        }
        assert_eq!(cutter.image.bytes, flash.bytes, "the tape is all that happened");
        let (erases, cuts) = (erases(&tape, ERASE), cutter.cuts);
        println!("seed {}: {} bytes, {erases} erases, {cuts} cuts", self.seed, tape.len());
        assert!(cuts >= 100_000, "{cuts} cuts are too few to mean much");
        let compactions = erases * ERASE / (self.capacity / 2);
        assert!(compactions >= 3, "{compactions} compactions are too few");
    }
}

fn erases(tape: &[Step], sector: usize) -> usize {
    let ends_sector = |at: u32| (at as usize + 1).is_multiple_of(sector);
    tape.iter().filter(|step| matches!(step, Step::Erase { at } if ends_sector(*at))).count()
}

/// How power fails.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Between two bytes.
    Clean,
    /// The word or sector at work is left as garbage.
    Garbage,
    /// Of the bits that still had to change in it, some have.
    Partly,
    /// Words since the last sync are there or not, in any combination.
    Reordered,
}

/// The flash of a tape after every step, and the flash as a cut there leaves it.
struct Cutter<const WRITE: usize, const ERASE: usize> {
    image: MockFlash<WRITE, ERASE>,
    /// The image as far as syncs have made it certain.
    durable: MockFlash<WRITE, ERASE>,
    /// Where words differ, or may differ, between the two.
    unsynced: Vec<usize>,
    scratch: MockFlash<WRITE, ERASE>,
    buffer: Vec<u8>,
    states: Vec<State>,
    expected: (u32, u32),
    prng: Prng,
    seed: u64,
    cuts: u64,
}

impl<const WRITE: usize, const ERASE: usize> Cutter<WRITE, ERASE> {
    fn advance(&mut self, tape: &[Step], place: usize) {
        let step = tape[place];
        self.image.apply(step);
        match step {
            Step::Expect { old, new } => self.expected = (old, new),
            Step::Sync | Step::FailedSync => {
                for at in std::mem::take(&mut self.unsynced) {
                    if step == Step::Sync || self.prng.one_in(2) {
                        self.durable.take_word(at, &self.image);
                    }
                }
            }
            Step::Write { at, .. } | Step::Erase { at } => {
                let word = at as usize / WRITE * WRITE;
                if self.unsynced.last() != Some(&word) {
                    self.unsynced.push(word);
                }
                self.cut(tape, place, Cut::Clean);
                self.cut(tape, place, Cut::Garbage);
                self.cut(tape, place, Cut::Partly);
                if WRITE >= 512 && (at as usize + 1).is_multiple_of(64) {
                    self.cut(tape, place, Cut::Reordered);
                }
            }
        }
    }

    /// Cuts power at `place` and replays.
    fn cut(&mut self, tape: &[Step], place: usize, cut: Cut) {
        self.cuts += 1;
        self.scratch.copy_from(&self.image);
        match (cut, tape[place]) {
            (Cut::Garbage, Step::Write { at, .. }) => self.scratch.tear_write(at, &mut self.prng),
            (Cut::Partly, Step::Write { at, .. }) => {
                let target = target_of_word::<WRITE>(tape, place);
                self.scratch.fall_partly(at, &target, &mut self.prng);
            }
            (Cut::Garbage, Step::Erase { at }) => {
                self.scratch.tear_erase(at, false, &mut self.prng);
            }
            (Cut::Partly, Step::Erase { at }) => self.scratch.tear_erase(at, true, &mut self.prng),
            (Cut::Reordered, _) => self.reorder(),
            (Cut::Clean, _) | (_, Step::Sync | Step::FailedSync | Step::Expect { .. }) => {}
        }
        let (old, new) = self.expected;
        let here = format_args!("seed {}, {cut:?} at step {place}", self.seed);
        let (_, _, state) = model::open(&mut self.scratch, &mut self.buffer)
            .unwrap_or_else(|error| panic!("{here}: {error}"));
        let expected = [old, new].map(|state| self.states[state as usize]);
        assert!(expected.contains(&state), "{here}: neither state {old} nor {new}");
        if self.prng.one_in(64) {
            go_on(&mut self.scratch, &mut self.buffer, &mut self.prng, state)
                .unwrap_or_else(|what| panic!("{here}: then {what}"));
        }
    }

    fn reorder(&mut self) {
        self.scratch.copy_from(&self.durable);
        for &at in &self.unsynced {
            if self.prng.one_in(2) {
                self.scratch.take_word(at, &self.image);
            }
        }
        self.scratch.forget_spent();
    }
}

/// The box that lost power is used again: a commit, perhaps a compaction, a commit.
fn go_on<const WRITE: usize, const ERASE: usize>(
    flash: &mut MockFlash<WRITE, ERASE>,
    buffer: &mut [u8],
    prng: &mut Prng,
    mut state: State,
) -> Result<(), String> {
    for _ in 0..2 {
        let (mut journal, _, found) =
            model::open(&mut *flash, buffer).map_err(|error| error.to_string())?;
        if found != state {
            return Err(String::from("another state"));
        }
        if journal.needs_compaction() || prng.one_in(4) {
            model::compact(&mut journal, &state).map_err(|error| error.to_string())?;
        }
        commit_one(&mut journal, &mut state, prng)?;
    }
    match model::open(&mut *flash, buffer) {
        Ok((_, _, found)) if found == state => Ok(()),
        Ok(_) => Err(String::from("a lost commit")),
        Err(error) => Err(error.to_string()),
    }
}

fn commit_one<const WRITE: usize, const ERASE: usize>(
    journal: &mut Journal<'_, &mut MockFlash<WRITE, ERASE>>,
    state: &mut State,
    prng: &mut Prng,
) -> Result<(), String> {
    let record = model::record(prng.below(model::KEYS as u32) as usize, prng.next_u32());
    journal.push(&record).map_err(|full| format!("{full:?}"))?;
    journal.commit().map_err(|error| error.to_string())?;
    model::apply(state, &record);
    Ok(())
}

/// What the word being written at `place` is to become; bytes nobody gets to write stay erased.
fn target_of_word<const WRITE: usize>(tape: &[Step], place: usize) -> [u8; WRITE] {
    let mut target = [0xFF; WRITE];
    let Step::Write { at, .. } = tape[place] else { return target };
    let first = place - at as usize % WRITE;
    for (byte, step) in target.iter_mut().zip(&tape[first..]) {
        match step {
            Step::Write { value, .. } => *byte = *value,
            _ => break,
        }
    }
    target
}
