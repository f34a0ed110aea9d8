//! What the journal promises besides surviving a cut: refusals, limits, failures, counts.

use perennial::engine::journal::{
    FORMAT_VERSION, FORMAT_VERSION_OLDEST, Full, Journal, JournalError, Operation, Replay, Wear,
};

use crate::mock_flash::{Faults, MockError, MockFlash, Step, Tape};
use crate::model;

type Flash = MockFlash<4, 4096>;

const CAPACITY: usize = 16 << 10;
const HALF: usize = CAPACITY / 2;

#[test]
fn erased_flash_is_formatted_once() {
    let mut flash = Flash::new(CAPACITY);
    assert_eq!(replay(&mut flash), Ok((Replay { fresh: true, ..Replay::default() }, vec![])));
    assert_eq!(replay(&mut flash), Ok((Replay::default(), vec![])));
}

#[test]
fn records_come_back_in_the_order_they_were_pushed() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"one", b"two"], &[b"three"], &[b""]]);
    let (found, records) = replay(&mut flash).expect("a whole journal");
    assert_eq!(found, Replay { commits: 3, records: 4, ..Replay::default() });
    assert_eq!(records, [&b"one"[..], b"two", b"three", b""]);
}

#[test]
fn foreign_bytes_are_refused_and_left_alone() {
    for at in [4096, HALF, CAPACITY - 1] {
        let mut flash = Flash::new(CAPACITY);
        flash.bytes[at] = 0;
        let before = flash.bytes.clone();
        assert_eq!(replay(&mut flash), Err(JournalError::NotAJournal));
        assert!(flash.bytes == before, "byte {at}");
    }
}

#[test]
fn what_a_cut_while_formatting_leaves_is_formatted_again() {
    for torn in [0..4, 0..31, 0..4096] {
        let mut flash = Flash::new(CAPACITY);
        flash.bytes[torn].fill(0x5A);
        let (found, _) = replay(&mut flash).expect("nothing else is on it");
        assert!(found.fresh);
        commit(&mut flash, &[&[b"kept"]]);
        assert_eq!(replay(&mut flash).expect("a whole journal").1, [b"kept"]);
    }
}

#[test]
fn journals_of_other_releases_are_refused_and_left_alone() {
    let (newer, oldest) = (FORMAT_VERSION + 1, FORMAT_VERSION_OLDEST);
    let refusals = [
        (newer, JournalError::NewerVersion { found: newer }),
        (oldest - 1, JournalError::OlderVersion { found: oldest - 1 }),
    ];
    for (version, refusal) in refusals {
        let mut flash = Flash::new(CAPACITY);
        commit(&mut flash, &[&[b"precious"]]);
        set_header(&mut flash, 8, version);
        let before = flash.bytes.clone();
        assert_eq!(replay(&mut flash), Err(refusal));
        assert!(flash.bytes == before);
    }
}

#[test]
fn journal_of_an_older_release_is_replayed_and_asks_to_become_one_of_this() {
    for version in FORMAT_VERSION_OLDEST..FORMAT_VERSION {
        let mut flash = Flash::new(CAPACITY);
        commit(&mut flash, &[&[b"precious"]]);
        set_header(&mut flash, 8, version);
        let before = flash.bytes.clone();
        assert_eq!(replay(&mut flash).expect("it is read").1, [b"precious"]);
        assert!(flash.bytes == before, "reading it changes nothing");
        let mut buffer = [0; 512];
        let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("read");
        assert!(journal.needs_compaction());
        journal.begin_compaction().and_then(|compaction| compaction.finish()).expect("no faults");
        assert!(!journal.needs_compaction());
        assert_eq!(flash.bytes[HALF + 8], FORMAT_VERSION as u8);
    }
}

#[test]
fn journal_of_another_shape_is_refused() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"precious"]]);
    let mut grown = flash.bytes.clone();
    grown.resize(2 * CAPACITY, 0xFF);
    let refusal = JournalError::OtherShape { write_bytes: 4, half_bytes: HALF as u32 };
    assert_eq!(replay(&mut Flash::from_bytes(grown)), Err(refusal));
    let mut coarse = MockFlash::<8, 4096>::from_bytes(flash.bytes);
    assert_eq!(model::refusal(&mut coarse, 512), Some(refusal));
}

#[test]
fn buffer_and_flash_have_a_least_size() {
    let mut flash = Flash::new(CAPACITY);
    let buffer = JournalError::BufferTooSmall { needed: 32 };
    assert_eq!(model::refusal(&mut flash, 31), Some(buffer));
    let flash_too = JournalError::FlashTooSmall { needed: 8192 };
    assert_eq!(model::refusal(&mut Flash::new(4096), 32), Some(flash_too));

    commit(&mut flash, &[&[b"in a half begun with 512 bytes"]]);
    let buffer = JournalError::BufferTooSmall { needed: 512 };
    assert_eq!(model::refusal(&mut flash, 511), Some(buffer));
}

#[test]
fn larger_buffer_counts_after_a_compaction() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"begun with 512 bytes"]]);
    let mut buffer = [0; 1024];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("larger");
    assert!(journal.needs_compaction());
    assert_eq!(journal.push(&[7; 600]), Err(Full));
    journal.begin_compaction().and_then(|compaction| compaction.finish()).expect("no faults");
    assert!(!journal.needs_compaction());
    assert_eq!(journal.push(&[7; 600]), Ok(()));
}

#[test]
fn record_of_the_longest_length_fits_and_a_discarded_one_leaves_no_trace() {
    let mut flash = Flash::new(CAPACITY);
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("erased");
    let longest = vec![9; journal.record_bytes_max() as usize];
    journal.push(b"dropped").expect("an empty batch");
    assert_eq!(journal.push(&longest), Err(Full));
    journal.discard();
    journal.push(&longest).expect("an empty batch");
    journal.commit().expect("room and no faults");
    assert_eq!(replay(&mut flash).expect("a whole journal").1, [longest]);
}

#[test]
fn opening_makes_durable_what_it_is_about_to_replay() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"in the cache of the system, perhaps"]]);
    let tape = Tape::default();
    flash.record(&tape);
    replay(&mut flash).expect("a whole journal");
    assert_eq!(*tape.borrow(), [Step::Sync]);
    flash.set_faults(Some(Faults::Run { after: 0, count: 1 }));
    let failed = JournalError::Flash { operation: Operation::Sync, offset: 0, cause: FAULT };
    assert_eq!(replay(&mut flash), Err(failed));
}

#[test]
fn empty_commit_and_reopening_write_nothing() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"one"]]);
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    journal.commit().expect("nothing to do");
    assert_eq!(journal.wear(), Wear::default());
    assert_eq!(journal.free_bytes() as usize, HALF - 2 * 32, "a header and a commit are gone");
    journal.push(b"two").expect("an empty batch");
    journal.commit().expect("room and no faults");
    assert_eq!(journal.wear(), Wear { written_bytes: 32, erased_bytes: 0 });
    assert_eq!(replay(&mut flash).expect("a whole journal").1, [b"one", b"two"]);
}

#[test]
fn full_journal_refuses_and_goes_on_with_what_it_has() {
    let mut flash = Flash::new(CAPACITY);
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("erased");
    let mut live = 0;
    while !journal.needs_compaction() {
        journal.push(&[live; 400]).expect("an empty batch");
        journal.commit().expect("it did not need compaction");
        live += 1;
    }
    // All of it is still true, and then some: nothing can be gained.
    let mut compaction = journal.begin_compaction().expect("no faults");
    let refused = (0..live + 2).find_map(|i| compaction.push(&[i; 400]).err());
    assert_eq!(refused, Some(JournalError::Full));
    drop(compaction);
    for _ in 0..2 {
        journal.push(&[99; 400]).expect("an empty batch");
        if journal.commit() == Err(JournalError::Full) {
            break;
        }
        live += 1;
    }
    assert!(replay(&mut flash).expect("a whole journal").1.len() == usize::from(live));
}

#[test]
fn commit_tried_again_is_replayed_once() {
    // The sync fails after everything was written: the first try is whole on the flash as well.
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"before"]]);
    flash.set_faults(Some(Faults::Run { after: 2, count: 1 }));
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    journal.push(b"doubtful").expect("an empty batch");
    let failed = JournalError::Flash { operation: Operation::Sync, offset: 0, cause: FAULT };
    assert_eq!(journal.commit(), Err(failed));
    assert_eq!(journal.push(b"late"), Err(Full), "a batch in doubt is as it is");
    journal.discard();
    journal.commit().expect("the fault has passed");
    journal.push(b"after").expect("an empty batch");
    journal.commit().expect("no faults");
    let (found, records) = replay(&mut flash).expect("a whole journal");
    assert_eq!(records, [&b"before"[..], b"doubtful", b"after"]);
    assert_eq!((found.commits, found.lost_commits, found.garbage_bytes), (3, 0, 32));
}

#[test]
fn commit_in_doubt_that_a_failed_compaction_dropped_lets_no_other_follow() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"before"]]);
    flash.set_faults(Some(Faults::Run { after: 2, count: 1 }));
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    journal.push(b"doubtful").expect("an empty batch");
    journal.commit().expect_err("the sync fails");
    drop(journal.begin_compaction().expect("no faults"));
    journal.push(b"after").expect("an empty batch");
    assert_eq!(journal.commit(), Err(JournalError::Full));
    assert!(journal.needs_compaction());
    journal.begin_compaction().and_then(|compaction| compaction.finish()).expect("no faults");
    assert_eq!(replay(&mut flash).expect("a whole journal").1.len(), 0);
}

#[test]
fn commits_after_a_compaction_that_failed_at_its_last_step_are_kept() {
    // The header of the other half is written, but nobody can say whether for good.
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"before"]]);
    let mut buffer = [0; 512];
    // Sync of opening, erase, write, sync, header; the sixth operation is the last sync.
    flash.set_faults(Some(Faults::Run { after: 5, count: 1 }));
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    let mut compaction = journal.begin_compaction().expect("no fault yet");
    compaction.push(b"before").expect("an empty batch");
    compaction.finish().expect_err("the last sync fails");
    journal.push(b"after").expect("an empty batch");
    journal.commit().expect("the fault has passed");
    assert_eq!(replay(&mut flash).expect("a whole journal").1, [&b"before"[..], b"after"]);
}

#[test]
fn torn_header_is_gone_for_good_before_anything_else_is_written() {
    // It does not count now; read another day it might.
    let mut torn = Flash::new(CAPACITY);
    commit(&mut torn, &[&[b"before"]]);
    torn.bytes[HALF..HALF + 32].fill(0x5A);
    for compact in [false, true] {
        let mut flash = torn.clone();
        let tape = Tape::default();
        flash.record(&tape);
        let mut buffer = [0; 512];
        let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
        if compact {
            journal.begin_compaction().expect("no faults");
        } else {
            journal.push(b"after").expect("an empty batch");
            journal.commit().expect("no faults");
        }
        let steps = tape.take();
        let erase = |at| Step::Erase { at: at as u32 };
        assert_eq!(steps[..2], [Step::Sync, erase(HALF)]);
        assert_eq!(steps[4096..4098], [erase(HALF + 4095), Step::Sync], "compact: {compact}");
    }
}

#[test]
fn commit_behind_failed_ones_is_found_though_nothing_of_them_got_through() {
    let record = [1; 480];
    for failures in 0..6 {
        let mut flash = Flash::new(CAPACITY);
        commit(&mut flash, &[&[b"before"]]);
        // The sync of opening goes well, the writes of so many commits do not.
        flash.set_faults(Some(Faults::Run { after: 1, count: failures }));
        let mut buffer = [0; 512];
        let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
        journal.push(&record).expect("an empty batch");
        let last = (0..=failures).map(|_| journal.commit()).last().expect("one commit at least");
        flash.set_faults(None);
        let first = 2 * 32;
        flash.bytes[first..first + 512 * failures as usize].fill(0xFF);
        let (_, records) = replay(&mut flash).expect("a whole journal");
        if failures < 4 {
            assert_eq!(last, Ok(()));
            assert_eq!(records, [&b"before"[..], &record], "{failures} failures");
        } else {
            assert_eq!(last, Err(JournalError::Full), "replay would not look so far");
            assert_eq!(records, [b"before"]);
        }
    }
}

#[test]
fn frame_of_an_earlier_half_does_not_count() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"old"], &[b"stale"]]);
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    let mut compaction = journal.begin_compaction().expect("no faults");
    compaction.push(b"new").expect("an empty batch");
    compaction.finish().expect("no faults");
    // The second commit of the first half, where the second one of the other will be.
    flash.bytes.copy_within(2 * 32..3 * 32, HALF + 2 * 32);
    let (found, records) = replay(&mut flash).expect("a whole journal");
    assert_eq!(records, [b"new"]);
    assert_eq!(found.garbage_bytes, 32);
}

#[test]
fn dropped_compaction_leaves_nothing_behind() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"before"]]);
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(&mut flash, &mut buffer, &mut |_| {}).expect("whole");
    let mut compaction = journal.begin_compaction().expect("no faults");
    compaction.push(b"gathered").expect("an empty batch");
    drop(compaction);
    journal.push(b"after").expect("an empty batch");
    journal.commit().expect("no faults");
    assert_eq!(replay(&mut flash).expect("a whole journal").1, [&b"before"[..], b"after"]);
}

#[test]
fn decayed_commit_is_missed_and_the_others_replayed() {
    let mut flash = Flash::new(CAPACITY);
    commit(&mut flash, &[&[b"one"], &[b"two"], &[b"three"]]);
    // A header of 32 bytes, then commits of 32: the second one's payload.
    flash.bytes[2 * 32 + 21] ^= 1;
    let (found, records) = replay(&mut flash).expect("a journal");
    assert_eq!(records, [&b"one"[..], b"three"]);
    assert_eq!((found.lost_commits, found.garbage_bytes), (1, 32));
}

const FAULT: MockError = MockError::Fault;

/// Opens the journal on `flash` and commits batches of records.
fn commit(flash: &mut Flash, batches: &[&[&[u8]]]) {
    let mut buffer = [0; 512];
    let (mut journal, _) = Journal::open(flash, &mut buffer, &mut |_| {}).expect("a journal");
    for batch in batches {
        batch.iter().for_each(|record| journal.push(record).expect("room in the batch"));
        journal.commit().expect("room in the journal");
    }
}

/// What opening finds, and the records.
fn replay(flash: &mut Flash) -> Result<(Replay, Vec<Vec<u8>>), JournalError<MockError>> {
    let mut records = Vec::new();
    let mut visit = |record: &[u8]| records.push(record.to_vec());
    let (_, found) = Journal::open(flash, &mut [0; 512], &mut visit)?;
    Ok((found, records))
}

/// Changes a field of the first half's header and makes its CRC right again.
fn set_header(flash: &mut Flash, at: usize, value: u32) {
    flash.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let crc = crc32fast::hash(&flash.bytes[..28]);
    flash.bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}
