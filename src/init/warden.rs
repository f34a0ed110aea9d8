//! Whoever watches over the life of the box from outside of it: what systemd is elsewhere.
//!
//! The life tells it what it would tell systemd (`service::notify`), over a pair of sockets: that it
//! serves, that its thread of the protocol still ticks, that it stops. The hardware's watchdog is
//! petted with each tick and by nothing else, so a box that hangs is reset; only while it starts or
//! stops is there a time for that, at whose end it counts as hung.
//!
//! ```text
//! Starting --READY=1--> Serving (WATCHDOG=1: pet) --STOPPING=1--> Stopping
//! pet, up to START_MS                                             pet, up to STOP_MS
//! ```

use super::card::Places;
use super::lamp::{Lamp, Sign};
use super::network::wait;
use crate::service::clock;
use rustix::event::{PollFd, PollFlags};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::string::String;

/// The hardware's watchdog.
pub struct Watchdog {
    device: File,
    /// It resets the machine when it has not been petted for so long.
    pub patience_ms: u64,
}

impl Watchdog {
    /// Arms it, where there is one.
    pub fn arm() -> Option<Watchdog> {
        let device = File::options().write(true).open("/dev/watchdog").ok()?;
        let told = super::read(Path::new("/sys/class/watchdog/watchdog0/timeout"));
        let patience_s = told.parse().unwrap_or(USUAL_S).max(2);
        info!("watchdog: resets the machine when nothing ticks for {patience_s} s");
        Some(Watchdog { device, patience_ms: patience_s * 1_000 })
    }

    fn pet(&mut self) {
        if let Err(error) = self.device.write_all(b"\0") {
            warn!("watchdog: {error}");
        }
    }
}

/// See the module.
pub struct Warden {
    /// What the life says.
    pub words: UnixDatagram,
    /// Nothing on a board without one, or with `perennial.watchdog=off`.
    pub watchdog: Option<Watchdog>,
    /// How the box is, for who stands before it.
    pub lamp: Lamp,
    /// Where the claim is told.
    pub places: Places,
    /// The state folder.
    pub state: Option<PathBuf>,
    /// Where the page is.
    pub page: Option<String>,
}

/// How far the life has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting(u64),
    Serving,
    Stopping(u64),
}

/// A word of the life's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Ready,
    Alive,
    Stopping,
    Trouble,
}

impl Word {
    fn read(bytes: &[u8]) -> Option<Word> {
        let first = bytes.split(|byte| *byte == b'\n').next()?;
        WORDS.iter().find(|(text, _)| text.as_bytes() == first).map(|(_, word)| *word)
    }
}

impl Warden {
    /// Watches, for ever.
    pub fn run(mut self) {
        let (mut phase, mut trouble) = (Phase::Starting(now_ms()), false);
        self.lamp.show(Sign::Busy);
        loop {
            let due_ms = match phase {
                Phase::Serving => u64::MAX,
                Phase::Starting(_) | Phase::Stopping(_) => {
                    self.watchdog.as_ref().map_or(u64::MAX, |dog| dog.patience_ms / 2)
                }
            };
            wait(&mut [PollFd::new(&self.words, PollFlags::IN)], due_ms);
            let (mut buffer, now) = ([0; 512], now_ms());
            let word = match self.words.recv(&mut buffer) {
                Ok(length) => Word::read(&buffer[..length]),
                Err(_) => None,
            };
            match word {
                Some(Word::Ready) if !matches!(phase, Phase::Serving) => {
                    info!("on the air {:.2} s after the kernel began", now as f64 / 1_000.0);
                    phase = Phase::Serving;
                    self.show(phase, trouble);
                    if let Some(page) = &self.page {
                        self.places.tell_claim(self.state.as_deref(), page);
                    }
                }
                Some(Word::Stopping) => {
                    phase = Phase::Stopping(now);
                    self.show(phase, trouble);
                }
                Some(Word::Trouble) => {
                    trouble = true;
                    self.show(phase, trouble);
                }
                _ => {}
            }
            if pets(phase, word, now)
                && let Some(watchdog) = &mut self.watchdog
            {
                watchdog.pet();
            }
        }
    }

    fn show(&self, phase: Phase, trouble: bool) {
        self.lamp.show(match phase {
            _ if trouble => Sign::Trouble,
            Phase::Serving => Sign::Serving,
            Phase::Starting(_) | Phase::Stopping(_) => Sign::Busy,
        });
    }
}

/// Whether the watchdog is petted, now that this was said, or nothing was.
fn pets(phase: Phase, word: Option<Word>, now_ms: u64) -> bool {
    match phase {
        Phase::Starting(since) => now_ms < since + START_MS,
        Phase::Serving => matches!(word, Some(Word::Ready | Word::Alive)),
        Phase::Stopping(since) => now_ms < since + STOP_MS,
    }
}

/// What the lamp shows from then on, whatever else is said.
pub const TROUBLE: &[u8] = b"X_TROUBLE=1";

const WORDS: [(&str, Word); 4] = [
    ("READY=1", Word::Ready),
    ("WATCHDOG=1", Word::Alive),
    ("STOPPING=1", Word::Stopping),
    ("X_TROUBLE=1", Word::Trouble),
];

fn now_ms() -> u64 {
    clock::monotonic_us() / 1_000
}

/// Whether the kernel's command line has that word.
pub fn is_off(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| word == "perennial.watchdog=off")
}

/// Where the kernel tells its command line.
pub const COMMAND_LINE: &str = "/proc/cmdline";

/// What watchdogs that do not tell wait for.
const USUAL_S: u64 = 15;

/// A library of 100,000 torrents on a slow card is there after seconds; one that takes so long hangs.
const START_MS: u64 = 10 * 60_000;

/// As long as a card may take for what has not been written yet.
const STOP_MS: u64 = 60_000;

/// The stack of a thread of PID 1's, of which a few pages are used.
pub const STACK_BYTES: usize = 128 << 10;

/// What stands for the box in `/`, made with the image.
pub fn board() -> String {
    super::read(Path::new("/board"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_petted_by_what_ticks_and_by_nothing_else() {
        let serving = Phase::Serving;
        assert!(pets(serving, Some(Word::Alive), 2_000));
        assert!(!pets(serving, None, 2_000));
        assert!(!pets(serving, Some(Word::Trouble), 2_000));
        for (phase, patience_ms) in
            [(Phase::Starting(1_000), START_MS), (Phase::Stopping(1_000), STOP_MS)]
        {
            assert!(pets(phase, None, 1_000 + patience_ms - 1));
            assert!(!pets(phase, None, 1_000 + patience_ms));
        }
    }

    #[test]
    fn words_are_those_that_systemd_is_told() {
        assert_eq!(Word::read(b"READY=1\nSTATUS=on the air\nMAINPID=1"), Some(Word::Ready));
        assert_eq!(Word::read(b"WATCHDOG=1"), Some(Word::Alive));
        assert_eq!(Word::read(TROUBLE), Some(Word::Trouble));
        for bytes in [&b""[..], b"STATUS=x\nREADY=1", b"READY=10", b"\xff"] {
            assert_eq!(Word::read(bytes), None);
        }
    }

    #[test]
    fn the_watchdog_is_switched_off_by_its_word_alone() {
        assert!(is_off("console=ttyS1 perennial.watchdog=off panic=10\n"));
        assert!(!is_off("perennial.watchdog=offbeat x=perennial.watchdog=off"));
    }
}
