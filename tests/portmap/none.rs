//! Nobody to ask, and nobody who may be asked.

use crate::datagrams::Router;
use crate::hosts::Family;
use crate::{House, ROUTER_PORT, any};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

#[test]
fn a_router_that_answers_nothing_is_not_waited_for() {
    let house = House::new(Family::V4);
    let program = house.start(house.call());
    program.wait_for_words(
        "no router answered: switch on UPnP or NAT-PMP there, or forward port 7001 by hand",
    );
    program.stop();
}

#[test]
fn without_a_default_route_there_is_nobody_to_ask() {
    let house = House::new(Family::V4);
    let stranger = house.lan.host("stranger");
    let call = house.call();
    let program = stranger.run(|| call.start());
    program.wait_for_words("this machine has no default route over IPv4");
    program.stop();
}

#[test]
fn a_machine_with_a_public_address_needs_no_router() {
    let house = House::new(Family::V4);
    let gateway = Ipv4Addr::new(198, 51, 100, 1);
    house.router.add_address(gateway.into(), 24);
    let router = Router::start(&house.router, any(ROUTER_PORT), |_| None);
    let public = house.lan.host_at("public", Some(Ipv4Addr::new(198, 51, 100, 9)), None);
    public.route_through(gateway.into());
    let call = house.call();
    let program = public.run(|| call.start());
    let words = "this machine has a public address: others see 198.51.100.9:7001";
    program.wait_for_words(words);
    program.stop();
    assert!(router.heard().is_empty());
}

#[test]
fn for_the_house_only_no_router_is_asked_nor_for_loopback_only() {
    let house = House::new(Family::V4);
    let router = Router::start(&house.router, any(ROUTER_PORT), |_| None);
    let search = Router::start(&house.router, any(1900), |_| None);
    for call in [house.call().with(&["--lan"]), house.call().listen(Some("127.0.0.1:7001"))] {
        let program = house.start(call);
        // It would ask at once.
        thread::sleep(Duration::from_millis(700));
        assert!(!program.log().contains("router"), "{}", program.log());
        program.stop();
    }
    assert!(router.heard().is_empty() && search.heard().is_empty());
}
