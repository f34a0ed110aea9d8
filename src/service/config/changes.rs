//! What is different between the configuration a box runs with and another one.
//!
//! What can be taken over while it runs is handed out as the new data; what cannot is only named,
//! so that the owner can be told what waits for a restart.

use super::{Config, Fetching, Shared};
use crate::service::caps::CapOptions;
use log::LevelFilter;
use std::string::String;
use std::vec::Vec;

/// What is different; the rest is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Other caps.
    pub caps: Option<CapOptions>,
    /// Other trackers for all shares.
    pub trackers: Option<Vec<String>>,
    /// Other shares.
    pub shares: ShareChanges,
    /// Other folders to fetch into and from, another order, another reserve.
    pub fetch: Option<Fetching>,
    /// Another level of the log.
    pub level: Option<LevelFilter>,
    /// Keys whose new values wait for a restart, with their sections.
    pub waiting: Vec<&'static str>,
}

/// What is different in the shares. A place that is told by its path alone is the same when its
/// folder is shared entry by entry as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareChanges {
    /// Those that are new.
    pub come: Vec<Shared>,
    /// Those that are no longer wanted.
    pub gone: Vec<Shared>,
    /// Those at the same place with other trackers, or another piece length for what is new.
    pub altered: Vec<Shared>,
}

impl ShareChanges {
    fn between(old: &[Shared], new: &[Shared]) -> ShareChanges {
        let lacks = |among: &[Shared], share: &Shared| {
            among.iter().all(|other| other.source != share.source)
        };
        let altered = |share: &&Shared| !lacks(old, share) && !old.contains(share);
        ShareChanges {
            come: new.iter().filter(|share| lacks(old, share)).cloned().collect(),
            gone: old.iter().filter(|share| lacks(new, share)).cloned().collect(),
            altered: new.iter().filter(altered).cloned().collect(),
        }
    }
}

impl Changes {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl Config {
    /// What is different in `new`.
    ///
    /// # Work
    ///
    /// Each share is compared with each: the longest file holds a few hundred.
    pub fn changes(&self, new: &Config) -> Changes {
        let (here, there) = (&self.network, &new.network);
        let waiting = [
            ("name", self.name != new.name),
            ("board", self.board != new.board),
            ("state", self.state != new.state),
            ("keep-to", self.keep_to != new.keep_to),
            ("[network] listen", here.listen != there.listen),
            ("[network] lan-only", here.lan_only != there.lan_only),
            ("[network] dht", {
                let way = |network: &super::Network| (network.dht.off, network.dht.read_only);
                way(here) != way(there)
            }),
            ("[network] dht-nodes", here.dht.entries != there.dht.entries),
            ("[network] map-port", here.map_port != there.map_port),
            ("[web]", self.web != new.web),
        ];
        Changes {
            caps: changed(&self.caps, &new.caps),
            trackers: changed(&here.trackers, &there.trackers),
            shares: ShareChanges::between(&self.shares, &new.shares),
            fetch: changed(&self.fetch, &new.fetch),
            level: changed(&self.level, &new.level),
            waiting: waiting.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect(),
        }
    }
}

fn changed<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}
