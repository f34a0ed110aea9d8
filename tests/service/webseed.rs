//! Content comes from web servers too, and no server can do more harm than to be of no use.

use crate::program::{Call, Ended, Folder, PATIENCE, wait_until};
use crate::torrent::Metainfo;
use crate::web_server::{Heard, Manners, WebServer};
use crate::{bytes, film, lacks_root};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Something that is shared, and its torrent.
struct Shared {
    home: Folder,
    root: PathBuf,
    torrent: PathBuf,
    metainfo: Metainfo,
}

impl Shared {
    /// One file of so many bytes, in pieces of 64 KiB.
    fn film(name: &str, length: usize) -> Shared {
        Shared::film_in_pieces(name, length, "64K")
    }

    fn film_in_pieces(name: &str, length: usize, piece_size: &str) -> Shared {
        let home = Folder::new(name);
        let root = film(&home, length);
        Shared::new(home, root, piece_size)
    }

    /// Folders in folders, and names that are hard to write into a URL.
    fn tree(name: &str) -> Shared {
        let home = Folder::new(name);
        for (number, (name, length)) in [
            ("plain.txt", 1),
            ("folder in folder/deeper/deepest.bin", 400_000),
            ("folder in folder/empty", 0),
            ("Größe/ñandú 日本語.bin", 900_000),
            ("cafe\u{301}/as two code points", 16_384),
            ("100% & #1; it's [here] +plus=equals?.txt", 65_537),
            ("tilde~/under_score-.", 3_000),
        ]
        .into_iter()
        .enumerate()
        {
            home.write(Path::new("tree").join(name), &bytes(number as u64, length));
        }
        for number in 0..60 {
            home.write(format!("tree/small/{number:02}"), &bytes(number, number as usize * 97));
        }
        let root = home.path().join("tree");
        Shared::new(home, root, "64K")
    }

    fn new(home: Folder, root: PathBuf, piece_size: &str) -> Shared {
        let call = Call::share(&home, &[&root]).with(&["--piece-size", piece_size]);
        let program = call.state(&home.path().join("first")).start();
        let torrent = program.shares[0].torrent.clone();
        program.stop();
        let metainfo = Metainfo::read(&torrent);
        Shared { home, root, torrent, metainfo }
    }

    /// Its files, as a server has them below `base`.
    fn files(&self, base: &str) -> BTreeMap<String, Vec<u8>> {
        let encoded = |name: &str| percent_encode(name.as_bytes(), PLAIN).to_string();
        let place = |path: &Path| {
            let mut place = format!("{base}{}", encoded(&self.metainfo.name));
            for name in path {
                place += &format!("/{}", encoded(name.to_str().unwrap()));
            }
            let at =
                if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) };
            (place, fs::read(at).unwrap())
        };
        self.metainfo.files.iter().map(|(path, _)| place(path)).collect()
    }

    fn serve(&self, manners: Manners) -> WebServer {
        WebServer::start(self.files("/pub/"), manners)
    }

    /// A fetch from servers the owner names.
    fn fetch(&self, servers: &[&WebServer]) -> Call {
        let call = Call::get_into(&self.home, &self.torrent, &self.home.path().join("there"));
        servers.iter().fold(call, |call, server| call.with(&["--web-seed", &server.url("/pub/")]))
    }

    fn assert_arrived(&self, ended: &Ended) {
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(ended.stdout.contains("\"event\":\"complete\""), "{}", ended.stdout);
        for (path, _) in &self.metainfo.files {
            let join = |root: &Path| match path.as_os_str().is_empty() {
                true => root.to_path_buf(),
                false => root.join(path),
            };
            let there = join(&self.home.path().join("there").join(&self.metainfo.name));
            // On our disk names are made safe, on the web they are as the torrent has them.
            let safe = there.to_str().unwrap().replace('?', "_").replace("-.", "-_");
            let arrived = fs::read(&safe).unwrap_or_else(|error| panic!("{safe}: {error}"));
            assert!(arrived == fs::read(join(&self.root)).unwrap(), "{}", path.display());
        }
    }

    /// A copy of the torrent that names web seeds.
    fn naming(&self, list: &str) -> PathBuf {
        let mut torrent = fs::read(&self.torrent).unwrap();
        assert_eq!(torrent.pop(), Some(b'e'));
        torrent.extend_from_slice(format!("8:url-list{list}e").as_bytes());
        self.home.write("naming.torrent", &torrent)
    }
}

/// What needs no escape in a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes a server was asked for.
fn asked_bytes(heard: &[Heard]) -> u64 {
    heard.iter().filter_map(|heard| heard.range).map(|(first, last)| last - first + 1).sum()
}

#[test]
fn a_file_arrives_from_a_web_server_alone_over_one_connection() {
    let shared = Shared::film_in_pieces("web-film", 64_000_001, "1M");
    let server = shared.serve(Manners::Good);
    let ended = shared.fetch(&[&server]).run();
    shared.assert_arrived(&ended);
    assert_eq!((asked_bytes(&server.heard()), server.connections()), (64_000_001, 1));
    assert!(ended.stderr.contains("/pub/film.mkv: is fetched from"), "{}", ended.stderr);
}

#[test]
fn a_cap_holds_for_a_web_server_too() {
    let shared = Shared::film("web-capped", 3_000_000);
    let server = shared.serve(Manners::Good);
    let begun = Instant::now();
    shared.assert_arrived(&shared.fetch(&[&server]).with(&["--down", "1MB/s", "--cap-lan"]).run());
    // A second's worth comes at once.
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[test]
fn a_tree_arrives_whatever_its_names_are() {
    let shared = Shared::tree("web-tree");
    let server = shared.serve(Manners::Good);
    shared.assert_arrived(&shared.fetch(&[&server]).run());
    assert_eq!(asked_bytes(&server.heard()), shared.metainfo.total_bytes());
    assert_eq!(server.connections(), 1);
}

#[test]
fn who_watches_meanwhile_gets_it_from_the_front() {
    let shared = Shared::film("web-in-order", 9_000_000);
    let server = shared.serve(Manners::Good);
    shared.assert_arrived(&shared.fetch(&[&server]).with(&["--sequential"]).run());
    let firsts: Vec<u64> = server.heard().iter().map(|heard| heard.range.unwrap().0).collect();
    assert!(firsts[0] == 0 && firsts.is_sorted(), "{firsts:?}");
}

#[test]
fn where_an_answer_is_cut_short_the_rest_is_asked_for() {
    let shared = Shared::film("web-cut", 1_000_000);
    let server = shared.serve(Manners::Cut(700_000));
    let ended = shared.fetch(&[&server]).with(&["--sequential"]).run();
    shared.assert_arrived(&ended);
    let heard = server.heard();
    // To the block: what has come of one that was cut is asked for again.
    assert_eq!(heard[1].range, Some((700_000 / 16_384 * 16_384, 999_999)), "{heard:?}");
    let words = "hung up in the middle of its answer; it is tried again";
    assert_eq!(ended.stderr.matches(words).count(), 1, "{}", ended.stderr);
}

#[test]
fn a_server_that_sends_bad_data_is_left_for_good() {
    let shared = Shared::film("web-corrupt", 5_000_000);
    let (bad, good) = (shared.serve(Manners::Corrupt), shared.serve(Manners::Good));
    let ended = shared.fetch(&[&bad, &good]).run();
    shared.assert_arrived(&ended);
    let words = "has sent what does not match the torrent; it is not used any more";
    assert_eq!(ended.stderr.matches(words).count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("{}/pub/film.mkv: {words}", bad.address)));
    assert_eq!(bad.connections(), 1);
}

#[test]
fn servers_that_have_something_else_are_left_and_say_why() {
    let shared = Shared::film("web-other", 3_000_000);
    let wrong = [
        (Manners::Status(404), "answers 404; it is not used any more"),
        (Manners::Status(503), "answers 503; it is tried again"),
        (Manners::Longer(7), "a file has 3000007 bytes there and 3000000 here; it is not"),
        (Manners::Beside, "gives another part than it was asked for; it is tried again"),
        (Manners::Whole, "does not give parts of files; it is not used any more"),
        (Manners::Elsewhere("ftp://127.0.0.1".into()), "redirects to what is no http or https URL"),
    ];
    for (manners, words) in wrong {
        let bad = shared.serve(manners.clone());
        // Slow enough for the other to have its turn, which is not over before.
        let good = shared.serve(Manners::Slow(Duration::from_millis(5)));
        let _ = fs::remove_dir_all(shared.home.path().join("there"));
        let state = shared.home.path().join(format!("state-{}", bad.address.port()));
        let ended = shared.fetch(&[&bad, &good]).with(&["--sequential"]).state(&state).run();
        shared.assert_arrived(&ended);
        if manners != Manners::Whole {
            assert!(ended.stderr.contains(words), "{manners:?}: {}", ended.stderr);
        }
    }
}

#[test]
fn files_that_are_taken_from_their_beginning_need_no_ranges() {
    let shared = Shared::film("web-whole", 500_000);
    let server = shared.serve(Manners::Whole);
    shared.assert_arrived(&shared.fetch(&[&server]).run());
    assert_eq!(server.heard().len(), 1);
}

#[test]
fn a_redirect_in_the_house_is_followed_for_the_owner() {
    let shared = Shared::tree("web-elsewhere");
    let good = shared.serve(Manners::Good);
    let base = good.url("");
    let server = shared.serve(Manners::Elsewhere(base));
    shared.assert_arrived(&shared.fetch(&[&server]).run());
    assert!(good.heard().len() > 60 && server.heard().len() >= good.heard().len());
}

#[test]
fn a_url_of_a_torrent_leads_to_no_machine_in_the_house() {
    let shared = Shared::film("web-stranger", 300_000);
    let server = shared.serve(Manners::Good);
    let url = server.url("/pub/");
    for (list, options) in [
        (format!("{}:{url}", url.len()), &[][..]),
        (format!("l9:ftp://a/b3:x:y{}:{url}e", url.len()), &[]),
        (format!("{}:{url}", url.len()), &["--lan"]),
    ] {
        let torrent = shared.naming(&list);
        let call = Call::get_into(&shared.home, &torrent, &shared.home.path().join("there"));
        let program = call.with(options).launch();
        program.wait_for_words("leads to an address inside a house");
        assert_eq!(server.connections(), 0);
        program.kill();
    }
}

#[test]
fn a_web_server_and_a_peer_bring_it_together() {
    let shared = Shared::film_in_pieces("web-and-peer", 60_000_000, "1M");
    let server = shared.serve(Manners::Slow(Duration::from_millis(4)));
    let call = Call::share(&shared.home, &[&shared.root]).with(&["--piece-size", "1M"]);
    let peer = call.state(&shared.home.path().join("first")).start();
    let address = peer.address.to_string();
    let ended = shared.fetch(&[&server]).with(&["--peer", &address]).run();
    shared.assert_arrived(&ended);
    let sent = peer.stop().sent_bytes;
    let asked = asked_bytes(&server.heard());
    assert!(sent > 0 && asked > 0 && sent + asked >= 60_000_000, "{sent} and {asked}");
    // At the end the peer is asked for what the server is slow with: for its last run at most.
    assert!(sent + asked < 66_000_000, "little comes twice: {sent} and {asked}");
}

#[test]
fn a_full_disk_pauses_it_and_room_lets_it_go_on() {
    if lacks_root() {
        return;
    }
    let shared = Shared::film("web-full", 8_000_000);
    let server = shared.serve(Manners::Good);
    let there = shared.home.path().join("there");
    fs::create_dir(&there).unwrap();
    let mount = format!("mount -t tmpfs -o size=4m tmpfs '{}' && exec \"$@\"", there.display());
    let call = shared.fetch(&[&server]).under(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    let program = call.launch();
    program.wait_for_words("fetching pauses");
    // What was under way comes to its end, and nothing more is asked for.
    let mut asked = 0;
    let is_quiet = || {
        let before = std::mem::replace(&mut asked, server.heard().len());
        thread::sleep(Duration::from_millis(300));
        (asked == before).then_some(())
    };
    wait_until("nothing is asked for", PATIENCE, is_quiet, || program.log());
    let grown = std::process::Command::new("nsenter")
        .args(["--mount", "--target", &program.id().to_string(), "mount", "-o"])
        .args(["remount,size=64m", there.to_str().unwrap()])
        .status();
    assert!(grown.unwrap().success());
    program.lines_until("\"event\":\"complete\"");
    assert!(program.wait().0.success());
}

#[test]
fn the_smallest_board_fetches_from_the_web_too() {
    let shared = Shared::tree("web-tiny");
    let servers = [Manners::Status(503), Manners::Good].map(|manners| shared.serve(manners));
    let ended = shared.fetch(&[&servers[0], &servers[1]]).board(Some("test-tiny")).run();
    shared.assert_arrived(&ended);
}

#[test]
fn a_url_that_is_none_is_refused() {
    let home = Folder::new("web-refused");
    let call = Call::get_into(&home, Path::new("x.torrent"), home.path());
    let said = call.with(&["--web-seed", "ftp://a/b"]).refusal();
    let words = "--web-seed ftp://a/b: is neither http nor https; give an http URL";
    assert!(said.contains(words), "{said}");
}
