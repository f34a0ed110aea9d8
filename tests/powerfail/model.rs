//! A small library of numbered entries whose changes are journal records, and a scenario that
//! changes it: entries come, change and go, several at a time, with compactions between.

use std::fmt::Debug;

use perennial::engine::journal::{Durable, Journal, JournalError, Replay};

use crate::prng::Prng;

/// Entries that can exist.
pub const KEYS: usize = 24;

/// The value of each entry; 0 for none.
pub type State = [u32; KEYS];

/// Opens the journal on `flash` and replays it into a state.
pub fn open<'m, F: Durable>(
    flash: F,
    buffer: &'m mut [u8],
) -> Result<(Journal<'m, F>, Replay, State), JournalError<F::Error>> {
    let mut state = State::default();
    let (journal, replay) = Journal::open(flash, buffer, &mut |record| apply(&mut state, record))?;
    Ok((journal, replay, state))
}

/// Why `flash` is not opened with a buffer of so many bytes; `None` if it is.
pub fn refusal<F: Durable>(flash: &mut F, buffer_bytes: usize) -> Option<JournalError<F::Error>> {
    Journal::open(flash, &mut vec![0; buffer_bytes], &mut |_| {}).err()
}

/// The record that gives entry `key` a value, or takes it away if that is 0. Its length and
/// content follow from the value, so that a record changed on its way cannot pass for another.
pub fn record(key: usize, value: u32) -> Vec<u8> {
    let mut record = vec![key as u8];
    record.extend(value.to_le_bytes());
    record.resize(record.len() + value as usize % 70, filler(value));
    record
}

/// Does what `record` says.
pub fn apply(state: &mut State, record: &[u8]) {
    let (&key, rest) = record.split_first().expect("a record has a key");
    let (value, rest) = rest.split_first_chunk().expect("a record has a value");
    let value = u32::from_le_bytes(*value);
    assert!(rest.len() == value as usize % 70, "a record of {value} with {} bytes", rest.len());
    assert!(rest.iter().all(|&byte| byte == filler(value)), "a record of {value} with others");
    state[usize::from(key)] = value;
}

/// Some records are all ones, as erased flash is.
fn filler(value: u32) -> u8 {
    if value.is_multiple_of(4) { 0xFF } else { value as u8 }
}

/// A run of changes, the same for the same seed.
pub struct Scenario {
    pub prng: Prng,
    pub actions: u32,
    /// Close and open the journal every so often, as a box that is restarted.
    pub restarts: bool,
}

impl Scenario {
    /// Runs on `flash`; `expect(old, new)` says which of the returned states a replay may give from
    /// then on. Faults are met with another try, as a service would.
    pub fn run<F: Durable>(
        &mut self,
        flash: &mut F,
        buffer: &mut [u8],
        mut expect: impl FnMut(u32, u32),
    ) -> Vec<State>
    where
        F::Error: Debug,
    {
        let mut states = vec![State::default()];
        expect(0, 0);
        let mut action = 0;
        while action < self.actions {
            let (mut journal, _, state) = open(&mut *flash, buffer).expect("the journal opens");
            assert_eq!(Some(&state), states.last(), "after a restart");
            while action < self.actions {
                action += 1;
                let (old, state) = (states.len() as u32 - 1, states[states.len() - 1]);
                if journal.needs_compaction() && compact(&mut journal, &state).is_err() {
                    // The half may still have room for a smaller batch.
                    assert!(!self.restarts, "only faults stop a compaction");
                }
                let next = self.push_some(&mut journal, state);
                states.push(next);
                expect(old, old + 1);
                persist(&mut journal, &next);
                expect(old + 1, old + 1);
                if self.restarts && self.prng.one_in(16) {
                    break;
                }
            }
        }
        states
    }

    /// Pushes one to six changes and says what they make of `state`.
    fn push_some<F: Durable>(&mut self, journal: &mut Journal<'_, F>, mut state: State) -> State {
        for _ in 0..1 + self.prng.below(6) {
            let key = self.prng.below(KEYS as u32) as usize;
            let value = if self.prng.one_in(4) { 0 } else { self.prng.next_u32() };
            let record = record(key, value);
            if journal.push(&record).is_err() {
                break;
            }
            apply(&mut state, &record);
        }
        state
    }
}

/// Commits until it works; if the half has no room left, `state` goes into the other.
fn persist<F: Durable>(journal: &mut Journal<'_, F>, state: &State)
where
    F::Error: Debug,
{
    for _ in 0..1000 {
        match journal.commit() {
            Ok(()) => return,
            Err(JournalError::Full) if compact(journal, state).is_ok() => return,
            Err(_) => {}
        }
    }
    panic!("a thousand tries failed");
}

/// Writes `state` into the other half.
pub fn compact<F: Durable>(
    journal: &mut Journal<'_, F>,
    state: &State,
) -> Result<(), JournalError<F::Error>> {
    let mut compaction = journal.begin_compaction()?;
    for (key, &value) in state.iter().enumerate().filter(|&(_, &value)| value != 0) {
        compaction.push(&record(key, value))?;
    }
    compaction.finish()
}
