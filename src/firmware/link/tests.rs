//! A link on a network that means it no good.

use super::*;
use smoltcp::phy::{ChecksumCapabilities, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};
use std::collections::VecDeque;
use std::vec::Vec;

/// A network with one DHCP server, which says what a test wants it to.
struct Network {
    server: Ipv4Addr,
    router: Ipv4Addr,
    mask: Ipv4Addr,
    to_us: VecDeque<Vec<u8>>,
    /// Frames without end.
    flood: bool,
    taken: u32,
}

struct Received(Vec<u8>);
struct Sent<'n>(&'n mut Network);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = std::vec![0; length];
        let result = f(&mut frame);
        self.0.answer(&frame);
        result
    }
}

impl Device for Network {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sent<'_>)> {
        let noise = self.flood.then(|| std::vec![0xff; 60]);
        let frame = self.to_us.pop_front().or(noise)?;
        self.taken += 1;
        Some((Received(frame), Sent(self)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sent<'_>> {
        Some(Sent(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.max_transmission_unit, capabilities.medium) = (1514, Medium::Ethernet);
        capabilities
    }
}

impl Network {
    /// A network whose server is at `server` and names `router`.
    fn new(server: [u8; 4], router: [u8; 4], mask: [u8; 4]) -> Network {
        let [server, router, mask] = [server, router, mask].map(Ipv4Addr::from);
        Network { server, router, mask, to_us: VecDeque::new(), flood: false, taken: 0 }
    }

    /// Offers to who discovers, and gives to who asks.
    fn answer(&mut self, frame: &[u8]) -> Option<()> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
        let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
        let asked = DhcpPacket::new_checked(datagram.payload()).ok()?;
        let asked = DhcpRepr::parse(&asked).ok()?;
        let message_type = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            _ => DhcpMessageType::Ack,
        };
        let said = DhcpRepr {
            message_type,
            your_ip: Ipv4Addr::new(10, 0, 0, 5),
            server_ip: self.server,
            router: Some(self.router),
            subnet_mask: Some(self.mask),
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(Ipv4Addr::new(10, 0, 0, 1)),
            parameter_request_list: None,
            max_size: None,
            lease_duration: Some(10),
            ..asked
        };
        let udp = UdpRepr { src_port: 67, dst_port: 68 };
        let ip = Ipv4Repr {
            src_addr: self.server,
            dst_addr: Ipv4Addr::BROADCAST,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + said.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = std::vec![0; 14 + ip.buffer_len() + ip.payload_len];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        frame.set_dst_addr(EthernetAddress::BROADCAST);
        frame.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 9]));
        frame.set_ethertype(EthernetProtocol::Ipv4);
        let checksums = ChecksumCapabilities::default();
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        udp.emit(
            &mut datagram,
            &from,
            &to,
            said.buffer_len(),
            |payload| said.emit(&mut DhcpPacket::new_unchecked(payload)).expect("it fits"),
            &checksums,
        );
        self.to_us.push_back(bytes);
        Some(())
    }
}

/// Lets a link live for a minute on `network`, with something to say to the world all the while;
/// the address it has after two seconds.
fn a_minute_on(network: &mut Network) -> Option<Ipv4Cidr> {
    let storage = Vec::leak((0..4).map(|_| SocketStorage::EMPTY).collect());
    let at = Instant::from_millis;
    let mut link = Link::new(network, [2, 0, 0, 0, 0, 1], 7, storage, at(0));
    let ring = || {
        let marks = std::vec![udp::PacketMetadata::EMPTY; 2].leak();
        udp::PacketBuffer::new(marks, std::vec![0; 64].leak())
    };
    let socket = link.sockets.add(udp::Socket::new(ring(), ring()));
    let mut address = None;
    for ms in (0..60_000).step_by(50) {
        link.turn(true, at(ms));
        let socket = link.sockets.get_mut::<udp::Socket<'_>>(socket);
        if !socket.is_open() {
            socket.bind(4_000).unwrap();
        }
        let _ = socket.send_slice(b"hello", (Ipv4Addr::new(8, 8, 8, 8), 53));
        if ms == 2_000 {
            address = link.address();
        }
    }
    address
}

#[test]
fn a_server_that_means_well_gives_an_address() {
    let mut network = Network::new([10, 0, 0, 1], [10, 0, 0, 1], [255, 255, 255, 0]);
    assert_eq!(a_minute_on(&mut network), Some(Ipv4Cidr::new(Ipv4Addr::new(10, 0, 0, 5), 24)));
}

#[test]
fn a_router_that_is_nobody_is_no_router() {
    for router in [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
        let mut network = Network::new([10, 0, 0, 1], router, [255, 255, 255, 0]);
        assert!(a_minute_on(&mut network).is_some(), "{router:?}");
    }
    let mut network = Network::new([10, 0, 0, 1], [10, 0, 0, 1], [0, 0, 0, 0]);
    a_minute_on(&mut network);
}

#[test]
fn a_server_that_is_nobody_gives_nothing() {
    for server in [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
        let mut network = Network::new(server, [10, 0, 0, 1], [255, 255, 255, 0]);
        assert_eq!(a_minute_on(&mut network), None, "{server:?}");
    }
}

#[test]
fn a_flood_of_frames_leaves_time_for_everything_else() {
    let mut network = Network::new([10, 0, 0, 1], [10, 0, 0, 1], [255, 255, 255, 0]);
    network.flood = true;
    let storage = Vec::leak((0..4).map(|_| SocketStorage::EMPTY).collect());
    let at = Instant::from_millis;
    let mut link = Link::new(&mut network, [2, 0, 0, 0, 0, 1], 7, storage, at(0));
    link.turn(true, at(0));
    for ms in 1..=10 {
        link.turn(true, at(ms));
        assert_eq!(link.deadline(at(ms)).at, at(ms));
    }
    assert_eq!(network.taken, 10 * FRAMES_A_TURN as u32);
}
