//! What a box that runs goes by: its configuration, and systemd.

use super::Host;
use crate::engine::units::Deadline;
use crate::service::config::Config;
use crate::service::house::House;
use crate::service::notify::Notify;
use crate::service::steward::Steward;
use crate::service::update::{Slots, Step, Work};
use crate::service::{Refusal, Service, clock, log_lines};
use std::cell::RefCell;
use std::sync::Arc;

/// What a box that runs goes by.
pub(super) struct Charge<'c> {
    config: RefCell<Config>,
    read: &'c dyn Fn() -> Result<Config, Refusal>,
    pub(super) notify: Notify,
    pub(super) slots: Option<Arc<dyn Slots>>,
}

impl Charge<'_> {
    /// To do what `config` says; `read` reads it again. `host` is what the box runs on.
    pub(super) fn new(
        config: Config,
        read: &dyn Fn() -> Result<Config, Refusal>,
        host: Host,
    ) -> Charge<'_> {
        let Host { notify, slots } = host;
        Charge { config: RefCell::new(config), read, notify, slots }
    }

    /// Shares and fetches what the configuration says, anew whenever it is read again.
    pub(super) async fn look_after(&self, steward: &Steward<'_, '_>) {
        loop {
            let reserve = self.config.borrow().fetch.reserve;
            steward.keeper.archive.ask(move |state| state.keep_free(reserve)).await;
            steward.service.grounds.asked.ring();
            let house = {
                let config = self.config.borrow();
                let links = config.fetch.watch.as_deref();
                let entries_max = steward.keeper.options.board.pools.watched_max;
                House::new(&config.shares, links, entries_max, steward.keeper.archive.folder())
            };
            house.run(steward).await;
        }
    }

    /// What is left to do of the last life, when there is time for it.
    pub(super) async fn look_back(&self, steward: &Steward<'_, '_>) {
        self.prove(steward).await;
        self.clear_away(steward).await;
    }

    /// Has what runs on trial be the one to run, once it has served somebody or has been well for a
    /// while.
    async fn prove(&self, steward: &Steward<'_, '_>) {
        let Some(slots) = self.slots.as_ref().filter(|slots| slots.on_trial()) else { return };
        let clock = &steward.service.clock;
        let well = clock.now().after(WELL_MS);
        loop {
            clock.sleep(SERVED_LOOK_MS, "a version on trial").await;
            let has_served = steward.service.swarm.borrow().sent_bytes > 0;
            if !has_served && clock.now() < well {
                continue;
            }
            let work = Work::new(Arc::clone(slots), None, 0);
            match steward.step_update(work, Step::Good).await.1 {
                Ok(_) => return info!("this version does: it is the one to run from now on"),
                Err(refusal) => warn!("{refusal}"),
            }
            clock.sleep(WELL_MS, "a version on trial").await;
        }
    }

    /// Removes what a power cut has left behind. It is in nobody's way, so those who ask for
    /// something after the start come first.
    async fn clear_away(&self, steward: &Steward<'_, '_>) {
        let archive = steward.keeper.archive;
        // What was lost to damage may be found among it.
        if !archive.ask(|state| state.has_lost_torrents()).await {
            steward.service.clock.sleep(STRAYS_AFTER_MS, "what a power cut left behind").await;
        }
        archive.clear_away_strays().await;
        if let Err(refusal) = archive.ask(|state| state.tidy()).await {
            warn!("{refusal}");
        }
    }

    /// Tells systemd now and then that all is well.
    pub(super) async fn watchdog(&self, service: &Service<'_>) {
        let Some(every_ms) = self.notify.watchdog_every_ms() else { return };
        let slot = service.clock.slot(service.duties.watchdog);
        loop {
            let at = service.clock.now().after(every_ms);
            while service.clock.now() < at {
                service.clock.wait(slot, Deadline { at, why: "systemd's watchdog" }).await;
            }
            self.notify.alive();
        }
    }

    /// Reads the configuration again, and takes over what can be.
    pub(super) fn reload(&self, steward: &Steward<'_, '_>) {
        self.notify.reloading(clock::monotonic_us());
        match (self.read)() {
            Ok(new) => {
                let changes = self.config.borrow().changes(&new);
                if let Some(caps) = changes.caps {
                    steward.given.borrow_mut().caps = caps;
                    steward.heed_settings();
                }
                if let Some(level) = changes.level {
                    log_lines::set_level(level);
                }
                for key in &changes.waiting {
                    info!("{key}: has changed, and is heeded {LATER}");
                }
                for share in &changes.shares.gone {
                    info!("{}: {STAYS}", share.source.path().display());
                }
                if changes.trackers.is_some() {
                    info!("[network] trackers: hold for what is new; for all else {LATER}");
                }
                let mut given = steward.given.borrow_mut();
                given.trackers.clone_from(&new.network.trackers);
                given.drop_folder = new.drop_folder();
                given.fetch.output = new.fetch.into.clone().unwrap_or_default();
                given.fetch.sequential = new.fetch.sequential;
                drop(given);
                let mut config = self.config.borrow_mut();
                config.network.trackers = new.network.trackers;
                (config.shares, config.fetch) = (new.shares, new.fetch);
                (config.caps, config.level) = (new.caps, new.level);
                steward.changed.ring();
                info!("the configuration has been read again");
            }
            Err(refusal) => warn!("{refusal}; the box goes on as before"),
        }
        self.notify.ready("on the air");
    }
}

/// What may be left of the last life is looked for so long after the start.
const STRAYS_AFTER_MS: u64 = 20_000;

/// A version that has been well for so long does.
const WELL_MS: u64 = 600_000;

/// Whether it has served somebody is looked at so often meanwhile.
const SERVED_LOOK_MS: u64 = 5_000;

const LATER: &str = "from the next start on";

/// Nothing that is hashed is forgotten because of a line that was taken out.
const STAYS: &str = "is looked after no more; what was shared of it is until you remove it";
