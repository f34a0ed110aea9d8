//! Signals, systemd, and who else wants the state folder.

use super::{Home, answers, assert_served, content_of, settle};
use crate::bytes;
use crate::leecher::{Leecher, MODERN, Manners};
use crate::program::{Call, PATIENCE, Program, wait_until};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

#[test]
fn a_second_box_on_the_same_state_is_refused_with_the_number_of_the_first() {
    let home = Home::new("run-second");
    let first = home.start();
    let line = home.call().refusal();
    assert!(line.contains(&format!("process {}", first.id())), "{line}");
    assert!(first.tell(&["stats"]).status.success(), "the first is as it was");
    first.stop();
}

/// Everything that is waited for at the end, at once.
#[test]
fn it_ends_within_two_seconds_with_fifty_peers_and_trackers_that_are_dead() {
    let home = Home::new("run-sigterm");
    let (tcp, udp) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let trackers = format!(
        "trackers = [\"http://{}/announce\", \"udp://{}\", \"http://127.0.0.1:1/announce\"]\n",
        tcp.local_addr().unwrap(),
        udp.local_addr().unwrap()
    );
    let config = home.config("").replacen("[network]\n", &format!("[network]\n{trackers}"), 1);
    let film = home.drop_file("shared/film.mkv", &bytes(1, 2_000_000));
    let program = Call::run_box(&home.0, &config).start();
    let share = program.wait_for_share("film.mkv");
    let peers: Vec<Leecher> = (0..50_u8)
        .map(|number| {
            let from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, number + 1)));
            Leecher::connect(program.address, share.info_hash, Manners { from, ..MODERN }).unwrap()
        })
        .collect();
    assert!(content_of(&program, &share) == fs::read(&film).unwrap());
    let asked = Instant::now();
    program.stop_with(Signal::TERM);
    let took = asked.elapsed();
    println!("ended after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(peers);
}

/// Sends a request as the command line does.
fn reload(program: &Program) {
    let mut socket = UnixStream::connect(program.state().join("control")).unwrap();
    socket.write_all(b"{\"v\":1,\"do\":\"reload\"}\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("done"), "{answer}");
}

fn wait_for_reloads(program: &Program, count: usize) {
    let said = || program.log().matches("has been read again").count();
    wait_until("it is read", PATIENCE, || (said() >= count).then_some(()), || program.log());
}

#[test]
fn a_configuration_that_is_read_again_holds_from_then_on() {
    let home = Home::new("run-reload");
    let film = home.drop_file("shared/film.mkv", &bytes(1, 300_000));
    home.drop_file("second/song", &bytes(2, 100_000));
    let (program, file) = (home.start(), home.at("box.toml"));
    let share = program.wait_for_share("film.mkv");
    let second = format!("[[share]]\nfolder = \"{}\"\n", home.at("second").display());
    let caps = "[caps]\nup = \"100kB/s\"\nlan = true\n";
    fs::write(&file, home.config(&format!("{second}{caps}"))).unwrap();
    program.signal(Signal::HUP);
    wait_for_reloads(&program, 1);
    assert_served(&program, "song", &home.at("second/song"));
    let begun = Instant::now();
    assert!(content_of(&program, &share) == fs::read(&film).unwrap());
    assert!(begun.elapsed() > Duration::from_millis(1_500), "the cap holds: {:?}", begun.elapsed());
    // Without the second folder, without caps, and with what has to wait.
    let config = home.config("").replace("dht = \"off\"", "dht = \"read-only\"");
    fs::write(&file, format!("name = \"attic\"\n{config}")).unwrap();
    reload(&program);
    wait_for_reloads(&program, 2);
    for words in ["name: has changed", "[network] dht: has changed", "is looked after no more"] {
        program.wait_for_words(words);
    }
    let begun = Instant::now();
    assert!(content_of(&program, &share) == fs::read(&film).unwrap());
    assert!(begun.elapsed() < Duration::from_millis(1_500), "no cap: {:?}", begun.elapsed());
    // One that is wrong leaves all as it was.
    fs::write(&file, "[[share]]\nfodler = \"/srv\"\n").unwrap();
    program.signal(Signal::HUP);
    program.wait_for_words("goes on as before");
    home.drop_file("shared/still", &bytes(3, 10_000));
    assert_served(&program, "still", &home.at("shared/still"));
    // Where fetched things go is heeded at once too.
    let elsewhere = home.config("").replace("/fetched\"", "/elsewhere\"");
    fs::create_dir(home.at("elsewhere")).unwrap();
    fs::write(&file, elsewhere).unwrap();
    reload(&program);
    wait_for_reloads(&program, 3);
    let torrent = super::foreign("new.mkv", 5, 50_000);
    let seeder = crate::seeder::Seeder::start(&torrent, Default::default());
    let (path, peer) = (torrent.write(home.0.path(), "new.torrent"), seeder.as_peer());
    program.ask(&["add", path.to_str().unwrap(), &peer[0], &peer[1]]);
    program.wait_for_share("new.mkv");
    assert_eq!(fs::read(home.at("elsewhere/new.mkv")).unwrap(), torrent.content.all());
    program.end();
}

#[test]
fn reading_the_configuration_again_hashes_nothing_again() {
    let home = Home::new("run-reload-often");
    let film = home.drop_file("shared/film.mkv", &bytes(1, 300_000));
    let program = home.start();
    let share = program.wait_for_share("film.mkv");
    settle(&program, &home);
    for round in 1..6 {
        program.signal(Signal::HUP);
        wait_for_reloads(&program, round);
        let (from, to) = (round - 1, round);
        let name = |n: usize| home.at(&format!("shared/film-{n}"));
        fs::rename(if from == 0 { film.clone() } else { name(from) }, name(to)).unwrap();
    }
    let moved = |detail: &serde_json::Value| {
        detail["torrent"]["path"].as_str().is_some_and(|path| path.ends_with("film-5"))
    };
    program.wait_for(&crate::program::digits(&share.info_hash), moved);
    assert!(answers(&program, share.info_hash));
    assert_eq!(super::hashed(&program), 2, "{}", program.log());
    program.end();
}

#[test]
fn systemd_is_told_that_it_is_ready_alive_and_stopping() {
    let home = Home::new("run-notify");
    let path = std::env::temp_dir().join(format!("perennial-run-notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let heard_of = |word: &str| loop {
        let words = heard();
        match words.starts_with(word) {
            true => break words,
            false => {
                assert!(words.starts_with("WATCHDOG=1") || words.starts_with("STATUS="), "{words}")
            }
        }
    };
    let call = home.call().env("NOTIFY_SOCKET", path.as_os_str());
    let program = call.env("WATCHDOG_USEC", OsStr::new("400000")).start();
    let ready = heard_of("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", program.id())), "{ready}");
    let begun = Instant::now();
    (0..5).for_each(|_| assert_eq!(heard_of("WATCHDOG=1"), "WATCHDOG=1"));
    assert!(begun.elapsed() < Duration::from_secs(2), "twice in its time: {:?}", begun.elapsed());
    program.signal(Signal::HUP);
    assert!(heard_of("RELOADING=1").contains("MONOTONIC_USEC="));
    heard_of("READY=1");
    program.signal(Signal::TERM);
    heard_of("STOPPING=1");
    program.stopped();
    fs::remove_file(path).unwrap();
}
