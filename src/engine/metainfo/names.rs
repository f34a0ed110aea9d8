//! Names in a torrent: which ones are safe to meet a file system with.
//!
//! A name is one component of a path. It must not lead out of its folder, hide what it is or
//! upset a terminal; what is refused here never reaches `open`.
//!
//! Of our own files a name that is not safe is refused ([`check`]), for whoever made it can choose
//! another. A torrent to be fetched has the names it has, so they are made safe ([`make_safe`]), on
//! every file system a disk may come with: exFAT and NTFS take less than Linux does.

use super::super::limits::NAME_BYTES_MAX;

/// Checks one component of a path; says what is wrong with it, as the end of a sentence.
pub fn check(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("holds an empty name"),
        "." | ".." => Err("holds a name that leads elsewhere"),
        _ if name.len() > NAME_BYTES_MAX => Err("is longer than 255 bytes"),
        _ if name.contains(['/', '\0']) => Err("holds a separator inside a name"),
        _ if name.chars().any(char::is_control) => Err("holds a control character"),
        _ => Ok(()),
    }
}

/// Gives in `safe` a name that is plain and like `name`: the same one, if that is plain.
///
/// - What is not UTF-8 becomes U+FFFD.
/// - A separator, a control character, one that turns the direction of writing, and what Windows
///   does not take (`<>:"\|?*`, dots and blanks at the end) becomes `_`.
/// - No name at all, `.` and `..` become `_`.
/// - Names of Windows' devices (`con`, `LPT1.txt`) get a `_` in front.
/// - Beyond 255 bytes it is cut, in front of its extension when that is short.
///
/// A name made safe is left as it is. Two names may become the same one: whoever makes files of
/// them has to look.
pub fn make_safe(name: &[u8], safe: &mut heapless::String<NAME_BYTES_MAX>) {
    if matches!(name, b"" | b"." | b"..") {
        safe.clear();
        let _ = safe.push('_');
        return;
    }
    write_safe(name, "", safe);
    if is_device(safe) {
        write_safe(name, "_", safe);
    }
}

/// Gives in `safe` what stands `before` and the characters of `name`, each made safe, as far as
/// there is room.
fn write_safe(name: &[u8], before: &str, safe: &mut heapless::String<NAME_BYTES_MAX>) {
    let (mut length, mut dot) = (before.len(), None);
    for char in safe_chars(name) {
        dot = if char == '.' { Some(length) } else { dot };
        length += char.len_utf8();
    }
    let extension = dot.map(|dot| length - dot).filter(|bytes| *bytes <= EXTENSION_BYTES_MAX);
    // What stands from here on to the extension goes.
    let (cut, resume) = match extension {
        _ if length <= NAME_BYTES_MAX => (length, length),
        Some(bytes) => (NAME_BYTES_MAX - bytes, length - bytes),
        None => (NAME_BYTES_MAX, length),
    };
    safe.clear();
    let mut at = 0;
    for char in before.chars().chain(safe_chars(name)) {
        let end = at + char.len_utf8();
        if end <= cut || at >= resume {
            // It fits: what is left out is as much as there is too much.
            let _ = safe.push(char);
        }
        at = end;
    }
    // A cut may have laid bare what must not stand at an end.
    let bare = safe.len() - safe.trim_end_matches(['.', ' ']).len();
    safe.truncate(safe.len() - bare);
    (0..bare).for_each(|_| drop(safe.push('_')));
}

/// The characters of a name one by one, each as it may stand in a safe one.
fn safe_chars(name: &[u8]) -> impl Iterator<Item = char> {
    // As bytes: an end of dots and blanks is the same in what is no UTF-8.
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let lossy = name[..end].utf8_chunks().flat_map(|chunk| {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    });
    let safe = lossy.map(|char| if is_unsafe(char) { '_' } else { char });
    safe.chain(name[end..].iter().map(|_| '_'))
}

fn is_unsafe(char: char) -> bool {
    matches!(char, '/' | '\\' | '<' | '>' | ':' | '"' | '|' | '?' | '*')
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || char.is_control()
}

/// Whether Windows takes it for a device: with any extension, and with blanks before that.
fn is_device(name: &str) -> bool {
    let front = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    let is = |word: &str| front.eq_ignore_ascii_case(word);
    let is_numbered = |word: &str| {
        let number = front.get(word.len()..).unwrap_or("");
        let is_number = matches!(number.as_bytes(), [b'1'..=b'9'])
            || matches!(number, "\u{b9}" | "\u{b2}" | "\u{b3}");
        is_number && front[..word.len()].eq_ignore_ascii_case(word)
    };
    ["con", "prn", "aux", "nul"].into_iter().any(is) || ["com", "lpt"].into_iter().any(is_numbered)
}

/// Whether an entry of a folder is a half-made or a system file that nobody means to share.
pub fn is_left_out(name: &str) -> bool {
    let ends_with = |suffix: &str| {
        name.len() > suffix.len()
            && name.as_bytes()[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    name.starts_with('.')
        || HALF_MADE.iter().any(|suffix| ends_with(suffix))
        || SYSTEM.iter().any(|system| name.eq_ignore_ascii_case(system))
}

/// A longer end behind a dot is no extension, but a part of a sentence.
const EXTENSION_BYTES_MAX: usize = 16;

/// What browsers and peers call a file they are still writing.
const HALF_MADE: [&str; 7] =
    [".part", ".crdownload", ".download", ".partial", ".aria2", ".!qb", ".tmp"];

/// What Windows, macOS and NAS systems leave in folders (names with a dot in front go anyway).
const SYSTEM: [&str; 7] =
    ["Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b", "a\nb", "\u{85}"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", "...", "ein Film (2024) – Größe.mkv", "日本語", "C:"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    fn safe(name: impl AsRef<[u8]>) -> String {
        let mut safe = heapless::String::new();
        make_safe(name.as_ref(), &mut safe);
        let mut again = heapless::String::new();
        make_safe(safe.as_bytes(), &mut again);
        assert_eq!(safe, again, "a safe name stays");
        assert_eq!(check(&safe), Ok(()));
        String::from(safe.as_str())
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        let names = [
            "a",
            ".hidden",
            "a.b.c",
            "ein Film (2024) [1080p] – Größe.mkv",
            "日本語.txt",
            "קובץ.pdf",
            "_",
            "__",
            "console.log",
            "con_",
            "com10",
            "com",
            "LPT0.txt",
            "a con",
            "-rf",
            "~",
            "a;b&c'd",
            "#100%",
            "\u{fffd}",
            " a",
            "e\u{301}",
            "👨\u{200d}👩",
            "aux2",
            "nulls.txt",
        ];
        for name in names {
            assert_eq!(safe(name), name);
        }
        let longest = ["x".repeat(255), "é".repeat(127), "日".repeat(85), ".y".repeat(127)];
        longest.iter().for_each(|name| assert_eq!(safe(name), **name));
    }

    #[test]
    fn names_that_are_not_safe_are_made_so() {
        let table: [(&[u8], &str); 34] = [
            (b"", "_"),
            (b".", "_"),
            (b"..", "_"),
            (b"...", "___"),
            (b" ", "_"),
            (b". .", "___"),
            (b"../etc", ".._etc"),
            (b"/etc/passwd", "_etc_passwd"),
            (b"a/b", "a_b"),
            (b"a\\b", "a_b"),
            (b"C:", "C_"),
            (b"a\0b\nc\x1b[2J\x7f", "a_b_c_[2J_"),
            (b"what? *<\"x\">|", "what_ ___x___"),
            (b"end.", "end_"),
            (b"end. . ", "end____"),
            (b"a.txt ", "a.txt_"),
            (b"con", "_con"),
            (b"CON.tar.gz", "_CON.tar.gz"),
            (b"Nul .txt", "_Nul .txt"),
            (b"aux.", "aux_"),
            (b"prn:", "prn_"),
            (b"com1", "_com1"),
            (b"LPT9.x", "_LPT9.x"),
            ("COM¹.x".as_bytes(), "_COM¹.x"),
            ("lpt³".as_bytes(), "_lpt³"),
            (b"caf\xe9.txt", "caf\u{fffd}.txt"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\xe6\x97", "\u{fffd}"),
            (b"\xe6\x97. ", "\u{fffd}__"),
            (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
            ("a\u{202e}gpj.exe".as_bytes(), "a_gpj.exe"),
            ("\u{2066}a\u{2069}".as_bytes(), "_a_"),
            ("a\u{85}".as_bytes(), "a_"),
            ("\u{202a}\u{202e}\u{2067}".as_bytes(), "___"),
        ];
        for (name, wanted) in table {
            assert_eq!(safe(name), wanted, "{name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_in_front_of_their_extension() {
        let table = [
            ("x".repeat(300) + ".mkv", "x".repeat(251) + ".mkv"),
            ("x".repeat(300), "x".repeat(255)),
            ("é".repeat(200) + ".mkv", "é".repeat(125) + ".mkv"),
            ("日".repeat(100) + "a.tar.gz", "日".repeat(84) + ".gz"),
            ("日".repeat(84) + "é" + &"a".repeat(9), "日".repeat(84) + "éa"),
            ("日".repeat(84) + "x 日a", "日".repeat(84) + "x_"),
            ("x".repeat(300) + "." + &"y".repeat(15), "x".repeat(239) + "." + &"y".repeat(15)),
            ("x".repeat(300) + "." + &"y".repeat(16), "x".repeat(255)),
            ("x".repeat(300) + ".mkv..", "x".repeat(249) + ".mkv__"),
            ("x".repeat(200) + &".".repeat(99), "x".repeat(200) + &"_".repeat(55)),
            ("x".repeat(200) + &" ".repeat(80) + "x", "x".repeat(200) + &"_".repeat(55)),
            ("x".repeat(200) + &". ".repeat(40) + "x", "x".repeat(200) + &". ".repeat(27) + "x"),
            ("con.".to_string() + &"x".repeat(300), "_con.".to_string() + &"x".repeat(250)),
            (
                "con".to_string() + &" ".repeat(400) + ".x",
                std::format!("_con{}.x", " ".repeat(249)),
            ),
            (".".to_string() + &"x".repeat(300), ".".to_string() + &"x".repeat(254)),
            ("\u{202e}".repeat(300), "_".repeat(255)),
        ];
        for (name, wanted) in table {
            assert_eq!(safe(&name), wanted, "{name}");
        }
        assert_eq!(safe([b'\xff'; 300]), "\u{fffd}".repeat(85));
    }

    #[test]
    fn random_bytes_become_safe_names() {
        let parts: [&[u8]; 14] = [
            b".",
            b" ",
            b"..",
            b"con",
            b"lpt1",
            b"x",
            b"\xff",
            "é".as_bytes(),
            "日".as_bytes(),
            "\u{202e}".as_bytes(),
            "👨".as_bytes(),
            &[b'y'; 120],
            &[b'.'; 60],
            b"\xe6",
        ];
        let mut state = 5u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        for _ in 0..100_000 {
            let mut name = std::vec::Vec::new();
            (0..next() % 8).for_each(|_| match next() % 3 {
                0 => name.push(next() as u8),
                _ => name.extend_from_slice(parts[next() % parts.len()]),
            });
            let safe = safe(&name);
            assert!(!safe.ends_with(['.', ' ']) && !is_device(&safe), "{safe:?}");
            assert!(!safe.chars().any(is_unsafe), "{safe:?}");
        }
    }

    #[test]
    fn half_made_and_system_files_are_left_out() {
        for name in [".DS_Store", ".hidden", "film.mkv.part", "A.CRDOWNLOAD", "thumbs.DB", "@eaDir"]
        {
            assert!(is_left_out(name), "{name}");
        }
        for name in ["part", "department", "film.mkv", "Grüße.tmpx", "partés"] {
            assert!(!is_left_out(name), "{name}");
        }
    }
}
