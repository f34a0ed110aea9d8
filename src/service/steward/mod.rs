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
//! - [`update`]: the box becomes a newer one
//! - [`items`]: what is said of a torrent, and of the box; [`pulse`], every few seconds

pub mod add;
pub mod carry;
pub mod items;
pub mod pulse;
pub mod update;
pub mod withdraw;

use super::caps::CapOptions;
use super::clock::Bell;
use super::control::answer::{Answer, ClaimItem};
use super::control::server::{Actions, Reply, Unanswered};
use super::control::what::What;
use super::control::{Request, message};
use super::fetch::Keeper;
use super::options::{FetchOptions, Options};
use super::owner::{Owner, Page};
use super::settings::Settings;
use super::state::State;
use super::update::Slots;
use super::wanted::Wanted;
use super::{Refusal, Service, confine};
use crate::engine::library::Entry;
use crate::engine::units::InfoHash;
use smol::lock::Mutex;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
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
    /// What the configuration says by now of trackers and of fetching.
    pub given: RefCell<Given>,
    /// How many nodes of the DHT answer, if the box takes part.
    pub dht_nodes: Option<&'s dyn Fn() -> usize>,
    /// Rung when content is to be carried elsewhere.
    pub moves: Bell,
    /// Whose content is being copied, where to, and how much of it is there.
    pub carried: RefCell<Option<(InfoHash, String, u64)>>,
    /// Held by whoever hashes: one at a time, so that nothing is held twice.
    pub bench: Mutex<()>,
    /// The page, if there is one.
    pub page: Option<Page>,
    /// What the owner has said on the page of how the box is to be.
    pub settings: RefCell<Settings>,
    /// Held from a change of them until it is kept.
    pub settings_turn: Mutex<()>,
    /// Its slots, if it was flashed.
    pub slots: Option<Arc<dyn Slots>>,
    /// An update comes.
    updating: Cell<bool>,
    /// One has come: the machine is to start anew when the box has ended.
    pub restarts: Cell<bool>,
    /// What was sent and read when rates were last asked for, and when.
    pub meter: pulse::Meter,
}

impl<'s, 'm> Steward<'s, 'm> {
    /// A steward of that box. `dht_nodes` counts nodes that answer, where the box takes part; `page`
    /// is its page and `slots` are its slots, if it has any; `settings` are what its owner has said.
    pub fn new(
        service: &'s Service<'m>,
        keeper: &'s Keeper<'s>,
        dht_nodes: Option<&'s dyn Fn() -> usize>,
        page: Option<Page>,
        slots: Option<Arc<dyn Slots>>,
        settings: Settings,
    ) -> Steward<'s, 'm> {
        Steward {
            service,
            keeper,
            stop: Bell::default(),
            reload: Bell::default(),
            changed: Bell::default(),
            given: RefCell::new(Given::of(keeper.options)),
            dht_nodes,
            moves: Bell::default(),
            carried: RefCell::default(),
            bench: Mutex::new(()),
            page,
            slots,
            updating: Cell::new(false),
            restarts: Cell::new(false),
            settings: RefCell::new(settings),
            settings_turn: Mutex::new(()),
            meter: pulse::Meter::default(),
        }
    }
}

/// What may change while the box runs of what new torrents are taken up with.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Where content goes, and in which order.
    pub fetch: FetchOptions,
    /// Trackers of all torrents.
    pub trackers: Vec<String>,
    /// The folder that is given files.
    pub drop_folder: Option<PathBuf>,
    /// Caps on bandwidth.
    pub caps: CapOptions,
}

impl Given {
    /// What options say of it.
    pub fn of(options: &Options) -> Given {
        let (fetch, trackers) = (options.fetch.clone(), options.trackers.clone());
        let (drop_folder, caps) = (options.web.drop_folder.clone(), options.caps);
        Given { fetch, trackers, drop_folder, caps }
    }
}

/// A torrent that the owner means.
enum Meant {
    /// The library knows it.
    Known(Entry),
    /// Only its name is known.
    Sought(InfoHash, Wanted),
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
                let meant = self.find(&what).await?;
                let item = self.item(&meant).await;
                match meant {
                    Meant::Known(entry) => self.remove(entry, delete).await?,
                    Meant::Sought(info_hash, _) => self.remove_hunt(info_hash).await?,
                }
                reply.item(Answer::Torrent(item)).await?;
            }
            Request::Pause(message::Which { what }) => self.pause_all(what, true, reply).await?,
            Request::Resume(message::Which { what }) => self.pause_all(what, false, reply).await?,
            Request::List(list) => return self.list(list, reply).await,
            Request::Show(show) => return self.show(show, reply).await,
            Request::Move(order) => {
                let entry = self.begin_move(order).await?;
                reply.item(Answer::Torrent(self.item(&Meant::Known(entry)).await)).await?;
            }
            Request::Claim(claim) => {
                let item = self.claim(claim.reset).await?;
                reply.item(Answer::Claim(item)).await?;
            }
            Request::Update(file) => self.update(file).await?,
            Request::Stats => self.stats(reply).await?,
            Request::Stop => self.stop.ring(),
            Request::Reload => self.reload.ring(),
        }
        Ok(None)
    }
}

impl Steward<'_, '_> {
    /// What new torrents are taken up with.
    pub fn options(&self) -> Options {
        let Given { fetch, trackers, .. } = self.given.borrow().clone();
        Options { fetch, trackers, ..self.keeper.options.clone() }
    }

    /// Whether the kernel lets the box reach a path, as far as its name tells.
    fn reaches(&self, path: &Path) -> Result<(), Refusal> {
        if confine::is_within(path, &self.keeper.options.keep_to) {
            return Ok(());
        }
        let problem = "lies beneath none of the folders that the box is kept to";
        let remedy = "add one to `keep-to` in the configuration, and restart it";
        Err(Refusal::new(path.display(), problem, remedy))
    }

    /// What the page is claimed with; another from now on, if that is wanted.
    async fn claim(&self, reset: bool) -> Result<ClaimItem, Refusal> {
        let page = self.page.as_ref().ok_or_else(|| {
            let remedy = "start it without `--web off`, or change [web] listen";
            Refusal::new("the page", "is off", remedy)
        })?;
        // Whoever claims the box or leaves it just now has done so, or has not begun.
        let _turn = page.turn.lock().await;
        if reset {
            let fresh = self.keeper.archive.ask(|state| Owner::reset(state.path())).await?;
            *page.owner.borrow_mut() = fresh;
        }
        let owner = page.owner.borrow();
        let devices = owner.devices().iter().map(|device| device.name.clone()).collect();
        Ok(ClaimItem { secret: owner.secret().to_string(), pages: self.pages(), devices })
    }

    /// Addresses of the page, for whoever is in the house.
    pub fn pages(&self) -> Vec<String> {
        let Some(page) = self.page.as_ref().map(|page| page.at) else { return Vec::new() };
        if !page.ip().is_unspecified() {
            return std::vec![std::format!("http://{page}/")];
        }
        let lan = self.service.lan();
        let all = lan.reachable_at(page.port()).filter(|at| at.is_ipv4() || page.is_ipv6());
        all.map(|at| std::format!("http://{at}/")).collect()
    }

    /// The torrent that is meant.
    async fn find(&self, what: &What) -> Result<Meant, Refusal> {
        let info_hash = match what.info_hash() {
            Some(info_hash) => info_hash,
            None => self.search(what).await?,
        };
        let find = move |state: &mut State<'_>| match state.get(&info_hash) {
            Some(entry) => Some(Meant::Known(entry)),
            None => state.wanted(&info_hash).map(|wanted| Meant::Sought(info_hash, wanted)),
        };
        self.keeper.archive.ask(find).await.ok_or_else(|| {
            Refusal::new(what, "is no torrent this box knows", "look at `perennial list`")
        })
    }

    /// Goes through the library for a name, or the front of an info-hash.
    async fn search(&self, what: &What) -> Result<InfoHash, Refusal> {
        let (mut search, mut after) = (what.search(), None);
        loop {
            let page = self.keeper.archive.ask(move |state| names(state, after)).await;
            let Some((last, ..)) = page.last() else { break };
            after = Some(*last);
            page.iter().for_each(|(_, info_hash, name)| search.look_at(info_hash, name));
        }
        let sought = self.keeper.archive.ask(items::nameless).await;
        sought.iter().for_each(|(info_hash, wanted)| search.look_at(info_hash, &wanted.name));
        search.found()
    }

    /// What is known of a torrent has changed: if it is active it goes on with that.
    pub async fn refresh(&self, entry: &Entry) -> Result<(), Refusal> {
        let slot = self.service.swarm.borrow().find(&entry.info_hash.on_the_wire());
        let Some(slot) = slot.filter(|slot| self.service.fetched.is_settled(*slot)) else {
            return Ok(());
        };
        let entry = *entry;
        let known = self.keeper.archive.ask(move |state| state.load(&entry)).await;
        let is_still = || {
            let swarm = self.service.swarm.borrow();
            swarm.find(&entry.info_hash.on_the_wire()) == Some(slot)
        };
        // Meanwhile its place may have become another's, or something of it be fetched.
        if let Some(known) = known.filter(|_| is_still() && self.service.fetched.is_settled(slot)) {
            self.service.disk.close_all(slot);
            self.service.contents.borrow_mut()[slot.index()] = Some(Arc::new(known.content));
            if known.have.is_none() {
                // Somebody may have asked for it while nobody knew where it was.
                self.service.swarm.borrow_mut().restore(slot);
            }
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
            let meant = self.find(&what).await?;
            let meant = match meant {
                Meant::Known(entry) => {
                    self.set_paused(entry, paused).await?;
                    Meant::Known(Entry { paused, ..entry })
                }
                Meant::Sought(info_hash, wanted) => {
                    self.set_hunt_paused(info_hash, wanted.clone(), paused).await?;
                    Meant::Sought(info_hash, Wanted { paused, ..wanted })
                }
            };
            return reply.item(Answer::Torrent(self.item(&meant).await)).await;
        }
        // Those that are sought come first: pausing what is known makes room for them.
        for (info_hash, wanted) in self.keeper.archive.ask(items::nameless).await {
            if wanted.paused != paused {
                self.set_hunt_paused(info_hash, wanted, paused).await?;
            }
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
