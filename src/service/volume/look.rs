//! A look at what is mounted, and at whether one volume is still there.
//!
//! A [`Query`] is what the table of volumes wants to know. It goes to a lane, for all of this may
//! sleep in the kernel, and comes back as a [`Sight`], which says what was seen and decides
//! nothing. An [`Anchor`] goes along with whatever lies on a volume, to be asked on a lane before
//! somebody believes that a file is gone.
//!
//! The world is behind [`Probe`], so that it can be made to fail.

use super::health::Trouble;
use super::identity::{self, Found, Kind, VolumeId};
use super::mounts::{self, Mount, Standing};
use crate::service::{Refusal, walk};
use std::io;
use std::path::{Path, PathBuf};
use std::vec::Vec;

/// What a volume is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub id: VolumeId,
    /// What that was read from.
    pub kind: Kind,
    /// What it is called if nobody asks our file.
    pub unmarked_id: VolumeId,
}

impl Known {
    /// What can be known of what was found.
    pub fn of(found: &Found) -> Known {
        Known { id: found.id, kind: found.kind, unmarked_id: found.unmarked_id }
    }

    /// It may be the same although it says another name, or none: a file of ours has been deleted,
    /// or was written only after the disk had become known without one. Where a file was, what is
    /// mounted there is not enough to go by.
    pub fn resembles(&self, found: &Found) -> bool {
        let enough = match self.kind {
            Kind::File => matches!(found.kind, Kind::Uuid | Kind::Fsid),
            Kind::Uuid | Kind::Fsid | Kind::Weak => true,
        };
        enough && self.unmarked_id == found.unmarked_id
    }
}

/// What is mounted, and how it answers.
pub trait Probe {
    /// Everything mounted, in the kernel's order.
    fn mounts(&mut self) -> io::Result<Vec<Mount>>;

    /// Who is mounted there; nobody when another mount hides it or its device was pulled out.
    fn look_at(&mut self, mount: &Mount) -> io::Result<Option<Found>>;
}

/// This machine.
pub struct System;

impl Probe for System {
    fn mounts(&mut self) -> io::Result<Vec<Mount>> {
        mounts::all()
    }

    fn look_at(&mut self, mount: &Mount) -> io::Result<Option<Found>> {
        if mount.has_lost_its_device() {
            return Ok(None);
        }
        let is_hidden = match mounts::standing(&mount.at)? {
            Standing { mount: Some(id), .. } => id != mount.id,
            Standing { mount: None, device } => {
                mount.device.0 != 0 && mount.block_device() != Some(device)
            }
        };
        if is_hidden { Ok(None) } else { identity::look_at(mount).map(Some) }
    }
}

/// What the table wants to know, to be taken to a lane.
#[derive(Clone, Debug)]
pub struct Query {
    pub(super) volumes: Vec<Sought>,
}

/// A volume that is looked for.
#[derive(Clone, Debug)]
pub(super) struct Sought {
    pub known: Known,
    pub home: PathBuf,
    pub mount: Option<Mount>,
}

/// Who answers for what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This machine.
    Ours,
    /// Other machines, who may take for ever: only where a volume was before are they asked.
    Others,
}

/// What a look has shown.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Everything that could be looked at.
    pub seen: Vec<Found>,
    /// What is mounted and answers with errors.
    pub failing: Vec<Mount>,
    /// Where something is mounted that this look left to the other one.
    pub unasked: Vec<PathBuf>,
}

impl Query {
    /// Looks at everything mounted that this machine answers for, or at all the rest.
    ///
    /// # When full
    /// Beyond 256 mounts that can keep files the rest is not looked at.
    pub fn run(&self, probe: &mut dyn Probe, whose: Whose) -> io::Result<Sight> {
        let mut sight = Sight::default();
        let wanted =
            |mount: &Mount| !mount.is_apparatus() && (!mount.is_remote() || self.was_at(&mount.at));
        let mounts = probe.mounts()?;
        for mount in mounts.into_iter().filter(wanted).take(SEEN_MAX) {
            if mount.is_remote() != (whose == Whose::Others) {
                sight.unasked.push(mount.at);
                continue;
            }
            match probe.look_at(&mount) {
                Ok(found) => sight.seen.extend(found),
                Err(error) if Trouble::of(&error) == Some(Trouble::Failing) => {
                    sight.failing.push(mount);
                }
                // A folder on the way that we may not enter, or gone since the kernel was asked.
                Err(_) => {}
            }
        }
        Ok(sight)
    }

    fn was_at(&self, at: &Path) -> bool {
        let is_there = |mount: &Mount| mount.at == at;
        self.volumes
            .iter()
            .any(|volume| volume.home == at || volume.mount.as_ref().is_some_and(is_there))
    }

    /// As [`identify`](identity::identify), for a path of which something is to be shared or
    /// fetched: a volume that the table knows keeps its name, and its file is written again should
    /// it be lacking.
    pub fn take_up(&self, path: &Path, may_create: bool) -> Result<Found, Refusal> {
        let mut found = identity::find(path)?;
        let whole = identity::whole(path).map_err(|error| walk::unreadable(path, error))?;
        if let Some(away) = self.missing_under(&whole, &found.mount.at) {
            let problem = std::format!("the disk that belongs to {} is not there", away.display());
            return Err(Refusal::new(path.display(), problem, "plug it in, and mount it there"));
        }
        let known = self.recognize(&found);
        // What the system itself is on needs no file of ours: it never goes while we run.
        if may_create && found.kind != Kind::File && found.mount.at != Path::new("/") {
            let id = match known {
                Some(known) => known.id,
                None => VolumeId::random()
                    .map_err(|error| Refusal::new("chance", error, "try again"))?,
            };
            identity::mark(&mut found, id)?;
        }
        found.id = known.map_or(found.id, |known| known.id);
        Ok(found)
    }

    /// The home of a volume that is away, where `path` would be on it were it there: what is there
    /// now, on the mount at `at`, is only the folder on which it is mounted.
    fn missing_under(&self, path: &Path, at: &Path) -> Option<&Path> {
        let away = self.volumes.iter().filter(|volume| volume.mount.is_none());
        let mut homes = away.map(|volume| volume.home.as_path());
        homes.find(|home| path.starts_with(home) && home.starts_with(at) && *home != at)
    }

    fn recognize(&self, found: &Found) -> Option<Known> {
        let named = self.volumes.iter().find(|volume| volume.known.id == found.id);
        let resembles = |volume: &&Sought| {
            // A copy of a disk that is there itself is another disk.
            let elsewhere = |mount: &Mount| !mount.shows_the_same(&found.mount);
            volume.known.resembles(found) && !volume.mount.as_ref().is_some_and(elsewhere)
        };
        named.or_else(|| self.volumes.iter().find(resembles)).map(|volume| volume.known)
    }
}

/// A volume at the place where it was seen last.
#[derive(Clone, Debug)]
pub struct Anchor {
    pub(super) known: Known,
    pub(super) mount: Mount,
    pub(super) standing: Standing,
}

impl Anchor {
    /// Which volume it is: the front of its id.
    pub fn volume(&self) -> u64 {
        self.known.id.front()
    }

    /// Whether the volume is there this instant and `path` is on it, or would be were it there.
    /// Only then does a file that cannot be found mean that it is gone, and only then may be
    /// written. Sleeps in the kernel: ask on a lane.
    pub fn holds(&self, path: &Path) -> bool {
        let Ok(now) = mounts::standing(&self.mount.at) else { return false };
        let there = || mounts::standing(&identity::deepest(path)?);
        self.is_in_place(now) && there().is_ok_and(|there| there.is_with(now))
    }

    fn is_in_place(&self, now: Standing) -> bool {
        // Another disk may have come to the same place, under the same numbers, and the same one
        // under others: our file says which it is.
        if now != self.standing {
            return identity::is_marked(&self.mount, self.known.id);
        }
        let is_it = |found: Found| found.id == self.known.id || self.known.resembles(&found);
        !self.mount.has_lost_its_device()
            && (identity::is_marked(&self.mount, self.known.id)
                || identity::look_at(&self.mount).is_ok_and(is_it))
    }
}

/// More mounts that keep files than any box has.
const SEEN_MAX: usize = 256;
