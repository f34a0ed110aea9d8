#![no_std]
#![no_main]
//! A seed in 256 KiB: 32-bit RISC-V with virtio-net, as QEMU's `virt` machine has it.
//!
//! Code runs where it lies in the first NOR bank, the image lies in the second, and there is no
//! third place: `scripts/qemu-run` says how to start it. The exit status is the verdict.

mod board;
mod clock;
mod console;
mod mmio;
mod nic;
mod nor;
mod stack;
mod system;
mod profile {
    include!(concat!(env!("OUT_DIR"), "/profile.rs"));
}

use board::Board;
use embedded_storage::nor_flash::NorFlash;
use nic::Nic;
use nor::Nor;
use perennial::engine::swarm::SwarmLimits;
use perennial::firmware::{Buffers, Memory, Sockets, Verdict, run};
use profile::{PEERS_MAX, PER_ADDRESS_MAX, REQUESTS, RX_BYTES, TX_BYTES, UNCHOKED_MAX, UNIT_BYTES};

#[riscv_rt::entry]
fn main() -> ! {
    stack::paint();
    let (mut nic, port) = Nic::start();
    let mut board = Board::start(port);
    static mut MEMORY: Memory<LINES, REQUESTS> = Memory::new();
    static mut SOCKETS: Sockets = Sockets::new();
    static mut BUFFERS: Buffers<LINES, RX_BYTES, TX_BYTES> = Buffers::new();
    let (memory, sockets, buffers) = (&raw mut MEMORY, &raw mut SOCKETS, &raw mut BUFFERS);
    // SAFETY: `main` runs once, and nobody else can name them.
    let (memory, sockets, buffers) = unsafe { (&mut *memory, &mut *sockets, &mut *buffers) };
    let limits = SwarmLimits {
        peers_max: PEERS_MAX as u16,
        unchoked_max: UNCHOKED_MAX as u16,
        per_address_max: PER_ADDRESS_MAX as u16,
    };
    let nor = Nor::start();
    system::exit(match run(&mut board, &mut nic, nor, memory, sockets, buffers, limits) {
        Verdict::Stopped => 0,
        Verdict::NoImage => 2,
        Verdict::NotRecorded => 3,
    })
}

/// One connection more than peers, so that a newcomer can be told to go.
const LINES: usize = PEERS_MAX + 1;

// The writer of images counts pieces by the profile.
const _: () = assert!(profile::BITS_BYTES == perennial::firmware::BITS_BYTES);

// The writer of images lays the journal out by the profile.
const _: () = assert!(UNIT_BYTES == Nor::ERASE_SIZE);
