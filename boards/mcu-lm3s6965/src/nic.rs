//! The Ethernet MAC as a smoltcp device: one frame in, one frame out, each in its buffer.

use crate::chip::{self, ethernet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// A frame as the MAC's queues have it: two bytes of length, then the frame, in whole words.
pub type Frame = [u8; 2 + FRAME_BYTES + CRC_BYTES];

/// A frame's buffer with nothing in it.
pub const EMPTY: Frame = [0; 2 + FRAME_BYTES + CRC_BYTES];

/// The MAC. Its address is [`address`].
pub struct Nic {
    received: &'static mut Frame,
    sent: &'static mut Frame,
}

impl Nic {
    /// Starts it: from now on frames come in.
    pub fn start(received: &'static mut Frame, sent: &'static mut Frame) -> Nic {
        let burnt = chip::BURNT_ADDRESS.map(|half| half.read() & 0xFF_FFFF);
        if address() == [0; 6] && burnt != [0xFF_FFFF; 2] {
            ethernet::ADDRESS[0].write(burnt[0] | burnt[1] << 24);
            ethernet::ADDRESS[1].write(burnt[1] >> 8);
        }
        ethernet::TRANSMIT.write(ethernet::TRANSMIT_ALL);
        ethernet::INTERRUPT_MASK.write(ethernet::RECEIVED);
        restart_receiver();
        Nic { received, sent }
    }

    /// Fetches a frame; its length.
    fn fetch(&mut self) -> Option<usize> {
        if !frame_waits() {
            return None;
        }
        let first = ethernet::DATA.read().to_le_bytes();
        let whole = usize::from(u16::from_le_bytes([first[0], first[1]]));
        let Some(length) = whole.checked_sub(2 + CRC_BYTES).filter(|&length| length <= FRAME_BYTES)
        else {
            restart_receiver();
            return None;
        };
        self.received[..4].copy_from_slice(&first);
        for word in self.received[4..whole.next_multiple_of(4)].chunks_exact_mut(4) {
            word.copy_from_slice(&ethernet::DATA.read().to_le_bytes());
        }
        Some(length)
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let length = self.fetch()?;
        Some((Received(&self.received[2..2 + length]), Sent(self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        // The chip's own queue is 2 KiB: a second long frame has to wait for the first to be fetched.
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that has come.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame to go out.
pub struct Sent<'a>(&'a mut Frame);

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let result = write(&mut self.0[2..2 + length]);
        let payload = length.saturating_sub(HEADER_BYTES) as u16;
        self.0[..2].copy_from_slice(&payload.to_le_bytes());
        // One frame at a time: at 100 Mbit/s the one before takes 0.12 ms.
        while ethernet::TRANSMIT_REQUEST.read() & 1 != 0 {}
        for word in self.0[..(2 + length).next_multiple_of(4)].chunks_exact(4) {
            let word = [word[0], word[1], word[2], word[3]];
            ethernet::DATA.write(u32::from_le_bytes(word));
        }
        ethernet::TRANSMIT_REQUEST.write(1);
        result
    }
}

/// The interface's address.
pub fn address() -> [u8; 6] {
    let [low, high] = ethernet::ADDRESS.map(|half| half.read().to_le_bytes());
    [low[0], low[1], low[2], low[3], high[0], high[1]]
}

/// Whether there is a frame to be fetched. If not, the next one raises the interrupt.
pub fn frame_waits() -> bool {
    ethernet::EVENTS.write(ethernet::RECEIVED);
    ethernet::FRAMES_WAITING.read() & 0x3F != 0
}

/// Throws away what has come so far: after a length that is none nobody knows where a frame begins.
fn restart_receiver() {
    ethernet::RECEIVE.write(0);
    ethernet::RECEIVE.write(ethernet::RESET_QUEUE);
    let how = ethernet::RECEIVE_ENABLE | ethernet::MULTICAST | ethernet::REJECT_DAMAGED;
    ethernet::RECEIVE.write(how);
}

/// What knows whether there is a cable: the PHY.
pub struct Phy {
    answers: bool,
}

impl Phy {
    /// Looks for it. There may be none: emulators leave it out.
    pub fn find() -> Phy {
        // Its clock is at most 2.5 MHz: 50 MHz / 2 / (9 + 1).
        ethernet::PHY_CLOCK.write(9);
        Phy { answers: phy_register(PHY_IDENTITY).is_some_and(|id| id != 0 && id != 0xFFFF) }
    }

    /// Whether there is a cable; yes, where nobody can tell.
    pub fn link(&self) -> bool {
        let status = if self.answers { phy_register(PHY_STATUS) } else { None };
        status.is_none_or(|status| status & PHY_LINK != 0)
    }
}

/// A register of the PHY, if it answers within about a millisecond.
fn phy_register(number: u32) -> Option<u32> {
    ethernet::PHY_CONTROL.write(number << 3 | ethernet::PHY_START);
    let done = (0..5_000).any(|_| ethernet::PHY_CONTROL.read() & ethernet::PHY_START == 0);
    done.then(|| ethernet::PHY_READ.read() & 0xFFFF)
}

/// An Ethernet header, and all of a frame but its CRC.
const HEADER_BYTES: usize = 14;
const FRAME_BYTES: usize = 1514;
const CRC_BYTES: usize = 4;
const PHY_STATUS: u32 = 1;
const PHY_LINK: u32 = 1 << 2;
const PHY_IDENTITY: u32 = 2;
