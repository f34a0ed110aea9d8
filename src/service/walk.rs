//! A walk through what the owner wants shared: files in a stable order, in bounded memory.
//!
//! Folders are gone through depth first, names sorted as raw bytes, so that two walks of the same
//! tree give the same torrent on every machine. Only the names of folders on the way down are
//! held, and they may not be more than the board's `walk_kib`.
//!
//! Left out, and said: half-made and system files, symbolic links (what they lead to may lie
//! anywhere), devices and pipes, names that are not UTF-8 (a torrent cannot hold them).

use super::content::stamp_of;
use super::refusal::Refusal;
use crate::engine::library::extents::Stamp;
use crate::engine::metainfo::names;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// A file to be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path below the root, with `/` between names; empty when the root is the file.
    pub path: String,
    /// Its length.
    pub length: u64,
    /// What it looks like.
    pub stamp: Stamp,
}

/// What was left out, to be said.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// How many entries.
    pub count: u64,
    /// The first few, with the reason.
    pub first: Vec<String>,
}

/// A walk under way.
pub struct Walk {
    root: PathBuf,
    /// For each folder on the way down: its path with `/` behind it, and what is still to come.
    folders: Vec<(String, std::vec::IntoIter<String>)>,
    single: bool,
    held_bytes: usize,
    held_max: usize,
    /// Files asked for so far.
    asked: u32,
    /// What was left out so far.
    pub left_out: LeftOut,
}

impl Walk {
    /// Starts at `root`, which is a file or a folder.
    pub fn new(root: &Path, walk_kib: u32) -> Result<Walk, Refusal> {
        let held_max = walk_kib as usize * 1024;
        let stat = rustix::fs::statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| unreadable(root, error.into()))?;
        let mut walk = Walk {
            root: root.to_path_buf(),
            folders: Vec::new(),
            single: false,
            held_bytes: 0,
            held_max,
            asked: 0,
            left_out: LeftOut::default(),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => walk.single = true,
            FileType::Directory => walk.enter(String::new())?,
            _ => {
                let remedy = "share a file or a folder";
                return Err(Refusal::new(root.display(), "is neither a file nor a folder", remedy));
            }
        }
        Ok(walk)
    }

    /// The next file, `None` after the last. Gives way now and then: a walk can take minutes.
    pub async fn next_file(&mut self) -> Result<Option<Found>, Refusal> {
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(FILES_AT_A_STRETCH) {
            smol::future::yield_now().await;
        }
        if std::mem::take(&mut self.single) {
            return self.look(String::new());
        }
        while let Some((folder, names)) = self.folders.last_mut() {
            let Some(name) = names.next() else {
                if let Some((folder, _)) = self.folders.pop() {
                    self.held_bytes -= folder.len();
                }
                continue;
            };
            let path = std::format!("{folder}{name}");
            self.held_bytes -= name.len() + NAME_COST;
            if name.starts_with(super::volume::MARKER) {
                // Ours, and not worth a word.
            } else if names::is_left_out(&name) {
                self.leave_out(&path, "half-made, hidden or a system file");
            } else if let Some(found) = self.look(path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks at one entry: a file is given, a folder entered, anything else left out.
    fn look(&mut self, path: String) -> Result<Option<Found>, Refusal> {
        let whole = if path.is_empty() { self.root.clone() } else { self.root.join(&path) };
        let stat = match rustix::fs::statat(CWD, &whole, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its folder was read: it is no longer part of what is shared.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(unreadable(&whole, error.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                rustix::fs::access(&whole, Access::READ_OK)
                    .map_err(|error| unreadable(&whole, error.into()))?;
                let (length, stamp) = (stat.st_size as u64, stamp_of(&stat));
                return Ok(Some(Found { path, length, stamp }));
            }
            FileType::Directory => self.enter(std::format!("{path}/"))?,
            FileType::Symlink => self.leave_out(&path, "a symbolic link"),
            _ => self.leave_out(&path, "a device, pipe or socket"),
        }
        Ok(None)
    }

    /// Reads the names in a folder and goes on there.
    fn enter(&mut self, folder: String) -> Result<(), Refusal> {
        let whole = self.root.join(&folder);
        let mut names = Vec::new();
        self.held_bytes += folder.len();
        for entry in std::fs::read_dir(&whole).map_err(|error| unreadable(&whole, error))? {
            let name = entry.map_err(|error| unreadable(&whole, error))?.file_name();
            match name.into_string() {
                Ok(name) => match names::check(&name) {
                    Ok(()) => {
                        self.held_bytes += name.len() + NAME_COST;
                        names.push(name);
                    }
                    Err(what) => self.leave_out(&std::format!("{folder}{name}"), what),
                },
                Err(name) => {
                    let path = std::format!("{folder}{}", name.to_string_lossy());
                    self.leave_out(&path, "its name is not UTF-8");
                }
            }
            if self.held_bytes > self.held_max {
                let problem = "holds more names than the board's walk_kib has room for";
                let remedy = "share its parts one by one, or choose a larger board with --board";
                return Err(Refusal::new(whole.display(), problem, remedy));
            }
        }
        names.sort_unstable();
        self.folders.push((folder, names.into_iter()));
        Ok(())
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        self.left_out.count += 1;
        if self.left_out.first.len() < LEFT_OUT_SHOWN {
            let shown = path.escape_debug().to_string();
            self.left_out.first.push(std::format!("{shown} ({why})"));
        }
    }
}

/// Says that something cannot be read, and what would help.
pub fn unreadable(path: &Path, error: std::io::Error) -> Refusal {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound if is_hidden(path) => HIDDEN,
        std::io::ErrorKind::NotFound => "check the spelling",
        std::io::ErrorKind::PermissionDenied => "make it readable for this user, or leave it out",
        _ => "check the disk it is on",
    };
    Refusal::new(path.display(), error, remedy)
}

/// Systemd starts the box where there is nothing to be seen of homes, unless its owner says so.
fn is_hidden(path: &Path) -> bool {
    let is_service = std::env::var_os("INVOCATION_ID").is_some();
    is_service && ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home))
}

const HIDDEN: &str = "check the spelling; or show it to the service, which sees nothing of homes: as \
                      /usr/share/doc/perennial/examples/content.conf says";

/// What a name costs beside its bytes: the string's own place.
const NAME_COST: usize = size_of::<String>();

/// Files walked before others have their turn, the signal that ends it among them.
const FILES_AT_A_STRETCH: u32 = 256;

/// Entries left out that are named; the rest is counted.
const LEFT_OUT_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(std::format!("walk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("b/empty")).unwrap();
        folder
    }

    #[test]
    fn a_tree_is_walked_in_one_order_and_nothing_leads_out_of_it() {
        let root = folder("order");
        for (path, text) in
            [("z", "1"), ("b/c", "22"), ("a.b", ""), ("b/.x", "no"), ("y.part", "no")]
                .into_iter()
                .chain([(crate::service::volume::MARKER, "unsaid")])
        {
            fs::write(root.join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let mut walk = Walk::new(&root, 64).unwrap();
        let mut paths = Vec::new();
        smol::block_on(async {
            while let Some(found) = walk.next_file().await.unwrap() {
                paths.push((found.path, found.length));
            }
        });
        let wanted = [("a.b", 0), ("b/c", 2), ("z", 1)];
        assert_eq!(paths, wanted.map(|(path, length)| (path.to_string(), length)));
        assert_eq!((walk.left_out.count, walk.held_bytes), (3, 0));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn more_names_than_there_is_room_for_are_refused() {
        let root = folder("names");
        for n in 0..100 {
            fs::write(root.join(std::format!("{n:030}")), "").unwrap();
        }
        assert!(Walk::new(&root, 4).err().unwrap().to_string().contains("walk_kib"));
        assert!(
            Walk::new(Path::new("/nowhere"), 4).err().unwrap().to_string().contains("spelling")
        );
        fs::remove_dir_all(root).unwrap();
    }
}
