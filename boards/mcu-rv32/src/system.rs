//! The ways out: QEMU's exit status, a new start, and what happens when the program is wrong.

use crate::console::Console;
use crate::mmio::Register;
use crate::stack;
use core::fmt::Write;
use core::panic::PanicInfo;

/// Ends the run: QEMU exits with `status`, which is below 256; a board halts.
pub fn exit(status: u32) -> ! {
    CONTROL.write(if status == 0 { PASS } else { status << 16 | FAIL });
    halt()
}

/// Starts again from the reset vector. Flash keeps what it holds, memory does not.
pub fn restart() -> ! {
    CONTROL.write(RESET);
    halt()
}

/// Ends the run of a program that is wrong: what went wrong first is an overrun stack, if it was.
/// Where nobody takes the status the board starts again.
pub fn fail() -> ! {
    let overrun = stack::is_overrun();
    if overrun {
        Console.print("stack: overrun\n");
    }
    let status = if overrun { STACK_OVERRUN } else { PANICKED };
    CONTROL.write(status << 16 | FAIL);
    restart()
}

fn halt() -> ! {
    riscv::interrupt::disable();
    loop {
        riscv::asm::wfi();
    }
}

#[panic_handler]
fn panicked(panic: &PanicInfo) -> ! {
    riscv::interrupt::disable();
    let _ = writeln!(Console, "{panic}");
    fail()
}

/// An access, an instruction or an interrupt that should not be.
// SAFETY: `riscv-rt` looks for this name and calls it with its trap frame, which is not read.
#[unsafe(export_name = "ExceptionHandler")]
fn trapped(_: &riscv_rt::TrapFrame) -> ! {
    let cause = riscv::register::mcause::read().bits();
    let (at, about) = (riscv::register::mepc::read(), riscv::register::mtval::read());
    let _ = writeln!(Console, "trap: cause {cause} at {at:#x}, about {about:#x}");
    fail()
}

const PANICKED: u32 = 101;
const STACK_OVERRUN: u32 = 102;

/// QEMU's `sifive_test`.
const CONTROL: Register<u32> = Register::at(0x0010_0000);
const PASS: u32 = 0x5555;
const FAIL: u32 = 0x3333;
const RESET: u32 = 0x7777;
