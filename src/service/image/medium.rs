//! Where an image goes: a file that appears whole or not at all, or a card.
//!
//! A file is written under a hidden name beside the one asked for, synced and renamed; what is
//! dropped before that is removed. On a card the head is wiped first and written last.

use super::{Plan, Target};
use crate::engine::digest::PieceHasher;
use crate::engine::image::{HEAD_BYTES, Head, HeadError};
use crate::engine::units::{PieceIndex, Span};
use crate::service::content::{Content, ContentError, HASH_SCRATCH_BYTES};
use crate::service::known::WINDOW_BYTES;
use crate::service::refusal::Refusal;
use crate::service::share::Progress;
use crate::service::state::sync_folder;
use crate::service::walk::unreadable;
use indicatif::HumanBytes;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where an image is written: a file beside the one asked for, or a card.
pub struct Medium {
    /// Where it will be.
    path: PathBuf,
    /// Its name until it is whole; nothing for a card, and once it has been renamed.
    unfinished: Option<PathBuf>,
    file: File,
    /// It is a card.
    pub device: bool,
}

impl Medium {
    /// Opens what the owner named, unless something is there that is not ours to write over, or
    /// the share would come to hold its own image.
    pub fn open(output: &Path, shared: &Path) -> Result<Medium, Refusal> {
        let refuse = |problem, remedy| Err(Refusal::new(output.display(), problem, remedy));
        let there = match fs::metadata(output) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(output, error)),
        };
        // A link that leads somewhere is followed, so that it stays one.
        let path = there.as_ref().and_then(|_| fs::canonicalize(output).ok());
        let path = path.unwrap_or_else(|| output.to_path_buf());
        match there.map(|there| there.file_type()) {
            Some(kind) if kind.is_block_device() => {
                // `EXCL`: not while something on it is mounted.
                let flags = (OFlags::EXCL | OFlags::CLOEXEC).bits() as i32;
                let file =
                    OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
                let file = file.map_err(|error| refused(output, error))?;
                return Ok(Medium { path, unfinished: None, file, device: true });
            }
            Some(kind) if !kind.is_file() => {
                return refuse("is neither a file nor a card", "give another name with -o");
            }
            Some(_) if !is_image(&path).map_err(|error| unreadable(&path, error))? => {
                let problem = "is there already and is no image of ours";
                return refuse(problem, "move it away, or give another name with -o");
            }
            _ => {}
        }
        let Some(name) = path.file_name() else {
            return refuse("is no name for a file", "give another name with -o");
        };
        let folder = fs::canonicalize(folder_of(&path)).map_err(|error| refused(output, error))?;
        if fs::canonicalize(shared).is_ok_and(|shared| folder.join(name).starts_with(shared)) {
            return refuse("would be part of what is shared", "give a name elsewhere with -o");
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let (unfinished, path) = (folder.join(hidden), folder.join(name));
        let file = take_over(&unfinished).map_err(|error| refused(&unfinished, error))?;
        let Some(file) = file else {
            let problem = "is somebody else's, or another run is writing it";
            return Err(Refusal::new(unfinished.display(), problem, "move it away, or wait"));
        };
        Ok(Medium { path, unfinished: Some(unfinished), file, device: false })
    }

    /// Refuses a card that is too small.
    pub fn expect_room(&self, plan: &Plan) -> Result<(), Refusal> {
        if !self.device {
            return Ok(());
        }
        let capacity = (&self.file).seek(SeekFrom::End(0));
        let capacity = capacity.map_err(|error| refused(&self.path, error))?;
        if capacity < plan.content.end() {
            let (has, needs) = (HumanBytes(capacity), HumanBytes(plan.content.end()));
            let problem = std::format!("has room for {has}, and the image takes {needs}");
            return Err(Refusal::new(self.path.display(), problem, "take a larger card"));
        }
        Ok(())
    }

    /// Writes and syncs all of it, the head last; how many bytes it takes.
    pub async fn write(
        &mut self,
        target: &Target,
        plan: &Plan,
        head: &[u8; HEAD_BYTES],
        content: &Content,
        progress: &mut impl Progress,
    ) -> Result<u64, Refusal> {
        let full = |error| refused(&self.path, error);
        let sector = Span { at: 0, length: HEAD_BYTES as u64 };
        if self.device {
            fill(&self.file, sector, 0).and_then(|()| self.file.sync_all()).map_err(full)?;
        }
        let front = Span { at: sector.end(), length: plan.content.at - sector.end() };
        fill(&self.file, front, ERASED).map_err(full)?;
        copy_metainfo(&self.file, plan.metainfo, content).map_err(full)?;
        progress.advance(plan.content.at);
        self.copy_content(plan.content, content, progress).await?;
        let mut bytes = plan.content.end();
        if !self.device {
            bytes = target.file_bytes(plan);
            let rest = Span { at: plan.content.end(), length: bytes - plan.content.end() };
            match target.sizes.whole_mib {
                // The rest of a card is nobody's: a hole.
                0 => self.file.set_len(bytes).map_err(full)?,
                _ => fill(&self.file, rest, ERASED).map_err(full)?,
            }
        }
        self.file.sync_all().map_err(full)?;
        self.file.write_all_at(head, 0).and_then(|()| self.file.sync_all()).map_err(full)?;
        Ok(bytes)
    }

    /// Copies the content, each piece held against its hash.
    async fn copy_content(
        &self,
        to: Span,
        content: &Content,
        progress: &mut impl Progress,
    ) -> Result<(), Refusal> {
        let (mut opened, mut unsynced) = (None, 0);
        let mut buffer = std::vec![0; HASH_SCRATCH_BYTES];
        for piece in (0..content.layout.piece_count()).map(PieceIndex) {
            let (mut hasher, mut at) = (PieceHasher::default(), content.layout.offset(piece));
            let end = at + u64::from(content.layout.piece_len(piece));
            while at < end {
                let span = Span { at, length: (end - at).min(buffer.len() as u64) };
                let part = &mut buffer[..span.length as usize];
                let read = content.read_content(span, part, &mut opened);
                read.map_err(|error| not_copied(content, error))?;
                hasher.update(part);
                let written = self.file.write_all_at(part, to.at + at);
                written.map_err(|error| refused(&self.path, error))?;
                (at, unsynced) = (span.end(), unsynced + span.length);
                progress.advance(span.length);
                // So that Ctrl-C is heard, here and during the last sync.
                if unsynced >= UNSYNCED_BYTES_MAX {
                    self.file.sync_data().map_err(|error| refused(&self.path, error))?;
                    unsynced = 0;
                }
                smol::future::yield_now().await;
            }
            let expected = content.expected(piece);
            if expected.map_err(|error| unreadable(&content.root, error))? != hasher.finish() {
                // Bytes that changed and a date that did not: it will not be hashed anew by itself.
                let path = content.path_at(content.layout.offset(piece));
                let problem = "is not what it was when it was hashed, and has kept its date";
                let remedy = "restore it, or `touch` it to share what it is now";
                return Err(Refusal::new(path.display(), problem, remedy));
            }
        }
        Ok(())
    }

    /// Gives a file that is whole its name, for good; where it is.
    pub fn keep(&mut self) -> Result<PathBuf, Refusal> {
        if let Some(unfinished) = &self.unfinished {
            let renamed = fs::rename(unfinished, &self.path);
            renamed.map_err(|error| refused(&self.path, error))?;
            self.unfinished = None;
            sync_folder(folder_of(&self.path)).map_err(|error| refused(&self.path, error))?;
        }
        Ok(self.path.clone())
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = fs::remove_file(unfinished);
        }
    }
}

/// The folder a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Opens the file an image grows in: a new one, or what a kill has left of one. `None` when another
/// run is at it, or when it is something else.
fn take_over(unfinished: &Path) -> io::Result<Option<File>> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false);
    how.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let file = how.open(unfinished)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    // An image is given its head last: until then it begins with what a flash or a disk is of itself.
    let mut front = [0; 8];
    let length = file.read_at(&mut front, 0)?;
    let blank = front == [0; 8] || front == [0xff; 8];
    let ours = length == 0 || length == front.len() && blank;
    // Another run may have given it its name while we waited for the lock.
    let still = fs::metadata(unfinished).is_ok_and(|there| {
        file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
    });
    if !ours || !still {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// Whether a file begins as an image does, even one that is damaged or of a later version.
fn is_image(path: &Path) -> io::Result<bool> {
    let mut front = [0; HEAD_BYTES];
    match File::open(path)?.read_exact_at(&mut front, 0) {
        Ok(()) => Ok(!matches!(Head::parse(&front), Err(HeadError::Foreign))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fills a run of the file with one byte.
fn fill(file: &File, span: Span, byte: u8) -> io::Result<()> {
    let (buffer, mut at) = (std::vec![byte; HASH_SCRATCH_BYTES], span.at);
    while at < span.end() {
        let part = (span.end() - at).min(buffer.len() as u64) as usize;
        file.write_all_at(&buffer[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

fn copy_metainfo(file: &File, to: Span, content: &Content) -> io::Result<()> {
    let (mut buffer, mut at) = (std::vec![0; WINDOW_BYTES], 0);
    while at < to.length {
        let part = (to.length - at).min(buffer.len() as u64) as usize;
        content.metainfo.read_exact_at(&mut buffer[..part], at)?;
        file.write_all_at(&buffer[..part], to.at + at)?;
        at += part as u64;
    }
    Ok(())
}

fn not_copied(content: &Content, error: ContentError) -> Refusal {
    match error {
        ContentError::Changed(span) => {
            let problem = "changed while it was copied";
            Refusal::new(content.path_at(span.at).display(), problem, "try again once it rests")
        }
        ContentError::Unreadable(span, error) => unreadable(&content.path_at(span.at), error),
        ContentError::NoMetadata(error) => unreadable(&content.root, error),
    }
}

/// What went wrong where the image is written, as the owner is told.
fn refused(path: &Path, error: io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "name a folder that is there",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "give a name with -o that can be written to"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room, or give a name on another disk with -o"
        }
        io::ErrorKind::ResourceBusy => "unmount what is on it first",
        _ => "look at the disk, or give a name on another one with -o",
    };
    Refusal::new(path.display(), error, remedy)
}

/// What flash holds where nothing has been written since it was erased.
const ERASED: u8 = 0xFF;

/// No more than this waits in memory for the disk.
const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
