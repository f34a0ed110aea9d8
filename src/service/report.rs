//! What the owner is told: sentences on a terminal, or one JSON object a line.
//!
//! With `--json` stdout holds nothing but events. Progress, the live line and the log go to
//! stderr; the live line only when that is a terminal, and progress as a bar only then.

use super::board::{Board, Holder, ImageSizes};
use super::fetch::Goal;
use super::lan::magnet;
use super::owner::{self, Owner, claim_link};
use super::qr;
use super::share::{Progress, Share};
use crate::engine::units::{InfoHash, PieceIndex};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

/// How things are said.
pub struct Report {
    json: bool,
    terminal: bool,
    progress: Option<ProgressBar>,
    /// Minutes after which progress was last said in words.
    minutes_said: u64,
}

/// An image that has been written.
#[derive(Clone, Copy, Debug)]
pub struct ImageMade<'i> {
    /// What it is for.
    pub board: &'i Board,
    /// Where it is.
    pub path: &'i Path,
    /// How long it is.
    pub bytes: u64,
    /// It was written to a card, not to a file.
    pub device: bool,
}

/// What a service has done, once it stops.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Bytes of content sent.
    pub sent_bytes: u64,
    /// Bytes read for that.
    pub read_bytes: u64,
    /// How long it ran.
    pub seconds: u64,
}

impl Report {
    /// Sentences, or `json`.
    pub fn new(json: bool) -> Report {
        let terminal = std::io::stderr().is_terminal();
        Report { json, terminal, progress: None, minutes_said: 0 }
    }

    /// Sentences for a console that nobody may look at.
    pub fn without_terminal() -> Report {
        Report { json: false, terminal: false, progress: None, minutes_said: 0 }
    }

    /// Somebody looks at stderr.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Events for programs, not sentences.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A share has been taken up.
    pub fn share(&self, share: &Share, magnet: &str) {
        if self.json {
            line(&share_event(share, magnet));
        } else {
            say(&share_text(share, magnet));
        }
        self.share_warnings(share);
    }

    /// What the owner should know of a share that has been taken up.
    pub fn share_warnings(&self, share: &Share) {
        if let Some(have) = &share.have {
            let here: u32 = have.iter().map(|byte| byte.count_ones()).sum();
            let all = share.content.layout.piece_count();
            warn!("{}: {here} of {all} pieces match; the others are not offered", share.name);
        }
        if share.left_out.count > 0 {
            let more = share.left_out.count - share.left_out.first.len() as u64;
            let more = if more > 0 { std::format!(" and {more} more") } else { String::new() };
            info!("{}: left out {}{more}", share.name, share.left_out.first.join(", "));
        }
    }

    /// A share has been written as an image.
    pub fn image(&self, share: &Share, made: &ImageMade<'_>) {
        let (board, path) = (made.board.name, made.path.display());
        let trackers = share.trackers.iter().map(|(_, address)| address);
        let bytes = share.content.layout.total_bytes;
        let magnet = magnet(&share.info_hash, &share.name, bytes, trackers, std::iter::empty());
        if self.json {
            let mut event = share_event(share, &magnet);
            event["event"] = json!("image");
            event["board"] = json!(board);
            event["path"] = json!(made.path.to_string_lossy());
            event["content_bytes"] = json!(bytes);
            event["bytes"] = json!(made.bytes);
            line(&event);
        } else {
            let is_card = made.board.image.is_some_and(|image| image.whole_mib == 0);
            let next = match (made.device, is_card) {
                (true, _) => String::from("It is on the card: put that into the board."),
                (false, true) => std::format!(
                    "Put it on a card with `dd if='{path}' of=/dev/CARD bs=1M conv=fsync`, which \
                     writes over all that is on the card."
                ),
                (false, false) => String::from("Write all of it to the board's second flash."),
            };
            let image_bytes = HumanBytes(made.bytes);
            let share = share_text(share, &magnet);
            say(&std::format!("{share}\n  image      {path}, {image_bytes}, for {board}\n{next}"));
        }
        self.share_warnings(share);
    }

    /// Writing of so many bytes to `path` begins.
    pub fn begin_writing(&mut self, path: &Path, bytes: u64) {
        self.begin_bar(&path.display().to_string(), "writing", bytes);
    }

    /// A torrent that is to be fetched has been taken up.
    pub fn added(&self, share: &Share, magnet: &str, goal: &Goal) {
        if self.json {
            let mut event = share_event(share, magnet);
            event["event"] = json!("added");
            event["wanted_bytes"] = json!(goal.wanted_bytes);
            event["here_bytes"] = json!(goal.here_bytes);
            event["path"] = json!(share.content.root.to_string_lossy());
            return line(&event);
        }
        let (here, wanted) = (HumanBytes(goal.here_bytes), HumanBytes(goal.wanted_bytes));
        let root = share.content.root.display();
        say(&std::format!(
            "{}\n  to         {root}, {here} of {wanted} there",
            share_text(share, magnet)
        ));
    }

    /// What a torrent is has been found out: until now only its name was known.
    pub fn metadata(&self, share: &Share) {
        if self.json {
            let layout = share.content.layout;
            line(&json!({
                "event": "metadata",
                "info_hash": share.info_hash.to_string(),
                "name": share.name,
                "bytes": layout.total_bytes,
                "files": share.content.file_count,
                "piece_bytes": layout.piece_bytes,
            }));
        }
    }

    /// A torrent that was fetched is whole, and a share like any other.
    pub fn complete(&self, goal: &Goal) {
        if self.json {
            let info_hash = goal.info_hash.to_string();
            return line(&json!({
                "event": "complete",
                "info_hash": info_hash,
                "name": goal.name,
                "bytes": goal.wanted_bytes,
            }));
        }
        say(&std::format!("{}: complete, {}.", goal.name, HumanBytes(goal.wanted_bytes)));
    }

    /// The page can be had at these addresses. Whoever is told of a new secret is to bring it there.
    pub fn page(&self, pages: &[String], owner: &Owner) {
        let secret = Some(owner.secret()).filter(|_| owner.is_new);
        if self.json {
            return line(&json!({ "event": "page", "pages": pages, "secret": secret }));
        }
        let Some(page) = pages.first() else { return };
        say(&std::format!("The page is at {page}"));
        if let Some(secret) = secret {
            let (link, fours) = (claim_link(page, secret), owner::in_fours(secret));
            say(&std::format!("Claim the box there with this secret: {fours}"));
            if self.terminal {
                say(&qr::text(&link));
            }
        }
    }

    /// Connections are accepted.
    pub fn ready(&self, listen: SocketAddr) {
        if self.json {
            return line(&json!({ "event": "ready", "listen": [listen.to_string()] }));
        }
        say(&std::format!("Serving on port {}. Ctrl-C stops.", listen.port()));
    }

    /// It is over.
    pub fn stopped(&self, totals: Totals) {
        if self.json {
            return line(&json!({
                "event": "stopped",
                "sent_bytes": totals.sent_bytes,
                "read_bytes": totals.read_bytes,
                "seconds": totals.seconds,
            }));
        }
        say(&std::format!("Stopped. {} sent.", HumanBytes(totals.sent_bytes)));
    }

    fn begin_bar(&mut self, what: &str, doing: &str, bytes: u64) {
        let bar = if self.terminal {
            let look = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            ProgressBar::new(bytes).with_style(style(look))
        } else {
            info!("{what}: {doing} {}", HumanBytes(bytes));
            ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden())
        };
        bar.set_message(what.to_string());
        self.progress = Some(bar);
        self.minutes_said = 0;
    }
}

impl Progress for Report {
    fn begin(&mut self, what: &str, bytes: u64) {
        self.begin_bar(what, "hashing", bytes);
    }

    fn advance(&mut self, bytes: u64) {
        let Some(bar) = &self.progress else { return };
        bar.inc(bytes);
        // Where there is no bar to look at, a line a minute says that it goes on.
        let minutes = bar.elapsed().as_secs() / 60;
        if !self.terminal && minutes > self.minutes_said {
            self.minutes_said = minutes;
            let (done, all) = (HumanBytes(bar.position()), HumanBytes(bar.length().unwrap_or(0)));
            info!("{}: {done} of {all}, {} left", bar.message(), HumanDuration(bar.eta()));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }
}

/// What is said of a share to programs.
fn share_event(share: &Share, magnet: &str) -> Value {
    let layout = share.content.layout;
    json!({
        "event": "share",
        "name": share.name,
        "info_hash": share.info_hash.to_string(),
        "magnet": magnet,
        "torrent": share.torrent.to_string_lossy(),
        "bytes": layout.total_bytes,
        "files": share.content.file_count,
        "piece_bytes": layout.piece_bytes,
    })
}

/// What is said of a share to people.
fn share_text(share: &Share, magnet: &str) -> String {
    let files = share.content.file_count;
    let plural = if files == 1 { "file" } else { "files" };
    std::format!(
        "{}\n  {}, {files} {plural}\n  info-hash  {}\n  magnet     {magnet}\n  torrent    {}",
        share.name,
        HumanBytes(share.content.layout.total_bytes),
        share.info_hash,
        share.torrent.display(),
    )
}

/// What a board has, what its memory is for, and which boards there are.
pub fn describe(board: &Board, json: bool) -> String {
    let machine = Board::of_this_machine().name;
    if json {
        let boards: Vec<&str> = Board::all().iter().map(|board| board.name).collect();
        let mut described = json!({
            "board": board.name,
            "ram_kib": board.ram_kib,
            "resident_bytes_max": board.resident_kib << 10,
            "this_machine": machine,
            "boards": boards,
        });
        let more = match board.image {
            Some(image) => firmware_json(board, &image),
            None => contract_json(board),
        };
        for (key, value) in more {
            described[key] = value;
        }
        return std::format!("{described}\n");
    }
    let (linux, firmware) = (Board::names(false), Board::names(true));
    let boards = std::format!(
        "Boards: {linux}. This machine is taken for {machine}.\n\
         Boards with firmware: {firmware}.\n\n"
    );
    boards + &board.image.map_or_else(|| contract_text(board), |image| firmware_text(board, &image))
}

fn contract_json(board: &Board) -> Vec<(&'static str, Value)> {
    let list = |holders: &[Holder]| -> Value {
        let each = |h: &Holder| json!({ "what": h.what, "from": h.from, "bytes": h.bytes });
        holders.iter().map(each).collect()
    };
    let contract = board.contract();
    std::vec![
        ("ours", list(&contract.ours)),
        ("ours_bytes", json!(contract.resident_bytes())),
        ("kernel", list(&contract.kernel)),
        ("kernel_bytes", json!(contract.kernel_bytes())),
    ]
}

fn contract_text(board: &Board) -> String {
    let contract = board.contract();
    let row = |what: &str, bytes: u64, from: &str| {
        let row = std::format!("  {what:<22} {:>9} KiB   {from}", bytes.div_ceil(1024));
        std::format!("{}\n", row.trim_end())
    };
    let rows = |holders: &[Holder]| -> String {
        holders.iter().map(|holder| row(holder.what, holder.bytes, holder.from)).collect()
    };
    let mut text =
        std::format!("{}: at most {} MiB resident\n", board.name, board.resident_kib >> 10);
    text += &rows(&contract.ours);
    text += &row("together", contract.resident_bytes(), "");
    text += "Beside it the kernel, for sockets, at most:\n";
    text += &rows(&contract.kernel);
    text += &row("together", contract.kernel_bytes(), "");
    text
}

fn firmware_json(board: &Board, image: &ImageSizes) -> Vec<(&'static str, Value)> {
    let Board { pools, disk, sockets, .. } = board;
    std::vec![
        ("memory", json!("laid out by the linker")),
        ("peers_max", json!(pools.peers_max)),
        ("requests_per_peer", json!(pools.requests_per_peer)),
        ("pieces_max", json!(pools.bits_kib * 8192)),
        ("unsent_bytes", json!(sockets.unsent_kib << 10)),
        ("receive_bytes", json!(sockets.receive_kib << 10)),
        ("journal_bytes", json!(2 * 1024 * u64::from(disk.journal_kib))),
        ("image_bytes_max", json!(u64::from(image.image_mib) << 20)),
        ("erase_unit_bytes", json!(u64::from(image.unit_kib) << 10)),
    ]
}

fn firmware_text(board: &Board, image: &ImageSizes) -> String {
    let Board { name, ram_kib, resident_kib, pools, disk, sockets, .. } = board;
    let row = |what: &str, has: String| std::format!("  {what:<22} {has}\n");
    let mut text = std::format!(
        "{name}: firmware, in {ram_kib} KiB of RAM, its data and stack at most {resident_kib} KiB\n"
    );
    text += &row("connections", pools.peers_max.to_string());
    text += &row("requests", std::format!("{} of each connection", pools.requests_per_peer));
    let (out, incoming) = (sockets.unsent_kib, sockets.receive_kib);
    text += &row("TCP", std::format!("{out} KiB out and {incoming} KiB in, of each connection"));
    let pieces = pools.bits_kib * 8192;
    text += &row("share", std::format!("one, of up to {pieces} pieces"));
    let (image_mib, unit_kib) = (image.image_mib, image.unit_kib);
    text += &row("image", std::format!("up to {image_mib} MiB, erased {unit_kib} KiB at a time"));
    text += &row("journal", std::format!("2 x {} KiB, in the image", disk.journal_kib));
    text += "Its memory is laid out by the linker, which refuses what is too much for it.\n";
    text + &std::format!("An image: perennial share PATH --for-board {name} -o FILE\n")
}

/// A piece has been verified.
pub fn piece(info_hash: &InfoHash, piece: PieceIndex) {
    let info_hash = info_hash.to_string();
    line(&json!({ "event": "piece", "info_hash": info_hash, "piece": piece.0 }));
}

/// A torrent that was fetched is a share like any other, and its `.torrent` has moved.
pub fn settled(info_hash: &InfoHash, torrent: &Path) {
    let info_hash = info_hash.to_string();
    let torrent = torrent.to_string_lossy();
    line(&json!({ "event": "settled", "info_hash": info_hash, "torrent": torrent }));
}

/// Something stands in the way of a fetch; it goes on when that is gone.
pub fn trouble(info_hash: &InfoHash, what: &str, json: bool) {
    if json {
        let info_hash = info_hash.to_string();
        line(&json!({ "event": "error", "info_hash": info_hash, "error": what }));
    }
}

/// How a bar or a line looks.
pub fn style(look: &str) -> ProgressStyle {
    // The templates are constants above; a wrong one shows nothing rather than stopping a box.
    ProgressStyle::with_template(look).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(event: &Value) {
    say(&event.to_string());
}

/// One line to stdout. Whoever has closed it does not want to know.
fn say(text: &str) {
    let mut out: Vec<u8> = text.into();
    out.push(b'\n');
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(&out).and_then(|()| stdout.flush());
}
