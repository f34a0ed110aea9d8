//! The tracker an image names is told of the share, over UDP (BEP 15) or HTTP (BEP 3).
//!
//! Its address stands in the image: nobody is asked for names. Peers in an answer are of no use to
//! a box that dials nobody, so none are asked for.

use crate::engine::announce::schedule::{Due, Schedule};
use crate::engine::announce::udp::{Exchange, Output};
use crate::engine::announce::{Announce, Answer, Event, Family, INTERVAL_UNSAID_MS, Retry, http};
use crate::engine::bencode::{Full, Sink, decimal};
use crate::engine::image::Head;
use crate::engine::units::{Deadline, Instant, PeerId};
use core::net::Ipv4Addr;
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::IpAddress;

/// A tracker's address: `udp://192.168.1.2:6969/announce`, or with `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerUrl<'a> {
    over_udp: bool,
    ip: Ipv4Addr,
    port: u16,
    path_and_query: &'a str,
}

impl<'a> TrackerUrl<'a> {
    /// Reads an address; `None` when it is no such one.
    pub fn parse(text: &'a str) -> Option<TrackerUrl<'a>> {
        let (scheme, rest) = text.split_once("://")?;
        let over_udp = match scheme {
            "udp" => true,
            "http" => false,
            _ => return None,
        };
        let (host, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (ip, port) = match host.split_once(':') {
            Some((ip, port)) => (ip, port.parse().ok().filter(|port| *port != 0)?),
            None if over_udp => return None,
            None => (host, 80),
        };
        Some(TrackerUrl { over_udp, ip: ip.parse().ok()?, port, path_and_query })
    }
}

/// What is told to the tracker, and when.
pub struct Tracker<'a> {
    url: TrackerUrl<'a>,
    /// As it was told last, and what never changes.
    announce: Announce<'a>,
    schedule: Schedule,
    under_way: Option<(Due, Way<'a>)>,
    /// When what is under way is looked at again by itself.
    wake: Instant,
    chance: u32,
    sockets: TrackerSockets,
}

/// The sockets a tracker is told over; one of them stays unused.
#[derive(Clone, Copy)]
pub struct TrackerSockets {
    /// UDP.
    pub datagrams: SocketHandle,
    /// TCP.
    pub stream: SocketHandle,
}

/// How an announce travels.
#[expect(clippy::large_enum_variant, reason = "there is one, and no heap")]
enum Way<'a> {
    Udp(Exchange<'a, ASKED_BYTES>),
    Http {
        /// The question has gone.
        asked: bool,
        until: Instant,
    },
}

/// How an announce ended.
type Ended = Result<Answer, (Told, Retry)>;

/// What came of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The tracker knows of us.
    Answered,
    /// It said no.
    Refused,
    /// Nobody answered, or nothing that could be read.
    Failed,
}

impl<'a> Tracker<'a> {
    /// The tracker that `head` names, if it does.
    #[inline(never)]
    pub fn new(
        head: &Head<'a>,
        peer_id: PeerId,
        port: u16,
        chance: u32,
        sockets: TrackerSockets,
        now: Instant,
    ) -> Option<Tracker<'a>> {
        let url = TrackerUrl::parse(head.tracker)?;
        let announce = Announce {
            info_hash: head.info_hash,
            peer_id,
            port,
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: Event::Started,
            num_want: 0,
            key: chance,
            tracker_id: None,
        };
        let schedule = Schedule::new([0], chance, now);
        let (under_way, wake) = (None, Instant::NEVER);
        Some(Tracker { url, announce, schedule, under_way, wake, chance, sockets })
    }

    /// Goes on with an announce, or begins one that is due; what came of one that has ended.
    #[inline(never)]
    pub fn turn(
        &mut self,
        context: &mut Context,
        sockets: &mut SocketSet<'_>,
        sent_bytes: u64,
        now: Instant,
    ) -> Option<Told> {
        if self.under_way.is_none() {
            let due = self.schedule.next(now)?;
            self.announce = Announce { event: due.event, uploaded: sent_bytes, ..self.announce };
            let way = self.begin(context, sockets, now);
            self.under_way = Some((due, way));
        }
        let (due, way) = self.under_way.as_mut()?;
        let due = *due;
        let tracker = (IpAddress::Ipv4(self.url.ip), self.url.port);
        let ended = match way {
            Way::Udp(exchange) => {
                let socket = sockets.get_mut(self.sockets.datagrams);
                over_udp(exchange, socket, tracker, self.chance, &mut self.wake, now)
            }
            Way::Http { asked, until } => {
                let stream = sockets.get_mut(self.sockets.stream);
                over_http(stream, asked, now >= *until, &self.announce, &self.url)
            }
        };
        let told = match ended? {
            Ok(answer) => {
                self.schedule.handle_answer(due, &answer, now);
                Told::Answered
            }
            Err((told, retry)) => {
                self.schedule.handle_failure(due, retry, now);
                told
            }
        };
        self.under_way = None;
        sockets.get_mut::<tcp::Socket<'_>>(self.sockets.stream).abort();
        Some(told)
    }

    /// When it next has something to do by itself.
    pub fn deadline(&self) -> Deadline {
        match self.under_way {
            None => self.schedule.deadline(),
            Some(_) => Deadline { at: self.wake, why: "a tracker's answer" },
        }
    }

    fn begin(
        &mut self,
        context: &mut Context,
        sockets: &mut SocketSet<'_>,
        now: Instant,
    ) -> Way<'a> {
        // Another port each time: no answer to an old question counts for a new one.
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = PORTS_FROM + (self.chance >> 18) as u16;
        if self.url.over_udp {
            self.wake = now;
            let datagrams = sockets.get_mut::<udp::Socket<'_>>(self.sockets.datagrams);
            datagrams.close();
            // Neither this nor connecting fails: the sockets are closed and the ports not 0.
            let _ = datagrams.bind(port);
            return Way::Udp(Exchange::new(
                self.announce,
                self.url.path_and_query,
                Family::V4,
                now,
            ));
        }
        self.wake = now.after(HTTP_MS);
        let stream = sockets.get_mut::<tcp::Socket<'_>>(self.sockets.stream);
        stream.abort();
        let _ = stream.connect(context, (IpAddress::Ipv4(self.url.ip), self.url.port), port);
        Way::Http { asked: false, until: self.wake }
    }
}

fn over_udp(
    exchange: &mut Exchange<'_, ASKED_BYTES>,
    socket: &mut udp::Socket<'_>,
    tracker: (IpAddress, u16),
    chance: u32,
    wake: &mut Instant,
    now: Instant,
) -> Option<Ended> {
    while let Ok((bytes, from)) = socket.recv() {
        if (from.endpoint.addr, from.endpoint.port) != tracker {
            continue;
        }
        match exchange.handle_datagram(bytes, now) {
            Ok(Some((answer, _))) => return Some(Ok(answer)),
            Ok(None) => {}
            Err(refusal) => return Some(Err((Told::Refused, refusal.retry))),
        }
    }
    match exchange.poll_output(now, chance) {
        Output::Send(datagram) => {
            // Without room it is lost, and asked again like one that is lost on the way.
            let _ = socket.send_slice(datagram, tracker);
            *wake = now;
            None
        }
        Output::Wait(deadline) => {
            *wake = deadline.at;
            None
        }
        Output::GaveUp => FAILED,
    }
}

/// Asks in HTTP/1.0, so that the answer comes in one piece and ends with the connection. What has
/// come when it is `late` is read all the same: some leave the connection open.
fn over_http(
    stream: &mut tcp::Socket<'_>,
    asked: &mut bool,
    late: bool,
    announce: &Announce<'_>,
    url: &TrackerUrl<'_>,
) -> Option<Ended> {
    if !*asked && stream.can_send() {
        let mut request = heapless::Vec::<u8, REQUEST_BYTES>::new();
        let Ok(()) = write_request(announce, url, &mut request) else { return FAILED };
        *asked = stream.send_slice(&request).is_ok();
        return None;
    }
    let under_way = matches!(stream.state(), tcp::State::SynSent | tcp::State::Established);
    if under_way && !late {
        return None;
    }
    let Ok(answer) = stream.peek(ANSWER_BYTES) else { return FAILED };
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(head) = head.filter(|_| answer.get(8..12) == Some(b" 200")) else { return FAILED };
    Some(match http::parse(&answer[head + 4..]) {
        Ok((answer, _)) => Ok(answer),
        Err(http::AnswerError::Refused(refusal)) => Err((Told::Refused, refusal.retry)),
        // It sends peers although none were asked for: more than there is room for, but it knows us.
        Err(_) if answer.len() == ANSWER_BYTES => Ok(Answer {
            interval_ms: INTERVAL_UNSAID_MS,
            min_interval_ms: INTERVAL_UNSAID_MS,
            ..Answer::default()
        }),
        Err(_) => Err((Told::Failed, Retry::Unsaid)),
    })
}

fn write_request(
    announce: &Announce<'_>,
    url: &TrackerUrl<'_>,
    request: &mut heapless::Vec<u8, REQUEST_BYTES>,
) -> Result<(), Full> {
    request.put(b"GET ")?;
    if !url.path_and_query.starts_with('/') {
        request.put(b"/")?;
    }
    http::write_target(announce, url.path_and_query, request)?;
    request.put(b" HTTP/1.0\r\nHost: ")?;
    for (at, byte) in url.ip.octets().into_iter().enumerate() {
        request.put(if at > 0 { b"." } else { b"" })?;
        request.put(decimal(byte.into(), &mut [0; 20]))?;
    }
    request.put(b":")?;
    request.put(decimal(url.port.into(), &mut [0; 20]))?;
    request.put(b"\r\nUser-Agent: perennial\r\n\r\n")
}

const FAILED: Option<Ended> = Some(Err((Told::Failed, Retry::Unsaid)));

/// A datagram with the longest path that fits a head.
const ASKED_BYTES: usize = 448;

/// What is asked, with the longest path that fits a head.
pub const REQUEST_BYTES: usize = 768;

/// What is kept of an answer: without peers it is a hundred bytes and a head.
pub const ANSWER_BYTES: usize = 768;

/// A tracker that has not answered by then does not.
const HTTP_MS: u64 = 20_000;

/// We ask from one of the 16,384 ports from here on (RFC 6335: those for everybody).
const PORTS_FROM: u16 = 49_152;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_refused() {
        let parse = TrackerUrl::parse;
        let udp = parse("udp://192.168.1.2:6969/announce?x=1").unwrap();
        assert_eq!((udp.over_udp, udp.port, udp.path_and_query), (true, 6969, "/announce?x=1"));
        let http = parse("http://10.0.0.1").unwrap();
        assert_eq!((http.over_udp, http.port, http.path_and_query), (false, 80, ""));
        for wrong in [
            "",
            "udp://10.0.0.1",
            "http://name/x",
            "https://10.0.0.1",
            "udp://1.2.3.4:0",
            "http://::1/",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
