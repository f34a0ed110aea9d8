//! A torrent of which only the name is known: a magnet link, until peers have given its metadata.
//!
//! ```text
//! link -> a place in the swarm, of nothing -> peers are found by name -> engine/swarm/fetch/metadata
//!      -> its bytes into a .torrent of our own -> a lane: is its hash the name? -> fetched like any
//! ```
//!
//! The `.torrent` is begun with the link's trackers in front, so that what comes of it is as good
//! as one from elsewhere, and what is known of it afterwards is known for good.

use super::open::{Errand, Taken, Wish};
use super::{Goal, Keeper};
use crate::engine::limits::{MAGNET_BYTES_MAX, METADATA_PIECE_BYTES, NAME_BYTES_MAX};
use crate::engine::magnet::{Encoded, Magnet};
use crate::engine::metainfo::{Layout, author, names};
use crate::engine::swarm::fetch::FetchFull;
use crate::engine::swarm::fetch::Order;
use crate::engine::swarm::fetch::store::Store;
use crate::engine::swarm::torrent::{Have, Torrent};
use crate::engine::units::{InfoHash, Span, TorrentSlot};
use crate::service::content::Content;
use crate::service::draft::{self, Counted, torrent_name};
use crate::service::lanes::{Job, Receipt};
use crate::service::life::take_in::{fetch_refused, have_of, magnet_of};
use crate::service::options::FetchOptions;
use crate::service::report::Report;
use crate::service::rest;
use crate::service::share::Workshop;
use crate::service::state::{State, refused};
use crate::service::wanted::Wanted;
use crate::service::{Refusal, Service, announcer};
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

/// What a magnet link says.
#[derive(Clone, Debug)]
pub struct Lead {
    /// The torrent's name on the network.
    pub info_hash: InfoHash,
    /// Its name for people, made safe.
    pub name: String,
    /// Trackers to ask.
    pub trackers: Vec<String>,
    /// Peers to begin with.
    pub peers: Vec<SocketAddr>,
    /// Web servers that have its content (BEP 19).
    pub web_seeds: Vec<String>,
}

impl Lead {
    /// Reads a link.
    pub fn parse(link: &str) -> Result<Lead, Refusal> {
        let magnet = Magnet::parse(link)
            .map_err(|error| Refusal::new(link, error, "copy the whole link again"))?;
        if magnet.is_v2_only() {
            let problem = "names a torrent of version 2 only, which is not fetched yet";
            return Err(Refusal::new(link, problem, "look for a link with xt=urn:btih"));
        }
        let mut room = std::vec![0; MAGNET_BYTES_MAX];
        let mut safe = heapless::String::<NAME_BYTES_MAX>::new();
        let named = magnet.name().and_then(|name| name.decode(&mut room).ok());
        match named {
            Some(name) => names::make_safe(name, &mut safe),
            None => names::make_safe(magnet.info_hash.to_string().as_bytes(), &mut safe),
        }
        let mut text = |what: &str, encoded: Encoded<'_>| match encoded.text(&mut room) {
            Ok(text) => Some(text.to_string()),
            Err(error) => {
                warn!("{what} {}: {error}", encoded.raw());
                None
            }
        };
        let trackers = magnet.trackers().filter_map(|one| text("tracker", one)).collect();
        let web_seeds = magnet.web_seeds().filter_map(|one| text("web seed", one)).collect();
        let mut peers = Vec::new();
        for peer in magnet.peers() {
            match peer {
                Ok(peer) => peers.push(peer),
                Err(skipped) => warn!("peer {}: is no address with a port", skipped.raw()),
            }
        }
        let (info_hash, name) = (magnet.info_hash, safe.as_str().into());
        Ok(Lead { info_hash, name, trackers, peers, web_seeds })
    }
}

/// A torrent whose metadata is sought.
pub struct Hunt {
    torrent: TorrentSlot,
    lead: Lead,
    file: PathBuf,
    /// How it is to be fetched.
    fetch: FetchOptions,
}

impl Hunt {
    /// Its place in the swarm.
    pub fn torrent(&self) -> TorrentSlot {
        self.torrent
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.lead.name
    }
}

/// Begins to look for the metadata of a torrent.
pub async fn seek(service: &Service<'_>, keeper: &Keeper<'_>, lead: Lead) -> Result<(), Refusal> {
    let (info_hash, wanted) = (lead.info_hash, Wanted::of_lead(&lead, &keeper.options.fetch));
    let begin = move |state: &mut State<'_>| {
        state.keep_wanted(&info_hash, &wanted)?;
        state.new_folder()
    };
    let folder = keeper.archive.ask(begin).await?;
    rest::make_room(service, keeper).await;
    // Two may have asked for it at once: from here to its place nobody comes between.
    let is_active = service.swarm.borrow().find(&info_hash.on_the_wire()).is_some();
    let file = folder.join(torrent_name(&lead.name));
    let sought = if is_active { Ok(()) } else { seek_into(service, keeper, lead, file) };
    if is_active || sought.is_err() {
        // Should it stay, the next start clears it away.
        let _ = std::fs::remove_dir_all(folder);
    }
    sought
}

fn seek_into(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    lead: Lead,
    file: PathBuf,
) -> Result<(), Refusal> {
    let (fetch, info_hash) = (keeper.options.fetch.clone(), lead.info_hash);
    let content = begin_file(&file, &lead)?;
    let torrent = Torrent {
        info_hash,
        layout: UNKNOWN,
        metadata_bytes: 0,
        have: Have::Nothing,
        private: false,
        sent_bytes: 0,
    };
    let slot = service.swarm.borrow_mut().seek(torrent, keeper.order(), announcer::random());
    let slot = slot.ok_or_else(|| fetch_refused(&lead.name, FetchFull::Places))?;
    service.hold_to_limit(slot, &info_hash);
    service.contents.borrow_mut()[slot.index()] = Some(Arc::new(content));
    let now = service.clock.now();
    for peer in lead.peers.iter().chain(&fetch.peers) {
        service.swarm.borrow_mut().candidates.note_named(slot, *peer, now);
    }
    service.ring_nudged();
    if !service.lan_only {
        let named = lead.trackers.iter().map(|tracker| (0, tracker.as_str()));
        // Nobody knows yet how much is left.
        keeper.announcer.add(service, slot, named, false, 1);
        for tracker in &keeper.options.trackers {
            let named = std::iter::once((0, tracker.as_str()));
            keeper.announcer.add(service, slot, named, true, 1);
        }
    }
    info!("{}: looking for peers that know what it is", lead.name);
    service.fetched.hunts.borrow_mut().push(Hunt { torrent: slot, lead, file, fetch });
    service.announce_next(info_hash);
    Ok(())
}

/// The front of the `.torrent` that the metadata is written into.
fn begin_file(path: &std::path::Path, lead: &Lead) -> Result<Content, Refusal> {
    let mut head = Counted::create(path)?;
    let trackers = lead.trackers.iter().map(String::as_str);
    author::write_head(&mut head, trackers).map_err(|error| refused(path, error))?;
    let at = head.length();
    drop(head.finish(path)?);
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let metainfo = open().map_err(|error| refused(path, error))?;
    let extents = metainfo.try_clone().map_err(|error| refused(path, error))?;
    Ok(Content {
        root: path.to_path_buf(),
        anchor: None,
        metainfo,
        extents,
        file_count: 0,
        info: Span { at, length: 0 },
        pieces: Span::default(),
        layout: UNKNOWN,
        growing: true,
    })
}

/// Writes what has come of the metadata: on a lane.
pub fn write(content: &Content, stores: &[Store], buffer: &[u8]) -> io::Result<()> {
    stores.iter().try_for_each(|store| {
        let piece_at = u64::from(store.piece.0) * u64::from(METADATA_PIECE_BYTES);
        let part = &buffer[store.at as usize..][..store.length as usize];
        let at = content.info.at + piece_at + u64::from(store.begin);
        content.metainfo.write_all_at(part, at)
    })
}

/// Whether metadata of so many bytes is what the torrent's name is the hash of; if so, the file is
/// closed behind it. On a lane.
pub fn judge(content: &Content, bytes: u32, name: InfoHash) -> io::Result<bool> {
    let info = Span { length: bytes.into(), ..content.info };
    if draft::info_hash_of(&content.metainfo, info)? != name {
        return Ok(false);
    }
    content.metainfo.set_len(info.end())?;
    content.metainfo.write_all_at(b"e", info.end())?;
    content.metainfo.sync_all()?;
    Ok(true)
}

/// Hands metadata that is all there to a lane to be judged.
pub fn judge_what_has_come(service: &Service<'_>, at_work: &mut Vec<Receipt>) {
    loop {
        let come = service.swarm.borrow_mut().fetcher.take_metadata();
        let Some((torrent, bytes)) = come else { return };
        let name = service.swarm.borrow().torrent(torrent).info_hash;
        let content = service.content(torrent);
        match service.lanes.submit(Job::JudgeMetadata { torrent, content, bytes, name }) {
            Ok(receipt) => at_work.push(receipt),
            Err(_) => {
                let now = service.clock.now();
                service.swarm.borrow_mut().fetcher.seek_again(torrent, now);
            }
        }
    }
}

/// A lane has judged the metadata of a torrent.
pub fn judged(service: &Service<'_>, torrent: TorrentSlot, result: io::Result<bool>) {
    let now = service.clock.now();
    match result {
        Ok(true) => {
            service.fetched.found.borrow_mut().push(torrent);
            service.fetched.found_bell.ring();
        }
        Ok(false) => service.swarm.borrow_mut().reject_metadata(torrent, now),
        Err(error) => {
            service.complain("metadata cannot be read back", &error);
            service.swarm.borrow_mut().fetcher.seek_again(torrent, now);
        }
    }
    service.ring_nudged();
}

/// Takes up torrents whose metadata has been found, for ever.
pub async fn run(service: &Service<'_>, keeper: &Keeper<'_>, report: &Report) {
    loop {
        // It counts as found until it has been taken up: it is not done before.
        let next = service.fetched.found.borrow().last().copied();
        let Some(torrent) = next else {
            service.fetched.found_bell.rung().await;
            continue;
        };
        let hunt = {
            let mut hunts = service.fetched.hunts.borrow_mut();
            let at = hunts.iter().position(|hunt| hunt.torrent == torrent);
            at.map(|at| hunts.swap_remove(at))
        };
        let taken_up = match &hunt {
            Some(hunt) => take_up(service, keeper, report, hunt).await,
            None => Ok(()),
        };
        if let Err(refusal) = &taken_up {
            // Before it counts as found no more: else all that was asked for would seem to be there.
            service.fetched.fail(refusal.clone());
        }
        service.fetched.found.borrow_mut().retain(|other| *other != torrent);
        if let (Some(hunt), Err(refusal)) = (hunt, taken_up) {
            if service.fetched.put_off(hunt.lead.info_hash, &refusal) {
                warn!("{refusal}");
            }
            crate::service::report::trouble(
                &hunt.lead.info_hash,
                &refusal.to_string(),
                report.is_json(),
            );
            give_up(service, keeper, &hunt).await;
        }
        service.fetched.settled.ring();
    }
}

/// Others may have the place of what is known by now and cannot be fetched.
async fn give_up(service: &Service<'_>, keeper: &Keeper<'_>, hunt: &Hunt) {
    if let Some(folder) = hunt.file.parent() {
        // Should it stay, the next start clears it away.
        let _ = std::fs::remove_dir_all(folder);
    }
    if let Err(refusal) = rest::take_off_the_air(service, keeper, hunt.lead.info_hash).await {
        warn!("{refusal}");
    }
    service.fetched.place_free.ring();
}

async fn take_up(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    report: &Report,
    hunt: &Hunt,
) -> Result<(), Refusal> {
    let fetch = &hunt.fetch;
    let mut workshop = Workshop { archive: keeper.archive, lanes: &service.lanes };
    let wish = Wish { torrent: &hunt.file, fetch };
    let Taken { share, errand, .. } = workshop.fetch(wish, &mut ()).await?;
    report.metadata(&share);
    let slot = hunt.torrent;
    let have = have_of(service, &share)?.0;
    let found = Torrent {
        info_hash: share.info_hash,
        layout: share.content.layout,
        metadata_bytes: share.content.info.length as u32,
        have,
        private: share.private,
        sent_bytes: 0,
    };
    let wanted = |piece: u32| errand.as_ref().is_some_and(|errand: &Errand| errand.wants(piece));
    service.contents.borrow_mut()[slot.index()] = Some(Arc::clone(&share.content));
    let revealed = service.swarm.borrow_mut().reveal(slot, found, wanted);
    revealed.map_err(|full| fetch_refused(&share.name, full))?;
    let named = fetch.web_seeds.iter().map(|url| (url.as_str(), true));
    let told = hunt.lead.web_seeds.iter().map(|url| (url.as_str(), false));
    service.webseeds.add_all(service, slot, &share.content, named.chain(told));
    if let Some(folder) = hunt.file.parent() {
        // Its work is done; should it stay, the next start clears it away.
        let _ = std::fs::remove_dir_all(folder);
    }
    let magnet = magnet_of(service, &share, keeper.options);
    match errand {
        None => report.share(&share, &magnet),
        Some(errand) => {
            let goal = Goal::new(slot, &share, errand);
            report.added(&share, &magnet, &goal);
            service.fetched.goals.borrow_mut().push(goal);
            service.fetched.hold(service);
            service.grounds.asked.ring();
        }
    }
    service.clock.ring(service.duties.fetch);
    service.ring_nudged();
    Ok(())
}

impl Keeper<'_> {
    /// In which order the owner wants pieces.
    pub fn order(&self) -> Order {
        if self.options.fetch.sequential { Order::Sequential } else { Order::Rarest }
    }
}

/// The layout of a torrent that is nothing but a name.
const UNKNOWN: Layout = Layout { total_bytes: 0, piece_bytes: METADATA_PIECE_BYTES };
