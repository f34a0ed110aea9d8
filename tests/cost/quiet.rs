//! A box with a hundred shares that nobody wants: it writes nothing, and `stats` says what it wakes for.
//!
//! Looked at for a minute, for ten with `PERENNIAL_FULL=1`. What other programs send is not the box's
//! own: each box is alone in a network, as far as the test has the rights for one.

use crate::crowd;
use crate::program::{Call, Program, is_root, wait_until};
use crate::scale::Library;
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

#[test]
fn a_hundred_shares_that_nobody_wants_wake_the_box_four_times_a_minute() {
    assert_quiet("dht = \"off\"\n", 4, |_| ());
}

#[test]
fn with_the_table_of_the_dht_full_it_is_fifteen_times_a_minute() {
    assert_quiet("dht-nodes = [\"127.0.0.1:9\"]\n", 15, |program| {
        let address = program.address;
        let crowd = match is_root() {
            true => program.in_its_network(|| crowd::surround(address)),
            false => crowd::surround(address),
        };
        let known = || {
            crowd.knock();
            thread::sleep(Duration::from_secs(2));
            let nodes = program.stats()["dht_nodes"].as_u64();
            (nodes >= Some(crowd::TABLE as u64 * 9 / 10)).then_some(())
        };
        let words = || program.stats().to_string();
        wait_until("its table is full", Duration::from_secs(120), known, words);
    });
}

/// What the box has been woken for so far, by what `stats` says of it.
fn woken(program: &Program) -> BTreeMap<String, u64> {
    let answers = program.ask(&["stats"]);
    let each = answers.iter().filter_map(|line| {
        let one = &line["wake_ups"];
        Some((one["why"].as_str()?.to_string(), one["count"].as_u64()?))
    });
    each.collect()
}

#[track_caller]
fn assert_quiet(network: &str, most_a_minute: u64, prepare: impl FnOnce(&Program)) {
    let library = Library::new(100);
    let (call, _) = library.call(network);
    let call: Call = if is_root() { call.in_its_own_network("") } else { call };
    let program = call.start();
    prepare(&program);
    // What there is to do at start has been done.
    thread::sleep(Duration::from_secs(22));
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let minutes = if full { 10 } else { 1 };
    let numbers = || {
        let io = ["write_bytes", "wchar"].map(|key| program.proc_number("io", key));
        (io, crate::wake_ups(&program), program.stats()["written"]["journal_bytes"].clone())
    };
    let before = woken(&program);
    // To be asked is no idleness: what asking costs is not counted.
    let (io, switches, journal) = numbers();
    let asked = numbers();
    thread::sleep(Duration::from_secs(60 * minutes));
    let (io_after, switches_after, journal_after) = numbers();
    let after = woken(&program);
    let of_asking: Vec<u64> =
        asked.0.iter().zip(io).map(|(after, before)| after - before).collect();
    let written: Vec<u64> = io_after
        .iter()
        .zip(asked.0)
        .zip(of_asking)
        .map(|((after, before), asking)| (after - before).saturating_sub(asking))
        .collect();
    let own: BTreeMap<&str, u64> = after
        .iter()
        .map(|(why, count)| (why.as_str(), count - before.get(why).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let sum: u64 = own.values().sum();
    println!(
        "{network:?}, in {minutes} min: woken {sum} times for {own:?}; all threads have slept {} times; \
         {written:?} bytes written",
        switches_after - asked.1 - (asked.1 - switches)
    );
    assert!(sum <= most_a_minute * minutes, "woken {sum} times for {own:?}");
    assert_eq!(written[0], 0, "bytes written to a disk");
    assert_eq!(journal_after, journal, "bytes of the journal");
    program.stop();
}
