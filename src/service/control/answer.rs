//! What a box answers, line by line.
//!
//! ```text
//! {"torrent":{"info_hash":"0a1b...","name":"film.mkv",...}}      {"done":{}}
//! ```
//!
//! Sizes are bytes, rates bytes a second, times seconds; a moment is in seconds since 1970. What is
//! not known is left out. Whoever reads passes over fields it does not know.

pub use super::what::hex;
use crate::engine::units::InfoHash;
use crate::service::Refusal;
use serde::{Deserialize, Serialize};
use std::boxed::Box;
use std::net::SocketAddr;
use std::string::String;
use std::vec::Vec;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A torrent.
    Torrent(Item),
    /// A torrent, with all that is known of it.
    Detail(Box<Detail>),
    /// One of its trackers.
    Tracker(TrackerItem),
    /// One of its files.
    File(FileItem),
    /// What the page is claimed with.
    Claim(ClaimItem),
    /// How the box is.
    Stats(Box<Stats>),
    /// A disk or other place that content lies on.
    Volume(VolumeItem),
    /// How often something woke the box.
    WakeUps(WakeUps),
    /// What was asked for takes its time. Sent at once.
    Progress(Progress),
    /// The last line: it has been done.
    Done(Done),
    /// The last line: it has not been done, or not all of it.
    Error(Refusal),
}

/// The end of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// There is more: what `after` of the next page is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// How a torrent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Somebody is connected for it.
    Serving,
    /// It can be had, and nobody asks.
    #[default]
    Resting,
    /// It is not all here yet.
    Fetching,
    /// The owner wants it neither served nor fetched.
    Paused,
    /// The volume it lies on is away.
    Asleep,
    /// Something is wrong with it; `trouble` says what.
    Trouble,
}

/// A torrent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its info-hash.
    #[serde(with = "hex")]
    pub info_hash: InfoHash,
    /// Its name.
    pub name: String,
    /// All of its content; 0 as long as nothing but its name is known.
    pub bytes: u64,
    /// How it is.
    pub state: State,
    /// What is wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How much of its content is wanted here.
    pub wanted_bytes: u64,
    /// How much of that is here and verified.
    pub here_bytes: u64,
    /// Content sent since it was added.
    pub sent_bytes: u64,
    /// Who is connected for it.
    pub peers: u32,
    /// When it was added, in seconds since 1970; 0 when the box did not know the time.
    pub added_s: u64,
    /// Where its content lies.
    pub path: String,
}

/// All that is known of a torrent but its trackers and files, which follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What a list says of it.
    pub torrent: Item,
    /// How many files it has.
    pub files: u64,
    /// How many of them are wanted.
    pub wanted_files: u64,
    /// Length of a piece.
    pub piece_bytes: u32,
    /// How many pieces it has.
    pub pieces: u32,
    /// How many are here and verified.
    pub pieces_here: u32,
    /// Who has all of it and is connected. A box that has it all lets go of them: neither has
    /// anything to give to the other.
    #[serde(default)]
    pub complete_peers: u32,
    /// When all of it was last held against its hashes, in seconds since 1970; left out before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_s: Option<u64>,
    /// What may be sent of it, in bytes a second, where it has a cap of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_up: Option<u64>,
    /// The same of what may be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_down: Option<u64>,
    /// It is fetched from front to back.
    pub sequential: bool,
    /// Peers are found by its trackers only (BEP 27).
    pub private: bool,
    /// The link for everybody.
    pub magnet: String,
    /// Where its `.torrent` is, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torrent_file: Option<String>,
    /// The volume it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Its content is on its way elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

/// Content that is copied elsewhere, and served from where it was meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Where it will be.
    pub to: String,
    /// Copied so far.
    pub copied_bytes: u64,
}

/// A tracker of a torrent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerItem {
    /// Its address.
    pub url: String,
    /// Why it did not answer when last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long ago it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ago_s: Option<u64>,
    /// Who has all of it, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u32>,
    /// Who has not, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leechers: Option<u32>,
}

/// A file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileItem {
    /// Its path below the torrent's own.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// How much of it is here and verified.
    pub here_bytes: u64,
    /// It is wanted.
    pub wanted: bool,
}

/// What the page is claimed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimItem {
    /// 32 hex digits.
    pub secret: String,
    /// Where the page is.
    pub pages: Vec<String>,
    /// What has claimed it.
    pub devices: Vec<String>,
}

/// How the box is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Of the program.
    pub version: String,
    /// Whose sizes are used.
    pub board: String,
    /// The state folder.
    pub state: String,
    /// How long it has run.
    pub uptime_s: u64,
    /// Memory.
    pub memory: Memory,
    /// Connections.
    pub peers: Peers,
    /// The library.
    pub torrents: Torrents,
    /// What is written to the state folder.
    pub written: Written,
    /// The pass of announces through the library.
    pub announces: Announces,
    /// How others reach the box.
    pub reach: Reach,
    /// Nodes of the DHT that are known; left out when the box takes no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dht_nodes: Option<u32>,
    /// Where its page is, for whoever is in the house.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<String>,
    /// The folders the kernel keeps it to; left out when it keeps it to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_to: Vec<String>,
    /// Content sent since the start.
    pub sent_bytes: u64,
    /// Content read from others since the start.
    pub received_bytes: u64,
}

/// Memory against the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: u64,
    /// Resident at most, as the board's profile has it.
    pub contract_bytes: u64,
}

/// Connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Now.
    pub connected: u32,
    /// At most.
    pub max: u32,
    /// What is sent to them now.
    pub up_rate: u64,
    /// What is read from them now.
    pub down_rate: u64,
}

/// How many torrents are how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torrents {
    /// All there are.
    pub all: u64,
    /// See [`State`].
    pub serving: u64,
    /// See [`State`].
    pub resting: u64,
    /// See [`State`].
    pub fetching: u64,
    /// See [`State`].
    pub paused: u64,
    /// See [`State`].
    pub asleep: u64,
    /// See [`State`].
    pub trouble: u64,
}

/// What is written to the state folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// To the journal since the start.
    pub journal_bytes: u64,
    /// Checkpoints into the slots since the start.
    pub checkpoints: u64,
}

/// Where the rolling pass of announces is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announces {
    /// How long ago this pass began.
    pub begun_ago_s: u64,
    /// Torrents it has told of.
    pub told: u64,
    /// Torrents it is to tell of.
    pub all: u64,
    /// How long a whole pass takes; left out before the first has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_s: Option<u64>,
}

/// How others reach the box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The port it listens at.
    pub port: u16,
    /// Where others see it, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<SocketAddr>,
    /// What the router said, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeItem {
    /// What tells it from others.
    pub name: String,
    /// Where it was seen last.
    pub path: String,
    /// How it is: `here`, `away`, `twice`, `full`, `read-only`, `failing`.
    pub state: String,
    /// Free on it; left out when it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Torrents that lie on it.
    pub torrents: u64,
}

/// How often one kind of deadline has woken the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeUps {
    /// What for.
    pub why: String,
    /// Since the start.
    pub count: u64,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// With what.
    pub thing: String,
    /// What is done with it: `hashing`, `copying`.
    pub doing: String,
    /// So far.
    pub done_bytes: u64,
    /// Of so many.
    pub all_bytes: u64,
}
