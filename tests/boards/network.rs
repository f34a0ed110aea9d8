//! What a board does on its network besides serving.

use crate::cable::{BOARD, Cable, Datagram, HOST};
use crate::leecher::{Leecher, MODERN};
use crate::machine::{Board, GATEWAY, Setting, free_port};
use crate::program::{PATIENCE, wait_until};
use crate::share::{Image, content};
use crate::tracker::{Event, Introduces, Tracker, Transport};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Nobody is there to give it an address: it says so, and still hears its keys.
pub fn without_an_answer_to_dhcp_it_goes_on(board: Board) {
    let image = Image::new(board);
    let mut machine = Setting::new(board, &image.path).alone().launch();
    machine.wait_for("dhcp: no answer yet");
    assert_eq!(machine.status().peers, 0);
    assert!(machine.said("listening on ").is_none());
    assert_eq!(machine.quit().sent, 0);
}

/// Half of a share before, the other half after, over one connection: TCP bridges the time between.
pub fn a_cable_pulled_and_put_back_costs_nobody_their_connection(board: Board) {
    let image = Image::new(board);
    let control = image.home.path().join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", control.display());
    let mut machine = Setting::new(board, &image.path).with(&["-qmp", &qmp]).start();
    let torrent = &image.torrent;
    let mut leecher = Leecher::enter(machine.address, torrent.info_hash, MODERN).unwrap();
    let blocks = torrent.blocks();
    let (before, after) = blocks.split_at(blocks.len() / 2);
    let mut fetched = vec![0; torrent.total_bytes() as usize];
    let mut put = |block, bytes: &[u8]| {
        fetched[torrent.offset(block)..][..bytes.len()].copy_from_slice(bytes);
    };
    leecher.fetch(before.iter().copied(), 16, &mut put).unwrap();
    set_link(&control, false);
    // The other board's chip, as QEMU has it, cannot tell.
    let tells = board == Board::Rv32;
    if tells {
        machine.wait_for("link: down");
    }
    thread::scope(|scope| {
        let rest = scope.spawn(|| leecher.fetch(after.iter().copied(), 16, &mut put).unwrap());
        thread::sleep(Duration::from_secs(2));
        assert!(!rest.is_finished(), "no byte comes through");
        set_link(&control, true);
        assert_eq!(rest.join().expect("all of it comes"), []);
    });
    if tells {
        machine.wait_for("link: up");
    }
    torrent.assert_is(&fetched, content());
    machine.quit();
}

/// It says what it has when it gets its address, and again when somebody new looks for that: not
/// at once but a minute after the last time, as BEP 14 wants it.
pub fn a_search_on_the_lan_is_answered(board: Board) {
    let image = Image::new(board);
    let port = free_port();
    let (mut cable, our_port) = Cable::lay(port);
    let mut machine = Setting::new(board, &image.path).with_cable(port, our_port).start();
    let hash: String = image.torrent.info_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let announce = cable.datagram_to(GROUP.port(), PATIENCE).expect("it says what it has");
    let said = Instant::now();
    assert_announces(&announce, &hash);

    // Rubbish, somebody else's search, and one for what it has.
    let search = |hash: &str| {
        let head = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881";
        format!("{head}\r\nInfohash: {hash}\r\ncookie: test\r\n\r\n\r\n").into_bytes()
    };
    cable.send(GROUP.port(), GROUP, &[0xff; 900]);
    cable.send(GROUP.port(), GROUP, &search(&"ab".repeat(20)));
    assert_eq!(machine.wait_up_to(Duration::from_secs(1), "found: "), None);
    cable.send(GROUP.port(), GROUP, &search(&hash));
    let found = machine.wait_for("found: ");
    assert!(found.contains(&HOST.to_string()), "{found}");
    // In five minutes, had nobody looked for it.
    let answer = cable.datagram_to(GROUP.port(), Duration::from_secs(70)).expect("it answers");
    assert_announces(&answer, &hash);
    assert!(said.elapsed() >= Duration::from_secs(55), "once a minute, not more");
    machine.quit();
}

fn assert_announces(datagram: &Datagram, hash: &str) {
    assert_eq!(datagram.target, GROUP);
    assert_eq!(datagram.target_hardware, [0x01, 0x00, 0x5e, 0x40, 0x98, 0x8f]);
    assert!(datagram.ttl >= 1);
    let text = String::from_utf8(datagram.payload.clone()).expect("an announce is text");
    assert!(text.starts_with("BT-SEARCH * HTTP/1.1\r\n"), "{text:?}");
    assert!(text.ends_with("\r\n\r\n\r\n"), "{text:?}");
    let value = |key: &str| {
        let mut values = text.split("\r\n").filter_map(|line| line.split_once(": "));
        values.find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    };
    assert_eq!(value("host"), Some("239.192.152.143:6771"));
    assert_eq!(value("port"), Some("6881"));
    assert_eq!(value("infohash"), Some(hash));
    assert!(value("cookie").is_some_and(|cookie| !cookie.is_empty()));
}

/// Over TCP, through QEMU's own network.
pub fn a_tracker_is_told_over_http(board: Board) {
    let tracker = local_tracker();
    let url = tracker.url(Transport::Http, 0);
    let port = url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/announce");
    let image = Image::with(board, &["--tracker", &format!("http://{GATEWAY}/announce")]);
    // QEMU starts this for each connection that the board makes.
    let pipe = image.home.write("pipe", PIPE.as_bytes());
    std::fs::set_permissions(&pipe, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let command = format!("{} {port}", pipe.display());
    let machine = Setting::new(board, &image.path).with_gateway(&command).start();
    let expectation = Expectation { transport: Transport::Http, image: &image };
    expectation.is_met_by(&tracker);
    machine.quit();
}

/// Over UDP, by a host on the board's own network that passes it on.
pub fn a_tracker_is_told_over_udp(board: Board) {
    let tracker = local_tracker();
    let url = tracker.url(Transport::Udp, 0);
    let url = url.trim_start_matches("udp://").trim_end_matches("/announce");
    let to_tracker = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    to_tracker.connect(url).expect("our tracker has a port");
    to_tracker.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not 0");

    let own_url = format!("udp://{HOST}:{TRACKER_PORT}/announce");
    let image = Image::with(board, &["--tracker", &own_url]);
    let port = free_port();
    let (mut cable, our_port) = Cable::lay(port);
    let machine = Setting::new(board, &image.path).with_cable(port, our_port).start();
    // It connects, then it announces.
    for _ in 0..2 {
        let question = cable.datagram_to(TRACKER_PORT, PATIENCE).expect("it asks the tracker");
        assert_eq!((question.source.ip(), question.target.ip()), (&BOARD, &HOST));
        to_tracker.send(&question.payload).expect("our tracker listens");
        let mut answer = [0; 1500];
        let length = to_tracker.recv(&mut answer).expect("our tracker answers");
        cable.send(TRACKER_PORT, question.source, &answer[..length]);
    }
    let expectation = Expectation { transport: Transport::Udp, image: &image };
    expectation.is_met_by(&tracker);
    machine.quit();
}

/// What a tracker has to hear first.
struct Expectation<'i> {
    transport: Transport,
    image: &'i Image,
}

impl Expectation<'_> {
    fn is_met_by(&self, tracker: &Tracker) {
        let first = || tracker.heard().into_iter().next();
        let heard = wait_until("it is told", PATIENCE, first, String::new);
        assert_eq!(heard.transport, self.transport);
        assert_eq!(heard.info_hash, self.image.torrent.info_hash);
        assert_eq!(heard.peer_id[..3], *b"-PN");
        assert_eq!((heard.address.port(), heard.left), (6881, 0));
        assert_eq!(heard.event, Event::Started);
    }
}

fn local_tracker() -> Tracker {
    Tracker::start(&[([127, 0, 0, 1], 0).into()], Introduces::Everyone)
        .expect("loopback has a free port")
}

/// Pulls the board's cable out or puts it back, through QEMU's control socket.
fn set_link(control: &Path, up: bool) {
    let stream = UnixStream::connect(control).expect("QEMU listens to us");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not 0");
    let mut answers = BufReader::new(&stream).lines();
    let mut answer = || -> Value {
        let line = answers.next().expect("QEMU answers").expect("QEMU answers in time");
        serde_json::from_str(&line).expect("QEMU speaks JSON")
    };
    assert!(answer()["QMP"].is_object(), "it greets");
    for command in [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": "set_link", "arguments": { "name": "n", "up": up } }),
    ] {
        writeln!(&stream, "{command}").expect("QEMU listens to us");
        // It may have news of its own in between.
        let answer = std::iter::repeat_with(&mut answer).find(|answer| answer["event"].is_null());
        assert!(answer.is_some_and(|answer| answer["return"].is_object()), "{command}");
    }
}

/// Connects its stdin and stdout with a port of 127.0.0.1.
const PIPE: &str = "#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/$1
cat <&3 &
cat >&3
";

/// Where everybody listens for local discovery (BEP 14).
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771);

const TRACKER_PORT: u16 = 6969;
