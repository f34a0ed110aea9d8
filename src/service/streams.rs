//! The streams of all connections, in one `epoll` set of our own.
//!
//! A stream is registered once, edge-triggered, and never again while it lasts: what the kernel
//! says of it is kept here until a call finds that it is no longer so. A busy box looks at the set
//! itself, one call for everybody; an idle one lets `async-io` wait for the set.
//!
//! Every other socket (listener, trackers, local discovery) and every timer is `async-io`'s own:
//! it arms a source anew for each event, which is nothing for them and would be a third of all
//! system calls here.

use super::clock::Clock;
use crate::engine::units::PeerSlot;
use async_io::Async;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::vec::Vec;

/// The set, and what is known of the stream of each pump.
pub struct Streams {
    set: Async<OwnedFd>,
    known: Vec<Known>,
    /// What one look brings; empty between two looks.
    events: RefCell<Vec<Event>>,
}

/// What the kernel has said and no call has yet found otherwise.
#[derive(Default)]
struct Known {
    readable: Cell<bool>,
    writable: Cell<Writable>,
    /// Nothing comes any more, or something has gone wrong: a read says which.
    ended: Cell<bool>,
    /// The kernel says nothing of what comes.
    hushed: Cell<bool>,
}

/// Room in a stream's send queue.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writable {
    #[default]
    No,
    Yes,
    /// It took all it was given; whether it takes more must be asked.
    Unknown,
}

impl Streams {
    /// A set for so many pumps. Fails when the system has no descriptor left.
    pub fn new(pumps: usize) -> io::Result<Streams> {
        Ok(Streams {
            set: Async::new_nonblocking(epoll::create(CreateFlags::CLOEXEC)?)?,
            known: (0..pumps).map(|_| Known::default()).collect(),
            events: RefCell::new(Vec::with_capacity(EVENTS_A_LOOK)),
        })
    }

    /// Takes a stream into the set, in the place of the pump that carries it.
    pub fn take_in(&self, slot: PeerSlot, stream: TcpStream) -> io::Result<Stream<'_>> {
        let known = &self.known[slot.index()];
        known.readable.set(false);
        known.writable.set(Writable::No);
        known.ended.set(false);
        known.hushed.set(false);
        let name = EventData::new_u64(slot.0.into());
        epoll::add(&self.set, &stream, name, EVERYTHING)?;
        Ok(Stream { stream, known, set: &self.set, name })
    }

    /// Notes what has happened since the last look and rings the pumps it concerns.
    pub fn look(&self, clock: &Clock) {
        let mut events = self.events.borrow_mut();
        loop {
            let room = rustix::buffer::spare_capacity(&mut events);
            // Nothing of ours can make this fail but a signal, and then there is a next look.
            let count = epoll::wait(&self.set, room, Some(&AT_ONCE)).unwrap_or(0);
            for event in events.drain(..) {
                let (slot, flags) = (event.data.u64() as usize, event.flags);
                let known = &self.known[slot];
                if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                    known.ended.set(true);
                }
                if flags.contains(EventFlags::IN) || known.ended.get() {
                    known.readable.set(true);
                }
                if flags.contains(EventFlags::OUT) || known.ended.get() {
                    known.writable.set(Writable::Yes);
                }
                clock.ring(slot);
            }
            if count < EVENTS_A_LOOK {
                return;
            }
        }
    }

    /// Waits until there is something to look at.
    pub async fn news(&self) {
        // It cannot fail: the set is ours and stays open.
        let _ = self.set.readable().await;
    }
}

/// A stream in the set; dropping it closes it. Its pump's bell rings when something has changed.
pub struct Stream<'s> {
    stream: TcpStream,
    known: &'s Known,
    set: &'s Async<OwnedFd>,
    name: EventData,
}

impl Stream<'_> {
    /// Whether a read may find something.
    pub fn is_readable(&self) -> bool {
        self.known.readable.get()
    }

    /// Whether the stream takes bytes. One that has just taken all it was given is asked, and
    /// rings when it takes more.
    pub fn is_writable(&self) -> bool {
        if self.known.writable.get() == Writable::Unknown {
            let mut poll = [PollFd::new(&self.stream, PollFlags::OUT)];
            let ready = rustix::event::poll(&mut poll, Some(&AT_ONCE)).is_ok_and(|count| count > 0);
            self.known.writable.set(if ready { Writable::Yes } else { Writable::No });
        }
        self.known.writable.get() == Writable::Yes
    }

    /// Has the kernel say nothing of what comes until a read has found the end of what there is: it
    /// is known to be readable, there is no room for it, and to be woken for more of the same costs
    /// more than this call. Of one that may not be writable nothing is hushed.
    pub fn hush(&self) {
        let known = self.known;
        if known.readable.get() && !known.hushed.get() && known.writable.get() == Writable::Yes {
            let hushed = epoll::modify(self.set, &self.stream, self.name, THE_END).is_ok();
            known.hushed.set(hushed);
        }
    }

    /// A read has found the end of what there was.
    fn note_drained(&self) {
        self.known.readable.set(false);
        self.listen();
    }

    /// From here on news is of use: nothing is left to be read, or there may be no room to send.
    fn listen(&self) {
        if self.known.hushed.take() {
            // It says at once what has happened meanwhile. It cannot fail: the stream is in the set.
            let _ = epoll::modify(self.set, &self.stream, self.name, EVERYTHING);
        }
    }

    /// Reads what has come; `None` when nothing has. `Some(0)` is the end.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, read)) => {
                // A read that fills less has found the end of what there was.
                if read < buffer.len() && !self.known.ended.get() {
                    self.note_drained();
                }
                Ok(Some(read))
            }
            Err(Errno::AGAIN) => {
                self.note_drained();
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what the stream takes at once; 0 when it takes nothing. When it has taken everything,
    /// the next send is made unasked only if `trusting`.
    pub fn send(&self, bytes: &[u8], trusting: bool) -> io::Result<usize> {
        let sent =
            match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            {
                Ok(sent) => sent,
                Err(Errno::INTR) => return Ok(0),
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(error.into()),
            };
        self.known.writable.set(match sent == bytes.len() {
            true if trusting => Writable::Yes,
            true => Writable::Unknown,
            false => Writable::No,
        });
        if self.known.writable.get() != Writable::Yes {
            self.listen();
        }
        Ok(sent)
    }

    /// What went wrong since last asked, as after a dial.
    pub fn take_error(&self) -> io::Result<()> {
        self.stream.take_error()?.map_or(Ok(()), Err)
    }
}

/// Events one look takes in; more are taken by looking again.
const EVENTS_A_LOOK: usize = 64;

/// What the kernel tells of, once for each change.
const EVERYTHING: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// What it tells of one that is hushed.
const THE_END: EventFlags = EventFlags::RDHUP.union(EventFlags::ET);

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A stream in a set of its own, and the other end of it.
    fn pair(streams: &Streams) -> (Stream<'_>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (streams.take_in(PeerSlot(1), listener.accept().unwrap().0).unwrap(), other)
    }

    #[test]
    fn what_comes_is_read_once_and_the_end_is_seen_after_it() {
        let (streams, clock) = (Streams::new(2).unwrap(), Clock::new(2, 0));
        let (stream, mut other) = pair(&streams);
        let mut buffer = [0; 64];
        other.write_all(b"hello").unwrap();
        drop(other);
        // Loopback delivers at once; the end and the bytes come in one look.
        streams.look(&clock);
        assert!(stream.is_readable() && stream.is_writable());
        assert_eq!(stream.receive(&mut buffer).unwrap(), Some(5));
        assert!(stream.is_readable(), "the end is still to be read");
        assert_eq!(stream.receive(&mut buffer).unwrap(), Some(0));
    }

    #[test]
    fn a_look_rings_the_pump_whose_stream_has_news() {
        let (streams, clock) = (Streams::new(2).unwrap(), Clock::new(2, 0));
        let (stream, mut other) = pair(&streams);
        streams.look(&clock);
        assert!(!stream.is_readable());
        let story = async {
            clock.bell(clock.slot(1)).rung().await;
            other.write_all(b"x").unwrap();
            streams.news().await;
            streams.look(&clock);
            clock.bell(clock.slot(1)).rung().await;
            assert!(stream.is_readable());
            assert_eq!(stream.receive(&mut [0; 64]).unwrap(), Some(1));
            assert!(!stream.is_readable(), "a short read has found the end");
        };
        smol::block_on(story);
    }

    #[test]
    fn one_that_is_hushed_says_nothing_until_a_read_has_found_the_end() {
        let (streams, clock) = (Streams::new(2).unwrap(), Clock::new(2, 0));
        let (stream, mut other) = pair(&streams);
        let mut buffer = [0; 4];
        let has_news = || {
            let mut poll = [PollFd::new(&streams.set, PollFlags::IN)];
            rustix::event::poll(&mut poll, Some(&AT_ONCE)).unwrap() > 0
        };
        other.write_all(b"12345").unwrap();
        streams.look(&clock);
        assert_eq!(stream.receive(&mut buffer).unwrap(), Some(4));
        stream.hush();
        other.write_all(b"678").unwrap();
        assert!(!has_news(), "it is known to be readable");
        assert_eq!(stream.receive(&mut buffer).unwrap(), Some(4));
        assert!(stream.is_readable(), "a read that fills its buffer has not found the end");
        assert_eq!(stream.receive(&mut buffer).unwrap(), None);
        streams.look(&clock);
        other.write_all(b"9").unwrap();
        assert!(has_news());
        streams.look(&clock);
        assert!(stream.is_readable());
        // And the end is heard of at any time.
        stream.hush();
        drop(other);
        assert!(has_news());
    }

    #[test]
    fn a_full_stream_is_writable_again_when_the_other_side_has_read() {
        let (streams, clock) = (Streams::new(2).unwrap(), Clock::new(2, 0));
        let (stream, mut other) = pair(&streams);
        streams.look(&clock);
        let mut sent = 0;
        let bytes = std::vec![7; 1 << 20];
        while stream.is_writable() {
            sent += stream.send(&bytes, false).unwrap();
        }
        streams.look(&clock);
        assert!(!stream.is_writable(), "nothing has been read yet");
        let mut rest = std::vec![0; sent];
        other.read_exact(&mut rest).unwrap();
        smol::block_on(streams.news());
        streams.look(&clock);
        assert!(stream.is_writable());
    }
}
