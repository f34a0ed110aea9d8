//! How it all ends: a status for whoever watches, be it an emulator or a debugger, else a rest.
//!
//! The status goes out by semihosting, which is a breakpoint. Without a debugger a breakpoint is a
//! fault, and the fault's handler brings it to an end: after a verdict the chip rests until its
//! power is cut, after a panic or a fault it starts again.

use crate::chip::processor::FAULT_STATUS;
use crate::console::Console;
use crate::{stack, watchdog};
use core::arch::naked_asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};
use cortex_m::peripheral::SCB;

/// It panicked, or faulted.
pub const PANIC: u8 = 101;
/// The stack has been deeper than there is memory for it.
pub const STACK_OVERRUN: u8 = 102;

/// Ends with a status: the last thing that is done.
pub fn end(status: u8) -> ! {
    STATUS.store(status, Ordering::Relaxed);
    Console::opened().flush();
    semihosting::process::exit(i32::from(status))
}

/// What a panic says of itself is left out: places alone take 13 KB of flash, messages 10 KB more.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    cortex_m::interrupt::disable();
    tell("panic", cortex_m::register::msp::read())
}

/// Says on the console what went wrong and from where: `addr2line` makes lines of the addresses.
fn tell(what: &str, pointer: u32) -> ! {
    let mut console = Console::opened();
    let _ = write!(console, "{what}, called from");
    for address in stack::return_addresses(pointer).take(CALLERS_MAX) {
        let _ = write!(console, " {address:#x}");
    }
    console.print("\n");
    end(PANIC)
}

/// Comes here with the stack's pointer, be it good or bad, and begins a new stack: what was on the
/// old one is never gone back to.
// SAFETY: `cortex-m-rt` has the processor call what has this name; it keeps none of a function's
// promises but never to return.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn HardFault() -> ! {
    naked_asm!(
        "mrs r0, msp",
        "movw r1, :lower16:_stack_start",
        "movt r1, :upper16:_stack_start",
        "msr msp, r1",
        "b {fault}",
        fault = sym fault,
    )
}

extern "C" fn fault(pointer: u32) -> ! {
    match STATUS.load(Ordering::Relaxed) {
        RUNNING if stack::is_beyond(pointer) => {
            Console::opened().print("stack overrun\n");
            end(STACK_OVERRUN)
        }
        RUNNING => {
            let _ = writeln!(Console::opened(), "fault status {:#x}", FAULT_STATUS.read());
            tell("fault", pointer)
        }
        // The status was not wanted: nobody watches. (A second fault does not come here: it locks
        // the processor up, and the watchdog resets it.)
        PANIC | STACK_OVERRUN => SCB::sys_reset(),
        _ => loop {
            watchdog::pet();
        },
    }
}

static STATUS: AtomicU8 = AtomicU8::new(RUNNING);
/// No status: it has not ended.
const RUNNING: u8 = 255;
const CALLERS_MAX: usize = 6;
