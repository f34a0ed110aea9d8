//! Our own program fetching: `perennial get --json`, its events and its end.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::process::Signal;

use crate::clients::downloads;
use crate::hosts::Host;
use crate::process::{Process, program, wait_until};
use crate::seed::{read_lines, text};

/// Our program, fetching.
pub struct Getter {
    process: Process,
    receiver: Receiver<String>,
    events: RefCell<Vec<String>>,
    downloads: PathBuf,
    links: usize,
}

impl Getter {
    /// Starts fetching `links`, each a magnet link or the path of a `.torrent`, on `host`.
    pub fn start(host: &Host, links: &[String], options: &[&str]) -> Getter {
        let mut command = program(env!("CARGO_BIN_EXE_perennial"));
        command.arg("get").args(links).args(options).arg("-o").arg(downloads(host));
        command.arg("--json").arg("--state").arg(host.home().join("state"));
        command.env("RUST_LOG", "debug");
        let (process, stdout) = Process::start_piped(host, &mut command);
        let (receiver, events) = (read_lines(stdout), RefCell::default());
        Getter { process, receiver, events, downloads: downloads(host), links: links.len() }
    }

    /// Where what it fetches arrives, each share under its own name.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    /// How many events of that name it has given so far.
    pub fn count(&self, event: &str) -> usize {
        let mut events = self.events.borrow_mut();
        events.extend(self.receiver.try_iter());
        events.iter().filter(|line| text(line, "event").as_deref() == Some(event)).count()
    }

    /// Whether all it was asked for is here and verified.
    pub fn is_complete(&self) -> bool {
        let complete = self.count("complete") == self.links;
        if let Some(status) = self.process.ended().filter(|_| !complete) {
            panic!("our program ended with {status}\n{}", self.last_words());
        }
        complete
    }

    /// Waits for all of it.
    pub fn wait_until_complete(&self, limit: Duration, words: impl Fn() -> String) {
        wait_until(
            "our program has everything",
            limit,
            || self.is_complete().then_some(()),
            || format!("{}\n{}", self.last_words(), words()),
        );
    }

    /// Asks it to stop; bytes of content it has sent.
    pub fn stop(self) -> u64 {
        self.process.signal(Signal::TERM);
        let limit = Duration::from_millis(3500);
        let status =
            wait_until("our program stops", limit, || self.process.ended(), || self.last_words());
        assert!(status.success(), "stopped with {status}\n{}", self.last_words());
        let mut last = String::new();
        loop {
            match self.receiver.try_recv() {
                Ok(line) => last = line,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
        assert_eq!(text(&last, "event").as_deref(), Some("stopped"), "its last line is {last:?}");
        let (_, number) = last.split_once("\"sent_bytes\":").expect("it says what it has sent");
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    pub fn last_words(&self) -> String {
        let events = self.events.borrow();
        let tail = events[events.len().saturating_sub(10)..].join("\n");
        format!("{}--- its last events ---\n{tail}\n", self.process.last_words())
    }
}
