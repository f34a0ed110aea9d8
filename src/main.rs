//! The command line.

mod cli;

use clap::Parser;
use cli::{Cli, Command, GetArgs, RunArgs, ShareArgs};
#[cfg(target_os = "linux")]
use perennial::init;
use perennial::service::board::Board;
use perennial::service::config::{self, Config};
use perennial::service::control::Client;
use perennial::service::control::tell::{self, Teller};
use perennial::service::fetch::open;
use perennial::service::image::{self, Target};
use perennial::service::life::{self, Host};
use perennial::service::log_lines::{self, Style};
use perennial::service::notify::Notify;
use perennial::service::options::{FetchOptions, Options, WebAt};
use perennial::service::report::{self, Report};
use perennial::service::{Refusal, webseed};
use perennial::web;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let style = Style::of_stderr();
    log_lines::start(style);
    #[cfg(target_os = "linux")]
    if init::is_first() {
        init::run(&web::run);
    }
    let done = match Cli::parse().command {
        Command::Share(args) => share(args),
        Command::Get(args) => get(args),
        Command::Run(args) => run(&args),
        Command::Tell(tell) => tell.tell(),
        Command::Board { name, json } => board(name.as_deref(), json),
        Command::Config { check } => config(check.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = style.write_refusal(&mut std::io::stderr(), &refusal);
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
    let named = args.common.state.is_some();
    let mut options = args.common.options()?;
    options.paths = args.paths;
    options.torrent = args.torrent;
    options.piece_bytes = args.piece_size;
    match target {
        None if handed_over(named, &options, report)? => Ok(()),
        None => life::live(&options, report, &web::run),
        Some(target) => image::make(&target, &options, report),
    }
}

fn get(args: GetArgs) -> Result<(), Refusal> {
    args.files.iter().try_for_each(|pattern| open::check_pattern(pattern))?;
    args.web_seeds.iter().try_for_each(|url| webseed::check_url(url))?;
    let report = &mut Report::new(args.common.json);
    let named = args.common.state.is_some();
    let off = args.common.web.is_none();
    let mut options = args.common.options()?;
    if off {
        options.web.at = WebAt::Off;
    }
    options.fetch = FetchOptions {
        links: args.links,
        output: args.output.unwrap_or_else(|| PathBuf::from(".")),
        files: args.files,
        sequential: args.sequential,
        exit: args.exit,
        peers: args.peers,
        web_seeds: args.web_seeds,
        trackers: Vec::new(),
        force: args.force,
    };
    if handed_over(named, &options, report)? {
        Ok(())
    } else {
        life::live(&options, report, &web::run)
    }
}

/// Whether a box runs already, on that state folder or, where none was `named`, on the usual
/// configuration; it has then been told.
fn handed_over(named: bool, options: &Options, report: &Report) -> Result<bool, Refusal> {
    let client = match Client::connect(&options.state)? {
        None if !named => Client::connect(&cli::box_folder()?)?,
        client => client,
    };
    let Some(client) = client else { return Ok(false) };
    let (out, columns) = (&mut std::io::stdout(), tell::terminal_columns());
    Teller::new(client, report.is_json(), out, columns).hand_over(options)?;
    Ok(true)
}

fn run(args: &RunArgs) -> Result<(), Refusal> {
    let config = args.config()?;
    log_lines::set_level(config.level);
    let host = Host { notify: Notify::from_env(), slots: None };
    let report = &mut Report::new(args.json);
    life::run(config, &|| args.config(), host, report, &web::run).map(|_| ())
}

fn board(name: Option<&str>, json: bool) -> Result<(), Refusal> {
    print(&report::describe(&Board::chosen(name)?, json));
    Ok(())
}

fn config(check: Option<&Path>) -> Result<(), Refusal> {
    let Some(file) = check else {
        print(config::commented());
        return Ok(());
    };
    Config::read(file)?;
    print(&format!("{}: nothing is wrong with it\n", file.display()));
    Ok(())
}

fn print(text: &str) {
    // Whoever has closed stdout does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
