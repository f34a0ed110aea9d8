//! Answers as people read them: a table of torrents, and everything about one or about the box in words.
//!
//! Names come from strangers. What would steer a terminal or turn the direction of what is written
//! never reaches one, and a name takes as many columns as it is wide, not as it has letters. A
//! table is fitted to its terminal before its first row is known: rows come page after page.

use super::answer::{
    Answer, ClaimItem, Detail, FileItem, Item, State, Stats, Torrents, TrackerItem, VolumeItem,
    WakeUps,
};
use crate::service::owner::{claim_link, in_fours};
use crate::service::qr;
use indicatif::HumanDuration;
use std::format;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A table of torrents.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Columns for names.
    name_width: usize,
    /// Names are cut to that.
    cuts: bool,
}

impl Table {
    /// A table for a terminal of so many columns; where there is none, names are not cut.
    pub fn fitted(terminal: Option<usize>) -> Table {
        let left = terminal.map_or(0, |columns| columns.saturating_sub(OTHER_COLUMNS));
        Table { name_width: left.max(NAME_COLUMNS_MIN), cuts: terminal.is_some() }
    }

    /// Its head.
    pub fn head(&self) -> String {
        self.line(["HASH", "NAME", "SIZE", "STATE", "SENT", "PEERS"])
    }

    /// A torrent.
    pub fn row(&self, item: &Item) -> String {
        let hash: String = item.info_hash.to_string().chars().take(HASH_DIGITS).collect();
        let (name, state) = (self.cut(&clean(&item.name)), state_word(item));
        let (size, sent) = (size(item.bytes), self::size(item.sent_bytes));
        self.line([&hash, &name, &size, &state, &sent, &item.peers.to_string()])
    }

    fn line(&self, [hash, name, size, state, sent, peers]: [&str; 6]) -> String {
        let blank = " ".repeat(self.name_width.saturating_sub(name.width()));
        format!("{hash:<8}  {name}{blank}  {size:>8}  {state:<12}  {sent:>8}  {peers:>5}\n")
    }

    fn cut(&self, name: &str) -> String {
        if !self.cuts || name.width() <= self.name_width {
            return name.to_string();
        }
        let mut columns = 1;
        let fits = |char: &char| {
            columns += char.width().unwrap_or(0);
            columns <= self.name_width
        };
        let mut cut: String = name.chars().take_while(fits).collect();
        cut.push('\u{2026}');
        cut
    }
}

/// Any line of an answer; the one `before` it tells where a heading belongs.
pub fn words(answer: &Answer, before: Option<&Answer>) -> String {
    match answer {
        Answer::Torrent(item) => format!("{}: {}\n", clean(&item.name), state_words(item)),
        Answer::Detail(detail) => detail_words(detail),
        Answer::Tracker(tracker) => tracker_words(tracker),
        Answer::File(file) => {
            let heading = !matches!(before, Some(Answer::File(_)));
            heading_if(heading, "  files\n") + &file_words(file)
        }
        Answer::Claim(claim) => claim_words(claim),
        Answer::Stats(stats) => stats_words(stats),
        Answer::Volume(volume) => {
            let heading = !matches!(before, Some(Answer::Volume(_)));
            heading_if(heading, "  volumes\n") + &volume_words(volume)
        }
        Answer::WakeUps(woken) => {
            let heading = !matches!(before, Some(Answer::WakeUps(_)));
            heading_if(heading, "  woken\n") + &woken_words(woken)
        }
        Answer::Progress(_) | Answer::Done(_) | Answer::Error(_) => String::new(),
    }
}

fn claim_words(claim: &ClaimItem) -> String {
    let mut text = format!("Claim the box with this secret: {}\n", in_fours(&claim.secret));
    if let Some(page) = claim.pages.first() {
        text += &format!("Its page is at {page}\n");
        text += &qr::text(&claim_link(page, &claim.secret));
    }
    let devices: Vec<String> = claim.devices.iter().map(|name| clean(name)).collect();
    if !devices.is_empty() {
        text += &format!("It has been claimed by: {}\n", devices.join(", "));
    }
    text
}

/// What a torrent that was added is, and its link for everybody.
pub fn added(detail: &Detail) -> String {
    let item = &detail.torrent;
    let contents = match item.bytes {
        0 => String::new(),
        bytes => format!("{}, {}, ", size(bytes), count(detail.files, "file")),
    };
    let mut text = format!("{}\n  {contents}{}\n", clean(&item.name), state_words(item));
    text += &row("info-hash", item.info_hash);
    text += &row("magnet", clean(&detail.magnet));
    detail.torrent_file.iter().for_each(|path| text += &row("torrent", clean(path)));
    text
}

/// Text without what a terminal would obey rather than show.
pub fn clean(text: &str) -> String {
    let obeyed = |char: char| {
        let turns = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
        let isolates = matches!(char, '\u{2066}'..='\u{2069}' | '\u{61c}');
        char.is_control() || turns || isolates || matches!(char, '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|char| if obeyed(char) { '\u{fffd}' } else { char }).collect()
}

/// A size in three digits or four.
pub fn size(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // From 1023.5 on it would be rounded to 1024.
    while scaled >= 1023.5
        && let Some(next) = units.next()
    {
        (scaled, unit) = (scaled / 1024.0, next);
    }
    match scaled {
        _ if unit == "B" => format!("{bytes} B"),
        scaled if scaled < 9.995 => format!("{scaled:.2} {unit}"),
        scaled if scaled < 99.95 => format!("{scaled:.1} {unit}"),
        scaled => format!("{scaled:.0} {unit}"),
    }
}

fn detail_words(detail: &Detail) -> String {
    let item = &detail.torrent;
    let mut text = format!("{}\n", clean(&item.name)) + &row("info-hash", item.info_hash);
    if item.bytes > 0 {
        let (files, pieces) = (count(detail.files, "file"), count(detail.pieces.into(), "piece"));
        let (all, each) = (size(item.bytes), size(detail.piece_bytes.into()));
        text += &row("size", format!("{all} in {files}, {pieces} of {each}"));
    }
    let order = if detail.sequential { ", from front to back" } else { "" };
    text += &row("state", state_words(item) + order);
    if detail.wanted_files < detail.files {
        let wanted = size(item.wanted_bytes);
        text += &row("wanted", format!("{} of {}, {wanted}", detail.wanted_files, detail.files));
    }
    text += &row("sent", size(item.sent_bytes));
    text += &row("peers", item.peers.to_string());
    let volume = detail.volume.as_ref().map(|volume| format!(", on {}", clean(volume)));
    text += &row("lies in", clean(&item.path) + &volume.unwrap_or_default());
    if let Some(moving) = &detail.moving {
        let (copied, all) = (size(moving.copied_bytes), size(item.here_bytes));
        text += &row("moves to", format!("{}, {copied} of {all} copied", clean(&moving.to)));
    }
    if item.added_s > 0 {
        text += &row("added", date(item.added_s));
    }
    if let Some(verified) = detail.verified_s {
        text += &row("verified", date(verified));
    }
    for (key, limit) in [("sent", detail.limit_up), ("read", detail.limit_down)] {
        let limit = limit.map(|rate| format!("{key} at no more than {}/s", size(rate)));
        text += &limit.map_or_else(String::new, |limit| row("limit", limit));
    }
    if detail.private {
        text += &row("private", "peers are found by its trackers only");
    }
    text += &row("magnet", clean(&detail.magnet));
    detail.torrent_file.iter().for_each(|path| text += &row("torrent", clean(path)));
    text
}

fn tracker_words(tracker: &TrackerItem) -> String {
    let mut text = clean(&tracker.url);
    text += &match (&tracker.error, tracker.answered_ago_s) {
        (Some(error), _) => format!(": {}", clean(error)),
        (None, Some(ago)) => format!(": answered {} ago", duration(ago)),
        (None, None) => ": not asked yet".to_string(),
    };
    tracker.seeds.iter().for_each(|seeds| text += &format!(", {}", count((*seeds).into(), "seed")));
    let leechers = tracker.leechers.iter();
    leechers.for_each(|some| text += &format!(", {}", count((*some).into(), "leecher")));
    row("tracker", text)
}

fn file_words(file: &FileItem) -> String {
    let here = match (file.wanted, file.here_bytes) {
        (_, here) if here == file.bytes => "here".to_string(),
        (true, here) => format!("{} %", percent(here, file.bytes)),
        (false, _) => "unwanted".to_string(),
    };
    format!("    {:>8}  {here:>8}  {}\n", size(file.bytes), clean(&file.path))
}

fn stats_words(stats: &Stats) -> String {
    let Stats { memory, peers, written, announces, reach, .. } = stats;
    let up = duration(stats.uptime_s);
    let (version, board) = (clean(&stats.version), clean(&stats.board));
    let mut text = format!("perennial {version} on {}, up {up}\n", clean(&stats.state));
    let (resident, most) = (size(memory.resident_bytes), size(memory.contract_bytes));
    text += &row("memory", format!("{resident} of at most {most}, board {board}"));
    text += &row("torrents", torrents_words(&stats.torrents));
    let connected = format!("{} of at most {}", peers.connected, peers.max);
    let rates = format!("sending {}/s, reading {}/s", size(peers.up_rate), size(peers.down_rate));
    text += &row("peers", format!("{connected}, {rates}"));
    let (sent, received) = (size(stats.sent_bytes), size(stats.received_bytes));
    text += &row("content", format!("{sent} sent, {received} received"));
    let journal = size(written.journal_bytes);
    let checkpoints = count(written.checkpoints, "checkpoint");
    let written = format!("{journal} to the journal since the start, {checkpoints}");
    text += &row("written", written);
    let takes = announces.pass_s.map(|pass| format!(", a pass takes {}", duration(pass)));
    let (told, ago) = (announces.told, duration(announces.begun_ago_s));
    let told = format!("{told} of {} told in {ago}", announces.all);
    text += &row("announces", told + &takes.unwrap_or_default());
    let outside = reach.outside.map(|at| format!(", others see {at}")).unwrap_or_default();
    let router = reach.router.as_ref().map(|said| format!(", {}", clean(said)));
    text += &row("reached", format!("port {}{outside}{}", reach.port, router.unwrap_or_default()));
    if !stats.kept_to.is_empty() {
        let folders = stats.kept_to.iter().map(|folder| clean(folder)).collect::<Vec<_>>();
        text += &row("kept to", format!("{}, by the kernel", folders.join(", ")));
    }
    if let Some(page) = stats.pages.first() {
        text += &row("page", clean(page));
    }
    let nodes = stats.dht_nodes.map(|nodes| count(nodes.into(), "node"));
    text + &row("DHT", nodes.unwrap_or_else(|| "off".into()))
}

fn torrents_words(torrents: &Torrents) -> String {
    let Torrents { all, serving, resting, fetching, paused, asleep, trouble } = *torrents;
    let each = [
        (serving, "serving"),
        (resting, "resting"),
        (fetching, "fetching"),
        (paused, "paused"),
        (asleep, "asleep"),
        (trouble, "in trouble"),
    ];
    let some = each.into_iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some.map(|(count, how)| format!("{count} {how}")).collect();
    let gap = if some.is_empty() { "" } else { ": " };
    format!("{all}{gap}{}", some.join(", "))
}

fn volume_words(volume: &VolumeItem) -> String {
    let VolumeItem { name, path, state, torrents, .. } = volume;
    let free = volume.free_bytes.map(|free| format!(", {} free", size(free))).unwrap_or_default();
    let (name, path, state) = (clean(name), clean(path), clean(state));
    format!("    {name}: {state}{free}, {}, {path}\n", count(*torrents, "torrent"))
}

fn woken_words(woken: &WakeUps) -> String {
    format!("    {:>8}  {}\n", woken.count, clean(&woken.why))
}

/// How a torrent is, for a column.
fn state_word(item: &Item) -> String {
    match item.state {
        State::Serving => "serving".into(),
        State::Resting => "resting".into(),
        State::Fetching => format!("fetching {}%", percent(item.here_bytes, item.wanted_bytes)),
        State::Paused => "paused".into(),
        State::Asleep => "asleep".into(),
        State::Trouble => "trouble".into(),
    }
}

/// How a torrent is, in a sentence.
fn state_words(item: &Item) -> String {
    let trouble = item.trouble.as_ref().map(|what| format!(": {}", clean(what)));
    let (here, wanted) = (size(item.here_bytes), size(item.wanted_bytes));
    let state = match item.state {
        State::Serving => "serving".into(),
        State::Resting => "resting, nobody asks for it".into(),
        State::Fetching if item.bytes == 0 => "fetching, only its name is known yet".into(),
        State::Fetching => {
            let percent = percent(item.here_bytes, item.wanted_bytes);
            format!("fetching, {here} of {wanted} here ({percent} %)")
        }
        State::Paused if item.here_bytes < item.wanted_bytes => {
            format!("paused, {here} of {wanted} here")
        }
        State::Paused => "paused".into(),
        State::Asleep => "asleep, its volume is away".into(),
        State::Trouble => "in trouble".to_string(),
    };
    state + &trouble.unwrap_or_default()
}

/// Whole percent; 100 only when nothing is lacking.
fn percent(part: u64, all: u64) -> u64 {
    (u128::from(part) * 100 / u128::from(all.max(1))).min(100) as u64
}

fn row(what: &str, value: impl std::fmt::Display) -> String {
    format!("  {what:<10} {value}\n")
}

fn heading_if(is_first: bool, heading: &str) -> String {
    if is_first { heading.to_string() } else { String::new() }
}

fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn duration(seconds: u64) -> String {
    HumanDuration(Duration::from_secs(seconds)).to_string()
}

/// The day of a moment in seconds since 1970, in UTC. Years are counted from March on, so that a
/// leap day is a year's last (Hinnant, "chrono-compatible low-level date algorithms").
pub fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + later)
}

/// Of a table all but the names: hash, size, state, sent, peers, and two blanks between.
const OTHER_COLUMNS: usize = 8 + 8 + 12 + 8 + 5 + 5 * 2;

/// Names have so many columns at least, and where there is no terminal.
const NAME_COLUMNS_MIN: usize = 16;

/// Digits of an info-hash in a table: enough to say which is meant.
const HASH_DIGITS: usize = 8;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::{sample, sample_detail};
