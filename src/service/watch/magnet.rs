//! A `.magnet` file: one magnet link as text.

use super::super::refusal::Refusal;
use super::super::walk::unreadable;
use crate::engine::limits::MAGNET_BYTES_MAX;
use crate::engine::magnet::Magnet;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::string::{String, ToString};

/// Reads the link in the file at `path`, checked, without what stands around it.
///
/// # Work
/// One read of the longest link there may be, and of a byte more; never from what is not a file.
pub fn read_magnet(path: &Path) -> Result<String, Refusal> {
    let trouble = |error: std::io::Error| unreadable(path, error);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| trouble(e.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| trouble(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::new(path.display(), "is not a file", "put the link in a text file"));
    }
    let mut bytes = std::vec::Vec::with_capacity(MAGNET_BYTES_MAX + 1);
    let mut file = File::from(file).take(MAGNET_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(trouble)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(Refusal::new(path.display(), "is not text", ONE_LINK));
    };
    let link = text.trim_start_matches('\u{feff}').trim();
    if link.contains(['\n', '\r']) {
        return Err(Refusal::new(path.display(), "holds more than one line", ONE_LINK));
    }
    match Magnet::parse(link) {
        Ok(_) => Ok(link.to_string()),
        Err(error) => Err(Refusal::new(path.display(), error, ONE_LINK)),
    }
}

const ONE_LINK: &str = "put one magnet link in it, as text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magnet_file_holds_one_link_and_nothing_else() {
        let path = std::env::temp_dir().join(std::format!("link-{}.magnet", std::process::id()));
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_magnet(&path).map_err(|refusal| refusal.to_string())
        };
        let link = "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a&dn=a+film";
        assert_eq!(read(std::format!("\u{feff}\r\n {link}\r\n").as_bytes()).as_deref(), Ok(link));
        for (bytes, why) in [
            (std::format!("{link}\n{link}").into_bytes(), "more than one line"),
            (b"\xff\xfe".to_vec(), "is not text"),
            (b"".to_vec(), "does not begin"),
            (std::vec![b'a'; 100_000], "longer than 8 KiB"),
        ] {
            let refusal = read(&bytes).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read_magnet(&path).unwrap_err().to_string().contains("check the spelling"));
        assert!(
            read_magnet(Path::new("/dev/null")).unwrap_err().to_string().contains("not a file")
        );
    }
}
