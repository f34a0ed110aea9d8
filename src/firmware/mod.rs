//! The firmware: frames, flash and time for the engine, on bare metal.
//!
//! What `service` is on Linux, this is on a microcontroller: it moves bytes and decides nothing. No
//! allocator, no executor, no threads: [`run`] is one loop over one network interface that sleeps
//! until a frame, a key or a named deadline. Blocks go from flash straight into TCP's ring.
//!
//! ```text
//! card or flash: head | journal | metainfo | content        boards/<name>: Board, Device, NorFlash
//!        |         |       |          |                               |
//!      share    counter  check      line (one a connection) <-- smoltcp -- frames
//!                                   local, tracker (found by others)
//! ```
//!
//! What is marked `inline(never)` is so for the stack's sake: inlined into the loop, the frames of
//! all of it would stand side by side; as it is, only the deepest one counts.
//!
//! A board brings what only it can know ([`Board`], a [`Device`] for frames, a [`NorFlash`] that
//! holds the image) and lends [`Memory`] in the sizes of its `profile.toml`.

mod check;
mod counter;
mod line;
mod link;
mod local;
mod memory;
mod region;
mod share;
mod tracker;
mod works;

pub use memory::{BITS_BYTES, Buffers, Memory, Sockets};

use crate::engine::digest::PieceHasher;
use crate::engine::image::HEAD_BYTES;
use crate::engine::peer::request::Request;
use crate::engine::swarm::{Identity, Swarm, SwarmLimits, SwarmMemory};
use crate::engine::units::{Instant, PeerId, PeerSlot};
use check::Check;
use core::cell::RefCell;
use core::fmt;
use counter::Counter;
use embedded_storage::nor_flash::{NorFlash, NorFlashError};
use line::Line;
use link::Link;
use local::Local;
use memory::{Marks, OtherRings, Rings};
use share::{NoShare, Share};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::time::Duration;
use tracker::{Tracker, TrackerSockets};
use works::{Said, Works};

/// What a board brings besides its network interface and its flash.
pub trait Board {
    /// Its name: that of its folder, and of the images it takes.
    const NAME: &'static str;

    /// The clock.
    fn now(&mut self) -> Instant;

    /// Sleeps until then, or less long: until a frame or a key has come.
    fn sleep(&mut self, until: Instant);

    /// The network interface's address (EUI-48).
    fn hardware_address(&self) -> [u8; 6];

    /// Whether a cable is in; a board that cannot tell says yes.
    fn carrier(&mut self) -> bool;

    /// Writes to the console.
    fn print(&mut self, text: &str);

    /// A key pressed on the console since the last one.
    fn key(&mut self) -> Option<u8>;

    /// Tells the watchdog that the loop turns.
    fn pet(&mut self);

    /// The deepest the stack has been, and how deep it may be, in bytes.
    fn stack(&self) -> (usize, usize);
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The console told it to stop, and all is recorded.
    Stopped,
    /// There is nothing to share: the image is foreign, damaged, or another board's.
    NoImage,
    /// What was counted could not be recorded.
    NotRecorded,
}

/// Shares what is on `flash` until the console says stop.
///
/// `flash` reads single bytes (`READ_SIZE` 1) and holds the image from its front on.
pub fn run<B, N, F, const LINES: usize, const RX: usize, const TX: usize, const REQUESTS: usize>(
    board: &mut B,
    nic: &mut N,
    flash: F,
    memory: &'static mut Memory<LINES, REQUESTS>,
    sockets: &'static mut Sockets,
    buffers: &'static mut Buffers<LINES, RX, TX>,
    limits: SwarmLimits,
) -> Verdict
where
    B: Board,
    N: Device,
    F: NorFlash,
{
    const { assert!(F::READ_SIZE == 1, "what is read begins and ends at any byte") };
    say(board, format_args!("perennial {} on {}", env!("CARGO_PKG_VERSION"), B::NAME));
    let Buffers { rings, others, journal, scratch } = buffers;
    let (flash, mut head) = (RefCell::new(flash), [0; HEAD_BYTES]);
    let share = match open_share::<B, F>(&flash, &mut head, scratch) {
        Ok(share) => share,
        Err(why) => {
            say(board, format_args!("image refused: {why}"));
            return Verdict::NoImage;
        }
    };
    let mut counter = open_counter(board, &share, journal);
    let now = board.now();
    let chance = Chance::new(&share, counter.as_ref(), board.hardware_address(), now);
    let peer_id = chance.peer_id();
    let requests_max = REQUESTS as u16;
    let identity =
        Identity { peer_id, listen_port: PORT, requests_max, exchanges: false, dht_port: 0 };
    let memory_of_swarm = SwarmMemory {
        torrents: &mut memory.torrents,
        members: &mut memory.members,
        nudged: &mut memory.nudged,
        bits: &mut memory.bits,
        candidates: &mut [],
    };
    let mut swarm = Swarm::new(memory_of_swarm, limits, identity);
    let torrent = swarm.activate(share.torrent()).expect("there is a place for the one torrent");
    let (seed, storage) = (chance.word(0).into(), &mut sockets.all);
    let mut link = Link::new(nic, board.hardware_address(), seed, storage, now);
    add_lines(&mut link.sockets, rings, &mut memory.requests, &mut memory.lines);
    let (local_socket, handles) =
        add_others(&mut link.sockets, others, &mut sockets.local, &mut sockets.tracker);
    let mut tracker = Tracker::new(&share.head, peer_id, PORT, chance.word(2), handles, now);
    let whole = |counter: &Counter<'_, F>| counter.was_whole(share.head.metainfo_crc);
    Works {
        local: Local::new(share.head.info_hash.on_the_wire(), PORT, chance.word(1), now),
        local_socket,
        tracker: &mut tracker,
        open: counter.as_ref().is_some_and(whole),
        check: Some(Check::default()),
        said: Said::default(),
        again: false,
        share: &share,
        board,
        counter: &mut counter,
        link: &mut link,
        swarm: &mut swarm,
        torrent,
        lines: &mut memory.lines,
        scratch,
    }
    .run()
}

/// A socket, its rings and a request queue for each line.
#[inline(never)]
fn add_lines<const LINES: usize, const RX: usize, const TX: usize, const REQUESTS: usize>(
    sockets: &mut SocketSet<'static>,
    rings: &'static mut [Rings<RX, TX>; LINES],
    requests: &'static mut [[Request; REQUESTS]; LINES],
    lines: &mut [Option<Line>; LINES],
) {
    let parts = rings.iter_mut().zip(requests).zip(lines);
    for (slot, ((rings, requests), line)) in parts.enumerate() {
        let mut socket = rings.stream();
        // A block's last bytes are not held back for more.
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(LOST_AFTER));
        *line = Some(Line::new(PeerSlot(slot as u16), sockets.add(socket), requests));
    }
}

/// The sockets of local discovery and of the tracker.
#[inline(never)]
fn add_others(
    sockets: &mut SocketSet<'static>,
    rings: &'static mut OtherRings,
    local: &'static mut Marks,
    tracker: &'static mut Marks,
) -> (SocketHandle, TrackerSockets) {
    let local = sockets.add(rings.local.datagrams(local));
    let datagrams = sockets.add(rings.tracker.datagrams(tracker));
    (local, TrackerSockets { datagrams, stream: sockets.add(rings.http.stream()) })
}

#[inline(never)]
fn open_share<'f, B: Board, F: NorFlash>(
    flash: &'f RefCell<F>,
    head: &'f mut [u8; HEAD_BYTES],
    scratch: &mut [u8],
) -> Result<Share<'f, F>, NoShare> {
    let read = flash.borrow_mut().read(0, head);
    read.map_err(|error| NoShare::Unreadable(error.kind()))?;
    Share::open(flash, head, B::NAME, scratch)
}

/// Opens the journal and says what is shared and what was counted of it.
#[inline(never)]
fn open_counter<'m, F: NorFlash>(
    board: &mut impl Board,
    share: &Share<'m, F>,
    buffer: &'m mut [u8],
) -> Option<Counter<'m, F>> {
    let (hash, layout) = (share.head.info_hash, share.head.layout);
    let (bytes, pieces) = (layout.total_bytes, layout.piece_count());
    say(board, format_args!("image: {hash}, {bytes} bytes, {pieces} pieces"));
    match Counter::open(share.journal(), buffer, hash) {
        Ok(counter) => {
            say(board, format_args!("journal: {} bytes sent before", counter.before()));
            Some(counter)
        }
        Err(why) => {
            say(board, format_args!("journal: {why}; nothing is counted"));
            None
        }
    }
}

/// Numbers nobody can guess: from the image's own, the board's address, the clock, and the journal's
/// state, which no two starts share as long as it can be written.
struct Chance([u8; 20]);

impl Chance {
    fn new<F: NorFlash>(
        share: &Share<'_, F>,
        counter: Option<&Counter<'_, F>>,
        hardware_address: [u8; 6],
        now: Instant,
    ) -> Chance {
        let mut hasher = PieceHasher::default();
        hasher.update(&share.head.seed);
        hasher.update(&hardware_address);
        let state = counter.map_or([0, 0], Counter::chance);
        state.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
        hasher.update(&now.as_millis().to_le_bytes());
        Chance(hasher.finish())
    }

    /// One of three numbers.
    fn word(&self, index: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[4 * index..4 * index + 4]);
        u32::from_le_bytes(word)
    }

    /// A name for this run.
    fn peer_id(&self) -> PeerId {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        PeerId::ours([a, b, c, d, e, f, g, h, i, j, k, l])
    }
}

/// Writes a line to the console.
fn say(board: &mut impl Board, what: fmt::Arguments<'_>) {
    struct Console<'b, B>(&'b mut B);
    impl<B: Board> fmt::Write for Console<'_, B> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.print(text);
            Ok(())
        }
    }
    // A console takes everything.
    let _ = fmt::Write::write_fmt(&mut Console(board), format_args!("{what}\n"));
}

/// Where peers find the share: BitTorrent's own port, as nobody else is here to take it.
const PORT: u16 = 6881;

/// A peer whose end has acknowledged nothing for so long is gone.
const LOST_AFTER: Duration = Duration::from_secs(60);
