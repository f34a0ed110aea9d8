//! What the commands for a running box do: ask it, and say what it answers.
//!
//! With `--json` stdout has the lines as they came. Otherwise it has words, and questions and
//! progress are on stderr. Whoever has closed stdout has read enough: no more is asked for.

use super::Request;
use super::answer::{Answer, ClaimItem, Detail, Done, Progress, State};
use super::client::{Client, Heard};
use super::message::{Add, Claim, Remove, Show};
use super::show::{self, Table};
use super::what::What;
use crate::engine::units::InfoHash;
use crate::service::caps::CapOptions;
use crate::service::options::{DhtOptions, Options};
use crate::service::owner::Owner;
use crate::service::{Refusal, report};
use indicatif::ProgressBar;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::string::String;
use std::thread;
use std::time::Duration;
use std::vec::Vec;

/// Tells a box what the owner wants, and the owner what it says.
pub struct Teller<'o> {
    client: Client,
    out: Out<'o>,
    /// Columns of the terminal that answers go to.
    columns: Option<usize>,
}

impl<'o> Teller<'o> {
    /// Through `client`, to `out`, which is stdout and a terminal of so many columns, if any.
    pub fn new(client: Client, json: bool, out: &'o mut dyn Write, columns: Option<usize>) -> Self {
        Teller { client, out: Out { out, json, is_open: true }, columns }
    }

    /// Asks anything, and says what is answered.
    pub fn ask(&mut self, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Add(add) => {
                self.add(add)?;
                self.out.end("");
                Ok(())
            }
            Request::Stop => self.stop(),
            request => self.ask_in_words(request),
        }
    }

    /// Has a torrent forgotten. Deleting its files is asked for first; `yes` is the answer when
    /// nobody can be asked.
    pub fn remove(&mut self, what: What, delete: bool, yes: bool) -> Result<(), Refusal> {
        if !delete || yes {
            return self.ask(Request::Remove(Remove { what, delete }));
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let problem = "there is no terminal to ask on whether its files may go";
            return Err(Refusal::new("--delete", problem, "add --yes if they may"));
        }
        let detail = self.detail(what)?;
        let _ = write!(io::stderr(), "{}", question(&detail));
        let mut answer = String::new();
        // Without an answer it is no.
        let _ = io::stdin().read_line(&mut answer);
        if !is_yes(&answer) {
            let _ = writeln!(io::stderr(), "It is left as it was.");
            return Ok(());
        }
        // What was shown goes, and not what has taken its name meanwhile.
        let what = What::of(&detail.torrent.info_hash);
        self.ask(Request::Remove(Remove { what, delete }))
    }

    /// Says where the page is, and opens it where there is a desktop.
    pub fn open_page(&mut self) -> Result<(), Refusal> {
        let (page, _) = self.client.page(&Request::Claim(Claim::default()))?;
        let claim = page.into_iter().find_map(|heard| match heard.answer {
            Answer::Claim(claim) => Some(claim),
            _ => None,
        });
        let pages = claim.map(|claim| claim.pages).unwrap_or_default();
        let Some(first) = pages.first() else {
            let problem = "has no address that others in the house can reach";
            return Err(Refusal::new("the page", problem, "look at this machine's network"));
        };
        if self.out.json {
            self.out.put(&std::format!("{}\n", serde_json::json!({ "pages": pages })));
            return Ok(());
        }
        self.out.put(&std::format!("{}\n", pages.join("\n")));
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if is_set("DISPLAY") || is_set("WAYLAND_DISPLAY") {
            // Without a browser the address has been said.
            let _ = Command::new("xdg-open").arg(first).spawn();
        }
        Ok(())
    }

    /// Hands over what `share` or `get` is to do; with `--exit` until all of it is there.
    pub fn hand_over(&mut self, options: &Options) -> Result<(), Refusal> {
        if let Some(option) = option_of_the_box(options) {
            let problem = "belongs to the box that is running here";
            let remedy = "leave it out, or stop the box first with `perennial stop`";
            return Err(Refusal::new(option, problem, remedy));
        }
        let added = self.add(Add::of(options)?)?;
        if options.fetch.exit {
            added.iter().try_for_each(|info_hash| self.wait_for(info_hash))?;
        }
        self.out.end("");
        Ok(())
    }

    /// Adds, in as many requests as it takes; what has been added.
    fn add(&mut self, add: Add) -> Result<Vec<InfoHash>, Refusal> {
        let mut added = Vec::new();
        for part in add.split() {
            let mut bar = Bar::default();
            for heard in self.client.request(&Request::Add(part))? {
                let heard = heard?;
                match &heard.answer {
                    Answer::Progress(progress) => bar.show(progress),
                    Answer::Detail(detail) => {
                        added.push(detail.torrent.info_hash);
                        bar.clear();
                    }
                    _ => bar.clear(),
                }
                self.out.heard(&heard, |answer| match answer {
                    Answer::Detail(detail) => show::added(detail),
                    other => show::words(other, None),
                });
            }
        }
        Ok(added)
    }

    /// Waits until what was added is complete.
    fn wait_for(&mut self, info_hash: &InfoHash) -> Result<(), Refusal> {
        let mut bar = Bar::default();
        loop {
            let item = self.detail(What::of(info_hash))?.torrent;
            if item.state == State::Trouble {
                let trouble = item.trouble.as_deref().unwrap_or("is in trouble");
                let refusal = Refusal::new(&item.name, trouble, "look at `perennial show`");
                return Err(refusal.map(show::clean));
            }
            if item.bytes > 0 && item.here_bytes >= item.wanted_bytes {
                return Ok(());
            }
            bar.show(&Progress {
                thing: item.name,
                doing: "fetching".into(),
                done_bytes: item.here_bytes,
                all_bytes: item.wanted_bytes,
            });
            thread::sleep(LOOK_PAUSE);
        }
    }

    fn stop(&mut self) -> Result<(), Refusal> {
        let life = self.client.life();
        self.client.page(&Request::Stop)?;
        if life.is_some_and(|life| !life.ends_within(STOP_MS)) {
            let problem = std::format!("has not ended within {} s", STOP_MS / 1_000);
            return Err(Refusal::new("the box", problem, "look at its log"));
        }
        self.out.end("Stopped.\n");
        Ok(())
    }

    /// Whatever is answered within pages.
    fn ask_in_words(&mut self, request: Request) -> Result<(), Refusal> {
        let end = match &request {
            Request::Remove(Remove { delete: true, .. }) => "Removed, and its files deleted.\n",
            Request::Remove(_) => "Removed. Its files are where they were.\n",
            Request::Pause(which) if which.what.is_all() => "All are paused.\n",
            Request::Resume(which) if which.what.is_all() => "All go on.\n",
            Request::Update(_) => UPDATED,
            Request::Reload => "The configuration has been read.\n",
            _ => "",
        };
        let table = matches!(request, Request::List(_)).then(|| Table::fitted(self.columns));
        table.iter().for_each(|table| self.out.words(&table.head()));
        let mut before = None;
        for page in self.client.pages(request) {
            for heard in page? {
                self.out.heard(&heard, |answer| match (answer, &table) {
                    (Answer::Torrent(item), Some(table)) => table.row(item),
                    (answer, _) => show::words(answer, before.as_ref()),
                });
                before = Some(heard.answer);
            }
            if !self.out.is_open {
                return Ok(());
            }
        }
        self.out.end(end);
        Ok(())
    }

    fn detail(&self, what: What) -> Result<Detail, Refusal> {
        let (page, _) = self.client.page(&Request::Show(Show { what, after: None, max: 1 }))?;
        let detail = page.into_iter().find_map(|heard| match heard.answer {
            Answer::Detail(detail) => Some(*detail),
            _ => None,
        });
        let remedy = "use the same version of perennial as the box";
        detail.ok_or_else(|| Refusal::new("the box's answer", "says nothing of it", remedy))
    }
}

/// Says the secret that is kept in a state folder on which no box runs that could be asked; whether
/// there is one.
pub fn claim_of(state: &Path, json: bool) -> bool {
    let Some(owner) = Owner::kept(state) else { return false };
    let devices = owner.devices().iter().map(|device| device.name.clone()).collect();
    let item = ClaimItem { secret: owner.secret().into(), pages: Vec::new(), devices };
    let answer = Answer::Claim(item);
    let text = match json {
        true => serde_json::to_string(&answer).unwrap_or_default() + "\n",
        false => show::words(&answer, None),
    };
    // Whoever has closed stdout does not want to know.
    let _ = io::stdout().write_all(text.as_bytes());
    true
}

/// Columns of the terminal that stdout is, if it is one.
pub fn terminal_columns() -> Option<usize> {
    let stdout = io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    // A serial line has 0 columns, and nobody knows how many.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Where answers go.
struct Out<'o> {
    out: &'o mut dyn Write,
    json: bool,
    is_open: bool,
}

impl Out<'_> {
    /// A line of an answer: as it came, or in words.
    fn heard(&mut self, heard: &Heard, words: impl FnOnce(&Answer) -> String) {
        match self.json {
            true if matches!(heard.answer, Answer::Done(_)) => {}
            true => self.put(&std::format!("{}\n", heard.line)),
            false => self.put(&words(&heard.answer)),
        }
    }

    /// For people only.
    fn words(&mut self, text: &str) {
        if !self.json {
            self.put(text);
        }
    }

    /// All of it has been done.
    fn end(&mut self, text: &str) {
        let done = serde_json::to_string(&Answer::Done(Done::default())).unwrap_or_default();
        match self.json {
            true => self.put(&std::format!("{done}\n")),
            false => self.put(text),
        }
    }

    fn put(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.is_open &= written.is_ok();
    }
}

/// How far something is, on a terminal.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn show(&mut self, progress: &Progress) {
        if !io::stderr().is_terminal() {
            return;
        }
        let look = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let make = || ProgressBar::new(progress.all_bytes).with_style(report::style(look));
        let bar = self.0.get_or_insert_with(make);
        bar.set_length(progress.all_bytes);
        bar.set_message(show::clean(&std::format!("{}: {}", progress.thing, progress.doing)));
        bar.set_position(progress.done_bytes);
    }

    fn clear(&mut self) {
        self.0.take().iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is asked before files are deleted.
fn question(detail: &Detail) -> String {
    let item = &detail.torrent;
    let plural = if detail.files == 1 { "" } else { "s" };
    let (bytes, files) = (show::size(item.here_bytes), detail.files);
    let (name, path) = (show::clean(&item.name), show::clean(&item.path));
    std::format!(
        "{name} is removed, and its {files} file{plural} ({bytes}) in {path} deleted. \
         Really? [y/N] "
    )
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

/// An option that a running box has settled for all it does.
fn option_of_the_box(options: &Options) -> Option<&'static str> {
    let Options { lan, listen, dht, caps, .. } = options;
    let DhtOptions { off, read_only, entries } = dht;
    let given = [
        (*lan, "--lan"),
        (listen.is_some(), "--listen"),
        (*off, "--no-dht"),
        (*read_only, "--dht-read-only"),
        (!entries.is_empty(), "--dht-node"),
        (*caps != CapOptions::default(), "a cap"),
    ];
    given.into_iter().find_map(|(is_given, option)| is_given.then_some(option))
}

/// An update is where it is to be.
const UPDATED: &str = "It is on the card. The box starts it now, and returns to the version it had should \
                       the new one not do.\n";

/// Between two looks at what is waited for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A box stops within two seconds; a disk may hold up the last of it.
const STOP_MS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Board;
    use crate::service::control::answer::Item;

    fn options() -> Options {
        Options::new(Board::named("tiny").unwrap(), "/state".into())
    }

    #[test]
    fn the_question_says_what_goes_and_only_yes_is_yes() {
        let detail = Detail {
            torrent: Item {
                name: "film\u{1b}[2J".into(),
                here_bytes: 5 << 20,
                path: "/srv/film".into(),
                ..show::sample()
            },
            files: 3,
            ..show::sample_detail()
        };
        let wanted = "film\u{fffd}[2J is removed, and its 3 files (5.00 MiB) in /srv/film deleted. \
                      Really? [y/N] ";
        assert_eq!(question(&detail), wanted);
        for yes in ["y", "Y\n", "yes\n", " YES \r\n"] {
            assert!(is_yes(yes), "{yes}");
        }
        for no in ["", "\n", "n", "yess", "ja", "0"] {
            assert!(!is_yes(no), "{no}");
        }
    }

    #[test]
    fn what_the_box_has_settled_is_not_handed_over() {
        assert_eq!(option_of_the_box(&options()), None);
        let lan = Options { lan: true, ..options() };
        assert_eq!(option_of_the_box(&lan), Some("--lan"));
        let caps = CapOptions { lan: true, ..CapOptions::default() };
        assert_eq!(option_of_the_box(&Options { caps, ..options() }), Some("a cap"));
        let dht = DhtOptions { off: true, ..DhtOptions::default() };
        assert_eq!(option_of_the_box(&Options { dht, ..options() }), Some("--no-dht"));
    }
}
