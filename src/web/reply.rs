//! What is answered: a status, a few header lines, and a body.

use super::Place;
use super::file::Sent;
use super::zip::Zip;
use crate::service::Refusal;
use crate::service::clock::unix_s;
use std::boxed::Box;
use std::fmt::Write as _;
use std::string::String;
use std::time::{Duration, UNIX_EPOCH};

/// A status code and its phrase (RFC 9110, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16, &'static str);

impl Status {
    pub(super) const OK: Status = Status(200, "OK");
    pub(super) const CREATED: Status = Status(201, "Created");
    pub(super) const NO_CONTENT: Status = Status(204, "No Content");
    pub(super) const PARTIAL: Status = Status(206, "Partial Content");
    pub(super) const SEE_OTHER: Status = Status(303, "See Other");
    pub(super) const NOT_MODIFIED: Status = Status(304, "Not Modified");
    pub(super) const MOVED: Status = Status(308, "Permanent Redirect");
    pub(super) const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub(super) const UNCLAIMED: Status = Status(401, "Unauthorized");
    pub(super) const FORBIDDEN: Status = Status(403, "Forbidden");
    pub(super) const NOT_FOUND: Status = Status(404, "Not Found");
    pub(super) const NOT_HERE: Status = Status(405, "Method Not Allowed");
    pub(super) const TIMEOUT: Status = Status(408, "Request Timeout");
    pub(super) const CONFLICT: Status = Status(409, "Conflict");
    pub(super) const GONE: Status = Status(410, "Gone");
    pub(super) const LENGTH_REQUIRED: Status = Status(411, "Length Required");
    pub(super) const TOO_LARGE: Status = Status(413, "Content Too Large");
    pub(super) const URI_TOO_LONG: Status = Status(414, "URI Too Long");
    pub(super) const UNSATISFIABLE: Status = Status(416, "Range Not Satisfiable");
    pub(super) const MISDIRECTED: Status = Status(421, "Misdirected Request");
    pub(super) const REFUSED: Status = Status(422, "Unprocessable Content");
    pub(super) const TOO_MANY: Status = Status(429, "Too Many Requests");
    pub(super) const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub(super) const METHOD: Status = Status(501, "Not Implemented");
    pub(super) const BUSY: Status = Status(503, "Service Unavailable");
    pub(super) const VERSION: Status = Status(505, "HTTP Version Not Supported");
    pub(super) const NO_ROOM: Status = Status(507, "Insufficient Storage");

    /// Its number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// Its words.
    pub fn phrase(self) -> &'static str {
        self.1
    }
}

/// What follows a head.
pub enum Body {
    /// Nothing.
    Empty,
    /// Words of ours; at most [`PAGE_BYTES_MAX`](crate::service::board::PAGE_BYTES_MAX).
    Text(String),
    /// Words that are part of the program.
    Fixed(&'static str),
    /// Part of a file.
    File(Box<Sent>),
    /// All files of a torrent, as one.
    Zip(Box<Zip>),
    /// What happens, as it happens.
    Events,
}

/// What is answered, or what is instead.
pub type Answer = Result<Reply, Reply>;

/// An answer.
pub struct Reply {
    pub(super) status: Status,
    /// The media type of the body.
    pub(super) kind: &'static str,
    /// Header lines of its own, each with its end.
    pub(super) lines: String,
    pub(super) body: Body,
    /// The connection is over after it.
    pub(super) last: bool,
    /// What it holds until it has been sent.
    pub(super) _place: Option<Place>,
}

impl From<Refusal> for Reply {
    /// What cannot be done, of a body that is not read to its end.
    fn from(refusal: Refusal) -> Reply {
        Reply::refused(Status::REFUSED, &refusal).last()
    }
}

impl Reply {
    /// An answer with a body of that media type.
    pub fn new(status: Status, kind: &'static str, body: Body) -> Reply {
        Reply { status, kind, lines: String::new(), body, last: false, _place: None }
    }

    /// A page.
    pub fn page(status: Status, html: String) -> Reply {
        Reply::new(status, HTML, Body::Text(html)).with("Cache-Control: no-store")
    }

    /// One sentence.
    pub fn words(status: Status, words: &str) -> Reply {
        Reply::new(status, TEXT, Body::Text(std::format!("{words}\n")))
    }

    /// What cannot be done.
    pub fn refused(status: Status, refusal: &Refusal) -> Reply {
        Reply::words(status, &std::format!("{refusal}"))
    }

    /// Data for programs.
    pub fn json(status: Status, value: &impl serde::Serialize) -> Reply {
        // What we answer has keys that are words.
        let text = serde_json::to_string(value).unwrap_or_default();
        Reply::new(status, JSON, Body::Text(text)).with("Cache-Control: no-store")
    }

    /// Elsewhere. `to` is an address of ours.
    pub fn redirect(status: Status, to: &str) -> Reply {
        Reply::new(status, TEXT, Body::Empty).with(&std::format!("Location: {to}"))
    }

    /// With one more header line, which holds nothing of others but in percent-encoding.
    pub fn with(mut self, line: &str) -> Reply {
        self.lines.push_str(line);
        self.lines.push_str("\r\n");
        self
    }

    /// Holding something until it has been sent.
    pub(super) fn holding(self, place: Place) -> Reply {
        Reply { _place: Some(place), ..self }
    }

    /// The last of its connection.
    pub fn last(self) -> Reply {
        Reply { last: true, ..self }
    }

    /// Length of the body; `None` when nobody knows.
    pub fn body_bytes(&self) -> Option<u64> {
        match &self.body {
            Body::Empty => Some(0),
            Body::Text(text) => Some(text.len() as u64),
            Body::Fixed(text) => Some(text.len() as u64),
            Body::File(sent) => Some(sent.bytes()),
            Body::Zip(zip) => Some(zip.bytes()),
            Body::Events => None,
        }
    }

    /// Its head, as it goes over the wire.
    pub fn head(&self, keep_alive: bool) -> String {
        let mut head = String::with_capacity(640);
        let Status(code, phrase) = self.status;
        let _ = write!(head, "HTTP/1.1 {code} {phrase}\r\n");
        let now_s = unix_s();
        // Who does not know the date says none (RFC 9110, section 6.6.1).
        if now_s > 0 {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now_s));
            let _ = write!(head, "Date: {date}\r\n");
        }
        let is_bare = matches!(self.status, Status::NO_CONTENT | Status::NOT_MODIFIED);
        if !is_bare {
            if let Some(bytes) = self.body_bytes() {
                let _ = write!(head, "Content-Length: {bytes}\r\n");
            }
            if !matches!(self.body, Body::Empty) {
                let _ = write!(head, "Content-Type: {}\r\n", self.kind);
            }
        }
        if !keep_alive {
            head.push_str("Connection: close\r\n");
        }
        head.push_str(match self.body {
            Body::File(_) => OF_FILES,
            _ => OF_PAGES,
        });
        head.push_str(&self.lines);
        head.push_str("\r\n");
        head
    }
}

/// A page of ours runs our one script, shows what is ours, and is shown in nobody's frame. No other
/// site is told where somebody comes from; ours is: with `no-referrer`, browsers send forms with
/// `Origin: null`, and `gate` could not tell that they are from here.
const OF_PAGES: &str = "Content-Security-Policy: default-src 'none'; style-src 'self'; \
    script-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'\r\n\
    X-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// A file is somebody's: a page among them may not do anything in our name.
const OF_FILES: &str = "Content-Security-Policy: sandbox; default-src 'none'; img-src 'self'; \
    media-src 'self'; style-src 'unsafe-inline'\r\nX-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\nAccept-Ranges: bytes\r\n";

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
