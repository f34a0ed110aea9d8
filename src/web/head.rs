//! A request's head: what is asked for, from bytes.
//!
//! Strict where two readers could differ about where a request ends: a body has a `Content-Length`,
//! one and in digits, and nothing else says how long it is (RFC 9112, 6.3; `Transfer-Encoding` is
//! answered 411). One head is at most [`HEAD_BYTES_MAX`] long. Nothing here waits or allocates more
//! than the head's own length.

use super::reply::Status;
use std::string::{String, ToString};
use std::vec::Vec;

/// What is done with what is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Send it.
    Get,
    /// Say what would be sent.
    Head,
    /// Do it.
    Post,
    /// Take it.
    Put,
}

/// A request, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is to be done.
    pub method: Method,
    /// Its path, begins with a `/`, percent-encoded as it came.
    pub path: String,
    /// What stands behind the `?`.
    pub query: String,
    /// Whom it is for: what the page is called.
    pub host: String,
    /// Whose page it comes from, if a page of somebody's has sent it.
    pub origin: Option<String>,
    /// What a browser says of that by itself (`Sec-Fetch-Site`).
    pub site: Option<String>,
    /// Our cookie.
    pub cookie: Option<String>,
    /// `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// The token of a page of ours.
    pub token: Option<String>,
    /// The bytes that are wanted.
    pub range: Option<String>,
    /// As long as it is still this.
    pub if_range: Option<String>,
    /// Unless it is still one of these.
    pub if_none_match: Option<String>,
    /// The kind of body.
    pub content_type: Option<String>,
    /// Length of the body.
    pub body_bytes: u64,
    /// The body is sent once we say so.
    pub expects: bool,
    /// Another request may follow.
    pub keep_alive: bool,
}

/// A head that cannot be understood: what is answered, and the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub Status, pub &'static str);

/// Reads a head from the front of what has come: it and its length; `None` while it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(Some((understand(&request)?, length))),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(too_long(bytes)),
        Err(httparse::Error::TooManyHeaders) => {
            Err(Malformed(Status::HEAD_TOO_LARGE, "there are more than 64 header lines"))
        }
        Err(httparse::Error::Version) => {
            Err(Malformed(Status::VERSION, "HTTP/1.0 and HTTP/1.1 are spoken here"))
        }
        Err(_) => Err(Malformed(Status::BAD_REQUEST, "this is no HTTP request")),
    }
}

fn too_long(bytes: &[u8]) -> Malformed {
    if bytes.contains(&b'\n') {
        Malformed(Status::HEAD_TOO_LARGE, "the head is longer than 4 KiB")
    } else {
        Malformed(Status::URI_TOO_LONG, "the address is longer than 4 KiB")
    }
}

fn understand(request: &httparse::Request<'_, '_>) -> Result<Head, Malformed> {
    let bad = |why| Malformed(Status::BAD_REQUEST, why);
    let target = request.path.unwrap_or_default();
    if !target.starts_with('/') {
        return Err(bad("the address has to begin with a /"));
    }
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = match request.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        _ => return Err(Malformed(Status::METHOD, "GET, HEAD, POST and PUT are known here")),
    };
    let is_new = request.version == Some(1);
    let mut head = Head {
        method,
        path: path.to_string(),
        query: query.to_string(),
        host: String::new(),
        origin: None,
        site: None,
        cookie: None,
        bearer: None,
        token: None,
        range: None,
        if_range: None,
        if_none_match: None,
        content_type: None,
        body_bytes: 0,
        expects: false,
        keep_alive: is_new,
    };
    let (mut host, mut length) = (None, None);
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| bad("a header is no text"))?;
        let (name, value) = (header.name.to_ascii_lowercase(), value.trim().to_string());
        let once = |place: &mut Option<String>| match place.replace(value.clone()) {
            None => Ok(()),
            Some(_) => Err(bad("a header that may stand once stands twice")),
        };
        match name.as_str() {
            "host" => once(&mut host)?,
            "content-length" => once(&mut length)?,
            "transfer-encoding" => {
                return Err(Malformed(
                    Status::LENGTH_REQUIRED,
                    "say how long the body is, with Content-Length",
                ));
            }
            "origin" => once(&mut head.origin)?,
            "sec-fetch-site" => once(&mut head.site)?,
            "range" => once(&mut head.range)?,
            "if-range" => once(&mut head.if_range)?,
            "if-none-match" => head.if_none_match = Some(value),
            "content-type" => once(&mut head.content_type)?,
            "x-token" => once(&mut head.token)?,
            "authorization" => head.bearer = bearer(&value),
            "cookie" => head.cookie = own_cookie(&value).or(head.cookie),
            "expect" => head.expects = value.eq_ignore_ascii_case("100-continue"),
            // What an older program would have to be told to stay, it is not told.
            "connection" if has_word(&value, "close") => head.keep_alive = false,
            _ => {}
        }
    }
    head.host = match host {
        Some(host) => host,
        None if !is_new => String::new(),
        None => return Err(bad("there is no Host header")),
    };
    if let Some(length) = length {
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = length.parse().ok().filter(|_| digits);
        head.body_bytes = bytes.ok_or(bad("Content-Length is no number"))?;
    }
    Ok(head)
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_string())
}

fn has_word(value: &str, word: &str) -> bool {
    value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word))
}

fn own_cookie(value: &str) -> Option<String> {
    let pairs = value.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_string())
}

impl Head {
    /// A value of the query, decoded.
    pub fn asked(&self, name: &str) -> Option<String> {
        value_of(self.query.as_bytes(), name)
    }

    /// A number of the query.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.asked(name)?.parse().ok()
    }

    /// Whether a word stands in the query, with or without a value.
    pub fn is_asked(&self, name: &str) -> bool {
        self.asked(name).is_some()
    }

    /// The parts of the path, decoded; `None` when one of them is no text.
    pub fn parts(&self) -> Option<Vec<String>> {
        let parts = self.path[1..].split('/');
        let decode = |part| percent_encoding::percent_decode_str(part).decode_utf8();
        parts.map(|part| decode(part).ok().map(|part| part.into_owned())).collect()
    }
}

/// A value of a form, decoded.
pub fn value_of(form: &[u8], name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(form);
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Our cookie's name.
pub const COOKIE: &str = "perennial";

/// A head at most: with what an allocator keeps beside it, 4 KiB.
pub const HEAD_BYTES_MAX: usize = 4 * 1024 - 24;

/// Header lines of one head at most.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().0.code()
    }

    #[test]
    fn a_head_is_whole_at_its_last_byte_and_not_before() {
        let text = "GET /s/a%20b/?after=7&q=%C3%A4 HTTP/1.1\r\nHost: attic.local:8080\r\n\
                    Cookie: other=1; perennial=abc\r\nRange: bytes=0-9\r\n\r\nGET /next";
        let whole = text.find("GET /next").unwrap();
        for cut in 0..whole {
            assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "{cut}");
        }
        let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((length, head.method, head.keep_alive), (whole, Method::Get, true));
        assert_eq!(head.parts().unwrap(), ["s", "a b", ""]);
        assert_eq!(head.asked("q").as_deref(), Some("ä"));
        assert_eq!(head.host, "attic.local:8080");
        assert_eq!(head.cookie.as_deref(), Some("abc"));
        assert_eq!(head.range.as_deref(), Some("bytes=0-9"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(status(&with("Content-Length: 5\r\nContent-Length: 6")), 400);
        assert_eq!(status(&with("Content-Length: +5")), 400);
        assert_eq!(status(&with("Content-Length: 5, 5")), 400);
        assert_eq!(status(&with("Content-Length: ")), 400);
        assert_eq!(status(&with("Content-Length: 99999999999999999999999")), 400);
        assert_eq!(status(&with("Content-Length: 5\r\nTransfer-Encoding: chunked")), 411);
        assert_eq!(status(&with("Transfer-Encoding: xchunked")), 411);
        assert_eq!(status(&with("Transfer-Encoding : chunked")), 400);
        assert_eq!(status(&with("Host: b")), 400);
        assert_eq!(status(&with("X: a\r\n folded")), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
        assert_eq!(status("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status("\u{16}\u{3}\u{1}"), 400);
    }

    #[test]
    fn what_is_too_long_is_refused_before_more_of_it_is_read() {
        let long = "a".repeat(HEAD_BYTES_MAX);
        assert_eq!(status(&format!("GET /{long}")), 414);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {long}")), 431);
        let many = "X: 1\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 431);
    }
}
