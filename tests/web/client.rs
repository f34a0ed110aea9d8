//! A web client that does what it is told, and nothing for the sake of politeness.

use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Its head, without the empty line behind it.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header line's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Its body, which is text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("what is answered is UTF-8")
    }

    /// Its body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}\n{}", self.head, self.text()))
    }

    /// What is the same whenever it is asked for: all but the date, and what is counted meanwhile.
    pub fn timeless(&self) -> (u16, String, Vec<u8>) {
        let lines = self.head.lines().filter(|line| !line.starts_with("Date: "));
        (self.status, lines.collect::<Vec<_>>().join("\n"), self.body.clone())
    }

    /// Checks the status.
    #[track_caller]
    pub fn is(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// A connection to the page.
pub struct Connection {
    pub stream: TcpStream,
    /// What has come and was not looked at.
    rest: Vec<u8>,
}

impl Connection {
    pub fn to(page: SocketAddr) -> Connection {
        let stream = TcpStream::connect(page).expect("the page listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit is possible");
        stream.set_write_timeout(Some(PATIENCE)).expect("a limit is possible");
        stream.set_nodelay(true).expect("a socket takes options");
        Connection { stream, rest: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the page reads");
    }

    /// The next answer; to a `HEAD` there is no body.
    pub fn receive(&mut self, to_head: bool) -> io::Result<Answer> {
        let head = loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                break String::from_utf8(head[..end].to_vec()).expect("a head is text");
            }
            self.more()?;
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("Content-Length").map(|length| length.parse().expect("digits"));
        let length = match (to_head, status, length) {
            (true, ..) | (_, 100 | 204 | 304, _) => 0,
            (_, _, Some(length)) => length,
            (_, _, None) => {
                while self.more().is_ok() {}
                self.rest.len()
            }
        };
        while self.rest.len() < length {
            self.more()?;
        }
        answer.body = self.rest.drain(..length).collect();
        Ok(answer)
    }

    /// Whether nothing comes any more: the other side has ended it.
    pub fn is_over(&mut self) -> bool {
        self.rest.is_empty() && self.more().is_err()
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.rest.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

/// A request: `lines` are more header lines, each with its end.
pub fn request(page: SocketAddr, method: &str, path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let length = match body {
        [] => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let host = match lines.starts_with("Host:") {
        true => String::new(),
        false => format!("Host: {page}\r\n"),
    };
    let mut bytes = format!("{method} {path} HTTP/1.1\r\n{host}{lines}{length}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Where bytes stand in others.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
