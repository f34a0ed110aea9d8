//! A year in the life of a box: peers come for torrents at rest, trackers are told, the owner changes
//! something now and then. What it remembers is bounded, and what it writes follows what changes.
//!
//! ```text
//! visits ─> Swarm, Peer: at rest? woken, served, laid down ─> Sent   ─┐
//! owner  ─> added, forgotten, paused                                 ─┼─> Catalog: journal, shelves
//! trackers <─ Schedule, of each torrent that is awake                 ┘
//! ```
//!
//! All memory is lent at the beginning: what could grow is the journal and the shelves, which are
//! weighed month by month, with what was written to them. In the seventh month nobody comes.

use perennial::engine::announce::schedule::Schedule;
use perennial::engine::announce::{Answer, Retry};
use perennial::engine::library::catalog::{Change, Damaged, Lent};
use perennial::engine::library::shelf::{Shelf, Shelves};
use perennial::engine::library::{Catalog, Record};
use perennial::engine::metainfo::Layout;
use perennial::engine::peer::request::Request;
use perennial::engine::peer::{Output, Peer};
use perennial::engine::swarm::Swarm;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::units::{InfoHash, Instant, PeerSlot, TorrentSlot};
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use crate::fake_peer::{self as say, Speaks};
use crate::mock_flash::MockFlash;
use crate::prng::Prng;
use crate::world::{Board, address, swarm_of};

#[test]
fn a_year_leaves_memory_journal_and_writes_as_they_were() {
    crate::for_seeds(1, |seed| {
        let mut months: Vec<Month> = Vec::new();
        live_for_a_year(seed, |month| {
            println!("month {}: {month:?}", months.len() + 1);
            months.push(month);
        });
        let busy = months.iter().enumerate().filter(|(number, _)| *number != QUIET_MONTH);
        for (number, month) in busy {
            assert!(month.changes > 500, "{number}: {month:?}");
            // A sector for each change; a checkpoint for as many as the overlay holds, and its half.
            let journal_max = 512 * month.changes + month.checkpoints * 1_024;
            assert!(month.journal_bytes <= journal_max, "{number}: {month:?}");
            assert!(month.checkpoints <= month.changes / 16 + 1, "{number}: {month:?}");
            // Two pages for each torrent that changed, four small ones of the look-up, and headers.
            let shelves_max = (2 * 4_104 + 4 * 512) * month.changes + 20_000 * month.checkpoints;
            assert!(month.shelf_bytes <= shelves_max, "{number}: {month:?}");
        }
        let quiet = &months[QUIET_MONTH];
        assert_eq!((quiet.changes, quiet.journal_bytes, quiet.shelf_bytes), (0, 0, 0), "{quiet:?}");
        // Its size follows the torrents there are, not the time that has passed.
        let (first, last) = (&months[1], &months[MONTHS - 1]);
        assert!(last.size_bytes <= first.size_bytes + 8_208, "{first:?}, {last:?}");
        let (first, last) = (first.journal_bytes as f64, last.journal_bytes as f64);
        assert!((0.8..1.25).contains(&(last / first)), "{first} bytes, then {last}");
    });
}

/// What a month has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Month {
    /// Records that said something new.
    changes: u64,
    /// Written to the journal, and to the shelves.
    journal_bytes: u64,
    shelf_bytes: u64,
    checkpoints: u64,
    /// Length of journal and shelves at its end.
    size_bytes: u64,
    visits: u64,
    announces: u64,
}

/// Lives, and gives what each month has cost.
fn live_for_a_year(seed: u64, mut each: impl FnMut(Month)) {
    let (mut journal, mut pages) = (vec![0; 512], vec![0; 2 * 4_096]);
    let mut overlay: Vec<Option<Change>> = vec![None; 32];
    let lent = Lent { journal: &mut journal, overlay: &mut overlay, pages: &mut pages };
    let (slots, staging, lookup) = (Paper::default(), Paper::default(), Paper::default());
    let papers = [slots.clone(), staging.clone(), lookup.clone()];
    let shelves = Shelves { slots, staging, lookup };
    let flash = MockFlash::<512, 4_096>::new(128 << 10);
    let mut visit = |damaged: Damaged<'_>| panic!("no damage: {damaged:?}");
    let (catalog, _) = Catalog::open(flash, shelves, lent, 2 * TORRENTS, &mut visit).unwrap();
    let board = Board { peers_max: 2, spare_pumps: 0, torrents_max: AWAKE, ..Board::ROOMY };
    let mut swarm = swarm_of(&board);
    swarm.torrents_rest = true;
    let (schedules, prng) = ([const { None }; AWAKE], Prng::new(seed));
    let (now, next_name, hand) = (Instant::from_millis(1_000), 0, 0);
    let month = Month::default();
    let mut life = Life { catalog, swarm, schedules, prng, now, next_name, hand, month };
    for _ in 0..TORRENTS {
        life.add();
    }
    let mut before = weigh(&life, &papers);
    for number in 0..MONTHS {
        life.month = Month::default();
        for _ in 0..DAYS {
            let is_quiet = number == QUIET_MONTH;
            life.day(if is_quiet { 0 } else { VISITS_A_DAY });
        }
        let after = weigh(&life, &papers);
        each(Month {
            journal_bytes: after.journal_bytes - before.journal_bytes,
            shelf_bytes: after.shelf_bytes - before.shelf_bytes,
            checkpoints: after.checkpoints - before.checkpoints,
            size_bytes: after.size_bytes,
            ..life.month
        });
        before = after;
    }
}

/// What has been written, ever, and how much there is.
fn weigh(life: &Life<'_>, papers: &[Paper; 3]) -> Month {
    let of =
        |what: fn(&Sheet) -> u64| papers.iter().map(|paper| what(&paper.0.borrow())).sum::<u64>();
    Month {
        journal_bytes: life.catalog.journal().wear().written_bytes,
        shelf_bytes: of(|sheet| sheet.written_bytes),
        checkpoints: life.catalog.checkpoints(),
        size_bytes: (128 << 10) + of(|sheet| sheet.bytes.len() as u64),
        ..Month::default()
    }
}

/// A box.
struct Life<'m> {
    catalog: Catalog<'m, MockFlash<512, 4_096>, Paper>,
    swarm: Swarm<'m>,
    /// Of torrents that are awake, by slot.
    schedules: [Option<Schedule>; AWAKE],
    prng: Prng,
    now: Instant,
    /// Torrents are named by numbers; the oldest are forgotten first.
    next_name: u32,
    /// Which place is next to make room.
    hand: usize,
    month: Month,
}

impl Life<'_> {
    /// A day: so many visits at any times, what the owner does, and the announces between.
    fn day(&mut self, visits: u32) {
        let end = self.now.after(DAY_MS);
        for left in (1..=visits).rev() {
            let pause_ms = end.since(self.now) / u64::from(left);
            let pause_ms = u64::from(self.prng.below(2 * pause_ms as u32));
            self.wait_until(self.now.after(pause_ms).min(end));
            // Some are asked for more than others.
            let nth = self.prng.below(TORRENTS).min(self.prng.below(TORRENTS));
            self.visit(self.next_name - 1 - nth);
        }
        if visits > 0 {
            self.add();
            let oldest = InfoHash::V1(name(self.next_name - 1 - TORRENTS));
            self.lay_down_by_name(&oldest);
            self.record(Record::Forgotten { info_hash: oldest });
            let info_hash = InfoHash::V1(name(self.next_name - 1 - self.prng.below(TORRENTS)));
            let is_paused = self.catalog.get(&info_hash).unwrap().is_some_and(|entry| entry.paused);
            self.record(Record::Paused { info_hash, paused: !is_paused });
        }
        self.wait_until(end);
    }

    fn add(&mut self) {
        let (info_hash, root_key) = (InfoHash::V1(name(self.next_name)), self.next_name.into());
        let (added_s, facts_crc) = (self.now.as_millis() / 1_000, self.next_name);
        self.next_name += 1;
        let (fetching, volume) = (false, 1);
        self.record(Record::Placed { info_hash, root_key, facts_crc, fetching, added_s, volume });
    }

    fn record(&mut self, record: Record) {
        self.catalog.record(record).unwrap();
        self.month.changes += 1;
    }

    /// Announces as they fall due until then.
    fn wait_until(&mut self, then: Instant) {
        loop {
            let due = self.schedules.iter().flatten().map(|schedule| schedule.deadline().at).min();
            match due.filter(|due| *due <= then) {
                None => break,
                Some(due) => self.now = self.now.max(due),
            }
            for schedule in self.schedules.iter_mut().flatten() {
                let Some(due) = schedule.next(self.now) else { continue };
                self.month.announces += 1;
                match self.prng.one_in(10) {
                    true => schedule.handle_failure(due, Retry::Unsaid, self.now),
                    false => schedule.handle_answer(due, &answer(), self.now),
                }
            }
        }
        self.now = then;
    }

    /// Somebody comes for a torrent, takes some blocks, and goes.
    fn visit(&mut self, number: u32) {
        self.month.visits += 1;
        let mut requests = [Request::default(); 8];
        let (caller, name) = (address(2, 5_000), name(number));
        let mut peer = Peer::accepted(PeerSlot(0), caller, &mut requests, self.now);
        let hello = [say::handshake(name, [9; 20], Speaks::ALL), say::interested()].concat();
        self.hear(&mut peer, &hello);
        if peer.sought().is_some() {
            self.wake(number);
            let found = peer.handle_sought(self.now, &mut self.swarm);
            assert_eq!(found.is_ok(), self.swarm.find(&name).is_some());
            if found.is_ok() {
                let rest = &hello[68..];
                self.hear(&mut peer, rest);
            }
        }
        if self.swarm.find(&name).is_some() {
            self.serve(&mut peer);
            for block in 0..self.prng.below(8) {
                self.hear(&mut peer, &say::request((block, 0, 16_384)));
            }
            self.serve(&mut peer);
        }
        self.swarm.leave(PeerSlot(0), self.now);
        while self.swarm.take_nudged().is_some() {}
    }

    /// What a caller says, as far as there is appetite for it.
    fn hear(&mut self, peer: &mut Peer<'_>, said: &[u8]) {
        let mut said = said;
        while peer.appetite(&self.swarm) > 0 && !said.is_empty() {
            let (heard, rest) = said.split_at(peer.appetite(&self.swarm).min(said.len()));
            peer.handle_received(heard, self.now, &mut self.swarm).unwrap();
            said = rest;
        }
    }

    /// Sends all there is to send.
    fn serve(&mut self, peer: &mut Peer<'_>) {
        loop {
            let sent = match peer.poll_output(self.now, &mut self.swarm) {
                Output::Bytes(bytes) => bytes.len(),
                Output::Serve(serving) => {
                    let mut room = vec![0; 9 * (16_384 + 13)];
                    serving.fill(&mut room, |_, _, _| Ok::<_, Infallible>(())).unwrap()
                }
                Output::Wait(_) | Output::Close(_) => return,
            };
            peer.handle_sent(sent, self.now, &mut self.swarm);
        }
    }

    /// A torrent at rest becomes active, in the place of another if need be.
    fn wake(&mut self, number: u32) {
        let info_hash = InfoHash::V1(name(number));
        let entry = self.catalog.get(&info_hash).unwrap();
        if entry.is_none_or(|entry| entry.paused) {
            return;
        }
        if self.swarm.torrents().count() == AWAKE {
            self.hand = (self.hand + 1) % AWAKE;
            self.lay_down(TorrentSlot(self.hand as u16));
        }
        let layout = Layout { total_bytes: 8 << 14, piece_bytes: 16_384 };
        let (metadata_bytes, have, private, sent_bytes) = (200, Have::All, false, 0);
        let torrent = Torrent { info_hash, layout, metadata_bytes, have, private, sent_bytes };
        let slot = self.swarm.activate(torrent).expect("a place is free");
        let schedule = Schedule::new([0, 1], self.prng.next_u32(), self.now);
        self.schedules[slot.index()] = Some(schedule);
    }

    fn lay_down_by_name(&mut self, info_hash: &InfoHash) {
        if let Some(slot) = self.swarm.find(&info_hash.on_the_wire()) {
            self.lay_down(slot);
        }
    }

    /// A torrent rests; what was sent of it is recorded.
    fn lay_down(&mut self, slot: TorrentSlot) {
        let torrent = self.swarm.torrent(slot);
        let (info_hash, sent_bytes) = (torrent.info_hash, torrent.sent_bytes);
        assert!(self.swarm.rest(slot), "nobody is there between two visits");
        self.schedules[slot.index()] = None;
        if sent_bytes > 0 {
            let before = self.catalog.get(&info_hash).unwrap().expect("it is known");
            self.record(Record::Sent { info_hash, bytes: before.sent_bytes + sent_bytes });
        }
    }
}

fn name(number: u32) -> [u8; 20] {
    let mut name = [0; 20];
    Prng::new(number.into()).fill(&mut name);
    name
}

fn answer() -> Answer {
    Answer {
        interval_ms: 1_800_000,
        min_interval_ms: 60_000,
        seeders: None,
        leechers: None,
        external_ip: None,
        warning: None,
        tracker_id: None,
    }
}

/// A shelf in memory that counts.
#[derive(Clone, Debug, Default)]
struct Paper(Rc<RefCell<Sheet>>);

#[derive(Debug, Default)]
struct Sheet {
    bytes: Vec<u8>,
    written_bytes: u64,
}

impl Shelf for Paper {
    type Error = Infallible;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Infallible> {
        let sheet = self.0.borrow();
        let there = sheet.bytes.get(at as usize..).unwrap_or_default();
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let mut sheet = self.0.borrow_mut();
        let (at, end) = (at as usize, at as usize + bytes.len());
        let length = sheet.bytes.len().max(end);
        sheet.bytes.resize(length, 0);
        sheet.bytes[at..end].copy_from_slice(bytes);
        sheet.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().bytes.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn length(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.borrow().bytes.len() as u64)
    }
}

/// Torrents there are, and of them awake at a time.
const TORRENTS: u32 = 500;
const AWAKE: usize = 16;

const MONTHS: usize = 12;
const DAYS: usize = 30;
const DAY_MS: u64 = 24 * 3_600_000;
const VISITS_A_DAY: u32 = 50;

/// A month in which nobody comes, nor does the owner do anything.
const QUIET_MONTH: usize = 6;
