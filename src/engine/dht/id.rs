//! Names of nodes and their distances, and which names an address may bear (BEP 42).
//!
//! Nodes and info-hashes live in one space of 160 bits; how far two of them are apart is their
//! exclusive or, read as a number (BEP 5, *Overview*). Anybody could choose a name next to an
//! info-hash and hide its peers, so a name's first 21 bits follow from the node's address:
//!
//! ```text
//! 5f bf bf f1 0c ... 88 01      first 21 bits: CRC-32C of the masked address, with r on top
//! |------|              -- r    last byte: its low three bits are r
//! ```

use core::net::IpAddr;

/// The name of a node, or of what is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeId(pub [u8; 20]);

impl NodeId {
    /// A name that [suits](Self::suits) `ip`; all that may be free is taken from `chance`.
    pub fn for_address(ip: IpAddr, chance: [u8; 20]) -> NodeId {
        let mut id = chance;
        let prefix = prefix(ip, chance[19]);
        id[..2].copy_from_slice(&prefix[..2]);
        id[2] = prefix[2] & 0xf8 | chance[2] & 0x07;
        NodeId(id)
    }

    /// Whether a node at `ip` may bear this name. The caller excepts local networks.
    pub fn suits(&self, ip: IpAddr) -> bool {
        let prefix = prefix(ip, self.0[19]);
        self.0[..2] == prefix[..2] && (self.0[2] ^ prefix[2]) & 0xf8 == 0
    }

    /// How far apart two names are; compares as a number.
    pub fn distance(&self, other: &NodeId) -> [u8; 20] {
        core::array::from_fn(|at| self.0[at] ^ other.0[at])
    }

    /// How many of their first bits are the same: 160 for the same name.
    pub fn shared_bits(&self, other: &NodeId) -> u32 {
        let distance = self.distance(other);
        let whole = distance.iter().take_while(|byte| **byte == 0).count();
        8 * whole as u32 + distance.get(whole).map_or(0, |byte| byte.leading_zeros())
    }

    /// A name made of `chance` that shares exactly `bits` first bits with this one.
    pub fn sharing(&self, bits: u32, chance: [u8; 20]) -> NodeId {
        let mut id = chance;
        for bit in 0..=bits.min(159) {
            let (byte, mask) = (bit as usize / 8, 0x80 >> (bit % 8));
            let differs = if bit == bits { mask } else { 0 };
            id[byte] = id[byte] & !mask | (self.0[byte] & mask) ^ differs;
        }
        NodeId(id)
    }
}

/// The first bytes of every name that `ip` may bear with `r` as its last byte.
fn prefix(ip: IpAddr, r: u8) -> [u8; 4] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => crc32c(masked(ip.octets(), MASK_V4, r)),
        // The lower half of an IPv6 address is the host's to choose: it says nothing.
        IpAddr::V6(ip) => crc32c(masked(ip.to_bits().to_be_bytes(), MASK_V6, r)),
    }
}

/// The first `N` bytes of an address under their mask, with the low bits of `r` on top.
fn masked<const N: usize, const M: usize>(ip: [u8; N], mask: [u8; M], r: u8) -> [u8; M] {
    let mut bytes = core::array::from_fn(|at| ip[at] & mask[at]);
    bytes[0] |= (r & 7) << 5;
    bytes
}

/// CRC-32C (Castagnoli). Four or eight bytes at a time: a table would cost more than it saves.
fn crc32c<const N: usize>(bytes: [u8; N]) -> [u8; 4] {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ CASTAGNOLI } else { crc >> 1 };
    let crc = bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    (!crc).to_be_bytes()
}

/// The polynomial, its lowest power in the highest bit.
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// What of an address counts (BEP 42, *Node ID restriction*): whoever holds a whole network gains
/// few names more than whoever holds one address of it.
const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_addresses_as_in_bep_42() {
        let vectors = [
            ("124.31.75.21", 1, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, [0xe5, 0x6f, 0x6c]),
        ];
        for (ip, r, first) in vectors {
            let ip: IpAddr = ip.parse().unwrap();
            let mut chance = [0x77; 20];
            (chance[2], chance[19]) = (first[2], r);
            let id = NodeId::for_address(ip, chance);
            assert_eq!((&id.0[..3], id.0[19]), (&first[..], r), "{ip}");
            assert!(id.suits(ip));
            let mut wrong = id;
            wrong.0[2] ^= 0x08;
            assert!(!wrong.suits(ip));
            wrong.0[2] ^= 0x08 | 0x07;
            assert!(wrong.suits(ip), "the 22nd bit and those behind it are free");
        }
    }

    #[test]
    fn of_an_ipv6_address_the_network_counts() {
        let [a, b, c] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
            .map(|ip| ip.parse::<IpAddr>().unwrap());
        let id = NodeId::for_address(a, [9; 20]);
        assert!(id.suits(a) && id.suits(b) && !id.suits(c));
    }

    #[test]
    fn distance_is_a_number_of_160_bits() {
        let near = NodeId([0; 20]);
        let mut far = near;
        far.0[1] = 0x10;
        assert_eq!(near.shared_bits(&far), 11);
        assert_eq!(near.shared_bits(&near), 160);
        for bits in [0, 1, 7, 8, 11, 63, 158, 159] {
            let id = far.sharing(bits, [0xa7; 20]);
            assert_eq!(far.shared_bits(&id), bits);
        }
    }
}
