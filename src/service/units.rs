//! Rates and sizes as people write them.
//!
//! A number, a prefix, a unit, and for a rate what it is by: `2MB/s`, `10 mbit`, `1.5MiB/s`.
//!
//! | written | counts as |
//! | --- | --- |
//! | `k` `M` `G` `T` | 1000, 1000², 1000³, 1000⁴ |
//! | `Ki` `Mi` `Gi` `Ti` | 1024, 1024², 1024³, 1024⁴ |
//! | `B`, `byte`, `bytes`, no unit | bytes |
//! | `b`, `bit`, `bits` | bits, eight of which are a byte: what networks are sold by |
//! | `/s`, `/sec`, and `ps` behind a unit (`Mbps`) | by the second; so does a rate without it |
//! | `0`, `off`, `none`, `unlimited` | no limit, for a rate |
//!
//! Prefixes and words may be in either case, for a rate in thousandths means nothing; only `B` and
//! `b` differ, as they do everywhere. The number may have a point in it (`1.5`). What is no
//! whole number of bytes is counted up, so that a limit that was given never becomes none.
//!
//! Piece lengths are older than these prefixes and have rules of their own: [`parse_piece_bytes`].

use crate::engine::limits::{PIECE_BYTES_AUTHORED_MAX, PIECE_BYTES_MIN};
use std::format;
use std::string::{String, ToString};

/// A cap on bandwidth in bytes a second; `None` when there is to be none.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if ["off", "none", "unlimited"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    let amount = Amount::split(text).map_err(|what| format!("{what}; {RATE_EXAMPLES}"))?;
    let bytes = without_second(amount.unit)
        .and_then(multiplier)
        .ok_or_else(|| format!("`{}` is no unit of a rate; {RATE_EXAMPLES}", amount.unit))
        .and_then(|unit| amount.bytes(unit))?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

/// A size in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let amount = Amount::split(text.trim()).map_err(|what| format!("{what}; {SIZE_EXAMPLES}"))?;
    let unit = multiplier(amount.unit).filter(|unit| unit.per == 1);
    let wrong = || format!("`{}` is no unit of a size; {SIZE_EXAMPLES}", amount.unit);
    unit.ok_or_else(wrong).and_then(|unit| amount.bytes(unit))
}

/// The length of a piece: a power of two from 16K to 16M. `K` and `M` are binary here whether they
/// are written `K`, `Ki` or `KiB`, for no piece length was ever decimal.
pub fn parse_piece_bytes(text: &str) -> Result<u32, String> {
    let range = PIECE_BYTES_MIN..=PIECE_BYTES_AUTHORED_MAX;
    let bytes = Amount::split(text).ok().and_then(|amount| {
        let times = match amount.unit.to_ascii_lowercase().as_str() {
            "" => 1,
            "k" | "ki" | "kib" => 1 << 10,
            "m" | "mi" | "mib" => 1 << 20,
            _ => return None,
        };
        u32::try_from(amount.bytes(Unit { times, per: 1 }).ok()?).ok()
    });
    bytes
        .filter(|bytes| bytes.is_power_of_two() && range.contains(bytes))
        .ok_or_else(|| "not a power of two from 16K to 16M".to_string())
}

/// A number of something.
struct Amount<'t> {
    /// The number, without its point.
    digits: u128,
    /// What it is to be divided by: a power of ten.
    scale: u128,
    /// What stands behind it.
    unit: &'t str,
}

/// So many bytes are one of it: `times` / `per`.
struct Unit {
    times: u128,
    per: u128,
}

impl<'t> Amount<'t> {
    fn split(text: &'t str) -> Result<Amount<'t>, String> {
        let number = text.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
        let (number, unit) = text.split_at(text.len() - number.len());
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || number.ends_with('.') || part.contains('.') {
            return Err(match text.chars().next() {
                None => "there is no number".to_string(),
                Some('-') => format!("`{text}` is less than nothing"),
                Some(_) => format!("`{text}` does not begin with a number"),
            });
        }
        if unit.starts_with(',') {
            return Err(format!("`{text}` has a comma; write a point"));
        }
        // 25 digits and the largest prefix stay well below 2^128.
        if whole.len() + part.len() > DIGITS_MAX {
            return Err(format!("`{number}` has more than {DIGITS_MAX} digits"));
        }
        let digits = whole.bytes().chain(part.bytes());
        let digits = digits.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        Ok(Amount { digits, scale: 10u128.pow(part.len() as u32), unit: unit.trim_start() })
    }

    fn bytes(&self, unit: Unit) -> Result<u64, String> {
        let bytes = (self.digits * unit.times).div_ceil(self.scale * unit.per);
        u64::try_from(bytes).map_err(|_| "it is more than 2^64 bytes".to_string())
    }
}

/// A unit without what says that it is by the second.
fn without_second(unit: &str) -> Option<&str> {
    let lower = unit.to_ascii_lowercase();
    let front = |end: &str| lower.ends_with(end).then(|| unit[..unit.len() - end.len()].trim_end());
    match ["/sec", "/s"].into_iter().find_map(front) {
        None if lower.ends_with("bps") => unit.get(..unit.len() - 2),
        None => Some(unit),
        front => front,
    }
}

/// What a prefix and a unit, either of which may be missing, stand for.
fn multiplier(unit: &str) -> Option<Unit> {
    let first = unit.chars().next().filter(char::is_ascii).unwrap_or(' ').to_ascii_lowercase();
    let power = "kmgt".find(first).map_or(0, |at| at as u32 + 1);
    let rest = &unit[usize::from(power > 0)..];
    let (base, rest) = match rest.strip_prefix(['i', 'I']) {
        Some(rest) if power > 0 => (1024u128, rest),
        _ => (1000, rest),
    };
    let per = match rest {
        "" | "B" => 1,
        "b" => 8,
        word => match word.to_ascii_lowercase().as_str() {
            "byte" | "bytes" => 1,
            "bit" | "bits" => 8,
            _ => return None,
        },
    };
    Some(Unit { times: base.pow(power), per })
}

/// No size has more: 2^64 has 20.
const DIGITS_MAX: usize = 25;

const RATE_EXAMPLES: &str = "write 2MB/s, 500kB/s, 10mbit or off";
const SIZE_EXAMPLES: &str = "write 700MB, 1.5GiB or 4096";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_as_their_table_says() {
        let table = [
            ("2MB/s", 2_000_000),
            ("500kB/s", 500_000),
            ("1.5MiB/s", 1_572_864),
            ("10mbit", 1_250_000),
            ("10 Mbit/s", 1_250_000),
            ("800kbit/s", 100_000),
            ("2M", 2_000_000),
            ("2m", 2_000_000),
            ("2Mb", 250_000),
            ("2mb", 250_000),
            ("2mB", 2_000_000),
            ("100Mbps", 12_500_000),
            ("100MBps", 100_000_000),
            ("1 Gibit/sec", 134_217_728),
            ("1GiB/S", 1 << 30),
            ("1T", 1_000_000_000_000),
            ("3Ki", 3_072),
            ("512", 512),
            ("512/s", 512),
            ("512 bytes /s", 512),
            ("8bit", 1),
            ("1b", 1),
            ("0.1B", 1),
            ("0.001kB", 1),
            (" 1.25 kB/s ", 1_250),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_rate(text), Ok(Some(bytes)), "{text}");
        }
        for text in ["0", "0kB/s", "0.0", "off", "OFF", "none", "Unlimited", " off "] {
            assert_eq!(parse_rate(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        let table = [
            ("", "there is no number"),
            ("fast", "`fast` does not begin with a number"),
            ("MB/s", "does not begin with a number"),
            ("-1M", "`-1M` is less than nothing"),
            ("+1M", "does not begin with a number"),
            (".5M", "does not begin with a number"),
            ("5.M", "does not begin with a number"),
            ("1.2.3M", "does not begin with a number"),
            ("1,5MB/s", "has a comma; write a point"),
            ("2X", "`X` is no unit of a rate"),
            ("2MM", "`MM` is no unit of a rate"),
            ("2MB/h", "`MB/h` is no unit of a rate"),
            ("2iB", "`iB` is no unit of a rate"),
            ("2ps", "`ps` is no unit of a rate"),
            ("2é", "`é` is no unit of a rate"),
            ("1e6", "`e6` is no unit of a rate"),
            ("3ki b/s", "`ki b/s` is no unit of a rate"),
            ("00000000000000000000000001", "more than 25 digits"),
        ];
        for (text, what) in table {
            let error = parse_rate(text).unwrap_err();
            assert!(error.contains(what) && error.ends_with(RATE_EXAMPLES), "{text}: {error}");
        }
        for text in ["18446744073709551616", "20000000T"] {
            assert_eq!(parse_rate(text), Err("it is more than 2^64 bytes".into()));
        }
    }

    #[test]
    fn sizes_are_in_bytes() {
        let table = [("700MB", 700_000_000), ("1.5GiB", 3 << 29), ("4096", 4_096), ("0", 0)];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1Mb", "1MB/s", "off", "1 bit", "1Mbps"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.ends_with(SIZE_EXAMPLES), "{text}: {error}");
        }
    }

    #[test]
    fn a_piece_length_is_a_power_of_two() {
        let table = [
            ("16K", 1 << 14),
            ("16k", 1 << 14),
            ("16KiB", 1 << 14),
            ("16Ki", 1 << 14),
            ("16384", 1 << 14),
            ("1M", 1 << 20),
            ("16MiB", 1 << 24),
            ("16m", 1 << 24),
            ("0.5M", 1 << 19),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_piece_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "8K", "32M", "17K", "16KB", "16G", "K", "-16K", "16iB", "1.1M", "4096M"] {
            let refused = Err("not a power of two from 16K to 16M".to_string());
            assert_eq!(parse_piece_bytes(text), refused, "{text}");
        }
    }

    #[test]
    fn no_text_at_all_makes_it_panic() {
        let letters: std::vec::Vec<char> = "0123456789.kKmMGTibBs/p é,-".chars().collect();
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        for _ in 0..100_000 {
            let text: String = (0..next() % 32).map(|_| letters[next() % letters.len()]).collect();
            let _ = (parse_rate(&text), parse_size(&text), parse_piece_bytes(&text));
        }
    }
}
