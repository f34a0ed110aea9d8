//! What travels inside message 20: the extended handshake (BEP 10) and metadata (BEP 9).
//!
//! We give numbers of our own to the extensions we understand, the peer does the same for what we
//! send it. Both handshakes are dictionaries; keys we do not know are passed over.

use super::super::bencode::{Full, Sink, Value, Writer};
use super::super::limits::{METADATA_HEADER_BYTES_MAX, OUT_BYTES};
use super::message::id;
use core::net::IpAddr;

/// The number under which peers send us metadata messages (BEP 9).
pub const METADATA_ID: u8 = 1;

/// What we say of ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Bytes of the `info` dictionary.
    pub metadata_bytes: u32,
    /// Requests we keep for a peer (`reqq`).
    pub requests_max: u16,
    /// The port we listen on; 0 when nobody can reach us.
    pub listen_port: u16,
    /// The peer's address as we see it (`yourip`).
    pub your_ip: IpAddr,
    /// We want nothing more (BEP 21).
    pub upload_only: bool,
}

impl Hello {
    /// The whole message.
    pub fn write<const N: usize>(&self, out: &mut heapless::Vec<u8, N>) -> Result<(), Full> {
        let mut body = heapless::Vec::<u8, OUT_BYTES>::new();
        body.put(&[id::EXTENDED, 0])?;
        let mut writer = Writer::new(&mut body);
        writer.dictionary()?;
        writer.bytes(b"m")?.dictionary()?;
        writer.bytes(b"ut_metadata")?.integer(METADATA_ID.into())?.end()?;
        writer.bytes(b"metadata_size")?.integer(self.metadata_bytes.into())?;
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
}

impl PeerHello {
    /// Reads the payload of the extended handshake; `None` when it is no dictionary.
    pub fn parse(payload: &[u8]) -> Option<PeerHello> {
        // Some clients pad; what follows the dictionary is not looked at.
        let (hello, _) = Value::parse_prefix(payload).ok()?;
        if !hello.raw().starts_with(b"d") {
            return None;
        }
        let metadata = hello.find(b"m").and_then(|m| m.find(b"ut_metadata")?.integer());
        let metadata_id = metadata.and_then(|id| u8::try_from(id).ok()).unwrap_or(0);
        let requests_max = hello.find(b"reqq").and_then(|value| value.integer()).unwrap_or(0);
        let requests_max = requests_max.clamp(0, u16::MAX.into()) as u16;
        Some(PeerHello { metadata_id, requests_max })
    }
}

/// Reads a metadata message: the piece it requests, `None` when it is none of that kind (BEP 9).
pub fn parse_metadata_request(payload: &[u8]) -> Option<u32> {
    let (message, _) = Value::parse_prefix(payload).ok()?;
    if message.find(b"msg_type")?.integer()? != MESSAGE_REQUEST {
        return None;
    }
    u32::try_from(message.find(b"piece")?.integer()?).ok()
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
    let mut body = heapless::Vec::<u8, METADATA_HEADER_BYTES_MAX>::new();
    body.put(&[id::EXTENDED, peer_metadata_id])?;
    let mut writer = Writer::new(&mut body);
    writer.dictionary()?.bytes(b"msg_type")?.integer(MESSAGE_REJECT as u64)?;
    writer.bytes(b"piece")?.integer(piece.into())?.end()?;
    put_frame(out, &body)
}

/// A frame with its length in front, or nothing of it when there is no room.
fn put_frame<const N: usize>(out: &mut heapless::Vec<u8, N>, body: &[u8]) -> Result<(), Full> {
    if out.len() + 4 + body.len() > N {
        return Err(Full);
    }
    out.put(&(body.len() as u32).to_be_bytes())?;
    out.put(body)
}

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
            Some(PeerHello { metadata_id: METADATA_ID, requests_max: u16::MAX })
        );
        assert_eq!(hello.write(&mut out).and_then(|()| hello.write(&mut out)), Err(Full));
    }

    #[test]
    fn only_requests_for_metadata_are_requests() {
        assert_eq!(parse_metadata_request(b"d8:msg_typei0e5:piecei7ee"), Some(7));
        assert_eq!(parse_metadata_request(b"d8:msg_typei1e5:piecei7ee"), None);
        assert_eq!(parse_metadata_request(b"d8:msg_typei0e5:piecei-7ee"), None);
        assert_eq!(parse_metadata_request(b"rubbish"), None);
        assert_eq!(PeerHello::parse(b"le"), None);
        assert_eq!(PeerHello::parse(b"de"), Some(PeerHello::default()));
    }

    #[test]
    fn the_head_of_a_metadata_piece_counts_what_follows() {
        let header = metadata_header(3, 2, 16_384, 40_000);
        assert_eq!(header[..4], (header.len() as u32 - 4 + 16_384).to_be_bytes());
        assert_eq!(header[4..6], [20, 3]);
        metadata_header(255, u32::MAX, u32::MAX >> 1, u32::MAX);
    }
}
