//! One connection: requests in, one after the other, and what is answered to each.

use super::head::{self, HEAD_BYTES_MAX, Head, Malformed, Method};
use super::reply::{Body, Reply, Status};
use super::{Place, Web};
use async_io::Async;
use rustix::net::sockopt::{set_tcp_cork, set_tcp_nodelay};
use smol::future::FutureExt as _;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::boxed::Box;
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// A connection, and what has come of it and was not looked at.
pub struct Connection {
    pub(super) stream: Arc<Async<TcpStream>>,
    pub(super) address: IpAddr,
    /// The last free places are the owner's.
    pub(super) is_crowded: bool,
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes of the body that have not been read.
    left: u64,
    /// Whoever sends the body waits for a word.
    expects: bool,
}

impl Web<'_, '_, '_> {
    /// Answers one connection until it is over.
    pub async fn attend(&self, stream: Async<TcpStream>, address: IpAddr, is_crowded: bool) {
        // What is said is all that there is to say: nothing waits for more of it.
        let _ = set_tcp_nodelay(&stream, true);
        let mut connection = Connection {
            stream: Arc::new(stream),
            address,
            is_crowded,
            buffer: std::vec![0; HEAD_BYTES_MAX].into_boxed_slice(),
            filled: 0,
            left: 0,
            expects: false,
        };
        loop {
            match self.one_request(&mut connection).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return debug!("the page: {address}: {error}"),
            }
        }
        if connection.left > 0 {
            self.part_from(&mut connection).await;
        }
    }

    /// Tells somebody for whom there is no place that there is none.
    pub(super) async fn show_the_door(&self, stream: Async<TcpStream>, _place: Place) {
        let told = async {
            // Not before something is asked: it would be lost with the question.
            (&stream).read(&mut [0; DOOR_BYTES]).await?;
            let reply = super::routes::crowded();
            let mut said = reply.head(false);
            if let Body::Text(words) = &reply.body {
                said.push_str(words);
            }
            (&stream).write_all(said.as_bytes()).await?;
            stream.get_ref().shutdown(Shutdown::Write)
        };
        let _ = self.in_time(told, DOOR_MS).await;
    }

    /// Lets somebody go who may still be sending a body. What is read no more is thrown away for a
    /// moment: ended at once, the kernel would tear the connection down, and with it the answer.
    async fn part_from(&self, connection: &mut Connection) {
        let _ = connection.stream.get_ref().shutdown(Shutdown::Write);
        let drain = async {
            loop {
                let mut stream = &*connection.stream;
                if stream.read(&mut connection.buffer).await? == 0 {
                    return Ok(());
                }
            }
        };
        // Whether it has ended too, or is late, nothing more is said to it.
        let _: io::Result<()> = self.in_time(drain, PARTING_MS).await;
    }

    /// One request and its answer; whether another may follow.
    async fn one_request(&self, connection: &mut Connection) -> io::Result<bool> {
        let head = match self.read_head(connection).await? {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(false),
            Err(Malformed(status, why)) => {
                let reply = Reply::words(status, why).last();
                Box::pin(self.send(connection, &reply, false, false)).await?;
                return Ok(false);
            }
        };
        connection.left = head.body_bytes;
        connection.expects = head.expects;
        let (is_head, keeps) = (head.method == Method::Head, head.keep_alive);
        // On the heap while it lasts: an idle connection is to be small.
        let reply = Box::pin(self.answer(connection, head)).await;
        // What follows an unread body cannot be told from it.
        let keeps = keeps && !reply.last && connection.left == 0;
        Box::pin(self.send(connection, &reply, is_head, keeps)).await?;
        let is_stream = matches!(reply.body, Body::Events);
        Ok(keeps && !is_stream)
    }

    /// The next head; `None` at the end of the connection.
    async fn read_head(
        &self,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Head>, Malformed>> {
        let mut begun = None;
        loop {
            let now = self.steward.service.clock.now();
            let Connection { stream, buffer, filled, is_crowded, .. } = &mut *connection;
            // Empty lines before a request are passed over (RFC 9112, 2.2).
            let blank = buffer[..*filled].iter().take_while(|byte| b"\r\n".contains(byte)).count();
            buffer.copy_within(blank..*filled, 0);
            *filled -= blank;
            match head::parse(&buffer[..*filled]) {
                Ok(None) => {}
                Ok(Some((head, length))) => {
                    buffer.copy_within(length..*filled, 0);
                    *filled -= length;
                    return Ok(Ok(Some(head)));
                }
                Err(malformed) => return Ok(Err(malformed)),
            }
            let patience_ms = match *filled {
                0 if *is_crowded => CROWDED_MS,
                0 => IDLE_MS,
                // All of it together: bytes that drip in hold no place.
                _ => HEAD_MS.saturating_sub(now.since(*begun.get_or_insert(now))),
            };
            let mut stream = &**stream;
            let read = stream.read(&mut buffer[*filled..]);
            match self.in_time(read, patience_ms).await {
                Ok(0) => return Ok(Ok(None)),
                Ok(length) => *filled += length,
                Err(error) if error.kind() == io::ErrorKind::TimedOut && *filled > 0 => {
                    return Ok(Err(Malformed(Status::TIMEOUT, "the request did not come in time")));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads some of the body: as much as has come and fits.
    pub(super) async fn read_body(
        &self,
        connection: &mut Connection,
        into: &mut [u8],
    ) -> io::Result<usize> {
        if std::mem::take(&mut connection.expects) && connection.filled == 0 {
            self.write(&connection.stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let most = (into.len() as u64).min(connection.left) as usize;
        let length = if connection.filled > 0 {
            let length = most.min(connection.filled);
            into[..length].copy_from_slice(&connection.buffer[..length]);
            connection.buffer.copy_within(length..connection.filled, 0);
            connection.filled -= length;
            length
        } else {
            let mut stream = &*connection.stream;
            self.in_time(stream.read(&mut into[..most]), BODY_MS).await?
        };
        if length == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        connection.left -= length as u64;
        Ok(length)
    }

    /// Reads a whole body of no more than `most` bytes. `Err` is what is answered otherwise.
    pub(super) async fn whole_body(
        &self,
        connection: &mut Connection,
        most: u64,
    ) -> Result<Vec<u8>, Reply> {
        if connection.left > most {
            let words = std::format!("this may be {most} bytes long, and is longer");
            return Err(Reply::words(Status::TOO_LARGE, &words).last());
        }
        let mut body = std::vec![0; connection.left as usize];
        let whole = async {
            let mut filled = 0;
            while filled < body.len() {
                filled += self.read_body(connection, &mut body[filled..]).await?;
            }
            Ok(())
        };
        // All of it together: bytes that drip in hold no place.
        let came = self.in_time(whole, WHOLE_BODY_MS).await;
        let short = |_| Reply::words(Status::TIMEOUT, "not all of it came in time").last();
        came.map_err(short).map(|()| body)
    }

    /// Sends an answer.
    async fn send(
        &self,
        connection: &Connection,
        reply: &Reply,
        is_head: bool,
        keeps: bool,
    ) -> io::Result<()> {
        let stream = &connection.stream;
        let mut front = reply.head(keeps && !matches!(reply.body, Body::Events));
        // Words leave together with the head.
        match &reply.body {
            Body::Text(text) if !is_head => front.push_str(text),
            Body::Fixed(text) if !is_head => front.push_str(text),
            _ => {}
        }
        let is_file = matches!(reply.body, Body::File(_)) && !is_head;
        // A head and the file behind it are many calls, and leave in full packets.
        let _ = is_file.then(|| set_tcp_cork(stream, true));
        self.write(stream, front.as_bytes()).await?;
        drop(front);
        match &reply.body {
            _ if is_head => Ok(()),
            Body::File(sent) => {
                self.send_file(stream, sent).await?;
                Ok(set_tcp_cork(stream, false)?)
            }
            // Each has a place of its own, so that who is sent a file holds no room for them.
            Body::Zip(zip) => Box::pin(self.send_zip(stream, zip)).await,
            Body::Events => Box::pin(self.send_events(stream)).await,
            Body::Empty | Body::Text(_) | Body::Fixed(_) => Ok(()),
        }
    }

    /// Sends some bytes.
    pub(super) async fn write(
        &self,
        stream: &Arc<Async<TcpStream>>,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut stream = &**stream;
            let sent = self.in_time(stream.write(bytes), super::file::STALLED_MS).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Waits for something no longer than so.
    pub(super) async fn in_time<T>(
        &self,
        what: impl Future<Output = io::Result<T>>,
        ms: u64,
    ) -> io::Result<T> {
        let late = async {
            self.steward.service.clock.sleep(ms, "somebody at the page").await;
            Err(io::ErrorKind::TimedOut.into())
        };
        what.or(late).await
    }
}

impl Connection {
    /// Our own address as whoever is connected sees it.
    pub(super) fn host_of(&self) -> String {
        let address = self.stream.get_ref().local_addr();
        address.map_or_else(|_| String::from("localhost"), |address| std::format!("{address}"))
    }

    /// The body is not read.
    pub(super) fn left_bytes(&self) -> u64 {
        self.left
    }
}

/// Between two requests.
const IDLE_MS: u64 = 60_000;

/// The same for whoever has one of the last places, which are the owner's.
const CROWDED_MS: u64 = 3_000;

/// Who is shown the door has so long to ask for something, and so much of it is looked at.
const DOOR_MS: u64 = 2_000;
const DOOR_BYTES: usize = 1_024;

/// Whoever is refused may send on for so long.
const PARTING_MS: u64 = 1_000;

/// For the rest of a head.
const HEAD_MS: u64 = 10_000;

/// For a form, or what a program sends instead.
const WHOLE_BODY_MS: u64 = 60_000;

/// For the next bytes of a body.
const BODY_MS: u64 = 30_000;
