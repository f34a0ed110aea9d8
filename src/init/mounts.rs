//! What is mounted where: the kernel's own, the card's two partitions, other disks; and all of it let
//! go at the end.
//!
//! The system itself is the initramfs and lives in memory, so nothing of it can be damaged by a power
//! cut. There is no `e2fsck` on board: a data partition that ext4's journal cannot mend is left as it
//! is, and the box serves from memory what it can.

use super::card::SHARE;
use crate::service::volume::{mounts, superblock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CStr;
use std::format;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;

/// Mounts what shows the kernel itself.
pub fn kernel() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match mount_at(Path::new(kind), Path::new(at), kind, flags, c"") {
            // The kernel has been there before us.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Mounts the boot partition, to be read.
pub fn boot(device: &Path, at: &Path) -> io::Result<()> {
    Ok(mount_at(device, at, "vfat", QUIET | MountFlags::RDONLY, c"")?)
}

/// Mounts the data partition.
pub fn data(device: &Path, at: &Path) -> io::Result<()> {
    Ok(mount_at(device, at, "ext4", QUIET, c"errors=remount-ro")?)
}

/// Mounts memory where the data partition should be.
pub fn memory(at: &Path) -> io::Result<()> {
    Ok(mount_at(Path::new("memory"), at, "tmpfs", QUIET, c"size=8m,mode=755")?)
}

/// Mounts a disk that is plugged in, if it has a file system we know: below `media`, at its UUID, so
/// that it is at the same place whenever it comes. Where it is, if that is news.
pub fn disk(name: &str, media: &Path) -> Option<PathBuf> {
    let device = Path::new("/dev").join(name);
    let place = fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
    let place = place.to_string_lossy().into_owned();
    if place.contains("/virtual/") {
        return None;
    }
    let uuid = superblock::uuid(&File::open(&device).ok()?)?;
    let at = media.join(uuid);
    if mounts::all().ok()?.iter().any(|mount| mount.at == at) {
        return None;
    }
    fs::create_dir_all(&at).ok()?;
    let is_it = |kind: &&&str| mount_at(&device, &at, kind, QUIET, c"").is_ok();
    let mounted = FILE_SYSTEMS.iter().find(is_it);
    let Some(kind) = mounted else {
        info!("{name}: its file system is none of {}", FILE_SYSTEMS.join(", "));
        return None;
    };
    let share = at.join(SHARE);
    // A disk that is built in may be somebody's system: nothing is made on it.
    if place.contains("/usb")
        && !share.exists()
        && let Err(error) = fs::create_dir(&share)
    {
        warn!("{}: {error}", share.display());
    }
    if share.is_dir() {
        info!("{name}: {kind}; what is put into its folder {SHARE} is shared");
        return Some(at);
    }
    let _ = unmount_at(&at, UnmountFlags::DETACH);
    None
}

/// A disk has been pulled out.
pub fn lose(name: &str) {
    let device = format!("/dev/{name}");
    let all = mounts::all().unwrap_or_default().into_iter();
    for mount in all.filter(|mount| mount.source == device) {
        info!("{name}: is gone");
        if let Err(error) = unmount_at(&mount.at, UnmountFlags::DETACH) {
            warn!("{}: {error}", mount.at.display());
        }
    }
}

/// Lets go of every disk, so that power can be cut.
pub fn let_go() {
    rustix::fs::sync();
    let all = mounts::all().unwrap_or_default();
    // The last to come goes first.
    for mount in all.iter().rev().filter(|mount| mount.source.starts_with("/dev/")) {
        if unmount_at(&mount.at, UnmountFlags::empty()).is_err()
            && let Err(error) = writable(&mount.at, false)
        {
            warn!("{}: {error}", mount.at.display());
        }
    }
    rustix::fs::sync();
}

/// Lets a file system be written to, or no more.
pub fn writable(at: &Path, is: bool) -> io::Result<()> {
    let flags = if is { QUIET } else { QUIET | MountFlags::RDONLY };
    Ok(mount_remount(at, flags, c"")?)
}

#[inline(never)]
fn mount_at(
    device: &Path,
    at: &Path,
    kind: &str,
    flags: MountFlags,
    options: &CStr,
) -> rustix::io::Result<()> {
    mount(device, at, kind, flags, Some(options))
}

#[inline(never)]
fn unmount_at(at: &Path, flags: UnmountFlags) -> rustix::io::Result<()> {
    unmount(at, flags)
}

/// Whether a device is the disk, or a partition of it.
pub fn is_of(name: &str, disk: &str) -> bool {
    let rest: Option<String> = name.strip_prefix(disk).map(|rest| rest.replace('p', ""));
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Nothing on a card or disk is a program or a device.
const QUIET: MountFlags = MountFlags::NOATIME
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

const FILE_SYSTEMS: [&str; 3] = ["ext4", "exfat", "vfat"];

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn the_disk_we_start_from_is_told_from_others() {
        for (name, disk, is) in [
            ("vda", "vda", true),
            ("vda2", "vda", true),
            ("vdab", "vda", false),
            ("mmcblk0p2", "mmcblk0", true),
            ("mmcblk0boot0", "mmcblk0", false),
            ("sdb1", "sda", false),
        ] {
            assert_eq!(is_of(name, disk), is, "{name} {disk}");
        }
    }
}
