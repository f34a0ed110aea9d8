//! What changes cost the disk: one write and one sync each, a checkpoint now and then that keeps
//! nobody waiting who is served, and little for what is fetched.

use crate::author::Torrent;
use crate::leecher::{Block, Leecher, MODERN};
use crate::library;
use crate::program::{Folder, PATIENCE, Program, wait_until};
use crate::scale::Library;
use crate::seeder::{Habits, Seeder};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_change_is_one_write_and_one_sync_and_a_checkpoint_keeps_nobody_waiting() {
    let library =
        Library::new(if crate::program::given_binary().is_some() { 100_000 } else { 1_000 });
    let trace = library.home.path().join("trace");
    let path = trace.to_string_lossy();
    let (call, address) = library.call("");
    let program = call.under(&strace(&path)).start();
    let name = |number| {
        let hash = library.torrent(number);
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for number in 0..FEW {
        program.ask(&["pause", &name(number)]);
    }
    let last = library.count - 1;
    let mut leecher = Leecher::enter(address, library.torrent(last), MODERN).unwrap();
    let (is_over, length) = (AtomicBool::new(false), library::content_of(last).len() as u32);
    let checkpoints = || program.stats()["written"]["checkpoints"].as_u64().expect("a number");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let block = Block { piece: 0, begin: 0, length };
                assert_eq!(leecher.fetch([block], 1, |_, _| {}).unwrap(), []);
            }
        });
        // One checkpoint for each so many torrents that change.
        let mut number = FEW;
        while checkpoints() == 0 {
            let names: Vec<String> = (number..number + 40).map(name).collect();
            let words = [&["pause"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]];
            program.ask(&words.concat());
            number += 40;
            assert!(number < 1_000, "no checkpoint after {number} changes");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let protocol = program.own_id();
    program.stop_own(Signal::INT);
    let calls = Traced::read(&trace);
    assert_changes_are_cheap(&calls);
    assert_served_on(&calls, protocol);
}

/// The first changes after the start: a write and a sync each, of the journal and nothing else.
#[track_caller]
fn assert_changes_are_cheap(calls: &Traced) {
    let lasting = calls.0.iter().filter(|call| call.is_write() || call.is_sync());
    let first: Vec<&Call> = lasting.take(2 * FEW as usize).collect();
    let writes = first.iter().filter(|call| call.is_write()).count();
    let alternate = first.chunks(2).all(|two| two[0].is_write() && two[1].is_sync());
    println!("{FEW} changes: {writes} writes, {} syncs", first.len() - writes);
    assert!(alternate && first.iter().all(|call| call.file.ends_with("/journal")), "{first:?}");
}

/// While the archive's thread makes its checkpoint the protocol's sends on, and never waits for a disk.
#[track_caller]
fn assert_served_on(calls: &Traced, protocol: u32) {
    let of_checkpoint = |call: &&Call| call.file.ends_with("/staging");
    let begun = calls.0.iter().find(of_checkpoint).expect("there was a checkpoint").at;
    let ended = calls.0.iter().rfind(of_checkpoint).expect("there was one").at;
    let within: Vec<&Call> =
        calls.0.iter().filter(|call| (begun..=ended).contains(&call.at)).collect();
    let lasting = within.iter().filter(|call| call.is_write() || call.is_sync());
    let mut by_file: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for call in lasting {
        let file = call.file.rsplit('/').next().unwrap_or_default();
        *by_file.entry((file, call.name.as_str())).or_default() += 1;
    }
    let sends: Vec<f64> =
        within.iter().filter(|call| call.thread == protocol).map(|call| call.at).collect();
    let pause = sends.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    println!(
        "a checkpoint, {:.1} ms under strace: {by_file:?}; meanwhile {} blocks sent, {:.1} ms apart \
         at most",
        (ended - begun) * 1e3,
        sends.len(),
        pause * 1e3
    );
    assert!(sends.len() >= 5, "{} blocks sent meanwhile", sends.len());
    let mut of_protocol = calls.0.iter().filter(|call| call.thread == protocol);
    assert!(of_protocol.all(|call| !call.is_write() && !call.is_sync()), "it waits for no disk");
}

/// Calls of a program that is traced, from the moment it serves to the signal that ends it.
struct Traced(Vec<Call>);

#[derive(Debug)]
struct Call {
    thread: u32,
    /// In seconds.
    at: f64,
    name: String,
    /// What it was done to.
    file: String,
}

impl Call {
    fn is_write(&self) -> bool {
        self.name.starts_with("pwrite")
    }

    fn is_sync(&self) -> bool {
        ["fsync", "fdatasync", "sync_file_range", "msync"].contains(&self.name.as_str())
    }
}

/// Writes a trace, on a disk that takes 5 ms for a sync.
fn strace(trace: &str) -> [&str; 12] {
    let calls =
        "trace=write,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync,sendto";
    let slow = "inject=fsync,fdatasync:delay_exit=5000";
    ["strace", "-f", "-qq", "-y", "-ttt", "--seccomp-bpf", "-e", calls, "-e", slow, "-o", trace]
}

impl Traced {
    fn read(trace: &Path) -> Traced {
        let text = std::fs::read_to_string(trace).expect("strace has written its trace");
        let begun = text.find(r#"\"event\":\"ready\""#).expect("it said that it is ready");
        let ended = text.find("--- SIGINT").expect("it was told to stop");
        let call = |line: &str| {
            let mut words = line.split_whitespace();
            let (thread, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            // One that was interrupted by another's is shown twice: its beginning counts.
            let (name, arguments) = words.next()?.split_once('(')?;
            let (_, file) = arguments.split_once('<')?;
            let file = file.split(['>', ',']).next()?.to_string();
            // What it says is not meant here.
            (name != "write").then(|| Call { thread, at, name: name.into(), file })
        };
        Traced(text[begun..ended].lines().skip(1).filter_map(call).collect())
    }
}

#[test]
fn what_is_fetched_costs_the_journal_a_quarter_of_a_mebibyte_a_gibibyte() {
    let library = Library::new(100);
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let bytes = if full { 1 << 30 } else { 256 << 20 };
    for piece_bytes in [256 << 10, 1 << 20] {
        // On a disk: what is fetched has to be synced to be recorded.
        let disk = Folder::new("fetched");
        let name = format!("film-{piece_bytes}.mkv");
        let torrent = Arc::new(Torrent::zeros(&name, piece_bytes, bytes));
        let seeder = Seeder::start(&torrent, Habits::default());
        let (call, _) = library.call("");
        let program = call.start();
        let path = torrent.write(library.home.path(), &format!("{name}.torrent"));
        let [option, peer] = seeder.as_peer();
        let into = disk.path().to_string_lossy();
        program.ask(&["add", &path.to_string_lossy(), "--into", &into, &option, &peer]);
        let whole = || (fetching(&program) == 0).then_some(());
        wait_until("it is fetched", 6 * PATIENCE, whole, || program.log());
        thread::sleep(Duration::from_millis(500));
        let journal = program.stats()["written"]["journal_bytes"].as_u64().expect("a number");
        let of_a_gib = journal as f64 * (1u64 << 30) as f64 / bytes as f64;
        println!(
            "{} MiB in pieces of {} KiB: {journal} bytes of journals written, {:.0} KiB for each GiB",
            bytes >> 20,
            piece_bytes >> 10,
            of_a_gib / 1_024.0
        );
        assert!(of_a_gib <= 256.0 * 1_024.0, "{of_a_gib} bytes for each GiB");
        program.signal(Signal::INT);
        program.ended();
    }
}

fn fetching(program: &Program) -> u64 {
    program.stats()["torrents"]["fetching"].as_u64().expect("a number")
}

/// Changes that are looked at one by one.
const FEW: u32 = 20;
