//! A board in QEMU: started by `scripts/qemu-run`, listened to on its console, ended by its own
//! process id.
//!
//! The script makes way for QEMU (`exec`), so that the process here is QEMU itself. A thread keeps
//! every line of the console; a test reads on from where it was, and a failing one shows the end of
//! what was said.

use crate::program::{PATIENCE, wait_until};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The boards with firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Cortex-M3, 64 KiB, SD card.
    Lm3s6965,
    /// RISC-V, 256 KiB, NOR flash.
    Rv32,
}

impl Board {
    /// The name of its folder, of its firmware and in its images.
    pub fn name(self) -> &'static str {
        match self {
            Board::Lm3s6965 => "mcu-lm3s6965",
            Board::Rv32 => "mcu-rv32",
        }
    }

    /// The one whose images it has to refuse.
    pub fn other(self) -> Board {
        match self {
            Board::Lm3s6965 => Board::Rv32,
            Board::Rv32 => Board::Lm3s6965,
        }
    }

    /// Where the last words of its runs are kept.
    fn console_log(self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.console", self.name()))
    }

    /// Its firmware, built once in a run of the tests, where cargo builds everything else.
    pub fn firmware(self) -> &'static Path {
        static BUILT: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
        BUILT[self as usize].get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let folder = folder.parent().expect("cargo's place for tests lies in its folder");
            let (alias, target) = match self {
                Board::Lm3s6965 => ("fw-lm3s6965", "thumbv7m-none-eabi"),
                Board::Rv32 => ("fw-rv32", "riscv32imac-unknown-none-elf"),
            };
            let mut command = Command::new(env!("CARGO"));
            command.args([alias, "--quiet", "--target-dir"]).arg(folder);
            let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
            assert!(status.is_ok_and(|status| status.success()), "{command:?} fails");
            // What another firmware has said is of no interest any more.
            let _ = fs::remove_file(self.console_log());
            folder.join(target).join("mcu").join(self.name())
        })
    }
}

/// A start of a board, being put together.
pub struct Setting {
    board: Board,
    image: PathBuf,
    network: Network,
    more: Vec<String>,
}

enum Network {
    /// QEMU's own, with a server of DHCP and the board's port on one of ours; what is added to it.
    User(String),
    /// A hub that QEMU's own network is plugged into beside others.
    Hub,
    /// One where nobody is.
    Deserted,
}

impl Setting {
    /// `board` with `image` in its slot, reached at a free port of 127.0.0.1.
    pub fn new(board: Board, image: &Path) -> Setting {
        let network = Network::User(String::new());
        Setting { board, image: image.into(), network, more: Vec::new() }
    }

    /// Lets the board call `address` too, at [`GATEWAY`]: each connection is given to `command`.
    pub fn with_gateway(mut self, command: &str) -> Setting {
        self.network = Network::User(format!(",guestfwd=tcp:{GATEWAY}-cmd:{command}"));
        self
    }

    /// Plugs in a cable whose frames go to the UDP port `to` of 127.0.0.1 and come from `from`.
    pub fn with_cable(mut self, from: u16, to: u16) -> Setting {
        self.network = Network::Hub;
        let cable = format!("socket,id=c,udp=127.0.0.1:{to},localaddr=127.0.0.1:{from}");
        self.with(&["-netdev", &cable, "-netdev", "hubport,id=hc,hubid=0,netdev=c"])
    }

    /// Leaves the board alone on its network.
    pub fn alone(mut self) -> Setting {
        self.network = Network::Deserted;
        self
    }

    /// Writes all frames of the board into a file, in the format of `tcpdump`.
    pub fn with_capture(self, file: &Path) -> Setting {
        let dump = format!("filter-dump,id=dump,netdev=n,file={}", file.display());
        self.with(&["-object", &dump])
    }

    /// More arguments for QEMU.
    pub fn with(mut self, arguments: &[&str]) -> Setting {
        self.more.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }

    /// Switches the board on and waits until it listens.
    pub fn start(self) -> Machine {
        let mut machine = self.launch();
        machine.wait_for("listening on ");
        machine
    }

    /// Switches the board on and waits for nothing.
    pub fn launch(self) -> Machine {
        let port = free_port();
        let user = format!("user,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:6881");
        let (net, more) = match &self.network {
            Network::User(more) => (format!("{user}{more}"), vec![]),
            Network::Hub => {
                let user = format!("{user},id=u");
                let plug = "hubport,id=hu,hubid=0,netdev=u".to_string();
                ("hubport,hubid=0".into(), vec!["-netdev".into(), user, "-netdev".into(), plug])
            }
            Network::Deserted => {
                (format!("socket,udp=127.0.0.1:9,localaddr=127.0.0.1:{port}"), vec![])
            }
        };
        let mut command = Command::new("scripts/qemu-run");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(self.board.name()).arg(&self.image);
        command.args(["--net", &net, "--firmware"]).arg(self.board.firmware());
        command.arg("--").args(more).args(self.more);
        // Beside the image, because what QEMU itself has to say is worth a look afterwards.
        let log = File::create(self.image.with_extension("qemu.log")).expect("a log is writable");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let console = Arc::new(Console::default());
        let output = child.stdout.take().expect("stdout was asked to be a pipe");
        let keeper = console.clone();
        thread::spawn(move || keeper.keep(output));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Machine { board: self.board, child, console, read: 0, address, image: self.image }
    }
}

/// A board that is switched on; dropped, it is switched off at once.
pub struct Machine {
    board: Board,
    child: Child,
    console: Arc<Console>,
    /// Lines of the console that have been read.
    read: usize,
    /// Where its port 6881 is reached.
    pub address: SocketAddr,
    image: PathBuf,
}

/// A line of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Connected peers.
    pub peers: u64,
    /// Bytes of content it has sent, in all its runs.
    pub sent: u64,
    /// How many of them are recorded.
    pub recorded: u64,
}

/// What it says last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Bytes of content it has sent, in all its runs.
    pub sent: u64,
    /// The deepest the stack has been.
    pub stack: u64,
    /// How deep it may be.
    pub stack_max: u64,
}

impl Machine {
    /// The next line that begins with `prefix`, without it.
    pub fn wait_for(&mut self, prefix: &str) -> String {
        self.wait_up_to(PATIENCE, prefix).unwrap_or_else(|| panic!("it does not say: {prefix}"))
    }

    /// The next line that begins with `prefix`, without it, unless the time is over or it ends.
    pub fn wait_up_to(&mut self, limit: Duration, prefix: &str) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut said = self.console.said();
        loop {
            while let Some(line) = said.lines.get(self.read) {
                self.read += 1;
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Some(rest.to_string());
                }
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|_| !said.ended)?;
            said = self.console.news.wait_timeout(said, left).expect("no keeper panics").0;
        }
    }

    /// The first line so far that begins with `prefix`, without it.
    pub fn said(&self, prefix: &str) -> Option<String> {
        let lines = self.lines();
        lines.iter().find_map(|line| line.strip_prefix(prefix)).map(str::to_string)
    }

    /// Everything said so far.
    pub fn lines(&self) -> Vec<String> {
        self.console.said().lines.clone()
    }

    /// Presses a key.
    pub fn press(&mut self, key: u8) {
        let keys = self.child.stdin.as_mut().expect("stdin was asked to be a pipe");
        keys.write_all(&[key]).expect("QEMU takes keys for as long as it runs");
    }

    /// Asks how it is doing.
    pub fn status(&mut self) -> Status {
        // One said before it was asked is not an answer.
        self.read = self.console.said().lines.len();
        self.press(b's');
        let line = format!("status: {}", self.wait_for("status: "));
        Machine::parse_status(&line).unwrap_or_else(|| panic!("no status: {line}"))
    }

    /// What a line of the console says, when it is a whole status.
    pub fn parse_status(line: &str) -> Option<Status> {
        let (peers, rest) = line.strip_prefix("status: ")?.split_once(" peers, ")?;
        let (sent, recorded) = rest.split_once(" bytes sent, ")?;
        let recorded = recorded.strip_suffix(" recorded")?;
        let (peers, sent) = (peers.parse().ok()?, sent.parse().ok()?);
        Some(Status { peers, sent, recorded: recorded.parse().ok()? })
    }

    /// Waits until its status is as wished.
    pub fn wait_until(&mut self, what: &str, mut is: impl FnMut(&Status) -> bool) -> Status {
        wait_until(what, PATIENCE, || Some(self.status()).filter(&mut is), String::new)
    }

    /// Tells it to stop and checks that this is a good end.
    pub fn quit(mut self) -> Stopped {
        self.press(b'q');
        let line = self.wait_for("stopped: ");
        let stopped = parse_stopped(&line).unwrap_or_else(|| panic!("no end: {line}"));
        assert!(stopped.stack > 0 && stopped.stack <= stopped.stack_max, "{line}");
        assert_eq!(self.verdict(), 0);
        // Kept for `scripts/size-report`: of all runs the deepest counts.
        let log = self.board.console_log();
        let mut log = File::options().append(true).create(true).open(log).expect("writable");
        writeln!(log, "stopped: {line}").expect("cargo's place for tests takes a line");
        stopped
    }

    /// Waits for its end and gives its exit status.
    pub fn verdict(&mut self) -> i32 {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("a child can be waited for");
        let status = wait_until("it ends", PATIENCE, ended, String::new);
        status.code().unwrap_or_else(|| panic!("QEMU ended with {status}"))
    }

    /// Cuts its power; every line it has said by then.
    pub fn cut(mut self) -> Vec<String> {
        self.child.kill().expect("our child can be killed");
        self.child.wait().expect("our child can be waited for");
        let ended = || self.console.said().ended.then_some(());
        wait_until("its console is read to the end", PATIENCE, ended, String::new);
        self.lines()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.image.with_extension("qemu.log"));
            let lines = self.lines();
            eprintln!("--- the end of the console of {} ---", self.image.display());
            lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| eprintln!("{line}"));
            eprintln!("--- QEMU's own words ---\n{}", log.unwrap_or_default());
        }
    }
}

/// What a console has said.
#[derive(Default)]
struct Console {
    said: Mutex<Said>,
    news: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Console {
    fn said(&self) -> MutexGuard<'_, Said> {
        // What a failing test leaves behind is whole: lines are only added.
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps the lines of `output` for as long as there are any.
    fn keep(&self, output: ChildStdout) {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_string();
            self.said().lines.push(line);
            self.news.notify_all();
        }
        self.said().ended = true;
        self.news.notify_all();
    }
}

/// `N bytes sent, stack N of N`
fn parse_stopped(line: &str) -> Option<Stopped> {
    let (sent, stack) = line.split_once(" bytes sent, stack ")?;
    let (stack, most) = stack.split_once(" of ")?;
    let (sent, stack) = (sent.parse().ok()?, stack.parse().ok()?);
    Some(Stopped { sent, stack, stack_max: most.parse().ok()? })
}

/// A port nobody listens at, below those the system gives to connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16 % 100 * 100;
    loop {
        let number = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + number % PORTS;
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where a board with a gateway calls.
pub const GATEWAY: &str = "10.0.2.100:6969";

const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
