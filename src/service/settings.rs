//! What the owner has said on the page of how the box is to be: `STATE/settings.json`.
//!
//! It goes before the configuration, which a box without a shell does not even have; what is not said
//! follows the configuration as before. All of it is taken over at once.
//!
//! # When full
//! No more than [`LIMITS_MAX`] torrents have a limit of their own; another is refused.

use super::Refusal;
use super::caps::{CapOptions, Limit, Rates};
use super::options::{Readers, WebOptions};
use super::state::{refused, replace};
use super::steward::Steward;
use crate::engine::units::InfoHash;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::string::ToString as _;
use std::vec::Vec;
use std::{fs, io};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the box may send, in bytes a second; 0 is as much as goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// The same of what it may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// Who may look at the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<Readers>,
    /// The owner may change things from outside the house.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_outside: Option<bool>,
    /// Torrents with a limit of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

impl Settings {
    /// Reads what is kept in a state folder. What cannot be understood is put aside.
    pub fn open(folder: &Path) -> Result<Settings, Refusal> {
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(error) => return Err(refused(&path, error)),
        };
        match serde_json::from_slice::<Settings>(&bytes) {
            Ok(settings) if settings.limits.len() <= LIMITS_MAX => return Ok(settings),
            Ok(_) => warn!("{}: limits more torrents than {LIMITS_MAX}; {ASIDE}", path.display()),
            Err(error) => warn!("{}: {error}; {ASIDE}", path.display()),
        }
        fs::rename(&path, folder.join(DAMAGED)).map_err(|error| refused(&path, error))?;
        Ok(Settings::default())
    }

    /// Keeps them. Waits for the disk.
    fn save(&self, folder: &Path) -> Result<(), Refusal> {
        let path = folder.join(FILE);
        let bytes = serde_json::to_vec_pretty(self);
        let bytes = bytes.map_err(|error| Refusal::new(path.display(), error, "report this"))?;
        replace(&path, &bytes).map_err(|error| refused(&path, error))
    }

    /// The caps that hold, of those that are configured.
    pub fn caps_over(&self, configured: CapOptions) -> CapOptions {
        let over = |said: Option<u64>, rates: Rates| Rates {
            all: said.map_or(rates.all, |rate| Some(rate).filter(|rate| *rate > 0)),
            ..rates
        };
        let (up, down) = (over(self.up, configured.up), over(self.down, configured.down));
        CapOptions { up, down, ..configured }
    }

    /// Who may look at the page.
    pub fn readers_over(&self, configured: &WebOptions) -> Readers {
        self.readers.unwrap_or(configured.readers)
    }

    /// Whether the owner may change things from outside the house.
    pub fn outside_over(&self, configured: &WebOptions) -> bool {
        self.owner_outside.unwrap_or(configured.owner_outside)
    }

    /// Another limit for one torrent, or none.
    pub fn limit(&mut self, limit: Limit) -> Result<(), Refusal> {
        self.limits.retain(|other| other.info_hash != limit.info_hash);
        if limit.up.is_some() || limit.down.is_some() {
            if self.limits.len() >= LIMITS_MAX {
                let problem = "cannot have a limit: as many have one as may";
                let remedy = "take that of another away, or limit the whole box";
                return Err(Refusal::new(limit.info_hash.to_string(), problem, remedy));
            }
            self.limits.push(limit);
        }
        Ok(())
    }

    /// The limit of one torrent.
    pub fn limit_of(&self, info_hash: &InfoHash) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.info_hash == *info_hash)
    }
}

impl Steward<'_, '_> {
    /// Has settings changed, kept, and taken over.
    pub async fn set(
        &self,
        change: impl FnOnce(&mut Settings) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        // What is kept last is what is so.
        let _turn = self.settings_turn.lock().await;
        let mut settings = self.settings.borrow().clone();
        let hashes: Vec<InfoHash> = settings.limits.iter().map(|limit| limit.info_hash).collect();
        let gone = self.keeper.archive.ask(move |state| -> Vec<InfoHash> {
            hashes.into_iter().filter(|info_hash| state.get(info_hash).is_none()).collect()
        });
        let gone = gone.await;
        settings.limits.retain(|limit| !gone.contains(&limit.info_hash));
        change(&mut settings)?;
        let kept = settings.clone();
        self.keeper.archive.ask(move |state| kept.save(state.path())).await?;
        *self.settings.borrow_mut() = settings;
        self.heed_settings();
        Ok(())
    }

    /// Takes over what the configuration and the owner say of caps.
    pub fn heed_settings(&self) {
        let (settings, given) = (self.settings.borrow(), self.given.borrow());
        self.service.set_caps(settings.caps_over(given.caps), settings.limits.clone());
    }
}

/// Its name in the state folder.
const FILE: &str = "settings.json";

/// One that could not be understood.
const DAMAGED: &str = "settings.damaged.json";

const ASIDE: &str = "it is kept as settings.damaged.json, and the configuration holds";

/// Torrents with a limit of their own.
pub const LIMITS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;

    #[test]
    fn what_was_said_goes_before_the_configuration_and_the_rest_follows_it() {
        let configured = CapOptions {
            up: Rates { all: Some(1_000), each: Some(10) },
            down: Rates { all: Some(2_000), each: None },
            lan: true,
        };
        assert_eq!(Settings::default().caps_over(configured), configured);
        let settings = Settings { up: Some(0), down: Some(5), ..Settings::default() };
        let caps = settings.caps_over(configured);
        assert_eq!(caps.up, Rates { all: None, each: Some(10) });
        assert_eq!(caps.down, Rates { all: Some(5), each: None });
        assert!(caps.lan);
    }

    #[test]
    fn settings_are_kept_and_what_is_none_is_put_aside() {
        let folder = TestFolder::new("settings");
        assert_eq!(Settings::open(folder.path()).unwrap(), Settings::default());
        let mut settings = Settings { readers: Some(Readers::Owner), ..Settings::default() };
        let limit = Limit { info_hash: InfoHash::V1([7; 20]), up: Some(9), down: None };
        settings.limit(limit).unwrap();
        settings.save(folder.path()).unwrap();
        assert_eq!(Settings::open(folder.path()).unwrap(), settings);
        let none = Limit { up: None, ..limit };
        settings.limit(none).unwrap();
        assert!(settings.limits.is_empty());
        for number in 0..LIMITS_MAX {
            let info_hash =
                InfoHash::V1(std::array::from_fn(|at| (number >> (8 * at.min(3))) as u8));
            settings.limit(Limit { info_hash, ..limit }).unwrap();
        }
        assert!(settings.limit(Limit { info_hash: InfoHash::V1([9; 20]), ..limit }).is_err());
        for wrong in ["{", "{\"up\":-1}", "{\"colour\":\"red\"}"] {
            fs::write(folder.path().join(FILE), wrong).unwrap();
            assert_eq!(Settings::open(folder.path()).unwrap(), Settings::default());
            assert_eq!(fs::read_to_string(folder.path().join(DAMAGED)).unwrap(), wrong);
        }
    }
}
