//! Swarms of our own engines, and of others, on one thread with a virtual clock and a seed.
//!
//! Every host is an engine that fetches, with a pump for each connection, lanes that take their
//! time, a disk in memory whose every byte is checked, and an uplink that its connections share.
//! `spread` measures how fast content goes from one to many, `liars` sets peers with one vice each
//! among honest ones, `churn` lets links and hosts come and go, `limits` meets every limit of the
//! fetcher, `ends` looks at the last pieces, `hostile` sends rubbish. `world` is the simulator.
//!
//! A scenario runs for several seeds; one that fails says for which, and `SIM_SEED=n cargo test
//! --test swarm name` runs that one again, step for step.

#[path = "../support/fake_peer.rs"]
mod fake_peer;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/seeds.rs"]
mod seeds;
#[path = "../support/sim_net.rs"]
mod sim_net;
#[path = "../sim/trace.rs"]
mod trace;

mod churn;
mod content;
mod ends;
mod guest;
mod host;
mod hostile;
mod liars;
mod limits;
mod pump;
mod spread;
mod wires;
mod world;

use seeds::for_seeds;
