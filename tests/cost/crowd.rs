//! Nodes of the DHT that fill another's table: one thread with a socket each. They answer everything
//! and know nobody.

use perennial::engine::announce::Family;
use perennial::engine::dht::endpoint::Endpoint;
use perennial::engine::dht::id::NodeId;
use perennial::engine::dht::message::{self, Ask, Content, Message};
use rustix::event::{PollFd, PollFlags, poll};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// See the module.
pub struct Crowd {
    nodes: Arc<Vec<(UdpSocket, NodeId)>>,
    around: SocketAddr,
}

impl Crowd {
    /// Has each of them be heard of by the node in the middle, which asks it something before its place
    /// is its own; what was lost on the way is made up for by doing it again. A few at a time: whose
    /// answer is lost among many is taken for absent, and not asked again for a quarter of an hour.
    pub fn knock(&self) {
        for few in self.nodes.chunks(A_BUCKET) {
            for (socket, id) in few {
                socket.send_to(&ping(id), self.around).expect("loopback takes it");
            }
            thread::sleep(Duration::from_millis(40));
        }
    }
}

/// As many nodes around the one at `address` as fill its table in a network of ten million, which
/// answer from now on. To be called in its network.
pub fn surround(address: SocketAddr) -> Crowd {
    let sockets: Vec<UdpSocket> = (0..DISTANCES * A_BUCKET).map(|_| open()).collect();
    let own = ask_for_its_name(&sockets[0], address);
    let ids: Vec<NodeId> = (0..sockets.len()).map(|number| name(&own, number)).collect();
    let nodes: Arc<Vec<(UdpSocket, NodeId)>> = Arc::new(sockets.into_iter().zip(ids).collect());
    let answering = Arc::clone(&nodes);
    // Ends with the test's process.
    thread::spawn(move || answer(&answering));
    Crowd { nodes, around: address }
}

fn open() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a free port")
}

/// A name that shares so many bits with that one as its place in the table asks for.
fn name(own: &NodeId, number: usize) -> NodeId {
    let chance = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    own.sharing((number / A_BUCKET) as u32, std::array::from_fn(|at| chance[at % 8]))
}

fn ping(id: &NodeId) -> Vec<u8> {
    let mut ping = heapless::Vec::<u8, 256>::new();
    message::write_query(&mut ping, *b"abcd", id, false, &Ask::Ping).expect("it fits");
    ping.to_vec()
}

fn ask_for_its_name(socket: &UdpSocket, address: SocketAddr) -> NodeId {
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket has a time-out");
    for _ in 0..20 {
        socket.send_to(&ping(&NodeId([7; 20])), address).expect("loopback takes it");
        let mut datagram = [0; 1_500];
        while let Ok((length, _)) = socket.recv_from(&mut datagram) {
            if let Some(Message::Answer(answer)) = message::parse(&datagram[..length], Family::V4) {
                return answer.id;
            }
        }
    }
    panic!("no node answers at {address}");
}

fn answer(nodes: &[(UdpSocket, NodeId)]) {
    loop {
        let mut polled: Vec<PollFd<'_>> =
            nodes.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)).collect();
        poll(&mut polled, None).expect("sockets can be waited for");
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        for ((socket, id), _) in nodes.iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut datagram = [0; 1_500];
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
            let Some(Message::Query(query)) = message::parse(&datagram[..length], Family::V4)
            else {
                continue;
            };
            let (nodes, token) = (Some(&[][..]), Some(&b"open"[..]));
            let content = Content { own: id, nodes, nodes6: None, token, values: &[] };
            let mut reply = heapless::Vec::<u8, 256>::new();
            let seen_at = Endpoint::of(from);
            message::write_answer(&mut reply, query.transaction, seen_at, &content)
                .expect("it fits");
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// Distances at which a table of ten million nodes holds somebody, and how many at each.
const DISTANCES: usize = 21;
const A_BUCKET: usize = 8;

/// What a full table holds.
pub const TABLE: usize = DISTANCES * A_BUCKET;
