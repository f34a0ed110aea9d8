//! What a box can be asked: one line of JSON with a version and a request.
//!
//! ```text
//! {"v":1,"do":{"show":{"what":"film.mkv"}}}      {"v":1,"do":"stats"}
//! ```
//!
//! Whoever asks may be older or newer than the box: another version is refused by its number, before
//! the rest of the line is understood. Lists in a request are bounded while they are read, so that a
//! line of 64 KiB cannot become many times that in memory. What is wrong with a request's values is
//! said here, on both ends alike; whether it can be done is the service's to say.

use super::what::What;
use super::{LINE_BYTES_MAX, PAGE_MAX};
use crate::service::fetch::{download, open};
use crate::service::options::Options;
use crate::service::{Refusal, tracker, webseed};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Share and fetch. Answered by a `detail` for each that was taken up or known already, with
    /// `progress` meanwhile.
    Add(Add),
    /// Forget a torrent. Answered by the `torrent` it was.
    Remove(Remove),
    /// Neither serve nor fetch. Answered by the `torrent` that was meant, by none for `all`.
    Pause(Which),
    /// Go on with it. Answered alike.
    Resume(Which),
    /// The torrents there are. Answered by a page of `torrent`s.
    List(List),
    /// All that is known of one. Answered by a `detail`, `tracker`s, and a page of `file`s; by files
    /// only from the second page on.
    Show(Show),
    /// Put the content elsewhere. Answered by the `torrent` once it has begun.
    Move(Move),
    /// Become a newer version, from a signed file, absolute. Answered once it is about to start anew.
    Update(PathBuf),
    /// What the page is claimed with. Answered by a `claim`.
    Claim(Claim),
    /// How the box is. Answered by `stats`, `volume`s and `wake_ups`.
    Stats,
    /// End. Answered when it has begun.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// What is to be shared or fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Add {
    /// Files and folders to share, absolute.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// Magnet links, URLs of `.torrent` files, and absolute paths of such files, to fetch.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<PathBuf>,
    /// The folder that what is fetched goes to, absolute; without it the one configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<PathBuf>,
    /// Patterns of the files that are wanted; all are when there is none.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Fetch from front to back.
    pub sequential: bool,
    /// What lies in the target folder may be written over.
    pub force: bool,
    /// Peers to begin with.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<SocketAddr>,
    /// Web seeds beside those that torrents name.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub web_seeds: Vec<String>,
    /// The `.torrent` the one path is content of, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torrent: Option<PathBuf>,
    /// Piece length of what is shared, when it is not left to the box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub piece_bytes: Option<u32>,
    /// Trackers to announce to beside those configured.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<String>,
}

/// Which torrent is to be forgotten, and whether its content goes too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Which.
    pub what: What,
    /// Its files are deleted.
    #[serde(default)]
    pub delete: bool,
}

/// Which torrent, or all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Which.
    pub what: What,
}

/// A page of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct List {
    /// Only torrents with this in their name, in either case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter: String,
    /// Where the last page ended, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Torrents at most, up to [`PAGE_MAX`].
    pub max: u32,
}

/// One torrent, with a page of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// Which.
    pub what: What,
    /// Where the last page ended, as it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Files at most, up to [`PAGE_MAX`].
    #[serde(default = "page_max")]
    pub max: u32,
}

/// Where content is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Which torrent's.
    pub what: What,
    /// The folder it is to lie in, absolute.
    pub to: PathBuf,
}

/// Whether the secret is to be another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Claim {
    /// It is made anew, and whoever has brought the old one is let go.
    pub reset: bool,
}

impl Default for List {
    fn default() -> List {
        List { filter: String::new(), after: None, max: PAGE_MAX }
    }
}

fn page_max() -> u32 {
    PAGE_MAX
}

/// The line around a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[expect(dead_code, reason = "it has been read before, alone")]
    v: u64,
    r#do: Request,
}

/// What of a line is understood in every version.
#[derive(Deserialize)]
struct Version {
    v: Option<u64>,
}

impl Request {
    /// A request from its line; what is wrong with it otherwise.
    pub fn parse(line: &[u8]) -> Result<Request, Refusal> {
        let wrong = |error: serde_json::Error| {
            let problem: String = error.to_string().chars().take(PROBLEM_CHARS_MAX).collect();
            Refusal::new("request", problem, "ask as `perennial` of this version does")
        };
        let version: Version = serde_json::from_slice(line).map_err(wrong)?;
        match version.v {
            Some(VERSION) => {}
            other => {
                let spoken = other.map_or("none".to_string(), |other| other.to_string());
                let problem = std::format!("asks in version {spoken}, this box speaks {VERSION}");
                let remedy = "use the same version of perennial as the box";
                return Err(Refusal::new("request", problem, remedy));
            }
        }
        let envelope: Envelope = serde_json::from_slice(line).map_err(wrong)?;
        envelope.r#do.objection().map_or(Ok(envelope.r#do), Err)
    }

    /// The line of a request.
    pub fn write(&self) -> Result<Vec<u8>, Refusal> {
        #[derive(Serialize)]
        struct Envelope<'r> {
            v: u64,
            r#do: &'r Request,
        }
        let mut line =
            serde_json::to_vec(&Envelope { v: VERSION, r#do: self }).map_err(|error| {
                // Nothing else in a request can fail to be written.
                Refusal::new("path", error, "rename what is no UTF-8")
            })?;
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            let problem = std::format!("is longer than {LINE_BYTES_MAX} bytes");
            return Err(Refusal::new("request", problem, "ask for less at a time"));
        }
        Ok(line)
    }

    /// What is wrong with its values.
    pub fn objection(&self) -> Option<Refusal> {
        match self {
            Request::Add(add) => add.objection(),
            Request::List(List { max, .. }) => wrong_page(*max),
            Request::Show(Show { max, what, .. }) => wrong_page(*max).or(no_single(what)),
            Request::Update(file) => relative(file),
            Request::Move(Move { what, to }) => relative(to).or(no_single(what)),
            Request::Remove(Remove { what, .. }) => no_single(what),
            Request::Pause(_) | Request::Resume(_) => None,
            Request::Claim(_) | Request::Stats | Request::Stop | Request::Reload => None,
        }
    }
}

impl Add {
    /// What the owner asks of `share` and `get`, as a running box is told it.
    pub fn of(options: &Options) -> Result<Add, Refusal> {
        let fetch = &options.fetch;
        let mut add = Add {
            paths: options.paths.clone(),
            links: fetch.links.clone(),
            into: Some(fetch.output.clone()).filter(|_| !fetch.links.is_empty()),
            files: fetch.files.clone(),
            sequential: fetch.sequential,
            force: fetch.force,
            peers: fetch.peers.clone(),
            web_seeds: fetch.web_seeds.clone(),
            torrent: options.torrent.clone(),
            piece_bytes: options.piece_bytes,
            trackers: options.trackers.clone(),
        };
        add.make_absolute()?;
        Ok(add)
    }

    /// Makes paths absolute: the box has another current folder.
    pub fn make_absolute(&mut self) -> Result<(), Refusal> {
        let files = self.links.iter_mut().filter(|link| is_file(link));
        let alone = self.into.iter_mut().chain(&mut self.torrent);
        for path in self.paths.iter_mut().chain(files).chain(alone) {
            *path = absolute(path)?;
        }
        Ok(())
    }

    /// The same in parts that fit a line each.
    pub fn split(self) -> Vec<Add> {
        let frame = Add { paths: Vec::new(), links: Vec::new(), ..self };
        let mut parts = std::vec![frame.clone()];
        let mut bytes = 0;
        let mut next = |path: &Path, is_link: bool| {
            let room = LINE_BYTES_MAX - FRAME_BYTES;
            let length = serde_json::to_vec(path).map_or(0, |text| text.len() + 1);
            let part = parts.last().expect("there is always one");
            let count = part.paths.len() + part.links.len();
            if count > 0 && (count == LIST_MAX || bytes + length > room) {
                parts.push(frame.clone());
                bytes = 0;
            }
            bytes += length;
            let part = parts.last_mut().expect("there is always one");
            let list = if is_link { &mut part.links } else { &mut part.paths };
            list.push(path.to_path_buf());
        };
        self.paths.iter().for_each(|path| next(path, false));
        self.links.iter().for_each(|link| next(link, true));
        parts
    }

    /// What is wrong with its values.
    pub fn objection(&self) -> Option<Refusal> {
        if self.paths.is_empty() && self.links.is_empty() {
            return Some(Refusal::new("add", "names nothing", "name a file, a folder or a link"));
        }
        if self.torrent.is_some() && (self.paths.len() != 1 || !self.links.is_empty()) {
            return Some(Refusal::new("torrent", "describes one path", "name just that one"));
        }
        let range = crate::engine::limits::PIECE_BYTES_MIN
            ..=crate::engine::limits::PIECE_BYTES_AUTHORED_MAX;
        let is_length = |bytes: &u32| bytes.is_power_of_two() && range.contains(bytes);
        if let Some(bytes) = self.piece_bytes.filter(|bytes| !is_length(bytes)) {
            let problem = std::format!("{bytes} is no power of two from 16K to 16M");
            return Some(Refusal::new("piece_bytes", problem, "leave it to the box"));
        }
        let files = self.links.iter().filter(|link| is_file(link));
        let alone = self.into.iter().chain(&self.torrent);
        let mut paths = self.paths.iter().chain(files).chain(alone);
        paths
            .find_map(|path| relative(path))
            .or_else(|| self.files.iter().find_map(|glob| open::check_pattern(glob).err()))
            .or_else(|| self.web_seeds.iter().find_map(|url| webseed::check_url(url).err()))
            .or_else(|| self.trackers.iter().find_map(|url| tracker_error(url)))
    }
}

/// A path from the root on, as the folder we are in makes it.
pub fn absolute(path: &Path) -> Result<PathBuf, Refusal> {
    std::path::absolute(path).map_err(|error| {
        Refusal::new(path.display(), error, "name it by its path from the root on")
    })
}

/// Whether this is to be fetched rather than shared: a magnet link, a URL, a `.torrent` file.
pub fn is_link(path: &Path) -> bool {
    !is_file(path) || path.extension().is_some_and(|end| end.eq_ignore_ascii_case("torrent"))
}

/// A link that is neither a magnet link nor a URL.
fn is_file(link: &Path) -> bool {
    let text = link.to_str().unwrap_or_default();
    !text.starts_with("magnet:") && !download::is_url(text)
}

fn relative(path: &Path) -> Option<Refusal> {
    let remedy = "name it by its path from the root on";
    (!path.is_absolute()).then(|| Refusal::new(path.display(), "the box is elsewhere", remedy))
}

fn no_single(what: &What) -> Option<Refusal> {
    let problem = "is understood by pause and resume only";
    what.is_all().then(|| Refusal::new(what, problem, "name one torrent"))
}

fn wrong_page(max: u32) -> Option<Refusal> {
    let problem = std::format!("{max} is not from 1 to {PAGE_MAX}");
    (!(1..=PAGE_MAX).contains(&max)).then(|| Refusal::new("max", problem, "ask page after page"))
}

fn tracker_error(address: &str) -> Option<Refusal> {
    let error = tracker::parse_tracker_url(address).err()?;
    Some(Refusal::new(address, error, "give an http, https or udp URL"))
}

/// A list of at most [`LIST_MAX`].
fn bounded<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {LIST_MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut rest: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(one) = rest.next_element()? {
                if list.len() == LIST_MAX {
                    return Err(A::Error::custom(format_args!("a list is longer than {LIST_MAX}")));
                }
                list.push(one);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded(PhantomData))
}

/// What is spoken here.
const VERSION: u64 = 1;

/// Of one list of a request at most.
pub const LIST_MAX: usize = 256;

/// Of what is wrong with a line no more is told: it may repeat what the line says.
const PROBLEM_CHARS_MAX: usize = 200;

/// Left in a line for all but paths and links: the other lists are typed by hand.
const FRAME_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;
