//! A URL asked for, and the redirects it leads to, at addresses that may be dialled.
//!
//! Names, time and rules about addresses come from the caller's [`Ways`]; [`Visitor::open`] bounds what a
//! server can take of each: looking up, connecting and answering have a time of their own,
//! redirects are counted and never leave TLS.
//!
//! # Where a URL may lead
//!
//! A URL from the owner may name a machine in the house, and that may send us on to another one.
//! As soon as a public address has been asked, no redirect leads into the house any more; and a URL
//! that a stranger wrote, into a torrent or a magnet link, never does. Addresses are looked at
//! after the look-up, so a name that has a private address is no way around this.
//!
//! Journey 3: [`download`](crate::service::fetch::download) brings a `.torrent`.

use super::stream::{Answer, Client};
use super::{Get, HttpError};
use crate::engine::announce::is_private;
use core::fmt;
use core::ops::Range;
use futures_lite::future;
use std::borrow::ToOwned;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::string::String;
use std::vec::Vec;
use url::{Position, Url};

/// What following a URL needs of the box it runs on.
#[expect(async_fn_in_trait, reason = "one thread runs the protocol: nobody asks for `Send`")]
pub trait Ways {
    /// The addresses of `host`, looked up on a lane.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// Returns after so many milliseconds. One of these is under way at a time.
    async fn sleep(&self, ms: u64);

    /// Whether anything may be sent there at all.
    fn admits(&self, ip: IpAddr) -> bool;
}

/// An address we can speak HTTP to.
///
/// Shown, it keeps its query to itself: there keys stand.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    url: Url,
    port: u16,
}

/// Reads one; what is wrong with it, as a sentence's end.
pub fn parse_http_url(text: &str) -> Result<HttpUrl, &'static str> {
    let url = Url::parse(text.trim()).map_err(|_| "is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https");
    }
    // Counted as it is sent: what had to be percent-encoded has grown.
    if url.as_str().len() > HTTP_URL_BYTES_MAX {
        return Err("is longer than 8,192 bytes");
    }
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("has no port")?;
    Ok(HttpUrl { url, port })
}

impl HttpUrl {
    /// All of it.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The path, percent-encoded.
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// The same with another path, percent-encoded; `None` when that makes it too long.
    pub fn with_path(&self, path: &str) -> Option<HttpUrl> {
        let mut url = self.url.clone();
        url.set_path(path);
        (url.as_str().len() <= HTTP_URL_BYTES_MAX).then_some(HttpUrl { url, port: self.port })
    }

    fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The name or address, without the brackets of IPv6.
    fn host(&self) -> &str {
        let host = self.url.host_str().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Scheme, name and port.
    fn origin(&self) -> &str {
        &self.url[..Position::BeforePath]
    }

    fn get(&self) -> Get<'_> {
        Get {
            tls: self.is_secure(),
            host: self.host(),
            authority: &self.url[Position::BeforeHost..Position::AfterPort],
            target: self.url[Position::BeforePath..Position::AfterQuery].as_bytes(),
        }
    }

    /// Where `location`, said here, leads.
    fn redirected(&self, location: &str) -> Result<HttpUrl, FollowError> {
        let there = self.url.join(location);
        let there = there.map_err(|_| FollowError::Redirect("to what is no URL"))?;
        let there = parse_http_url(there.as_str())
            .map_err(|_| FollowError::Redirect("to what is no http or https URL"))?;
        if self.is_secure() && !there.is_secure() {
            return Err(FollowError::Redirect("from https to http, in the open"));
        }
        Ok(there)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.url[Position::BeforeHost..Position::AfterPort];
        write!(f, "{}://{authority}{}", self.url.scheme(), self.url.path())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a URL brought no answer, as a sentence's end.
#[derive(Debug)]
pub enum FollowError {
    /// Its name leads nowhere.
    LookUp(io::Error),
    /// None of its addresses is one that may be asked.
    NoAddress,
    /// No answer in time.
    TimedOut,
    /// The conversation failed.
    Http(HttpError),
    /// A redirect that is not followed; where to, as a sentence's end.
    Redirect(&'static str),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowError::LookUp(error) => write!(f, "the server's name is not found: {error}"),
            FollowError::NoAddress => f.write_str(
                "leads to an address inside a house, where a stranger's link or a public server \
                 has no business sending us",
            ),
            FollowError::TimedOut => f.write_str("does not answer in time"),
            FollowError::Http(error) => error.fmt(f),
            FollowError::Redirect(whither) => write!(f, "redirects {whither}"),
        }
    }
}

impl core::error::Error for FollowError {}

/// One client, and where it is connected to.
#[derive(Default)]
pub struct Visitor {
    /// The answer's body is read from here.
    pub client: Client,
    origin: String,
    address: Option<SocketAddr>,
}

/// What to ask for, and how far to go for it.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The owner named the URL.
    pub from_owner: bool,
    /// These bytes of it; all when there is none.
    pub range: Option<Range<u64>>,
    /// The longest body that is taken.
    pub bytes_max: u64,
    /// What the kernel may take in ahead of us.
    pub window_bytes: Option<usize>,
}

impl Visitor {
    /// Whom it is connected to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Asks for `url` and goes where it leads. The answer is no redirect; its body is to be read
    /// from [`Visitor::client`].
    ///
    /// # When full
    /// After [`REDIRECTS_MAX`] redirects it is refused.
    pub async fn open<W: Ways>(
        &mut self,
        ways: &W,
        url: &HttpUrl,
        errand: &Errand,
    ) -> Result<Answer, FollowError> {
        let (mut here, mut trust) = (url.clone(), Trust::of(errand.from_owner));
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(ways, &here, errand, &mut trust).await?;
            match &answer.location {
                None => return Ok(answer),
                Some(location) => here = here.redirected(location)?,
            }
        }
        Err(FollowError::Redirect("again and again"))
    }

    /// One request, over the connection there is if that leads to the same server.
    async fn ask<W: Ways>(
        &mut self,
        ways: &W,
        url: &HttpUrl,
        errand: &Errand,
        trust: &mut Trust,
    ) -> Result<Answer, FollowError> {
        let get = url.get();
        let (range, bytes_max) = (&errand.range, errand.bytes_max);
        if self.client.is_free()
            && self.origin == url.origin()
            && let Some(address) = self.address.filter(|address| trust.admits(address.ip()))
        {
            trust.note(address.ip());
            let asked = self.client.ask(&get, range.clone(), bytes_max);
            match within(ways, ANSWER_MS, http(asked)).await {
                // It was closed before it heard us.
                Err(FollowError::Http(HttpError::Broken(_) | HttpError::CutShort)) => {}
                answered => return answered,
            }
        }
        self.connect(ways, url, errand, trust).await?;
        let asked = self.client.ask(&get, range.clone(), bytes_max);
        within(ways, ANSWER_MS, http(asked)).await
    }

    /// Connects to the first of the server's addresses that answers.
    async fn connect<W: Ways>(
        &mut self,
        ways: &W,
        url: &HttpUrl,
        errand: &Errand,
        trust: &mut Trust,
    ) -> Result<(), FollowError> {
        self.close();
        let mut addresses = match url.host().parse::<IpAddr>() {
            Ok(ip) => std::vec![SocketAddr::new(ip, url.port)],
            Err(_) => {
                let found = ways.resolve(url.host(), url.port);
                let found = async { found.await.map_err(FollowError::LookUp) };
                within(ways, LOOK_UP_MS, found).await?
            }
        };
        // An IPv4 address in IPv6 clothes would pass for a stranger to every rule about IPv4.
        addresses.iter_mut().for_each(|address| address.set_ip(address.ip().to_canonical()));
        addresses.retain(|address| ways.admits(address.ip()) && trust.admits(address.ip()));
        let mut outcome = Err(FollowError::NoAddress);
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let get = url.get();
            let connected = self.client.connect(address, &get, errand.window_bytes);
            outcome = within(ways, CONNECT_MS, http(connected)).await;
            if outcome.is_ok() {
                trust.note(address.ip());
                (self.origin, self.address) = (url.origin().to_owned(), Some(address));
                break;
            }
        }
        outcome
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.client.close();
        self.address = None;
    }
}

/// Where the next step may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Anywhere: so far everything was the owner's own.
    House,
    /// To public addresses.
    Public,
}

impl Trust {
    fn of(from_owner: bool) -> Trust {
        if from_owner { Trust::House } else { Trust::Public }
    }

    fn admits(self, ip: IpAddr) -> bool {
        self == Trust::House || !(is_private(ip) || ip.is_multicast())
    }

    /// Somebody has been asked, who may send us on.
    fn note(&mut self, ip: IpAddr) {
        if !is_private(ip) {
            *self = Trust::Public;
        }
    }
}

async fn http<T>(work: impl Future<Output = Result<T, HttpError>>) -> Result<T, FollowError> {
    work.await.map_err(FollowError::Http)
}

/// `work`, unless it takes longer than `ms`.
pub async fn within<T, W: Ways>(
    ways: &W,
    ms: u64,
    work: impl Future<Output = Result<T, FollowError>>,
) -> Result<T, FollowError> {
    let late = async {
        ways.sleep(ms).await;
        Err(FollowError::TimedOut)
    };
    future::or(work, late).await
}

/// A longer one is refused: it would not fit a head beside the rest.
pub const HTTP_URL_BYTES_MAX: usize = 8 * 1024;

/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;

/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 3;

/// Looking up a name: the usual resolver tries twice for 5 s.
const LOOK_UP_MS: u64 = 10_000;

/// Connecting, and TLS.
const CONNECT_MS: u64 = 10_000;

/// From the request to the end of the answer's head.
const ANSWER_MS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_inside_a_house_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.1.1",
        ] {
            assert!(!Trust::Public.admits(ip(private)), "{private}");
        }
        for public in ["198.51.100.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"]
        {
            assert!(Trust::Public.admits(ip(public)), "{public}");
        }
    }

    #[test]
    fn no_way_leads_back_into_the_house() {
        let (house, public) = (ip("192.168.1.1"), ip("198.51.100.1"));
        let mut trust = Trust::of(true);
        assert!(trust.admits(house) && trust.admits(public));
        trust.note(house);
        assert!(trust.admits(ip("127.0.0.1")), "one machine of the house sends us to another");
        trust.note(public);
        assert!(!trust.admits(house) && !trust.admits(ip("127.0.0.1")) && trust.admits(public));
        trust.note(house);
        assert!(!trust.admits(house), "and not by a detour");
        assert!(!Trust::of(false).admits(house) && Trust::of(false).admits(public));
    }

    #[test]
    fn a_redirect_stays_with_http_and_does_not_leave_tls() {
        let here = parse_http_url("https://w.example/dir/x.torrent?key").unwrap();
        assert_eq!(here.redirected("../y?z").unwrap().as_str(), "https://w.example/y?z");
        for (location, whither) in [
            ("http://w.example/", "from https to http, in the open"),
            ("ftp://w.example/", "to what is no http or https URL"),
            ("//:0", "to what is no URL"),
        ] {
            let error = here.redirected(location).unwrap_err();
            assert_eq!(format!("{error}"), format!("redirects {whither}"), "{location}");
        }
        let open = parse_http_url("http://w.example/").unwrap();
        assert_eq!(open.redirected("https://w.example/").unwrap().port, 443);
    }

    #[test]
    fn a_url_is_shown_without_its_query_and_may_be_given_another_path() {
        let url = parse_http_url(" http://[::1]:8080/a b?secret#part ").unwrap();
        assert_eq!(format!("{url}"), "http://[::1]:8080/a%20b");
        assert_eq!((url.host(), url.port), ("::1", 8080));
        assert_eq!(url.get().target, b"/a%20b?secret");
        let other = url.with_path("/c%2Fd%20e").unwrap();
        assert_eq!(other.as_str(), "http://[::1]:8080/c%2Fd%20e?secret#part");
        assert!(url.with_path(&"x".repeat(HTTP_URL_BYTES_MAX)).is_none());
        for wrong in ["", "x.torrent", "ftp://a/b", "http://", "http://a:0/"] {
            assert!(parse_http_url(wrong).is_err(), "{wrong}");
        }
    }
}
