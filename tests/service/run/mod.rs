//! `perennial run`: a box that knows all it was ever given, and looks after folders.
//!
//! | what | where |
//! | --- | --- |
//! | entries of a folder that come, change, are renamed and go | [`folders`] |
//! | what the owner tells it meanwhile | [`told`] |
//! | what it fetches, and what waits | [`wishes`] |
//! | more torrents than places, and peers that ask for what is at rest | [`rest`] |
//! | signals, systemd, and who else wants the state folder | [`ends`] |
//! | `kill -9` in the middle of everything | [`killed`] |
//! | content that is put elsewhere | [`moves`] |
//! | state that was damaged, and places that are wrong | [`damage`] |
//! | the order in which a torrent reaches the disk, and what its files are worth after a cut | [`durable`] |
//! | disks that are unplugged, full, locked, copied and slow | [`disks`] |
//! | disks that fail to read and to write | [`failing`] |
//! | folders that the kernel keeps it to | [`kept`] |

mod damage;
mod disks;
mod durable;
mod ends;
mod failing;
mod folders;
mod kept;
mod killed;
mod moves;
mod rest;
mod told;
mod wishes;

use crate::assert_arrives;
use crate::author::Torrent;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, Folder, PATIENCE, Program, Share, wait_until};
use crate::torrent::Metainfo;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A box's folders: `shared`, of which each entry is shared, `fetched` and `wishes`.
struct Home(Folder);

impl Home {
    fn new(name: &str) -> Home {
        let folder = Folder::new(name);
        for name in ["shared", "fetched", "wishes"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Home(folder)
    }

    /// A path in one of its folders.
    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes a file as those who copy do, and says how it lies there.
    fn drop_file(&self, path: &str, bytes: &[u8]) -> PathBuf {
        self.0.write(path, bytes)
    }

    /// A configuration that looks after all three folders, with more lines behind.
    fn config(&self, more: &str) -> String {
        let [shared, fetched, wishes] =
            ["shared", "fetched", "wishes"].map(|name| self.at(name).display().to_string());
        format!(
            "{ALONE}into = \"{fetched}\"\nwatch = \"{wishes}\"\n\
             [[share]]\nfolder = \"{shared}\"\n{more}"
        )
    }

    /// Runs on that configuration.
    fn call(&self) -> Call {
        Call::run_box(&self.0, &self.config(""))
    }

    fn start(&self) -> Program {
        self.call().start()
    }
}

/// Neither the DHT nor a router: the test is alone, and may run on a disk that is nearly full.
const ALONE: &str = "[network]\ndht = \"off\"\nmap-port = false\n[fetch]\nreserve = \"1MB\"\n";

/// A second after the box has started everything that was to be done at its start has been, unless
/// there is much of it: a change that is told after it is the only one.
fn settle(program: &Program, home: &Home) {
    let name = format!("settled-{}", program.id());
    home.drop_file(&format!("shared/{name}"), name.as_bytes());
    program.wait_for_share(&name);
}

/// Every byte of a share arrives.
fn assert_served(program: &Program, name: &str, root: &Path) -> Share {
    let share = program.wait_for_share(name);
    assert_arrives(program, &share, root, MODERN, 16);
    share
}

/// How often something was hashed.
fn hashed(program: &Program) -> usize {
    program.log().matches(": shared: ").count()
}

/// Waits until the box knows nothing of that name any more.
fn wait_until_gone(program: &Program, what: &str) {
    let gone = || program.find(what).is_none().then_some(());
    wait_until("it is gone", PATIENCE, gone, || program.log());
}

/// Whether a peer is answered that asks for a torrent.
fn answers(program: &Program, info_hash: [u8; 20]) -> bool {
    Leecher::connect(program.address, info_hash, MODERN).is_ok()
}

/// Folders of torrents that no torrent has.
fn strays(program: &Program) -> Vec<String> {
    let known: Vec<String> = program
        .list()
        .iter()
        .filter_map(|item| item["info_hash"].as_str().map(Into::into))
        .collect();
    let names = fs::read_dir(program.state().join("torrents")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut owners: Vec<String> = Vec::new();
    let mut is_stray = |name: &String| {
        let owner = known.iter().find(|hash| name.starts_with(*hash));
        let again = owner.is_none_or(|owner| owners.contains(owner));
        owners.extend(owner.cloned());
        again
    };
    names.filter(|name| is_stray(name)).collect()
}
/// A torrent of one file that others have made.
fn foreign(name: &str, seed: u64, length: usize) -> Arc<Torrent> {
    Arc::new(Torrent::single(name, 16 << 10, crate::bytes(seed, length)))
}

/// The whole content of a share, fetched on one connection.
fn content_of(program: &Program, share: &Share) -> Vec<u8> {
    let torrent = Metainfo::read(&share.torrent);
    let mut leecher = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
    leecher.fetch_all(&torrent, 16).unwrap()
}
