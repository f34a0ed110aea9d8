//! Files dropped into a browser.

use crate::client::{Connection, request};
use crate::{Owner, Site, bytes};
use std::io::Write as _;
use std::time::{Duration, Instant};

fn site(name: &str) -> (Site, Owner) {
    let site = Site::start(name, |_| {});
    let owner = site.claim();
    (site, owner)
}

/// What a slice is sent with.
fn lines(owner: &Owner) -> String {
    format!("{}X-Token: {}\r\n", owner.cookie_line(), owner.form_token)
}

fn have(site: &Site, owner: &Owner, name: &str) -> usize {
    let answer = site.ask("HEAD", &format!("/upload/{name}"), &lines(owner), b"").is(204);
    answer.header("X-Have").expect("it says how much is here").parse().unwrap()
}

#[test]
fn a_file_that_comes_in_slices_is_shared_once_it_is_whole() {
    let (site, owner) = site("web-slices");
    let content = bytes(5, 500_003);
    assert_eq!(have(&site, &owner, "a%20film.mkv"), 0);
    for (number, slice) in content.chunks(200_000).enumerate() {
        let at = 200_000 * number;
        assert!(!site.shared("a film.mkv").exists());
        let path = format!("/upload/a%20film.mkv?at={at}&of={}", content.len());
        site.ask("PUT", &path, &lines(&owner), slice).is(204);
    }
    assert!(std::fs::read(site.shared("a film.mkv")).unwrap() == content);
    let hash = site.hash_of("a film.mkv");
    assert!(site.get(&format!("/s/{hash}/a%20film.mkv")).is(200).body == content);
    // A second one of that name is refused, and changes nothing.
    let path = format!("/upload/a%20film.mkv?at=0&of={}", content.len());
    site.ask("PUT", &path, &lines(&owner), &content).is(409);
    assert!(std::fs::read(site.shared("a film.mkv")).unwrap() == content);
    site.ask("PUT", "/upload/empty.txt?at=0&of=0", &lines(&owner), b"").is(204);
    assert_eq!(std::fs::metadata(site.shared("empty.txt")).unwrap().len(), 0);
}

#[test]
fn what_was_cut_off_goes_on_where_it_was() {
    let (site, owner) = site("web-resumed");
    let content = bytes(6, 900_001);
    let path = |at: usize| format!("/upload/film.mkv?at={at}&of={}", content.len());
    let whole = request(site.page, "PUT", &path(0), &lines(&owner), &content);
    let mut connection = Connection::to(site.page);
    connection.send(&whole[..whole.len() - 400_000]);
    drop(connection);
    // What had come is kept, if not to the byte.
    let limit = Instant::now() + Duration::from_secs(10);
    let mut here = 0;
    while here < 300_000 {
        assert!(Instant::now() < limit, "{here} bytes are here");
        here = have(&site, &owner, "film.mkv");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(50));
    let here = have(&site, &owner, "film.mkv");
    assert!(here <= content.len() - 400_000 && !site.shared("film.mkv").exists());
    // Not beyond what is here: there would be a hole.
    site.ask("PUT", &path(here + 1), &lines(&owner), &content[here + 1..]).is(409);
    site.ask("PUT", &path(here), &lines(&owner), &content[here..]).is(204);
    assert!(std::fs::read(site.shared("film.mkv")).unwrap() == content);
}

#[test]
fn what_would_not_fit_is_refused_before_it_is_sent() {
    let (site, owner) = site("web-full");
    let huge: u64 = 1 << 60;
    for expect in ["Expect: 100-continue\r\n", ""] {
        let mut connection = Connection::to(site.page);
        let lines = format!("{}{expect}Content-Length: {huge}\r\n", lines(&owner));
        connection.send(request(
            site.page,
            "PUT",
            &format!("/upload/x?at=0&of={huge}"),
            &lines,
            b"",
        ));
        let answer = connection.receive(false).unwrap().is(507);
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(answer.text().contains("would not fit"), "{}", answer.text());
    }
    // One that fits is asked for.
    let mut connection = Connection::to(site.page);
    let lines = format!("{}Expect: 100-continue\r\nContent-Length: 4\r\n", lines(&owner));
    connection.send(request(site.page, "PUT", "/upload/y?at=0&of=4", &lines, b""));
    connection.receive(false).unwrap().is(100);
    connection.send("here");
    connection.receive(false).unwrap().is(204);
    assert_eq!(std::fs::read(site.shared("y")).unwrap(), b"here");
    let left: Vec<_> = std::fs::read_dir(site.shared("")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing is left of what was refused: {left:?}");
}

#[test]
fn a_name_leads_nowhere_else() {
    let (site, owner) = site("web-names");
    for (name, status) in [
        ("..%2fevil", 422),
        ("%2e%2e%2fevil", 422),
        ("%2fetc%2fevil", 422),
        ("a%5cb", 422),
        ("a%00b", 422),
        ("a%0ab", 422),
        ("..", 422),
        (".", 422),
        (".hidden", 422),
        ("~lock", 422),
        ("x.part", 422),
        ("", 422),
        ("%ff", 400),
        (&"a".repeat(241), 422),
        ("..%2f..%2fstate%2fowner.json", 422),
    ] {
        let path = format!("/upload/{name}?at=0&of=4");
        let answer = site.ask("PUT", &path, &lines(&owner), b"evil");
        assert_eq!(answer.status, status, "{name}: {}", answer.head);
        let answer = site.ask("GET", &format!("/upload/{name}"), &lines(&owner), b"");
        assert_eq!(answer.status, status, "{name}: {}", answer.head);
    }
    for path in ["/upload/../evil?at=0&of=4", "/upload/a/b?at=0&of=4", "/upload?at=0&of=4"] {
        site.ask("PUT", path, &lines(&owner), b"evil").is(405);
    }
    assert_eq!(std::fs::read_dir(site.shared("")).unwrap().count(), 0);
    assert!(!site.home.path().join("evil").exists());
    // A link that lies there already is not followed out of the folder.
    std::os::unix::fs::symlink(site.home.path().join("evil"), site.shared(".link.part")).unwrap();
    let answer = site.ask("PUT", "/upload/link?at=0&of=4", &lines(&owner), b"evil");
    assert!(!site.home.path().join("evil").exists(), "{}", answer.head);
}

#[test]
fn slices_that_make_no_sense_are_refused() {
    let (site, owner) = site("web-senseless");
    for query in [
        "",
        "?at=0",
        "?of=4",
        "?at=-1&of=4",
        "?at=2&of=4",
        "?at=18446744073709551615&of=4",
        "?at=x&of=y",
    ] {
        let path = format!("/upload/x{query}");
        site.ask("PUT", &path, &lines(&owner), b"evil").is(400);
    }
    assert_eq!(std::fs::read_dir(site.shared("")).unwrap().count(), 0);
}

#[test]
fn more_at_once_than_there_is_memory_for_are_put_off() {
    let (site, owner) = site("web-crowd");
    // As many as there are places begin, and wait in the middle.
    let mut held: Vec<Connection> = Vec::new();
    for number in 0..4 {
        let mut connection = Connection::to(site.page);
        let path = format!("/upload/held-{number}?at=0&of=10");
        let lines = format!("{}Expect: 100-continue\r\nContent-Length: 10\r\n", lines(&owner));
        connection.send(request(site.page, "PUT", &path, &lines, b""));
        connection.receive(false).unwrap().is(100);
        held.push(connection);
    }
    let path = "/upload/more?at=0&of=4";
    let answer = site.ask("PUT", path, &lines(&owner), b"more").is(503);
    assert!(answer.header("Retry-After").is_some());
    for mut connection in held {
        connection.stream.write_all(b"0123456789").unwrap();
        connection.receive(false).unwrap().is(204);
    }
    site.ask("PUT", path, &lines(&owner), b"more").is(204);
}
