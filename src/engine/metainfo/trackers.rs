//! The trackers a metainfo file names (BEP 3 `announce`, BEP 12 `announce-list`).

use super::MetainfoError;
use super::scan::{Scanner, Source};

/// Hands the tier and address of each tracker to `visit`, in the order of the file. With an
/// `announce-list` the single `announce` does not count (BEP 12).
///
/// # When full
/// Trackers beyond [`TRACKERS_MAX`] are passed over, and so are addresses too long to be one.
pub fn read<S: Source>(
    source: &mut S,
    window: &mut [u8],
    visit: &mut impl FnMut(u8, &[u8]),
) -> Result<(), MetainfoError<S::Error>> {
    let (mut listed, mut announce_at) = (0, None);
    let mut scanner = Scanner::new(source, window);
    scanner.expect_dictionary("the file")?;
    while let Some(key) = scanner.next_key("the file")? {
        match key {
            b"announce" => {
                announce_at = Some(scanner.offset());
                scanner.skip_value("announce")?;
            }
            b"announce-list" => listed = read_list(&mut scanner, visit)?,
            _ => scanner.skip_value("the file")?,
        }
    }
    if let (0, Some(at)) = (listed, announce_at) {
        scanner.seek(at);
        if let Ok(address) = scanner.short_string("announce") {
            visit(0, address);
        }
    }
    Ok(())
}

fn read_list<S: Source>(
    scanner: &mut Scanner<'_, S>,
    visit: &mut impl FnMut(u8, &[u8]),
) -> Result<usize, MetainfoError<S::Error>> {
    let (mut listed, mut tier) = (0, 0u8);
    scanner.expect_list("announce-list")?;
    while scanner.next_item()?.is_some() {
        scanner.expect_list("announce-list")?;
        while let Some(at) = scanner.next_item()? {
            match scanner.short_string("announce-list") {
                Ok(address) if listed < TRACKERS_MAX => {
                    visit(tier, address);
                    listed += 1;
                }
                Ok(_) => {}
                Err(MetainfoError::Read(error)) => return Err(MetainfoError::Read(error)),
                Err(_) => {
                    scanner.seek(at);
                    scanner.skip_value("announce-list")?;
                }
            }
        }
        tier = tier.saturating_add(1);
    }
    Ok(listed)
}

/// Trackers of one torrent that are looked at.
pub const TRACKERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn trackers(file: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut visit = |tier: u8, address: &[u8]| {
            all.push(std::format!("{tier} {}", String::from_utf8_lossy(address)));
        };
        let read = read(&mut file.as_bytes(), &mut [0; 512], &mut visit);
        read.map_err(|error| error.to_string()).unwrap();
        all
    }

    #[test]
    fn a_list_counts_before_the_single_tracker() {
        let file = "d8:announce1:x13:announce-listll1:a1:beli7e1:cee4:infode1:z1:ze";
        assert_eq!(trackers(file), ["0 a", "0 b", "1 c"]);
        assert_eq!(trackers("d8:announce1:x13:announce-listle4:infodee"), ["0 x"]);
        assert_eq!(trackers("d4:infodee"), [""; 0]);
        let many = "1:t".repeat(40);
        assert_eq!(trackers(&std::format!("d13:announce-listll{many}eee")).len(), TRACKERS_MAX);
    }
}
