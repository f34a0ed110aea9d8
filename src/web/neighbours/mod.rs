//! Other boxes on the LAN, and how they find this one (DNS-SD, RFC 6763, over mDNS, RFC 6762).
//!
//! ```text
//! probe: does anybody else have this name?  -> announce -> hear questions, hear others
//! a page is looked at                       -> ask who else is there, now and then
//! ```
//!
//! This box is `<name>.local`, and a `_perennial._tcp` and `_http._tcp` service. Of two with one name
//! the later one, or that with the lower address, has a number behind its name from then on. Only who speaks from an address in the house is believed, and of its own address only.
//!
//! Nothing is asked of anybody while nobody looks: an idle box is not woken by this.
//!
//! # When full
//! Of more than [`NEIGHBOURS_MAX`] boxes the one heard first is forgotten. Answers are given
//! [`ANSWERS_MAX`] at a time; who asks more than that asks again.

mod message;

use super::Web;
use crate::engine::units::Instant;
use crate::service::clock::Bell;
use crate::service::lan::Lan;
use crate::service::multicast::Ear;
use message::{ANY, Data, Entry, Name, PTR, Writer, is_same, refs};
use smol::future;
use std::cell::{Cell, RefCell};
use std::format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::string::{String, ToString};
use std::vec::Vec;

/// See the module.
pub struct Neighbours {
    /// What the box is called; with a number when another has that name.
    name: RefCell<String>,
    /// How many have had it.
    taken: Cell<u32>,
    known: RefCell<Vec<Neighbour>>,
    /// Rung when somebody looks at who is there, or the name is another.
    bell: Bell,
    wants_look: Cell<bool>,
    /// The name is to be asked for.
    is_probing: Cell<bool>,
    /// Nobody has objected to it.
    is_settled: Cell<bool>,
    /// How many answers may be given now.
    answers: Cell<u32>,
    answers_at: Cell<Instant>,
}

/// Another box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// What it is called.
    pub name: String,
    /// Where its page is.
    pub at: SocketAddr,
    /// It is forgotten then, unless it is heard again.
    until: Instant,
}

impl Neighbours {
    /// Nobody is known yet to a box of that name.
    pub fn new(name: &str) -> Neighbours {
        Neighbours {
            name: RefCell::new(name.to_string()),
            taken: Cell::new(0),
            known: RefCell::default(),
            bell: Bell::default(),
            wants_look: Cell::new(false),
            is_probing: Cell::new(true),
            is_settled: Cell::new(false),
            answers: Cell::new(ANSWERS_MAX),
            answers_at: Cell::default(),
        }
    }

    /// What the box is called on the LAN.
    pub fn name(&self) -> String {
        self.name.borrow().clone()
    }

    /// Its name as a host, without `.local`.
    pub fn host(&self) -> String {
        host_of(&self.name.borrow())
    }

    /// Who else is there, as far as is known. It is looked anew, for whoever asks next.
    pub fn look(&self, now: Instant) -> Vec<Neighbour> {
        self.wants_look.set(true);
        self.bell.ring();
        let mut known = self.known.borrow_mut();
        known.retain(|neighbour| neighbour.until > now);
        known.clone()
    }

    /// Another has the name: ours has a number behind it from now on.
    fn rename(&self, name: &str) {
        self.taken.set(self.taken.get() + 1);
        let renamed = format!("{name}-{}", self.taken.get() + 1);
        warn!("another box in this house is called {name}; this one is {renamed} there");
        *self.name.borrow_mut() = renamed;
        self.is_probing.set(true);
        self.is_settled.set(false);
        self.bell.ring();
    }

    /// Takes note of a box.
    fn note(&self, name: String, at: SocketAddr, until: Instant) {
        let mut known = self.known.borrow_mut();
        known.retain(|neighbour| neighbour.at != at && neighbour.name != name);
        if known.len() == NEIGHBOURS_MAX {
            known.remove(0);
        }
        known.push(Neighbour { name, at, until });
    }

    /// Whether an answer may be given now.
    fn may_answer(&self, now: Instant) -> bool {
        if now.since(self.answers_at.get()) >= ANSWERS_MS {
            self.answers_at.set(now);
            self.answers.set(ANSWERS_MAX);
        }
        let left = self.answers.get();
        self.answers.set(left.saturating_sub(1));
        left > 0
    }
}

impl Web<'_, '_, '_> {
    /// Finds and is found, for ever.
    pub async fn run_neighbours(&self, page: SocketAddr) {
        if page.ip().is_loopback() || self.steward.keeper.options.web.hidden {
            return future::pending().await;
        }
        let lan = self.steward.service.lan().clone();
        let open = |group: IpAddr| {
            let ear = Ear::open(SocketAddr::new(group, PORT), &lan, page.ip());
            ear.inspect_err(|error| info!("other boxes are not looked for at {group}: {error}"))
                .ok()
        };
        let ears = [open(GROUP_V4.into()), open(GROUP_V6.into())];
        let [v4, v6] = &ears;
        let hearing = future::zip(self.hear(v4.as_ref(), page), self.hear(v6.as_ref(), page));
        future::zip(hearing, self.speak(&ears, page)).await;
    }

    async fn speak(&self, ears: &[Option<Ear>; 2], page: SocketAddr) {
        let (clock, neighbours) = (&self.steward.service.clock, &self.neighbours);
        let say = |datagram: &[u8]| {
            let lan = self.steward.service.lan().clone();
            for ear in ears.iter().flatten() {
                ear.join(&lan);
                ear.say(&lan, datagram);
            }
        };
        let mut asked: Option<Instant> = None;
        loop {
            while neighbours.is_probing.get() {
                neighbours.is_probing.set(false);
                for _ in 0..PROBES {
                    say(&self.probe(page));
                    clock.sleep(PROBE_MS, "the box's name on the LAN").await;
                }
                if !neighbours.is_probing.get() {
                    neighbours.is_settled.set(true);
                    say(&self.announcement(page, 0, 1));
                    clock.sleep(ANNOUNCED_MS, "the box's name on the LAN").await;
                    say(&self.announcement(page, 0, 1));
                    info!("this box is http://{}.local:{}/", neighbours.host(), page.port());
                }
            }
            let now = clock.now();
            let is_due = asked.is_none_or(|asked| now.since(asked) >= ASKED_MS);
            if neighbours.wants_look.replace(false) && is_due {
                asked = Some(now);
                say(&Writer::question().ask(&OURS, PTR).finish());
            }
            neighbours.bell.rung().await;
        }
    }

    async fn hear(&self, ear: Option<&Ear>, page: SocketAddr) {
        let Some(ear) = ear else { return };
        let service = self.steward.service;
        let mut datagram = std::vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((length, from)) = ear.hear(&mut datagram).await else {
                service.clock.sleep(FAULT_PAUSE_MS, "other boxes again").await;
                continue;
            };
            future::yield_now().await;
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            if !service.lan().contains(from.ip()) {
                continue;
            }
            let Some((number, answers, entries)) = message::read(&datagram[..length]) else {
                continue;
            };
            let lan = service.lan().clone();
            let is_own = lan.interfaces(page.ip()).any(|(ip, _)| ip == from.ip());
            if !is_own {
                self.look_for_rivals(&entries, from, &lan, page);
            }
            if answers {
                self.learn(&entries, from, is_own, page);
            } else if self.neighbours.is_settled.get()
                && self.is_asked(&entries)
                && self.neighbours.may_answer(service.clock.now())
            {
                let to_one = from.port() != PORT
                    || entries.iter().all(|entry| !matches!(entry, Entry::Question(_, _, false)));
                match to_one {
                    true => ear.say_to(from, &self.announcement(page, number, 1)),
                    false => ear.say(&lan, &self.announcement(page, 0, 1)),
                }
            }
        }
    }

    /// Another that says, or would say, that it has our name.
    fn look_for_rivals(&self, entries: &[Entry], from: SocketAddr, lan: &Lan, page: SocketAddr) {
        let (name, host) = (self.neighbours.name(), self.neighbours.host());
        let is_ours = |ip: IpAddr| lan.interfaces(page.ip()).any(|(own, _)| own == ip);
        for entry in entries {
            let (named, data, is_claim) = match entry {
                Entry::Record(named, ttl, data) if *ttl > 0 => (named, data, false),
                Entry::Claim(named, data) => (named, data, true),
                _ => continue,
            };
            let ip = match data {
                Data::V4(ip) => IpAddr::from(*ip),
                Data::V6(ip) => IpAddr::from(*ip),
                _ => continue,
            };
            if !is_same(named, &[host.as_str(), "local"]) || is_ours(ip) {
                continue;
            }
            // Who asks for a name that is settled is told that it is, as everybody who asks. Of two
            // that ask at once, or have had it in two networks, the higher address has it.
            let is_settled = self.neighbours.is_settled.get();
            if is_claim && is_settled {
                continue;
            }
            let own = lan.interfaces(page.ip()).map(|(ip, _)| ip);
            let highest = own.filter(|own| own.is_ipv4() == from.ip().is_ipv4()).max();
            let has_it_already = !is_claim && !is_settled;
            if has_it_already || highest.is_none_or(|own| own < from.ip()) {
                let base = name.rsplit_once('-').filter(|_| self.neighbours.taken.get() > 0);
                return self.neighbours.rename(base.map_or(name.as_str(), |(base, _)| base));
            }
        }
    }

    /// Whether something of ours is asked for, and not known already to who asks.
    fn is_asked(&self, entries: &[Entry]) -> bool {
        let (name, host) = (self.neighbours.name(), self.neighbours.host());
        let ours: [&[&str]; 6] = [
            &OURS,
            &HTTP,
            &SERVICES,
            &[host.as_str(), "local"],
            &[name.as_str(), OURS[0], OURS[1], OURS[2]],
            &[name.as_str(), HTTP[0], HTTP[1], HTTP[2]],
        ];
        let is_known = |entry: &Entry| match entry {
            Entry::Record(_, ttl, Data::Pointer(to)) => {
                *ttl >= SERVICE_TTL_S / 2 && to.first() == Some(&name)
            }
            _ => false,
        };
        let asked = entries.iter().any(|entry| match entry {
            Entry::Question(named, _, _) => ours.iter().any(|ours| is_same(named, ours)),
            _ => false,
        });
        asked && !entries.iter().any(is_known)
    }

    /// Takes note of boxes that speak of themselves.
    fn learn(&self, entries: &[Entry], from: SocketAddr, is_own: bool, page: SocketAddr) {
        let now = self.steward.service.clock.now();
        for entry in entries {
            let Entry::Record(named, ttl, Data::Service(port, _)) = entry else { continue };
            let is_box = named.len() == 4 && is_same(&named[1..], &OURS);
            let is_this = is_own && *port == page.port();
            if !is_box || is_this || *port == 0 {
                continue;
            }
            let Some(ip) = address_of(entries, from.ip()) else { continue };
            let at = SocketAddr::new(ip, *port);
            debug!("heard of {} at {at}", named[0]);
            if *ttl == 0 {
                self.neighbours.known.borrow_mut().retain(|known| known.at != at);
            } else {
                let until = now.after(u64::from((*ttl).min(SERVICE_TTL_S)) * 1_000);
                self.neighbours.note(named[0].clone(), at, until);
            }
        }
    }

    /// Asks whether anybody has our name, saying what we would say (RFC 6762, 8.1).
    fn probe(&self, page: SocketAddr) -> Vec<u8> {
        let host = self.neighbours.host();
        let name = [host.as_str(), "local"];
        let mut probe = Writer::question().ask(&name, ANY);
        for data in self.addresses(page) {
            probe = probe.claim(&name, &data);
        }
        probe.finish()
    }

    /// All that is said of this box; with a `life` of 0, that it goes.
    fn announcement(&self, page: SocketAddr, number: u16, life: u32) -> Vec<u8> {
        let (name, host) = (self.neighbours.name(), self.neighbours.host());
        let host: Name = std::vec![host, "local".to_string()];
        let mut said = Writer::answer(number);
        for kind in [OURS, HTTP] {
            let instance = [name.as_str(), kind[0], kind[1], kind[2]];
            let named = instance.iter().map(|label| label.to_string()).collect();
            let pointed = kind.iter().map(|label| label.to_string()).collect();
            said = said
                .say(&SERVICES, life * SERVICE_TTL_S, &Data::Pointer(pointed))
                .say(&kind, life * SERVICE_TTL_S, &Data::Pointer(named))
                .say(&instance, life * HOST_TTL_S, &Data::Service(page.port(), host.clone()))
                .text(&instance, life * SERVICE_TTL_S);
        }
        for data in self.addresses(page) {
            said = said.say(&refs(&host), life * HOST_TTL_S, &data);
        }
        said.finish()
    }

    fn addresses(&self, page: SocketAddr) -> Vec<Data> {
        let lan = self.steward.service.lan();
        let all = lan.interfaces(page.ip()).take(ADDRESSES_MAX);
        all.map(|(ip, _)| match ip {
            IpAddr::V4(ip) => Data::V4(ip),
            IpAddr::V6(ip) => Data::V6(ip),
        })
        .collect()
    }

    /// Says that this box goes.
    pub fn say_goodbye(&self) {
        let Some(page) = self.steward.page.as_ref().map(|page| page.at) else { return };
        if page.ip().is_loopback() || self.steward.keeper.options.web.hidden {
            return;
        }
        let lan = self.steward.service.lan().clone();
        for group in [IpAddr::from(GROUP_V4), IpAddr::from(GROUP_V6)] {
            if let Ok(ear) = Ear::open(SocketAddr::new(group, PORT), &lan, page.ip()) {
                ear.say(&lan, &self.announcement(page, 0, 0));
            }
        }
    }
}

/// Where a box is that speaks from `from`: there, or where it says, if it speaks from an address that
/// means nothing to a browser.
fn address_of(entries: &[Entry], from: IpAddr) -> Option<IpAddr> {
    let is_local = match from {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if !is_local {
        return Some(from);
    }
    entries.iter().find_map(|entry| match entry {
        Entry::Record(_, _, Data::V6(ip)) if !ip.is_unicast_link_local() => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// A name as that of a host: small letters, digits and hyphens (RFC 1123).
fn host_of(name: &str) -> String {
    let letter = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let host: String = name.to_ascii_lowercase().chars().map(letter).take(60).collect();
    let host = host.trim_matches('-');
    if host.is_empty() { "perennial".to_string() } else { host.to_string() }
}

const OURS: [&str; 3] = ["_perennial", "_tcp", "local"];
const HTTP: [&str; 3] = ["_http", "_tcp", "local"];
const SERVICES: [&str; 4] = ["_services", "_dns-sd", "_udp", "local"];

/// Where everybody speaks (RFC 6762, 3).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 5353;

/// How long what is said is true (RFC 6762, 10).
const HOST_TTL_S: u32 = 120;
const SERVICE_TTL_S: u32 = 4_500;

/// How often a name is asked for, and how long it is waited for an objection (RFC 6762, 8.1).
const PROBES: u32 = 3;
const PROBE_MS: u64 = 250;

/// Between the two announcements.
const ANNOUNCED_MS: u64 = 1_000;

/// Others are asked for no more often.
const ASKED_MS: u64 = 10_000;

/// Boxes that are remembered.
pub const NEIGHBOURS_MAX: usize = 16;

/// Answers within [`ANSWERS_MS`].
const ANSWERS_MAX: u32 = 5;
const ANSWERS_MS: u64 = 1_000;

/// Addresses of ours that are said.
const ADDRESSES_MAX: usize = 8;

/// What is heard of one datagram.
const DATAGRAM_BYTES_MAX: usize = 4 * 1024;

/// Pause after a receive that failed: an interface may be on its way down.
const FAULT_PAUSE_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_host() {
        assert_eq!(host_of("Attic"), "attic");
        assert_eq!(host_of("Gran's Box!"), "gran-s-box");
        assert_eq!(host_of("\u{e4}\u{f6}"), "perennial");
    }

    #[test]
    fn of_many_who_say_they_are_there_a_few_are_remembered() {
        let (neighbours, at) = (Neighbours::new("attic"), Instant::from_millis);
        for number in 0..10_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let address = SocketAddr::from(([10, 0, high, low], 8080));
            neighbours.note(format!("box {number}"), address, at(1_000));
        }
        let known = neighbours.look(at(0));
        assert_eq!(known.len(), NEIGHBOURS_MAX);
        assert_eq!(known.last().unwrap().name, "box 9999");
        neighbours.note("box 9999".into(), SocketAddr::from(([10, 9, 9, 9], 1)), at(5_000));
        assert_eq!(neighbours.look(at(1_000)).len(), 1, "the others' time is over");
    }

    #[test]
    fn so_many_answers_are_given_and_no_more() {
        let (neighbours, at) = (Neighbours::new("attic"), Instant::from_millis);
        let given = |now| (0..100).filter(|_| neighbours.may_answer(now)).count();
        assert_eq!(given(at(5_000)), ANSWERS_MAX as usize);
        assert_eq!(given(at(5_500)), 0);
        assert_eq!(given(at(6_100)), ANSWERS_MAX as usize);
    }

    #[test]
    fn whoever_comes_second_has_a_number() {
        let neighbours = Neighbours::new("attic");
        neighbours.rename("attic");
        assert_eq!(
            (neighbours.name().as_str(), neighbours.host().as_str()),
            ("attic-2", "attic-2")
        );
        neighbours.rename("attic");
        assert_eq!(neighbours.name(), "attic-3");
    }
}
