//! Flash that holds anything: the journal may refuse it or make the best of it, but never panics.
//! The same of the library's files.

use perennial::engine::journal::Journal;

use crate::disk::{Disk, Image, LOOKUP, SLOTS, STAGING};
use crate::library::{self, Memory, State, Story};
use crate::mock_flash::MockFlash;
use crate::model::{self, Scenario};
use crate::prng::Prng;

const CAPACITY: usize = 16 << 10;
const HALF: usize = CAPACITY / 2;
const IMAGES: u64 = 30_000;
const LIBRARIES: u64 = 4_000;

#[test]
fn arbitrary_flash_never_panics() {
    let mut opened = 0;
    for seed in 0..IMAGES {
        let mut prng = Prng::new(seed);
        let mut bytes = vec![0xFF; CAPACITY];
        for _ in 0..prng.below(4) {
            let range = range(&mut prng);
            prng.fill(&mut bytes[range]);
        }
        if prng.one_in(2) {
            forge_header(&mut bytes, &mut prng);
        }
        opened += u64::from(survives(bytes, seed));
    }
    assert!(opened > IMAGES / 10, "{opened} of {IMAGES} images were taken for a journal");
}

#[test]
fn damaged_journal_never_panics() {
    let mut flash = MockFlash::<4, 4096>::new(CAPACITY);
    let mut scenario = Scenario { prng: Prng::new(7), actions: 100, restarts: true };
    scenario.run(&mut flash, &mut [0; 512], |_, _| {});
    let mut opened = 0;
    for seed in 0..IMAGES {
        let mut prng = Prng::new(seed);
        let mut bytes = flash.bytes.clone();
        for _ in 0..1 + prng.below(8) {
            damage(&mut bytes, &mut prng);
        }
        opened += u64::from(survives(bytes, seed));
    }
    assert!(opened > IMAGES / 10, "{opened} of {IMAGES} images were taken for a journal");
}

#[test]
fn damaged_library_never_panics_and_serves_what_is_left() {
    let image = used_library();
    let (mut opened, mut lost) = (0, 0);
    for seed in 0..LIBRARIES {
        let mut prng = Prng::new(seed);
        let mut image = image.clone();
        for _ in 0..1 + prng.below(4) {
            damage_file(&mut image, &mut prng);
        }
        let disk = Disk::new(image);
        let mut memory = Memory::new(6, 512);
        let mut visit = |_: perennial::engine::library::catalog::Damaged<'_>| lost += 1;
        let Ok((mut catalog, _)) = library::try_open::<512>(&disk, &mut memory, &mut visit) else {
            continue;
        };
        opened += 1;
        catalog.mend(&mut visit).expect("no faults");
        let mut story = Story::new(library::all_of(&mut catalog));
        for _ in 0..20 {
            library::act(&disk, &mut catalog, &mut story, &mut prng);
        }
        assert_eq!(&library::all_of(&mut catalog), story.now(), "seed {seed}");
        drop(catalog);
        let again = library::try_open::<512>(&disk, &mut memory, &mut |_| panic!("it was mended"));
        assert_eq!(&library::all_of(&mut again.expect("it opens").0), story.now(), "seed {seed}");
    }
    println!("{opened} of {LIBRARIES} were opened, {lost} slots lost");
    assert!(opened > LIBRARIES / 2 && lost > LIBRARIES);
}

/// What some dozens of records and checkpoints leave.
fn used_library() -> Image {
    let disk = Disk::new([vec![0xFF; CAPACITY], vec![], vec![], vec![]]);
    let mut memory = Memory::new(6, 512);
    let mut visit = |_: perennial::engine::library::catalog::Damaged<'_>| panic!("it is whole");
    let mut catalog = library::try_open::<512>(&disk, &mut memory, &mut visit).expect("new").0;
    let (mut prng, mut story) = (Prng::new(11), Story::new(State::new()));
    for _ in 0..300 {
        library::act(&disk, &mut catalog, &mut story, &mut prng);
    }
    drop(catalog);
    disk.image()
}

/// One kind of damage in one file of a library; half of it where the slots' header is.
fn damage_file(image: &mut Image, prng: &mut Prng) {
    let file = [SLOTS, SLOTS, STAGING, LOOKUP][prng.below(4) as usize];
    let bytes = &mut image[file];
    let length = bytes.len() as u32;
    let start = prng.below(length) as usize;
    let end = (start + (1 << prng.below(13))).min(bytes.len());
    match prng.below(7) {
        0 => bytes[start] ^= 1 << prng.below(8),
        1 => prng.fill(&mut bytes[start..end]),
        2 => bytes[start..end].fill(0),
        3 => {
            let to = prng.below(length - (end - start) as u32 + 1) as usize & !127;
            bytes.copy_within(start..end, to);
        }
        4 => bytes.truncate(start),
        _ => forge_slots(&mut image[SLOTS], prng),
    }
}

/// A header of slots whose CRC is right, with a field that may make no sense.
fn forge_slots(bytes: &mut [u8], prng: &mut Prng) {
    let Some(header) = bytes.get_mut(..48) else { return };
    let at = [16, 24, 32, 36, 40][prng.below(5) as usize];
    let number = if prng.one_in(2) { prng.below(100) } else { odd_number(prng) };
    header[at..at + 4].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&header[..44]).to_le_bytes();
    header[44..].copy_from_slice(&crc);
}

/// Opens `bytes` and, if it is taken for a journal, uses it. Says which.
fn survives(bytes: Vec<u8>, seed: u64) -> bool {
    let mut flash = MockFlash::<4, 4096>::from_bytes(bytes);
    // Words that are not erased may lie where no journal has ever been.
    flash.forgiving = true;
    let mut buffer = [0; 512];
    let mut records = 0;
    let mut visit = |_: &[u8]| records += 1;
    let Ok((mut journal, replay)) = Journal::open(&mut flash, &mut buffer, &mut visit) else {
        return false;
    };
    assert_eq!(records, replay.records, "seed {seed}");
    assert!(replay.garbage_bytes as usize <= HALF, "seed {seed}");
    assert!(journal.free_bytes() as usize <= HALF, "seed {seed}");
    for _ in 0..4 {
        if journal.push(&model::record(1, 1)).is_ok() {
            let _ = journal.commit();
        }
    }
    model::compact(&mut journal, &[1; model::KEYS]).expect("they fit a half");
    journal.push(&model::record(2, 2)).expect("an empty batch");
    journal.commit().expect("room behind a compaction");
    let (_, replay, state) = model::open(&mut flash, &mut buffer).expect("a journal");
    assert_eq!((state[1], state[2], replay.garbage_bytes), (1, 2, 0), "seed {seed}");
    true
}

/// One kind of damage, somewhere; half of it where the headers are.
fn damage(bytes: &mut [u8], prng: &mut Prng) {
    match prng.below(6) {
        0 => bytes[prng.below(CAPACITY as u32) as usize] ^= 1 << prng.below(8),
        1 => {
            let range = range(prng);
            prng.fill(&mut bytes[range]);
        }
        2 => {
            let range = range(prng);
            bytes[range].fill(0xFF);
        }
        3 => {
            let range = range(prng);
            let to = prng.below((CAPACITY - range.len()) as u32) as usize & !31;
            bytes.copy_within(range, to);
        }
        4 => forge_head(bytes, prng),
        _ => forge_header(bytes, prng),
    }
}

/// A header whose CRC is right, with some fields that make sense and some that do not.
fn forge_header(bytes: &mut [u8], prng: &mut Prng) {
    let header = if prng.one_in(2) { &mut bytes[..32] } else { &mut bytes[HALF..][..32] };
    header[..8].copy_from_slice(b"PRNLJRNL");
    let sequence = if prng.one_in(2) { 1 + prng.below(4) } else { u32::MAX - prng.below(2) };
    let mut fields = [1 + prng.below(2), 4, HALF as u32, 512, sequence];
    if prng.one_in(2) {
        fields[prng.below(5) as usize] = odd_number(prng);
    }
    for (place, field) in header[8..28].chunks_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(&header[..28]).to_le_bytes();
    header[28..].copy_from_slice(&crc);
}

/// A frame's head whose CRC is right, before a payload whose CRC may be.
fn forge_head(bytes: &mut [u8], prng: &mut Prng) {
    let at = prng.below(CAPACITY as u32 / 32) as usize * 32;
    let payload_bytes = if prng.one_in(2) { prng.below(600) } else { odd_number(prng) };
    let number = if prng.one_in(2) { prng.below(300) } else { odd_number(prng) };
    let payload = bytes[at + 20..].get(..payload_bytes as usize).unwrap_or(&[]);
    let head = [prng.below(12), number, payload_bytes, crc32fast::hash(payload)];
    for (place, field) in bytes[at..at + 16].chunks_mut(4).zip(head) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[at..at + 16]).to_le_bytes();
    bytes[at + 16..at + 20].copy_from_slice(&crc);
}

fn odd_number(prng: &mut Prng) -> u32 {
    let numbers = [0, 1, 31, 33, 0x7FFF_FFFF, 0x8000_0000, u32::MAX - 20, u32::MAX];
    numbers[prng.below(numbers.len() as u32) as usize]
}

/// A stretch of flash, more often short than long.
fn range(prng: &mut Prng) -> std::ops::Range<usize> {
    let start = prng.below(CAPACITY as u32);
    let bytes_max = 1 << prng.below(14);
    let end = start + prng.below(bytes_max);
    start as usize..(end as usize).min(CAPACITY)
}
