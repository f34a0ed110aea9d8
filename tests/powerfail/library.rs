//! The library on a disk, cut anywhere: all of its files lose power together.
//!
//! One run of a scenario, and then the disk as cuts leave it after its bytes, in each of the ways of
//! [`Cut`]. Every time the library opens and holds what it held before the record at hand or after
//! it (one that failed and was given up may have been written all the same): by name, by place, by a walk and by count. At a sample of the cuts power fails again while it
//! opens, and at another life goes on.
//!
//! The bytes to cut at are drawn by lot, so many that the run takes its share of a minute; with
//! `PERENNIAL_FULL=1` there are a million. The first and the last byte of every write are always cut.

use std::collections::BTreeMap;

use perennial::engine::journal::Journal;
use perennial::engine::library::catalog::{CatalogError, Change, Damaged, Lent, Opened};
use perennial::engine::library::shelf::{Shelf, Shelves};
use perennial::engine::library::{Catalog, Entry, RECORD_BYTES_MAX, Record};
use perennial::engine::units::InfoHash;

use crate::disk::{Cut, Cutter, Disk, Fault, File, Image, JOURNAL, LOOKUP, SLOTS, STAGING, Step};
use crate::prng::Prng;

#[test]
fn cut_anywhere_the_library_is_as_before_or_as_after() {
    Run { seed: 1, actions: 400, overlay: 6, old: false, faults: false }
        .cut::<512>(60_000, 400_000);
}

#[test]
fn cut_anywhere_a_library_on_a_disk_of_large_sectors_is_as_before_or_as_after() {
    Run { seed: 4, actions: 150, overlay: 6, old: false, faults: false }
        .cut::<4096>(25_000, 150_000);
}

#[test]
fn cut_anywhere_a_library_of_an_older_release_is_as_before_or_as_after() {
    Run { seed: 2, actions: 150, overlay: 9, old: true, faults: false }.cut::<512>(25_000, 150_000);
}

#[test]
fn cut_anywhere_a_library_on_a_failing_disk_is_as_before_or_as_after() {
    Run { seed: 3, actions: 250, overlay: 6, old: false, faults: true }.cut::<512>(40_000, 300_000);
}

#[test]
fn a_checkpoint_that_fails_takes_no_later_record_with_it() {
    for seed in 0..400 {
        let mut prng = Prng::new(seed);
        let disk = Disk::new([vec![0xFF; 16 << 10], vec![], vec![], vec![]]);
        let mut story = Story::new(State::new());
        let mut memory = Memory::new(8, 512);
        let mut catalog = open::<512>(&disk, &mut memory).0;
        for tries in [1, 0, 3] {
            (0..4).for_each(|_| act(&disk, &mut catalog, &mut story, &mut prng));
            disk.set_faults(Some((10, prng.clone())));
            for _ in 0..tries {
                let _ = catalog.checkpoint();
            }
            disk.set_faults(None);
            assert_eq!(&all_of(&mut catalog), story.now(), "seed {seed}, while it lives");
        }
        act(&disk, &mut catalog, &mut story, &mut prng);
        drop(catalog);
        let mut catalog = open::<512>(&disk, &mut memory).0;
        assert_eq!(&all_of(&mut catalog), story.now(), "seed {seed}, after a restart");
    }
}

/// What is known, by name.
pub type State = BTreeMap<InfoHash, Entry>;

pub type TestCatalog<'m, const WORD: usize> = Catalog<'m, File<WORD>, File<WORD>>;

/// The memory lent.
pub struct Memory {
    journal: Vec<u8>,
    overlay: Vec<Option<Change>>,
    pages: Vec<u8>,
}

impl Memory {
    pub fn new(overlay: usize, word: usize) -> Memory {
        Memory { journal: vec![0; word], overlay: vec![None; overlay], pages: vec![0; 2 * 4096] }
    }
}

fn open<'m, const WORD: usize>(
    disk: &Disk,
    memory: &'m mut Memory,
) -> (TestCatalog<'m, WORD>, Opened) {
    let mut visit = |damaged: Damaged<'_>| panic!("a cut costs no slot: {damaged:?}");
    try_open(disk, memory, &mut visit).expect("it opens")
}

pub fn try_open<'m, const WORD: usize>(
    disk: &Disk,
    memory: &'m mut Memory,
    visit: &mut impl FnMut(Damaged<'_>),
) -> Result<(TestCatalog<'m, WORD>, Opened), CatalogError<Fault, Fault>> {
    let shelves =
        Shelves { slots: disk.file(SLOTS), staging: disk.file(STAGING), lookup: disk.file(LOOKUP) };
    let lent = Lent {
        journal: &mut memory.journal,
        overlay: &mut memory.overlay,
        pages: &mut memory.pages,
    };
    Catalog::open(disk.file(JOURNAL), shelves, lent, NAMES, visit)
}

/// Everything the library says, asked in every way there is.
pub fn all_of<const WORD: usize>(catalog: &mut TestCatalog<'_, WORD>) -> State {
    let (mut state, mut last) = (State::new(), None);
    while let Some((slot, entry)) = catalog.next(last).expect("no faults") {
        assert_eq!(state.insert(entry.info_hash, entry), None, "it is met once");
        last = Some(slot);
    }
    assert_eq!(catalog.count() as usize, state.len());
    for number in 0..NAMES {
        let (name, found) = (name(number), catalog.get(&name(number)));
        assert_eq!(found.expect("no faults").as_ref(), state.get(&name), "by its name");
    }
    for root_key in 0..ROOTS {
        let mut under = State::new();
        let mut visit = |entry: &Entry| {
            assert_eq!(under.insert(entry.info_hash, *entry), None, "it is shown once");
        };
        catalog.under(root_key.into(), &mut visit).expect("no faults");
        let is_there = |(_, entry): &(&InfoHash, &Entry)| entry.root_key == u64::from(root_key);
        assert!(under.iter().eq(state.iter().filter(is_there)), "by its place");
    }
    state
}

/// What a record makes of a state, told without the library's help.
fn apply(state: &mut State, record: &Record) {
    let unknown = |info_hash| Entry {
        info_hash,
        root_key: 0,
        facts_crc: 0,
        sent_bytes: 0,
        fetching: false,
        paused: false,
        added_s: 0,
        volume: 0,
    };
    match *record {
        Record::Admitted { info_hash, root_key, facts_crc }
        | Record::Begun { info_hash, root_key, facts_crc } => {
            let entry = state.entry(info_hash).or_insert(unknown(info_hash));
            (entry.root_key, entry.facts_crc) = (root_key, facts_crc);
            entry.fetching = matches!(record, Record::Begun { .. });
        }
        Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume } => {
            let entry = state.entry(info_hash).or_insert(unknown(info_hash));
            *entry = Entry { root_key, facts_crc, fetching, added_s, volume, ..*entry };
        }
        Record::Sent { info_hash, bytes } => {
            state.entry(info_hash).and_modify(|entry| entry.sent_bytes = bytes);
        }
        Record::Paused { info_hash, paused } => {
            state.entry(info_hash).and_modify(|entry| entry.paused = paused);
        }
        Record::Forgotten { info_hash } => drop(state.remove(&info_hash)),
        Record::Continues { .. } => unreachable!("the catalogue's own"),
    }
}

fn name(number: u32) -> InfoHash {
    let mut hash = [0; 32];
    Prng::new(number.into()).fill(&mut hash);
    match number % 3 {
        0 => InfoHash::V2(hash),
        _ => InfoHash::V1(hash[..20].try_into().expect("20 bytes")),
    }
}

fn any_record(prng: &mut Prng) -> Record {
    let info_hash = name(prng.below(NAMES));
    let (root_key, facts_crc) = (prng.below(ROOTS).into(), prng.next_u32());
    match prng.below(12) {
        0 | 1 => Record::Admitted { info_hash, root_key, facts_crc },
        2 => Record::Begun { info_hash, root_key, facts_crc },
        3 | 4 => {
            let (added_s, volume, fetching) = (prng.next_u64(), prng.next_u64(), prng.one_in(2));
            Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume }
        }
        5 | 6 => Record::Paused { info_hash, paused: prng.one_in(2) },
        7..10 => Record::Sent { info_hash, bytes: prng.next_u64() },
        _ => Record::Forgotten { info_hash },
    }
}

/// A scenario on one kind of disk.
struct Run {
    seed: u64,
    actions: u32,
    /// Places in the overlay.
    overlay: usize,
    /// It begins with the journal of a release that had nothing else.
    old: bool,
    /// One write or sync in [`FAULTS`] fails half-way.
    faults: bool,
}

impl Run {
    fn cut<const WORD: usize>(&self, usual: u64, full: u64) {
        let is_full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
        let mut prng = Prng::new(self.seed);
        let (image, first) = self.beginning::<WORD>(&mut prng);
        let disk = Disk::new(image.clone());
        let mut story = Story::new(first);
        disk.expect(&story.possible);
        self.live::<WORD>(&disk, &mut story, &mut prng);
        let tape = disk.take_tape();
        let bytes: usize = tape.iter().map(written).sum();
        let mut cuts = Cuts::<WORD> {
            cutter: Cutter::new(image, WORD),
            scratch: Disk::default(),
            memory: Memory::new(self.overlay, WORD),
            states: story.states,
            expected: vec![],
            prng,
            seed: self.seed,
            cuts: 0,
            landed: 0,
            refilled: 0,
        };
        let wanted = if is_full { full } else { usual };
        for (place, step) in tape.iter().enumerate() {
            cuts.at_step(place, step, wanted as f64 / bytes as f64);
        }
        assert_eq!(cuts.cutter.image, disk.image(), "the tape is all that happened");
        let Cuts { cuts, landed, refilled, .. } = cuts;
        println!(
            "seed {}: {bytes} bytes, {cuts} cuts, {landed} landed, {refilled} refilled",
            self.seed
        );
        assert!(cuts >= wanted && landed > 100 && refilled > 100);
    }

    /// The disk before, and what is known: nothing, or what a journal of version 1 says.
    fn beginning<const WORD: usize>(&self, prng: &mut Prng) -> (Image, State) {
        let half = (16 * WORD).next_multiple_of(4096);
        let image = [vec![0xFF; 2 * half], vec![], vec![], vec![]];
        let mut state = State::new();
        if !self.old {
            return (image, state);
        }
        let disk = Disk::new([vec![0xFF; 6 * half], vec![], vec![], vec![]]);
        let mut buffer = [0; WORD];
        let (mut journal, _) = Journal::open(disk.file::<WORD>(JOURNAL), &mut buffer, &mut |_| {})
            .expect("an erased flash");
        while !journal.needs_compaction() {
            let record = any_record(prng);
            let is_new = matches!(record, Record::Paused { .. } | Record::Placed { .. });
            let before = state.clone();
            apply(&mut state, &record);
            if is_new || state == before {
                state = before;
                continue;
            }
            journal.push(record.write(&mut [0; RECORD_BYTES_MAX])).expect("an empty batch");
            journal.commit().expect("there is room");
        }
        drop(journal);
        let mut image = disk.image();
        let header = &mut image[JOURNAL][..32];
        header[8] = 1;
        let crc = crc32fast::hash(&header[..28]).to_le_bytes();
        header[28..].copy_from_slice(&crc);
        (image, state)
    }

    /// Records, checkpoints, damage and restarts.
    fn live<const WORD: usize>(&self, disk: &Disk, story: &mut Story, prng: &mut Prng) {
        let mut memory = Memory::new(self.overlay, WORD);
        let mut left = self.actions;
        while left > 0 {
            let mut catalog = open::<WORD>(disk, &mut memory).0;
            assert_eq!(&all_of(&mut catalog), story.now(), "after a restart");
            if self.faults {
                disk.set_faults(Some((FAULTS, prng.clone())));
            }
            while left > 0 {
                left -= 1;
                match prng.below(24) {
                    0 if catalog.checkpoint().is_ok() => story.settle(disk),
                    1 if catalog.mend(&mut |_| {}).is_ok() => story.settle(disk),
                    0 | 1 => {}
                    2 if !self.faults => break,
                    3 => damage_lookup(disk, prng),
                    4..6 => act_all(disk, &mut catalog, story, prng),
                    _ => act(disk, &mut catalog, story, prng),
                }
                if left.is_multiple_of(8) {
                    let faults = disk.set_faults(None);
                    assert_eq!(&all_of(&mut catalog), story.now(), "while it lives");
                    disk.set_faults(faults);
                }
            }
            drop(catalog);
            if prng.one_in(3) {
                lose_lookup(disk);
            }
        }
    }
}

/// What was known when, and what may be found now.
pub struct Story {
    states: Vec<State>,
    /// What the library has acknowledged.
    known: usize,
    /// It, and what records that failed would have made of it.
    possible: Vec<usize>,
}

impl Story {
    /// It begins with what is known.
    pub fn new(first: State) -> Story {
        Story { states: vec![first], known: 0, possible: vec![0] }
    }

    pub fn now(&self) -> &State {
        &self.states[self.known]
    }

    /// What has failed is known not to have happened.
    fn settle(&mut self, disk: &Disk) {
        self.possible = vec![self.known];
        disk.expect(&self.possible);
    }
}

/// Records something. If that fails, tries again or lets it be.
pub fn act<const WORD: usize>(
    disk: &Disk,
    catalog: &mut TestCatalog<'_, WORD>,
    story: &mut Story,
    prng: &mut Prng,
) {
    let record = any_record(prng);
    let mut state = story.now().clone();
    apply(&mut state, &record);
    story.states.push(state);
    let next = story.states.len() - 1;
    story.possible.push(next);
    disk.expect(&story.possible);
    for _ in 0..10_000 {
        if catalog.record(record).is_ok() {
            story.known = next;
            return story.settle(disk);
        }
        if prng.one_in(4) {
            return;
        }
    }
    panic!("ten thousand tries failed");
}

/// Records something of several torrents, and again until that works.
fn act_all<const WORD: usize>(
    disk: &Disk,
    catalog: &mut TestCatalog<'_, WORD>,
    story: &mut Story,
    prng: &mut Prng,
) {
    let mut records: Vec<Record> = Vec::new();
    for _ in 0..1 + prng.below(12) {
        let (record, mut state) = (any_record(prng), story.states[story.states.len() - 1].clone());
        if records.is_empty() {
            state.clone_from(story.now());
        }
        if records.iter().all(|known| torrent_of(known) != torrent_of(&record)) {
            apply(&mut state, &record);
            records.push(record);
            story.states.push(state);
            story.possible.push(story.states.len() - 1);
        }
    }
    disk.expect(&story.possible);
    while catalog.record_all(&records).is_err() {}
    story.known = story.states.len() - 1;
    story.settle(disk);
}

fn torrent_of(record: &Record) -> InfoHash {
    match *record {
        Record::Admitted { info_hash, .. }
        | Record::Sent { info_hash, .. }
        | Record::Forgotten { info_hash }
        | Record::Begun { info_hash, .. }
        | Record::Paused { info_hash, .. }
        | Record::Placed { info_hash, .. } => info_hash,
        Record::Continues { .. } => unreachable!("the catalogue's own"),
    }
}

/// Somebody takes the look-up away.
fn lose_lookup(disk: &Disk) {
    let faults = disk.set_faults(None);
    let mut file = disk.file::<512>(LOOKUP);
    file.clear().and_then(|()| Shelf::sync(&mut file)).expect("no faults");
    disk.set_faults(faults);
}

/// A page of the look-up decays.
fn damage_lookup(disk: &Disk, prng: &mut Prng) {
    let faults = disk.set_faults(None);
    let mut file = disk.file::<512>(LOOKUP);
    let mut page = [0; 512];
    prng.fill(&mut page);
    let at = 4096 + 512 * u64::from(prng.below(3));
    file.write_at(at, &page).and_then(|()| Shelf::sync(&mut file)).expect("no faults");
    disk.set_faults(faults);
}

fn written(step: &Step) -> usize {
    match step {
        Step::Write { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

/// The disk of a tape after every step, and what became of it after cuts there.
struct Cuts<const WORD: usize> {
    cutter: Cutter,
    scratch: Disk,
    memory: Memory,
    states: Vec<State>,
    expected: Vec<usize>,
    prng: Prng,
    seed: u64,
    cuts: u64,
    landed: u64,
    refilled: u64,
}

impl<const WORD: usize> Cuts<WORD> {
    /// Cuts in and before a step, at each of its bytes so many times on average.
    fn at_step(&mut self, place: usize, step: &Step, often: f64) {
        if let Step::Expect { states } = step {
            self.expected.clone_from(states);
        }
        let length = written(step);
        for done in 1..=length {
            let chance = f64::from(self.prng.next_u32()) / f64::from(u32::MAX);
            let times = (often + chance) as u32 + u32::from(done == 1 || done == length);
            for _ in 0..times {
                let cut = Cut::any(&mut self.prng);
                self.cut(place, step, done, cut);
            }
        }
        if matches!(step, Step::Sync { .. } | Step::Clear { .. }) {
            self.cut(place, step, 0, Cut::Reordered(512));
            self.cut(place, step, 0, Cut::Reordered(4096));
        }
        self.cutter.advance(step, &mut self.prng);
    }

    /// Cuts power and opens the library.
    fn cut(&mut self, place: usize, step: &Step, done: usize, cut: Cut) {
        self.cuts += 1;
        let mut image = Image::default();
        self.cutter.cut(step, done, cut, &mut self.prng, &mut image);
        self.scratch.reset(&image);
        let guard = Here(format!("seed {}, {cut:?} after {done} of step {place}", self.seed));
        let (mut catalog, opened) = open::<WORD>(&self.scratch, &mut self.memory);
        self.landed += u64::from(opened.landed_pages > 0);
        self.refilled += u64::from(opened.is_refilled);
        let state = all_of(&mut catalog);
        let is_expected = self.expected.iter().any(|at| state == self.states[*at]);
        assert!(is_expected, "none of {:?}", self.expected);
        match self.prng.below(64) {
            0 => go_on(&self.scratch, catalog, &mut self.prng),
            1..8 => {
                drop(catalog);
                self.cut_again(image, &state);
            }
            _ => {}
        }
        std::mem::forget(guard);
    }

    /// Power fails once more while the library opens: that may only be found as it was.
    fn cut_again(&mut self, image: Image, state: &State) {
        let tape = self.scratch.take_tape();
        let (mut cutter, mut again) = (Cutter::new(image, WORD), Image::default());
        let at = self.prng.below(tape.len() as u32 + 1) as usize;
        tape[..at].iter().for_each(|step| cutter.advance(step, &mut self.prng));
        let Some(step) = tape.get(at) else { return };
        let done = written(step).min(1 + self.prng.below(4096) as usize);
        let cut = Cut::any(&mut self.prng);
        cutter.cut(step, done, cut, &mut self.prng, &mut again);
        self.scratch.reset(&again);
        let mut catalog = open::<WORD>(&self.scratch, &mut self.memory).0;
        assert_eq!(&all_of(&mut catalog), state, "cut again at step {at}: {cut:?}");
    }
}

/// The box that lost power is used again.
fn go_on<const WORD: usize>(disk: &Disk, mut catalog: TestCatalog<'_, WORD>, prng: &mut Prng) {
    let mut story = Story::new(all_of(&mut catalog));
    for _ in 0..prng.below(12) {
        act(disk, &mut catalog, &mut story, prng);
    }
    if prng.one_in(2) {
        catalog.checkpoint().expect("no faults");
    }
    drop(catalog);
    let mut memory = Memory::new(4, WORD);
    let mut catalog = open::<WORD>(disk, &mut memory).0;
    assert_eq!(&all_of(&mut catalog), story.now(), "after life went on");
}

/// Says where, should something panic before it is forgotten.
struct Here(String);

impl Drop for Here {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

/// Torrents there can be, and places for their content.
const NAMES: u32 = 90;
const ROOTS: u32 = 30;

/// Far more than that, and hardly a checkpoint gets through.
const FAULTS: u32 = 40;
