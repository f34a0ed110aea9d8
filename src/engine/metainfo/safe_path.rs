//! Paths of a torrent that is to be fetched, made safe as they are read.
//!
//! Whatever a torrent calls its files, there is a path for each that stays below the torrent's
//! folder, that every file system takes and that is read the way it is written. Ordinary paths stay
//! as they are. Different ones may become the same: whoever makes files of them has to look.

use super::names::make_safe;
use super::scan::{Scanner, Source, Token};
use super::{MetainfoError, NAME_BYTES_MAX, PATH_BYTES_MAX, wrong};
use crate::engine::limits::PATH_NAMES_MAX;

/// Reads the `path` list at `path_at` and gives its names, made safe and joined by `/`, in `path`.
///
/// # When full
/// Names beyond [`PATH_NAMES_MAX`], and those for which [`PATH_BYTES_MAX`] leaves no room, are
/// joined to the last one by `_`, and that is cut like any other.
pub fn read_safe_path<'p, S: Source>(
    source: &mut S,
    path_at: u64,
    path: &'p mut [u8; PATH_BYTES_MAX],
) -> Result<&'p str, MetainfoError<S::Error>> {
    let mut window = [0; 512];
    let mut scanner = Scanner::new(source, &mut window);
    scanner.seek(path_at);
    // The last name stands from `last` to `length`.
    let (mut last, mut length, mut count) = (0, 0, 0);
    scanner.expect_list("path")?;
    while scanner.next_item()?.is_some() {
        let mut name = scanner.safe_name("path")?;
        let has_room = count < PATH_NAMES_MAX && length + 1 + NAME_BYTES_MAX <= PATH_BYTES_MAX;
        if count > 0 && has_room {
            path[length] = b'/';
            last = length + 1;
        } else if count > 0 {
            name = joined(&path[last..length], &name);
        }
        length = last + name.len();
        // A name is begun only where the longest one has room.
        path[last..length].copy_from_slice(name.as_bytes());
        count += 1;
    }
    if count == 0 {
        return wrong(path_at, "path", "is empty");
    }
    core::str::from_utf8(&path[..length]).or_else(|_| wrong(path_at, "path", "is not UTF-8"))
}

/// The safe name that two make together.
fn joined(first: &[u8], second: &str) -> heapless::String<NAME_BYTES_MAX> {
    let mut both = [b'_'; 2 * NAME_BYTES_MAX + 1];
    both[..first.len()].copy_from_slice(first);
    let length = first.len() + 1 + second.len();
    both[first.len() + 1..length].copy_from_slice(second.as_bytes());
    let mut safe = heapless::String::new();
    make_safe(&both[..length], &mut safe);
    safe
}

impl<S: Source> Scanner<'_, S> {
    /// A string of any length as one plain name in a path.
    pub(super) fn safe_name(
        &mut self,
        key: &'static str,
    ) -> Result<heapless::String<NAME_BYTES_MAX>, MetainfoError<S::Error>> {
        let at = self.offset();
        let Token::String(span) = self.token(key)? else { return wrong(at, key, "is no string") };
        let mut room = [0; FRONT_BYTES + END_BYTES];
        let name = if span.length <= room.len() as u64 {
            let name = &mut room[..span.length as usize];
            self.copy(span.at, name, key)?;
            name
        } else {
            // The middle of a name as long as this never is in what it is cut to.
            let (front, end) = room.split_at_mut(FRONT_BYTES);
            self.copy(span.at, front, key)?;
            self.copy(span.end() - END_BYTES as u64, end, key)?;
            &mut room[..]
        };
        let mut safe = heapless::String::new();
        make_safe(name, &mut safe);
        Ok(safe)
    }
}

/// What a name is cut to comes from so many bytes in front: three may become one (U+202E a `_`),
/// and the last character may be cut through.
const FRONT_BYTES: usize = 3 * NAME_BYTES_MAX + 3;

/// Its extension comes from so many at the end: three times 16, and a character cut through.
const END_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::Summary;
    use super::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn list(names: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::from(*b"l");
        for name in names {
            out.extend_from_slice(format!("{}:", name.len()).as_bytes());
            out.extend_from_slice(name);
        }
        out.push(b'e');
        out
    }

    fn path_of(names: &[&[u8]]) -> String {
        let list = list(names);
        let mut room = [b'#'; PATH_BYTES_MAX];
        read_safe_path(&mut &list[..], 0, &mut room).unwrap().to_string()
    }

    fn made_safe(name: &[u8]) -> String {
        let mut safe = heapless::String::new();
        make_safe(name, &mut safe);
        safe.to_string()
    }

    #[test]
    fn every_name_of_a_path_is_made_safe_and_ordinary_ones_stay() {
        let table: [(&[&[u8]], &str); 6] = [
            (&[b"a", b"b c", "ü [1].mkv".as_bytes()], "a/b c/ü [1].mkv"),
            (&[b"..", b"..", b"etc", b"passwd"], "_/_/etc/passwd"),
            (&[b"/", b"", b"x"], "_/_/x"),
            (&[b"a/../b", b"con"], "a_.._b/_con"),
            (&[b"caf\xe9", b"b."], "caf\u{fffd}/b_"),
            (&[b"."], "_"),
        ];
        for (names, wanted) in table {
            assert_eq!(path_of(names), wanted);
        }
        assert_eq!(path_of(&[&b"d"[..]; 32]), ["d"; 32].join("/"));
    }

    #[test]
    fn paths_that_are_too_deep_or_too_long_end_in_one_joined_name() {
        assert_eq!(path_of(&[&b"d"[..]; 34]), ["d"; 32].join("/") + "_d_d");
        let mut deep = Vec::from([&b"d"[..]; 900]);
        deep.push(b"film.mkv");
        let path = path_of(&deep);
        assert_eq!((path.split('/').count(), path.len()), (32, 62 + 255));
        assert!(path.ends_with("_d_d.mkv"), "{path}");
        // Fifteen names of 255 bytes and their separators leave room for a sixteenth.
        let long = [b'x'; 255];
        let mut names = Vec::from([&long[..]; 15]);
        assert_eq!(path_of(&names).len(), 15 * 256 - 1);
        names.extend([&b"y"[..]; 9]);
        assert_eq!(path_of(&names)[15 * 256..], ["y"; 9].join("_"));
        names.extend([&long[..]; 40]);
        assert_eq!(path_of(&names).len(), 4_095);
    }

    #[test]
    fn only_what_is_no_path_is_refused() {
        let table = [
            ("le", "byte 0, `path`: is empty"),
            ("d", "is not a list"),
            ("li1ee", "is no string"),
            ("l9:abc", "is longer than the file"),
            ("l1:a", "the file ends"),
            ("l999:abce", "is longer than the file"),
            ("", "the file ends"),
        ];
        for (list, what) in table {
            let mut room = [0; PATH_BYTES_MAX];
            let error = read_safe_path(&mut list.as_bytes(), 0, &mut room).unwrap_err();
            assert!(error.to_string().contains(what), "{list}: {error}");
        }
    }

    #[test]
    fn names_longer_than_any_window_are_cut_as_if_they_were_held_whole() {
        let parts: [&[u8]; 9] = [
            b".",
            b" ",
            b"x",
            b"\xff",
            "日".as_bytes(),
            "\u{202e}".as_bytes(),
            "👨".as_bytes(),
            &[b'y'; 90],
            &[b'.'; 90],
        ];
        let mut state = 9u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        for _ in 0..3_000 {
            let mut name = Vec::new();
            while name.len() < 600 || next() % 16 != 0 {
                let part = parts[next() % parts.len()];
                (0..1 + next() % 80).for_each(|_| name.extend_from_slice(part));
            }
            assert_eq!(path_of(&[&name]), made_safe(&name), "{name:?}");
        }
    }

    #[test]
    fn random_bytes_are_no_path_or_a_safe_one() {
        let mut state = 4u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        let mut room = [0; PATH_BYTES_MAX];
        let mut read = 0;
        for _ in 0..100_000 {
            let mut list = Vec::from(*b"l");
            for _ in 0..next() % 6 {
                let name: Vec<u8> = (0..next() % 9).map(|_| next() as u8).collect();
                list.extend_from_slice(format!("{}:", name.len()).as_bytes());
                list.extend_from_slice(&name);
            }
            list.push(if next() % 4 == 0 { next() as u8 } else { b'e' });
            let Ok(path) = read_safe_path(&mut &list[..], 0, &mut room) else { continue };
            let is_plain = |name: &str| super::super::names::check(name).is_ok();
            assert!(path.split('/').all(is_plain), "{path:?}");
            read += 1;
        }
        assert!(read > 10_000, "{read}");
    }

    /// A torrent of two files in the folder `name`, with what else is said of the first.
    fn torrent(name: &[u8], path: &[&[u8]], more: &[u8], name_more: &[u8]) -> Vec<u8> {
        let mut out = Vec::from(*b"d4:infod5:filesld6:lengthi5e4:path");
        out.extend_from_slice(&list(path));
        out.extend_from_slice(more);
        out.extend_from_slice(b"ed6:lengthi6e4:pathl1:zeee4:name");
        out.extend_from_slice(format!("{}:", name.len()).as_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(name_more);
        out.extend_from_slice(b"12:piece lengthi16384e6:pieces20:####################ee");
        out
    }

    fn read_any(bytes: &[u8]) -> (String, Vec<String>) {
        let mut window = [0; 300];
        let summary = Summary::read_any_names(&mut &bytes[..], &mut window).unwrap();
        let (mut source, mut paths) = (bytes, Vec::new());
        let mut files = summary.files(&mut source, &mut window);
        while let Some(file) = files.next_file().unwrap() {
            let mut room = [0; PATH_BYTES_MAX];
            let at = summary.info.at + file.path_at;
            paths.push(read_safe_path(&mut &bytes[..], at, &mut room).unwrap().to_string());
        }
        (summary.name.to_string(), paths)
    }

    #[test]
    fn a_torrent_of_unsafe_names_is_refused_for_sharing_and_read_for_fetching() {
        let long = [b'n'; 2_000];
        for name in [&b".."[..], b"a/b", b"", b"\xff", &long] {
            let bytes = torrent(name, &[b"ok"], b"", b"");
            assert!(Summary::read(&mut &bytes[..], &mut [0; 300]).is_err());
            assert_eq!(
                read_any(&bytes),
                (made_safe(name), Vec::from(["ok", "z"].map(String::from)))
            );
            let bytes = torrent(b"ok", &[b"d", name], b"", b"");
            assert!(Summary::read(&mut &bytes[..], &mut [0; 300]).is_err());
            assert_eq!(read_any(&bytes).1[0], "d/".to_string() + &made_safe(name));
        }
        for path in [&b"i1e"[..], b"le", b"li1ee"] {
            let bytes = torrent(b"ok", &[b"a"], &[b"10:path.utf-8", path].concat(), b"");
            assert!(Summary::read_any_names(&mut &bytes[..], &mut [0; 300]).is_err());
        }
    }

    #[test]
    fn names_known_to_be_utf_8_count_for_fetching_only() {
        let path = "10:path.utf-8l5:日ée".as_bytes();
        let bytes = torrent(b"\x93\xfa", &[b"\x93\xfa"], path, "10:name.utf-83:日".as_bytes());
        let (name, paths) = read_any(&bytes);
        assert_eq!((name.as_str(), &paths[..]), ("日", &["日é", "z"].map(String::from)[..]));
        let bytes = torrent(b"n", &[b"p"], path, "10:name.utf-83:日".as_bytes());
        let summary = Summary::read(&mut &bytes[..], &mut [0; 300]).unwrap();
        assert_eq!(summary.name, "n");
        let (mut source, mut window, mut room) = (&bytes[..], [0; 300], [0; PATH_BYTES_MAX]);
        let file = summary.files(&mut source, &mut window).next_file().unwrap().unwrap();
        let at = summary.info.at + file.path_at;
        assert_eq!(super::super::read_path(&mut &bytes[..], at, &mut room).unwrap(), "p");
    }
}
