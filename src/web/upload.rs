//! Files dropped into a browser, and updates of the box.
//!
//! A file goes to the box's folder in slices, and is shared from there.
//!
//! ```text
//! HEAD /upload/NAME?of=SIZE&tag=T       -> X-Have: how much of it is here
//! PUT  /upload/NAME?at=A&of=SIZE&tag=T  -> a slice, from where the last one ended
//! ```
//!
//! The tag, a number, tells it from others of its name and size: when it was last changed. Until it is
//! whole it lies there as `.NAME.SIZE-TAG.part`, which nobody looks at. What was cut off goes on
//! where it was. A slice that would not fit is refused before its body is read. An update comes in one
//! piece, and is refused as soon as it is known why.

use super::Web;
use super::connection::Connection;
use super::reply::{Answer, Body, Reply, Status, TEXT};
use super::routes::Ask;
use crate::engine::metainfo::names;
use crate::service::board::TRANSIT_BYTES;
use crate::service::handout::{Errand, Outcome};
use crate::service::state::State;
use crate::service::volume::kept::Told;
use rustix::fs::{Mode, OFlags, statvfs};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// A file that comes in slices.
struct Slot {
    /// What it will be.
    whole: PathBuf,
    /// What it is meanwhile.
    part: PathBuf,
}

/// The turn of one file to be sent, over when it is dropped.
struct Turn<'w> {
    under_way: &'w RefCell<Vec<PathBuf>>,
    whole: PathBuf,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.under_way.borrow_mut().retain(|whole| *whole != self.whole);
    }
}

/// What is answered to a slice that is not taken.
type Objection = (Status, String);

impl Web<'_, '_, '_> {
    /// How much of a file is here.
    pub(super) async fn uploaded(&self, ask: &Ask, name: &str) -> Answer {
        let token = ask.head.token.as_deref();
        if let Some(barred) = self.gate.bars_change(&ask.visitor, &ask.head, token) {
            return Err(barred);
        }
        let slot = self.slot(ask, name)?;
        let look = move |_: &mut State<'_>| std::fs::symlink_metadata(slot.part);
        // Nothing of it may be here yet.
        let have = self.steward.keeper.archive.ask(look).await.map_or(0, |file| file.len());
        let reply = Reply::new(Status::NO_CONTENT, TEXT, Body::Empty);
        Ok(reply.with(&std::format!("X-Have: {have}")))
    }

    /// Takes a slice.
    pub(super) async fn upload(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        name: &str,
    ) -> Answer {
        let token = ask.head.token.as_deref();
        if let Some(barred) = self.gate.bars_change(&ask.visitor, &ask.head, token) {
            return Err(barred.last());
        }
        let Some(_place) = self.uploads.take() else {
            let words = "as many files come as this box has memory for: try again in a minute";
            return Err(Reply::words(Status::BUSY, words).with("Retry-After: 10").last());
        };
        self.take_slice(connection, ask, name).await.map_err(Reply::last)?;
        Ok(Reply::new(Status::NO_CONTENT, TEXT, Body::Empty))
    }

    /// Nobody else sends that file meanwhile.
    fn turn_of(&self, slot: &Slot) -> Result<Turn<'_>, Reply> {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.contains(&slot.whole) {
            let words = "another sends a file of this name just now: wait until it is here";
            return Err(Reply::words(Status::CONFLICT, words));
        }
        under_way.push(slot.whole.clone());
        Ok(Turn { under_way: &self.under_way, whole: slot.whole.clone() })
    }

    /// Takes an update, and has the box start it.
    pub(super) async fn update(&self, connection: &mut Connection) -> Answer {
        let mut update = self.steward.begin_update(None).await?;
        let taken = async {
            while connection.left_bytes() > 0 {
                let filled = self.fill(connection, update.buffer()).await;
                let filled = filled.map_err(|error| said(failed(&error)).last())?;
                update.take(filled).await?;
            }
            Ok::<(), Reply>(())
        };
        if let Err(instead) = taken.await {
            update.leave().await;
            return Err(instead);
        }
        let version = update.finish().await?;
        let words = "is on the card: the box starts it now, and returns should it not do";
        Ok(Reply::words(Status::OK, &std::format!("version {version} {words}")))
    }

    /// Reads of the body what there is and fits. Cut off, it is what has come, if anything has.
    async fn fill(&self, connection: &mut Connection, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && connection.left_bytes() > 0 {
            match self.read_body(connection, &mut buffer[filled..]).await {
                Ok(read) => filled += read,
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    async fn take_slice(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        name: &str,
    ) -> Result<(), Reply> {
        let slot = self.slot(ask, name)?;
        let _turn = self.turn_of(&slot)?;
        let (Some(at), Some(of)) = (ask.head.number("at"), ask.head.number("of")) else {
            let words = "say where the slice begins and how long the file is: ?at=0&of=1000";
            return Err(Reply::words(Status::BAD_REQUEST, words));
        };
        let bytes = connection.left_bytes();
        if at.checked_add(bytes).is_none_or(|end| end > of) {
            let words = "the slice is longer than what is left of the file";
            return Err(Reply::words(Status::BAD_REQUEST, words));
        }
        let begun = self.steward.keeper.archive.ask(move |state| slot.begin(state, at, of)).await;
        let (slot, file) = begun.map_err(said)?;
        let file = Arc::new(file);
        let mut buffer = std::vec![0; TRANSIT_BYTES].into_boxed_slice();
        let (mut at, end) = (at, at + bytes);
        while at < end {
            let most = (end - at).min(TRANSIT_BYTES as u64) as usize;
            let filled = self.fill(connection, &mut buffer[..most]).await;
            let filled = filled.map_err(|error| said(failed(&error)))?;
            let errand = Errand::Put { file: Arc::clone(&file), at, bytes: filled, buffer };
            let Outcome::Moved(back, put) = self.hand_out(errand).await else {
                unreachable!("a lane answers what it was asked")
            };
            buffer = back;
            put.map_err(|error| said(failed(&error)))?;
            at += filled as u64;
        }
        if at < of {
            return Ok(());
        }
        let Slot { part, whole } = slot;
        match self.hand_out(Errand::Keep { file, bytes: of, part, whole }).await {
            Outcome::Kept(kept) => kept.map_err(|error| said(failed(&error))),
            _ => unreachable!("a lane answers what it was asked"),
        }
    }

    /// Where a file of that name goes.
    fn slot(&self, ask: &Ask, name: &str) -> Result<Slot, Reply> {
        let given = self.steward.given.borrow();
        let folder = given.drop_folder.as_ref().ok_or_else(|| {
            let words = "no folder is shared entry by entry: name one as `folder` below [[share]] \
                         in the configuration";
            Reply::words(Status::CONFLICT, words)
        })?;
        let objection = match name {
            _ if name.is_empty() || name.len() > NAME_BYTES_MAX => Some("is too long, or nothing"),
            _ if name.contains(['/', '\\', '\0']) || name.chars().any(char::is_control) => {
                Some("has letters that no file's name may have")
            }
            _ if name.starts_with('.') || name.starts_with('~') || names::is_left_out(name) => {
                Some("is that of a file the box leaves out")
            }
            _ => None,
        };
        match objection {
            None => {
                // Of two files of one name each goes on where it was itself.
                let (of, tag) =
                    (ask.head.number("of").unwrap_or(0), ask.head.number("tag").unwrap_or(0));
                let part = folder.join(std::format!(".{name}.{of:x}-{tag:x}.part"));
                Ok(Slot { whole: folder.join(name), part })
            }
            Some(problem) => {
                let words = std::format!("this name {problem}: rename the file");
                Err(Reply::words(Status::REFUSED, &words))
            }
        }
    }
}

impl Slot {
    /// Opens what is here of a file of `of` bytes, to go on at `at`, if the rest of it fits. On the
    /// archive's thread, which may wait for a disk.
    fn begin(self, state: &mut State<'_>, at: u64, of: u64) -> Result<(Slot, File), Objection> {
        if self.whole.exists() {
            let words = "there is a file of this name already: rename yours";
            return Err((Status::CONFLICT, words.into()));
        }
        let folder = self.part.parent().unwrap_or(Path::new("/"));
        let told = state.volumes_told();
        let is_away = |volume: &Told| volume.free_bytes.is_none() && folder.starts_with(&volume.at);
        if let Some(volume) = told.iter().find(|volume| is_away(volume)) {
            let words =
                std::format!("the disk at {} is not there: plug it in", volume.at.display());
            return Err((Status::BUSY, words));
        }
        // Nothing of it may be here yet.
        let have = std::fs::symlink_metadata(&self.part).map_or(0, |file| file.len());
        if at > have {
            let words = std::format!("{have} bytes of it are here: go on from there");
            return Err((Status::CONFLICT, words));
        }
        let (free, all) = match statvfs(folder) {
            Ok(stat) => (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize),
            Err(error) => return Err(failed(&error.into())),
        };
        let (kept, lacking) = (state.reserve_bytes(all), of.saturating_sub(have));
        if free.saturating_sub(kept) < lacking {
            let words = std::format!(
                "{lacking} bytes would not fit: {free} are free, of which {kept} stay so; make room \
                 first"
            );
            return Err((Status::NO_ROOM, words));
        }
        let file = open(&self.part).map_err(|error| failed(&error))?;
        Ok((self, file))
    }
}

/// A link that somebody has put there is not followed.
fn open(part: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(part, flags, Mode::from_raw_mode(0o666))?))
}

fn failed(error: &io::Error) -> Objection {
    let status = match error.kind() {
        io::ErrorKind::AlreadyExists => Status::CONFLICT,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::NO_ROOM,
        _ => Status::BUSY,
    };
    (status, std::format!("it could not be kept: {error}"))
}

fn said((status, words): Objection) -> Reply {
    Reply::words(status, &words)
}

/// With size, tag and `.part` behind it, it is no longer than a name may be.
const NAME_BYTES_MAX: usize = 210;
