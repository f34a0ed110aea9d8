//! What a tracker is told and what it answers, whatever protocol carries it.
//!
//! An [`Announce`] says who we are and how far we got with one torrent; an [`Answer`] says when to
//! come back, and [`Peers`] walks the addresses in the answer where they stand: nothing is copied
//! and nothing allocated. [`http`] and [`udp`] know how both look on the wire, [`schedule`] which
//! tracker is due when, [`local`] how boxes on one network find each other without a tracker. None
//! of them touches a socket, a clock or a source of randomness.
//!
//! A tracker is a stranger. Its intervals are held between [`INTERVAL_MIN_MS`] and
//! [`INTERVAL_MAX_MS`], so that no answer makes a box announce in a loop or fall silent for good;
//! its words are cut and cleaned before a person sees them ([`Notice`]); addresses that nobody can
//! be reached at are skipped. Loopback and private addresses pass: they are right when the owner
//! named the tracker and wrong when a stranger did, and only the caller knows which it was.
//!
//! Journey 2 and 3: [`schedule`] says that a tracker is due, `service/tracker` carries the
//! announce there, and the addresses of [`Peers`] become candidates of the
//! [`swarm`](super::swarm).

pub mod http;
pub mod local;
pub mod schedule;
pub mod udp;

use super::bencode::{Items, Value};
use super::units::{InfoHash, PeerId};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::slice;

/// What one tracker is told about one torrent.
///
/// The parameters `ipv4` and `ipv6` are not among it: BEP 7 withdrew them, because they let anyone
/// announce a victim's address. A box with both families announces once over each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// The torrent; a v2 hash is cut to 20 bytes on the wire (BEP 52).
    pub info_hash: InfoHash,
    /// What we call ourselves.
    pub peer_id: PeerId,
    /// Where we listen for peers.
    pub port: u16,
    /// Bytes of content sent since `started`.
    pub uploaded: u64,
    /// Bytes of content received since `started`.
    pub downloaded: u64,
    /// Bytes of content still missing; 0 makes us a seed.
    pub left: u64,
    /// What happened, if anything did.
    pub event: Event,
    /// Peers asked for; none are asked for with [`Event::Stopped`].
    pub num_want: u16,
    /// Random, and the same for all announces of a torrent while we run: by it the tracker knows
    /// that our IPv4 and our IPv6 address are one peer (BEP 7).
    pub key: u32,
    /// What this tracker gave as [`Answer::tracker_id`] last time, if it did.
    pub tracker_id: Option<&'a TrackerId>,
}

impl Announce<'_> {
    /// Peers to ask for: who leaves needs none.
    fn peers_wanted(&self) -> u16 {
        if self.event == Event::Stopped { 0 } else { self.num_want }
    }
}

/// Why an announce is made (BEP 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// The interval is over.
    #[default]
    None,
    /// The first announce to this tracker since we run.
    Started,
    /// The last piece has just been verified; never said of a torrent that was whole at the start.
    Completed,
    /// We leave.
    Stopped,
}

/// What a tracker answered, without its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// When the next announce is due, within [`INTERVAL_MIN_MS`] and [`INTERVAL_MAX_MS`].
    pub interval_ms: u64,
    /// How soon an announce may be made that is not due; never more than `interval_ms`.
    pub min_interval_ms: u64,
    /// Peers that have all of it, when the tracker says so.
    pub seeders: Option<u32>,
    /// Peers that do not, when the tracker says so.
    pub leechers: Option<u32>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// What the tracker wants its user to know although it answered.
    pub warning: Option<Notice>,
    /// To be sent back with the next announce.
    pub tracker_id: Option<TrackerId>,
}

/// An opaque name that a tracker gives us for itself (BEP 3, `tracker id`).
pub type TrackerId = heapless::Vec<u8, TRACKER_ID_BYTES_MAX>;

/// A tracker's refusal in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for the owner to read.
    pub reason: Notice,
    /// When it may be asked again.
    pub retry: Retry,
}

/// When a tracker that failed may be asked again (BEP 31).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// Nobody said: our own back-off counts.
    #[default]
    Unsaid,
    /// Not for so many milliseconds.
    After(u64),
    /// Not again while we run.
    Never,
}

/// The internet protocol an announce travels over; the peers of a UDP answer are of the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub const fn of(address: &SocketAddr) -> Family {
        match address {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        }
    }
}

/// Words of a stranger made fit for a terminal, a log or a page: at most [`NOTICE_BYTES_MAX`] bytes
/// of UTF-8 without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice(heapless::String<NOTICE_BYTES_MAX, u8>);

impl Notice {
    /// Cleans `bytes`; what is beyond the limit is left out.
    pub fn of(bytes: &[u8]) -> Notice {
        let mut text = heapless::String::new();
        for chunk in bytes.utf8_chunks() {
            let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
            for character in chunk.valid().chars().chain(broken) {
                let plain = if disturbs_a_terminal(character) { ' ' } else { character };
                if text.push(plain).is_err() {
                    return Notice(text);
                }
            }
        }
        Notice(text)
    }

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The peers of an answer, read where they stand.
///
/// Compact IPv4 (BEP 23), compact IPv6 (BEP 7) and the list of dictionaries (BEP 3) in one walk.
/// Left out is what nobody can dial: port 0, no address, multicast, broadcast; and in a dictionary
/// a host's name, for we look up no names for strangers.
///
/// # Work
/// One pass over the answer, which the caller bounded when it read it.
#[derive(Clone)]
pub struct Peers<'a> {
    v4: slice::Iter<'a, [u8; 6]>,
    v6: slice::Iter<'a, [u8; 18]>,
    listed: Option<Items<'a>>,
}

impl<'a> Peers<'a> {
    /// Peers of one family, packed; a broken entry at the end is no entry.
    fn compact(family: Family, bytes: &'a [u8]) -> Peers<'a> {
        match family {
            Family::V4 => Peers::packed(bytes, &[]),
            Family::V6 => Peers::packed(&[], bytes),
        }
    }

    /// Peers of both families, packed.
    fn packed(v4: &'a [u8], v6: &'a [u8]) -> Peers<'a> {
        Peers { v4: v4.as_chunks().0.iter(), v6: v6.as_chunks().0.iter(), listed: None }
    }
}

impl Iterator for Peers<'_> {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let v4 = self.v4.by_ref().map(unpack_v4);
        let v6 = self.v6.by_ref().map(unpack_v6);
        let listed = self.listed.iter_mut().flatten().filter_map(read_listed);
        v4.chain(v6).chain(listed).find(can_be_dialled)
    }
}

fn unpack_v4(&[a, b, c, d, high, low]: &[u8; 6]) -> SocketAddr {
    let ip = Ipv4Addr::new(a, b, c, d);
    SocketAddr::new(IpAddr::V4(ip), u16::from_be_bytes([high, low]))
}

fn unpack_v6(&[ref ip @ .., high, low]: &[u8; 18]) -> SocketAddr {
    // An IPv4 address in IPv6 clothes is the same peer as without them.
    let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}

fn read_listed(peer: Value<'_>) -> Option<SocketAddr> {
    let ip = core::str::from_utf8(peer.find(b"ip")?.bytes()?).ok()?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = peer.find(b"port")?.integer()?;
    Some(SocketAddr::new(ip.to_canonical(), u16::try_from(port).ok()?))
}

/// Whether an address is one a peer can have.
pub(super) fn can_be_dialled(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Loopback, link-local, private, shared by a carrier's customers (RFC 6598), set aside: nothing
/// that can be reached from anywhere, so no stranger has any business sending us there.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            let set_aside = a == 0 || a >= 240;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared || set_aside
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unique_local()
                || ip.is_unspecified()
        }
    }
}

/// Our own address as BEP 24 packs it: 4 or 16 bytes, nothing else.
fn unpack_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok().map(|ip| ip.to_canonical())
}

/// The interval and the least interval to keep, from what a tracker says of them in seconds.
fn settle_intervals(interval_s: Option<i64>, min_interval_s: Option<i64>) -> (u64, u64) {
    let held = |seconds: i64| {
        let ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        ms.clamp(INTERVAL_MIN_MS, INTERVAL_MAX_MS)
    };
    let least = min_interval_s.map_or(INTERVAL_MIN_MS, held);
    (interval_s.map_or(INTERVAL_UNSAID_MS, held).max(least), least)
}

/// Control characters, and those that turn the direction of text around: either can make a
/// stranger's words look like ours.
fn disturbs_a_terminal(character: char) -> bool {
    let turns = ['\u{200e}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    character.is_control() || turns.iter().any(|range| range.contains(&character))
}

/// The shortest interval we keep, whatever a tracker says: a minute brings hardly anyone new,
/// and a tracker that says 0 must not make us a flood.
pub const INTERVAL_MIN_MS: u64 = 60_000;

/// The longest interval we keep: a day, lest a slip of a tracker's pen lose it for good.
pub const INTERVAL_MAX_MS: u64 = 24 * 3_600_000;

/// The interval when an answer names none: the 30 minutes most trackers ask for.
pub const INTERVAL_UNSAID_MS: u64 = 1_800_000;

/// A stranger's words at most: a line of a terminal, and small enough to travel in an error.
pub const NOTICE_BYTES_MAX: usize = 96;

/// A tracker's name for itself at most; a longer one is not kept, for a part of it means nothing.
pub const TRACKER_ID_BYTES_MAX: usize = 64;

/// A tracker's URL at most. With it all of a UDP announce stays under the 1,232 bytes that every
/// IPv6 path carries, and a request's head fits any server.
pub const URL_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::Instant;

    #[test]
    fn packed_peers_of_both_families_are_walked_and_dead_ends_skipped() {
        let mut v6 = [0; 18 * 3];
        v6[15] = 1; // ::1
        v6[17] = 80;
        v6[18 + 10..18 + 18].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7, 0x1a, 0xe1]);
        let v4 = *b"\x0a\x00\x00\x01\x1a\xe1\x0a\x00\x00\x02\x00\x00\xff\xff\xff\xff\x00\x01\x00";
        let mut peers = Peers::packed(&v4, &v6);
        assert_eq!(peers.next(), Some("10.0.0.1:6881".parse().unwrap()));
        assert_eq!(peers.next(), Some("[::1]:80".parse().unwrap()));
        assert_eq!(peers.next(), Some("10.0.0.7:6881".parse().unwrap()), "mapped is the same peer");
        assert_eq!(peers.next(), None, "port 0, broadcast, half an entry and [::]:0 are no peers");
    }

    #[test]
    fn intervals_of_lying_trackers_are_held_in_bounds() {
        let settled = [
            ((Some(1_800), None), (1_800_000, 60_000)),
            ((Some(0), Some(-5)), (60_000, 60_000)),
            ((Some(i64::MAX), Some(90)), (24 * 3_600_000, 90_000)),
            ((Some(100), Some(300)), (300_000, 300_000)),
            ((None, None), (1_800_000, 60_000)),
        ];
        for ((interval, least), expected) in settled {
            assert_eq!(settle_intervals(interval, least), expected, "{interval:?} {least:?}");
        }
    }

    #[test]
    fn words_of_strangers_are_cut_and_cleaned() {
        assert_eq!(Notice::of(b"a\x1b[2J\xffb\n").as_str(), "a [2J\u{fffd}b ");
        assert_eq!(Notice::of("x\u{202e}y".as_bytes()).as_str(), "x y");
        let long = Notice::of("\u{e9}".repeat(1_000).as_bytes());
        assert_eq!(long.as_str().len(), NOTICE_BYTES_MAX);
    }

    #[test]
    fn spoilt_answers_and_searches_are_read_without_harm() {
        let announce = Announce {
            info_hash: InfoHash::V1([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 1,
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: Event::None,
            num_want: 1,
            key: 1,
            tracker_id: None,
        };
        let good: [&[u8]; 3] = [
            b"d8:intervali9e5:peersld2:ip3:::14:porti80eee6:peers618:000000000000000000e",
            b"\0\0\0\x01\0\0\0\x07\0\0\0\x07\0\0\0\x07\0\0\0\x07000000000000",
            b"BT-SEARCH * HTTP/1.1\r\nPort: 80\r\n\
              Infohash: abababababababababababababababababababab\r\n",
        ];
        let mut state = 1u32;
        for round in 0..30_000 {
            let mut bytes = heapless::Vec::<u8, 128>::from_slice(good[round % 3]).unwrap();
            for _ in 0..round % 4 {
                // Numerical Recipes' generator; its high bits are the better ones.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                match state >> 30 {
                    0 => bytes.truncate(at + 1),
                    _ => bytes[at] = (state >> 20) as u8,
                }
            }
            let _ = http::parse(&bytes).map(|(_, peers)| peers.count());
            let mut exchange: udp::Exchange<'_> =
                udp::Exchange::new(announce, "", Family::V6, Instant::default());
            exchange.poll_output(Instant::default(), 7);
            let granted = *b"\0\0\0\0\0\0\0\x07identity";
            assert!(exchange.handle_datagram(&granted, Instant::default()).is_ok());
            exchange.poll_output(Instant::default(), 7);
            let _ = exchange.handle_datagram(&bytes, Instant::default()).is_ok();
            let _ = local::parse(&bytes, local::Cookie(1)).map(|search| search.hashes.count());
        }
    }
}
