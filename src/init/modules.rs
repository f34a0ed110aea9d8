//! Kernel modules: loaded when the machine has what they are for.
//!
//! What to load stands in one file of the initramfs, a line for each module, made from the kernel's
//! own tables when the image is built (`scripts/make-image`):
//!
//! ```text
//! virtio_net failover,net_failover virtio:d00000001v*
//! ext4 crc32c_generic,jbd2,mbcache,crc16 *
//! name what-it-needs-in-order      patterns of devices it is for, `*` for any machine
//! ```
//!
//! The kernel names each device by a *modalias*: those that are there are in `/sys`, those that come
//! are told by uevents. So one image fits many machines. The file of what is loaded is deleted.

use super::{names_in, read};
use rustix::system::finit_module;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// What can be loaded, and what has been.
pub struct Modules {
    folder: PathBuf,
    table: String,
    loaded: Vec<String>,
}

impl Modules {
    /// Those of a folder, with its table; none when there is no table.
    pub fn of(folder: &Path) -> Modules {
        let table = fs::read_to_string(folder.join(TABLE)).unwrap_or_default();
        Modules { folder: folder.into(), table, loaded: Vec::new() }
    }

    /// Loads what every machine needs.
    pub fn load_common(&mut self) {
        self.load_for(ANY);
    }

    /// Loads what is for that device, if anything is.
    pub fn load_for(&mut self, alias: &str) {
        for name in wanted(&self.table, alias) {
            if self.loaded.iter().any(|loaded| loaded == name) {
                continue;
            }
            if let Err(error) = load(&self.folder, name) {
                warn!("module {name}: {error}");
            }
            self.loaded.push(name.into());
        }
    }

    /// Loads what is for the devices there are now. A module may bring to light further ones.
    pub fn load_for_all(&mut self, sys: &Path) {
        loop {
            let before = self.loaded.len();
            for alias in aliases(sys) {
                self.load_for(&alias);
            }
            if self.loaded.len() == before {
                return;
            }
        }
    }
}

/// Names of modules for a device, each after what it needs.
fn wanted<'t>(table: &'t str, alias: &str) -> Vec<&'t str> {
    let mut wanted = Vec::new();
    for line in table.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(needs)) = (words.next(), words.next()) else { continue };
        let is_for = |pattern: &str| match pattern {
            ANY => alias == ANY,
            pattern => matches(pattern.as_bytes(), alias.as_bytes()),
        };
        if words.any(is_for) {
            let needs = needs.split(',').filter(|need| *need != NOTHING);
            wanted.extend(needs.chain([name]));
        }
    }
    wanted
}

fn load(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(name).with_extension("ko");
    match finit_module(&File::open(&path)?, c"", 0) {
        // Built in, or loaded by another name.
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // It has been copied, and files of the initramfs are memory.
    fs::remove_file(&path)
}

/// What the kernel calls the devices there are.
fn aliases(sys: &Path) -> Vec<String> {
    let bus = sys.join("bus");
    let buses = names_in(&bus).into_iter().map(|name| bus.join(name).join("devices"));
    // Buttons and keys are on no bus.
    let folders = buses.chain([sys.join("class/input")]);
    let mut aliases = Vec::new();
    for folder in folders {
        let all = names_in(&folder).into_iter();
        let all = all.map(|name| read(&folder.join(name).join("modalias")));
        aliases.extend(all.filter(|alias| !alias.is_empty()));
    }
    aliases
}

/// Whether `text` is like `pattern`, in which `*` stands for anything, `?` for any one byte and
/// `[..]` for one of some. Goes back to the last `*` only, so the work is bounded by the product of
/// both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit here.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match one(&pattern[p..], text.get(t).copied()) {
            Fit::End => return true,
            Fit::Star => {
                p += 1;
                star = Some((p, t));
            }
            Fit::Yes(bytes) => (p, t) = (p + bytes, t + 1),
            Fit::No => match &mut star {
                Some((after, from)) if *from < text.len() => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                _ => return false,
            },
        }
    }
}

enum Fit {
    /// Both are over.
    End,
    Star,
    /// This byte fits so many bytes of the pattern.
    Yes(usize),
    No,
}

fn one(pattern: &[u8], byte: Option<u8>) -> Fit {
    match (pattern.first(), byte) {
        (None, None) => Fit::End,
        (Some(b'*'), _) => Fit::Star,
        (None, Some(_)) | (Some(_), None) => Fit::No,
        (Some(b'?'), Some(_)) => Fit::Yes(1),
        (Some(b'['), Some(byte)) => {
            let Some(end) = pattern.iter().position(|b| *b == b']') else { return Fit::No };
            let set = &pattern[1..end];
            let in_range = |w: &[u8]| w[1] == b'-' && (w[0]..=w[2]).contains(&byte);
            let is_in = set.contains(&byte) || set.windows(3).any(in_range);
            if is_in { Fit::Yes(end + 1) } else { Fit::No }
        }
        (Some(wanted), Some(byte)) if *wanted == byte => Fit::Yes(1),
        _ => Fit::No,
    }
}

/// The table's name in its folder.
const TABLE: &str = "modules";

/// For every machine.
const ANY: &str = "*";

/// It needs nothing.
const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;

    const SOME: &str = "ext4 jbd2,mbcache *\n\
        virtio_net failover,net_failover virtio:d00000001v*\n\
        e1000e - pci:v00008086d00001501sv*sd*bc*sc*i* pci:v00008086d00001502sv*sd*bc*sc*i*\n\
        usb_storage usbcore usb:v*p*d*dc*dsc*dp*ic08isc0[56]ip50in*\n";

    #[test]
    fn what_a_machine_has_is_loaded_after_what_that_needs() {
        assert_eq!(wanted(SOME, ANY), ["jbd2", "mbcache", "ext4"]);
        let net = wanted(SOME, "virtio:d00000001v00001AF4");
        assert_eq!(net, ["failover", "net_failover", "virtio_net"]);
        let card = "pci:v00008086d00001502sv00008086sd00000000bc02sc00i00";
        assert_eq!(wanted(SOME, card), ["e1000e"]);
        let stick = |class| std::format!("usb:v46F4p0001d0000dc00dsc00dp00ic08isc{class}ip50in00");
        assert_eq!(wanted(SOME, &stick("06")), ["usbcore", "usb_storage"]);
        assert!(wanted(SOME, &stick("07")).is_empty());
        assert!(wanted(SOME, "").is_empty() && wanted("", ANY).is_empty());
        assert!(wanted("only-a-name\n\n \n", ANY).is_empty());
    }

    #[test]
    fn patterns_are_those_of_the_kernel() {
        let cases = [
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("of:N*T*Cbrcm,bcm2835-sdhost", "of:NmmcT(null)Cbrcm,bcm2835-sdhost", true),
            ("of:N*T*Cbrcm,bcm2835-sdhostC*", "of:NmmcT(null)Cbrcm,bcm2835-sdhost", false),
            ("i[0-9A-F]*", "iBF", true),
            ("i[0-9A-F]*", "ig", false),
            ("i[", "i[", false),
            ("i[]", "i", false),
        ];
        for (pattern, text, fits) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
        let (stars, many) = ("*a".repeat(2_000), "a".repeat(2_000));
        assert!(matches(stars.as_bytes(), many.as_bytes()));
        assert!(!matches(("*a".repeat(2_001)).as_bytes(), many.as_bytes()));
    }

    #[test]
    fn devices_are_found_by_what_the_kernel_calls_them() {
        let folder = TestFolder::new("aliases");
        for (bus, device, alias) in [("pci", "0", "pci:a\n"), ("virtio", "virtio0", "virtio:b\n")] {
            let place = folder.path().join("bus").join(bus).join("devices").join(device);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("modalias"), alias).unwrap();
        }
        fs::create_dir_all(folder.path().join("bus/cpu/devices/cpu0")).unwrap();
        fs::create_dir_all(folder.path().join("class/input/input0")).unwrap();
        fs::write(folder.path().join("class/input/input0/modalias"), "input:c\n").unwrap();
        assert_eq!(aliases(folder.path()), ["pci:a", "virtio:b", "input:c"]);
        assert!(aliases(&folder.path().join("none")).is_empty());
    }
}
