//! What a watched folder stands on: whether it is still the same one, and whether its file system
//! tells what happens in it.
//!
//! An empty mount point looks like an empty folder. So it is kept which file system lies beneath
//! the folder's own: when the folder is gone and that one shows at its path, the folder is not
//! back. A bind mount from the same file system cannot be told apart; who knows more about the
//! volume says so by [`Watch::doubt`](super::Watch::doubt), or not at all by not asking.

use rustix::fs::{AtFlags, CWD, FileType, Stat};
use std::io;
use std::path::Path;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    device: u64,
    inode: u64,
    /// The file system on which the one of the folder is mounted.
    beneath: Option<u64>,
    /// What kind of file system it is.
    pub kind: Kind,
}

/// A kind of file system, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it is called when it does not tell of all changes.
    pub silent: Option<&'static str>,
    /// Whether a file's inode number is the same after the next mount.
    pub inodes_last: bool,
}

impl Ground {
    /// Of the folder at that path; a link to it counts as the folder.
    pub fn of(folder: &Path) -> io::Result<Ground> {
        let stat = stat_folder(folder)?;
        let whole = folder.canonicalize()?;
        let mut beneath = None;
        for above in whole.ancestors().skip(1) {
            let device = rustix::fs::stat(above)?.st_dev;
            if device != stat.st_dev {
                beneath = Some(device);
                break;
            }
        }
        let magic = rustix::fs::statfs(folder)?.f_type as u32;
        Ok(Ground { device: stat.st_dev, inode: stat.st_ino, beneath, kind: Kind::of(magic) })
    }

    /// Whether the folder at that path is still this one.
    pub fn is_at(&self, folder: &Path) -> bool {
        let is_it = |stat: Stat| (stat.st_dev, stat.st_ino) == (self.device, self.inode);
        stat_folder(folder).is_ok_and(is_it)
    }

    /// Whether what is at the path now may be the folder that was away.
    pub fn may_have_become(&self, other: &Ground) -> bool {
        other.device == self.device || Some(other.device) != self.beneath
    }
}

impl Kind {
    fn of(magic: u32) -> Kind {
        let silent = SILENT.iter().find(|(known, _)| *known == magic);
        Kind { silent: silent.map(|(_, name)| *name), inodes_last: !FLEETING.contains(&magic) }
    }
}

fn stat_folder(folder: &Path) -> io::Result<Stat> {
    let stat = rustix::fs::statat(CWD, folder, AtFlags::empty())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(stat),
        _ => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// File systems that others write to without this kernel's knowledge, by `f_type` of `statfs`.
///
/// Not `overlayfs`: what is changed through it is told, and changing what it is made of while it is
/// mounted is something it does not support itself.
const SILENT: [(u32, &str); 19] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x2003_0528, "OrangeFS"),
    (0x1983_0326, "BeeGFS"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
];

/// FAT and exFAT: their files have no numbers, Linux makes some up anew after each mount.
const FLEETING: [u32; 2] = [0x4d44, 0x2011_bab0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_known_by_what_they_can() {
        let quiet = |magic| Kind::of(magic).silent;
        assert_eq!(
            [0x6969, 0xfe53_4d42, 0x6573_5546].map(quiet).map(|kind| kind.is_some()),
            [true; 3]
        );
        // ext4, Btrfs, XFS, tmpfs, overlayfs.
        for magic in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630] {
            assert_eq!(Kind::of(magic), Kind { silent: None, inodes_last: true });
        }
        assert!(!Kind::of(0x4d44).inodes_last);
    }

    #[test]
    fn a_bare_mount_point_is_not_the_folder_that_was_mounted_there() {
        let kind = Kind { silent: None, inodes_last: true };
        let ground = |device, inode| Ground { device, inode, beneath: Some(1), kind };
        let was = ground(7, 2);
        assert!(!was.may_have_become(&ground(1, 99)));
        for back in [ground(7, 2), ground(7, 3), ground(8, 2)] {
            assert!(was.may_have_become(&back));
        }
        let here = Ground::of(Path::new("/proc/self")).unwrap();
        assert!(here.is_at(Path::new("/proc/self")) && !here.is_at(Path::new("/")));
        assert!(here.beneath.is_some());
        assert!(Ground::of(Path::new("/proc/self/maps")).is_err());
    }
}
