//! The console: UART 0, 115,200 bits a second, 8 data bits, no parity, one stop bit.

use crate::chip::uart;
use core::fmt;

/// The serial line. Printing waits for it, reading does not.
pub struct Console(());

impl Console {
    /// Opens it.
    pub fn open() -> Console {
        uart::CONTROL.write(0);
        // 50 MHz / (16 * 115,200) = 27 + 8/64.
        uart::DIVISOR[0].write(27);
        uart::DIVISOR[1].write(8);
        uart::LINE.write(uart::EIGHT_BITS_QUEUED);
        uart::INTERRUPT_MASK.write(uart::RECEIVED);
        uart::CONTROL.write(uart::BOTH_WAYS);
        Console(())
    }

    /// The console as [`Console::open`] left it, for who has to report a fault.
    pub fn opened() -> Console {
        Console(())
    }

    /// Writes text.
    pub fn print(&mut self, text: &str) {
        for byte in text.bytes() {
            while uart::FLAGS.read() & uart::TRANSMIT_FULL != 0 {}
            uart::DATA.write(u32::from(byte));
        }
    }

    /// Waits until all of it has left the chip.
    pub fn flush(&mut self) {
        while uart::FLAGS.read() & uart::BUSY != 0 {}
    }

    /// A key that was pressed.
    pub fn key(&mut self) -> Option<u8> {
        key_waits().then(|| uart::DATA.read() as u8)
    }
}

/// Whether there is a key to be read.
pub fn key_waits() -> bool {
    uart::FLAGS.read() & uart::RECEIVE_EMPTY == 0
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.print(text);
        Ok(())
    }
}
