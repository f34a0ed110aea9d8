//! A real router, `miniupnpd` with nftables, and somebody outside who comes in through it.

use crate::House;
use crate::hosts::{Family, Host};
use crate::leecher::{Leecher, MODERN};
use crate::process::{Process, program};
use crate::torrent::Metainfo;
use std::fs;
use std::net::SocketAddr;

#[test]
fn somebody_outside_fetches_through_a_router_asked_in_pcp() {
    comes_in_through("PCP", "enable_natpmp=yes\nenable_upnp=no\n");
}

#[test]
fn somebody_outside_fetches_through_a_router_asked_by_upnp() {
    comes_in_through("UPnP", "enable_natpmp=no\nenable_upnp=yes\n");
}

fn comes_in_through(method: &str, options: &str) {
    let house = House::new(Family::V4);
    let outside = house.lan.host_at("outside", None, None);
    // miniupnpd refuses to translate for addresses that documents use; nothing of this can leave.
    house.router.wire("wan", "11.0.113.7/24", &outside, "11.0.113.9/24");
    house.router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let router = start(&house.router, options);
    let box_ = house.start(house.call());
    let words = format!("the router forwards port 7001 (by {method}): others see 11.0.113.7:7001");
    box_.wait_for_words(&words);
    let share = &box_.shares[0];
    let torrent = Metainfo::read(&share.torrent);
    let address: SocketAddr = "11.0.113.7:7001".parse().unwrap();
    let fetched = outside.run(|| {
        let mut leecher = Leecher::enter(address, share.info_hash, MODERN)?;
        leecher.fetch_all(&torrent, 16)
    });
    let content = fetched.unwrap_or_else(|error| panic!("{error}\n{}", router.last_words()));
    torrent.assert_is(&content, &house.film);
    assert!(rules(&house.router).contains("7001"), "{}", rules(&house.router));
    let words = router.last_words();
    box_.stop();
    assert!(!rules(&house.router).contains("7001"), "{words}");
}

/// Starts it and waits until it listens.
fn start(host: &Host, options: &str) -> Process {
    let file = |name: &str, text: &str| {
        let path = host.home().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let table = file("table.nft", TABLE);
    host.run(|| {
        let loaded = program("nft").arg("-f").arg(&table).status();
        let loaded = loaded.expect("install it with: apt install nftables");
        assert!(loaded.success(), "nft: {loaded}");
    });
    let home = host.home().display();
    let conf = file("conf", &format!("{CONF}{options}lease_file={home}/leases\n"));
    let mut command = program("miniupnpd");
    command.arg("-d").arg("-f").arg(&conf).arg("-P").arg(host.home().join("pid"));
    let router = Process::start(host, &mut command);
    // Its process id is on disk before it listens: for PCP at port 5351, for UPnP at 1900.
    let listens = || {
        let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/udp").unwrap());
        let has = |port: u16| sockets.contains(&format!(":{port:04X} "));
        (has(5351) || has(1900)).then_some(())
    };
    crate::program::wait_until("miniupnpd listens", crate::program::PATIENCE, listens, || {
        router.last_words()
    });
    router
}

fn rules(host: &Host) -> String {
    let output = host.run(|| program("nft").args(["list", "ruleset"]).output().unwrap());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const CONF: &str = "ext_ifname=wan\nlistening_ip=eth0\nsecure_mode=yes\n\
uuid=00000000-0000-0000-0000-000000000001\nallow 1024-65535 10.77.0.0/24 1024-65535\n\
deny 0-65535 0.0.0.0/0 0-65535\n";

/// The chains it writes its rules into, in a firewall that lets nobody in by itself.
const TABLE: &str = "table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        jump miniupnpd
    }
    chain miniupnpd {}
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        jump postrouting_miniupnpd
    }
    chain prerouting_miniupnpd {}
    chain postrouting_miniupnpd {}
}
";
