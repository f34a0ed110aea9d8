//! How a running box is told things: a Unix socket, `STATE/control`, whose permissions are its lock.
//!
//! ```text
//! perennial list ── {"v":1,"do":{"list":{"max":500}}} ──> box
//!                <── {"torrent":{...}}  as many as there are, at most 500
//!                <── {"done":{"next":500}}, or {"error":{"thing":..,"problem":..,"remedy":..}}
//! ```
//!
//! A line of JSON asks, lines of JSON answer, and a connection is for one request. No answer grows
//! with the library: what may be long comes in pages, each named by where the last one ended, so
//! that whoever reads slowly holds nothing of ours between two of them. Fields that are not known
//! are an error in a request, for what they ask would not be done; in an answer they are passed
//! over.
//!
//! | what | where |
//! | --- | --- |
//! | what can be asked, and what is wrong with it | [`message`], [`what`] |
//! | what is answered | [`answer`] |
//! | the box's end of the socket | [`server`] |
//! | the command line's end | [`client`], [`tell`] |
//! | as people read it | [`show`] |
//!
//! The journey: `main` -> [`tell`] -> [`client`] -> the socket -> [`server`] -> [`Actions`], which is
//! the service's -> [`server::Reply`] -> the socket -> [`show`] -> a terminal.

pub mod answer;
pub mod client;
pub mod message;
pub mod server;
pub mod show;
pub mod tell;
pub mod what;

pub use answer::Answer;
pub use client::Client;
pub use message::Request;
pub use server::{Actions, Reply, Socket, Unanswered};

/// A line at most, of either direction, with its end.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Torrents or files of one answer at most.
pub const PAGE_MAX: u32 = 500;

/// The socket's name in the state folder.
pub const FILE: &str = "control";
