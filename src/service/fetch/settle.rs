//! A torrent of which nothing is lacking becomes a share like any other.
//!
//! Until then its files were ours to write; from then on they are the owner's, and what they look
//! like is written down, so that a change is noticed. A lane syncs and looks at them and makes the
//! torrent's folder anew; one record of the journal then puts it in the place of the old one, whose
//! record of progress goes with it.

use super::{Goal, Keeper, Stage};
use crate::engine::bencode::Sink;
use crate::engine::library::extents::Stamp;
use crate::engine::library::{ExtentMap, Facts};
use crate::engine::units::{InfoHash, TorrentSlot};
use crate::service::content::{Content, FileSource, look, open_beneath};
use crate::service::draft::{self, Counted};
use crate::service::report;
use crate::service::state::{State, refused};
use crate::service::walk::unreadable;
use crate::service::{Refusal, Service};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

/// What a lane is given.
pub struct Task {
    /// Where its content is.
    pub content: Arc<Content>,
    /// Its name on the network.
    pub info_hash: InfoHash,
    /// Its metainfo, in its old folder.
    pub torrent: PathBuf,
    /// What that is called.
    pub torrent_name: String,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// A bit for each piece that is there.
    pub have: Vec<u8>,
    /// The folder that is made.
    pub folder: PathBuf,
}

/// A folder that has been made.
pub struct Settled {
    folder: PathBuf,
    facts_crc: u32,
}

impl Task {
    /// Makes the folder: on a lane. Nothing is left of one that could not be made.
    pub fn run(self) -> Result<Settled, Refusal> {
        let made = self.make();
        if made.is_err() {
            let _ = fs::remove_dir_all(&self.folder);
        }
        made.map(|facts_crc| Settled { folder: self.folder, facts_crc })
    }

    fn make(&self) -> Result<u32, Refusal> {
        let Task { content, folder, .. } = self;
        let path = folder.join(&self.torrent_name);
        let copied = fs::copy(&self.torrent, &path).and_then(|_| File::open(&path));
        copied.and_then(|file| file.sync_all()).map_err(|error| refused(&path, error))?;
        let extents_path = folder.join("extents");
        let mut extents = Counted::create(&extents_path)?;
        for index in 0..content.file_count {
            let mut source = FileSource(&content.extents);
            let extent = ExtentMap::new(&mut source, content.file_count).read(index);
            let mut extent = extent
                .map_err(|error| refused(&extents_path, error))?
                .ok_or_else(|| refused(&extents_path, io::ErrorKind::UnexpectedEof.into()))?;
            // One that was not wanted was not made.
            if extent.stamp != Stamp::default() {
                let seen = content.path_of(&extent).and_then(|path| {
                    let file = open_beneath(&content.root, &path)?;
                    rustix::fs::fdatasync(&file)?;
                    look(&file)
                });
                let path = || content.path_at(extent.span.at);
                let (length, stamp) = seen.map_err(|error| unreadable(&path(), error))?;
                // What somebody has put in its place was never held against a hash.
                if length != extent.span.length || stamp.inode != extent.stamp.inode {
                    let problem = "is no longer the file that was fetched";
                    let remedy = "put it back, or fetch the torrent again";
                    return Err(Refusal::new(path().display(), problem, remedy));
                }
                extent.stamp = stamp;
            }
            extents.put(&extent.write()).map_err(|error| refused(&extents_path, error))?;
        }
        let extents_crc = extents.crc();
        extents.finish(&extents_path)?;
        let count = content.layout.piece_count();
        let here: u32 = self.have.iter().map(|byte| byte.count_ones()).sum();
        if here < count {
            draft::write_synced(&folder.join("have"), &self.have)?;
        }
        let facts = Facts {
            info_hash: self.info_hash,
            root: draft::utf8(&content.root)?,
            torrent: &self.torrent_name,
            layout: content.layout,
            info: content.info,
            pieces: content.pieces,
            file_count: content.file_count,
            private: self.private,
            authored: false,
            extents_crc,
            have_crc: (here < count).then(|| crc32fast::hash(&self.have)),
        };
        draft::write_facts(folder, &facts)
    }
}

/// Puts the folder in its place, and the content with it.
pub async fn finish(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    torrent: TorrentSlot,
    made: Result<Settled, Refusal>,
) {
    let of = |goal: &&Goal| goal.torrent == torrent;
    let named = service.fetched.goals.borrow().iter().find(of).map(|goal| goal.info_hash);
    let Some(info_hash) = named else { return };
    let admitted = match made {
        Ok(Settled { folder, facts_crc }) => {
            let admit = move |state: &mut State<'_>| {
                let admitted = state.admit(&folder, info_hash, facts_crc, None);
                if admitted.is_ok() {
                    state.drop_wanted(&info_hash);
                }
                admitted
            };
            keeper.archive.ask(admit).await
        }
        Err(refusal) => Err(refusal),
    };
    let mut goals = service.fetched.goals.borrow_mut();
    let Some(goal) = goals.iter_mut().find(|goal| goal.torrent == torrent) else { return };
    match admitted {
        Ok((folder, known)) => {
            if service.fetched.says_pieces.get() {
                report::settled(&goal.info_hash, &folder.join(&goal.torrent_name));
            }
            goal.folder = folder;
            goal.settled(service, known.content);
        }
        Err(refusal) => {
            let error = io::Error::other(refusal.to_string());
            service.complain(std::format!("{}: cannot be settled yet", goal.name), &error);
            goal.stage = Stage::Fetching;
            goal.rest(service, error.kind());
        }
    }
}
