//! Journal and metainfo work in the memory they are lent.

use perennial::engine::bencode::Sink;
use perennial::engine::journal::Journal;
use perennial::engine::limits::PATH_BYTES_MAX;
use perennial::engine::metainfo::{self, Layout, Summary, author};

use crate::count_alloc::allocations_of;
use crate::mock_flash::MockFlash;

type Flash = MockFlash<4, 4096>;

#[test]
fn the_journal_commits_compacts_and_replays_without_allocating() {
    let mut flash = Flash::new(16 << 10);
    let mut buffer = [0; 512];
    let (count, replayed) = allocations_of(|| {
        let mut compactions = 0;
        let (mut journal, replay) =
            Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("an erased flash");
        assert!(replay.fresh);
        for number in 0..280u32 {
            journal.push(&number.to_be_bytes()).expect("an empty batch");
            journal.push(&[7; 100]).expect("room in the batch");
            journal.commit().expect("room in the half");
            if journal.needs_compaction() {
                let mut compaction = journal.begin_compaction().expect("no faults");
                compaction.push(&number.to_be_bytes()).expect("room in the half");
                compaction.finish().expect("no faults");
                compactions += 1;
            }
        }
        let mut records = 0;
        Journal::open(&mut flash, &mut buffer, &mut |_| records += 1).expect("a whole journal");
        (compactions, records)
    });
    assert!(replayed.0 >= 3 && replayed.1 > 1, "{replayed:?}");
    assert_eq!(count, 0);
}

/// Bytes in an array.
struct Paper {
    bytes: [u8; 8 << 10],
    length: usize,
}

impl Sink for Paper {
    type Error = core::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
        Ok(())
    }
}

fn write_metainfo(paper: &mut Paper) -> Result<(), core::convert::Infallible> {
    let layout = Layout { total_bytes: 1_000_001, piece_bytes: 16 << 10 };
    author::write_head(paper, ["http://a.example/announce", "udp://b.example:1"].into_iter())?;
    author::open_info(paper, None)?;
    author::write_file(paper, 1_000_000, "films/first one.mkv")?;
    author::write_file(paper, 0, "films/empty")?;
    author::write_file(paper, 1, "films/a/b/c")?;
    author::write_pieces_head(paper, "share", &layout, true)?;
    for piece in 0..layout.piece_count() {
        paper.put(&[piece as u8; 20])?;
    }
    author::write_tail(paper)
}

#[test]
fn metainfo_is_written_and_read_without_allocating() {
    let mut paper = Paper { bytes: [0; 8 << 10], length: 0 };
    let mut window = [0; 1_024];
    let mut path = [0; PATH_BYTES_MAX];
    let (count, ()) = allocations_of(|| {
        write_metainfo(&mut paper).expect("an array takes it");
        let mut source = &paper.bytes[..paper.length];
        let summary = Summary::read(&mut source, &mut window).expect("our own work");
        assert_eq!((summary.file_count, summary.layout.total_bytes), (3, 1_000_001));
        let mut again = source;
        let mut files = summary.files(&mut again, &mut window);
        let mut last = None;
        while let Some(file) = files.next_file().expect("it has been read before") {
            last = Some(file);
        }
        let last = last.expect("three files");
        let at = summary.info.at + last.path_at;
        let path = metainfo::read_path(&mut source, at, &mut path).expect("a path");
        assert_eq!((path, last.start), ("films/a/b/c", 1_000_000));
    });
    assert_eq!(count, 0);
}
