//! How an appliance is updated, as the service sees it; a box that was installed has no such thing.
//!
//! Slots, signatures and files are `init`'s, beside the service: it hands in a [`Slots`]. An update
//! may come slowly and takes long to be written, so each piece of it is a [`Work`] on a lane, which
//! moves there with its buffer and comes back.

use super::Refusal;
use super::lanes::Buffer;
use std::boxed::Box;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;

/// Two systems of which one runs.
pub trait Slots: Send + Sync {
    /// What runs is on trial.
    fn on_trial(&self) -> bool;
    /// What runs has shown that it does. Sleeps.
    fn good(&self) -> Result<(), Refusal>;
    /// Begins an update. There is one at a time. Sleeps.
    fn update(&self) -> Result<Box<dyn Incoming>, Refusal>;
}

/// An update that comes. Its end, early or not, is when it is dropped. All of this sleeps.
pub trait Incoming: Send {
    /// Takes what is next of the file.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
    /// The file has ended: does some of what is left to do, through `buffer`. The version that is
    /// started next, once that is all.
    fn settle(&mut self, buffer: &mut [u8]) -> Result<Option<String>, Refusal>;
}

/// An update on its way through the lanes.
pub struct Work {
    slots: Arc<dyn Slots>,
    /// Where it comes from, if that is a file of the box's.
    path: Option<PathBuf>,
    source: Option<File>,
    incoming: Option<Box<dyn Incoming>>,
    /// What is to be taken.
    pub buffer: Buffer,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin.
    Begin,
    /// Take so much of the buffer.
    Take(usize),
    /// Take what is next of its source.
    Read,
    /// Some of what is left to do after its end.
    Settle,
    /// Let go of it.
    End,
    /// Have what runs be good, which is no update.
    Good,
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Went {
    /// There is more to do.
    On,
    /// That was all.
    Ended,
    /// This version is started next.
    Ready(String),
}

impl Work {
    /// An update of those slots, from a file of the box's or through a buffer of that length.
    pub fn new(slots: Arc<dyn Slots>, path: Option<PathBuf>, buffer_bytes: usize) -> Box<Work> {
        let buffer = std::vec![0; buffer_bytes].into_boxed_slice();
        Box::new(Work { slots, path, source: None, incoming: None, buffer })
    }

    /// Does a step. Sleeps: on a lane.
    pub fn step(&mut self, step: Step) -> Result<Went, Refusal> {
        let Work { slots, path, source, incoming, buffer } = self;
        match (step, incoming, source) {
            (Step::Begin, incoming, source) => {
                let open = |path: &PathBuf| File::open(path).map_err(|error| unread(path, &error));
                *source = path.as_ref().map(open).transpose()?;
                *incoming = Some(slots.update()?);
            }
            (Step::Take(bytes), Some(incoming), _) => incoming.take(&buffer[..bytes])?,
            (Step::Read, Some(incoming), Some(source)) => {
                let path = path.as_deref().unwrap_or(Path::new(""));
                match source.read(buffer).map_err(|error| unread(path, &error))? {
                    0 => return Ok(Went::Ended),
                    bytes => incoming.take(&buffer[..bytes])?,
                }
            }
            (Step::Settle, Some(incoming), _) => {
                return Ok(incoming.settle(buffer)?.map_or(Went::On, Went::Ready));
            }
            (Step::End, incoming, _) => *incoming = None,
            (Step::Good, ..) => slots.good()?,
            (Step::Take(_) | Step::Read | Step::Settle, ..) => return Ok(Went::Ended),
        }
        Ok(Went::On)
    }
}

fn unread(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(path.display(), error, "name a file that the box may read")
}
