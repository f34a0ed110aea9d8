//! perennial: an always-on peer for small hardware.
//!
//! Drop a file into its folder, and from then on it has one link that works for everybody and
//! stays on the air while you sleep, on memory that is fixed before it starts.
//!
//! # The map
//!
//! | module | what it is | what it may use |
//! | --- | --- | --- |
//! | [`engine`] | everything a peer *decides*: bytes, `now` and memory in, data out | `core` only |
//! | `service` | everything it *does*: sockets, files, threads, time | std, smol, the engine |
//! | `init` | the appliance: PID 1, two systems side by side | std, the service |
//! | `web` | the page: one link for everybody, and the box run from it | the service |
//! | `init` | PID 1 of the appliance: mounts, modules, network, watchdog | rustix, the service |
//! | `firmware` | the same on a microcontroller: one loop over frames and flash | smoltcp, the engine |
//! | `main` | the command line | all of it |
//!
//! Imports go one way, `engine` <- `service` <- `web` <- `main`, with `firmware` beside `service` and
//! `init` beside `web`; `tests/tidy.rs` holds it. The engine is
//! `no_std`, has no allocator, no clock and no randomness, and builds for bare metal as it is.
//!
//! # Memory
//!
//! A board's profile (`boards/<name>/profile.toml`) says how much there is. `service::board` adds
//! up one line for each holder of memory, `service::life` allocates all of it at start, and the
//! engine borrows it. Nothing a peer or a torrent does makes it more; each limit has a written
//! answer where it is met.
//!
//! # Journeys
//!
//! 1. **Share a folder.** `main` -> `service::life` -> `service::share` (walk, compare with what is
//!    known, hash on lanes) -> `service::draft` with [`engine::metainfo::author`] (the `.torrent`,
//!    front to back) -> `service::state` (files, then the record in the [`engine::journal`]: from
//!    here on the torrent exists) -> [`engine::library`] -> [`engine::swarm`] (it can be asked for)
//!    -> `service::announcer` and `service::discovery` (it can be found).
//! 2. **Serve.** `service::lobby` (accept) -> `service::pump` -> [`engine::wire`] (handshake, frames)
//!    -> [`engine::peer`] (requests into their one queue) -> [`engine::swarm::choker`] (whose turn)
//!    -> [`engine::peer::serve`] (a view of the queue's head) -> `service::disk` (page cache, else a
//!    lane) -> the socket; nothing is committed until the socket has taken it.
//! 3. **Fetch, verify, store, serve on.** `main` -> `service::fetch` (files made, or a name to look
//!    for) -> [`engine::swarm::fetch`] (whom to ask for what) -> `service::pump` (payload into a
//!    lane's buffer) -> `service::store` (written, and hashed on the way) -> *verified*: told to the
//!    others, journey 2 -> synced and in [`engine::library::progress`]: *recorded* -> nothing
//!    lacking: a share like any other.
//! 4. **Be found.** [`engine::announce::schedule`] -> `service::announcer` -> `service::tracker`;
//!    [`engine::announce::local`] -> `service::discovery`; [`engine::dht`] -> `service::dht`; peers
//!    tell of peers; whoever is met becomes a candidate in [`engine::swarm::candidates`] ->
//!    `service::lobby` (dial) -> journeys 2 and 3. [`engine::portmap`] -> `service::portmap`: the
//!    router lets in who comes by himself.
//! 5. **Always on.** `main` -> `service::life` with a `service::config` -> `service::archive` (the
//!    state folder on a thread of its own, [`engine::library::catalog`] in it) -> ready. Torrents are
//!    at rest: a peer that asks for one has `service::rest` wake it, then journey 2; `service::pass`
//!    announces them in turn. `service::watch` tells what happens to a folder's entries,
//!    `service::house` and `service::control` what the owner wants, and `service::steward` does it.
//! 6. **One link.** `service::life` (listens) -> `web::run` -> `web::connection` (a task each) ->
//!    `web::head` -> `web::gate` (who comes) -> `web::routes` -> `web::shares` (wakes the torrent as
//!    journey 5 does) -> `web::file` and `service::handout` (page cache to socket, else a lane; what is
//!    being fetched is waited for, and fetched first) -> the socket. A wish of the owner's ->
//!    `web::actions` -> `service::steward`.
//! 7. **As an appliance.** `init` (PID 1) mounts, loads modules and asks for an address, then lives
//!    journey 5's life in the same process and watches over it.
//! 8. **Without Linux.** `service::image` writes a share as one image ([`engine::image`]); a crate
//!    under `boards/` brings frames, flash and a clock to `firmware`, whose `line` does with
//!    smoltcp's rings what `service::pump` does with sockets.
//! 9. **Another version.** `perennial update`, or a file sent to the page -> `service::steward` ->
//!    `service::lanes` -> `init::update` (whose signature, for which board, which hash) -> the other
//!    slot -> a restart -> `init::slots` (on trial; good once it has served, or left again).
//!
//! Read `engine::peer` and `service::pump` first: a byte from socket to disk and back is there.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(any(feature = "std", test))]
extern crate std;

#[forbid(unsafe_code)]
pub mod engine;
#[cfg(feature = "firmware")]
#[forbid(unsafe_code)]
pub mod firmware;

/// The words of `log` for everything below, by way of `service::log_lines::say`: its own macros build a
/// record wherever they stand, 100 bytes of the program each.
#[cfg(feature = "std")]
macro_rules! entry {
    ($level:ident, $($words:tt)*) => {
        if log::Level::$level <= log::max_level() {
            $crate::service::log_lines::say(log::Level::$level, module_path!(), format_args!($($words)*))
        }
    };
}
#[cfg(feature = "std")]
macro_rules! warn { ($($words:tt)*) => { entry!(Warn, $($words)*) } }
#[cfg(feature = "std")]
macro_rules! info { ($($words:tt)*) => { entry!(Info, $($words)*) } }
#[cfg(feature = "std")]
macro_rules! debug { ($($words:tt)*) => { entry!(Debug, $($words)*) } }
#[cfg(feature = "std")]
macro_rules! trace { ($($words:tt)*) => { entry!(Trace, $($words)*) } }

#[cfg(all(feature = "std", target_os = "linux"))]
pub mod init;
#[cfg(feature = "std")]
pub mod service;
#[cfg(feature = "std")]
#[forbid(unsafe_code)]
pub mod web;
