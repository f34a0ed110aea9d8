//! Bytes on their way from a web server to a lane.
//!
//! A run of content is asked for file by file, a range of each; padding between files is made here.
//! What comes is read into a lane's buffer as a pump does it: a buffer is held only while there is
//! something in it, and while a lane has one the next is filled.
//!
//! Where it breaks off, the rest of the run is given back, and what has come counts.

use super::address::Place;
use super::{End, Visit, WINDOW_BYTES};
use crate::engine::swarm::fetch::Fetching;
use crate::engine::swarm::fetch::run::Run;
use crate::engine::swarm::fetch::store::{STORES_MAX, Stores};
use crate::engine::units::{Deadline, Instant, PeerSlot, PieceIndex, TorrentSlot};
use crate::service::Service;
use crate::service::clock;
use crate::service::http::HttpError;
use crate::service::http::follow::{Errand, FollowError, HttpUrl, Visitor, Ways};
use crate::service::http::stream::Answer;
use crate::service::lanes::{Buffer, Done, Job, Receipt};
use core::ops::Range;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::string::{String, ToString};
use std::task::{Context, Poll};
use std::vec::Vec;

/// One task's connection, and payload on its way to a lane.
pub(super) struct Bringer<'b, 's> {
    service: &'b Service<'s>,
    slot: PeerSlot,
    place: clock::Slot,
    visitor: Visitor,
    /// Payload that is being written.
    storing: Option<Receipt>,
    /// Payload that is gathered meanwhile.
    gathered: Option<Gathered>,
    /// When something last came, or a lane had us wait.
    heard_at: Instant,
}

struct Gathered {
    buffer: Buffer,
    filled: usize,
    stores: Stores,
}

/// Where bytes come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The body of the answer.
    Body,
    /// Padding: nobody has it, and everybody knows it.
    Zeros,
}

/// Why a run breaks off.
enum Break {
    /// Nothing more of it is wanted for now.
    Unwanted,
    /// The server failed, and may not the next time.
    Later(String),
    /// The server will fail again.
    Never(String),
}

impl<'b, 's> Bringer<'b, 's> {
    pub(super) fn new(service: &'b Service<'s>, slot: PeerSlot) -> Bringer<'b, 's> {
        Bringer {
            service,
            slot,
            place: service.clock.slot(slot.index()),
            visitor: Visitor::default(),
            storing: None,
            gathered: None,
            heard_at: Instant::default(),
        }
    }

    /// Fetches from one server until there is nothing to fetch, or it fails.
    pub(super) async fn visit(&mut self, visit: &Visit) -> End {
        let now = self.service.clock.now();
        if !self.service.swarm.borrow_mut().fetcher.attach(self.slot, visit.torrent, now) {
            return End::Over;
        }
        let end = self.bring_runs(visit).await;
        self.visitor.close();
        self.service.line.leave(self.slot);
        self.service.swarm.borrow_mut().fetcher.leave(self.slot);
        self.service.ring_nudged();
        end
    }

    async fn bring_runs(&mut self, visit: &Visit) -> End {
        let (clock, seeds) = (&self.service.clock, &self.service.webseeds);
        let (mut bytes_max, mut near) = (RUN_BYTES_FIRST, None);
        loop {
            if !self.service.swarm.borrow().fetcher.is_fetched(visit.torrent) {
                return End::Over;
            }
            let next = {
                let mut swarm = self.service.swarm.borrow_mut();
                swarm.fetcher.begin_run(self.slot, bytes_max, near)
            };
            let Some(mut run) = next else {
                if seeds.deadline().at <= clock.now() {
                    return End::Idle;
                }
                // Rung when a piece is verified or open again, or when others are due.
                clock.wait(self.place, seeds.deadline()).await;
                continue;
            };
            let (begun, start) = (clock.now(), run.at);
            let brought = self.bring(visit, &mut run).await;
            self.service.swarm.borrow_mut().fetcher.end_run(self.slot, run);
            self.service.ring_nudged();
            near = Some(self.piece_at(run));
            let brought = if seeds.is_corrupt(self.slot) { Err(corrupt()) } else { brought };
            if run.at > start {
                seeds.note_good(self.slot);
            }
            match brought {
                Ok(()) => {
                    let ms = clock.now().since(begun).max(1);
                    bytes_max = (run.at - start).saturating_mul(RUN_MS) / ms;
                    bytes_max = bytes_max.clamp(RUN_BYTES_MIN, RUN_BYTES_MAX);
                }
                Err(Break::Unwanted) => {}
                Err(Break::Later(what)) => return End::Later(what),
                Err(Break::Never(what)) => return End::Never(what),
            }
        }
    }

    fn piece_at(&self, run: Run) -> PieceIndex {
        let layout = self.service.content(run.torrent).layout;
        PieceIndex((run.at / u64::from(layout.piece_bytes)) as u32)
    }

    /// Brings a run, file by file.
    async fn bring(&mut self, visit: &Visit, run: &mut Run) -> Result<(), Break> {
        while run.left_bytes() > 0 {
            let place = self.locate(run.torrent, run.at).await?;
            let end = run.end.min(place.span.end());
            let source = if place.padding { Source::Zeros } else { Source::Body };
            if source == Source::Body {
                let range = run.at - place.span.at..end - place.span.at;
                self.ask(visit, &place, range).await?;
            }
            self.heard_at = self.service.clock.now();
            let brought = poll_fn(|cx| self.turn(cx, run, end, source)).await;
            // What has come counts, whatever ended it.
            poll_fn(|cx| self.flush(cx)).await;
            if !self.visitor.client.is_free() {
                self.visitor.close();
            }
            brought?;
        }
        Ok(())
    }

    /// The file that holds a byte of the content.
    async fn locate(&self, torrent: TorrentSlot, at: u64) -> Result<Place, Break> {
        let content = self.service.content(torrent);
        match self.service.lanes.run(Job::Locate { content, at }).await {
            Some(Done::Located(Ok(place))) => Ok(place),
            Some(Done::Located(Err(error))) => Err(Break::Never(error.to_string())),
            _ => Err(Break::Later("every lane is taken".into())),
        }
    }

    /// Asks for a range of a file, and holds the answer against it.
    async fn ask(&mut self, visit: &Visit, place: &Place, range: Range<u64>) -> Result<(), Break> {
        let url = address(&visit.url, &place.path)?;
        let ways = OnService { service: self.service, named: visit.named };
        let errand = Errand {
            from_owner: visit.named || self.service.lan_only,
            range: Some(range.clone()),
            // Who does not know ranges sends all, of which we take the front.
            bytes_max: u64::MAX,
            window_bytes: Some(WINDOW_BYTES),
        };
        let answer = self.visitor.open(&ways, &url, &errand).await;
        check(&answer.map_err(failed)?, &range, place.span.length)
    }

    /// Reads what has come up to byte `end` of the content. Gives way after a few reads.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        run: &mut Run,
        end: u64,
        source: Source,
    ) -> Poll<Result<(), Break>> {
        let now = self.service.clock.now();
        // Asked first: whatever rings from here on brings another turn.
        let _ = self.service.clock.bell(self.place).poll(cx);
        self.collect_stored(cx, now);
        for _ in 0..READS_A_TURN {
            if run.at >= end {
                return Poll::Ready(Ok(()));
            }
            if self.service.webseeds.is_corrupt(self.slot) {
                return Poll::Ready(Err(corrupt()));
            }
            if !self.service.swarm.borrow_mut().fetcher.is_wanted(self.slot) {
                return Poll::Ready(Err(Break::Unwanted));
            }
            match self.read(cx, run, end, source, now) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                // A job that has just been handed over is listened to as well.
                Poll::Pending if !self.collect_stored(cx, now) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once. Pending when nothing has come, or there is no room for it.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        run: &mut Run,
        end: u64,
        source: Source,
        now: Instant,
    ) -> Poll<Result<(), Break>> {
        if self.gathered.as_ref().is_some_and(Gathered::is_full) {
            // A lane has one already: it is waited for.
            self.heard_at = now;
            return Poll::Pending;
        }
        let is_capped = source == Source::Body && self.is_capped();
        let allowed = match self.service.down.allowance(run.torrent, now) {
            Ok(bytes) if is_capped => bytes,
            Err(due) if is_capped => {
                self.store();
                self.service.line.leave(self.slot);
                self.heard_at = now;
                self.service.clock.ring_at(self.place, due);
                return Poll::Pending;
            }
            _ => u64::MAX,
        };
        let gathered = match self.gathered.take() {
            Some(gathered) => gathered,
            None => {
                let is_second = self.storing.is_some();
                let Some(buffer) = self.service.take_buffer_to_gather(self.slot, is_second) else {
                    self.heard_at = now;
                    return Poll::Pending;
                };
                Gathered { buffer, filled: 0, stores: Stores::new() }
            }
        };
        let Gathered { buffer, filled, .. } = self.gathered.insert(gathered);
        let most = (end - run.at).min(READ_BYTES as u64).min(allowed) as usize;
        let upto = buffer.len().min(*filled + most);
        let room = &mut buffer[*filled..upto];
        let read = match source {
            Source::Body => self.visitor.client.poll_read(cx, room),
            Source::Zeros => {
                room.fill(0);
                Poll::Ready(Ok(room.len()))
            }
        };
        let read = match read {
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(Err(Break::Later("its answer ends too early".into())));
            }
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Err(failed(FollowError::Http(error))));
            }
            Poll::Pending => return self.rest(now),
        };
        self.heard_at = now;
        if is_capped {
            self.service.down.take(run.torrent, read, now);
        }
        self.take_in(run, read, now);
        Poll::Ready(Ok(()))
    }

    /// Caps on bandwidth hold for the server.
    fn is_capped(&self) -> bool {
        let address = self.visitor.address();
        let in_the_house = address.is_some_and(|at| self.service.lan().contains(at.ip()));
        self.service.is_capped(in_the_house)
    }

    /// Nothing has come: what there is goes to a lane, and no buffer is held for what may come.
    fn rest(&mut self, now: Instant) -> Poll<Result<(), Break>> {
        self.store();
        if let Some(gathered) = self.gathered.take_if(|gathered| gathered.filled == 0) {
            self.service.give_back(gathered.buffer);
        }
        let silent_at = self.heard_at.after(SILENCE_MS);
        if now >= silent_at {
            return Poll::Ready(Err(failed(FollowError::TimedOut)));
        }
        let due = Deadline { at: silent_at, why: "a web seed that is silent" };
        self.service.clock.ring_at(self.place, due);
        Poll::Pending
    }

    /// Bytes of the run stand behind what was gathered.
    fn take_in(&mut self, run: &mut Run, read: usize, now: Instant) {
        let Some(Gathered { filled, stores, .. }) = &mut self.gathered else { return };
        let mut swarm = self.service.swarm.borrow_mut();
        swarm.fetcher.note_run(self.slot, run, 0, read, now);
        swarm.fetcher.take_stores(self.slot, *filled, stores);
        drop(swarm);
        *filled += read;
        let is_due = self.gathered.as_ref().is_some_and(Gathered::is_full);
        if is_due || self.service.line.is_standing() {
            self.store();
        }
    }

    /// Hands what has been gathered to a lane, unless one has some of it already.
    fn store(&mut self) {
        if self.storing.is_some() {
            return;
        }
        let Some(gathered) = self.gathered.take_if(|gathered| gathered.filled > 0) else { return };
        let Gathered { buffer, stores, .. } = gathered;
        self.storing = self.service.store(self.slot, buffer, stores);
    }

    /// Takes what a lane has written; `false` when there is none such yet.
    fn collect_stored(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(receipt) = &mut self.storing else { return false };
        let Poll::Ready(done) = Pin::new(receipt).poll(cx) else { return false };
        self.storing = None;
        self.heard_at = now;
        self.service.handle_done(done);
        if self.gathered.as_ref().is_some_and(Gathered::is_full) {
            self.store();
        }
        true
    }

    /// Waits until everything that was gathered is written.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.service.clock.now();
        loop {
            // Each job that is handed over is listened to at once.
            while self.collect_stored(cx, now) {}
            if self.storing.is_some() {
                return Poll::Pending;
            }
            self.store();
            if self.storing.is_none() {
                if let Some(gathered) = self.gathered.take() {
                    self.service.give_back(gathered.buffer);
                }
                return Poll::Ready(());
            }
        }
    }
}

impl Gathered {
    /// Whether a lane is to have it before more is read.
    fn is_full(&self) -> bool {
        self.filled >= self.buffer.len() || self.stores.len() + STORES_A_READ > STORES_MAX
    }
}

/// The URL of a file, given the torrent's own.
fn address(torrent: &HttpUrl, path: &str) -> Result<HttpUrl, Break> {
    if path.is_empty() {
        return Ok(torrent.clone());
    }
    let url = torrent.with_path(&std::format!("{}{path}", torrent.path()));
    url.ok_or_else(|| Break::Never("a file's URL there is too long".into()))
}

/// Whether an answer is what was asked for: `range` of a file of so many bytes.
fn check(answer: &Answer, range: &Range<u64>, file_bytes: u64) -> Result<(), Break> {
    let never = |what: String| Err(Break::Never(what));
    let other = |bytes| never(std::format!("a file has {bytes} bytes there and {file_bytes} here"));
    match (answer.status, answer.part) {
        (206, Some(part)) => match part.whole {
            Some(whole) if whole != file_bytes => other(whole),
            _ if part.first == range.start && part.last.checked_add(1) == Some(range.end) => Ok(()),
            _ => Err(Break::Later("gives another part than it was asked for".into())),
        },
        (206, None) => Err(Break::Later("does not say which part it gives".into())),
        (200, _) if range.start == 0 => match answer.length {
            Some(whole) if whole != file_bytes => other(whole),
            _ => Ok(()),
        },
        (200, _) => never("does not give parts of files".into()),
        (416, _) => never("a file is shorter there than here".into()),
        (status @ (408 | 425 | 429 | 500..), _) => {
            Err(Break::Later(std::format!("answers {status}")))
        }
        (status, _) => never(std::format!("answers {status}")),
    }
}

fn failed(error: FollowError) -> Break {
    let what = error.to_string();
    match error {
        FollowError::NoAddress | FollowError::Redirect(_) => Break::Never(what),
        FollowError::Http(HttpError::TlsNotBuilt | HttpError::Foreign(_)) => Break::Never(what),
        FollowError::LookUp(_) | FollowError::TimedOut | FollowError::Http(_) => Break::Later(what),
    }
}

fn corrupt() -> Break {
    Break::Never("has sent what does not match the torrent".into())
}

/// Names, time and addresses while the box serves.
struct OnService<'a, 's> {
    service: &'a Service<'s>,
    named: bool,
}

impl Ways for OnService<'_, '_> {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.service.resolve(host, port).await
    }

    async fn sleep(&self, ms: u64) {
        self.service.clock.sleep(ms, "a web seed's answer").await;
    }

    fn admits(&self, ip: IpAddr) -> bool {
        // Even for the house only: the box itself is nobody's to send us to but the owner's.
        self.service.admits(ip) && (self.named || !ip.is_loopback())
    }
}

/// A run is as long as what comes in so much time,
const RUN_MS: u64 = 8_000;

/// but no longer than this, so that peers find something to do,
const RUN_BYTES_MAX: u64 = 4 << 20;

/// and no shorter than this, so that a request is worth it.
const RUN_BYTES_MIN: u64 = 256 * 1024;

/// The first one, when nothing is known of the server.
const RUN_BYTES_FIRST: u64 = 1 << 20;

/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Runs of payload that come with one read: four blocks, the halves at both ends, and some more
/// where pieces are no multiple of blocks.
const STORES_A_READ: usize = 7;

/// Reads before others have their turn.
const READS_A_TURN: usize = 4;

/// Silence after which a server is left.
const SILENCE_MS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::Part;

    fn outcome(status: u16, length: Option<u64>, part: Option<(u64, u64, Option<u64>)>) -> String {
        let part = part.map(|(first, last, whole)| Part { first, last, whole });
        let answer = Answer { status, location: None, length, part };
        let said = [0..100, 50..100].map(|range| match check(&answer, &range, 1_000) {
            Ok(()) => "good".into(),
            Err(Break::Later(what)) => std::format!("later: {what}"),
            Err(Break::Never(what)) => std::format!("never: {what}"),
            Err(Break::Unwanted) => unreachable!("nobody was asked"),
        });
        said.join(" | ")
    }

    #[test]
    fn answers_are_held_against_what_was_asked_for() {
        let other = "later: gives another part than it was asked for";
        let shorter = "never: a file has 900 bytes there and 1000 here";
        let gone = "never: answers 404";
        let busy = "later: answers 503";
        let unsaid = "later: does not say which part it gives";
        let table = [
            (206, None, Some((0, 99, Some(1_000))), ["good", other]),
            (206, Some(50), Some((50, 99, None)), [other, "good"]),
            (206, Some(50), Some((50, 98, Some(1_000))), [other, other]),
            (206, Some(50), Some((50, 99, Some(900))), [shorter, shorter]),
            (206, Some(50), None, [unsaid, unsaid]),
            (200, Some(1_000), None, ["good", "never: does not give parts of files"]),
            (200, None, None, ["good", "never: does not give parts of files"]),
            (200, Some(900), None, [shorter, "never: does not give parts of files"]),
            (404, Some(3), None, [gone, gone]),
            (503, Some(3), None, [busy, busy]),
        ];
        for (status, length, part, wanted) in table {
            assert_eq!(outcome(status, length, part), wanted.join(" | "), "{status} {part:?}");
        }
    }

    #[test]
    fn what_will_not_mend_is_told_from_what_may() {
        let is_later = |error| matches!(failed(error), Break::Later(_));
        assert!(
            is_later(FollowError::TimedOut) && is_later(FollowError::Http(HttpError::CutShort))
        );
        assert!(!is_later(FollowError::NoAddress) && !is_later(FollowError::Redirect("away")));
    }
}
