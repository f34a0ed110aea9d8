//! Disks under a box that runs and that do not do their work: a call ends with `EIO`. The kernel's own
//! answers are changed on their way to the program, by `strace`.

use super::disks::{disk_state, film, said, wait_for_disk, wait_for_state};
use super::{ALONE, content_of};
use crate::bytes;
use crate::lacks_root;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, Folder, Program, wait_until};
use crate::seeder::{Habits, Seeder};
use crate::torrent::Metainfo;
use crate::volumes::{Mounted, not_run};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Has some calls on a file fail that nothing is wrong with.
fn failing(call: Call, path: &Path, calls: &str, when: &str) -> Call {
    let path = path.to_str().unwrap();
    let (traced, fault) = (format!("trace={calls}"), format!("inject={calls}:error=EIO{when}"));
    call.under(&["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", &traced, "-e", &fault])
}

fn stop(program: Program) {
    program.ask(&["stop"]);
    program.ended();
}

const READS: &str = "read,pread64,preadv,preadv2,sendfile";
const WRITES: &str = "write,pwrite64,pwritev,pwritev2";

#[test]
fn a_disk_that_cannot_be_read_is_said_to_fail_and_nothing_else_notices() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-eio-read");
    let (bad, good) = (home.path().join("bad"), home.path().join("good"));
    let Some(_mounted) = not_run(Mounted::memory(&bad, "16m")) else { return };
    let (film, song) = (bytes(1, 600_000), bytes(2, 300_000));
    fs::write(bad.join("film.mkv"), &film).unwrap();
    home.write("good/song.ogg", &song);
    let shares =
        [&bad, &good].map(|folder| format!("[[share]]\nfolder = \"{}\"\n", folder.display()));
    let config = format!("{ALONE}{}", shares.concat());
    let program = Call::run_box(&home, &config).start();
    let shares = ["film.mkv", "song.ogg"].map(|name| program.wait_for_share(name));
    assert!(content_of(&program, &shares[0]) == film);
    program.stop();

    let call = Call::run_box(&home, &config);
    let program = failing(call, &bad.join("film.mkv"), READS, "").start();
    // Whoever asks for it gets nothing, and what cannot be read is not made up for by other bytes.
    let torrent = Metainfo::read(&shares[0].torrent);
    let asks = || {
        let mut leecher = Leecher::enter(program.address, shares[0].info_hash, MODERN).unwrap();
        assert!(leecher.fetch_all(&torrent, 16).is_err());
    };
    std::thread::scope(|scope| {
        scope.spawn(asks);
        wait_for_disk(&program, &bad, "failing");
        assert_eq!(disk_state(&program, home.path().ancestors().last().unwrap()), "here");
        // The rest of the box does not notice, and it is said once however often it happens.
        scope.spawn(asks);
        (0..3).for_each(|_| assert!(content_of(&program, &shares[1]) == song));
    });
    assert_eq!(said(&program, ": fails to read or write"), 1, "{}", program.log());
    stop(program);

    // With the cable put right it is as it was: nothing is forgotten and nothing hashed again.
    let program = Call::run_box(&home, &config).start();
    assert!(content_of(&program, &shares[0]) == film);
    assert_eq!(super::hashed(&program), 0);
    program.stop();
}

#[test]
fn a_fetch_pauses_while_writes_fail_and_comes_to_its_end_when_they_do_not() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("run-eio-write");
    let got = home.path().join("got");
    let Some(_mounted) = not_run(Mounted::memory(&got, "64m")) else { return };
    let song = bytes(2, 300_000);
    home.write("good/song.ogg", &song);
    let torrent = film(100);
    let seeder = Seeder::start(&torrent, Habits::default());
    let path = torrent.write(home.path(), "film.torrent");
    let good = home.path().join("good");
    let config = format!("{ALONE}[[share]]\nfolder = \"{}\"\n", good.display());
    let call = Call::run_box(&home, &config);
    // The third to fifth write fail.
    let program = failing(call, &got.join("film.mkv"), WRITES, ":when=3..5").start();
    let share = program.wait_for_share("song.ogg");
    program.ask(&["add", path.to_str().unwrap(), "--into", got.to_str().unwrap()]);
    seeder.call(program.address);
    wait_for_disk(&program, &got, "failing");
    wait_for_state(&program, "film.mkv", "trouble");
    assert!(content_of(&program, &share) == song);
    let whole = || {
        seeder.call(program.address);
        std::thread::sleep(Duration::from_millis(200));
        let state = program.find("film.mkv")?["torrent"]["state"].clone();
        (state != "fetching" && state != "trouble").then_some(())
    };
    wait_until("it is whole", Duration::from_secs(90), whole, || program.log());
    assert!(fs::read(got.join("film.mkv")).unwrap() == torrent.content.all());
    stop(program);
}
