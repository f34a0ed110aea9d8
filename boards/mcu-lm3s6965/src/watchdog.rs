//! The watchdog: resets the chip when it was not petted for 30 seconds: a slow card takes some
//! to erase half of the journal.

use crate::chip::{CYCLES_PER_MS, watchdog};

/// Arms it. It cannot be disarmed; it stands still while a debugger has stopped the processor.
pub fn arm() {
    watchdog::LOAD.write(HALF_MS * CYCLES_PER_MS);
    watchdog::TEST.write(watchdog::STALL);
    watchdog::CONTROL.write(watchdog::RESET_ENABLE | watchdog::INTERRUPT_ENABLE);
}

/// Tells it that all is well.
pub fn pet() {
    watchdog::CLEAR.write(1);
}

/// It resets when it runs out for the second time: the first is an interrupt, which nobody takes.
const HALF_MS: u32 = 15_000;
