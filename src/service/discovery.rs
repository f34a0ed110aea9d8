//! Local discovery (BEP 14): who on the LAN has the same torrents, without any server.
//!
//! One socket for each family hears the group; what we have is said on every interface at start,
//! every five minutes, and when somebody new speaks (no more than once a minute). Only addresses
//! in the house are believed. Private torrents (BEP 27) are not spoken of.
//!
//! ```text
//! each time:  all that is active, then RESTING_MAX of the library from where the last time ended
//! ```
//!
//! So a library of any size is told in time, and a box is woken for it no more often. Of what is at
//! rest others are told and nothing is heard: whoever wants it comes and wakes it.
//!
//! Journey 3: datagrams are the engine's (`engine/announce/local`); who is found becomes a
//! candidate of the swarm.

use super::Service;
use super::fetch::Keeper;
use super::lan::Lan;
use super::multicast::Ear;
use super::pass::page;
use super::state::State;
use crate::engine::announce::Family;
use crate::engine::announce::local::{self, Beacon, Cookie, DATAGRAM_BYTES_MAX, HASHES_MAX};
use crate::engine::library::Entry;
use crate::engine::units::TorrentSlot;
use smol::future;
use std::cell::RefCell;
use std::vec::Vec;

/// Speaks and listens for ever, over the families there are.
pub async fn run(service: &Service<'_>, keeper: &Keeper<'_>) {
    let cookie = Cookie(super::announcer::random());
    let beacon = RefCell::new(Beacon::new(service.clock.now()));
    let v4 = hear(service, Family::V4);
    let v6 = hear(service, Family::V6);
    let (v4, v6) = (v4.as_ref(), v6.as_ref());
    let listening =
        future::zip(listen(service, v4, cookie, &beacon), listen(service, v6, cookie, &beacon));
    future::zip(listening, speak(service, keeper, [v4, v6], cookie, &beacon)).await;
}

fn hear(service: &Service<'_>, family: Family) -> Option<Ear> {
    match Ear::open(local::group(family), &service.lan(), service.listen.ip()) {
        Ok(ear) => Some(ear),
        Err(error) => {
            info!("no local discovery over {family:?}: {error}");
            None
        }
    }
}

/// Says what we have whenever it is due.
async fn speak(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    ears: [Option<&Ear>; 2],
    cookie: Cookie,
    beacon: &RefCell<Beacon>,
) {
    let slot = service.clock.slot(service.duties.discovery);
    let mut after = None;
    loop {
        let deadline = beacon.borrow().deadline();
        service.clock.wait(slot, deadline).await;
        if !beacon.borrow_mut().poll(service.clock.now()) {
            continue;
        }
        let resting = match keeper.options.all_that_is_known {
            true => next_of_library(service, keeper, &mut after).await,
            false => Vec::new(),
        };
        let lan = service.lan().clone();
        for (family, ear) in [Family::V4, Family::V6].into_iter().zip(ears) {
            let Some(ear) = ear else { continue };
            ear.join(&lan);
            say(service, ear, family, cookie, (&lan, &resting));
        }
    }
}

/// The torrents at rest behind a place in the library, [`RESTING_MAX`] at most, as they stand on the
/// wire. At the end it begins anew, the next time.
async fn next_of_library(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    after: &mut Option<u32>,
) -> Vec<[u8; 20]> {
    let may_be_spoken_of = |state: &State<'_>, entry: &Entry| {
        (!state.is_private(entry) && !state.is_asleep(entry)).then_some(())
    };
    let (mut names, mut looked_at) = (Vec::new(), 0);
    while names.len() < RESTING_MAX && looked_at < LOOKED_AT_MAX {
        let (begin, most) = (*after, (RESTING_MAX - names.len()) as u32);
        let look = move |state: &mut State<'_>| page(state, begin, most, may_be_spoken_of);
        let found = keeper.archive.ask(look).await;
        let swarm = service.swarm.borrow();
        let found_names = found.found.iter().map(|(entry, ())| entry.info_hash.on_the_wire());
        names.extend(found_names.filter(|name| swarm.find(name).is_none()));
        looked_at += found.looked_at;
        *after = found.after;
        if found.after.is_none() {
            break;
        }
    }
    names
}

fn say(
    service: &Service<'_>,
    ear: &Ear,
    family: Family,
    cookie: Cookie,
    (lan, resting): (&Lan, &[[u8; 20]]),
) {
    let swarm = service.swarm.borrow();
    let port = swarm.identity().listen_port;
    let spoken_of = swarm.torrents().filter(|(_, torrent)| !torrent.private);
    let active = spoken_of.map(|(_, torrent)| torrent.info_hash.on_the_wire());
    let mut hashes = active.chain(resting.iter().copied());
    loop {
        let mut datagram = heapless::Vec::<u8, DATAGRAM_BYTES_MAX>::new();
        let written = local::write(family, port, cookie, &mut hashes, &mut datagram);
        if written.is_err() || datagram.is_empty() {
            return;
        }
        ear.say(lan, &datagram);
    }
}

/// Hears others and takes note of what they look for.
async fn listen(
    service: &Service<'_>,
    ear: Option<&Ear>,
    cookie: Cookie,
    beacon: &RefCell<Beacon>,
) {
    let Some(ear) = ear else { return };
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = ear.hear(&mut datagram).await else {
            service.clock.sleep(FAULT_PAUSE_MS, "local discovery again").await;
            continue;
        };
        // Others have their turn between two datagrams, however fast they come.
        future::yield_now().await;
        if !service.lan().contains(from.ip().to_canonical()) {
            continue;
        }
        let Some(search) = local::parse(&datagram[..length], cookie) else { continue };
        let mut address = from;
        address.set_port(search.port);
        for hash in search.hashes {
            let found = service.public(&hash);
            if found.is_some_and(|torrent| service.hear(torrent, address)) {
                beacon.borrow_mut().handle_newcomer(service.clock.now());
                service.clock.ring(service.duties.discovery);
            }
        }
    }
}

impl Service<'_> {
    /// The active torrent of that name, if it may be spoken of (BEP 27).
    pub(super) fn public(&self, on_the_wire: &[u8; 20]) -> Option<TorrentSlot> {
        let swarm = self.swarm.borrow();
        swarm.find(on_the_wire).filter(|slot| !swarm.torrent(*slot).private)
    }
}

/// Torrents at rest that are spoken of at a time: four datagrams, so that with those of what is
/// active it stays at about one a minute.
const RESTING_MAX: usize = 4 * HASHES_MAX;

/// Torrents looked at for that.
const LOOKED_AT_MAX: u32 = 512;

/// Pause after a receive that failed: an interface may be on its way down.
const FAULT_PAUSE_MS: u64 = 1_000;
