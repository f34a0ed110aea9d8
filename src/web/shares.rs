//! A share: its page, and the same address by other ends.

use super::Web;
use super::actions::Answered;
use super::file::Sent;
use super::head::Method;
use super::media::{self, Show};
use super::pages::{self, Frame, share, shares, state};
use super::range::{self, Wanted};
use super::reply::{Answer, Body, Reply, Status, TEXT};
use super::routes::{Ask, hash_of, no_such_page, not_here};
use crate::engine::units::{InfoHash, Span};
use crate::service::Refusal;
use crate::service::board::PAGE_BYTES_MAX;
use crate::service::control::Request;
use crate::service::control::answer::{Detail, FileItem, Item};
use crate::service::control::message::List;
use crate::service::lan::percent_encoded;
use crate::service::qr;
use std::boxed::Box;
use std::format;
use std::os::fd::OwnedFd;
use std::string::{String, ToString};

impl Web<'_, '_, '_> {
    /// What a page of ours has around it.
    pub(super) fn frame<'f>(&'f self, ask: &'f Ask, title: &str) -> Frame<'f> {
        let here = match ask.head.path.as_str() {
            "/" => "/",
            "/box" => "/box",
            "/claim" => "/claim",
            _ => "",
        };
        Frame {
            name: self.gate.name(),
            board: self.steward.keeper.options.board.name,
            title: title.to_string(),
            here,
            token: ask.visitor.form_token(),
            host: &ask.head.host,
            neighbours: match self.gate.bars_reading(&ask.visitor) {
                None => self.neighbours.look(self.steward.service.clock.now()),
                Some(_) => std::vec::Vec::new(),
            },
        }
    }

    /// The front page.
    pub(super) async fn box_page(&self, ask: &Ask) -> Answer {
        let place = self.page_place()?;
        let filter = ask.head.asked("q").unwrap_or_default().trim().to_string();
        let after = ask.head.number("after");
        let list = List { filter: filter.clone(), after, max: SHARES_A_PAGE };
        let is_owner = ask.visitor.is_owner();
        let answered = match self.ask(Request::List(list)).await {
            Ok(answered) if is_owner => answered,
            Ok(answered) => answered.for_visitors(),
            Err(refusal) => return Err(Reply::refused(Status::REFUSED, &refusal)),
        };
        let volumes = match is_owner {
            true => self.steward.keeper.archive.ask(|state| state.volumes_told()).await,
            false => std::vec::Vec::new(),
        };
        let drop_folder = self.steward.given.borrow().drop_folder.clone();
        let drop_folder = drop_folder.map(|folder| folder.display().to_string());
        let page = shares::Page {
            pulse: self.steward.pulse().await,
            answered,
            filter,
            is_later: after.is_some(),
            reach: self.steward.service.portmap.reachability().to_string(),
            volumes,
            drop_folder: drop_folder.as_deref(),
        };
        let html = shares::render(&self.frame(ask, self.gate.name()), &page);
        Ok(Reply::page(Status::OK, html).holding(place))
    }

    /// How the box is.
    pub(super) async fn state_page(&self, ask: &Ask) -> Answer {
        let place = self.page_place()?;
        let answered = match self.ask(Request::Stats).await {
            Ok(answered) if ask.visitor.is_owner() => answered,
            Ok(answered) => answered.for_visitors(),
            Err(refusal) => return Err(Reply::refused(Status::REFUSED, &refusal)),
        };
        let caps = self.steward.service.caps.get();
        let devices = match &self.steward.page {
            Some(page) => {
                page.owner.borrow().devices().iter().map(|device| device.name.clone()).collect()
            }
            None => std::vec::Vec::new(),
        };
        let page = state::Page {
            pulse: self.steward.pulse().await,
            answered: &answered,
            caps: [caps.up.all, caps.down.all].map(|rate| pages::rate_typed(rate.unwrap_or(0))),
            settings: self.steward.settings.borrow().clone(),
            readers: self.gate.readers(),
            outside: self.gate.lets_owner_in_from_outside(),
            log: crate::service::log_lines::recent(),
            has_slots: self.steward.has_slots(),
            devices,
            password: self.steward.page.as_ref().and_then(|page| {
                let is_chosen = page.owner.borrow().password().is_some();
                let mib = self.steward.keeper.options.board.pools.password_mib;
                (mib > 0).then_some(is_chosen)
            }),
        };
        let title = format!("How {} is", self.gate.name());
        Ok(Reply::page(Status::OK, state::render(&self.frame(ask, &title), &page)).holding(place))
    }

    /// Where the box is claimed.
    pub(super) fn claim_page(&self, ask: &Ask) -> Reply {
        if ask.visitor.is_owner() {
            return Reply::redirect(Status::SEE_OTHER, "/");
        }
        let title = format!("Sign in to {}", self.gate.name());
        Reply::page(Status::OK, pages::claim(&self.frame(ask, &title), None))
    }

    /// The same, after a claim that did not succeed.
    pub(super) fn claim_refused(&self, ask: &Ask, refused: Reply) -> Reply {
        let Body::Text(words) = refused.body else { return refused };
        let title = format!("Sign in to {}", self.gate.name());
        let html = pages::claim(&self.frame(ask, &title), Some(words.trim()));
        Reply { lines: refused.lines, ..Reply::page(refused.status, html) }
    }

    /// The page of a share.
    pub(super) async fn share_page(&self, ask: &Ask, info_hash: InfoHash) -> Answer {
        let place = self.page_place()?;
        let (after, play) = (ask.head.number("after"), ask.head.number("play"));
        // The page of files that has the one which is to be played.
        let after = after.or(play.map(|play| play - play % u64::from(FILES_A_PAGE)));
        let after = after.filter(|after| *after > 0);
        let answered = match self.detail(info_hash, after, FILES_A_PAGE).await {
            Ok(answered) if ask.visitor.is_owner() => answered,
            Ok(answered) => answered.for_visitors(),
            Err(refusal) => return Err(self.gone_page(ask, info_hash, &refusal)),
        };
        let Some(detail) = answered.details.first() else {
            return Err(gone(info_hash));
        };
        let first = after.unwrap_or(0);
        let shown = |file: &FileItem| {
            let path = if file.path.is_empty() { &detail.torrent.name } else { &file.path };
            if file.wanted { media::show_of(path) } else { Show::Nothing }
        };
        let chosen = match play {
            Some(play) => usize::try_from(play.saturating_sub(first)).ok(),
            None if first > 0 => None,
            None => [Show::Video, Show::Audio, Show::Image]
                .into_iter()
                .find_map(|wanted| answered.files.iter().position(|file| shown(file) == wanted)),
        };
        let played = chosen.and_then(|at| answered.files.get(at)).map(|file| (file, shown(file)));
        let magnet = self.magnet(ask, &detail.magnet, info_hash);
        let magnet = Some(magnet).filter(|_| may_hand_on(ask, detail));
        let page = share::Page {
            detail,
            files: &answered.files,
            first,
            next: answered.next,
            played: played.filter(|(_, show)| *show != Show::Nothing),
            magnet: magnet.as_deref(),
        };
        let title = format!("{}, on {}", detail.torrent.name, self.gate.name());
        Ok(Reply::page(Status::OK, share::render(&self.frame(ask, &title), &page)).holding(place))
    }

    fn gone_page(&self, ask: &Ask, info_hash: InfoHash, refusal: &Refusal) -> Reply {
        let words = format!(
            "{refusal}. It may have been removed, or its link lost a letter on its way. Whoever has \
             it elsewhere may still be found by this name: magnet:?xt=urn:btih:{info_hash}"
        );
        let html = pages::error(&self.frame(ask, "This is not here"), Status::GONE, &words);
        Reply::page(Status::GONE, html)
    }

    /// The link for everybody, with this box as web seed (BEP 19).
    fn magnet(&self, ask: &Ask, magnet: &str, info_hash: InfoHash) -> String {
        let seed = percent_encoded(&web_seed(ask, info_hash));
        format!("{magnet}&ws={seed}")
    }

    /// A share by the end of its address.
    pub(super) async fn share_as(&self, ask: &Ask, named: &str) -> Answer {
        let (hash, end) = named.split_once('.').unwrap_or((named, ""));
        let Some(info_hash) = hash_of(hash) else { return Err(no_such_page()) };
        match end {
            "" => Ok(Reply::redirect(Status::MOVED, &format!("/s/{info_hash}/"))),
            "svg" => {
                let address = format!("http://{}/s/{info_hash}/", ask.head.host);
                let words = "this address is too long for a QR code";
                let svg = qr::svg(&address).ok_or_else(|| Reply::words(Status::REFUSED, words))?;
                Ok(Reply::new(Status::OK, "image/svg+xml", Body::Text(svg)))
            }
            "torrent" => self.torrent_file(ask, info_hash).await,
            "zip" => self.zip_of(ask, info_hash).await,
            "json" | "magnet" | "m3u8" => self.share_words(ask, info_hash, end).await,
            _ => Err(no_such_page()),
        }
    }

    /// What is known of a share, in words for programs.
    async fn share_words(&self, ask: &Ask, info_hash: InfoHash, end: &str) -> Answer {
        let place = self.page_place()?;
        let after = ask.head.number("after");
        let answered = match self.detail(info_hash, after, FILES_A_PAGE).await {
            Ok(answered) => answered,
            Err(refusal) => return Err(Reply::refused(Status::GONE, &refusal)),
        };
        let Some(detail) = answered.details.first() else { return Err(gone(info_hash)) };
        let magnet = self.magnet(ask, &detail.magnet, info_hash);
        let reply = match end {
            "magnet" if !may_hand_on(ask, detail) => return Err(private()),
            "magnet" => Reply::new(Status::OK, TEXT, Body::Text(magnet + "\n")),
            "m3u8" => {
                let kind = "application/vnd.apple.mpegurl";
                Reply::new(Status::OK, kind, Body::Text(playlist(ask, &answered)))
            }
            _ => {
                let answered = match ask.visitor.is_owner() {
                    true => answered,
                    false => answered.for_visitors(),
                };
                Reply::json(Status::OK, &answered)
            }
        };
        Ok(reply.holding(place))
    }

    /// The `.torrent`, with this box as web seed.
    async fn torrent_file(&self, ask: &Ask, info_hash: InfoHash) -> Answer {
        let (content, name, is_private) = self.open_to_read(info_hash).await?;
        if is_private && !ask.visitor.is_owner() {
            return Err(private());
        }
        let Ok(metadata) = content.metainfo.metadata() else { return Err(unreadable()) };
        let (length, end) = (metadata.len(), content.info.end());
        // Keys stand in order, and nothing that may follow `info` follows it: ours does.
        let is_last = length == end + 1;
        let seed = web_seed(ask, info_hash);
        let tail = match is_last {
            true => format!("8:url-list{}:{seed}e", seed.len()),
            false => String::new(),
        };
        let Ok(file) = content.metainfo.try_clone() else { return Err(unreadable()) };
        let front = if is_last { end } else { length };
        let sent = Sent::front_of(OwnedFd::from(file), front, tail).map_err(|_| unreadable())?;
        let name = disposition("attachment", &format!("{name}.torrent"));
        Ok(Reply::file(Status::OK, "application/x-bittorrent", sent).with(&name))
    }

    /// Where its `.torrent` is, also when none of its content can be had just now.
    async fn open_to_read(
        &self,
        info_hash: InfoHash,
    ) -> Result<(crate::service::Content, String, bool), Reply> {
        let read = move |state: &mut crate::service::state::State<'_>| {
            let entry = state.get(&info_hash)?;
            Some((state.load(&entry)?.content, state.name(&entry), state.is_private(&entry)))
        };
        self.steward.keeper.archive.ask(read).await.ok_or_else(|| gone(info_hash))
    }

    /// All of it in one file.
    async fn zip_of(&self, ask: &Ask, info_hash: InfoHash) -> Answer {
        let Some(place) = self.zips.take() else {
            let words = "as many are fetched as .zip as this box has memory for: try again later";
            return Err(Reply::words(Status::BUSY, words).with("Retry-After: 60"));
        };
        let (_, name, _) = self.open_to_read(info_hash).await?;
        let torrent = self.on_air(&ask.visitor, info_hash).await?;
        let zip = self.zip(torrent, name.clone()).await?;
        let name = disposition("attachment", &format!("{name}.zip"));
        let reply = Reply::new(Status::OK, "application/zip", Body::Zip(Box::new(zip)));
        Ok(reply.with(&name).holding(place))
    }

    /// A file of a share.
    pub(super) async fn share_file(&self, ask: &Ask, info_hash: InfoHash, path: String) -> Answer {
        let torrent = self.on_air(&ask.visitor, info_hash).await?;
        let name = ask.head.parts().and_then(|mut parts| parts.pop()).unwrap_or_default();
        // A single file is found by any name, and is of the kind that it has on the disk: whoever
        // makes a link does not say what it is.
        let own = torrent.content.root.file_name().map(|own| own.to_string_lossy().into_owned());
        let own = own.filter(|_| path.is_empty()).unwrap_or_else(|| name.clone());
        if own != name && WISHES.contains(&&*name) {
            return Err(not_here("POST"));
        }
        let found = self.find(&torrent, path).await?;
        let bytes = found.opened.span.length;
        let tag = format!("\"{info_hash}.{}\"", found.index);
        let head = &ask.head;
        let is_known = |tags: &String| {
            let mut tags = tags.split(',').map(str::trim);
            // One that somebody on the way has made a weak one is the same here (RFC 9110, 13.1.2).
            tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
        };
        if head.if_none_match.as_ref().is_some_and(is_known) {
            let reply = Reply::new(Status::NOT_MODIFIED, TEXT, Body::Empty);
            return Ok(reply.with(&format!("ETag: {tag}")));
        }
        let still = head.if_range.as_ref().is_none_or(|known| *known == tag);
        // A range is of what a GET would send (RFC 9110, 14.2).
        let is_get = head.method == Method::Get;
        let wanted = range::parse(head.range.as_deref().filter(|_| still && is_get), bytes);
        let (status, part, line) = match wanted {
            Wanted::Whole => (Status::OK, 0..bytes, None),
            Wanted::Part(part) => {
                let line = format!("Content-Range: bytes {}-{}/{bytes}", part.start, part.end - 1);
                (Status::PARTIAL, part, Some(line))
            }
            Wanted::Nothing => {
                let words = format!("this file has {bytes} bytes, and none of those asked for");
                let reply = Reply::words(Status::UNSATISFIABLE, &words);
                return Err(reply.with(&format!("Content-Range: bytes */{bytes}")));
            }
        };
        let part = Span { at: part.start, length: part.end - part.start };
        let of_content = Span { at: found.opened.span.at + part.at, ..part };
        if !self.can_be_had(&torrent, of_content) {
            let words = "part of it is not here, and nobody is asked for it";
            return Err(Reply::words(Status::CONFLICT, words));
        }
        let way = if head.is_asked("download") { "attachment" } else { "inline" };
        let sent = Sent::of(torrent, found.opened, part);
        let mut reply = Reply::file(status, media::type_of(&own), sent)
            .with(&format!("ETag: {tag}"))
            .with("Cache-Control: no-cache")
            .with(&disposition(way, &name));
        if let Some(line) = line {
            reply = reply.with(&line);
        }
        Ok(reply)
    }
}

/// What a player plays: all that can be played, as far as it fits one page.
fn playlist(ask: &Ask, answered: &Answered) -> String {
    let mut list = String::from("#EXTM3U\n");
    let Some(detail) = answered.details.first() else { return list };
    let base = format!("/s/{}", detail.torrent.info_hash);
    for file in answered.files.iter().filter(|file| file.wanted) {
        let name = if file.path.is_empty() { &detail.torrent.name } else { &file.path };
        if matches!(media::show_of(name), Show::Video | Show::Audio) {
            let address = pages::file_address(&base, &detail.torrent.name, &file.path);
            let name: String = name.chars().filter(|char| !char.is_control()).collect();
            let line = format!("#EXTINF:-1,{name}\nhttp://{}{address}\n", ask.head.host);
            if list.len() + line.len() > PAGE_BYTES_MAX {
                break;
            }
            list.push_str(&line);
        }
    }
    list
}

/// Where programs find its files (BEP 19).
fn web_seed(ask: &Ask, info_hash: InfoHash) -> String {
    format!("http://{}/s/{info_hash}/", ask.head.host)
}

/// What is known of a share that is not here.
pub(super) fn gone(info_hash: InfoHash) -> Reply {
    let words = format!(
        "this box does not share it any more, or never did; others may: \
         magnet:?xt=urn:btih:{info_hash}"
    );
    Reply::words(Status::GONE, &words)
}

/// Whether somebody is given what leads to a torrent's trackers: those of a private one (BEP 27) know
/// its owner by it.
fn may_hand_on(ask: &Ask, detail: &Detail) -> bool {
    ask.visitor.is_owner() || !detail.private
}

fn private() -> Reply {
    let words = "this torrent is private: its link is its owner's own, and only he hands it on";
    Reply::words(Status::FORBIDDEN, words)
}

fn unreadable() -> Reply {
    Reply::words(Status::BUSY, "it cannot be read now: try again")
}

/// What a file is called where it is kept (RFC 6266).
fn disposition(way: &str, name: &str) -> String {
    format!("Content-Disposition: {way}; filename*=UTF-8''{}", percent_encoded(name))
}

impl Answered {
    /// Without what is nobody's business but the owner's: where things lie on the box.
    pub(super) fn for_visitors(mut self) -> Answered {
        for detail in &mut self.details {
            without_places(&mut detail.torrent);
            detail.torrent_file = None;
            detail.volume = None;
            detail.moving = None;
            if detail.private {
                detail.magnet.clear();
            }
        }
        self.torrents.iter_mut().for_each(without_places);
        self.volumes.iter_mut().for_each(|volume| volume.path.clear());
        if let Some(stats) = &mut self.stats {
            stats.state.clear();
        }
        self.trackers.clear();
        self
    }
}

fn without_places(item: &mut Item) {
    item.path.clear();
    // What is wrong may be wrong with some folder.
    if item.trouble.as_ref().is_some_and(|words| words.contains('/')) {
        item.trouble = Some("its owner is told what is wrong with it".to_string());
    }
}

/// What forms below a share's address do.
const WISHES: [&str; 5] = ["pause", "resume", "move", "remove", "limit"];

/// Torrents of the front page.
const SHARES_A_PAGE: u32 = 50;

/// Files of a share's page.
pub(super) const FILES_A_PAGE: u32 = 100;
