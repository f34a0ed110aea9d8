//! What travels inside message 20: the extended handshake (BEP 10), metadata (BEP 9) and the
//! exchange of peers (BEP 11).
//!
//! We give numbers of our own to the extensions we understand, the peer does the same for what we
//! send it. Both handshakes are dictionaries; keys we do not know are passed over.

use super::super::bencode::{Full, Sink, Value, Writer};
use super::super::limits::{METADATA_HEADER_BYTES_MAX, OUT_BYTES};
use super::message::id;
use core::net::{IpAddr, SocketAddr};

/// The number under which peers send us metadata messages (BEP 9).
pub const METADATA_ID: u8 = 1;

/// The number under which peers tell us of others (BEP 11).
pub const EXCHANGE_ID: u8 = 2;

/// What we say of ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Bytes of the `info` dictionary; 0 when we do not have it.
    pub metadata_bytes: u32,
    /// Requests we keep for a peer (`reqq`).
    pub requests_max: u16,
    /// The port we listen on; 0 when nobody can reach us.
    pub listen_port: u16,
    /// The peer's address as we see it (`yourip`).
    pub your_ip: IpAddr,
    /// We want nothing more (BEP 21).
    pub upload_only: bool,
    /// We take part in peer exchange (BEP 11).
    pub exchange: bool,
}

impl Hello {
    /// The whole message.
    pub fn write<const N: usize>(&self, out: &mut heapless::Vec<u8, N>) -> Result<(), Full> {
        let mut body = heapless::Vec::<u8, OUT_BYTES>::new();
        body.put(&[id::EXTENDED, 0])?;
        let mut writer = Writer::new(&mut body);
        writer.dictionary()?;
        writer.bytes(b"m")?.dictionary()?;
        writer.bytes(b"ut_metadata")?.integer(METADATA_ID.into())?;
        if self.exchange {
            writer.bytes(b"ut_pex")?.integer(EXCHANGE_ID.into())?;
        }
        writer.end()?;
        if self.metadata_bytes != 0 {
            writer.bytes(b"metadata_size")?.integer(self.metadata_bytes.into())?;
        }
        if self.listen_port != 0 {
            writer.bytes(b"p")?.integer(self.listen_port.into())?;
        }
        writer.bytes(b"reqq")?.integer(self.requests_max.into())?;
        if self.upload_only {
            writer.bytes(b"upload_only")?.integer(1)?;
        }
        writer.bytes(b"v")?.bytes(concat!("perennial ", env!("CARGO_PKG_VERSION")).as_bytes())?;
        writer.bytes(b"yourip")?;
        match self.your_ip.to_canonical() {
            IpAddr::V4(ip) => writer.bytes(&ip.octets())?,
            IpAddr::V6(ip) => writer.bytes(&ip.octets())?,
        };
        writer.end()?;
        put_frame(out, &body)
    }
}

/// What a peer's extended handshake says that matters to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerHello {
    /// The number it gave to `ut_metadata`; 0 when it has none.
    pub metadata_id: u8,
    /// Requests it keeps (`reqq`); 0 when it does not say.
    pub requests_max: u16,
    /// Bytes of the `info` dictionary it has; 0 when it has none.
    pub metadata_bytes: u32,
    /// The number it gave to `ut_pex`; 0 when it has none.
    pub exchange_id: u8,
    /// The port it listens on; 0 when it does not say.
    pub listen_port: u16,
}

impl PeerHello {
    /// Reads the payload of the extended handshake; `None` when it is no dictionary.
    pub fn parse(payload: &[u8]) -> Option<PeerHello> {
        // Some clients pad; what follows the dictionary is not looked at.
        let (hello, _) = Value::parse_prefix(payload).ok()?;
        if !hello.raw().starts_with(b"d") {
            return None;
        }
        let extension = |name: &[u8]| {
            let id = hello.find(b"m").and_then(|m| m.find(name)?.integer());
            id.and_then(|id| u8::try_from(id).ok()).unwrap_or(0)
        };
        let number = |key: &[u8]| hello.find(key).and_then(|value| value.integer()).unwrap_or(0);
        Some(PeerHello {
            metadata_id: extension(b"ut_metadata"),
            requests_max: number(b"reqq").clamp(0, u16::MAX.into()) as u16,
            metadata_bytes: u32::try_from(number(b"metadata_size")).unwrap_or(0),
            exchange_id: extension(b"ut_pex"),
            listen_port: u16::try_from(number(b"p")).unwrap_or(0),
        })
    }
}

/// What a metadata message says (BEP 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The peer asks for a piece.
    Request(u32),
    /// A piece, and how long all of it is; the piece stands behind so many bytes.
    Data {
        /// Which piece.
        piece: u32,
        /// Bytes of the whole dictionary.
        total: u32,
        /// Bytes of the message before the piece.
        head: u32,
    },
    /// The peer does not give a piece.
    Reject,
}

impl Metadata {
    /// Reads a message, or the front of one; `None` when it is none that we know.
    pub fn parse(payload: &[u8]) -> Option<Metadata> {
        let (message, rest) = Value::parse_prefix(payload).ok()?;
        let number = |key: &[u8]| u32::try_from(message.find(key)?.integer()?).ok();
        match message.find(b"msg_type")?.integer()? {
            MESSAGE_REQUEST => Some(Metadata::Request(number(b"piece")?)),
            MESSAGE_DATA => Some(Metadata::Data {
                piece: number(b"piece")?,
                total: number(b"total_size")?,
                head: (payload.len() - rest.len()) as u32,
            }),
            MESSAGE_REJECT => Some(Metadata::Reject),
            _ => None,
        }
    }
}

/// Asks for a piece of the metadata (BEP 9).
pub fn write_metadata_request<const N: usize>(
    out: &mut heapless::Vec<u8, N>,
    peer_metadata_id: u8,
    piece: u32,
) -> Result<(), Full> {
    write_metadata(out, peer_metadata_id, MESSAGE_REQUEST, piece)
}

/// What stands before the bytes of a metadata piece (BEP 9).
pub fn metadata_header(
    peer_metadata_id: u8,
    piece: u32,
    piece_bytes: u32,
    total_bytes: u32,
) -> heapless::Vec<u8, METADATA_HEADER_BYTES_MAX> {
    let mut dictionary = heapless::Vec::<u8, METADATA_HEADER_BYTES_MAX>::new();
    let mut header = heapless::Vec::new();
    let mut write = || -> Result<(), Full> {
        let mut writer = Writer::new(&mut dictionary);
        writer.dictionary()?.bytes(b"msg_type")?.integer(MESSAGE_DATA as u64)?;
        writer.bytes(b"piece")?.integer(piece.into())?;
        writer.bytes(b"total_size")?.integer(total_bytes.into())?.end()?;
        header.put(&(2 + dictionary.len() as u32 + piece_bytes).to_be_bytes())?;
        header.put(&[id::EXTENDED, peer_metadata_id])?;
        header.put(&dictionary)
    };
    write().expect("three 32-bit numbers fit METADATA_HEADER_BYTES_MAX");
    header
}

/// Says no to a metadata request (BEP 9).
pub fn write_metadata_reject<const N: usize>(
    out: &mut heapless::Vec<u8, N>,
    peer_metadata_id: u8,
    piece: u32,
) -> Result<(), Full> {
    write_metadata(out, peer_metadata_id, MESSAGE_REJECT, piece)
}

fn write_metadata<const N: usize>(
    out: &mut heapless::Vec<u8, N>,
    peer_metadata_id: u8,
    kind: i64,
    piece: u32,
) -> Result<(), Full> {
    let mut body = heapless::Vec::<u8, METADATA_HEADER_BYTES_MAX>::new();
    body.put(&[id::EXTENDED, peer_metadata_id])?;
    let mut writer = Writer::new(&mut body);
    writer.dictionary()?.bytes(b"msg_type")?.integer(kind as u64)?;
    writer.bytes(b"piece")?.integer(piece.into())?.end()?;
    put_frame(out, &body)
}

/// Tells of peers (BEP 11): those over IPv4 first, as many as fit. Nothing when there are none.
pub fn write_exchange<const N: usize>(
    out: &mut heapless::Vec<u8, N>,
    peer_exchange_id: u8,
    peers: &[SocketAddr],
) -> Result<(), Full> {
    let mut v4 = heapless::Vec::<u8, { 6 * EXCHANGE_PEERS_MAX }>::new();
    let mut v6 = heapless::Vec::<u8, { 18 * EXCHANGE_PEERS_MAX }>::new();
    for peer in peers.iter().take(EXCHANGE_PEERS_MAX) {
        match peer.ip() {
            IpAddr::V4(ip) => {
                v4.put(&ip.octets())?;
                v4.put(&peer.port().to_be_bytes())?;
            }
            IpAddr::V6(ip) => {
                v6.put(&ip.octets())?;
                v6.put(&peer.port().to_be_bytes())?;
            }
        }
    }
    let flags = [0; EXCHANGE_PEERS_MAX];
    let mut body = heapless::Vec::<u8, OUT_BYTES>::new();
    body.put(&[id::EXTENDED, peer_exchange_id])?;
    let mut writer = Writer::new(&mut body);
    writer.dictionary()?;
    writer.bytes(b"added")?.bytes(&v4)?.bytes(b"added.f")?.bytes(&flags[..v4.len() / 6])?;
    if !v6.is_empty() {
        writer.bytes(b"added6")?.bytes(&v6)?.bytes(b"added6.f")?.bytes(&flags[..v6.len() / 18])?;
    }
    writer.end()?;
    put_frame(out, &body)
}

/// The peers that a message tells of, the first few (BEP 11).
pub fn exchanged(payload: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let message = Value::parse_prefix(payload).ok().map(|(message, _)| message);
    let list = move |key: &[u8]| {
        message.as_ref().and_then(|message| message.find(key)?.bytes()).unwrap_or_default()
    };
    let v4 = list(b"added").chunks_exact(6).filter_map(|peer| {
        let (ip, port) = (peer.first_chunk::<4>()?, peer.last_chunk::<2>()?);
        Some(SocketAddr::from((*ip, u16::from_be_bytes(*port))))
    });
    let v6 = list(b"added6").chunks_exact(18).filter_map(|peer| {
        let (ip, port) = (peer.first_chunk::<16>()?, peer.last_chunk::<2>()?);
        Some(SocketAddr::from((*ip, u16::from_be_bytes(*port))))
    });
    v4.take(EXCHANGED_MAX).chain(v6.take(EXCHANGED_MAX))
}

/// A frame with its length in front, or nothing of it when there is no room.
fn put_frame<const N: usize>(out: &mut heapless::Vec<u8, N>, body: &[u8]) -> Result<(), Full> {
    if out.len() + 4 + body.len() > N {
        return Err(Full);
    }
    out.put(&(body.len() as u32).to_be_bytes())?;
    out.put(body)
}

/// Peers told of in one message of ours: with 18 bytes and a flag each they fit it.
pub const EXCHANGE_PEERS_MAX: usize = 15;

/// Peers of each family that are taken from one message (BEP 11: 50).
const EXCHANGED_MAX: usize = 50;

const MESSAGE_REQUEST: i64 = 0;
const MESSAGE_DATA: i64 = 1;
const MESSAGE_REJECT: i64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_hello_is_a_dictionary_others_can_read() {
        let your_ip = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0001]);
        let hello = Hello {
            metadata_bytes: u32::MAX,
            requests_max: u16::MAX,
            listen_port: u16::MAX,
            your_ip,
            upload_only: true,
            exchange: true,
        };
        let mut out = heapless::Vec::<u8, OUT_BYTES>::new();
        hello.write(&mut out).unwrap();
        assert_eq!(out[..4], (out.len() as u32 - 4).to_be_bytes());
        let value = Value::parse(&out[6..]).unwrap();
        assert_eq!(value.find(b"yourip").unwrap().bytes(), Some(&[10, 0, 0, 1][..]));
        assert!(value.entries().map(|(key, _)| key).is_sorted());
        assert_eq!(value.find(b"upload_only").unwrap().integer(), Some(1));
        assert_eq!(
            PeerHello::parse(&out[6..]),
            Some(PeerHello {
                metadata_id: METADATA_ID,
                requests_max: u16::MAX,
                metadata_bytes: u32::MAX,
                exchange_id: EXCHANGE_ID,
                listen_port: u16::MAX,
            })
        );
        assert_eq!(hello.write(&mut out).and_then(|()| hello.write(&mut out)), Err(Full));
    }

    #[test]
    fn only_requests_for_metadata_are_requests() {
        assert_eq!(Metadata::parse(b"d8:msg_typei0e5:piecei7ee"), Some(Metadata::Request(7)));
        assert_eq!(Metadata::parse(b"d8:msg_typei2e5:piecei7ee"), Some(Metadata::Reject));
        let data = Metadata::parse(b"d8:msg_typei1e5:piecei7e10:total_sizei9eexyz");
        assert_eq!(data, Some(Metadata::Data { piece: 7, total: 9, head: 41 }));
        for message in ["d8:msg_typei1e5:piecei7ee", "d8:msg_typei0e5:piecei-7ee", "rubbish"] {
            assert_eq!(Metadata::parse(message.as_bytes()), None);
        }
        assert_eq!(PeerHello::parse(b"le"), None);
        assert_eq!(PeerHello::parse(b"de"), Some(PeerHello::default()));
    }

    #[test]
    fn peers_that_are_told_of_are_read_back() {
        let v4 = (1..=9).map(|last| SocketAddr::from(([10, 0, 0, last], 6_881)));
        let v6 = (1..=6).map(|last| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 7)));
        let peers = std::vec::Vec::from_iter(v4.chain(v6));
        let mut out = heapless::Vec::<u8, OUT_BYTES>::new();
        write_exchange(&mut out, 3, &peers).unwrap();
        assert_eq!(out[4..6], [20, 3]);
        assert!(exchanged(&out[6..]).eq(peers));
        let longest = [SocketAddr::from(([0xfd00; 8], 1)); EXCHANGE_PEERS_MAX];
        out.clear();
        write_exchange(&mut out, 3, &longest).unwrap();
        assert_eq!(exchanged(b"d5:added7:1234567e").count(), 1);
        assert_eq!(exchanged(b"d5:addedi7ee").count() + exchanged(b"rubbish").count(), 0);
    }

    #[test]
    fn the_head_of_a_metadata_piece_counts_what_follows() {
        let header = metadata_header(3, 2, 16_384, 40_000);
        assert_eq!(header[..4], (header.len() as u32 - 4 + 16_384).to_be_bytes());
        assert_eq!(header[4..6], [20, 3]);
        metadata_header(255, u32::MAX, u32::MAX >> 1, u32::MAX);
    }
}
