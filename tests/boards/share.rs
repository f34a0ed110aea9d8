//! What is shared, and the images made of it by the program itself.

use crate::machine::Board;
use crate::prng::Prng;
use crate::program::{Folder, binary};
use crate::torrent::Metainfo;
use perennial::engine::image::{HEAD_BYTES, Head};
use perennial::engine::units::Span;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Files of a share: nested, empty, and of sizes that are no multiple of anything.
const FILES: [(&str, usize); 6] = [
    ("film.mkv", 1_000_003),
    ("empty", 0),
    ("notes/read me first.txt", 1),
    ("notes/deeper/still/page.html", 16_385),
    ("season/one", 300_000),
    ("season/two", 131_071),
];

/// An image of a share in a folder of the test's own, which dies with it.
pub struct Image {
    /// Holds the image and whatever the test puts beside it.
    pub home: Folder,
    /// The image.
    pub path: PathBuf,
    /// The `.torrent`, cut out of it.
    pub torrent_file: PathBuf,
    /// What that says.
    pub torrent: Metainfo,
    /// Parts of the image.
    pub parts: Parts,
}

/// Where the parts of an image lie.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub metainfo: Span,
    pub content: Span,
}

impl Image {
    /// An image for `board` of what is at [`content`].
    pub fn new(board: Board) -> Image {
        Image::with(board, &[])
    }

    /// As [`Image::new`], with more arguments for the program that makes it.
    pub fn with(board: Board, arguments: &[&str]) -> Image {
        let home = Folder::new(board.name());
        let path = home.path().join("image");
        let mut command = Command::new(binary());
        command.arg("share").arg(content()).args(["--for-board", board.name(), "-o"]);
        command.arg(&path).args(["--state".as_ref(), home.path().join("state").as_os_str()]);
        let output = command.args(arguments).env("HOME", home.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {output:?}");

        let image = File::open(&path).expect("the program has made an image");
        let mut bytes = [0; HEAD_BYTES];
        image.read_exact_at(&mut bytes, 0).expect("an image has a head");
        let head = Head::parse(&bytes).expect("the head is in order");
        let Head { metainfo, content, .. } = head;
        let torrent_file = home.path().join("share.torrent");
        fs::write(&torrent_file, read_span(&image, metainfo)).expect("our folder is writable");
        let torrent = Metainfo::read(&torrent_file);
        let parts = Parts { metainfo, content };
        Image { home, path, torrent_file, torrent, parts }
    }

    /// Turns the `bit`th bit behind `at` over.
    pub fn flip(&self, at: u64, bit: u32) {
        let image = File::options().read(true).write(true).open(&self.path);
        let image = image.expect("the image is ours");
        let mut byte = [0];
        image.read_exact_at(&mut byte, at + u64::from(bit / 8)).expect("the bit is in the image");
        byte[0] ^= 1 << (bit % 8);
        image.write_all_at(&byte, at + u64::from(bit / 8)).expect("the image is ours");
    }
}

/// The folder that is shared, made once; it lies in cargo's place for tests and stays.
pub fn content() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boards-content/house");
        for (number, (name, length)) in FILES.into_iter().enumerate() {
            let path = root.join(name);
            let mut bytes = vec![0; length];
            Prng::new(number as u64).fill(&mut bytes);
            fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("writable");
            if fs::read(&path).ok().as_ref() != Some(&bytes) {
                fs::write(&path, bytes).expect("cargo's place for tests is writable");
            }
        }
        root
    })
}

/// Checks that `folder` holds all of the share and nothing else but what clients leave.
pub fn assert_arrived(folder: &Path) {
    for (name, length) in FILES {
        let path = folder.join("house").join(name);
        let arrived = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let expected = fs::read(content().join(name)).expect("our own content is readable");
        assert_eq!(arrived.len(), length, "{name}");
        assert!(arrived == expected, "{name} is not what was shared");
    }
}

fn read_span(file: &File, span: Span) -> Vec<u8> {
    let mut bytes = vec![0; span.length as usize];
    file.read_exact_at(&mut bytes, span.at).expect("a part of an image lies in it");
    bytes
}
