//! What is said of a torrent, and of the box.

use super::add::WAITS;
use super::{Meant, Steward};
use crate::engine::library::{Entry, Facts};
use crate::engine::metainfo::Layout;
use crate::engine::swarm::roster::Member;
use crate::engine::swarm::torrent::Have;
use crate::engine::units::{InfoHash, PieceIndex, Span, TorrentSlot, has_bit};
use crate::service::Refusal;
use crate::service::announcer::TrackerSeen;
use crate::service::control::answer::{
    Announces, Answer, Detail, FileItem, Item, Memory, Peers, Reach, State as How, Stats, Torrents,
    TrackerItem, VolumeItem, WakeUps, Written,
};
use crate::service::control::message::{List, Show};
use crate::service::control::server::{Reply, Unanswered};
use crate::service::fetch::progress::Progress;
use crate::service::known::{DAMAGED, Known};
use crate::service::lan::magnet;
use crate::service::state::State;
use crate::service::volume::kept::Told;
use crate::service::walk::LeftOut;
use crate::service::wanted::Wanted;
use std::boxed::Box;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::time::UNIX_EPOCH;
use std::vec::Vec;

/// What a list says of a torrent, as far as the state folder knows it.
pub struct Outline {
    name: String,
    root: PathBuf,
    bytes: u64,
    here_bytes: u64,
    /// The volume its content is on is away.
    asleep: bool,
    /// Its files in the state folder have been found damaged.
    damaged: bool,
}

impl State<'_> {
    /// What the state folder knows of a torrent.
    pub fn outline(&self, entry: &Entry) -> Option<Outline> {
        self.with_facts(entry, |facts, folder| Outline {
            name: facts.torrent.strip_suffix(".torrent").unwrap_or(facts.torrent).to_string(),
            root: match self.place_of(entry, Path::new(facts.root)) {
                Some(place) => place.root,
                None => PathBuf::from(facts.root),
            },
            bytes: facts.layout.total_bytes,
            here_bytes: here_bytes(entry, facts, folder),
            asleep: self.is_asleep(entry),
            damaged: self.spoiled.holds(&entry.info_hash),
        })
    }
}

/// What is recorded of a fetch: a bit for each piece.
fn recorded(folder: &Path, layout: &Layout) -> Vec<u8> {
    let record = Progress::open(folder, layout.bitfield_bytes());
    record.map(|record| record.verified.to_vec()).unwrap_or_default()
}

/// Bytes of a torrent that are here, as far as is recorded.
fn here_bytes(entry: &Entry, facts: &Facts<'_>, folder: &Path) -> u64 {
    let bits = match (entry.fetching, facts.have_crc) {
        (true, _) => recorded(folder, &facts.layout),
        (false, Some(_)) => fs::read(folder.join("have")).unwrap_or_default(),
        (false, None) => return facts.layout.total_bytes,
    };
    let here = |piece: &u32| has_bit(&bits, *piece);
    let pieces = (0..facts.layout.piece_count()).filter(here);
    pieces.map(|piece| u64::from(facts.layout.piece_len(PieceIndex(piece)))).sum()
}

impl Steward<'_, '_> {
    /// A page of the library.
    pub(super) async fn list(
        &self,
        list: List,
        reply: &mut Reply<'_>,
    ) -> Result<Option<u64>, Unanswered> {
        let wanted = list.filter.to_lowercase();
        let mut after = list.after.map(|after| u32::try_from(after).unwrap_or(u32::MAX));
        let mut left = list.max;
        loop {
            let many = left.clamp(1, OUTLINES_MAX);
            let page = self.keeper.archive.ask(move |state| outlines(state, after, many)).await;
            // Of a library that one page holds a list is a snapshot.
            let is_last = page.len() < many as usize;
            for (slot, entry, outline) in page {
                after = Some(slot);
                let item = self.item_of(&entry, outline.as_ref());
                if !item.name.to_lowercase().contains(&wanted) {
                    continue;
                }
                reply.item(Answer::Torrent(item)).await?;
                left -= 1;
                if left == 0 {
                    return Ok(after.map(u64::from));
                }
            }
            if is_last {
                self.list_hunts(&wanted, reply).await?;
                return Ok(None);
            }
        }
    }

    /// Torrents of which only the name is known are at the end.
    async fn list_hunts(&self, wanted: &str, reply: &mut Reply<'_>) -> Result<(), Unanswered> {
        let known = self.keeper.archive.ask(nameless).await;
        for (info_hash, sought) in known {
            if sought.name.to_lowercase().contains(wanted) {
                reply.item(Answer::Torrent(self.sought(info_hash, &sought))).await?;
            }
        }
        Ok(())
    }

    /// What a list says of a torrent.
    pub(super) async fn item(&self, meant: &Meant) -> Item {
        let entry = match meant {
            Meant::Known(entry) => *entry,
            Meant::Sought(info_hash, wanted) => return self.sought(*info_hash, wanted),
        };
        let outline = self.keeper.archive.ask(move |state| state.outline(&entry)).await;
        self.item_of(&entry, outline.as_ref())
    }

    fn item_of(&self, entry: &Entry, outline: Option<&Outline>) -> Item {
        let slot = self.service.swarm.borrow().find(&entry.info_hash.on_the_wire());
        let (peers, sent_now) = slot.map_or((0, 0), |slot| self.peers_of(slot));
        let goals = self.service.fetched.goals.borrow();
        let goal = slot.and_then(|slot| goals.iter().find(|goal| goal.torrent == slot));
        let (wanted_bytes, here_bytes) = match (goal, outline) {
            (Some(goal), _) => (goal.wanted_bytes, goal.here_bytes),
            (None, Some(outline)) => (outline.bytes, outline.here_bytes),
            (None, None) => (0, 0),
        };
        let trouble = match (goal.and_then(|goal| goal.trouble_words()), outline) {
            (Some(words), _) => Some(words),
            (None, None) => Some(DAMAGED.into()),
            (None, Some(outline)) if outline.damaged => Some(DAMAGED.into()),
            (None, Some(outline)) if outline.asleep => None,
            (None, Some(_)) if entry.fetching && slot.is_none() && !entry.paused => {
                Some(self.service.fetched.why_put_off(&entry.info_hash).unwrap_or(WAITS.into()))
            }
            (None, Some(_)) => None,
        };
        let state = match () {
            () if entry.paused => How::Paused,
            () if outline.is_none_or(|outline| outline.damaged) => How::Trouble,
            () if outline.is_some_and(|outline| outline.asleep) => How::Asleep,
            () if goal.is_some_and(|goal| goal.trouble_words().is_some()) => How::Trouble,
            () if entry.fetching => How::Fetching,
            () if peers > 0 => How::Serving,
            () => How::Resting,
        };
        Item {
            info_hash: entry.info_hash,
            name: outline.map_or_else(|| entry.info_hash.to_string(), |known| known.name.clone()),
            bytes: outline.map_or(0, |outline| outline.bytes),
            state,
            trouble,
            wanted_bytes,
            here_bytes,
            sent_bytes: entry.sent_bytes + sent_now,
            peers,
            added_s: entry.added_s,
            path: outline.map_or_else(String::new, |known| known.root.display().to_string()),
        }
    }

    /// A torrent of which only the name is known.
    fn sought(&self, info_hash: InfoHash, wanted: &Wanted) -> Item {
        let slot = self.service.swarm.borrow().find(&info_hash.on_the_wire());
        let trouble = match self.service.fetched.why_put_off(&info_hash) {
            Some(why) => Some(why),
            None => (slot.is_none() && !wanted.paused).then(|| WAITS.to_string()),
        };
        let state = match () {
            () if wanted.paused => How::Paused,
            () if self.service.fetched.why_put_off(&info_hash).is_some() => How::Trouble,
            () => How::Fetching,
        };
        Item {
            info_hash,
            name: wanted.name.clone(),
            bytes: 0,
            state,
            trouble,
            wanted_bytes: 0,
            here_bytes: 0,
            sent_bytes: 0,
            peers: slot.map_or(0, |slot| self.peers_of(slot).0),
            added_s: 0,
            path: String::new(),
        }
    }

    /// How many peers are connected for a torrent, and what was sent of it since it is active.
    fn peers_of(&self, slot: TorrentSlot) -> (u32, u64) {
        let swarm = self.service.swarm.borrow();
        let count = swarm.members().filter(|member| member.torrent == slot).count();
        (count as u32, swarm.torrent(slot).sent_bytes)
    }

    /// All that is known of a torrent.
    pub async fn detail(&self, info_hash: InfoHash) -> Result<Box<Detail>, Refusal> {
        let find = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash);
            let known = entry.map(|entry| (entry, state.load(&entry), state.outline(&entry)));
            let volume = entry.and_then(|entry| state.volume_words(&entry));
            (known, state.wanted(&info_hash), volume)
        };
        let (known, wanted, volume) = self.keeper.archive.ask(find).await;
        let is_known = known.is_some();
        let Some((entry, Some(known), outline)) = known else {
            let wanted = wanted.ok_or_else(|| match is_known {
                true => Refusal::new(info_hash, "has damaged files in the state folder", ANEW),
                false => Refusal::new(info_hash, UNKNOWN, "look at `perennial list`"),
            })?;
            let lead = wanted.lead(info_hash);
            let link =
                magnet(&info_hash, &lead.name, 0, lead.trackers.iter(), lead.peers.into_iter());
            return Ok(Box::new(Detail {
                torrent: self.sought(info_hash, &wanted),
                files: 0,
                wanted_files: 0,
                piece_bytes: 0,
                pieces: 0,
                pieces_here: 0,
                complete_peers: 0,
                verified_s: None,
                limit_up: None,
                limit_down: None,
                sequential: false,
                private: false,
                magnet: link,
                torrent_file: None,
                volume: None,
                moving: None,
            }));
        };
        let torrent = self.item_of(&entry, outline.as_ref());
        let layout = known.content.layout;
        let (files, private) = (u64::from(known.content.file_count), known.private);
        let wanted_files = if entry.fetching { known.made_files() } else { files };
        let pieces_here = self.pieces_here(&entry, &known, torrent.here_bytes);
        // Its extents say what its files looked like when they were read and hashed.
        let is_whole = !entry.fetching && pieces_here == layout.piece_count();
        let verified = known.content.extents.metadata().and_then(|extents| extents.modified());
        let verified = verified.ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        let settings = self.settings.borrow();
        let (limit_up, limit_down) =
            settings.limit_of(&info_hash).map_or((None, None), |limit| (limit.up, limit.down));
        let torrent_file = known.torrent.display().to_string();
        let share = known.into_share(LeftOut::default(), 0);
        let options = self.keeper.options;
        Ok(Box::new(Detail {
            torrent,
            files,
            wanted_files,
            piece_bytes: layout.piece_bytes,
            pieces: layout.piece_count(),
            pieces_here,
            complete_peers: self.complete_peers(&info_hash),
            verified_s: verified.filter(|_| is_whole).map(|moment| moment.as_secs()),
            limit_up,
            limit_down,
            sequential: wanted.is_some_and(|wanted| wanted.sequential),
            private,
            magnet: crate::service::life::take_in::magnet_of(self.service, &share, options),
            torrent_file: Some(torrent_file),
            volume,
            moving: self.moving_of(&info_hash),
        }))
    }

    fn complete_peers(&self, info_hash: &InfoHash) -> u32 {
        let swarm = self.service.swarm.borrow();
        let Some(slot) = swarm.find(&info_hash.on_the_wire()) else { return 0 };
        let is_seed = |member: &&Member| member.torrent == slot && member.complete;
        swarm.members().filter(is_seed).count() as u32
    }

    fn pieces_here(&self, entry: &Entry, known: &Known, here_bytes: u64) -> u32 {
        let swarm = self.service.swarm.borrow();
        let (layout, active) = (known.content.layout, swarm.find(&entry.info_hash.on_the_wire()));
        match active {
            Some(slot) if swarm.torrent(slot).have != Have::All => {
                (0..layout.piece_count()).filter(|piece| swarm.offers(slot, *piece)).count() as u32
            }
            _ => here_bytes.div_ceil(u64::from(layout.piece_bytes.max(1))) as u32,
        }
    }

    /// All that is known of a torrent, its trackers, and a page of its files.
    pub(super) async fn show(
        &self,
        show: Show,
        reply: &mut Reply<'_>,
    ) -> Result<Option<u64>, Unanswered> {
        let info_hash = match self.find(&show.what).await? {
            Meant::Known(entry) => entry.info_hash,
            Meant::Sought(info_hash, _) => info_hash,
        };
        if show.after.is_none() {
            reply.item(Answer::Detail(self.detail(info_hash).await?)).await?;
            let slot = self.service.swarm.borrow().find(&info_hash.on_the_wire());
            let known = slot.map(|slot| self.keeper.announcer.seen(slot)).unwrap_or_default();
            for TrackerSeen { url, error } in known {
                let (answered_ago_s, seeds, leechers) = (None, None, None);
                let item = TrackerItem { url, error, answered_ago_s, seeds, leechers };
                reply.item(Answer::Tracker(item)).await?;
            }
        }
        let from = show.after.unwrap_or(0) as u32;
        let upto = from.saturating_add(show.max);
        let read = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash)?;
            let known = state.load(&entry)?;
            Some((known.file_items(entry.fetching, from..upto), known.content.file_count))
        };
        let Some((files, count)) = self.keeper.archive.ask(read).await else { return Ok(None) };
        for file in files {
            reply.item(Answer::File(file)).await?;
        }
        Ok((upto < count).then_some(upto.into()))
    }

    /// How the box is.
    pub(super) async fn stats(&self, reply: &mut Reply<'_>) -> Result<(), Unanswered> {
        let told = self.keeper.archive.ask(|state| state.volumes_told()).await;
        let (torrents, on_each) = self.count_torrents(&told).await;
        let (checkpoints, journal_bytes) = self.keeper.archive.ask(|state| state.written()).await;
        let journal_bytes = journal_bytes + self.service.fetched.journal_bytes.get();
        let stats = self.stats_now(torrents, checkpoints, journal_bytes);
        reply.item(Answer::Stats(Box::new(stats))).await?;
        for (told, torrents) in told.into_iter().zip(on_each) {
            let (path, state) = (told.at.display().to_string(), told.state.word().to_string());
            let (name, free_bytes) = (told.name, told.free_bytes);
            let item = VolumeItem { name, path, state, free_bytes, torrents };
            reply.item(Answer::Volume(item)).await?;
        }
        for (why, count) in self.service.clock.wake_ups() {
            reply.item(Answer::WakeUps(WakeUps { why: why.to_string(), count })).await?;
        }
        Ok(())
    }

    fn stats_now(&self, torrents: Torrents, checkpoints: u64, journal_bytes: u64) -> Stats {
        let (service, options) = (self.service, self.keeper.options);
        let (swarm, board) = (service.swarm.borrow(), &options.board);
        let now = service.clock.now();
        let (up_rate, down_rate) =
            self.meter.rates(now, swarm.sent_bytes, service.fetched.verified_bytes.get());
        let [pass, _] = service.pass.standing();
        let reach = service.portmap.reachability();
        let outside = reach.external_ip.zip(reach.external_port);
        Stats {
            version: env!("CARGO_PKG_VERSION").to_string(),
            board: board.name.to_string(),
            state: self.keeper.archive.folder().display().to_string(),
            uptime_s: now.as_millis() / 1_000,
            memory: Memory {
                resident_bytes: resident_bytes(),
                contract_bytes: board.resident_kib << 10,
            },
            peers: Peers {
                connected: swarm.member_count().into(),
                max: board.pools.peers_max.into(),
                up_rate,
                down_rate,
            },
            torrents,
            written: Written { journal_bytes, checkpoints },
            announces: Announces {
                begun_ago_s: now.since(pass.begun) / 1_000,
                told: pass.seen.into(),
                all: torrents.all,
                pass_s: pass.took_ms.map(|ms| ms / 1_000),
            },
            reach: Reach {
                port: service.listen.port(),
                outside: outside.map(|(ip, port)| SocketAddr::new(ip, port)),
                router: Some(reach.to_string()),
            },
            dht_nodes: self.dht_nodes.map(|count| count() as u32),
            pages: self.pages(),
            kept_to: options.keep_to.iter().map(|path| path.display().to_string()).collect(),
            sent_bytes: swarm.sent_bytes,
            received_bytes: service.fetched.verified_bytes.get(),
        }
    }

    /// Goes through the library: how many torrents are how, and how many on each volume.
    async fn count_torrents(&self, volumes: &[Told]) -> (Torrents, Vec<u64>) {
        let (mut torrents, mut after) = (Torrents::default(), None);
        let mut on_each = std::vec![0; volumes.len()];
        loop {
            let page = self.keeper.archive.ask(move |state| entries(state, after)).await;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            torrents.all += page.len() as u64;
            for (_, entry) in &page {
                let on = volumes.iter().position(|volume| volume.volume == entry.volume);
                on.into_iter().for_each(|at| on_each[at] += 1);
                let asleep = on.map_or(entry.volume != 0, |at| volumes[at].free_bytes.is_none());
                match () {
                    () if entry.paused => torrents.paused += 1,
                    () if asleep => torrents.asleep += 1,
                    () if entry.fetching => torrents.fetching += 1,
                    () => torrents.resting += 1,
                }
            }
        }
        let swarm = self.service.swarm.borrow();
        let served = |slot| swarm.members().any(|member| member.torrent == slot);
        let is_share = |slot: &TorrentSlot| self.service.fetched.is_settled(*slot);
        let active = swarm.torrents().map(|(slot, _)| slot).filter(is_share);
        torrents.serving = active.filter(|slot| served(*slot)).count() as u64;
        torrents.resting = torrents.resting.saturating_sub(torrents.serving);
        (torrents, on_each)
    }
}

fn outlines(
    state: &mut State<'_>,
    mut after: Option<u32>,
    many: u32,
) -> Vec<(u32, Entry, Option<Outline>)> {
    let mut page = Vec::new();
    while page.len() < many as usize
        && let Some((slot, entry)) = state.next(after)
    {
        after = Some(slot);
        page.push((slot, entry, state.outline(&entry)));
    }
    page
}

fn entries(state: &mut State<'_>, mut after: Option<u32>) -> Vec<(u32, Entry)> {
    let mut page = Vec::new();
    while page.len() < ENTRIES_MAX
        && let Some((slot, entry)) = state.next(after)
    {
        after = Some(slot);
        page.push((slot, entry));
    }
    page
}

/// What is wanted of which only the name is known.
pub(super) fn nameless(state: &mut State<'_>) -> Vec<(InfoHash, Wanted)> {
    let mut all = state.all_wanted();
    all.retain(|info_hash| state.get(info_hash).is_none());
    all.into_iter().filter_map(|name| Some((name, state.wanted(&name)?))).collect()
}

/// What the process holds of memory now.
pub(super) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

impl Known {
    /// How many files were made: those that are wanted.
    fn made_files(&self) -> u64 {
        self.extents().filter(|extent| extent.stamp != Default::default()).count() as u64
    }

    /// What is said of some of its files.
    fn file_items(&self, fetching: bool, which: std::ops::Range<u32>) -> Vec<FileItem> {
        let range = which.start as usize..which.end as usize;
        // What has come of a fetch stands in a record of its own.
        let recorded = fetching.then(|| recorded(self.files().0, &self.content.layout));
        let some = self.extents().skip(range.start).take(range.len());
        some.filter(|extent| !extent.padding)
            .map(|extent| {
                let wanted = !fetching || extent.stamp != Default::default();
                let path = self.content.path_of(&extent).unwrap_or_default();
                let bytes = extent.span.length;
                let here_bytes = self.here_bytes_of(extent.span, recorded.as_deref());
                FileItem { path, bytes, here_bytes, wanted }
            })
            .collect()
    }

    fn here_bytes_of(&self, span: Span, recorded: Option<&[u8]>) -> u64 {
        let Some(have) = recorded.or(self.have.as_deref()) else { return span.length };
        let layout = self.content.layout;
        let here = |piece: &u32| has_bit(have, *piece);
        let within = |piece: u32| {
            let start = layout.offset(PieceIndex(piece));
            let end = start + u64::from(layout.piece_len(PieceIndex(piece)));
            end.min(span.end()).saturating_sub(start.max(span.at))
        };
        layout.pieces_of(span).filter(here).map(within).sum()
    }
}

/// Torrents of which facts are read between two questions of others.
const OUTLINES_MAX: u32 = 100;

/// Slots read between two questions of others.
const ENTRIES_MAX: usize = 1_000;

/// What is said of torrents that cannot be shown.
const UNKNOWN: &str = "is no torrent this box knows";
const ANEW: &str = "add it anew; until then they stay there as they are";
