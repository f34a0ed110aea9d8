//! A connection that is asked for one thing after the other, whose bodies come in parts.
//!
//! Where [`get`](super::get) takes a small answer whole, a [`Client`] hands a body out as it
//! arrives, into whatever buffer the caller has at that moment: a `.torrent` on its way to a file,
//! a range of content on its way to a lane. Nothing of the body is kept here but what came along
//! with the head.
//!
//! ```text
//! connect -> ask (range) -> Answer, then read .. read, 0 at the end -> ask (next range) ..
//! ```
//!
//! A caller that has to share its buffers takes them along only when there is something to read:
//! [`Client::poll_read`] needs none while it waits.
//!
//! # When full
//!
//! A body longer than the caller said is refused, from the head where that tells. *Time is the
//! caller's to bound*, as everywhere in [`http`](super).

use super::{Framing, Get, HEAD_BYTES_MAX, HttpError, Inbox, Part, write_request};
use async_io::Async;
use core::future::poll_fn;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use std::boxed::Box;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::string::String;

/// One connection at a time, and the buffer for its heads. See the module.
pub struct Client<S = Carrier> {
    stream: Option<S>,
    /// Requests and heads, and what of a body came along with its head.
    buffer: Box<[u8]>,
    filled: usize,
    left: Left,
    /// Bytes of the body that have been handed out, and that may be.
    read_bytes: u64,
    bytes_max: u64,
    /// The server says that another request may follow.
    keep: bool,
}

/// What a server said before the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Where to look instead, as the server wrote it, if it says so (301, 302, 303, 307, 308).
    pub location: Option<String>,
    /// Length of the body, if it is known.
    pub length: Option<u64>,
    /// Which part of the whole the body is.
    pub part: Option<Part>,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of a chunk, then the line break behind it.
    Chunk(u64),
    /// The line before a chunk.
    Size,
    /// Bytes until the connection is closed.
    UntilClosed,
}

impl Default for Client {
    fn default() -> Client {
        Client::over(None)
    }
}

impl Client {
    /// Connects to the server at `address`, for requests like `get`. Whatever there was before is
    /// closed. `window_bytes` bounds what the kernel takes in ahead of us.
    pub async fn connect(
        &mut self,
        address: SocketAddr,
        get: &Get<'_>,
        window_bytes: Option<usize>,
    ) -> Result<(), HttpError> {
        self.close();
        let stream = super::connect(address).await?;
        if let Some(bytes) = window_bytes {
            let socket = socket2::SockRef::from(stream.get_ref());
            socket.set_recv_buffer_size(bytes).map_err(HttpError::Unreachable)?;
        }
        self.stream = Some(Carrier::over(stream, get).await?);
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client over what is connected already.
    pub fn over(stream: Option<S>) -> Client<S> {
        let buffer = std::vec![0; BUFFER_BYTES].into_boxed_slice();
        Client {
            stream,
            buffer,
            filled: 0,
            left: Left::Bytes(0),
            read_bytes: 0,
            bytes_max: 0,
            keep: true,
        }
    }

    /// Whether the connection takes another request: there is one, and it has said all it was
    /// asked for and nothing else.
    pub fn is_free(&self) -> bool {
        self.stream.is_some() && self.keep && self.left == Left::Bytes(0) && self.filled == 0
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.stream = None;
        (self.filled, self.left, self.keep) = (0, Left::Bytes(0), true);
    }

    /// Asks for `get`, or for the bytes of it in `range`, and reads the answer's head. The body is
    /// to be [read](Client::read) and may be so many bytes long.
    pub async fn ask(
        &mut self,
        get: &Get<'_>,
        range: Option<Range<u64>>,
        bytes_max: u64,
    ) -> Result<Answer, HttpError> {
        let Some(stream) = &mut self.stream else {
            return Err(HttpError::Broken(io::ErrorKind::NotConnected.into()));
        };
        // Until the answer is there, and should nobody wait for it, nothing else can be asked for.
        (self.filled, self.keep) = (0, false);
        let bytes = match range {
            None => write_request(get, format_args!(""), &mut self.buffer)?,
            Some(Range { start, end }) => {
                let last = end.saturating_sub(1);
                let lines = format_args!("Range: bytes={start}-{last}\r\n");
                write_request(get, lines, &mut self.buffer)?
            }
        };
        stream.write_all(&self.buffer[..bytes]).await.map_err(HttpError::Broken)?;
        stream.flush().await.map_err(HttpError::Broken)?;

        let mut inbox = Inbox { stream, buffer: &mut self.buffer, filled: 0 };
        let head = inbox.read_head().await?;
        (self.filled, self.keep) = (inbox.filled, head.keep);
        (self.read_bytes, self.bytes_max) = (0, bytes_max);
        let length = match head.framing {
            Framing::Length(bytes) => {
                self.left = Left::Bytes(bytes);
                Some(bytes)
            }
            Framing::Chunked => {
                self.left = Left::Size;
                None
            }
            Framing::UntilClosed => {
                (self.left, self.keep) = (Left::UntilClosed, false);
                None
            }
        };
        let answer =
            Answer { status: head.status, location: head.location, length, part: head.part };
        let is_body = answer.location.is_none() && matches!(answer.status, 200..300);
        if is_body && answer.length.is_some_and(|length| length > bytes_max) {
            return Err(too_long(bytes_max));
        }
        Ok(answer)
    }

    /// Waits for the next part of the body; 0 at its end.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, HttpError> {
        poll_fn(|cx| self.poll_read(cx, into)).await
    }

    /// Reads what has come of the body; 0 at its end. Nothing of `into` is touched while nothing
    /// has come.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, HttpError>> {
        loop {
            let bytes = match self.left {
                Left::Bytes(0) => return Poll::Ready(Ok(0)),
                Left::Size => {
                    ready!(self.poll_size(cx))?;
                    continue;
                }
                Left::Chunk(0) => {
                    ready!(self.poll_chunk_end(cx))?;
                    self.left = Left::Size;
                    continue;
                }
                Left::Bytes(bytes) | Left::Chunk(bytes) => bytes,
                Left::UntilClosed => u64::MAX,
            };
            let most = bytes.min(into.len() as u64) as usize;
            let read = ready!(self.poll_take(cx, &mut into[..most]))?;
            self.read_bytes += read as u64;
            if self.read_bytes > self.bytes_max {
                return Poll::Ready(Err(too_long(self.bytes_max)));
            }
            match &mut self.left {
                Left::Bytes(left) | Left::Chunk(left) => *left -= read as u64,
                Left::UntilClosed if read == 0 => self.left = Left::Bytes(0),
                _ => {}
            }
            return Poll::Ready(Ok(read));
        }
    }

    /// Takes bytes of the body, first those that came with the head. 0 only where the end is not
    /// too early.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, HttpError>> {
        if self.filled > 0 {
            let taken = self.filled.min(into.len());
            into[..taken].copy_from_slice(&self.buffer[..taken]);
            self.discard(taken);
            return Poll::Ready(Ok(taken));
        }
        let read = ready!(poll_stream(&mut self.stream, cx, into))?;
        let is_early = read == 0 && !into.is_empty() && self.left != Left::UntilClosed;
        Poll::Ready(if is_early { Err(HttpError::CutShort) } else { Ok(read) })
    }

    /// Reads the line before a chunk. What follows the last one is not waited for, so that
    /// connection is not used again.
    fn poll_size(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            match httparse::parse_chunk_size(&self.buffer[..self.filled]) {
                Ok(httparse::Status::Complete((line, 0))) => {
                    self.discard(line);
                    (self.left, self.keep) = (Left::Bytes(0), false);
                    return Poll::Ready(Ok(()));
                }
                Ok(httparse::Status::Complete((line, size))) => {
                    self.discard(line);
                    self.left = Left::Chunk(size);
                    return Poll::Ready(Ok(()));
                }
                Ok(httparse::Status::Partial) => ready!(self.poll_more(cx))?,
                Err(_) => {
                    return Poll::Ready(Err(HttpError::Foreign("a chunk without its size")));
                }
            }
        }
    }

    fn poll_chunk_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        while self.filled < super::CHUNK_END.len() {
            ready!(self.poll_more(cx))?;
        }
        if !self.buffer.starts_with(super::CHUNK_END) {
            return Poll::Ready(Err(HttpError::Foreign("a chunk longer than it says")));
        }
        self.discard(super::CHUNK_END.len());
        Poll::Ready(Ok(()))
    }

    /// Reads more into the buffer, where the end would be too early.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        let room = &mut self.buffer[self.filled..];
        if room.is_empty() {
            return Poll::Ready(Err(HttpError::TooLong(BUFFER_BYTES)));
        }
        let read = ready!(poll_stream(&mut self.stream, cx, room))?;
        self.filled += read;
        Poll::Ready(if read == 0 { Err(HttpError::CutShort) } else { Ok(()) })
    }

    fn discard(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

fn poll_stream<S: AsyncRead + Unpin>(
    stream: &mut Option<S>,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<Result<usize, HttpError>> {
    let Some(stream) = stream else { return Poll::Ready(Err(HttpError::CutShort)) };
    match ready!(Pin::new(stream).poll_read(cx, into)) {
        // As in `Inbox::fill`.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
        read => Poll::Ready(read.map_err(HttpError::Broken)),
    }
}

fn too_long(bytes_max: u64) -> HttpError {
    HttpError::TooLong(usize::try_from(bytes_max).unwrap_or(usize::MAX))
}

/// What carries requests and answers.
pub enum Carrier {
    /// In the open.
    Plain(Async<TcpStream>),
    /// Over TLS.
    #[cfg(feature = "tls")]
    Secure(Box<futures_rustls::client::TlsStream<Async<TcpStream>>>),
}

impl Carrier {
    #[cfg(feature = "tls")]
    async fn over(stream: Async<TcpStream>, get: &Get<'_>) -> Result<Carrier, HttpError> {
        if !get.tls {
            return Ok(Carrier::Plain(stream));
        }
        let config = super::tls::public_roots()?;
        let secure = super::tls::secure(stream, get.host, config).await?;
        Ok(Carrier::Secure(Box::new(secure)))
    }

    #[cfg(not(feature = "tls"))]
    async fn over(stream: Async<TcpStream>, get: &Get<'_>) -> Result<Carrier, HttpError> {
        if get.tls { Err(HttpError::TlsNotBuilt) } else { Ok(Carrier::Plain(stream)) }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            #[cfg(feature = "tls")]
            Carrier::Secure(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Carrier::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Carrier::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Plain(stream) => Pin::new(stream).poll_close(cx),
            #[cfg(feature = "tls")]
            Carrier::Secure(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

/// The longest head, and as much behind it.
pub const BUFFER_BYTES: usize = 2 * HEAD_BYTES_MAX;

#[cfg(test)]
mod tests;
