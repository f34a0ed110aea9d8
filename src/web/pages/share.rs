//! The page of a share: it plays, it is fetched in every way there is, and its owner looks after it.

use super::{Frame, fern, file_address, people, percent_of, rate_typed, size, state_word, wish_of};
use crate::service::control::answer::{Detail, FileItem, State};
use crate::service::control::show::date;
use crate::web::media::{Show, show_of};
use maud::{Markup, PreEscaped, html};
use std::format;
use std::string::String;

/// What the page of a share shows.
pub struct Page<'p> {
    /// All that is known of it.
    pub detail: &'p Detail,
    /// A page of its files.
    pub files: &'p [FileItem],
    /// The number of the first of them.
    pub first: u64,
    /// Where the next page begins.
    pub next: Option<u64>,
    /// Which of its files is in the player, if any can be.
    pub played: Option<(&'p FileItem, Show)>,
    /// The magnet link, with this box in it; nothing for whom it is not.
    pub magnet: Option<&'p str>,
}

/// The page of a share.
pub fn render(frame: &Frame<'_>, page: &Page<'_>) -> String {
    let Page { detail, .. } = page;
    let (item, hash) = (&detail.torrent, detail.torrent.info_hash);
    let whole = item.wanted_bytes > 0 && item.here_bytes == item.wanted_bytes;
    let base = format!("/s/{hash}");
    let single = page.files.first().filter(|_| detail.files == 1);
    let file_link = |file: &FileItem| file_address(&base, &item.name, &file.path);
    // Of a magnet link that nobody has answered yet there is but the link.
    let is_known = item.bytes > 0;
    let shows = |wanted| page.played.is_some_and(|(_, show)| show == wanted);
    frame.page(&html! {
        main #main data-hash=(hash) data-state=(state_word(item.state)) {
            section."canopy hero".under[shows(Show::Video)] {
                (fern("fern"))
                div.wrap {
                    h1 { (item.name) }
                    div #health data-part { (health(detail, whole)) }
                    p.stale hidden { "The box does not answer just now. Trying again." }
                }
            }
            div."wrap stage" {
                @if let Some((file, show)) = page.played {
                    (player(&file_link(file), show, &item.name))
                }
                div.row {
                    @if shows(Show::Video) || shows(Show::Audio) {
                        a."button main" href="#player" data-play { (PLAY) "Play" }
                    }
                    @if let Some(file) = single {
                        a.button href={ (file_link(file)) "?download" } { (DOWN) "Download" }
                    } @else if whole {
                        a.button href={ (base) ".zip" } { (DOWN) "Download all as .zip" }
                    }
                    @if is_known {
                        a.button href={ (base) ".m3u8" } { "Playlist for VLC or a TV" }
                    }
                    @if is_known && page.magnet.is_some() {
                        a.button href={ (base) ".torrent" } { ".torrent" }
                    }
                    @if let Some(magnet) = page.magnet {
                        a.button href=(magnet) { "Magnet link" }
                    }
                    button type="button" data-copy=(frame.absolute(&format!("{base}/"))) data-js hidden {
                        "Copy this page\u{2019}s link"
                    }
                }
            }
            @if detail.files > 1 { (files(page, &base, &file_link)) }
            @if is_known { (ways(page, frame, &base, &file_link)) }
            @if frame.is_owners() { (tend(frame, detail, &base)) }
        }
    })
}

fn ways(
    page: &Page<'_>,
    frame: &Frame<'_>,
    base: &str,
    link: &dyn Fn(&FileItem) -> String,
) -> Markup {
    let playlist = frame.absolute(&format!("{base}.m3u8"));
    let single = page.files.first().filter(|_| page.detail.files == 1);
    let curl = match page.played.map(|(file, _)| file).or(single) {
        Some(file) => format!("curl -C - -O \"{}\"", frame.absolute(&link(file))),
        None => format!("curl -O \"{}\"", frame.absolute(&format!("{base}.zip"))),
    };
    html! {
        section.wrap aria-labelledby="ways-head" {
            div.ways {
                div {
                    h2 #ways-head { "How to get this" }
                    details open {
                        summary { "In a browser" }
                        p { (in_a_browser(page)) }
                    }
                    details {
                        summary { "In VLC, or on a TV" }
                        p {
                            "In VLC choose Media, then Open Network Stream, and paste this address. \
                            Or open the " a href={ (base) ".m3u8" } { "playlist file" } "."
                        }
                        (copied(&playlist, "Copy the address"))
                    }
                    details {
                        summary { "With curl" }
                        p { "If it is cut off, the same command goes on where it was." }
                        (copied(&curl, "Copy the command"))
                    }
                    @if let Some(magnet) = page.magnet {
                        details {
                            summary { "With a BitTorrent app" }
                            p {
                                "Best for large things and for many people: each who fetches helps the \
                                next. Open the " a href=(magnet) { "magnet link" } " or the "
                                a href={ (base) ".torrent" } { ".torrent file" }
                                " in Transmission, qBittorrent or any other."
                            }
                            (copied(magnet, "Copy the magnet link"))
                        }
                    }
                }
                figure {
                    img src={ (base) ".svg" } width="232" height="232"
                        alt="QR code of this page\u{2019}s address";
                    figcaption { "This page on a phone or TV" }
                }
            }
        }
    }
}

fn in_a_browser(page: &Page<'_>) -> &'static str {
    match page.played {
        Some((_, Show::Image)) => "Look at it above, or press Download and keep it.",
        Some(_) => {
            "Press Play above: it starts at once, and you can jump about in it. Or press Download \
             and keep it."
        }
        None => "Press Download and keep it.",
    }
}

fn health(detail: &Detail, whole: bool) -> Markup {
    let item = &detail.torrent;
    let files = match detail.files {
        0 | 1 => String::new(),
        files => format!(", {files} files"),
    };
    html! {
        p.lede {
            @if item.bytes == 0 {
                "Looking for somebody who knows what it is. "
            } @else if whole {
                "All of it is here, " (size(item.bytes)) (files) ". "
            } @else {
                span data-live="percent" { (percent_of(item.here_bytes, item.wanted_bytes)) " %" }
                " is here: " span data-live="here_bytes" { (size(item.here_bytes)) }
                " of " (size(item.wanted_bytes)) (files) ". "
            }
            @match item.state {
                State::Paused => "It is paused. ",
                State::Asleep => "Its disk is not plugged in; it wakes when the disk is back. ",
                _ => "",
            }
            "Connected: " span data-live="people" { (people(item.peers)) } ". Sent "
            span data-live="sent_bytes" { (size(item.sent_bytes)) } " so far."
        }
        p.hint {
            "Complete copies known: "
            @match (whole, detail.complete_peers) {
                (true, 0) => "this box\u{2019}s.",
                (true, more) => { "this box\u{2019}s and " (more) " more." }
                (false, 0) => "none just now.",
                (false, some) => { (some) ", of those connected." }
            }
            @if let Some(verified) = detail.verified_s {
                " Last held against its hashes on " (date(verified)) "; what is sent is looked at again."
            }
        }
        @if let Some(trouble) = &item.trouble { p.why { (trouble) } }
        @if !whole && item.wanted_bytes > 0 {
            progress data-live="here_bytes" value=(item.here_bytes) max=(item.wanted_bytes)
                aria-label="Fetched so far" {}
        }
    }
}

fn player(link: &str, show: Show, name: &str) -> Markup {
    html! {
        @match show {
            Show::Video => video #player controls preload="metadata" src=(link) {
                "Your browser cannot play films. Download it instead."
            },
            Show::Audio => audio #player controls preload="metadata" src=(link) {
                "Your browser cannot play sound. Download it instead."
            },
            Show::Image => img #player src=(link) alt=(name);,
            Show::Nothing => "",
        }
        p."alert cannot" role="alert" hidden {
            "This browser cannot play this kind of file. Download it, or open it in VLC: see below."
        }
    }
}

fn files(page: &Page<'_>, base: &str, link: &dyn Fn(&FileItem) -> String) -> Markup {
    let numbered = (page.first..).zip(page.files);
    html! {
        section.wrap #files data-part aria-labelledby="files-head" {
            h2 #files-head { (page.detail.files) " files" }
            ul.files {
                @for (index, file) in numbered {
                    li {
                        h3 { (file.path) }
                        p.meta {
                            span { (size(file.bytes)) }
                            @if !file.wanted {
                                span { "not fetched" }
                            } @else if file.here_bytes < file.bytes {
                                span { (percent_of(file.here_bytes, file.bytes)) " % is here" }
                            }
                        }
                        @if show_of(&file.path) != Show::Nothing && file.wanted {
                            a."button small" href={ "?play=" (index) "#player" } {
                                (PLAY) "Play" span.vh { " " (file.path) }
                            }
                        }
                        @if file.wanted {
                            a."button small" href={ (link(file)) "?download" } title="Download" {
                                (DOWN) span.vh { "Download " (file.path) }
                            }
                        }
                    }
                }
            }
            nav.pages aria-label="Pages" {
                @if page.first > 0 { a.button href={ (base) "/" } { "First page" } }
                @if let Some(next) = page.next {
                    a.button href={ "?after=" (next) } { "Next page" }
                }
            }
        }
    }
}

fn copied(text: &str, word: &str) -> Markup {
    html! {
        pre { (text) }
        p data-js hidden { button.small type="button" data-copy=(text) { (word) } }
    }
}

fn tend(frame: &Frame<'_>, detail: &Detail, base: &str) -> Markup {
    let item = &detail.torrent;
    let (wish, verb) = wish_of(item.state);
    let folder = item.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let hint = match wish {
        "resume" => "It goes on where it was.",
        _ => "It stays on the disk and is not sent until you resume it.",
    };
    html! {
        section.wrap aria-labelledby="tend-head" {
            div.tend {
                h2 #tend-head { "Yours to look after" }
                form method="post" action={ (base) "/" (wish) } {
                    (frame.hidden())
                    button { (verb) }
                    p.hint { (hint) }
                }
                @if item.bytes > 0 { (moved(frame, base, folder)) }
                (limit(frame, detail, base))
                details.confirm {
                    summary { "Remove\u{2026}" }
                    form method="post" action={ (base) "/remove" } {
                        (frame.hidden())
                        p {
                            strong { "Stop sharing \u{201c}" (item.name) "\u{201d}?" }
                            " Its link will no longer work here."
                        }
                        label.check {
                            input type="checkbox" name="delete" value="yes";
                            " Delete the files too"
                        }
                        p.hint { "Deleted files cannot be brought back." }
                        button.grave { "Remove it" }
                    }
                }
            }
        }
    }
}

fn moved(frame: &Frame<'_>, base: &str, folder: &str) -> Markup {
    html! {
        form method="post" action={ (base) "/move" } {
            (frame.hidden())
            label for="to" { "Move to another folder" }
            div.row {
                div.field {
                    input.code #to name="to" required value=(folder) autocomplete="off"
                        spellcheck="false";
                }
                button { "Move" }
            }
            p.hint { "It keeps its link, and is sent meanwhile." }
        }
    }
}

fn limit(frame: &Frame<'_>, detail: &Detail, base: &str) -> Markup {
    let typed = |rate: Option<u64>| rate.map(rate_typed).unwrap_or_default();
    html! {
        form method="post" action={ (base) "/limit" } {
            (frame.hidden())
            div.row {
                div.field {
                    label for="limit-up" { "Send at most" }
                    input #limit-up name="up" value=(typed(detail.limit_up)) autocomplete="off"
                        aria-describedby="limit-hint";
                }
                div.field {
                    label for="limit-down" { "Fetch at most" }
                    input #limit-down name="down" value=(typed(detail.limit_down))
                        autocomplete="off" aria-describedby="limit-hint";
                }
                button { "Set" }
            }
            p.hint #limit-hint {
                "Such as 500kB/s, for this one alone. With nothing here what holds for all of them does."
            }
        }
    }
}

const PLAY: PreEscaped<&str> = PreEscaped(
    "<svg class=\"i\" viewBox=\"0 0 20 20\" aria-hidden=\"true\">\
     <path d=\"M5 2.800v14.400L17 10z\"/></svg>",
);

const DOWN: PreEscaped<&str> = PreEscaped(
    "<svg class=\"i\" viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path d=\"M9 2h2v8.200l3.300-3.300 \
     1.400 1.400L10 14 4.300 8.300l1.400-1.400L9 10.200zM3 16h14v2H3z\"/></svg>",
);
