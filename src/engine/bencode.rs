//! Bencoding (BEP 3): a zero-copy view of what was received, and a writer for what is sent.
//!
//! [`Value`] is a run of bytes that has been checked to hold exactly one well-formed value, so
//! every accessor after that is infallible or an `Option`. Nothing is decoded into maps: a
//! dictionary is looked up by walking it. Nesting is bounded and nothing recurses.
//!
//! ```text
//! d8:intervali1800e5:peers6:......e
//! ^ Value::parse checks all of it   ^ what follows is the caller's
//! ```
//!
//! A metainfo file, which may be larger than memory, is not read with this but with the
//! [`scanner`](super::metainfo::scan) that needs a small window only.

use super::limits::BENCODE_DEPTH_MAX;
use core::fmt;

/// One well-formed value, still in its encoded form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    raw: &'a [u8],
}

/// Why bytes are not bencoding, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BencodeError {
    /// Offset of the byte at fault.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for BencodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

impl core::error::Error for BencodeError {}

impl<'a> Value<'a> {
    /// Checks the value at the front of `bytes`; gives it and what follows.
    ///
    /// # Work
    /// One pass over the value, depth at most [`BENCODE_DEPTH_MAX`].
    pub fn parse_prefix(bytes: &'a [u8]) -> Result<(Value<'a>, &'a [u8]), BencodeError> {
        let length = measure(bytes)?;
        let (raw, rest) = bytes.split_at(length);
        Ok((Value { raw }, rest))
    }

    /// Checks that `bytes` are one value and nothing else.
    pub fn parse(bytes: &'a [u8]) -> Result<Value<'a>, BencodeError> {
        let (value, rest) = Value::parse_prefix(bytes)?;
        if rest.is_empty() {
            return Ok(value);
        }
        Err(BencodeError { at: bytes.len() - rest.len(), what: "more bytes after the value" })
    }

    /// The value as an integer.
    pub fn integer(&self) -> Option<i64> {
        match self.raw {
            [b'i', digits @ .., b'e'] => parse_integer(digits).ok(),
            _ => None,
        }
    }

    /// The value as a byte string.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        let (head, length) = string_head(self.raw).ok()?;
        let end = head.checked_add(usize::try_from(length).ok()?)?;
        self.raw.get(head..end)
    }

    /// The values of a list; nothing for anything else.
    pub fn items(&self) -> Items<'a> {
        Items { rest: inside(self.raw, b'l') }
    }

    /// Keys and values of a dictionary in the order they stand; nothing for anything else.
    pub fn entries(&self) -> Entries<'a> {
        Entries { items: Items { rest: inside(self.raw, b'd') } }
    }

    /// The value under `key` of a dictionary. The first one counts when there are two.
    pub fn find(&self, key: &[u8]) -> Option<Value<'a>> {
        self.entries().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The value's own bytes.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The values of a list, in order.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (value, rest) = Value::parse_prefix(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }
}

/// The entries of a dictionary, in order.
#[derive(Clone)]
pub struct Entries<'a> {
    items: Items<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.items.next()?.bytes()?, self.items.next()?))
    }
}

/// Where a [`Writer`] puts its bytes.
pub trait Sink {
    /// What may go wrong.
    type Error;

    /// Takes all of `bytes` or fails.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// A fixed vector takes bytes until it is full.
impl<const N: usize> Sink for heapless::Vec<u8, N> {
    type Error = Full;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes).map_err(|_| Full)
    }
}

/// What was lent has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Writes bencoding into a [`Sink`]. The caller keeps the keys of a dictionary sorted.
pub struct Writer<'s, S: Sink> {
    sink: &'s mut S,
}

impl<'s, S: Sink> Writer<'s, S> {
    /// A writer at the end of `sink`.
    pub fn new(sink: &'s mut S) -> Self {
        Writer { sink }
    }

    /// Opens a dictionary; [`end`](Self::end) closes it.
    pub fn dictionary(&mut self) -> Result<&mut Self, S::Error> {
        self.raw(b"d")
    }

    /// Opens a list; [`end`](Self::end) closes it.
    pub fn list(&mut self) -> Result<&mut Self, S::Error> {
        self.raw(b"l")
    }

    /// Closes what was opened last.
    pub fn end(&mut self) -> Result<&mut Self, S::Error> {
        self.raw(b"e")
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<&mut Self, S::Error> {
        self.string_head(bytes.len() as u64)?.raw(bytes)
    }

    /// The head of a byte string whose `length` bytes the caller writes itself.
    pub fn string_head(&mut self, length: u64) -> Result<&mut Self, S::Error> {
        let mut digits = [0; 20];
        self.raw(decimal(length, &mut digits))?.raw(b":")
    }

    /// An integer that is not negative: we write no others.
    pub fn integer(&mut self, number: u64) -> Result<&mut Self, S::Error> {
        let mut digits = [0; 20];
        self.raw(b"i")?.raw(decimal(number, &mut digits))?.raw(b"e")
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<&mut Self, S::Error> {
        self.sink.put(bytes)?;
        Ok(self)
    }
}

/// `number` in decimal, in the tail of `digits`.
pub(crate) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Parses what stands between `i` and `e`: no leading zeros, no `-0`, within 64 bits.
pub(crate) fn parse_integer(digits: &[u8]) -> Result<i64, &'static str> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    match digits {
        [] => return Err("an integer without digits"),
        [b'0', _, ..] => return Err("an integer with a leading zero"),
        [b'0'] if negative => return Err("an integer that is minus zero"),
        _ => {}
    }
    digits.iter().try_fold(0i64, |number, digit| {
        if !digit.is_ascii_digit() {
            return Err("an integer with something that is no digit");
        }
        let digit = i64::from(digit - b'0');
        let number = number.checked_mul(10).ok_or("an integer beyond 64 bits")?;
        let signed = if negative { number.checked_sub(digit) } else { number.checked_add(digit) };
        signed.ok_or("an integer beyond 64 bits")
    })
}

/// Length of the value at the front of `bytes`, all of it checked.
fn measure(bytes: &[u8]) -> Result<usize, BencodeError> {
    // One entry for each open list or dictionary: for a dictionary, whether a key comes next.
    let mut open: heapless::Vec<Option<bool>, BENCODE_DEPTH_MAX> = heapless::Vec::new();
    let mut at = 0;
    loop {
        let fail = |what| BencodeError { at, what };
        let first = *bytes.get(at).ok_or(fail("ends in the middle of a value"))?;
        let key_next = matches!(open.last(), Some(Some(true)));
        if key_next && !first.is_ascii_digit() && first != b'e' {
            return Err(fail("a dictionary key that is no string"));
        }
        match first {
            b'l' | b'd' => {
                let entry = (first == b'd').then_some(true);
                open.push(entry).map_err(|_| fail("nested too deeply"))?;
                at += 1;
                continue;
            }
            b'e' => {
                if matches!(open.last(), Some(Some(false))) {
                    return Err(fail("a dictionary key without a value"));
                }
                open.pop().ok_or(fail("an end that closes nothing"))?;
                at += 1;
            }
            b'i' => {
                let digits = bytes[at + 1..].iter().take(MAX_DIGITS).position(|b| *b == b'e');
                let digits = digits.ok_or(fail("an integer without its end"))?;
                parse_integer(&bytes[at + 1..at + 1 + digits]).map_err(fail)?;
                at += digits + 2;
            }
            _ => {
                let (head, length) = string_head(&bytes[at..]).map_err(fail)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let end = at.checked_add(head).and_then(|start| start.checked_add(length));
                at = end
                    .filter(|end| *end <= bytes.len())
                    .ok_or(fail("a string longer than what is there"))?;
            }
        }
        match open.last_mut() {
            None => return Ok(at),
            Some(Some(key_next)) => *key_next = !*key_next,
            Some(None) => {}
        }
    }
}

/// Reads `123:` at the front of `bytes`: the length of this head and of the string behind it.
pub(super) fn string_head(bytes: &[u8]) -> Result<(usize, u64), &'static str> {
    let colon = bytes.iter().take(MAX_DIGITS).position(|byte| *byte == b':');
    let colon = colon.ok_or("neither a string, an integer, a list nor a dictionary")?;
    match bytes[..colon] {
        [] => return Err("a string without a length"),
        [b'0', _, ..] => return Err("a string length with a leading zero"),
        _ => {}
    }
    let length = bytes[..colon].iter().try_fold(0u64, |length, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'));
        length.checked_mul(10)?.checked_add(digit?)
    });
    Ok((colon + 1, length.ok_or("a string length that is no number")?))
}

/// What stands between the brackets of a checked container of that kind, else nothing.
fn inside(raw: &[u8], kind: u8) -> &[u8] {
    match raw {
        [first, inner @ .., b'e'] if *first == kind => inner,
        _ => &[],
    }
}

/// Digits of a 64-bit integer with its sign and its end.
const MAX_DIGITS: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_walked_in_place() {
        let value = Value::parse(b"d1:ai-7e1:bl2:xyi0ee1:cd1:k1:vee").unwrap();
        assert_eq!(value.find(b"a").unwrap().integer(), Some(-7));
        assert_eq!(value.find(b"b").unwrap().items().count(), 2);
        assert_eq!(value.find(b"c").unwrap().find(b"k").unwrap().bytes(), Some(&b"v"[..]));
        assert_eq!(value.find(b"d"), None);
        assert_eq!(value.find(b"a").unwrap().bytes(), None);
    }

    #[test]
    fn what_is_not_bencoding_is_refused_with_its_place() {
        let wrong: [(&[u8], usize); 14] = [
            (b"", 0),
            (b"i12", 0),
            (b"i-0e", 0),
            (b"i01e", 0),
            (b"i99999999999999999999e", 0),
            (b"03:abc", 0),
            (b"5:abc", 0),
            (b"99999999999999999999:a", 0),
            (b"d1:ae", 4),
            (b"di1ei2ee", 1),
            (b"l", 1),
            (b"e", 0),
            (b"i1ei2e", 3),
            (b"x", 0),
        ];
        for (bytes, at) in wrong {
            assert_eq!(Value::parse(bytes).unwrap_err().at, at, "{bytes:?}");
        }
        assert!(Value::parse(&[b'l'; 100]).unwrap_err().what.contains("deep"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut sink = heapless::Vec::<u8, 64>::new();
        let mut writer = Writer::new(&mut sink);
        writer.dictionary().unwrap().bytes(b"n").unwrap().integer(u64::MAX >> 1).unwrap();
        writer.bytes(b"s").unwrap().bytes(b"").unwrap().end().unwrap();
        let value = Value::parse(&sink).unwrap();
        assert_eq!(value.find(b"n").unwrap().integer(), Some(i64::MAX));
        assert_eq!(value.find(b"s").unwrap().bytes(), Some(&b""[..]));
        assert_eq!(Writer::new(&mut sink).bytes(&[0; 64]).err(), Some(Full));
    }
}
