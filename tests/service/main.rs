//! The program itself on loopback: real sockets, real files, real signals.
//!
//! | what | where |
//! | --- | --- |
//! | every byte arrives, however it is asked for | [`fetch`] |
//! | a second start, a start after a crash | [`again`] |
//! | a `.torrent` made by others | [`adopted`] |
//! | files that change while they are shared | [`changes`] |
//! | Ctrl-C, and what is still told then | [`endings`] |
//! | everything that is refused | [`refusals`] |
//! | what is fetched, gone on with, and not fetched | [`get`] |
//! | names that must not meet a file system | [`names`] |
//! | disks and files that fail a fetch | [`trouble`] |
//! | disks that come, go, fill up and are copied | [`volumes`] |
//! | a fetch that is killed | [`killed`] |
//! | peers that lie, flood, stall or send rubbish | [`hostile`] |
//! | the configuration file of `run` | [`config`] |
//! | boards, and limits small enough to be met | [`boards`] |
//! | a box that runs, and what it is told | [`run`] |
//! | images for boards that run firmware | [`image`] |
//! | ports, and shares for the house only | [`network`] |
//! | announces to servers that follow a script | [`tracker`] |
//! | content from web servers that follow a script | [`webseed`] |
//! | folders whose entries come, change and go | [`watch`] |
//!
//! Most of this is waiting: run more tests at once than there are cores. What needs a mount, a
//! network or fewer rights of its own says so and passes when it is not run as root.

#![cfg(feature = "std")]

#[path = "../support/author.rs"]
mod author;
#[path = "../support/leecher.rs"]
mod leecher;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/seeder.rs"]
mod seeder;
#[path = "../support/torrent.rs"]
mod torrent;
#[allow(dead_code, reason = "each test crate uses what it needs")]
#[path = "../support/tracker.rs"]
mod tracker_server;
#[path = "../support/web_server.rs"]
mod web_server;

mod adopted;
mod again;
mod boards;
mod changes;
mod config;
mod endings;
mod exchange;
mod fetch;
mod get;
mod hostile;
mod image;
mod killed;
mod names;
mod network;
mod refusals;
mod run;
mod tracker;
mod trouble;
mod volumes;
mod watch;
mod webseed;

use leecher::{Leecher, Manners};
use program::{Folder, Program, Share};
use std::path::{Path, PathBuf};
use torrent::Metainfo;

/// Bytes that are like no others: a block in the wrong place cannot pass for the right one.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    prng::Prng::new(seed).fill(&mut bytes);
    bytes
}

/// A file of that many bytes to share.
fn film(home: &Folder, length: usize) -> PathBuf {
    home.write("film.mkv", &bytes(length as u64, length))
}

/// A folder of three files that fill pieces of 16 KiB exactly: eight, four and eight of them.
fn season(home: &Folder) -> PathBuf {
    for (episode, pieces) in [("one", 8), ("two", 4), ("zero", 8)] {
        home.write(format!("season/{episode}"), &bytes(pieces, pieces as usize * 16_384));
    }
    home.path().join("season")
}

/// Fetches all of a share and compares it with what lies at `root`.
fn assert_arrives(program: &Program, share: &Share, root: &Path, manners: Manners, depth: usize) {
    let torrent = Metainfo::read(&share.torrent);
    assert_eq!(torrent.info_hash, share.info_hash);
    let mut leecher = Leecher::enter(program.address, share.info_hash, manners).unwrap();
    let content = leecher.fetch_all(&torrent, depth).unwrap();
    torrent.assert_is(&content, root);
}

/// What stands in a folder and all below it, sorted.
fn names_under(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let below = entry.path().strip_prefix(folder).expect("it lies below").to_owned();
            names.push(below.to_string_lossy().into_owned());
            pending.extend(entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path()));
        }
    }
    names.sort();
    names
}

/// Says that a test needs what it cannot have.
fn lacks_root() -> bool {
    let lacks = !program::is_root();
    if lacks {
        eprintln!("not run: it needs root");
    }
    lacks
}
