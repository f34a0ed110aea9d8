//! What happened in a run, boiled down to a number: two runs that differ anywhere differ in it.

use perennial::engine::units::Instant;

/// The digest so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    digest: u64,
}

impl Trace {
    pub fn new() -> Trace {
        Trace { digest: 0xCBF2_9CE4_8422_2325 }
    }

    /// At `now` the connection at `slot` did `what` with `bytes`.
    pub fn note(&mut self, now: Instant, slot: u16, what: u8, bytes: &[u8]) {
        let head = [now.as_millis(), slot.into(), what.into(), bytes.len() as u64];
        let crc = crc32fast::hash(bytes).into();
        for number in head.into_iter().chain([crc]) {
            // FNV-1a, eight bytes at a time.
            self.digest = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }
}
