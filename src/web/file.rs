//! Files of a torrent, as a body.

use super::Web;
use super::gate::Visitor;
use super::reply::{Body, Reply, Status};
use crate::engine::swarm::fetch::Fetching as _;
use crate::engine::units::{InfoHash, PieceIndex, Span, TorrentSlot};
use crate::service::content::{Content, ContentError, Opened, look};
use crate::service::handout::{self, Errand, Outcome};
use crate::service::lanes::{Done, Job};
use crate::service::rest;
use async_io::Async;
use std::boxed::Box;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::string::String;
use std::sync::Arc;

/// A torrent whose content can be had: it is active, and stays so while this is held.
#[derive(Clone)]
pub struct OnAir {
    /// Its place.
    pub slot: TorrentSlot,
    /// Its name on the network.
    pub info_hash: InfoHash,
    /// It is sent to where caps hold only if the owner says so.
    pub in_house: bool,
    /// Where its content is.
    pub content: Arc<Content>,
}

/// Part of a file, and what is added behind it.
pub struct Sent {
    file: Arc<Opened>,
    part: Span,
    /// What it belongs to, when pieces of that may be missing.
    of: Option<OnAir>,
    /// Words behind the part.
    tail: String,
}

impl Sent {
    /// Part of a file of a torrent.
    pub fn of(torrent: OnAir, file: Opened, part: Span) -> Sent {
        Sent { file: Arc::new(file), part, of: Some(torrent), tail: String::new() }
    }

    /// The front of any file of ours, with some words behind.
    pub fn front_of(file: OwnedFd, bytes: u64, tail: String) -> io::Result<Sent> {
        let (length, stamp) = look(&file)?;
        let span = Span { at: 0, length };
        let file = Arc::new(Opened { span, file, stamp, growing: false });
        Ok(Sent { file, part: Span { at: 0, length: bytes.min(length) }, of: None, tail })
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.part.length + self.tail.len() as u64
    }
}

impl Web<'_, '_, '_> {
    /// Has a torrent be active. `Err` is what is answered when it cannot be had.
    pub async fn on_air(&self, visitor: &Visitor, info_hash: InfoHash) -> Result<OnAir, Reply> {
        let (service, keeper) = (self.steward.service, self.steward.keeper);
        let active = service.swarm.borrow().find_open(&info_hash.on_the_wire());
        let slot = match active {
            // As for peers: of what is active nobody asks the archive.
            Some(slot) => slot,
            None => match rest::wake(service, keeper, info_hash).await {
                Ok(Some(slot)) => slot,
                Ok(None) => return Err(self.why_not_on_air(info_hash).await),
                Err(refusal) => return Err(Reply::refused(Status::BUSY, &refusal)),
            },
        };
        let content = service.contents.borrow()[slot.index()].clone();
        let content = content.filter(|content| content.file_count > 0);
        let content = content.ok_or_else(|| {
            let words = "nobody has told yet what is in it: try again when somebody has";
            Reply::words(Status::CONFLICT, words)
        })?;
        Ok(OnAir { slot, info_hash, in_house: visitor.in_house, content })
    }

    async fn why_not_on_air(&self, info_hash: InfoHash) -> Reply {
        let look = move |state: &mut crate::service::state::State<'_>| {
            let entry = state.get(&info_hash)?;
            Some((entry.paused, state.is_asleep(&entry), state.volume_words(&entry)))
        };
        let words = match self.steward.keeper.archive.ask(look).await {
            None => return super::shares::gone(info_hash),
            Some((true, ..)) => "its owner has paused it: ask for it later".into(),
            Some((_, true, volume)) => {
                let volume = volume.unwrap_or_else(|| "the disk it lies on".into());
                std::format!("{volume} is not plugged in: ask for it later")
            }
            Some(_) => "every place is taken just now: ask for it in a minute".into(),
        };
        Reply::words(Status::BUSY, &words).with("Retry-After: 60")
    }

    /// Finds a file of a torrent by its path. `Err` is what is answered when it cannot be had.
    pub async fn find(&self, torrent: &OnAir, path: String) -> Result<handout::Found, Reply> {
        let content = Arc::clone(&torrent.content);
        let found = self.hand_out(Errand::Find { content, path }).await;
        let Outcome::Found(found) = found else { return Err(broken()) };
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(Reply::words(Status::NOT_FOUND, "there is no such file in it")),
            Err(ContentError::Changed(_)) => {
                let words = "this file has changed or gone since it was shared";
                Err(Reply::words(Status::GONE, words))
            }
            Err(ContentError::Unreadable(_, error) | ContentError::NoMetadata(error)) => {
                Err(Reply::words(Status::BUSY, &std::format!("it cannot be read now: {error}")))
            }
        }
    }

    /// Has a lane do something for a body.
    pub async fn hand_out(&self, errand: Errand) -> Outcome {
        let job = Job::HandOut(errand);
        match self.steward.service.on_a_lane(job, "a lane for the page").await {
            Done::HandedOut(outcome) => outcome,
            _ => unreachable!("a lane answers what it was asked"),
        }
    }

    /// How many bytes of a run of content are here and verified, from its front. A fetch is told
    /// that somebody waits for what follows them.
    pub fn here_from(&self, torrent: &OnAir, run: Span) -> Option<u64> {
        let mut swarm = self.steward.service.swarm.borrow_mut();
        if swarm.find_open(&torrent.info_hash.on_the_wire()) != Some(torrent.slot) {
            return None;
        }
        let layout = torrent.content.layout;
        let mut end = run.at;
        for piece in layout.pieces_of(run) {
            if !swarm.offers(torrent.slot, piece) {
                swarm.fetcher.await_piece(torrent.slot, Some(piece));
                break;
            }
            let index = PieceIndex(piece);
            end = layout.offset(index) + u64::from(layout.piece_len(index));
        }
        Some(end.min(run.end()) - run.at)
    }

    /// Whether all of a run is here, or on its way.
    pub fn can_be_had(&self, torrent: &OnAir, run: Span) -> bool {
        let swarm = self.steward.service.swarm.borrow();
        let mut pieces = torrent.content.layout.pieces_of(run);
        swarm.fetcher.is_fetched(torrent.slot)
            || pieces.all(|piece| swarm.offers(torrent.slot, piece))
    }

    /// Sends a body.
    pub async fn send_file(&self, stream: &Arc<Async<TcpStream>>, sent: &Sent) -> io::Result<()> {
        let outcome = self.send_part(stream, sent).await;
        if let Some(torrent) = &sent.of {
            self.steward.service.swarm.borrow_mut().fetcher.await_piece(torrent.slot, None);
        }
        outcome?;
        self.write(stream, sent.tail.as_bytes()).await
    }

    async fn send_part(&self, stream: &Arc<Async<TcpStream>>, sent: &Sent) -> io::Result<()> {
        let (mut at, end) = (sent.part.at, sent.part.end());
        let (mut looked, mut cached_to) = (at, at);
        while at < end {
            let mut bytes = (end - at).min(CHUNK_BYTES);
            if let Some(torrent) = &sent.of {
                bytes = self.wait_for(torrent, sent.file.span.at + at, bytes).await?;
                bytes = self.allowance(torrent, bytes).await;
            }
            // As far as the ends of a run tell: what is read ahead lies there in one piece.
            let is_next = at > sent.part.at && at == cached_to;
            let is_next = is_next || handout::is_cached(&sent.file, at);
            if at >= cached_to && is_next && handout::is_cached(&sent.file, at + bytes - 1) {
                cached_to = at + bytes;
            }
            // What was found in the cache is not looked for again each time the socket has room.
            let is_cached = at < cached_to;
            bytes = if is_cached { bytes.min(cached_to - at) } else { bytes };
            let taken = match is_cached {
                true => handout::send(stream, &sent.file, at, bytes as usize),
                false => {
                    let (stream, file) = (Arc::clone(stream), Arc::clone(&sent.file));
                    let errand = Errand::Send { stream, file, at, bytes: bytes as usize };
                    match self.hand_out(errand).await {
                        Outcome::Sent(taken) => taken,
                        _ => unreachable!("a lane answers what it was asked"),
                    }
                }
            };
            let is_full = match taken {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => {
                    at += taken as u64;
                    sent.of.iter().for_each(|torrent| self.note_sent(torrent, taken));
                    (taken as u64) < bytes
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) => return Err(error),
            };
            // What was hashed and what lies there now are not mixed.
            if at - looked >= LOOK_BYTES || at == end {
                looked = at;
                if !handout::is_as_it_was(&sent.file) {
                    return Err(io::Error::other("the file has changed meanwhile"));
                }
                smol::future::yield_now().await;
            }
            if is_full && at < end {
                self.wait_for_room(stream, sent).await?;
            }
        }
        Ok(())
    }

    /// Waits until whoever reads takes some more. Nobody who does not keeps a torrent on the air that
    /// is to be taken off.
    async fn wait_for_room(&self, stream: &Async<TcpStream>, sent: &Sent) -> io::Result<()> {
        for _ in 0..STALLED_MS / STALLED_LOOK_MS {
            match self.in_time(stream.writable(), STALLED_LOOK_MS).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                over => return over,
            }
            if sent.of.as_ref().is_some_and(|torrent| !self.is_open(torrent)) {
                return Err(off_the_air());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Whether a torrent is active and not being taken off the air.
    fn is_open(&self, torrent: &OnAir) -> bool {
        let swarm = self.steward.service.swarm.borrow();
        swarm.find_open(&torrent.info_hash.on_the_wire()) == Some(torrent.slot)
    }

    /// Fails once a torrent is being taken off the air.
    pub async fn until_off_the_air(&self, torrent: &OnAir) -> io::Result<()> {
        while self.is_open(torrent) {
            let clock = &self.steward.service.clock;
            clock.sleep(STALLED_LOOK_MS, "somebody at the page").await;
        }
        Err(off_the_air())
    }

    /// Waits until some of so many bytes may go; how many.
    pub async fn allowance(&self, torrent: &OnAir, bytes: u64) -> u64 {
        let service = self.steward.service;
        if !service.is_capped(torrent.in_house) {
            return bytes;
        }
        loop {
            let now = service.clock.now();
            match service.up.allowance(torrent.slot, now) {
                Ok(allowed) => return allowed.min(bytes),
                Err(deadline) => service.clock.sleep(deadline.at.since(now), deadline.why).await,
            }
        }
    }

    /// So many bytes of a torrent went.
    pub fn note_sent(&self, torrent: &OnAir, bytes: usize) {
        let service = self.steward.service;
        if service.is_capped(torrent.in_house) {
            service.up.take(torrent.slot, bytes, service.clock.now());
        }
        let mut swarm = service.swarm.borrow_mut();
        if swarm.find(&torrent.info_hash.on_the_wire()) == Some(torrent.slot) {
            swarm.count_handed_out(torrent.slot, bytes as u64);
        }
    }

    /// Waits until something of a run is here and verified; how much of it.
    async fn wait_for(&self, torrent: &OnAir, at: u64, bytes: u64) -> io::Result<u64> {
        let run = Span { at, length: bytes };
        for _ in 0..AWAITED_MS / AWAITED_LOOK_MS {
            match self.here_from(torrent, run) {
                None => return Err(off_the_air()),
                Some(0) if !self.can_be_had(torrent, run) => {
                    return Err(io::Error::other("part of it is not here"));
                }
                Some(0) => {
                    let clock = &self.steward.service.clock;
                    clock.sleep(AWAITED_LOOK_MS, "a piece somebody watches").await;
                }
                Some(bytes) => return Ok(bytes),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Reply {
    /// With part of a file.
    pub fn file(status: Status, kind: &'static str, sent: Sent) -> Reply {
        Reply::new(status, kind, Body::File(Box::new(sent)))
    }
}

fn off_the_air() -> io::Error {
    io::Error::other("it is not on the air any more")
}

fn broken() -> Reply {
    Reply::words(Status::BUSY, "it cannot be read now: try again")
}

/// Given to the kernel in one call.
const CHUNK_BYTES: u64 = 2 << 20;

/// Between two looks whether a file is what it was.
const LOOK_BYTES: u64 = 4 << 20;

/// Who takes nothing for so long is let go: a player that pauses asks anew.
pub(super) const STALLED_MS: u64 = 120_000;

/// Between two looks whether what is read so slowly is to go on.
const STALLED_LOOK_MS: u64 = 5_000;

/// A piece is waited for so long; whoever still wants it asks again.
const AWAITED_MS: u64 = 120_000;

/// Between two looks whether it has come.
const AWAITED_LOOK_MS: u64 = 100;
