//! Announces carried over real sockets to servers that follow a script.
//!
//! Each server answers as its test says and keeps what it was asked. Names are looked up in a
//! table, so that one name can have addresses of both families. Where a test is about waiting, the
//! world's clock runs a hundred times as fast as ours; elsewhere it is ours, so that a busy machine
//! has its 15 s for what takes a millisecond.

use perennial::engine::announce::{Announce, Answer, Event, Retry};
use perennial::engine::units::{InfoHash, Instant, PeerId};
use perennial::service::http::HttpError;
use perennial::service::tracker::{TrackerError, World, announce, parse_tracker_url};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

const ANNOUNCE: Announce<'static> = Announce {
    info_hash: InfoHash::V1([0xfe; 20]),
    peer_id: PeerId(*b"-PN0100-abcdefghijkl"),
    port: 6881,
    uploaded: 1,
    downloaded: 2,
    left: 3,
    event: Event::Started,
    num_want: 50,
    key: 0xfeed_beef,
    tracker_id: None,
};

/// An answer with one peer, `10.0.0.1:6881`.
const BODY: &[u8] = b"d8:intervali900e5:peers6:\x0a\0\0\x01\x1a\xe1e";

/// The same for IPv6: `[fd00::1]:6881`.
const BODY_V6: &[u8] =
    b"d8:intervali600e5:peers0:6:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e";

/// A box, as far as an announce sees it.
struct Machine {
    names: Vec<(&'static str, Vec<SocketAddr>)>,
    admits: fn(&SocketAddr) -> bool,
    started: std::time::Instant,
    /// How many times as fast as ours its clock runs.
    haste: u64,
    random: Cell<u32>,
}

impl Machine {
    fn new() -> Machine {
        let started = std::time::Instant::now();
        Machine { names: Vec::new(), admits: |_| true, started, haste: 1, random: Cell::new(1) }
    }

    fn hasty() -> Machine {
        Machine { haste: 100, ..Machine::new() }
    }

    fn knows(name: &'static str, addresses: &[SocketAddr]) -> Machine {
        Machine { names: vec![(name, addresses.to_vec())], ..Machine::new() }
    }

    /// One announce to `url`, with a buffer of so many bytes, and the peers it brought.
    fn announce_within(
        &self,
        url: &str,
        buffer_bytes: usize,
    ) -> (Result<Answer, TrackerError>, Vec<SocketAddr>) {
        let url = parse_tracker_url(url).unwrap();
        let (mut peers, mut buffer) = (Vec::new(), vec![0; buffer_bytes]);
        let mut hand = |peer| peers.push(peer);
        let answer = announce(self, &url, &ANNOUNCE, &mut buffer, &mut hand);
        let answer = smol::block_on(answer);
        (answer, peers)
    }

    fn announce(&self, url: &str) -> (Result<Answer, TrackerError>, Vec<SocketAddr>) {
        self.announce_within(url, 65_536)
    }

    fn refusal(&self, url: &str) -> TrackerError {
        let (answer, peers) = self.announce(url);
        assert!(peers.is_empty(), "{peers:?}");
        answer.unwrap_err()
    }
}

impl World for Machine {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let known = self.names.iter().find(|(name, _)| *name == host);
        let (_, addresses) = known.ok_or(io::Error::other("no such name"))?;
        // Tests listen on ports of the kernel's choosing: only a table without port uses the URL's.
        let fill = |mut address: SocketAddr| {
            if address.port() == 0 {
                address.set_port(port);
            }
            address
        };
        Ok(addresses.iter().copied().map(fill).collect())
    }

    async fn sleep(&self, ms: u64) {
        smol::Timer::after(Duration::from_micros(ms * 1_000 / self.haste)).await;
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.started.elapsed().as_millis() as u64 * self.haste)
    }

    fn random(&self) -> u32 {
        self.random.set(self.random.get() + 1);
        self.random.get()
    }

    fn admits(&self, address: &SocketAddr) -> bool {
        (self.admits)(address)
    }
}

/// An HTTP server at `address` that gives its answers one after the other, then hangs up.
struct HttpServer {
    address: SocketAddr,
    asked: Receiver<String>,
}

impl HttpServer {
    fn start(ip: &str, answers: Vec<Vec<u8>>) -> HttpServer {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (ask, asked) = channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // Who listens here has a test that may be over already.
                let _ = ask.send(read_head(&mut stream));
                let _ = stream.write_all(&answer);
            }
        });
        HttpServer { address, asked }
    }

    fn answering(ip: &str, body: &[u8]) -> HttpServer {
        HttpServer::start(ip, vec![ok(body)])
    }

    fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn ok(body: &[u8]) -> Vec<u8> {
    with_status("200 OK", body)
}

fn with_status(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn moved(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n").into_bytes()
}

/// A UDP server whose script turns one datagram into the next answer, if any.
fn udp_server(
    ip: &str,
    mut script: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 2_048];
        while let Ok((bytes, from)) = socket.recv_from(&mut datagram) {
            if let Some(answer) = script(&datagram[..bytes]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    address
}

/// What a proper tracker answers to `datagram`, with these peers.
fn proper(datagram: &[u8], peers: &[u8]) -> Vec<u8> {
    let transaction = &datagram[12..16];
    match datagram[8..12] {
        [0, 0, 0, 0] => [&[0; 4], transaction, b"identity"].concat(),
        _ => {
            assert_eq!(&datagram[..8], b"identity");
            let numbers: Vec<u8> = [900u32, 4, 5].iter().flat_map(|n| n.to_be_bytes()).collect();
            [&[0, 0, 0, 1], transaction, &numbers, peers].concat()
        }
    }
}

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_http_tracker_is_told_and_its_peers_arrive() {
    let server = HttpServer::answering("127.0.0.1", BODY);
    let (answer, peers) = Machine::new().announce(&format!("{}?key=1", server.url()));
    assert_eq!(answer.unwrap().interval_ms, 900_000);
    assert_eq!(peers, [peer("10.0.0.1:6881")]);
    let asked = server.asked.recv().unwrap();
    let hash = "%FE".repeat(20);
    assert!(asked.starts_with(&format!("GET /announce?key=1&info_hash={hash}&")), "{asked}");
    assert!(asked.contains("&event=started HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nHost: {}\r\n", server.address)), "{asked}");
}

#[test]
fn a_tracker_with_both_families_hears_of_us_over_each() {
    let v4 = HttpServer::answering("127.0.0.1", BODY);
    let v6 = HttpServer::answering("::1", BODY_V6);
    let both = Machine::knows("t.example", &[v6.address, v4.address]);
    let (answer, mut peers) = both.announce("http://t.example/a");
    assert_eq!(answer.unwrap().interval_ms, 900_000, "the later of the two");
    peers.sort();
    assert_eq!(peers, [peer("10.0.0.1:6881"), peer("[fd00::1]:6881")]);
    assert!(v4.asked.recv().unwrap().contains("&key=FEEDBEEF&"));
    assert!(v6.asked.recv().unwrap().contains("&key=FEEDBEEF&"));
}

#[test]
fn one_family_that_answers_is_enough() {
    let v4 = HttpServer::answering("127.0.0.1", BODY);
    let nobody = peer("[::1]:9");
    let world = Machine::knows("t.example", &[nobody, v4.address]);
    let (answer, peers) = world.announce("http://t.example/a");
    assert!(answer.is_ok());
    assert_eq!(peers, [peer("10.0.0.1:6881")]);
}

#[test]
fn of_two_failures_the_trackers_own_words_count() {
    let v6 = HttpServer::answering("::1", b"d14:failure reason6:go now8:retry in5:nevere");
    let world = Machine::knows("t.example", &[peer("127.0.0.1:9"), v6.address]);
    let error = world.refusal("http://t.example/a");
    assert_eq!(error.to_string(), "the tracker refuses: go now");
    assert_eq!(error.retry(), Retry::Never);
}

#[test]
fn a_second_address_is_tried_when_nobody_is_at_the_first() {
    let server = HttpServer::answering("127.0.0.1", BODY);
    let world = Machine::knows("t.example", &[peer("127.0.0.1:9"), server.address]);
    assert!(world.announce("http://t.example/a").0.is_ok());
}

#[test]
fn what_the_world_does_not_admit_is_not_asked() {
    let server = HttpServer::answering("127.0.0.1", BODY);
    let world = Machine { admits: |address| !address.ip().is_loopback(), ..Machine::new() };
    let disguised = format!("http://[::ffff:127.0.0.1]:{}/a", server.address.port());
    for url in [server.url(), disguised] {
        assert!(matches!(world.refusal(&url), TrackerError::NoAddress), "{url}");
    }
    assert!(server.asked.try_recv().is_err());
}

#[test]
fn redirects_are_followed_three_times_and_no_further() {
    let last = HttpServer::answering("127.0.0.1", BODY);
    let there = format!("{}?x=y", last.url());
    let first = HttpServer::start("127.0.0.1", vec![moved("/b?c"), moved("d"), moved(&there)]);
    assert!(Machine::new().announce(&first.url()).0.is_ok());
    assert!(first.asked.recv().unwrap().starts_with("GET /announce?info_hash="));
    assert!(first.asked.recv().unwrap().starts_with("GET /b?c HTTP"));
    assert!(first.asked.recv().unwrap().starts_with("GET /d HTTP"));
    assert!(last.asked.recv().unwrap().starts_with("GET /announce?x=y HTTP"));

    let circle = HttpServer::start("127.0.0.1", vec![moved("/"); 5]);
    let error = Machine::new().refusal(&circle.url());
    assert_eq!(error.to_string(), "the tracker redirects again and again");
    assert_eq!(circle.asked.iter().take(4).count(), 4);
    assert!(circle.asked.try_recv().is_err());
}

#[test]
fn redirects_lead_to_http_and_to_admitted_addresses_only() {
    for location in ["udp://127.0.0.1:9/", "file:///etc/passwd", "http://", "gopher://127.0.0.1"] {
        let server = HttpServer::start("127.0.0.1", vec![moved(location)]);
        let error = Machine::new().refusal(&server.url());
        assert!(matches!(error, TrackerError::Redirect(_)), "{location}: {error}");
    }
    // From a server that may be asked into a place that may not.
    let inner = HttpServer::answering("127.0.0.2", BODY);
    let outer = HttpServer::start("127.0.0.1", vec![moved(&inner.url())]);
    let world =
        Machine { admits: |address| address.ip().to_string() == "127.0.0.1", ..Machine::new() };
    assert!(matches!(world.refusal(&outer.url()), TrackerError::NoAddress));
    assert!(inner.asked.try_recv().is_err());
}

#[test]
fn a_gigabyte_is_refused_before_it_is_read() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
    let server = HttpServer::start("127.0.0.1", vec![head.to_vec()]);
    let error = Machine::new().refusal(&server.url());
    assert!(matches!(error, TrackerError::Http(HttpError::TooLong(65_536))), "{error}");

    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'l'; 20_000]].concat();
    let server = HttpServer::start("127.0.0.1", vec![endless]);
    let error = Machine::new().announce_within(&server.url(), 16_384).0.unwrap_err();
    assert!(error.to_string().contains("16384 bytes"), "{error}");
}

#[test]
fn what_is_no_tracker_is_called_so() {
    let cases = [
        (ok(b"<html>hello</html>"), "no tracker (no bencoding, byte 0"),
        (ok(b"de"), "without peers"),
        (with_status("404 Not Found", b"<html>"), "status 404"),
        (with_status("403 Forbidden", b"d14:failure reason3:\x1b[me"), "refuses:  [m"),
        (b"220 mail.example ESMTP\r\n".to_vec(), "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd8:".to_vec(), "hung up"),
    ];
    for (answer, expected) in cases {
        let server = HttpServer::start("127.0.0.1", vec![answer]);
        let error = Machine::new().refusal(&server.url()).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_server_that_takes_the_call_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    assert!(matches!(Machine::hasty().refusal(&url), TrackerError::TimedOut));
}

#[test]
fn a_server_that_drips_is_given_up_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while sent.is_ok() {
            thread::sleep(Duration::from_millis(20));
            sent = stream.write_all(b"X");
        }
    });
    assert!(matches!(Machine::hasty().refusal(&url), TrackerError::TimedOut));
}

#[test]
fn a_name_that_is_not_known_is_called_so() {
    let error = Machine::new().refusal("http://nowhere.example/a");
    assert!(matches!(error, TrackerError::LookUp(_)), "{error}");
    assert!(error.to_string().contains("no such name"));
    let error = Machine::new().refusal("udp://127.0.0.1:9/a");
    assert!(matches!(error, TrackerError::Unreachable(_)), "{error}");
}

#[test]
fn https_is_spoken_or_said_to_be_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/a", listener.local_addr().unwrap());
    thread::spawn(move || listener.accept().unwrap().0.write_all(&ok(BODY)));
    let error = Machine::new().refusal(&url);
    let TrackerError::Http(error) = error else { panic!("{error}") };
    if cfg!(feature = "tls") {
        assert!(matches!(error, HttpError::Tls(_)), "{error}");
    } else {
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}

#[test]
fn a_udp_tracker_answers_over_both_families() {
    let v4 = udp_server("127.0.0.1", |datagram| Some(proper(datagram, b"\x0a\0\0\x01\x1a\xe1")));
    let v6 = udp_server("::1", |datagram| {
        if datagram.len() > 16 {
            assert!(datagram.ends_with(b"\x02\x05/x?y="), "BEP 41: {datagram:?}");
        }
        Some(proper(datagram, b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1"))
    });
    let (answer, mut peers) =
        Machine::knows("t.example", &[v4, v6]).announce("udp://t.example:1/x?y=");
    let answer = answer.unwrap();
    assert_eq!((answer.interval_ms, answer.leechers, answer.seeders), (900_000, Some(4), Some(5)));
    peers.sort();
    assert_eq!(peers, [peer("10.0.0.1:6881"), peer("[fd00::1]:6881")]);
}

#[test]
fn a_lost_datagram_is_sent_again_and_lies_are_not_heard() {
    let mut count = 0;
    let address = udp_server("127.0.0.1", move |datagram| {
        count += 1;
        let mut answer = proper(datagram, b"\x0a\0\0\x01\x1a\xe1");
        match count {
            // Lost; then an answer to somebody else; then the truth, for connect and announce.
            1 => None,
            2 => {
                answer[7] ^= 0xff;
                Some(answer)
            }
            _ => Some(answer),
        }
    });
    let (answer, peers) = Machine::hasty().announce(&format!("udp://{address}"));
    assert!(answer.is_ok());
    assert_eq!(peers, [peer("10.0.0.1:6881")]);
}

#[test]
fn a_udp_tracker_may_refuse_or_keep_silent() {
    let address = udp_server("127.0.0.1", |datagram| {
        Some([&[0, 0, 0, 3], &datagram[12..16], b"not\x07 on my list"].concat())
    });
    let error = Machine::new().refusal(&format!("udp://{address}/announce"));
    assert_eq!(error.to_string(), "the tracker refuses: not  on my list");

    let silent = udp_server("127.0.0.1", |_| None);
    let error = Machine::hasty().refusal(&format!("udp://{silent}"));
    assert!(matches!(error, TrackerError::TimedOut), "{error}");
}

#[test]
fn what_is_no_trackers_url_is_refused_with_the_reason() {
    let long = format!("http://t.example/{}", "a".repeat(1_024));
    let cases = [
        ("nonsense", "no URL"),
        ("", "no URL"),
        ("ftp://t.example/announce", "this one with ftp:"),
        ("wss://t.example/announce", "this one with wss:"),
        ("udp://t.example/announce", "must name its port"),
        ("http://t.example:0/", "must name its port"),
        ("udp://:80/", "no URL"),
        ("http://t.example:99999/", "invalid port number"),
        (&long, "1024 bytes"),
    ];
    for (url, expected) in cases {
        let error = parse_tracker_url(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
    for url in ["http://[::1]/a", " https://t.example/a?b ", "udp://t.example:6969"] {
        assert!(parse_tracker_url(url).is_ok(), "{url}");
    }
}

#[test]
fn a_shown_url_keeps_the_passkey_to_itself() {
    let url =
        parse_tracker_url("https://user:pass@t.example:444/s3cret/announce?k=s3cret").unwrap();
    assert_eq!(format!("{url} {url:?}"), "https://t.example:444 https://t.example:444");
    assert!(url.as_str().contains("s3cret"));
}
