//! Shares: what the owner names becomes torrents that can be served.
//!
//! A folder or file is walked and compared with what is known of it: unchanged, it is taken up
//! again without hashing a byte. Else its metainfo is written front to back, lanes hash the
//! pieces into it, and the library admits it. With a `.torrent` of others the content is checked
//! against that instead, and what does not match is not offered.
//!
//! Journey 1: `main` -> here (walk, hash on lanes) -> `service/draft` with `engine/metainfo/author`
//! -> `service/state` (files, then the journal's record: from here on it exists) -> the swarm.

use super::archive::Archive;
use super::content::{Content, ContentError, FileSource};
use super::draft::{self, Draft};
use super::grounds;
use super::known::{Known, WINDOW_BYTES, stamp_now};
use super::lanes::{Done, Job, Lanes, Receipt};
use super::options::Options;
use super::refusal::Refusal;
use super::state::State;
use super::volume::Found;
use super::walk::{LeftOut, unreadable};
use crate::engine::library::extents::Stamp;
use crate::engine::library::{Entry, Facts};
use crate::engine::limits::PATH_BYTES_MAX;
use crate::engine::metainfo::{self, Summary};
use crate::engine::units::{InfoHash, PieceIndex, set_bit};
use async_io::Timer;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

/// What the owner asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'w> {
    /// A file or a folder.
    pub path: &'w Path,
    /// The torrent it is content of, when it was made elsewhere.
    pub torrent: Option<&'w Path>,
    /// Piece length, when it is not left to us.
    pub piece_bytes: Option<u32>,
    /// Trackers to announce to.
    pub trackers: &'w [String],
    /// What the board allows a walk to hold.
    pub walk_kib: u32,
}

impl<'w> Wish<'w> {
    /// What options say of a path.
    pub fn of(path: &'w Path, options: &'w Options) -> Wish<'w> {
        Wish {
            path,
            torrent: options.torrent.as_deref(),
            piece_bytes: options.piece_bytes,
            trackers: &options.trackers,
            walk_kib: options.board.disk.walk_kib,
        }
    }
}

/// A share that can be served.
pub struct Share {
    /// Its name on the network.
    pub info_hash: InfoHash,
    /// Its name for people.
    pub name: String,
    /// Where its `.torrent` was written.
    pub torrent: PathBuf,
    /// Where its content is and how large.
    pub content: Arc<Content>,
    /// Which pieces match; nothing when all do.
    pub have: Option<Vec<u8>>,
    /// Trackers only (BEP 27).
    pub private: bool,
    /// Tier and address of each tracker.
    pub trackers: Vec<(u8, String)>,
    /// What the walk left out.
    pub left_out: LeftOut,
    /// Bytes that had to be hashed to take it up.
    pub hashed_bytes: u64,
}

impl Share {
    /// Trackers the owner names beside those of the torrent, each in a tier of its own.
    pub fn add_trackers(&mut self, addresses: &[String]) {
        for address in addresses {
            if self.trackers.iter().any(|(_, known)| known == address) {
                continue;
            }
            let tier = self.trackers.iter().map(|(tier, _)| tier.saturating_add(1)).max();
            self.trackers.push((tier.unwrap_or(0), address.clone()));
        }
    }
}

/// Told how hashing goes.
pub trait Progress {
    /// Hashing of so many bytes begins.
    fn begin(&mut self, what: &str, bytes: u64);
    /// So many more are done.
    fn advance(&mut self, bytes: u64);
    /// Hashing is over.
    fn end(&mut self);
}

/// Nobody is told.
impl Progress for () {
    fn begin(&mut self, _what: &str, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn end(&mut self) {}
}

/// The state folder, the library in it and the lanes to hash on.
pub struct Workshop<'w> {
    /// Where torrents are kept, and which ones are.
    pub archive: &'w Archive,
    /// Who hashes.
    pub lanes: &'w Lanes,
}

impl Workshop<'_> {
    /// Takes up what the owner names, hashing what is not known.
    pub async fn open(
        &mut self,
        wish: Wish<'_>,
        progress: &mut impl Progress,
    ) -> Result<Share, Refusal> {
        let path = fs::canonicalize(wish.path).map_err(|error| unreadable(wish.path, error))?;
        let mut share = match wish.torrent {
            None => self.open_own(&path, wish, progress).await?,
            Some(torrent) => self.open_theirs(&path, torrent, progress).await?,
        };
        share.add_trackers(wish.trackers);
        Ok(share)
    }

    /// A share whose torrent we make.
    async fn open_own(
        &mut self,
        path: &Path,
        wish: Wish<'_>,
        progress: &mut impl Progress,
    ) -> Result<Share, Refusal> {
        if let Some((known, left_out)) = self.known_unchanged(path, wish).await? {
            if known.trackers().iter().map(|(_, address)| address).eq(wish.trackers) {
                return Ok(known.into_share(left_out, 0));
            }
            let found = grounds::take_up(self.archive, self.lanes, path).await?;
            let folder = self.new_folder().await?;
            let crc = draft::rewrite(&known, &folder, wish.trackers)?;
            let known = self.admit(&folder, known.info_hash, crc, found).await?;
            return Ok(known.into_share(left_out, 0));
        }
        self.expect_room(path).await?;
        let found = grounds::take_up(self.archive, self.lanes, path).await?;
        let folder = self.new_folder().await?;
        let Wish { piece_bytes, trackers, walk_kib, .. } = wish;
        let draft = Draft::write(&folder, path, piece_bytes, trackers, walk_kib).await?;
        let (content, bytes) = (&draft.content, draft.content.layout.total_bytes);
        let mut put = |piece, hash: Result<[u8; 20], ContentError>| match hash {
            Ok(hash) => draft::put_hash(content, piece, &hash)
                .map_err(|error| super::state::refused(&folder, error)),
            Err(error) => Err(not_hashed(content, error)),
        };
        hash_all(self.lanes, content, &draft.name, progress, &mut put).await?;
        let (info_hash, crc) = draft.finish()?;
        // Our own work is held to what we ask of others'.
        Summary::read(&mut FileSource(&content.metainfo), &mut std::vec![0; WINDOW_BYTES])
            .map_err(|error| Refusal::new(path.display(), error, "share its parts one by one"))?;
        if self.archive.ask(|state| state.is_full()).await {
            let path = path.to_path_buf();
            self.archive.ask(move |state| forget_others(state, &path, info_hash)).await?;
        }
        let (folder, root) = (folder.clone(), path.to_path_buf());
        let admit = move |state: &mut State<'_>| {
            let others = others_at(state, &root, info_hash);
            let admitted = state.admit_instead_of(&others, &folder, info_hash, crc, &found)?;
            others.iter().for_each(|_| say_changed(&root));
            Ok(admitted.1)
        };
        let known: Known = self.archive.ask(admit).await?;
        Ok(known.into_share(draft.left_out, bytes))
    }

    /// A share whose torrent somebody else has made.
    async fn open_theirs(
        &mut self,
        path: &Path,
        torrent: &Path,
        progress: &mut impl Progress,
    ) -> Result<Share, Refusal> {
        let file = File::open(torrent).map_err(|error| unreadable(torrent, error))?;
        let summary = Summary::read(&mut FileSource(&file), &mut std::vec![0; WINDOW_BYTES])
            .map_err(|error| Refusal::new(torrent.display(), error, BROKEN_TORRENT))?;
        let root = root_of(path, &file, &summary);
        let info_hash =
            draft::info_hash_of(&file, summary.info).map_err(|error| unreadable(torrent, error))?;
        if let Some((entry, known)) = self.known(&info_hash).await
            && !entry.fetching
            && let Some(known) = known
            && known.content.root == root
            && known.looks_the_same()
        {
            return Ok(known.into_share(LeftOut::default(), 0));
        }
        self.expect_room(&root).await?;
        let found = grounds::take_up(self.archive, self.lanes, &root).await?;
        let folder = self.new_folder().await?;
        let (content, name, extents_crc) = draft::adopt(&folder, torrent, &summary, &root)?;
        let have = check(self.lanes, content, &summary.name, progress).await?;
        let matching = have.iter().map(|byte| byte.count_ones()).sum::<u32>();
        if matching == 0 {
            let problem = std::format!("nothing in it matches {}", torrent.display());
            return Err(Refusal::new(path.display(), problem, "give the folder its content is in"));
        }
        let whole = matching == summary.layout.piece_count();
        if !whole {
            draft::write_synced(&folder.join("have"), &have)?;
        }
        let facts = Facts {
            info_hash,
            root: draft::utf8(&root)?,
            torrent: &name,
            layout: summary.layout,
            info: summary.info,
            pieces: summary.pieces,
            file_count: summary.file_count,
            private: summary.private,
            authored: false,
            extents_crc,
            have_crc: (!whole).then(|| crc32fast::hash(&have)),
        };
        let crc = draft::write_facts(&folder, &facts)?;
        let known = self.admit(&folder, info_hash, crc, found).await?;
        Ok(known.into_share(LeftOut::default(), summary.layout.total_bytes))
    }

    /// What is known of the very files that lie there now.
    async fn known_unchanged(
        &self,
        path: &Path,
        wish: Wish<'_>,
    ) -> Result<Option<(Known, LeftOut)>, Refusal> {
        let all = self.known_at(path).await;
        let are_many = all.len() > 1;
        for (_, known) in all {
            let Some(known) = known else { continue };
            let piece_bytes = known.content.layout.piece_bytes;
            if known.authored
                && !known.asleep
                && known.content.root == path
                && wish.piece_bytes.is_none_or(|wanted| wanted == piece_bytes)
                && let Some(left_out) = known.is_unchanged(wish.walk_kib).await?
            {
                if are_many {
                    // A cut has come between the new one and the end of the old.
                    let (path, info_hash) = (path.to_path_buf(), known.info_hash);
                    self.archive.ask(move |state| forget_others(state, &path, info_hash)).await?;
                }
                return Ok(Some((known, left_out)));
            }
        }
        Ok(None)
    }

    /// Refuses what could not be admitted once it has been hashed.
    async fn expect_room(&self, path: &Path) -> Result<(), Refusal> {
        let path = path.to_path_buf();
        let has_room = move |state: &mut State<'_>| !state.is_full() || !state.at(&path).is_empty();
        if self.archive.ask(has_room).await { Ok(()) } else { Err(self.full().await) }
    }

    /// What is known of a torrent; its files, if they are what the journal vouches for.
    pub async fn known(&self, info_hash: &InfoHash) -> Option<(Entry, Option<Known>)> {
        let info_hash = *info_hash;
        let find = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash)?;
            Some((entry, state.load(&entry)))
        };
        self.archive.ask(find).await
    }

    /// The same of every torrent whose content lies there.
    async fn known_at(&self, path: &Path) -> Vec<(Entry, Option<Known>)> {
        let path = path.to_path_buf();
        let find = move |state: &mut State<'_>| {
            let all = state.at(&path).into_iter();
            all.map(|entry| (entry, state.load(&entry))).collect()
        };
        self.archive.ask(find).await
    }

    /// An empty folder in which a torrent's files can be made.
    pub async fn new_folder(&self) -> Result<PathBuf, Refusal> {
        self.archive.ask(|state| state.new_folder()).await
    }

    /// The library has no place left.
    pub async fn full(&self) -> Refusal {
        let held = self.archive.ask(|state| state.count()).await;
        let problem = std::format!("the library holds {held} torrents and is full");
        Refusal::new("memory", problem, "choose a larger board with --board")
    }

    async fn admit(
        &self,
        folder: &Path,
        info_hash: InfoHash,
        facts_crc: u32,
        found: Found,
    ) -> Result<Known, Refusal> {
        let folder = folder.to_path_buf();
        let admit =
            move |state: &mut State<'_>| state.admit(&folder, info_hash, facts_crc, Some(&found));
        self.archive.ask(admit).await.map(|(_, known)| known)
    }
}

impl Known {
    /// A share of what is known.
    pub fn into_share(self, left_out: LeftOut, hashed_bytes: u64) -> Share {
        let name = self.torrent.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Share {
            info_hash: self.info_hash,
            name,
            trackers: self.trackers(),
            torrent: self.torrent,
            content: Arc::new(self.content),
            have: self.have,
            private: self.private,
            left_out,
            hashed_bytes,
        }
    }
}

/// What we made of the same folder when it held something else, whose bytes are gone; but for what
/// lay there on a disk that is away.
fn others_at(state: &mut State<'_>, path: &Path, info_hash: InfoHash) -> Vec<Entry> {
    let mut others = state.at(path);
    let lay_there = |known: &Known| !known.asleep && known.content.root == path;
    others.retain(|other| {
        let known = (other.info_hash != info_hash).then(|| state.load(other));
        known.is_some_and(|known| known.is_none_or(|known| known.authored && lay_there(&known)))
    });
    others
}

/// Forgets all of that.
fn forget_others(state: &mut State<'_>, path: &Path, info_hash: InfoHash) -> Result<(), Refusal> {
    for other in others_at(state, path, info_hash) {
        say_changed(path);
        state.forget(&other)?;
    }
    Ok(())
}

fn say_changed(path: &Path) {
    warn!("{}: has changed since it was last shared: give out its new link", path.display());
}

/// Which pieces of the content match the metainfo.
pub async fn check(
    lanes: &Lanes,
    content: Content,
    name: &str,
    progress: &mut impl Progress,
) -> Result<Vec<u8>, Refusal> {
    let content = Arc::new(content);
    let mut have = std::vec![0u8; content.layout.bitfield_bytes() as usize];
    let mut put = |piece: PieceIndex, hash: Result<[u8; 20], ContentError>| {
        let expected = content.expected(piece);
        let expected = expected.map_err(|error| unreadable(&content.root, error))?;
        // What is not there or cannot be read is not offered: it is no reason to refuse the rest.
        if hash.is_ok_and(|hash| hash == expected) {
            set_bit(&mut have, piece.0);
        }
        Ok(())
    };
    hash_all(lanes, &content, name, progress, &mut put).await?;
    Ok(have)
}

/// Hashes every piece, on all lanes at once, and hands the hashes to `put` in order.
async fn hash_all(
    lanes: &Lanes,
    content: &Arc<Content>,
    name: &str,
    progress: &mut impl Progress,
    put: &mut impl FnMut(PieceIndex, Result<[u8; 20], ContentError>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut pieces = (0..content.layout.piece_count()).map(PieceIndex).peekable();
    let under_way_max = 2 * lanes.count();
    let mut under_way: VecDeque<Receipt> = VecDeque::with_capacity(under_way_max);
    progress.begin(name, content.layout.total_bytes);
    let result = loop {
        while under_way.len() < under_way_max
            && let Some(piece) = pieces.peek().copied()
            && let Ok(receipt) = lanes.submit(Job::Hash { content: Arc::clone(content), piece })
        {
            under_way.push_back(receipt);
            pieces.next();
        }
        let Some(next) = under_way.pop_front() else {
            if pieces.peek().is_none() {
                break Ok(());
            }
            // Every place of the lanes is taken by others.
            Timer::after(BUSY).await;
            continue;
        };
        let Done::Hash(piece, hash) = next.await else { continue };
        if let Err(refusal) = put(piece, hash) {
            break Err(refusal);
        }
        progress.advance(content.layout.piece_len(piece).into());
    };
    progress.end();
    result
}

/// Where the content of a torrent lies when the owner names `path`: the file or folder itself, or
/// what has the torrent's name inside it.
fn root_of(path: &Path, torrent: &File, summary: &Summary) -> PathBuf {
    let inside = path.join(summary.name.as_str());
    let itself = match summary.files {
        None => path.is_file(),
        Some(_) => !inside.is_dir() || holds_first_file(path, torrent, summary),
    };
    if itself { path.to_path_buf() } else { inside }
}

fn holds_first_file(root: &Path, torrent: &File, summary: &Summary) -> bool {
    let (mut source, mut window) = (FileSource(torrent), std::vec![0; WINDOW_BYTES]);
    let first = summary.files(&mut source, &mut window).next_file().ok().flatten();
    let Some(first) = first else { return false };
    let mut room = [0; PATH_BYTES_MAX];
    let at = summary.info.at + first.path_at;
    let path = metainfo::read_path(&mut FileSource(torrent), at, &mut room);
    path.is_ok_and(|path| stamp_now(root, path, first.length) != Stamp::default())
}

fn not_hashed(content: &Content, error: ContentError) -> Refusal {
    match error {
        ContentError::Changed(span) => {
            let problem = "changed while it was hashed";
            Refusal::new(content.path_at(span.at).display(), problem, "try again once it rests")
        }
        ContentError::Unreadable(span, error) => unreadable(&content.path_at(span.at), error),
        ContentError::NoMetadata(error) => unreadable(&content.root, error),
    }
}

/// Before lanes of which every place was taken are asked again.
const BUSY: Duration = Duration::from_millis(50);

/// Remedy for a `.torrent` that is none.
pub const BROKEN_TORRENT: &str = "fetch the .torrent again from where it came";
