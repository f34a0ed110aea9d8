//! The clock (CLINT), and the one alarm that both sleep and watchdog hang on.
//!
//! The alarm stands at the watchdog's deadline, with its interrupt let through, except while the
//! processor sleeps: then interrupts are held back and it may stand earlier. So a timer interrupt
//! that is taken always means that the watchdog was not fed.

use crate::console::Console;
use crate::mmio::Register;
use crate::system;
use perennial::engine::units::Instant;
use riscv::interrupt::Interrupt;

/// Ticks since the machine was switched on.
pub fn ticks() -> u64 {
    loop {
        let high = TIME_HIGH.read();
        let low = TIME_LOW.read();
        if TIME_HIGH.read() == high {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Now, in milliseconds.
pub fn now() -> Instant {
    Instant::from_millis(ticks() / TICKS_PER_MS)
}

/// The tick at which that moment begins.
pub fn ticks_at(moment: Instant) -> u64 {
    moment.as_millis().saturating_mul(TICKS_PER_MS)
}

/// Puts the alarm at `at`, in ticks. At no time in between does it stand earlier than both.
pub fn set_alarm(at: u64) {
    ALARM_HIGH.write(u32::MAX);
    ALARM_LOW.write(at as u32);
    ALARM_HIGH.write((at >> 32) as u32);
}

/// The watchdog: the loop has not turned for so long that only a new start can help.
#[riscv_rt::core_interrupt(Interrupt::MachineTimer)]
fn starved() {
    let alarm = u64::from(ALARM_HIGH.read()) << 32 | u64::from(ALARM_LOW.read());
    // The alarm may have been moved just as it rang.
    if ticks() >= alarm {
        Console.print("\nwatchdog: the loop stands still: starting again\n");
        system::restart();
    }
}

/// The clock runs at 10 MHz.
pub const TICKS_PER_MS: u64 = 10_000;

const ALARM_LOW: Register<u32> = Register::at(0x0200_4000);
const ALARM_HIGH: Register<u32> = Register::at(0x0200_4004);
const TIME_LOW: Register<u32> = Register::at(0x0200_bff8);
const TIME_HIGH: Register<u32> = Register::at(0x0200_bffc);
