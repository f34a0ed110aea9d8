//! `perennial run`: a box that knows all it was ever given, and looks after folders.

mod folders;

use crate::assert_arrives;
use crate::leecher::{Leecher, MODERN};
use crate::program::{Call, Folder, PATIENCE, Program, Share, wait_until};
use std::fs;
use std::path::{Path, PathBuf};

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
            "{ALONE}[[share]]\nfolder = \"{shared}\"\n\
             [fetch]\ninto = \"{fetched}\"\nwatch = \"{wishes}\"\n{more}"
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

/// Neither the DHT nor a router: the test is alone.
const ALONE: &str = "[network]\ndht = \"off\"\nmap-port = false\n";

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
