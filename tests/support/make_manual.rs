//! Writes what belongs to an installed program beside itself: man pages and shell completions, made
//! from the command line's own definition, and the default configuration.
//!
//!     cargo run --example make-manual -- target/manual

#[path = "../../src/cli.rs"]
#[allow(dead_code, reason = "the command line is described here, and nothing is done")]
mod cli;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};
use perennial::service::config;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: make-manual FOLDER");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make-manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let command = || cli::Cli::command().name(NAME);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command(), NAME, &completions)?;
    }
    clap_mangen::generate_to(command().disable_help_subcommand(true), &man)?;
    let mut front = OpenOptions::new().append(true).open(man.join("perennial.1"))?;
    let mut files = Roff::new();
    files.control("SH", ["FILES"]);
    for (file, what) in FILES {
        files.control("TP", []).text([roman(file)]).text([roman(what)]);
    }
    files.to_writer(&mut front)?;
    fs::write(folder.join("perennial.toml"), config::commented())
}

/// What the program reads and writes when nobody says where.
const FILES: [(&str, &str); 4] = [
    ("/etc/perennial/perennial.toml", "What perennial run goes by; each key says what it means."),
    ("~/.config/perennial/perennial.toml", "The same for one account, instead of it."),
    ("/var/lib/perennial", "What a box remembers that the system starts."),
    ("~/.local/state/perennial", "What others remember."),
];

const NAME: &str = "perennial";
