//! Many peers on one thread, a virtual clock, a seeded network.
//!
//! `serving` fetches whole torrents under good and bad circumstances, `withheld` takes files away
//! meanwhile, `limits` meets every limit, `timers` counts what an idle box wakes for, `faults`
//! provokes every [`PeerFault`](perennial::engine::wire::PeerFault), `hostile` sends rubbish and
//! floods, `stream` looks at single messages on the wire, `year` lets a box live for one. `world` is the
//! simulator they share.
//!
//! A scenario runs for several seeds; one that fails says for which, and `SIM_SEED=n cargo test
//! --test sim name` runs that one again, step for step.

#[path = "../support/fake_peer.rs"]
mod fake_peer;
#[path = "../support/mock_flash.rs"]
mod mock_flash;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/seeds.rs"]
mod seeds;
#[path = "../support/sim_clock.rs"]
mod sim_clock;
#[path = "../support/sim_net.rs"]
mod sim_net;

mod faults;
mod hostile;
mod leecher;
mod limits;
mod line;
mod pump;
mod resting;
mod script;
mod serving;
mod storage;
mod stream;
mod timers;
mod trace;
mod withheld;
mod world;
mod year;

use seeds::for_seeds;
