//! What the owner asked for, and how it is taken up before anybody is met.
//!
//! Paths are hashed or found to be known, torrents begun or gone on with. What is only a name yet, a
//! magnet link, is left for [`magnet`](super::fetch::magnet) to look for once there is a swarm.

use super::Refusal;
use super::board::Board;
use super::caps::CapOptions;
use super::fetch::download;
use super::fetch::magnet::Lead;
use super::fetch::open::{self, Taken};
use super::report::Report;
use super::share::{Progress, Share, Wish, Workshop};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// What the owner asked for on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything that is known is served, not only what is named.
    pub all_that_is_known: bool,
    /// Files and folders to share.
    pub paths: Vec<PathBuf>,
    /// Torrents to fetch.
    pub fetch: FetchOptions,
    /// The torrent they are content of, when it was made elsewhere.
    pub torrent: Option<PathBuf>,
    /// Piece length, when it is not left to us.
    pub piece_bytes: Option<u32>,
    /// For the house only.
    pub lan: bool,
    /// The router is asked to let others in.
    pub map_port: bool,
    /// Where to listen, when it is not left to us.
    pub listen: Option<SocketAddr>,
    /// The distributed hash table.
    pub dht: DhtOptions,
    /// Its page.
    pub web: WebOptions,
    /// Caps on bandwidth.
    pub caps: CapOptions,
    /// The board's sizes.
    pub board: Board,
    /// The state folder.
    pub state: PathBuf,
    /// Trackers to announce to.
    pub trackers: Vec<String>,
    /// The folders that everything lies beneath, if it is to be kept to any.
    pub keep_to: Vec<PathBuf>,
    /// Where the rest of this was read from, and is read again.
    pub config_file: Option<PathBuf>,
}

impl Options {
    /// Nothing to share or to fetch yet, and everything else as it is when nobody says otherwise.
    pub fn new(board: Board, state: PathBuf) -> Options {
        Options {
            all_that_is_known: false,
            paths: Vec::new(),
            fetch: FetchOptions::default(),
            torrent: None,
            piece_bytes: None,
            lan: false,
            map_port: true,
            listen: None,
            dht: DhtOptions::default(),
            web: WebOptions::default(),
            caps: CapOptions::default(),
            board,
            state,
            trackers: Vec::new(),
            keep_to: Vec::new(),
            config_file: None,
        }
    }
}

/// The box's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebOptions {
    /// Where it is.
    pub at: WebAt,
    /// Who may look without having claimed the box.
    pub readers: Readers,
    /// Whoever has claimed it may change things from outside the house too.
    pub owner_outside: bool,
    /// Nothing is said of it on the LAN, and other boxes are not looked for.
    pub hidden: bool,
    /// What it is called beside its own name and its addresses.
    pub names: Vec<String>,
    /// What people know the box by, when that is not the name of the machine.
    pub name: Option<String>,
    /// The folder that is given files, and whose entries are shared.
    pub drop_folder: Option<PathBuf>,
}

/// Where a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebAt {
    /// At the first free port of the usual ones, of every address or of that peers connect to.
    #[default]
    Usual,
    /// Here.
    Here(SocketAddr),
    /// Nowhere.
    Off,
}

impl WebAt {
    /// `ADDR:PORT`, `auto` or `off`.
    pub fn parse(text: &str) -> Result<WebAt, String> {
        match text {
            "auto" => Ok(WebAt::Usual),
            "off" => Ok(WebAt::Off),
            address => address.parse().map(WebAt::Here).map_err(|_| {
                std::format!("`{address}` is no address with a port, and neither `auto` nor `off`")
            }),
        }
    }
}

/// Who may look at a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// Whoever is in the house.
    #[default]
    House,
    /// Whoever can reach it.
    Everybody,
    /// Nobody but its owner.
    Owner,
}

impl Readers {
    /// A word of the configuration.
    pub fn parse(text: &str) -> Result<Readers, String> {
        match text {
            "house" => Ok(Readers::House),
            "everybody" => Ok(Readers::Everybody),
            "owner" => Ok(Readers::Owner),
            other => Err(std::format!("`{other}` is none of `house`, `everybody`, `owner`")),
        }
    }
}

/// How the box takes part in the distributed hash table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtOptions {
    /// Not at all.
    pub off: bool,
    /// It asks and does not answer (BEP 43).
    pub read_only: bool,
    /// Entries to the network: host and port. Well-known ones when there is none.
    pub entries: Vec<(String, u16)>,
}

impl DhtOptions {
    /// An entry as people write it: a host and a port, with a colon between them.
    pub fn parse_entry(text: &str) -> Option<(String, u16)> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = host.trim_matches(['[', ']']);
        (!host.is_empty()).then(|| (host.into(), port))
    }
}

/// What is to be fetched, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// Magnet links, `.torrent` files and URLs of these.
    pub links: Vec<PathBuf>,
    /// Where content goes.
    pub output: PathBuf,
    /// Patterns of the files that are wanted; all are when there is none.
    pub files: Vec<String>,
    /// From front to back.
    pub sequential: bool,
    /// Over when all of it is there.
    pub exit: bool,
    /// Peers to begin with.
    pub peers: Vec<SocketAddr>,
    /// Web seeds beside those that torrents name.
    pub web_seeds: Vec<String>,
    /// Trackers of these links alone that the owner names.
    pub trackers: Vec<String>,
    /// What lies in the target folder may be written over.
    pub force: bool,
}

/// What was asked for, as far as it can be taken up before anybody is met.
#[derive(Default)]
pub struct Opened {
    /// What is shared, or fetched, or both.
    pub taken: Vec<Taken>,
    /// Torrents of which nothing but the name is known.
    pub leads: Vec<Lead>,
}

/// Takes up every path and every link, one after the other.
pub async fn open_all(
    workshop: &mut Workshop<'_>,
    options: &Options,
    report: &mut Report,
) -> Result<Opened, Refusal> {
    let (board, fetch) = (&options.board, &options.fetch);
    let count = options.paths.len() + fetch.links.len();
    let mut opened = Opened::default();
    if count > usize::from(board.pools.seeding_max) {
        let most = std::format!("the board shares {} at a time", board.pools.seeding_max);
        return Err(Refusal::new("paths", most, "name fewer, or choose a larger board"));
    }
    for link in &fetch.links {
        let brought = bring_link(workshop, link).await?;
        open_link(workshop, options, (link, brought), &mut opened, report).await?;
    }
    for path in &options.paths {
        let wish = Wish::of(path, options);
        let share = workshop.open(wish, report).await?;
        if is_among(&opened.taken, &share) {
            warn!("{}: is shared already", path.display());
            continue;
        }
        opened.taken.push(Taken { share, errand: None, peers: Vec::new(), made: None });
    }
    Ok(opened)
}

/// Brings the `.torrent` behind a URL into a new folder; nothing when `link` is none.
pub async fn bring_link(
    workshop: &mut Workshop<'_>,
    link: &Path,
) -> Result<Option<PathBuf>, Refusal> {
    let text = link.to_str().unwrap_or_default();
    if !download::is_url(text) {
        return Ok(None);
    }
    let folder = workshop.new_folder().await?;
    download::download(workshop.lanes, text, &folder.join(BROUGHT)).await?;
    Ok(Some(folder))
}

/// Takes up one link: what is known already, what lies in a file or on the web; or leaves what is
/// only a name.
pub async fn open_link(
    workshop: &mut Workshop<'_>,
    options: &Options,
    (link, brought): (&Path, Option<PathBuf>),
    opened: &mut Opened,
    progress: &mut impl Progress,
) -> Result<(), Refusal> {
    let text = link.to_str().unwrap_or_default();
    let lead = text.starts_with("magnet:").then(|| Lead::parse(text)).transpose()?;
    let known = match &lead {
        Some(lead) => workshop.known(&lead.info_hash).await.and_then(|(_, known)| known),
        None => None,
    };
    let torrent = match (&lead, known) {
        (_, Some(known)) => known.torrent,
        (Some(lead), None) => {
            match opened.leads.iter().any(|other| other.info_hash == lead.info_hash) {
                true => warn!("{}: is fetched already", link.display()),
                false => opened.leads.push(lead.clone()),
            }
            return Ok(());
        }
        (None, None) => match &brought {
            Some(folder) => folder.join(BROUGHT),
            None => link.to_path_buf(),
        },
    };
    let wish = open::Wish { torrent: &torrent, fetch: &options.fetch };
    let mut taken = workshop.fetch(wish, progress).await?;
    if let Some(folder) = brought {
        // What is in it has been copied; should it stay, the next start clears it away.
        let _ = std::fs::remove_dir_all(folder);
    }
    taken.share.add_trackers(&options.trackers);
    if let Some(lead) = lead {
        taken.share.add_trackers(&lead.trackers);
        taken.peers = lead.peers;
    }
    if is_among(&opened.taken, &taken.share) {
        warn!("{}: is fetched already", link.display());
    } else {
        // What a link only named is known now.
        opened.leads.retain(|lead| lead.info_hash != taken.share.info_hash);
        opened.taken.push(taken);
    }
    Ok(())
}

fn is_among(all: &[Taken], share: &Share) -> bool {
    all.iter().any(|other| other.share.info_hash == share.info_hash)
}

/// What a `.torrent` that is brought is called.
const BROUGHT: &str = "brought.torrent";
