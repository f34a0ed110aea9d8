//! One router that speaks UPnP: what its description says, and what it is told in SOAP.
//!
//! A description (XML) names the services of a router; those that translate addresses are
//! `WANIPConnection` (1 and 2) and, over DSL, `WANPPPConnection`. Each has a control URL, which
//! takes one action a POST:
//!
//! ```text
//! AddPortMapping            port, transport, our address and port, for how long      -> or a fault
//! DeletePortMapping         port, transport
//! GetExternalIPAddress                                                               -> an address
//! ```
//!
//! A control URL that leads to another host than the description came from is refused. Everything
//! is bounded: descriptions and answers by the lent buffer, an exchange by [`EXCHANGE_MS`].

use super::ssdp::{Location, URL_BYTES_MAX};
use super::xml::{Event, Scan, value};
use crate::engine::portmap::Transport;
use crate::service::Service;
use crate::service::http::{self, Get, HttpError, Post, Reply};
use core::fmt;
use smol::future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::string::String;
use url::{Host, Position, Url};

/// Why a router did not do what it was told.
#[derive(Debug)]
pub enum IgdError {
    /// It did not answer in HTTP.
    Http(HttpError),
    /// It did not answer in time.
    TimedOut,
    /// It answered something else; what, as a sentence's end.
    Foreign(&'static str),
    /// It says no, by number.
    Fault(u16),
}

impl fmt::Display for IgdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IgdError::Http(error) => error.fmt(f),
            IgdError::TimedOut => f.write_str("does not answer in time"),
            IgdError::Foreign(what) => write!(f, "answers {what}"),
            IgdError::Fault(number) => write!(f, "says no: {}", Fault(*number)),
        }
    }
}

/// A router's no, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub u16);

impl Fault {
    /// Somebody else has that port (WANIPConnection:2, section 2.5.16.4; 729 is another mechanism).
    pub const fn is_conflict(self) -> bool {
        matches!(self.0, 718 | 729)
    }

    /// It may do it for ever and not for an hour: 725 says so, 402 and 501 are what others say that
    /// do not understand the question.
    pub const fn may_be_the_lease(self) -> bool {
        matches!(self.0, 725 | 402 | 501)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            606 => f.write_str("not authorised"),
            718 | 729 => f.write_str("others have every port that was tried"),
            728 => f.write_str("it has no room for more"),
            number => write!(f, "UPnP error {number}"),
        }
    }
}

/// A service that translates addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    address: SocketAddr,
    url: Url,
    /// As the router writes it, with its version.
    service_type: String,
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the router at {}", self.address)
    }
}

/// The services of a router that may be asked, in its order.
pub type Controls = heapless::Vec<Control, CONTROLS_MAX>;

/// A port that is to be forwarded to us.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Of which kind.
    pub transport: Transport,
    /// What it is outside.
    pub external_port: u16,
    /// Us.
    pub client: Ipv4Addr,
    /// The port we listen on.
    pub port: u16,
    /// For how long; 0 for ever.
    pub lease_s: u32,
}

/// Fetches a router's description and finds its services.
pub async fn describe(
    service: &Service<'_>,
    location: &Location,
    buffer: &mut [u8],
) -> Result<Controls, IgdError> {
    let authority = authority(&location.url);
    let target = location.url[Position::BeforePath..Position::AfterQuery].as_bytes();
    let get = Get { tls: false, host: "", authority, target };
    match in_time(service, http::get(location.address, &get, buffer)).await? {
        Reply::Content { status: 200, body } => Ok(controls(body, location)),
        Reply::Content { .. } => Err(IgdError::Foreign("with an error to a wish for its papers")),
        Reply::Redirect { .. } => Err(IgdError::Foreign("with a redirect")),
    }
}

impl Control {
    /// Has a port forwarded.
    pub async fn add(
        &self,
        service: &Service<'_>,
        forward: &Forward,
        buffer: &mut [u8],
    ) -> Result<(), IgdError> {
        let Forward { external_port, client, port, lease_s, .. } = forward;
        let arguments = std::format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external_port}</NewExternalPort>\
             <NewProtocol>{}</NewProtocol><NewInternalPort>{port}</NewInternalPort>\
             <NewInternalClient>{client}</NewInternalClient><NewEnabled>1</NewEnabled>\
             <NewPortMappingDescription>perennial</NewPortMappingDescription>\
             <NewLeaseDuration>{lease_s}</NewLeaseDuration>",
            word(forward.transport),
        );
        self.act(service, "AddPortMapping", &arguments, buffer).await.map(|_| ())
    }

    /// Has it forwarded no more.
    pub async fn delete(
        &self,
        service: &Service<'_>,
        transport: Transport,
        external_port: u16,
        buffer: &mut [u8],
    ) -> Result<(), IgdError> {
        let arguments = std::format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external_port}</NewExternalPort>\
             <NewProtocol>{}</NewProtocol>",
            word(transport),
        );
        self.act(service, "DeletePortMapping", &arguments, buffer).await.map(|_| ())
    }

    /// The router's address outside; none while it has no connection.
    pub async fn external_ip(
        &self,
        service: &Service<'_>,
        buffer: &mut [u8],
    ) -> Result<Option<IpAddr>, IgdError> {
        let answer = self.act(service, "GetExternalIPAddress", "", buffer).await?;
        let ip = Scan::new(answer).text_of("NewExternalIPAddress");
        let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok());
        Ok(ip.filter(|ip| !ip.is_unspecified()))
    }

    async fn act<'b>(
        &self,
        service: &Service<'_>,
        action: &str,
        arguments: &str,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], IgdError> {
        let body = envelope(&self.service_type, action, arguments);
        let header = std::format!("\"{}#{action}\"", self.service_type);
        let post = Post {
            content_type: "text/xml; charset=\"utf-8\"",
            header: ("SOAPAction", &header),
            body: body.as_bytes(),
        };
        let target = self.url[Position::BeforePath..Position::AfterQuery].as_bytes();
        let get = Get { tls: false, host: "", authority: authority(&self.url), target };
        match in_time(service, http::post(self.address, &get, &post, buffer)).await? {
            Reply::Content { status: 200, body } => Ok(body),
            Reply::Content { body, .. } => Err(fault(body)),
            Reply::Redirect { .. } => Err(IgdError::Foreign("with a redirect")),
        }
    }
}

/// Gives an exchange its time.
async fn in_time<'b>(
    service: &Service<'_>,
    exchange: impl Future<Output = Result<Reply<'b>, HttpError>>,
) -> Result<Reply<'b>, IgdError> {
    let exchange = async { exchange.await.map_err(IgdError::Http) };
    let late = async {
        service.clock.sleep(EXCHANGE_MS, "a router's answer in UPnP").await;
        Err(IgdError::TimedOut)
    };
    future::or(exchange, late).await
}

/// The services in a description, of which the base is where it came from, or what it says itself.
fn controls(description: &[u8], location: &Location) -> Controls {
    let base = Scan::new(description).text_of("URLBase");
    let base = base.and_then(|base| Url::parse(&base).ok()).unwrap_or(location.url.clone());
    let mut controls = Controls::new();
    let (mut element, mut service_type, mut control_url) = (&[][..], None, None);
    for event in Scan::new(description) {
        match event {
            Event::Open(name) => {
                if name == b"service" {
                    (service_type, control_url) = (None, None);
                }
                element = name;
            }
            Event::Text(text) => match element {
                b"serviceType" => service_type = value(text).filter(|found| is_wanted(found)),
                b"controlURL" => control_url = value(text),
                _ => {}
            },
            Event::Close(b"service") => {
                if let (Some(service_type), Some(url)) = (service_type.take(), control_url.take())
                    && let Some((address, url)) = resolve(&base, &url, location)
                {
                    let control = Control { address, url, service_type };
                    if controls.push(control).is_err() {
                        break;
                    }
                }
            }
            Event::Close(_) => element = &[],
        }
    }
    controls
}

/// A service that translates addresses, of a version whose actions are the same.
fn is_wanted(service_type: &str) -> bool {
    let Some(name) = service_type.strip_prefix("urn:schemas-upnp-org:service:") else {
        return false;
    };
    ["WANIPConnection:1", "WANIPConnection:2", "WANPPPConnection:1"].contains(&name)
}

/// Where a control URL leads, unless that is another host.
fn resolve(base: &Url, url: &str, location: &Location) -> Option<(SocketAddr, Url)> {
    let url = base.join(url).ok()?;
    let port = url.port_or_known_default().filter(|port| *port != 0)?;
    let is_there = url.scheme() == "http"
        && url.host().is_some_and(|host| match host {
            Host::Ipv4(ip) => IpAddr::V4(ip) == location.address.ip(),
            _ => false,
        })
        && url.as_str().len() <= URL_BYTES_MAX;
    is_there.then_some((SocketAddr::new(location.address.ip(), port), url))
}

/// What an answer that is no success says.
fn fault(body: &[u8]) -> IgdError {
    let number = Scan::new(body).text_of("errorCode");
    let number = number.and_then(|number| number.parse().ok());
    number.map_or(IgdError::Foreign("neither yes nor no"), IgdError::Fault)
}

fn envelope(service_type: &str, action: &str, arguments: &str) -> String {
    std::format!(
        "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:{action} xmlns:u=\"{service_type}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
    )
}

fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

const fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

/// Some routers take a second or two to set up what they were told.
const EXCHANGE_MS: u64 = 5_000;

/// Services of one router that are tried: one for each of its lines.
const CONTROLS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn location() -> Location {
        let url = Url::parse("http://192.168.1.1:5000/rootDesc.xml").unwrap();
        Location { address: "192.168.1.1:5000".parse().unwrap(), url }
    }

    fn service(service_type: &str, control_url: &str) -> String {
        std::format!(
            "<service>\r\n <serviceType>{service_type}</serviceType>\r\n\
             <serviceId>urn:upnp-org:serviceId:X</serviceId><controlURL>{control_url}</controlURL>\
             <eventSubURL>/evt</eventSubURL><SCPDURL>/x.xml</SCPDURL></service>"
        )
    }

    fn description(inside: &str) -> String {
        std::format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
             <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
             <serviceList>{inside}</serviceList></device></root>"
        )
    }

    const IP: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";
    const PPP: &str = "urn:schemas-upnp-org:service:WANPPPConnection:1";

    #[test]
    fn services_that_translate_addresses_are_found_in_their_order() {
        let common = service("urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", "/no");
        let text = description(&(common + &service(IP, "/ctl?a=1&amp;b") + &service(PPP, "ppp")));
        let found: Vec<_> = controls(text.as_bytes(), &location()).into_iter().collect();
        let told: Vec<_> = found.iter().map(|c| (c.url.as_str(), &c.service_type[..])).collect();
        let wanted =
            [("http://192.168.1.1:5000/ctl?a=1&b", IP), ("http://192.168.1.1:5000/ppp", PPP)];
        assert_eq!(told, wanted);
        assert_eq!(found[0].address, location().address);
    }

    #[test]
    fn a_base_is_believed_when_it_leads_to_the_same_host() {
        for (base, there) in [
            ("http://192.168.1.1:80/x/", Some("http://192.168.1.1/x/ctl")),
            ("nonsense", Some("http://192.168.1.1:5000/ctl")),
            ("http://192.168.1.2/", None),
            ("https://192.168.1.1/", None),
        ] {
            let inside = std::format!("<URLBase>{base}</URLBase>{}", service(IP, "ctl"));
            let found = controls(description(&inside).as_bytes(), &location());
            assert_eq!(found.first().map(|control| control.url.as_str()), there, "{base}");
        }
    }

    #[test]
    fn control_urls_that_lead_elsewhere_are_refused() {
        let elsewhere = [
            "http://203.0.113.7/ctl",
            "http://192.168.1.2:5000/ctl",
            "//192.168.1.2/ctl",
            "http://router.lan/ctl",
            "ftp://192.168.1.1/ctl",
            "http://192.168.1.1:0/ctl",
            &std::format!("/{}", "x".repeat(URL_BYTES_MAX)),
        ];
        for url in elsewhere {
            let text = description(&service(IP, url));
            assert!(controls(text.as_bytes(), &location()).is_empty(), "{url}");
        }
        let other_port = description(&service(IP, "http://192.168.1.1:49000/ctl"));
        let found = controls(other_port.as_bytes(), &location());
        assert_eq!(found[0].address.port(), 49_000);
    }

    #[test]
    fn more_services_than_are_tried_are_left_out() {
        let text = description(&service(IP, "/ctl").repeat(50));
        assert_eq!(controls(text.as_bytes(), &location()).len(), CONTROLS_MAX);
    }

    #[test]
    fn a_fault_is_a_number() {
        let text = |code| {
            std::format!(
                "<s:Envelope><s:Body><s:Fault><faultcode>s:Client</faultcode><detail><UPnPError \
                 xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
                 <errorDescription>x</errorDescription></UPnPError></detail></s:Fault></s:Body>"
            )
        };
        assert!(matches!(fault(text("718").as_bytes()), IgdError::Fault(718)));
        for code in ["", "-1", "70000", "x"] {
            assert!(matches!(fault(text(code).as_bytes()), IgdError::Foreign(_)), "{code}");
        }
        assert!(Fault(718).is_conflict() && Fault(725).may_be_the_lease());
        assert_eq!(std::format!("{}", IgdError::Fault(606)), "says no: not authorised");
    }

    #[test]
    fn an_action_is_an_envelope_around_its_arguments() {
        let body = envelope(IP, "GetExternalIPAddress", "");
        let inner: Vec<_> = Scan::new(body.as_bytes()).collect();
        assert_eq!(inner.len(), 6);
        assert_eq!(inner[2], Event::Open(b"GetExternalIPAddress"));
        assert!(body.contains("xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\""));
    }

    #[test]
    fn descriptions_and_answers_of_random_bytes_never_panic_and_never_loop() {
        let good =
            description(&(service(IP, "/ctl") + "<!-- x --><![CDATA[ y ]]>" + &service(PPP, "p")));
        let good = good.repeat(super::super::BUFFER_BYTES / good.len() + 1);
        let mut state = 7u64;
        let mut chance = move |below: usize| {
            // Knuth's generator; its high bits are the better ones.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..400 {
            let mut bytes = good.as_bytes()[..super::super::BUFFER_BYTES].to_vec();
            let changes = [10, 1_000, 60_000][round % 3];
            for _ in 0..changes {
                let at = chance(bytes.len());
                bytes[at] = match chance(4) {
                    0 => b"<>/&!?-[]'\":"[chance(12)],
                    _ => chance(256) as u8,
                };
            }
            bytes.truncate(chance(bytes.len()) + 1);
            assert!(Scan::new(&bytes).count() <= bytes.len());
            assert!(
                controls(&bytes, &location())
                    .iter()
                    .all(|c| c.address.ip() == location().address.ip())
            );
            let _ = fault(&bytes);
        }
        // All of one kind: what makes a scan that looks ahead slow.
        for pattern in ["<", "<!--", "<![CDATA[", "&", "<a", "<a b='", ">", "<service>"] {
            let bytes = pattern.repeat(super::super::BUFFER_BYTES / pattern.len());
            assert!(controls(bytes.as_bytes(), &location()).is_empty(), "{pattern}");
        }
    }
}
