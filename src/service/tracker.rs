//! Announces carried to trackers, over HTTP, HTTPS and UDP, and their answers brought back.
//!
//! [`announce`] makes one announce to one tracker and is over when that is: no state is kept from
//! one to the next, and what the box knows of names, time, chance and addresses comes from its
//! [`World`]. What is said and understood is the engine's ([`engine::announce`]); here bytes move.
//!
//! ```text
//! TrackerUrl -> World::resolve -> World::admits -> IPv4: its addresses, in turn --+-> Answer
//!                                              \-> IPv6: the same, meanwhile ------+   and peers
//! ```
//!
//! A tracker whose name has addresses of both families hears of us over each, for it knows us by
//! where we come from (BEP 7); one that answers is enough, and peers are handed on as each
//! answers, so that a broken IPv6 does not keep IPv4's peers waiting.
//!
//! Bounds, whatever a tracker does: HTTP takes 15 s an address, redirects included, UDP what
//! [`udp`] allows; the answer fits the lent buffer, or its half where two families share it, or is
//! refused; redirects are counted, lead to `http` and `https` only and to no address the world does
//! not admit. A tracker's name may lead into our own network: that is right when the owner gave
//! the URL, and a way in for strangers when a torrent did.
//!
//! Journey 3: the [`schedule`] names the tracker and is told the outcome
//! ([`TrackerError::retry`]), the peers become candidates of the swarm.
//!
//! [`engine::announce`]: crate::engine::announce
//! [`schedule`]: crate::engine::announce::schedule
//! [`udp`]: crate::engine::announce::udp

use super::http::{self, Get, HttpError, Reply};
use crate::engine::announce::http::{AnswerError, TARGET_BYTES_MAX, parse, write_target};
use crate::engine::announce::udp::{Exchange, Output};
use crate::engine::announce::{Announce, Answer, Family, Refusal, Retry, URL_BYTES_MAX};
use crate::engine::bencode::Sink;
use crate::engine::units::Instant;
use async_io::Async;
use core::cell::RefCell;
use core::fmt;
use core::str::FromStr;
use futures_lite::future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::string::String;
use std::vec;
use std::vec::Vec;
use url::{Position, Url};

/// What an announce needs of the box it runs on.
#[expect(async_fn_in_trait, reason = "one thread runs the protocol: nobody asks for `Send`")]
pub trait World {
    /// The addresses of `host`, looked up on a lane, for the look-up sleeps in the kernel.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// Returns after so many milliseconds of the one clock. An announce holds four of these at a
    /// time at most: for each family, one for a request and one for looking up a redirect's name.
    async fn sleep(&self, ms: u64);

    /// The one clock.
    fn now(&self) -> Instant;

    /// A random number that a stranger cannot guess: a UDP tracker is known by it.
    fn random(&self) -> u32;

    /// Whether this announce may go there: of a family that we listen on, and a loopback or
    /// private address only when the URL came from the owner.
    fn admits(&self, address: &SocketAddr) -> bool;
}

/// Makes one announce. Peers are handed to `peers` as they are read, before this returns and even
/// if another family fails; the same one may come twice.
///
/// `buffer` holds an answer, or one for each family: 64 KiB are 10,000 peers over IPv4, and less
/// than 32 KiB would not take every server's head.
pub async fn announce<W: World>(
    world: &W,
    url: &TrackerUrl,
    announce: &Announce<'_>,
    buffer: &mut [u8],
    peers: &mut impl FnMut(SocketAddr),
) -> Result<Answer, TrackerError> {
    let errand = Errand { world, announce, peers: RefCell::new(peers) };
    let addresses = errand.look_up(url).await?;
    let v4 = pick(&addresses, Family::V4, url.scheme);
    let v6 = pick(&addresses, Family::V6, url.scheme);
    match (&v4[..], &v6[..]) {
        ([], []) => Err(TrackerError::NoAddress),
        (only, []) | ([], only) => errand.try_each(url, only, buffer).await,
        (v4, v6) => {
            let (left, right) = buffer.split_at_mut(buffer.len() / 2);
            let over_v4 = errand.try_each(url, v4, left);
            let over_v6 = errand.try_each(url, v6, right);
            let (over_v4, over_v6) = future::zip(over_v4, over_v6).await;
            merge(over_v4, over_v6)
        }
    }
}

/// The address of a tracker, known to be one we can speak to.
///
/// Shown, it keeps path and query to itself: there the owner's passkey stands.
#[derive(Clone, PartialEq, Eq)]
pub struct TrackerUrl {
    url: Url,
    scheme: Scheme,
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Udp,
}

/// Why something is no address of a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerUrlError {
    /// It is no URL.
    NotAUrl(url::ParseError),
    /// It is one of a kind we do not speak.
    Scheme(String),
    /// It names no host.
    NoHost,
    /// `udp` has no port of its own and none was given.
    NoPort,
    /// It is longer than [`URL_BYTES_MAX`].
    TooLong,
}

/// Reads the address of a tracker.
pub fn parse_tracker_url(text: &str) -> Result<TrackerUrl, TrackerUrlError> {
    let url = Url::parse(text.trim()).map_err(TrackerUrlError::NotAUrl)?;
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "udp" => Scheme::Udp,
        other => return Err(TrackerUrlError::Scheme(other.into())),
    };
    if url.host_str().is_none_or(str::is_empty) {
        return Err(TrackerUrlError::NoHost);
    }
    // Counted as it is sent: what had to be percent-encoded has grown.
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(TrackerUrlError::TooLong);
    }
    let port = url.port_or_known_default().filter(|port| *port != 0);
    Ok(TrackerUrl { scheme, port: port.ok_or(TrackerUrlError::NoPort)?, url })
}

impl TrackerUrl {
    /// All of it, passkey included.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The name or address, without the brackets of IPv6.
    fn host(&self) -> &str {
        let host = self.url.host_str().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn path_and_query(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// What to ask for, given the target.
    fn get<'a>(&'a self, target: &'a [u8]) -> Get<'a> {
        Get {
            tls: self.scheme == Scheme::Https,
            host: self.host(),
            authority: &self.url[Position::BeforeHost..Position::AfterPort],
            target,
        }
    }
}

impl FromStr for TrackerUrl {
    type Err = TrackerUrlError;

    fn from_str(text: &str) -> Result<TrackerUrl, TrackerUrlError> {
        parse_tracker_url(text)
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.url[Position::BeforeHost..Position::AfterPort];
        write!(f, "{}://{authority}", self.url.scheme())
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TrackerUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrackerUrlError::NotAUrl(error) => {
                write!(f, "this is no URL ({error}); a tracker's looks like {EXAMPLE}")
            }
            TrackerUrlError::Scheme(scheme) => write!(
                f,
                "a tracker's URL begins with http://, https:// or udp://, this one with {scheme}:"
            ),
            TrackerUrlError::NoHost => {
                write!(f, "this URL names no host; a tracker's looks like {EXAMPLE}")
            }
            TrackerUrlError::NoPort => {
                write!(f, "a udp tracker's URL must name its port, as in {EXAMPLE}")
            }
            TrackerUrlError::TooLong => {
                write!(f, "a tracker's URL may be {URL_BYTES_MAX} bytes long, this one is longer")
            }
        }
    }
}

impl core::error::Error for TrackerUrlError {}

/// Why an announce brought no answer.
#[derive(Debug)]
pub enum TrackerError {
    /// The tracker says no.
    Refused(Refusal),
    /// Its name leads nowhere.
    LookUp(io::Error),
    /// None of its addresses is one this announce may go to.
    NoAddress,
    /// No datagram reaches it.
    Unreachable(io::Error),
    /// No answer in time.
    TimedOut,
    /// The conversation failed.
    Http(HttpError),
    /// A redirect that is not followed; where to, as a sentence's end.
    Redirect(&'static str),
    /// The server failed to answer, with this status and without a tracker's words.
    Status(u16),
    /// Somebody answered who is no tracker.
    NotATracker(AnswerError),
}

impl TrackerError {
    /// When to ask that tracker again, for the [`schedule`](crate::engine::announce::schedule).
    pub fn retry(&self) -> Retry {
        match self {
            TrackerError::Refused(refusal) => refusal.retry,
            TrackerError::Http(HttpError::TlsNotBuilt) => Retry::Never,
            _ => Retry::Unsaid,
        }
    }

    /// Whether another address of the same name may do better.
    fn is_of_the_address(&self) -> bool {
        use TrackerError::{Http, TimedOut, Unreachable};
        matches!(self, Unreachable(_) | TimedOut | Http(HttpError::Unreachable(_)))
    }
}

impl fmt::Display for TrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrackerError::Refused(refusal) => write!(f, "the tracker refuses: {}", refusal.reason),
            TrackerError::LookUp(error) => write!(
                f,
                "the tracker's name is not found: {error}; check its spelling and this machine's \
                 name server"
            ),
            TrackerError::NoAddress => f.write_str(
                "none of the tracker's addresses may be asked: this box does not listen on their \
                 family, or they are private and the tracker was not named by the owner",
            ),
            TrackerError::Unreachable(error) => {
                write!(f, "the tracker cannot be reached: {error}")
            }
            TrackerError::TimedOut => {
                f.write_str("the tracker does not answer in time; it is asked again later")
            }
            TrackerError::Http(error) => write!(f, "the tracker: {error}"),
            TrackerError::Redirect(whither) => write!(f, "the tracker redirects {whither}"),
            TrackerError::Status(status) => write!(
                f,
                "the tracker's server answers with status {status}; check the URL's path and key"
            ),
            TrackerError::NotATracker(error) => write!(
                f,
                "what answers there is no tracker ({error}); check the URL's path and port"
            ),
        }
    }
}

impl core::error::Error for TrackerError {}

/// One announce on its way.
struct Errand<'a, W, P> {
    world: &'a W,
    announce: &'a Announce<'a>,
    /// Borrowed for one answer at a time, never over an await.
    peers: RefCell<&'a mut P>,
}

impl<W: World, P: FnMut(SocketAddr)> Errand<'_, W, P> {
    /// The addresses behind `url` that this announce may go to.
    async fn look_up(&self, url: &TrackerUrl) -> Result<Vec<SocketAddr>, TrackerError> {
        let mut addresses = match url.host().parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, url.port)],
            Err(_) => {
                let found = self.world.resolve(url.host(), url.port);
                let found = async { found.await.map_err(TrackerError::LookUp) };
                self.within(LOOK_UP_MS_MAX, found).await?
            }
        };
        // An IPv4 address in IPv6 clothes would pass for a stranger to every rule about IPv4.
        addresses.iter_mut().for_each(|address| address.set_ip(address.ip().to_canonical()));
        addresses.retain(|address| self.world.admits(address));
        Ok(addresses)
    }

    /// Asks one address after the other, until one answers or refuses.
    async fn try_each(
        &self,
        url: &TrackerUrl,
        addresses: &[SocketAddr],
        buffer: &mut [u8],
    ) -> Result<Answer, TrackerError> {
        let mut outcome = Err(TrackerError::NoAddress);
        for address in addresses {
            outcome = match url.scheme {
                Scheme::Udp => self.over_udp(url, *address, buffer).await,
                Scheme::Http | Scheme::Https => {
                    self.within(HTTP_MS_MAX, self.over_http(url, *address, buffer)).await
                }
            };
            if !outcome.as_ref().is_err_and(TrackerError::is_of_the_address) {
                break;
            }
        }
        outcome
    }

    /// One request and the redirects it leads to, over the family of `address`.
    async fn over_http(
        &self,
        url: &TrackerUrl,
        address: SocketAddr,
        buffer: &mut [u8],
    ) -> Result<Answer, TrackerError> {
        let family = Family::of(&address);
        let (mut here, mut address) = (url.clone(), address);
        let mut target = heapless::Vec::<u8, TARGET_BYTES_MAX>::new();
        write_target(self.announce, url.path_and_query(), &mut target).expect(URL_IS_CHECKED);
        for _ in 0..=REDIRECTS_MAX {
            let reply = http::get(address, &here.get(&target), buffer).await;
            let location = match reply.map_err(TrackerError::Http)? {
                Reply::Content { status, body } => return self.read_body(status, body),
                Reply::Redirect { location } => location,
            };
            here = redirected(&here, &location)?;
            let addresses = self.look_up(&here).await?;
            let next = addresses.into_iter().find(|address| Family::of(address) == family);
            address = next.ok_or(TrackerError::NoAddress)?;
            // The announce is in the query that the server saw: it stands in `location` as well.
            target.clear();
            target.put(here.path_and_query().as_bytes()).expect(URL_IS_CHECKED);
        }
        Err(TrackerError::Redirect("again and again"))
    }

    /// Reads the body of an answer. A refusal counts whatever the status: trackers send it with
    /// 200, 400 and 403 alike.
    fn read_body(&self, status: u16, body: &[u8]) -> Result<Answer, TrackerError> {
        match parse(body) {
            Err(AnswerError::Refused(refusal)) => Err(TrackerError::Refused(refusal)),
            _ if status != 200 => Err(TrackerError::Status(status)),
            Err(error) => Err(TrackerError::NotATracker(error)),
            Ok((answer, peers)) => {
                self.hand_on(peers);
                Ok(answer)
            }
        }
    }

    /// One exchange with `address`. The socket is connected to it, so that the kernel keeps
    /// others' datagrams away and says when nobody is there.
    async fn over_udp(
        &self,
        url: &TrackerUrl,
        address: SocketAddr,
        buffer: &mut [u8],
    ) -> Result<Answer, TrackerError> {
        let socket = udp_socket(address).map_err(TrackerError::Unreachable)?;
        let (family, world) = (Family::of(&address), self.world);
        let mut exchange: Exchange<'_> =
            Exchange::new(*self.announce, url.path_and_query(), family, world.now());
        loop {
            let now = world.now();
            let wait = match exchange.poll_output(now, world.random()) {
                Output::Send(datagram) => {
                    socket.send(datagram).await.map_err(TrackerError::Unreachable)?;
                    continue;
                }
                Output::Wait(deadline) => deadline.at.since(now),
                Output::GaveUp => return Err(TrackerError::TimedOut),
            };
            let received = async { socket.recv(buffer).await.map_err(TrackerError::Unreachable) };
            let bytes = match self.within(wait, received).await {
                Err(TrackerError::TimedOut) => continue,
                received => received?,
            };
            let heard = exchange.handle_datagram(&buffer[..bytes], world.now());
            if let Some((answer, peers)) = heard.map_err(TrackerError::Refused)? {
                self.hand_on(peers);
                return Ok(answer);
            }
        }
    }

    fn hand_on(&self, peers: impl Iterator<Item = SocketAddr>) {
        peers.for_each(&mut **self.peers.borrow_mut());
    }

    /// `work`, unless it takes longer than `ms`.
    async fn within<T>(
        &self,
        ms: u64,
        work: impl Future<Output = Result<T, TrackerError>>,
    ) -> Result<T, TrackerError> {
        let late = async {
            self.world.sleep(ms).await;
            Err(TrackerError::TimedOut)
        };
        future::or(work, late).await
    }
}

/// The addresses of one family to try. A UDP exchange is patient and is made with one.
fn pick(
    addresses: &[SocketAddr],
    family: Family,
    scheme: Scheme,
) -> heapless::Vec<SocketAddr, ADDRESSES_MAX> {
    let count = if scheme == Scheme::Udp { 1 } else { ADDRESSES_MAX };
    let of_family = addresses.iter().filter(|address| Family::of(address) == family);
    of_family.take(count).copied().collect()
}

/// Where `location`, said at `here`, leads.
fn redirected(here: &TrackerUrl, location: &str) -> Result<TrackerUrl, TrackerError> {
    let there = here.url.join(location).map_err(|_| TrackerError::Redirect("to what is no URL"))?;
    match parse_tracker_url(there.as_str()) {
        Ok(there) if there.scheme == Scheme::Udp => {}
        Ok(there) if here.scheme == Scheme::Https && there.scheme == Scheme::Http => {
            return Err(TrackerError::Redirect("from https to http, in the open"));
        }
        Ok(there) => return Ok(there),
        Err(_) => {}
    }
    Err(TrackerError::Redirect("to what is no http or https URL that we follow"))
}

fn udp_socket(address: SocketAddr) -> io::Result<Async<UdpSocket>> {
    let any = match Family::of(&address) {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Async::new(socket)
}

/// What both families brought: the later interval of two answers, and of two failures a tracker's
/// own words before the weather between.
fn merge(
    over_v4: Result<Answer, TrackerError>,
    over_v6: Result<Answer, TrackerError>,
) -> Result<Answer, TrackerError> {
    match (over_v4, over_v6) {
        (Ok(v4), Ok(v6)) => Ok(Answer {
            interval_ms: v4.interval_ms.max(v6.interval_ms),
            min_interval_ms: v4.min_interval_ms.max(v6.min_interval_ms),
            seeders: v4.seeders.max(v6.seeders),
            leechers: v4.leechers.max(v6.leechers),
            external_ip: v4.external_ip.or(v6.external_ip),
            warning: v4.warning.or(v6.warning),
            tracker_id: v4.tracker_id.or(v6.tracker_id),
        }),
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(_), Err(refused @ TrackerError::Refused(_))) => Err(refused),
        (Err(error), Err(_)) => Err(error),
    }
}

/// A tracker's URL for those who wrote one that is none.
const EXAMPLE: &str = "udp://tracker.example.org:6969/announce";

/// Why a target always fits.
const URL_IS_CHECKED: &str = "a URL is held to URL_BYTES_MAX when it is parsed";

/// One address over HTTP: connecting, head, body and redirects.
const HTTP_MS_MAX: u64 = 15_000;

/// Looking up a name: the usual resolver tries twice for 5 s.
const LOOK_UP_MS_MAX: u64 = 10_000;

/// Addresses of one family that are tried.
const ADDRESSES_MAX: usize = 2;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::announce::Notice;
    use std::string::ToString;

    #[test]
    fn a_redirect_does_not_leave_tls() {
        let here = parse_tracker_url("https://t.example/dir/announce?k").unwrap();
        let there = redirected(&here, "other?x").unwrap();
        assert_eq!(there.as_str(), "https://t.example/dir/other?x");
        let error = redirected(&here, "http://t.example/announce").unwrap_err().to_string();
        assert_eq!(error, "the tracker redirects from https to http, in the open");
    }

    #[test]
    fn two_answers_make_one() {
        let answer = |interval_ms, seeders| Answer { interval_ms, seeders, ..Answer::default() };
        let merged = merge(Ok(answer(60_000, Some(2))), Ok(answer(90_000, None))).unwrap();
        assert_eq!(merged, answer(90_000, Some(2)));
        let one = merge(Err(TrackerError::TimedOut), Ok(answer(60_000, None)));
        assert_eq!(one.unwrap(), answer(60_000, None));
        let refusal = Refusal { reason: Notice::of(b"no"), retry: Retry::After(60_000) };
        let none = merge(Err(TrackerError::TimedOut), Err(TrackerError::Refused(refusal)));
        assert_eq!(none.unwrap_err().retry(), Retry::After(60_000));
    }
}
