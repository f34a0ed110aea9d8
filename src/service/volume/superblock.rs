//! The UUID of a file system, read from its superblock.
//!
//! Where there is a udev, `/dev/disk/by-uuid` tells it to everybody. A box whose `init` is ours
//! has none, and may read the block device. What is read here is what udev would have said, without
//! its dashes and in small letters, so that both ways lead to the same identity.
//!
//! | file system | told from | identity |
//! | --- | --- | --- |
//! | ext2, ext3, ext4 | `53 ef` at 1080 | 16 bytes at 1128 |
//! | XFS | `XFSB` at 0 | 16 bytes at 32 |
//! | btrfs | `_BHRfS_M` at 65600 | 16 bytes at 65568 |
//! | F2FS | `10 20 f5 f2` at 1024 | 16 bytes at 1132 |
//! | EROFS | `e2 e1 f5 e0` at 1024 | 16 bytes at 1072 |
//! | exFAT | `EXFAT   ` at 3 | 4 bytes at 100, the last one first |
//! | NTFS | `NTFS    ` at 3 | 8 bytes at 72, the last one first |
//! | FAT32 | `FAT32   ` at 82 | 4 bytes at 67, the last one first |
//! | FAT12, FAT16 | `FAT1` at 54 | 4 bytes at 39, the last one first |
//! | ISO 9660 | `CD001` at 32769 | the date of its last change at 33598, else of its making at 33581, 16 digits |

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::string::String;
use std::vec::Vec;

/// How a file system is told, and where its identity stands.
struct Form {
    mark_at: u64,
    mark: &'static [u8],
    uuid_at: u64,
    uuid_bytes: usize,
    writing: Writing,
}

/// How an identity is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// As hexadecimal digits, in the order they stand.
    Plain,
    /// A number, its smallest byte first.
    Number,
    /// Digits already.
    Digits,
}

/// The identity of the file system on a device; `None` where it is none of the table, cannot be
/// read, or has no identity.
pub fn uuid(device: &File) -> Option<String> {
    FORMS.iter().find_map(|form| form.read(device))
}

impl Form {
    fn read(&self, device: &File) -> Option<String> {
        let read = |at, length| {
            let mut bytes = std::vec![0; length];
            device.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
        };
        let mark = read(self.mark_at, self.mark.len())?;
        if mark != self.mark {
            return None;
        }
        let mut uuid: Vec<u8> = read(self.uuid_at, self.uuid_bytes)?;
        let empty = if self.writing == Writing::Digits { b'0' } else { 0 };
        if uuid.iter().all(|byte| *byte == empty) {
            return None;
        }
        match self.writing {
            Writing::Digits => {
                let is_digits = uuid.iter().all(u8::is_ascii_digit);
                return String::from_utf8(uuid).ok().filter(|_| is_digits);
            }
            Writing::Number => uuid.reverse(),
            Writing::Plain => {}
        }
        Some(uuid.iter().map(|byte| std::format!("{byte:02x}")).collect())
    }
}

const fn form(
    (mark_at, mark): (u64, &'static [u8]),
    (uuid_at, uuid_bytes): (u64, usize),
    writing: Writing,
) -> Form {
    Form { mark_at, mark, uuid_at, uuid_bytes, writing }
}

static FORMS: &[Form] = &[
    form((1080, &[0x53, 0xef]), (1128, 16), Writing::Plain),
    form((0, b"XFSB"), (32, 16), Writing::Plain),
    form((65600, b"_BHRfS_M"), (65568, 16), Writing::Plain),
    form((1024, &[0x10, 0x20, 0xf5, 0xf2]), (1132, 16), Writing::Plain),
    form((1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1072, 16), Writing::Plain),
    form((3, b"EXFAT   "), (100, 4), Writing::Number),
    form((3, b"NTFS    "), (72, 8), Writing::Number),
    form((82, b"FAT32   "), (67, 4), Writing::Number),
    form((54, b"FAT1"), (39, 4), Writing::Number),
    form((32769, b"CD001"), (33598, 16), Writing::Digits),
    form((32769, b"CD001"), (33581, 16), Writing::Digits),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at their place.
    type Part<'b> = (u64, &'b [u8]);

    /// A device with these bytes at these places and zeros elsewhere.
    fn device(name: &str, parts: &[Part<'_>]) -> File {
        let path = std::env::temp_dir().join(std::format!("uuid-{name}-{}", std::process::id()));
        let mut options = File::options();
        let file = options.create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(1 << 17).unwrap();
        parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file
    }

    #[test]
    fn each_file_system_says_what_udev_would_say_of_it() {
        let uuid = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
        let plain = "0123456789abcdef0123456789abcdef";
        let table: &[(&str, Part<'_>, Part<'_>, &str)] = &[
            ("ext4", (1080, &[0x53, 0xef]), (1128, &uuid), plain),
            ("xfs", (0, b"XFSB"), (32, &uuid), plain),
            ("btrfs", (65600, b"_BHRfS_M"), (65568, &uuid), plain),
            ("exfat", (3, b"EXFAT   "), (100, &uuid[..4]), "67452301"),
            ("vfat", (82, b"FAT32   "), (67, &uuid[..4]), "67452301"),
            ("fat16", (54, b"FAT16   "), (39, &uuid[..4]), "67452301"),
            ("ntfs", (3, b"NTFS    "), (72, &uuid[..8]), "efcdab8967452301"),
            ("iso", (32769, b"CD001"), (33581, b"2024123123595900"), "2024123123595900"),
        ];
        for (name, mark, id, wanted) in table {
            let said = super::uuid(&device(name, &[*mark, *id]));
            // A date of its last change that is no digits is passed over.
            assert_eq!(said.as_deref(), Some(*wanted), "{name}");
            assert_eq!(super::uuid(&device(name, &[*mark])), None, "{name} without an identity");
        }
        assert_eq!(super::uuid(&device("none", &[])), None);
        let short = device("short", &[(0, b"XFSB")]);
        short.set_len(40).unwrap();
        assert_eq!(super::uuid(&short), None);
    }
}
