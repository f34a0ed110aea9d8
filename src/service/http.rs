//! A client for one HTTP/1.1 request: a small answer, whole, in a buffer the caller lends.
//!
//! One connection, one request, one answer, and the connection is closed. That is all trackers,
//! feeds and routers need of HTTP, and it leaves out what makes a client large: pools, cookies, caches,
//! compression (never asked for, refused when it comes all the same). Heads are parsed by
//! `httparse`, TLS is rustls with Mozilla's roots.
//!
//! ```text
//! buffer:  | GET .. |                      the request, forgotten once it is sent
//!          | HTTP/1.1 200 OK .. | body ..  the head, read and then pushed out by
//!          | body ............. |          the body, whose chunks close up as they come
//! ```
//!
//! Three ways to say where a body ends are understood: by length, in chunks, by closing. What does
//! not fit the buffer is refused as soon as it is known, from the head if the head says so; a
//! gigabyte is not read to be thrown away. A redirect is handed to the caller, who counts them and
//! knows which addresses may be dialled. *Time is the caller's to bound*: every await here may be
//! dropped, and the connection is closed with it.
//!
//! A plain connection allocates next to nothing. One with TLS takes up to 52 KiB of heap while it
//! lasts, for the records of 64 KiB of body, and the first leaves 18 KiB of roots and settings
//! behind (both measured): a line of the profile.
//!
//! Bodies that fit no buffer come in parts, over [`stream`]; [`follow`] goes after redirects.
//!
//! Journey 3: [`tracker`](super::tracker) writes the target of a [`Get`] and reads the body of
//! [`Reply::Content`].

pub mod follow;
pub mod stream;

use async_io::Async;
use core::fmt;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::string::String;

/// What to ask for. All parts are as the crate `url` gives them: no blanks, no line breaks.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// Whether to speak TLS (`https`).
    pub tls: bool,
    /// The server's name or address, without brackets: what its certificate is checked against.
    pub host: &'a str,
    /// Name and port as they stand in the URL, for `Host`.
    pub authority: &'a str,
    /// Path and query, percent-encoded.
    pub target: &'a [u8],
}

/// What is sent along with a POST.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Of which kind it is.
    pub content_type: &'a str,
    /// One header more, name and value: what a SOAP server goes by.
    pub header: (&'a str, &'a str),
    /// All of it.
    pub body: &'a [u8],
}

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'b> {
    /// A body, whatever the status says of it.
    Content {
        /// The status code.
        status: u16,
        /// All of the body.
        body: &'b [u8],
    },
    /// Look elsewhere (301, 302, 303, 307, 308).
    Redirect {
        /// Where, as the server wrote it; at most [`HEAD_BYTES_MAX`] long.
        location: String,
    },
}

/// Why there is no reply.
#[derive(Debug)]
pub enum HttpError {
    /// No connection came about.
    Unreachable(io::Error),
    /// No secure connection came about.
    Tls(io::Error),
    /// The URL asks for TLS and this program was built without.
    TlsNotBuilt,
    /// The connection broke.
    Broken(io::Error),
    /// The server hung up in the middle.
    CutShort,
    /// The head or the body is longer than so many bytes.
    TooLong(usize),
    /// The answer is no HTTP that we understand; what is wrong, as a sentence's end.
    Foreign(&'static str),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            HttpError::Tls(error) => write!(
                f,
                "no secure connection: {error}; if its certificate is called expired or not yet \
                 valid, check this machine's clock"
            ),
            HttpError::TlsNotBuilt => f.write_str(
                "https is not in this build: use the tracker's http or udp address, or a build \
                 with the feature `tls`",
            ),
            HttpError::Broken(error) => write!(f, "the connection broke: {error}"),
            HttpError::CutShort => f.write_str("hung up in the middle of its answer"),
            HttpError::TooLong(bytes_max) => {
                write!(f, "its answer is longer than the {bytes_max} bytes we take")
            }
            HttpError::Foreign(what) => write!(f, "does not answer in HTTP: {what}"),
        }
    }
}

impl core::error::Error for HttpError {}

/// Asks the server at `address`; the reply's body stands at the front of `buffer`, which also
/// takes the request and the head: 16 KiB at least.
pub async fn get<'b>(
    address: SocketAddr,
    get: &Get<'_>,
    buffer: &'b mut [u8],
) -> Result<Reply<'b>, HttpError> {
    match get.tls {
        false => exchange(&mut connect(address).await?, get, buffer).await,
        #[cfg(feature = "tls")]
        true => {
            let config = tls::public_roots()?;
            let mut stream = tls::secure(connect(address).await?, get.host, config).await?;
            exchange(&mut stream, get, buffer).await
        }
        #[cfg(not(feature = "tls"))]
        true => Err(HttpError::TlsNotBuilt),
    }
}

/// Sends something to the server at `address`, in the open; else as [`get`]. The buffer also takes
/// what is sent.
pub async fn post<'b>(
    address: SocketAddr,
    get: &Get<'_>,
    post: &Post<'_>,
    buffer: &'b mut [u8],
) -> Result<Reply<'b>, HttpError> {
    let request_bytes = write_post(get, post, buffer)?;
    converse(&mut connect(address).await?, request_bytes, buffer).await
}

async fn connect(address: SocketAddr) -> Result<Async<TcpStream>, HttpError> {
    Async::<TcpStream>::connect(address).await.map_err(HttpError::Unreachable)
}

/// One request and its reply over whatever carries them.
async fn exchange<'b, S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    get: &Get<'_>,
    buffer: &'b mut [u8],
) -> Result<Reply<'b>, HttpError> {
    let request_bytes = write_request(get, format_args!("Connection: close\r\n"), buffer)?;
    converse(stream, request_bytes, buffer).await
}

/// Sends what stands at the front of `buffer` and reads what comes back.
async fn converse<'b, S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request_bytes: usize,
    buffer: &'b mut [u8],
) -> Result<Reply<'b>, HttpError> {
    stream.write_all(&buffer[..request_bytes]).await.map_err(HttpError::Broken)?;
    stream.flush().await.map_err(HttpError::Broken)?;

    let mut inbox = Inbox { stream, buffer, filled: 0 };
    let head = inbox.read_head().await?;
    if let Some(location) = head.location {
        return Ok(Reply::Redirect { location });
    }
    let body_bytes = match head.framing {
        Framing::Length(bytes) => inbox.read_length(bytes).await?,
        Framing::Chunked => inbox.read_chunks().await?,
        Framing::UntilClosed => inbox.read_until_closed().await?,
    };
    Ok(Reply::Content { status: head.status, body: &inbox.buffer[..body_bytes] })
}

/// Writes a request to the front of `buffer` and gives its length. `lines` are headers beside those
/// that every request has.
fn write_request(
    get: &Get<'_>,
    lines: fmt::Arguments<'_>,
    buffer: &mut [u8],
) -> Result<usize, HttpError> {
    write(buffer, |rest| {
        write_head("GET", get, rest)?;
        write!(rest, "{lines}\r\n")
    })
}

/// The same with something to send along.
fn write_post(get: &Get<'_>, post: &Post<'_>, buffer: &mut [u8]) -> Result<usize, HttpError> {
    write(buffer, |rest| {
        write_head("POST", get, rest)?;
        let Post { content_type, header: (name, value), body } = post;
        write!(rest, "Connection: close\r\nContent-Type: {content_type}\r\n{name}: {value}\r\n")?;
        write!(rest, "Content-Length: {}\r\n\r\n", body.len())?;
        rest.write_all(body)
    })
}

/// Gives how many bytes of `buffer` were written.
fn write(
    buffer: &mut [u8],
    request: impl FnOnce(&mut &mut [u8]) -> io::Result<()>,
) -> Result<usize, HttpError> {
    let room = buffer.len();
    let mut rest = &mut *buffer;
    request(&mut rest).map_err(|_| HttpError::TooLong(room))?;
    Ok(room - rest.len())
}

/// Writes the lines that all requests begin with.
fn write_head(method: &str, get: &Get<'_>, rest: &mut &mut [u8]) -> io::Result<()> {
    write!(rest, "{method} ")?;
    rest.write_all(get.target)?;
    // `identity`: a body that is compressed may be any size once it is not.
    write!(
        rest,
        " HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\n",
        get.authority
    )
}

/// What a head says that matters.
struct Head {
    status: u16,
    framing: Framing,
    location: Option<String>,
    /// Which part of the whole the body is (`Content-Range`).
    part: Option<Part>,
    /// Another request may follow on the same connection.
    keep: bool,
    /// The head's own length.
    bytes: usize,
}

/// A part of something longer (RFC 9110, section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
    /// Length of the whole, if it is known.
    pub whole: Option<u64>,
}

/// Parses `bytes 0-99/1000`; one of which no byte can be given (`*`) is none.
fn parse_part(value: &str) -> Option<Part> {
    let (range, whole) = value.strip_prefix("bytes ")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(Part { first, last, whole: whole.parse().ok() })
}

/// How to tell where a body ends (RFC 9112, section 6.3).
enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// Parses the head at the front of `bytes`; `None` until all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::Foreign("too many headers")),
        Err(_) => return Err(HttpError::Foreign("its first lines are something else")),
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head {
        status,
        framing: Framing::UntilClosed,
        location: None,
        part: None,
        keep: false,
        bytes,
    };
    head.keep = response.version == Some(1);
    let moved = matches!(status, 301 | 302 | 303 | 307 | 308);
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("location") && moved {
            let location = core::str::from_utf8(value);
            let location = location.map_err(|_| HttpError::Foreign("its redirect is no text"))?;
            head.location = Some(location.into());
        } else if is("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Foreign("a transfer encoding other than chunked"));
            }
            head.framing = Framing::Chunked;
        } else if is("content-length") && !matches!(head.framing, Framing::Chunked) {
            let length = core::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            let length = length.ok_or(HttpError::Foreign("a content length that is no number"))?;
            head.framing = Framing::Length(length);
        } else if is("content-range") {
            head.part = core::str::from_utf8(value).ok().and_then(parse_part);
        } else if is("connection") {
            head.keep &= !value.eq_ignore_ascii_case(b"close");
        } else if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") {
            return Err(HttpError::Foreign("a compressed body, which nobody asked for"));
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        head.framing = Framing::Length(0);
    }
    Ok(Some(head))
}

/// What has come and is not used up, at the front of the buffer.
struct Inbox<'b, 's, S> {
    stream: &'s mut S,
    buffer: &'b mut [u8],
    filled: usize,
}

impl<S: AsyncRead + Unpin> Inbox<'_, '_, S> {
    /// Reads up to the end of the final head and drops it, so that the body stands in front.
    async fn read_head(&mut self) -> Result<Head, HttpError> {
        let mut interim_count = 0;
        loop {
            match parse_head(&self.buffer[..self.filled])? {
                Some(head) => {
                    self.discard(0, head.bytes);
                    // A server may say that it is still there before it answers (RFC 9110, 15.2).
                    if !matches!(head.status, 100..200) {
                        return Ok(head);
                    }
                    interim_count += 1;
                    if interim_count > INTERIM_MAX {
                        return Err(HttpError::Foreign("it promises an answer again and again"));
                    }
                }
                None if self.filled >= HEAD_BYTES_MAX => {
                    return Err(HttpError::TooLong(HEAD_BYTES_MAX));
                }
                None => self.fill_more().await?,
            }
        }
    }

    /// Reads a body of known length.
    async fn read_length(&mut self, bytes: u64) -> Result<usize, HttpError> {
        let length = usize::try_from(bytes).ok().filter(|length| *length <= self.buffer.len());
        let length = length.ok_or(HttpError::TooLong(self.buffer.len()))?;
        while self.filled < length {
            self.fill_more().await?;
        }
        Ok(length)
    }

    /// Reads a body that ends with the connection.
    async fn read_until_closed(&mut self) -> Result<usize, HttpError> {
        while self.fill().await? > 0 {}
        Ok(self.filled)
    }

    /// Reads chunks and closes them up: `buffer[..body]` is content, what follows is still to be
    /// told apart. What comes after the last chunk (trailers) is not waited for.
    async fn read_chunks(&mut self) -> Result<usize, HttpError> {
        let mut body = 0;
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer[body..self.filled]) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.fill_more().await?,
                    Err(_) => return Err(HttpError::Foreign("a chunk without its size")),
                }
            };
            self.discard(body, line);
            if size == 0 {
                return Ok(body);
            }
            let end = usize::try_from(size).ok().and_then(|size| body.checked_add(size));
            let end = end.filter(|end| *end < self.buffer.len());
            let end = end.ok_or(HttpError::TooLong(self.buffer.len()))?;
            while self.filled < end + CHUNK_END.len() {
                self.fill_more().await?;
            }
            if !self.buffer[end..].starts_with(CHUNK_END) {
                return Err(HttpError::Foreign("a chunk longer than it says"));
            }
            self.discard(end, CHUNK_END.len());
            body = end;
        }
    }

    /// Takes `bytes` out of what has come, from `at` on.
    fn discard(&mut self, at: usize, bytes: usize) {
        self.buffer.copy_within(at + bytes..self.filled, at);
        self.filled -= bytes;
    }

    /// Waits for more where the end would be too early.
    async fn fill_more(&mut self) -> Result<(), HttpError> {
        match self.fill().await? {
            0 => Err(HttpError::CutShort),
            _ => Ok(()),
        }
    }

    /// Waits for more and gives how much it was, 0 at the end.
    async fn fill(&mut self) -> Result<usize, HttpError> {
        let room = &mut self.buffer[self.filled..];
        if room.is_empty() {
            return Err(HttpError::TooLong(self.buffer.len()));
        }
        let bytes = match self.stream.read(room).await {
            // Many servers leave TLS without a goodbye. Where the end matters it is known by
            // length or chunk, and bencoding ends by itself.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(HttpError::Broken)?,
        };
        self.filled += bytes;
        Ok(bytes)
    }
}

/// TLS by rustls and `ring`, trusting the roots Mozilla trusts.
#[cfg(feature = "tls")]
mod tls {
    use super::HttpError;
    use futures_lite::{AsyncRead, AsyncWrite};
    use futures_rustls::TlsConnector;
    use futures_rustls::client::TlsStream;
    use futures_rustls::pki_types::ServerName;
    use futures_rustls::rustls::client::Resumption;
    use futures_rustls::rustls::crypto::ring;
    use futures_rustls::rustls::{ClientConfig, RootCertStore};
    use std::io;
    use std::string::String;
    use std::sync::{Arc, OnceLock};

    /// The configuration of all our connections, made when the first one needs it.
    pub fn public_roots() -> Result<Arc<ClientConfig>, HttpError> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = CONFIG.get() {
            return Ok(config.clone());
        }
        let made = trusting(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())?;
        Ok(CONFIG.get_or_init(|| made).clone())
    }

    /// A configuration that trusts `roots`.
    pub fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, HttpError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpError::Tls(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Announces to one tracker are half an hour apart: tickets would be memory for nothing.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Shakes hands over `stream` with who can prove to be `host`.
    pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<S>, HttpError> {
        let name = ServerName::try_from(String::from(host));
        let name = name.map_err(|error| HttpError::Tls(io::Error::other(error)))?;
        TlsConnector::from(config).connect(name, stream).await.map_err(HttpError::Tls)
    }
}

/// What we call ourselves to servers.
const USER_AGENT: &str = concat!("perennial/", env!("CARGO_PKG_VERSION"));

/// The longest head: what servers themselves take of others.
pub const HEAD_BYTES_MAX: usize = 8 * 1_024;

/// Headers in a head at most; trackers send about ten.
const HEADERS_MAX: usize = 64;

/// Interim heads (1xx) before the final one at most.
const INTERIM_MAX: u32 = 4;

/// What follows the bytes of a chunk (RFC 9112, section 7.1).
const CHUNK_END: &[u8] = b"\r\n";

#[cfg(test)]
mod tests;
