//! A look at every shared file now and then, so that what has changed is not offered for long.
//!
//! What is being sent is looked at as it is read ([`disk`](super::disk)); this finds what changes
//! while nobody asks for it. Lanes look at 64 files at a time.

use super::Service;
use super::content::Content;
use super::lanes::{Done, Job};
use super::volume::Deed;
use crate::engine::units::{Deadline, TorrentSlot};
use std::sync::Arc;

/// Looks at all files of all active torrents, rests, and begins again, for ever.
pub async fn run(service: &Service<'_>) {
    let slot = service.clock.slot(service.duties.scrub);
    loop {
        let at = service.clock.now().after(REST_MS);
        while service.clock.now() < at {
            service.clock.wait(slot, Deadline { at, why: "a look at shared files" }).await;
        }
        let count = service.contents.borrow().len();
        for torrent in (0..count).map(|index| TorrentSlot(index as u16)) {
            let content = service.contents.borrow()[torrent.index()].clone();
            if let Some(content) = content {
                look(service, torrent, content).await;
            }
        }
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

/// Between two looks.
const REST_MS: u64 = 30_000;
