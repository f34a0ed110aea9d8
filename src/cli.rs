//! What the command line takes, and what follows from it.

use clap::{Parser, Subcommand};
use perennial::service::board::Board;
use perennial::service::caps::{CapOptions, Rates};
use perennial::service::config::{self, Config};
use perennial::service::control::message::{self, Add, Claim, List, Move, Show, Which};
use perennial::service::control::tell::{self, Teller};
use perennial::service::control::what::What;
use perennial::service::control::{Client, PAGE_MAX, Request};
use perennial::service::options::{DhtOptions, Options, WebAt, WebOptions};
use perennial::service::units::{self, parse_piece_bytes};
use perennial::service::{Refusal, state, tracker};
use std::net::SocketAddr;
use std::path::PathBuf;

/// An always-on peer for small hardware: what it shares stays on the air while you sleep.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What it is to do.
#[derive(Subcommand)]
pub enum Command {
    /// Share files and folders with everybody, or with the house only
    Share(ShareArgs),
    /// Fetch torrents, and share each piece on as soon as it is there
    Get(GetArgs),
    #[command(flatten)]
    Tell(Tell),
    /// Run the box: serve all it was ever given, and do what its configuration says
    Run(RunArgs),
    /// Show the boards known, and what a board's memory is for
    Board {
        /// Its name; without one the board this machine is taken for
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration file with every key, its default and its meaning
    Config {
        /// Print nothing, but say what is wrong with this one
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
    },
}

/// What `share` takes.
#[derive(clap::Args)]
pub struct ShareArgs {
    /// Files and folders; each becomes one torrent
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Serve what this .torrent describes from PATH, after checking it
    #[arg(long, value_name = "FILE")]
    pub torrent: Option<PathBuf>,
    /// Piece length, a power of two from 16K to 16M
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_bytes, conflicts_with = "torrent")]
    pub piece_size: Option<u32>,
    /// Serve nothing: write an image for a board that runs firmware
    #[arg(long, value_name = "NAME")]
    pub for_board: Option<String>,
    /// The image's file, or the card it is for
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What `run` takes.
#[derive(clap::Args)]
pub struct RunArgs {
    /// The configuration; without it the usual one, if there is one (see `perennial config`)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep state here
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Use the sizes of this board; see `perennial board`
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Listen here
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Have the page here, or `off` for none
    #[arg(long, value_name = "ADDR:PORT", value_parser = WebAt::parse)]
    pub web: Option<WebAt>,
    /// Print one JSON object a line on stdout, and nothing else there
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// The configuration, with what the command line says instead.
    pub fn config(&self) -> Result<Config, Refusal> {
        let file = self.config.clone().or_else(config::usual_file);
        let mut config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        config.board = self.board.clone().or(config.board);
        config.state = self.state.clone().or(config.state);
        config.network.listen = self.listen.or(config.network.listen);
        config.web.at = self.web.unwrap_or(config.web.at);
        Ok(config)
    }
}

/// What `get` takes.
#[derive(clap::Args)]
pub struct GetArgs {
    /// Magnet links, `.torrent` files, and http or https URLs of these
    #[arg(required = true, value_name = "LINK")]
    pub links: Vec<PathBuf>,
    /// Put the content into this folder; without it into the one we are in
    #[arg(short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Fetch only files that match, such as '*.mkv' or 'Season 1/'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub files: Vec<String>,
    /// Fetch from front to back, to watch meanwhile
    #[arg(long)]
    pub sequential: bool,
    /// Stop when all of it is there
    #[arg(long)]
    pub exit: bool,
    /// Begin with this peer; may be given several times
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    pub peers: Vec<SocketAddr>,
    /// Fetch from this web server too; may be given several times
    #[arg(long = "web-seed", value_name = "URL")]
    pub web_seeds: Vec<String>,
    /// Write over files that lie there with other content
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What a running box can be told.
#[derive(Subcommand)]
pub enum Tell {
    /// Have the running box share files and folders, and fetch links
    Add(AddArgs),
    /// Have it forget torrents; what they are made of stays where it is
    Remove {
        #[command(flatten)]
        which: WhichArgs,
        /// Delete their files too
        #[arg(long)]
        delete: bool,
        /// Do not ask first
        #[arg(long, requires = "delete")]
        yes: bool,
    },
    /// Have it neither serve nor fetch torrents for now
    Pause(WhichArgs),
    /// Have it go on with them
    Resume(WhichArgs),
    /// List its torrents
    List {
        /// Only those with this in their name
        text: Option<String>,
        #[command(flatten)]
        at: BoxArgs,
    },
    /// Show all that is known of torrents
    Show(WhichArgs),
    /// Move a torrent's files; it is served meanwhile
    Move {
        /// Its info-hash, six digits of its front or more, or its name
        what: String,
        /// The folder they are to lie in
        to: PathBuf,
        #[command(flatten)]
        at: BoxArgs,
    },
    /// Have a box that was flashed become a newer version, from a signed file
    Update {
        /// What `scripts/make-update` has made
        file: PathBuf,
        #[command(flatten)]
        at: BoxArgs,
    },
    /// Show how the box is
    Stats(BoxArgs),
    /// Print where the box's page is, and open it where there is a browser
    Open(BoxArgs),
    /// Print the secret that the box is claimed with on its page
    Claim {
        /// Make a new one, and let every browser go that has claimed it
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        at: BoxArgs,
    },
    /// Stop the box
    Stop(BoxArgs),
}

/// Where the box is, and how it answers.
#[derive(clap::Args)]
pub struct BoxArgs {
    /// Its state folder
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print one JSON object a line on stdout, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// Which torrents.
#[derive(clap::Args)]
pub struct WhichArgs {
    /// Info-hashes, six digits of their fronts or more, or names; for pause and resume also `all`
    #[arg(required = true)]
    what: Vec<String>,
    #[command(flatten)]
    at: BoxArgs,
}

/// What `add` takes.
#[derive(clap::Args)]
pub struct AddArgs {
    /// Files and folders to share; magnet links, `.torrent` files and URLs of these to fetch
    #[arg(required = true, value_name = "PATH_OR_LINK")]
    what: Vec<PathBuf>,
    /// Put what is fetched into this folder; without it into the one configured
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Fetch only files that match, such as '*.mkv' or 'Season 1/'; may be given several times
    #[arg(long, value_name = "GLOB")]
    files: Vec<String>,
    /// Fetch from front to back, to watch meanwhile
    #[arg(long)]
    sequential: bool,
    /// Write over files that lie there with other content
    #[arg(long)]
    force: bool,
    /// Begin with this peer; may be given several times
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    peers: Vec<SocketAddr>,
    /// Fetch from this web server too; may be given several times
    #[arg(long = "web-seed", value_name = "URL")]
    web_seeds: Vec<String>,
    /// Serve what this .torrent describes from the one PATH, after checking it
    #[arg(long, value_name = "FILE")]
    torrent: Option<PathBuf>,
    /// Piece length, a power of two from 16K to 16M
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_bytes, conflicts_with = "torrent")]
    piece_size: Option<u32>,
    /// Announce to this tracker too; may be given several times
    #[arg(long = "tracker", value_name = "URL")]
    trackers: Vec<String>,
    #[command(flatten)]
    at: BoxArgs,
}

/// What `share` and `get` have in common.
#[derive(clap::Args)]
pub struct CommonArgs {
    /// For the house only: no tracker, and peers from elsewhere are refused
    #[arg(long, conflicts_with = "trackers")]
    pub lan: bool,
    /// Listen here; without it on port 6881, or the next free one to 6889
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Have the page here, or `off` for none; without it `share` has one on port 8080, or the next
    /// free one to 8089
    #[arg(long, value_name = "ADDR:PORT", value_parser = WebAt::parse)]
    pub web: Option<WebAt>,
    /// Use the sizes of this board; see `perennial board`
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Keep state here
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Announce to this tracker; may be given several times
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Take no part in the DHT
    #[arg(long)]
    no_dht: bool,
    /// Ask the DHT and answer nobody: for a router that is easily too small
    #[arg(long)]
    dht_read_only: bool,
    /// Enter the DHT here instead of at the well-known places; may be given several times
    #[arg(long = "dht-node", value_name = "HOST:PORT", value_parser = parse_host)]
    dht_nodes: Vec<(String, u16)>,
    /// Send no more than this: 2MB/s, 10mbit; peers in the house are free of it
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub up: Option<Rate>,
    /// Read no more than this
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub down: Option<Rate>,
    /// Of each torrent send no more than this
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub torrent_up: Option<Rate>,
    /// Of each torrent read no more than this
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub torrent_down: Option<Rate>,
    /// Caps hold for peers in the house too
    #[arg(long)]
    pub cap_lan: bool,
    /// Print one JSON object a line on stdout, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// A cap in bytes a second, or none.
#[derive(Clone, Copy)]
pub struct Rate(Option<u64>);

fn parse_host(text: &str) -> Result<(String, u16), String> {
    let example = "give a host and a port, such as router.example.org:6881";
    DhtOptions::parse_entry(text).ok_or_else(|| example.to_string())
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    units::parse_rate(text).map(Rate)
}

impl CommonArgs {
    /// The options, with nothing to share or to fetch yet.
    pub fn options(self) -> Result<Options, Refusal> {
        for address in &self.trackers {
            tracker::parse_tracker_url(address).map_err(|error| {
                let thing = format!("--tracker {address}");
                Refusal::new(thing, error, "give an http, https or udp URL")
            })?;
        }
        let board = Board::chosen(self.board.as_deref())?;
        let state = self.state.map_or_else(state::usual_folder, Ok)?;
        Ok(Options {
            lan: self.lan,
            listen: self.listen,
            web: WebOptions { at: self.web.unwrap_or_default(), ..WebOptions::default() },
            dht: DhtOptions {
                off: self.no_dht,
                read_only: self.dht_read_only,
                entries: self.dht_nodes,
            },
            caps: CapOptions {
                up: rates(self.up, self.torrent_up),
                down: rates(self.down, self.torrent_down),
                lan: self.cap_lan,
            },
            trackers: self.trackers,
            ..Options::new(board, state)
        })
    }
}

impl Tell {
    /// Tells it, and says what is answered.
    pub fn tell(self) -> Result<(), Refusal> {
        match self {
            Tell::Add(args) => {
                let (at, add) = args.request()?;
                at.teller(&mut std::io::stdout())?.ask(Request::Add(add))
            }
            Tell::Remove { which, delete, yes } => {
                which.each(|teller, what| teller.remove(what, delete, yes))
            }
            Tell::Pause(which) => {
                which.each(|teller, what| teller.ask(Request::Pause(Which { what })))
            }
            Tell::Resume(which) => {
                which.each(|teller, what| teller.ask(Request::Resume(Which { what })))
            }
            Tell::List { text, at } => {
                let list = List { filter: text.unwrap_or_default(), ..List::default() };
                at.teller(&mut std::io::stdout())?.ask(Request::List(list))
            }
            Tell::Show(which) => which.each(|teller, what| {
                teller.ask(Request::Show(Show { what, after: None, max: PAGE_MAX }))
            }),
            Tell::Move { what, to, at } => {
                let wish = Move { what: What::new(what), to: message::absolute(&to)? };
                at.teller(&mut std::io::stdout())?.ask(Request::Move(wish))
            }
            Tell::Update { file, at } => {
                let file = message::absolute(&file)?;
                at.teller(&mut std::io::stdout())?.ask(Request::Update(file))
            }
            Tell::Open(at) => at.teller(&mut std::io::stdout())?.open_page(),
            Tell::Claim { reset, at } => {
                // What is shared by `perennial share` cannot be told anything, and has a secret too.
                let state = at.state.clone().map_or_else(box_folder, Ok)?;
                if !reset && Client::connect(&state)?.is_none() && tell::claim_of(&state, at.json) {
                    return Ok(());
                }
                at.teller(&mut std::io::stdout())?.ask(Request::Claim(Claim { reset }))
            }
            Tell::Stats(at) => at.teller(&mut std::io::stdout())?.ask(Request::Stats),
            Tell::Stop(at) => at.teller(&mut std::io::stdout())?.ask(Request::Stop),
        }
    }
}

/// Where a box keeps its state that runs on the usual configuration.
pub fn box_folder() -> Result<PathBuf, Refusal> {
    let file = config::usual_file();
    file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?.state_folder()
}

impl BoxArgs {
    fn teller(self, out: &mut dyn std::io::Write) -> Result<Teller<'_>, Refusal> {
        let state = self.state.map_or_else(box_folder, Ok)?;
        let client = Client::connect_to_running(&state)?;
        Ok(Teller::new(client, self.json, out, tell::terminal_columns()))
    }
}

impl WhichArgs {
    fn each(
        self,
        mut tell: impl FnMut(&mut Teller<'_>, What) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let out = &mut std::io::stdout();
        let teller = &mut self.at.teller(out)?;
        self.what.into_iter().try_for_each(|what| tell(teller, What::new(what)))
    }
}

impl AddArgs {
    /// What is a link or a `.torrent` file is fetched, everything else shared.
    fn request(self) -> Result<(BoxArgs, Add), Refusal> {
        let (links, paths): (Vec<_>, Vec<_>) =
            self.what.into_iter().partition(|what| message::is_link(what));
        let mut add = Add {
            paths,
            links,
            into: self.into,
            files: self.files,
            sequential: self.sequential,
            force: self.force,
            peers: self.peers,
            web_seeds: self.web_seeds,
            torrent: self.torrent,
            piece_bytes: self.piece_size,
            trackers: self.trackers,
        };
        add.make_absolute()?;
        add.objection().map_or(Ok((self.at, add)), Err)
    }
}

fn rates(all: Option<Rate>, each: Option<Rate>) -> Rates {
    let rate = |rate: Option<Rate>| rate.and_then(|Rate(rate)| rate);
    Rates { all: rate(all), each: rate(each) }
}
