//! What is said of a volume: to people in a sentence with its remedy, and to the next start.

use super::health::{self, Health};
use super::identity::{Kind, VolumeId};
use super::look::Known;
use crate::service::config::Reserve;
use indicatif::HumanBytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::string::String;

/// The one state a volume is in; the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not there: its shares sleep.
    Away,
    /// It is there twice. One goes on, if it is known which was first; else its shares sleep.
    Twice,
    /// It answers with errors.
    Failing,
    /// It cannot be written to.
    ReadOnly,
    /// It has less room than is kept free.
    Full,
    /// Nothing is wrong.
    Well,
}

impl State {
    /// The state in a word.
    pub fn word(self) -> &'static str {
        match self {
            State::Away => "away",
            State::Twice => "twice",
            State::Failing => "failing",
            State::ReadOnly => "read-only",
            State::Full => "full",
            State::Well => "here",
        }
    }
}

/// A volume for people: `disk /mnt/usb (1a2b3c4d): full, 12 MiB left: ...`.
#[derive(Clone, Copy)]
pub struct Status<'v> {
    /// What it is called.
    pub id: VolumeId,
    /// Its state.
    pub state: State,
    /// Where it is, or was.
    pub at: &'v Path,
    /// Its shares can be served.
    pub is_there: bool,
    /// Where else it is.
    pub twice: Option<&'v [PathBuf; 2]>,
    /// How it is.
    pub health: &'v Health,
    /// What is to be kept free.
    pub reserve: Reserve,
}

impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {} ({}): ", self.at.display(), self.id.short())?;
        let space = self.health.space();
        match self.state {
            State::Well => write!(f, "well, {} free", HumanBytes(space.free_bytes)),
            State::Full if self.health.is_refused_room() => write!(
                f,
                "takes nothing more, though {} seem free (a quota, or too many files): fetching \
                 pauses and is tried again now and then; serving goes on",
                HumanBytes(space.free_bytes)
            ),
            State::Full => {
                let reserve = health::reserve(space.total_bytes, self.reserve);
                write!(
                    f,
                    "full, {} left: fetching pauses until {} are free; serving goes on",
                    HumanBytes(space.free_bytes),
                    HumanBytes(reserve + reserve / 4)
                )
            }
            State::ReadOnly => f.write_str(
                "read-only: fetching pauses until it can be written to (mount -o remount,rw, \
                 after a check if the system did that by itself); serving goes on",
            ),
            State::Failing => f.write_str(
                "fails to read or write: look at its cable and its health (smartctl -a), and save \
                 what is on it; fetching pauses, what can be read is served",
            ),
            State::Away => f.write_str(
                "is not there: its shares sleep and wake when it is back, here or elsewhere; \
                 nothing of them is forgotten",
            ),
            State::Twice => self.write_twice(f),
        }
    }
}

impl Status<'_> {
    fn write_twice(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some([first, second]) = self.twice else { return f.write_str("is there twice") };
        write!(f, "is there twice, at {} and at {}: ", first.display(), second.display())?;
        if self.is_there {
            write!(f, "{} goes on being used; unmount the other", first.display())
        } else {
            f.write_str("which one is meant cannot be known, so its shares sleep; unmount the copy")
        }
    }
}

/// A volume as it is written down: `ID KIND UNMARKED-ID HOME`.
pub(super) fn write(known: &Known, home: &Path, into: &mut String) {
    let kind = KINDS.iter().find(|(kind, _)| *kind == known.kind).map_or("", |(_, word)| word);
    let home = percent_encode(home.as_os_str().as_bytes(), ESCAPED);
    into.push_str(&std::format!("{} {kind} {} {home}\n", known.id, known.unmarked_id));
}

/// Reads such a line.
pub(super) fn parse(line: &str) -> Option<(Known, PathBuf)> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let id = VolumeId::parse(next()?)?;
    let kind = next()?;
    let (kind, _) = KINDS.iter().find(|(_, word)| *word == kind)?;
    let unmarked_id = VolumeId::parse(next()?)?;
    let home = percent_decode_str(next()?).collect();
    let home = PathBuf::from(OsString::from_vec(home));
    let is_whole = next().is_none() && home.is_absolute();
    is_whole.then_some((Known { id, kind: *kind, unmarked_id }, home))
}

const KINDS: [(Kind, &str); 4] =
    [(Kind::File, "file"), (Kind::Uuid, "uuid"), (Kind::Fsid, "fsid"), (Kind::Weak, "weak")];

/// What would end a line or a word.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
