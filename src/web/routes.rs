//! What an address means.
//!
//! | address | what it is |
//! | --- | --- |
//! | `/`, `/box`, `/claim` | pages |
//! | `/s/HASH/` | the page of a share; `/s/HASH/NAME[/PATH]` its files |
//! | `/s/HASH.torrent` `.magnet` `.zip` `.m3u8` `.json` `.svg` | the same share, otherwise |
//! | `/add`, `/settings`, `/leave`, `/password`, `/stop`, `/s/HASH/pause` and so on | forms of those pages |
//! | `/upload/NAME` | a file for the box |
//! | `/api/v1/...` | all of it for programs |
//!
//! What only looks is `GET` and `HEAD`; whatever changes something is `POST` or `PUT`, and nothing
//! that changes anything answers a `GET`.

use super::connection::Connection;
use super::gate::Visitor;
use super::head::{Head, Method};
use super::reply::{Answer, Body, Reply, Status};
use super::{Place, Web, pages};
use crate::engine::units::InfoHash;
use crate::service::control::what::What;
use std::string::String;

/// Who asks for what.
pub struct Ask {
    pub(super) head: Head,
    pub(super) visitor: Visitor,
}

impl Web<'_, '_, '_> {
    /// What is answered to a request.
    pub async fn answer(&self, connection: &mut Connection, mut head: Head) -> Reply {
        if !self.gate.is_ours(&head.host, &self.neighbours.host()) {
            let words = "this box has another name: use its address, or write this name below \
                         [web] names";
            return Reply::words(Status::MISDIRECTED, words).last();
        }
        if head.host.is_empty() {
            head.host = connection.host_of();
        }
        let visitor = {
            let page = self.steward.page.as_ref().expect("who is answered has come to a page");
            let (lan, owner) = (self.steward.service.lan(), page.owner.borrow());
            self.gate.visitor(&head, connection.address, &lan, &owner)
        };
        if connection.is_crowded && !visitor.is_owner() {
            return crowded().last();
        }
        let Some(parts) = head.parts() else {
            return Reply::words(Status::BAD_REQUEST, "this address is no text");
        };
        let parts: std::vec::Vec<&str> = parts.iter().map(String::as_str).collect();
        let ask = Ask { head, visitor };
        let answer = match ask.head.method {
            Method::Get | Method::Head => self.look(&ask, &parts).await,
            Method::Post => self.change(connection, &ask, &parts).await,
            Method::Put => match parts[..] {
                ["upload", name] => self.upload(connection, &ask, name).await,
                _ => Err(not_here("GET, HEAD, POST")),
            },
        };
        answer.unwrap_or_else(|instead| instead)
    }

    async fn look(&self, ask: &Ask, parts: &[&str]) -> Answer {
        Ok(match *parts {
            ["style.css"] => asset("text/css; charset=utf-8", STYLE),
            ["script.js"] => asset("text/javascript; charset=utf-8", SCRIPT),
            ["icon.svg"] => asset("image/svg+xml", ICON),
            ["robots.txt"] => Reply::words(Status::OK, "User-agent: *\nDisallow: /"),
            ["claim"] => self.claim_page(ask),
            _ => match self.gate.bars_reading(&ask.visitor) {
                Some(barred) => self.barred(ask, barred),
                None => self.look_inside(ask, parts).await?,
            },
        })
    }

    async fn look_inside(&self, ask: &Ask, parts: &[&str]) -> Answer {
        match *parts {
            [""] => self.box_page(ask).await,
            ["box"] => self.state_page(ask).await,
            ["s", share] => self.share_as(ask, share).await,
            ["s", hash, ""] => match hash_of(hash) {
                Some(info_hash) => self.share_page(ask, info_hash).await,
                None => Err(no_such_page()),
            },
            ["s", hash, _, ref path @ ..] => match hash_of(hash) {
                Some(info_hash) => self.share_file(ask, info_hash, path.join("/")).await,
                None => Err(no_such_page()),
            },
            ["upload", name] => self.uploaded(ask, name).await,
            ["api", "v1", ref rest @ ..] => self.api_look(ask, rest).await,
            ["add" | "settings" | "leave" | "password" | "stop"] => Err(not_here("POST")),
            _ => Err(no_such_page()),
        }
    }

    /// A page is made, if one more may be under way.
    pub(super) fn page_place(&self) -> Result<Place, Reply> {
        self.pages.take().ok_or_else(crowded)
    }

    /// What is said to a visitor who may not look: in words, or on a page.
    fn barred(&self, ask: &Ask, barred: Reply) -> Reply {
        match barred.body {
            Body::Text(words) if ask.head.path == "/" => {
                let html = pages::error(&self.frame(ask, "Not for you"), barred.status, &words);
                Reply::page(barred.status, html)
            }
            body => Reply { body, ..barred },
        }
    }
}

/// A whole info-hash.
pub(super) fn hash_of(text: &str) -> Option<InfoHash> {
    What::new(text).info_hash()
}

pub(super) fn no_such_page() -> Reply {
    Reply::words(Status::NOT_FOUND, "there is nothing at this address: begin at /")
}

pub(super) fn not_here(allowed: &str) -> Reply {
    let reply = Reply::words(Status::NOT_HERE, "this is not done at this address");
    reply.with(&std::format!("Allow: {allowed}"))
}

pub(super) fn crowded() -> Reply {
    let words = "every place is taken: try again in a minute";
    Reply::words(Status::BUSY, words).with("Retry-After: 30")
}

fn asset(kind: &'static str, text: &'static str) -> Reply {
    let reply = Reply::new(Status::OK, kind, Body::Fixed(text));
    reply.with("Cache-Control: no-cache")
}

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");
