//! A machine that starts from a card: QEMU, always in software, with ports of its own on 127.0.0.1.
//!
//! Its console is read line by line, each with the moment it came. Under emulation the guest's clock
//! is this machine's, so moments of both can be compared. It cannot reach anything outside QEMU.

use crate::card::Card;
use crate::program::{Folder, wait_until};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Machines with firmware that starts EFI programs.
#[derive(Clone, Copy, Debug)]
pub enum Uefi {
    /// 64-bit ARM.
    Arm,
    /// x86-64.
    Pc,
}

/// A machine that is switched on; dropped, its power is cut.
pub struct Machine {
    child: Child,
    console: Arc<Mutex<Vec<(Instant, String)>>>,
    home: Folder,
    /// Where its page is reached.
    pub page: SocketAddr,
    /// Where its peer port is reached.
    pub peer: SocketAddr,
}

impl Machine {
    /// `virt` with so much memory, its kernel taken from the card and started without firmware.
    pub fn virt(card: &Card, mib: u32, command_line: &str, more: &[&str]) -> Machine {
        let home = Folder::new("virt");
        let (kernel, initrd) = (home.path().join("kernel"), home.path().join("initrd"));
        fs::write(&kernel, card.read("a/kernel")).expect("our folder is writable");
        fs::write(&initrd, card.read("a/initrd")).expect("our folder is writable");
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "virt", "-cpu", "cortex-a53", "-m", &mib.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        let line = String::from_utf8(card.read("a/cmdline.txt")).expect("it is text");
        let line = format!("{} {command_line}", line.trim());
        command.args(["-append", &line, "-device", "virtio-blk-device,drive=card"]);
        command.args(["-device", "virtio-net-device,netdev=n"]).args(more);
        Machine::start(command, card, home, "none")
    }

    /// A machine whose firmware starts what is on the card.
    pub fn uefi(card: &Card, kind: Uefi) -> Machine {
        let home = Folder::new("uefi");
        let (machine, code, variables) = match kind {
            Uefi::Arm => (
                &["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"][..],
                "/usr/share/AAVMF/AAVMF_CODE.fd",
                "/usr/share/AAVMF/AAVMF_VARS.fd",
            ),
            Uefi::Pc => (
                &["qemu-system-x86_64", "-M", "q35"][..],
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
        };
        let own = home.path().join("variables");
        fs::copy(variables, &own).unwrap_or_else(|error| panic!("{variables}: {error}"));
        let mut command = Command::new(machine[0]);
        command.args(&machine[1..]).args(["-m", "256", "-device", "virtio-blk-pci,drive=card"]);
        command.args(["-device", "virtio-net-pci,netdev=n,romfile="]);
        let flash = "if=pflash,format=raw";
        command.args(["-drive", &format!("{flash},readonly=on,file={code}")]);
        command.args(["-drive", &format!("{flash},file={}", own.display())]);
        Machine::start(command, card, home, "none")
    }

    /// A Raspberry Pi 3 B, as far as QEMU goes: its firmware is not there, and its watchdog resets it
    /// at once.
    pub fn raspberry(card: &Card) -> Machine {
        let home = Folder::new("raspberry");
        for name in ["kernel", "initrd", "bcm2837-rpi-3-b.dtb"] {
            let bytes = card.read(&format!("a/{name}"));
            fs::write(home.path().join(name), bytes).expect("our folder is writable");
        }
        let line = String::from_utf8(card.read("a/cmdline.txt")).expect("it is text");
        let line = format!("{} perennial.watchdog=off", line.trim());
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "raspi3b", "-serial", "null", "-append", &line]);
        for (option, name) in
            [("-kernel", "kernel"), ("-initrd", "initrd"), ("-dtb", "bcm2837-rpi-3-b.dtb")]
        {
            command.arg(option).arg(home.path().join(name));
        }
        command.args(["-device", "usb-net,netdev=n"]);
        Machine::start(command, card, home, "sd")
    }

    /// `bus` is what the card is plugged into.
    fn start(mut command: Command, card: &Card, home: Folder, bus: &str) -> Machine {
        let [page, peer] = free_ports();
        let drive = card.path().display().to_string().replace(',', ",,");
        let monitor = home.path().join("monitor").display().to_string();
        command.args(["-accel", "tcg", "-nodefaults", "-nographic", "-no-reboot"]);
        command.args([
            "-serial",
            "stdio",
            "-monitor",
            &format!("unix:{monitor},server=on,wait=off"),
        ]);
        // What a cut of power leaves on a card is tested elsewhere, and better (`tests/powerfail`).
        command.args(["-drive", &format!("file={drive},format=raw,if={bus},id=card,cache=unsafe")]);
        let forward = |to: SocketAddr, port| format!("hostfwd=tcp:{to}-:{port}");
        let (to_page, to_peer) = (forward(page, 8080), forward(peer, 6881));
        command.args(["-netdev", &format!("user,id=n,restrict=on,{to_page},{to_peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(home.path().join("qemu.log")).expect("writable"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let console = Arc::new(Mutex::new(Vec::new()));
        let (keeper, output) = (console.clone(), child.stdout.take().expect("it is a pipe"));
        thread::spawn(move || keep(output, &keeper));
        Machine { child, console, home, page, peer }
    }

    /// The moment a line with that in it came, and the line.
    pub fn wait_for(&self, words: &str, limit: Duration) -> (Instant, String) {
        let find = || self.lines().into_iter().find(|(_, line)| line.contains(words));
        wait_until(words, limit, find, || self.last_words())
    }

    /// In how many lines that was said.
    pub fn times_said(&self, words: &str) -> usize {
        self.lines().iter().filter(|(_, line)| line.contains(words)).count()
    }

    /// Whether a line with that in it has come.
    pub fn has_said(&self, words: &str) -> bool {
        self.lines().iter().any(|(_, line)| line.contains(words))
    }

    fn lines(&self) -> Vec<(Instant, String)> {
        self.console.lock().expect("lines are only added").clone()
    }

    /// The end of its console, and what QEMU itself has said.
    pub fn last_words(&self) -> String {
        let lines = self.lines();
        let last = lines.iter().skip(lines.len().saturating_sub(60));
        let last: Vec<&str> = last.map(|(_, line)| line.as_str()).collect();
        let qemu = fs::read_to_string(self.home.path().join("qemu.log")).unwrap_or_default();
        format!("--- console ---\n{}\n--- QEMU ---\n{qemu}", last.join("\n"))
    }

    /// Tells QEMU something.
    pub fn monitor(&self, words: &str) {
        let mut monitor =
            UnixStream::connect(self.home.path().join("monitor")).expect("it listens");
        monitor.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit is possible");
        let mut buffer = [0; 4096];
        let _ = monitor.read(&mut buffer);
        monitor.write_all(format!("{words}\n").as_bytes()).expect("it reads");
        // It has been done when the next prompt comes.
        let _ = monitor.read(&mut buffer);
        thread::sleep(Duration::from_millis(100));
    }

    /// Presses the button and waits until the machine is off, which has to be a good end.
    pub fn switch_off(mut self) -> Vec<String> {
        self.monitor("system_powerdown");
        self.ended(PATIENCE);
        self.lines().into_iter().map(|(_, line)| line).collect()
    }

    /// Has the program hang: whatever it executes next in a while becomes a loop without an end. QEMU
    /// was started with `-gdb`, at that port.
    pub fn hang_program(&self, port: u16) {
        let mut debugger = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
        debugger.set_read_timeout(Some(PATIENCE)).expect("a limit is possible");
        // Talking to it stops the machine, as it says.
        receive(&mut debugger);
        let (page, is_over) = (self.page, Arc::new(AtomicBool::new(false)));
        // Questions keep it busy.
        let askers = [(); 4].map(|()| {
            let is_over = is_over.clone();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(page) else { return };
                    let _ = stream.write_all(get("/box").as_bytes());
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            })
        });
        let deadline = Instant::now() + PATIENCE;
        for turn in 0.. {
            // 31 registers and the stack's, then where it is.
            let registers = debug(&mut debugger, "g");
            let at: [u8; 8] = std::array::from_fn(|byte| {
                let digits = &registers[2 * (32 * 8 + byte)..][..2];
                u8::from_str_radix(digits, 16).expect("it is in hex")
            });
            let at = u64::from_le_bytes(at);
            // The kernel's addresses are in the upper half.
            let is_program = at >> 48 == 0;
            if is_program {
                // `b .`
                assert_eq!(debug(&mut debugger, &format!("M{at:x},4:00000014")), "OK");
            }
            debugger.write_all(&packet("c")).expect("QEMU reads");
            if is_program {
                break;
            }
            assert!(Instant::now() < deadline, "it never runs\n{}", self.last_words());
            thread::sleep(Duration::from_millis(70 + 10 * (turn % 17)));
            debugger.write_all(&[3]).expect("QEMU reads");
            receive(&mut debugger);
        }
        is_over.store(true, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().expect("asking does not fail"));
    }

    /// Waits until it has switched itself off, or has started again.
    pub fn ended(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.child.try_wait().expect("a child can be waited for").is_none() {
            assert!(Instant::now() < deadline, "it stays on\n{}", self.last_words());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks its page; the head and the body of the answer, if one comes within `limit`.
    pub fn ask(&self, request: &str, limit: Duration) -> Option<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.page).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        Some((head, answer.split_off(end + 4)))
    }

    /// What is at an address of its page, which has to be there.
    pub fn look(&self, address: &str) -> Vec<u8> {
        let get = || self.ask(&get(address), Duration::from_secs(5));
        let (head, body) = wait_until(address, PATIENCE, get, || self.last_words());
        assert!(head.starts_with("HTTP/1.1 200 "), "{address}: {head}\n{}", self.last_words());
        body
    }

    /// When the first byte of its page came. What is asked before it listens is lost, so it is asked
    /// every few milliseconds, each time anew.
    pub fn first_byte(&self) -> Instant {
        let first: Arc<Mutex<Option<Instant>>> = Arc::default();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (page, came) = (self.page, first.clone());
            thread::spawn(move || {
                let Ok(mut stream) = TcpStream::connect(page) else { return };
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.write_all(get("/").as_bytes());
                if stream.read(&mut [0; 1]).is_ok_and(|length| length == 1) {
                    came.lock().expect("nobody panics").get_or_insert(Instant::now());
                }
            });
            if let Some(came) = *first.lock().expect("nobody panics") {
                return came;
            }
            assert!(Instant::now() < deadline, "no byte comes\n{}", self.last_words());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// A request for an address, after whose answer the connection ends.
pub fn get(address: &str) -> String {
    format!("GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
}

/// Asks QEMU's debugger something (GDB's remote protocol).
fn debug(debugger: &mut TcpStream, words: &str) -> String {
    debugger.write_all(&packet(words)).expect("QEMU reads");
    receive(debugger)
}

fn packet(words: &str) -> Vec<u8> {
    let sum = words.bytes().fold(0_u8, u8::wrapping_add);
    format!("${words}#{sum:02x}").into_bytes()
}

/// The next packet, which is acknowledged.
fn receive(debugger: &mut TcpStream) -> String {
    let mut next = || {
        let mut byte = [0];
        debugger.read_exact(&mut byte).expect("QEMU answers");
        byte[0]
    };
    while next() != b'$' {}
    let words = std::iter::from_fn(|| Some(next()).filter(|byte| *byte != b'#'));
    let words: Vec<u8> = words.collect();
    // A checksum, on a line that loses nothing.
    next();
    next();
    debugger.write_all(b"+").expect("QEMU reads");
    String::from_utf8(words).expect("it speaks ASCII")
}

fn keep(output: ChildStdout, console: &Mutex<Vec<(Instant, String)>>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_string();
        console.lock().expect("lines are only added").push((Instant::now(), line));
    }
}

/// Ports nobody listens at.
pub fn free_ports() -> [SocketAddr; 2] {
    let open = || TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let both = [open(), open()];
    both.map(|one| one.local_addr().expect("it has an address"))
}

/// Longer than anything takes that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The scripts of the repository are there.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
