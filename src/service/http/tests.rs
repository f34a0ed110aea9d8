//! Answers of every shape, whole and cut short.

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
pub struct Scripted<'a> {
    answer: &'a [u8],
    segment_bytes: usize,
    pub asked: Vec<u8>,
}

impl Scripted<'_> {
    pub fn new(answer: &[u8], segment_bytes: usize) -> Scripted<'_> {
        Scripted { answer, segment_bytes, asked: Vec::new() }
    }
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
        let mut stream = Scripted::new(answer, segment_bytes);
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
    let mut stream = Scripted::new(answer, 1);
    block_on(exchange(&mut stream, &GET, &mut [0; 512])).unwrap();
    let asked = String::from_utf8(stream.asked).unwrap();
    assert!(asked.starts_with("GET /a?b=%00 HTTP/1.1\r\nHost: t.example:80\r\n"), "{asked}");
    assert!(asked.contains("\r\nUser-Agent: perennial/"));
    assert!(asked.contains("\r\nAccept-Encoding: identity\r\nConnection: close\r\n"));
    assert!(asked.ends_with("\r\n\r\n"));
}

#[test]
fn what_is_posted_follows_its_length() {
    let header = ("SOAPAction", "\"urn:x#Do\"");
    let post = Post { content_type: "text/xml", header, body: b"<a/>" };
    let mut stream = Scripted::new(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nab", 1);
    let mut buffer = [0; 512];
    let request_bytes = write_post(&GET, &post, &mut buffer).unwrap();
    let reply = block_on(converse(&mut stream, request_bytes, &mut buffer)).unwrap();
    assert_eq!(reply, Reply::Content { status: 500, body: b"ab" });
    let asked = String::from_utf8(stream.asked).unwrap();
    assert!(asked.starts_with("POST /a?b=%00 HTTP/1.1\r\nHost: t.example:80\r\n"), "{asked}");
    let tail = "\r\nConnection: close\r\nContent-Type: text/xml\r\nSOAPAction: \"urn:x#Do\"\r\n\
                Content-Length: 4\r\n\r\n<a/>";
    assert!(asked.ends_with(tail), "{asked}");
    let error = write_post(&GET, &post, &mut [0; 200]).unwrap_err();
    assert!(matches!(error, HttpError::TooLong(200)), "{error}");
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
        for (host, trusted) in [("localhost", false), ("example.org", true), ("10.0.0.1", true)] {
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
