//! Our own program as the tests see it: `perennial share --json`, its events and its end.
//!
//! What it prints is a contract for other programs, so it is read here as one would: a JSON object
//! a line. Only the few fields needed are looked for, which spares the tests a JSON parser.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::hosts::Host;
use crate::process::{Process, program, wait_until};

/// One torrent as our program announced it on standard output.
#[derive(Clone, Debug)]
pub struct Share {
    /// What was shared.
    pub path: PathBuf,
    /// Forty hexadecimal digits.
    pub info_hash: String,
    /// The link as printed, with addresses (`x.pe`) a peer on the LAN could use.
    pub magnet: String,
    /// Where the `.torrent` was written.
    pub torrent: PathBuf,
}

impl Share {
    /// The magnet link without our own addresses: whoever uses it must find us some other way.
    pub fn magnet_without_addresses(&self) -> String {
        let (scheme, query) = self.magnet.split_once('?').expect("a magnet link has parameters");
        let kept: Vec<&str> = query.split('&').filter(|part| !part.starts_with("x.pe=")).collect();
        format!("{scheme}?{}", kept.join("&"))
    }

    pub fn info_hash_bytes(&self) -> [u8; 20] {
        let byte = |at| u8::from_str_radix(&self.info_hash[2 * at..2 * at + 2], 16);
        std::array::from_fn(|at| byte(at).expect("an info-hash is hexadecimal"))
    }
}

/// Our program, serving.
pub struct Seed {
    process: Process,
    events: Receiver<String>,
    pub shares: Vec<Share>,
}

impl Seed {
    /// Shares `paths` from `host`, and returns once it accepts connections.
    ///
    /// Its state is kept in the host's home: started again there, it knows what it has hashed.
    pub fn start(host: &Host, paths: &[PathBuf], options: &[&str]) -> Seed {
        let mut command = program(env!("CARGO_BIN_EXE_perennial"));
        command.arg("share").args(paths).args(options);
        command.arg("--json").arg("--state").arg(host.home().join("state"));
        command.env("RUST_LOG", "debug");
        let (process, stdout) = Process::start_piped(host, &mut command);
        let mut seed = Seed { process, events: read_lines(stdout), shares: Vec::new() };
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let line = seed.next_event(deadline);
            match text(&line, "event").as_deref() {
                Some("share") => seed.shares.push(share(&line, paths)),
                Some("page") => {}
                Some("ready") => break,
                _ => panic!("neither a share, a page nor ready: {line}\n{}", seed.last_words()),
            }
        }
        assert_eq!(seed.shares.len(), paths.len(), "each path is one torrent");
        seed
    }

    /// Learns what `paths` will be called without serving them for longer than it takes to hash.
    pub fn learn(host: &Host, paths: &[PathBuf], options: &[&str]) -> Vec<Share> {
        let seed = Seed::start(host, paths, options);
        let shares = seed.shares.clone();
        seed.stop();
        shares
    }

    /// Asks it to stop, which takes at most two seconds.
    pub fn stop(self) {
        self.stop_and_count();
    }

    /// Asks it to stop; how many bytes of content it has sent.
    pub fn stop_and_count(self) -> u64 {
        self.process.signal(Signal::TERM);
        let asked = Instant::now();
        // Two seconds are the promise; the rest is for a machine busy with other tests.
        let limit = Duration::from_millis(3500);
        let status =
            wait_until("our program stops", limit, || self.process.ended(), || self.last_words());
        assert!(status.success(), "stopped with {status} after {:?}", asked.elapsed());
        let last = self.events.iter().last().unwrap_or_default();
        assert_eq!(text(&last, "event").as_deref(), Some("stopped"), "its last line is {last:?}");
        let sent = last.split_once("\"sent_bytes\":").map(|(_, rest)| rest.split([',', '}']));
        let sent = sent.and_then(|mut numbers| numbers.next()?.trim().parse().ok());
        sent.unwrap_or_else(|| panic!("no sent_bytes in {last}"))
    }

    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    fn next_event(&self, deadline: Instant) -> String {
        let left = deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(left).unwrap_or_else(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "was not ready in time",
                RecvTimeoutError::Disconnected => "ended before it was ready",
            };
            panic!("our program {what}\n{}", self.last_words())
        })
    }
}

/// The lines of `stdout`, read for as long as the program lives.
pub fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Whether or not somebody still listens: it must never wait on a full pipe.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn share(line: &str, paths: &[PathBuf]) -> Share {
    let field = |key| text(line, key).unwrap_or_else(|| panic!("no \"{key}\" in {line}"));
    let name = field("name");
    let is_named = |path: &&PathBuf| path.file_name() == Some(Path::new(&name).as_os_str());
    let path = paths.iter().find(is_named);
    Share {
        path: path.unwrap_or_else(|| panic!("{name:?} was not asked to be shared")).clone(),
        info_hash: field("info_hash"),
        magnet: field("magnet"),
        torrent: field("torrent").into(),
    }
}

/// The string under `key` in a JSON object without nested ones.
///
/// A quote inside a string is escaped, so `"key":` cannot be found there.
pub fn text(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    let mut rest = rest.trim_start().strip_prefix('"')?.chars();
    // UTF-16, because that is what `\u` escapes are made of.
    let mut units = Vec::new();
    loop {
        let mut plain = |char: char| {
            units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
        };
        match rest.next()? {
            '"' => return String::from_utf16(&units).ok(),
            '\\' => match rest.next()? {
                'n' => plain('\n'),
                't' => plain('\t'),
                'r' => plain('\r'),
                'b' => plain('\u{8}'),
                'f' => plain('\u{c}'),
                'u' => {
                    let digits: String = rest.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                }
                other => plain(other),
            },
            other => plain(other),
        }
    }
}

/// How long our program may take to hash and listen: 5 GiB without SHA instructions, on a busy
/// machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
