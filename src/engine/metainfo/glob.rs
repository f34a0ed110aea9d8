//! Patterns that pick files of a torrent by their paths.
//!
//! | written | stands for |
//! | --- | --- |
//! | `*` | any run of characters within a name, none included |
//! | `**` | any run of characters, folders included |
//! | `**/` after `/` or in front | any number of folders, none included |
//! | `?` | one character of a name |
//! | `[abc]` `[a-z]` `[!abc]` | one of these; one of a range; one that is none of these |
//! | `\x` | the character `x` and nothing else |
//!
//! A pattern picks a file when it matches the file's path or that of a folder which holds it: to
//! pick a folder is to pick all below. With a `/` in it (one in front will do) it counts from the
//! torrent's top; without one it matches any one name on the way down. With a `/` behind it, it
//! means folders only. ASCII letters match in either case.
//!
//! All places in the pattern where a match may stand are followed at once, as bits: a path is read
//! once, front to back, and there is nothing to go back to. So the worst pattern costs its own
//! length for each character of a path.

use super::super::limits::GLOB_BYTES_MAX;

/// A pattern that has been found to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glob<'p> {
    pattern: &'p str,
    from_top: bool,
    folders_only: bool,
}

impl<'p> Glob<'p> {
    /// Checks a pattern; says what is wrong with it, as the end of a sentence.
    pub fn parse(text: &'p str) -> Result<Glob<'p>, &'static str> {
        let pattern = text.strip_prefix('/').unwrap_or(text);
        let (pattern, folders_only) = match pattern.strip_suffix('/') {
            // An escaped one stays, for there is no name it could match.
            Some(front) if !front.ends_with('\\') => (front, true),
            _ => (pattern, false),
        };
        if pattern.is_empty() {
            return Err("names nothing");
        }
        if pattern.len() > GLOB_BYTES_MAX {
            return Err("is longer than 255 bytes");
        }
        let mut at = 0;
        while at < pattern.len() {
            at = token(pattern, at)?.1;
        }
        let from_top = text.starts_with('/') || pattern.contains('/');
        Ok(Glob { pattern, from_top, folders_only })
    }

    /// Whether it picks the file at `path`, its names joined by `/`.
    ///
    /// # Work
    /// At most the pattern's length for each character of the path.
    pub fn matches(&self, path: &str) -> bool {
        let mut places = Places::default();
        self.enter(&mut places, 0);
        let end = self.pattern.len();
        for char in path.chars() {
            if char == '/' && places.has(end) {
                return true;
            }
            let mut next = Places::default();
            places.each(|at| self.step(at, char, &mut next));
            if char == '/' && !self.from_top {
                self.enter(&mut next, 0);
            }
            places = next;
        }
        places.has(end) && !self.folders_only
    }

    /// Where a match that stands at `at` may stand after `char`.
    fn step(&self, at: usize, char: char, next: &mut Places) {
        let Ok((token, after)) = token(self.pattern, at) else { return };
        let is_in_name = char != '/';
        match token {
            Token::Literal(literal) if literal.eq_ignore_ascii_case(&char) => {
                self.enter(next, after);
            }
            Token::One if is_in_name => self.enter(next, after),
            Token::Class(class) if is_in_name && class.holds(char) => self.enter(next, after),
            Token::Run if is_in_name => self.enter(next, at),
            Token::DeepRun => self.enter(next, at),
            Token::Folders => {
                // In the middle of a folder's name what follows cannot begin.
                next.put(at);
                if char == '/' {
                    self.enter(next, after);
                }
            }
            _ => {}
        }
    }

    /// Puts a match at `at`, and behind every run there that may be empty.
    fn enter(&self, places: &mut Places, mut at: usize) {
        loop {
            places.put(at);
            match token(self.pattern, at) {
                Ok((Token::Run | Token::DeepRun | Token::Folders, after)) => at = after,
                _ => return,
            }
        }
    }
}

/// One step of a pattern.
enum Token<'p> {
    Literal(char),
    One,
    Class(Class<'p>),
    Run,
    DeepRun,
    Folders,
}

/// What stands between brackets.
struct Class<'p> {
    inside: &'p str,
    is_negated: bool,
}

impl Class<'_> {
    fn holds(&self, char: char) -> bool {
        let cases = [char, char.to_ascii_lowercase(), char.to_ascii_uppercase()];
        let (mut chars, mut found) = (self.inside.chars(), false);
        while let Some(first) = chars.next() {
            let mut ahead = chars.clone();
            let last = match (ahead.next(), ahead.next()) {
                (Some('-'), Some(last)) => {
                    chars = ahead;
                    last
                }
                // A `-` in front or at the end is itself.
                _ => first,
            };
            found |= cases.iter().any(|char| (first..=last).contains(char));
        }
        found != self.is_negated
    }
}

/// The step at `at`, and where the next one stands; an error at the pattern's end too.
fn token(pattern: &str, at: usize) -> Result<(Token<'_>, usize), &'static str> {
    let rest = &pattern[at..];
    let mut chars = rest.chars();
    let (token, length) = match chars.next().ok_or("ends too early")? {
        '*' if !rest.starts_with("**") => (Token::Run, 1),
        '*' => {
            let starts_name = at == 0 || pattern[..at].ends_with('/');
            let length = rest.bytes().take_while(|byte| *byte == b'*').count();
            match rest[length..].starts_with('/') && starts_name {
                true => (Token::Folders, length + 1),
                false => (Token::DeepRun, length),
            }
        }
        '?' => (Token::One, 1),
        '\\' => {
            let literal = chars.next().ok_or("ends in a `\\` that escapes nothing")?;
            (Token::Literal(literal), 1 + literal.len_utf8())
        }
        '[' => {
            let inside = &rest[1..];
            let is_negated = inside.starts_with(['!', '^']);
            let inside = &inside[usize::from(is_negated)..];
            // A `]` in front is one of those listed.
            let front = inside.chars().next().map_or(0, char::len_utf8);
            let length = inside[front..].find(']').map(|length| front + length);
            let length =
                length.ok_or("has a `[` without its `]`; write `\\[` for the character")?;
            let class = Class { inside: &inside[..length], is_negated };
            (Token::Class(class), 2 + usize::from(is_negated) + length)
        }
        literal => (Token::Literal(literal), literal.len_utf8()),
    };
    Ok((token, at + length))
}

/// Where in a pattern matches stand: a bit for each byte of it, and one for its end.
#[derive(Default)]
struct Places([u64; (GLOB_BYTES_MAX + 1).div_ceil(64)]);

impl Places {
    fn put(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    fn each(&self, mut visit: impl FnMut(usize)) {
        for (at, word) in self.0.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                visit(at * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn picks(pattern: &str, path: &str) -> bool {
        let glob = Glob::parse(pattern).unwrap_or_else(|what| panic!("{pattern}: {what}"));
        glob.matches(path)
    }

    #[test]
    fn a_pattern_picks_what_its_table_says() {
        let table: [(&str, &[&str], &[&str]); 21] = [
            ("a.txt", &["a.txt", "x/A.TXT", "x/y/a.txt"], &["a.txt2", "ba.txt", "x/a_txt"]),
            ("*.mkv", &["a.mkv", "x/b.MKV", ".mkv", "x.mkv/y"], &["a.mkv.part", "mkv", "x/mkv/a"]),
            ("extras", &["extras/a", "x/Extras/b/c", "extras"], &["extra/a", "extras2/a", "x"]),
            ("extras/", &["extras/a", "x/Extras/b/c"], &["extras", "x/extras"]),
            ("/extras", &["extras/a", "extras"], &["x/extras/a"]),
            ("/extras/", &["extras/a"], &["x/extras/a", "extras"]),
            ("a/b", &["a/b", "A/B/c/d"], &["a", "x/a/b", "a/bc", "a//b"]),
            ("a/*/c", &["a/b/c", "a/bb/c/d", "a//c"], &["a/c", "a/b/b/c"]),
            ("a/**/c", &["a/c", "a/b/c", "a/b/b/c/d"], &["a/bc", "ac", "a/b/cd", "b/a/c"]),
            ("**/c", &["c", "a/c", "a/b/c"], &["ac", "a/bc", "a/cd"]),
            ("**.c", &["x.c", "a/b/x.c"], &["x.cc"]),
            ("a**c", &["ac", "abc", "a/b/c", "x/abc"], &["ab", "xa/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a/c"]),
            ("***/c", &["c", "a/b/c"], &["bc"]),
            ("e0?.*", &["e01.mkv", "E0é.x"], &["e0.mkv", "e0/.x", "e012.mkv"]),
            ("e[0-2][!5-9].*", &["e01.a", "x/e24.b"], &["e31.a", "e05.a", "e0/.a"]),
            ("[]x-].[^]]", &["].a", "x.b", "-.c"], &["y.a", "x.]"]),
            ("[A-C]?[ü-]", &["axü", "cx-", "BXü"], &["dxü", "axu"]),
            ("\\[Group\\]*", &["[group] show", "[GROUP]/x"], &["Group"]),
            ("größe?*", &["GRößE1", "größe.a"], &["größe", "GRÖSSE1"]),
            ("*", &["a", "a/b"], &[]),
        ];
        for (pattern, picked, left) in table {
            picked.iter().for_each(|path| assert!(picks(pattern, path), "{pattern} {path}"));
            left.iter().for_each(|path| assert!(!picks(pattern, path), "{pattern} {path}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(256);
        let table = [
            ("", "names nothing"),
            ("/", "names nothing"),
            ("a[bc", "without its `]`"),
            ("a[]", "without its `]`"),
            ("[", "without its `]`"),
            ("[!", "without its `]`"),
            ("a\\", "escapes nothing"),
            (&long, "longer than 255 bytes"),
        ];
        for (pattern, what) in table {
            let error = Glob::parse(pattern).unwrap_err();
            assert!(error.contains(what), "{pattern}: {error}");
        }
        assert!(picks(&long[1..], &long[1..]));
    }

    #[test]
    fn the_worst_of_patterns_costs_its_length_for_each_character() {
        // A matcher that goes back to try again would not be done with these in a lifetime.
        let path = "a".repeat(4_096);
        for pattern in ["*a".repeat(127), "**a".repeat(84), "[a]*".repeat(60), "?**".repeat(80)] {
            let never = std::format!("{pattern}b");
            assert!(picks(&pattern, &path) && !picks(&never, &path));
        }
        let folders = "a/".repeat(2_047) + "c";
        assert!(!picks(&("**/a/".repeat(50) + "b"), &folders));
        assert!(picks(&("**/a/".repeat(50) + "c"), &folders));
    }

    /// The rules again, as slow as they are plain: whether all of `path` matches.
    fn is_whole_match(pattern: &[u8], path: &[u8], starts_name: bool) -> bool {
        let skips = |rest: &[u8], stop: Option<u8>| {
            let run = path.iter().take_while(|byte| Some(**byte) != stop).count();
            (0..=run).any(|skip| is_whole_match(rest, &path[skip..], false))
        };
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', b'/', rest @ ..] if starts_name => {
                let begins = |at: &usize| *at == 0 || path[at - 1] == b'/';
                (0..=path.len()).filter(begins).any(|at| is_whole_match(rest, &path[at..], true))
            }
            [b'*', b'*', rest @ ..] => skips(rest, None),
            [b'*', rest @ ..] => skips(rest, Some(b'/')),
            [b'?', rest @ ..] => {
                path.first().is_some_and(|byte| *byte != b'/')
                    && is_whole_match(rest, &path[1..], false)
            }
            [byte, rest @ ..] => {
                path.first() == Some(byte) && is_whole_match(rest, &path[1..], *byte == b'/')
            }
        }
    }

    #[test]
    fn random_patterns_pick_what_the_plain_rules_pick() {
        let mut state = 11u32;
        let mut word = |letters: &[u8], length: u32| -> String {
            let mut next = |below: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % below
            };
            let length = 1 + next(length);
            (0..length).map(|_| char::from(letters[next(letters.len() as u32) as usize])).collect()
        };
        let mut picked = 0;
        for _ in 0..100_000 {
            let (pattern, path) = (word(b"ab**?/", 7), word(b"ab/", 9));
            // Three stars are two here; the plain rules know only of two.
            let Ok(glob) = Glob::parse(&pattern) else { continue };
            if pattern.contains("***") {
                continue;
            }
            let ends = (0..path.len()).filter(|at| path.as_bytes()[*at] == b'/');
            let ends = ends.chain((!glob.folders_only).then_some(path.len()));
            let starts: Vec<usize> = match glob.from_top {
                true => std::vec![0],
                false => (0..=path.len())
                    .filter(|at| *at == 0 || path.as_bytes()[at - 1] == b'/')
                    .collect(),
            };
            let wanted = ends.into_iter().any(|end| {
                starts.iter().filter(|start| **start <= end).any(|start| {
                    let path = &path.as_bytes()[*start..end];
                    is_whole_match(glob.pattern.as_bytes(), path, true)
                })
            });
            assert_eq!(glob.matches(&path), wanted, "{pattern} {path}");
            picked += u32::from(wanted);
        }
        assert!(picked > 10_000, "{picked}");
    }

    #[test]
    fn no_pattern_at_all_makes_it_panic() {
        let letters: Vec<char> = "ab*?[]-!^\\/ß日".chars().collect();
        let mut state = 3u32;
        let mut word = || -> String {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as usize
            };
            (0..next() % 20).map(|_| letters[next() % letters.len()]).collect()
        };
        for _ in 0..100_000 {
            let (pattern, path) = (word(), word());
            let _ = Glob::parse(&pattern).map(|glob| glob.matches(&path));
        }
    }
}
