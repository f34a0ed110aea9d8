//! Routers that speak UPnP are looked for by multicast, and at the gateway itself (SSDP).
//!
//! Each answers with one datagram that looks like an answer in HTTP and says where its description
//! is. Anybody on the LAN may answer, so an answer counts only when the description is at the very
//! address the datagram came from, and that address is in the house: nobody can send us elsewhere.

use crate::service::Service;
use async_io::Async;
use smol::future;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::string::String;
use url::{Host, Url};

/// Where a router says that its description is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Of the router; a private one.
    pub address: SocketAddr,
    /// All of it, with that address as its host.
    pub url: Url,
}

/// Those who answered, the gateway first.
pub type Found = heapless::Vec<Location, ANSWERS_MAX>;

/// Looks for routers from `local`, an address of ours, for [`SEARCH_MS`] at most; shorter when the
/// gateway answers.
pub async fn search(service: &Service<'_>, local: Ipv4Addr, gateway: Ipv4Addr) -> Found {
    let mut found = Found::new();
    let outcome = match open(local) {
        Ok(socket) => {
            let hearing = hear(service, &socket, gateway, &mut found);
            let asking = ask(service, &socket, gateway);
            future::or(hearing, asking).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        debug!("looking for a router by UPnP: {error}");
    }
    found.sort_unstable_by_key(|location| location.address.ip() != gateway);
    found
}

/// Asks twice, for a datagram may get lost, and is over when nobody answers any more.
async fn ask(
    service: &Service<'_>,
    socket: &Async<UdpSocket>,
    gateway: Ipv4Addr,
) -> io::Result<()> {
    for pause_ms in [AGAIN_MS, SEARCH_MS - AGAIN_MS] {
        for target in TARGETS {
            for to in [GROUP, SocketAddrV4::new(gateway, GROUP.port())] {
                socket.get_ref().send_to(question(to, target).as_bytes(), to)?;
            }
        }
        service.clock.sleep(pause_ms, "routers that speak UPnP").await;
    }
    Ok(())
}

/// Takes answers down until the gateway's has come, or as many as there is room for.
async fn hear(
    service: &Service<'_>,
    socket: &Async<UdpSocket>,
    gateway: Ipv4Addr,
    found: &mut Found,
) -> io::Result<()> {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            // The gateway does not listen there; others may answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // Others have their turn between two datagrams, however fast they come.
        future::yield_now().await;
        let IpAddr::V4(ip) = from.ip() else { continue };
        if !service.lan().contains(from.ip()) {
            continue;
        }
        let Some(location) = parse(&datagram[..length], ip) else { continue };
        let is_known = found.iter().any(|known| known.url == location.url);
        if !is_known && found.push(location).is_err() || ip == gateway {
            return Ok(());
        }
    }
}

fn open(local: Ipv4Addr) -> io::Result<Async<UdpSocket>> {
    let socket = Async::<UdpSocket>::bind((local, 0))?;
    let raw = SockRef::from(&socket);
    raw.set_multicast_if_v4(&local)?;
    // UPnP Device Architecture 1.1, section 1.3.2; none of it has any business further away.
    raw.set_multicast_ttl_v4(2)?;
    Ok(socket)
}

fn question(to: SocketAddrV4, target: &str) -> String {
    std::format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
    )
}

/// Reads an answer from `from`; `None` for what is none, or leads elsewhere.
fn parse(bytes: &[u8], from: Ipv4Addr) -> Option<Location> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    answer.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    if answer.code != Some(200) {
        return None;
    }
    let location =
        answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("location"))?;
    let url = Url::parse(core::str::from_utf8(location.value).ok()?.trim()).ok()?;
    let port = url.port_or_known_default().filter(|port| *port != 0)?;
    let is_there = url.scheme() == "http"
        && url.host() == Some(Host::Ipv4(from))
        && url.as_str().len() <= URL_BYTES_MAX;
    is_there.then_some(Location { address: (from, port).into(), url })
}

/// Where everybody listens who speaks UPnP.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);

/// What is looked for. One of version 2 should answer to 1 as well, and not every one does.
const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// An answer has a second (`MX`); some take longer.
const SEARCH_MS: u64 = 3_000;

/// When it is asked again.
const AGAIN_MS: u64 = 1_000;

/// Routers that are tried: few houses have more than one.
const ANSWERS_MAX: usize = 4;

/// Longer answers are cut off, and then are none.
const DATAGRAM_BYTES_MAX: usize = 1_400;

const HEADERS_MAX: usize = 32;

/// No router's is longer.
pub const URL_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn answer(location: &str) -> String {
        std::format!(
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {}\r\nEXT:\r\n{location}\r\n\r\n",
            TARGETS[0]
        )
    }

    #[test]
    fn a_question_is_as_upnp_wants_it() {
        let text = question(GROUP, TARGETS[0]);
        let wanted = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\
            MAN: \"ssdp:discover\"\r\nMX: 1\r\n\
            ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_description_is_fetched_only_where_the_answer_came_from() {
        let good = answer("Location:  http://192.168.1.1:49152/igd.xml ");
        let location = parse(good.as_bytes(), FROM).unwrap();
        assert_eq!(location.address, "192.168.1.1:49152".parse().unwrap());
        assert_eq!(location.url.path(), "/igd.xml");
        assert_eq!(parse(good.as_bytes(), Ipv4Addr::new(192, 168, 1, 2)), None);
        let without_port = answer("LOCATION: http://192.168.1.1/");
        assert_eq!(parse(without_port.as_bytes(), FROM).unwrap().address.port(), 80);
        let long = std::format!("LOCATION: http://192.168.1.1/{}", "x".repeat(URL_BYTES_MAX));
        for elsewhere in [
            "LOCATION: http://192.168.1.2:49152/igd.xml",
            "LOCATION: http://203.0.113.7/igd.xml",
            "LOCATION: http://router.example/igd.xml",
            "LOCATION: http://192.168.1.1.example/igd.xml",
            "LOCATION: http://[::ffff:192.168.1.1]/igd.xml",
            "LOCATION: https://192.168.1.1/igd.xml",
            "LOCATION: ftp://192.168.1.1/igd.xml",
            "LOCATION: http://192.168.1.1:0/igd.xml",
            "LOCATION: /igd.xml",
            "LOCATION:",
            "X: y",
            &long,
        ] {
            assert_eq!(parse(answer(elsewhere).as_bytes(), FROM), None, "{elsewhere}");
        }
    }

    #[test]
    fn what_is_no_answer_is_not_heard() {
        let good = answer("LOCATION: http://192.168.1.1/");
        for length in 0..good.len() {
            assert_eq!(parse(&good.as_bytes()[..length], FROM), None, "{length} bytes");
        }
        let moved = good.replacen("200 OK", "302 Found", 1);
        assert_eq!(parse(moved.as_bytes(), FROM), None);
        let notify = good.replacen("HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1", 1);
        assert_eq!(parse(notify.as_bytes(), FROM), None);
        let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(parse(answer(many.trim_end()).as_bytes(), FROM), None);
    }
}
