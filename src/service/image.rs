//! Images: a share written as one file or card for a board that runs firmware.
//!
//! The share is taken up as for serving (same torrent, same state folder, nothing hashed twice);
//! then its metainfo and content are copied in the order of [`engine::image`], each piece held
//! against its hash on the way. In the end there is an image that is whole, or none (`medium`).
//!
//! Journey 1: `main` -> here -> `service/share` -> the image -> a card or flash, where `firmware`
//! finds it.
//!
//! [`engine::image`]: crate::engine::image

mod medium;

use super::archive::Archive;
use super::board::{Board, ImageSizes};
use super::content::FileSource;
use super::grounds::Grounds;
use super::known::WINDOW_BYTES;
use super::life::make::{no_signals, start_lanes};
use super::options::Options;
use super::refusal::Refusal;
use super::report::{ImageMade, Report};
use super::share::{Progress, Share, Wish, Workshop};
use super::walk::{Walk, unreadable};
use crate::engine::image::{Head, HeadError, SECTOR_BYTES};
use crate::engine::metainfo::{Layout, Summary, author};
use crate::engine::units::Span;
use async_signal::{Signal, Signals};
use indicatif::HumanBytes;
use medium::Medium;
use rustix::rand::{GetRandomFlags, getrandom};
use smol::stream::StreamExt;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::string::String;
use url::{Position, Url};

/// What an image is made for, and where: `--for-board` and `-o`.
pub struct Target {
    board: Board,
    sizes: ImageSizes,
    output: PathBuf,
}

impl Target {
    /// What the command line says; nothing when it asks for no image. `serving` are options that
    /// only a share has that is served from here, and whether each was given.
    pub fn chosen(
        board: Option<&str>,
        output: Option<PathBuf>,
        serving: &[(&str, bool)],
    ) -> Result<Option<Target>, Refusal> {
        let (name, output) = match (board, output) {
            (None, None) => return Ok(None),
            (Some(name), Some(output)) => (name, output),
            (Some(_), None) => {
                let problem = "makes an image and needs a name for it";
                return Err(Refusal::new("--for-board", problem, "say where with -o FILE"));
            }
            (None, Some(_)) => {
                let problem = "names an image and needs a board to make it for";
                return Err(Refusal::new("-o", problem, "say which with --for-board NAME"));
            }
        };
        if let Some((option, _)) = serving.iter().find(|(_, given)| *given) {
            let problem = "nothing is served from here while an image is made";
            return Err(Refusal::new(option, problem, "leave it out, or --for-board"));
        }
        let refuse = |problem| {
            let boards = Board::names(true);
            let problem = std::format!("{problem}; images are made for {boards}");
            Refusal::new(name, problem, "choose one of them")
        };
        let board = Board::named(name).ok_or_else(|| refuse("is no board"))?;
        let sizes = board.image.ok_or_else(|| refuse("runs Linux and needs no image"))?;
        Ok(Some(Target { board, sizes, output }))
    }

    /// Where everything lies in an image of that content, if there is room for it.
    fn plan(&self, layout: Layout, metainfo_bytes: u64, name: &Path) -> Result<Plan, Refusal> {
        let (board, pieces) = (self.board.name, layout.piece_count());
        let pieces_max = self.board.pools.bits_kib * 1024 * 8;
        if pieces > pieces_max {
            let piece_bytes = HumanBytes(layout.piece_bytes.into());
            let problem = std::format!(
                "has {pieces} pieces of {piece_bytes}, and {board} has room for {pieces_max}"
            );
            return Err(Refusal::new(
                name.display(),
                problem,
                "choose larger ones with --piece-size",
            ));
        }
        let journal_bytes = 2 * 1024 * u64::from(self.board.disk.journal_kib);
        let journal = Span { at: u64::from(self.sizes.unit_kib) << 10, length: journal_bytes };
        let at = journal.end().next_multiple_of(SECTOR_BYTES);
        let metainfo = Span { at, length: metainfo_bytes };
        let at = metainfo.end().next_multiple_of(SECTOR_BYTES);
        let content = Span { at, length: layout.total_bytes };
        let image_bytes = u64::from(self.sizes.image_mib) << 20;
        if content.end() > image_bytes {
            let (is, fits) =
                (content.length.div_ceil(1 << 20), image_bytes.saturating_sub(at) >> 20);
            let problem =
                std::format!("is {is} MiB, and an image for {board} holds {fits} MiB of it");
            return Err(Refusal::new(name.display(), problem, "share parts of it"));
        }
        Ok(Plan { journal, metainfo, content })
    }

    /// Length of the file an image makes.
    fn file_bytes(&self, plan: &Plan) -> u64 {
        match self.sizes.whole_mib {
            // QEMU and some readers take no other card than one of such a size.
            0 => plan.content.end().next_power_of_two().max(1 << 20),
            whole_mib => u64::from(whole_mib) << 20,
        }
    }
}

/// Where everything behind the head lies.
struct Plan {
    journal: Span,
    metainfo: Span,
    content: Span,
}

/// Writes the image the owner asked for.
pub fn make(target: &Target, options: &Options, report: &mut Report) -> Result<(), Refusal> {
    let [path] = &options.paths[..] else {
        return Err(Refusal::new(
            "--for-board",
            "makes an image of one PATH",
            "name just that one",
        ));
    };
    let tracker = tracker_of(&options.trackers)?;
    let board = &options.board;
    let archive = Archive::open(&options.state, board)?;
    let (lanes, grounds) = (start_lanes(board)?, Grounds::start(board)?);
    smol::block_on(async {
        grounds.look_first(&archive).await;
        let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(no_signals)?;
        let mut workshop = Workshop { archive: &archive, lanes: &lanes };
        let interrupted = async {
            let _ = signals.next().await;
            let problem = "its making was interrupted";
            Err(Refusal::new(target.output.display(), problem, "start again to have it"))
        };
        let making = make_of(target, path, tracker, options, &mut workshop, report);
        let made = smol::future::or(interrupted, making).await;
        if made.is_err() {
            archive.ask(|state| state.discard_new_folders()).await;
        }
        made
    })
}

/// Takes up a share and writes its image.
async fn make_of(
    target: &Target,
    path: &Path,
    tracker: Option<String>,
    options: &Options,
    workshop: &mut Workshop<'_>,
    report: &mut Report,
) -> Result<(), Refusal> {
    let mut medium = Medium::open(&target.output, path)?;
    if let Some(layout) = layout_to_be(path, options).await? {
        // Better now than once all of it has been hashed; the hashes are all that is sure to come.
        let plan = target.plan(layout, u64::from(layout.piece_count()) * 20, path)?;
        medium.expect_room(&plan)?;
    }
    let wish = Wish::of(path, options);
    let share = workshop.open(wish, report).await?;
    if share.have.is_some() {
        report.share_warnings(&share);
        let problem = "does not hold all that the .torrent names, and an image does";
        return Err(Refusal::new(path.display(), problem, "fetch the rest of it first"));
    }
    let content = &share.content;
    let metainfo_bytes = content.metainfo.metadata().map(|metainfo| metainfo.len());
    let metainfo_bytes = metainfo_bytes.map_err(|error| unreadable(&share.torrent, error))?;
    let plan = target.plan(content.layout, metainfo_bytes, path)?;
    medium.expect_room(&plan)?;
    let tracker = tracker.or_else(|| usable_tracker(&share)).unwrap_or_default();
    let metainfo_crc = checksum(&content.metainfo, metainfo_bytes);
    let head = Head {
        board: target.board.name,
        info_hash: share.info_hash,
        layout: content.layout,
        private: share.private,
        metainfo: plan.metainfo,
        metainfo_crc: metainfo_crc.map_err(|error| unreadable(&share.torrent, error))?,
        info: content.info,
        pieces: content.pieces,
        content: plan.content,
        journal: plan.journal,
        tracker: &tracker,
        seed: seed()?,
    };
    let head = head.write().map_err(|error| refused_head(&tracker, error))?;
    report.begin_writing(&target.output, plan.content.end());
    let written = medium.write(target, &plan, &head, content, report).await;
    report.end();
    let bytes = written?;
    let path = medium.keep()?;
    let device = medium.device;
    report.image(&share, &ImageMade { board: &target.board, path: &path, bytes, device });
    Ok(())
}

/// Sizes of what is to be shared, before anything is hashed; nothing where taking it up will say
/// why there are none.
async fn layout_to_be(path: &Path, options: &Options) -> Result<Option<Layout>, Refusal> {
    if let Some(torrent) = &options.torrent {
        let Ok(file) = File::open(torrent) else { return Ok(None) };
        let summary = Summary::read(&mut FileSource(&file), &mut std::vec![0; WINDOW_BYTES]);
        return Ok(summary.ok().map(|summary| summary.layout));
    }
    let path = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
    let mut walk = Walk::new(&path, options.board.disk.walk_kib)?;
    let mut total_bytes = 0;
    while let Some(found) = walk.next_file().await? {
        total_bytes += found.length;
    }
    let piece_bytes = options.piece_bytes;
    let piece_bytes = piece_bytes.unwrap_or_else(|| author::piece_bytes_for(total_bytes));
    Ok((total_bytes > 0).then_some(Layout { total_bytes, piece_bytes }))
}

/// The one tracker an image can name, as the firmware reads it.
fn tracker_of(trackers: &[String]) -> Result<Option<String>, Refusal> {
    let refuse = |address: &String, problem, remedy| {
        Err(Refusal::new(std::format!("--tracker {address}"), problem, remedy))
    };
    match trackers {
        [] => Ok(None),
        [address] => match with_address(address) {
            Ok(address) => Ok(Some(address)),
            Err(problem) => refuse(address, problem, GOOD_TRACKER),
        },
        [_, second, ..] => refuse(second, "an image names one tracker", "leave this one out"),
    }
}

/// A tracker's URL with its port, if a firmware can speak to it: over IPv4, without names and TLS.
fn with_address(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text.trim()).map_err(|_| "is no URL")?;
    if !matches!(url.scheme(), "http" | "udp") {
        return Err("a firmware speaks no TLS");
    }
    let host = url.host_str().and_then(|host| host.parse::<Ipv4Addr>().ok());
    let host = host.ok_or("a firmware asks nobody for names and speaks IPv4 only")?;
    let port = url.port_or_known_default().ok_or("names no port")?;
    let rest = &url[Position::BeforePath..Position::AfterQuery];
    let text = std::format!("{}://{host}:{port}{rest}", url.scheme());
    Some(text).filter(|text| text.len() <= TRACKER_BYTES_MAX).ok_or("is too long for an image")
}

/// The first tracker in a `.torrent` that a firmware can tell.
fn usable_tracker(share: &Share) -> Option<String> {
    let usable = share.trackers.iter().find_map(|(_, address)| with_address(address).ok());
    if usable.is_none() && !share.trackers.is_empty() {
        warn!("{}: none of its trackers has an IPv4 address: the board tells none", share.name);
    }
    usable
}

/// Chance for a board that has none of its own.
fn seed() -> Result<[u8; 16], Refusal> {
    let mut seed = [0; 16];
    let filled = getrandom(&mut seed, GetRandomFlags::empty()) == Ok(seed.len());
    let problem = "the kernel gives no random numbers";
    filled.then_some(seed).ok_or_else(|| Refusal::new("image", problem, "try again a little later"))
}

/// CRC-32 of a file's first `length` bytes.
fn checksum(file: &File, length: u64) -> io::Result<u32> {
    let (mut hasher, mut buffer, mut at) = (crc32fast::Hasher::new(), [0; 4096], 0);
    while at < length {
        let part = (length - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..part], at)?;
        hasher.update(&buffer[..part]);
        at += part as u64;
    }
    Ok(hasher.finalize())
}

fn refused_head(tracker: &str, error: HeadError) -> Refusal {
    Refusal::new(std::format!("--tracker {tracker}"), error, GOOD_TRACKER)
}

/// Remedy for a tracker that no firmware can speak to.
const GOOD_TRACKER: &str = "give its address, as udp://ADDRESS:PORT or http://ADDRESS:PORT/PATH";

/// A tracker's URL in the head: what the other fields leave of it is a little more.
const TRACKER_BYTES_MAX: usize = 300;
