//! Content is carried elsewhere, one torrent after the other; see [`moving`].

use super::{Meant, Steward};
use crate::engine::library::Entry;
use crate::engine::units::InfoHash;
use crate::service::control::message::Move;
use crate::service::known::Known;
use crate::service::lanes::{Done, Job};
use crate::service::moving::{self, Copying, Moving};
use crate::service::share::check;
use crate::service::state::State;
use crate::service::{Refusal, control, grounds};
use std::boxed::Box;
use std::path::PathBuf;
use std::string::ToString;
use std::sync::Arc;

impl Steward<'_, '_> {
    /// Has a torrent's content carried elsewhere; which one's it is.
    pub(super) async fn begin_move(&self, order: Move) -> Result<Entry, Refusal> {
        self.reaches(&order.to)?;
        let meant = self.find(&order.what).await?;
        let Meant::Known(entry) = meant else { return Err(still_fetched(&order)) };
        if entry.fetching {
            return Err(still_fetched(&order));
        }
        let prepare = move |state: &mut State<'_>| {
            let known = state.load(&entry).ok_or_else(|| {
                let problem = "is damaged in the state folder";
                Refusal::new(entry.info_hash, problem, "share or fetch it anew")
            })?;
            if let Some(moving) = state.moving(&entry.info_hash) {
                let problem = std::format!("is on its way to {}", moving.to.display());
                return Err(Refusal::new(entry.info_hash, problem, "wait until it is there"));
            }
            if known.asleep {
                let problem = "is on a disk that is not there";
                return Err(Refusal::new(entry.info_hash, problem, "plug it in first"));
            }
            let from = known.content.root;
            let name = from.file_name().unwrap_or_default();
            let moving = Moving { to: order.to.join(name), from, copied: false };
            let bytes = known.content.layout.total_bytes;
            match moving::objection(&moving.from, &order.to, &moving.to, bytes) {
                Some(objection) => Err(objection),
                None => state.keep_moving(&entry.info_hash, &moving),
            }
        };
        self.keeper.archive.ask(prepare).await?;
        self.moves.ring();
        Ok(entry)
    }

    /// Carries whatever is on its way, for ever.
    pub async fn run_moves(&self) {
        loop {
            for info_hash in self.keeper.archive.ask(|state| state.all_moving()).await {
                match self.carry(info_hash).await {
                    Ok(()) => {}
                    Err(refusal) => warn!("{refusal}; it stays where it was"),
                }
                self.keeper.archive.ask(move |state| state.drop_moving(&info_hash)).await;
                self.carried.take();
            }
            self.moves.rung().await;
        }
    }

    /// Goes on from wherever it had come to.
    async fn carry(&self, info_hash: InfoHash) -> Result<(), Refusal> {
        let find = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash)?;
            Some((entry, state.load(&entry)?, state.moving(&info_hash)?))
        };
        let Some((entry, known, mut moving)) = self.keeper.archive.ask(find).await else {
            // It was removed meanwhile: what was copied of it goes too.
            let left = self.keeper.archive.ask(move |state| state.moving(&info_hash)).await;
            let cleared = left.map_or(Ok(()), |moving| moving.clear());
            return cleared.map_err(|error| {
                let remedy = "remove what was copied of it by hand";
                Refusal::new(info_hash, error, remedy)
            });
        };
        if known.asleep {
            let problem = "is on a disk that is not there";
            return Err(Refusal::new(
                moving.from.display(),
                problem,
                "plug it in, and move it again",
            ));
        }
        if known.content.root == moving.to {
            let from = moving.from.display();
            warn!("{from}: was moved away before the power went: delete it by hand");
            return Ok(());
        }
        let refuse = |path: PathBuf| move |error| crate::service::state::refused(&path, error);
        let mut is_copy = true;
        if !moving.copied {
            moving.clear().map_err(refuse(moving.draft()))?;
            is_copy = match self.copy(&known, &moving, info_hash).await {
                Ok(is_copy) => is_copy,
                Err(refusal) => {
                    // What is there of it is no use to anybody; should it stay, it says what it is.
                    let _ = moving.clear();
                    return Err(refusal);
                }
            };
            moving.copied = true;
            let copied = moving.clone();
            let keep = move |state: &mut State<'_>| state.keep_moving(&info_hash, &copied);
            self.keeper.archive.ask(keep).await?;
        }
        if let Err(error) = moving.finish() {
            // Something else has its name by now; should the copy stay, it says what it is.
            let _ = moving.clear();
            return Err(refuse(moving.to.clone())(error));
        }
        self.switch(&entry, &known, &moving, is_copy).await?;
        info!("{}: lies in {} now", known.content.root.display(), moving.to.display());
        self.delete(known).await
    }

    /// Copies all of it to its draft; whether anything had to be copied rather than linked.
    async fn copy(
        &self,
        known: &Known,
        moving: &Moving,
        info_hash: InfoHash,
    ) -> Result<bool, Refusal> {
        let content = known.content.again();
        let content =
            content.map_err(|error| crate::service::walk::unreadable(&moving.from, error))?;
        let mut copying = Box::new(Copying::new(Arc::new(content), moving.draft()));
        loop {
            let said = (info_hash, moving.to.display().to_string(), copying.copied_bytes);
            self.carried.replace(Some(said));
            let done = self.service.on_a_lane(Job::Copy(copying), "a lane to copy on").await;
            let Done::Copied(back, result) = done else { return Ok(true) };
            copying = back;
            if !result? {
                return Ok(copying.is_copy);
            }
        }
    }

    /// Checks what was copied and switches to it.
    async fn switch(
        &self,
        entry: &Entry,
        known: &Known,
        moving: &Moving,
        is_copy: bool,
    ) -> Result<(), Refusal> {
        let (archive, to, of) = (self.keeper.archive, moving.to.clone(), *entry);
        let draft = archive.ask(move |state| state.draft_moved(&of, &to)).await;
        let (folder, copy, facts_crc) = draft?;
        if is_copy {
            let _bench = self.bench.lock().await;
            let name = copy.info_hash.to_string();
            let have = check(&self.service.lanes, copy.content, &name, &mut ()).await?;
            let expected = known.have.clone().unwrap_or_else(|| full(&known.content.layout));
            if have != expected {
                // We made it, and nobody has seen it.
                let _ = moving.discard();
                let remedy = "look at the disk it is on; it is still served from where it was";
                return Err(Refusal::new(moving.to.display(), "is not what was copied", remedy));
            }
        }
        let found = grounds::take_up(archive, &self.service.lanes, &moving.to).await?;
        let of = *entry;
        let place = move |state: &mut State<'_>| state.place_moved(&of, &folder, facts_crc, &found);
        let entry = archive.ask(place).await?;
        self.refresh(&entry).await
    }

    /// What is said of content on its way.
    pub(super) fn moving_of(&self, info_hash: &InfoHash) -> Option<control::answer::Moving> {
        let carried = self.carried.borrow();
        let (_, to, copied_bytes) = carried.as_ref().filter(|(name, ..)| name == info_hash)?;
        Some(control::answer::Moving { to: to.clone(), copied_bytes: *copied_bytes })
    }
}

fn still_fetched(order: &Move) -> Refusal {
    let remedy = "wait until it is complete, or remove it and add it with `--into`";
    Refusal::new(&order.what, "is still being fetched", remedy)
}

/// The bitfield of all that there is.
fn full(layout: &crate::engine::metainfo::Layout) -> std::vec::Vec<u8> {
    let count = layout.piece_count();
    let mut bits = std::vec![0xff; layout.bitfield_bytes() as usize];
    if let Some(last) = bits.last_mut().filter(|_| !count.is_multiple_of(8)) {
        *last = !(0xff >> (count % 8));
    }
    bits
}
