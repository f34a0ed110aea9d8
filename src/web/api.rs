//! All of it for programs: JSON, described by `openapi.json`.
//!
//! Answers have the shapes of the command line's ([`answer`](crate::service::control::answer)), in
//! lists by their kind. A program brings its token as `Authorization: Bearer`, or is a page of ours.

use super::Web;
use super::actions::{only_links, read_rate};
use super::connection::Connection;
use super::reply::{Answer, Body, JSON, Reply, Status};
use super::routes::{Ask, hash_of, no_such_page, not_here};
use crate::engine::units::InfoHash;
use crate::service::Refusal;
use crate::service::control::Request;
use crate::service::control::message::{Add, List, Move, Remove, Which};
use crate::service::control::what::What;
use crate::service::options::Readers;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::path::PathBuf;
use std::string::String;

/// What is to be fetched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Links {
    links: std::vec::Vec<String>,
    #[serde(default)]
    sequential: bool,
    #[serde(default)]
    files: std::vec::Vec<String>,
}

/// Where content is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: PathBuf,
}

/// Whether files go too.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Removal {
    delete: bool,
}

/// What is to be otherwise from now on.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    up: Option<String>,
    down: Option<String>,
    readers: Option<Readers>,
    owner_outside: Option<bool>,
}

/// Caps on one torrent, as people write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    up: String,
    down: String,
}

/// What the box is claimed with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    secret: String,
    #[serde(default)]
    device: String,
}

impl Web<'_, '_, '_> {
    /// What only looks.
    pub(super) async fn api_look(&self, ask: &Ask, parts: &[&str]) -> Answer {
        let max = ask.head.number("max").unwrap_or(50).clamp(1, ITEMS_MAX) as u32;
        let request = match *parts {
            ["openapi.json"] => {
                return Ok(Reply::new(Status::OK, JSON, Body::Fixed(OPENAPI)));
            }
            ["events"] => return self.events(),
            ["pulse"] => return Ok(Reply::json(Status::OK, &self.steward.pulse().await)),
            ["settings"] if !ask.visitor.is_owner() => {
                return Err(Reply::words(Status::UNCLAIMED, "settings are their owner's business"));
            }
            ["settings"] => {
                return Ok(Reply::json(Status::OK, &*self.steward.settings.borrow()));
            }
            ["stats"] => Request::Stats,
            ["torrents"] => {
                let filter = ask.head.asked("filter").unwrap_or_default();
                Request::List(List { filter, after: ask.head.number("after"), max })
            }
            ["torrents", hash] => {
                let Some(info_hash) = hash_of(hash) else { return Err(no_such_page()) };
                let what = What::of(&info_hash);
                let after = ask.head.number("after");
                Request::Show(crate::service::control::message::Show { what, after, max })
            }
            _ => return Err(no_such_page()),
        };
        let place = self.page_place()?;
        let is_one = matches!(request, Request::Show(_));
        let status = if is_one { Status::GONE } else { Status::REFUSED };
        let mut answered = self.ask(request).await.map_err(|refusal| refused(status, &refusal))?;
        if !ask.visitor.is_owner() {
            answered = answered.for_visitors();
        }
        Ok(Reply::json(Status::OK, &answered).holding(place))
    }

    /// What changes something.
    pub(super) async fn api_change(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        parts: &[&str],
    ) -> Answer {
        if *parts == ["claim"] {
            return self.api_claim(connection, ask).await;
        }
        let token = ask.head.token.as_deref();
        if let Some(barred) = self.gate.bars_change(&ask.visitor, &ask.head, token) {
            return Err(barred);
        }
        if *parts == ["update"] {
            return self.update(connection).await;
        }
        let body = self.whole_body(connection, BODY_BYTES_MAX).await?;
        let request = match *parts {
            ["torrents"] => read::<Links>(&body).and_then(|links| links.request()),
            ["settings"] => return self.api_settings(ask, &body).await,
            ["stop"] => {
                let off = self.switch_off().await;
                off.map_err(|refusal| refused(Status::REFUSED, &refusal))?;
                return Ok(Reply::json(Status::OK, &json!({})));
            }
            ["torrents", hash, wish] => {
                let Some(info_hash) = hash_of(hash) else { return Err(no_such_page()) };
                let what = What::of(&info_hash);
                match wish {
                    "limit" => return self.api_limit(info_hash, &body).await,
                    "pause" => Ok(Request::Pause(Which { what })),
                    "resume" => Ok(Request::Resume(Which { what })),
                    "move" => read::<To>(&body).and_then(|To { to }| match self.bars_move(&to) {
                        None => Ok(Request::Move(Move { what, to })),
                        Some(refusal) => Err(refused(Status::REFUSED, &refusal)),
                    }),
                    "remove" if body.is_empty() => {
                        Ok(Request::Remove(Remove { what, delete: false }))
                    }
                    "remove" => read::<Removal>(&body)
                        .map(|Removal { delete }| Request::Remove(Remove { what, delete })),
                    _ => return Err(no_such_page()),
                }
            }
            ["stats" | "pulse" | "events" | "openapi.json"] | ["torrents", _] => {
                return Err(not_here("GET, HEAD"));
            }
            _ => return Err(no_such_page()),
        };
        let answered = self.ask(request?).await;
        let answered = answered.map_err(|refusal| refused(Status::REFUSED, &refusal))?;
        Ok(Reply::json(Status::OK, &answered))
    }

    async fn api_settings(&self, ask: &Ask, body: &[u8]) -> Answer {
        let wish = read::<Wish>(body)?;
        let [up, down] = [&wish.up, &wish.down].map(|text| text.as_deref());
        let said = |text: Option<&str>| match text {
            // Said to be nothing it follows the configuration again.
            Some("") => Ok(Some(None)),
            text => read_rate(text).map(|rate| rate.map(|rate| Some(rate.unwrap_or_default()))),
        };
        let [up, down] = [up, down].map(|text| said(text).map_err(|error| invalid(&error)));
        let (up, down) = (up?, down?);
        if wish.owner_outside.is_some() && !ask.visitor.in_house {
            let words = "coming in from outside is changed from inside the house only";
            return Err(Reply::words(Status::FORBIDDEN, words));
        }
        let set = self.set(|settings| {
            settings.up = up.unwrap_or(settings.up);
            settings.down = down.unwrap_or(settings.down);
            settings.readers = wish.readers.or(settings.readers);
            settings.owner_outside = wish.owner_outside.or(settings.owner_outside);
            Ok(())
        });
        set.await.map_err(|refusal| refused(Status::REFUSED, &refusal))?;
        Ok(Reply::json(Status::OK, &*self.steward.settings.borrow()))
    }

    async fn api_limit(&self, info_hash: InfoHash, body: &[u8]) -> Answer {
        let Limits { up, down } = read::<Limits>(body)?;
        for text in [&up, &down] {
            read_rate(Some(text)).map_err(|error| invalid(&error))?;
        }
        let limited = self.limit(info_hash, Some(&up), Some(&down)).await;
        limited.map_err(|refusal| refused(Status::REFUSED, &refusal))?;
        Ok(Reply::json(Status::OK, &json!({})))
    }

    async fn api_claim(&self, connection: &mut Connection, ask: &Ask) -> Answer {
        let now = self.steward.service.clock.now();
        if let Some(barred) = self.gate.bars_claim(&ask.visitor, &ask.head, now) {
            return Err(barred);
        }
        let body = self.whole_body(connection, CLAIM_BYTES_MAX).await?;
        let claim = read::<Secret>(&body)?;
        let device = if claim.device.is_empty() { "a program" } else { &claim.device };
        let taken = self.take_claim(ask.visitor.address, &claim.secret, device).await;
        match taken.map_err(|refusal| refused(Status::REFUSED, &refusal))? {
            Some(token) => Ok(Reply::json(Status::CREATED, &json!({ "token": token }))),
            None => Err(Reply::words(Status::FORBIDDEN, "this is not the secret of this box")),
        }
    }
}

impl Links {
    fn request(self) -> Result<Request, Reply> {
        let Links { links, sequential, files } = self;
        let links = links.into_iter().map(PathBuf::from).collect();
        let add = Add { links, sequential, files, ..Add::default() };
        match only_links(&add) {
            None => Ok(Request::Add(add)),
            Some(refusal) => Err(refused(Status::REFUSED, &refusal)),
        }
    }
}

/// JSON of a shape; what is wrong with it otherwise.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| {
        let problem: String = std::format!("{error}").chars().take(PROBLEM_CHARS_MAX).collect();
        wrong(&problem)
    })
}

fn refused(status: Status, refusal: &Refusal) -> Reply {
    Reply::json(status, &json!({ "error": refusal }))
}

fn invalid(refusal: &Refusal) -> Reply {
    wrong(&std::format!("{refusal}"))
}

fn wrong(problem: &str) -> Reply {
    let words = std::format!("{problem}; /api/v1/openapi.json says what is understood");
    Reply::words(Status::BAD_REQUEST, &words)
}

/// What is understood, as OpenAPI.
const OPENAPI: &str = include_str!("assets/openapi.json");

/// Torrents or files of one answer at most.
const ITEMS_MAX: u64 = 100;

/// What a visitor may send, who has no token yet.
pub(super) const CLAIM_BYTES_MAX: u64 = 1024;

/// A request's body at most.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Of what is wrong with a body no more is said: it may repeat what the body says.
const PROBLEM_CHARS_MAX: usize = 200;
