//! What the catalogue answers and costs. Power cuts are in `tests/powerfail`.

use super::super::shelf::memory::Memory;
use super::super::slots::PAGE_SLOTS;
use super::*;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

/// A shelf, or the journal's flash, that the test can look at while it is used.
#[derive(Clone, Debug, Default)]
struct Shared(Rc<RefCell<Memory>>);

impl Shared {
    fn look(&self) -> RefMut<'_, Memory> {
        self.0.borrow_mut()
    }
}

impl Shelf for Shared {
    type Error = ::core::convert::Infallible;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error> {
        self.look().read_at(at, into)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.look().write_at(at, bytes)
    }

    fn clear(&mut self) -> Result<(), Self::Error> {
        self.look().clear()
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.look().sync()
    }

    fn length(&mut self) -> Result<u64, Self::Error> {
        self.look().length()
    }
}

impl ErrorType for Shared {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Shared {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        self.look().read_at(offset.into(), bytes).expect("memory does not fail");
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.look().bytes.len()
    }
}

impl NorFlash for Shared {
    const WRITE_SIZE: usize = 512;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        self.look().bytes[from as usize..to as usize].fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        self.look().write_at(offset.into(), bytes).expect("memory does not fail");
        Ok(())
    }
}

impl Durable for Shared {
    fn sync(&mut self) -> Result<(), NorFlashErrorKind> {
        self.look().syncs += 1;
        Ok(())
    }
}

/// Everything a box keeps.
struct Disk {
    journal: Shared,
    slots: Shared,
    staging: Shared,
    lookup: Shared,
    torrents_max: u32,
}

/// The memory lent for a test.
struct Memories {
    journal: [u8; 2048],
    overlay: Vec<Option<Change>>,
    pages: Vec<u8>,
}

type TestCatalog<'m> = Catalog<'m, Shared, Shared>;

impl Disk {
    fn new(torrents_max: u32) -> Disk {
        let journal = Shared::default();
        journal.look().bytes = std::vec![0xFF; 64 << 10];
        let [slots, staging, lookup] = [(); 3].map(|()| Shared::default());
        Disk { journal, slots, staging, lookup, torrents_max }
    }

    fn try_open<'m>(
        &self,
        memory: &'m mut Memories,
        lost: &mut Vec<u32>,
    ) -> Result<(TestCatalog<'m>, Opened), Failure<Shared, Shared>> {
        let shelves = Shelves {
            slots: self.slots.clone(),
            staging: self.staging.clone(),
            lookup: self.lookup.clone(),
        };
        let lent = Lent {
            journal: &mut memory.journal,
            overlay: &mut memory.overlay,
            pages: &mut memory.pages,
        };
        let mut visit = |damaged: Damaged<'_>| lost.push(damaged.slot);
        Catalog::open(self.journal.clone(), shelves, lent, self.torrents_max, &mut visit)
    }

    fn open<'m>(&self, memory: &'m mut Memories) -> TestCatalog<'m> {
        self.try_open(memory, &mut Vec::new()).expect("it opens").0
    }

    fn reads(&self) -> [u32; 4] {
        self.all().map(|shelf| shelf.look().reads)
    }

    fn writes(&self) -> [u32; 4] {
        self.all().map(|shelf| shelf.look().writes)
    }

    fn syncs(&self) -> [u32; 4] {
        self.all().map(|shelf| shelf.look().syncs)
    }

    fn all(&self) -> [&Shared; 4] {
        [&self.journal, &self.slots, &self.staging, &self.lookup]
    }
}

fn memory(changes: usize) -> Memories {
    let (overlay, pages) = (std::vec![None; changes], std::vec![0; 4 * PAGE_BYTES]);
    Memories { journal: [0; 2048], overlay, pages }
}

fn name(number: u32) -> InfoHash {
    InfoHash::V2(super::super::super::digest::sha256(&number.to_le_bytes()))
}

fn placed(number: u32) -> Record {
    Record::Placed {
        info_hash: name(number),
        root_key: super::super::root_key(&number.to_be_bytes()),
        facts_crc: number,
        fetching: false,
        added_s: 1_700_000_000 + u64::from(number),
        volume: u64::MAX,
    }
}

fn forgotten(number: u32) -> Record {
    Record::Forgotten { info_hash: name(number) }
}

fn walk(catalog: &mut TestCatalog<'_>) -> BTreeMap<u32, u32> {
    let (mut found, mut last) = (BTreeMap::new(), None);
    while let Some((slot, entry)) = catalog.next(last).unwrap() {
        assert!(found.insert(entry.facts_crc, slot).is_none(), "{entry:?} twice");
        last = Some(slot);
    }
    found
}

#[test]
fn a_record_is_one_write_and_one_sync_and_nothing_new_is_none() {
    let (disk, mut memory) = (Disk::new(100), memory(8));
    let mut catalog = disk.open(&mut memory);
    catalog.record(placed(1)).unwrap();
    let (info_hash, bytes) = (name(1), 7);
    let steps = [
        (Record::Sent { info_hash, bytes }, 1),
        (Record::Sent { info_hash, bytes }, 0),
        (Record::Paused { info_hash, paused: true }, 1),
        (placed(1), 0),
        (forgotten(1), 1),
        (forgotten(1), 0),
        (Record::Sent { info_hash, bytes }, 0),
        (Record::Continues { log: 9 }, 0),
        (placed(1), 1),
        (placed(2), 1),
    ];
    for (record, cost) in steps {
        let before = (disk.writes(), disk.syncs());
        catalog.record(record).unwrap();
        let counts = |now: [u32; 4], before: [u32; 4]| [0, 1, 2, 3].map(|i| now[i] - before[i]);
        let spent = (counts(disk.writes(), before.0), counts(disk.syncs(), before.1));
        assert_eq!(spent, ([cost, 0, 0, 0], [cost, 0, 0, 0]), "{record:?}");
    }
    assert_eq!(catalog.count(), 2);
    assert!(!catalog.get(&name(1)).unwrap().unwrap().paused, "it came anew");
}

#[test]
fn many_records_share_writes_and_syncs_and_each_builds_on_those_before() {
    let (disk, mut memory) = (Disk::new(100), memory(64));
    let mut catalog = disk.open(&mut memory);
    let before = (disk.writes(), disk.syncs());
    let many: Vec<Record> = (0..60).map(placed).collect();
    catalog.record_all(&many).unwrap();
    let spent = (disk.writes()[0] - before.0[0], disk.syncs()[0] - before.1[0]);
    assert!(spent.0 == spent.1 && spent.0 <= 4, "{spent:?}");
    assert!(walk(&mut catalog).into_keys().eq(0..60));
    let sent = |bytes| Record::Sent { info_hash: name(1), bytes };
    catalog.record_all(&[sent(1), forgotten(1), placed(1), sent(2), sent(3)]).unwrap();
    assert_eq!(catalog.get(&name(1)).unwrap().unwrap().sent_bytes, 3);
    let many: Vec<Record> = (60..120).map(placed).collect();
    assert!(matches!(catalog.record_all(&many), Err(CatalogError::Full { torrents_max: 100 })));
    assert_eq!(catalog.count(), 100, "as many as there are places for");
    drop(catalog);
    let mut catalog = disk.open(&mut memory);
    assert!(walk(&mut catalog).into_keys().eq(0..100));
    assert_eq!(catalog.get(&name(1)).unwrap().unwrap().sent_bytes, 3);
}

#[test]
fn opening_reads_headers_and_an_idle_box_writes_nothing() {
    let (disk, mut memory) = (Disk::new(1_000), memory(64));
    let mut catalog = disk.open(&mut memory);
    (0..300).for_each(|number| catalog.record(placed(number)).unwrap());
    catalog.checkpoint().unwrap();
    drop(catalog);
    let before = (disk.reads(), disk.writes());
    let (mut catalog, opened) = disk.try_open(&mut memory, &mut Vec::new()).unwrap();
    assert_eq!(opened.replay.records, 1, "all but the beginning is in the slots");
    assert_eq!(opened, Opened { replay: opened.replay, ..Opened::default() });
    let reads = [1, 2, 3].map(|shelf| disk.reads()[shelf] - before.0[shelf]);
    assert_eq!(reads, [1; 3]);
    catalog.checkpoint().unwrap();
    assert_eq!(disk.writes(), before.1);
    assert!(walk(&mut catalog).into_keys().eq(0..300));
}

#[test]
fn a_hundred_thousand_are_found_in_two_reads_and_filled_again_in_one_reading() {
    let torrents = 100_000;
    let (disk, mut memory) = (Disk::new(torrents), memory(256));
    let mut catalog = disk.open(&mut memory);
    (0..torrents).for_each(|number| catalog.record(placed(number)).unwrap());
    assert!(matches!(catalog.record(placed(torrents)), Err(CatalogError::Full { .. })));
    catalog.checkpoint().unwrap();
    drop(catalog);

    disk.lookup.look().bytes.clear();
    disk.slots.look().reads = 0;
    disk.slots.look().read_bytes = 0;
    let mut catalog = disk.open(&mut memory);
    let bytes = disk.slots.look().bytes.len() as u64;
    let reads = disk.slots.look().reads;
    let read_bytes = disk.slots.look().read_bytes;
    assert!(read_bytes <= bytes && reads <= torrents / PAGE_SLOTS / 4 + 2, "{reads} reads");

    disk.all().into_iter().for_each(|shelf| shelf.look().reads = 0);
    let mut most = 0;
    for number in 0..torrents {
        let before: u32 = disk.reads().iter().sum();
        let entry = catalog.get(&name(number)).unwrap().expect("it is there");
        assert_eq!(entry.facts_crc, number);
        most = most.max(disk.reads().iter().sum::<u32>() - before);
    }
    let [_, slots, _, lookup] = disk.reads();
    std::println!("{slots} and {lookup} reads, at most {most} for one; {bytes} bytes of slots");
    assert!(slots + lookup <= 2 * torrents + torrents / 100 && most <= 4);
    for number in torrents..torrents + 1_000 {
        assert_eq!(catalog.get(&name(number)), Ok(None));
    }
    assert!(disk.reads()[1] <= slots + 30, "who is not there is not looked for in the slots");

    disk.slots.look().reads = 0;
    assert!(walk(&mut catalog).into_keys().eq(0..torrents));
    assert!(disk.slots.look().reads <= torrents / PAGE_SLOTS / 4 + 2);
    let mut found = Vec::new();
    let root_key = super::super::root_key(&77_u32.to_be_bytes());
    catalog.under(root_key, &mut |entry| found.push(entry.facts_crc)).unwrap();
    assert_eq!(found, [77]);
}

#[test]
fn slots_of_the_gone_are_given_to_those_who_come() {
    let (disk, mut memory) = (Disk::new(100), memory(16));
    let mut catalog = disk.open(&mut memory);
    for round in 0..50 {
        (0..40).for_each(|number| catalog.record(placed(round * 40 + number)).unwrap());
        (0..40).for_each(|number| catalog.record(forgotten(round * 40 + number)).unwrap());
    }
    assert_eq!((catalog.count(), walk(&mut catalog).len()), (0, 0));
    catalog.checkpoint().unwrap();
    drop(catalog);
    let slots = disk.slots.look().bytes.len() / SLOT_BYTES - PAGE_SLOTS as usize;
    assert!(slots <= 64, "{slots} slots for 40 torrents");
    let mut catalog = disk.open(&mut memory);
    (0..100).for_each(|number| catalog.record(placed(number)).unwrap());
    let Err(CatalogError::Full { torrents_max: 100 }) = catalog.record(placed(100)) else {
        panic!("it is full");
    };
    catalog.record(forgotten(5)).unwrap();
    catalog.record(placed(100)).unwrap();
    assert!(walk(&mut catalog).into_keys().eq((0..101).filter(|number| *number != 5)));
}

#[test]
fn one_that_moves_is_found_where_it_is_and_not_where_it_was() {
    let (disk, mut memory) = (Disk::new(100), memory(16));
    let mut catalog = disk.open(&mut memory);
    let info_hash = name(1);
    let admitted = |root_key| Record::Admitted { info_hash, root_key, facts_crc: 1 };
    for root_key in [5, 6, 5] {
        catalog.record(admitted(root_key)).unwrap();
        catalog.record(Record::Sent { info_hash, bytes: root_key }).unwrap();
        for checkpoints in 0..2 {
            for place in 5..7 {
                let mut found = Vec::new();
                catalog.under(place, &mut |entry| found.push(entry.sent_bytes)).unwrap();
                let wanted: &[u64] = if place == root_key { &[root_key] } else { &[] };
                assert_eq!(found, wanted, "{root_key}, {checkpoints}");
            }
            catalog.checkpoint().unwrap();
        }
    }
}

#[test]
fn a_journal_with_more_than_the_overlay_holds_goes_into_the_slots() {
    let disk = Disk::new(1_000);
    let mut buffer = [0; 2048];
    let (mut journal, _) =
        Journal::open(disk.journal.clone(), &mut buffer, &mut |_| {}).expect("an erased flash");
    for number in 0..60 {
        let records = [placed(number), Record::Sent { info_hash: name(number), bytes: 9 }];
        for record in records.iter().chain((number % 3 == 0).then_some(&forgotten(number / 2))) {
            journal.push(record.write(&mut [0; RECORD_BYTES_MAX])).unwrap();
        }
        journal.commit().unwrap();
    }
    drop(journal);
    // As an older release left it.
    let mut look = disk.journal.look();
    look.bytes[8] = 1;
    let crc = crc32fast::hash(&look.bytes[..28]).to_le_bytes();
    look.bytes[28..32].copy_from_slice(&crc);
    drop(look);
    let gone = |number: &u32| *number < 30 && number % 3 != 2;
    let kept: Vec<u32> = (0..60).filter(|number| !gone(number)).collect();
    for changes in [7, 7, 100] {
        let mut memory = memory(changes);
        let writes = disk.journal.look().writes;
        let mut catalog = disk.open(&mut memory);
        assert_eq!(disk.journal.look().writes, writes, "the journal stays as it is");
        assert!(walk(&mut catalog).into_keys().eq(kept.iter().copied()), "{changes}");
        assert_eq!(catalog.count() as usize, kept.len());
        assert_eq!(catalog.get(&name(59)).unwrap().unwrap().sent_bytes, 9);
    }
    let mut memory = memory(7);
    let mut catalog = disk.open(&mut memory);
    assert!(catalog.checkpoint_due());
    catalog.record(placed(1)).unwrap();
    drop(catalog);
    assert_eq!(disk.journal.look().bytes[(32 << 10) + 8], 2, "a journal of this release");
    let mut catalog = disk.open(&mut memory);
    assert_eq!(catalog.count() as usize, kept.len() + 1);
    assert_eq!(catalog.get(&name(1)).unwrap().unwrap().sent_bytes, 0);
}

#[test]
fn a_damaged_slot_costs_its_torrent_and_no_other() {
    let (disk, mut memory) = (Disk::new(1_000), memory(64));
    let mut catalog = disk.open(&mut memory);
    (0..100).for_each(|number| catalog.record(placed(number)).unwrap());
    (90..100).for_each(|number| catalog.record(forgotten(number)).unwrap());
    catalog.checkpoint().unwrap();
    let slot = walk(&mut catalog)[&50];
    let at = PAGE_BYTES + slot as usize * SLOT_BYTES;
    disk.slots.look().bytes[at + 60] ^= 4;
    drop(catalog);
    let mut lost = Vec::new();
    let mut catalog = disk.try_open(&mut memory, &mut lost).unwrap().0;
    assert!(lost.is_empty() && !catalog.is_damaged(), "nobody has looked");
    assert_eq!(catalog.get(&name(50)), Ok(None));
    assert!(catalog.is_damaged());
    assert_eq!(walk(&mut catalog).len(), 89);
    assert_eq!(catalog.mend(&mut |damaged| lost.push(damaged.slot)), Ok(1));
    assert_eq!(lost, [slot]);
    assert_eq!((catalog.count(), catalog.is_damaged()), (89, false));
    (90..101).for_each(|number| catalog.record(placed(number)).unwrap());
    catalog.checkpoint().unwrap();
    assert!(walk(&mut catalog).into_keys().eq((0..101).filter(|number| *number != 50)));
    assert_eq!(disk.slots.look().bytes.len(), PAGE_BYTES * 5, "all slots were given out again");
    assert!(!catalog.is_damaged());
}

#[test]
fn a_damaged_header_is_made_again_from_the_slots_and_the_damaged_are_shown() {
    let (disk, mut memory) = (Disk::new(1_000), memory(64));
    let mut catalog = disk.open(&mut memory);
    (0..100).for_each(|number| catalog.record(placed(number)).unwrap());
    catalog.checkpoint().unwrap();
    catalog.record(forgotten(7)).unwrap();
    drop(catalog);
    disk.slots.look().bytes[..2 * PAGE_BYTES].fill(0x5A);
    let mut lost = Vec::new();
    let (mut catalog, opened) = disk.try_open(&mut memory, &mut lost).unwrap();
    assert!(opened.is_header_lost && opened.is_refilled);
    assert!((opened.damaged_slots, lost.len()) == (32, 32));
    let kept = walk(&mut catalog);
    assert_eq!((kept.len(), catalog.count()), (68, 68));
    (0..100).for_each(|number| catalog.record(placed(number)).unwrap());
    drop(catalog);
    let (mut catalog, opened) = disk.try_open(&mut memory, &mut lost).unwrap();
    assert!(!opened.is_header_lost && lost.len() == 32);
    assert!(walk(&mut catalog).into_keys().eq(0..100));
}

#[test]
fn a_damaged_look_up_is_filled_again_when_it_is_asked() {
    let (disk, mut memory) = (Disk::new(100), memory(64));
    let mut catalog = disk.open(&mut memory);
    (0..100).for_each(|number| catalog.record(placed(number)).unwrap());
    catalog.checkpoint().unwrap();
    catalog.record(forgotten(3)).unwrap();
    catalog.record(placed(3)).unwrap();
    disk.lookup.look().bytes[4096..].fill(0x5A);
    for number in (0..100).rev() {
        assert_eq!(catalog.get(&name(number)).unwrap().map(|e| e.facts_crc), Some(number));
    }
    disk.lookup.look().bytes[4096..].fill(0x5A);
    let root_key = super::super::root_key(&9_u32.to_be_bytes());
    let mut found = Vec::new();
    catalog.under(root_key, &mut |entry| found.push(entry.facts_crc)).unwrap();
    assert_eq!(found, [9]);
}

#[test]
fn what_is_not_ours_or_newer_is_refused_and_left_alone() {
    let (disk, mut memory) = (Disk::new(100), memory(64));
    let mut catalog = disk.open(&mut memory);
    catalog.record(placed(1)).unwrap();
    catalog.checkpoint().unwrap();
    drop(catalog);
    let ours = disk.slots.look().bytes.clone();
    let mut newer = ours.clone();
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..44]).to_le_bytes();
    newer[44..48].copy_from_slice(&crc);
    let foreign = std::vec![b'x'; 10_000];
    let refusals = [
        (newer, ShelfError::NewerVersion { shelf: Which::Slots, found: 2 }),
        (foreign, ShelfError::NotOurs { shelf: Which::Slots }),
    ];
    for (bytes, refusal) in refusals {
        disk.slots.look().bytes = bytes.clone();
        let opened = disk.try_open(&mut memory, &mut Vec::new());
        assert_eq!(opened.err(), Some(CatalogError::Shelf(refusal)));
        assert_eq!(disk.slots.look().bytes, bytes);
    }
    disk.slots.look().bytes = ours;
    assert_eq!(disk.open(&mut memory).count(), 1);
}

#[test]
fn a_journal_that_was_taken_away_begins_anew_behind_the_slots() {
    let (disk, mut memory) = (Disk::new(100), memory(64));
    let mut catalog = disk.open(&mut memory);
    catalog.record(placed(1)).unwrap();
    catalog.checkpoint().unwrap();
    drop(catalog);
    disk.journal.look().bytes.fill(0xFF);
    let (mut catalog, opened) = disk.try_open(&mut memory, &mut Vec::new()).unwrap();
    assert!(opened.is_log_spent && opened.replay.fresh);
    catalog.record(placed(2)).unwrap();
    drop(catalog);
    let (mut catalog, opened) = disk.try_open(&mut memory, &mut Vec::new()).unwrap();
    assert!(!opened.is_log_spent);
    assert!(walk(&mut catalog).into_keys().eq(1..3));
}
