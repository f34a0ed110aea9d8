//! The console: a UART of the NS16550 kind, polled.

use crate::mmio::Register;
use core::fmt;

/// The line of the UART at the interrupt controller.
pub const LINE: u32 = 10;

/// The console. It holds nothing: panics and the watchdog print through one of their own.
pub struct Console;

impl Console {
    /// Lets keys raise an interrupt, which ends a sleep. They wait in 16 bytes of the UART.
    pub fn start() -> Console {
        FIFO_CONTROL.write(1);
        INTERRUPT_ENABLE.write(1);
        Console
    }

    /// Prints. A character the other side does not take in time is lost.
    pub fn print(&mut self, text: &str) {
        for byte in text.bytes() {
            let _ = (0..TRIES_MAX).any(|_| LINE_STATUS.read() & TAKES != 0);
            DATA.write(byte);
        }
    }

    /// The next key pressed.
    pub fn key(&mut self) -> Option<u8> {
        (LINE_STATUS.read() & HAS_KEY != 0).then(|| DATA.read())
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.print(text);
        Ok(())
    }
}

/// Looks at the UART before a character is given up: some milliseconds.
const TRIES_MAX: u32 = 100_000;

const DATA: Register<u8> = Register::at(0x1000_0000);
const INTERRUPT_ENABLE: Register<u8> = Register::at(0x1000_0001);
const FIFO_CONTROL: Register<u8> = Register::at(0x1000_0002);
const LINE_STATUS: Register<u8> = Register::at(0x1000_0005);

const HAS_KEY: u8 = 0x01;
const TAKES: u8 = 0x20;
