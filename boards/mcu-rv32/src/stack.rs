//! How deep the stack has been: it is painted at the start, and what is still painted was not used.
//!
//! It grows down from the top of the board's resident memory towards the static data. Its lowest
//! words are the guard: once one has changed, the data below may have, too.

use core::arch::asm;
use core::ptr;

unsafe extern "C" {
    // The lowest and the highest end of the stack, from `riscv-rt`'s linker script.
    static __estack: u32;
    static __sstack: u32;
}

/// Paints what lies below the caller's frame. To be called once, first of all.
#[inline(always)]
pub fn paint() {
    let now: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mv {}, sp", out(reg) now, options(nomem, nostack, preserves_flags)) };
    for address in (ends().0..now).step_by(size_of::<u32>()) {
        // SAFETY: between the stack's end and the stack pointer lies nothing: this ABI has no red
        // zone, and interrupts are off.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(PAINT) };
    }
}

/// The deepest the stack has been, and how deep it may be, in bytes.
pub fn depth() -> (usize, usize) {
    let (low, high) = ends();
    let used = (low..high).step_by(size_of::<u32>()).find(|&address| word(address) != PAINT);
    (high - used.unwrap_or(high), high - low)
}

/// Whether the stack has reached its end.
pub fn is_overrun() -> bool {
    let low = ends().0;
    (low..low + GUARD_BYTES).step_by(size_of::<u32>()).any(|address| word(address) != PAINT)
}

fn ends() -> (usize, usize) {
    ((&raw const __estack).expose_provenance(), (&raw const __sstack).expose_provenance())
}

fn word(address: usize) -> u32 {
    // SAFETY: the callers stay between the ends of the stack, which are aligned.
    unsafe { ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

const PAINT: u32 = 0x5ba5_ed0c;
const GUARD_BYTES: usize = 32;
