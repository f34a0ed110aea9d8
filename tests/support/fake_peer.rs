//! The other side of the wire, by rules of its own: what a peer says as raw bytes, and what it
//! makes of ours.
//!
//! Nothing here uses the engine's own writers and parsers, so that a mistake in them is not made
//! twice.

#![allow(dead_code, reason = "each test crate uses what it needs")]

/// What a peer can say of itself in the reserved bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaks {
    /// BEP 6.
    pub fast: bool,
    /// BEP 10.
    pub extended: bool,
}

impl Speaks {
    /// BEP 3 and nothing else.
    pub const PLAIN: Speaks = Speaks { fast: false, extended: false };
    /// BEP 6 and 10.
    pub const ALL: Speaks = Speaks { fast: true, extended: true };
}

/// `(piece, begin, length)`.
pub type Wanted = (u32, u32, u32);

/// The 68 bytes everything starts with.
pub fn handshake(info_hash: [u8; 20], peer_id: [u8; 20], speaks: Speaks) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol".to_vec();
    let mut reserved = [0; 8];
    reserved[5] = if speaks.extended { 0x10 } else { 0 };
    reserved[7] = if speaks.fast { 0x04 } else { 0 };
    bytes.extend(reserved);
    bytes.extend(info_hash);
    bytes.extend(peer_id);
    bytes
}

/// A message: its length, its id and what follows.
pub fn message(id: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 1).to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend(body);
    bytes
}

pub fn keep_alive() -> Vec<u8> {
    vec![0; 4]
}

pub fn choke() -> Vec<u8> {
    message(0, &[])
}

pub fn unchoke() -> Vec<u8> {
    message(1, &[])
}

pub fn interested() -> Vec<u8> {
    message(2, &[])
}

pub fn not_interested() -> Vec<u8> {
    message(3, &[])
}

pub fn have(piece: u32) -> Vec<u8> {
    message(4, &piece.to_be_bytes())
}

pub fn bitfield(bits: &[u8]) -> Vec<u8> {
    message(5, bits)
}

pub fn request(wanted: Wanted) -> Vec<u8> {
    message(6, &three(wanted))
}

pub fn piece(at: (u32, u32), data: &[u8]) -> Vec<u8> {
    let body = [&at.0.to_be_bytes(), &at.1.to_be_bytes(), data].concat();
    message(7, &body)
}

pub fn cancel(wanted: Wanted) -> Vec<u8> {
    message(8, &three(wanted))
}

pub fn have_all() -> Vec<u8> {
    message(14, &[])
}

pub fn have_none() -> Vec<u8> {
    message(15, &[])
}

pub fn reject(wanted: Wanted) -> Vec<u8> {
    message(16, &three(wanted))
}

/// Message `sub_id` of an extension.
pub fn extended(sub_id: u8, payload: &[u8]) -> Vec<u8> {
    message(20, &[&[sub_id], payload].concat())
}

/// The extended handshake of a peer that gives metadata messages this number.
pub fn hello(metadata_id: u8) -> Vec<u8> {
    let text = format!("d1:md11:ut_metadatai{metadata_id}ee1:v9:fake peere");
    extended(0, text.as_bytes())
}

/// Asks for a piece of the metadata, under the number the other side gave to such messages.
pub fn metadata_request(sub_id: u8, piece: u32) -> Vec<u8> {
    extended(sub_id, format!("d8:msg_typei0e5:piecei{piece}ee").as_bytes())
}

fn three((piece, begin, length): Wanted) -> Vec<u8> {
    [piece, begin, length].iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// What a peer of ours can be heard saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Handshake {
        info_hash: [u8; 20],
        peer_id: [u8; 20],
        speaks: Speaks,
    },
    KeepAlive,
    Choke,
    Unchoke,
    Have(u32),
    Bitfield(Vec<u8>),
    Piece {
        piece: u32,
        begin: u32,
        data: Vec<u8>,
    },
    HaveAll,
    HaveNone,
    Reject(Wanted),
    Hello(Vec<u8>),
    /// A metadata message: its dictionary, and what follows it.
    Metadata {
        dictionary: String,
        data: Vec<u8>,
    },
}

/// Cuts what is heard into messages.
#[derive(Debug, Default)]
pub struct Ear {
    buffer: Vec<u8>,
    greeted: bool,
}

impl Ear {
    /// Takes in what was read.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next whole message.
    ///
    /// # Panics
    /// When it is one that a seed never sends: the stream is corrupt.
    pub fn next(&mut self) -> Option<Heard> {
        if !self.greeted {
            let whole: Vec<u8> = self.buffer.get(..68)?.to_vec();
            self.buffer.drain(..68);
            self.greeted = true;
            return Some(read_handshake(&whole));
        }
        let length = u32::from_be_bytes(self.buffer.get(..4)?.try_into().unwrap()) as usize;
        assert!(length <= 9 + (32 << 10), "a message of {length} bytes");
        let whole: Vec<u8> = self.buffer.get(4..4 + length)?.to_vec();
        self.buffer.drain(..4 + length);
        Some(read_message(&whole))
    }

    /// Bytes of a message that has not come whole.
    pub fn unfinished(&self) -> usize {
        self.buffer.len()
    }
}

fn read_handshake(bytes: &[u8]) -> Heard {
    assert_eq!(&bytes[..20], b"\x13BitTorrent protocol");
    let speaks = Speaks { fast: bytes[27] & 0x04 != 0, extended: bytes[25] & 0x10 != 0 };
    let part = |at: usize| bytes[at..at + 20].try_into().unwrap();
    Heard::Handshake { info_hash: part(28), peer_id: part(48), speaks }
}

fn read_message(bytes: &[u8]) -> Heard {
    let Some((id, body)) = bytes.split_first() else { return Heard::KeepAlive };
    let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    match (id, body.len()) {
        (0, 0) => Heard::Choke,
        (1, 0) => Heard::Unchoke,
        (4, 4) => Heard::Have(number(0)),
        (5, 1..) => Heard::Bitfield(body.to_vec()),
        (7, 9..) => Heard::Piece { piece: number(0), begin: number(4), data: body[8..].to_vec() },
        (14, 0) => Heard::HaveAll,
        (15, 0) => Heard::HaveNone,
        (16, 12) => Heard::Reject((number(0), number(4), number(8))),
        (20, 2..) if body[0] == 0 => Heard::Hello(body[1..].to_vec()),
        (20, 2..) => {
            let end = dictionary_end(&body[1..]);
            let dictionary = String::from_utf8(body[1..1 + end].to_vec()).unwrap();
            Heard::Metadata { dictionary, data: body[1 + end..].to_vec() }
        }
        other => panic!("a seed does not say {other:?}: the stream is corrupt"),
    }
}

/// Where a flat dictionary of numbers ends.
fn dictionary_end(bytes: &[u8]) -> usize {
    let end = bytes.windows(2).position(|pair| pair == b"ee").expect("a dictionary of numbers");
    end + 2
}

/// The number that stands behind `key` in a bencoded dictionary.
pub fn number_of(dictionary: &[u8], key: &str) -> Option<u32> {
    let key = format!("{}:{key}i", key.len());
    let at = dictionary.windows(key.len()).position(|part| part == key.as_bytes())? + key.len();
    let digits: String =
        dictionary[at..].iter().take_while(|byte| **byte != b'e').map(|b| char::from(*b)).collect();
    digits.parse().ok()
}
