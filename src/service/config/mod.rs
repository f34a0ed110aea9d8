//! The configuration of `perennial run`: one commented TOML file.
//!
//! [`commented()`] is that file with every key, its default and its meaning; nothing at all is a
//! configuration too, and is the same. [`Config::read`] makes plain data of a file or says what is
//! wrong with it: the file, the line and what would help. [`Config::changes`] says what a box that
//! runs can take over from another one, and what has to wait for a restart.
//!
//! What is wrong is whatever the box could not keep to: a key that is unknown, a value of another
//! kind or without a meaning, a path that depends on where one stands, a board that needs more
//! memory than the machine has, and places that lie in each other so that the box would share what
//! it remembers or fetch what it fetched. What a path leads to is not looked at: a disk may be
//! unplugged today and back tomorrow.
//!
//! Journey: `main` -> here -> `service/options` and whoever looks after folders.

mod changes;
mod reader;
#[cfg(test)]
mod tests;
mod values;

pub use changes::{Changes, ShareChanges};

use super::Refusal;
use super::board::{self, Board};
use super::caps::{CapOptions, Rates};
use super::options::{DhtOptions, FetchOptions, Options, Readers, WebAt, WebOptions};
use super::{confine, state, tracker, units};
use log::LevelFilter;
use reader::{Keys, Placed, Reader, Section};
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, io};

/// What the owner of a box wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What people know it by; the machine's name when there is none.
    pub name: Option<String>,
    /// The board's name; the machine's when there is none.
    pub board: Option<String>,
    /// Where state is kept; see [`Config::state_folder`].
    pub state: Option<PathBuf>,
    /// The folders that everything lies beneath, if the kernel is to keep it to any.
    pub keep_to: Vec<PathBuf>,
    /// How it meets others.
    pub network: Network,
    /// Its page; names and folders in it follow from the rest.
    pub web: WebOptions,
    /// Caps on bandwidth.
    pub caps: CapOptions,
    /// What is shared by lying there.
    pub shares: Vec<Shared>,
    /// What is fetched.
    pub fetch: Fetching,
    /// How much is said.
    pub level: LevelFilter,
    /// The file it was read from.
    pub file: Option<PathBuf>,
}

/// `[network]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where to listen, when it is not left to us.
    pub listen: Option<SocketAddr>,
    /// For the house only.
    pub lan_only: bool,
    /// The distributed hash table.
    pub dht: DhtOptions,
    /// Trackers of all shares.
    pub trackers: Vec<String>,
    /// Routers are asked to let peers in.
    pub map_port: bool,
}

/// One `[[share]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What lies there.
    pub source: Source,
    /// Piece length, when it is not left to us.
    pub piece_bytes: Option<u32>,
    /// Trackers beside those of all.
    pub trackers: Vec<String>,
}

/// How what lies at a place becomes shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Each entry of this folder is one.
    Entries(PathBuf),
    /// This file or folder is one.
    Whole(PathBuf),
}

impl Source {
    /// The place.
    pub fn path(&self) -> &Path {
        match self {
            Source::Entries(path) | Source::Whole(path) => path,
        }
    }
}

/// `[fetch]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetching {
    /// Where content goes.
    pub into: Option<PathBuf>,
    /// A folder of `.torrent` and `.magnet` files; only with `into`.
    pub watch: Option<PathBuf>,
    /// From front to back.
    pub sequential: bool,
    /// What is left free on a disk.
    pub reserve: Reserve,
}

/// Room that is left free on a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserve {
    /// A twentieth, but no more than a GiB.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of it.
    Percent(u8),
}

impl Reserve {
    /// Bytes to leave free on a volume of that size.
    pub fn bytes_of(self, volume_bytes: u64) -> u64 {
        let part = |percent| volume_bytes / 100 * u64::from(percent);
        match self {
            Reserve::Auto => part(5).min(1 << 30),
            Reserve::Bytes(bytes) => bytes,
            Reserve::Percent(percent) => part(percent),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: None,
            board: None,
            state: None,
            keep_to: Vec::new(),
            network: Network::default(),
            web: WebOptions::default(),
            caps: CapOptions::default(),
            shares: Vec::new(),
            fetch: Fetching::default(),
            level: LevelFilter::Info,
            file: None,
        }
    }
}

impl Default for Network {
    fn default() -> Network {
        let (dht, trackers) = (DhtOptions::default(), Vec::new());
        Network { listen: None, lan_only: false, dht, trackers, map_port: true }
    }
}

/// A file with every key, its default and its meaning.
pub fn commented() -> &'static str {
    include_str!("commented.toml")
}

/// The file that is read when nobody says which (XDG base directories, then the system's), if there
/// is one.
pub fn usual_file() -> Option<PathBuf> {
    let own = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let all = own.into_iter().chain([PathBuf::from("/etc")]);
    all.map(|folder| folder.join("perennial/perennial.toml")).find(|file| file.exists())
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Config, Refusal> {
        let mut bytes = Vec::new();
        let file = File::open(path).and_then(|file| {
            let longest = FILE_BYTES_MAX as u64 + 1;
            file.take(longest).read_to_end(&mut bytes)
        });
        file.map_err(|error| cannot_read(path, &error))?;
        if bytes.len() > FILE_BYTES_MAX {
            let problem = format!("is longer than {} KiB", FILE_BYTES_MAX >> 10);
            return Err(Refusal::new(path.display(), problem, "name a configuration file"));
        }
        let name = path.display().to_string();
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n');
            let thing = format!("{name}, line {}", 1 + lines.count());
            Refusal::new(thing, "is no text in UTF-8", "mend that line, or save it as UTF-8")
        })?;
        let config = Config::parse(text, &name)?;
        Ok(Config { file: path.canonicalize().ok(), ..config })
    }

    /// Makes sense of a file's text. `name` is the file's, for refusals.
    pub fn parse(text: &str, name: &str) -> Result<Config, Refusal> {
        Config::parse_for(text, name, board::machine_ram_kib())
    }

    /// The same for a machine with so much memory.
    fn parse_for(text: &str, name: &str, ram_kib: u64) -> Result<Config, Refusal> {
        let mut reader = Reader::new(text, KEYS);
        let config = read_file(reader.top(), ram_kib);
        reader.refusal(name).map_or(Ok(config), Err)
    }

    /// Where state is kept: what the owner says, else what systemd gives, else where it is usual.
    pub fn state_folder(&self) -> Result<PathBuf, Refusal> {
        // Systemd gives as many as its unit names, with colons between them; ours names one.
        let given = || set("STATE_DIRECTORY").filter(|path| path.is_absolute());
        match self.state.clone().or_else(given) {
            Some(folder) => Ok(folder),
            None if rustix::process::geteuid().is_root() => Ok(PathBuf::from(SYSTEM_STATE)),
            None => state::usual_folder(),
        }
    }

    /// The first folder whose entries are shared.
    pub fn drop_folder(&self) -> Option<PathBuf> {
        self.shares.iter().find_map(|share| match &share.source {
            Source::Entries(folder) => Some(folder.clone()),
            Source::Whole(_) => None,
        })
    }

    /// What a service starts with, as far as it is no share: those come and go while it runs.
    pub fn options(&self) -> Result<Options, Refusal> {
        let output = self.fetch.into.clone().unwrap_or_default();
        let sequential = self.fetch.sequential;
        let board = Board::chosen(self.board.as_deref())?;
        Ok(Options {
            all_that_is_known: true,
            map_port: self.network.map_port,
            fetch: FetchOptions { output, sequential, ..FetchOptions::default() },
            lan: self.network.lan_only,
            listen: self.network.listen,
            dht: self.network.dht.clone(),
            web: WebOptions {
                name: self.name.clone(),
                drop_folder: self.drop_folder(),
                ..self.web.clone()
            },
            caps: self.caps,
            trackers: self.network.trackers.clone(),
            keep_to: self.keep_to.clone(),
            config_file: self.file.clone(),
            ..Options::new(board, self.state_folder()?)
        })
    }
}

/// Reads every section. What is wrong is the reader's to keep; defaults stand in for it.
fn read_file(mut top: Section<'_, '_>, ram_kib: u64) -> Config {
    let name = top.text("name", "\"attic\"", values::parse_name);
    let board = read_board(&mut top, ram_kib);
    let state = top.placed("state", "\"/var/lib/perennial\"", values::parse_path);
    let keep_to = top.list("keep-to", "[\"/srv\", \"/media\"]", values::parse_path);
    let keep_to = keep_to.map(|(_, folders)| folders).unwrap_or_default();
    let network = read_network(top.section("[network]"));
    let web = read_web(top.section("[web]"));
    let caps = read_caps(top.section("[caps]"));
    let lan_only = network.lan_only;
    let shares = top.sections("[[share]]", |section| read_share(section, lan_only));
    let places = shares.iter().map(|(at, share)| (*at, share.source.path()));
    let mut places: Vec<Placed<&Path>> = places.collect();
    places.sort_unstable();
    let mut section = top.section("[fetch]");
    let into = section.placed("into", "\"/srv/fetched\"", values::parse_path);
    let watch = section.placed("watch", "\"/srv/wanted\"", values::parse_path);
    let sequential = section.flag("sequential").unwrap_or_default();
    let reserve = section.text("reserve", "\"1GiB\"", values::parse_reserve).unwrap_or_default();
    section.end();
    let own = [("state", &state), ("into", &into), ("watch", &watch)];
    check_places(top.reader(), &places, own);
    check_kept_to(top.reader(), &places, [("into", &into), ("watch", &watch)], &keep_to);
    let mut log = top.section("[log]");
    let level = log.text("level", "\"info\"", values::parse_level).unwrap_or(LevelFilter::Info);
    log.end();
    top.end();
    let path = |placed: Option<Placed<PathBuf>>| placed.map(|(_, path)| path);
    let fetch = Fetching { into: path(into), watch: path(watch), sequential, reserve };
    let shares = shares.into_iter().map(|(_, share)| share).collect();
    let (state, file) = (path(state), None);
    Config { name, board, state, keep_to, network, web, caps, shares, fetch, level, file }
}

/// The board's name, when it is one that this machine can be.
fn read_board(top: &mut Section<'_, '_>, ram_kib: u64) -> Option<String> {
    let (at, name) = top.placed("board", "\"auto\"", |text| Ok(text.to_string()))?;
    if name == "auto" {
        return None;
    }
    let objection = match Board::chosen(Some(&name)) {
        Ok(board) => board.objection().or_else(|| board.objection_on(ram_kib)),
        Err(unknown) => Some(unknown),
    };
    if let Some(objection) = objection {
        top.reader().note(at, objection);
    }
    Some(name)
}

fn read_network(mut section: Section<'_, '_>) -> Network {
    let listen = section.text("listen", "\"[::]:6881\"", values::parse_listen).flatten();
    let lan_only = section.flag("lan-only").unwrap_or_default();
    let dht = section.text("dht", "\"on\"", values::parse_dht).unwrap_or_default();
    let entries = section.list("dht-nodes", "[\"router.example.org:6881\"]", |text| {
        let entry = DhtOptions::parse_entry(text);
        entry.ok_or_else(|| format!("`{text}` is no host and port"))
    });
    let entries = entries.map(|(_, entries)| entries).unwrap_or_default();
    let trackers = read_trackers(&mut section, lan_only);
    let map_port = section.flag("map-port").unwrap_or(true);
    section.end();
    Network { listen, lan_only, dht: DhtOptions { entries, ..dht }, trackers, map_port }
}

fn read_trackers(section: &mut Section<'_, '_>, lan_only: bool) -> Vec<String> {
    let example = "[\"https://tracker.example.org/announce\"]";
    let trackers = section.list("trackers", example, |text| {
        let url = tracker::parse_tracker_url(text).map_err(|error| error.to_string());
        url.map(|_| text.to_string())
    });
    let Some((at, trackers)) = trackers else { return Vec::new() };
    if lan_only && !trackers.is_empty() {
        let problem = "are told of nothing that is for the house only";
        let remedy = "take them out, or write lan-only = false";
        section.reader().note(at, Refusal::new("`trackers`", problem, remedy));
    }
    trackers
}

fn read_web(mut section: Section<'_, '_>) -> WebOptions {
    let at = section.text("listen", "\"[::]:8080\"", WebAt::parse).unwrap_or_default();
    let readers = section.text("readers", "\"house\"", Readers::parse).unwrap_or_default();
    let owner_outside = section.flag("owner-outside").unwrap_or_default();
    let hidden = section.flag("hidden").unwrap_or_default();
    let names = section.list("names", "[\"films.example.org\"]", values::parse_host);
    let names = names.map(|(_, names)| names).unwrap_or_default();
    section.end();
    WebOptions { at, readers, owner_outside, hidden, names, ..WebOptions::default() }
}

fn read_caps(mut section: Section<'_, '_>) -> CapOptions {
    let mut rate =
        |key| section.text(key, "\"2MB/s\"", units::parse_rate).and_then(|rate: Option<u64>| rate);
    let up = Rates { all: rate("up"), each: rate("torrent-up") };
    let down = Rates { all: rate("down"), each: rate("torrent-down") };
    let lan = section.flag("lan").unwrap_or_default();
    section.end();
    CapOptions { up, down, lan }
}

fn read_share(mut section: Section<'_, '_>, lan_only: bool) -> Option<Placed<Shared>> {
    let heading = section.at;
    let folder = section.placed("folder", "\"/srv/share\"", values::parse_path);
    let path = section.placed("path", "\"/srv/films/holiday.mkv\"", values::parse_path);
    let piece_bytes = section.text("piece-size", "\"auto\"", values::parse_piece_bytes).flatten();
    let trackers = read_trackers(&mut section, lan_only);
    let is_right = section.end();
    let (at, source) = match (folder, path) {
        (Some((at, folder)), None) => (at, Source::Entries(folder)),
        (None, Some((at, path))) => (at, Source::Whole(path)),
        (Some((one, _)), Some((other, _))) => {
            let (problem, remedy) = ("has both `folder` and `path`", "make two [[share]] of them");
            section.reader().note(one.max(other), Refusal::new("[[share]]", problem, remedy));
            return None;
        }
        (None, None) => {
            let problem = "has neither `folder` nor `path`";
            let remedy = "write folder = \"/srv/share\", or path = \"/srv/film.mkv\", below it";
            let refusal = Refusal::new("[[share]]", problem, remedy);
            // One of them may be there and be what is wrong.
            is_right.then(|| section.reader().note(heading, refusal));
            return None;
        }
    };
    Some((at, Shared { source, piece_bytes, trackers }))
}

/// Nothing may lie where the box would share what it remembers or what is half fetched, or would
/// fetch what it fetched.
fn check_places(
    reader: &mut Reader<'_>,
    shares: &[Placed<&Path>],
    own: [(&str, &Option<Placed<PathBuf>>); 3],
) {
    let within = |at, key: &str, other: &Path, what: &str| {
        let problem = format!("lies in {}, {what}", other.display());
        (at, Refusal::new(format!("`{key}`"), problem, "name a folder outside of it"))
    };
    let mut wrong = Vec::new();
    for (count, (at, path)) in shares.iter().enumerate() {
        if let Some((first, _)) = shares[..count].iter().find(|(_, other)| other == path) {
            let problem = format!("is shared already by line {}", reader.line(*first));
            wrong.push((*at, Refusal::new(path.display(), problem, "take one of the two out")));
        }
    }
    for (key, placed) in own {
        let Some((at, path)) = placed else { continue };
        let around = shares.iter().find(|(_, share)| path.starts_with(share));
        wrong.extend(around.map(|(_, share)| within(*at, key, share, "which is shared")));
    }
    let [(_, state), (_, into), (key, watch)] = own;
    if let Some((_, state)) = state {
        let inside = shares.iter().find(|(_, share)| share.starts_with(state) && *share != state);
        wrong.extend(
            inside.map(|(at, _)| {
                within(*at, "share", state, "where the box keeps what it remembers")
            }),
        );
    }
    match (into, watch) {
        (Some((_, into)), Some((at, watch))) if watch.starts_with(into) => {
            wrong.push(within(
                *at,
                key,
                into,
                "where a .torrent that was fetched would be taken for a wish",
            ));
        }
        (None, Some((at, _))) => {
            let (problem, remedy) = ("needs `into`", "write into = \"/srv/fetched\" below [fetch]");
            wrong.push((*at, Refusal::new("`watch`", problem, remedy)));
        }
        _ => {}
    }
    wrong.into_iter().for_each(|(at, refusal)| reader.note(at, refusal));
}

/// Everything lies beneath the folders that the box is to be kept to. State is reached anywhere.
fn check_kept_to(
    reader: &mut Reader<'_>,
    shares: &[Placed<&Path>],
    own: [(&str, &Option<Placed<PathBuf>>); 2],
    keep_to: &[PathBuf],
) {
    let own = own.iter().filter_map(|(key, placed)| {
        let (at, path) = placed.as_ref()?;
        Some((*at, *key, path.as_path()))
    });
    let all = shares.iter().map(|(at, path)| (*at, "share", *path)).chain(own);
    for (at, key, path) in all.filter(|(.., path)| !confine::is_within(path, keep_to)) {
        let problem = format!("{} lies beneath nothing that is kept to", path.display());
        let remedy = "name a folder above it under `keep-to`";
        reader.note(at, Refusal::new(format!("`{key}`"), problem, remedy));
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "check its spelling, or make one from `perennial config`",
        io::ErrorKind::PermissionDenied => "make it readable, or name another file",
        _ => "name a configuration file",
    };
    Refusal::new(path.display(), error, remedy)
}

/// A path in the environment.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Sections and keys.
const KEYS: Keys = &[
    ("", &["name", "board", "state", "keep-to", "network", "web", "caps", "share", "fetch", "log"]),
    ("[network]", &["listen", "lan-only", "dht", "dht-nodes", "trackers", "map-port"]),
    ("[web]", &["listen", "readers", "owner-outside", "hidden", "names"]),
    ("[caps]", &["up", "down", "torrent-up", "torrent-down", "lan"]),
    ("[[share]]", &["folder", "path", "piece-size", "trackers"]),
    ("[fetch]", &["into", "watch", "sequential", "reserve"]),
    ("[log]", &["level"]),
];

/// The longest file that is read, and so what bounds everything in it: 500 shares fit.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// Where a system's service keeps state (FHS).
const SYSTEM_STATE: &str = "/var/lib/perennial";
