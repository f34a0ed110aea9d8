//! The handshake (BEP 3) and the features announced in its reserved bits.
//!
//! ```text
//! 0    1                      20         28          48        68
//! | 19 | "BitTorrent protocol" | reserved | info-hash | peer id |
//! ```

use super::super::limits::HANDSHAKE_BYTES;
use super::super::units::PeerId;

/// What a peer says of itself before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Which torrent it is here for, as it stands on the wire.
    pub info_hash: [u8; 20],
    /// Its own name.
    pub peer_id: PeerId,
    /// What it speaks beyond BEP 3.
    pub features: Features,
}

/// Features announced in the reserved bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Have-all, have-none, reject (BEP 6).
    pub fast: bool,
    /// Message 20 (BEP 10).
    pub extended: bool,
    /// It has a DHT node (BEP 5).
    pub dht: bool,
}

impl Handshake {
    /// The handshake as bytes.
    pub fn write(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0; HANDSHAKE_BYTES];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[25] = if self.features.extended { EXTENDED_BIT } else { 0 };
        bytes[27] = if self.features.fast { FAST_BIT } else { 0 };
        bytes[27] |= if self.features.dht { DHT_BIT } else { 0 };
        bytes[28..48].copy_from_slice(&self.info_hash);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads a whole handshake; `None` when it is of another protocol.
    pub fn parse(bytes: &[u8; HANDSHAKE_BYTES]) -> Option<Handshake> {
        if !could_begin(bytes) {
            return None;
        }
        let (mut info_hash, mut peer_id) = ([0; 20], PeerId::default());
        info_hash.copy_from_slice(&bytes[28..48]);
        peer_id.0.copy_from_slice(&bytes[48..]);
        let features = Features {
            fast: bytes[27] & FAST_BIT != 0,
            extended: bytes[25] & EXTENDED_BIT != 0,
            dht: bytes[27] & DHT_BIT != 0,
        };
        Some(Handshake { info_hash, peer_id, features })
    }
}

/// Whether `bytes`, perhaps only the first of them, may be the front of a handshake. What cannot
/// be one (an encrypted connection, a lost HTTP client) is let go at its first wrong byte.
pub fn could_begin(bytes: &[u8]) -> bool {
    bytes.iter().zip(PROTOCOL).all(|(got, wanted)| got == wanted)
}

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const EXTENDED_BIT: u8 = 0x10;
const FAST_BIT: u8 = 0x04;
const DHT_BIT: u8 = 0x01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let features = Features { fast: true, extended: false, dht: true };
        let hello = Handshake { info_hash: [7; 20], peer_id: PeerId([9; 20]), features };
        assert_eq!(Handshake::parse(&hello.write()), Some(hello));
        let mut bytes = hello.write();
        bytes[19] = b'?';
        assert_eq!(Handshake::parse(&bytes), None);
        assert!(could_begin(b"\x13BitT") && could_begin(b"") && !could_begin(b"GET /"));
    }
}
