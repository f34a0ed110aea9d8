//! Names in a torrent: which ones are safe to meet a file system with.
//!
//! A name is one component of a path. It must not lead out of its folder, hide what it is or
//! upset a terminal; what is refused here never reaches `open`.

/// Checks one component of a path; says what is wrong with it, as the end of a sentence.
pub fn check(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("holds an empty name"),
        "." | ".." => Err("holds a name that leads elsewhere"),
        _ if name.len() > super::NAME_BYTES_MAX => Err("is longer than 255 bytes"),
        _ if name.contains(['/', '\0']) => Err("holds a separator inside a name"),
        _ if name.chars().any(char::is_control) => Err("holds a control character"),
        _ => Ok(()),
    }
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

/// What browsers and peers call a file they are still writing.
const HALF_MADE: [&str; 7] =
    [".part", ".crdownload", ".download", ".partial", ".aria2", ".!qb", ".tmp"];

/// What Windows, macOS and NAS systems leave in folders (names with a dot in front go anyway).
const SYSTEM: [&str; 7] =
    ["Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b", "a\nb", "\u{85}"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", "...", "ein Film (2024) – Größe.mkv", "日本語", "C:"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
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
