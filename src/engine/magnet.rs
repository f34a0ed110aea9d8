//! A magnet link: which torrent is meant, and who may know it (BEP 9, BEP 53).
//!
//! The link stays where it is: [`Magnet::parse`] walks it once and says what is wrong with it,
//! and what it holds is then read out of it again whenever it is asked for. Nothing is copied
//! but what the caller lends room to.
//!
//! ```text
//! magnet:?xt=urn:btih:c12f..&dn=A+name&xl=1048576&tr=udp%3A%2F%2Ft%3A1&x.pe=[fd00::1]:1&so=0,2-4
//!         ^ info-hash, v1    ^ name    ^ bytes    ^ tracker            ^ peer           ^ files
//! ```
//!
//! Links come out of web pages, mails and terminals, so what leaves no doubt is read as it was
//! meant: blanks around the link, `&amp;` for `&`, keys and hashes in either case, numbered keys
//! (`tr.1=`), a `%` that escapes nothing. Keys we do not know are passed over, and so are other
//! networks' hashes. What leaves a doubt (half a hash, two torrents, files that are no numbers) is
//! an error with its place.
//!
//! Journey 3 begins here: the command line hands the link in; trackers and peers become candidates,
//! and the metadata is asked of them (BEP 9).

use super::limits::{MAGNET_BYTES_MAX, MAGNET_TRACKERS_MAX};
use super::units::InfoHash;
use core::fmt;
use core::net::SocketAddr;
use core::ops::RangeInclusive;

/// A link that names a torrent. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Magnet<'a> {
    /// The link, from its first parameter on.
    link: &'a str,
    /// Where in what was handed in that is.
    at: usize,
    /// The torrent that is meant, by its v1 hash when the link has both.
    pub info_hash: InfoHash,
    /// The same torrent's hash as BEP 52 has it, when the link says it.
    pub v2: Option<InfoHash>,
    /// Length of the content as the link has it: a hint, nobody has checked it.
    pub bytes: Option<u64>,
}

/// What is wrong with a link, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MagnetError {
    /// Offset of the value at fault in the link, in bytes.
    pub at: usize,
    /// The key it belongs to.
    pub key: &'static str,
    /// What is wrong, as a sentence's end.
    pub what: &'static str,
}

impl fmt::Display for MagnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}, `{}`: {}", self.at, self.key, self.what)
    }
}

impl core::error::Error for MagnetError {}

impl<'a> Magnet<'a> {
    /// Reads and checks a whole link.
    ///
    /// # Work
    /// One pass over the link, which is at most [`MAGNET_BYTES_MAX`] long.
    pub fn parse(text: &'a str) -> Result<Magnet<'a>, MagnetError> {
        let trimmed = text.trim();
        if trimmed.len() > MAGNET_BYTES_MAX {
            return wrong(MAGNET_BYTES_MAX, THE_LINK, "is longer than 8 KiB");
        }
        let start = text.len() - text.trim_start().len();
        let Some(link) = strip(trimmed, SCHEME) else {
            return wrong(start, THE_LINK, "does not begin with `magnet:?`");
        };
        let at = start + SCHEME.len();
        let (mut topics, mut bytes) = (Topics::default(), None);
        for Parameter { key, value } in (Parameters { rest: Some(link), at }) {
            match key {
                "xt" => topics.take(value)?,
                "xl" if bytes.is_none() => bytes = Some(length(value)?),
                "so" => {
                    Ranges { value, bytes: value.bytes() }.try_for_each(|range| range.map(drop))?
                }
                _ => {}
            }
        }
        let v2 = topics.v2.map(InfoHash::V2);
        match (topics.v1.map(InfoHash::V1).or(v2), topics.foreign) {
            (Some(info_hash), _) => Ok(Magnet { link, at, info_hash, v2, bytes }),
            (None, Some(other)) => Err(other.wrong("is another network's: no `urn:btih:`")),
            (None, None) => wrong(at, "xt", "is missing: the link names no torrent"),
        }
    }

    /// Whether there is no v1 hash: such a torrent has no piece hashes as BEP 3 knows them.
    pub fn is_v2_only(&self) -> bool {
        matches!(self.info_hash, InfoHash::V2(_))
    }

    /// What the torrent is called by whoever made the link (`dn`); not yet safe to be a file's
    /// name.
    pub fn name(&self) -> Option<Encoded<'a>> {
        self.values("dn").find(|value| !value.raw.is_empty())
    }

    /// Trackers (`tr`), each a URL once decoded.
    ///
    /// # When full
    /// Those beyond [`MAGNET_TRACKERS_MAX`] are passed over.
    pub fn trackers(&self) -> impl Iterator<Item = Encoded<'a>> + use<'a> {
        self.values("tr").filter(|value| !value.raw.is_empty()).take(MAGNET_TRACKERS_MAX)
    }

    /// Web seeds (`ws`, BEP 19), each a URL once decoded.
    pub fn web_seeds(&self) -> impl Iterator<Item = Encoded<'a>> + use<'a> {
        self.values("ws").filter(|value| !value.raw.is_empty())
    }

    /// Peers (`x.pe`). What is no address and port (a host name would have to be looked up) comes
    /// as an error, so that it can be said that it was skipped.
    pub fn peers(&self) -> impl Iterator<Item = Result<SocketAddr, Encoded<'a>>> + use<'a> {
        self.values("x.pe").filter(|value| !value.raw.is_empty()).map(|value| {
            let mut room = [0; ADDRESS_BYTES_MAX];
            let address = value.text(&mut room).ok().and_then(|text| text.parse().ok());
            address.filter(|address: &SocketAddr| address.port() != 0).ok_or(value)
        })
    }

    /// Numbers of the files that are wanted (`so`, BEP 53), from 0, in the order of the link and
    /// not yet held against a torrent; none when all are.
    pub fn selected(&self) -> impl Iterator<Item = RangeInclusive<u32>> + use<'a> {
        // Errors are gone since the link was parsed.
        self.values("so").flat_map(|value| Ranges { value, bytes: value.bytes() }).flatten()
    }

    fn values(&self, key: &'static str) -> impl Iterator<Item = Encoded<'a>> + use<'a> {
        let all = Parameters { rest: Some(self.link), at: self.at };
        all.filter(move |found| found.key == key).map(|found| found.value)
    }
}

/// A value as it stands in a link, with its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    raw: &'a str,
    key: &'static str,
    at: usize,
}

impl<'a> Encoded<'a> {
    /// As it stands in the link.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Its bytes, unescaped one by one. A `%` without two hexadecimal digits stands for itself, as
    /// in browsers; a `+` is a blank in a name only, for everywhere else it may be meant.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + Clone + use<'a> {
        let (mut rest, plus_is_blank) = (self.raw.as_bytes(), self.key == "dn");
        core::iter::from_fn(move || {
            let (byte, after) = match rest {
                [] => return None,
                [b'%', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => (high << 4 | low, after),
                    _ => (b'%', &rest[1..]),
                },
                [b'+', after @ ..] if plus_is_blank => (b' ', after),
                [byte, after @ ..] => (*byte, after),
            };
            rest = after;
            Some(byte)
        })
    }

    /// Unescapes it into `room`; the bytes need not be text.
    pub fn decode<'r>(&self, room: &'r mut [u8]) -> Result<&'r [u8], MagnetError> {
        let mut length = 0;
        for byte in self.bytes() {
            *room.get_mut(length).ok_or(self.wrong("is too long"))? = byte;
            length += 1;
        }
        Ok(&room[..length])
    }

    /// Unescapes it into `room` and holds it to be text.
    pub fn text<'r>(&self, room: &'r mut [u8]) -> Result<&'r str, MagnetError> {
        core::str::from_utf8(self.decode(room)?).map_err(|_| self.wrong("is not UTF-8"))
    }

    fn wrong(&self, what: &'static str) -> MagnetError {
        MagnetError { at: self.at, key: self.key, what }
    }
}

/// One `key=value` of a link; the key is one of [`KEYS`], or empty.
struct Parameter<'a> {
    key: &'static str,
    value: Encoded<'a>,
}

/// What is left of a link, and where in it that stands.
struct Parameters<'a> {
    rest: Option<&'a str>,
    at: usize,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    fn next(&mut self) -> Option<Parameter<'a>> {
        let rest = self.rest?;
        let (whole, after) = match rest.split_once('&') {
            Some((whole, after)) => (whole, Some(after)),
            None => (rest, None),
        };
        let mut inner = whole;
        while let Some(unescaped) = strip(inner, "amp;") {
            inner = unescaped;
        }
        let (name, raw) = inner.split_once('=').unwrap_or((inner, ""));
        let key = known_key(name);
        let at = self.at + whole.len() - raw.len();
        (self.rest, self.at) = (after, self.at + whole.len() + 1);
        Some(Parameter { key, value: Encoded { raw, key, at } })
    }
}

/// The key that is meant by `name`: in either case, and with a number behind it or without.
fn known_key(name: &str) -> &'static str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match name.rsplit_once('.') {
        Some((name, number)) if is_number(number) => name,
        _ => name,
    };
    KEYS.into_iter().find(|key| key.eq_ignore_ascii_case(name)).unwrap_or("")
}

/// The numbers and ranges of an `so`.
struct Ranges<'a, B> {
    value: Encoded<'a>,
    bytes: B,
}

impl<B: Iterator<Item = u8>> Iterator for Ranges<'_, B> {
    type Item = Result<RangeInclusive<u32>, MagnetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut first, mut number) = (None, None);
        loop {
            match self.bytes.next() {
                Some(byte @ b'0'..=b'9') => {
                    let grown = number.unwrap_or(0u32).checked_mul(10);
                    number = grown.and_then(|grown| grown.checked_add(u32::from(byte - b'0')));
                    if number.is_none() {
                        return Some(Err(self
                            .value
                            .wrong("has a file number beyond 4,294,967,295")));
                    }
                }
                Some(b'-') if first.is_none() && number.is_some() => first = number.take(),
                // Nothing between two commas, or at the end, is nothing.
                Some(b',') if first.is_none() && number.is_none() => {}
                None if first.is_none() && number.is_none() => return None,
                None | Some(b',') => {
                    return Some(match (first.or(number), number) {
                        (Some(first), Some(last)) if first <= last => Ok(first..=last),
                        (_, Some(_)) => Err(self.value.wrong("has a range that runs backwards")),
                        (_, None) => Err(self.value.wrong("has a range without its end")),
                    });
                }
                Some(_) => {
                    return Some(Err(self.value.wrong("is no list of files as `0,2,4-6` is")));
                }
            }
        }
    }
}

/// What the `xt` of a link name.
#[derive(Default)]
struct Topics<'a> {
    v1: Option<[u8; 20]>,
    v2: Option<[u8; 32]>,
    /// One that is none of ours, for the message should there be no other.
    foreign: Option<Encoded<'a>>,
}

impl<'a> Topics<'a> {
    fn take(&mut self, value: Encoded<'a>) -> Result<(), MagnetError> {
        let mut room = [0; TOPIC_BYTES_MAX];
        // What is longer than ours, or no text, may be anything but is nothing of ours.
        let topic = value.text(&mut room).unwrap_or("");
        if let Some(hash) = strip(topic, "urn:btih:") {
            let hash = match hash.len() {
                40 => hex(hash),
                32 => base32(hash),
                _ => None,
            };
            let what = "is no info-hash: 40 hexadecimal digits are, or 32 letters of base32";
            return note(&mut self.v1, hash.ok_or(value.wrong(what))?, value);
        }
        if let Some(hash) = strip(topic, "urn:btmh:") {
            let hash = strip(hash, "1220").and_then(hex);
            let what = "is no info-hash: `1220` and 64 hexadecimal digits are";
            return note(&mut self.v2, hash.ok_or(value.wrong(what))?, value);
        }
        self.foreign = self.foreign.or(Some(value));
        Ok(())
    }
}

/// The number in an `xl`.
fn length(value: Encoded<'_>) -> Result<u64, MagnetError> {
    let mut room = [0; U64_DIGITS];
    let number = value.text(&mut room).ok().filter(|text| !text.starts_with('+'));
    number.and_then(|text| text.parse().ok()).ok_or(value.wrong("is no number of bytes"))
}

/// Notes a hash, unless it is another one than that noted.
fn note<const N: usize>(
    noted: &mut Option<[u8; N]>,
    hash: [u8; N],
    value: Encoded<'_>,
) -> Result<(), MagnetError> {
    match noted {
        Some(noted) if *noted != hash => Err(value.wrong("names a second torrent")),
        _ => {
            *noted = Some(hash);
            Ok(())
        }
    }
}

/// `text` without `prefix`, which may be in either case.
fn strip<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let is_there = text.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
    is_there.then(|| &text[prefix.len()..])
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// The 32 letters of RFC 3548, five bits each.
fn base32(text: &str) -> Option<[u8; 20]> {
    let (mut bytes, mut bits, mut length) = ([0; 20], 0u64, 0);
    for (at, letter) in text.bytes().enumerate() {
        let five = match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => letter - b'a',
            letter @ b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u64::from(five);
        // Eight letters are five bytes.
        if at % 8 == 7 {
            bytes.get_mut(length..length + 5)?.copy_from_slice(&bits.to_be_bytes()[3..]);
            (bits, length) = (0, length + 5);
        }
    }
    (length == bytes.len()).then_some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}

fn wrong<T>(at: usize, key: &'static str, what: &'static str) -> Result<T, MagnetError> {
    Err(MagnetError { at, key, what })
}

const SCHEME: &str = "magnet:?";

/// What stands for a key where the whole is at fault.
const THE_LINK: &str = "the link";

/// What we read; `as`, `kt`, `mt`, `xs` and whatever else there is are passed over.
const KEYS: [&str; 7] = ["xt", "dn", "xl", "tr", "ws", "x.pe", "so"];

/// `urn:btmh:`, `1220` and 64 digits are 77; a hash that is too long by a little is still told
/// from another network's.
const TOPIC_BYTES_MAX: usize = 128;

/// `[`, 45 letters of IPv6, a zone, `]:` and a port, with room to spare.
const ADDRESS_BYTES_MAX: usize = 80;

/// Digits of 2^64.
const U64_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    const HASH: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
    const HASH_32: &str = "YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK";
    const HASH_V2: &str = "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";

    fn decoded<'a>(values: impl Iterator<Item = Encoded<'a>>) -> Vec<String> {
        values.map(|value| value.text(&mut [0; 300]).unwrap().to_string()).collect()
    }

    fn error_of(link: &str) -> String {
        Magnet::parse(link).unwrap_err().to_string()
    }

    #[test]
    fn everything_a_link_may_say_is_read() {
        let link = std::format!(
            "magnet:?xt=urn:btih:{HASH}&xt=urn:btmh:1220{HASH_V2}&dn=Ein+Film%20%C3%9F%2b.mkv\
             &xl=10826029&tr=udp%3A%2F%2Fa.example%3A80%2Fann+ounce&tr.1=http://b.example/a%3fk=1\
             &ws=http%3A%2F%2Fc.example%2Ff&xs=http://d/&x.pe=192.0.2.1:6881\
             &x.pe=[2001:db8::1]:6882\
             &x.pe=host.example:1&x.pe=%5B::1%5D%3A7&x.pe=192.0.2.1&x.pe=1.2.3.4:0&so=0,2%2C4,6-8"
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.info_hash.to_string(), HASH);
        assert_eq!(magnet.v2.unwrap().to_string(), HASH_V2);
        assert!(!magnet.is_v2_only());
        assert_eq!(decoded(magnet.name().into_iter()), ["Ein Film ß+.mkv"]);
        assert_eq!(magnet.bytes, Some(10_826_029));
        let trackers = ["udp://a.example:80/ann+ounce", "http://b.example/a?k=1"];
        assert_eq!(decoded(magnet.trackers()), trackers);
        assert_eq!(decoded(magnet.web_seeds()), ["http://c.example/f"]);
        let peers: Vec<_> = magnet.peers().filter_map(Result::ok).collect();
        let wanted = ["192.0.2.1:6881", "[2001:db8::1]:6882", "[::1]:7"];
        assert_eq!(peers, wanted.map(|address| address.parse().unwrap()));
        let skipped: Vec<_> =
            magnet.peers().filter_map(Result::err).map(|peer| peer.raw()).collect();
        assert_eq!(skipped, ["host.example:1", "192.0.2.1", "1.2.3.4:0"]);
        assert_eq!(magnet.selected().collect::<Vec<_>>(), [0..=0, 2..=2, 4..=4, 6..=8]);
    }

    #[test]
    fn a_hash_may_be_written_in_four_ways() {
        let upper = HASH.to_uppercase();
        let lower_32 = HASH_32.to_lowercase();
        for hash in [HASH, &upper, HASH_32, &lower_32] {
            for before in ["xt=urn:btih:", "xt.1=urn%3Abtih%3A", "XT=URN:BTIH:"] {
                let link = std::format!("Magnet:?{before}{hash}");
                let magnet = Magnet::parse(&link).unwrap();
                assert_eq!(magnet.info_hash.to_string(), HASH, "{link}");
                assert_eq!((magnet.name(), magnet.bytes, magnet.v2), (None, None, None));
                assert_eq!(magnet.trackers().count() + magnet.selected().count(), 0);
            }
        }
        let link = std::format!("magnet:?xt=urn:btmh:1220{}", HASH_V2.to_uppercase());
        let magnet = Magnet::parse(&link).unwrap();
        assert!(magnet.is_v2_only());
        assert_eq!(magnet.info_hash.to_string(), HASH_V2);
    }

    #[test]
    fn a_link_that_went_through_a_page_or_a_terminal_is_read() {
        let link = std::format!(
            "  magnet:?foo&&amp;dn=a%zz+100%&amp;amp;xt=urn:sha1:ABC&xt=urn:btih:{HASH}\
             &AMP;tr=t&=&x.y=1&tr=&so=,1,,3-3,&dn=second&xl=1&xl=2\n"
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(decoded(magnet.name().into_iter()), ["a%zz 100%"]);
        assert_eq!(decoded(magnet.trackers()), ["t"]);
        assert_eq!(magnet.selected().collect::<Vec<_>>(), [1..=1, 3..=3]);
        assert_eq!(magnet.bytes, Some(1));
    }

    #[test]
    fn what_leaves_a_doubt_is_refused_with_its_place() {
        let with = |more: &str| std::format!("magnet:?xt=urn:btih:{HASH}&{more}");
        let zeros = "0".repeat(40);
        let wrong = [
            (String::new(), "byte 0, `the link`: does not begin with `magnet:?`"),
            ("  http://x".into(), "byte 2, `the link`: does not begin"),
            ("magnet:".into(), "byte 0, `the link`: does not begin"),
            ("magnet:?".into(), "byte 8, `xt`: is missing"),
            ("magnet:?dn=a".into(), "byte 8, `xt`: is missing"),
            ("magnet:?dn=a&xt=urn:ed2k:31D6".into(), "byte 16, `xt`: is another network's"),
            ("magnet:?xt=urn:btih:".into(), "byte 11, `xt`: is no info-hash: 40 hex"),
            (std::format!(" magnet:?xt=urn:btih:{HASH}0"), "byte 12, `xt`: is no info-hash: 40"),
            (std::format!("magnet:?xt=urn:btih:{}g", &HASH[1..]), "is no info-hash: 40 hex"),
            (std::format!("magnet:?xt=urn:btih:{}1", &HASH_32[1..]), "is no info-hash: 40 hex"),
            (std::format!("magnet:?xt=urn:btih:{}é", &HASH[2..]), "is no info-hash: 40 hex"),
            (std::format!("magnet:?xt=urn:btmh:1114{HASH}"), "is no info-hash: `1220` and 64"),
            (std::format!("magnet:?xt=urn:btmh:1220{HASH}"), "is no info-hash: `1220` and 64"),
            (with(&std::format!("xt=urn:btih:{zeros}")), "byte 64, `xt`: names a second torrent"),
            (with("xl=1k"), "byte 64, `xl`: is no number of bytes"),
            (with("xl=18446744073709551616"), "is no number of bytes"),
            (with("xl="), "is no number of bytes"),
            (with("xl=%2B7"), "is no number of bytes"),
            (with("so=1,x"), "byte 64, `so`: is no list of files"),
            (with("so=1-2-3"), "is no list of files"),
            (with("so=-3"), "is no list of files"),
            (with("so=3-"), "has a range without its end"),
            (with("so=3-,4"), "has a range without its end"),
            (with("so=4-3"), "has a range that runs backwards"),
            (with("so=4294967296"), "has a file number beyond"),
            (with(&std::format!("dn={}", "x".repeat(8_192))), "is longer than 8 KiB"),
        ];
        for (link, message) in wrong {
            let error = error_of(&link);
            assert!(error.contains(message), "{link}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_or_is_no_text_is_an_error_of_its_own() {
        let link = std::format!("magnet:?xt=urn:btih:{HASH}&dn=caf%E9&tr=12345");
        let magnet = Magnet::parse(&link).unwrap();
        let name = magnet.name().unwrap();
        assert_eq!(name.decode(&mut [0; 4]), Ok(&b"caf\xe9"[..]));
        let error = name.text(&mut [0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "byte 64, `dn`: is not UTF-8");
        let error = magnet.trackers().next().unwrap().decode(&mut [0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "byte 74, `tr`: is too long");
    }

    #[test]
    fn trackers_beyond_the_limit_are_passed_over() {
        let link = std::format!("magnet:?xt=urn:btih:{HASH}{}", "&tr=t".repeat(200));
        assert_eq!(Magnet::parse(&link).unwrap().trackers().count(), MAGNET_TRACKERS_MAX);
    }

    #[test]
    fn no_text_at_all_makes_it_panic() {
        let parts = "magnet:? xt= urn:btih: urn:btmh:1220 & amp; so= 1 - , dn= % %c3 + x.pe= \
                     [::1]: tr.1= é = .";
        let parts: Vec<&str> = parts.split_whitespace().chain([HASH, HASH_32, HASH_V2]).collect();
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        let mut read = 0;
        for _ in 0..100_000 {
            let mut link = match next() % 3 {
                0 => String::new(),
                1 => String::from("magnet:?"),
                _ => std::format!("magnet:?xt=urn:btih:{HASH}&"),
            };
            (0..next() % 12).for_each(|_| match next() % 4 {
                0 => link.push(char::from(next() as u8)),
                _ => link.push_str(parts[next() % parts.len()]),
            });
            let Ok(magnet) = Magnet::parse(&link) else { continue };
            read += 1;
            let _ = (magnet.info_hash, magnet.selected().count(), magnet.peers().count());
            let values = magnet.trackers().chain(magnet.web_seeds()).chain(magnet.name());
            for value in values {
                let _ = value.text(&mut [0; 16]);
            }
        }
        assert!(read > 10_000, "{read}");
    }
}
