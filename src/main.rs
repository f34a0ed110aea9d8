//! The command line.

use clap::{Parser, Subcommand};
use perennial::service::board::Board;
use perennial::service::fetch::open;
use perennial::service::image::{self, Target};
use perennial::service::life;
use perennial::service::options::{FetchOptions, Options};
use perennial::service::report::{self, Report};
use perennial::service::units::parse_piece_bytes;
use perennial::service::{Refusal, state, tracker};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// An always-on peer for small hardware: what it shares stays on the air while you sleep.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Share files and folders with everybody, or with the house only
    Share(ShareArgs),
    /// Fetch torrents, and share each piece on as soon as it is there
    Get(GetArgs),
    /// Show the boards known, and what a board's memory is for
    Board {
        /// Its name; without one the board this machine is taken for
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct ShareArgs {
    /// Files and folders; each becomes one torrent
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Serve what this .torrent describes from PATH, after checking it
    #[arg(long, value_name = "FILE")]
    torrent: Option<PathBuf>,
    /// Piece length, a power of two from 16K to 16M
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_bytes, conflicts_with = "torrent")]
    piece_size: Option<u32>,
    /// Serve nothing: write an image for a board that runs firmware
    #[arg(long, value_name = "NAME")]
    for_board: Option<String>,
    /// The image's file, or the card it is for
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(clap::Args)]
struct GetArgs {
    /// Magnet links and `.torrent` files
    #[arg(required = true, value_name = "LINK")]
    links: Vec<PathBuf>,
    /// Put the content into this folder; without it into the one we are in
    #[arg(short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Fetch only files that match, such as '*.mkv' or 'Season 1/'; may be given several times
    #[arg(long, value_name = "GLOB")]
    files: Vec<String>,
    /// Fetch from front to back, to watch meanwhile
    #[arg(long)]
    sequential: bool,
    /// Stop when all of it is there
    #[arg(long)]
    exit: bool,
    /// Begin with this peer; may be given several times
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    peers: Vec<SocketAddr>,
    /// Write over files that lie there with other content
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// What `share` and `get` have in common.
#[derive(clap::Args)]
struct CommonArgs {
    /// For the house only: no tracker, and peers from elsewhere are refused
    #[arg(long, conflicts_with = "trackers")]
    lan: bool,
    /// Listen here; without it on port 6881, or the next free one to 6889
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Use the sizes of this board; see `perennial board`
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Keep state here
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Announce to this tracker; may be given several times
    #[arg(long = "tracker", value_name = "URL")]
    trackers: Vec<String>,
    /// Print one JSON object a line on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    log_to_stderr();
    let done = match Cli::parse().command {
        Command::Share(args) => share(args),
        Command::Get(args) => get(args),
        Command::Board { name, json } => board(name.as_deref(), json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = writeln!(std::io::stderr(), "perennial: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn share(args: ShareArgs) -> Result<(), Refusal> {
    if args.torrent.is_some() && args.paths.len() > 1 {
        return Err(Refusal::new("--torrent", "describes one PATH", "name just that one"));
    }
    let common = &args.common;
    let (board, listen) = (common.board.is_some(), common.listen.is_some());
    let serving = [("--board", board), ("--lan", common.lan), ("--listen", listen)];
    let target = Target::chosen(args.for_board.as_deref(), args.output, &serving)?;
    let report = &mut Report::new(common.json);
    let mut options = args.common.options()?;
    options.paths = args.paths;
    options.torrent = args.torrent;
    options.piece_bytes = args.piece_size;
    match target {
        None => life::live(&options, report),
        Some(target) => image::make(&target, &options, report),
    }
}

fn get(args: GetArgs) -> Result<(), Refusal> {
    args.files.iter().try_for_each(|pattern| open::check_pattern(pattern))?;
    let report = &mut Report::new(args.common.json);
    let mut options = args.common.options()?;
    options.fetch = FetchOptions {
        links: args.links,
        output: args.output.unwrap_or_else(|| PathBuf::from(".")),
        files: args.files,
        sequential: args.sequential,
        exit: args.exit,
        peers: args.peers,
        force: args.force,
    };
    life::live(&options, report)
}

impl CommonArgs {
    /// The options, with nothing to share or to fetch yet.
    fn options(self) -> Result<Options, Refusal> {
        for address in &self.trackers {
            tracker::parse_tracker_url(address).map_err(|error| {
                let thing = format!("--tracker {address}");
                Refusal::new(thing, error, "give an http, https or udp URL")
            })?;
        }
        Ok(Options {
            paths: Vec::new(),
            fetch: FetchOptions::default(),
            torrent: None,
            piece_bytes: None,
            lan: self.lan,
            listen: self.listen,
            board: Board::chosen(self.board.as_deref())?,
            state: self.state.map_or_else(state::usual_folder, Ok)?,
            trackers: self.trackers,
        })
    }
}

fn board(name: Option<&str>, json: bool) -> Result<(), Refusal> {
    let text = report::describe(&Board::chosen(name)?, json);
    // Whoever has closed stdout does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Warnings and what the box is doing, on stderr; `RUST_LOG` says otherwise.
fn log_to_stderr() {
    let wanted = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(wanted)
        .format(|out, record| {
            let level = match record.level() {
                log::Level::Info => String::new(),
                level => format!("{}: ", level.as_str().to_lowercase()),
            };
            writeln!(out, "{level}{}", record.args())
        })
        .init();
}
