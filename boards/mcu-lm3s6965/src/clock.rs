//! Time, and sleep: SysTick runs through its 24 bits without ever being set back, so that the clock
//! does not drift; its wraps, three a second, are counted. A timer ends sleeps that are shorter.

use crate::chip::{self, CYCLES_PER_MS, ethernet, processor, timer, uart};
use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::exception;
use perennial::engine::units::Instant;

/// The one clock. It needs no device interrupt to be taken: they only end a sleep.
pub struct Clock(());

impl Clock {
    /// Starts it at 0.
    pub fn start(mut systick: SYST) -> Clock {
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(WRAP - 1);
        systick.clear_current();
        systick.enable_counter();
        systick.enable_interrupt();
        timer::CONFIGURATION.write(timer::WHOLE);
        timer::MODE.write(timer::ONE_SHOT);
        timer::INTERRUPT_MASK.write(timer::TIME_OUT);
        Clock(())
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> Instant {
        let cycles = cortex_m::interrupt::free(|_| {
            let before = SYST::get_current();
            let wraps = WRAPS.load(Ordering::Relaxed);
            // It counts down; a wrap that is not counted yet came before or after it was read.
            match SCB::is_pendst_pending() {
                true => u64::from(wraps + 1) * u64::from(WRAP) + passed(SYST::get_current()),
                false => u64::from(wraps) * u64::from(WRAP) + passed(before),
            }
        });
        Instant::from_millis(cycles / u64::from(CYCLES_PER_MS))
    }

    /// Sleeps until then, or until one of `EVENTS` or of what `awake` looks at.
    pub fn sleep(&self, until: Instant, awake: impl Fn() -> bool) {
        let left_ms = until.since(self.now()).min(u64::from(u32::MAX / CYCLES_PER_MS)) as u32;
        timer::CONTROL.write(0);
        timer::CLEAR.write(timer::TIME_OUT);
        timer::LOAD.write(left_ms * CYCLES_PER_MS);
        timer::CONTROL.write(timer::ENABLE);
        // Interrupts are held back between the look and the sleep, which a pending one ends all the
        // same: nothing is slept through, and none is taken.
        while cortex_m::interrupt::free(|_| {
            let asleep = !awake() && self.now() < until;
            if asleep {
                each(processor::INTERRUPT_CLEAR);
                each(processor::INTERRUPT_ON);
                cortex_m::asm::wfi();
                each(processor::INTERRUPT_OFF);
            }
            asleep
        }) {}
    }
}

/// Cycles since SysTick last wrapped.
fn passed(left: u32) -> u64 {
    u64::from((WRAP - left) % WRAP)
}

/// Writes the interrupts that end a sleep to such registers.
fn each(registers: [chip::Register; 2]) {
    registers[0].write(1 << uart::INTERRUPT | 1 << timer::INTERRUPT);
    registers[1].write(1 << (ethernet::INTERRUPT - 32));
}

#[exception]
fn SysTick() {
    WRAPS.store(WRAPS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// 336 ms: lasts for 45 years.
static WRAPS: AtomicU32 = AtomicU32::new(0);
const WRAP: u32 = 1 << 24;
