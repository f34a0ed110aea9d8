//! System calls and bytes read for each byte served, counted by `strace`.

use crate::program::{Call, Folder, Program, Totals};
use crate::{fetch, film};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn one_connection_with_a_deep_queue_costs_few_calls() {
    assert_few_calls(1, 500, 20.0);
}

#[test]
fn fifty_connections_with_deep_queues_cost_few_calls() {
    assert_few_calls(50, 64, 20.0);
}

/// How often the program has to wait, and so ask, depends on how the machine shares its cores out:
/// the best of three runs shows what serving costs by itself. 6 to 7 and 10 were counted.
#[track_caller]
fn assert_few_calls(connections: usize, depth: usize, most: f64) {
    let home = Folder::new("calls");
    // Enough for each that coming and going weigh little.
    let film = film(&home, if connections == 1 { 128 << 20 } else { 16 << 20 });
    // Hashed before, and read into the page cache by that.
    Call::share(&home, &[&film]).start().stop();
    let mut fewest = f64::INFINITY;
    for _ in 0..3 {
        fewest = fewest.min(calls_per_mib(&home, &film, connections, depth));
        if fewest <= most {
            return;
        }
    }
    panic!("{fewest:.1} calls for each MiB, at most {most}");
}

fn calls_per_mib(home: &Folder, film: &Path, connections: usize, depth: usize) -> f64 {
    let trace = home.path().join("trace");
    let program = Call::share(home, &[film]).under(&strace(&trace.to_string_lossy())).start();
    count(program, &trace, connections, depth)
}

/// Has every call of a program written down.
pub fn strace(trace: &str) -> [&str; 7] {
    ["strace", "-f", "-qq", "-s", "64", "-o", trace]
}

/// Fetches the share of a program that is traced, ends it, and counts calls for each MiB.
pub fn count(program: Program, trace: &Path, connections: usize, depth: usize) -> f64 {
    count_from(program, trace, 0, connections, depth)
}

/// The same, without what stands in the trace before a byte of it: what a start costs.
pub fn count_from(
    program: Program,
    trace: &Path,
    from: usize,
    connections: usize,
    depth: usize,
) -> f64 {
    fetch(&program, connections, depth, 1);
    let totals = program.stop_own(Signal::INT);
    let counted = Counted::read(trace, from);
    counted.say(connections, &totals);
    let ratio = counted.read_bytes as f64 / totals.sent_bytes as f64;
    assert!(ratio <= 1.15, "{ratio:.3} bytes read for each byte sent");
    // What the program says of itself is what was counted.
    let said = totals.read_bytes as f64 / counted.read_bytes as f64;
    assert!((0.99..=1.01).contains(&said), "it says {} were read", totals.read_bytes);
    counted.calls() as f64 * 1_048_576.0 / totals.sent_bytes as f64
}

/// What a trace shows between the moment the program serves and the signal that ends it.
struct Counted {
    by_name: BTreeMap<String, u64>,
    /// Bytes of content and metainfo that came from the page cache.
    read_bytes: u64,
}

impl Counted {
    fn read(trace: &Path, from: usize) -> Counted {
        let text = std::fs::read_to_string(trace).expect("strace has written its trace");
        let begun = text.find(r#"\"event\":\"ready\""#).expect("it said that it is ready");
        let begun = begun.max(from);
        let ended = text.find("--- SIGINT").expect("it was told to stop");
        let mut counted = Counted { by_name: BTreeMap::new(), read_bytes: 0 };
        // The rest of the line that says ready belongs to the start.
        for line in text[begun..ended].lines().skip(1) {
            let (_, line) = line.split_once(' ').expect("a line begins with a thread");
            let line = line.trim_start();
            let resumed = line.strip_prefix("<... ");
            let name = resumed.unwrap_or(line).split(['(', ' ']).next().unwrap_or_default();
            if resumed.is_none() && !line.starts_with(['+', '-']) {
                *counted.by_name.entry(name.into()).or_default() += 1;
            }
            let result = line.rsplit_once(" = ").map_or("", |(_, result)| result);
            if ["preadv2", "pread64", "sendfile", "readv", "preadv"].contains(&name) {
                let read = result.split(' ').next().and_then(|read| read.parse::<u64>().ok());
                counted.read_bytes += read.unwrap_or(0);
            }
        }
        counted
    }

    fn calls(&self) -> u64 {
        self.by_name.values().sum()
    }

    fn say(&self, connections: usize, totals: &Totals) {
        let sent = totals.sent_bytes as f64;
        println!(
            "{connections} connections, {} MiB: {:.2} calls for each MiB, {:.4} bytes read for \
             each byte sent; {:?}",
            totals.sent_bytes >> 20,
            self.calls() as f64 * 1_048_576.0 / sent,
            self.read_bytes as f64 / sent,
            self.by_name,
        );
    }
}
