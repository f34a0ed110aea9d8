//! Nodes of the distributed hash table: hundreds of ours on a virtual network, and a few of other
//! people's on loopback.
//!
//! `network` finds every torrent from everywhere, `hostile` puts liars and floods among the nodes,
//! `idle` counts what a node wakes for; `world` is the simulator they share. `loopback` runs the
//! service's own socket code beside `mainline` and libtorrent, in the `boxes` it is given.
//!
//! A scenario runs for several seeds; one that fails says for which, and `SIM_SEED=n cargo test
//! --test dht name` runs that one again, step for step.

#[cfg(feature = "std")]
mod boxes;
mod hostile;
mod idle;
#[cfg(feature = "std")]
mod loopback;
mod network;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/seeds.rs"]
mod seeds;
mod world;

use seeds::for_seeds;
