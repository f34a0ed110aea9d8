//! Allocations of the thread that owns the protocol, while it serves: the service runs in this
//! process for once, under an allocator that counts.

use crate::count_alloc::{watch_this_thread, watched_allocations};
use crate::leecher::{Leecher, MODERN};
use crate::program::Folder;
use crate::torrent::Metainfo;
use crate::{fetch_from, film};
use perennial::service::board::Board;
use perennial::service::life;
use perennial::service::options::Options;
use perennial::service::report::Report;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

#[test]
fn serving_a_block_allocates_nothing() {
    let home = Folder::new("allocations");
    let film = film(&home, 64 << 20);
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let state = home.path().join("state");
    let options = Options {
        paths: vec![film],
        lan: true,
        listen: Some(free),
        ..Options::new(Board::named("small").unwrap(), state.clone())
    };
    let service = thread::spawn(move || {
        watch_this_thread();
        life::live(&options, &mut Report::new(true), &perennial::web::run)
    });
    let (torrent, mut leecher) = enter(&state, free);
    // Whatever is made once has been made then.
    fetch_from(&mut leecher, &torrent, 64);
    let before = watched_allocations();
    for _ in 0..4 {
        fetch_from(&mut leecher, &torrent, 64);
    }
    let (allocated, blocks) = (watched_allocations() - before, 4 * (64 << 20) / 16_384);
    println!("{allocated} allocations for {blocks} blocks");
    rustix::process::kill_process(rustix::process::getpid(), Signal::INT).unwrap();
    service.join().unwrap().unwrap();
    // The executor makes a block of its queue for every 31 wake-ups, the reactor a list for each
    // look; neither keeps it. A block served makes nothing: 415 for 16,384 were counted.
    assert!(allocated * 8 <= blocks, "{allocated} allocations for {blocks} blocks");
}

/// Waits until the share can be had, and goes there.
fn enter(state: &Path, address: SocketAddr) -> (Metainfo, Leecher) {
    for _ in 0..600 {
        if let Some(torrent) = torrent_in(&state.join("torrents"))
            && let torrent = Metainfo::read(&torrent)
            && let Ok(leecher) = Leecher::enter(address, torrent.info_hash, MODERN)
        {
            return (torrent, leecher);
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it never began to share");
}

fn torrent_in(folder: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(folder).ok()?.flatten();
    let mut named = folders.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let files = std::fs::read_dir(named.next()?.path()).ok()?.flatten();
    files.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "torrent"))
}
