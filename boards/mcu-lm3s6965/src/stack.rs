//! The stack, painted, so that what it has touched can be told.

use core::ops::Range;

/// The memory the linker gave to the stack (`memory.x`).
pub struct Stack(());

impl Stack {
    /// Paints what is free of it.
    pub fn paint() -> Stack {
        for address in span().start..cortex_m::register::msp::read() {
            // SAFETY: it lies in the stack and below its pointer, where nothing is kept; no
            // interrupt is on yet.
            unsafe { (address as *mut u8).write_volatile(PAINT) };
        }
        Stack(())
    }

    /// The deepest it has been, and how deep it may be, in bytes.
    pub fn depth(&self) -> (usize, usize) {
        let span = span();
        let deepest = span.clone().find(|&address| !painted(address)).unwrap_or(span.end);
        ((span.end - deepest) as usize, (span.end - span.start) as usize)
    }

    /// Whether it has been where it must not be: in its last bytes.
    pub fn overrun(&self) -> bool {
        let start = span().start;
        !(start..start + GUARD_BYTES).all(painted)
    }
}

/// Whether a fault with the stack's pointer there is one of the stack's depth.
pub fn is_beyond(pointer: u32) -> bool {
    pointer < span().start + GUARD_BYTES
}

/// Words above a pointer into the stack that may be return addresses: the callers are among them.
pub fn return_addresses(pointer: u32) -> impl Iterator<Item = u32> {
    let code = (&raw const __stext) as u32..(&raw const __etext) as u32;
    let words = (pointer.next_multiple_of(4).max(span().start)..span().end).step_by(4);
    // SAFETY: it lies in the stack, which any word may be read of.
    let words = words.map(|address| unsafe { (address as *const u32).read_volatile() });
    words.filter(move |word| word % 2 == 1 && code.contains(word))
}

fn painted(address: u32) -> bool {
    // SAFETY: it lies in the stack, which any byte may be read of.
    unsafe { (address as *const u8).read_volatile() == PAINT }
}

/// Where it lies: it grows from the end to the start.
fn span() -> Range<u32> {
    (&raw const _stack_end) as u32..(&raw const _stack_start) as u32
}

// SAFETY: the linker script has them; only their addresses mean anything.
unsafe extern "C" {
    static _stack_start: u8;
    static _stack_end: u8;
    static __stext: u8;
    static __etext: u8;
}

const PAINT: u8 = 0xA5;
/// The last bytes: never to be touched.
const GUARD_BYTES: u32 = 16;
