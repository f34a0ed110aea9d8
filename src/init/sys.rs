//! The two calls to the kernel for which `rustix` has no safe function: a partition gets another
//! length while the disk is in use, and an ext4 file system grows while it is mounted.
//!
//! The only file of the tree that may say `unsafe`. Both calls hand over one value by its address,
//! which the kernel reads before it returns.
#![expect(unsafe_code, reason = "these calls have no safe function")]

use rustix::ioctl::{self, Opcode, Setter, opcode};
use std::fs::File;
use std::io;

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
