//! Torrents as others make them: any names, any sizes, made by code that shares nothing with the
//! program's own.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use super::torrent::sha1;
use std::path::{Path, PathBuf};

/// A torrent and what it is of.
pub struct Torrent {
    /// The `.torrent`.
    pub metainfo: Vec<u8>,
    /// SHA-1 of the `info` dictionary.
    pub info_hash: [u8; 20],
    /// Length of a piece.
    pub piece_bytes: u32,
    /// What it is of.
    pub content: Content,
}

/// What a torrent is of.
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many zeros, which take no memory.
    Zeros(u64),
}

/// A file of a torrent: its path, name by name, and its bytes.
pub type File<'f> = (Vec<&'f [u8]>, Vec<u8>);

impl Torrent {
    /// Of one file.
    pub fn single(name: &str, piece_bytes: u32, bytes: Vec<u8>) -> Torrent {
        let length = format!("6:lengthi{}e", bytes.len());
        Torrent::assemble(name.as_bytes(), piece_bytes, length.as_bytes(), Content::Bytes(bytes))
    }

    /// Of one file of nothing but zeros.
    pub fn zeros(name: &str, piece_bytes: u32, bytes: u64) -> Torrent {
        let length = format!("6:lengthi{bytes}e");
        Torrent::assemble(name.as_bytes(), piece_bytes, length.as_bytes(), Content::Zeros(bytes))
    }

    /// Of a folder; paths are cut at each `/`.
    pub fn folder(name: &str, piece_bytes: u32, files: &[(&str, Vec<u8>)]) -> Torrent {
        let cut = files.iter().map(|(path, bytes)| {
            let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            (names, bytes.clone())
        });
        let files: Vec<File<'_>> = cut.collect();
        Torrent::of_any_names(name.as_bytes(), piece_bytes, &files)
    }

    /// Of a folder, with names that may be anything.
    pub fn of_any_names(name: &[u8], piece_bytes: u32, files: &[File<'_>]) -> Torrent {
        let mut list = b"5:filesl".to_vec();
        for (path, bytes) in files {
            list.extend(format!("d6:lengthi{}e4:pathl", bytes.len()).bytes());
            path.iter().for_each(|name| list.extend(string(name)));
            list.extend(b"ee");
        }
        list.push(b'e');
        let content = files.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        Torrent::assemble(name, piece_bytes, &list, Content::Bytes(content))
    }

    /// The same as a private torrent (BEP 27).
    pub fn into_private(self) -> Torrent {
        // Without the ends of `info` and of the whole.
        let front = &self.metainfo[..self.metainfo.len() - 2];
        let metainfo = [front, b"7:privatei1eee"].concat();
        let info_hash = sha1(&metainfo[b"d4:info".len()..metainfo.len() - 1]);
        Torrent { metainfo, info_hash, ..self }
    }

    fn assemble(name: &[u8], piece_bytes: u32, length: &[u8], content: Content) -> Torrent {
        let mut hashes = Vec::new();
        let (mut piece, mut known) = (Vec::new(), None);
        for number in 0..content.bytes().div_ceil(piece_bytes.into()) as u32 {
            let at = u64::from(number) * u64::from(piece_bytes);
            piece.resize(content.bytes().saturating_sub(at).min(piece_bytes.into()) as usize, 0);
            content.read(at, &mut piece);
            // All pieces of zeros are alike, and there may be very many.
            let alike = matches!(content, Content::Zeros(_)).then_some(piece.len());
            let hash = match known {
                Some((length, hash)) if Some(length) == alike => hash,
                _ => sha1(&piece),
            };
            known = alike.map(|length| (length, hash));
            hashes.extend(hash);
        }
        let mut info = b"d".to_vec();
        info.extend(length);
        info.extend(b"4:name");
        info.extend(string(name));
        info.extend(format!("12:piece lengthi{piece_bytes}e6:pieces").bytes());
        info.extend(string(&hashes));
        info.push(b'e');
        let metainfo = [&b"d4:info"[..], &info, b"e"].concat();
        Torrent { metainfo, info_hash: sha1(&info), piece_bytes, content }
    }

    /// Writes the `.torrent` into `folder` under `name`.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, &self.metainfo).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// How many pieces it has.
    pub fn piece_count(&self) -> u32 {
        self.content.bytes().div_ceil(self.piece_bytes.into()) as u32
    }
}

impl Content {
    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(bytes) => *bytes,
        }
    }

    /// All of them.
    pub fn all(&self) -> &[u8] {
        match self {
            Content::Bytes(bytes) => bytes,
            Content::Zeros(_) => panic!("so many zeros are not held"),
        }
    }

    /// Those from `at` on.
    pub fn read(&self, at: u64, into: &mut [u8]) {
        match self {
            Content::Bytes(bytes) => into.copy_from_slice(&bytes[at as usize..][..into.len()]),
            Content::Zeros(_) => into.fill(0),
        }
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}
