//! Other people's clients, as Debian ships them, told of one peer: the board.
//!
//! libtorrent takes its address; aria2 wants a tracker, and gets one that knows nobody else.
//! Both end when all of the share is here.

use crate::program::{Folder, wait_until};
use crate::share::{Image, assert_arrived};
use crate::torrent::Metainfo;
use crate::tracker::{Introduces, Tracker, Transport};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A client at work, killed when dropped.
pub struct Client {
    child: Child,
    home: Folder,
    name: &'static str,
    /// Lives as long as those who ask it.
    _tracker: Option<Tracker>,
}

impl Client {
    /// libtorrent, fetching from the board at `address`.
    pub fn libtorrent(image: &Image, address: SocketAddr) -> Client {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boards/libtorrent_peer.py");
        // Debian's own interpreter: another one that comes first in PATH has no libtorrent.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(".").arg(&image.torrent_file).arg(address.to_string());
        Client::start("libtorrent", command, None)
    }

    /// aria2, fetching from the board at `address`.
    pub fn aria2(image: &Image, address: SocketAddr) -> Client {
        let tracker = Tracker::start(&[([127, 0, 0, 1], 0).into()], Introduces::Everyone);
        let tracker = tracker.expect("loopback has a free port");
        let url = tracker.url(Transport::Http, 0);
        announce_seed(&url, &image.torrent, address.port());
        let mut command = Command::new("aria2c");
        command.args(["--no-conf=true", "--enable-dht=false", "--enable-dht6=false"]);
        command.args(["--interface=127.0.0.1", "--seed-time=0", "--file-allocation=none"]);
        command.args(["--console-log-level=info", "--show-console-readout=false", "--dir=."]);
        command.arg(format!("--bt-tracker={url}")).arg(&image.torrent_file);
        Client::start("aria2", command, Some(tracker))
    }

    fn start(name: &'static str, mut command: Command, tracker: Option<Tracker>) -> Client {
        let home = Folder::new(name);
        let log = File::create(home.path().join("log")).expect("our folder is writable");
        let errors = log.try_clone().expect("a file can be opened twice");
        command.env_clear().env("LC_ALL", "C.UTF-8").env("HOME", home.path());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(home.path());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Client { child, home, name, _tracker: tracker }
    }

    /// Waits until it has everything, and compares that byte by byte.
    pub fn has_everything(mut self) {
        let child = &mut self.child;
        let log = self.home.path().join("log");
        let words = || fs::read_to_string(&log).unwrap_or_default();
        let ended = || child.try_wait().expect("a child can be waited for");
        let status = wait_until(self.name, FETCH_LIMIT, ended, words);
        assert!(status.success(), "{}: {status}\n{}", self.name, words());
        assert_arrived(self.home.path());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the tracker at `url` that a seed listens at `port` of 127.0.0.1.
fn announce_seed(url: &str, torrent: &Metainfo, port: u16) {
    let hash: String = torrent.info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let host = url.trim_start_matches("http://").trim_end_matches("/announce");
    let mut stream = TcpStream::connect(host).expect("our tracker listens");
    let query = format!("info_hash={hash}&peer_id=-TT0001-theboard0000&port={port}&left=0");
    write!(stream, "GET /announce?{query} HTTP/1.1\r\n\r\n").expect("our tracker reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("our tracker answers");
    assert!(answer.contains("8:interval"), "{answer}");
}

/// How long a client may take for the share.
const FETCH_LIMIT: Duration = Duration::from_secs(45);
