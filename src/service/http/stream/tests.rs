//! Bodies in parts, of every framing and cut short anywhere.

use super::*;
use crate::service::http::tests::Scripted;
use futures_lite::future::block_on;
use std::format;
use std::vec::Vec;

const GET: Get<'static> =
    Get { tls: false, host: "w.example", authority: "w.example:80", target: b"/f" };

async fn body_of(
    client: &mut Client<Scripted<'_>>,
    range: Option<Range<u64>>,
    part_bytes: usize,
) -> Result<(Answer, String), HttpError> {
    let answer = client.ask(&GET, range, 20).await?;
    let (mut body, mut part) = (Vec::new(), std::vec![0; part_bytes]);
    loop {
        match client.read(&mut part).await? {
            0 => return Ok((answer, String::from_utf8_lossy(&body).into_owned())),
            read => body.extend_from_slice(&part[..read]),
        }
    }
}

/// What comes of one answer, the same for every length of segments and parts.
fn outcome(answer: &str) -> String {
    let mut outcomes = Vec::new();
    for (segment_bytes, part_bytes) in [(1, 1), (1, 64), (7, 2), (usize::MAX, 3), (64, 64)] {
        let mut client = Client::over(Some(Scripted::new(answer.as_bytes(), segment_bytes)));
        outcomes.push(match block_on(body_of(&mut client, None, part_bytes)) {
            Ok((Answer { status, .. }, body)) => format!("{status} {body} {}", client.is_free()),
            Err(error) => {
                assert!(!client.is_free(), "what failed is not used again");
                format!("{error}")
            }
        });
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    outcomes.swap_remove(0)
}

#[test]
fn bodies_of_every_framing_come_in_parts() {
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "200 abcd true"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200  true"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "200 abcd false"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\na", "200 a false"),
        ("HTTP/1.1 200 OK\r\n\r\nabcd", "200 abcd false"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n",
            "200 abcd false",
        ),
        ("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", "404 no true"),
    ];
    for (answer, expected) in answers {
        assert_eq!(outcome(answer), expected, "{answer:?}");
    }
}

#[test]
fn a_body_beyond_the_ceiling_is_refused_whatever_says_its_length() {
    let (long, what) = ("x".repeat(21), "its answer is longer than the 20 bytes we take");
    for rest in [
        format!("Content-Length: 21\r\n\r\n{long}"),
        format!("\r\n{long}"),
        format!("Transfer-Encoding: chunked\r\n\r\n15\r\n{long}\r\n0\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{long}"),
    ] {
        assert_eq!(outcome(&format!("HTTP/1.1 200 OK\r\n{rest}")), what, "{rest:?}");
    }
}

#[test]
fn a_body_cut_short_is_told_at_every_byte() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        for length in 0..answer.len() {
            let outcome = outcome(&answer[..length]);
            assert_eq!(outcome, "hung up in the middle of its answer", "after {length} bytes");
        }
    }
}

#[test]
fn ranges_are_asked_for_one_after_the_other_on_one_connection() {
    let part = |range: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 206 Part\r\nContent-Range: bytes {range}\r\nContent-Length: {length}\r\n\
             \r\n{body}"
        )
    };
    let answers = part("5-7/90", "abc") + &part("8-9/*", "de") + &part("*/90", "");
    let mut client = Client::over(Some(Scripted::new(answers.as_bytes(), 1)));
    let (answer, body) = block_on(body_of(&mut client, Some(5..8), 64)).unwrap();
    assert_eq!(answer.part, Some(Part { first: 5, last: 7, whole: Some(90) }));
    assert_eq!((answer.status, answer.length, body.as_str()), (206, Some(3), "abc"));
    let (answer, body) = block_on(body_of(&mut client, Some(8..10), 64)).unwrap();
    assert_eq!(answer.part, Some(Part { first: 8, last: 9, whole: None }));
    assert_eq!(body, "de");
    assert_eq!(block_on(body_of(&mut client, None, 64)).unwrap().0.part, None);
    let asked = client.stream.as_ref().map(|stream| String::from_utf8_lossy(&stream.asked));
    let asked = asked.unwrap();
    assert!(asked.contains("\r\nRange: bytes=5-7\r\n"), "{asked}");
    assert!(asked.contains("\r\nRange: bytes=8-9\r\n") && !asked.contains("Connection: close"));
    assert_eq!(asked.matches("Range").count(), 2);
}

#[test]
fn a_redirect_is_the_callers_and_its_body_is_not_waited_for() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 900\r\n\r\n";
    let mut client = Client::over(Some(Scripted::new(moved.as_bytes(), 9)));
    let answer = block_on(client.ask(&GET, None, 20)).unwrap();
    assert_eq!(answer.location.as_deref(), Some("/b"));
    assert!(!client.is_free(), "its body is still to come");
}
