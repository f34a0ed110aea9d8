//! Requests as they come over a wire: in pieces, in a row, malformed, and two where one is seen.

use crate::client::{Connection, request};
use crate::{Site, bytes};
use std::io::Write as _;
use std::time::{Duration, Instant};

fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, 100_003));
    })
}

#[test]
fn a_request_cut_at_any_byte_is_answered_as_a_whole_one() {
    let site = site("web-cut");
    let address = format!("/s/{}/film.mkv", site.hash_of("film.mkv"));
    let secret = "secret=0";
    let foreign = "Origin: http://elsewhere.example\r\n";
    for whole in [
        request(site.page, "GET", &address, "Range: bytes=7-70\r\n", b""),
        request(site.page, "POST", "/claim", foreign, secret.as_bytes()),
    ] {
        let ask = |parts: [&[u8]; 2]| {
            let mut connection = Connection::to(site.page);
            connection.send(parts[0]);
            if !parts[1].is_empty() {
                // So that it is read by itself.
                std::thread::sleep(Duration::from_millis(2));
                connection.send(parts[1]);
            }
            connection.receive(false).expect("it is answered").timeless()
        };
        let wanted = ask([&whole, b""]);
        for cut in 1..whole.len() {
            let (front, behind) = whole.split_at(cut);
            assert_eq!(ask([front, behind]), wanted, "cut at {cut}");
        }
    }
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let site = site("web-row");
    let hash = site.hash_of("film.mkv");
    let content = std::fs::read(site.shared("film.mkv")).unwrap();
    let address = format!("/s/{hash}/film.mkv");
    let mut connection = Connection::to(site.page);
    let mut all = Vec::new();
    for number in 0..20 {
        let range = format!("Range: bytes={number}-{}\r\n", 2_000 * number + 1);
        all.extend(request(site.page, "GET", &address, &range, b""));
        all.extend(request(site.page, "HEAD", &address, "", b""));
        all.extend(request(site.page, "GET", "/no/such/page", "", b""));
        // Empty lines between two requests are passed over.
        all.extend(b"\r\n\r\n");
    }
    // Somebody who sends before it reads: neither side may wait for the other.
    connection.send(&all);
    for number in 0..20 {
        let part = connection.receive(false).unwrap().is(206);
        assert!(part.body == content[number..=2_000 * number + 1], "{number}");
        connection.receive(true).unwrap().is(200);
        connection.receive(false).unwrap().is(404);
    }
}

#[test]
fn what_is_no_request_is_answered_once_and_the_connection_ends() {
    let site = site("web-malformed");
    let host = format!("Host: {}\r\n", site.page);
    let long = "a".repeat(5_000);
    let many = "X: y\r\n".repeat(65);
    let post = |lines: &str| format!("POST /claim HTTP/1.1\r\n{host}{lines}\r\n");
    for (status, text) in [
        (414, format!("GET /{long} HTTP/1.1\r\n{host}\r\n")),
        (431, format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\n{host}{many}\r\n")),
        (400, post("Content-Length: 5\r\nContent-Length: 5\r\n")),
        (400, post("Content-Length: 5\r\nContent-Length: 6\r\n")),
        (400, post("Content-Length: -1\r\n")),
        (400, post("Content-Length: 0x10\r\n")),
        (400, post("Content-Length: 1, 1\r\n")),
        (400, post("Content-Length: 18446744073709551616\r\n")),
        (411, post("Transfer-Encoding: chunked\r\n")),
        (411, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        (411, post("Transfer-Encoding: identity\r\n")),
        (400, post("Content-Length : 5\r\n")),
        (400, post(" folded: 5\r\n")),
        (400, post("X: a\r\n Content-Length: 5\r\n")),
        (400, post("X\0Y: a\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, format!("GET  / HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET no-slash HTTP/1.1\r\n{host}\r\n")),
        (400, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned()),
        (505, format!("GET / HTTP/3.0\r\n{host}\r\n")),
        (501, format!("DELETE / HTTP/1.1\r\n{host}\r\n")),
        (501, format!("OPTIONS / HTTP/1.1\r\n{host}\r\n")),
        (501, format!("TRACE / HTTP/1.1\r\n{host}\r\n")),
        (400, format!("CONNECT elsewhere.example:443 HTTP/1.1\r\n{host}\r\n")),
        (501, format!("get / HTTP/1.1\r\n{host}\r\n")),
    ] {
        let mut connection = Connection::to(site.page);
        // What would be answered if it were taken for a request.
        let next = format!("GET /robots.txt HTTP/1.1\r\n{host}\r\n");
        let _ = connection.stream.write_all(format!("{text}{next}").as_bytes());
        let answer = connection.receive(false).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(answer.status, status, "{text:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{text:?}");
        assert!(connection.is_over(), "{text:?}: something follows");
    }
}

#[test]
fn a_refused_requests_body_is_never_taken_for_a_request() {
    let site = site("web-smuggled");
    let owner = site.claim();
    let hash = site.hash_of("film.mkv");
    let inner = |path: &str| {
        let (cookie, token) = (owner.cookie_line(), &owner.form_token);
        request(site.page, "POST", path, &cookie, format!("token={token}").as_bytes())
    };
    let smuggled = inner(&format!("/s/{hash}/pause"));
    let long = [smuggled.clone(), vec![b'x'; 80_000]].concat();
    for (method, path, lines, body, status) in [
        ("POST", "/add", "", &smuggled, 401),
        ("POST", "/add", "Host: evil.example\r\n", &smuggled, 421),
        ("POST", "/claim", "Origin: http://evil.example\r\n", &smuggled, 403),
        ("POST", "/no/such", "", &smuggled, 401),
        ("POST", "/add", "", &long, 401),
        ("POST", "/claim", "", &long, 413),
        ("PUT", "/no/such", "", &smuggled, 405),
        ("PUT", "/upload/x", "", &smuggled, 401),
        ("GET", "/robots.txt", "", &smuggled, 200),
        ("HEAD", "/robots.txt", "", &smuggled, 200),
        ("POST", "/api/v1/torrents", "", &smuggled, 401),
        ("POST", "/api/v1/no", "", &smuggled, 401),
    ] {
        let mut connection = Connection::to(site.page);
        let _ = connection.stream.write_all(&request(site.page, method, path, lines, body));
        let answer = connection.receive(method == "HEAD").expect("it is answered");
        assert_eq!(answer.status, status, "{method} {path} {lines}");
        // Either it is over, or the body was read and the next request is the next.
        let _ = connection.stream.write_all(&request(site.page, "GET", "/robots.txt", "", b""));
        let next = connection.receive(false).ok();
        assert_eq!(next.is_some(), answer.header("Connection").is_none(), "{method} {path}");
        if let Some(next) = next {
            assert!(next.text().starts_with("User-agent"), "{method} {path}: {}", next.head);
        }
    }
    let detail = site.program.find(&hash).expect("it is known");
    assert_ne!(detail["torrent"]["state"], "paused");
    // The very same request by itself does it.
    let mut connection = Connection::to(site.page);
    connection.send(&smuggled);
    connection.receive(false).unwrap().is(303);
    assert_eq!(site.program.find(&hash).unwrap()["torrent"]["state"], "paused");
}

#[test]
fn whoever_sends_on_after_a_refusal_still_reads_it() {
    let site = site("web-linger");
    // More than the kernels keep between two programs: the refusal comes while it is sent.
    let body = vec![b'x'; 12 << 20];
    for (path, status) in [("/add", 401), ("/upload/x?at=0&of=12582912", 401)] {
        let method = if path == "/add" { "POST" } else { "PUT" };
        let mut connection = Connection::to(site.page);
        let mut writer = connection.stream.try_clone().unwrap();
        let bytes = request(site.page, method, path, "", &body);
        let sent = std::thread::scope(|scope| {
            let sending = scope.spawn(move || writer.write_all(&bytes));
            let answer = connection.receive(false).expect("the refusal can be read");
            assert_eq!(answer.status, status);
            drop(connection);
            sending.join().expect("it does not panic")
        });
        // It need not have taken all of it.
        drop(sent);
    }
}

#[test]
fn old_programs_are_answered_and_then_left() {
    let site = site("web-old");
    for text in
        ["GET /robots.txt HTTP/1.0\r\n\r\n", "GET /robots.txt HTTP/1.0\r\nHost: localhost\r\n\r\n"]
    {
        let mut connection = Connection::to(site.page);
        connection.send(text);
        let answer = connection.receive(false).unwrap().is(200);
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(connection.is_over());
    }
    // One that asks to stay would have to be told that it may: it waits for the end otherwise.
    let mut connection = Connection::to(site.page);
    connection.send("GET /robots.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = connection.receive(false).unwrap().is(200);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(connection.is_over());
    // Whoever says both means the end.
    let mut connection = Connection::to(site.page);
    let lines = "Connection: close\r\nConnection: keep-alive\r\n";
    connection.send(request(site.page, "GET", "/robots.txt", lines, b""));
    connection.receive(false).unwrap().is(200);
    assert!(connection.is_over());
}

#[test]
fn methods_that_are_not_for_an_address_are_told_which_are() {
    let site = site("web-methods");
    let owner = site.claim();
    for path in ["/", "/box", "/style.css"] {
        let refused = site.post(&owner, path, "").is(405);
        assert_eq!(refused.header("Allow"), Some("GET, HEAD"), "{path}");
        site.ask("PUT", path, "", b"").is(405);
    }
    for path in ["/add", "/settings", "/leave", "/stop"] {
        assert_eq!(site.get(path).is(405).header("Allow"), Some("POST"), "{path}");
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_not_waited_for_for_ever() {
    let site = site("web-slow");
    let mut connection = Connection::to(site.page);
    connection.stream.set_read_timeout(Some(Duration::from_millis(1_000))).unwrap();
    let begun = Instant::now();
    connection.send("GET / HTTP/1.1\r\n");
    // A byte a second: each comes in time, and all of them never.
    let answer = loop {
        let _ = connection.stream.write_all(b"x");
        match connection.receive(false) {
            Ok(answer) => break Some(answer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break None,
        }
        assert!(begun.elapsed() < Duration::from_secs(25), "it is waited for");
    };
    assert!(answer.is_none_or(|answer| answer.status == 408));
}

#[test]
fn a_refusal_is_not_torn_down_with_what_is_still_being_sent() {
    let site = site("web-parting");
    let whole = request(site.page, "PUT", "/upload/x?at=0&of=100000", "", &bytes(4, 100_000));
    let mut connection = Connection::to(site.page);
    connection.send(&whole[..whole.len() - 90_000]);
    connection.receive(false).unwrap().is(401);
    // The rest was on its way when the answer came.
    connection.send(&whole[whole.len() - 90_000..]);
    let mut more = [0];
    let end = std::io::Read::read(&mut connection.stream, &mut more);
    assert_eq!(end.expect("it is ended, and not torn down"), 0);
}

#[test]
fn visitors_who_say_nothing_do_not_keep_the_owner_out() {
    let tiny = |call: crate::program::Call| call.board(Some("test-tiny"));
    let site = Site::start_as("web-crowded", "", tiny, |_| {});
    let owner = site.claim();
    // Every place is taken.
    let held: Vec<Connection> = (0..8).map(|_| Connection::to(site.page)).collect();
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    let comes_in = || site.try_to_ask("GET", "/box", &owner.cookie_line(), b"").is_ok();
    while !comes_in() {
        assert!(begun.elapsed() < Duration::from_secs(8), "the owner is kept out");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Whoever comes now is told that there is no place.
    let mut late = Connection::to(site.page);
    late.send(request(site.page, "GET", "/", "", b""));
    let told = late.receive(false).unwrap().is(503);
    assert!(told.header("Retry-After").is_some() && told.text().contains("every place is taken"));
    // Those who were there first still are.
    for mut connection in held.into_iter().take(5) {
        connection.send(request(site.page, "GET", "/robots.txt", "", b""));
        connection.receive(false).unwrap().is(200);
    }
}
