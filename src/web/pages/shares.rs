//! The front page: what is shared, how the box is, and for its owner how something is added.

use super::{
    Frame, growth, memory, mib, people, percent_of, pulse_list, size, state_word, wish_of,
};
use crate::service::control::answer::{Item, State};
use crate::service::lan::percent_encoded;
use crate::service::steward::pulse::Pulse;
use crate::service::volume::kept::Told;
use crate::web::actions::Answered;
use maud::{Markup, html};
use std::format;
use std::string::{String, ToString as _};
use std::vec::Vec;

/// What the front page shows.
pub struct Page<'p> {
    /// How the box is.
    pub pulse: Pulse,
    /// A page of torrents.
    pub answered: Answered,
    /// What was looked for.
    pub filter: String,
    /// It is not the first page.
    pub is_later: bool,
    /// How others reach the box, in words.
    pub reach: String,
    /// Its disks.
    pub volumes: Vec<Told>,
    /// Where dropped files go, if anywhere.
    pub drop_folder: Option<&'p str>,
}

/// The front page.
pub fn render(frame: &Frame<'_>, page: &Page<'_>) -> String {
    let Page { pulse, answered, filter, .. } = page;
    let (count, owners) = (pulse.torrents, frame.is_owners());
    let heading = match (filter.as_str(), answered.torrents.len()) {
        ("", _) => "All shares".to_string(),
        (_, 0) => "Nothing has that in its name".to_string(),
        (_, found) if answered.next.is_some() => {
            format!("More than {found} have that in their names")
        }
        (_, 1) => "One has that in its name".to_string(),
        (_, found) => format!("{found} have that in their names"),
    };
    let after = answered.next.map(|next| {
        let q = percent_encoded(filter);
        if filter.is_empty() { format!("/?after={next}") } else { format!("/?q={q}&after={next}") }
    });
    frame.page(&html! {
        main #main {
            section.canopy aria-label="Right now" {
                div.wrap {
                    h1 {
                        span data-live="torrents" { (count) }
                        @if count == 1 { " share on the air" } @else { " shares on the air" }
                    }
                    @if !owners {
                        p.lede {
                            (frame.name) " is a small computer that keeps these files here for you, \
                            day and night. Take what you like. It needs no account."
                        }
                    }
                    (pulse_list(pulse))
                }
                (growth())
            }
            @if owners {
                (facts(page))
                (add(frame, page.drop_folder))
            }
            div.wrap {
                @if count > 0 || !filter.is_empty() {
                    form.find method="get" action="/" role="search" {
                        label for="q" { "Find a share" }
                        div.row {
                            div.field {
                                input #q name="q" type="search" autocomplete="off" value=(filter);
                            }
                            button { "Find" }
                        }
                    }
                }
                @if count == 0 && answered.torrents.is_empty() && filter.is_empty() {
                    (nothing_yet(page.drop_folder, owners))
                } @else {
                    section #shares data-part aria-labelledby="shares-head" {
                        h2 #shares-head .vh[filter.is_empty()] { (heading) }
                        ul.shares {
                            @for item in &answered.torrents { (row(frame, item)) }
                        }
                        nav.pages aria-label="Pages" {
                            @if page.is_later { a.button href="/" { "First page" } }
                            @if let Some(after) = &after { a.button href=(after) { "Next page" } }
                        }
                    }
                }
            }
        }
    })
}

fn facts(page: &Page<'_>) -> Markup {
    let pulse = &page.pulse;
    html! {
        section #facts.wrap data-part aria-labelledby="facts-head" {
            h2 #facts-head.vh { "How the box is" }
            div.facts {
                div {
                    h3 #f-mem { "Memory" }
                    (memory(pulse, "f-mem"))
                    p {
                        span data-live="resident_bytes" { (mib(pulse.resident_bytes)) }
                        " of the " (mib(pulse.contract_bytes)) " it may ever use."
                    }
                }
                div {
                    h3 { "Disks" }
                    @if page.volumes.is_empty() { p { "Nothing lies on one yet." } }
                    @for volume in page.volumes.iter().take(4) {
                        p {
                            (volume.at.display()) ": "
                            @match volume.free_bytes {
                                Some(free) => { (size(free)) " free" }
                                None => { (volume.state.word()) }
                            }
                        }
                    }
                }
                div { h3 { "Reached from outside" } p { (page.reach) "." } }
            }
        }
    }
}

fn add(frame: &Frame<'_>, drop_folder: Option<&str>) -> Markup {
    html! {
        section.wrap aria-labelledby="add-head" {
            h2 #add-head.vh { "Add something" }
            div.add {
                form method="post" action="/add" {
                    (frame.hidden())
                    label for="link" { "Fetch from a link" }
                    div.row {
                        div.field {
                            input #link name="link" required autocomplete="off" spellcheck="false"
                                aria-describedby="link-hint";
                        }
                        button.main { "Fetch" }
                    }
                    p.hint #link-hint { "A magnet link, or the address of a .torrent file." }
                }
                @if drop_folder.is_some() {
                    div data-js hidden {
                        label.drop {
                            span {
                                "Drop files here, or " b { "choose them" } "." br;
                                "They are shared from the moment they are on the box."
                            }
                            input.vh type="file" multiple;
                        }
                    }
                    ul.uploads aria-label="Uploads" {}
                } @else {
                    p.hint {
                        "To drop files here, give the box a folder to share: "
                        span.code { "folder" } " below " span.code { "[[share]]" }
                        " in its configuration."
                    }
                }
            }
        }
    }
}

fn nothing_yet(drop_folder: Option<&str>, owners: bool) -> Markup {
    html! {
        section #shares.empty data-part aria-labelledby="shares-head" {
            @if owners {
                h2 #shares-head { "Put the first file on the air" }
                ol {
                    @match drop_folder {
                        Some(folder) => li {
                            "Drop a file above. Or copy it into the box\u{2019}s folder, "
                            span.code { (folder) } "."
                        }
                        None => li {
                            "On the box, say " span.code { "perennial add" } " and the file\u{2019}s path."
                        }
                    }
                    li { "Wait a moment. The box reads it once, and its name appears here." }
                    li {
                        "Open it and send its link to a friend. You can switch your own computer off."
                    }
                }
            } @else {
                h2 #shares-head { "Nothing is on the air yet" }
                p { "Whoever this box belongs to puts the first file here after signing in." }
            }
        }
    }
}

fn row(frame: &Frame<'_>, item: &Item) -> Markup {
    let (hash, word) = (item.info_hash, state_word(item.state));
    let percent = percent_of(item.here_bytes, item.wanted_bytes);
    let is_fetched = item.state == State::Fetching && item.wanted_bytes > 0;
    let (wish, verb) = wish_of(item.state);
    html! {
        li data-hash=(hash) data-state=(word) {
            span.leaf aria-hidden="true" {}
            div {
                h3 { a href={ "/s/" (hash) "/" } { (item.name) } }
                @if is_fetched {
                    progress data-live="here_bytes" value=(item.here_bytes)
                        max=(item.wanted_bytes) aria-label="Fetched so far" {}
                }
                p.meta {
                    @if is_fetched {
                        span {
                            span data-live="here_bytes" { (size(item.here_bytes)) }
                            " of " (size(item.wanted_bytes))
                        }
                        span data-live="percent" { (percent) " %" }
                    } @else if item.bytes == 0 {
                        span { "not known yet what it is" }
                    } @else {
                        span { (size(item.bytes)) }
                    }
                    span { "sent " span data-live="sent_bytes" { (size(item.sent_bytes)) } }
                    span { span data-live="people" { (people(item.peers)) } " connected" }
                }
                @if let Some(trouble) = &item.trouble { p.why { (trouble) } }
            }
            p.state data-live="state" { (word) }
            @if frame.is_owners() {
                form method="post" action={ "/s/" (hash) "/" (wish) } data-quiet {
                    (frame.hidden())
                    input type="hidden" name="back" value="list";
                    button.small { (verb) span.vh { " " (item.name) } }
                }
            }
        }
    }
}
