//! Which part of a file is wanted (RFC 9110, 14).

use std::ops::Range;

/// What a `Range` header asks of a file of so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: there is none, or one of a kind we do not know, or several at once.
    Whole,
    /// Part of it.
    Part(Range<u64>),
    /// What is not in it.
    Nothing,
}

/// Reads a `Range` header.
pub fn parse(range: Option<&str>, bytes: u64) -> Wanted {
    let Some(range) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if range.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = range.split_once('-') else { return Wanted::Nothing };
    let (first, last) = (first.trim(), last.trim());
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true if digits.is_empty() => Some(None),
        // More than fits is more than there is.
        true => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        false => None,
    };
    let part = match (number(first), number(last)) {
        (Some(Some(first)), Some(None)) => first..bytes,
        (Some(Some(first)), Some(Some(last))) if first <= last => {
            first..last.saturating_add(1).min(bytes)
        }
        (Some(None), Some(Some(length))) => bytes.saturating_sub(length)..bytes,
        _ => return Wanted::Nothing,
    };
    if part.is_empty() { Wanted::Nothing } else { Wanted::Part(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_meant() {
        let read = |range| parse(Some(range), 100);
        assert_eq!(parse(None, 100), Wanted::Whole);
        for whole in ["items=0-9", "bytes=0-1,5-6", ""] {
            assert_eq!(read(whole), Wanted::Whole, "{whole}");
        }
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..100),
            ("bytes=99-", 99..100),
            ("bytes=10-19", 10..20),
            ("bytes=90-1000", 90..100),
            ("bytes=-7", 93..100),
            ("bytes=-1000", 0..100),
            ("bytes=5-99999999999999999999999", 5..100),
        ] {
            assert_eq!(read(range), Wanted::Part(part), "{range}");
        }
        for nothing in
            ["bytes=100-", "bytes=5-2", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=+1-2", "bytes=7"]
        {
            assert_eq!(read(nothing), Wanted::Nothing, "{nothing}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Nothing);
    }
}
