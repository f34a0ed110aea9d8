//! What the configuration says is shared and fetched, kept true while the box runs.
//!
//! Each `[[share]]` is one thing, or a folder whose entries each are one; `[fetch]` may name a folder
//! of `.torrent` and `.magnet` files. One task looks after all of them: what a [`Watch`] tells is
//! done by the [`Steward`], one change after the other, so that hashing never piles up.
//!
//! ```text
//! configuration ─> a thing:   shared, tried again after RETRY_MS while it is not there
//!                             Watch of it alone ─> anything: shared anew, if it is another
//!               ─> a folder:  Watch ─> Rests: shared    Renamed: the same torrent elsewhere
//!                                   ─> Gone: forgotten  Away: left as it is
//! ```
//!
//! A thing that is gone stays in the library: the owner has named it, and it may come back. An entry
//! that could not be shared is tried again when it changes, every hour, and when the configuration is
//! read again.

mod failures;
mod things;

use super::config::{Shared, Source};
use super::lanes::{Done, Job};
use super::options::Options;
use super::state::State;
use super::steward::Steward;
use super::steward::add::in_state;
use super::watch::{Change, Identity, Key, Limits, Watch, read_magnet};
use super::{Refusal, Service, grounds};
use crate::engine::library::{Entry, root_key};
use crate::engine::units::{Deadline, Instant};
use failures::Failures;
use smol::future;
use std::boxed::Box;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::string::String;
use std::task::Poll;
use std::vec::Vec;
use things::Thing;
pub use things::{THING_FOLDERS_MAX, limits_of_things};

/// Everything that is looked after.
pub struct House {
    things: Vec<Thing>,
    folders: Vec<Folder>,
}

/// A folder whose entries are looked after.
struct Folder {
    purpose: Purpose,
    /// Not here while a lane has it.
    watch: Option<Box<Watch>>,
    path: PathBuf,
    /// Stands for it in the state folder.
    key: Key,
    /// When what is remembered of it is written anew.
    tidy_at: Instant,
    /// It has told what cannot be believed: what was mounted there is away.
    doubts: bool,
    failures: Failures,
}

/// What has ended the wait, beside folders that have something to tell.
enum News {
    None,
    /// A disk has come or gone.
    Moved,
    /// The configuration says something else.
    Over,
}

enum Purpose {
    Share(Shared),
    Fetch,
    /// Some of its entries are things.
    Things,
}

impl House {
    /// What the owner wants shared, and the folder of links to fetch; what cannot be looked after is
    /// said. `entries_max` is how many entries all watched folders may have together, `state` where
    /// the state folder is.
    pub fn new(shares: &[Shared], links: Option<&Path>, entries_max: u32, state: &Path) -> House {
        let is_folder = |shared: &&Shared| matches!(shared.source, Source::Entries(_));
        let count = shares.iter().filter(is_folder).count() + usize::from(links.is_some());
        let limits = limits(entries_max / count.max(1) as u32);
        let mut house = House { things: Vec::new(), folders: Vec::new() };
        for shared in shares {
            match &shared.source {
                Source::Whole(path) => {
                    house.things.push(Thing::new(shared, path));
                }
                Source::Entries(folder) => {
                    house.look_after(folder, Purpose::Share(shared.clone()), limits, state);
                }
            }
        }
        if let Some(links) = links {
            house.look_after(links, Purpose::Fetch, limits, state);
        }
        house.look_after_things();
        house
    }

    fn look_after(&mut self, folder: &Path, purpose: Purpose, limits: Limits, state: &Path) {
        match Folder::open(folder, purpose, limits) {
            Ok(folder) if folder.path.starts_with(state) => warn!("{}", in_state(&folder.path)),
            Ok(folder) => {
                if state.starts_with(&folder.path) {
                    warn!(
                        "{}: the box keeps here what it remembers: that is left out",
                        state.display()
                    );
                }
                self.folders.push(folder);
            }
            Err(refusal) => warn!("{refusal}"),
        }
    }

    /// Looks after all of it, until the configuration says something else, or what is remembered has
    /// to be held against it anew: a disk has come or gone, and something was told that could not be
    /// believed. What is being done then is done to its end.
    pub async fn run(mut self, steward: &Steward<'_, '_>) {
        let service = steward.service;
        let slot = service.clock.slot(service.duties.house);
        for folder in &mut self.folders {
            folder.recall(steward).await;
        }
        loop {
            if !self.share_things(steward).await {
                return;
            }
            for folder in &mut self.folders {
                folder.turn(service).await;
                folder.retry(steward).await;
                while let Some(change) = folder.take_change() {
                    match folder.purpose {
                        Purpose::Things => folder.hand_on(&change, &mut self.things),
                        _ => folder.handle(change, steward).await,
                    }
                    // Others want their turn while there is much to do.
                    future::yield_now().await;
                    if is_over(steward).await {
                        return;
                    }
                }
                folder.tidy(steward).await;
            }
            let deadline = self.deadline();
            let watches = self.folders.iter().filter_map(|folder| folder.watch.as_ref());
            let mut news: Vec<_> = watches.map(|watch| Box::pin(watch.news())).collect();
            let any = poll_fn(|cx| {
                let is_news = news.iter_mut().any(|news| news.as_mut().poll(cx).is_ready());
                if is_news { Poll::Ready(News::None) } else { Poll::Pending }
            });
            let due = async {
                service.clock.wait(slot, deadline).await;
                News::None
            };
            let moved = async {
                service.grounds.moved.rung().await;
                News::Moved
            };
            let changed = async {
                steward.changed.rung().await;
                News::Over
            };
            let told = future::or(changed, moved);
            let told = future::or(told, future::or(any, due)).await;
            drop(news);
            match told {
                News::None => {}
                News::Over => return,
                News::Moved if self.folders.iter().any(|folder| folder.doubts) => return,
                News::Moved => self.doubt(),
            }
        }
    }

    /// A disk has come or gone: whatever was not there is tried again, and folders may be others.
    fn doubt(&mut self) {
        let missing = self.things.iter_mut().filter(|thing| thing.said.is_some());
        missing.for_each(|thing| thing.due = Instant::default());
        let watches = self.folders.iter_mut().filter_map(|folder| folder.watch.as_mut());
        watches.for_each(|watch| watch.doubt());
    }

    fn deadline(&self) -> Deadline {
        let things = self.things.iter().map(|thing| thing.due).min();
        let retry = Deadline {
            at: things.unwrap_or(Instant::NEVER),
            why: "something to share that is not there",
        };
        self.folders.iter().fold(retry, |first, folder| {
            let tidy = Deadline { at: folder.tidy_at, why: "what folders held" };
            let watch = folder.watch.as_ref().map(|watch| watch.deadline());
            first.or(tidy).or(folder.failures.deadline()).or(watch.unwrap_or(tidy))
        })
    }
}

impl Folder {
    fn open(folder: &Path, purpose: Purpose, limits: Limits) -> Result<Folder, Refusal> {
        // As the library names it, where it is there.
        let path = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
        let watch = Watch::open(&path, limits)?;
        Ok(Folder::new(path, purpose, watch))
    }

    fn new(path: PathBuf, purpose: Purpose, watch: Watch) -> Folder {
        let key = Key(root_key(path.as_os_str().as_encoded_bytes()));
        let (watch, failures) = (Some(Box::new(watch)), Failures::default());
        Folder { purpose, watch, path, key, tidy_at: Instant::NEVER, doubts: false, failures }
    }

    /// Recalls what it held when the box last ran.
    async fn recall(&mut self, steward: &Steward<'_, '_>) {
        let (key, are_shares) = (self.key, matches!(self.purpose, Purpose::Share(_)));
        if matches!(self.purpose, Purpose::Things) {
            return;
        }
        let remembered = move |state: &mut State<'_>| state.remembered(key, are_shares);
        let Some(watch) = &mut self.watch else { return };
        for (key, identity) in steward.keeper.archive.ask(remembered).await {
            if let Err(refusal) = watch.know(key, identity) {
                return warn!("{refusal}");
            }
        }
    }

    /// Remembers what has become of an entry.
    async fn remember(
        &mut self,
        steward: &Steward<'_, '_>,
        entry: Key,
        identity: Option<Identity>,
    ) -> Result<(), Refusal> {
        let folder = self.key;
        self.tidy_at = steward.service.clock.now().after(QUIET_MS);
        steward.keeper.archive.ask(move |state| state.remember(folder, entry, identity)).await
    }

    /// Writes what is remembered anew, once nothing has happened for a while.
    async fn tidy(&mut self, steward: &Steward<'_, '_>) {
        if self.tidy_at > steward.service.clock.now() {
            return;
        }
        let key = self.key;
        self.tidy_at = Instant::NEVER;
        let tidy = move |state: &mut State<'_>| state.tidy_remembered(key).and(state.tidy());
        if let Err(refusal) = steward.keeper.archive.ask(tidy).await {
            warn!("{refusal}");
        }
    }

    /// Has a lane look at what there is to look at.
    async fn turn(&mut self, service: &Service<'_>) {
        let Some(watch) = self.watch.take() else { return };
        let job = Job::Watch { watch, now: service.clock.now() };
        if let Done::Watched(watch) = service.on_a_lane(job, "a lane for a watched folder").await {
            self.watch = Some(watch);
        }
    }

    fn take_change(&mut self) -> Option<Change> {
        self.watch.as_mut()?.take_change()
    }

    async fn handle(&mut self, change: Change, steward: &Steward<'_, '_>) {
        let done = match change {
            Change::Rests { name, identity } => {
                let done = self.take_up(&name, identity, steward).await;
                return self.note(name, identity, done, steward.service.clock.now());
            }
            Change::Renamed { from, to, identity } => {
                self.failures.forget(|name| Key::of(&self.path, name) == from);
                let done = self.rename(from, &to, identity, steward).await;
                return self.note(to, identity, done, steward.service.clock.now());
            }
            Change::Gone { key } => {
                self.failures.forget(|name| Key::of(&self.path, name) == key);
                self.forget(key, steward).await
            }
            told => {
                self.say(&told);
                Ok(())
            }
        };
        if let Err(refusal) = done {
            warn!("{refusal}");
        }
    }

    /// An entry has been taken up, or it is tried again.
    fn note(&mut self, name: String, identity: Identity, done: Result<(), Refusal>, now: Instant) {
        let wrong = done.err().map(|refusal| std::format!("{refusal}"));
        if self.failures.note(name, identity, wrong.as_deref(), now) {
            warn!("{}", wrong.unwrap_or_default());
        }
    }

    /// Tries those again that could not be taken up, when that is due.
    async fn retry(&mut self, steward: &Steward<'_, '_>) {
        let clock = &steward.service.clock;
        for (name, identity) in self.failures.take_due(clock.now()) {
            let done = self.take_up(&name, identity, steward).await;
            self.note(name, identity, done, clock.now());
        }
    }

    /// An entry is new, or another than it was.
    async fn take_up(
        &mut self,
        name: &str,
        identity: Identity,
        steward: &Steward<'_, '_>,
    ) -> Result<(), Refusal> {
        let path = self.path.join(name);
        match &self.purpose {
            // That has been said.
            Purpose::Share(_) if steward.keeper.archive.folder().starts_with(&path) => {
                return Ok(());
            }
            Purpose::Share(shared) => {
                let options = options_of(shared, steward);
                steward.share(&path, &options, &mut ()).await?;
            }
            Purpose::Fetch => steward.fetch_file(&path).await?,
            Purpose::Things => return Ok(()),
        }
        self.remember(steward, Key::of(&self.path, name), Some(identity)).await
    }

    /// An entry has another name.
    async fn rename(
        &mut self,
        from: Key,
        to: &str,
        identity: Identity,
        steward: &Steward<'_, '_>,
    ) -> Result<(), Refusal> {
        // Of a link another name says nothing, unless it was none before.
        let is_known = match self.purpose {
            Purpose::Share(_) => steward.rename(from, &self.path.join(to)).await?,
            Purpose::Fetch | Purpose::Things => false,
        };
        if !is_known {
            self.take_up(to, identity, steward).await?;
        }
        self.remember(steward, from, None).await?;
        self.remember(steward, Key::of(&self.path, to), Some(identity)).await
    }

    /// An entry is gone.
    async fn forget(&mut self, key: Key, steward: &Steward<'_, '_>) -> Result<(), Refusal> {
        if matches!(self.purpose, Purpose::Share(_)) {
            self.doubts |= !steward.forget_gone(key).await?;
        }
        match self.doubts {
            true => Ok(()),
            false => self.remember(steward, key, None).await,
        }
    }

    /// Says what is to be known of the folder itself.
    fn say(&self, change: &Change) {
        let name = self.name();
        match change {
            Change::Polling { why } => info!("{name}: looked at now and then: {why}"),
            Change::Away => warn!("{name}: is not there; what it held is kept in mind"),
            Change::Back => info!("{name}: is there again"),
            Change::Full { entries_max } => {
                warn!("{name}: has more than {entries_max} entries; {BEYOND}");
            }
            Change::LeftOut { name, why } => {
                warn!("{}: {why}; it is left out", self.path.join(name).display());
            }
            Change::Rests { .. } | Change::Renamed { .. } | Change::Gone { .. } => {}
        }
    }

    fn name(&self) -> String {
        std::format!("{}", self.path.display())
    }
}

impl Steward<'_, '_> {
    /// What lay at one path lies at another: it is the same torrent, and nothing is hashed. Whether
    /// there is one.
    async fn rename(&self, from: Key, to: &Path) -> Result<bool, Refusal> {
        let found = grounds::take_up(self.keeper.archive, &self.service.lanes, to).await?;
        let (path, key) = (to.to_path_buf(), from.0);
        let reroot = move |state: &mut State<'_>| state.reroot_all(key, &path, &found);
        for entry in self.keeper.archive.ask(reroot).await? {
            self.refresh(&entry).await?;
        }
        let to = to.to_path_buf();
        Ok(!self.keeper.archive.ask(move |state| state.at(&to)).await.is_empty())
    }

    /// What lay there is gone: its torrents are. `false` when that is not believed.
    async fn forget_gone(&self, key: Key) -> Result<bool, Refusal> {
        let mut is_believed = true;
        let find = move |state: &mut State<'_>| {
            let all = state.lying_at(key.0).into_iter();
            all.map(|entry| (entry, state.load(&entry))).collect::<Vec<_>>()
        };
        for (entry, known) in self.keeper.archive.ask(find).await {
            // A folder on which nothing is mounted is not the one that was watched.
            if let Some(known) = known
                && (known.asleep || !grounds::is_there(&self.service.lanes, &known.content).await)
            {
                is_believed = false;
                continue;
            }
            let name = self.name(&entry).await;
            self.remove(entry, false).await?;
            info!("{name}: is gone from its folder, and no longer shared");
        }
        Ok(is_believed)
    }

    async fn name(&self, entry: &Entry) -> String {
        let entry = *entry;
        self.keeper.archive.ask(move |state| state.name(&entry)).await
    }

    /// Fetches what a file in the folder of links names.
    async fn fetch_file(&self, path: &Path) -> Result<(), Refusal> {
        let link = match path.extension().and_then(|end| end.to_str()) {
            Some("torrent") => path.to_path_buf(),
            Some("magnet") => PathBuf::from(read_magnet(path)?),
            _ => return Ok(()),
        };
        for info_hash in self.fetch(&link, &self.options(), &mut ()).await? {
            info!("{}: {info_hash} is fetched", path.display());
        }
        Ok(())
    }
}

/// Whether the configuration says something else by now.
async fn is_over(steward: &Steward<'_, '_>) -> bool {
    future::poll_once(steward.changed.rung()).await.is_some()
}

/// The options a share of the configuration is taken up with.
fn options_of(shared: &Shared, steward: &Steward<'_, '_>) -> Options {
    let mut options = steward.options();
    options.trackers.extend(shared.trackers.iter().cloned());
    Options { piece_bytes: shared.piece_bytes, ..options }
}

/// What a watch of so many entries may hold.
pub const fn limits(entries_max: u32) -> Limits {
    Limits {
        entries_max,
        observed_max: OBSERVED_MAX,
        watches_max: 1_024,
        poll_ms: 10_000,
        listens: true,
    }
}

/// Entries that change at a time; others wait for a place.
const OBSERVED_MAX: u32 = 64;

/// What folders held is written anew when nothing has happened for so long.
const QUIET_MS: u64 = 60_000;

const BEYOND: &str = "those beyond are not shared: choose a larger board, or use several folders";
