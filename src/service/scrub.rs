//! A look at shared files now and then, so that what has changed is not offered for long.
//!
//! What is being sent is looked at as it is read ([`disk`](super::disk)); this finds what changes
//! while nobody asks for it. Only torrents that somebody is connected for are looked at: a look comes
//! with the first who joins, unless there has just been one, and others follow as long as anybody is
//! there. With nobody there nothing is offered, and nothing wakes. Lanes look at 64 files at a time.

use super::Service;
use super::content::Content;
use super::lanes::{Done, Job};
use super::volume::Deed;
use crate::engine::units::{Deadline, Instant, TorrentSlot};
use std::sync::Arc;

/// Looks at all files of all torrents that somebody is connected for, rests, and begins again, for
/// ever. Pumps ring its bell when somebody joins.
pub async fn run(service: &Service<'_>) {
    let slot = service.clock.slot(service.duties.scrub);
    let mut due = Instant::default();
    loop {
        while service.swarm.borrow().member_count() == 0 || service.clock.now() < due {
            let is_empty = service.swarm.borrow().member_count() == 0;
            let at = if is_empty { Instant::NEVER } else { due };
            service.clock.wait(slot, Deadline { at, why: "a look at shared files" }).await;
        }
        let count = service.contents.borrow().len();
        for torrent in (0..count).map(|index| TorrentSlot(index as u16)) {
            let content = service.contents.borrow()[torrent.index()].clone();
            if let Some(content) = content.filter(|_| service.is_visited(torrent)) {
                look(service, torrent, content).await;
            }
        }
        due = service.clock.now().after(REST_MS);
    }
}

async fn look(service: &Service<'_>, torrent: TorrentSlot, content: Arc<Content>) {
    let mut next = Some(0);
    while let Some(from) = next {
        let job = Job::Inspect { content: Arc::clone(&content), from };
        let Some(Done::Inspect(sight)) = service.lanes.run(job).await else { return };
        if let Some(error) = &sight.error {
            service.grounds.note_error(&content, Deed::Read, error);
        }
        if let Some(span) = sight.changed {
            service.withhold(torrent, span);
        }
        next = sight.next;
    }
}

impl Service<'_> {
    /// Somebody is connected for it.
    fn is_visited(&self, torrent: TorrentSlot) -> bool {
        self.swarm.borrow().members().any(|member| member.torrent == torrent)
    }
}

/// Between two looks.
const REST_MS: u64 = 30_000;
