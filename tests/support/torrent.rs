//! What a `.torrent` says, read by a parser that shares nothing with the program's own.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use super::leecher::Block;
use sha1::{Digest, Sha1};
use std::path::{Path, PathBuf};

/// A torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// SHA-1 of the `info` dictionary.
    pub info_hash: [u8; 20],
    /// The name of the file or of the folder.
    pub name: String,
    /// Length of a piece.
    pub piece_bytes: u32,
    /// SHA-1 of each piece.
    pub hashes: Vec<[u8; 20]>,
    /// Path below the root and length of each file; a single file has an empty path.
    pub files: Vec<(PathBuf, u64)>,
    /// The `info` dictionary as it stands.
    pub info: Vec<u8>,
}

impl Metainfo {
    /// Reads a `.torrent`.
    pub fn read(path: &Path) -> Metainfo {
        let bytes =
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (value, rest) = parse(&bytes);
        assert!(rest.is_empty(), "something follows the torrent");
        Metainfo::of(value.at("info").raw)
    }

    /// Reads an `info` dictionary.
    pub fn of(info: &[u8]) -> Metainfo {
        let (value, rest) = parse(info);
        assert!(rest.is_empty(), "something follows the dictionary");
        let files = match value.find("files") {
            None => vec![(PathBuf::new(), value.at("length").number())],
            Some(files) => files.items.iter().map(|(_, file)| file_of(file)).collect(),
        };
        let hashes = value.at("pieces").bytes().chunks(20);
        Metainfo {
            info_hash: sha1(info),
            name: value.at("name").text(),
            piece_bytes: value.at("piece length").number() as u32,
            hashes: hashes.map(|hash| hash.try_into().expect("20 bytes a piece")).collect(),
            files,
            info: info.to_vec(),
        }
    }

    /// Bytes of its content.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// How many pieces it has.
    pub fn piece_count(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The blocks of a piece, 16 KiB each but for the torrent's last.
    pub fn blocks_of(&self, piece: u32) -> impl Iterator<Item = Block> + use<> {
        let start = u64::from(piece) * u64::from(self.piece_bytes);
        let length = (self.total_bytes() - start).min(self.piece_bytes.into()) as u32;
        let begins = (0..length).step_by(BLOCK_BYTES as usize);
        begins.map(move |begin| Block { piece, begin, length: BLOCK_BYTES.min(length - begin) })
    }

    /// All blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        (0..self.piece_count()).flat_map(|piece| self.blocks_of(piece)).collect()
    }

    /// Where a block stands in the content.
    pub fn offset(&self, block: Block) -> usize {
        block.piece as usize * self.piece_bytes as usize + block.begin as usize
    }

    /// Checks content against the piece hashes, and each file in it against the one at `root`.
    pub fn assert_is(&self, content: &[u8], root: &Path) {
        assert_eq!(content.len() as u64, self.total_bytes());
        let pieces = content.chunks(self.piece_bytes as usize);
        assert!(pieces.map(sha1).eq(self.hashes.iter().copied()), "a piece is wrong");
        let mut rest = content;
        for (path, length) in &self.files {
            let whole = if path.as_os_str().is_empty() { root.into() } else { root.join(path) };
            let (file, after) = rest.split_at(*length as usize);
            let expected = std::fs::read(&whole)
                .unwrap_or_else(|error| panic!("{}: {error}", whole.display()));
            assert!(file == expected, "{} is not what is on disk", whole.display());
            rest = after;
        }
    }
}

/// A value as it stands in bencoded bytes.
pub struct Value<'b> {
    /// All of it.
    pub raw: &'b [u8],
    /// What a string holds.
    string: Option<&'b [u8]>,
    /// What a list or dictionary holds; keys are empty in a list.
    items: Vec<(&'b [u8], Value<'b>)>,
}

impl<'b> Value<'b> {
    /// What stands under `key`.
    pub fn find(&self, key: &str) -> Option<&Value<'b>> {
        self.items.iter().find(|(known, _)| *known == key.as_bytes()).map(|(_, value)| value)
    }

    /// What has to stand under `key`.
    pub fn at(&self, key: &str) -> &Value<'b> {
        self.find(key).unwrap_or_else(|| panic!("no {key}"))
    }

    /// What a string holds.
    pub fn bytes(&self) -> &'b [u8] {
        self.string.expect("a string")
    }

    /// What a string of text holds.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().into()).expect("UTF-8")
    }

    /// A number.
    pub fn number(&self) -> u64 {
        let digits = self.raw.strip_prefix(b"i").and_then(|raw| raw.strip_suffix(b"e"));
        let digits = std::str::from_utf8(digits.expect("a number")).expect("digits");
        digits.parse().expect("a number that is not negative")
    }
}

/// Reads the value at the front; gives what follows it.
pub fn parse(bytes: &[u8]) -> (Value<'_>, &[u8]) {
    let (mut string, mut items) = (None, Vec::new());
    let mut rest = &bytes[1..];
    match bytes[0] {
        b'i' => {
            let end = rest.iter().position(|byte| *byte == b'e').expect("a number ends");
            rest = &rest[end + 1..];
        }
        b'l' | b'd' => {
            while rest[0] != b'e' {
                let mut key: &[u8] = b"";
                if bytes[0] == b'd' {
                    let (value, after) = parse(rest);
                    (key, rest) = (value.bytes(), after);
                    assert!(items.last().is_none_or(|(last, _)| *last < key), "keys are sorted");
                }
                let (value, after) = parse(rest);
                items.push((key, value));
                rest = after;
            }
            rest = &rest[1..];
        }
        _ => {
            let colon = bytes.iter().position(|byte| *byte == b':').expect("a string has a length");
            let length = std::str::from_utf8(&bytes[..colon]).expect("digits");
            let (held, after) = bytes[colon + 1..].split_at(length.parse().expect("digits"));
            (string, rest) = (Some(held), after);
        }
    }
    (Value { raw: &bytes[..bytes.len() - rest.len()], string, items }, rest)
}

/// The hash of a piece or of an `info` dictionary.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

fn file_of(value: &Value<'_>) -> (PathBuf, u64) {
    let names = value.at("path").items.iter().map(|(_, name)| name.text());
    (names.collect(), value.at("length").number())
}

/// What everybody asks for.
const BLOCK_BYTES: u32 = 16 * 1024;
