//! A fetch that is killed at any moment and started again with the same command: in the end every
//! byte is right, what was there at one start is there at the next, and what is there at a start is
//! never asked for again.

use crate::author::Torrent;
use crate::bytes;
use crate::leecher::{Leecher, MODERN};
use crate::prng::Prng;
use crate::program::{Call, Folder};
use crate::seeder::{Habits, Seeder};
use rustix::process::Signal;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[test]
fn killed_at_any_moment_it_goes_on_where_its_record_says() {
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let kills = if full { 200 } else { 20 };
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Prng::new(seed);
    let home = Folder::new("killed");
    let files = [
        ("one", bytes(1, 6_000_000)),
        ("folder/two", bytes(2, 10)),
        ("folder/empty", Vec::new()),
        ("folder/three", bytes(3, 6_000_001)),
    ];
    let torrent = Arc::new(Torrent::folder("killed", 32 << 10, &files));
    let path = torrent.write(home.path(), "killed.torrent");
    let call = |seeder: &Seeder| Call::get(&home, &[&path]).with(&seeder.as_peer());
    let (mut here, mut begun) = (Vec::new(), 0);
    for _ in 0..kills {
        // A new one for each life: what the last was still to answer must not be counted.
        let seeder = Seeder::start(&torrent, SILENT);
        let mut program = call(&seeder).launch();
        if random.one_in(4) {
            // Before it serves, or about then.
            thread::sleep(Duration::from_millis(random.below(120).into()));
            program.kill();
            continue;
        }
        program.wait_until_ready();
        let Some(added) = program.added.first() else { break };
        let there = offered(&program, &torrent);
        let bytes: u64 = there.iter().map(|piece| piece_bytes(&torrent, *piece)).sum();
        assert_eq!(bytes, added.here_bytes, "what it says is there is what it offers");
        assert!(here.iter().all(|piece| there.contains(piece)), "{here:?}, then {there:?}");
        (here, begun) = (there, begun + 1);
        // Its time is enough for all of it, over all lives together, two times.
        let rate = torrent.content.bytes() as u32 * 5 / kills * 2;
        seeder.behave(Habits { rate: Some(rate), ..Habits::default() });
        thread::sleep(Duration::from_millis(random.below(400).into()));
        if random.one_in(2) {
            // While it records what there is.
            program.signal(Signal::INT);
            thread::sleep(Duration::from_millis(random.below(40).into()));
        }
        program.kill();
        let asked = seeder.tallies().asked_for();
        let twice: Vec<&u32> = asked.iter().filter(|piece| here.contains(piece)).collect();
        assert!(twice.is_empty(), "{twice:?} are there and were asked for");
    }
    println!("{begun} lives, {} of {} pieces there", here.len(), torrent.piece_count());
    assert!(begun > 1 && !here.is_empty(), "it never came to record anything");
    let seeder = Seeder::start(&torrent, Habits::default());
    call(&seeder).with(&["--exit"]).start().ended();
    for (name, content) in &files {
        let got = fs::read(home.path().join("got/killed").join(name)).unwrap();
        assert!(got == *content, "{name}");
    }
}

/// What it offers while it is sent nothing: what was there at its start.
fn offered(program: &crate::program::Program, torrent: &Torrent) -> Vec<u32> {
    let mut leecher = Leecher::connect(program.address, torrent.info_hash, MODERN).unwrap();
    let offered = leecher.wait_for_offer().unwrap();
    (0..torrent.piece_count()).filter(|piece| offered.contains(*piece)).collect()
}

fn piece_bytes(torrent: &Torrent, piece: u32) -> u64 {
    let (all, each) = (torrent.content.bytes(), u64::from(torrent.piece_bytes));
    (all - u64::from(piece) * each).min(each)
}

/// It takes requests and sends nothing.
const SILENT: Habits = Habits {
    rate: None,
    stalls_after: Some(0),
    stalls_inside: None,
    hangs_up_after: None,
    spoils: None,
    plain: false,
    has: None,
};
