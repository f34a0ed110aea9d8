//! A share by the other ends of its address: as others read it.

use crate::client::{Connection, find, request};
use crate::program::{PATIENCE, wait_until};
use crate::torrent::{Metainfo, parse};
use crate::{Site, bytes, run, run_well};
use std::io::Read as _;
use std::process::Command;
use std::time::{Duration, Instant};

fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, 300_003));
        home.write("shared/album \u{e4}/01 one & two.mp3", &bytes(2, 50_001));
        home.write("shared/album \u{e4}/inner/\u{4e2d}\u{6587} \u{1f3b5}.flac", &bytes(3, 70_003));
        home.write("shared/album \u{e4}/empty.txt", b"");
        home.write("shared/album \u{e4}/notes.txt", b"notes");
    })
}

const ALBUM: &str = "album \u{e4}";

#[test]
fn a_zip_has_every_file_as_other_programs_unpack_it() {
    let site = site("web-zip");
    for name in [ALBUM, "film.mkv"] {
        let hash = site.hash_of(name);
        let answer = site.get(&format!("/s/{hash}.zip")).is(200);
        assert_eq!(answer.header("Content-Type"), Some("application/zip"));
        assert_eq!(answer.header("Content-Length"), Some(&*answer.body.len().to_string()));
        let zip = site.home.write("got.zip", &answer.body);
        run_well(Command::new("unzip").arg("-tq").arg(&zip));
        let out = site.home.path().join("out");
        run_well(Command::new("unzip").arg("-qo").arg(&zip).arg("-d").arg(&out));
        // Python looks at every checksum, and at names with its own eyes.
        let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\n\
                      assert z.testzip() is None\nz.extractall(sys.argv[2])\n\
                      sys.stdout.buffer.write('\\n'.join(z.namelist()).encode())";
        let again = site.home.path().join("again");
        let mut python = Command::new("python3");
        let listed = run_well(python.args(["-c", script]).arg(&zip).arg(&again));
        let files = Metainfo::read(&site.share(name).torrent).files.len();
        assert_eq!(String::from_utf8(listed).unwrap().lines().count(), files);
        for folder in [&out, &again] {
            let mut diff = Command::new("diff");
            diff.arg("-r").arg(site.shared(name)).arg(folder.join(name));
            run_well(&mut diff);
        }
        let head = site.ask("HEAD", &format!("/s/{hash}.zip"), "", b"").is(200);
        assert_eq!(head.header("Content-Length"), answer.header("Content-Length"));
    }
}

#[test]
fn a_torrent_and_a_magnet_link_name_this_box_as_web_seed() {
    let site = site("web-torrent");
    for name in [ALBUM, "film.mkv"] {
        let share = site.share(name);
        let hash = site.hash_of(name);
        let seed = site.url(&format!("/s/{hash}/"));
        let answer = site.get(&format!("/s/{hash}.torrent")).is(200);
        assert_eq!(answer.header("Content-Type"), Some("application/x-bittorrent"));
        let (torrent, rest) = parse(&answer.body);
        assert!(rest.is_empty());
        assert_eq!(Metainfo::of(torrent.at("info").raw).info_hash, share.info_hash);
        assert_eq!(torrent.at("url-list").text(), seed);
        let path = site.home.write("got.torrent", &answer.body);
        let shown = run(Command::new("transmission-show").arg(&path));
        if shown.status.success() {
            assert!(find(&shown.stdout, hash.as_bytes()).is_some());
        }
        let magnet = site.get(&format!("/s/{hash}.magnet")).is(200).text();
        let link = url_of(&magnet);
        assert_eq!(link("xt"), Some(format!("urn:btih:{hash}")));
        assert_eq!(link("ws"), Some(seed));
        assert_eq!(link("dn").as_deref(), Some(name));
    }
}

/// What stands in a magnet link.
fn url_of(magnet: &str) -> impl Fn(&str) -> Option<String> {
    let (_, query) = magnet.trim().split_once('?').expect("it has a query");
    let query = query.to_owned();
    move |name| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

#[test]
fn a_playlist_has_what_can_be_played_at_addresses_that_answer() {
    let site = site("web-playlist");
    let hash = site.hash_of(ALBUM);
    let list = site.get(&format!("/s/{hash}.m3u8")).is(200).text();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0], "#EXTM3U");
    let addresses: Vec<&&str> = lines.iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(addresses.len(), 2, "{list}");
    for address in addresses {
        let got = run_well(Command::new("curl").args(["-sSf", address]));
        assert!([50_001, 70_003].contains(&got.len()), "{address}");
    }
}

#[test]
fn json_and_a_code_to_scan_are_what_they_say() {
    let site = site("web-json");
    let hash = site.hash_of(ALBUM);
    let told = site.get(&format!("/s/{hash}.json")).is(200).json();
    assert_eq!(told["details"][0]["torrent"]["name"], ALBUM);
    assert_eq!(told["files"].as_array().map(Vec::len), Some(4));
    let svg = site.get(&format!("/s/{hash}.svg")).is(200);
    assert_eq!(svg.header("Content-Type"), Some("image/svg+xml"));
    let script = "import sys, xml.dom.minidom\nprint(xml.dom.minidom.parseString(sys.stdin.read())\
                  .documentElement.tagName)";
    let path = site.home.write("code.svg", &svg.body);
    let shell = format!("python3 -c '{script}' <'{}'", path.display());
    assert_eq!(run_well(Command::new("sh").args(["-c", &shell])), b"svg\n");
    let moved = site.get(&format!("/s/{hash}")).is(308);
    assert_eq!(moved.header("Location"), Some(&*format!("/s/{hash}/")));
}

#[test]
fn what_is_nowhere_is_404_and_what_is_gone_410() {
    let site = site("web-gone");
    let film = site.hash_of("film.mkv");
    let nobodys = "0123456789012345678901234567890123456789";
    for path in [
        "/no".to_owned(),
        "/s/".into(),
        "/s/short/".into(),
        format!("/s/{film}.exe"),
        format!("/s/{film}/film.mkv/more"),
        format!("/s/{}/{}/no", site.hash_of(ALBUM), "album%20%C3%A4"),
        "/api/v1/no".into(),
        "/api/v2/torrents".into(),
    ] {
        assert_eq!(site.get(&path).status, 404, "{path}");
    }
    let ends = ["/", ".torrent", ".magnet", ".zip", ".m3u8", ".json", "/film.mkv"];
    for end in ends {
        assert_eq!(site.get(&format!("/s/{nobodys}{end}")).status, 410, "{end}");
        assert_eq!(site.get(&format!("/s/{film}{end}")).status, 200, "{end}");
    }
    std::fs::remove_file(site.shared("film.mkv")).unwrap();
    let gone = || (site.get(&format!("/s/{film}/film.mkv")).status == 410).then_some(());
    wait_until("the share is gone", PATIENCE, gone, || site.program.log());
    let ended = || ends.iter().all(|end| site.get(&format!("/s/{film}{end}")).status == 410);
    wait_until("all of it is", PATIENCE, || ended().then_some(()), || site.program.log());
}

#[test]
fn what_is_paused_is_not_sent_and_says_so() {
    let site = site("web-paused");
    let film = site.hash_of("film.mkv");
    let owner = site.claim();
    site.post(&owner, &format!("/s/{film}/pause"), "").is(303);
    let answer = site.get(&format!("/s/{film}/film.mkv")).is(503);
    assert!(answer.text().contains("paused") && answer.header("Retry-After").is_some());
    site.get(&format!("/s/{film}.zip")).is(503);
    site.get(&format!("/s/{film}/")).is(200);
    site.post(&owner, &format!("/s/{film}/resume"), "").is(303);
    let back = || (site.get(&format!("/s/{film}/film.mkv")).status == 200).then_some(());
    wait_until("it is back", PATIENCE, back, || site.program.log());
}

#[test]
fn whoever_reads_slowly_or_not_at_all_does_not_keep_the_owner_from_pausing_or_removing() {
    // More than the kernels keep between two programs.
    let content = bytes(8, 24 << 20);
    let site = Site::start("web-held", |home| {
        home.write("shared/film.mkv", &content);
    });
    let hash = site.hash_of("film.mkv");
    let owner = site.claim();
    for (path, wish) in [("/film.mkv", "pause"), (".zip", "remove")] {
        let mut reader = Connection::to(site.page);
        reader.send(request(site.page, "GET", &format!("/s/{hash}{path}"), "", b""));
        let mut first = [0; 1_000];
        reader.stream.read_exact(&mut first).unwrap();
        // It takes nothing more, and what there was to send has been.
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        site.post(&owner, &format!("/s/{hash}/{wish}"), "").is(303);
        println!("{wish}: {:?}", begun.elapsed());
        let mut rest = Vec::new();
        let _ = reader.stream.read_to_end(&mut rest);
        assert!(rest.len() < content.len() - 1_000, "all of it is sent after it was to {wish}");
        if wish == "pause" {
            site.get(&format!("/s/{hash}/film.mkv")).is(503);
            site.post(&owner, &format!("/s/{hash}/resume"), "").is(303);
        }
    }
    site.get(&format!("/s/{hash}/film.mkv")).is(410);
}
