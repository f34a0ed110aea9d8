//! What serving and fetching cost, counted and never timed: system calls, bytes read, memory, wake-ups.
//!
//! Everything is counted from outside, on the program as it is: calls and reads by `strace`,
//! memory and wake-ups in `/proc`. What is counted is said, so that a run shows how far each figure
//! is from its limit: `cargo test --test cost -- --nocapture`.
//!
//! Memory is promised for the static release build. `scripts/test` names it in `PERENNIAL_BIN`;
//! without that the debug build is held to what does not depend on the build.

#![cfg(feature = "std")]

#[path = "../support/author.rs"]
mod author;
#[path = "../support/count_alloc.rs"]
mod count_alloc;
#[path = "../support/leecher.rs"]
mod leecher;
#[path = "../support/library.rs"]
mod library;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/seeder.rs"]
mod seeder;
#[path = "../support/torrent.rs"]
mod torrent;

mod allocations;
mod calls;
mod changes;
mod crowd;
mod fetching;
mod memory;
mod page;
mod quiet;
mod scale;

use leecher::{Leecher, MODERN, Manners};
use program::{Call, Folder, Program};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use torrent::Metainfo;

#[global_allocator]
static ALLOCATOR: count_alloc::CountAlloc = count_alloc::CountAlloc;

#[test]
fn an_idle_box_sleeps() {
    let home = Folder::new("idle");
    let film = film(&home, 1 << 20);
    let call = Call::share(&home, &[&film]);
    // Elsewhere other programs' local discovery would wake it.
    let call = if program::is_root() { call.in_its_own_network("") } else { call };
    let program = call.start();
    // What there is to do at start has been done.
    thread::sleep(Duration::from_secs(2));
    let (woken, written) = (wake_ups(&program), program.proc_number("io", "write_bytes"));
    thread::sleep(Duration::from_secs(20));
    let (woken, written) =
        (wake_ups(&program) - woken, program.proc_number("io", "write_bytes") - written);
    println!("idle for 20 s: {woken} wake-ups of all threads, {written} bytes written");
    assert!(woken <= 3, "{woken} wake-ups");
    assert_eq!(written, 0);
    program.stop();
}

/// How often any thread of the program has gone to sleep.
fn wake_ups(program: &Program) -> u64 {
    let tasks = format!("/proc/{}/task", program.own_id());
    let tasks = std::fs::read_dir(tasks).expect("it runs").flatten();
    let count = |task: std::fs::DirEntry| {
        let name = format!("task/{}/status", task.file_name().to_string_lossy());
        program.proc_number(&name, "voluntary_ctxt_switches")
    };
    tasks.map(count).sum()
}

/// A file of so many bytes, in the page cache.
fn film(home: &Folder, bytes: usize) -> PathBuf {
    // Where each 16 KiB stands can be told from them.
    let block = |number: usize| number.to_le_bytes().repeat(16_384 / 8);
    let content: Vec<u8> = (0..bytes / 16_384).flat_map(block).collect();
    home.write("film.mkv", &content)
}

/// Fetches the whole share over `connections` at once, each with `depth` requests on their way, so
/// many times; the addresses are spread over as many as the boards want them from.
fn fetch(program: &Program, connections: usize, depth: usize, times: usize) {
    let share = &program.shares[0];
    let torrent = &Metainfo::read(&share.torrent);
    thread::scope(|scope| {
        for number in 0..connections {
            scope.spawn(move || {
                let mut leecher = enter(program, number);
                for _ in 0..times {
                    fetch_from(&mut leecher, torrent, depth);
                }
            });
        }
    });
}

/// Fetches the whole share and looks at every block of it.
fn fetch_from(leecher: &mut Leecher, torrent: &Metainfo, depth: usize) {
    let mut count = 0;
    let rejected = leecher.fetch(torrent.blocks(), depth, |block, bytes| {
        let number = torrent.offset(block) / 16_384;
        assert_eq!(bytes[..8], number.to_le_bytes());
        count += bytes.len() as u64;
    });
    assert_eq!((rejected.unwrap().len(), count), (0, torrent.total_bytes()));
}

/// A leecher that is unchoked and knows how many requests are kept, from an address of its own: of
/// two that come from one address at once, the second may be sent away while few places are left.
fn enter(program: &Program, number: usize) -> Leecher {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 2, number as u8));
    let manners = Manners { from: Some(from), ..MODERN };
    let mut leecher =
        Leecher::enter(program.address, program.shares[0].info_hash, manners).unwrap();
    while leecher.requests_max.is_none() {
        leecher.receive().unwrap();
    }
    leecher
}
