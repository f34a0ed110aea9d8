//! What is mounted, as the kernel tells it, and word of every change of it.
//!
//! A mount is known by the number the kernel gives it (`statx`, since Linux 5.8), not by `st_dev`:
//! a bind mount has the device of what it shows, and each subvolume of btrfs a device of its own.
//! Older kernels do not tell the number; there the device has to do.
//!
//! ```text
//! 36 35 98:0 /films /mnt/usb rw,noatime master:1 - ext4 /dev/sdb1 rw     a line of mountinfo
//! id    device root at                             fs   source           what is taken of it
//! ```

use async_io::Async;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::task::{Poll, ready};
use std::vec::Vec;

/// One file system, or a part of it, at one place of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number for it; used again once it is gone.
    pub id: u64,
    /// The device, as major and minor; the major of what has none is 0.
    pub device: (u32, u32),
    /// Which folder of the file system is shown.
    pub root: PathBuf,
    /// Where it is shown.
    pub at: PathBuf,
    /// The kind of file system.
    pub fs: String,
    /// What it was mounted from: a device's file, a server's address, or any word.
    pub source: String,
}

/// Which mount a path is on right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The number of the mount, where the kernel tells it.
    pub mount: Option<u64>,
    /// The device, which a mount may have several of and several mounts may share.
    pub device: u64,
}

impl Mount {
    /// Reads a line of `/proc/self/mountinfo`.
    pub fn parse(line: &[u8]) -> Option<Mount> {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let text = |word: &[u8]| Some(String::from_utf8_lossy(word).into_owned());
        let id = text(words.next()?)?.parse().ok()?;
        let device = text(words.nth(1)?)?;
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let (root, at) = (unescape(words.next()?), unescape(words.next()?));
        words.by_ref().find(|word| *word == b"-")?;
        let fs = text(words.next()?)?;
        let source = unescape(words.next()?).to_string_lossy().into_owned();
        Some(Mount { id, device, root, at, fs, source })
    }

    /// It shows the kernel itself, or is mounted only when somebody looks: nobody keeps files there.
    pub fn is_apparatus(&self) -> bool {
        APPARATUS.contains(&self.fs.as_str())
    }

    /// Others answer for it, who may take for ever.
    pub fn is_remote(&self) -> bool {
        REMOTE.contains(&self.fs.as_str()) || self.fs.starts_with("fuse.")
    }

    /// Both show the same folder of the same file system: a bind mount and what it shows.
    pub fn shows_the_same(&self, other: &Mount) -> bool {
        self.device == other.device && self.root == other.root
    }

    /// Its block device has been pulled out, though nobody has unmounted it.
    pub fn has_lost_its_device(&self) -> bool {
        let (major, minor) = self.device;
        // Where none is listed, the list is not to be had: a sandbox hides it.
        let is_listed = |devices: &Path| {
            let mut any = std::fs::read_dir(devices).into_iter().flatten();
            any.next().is_none() || devices.join(std::format!("{major}:{minor}")).exists()
        };
        major != 0 && !is_listed(Path::new(BLOCK_DEVICES))
    }

    /// The number of the block device under it; btrfs has it behind the name of its source only.
    pub fn block_device(&self) -> Option<u64> {
        let (major, minor) = self.device;
        if major != 0 {
            return Some(rustix::fs::makedev(major, minor));
        }
        let stat = rustix::fs::stat(self.source.as_str()).ok()?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        is_device.then_some(stat.st_rdev)
    }

    /// A mount of which only the place is known.
    fn bare(at: PathBuf, standing: Standing) -> Mount {
        let device = (rustix::fs::major(standing.device), rustix::fs::minor(standing.device));
        let (id, root) = (standing.mount.unwrap_or(0), PathBuf::from("/"));
        Mount { id, device, root, at, ..Mount::default() }
    }
}

/// Everything mounted, in the kernel's order: what stands later may hide what stands earlier.
///
/// # When full
/// Of a table longer than 1 MiB the rest is not seen.
pub fn all() -> io::Result<Vec<Mount>> {
    let mut table = Vec::new();
    File::open(MOUNTINFO)?.take(TABLE_BYTES_MAX).read_to_end(&mut table)?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
}

/// Which mount a path is on. Links are not followed at its end.
pub fn standing(path: &Path) -> io::Result<Standing> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
        Ok(seen) => {
            let is_told = seen.stx_mask & StatxFlags::MNT_ID.bits() != 0;
            let device = rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor);
            Ok(Standing { mount: is_told.then_some(seen.stx_mnt_id), device })
        }
        // Kernels before 4.11, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let seen = rustix::fs::lstat(path)?;
            Ok(Standing { mount: None, device: seen.st_dev })
        }
        Err(error) => Err(error.into()),
    }
}

impl Standing {
    /// Both are on one mount: by its number, and by the device where that is not told.
    pub fn is_with(&self, other: Standing) -> bool {
        match (self.mount, other.mount) {
            (Some(mine), Some(others)) => mine == others,
            _ => self.device == other.device,
        }
    }
}

/// The mount that holds `path`, which is there and leads through no link.
pub fn holding(path: &Path, mounts: &[Mount]) -> io::Result<Mount> {
    let own = standing(path)?;
    let numbered = mounts.iter().find(|mount| Some(mount.id) == own.mount);
    if let Some(mount) = numbered.filter(|mount| path.starts_with(&mount.at)) {
        return Ok(mount.clone());
    }
    // As far up as the same mount reaches.
    let same = |path: &&Path| standing(path).is_ok_and(|above| above.is_with(own));
    let at = path.ancestors().take_while(same).last().unwrap_or(path);
    let listed = mounts.iter().rfind(|mount| mount.at == at);
    Ok(listed.cloned().unwrap_or_else(|| Mount::bare(at.to_path_buf(), own)))
}

/// Word of every change of what is mounted. A box on which nothing is mounted or unmounted is never
/// woken by it.
///
/// The kernel reports a change of the table as an error and an exception (`EPOLLERR`, `EPOLLPRI`), and
/// once: to each that has opened it, whoever polls for that. So it is open twice. What is said of the
/// one is for the reactor, which wakes us by it but may take it for what was so before; the other is
/// asked whenever we are woken, by nobody else.
pub struct Watch {
    table: Async<File>,
    asked: File,
}

impl Watch {
    /// Watches from now on: what was mounted before has to be looked at after this.
    pub fn new() -> io::Result<Watch> {
        Ok(Watch { table: Async::new(File::open(MOUNTINFO)?)?, asked: File::open(MOUNTINFO)? })
    }

    /// Waits until something has been mounted, unmounted or moved. May be dropped and begun again,
    /// by one task: nothing is missed between two calls.
    pub async fn changed(&self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                if self.has_changed() {
                    return Poll::Ready(Ok(()));
                }
                // It can always be read and never be written, so that whoever waits for that is woken
                // by a change, and by nothing else.
                ready!(self.table.poll_writable(cx))?;
            }
        })
        .await
    }

    fn has_changed(&self) -> bool {
        let mut asked = [PollFd::new(&self.asked, PollFlags::PRI)];
        // Nothing can make it fail but a signal, and it sleeps for none.
        rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok_and(|told| told > 0)
    }
}

/// Undoes what the kernel does to blanks and their like: `\040`.
fn unescape(word: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk().filter(|_| *first == b'\\').and_then(|digits: &[u8; 3]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(plain))
}

const MOUNTINFO: &str = "/proc/self/mountinfo";

const BLOCK_DEVICES: &str = "/sys/dev/block";

/// Thousands of mounts fit.
const TABLE_BYTES_MAX: u64 = 1 << 20;

const APPARATUS: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

const REMOTE: &[&str] =
    &["9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "nfs", "nfs4", "smb3", "smbfs"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_taken_apart_and_rubbish_is_left_alone() {
        let line =
            br"36 35 98:7 /my\040films /mnt/usb\134\040x rw master:1 shared:2 - ext4 /dev/sdb1 rw";
        let mount = Mount {
            id: 36,
            device: (98, 7),
            root: "/my films".into(),
            at: r"/mnt/usb\ x".into(),
            fs: "ext4".into(),
            source: "/dev/sdb1".into(),
        };
        assert_eq!(Mount::parse(line), Some(mount));
        for end in 0..line.len() - 4 {
            // Cut short it may lack its last words, but never makes a mount without a kind.
            assert!(Mount::parse(&line[..end]).is_none_or(|mount| !mount.fs.is_empty()));
        }
        assert_eq!(Mount::parse(b"a b c d e f - g h i"), None);
        assert_eq!(unescape(br"\04\x\"), PathBuf::from(r"\04\x\"));
    }

    #[test]
    fn every_path_has_a_mount() {
        let mounts = all().unwrap();
        assert!(mounts.iter().any(|mount| mount.fs == "proc" && mount.is_apparatus()));
        for path in ["/proc/self", "/proc", "/"] {
            let mount = holding(Path::new(path), &mounts).unwrap();
            assert!(Path::new(path).starts_with(&mount.at), "{mount:?}");
            // Without the table it is found too, by the way up.
            assert_eq!(holding(Path::new(path), &[]).unwrap().at, mount.at);
        }
        let proc = holding(Path::new("/proc/self"), &mounts).unwrap();
        assert_eq!((proc.at, proc.fs.as_str()), (PathBuf::from("/proc"), "proc"));
        assert!(holding(Path::new("/proc/nothing"), &mounts).is_err());
    }

    #[test]
    fn a_device_that_nobody_lists_has_been_pulled_out() {
        let is_any = std::fs::read_dir(BLOCK_DEVICES).into_iter().flatten().next().is_some();
        let mount = Mount { device: (4_000, 1), ..Mount::default() };
        assert_eq!(mount.has_lost_its_device(), is_any);
        assert!(!Mount::default().has_lost_its_device());
        assert!(!holding(Path::new("/"), &all().unwrap()).unwrap().has_lost_its_device());
    }
}
