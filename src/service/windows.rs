//! Receive windows: how much a peer may send ahead of our reading.
//!
//! So much of the kernel's memory a connection can hold, and no more can a peer send in one round
//! trip. Every connection has the board's `receive_kib`; the first few that we dial have a wide one,
//! `wide_kib`, so that one good source suffices for a fast fetch: of 512 KiB over a way of 50 ms it
//! is 10 MiB a second. More comes of a read, too, the less often a thread is woken for it. A system
//! may allow less (`net.core.rmem_max`, as a rule 208 KiB).

use super::board::Sockets;
use std::cell::Cell;

/// All windows of the box.
pub struct Windows {
    /// What everybody has, in bytes.
    least: usize,
    /// What a wide one is, in bytes.
    wide: usize,
    /// Wide ones that nobody has.
    wide_left: Cell<u16>,
}

/// The window of one connection. It is agreed on with the first packet and stays.
pub struct Window<'w> {
    bytes: usize,
    taken_from: Option<&'w Cell<u16>>,
}

impl Windows {
    /// Those of a board.
    pub fn of(sockets: &Sockets) -> Windows {
        let bytes = |kib: u32| kib as usize * 1024;
        let (least, wide) = (bytes(sockets.receive_kib), bytes(sockets.wide_kib));
        Windows { least, wide: wide.max(least), wide_left: Cell::new(sockets.wide_max) }
    }

    /// What everybody has, in bytes.
    pub fn least(&self) -> usize {
        self.least
    }

    /// A window for a connection: for one that is `dialled` a wide one, while there are some.
    pub fn take(&self, dialled: bool) -> Window<'_> {
        let left = self.wide_left.get().checked_sub(1).filter(|_| dialled);
        let Some(left) = left else {
            return Window { bytes: self.least, taken_from: None };
        };
        self.wide_left.set(left);
        Window { bytes: self.wide, taken_from: Some(&self.wide_left) }
    }
}

impl Window<'_> {
    /// How wide it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.taken_from.inspect(|left| left.set(left.get() + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_wide_and_come_back() {
        let windows = Windows { least: 32 << 10, wide: 128 << 10, wide_left: Cell::new(2) };
        let taken = [true, false, true, true].map(|dialled| windows.take(dialled));
        assert_eq!(taken.each_ref().map(|one| one.bytes() >> 10), [128, 32, 128, 32]);
        drop(taken);
        assert_eq!(windows.wide_left.get(), 2);
    }
}
