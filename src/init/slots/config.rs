//! Slots as a Raspberry Pi has them: its firmware reads which folder to start from, and we count.
//!
//! ```text
//! config.txt   os_prefix=a/                          the firmware starts what lies in /boot/a
//! slots        good=a  trial=b  tries=2              a line each: two more starts of b, then a again
//! ```
//!
//! Both are changed where they lie, within a sector: the letter in `config.txt`, and the lines of
//! `slots`, which are always as long as they were. `trial=-` says that there is none. A file that is
//! not there or makes no sense says that what runs is good.

use super::{Files, Slot, Standing, TRIES, fat, while_writable};
use std::io;
use std::string::String;

/// What `slots` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    good: Slot,
    trial: Option<Slot>,
    tries: u32,
}

impl State {
    /// One slot is good, and none on trial.
    fn settled(good: Slot) -> State {
        State { good, trial: None, tries: 0 }
    }

    /// What a text says; none when it makes no sense.
    pub(super) fn parse(text: &str) -> Option<State> {
        let (mut good, mut trial, mut tries) = (None, None, None);
        for line in text.lines() {
            match line.split_once('=') {
                Some(("good", letter)) => good = Slot::of_letter(letter),
                Some(("trial", letter)) => trial = Some(Slot::of_letter(letter)),
                Some(("tries", number)) => tries = number.parse().ok(),
                _ => {}
            }
        }
        let (good, tries) = (good?, tries.filter(|tries| *tries <= TRIES)?);
        // What is good is on no trial: there would be nothing to return to.
        Some(State { good, trial: trial?.filter(|trial| *trial != good), tries })
    }

    fn text(self) -> String {
        let State { good, trial, tries } = self;
        let trial = trial.map_or("-", Slot::letter);
        std::format!("good={good}\ntrial={trial}\ntries={tries}\n")
    }

    fn read(files: &dyn Files, running: Slot) -> State {
        let text = fat::read_small(files, STATE).ok();
        let state = text.and_then(|text| State::parse(&String::from_utf8_lossy(&text)));
        state.unwrap_or(State::settled(running))
    }

    fn write(self, files: &mut dyn Files) -> io::Result<()> {
        fat::write_small(files, STATE, 0, self.text().as_bytes())
    }
}

pub(super) fn begin(files: &mut dyn Files, slot: Slot) -> io::Result<Standing> {
    let state = State::read(files, slot);
    let Some(trial) = state.trial else { return Ok(Standing::Good) };
    while_writable(files, |files| match state.tries {
        // A trial that was cut off before its first start, or has come to its end.
        tries if trial != slot => {
            State::settled(slot).write(files)?;
            Ok(if tries == 0 { Standing::Returned } else { Standing::Good })
        }
        0 => {
            // The good one says that it is over, once it has started.
            point_to(files, state.good)?;
            Ok(Standing::Restart)
        }
        tries => {
            State { tries: tries - 1, ..state }.write(files)?;
            Ok(Standing::Trial)
        }
    })
}

pub(super) fn good(files: &mut dyn Files, slot: Slot) -> io::Result<()> {
    if State::read(files, slot) == State::settled(slot) {
        return Ok(());
    }
    while_writable(files, |files| State::settled(slot).write(files))
}

pub(super) fn retire(files: &mut dyn Files, running: Slot) -> io::Result<()> {
    point_to(files, running)?;
    State::settled(running).write(files)
}

pub(super) fn try_other(files: &mut dyn Files, running: Slot) -> io::Result<()> {
    // First who counts, then what is counted.
    State { good: running, trial: Some(running.other()), tries: TRIES }.write(files)?;
    point_to(files, running.other())
}

/// Has the firmware start a slot.
fn point_to(files: &mut dyn Files, slot: Slot) -> io::Result<()> {
    let text = fat::read_small(files, FILE)?;
    let starts = |at: &usize| *at == 0 || text[at - 1] == b'\n';
    let length = PREFIX.len() + 2;
    let mut found = (0..(text.len() + 1).saturating_sub(length)).filter(|at| {
        starts(at) && text[*at..].starts_with(PREFIX) && text[at + length - 1] == b'/'
    });
    let (Some(at), None) = (found.next(), found.next()) else {
        let words = std::format!("{FILE} has not one line os_prefix={slot}/");
        return Err(io::Error::new(io::ErrorKind::InvalidData, words));
    };
    let (at, letter) = (at + PREFIX.len(), slot.letter().as_bytes());
    if text[at..].starts_with(letter) {
        return Ok(());
    }
    fat::write_small(files, FILE, at as u64, letter)
}

/// What the firmware reads.
pub const FILE: &str = "config.txt";

/// Where starts are counted.
pub const STATE: &str = "slots";

const PREFIX: &[u8] = b"os_prefix=";
