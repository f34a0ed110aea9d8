//! The nodes we know, as bytes that outlast a restart.
//!
//! ```text
//! magic 4 | our name 20 | count 2 | count x (name 20, address 4 or 16, port 2) | CRC-32 4
//! ```
//!
//! Numbers are big-endian, the magic says the version and the family. Bytes that are damaged, cut
//! or of another version are nobody's: the node starts as if there were none.

use super::Dht;
use super::endpoint::{Endpoint, endpoint_bytes};
use super::id::NodeId;
use super::table::Contact;
use crate::engine::announce::Family;
use crate::engine::bencode::Sink;
use crate::engine::units::Instant;

impl Dht<'_> {
    /// Writes our name and every contact that answers; with none, nothing is written.
    pub fn write_nodes<S: Sink>(&self, sink: &mut S) -> Result<(), S::Error> {
        let kept = || self.table.contacts().filter(|contact| contact.is_reliable());
        let count = kept().count();
        if count == 0 {
            return Ok(());
        }
        let mut sink = Summed { sink, crc: crc32fast::Hasher::new() };
        sink.put(magic(self.settings.family))?;
        sink.put(&self.table.own().0)?;
        // The table has at most eight contacts for each of 160 distances.
        sink.put(&(count as u16).to_be_bytes())?;
        for Contact { id, endpoint, .. } in kept() {
            sink.put(&id.0)?;
            endpoint.write(&mut sink)?;
        }
        let crc = sink.crc.finalize();
        sink.sink.put(&crc.to_be_bytes())
    }

    /// Takes up what [`write_nodes`](Self::write_nodes) wrote, before anything else is done: our
    /// name is the old one, and the contacts come in on trial. Says how many there were, and what
    /// follows them in `bytes`; damaged bytes are passed over.
    pub fn read_nodes<'b>(&mut self, bytes: &'b [u8], now: Instant) -> (usize, &'b [u8]) {
        let family = self.settings.family;
        let Some((own, nodes, rest)) = parse(bytes, family) else { return (0, bytes) };
        self.table.rename(own);
        let mut count = 0;
        for node in nodes.chunks_exact(20 + endpoint_bytes(family)) {
            let (id, endpoint) = node.split_at(20);
            let (Ok(id), Some(endpoint)) = (id.try_into(), Endpoint::parse(endpoint)) else {
                continue;
            };
            count += usize::from(self.hear_of(NodeId(id), endpoint, now));
        }
        (count, rest)
    }
}

/// Our name, the packed nodes, and what follows.
fn parse(bytes: &[u8], family: Family) -> Option<(NodeId, &[u8], &[u8])> {
    let (own, rest) = bytes.strip_prefix(magic(family))?.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*count)) * (20 + endpoint_bytes(family));
    let (nodes, rest) = rest.split_at_checked(length)?;
    let (crc, rest) = rest.split_first_chunk()?;
    let summed = &bytes[..bytes.len() - rest.len() - crc.len()];
    (crc32fast::hash(summed).to_be_bytes() == *crc).then_some((NodeId(*own), nodes, rest))
}

fn magic(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => b"PND4",
        Family::V6 => b"PND6",
    }
}

/// Bytes that [`Dht::write_nodes`] writes of so many contacts at most.
pub const fn saved_bytes(contacts: usize) -> usize {
    4 + 20 + 2 + 4 + contacts * (20 + endpoint_bytes(Family::V6))
}

/// A sink that sums up what goes through it.
struct Summed<'s, S> {
    sink: &'s mut S,
    crc: crc32fast::Hasher,
}

impl<S: Sink> Sink for Summed<'_, S> {
    type Error = S::Error;

    fn put(&mut self, bytes: &[u8]) -> Result<(), S::Error> {
        self.crc.update(bytes);
        self.sink.put(bytes)
    }
}
