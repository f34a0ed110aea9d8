//! The three calls to the kernel for which `rustix` has no safe function: a thread chooses how it is
//! scheduled, a partition gets another length while the disk is in use, and an ext4 file system grows
//! while it is mounted.
//!
//! The only file of the tree that may say `unsafe`. Each call hands over one value by its address,
//! which the kernel reads before it returns.
#![expect(unsafe_code, reason = "these calls have no safe function")]

use rustix::ioctl::{self, Opcode, Setter, opcode};
use std::fs::File;
use std::io;
use std::mem;

/// Has this thread, and those it starts from then on, be woken without pushing another off its
/// processor (`SCHED_BATCH`, sched(7)). How nice it is stays.
pub fn schedule_in_batches() -> io::Result<()> {
    // SAFETY: a `sched_param` is numbers alone, and of zeros one for this policy.
    let parameters: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the thread is the one that asks, and the parameters are only read.
    match unsafe {
        libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_BATCH, &raw const parameters)
    } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
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

const BLKPG: Opcode = opcode::none(0x12, 105);
const RESIZE_PARTITION: i32 = 3;
const RESIZE_EXT4: Opcode = opcode::write::<u64>(b'f', 16);
