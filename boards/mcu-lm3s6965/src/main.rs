//! perennial on the Stellaris LM3S6965 evaluation board: a Cortex-M3 with 64 KiB of memory and
//! Ethernet on the chip. The share lies on an SD card.
//!
//! All memory is in statics whose sizes come from `profile.toml`; `memory.x` keeps 10 KiB of the
//! chip's for the stack.

#![no_std]
#![no_main]

mod board;
mod card;
mod chip;
mod clock;
mod console;
mod end;
mod nic;
mod stack;
mod watchdog;

/// The numbers of `profile.toml`.
mod profile {
    include!(concat!(env!("OUT_DIR"), "/profile.rs"));
}

use board::Board;
use card::{Card, Sector};
use clock::Clock;
use console::Console;
use core::fmt::Write;
use cortex_m_rt::entry;
use nic::{Frame, Nic};
use perennial::engine::swarm::SwarmLimits;
use perennial::firmware::{self, Buffers, Memory, Sockets, Verdict, run};
use profile::{PEERS_MAX, PER_ADDRESS_MAX, REQUESTS, RX_BYTES, TX_BYTES, UNCHOKED_MAX};
use stack::Stack;

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory<LINES, REQUESTS> = Memory::new();
    static mut SOCKETS: Sockets = Sockets::new();
    static mut BUFFERS: Buffers<LINES, RX_BYTES, TX_BYTES> = Buffers::new();
    static mut RECEIVED: Frame = nic::EMPTY;
    static mut SENT: Frame = nic::EMPTY;
    static mut SECTOR: Sector = card::EMPTY;
    let stack = Stack::paint();
    let core = cortex_m::Peripherals::take().expect("nobody has taken them before");
    chip::start();
    let mut console = Console::open();
    let card = Card::open(SECTOR);
    if let Err(error) = &card {
        let (version, name) = (env!("CARGO_PKG_VERSION"), <Board as firmware::Board>::NAME);
        let _ = writeln!(console, "perennial {version} on {name}\nimage refused: {error}");
    }
    let mut board = Board::start(Clock::start(core.SYST), console, stack);
    let verdict = card.map_or(Verdict::NoImage, |card| {
        let mut nic = Nic::start(RECEIVED, SENT);
        run(&mut board, &mut nic, card, MEMORY, SOCKETS, BUFFERS, LIMITS)
    });
    end::end(match verdict {
        Verdict::Stopped => 0,
        Verdict::NoImage => 2,
        Verdict::NotRecorded => 3,
    })
}

/// One connection more than peers, so that a newcomer can be told to go.
const LINES: usize = PEERS_MAX + 1;

// The writer of images counts pieces by the profile.
const _: () = assert!(profile::BITS_BYTES == perennial::firmware::BITS_BYTES);

const LIMITS: SwarmLimits = SwarmLimits {
    peers_max: PEERS_MAX as u16,
    unchoked_max: UNCHOKED_MAX as u16,
    per_address_max: PER_ADDRESS_MAX as u16,
};
