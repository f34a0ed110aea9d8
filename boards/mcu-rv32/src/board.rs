//! The board as the firmware sees it: clock, sleep, watchdog, console, stack.
//!
//! While awake it is never interrupted but by the watchdog. It sleeps with interrupts held back:
//! frame, key and alarm end the sleep, and nobody has to be told about them but the loop, which
//! looks at everything in turn. So there is no interrupt handler that shares anything with it.

use crate::console::{self, Console};
use crate::mmio::Register;
use crate::nic::Port;
use crate::{clock, stack, system};
use perennial::engine::units::Instant;
use perennial::firmware;
use riscv::interrupt::Interrupt;
use riscv::register::mie;

/// The board. One of it, for it moves the one alarm.
pub struct Board {
    console: Console,
    port: Port,
    /// When the watchdog wakes, in ticks.
    watchdog: u64,
}

impl Board {
    /// Starts the watchdog, and lets frames at `port` and keys end a sleep.
    pub fn start(port: Port) -> Board {
        for line in [port.line, console::LINE] {
            Register::at(LINE_PRIORITY + 4 * line as usize).write(1_u32);
        }
        LINES_ENABLE.write(1 << port.line | 1 << console::LINE);
        LINE_THRESHOLD.write(0);
        let mut board = Board { console: Console::start(), port, watchdog: 0 };
        firmware::Board::pet(&mut board);
        // SAFETY: the only interrupt let through is the alarm's, and its handler leaves nothing
        // half done: it looks, or it restarts the machine.
        unsafe {
            mie::enable(Interrupt::MachineTimer);
            riscv::interrupt::enable();
        }
        board
    }

    /// Takes back the interrupts that ended a sleep.
    fn acknowledge(&mut self) {
        loop {
            match LINE_CLAIM.read() {
                0 => return,
                line => {
                    if line == self.port.line {
                        self.port.acknowledge();
                    }
                    LINE_CLAIM.write(line);
                    // A key stays at the UART until it is read, and its line stays up as long.
                    if line == console::LINE {
                        return;
                    }
                }
            }
        }
    }
}

impl firmware::Board for Board {
    const NAME: &'static str = env!("CARGO_PKG_NAME");

    fn now(&mut self) -> Instant {
        clock::now()
    }

    /// It also ends in time for the loop to turn and feed the watchdog.
    fn sleep(&mut self, until: Instant) {
        let latest = self.watchdog - WATCHDOG_TICKS / 2;
        riscv::interrupt::free(|| {
            clock::set_alarm(clock::ticks_at(until).min(latest));
            // SAFETY: interrupts are held back: this one ends the sleep and is never taken.
            unsafe { mie::enable(Interrupt::MachineExternal) };
            riscv::asm::wfi();
            mie::disable(Interrupt::MachineExternal);
            clock::set_alarm(self.watchdog);
        });
        self.acknowledge();
    }

    fn hardware_address(&self) -> [u8; 6] {
        self.port.hardware_address()
    }

    fn carrier(&mut self) -> bool {
        self.port.carrier()
    }

    fn print(&mut self, text: &str) {
        self.console.print(text);
    }

    fn key(&mut self) -> Option<u8> {
        self.console.key()
    }

    /// A stack that has met its end is found here, too.
    fn pet(&mut self) {
        if stack::is_overrun() {
            system::fail();
        }
        self.watchdog = clock::ticks() + WATCHDOG_TICKS;
        clock::set_alarm(self.watchdog);
    }

    fn stack(&self) -> (usize, usize) {
        stack::depth()
    }
}

/// 30 s: longer than the longest turn of the loop, in which a unit of the flash is erased.
const WATCHDOG_TICKS: u64 = 30_000 * clock::TICKS_PER_MS;

/// The interrupt controller (PLIC), of which the processor's machine mode is context 0.
const LINE_PRIORITY: usize = 0x0c00_0000;
const LINES_ENABLE: Register<u32> = Register::at(0x0c00_2000);
const LINE_THRESHOLD: Register<u32> = Register::at(0x0c20_0000);
const LINE_CLAIM: Register<u32> = Register::at(0x0c20_0004);
