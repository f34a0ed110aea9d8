//! A card: an image made by `scripts/make-image`, as large as one wants, with content put onto it and
//! read from it by other people's programs (mtools, debugfs, e2fsck).

use crate::machine::root;
use crate::program::Folder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

/// See the module. Gone when dropped.
pub struct Card {
    folder: Folder,
}

impl Card {
    /// A card for a board, of so many MiB.
    pub fn new(board: &str, mib: u64) -> Card {
        Card::of(&image(board), mib)
    }

    /// A card with that image on it, of so many MiB.
    pub fn of(image: &Path, mib: u64) -> Card {
        let folder = Folder::new("card");
        fs::copy(image, folder.path().join(FILE)).expect("there is room for a card");
        let card = Card { folder };
        card.resize(mib);
        card
    }

    /// Makes the card longer than the image is.
    fn resize(&self, mib: u64) {
        let file = File::options().write(true).open(self.path()).expect("it is there");
        file.set_len(mib << 20).expect("a file may be longer");
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// A file of its boot partition.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let output = self.mtools("mtype", &[format!("::{name}").as_ref()]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Puts a file onto its boot partition.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.folder.write("file", text.as_bytes());
        let output = self.mtools("mcopy", &["-o".as_ref(), &file, format!("::{name}").as_ref()]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether there is such a file on its boot partition.
    pub fn has(&self, name: &str) -> bool {
        self.mtools("mdir", &[format!("::{name}").as_ref()]).status.success()
    }

    fn mtools(&self, tool: &str, arguments: &[&Path]) -> Output {
        mtools(&self.path(), tool, arguments)
    }

    /// Puts files into the folder `Share` of its data partition.
    pub fn fill(&self, files: &[(String, Vec<u8>)]) {
        let source = Folder::new("content");
        let mut lines = String::from("mkdir Share\ncd Share\n");
        for (name, bytes) in files {
            let path = source.write(name, bytes);
            lines += &format!("write {} {name}\n", path.display());
        }
        let commands = self.folder.write("commands", lines.as_bytes());
        let output = self.debugfs(&["-w", "-f", &commands.display().to_string()]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && words.lines().count() <= 1, "{words}");
    }

    /// Fills its data partition to the last block: with a file of that length, in `Share`.
    pub fn fill_up(&self) {
        let output = self.debugfs(&["-R", "show_super_stats -h"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let free = said.lines().find_map(|line| line.strip_prefix("Free blocks:"));
        let free: usize = free.and_then(|free| free.trim().parse().ok()).expect("it says that");
        // A few are for the blocks that say where all the others are.
        let file = self.folder.write("large", &vec![0xa5; (free - 8) * 4096]);
        let commands = format!("cd Share\nwrite {} large.bin\n", file.display());
        let commands = self.folder.write("commands", commands.as_bytes());
        let output = self.debugfs(&["-w", "-f", &commands.display().to_string()]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.lines().count() <= 1, "{words}");
    }

    fn debugfs(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("/sbin/debugfs");
        command.args(arguments).arg(format!("{}?offset={DATA_AT}", self.path().display()));
        command.output().expect("e2fsprogs are installed")
    }

    /// Whether the file system of its data partition is sound, and how many bytes it has.
    pub fn check_data(&self) -> u64 {
        let mut image = File::open(self.path()).expect("it is there");
        let data = self.folder.path().join("data");
        let mut copy = File::create(&data).expect("our folder is writable");
        std::io::Seek::seek(&mut image, std::io::SeekFrom::Start(DATA_AT)).expect("it is longer");
        std::io::copy(&mut image, &mut copy).expect("there is room for a copy");
        let output = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&data).output();
        let output = output.expect("e2fsprogs are installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let said = Command::new("/sbin/dumpe2fs").arg("-h").arg(&data).output();
        let said = String::from_utf8(said.expect("they are").stdout).expect("it is text");
        let count = said.lines().find_map(|line| line.strip_prefix("Block count:"));
        let blocks: u64 = count.and_then(|count| count.trim().parse().ok()).expect("it says that");
        fs::remove_file(data).expect("it was ours");
        blocks * 4096
    }

    /// Overwrites the front of its data partition.
    pub fn damage_data(&self) {
        use std::os::unix::fs::FileExt as _;
        let file = File::options().write(true).open(self.path()).expect("it is there");
        file.write_all_at(&[0xa5; 1 << 20], DATA_AT).expect("it is longer");
    }
}

/// A stick with one FAT partition, as they are sold.
pub struct Stick {
    folder: Folder,
}

impl Stick {
    /// One with these files in its folder `Share`, or with no such folder.
    pub fn new(files: &[(&str, &[u8])]) -> Stick {
        let stick = Stick { folder: Folder::new("stick") };
        let file = File::create(stick.path()).expect("our folder is writable");
        file.set_len(64 << 20).expect("a file may be longer");
        let mut table = [0; 512];
        // A FAT32 of 63 MiB, from the first MiB on.
        table[446..462].copy_from_slice(&[0, 0, 0, 0, 0xc, 0, 0, 0, 0, 8, 0, 0, 0, 0xf8, 1, 0]);
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        std::os::unix::fs::FileExt::write_all_at(&file, &table, 0).expect("it is writable");
        stick.mtools("mformat", &["-F".as_ref(), "-T".as_ref(), "129024".as_ref(), "::".as_ref()]);
        for (name, bytes) in files {
            let _ = mtools(&stick.path(), "mmd", &["::Share".as_ref()]);
            let source = stick.folder.write("file", bytes);
            stick.mtools("mcopy", &[&source, format!("::Share/{name}").as_ref()]);
        }
        stick
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("stick.img")
    }

    /// Whether there is such a folder.
    pub fn has(&self, name: &str) -> bool {
        let place = format!("::{name}");
        mtools(&self.path(), "mdir", &[place.as_ref()]).status.success()
    }

    fn mtools(&self, tool: &str, arguments: &[&Path]) {
        let output = mtools(&self.path(), tool, arguments);
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Runs one of mtools on the partition that begins at the first MiB of a disk.
fn mtools(disk: &Path, tool: &str, arguments: &[&Path]) -> Output {
    let mut command = Command::new(tool);
    command.arg("-i").arg(format!("{}@@{BOOT_AT}", disk.display())).args(arguments);
    command.env("MTOOLS_SKIP_CHECK", "1").stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The image for a board, made once in a run of the tests from the program that has been built and
/// today's packages.
fn image(board: &str) -> PathBuf {
    static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{board}.img"));
    let mut made = MADE.lock().expect("whoever makes one does not panic while others wait");
    if !made.iter().any(|known| known == board) {
        let mut command = Command::new(root().join("scripts/make-image"));
        command.args([board, "--built", "--current", "-o"]).arg(&path);
        let output = command.output().expect("the script is there");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {words}");
        made.push(board.into());
    }
    path
}

const FILE: &str = "card.img";

/// Where the partitions are (`scripts/make-image`).
const BOOT_AT: u64 = 1 << 20;
const DATA_AT: u64 = 129 << 20;
