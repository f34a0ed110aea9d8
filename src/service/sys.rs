//! The calls to the kernel for which `rustix` has no safe function: a thread chooses how it is
//! scheduled, and gives up what it does not need; a partition gets another length while the disk is in
//! use, and an ext4 file system grows while it is mounted.
//!
//! The only file of the tree that may say `unsafe`. Each call hands over one value by its address,
//! which the kernel reads before it returns.
#![expect(unsafe_code, reason = "these calls have no safe function")]

use rustix::ioctl::{self, Opcode, Setter, opcode};
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

/// Has this thread be woken without pushing another off its processor (`SCHED_BATCH`, sched(7)), or
/// as threads are. How nice it is stays.
pub fn wait_for_turns(waits: bool) -> io::Result<()> {
    let policy = if waits { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
    // SAFETY: a `sched_param` is numbers alone, and of zeros one for both policies.
    let parameters: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the thread is the one that asks, and the parameters are only read.
    match unsafe {
        libc::pthread_setschedparam(libc::pthread_self(), policy, &raw const parameters)
    } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The version of the kernel's Landlock; 0 without (landlock(7)).
pub fn landlock_version() -> u32 {
    let nothing = ptr::null::<u64>();
    // SAFETY: with this flag no address is looked at.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, ASK_VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// What a thread is going to keep to: nothing of what is handled, but what is allowed.
#[derive(Debug)]
pub struct Rules(OwnedFd);

impl Rules {
    /// Rules for these rights, `LANDLOCK_ACCESS_FS_*` of the kernel's version.
    pub fn new(handled: u64) -> io::Result<Rules> {
        // SAFETY: it reads a `struct landlock_ruleset_attr`, of whose fields the first, this one, is
        // all that is there by the size beside it. What it returns is a descriptor of ours alone.
        unsafe {
            let (size, none) = (size_of::<u64>(), 0_u32);
            let handled = &raw const handled;
            let fd = libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, none);
            checked(fd).map(|fd| Rules(OwnedFd::from_raw_fd(fd as i32)))
        }
    }

    /// Allows `rights` beneath a folder, or for a file.
    pub fn allow(&self, beneath: &OwnedFd, rights: u64) -> io::Result<()> {
        let rule = Beneath { rights, parent: beneath.as_raw_fd() };
        // SAFETY: for this kind of a rule it reads a `struct landlock_path_beneath_attr`, as which
        // ours is laid out.
        checked(unsafe {
            let (rules, rule, none) = (self.0.as_raw_fd(), &raw const rule, 0_u32);
            libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, rule, none)
        })
        .map(drop)
    }

    /// Holds this thread to them, and those it starts from then on, for ever.
    pub fn enforce(self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: it takes a descriptor and no address.
        checked(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0_u32)
        })
        .map(drop)
    }
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    rights: u64,
    parent: i32,
}

/// What a call has returned, unless it has failed.
fn checked(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Tells the kernel that partition `number` of `disk` begins and is as long as said, in bytes.
pub fn resize_partition(disk: &File, number: i32, start: u64, length: u64) -> io::Result<()> {
    let (start, length) = (start as i64, length as i64);
    let partition = Partition { start, length, number, names: [0; 128] };
    let (op, length) = (RESIZE_PARTITION, size_of::<Partition>() as i32);
    let change = Change { op, flags: 0, length, partition: &raw const partition };
    // SAFETY: BLKPG reads a `struct blkpg_ioctl_arg`, and through its pointer a `struct
    // blkpg_partition` of the length that stands beside it (linux/blkpg.h); ours are laid out as
    // those are, and both live until the call returns.
    Ok(unsafe { ioctl::ioctl(disk, Setter::<BLKPG, Change>::new(change)) }?)
}

/// Has the ext4 file system that `root` is in take so many of its blocks.
pub fn resize_ext4(root: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads a `__u64` (linux/ext4.h); any other file system answers that
    // it does not know the call.
    Ok(unsafe { ioctl::ioctl(root, Setter::<RESIZE_EXT4, u64>::new(blocks)) }?)
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Change {
    op: i32,
    flags: i32,
    length: i32,
    partition: *const Partition,
}

/// `struct blkpg_partition`, with the names that nobody reads in one.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

const ASK_VERSION: u32 = 1;
const PATH_BENEATH: u32 = 1;
const BLKPG: Opcode = opcode::none(0x12, 105);
const RESIZE_PARTITION: i32 = 3;
const RESIZE_EXT4: Opcode = opcode::write::<u64>(b'f', 16);
