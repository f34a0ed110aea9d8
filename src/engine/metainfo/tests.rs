//! Metainfo written by [`author`], read back, and everything that must be refused.

use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

impl super::super::bencode::Sink for Vec<u8> {
    type Error = core::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A folder `tree` of these files, with hashes of nothing.
fn written(files: &[(&str, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    let total_bytes = files.iter().map(|(_, length)| length).sum();
    let layout = Layout { total_bytes, piece_bytes: 16_384 };
    author::write_head(&mut out, ["http://a/announce", "udp://b:1"].into_iter()).unwrap();
    author::open_info(&mut out, None).unwrap();
    for (path, length) in files {
        author::write_file(&mut out, *length, path).unwrap();
    }
    author::write_pieces_head(&mut out, "tree", &layout, true).unwrap();
    out.resize(out.len() + 20 * layout.piece_count() as usize, b'#');
    author::write_tail(&mut out).unwrap();
    out
}

fn read(bytes: &[u8]) -> Result<Summary, String> {
    Summary::read(&mut &bytes[..], &mut [0; 300]).map_err(|error| error.to_string())
}

#[test]
fn what_is_authored_is_read_back() {
    let files = [("a/ä ö.txt", 16_385), ("b", 0), ("z/y/x", 40_000)];
    let bytes = written(&files);
    let summary = read(&bytes).unwrap();
    assert_eq!(summary.name, "tree");
    assert_eq!(summary.layout, Layout { total_bytes: 56_385, piece_bytes: 16_384 });
    assert_eq!((summary.file_count, summary.private), (3, false));
    assert_eq!(&bytes[summary.pieces.at as usize..][..20], [b'#'; 20]);
    assert_eq!(bytes[summary.info.at as usize], b'd');
    assert_eq!(&bytes[summary.info.end() as usize..], b"e");

    let (mut source, mut window, mut start) = (&bytes[..], [0; 300], 0);
    let mut walk = summary.files(&mut source, &mut window);
    for (path, length) in files {
        let entry = walk.next_file().unwrap().unwrap();
        assert_eq!((entry.start, entry.length), (start, length));
        let mut room = [0; PATH_BYTES_MAX];
        assert_eq!(
            read_path(&mut &bytes[..], summary.info.at + entry.path_at, &mut room).unwrap(),
            path
        );
        start += length;
    }
    assert_eq!(walk.next_file().unwrap(), None);
}

#[test]
fn a_window_of_any_size_reads_the_same() {
    let files: Vec<(String, u64)> = (0..200).map(|n| (std::format!("d{n}/f"), n * 77)).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|(path, n)| (path.as_str(), *n)).collect();
    let bytes = written(&files);
    let whole = Summary::read(&mut &bytes[..], &mut [0; 65_536]).unwrap();
    let whole_any = Summary::read_any_names(&mut &bytes[..], &mut [0; 65_536]).unwrap();
    for window in [279, 280, 333, 1_000] {
        let mut window = std::vec![0; window];
        assert_eq!(Summary::read(&mut &bytes[..], &mut window).unwrap(), whole);
        assert_eq!(Summary::read_any_names(&mut &bytes[..], &mut window).unwrap(), whole_any);
    }
}

#[test]
fn a_cut_file_is_refused_at_every_byte() {
    let bytes = written(&[("a", 20_000), ("b/c", 3)]);
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "{end}");
    }
    assert!(read(&[&bytes[..], b"\n"].concat()).is_ok());
    assert!(read(&[&bytes[..], b"e"].concat()).unwrap_err().contains("goes on after its end"));
}

#[test]
fn what_lies_is_refused_with_its_place() {
    let hashes = "#".repeat(20);
    let info = |inner: &str| std::format!("d4:infod{inner}ee");
    let single = |length: &str, name: &str, piece: &str| {
        info(&std::format!("6:length{length}4:name{name}12:piece length{piece}6:pieces20:{hashes}"))
    };
    assert!(read(single("i5e", "1:a", "i16384e").as_bytes()).is_ok());
    let wrong = [
        (single("i0e", "1:a", "i16384e"), "there is nothing to serve"),
        (single("i-5e", "1:a", "i16384e"), "is negative"),
        (single("1:5", "1:a", "i16384e"), "is not an integer"),
        (single("i5e", "2:..", "i16384e"), "leads elsewhere"),
        (single("i5e", "3:a/b", "i16384e"), "separator"),
        (single("i5e", "0:", "i16384e"), "empty name"),
        (single("i5e", "1:a", "i0e"), "between 16 KiB"),
        (single("i5e", "1:a", "i999999999999e"), "between 16 KiB"),
        (single("i20000e", "1:a", "i16384e"), "20 bytes for each piece"),
        (single("i9223372036854775807e", "1:a", "i16384e"), "larger than 2^62"),
        (info("4:name1:a"), "`pieces`: is missing"),
        (info(&std::format!("4:name1:a12:piece lengthi16384e6:pieces20:{hashes}")), "is missing"),
        ("d3:fooi1ee".to_string(), "not a .torrent"),
        ("hello".to_string(), "byte 0, `the file`"),
        (std::format!("d1:a{}{}e", "l".repeat(99), "e".repeat(99)), "nested too deeply"),
        (info("5:filesld6:lengthi1e4:pathl2:..eee"), "leads elsewhere"),
        (info("5:filesld6:lengthi1e4:pathleee"), "is empty"),
        (info("5:filesld6:lengthi1eee"), "missing from a file"),
    ];
    for (bytes, message) in wrong {
        let error = read(bytes.as_bytes()).unwrap_err();
        assert!(error.contains(message), "{bytes}: {error}");
    }
}
