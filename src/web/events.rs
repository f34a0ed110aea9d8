//! What happens, as it happens (server-sent events).
//!
//! Every [`BEAT_MS`] the pulse of the box, and of the torrents on the air those that changed, no more
//! than [`TORRENTS_MAX`], and once more those that are not on the air any more: so nobody who looks
//! costs more than a few kilobytes a second.

use super::Web;
use super::reply::{Answer, Body, Reply, Status};
use crate::service::steward::pulse::OnAir;
use async_io::Async;
use std::fmt::Write as _;
use std::io;
use std::net::TcpStream;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

impl Web<'_, '_, '_> {
    /// A stream of events, if one more may be.
    pub(super) fn events(&self) -> Answer {
        let Some(place) = self.streams.take() else {
            let words = "as many look at this box as may at a time: load the page now and then";
            return Err(Reply::words(Status::BUSY, words).with("Retry-After: 60"));
        };
        let reply = Reply::new(Status::OK, "text/event-stream", Body::Events);
        Ok(reply.with("Cache-Control: no-store").holding(place))
    }

    /// Sends events until nobody listens.
    pub(super) async fn send_events(&self, stream: &Arc<Async<TcpStream>>) -> io::Result<()> {
        let mut told: Vec<OnAir> = Vec::new();
        loop {
            let mut text = String::new();
            event(&mut text, "pulse", &self.steward.pulse().await);
            let now = self.steward.on_air(TORRENTS_MAX).await;
            for torrent in now.iter().filter(|torrent| !told.contains(torrent)) {
                event(&mut text, "torrent", torrent);
            }
            let is_there = |hash| now.iter().any(|torrent| torrent.info_hash == hash);
            told.retain(|torrent| !is_there(torrent.info_hash));
            for torrent in self.steward.off_air(told).await {
                event(&mut text, "torrent", &torrent);
            }
            told = now;
            self.write(stream, text.as_bytes()).await?;
            drop(text);
            self.steward.service.clock.sleep(BEAT_MS, "somebody who looks at the page").await;
        }
    }
}

fn event(text: &mut String, name: &str, data: &impl serde::Serialize) {
    let data = serde_json::to_string(data).unwrap_or_default();
    // A string takes everything.
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
}

/// Between two beats.
const BEAT_MS: u64 = 2_000;

/// Torrents of one beat.
const TORRENTS_MAX: usize = 32;

/// Who may look at a time.
pub(super) const STREAMS_MAX: usize = 16;
