//! PCP on the wire (RFC 6887): the question for one port, and the router's answer.
//!
//! ```text
//! question  version | opcode     | reserved 2        | lifetime 4 | client's address 16
//! answer    version | 128+opcode | reserved | result | lifetime 4 | epoch 4 | reserved 12
//!
//! and after these 24 bytes, in both:
//! MAP       nonce 12 | protocol | reserved 3 | internal port 2 | external port 2 | address 16
//! ```
//!
//! An answer counts when it repeats nonce, protocol and internal port, so that nobody who has not
//! seen the question can answer it. Options are neither sent nor read.

use super::{Answer, Granted, Refusal, Transport};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes a question ours (RFC 6887, section 11.1): chance that stays the same for as long as
/// a port is to be ours, or the router takes us for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

/// A question for one port.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Ours, as the router sees it.
    pub client: IpAddr,
    /// What makes it ours.
    pub nonce: Nonce,
    /// Of which kind the port is.
    pub transport: Transport,
    /// The port we listen on.
    pub port: u16,
    /// The port we would like outside; 0 for any.
    pub external_port: u16,
    /// The address we would like outside.
    pub external_ip: Option<IpAddr>,
    /// For how long; 0 gives the port back.
    pub lifetime_s: u32,
}

/// Writes a MAP request (RFC 6887, sections 7.1 and 11.1).
pub fn write(question: &Question) -> [u8; MAP_BYTES] {
    // What stands for no address is of the client's family.
    let any = match question.client.to_canonical() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut bytes = [0; MAP_BYTES];
    bytes[0] = VERSION;
    bytes[1] = OPCODE_MAP;
    bytes[4..8].copy_from_slice(&question.lifetime_s.to_be_bytes());
    bytes[8..24].copy_from_slice(&octets(question.client));
    bytes[24..36].copy_from_slice(&question.nonce.0);
    bytes[36] = protocol(question.transport);
    bytes[40..42].copy_from_slice(&question.port.to_be_bytes());
    bytes[42..44].copy_from_slice(&question.external_port.to_be_bytes());
    bytes[44..60].copy_from_slice(&octets(question.external_ip.unwrap_or(any)));
    bytes
}

/// Reads the answer to a question; `None` for what is none, or another's.
pub fn parse(bytes: &[u8], question: &Question) -> Option<Answer> {
    let head = head(bytes)?;
    if head.opcode != OPCODE_MAP {
        return None;
    }
    // A router that knows another version cannot repeat what it has not understood.
    if head.result == UNSUPP_VERSION {
        return Some(head.answer(Err(Refusal::Version)));
    }
    let map = bytes.get(HEAD_BYTES..MAP_BYTES)?;
    let is_ours = map[..12] == question.nonce.0
        && map[12] == protocol(question.transport)
        && map[16..18] == question.port.to_be_bytes();
    if !is_ours {
        return None;
    }
    if head.version != VERSION {
        return Some(head.answer(Err(Refusal::Version)));
    }
    Some(head.answer(match head.result {
        SUCCESS => Ok(Granted::Port {
            external_port: u16::from_be_bytes([map[18], map[19]]),
            lifetime_s: head.lifetime_s,
            external_ip: ip(&map[20..36]),
        }),
        2 => Err(Refusal::NotAuthorised),
        4 | 5 | 9 => Err(Refusal::NotOffered),
        7 => Err(Refusal::NoConnection),
        8 | 10 | 13 => Err(Refusal::NoRoom),
        12 => Err(Refusal::OtherNetwork),
        other => Err(Refusal::Other(other.into())),
    }))
}

/// The router's time, from anything it says in PCP: an answer, or an ANNOUNCE to everybody after
/// it has restarted (RFC 6887, section 14.1).
pub fn epoch_s(bytes: &[u8]) -> Option<u32> {
    let head = head(bytes)?;
    (head.version == VERSION && head.result == SUCCESS).then_some(head.epoch_s)
}

/// Whether a router whose time was `before_s` can, so many milliseconds later, say `now_s` without
/// having forgotten us (RFC 6887, section 8.5).
pub fn remembers(before_s: u32, now_s: u32, passed_ms: u64) -> bool {
    let (before, now) = (u64::from(before_s), u64::from(now_s));
    // One second back may be two datagrams that overtook each other.
    let (ours, theirs) = (passed_ms / 1_000, now.saturating_sub(before));
    now + 1 >= before && ours + 2 >= theirs - theirs / 16 && theirs + 2 >= ours - ours / 16
}

struct Head {
    version: u8,
    opcode: u8,
    result: u8,
    lifetime_s: u32,
    epoch_s: u32,
}

impl Head {
    fn answer(&self, outcome: Result<Granted, Refusal>) -> Answer {
        // Beside an error it says for how long that will not change (RFC 6887, section 7.4).
        let hold_off_s = if outcome.is_err() { self.lifetime_s } else { 0 };
        Answer { epoch_s: self.epoch_s, outcome, hold_off_s }
    }
}

/// Splits up what every answer begins with, if it is one in length and kind.
fn head(bytes: &[u8]) -> Option<Head> {
    let is_sized = (HEAD_BYTES..=BYTES_MAX).contains(&bytes.len()) && bytes.len().is_multiple_of(4);
    // NAT-PMP is version 0; a PCP of another version than ours may still say so.
    if !is_sized || bytes[0] == 0 || bytes[1] & IS_ANSWER == 0 {
        return None;
    }
    let number =
        |at: usize| bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    Some(Head {
        version: bytes[0],
        opcode: bytes[1] & !IS_ANSWER,
        result: bytes[3],
        lifetime_s: number(4),
        epoch_s: number(8),
    })
}

/// As PCP writes addresses: 16 bytes, those of IPv4 mapped (RFC 6887, section 5).
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The address, unless it stands for none.
fn ip(octets: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = octets.try_into().ok()?;
    let ip = IpAddr::V6(Ipv6Addr::from(octets)).to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

/// As IANA numbers them.
const fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// What a question for a port and its answer take.
pub const MAP_BYTES: usize = 60;

/// The longest datagram of PCP (RFC 6887, section 7).
pub const BYTES_MAX: usize = 1_100;

const HEAD_BYTES: usize = 24;
const VERSION: u8 = 2;
const OPCODE_MAP: u8 = 1;
const IS_ANSWER: u8 = 0x80;
const SUCCESS: u8 = 0;
const UNSUPP_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question {
        client: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5)),
        nonce: Nonce(*b"abcdefghijkl"),
        transport: Transport::Tcp,
        port: 6881,
        external_port: 6882,
        external_ip: None,
        lifetime_s: 7200,
    };

    /// RFC 6887, figures 2 and 9, filled in by hand.
    const ASKED: &[u8; 60] = b"\x02\x01\0\0\0\0\x1c\x20\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\xa8\x01\x05\
        abcdefghijkl\x06\0\0\0\x1a\xe1\x1a\xe2\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0";

    /// Figures 3 and 10: 203.0.113.7:40000 for 3600 s, at 4660 s of the router's time.
    const ANSWERED: &[u8; 60] = b"\x02\x81\0\0\0\0\x0e\x10\0\0\x12\x34\
        \0\0\0\0\0\0\0\0\0\0\0\0\
        abcdefghijkl\x06\0\0\0\x1a\xe1\x9c\x40\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\0\x71\x07";

    #[test]
    fn a_question_is_as_rfc_6887_draws_it() {
        assert_eq!(&write(&QUESTION), ASKED);
        let client: IpAddr = "2001:db8::5".parse().unwrap();
        let bytes = write(&Question { client, transport: Transport::Udp, ..QUESTION });
        assert_eq!(bytes[8..24], octets(client));
        assert_eq!((bytes[36], &bytes[44..]), (17, &[0; 16][..]));
        let known = Question { external_ip: Some(client), ..QUESTION };
        assert_eq!(write(&known)[44..], octets(client));
    }

    #[test]
    fn an_answer_says_where_others_see_us() {
        let answer = parse(ANSWERED, &QUESTION).unwrap();
        assert_eq!(answer.epoch_s, 0x1234);
        let granted = Granted::Port {
            external_port: 40_000,
            lifetime_s: 3_600,
            external_ip: Some("203.0.113.7".parse().unwrap()),
        };
        assert_eq!(answer.outcome, Ok(granted));
        assert_eq!(epoch_s(ANSWERED), Some(0x1234));
    }

    #[test]
    fn every_result_has_its_meaning() {
        let meanings = [
            (1, Refusal::Version),
            (2, Refusal::NotAuthorised),
            (3, Refusal::Other(3)),
            (4, Refusal::NotOffered),
            (5, Refusal::NotOffered),
            (6, Refusal::Other(6)),
            (7, Refusal::NoConnection),
            (8, Refusal::NoRoom),
            (9, Refusal::NotOffered),
            (10, Refusal::NoRoom),
            (11, Refusal::Other(11)),
            (12, Refusal::OtherNetwork),
            (13, Refusal::NoRoom),
            (255, Refusal::Other(255)),
        ];
        for (result, meaning) in meanings {
            let mut bytes = *ANSWERED;
            bytes[3] = result;
            let answer = parse(&bytes, &QUESTION).unwrap();
            assert_eq!((answer.outcome, answer.hold_off_s), (Err(meaning), 3_600), "{result}");
        }
        // One that knows version 1 only does not repeat the rest.
        let old = b"\x01\x81\0\x01\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(parse(old, &QUESTION).unwrap().outcome, Err(Refusal::Version));
    }

    #[test]
    fn what_is_no_answer_or_anothers_is_not_heard() {
        for length in (0..60).chain([61, 62, 63]) {
            let mut bytes = [0; 63];
            bytes[..60].copy_from_slice(ANSWERED);
            assert!(parse(&bytes[..length], &QUESTION).is_none(), "{length} bytes");
        }
        let mut long = [0; BYTES_MAX + 4];
        long[..60].copy_from_slice(ANSWERED);
        assert!(parse(&long, &QUESTION).is_none());
        assert!(parse(&long[..BYTES_MAX], &QUESTION).is_some(), "options are passed over");
        // Version 0, a question, another opcode, nonce, protocol, port.
        for (at, byte) in [(0, 0), (1, 1), (1, 0x82), (24, 0), (36, 17), (41, 0)] {
            let mut bytes = *ANSWERED;
            bytes[at] = byte;
            assert!(parse(&bytes, &QUESTION).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_router_that_has_restarted_is_told_by_its_time() {
        for (before, now, passed_ms, remembers_us) in [
            (1_000, 1_000, 0, true),
            (1_000, 999, 0, true),
            (1_000, 998, 0, false),
            (1_000, 4_600, 3_600_000, true),
            // A clock that goes a little slow or fast.
            (1_000, 4_400, 3_600_000, true),
            (1_000, 4_800, 3_600_000, true),
            (1_000, 4_000, 3_600_000, false),
            (1_000, 5_000, 3_600_000, false),
            (1_000, 0, 3_600_000, false),
            (0, u32::MAX, 1_000, false),
            (u32::MAX, u32::MAX, 0, true),
        ] {
            assert_eq!(remembers(before, now, passed_ms), remembers_us, "{before} {now}");
        }
    }
}
