//! Torrents pause, go on and go.
//!
//! Whatever is under way of a torrent ends first: peers are let go, lanes give back what they have
//! of it, what was verified is recorded. Then it rests, and the library is told.

use super::Steward;
use crate::engine::library::{Entry, Record};
use crate::engine::swarm::fetch::Fetching as _;
use crate::engine::units::TorrentSlot;
use crate::service::known::Known;
use crate::service::lanes::{Done, Job};
use crate::service::{Refusal, rest};
use log::{info, warn};
use std::boxed::Box;
use std::io;
use std::string::{String, ToString};
use std::vec::Vec;

impl Steward<'_, '_> {
    /// Keeps a torrent off the air, or puts it back on.
    pub(super) async fn set_paused(&self, entry: Entry, paused: bool) -> Result<(), Refusal> {
        let info_hash = entry.info_hash;
        if paused {
            self.take_off_the_air(&entry).await?;
        }
        let record = Record::Paused { info_hash, paused };
        self.keeper.archive.ask(move |state| state.record(record)).await?;
        if paused {
            // Another may have its place.
            self.service.fetched.place_free.ring();
        } else if entry.fetching {
            self.go_on(info_hash).await?;
        } else {
            self.service.pass.note_new(info_hash);
        }
        Ok(())
    }

    /// Forgets a torrent, and deletes its files if the owner wants that.
    pub async fn remove(&self, entry: Entry, delete: bool) -> Result<(), Refusal> {
        self.take_off_the_air(&entry).await?;
        let (archive, info_hash) = (self.keeper.archive, entry.info_hash);
        if delete {
            let known = archive.ask(move |state| state.load(&entry)).await;
            let known = known.ok_or_else(|| {
                let problem = "nobody knows any more which files are its own";
                Refusal::new(info_hash, problem, "remove it without --delete, and them by hand")
            })?;
            self.delete(known).await?;
        }
        let forget = move |state: &mut crate::service::state::State<'_>| {
            state.forget(&entry)?;
            state.drop_wanted(&info_hash);
            Ok(())
        };
        archive.ask(forget).await?;
        self.service.fetched.place_free.ring();
        Ok(())
    }

    /// Deletes a torrent's files, on a lane.
    pub(super) async fn delete(&self, known: Known) -> Result<(), Refusal> {
        let name = known.content.root.display().to_string();
        let refuse = |error: io::Error| {
            Refusal::new(&name, error, "delete it by hand, then remove it without --delete")
        };
        match self.service.lanes.run(Job::Delete(Box::new(known))).await {
            Some(Done::Deleted(Ok(left))) => {
                let left: Vec<String> = left;
                left.iter().for_each(|path| {
                    warn!("{path}: is not as it was shared or fetched, so it is left there");
                });
                info!("{name}: deleted");
                Ok(())
            }
            Some(Done::Deleted(Err(error))) => Err(refuse(error)),
            _ => Err(refuse(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// Ends all that is under way of a torrent.
    async fn take_off_the_air(&self, entry: &Entry) -> Result<(), Refusal> {
        let active = self.service.swarm.borrow().find(&entry.info_hash.on_the_wire());
        let Some(slot) = active else { return Ok(()) };
        self.service.fetched.withdraw(slot);
        self.service.swarm.borrow_mut().withdraw(slot);
        self.service.ring_nudged();
        self.service.clock.bell(self.service.clock.slot(self.service.duties.fetch)).ring();
        for _ in 0..WITHDRAWN_MS / LOOK_MS {
            if self.is_over(slot) && rest::lay_down(self.service, self.keeper, slot).await? {
                return Ok(());
            }
            self.service.clock.sleep(LOOK_MS, "the end of a torrent").await;
        }
        let problem = "is still being written or read";
        Err(Refusal::new(entry.info_hash, problem, "try again in a minute"))
    }

    /// Nothing of it is with a lane any more, and what was verified is recorded.
    fn is_over(&self, slot: TorrentSlot) -> bool {
        !self.service.swarm.borrow().fetcher.is_fetched(slot)
            && self.service.fetched.drop_withdrawn(slot)
    }
}

/// A disk that sleeps wakes within this.
const WITHDRAWN_MS: u64 = 30_000;

/// Between two looks whether it is over.
const LOOK_MS: u64 = 20;
