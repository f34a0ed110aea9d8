//! Caps on bandwidth: of the whole box and of each torrent, up and down.
//!
//! Whoever is in the house is free of them unless the owner says otherwise: what does not cross the
//! line that is paid for costs nobody anything. Before something is sent or read the lesser of two
//! allowances is asked for, and what went is taken out of both; without one the connection waits
//! for the later of two moments. Nothing ticks: a cap that nobody meets costs nothing.
//!
//! Down, TCP does the rest: what is not read fills the peer's window, and it waits.

use super::Service;
use super::control::what::hex;
use crate::engine::limits::BLOCK_BYTES;
use crate::engine::swarm::bucket::Bucket;
use crate::engine::units::{Deadline, InfoHash, Instant, TorrentSlot};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::vec::Vec;

/// Rates in bytes a second; nothing where there is no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of the box.
    pub all: Option<u64>,
    /// Of each torrent.
    pub each: Option<u64>,
}

/// Caps as the owner wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapOptions {
    /// What may be sent.
    pub up: Rates,
    /// What may be read.
    pub down: Rates,
    /// Peers in the house are not free of them.
    pub lan: bool,
}

impl CapOptions {
    /// Whether there are any.
    fn are_any(&self) -> bool {
        *self != CapOptions { lan: self.lan, ..CapOptions::default() }
    }
}

/// A cap on one torrent alone, in bytes a second; nothing where that of all torrents holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Which.
    #[serde(with = "hex")]
    pub info_hash: InfoHash,
    /// What may be sent of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// What may be read of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
}

/// One way of the traffic.
pub struct Caps {
    all: RefCell<Bucket>,
    each: RefCell<Vec<Bucket>>,
}

impl Service<'_> {
    /// Other caps hold from now on, and those of some torrents alone.
    pub fn set_caps(&self, caps: CapOptions, limits: Vec<Limit>) {
        let now = self.clock.now();
        self.caps.set(caps);
        self.up.set(caps.up, now);
        self.down.set(caps.down, now);
        for limit in &limits {
            let slot = self.swarm.borrow().find(&limit.info_hash.on_the_wire());
            slot.inspect(|slot| self.hold(*slot, caps, Some(limit)));
        }
        *self.limits.borrow_mut() = limits;
    }

    /// A torrent has come to a place: what holds of it holds there from now on.
    pub fn hold_to_limit(&self, slot: TorrentSlot, info_hash: &InfoHash) {
        let limits = self.limits.borrow();
        let own = limits.iter().find(|limit| limit.info_hash == *info_hash);
        self.hold(slot, self.caps.get(), own);
    }

    fn hold(&self, slot: TorrentSlot, caps: CapOptions, own: Option<&Limit>) {
        let now = self.clock.now();
        let (up, down) = own.map_or((None, None), |limit| (limit.up, limit.down));
        self.up.set_each(slot, up.or(caps.up.each), now);
        self.down.set_each(slot, down.or(caps.down.each), now);
    }

    /// Whether what is sent to somebody, and read from there, is capped at all.
    pub fn is_capped(&self, in_the_house: bool) -> bool {
        let caps = self.caps.get();
        (caps.are_any() || !self.limits.borrow().is_empty()) && (caps.lan || !in_the_house)
    }
}

impl Caps {
    /// Full buckets for so many torrents.
    pub fn new(rates: Rates, torrents: usize) -> Caps {
        let each = (0..torrents).map(|_| Bucket::new(rates.each)).collect();
        Caps { all: RefCell::new(Bucket::new(rates.all)), each: RefCell::new(each) }
    }

    /// Other rates hold from now on.
    fn set(&self, rates: Rates, now: Instant) {
        self.all.borrow_mut().set_rate(rates.all, now);
        self.each.borrow_mut().iter_mut().for_each(|each| each.set_rate(rates.each, now));
    }

    /// Another rate of one torrent.
    fn set_each(&self, torrent: TorrentSlot, rate: Option<u64>, now: Instant) {
        self.each.borrow_mut()[torrent.index()].set_rate(rate, now);
    }

    /// How many bytes of a torrent may go now, a block at least, or when to ask again.
    pub fn allowance(&self, torrent: TorrentSlot, now: Instant) -> Result<u64, Deadline> {
        let (all, each) = (self.all.borrow(), self.each.borrow());
        let each = &each[torrent.index()];
        let bytes = all.allowance(now).min(each.allowance(now));
        if bytes >= u64::from(BLOCK_BYTES) {
            return Ok(bytes);
        }
        let (all, each) = (all.ready_at(), each.ready_at());
        let due = if all.at > each.at { all } else { each };
        // Never at once: who asks again now is told the same.
        Err(Deadline { at: due.at.max(now.after(1)), ..due })
    }

    /// So many bytes of a torrent went.
    pub fn take(&self, torrent: TorrentSlot, bytes: usize, now: Instant) {
        self.all.borrow_mut().take(bytes as u64, now);
        self.each.borrow_mut()[torrent.index()].take(bytes as u64, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesser_of_two_caps_holds_and_the_house_is_free() {
        let rates = Rates { all: Some(1 << 20), each: Some(1 << 18) };
        let caps = Caps::new(rates, 2);
        let (mut now, mut sent) = (Instant::from_millis(0), [0u64; 2]);
        while now < Instant::from_millis(60_000) {
            for torrent in 0..2 {
                while let Ok(bytes) = caps.allowance(TorrentSlot(torrent), now) {
                    let bytes = bytes.min(16_384);
                    caps.take(TorrentSlot(torrent), bytes as usize, now);
                    sent[usize::from(torrent)] += bytes;
                }
            }
            now = now.after(7);
        }
        let due = 60 << 18;
        assert!(sent.iter().all(|sent| sent.abs_diff(due) < 1 << 17), "{sent:?}, {due} are due");
        caps.take(TorrentSlot(0), 1 << 16, now);
        assert!(caps.allowance(TorrentSlot(0), now).is_err_and(|due| due.at > now));

        let up = CapOptions { up: Rates { all: Some(1), each: None }, ..CapOptions::default() };
        assert!(up.are_any());
        assert!(!CapOptions { lan: true, ..CapOptions::default() }.are_any());
        caps.set_each(TorrentSlot(1), Some(1 << 20), now);
        let later = now.after(60_000);
        let allowed = |torrent| caps.allowance(TorrentSlot(torrent), later).ok();
        assert!(allowed(1) > allowed(0));
    }
}
