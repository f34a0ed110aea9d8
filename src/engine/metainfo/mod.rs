//! Metainfo: what a `.torrent` says, read through a small window and written in one pass.
//!
//! A `.torrent` may be larger than memory (a million files, 20 bytes a piece), so it is never
//! held: [`Summary::read`] walks it once with a window of a few KiB, checks all of it and keeps
//! where things stand. [`Files`] walks the file list a second time for whoever needs it, and
//! piece hashes are read where they stand.
//!
//! ```text
//! d 8:announce .. 4:info d 5:files l d..e d..e e 4:name .. 12:piece length .. 6:pieces N:....... e e
//!                        |         ^ files                                        ^ pieces       |
//!                        +------------------------ info: hashed as it stands -------------------+
//! ```
//!
//! The info-hash is that of the bytes as they came, never of a re-encoding: unknown keys count.
//! BEP 3 for the format, BEP 27 for `private`. Torrents that are v2 only (BEP 52) are refused.
//!
//! Journey 1: `service/share` walks a folder, [`author`] writes the head, lanes hash the pieces
//! into it, and [`Summary::read`] checks our own work as it would a stranger's, before the
//! [`library`](super::library) admits it. Journey 3 reads what others made:
//! [`Summary::read_any_names`] and [`read_safe_path`] refuse no name, but make each one safe.

pub mod author;
pub mod glob;
pub mod layout;
pub mod names;
mod safe_path;
pub mod scan;
pub mod trackers;
pub mod web_seeds;

pub use layout::Layout;
pub use safe_path::read_safe_path;

use super::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PIECE_BYTES_MAX, PIECE_BYTES_MIN, PIECES_MAX};
use super::units::Span;
use core::fmt;
use scan::{Scanner, Source, Token};

/// What a metainfo file says of its torrent, and where in the file the long parts stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The `info` dictionary, brackets included: what the info-hash is of.
    pub info: Span,
    /// The piece hashes, 20 bytes each.
    pub pieces: Span,
    /// The list under `files`, brackets included; nothing for a single file.
    pub files: Option<Span>,
    /// Sizes of the content.
    pub layout: Layout,
    /// How many files, empty ones included.
    pub file_count: u32,
    /// Trackers only, no DHT, peer exchange or local discovery (BEP 27).
    pub private: bool,
    /// The name of the file or of the folder: one plain component, checked or made so.
    pub name: heapless::String<NAME_BYTES_MAX>,
    names: Names,
}

/// What becomes of names that must not meet a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Names {
    /// They are refused, and with them the torrent.
    #[default]
    AsTheyAre,
    /// They are made safe. Where a torrent has its names twice, those known to be UTF-8 count.
    MadeSafe,
}

/// One file of a torrent, in the order of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Offset of its first byte in the torrent's content.
    pub start: u64,
    /// Its length in bytes; may be 0.
    pub length: u64,
    /// Where its `path` list stands, counted from the front of `info`; 0 for a single file.
    pub path_at: u64,
    /// A file of padding between others (BEP 47 `attr` with `p`): all zeros, never stored.
    pub padding: bool,
}

/// Why a metainfo file is refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetainfoError<E> {
    /// The file itself could not be read.
    Read(E),
    /// What stands at byte `at` is not what belongs there.
    Wrong {
        /// Offset of the value at fault, or of the end when something is missing.
        at: u64,
        /// The key it belongs to.
        key: &'static str,
        /// What is wrong, as a sentence's end.
        what: &'static str,
    },
}

impl<E: fmt::Display> fmt::Display for MetainfoError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetainfoError::Read(cause) => write!(f, "cannot be read: {cause}"),
            MetainfoError::Wrong { at, key, what } => write!(f, "byte {at}, `{key}`: {what}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for MetainfoError<E> {}

impl Summary {
    /// Reads and checks a whole metainfo file; names that are not plain are refused.
    ///
    /// # Work
    /// One pass over the file but for the piece hashes, in reads of `window`'s size.
    pub fn read<S: Source>(
        source: &mut S,
        window: &mut [u8],
    ) -> Result<Summary, MetainfoError<S::Error>> {
        Summary::read_with(source, window, Names::AsTheyAre)
    }

    /// As [`Summary::read`], but no name is refused: the torrent's is made safe
    /// ([`names::make_safe`]), those of its files are by [`read_safe_path`].
    pub fn read_any_names<S: Source>(
        source: &mut S,
        window: &mut [u8],
    ) -> Result<Summary, MetainfoError<S::Error>> {
        Summary::read_with(source, window, Names::MadeSafe)
    }

    fn read_with<S: Source>(
        source: &mut S,
        window: &mut [u8],
        names: Names,
    ) -> Result<Summary, MetainfoError<S::Error>> {
        let mut scanner = Scanner::new(source, window);
        let mut info = None;
        scanner.expect_dictionary("the file")?;
        while let Some(key) = scanner.next_key("the file")? {
            if key == b"info" {
                let at = scanner.offset();
                let parts = InfoParts::read(&mut scanner, names)?;
                info = Some((Span { at, length: scanner.offset() - at }, parts));
            } else {
                scanner.skip_value("the file")?;
            }
        }
        let at = scanner.offset();
        scanner.expect_end_of_file()?;
        match info {
            Some((span, parts)) => parts.check(span),
            None => wrong(at, "info", "is missing: this is not a .torrent file"),
        }
    }

    /// The files in order.
    pub fn files<'s, S: Source>(&self, source: &'s mut S, window: &'s mut [u8]) -> Files<'s, S> {
        let (left, info_at, names) = (self.file_count, self.info.at, self.names);
        match self.files {
            None => {
                let single = self.layout.total_bytes;
                Files { scanner: None, info_at, start: 0, left, single, names }
            }
            Some(span) => {
                let mut scanner = Scanner::new(source, window);
                scanner.seek(span.at);
                Files { scanner: Some(scanner), info_at, start: 0, left, single: 0, names }
            }
        }
    }
}

/// A second walk over the file list of a [`Summary`].
pub struct Files<'s, S: Source> {
    scanner: Option<Scanner<'s, S>>,
    info_at: u64,
    start: u64,
    left: u32,
    single: u64,
    names: Names,
}

impl<S: Source> Files<'_, S> {
    /// The next file, `None` after the last.
    pub fn next_file(&mut self) -> Result<Option<FileEntry>, MetainfoError<S::Error>> {
        let Some(scanner) = &mut self.scanner else {
            let single = FileEntry { start: 0, length: self.single, path_at: 0, padding: false };
            return Ok((core::mem::take(&mut self.left) > 0).then_some(single));
        };
        if self.start == 0 && scanner.at_list_start() {
            scanner.expect_list("files")?;
        }
        let Some(mut entry) = read_file(scanner, self.names)? else { return Ok(None) };
        entry.path_at -= self.info_at;
        entry.start = self.start;
        self.start = self.start.saturating_add(entry.length);
        Ok(Some(entry))
    }
}

/// Reads the `path` list at `path_at` and gives its components, joined by `/`, in `path`.
pub fn read_path<'p, S: Source>(
    source: &mut S,
    path_at: u64,
    path: &'p mut [u8; PATH_BYTES_MAX],
) -> Result<&'p str, MetainfoError<S::Error>> {
    let mut window = [0; 512];
    let mut scanner = Scanner::new(source, &mut window);
    scanner.seek(path_at);
    let mut length = 0;
    scanner.expect_list("path")?;
    while let Some(at) = scanner.next_item()? {
        let name = scanner.name("path")?;
        let start = if length == 0 { 0 } else { length + 1 };
        let Some(room) = path.get_mut(start..start + name.len()) else {
            return wrong(at, "path", "is longer than 4,096 bytes");
        };
        room.copy_from_slice(name.as_bytes());
        if length != 0 {
            path[length] = b'/';
        }
        length = start + name.len();
    }
    core::str::from_utf8(&path[..length]).or_else(|_| wrong(path_at, "path", "is not UTF-8"))
}

/// What stood in an `info` dictionary, before it is known to fit together.
#[derive(Default)]
struct InfoParts {
    name: heapless::String<NAME_BYTES_MAX>,
    piece_bytes: u64,
    pieces: Option<Span>,
    length: Option<u64>,
    files: Option<Span>,
    file_count: u32,
    listed_bytes: u64,
    private: bool,
    names: Names,
}

impl InfoParts {
    fn read<S: Source>(
        scanner: &mut Scanner<'_, S>,
        names: Names,
    ) -> Result<InfoParts, MetainfoError<S::Error>> {
        let mut parts = InfoParts { names, ..InfoParts::default() };
        let is_any = names == Names::MadeSafe;
        scanner.expect_dictionary("info")?;
        while let Some(key) = scanner.next_key("info")? {
            match key {
                // Keys are sorted: the name known to be UTF-8 is the later one.
                b"name" | b"name.utf-8" if is_any => parts.name = scanner.safe_name("name")?,
                b"name" => parts.name = scanner.name("name")?,
                b"piece length" => parts.piece_bytes = scanner.unsigned("piece length")?,
                b"pieces" => parts.pieces = Some(scanner.string_span("pieces")?),
                b"length" => parts.length = Some(scanner.unsigned("length")?),
                b"private" => parts.private = scanner.unsigned("private")? == 1,
                b"files" => parts.read_files(scanner)?,
                _ => scanner.skip_value("info")?,
            }
        }
        Ok(parts)
    }

    fn read_files<S: Source>(
        &mut self,
        scanner: &mut Scanner<'_, S>,
    ) -> Result<(), MetainfoError<S::Error>> {
        let at = scanner.offset();
        scanner.expect_list("files")?;
        while let Some(file) = read_file(scanner, self.names)? {
            self.file_count += 1;
            let total = self.listed_bytes.checked_add(file.length);
            let Some(total) = total.filter(|total| *total <= TOTAL_BYTES_MAX) else {
                return wrong(
                    scanner.offset(),
                    "length",
                    "makes the torrent larger than 2^62 bytes",
                );
            };
            self.listed_bytes = total;
        }
        self.files = Some(Span { at, length: scanner.offset() - at });
        Ok(())
    }

    /// Holds the sizes against each other.
    fn check<E>(self, info: Span) -> Result<Summary, MetainfoError<E>> {
        let at = info.at;
        if self.name.is_empty() {
            return wrong(at, "name", "is missing");
        }
        let Some(pieces) = self.pieces else {
            return wrong(at, "pieces", "is missing (a v2-only torrent is not served yet)");
        };
        let (total_bytes, file_count) = match (self.length, self.files) {
            (Some(length), None) if length <= TOTAL_BYTES_MAX => (length, 1),
            (None, Some(_)) => (self.listed_bytes, self.file_count),
            (Some(_), None) => return wrong(at, "length", "is larger than 2^62 bytes"),
            (Some(_), Some(_)) => return wrong(at, "length", "stands beside `files`"),
            (None, None) => return wrong(at, "length", "is missing, and so is `files`"),
        };
        let range = u64::from(PIECE_BYTES_MIN)..=u64::from(PIECE_BYTES_MAX);
        if !range.contains(&self.piece_bytes) {
            return wrong(at, "piece length", "is not between 16 KiB and 128 MiB");
        }
        if total_bytes == 0 {
            return wrong(at, "length", "is 0: there is nothing to serve");
        }
        let count = total_bytes.div_ceil(self.piece_bytes);
        if count > u64::from(PIECES_MAX) {
            return wrong(at, "piece length", "makes more than 2,097,152 pieces");
        }
        if pieces.length != count * 20 {
            return wrong(pieces.at, "pieces", "does not hold 20 bytes for each piece");
        }
        let layout = Layout { total_bytes, piece_bytes: self.piece_bytes as u32 };
        let InfoParts { name, files, private, names, .. } = self;
        Ok(Summary { info, pieces, files, layout, file_count, private, name, names })
    }
}

/// Reads one entry of `files`; its path counts from the front of the file here, its start is 0.
fn read_file<S: Source>(
    scanner: &mut Scanner<'_, S>,
    names: Names,
) -> Result<Option<FileEntry>, MetainfoError<S::Error>> {
    let Some(at) = scanner.next_item()? else { return Ok(None) };
    let (mut length, mut path_at, mut padding) = (None, None, false);
    let is_any = names == Names::MadeSafe;
    scanner.expect_dictionary("files")?;
    while let Some(key) = scanner.next_key("files")? {
        match key {
            b"length" => length = Some(scanner.unsigned("length")?),
            // Keys are sorted: the path known to be UTF-8 is the later one.
            b"path" | b"path.utf-8" if is_any => {
                path_at = Some(scanner.offset());
                check_list(scanner)?;
            }
            b"path" => {
                path_at = Some(scanner.offset());
                check_path(scanner)?;
            }
            b"attr" => padding = scanner.short_string("attr")?.contains(&b'p'),
            _ => scanner.skip_value("files")?,
        }
    }
    match (length, path_at) {
        (Some(length), Some(path_at)) => Ok(Some(FileEntry { start: 0, length, path_at, padding })),
        (None, _) => wrong(at, "length", "is missing from a file"),
        (_, None) => wrong(at, "path", "is missing from a file"),
    }
}

fn check_path<S: Source>(scanner: &mut Scanner<'_, S>) -> Result<(), MetainfoError<S::Error>> {
    let (at, mut bytes) = (scanner.offset(), 0);
    scanner.expect_list("path")?;
    while scanner.next_item()?.is_some() {
        bytes += scanner.name("path")?.len() + 1;
    }
    match bytes {
        0 => wrong(at, "path", "is empty"),
        _ if bytes > PATH_BYTES_MAX => wrong(at, "path", "is longer than 4,096 bytes"),
        _ => Ok(()),
    }
}

/// Checks a path whose names may be anything.
fn check_list<S: Source>(scanner: &mut Scanner<'_, S>) -> Result<(), MetainfoError<S::Error>> {
    let (at, mut is_empty) = (scanner.offset(), true);
    scanner.expect_list("path")?;
    while scanner.next_item()?.is_some() {
        scanner.string_span("path")?;
        is_empty = false;
    }
    if is_empty { wrong(at, "path", "is empty") } else { Ok(()) }
}

fn wrong<T, E>(at: u64, key: &'static str, what: &'static str) -> Result<T, MetainfoError<E>> {
    Err(MetainfoError::Wrong { at, key, what })
}

impl<S: Source> Scanner<'_, S> {
    /// A string that is one plain name in a path.
    fn name(
        &mut self,
        key: &'static str,
    ) -> Result<heapless::String<NAME_BYTES_MAX>, MetainfoError<S::Error>> {
        let at = self.offset();
        let bytes = self.short_string(key)?;
        let Ok(name) = core::str::from_utf8(bytes) else { return wrong(at, key, "is not UTF-8") };
        if let Err(what) = names::check(name) {
            return wrong(at, key, what);
        }
        heapless::String::try_from(name).or_else(|_| wrong(at, key, "is longer than 255 bytes"))
    }

    /// An integer that is not negative.
    fn unsigned(&mut self, key: &'static str) -> Result<u64, MetainfoError<S::Error>> {
        let at = self.offset();
        match self.token(key)? {
            Token::Integer(number) if number >= 0 => Ok(number as u64),
            Token::Integer(_) => wrong(at, key, "is negative"),
            _ => wrong(at, key, "is not an integer"),
        }
    }
}

/// Content is counted in 63 bits with room to add to.
const TOTAL_BYTES_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests;
