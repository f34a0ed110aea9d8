//! Memory that is resident while something is fetched: small, whatever the torrent looks like.

use crate::author::{File, Torrent};
use crate::program::{Call, Folder, PATIENCE, given_binary, wait_until};
use crate::seeder::{Habits, Seeder};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

#[test]
fn a_film_in_pieces_of_a_mebibyte_is_fetched_in_8_mib() {
    assert_fetched_within(8 << 20, Torrent::zeros("film.mkv", 1 << 20, 256 << 20));
}

#[test]
fn a_film_in_pieces_of_16_mib_is_fetched_in_8_mib() {
    assert_fetched_within(8 << 20, Torrent::zeros("film.mkv", 16 << 20, 96 << 20));
}

#[test]
fn sixty_thousand_pieces_are_fetched_in_8_mib() {
    assert_fetched_within(8 << 20, Torrent::zeros("film.mkv", 16 << 10, 60_000 << 14));
}

#[test]
fn a_hundred_thousand_small_files_are_fetched_in_8_mib() {
    // To make and to sync so many takes longer than to fetch them.
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let count = if full { 100_000 } else { 3_000 };
    let names: Vec<[String; 2]> = (0..count)
        .map(|number| [format!("{:03}", number / 500), format!("{number:06}.txt")])
        .collect();
    let files: Vec<File<'_>> = names
        .iter()
        .enumerate()
        .map(|(number, path)| {
            (path.iter().map(String::as_bytes).collect(), number.to_le_bytes().repeat(12))
        })
        .collect();
    assert_fetched_within(8 << 20, Torrent::of_any_names(b"letters", 16 << 10, &files));
}

#[test]
fn two_hundred_seeds_that_are_not_read_hold_64_kib_of_the_kernel_each() {
    let home = Folder::new("unread");
    let torrent = Arc::new(Torrent::zeros("film.mkv", 1 << 20, 1 << 30));
    let path = torrent.write(home.path(), "it.torrent");
    let program = Call::get(&home, &[&path]).with(&["--down", "1kB/s", "--cap-lan"]).start();
    let seeders: Vec<Seeder> = (0..200)
        .map(|number| {
            let address = SocketAddr::from(([127, 0, 3, number], 0));
            let seeder = Seeder::start_at(address, &torrent, Habits::default());
            seeder.call(program.address);
            seeder
        })
        .collect();
    let unread = || {
        let port = format!("sport = :{}", program.address.port());
        let output = Command::new("ss").args(["-tnmH", "state", "established", &port]).output();
        let output = output.expect("ss runs: apt install iproute2");
        let text = String::from_utf8(output.stdout).expect("ss writes text");
        let held = text.lines().filter_map(|line| line.split_once("skmem:(r")?.1.split_once(','));
        held.map(|(bytes, _)| bytes.parse().expect("a number")).collect::<Vec<u64>>()
    };
    let asked = |seeder: &&Seeder| seeder.tallies().sent_bytes > 0;
    let all = || (seeders.iter().filter(asked).count() == 200).then_some(());
    let words = || format!("{} of them\n{}", seeders.iter().filter(asked).count(), program.log());
    wait_until("everybody has sent something", PATIENCE, all, words);
    let held = unread();
    let (most, sum) = (held.iter().max().copied(), held.iter().sum::<u64>());
    println!("{} connections hold {} KiB, one of them {most:?} bytes", held.len(), sum >> 10);
    assert!(held.len() == 200 && sum >= 200 << 14, "{held:?}");
    assert!(most.is_some_and(|most| most <= 64 << 10), "{held:?}");
    program.signal(rustix::process::Signal::INT);
    program.ended();
}

/// Fetches a torrent on the board `small`, and looks at the most memory that was resident.
#[track_caller]
fn assert_fetched_within(bytes_max: u64, torrent: Torrent) {
    let home = Folder::new("fetching");
    let torrent = Arc::new(torrent);
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "it.torrent");
    let begun = Instant::now();
    let program = Call::get(&home, &[&path]).with(&seeder.as_peer()).start();
    let ready = begun.elapsed();
    program.events_until("settled");
    let peak = program.proc_number("status", "VmHWM");
    let (own, mapped) =
        (program.proc_number("status", "RssAnon"), program.proc_number("status", "RssFile"));
    println!(
        "{} pieces of {} KiB: {peak} KiB resident at most, {own} of its own and {mapped} of files \
         in the end; ready after {ready:?}, settled after {:?}",
        torrent.piece_count(),
        torrent.piece_bytes >> 10,
        begun.elapsed()
    );
    if given_binary().is_some() {
        assert!(peak << 10 <= bytes_max, "{peak} KiB resident");
    }
    assert_eq!(seeder.tallies().sent_bytes, torrent.content.bytes(), "no block twice");
    program.signal(rustix::process::Signal::INT);
    program.ended();
}
