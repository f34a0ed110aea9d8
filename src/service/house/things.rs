//! Things that are shared one by one, each where its `[[share]]` says.
//!
//! A thing is shared when the box starts, and again whenever something happens to it: a [`Watch`] of
//! its folder, for it alone, tells that. What has not changed costs a walk and no hashing. While
//! it is not there it is tried every five minutes, and what was shared of it stays known.

use super::{Folder, House, Purpose, is_over, limits, options_of};
use crate::engine::units::Instant;
use crate::service::config::Shared;
use crate::service::steward::Steward;
use crate::service::watch::{Change, Key, Limits, Watch};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// One thing that is shared.
pub struct Thing {
    shared: Shared,
    /// Where it is, as far as that is known.
    path: PathBuf,
    /// When it is next tried; never once it is shared.
    pub due: Instant,
    /// What was wrong, so that it is said once.
    pub said: Option<String>,
}

impl Thing {
    /// One to be shared at once, which was said to be at `path`.
    pub fn new(shared: &Shared, path: &Path) -> Thing {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        Thing { shared: shared.clone(), path, due: Instant::default(), said: None }
    }
}

impl House {
    /// Watches things: those in one folder together.
    ///
    /// # When full
    /// Whether those in further folders have changed is seen when the box starts, which is said.
    pub(super) fn look_after_things(&mut self) {
        let mut folders: Vec<(&Path, Vec<String>)> = Vec::new();
        for thing in &self.things {
            let name = thing.path.file_name().and_then(|name| name.to_str());
            let (Some(folder), Some(name)) = (thing.path.parent(), name) else { continue };
            match folders.iter().position(|(known, _)| *known == folder) {
                Some(at) => folders[at].1.push(name.into()),
                None if folders.len() < THING_FOLDERS_MAX => {
                    folders.push((folder, std::vec![name.into()]));
                }
                None => warn!("{}: {UNWATCHED}", thing.path.display()),
            }
        }
        for (path, names) in folders {
            let limits = limits_of_things(names.len() as u32);
            let watch = Watch::open_for(path, Some(names), limits);
            match watch {
                Ok(watch) => self.folders.push(Folder::new(path.into(), Purpose::Things, watch)),
                Err(refusal) => warn!("{refusal}"),
            }
        }
    }

    /// Shares what is due; `false` when the configuration says something else.
    pub(super) async fn share_things(&mut self, steward: &Steward<'_, '_>) -> bool {
        let clock = &steward.service.clock;
        for thing in self.things.iter_mut().filter(|thing| thing.due <= clock.now()) {
            let options = options_of(&thing.shared, steward);
            match steward.share(thing.shared.source.path(), &options, &mut ()).await {
                Ok(_) => (thing.due, thing.said) = (Instant::NEVER, None),
                Err(refusal) => {
                    thing.due = clock.now().after(RETRY_MS);
                    let words = std::format!("{refusal}");
                    if thing.said.as_ref() != Some(&words) {
                        warn!("{words}");
                        thing.said = Some(words);
                    }
                }
            }
            if is_over(steward).await {
                return false;
            }
        }
        true
    }
}

impl Folder {
    /// What has happened to a thing has it looked at anew.
    pub(super) fn hand_on(&self, change: &Change, things: &mut [Thing]) {
        self.say(change);
        for thing in things.iter_mut().filter(|thing| thing.path.parent() == Some(&self.path)) {
            let name = thing.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_it = |key: &Key| Key::of(&self.path, name) == *key;
            let is_meant = match change {
                Change::Rests { name: changed, .. } => changed == name,
                Change::Renamed { from, to, .. } => to == name || is_it(from),
                Change::Gone { key } => is_it(key),
                Change::Away | Change::Back => true,
                Change::Polling { .. } | Change::Full { .. } | Change::LeftOut { .. } => false,
            };
            if is_meant {
                thing.due = Instant::default();
            }
        }
    }
}

/// What a watch of so many things may hold.
pub const fn limits_of_things(count: u32) -> Limits {
    Limits { entries_max: count, observed_max: count, watches_max: 64, ..limits(count) }
}

/// Folders in which there are things that are watched.
pub const THING_FOLDERS_MAX: usize = 4;

/// Before what could not be shared is tried again.
const RETRY_MS: u64 = 300_000;

const UNWATCHED: &str = "is looked at when the box starts, and not watched: too many folders hold things to share; name one \
     folder with `folder` instead";
