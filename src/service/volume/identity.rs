//! Who a volume is, wherever it is mounted.
//!
//! | kind | what tells it | lasts |
//! | --- | --- | --- |
//! | [`File`](Kind::File) | `MOUNT/.perennial-volume`, written by us once | as long as nobody deletes it |
//! | [`Uuid`](Kind::Uuid) | the file system's UUID and the folder of it that is shown | until it is formatted |
//! | [`Fsid`](Kind::Fsid) | what `statvfs` calls it, where that is not just its device | the same |
//! | [`Weak`](Kind::Weak) | what was mounted where, and from what | as long as it is mounted there |
//!
//! The first that can be had counts. A volume with a file has a second name from the two that
//! follow: by it a disk is known again whose file was deleted, or that could not be written to when
//! it was first seen. All of it sleeps in the kernel and belongs on a lane.
//!
//! What stands on a disk was put there by somebody: only a regular file of up to
//! [`MARKER_BYTES_MAX`] is read, and no link is followed.

use super::mounts::{self, Mount, Standing};
use super::superblock;
use crate::engine::digest::sha256;
use crate::service::Refusal;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, StatVfs, StatVfsMountFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// What a volume is called, by us and only by us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId([u8; 16]);

/// How a volume is known. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a file of ours.
    File,
    /// By the UUID of its file system.
    Uuid,
    /// By what the kernel calls it.
    Fsid,
    /// By nothing that is its own.
    Weak,
}

/// A volume, as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who it is.
    pub id: VolumeId,
    /// How that is known.
    pub kind: Kind,
    /// Who it is if nobody asks our file.
    pub unmarked_id: VolumeId,
    /// Where it is: its root is `mount.at`.
    pub mount: Mount,
    /// Which mount that was when it was looked at.
    pub standing: Standing,
    /// How much fits, and whether it can be written to.
    pub space: Space,
}

/// What there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total_bytes: u64,
    /// For us.
    pub free_bytes: u64,
    /// It is mounted read-only.
    pub read_only: bool,
}

impl VolumeId {
    /// One that nobody has.
    pub fn random() -> io::Result<VolumeId> {
        let mut id = [0; 16];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        Ok(VolumeId(id))
    }

    /// The one of those who have all of these in common.
    pub fn of(parts: &[&[u8]]) -> VolumeId {
        let mut all = Vec::new();
        for part in parts {
            all.extend((part.len() as u64).to_be_bytes());
            all.extend_from_slice(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(&all)[..16]);
        VolumeId(id)
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<VolumeId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(VolumeId(id.to_be_bytes()))
    }

    /// Its first 8 bytes, by which records of the library name it.
    pub fn front(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// As much of it as people need.
    pub fn short(self) -> String {
        std::format!("{:08x}", self.front() >> 32)
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says on which volume `path` is, or would be once it is made. With `may_create` a volume that can
/// be written to and has no file of ours is given one.
pub fn identify(path: &Path, may_create: bool) -> Result<Found, Refusal> {
    let mut found = find(path)?;
    if may_create && found.kind != Kind::File {
        let id = VolumeId::random().map_err(|error| refused(path, error))?;
        mark(&mut found, id)?;
    }
    Ok(found)
}

/// The same without ever writing.
pub fn find(path: &Path) -> Result<Found, Refusal> {
    let there = deepest(path);
    let look = || look_at(&mounts::holding(&there?, &mounts::all().unwrap_or_default())?);
    look().map_err(|error| refused(path, error))
}

/// Gives a volume that has no file of ours one that says `id`. A volume that cannot be written to,
/// on which we may not, or that is full, stays as it was found.
pub fn mark(found: &mut Found, id: VolumeId) -> Result<(), Refusal> {
    let path = found.mount.at.join(MARKER);
    match write_marker(&path, id) {
        Ok(id) => (found.id, found.kind) = (id, Kind::File),
        Err(error) if leaves_unmarked(&error) => {}
        Err(error) => return Err(refused(&path, error)),
    }
    Ok(())
}

/// Looks at who is mounted there.
pub fn look_at(mount: &Mount) -> io::Result<Found> {
    let standing = mounts::standing(&mount.at)?;
    let stat = rustix::fs::statvfs(&mount.at)?;
    let (unmarked_id, unmarked_kind) = unmarked(mount, &stat);
    let (id, kind) = match read_marker(&mount.at.join(MARKER))? {
        Some(id) => (id, Kind::File),
        None => (unmarked_id, unmarked_kind),
    };
    Ok(Found { id, kind, unmarked_id, mount: mount.clone(), standing, space: space(&stat) })
}

/// Whether our file at the root of a mount says `id`.
pub(super) fn is_marked(mount: &Mount, id: VolumeId) -> bool {
    read_marker(&mount.at.join(MARKER)).is_ok_and(|found| found == Some(id))
}

/// What a volume is called if nobody asks our file.
fn unmarked(mount: &Mount, stat: &StatVfs) -> (VolumeId, Kind) {
    use std::os::unix::ffi::OsStrExt;
    // A bind mount of a folder is not the volume it is a part of: other paths are on it.
    let root = mount.root.as_os_str().as_bytes();
    if let Some(uuid) = uuid(mount) {
        return (VolumeId::of(&[b"uuid", uuid.as_bytes(), root]), Kind::Uuid);
    }
    if is_lasting(stat.f_fsid, mount) {
        return (VolumeId::of(&[b"fsid", &stat.f_fsid.to_be_bytes(), root]), Kind::Fsid);
    }
    let (at, device) = (mount.at.as_os_str().as_bytes(), std::format!("{:?}", mount.device));
    // Numbers of devices change from one start to the next; what was mounted does not.
    let source = if mount.source.is_empty() { &device } else { &mount.source };
    let parts: &[&[u8]] = &[b"mount", mount.fs.as_bytes(), source.as_bytes(), root, at];
    (VolumeId::of(parts), Kind::Weak)
}

/// Whether what `statvfs` calls a file system is its own: many give the number of their device,
/// some nothing, and those in memory a new one each time.
fn is_lasting(fsid: u64, mount: &Mount) -> bool {
    let (major, minor) = (u64::from(mount.device.0), u64::from(mount.device.1));
    let as_device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    !matches!(fsid, 0 | u64::MAX)
        && fsid != as_device
        && !["tmpfs", "ramfs", "rootfs", "overlay", ""].contains(&mount.fs.as_str())
}

/// The UUID of a file system in small letters without dashes, as udev or its superblock tells it.
fn uuid(mount: &Mount) -> Option<String> {
    let device = mount.block_device()?;
    let is_device = |path: &Path| {
        rustix::fs::stat(path).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice && stat.st_rdev == device
        })
    };
    let mut links = fs::read_dir(BY_UUID).into_iter().flatten().flatten().take(LINKS_MAX);
    if let Some(link) = links.find(|link| is_device(&link.path())) {
        let name = link.file_name().to_string_lossy().to_ascii_lowercase();
        return Some(name.chars().filter(|char| *char != '-').collect());
    }
    let path = Path::new(&mount.source);
    is_device(path)
        .then(|| File::open(path).ok())
        .flatten()
        .and_then(|file| superblock::uuid(&file))
}

fn space(stat: &StatVfs) -> Space {
    Space {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    }
}

/// What our file says; nothing where there is none, where it is no file, or where we may not look.
fn read_marker(path: &Path) -> io::Result<Option<VolumeId>> {
    // Should it be a pipe or a device, opening it must not hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags | OFlags::NOCTTY, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(
            Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NXIO,
        ) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("id "))
        .find_map(|id| VolumeId::parse(id.trim())))
}

/// Writes our file, and says what it says now: another of us may have been quicker. It is whole
/// under its name or not there, whatever is cut.
fn write_marker(path: &Path, id: VolumeId) -> io::Result<VolumeId> {
    if path.symlink_metadata().is_ok() {
        return read_marker(path)?.ok_or_else(|| io::Error::other("holds no identity"));
    }
    let draft = path.with_file_name(std::format!("{MARKER}.{}", id.short()));
    let made = write_durably(&draft, id).and_then(|()| {
        match rustix::fs::renameat_with(CWD, &draft, CWD, path, RenameFlags::NOREPLACE) {
            // Not every file system can promise that; two of us at once are rare.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(&draft, path),
            renamed => renamed.map_err(io::Error::from),
        }
    });
    let made = made.and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all());
    match made {
        Ok(()) => {}
        Err(error) => {
            let _ = fs::remove_file(&draft);
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
        }
    }
    read_marker(path)?.ok_or_else(|| io::Error::other("holds no identity"))
}

fn write_durably(path: &Path, id: VolumeId) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(std::format!("{FOR_PEOPLE}\nid {id}\n").as_bytes())?;
    file.sync_all()
}

/// Whether a file could not be made for a reason that does not concern what else is there: it is
/// not ours to write to, or full.
fn leaves_unmarked(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::Unsupported
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

/// As much of a path as is there, with no link in it.
pub(super) fn deepest(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for above in path.ancestors() {
        match fs::canonicalize(above) {
            Ok(there) => return Ok(there),
            Err(cause) => match cause.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => error = cause,
                _ => return Err(cause),
            },
        }
    }
    Err(error)
}

/// A path with no link in it, as far as it is there, and what is still to be made behind that.
pub(super) fn whole(path: &Path) -> io::Result<PathBuf> {
    let (asked, there) = (std::path::absolute(path)?, deepest(path)?);
    let above = asked.ancestors().find(|above| fs::canonicalize(above).is_ok_and(|at| at == there));
    let rest = above.and_then(|above| asked.strip_prefix(above).ok());
    Ok(rest
        .filter(|rest| !rest.as_os_str().is_empty())
        .map_or(there.clone(), |rest| there.join(rest)))
}

fn refused(path: &Path, error: io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "let this user look at it",
        io::ErrorKind::Other => "remove it, so that the disk is given another one",
        _ => "check the disk it is on",
    };
    Refusal::new(path.display(), error, remedy)
}

/// What our file is called. Shares leave it out as they do all that is hidden.
pub const MARKER: &str = ".perennial-volume";

/// As much of our file as is read: it has 125 bytes.
pub const MARKER_BYTES_MAX: u64 = 512;

const FOR_PEOPLE: &str =
    "By this file perennial knows the disk again, wherever it is mounted. Leave it here.";

const BY_UUID: &str = "/dev/disk/by-uuid";

/// More disks than any box has.
const LINKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::string::ToString;

    fn folder(name: &str) -> PathBuf {
        let name = std::format!("identity-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn an_id_is_32_digits_and_nothing_else() {
        let id = VolumeId::random().unwrap();
        assert_eq!(VolumeId::parse(&id.to_string()), Some(id));
        assert!(id.to_string().starts_with(&id.short()));
        assert_eq!(std::format!("{:016x}", id.front()), id.to_string()[..16]);
        for text in
            ["", "00", &"g".repeat(32), &"0".repeat(33), &std::format!("+{}", "0".repeat(31))]
        {
            assert_eq!(VolumeId::parse(text), None, "{text}");
        }
        assert_ne!(VolumeId::of(&[b"ab", b"c"]), VolumeId::of(&[b"a", b"bc"]));
    }

    #[test]
    fn our_file_is_written_once_and_read_ever_after() {
        let path = folder("marker").join(MARKER);
        let (first, second) = (VolumeId::random().unwrap(), VolumeId::random().unwrap());
        assert_eq!(read_marker(&path).unwrap(), None);
        assert_eq!(write_marker(&path, first).unwrap(), first);
        assert_eq!(write_marker(&path, second).unwrap(), first);
        assert_eq!(read_marker(&path).unwrap(), Some(first));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() == 2 && (text.len() as u64) < MARKER_BYTES_MAX);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_somebody_put_in_its_place_is_no_identity_and_is_left_alone() {
        let folder = folder("hostile");
        let (path, id) = (folder.join(MARKER), VolumeId::random().unwrap());
        let elsewhere = folder.join("elsewhere");
        write_marker(&elsewhere, id).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(read_marker(&path).unwrap(), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read_marker(&path).unwrap(), None);
        fs::remove_dir(&path).unwrap();
        let fifo = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, fifo, 0).unwrap();
        assert_eq!(read_marker(&path).unwrap(), None);
        fs::remove_file(&path).unwrap();
        let far = std::format!("{}id {id}\n", "x\n".repeat(4096));
        for rubbish in ["", "id 12", "\u{0}\u{0}", far.as_str()] {
            fs::write(&path, rubbish).unwrap();
            assert_eq!(read_marker(&path).unwrap(), None);
            assert!(write_marker(&path, id).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), rubbish);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_path_that_is_still_to_be_made_is_on_the_volume_of_what_is_above_it() {
        let folder = folder("deepest");
        let (real, linked) = (folder.join("real"), folder.join("linked"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &linked).unwrap();
        let there = fs::canonicalize(&real).unwrap();
        assert_eq!(deepest(&linked.join("a/b")).unwrap(), there);
        let (one, other) = (find(&linked.join("a")).unwrap(), find(&folder).unwrap());
        assert_eq!((one.id, &one.mount), (other.id, &other.mount));
        assert!(there.starts_with(&one.mount.at) && one.space.total_bytes > 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_number_that_is_only_that_of_a_device_is_no_identity() {
        let mount = Mount { device: (8, 17), fs: "exfat".into(), ..Mount::default() };
        assert!(!is_lasting(0x811, &mount) && !is_lasting(0, &mount) && is_lasting(0x812, &mount));
        let mount = Mount { fs: "tmpfs".into(), ..mount };
        assert!(!is_lasting(0x812, &mount));
    }
}
