//! Lines of the log on stderr: words for people, priorities for the journal.
//!
//! `JOURNAL_STREAM` names the device and inode of the stream that systemd's journal reads. When
//! stderr is that stream, each line begins with its priority (`sd-daemon(3)`) and the journal knows
//! levels; otherwise a level is a word, and news has none.
//!
//! `RUST_LOG` in the environment says how much is written and has the last word; without it
//! [`set_level`] does, at any time.

use super::{Refusal, clock};
use log::{Level, LevelFilter};
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::string::String;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Words,
    /// For systemd's journal.
    Priorities,
}

impl Style {
    /// The style that suits whoever reads stderr.
    pub fn of_stderr() -> Style {
        let stream = std::env::var("JOURNAL_STREAM").ok();
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let stat = stderr.and_then(|file| file.metadata()).ok();
        let stat = stat.map(|stat| (stat.dev(), stat.ino()));
        if is_stream(stream.as_deref(), stat) { Style::Priorities } else { Style::Words }
    }

    /// Writes one entry of the log; what has several lines stays one level.
    pub fn write(
        self,
        out: &mut impl Write,
        level: Level,
        text: fmt::Arguments<'_>,
    ) -> io::Result<()> {
        match (self, level) {
            (Style::Words, Level::Info) => writeln!(out, "{text}"),
            (Style::Words, Level::Error) => writeln!(out, "error: {text}"),
            (Style::Words, Level::Warn) => writeln!(out, "warn: {text}"),
            (Style::Words, Level::Debug) => writeln!(out, "debug: {text}"),
            (Style::Words, Level::Trace) => writeln!(out, "trace: {text}"),
            (Style::Priorities, Level::Error) => write_each(out, "<3>", text),
            (Style::Priorities, Level::Warn) => write_each(out, "<4>", text),
            (Style::Priorities, Level::Info) => write_each(out, "<6>", text),
            (Style::Priorities, Level::Debug | Level::Trace) => write_each(out, "<7>", text),
        }
    }

    /// Writes a refusal, the last that is said.
    pub fn write_refusal(self, out: &mut impl Write, refusal: &Refusal) -> io::Result<()> {
        match self {
            Style::Words => writeln!(out, "perennial: {refusal}"),
            Style::Priorities => self.write(out, Level::Error, format_args!("{refusal}")),
        }
    }
}

/// From here on the log goes to stderr: news, and what is worse.
pub fn start(style: Style) {
    // What comes from crates is of no use below news. Beyond that the level is set for all.
    let wanted = env_logger::Env::default().default_filter_or("info,perennial=trace");
    env_logger::Builder::from_env(wanted)
        .format(move |out, record| {
            keep(record.level(), *record.args());
            style.write(out, record.level(), *record.args())
        })
        .init();
    set_level(LevelFilter::Info);
}

/// Writes an entry, if the log is to have it.
#[inline(never)]
pub fn say(level: Level, module: &'static str, text: fmt::Arguments<'_>) {
    log::log!(target: module, level, "{text}");
}

/// The last lines of news and worse, the oldest first: for the page.
pub fn recent() -> Vec<String> {
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.iter().cloned().collect()
}

/// Keeps a line for [`recent`], cut to [`RECENT_CHARS_MAX`].
fn keep(level: Level, text: fmt::Arguments<'_>) {
    if level > Level::Info {
        return;
    }
    let (now_s, up_s) = (clock::unix_s(), clock::monotonic_us() / 1_000_000);
    // Without a date it is counted from when the machine was switched on.
    let (seconds, what) = if now_s > 0 { (now_s % 86_400, "UTC") } else { (up_s, "since power") };
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let text: String = std::format!("{hour:02}:{minute:02}:{second:02} {what}  {text}");
    let text = text.chars().filter(|char| !char.is_control()).take(RECENT_CHARS_MAX).collect();
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(text);
}

/// Lines come from every thread.
static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Lines that are kept.
const RECENT_MAX: usize = 40;

/// Of each.
const RECENT_CHARS_MAX: usize = 200;

/// How much is written from here on, unless `RUST_LOG` says it.
pub fn set_level(level: LevelFilter) {
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(level);
    }
}

/// Whether a stream of that device and inode is the one that is named.
fn is_stream(named: Option<&str>, stat: Option<(u64, u64)>) -> bool {
    let named = named.and_then(|named| {
        let (device, inode) = named.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    named.is_some() && named == stat
}

/// Writes text with a prefix before each of its lines.
fn write_each(out: &mut impl Write, prefix: &str, text: fmt::Arguments<'_>) -> io::Result<()> {
    out.write_all(prefix.as_bytes())?;
    // A writer that fails to take a log leaves nobody to tell.
    let _ = Prefixed { out, prefix }.write_fmt(text);
    out.write_all(b"\n")
}

struct Prefixed<'o, W> {
    out: &'o mut W,
    prefix: &'o str,
}

impl<W: Write> fmt::Write for Prefixed<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut put = |bytes: &[u8]| self.out.write_all(bytes).map_err(|_| fmt::Error);
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                put(b"\n")?;
                put(self.prefix.as_bytes())?;
            }
            put(line.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn line(style: Style, level: Level, text: fmt::Arguments<'_>) -> String {
        let mut out = Vec::new();
        style.write(&mut out, level, text).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn levels_are_words_for_people_and_numbers_for_the_journal() {
        let table = [
            (Level::Error, "error: full\n", "<3>full\n"),
            (Level::Warn, "warn: full\n", "<4>full\n"),
            (Level::Info, "full\n", "<6>full\n"),
            (Level::Debug, "debug: full\n", "<7>full\n"),
            (Level::Trace, "trace: full\n", "<7>full\n"),
        ];
        for (level, words, priority) in table {
            assert_eq!(line(Style::Words, level, format_args!("full")), words);
            assert_eq!(line(Style::Priorities, level, format_args!("full")), priority);
        }
    }

    #[test]
    fn every_line_of_an_entry_has_its_priority() {
        let (one, other) = ("a\nb", "<3>c");
        let text = line(Style::Priorities, Level::Warn, format_args!("{one}{}\n{other}", 7));
        assert_eq!(text, "<4>a\n<4>b7\n<4><3>c\n");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refusal = Refusal::new("disk", "is full", "make room");
        let said = |style: Style| {
            let mut out = Vec::new();
            style.write_refusal(&mut out, &refusal).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(Style::Words), "perennial: disk: is full; make room\n");
        assert_eq!(said(Style::Priorities), "<3>disk: is full; make room\n");
    }

    #[test]
    fn only_the_very_stream_that_is_named_is_the_journals() {
        let stat = Some((8, 21_523));
        assert!(is_stream(Some("8:21523"), stat));
        for named in ["8:21524", "9:21523", "8", "", ":", "8:21523:1", "eight:21523"] {
            assert!(!is_stream(Some(named), stat), "{named}");
        }
        assert!(!is_stream(None, stat) && !is_stream(Some("8:21523"), None));
        assert!(!is_stream(Some("x:y"), None));
    }
}
