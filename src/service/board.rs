//! Boards: what a machine has, as data, and the memory contract that follows from it.
//!
//! Each `boards/<name>/profile.toml` is compiled in. A [`Board`] is chosen by name or by the
//! machine's memory, and [`Board::contract`] adds up what the service will hold: one line for
//! each holder, naming the number of the profile it comes from. The sum is checked against
//! `resident_kib` by a test and again at start. A new buffer means a new line.
//!
//! A board with an `[image]` table runs firmware, not this program: its share is written as an
//! image (`service/image`) and its memory is laid out by the linker, so there is no sum here.

mod profile;

use super::announcer::EXCHANGES_MAX;
use super::archive::{OVERLAY_MAX, PAGES_MAX};
use super::content::HASH_SCRATCH_BYTES;
use super::control::LINE_BYTES_MAX;
use super::control::server::PLACES;
use super::dht;
use super::fetch::Goal;
use super::grounds::LOOKS;
use super::house;
use super::lobby::SPARE_PUMPS;
use super::refusal::Refusal;
use super::store::FILES_MAX as LANE_FILES_MAX;
use super::volume::kept::{VOLUME_BYTES, VOLUMES_MAX};
use super::watch::Watch;
use super::webseed::WINDOW_BYTES;
use crate::engine::dht::Dht;
use crate::engine::dht::saved::saved_bytes;
use crate::engine::dht::search::Search;
use crate::engine::dht::store::StoredPeer;
use crate::engine::dht::table::Contact;
use crate::engine::library::catalog::Change;
use crate::engine::library::slots::PAGE_BYTES;
use crate::engine::metainfo::web_seeds::WEB_SEEDS_MAX;
use crate::engine::peer::request::Request;
use crate::engine::swarm::candidates::Candidate;
use crate::engine::swarm::fetch::Fetch;
use crate::engine::swarm::fetch::link::{Ask, Link};
use crate::engine::swarm::fetch::partial::Partial;
use crate::engine::swarm::fetch::unveil::Veil;
use crate::engine::swarm::pool::Pool;
use crate::engine::swarm::roster::Member;
use crate::engine::swarm::torrent::Torrent;
use crate::engine::units::PeerSlot;
use profile::parse;
pub use profile::{DiskSizes, ImageSizes, Pools, Sockets};
use std::string::String;
use std::vec::Vec;

/// A board's profile. Every sizing number of the service is here.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its name: that of its folder.
    pub name: &'static str,
    /// Memory of the machine.
    pub ram_kib: u64,
    /// The contract: resident memory of the process stays under this; of firmware, its static data
    /// and its stack.
    pub resident_kib: u64,
    /// What connections and torrents hold.
    pub pools: Pools,
    /// What stands between the service and storage.
    pub disk: DiskSizes,
    /// What the kernel may hold for a connection.
    pub sockets: Sockets,
    /// What its images look like; only a board that runs firmware has them.
    pub image: Option<ImageSizes>,
}

/// One holder of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is.
    pub what: &'static str,
    /// The number of the profile it follows, or what else it comes from.
    pub from: &'static str,
    /// Bytes at most.
    pub bytes: u64,
}

/// The sum of what is held, by us and by the kernel for us.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Our own memory.
    pub ours: Vec<Holder>,
    /// Socket memory in the kernel, which no figure of the process shows.
    pub kernel: Vec<Holder>,
}

impl Contract {
    /// Our own memory together.
    pub fn resident_bytes(&self) -> u64 {
        self.ours.iter().map(|holder| holder.bytes).sum()
    }

    /// The kernel's together.
    pub fn kernel_bytes(&self) -> u64 {
        self.kernel.iter().map(|holder| holder.bytes).sum()
    }
}

impl Board {
    /// Every board: those that run Linux, the smallest first, then those that run firmware.
    pub fn all() -> Vec<Board> {
        PROFILES.iter().map(|(name, profile)| parse(name, profile)).collect()
    }

    /// The board of that name.
    pub fn named(name: &str) -> Option<Board> {
        let (name, profile) = PROFILES.iter().find(|(known, _)| *known == name)?;
        Some(parse(name, profile))
    }

    /// The board the owner names; without a name the one this machine is taken for.
    pub fn chosen(name: Option<&str>) -> Result<Board, Refusal> {
        let Some(name) = name else { return Ok(Board::of_this_machine()) };
        Board::named(name).ok_or_else(|| {
            let (linux, firmware) = (Board::names(false), Board::names(true));
            let problem = std::format!("is no board; known are {linux}, and {firmware}");
            Refusal::new(name, problem, "choose one of them")
        })
    }

    /// The boards there are that run firmware, or those that do not; but for those of tests.
    pub fn names(firmware: bool) -> String {
        let wanted = |board: &Board| board.is_firmware() == firmware && !board.is_for_tests();
        let names = Board::all().into_iter().filter(wanted).map(|board| board.name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// The board this machine is taken for: the largest whose memory it has. A machine reports a
    /// little less than is built in, so a board's memory counts from seven eighths of it.
    pub fn of_this_machine() -> Board {
        let ram_kib = machine_ram_kib();
        let is_machine = |board: &&Board| !board.is_for_tests() && !board.is_firmware();
        let fits = |board: &&Board| board.ram_kib * 7 / 8 <= ram_kib;
        let all = Board::all();
        let best = all.iter().filter(is_machine).filter(fits).max_by_key(|board| board.ram_kib);
        best.cloned().unwrap_or_else(|| parse("tiny", TINY))
    }

    /// A board that is no machine.
    pub fn is_for_tests(&self) -> bool {
        self.name.starts_with("test-")
    }

    /// A microcontroller: it runs no program of ours but a firmware, which reads an image.
    pub fn is_firmware(&self) -> bool {
        self.image.is_some()
    }

    /// Connections that can be heard at a time.
    pub fn pumps(&self) -> u16 {
        self.pools.peers_max + SPARE_PUMPS
    }

    /// Who may give us something: connections, and web seeds behind them.
    pub fn links(&self) -> u16 {
        self.pumps() + self.pools.web_seeds_max
    }

    /// File descriptors at most: one line for each holder.
    pub fn descriptors(&self) -> u64 {
        let links = u64::from(self.links());
        let torrents = 2 * u64::from(self.pools.seeding_max);
        let lane_files = (1 + LANE_FILES_MAX as u64) * u64::from(self.disk.lanes);
        let files = u64::from(self.pools.open_files_max) + lane_files;
        // A connection to the page, and the file it is sent.
        let web = 2 * u64::from(self.pools.web_connections_max);
        links + torrents + files + web + OTHER_DESCRIPTORS
    }

    /// What the service holds on this board, which is one that runs Linux.
    pub fn contract(&self) -> Contract {
        let (pools, disk) = (&self.pools, &self.disk);
        let (pumps, links) = (u64::from(self.pumps()), u64::from(self.links()));
        let web_seeds = u64::from(pools.web_seeds_max);
        let pages = u64::from(pools.web_pages_max);
        let transits = if pages > 0 { pages.max(2) } else { 0 };
        let lanes = u64::from(disk.lanes);
        let kib = |kib: u32| u64::from(kib) * 1024;
        let each = |count: u64, bytes: usize| count * bytes as u64;
        let line = |what, from, bytes| Holder { what, from, bytes };
        let queue = pumps * u64::from(pools.requests_per_peer) * size_of::<Request>() as u64;
        let files = u64::from(pools.open_files_max);
        let seeding = u64::from(pools.seeding_max);
        let dht_nodes = u64::from(pools.dht_nodes_max);
        let ours = std::vec![
            line("program", "its code and data", PROGRAM_BYTES),
            line(
                "stacks",
                "main, async-io, names, archive, looks at disks, lanes",
                MAIN_STACKS_BYTES + (lanes + 2 + LOOKS as u64) * kib(disk.lane_stack_kib)
            ),
            line("pumps", "peers_max", each(pumps, PUMP_BYTES)),
            line("request queues", "peers_max x requests_per_peer", queue),
            line(
                "roster",
                "peers_max",
                each(pumps, size_of::<Option<Member>>() + size_of::<PeerSlot>())
            ),
            line(
                "candidates",
                "candidates_max",
                each(pools.candidates_max.into(), size_of::<Option<Candidate>>())
            ),
            line(
                "library",
                "fixed",
                each(OVERLAY_MAX as u64, size_of::<Option<Change>>())
                    + each(PAGES_MAX as u64, PAGE_BYTES)
            ),
            line(
                "watched folders",
                "watched_max",
                Watch::memory_bytes(house::limits(pools.watched_max))
                    + house::THING_FOLDERS_MAX as u64
                        * Watch::memory_bytes(house::limits_of_things(1))
            ),
            line(
                "the page",
                "web_connections_max, web_pages_max",
                each(pools.web_connections_max.into(), WEB_CONNECTION_BYTES)
                    + each(pools.web_pages_max.into(), PAGE_BYTES_MAX)
                        // A zip and an upload at least.
                        + each(transits, TRANSIT_BYTES)
            ),
            line("a password", "password_mib", u64::from(pools.password_mib) << 20),
            line("disks", "fixed", each(VOLUMES_MAX as u64, VOLUME_BYTES)),
            line("the owner's commands", "fixed", each(PLACES as u64, LINE_BYTES_MAX)),
            line(
                "active torrents",
                "seeding_max",
                each(seeding, size_of::<Option<Torrent>>() + TORRENT_BYTES)
            ),
            line("bitfields", "bits_kib", Pool::lent_bytes(pools.bits_kib as usize * 1024) as u64),
            line("fetches", "fetching_max", each(pools.fetching_max.into(), FETCH_BYTES)),
            line(
                "pieces under way",
                "partials_max",
                each(pools.partials_max.into(), size_of::<Option<Partial>>())
            ),
            line(
                "requests of ours",
                "peers_max x asks_per_peer",
                links * (u64::from(pools.asks_per_peer) * size_of::<Ask>() as u64)
                    + each(links, size_of::<Option<Link>>())
                    + each(pumps, size_of::<Veil>())
            ),
            line(
                "web seeds",
                "web_seeds_max, fetching_max",
                each(web_seeds, WEB_SEED_TASK_BYTES)
                    + each(pools.fetching_max.into(), WEB_SEEDS_MAX * WEB_SEED_BYTES)
            ),
            line("what peers have", "fetch_bits_kib", kib(pools.fetch_bits_kib)),
            line("records of fetches", "2 x bits_kib", 2 * kib(pools.bits_kib)),
            line("open files", "open_files_max", each(files, OPEN_FILE_BYTES)),
            line("serving scratch", "serve_kib", kib(disk.serve_kib)),
            line("receiving scratch", "fixed", RECEIVED_BYTES as u64),
            line(
                "lane buffers",
                "lane_buffers x lane_buffer_kib",
                u64::from(disk.lane_buffers) * kib(disk.lane_buffer_kib)
            ),
            line("hashing", "lanes", each(lanes, HASH_SCRATCH_BYTES)),
            line("walking a folder", "walk_kib", kib(disk.walk_kib)),
            line("journal buffer", "fixed", JOURNAL_BUFFER_BYTES as u64),
            line("trackers", "fixed", TRACKER_BYTES as u64),
            line("asking the router", "fixed", ROUTER_BYTES as u64),
            line(
                "DHT nodes, and the file they are saved in",
                "dht_nodes_max, for each family",
                each(2 * dht_nodes, size_of::<Option<Contact>>())
                    + 2 * saved_bytes(dht_nodes as usize) as u64
            ),
            line(
                "peers announced over the DHT",
                "dht_peers_max, for each family",
                each(2 * u64::from(pools.dht_peers_max), size_of::<Option<StoredPeer>>())
            ),
            line(
                "DHT searches",
                "dht_searches_max, for each family",
                each(2 * u64::from(pools.dht_searches_max), size_of::<Option<Search>>())
            ),
            line("DHT", "fixed", each(2, size_of::<Dht<'_>>() + dht::TASK_BYTES)),
        ];
        let sending = pumps * (kib(self.sockets.unsent_kib) + SENDING_BYTES);
        let receiving = pumps * kib(self.sockets.receive_kib);
        let wider = self.sockets.wide_kib.saturating_sub(self.sockets.receive_kib);
        let wider = u64::from(self.sockets.wide_max) * kib(wider);
        let from_web = each(web_seeds, WINDOW_BYTES);
        let kernel = std::vec![
            line("unsent and on its way", "peers_max x unsent_kib", sending),
            line("received and unread", "peers_max x receive_kib", receiving),
            line("more of it by some we dial", "wide_max x wide_kib", wider),
            line("DHT sockets", "fixed, for each family", each(4, dht::RECEIVE_BYTES)),
            line("received from web seeds", "web_seeds_max", from_web),
        ];
        Contract { ours, kernel }
    }

    /// Why the service cannot run in these sizes, if it cannot.
    pub fn objection(&self) -> Option<Refusal> {
        if self.is_firmware() {
            let problem = "runs firmware, which serves what is in an image";
            return Some(Refusal::new(self.name, problem, "make one with --for-board and -o FILE"));
        }
        let held = self.contract().resident_bytes();
        let allowed = self.resident_kib << 10;
        if held > allowed {
            let name = self.name;
            let problem = std::format!(
                "board {name}: its pools hold {held} bytes and its contract allows {allowed}"
            );
            return Some(Refusal::new("memory", problem, "choose another board with --board"));
        }
        None
    }

    /// Why it cannot run on a machine with so much memory, if it cannot: what it may hold, and the
    /// kernel for it, would not fit.
    pub fn objection_on(&self, ram_kib: u64) -> Option<Refusal> {
        let wanted_kib = self.resident_kib + (self.contract().kernel_bytes() >> 10);
        let (name, wanted_mib, ram_mib) = (self.name, wanted_kib.div_ceil(1024), ram_kib >> 10);
        let problem = std::format!(
            "board {name} asks for {wanted_mib} MiB with what its connections hold in the kernel, \
             and this machine has {ram_mib} MiB"
        );
        (wanted_kib > ram_kib).then(|| Refusal::new("memory", problem, "choose a smaller board"))
    }
}

/// What this machine has, as the kernel says.
pub fn machine_ram_kib() -> u64 {
    let machine = rustix::system::sysinfo();
    (machine.totalram as u64 * u64::from(machine.mem_unit)) >> 10
}

const TINY: &str = include_str!("../../boards/tiny/profile.toml");

/// Every profile.
const PROFILES: [(&str, &str); 7] = [
    ("test-tiny", include_str!("../../boards/test-tiny/profile.toml")),
    ("tiny", TINY),
    ("small", include_str!("../../boards/small/profile.toml")),
    ("pi-4", include_str!("../../boards/pi-4/profile.toml")),
    ("nas", include_str!("../../boards/nas/profile.toml")),
    ("mcu-lm3s6965", include_str!("../../boards/mcu-lm3s6965/profile.toml")),
    ("mcu-rv32", include_str!("../../boards/mcu-rv32/profile.toml")),
];

/// Code and data of the static program that are resident, allocator and libraries included.
const PROGRAM_BYTES: u64 = 4 << 20;

/// The main thread and the reactor's, as far as they are used.
const MAIN_STACKS_BYTES: u64 = 192 * 1024;

/// A pump's task with its `Peer`, its place on the clock and its stream in the set; a test holds the
/// real sizes against it.
pub const PUMP_BYTES: usize = 2560;

/// A fetch in the engine and what is kept of it beside.
const FETCH_BYTES: usize = size_of::<Option<Fetch>>() + size_of::<Goal>() + 1024;

/// A torrent's `Content`, its path and its place in the announcer.
const TORRENT_BYTES: usize = 1024;

/// An open file's entry.
const OPEN_FILE_BYTES: usize = 96;

/// What one read from a socket is given; requests are 17 bytes each.
pub const RECEIVED_BYTES: usize = 8 * 1024;

/// The largest commit of the journal.
pub const JOURNAL_BUFFER_BYTES: usize = 4096;

/// What trackers may answer with, and what TLS needs meanwhile: 52 KiB for each exchange over each
/// family, and 18 KiB of roots and settings (measured, see `service/http`).
pub const TRACKER_BYTES: usize =
    EXCHANGES_MAX * (super::announcer::BUFFER_BYTES + 2 * 52 * 1024) + 18 * 1024;

/// What a router may answer with, and the task that asks it.
const ROUTER_BYTES: usize = super::portmap::BUFFER_BYTES + super::portmap::TASK_BYTES;

/// A web seed's task: the buffer for heads, what TLS needs, and its own state.
const WEB_SEED_TASK_BYTES: usize = super::http::stream::BUFFER_BYTES + 52 * 1024 + 4 * 1024;

/// What is kept of a web seed: its URL, most often about 100 bytes, and how it stands.
const WEB_SEED_BYTES: usize = 512;

/// What one send leaves in the kernel beyond the unsent mark: a segment being filled.
const SENDING_BYTES: u64 = 64 * 1024;

/// What the page holds for a connection, when half of them are idle: those hold 6 KiB (the head of a
/// request, the task, what the clock and the reactor keep for it), and 10 while a file is sent.
pub const WEB_CONNECTION_BYTES: usize = 8 * 1024;

/// A page, or another answer in words, at most.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;

/// What passes through memory of the page's: a zip that is sent, a file that is taken.
pub const TRANSIT_BYTES: usize = 64 * 1024;

/// Standard streams, reactor, listeners, discovery, trackers, the DHT, the state folder's files, the
/// owner's commands, a copy under way, watched folders and a look into them.
const OTHER_DESCRIPTORS: u64 = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::swarm::fetch::store::RECEIVE_BYTES_MAX;
    use std::string::ToString;

    #[test]
    fn every_profile_adds_up() {
        for board in Board::all().iter().filter(|board| !board.is_firmware()) {
            assert_eq!(board.objection(), None);
            assert!(board.resident_kib < board.ram_kib, "{}", board.name);
            assert!(board.pools.unchoked_max <= board.pools.peers_max, "{}", board.name);
            assert!(u32::from(board.pools.seeding_max) <= board.pools.torrents_max);
            assert!(board.disk.lane_buffer_kib >= 33 && board.disk.serve_kib >= 33);
            assert!(board.disk.lane_buffer_kib as usize * 1024 <= RECEIVE_BYTES_MAX);
        }
    }

    #[test]
    fn images_of_every_firmware_board_have_room_for_a_journal_and_a_share() {
        for board in Board::all() {
            let Some(ImageSizes { unit_kib, image_mib, whole_mib }) = board.image else { continue };
            assert!(board.resident_kib < board.ram_kib, "{}", board.name);
            let journal_kib = board.disk.journal_kib;
            assert!(journal_kib > 0 && journal_kib % unit_kib == 0, "{}", board.name);
            assert!(unit_kib > 0 && unit_kib + 2 * journal_kib < image_mib * 1024 / 2);
            assert!(whole_mib == 0 || whole_mib >= image_mib, "{}", board.name);
            // Addresses in it are 32 bits wide.
            assert!(image_mib < 4096 && board.pools.bits_kib > 0, "{}", board.name);
        }
    }

    #[test]
    fn a_firmware_board_is_no_machine_this_program_runs_on() {
        let board = Board::named("mcu-rv32").unwrap();
        assert!(board.objection().unwrap().to_string().contains("--for-board"));
        assert!(!Board::of_this_machine().is_firmware());
        assert_eq!(Board::names(false), "tiny, small, pi-4, nas");
        assert_eq!(Board::names(true), "mcu-lm3s6965, mcu-rv32");
    }

    #[test]
    fn a_profile_that_promises_less_than_it_holds_is_refused() {
        let mut board = Board::named("small").unwrap();
        board.resident_kib = 4096;
        assert!(board.objection().unwrap().to_string().contains("its contract allows"));
        assert!(Board::named("no-such-board").is_none());
    }
}
