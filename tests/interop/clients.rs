//! Other people's clients, as Debian ships them, fetching and seeding on machines of their own.
//!
//! Each runs with its defaults but for what would reach outside the test (DHT, port mapping), what
//! would keep it waiting (queues, Transmission's uTP), and local discovery, which a test turns on
//! or off. Defaults matter here: that a client first tries an encrypted handshake, or uTP, is part
//! of what must work.
//!
//! A client is done when it says so itself; whether it is right is for [`content`](crate::content).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hosts::Host;
use crate::process::{Process, program, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Transmission,
    Aria2,
    Qbittorrent,
    Libtorrent,
}

impl Client {
    pub const ALL: [Client; 4] =
        [Client::Transmission, Client::Aria2, Client::Qbittorrent, Client::Libtorrent];

    /// A short name for its machine.
    pub fn role(self) -> &'static str {
        match self {
            Client::Transmission => "transmission",
            Client::Aria2 => "aria2",
            Client::Qbittorrent => "qbittorrent",
            Client::Libtorrent => "libtorrent",
        }
    }

    /// Whether an empty file of a torrent appears on its disk. Transmission 3.00 creates a file
    /// when it writes the first byte, and so never creates one without bytes.
    pub fn makes_empty_files(self) -> bool {
        self != Client::Transmission
    }

    /// Where it listens unless told otherwise.
    pub fn port(self) -> u16 {
        if self == Client::Transmission { 51_413 } else { 6_881 }
    }

    /// Starts fetching `links`, each a magnet link or the path of a `.torrent`, on `host`.
    pub fn fetch<'h>(self, host: &'h Host, links: &[String], discovery: Discovery) -> Fetch<'h> {
        self.start(host, links, Errand { discovery, seeds: false, upload_kib: 0 })
    }

    /// Starts seeding `torrents`, whose content is in the folder [`downloads`] of `host`, with so
    /// many KiB a second at most; 0 is no limit. It is complete once it has checked it.
    pub fn seed<'h>(
        self,
        host: &'h Host,
        torrents: &[String],
        discovery: Discovery,
        upload_kib: u32,
    ) -> Fetch<'h> {
        self.start(host, torrents, Errand { discovery, seeds: true, upload_kib })
    }

    fn start<'h>(self, host: &'h Host, links: &[String], errand: Errand) -> Fetch<'h> {
        let downloads = downloads(host);
        let process = match self {
            Client::Transmission => start_transmission(host, links, errand),
            Client::Aria2 => start_aria2(host, links, errand),
            Client::Qbittorrent => start_qbittorrent(host, links, errand),
            Client::Libtorrent => start_libtorrent(host, links, errand),
        };
        let (links, seeds) = (links.len(), errand.seeds);
        Fetch { client: self, host, process, downloads, links, seeds }
    }
}

/// What a client is started for.
#[derive(Clone, Copy)]
struct Errand {
    discovery: Discovery,
    seeds: bool,
    upload_kib: u32,
}

/// Where a client on `host` puts what it fetches.
pub fn downloads(host: &Host) -> PathBuf {
    let downloads = host.home().join("downloads");
    fs::create_dir_all(&downloads).expect("the test's own folder is writable");
    downloads
}

/// How a client may find peers beside those a tracker tells it of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    TrackersOnly,
    /// Local service discovery too (BEP 14).
    Local,
}

/// A client at work.
pub struct Fetch<'h> {
    client: Client,
    host: &'h Host,
    process: Process,
    downloads: PathBuf,
    links: usize,
    seeds: bool,
}

impl Fetch<'_> {
    /// Where what it fetches arrives, each share under its own name.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    pub fn client(&self) -> Client {
        self.client
    }

    pub fn last_words(&self) -> String {
        let mut words = self.process.last_words();
        if self.client == Client::Transmission {
            words += &transmission_remote(self.host, &["--list"]).unwrap_or_default();
            let peers = ["--torrent", "all", "--info-peers"];
            words += &transmission_remote(self.host, &peers).unwrap_or_default();
        }
        words
    }

    /// Whether it says that all it was asked for is here and verified.
    pub fn is_complete(&self) -> bool {
        let ended = self.process.ended();
        if self.client == Client::Aria2 && ended.is_some_and(|status| status.success()) {
            return true;
        }
        if let Some(status) = ended {
            panic!("{:?} ended with {status}\n{}", self.client, self.last_words());
        }
        match self.client {
            Client::Transmission => self.complete_by_transmission() == self.links,
            Client::Aria2 => self.seeds && self.checked_by_aria2() == self.links,
            Client::Qbittorrent => self.complete_by_qbittorrent() == self.links,
            Client::Libtorrent => self.host.home().join("complete").exists(),
        }
    }

    fn complete_by_transmission(&self) -> usize {
        let list = transmission_remote(self.host, &["--list"]).unwrap_or_default();
        // ID, Done, Have, ...: a magnet link without metadata yet has 0% or n/a.
        list.lines().filter(|line| line.split_whitespace().nth(1) == Some("100%")).count()
    }

    fn checked_by_aria2(&self) -> usize {
        self.process.said("Verification finished successfully")
    }

    fn complete_by_qbittorrent(&self) -> usize {
        let api = SocketAddr::from(([127, 0, 0, 1], WEB_PORT));
        let list = http_body(self.host, api, "/api/v2/torrents/info").unwrap_or_default();
        String::from_utf8_lossy(&list).matches("\"progress\":1,").count()
    }
}

fn start_transmission(host: &Host, links: &[String], errand: Errand) -> Process {
    if host.addresses().iter().all(IpAddr::is_ipv6) {
        // Its control port is IPv4 only, and is not opened, not even on loopback, on a machine
        // without any IPv4 address. Nobody else on the link has one.
        host.add_address(Ipv4Addr::new(192, 0, 2, 1).into(), 32);
    }
    let settings = host.home().join("transmission");
    fs::create_dir(&settings).expect("the test's own folder is writable");
    let lpd = errand.discovery == Discovery::Local;
    let (upload, upload_kib) = (errand.upload_kib > 0, errand.upload_kib);
    // With uTP on, 3.00 takes more than a minute to try TCP with a peer that has no uTP.
    let json = format!(
        r#"{{
            "dht-enabled": false, "utp-enabled": false, "lpd-enabled": {lpd},
            "port-forwarding-enabled": false,
            "download-queue-enabled": false, "queue-stalled-enabled": false,
            "speed-limit-up-enabled": {upload}, "speed-limit-up": {upload_kib},
            "rpc-port": {WEB_PORT}, "rpc-whitelist-enabled": false
        }}"#
    );
    fs::write(settings.join("settings.json"), json).expect("the test's own folder is writable");
    let mut command = program("transmission-daemon");
    command.args(["--foreground", "--log-info", "--config-dir"]).arg(settings);
    command.arg("--download-dir").arg(downloads(host));
    let process = Process::start(host, &mut command);
    wait_until(
        "transmission-daemon answers",
        START_LIMIT,
        || transmission_remote(host, &["--list"]),
        || process.last_words(),
    );
    for link in links {
        let added = transmission_remote(host, &["--add", link]);
        assert!(added.is_some(), "transmission does not take {link}\n{}", process.last_words());
    }
    process
}

/// What `transmission-remote` prints, if it can do as told.
fn transmission_remote(host: &Host, arguments: &[&str]) -> Option<String> {
    let mut command = program("transmission-remote");
    command.arg(format!("127.0.0.1:{WEB_PORT}")).args(arguments);
    let output = host.run(|| command.output()).unwrap_or_else(|error| {
        panic!("transmission-remote: {error}; install it with: apt install transmission-cli")
    });
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn start_aria2(host: &Host, links: &[String], errand: Errand) -> Process {
    // One link a line: on the command line several would be taken for mirrors of one download.
    let list = host.home().join("links");
    fs::write(&list, links.join("\n")).expect("the test's own folder is writable");
    let mut command = program("aria2c");
    command.args([
        // Without DHT it has no UDP trackers. It knows no node to begin with, so DHT finds nothing.
        "--enable-dht=true",
        "--dht-file-path=dht.dat",
        "--enable-dht6=false",
        "--max-concurrent-downloads=16",
        "--file-allocation=none",
        "--listen-port=6881",
        "--console-log-level=info",
        "--summary-interval=0",
        "--show-console-readout=false",
        "--no-conf=true",
    ]);
    if errand.seeds {
        command.args(["--check-integrity=true", "--seed-ratio=0"]);
        command.arg(format!("--max-overall-upload-limit={}K", errand.upload_kib));
    } else {
        // It ends when all is here instead of seeding, and its ending is how it says so.
        command.arg("--seed-time=0");
    }
    if errand.discovery == Discovery::Local {
        command.args(["--bt-enable-lpd=true", "--bt-lpd-interface=eth0"]);
    }
    command.arg("--input-file").arg(list);
    command.arg("--dir").arg(downloads(host));
    Process::start(host, &mut command)
}

fn start_qbittorrent(host: &Host, links: &[String], errand: Errand) -> Process {
    let config = host.home().join("qBittorrent/config");
    fs::create_dir_all(&config).expect("the test's own folder is writable");
    let mut text = String::from("[LegalNotice]\nAccepted=true\n\n[BitTorrent]\n");
    let lsd = errand.discovery == Discovery::Local;
    for setting in [
        "DHTEnabled=false",
        &format!("LSDEnabled={lsd}"),
        "QueueingSystemEnabled=false",
        &format!("DefaultSavePath={}", downloads(host).display()),
        &format!("GlobalUPSpeedLimit={}", errand.upload_kib),
        "Port=6881",
    ] {
        writeln!(text, "Session\\{setting}").expect("a String takes all");
    }
    text += "\n[Network]\nPortForwardingEnabled=false\n\n[Preferences]\n";
    writeln!(text, "WebUI\\Port={WEB_PORT}\nWebUI\\LocalHostAuth=false\nWebUI\\UseUPnP=false")
        .expect("a String takes all");
    fs::write(config.join("qBittorrent.conf"), text).expect("the test's own folder is writable");
    let mut command = program("qbittorrent-nox");
    command.arg(format!("--profile={}", host.home().display()));
    command.arg("--skip-dialog=true").args(links);
    let process = Process::start(host, &mut command);
    process.also_logs_to(host.home().join("qBittorrent/data/logs/qbittorrent.log"))
}

fn start_libtorrent(host: &Host, links: &[String], errand: Errand) -> Process {
    let script = host.home().join("libtorrent_client.py");
    let text = include_str!("libtorrent_client.py");
    fs::write(&script, text).expect("the test's own folder is writable");
    // Debian's own interpreter: another one that comes first in PATH has no libtorrent.
    let mut command = program("/usr/bin/python3");
    command.arg(script).arg(downloads(host));
    command.arg(if errand.discovery == Discovery::Local { "1" } else { "0" });
    command.arg(errand.upload_kib.to_string()).args(links);
    Process::start(host, &mut command)
}

/// The body of what a web server answers to a GET sent from `host`.
pub fn http_body(host: &Host, server: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    host.run(|| {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        // The length is believed rather than the end waited for: qBittorrent keeps the connection.
        loop {
            let mut line = String::new();
            if answer.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or_default();
            }
        }
        let mut body = Vec::new();
        answer.take(length).read_to_end(&mut body)?;
        Ok(body)
    })
}

/// Where clients with a control port have it, each on its own machine's loopback.
const WEB_PORT: u16 = 9091;

/// How long a client may take before it listens to us.
const START_LIMIT: Duration = Duration::from_secs(30);
