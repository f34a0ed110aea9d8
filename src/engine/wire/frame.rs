//! Received bytes cut into messages, without copying what arrives whole.
//!
//! A message that lies whole in the bytes just handed in is parsed in place. One that is cut by
//! the end of them is kept in a carry of [`CARRY_BYTES`] until the rest comes. Some never need
//! keeping: a bitfield, a block and a piece of metadata are handed out in the parts they arrive in,
//! and what we do not know is counted and passed over. So a connection holds the carry and no more,
//! whatever the peer sends.
//!
//! ```text
//!  carry         input just handed in
//! |...cut|  +  |rest|  whole  |  whole  |cut...|
//!                ^frame ^frame    ^frame  ^ becomes the carry
//! ```
//!
//! Lengths are checked against the message's kind before a byte of it is kept.

use super::super::bencode::Value;
use super::super::limits::{
    CARRY_BYTES, FRAME_BYTES_MAX, METADATA_HEADER_BYTES_MAX, PIECE_HEADER_BYTES, PIECES_MAX,
};
use super::super::units::{Block, PieceIndex};
use super::PeerFault;
use super::extended::METADATA_ID;
use super::message::id;

/// One message, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Nothing but a sign of life.
    KeepAlive,
    /// `choke` (true) or `unchoke`.
    Choke(bool),
    /// `interested` (true) or `not interested`.
    Interested(bool),
    /// The peer has one piece more.
    Have(PieceIndex),
    /// A part of the bitfield: `bytes` from `offset` of `total`.
    Bitfield {
        /// Where in the bitfield the part begins.
        offset: u32,
        /// The part.
        bytes: &'a [u8],
        /// Length of the whole bitfield.
        total: u32,
    },
    /// The peer has everything (BEP 6).
    HaveAll,
    /// The peer has nothing (BEP 6).
    HaveNone,
    /// The peer asks for a block.
    Request(Block),
    /// The peer takes a request back.
    Cancel(Block),
    /// The peer will not answer a request of ours (BEP 6).
    Reject(Block),
    /// A part of a block: `bytes` from `offset` of it.
    Piece {
        /// All of the block.
        block: Block,
        /// Where in the block the part begins.
        offset: u32,
        /// The part.
        bytes: &'a [u8],
    },
    /// Message `sub_id` of an extension (BEP 10), 0 for the extended handshake.
    Extended {
        /// Number we (or, for 0, BEP 10) gave to this kind.
        sub_id: u8,
        /// All of it.
        payload: &'a [u8],
    },
    /// A part of a metadata message (BEP 9) that has not come whole: `bytes` from `offset` of its
    /// payload. The first part is its dictionary and no more.
    Metadata {
        /// Where in the payload the part begins.
        offset: u32,
        /// The part.
        bytes: &'a [u8],
        /// Length of the whole payload.
        total: u32,
    },
    /// Where the peer's DHT node listens (BEP 5).
    Port(u16),
    /// Advice we do not use: `suggest`, `allowed fast` (BEP 6).
    Advice,
    /// A message of a kind we do not know, or too long to be kept: passed over.
    Skipped,
}

/// Cuts one connection's bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    carry: heapless::Vec<u8, CARRY_BYTES>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Between,
    /// The carry held a whole frame that has been handed out; it is emptied next.
    CarryDone,
    /// Inside something that is given in parts; the front of metadata may still be in the carry.
    Inside { what: InParts, offset: u32, total: u32 },
    /// Inside something to pass over.
    Skip { left: u32 },
}

/// What is given in parts, as it comes.
#[derive(Clone, Copy, Debug)]
enum InParts {
    Bitfield,
    Piece(Block),
    Metadata,
}

impl Decoder {
    /// The next frame; takes what it used off the front of `input`. `None` when more is needed.
    ///
    /// # Work
    /// Bounded by `input`. A part of a bitfield or of a block is never empty.
    pub fn next<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'f>>, PeerFault> {
        if matches!(self.state, State::CarryDone) {
            self.carry.clear();
            self.state = State::Between;
        }
        match self.state {
            State::Inside { what, offset, total } => {
                self.carry.clear();
                return Ok(self.part(input, what, offset, total));
            }
            State::Skip { left } => {
                let taken = take(input, left as usize).len() as u32;
                if taken < left {
                    self.state = State::Skip { left: left - taken };
                    return Ok(None);
                }
                self.state = State::Between;
            }
            State::Between | State::CarryDone => {}
        }
        if self.carry.is_empty() { self.next_in_place(input) } else { self.next_in_carry(input) }
    }

    /// Nothing is kept: the frame is in the input, whole or in part.
    fn next_in_place<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'f>>, PeerFault> {
        let Some((length, id)) = head(input)? else {
            self.keep(input);
            return Ok(None);
        };
        let Some(id) = id else {
            take(input, 4);
            return Ok(Some(Frame::KeepAlive));
        };
        if id == id::BITFIELD {
            take(input, 5);
            return Ok(self.part(input, InParts::Bitfield, 0, length - 1));
        }
        let whole = 4 + length as usize;
        if id == id::PIECE && input.len() >= PIECE_HEADER_BYTES {
            let block = piece_block(length, take(input, PIECE_HEADER_BYTES))?;
            return Ok(self.part(input, InParts::Piece(block), 0, block.length));
        }
        if id != id::PIECE && input.len() >= whole {
            return parse(id, &take(input, whole)[5..]).map(Some);
        }
        if is_metadata(id, input) {
            self.keep_front(input);
            return self.next_in_carry(input);
        }
        if id != id::PIECE && whole > CARRY_BYTES {
            self.state = State::Skip { left: (whole - input.len()) as u32 };
            take(input, input.len());
            return Ok(Some(Frame::Skipped));
        }
        self.keep(input);
        Ok(None)
    }

    /// The front of a frame is kept: adds to it until it is whole.
    fn next_in_carry<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'f>>, PeerFault> {
        while self.carry.len() < 5 {
            let [byte] = *take(input, 1) else { return Ok(None) };
            self.carry.push(byte).map_err(|_| PeerFault::FrameTooLong)?;
            if let Some((_, None)) = head(&self.carry)? {
                self.carry.clear();
                return Ok(Some(Frame::KeepAlive));
            }
        }
        let Some((length, Some(id))) = head(&self.carry)? else { return Ok(None) };
        if id == id::BITFIELD {
            self.carry.clear();
            return Ok(self.part(input, InParts::Bitfield, 0, length - 1));
        }
        let head = id == id::PIECE;
        let whole = if head { PIECE_HEADER_BYTES } else { 4 + length as usize };
        if id == id::EXTENDED {
            if self.carry.len() < EXTENDED_HEAD_BYTES {
                let [sub_id] = *take(input, 1) else { return Ok(None) };
                self.carry.push(sub_id).map_err(|_| PeerFault::FrameTooLong)?;
            }
            if self.carry[EXTENDED_HEAD_BYTES - 1] == METADATA_ID {
                return Ok(self.metadata_front(input, length));
            }
        }
        if whole > CARRY_BYTES {
            self.state = State::Skip { left: (whole - self.carry.len()) as u32 };
            self.carry.clear();
            return Ok(Some(Frame::Skipped));
        }
        let missing = whole - self.carry.len();
        let more = take(input, missing);
        // There is room: `whole` is at most the carry's capacity.
        self.carry.extend_from_slice(more).map_err(|_| PeerFault::FrameTooLong)?;
        if more.len() < missing {
            return Ok(None);
        }
        if head {
            let block = piece_block(length, &self.carry)?;
            self.carry.clear();
            return Ok(self.part(input, InParts::Piece(block), 0, block.length));
        }
        self.state = State::CarryDone;
        parse(id, &self.carry[5..]).map(Some)
    }

    /// The part that has come of what is given in parts; the rest is waited for.
    fn part<'a>(
        &mut self,
        input: &mut &'a [u8],
        what: InParts,
        offset: u32,
        total: u32,
    ) -> Option<Frame<'a>> {
        let bytes = take(input, (total - offset) as usize);
        let next = offset + bytes.len() as u32;
        self.state = match next == total {
            true => State::Between,
            false => State::Inside { what, offset: next, total },
        };
        if bytes.is_empty() {
            return None;
        }
        Some(match what {
            InParts::Bitfield => Frame::Bitfield { offset, bytes, total },
            InParts::Piece(block) => Frame::Piece { block, offset, bytes },
            InParts::Metadata => Frame::Metadata { offset, bytes, total },
        })
    }

    /// Gathers the front of a metadata message until its dictionary is whole, and hands that out.
    /// So what follows it is always in the input, never in the carry.
    fn metadata_front<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
        length: u32,
    ) -> Option<Frame<'f>> {
        let total = length - 2;
        loop {
            let dictionary = self.carry.get(EXTENDED_HEAD_BYTES..).unwrap_or_default();
            let offset = dictionary.len() as u32;
            if dictionary.ends_with(b"e") && Value::parse(dictionary).is_ok() {
                self.state = match offset == total {
                    true => State::CarryDone,
                    false => State::Inside { what: InParts::Metadata, offset, total },
                };
                let bytes = &self.carry[EXTENDED_HEAD_BYTES..];
                return Some(Frame::Metadata { offset: 0, bytes, total });
            }
            if offset == total || dictionary.len() > METADATA_HEADER_BYTES_MAX {
                self.carry.clear();
                self.state = State::Skip { left: total - offset };
                return Some(Frame::Skipped);
            }
            let [byte] = *take(input, 1) else { return None };
            // There is room: the carry is longer than that.
            let _ = self.carry.push(byte);
        }
    }

    /// Keeps the first bytes of the input, enough to tell what they begin.
    fn keep_front(&mut self, input: &mut &[u8]) {
        let front = take(input, EXTENDED_HEAD_BYTES);
        self.carry.extend_from_slice(front).expect("the carry was empty and the front fits it");
    }

    /// Keeps all that is left of the input; it is shorter than the carry.
    fn keep(&mut self, input: &mut &[u8]) {
        let rest = take(input, CARRY_BYTES);
        self.carry.extend_from_slice(rest).expect("the carry was empty and rest fits it");
    }
}

/// Whether the input begins with a metadata message, or with one of which that cannot be told yet.
fn is_metadata(id: u8, input: &[u8]) -> bool {
    let sub_id = input.get(EXTENDED_HEAD_BYTES - 1);
    id == id::EXTENDED && sub_id.is_none_or(|sub_id| *sub_id == METADATA_ID)
}

/// Takes up to `length` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(length.min(input.len()));
    *input = rest;
    taken
}

/// Length and id of the frame at the front, checked against each other. `None` when there are too
/// few bytes to say; no id for a keep-alive.
fn head(bytes: &[u8]) -> Result<Option<(u32, Option<u8>)>, PeerFault> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    if length == 0 {
        return Ok(Some((0, None)));
    }
    let Some(id) = rest.first() else { return Ok(None) };
    let fits = match *id {
        id::CHOKE..=id::NOT_INTERESTED | id::HAVE_ALL | id::HAVE_NONE => length == 1,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => length == 5,
        id::PORT => length == 3,
        id::REQUEST | id::CANCEL | id::REJECT => length == 13,
        id::BITFIELD => length > 1 && length <= 1 + PIECES_MAX / 8,
        id::PIECE => length > 9,
        id::EXTENDED => length > 1,
        _ => true,
    };
    if !fits {
        return Err(PeerFault::FrameLength);
    }
    if length > FRAME_BYTES_MAX && *id != id::BITFIELD {
        return Err(PeerFault::FrameTooLong);
    }
    Ok(Some((length, Some(*id))))
}

/// Reads a whole frame whose length has been checked; `body` is what follows its id.
fn parse(id: u8, body: &[u8]) -> Result<Frame<'_>, PeerFault> {
    Ok(match id {
        id::CHOKE | id::UNCHOKE => Frame::Choke(id == id::CHOKE),
        id::INTERESTED | id::NOT_INTERESTED => Frame::Interested(id == id::INTERESTED),
        id::HAVE => Frame::Have(PieceIndex(number(body, 0)?)),
        id::REQUEST => Frame::Request(block(body)?),
        id::CANCEL => Frame::Cancel(block(body)?),
        id::REJECT => Frame::Reject(block(body)?),
        id::HAVE_ALL => Frame::HaveAll,
        id::HAVE_NONE => Frame::HaveNone,
        id::PORT => {
            let port = body.first_chunk::<2>().ok_or(PeerFault::FrameLength)?;
            Frame::Port(u16::from_be_bytes(*port))
        }
        id::SUGGEST | id::ALLOWED_FAST => Frame::Advice,
        id::EXTENDED => {
            let (sub_id, payload) = body.split_first().ok_or(PeerFault::FrameLength)?;
            Frame::Extended { sub_id: *sub_id, payload }
        }
        _ => Frame::Skipped,
    })
}

fn block(body: &[u8]) -> Result<Block, PeerFault> {
    let piece = PieceIndex(number(body, 0)?);
    Ok(Block { piece, begin: number(body, 4)?, length: number(body, 8)? })
}

/// The block that a piece message of `length` carries; `head` is its first 13 bytes.
fn piece_block(length: u32, head: &[u8]) -> Result<Block, PeerFault> {
    let piece = PieceIndex(number(head, 5)?);
    Ok(Block { piece, begin: number(head, 9)?, length: length - 9 })
}

fn number(body: &[u8], at: usize) -> Result<u32, PeerFault> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(PeerFault::FrameLength)
}

/// Length, id and the extension's number.
const EXTENDED_HEAD_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// Every frame of `bytes` handed in as `cuts` say, as text.
    fn frames(bytes: &[u8], cut: usize) -> Result<Vec<String>, PeerFault> {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        for mut input in bytes.chunks(cut) {
            while let Some(frame) = decoder.next(&mut input)? {
                match frame {
                    Frame::Bitfield { bytes, .. } => {
                        all.extend(bytes.iter().map(|byte| std::format!("bits {byte:02x}")));
                    }
                    Frame::Piece { block, offset, bytes } => {
                        let (piece, begin) = (block.piece.0, block.begin);
                        let at = (offset..).zip(bytes).map(|(at, byte)| {
                            std::format!("byte {byte} at {at} of {piece}, {begin}")
                        });
                        all.extend(at);
                    }
                    Frame::Metadata { offset, bytes, .. } => {
                        let at = (offset..).zip(bytes);
                        all.extend(at.map(|(at, byte)| std::format!("metadata {byte} at {at}")));
                    }
                    frame => all.push(std::format!("{frame:?}")),
                }
            }
        }
        Ok(all)
    }

    fn conversation() -> Vec<u8> {
        let block = Block { piece: PieceIndex(3), begin: 16_384, length: 16_384 };
        let mut bytes = Vec::new();
        bytes.extend(message::bitfield_header(3));
        bytes.extend([0xff, 0xf0, 0x80]);
        bytes.extend(message::KEEP_ALIVE);
        bytes.extend(message::bare(id::INTERESTED));
        bytes.extend(message::request(block));
        bytes.extend(message::have(PieceIndex(9)));
        bytes.extend([0, 0, 0, 4, id::EXTENDED, 0, b'd', b'e']);
        bytes.extend([0, 0, 0, 3, 99, 1, 2]);
        bytes.extend(message::reject(block));
        bytes
    }

    #[test]
    fn any_cut_gives_the_same_frames() {
        let whole = frames(&conversation(), 10_000).unwrap();
        assert_eq!(whole.len(), 10);
        for cut in 1..40 {
            assert_eq!(frames(&conversation(), cut).unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn blocks_and_metadata_come_in_any_parts() {
        let block = Block { piece: PieceIndex(2), begin: 16_384, length: 700 };
        let mut bytes = Vec::from(message::piece_header(block));
        bytes.extend((0..700).map(|at| at as u8));
        bytes.extend(message::bare(id::UNCHOKE));
        bytes.extend(702u32.to_be_bytes());
        bytes.extend([id::EXTENDED, METADATA_ID]);
        bytes.extend(b"d8:msg_typei1e5:piecei0e10:total_sizei7ee");
        bytes.extend((41..700).map(|at| at as u8));
        bytes.extend(message::bare(id::CHOKE));
        for cut in [1, 2, 5, 13, 100, 699] {
            let found = frames(&bytes, cut).unwrap();
            assert_eq!(found.len(), 1_402, "{cut}");
            assert_eq!(found[699], "byte 187 at 699 of 2, 16384", "{cut}");
            assert_eq!((&*found[700], &*found[1_401]), ("Choke(false)", "Choke(true)"), "{cut}");
            assert!(
                (41..700)
                    .all(|at| { found[701 + at] == std::format!("metadata {} at {at}", at as u8) })
            );
        }
        assert_eq!(frames(&bytes, 5_000).unwrap().len(), 703);
    }

    #[test]
    fn metadata_that_is_cut_is_given_so_that_its_content_lies_in_the_input() {
        let extended = |sub_id, payload: &[u8]| {
            let mut bytes = Vec::from((2 + payload.len() as u32).to_be_bytes());
            bytes.extend([id::EXTENDED, sub_id]);
            bytes.extend(payload);
            bytes
        };
        let data = extended(METADATA_ID, b"d8:msg_typei1e5:piecei0e10:total_sizei7eepayload");
        let request = extended(METADATA_ID, b"d8:msg_typei0e5:piecei0ee");
        let broken = extended(METADATA_ID, b"d8:msg_typ");
        let hello = extended(0, b"de");
        let after = message::bare(id::CHOKE);
        for (bytes, whole) in [(data, 48), (request, 25), (broken, 0), (hello, 0)] {
            let bytes: Vec<u8> = bytes.into_iter().chain(after).collect();
            for cut in 1..bytes.len() {
                let (mut decoder, mut given) = (Decoder::default(), 0);
                for (nth, part) in [&bytes[..cut], &bytes[cut..]].into_iter().enumerate() {
                    let mut input = part;
                    while let Some(frame) = decoder.next(&mut input).unwrap() {
                        match frame {
                            Frame::Metadata { offset, bytes, .. } => {
                                given += bytes.len();
                                let read = part.len() - input.len();
                                assert!(offset == 0 || bytes.len() <= read, "{cut} {nth}");
                            }
                            Frame::Extended { sub_id: METADATA_ID, payload } => {
                                given += payload.len();
                                assert!(payload.len() <= part.len() - input.len(), "{cut} {nth}");
                            }
                            _ => {}
                        }
                    }
                }
                assert!(given == whole || given == 10 && whole == 0, "{cut}: {given}");
                assert!(matches!(decoder.state, State::Between), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_too_long_to_keep_is_passed_over() {
        let mut bytes = Vec::from(2_000u32.to_be_bytes());
        bytes.extend([id::EXTENDED, 9]);
        bytes.resize(2_004, 7);
        bytes.extend(message::bare(id::UNCHOKE));
        for cut in [1, 100, 2_003] {
            assert_eq!(frames(&bytes, cut).unwrap(), ["Skipped", "Choke(false)"], "{cut}");
        }
        assert_eq!(frames(&bytes, 5_000).unwrap().len(), 2);
    }

    #[test]
    fn lengths_that_do_not_fit_their_kind_are_faults() {
        let wrong: [(&[u8], PeerFault); 7] = [
            (&[0, 0, 0, 2, id::CHOKE, 0], PeerFault::FrameLength),
            (&[0, 0, 0, 12, id::REQUEST], PeerFault::FrameLength),
            (&[0, 0, 0, 1, id::BITFIELD], PeerFault::FrameLength),
            (&[0xff, 0, 0, 0, id::BITFIELD], PeerFault::FrameLength),
            (&[0, 0, 0, 1, id::EXTENDED], PeerFault::FrameLength),
            (&[0x7f, 0, 0, 0, 99], PeerFault::FrameTooLong),
            (&[0, 0x10, 0, 0, id::EXTENDED], PeerFault::FrameTooLong),
        ];
        for (bytes, fault) in wrong {
            assert_eq!(frames(bytes, 99), Err(fault), "{bytes:?}");
            assert_eq!(frames(bytes, 1), Err(fault), "{bytes:?}");
        }
    }
}
