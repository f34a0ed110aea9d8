//! What is told to whoever started the box: that it is ready, alive, reading its configuration
//! again, or stopping (`sd_notify(3)`, for units of type `notify` and `notify-reload`).
//!
//! One datagram for each, to the socket that `NOTIFY_SOCKET` names: a path, or an abstract name after
//! an `@`. When nothing is set nobody has asked, and nothing is done. What is said once waits for up
//! to a second until it is taken; what is said again later is dropped when nobody takes it at once,
//! so that a supervisor that hangs does not stop the box.
//!
//! ```text
//! READY=1  STATUS=..  MAINPID=..            it serves; also after a reload
//! RELOADING=1  MONOTONIC_USEC=..            SIGHUP has come
//! WATCHDOG=1                                it is alive, twice in the time it has for that
//! X_TROUBLE=1                               it cannot do what it should
//! STOPPING=1                                it stops
//! ```

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{send, sendto, socket_with};
use std::ffi::{OsStr, OsString};
use std::format;
use std::os::unix::ffi::OsStrExt as _;
use std::string::String;
use std::time::Duration;

/// Whom to tell, if anybody.
#[derive(Debug, Default)]
pub struct Notify {
    /// The socket, and where to send; nowhere when it is one of a pair.
    supervisor: Option<(OwnedFd, Option<SocketAddrUnix>)>,
    watchdog_us: Option<u64>,
    pid: u32,
}

/// What a supervisor leaves in the environment.
#[derive(Clone, Debug, Default)]
struct Wish {
    socket: Option<OsString>,
    watchdog_us: Option<OsString>,
    watchdog_pid: Option<OsString>,
}

impl Notify {
    /// Whoever is named in the environment.
    pub fn from_env() -> Notify {
        let wish = Wish {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_us: std::env::var_os("WATCHDOG_USEC"),
            watchdog_pid: std::env::var_os("WATCHDOG_PID"),
        };
        Notify::open(&wish, std::process::id())
    }

    /// Whoever has the other one of a pair of sockets, and waits so long for it to be alive.
    pub fn over(socket: OwnedFd, watchdog_ms: Option<u64>) -> Notify {
        let watchdog_us = watchdog_ms.map(|ms| ms * 1_000);
        Notify { supervisor: Some((socket, None)), watchdog_us, pid: std::process::id() }
    }

    fn open(wish: &Wish, pid: u32) -> Notify {
        let Some(name) = wish.socket.as_deref().filter(|name| !name.is_empty()) else {
            return Notify { pid, ..Notify::default() };
        };
        let supervisor = open_socket(name).map_err(|error| {
            warn!("NOTIFY_SOCKET {}: {error}; nobody is told", name.display());
        });
        let supervisor = supervisor.ok().map(|(socket, address)| (socket, Some(address)));
        let number = |text: &Option<OsString>| text.as_ref()?.to_str()?.parse::<u64>().ok();
        // Meant for another process, a wrapper's child say.
        let is_ours = wish.watchdog_pid.is_none() || number(&wish.watchdog_pid) == Some(pid.into());
        let watchdog_us = number(&wish.watchdog_us).filter(|us| *us > 0);
        let watchdog_us = watchdog_us.filter(|_| is_ours && supervisor.is_some());
        Notify { supervisor, watchdog_us, pid }
    }

    /// How often to say [`alive`](Notify::alive), if somebody waits for it: twice in the time there
    /// is.
    pub fn watchdog_every_ms(&self) -> Option<u64> {
        Some((self.watchdog_us? / 2_000).max(1))
    }

    /// It serves, for the first time or after reading its configuration again.
    pub fn ready(&self, status: &str) {
        let (pid, status) = (self.pid, one_line(status));
        self.tell(&format!("READY=1\nSTATUS={status}\nMAINPID={pid}"));
    }

    /// What it is doing, for people.
    pub fn status(&self, status: &str) {
        self.mention(&format!("STATUS={}", one_line(status)));
    }

    /// It is alive.
    pub fn alive(&self) {
        self.mention("WATCHDOG=1");
    }

    /// It cannot do what it should, and the log says why.
    pub fn trouble(&self) {
        self.tell("X_TROUBLE=1");
    }

    /// It reads its configuration again; [`ready`](Notify::ready) ends that. The moment, from
    /// [`clock::monotonic_us`](super::clock::monotonic_us), is one after the signal came.
    pub fn reloading(&self, monotonic_us: u64) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={monotonic_us}"));
    }

    /// It stops.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says what is said once.
    fn tell(&self, words: &str) {
        if let Err(error) = self.send(words, SendFlags::NOSIGNAL) {
            warn!("whoever started us could not be told: {error}");
        }
    }

    /// Says what is said again later.
    fn mention(&self, words: &str) {
        if let Err(error) = self.send(words, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            debug!("whoever started us could not be told: {error}");
        }
    }

    fn send(&self, words: &str, flags: SendFlags) -> Result<()> {
        let Some((socket, address)) = &self.supervisor else { return Ok(()) };
        rustix::io::retry_on_intr(|| match address {
            Some(address) => sendto(socket, words.as_bytes(), flags, address),
            None => send(socket, words.as_bytes(), flags),
        })?;
        Ok(())
    }
}

fn open_socket(name: &OsStr) -> Result<(OwnedFd, SocketAddrUnix)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        path @ [b'/', ..] => SocketAddrUnix::new(path),
        // Another kind of socket, such as a virtual machine's.
        _ => Err(Errno::AFNOSUPPORT),
    };
    let address = address?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    Ok((socket, address))
}

/// A line break would begin another word.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// The longest that telling takes.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use std::string::ToString;

    fn wish(socket: impl AsRef<OsStr>) -> Wish {
        let watchdog_us = Some("30000000".into());
        Wish { socket: Some(socket.as_ref().into()), watchdog_us, watchdog_pid: None }
    }

    fn heard(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn every_word_arrives_as_systemd_wants_it() {
        let folder = TestFolder::new("words");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::open(&wish(&path), 4711);
        notify.ready("serving 3 shares");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving 3 shares\nMAINPID=4711");
        notify.status("a name\nREADY=1");
        assert_eq!(heard(&socket), "STATUS=a name READY=1");
        notify.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        notify.reloading(1_234_567);
        assert_eq!(heard(&socket), "RELOADING=1\nMONOTONIC_USEC=1234567");
        notify.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn a_socket_may_have_a_name_and_no_path() {
        let name = format!("perennial-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notify::open(&wish(format!("@{name}")), 1).stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_told_twice_in_its_time_and_only_by_the_process_it_means() {
        let folder = TestFolder::new("watchdog");
        let path = folder.path().join("socket");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let every = |wish: &Wish| Notify::open(wish, 7).watchdog_every_ms();
        let asked = wish(&path);
        assert_eq!(every(&asked), Some(15_000));
        for (pid, expected) in [("7", Some(15_000)), ("8", None), ("seven", None)] {
            assert_eq!(every(&Wish { watchdog_pid: Some(pid.into()), ..asked.clone() }), expected);
        }
        for (us, expected) in
            [("0", None), ("", None), ("soon", None), ("-1", None), ("1", Some(1))]
        {
            assert_eq!(every(&Wish { watchdog_us: Some(us.into()), ..asked.clone() }), expected);
        }
        assert_eq!(every(&Wish { socket: None, ..asked }), None);
    }

    #[test]
    fn nobody_is_told_when_nobody_asked_or_nobody_can_be_reached() {
        let gone = TestFolder::new("gone").path().join("socket").display().to_string();
        let long = "/".to_string() + &"x".repeat(200);
        for name in ["", "vsock:2:1234", "relative", "@", &long, &gone] {
            let notify = Notify::open(&wish(name), 1);
            notify.ready("");
            notify.alive();
            notify.stopping();
        }
        let notify = Notify::open(&Wish::default(), 1);
        notify.ready("");
        assert_eq!(notify.watchdog_every_ms(), None);
    }

    #[test]
    fn a_supervisor_that_does_not_listen_does_not_stop_the_box() {
        let folder = TestFolder::new("deaf");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::open(&wish(&path), 1);
        let before = std::time::Instant::now();
        (0..10_000).for_each(|_| notify.alive());
        notify.stopping();
        assert!(before.elapsed() < 5 * PATIENCE, "it was waited for too long");
        assert_eq!(heard(&socket), "WATCHDOG=1");
    }
}
