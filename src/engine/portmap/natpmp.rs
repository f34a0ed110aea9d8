//! NAT-PMP on the wire (RFC 6886), for routers that do not speak its successor.
//!
//! ```text
//! question  0 | 0                                                          its address
//!           0 | 1 or 2 | reserved 2 | port 2 | external port 2 | lifetime 4    a UDP or TCP port
//! answer    0 | 128+ | result 2 | epoch 4 | address 4
//!           0 | 128+ | result 2 | epoch 4 | port 2 | external port 2 | lifetime 4
//! ```
//!
//! Nothing in an answer proves that its sender has seen the question; that it comes from the
//! router's address and port is all there is, and the service's socket sees to it.

use super::{Answer, Granted, Refusal, Transport};
use core::net::{IpAddr, Ipv4Addr};

/// A question for one port.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Of which kind the port is.
    pub transport: Transport,
    /// The port we listen on.
    pub port: u16,
    /// The port we would like outside; 0 for any, and when it is given back.
    pub external_port: u16,
    /// For how long; 0 gives the port back.
    pub lifetime_s: u32,
}

/// The question for the router's address (RFC 6886, section 3.2).
pub const ADDRESS_QUESTION: [u8; 2] = [VERSION, OPCODE_ADDRESS];

/// Writes the question for a port (RFC 6886, section 3.3).
pub fn write(question: &Question) -> [u8; PORT_BYTES] {
    let mut bytes = [0; PORT_BYTES];
    bytes[..2].copy_from_slice(&[VERSION, opcode(question.transport)]);
    bytes[4..6].copy_from_slice(&question.port.to_be_bytes());
    bytes[6..8].copy_from_slice(&question.external_port.to_be_bytes());
    bytes[8..].copy_from_slice(&question.lifetime_s.to_be_bytes());
    bytes
}

/// Reads the answer to the question for the address; `None` for what is none.
pub fn parse_address(bytes: &[u8]) -> Option<Answer> {
    let head = head(bytes, OPCODE_ADDRESS)?;
    head.answer(|| {
        let (octets, _) = bytes.get(HEAD_BYTES..)?.split_first_chunk::<4>()?;
        let ip = Ipv4Addr::from(*octets);
        // What a router says that has no address at the moment.
        Some(Granted::Address((!ip.is_unspecified()).then_some(IpAddr::V4(ip))))
    })
}

/// Reads the answer to the question for a port; `None` for what is none, or another's.
pub fn parse_port(bytes: &[u8], question: &Question) -> Option<Answer> {
    let head = head(bytes, opcode(question.transport))?;
    head.answer(|| {
        let (rest, _) = bytes.get(HEAD_BYTES..)?.split_first_chunk::<8>()?;
        let [port, port_low, external, external_low, lifetime @ ..] = *rest;
        (u16::from_be_bytes([port, port_low]) == question.port).then_some(Granted::Port {
            external_port: u16::from_be_bytes([external, external_low]),
            lifetime_s: u32::from_be_bytes(lifetime),
            external_ip: None,
        })
    })
}

/// The router's time, from anything it says in NAT-PMP: an answer, or its address told to everybody
/// after it has restarted (RFC 6886, section 3.2.1). `None` also tells that this is no NAT-PMP.
pub fn epoch_s(bytes: &[u8]) -> Option<u32> {
    let [VERSION, opcode, ..] = *bytes else { return None };
    head(bytes, opcode & !IS_ANSWER).map(|head| head.epoch_s)
}

/// Whether a router whose time was `before_s` can, so many milliseconds later, say `now_s` without
/// having forgotten us (RFC 6886, section 3.6).
pub fn remembers(before_s: u32, now_s: u32, passed_ms: u64) -> bool {
    // It may go an eighth slow, and be 2 s late.
    let expected = u64::from(before_s) + passed_ms / 1_000 * 7 / 8;
    u64::from(now_s) + 2 >= expected
}

struct Head {
    result: u16,
    epoch_s: u32,
}

impl Head {
    /// The answer, which holds what `granted` reads when it is a yes.
    fn answer(&self, granted: impl FnOnce() -> Option<Granted>) -> Option<Answer> {
        let outcome = match self.result {
            0 => Ok(granted()?),
            1 => Err(Refusal::Version),
            2 => Err(Refusal::NotAuthorised),
            3 => Err(Refusal::NoConnection),
            4 => Err(Refusal::NoRoom),
            5 => Err(Refusal::NotOffered),
            other => Err(Refusal::Other(other)),
        };
        Some(Answer { epoch_s: self.epoch_s, outcome, hold_off_s: 0 })
    }
}

/// Splits up what every answer begins with. A refusal may end there: not every router repeats what
/// it has not understood.
fn head(bytes: &[u8], opcode: u8) -> Option<Head> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [version, answer, result, result_low, epoch_s @ ..] = *head;
    let is_answer = version == VERSION && answer == opcode | IS_ANSWER && rest.len() <= REST_MAX;
    is_answer.then_some(Head {
        result: u16::from_be_bytes([result, result_low]),
        epoch_s: u32::from_be_bytes(epoch_s),
    })
}

const fn opcode(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

/// What a question for a port takes.
pub const PORT_BYTES: usize = 12;

/// What follows the head of the longest answer: a router that does not know PCP may send all of a
/// question back behind its own head.
const REST_MAX: usize = super::pcp::BYTES_MAX;

const HEAD_BYTES: usize = 8;
const VERSION: u8 = 0;
const OPCODE_ADDRESS: u8 = 0;
const IS_ANSWER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question =
        Question { transport: Transport::Tcp, port: 6881, external_port: 6882, lifetime_s: 7200 };

    /// RFC 6886, section 3.3: 6881 as 40000 for 3600 s, at 4660 s of the router's time.
    const ANSWERED: &[u8; 16] = b"\0\x82\0\0\0\0\x12\x34\x1a\xe1\x9c\x40\0\0\x0e\x10";

    /// RFC 6886, section 3.2: 203.0.113.7.
    const ADDRESS: &[u8; 12] = b"\0\x80\0\0\0\0\x12\x34\xcb\0\x71\x07";

    #[test]
    fn questions_are_as_rfc_6886_draws_them() {
        assert_eq!(ADDRESS_QUESTION, [0, 0]);
        assert_eq!(&write(&QUESTION), b"\0\x02\0\0\x1a\xe1\x1a\xe2\0\0\x1c\x20");
        let udp = write(&Question { transport: Transport::Udp, ..QUESTION });
        assert_eq!(udp[1], 1);
    }

    #[test]
    fn answers_say_address_port_and_time() {
        let answer = parse_address(ADDRESS).unwrap();
        let ip = Some("203.0.113.7".parse().unwrap());
        assert_eq!((answer.epoch_s, answer.outcome), (0x1234, Ok(Granted::Address(ip))));
        let none = parse_address(b"\0\x80\0\0\0\0\x12\x34\0\0\0\0").unwrap();
        assert_eq!(none.outcome, Ok(Granted::Address(None)));
        let granted = Granted::Port { external_port: 40_000, lifetime_s: 3_600, external_ip: None };
        assert_eq!(parse_port(ANSWERED, &QUESTION).unwrap().outcome, Ok(granted));
        assert_eq!((epoch_s(ANSWERED), epoch_s(ADDRESS)), (Some(0x1234), Some(0x1234)));
    }

    #[test]
    fn every_result_has_its_meaning_in_full_answers_and_in_short_ones() {
        let meanings = [
            (1, Refusal::Version),
            (2, Refusal::NotAuthorised),
            (3, Refusal::NoConnection),
            (4, Refusal::NoRoom),
            (5, Refusal::NotOffered),
            (6, Refusal::Other(6)),
        ];
        for (result, meaning) in meanings {
            let mut bytes = *ANSWERED;
            bytes[3] = result;
            for length in [8, 16] {
                let answer = parse_port(&bytes[..length], &QUESTION).unwrap();
                assert_eq!(answer.outcome, Err(meaning), "{result} in {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_short_or_anothers_is_not_heard() {
        for length in 0..16 {
            assert!(parse_port(&ANSWERED[..length], &QUESTION).is_none(), "{length} bytes");
        }
        for length in 0..12 {
            assert!(parse_address(&ADDRESS[..length]).is_none(), "{length} bytes");
        }
        // Another version, a question, another transport, another port.
        for (at, byte) in [(0, 2), (1, 2), (1, 0x81), (9, 0)] {
            let mut bytes = *ANSWERED;
            bytes[at] = byte;
            assert!(parse_port(&bytes, &QUESTION).is_none(), "byte {at}");
        }
        assert!(epoch_s(&[2, 0x80, 0, 0, 0, 0, 0, 0]).is_none());
    }

    #[test]
    fn a_router_that_has_restarted_is_told_by_its_time() {
        for (before, now, passed_ms, remembers_us) in [
            (1_000, 1_000, 0, true),
            (1_000, 998, 0, true),
            (1_000, 997, 0, false),
            (1_000, 4_150, 3_600_000, true),
            (1_000, 4_147, 3_600_000, false),
            // One that goes fast has not forgotten anything.
            (1_000, 9_000, 3_600_000, true),
            (1_000, 5, 3_600_000, false),
        ] {
            assert_eq!(remembers(before, now, passed_ms), remembers_us, "{before} {now}");
        }
    }
}
