//! Clients of others, as many as there is room for, and one more.

use crate::cable::resets_in;
use crate::clients::Client;
use crate::leecher::{Leecher, MODERN, PLAIN};
use crate::machine::{Board, Setting};
use crate::share::{Image, content};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// libtorrent and aria2, one leecher of today and one of long ago; then the count outlives the run.
pub fn four_clients_fetch_everything_at_once(board: Board) {
    let image = Image::new(board);
    let mut machine = Setting::new(board, &image.path).start();
    let pieces = image.torrent.piece_count();
    assert_eq!(machine.said("check: ").as_deref(), Some(&*format!("{pieces} pieces are good")));
    assert_eq!(machine.said("journal: ").as_deref(), Some("0 bytes sent before"));

    let address = machine.address;
    let clients = [Client::libtorrent(&image, address), Client::aria2(&image, address)];
    thread::scope(|scope| {
        for (manners, depth) in [(MODERN, 32), (PLAIN, 4)] {
            let torrent = &image.torrent;
            scope.spawn(move || {
                let mut leecher = Leecher::enter(address, torrent.info_hash, manners).unwrap();
                torrent.assert_is(&leecher.fetch_all(torrent, depth).unwrap(), content());
            });
        }
    });
    clients.into_iter().for_each(Client::has_everything);

    let mut leecher = Leecher::enter(address, image.torrent.info_hash, MODERN).unwrap();
    assert_eq!(leecher.fetch_metadata().unwrap(), image.torrent.info);
    drop(leecher);

    let status = machine.wait_until("all are gone", |status| status.peers == 0);
    let total = image.torrent.total_bytes();
    // aria2 asks a second time for what it waits for last.
    assert!((4 * total..5 * total).contains(&status.sent), "{status:?} of {total}");
    let stopped = machine.quit();
    assert_eq!(stopped.sent, status.sent);

    let machine = Setting::new(board, &image.path).start();
    let before = format!("{} bytes sent before", stopped.sent);
    assert_eq!(machine.said("journal: "), Some(before));
    assert_eq!(machine.quit().sent, stopped.sent);
}

/// The fifth is let in as far as TCP goes, and then shown out in order: no reset.
pub fn a_fifth_is_told_to_go_and_the_four_do_not_notice(board: Board) {
    let image = Image::new(board);
    let capture = image.home.path().join("frames.pcap");
    let mut machine = Setting::new(board, &image.path).with_capture(&capture).start();
    let (address, info_hash) = (machine.address, image.torrent.info_hash);
    let enter = |_| Leecher::enter(address, info_hash, MODERN).expect("there is room for four");
    let mut four: Vec<Leecher> = (0..4).map(enter).collect();
    assert_eq!(machine.status().peers, 4);

    let come = || {
        match Leecher::connect(address, info_hash, MODERN) {
            Ok(mut fifth) => fifth.read_to_end().expect("it is told to go"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}"),
        }
        // There is one line for those who find no room, and no queue before it.
        thread::sleep(BETWEEN_NEWCOMERS);
    };
    (0..3).for_each(|_| come());
    assert_eq!(machine.status().peers, 4);

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let fetches = four.iter_mut().map(|leecher| {
            let torrent = &image.torrent;
            scope.spawn(move || {
                let fetched = leecher.fetch_all(torrent, 32).expect("the four do not notice");
                torrent.assert_is(&fetched, content());
            })
        });
        let fetches: Vec<_> = fetches.collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                come();
            }
        });
        let ends: Vec<_> = fetches.into_iter().map(|fetch| fetch.join()).collect();
        done.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.expect("each has all of it"));
    });
    assert_eq!(resets_in(&capture), 0, "nobody is reset");

    // A place that is free again is given to the next.
    drop(four.pop());
    machine.wait_until("one is gone", |status| status.peers == 3);
    let mut next = Leecher::enter(address, info_hash, PLAIN).expect("there is a place");
    image.torrent.assert_is(&next.fetch_all(&image.torrent, 8).unwrap(), content());
    machine.quit();
}

/// So long after one was told to go the next one comes.
const BETWEEN_NEWCOMERS: Duration = Duration::from_millis(200);
