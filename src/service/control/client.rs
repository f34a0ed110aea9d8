//! The command line's end of the control socket: a request out, answers in.
//!
//! It blocks: a command has nothing else to do. A page is read whole before any of it is shown, so
//! that a reader of ours who stops in the middle (`perennial list | less`) does not keep the box
//! waiting; between two pages there is no connection.

use super::answer::{Answer, Done};
use super::message::{List, Show};
use super::{FILE, LINE_BYTES_MAX, Request, server, show};
use crate::service::Refusal;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::process::PidfdFlags;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// A box that runs.
pub struct Client {
    state: PathBuf,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What it says.
    pub answer: Answer,
    /// As it came, without its end.
    pub line: String,
}

impl Client {
    /// The box on that state folder; none when nobody listens there.
    pub fn connect(state: &Path) -> Result<Option<Client>, Refusal> {
        match connect(state) {
            // Whether somebody is there is known; each request has a connection of its own.
            Ok(_) => Ok(Some(Client { state: state.to_path_buf() })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(unreachable_box(state, error)),
            },
        }
    }

    /// The same, when there has to be one.
    pub fn connect_to_running(state: &Path) -> Result<Client, Refusal> {
        Client::connect(state)?.ok_or_else(|| {
            let state = state.display();
            Refusal::new(state, "no box is running on it", "start it with `perennial run`")
        })
    }

    /// Asks. The answers end with a `done`, or with an error.
    pub fn request(&self, request: &Request) -> Result<Answers, Refusal> {
        let line = request.write()?;
        let ask = || -> io::Result<UnixStream> {
            let mut stream = connect(&self.state)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            match stream.write_all(&line) {
                // It has been let go before it was heard out; why can still be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(stream),
                written => written.map(|()| stream),
            }
        };
        let stream = ask().map_err(|error| unreachable_box(&self.state, error))?;
        let state = self.state.clone();
        Ok(Answers { reader: BufReader::new(stream), state, ended: false, impatient: false })
    }

    /// Asks, and reads the whole answer. The box answers at most a page.
    pub fn page(&self, request: &Request) -> Result<(Vec<Heard>, Done), Refusal> {
        let mut page = Vec::new();
        for heard in self.request(request)? {
            match heard? {
                Heard { answer: Answer::Done(done), .. } => return Ok((page, done)),
                heard => page.push(heard),
            }
        }
        Err(cut_short(&self.state))
    }

    /// Every page of a list or of what is shown, one after the other; other requests have just one.
    /// After an error there are no more.
    pub fn pages(&self, request: Request) -> impl Iterator<Item = Result<Vec<Heard>, Refusal>> {
        let mut next = Some(request);
        std::iter::from_fn(move || {
            let mut request = next.take()?;
            Some(self.page(&request).map(|(page, done)| {
                if let Request::List(List { after, .. }) | Request::Show(Show { after, .. }) =
                    &mut request
                    && done.next.is_some()
                {
                    *after = done.next;
                    next = Some(request);
                }
                page
            }))
        })
    }

    /// Whoever is the box now, to wait for its end. None where the system does not say.
    pub fn life(&self) -> Option<Life> {
        let peer = rustix::net::sockopt::socket_peercred(connect(&self.state).ok()?).ok()?;
        rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()).ok().map(Life)
    }
}

/// The life of a box.
pub struct Life(OwnedFd);

impl Life {
    /// Waits for its end; false when that has not come in so many milliseconds.
    pub fn ends_within(&self, ms: u32) -> bool {
        let wait =
            Timespec { tv_sec: i64::from(ms / 1_000), tv_nsec: i64::from(ms % 1_000) * 1_000_000 };
        let mut end = [PollFd::new(&self.0, PollFlags::IN)];
        rustix::event::poll(&mut end, Some(&wait)).is_ok_and(|count| count > 0)
    }
}

/// Lines of an answer as they come.
pub struct Answers {
    reader: BufReader<UnixStream>,
    state: PathBuf,
    ended: bool,
    /// The owner has been told that nothing comes.
    impatient: bool,
}

impl Iterator for Answers {
    type Item = Result<Heard, Refusal>;

    fn next(&mut self) -> Option<Result<Heard, Refusal>> {
        if self.ended {
            return None;
        }
        let heard = self.line().and_then(|line| match serde_json::from_str(&line) {
            Ok(Answer::Error(refusal)) => Err(refusal.map(show::clean)),
            Ok(answer) => Ok(Heard { answer, line }),
            Err(error) => {
                let remedy = "use the same version of perennial as the box";
                Err(Refusal::new("the box's answer", error, remedy))
            }
        });
        self.ended = !matches!(&heard, Ok(heard) if !matches!(heard.answer, Answer::Done(_)));
        Some(heard)
    }
}

impl Answers {
    fn line(&mut self) -> Result<String, Refusal> {
        let mut line = Vec::new();
        loop {
            let room = (LINE_BYTES_MAX - line.len()) as u64;
            match self.reader.by_ref().take(room).read_until(b'\n', &mut line) {
                Ok(_) if line.last() == Some(&b'\n') => break,
                Ok(_) => return Err(cut_short(&self.state)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.complain(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(cut_short(&self.state)),
            }
        }
        line.pop();
        String::from_utf8(line).map_err(|error| {
            Refusal::new("the box's answer", error, "use the same version of perennial as the box")
        })
    }

    fn complain(&mut self) {
        if !self.impatient {
            self.impatient = true;
            info!("the box is at it; Ctrl-C ends the wait, not what was asked");
        }
    }
}

fn connect(state: &Path) -> io::Result<UnixStream> {
    server::at_address(state, FILE, |address| UnixStream::connect(address))
}

fn unreachable_box(state: &Path, error: io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "ask as the user the box runs as, or as root",
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "start it with `perennial run`"
        }
        _ => "look whether the box is running",
    };
    Refusal::new(state.join(FILE).display(), error, remedy)
}

fn cut_short(state: &Path) -> Refusal {
    let remedy = "look whether the box is running, and ask again";
    Refusal::new(state.join(FILE).display(), "the box ended in the middle of its answer", remedy)
}

/// After so long without a line the owner is told that the box is still there.
const PATIENCE: Duration = Duration::from_secs(10);
