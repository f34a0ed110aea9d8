//! An announce as the query of an HTTP request, and its answer in bencoding (BEP 3).
//!
//! The info-hash is 20 raw bytes, percent-encoded one by one; what the tracker's URL brought along
//! (a passkey, more often than not) stays in front as it came:
//!
//! ```text
//! /a1b2c3/announce?user=7&info_hash=%124Vx...&peer_id=-PN0100-...&port=6881&...&compact=1
//! \____ as in the URL ___/\_________________ ours _______________________________________/
//! ```
//!
//! The answer is one dictionary: a `failure reason` with BEP 31's `retry in`, or an interval and
//! peers, packed (BEP 23, BEP 7) or listed. Bytes behind the dictionary are let pass, for there
//! are trackers that end it with a newline.
//!
//! Heads, redirects and lengths are the service's: `service/http` fetches the target written here
//! and hands the body back to [`parse`].

use super::{
    Announce, Answer, Event, Notice, Peers, Refusal, Retry, TRACKER_ID_BYTES_MAX, TrackerId,
    URL_BYTES_MAX, settle_intervals, unpack_ip,
};
use crate::engine::bencode::{BencodeError, Sink, Value, decimal};
use core::fmt;

/// Why a body is not the answer to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It is one, and it says no.
    Refused(Refusal),
    /// It is no bencoding, and where it ceases to be.
    Malformed(BencodeError),
    /// It is bencoding that says nothing a tracker says.
    Foreign,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Refused(refusal) => write!(f, "refused: {}", refusal.reason),
            AnswerError::Malformed(error) => write!(f, "no bencoding, {error}"),
            AnswerError::Foreign => f.write_str("bencoding without peers, interval or failure"),
        }
    }
}

impl core::error::Error for AnswerError {}

/// Writes what stands between `GET` and `HTTP/1.1`: `path_and_query` of the tracker's URL, as it
/// came, and the announce behind it: [`TARGET_BYTES_MAX`] at most when the URL is within its own.
pub fn write_target<S: Sink>(
    announce: &Announce<'_>,
    path_and_query: &str,
    sink: &mut S,
) -> Result<(), S::Error> {
    sink.put(path_and_query.as_bytes())?;
    sink.put(match path_and_query.split_once('?') {
        None => b"?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => b"",
        Some(_) => b"&",
    })?;
    sink.put(b"info_hash=")?;
    percent_encode(&announce.info_hash.on_the_wire(), sink)?;
    sink.put(b"&peer_id=")?;
    percent_encode(&announce.peer_id.0, sink)?;
    let numbers = [
        (&b"&port="[..], u64::from(announce.port)),
        (b"&uploaded=", announce.uploaded),
        (b"&downloaded=", announce.downloaded),
        (b"&left=", announce.left),
        (b"&numwant=", u64::from(announce.peers_wanted())),
    ];
    for (name, number) in numbers {
        sink.put(name)?;
        sink.put(decimal(number, &mut [0; 20]))?;
    }
    sink.put(b"&key=")?;
    announce.key.to_be_bytes().iter().try_for_each(|byte| sink.put(&hex(*byte)))?;
    sink.put(b"&compact=1&no_peer_id=1")?;
    sink.put(match announce.event {
        Event::None => b"",
        Event::Started => b"&event=started",
        Event::Completed => b"&event=completed",
        Event::Stopped => b"&event=stopped",
    })?;
    let Some(tracker_id) = announce.tracker_id else { return Ok(()) };
    sink.put(b"&trackerid=")?;
    percent_encode(tracker_id, sink)
}

/// Reads the body of an answer; the peers stay where they are in `body`.
pub fn parse<'a>(body: &'a [u8]) -> Result<(Answer, Peers<'a>), AnswerError> {
    let (root, _) = Value::parse_prefix(body).map_err(AnswerError::Malformed)?;
    if let Some(reason) = root.find(b"failure reason") {
        let reason = Notice::of(reason.bytes().unwrap_or_default());
        return Err(AnswerError::Refused(Refusal { reason, retry: read_retry(&root) }));
    }
    let (peers, peers6) = (root.find(b"peers"), root.find(b"peers6"));
    let interval_s = root.find(b"interval").and_then(|value| value.integer());
    // Some answer `stopped` without peers, and some name none at all when there are none.
    if peers.is_none() && peers6.is_none() && interval_s.is_none() {
        return Err(AnswerError::Foreign);
    }
    let integer = |key: &[u8]| root.find(key)?.integer();
    let bytes = |key: &[u8]| root.find(key)?.bytes();
    let count = |key: &[u8]| u32::try_from(integer(key)?).ok();
    let (interval_ms, min_interval_ms) = settle_intervals(interval_s, integer(b"min interval"));
    let answer = Answer {
        interval_ms,
        min_interval_ms,
        seeders: count(b"complete"),
        leechers: count(b"incomplete"),
        external_ip: bytes(b"external ip").and_then(unpack_ip),
        warning: bytes(b"warning message").map(Notice::of),
        tracker_id: bytes(b"tracker id").and_then(|id| TrackerId::from_slice(id).ok()),
    };
    let packed = |value: Option<Value<'a>>| value.and_then(|value| value.bytes());
    let mut found =
        Peers::packed(packed(peers).unwrap_or_default(), packed(peers6).unwrap_or_default());
    found.listed = peers.map(|value| value.items());
    Ok((answer, found))
}

/// BEP 31's `retry in`: minutes, as a string in its examples and an integer in its text, or
/// `never`.
fn read_retry(root: &Value<'_>) -> Retry {
    let Some(value) = root.find(b"retry in") else { return Retry::Unsaid };
    if value.bytes() == Some(b"never") {
        return Retry::Never;
    }
    let spelled = || core::str::from_utf8(value.bytes()?).ok()?.parse().ok();
    let minutes = value.integer().or_else(spelled).and_then(|minutes| u64::try_from(minutes).ok());
    minutes.map_or(Retry::Unsaid, |minutes| Retry::After(minutes.saturating_mul(60_000)))
}

/// Writes each byte as itself where RFC 3986 (section 2.3) reserves it for nothing, else as `%XX`.
fn percent_encode<S: Sink>(bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
    bytes.iter().try_for_each(|&byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => sink.put(&[byte]),
        _ => {
            let [high, low] = hex(byte);
            sink.put(&[b'%', high, low])
        }
    })
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// A target at most: the longest URL and what we put behind it, hashes and ids in three bytes each.
pub const TARGET_BYTES_MAX: usize = URL_BYTES_MAX + 220 + 3 * (20 + 20 + TRACKER_ID_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::{InfoHash, PeerId};

    const ANNOUNCE: Announce<'static> = Announce {
        info_hash: InfoHash::V1(*b"\x12\x34Vx\x9a\xbc\xde\xf1\x23Eg\x89\xab\xcd\xef\x124Vx\x9a"),
        peer_id: PeerId(*b"-PN0100-abc.~_/ \x00\xff+&"),
        port: 6881,
        uploaded: u64::MAX,
        downloaded: 0,
        left: 7,
        event: Event::Started,
        num_want: 50,
        key: 0x00c0_ffee,
        tracker_id: None,
    };

    fn target(announce: &Announce<'_>, path_and_query: &str) -> heapless::String<1024> {
        let mut sink = heapless::Vec::new();
        write_target(announce, path_and_query, &mut sink).unwrap();
        heapless::String::from_utf8(sink).unwrap()
    }

    #[test]
    fn the_target_carries_every_byte_of_the_hash() {
        assert_eq!(
            target(&ANNOUNCE, "/announce").as_str(),
            "/announce?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
             &peer_id=-PN0100-abc.~_%2F%20%00%FF%2B%26&port=6881\
             &uploaded=18446744073709551615&downloaded=0&left=7&numwant=50\
             &key=00C0FFEE&compact=1&no_peer_id=1&event=started"
        );
    }

    #[test]
    fn a_query_of_the_urls_own_stays_in_front() {
        let starts = [
            ("/a?pass=1%20x", "/a?pass=1%20x&info_hash="),
            ("/a?", "/a?info_hash="),
            ("/a?b&", "/a?b&info_hash="),
        ];
        for (given, start) in starts {
            assert!(target(&ANNOUNCE, given).starts_with(start), "{given}");
        }
    }

    #[test]
    fn the_longest_target_is_as_long_as_said() {
        let id = TrackerId::from_slice(&[0xff; TRACKER_ID_BYTES_MAX]).unwrap();
        let longest = Announce {
            info_hash: InfoHash::V1([0xff; 20]),
            peer_id: PeerId([0xff; 20]),
            port: u16::MAX,
            downloaded: u64::MAX,
            left: u64::MAX,
            event: Event::Completed,
            num_want: u16::MAX,
            tracker_id: Some(&id),
            ..ANNOUNCE
        };
        let target = target(&longest, "/");
        assert!(target.len() + URL_BYTES_MAX <= TARGET_BYTES_MAX + 1, "{}", target.len());
    }

    #[test]
    fn who_leaves_asks_for_no_peers_and_the_trackers_id_is_sent_back() {
        let id = TrackerId::from_slice(b"x&y").unwrap();
        let leaving = Announce { event: Event::Stopped, tracker_id: Some(&id), ..ANNOUNCE };
        let target = target(&leaving, "/a");
        assert!(target.contains("&numwant=0&"));
        assert!(target.ends_with("&event=stopped&trackerid=x%26y"));
    }

    #[test]
    fn an_answer_with_both_families_is_read() {
        let body = b"d8:completei3e11:external ip4:\x01\x02\x03\x0410:incompletei4e\
            8:intervali900e12:min intervali120e5:peers6:\x0a\0\0\x01\x1a\xe1\
            6:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x1a\xe110:tracker id2:id\
            15:warning message3:hm\ne\n";
        let (answer, mut peers) = parse(body).unwrap();
        assert_eq!((answer.interval_ms, answer.min_interval_ms), (900_000, 120_000));
        assert_eq!((answer.seeders, answer.leechers), (Some(3), Some(4)));
        assert_eq!(answer.external_ip, Some("1.2.3.4".parse().unwrap()));
        assert_eq!(answer.warning.unwrap().as_str(), "hm ");
        assert_eq!(answer.tracker_id.as_deref(), Some(&b"id"[..]));
        assert_eq!(peers.next(), Some("10.0.0.1:6881".parse().unwrap()));
        assert_eq!(peers.next(), Some("[fd00::2]:6881".parse().unwrap()));
        assert_eq!(peers.next(), None);
    }

    #[test]
    fn listed_peers_are_read_and_names_are_not_looked_up() {
        let body = b"d5:peersld2:ip8:10.0.0.24:porti80eed2:ip3:::14:porti81ee\
            d2:ip9:localhost4:porti82eed2:ip7:1.2.3.44:porti65536eei7eee";
        let (answer, peers) = parse(body).unwrap();
        let expected = ["10.0.0.2:80".parse().unwrap(), "[::1]:81".parse().unwrap()];
        assert!(peers.eq(expected));
        assert_eq!(answer.interval_ms, super::super::INTERVAL_UNSAID_MS);
    }

    #[test]
    fn a_refusal_says_why_and_when_to_return() {
        let cases = [
            (&b"d14:failure reason2:noe"[..], Retry::Unsaid),
            (b"d14:failure reason2:no8:retry in1:5e", Retry::After(300_000)),
            (b"d14:failure reason2:no8:retry ini5ee", Retry::After(300_000)),
            (b"d14:failure reason2:no8:retry in5:nevere", Retry::Never),
            (b"d14:failure reason2:no8:retry ini-5ee", Retry::Unsaid),
            (b"d14:failure reason2:no8:retry in4:soone", Retry::Unsaid),
        ];
        for (body, retry) in cases {
            let refusal = Refusal { reason: Notice::of(b"no"), retry };
            assert_eq!(parse(body).err(), Some(AnswerError::Refused(refusal)));
        }
    }

    #[test]
    fn what_is_no_answer_is_told_from_one() {
        for foreign in [&b"de"[..], b"i7e", b"le", b"d1:a1:be"] {
            assert_eq!(parse(foreign).err(), Some(AnswerError::Foreign));
        }
        for malformed in [&b""[..], b"<html>", b"d8:intervali900e5:peers999:"] {
            assert!(matches!(parse(malformed), Err(AnswerError::Malformed(_))));
        }
    }
}
