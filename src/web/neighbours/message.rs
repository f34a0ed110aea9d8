//! DNS messages as they go over the LAN (RFC 1035, 4; RFC 6762, 18): read with every bound looked
//! at, written without compression.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::string::String;
use std::vec::Vec;

/// A name: its labels, as they came.
pub type Name = Vec<String>;

/// One entry of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Somebody asks. Whether the answer is wanted by him alone.
    Question(Name, u16, bool),
    /// Somebody says; for so many seconds.
    Record(Name, u32, Data),
    /// Somebody is about to say, and asks whether another does (RFC 6762, 8.2).
    Claim(Name, Data),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// There is one of that kind.
    Pointer(Name),
    /// It is there.
    Service(u16, Name),
    /// It has this address.
    V4(Ipv4Addr),
    /// It has this address.
    V6(Ipv6Addr),
    /// Of no use to us.
    Other,
}

/// A message's number, whether it answers, and its entries; `None` when it cannot be read.
pub fn read(bytes: &[u8]) -> Option<(u16, bool, Vec<Entry>)> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let answers = number(2)? & 0x8000 != 0;
    let counts = [number(4)?, number(6)?, number(8)?, number(10)?];
    if counts.iter().map(|count| usize::from(*count)).sum::<usize>() > ENTRIES_MAX {
        return None;
    }
    let (mut at, mut entries) = (12, Vec::new());
    for _ in 0..counts[0] {
        let name = read_name(bytes, &mut at)?;
        let (kind, class) = (number(at)?, number(at + 2)?);
        at += 4;
        entries.push(Entry::Question(name, kind, class & TOP_BIT != 0));
    }
    for (section, count) in counts.iter().enumerate().skip(1) {
        for _ in 0..*count {
            let name = read_name(bytes, &mut at)?;
            let kind = number(at)?;
            let ttl = u32::from(number(at + 4)?) << 16 | u32::from(number(at + 6)?);
            let length = usize::from(number(at + 8)?);
            at += 10;
            let data = bytes.get(at..at + length)?;
            let data = read_data(bytes, kind, at, data)?;
            at += length;
            // What stands in the second section of a question is what whoever asks would say.
            let is_claim = section == 2 && !answers;
            entries.push(match is_claim {
                true => Entry::Claim(name, data),
                false => Entry::Record(name, ttl, data),
            });
        }
    }
    Some((number(0)?, answers, entries))
}

fn read_data(bytes: &[u8], kind: u16, mut at: usize, data: &[u8]) -> Option<Data> {
    Some(match kind {
        PTR => Data::Pointer(read_name(bytes, &mut at)?),
        SRV => {
            let port = u16::from_be_bytes([*data.get(4)?, *data.get(5)?]);
            at += 6;
            Data::Service(port, read_name(bytes, &mut at)?)
        }
        A => Data::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
        AAAA => Data::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
        _ => Data::Other,
    })
}

/// A name from `at` on, which is behind it then. Every pointer leads to the front of the last, so
/// that none leads round in a circle.
fn read_name(bytes: &[u8], at: &mut usize) -> Option<Name> {
    let (mut labels, mut length, mut from, mut end) = (Vec::new(), 0, *at, None);
    loop {
        let first = usize::from(*bytes.get(from)?);
        match first {
            0 => {
                *at = end.unwrap_or(from + 1);
                return Some(labels);
            }
            1..=63 => {
                length += first + 1;
                let label = bytes.get(from + 1..from + 1 + first)?;
                if length > NAME_BYTES_MAX {
                    return None;
                }
                labels.push(String::from_utf8_lossy(label).into_owned());
                from += 1 + first;
            }
            0xc0.. => {
                let to = (first & 0x3f) << 8 | usize::from(*bytes.get(from + 1)?);
                end = end.or(Some(from + 2));
                if to >= from {
                    return None;
                }
                from = to;
            }
            _ => return None,
        }
    }
}

/// Whether two names are the same (RFC 6762, 16: but for ASCII's case).
pub fn is_same(one: &[String], other: &[&str]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// A message being written.
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A question.
    pub fn question() -> Writer {
        Writer { bytes: std::vec![0; 12] }
    }

    /// An answer; to the question of that number, or to nobody's.
    pub fn answer(number: u16) -> Writer {
        let mut writer = Writer::question();
        writer.bytes[..2].copy_from_slice(&number.to_be_bytes());
        writer.bytes[2] = 0x84;
        writer
    }

    /// It.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Asks.
    pub fn ask(mut self, name: &[&str], kind: u16) -> Writer {
        self.name(name);
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(1_u16.to_be_bytes());
        self.count(4)
    }

    /// Says what is to be heard as an answer.
    pub fn say(self, name: &[&str], ttl_s: u32, data: &Data) -> Writer {
        self.record(name, ttl_s, data).count(6)
    }

    /// Says what would be said, were nobody to object.
    pub fn claim(self, name: &[&str], data: &Data) -> Writer {
        self.record(name, 0, data).count(8)
    }

    /// Says that there is nothing else to say of it: where its page begins.
    pub fn text(mut self, name: &[&str], ttl_s: u32) -> Writer {
        self.head(name, TXT, 1 | TOP_BIT, ttl_s);
        self.bytes.extend([0, 7, 6]);
        self.bytes.extend(b"path=/");
        self.count(6)
    }

    fn record(mut self, name: &[&str], ttl_s: u32, data: &Data) -> Writer {
        // What only we say replaces what was known; of pointers others may say more.
        let (kind, class) = match data {
            Data::Pointer(_) => (PTR, 1),
            Data::Service(..) => (SRV, 1 | TOP_BIT),
            Data::V4(_) => (A, 1 | TOP_BIT),
            Data::V6(_) => (AAAA, 1 | TOP_BIT),
            Data::Other => return self,
        };
        self.head(name, kind, class, ttl_s);
        let at = self.bytes.len();
        self.bytes.extend([0, 0]);
        match data {
            Data::Pointer(to) => self.name(&refs(to)),
            Data::Service(port, to) => {
                self.bytes.extend([0; 4]);
                self.bytes.extend(port.to_be_bytes());
                self.name(&refs(to));
            }
            Data::V4(ip) => self.bytes.extend(ip.octets()),
            Data::V6(ip) => self.bytes.extend(ip.octets()),
            Data::Other => {}
        }
        let length = (self.bytes.len() - at - 2) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        self
    }

    fn head(&mut self, name: &[&str], kind: u16, class: u16, ttl_s: u32) {
        self.name(name);
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(class.to_be_bytes());
        self.bytes.extend(ttl_s.to_be_bytes());
    }

    fn name(&mut self, labels: &[&str]) {
        for label in labels {
            let label = &label.as_bytes()[..label.len().min(63)];
            self.bytes.push(label.len() as u8);
            self.bytes.extend(label);
        }
        self.bytes.push(0);
    }

    fn count(mut self, at: usize) -> Writer {
        let count = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]) + 1;
        self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        self
    }
}

/// Labels as they are written.
pub fn refs(name: &[String]) -> Vec<&str> {
    name.iter().map(String::as_str).collect()
}

/// Kinds of records (RFC 1035, 3.2.2; RFC 3596; RFC 2782).
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const ANY: u16 = 255;

/// Of a class: answer to me alone, or forget what else was said (RFC 6762, 18.12 and 18.13).
const TOP_BIT: u16 = 0x8000;

/// Entries of one message that are read.
const ENTRIES_MAX: usize = 128;

/// A name at most (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.split('.').map(String::from).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (to, pointer) = (name("attic.local"), Data::Pointer(name("My box._x._tcp.local")));
        let service = Data::Service(8080, to);
        let (v4, v6) = (Data::V4([192, 0, 2, 1].into()), Data::V6(Ipv6Addr::LOCALHOST));
        let bytes = Writer::answer(7)
            .say(&["_x", "_tcp", "local"], 4_500, &pointer)
            .say(&["My box", "_x"], 120, &service)
            .say(&["attic"], 120, &v4)
            .say(&["attic"], 120, &v6)
            .text(&["My box"], 9)
            .finish();
        let (number, answers, entries) = read(&bytes).unwrap();
        assert_eq!((number, answers, entries.len()), (7, true, 5));
        assert_eq!(entries[0], Entry::Record(name("_x._tcp.local"), 4_500, pointer));
        assert_eq!(entries[1], Entry::Record(name("My box._x"), 120, service));
        assert_eq!(entries[3], Entry::Record(name("attic"), 120, v6));
        assert_eq!(entries[4], Entry::Record(name("My box"), 9, Data::Other));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), None, "{cut}");
        }
        let asked = Writer::question().ask(&["attic"], ANY).claim(&["attic"], &v4).finish();
        let (_, answers, entries) = read(&asked).unwrap();
        assert!(!answers);
        let question = Entry::Question(name("attic"), ANY, false);
        assert_eq!(entries, [question, Entry::Claim(name("attic"), v4)]);
    }

    #[test]
    fn pointers_lead_back_and_never_round() {
        let mut bytes = Writer::question().ask(&["a", "b"], A).finish();
        bytes[5] = 2;
        bytes.extend([1, b'c', 0xc0, 12, 0, 1, 0x80, 1]);
        let (_, _, entries) = read(&bytes).unwrap();
        assert_eq!(entries[1], Entry::Question(name("c.a.b"), A, true));
        for round in [[0xc0, 12], [0xc0, 14], [0xff, 0xff], [0x40, 0], [0x80, 0]] {
            let mut bytes = std::vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.extend(round);
            bytes.extend([0, 1, 0, 1]);
            assert_eq!(read(&bytes), None, "{round:?}");
        }
    }

    #[test]
    fn no_datagram_whatsoever_is_more_than_nothing() {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for length in 0..400 {
            for _ in 0..20 {
                let mut bytes: Vec<u8> = (0..length).map(|_| random()).collect();
                for at in [4, 6, 8, 10].into_iter().filter(|at| at + 1 < length) {
                    (bytes[at], bytes[at + 1]) = (0, random() % 8);
                }
                let _ = read(&bytes);
            }
        }
    }
}
