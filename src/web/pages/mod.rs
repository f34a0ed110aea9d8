//! Words and markup. Everything that comes from elsewhere goes through `maud`, which escapes it.
//!
//! - here: what every page has around it and in it, the page where the box is claimed, and errors
//! - [`shares`]: the front page
//! - [`share`]: the page of a share
//! - [`state`]: how the box is

pub mod share;
pub mod shares;
pub mod state;

use super::reply::Status;
use crate::service::control::answer::State;
use crate::service::lan::percent_encoded;
use crate::service::steward::pulse::Pulse;
use crate::web::neighbours::Neighbour;
use maud::{DOCTYPE, Markup, html};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// What every page has around it.
pub struct Frame<'f> {
    /// What the box is called.
    pub name: &'f str,
    /// Its board.
    pub board: &'f str,
    /// What the page is.
    pub title: String,
    /// Which entry of the menu it is.
    pub here: &'static str,
    /// What its forms send; nothing for visitors.
    pub token: String,
    /// Where the box was asked: `attic.local:8080`.
    pub host: &'f str,
    /// Other boxes in the house.
    pub neighbours: Vec<Neighbour>,
}

impl Frame<'_> {
    fn is_owners(&self) -> bool {
        !self.token.is_empty()
    }

    fn page(&self, main: &Markup) -> String {
        let tab = |to: &'static str, word: &str| {
            html! { a href=(to) aria-current=[(self.here == to).then_some("page")] { (word) } }
        };
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="theme-color" content="#12332a";
                    @if self.is_owners() { meta name="token" content=(self.token); }
                    title { (self.title) }
                    link rel="icon" href="/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/style.css";
                    script src="/script.js" defer {}
                }
                body {
                    a.vh.skip href="#main" { "Skip to the content" }
                    header.top {
                        div.wrap {
                            a.brand href="/" { (fern("")) (self.name) }
                            nav aria-label="Main" {
                                (tab("/", "Shares"))
                                (tab("/box", "Box"))
                                @if self.is_owners() {
                                    form method="post" action="/leave" {
                                        (self.hidden()) button { "Sign out" }
                                    }
                                } @else {
                                    (tab("/claim", "Sign in"))
                                }
                            }
                        }
                    }
                    (main)
                    footer.foot {
                        div."wrap row" {
                            p { "perennial " (env!("CARGO_PKG_VERSION")) ", board " (self.board) }
                            @if !self.neighbours.is_empty() {
                                p {
                                    "Also in this house: "
                                    @for (at, other) in self.neighbours.iter().enumerate() {
                                        @if at > 0 { ", " }
                                        a href={ "http://" (other.at) "/" } { (other.name) }
                                    }
                                }
                            }
                        }
                    }
                    p #said.vh role="status" {}
                }
            }
        };
        page.into_string()
    }

    fn hidden(&self) -> Markup {
        html! { input type="hidden" name="token" value=(self.token); }
    }

    fn absolute(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }
}

fn pulse_list(pulse: &Pulse) -> Markup {
    html! {
        dl.pulse {
            div { dt.sent { "Sending" } dd data-live="up_rate" { (size(pulse.up_rate)) "/s" } }
            div { dt.come { "Fetching" } dd data-live="down_rate" { (size(pulse.down_rate)) "/s" } }
            div { dt { "Connected" } dd data-live="people" { (people(pulse.peers)) } }
        }
        p.stale hidden {
            "The box does not answer just now. These figures are old. Trying again."
        }
    }
}

fn growth() -> Markup {
    html! {
        div.growth aria-hidden="true" {
            (fern("fern"))
            svg #graph viewBox="0 0 300 100" preserveAspectRatio="none" {
                polyline.down points="-5,70 305,70" {}
                polyline.up points="-5,70 305,70" {}
            }
        }
    }
}

fn memory(pulse: &Pulse, label: &str) -> Markup {
    let (now, most) = (pulse.resident_bytes, pulse.contract_bytes);
    html! {
        meter data-live="resident_bytes" aria-labelledby=(label) min="0" max=(most)
            high=(most / 20 * 19) optimum="0" value=(now) { (mib(now)) " of " (mib(most)) }
    }
}

/// Where the box is claimed.
pub fn claim(frame: &Frame<'_>, wrong: Option<&str>) -> String {
    let described = if wrong.is_some() { "wrong secret-hint" } else { "secret-hint" };
    frame.page(&html! {
        main #main {
            div.wrap {
                div.narrow {
                    h1 { "Is this your box?" }
                    p {
                        "Show that it is yours with its secret. Then this browser may add, pause and \
                        remove."
                    }
                    @if let Some(wrong) = wrong {
                        p.alert #wrong role="alert" { (wrong) }
                    }
                    form method="post" action="/claim" {
                        div.field {
                            label for="secret" { "Secret, or password" }
                            input.code #secret name="secret" required autocomplete="off"
                                autocapitalize="none" spellcheck="false"
                                aria-invalid=[wrong.map(|_| "true")] aria-describedby=(described);
                            p.hint #secret-hint {
                                "32 digits and letters. The box printed it when it first started. On \
                                the box, " span.code { "perennial claim" } " prints it again."
                            }
                        }
                        div.field {
                            label for="device" { "A name for this device" }
                            input #device name="device" maxlength="40" autocomplete="off"
                                aria-describedby="device-hint";
                            p.hint #device-hint { "So that you know later which one it was." }
                        }
                        button.main { "Sign in" }
                    }
                }
            }
        }
    })
}

/// What did not work, or is not there.
pub fn error(frame: &Frame<'_>, status: Status, words: &str) -> String {
    frame.page(&html! {
        main #main data-status=(status.code()) {
            div.wrap {
                div.narrow {
                    h1 { (frame.title) }
                    p { (words.trim()) }
                    p { a."button main" href="/" { "See what is here" } }
                }
            }
        }
    })
}

/// The address of a file of a share.
pub fn file_address(base: &str, name: &str, path: &str) -> String {
    let parts = std::iter::once(name).chain(path.split('/').filter(|part| !part.is_empty()));
    parts.fold(base.to_string(), |address, part| format!("{address}/{}", percent_encoded(part)))
}

fn wish_of(state: State) -> (&'static str, &'static str) {
    match state {
        State::Paused => ("resume", "Resume"),
        _ => ("pause", "Pause"),
    }
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Serving => "serving",
        State::Resting => "resting",
        State::Fetching => "fetching",
        State::Paused => "paused",
        State::Asleep => "asleep",
        State::Trouble => "trouble",
    }
}

fn percent_of(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 100 / u128::from(whole.max(1))) as u64
}

fn people(count: u32) -> String {
    match count {
        0 => "nobody".to_string(),
        1 => "1 person".to_string(),
        more => format!("{more} people"),
    }
}

/// Bytes as people write them, in tens.
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

fn mib(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    match tenths % 10 {
        0 => format!("{} MiB", tenths / 10),
        tenth => format!("{}.{tenth} MiB", tenths / 10),
    }
}

/// A rate as one types it.
pub fn rate_typed(rate: u64) -> String {
    match rate {
        0 => String::from("off"),
        rate if rate % 1_000_000 == 0 => format!("{}MB/s", rate / 1_000_000),
        rate if rate % 1_000 == 0 => format!("{}kB/s", rate / 1_000),
        rate => format!("{rate}B/s"),
    }
}

fn duration(seconds: u64) -> String {
    let plural = |count: u64, word: &str| match count {
        1 => format!("1 {word}"),
        more => format!("{more} {word}s"),
    };
    match seconds {
        0..120 => plural(seconds, "second"),
        120..7_200 => plural(seconds / 60, "minute"),
        7_200..172_800 => plural(seconds / 3_600, "hour"),
        _ => plural(seconds / 86_400, "day"),
    }
}

fn fern(class: &str) -> Markup {
    html! {
        svg class=[Some(class).filter(|class| !class.is_empty())] viewBox="0 0 24 30"
            fill="currentColor" aria-hidden="true" { path d=(FERN) {} }
    }
}

const FERN: &str = "M11.200 30c.2-7 .3-14 .4-22h.8c0 8 .1 15 .4 22zM12 9.500C9.400 6.700 9.700 3 12 \
    0c2.300 3 2.600 6.700 0 9.500zM11.400 16.500C7 16 4.300 13 4 8.800c4.500.5 7.200 3.500 7.400 \
    7.700zM12.600 15c4.300-.4 7-3.300 7.300-7.300-4.400.4-7.100 3.300-7.300 7.300zM11.400 \
    25.500C6 25.500 2.200 22 1.600 17c5.700.2 9.400 3.500 9.800 8.500zM12.600 23.500c5.300 0 9.100-3.300 \
    9.800-8.200-5.500.2-9.300 3.500-9.800 8.200z";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_the_script_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_951, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (4_200_000_000, "4.2 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_path_becomes_an_address_part_by_part() {
        let address = file_address("/s/ab", "a b", "c/d?e#f/\u{e4}");
        assert_eq!(address, "/s/ab/a%20b/c/d%3Fe%23f/%C3%A4");
        assert_eq!(file_address("/s/ab", "x\"y", ""), "/s/ab/x%22y");
    }
}
