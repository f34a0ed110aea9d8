//! All files of a torrent as one `.zip`, written as it is sent.
//!
//! Nothing is compressed, for what is shared mostly is already; so its length is known before the
//! first byte. Checksums stand behind each file, where they are known (APPNOTE 6.3.10, 4.3.9), and
//! all sizes have 64 bits (4.5.3). The list at the end needs them again: 4 bytes for each file are
//! kept until then, and so a torrent of more than [`FILES_MAX`] files is not offered as one.

use super::Web;
use super::file::OnAir;
use super::reply::{Reply, Status};
use crate::engine::units::Span;
use crate::service::board::TRANSIT_BYTES;
use crate::service::content::Content;
use crate::service::handout::{self, Errand, Outcome};
use crate::service::lanes::Buffer;
use async_io::Async;
use smol::future::FutureExt as _;
use std::io;
use std::net::TcpStream;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// A torrent as a `.zip`.
pub struct Zip {
    torrent: OnAir,
    /// The name of the folder in it, or of its one file.
    name: String,
    bytes: u64,
}

/// A file in it.
struct Member {
    name: String,
    /// Where its content is.
    span: Span,
}

impl Zip {
    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The member that a file of the torrent is; `None` for one that only fills up a piece.
fn member(content: &Content, name: &str, index: u32) -> io::Result<Option<Member>> {
    let extent = handout::extent(content, index).ok().flatten();
    let extent = extent.ok_or(io::ErrorKind::UnexpectedEof)?;
    if extent.padding {
        return Ok(None);
    }
    let path = content.path_of(&extent)?;
    let slash = if path.is_empty() { "" } else { "/" };
    Ok(Some(Member { name: std::format!("{name}{slash}{path}"), span: extent.span }))
}

impl Web<'_, '_, '_> {
    /// Looks through a torrent that is all here. `Err` is what is answered when there is no zip of it.
    pub async fn zip(&self, torrent: OnAir, name: String) -> Result<Zip, Reply> {
        let content = &torrent.content;
        let whole = Span { at: 0, length: content.layout.total_bytes };
        let here = self.here_from(&torrent, whole);
        if here != Some(whole.length) {
            // Nobody waits for the rest.
            self.steward.service.swarm.borrow_mut().fetcher.await_piece(torrent.slot, None);
            return Err(Reply::words(Status::CONFLICT, "not all of it is here yet"));
        }
        if content.file_count > FILES_MAX {
            let words = std::format!(
                "it has more than {FILES_MAX} files: get it with a BitTorrent program"
            );
            return Err(Reply::words(Status::TOO_LARGE, &words));
        }
        let errand = Errand::Measure { content: Arc::clone(content) };
        let Outcome::Measured(measured) = self.hand_out(errand).await else {
            unreachable!("a lane answers what it was asked")
        };
        let all = measured.map_err(|error| {
            Reply::words(Status::BUSY, &std::format!("it cannot be read now: {error}"))
        })?;
        // The torrent's name stands before each path, with a slash between the two, if there is one.
        let slashes = if all.path_bytes > 0 { all.files } else { 0 };
        let names_bytes = name.len() as u64 * all.files + all.path_bytes + slashes;
        let heads_bytes = (LOCAL_BYTES + BEHIND_BYTES + LISTED_BYTES) * all.files;
        let bytes = END_BYTES + heads_bytes + 2 * names_bytes + all.bytes;
        Ok(Zip { torrent, name, bytes })
    }

    /// Sends it.
    pub async fn send_zip(&self, stream: &Arc<Async<TcpStream>>, zip: &Zip) -> io::Result<()> {
        let content = &zip.torrent.content;
        let mut buffer = std::vec![0; TRANSIT_BYTES].into_boxed_slice();
        let (mut at, mut sums) = (0, Vec::with_capacity(content.file_count as usize));
        for index in 0..content.file_count {
            let Some(member) = member(content, &zip.name, index)? else { continue };
            let head = local(&member);
            self.write(stream, &head).await?;
            let sum = self.send_member(stream, &zip.torrent, member.span, &mut buffer).await?;
            let behind = behind(sum, member.span.length);
            self.write(stream, &behind).await?;
            at += head.len() as u64 + member.span.length + BEHIND_BYTES;
            sums.push(sum);
        }
        let (list_at, mut offset, mut sums_left) = (at, 0, sums.iter());
        for index in 0..content.file_count {
            let Some(member) = member(content, &zip.name, index)? else { continue };
            let Some(sum) = sums_left.next() else { break };
            if index % LISTED_A_TURN == 0 {
                smol::future::yield_now().await;
            }
            let listed = listed(&member, *sum, offset);
            self.write(stream, &listed).await?;
            offset += LOCAL_BYTES + member.name.len() as u64 + member.span.length + BEHIND_BYTES;
            at += listed.len() as u64;
        }
        self.write(stream, &end(sums.len() as u64, list_at, at - list_at)).await
    }

    /// Sends the content of one; its checksum.
    async fn send_member(
        &self,
        stream: &Arc<Async<TcpStream>>,
        torrent: &OnAir,
        span: Span,
        room: &mut Buffer,
    ) -> io::Result<u32> {
        let (mut hasher, mut at) = (crc32fast::Hasher::new(), span.at);
        while at < span.end() {
            let buffer = std::mem::take(room);
            let bytes = (span.end() - at).min(buffer.len() as u64);
            let bytes = self.allowance(torrent, bytes).await as usize;
            let content = Arc::clone(&torrent.content);
            let errand = Errand::Read { content, at, bytes, buffer };
            let Outcome::Moved(buffer, read) = self.hand_out(errand).await else {
                unreachable!("a lane answers what it was asked")
            };
            read?;
            hasher.update(&buffer[..bytes]);
            let write = self.write(stream, &buffer[..bytes]);
            write.or(self.until_off_the_air(torrent)).await?;
            *room = buffer;
            self.note_sent(torrent, bytes);
            at += bytes as u64;
        }
        Ok(hasher.finalize())
    }
}

fn local(member: &Member) -> Vec<u8> {
    let mut head = Vec::with_capacity(LOCAL_BYTES as usize + member.name.len());
    head.extend(0x0403_4b50_u32.to_le_bytes());
    common(&mut head, 0, member.name.len(), 20);
    head.extend(member.name.as_bytes());
    // Both sizes: known behind the content only.
    head.extend([1, 0, 16, 0]);
    head.extend([0; 16]);
    head
}

/// What both heads have: version, flags, method, date, checksum, sizes, and lengths.
fn common(head: &mut Vec<u8>, sum: u32, name_bytes: usize, extra_bytes: u16) {
    head.extend(VERSION.to_le_bytes());
    head.extend(FLAGS.to_le_bytes());
    // Stored; midnight of the first day there is.
    head.extend([0, 0, 0, 0, 0x21, 0]);
    head.extend(sum.to_le_bytes());
    head.extend([0xff; 8]);
    head.extend((name_bytes as u16).to_le_bytes());
    head.extend(extra_bytes.to_le_bytes());
}

fn behind(sum: u32, bytes: u64) -> Vec<u8> {
    let mut behind = Vec::with_capacity(BEHIND_BYTES as usize);
    behind.extend(0x0807_4b50_u32.to_le_bytes());
    behind.extend(sum.to_le_bytes());
    behind.extend(bytes.to_le_bytes());
    behind.extend(bytes.to_le_bytes());
    behind
}

fn listed(member: &Member, sum: u32, offset: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(LISTED_BYTES as usize + member.name.len());
    head.extend(0x0201_4b50_u32.to_le_bytes());
    // Made on Unix, so that permissions mean something.
    head.extend([VERSION as u8, 3]);
    common(&mut head, sum, member.name.len(), 28);
    head.extend([0; 6]);
    head.extend((0o100_644_u32 << 16).to_le_bytes());
    head.extend([0xff; 4]);
    head.extend(member.name.as_bytes());
    head.extend([1, 0, 24, 0]);
    head.extend(member.span.length.to_le_bytes());
    head.extend(member.span.length.to_le_bytes());
    head.extend(offset.to_le_bytes());
    head
}

fn end(count: u64, list_at: u64, list_bytes: u64) -> Vec<u8> {
    let mut end = Vec::with_capacity(END_BYTES as usize);
    end.extend(0x0606_4b50_u32.to_le_bytes());
    end.extend(44_u64.to_le_bytes());
    end.extend([VERSION as u8, 3, VERSION as u8, 0]);
    end.extend([0; 8]);
    end.extend(count.to_le_bytes());
    end.extend(count.to_le_bytes());
    end.extend(list_bytes.to_le_bytes());
    end.extend(list_at.to_le_bytes());
    end.extend(0x0706_4b50_u32.to_le_bytes());
    end.extend([0; 4]);
    end.extend((list_at + list_bytes).to_le_bytes());
    end.extend(1_u32.to_le_bytes());
    end.extend(0x0605_4b50_u32.to_le_bytes());
    end.extend([0; 4]);
    end.extend([0xff; 12]);
    end.extend([0; 2]);
    end
}

/// Needed to read it: sizes of 64 bits.
const VERSION: u16 = 45;

/// Checksum and sizes stand behind the content; names are UTF-8.
const FLAGS: u16 = 1 << 3 | 1 << 11;

const LOCAL_BYTES: u64 = 30 + 20;
const BEHIND_BYTES: u64 = 24;
const LISTED_BYTES: u64 = 46 + 28;
const END_BYTES: u64 = 56 + 20 + 22;

/// Of the list at the end so many are written before others have their turn.
const LISTED_A_TURN: u32 = 32;

/// Files of one at most.
const FILES_MAX: u32 = 10_000;
