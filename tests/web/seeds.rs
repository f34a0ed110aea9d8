//! Other people's BitTorrent programs that know nobody but the web seed (BEP 19).
//!
//! Trackers there are none, the DHT and local discovery are off on both sides: what arrives has come
//! over HTTP.

use crate::{Site, bytes, run_well};
use std::path::{Path, PathBuf};
use std::process::Command;

fn site(name: &str) -> Site {
    // Nobody finds the port that peers connect to, and nobody may: it is another address.
    let elsewhere = |call: crate::program::Call| call.listen(Some("127.0.9.9:0"));
    Site::start_as(name, "", elsewhere, |home| {
        home.write("shared/a film.mkv", &bytes(1, 3_000_003));
        home.write("shared/a season/episode one.mkv", &bytes(2, 400_001));
        home.write("shared/a season/extras & more/\u{e4} 50%.txt", &bytes(3, 7));
        home.write("shared/a season/extras & more/two.mkv", &bytes(4, 900_001));
        home.write("shared/a season/nothing.txt", b"");
    })
}

/// The `.torrent` as the page gives it.
fn torrent(site: &Site, name: &str) -> PathBuf {
    let answer = site.get(&format!("/s/{}.torrent", site.hash_of(name))).is(200);
    site.home.write(format!("{name}.torrent"), &answer.body)
}

fn assert_same(site: &Site, name: &str, got: &Path) {
    run_well(Command::new("diff").arg("-r").arg(site.shared(name)).arg(got.join(name)));
    let stats = site.program.stats();
    // What the page hands out counts as what peers are sent.
    let bytes = stats["sent_bytes"].as_u64().expect("it is a number");
    assert!(bytes >= 1_000_000, "{stats}");
    // What becomes of each peer's connection stands in the log.
    let log = site.program.log();
    let peer = log.lines().find(|line| line.starts_with("debug: 127.0.0.1:"));
    assert_eq!(peer, None, "no peer was connected");
}

#[test]
fn aria2_fetches_from_the_web_seed_alone() {
    let site = site("web-aria2");
    for name in ["a film.mkv", "a season"] {
        let (torrent, got) = (torrent(&site, name), site.home.path().join("aria2"));
        let mut aria2 = Command::new("aria2c");
        aria2.args(["--no-conf", "--quiet", "--seed-time=0", "--enable-dht=false"]);
        aria2.args([
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=false",
        ]);
        aria2.args(["--file-allocation=none", "--stop=30", "--listen-port=21000-21999", "-d"]);
        run_well(aria2.arg(&got).arg(&torrent).env("HOME", site.home.path()));
        assert_same(&site, name, &got);
    }
}

#[test]
fn libtorrent_fetches_from_the_web_seed_alone() {
    let site = site("web-libtorrent");
    let names = ["a film.mkv", "a season"];
    let torrents = names.map(|name| torrent(&site, name));
    let got = site.home.path().join("libtorrent");
    std::fs::create_dir(&got).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/web_seed_only.py");
    // Debian's: its module is nobody else's.
    run_well(Command::new("/usr/bin/python3").arg(script).arg(&got).args(&torrents));
    names.iter().for_each(|name| assert_same(&site, name, &got));
}
