//! Ports and the house, each in a network of its own: nothing here
//! depends on which ports of this machine are free, and nothing leaves it.

use crate::leecher::{Leecher, MODERN, Manners};
use crate::program::{Call, Folder, PATIENCE, Program, digits, wait_until};
use crate::tracker_server::{Introduces, Tracker, Transport};
use crate::{assert_arrives, film, lacks_root};
use perennial::engine::announce::local;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

#[test]
fn the_usual_port_is_used_and_the_next_free_one_when_it_is_taken() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("ports");
    let film = film(&home, 300_000);
    let call =
        |state: &str| Call::share(&home, &[&film]).listen(None).state(&home.path().join(state));
    let first = call("first").in_its_own_network("").start();
    assert_eq!(first.address, "[::]:6881".parse().unwrap());
    assert!(!first.log().contains("taken"), "{}", first.log());
    assert_served_at(&first, "127.0.0.1:6881");
    assert_served_at(&first, "[::1]:6881");

    let mut others: Vec<Program> = Vec::new();
    for port in 6882..=6889 {
        let next = call(&port.to_string()).in_the_network_of(&first).start();
        assert_eq!(next.address.port(), port);
        let said = format!("6881 is taken; listening on {port}");
        assert!(next.log().contains(&said), "{}", next.log());
        others.push(next);
    }
    assert_served_at(&others[0], "[::1]:6882");
    let line = call("none").in_the_network_of(&first).refusal();
    assert!(line.contains("6881 to 6889") && line.contains("--listen"), "{line}");
    let line = call("none").listen(Some("[::]:6885")).in_the_network_of(&first).refusal();
    assert!(line.contains("--listen [::]:6885"), "{line}");
    for program in others {
        program.stop();
    }
    first.stop();
}

#[test]
fn for_the_house_only_means_no_tracker_and_no_strangers() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("house");
    let film = film(&home, 300_000);
    for lan in [true, false] {
        let tracker = ["--tracker", "http://127.0.0.1:7000/announce"];
        let options = if lan { &["--lan"][..] } else { &tracker };
        let set_up = "ip address add 10.9.0.1/24 dev lo; ip address add 10.9.0.2/24 dev lo\n\
                      ip address add 198.51.100.1/24 dev lo; ip address add 198.51.100.2/24 dev lo";
        let call = Call::share(&home, &[&film]).listen(None).with(options);
        let program = call.in_its_own_network(set_up).start();
        let share = &program.shares[0];
        assert_eq!(share.magnet.contains("&tr="), !lan, "{}", share.magnet);
        assert!(share.magnet.contains("&x.pe=10.9.0.1:6881"), "{}", share.magnet);
        assert!(!share.magnet.contains("198.51.100"), "{}", share.magnet);
        let come = |to: &str, from: &str| {
            let to: IpAddr = to.parse().unwrap();
            let manners = Manners { from: Some(from.parse().unwrap()), ..MODERN };
            let address = SocketAddr::new(to, 6881);
            let enter = || Leecher::enter(address, share.info_hash, manners).is_ok();
            program.in_its_network(enter)
        };
        assert!(come("10.9.0.1", "10.9.0.2"));
        assert!(come("127.0.0.1", "127.0.0.1"));
        assert!(come("::1", "::1"));
        assert_eq!(come("198.51.100.1", "198.51.100.2"), !lan);
        assert_eq!(program.log().contains("http://127.0.0.1:7000"), !lan, "{}", program.log());
        program.stop();
    }
}

#[test]
fn on_loopback_the_house_is_served_and_trackers_hear_nothing() {
    let home = Folder::new("house-loopback");
    let film = film(&home, 300_000);
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let tracker = Tracker::start(&[address], Introduces::Everyone).unwrap();
    let url = tracker.url(Transport::Http, 0);
    // A .torrent that names a tracker, made by a box that is given one and never serves.
    let author = Call::share(&home, &[&film]).with(&["--tracker", &url]).start();
    let torrent = home.path().join("film.torrent");
    std::fs::copy(&author.shares[0].torrent, &torrent).unwrap();
    author.stop();
    let before = tracker.heard().len();
    let call = Call::share(&home, &[&film]).state(&home.path().join("house"));
    let program = call.with(&[OsStr::new("--lan"), "--torrent".as_ref(), torrent.as_ref()]).start();
    assert!(!program.shares[0].magnet.contains("&tr="), "{}", program.shares[0].magnet);
    assert_arrives(&program, &program.shares[0], &film, MODERN, 16);
    program.stop();
    assert_eq!(tracker.heard().len(), before);
}

#[test]
fn what_a_box_is_told_to_fetch_later_is_looked_for_in_the_dht_at_once() {
    let home = Folder::new("dht-later");
    let film = film(&home, 300_000);
    let other = home.write("other", &crate::bytes(1, 1_000));
    let state = |name: &str| home.path().join(name);
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let entry =
        Call::share(&home, &[&other]).state(&state("entry")).listen(Some(&free.to_string()));
    let entry = entry.with(&["--dht-node", "127.0.0.1:9"]).start();
    let nodes = format!("dht-nodes = [\"{free}\"]\nmap-port = false\n");
    let got = state("got").display().to_string();
    let config = format!("[network]\n{nodes}[fetch]\ninto = \"{got}\"\nreserve = \"1MB\"\n");
    // It has had nothing to look for when its round began.
    let late = Call::a_box(&home, &config).state(&state("late")).start();
    let knows = || (late.stats()["dht_nodes"].as_u64() > Some(0)).then_some(());
    wait_until("it knows a node", PATIENCE, knows, || late.log());
    let source = Call::share(&home, &[&film]).state(&state("source"));
    let source = source.with(&["--dht-node", &free.to_string()]).start();
    let link = format!("magnet:?xt=urn:btih:{}&dn=film.mkv", digits(&source.shares[0].info_hash));
    source.wait_for_words("announced to");
    late.ask(&["add", &link]);
    assert_arrives(&late, &late.wait_for_share("film.mkv"), &film, MODERN, 16);
    late.end();
    source.stop();
    entry.stop();
}

#[test]
fn torrents_at_rest_are_spoken_of_on_the_lan_in_batches_and_paused_ones_are_not() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("lsd-at-rest");
    let other = home.write("other", &crate::bytes(1, 1_000));
    let count = 120;
    for number in 0..count {
        home.write(format!("shared/song-{number:03}"), &crate::bytes(10 + number, 1_000));
    }
    let lan = "ip link set lo multicast on; ip address add 10.9.0.1/24 dev lo";
    let neighbour = Call::share(&home, &[&other]).state(&home.path().join("neighbour"));
    let neighbour = neighbour.listen(Some("127.0.0.1:6990")).in_its_own_network(lan).start();
    let shared = home.path().join("shared").display().to_string();
    let config =
        format!("[network]\ndht = \"off\"\nmap-port = false\n[[share]]\nfolder = \"{shared}\"\n");
    let start = || {
        let call = Call::a_box(&home, &config).listen(Some("10.9.0.1:6991"));
        call.in_the_network_of(&neighbour).start()
    };
    let program = start();
    let hashes: Vec<[u8; 20]> = (0..count)
        .map(|number| program.wait_for_share(&format!("song-{number:03}")).info_hash)
        .collect();
    program.ask(&["pause", "song-003"]);
    program.end();
    let socket = neighbour.in_its_network(|| hear_the_group([10, 9, 0, 1]));
    let program = start();
    // All of them are at rest: four datagrams tell of the first.
    let mut told: Vec<[u8; 20]> = (0..4).flat_map(|_| hashes_told(&socket)).collect();
    let silent = |told: &[[u8; 20]]| -> Vec<[u8; 20]> {
        hashes.iter().filter(|hash| !told.contains(hash)).copied().collect()
    };
    let later = silent(&told);
    assert!(told.len() >= 90 && later.len() == count as usize - told.len(), "{}", told.len());
    // Somebody new for one of the others, which a peer has woken, and a minute later the rest is told.
    let asked = *later.iter().find(|hash| **hash != hashes[3]).unwrap();
    program.in_its_network(|| {
        drop(Leecher::enter("10.9.0.1:6991".parse().unwrap(), asked, MODERN).unwrap());
        let search = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6999\r\nInfohash: {}\r\n\r\n\r\n",
            digits(&asked)
        );
        socket.send_to(search.as_bytes(), "239.192.152.143:6771").unwrap();
    });
    assert_eq!(hashes_told(&socket), [asked], "it is heard by whoever says it");
    socket.set_read_timeout(Some(3 * PATIENCE + PATIENCE)).unwrap();
    while told.len() < count as usize - 1 {
        told.extend(hashes_told(&socket));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    assert_eq!(silent(&told), [hashes[3]]);
    told.sort();
    told.dedup();
    assert_eq!(told.len() as u64, count - 1, "each once");
    program.end();
    neighbour.stop();
}

/// Listens to the group of local discovery (BEP 14) beside others.
fn hear_the_group(interface: [u8; 4]) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 6771)).into()).unwrap();
    socket.join_multicast_v4(&[239, 192, 152, 143].into(), &interface.into()).unwrap();
    socket.set_multicast_if_v4(&interface.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// The torrents that the next datagram tells of.
fn hashes_told(socket: &UdpSocket) -> Vec<[u8; 20]> {
    let mut datagram = [0; 1_500];
    let length = loop {
        match socket.recv(&mut datagram) {
            // A process that was stopped for a while and goes on is told so.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            heard => break heard.expect("somebody speaks"),
        }
    };
    let search = local::parse(&datagram[..length], local::Cookie(0)).expect("it is a search");
    search.hashes.collect()
}

/// Fetches everything at an address in the program's own network.
fn assert_served_at(program: &Program, address: &str) {
    let share = &program.shares[0];
    let torrent = crate::torrent::Metainfo::read(&share.torrent);
    let address: SocketAddr = address.parse().unwrap();
    let content = program.in_its_network(|| {
        let mut leecher = Leecher::enter(address, share.info_hash, MODERN).unwrap();
        leecher.fetch_all(&torrent, 16).unwrap()
    });
    assert_eq!(content.len() as u64, share.bytes);
}
