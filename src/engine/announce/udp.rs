//! An announce over UDP (BEP 15): two questions, two answers, and what to do when none comes.
//!
//! ```text
//!            connect >                     announce >
//! Connecting ---------- connection id < Announcing ---------- interval, counts, peers <  (over)
//!      |  silence: again, 15 s * 2^n        |  silence: again; id over 60 s old: connect again
//!      +------------------------------------+---- SILENCES_MAX of them: given up
//! ```
//!
//! An [`Exchange`] is handed datagrams and `now`; it says what to send and when to look again.
//! It is bounded in time whatever the tracker does: silences are counted over all of it, and
//! every datagram it sends follows either a silence or the one answer that gave us an id, so it is
//! over after 15 + 30 + 60 s at the latest. BEP 15 would let it go on for hours, but by then
//! another tracker has long been asked ([`schedule`](super::schedule)).
//!
//! Anybody can send us a datagram. What is too short, of the wrong kind or under a transaction id
//! that is not the one in the air is not heard. Longer than known is fine (BEP 15, *Overview*).
//! Path and query of the tracker's URL travel as BEP 41's `URLData`.
//!
//! The service sends from a socket connected to the tracker's address, and what
//! [`handle_datagram`](Exchange::handle_datagram) gives goes the way of every answer.

use super::{
    Announce, Answer, Event, Family, Notice, Peers, Refusal, Retry, URL_BYTES_MAX, settle_intervals,
};
use crate::engine::bencode::{Full, Sink};
use crate::engine::units::{Deadline, Instant};

/// One announce to one address, from the first datagram to the answer. `ROOM` bounds what is sent:
/// by default the longest URL has room.
pub struct Exchange<'a, const ROOM: usize = DATAGRAM_BYTES_MAX> {
    announce: Announce<'a>,
    url_data: &'a str,
    family: Family,
    step: Step,
    /// What the tracker must repeat to be heard; nothing while no question of this step is out.
    transaction: Option<u32>,
    /// Questions that were not answered in time.
    silences: u32,
    /// When to ask, or to ask again.
    due: Instant,
    datagram: heapless::Vec<u8, ROOM>,
}

/// What an exchange wants done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'o> {
    /// This datagram goes to the tracker.
    Send(&'o [u8]),
    /// Nothing until a datagram comes or the moment has.
    Wait(Deadline),
    /// Nobody answers there, or there is no room for the tracker's URL.
    GaveUp,
}

enum Step {
    Connecting,
    Announcing(Connection),
}

/// The tracker's proof that we are where we say we are.
#[derive(Clone, Copy)]
struct Connection {
    id: u64,
    granted: Instant,
}

impl<'a, const ROOM: usize> Exchange<'a, ROOM> {
    /// An exchange over `family`. Of `path_and_query`, the part of the tracker's URL it names, what
    /// is longer than [`URL_BYTES_MAX`] is not sent: half an address would be another one.
    pub fn new(
        announce: Announce<'a>,
        path_and_query: &'a str,
        family: Family,
        now: Instant,
    ) -> Self {
        let said = path_and_query.len() <= URL_BYTES_MAX && path_and_query != "/";
        Exchange {
            announce,
            url_data: if said { path_and_query } else { "" },
            family,
            step: Step::Connecting,
            transaction: None,
            silences: 0,
            due: now,
            datagram: heapless::Vec::new(),
        }
    }

    /// What to do now. `random` names the question when it is a new one; one that is repeated
    /// keeps its name, so that a late answer to the first counts.
    pub fn poll_output(&mut self, now: Instant, random: u32) -> Output<'_> {
        if now < self.due {
            return Output::Wait(Deadline { at: self.due, why: "tracker answer" });
        }
        if self.transaction.is_some() {
            self.silences += 1;
        }
        if self.silences >= SILENCES_MAX {
            return Output::GaveUp;
        }
        if let Step::Announcing(connection) = self.step
            && now.since(connection.granted) >= CONNECTION_MS
        {
            self.step = Step::Connecting;
            self.transaction = None;
        }
        let transaction = *self.transaction.get_or_insert(random);
        self.due = now.after(RETRANSMIT_MS << self.silences);
        self.datagram.clear();
        let written = match self.step {
            Step::Connecting => write_connect(transaction, &mut self.datagram),
            Step::Announcing(connection) => self.write_announce(connection.id, transaction),
        };
        match written {
            Ok(()) => Output::Send(&self.datagram),
            Err(Full) => Output::GaveUp,
        }
    }

    /// Takes a datagram from the tracker's address. `Ok(None)`: not the last word, go on polling.
    pub fn handle_datagram<'d>(
        &mut self,
        bytes: &'d [u8],
        now: Instant,
    ) -> Result<Option<(Answer, Peers<'d>)>, Refusal> {
        let Some((action, transaction, rest)) = split_head(bytes) else { return Ok(None) };
        if self.transaction != Some(transaction) {
            return Ok(None);
        }
        match (action, &self.step) {
            (ACTION_CONNECT, Step::Connecting) => {
                let Some((id, _)) = rest.split_first_chunk() else { return Ok(None) };
                let id = u64::from_be_bytes(*id);
                self.step = Step::Announcing(Connection { id, granted: now });
                self.transaction = None;
                self.due = now;
                Ok(None)
            }
            (ACTION_ANNOUNCE, Step::Announcing(_)) => Ok(parse_answer(rest, self.family)),
            (ACTION_ERROR, _) => Err(Refusal { reason: Notice::of(rest), retry: Retry::Unsaid }),
            _ => Ok(None),
        }
    }

    fn write_announce(&mut self, connection_id: u64, transaction: u32) -> Result<(), Full> {
        let (announce, sink) = (self.announce, &mut self.datagram);
        let event: u32 = match announce.event {
            Event::None => 0,
            Event::Completed => 1,
            Event::Started => 2,
            Event::Stopped => 3,
        };
        sink.put(&connection_id.to_be_bytes())?;
        sink.put(&ACTION_ANNOUNCE.to_be_bytes())?;
        sink.put(&transaction.to_be_bytes())?;
        sink.put(&announce.info_hash.on_the_wire())?;
        sink.put(&announce.peer_id.0)?;
        sink.put(&announce.downloaded.to_be_bytes())?;
        sink.put(&announce.left.to_be_bytes())?;
        sink.put(&announce.uploaded.to_be_bytes())?;
        sink.put(&event.to_be_bytes())?;
        // Our address: 0 lets the tracker take the datagram's own, and is a must over IPv6.
        sink.put(&[0; 4])?;
        sink.put(&announce.key.to_be_bytes())?;
        sink.put(&u32::from(announce.peers_wanted()).to_be_bytes())?;
        sink.put(&announce.port.to_be_bytes())?;
        for part in self.url_data.as_bytes().chunks(OPTION_BYTES_MAX) {
            // A part is at most 255 bytes long: its length fits the option's one byte.
            sink.put(&[OPTION_URL_DATA, part.len() as u8])?;
            sink.put(part)?;
        }
        Ok(())
    }
}

fn write_connect<S: Sink>(transaction: u32, sink: &mut S) -> Result<(), S::Error> {
    sink.put(&PROTOCOL_ID.to_be_bytes())?;
    sink.put(&ACTION_CONNECT.to_be_bytes())?;
    sink.put(&transaction.to_be_bytes())
}

/// Action, transaction id and what follows.
fn split_head(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (action, rest) = split_u32(bytes)?;
    let (transaction, rest) = split_u32(rest)?;
    Some((action, transaction, rest))
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// What stands behind the head of an answer: interval, leechers, seeders, peers.
fn parse_answer(rest: &[u8], family: Family) -> Option<(Answer, Peers<'_>)> {
    let (interval_s, rest) = split_u32(rest)?;
    let (leechers, rest) = split_u32(rest)?;
    let (seeders, peers) = split_u32(rest)?;
    let (interval_ms, min_interval_ms) = settle_intervals(Some(i64::from(interval_s)), None);
    let answer = Answer {
        interval_ms,
        min_interval_ms,
        seeders: Some(seeders),
        leechers: Some(leechers),
        ..Answer::default()
    };
    Some((answer, Peers::compact(family, peers)))
}

/// What a connect request begins with (BEP 15, *Connect*).
const PROTOCOL_ID: u64 = 0x417_2710_1980;

const ACTION_CONNECT: u32 = 0;
const ACTION_ANNOUNCE: u32 = 1;
const ACTION_ERROR: u32 = 3;

/// BEP 41's option for path and query, and how much of them one holds.
const OPTION_URL_DATA: u8 = 2;
const OPTION_BYTES_MAX: usize = 255;

/// The first wait for an answer; each next one is twice as long (BEP 15, *Time outs*).
const RETRANSMIT_MS: u64 = 15_000;

/// Silences after which nobody is there: 15, 30 and 60 s of them.
const SILENCES_MAX: u32 = 3;

/// How long a connection id is good for (BEP 15, *UDP connections*).
const CONNECTION_MS: u64 = 60_000;

/// An announce without options (BEP 15).
const ANNOUNCE_BYTES: usize = 98;

/// An announce with all of a URL in its options.
const DATAGRAM_BYTES_MAX: usize =
    ANNOUNCE_BYTES + URL_BYTES_MAX + 2 * URL_BYTES_MAX.div_ceil(OPTION_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::{InfoHash, PeerId};

    const ANNOUNCE: Announce<'static> = Announce {
        info_hash: InfoHash::V1([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 3,
        downloaded: 4,
        left: 5,
        event: Event::Completed,
        num_want: 50,
        key: 6,
        tracker_id: None,
    };
    const START: Instant = Instant::from_millis(1_000);

    fn exchange(path_and_query: &str, family: Family) -> Exchange<'_> {
        Exchange::new(ANNOUNCE, path_and_query, family, START)
    }

    fn packet<const N: usize>(words: [u32; N], rest: &[u8]) -> heapless::Vec<u8, 128> {
        let mut packet: heapless::Vec<u8, 128> =
            words.iter().flat_map(|word| word.to_be_bytes()).collect();
        packet.extend_from_slice(rest).unwrap();
        packet
    }

    /// An exchange whose connect request, number 7, was answered with the id 0x1_0000_0002.
    fn connected(path_and_query: &str, family: Family) -> Exchange<'_> {
        let mut exchange = exchange(path_and_query, family);
        let Output::Send(connect) = exchange.poll_output(START, 7) else { panic!("no connect") };
        assert_eq!(connect, &packet([0x417, 0x2710_1980, 0, 7], b"")[..]);
        let granted = packet([0, 7, 1, 2], b"");
        assert!(matches!(exchange.handle_datagram(&granted, START), Ok(None)));
        exchange
    }

    #[test]
    fn an_announce_over_ipv4_is_written_and_answered() {
        let mut exchange = connected("/dir?a=b", Family::V4);
        let Output::Send(sent) = exchange.poll_output(START, 8) else { panic!("no announce") };
        assert_eq!(sent[..16], packet([1, 2, 1, 8], b"")[..]);
        assert_eq!((&sent[16..36], &sent[36..56]), (&[1; 20][..], &[2; 20][..]));
        assert_eq!(sent[56..92], packet([0, 4, 0, 5, 0, 3, 1, 0, 6], b"")[..]);
        assert_eq!(sent[92..98], [0, 0, 0, 50, 0x1a, 0xe1]);
        assert_eq!(&sent[98..], b"\x02\x08/dir?a=b");

        let answer = packet([1, 8, 900, 10, 20], b"\x0a\0\0\x01\x1a\xe1\x0a\0");
        let (answer, peers) = exchange.handle_datagram(&answer, START).unwrap().unwrap();
        assert_eq!(answer.interval_ms, 900_000);
        assert_eq!((answer.leechers, answer.seeders), (Some(10), Some(20)));
        assert!(peers.eq(["10.0.0.1:6881".parse().unwrap()]));
    }

    #[test]
    fn an_answer_over_ipv6_has_longer_peers() {
        let mut exchange = connected("/", Family::V6);
        let Output::Send(sent) = exchange.poll_output(START, 8) else { panic!("no announce") };
        assert_eq!(sent.len(), ANNOUNCE_BYTES, "the root alone says nothing");
        let mut peer = [0; 18];
        (peer[15], peer[17]) = (1, 80);
        let answer = packet([1, 8, 900, 0, 0], &peer);
        let (_, peers) = exchange.handle_datagram(&answer, START).unwrap().unwrap();
        assert!(peers.eq(["[::1]:80".parse().unwrap()]));
    }

    #[test]
    fn what_is_short_or_not_meant_for_us_is_not_heard() {
        let mut exchange = connected("", Family::V4);
        let unheard = packet([1, 8, 900, 0, 0], b"");
        assert_eq!(exchange.handle_datagram(&unheard, START).unwrap().map(|_| ()), None);
        let Output::Send(_) = exchange.poll_output(START, 8) else { panic!("no announce") };
        let wrong = [
            packet([1, 9, 900, 0, 0], b""),
            packet([1, 7, 900, 0, 0], b""),
            packet([0, 8, 3, 4], b""),
            packet([2, 8, 3, 4, 5], b""),
            packet([1, 8, 900, 0], b"\0\0\0"),
            packet([3], b"\0\0\0"),
            packet([], b""),
        ];
        for datagram in wrong {
            let heard = exchange.handle_datagram(&datagram, START).unwrap();
            assert!(heard.is_none(), "{datagram:?}");
        }
        let answer = packet([1, 8, 900, 0, 0], b"");
        assert!(exchange.handle_datagram(&answer, START).unwrap().is_some());
    }

    #[test]
    fn an_error_packet_is_a_refusal_at_either_step() {
        let mut exchange = connected("", Family::V4);
        let Output::Send(_) = exchange.poll_output(START, 8) else { panic!("no announce") };
        let error = packet([3, 8], b"not\nhere");
        let refusal = exchange.handle_datagram(&error, START).err().unwrap();
        assert_eq!(refusal.reason.as_str(), "not here");

        let mut exchange = self::exchange("", Family::V4);
        let Output::Send(_) = exchange.poll_output(START, 7) else { panic!("no connect") };
        assert!(exchange.handle_datagram(&packet([3, 7], b"no"), START).is_err());
    }

    #[test]
    fn silence_is_met_with_the_same_question_three_times() {
        let mut exchange = exchange("", Family::V4);
        let mut sent_at_s = heapless::Vec::<u64, 8>::new();
        let mut now = START;
        let gave_up = loop {
            // Only the first of these numbers names the question.
            match exchange.poll_output(now, 7 + sent_at_s.len() as u32) {
                Output::Send(datagram) => {
                    assert_eq!(datagram[12..], 7u32.to_be_bytes());
                    sent_at_s.push(now.since(START) / 1_000).unwrap();
                }
                Output::Wait(deadline) => now = deadline.at,
                Output::GaveUp => break now,
            }
        };
        assert_eq!(sent_at_s[..], [0, 15, 45]);
        assert_eq!(gave_up.since(START), 105_000);
    }

    #[test]
    fn an_old_connection_id_is_asked_for_again() {
        let mut exchange = connected("", Family::V4);
        let Output::Send(_) = exchange.poll_output(START, 8) else { panic!("no announce") };
        // A machine that slept for a minute.
        let late = START.after(CONNECTION_MS);
        let Output::Send(again) = exchange.poll_output(late, 9) else { panic!("nothing sent") };
        assert_eq!(again, &packet([0x417, 0x2710_1980, 0, 9], b"")[..]);
    }

    #[test]
    fn the_longest_url_fits_one_datagram_and_a_longer_one_is_left_out() {
        let long = [b'/'; URL_BYTES_MAX + 1];
        let long = core::str::from_utf8(&long).unwrap();
        let mut exchange = connected(&long[1..], Family::V4);
        let Output::Send(sent) = exchange.poll_output(START, 8) else { panic!("no announce") };
        assert_eq!(sent.len(), DATAGRAM_BYTES_MAX);
        const { assert!(DATAGRAM_BYTES_MAX <= 1_232) };
        let mut exchange = connected(long, Family::V4);
        let Output::Send(sent) = exchange.poll_output(START, 8) else { panic!("no announce") };
        assert_eq!(sent.len(), ANNOUNCE_BYTES);
    }
}
