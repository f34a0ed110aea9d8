//! The owner's wishes as forms send them, and what is asked of the steward.

use super::Web;
use super::api::CLAIM_BYTES_MAX;
use super::connection::Connection;
use super::head::value_of;
use super::pages;
use super::reply::{self, Reply as Said, Status};
use super::routes::{Ask, hash_of, no_such_page, not_here};
use crate::engine::units::InfoHash;
use crate::service::Refusal;
use crate::service::caps::Limit;
use crate::service::control::Request;
use crate::service::control::answer::{
    Answer, Detail, FileItem, Item, Stats, TrackerItem, VolumeItem, WakeUps,
};
use crate::service::control::message::{Add, Move, Remove, Which};
use crate::service::control::server::{Actions as _, Reply, Unanswered};
use crate::service::control::what::What;
use crate::service::options::Readers;
use crate::service::settings::Settings;
use crate::service::units::parse_rate;
use serde::Serialize;
use std::boxed::Box;
use std::path::{Component, Path, PathBuf};
use std::string::{String, ToString as _};
use std::vec::Vec;

/// What was answered to a request.
#[derive(Default, Serialize)]
pub struct Answered {
    /// Torrents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub torrents: Vec<Item>,
    /// Torrents, with all that is known of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
    /// Trackers of one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<TrackerItem>,
    /// Files of one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileItem>,
    /// The box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Box<Stats>>,
    /// Its disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeItem>,
    /// What wakes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wake_ups: Vec<WakeUps>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl Answered {
    fn of(lines: Vec<Answer>, next: Option<u64>) -> Answered {
        let mut answered = Answered { next, ..Answered::default() };
        for line in lines {
            match line {
                Answer::Torrent(item) => answered.torrents.push(item),
                Answer::Detail(detail) => answered.details.push(*detail),
                Answer::Tracker(tracker) => answered.trackers.push(tracker),
                Answer::File(file) => answered.files.push(file),
                Answer::Stats(stats) => answered.stats = Some(stats),
                Answer::Volume(volume) => answered.volumes.push(volume),
                Answer::WakeUps(woken) => answered.wake_ups.push(woken),
                // The secret is for whoever is at the box.
                Answer::Claim(_) => {}
                Answer::Progress(_) | Answer::Done(_) | Answer::Error(_) => {}
            }
        }
        answered
    }
}

impl Web<'_, '_, '_> {
    /// Has the steward do something.
    pub async fn ask(&self, request: Request) -> Result<Answered, Refusal> {
        if let Some(objection) = request.objection() {
            return Err(objection);
        }
        let is_add = matches!(request, Request::Add(_));
        let _place = match self.adds.take() {
            None if is_add => {
                let problem = "waits for as many others as may be taken up at a time";
                return Err(Refusal::new("this link", problem, "try again in a minute"));
            }
            place => place.filter(|_| is_add),
        };
        let mut reply = Reply::Kept(Vec::new());
        let next = self.steward.answer(request, &mut reply).await;
        let Reply::Kept(lines) = reply else { unreachable!("it is kept") };
        match next {
            Ok(next) => Ok(Answered::of(lines, next)),
            Err(Unanswered::Refused(refusal)) => Err(refusal),
            Err(Unanswered::Gone) => Err(Refusal::new("the box", "is ending", "start it again")),
        }
    }

    /// A wish from a form, or from a program.
    pub async fn change(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        parts: &[&str],
    ) -> reply::Answer {
        if let ["api", "v1", rest @ ..] = parts {
            return self.api_change(connection, ask, rest).await;
        }
        let is_claim = *parts == ["claim"];
        if !is_claim && !ask.visitor.is_owner() {
            // Nothing of what a visitor sends is read.
            return Err(self
                .gate
                .bars_change(&ask.visitor, &ask.head, None)
                .unwrap_or_else(no_such_page));
        }
        let most = if is_claim { CLAIM_BYTES_MAX } else { FORM_BYTES_MAX };
        let body = self.whole_body(connection, most).await?;
        if is_claim {
            return Ok(self.claim(ask, &body).await);
        }
        let brought = value_of(&body, "token");
        if let Some(barred) = self.gate.bars_change(&ask.visitor, &ask.head, brought.as_deref()) {
            return Err(barred);
        }
        let value = |name: &str| value_of(&body, name).filter(|value| !value.trim().is_empty());
        let (request, back) = match *parts {
            ["leave"] => return Ok(self.leave(ask).await),
            ["settings"] => {
                return match self.settings_form(ask, &body).await {
                    Ok(()) => Ok(Said::redirect(Status::SEE_OTHER, "/box")),
                    Err(refusal) => Err(self.refused_page(ask, &refusal)),
                };
            }
            ["password"] => return Ok(self.password(ask, &body).await),
            ["stop"] => {
                return match self.switch_off().await {
                    Ok(()) => {
                        let title = "It switches itself off";
                        let html = pages::error(&self.frame(ask, title), Status::OK, OFF);
                        Ok(Said::page(Status::OK, html))
                    }
                    Err(refusal) => Err(self.refused_page(ask, &refusal)),
                };
            }
            ["add"] => {
                let link = value("link").unwrap_or_default();
                let links = std::vec![PathBuf::from(link.trim())];
                let add = Add { links, ..Add::default() };
                if let Some(refusal) = only_links(&add) {
                    return Err(self.refused_page(ask, &refusal));
                }
                (Request::Add(add), String::from("/"))
            }
            ["s", hash, wish] => {
                let Some(info_hash) = hash_of(hash) else { return Err(no_such_page()) };
                let what = What::of(&info_hash);
                let page = std::format!("/s/{info_hash}/");
                let back = match value("back").as_deref() {
                    Some("list") => String::from("/"),
                    _ => page,
                };
                match wish {
                    "limit" => {
                        let (up, down) = (value("up"), value("down"));
                        let limited = self.limit(info_hash, up.as_deref(), down.as_deref()).await;
                        return match limited {
                            Ok(()) => Ok(Said::redirect(Status::SEE_OTHER, &back)),
                            Err(refusal) => Err(self.refused_page(ask, &refusal)),
                        };
                    }
                    "pause" => (Request::Pause(Which { what }), back),
                    "resume" => (Request::Resume(Which { what }), back),
                    "move" => {
                        let to = PathBuf::from(value("to").unwrap_or_default().trim());
                        if let Some(refusal) = self.bars_move(&to) {
                            return Err(self.refused_page(ask, &refusal));
                        }
                        (Request::Move(Move { what, to }), back)
                    }
                    "remove" => {
                        let delete = value("delete").is_some();
                        (Request::Remove(Remove { what, delete }), String::from("/"))
                    }
                    _ => return Err(no_such_page()),
                }
            }
            ["", ..] | ["box" | "style.css" | "script.js"] => return Err(not_here("GET, HEAD")),
            _ => return Err(no_such_page()),
        };
        match self.ask(request).await {
            Ok(_) => Ok(Said::redirect(Status::SEE_OTHER, &back)),
            Err(refusal) => Err(self.refused_page(ask, &refusal)),
        }
    }

    pub(super) fn refused_page(&self, ask: &Ask, refusal: &Refusal) -> Said {
        let words = std::format!("{refusal}.");
        let html = pages::error(&self.frame(ask, "That did not work"), Status::REFUSED, &words);
        Said::page(Status::REFUSED, html)
    }

    /// Has settings changed.
    pub(super) async fn set(
        &self,
        change: impl FnOnce(&mut Settings) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.steward.set(change).await?;
        self.gate.heed(&self.steward.settings.borrow());
        Ok(())
    }

    /// Has a box that was flashed write everything down and switch itself off. Another one is stopped
    /// where it was started.
    pub(super) async fn switch_off(&self) -> Result<(), Refusal> {
        if !self.steward.has_slots() {
            let remedy = "say `perennial stop` on it, or stop its service";
            return Err(Refusal::new("this box", "is not switched off from its page", remedy));
        }
        self.ask(Request::Stop).await.map(|_| ())
    }

    /// Caps and who may come, as a form has them. What is left empty follows the configuration.
    async fn settings_form(&self, ask: &Ask, body: &[u8]) -> Result<(), Refusal> {
        let typed = |name| value_of(body, name).map(|text| text.trim().to_string());
        let (up, down) = (typed("up"), typed("down"));
        let rates = [read_rate(up.as_deref())?, read_rate(down.as_deref())?];
        let readers = typed("readers").map(|readers| Readers::parse(&readers)).transpose();
        let readers = readers.map_err(|problem| {
            Refusal::new("who may look", problem, "choose one of those on the page")
        })?;
        let outside = typed("owner-outside").is_some();
        if outside != self.gate.lets_owner_in_from_outside() && !ask.visitor.in_house {
            let problem = "is changed from inside the house only";
            return Err(Refusal::new("coming in from outside", problem, "do it at home"));
        }
        self.set(|settings| {
            [settings.up, settings.down] = rates.map(|rate| rate.map(Option::unwrap_or_default));
            settings.readers = readers.or(settings.readers);
            settings.owner_outside = Some(outside);
            Ok(())
        })
        .await
    }

    /// A limit for one torrent.
    pub(super) async fn limit(
        &self,
        info_hash: InfoHash,
        up: Option<&str>,
        down: Option<&str>,
    ) -> Result<(), Refusal> {
        let [up, down] = [read_rate(up)?, read_rate(down)?].map(Option::flatten);
        self.steward.detail(info_hash).await?;
        self.set(|settings| settings.limit(Limit { info_hash, up, down })).await
    }

    /// Why nothing is put there over the page: it is none of the places for content that the
    /// configuration names. Whoever gets hold of a token could put a file anywhere otherwise.
    pub(super) fn bars_move(&self, to: &Path) -> Option<Refusal> {
        let given = self.steward.given.borrow();
        let mut places = given.drop_folder.iter().chain([&given.fetch.output]);
        let is_plain = to.components().all(|part| part != Component::ParentDir);
        let may =
            is_plain && places.any(|place| !place.as_os_str().is_empty() && to.starts_with(place));
        let problem = "lies in no folder that the box shares or fetches into";
        let remedy = "name one of those, or say `perennial move` on the box";
        (!may).then(|| Refusal::new(to.display(), problem, remedy))
    }

    /// The one torrent that `info_hash` names, with a page of its files.
    pub(super) async fn detail(
        &self,
        info_hash: InfoHash,
        after: Option<u64>,
        max: u32,
    ) -> Result<Answered, Refusal> {
        let what = What::of(&info_hash);
        let show = crate::service::control::message::Show { what, after, max };
        let mut answered = self.ask(Request::Show(show)).await?;
        if answered.details.is_empty() {
            // From the second page on only files are told of.
            answered.details.push(*self.steward.detail(info_hash).await?);
        }
        Ok(answered)
    }
}

/// Why something is not taken up over the page: it names a file of the box's. Which of those are
/// shared is said on the box, so that nobody who gets hold of a token can have it share any.
pub(super) fn only_links(add: &Add) -> Option<Refusal> {
    let is_far = |link: &PathBuf| link.to_str().is_some_and(is_far);
    let near = add.links.iter().find(|link| !is_far(link))?;
    let problem = "is neither a magnet link nor the address of a .torrent";
    let remedy = "say `perennial add` on the box for what lies there";
    Some(Refusal::new(near.display(), problem, remedy))
}

/// A rate as somebody typed it: nothing where nothing was said, and nothing in that for no cap.
pub(super) fn read_rate(text: Option<&str>) -> Result<Option<Option<u64>>, Refusal> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let remedy = "write 2MB/s, 500kB/s, 10mbit, or off";
    parse_rate(text).map(Some).map_err(|problem| Refusal::new("the limit", problem, remedy))
}

fn is_far(link: &str) -> bool {
    link.starts_with("magnet:") || crate::service::fetch::download::is_url(link)
}

/// What is said last.
const OFF: &str = "Everything is being written down; in a minute its power can be cut.";

/// A form at most.
const FORM_BYTES_MAX: u64 = 16 * 1024;
