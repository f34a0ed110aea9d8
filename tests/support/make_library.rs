//! Makes a state folder that knows any number of torrents: see `scripts/make-library`.

#[path = "library.rs"]
mod library;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next();
    let count = next().and_then(|count| count.to_str()?.parse().ok());
    let (Some(count), Some(state), Some(content)) = (count, next(), next()) else {
        eprintln!("usage: scripts/make-library COUNT STATE CONTENT [TRACKER]");
        return ExitCode::from(2);
    };
    let (state, content) = (PathBuf::from(state), PathBuf::from(content));
    let tracker = next().map(|tracker| tracker.to_string_lossy().into_owned());
    let (tracker, board) = (tracker.as_deref(), "small");
    let wish = library::Wish { count, state: &state, content: &content, tracker, board };
    match library::make(wish) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make-library: {error}");
            ExitCode::FAILURE
        }
    }
}
