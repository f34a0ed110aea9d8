//! The web seeds a metainfo file names (BEP 19 `url-list`).

use super::MetainfoError;
use super::scan::{Scanner, Source};

/// Hands each URL to `visit`, in the order of the file: `url-list` is one URL or a list of them.
///
/// # When full
/// URLs beyond [`WEB_SEEDS_MAX`] are passed over, and so are those longer than
/// [`WEB_SEED_BYTES_MAX`] and whatever is no string.
pub fn read<S: Source>(
    source: &mut S,
    window: &mut [u8],
    visit: &mut impl FnMut(&[u8]),
) -> Result<(), MetainfoError<S::Error>> {
    let mut scanner = Scanner::new(source, window);
    scanner.expect_dictionary(KEY)?;
    while let Some(key) = scanner.next_key(KEY)? {
        if key != b"url-list" {
            scanner.skip_value(KEY)?;
            continue;
        }
        if !scanner.at_list_start() {
            read_url(&mut scanner, visit)?;
            continue;
        }
        scanner.expect_list(KEY)?;
        let mut seen = 0;
        while scanner.next_item()?.is_some() {
            if seen < WEB_SEEDS_MAX {
                seen += usize::from(read_url(&mut scanner, visit)?);
            } else {
                scanner.skip_value(KEY)?;
            }
        }
    }
    Ok(())
}

/// Reads one URL; `false` when it is none.
fn read_url<S: Source>(
    scanner: &mut Scanner<'_, S>,
    visit: &mut impl FnMut(&[u8]),
) -> Result<bool, MetainfoError<S::Error>> {
    let at = scanner.offset();
    let span = match scanner.string_span(KEY) {
        Ok(span) => span,
        Err(MetainfoError::Read(error)) => return Err(MetainfoError::Read(error)),
        Err(_) => {
            scanner.seek(at);
            scanner.skip_value(KEY)?;
            return Ok(false);
        }
    };
    let mut room = [0; WEB_SEED_BYTES_MAX];
    let Some(room) = room.get_mut(..span.length as usize).filter(|room| !room.is_empty()) else {
        return Ok(false);
    };
    scanner.copy(span.at, room, KEY)?;
    visit(room);
    Ok(true)
}

const KEY: &str = "url-list";

/// Web seeds of one torrent that are looked at.
pub const WEB_SEEDS_MAX: usize = 8;

/// The longest URL of a web seed; those in the field have about 100 bytes.
pub const WEB_SEED_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn urls(file: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut visit = |url: &[u8]| all.push(String::from_utf8_lossy(url).into_owned());
        let read = read(&mut file.as_bytes(), &mut [0; 512], &mut visit);
        read.map_err(|error| error.to_string()).unwrap();
        all
    }

    #[test]
    fn one_url_stands_alone_or_in_a_list_of_some() {
        assert_eq!(urls("d4:infode8:url-list8:http://ae"), ["http://a"]);
        assert_eq!(urls("d4:infode8:url-listl1:a1:bee"), ["a", "b"]);
        for none in ["d4:infodee", "d8:url-list0:e", "d8:url-listle1:zi3ee", "d8:url-listi3ee"] {
            assert_eq!(urls(none), [""; 0], "{none}");
        }
    }

    #[test]
    fn what_is_too_much_or_no_url_is_passed_over() {
        let most = "x".repeat(WEB_SEED_BYTES_MAX);
        let file = format!("d8:url-listl0:i7ed1:ai1ee1025:{most}x1024:{most}1:aee");
        assert_eq!(urls(&file), [most, "a".into()]);
        let many = "1:u".repeat(40);
        assert_eq!(urls(&format!("d8:url-listl{many}ee")).len(), WEB_SEEDS_MAX);
    }
}
