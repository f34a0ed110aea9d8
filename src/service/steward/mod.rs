//! The owner's steward: does to a running box what the owner asks for.
//!
//! Requests come over the control socket ([`control`](super::control)), and from the folders and
//! files of the configuration. What is asked is looked up in the library, done, and recorded before
//! it is answered.
//!
//! - here: whom a request is about, and the requests one by one
//! - [`add`]: shares and fetches come
//! - [`withdraw`]: they pause, go on, and go
//! - [`carry`]: their content is put elsewhere
//! - [`items`]: what is said of a torrent, and of the box

pub mod add;
pub mod carry;
pub mod items;
pub mod withdraw;

use super::clock::Bell;
use super::control::answer::Answer;
use super::control::server::{Actions, Reply, Unanswered};
use super::control::what::What;
use super::control::{Request, message};
use super::fetch::Keeper;
use super::state::State;
use super::{Refusal, Service};
use crate::engine::library::Entry;
use crate::engine::units::InfoHash;
use smol::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

/// See the module.
pub struct Steward<'s, 'm> {
    /// The box.
    pub service: &'s Service<'m>,
    /// What it knows, and goes by.
    pub keeper: &'s Keeper<'s>,
    /// Rung when the owner wants it to end.
    pub stop: Bell,
    /// Rung when the configuration is to be read again.
    pub reload: Bell,
    /// Rung when it has been, and says something else.
    pub changed: Bell,
    /// How many nodes of the DHT answer, if the box takes part.
    pub dht_nodes: Option<&'s dyn Fn() -> usize>,
    /// Rung when content is to be carried elsewhere.
    pub moves: Bell,
    /// Whose content is being copied, where to, and how much of it is there.
    pub carried: RefCell<Option<(InfoHash, String, u64)>>,
    /// Held by whoever hashes: one at a time, so that nothing is held twice.
    pub bench: Mutex<()>,
    /// What was sent and read when rates were last asked for, and when.
    pub meter: Cell<items::Meter>,
}

impl<'s, 'm> Steward<'s, 'm> {
    /// A steward of that box. `dht_nodes` counts nodes that answer, where the box takes part.
    pub fn new(
        service: &'s Service<'m>,
        keeper: &'s Keeper<'s>,
        dht_nodes: Option<&'s dyn Fn() -> usize>,
    ) -> Steward<'s, 'm> {
        Steward {
            service,
            keeper,
            stop: Bell::default(),
            reload: Bell::default(),
            changed: Bell::default(),
            dht_nodes,
            moves: Bell::default(),
            carried: RefCell::default(),
            bench: Mutex::new(()),
            meter: Cell::default(),
        }
    }
}

impl Actions for Steward<'_, '_> {
    async fn answer(
        &self,
        request: Request,
        reply: &mut Reply<'_>,
    ) -> Result<Option<u64>, Unanswered> {
        match request {
            Request::Add(add) => self.add(add, reply).await?,
            Request::Remove(message::Remove { what, delete }) => {
                let entry = self.find(&what).await?;
                let item = self.item(entry).await;
                self.remove(entry, delete).await?;
                reply.item(&Answer::Torrent(item)).await?;
            }
            Request::Pause(message::Which { what }) => self.pause_all(what, true, reply).await?,
            Request::Resume(message::Which { what }) => self.pause_all(what, false, reply).await?,
            Request::List(list) => return self.list(list, reply).await,
            Request::Show(show) => return self.show(show, reply).await,
            Request::Move(order) => {
                let entry = self.begin_move(order).await?;
                reply.item(&Answer::Torrent(self.item(entry).await)).await?;
            }
            Request::Stats => self.stats(reply).await?,
            Request::Stop => self.stop.ring(),
            Request::Reload => self.reload.ring(),
        }
        Ok(None)
    }
}

impl Steward<'_, '_> {
    /// The torrent that is meant.
    async fn find(&self, what: &What) -> Result<Entry, Refusal> {
        let info_hash = match what.info_hash() {
            Some(info_hash) => info_hash,
            None => self.search(what).await?,
        };
        let entry = self.keeper.archive.ask(move |state| state.get(&info_hash)).await;
        entry.ok_or_else(|| {
            Refusal::new(what, "is no torrent this box knows", "look at `perennial list`")
        })
    }

    /// Goes through the library for a name, or the front of an info-hash.
    async fn search(&self, what: &What) -> Result<InfoHash, Refusal> {
        let (mut search, mut after) = (what.search(), None);
        loop {
            let page = self.keeper.archive.ask(move |state| names(state, after)).await;
            let Some((last, ..)) = page.last() else { return search.found() };
            after = Some(*last);
            page.iter().for_each(|(_, info_hash, name)| search.look_at(info_hash, name));
        }
    }

    /// What is known of a torrent has changed: if it is active it goes on with that.
    pub async fn refresh(&self, entry: &Entry) -> Result<(), Refusal> {
        let slot = self.service.swarm.borrow().find(&entry.info_hash.on_the_wire());
        let Some(slot) = slot.filter(|slot| self.service.fetched.is_settled(*slot)) else {
            return Ok(());
        };
        let entry = *entry;
        let known = self.keeper.archive.ask(move |state| state.load(&entry)).await;
        if let Some(known) = known {
            self.service.disk.close_all(slot);
            self.service.contents.borrow_mut()[slot.index()] = Some(Arc::new(known.content));
        }
        Ok(())
    }

    async fn pause_all(
        &self,
        what: What,
        paused: bool,
        reply: &mut Reply<'_>,
    ) -> Result<(), Unanswered> {
        if !what.is_all() {
            let entry = self.find(&what).await?;
            self.set_paused(entry, paused).await?;
            let entry = Entry { paused, ..entry };
            return reply.item(&Answer::Torrent(self.item(entry).await)).await;
        }
        let mut after = None;
        loop {
            let next = self.keeper.archive.ask(move |state| state.next(after)).await;
            let Some((slot, entry)) = next else { return Ok(()) };
            after = Some(slot);
            if entry.paused != paused {
                self.set_paused(entry, paused).await?;
            }
        }
    }
}

/// Name and place of the torrents behind a place.
fn names(state: &mut State<'_>, mut after: Option<u32>) -> Vec<(u32, InfoHash, String)> {
    let mut page = Vec::new();
    while page.len() < NAMES_MAX
        && let Some((slot, entry)) = state.next(after)
    {
        after = Some(slot);
        page.push((slot, entry.info_hash, state.name(&entry)));
    }
    page
}

impl State<'_> {
    /// The name of a torrent for people; its info-hash when it cannot be read.
    pub fn name(&self, entry: &Entry) -> String {
        let name = self.with_facts(entry, |facts, _| {
            facts.torrent.strip_suffix(".torrent").unwrap_or(facts.torrent).to_string()
        });
        name.unwrap_or_else(|| entry.info_hash.to_string())
    }
}

/// Names looked at between two questions of others.
const NAMES_MAX: usize = 200;
