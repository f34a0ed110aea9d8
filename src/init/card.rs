//! Text on the boot partition, for an owner without a screen: what the box is told, and what it tells.
//!
//! | file | whose | what |
//! | --- | --- | --- |
//! | `perennial.toml` | the owner's | the configuration, taken over at the next start |
//! | `perennial-wrong.txt` | the box's | why it was not; gone once it is |
//! | `claim.txt` | the box's | the secret it is claimed with, until somebody has |
//!
//! The partition is mounted read-only but for the moment of a write. What was taken over is kept on the
//! data partition and goes on when the card's file is wrong, or gone.

use super::fat::{Mounted, while_writable, write_small};
use crate::service::config::{Config, Shared, Source};
use crate::service::owner::{self, Owner};
use crate::service::qr;
use crate::service::state::replace;
use crate::service::volume::mounts;
use std::format;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The boot partition; `None` when there is none to write to.
    pub boot: Option<PathBuf>,
    /// The data partition, or what stands in for it.
    pub data: PathBuf,
    /// Where other disks are mounted.
    pub media: PathBuf,
}

impl Places {
    /// The configuration: what is on the card, if that is right, else what was taken over last.
    pub fn take_over(&self) -> Config {
        if let Some(boot) = &self.boot
            && let Ok(text) = fs::read(boot.join(OWNERS))
        {
            let wrong = boot.join(WRONG);
            match Config::read(&boot.join(OWNERS)) {
                Ok(_) => {
                    if wrong.exists() {
                        self.write(WRONG, None);
                    }
                    if fs::read(self.kept()).ok().as_ref() != Some(&text) {
                        match replace(&self.kept(), &text) {
                            Ok(()) => info!("{OWNERS}: is taken over"),
                            Err(error) => warn!("{}: {error}", self.kept().display()),
                        }
                    }
                }
                Err(refusal) => {
                    warn!("{refusal}; the box goes by the former one");
                    let text = format!("{refusal}.\r\nThe box goes by the former one.\r\n");
                    if fs::read(&wrong).ok().as_deref() != Some(text.as_bytes()) {
                        self.write(WRONG, Some(&text));
                    }
                }
            }
        }
        self.config()
    }

    /// What was taken over last, with what follows from being an appliance.
    pub fn config(&self) -> Config {
        let kept = self.kept();
        let config = if kept.exists() { Config::read(&kept) } else { Ok(Config::default()) };
        let config = config.unwrap_or_else(|refusal| {
            warn!("{refusal}; the box goes by none");
            Config::default()
        });
        self.dress(config, self.disks())
    }

    /// State and content are on the data partition, and each disk that is plugged in has a folder.
    pub fn dress(&self, mut config: Config, disks: Vec<PathBuf>) -> Config {
        // Its disks are mounted and its updates written by it, which the kernel would then refuse.
        config.keep_to.clear();
        config.state.get_or_insert_with(|| self.data.join(STATE));
        config.fetch.into.get_or_insert_with(|| self.data.join(FETCHED));
        let own = config.shares.is_empty().then(|| self.data.join(SHARE));
        let others = disks.into_iter().map(|disk| disk.join(SHARE));
        for folder in own.into_iter().chain(others) {
            let (source, trackers) = (Source::Entries(folder), Vec::new());
            if config.shares.iter().all(|share| share.source != source) {
                config.shares.push(Shared { source, piece_bytes: None, trackers });
            }
        }
        config
    }

    /// Disks that are plugged in now.
    pub fn disks(&self) -> Vec<PathBuf> {
        let mounts = mounts::all().unwrap_or_default().into_iter();
        mounts.map(|mount| mount.at).filter(|at| at.starts_with(&self.media)).collect()
    }

    /// Tells the secret, until somebody has brought it: as a file, and to a camera.
    pub fn tell_claim(&self, state: Option<&Path>, pages: &str) {
        let Some(owner) = state.and_then(Owner::kept) else { return };
        if owner.is_claimed() {
            return;
        }
        let (secret, link) = (owner.secret(), owner::claim_link(pages, owner.secret()));
        let fours = owner::in_fours(secret);
        let text =
            format!("Claim the box at {pages} with this secret:\r\n\r\n{fours}\r\n\r\n{link}\r\n");
        let is_told =
            |boot: &PathBuf| fs::read(boot.join(CLAIM)).is_ok_and(|told| told == text.as_bytes());
        if self.boot.as_ref().is_some_and(|boot| !is_told(boot)) {
            self.write(CLAIM, Some(&text));
        }
        let mut out = io::stdout();
        // Nobody may be looking.
        let _ = write!(out, "{}\n{link}\n", qr::text(&link));
    }

    /// The configuration that was taken over.
    fn kept(&self) -> PathBuf {
        self.data.join(OWNERS)
    }

    /// Writes a file on the boot partition, or deletes it.
    fn write(&self, name: &str, text: Option<&str>) {
        let Some(boot) = &self.boot else { return };
        let written = while_writable(&mut Mounted::read_only(boot), |files| {
            // As `fat` has it nothing is renamed. A cut in between leaves none or half of it, which is
            // made up for at the next start.
            if boot.join(name).exists() {
                files.remove(name)?;
            }
            match text {
                Some(text) => write_small(files, name, 0, text.as_bytes()),
                None => files.sync_folder(""),
            }
        });
        if let Err(error) = written {
            warn!("{}: {error}", boot.join(name).display());
        }
    }
}

/// What the owner may put there.
const OWNERS: &str = "perennial.toml";

const WRONG: &str = "perennial-wrong.txt";
const CLAIM: &str = "claim.txt";

/// Folders of the data partition.
const STATE: &str = "state";
const FETCHED: &str = "Fetched";

/// The folder whose entries are shared, on every disk.
pub const SHARE: &str = "Share";

/// Its name, as the box's own name for lack of another.
pub const NAME: &str = "perennial";

/// What the box is called in the network: the configuration's name, as far as it is one there.
pub fn network_name(config: &Config) -> String {
    let name = config.name.as_deref().unwrap_or(NAME).to_ascii_lowercase();
    let name = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
    let name: String = name.trim_matches('-').chars().take(NAME_BYTES_MAX).collect();
    if name.is_empty() { NAME.into() } else { name }
}

/// The longest label of a name (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;

    fn places(folder: &TestFolder) -> Places {
        let path = folder.path();
        Places { boot: None, data: path.into(), media: path.join("media") }
    }

    fn shares(config: &Config) -> Vec<&Path> {
        config.shares.iter().map(|share| share.source.path()).collect()
    }

    #[test]
    fn an_appliance_keeps_everything_on_its_data_partition_unless_it_is_told_otherwise() {
        let folder = TestFolder::new("card-dress");
        let places = places(&folder);
        let config = places.config();
        assert_eq!(config.state, Some(folder.path().join(STATE)));
        assert_eq!(config.fetch.into, Some(folder.path().join(FETCHED)));
        assert_eq!(shares(&config), [folder.path().join(SHARE)]);
        let own = "state = \"/data/own\"\n[[share]]\nfolder = \"/data/films\"\n";
        fs::write(places.kept(), own).unwrap();
        let stick = folder.path().join("media/stick");
        let config = places.dress(places.config(), [stick.clone(), stick.clone()].into());
        assert_eq!(config.state, Some("/data/own".into()));
        assert_eq!(shares(&config), [Path::new("/data/films"), &stick.join(SHARE)]);
    }

    #[test]
    fn a_kept_configuration_that_cannot_be_read_is_as_good_as_none() {
        let folder = TestFolder::new("card-damaged");
        fs::write(folder.path().join(OWNERS), "state = 7\n").unwrap();
        assert_eq!(shares(&places(&folder).config()), [folder.path().join(SHARE)]);
    }

    #[test]
    fn a_name_is_made_fit_for_the_network() {
        let named = |name: &str| Config { name: Some(name.into()), ..Config::default() };
        for (name, fit) in
            [("Attic", "attic"), ("my box!", "my-box"), ("屋根裏", NAME), ("--", NAME)]
        {
            assert_eq!(network_name(&named(name)), fit);
        }
        assert_eq!(network_name(&Config::default()), NAME);
        assert_eq!(network_name(&named(&"x".repeat(99))).len(), NAME_BYTES_MAX);
    }
}
