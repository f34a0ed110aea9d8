//! The kernel keeps the box to the folders its owner names (`keep-to`; landlock(7)).
//!
//! A box that is told so reaches what lies beneath them, and its state folder; of the system it reads
//! what every program needs. Whatever else is asked of it, by whomever, the kernel refuses. It can
//! be narrowed and never widened again, hence before anything else is opened and for as long as the
//! process lives.
//!
//! A rule is bound to a folder, not to its name: what is mounted on it later is another one. Beneath
//! it disks may come and go, so what is named is `/media` rather than `/media/films`.
//!
//! A flashed box is not kept so: it mounts and unmounts, which the kernel then refuses as well.

use super::Refusal;
use super::options::Options;
use super::sys::{self, Rules};
use rustix::fs::{Mode, OFlags};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Keeps this thread, and those it starts, to what `options` say, if they do; whether the kernel
/// does so.
///
/// # Errors
/// When a folder is not there, or the kernel refuses. One without Landlock is only told of.
pub fn confine(options: &Options) -> Result<bool, Refusal> {
    if options.keep_to.is_empty() {
        return Ok(false);
    }
    let version = sys::landlock_version();
    if version < VERSION_MIN {
        warn!("`keep-to` is not enforced: that takes Linux 5.19 with Landlock");
        return Ok(false);
    }
    let refused = |path: &Path, error: io::Error| {
        let remedy = "name folders that are always there under `keep-to`, such as /media";
        Refusal::new(path.display(), error, remedy)
    };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&options.state);
    made.map_err(|error| refused(&options.state, error))?;
    let handled = if version < VERSION_OF_TRUNCATE { ALL & !TRUNCATE } else { ALL };
    let rules = Rules::new(handled).map_err(|error| Refusal::new("Landlock", error, NO_KEEPING))?;
    let allow = |path: &Path, rights: u64| -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rules.allow(&rustix::fs::open(path, flags, Mode::empty())?, rights & handled)
    };
    let own = options.keep_to.iter().map(|path| (path.as_path(), CONTENT));
    for (path, rights) in own.chain([(options.state.as_path(), CONTENT | MAKE_SOCKET)]) {
        allow(path, rights).map_err(|error| refused(path, error))?;
    }
    let config = options.config_file.as_deref().and_then(Path::parent);
    for path in SYSTEM.iter().map(Path::new).chain(config) {
        // A system without one of them has no use for it.
        if let Err(error) = allow(path, READ) {
            debug!("{}: {error}", path.display());
        }
    }
    rules.enforce().map_err(|error| Refusal::new("Landlock", error, NO_KEEPING))?;
    Ok(true)
}

/// Whether a path lies where the box keeps to.
pub fn is_within(path: &Path, keep_to: &[PathBuf]) -> bool {
    keep_to.is_empty() || keep_to.iter().any(|folder| path.starts_with(folder))
}

// What can be allowed (linux/landlock.h). Nothing is ever started, and no device, pipe or link made.
const EXECUTE: u64 = 1 << 0;
const READ: u64 = 1 << 2 | 1 << 3;
const MAKE_SOCKET: u64 = 1 << 9;
const TRUNCATE: u64 = 1 << 14;
const ALL: u64 = (1 << 15) - 1;

/// Reading; writing, making, moving and removing files and folders.
const CONTENT: u64 = READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | TRUNCATE;

const _: () = assert!(CONTENT & EXECUTE == 0 && ALL & EXECUTE != 0);

/// Before it nothing could be moved from one folder to another.
const VERSION_MIN: u32 = 2;

/// Before it whatever can be opened can be cut, too.
const VERSION_OF_TRUNCATE: u32 = 3;

/// What is read of a system: names and their servers, what is mounted, what the machine has.
const SYSTEM: [&str; 5] = ["/etc", "/proc", "/sys", "/dev", "/run"];

const NO_KEEPING: &str = "take `keep-to` out of the configuration";
