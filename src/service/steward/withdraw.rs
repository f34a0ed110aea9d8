//! Torrents pause, go on and go.
//!
//! The library is told first that a torrent is paused, so that nobody wakes it again; then whatever
//! is under way of it ends ([`rest::take_off_the_air`]). One that goes is taken off the air before
//! its files and what is known of it go.

use super::Steward;
use crate::engine::library::{Entry, Record};
use crate::engine::units::InfoHash;
use crate::service::known::Known;
use crate::service::lanes::{Done, Job};
use crate::service::state::State;
use crate::service::wanted::Wanted;
use crate::service::{Refusal, rest};
use std::boxed::Box;
use std::io;
use std::string::{String, ToString};
use std::vec::Vec;

impl Steward<'_, '_> {
    /// Keeps a torrent off the air, or puts it back on.
    pub(super) async fn set_paused(&self, entry: Entry, paused: bool) -> Result<(), Refusal> {
        let info_hash = entry.info_hash;
        let record = Record::Paused { info_hash, paused };
        self.keeper.archive.ask(move |state| state.record(record)).await?;
        if paused {
            self.take_off_the_air(info_hash).await?;
            // Another may have its place.
            self.service.fetched.place_free.ring();
        } else if entry.fetching {
            self.service.fetched.take_up_again(Some(&info_hash));
            self.go_on(info_hash).await?;
        } else {
            self.service.announce_next(info_hash);
        }
        Ok(())
    }

    /// The same of a torrent of which only the name is known.
    pub(super) async fn set_hunt_paused(
        &self,
        info_hash: InfoHash,
        wanted: Wanted,
        paused: bool,
    ) -> Result<(), Refusal> {
        let wanted = Wanted { paused, ..wanted };
        let keep = move |state: &mut State<'_>| state.keep_wanted(&info_hash, &wanted);
        self.keeper.archive.ask(keep).await?;
        if paused {
            self.take_off_the_air(info_hash).await?;
            self.service.fetched.place_free.ring();
            return Ok(());
        }
        self.service.fetched.take_up_again(Some(&info_hash));
        self.go_on(info_hash).await
    }

    /// Forgets a torrent, and deletes its files if the owner wants that.
    pub async fn remove(&self, entry: Entry, delete: bool) -> Result<(), Refusal> {
        let (archive, info_hash) = (self.keeper.archive, entry.info_hash);
        self.take_off_the_air(info_hash).await?;
        // It may have been completed just then, and is another folder's since.
        let Some(entry) = archive.ask(move |state| state.get(&info_hash)).await else {
            return Ok(());
        };
        if delete {
            let known = archive.ask(move |state| state.load(&entry)).await;
            let mut known = known.ok_or_else(|| {
                let problem = "nobody knows any more which files are its own";
                Refusal::new(info_hash, problem, "remove it without --delete, and them by hand")
            })?;
            if known.asleep {
                let problem = "is on a disk that is not there";
                let remedy = "plug it in, or remove it without --delete";
                return Err(Refusal::new(info_hash, problem, remedy));
            }
            known.content.growing = entry.fetching;
            self.delete(known).await?;
        }
        archive.ask(move |state| state.forget_wanted(&entry)).await?;
        // A peer may have woken it in the last moment.
        self.take_off_the_air(info_hash).await?;
        self.service.fetched.place_free.ring();
        Ok(())
    }

    /// Forgets a torrent of which only the name is known.
    pub(super) async fn remove_hunt(&self, info_hash: InfoHash) -> Result<(), Refusal> {
        self.keeper.archive.ask(move |state| state.drop_wanted(&info_hash)).await;
        self.take_off_the_air(info_hash).await?;
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
    pub(super) async fn take_off_the_air(&self, info_hash: InfoHash) -> Result<(), Refusal> {
        rest::take_off_the_air(self.service, self.keeper, info_hash).await
    }
}
