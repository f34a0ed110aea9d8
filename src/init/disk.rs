//! The disk the box starts from: which one it is, and its last partition grown to its end.
//!
//! `scripts/make-image` writes a table of the old kind (MBR), which every firmware reads, with our
//! mark as its number: a FAT partition to start from, an ext4 partition for content, the last. A card
//! is larger than the image as a rule, so at the first start the table is rewritten, the kernel is
//! told, and the file system takes what there is. Each of these steps is looked for at every start,
//! so power may fail between any two.
//!
//! ```text
//! 440  number: "PERE"                                446  four entries of 16 bytes
//! 4    kind    8 first sector    12 sectors          510  55 aa
//! ```

use super::{names_in, read};
use crate::service::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::string::String;

/// The disk we start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    name: String,
}

/// A file system that is to take more blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// As many as its partition holds.
    pub blocks: u64,
}

impl Disk {
    /// The first disk that has our mark, if one is there already.
    pub fn find() -> Option<Disk> {
        let names = names_in(Path::new(BLOCK)).into_iter();
        let real = names.filter(|name| Path::new(BLOCK).join(name).join("device").exists());
        let mut disks = real.map(|name| Disk { name });
        disks.find(|disk| {
            let table = File::open(disk.path()).and_then(|disk| Table::read(&disk));
            // The kernel shows partitions a moment after the disk.
            table.is_ok_and(|table| table.is_ours()) && disk.partition(DATA).exists()
        })
    }

    /// What the kernel calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its device.
    pub fn path(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.name)
    }

    /// The device of one of its partitions.
    pub fn partition(&self, number: u8) -> PathBuf {
        let ends_in_digit = self.name.ends_with(|last: char| last.is_ascii_digit());
        let between = if ends_in_digit { "p" } else { "" };
        Path::new(DEVICES).join(std::format!("{}{between}{number}", self.name))
    }

    /// Makes the data partition end where the disk does, before it is mounted.
    pub fn grow(&self) -> io::Result<()> {
        let size = read(&Path::new(BLOCK).join(&self.name).join("size"));
        let sectors = size.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        let disk = File::options().read(true).write(true).open(self.path())?;
        let mut table = Table::read(&disk)?;
        let (start, length) = table.entry(usize::from(DATA));
        if start + length > sectors {
            let problem = "the card is smaller than the image that was written to it";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        if !table.grow(usize::from(DATA), sectors) {
            return Ok(());
        }
        disk.write_all_at(&table.0, 0)?;
        disk.sync_all()?;
        let (start, length) = table.entry(usize::from(DATA));
        sys::resize_partition(&disk, DATA.into(), start * SECTOR, length * SECTOR)
    }

    /// What its file system has yet to take of the data partition.
    pub fn growth(&self) -> io::Result<Option<Growth>> {
        let disk = File::open(self.path())?;
        let (start, length) = Table::read(&disk)?.entry(usize::from(DATA));
        let mut superblock = [0; 1024];
        disk.read_exact_at(&mut superblock, start * SECTOR + 1024)?;
        Ok(growth(&superblock, length * SECTOR))
    }
}

impl Growth {
    /// Has the file system that is mounted there take them.
    pub fn take(self, mounted: &Path) -> io::Result<()> {
        sys::resize_ext4(&File::open(mounted)?, self.blocks)
    }
}

/// How an ext4 file system with that superblock grows in so many bytes, if by anything worth it.
fn growth(superblock: &[u8; 1024], bytes: u64) -> Option<Growth> {
    let number =
        |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| superblock[at + i])));
    let is_ext4 = superblock[0x38..0x3a] == [0x53, 0xef];
    let block_bytes = 1024_u64.checked_shl(number(0x18) as u32).filter(|_| number(0x18) < 7)?;
    let is_wide = number(0x60) & 0x80 != 0;
    let has = number(4) | if is_wide { number(0x150) << 32 } else { 0 };
    let blocks = bytes / block_bytes;
    (is_ext4 && blocks > has + WORTH_BYTES / block_bytes).then_some(Growth { blocks })
}

/// The first sector of a disk.
struct Table([u8; SECTOR as usize]);

impl Table {
    fn read(disk: &File) -> io::Result<Table> {
        let mut table = Table([0; SECTOR as usize]);
        disk.read_exact_at(&mut table.0, 0)?;
        Ok(table)
    }

    fn is_ours(&self) -> bool {
        self.0[440..444] == *MARK && self.0[510..] == [0x55, 0xaa]
    }

    /// Where a partition begins and how long it is, in sectors. They are counted from 1.
    fn entry(&self, number: usize) -> (u64, u64) {
        let at = ENTRIES + (number - 1) * ENTRY_BYTES;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.0[at + i]));
        (word(at + 8).into(), word(at + 12).into())
    }

    /// Has a partition end where a disk of so many sectors does; whether that is another place. It
    /// never becomes shorter, another after it is left alone, and 2 TiB is the most that can be
    /// said.
    fn grow(&mut self, number: usize, sectors: u64) -> bool {
        let (start, length) = self.entry(number);
        let others = (1..=4).filter(|other| *other != number).map(|other| self.entry(other).0);
        let next = others.filter(|other| *other > start).min();
        let end = sectors.min(next.unwrap_or(u64::MAX)).min(SECTORS_MAX);
        let wanted = end.saturating_sub(start) / ALIGNMENT * ALIGNMENT;
        let grows = start > 0 && wanted > length + WORTH_BYTES / SECTOR;
        if grows {
            let at = ENTRIES + (number - 1) * ENTRY_BYTES + 12;
            self.0[at..at + 4].copy_from_slice(&(wanted as u32).to_le_bytes());
        }
        grows
    }
}

/// The partition to start from.
pub const BOOT: u8 = 1;

/// The partition for content.
pub const DATA: u8 = 2;

/// What everything is counted in, whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// A partition ends on a MiB.
const ALIGNMENT: u64 = 2048;

/// The table has 32 bits for it.
const SECTORS_MAX: u64 = u32::MAX as u64;

/// Less than this is left where it is.
const WORTH_BYTES: u64 = 4 << 20;

const MARK: &[u8; 4] = b"EREP";
const ENTRIES: usize = 446;
const ENTRY_BYTES: usize = 16;
const BLOCK: &str = "/sys/block";
const DEVICES: &str = "/dev";

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn table(entries: &[(u32, u32)]) -> Table {
        let mut table = Table([0; 512]);
        table.0[440..444].copy_from_slice(MARK);
        table.0[510..].copy_from_slice(&[0x55, 0xaa]);
        for (number, (start, length)) in entries.iter().enumerate() {
            let at = ENTRIES + number * ENTRY_BYTES;
            table.0[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            table.0[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        }
        table
    }

    #[test]
    fn the_last_partition_grows_to_the_end_of_the_disk_and_never_shrinks() {
        let mut ours = table(&[(2_048, 196_608), (198_656, 65_536)]);
        assert!(ours.is_ours());
        assert!(!ours.grow(2, 264_192), "it fills the disk");
        assert!(!ours.grow(2, 1_000), "the disk is shorter than its table says");
        assert!(ours.grow(2, 8_000_001));
        assert_eq!(ours.entry(2), (198_656, (8_000_001 - 198_656) / 2_048 * 2_048));
        assert!(!ours.grow(2, 8_000_001), "once is enough");
        assert!(ours.grow(2, u64::MAX));
        assert_eq!(ours.entry(2).1, (SECTORS_MAX - 198_656) / 2_048 * 2_048);
    }

    #[test]
    fn a_partition_that_others_follow_stays_before_them() {
        let mut ours = table(&[(2_048, 2_048), (4_096, 2_048), (1_000_000, 10)]);
        assert!(ours.grow(2, 8_000_000));
        assert_eq!(ours.entry(2), (4_096, (1_000_000 - 4_096) / 2_048 * 2_048));
        assert!(!table(&[]).grow(2, 8_000_000), "there is none");
        assert!(!Table([0; 512]).is_ours());
    }

    #[test]
    fn a_file_system_takes_what_its_partition_has() {
        let mut superblock = [0; 1024];
        superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        superblock[0x18] = 2;
        superblock[4..8].copy_from_slice(&8_192_u32.to_le_bytes());
        assert_eq!(growth(&superblock, 32 << 20), None);
        assert_eq!(growth(&superblock, 33 << 20), None, "not worth it");
        assert_eq!(growth(&superblock, 1 << 30), Some(Growth { blocks: 262_144 }));
        superblock[0x60] = 0x80;
        superblock[0x150] = 1;
        assert_eq!(growth(&superblock, 1 << 30), None, "it says that it is larger");
        superblock[0x18] = 200;
        assert_eq!(growth(&superblock, 1 << 30), None, "blocks of no size");
        assert_eq!(growth(&[0; 1024], 1 << 30), None, "no ext4");
    }

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        for (disk, partition) in
            [("vda", "/dev/vda2"), ("mmcblk0", "/dev/mmcblk0p2"), ("nvme0n1", "/dev/nvme0n1p2")]
        {
            let disk = Disk { name: disk.to_string() };
            assert_eq!(disk.partition(DATA), Path::new(partition));
        }
    }
}
