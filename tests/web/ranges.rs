//! Files and parts of them: every byte, by `curl`, `wget` and a client of ours.

use crate::client::{Connection, request};
use crate::prng::Prng;
use crate::{Site, bytes, run, run_well};
use std::process::Command;

/// A single file, and a folder whose files begin and end within pieces.
fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, FILM_BYTES));
        home.write("shared/my folder/a first & second.bin", &bytes(2, 40_001));
        home.write("shared/my folder/inner/\u{e4}\u{4e2d} 100%.bin", &bytes(3, 70_003));
        home.write("shared/my folder/nothing", b"");
    })
}

/// What can be asked for: its address, and where it lies.
fn files(site: &Site) -> Vec<(String, Vec<u8>)> {
    let (film, folder) = (site.hash_of("film.mkv"), site.hash_of("my folder"));
    [
        (format!("/s/{film}/film.mkv"), "film.mkv"),
        (format!("/s/{folder}/my%20folder/a%20first%20%26%20second.bin"), {
            "my folder/a first & second.bin"
        }),
        (format!("/s/{folder}/my%20folder/inner/%C3%A4%E4%B8%AD%20100%25.bin"), {
            "my folder/inner/\u{e4}\u{4e2d} 100%.bin"
        }),
    ]
    .map(|(address, path)| (address, std::fs::read(site.shared(path)).unwrap()))
    .into()
}

#[test]
fn curl_gets_any_part_of_a_file() {
    let site = site("web-ranges");
    let mut random = Prng::new(50);
    for (address, content) in files(&site) {
        let last = content.len() - 1;
        let mut ranges = vec![
            ("0-0".to_owned(), 0..1),
            (format!("{last}-{last}"), last..last + 1),
            (format!("{last}-"), last..last + 1),
            ("-1".to_owned(), last..last + 1),
            ("-777".to_owned(), last + 1 - 777..last + 1),
            (format!("-{}", 10 * content.len()), 0..content.len()),
            (format!("5-{}", 10 * content.len()), 5..content.len()),
            ("0-".to_owned(), 0..content.len()),
        ];
        for _ in 0..12 {
            let [one, two] = [0; 2].map(|_| random.below(content.len() as u32) as usize);
            let (first, last) = (one.min(two), one.max(two));
            ranges.push((format!("{first}-{last}"), first..last + 1));
        }
        for (range, wanted) in ranges {
            let url = site.url(&address);
            let got = run_well(Command::new("curl").args(["-sSf", "-r", &range, &url]));
            assert!(got == content[wanted], "{address}: {range}");
        }
        let whole = run_well(Command::new("curl").args(["-sSf", &site.url(&address)]));
        assert!(whole == content, "{address}");
    }
}

#[test]
fn a_part_says_which_it_is_and_head_says_what_the_whole_would_be() {
    let site = site("web-heads");
    for (address, content) in files(&site) {
        let length = content.len();
        let whole = site.get(&address).is(200);
        for (lines, status, range, bytes) in [
            ("", 200, None, length),
            ("Range: bytes=10-19\r\n", 206, Some(format!("bytes 10-19/{length}")), 10),
            (
                "Range: bytes=-3\r\n",
                206,
                { Some(format!("bytes {}-{}/{length}", length - 3, length - 1)) },
                3,
            ),
            // Several at once may be answered with all of it.
            ("Range: bytes=0-1,5-6\r\n", 200, None, length),
            ("Range: lines=0-1\r\n", 200, None, length),
        ] {
            let got = site.ask("GET", &address, lines, b"").is(status);
            assert_eq!(got.header("Content-Range").map(Into::into), range, "{lines}");
            assert_eq!(got.header("Accept-Ranges"), Some("bytes"));
            assert_eq!(got.body.len(), bytes);
            let mut connection = Connection::to(site.page);
            connection.send(request(site.page, "HEAD", &address, lines, b""));
            let head = connection.receive(true).unwrap();
            // Ranges are of GET alone (RFC 9110, 14.2).
            assert_eq!(head.timeless().1, whole.timeless().1, "{lines}");
            // Nothing follows it: the next answer begins at once.
            connection.send(request(site.page, "GET", "/robots.txt", "", b""));
            connection.receive(false).unwrap().is(200);
        }
        let beyond = format!("Range: bytes={length}-\r\n");
        let refused = site.ask("GET", &address, &beyond, b"").is(416);
        assert_eq!(refused.header("Content-Range"), Some(&*format!("bytes */{length}")));
    }
    let empty = format!("/s/{}/my%20folder/nothing", site.hash_of("my folder"));
    assert_eq!(site.get(&empty).is(200).header("Content-Length"), Some("0"));
    site.ask("GET", &empty, "Range: bytes=0-\r\n", b"").is(416);
}

#[test]
fn what_is_known_is_not_sent_again_and_what_is_another_is_sent_whole() {
    let site = site("web-tags");
    for (address, content) in files(&site) {
        let tag = site.get(&address).header("ETag").expect("a file has a tag").to_owned();
        for known in [tag.clone(), format!("\"other\", {tag}"), "*".into(), format!("W/{tag}")] {
            let lines = format!("If-None-Match: {known}\r\n");
            let answer = site.ask("GET", &address, &lines, b"").is(304);
            assert_eq!(answer.header("ETag"), Some(&*tag), "{known}");
        }
        site.ask("GET", &address, "If-None-Match: \"other\"\r\n", b"").is(200);
        for (known, status) in
            [(&*tag, 206), ("\"other\"", 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)]
        {
            let lines = format!("Range: bytes=5-9\r\nIf-Range: {known}\r\n");
            let answer = site.ask("GET", &address, &lines, b"").is(status);
            let wanted = if status == 206 { &content[5..10] } else { &content };
            assert!(answer.body == wanted, "{known}");
        }
    }
}

#[test]
fn wget_goes_on_where_it_was_cut_off() {
    let site = site("web-wget");
    for (number, (address, content)) in files(&site).into_iter().enumerate() {
        let file = format!("got-{number}");
        let path = site.home.write(&file, &content[..content.len() / 3]);
        let wget = || {
            let mut command = Command::new("wget");
            command.args(["-q", "-c", "-O"]).arg(&path).arg(site.url(&address));
            command
        };
        run_well(&mut wget());
        assert!(std::fs::read(&path).unwrap() == content, "{address}");
        // Once more: there is nothing left to get, and nothing is done to it.
        run(&mut wget());
        assert!(std::fs::read(&path).unwrap() == content, "{address}");
    }
}

#[test]
fn a_file_that_has_changed_is_gone_and_never_mixed() {
    let site = site("web-changed");
    let address = format!("/s/{}/film.mkv", site.hash_of("film.mkv"));
    site.get(&address).is(200);
    // Under the feet of the box: same length, other bytes.
    std::fs::write(site.shared("film.mkv"), bytes(9, FILM_BYTES)).unwrap();
    let answer = site.get(&address);
    assert!([410, 503].contains(&answer.status), "{}", answer.head);
}

/// Some pieces, and part of one.
const FILM_BYTES: usize = 1_000_003;
