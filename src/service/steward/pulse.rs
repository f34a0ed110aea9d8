//! What is said of the box every few seconds: cheap, whatever the library's size.

use super::Steward;
use super::items::resident_bytes;
use crate::engine::swarm::fetch::Fetching as _;
use crate::engine::units::{InfoHash, Instant};
use crate::service::control::answer::{State as How, hex};
use crate::service::state::State;
use serde::Serialize;
use std::cell::Cell;
use std::vec::Vec;

/// How the box is at this moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pulse {
    /// Bytes a second that are sent, over the last seconds.
    pub up_rate: u64,
    /// Bytes a second of content that come.
    pub down_rate: u64,
    /// Who is connected.
    pub peers: u32,
    /// Resident memory.
    pub resident_bytes: u64,
    /// What that may be.
    pub contract_bytes: u64,
    /// How many torrents there are.
    pub torrents: u32,
    /// How many of them are fetched.
    pub fetching: u32,
    /// Content sent since the start.
    pub sent_bytes: u64,
}

/// A torrent on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OnAir {
    /// Its name on the network.
    #[serde(with = "hex")]
    pub info_hash: InfoHash,
    /// How it is.
    pub state: How,
    /// All of what is wanted of it.
    pub bytes: u64,
    /// How much of that is here.
    pub here_bytes: u64,
    /// How much of it was ever sent.
    pub sent_bytes: u64,
    /// Who is connected for it.
    pub peers: u32,
}

/// What had gone and come at some moment: the next one shows how fast.
#[derive(Debug, Default)]
pub struct Meter(Cell<Reading>);

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    at: Instant,
    sent_bytes: u64,
    fetched_bytes: u64,
    rates: (u64, u64),
}

impl Meter {
    /// Bytes a second that went and came since this was last asked; if that was just now, what was
    /// said then.
    pub fn rates(&self, at: Instant, sent_bytes: u64, fetched_bytes: u64) -> (u64, u64) {
        let last = self.0.get();
        let ms = at.since(last.at);
        if ms < METER_MS_MIN {
            return last.rates;
        }
        let rate = |now: u64, before: u64| (now - before) * 1_000 / ms;
        let rates = (rate(sent_bytes, last.sent_bytes), rate(fetched_bytes, last.fetched_bytes));
        self.0.set(Reading { at, sent_bytes, fetched_bytes, rates });
        rates
    }
}

impl Steward<'_, '_> {
    /// How the box is at this moment.
    pub async fn pulse(&self) -> Pulse {
        let torrents = self.keeper.archive.ask(|state| state.count()).await;
        let (service, swarm) = (self.service, self.service.swarm.borrow());
        let fetched_bytes = service.fetched.verified_bytes.get();
        let (up_rate, down_rate) =
            self.meter.rates(service.clock.now(), swarm.sent_bytes, fetched_bytes);
        Pulse {
            up_rate,
            down_rate,
            peers: swarm.member_count().into(),
            resident_bytes: resident_bytes(),
            contract_bytes: self.keeper.options.board.resident_kib << 10,
            torrents,
            fetching: service.fetched.goals.borrow().len() as u32,
            sent_bytes: swarm.sent_bytes,
        }
    }

    /// Torrents that are fetched, or that somebody is connected for: no more than `most`.
    pub async fn on_air(&self, most: usize) -> Vec<OnAir> {
        let mut found = self.active(most);
        let hashes: Vec<InfoHash> = found.iter().map(|torrent| torrent.info_hash).collect();
        let sent_of = |state: &mut State<'_>, info_hash: &InfoHash| {
            state.get(info_hash).map_or(0, |entry| entry.sent_bytes)
        };
        let sent = move |state: &mut State<'_>| -> Vec<u64> {
            hashes.iter().map(|info_hash| sent_of(state, info_hash)).collect()
        };
        let sent = self.keeper.archive.ask(sent).await;
        for (torrent, before) in found.iter_mut().zip(sent) {
            torrent.sent_bytes += before;
        }
        found
    }

    /// How those are now that are not on the air any more; without those that are gone.
    pub async fn off_air(&self, torrents: Vec<OnAir>) -> Vec<OnAir> {
        if torrents.is_empty() {
            return torrents;
        }
        let now = move |state: &mut State<'_>| -> Vec<OnAir> {
            let look = |torrent: OnAir| {
                let entry = state.get(&torrent.info_hash)?;
                let state = match () {
                    () if entry.paused => How::Paused,
                    () if state.is_asleep(&entry) => How::Asleep,
                    () if entry.fetching => How::Fetching,
                    () => How::Resting,
                };
                Some(OnAir { state, peers: 0, sent_bytes: entry.sent_bytes, ..torrent })
            };
            torrents.into_iter().filter_map(look).collect()
        };
        self.keeper.archive.ask(now).await
    }

    /// The same, with what was sent of them since they are active.
    fn active(&self, most: usize) -> Vec<OnAir> {
        let (swarm, goals) = (self.service.swarm.borrow(), self.service.fetched.goals.borrow());
        let all = swarm.torrents().filter_map(|(slot, torrent)| {
            let peers = swarm.members().filter(|member| member.torrent == slot).count() as u32;
            let goal = goals.iter().find(|goal| goal.torrent == slot);
            let is_fetched = swarm.fetcher.is_fetched(slot);
            let state = match goal {
                Some(goal) if goal.trouble_words().is_some() => How::Trouble,
                _ if is_fetched => How::Fetching,
                _ if peers > 0 => How::Serving,
                _ => return None,
            };
            let all = torrent.layout.total_bytes;
            let (bytes, here_bytes) =
                goal.map_or((all, all), |goal| (goal.wanted_bytes, goal.here_bytes));
            let (info_hash, sent_bytes) = (torrent.info_hash, torrent.sent_bytes);
            Some(OnAir { info_hash, state, bytes, here_bytes, sent_bytes, peers })
        });
        all.take(most).collect()
    }
}

/// Rates are those of no less than this.
const METER_MS_MIN: u64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_ask_at_once_are_told_the_same() {
        let (meter, at) = (Meter::default(), Instant::from_millis);
        assert_eq!(meter.rates(at(1_000), 5_000, 0), (5_000, 0));
        assert_eq!(meter.rates(at(1_001), 6_000, 9), (5_000, 0));
        assert_eq!(meter.rates(at(3_000), 9_000, 1_000), (2_000, 500));
    }
}
