//! What is shown while the box works: a bar for each fetch and a line for all, on a terminal; else a
//! sentence a minute for each fetch. And why nothing comes, when nothing does.
//!
//! It only looks: rates are what has changed since the last look.

use super::Service;
use super::announcer::Announcer;
use super::report::{Report, style};
use crate::engine::units::{Deadline, Instant, TorrentSlot};
use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar};
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// What is remembered of a torrent from one look to the next.
struct Seen {
    torrent: TorrentSlot,
    bar: Option<ProgressBar>,
    here_bytes: u64,
    since: Instant,
    /// Nobody has been there since then.
    lonely_since: Option<Instant>,
    said_lonely: bool,
}

/// How a fetch is going.
struct Going {
    torrent: TorrentSlot,
    name: String,
    /// Bytes there and wanted; nothing while only its name is known.
    bytes: Option<(u64, u64)>,
    peers: usize,
}

/// Shows all of it for ever. `dht_nodes` says how many nodes are known, when there are any to know.
pub async fn run(
    service: &Service<'_>,
    announcer: &Announcer,
    report: &Report,
    dht_nodes: impl Fn() -> Option<usize>,
) {
    let all = MultiProgress::new();
    let line = all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
    let slot = service.clock.slot(service.duties.report);
    let (mut seen, mut sent_before): (Vec<Seen>, u64) = (Vec::new(), 0);
    let pause_ms = if report.is_terminal() { LIVE_MS } else { QUIET_MS };
    loop {
        let going = going(service);
        // With nothing to fetch and nobody looking there is nothing to wake for.
        let at = match report.is_terminal() || !going.is_empty() {
            true => service.clock.now().after(pause_ms),
            false => Instant::NEVER,
        };
        while service.clock.now() < at {
            service.clock.wait(slot, Deadline { at, why: "the live line" }).await;
            if at == Instant::NEVER {
                break;
            }
        }
        let now = service.clock.now();
        seen.retain(|known| going.iter().any(|one| one.torrent == known.torrent));
        for one in &going {
            let known = known(&mut seen, one, now);
            if report.is_terminal() {
                let bar = known.bar.get_or_insert_with(|| all.insert_before(&line, bar_of(one)));
                update(bar, one);
            } else if !report.is_json() {
                say(known, one, now);
            }
            complain(service, announcer, &dht_nodes, known, one, now);
        }
        let swarm = service.swarm.borrow();
        let (peers, sent) = (swarm.member_count(), swarm.sent_bytes);
        let rate = HumanBytes((sent - sent_before) * 1_000 / pause_ms);
        sent_before = sent;
        if report.is_terminal() {
            line.set_message(std::format!("{peers} peers   {rate}/s   {} sent", HumanBytes(sent)));
        }
    }
}

fn going(service: &Service<'_>) -> Vec<Going> {
    let swarm = service.swarm.borrow();
    let peers = |torrent| swarm.members().filter(|member| member.torrent == torrent).count();
    let goals = service.fetched.goals.borrow();
    let fetching = goals.iter().filter(|goal| goal.here_bytes < goal.wanted_bytes);
    let known = fetching.map(|goal| Going {
        torrent: goal.torrent,
        name: goal.name.clone(),
        bytes: Some((goal.here_bytes, goal.wanted_bytes)),
        peers: peers(goal.torrent),
    });
    let hunts = service.fetched.hunts.borrow();
    let sought = hunts.iter().map(|hunt| Going {
        torrent: hunt.torrent(),
        name: hunt.name().into(),
        bytes: None,
        peers: peers(hunt.torrent()),
    });
    known.chain(sought).collect()
}

fn known<'s>(seen: &'s mut Vec<Seen>, one: &Going, now: Instant) -> &'s mut Seen {
    let at = seen.iter().position(|known| known.torrent == one.torrent).unwrap_or_else(|| {
        seen.push(Seen {
            torrent: one.torrent,
            bar: None,
            here_bytes: one.bytes.map_or(0, |(here, _)| here),
            since: now,
            lonely_since: None,
            said_lonely: false,
        });
        seen.len() - 1
    });
    &mut seen[at]
}

fn bar_of(one: &Going) -> ProgressBar {
    let look = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg}";
    let (here, wanted) = one.bytes.unwrap_or((0, 0));
    let bar = ProgressBar::new(wanted).with_style(style(look)).with_position(here);
    bar.reset_eta();
    bar.set_prefix(one.name.clone());
    bar
}

fn update(bar: &ProgressBar, one: &Going) {
    if let Some((here, wanted)) = one.bytes {
        bar.set_length(wanted);
        bar.set_position(here);
    }
    bar.set_message(std::format!("{} peers", one.peers));
}

/// A sentence, for those who read it later.
fn say(known: &mut Seen, one: &Going, now: Instant) {
    let Some((here, wanted)) = one.bytes else { return };
    let took_s = now.since(known.since).max(1_000) / 1_000;
    let rate = here.saturating_sub(known.here_bytes) / took_s;
    (known.here_bytes, known.since) = (here, now);
    let left = match (wanted - here).checked_div(rate) {
        Some(seconds) => std::format!("{} left", HumanDuration(Duration::from_secs(seconds))),
        None => "nothing comes".into(),
    };
    let (here, wanted, rate) = (HumanBytes(here), HumanBytes(wanted), HumanBytes(rate));
    info!("{}: {here} of {wanted}, {rate}/s, {} peers, {left}", one.name, one.peers);
}

/// Says once what was tried, when nobody has been there for long.
fn complain(
    service: &Service<'_>,
    announcer: &Announcer,
    dht_nodes: &impl Fn() -> Option<usize>,
    known: &mut Seen,
    one: &Going,
    now: Instant,
) {
    if one.peers > 0 {
        (known.lonely_since, known.said_lonely) = (None, false);
        return;
    }
    let since = *known.lonely_since.get_or_insert(now);
    if known.said_lonely || now < since.after(LONELY_MS) {
        return;
    }
    known.said_lonely = true;
    let trackers = announcer.tried(one.torrent);
    let dht = match dht_nodes() {
        Some(0) => "no node of the DHT answers".into(),
        Some(nodes) => std::format!("{nodes} nodes of the DHT know nobody"),
        None => String::from("the DHT is not asked"),
    };
    let candidates = service.swarm.borrow().candidates.count_of(one.torrent);
    let addresses = match candidates {
        0 => "no address is known".into(),
        count => std::format!("{count} addresses are known and none answers"),
    };
    warn!(
        "{}: no peers yet. Trackers: {trackers}. {dht}. Nobody on the LAN has it. {addresses}. It \
         goes on looking",
        one.name
    );
}

/// Between two looks on a terminal.
const LIVE_MS: u64 = 1_000;

/// Between two sentences where there is none.
const QUIET_MS: u64 = 60_000;

/// Without anybody for so long it is said what was tried.
const LONELY_MS: u64 = 30_000;
