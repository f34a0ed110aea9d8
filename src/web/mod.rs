//! The page: one link that works for everybody, and the box run from a phone.
//!
//! A film on the box has one address, `/s/<info-hash>/`. In a browser it is a page that plays it;
//! for a player, `curl` or a TV the file below it has ranges; for a BitTorrent program it is a
//! `.torrent` or a magnet link with this box as web seed (BEP 19) and peer.
//!
//! | what | where |
//! | --- | --- |
//! | connections: heads in, replies out | `connection`, `head`, `reply` |
//! | who comes, and what that one may do | `gate`, `claims` |
//! | what an address means | `routes` |
//! | a share: its page, files, `.torrent`, `.zip` and so on | `shares`, `file`, `range`, `media`, `zip` |
//! | the owner's wishes, from forms and programs | `actions`, `api`, `upload` |
//! | what happens, as it happens | `events` |
//! | other boxes in the house | `neighbours` |
//! | words and markup | `pages`, `assets` |
//!
//! # Memory
//!
//! A connection has room for one head, and nothing else while it is idle or sends a file: those go
//! from the page cache by `sendfile`. Pages are made in memory, as many at a time as the board's
//! `web_pages_max`; zips and uploads, half each and one at least, go through a buffer each.
//!
//! # When full
//! The last few places for connections are for the owner; everybody else is answered 503. So is who
//! wants a page while all of those are on their way. One address has half of the places at most.
//!
//! # Journey
//!
//! `service::life` (listens) -> [`run`] -> `connection` (a task each) -> `head` -> `gate` ->
//! `routes` -> a `reply` -> the socket; wishes go to `service::steward`, as those of the command
//! line do.

mod actions;
mod api;
mod claims;
mod connection;
mod events;
mod file;
mod gate;
mod head;
mod media;
mod neighbours;
mod pages;
mod range;
mod reply;
mod routes;
mod shares;
mod upload;
mod zip;

use crate::engine::swarm::roster::crowd_of;
use crate::service::steward::Steward;
use async_io::Async;
use gate::Gate;
use neighbours::Neighbours;
use smol::LocalExecutor;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::vec::Vec;

/// What all connections share.
pub struct Web<'w, 's, 'm> {
    /// Who does what is wanted.
    steward: &'w Steward<'s, 'm>,
    gate: Gate,
    neighbours: Neighbours,
    /// Who is connected: for each connection where that one lives.
    connected: RefCell<Vec<IpAddr>>,
    pages: Places,
    zips: Places,
    uploads: Places,
    adds: Places,
    /// Files that are being sent here.
    under_way: RefCell<Vec<PathBuf>>,
    streams: Places,
    doors: Places,
}

/// So many at a time.
struct Places {
    taken: Rc<Cell<usize>>,
    most: usize,
}

/// One of them, given back when it is dropped.
struct Place(Rc<Cell<usize>>);

impl Places {
    fn new(most: usize) -> Places {
        Places { taken: Rc::default(), most }
    }

    fn take(&self) -> Option<Place> {
        if self.taken.get() == self.most {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(&self.taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Answers whoever comes to the page, for ever.
pub fn run<'a>(
    steward: &'a Steward<'_, '_>,
    listener: Async<TcpListener>,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(answer_all(steward, listener))
}

/// Says so when the page goes.
struct Leaving<'a, 'w, 's, 'm>(&'a Web<'w, 's, 'm>);

impl Drop for Leaving<'_, '_, '_, '_> {
    fn drop(&mut self) {
        self.0.say_goodbye();
    }
}

async fn answer_all(steward: &Steward<'_, '_>, listener: Async<TcpListener>) {
    let pools = steward.keeper.options.board.pools;
    let options = &steward.keeper.options.web;
    let name = options.name.clone().unwrap_or_else(gate::machine_name);
    let transits = usize::from(pools.web_pages_max);
    let web = Web {
        steward,
        gate: Gate::new(options, &name),
        neighbours: Neighbours::new(&name),
        connected: RefCell::default(),
        pages: Places::new(pools.web_pages_max.into()),
        zips: Places::new((transits / 2).max(1)),
        uploads: Places::new((transits - transits / 2).max(1)),
        adds: Places::new(ADDS_MAX),
        under_way: RefCell::default(),
        streams: Places::new(events::STREAMS_MAX),
        doors: Places::new(DOORS_MAX),
    };
    web.gate.heed(&steward.settings.borrow());
    let connections_max = usize::from(pools.web_connections_max);
    let _leaving = Leaving(&web);
    let executor = LocalExecutor::new();
    if let Some(page) = &steward.page {
        executor.spawn(web.run_neighbours(page.at)).detach();
    }
    let accept = async {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, address)) => {
                    let (address, from) = (address.ip(), crowd_of(address.ip()));
                    let connected = web.connected.borrow();
                    let of_its = connected.iter().filter(|other| **other == from).count();
                    let is_greedy = !address.is_loopback() && of_its >= connections_max / 2;
                    if connected.len() == connections_max || is_greedy {
                        // While as many are shown the door others are closed without a word.
                        if let Some(place) = web.doors.take() {
                            executor.spawn(web.show_the_door(stream, place)).detach();
                        }
                        continue;
                    }
                    (stream, address, from)
                }
                Err(error) => {
                    warn!("the page: {error}; it is tried again");
                    steward.service.clock.sleep(ACCEPT_PAUSE_MS, "somebody at the page").await;
                    continue;
                }
            };
            let (web, (stream, address, from)) = (&web, stream);
            web.connected.borrow_mut().push(from);
            let is_crowded = web.connected.borrow().len() + OWNERS_PLACES > connections_max;
            let connection = async move {
                web.attend(stream, address, is_crowded).await;
                let mut connected = web.connected.borrow_mut();
                let at = connected.iter().position(|other| *other == from);
                at.map(|at| connected.swap_remove(at));
            };
            executor.spawn(connection).detach();
        }
    };
    executor.run(accept).await
}

/// Links that are taken up at a time.
const ADDS_MAX: usize = 8;

/// Kept for the owner.
const OWNERS_PLACES: usize = 2;

/// For whom there is no place, and who are told so, at a time.
const DOORS_MAX: usize = 4;

/// After a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE_MS: u64 = 1_000;
