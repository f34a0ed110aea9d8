//! What the owner wants fetched, kept until it has been: `STATE/wanted/INFO-HASH.json`.
//!
//! The library knows which torrents are begun; this says what of them is wanted, and what to look
//! for while nothing but a name is known. So a box goes on after any power cut with what it was
//! told, and nobody has to say it again. A file is written whole and renamed; one that cannot be
//! read is passed over, and said.

use super::control::what::What;
use super::fetch::magnet::Lead;
use super::options::{FetchOptions, Options};
use super::refusal::Refusal;
use super::state::{State, refused, replace, sync_folder};
use crate::engine::library::Entry;
use crate::engine::units::InfoHash;
use serde::{Deserialize, Serialize};
use std::fs::{self};
use std::io::{self};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// One torrent that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name, as far as it is known.
    pub name: String,
    /// Where its content goes.
    pub into: PathBuf,
    /// Patterns of the files that are wanted; all are when there is none.
    pub files: Vec<String>,
    /// From front to back.
    pub sequential: bool,
    /// Trackers that its link names.
    pub trackers: Vec<String>,
    /// Trackers that the owner names: they may be in the house.
    #[serde(default)]
    pub own_trackers: Vec<String>,
    /// Web seeds that the owner names: they may be in the house.
    pub web_seeds: Vec<String>,
    /// Web seeds that its link names.
    #[serde(default)]
    pub told_web_seeds: Vec<String>,
    /// Peers to begin with.
    pub peers: Vec<SocketAddr>,
    /// Not now. Of a torrent of which more is known than this the library says that.
    #[serde(default)]
    pub paused: bool,
}

impl Wanted {
    /// What is wanted of a link that names no more than a torrent.
    pub fn of_lead(lead: &Lead, fetch: &FetchOptions) -> Wanted {
        let mut wanted = Wanted::new(&lead.name, fetch);
        wanted.trackers.clone_from(&lead.trackers);
        wanted.told_web_seeds.clone_from(&lead.web_seeds);
        wanted.peers.extend(&lead.peers);
        wanted
    }

    /// What is wanted of a torrent.
    pub fn new(name: &str, fetch: &FetchOptions) -> Wanted {
        Wanted {
            name: name.into(),
            // Taken up again from anywhere.
            into: fs::canonicalize(&fetch.output).unwrap_or_else(|_| fetch.output.clone()),
            files: fetch.files.clone(),
            sequential: fetch.sequential,
            trackers: Vec::new(),
            own_trackers: fetch.trackers.clone(),
            web_seeds: fetch.web_seeds.clone(),
            told_web_seeds: Vec::new(),
            peers: fetch.peers.clone(),
            paused: false,
        }
    }

    /// The link it was.
    pub fn lead(&self, info_hash: InfoHash) -> Lead {
        Lead {
            info_hash,
            name: self.name.clone(),
            trackers: self.trackers.clone(),
            peers: self.peers.clone(),
            web_seeds: self.told_web_seeds.clone(),
        }
    }

    /// The options it is fetched with, on a box with those.
    pub fn options(&self, of_box: &Options) -> Options {
        let fetch = FetchOptions {
            links: Vec::new(),
            output: self.into.clone(),
            files: self.files.clone(),
            sequential: self.sequential,
            exit: false,
            peers: self.peers.clone(),
            web_seeds: self.web_seeds.clone(),
            trackers: self.own_trackers.clone(),
            force: false,
        };
        let own = self.own_trackers.iter().filter(|one| !of_box.trackers.contains(one));
        let trackers = of_box.trackers.iter().chain(own).cloned().collect();
        Options { fetch, trackers, ..of_box.clone() }
    }
}

impl State<'_> {
    /// Writes down what is wanted; known after any power cut once this returns.
    pub fn keep_wanted(&self, info_hash: &InfoHash, wanted: &Wanted) -> Result<(), Refusal> {
        let (folder, path) = (self.wanted_folder(), self.wanted_path(info_hash));
        let keep = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            replace(&path, &serde_json::to_vec(wanted)?)
        };
        keep().map_err(|error| refused(&path, error))
    }

    /// The same of a torrent that is known by now; what its link has said before stays. Gives back
    /// what is kept.
    pub fn renew_wanted(
        &self,
        info_hash: &InfoHash,
        mut wanted: Wanted,
    ) -> Result<Wanted, Refusal> {
        if let Some(before) = self.wanted(info_hash) {
            (wanted.trackers, wanted.told_web_seeds) = (before.trackers, before.told_web_seeds);
        }
        self.keep_wanted(info_hash, &wanted)?;
        Ok(wanted)
    }

    /// It has been fetched, or is wanted no more.
    pub fn drop_wanted(&self, info_hash: &InfoHash) {
        // Should it stay, the next start finds that nothing is lacking.
        let _ = fs::remove_file(self.wanted_path(info_hash));
    }

    /// A torrent is wanted no more, and no longer there. That is finished after any power cut: what
    /// is begun is never left behind without its wish.
    pub fn forget_wanted(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let (path, gone) = (self.wanted_path(&entry.info_hash), self.gone_path(&entry.info_hash));
        // There is none when nothing of it was wanted.
        let was_wanted = fs::rename(&path, &gone).is_ok();
        if was_wanted {
            sync_folder(&self.wanted_folder()).map_err(|error| refused(&gone, error))?;
        }
        self.forget(entry)?;
        if was_wanted {
            let _ = fs::remove_file(gone);
        }
        Ok(())
    }

    /// Finishes what [`forget_wanted`](State::forget_wanted) had begun when the power went.
    pub fn finish_forgetting(&mut self) -> Result<(), Refusal> {
        for info_hash in names_in(&self.wanted_folder(), GONE) {
            if let Some(entry) = self.get(&info_hash) {
                self.forget(&entry)?;
            }
            let _ = fs::remove_file(self.gone_path(&info_hash));
        }
        Ok(())
    }

    /// What is wanted of a torrent.
    pub fn wanted(&self, info_hash: &InfoHash) -> Option<Wanted> {
        read(&self.wanted_path(info_hash))
    }

    /// Every torrent of which something is wanted.
    pub fn all_wanted(&self) -> Vec<InfoHash> {
        names_in(&self.wanted_folder(), "json")
    }

    fn wanted_folder(&self) -> PathBuf {
        self.path().join("wanted")
    }

    fn wanted_path(&self, info_hash: &InfoHash) -> PathBuf {
        self.wanted_folder().join(std::format!("{info_hash}.json"))
    }

    fn gone_path(&self, info_hash: &InfoHash) -> PathBuf {
        self.wanted_folder().join(std::format!("{info_hash}.{GONE}"))
    }
}

/// The torrents that files in a folder of ours are named for, with that at the end.
pub fn names_in(folder: &Path, end: &str) -> Vec<InfoHash> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.path());
    let ours = names.filter(|path| path.extension().is_some_and(|found| found == end));
    ours.filter_map(|path| What::new(path.file_stem()?.to_str()?).info_hash()).collect()
}

fn read(path: &Path) -> Option<Wanted> {
    let bytes = fs::read(path).ok()?;
    let wanted = serde_json::from_slice(&bytes);
    wanted.inspect_err(|error| warn!("{}: {error}; it is passed over", path.display())).ok()
}

/// What stands behind the name of a wish that is no more.
const GONE: &str = "gone";
