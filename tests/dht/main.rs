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
mod world;

/// Runs `scenario` for each of so many seeds, or for the one in `SIM_SEED` alone.
fn for_seeds(count: u64, scenario: impl Fn(u64)) {
    let only = std::env::var("SIM_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("SIM_SEED is a number"));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let failing = Failing(seed);
        scenario(seed);
        std::mem::forget(failing);
    }
}

/// Says which seed was running when a scenario fails.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        eprintln!("this was seed {0}: SIM_SEED={0} repeats it", self.0);
    }
}
