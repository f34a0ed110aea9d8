//! Ctrl-C, and what is still told then.

use crate::film;
use crate::leecher::{Leecher, MODERN, Manners, interested, request};
use crate::program::{Call, Folder, PATIENCE, wait_until};
use crate::torrent::Metainfo;
use crate::tracker_server::{Event, Introduces, Tracker, Transport};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

#[test]
fn it_stops_within_two_seconds_and_says_what_it_did() {
    let home = Folder::new("stop");
    let film = film(&home, 2_000_000);
    for signal in [Signal::INT, Signal::TERM] {
        let program = Call::share(&home, &[&film]).start();
        let share = &program.shares[0];
        let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
        leecher.fetch_all(&Metainfo::read(&share.torrent), 64).unwrap();
        let asked = Instant::now();
        let totals = program.stop_with(signal);
        assert!(asked.elapsed() < STOP_LIMIT, "{:?}", asked.elapsed());
        assert_eq!(totals.sent_bytes, 2_000_000);
        leecher.read_to_end().unwrap();
    }
}

#[test]
fn peers_that_read_nothing_do_not_delay_the_end() {
    let home = Folder::new("stop-stalled");
    let film = film(&home, 20_000_000);
    let program = Call::share(&home, &[&film]).start();
    let share = &program.shares[0];
    let blocks = Metainfo::read(&share.torrent).blocks();
    let requests: Vec<u8> = blocks.iter().take(128).flat_map(|block| request(*block)).collect();
    let manners = Manners { receive_bytes: Some(4_096), ..MODERN };
    let stalled: Vec<Leecher> = (0..20)
        .map(|_| {
            let mut leecher = Leecher::enter(program.address, share.info_hash, manners).unwrap();
            leecher.send(&requests).unwrap();
            leecher
        })
        .collect();
    let asked = Instant::now();
    program.stop();
    assert!(asked.elapsed() < STOP_LIMIT, "{:?}", asked.elapsed());
    drop(stalled);
}

#[test]
fn trackers_hear_that_it_comes_and_that_it_goes() {
    let home = Folder::new("trackers");
    let film = film(&home, 300_000);
    for transport in [Transport::Http, Transport::Udp] {
        let addresses: [SocketAddr; 1] = [([127, 0, 0, 1], 0).into()];
        let tracker = Tracker::start(&addresses, Introduces::Everyone).unwrap();
        let url = tracker.url(transport, 0);
        let program = Call::share(&home, &[&film]).with(&["--tracker", &url]).start();
        let share = program.shares[0].clone();
        assert!(share.magnet.contains("&tr="), "{}", share.magnet);
        let heard = |count| {
            let heard = || Some(tracker.heard()).filter(|heard| heard.len() >= count);
            wait_until("announces", PATIENCE, heard, || format!("{:?}", tracker.heard()))
        };
        let first = &heard(1)[0];
        assert_eq!((first.event, first.left), (Event::Started, 0));
        assert_eq!((first.info_hash, first.address), (share.info_hash, program.address));
        assert!(first.peer_id.starts_with(b"-PN"));
        let asked = Instant::now();
        program.stop();
        assert!(asked.elapsed() < STOP_LIMIT, "{:?}", asked.elapsed());
        let all = heard(2);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!((all[1].event, all[1].peer_id), (Event::Stopped, all[0].peer_id));
    }
}

#[test]
fn trackers_that_answer_nothing_do_not_delay_the_end() {
    let home = Folder::new("dead-trackers");
    let film = film(&home, 300_000);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let urls = [
        format!("http://{}/announce", silent.local_addr().unwrap()),
        format!("udp://{}/announce", deaf.local_addr().unwrap()),
        "http://127.0.0.1:9/announce".to_string(),
    ];
    let options = urls.iter().flat_map(|url| ["--tracker", url]).collect::<Vec<_>>();
    let program = Call::share(&home, &[&film]).with(&options).start();
    silent.accept().unwrap();
    let asked = Instant::now();
    program.stop();
    assert!(asked.elapsed() < STOP_LIMIT, "{:?}", asked.elapsed());
}

#[test]
fn one_tracker_that_answers_nothing_keeps_no_other_from_hearing_it_go() {
    let home = Folder::new("one-dead-tracker");
    let film = film(&home, 300_000);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let tracker = Tracker::start(&[address], Introduces::Everyone).unwrap();
    let mut options = vec!["--tracker".to_string(), tracker.url(Transport::Http, 0)];
    for number in 0..4 {
        let url = format!("http://{}/{number}", silent.local_addr().unwrap());
        options.extend(["--tracker".to_string(), url]);
    }
    let program = Call::share(&home, &[&film]).with(&options).start();
    let heard = || (!tracker.heard().is_empty()).then_some(());
    wait_until("the first announce", PATIENCE, heard, || program.log());
    program.stop();
    let last = tracker.heard().pop().unwrap();
    assert_eq!(last.event, Event::Stopped);
}

#[test]
fn a_leecher_a_tracker_knows_is_called_and_served() {
    let home = Folder::new("called");
    let film = film(&home, 300_000);
    let first = Call::share(&home, &[&film]).start();
    let share = first.shares[0].clone();
    let torrent = Metainfo::read(&share.torrent);
    first.stop();
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let tracker = Tracker::start(&[address], Introduces::LeechersToSeeds).unwrap();
    let leecher = TcpListener::bind("127.0.0.1:0").unwrap();
    announce(&tracker, share.info_hash, leecher.local_addr().unwrap().port());
    let url = tracker.url(Transport::Udp, 0);
    let program = Call::share(&home, &[&film]).with(&["--tracker", &url]).start();
    let mut leecher = Leecher::answer(&leecher, share.info_hash, MODERN).unwrap();
    leecher.send(&interested()).unwrap();
    leecher.wait_for_unchoke().unwrap();
    let content = leecher.fetch_all(&torrent, 16).unwrap();
    torrent.assert_is(&content, &film);
    program.stop();
}

/// Tells a tracker of a leecher at `port` of 127.0.0.1.
fn announce(tracker: &Tracker, info_hash: [u8; 20], port: u16) {
    let url = tracker.url(Transport::Http, 0);
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let hash: String = info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let query = format!("info_hash={hash}&peer_id=-TT0001-announced000&port={port}&left=1");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path}?{query}&event=started HTTP/1.1\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(tracker.heard().len(), 1);
}

const STOP_LIMIT: Duration = Duration::from_secs(2);
