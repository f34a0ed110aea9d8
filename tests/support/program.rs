//! The real program in a test: started, listened to, and ended by its own process id.
//!
//! A [`Call`] is a command line being put together. [`Call::start`] waits until it serves,
//! [`Call::refusal`] until it has refused and holds every refusal to the same rules. What it says
//! on stdout is read as another program would read it, JSON line by line; what it says on stderr
//! goes into a log that a failing test shows the end of.
//!
//! Nothing here sleeps for a fixed time: [`wait_until`] polls and gives up at a deadline.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A folder of the test's own, removed with all that is in it when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder in cargo's place for tests.
    pub fn new(name: &str) -> Folder {
        Folder::within(Path::new(env!("CARGO_TARGET_TMPDIR")), name)
    }

    /// An empty folder in `parent`.
    pub fn within(parent: &Path, name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it, with the folders on the way there.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).unwrap();
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A call of the program, being put together.
pub struct Call {
    /// What runs it: empty, or another program with its arguments.
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    listen: Option<String>,
    board: Option<String>,
    /// Where its page is; most tests want none.
    web: Option<String>,
    /// Also where its log goes.
    home: PathBuf,
    state: PathBuf,
    json: bool,
}

impl Call {
    /// `perennial share` of `paths`, on the board `small`, at a free port of 127.0.0.1; its log
    /// and its state folder, `state`, are kept in `home`.
    pub fn share(home: &Folder, paths: &[&Path]) -> Call {
        Call::of("share", home, paths)
    }

    /// `perennial get` of `torrents` into the folder `got` of `home`; the rest as for a share.
    pub fn get(home: &Folder, torrents: &[&Path]) -> Call {
        Call::of("get", home, torrents).with(&[Path::new("-o"), &home.path().join("got")])
    }

    /// `perennial run` with a configuration of that text, which is kept in `home`; the rest as for
    /// a share.
    pub fn run_box(home: &Folder, config: &str) -> Call {
        let file = home.write("box.toml", config.as_bytes());
        Call::of("run", home, &[Path::new("--config"), &file])
    }

    fn of(command: &str, home: &Folder, paths: &[&Path]) -> Call {
        let paths = paths.iter().map(|path| path.as_os_str().to_owned());
        Call {
            wrapper: Vec::new(),
            arguments: std::iter::once(command.into()).chain(paths).collect(),
            environment: Vec::new(),
            listen: Some("127.0.0.1:0".into()),
            board: Some("small".into()),
            web: Some("off".into()),
            home: home.path().to_owned(),
            state: home.path().join("state"),
            json: true,
        }
    }

    /// `perennial run` with what `config` says; the rest as for a share.
    pub fn a_box(home: &Folder, config: &str) -> Call {
        let file = home.write("box.toml", config.as_bytes());
        Call::of("run", home, &[]).with(&[Path::new("--config"), &file])
    }

    /// The same of one torrent into the folder `output`, until all of it is there.
    pub fn get_into(home: &Folder, torrent: &Path, output: &Path) -> Call {
        Call::of("get", home, &[torrent]).with(&[Path::new("--exit"), Path::new("-o"), output])
    }

    /// More arguments.
    pub fn with<A: AsRef<OsStr>>(mut self, arguments: &[A]) -> Call {
        self.arguments.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Another address to listen at; `None` leaves it to the program.
    pub fn listen(mut self, address: Option<&str>) -> Call {
        self.listen = address.map(Into::into);
        self
    }

    /// With a page, at any port of loopback.
    pub fn with_page(self) -> Call {
        self.with_page_at("127.0.0.1:0")
    }

    /// With a page there.
    pub fn with_page_at(self, address: &str) -> Call {
        self.page(Some(address))
    }

    /// With a page somewhere; `None` leaves that to the program.
    pub fn page(mut self, address: Option<&str>) -> Call {
        self.web = address.map(Into::into);
        self
    }

    /// Another board; `None` leaves it to the program.
    pub fn board(mut self, board: Option<&str>) -> Call {
        self.board = board.map(Into::into);
        self
    }

    /// Another state folder.
    pub fn state(mut self, state: &Path) -> Call {
        self.state = state.to_owned();
        self
    }

    /// Sentences on stdout instead of JSON.
    pub fn for_people(mut self) -> Call {
        self.json = false;
        self
    }

    /// Something in its environment.
    pub fn env(mut self, name: &str, value: &OsStr) -> Call {
        self.environment.push((name.into(), value.to_owned()));
        self
    }

    /// Has it run by another program, which gets it as its last arguments.
    pub fn under(mut self, wrapper: &[&str]) -> Call {
        self.wrapper.extend(wrapper.iter().map(Into::into));
        self
    }

    /// Has it run in a network of its own, with a loopback interface and whatever else `set_up`,
    /// a few shell commands, makes there.
    pub fn in_its_own_network(self, set_up: &str) -> Call {
        let script = format!("set -e; ip link set lo up; {set_up}\nexec \"$@\"");
        self.under(&["unshare", "--net", "--mount", "sh", "-c", &script, "sh"])
    }

    /// Has it run in the network of another.
    pub fn in_the_network_of(self, other: &Program) -> Call {
        let target = other.id().to_string();
        self.under(&["nsenter", "--net", "--target", &target])
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Program {
        let mut program = self.launch();
        program.wait_until_ready();
        program
    }

    /// Starts it and waits for nothing.
    pub fn launch(self) -> Program {
        let log = (1..).map(|run| self.home.join(format!("log.{run}"))).find(|log| !log.exists());
        let log = log.expect("there are more numbers than runs");
        let mut command = self.command();
        command.env("RUST_LOG", "info,perennial=debug");
        command.stdout(Stdio::piped()).stderr(File::create(&log).expect("a log can be written"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let events = read_lines(child.stdout.take().expect("stdout was asked to be a pipe"));
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let state = self.state;
        let (shares, added) = (Vec::new(), Vec::new());
        let (page, ready_at) = (Value::Null, None);
        Program { child, events, log, state, shares, added, address, page, ready_at }
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        let limit = Instant::now() + PATIENCE;
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        while child.try_wait().expect("a child can be waited for").is_none() {
            if Instant::now() > limit {
                let _ = child.kill();
                panic!("{command:?} does not end");
            }
            thread::sleep(POLL);
        }
        let output = child.wait_with_output().expect("what it said can be read");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
        Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs it to its end, which has to be a refusal: a status that is not 0, nothing on stdout,
    /// one sentence on stderr in its last line that says what, why and what would help. Gives
    /// that line.
    pub fn refusal(self) -> String {
        let ended = self.run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "nothing on stdout: {}", ended.stderr);
        let said: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with("perennial: ")).collect();
        let [line] = said[..] else { panic!("not one sentence: {}", ended.stderr) };
        assert_eq!(ended.stderr.lines().last(), Some(line), "it is the last word");
        let (problem, remedy) = line.rsplit_once("; ").expect("a remedy follows the problem");
        assert!(remedy.len() > 4 && problem.contains(": "), "{line}");
        line.to_string()
    }

    fn command(&self) -> Command {
        let mut line = self.wrapper.clone();
        line.push(binary().into());
        line.extend(self.arguments.iter().cloned());
        for (option, value) in
            [("--listen", &self.listen), ("--board", &self.board), ("--web", &self.web)]
        {
            line.extend(value.iter().flat_map(|value| [option.into(), value.into()]));
        }
        line.extend(["--state".into(), self.state.clone().into()]);
        line.extend(self.json.then(|| "--json".into()));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().env("HOME", &self.home).env("LC_ALL", "C.UTF-8");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it said on stdout.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

/// A running program, killed when dropped.
pub struct Program {
    child: Child,
    /// Behind a lock because threads of a test share the program they fetch from.
    events: Mutex<Receiver<String>>,
    log: PathBuf,
    state: PathBuf,
    /// What it said of its shares.
    pub shares: Vec<Share>,
    /// What it said of what it fetches.
    pub added: Vec<Added>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it said of its page, if it has one.
    pub page: Value,
    ready_at: Option<Instant>,
}

/// One share as the program announced it.
#[derive(Clone, Debug)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Its info-hash.
    pub info_hash: [u8; 20],
    /// Its magnet link.
    pub magnet: String,
    /// Where its `.torrent` is.
    pub torrent: PathBuf,
    /// Bytes of its content.
    pub bytes: u64,
    /// How many files it has.
    pub files: u64,
    /// Length of its pieces.
    pub piece_bytes: u32,
}

/// One torrent that is to be fetched, as the program announced it.
#[derive(Clone, Debug)]
pub struct Added {
    /// What it says of a share too.
    pub share: Share,
    /// Bytes of pieces that are wanted.
    pub wanted_bytes: u64,
    /// Bytes of these that were there.
    pub here_bytes: u64,
    /// Where its content goes.
    pub path: PathBuf,
}

/// What the program said as it stopped.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Bytes of content sent.
    pub sent_bytes: u64,
    /// Bytes read for that.
    pub read_bytes: u64,
}

impl Program {
    /// Waits for its shares and for the moment it serves.
    pub fn wait_until_ready(&mut self) {
        while self.ready_at.is_none() {
            let event = self.next_event().unwrap_or_else(|| panic!("it ended\n{}", self.log()));
            match event["event"].as_str() {
                Some("share") => self.shares.push(Share::from(&event)),
                Some("added") => self.added.push(Added::from(&event)),
                Some("page") => self.page = event,
                Some("ready") => {
                    let listen = event["listen"][0].as_str().expect("it says where it listens");
                    self.address = listen.parse().expect("it listens at an address");
                    self.ready_at = Some(Instant::now());
                }
                _ => panic!("neither a share, a page nor ready: {event}"),
            }
        }
    }

    /// Tells the running box something, in another process; how that ended.
    pub fn tell<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ended {
        tell(&self.state, arguments)
    }

    /// The same with `--json`, when it has to succeed: what was answered, without the end of it.
    pub fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Vec<Value> {
        let json = OsStr::new("--json");
        let arguments: Vec<&OsStr> =
            arguments.iter().map(AsRef::as_ref).chain(std::iter::once(json)).collect();
        let ended = self.tell(&arguments);
        assert!(ended.status.success(), "{arguments:?}: {}\n{}", ended.stderr, self.log());
        let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &Value| line["done"].is_null()).collect()
    }

    /// What the running box lists.
    pub fn list(&self) -> Vec<Value> {
        self.ask(&["list"]).iter().map(|line| line["torrent"].clone()).collect()
    }

    /// What it says of one torrent when asked to show it; nothing while it does not know it.
    pub fn find(&self, what: &str) -> Option<Value> {
        let ended = self.tell(&["show", what, "--json"]);
        let first = ended.stdout.lines().next().filter(|_| ended.status.success())?;
        let detail: Value = serde_json::from_str(first).expect("JSON");
        Some(detail["detail"].clone())
    }

    /// Waits until the running box knows a torrent and something is true of it.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let found = || self.find(what).filter(&is_so);
        let evidence = || format!("{:?}\n{}", self.find(what), self.log());
        wait_until(what, PATIENCE, found, evidence)
    }

    /// Waits until the running box has hashed a share.
    pub fn wait_for_share(&self, name: &str) -> Share {
        let whole = |detail: &Value| detail["torrent"]["state"] != "fetching";
        Share::of(&self.wait_for(name, whole))
    }

    /// How a box is.
    pub fn stats(&self) -> Value {
        self.ask(&["stats"]).swap_remove(0)["stats"].take()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The id of the process that holds its state folder: its own, also under another program.
    pub fn own_id(&self) -> u32 {
        let lock = fs::read_to_string(self.state.join("lock")).expect("its lock holds its number");
        lock.trim().parse().expect("its lock holds its number")
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Everything it has said on stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said something on stderr.
    pub fn wait_for_words(&self, words: &str) {
        wait_until(words, PATIENCE, || self.log().contains(words).then_some(()), || self.log());
    }

    /// Lines it says on stdout, up to one that has these words in it.
    pub fn lines_until(&self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(words)) {
            let line = self.next_line();
            lines.push(line.unwrap_or_else(|_| panic!("no {words}: {lines:?}\n{}", self.log())));
        }
        lines
    }

    /// Events it gives, up to the first of that name, which is the last of them.
    pub fn events_until(&self, name: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        while events.last().is_none_or(|event| event["event"] != name) {
            let event = self.next_event();
            events.push(event.unwrap_or_else(|| panic!("no {name}: {events:?}\n{}", self.log())));
        }
        events
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // A child not yet waited for keeps its id, so this reaches nobody else.
        kill_process(Pid::from_child(&self.child), signal).expect("our child can be signalled");
    }

    /// Waits for its end; how it ended, and the events it had not been asked for.
    pub fn wait(mut self) -> (ExitStatus, Vec<Value>) {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("a child can be waited for");
        let status = wait_until("it ends", PATIENCE, ended, String::new);
        (status, std::iter::from_fn(|| self.next_event()).collect())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Ends it as Ctrl-C does and checks that this is a good end.
    pub fn stop(self) -> Totals {
        self.stop_with(Signal::INT)
    }

    /// Ends it with a signal and checks that this is a good end.
    pub fn stop_with(self, signal: Signal) -> Totals {
        self.signal(signal);
        self.stopped()
    }

    /// Ends the program itself with a signal, not what runs it, and checks that this is a good end.
    pub fn stop_own(self, signal: Signal) -> Totals {
        let own = Pid::from_raw(self.own_id() as i32).expect("a process id is not 0");
        kill_process(own, signal).expect("what our child runs can be signalled");
        self.stopped()
    }

    /// Ends it as systemd does and checks that this is a good end, whatever it has told of before.
    pub fn end(self) -> Totals {
        self.signal(Signal::TERM);
        self.ended().0
    }

    /// Waits for a good end: status 0, and its totals as its only event.
    pub fn stopped(self) -> Totals {
        let log = self.log.clone();
        let (totals, before) = self.ended();
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(before.is_empty(), "not one event: {before:?}\n{}", log());
        totals
    }

    /// Waits for a good end: status 0, and its totals as its last event; what it said before.
    pub fn ended(self) -> (Totals, Vec<Value>) {
        let log = self.log.clone();
        let (status, mut events) = self.wait();
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{status}\n{}", log());
        let stopped = events.pop().unwrap_or_else(|| panic!("no event\n{}", log()));
        assert_eq!(stopped["event"], "stopped");
        let number = |key: &str| stopped[key].as_u64().expect("totals are numbers");
        (Totals { sent_bytes: number("sent_bytes"), read_bytes: number("read_bytes") }, events)
    }

    /// Ends it as a power cut does, as far as a process can have one.
    pub fn kill(mut self) {
        self.child.kill().expect("our child can be killed");
        self.child.wait().expect("our child can be waited for");
    }

    /// A number from a file in its folder under `/proc`: what stands behind `key`.
    pub fn proc_number(&self, file: &str, key: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.own_id());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("{path} has no {key}"));
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    }

    /// Does something in its network.
    pub fn in_its_network<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.id());
        let network = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // A thread of its own, which takes its network with it when it ends.
        let act = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network");
            action()
        };
        thread::scope(|scope| scope.spawn(act).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn next_line(&self) -> Result<String, RecvTimeoutError> {
        self.events.lock().expect("no test panics while it waits").recv_timeout(PATIENCE)
    }

    fn next_event(&self) -> Option<Value> {
        match self.next_line() {
            Ok(line) => {
                let event: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
                assert!(event.is_object(), "no object: {line}");
                Some(event)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing\n{}", self.log()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of its log ---");
            lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Share {
    /// What a running box says of a torrent that is all there.
    pub fn of(detail: &Value) -> Share {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let torrent = &detail["torrent"];
        Share {
            name: text(&torrent["name"]),
            info_hash: info_hash(&text(&torrent["info_hash"])),
            magnet: text(&detail["magnet"]),
            torrent: text(&detail["torrent_file"]).into(),
            bytes: number(&torrent["bytes"]),
            files: number(&detail["files"]),
            piece_bytes: number(&detail["piece_bytes"]) as u32,
        }
    }

    fn from(event: &Value) -> Share {
        let text = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("no {key}: {event}"));
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("no {key}: {event}"));
        Share {
            name: text("name").into(),
            info_hash: info_hash(text("info_hash")),
            magnet: text("magnet").into(),
            torrent: text("torrent").into(),
            bytes: number("bytes"),
            files: number("files"),
            piece_bytes: number("piece_bytes") as u32,
        }
    }
}

impl Added {
    fn from(event: &Value) -> Added {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("no {key}: {event}"));
        let path = event["path"].as_str().unwrap_or_else(|| panic!("no path: {event}"));
        Added {
            share: Share::from(event),
            wanted_bytes: number("wanted_bytes"),
            here_bytes: number("here_bytes"),
            path: path.into(),
        }
    }
}

/// The program the tests are about: `PERENNIAL_BIN`, or the one built with them.
pub fn binary() -> PathBuf {
    given_binary().unwrap_or_else(|| env!("CARGO_BIN_EXE_perennial").into())
}

/// The program `scripts/test` names: the static release build, whose memory is the one promised.
pub fn given_binary() -> Option<PathBuf> {
    std::env::var_os("PERENNIAL_BIN").map(PathBuf::from)
}

/// Tells the box that runs on a state folder something; how that ended.
pub fn tell<A: AsRef<OsStr>>(state: &Path, arguments: &[A]) -> Ended {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--state").arg(state).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// An info-hash as forty digits.
pub fn digits(info_hash: &[u8; 20]) -> String {
    info_hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether namespaces, mounts and dropped rights are to be had.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}\n{}", evidence());
        thread::sleep(POLL);
    }
}

/// An info-hash from its forty digits.
fn info_hash(digits: &str) -> [u8; 20] {
    assert_eq!(digits.len(), 40, "{digits}");
    std::array::from_fn(|at| {
        u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("an info-hash is hexadecimal")
    })
}

/// The lines of `stdout`, read for as long as the program lives.
fn read_lines(stdout: ChildStdout) -> Mutex<Receiver<String>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Whether or not somebody still listens: it must never wait on a full pipe.
            let _ = sender.send(line);
        }
    });
    Mutex::new(receiver)
}

/// How long anything may take that takes an instant on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
