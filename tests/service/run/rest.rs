//! More torrents than places, and peers that ask for what is at rest, for nothing, or nonsense.

use super::{ALONE, Home, content_of};
use crate::bytes;
use crate::leecher::{Leecher, MODERN, PLAIN, dial, handshake, message};
use crate::prng::Prng;
use crate::program::{Call, Program, Share};
use crate::torrent::Metainfo;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Six torrents on a board that has two places, and what each is of.
fn crowded(home: &Home) -> (Program, Vec<(Share, Vec<u8>)>) {
    let program = Call::run_box(&home.0, ALONE).board(Some("test-tiny")).start();
    let all = (0..6_u64).map(|number| {
        let content = bytes(number, 60_000 + number as usize);
        let path = home.drop_file(&format!("film-{number}"), &content);
        let answered = program.ask(&["add", path.to_str().unwrap()]);
        (Share::of(&answered.last().unwrap()["detail"]), content)
    });
    let all = all.collect();
    (program, all)
}

#[test]
fn each_of_more_torrents_than_places_is_served_when_it_is_asked_for() {
    let home = Home::new("run-places");
    let (program, all) = crowded(&home);
    let mut random = Prng::new(1);
    for _ in 0..30 {
        let (share, content) = &all[random.below(6) as usize];
        assert!(content_of(&program, share) == *content, "{}", share.name);
    }
    program.end();
    // And at once, by as many as the board has connections for.
    let program = Call::run_box(&home.0, ALONE).board(Some("test-tiny")).start();
    for _ in 0..4 {
        thread::scope(|scope| {
            let first = random.below(6) as usize;
            for at in [first, (first + 1 + random.below(5) as usize) % 6] {
                let ((share, content), program) = (&all[at], &program);
                scope.spawn(move || {
                    // Whoever came before may not have left yet.
                    let until = Instant::now() + Duration::from_secs(20);
                    while fetch(program, share).is_none_or(|got| got != *content) {
                        assert!(Instant::now() < until, "{} is not served", share.name);
                    }
                });
            }
        });
    }
    let sent: u64 = program.list().iter().map(|item| item["sent_bytes"].as_u64().unwrap()).sum();
    assert!(sent >= 38 * 60_000, "what was sent is counted over restarts: {sent}");
    program.end();
}

/// All of a share, unless there is no place for us.
fn fetch(program: &Program, share: &Share) -> Option<Vec<u8>> {
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).ok()?;
    leecher.fetch_all(&Metainfo::read(&share.torrent), 16).ok()
}

#[test]
fn who_asks_for_an_unknown_torrent_is_let_go() {
    let home = Home::new("run-unknown");
    let (program, all) = crowded(&home);
    for number in 0..20 {
        let asked = Instant::now();
        assert!(Leecher::connect(program.address, [number; 20], MODERN).is_err());
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    let (share, content) = &all[0];
    assert!(content_of(&program, share) == *content);
    program.end();
}

#[test]
fn no_peer_can_fill_the_log() {
    let home = Home::new("run-log");
    let film = home.drop_file("film.mkv", &bytes(1, 100_000));
    let program = Call::run_box(&home.0, ALONE).start();
    let answered = program.ask(&["add", film.to_str().unwrap()]);
    let share = Share::of(&answered.last().unwrap()["detail"]);
    let lines = || program.log().lines().filter(|line| !line.starts_with("debug: ")).count();
    let before = lines();
    for round in 0..60_u8 {
        // An unknown name, half a handshake, no handshake, and nonsense behind a good one.
        let _ = Leecher::connect(program.address, [round; 20], MODERN);
        let mut stream = dial(program.address, MODERN).unwrap();
        let _ = stream.write_all(&handshake(share.info_hash, PLAIN)[..40]);
        drop(stream);
        let mut stream = dial(program.address, MODERN).unwrap();
        let _ = stream
            .write_all(b"GET / HTTP/1.1\r\nhost: nobody\r\n\r\n with more than a handshake has");
        let _ = stream.read(&mut [0; 1]);
        for nonsense in [
            message(6, &[0xff; 12]),
            message(4, &[0xff; 4]),
            message(5, &[1, 2, 3]),
            message(99, &[0; 9]),
        ] {
            if let Ok(mut leecher) = Leecher::connect(program.address, share.info_hash, MODERN) {
                let _ = leecher.send(&nonsense);
            }
        }
    }
    assert!(lines() <= before + 2, "{}", program.log());
    assert!(content_of(&program, &share) == bytes(1, 100_000));
    program.end();
}
