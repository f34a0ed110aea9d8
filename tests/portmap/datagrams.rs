//! Routers that speak PCP or NAT-PMP, byte by byte as the RFCs draw it.

use crate::hosts::{Family, Host};
use crate::program::{PATIENCE, wait_until};
use crate::{GIVEN_BACK, House, INSIDE, ROUTER_PORT, any};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A question, and when it came.
type Asked = (Instant, Vec<u8>);

/// A router at its port on one machine, ended when dropped.
pub struct Router {
    heard: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// One that answers every datagram with what `answer` makes of it.
    pub fn start(
        host: &Host,
        at: SocketAddr,
        answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Router {
        let socket = host.run(|| UdpSocket::bind(at).expect("nobody else is on that machine"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (notes, end) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut bytes = [0; 2_000];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                let asked = bytes[..length].to_vec();
                if let Some(answer) = answer(&asked) {
                    let _ = socket.send_to(&answer, from);
                }
                notes.lock().unwrap().push((Instant::now(), asked));
            }
        });
        Router { heard, is_over, thread: Some(thread) }
    }

    /// What it has been asked so far, and when.
    pub fn heard(&self) -> Vec<Asked> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Grants in PCP what is asked for, at an address of its own.
fn pcp(asked: &[u8], external_ip: [u8; 4], result: u8) -> Option<Vec<u8>> {
    let mut answer = asked.to_vec();
    if asked.len() != 60 || asked[0] != 2 {
        return None;
    }
    answer[1] |= 0x80;
    answer[3] = result;
    answer[8..24].fill(0);
    answer[11] = 99;
    let external_ip: IpAddr = external_ip.into();
    let IpAddr::V4(external_ip) = external_ip else { return None };
    answer[44..60].copy_from_slice(&external_ip.to_ipv6_mapped().octets());
    Some(answer)
}

/// The same in NAT-PMP, with another port outside; PCP is another version to it.
fn natpmp(asked: &[u8]) -> Option<Vec<u8>> {
    let head = |result| [0, asked[1] | 0x80, 0, result, 0, 0, 0, 99];
    Some(match asked {
        [0, 0] => [&head(0)[..], &[203, 0, 113, 7]].concat(),
        [0, _, _, _, port, low, _, _, lifetime @ ..] => {
            let external_port = 40_001u16.to_be_bytes();
            [&head(0)[..], &[*port, *low], &external_port, lifetime].concat()
        }
        _ => head(1).to_vec(),
    })
}

#[test]
fn a_router_that_speaks_pcp_forwards_the_port_until_the_box_stops() {
    let house = House::new(Family::V4);
    let router =
        Router::start(&house.router, any(ROUTER_PORT), |asked| pcp(asked, [203, 0, 113, 7], 0));
    let program = house.start(house.call());
    program.wait_for_words("the router forwards port 7001 (by PCP): others see 203.0.113.7:7001");
    let asked = router.heard();
    assert_eq!(asked.len(), 2, "TCP and UDP, once each");
    let ended = Instant::now();
    program.stop();
    let given_back = &router.heard()[2..];
    assert_eq!(given_back.len(), 2, "and no more is said");
    for ((_, asked), (at, given_back)) in asked.iter().zip(given_back) {
        assert_eq!(asked[8..24], INSIDE.to_ipv6_mapped().octets());
        assert_eq!(asked[4..8], 7_200u32.to_be_bytes());
        assert_eq!(asked[40..42], 7_001u16.to_be_bytes(), "nothing but the peer port");
        assert_eq!((&given_back[4..8], &given_back[24..42]), (&[0; 4][..], &asked[24..42]));
        assert!(at.duration_since(ended) < GIVEN_BACK);
    }
}

#[test]
fn a_router_that_knows_only_natpmp_is_asked_in_it_and_its_port_is_what_others_see() {
    let house = House::new(Family::V4);
    let router = Router::start(&house.router, any(ROUTER_PORT), natpmp);
    let program = house.start(house.call());
    let words = "the router forwards port 7001 (by NAT-PMP): others see 203.0.113.7:40001";
    program.wait_for_words(words);
    program.stop();
    let asked: Vec<Vec<u8>> = router.heard().into_iter().skip(1).map(|(_, asked)| asked).collect();
    let [address, tcp, udp, no_tcp, no_udp] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&address[..], tcp[1], udp[1]), (&[0, 0][..], 2, 1));
    assert_eq!(no_tcp[..], [0, 2, 0, 0, 27, 89, 0, 0, 0, 0, 0, 0]);
    assert_eq!(no_udp[..], [0, 1, 0, 0, 27, 89, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_router_that_may_not_says_so_and_the_owner_is_told_what_would_help() {
    let house = House::new(Family::V4);
    let _router =
        Router::start(&house.router, any(ROUTER_PORT), |asked| pcp(asked, [203, 0, 113, 7], 2));
    let program = house.start(house.call());
    program.wait_for_words(
        "the router answered no (not authorised): switch on UPnP or NAT-PMP there, or forward \
         port 7001 by hand",
    );
    program.stop();
}

#[test]
fn an_address_that_a_provider_shares_among_customers_is_told_as_that() {
    let house = House::new(Family::V4);
    let router =
        Router::start(&house.router, any(ROUTER_PORT), |asked| pcp(asked, [100, 64, 3, 4], 0));
    let program = house.start(house.call());
    program.wait_for_words("your provider shares one address among customers (CGNAT)");
    program.stop();
    assert_eq!(router.heard().len(), 4, "it is kept and given back all the same");
}

#[test]
fn a_box_that_starts_again_after_a_crash_is_known_to_its_router() {
    let house = House::new(Family::V4);
    let router =
        Router::start(&house.router, any(ROUTER_PORT), |asked| pcp(asked, [203, 0, 113, 7], 0));
    for _ in 0..2 {
        let program = house.start(house.call());
        program.wait_for_words("the router forwards port 7001");
        program.kill();
    }
    let heard = router.heard();
    let nonces: Vec<&[u8]> = heard.iter().map(|(_, asked)| &asked[24..36]).collect();
    // Without an id of the machine there is only chance.
    if std::fs::read("/etc/machine-id").is_ok_and(|id| id.len() >= 32) {
        assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "{nonces:?}");
    }
    assert_eq!(nonces.len(), 4);
}

#[test]
fn a_router_that_talks_rubbish_keeps_nobody_from_stopping() {
    let house = House::new(Family::V4);
    let router = Router::start(&house.router, any(ROUTER_PORT), |asked| {
        Some([&[asked[0], 0x81], &[0xff; 902][..]].concat())
    });
    let program = house.start(house.call());
    let asked = || (!router.heard().is_empty()).then_some(());
    wait_until("it has asked", PATIENCE, asked, || program.log());
    let ended = Instant::now();
    program.stop();
    assert!(ended.elapsed() < Duration::from_secs(2));
}

#[test]
fn over_ipv6_others_are_let_in_to_the_address_the_box_goes_out_from() {
    let house = House::new(Family::Both);
    let own: IpAddr = "2001:db8:77::2".parse().unwrap();
    let gateway: Ipv6Addr = "fe80::77:1".parse().unwrap();
    house.router.add_address(gateway.into(), 64);
    house.inside.add_address(own, 64);
    house.inside.route_through(gateway.into());
    // It has to answer from where it was asked, which is good on the one interface only.
    let index = house.router.run(|| {
        let any = UdpSocket::bind("[::]:0").unwrap();
        rustix::net::netdevice::name_to_index(&any, "eth0").unwrap()
    });
    let at = SocketAddrV6::new(gateway, ROUTER_PORT, 0, index).into();
    let router = Router::start(&house.router, at, |asked| {
        let mut answer = asked.to_vec();
        (answer[1], answer[11]) = (0x81, 99);
        answer[12..24].fill(0);
        // Nothing is translated: outside it is the same.
        if asked[8..24] != [0; 16] && asked.len() == 60 {
            answer[44..60].copy_from_slice(&asked[8..24]);
        }
        (asked[0] == 2).then_some(answer)
    });
    let program = house.start(house.call().listen(Some("[::]:7001")));
    program
        .wait_for_words("the router lets others in over IPv6 (by PCP), to [2001:db8:77::2]:7001");
    program.stop();
    let IpAddr::V6(own) = own else { panic!("it is IPv6") };
    let heard = router.heard();
    let over_v6 = heard.iter().filter(|(_, asked)| asked[8..24] == own.octets());
    assert_eq!(over_v6.count(), 4, "asked for and given back, TCP and UDP");
}
