//! A library of 100,000 torrents beside one of 100: the same memory, the same start.
//!
//! Libraries are made in memory (`/dev/shm`) where there is room: what is measured is the program with
//! its state in the page cache. With `PERENNIAL_FULL=1` a start is also measured whose state is on a
//! disk and in no cache.

use crate::author::Torrent;
use crate::leecher::{Leecher, MODERN};
use crate::library::{self, Wish};
use crate::program::{self, Call, Folder, PATIENCE, Program, given_binary, is_root, wait_until};
use crate::seeder::{Habits, Seeder};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A library and the box that runs on it.
pub struct Library {
    pub home: Folder,
    pub count: u32,
}

impl Library {
    /// Makes one of so many torrents.
    pub fn new(count: u32) -> Library {
        let (memory, disk) = (Path::new("/dev/shm"), Path::new(env!("CARGO_TARGET_TMPDIR")));
        let room = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        // 16 KiB each, and as much again to be on the safe side.
        let parent = if room >= u64::from(count) * (32 << 10) { memory } else { disk };
        Library::within(parent, count)
    }

    fn within(parent: &Path, count: u32) -> Library {
        let home = Folder::within(parent, "perennial-library");
        let (state, content) = (home.path().join("state"), home.path().join("content"));
        let (state, content) = (&state, &content);
        library::make(Wish { count, state, content, tracker: None, board: "small" }).unwrap();
        Library { home, count }
    }

    /// The box, at an address where nobody else is.
    pub fn call(&self, more: &str) -> (Call, SocketAddr) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let call = Call::a_box(&self.home, &format!("{CONFIG}{more}"));
        (call.listen(Some(&free.to_string())), free)
    }

    /// The info-hash of a torrent of it.
    pub fn torrent(&self, number: u32) -> [u8; 20] {
        library::info_hash_of(number)
    }
}

/// What one start has shown.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Until a handshake for the last torrent was answered.
    took: Duration,
    /// Read until then, of whatever kind.
    read_bytes: u64,
    /// Written until then.
    written_bytes: u64,
}

/// Starts the box and shakes hands for the last torrent of its library as soon as it answers.
fn start(library: &Library) -> (Program, Start, Leecher) {
    let (call, address) = library.call("");
    let last = library.torrent(library.count - 1);
    let begun = Instant::now();
    let mut program = call.launch();
    let connect = || Leecher::connect(address, last, MODERN).ok();
    let leecher = loop {
        if let Some(leecher) = connect() {
            break leecher;
        }
        assert!(begun.elapsed() < PATIENCE, "no handshake\n{}", program.log());
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begun.elapsed();
    let read_bytes = program.proc_number("io", "rchar");
    let written_bytes = program.proc_number("io", "wchar");
    program.wait_until_ready();
    (program, Start { took, read_bytes, written_bytes }, leecher)
}

/// What a library costs a box.
#[derive(Debug)]
struct Cost {
    start: Start,
    /// After the start; at most, while all were listed and counted.
    resident_kib: (u64, u64),
    /// Of that, what no file holds.
    own_kib: u64,
}

fn cost(library: &Library) -> Cost {
    // The fastest of nine: what a start costs by itself.
    let starts = (0..9).map(|_| {
        let (program, start, leecher) = start(library);
        drop(leecher);
        program.stop();
        start
    });
    let best = starts.min_by_key(|start| start.took).expect("there are nine");
    let (program, _, mut leecher) = start(library);
    assert_serves(library, &mut leecher);
    drop(leecher);
    let resident = program.proc_number("status", "VmRSS");
    let listed = program.ask(&["list"]);
    let torrents = listed.iter().filter_map(|line| line["torrent"]["info_hash"].as_str());
    assert_eq!(torrents.collect::<BTreeSet<_>>().len() as u32, library.count, "each once");
    let stats = program.stats();
    assert_eq!(stats["torrents"]["all"], library.count);
    let resident_kib = (resident, program.proc_number("status", "VmHWM"));
    let own_kib = program.proc_number("status", "RssAnon");
    program.stop();
    let cost = Cost { start: best, resident_kib, own_kib };
    println!("{} torrents: {cost:?}", library.count);
    cost
}

/// The last torrent of a library arrives.
fn assert_serves(library: &Library, leecher: &mut Leecher) {
    let content = library::content_of(library.count - 1);
    leecher.send(&crate::leecher::interested()).unwrap();
    leecher.wait_for_unchoke().unwrap();
    let block = crate::leecher::Block { piece: 0, begin: 0, length: content.len() as u32 };
    let mut arrived = Vec::new();
    let rejected = leecher.fetch([block], 1, |_, bytes| arrived.extend_from_slice(bytes)).unwrap();
    assert!(rejected.is_empty() && arrived == content, "the last torrent of {}", library.count);
}

#[test]
fn a_hundred_thousand_torrents_cost_what_a_hundred_cost() {
    let few = cost(&Library::new(100));
    let some = cost(&Library::new(10_000));
    let many = cost(&Library::new(100_000));
    // Nothing that grows with the library is read or written before everybody is answered.
    assert!(many.start.read_bytes <= few.start.read_bytes + (64 << 10), "{many:?}, {few:?}");
    assert!(many.start.written_bytes <= few.start.written_bytes + 4_096, "{many:?}, {few:?}");
    assert!(many.start.took <= few.start.took * 10, "{many:?}, {few:?}");
    if given_binary().is_some() {
        let grown = many.resident_kib.0.abs_diff(few.resident_kib.0);
        let grown_at_most = many.resident_kib.1.saturating_sub(few.resident_kib.1);
        println!("{grown} KiB more with 100,000, {grown_at_most} while they are listed");
        assert!(grown < 1_024 && grown_at_most < 1_024, "{many:?}, {few:?}");
        assert!(some.resident_kib.1 < 12 << 10, "{some:?}");
    }
    let own = many.own_kib.saturating_sub(few.own_kib);
    assert!(own < 1_024, "{own} KiB more of its own");
}

/// With `PERENNIAL_FULL=1`: on a file system that has just been mounted, of which nothing is cached.
#[test]
fn a_cold_start_with_a_hundred_thousand_torrents_is_measured() {
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    if !full || !is_root() {
        println!("measured with PERENNIAL_FULL=1, as root");
        return;
    }
    let ground = Folder::new("cold");
    let disk = Disk::new(&ground);
    let library = Library::within(&disk.at, 100_000);
    disk.unmount();
    disk.forget();
    disk.mount();
    let (program, start, mut leecher) = start(&library);
    let read_kib = program.proc_number("io", "read_bytes") >> 10;
    println!("cold, 100,000 torrents: {start:?}, {read_kib} KiB from the disk");
    assert_serves(&library, &mut leecher);
    assert!(read_kib < 16 << 10, "{read_kib} KiB");
    drop(leecher);
    program.stop();
    drop(library);
}

/// A file system of the test's own, in a file.
struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(ground: &Folder) -> Disk {
        let disk = Disk { file: ground.path().join("disk"), at: ground.path().join("mounted") };
        std::fs::create_dir(&disk.at).unwrap();
        std::fs::File::create(&disk.file).unwrap().set_len(2 << 30).unwrap();
        // Small files in small blocks: 0.7 GiB of it are used.
        let options = ["-q", "-b1024", "-N600000"].map(Path::new);
        run("mkfs.ext4", &[&options[..], &[&disk.file]].concat());
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", &[Path::new("-oloop"), &self.file, &self.at]);
    }

    fn unmount(&self) {
        run("umount", &[&self.at]);
    }

    /// Has the kernel forget what it holds of the file itself.
    fn forget(&self) {
        let file = std::fs::File::open(&self.file).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Without a word: it may not be mounted, and the test may have failed already.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

#[test]
fn what_serving_costs_is_the_same_with_ten_thousand_torrents() {
    let library = Library::new(10_000);
    // On a disk: what lies in memory alone is read by lanes.
    let disk = Folder::new("film");
    let film = crate::film(&disk, 64 << 20);
    let share = format!("[[share]]\npath = \"{}\"\n", film.display());
    // Hashed before.
    let (call, _) = library.call(&share);
    let program = call.start();
    let known = || {
        let answers = film_of(&program);
        answers.map(|detail| detail["torrent_file"].as_str().expect("it is whole").to_string())
    };
    let torrent: PathBuf = wait_until("it is shared", PATIENCE, known, || program.log()).into();
    program.stop();
    let mut fewest = f64::INFINITY;
    for _ in 0..3 {
        let trace = library.home.path().join("trace");
        let path = trace.to_string_lossy();
        let (call, _) = library.call(&share);
        let mut program = call.under(&crate::calls::strace(&path)).start();
        program.shares.push(share_of(&torrent));
        // Once in each life the LAN is told of some of the library, at its start.
        std::thread::sleep(std::time::Duration::from_secs(2));
        let from = std::fs::metadata(&trace).unwrap().len() as usize;
        fewest = fewest.min(crate::calls::count_from(program, &trace, from, 1, 500));
        if fewest <= 20.0 {
            return;
        }
    }
    panic!("{fewest:.1} calls for each MiB, at most 20");
}

#[test]
fn what_fetching_costs_is_the_same_with_ten_thousand_torrents() {
    let torrent = Arc::new(Torrent::zeros("fetched.mkv", 1 << 20, 256 << 20));
    let libraries = [10, 10_000].map(Library::new);
    let mut least = [u64::MAX; 2];
    for round in 0..3 {
        for (library, least) in libraries.iter().zip(&mut least) {
            let (ns, peak_kib) = fetch_beside(library, &torrent, round);
            println!(
                "256 MiB fetched with {} loaded: {} ms of processor, {peak_kib} KiB resident at most",
                library.count,
                ns / 1_000_000
            );
            *least = ns.min(*least);
            if given_binary().is_some() {
                assert!(peak_kib <= 8 << 10, "{peak_kib} KiB resident");
            }
        }
    }
    let ratio = least[1] as f64 / least[0] as f64;
    println!("{ratio:.2} of what it takes with 10, at most 1.25");
    assert!(ratio <= 1.25, "{ratio:.2} of what it takes with 10");
}

/// Fetches a torrent beside a library: processor time for it, and the most memory that was resident.
fn fetch_beside(library: &Library, torrent: &Arc<Torrent>, round: u32) -> (u64, u64) {
    let (call, _) = library.call("");
    let program = call.start();
    let seeder = Seeder::start(torrent, Habits::default());
    let into = Folder::new(&format!("beside-{}-{round}", library.count));
    let link = torrent.write(into.path(), "fetched.torrent");
    // Once in each life the LAN is told of some of the library, at its start.
    std::thread::sleep(Duration::from_secs(2));
    let before = crate::page::cpu_ns(program.own_id());
    program.ask(&[Path::new("add"), &link, Path::new("--into"), into.path()]);
    seeder.call(program.address);
    // By its name the whole library would be gone through each time.
    program.wait_for(&program::digits(&torrent.info_hash), |detail| {
        detail["torrent"]["state"] != "fetching" && detail["torrent"]["here_bytes"] == 256 << 20
    });
    let ns = crate::page::cpu_ns(program.own_id()) - before;
    let peak_kib = program.proc_number("status", "VmHWM");
    assert_eq!(seeder.tallies().sent_bytes, torrent.content.bytes(), "no block twice");
    // The next life knows nothing of it.
    program.ask(&["remove", "--delete", "fetched.mkv", "--yes"]);
    program.end();
    (ns, peak_kib)
}

fn film_of(program: &Program) -> Option<Value> {
    let listed = program.ask(&["list", "film"]);
    let name = listed.iter().find_map(|line| line["torrent"]["info_hash"].as_str())?;
    Some(program.ask(&["show", name]).swap_remove(0)["detail"].take())
}

fn share_of(torrent: &Path) -> crate::program::Share {
    let metainfo = crate::torrent::Metainfo::read(torrent);
    crate::program::Share {
        name: metainfo.name.clone(),
        info_hash: metainfo.info_hash,
        magnet: String::new(),
        torrent: torrent.into(),
        bytes: metainfo.total_bytes(),
        files: 1,
        piece_bytes: metainfo.piece_bytes,
    }
}

/// A box that asks no router for anything.
pub const CONFIG: &str = "[network]\nmap-port = false\n";
