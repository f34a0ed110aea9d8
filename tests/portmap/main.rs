//! The box behind a router: what it asks for, what it says of it, and what it gives back.
//!
//! ```text
//!   inside (the program) ---- LAN, 10.77.0.0/24 ---- router ---- wan ---- outside
//!   10.77.0.2                              10.77.0.1     11.0.113.7        11.0.113.9
//! ```
//!
//! Each test makes that house of network namespaces ([`hosts`]). The router follows a script, in
//! datagrams ([`datagrams`]) or in UPnP ([`igd`]), or it is `miniupnpd` with nftables, and then
//! somebody outside really comes in ([`miniupnpd`]). The real program listens at port 7001, or
//! wherever a test says.
//!
//! A test fails, rather than being skipped, when it is not run as root or a program is missing. They
//! mostly wait: `--test-threads=8`.

#![cfg(feature = "std")]

#[path = "../support/hosts.rs"]
mod hosts;
#[path = "../support/leecher.rs"]
mod leecher;
#[expect(dead_code, reason = "each test crate uses what it needs")]
#[path = "../interop/process.rs"]
mod process;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/torrent.rs"]
mod torrent;

mod datagrams;
mod igd;
mod miniupnpd;
mod none;

use hosts::{Family, Host, Lan};
use program::{Call, Folder, Program};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A router and the box behind it, each a machine on one LAN.
struct House {
    router: Host,
    inside: Host,
    home: Folder,
    film: PathBuf,
    /// Last, for the machines are plugged into it.
    lan: Lan,
}

impl House {
    fn new(family: Family) -> House {
        let lan = Lan::new(family);
        let (router, inside) = (lan.host("router"), lan.host("inside"));
        inside.route_through(router.addresses()[0]);
        let home = Folder::new("house");
        let film = home.write("film.mkv", &[7; 300_000]);
        House { router, inside, home, film, lan }
    }

    /// The program's command line; it is to be started by [`House::start`].
    fn call(&self) -> Call {
        Call::share(&self.home, &[&self.film]).listen(Some("0.0.0.0:7001"))
    }

    fn start(&self, call: Call) -> Program {
        self.inside.run(|| call.start())
    }
}

/// Where routers are asked in datagrams.
const ROUTER_PORT: u16 = 5351;

/// The LAN's addresses, in the order its machines are made.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// A port that is being given back is, after the signal, within this: half a second, and what a
/// busy machine takes to start and end things.
const GIVEN_BACK: Duration = Duration::from_millis(1_500);

fn any(port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()
}
