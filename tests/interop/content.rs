//! What is shared in the tests, and the comparison of what arrived with it.
//!
//! Bytes come from a generator seeded by each file's name: no two pieces are alike, so a block
//! stored in the wrong place cannot pass for the right one.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Something to share.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One file that ends in the middle of a piece and of a block.
    Film,
    /// Folders in folders, and the names and sizes that have tripped clients.
    Series,
    /// 5,000 files, most of them far smaller than a piece, every hundredth empty.
    Letters,
    /// One file of more than 4 GiB, nearly all of it a hole.
    Image,
}

/// How clients are to be given a share. Each way has bytes of its own, so that one client can fetch
/// a kind both ways at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Torrent,
    Magnet,
}

/// Where `kind` is to be found, made on first use.
///
/// Making thousands of files takes longer than fetching them, so all tests share what is made here,
/// and it outlives the run, in cargo's folder for tests, under a name that changes with this source
/// text.
pub fn path(kind: Kind, way: Way) -> PathBuf {
    static SHELF: OnceLock<PathBuf> = OnceLock::new();
    let shelf = SHELF.get_or_init(make_shelf);
    shelf.join(name(kind, way))
}

/// Puts a hole as long as the file `shared` into `folder`, under the same name: a fetch that was
/// broken off, for a client that looks at what it finds. It has the pieces that are all zeros.
pub fn leave_a_hole(shared: &Path, folder: &Path) {
    let bytes = fs::metadata(shared).expect("what is shared is there").len();
    let name = shared.file_name().expect("a share has a name");
    let file = File::create(folder.join(name)).expect("the test's own folder is writable");
    file.set_len(bytes).expect("there is room for a hole");
}

/// Puts a copy of `shared` into `folder`, under the same name.
pub fn copy(shared: &Path, folder: &Path) {
    let name = shared.file_name().expect("a share has a name");
    for file in files_under(shared) {
        // As in `compare`: a single file has an empty name below itself.
        let is_root = file.as_os_str().is_empty();
        let join = |root: PathBuf| if is_root { root } else { root.join(&file) };
        let to = join(folder.join(name));
        fs::create_dir_all(to.parent().expect("it lies in a folder")).expect("the folder is ours");
        fs::copy(join(shared.to_owned()), to).expect("there is room for a copy");
    }
}

/// How many bytes of the disk all that is in `folder` takes.
pub fn bytes_on_disk(folder: &Path) -> u64 {
    let blocks = |path: &Path| fs::metadata(path).map_or(0, |found| found.blocks());
    files_under(folder).iter().map(|file| blocks(&folder.join(file)) * 512).sum()
}

/// Whether `shared` is meant to be fetched by magnet link.
pub fn is_by_magnet(shared: &Path) -> bool {
    shared.to_string_lossy().ends_with("by magnet")
}

/// Compares what is at `arrived` with what was `shared`: the set of paths, and every byte.
///
/// Without `empty_files`, those without bytes may be missing. The error names the first difference.
pub fn compare(shared: &Path, arrived: &Path, empty_files: bool) -> Result<(), String> {
    let (mut expected, found) = (files_under(shared), files_under(arrived));
    if !empty_files {
        let is_empty = |file: &Path| fs::metadata(shared.join(file)).is_ok_and(|it| it.len() == 0);
        expected.retain(|file| found.contains(file) || !is_empty(file));
    }
    if let Some(missing) = expected.difference(&found).next() {
        return Err(format!("{} has no {}", arrived.display(), missing.display()));
    }
    if let Some(extra) = found.difference(&expected).next() {
        return Err(format!("{} was not shared", arrived.join(extra).display()));
    }
    for file in expected {
        // A shared file is the only member of its own set, under an empty name.
        let is_root = file.as_os_str().is_empty();
        let join = |root: &Path| if is_root { root.to_owned() } else { root.join(&file) };
        compare_file(&join(shared), &join(arrived))?;
    }
    Ok(())
}

fn name(kind: Kind, way: Way) -> String {
    let way = if way == Way::Magnet { "by magnet" } else { "by torrent" };
    let kind = match kind {
        Kind::Film => "film.mkv",
        Kind::Series => "Série",
        Kind::Letters => "letters",
        Kind::Image => "image.raw",
    };
    format!("{kind} {way}")
}

fn make_shelf() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    include_str!("content.rs").hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let shelf = folder.join(format!("{SHELF_PREFIX}{:016x}", hasher.finish()));
    if shelf.exists() {
        return shelf;
    }
    let entries = fs::read_dir(folder).expect("cargo's folder for tests is readable");
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(SHELF_PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    // Under another name until it is whole, so that a run cut short leaves nothing to believe in.
    let unfinished = shelf.with_extension("unfinished");
    fs::create_dir_all(&unfinished).expect("cargo's folder for tests is writable");
    for way in [Way::Torrent, Way::Magnet] {
        write(&unfinished.join(name(Kind::Film, way)), 9 * 1024 * 1024 + 12_345);
        write_series(&unfinished.join(name(Kind::Series, way)));
        write_letters(&unfinished.join(name(Kind::Letters, way)));
    }
    write_image(&unfinished.join(name(Kind::Image, Way::Torrent)));
    fs::rename(&unfinished, &shelf).expect("both names are in one folder");
    shelf
}

fn write_series(root: &Path) {
    for (name, bytes) in [
        ("read me first.txt", 1_234),
        ("empty at the top", 0),
        ("Season 1/01 – Der Anfang.mkv", 2_500_000),
        ("Season 1/02 – Übermäßig größer.mkv", 1_048_576),
        ("Season 1/Extras/making of/cut 1/take 2/a.bin", 16_384),
        ("Season 1/Extras/empty.srt", 0),
        ("Season 1/Extras/one byte", 1),
        ("日本語/第一話 「はじまり」.mp4", 777_777),
        ("Ελληνικά/Ωδή.txt", 40_000),
        ("emoji 🌱🌳/🌧️ rain.flac", 333_333),
        // One character as one code point and as two: names must pass unchanged, not normalised.
        ("cafe\u{301}/decomposed", 5_000),
        ("caf\u{e9}/composed", 5_001),
        ("100% & #1; it's [here] +plus=equals.txt", 65_537),
        ("zz last and empty", 0),
    ] {
        write(&root.join(name), bytes);
    }
    write(&root.join("long").join("n".repeat(200)), 20_000);
}

fn write_letters(root: &Path) {
    for number in 0..5_000 {
        let path = root.join(format!("letters {:02}/{number:04}.txt", number / 100));
        write(&path, if number % 100 == 0 { 0 } else { 1 + number * 7 % 2_000 });
    }
}

/// What is written lies at both ends and across the places where 31 and 32 bits overflow.
fn write_image(path: &Path) {
    const GIB: u64 = 1 << 30;
    let mut random = Generator::named(path);
    let mut file = File::create(path).expect("the test's own folder is writable");
    for at in [0, 2 * GIB - 300_000, 4 * GIB - 300_000, 4 * GIB + 20_000_000] {
        file.seek(SeekFrom::Start(at)).expect("a new file can be sought in");
        file.write_all(&random.bytes(600_000)).expect("there is room for a sparse file");
    }
    file.set_len(4 * GIB + 33_333_333).expect("there is room for a sparse file");
}

fn compare_file(shared: &Path, arrived: &Path) -> Result<(), String> {
    let open = |path: &Path| {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let len = file.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len();
        Ok::<_, String>((file, len))
    };
    let ((mut ours, len), (mut theirs, arrived_len)) = (open(shared)?, open(arrived)?);
    if len != arrived_len {
        return Err(format!("{} has {arrived_len} bytes, not {len}", arrived.display()));
    }
    let (mut expected, mut found) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < len {
        let part = expected.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        let (expected, found) = (&mut expected[..part], &mut found[..part]);
        let read = ours.read_exact(expected).and_then(|()| theirs.read_exact(found));
        read.map_err(|error| format!("reading {} at {at}: {error}", arrived.display()))?;
        if expected != found {
            return Err(format!("{} differs in the MiB at byte {at}", arrived.display()));
        }
        at += part as u64;
    }
    Ok(())
}

/// Every file under `root`, relative to it.
fn files_under(root: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => pending.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) if path.exists() => {
                files.insert(path.strip_prefix(root).expect("it was found under root").to_owned());
            }
            Err(_) => {}
        }
    }
    files
}

fn write(path: &Path, bytes: usize) {
    let folder = path.parent().expect("every file lies in the test's folder");
    fs::create_dir_all(folder).expect("the test's own folder is writable");
    fs::write(path, Generator::named(path).bytes(bytes))
        .expect("the test's own folder is writable");
}

/// SplitMix64: enough to make every block unlike every other.
struct Generator(u64);

impl Generator {
    fn named(path: &Path) -> Generator {
        // Without what differs from machine to machine, so that every run shares the same bytes.
        let folder = env!("CARGO_TARGET_TMPDIR");
        let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
        let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Generator(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// What the name of the folder that holds everything made here begins with.
const SHELF_PREFIX: &str = "interop-content-";
