//! Routers that speak UPnP: found by multicast, described in XML, told in SOAP.

use crate::hosts::{Family, Host};
use crate::{GIVEN_BACK, House, INSIDE, ROUTER};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What a router is like.
#[derive(Clone, Debug, Default)]
struct Manners {
    /// Ports that others have.
    taken: Vec<u16>,
    /// It forwards for ever or not at all.
    only_for_ever: bool,
    /// Its address outside is none.
    is_offline: bool,
}

/// What a router forwards and has heard.
#[derive(Debug, Default)]
struct Table {
    manners: Manners,
    /// By transport and port outside: to whom, and for how long.
    forwards: BTreeMap<(String, u16), (String, u32)>,
    /// Each request's first line and action, and when the last came.
    heard: Vec<String>,
    heard_at: Option<Instant>,
}

/// A router at port 5000 of a machine. Its threads end with the test.
#[derive(Clone)]
struct Igd(Arc<Mutex<Table>>);

impl Igd {
    fn start(host: &Host, ip: Ipv4Addr, manners: Manners) -> Igd {
        let igd = Igd(Arc::new(Mutex::new(Table { manners, ..Table::default() })));
        let listener = host.run(|| TcpListener::bind((ip, HTTP_PORT)).unwrap());
        let server = igd.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = server.serve(stream);
            }
        });
        igd
    }

    fn table<T>(&self, look: impl FnOnce(&mut Table) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_string());
        }
        let value = |name: &str| {
            let of = |line: &String| Some(line.strip_prefix(name)?.trim().to_string());
            lines.iter().find_map(of).unwrap_or_default()
        };
        let mut body = vec![0; value("Content-Length:").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let action = value("SOAPAction:");
        let (status, answer) = match lines.first().map(String::as_str) {
            Some("GET /igd.xml HTTP/1.1") => (200, DESCRIPTION.to_string()),
            Some("POST /ctl?wan=1 HTTP/1.1") => self.act(&action, &body),
            _ => (404, String::new()),
        };
        self.table(|table| {
            table.heard.push(format!("{} {action}", lines.first().cloned().unwrap_or_default()));
            table.heard_at = Some(Instant::now());
        });
        // In chunks, as many routers do.
        let (front, back) = answer.split_at(answer.len() / 2);
        write!(&stream, "HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for chunk in [front, back].into_iter().filter(|chunk| !chunk.is_empty()) {
            write!(&stream, "{:x}\r\n{chunk}\r\n", chunk.len())?;
        }
        write!(&stream, "0\r\n\r\n")
    }

    fn act(&self, action: &str, body: &str) -> (u16, String) {
        let of = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>")).unwrap_or(("", ""));
            rest.split_once('<').map_or(String::new(), |(value, _)| value.to_string())
        };
        let key = || (of("NewProtocol"), of("NewExternalPort").parse().unwrap_or(0));
        let action = action.trim_matches('"').strip_prefix(SERVICE).unwrap_or_default();
        self.table(|table| match action {
            "#GetExternalIPAddress" => {
                let ip = if table.manners.is_offline { "" } else { "203.0.113.7" };
                let inside = format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>");
                (200, answered(&inside))
            }
            "#AddPortMapping" => {
                let lease_s: u32 = of("NewLeaseDuration").parse().unwrap();
                if table.manners.taken.contains(&key().1) {
                    return (500, failed(718));
                }
                if table.manners.only_for_ever && lease_s > 0 {
                    return (500, failed(725));
                }
                let to = format!("{}:{}", of("NewInternalClient"), of("NewInternalPort"));
                table.forwards.insert(key(), (to, lease_s));
                (200, answered(""))
            }
            "#DeletePortMapping" => match table.forwards.remove(&key()) {
                Some(_) => (200, answered("")),
                None => (500, failed(714)),
            },
            _ => (500, failed(401)),
        })
    }
}

fn answered(inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <s:Body><u:Response xmlns:u=\"x\">{inside}</u:Response></s:Body></s:Envelope>"
    )
}

fn failed(code: u16) -> String {
    format!(
        "<s:Envelope><s:Body><s:Fault><faultcode>s:Client</faultcode><detail><UPnPError>\
         <errorCode>{code}</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    )
}

/// Answers searches at a router's machine with where the description should be.
fn answer_searches(host: &Host, location: &str) -> Searches {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n\
         ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\n\
         LOCATION: {location}\r\n\r\n"
    );
    let socket = host.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 1900)).unwrap();
        socket.join_multicast_v4(&Ipv4Addr::new(239, 255, 255, 250), &ROUTER).unwrap();
        socket
    });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    thread::spawn(move || {
        let mut bytes = [0; 2_000];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.starts_with("M-SEARCH * HTTP/1.1\r\n") {
                let _ = socket.send_to(answer.as_bytes(), from);
            }
            notes.lock().unwrap().push(text);
        }
    });
    Searches(heard)
}

struct Searches(Arc<Mutex<Vec<String>>>);

fn here(port: u16) -> String {
    format!("http://{}/igd.xml", SocketAddr::from((ROUTER, port)))
}

#[test]
fn a_router_that_speaks_upnp_forwards_the_port_until_the_box_stops() {
    let house = House::new(Family::V4);
    let igd = Igd::start(&house.router, ROUTER, Manners::default());
    let searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call());
    program.wait_for_words("the router forwards port 7001 (by UPnP): others see 203.0.113.7:7001");
    let forwards = igd.table(|table| table.forwards.clone());
    let wanted = ["TCP", "UDP"]
        .map(|transport| ((transport.to_string(), 7_001), (format!("{INSIDE}:7001"), 3_600)));
    assert_eq!(forwards, BTreeMap::from(wanted), "nothing but the peer port");
    let text = searches.0.lock().unwrap().join("");
    assert!(text.contains("MAN: \"ssdp:discover\"\r\n"), "{text}");
    let ended = Instant::now();
    program.stop();
    igd.table(|table| {
        assert!(table.forwards.is_empty(), "{table:?}");
        assert!(table.heard_at.is_some_and(|at| at - ended < GIVEN_BACK));
    });
}

#[test]
fn the_page_is_never_forwarded() {
    let house = House::new(Family::V4);
    let igd = Igd::start(&house.router, ROUTER, Manners::default());
    let _searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call().with_page_at("0.0.0.0:8080"));
    assert!(program.page["pages"][0].is_string(), "it has a page: {}", program.page);
    program.wait_for_words("the router forwards port 7001 (by UPnP)");
    igd.table(|table| {
        let inside: Vec<&String> = table.forwards.values().map(|(inside, _)| inside).collect();
        assert_eq!(inside, [&format!("{INSIDE}:7001"), &format!("{INSIDE}:7001")]);
        assert!(table.heard.iter().all(|line| !line.contains("8080")), "{:?}", table.heard);
    });
    program.stop();
}

#[test]
fn a_port_that_others_have_is_another_outside_and_what_is_for_ever_is_deleted() {
    let house = House::new(Family::V4);
    let manners = Manners { taken: vec![7_001], only_for_ever: true, ..Manners::default() };
    let igd = Igd::start(&house.router, ROUTER, manners);
    let _searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call());
    program.wait_for_words("the router forwards port 7001 (by UPnP): others see 203.0.113.7:");
    let forwards = igd.table(|table| table.forwards.clone());
    let ports: Vec<u16> = forwards.keys().map(|(_, port)| *port).collect();
    assert_eq!(forwards.len(), 2);
    assert!(ports[0] == ports[1] && ports[0] != 7_001, "{forwards:?}");
    assert!(forwards.values().all(|forward| *forward == (format!("{INSIDE}:7001"), 0)));
    assert!(program.log().contains(&format!("203.0.113.7:{}", ports[0])), "{}", program.log());
    program.stop();
    assert!(igd.table(|table| table.forwards.is_empty()));
}

#[test]
fn ports_are_not_tried_for_ever() {
    let house = House::new(Family::V4);
    let manners = Manners { taken: (1..=u16::MAX).collect(), ..Manners::default() };
    let igd = Igd::start(&house.router, ROUTER, manners);
    let _searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call());
    program.wait_for_words("the router answered no (others have every port that was tried)");
    let adds = |line: &&String| line.contains("#AddPortMapping");
    assert_eq!(igd.table(|table| table.heard.iter().filter(adds).count()), 4);
    program.stop();
}

#[test]
fn a_router_without_a_connection_is_told_as_that() {
    let house = House::new(Family::V4);
    let manners = Manners { is_offline: true, ..Manners::default() };
    let igd = Igd::start(&house.router, ROUTER, manners);
    let _searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call());
    program.wait_for_words("the router answered no (it has no connection itself)");
    program.stop();
    assert!(igd.table(|table| table.forwards.is_empty()));
}

#[test]
fn a_description_elsewhere_is_not_fetched() {
    let house = House::new(Family::V4);
    let stranger = house.lan.host("stranger");
    let Some(std::net::IpAddr::V4(ip)) = stranger.addresses().first().copied() else {
        panic!("it has an address")
    };
    let igd = Igd::start(&stranger, ip, Manners::default());
    let location = format!("http://{ip}:{HTTP_PORT}/igd.xml");
    let _searches = answer_searches(&house.router, &location);
    let program = house.start(house.call());
    program.wait_for_words("no router answered");
    program.stop();
    assert!(igd.table(|table| table.heard.is_empty()));
}

#[test]
fn a_description_without_end_is_not_read_to_its_end() {
    let house = House::new(Family::V4);
    let listener = house.router.run(|| TcpListener::bind((ROUTER, HTTP_PORT)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = &stream;
            let _ = stream.read(&mut [0; 1_000]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let junk = [b'<'; 4_096];
            while stream.write_all(&junk).is_ok() {}
        }
    });
    let _searches = answer_searches(&house.router, &here(HTTP_PORT));
    let program = house.start(house.call());
    program.wait_for_words("its answer is longer than the 32768 bytes we take");
    program.wait_for_words("no router answered");
    program.stop();
}

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

const HTTP_PORT: u16 = 5_000;

const DESCRIPTION: &str = "<?xml version=\"1.0\"?>\r\n\
<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><specVersion><major>1</major><minor>0</minor>\
</specVersion><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
<friendlyName>A router & more</friendlyName><serviceList><service>\
<serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
<controlURL>/ctl/L3F</controlURL></service></serviceList><deviceList><device><serviceList><service>\
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/ctl?wan=1</controlURL>\
<eventSubURL>/evt</eventSubURL><SCPDURL>/WANIPCn.xml</SCPDURL></service></serviceList></device>\
</deviceList></device></root>";
