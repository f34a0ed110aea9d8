//! A client for one HTTP/1.1 GET: a small answer, whole, in a buffer the caller lends.
//!
//! One connection, one request, one answer, and the connection is closed. That is all trackers and
//! feeds need of HTTP, and it leaves out what makes a client large: pools, cookies, caches,
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
//! Journey 3: [`tracker`](super::tracker) writes the target of a [`Get`] and reads the body of
//! [`Reply::Content`].

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

async fn connect(address: SocketAddr) -> Result<Async<TcpStream>, HttpError> {
    Async::<TcpStream>::connect(address).await.map_err(HttpError::Unreachable)
}

/// One request and its reply over whatever carries them.
async fn exchange<'b, S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    get: &Get<'_>,
    buffer: &'b mut [u8],
) -> Result<Reply<'b>, HttpError> {
    let request_bytes = write_request(get, buffer)?;
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

/// Writes the request to the front of `buffer` and gives its length.
fn write_request(get: &Get<'_>, buffer: &mut [u8]) -> Result<usize, HttpError> {
    let room = buffer.len();
    let mut rest = &mut *buffer;
    let mut write = || {
        rest.write_all(b"GET ")?;
        rest.write_all(get.target)?;
        // `identity`: a body that is compressed may be any size once it is not.
        write!(
            rest,
            " HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\
             Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
            get.authority
        )?;
        Ok(room - rest.len())
    };
    write().map_err(|_: io::Error| HttpError::TooLong(room))
}

/// What a head says that matters.
struct Head {
    status: u16,
    framing: Framing,
    location: Option<String>,
    /// The head's own length.
    bytes: usize,
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
    let mut head = Head { status, framing: Framing::UntilClosed, location: None, bytes };
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
mod tests {
    use super::*;
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use futures_lite::future::block_on;
    use std::format;
    use std::vec;
    use std::vec::Vec;

    const GET: Get<'static> =
        Get { tls: false, host: "t.example", authority: "t.example:80", target: b"/a?b=%00" };

    /// A server that says its part whatever it is asked, in segments, and hangs up.
    struct Scripted<'a> {
        answer: &'a [u8],
        segment_bytes: usize,
        asked: Vec<u8>,
    }

    impl AsyncRead for Scripted<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let bytes = self.segment_bytes.min(room.len()).min(self.answer.len());
            let (now, later) = self.answer.split_at(bytes);
            room[..bytes].copy_from_slice(now);
            self.answer = later;
            Poll::Ready(Ok(bytes))
        }
    }

    impl AsyncWrite for Scripted<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.asked.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// The outcome of one exchange as text, the same for every length of segments.
    fn outcome(answer: &[u8], buffer_bytes: usize) -> String {
        let outcomes = [1, 2, 7, usize::MAX].map(|segment_bytes| {
            let mut stream = Scripted { answer, segment_bytes, asked: Vec::new() };
            let mut buffer = vec![0xee; buffer_bytes];
            match block_on(exchange(&mut stream, &GET, &mut buffer)) {
                Ok(Reply::Content { status, body }) => {
                    format!("{status} {}", String::from_utf8_lossy(body))
                }
                Ok(Reply::Redirect { location }) => format!("to {location}"),
                Err(error) => format!("{error}"),
            }
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        outcomes[0].clone()
    }

    #[test]
    fn the_request_names_host_and_program_and_asks_for_no_compression() {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        let mut stream = Scripted { answer, segment_bytes: 1, asked: Vec::new() };
        block_on(exchange(&mut stream, &GET, &mut [0; 512])).unwrap();
        let asked = String::from_utf8(stream.asked).unwrap();
        assert!(asked.starts_with("GET /a?b=%00 HTTP/1.1\r\nHost: t.example:80\r\n"), "{asked}");
        assert!(asked.contains("\r\nUser-Agent: perennial/"));
        assert!(asked.contains("\r\nAccept-Encoding: identity\r\nConnection: close\r\n"));
        assert!(asked.ends_with("\r\n\r\n"));
    }

    #[test]
    fn bodies_end_by_length_by_chunks_and_by_closing() {
        let bodies = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", "200 abc"),
            ("HTTP/1.0 404 No\r\n\r\nabcd", "404 abcd"),
            (
                "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\nContent-Length: 1\r\n\r\n\
                 3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nTrailer: x\r\n\r\n",
                "200 abcd",
            ),
            ("HTTP/1.1 103 Hm\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nab", "200 ab"),
            ("HTTP/1.1 304 Old\r\nContent-Length: 9\r\n\r\n", "304 "),
        ];
        for (answer, expected) in bodies {
            assert_eq!(outcome(answer.as_bytes(), 300), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_redirect_is_handed_on_without_its_body() {
        let moved = "HTTP/1.1 302 Found\r\nLocation:  /b?c \r\nContent-Length: 9\r\n\r\n";
        assert_eq!(outcome(moved.as_bytes(), 300), "to /b?c");
        let nowhere = "HTTP/1.1 302 Found\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(outcome(nowhere.as_bytes(), 300), "302 x");
    }

    #[test]
    fn what_does_not_fit_the_buffer_is_refused() {
        let full = "x".repeat(300);
        let bodies = [
            "Content-Length: 301\r\n\r\n".into(),
            "Content-Length: 18446744073709551615\r\n\r\n".into(),
            "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".into(),
            format!("Transfer-Encoding: chunked\r\n\r\n12c\r\n{full}\r\n0\r\n\r\n"),
            format!("Transfer-Encoding: chunked\r\n\r\n1;{full}{full}"),
            format!("\r\n{full}"),
            format!("X: {full}\r\n\r\n"),
        ];
        for body in bodies {
            let outcome = outcome(format!("HTTP/1.1 200 OK\r\n{body}").as_bytes(), 300);
            assert_eq!(outcome, "its answer is longer than the 300 bytes we take", "{body}");
        }
        let exact = format!("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{full}");
        assert_eq!(outcome(exact.as_bytes(), 300), format!("200 {full}"));
        let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert!(outcome(endless_head.as_bytes(), 16_384).contains("8192 bytes"));
    }

    #[test]
    fn an_answer_cut_short_is_told_at_every_byte() {
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ];
        for answer in answers {
            for length in 0..answer.len() {
                let outcome = outcome(&answer.as_bytes()[..length], 300);
                assert_eq!(outcome, "hung up in the middle of its answer", "after {length} bytes");
            }
            assert_eq!(outcome(answer.as_bytes(), 300), "200 abc");
        }
    }

    #[test]
    fn what_is_not_http_is_told_what_it_is() {
        let wrong = [
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "first lines"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "other than chunked"),
            ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", "compressed"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "its size"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd", "longer than"),
            (&"HTTP/1.1 100 Hm\r\n\r\n".repeat(9), "again and again"),
            (&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(65)), "too many headers"),
        ];
        for (answer, what) in wrong {
            let outcome = outcome(answer.as_bytes(), 1_024);
            assert!(outcome.contains(what), "{answer:?}: {outcome}");
        }
    }

    /// A server with a certificate of its own making, talked to over a pair of sockets.
    #[cfg(feature = "tls")]
    mod over_tls {
        use super::*;
        use futures_lite::future::zip;
        use futures_rustls::TlsAcceptor;
        use futures_rustls::pki_types::pem::PemObject;
        use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
        use futures_rustls::rustls::crypto::ring;
        use futures_rustls::rustls::{RootCertStore, ServerConfig};
        use std::os::unix::net::UnixStream;
        use std::sync::Arc;

        fn certificate() -> CertificateDer<'static> {
            CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()
        }

        /// Asks the server for `host`, trusting its certificate or Mozilla's roots only.
        fn outcome(host: &str, trusted: bool) -> Result<String, HttpError> {
            let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate()], key)
                .unwrap();
            let (ours, theirs) = Async::<UnixStream>::pair().unwrap();
            let serve = async move {
                let mut stream = TlsAcceptor::from(Arc::new(config)).accept(theirs).await?;
                stream.read(&mut [0; 1_024]).await?;
                // No length and no goodbye: the end of the connection is the end of the body.
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsecret").await?;
                stream.flush().await
            };
            let ask = async {
                let mut roots = RootCertStore::empty();
                roots.add(certificate()).unwrap();
                let config = if trusted { tls::trusting(roots)? } else { tls::public_roots()? };
                let mut stream = tls::secure(ours, host, config).await?;
                let mut buffer = [0; 1_024];
                match exchange(&mut stream, &GET, &mut buffer).await? {
                    Reply::Content { body, .. } => Ok(String::from_utf8_lossy(body).into_owned()),
                    Reply::Redirect { location } => Ok(location),
                }
            };
            block_on(zip(ask, serve)).0
        }

        #[test]
        fn a_trusted_server_is_heard() {
            assert_eq!(outcome("localhost", true).unwrap(), "secret");
        }

        #[test]
        fn a_stranger_or_another_name_is_not_spoken_to() {
            for (host, trusted) in [("localhost", false), ("example.org", true), ("10.0.0.1", true)]
            {
                let error = outcome(host, trusted).unwrap_err();
                assert!(matches!(error, HttpError::Tls(_)), "{host}: {error}");
                assert!(format!("{error}").contains("certificate"), "{host}: {error}");
            }
        }

        /// For `localhost`, signed by itself, good for a hundred years.
        const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBaDCCAQ6gAwIBAgIBATAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5wZXJlbm5p
YWwgdGVzdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowGTEXMBUG
A1UEAwwOcGVyZW5uaWFsIHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQf
xqwTDW3ncfUYJNpyV9ts6UnQ9FDGf06v7xMsJiw/9Re/bi/QcRFkGidASX+FZqbF
WxkWdY+Zng+uT9lTyVi4o0UwQzAUBgNVHREEDTALgglsb2NhbGhvc3QwDAYDVR0T
AQH/BAIwADAdBgNVHQ4EFgQUC3hbwrDhVLaOnzR3aqCPTQS1rfAwCgYIKoZIzj0E
AwIDSAAwRQIhAOl3oXYx+SLXmlavILpyt1koYMWQS8OQwJobJhSeDGa+AiBydTXG
lUklEybeQuuYVVQ4BMEXf7llGBtGXh8R6dnZcQ==
-----END CERTIFICATE-----
";

        /// The key to it, which opens nothing else.
        const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDbpqdOD4XAP0YWHK
TfrlMZ51FGA5QNpt1oTLolwVgwKhRANCAAQfxqwTDW3ncfUYJNpyV9ts6UnQ9FDG
f06v7xMsJiw/9Re/bi/QcRFkGidASX+FZqbFWxkWdY+Zng+uT9lTyVi4
-----END PRIVATE KEY-----
";
    }
}
