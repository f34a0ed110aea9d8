//! Memory that is resident: under the contract with everybody there, and the same after a gigabyte.

use crate::leecher::Leecher;
use crate::program::{Call, Folder, Program, binary, given_binary};
use crate::torrent::Metainfo;
use crate::{enter, fetch, film};
use serde_json::Value;
use std::process::Command;
use std::sync::{RwLock, mpsc};
use std::thread;
use std::time::Duration;

#[test]
fn a_gigabyte_leaves_no_more_behind_than_its_first_part() {
    let home = Folder::new("growth");
    let film = film(&home, 16 << 20);
    Call::share(&home, &[&film]).start().stop();
    let program = Call::share(&home, &[&film]).start();
    fetch(&program, 4, 128, 1);
    let (before, whole) = (anonymous_kib(&program), resident_kib(&program));
    fetch(&program, 4, 128, 15);
    let (after, whole_after) = (anonymous_kib(&program), resident_kib(&program));
    println!(
        "after 64 MiB: {before} KiB of its own, {whole} resident; after 1 GiB: {after}, {whole_after}"
    );
    assert!(after <= before + 64, "{before} KiB, then {after} KiB");
    assert!(whole_after <= whole + 256, "{whole} KiB, then {whole_after} KiB");
    assert_eq!(program.stop().sent_bytes, 1 << 30);
}

#[test]
fn fifty_peers_of_the_smallest_board_stay_under_its_contract() {
    assert_under_contract("tiny", 50);
}

#[test]
fn two_hundred_peers_of_the_board_small_stay_under_its_contract() {
    assert_under_contract("small", 200);
}

/// Lets as many peers as the board has room for fetch at once.
#[track_caller]
fn assert_under_contract(board: &str, peers: usize) {
    let home = Folder::new("contract");
    let film = film(&home, 16 << 20);
    let call = || Call::share(&home, &[&film]).board(Some(board));
    call().start().stop();
    let program = call().start();
    let idle = anonymous_kib(&program);
    let torrent = &Metainfo::read(&program.shares[0].torrent);
    // Everybody is in, asks, and none goes before the memory has been looked at. One that fails
    // takes its end of the channel along, so that nobody waits for it for ever.
    let (gate, (fetched, all)) = (RwLock::new(()), mpsc::channel());
    let at_once = thread::scope(|scope| {
        let closed = gate.write().unwrap();
        for number in 0..peers {
            let (program, gate, fetched) = (&program, &gate, fetched.clone());
            scope.spawn(move || {
                let mut leecher: Leecher = enter(program, number);
                let blocks = torrent.blocks().into_iter().cycle().skip(16 * number).take(256);
                assert_eq!(leecher.fetch(blocks, 64, |_, _| {}).unwrap(), []);
                fetched.send(()).unwrap();
                drop(fetched);
                drop(gate.read());
            });
        }
        drop(fetched);
        for number in 0..peers {
            let one = all.recv_timeout(PATIENCE);
            one.unwrap_or_else(|error| panic!("{number} of {peers} peers have fetched: {error}"));
        }
        let at_once = anonymous_kib(&program);
        drop(closed);
        at_once
    });
    let contract = contract(board);
    let bytes = |key: &str| contract[key].as_u64().expect("a contract is numbers");
    let peak = program.proc_number("status", "VmHWM");
    println!(
        "{board}, {peers} peers: {idle} KiB of its own before, {at_once} with all of them, {peak} \
         resident at most; promised are {}",
        bytes("resident_bytes_max") >> 10
    );
    let holders = contract["ours"].as_array().expect("a contract has lines");
    let code = holders.iter().find(|holder| holder["what"] == "program").expect("it has code");
    let own_max = (bytes("ours_bytes") - code["bytes"].as_u64().expect("a number")) >> 10;
    assert!(at_once <= own_max, "{at_once} KiB of its own; its holders have {own_max}");
    if given_binary().is_some() {
        assert!(peak << 10 <= bytes("resident_bytes_max"), "{peak} KiB resident");
        assert!(peak << 10 <= bytes("ours_bytes"), "{peak} KiB resident; its holders have less");
    }
    program.stop();
}

/// What a board promises.
pub fn contract(board: &str) -> Value {
    let output = Command::new(binary()).args(["board", board, "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).expect("a contract is JSON")
}

/// Memory that holds what no file does: heap and stacks.
pub fn anonymous_kib(program: &Program) -> u64 {
    program.proc_number("status", "RssAnon")
}

pub fn resident_kib(program: &Program) -> u64 {
    program.proc_number("status", "VmRSS")
}

/// How long all peers of a board may take together.
const PATIENCE: Duration = Duration::from_secs(60);
