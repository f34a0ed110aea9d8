//! Boxes and clients on one network find each other by multicast (BEP 14).
//!
//! Each says now and then, to everybody who listens, which torrents it has and at which port. Who
//! hears of a torrent it has too dials the sender of the datagram:
//!
//! ```text
//! BT-SEARCH * HTTP/1.1          one datagram, at most DATAGRAM_BYTES_MAX
//! Host: 239.192.152.143:6771    or [ff15::efc0:988f]:6771
//! Port: 6881
//! cookie: perennial-0badcafe    ours comes back to us by loopback: this tells it from others'
//! Infohash: 0123...             as many as fit, HASHES_MAX
//! ```
//!
//! A [`Beacon`] says when to speak: at once, then every five minutes, and a minute after the last
//! time at the earliest when a newcomer shows up that should hear of us sooner. It counts
//! occasions, not datagrams: a library that does not fit one occasion's packet budget is walked in
//! turns by the caller.
//!
//! A datagram is taken from anyone, so [`parse`] trusts nothing: what is not a search, names no
//! port or no torrent is `None`. Whether the sender is on our network is a question of its
//! address, which the service knows, as it knows whether a torrent is private (BEP 27) and not to
//! be spoken of here at all.
//!
//! Journey 3: `service/lan` hears a datagram, [`parse`] reads it, the hashes are looked up in the
//! library, and the sender's address with [`Search::port`] becomes a candidate of the swarm.

use super::Family;
use crate::engine::bencode::{Sink, decimal};
use crate::engine::units::{Deadline, Instant};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What tells our own datagrams from others': random, one for as long as we run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u32);

impl Cookie {
    /// As it stands in a datagram. No other program's cookie begins like ours, and no two boxes'
    /// end alike, or once in four thousand million.
    fn text(self) -> [u8; COOKIE_BYTES] {
        let mut text = *b"perennial-........";
        write_hex(&self.0.to_be_bytes(), &mut text[COOKIE_BYTES - 8..]);
        text
    }
}

/// What somebody else looks for.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// The port the sender listens on for peers; its address is the datagram's.
    pub port: u16,
    /// The torrents it has, at least one.
    pub hashes: Hashes<'a>,
}

/// The info-hashes of a search, 20 bytes each as everywhere on the wire.
#[derive(Clone, Debug)]
pub struct Hashes<'a> {
    lines: Lines<'a>,
}

impl Iterator for Hashes<'_> {
    type Item = [u8; 20];

    fn next(&mut self) -> Option<[u8; 20]> {
        self.lines.find_map(|line| parse_hash(line.value("infohash")?))
    }
}

/// The group that boxes of `family` listen to.
pub const fn group(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::V4(SocketAddrV4::new(GROUP_V4, PORT)),
        Family::V6 => SocketAddr::V6(SocketAddrV6::new(GROUP_V6, PORT, 0, 0)),
    }
}

/// Writes one datagram: the next [`HASHES_MAX`] of `hashes` at most. What is left stays in the
/// iterator for the next datagram; nothing is written when there is none.
pub fn write<S: Sink>(
    family: Family,
    port: u16,
    cookie: Cookie,
    hashes: &mut impl Iterator<Item = [u8; 20]>,
    sink: &mut S,
) -> Result<(), S::Error> {
    let mut hashes = hashes.take(HASHES_MAX).peekable();
    if hashes.peek().is_none() {
        return Ok(());
    }
    sink.put(START.as_bytes())?;
    sink.put(match family {
        Family::V4 => b"\r\nHost: 239.192.152.143:6771",
        Family::V6 => b"\r\nHost: [ff15::efc0:988f]:6771",
    })?;
    sink.put(b"\r\nPort: ")?;
    sink.put(decimal(u64::from(port), &mut [0; 20]))?;
    for hash in hashes {
        let mut line = *b"\r\nInfohash: ........................................";
        write_hex(&hash, &mut line[HASH_LINE_BYTES - 40..]);
        sink.put(&line)?;
    }
    sink.put(b"\r\ncookie: ")?;
    sink.put(&cookie.text())?;
    // The last line's end and two empty lines, as BEP 14 draws it.
    sink.put(b"\r\n\r\n\r\n")
}

/// Reads what came to a group; `None` for our own and for what is no search.
///
/// # Work
/// Two passes over the datagram. Received into [`DATAGRAM_BYTES_MAX`] bytes, a longer one loses
/// its tail and with it the hashes that should not have been there.
pub fn parse(bytes: &[u8], own: Cookie) -> Option<Search<'_>> {
    let mut lines = Lines { rest: bytes };
    if lines.next()?.0 != START.as_bytes() {
        return None;
    }
    let hashes = Hashes { lines: lines.clone() };
    let mut port = None;
    for line in lines {
        if line.value("cookie").is_some_and(|cookie| cookie == own.text()) {
            return None;
        }
        port = port.or_else(|| parse_port(line.value("port")?));
    }
    hashes.clone().next()?;
    Some(Search { port: port?, hashes })
}

/// When to speak to the groups.
#[derive(Clone, Copy, Debug)]
pub struct Beacon {
    next_at: Instant,
    /// BEP 14: no more than one announce a minute.
    earliest_at: Instant,
}

impl Beacon {
    /// A beacon that is due at once.
    pub fn new(now: Instant) -> Beacon {
        Beacon { next_at: now, earliest_at: now }
    }

    /// Whether to speak now; a yes counts as spoken.
    pub fn poll(&mut self, now: Instant) -> bool {
        if now < self.next_at {
            return false;
        }
        self.next_at = now.after(INTERVAL_MS);
        self.earliest_at = now.after(INTERVAL_MIN_MS);
        true
    }

    /// When [`poll`](Self::poll) says yes.
    pub fn deadline(&self) -> Deadline {
        Deadline { at: self.next_at, why: "local announce" }
    }

    /// Somebody looks for a torrent of ours, or we have a new one: speak as soon as may be.
    ///
    /// Only for one who was not a candidate before. Two boxes that answer each other's answers
    /// would speak every minute for ever.
    pub fn handle_newcomer(&mut self, now: Instant) {
        self.next_at = self.next_at.min(self.earliest_at.max(now));
    }
}

/// The lines of a datagram, up to the first empty one.
#[derive(Clone, Debug)]
struct Lines<'a> {
    rest: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Line<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        // A line without its end was cut off, and half an info-hash or port is another one.
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.rest[..end].trim_ascii_end();
        self.rest = if line.is_empty() { &[] } else { &self.rest[end + 1..] };
        (!line.is_empty()).then_some(Line(line))
    }
}

impl<'a> Line<'a> {
    /// What stands behind `name:`, in whatever case the name is written.
    fn value(self, name: &str) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_at_checked(name.len())?;
        let rest = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then_some(rest.trim_ascii())
    }
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let port = core::str::from_utf8(digits).ok()?.parse().ok()?;
    (port != 0).then_some(port)
}

fn parse_hash(text: &[u8]) -> Option<[u8; 20]> {
    let text: &[u8; 40] = text.try_into().ok()?;
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(text.as_chunks::<2>().0) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(hash)
}

/// Writes two digits for each byte.
fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut().0) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

/// The group of IPv4 (BEP 14, *Protocol*). It is wider than one link: a time-to-live above 1 lets
/// datagrams pass a router that forwards them.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// The group of IPv6, site-local.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);
/// The port of both.
pub const PORT: u16 = 6771;

/// One datagram at most: below it no network we know of cuts it up (BEP 14).
pub const DATAGRAM_BYTES_MAX: usize = 1_400;

/// Info-hashes in one datagram of ours at most.
pub const HASHES_MAX: usize = (DATAGRAM_BYTES_MAX - FRAME_BYTES_MAX) / HASH_LINE_BYTES;

const START: &str = "BT-SEARCH * HTTP/1.1";

/// A line with its break, name and 40 digits.
const HASH_LINE_BYTES: usize = "\r\nInfohash: ".len() + 40;

/// All but the hashes, with the longer host and the longest port.
const FRAME_BYTES_MAX: usize = START.len()
    + "\r\nHost: [ff15::efc0:988f]:6771\r\nPort: 65535".len()
    + "\r\ncookie: \r\n\r\n\r\n".len()
    + COOKIE_BYTES;

const COOKIE_BYTES: usize = "perennial-".len() + 8;

/// How often we speak (BEP 14, *Usage*).
const INTERVAL_MS: u64 = 300_000;

/// How soon again at the earliest (BEP 14, *Usage*).
const INTERVAL_MIN_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Cookie = Cookie(0x0bad_cafe);
    const OTHER: Cookie = Cookie(1);

    fn written(family: Family, port: u16, hashes: &[[u8; 20]]) -> heapless::Vec<u8, 1400> {
        let mut datagram = heapless::Vec::new();
        write(family, port, OWN, &mut hashes.iter().copied(), &mut datagram).unwrap();
        datagram
    }

    #[test]
    fn a_datagram_is_as_bep_14_draws_it() {
        let datagram = written(Family::V4, 6881, &[[0xab; 20]]);
        let expected = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
            Infohash: abababababababababababababababababababab\r\n\
            cookie: perennial-0badcafe\r\n\r\n\r\n";
        assert_eq!(core::str::from_utf8(&datagram), Ok(expected));
        assert_eq!(group(Family::V4), "239.192.152.143:6771".parse().unwrap());
        assert_eq!(group(Family::V6), "[ff15::efc0:988f]:6771".parse().unwrap());
    }

    #[test]
    fn as_many_hashes_as_fit_go_into_one_and_the_rest_waits() {
        let hashes: [[u8; 20]; 40] = core::array::from_fn(|n| [n as u8; 20]);
        let mut left = hashes.iter().copied();
        let mut first = heapless::Vec::<u8, DATAGRAM_BYTES_MAX>::new();
        write(Family::V6, u16::MAX, OWN, &mut left, &mut first).unwrap();
        assert!(first.len() + HASH_LINE_BYTES > DATAGRAM_BYTES_MAX, "{} bytes", first.len());
        let search = parse(&first, OTHER).unwrap();
        assert_eq!(search.port, u16::MAX);
        assert!(search.hashes.eq(hashes[..HASHES_MAX].iter().copied()));
        assert_eq!(left.next(), Some(hashes[HASHES_MAX]));
        assert!(written(Family::V4, 1, &[]).is_empty());
    }

    #[test]
    fn our_own_datagram_is_not_heard() {
        assert!(parse(&written(Family::V4, 6881, &[[1; 20]]), OWN).is_none());
    }

    #[test]
    fn other_programs_ways_of_writing_are_understood() {
        let text = b"BT-SEARCH * HTTP/1.1\r\nHOST: x\r\n\
            infohash:ABABABABABABABABABABABABABABABABABABABAB\n\
            X-Unknown: 1\r\nPORT:  80 \r\nCookie: perennial\r\nInfohash: 12\r\n\r\n";
        let mut search = parse(text, OWN).unwrap();
        assert_eq!(search.port, 80);
        assert_eq!((search.hashes.next(), search.hashes.next()), (Some([0xab; 20]), None));
    }

    #[test]
    fn garbage_is_no_search() {
        let whole = written(Family::V4, 6881, &[[1; 20]]);
        // Cut before the end of the hash's line there is no torrent left to speak of.
        let hash_line_end = whole.windows(8).position(|bytes| bytes == b"\r\ncookie").unwrap();
        for length in 0..=hash_line_end + 1 {
            assert!(parse(&whole[..length], OTHER).is_none(), "{length} bytes");
        }
        let hash = "Infohash: abababababababababababababababababababab\r\n";
        for head in [
            "",
            "Port: 0\r\n",
            "Port: 65536\r\n",
            "Port: -1\r\n",
            "Port 80\r\n",
            "\r\nPort: 80\r\n",
        ] {
            let mut text = heapless::String::<256>::new();
            for part in [START, "\r\n", head, hash] {
                text.push_str(part).unwrap();
            }
            assert!(parse(text.as_bytes(), OWN).is_none(), "{head:?}");
        }
        assert!(parse(b"M-SEARCH * HTTP/1.1\r\nPort: 80\r\n", OWN).is_none());
        assert!(parse(&[0xff; 1_400], OWN).is_none());
    }

    #[test]
    fn the_beacon_speaks_at_once_every_five_minutes_and_never_twice_a_minute() {
        let at_s = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let mut beacon = Beacon::new(at_s(5));
        assert!(beacon.poll(at_s(5)) && !beacon.poll(at_s(5)));
        assert_eq!(beacon.deadline().at, at_s(305));
        beacon.handle_newcomer(at_s(10));
        assert_eq!(beacon.deadline().at, at_s(65));
        assert!(!beacon.poll(at_s(64)) && beacon.poll(at_s(65)));
        beacon.handle_newcomer(at_s(200));
        assert!(beacon.poll(at_s(200)));
        assert_eq!(beacon.deadline().at, at_s(500));
    }
}
