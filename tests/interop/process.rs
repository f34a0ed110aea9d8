//! Programs a test has started, and the waiting for what they are to do.
//!
//! Every program writes what it has to say into a log file; a test that waits in vain shows the end
//! of each log, so that a failure can be understood without running it again. Nothing sleeps for a
//! fixed time: [`wait_until`] polls, and gives up at a deadline.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::hosts::Host;

/// A command that runs `program` with none of our environment: no proxy, no settings of whoever
/// runs the tests, and file names in UTF-8.
pub fn program(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A running program, killed with all it started when it is dropped.
pub struct Process {
    name: String,
    /// Asking whether it has ended reaps it, which is no change worth a `&mut` in every caller.
    child: RefCell<Child>,
    logs: Vec<PathBuf>,
}

impl Process {
    /// Starts `command` on `host`; what it prints on either stream goes to its log.
    pub fn start(host: &Host, command: &mut Command) -> Process {
        let log = log_beside(host.home(), command);
        let file = File::create(&log).expect("the test's own folder is writable");
        let errors = file.try_clone().expect("a file can be opened twice");
        Process::spawn(host, command.stdout(file).stderr(errors), log)
    }

    /// Starts `command` on `host`; its standard output is returned, the rest goes to its log.
    pub fn start_piped(host: &Host, command: &mut Command) -> (Process, ChildStdout) {
        let log = log_beside(host.home(), command);
        let file = File::create(&log).expect("the test's own folder is writable");
        let process = Process::spawn(host, command.stdout(Stdio::piped()).stderr(file), log);
        let stdout =
            process.child.borrow_mut().stdout.take().expect("stdout was asked to be a pipe");
        (process, stdout)
    }

    fn spawn(host: &Host, command: &mut Command, log: PathBuf) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        // A group of its own, so that what it starts ends with it.
        let command = command.current_dir(host.home()).env("HOME", host.home());
        let command = command.stdin(Stdio::null()).process_group(0);
        let child = host
            .run(|| command.spawn())
            .unwrap_or_else(|error| panic!("starting {name}: {error}; {}", remedy(&name)));
        Process { name, child: RefCell::new(child), logs: vec![log] }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: Signal) {
        // A child not yet waited for keeps its id, so this reaches nobody else.
        let _ = kill_process_group(Pid::from_child(&self.child.borrow()), signal);
    }

    /// Names one more file it writes its log to.
    pub fn also_logs_to(mut self, log: PathBuf) -> Process {
        self.logs.push(log);
        self
    }

    /// How often these words are in its logs.
    pub fn said(&self, words: &str) -> usize {
        let text = |log| String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        self.logs.iter().map(|log| text(log).matches(words).count()).sum()
    }

    /// The last lines of its logs, under its name.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for log in &self.logs {
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            words += &format!("--- {} ({}) ---\n{tail}\n", self.name, log.display());
        }
        words
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            let _ = self.child.get_mut().wait();
        }
    }
}

/// Polls `probe` until it yields a value.
///
/// # Panics
/// After `limit`, naming `what` was waited for, with whatever `evidence` has to say.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
    evidence: impl Fn() -> String,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {} s in vain until {what}\n{}",
            limit.as_secs(),
            evidence()
        );
        thread::sleep(POLL);
    }
}

/// A log file in `home`, under a number if the program has run there before.
fn log_beside(home: &Path, command: &Command) -> PathBuf {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    (1..)
        .map(|run| home.join(format!("{name}.{run}.log")))
        .find(|log| !log.exists())
        .expect("there are more numbers than runs")
}

/// What to do when `program` is not there.
fn remedy(program: &str) -> String {
    let package = match program {
        "transmission-daemon" => "transmission-daemon",
        "transmission-remote" => "transmission-cli",
        "aria2c" => "aria2",
        "qbittorrent-nox" => "qbittorrent-nox",
        "opentracker" => "opentracker",
        "miniupnpd" => "miniupnpd-nftables",
        "nginx" => "nginx-light",
        "/usr/bin/python3" => "python3 python3-libtorrent",
        _ => return String::from("it is built with these tests"),
    };
    format!("install it with: apt install {package}")
}

/// How many lines of a log a failure shows.
const LOG_LINES: usize = 60;

/// How long to wait between two looks.
const POLL: Duration = Duration::from_millis(50);
