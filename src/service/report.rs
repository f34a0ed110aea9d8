//! What the owner is told: sentences on a terminal, or one JSON object a line.
//!
//! With `--json` stdout holds nothing but events. Progress, the live line and the log go to
//! stderr, the first two only when that is a terminal.

use super::Service;
use super::board::{Board, Holder};
use super::share::{Progress, Share};
use crate::engine::units::Deadline;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use log::{info, warn};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// How things are said.
pub struct Report {
    json: bool,
    terminal: bool,
    hashing: Option<ProgressBar>,
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
        Report { json, terminal: std::io::stderr().is_terminal(), hashing: None }
    }

    /// A share has been taken up.
    pub fn share(&self, share: &Share, magnet: &str) {
        let layout = share.content.layout;
        let files = share.content.file_count;
        if self.json {
            line(&json!({
                "event": "share",
                "name": share.name,
                "info_hash": share.info_hash.to_string(),
                "magnet": magnet,
                "torrent": share.torrent.to_string_lossy(),
                "bytes": layout.total_bytes,
                "files": files,
                "piece_bytes": layout.piece_bytes,
            }));
        } else {
            let plural = if files == 1 { "file" } else { "files" };
            say(&std::format!(
                "{}\n  {}, {files} {plural}\n  info-hash  {}\n  magnet     {magnet}\n  torrent    {}",
                share.name,
                HumanBytes(layout.total_bytes),
                share.info_hash,
                share.torrent.display(),
            ));
        }
        if let Some(have) = &share.have {
            let here: u32 = have.iter().map(|byte| byte.count_ones()).sum();
            let all = layout.piece_count();
            warn!("{}: {here} of {all} pieces match; the others are not offered", share.name);
        }
        if share.left_out.count > 0 {
            let more = share.left_out.count - share.left_out.first.len() as u64;
            let more = if more > 0 { std::format!(" and {more} more") } else { String::new() };
            info!("{}: left out {}{more}", share.name, share.left_out.first.join(", "));
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

    /// Shows peers, rate and total while the service runs, if anybody looks.
    pub async fn run_live_line(&self, service: &Service<'_>) {
        if !self.terminal {
            return std::future::pending().await;
        }
        let bar = ProgressBar::new_spinner().with_style(style("{msg}"));
        let slot = service.clock.slot(service.duties.report);
        let mut before = 0;
        loop {
            let at = service.clock.now().after(LIVE_MS);
            while service.clock.now() < at {
                service.clock.wait(slot, Deadline { at, why: "the live line" }).await;
            }
            let swarm = service.swarm.borrow();
            let (peers, sent) = (swarm.member_count(), swarm.sent_bytes);
            let rate = HumanBytes((sent - before) * 1_000 / LIVE_MS);
            before = sent;
            bar.set_message(std::format!("{peers} peers   {rate}/s   {} sent", HumanBytes(sent)));
        }
    }
}

impl Progress for Report {
    fn begin(&mut self, what: &str, bytes: u64) {
        if self.terminal {
            let look = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            let bar = ProgressBar::new(bytes).with_style(style(look));
            bar.set_message(what.to_string());
            self.hashing = Some(bar);
        } else {
            info!("{what}: hashing {}", HumanBytes(bytes));
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.hashing {
            bar.inc(bytes);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.hashing.take() {
            bar.finish_and_clear();
        }
    }
}

/// A board's memory contract, and which boards there are.
pub fn describe(board: &Board, json: bool) -> String {
    let (contract, machine) = (board.contract(), Board::of_this_machine().name);
    if json {
        let list = |holders: &[Holder]| -> Vec<serde_json::Value> {
            let each = |h: &Holder| json!({ "what": h.what, "from": h.from, "bytes": h.bytes });
            holders.iter().map(each).collect()
        };
        let boards: Vec<&str> = Board::all().iter().map(|board| board.name).collect();
        let described = json!({
            "board": board.name,
            "ram_mib": board.ram_mib,
            "resident_bytes_max": board.resident_mib << 20,
            "ours": list(&contract.ours),
            "ours_bytes": contract.resident_bytes(),
            "kernel": list(&contract.kernel),
            "kernel_bytes": contract.kernel_bytes(),
            "this_machine": machine,
            "boards": boards,
        });
        return std::format!("{described}\n");
    }
    let row = |what: &str, bytes: u64, from: &str| {
        let row = std::format!("  {what:<22} {:>9} KiB   {from}", bytes.div_ceil(1024));
        std::format!("{}\n", row.trim_end())
    };
    let rows = |holders: &[Holder]| -> String {
        holders.iter().map(|holder| row(holder.what, holder.bytes, holder.from)).collect()
    };
    let mut text = std::format!(
        "Boards: {}. This machine is taken for {machine}.\n\n{}: at most {} MiB resident\n",
        board_names(),
        board.name,
        board.resident_mib,
    );
    text += &rows(&contract.ours);
    text += &row("together", contract.resident_bytes(), "");
    text += "Beside it the kernel, for sockets, at most:\n";
    text += &rows(&contract.kernel);
    text += &row("together", contract.kernel_bytes(), "");
    text
}

/// The boards there are, but for those that are no machines.
pub fn board_names() -> String {
    let boards = Board::all();
    let names = boards.iter().filter(|board| !board.is_for_tests()).map(|board| board.name);
    names.collect::<Vec<_>>().join(", ")
}

fn style(look: &str) -> ProgressStyle {
    // The templates are constants above; a wrong one shows nothing rather than stopping a box.
    ProgressStyle::with_template(look).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(event: &serde_json::Value) {
    say(&event.to_string());
}

/// One line to stdout. Whoever has closed it does not want to know.
fn say(text: &str) {
    let mut out: Vec<u8> = text.into();
    out.push(b'\n');
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(&out).and_then(|()| stdout.flush());
}

/// Between two looks at the live line.
const LIVE_MS: u64 = Duration::from_secs(1).as_millis() as u64;
