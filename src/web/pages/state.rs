//! How the box is.

use super::{Frame, duration, growth, memory, mib, pulse_list, rate_typed, size};
use crate::service::options::Readers;
use crate::service::settings::Settings;
use crate::service::steward::pulse::Pulse;
use crate::web::actions::Answered;
use maud::{Markup, html};
use std::format;
use std::string::String;
use std::vec::Vec;

/// What the page of the box shows.
pub struct Page<'p> {
    /// How it is at this moment.
    pub pulse: Pulse,
    /// What is known of it.
    pub answered: &'p Answered,
    /// Caps that hold, as they are typed.
    pub caps: [String; 2],
    /// What the owner has said of how it is to be.
    pub settings: Settings,
    /// Who may look at the page.
    pub readers: Readers,
    /// The owner may change things from outside the house.
    pub outside: bool,
    /// What it said last.
    pub log: Vec<String>,
    /// A password can be chosen here; whether one was.
    pub password: Option<bool>,
    /// It was flashed, and can be updated here.
    pub has_slots: bool,
    /// Who has claimed it.
    pub devices: Vec<String>,
}

/// How the box is.
pub fn render(frame: &Frame<'_>, page: &Page<'_>) -> String {
    let (pulse, stats) = (&page.pulse, page.answered.stats.clone().unwrap_or_default());
    let troubled = stats.torrents.trouble;
    let reach = stats.reach.router.clone().unwrap_or_default();
    let outside = stats.reach.outside.map(|address| format!(" Others see it at {address}."));
    let pass = match stats.announces.pass_s {
        Some(0) => String::from("there is none to tell"),
        Some(seconds) => format!("once in {}", duration(seconds)),
        None => format!("{} so far", stats.announces.told),
    };
    frame.page(&html! {
        main #main {
            section.canopy aria-label="Right now" {
                div.wrap {
                    h1 {
                        @match troubled {
                            0 => { (frame.name) " is well" }
                            1 => { "One share on " (frame.name) " is in trouble" }
                            more => { (more) " shares on " (frame.name) " are in trouble" }
                        }
                    }
                    (pulse_list(pulse))
                }
                (growth())
            }
            div.wrap {
                div.plates {
                    section aria-labelledby="s1" {
                        h2 #s1 { "The box" }
                        dl.list {
                            div { dt { "Version" } dd { "perennial " (stats.version) } }
                            div { dt { "Board" } dd.code { (stats.board) } }
                            div { dt { "Awake for" } dd { (duration(stats.uptime_s)) } }
                            div {
                                dt { "Shares" }
                                dd {
                                    span data-live="torrents" { (stats.torrents.all) } ", "
                                    (stats.torrents.fetching) " being fetched, "
                                    (stats.torrents.paused) " paused, "
                                    (stats.torrents.asleep) " asleep"
                                }
                            }
                            div {
                                dt { "Connected" }
                                dd {
                                    span data-live="peers" { (stats.peers.connected) }
                                    " of at most " (stats.peers.max)
                                }
                            }
                            div { dt { "Sent since it was started" } dd { (size(stats.sent_bytes)) } }
                            div {
                                dt { "Written to its journal since" }
                                dd { (size(stats.written.journal_bytes)) }
                            }
                        }
                    }
                    section aria-labelledby="s3" {
                        h2 #s3 { "Reach" }
                        dl.list {
                            div { dt { "From outside" } dd { (reach) "." (outside.unwrap_or_default()) } }
                            div { dt { "Port" } dd { (stats.reach.port) } }
                            div {
                                dt { "Nodes of the public directory (DHT)" }
                                dd {
                                    @match stats.dht_nodes {
                                        Some(nodes) => { (nodes) }
                                        None => "takes no part",
                                    }
                                }
                            }
                            div { dt { "Trackers are told of every share" } dd { (pass) } }
                        }
                    }
                    section aria-labelledby="s2" {
                        h2 #s2 { "Memory" }
                        (memory(pulse, "s2"))
                        p {
                            span data-live="resident_bytes" { (mib(pulse.resident_bytes)) }
                            " of the " (mib(pulse.contract_bytes)) " it may ever use. More shares or \
                            more people do not make it more."
                        }
                    }
                    @if frame.is_owners() { (settings(frame, page)) }
                }
            }
            section.wrap aria-labelledby="s4" {
                h2 #s4 { "Disks" }
                table {
                    thead {
                        tr {
                            th scope="col" { "Name" } th scope="col" { "Where" }
                            th scope="col" { "How it is" } th scope="col" { "Free" }
                            th scope="col" { "Shares" }
                        }
                    }
                    tbody {
                        @for volume in &page.answered.volumes {
                            tr {
                                th scope="row" { (volume.name) }
                                td.code { (volume.path) } td { (volume.state) }
                                td data-th="free" {
                                    @match volume.free_bytes {
                                        Some(free) => { (size(free)) }
                                        None => "not known",
                                    }
                                }
                                td data-th="shares" { (volume.torrents) }
                            }
                        }
                    }
                }
            }
            @if frame.is_owners() {
                section.wrap aria-labelledby="s6" {
                    h2 #s6 { "What it said last" }
                    pre.log tabindex="0" role="region" aria-labelledby="s6" {
                        @for line in &page.log { (line) "\n" }
                    }
                }
                section.wrap aria-labelledby="s8" {
                    h2 #s8 { "Who has claimed it" }
                    p { (page.devices.join(", ")) }
                    p.hint {
                        span.code { "perennial claim --reset" }
                        " on the box lets all of them go and makes a new secret."
                    }
                }
            }
            @if page.has_slots && frame.is_owners() { (update()) (stop(frame)) }
            @if let Some(is_chosen) = page.password.filter(|_| frame.is_owners()) {
                (password(frame, is_chosen))
            }
            section.wrap aria-labelledby="s7" {
                h2 #s7 { "For programs" }
                p {
                    "Everything here can be asked for by a program, too: "
                    a href="/api/v1/openapi.json" { "what the box understands, as OpenAPI" } "."
                }
            }
        }
    })
}

fn update() -> Markup {
    html! {
        section.wrap aria-labelledby="s10" data-js hidden {
            h2 #s10 { "Another version" }
            form data-update {
                label for="update" { "A signed update for this board" }
                div.row {
                    div.field {
                        input #update type="file" required aria-describedby="update-hint";
                    }
                    button.main { "Update" }
                }
                p role="status" {}
                p.hint #update-hint {
                    "The box starts anew with it, and returns to the version it has now should the new \
                    one not do."
                }
            }
        }
    }
}

fn stop(frame: &Frame<'_>) -> Markup {
    html! {
        section.wrap {
            details.confirm {
                summary { "Switch it off\u{2026}" }
                form method="post" action="/stop" {
                    (frame.hidden())
                    p { "It is switched on again by its plug or button, and by nobody from here." }
                    button.grave { "Switch it off" }
                }
            }
        }
    }
}

fn password(frame: &Frame<'_>, is_chosen: bool) -> Markup {
    html! {
        section.wrap aria-labelledby="s9" {
            h2 #s9 { "A password" }
            form method="post" action="/password" {
                (frame.hidden())
                label for="password" {
                    @if is_chosen { "Another password" } @else { "Choose a password" }
                }
                div.row {
                    div.field {
                        input #password name="password" type="password" maxlength="200"
                            autocomplete="new-password" aria-describedby="password-hint";
                    }
                    button.main { "Set" }
                }
                p.hint #password-hint {
                    "Ten letters or more. It does as well as the secret, and is easier to remember. \
                    With nothing here there is none."
                }
            }
        }
    }
}

fn settings(frame: &Frame<'_>, page: &Page<'_>) -> Markup {
    let said = &page.settings;
    let typed = |rate: Option<u64>| rate.map(rate_typed).unwrap_or_default();
    let readers = [
        ("house", "Whoever is in the house", Readers::House),
        ("everybody", "Everybody who reaches it", Readers::Everybody),
        ("owner", "Only you", Readers::Owner),
    ];
    html! {
        section aria-labelledby="s5" {
            h2 #s5 { "How it is to be" }
            form method="post" action="/settings" {
                (frame.hidden())
                div.row {
                    div.field {
                        label for="up" { "Send at most" }
                        input #up name="up" value=(typed(said.up)) placeholder=(page.caps[0])
                            autocomplete="off" aria-describedby="lim";
                    }
                    div.field {
                        label for="down" { "Fetch at most" }
                        input #down name="down" value=(typed(said.down)) placeholder=(page.caps[1])
                            autocomplete="off" aria-describedby="lim";
                    }
                }
                p.hint #lim {
                    "Such as 2MB/s or 20mbit, or \u{201c}off\u{201d} for no limit. With nothing here it \
                    is as configured."
                }
                fieldset {
                    legend { "Who may look at this page" }
                    @for (value, words, which) in readers {
                        label.check {
                            input type="radio" name="readers" value=(value)
                                checked[page.readers == which];
                            " " (words)
                        }
                    }
                }
                label.check {
                    input type="checkbox" name="owner-outside" value="yes" checked[page.outside];
                    " You may change things from outside the house too"
                }
                button.main { "Set" }
            }
        }
    }
}
