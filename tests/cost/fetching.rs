//! Memory that is resident while something is fetched: small, whatever the torrent looks like.

use crate::author::{File, Torrent};
use crate::program::{Call, Folder, given_binary};
use crate::seeder::{Habits, Seeder};
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
