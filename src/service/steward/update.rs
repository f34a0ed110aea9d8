//! The system the box runs is replaced by a newer one.
//!
//! What comes is written by lanes into the slot that does not run; the box then ends, and whoever
//! started it starts the machine anew. One update comes at a time.

use super::Steward;
use crate::service::Refusal;
use crate::service::board::TRANSIT_BYTES;
use crate::service::lanes::{Done, Job};
use crate::service::update::{Step, Went, Work};
use std::boxed::Box;
use std::cell::Cell;
use std::path::PathBuf;
use std::string::String;
use std::sync::Arc;

/// An update under way. To be ended with [`finish`](Update::finish) or [`leave`](Update::leave).
pub struct Update<'w, 's, 'm> {
    steward: &'w Steward<'s, 'm>,
    /// Not here while a lane has it.
    work: Option<Box<Work>>,
    _turn: Turn<'w>,
}

struct Turn<'w>(&'w Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<'s, 'm> Steward<'s, 'm> {
    /// Whether the box was flashed, and can be updated.
    pub fn has_slots(&self) -> bool {
        self.slots.is_some()
    }

    /// Begins an update, from a file of the box's or from whoever brings it.
    pub async fn begin_update(
        &self,
        source: Option<PathBuf>,
    ) -> Result<Update<'_, 's, 'm>, Refusal> {
        let slots = self.slots.as_ref().map(Arc::clone).ok_or_else(|| {
            let remedy = "update it as it was installed: install the newer package over it";
            Refusal::new("this box", "was installed, and has no slots to update", remedy)
        })?;
        // Once one is complete the box ends.
        if self.restarts.get() || self.updating.replace(true) {
            let problem = "another comes just now";
            return Err(Refusal::new("the update", problem, "wait until that has ended"));
        }
        let work = Some(Work::new(slots, source, TRANSIT_BYTES));
        let mut update = Update { steward: self, work, _turn: Turn(&self.updating) };
        update.step(Step::Begin).await.map(|_| update)
    }

    /// Takes an update that lies on the box.
    pub(super) async fn update(&self, path: PathBuf) -> Result<(), Refusal> {
        let mut update = self.begin_update(Some(path)).await?;
        loop {
            match update.step(Step::Read).await {
                Ok(Went::On) => {}
                Ok(_) => return update.finish().await.map(|_| ()),
                Err(refusal) => {
                    update.leave().await;
                    return Err(refusal);
                }
            }
        }
    }
}

impl Update<'_, '_, '_> {
    /// What is next of it goes in here.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.work.as_mut().map_or(&mut [], |work| &mut work.buffer)
    }

    /// Takes so much of the buffer.
    pub async fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.step(Step::Take(bytes)).await.map(|_| ())
    }

    /// All of it has come: the box ends, for the machine to start it. Its version.
    pub async fn finish(mut self) -> Result<String, Refusal> {
        let settled = loop {
            match self.step(Step::Settle).await {
                Ok(Went::Ready(version)) => break Ok(version),
                Ok(_) => {}
                Err(refusal) => break Err(refusal),
            }
        };
        let steward = self.steward;
        steward.restarts.set(steward.restarts.get() || settled.is_ok());
        self.leave().await;
        if settled.is_ok() {
            // Last, so that whoever has sent it is still answered.
            steward.stop.ring();
        }
        settled
    }

    /// No more of it comes.
    pub async fn leave(mut self) {
        // What it holds may have to wait for a disk as well. There is nothing to refuse.
        let _ = self.step(Step::End).await;
    }

    async fn step(&mut self, step: Step) -> Result<Went, Refusal> {
        let work = self.work.take().expect("a lane has given it back");
        let (work, went) = self.steward.step_update(work, step).await;
        self.work = Some(work);
        went
    }
}

impl Steward<'_, '_> {
    /// Has a lane do a step of an update.
    pub async fn step_update(
        &self,
        work: Box<Work>,
        step: Step,
    ) -> (Box<Work>, Result<Went, Refusal>) {
        match self.service.on_a_lane(Job::Update(work, step), "a lane for an update").await {
            Done::Updated(work, went) => (work, *went),
            _ => unreachable!("a lane answers what it was asked"),
        }
    }
}
