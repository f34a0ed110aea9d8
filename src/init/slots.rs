//! Two systems side by side on the boot partition: one is good, the other may be on trial.
//!
//! ```text
//! /boot/a/  kernel initrd version ...      good: what the box falls back to
//! /boot/b/  kernel initrd version ...      on trial for TRIES starts, then good, or left again
//! ```
//!
//! `version` is one line, the board and the version: `uefi-arm64 0.1.0`. The kernel's command line says
//! which slot runs: `perennial.slot=a`. Who counts the starts of a trial depends on what starts the
//! box:
//!
//! - [`entries`]: systemd-boot counts, in the names of its entries.
//! - [`config`]: on a Raspberry Pi we count, first thing after the start. What never gets that far is
//!   not counted, and does not return by itself.
//!
//! # Power cuts
//! Whatever is cut, the box starts: the slot that runs is left alone, and the other is named by
//! nothing before it is cleared and again not before it is whole. See [`super::fat`] for what is
//! asked of a card.
//!
//! # Journey
//! PID 1 -> [`begin`], before anything else -> serving -> [`good`]. An update: `super::update` ->
//! `retire` -> the other slot is written -> `try_other` -> a restart -> [`begin`].

pub mod config;
pub mod entries;

use super::fat::{self, Files, while_writable};
use crate::service::Refusal;
use std::fmt;
use std::io;
use std::string::String;

/// One of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// What a new card has.
    A,
    /// Empty on a new card.
    B,
}

impl Slot {
    /// Which one runs, as the kernel's command line says; none when it does not.
    pub fn of_command_line(line: &str) -> Option<Slot> {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(ON_COMMAND_LINE))?;
        Slot::of_letter(word)
    }

    fn of_letter(letter: &str) -> Option<Slot> {
        match letter {
            "a" => Some(Slot::A),
            "b" => Some(Slot::B),
            _ => None,
        }
    }

    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// Its folder, and what it is called wherever it is named.
    pub fn letter(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// How it stands with the slot that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one to run.
    Good,
    /// It is on trial: [`good`] is to be said of it, or it will be left again.
    Trial,
    /// It is the one to run: the other was tried, and did not do.
    Returned,
    /// Its starts are used up and the other slot is named again: restart at once.
    Restart,
}

/// Notes that a slot has been started, on the boot partition `files`. To be called first thing.
pub fn begin(files: &mut dyn Files, slot: Slot) -> Result<Standing, Refusal> {
    let begun = match loader(files) {
        Loader::Entries => entries::begin(files, slot),
        Loader::Config => config::begin(files, slot),
        Loader::Unknown => Ok(Standing::Good),
    };
    begun.map_err(|error| unwritable(&error))
}

/// The slot that runs has shown that it does: from now on it is the one to run.
pub fn good(files: &mut dyn Files, slot: Slot) -> Result<(), Refusal> {
    let done = match loader(files) {
        Loader::Entries => entries::good(files, slot),
        Loader::Config => config::good(files, slot),
        Loader::Unknown => Ok(()),
    };
    done.map_err(|error| unwritable(&error))
}

/// Sees to it that nothing starts a slot, which may then be changed. `running` is started instead.
pub(super) fn retire(files: &mut dyn Files, running: Slot) -> io::Result<()> {
    match loader(files) {
        Loader::Entries => entries::retire(files, running.other()),
        Loader::Config => config::retire(files, running),
        Loader::Unknown => Ok(()),
    }
}

/// Has the other slot, which is whole, started on trial from the next start on.
pub(super) fn try_other(files: &mut dyn Files, running: Slot, version: &str) -> io::Result<()> {
    match loader(files) {
        Loader::Entries => entries::try_other(files, running, version),
        Loader::Config => config::try_other(files, running),
        Loader::Unknown => Ok(()),
    }
}

/// What starts the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loader {
    /// systemd-boot.
    Entries,
    /// The firmware of a Raspberry Pi.
    Config,
    /// Neither.
    Unknown,
}

/// Looks what starts the box.
pub(super) fn loader(files: &dyn Files) -> Loader {
    let has = |found: io::Result<usize>| found.is_ok_and(|count| count > 0);
    if has(files.list(entries::FOLDER).map(|names| names.len())) {
        Loader::Entries
    } else if has(files.read(config::FILE, 0, &mut [0])) {
        Loader::Config
    } else {
        Loader::Unknown
    }
}

/// Which version lies in a slot, as its `version` says behind the board.
pub(super) fn version_of(files: &dyn Files, slot: Slot) -> io::Result<String> {
    let text = fat::read_small(files, &std::format!("{slot}/{VERSION}"))?;
    let version = text.split(|byte| byte.is_ascii_whitespace()).nth(1).unwrap_or_default();
    Ok(String::from_utf8_lossy(version).into())
}

/// Writes a slot's `version`.
pub(super) fn write_version(
    files: &mut dyn Files,
    slot: Slot,
    board: &str,
    version: &str,
) -> io::Result<()> {
    let text = std::format!("{board} {version}\n");
    fat::write_small(files, &std::format!("{slot}/{VERSION}"), 0, text.as_bytes())
}

/// A letter behind `perennial.slot=`: where in the text.
pub(super) fn letter_at(text: &[u8]) -> Option<usize> {
    let word = ON_COMMAND_LINE.as_bytes();
    let at = text.windows(word.len()).position(|window| window == word)? + word.len();
    text.get(at).is_some_and(|letter| b"ab".contains(letter)).then_some(at)
}

fn unwritable(error: &io::Error) -> Refusal {
    let problem = std::format!("cannot be read or written: {error}");
    Refusal::new("the boot partition", problem, "look at the card, or write it anew")
}

/// Starts of a slot on trial.
pub const TRIES: u32 = 3;

/// On the kernel's command line, before a slot's letter.
const ON_COMMAND_LINE: &str = "perennial.slot=";

/// In each slot's folder.
pub(super) const VERSION: &str = "version";

#[cfg(test)]
mod tests;
