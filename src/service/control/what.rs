//! Which torrent is meant: by its info-hash, by the first digits of it, or by its name.
//!
//! What was typed is kept as it is, for whether it names one torrent can only be told by looking at
//! all of them: [`Search`] is shown each in turn and remembers three. A torrent whose name looks like the
//! front of another's info-hash makes two, and neither is guessed.

use crate::engine::units::InfoHash;
use crate::service::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::string::{String, ToString};
use std::vec::Vec;

/// An info-hash in hex, at least six digits of its front, a name, or `all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct What(String);

impl What {
    /// What was typed.
    pub fn new(text: impl Into<String>) -> What {
        What(text.into())
    }

    /// Just this torrent.
    pub fn of(info_hash: &InfoHash) -> What {
        What(info_hash.to_string())
    }

    /// Every torrent, for requests that can be meant so.
    pub fn is_all(&self) -> bool {
        self.0 == ALL
    }

    /// A whole info-hash: nothing has to be searched for it.
    pub fn info_hash(&self) -> Option<InfoHash> {
        parse_hex(&self.0)
    }

    /// Looks for the torrent that is meant.
    pub fn search(&self) -> Search<'_> {
        let hex = self.0.len() >= FRONT_DIGITS_MIN && self.0.bytes().all(|b| digit(b).is_some());
        Search { what: &self.0, hex, first: Vec::with_capacity(NAMED_MAX), count: 0 }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Goes through the library for one torrent.
pub struct Search<'w> {
    what: &'w str,
    /// It may be the front of an info-hash.
    hex: bool,
    /// The first that fit.
    first: Vec<InfoHash>,
    /// How many fit.
    count: u64,
}

impl Search<'_> {
    /// One of the library's torrents. Takes no memory, however many there are.
    pub fn look_at(&mut self, info_hash: &InfoHash, name: &str) {
        if name == self.what || self.hex && begins_with(info_hash, self.what) {
            self.count += 1;
            if self.first.len() < NAMED_MAX {
                self.first.push(*info_hash);
            }
        }
    }

    /// The one that is meant, once every torrent was looked at.
    pub fn found(self) -> Result<InfoHash, Refusal> {
        match (&self.first[..], self.count) {
            ([one], 1) => Ok(*one),
            ([], _) => {
                let problem = "no torrent has this name or an info-hash that begins so";
                Err(Refusal::new(self.what, problem, "look at `perennial list`"))
            }
            (some, count) => {
                let some: Vec<String> = some.iter().map(ToString::to_string).collect();
                let more = if count as usize > some.len() { ", ..." } else { "" };
                let all = some.join(", ");
                let problem = std::format!("may be any of {count} torrents: {all}{more}");
                Err(Refusal::new(self.what, problem, "say which by its info-hash"))
            }
        }
    }
}

/// Whether the hex of an info-hash begins with these digits.
fn begins_with(info_hash: &InfoHash, digits: &str) -> bool {
    let bytes = info_hash.bytes();
    let nibble = |at: usize| bytes.get(at / 2).map(|byte| byte >> (4 * (1 - at % 2)) & 15);
    digits.bytes().enumerate().all(|(at, wanted)| nibble(at) == digit(wanted))
}

/// An info-hash of either version in hex.
fn parse_hex(text: &str) -> Option<InfoHash> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if !matches!(digits.len(), 40 | 64) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    match digits.len() {
        40 => bytes[..20].try_into().ok().map(InfoHash::V1),
        _ => Some(InfoHash::V2(bytes)),
    }
}

fn digit(char: u8) -> Option<u8> {
    char::from(char).to_digit(16).map(|digit| digit as u8)
}

/// Info-hashes in messages: hex, as people know them.
pub mod hex {
    use super::{InfoHash, parse_hex};
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use std::string::String;

    /// Writes it.
    pub fn serialize<S: Serializer>(hash: &InfoHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InfoHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).ok_or_else(|| D::Error::custom("an info-hash has 40 or 64 hex digits"))
    }
}

/// The word for every torrent.
const ALL: &str = "all";

/// Fewer digits are a name, for they would often mean several.
const FRONT_DIGITS_MIN: usize = 6;

/// Of so many that fit the owner is told.
const NAMED_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(front: [u8; 3]) -> InfoHash {
        let mut bytes = [0x5a; 20];
        bytes[..3].copy_from_slice(&front);
        InfoHash::V1(bytes)
    }

    fn found(what: &str) -> Result<InfoHash, String> {
        let what = What::new(what);
        let mut search = what.search();
        search.look_at(&hash([0xab, 0xcd, 0xef]), "film.mkv");
        search.look_at(&hash([0xab, 0xcd, 0x00]), "abcdef");
        search.look_at(&InfoHash::V2([0x12; 32]), "twin");
        search.look_at(&hash([0x33, 0x33, 0x33]), "twin");
        search.look_at(&hash([0x33, 0x33, 0x34]), "12");
        search.found().map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn one_is_found_by_its_name_and_by_the_front_of_its_info_hash() {
        assert_eq!(found("film.mkv"), Ok(hash([0xab, 0xcd, 0xef])));
        assert_eq!(found("ABCDE"), found("nothing").map_err(|e| e.replace("nothing", "ABCDE")));
        assert_eq!(found("abcd00"), Ok(hash([0xab, 0xcd, 0])));
        assert_eq!(found("ABCDEF"), Ok(hash([0xab, 0xcd, 0xef])), "names are not in another case");
        assert_eq!(found("12121212121"), Ok(InfoHash::V2([0x12; 32])));
        assert_eq!(found("12"), Ok(hash([0x33, 0x33, 0x34])), "two digits are no front");
        let whole = What::of(&InfoHash::V2([0x12; 32]));
        assert_eq!(whole.info_hash(), Some(InfoHash::V2([0x12; 32])));
        assert_eq!(found(&whole.to_string()), Ok(InfoHash::V2([0x12; 32])));
        let longer = std::format!("{whole}12");
        assert!(found(&longer).is_err() && What::new(longer).info_hash().is_none());
    }

    #[test]
    fn what_may_be_several_is_not_guessed() {
        let error = found("abcdef").unwrap_err();
        let begin = "abcdef: may be any of 2 torrents: abcdef5a";
        assert!(error.starts_with(begin), "{error}");
        assert!(error.ends_with("; say which by its info-hash"), "{error}");
        assert!(found("twin").unwrap_err().contains("any of 2"));
        let what = What::new("555555");
        let mut search = what.search();
        (0..100_000).for_each(|_| search.look_at(&InfoHash::V1([0x55; 20]), "same"));
        let error = search.found().unwrap_err().to_string();
        assert!(error.contains("any of 100000 torrents") && error.contains(", ...;"), "{error}");
        let missing = "nothing: no torrent has this name or an info-hash that begins so; \
                       look at `perennial list`";
        assert_eq!(found("nothing"), Err(missing.into()));
    }
}
