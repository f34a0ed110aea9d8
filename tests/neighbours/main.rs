//! Boxes on one LAN: they find each other's page, and no two of them have one name.
//!
//! Each box is on a machine of its own ([`hosts`]), so these need root.

#![cfg(feature = "std")]

#[expect(dead_code, reason = "each test crate uses what it needs")]
#[path = "../support/hosts.rs"]
mod hosts;
#[path = "../support/program.rs"]
mod program;

use hosts::{Family, Host, Lan};
use program::{Call, Folder, PATIENCE, Program, wait_until};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

/// A box called `name` on that machine, with its page at port 8080.
fn a_box(host: &Host, home: &Folder, name: &str) -> Program {
    let config = format!("name = \"{name}\"\n[network]\ndht = \"off\"\nmap-port = false\n");
    let call = Call::run_box(home, &config).listen(None).page(None);
    host.run(|| call.start())
}

/// What the front page of the box on a machine says, asked by that name.
fn front_page(host: &Host, name: &str) -> String {
    let address = SocketAddr::new(host.addresses()[0], 8080);
    host.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    })
}

fn wait_for_neighbour(host: &Host, link: &str, program: &Program) {
    let seen = || front_page(host, "localhost").contains(link).then_some(());
    wait_until(&format!("the page has {link}"), PATIENCE, seen, || program.log());
}

fn find_each_other(family: Family) {
    let lan = Lan::new(family);
    let (first, second) = (lan.host("first"), lan.host("second"));
    let homes = [Folder::new("neighbour"), Folder::new("neighbour")];
    let one = a_box(&first, &homes[0], "Attic");
    one.wait_for_words("this box is http://attic.local:8080/");
    let other = a_box(&second, &homes[1], "Cellar");
    let link = |host: &Host, name: &str| {
        format!("<a href=\"http://{}/\">{name}</a>", SocketAddr::new(host.addresses()[0], 8080))
    };
    wait_for_neighbour(&first, &link(&second, "Cellar"), &one);
    wait_for_neighbour(&second, &link(&first, "Attic"), &other);
    assert!(front_page(&first, "attic.local:8080").starts_with("HTTP/1.1 200 "));
    assert!(front_page(&first, "cellar.local:8080").starts_with("HTTP/1.1 421 "));
    other.stop();
    let gone = || (!front_page(&first, "localhost").contains("Cellar")).then_some(());
    wait_until("one that goes is forgotten", PATIENCE, gone, || one.log());
    one.stop();
}

#[test]
fn boxes_find_each_others_page_over_ipv4() {
    find_each_other(Family::V4);
}

#[test]
fn boxes_find_each_others_page_over_ipv6() {
    find_each_other(Family::V6);
}

#[test]
fn of_two_with_one_name_the_one_that_comes_later_has_a_number() {
    let lan = Lan::new(Family::V4);
    let (first, second) = (lan.host("first"), lan.host("second"));
    let homes = [Folder::new("namesake"), Folder::new("namesake")];
    let one = a_box(&first, &homes[0], "Attic");
    one.wait_for_words("this box is http://attic.local:8080/");
    let other = a_box(&second, &homes[1], "Attic");
    other.wait_for_words("another box in this house is called Attic; this one is Attic-2 there");
    other.wait_for_words("this box is http://attic-2.local:8080/");
    assert!(front_page(&second, "attic-2.local").starts_with("HTTP/1.1 200 "));
    assert!(!one.log().contains("another box"), "{}", one.log());
    one.stop();
    other.stop();
}

#[test]
fn ten_thousand_forged_boxes_cost_next_to_nothing() {
    let lan = Lan::new(Family::V4);
    let (victim, forger) = (lan.host("victim"), lan.host("forger"));
    let home = Folder::new("forged");
    let program = a_box(&victim, &home, "Attic");
    program.wait_for_words("this box is http://attic.local:8080/");
    front_page(&victim, "localhost");
    let before = program.proc_number("status", "VmRSS");
    forger.run(|| {
        let socket = UdpSocket::bind((forger.addresses()[0], 0)).unwrap();
        for number in 0..10_000_u32 {
            let group = (Ipv4Addr::new(224, 0, 0, 251), 5353);
            socket.send_to(&forged(number), group).unwrap();
        }
    });
    let listed = || front_page(&victim, "localhost").contains("box &lt;b&gt;").then_some(());
    wait_until("the forged box is listed, as words", PATIENCE, listed, || program.log());
    let page = front_page(&victim, "localhost");
    assert!(!page.contains("<b>box"), "a name is no markup");
    assert_eq!(page.matches("Also in this house").count(), 1);
    assert!(page.matches("box &lt;b&gt;").count() <= 16);
    let after = program.proc_number("status", "VmRSS");
    println!("resident before {before} kB, after 10,000 forged boxes {after} kB");
    assert!(after < before + 2 * 1024, "{before} kB became {after} kB");
    program.stop();
}

/// An answer that says there is a box of another name at another port.
fn forged(number: u32) -> Vec<u8> {
    let instance = format!("box <b>{number}");
    let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let label = |bytes: &mut Vec<u8>, label: &str| {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    };
    for part in [instance.as_str(), "_perennial", "_tcp", "local"] {
        label(&mut bytes, part);
    }
    bytes.push(0);
    let port = 1_024 + (number % 60_000) as u16;
    let [high, low] = port.to_be_bytes();
    let data = [0, 0, 0, 0, high, low, 1, b'x', 0];
    bytes.extend([0, 33, 0x80, 1, 0, 0, 0x11, 0x94, 0, data.len() as u8]);
    bytes.extend(data);
    bytes
}
