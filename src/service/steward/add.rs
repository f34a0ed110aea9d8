//! Shares and fetches come: from the owner's command, from the configuration, and from what was
//! wanted before the box last stopped.

use super::Steward;
use crate::engine::units::{InfoHash, Instant};
use crate::service::control::answer::{Answer, Progress};
use crate::service::control::message::Add;
use crate::service::control::server::{Reply, Unanswered};
use crate::service::fetch::magnet::Lead;
use crate::service::fetch::open::Taken;
use crate::service::fetch::{Keeper, magnet, open};
use crate::service::life::take_in::{magnet_of, take_in, withdraw};
use crate::service::options::{FetchOptions, Opened, Options, bring_link, open_link};
use crate::service::share::{Progress as Hashing, Share, Wish, Workshop};
use crate::service::state::State;
use crate::service::wanted::Wanted;
use crate::service::{Refusal, rest};
use smol::future;
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::string::{String, ToString};
use std::vec::Vec;

/// How far hashing has come, for whoever waits for it.
#[derive(Default)]
pub struct Gauge {
    thing: RefCell<String>,
    done_bytes: Cell<u64>,
    all_bytes: Cell<u64>,
}

impl Hashing for &Gauge {
    fn begin(&mut self, what: &str, bytes: u64) {
        *self.thing.borrow_mut() = what.to_string();
        self.done_bytes.set(0);
        self.all_bytes.set(bytes);
    }

    fn advance(&mut self, bytes: u64) {
        self.done_bytes.set(self.done_bytes.get() + bytes);
    }

    fn end(&mut self) {
        self.all_bytes.set(0);
    }
}

impl Gauge {
    fn said(&self) -> Option<Progress> {
        let all_bytes = Some(self.all_bytes.get()).filter(|all| *all > 0)?;
        let (thing, done_bytes) = (self.thing.borrow().clone(), self.done_bytes.get());
        Some(Progress { thing, doing: "hashing".to_string(), done_bytes, all_bytes })
    }
}

impl Steward<'_, '_> {
    /// Takes up what the owner names, and says of each what it is.
    pub(super) async fn add(&self, add: Add, reply: &mut Reply<'_>) -> Result<(), Unanswered> {
        let (options, gauge) = (self.options_of(&add)?, Gauge::default());
        for path in &add.paths {
            let mut progress = &gauge;
            let share = self.share(path, &options, &mut progress);
            let share = self.with_progress(share, &gauge, reply).await?;
            let detail = self.detail(share.info_hash).await?;
            reply.item(Answer::Detail(detail)).await?;
        }
        for link in &add.links {
            let mut progress = &gauge;
            let fetched = self.fetch(link, &options, &mut progress);
            for info_hash in self.with_progress(fetched, &gauge, reply).await? {
                let detail = self.detail(info_hash).await?;
                reply.item(Answer::Detail(detail)).await?;
            }
        }
        Ok(())
    }

    fn options_of(&self, add: &Add) -> Result<Options, Refusal> {
        let of_box = self.options();
        let output = add.into.clone().unwrap_or_else(|| of_box.fetch.output.clone());
        if !add.links.is_empty() && output.as_os_str().is_empty() {
            let problem = "nobody has said where what is fetched goes";
            let remedy =
                "say so with `--into DIR`, or as `into` below [fetch] in the configuration";
            return Err(Refusal::new("add", problem, remedy));
        }
        let goes = (!add.links.is_empty()).then_some(&output);
        for path in add.paths.iter().chain(&add.torrent).chain(goes) {
            self.reaches(path)?;
        }
        let fetch = FetchOptions {
            links: add.links.clone(),
            output,
            files: add.files.clone(),
            sequential: add.sequential || of_box.fetch.sequential,
            exit: false,
            peers: add.peers.clone(),
            web_seeds: add.web_seeds.clone(),
            trackers: add.trackers.clone(),
            force: add.force,
        };
        let mut trackers = of_box.trackers.clone();
        trackers.extend(add.trackers.iter().filter(|one| !of_box.trackers.contains(one)).cloned());
        let (torrent, piece_bytes) = (add.torrent.clone(), add.piece_bytes);
        Ok(Options { fetch, torrent, piece_bytes, trackers, ..of_box })
    }

    /// Says now and then how far `work` has come.
    async fn with_progress<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
        gauge: &Gauge,
        reply: &mut Reply<'_>,
    ) -> Result<T, Unanswered> {
        let mut work = pin!(work);
        loop {
            let tick = async {
                self.service.clock.sleep(PROGRESS_MS, "progress for the owner").await;
                None
            };
            match future::or(async { Some(work.as_mut().await) }, tick).await {
                Some(done) => return Ok(done?),
                None => {
                    if let Some(progress) = gauge.said() {
                        reply.item(Answer::Progress(progress)).await?;
                    }
                }
            }
        }
    }

    /// Shares a file or folder: it is in the library once this returns. What lay there before and
    /// is there no more goes.
    pub async fn share(
        &self,
        path: &Path,
        options: &Options,
        progress: &mut impl Hashing,
    ) -> Result<Share, Refusal> {
        let _bench = self.bench.lock().await;
        // A path that leads nowhere is refused below.
        let whole = fs::canonicalize(path).unwrap_or_default();
        let state = self.keeper.archive.folder();
        if whole.starts_with(state) || whole.has_root() && state.starts_with(&whole) {
            return Err(in_state(&whole));
        }
        let before = self.keeper.archive.ask(move |state| state.at(&whole)).await;
        let mut workshop = Workshop { archive: self.keeper.archive, lanes: &self.service.lanes };
        let wish = Wish::of(path, options);
        let share = workshop.open(wish, progress).await?;
        if share.hashed_bytes > 0 {
            info!("{}: shared: {}", share.name, magnet_of(self.service, &share, options));
        }
        for old in before.iter().filter(|old| old.info_hash != share.info_hash) {
            let info_hash = old.info_hash;
            if self.keeper.archive.ask(move |state| state.get(&info_hash)).await.is_none() {
                self.take_off_the_air(info_hash).await?;
            }
        }
        self.put_on_the_air(share.info_hash).await?;
        Ok(share)
    }

    /// A torrent that is whole is announced next, and active as long as there are places to spare.
    async fn put_on_the_air(&self, info_hash: InfoHash) -> Result<(), Refusal> {
        if rest::has_room(self.service) {
            rest::wake(self.service, self.keeper, info_hash).await?;
        }
        self.service.announce_next(info_hash);
        Ok(())
    }

    /// Fetches what a link names, or has it wait for its turn; what it names.
    pub async fn fetch(
        &self,
        link: &Path,
        options: &Options,
        progress: &mut impl Hashing,
    ) -> Result<Vec<InfoHash>, Refusal> {
        let (archive, announcer) = (self.keeper.archive, self.keeper.announcer);
        let keeper = &Keeper { archive, announcer, options };
        let mut workshop = Workshop { archive, lanes: &self.service.lanes };
        let (mut opened, mut named) = (Opened::default(), Vec::new());
        // Whoever has it may be slow: nobody waits for him meanwhile.
        let brought = bring_link(&mut workshop, link).await?;
        let bench = self.bench.lock().await;
        open_link(&mut workshop, options, (link, brought), &mut opened, progress).await?;
        drop(bench);
        for taken in opened.taken {
            named.push(taken.share.info_hash);
            self.take_up(keeper, taken).await?;
        }
        for lead in opened.leads {
            named.push(lead.info_hash);
            if !self.is_active(&lead.info_hash) {
                self.seek(keeper, lead).await?;
            }
        }
        Ok(named)
    }

    /// Looks for a torrent of which only the name is known, or has it wait for its turn.
    async fn seek(&self, keeper: &Keeper<'_>, lead: Lead) -> Result<(), Refusal> {
        let (info_hash, name) = (lead.info_hash, lead.name.clone());
        self.service.fetched.take_up_again(Some(&info_hash));
        if !self.service.has_place_to_fetch() {
            let wanted = Wanted::of_lead(&lead, &keeper.options.fetch);
            let keep = move |state: &mut State<'_>| state.keep_wanted(&info_hash, &wanted);
            keeper.archive.ask(keep).await?;
            info!("{name}: {WAITS}");
            return Ok(());
        }
        let Err(refusal) = magnet::seek(self.service, keeper, lead).await else { return Ok(()) };
        let waits = self.wait_for_a_place(&name, &refusal);
        if waits.is_err() {
            keeper.archive.ask(move |state| state.drop_wanted(&info_hash)).await;
        }
        waits
    }

    async fn take_up(&self, keeper: &Keeper<'_>, mut taken: Taken) -> Result<(), Refusal> {
        let info_hash = taken.share.info_hash;
        self.service.fetched.take_up_again(Some(&info_hash));
        if self.is_active(&info_hash) {
            return Ok(());
        }
        if taken.errand.is_none() {
            return self.put_on_the_air(info_hash).await;
        }
        let (name, made) = (taken.share.name.clone(), taken.made.take());
        let Err(refusal) = take_in(self.service, keeper, taken).await else { return Ok(()) };
        let waits = self.wait_for_a_place(&name, &refusal);
        if waits.is_err()
            && let Some(made) = made
        {
            withdraw(self.service, keeper, info_hash, made).await;
        }
        waits
    }

    /// What cannot be begun while others are fetched waits; alone it never could be.
    fn wait_for_a_place(&self, name: &str, refusal: &Refusal) -> Result<(), Refusal> {
        if self.service.fetched.is_idle() {
            return Err(refusal.clone());
        }
        info!("{name}: {WAITS}");
        Ok(())
    }

    fn is_active(&self, info_hash: &InfoHash) -> bool {
        self.service.swarm.borrow().find(&info_hash.on_the_wire()).is_some()
    }

    /// Goes on with what is wanted, as far as there are places, whenever one becomes free; for ever.
    pub async fn run_wanted(&self) {
        let (archive, fetched) = (self.keeper.archive, &self.service.fetched);
        if let Err(refusal) = archive.ask(|state| state.finish_forgetting()).await {
            warn!("{refusal}");
        }
        let mut retry_at = Instant::NEVER;
        loop {
            for info_hash in archive.ask(|state| state.all_wanted()).await {
                if fetched.why_put_off(&info_hash).is_none()
                    && let Err(refusal) = self.go_on(info_hash).await
                    && fetched.put_off(info_hash, &refusal)
                {
                    warn!("{refusal}");
                }
            }
            let now = self.service.clock.now();
            if !fetched.has_put_off() {
                retry_at = Instant::NEVER;
            } else if retry_at == Instant::NEVER {
                retry_at = now.after(RETRY_MS);
            }
            let again = async {
                match retry_at {
                    Instant::NEVER => future::pending().await,
                    at => self.service.clock.sleep(at.since(now), "what cannot be fetched").await,
                }
                fetched.take_up_again(None);
            };
            future::or(fetched.place_free.rung(), again).await;
        }
    }

    /// Goes on with one torrent that is wanted, unless it is paused or under way.
    pub(super) async fn go_on(&self, info_hash: InfoHash) -> Result<(), Refusal> {
        let find = move |state: &mut State<'_>| {
            let entry = state.get(&info_hash);
            (state.wanted(&info_hash), entry.and_then(|entry| state.load(&entry)), entry)
        };
        let (wanted, known, entry) = self.keeper.archive.ask(find).await;
        let Some(wanted) = wanted.filter(|_| !self.is_active(&info_hash)) else { return Ok(()) };
        let is_paused = wanted.paused || entry.is_some_and(|entry| entry.paused);
        if is_paused || !self.service.has_place_to_fetch() {
            return Ok(());
        }
        if known.as_ref().is_some_and(|known| known.asleep) {
            // It goes on when its disk is back.
            return Ok(());
        }
        let options = wanted.options(&self.options());
        let (archive, announcer) = (self.keeper.archive, self.keeper.announcer);
        let keeper = &Keeper { archive, announcer, options: &options };
        let Some(known) = known else {
            return magnet::seek(self.service, keeper, wanted.lead(info_hash)).await;
        };
        let mut workshop = Workshop { archive, lanes: &self.service.lanes };
        let wish = open::Wish { torrent: &known.torrent, fetch: &options.fetch };
        let mut taken = workshop.fetch(wish, &mut ()).await?;
        taken.share.add_trackers(&options.trackers);
        taken.share.add_trackers(&wanted.trackers);
        if taken.errand.is_none() {
            archive.ask(move |state| state.drop_wanted(&info_hash)).await;
        }
        self.take_up(keeper, taken).await?;
        // The owner may have paused or removed it meanwhile.
        let entry = archive.ask(move |state| state.get(&info_hash)).await;
        if entry.is_none_or(|entry| entry.paused) {
            self.take_off_the_air(info_hash).await?;
        }
        Ok(())
    }
}

/// Why what has to do with the state folder is not shared.
pub fn in_state(path: &Path) -> Refusal {
    let remedy = "share a folder outside of it";
    Refusal::new(path.display(), "is where the box keeps what it remembers", remedy)
}

/// What could not be fetched is tried again after so long.
const RETRY_MS: u64 = 300_000;

/// What is said of a torrent when as many as the board can are fetched.
pub(super) const WAITS: &str = "waits until something else has been fetched";

/// Between two words on how far hashing has come.
const PROGRESS_MS: u64 = 1_000;
