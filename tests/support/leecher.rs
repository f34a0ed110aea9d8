//! A small BitTorrent leecher (BEP 3, 6, 9, 10) that blocks, checks and can misbehave.
//!
//! It shares no code with the program: what both get wrong in the same way would pass unseen.
//! [`Leecher::fetch`] keeps a given number of requests on their way and hands each block to a
//! sink; everything lower can be done by hand, message by message or byte by byte.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use super::torrent::{Metainfo, parse};
use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The piece.
    pub piece: u32,
    /// Where in it.
    pub begin: u32,
    /// How long.
    pub length: u32,
}

/// How a leecher presents itself.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// It speaks BEP 6.
    pub fast: bool,
    /// It speaks BEP 10.
    pub extended: bool,
    /// Its own address, when it is not left to the system.
    pub from: Option<IpAddr>,
    /// Its receive buffer, when it is not left to the system.
    pub receive_bytes: Option<usize>,
}

/// Like a client of today.
pub const MODERN: Manners = Manners { fast: true, extended: true, from: None, receive_bytes: None };

/// BEP 3 and nothing else.
pub const PLAIN: Manners =
    Manners { fast: false, extended: false, from: None, receive_bytes: None };

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(Vec<u8>),
    Request(Block),
    Piece(Block, Vec<u8>),
    Cancel(Block),
    HaveAll,
    HaveNone,
    Reject(Block),
    Extended(u8, Vec<u8>),
    Other(u8),
}

/// One connection of a leecher.
pub struct Leecher {
    stream: TcpStream,
    input: BufReader<TcpStream>,
    manners: Manners,
    /// What the other side calls itself.
    pub peer_id: [u8; 20],
    /// Requests it keeps for us (`reqq`), once it has said so.
    pub requests_max: Option<usize>,
    /// Its number for metadata messages and the length of the metadata, once it has said so.
    pub metadata: Option<(u8, usize)>,
    /// What it offers, once it has said so: the bits of its bitfield.
    pub offered: Option<Offered>,
    unchoked: bool,
}

/// Pieces that are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    All,
    Nothing,
    Some(Vec<u8>),
}

impl Offered {
    /// Whether `piece` is.
    pub fn contains(&self, piece: u32) -> bool {
        match self {
            Offered::All => true,
            Offered::Nothing => false,
            Offered::Some(bits) => bits[piece as usize / 8] & (0x80 >> (piece % 8)) != 0,
        }
    }
}

impl Leecher {
    /// Connects and shakes hands.
    pub fn connect(
        address: SocketAddr,
        info_hash: [u8; 20],
        manners: Manners,
    ) -> io::Result<Leecher> {
        Leecher::greet(dial(address, manners)?, info_hash, manners)
    }

    /// Shakes hands on a connection there is.
    pub fn greet(stream: TcpStream, info_hash: [u8; 20], manners: Manners) -> io::Result<Leecher> {
        (&stream).write_all(&handshake(info_hash, manners))?;
        let mut input = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
        let mut theirs = [0; 68];
        input.read_exact(&mut theirs)?;
        assert_eq!(theirs[..20], *PROTOCOL);
        assert_eq!(theirs[28..48], info_hash, "it answers for the torrent it was asked for");
        let peer_id = theirs[48..].try_into().expect("20 bytes");
        let (requests_max, metadata, offered) = (None, None, None);
        let unchoked = false;
        Ok(Leecher { stream, input, manners, peer_id, requests_max, metadata, offered, unchoked })
    }

    /// Waits to be called, and shakes hands.
    pub fn answer(
        listener: &TcpListener,
        info_hash: [u8; 20],
        manners: Manners,
    ) -> io::Result<Leecher> {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Leecher::greet(stream, info_hash, manners)
    }

    /// Connects, shakes hands and waits until it may ask.
    pub fn enter(
        address: SocketAddr,
        info_hash: [u8; 20],
        manners: Manners,
    ) -> io::Result<Leecher> {
        let mut leecher = Leecher::connect(address, info_hash, manners)?;
        if manners.extended {
            leecher.say_hello()?;
        }
        leecher.send(&interested())?;
        leecher.wait_for_unchoke()?;
        Ok(leecher)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes one by one, each in a packet of its own.
    pub fn send_dripping(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        bytes.iter().try_for_each(|byte| self.stream.write_all(&[*byte]))
    }

    /// Says what extensions it understands (BEP 10).
    pub fn say_hello(&mut self) -> io::Result<()> {
        let hello = format!("d1:md11:ut_metadatai{OWN_METADATA_ID}eee");
        self.send(&extended(0, hello.as_bytes()))
    }

    /// The next message, noted where it says what may be asked.
    pub fn receive(&mut self) -> io::Result<Message> {
        let message = self.read_message()?;
        match &message {
            Message::Choke => self.unchoked = false,
            Message::Unchoke => self.unchoked = true,
            Message::HaveAll => self.offered = Some(Offered::All),
            Message::HaveNone => self.offered = Some(Offered::Nothing),
            Message::Bitfield(bits) => self.offered = Some(Offered::Some(bits.clone())),
            Message::Extended(0, payload) => {
                let (hello, _) = parse(payload);
                let number = |key| hello.find(key).map(|value| value.number() as usize);
                self.requests_max = number("reqq");
                let id = hello.find("m").and_then(|m| m.find("ut_metadata"));
                self.metadata = id.map(|id| id.number() as u8).zip(number("metadata_size"));
            }
            _ => {}
        }
        Ok(message)
    }

    /// Reads on until it may ask.
    pub fn wait_for_unchoke(&mut self) -> io::Result<()> {
        while !self.unchoked {
            self.receive()?;
        }
        Ok(())
    }

    /// Reads on until it knows what is offered.
    pub fn wait_for_offer(&mut self) -> io::Result<Offered> {
        loop {
            if let Some(offered) = &self.offered {
                return Ok(offered.clone());
            }
            self.receive()?;
        }
    }

    /// Reads on to the end of the connection. An error that is no end is given.
    pub fn read_to_end(&mut self) -> io::Result<()> {
        loop {
            if let Err(error) = self.read_message() {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe => Ok(()),
                    _ => Err(error),
                };
            }
        }
    }

    /// The `info` dictionary (BEP 9), piece by piece.
    pub fn fetch_metadata(&mut self) -> io::Result<Vec<u8>> {
        while self.metadata.is_none() {
            self.receive()?;
        }
        let (id, length) = self.metadata.expect("that is the loop's condition");
        let mut info = Vec::with_capacity(length);
        while info.len() < length {
            let piece = info.len() / METADATA_PIECE_BYTES;
            let request = format!("d8:msg_typei0e5:piecei{piece}ee");
            self.send(&extended(id, request.as_bytes()))?;
            let data = loop {
                if let Message::Extended(OWN_METADATA_ID, payload) = self.receive()? {
                    break payload;
                }
            };
            let (head, bytes) = parse(&data);
            assert_eq!(head.at("msg_type").number(), 1, "data, no reject");
            assert_eq!(head.at("piece").number(), piece as u64);
            assert_eq!(head.at("total_size").number(), length as u64);
            assert_eq!(bytes.len(), METADATA_PIECE_BYTES.min(length - info.len()));
            info.extend_from_slice(bytes);
        }
        Ok(info)
    }

    /// Fetches blocks, `depth` requests on their way at a time but no more than it keeps, and
    /// hands each to `sink`. Gives those that were rejected. Choked, it waits and asks again.
    pub fn fetch(
        &mut self,
        blocks: impl IntoIterator<Item = Block>,
        depth: usize,
        mut sink: impl FnMut(Block, &[u8]),
    ) -> io::Result<Vec<Block>> {
        let mut waiting = blocks.into_iter();
        let mut asked: VecDeque<Block> = VecDeque::with_capacity(depth);
        let mut rejected = Vec::new();
        let depth = depth.min(self.requests_max.unwrap_or(depth));
        loop {
            // Asked in batches, as clients do: half of the window at a time.
            if self.unchoked && asked.len() <= depth / 2 {
                let room = depth - asked.len();
                let next: Vec<Block> = waiting.by_ref().take(room).collect();
                let requests: Vec<u8> = next.iter().flat_map(|block| request(*block)).collect();
                self.send(&requests)?;
                asked.extend(next);
                if asked.is_empty() {
                    return Ok(rejected);
                }
            }
            match self.receive()? {
                Message::Piece(block, bytes) => {
                    let at = asked.iter().position(|other| *other == block);
                    asked.remove(at.expect("only what was asked for comes"));
                    sink(block, &bytes);
                }
                Message::Reject(block) => {
                    assert!(self.manners.fast, "rejects are for those who speak BEP 6");
                    let at = asked.iter().position(|other| *other == block);
                    asked.remove(at.expect("only what was asked for is rejected"));
                    rejected.push(block);
                }
                // Without BEP 6 a choke forgets what was asked.
                Message::Choke if !self.manners.fast => asked.clear(),
                _ => {}
            }
        }
    }

    /// The whole content of a torrent.
    pub fn fetch_all(&mut self, torrent: &Metainfo, depth: usize) -> io::Result<Vec<u8>> {
        let mut content = vec![0; torrent.total_bytes() as usize];
        let put = |block: Block, bytes: &[u8]| {
            content[torrent.offset(block)..][..bytes.len()].copy_from_slice(bytes);
        };
        let rejected = self.fetch(torrent.blocks(), depth, put)?;
        assert_eq!(rejected, [], "nothing is rejected");
        Ok(content)
    }

    fn read_message(&mut self) -> io::Result<Message> {
        let length = self.read_number()? as usize;
        if length == 0 {
            return Ok(Message::KeepAlive);
        }
        assert!(length <= FRAME_BYTES_MAX, "a message of {length} bytes");
        let mut id = [0];
        self.input.read_exact(&mut id)?;
        let message = match (id[0], length) {
            (0, 1) => Message::Choke,
            (1, 1) => Message::Unchoke,
            (2, 1) => Message::Interested,
            (3, 1) => Message::NotInterested,
            (4, 5) => Message::Have(self.read_number()?),
            (5, _) => Message::Bitfield(self.read_bytes(length - 1)?),
            (6, 13) => Message::Request(self.read_block()?),
            (7, 9..) => {
                let (piece, begin) = (self.read_number()?, self.read_number()?);
                let bytes = self.read_bytes(length - 9)?;
                Message::Piece(Block { piece, begin, length: bytes.len() as u32 }, bytes)
            }
            (8, 13) => Message::Cancel(self.read_block()?),
            (14, 1) => Message::HaveAll,
            (15, 1) => Message::HaveNone,
            (16, 13) => Message::Reject(self.read_block()?),
            (20, 2..) => {
                let mut payload = self.read_bytes(length - 1)?;
                Message::Extended(payload.remove(0), payload)
            }
            (id @ (0..=8 | 14..=16), _) => panic!("message {id} of {length} bytes"),
            (id, _) => {
                self.read_bytes(length - 1)?;
                Message::Other(id)
            }
        };
        Ok(message)
    }

    fn read_number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn read_block(&mut self) -> io::Result<Block> {
        let (piece, begin) = (self.read_number()?, self.read_number()?);
        Ok(Block { piece, begin, length: self.read_number()? })
    }

    fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a connection on which nothing blocks for ever.
pub fn dial(address: SocketAddr, manners: Manners) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if let Some(bytes) = manners.receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(from) = manners.from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// A handshake with a name no other leecher of this process has.
pub fn handshake(info_hash: [u8; 20], manners: Manners) -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut reserved = [0; 8];
    reserved[5] = if manners.extended { 0x10 } else { 0 };
    reserved[7] = if manners.fast { 0x04 } else { 0 };
    let name = format!("-TT0001-{:012}", COUNT.fetch_add(1, Ordering::Relaxed));
    [&PROTOCOL[..], &reserved, &info_hash, name.as_bytes()].concat()
}

/// A message of any kind.
pub fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 1).to_be_bytes()[..], &[id], payload].concat()
}

/// `choke`
pub fn choke() -> Vec<u8> {
    message(0, &[])
}

/// `interested`
pub fn interested() -> Vec<u8> {
    message(2, &[])
}

/// `not interested`
pub fn not_interested() -> Vec<u8> {
    message(3, &[])
}

/// `have`
pub fn have(piece: u32) -> Vec<u8> {
    message(4, &piece.to_be_bytes())
}

/// `bitfield`
pub fn bitfield(bits: &[u8]) -> Vec<u8> {
    message(5, bits)
}

/// `request`
pub fn request(block: Block) -> Vec<u8> {
    message(6, &block.to_bytes())
}

/// `cancel`
pub fn cancel(block: Block) -> Vec<u8> {
    message(8, &block.to_bytes())
}

/// An extended message (BEP 10).
pub fn extended(sub_id: u8, payload: &[u8]) -> Vec<u8> {
    message(20, &[&[sub_id], payload].concat())
}

impl Block {
    fn to_bytes(self) -> Vec<u8> {
        [self.piece, self.begin, self.length].iter().flat_map(|n| n.to_be_bytes()).collect()
    }
}

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The number under which it is sent metadata.
const OWN_METADATA_ID: u8 = 7;

/// Metadata travels in pieces of this size (BEP 9).
const METADATA_PIECE_BYTES: usize = 16 * 1024;

/// Longer messages than a block or a bitfield make are a mistake.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// How long a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(20);
