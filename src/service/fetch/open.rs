//! A torrent the owner asks for is taken up: begun, gone on with, or found to be here already.
//!
//! ```text
//! .torrent -> known and whole?      -> shared as it is
//!          -> known and begun?      -> its record is replayed, and its files looked at
//!          -> else files are made, what lay there is checked, and it is admitted as begun
//! ```
//!
//! Journey 3 begins here: `main` -> here -> `service/fetch` keeps what is fetched.

use super::make::{Before, FORCE, Found, Made, Plan, wanted_pieces};
use super::progress::Progress;
use crate::engine::library::extents::Stamp;
use crate::engine::library::{ExtentMap, Facts};
use crate::engine::metainfo::{Summary, glob::Glob};
use crate::engine::units::{InfoHash, PieceIndex, Span, has_bit};
use crate::service::Refusal;
use crate::service::content::{Content, FileSource, look, open_beneath};
use crate::service::draft;
use crate::service::grounds;
use crate::service::known::{Known, WINDOW_BYTES, trackers_of};
use crate::service::lanes::{Done, Job, Lanes};
use crate::service::options::FetchOptions;
use crate::service::share::{BROKEN_TORRENT, Progress as Hashing, Share, Workshop, check};
use crate::service::state::State;
use crate::service::volume;
use crate::service::walk::{LeftOut, unreadable};
use crate::service::wanted::Wanted;
use std::boxed::Box;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec::Vec;

/// What the owner asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'w> {
    /// The torrent.
    pub torrent: &'w Path,
    /// Which of it goes where.
    pub fetch: &'w FetchOptions,
}

/// A torrent that is to be fetched, beside what it shares already.
pub struct Errand {
    /// Which pieces are wanted.
    pub wanted: Vec<u8>,
    /// Bytes of wanted pieces.
    pub wanted_bytes: u64,
    /// Bytes of these that are there.
    pub here_bytes: u64,
    /// Its folder in the state folder.
    pub folder: PathBuf,
    /// What is recorded of it.
    pub progress: Progress,
}

impl Errand {
    /// Whether a piece is wanted.
    pub fn wants(&self, piece: u32) -> bool {
        has_bit(&self.wanted, piece)
    }
}

/// A torrent taken up: what it shares, and what is to be fetched, if anything is.
pub struct Taken {
    /// What is there of it is shared.
    pub share: Share,
    /// What is still to come.
    pub errand: Option<Errand>,
    /// Peers to begin with.
    pub peers: Vec<SocketAddr>,
    /// What has been made for it just now: nobody knew of it before.
    pub made: Option<Box<Made>>,
}

/// Says what is wrong with a pattern.
pub fn check_pattern(text: &str) -> Result<(), Refusal> {
    Glob::parse(text).map(|_| ()).map_err(|what| {
        Refusal::new(std::format!("--files {text}"), what, "give a pattern such as '*.mkv'")
    })
}

impl Workshop<'_> {
    /// Takes up a torrent that is to be fetched.
    pub async fn fetch(
        &mut self,
        wish: Wish<'_>,
        progress: &mut impl Hashing,
    ) -> Result<Taken, Refusal> {
        let file = File::open(wish.torrent).map_err(|error| unreadable(wish.torrent, error))?;
        let mut window = std::vec![0; WINDOW_BYTES];
        let summary = Summary::read_any_names(&mut FileSource(&file), &mut window)
            .map_err(|error| Refusal::new(wish.torrent.display(), error, BROKEN_TORRENT))?;
        let info_hash = draft::info_hash_of(&file, summary.info)
            .map_err(|error| unreadable(wish.torrent, error))?;
        let mut before = None;
        if let Some((entry, Some(known))) = self.known(&info_hash).await {
            if known.asleep {
                let problem = "is known, and on a disk that is not there";
                let remedy = "plug that in, or remove it here first";
                return Err(Refusal::new(&summary.name, problem, remedy));
            }
            let content = known.content.again();
            before = content.ok().map(|content| Before { content, fetching: entry.fetching });
            if !entry.fetching && known.have.is_none() && known.looks_the_same() {
                info!("{}: is here already, in {}", summary.name, known.content.root.display());
                let share = known.into_share(LeftOut::default(), 0);
                return Ok(Taken { share, errand: None, peers: Vec::new(), made: None });
            }
            if entry.fetching
                && let Some(taken) = self.go_on(known, &summary, wish).await?
            {
                return Ok(taken);
            }
        }
        self.begin(info_hash, before, &summary, wish, progress).await
    }

    /// Goes on with a fetch where it was; `None` when its files are no longer those it made, or
    /// more of them are wanted than were made.
    async fn go_on(
        &mut self,
        mut known: Known,
        summary: &Summary,
        wish: Wish<'_>,
    ) -> Result<Option<Taken>, Refusal> {
        let (wanted, _) = wanted_pieces(&known.content.metainfo, summary, &wish.fetch.files)
            .map_err(|error| Refusal::new(wish.torrent.display(), error, BROKEN_TORRENT))?;
        let name = &summary.name;
        if !files_are_there(&known.content, &wanted) {
            let root = known.content.root.display();
            if !grounds::is_there(self.lanes, &known.content).await {
                let problem = "is on a disk that is not there";
                return Err(Refusal::new(root, problem, "plug it in"));
            }
            warn!("{name}: not all of its files are in {root} any more: what is there is checked");
            return Ok(None);
        }
        known.content.growing = true;
        let folder = known.files().0.to_path_buf();
        let progress = Progress::open(&folder, known.content.layout.bitfield_bytes())?;
        known.have = Some(progress.verified.to_vec());
        let share = known.into_share(LeftOut::default(), 0);
        Ok(Some(errand(share, wanted, folder, progress)))
    }

    async fn begin(
        &mut self,
        info_hash: InfoHash,
        before: Option<Before>,
        summary: &Summary,
        wish: Wish<'_>,
        progress: &mut impl Hashing,
    ) -> Result<Taken, Refusal> {
        let has_room =
            move |state: &mut State<'_>| !state.is_full() || state.get(&info_hash).is_some();
        if !self.archive.ask(has_room).await {
            return Err(self.full().await);
        }
        let (target, is_new) = (wish.fetch.output.join(summary.name.as_str()), before.is_none());
        let found = grounds::take_up(self.archive, self.lanes, &target).await?;
        let folder = self.new_folder().await?;
        let space = found.space;
        let room_bytes = self.archive.ask(move |state| state.room_bytes(space)).await;
        let plan = Plan {
            torrent: wish.torrent.to_path_buf(),
            folder: folder.clone(),
            output: wish.fetch.output.clone(),
            files: wish.fetch.files.clone(),
            force: wish.fetch.force,
            // What we have made ourselves may be written to again.
            before,
            room_bytes,
        };
        // It may sleep long: a lane does it.
        let made = match self.lanes.run(Job::Make(Box::new(plan))).await {
            Some(Done::Made(made)) => (*made)?,
            _ => {
                return Err(Refusal::new(
                    wish.torrent.display(),
                    "every lane is taken",
                    "try again",
                ));
            }
        };
        match self.admit_made(&made, (&folder, found), info_hash, wish, progress).await {
            Ok(taken) => {
                let made = is_new.then(|| Box::new(made));
                Ok(Taken { made, ..taken })
            }
            Err(refusal) => {
                unmake(self.lanes, Box::new(made)).await;
                Err(refusal)
            }
        }
    }

    /// What has been made is looked at, and exists from then on.
    async fn admit_made(
        &mut self,
        made: &Made,
        (folder, found): (&Path, volume::Found),
        info_hash: InfoHash,
        wish: Wish<'_>,
        progress: &mut impl Hashing,
    ) -> Result<Taken, Refusal> {
        let summary = &made.summary;
        let have = adopt_existing(self, made, wish.fetch.force, progress).await?;
        let facts = Facts {
            info_hash,
            root: draft::utf8(&made.content.root)?,
            torrent: &made.torrent_name,
            layout: summary.layout,
            info: summary.info,
            pieces: summary.pieces,
            file_count: summary.file_count,
            private: summary.private,
            authored: false,
            extents_crc: made.extents_crc,
            have_crc: None,
        };
        let crc = draft::write_facts(folder, &facts)?;
        let mut record = Progress::open(folder, summary.layout.bitfield_bytes())?;
        record.verified.copy_from_slice(&have);
        let made_in = folder.to_path_buf();
        let wanted = Wanted::new(&summary.name, wish.fetch);
        let begin = move |state: &mut State<'_>| {
            // In this order: what is begun is gone on with after any power cut. What a link has
            // said before is not written over.
            let is_new = state.wanted(&info_hash).is_none();
            if is_new {
                state.keep_wanted(&info_hash, &wanted)?;
            }
            let begun = state.begin(&made_in, info_hash, crc, &found);
            if begun.is_err() && is_new {
                state.drop_wanted(&info_hash);
            }
            begun
        };
        let (folder, known) = self.archive.ask(begin).await?;
        record.move_to(&folder);
        let share = Share {
            info_hash,
            name: summary.name.as_str().into(),
            torrent: folder.join(&made.torrent_name),
            trackers: trackers_of(&made.content.metainfo),
            content: Arc::new(Content { growing: true, ..known.content }),
            have: Some(have),
            private: summary.private,
            left_out: LeftOut::default(),
            hashed_bytes: 0,
        };
        Ok(errand(share, made.wanted.clone(), folder, record))
    }
}

/// Removes what was made of a torrent's files.
pub async fn unmake(lanes: &Lanes, made: Box<Made>) {
    // Should no lane have a place, hollow files stay, which are in nobody's way.
    let _ = lanes.run(Job::Unmake(made)).await;
}

/// What is there already of what lay in the target folder, checked piece by piece.
async fn adopt_existing(
    workshop: &Workshop<'_>,
    made: &Made,
    force: bool,
    progress: &mut impl Hashing,
) -> Result<Vec<u8>, Refusal> {
    let layout = made.content.layout;
    if made.found.iter().all(|(_, found)| *found == Found::Hollow) {
        return Ok(std::vec![0; layout.bitfield_bytes() as usize]);
    }
    let content = made.content.again().map_err(|error| unreadable(&made.content.root, error))?;
    let have = check(workshop.lanes, content, &made.summary.name, progress).await?;
    let has = |piece: u32| has_bit(&have, piece);
    let foreign = |(_, found): &&(u32, Found)| *found == Found::Foreign && !force;
    for (index, _) in made.found.iter().filter(foreign) {
        let mut source = FileSource(&made.content.extents);
        let extent = ExtentMap::new(&mut source, made.content.file_count).read(*index);
        let extent = extent.ok().flatten().unwrap_or_default();
        if !layout.pieces_of(extent.span).all(has) {
            let path = made.content.path_at(extent.span.at);
            return Err(Refusal::new(path.display(), "exists with other content", FORCE));
        }
    }
    Ok(have)
}

fn errand(share: Share, wanted: Vec<u8>, folder: PathBuf, progress: Progress) -> Taken {
    let layout = share.content.layout;
    let (mut wanted_bytes, mut here_bytes) = (0, 0);
    for piece in 0..layout.piece_count() {
        if has_bit(&wanted, piece) {
            let bytes = u64::from(layout.piece_len(PieceIndex(piece)));
            wanted_bytes += bytes;
            here_bytes += if has_bit(&progress.verified, piece) { bytes } else { 0 };
        }
    }
    let errand = Errand { wanted, wanted_bytes, here_bytes, folder, progress };
    Taken { share, errand: Some(errand), peers: Vec::new(), made: None }
}

/// Whether every file that a wanted piece reaches into is the one that was made for it.
fn files_are_there(content: &Content, wanted: &[u8]) -> bool {
    let is_wanted = |piece: u32| has_bit(wanted, piece);
    let mut source = FileSource(&content.extents);
    let mut extents = ExtentMap::new(&mut source, content.file_count);
    (0..content.file_count).all(|index| {
        let Ok(Some(extent)) = extents.read(index) else { return false };
        let span: Span = extent.span;
        if extent.padding || span.length == 0 || !content.layout.pieces_of(span).any(is_wanted) {
            return true;
        }
        let there = content.path_of(&extent).and_then(|path| open_beneath(&content.root, &path));
        let seen = there.and_then(|file| look(&file));
        extent.stamp != Stamp::default()
            && seen.is_ok_and(|(length, stamp)| {
                length == span.length && stamp.inode == extent.stamp.inode
            })
    })
}
