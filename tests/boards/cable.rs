//! A cable in the board's network: whole Ethernet frames, as UDP datagrams of 127.0.0.1.
//!
//! At its other end is a host with one address, [`HOST`], that speaks ARP and UDP as far as these
//! tests need it. Multicast never gets beyond the cable, and nothing here needs root.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// A datagram with the frame it came in.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Where the frame was sent to.
    pub target_hardware: [u8; 6],
    /// Its time to live.
    pub ttl: u8,
    /// Who sent it.
    pub source: SocketAddrV4,
    /// To whom.
    pub target: SocketAddrV4,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The host's end.
pub struct Cable {
    socket: UdpSocket,
    /// QEMU's end.
    other_end: (Ipv4Addr, u16),
    /// The board's hardware address, once a frame of it was seen.
    board: [u8; 6],
}

impl Cable {
    /// A cable from us to the port `other_end`, and our own port.
    pub fn lay(other_end: u16) -> (Cable, u16) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        (Cable { socket, other_end: (Ipv4Addr::LOCALHOST, other_end), board: [0xff; 6] }, port)
    }

    /// The next datagram from the board to anybody at `port`. Questions for our hardware address
    /// are answered meanwhile.
    pub fn datagram_to(&mut self, port: u16, limit: Duration) -> Option<Datagram> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            self.socket.set_read_timeout(Some(left.max(TICK))).expect("a timeout that is not 0");
            let mut frame = [0; 2048];
            let Ok(length) = self.socket.recv(&mut frame) else { continue };
            let frame = &frame[..length];
            if self.answer_arp(frame).is_ok() {
                continue;
            }
            let Some(datagram) = parse_datagram(frame) else { continue };
            if datagram.source.ip() == &BOARD {
                self.board = frame[6..12].try_into().expect("six bytes");
                if datagram.target.port() == port {
                    return Some(datagram);
                }
            }
        }
    }

    /// Sends a datagram from our `port` to `target`: the board, or a group.
    pub fn send(&self, port: u16, target: SocketAddrV4, payload: &[u8]) {
        let hardware = match target.ip().octets() {
            [224..=239, b, c, d] => [0x01, 0x00, 0x5e, b & 0x7f, c, d],
            _ => self.board,
        };
        let udp_bytes = 8 + payload.len() as u16;
        let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 16, 17, 0, 0].to_vec();
        ip[2..4].copy_from_slice(&(20 + udp_bytes).to_be_bytes());
        ip.extend([HOST.octets(), target.ip().octets()].concat());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        // A checksum of 0 is one that was not made (RFC 768).
        let udp = [port, target.port(), udp_bytes, 0].map(u16::to_be_bytes).concat();
        let head = [&hardware[..], &HARDWARE, &[0x08, 0x00]].concat();
        self.put(&[&head[..], &ip, &udp, payload].concat());
    }

    /// Answers who asks for our hardware address.
    fn answer_arp(&self, frame: &[u8]) -> Result<(), ()> {
        let question = frame.get(12..42).ok_or(())?;
        if question[..10] != [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1] {
            return Err(());
        }
        let (asker, asked) = (&question[10..20], &question[26..30]);
        if asked == HOST.octets() {
            let head = [&frame[6..12], &HARDWARE, &question[..9], &[2]].concat();
            self.put(&[&head[..], &HARDWARE, asked, asker].concat());
        }
        Ok(())
    }

    fn put(&self, frame: &[u8]) {
        // The board's end is there for as long as QEMU is: a lost frame shows as a test in vain.
        let _ = self.socket.send_to(frame, self.other_end);
    }
}

/// Reads a frame with a UDP datagram in it. One with a wrong length or checksum is none.
fn parse_datagram(frame: &[u8]) -> Option<Datagram> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [0x08, 0x00])?;
    let number = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    let address = |at: usize| {
        let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let head = usize::from(*ip.first()? & 0x0f) * 4;
    if ip[0] >> 4 != 4 || *ip.get(9)? != 17 || checksum(ip.get(..head)?) != 0 {
        return None;
    }
    let (source, target) = (address(12)?, address(16)?);
    let udp = ip.get(head..usize::from(number(2)?))?;
    let length = number(head + 4)?;
    if udp.len() != usize::from(length) || udp.len() < 8 {
        return None;
    }
    let pseudo = [&ip[12..20], &[0, 17], &length.to_be_bytes(), udp].concat();
    if number(head + 6)? != 0 && checksum(&pseudo) != 0 {
        return None;
    }
    Some(Datagram {
        target_hardware: frame[..6].try_into().expect("six bytes"),
        ttl: ip[8],
        source: SocketAddrV4::new(source, number(head)?),
        target: SocketAddrV4::new(target, number(head + 2)?),
        payload: udp[8..].to_vec(),
    })
}

/// The internet checksum (RFC 1071); 0 over what holds its own.
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u64 = pairs.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// How many TCP segments of the board in a capture have the flag RST.
pub fn resets_in(capture: &Path) -> usize {
    let bytes = std::fs::read(capture).unwrap_or_else(|error| panic!("{capture:?}: {error}"));
    let frames = frames_of(&bytes).expect("QEMU writes whole captures");
    assert!(frames.len() > 10, "the capture is empty");
    let is_reset = |frame: &&&[u8]| {
        let Some(ip) = frame.get(14..).filter(|ip| ip.len() >= 40) else { return false };
        let tcp = usize::from(ip[0] & 0x0f) * 4;
        frame[12..14] == [0x08, 0x00]
            && (ip[9], &ip[12..16]) == (6, &BOARD.octets()[..])
            && ip[tcp + 13] & 0x04 != 0
    };
    frames.iter().filter(is_reset).count()
}

/// The frames of a capture in the format of `tcpdump`.
fn frames_of(mut bytes: &[u8]) -> io::Result<Vec<&[u8]>> {
    let magic = bytes.split_off(..24).ok_or(io::ErrorKind::UnexpectedEof)?;
    assert_eq!(magic[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "a capture in our own byte order");
    let mut frames = Vec::new();
    while let Some(head) = bytes.split_off(..16) {
        let length = u32::from_ne_bytes(head[8..12].try_into().expect("four bytes"));
        // The last one may be on its way to the file.
        frames.extend(bytes.split_off(..length as usize));
    }
    Ok(frames)
}

/// The board's address, as QEMU's DHCP gives it.
pub const BOARD: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// Our address at the other end of a cable.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 77);

/// Our hardware address: one of those everybody may give to himself.
const HARDWARE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x4d];

/// The shortest wait.
const TICK: Duration = Duration::from_millis(1);
