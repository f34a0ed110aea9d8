//! The command line.

use clap::{Parser, Subcommand};
use perennial::service::board::Board;
use perennial::service::image::{self, Target};
use perennial::service::life::{self, Options};
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
    /// For the house only: no tracker, and peers from elsewhere are refused
    #[arg(long, conflicts_with = "trackers")]
    lan: bool,
    /// Listen here; without it on port 6881, or the next free one to 6889
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Use the sizes of this board; see `perennial board`
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Serve nothing: write an image for a board that runs firmware
    #[arg(long, value_name = "NAME")]
    for_board: Option<String>,
    /// The image's file, or the card it is for
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
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
    for address in &args.trackers {
        tracker::parse_tracker_url(address).map_err(|error| {
            Refusal::new(format!("--tracker {address}"), error, "give an http, https or udp URL")
        })?;
    }
    let (board, listen) = (args.board.is_some(), args.listen.is_some());
    let serving = [("--board", board), ("--lan", args.lan), ("--listen", listen)];
    let target = Target::chosen(args.for_board.as_deref(), args.output, &serving)?;
    let options = Options {
        paths: args.paths,
        torrent: args.torrent,
        piece_bytes: args.piece_size,
        lan: args.lan,
        listen: args.listen,
        board: Board::chosen(args.board.as_deref())?,
        state: args.state.map_or_else(state::usual_folder, Ok)?,
        trackers: args.trackers,
    };
    let report = &mut Report::new(args.json);
    match target {
        None => life::share(&options, report),
        Some(target) => image::make(&target, &options, report),
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
