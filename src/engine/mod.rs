//! The engine: everything a peer decides, and nothing it does.
//!
//! No std, no allocator, no clock, no randomness, no sockets, no files: what it needs is handed
//! in (bytes, `now`, memory lent at start), and what it wants done is handed out as data. It
//! builds for Cortex-M and RISC-V as it is.
//!
//! Imports go downwards only:
//!
//! ```text
//! units limits digest <- bencode <- metainfo wire announce <- swarm <- peer
//! announce            <- dht
//! units limits        <- journal magnet
//! units               <- portmap
//! digest metainfo journal <- library
//! metainfo            <- image
//! ```

pub mod announce;
pub mod bencode;
pub mod dht;
pub mod digest;
pub mod image;
pub mod journal;
pub mod library;
pub mod limits;
pub mod magnet;
pub mod metainfo;
pub mod peer;
pub mod portmap;
pub mod swarm;
pub mod units;
pub mod wire;
