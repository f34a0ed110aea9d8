//! Who comes, and what that one may do.
//!
//! - Whom the request is for is looked at first: a name that the box is not called by is answered
//!   421, so that no page elsewhere can have a browser take our address for its own (DNS rebinding).
//! - Whoever brings a token that was given is the owner. All others are visitors, who may look where
//!   the owner lets them.
//! - What changes something comes from a page of ours: its `Origin` is the address it is sent to, and
//!   it brings the token that is in our pages. A program brings its own token in a header that no
//!   page elsewhere can set.
//!
//! # When full
//! Of more than [`GUESSERS_MAX`] addresses that bring wrong secrets the one that may soonest try
//! again is forgotten; from then on everybody waits as long as it would have.

use super::head::Head;
use super::reply::{Reply, Status};
use crate::engine::swarm::roster::crowd_of;
use crate::engine::units::Instant;
use crate::service::lan::Lan;
use crate::service::options::{Readers, WebOptions};
use crate::service::owner::{Owner, form_token};
use crate::service::settings::Settings;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv6Addr};
use std::string::{String, ToString};
use std::vec::Vec;

/// See the module.
pub struct Gate {
    options: WebOptions,
    /// Who may look by now.
    readers: Cell<Readers>,
    /// The owner may by now change things from outside the house.
    owner_outside: Cell<bool>,
    /// What the box is called.
    name: String,
    guessers: RefCell<Vec<Guesser>>,
}

/// Somebody who has brought wrong secrets.
struct Guesser {
    address: IpAddr,
    wrong: u32,
    /// Nothing is heard from there before.
    next: Instant,
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// From where.
    pub address: IpAddr,
    /// That is in the house.
    pub in_house: bool,
    /// The token it has brought, which is one that was given.
    pub token: Option<String>,
    /// It is a program, and no browser of its owner's.
    is_program: bool,
}

impl Visitor {
    /// Whether it is the owner.
    pub fn is_owner(&self) -> bool {
        self.token.is_some()
    }

    /// What forms of pages for it have in them.
    pub fn form_token(&self) -> String {
        self.token.as_deref().map(form_token).unwrap_or_default()
    }
}

impl Gate {
    /// For a box of that name.
    pub fn new(options: &WebOptions, name: &str) -> Gate {
        Gate {
            options: options.clone(),
            readers: Cell::new(options.readers),
            owner_outside: Cell::new(options.owner_outside),
            name: name.to_string(),
            guessers: RefCell::default(),
        }
    }

    /// Takes over what the owner has said.
    pub fn heed(&self, settings: &Settings) {
        self.readers.set(settings.readers_over(&self.options));
        self.owner_outside.set(settings.outside_over(&self.options));
    }

    /// Who may look.
    pub fn readers(&self) -> Readers {
        self.readers.get()
    }

    /// Whether the owner may change things from outside the house.
    pub fn lets_owner_in_from_outside(&self) -> bool {
        self.owner_outside.get()
    }

    /// What the box is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a request is for us. `known_as` is what the box is called on the LAN.
    pub fn is_ours(&self, whole: &str, known_as: &str) -> bool {
        let host = without_port(whole).trim_end_matches('.').to_ascii_lowercase();
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => whole.is_empty() || host.parse::<IpAddr>().is_ok(),
        };
        let bare = host.strip_suffix(".local").unwrap_or(&host);
        let is_name = bare == known_as || bare == self.name.to_lowercase() || host == "localhost";
        is_address || is_name || self.options.names.iter().any(|name| name.to_lowercase() == host)
    }

    /// Who sends a request from `address`.
    pub fn visitor(&self, head: &Head, address: IpAddr, lan: &Lan, owner: &Owner) -> Visitor {
        let address = address.to_canonical();
        let is_program = head.bearer.is_some();
        let token = head.bearer.as_ref().or(head.cookie.as_ref());
        let token = token.filter(|token| owner.knows(token)).cloned();
        Visitor { address, in_house: lan.contains(address), token, is_program }
    }

    /// Why a visitor may not look, if so.
    pub fn bars_reading(&self, visitor: &Visitor) -> Option<Reply> {
        let may = match self.readers.get() {
            _ if visitor.is_owner() => true,
            Readers::Everybody => true,
            Readers::House => visitor.in_house,
            Readers::Owner => false,
        };
        let words = match self.readers.get() {
            Readers::Owner => "this page is its owner's only: claim the box, from /claim",
            _ => "this page is for its house only, until its owner says otherwise",
        };
        (!may).then(|| Reply::words(Status::FORBIDDEN, words))
    }

    /// Why a visitor may not change anything, if so. `brought` is the token of the page.
    pub fn bars_change(
        &self,
        visitor: &Visitor,
        head: &Head,
        brought: Option<&str>,
    ) -> Option<Reply> {
        if !visitor.is_owner() {
            let words = "only its owner changes anything here: claim the box first, from /claim";
            return Some(Reply::words(Status::UNCLAIMED, words));
        }
        if !visitor.in_house && !self.owner_outside.get() {
            let words = "nothing is changed from outside the house: its owner can allow that from \
                         inside, at /box";
            return Some(Reply::words(Status::FORBIDDEN, words));
        }
        if visitor.is_program {
            return None;
        }
        let is_ours = comes_from_here(head) && brought == Some(visitor.form_token().as_str());
        let words = "this did not come from a page of this box: load the page anew and try again";
        (!is_ours).then(|| Reply::words(Status::FORBIDDEN, words))
    }

    /// Why a visitor may not try a secret now, if so.
    pub fn bars_claim(&self, visitor: &Visitor, head: &Head, now: Instant) -> Option<Reply> {
        if !visitor.in_house && !self.owner_outside.get() {
            let words = "a box is claimed from inside its house: go there, or ask from the machine \
                         itself";
            return Some(Reply::words(Status::FORBIDDEN, words));
        }
        if !comes_from_here(head) {
            let words = "this did not come from a page of this box: open its page and try there";
            return Some(Reply::words(Status::FORBIDDEN, words));
        }
        let wait_ms = self.wait_ms(visitor.address, now);
        (wait_ms > 0).then(|| {
            let seconds = wait_ms.div_ceil(1_000);
            let words = std::format!("that were too many wrong secrets: try again in {seconds} s");
            let reply = Reply::words(Status::TOO_MANY, &words);
            reply.with(&std::format!("Retry-After: {seconds}"))
        })
    }

    /// How long nothing is heard from an address.
    pub fn wait_ms(&self, address: IpAddr, now: Instant) -> u64 {
        let address = crowd_of(address);
        let guessers = self.guessers.borrow();
        let found = guessers.iter().find(|guesser| guesser.address == address);
        found.map_or(0, |guesser| if guesser.next > now { guesser.next.since(now) } else { 0 })
    }

    /// A secret was wrong: the next one from there is heard later, twice as late each time.
    pub fn note_wrong(&self, address: IpAddr, now: Instant) {
        let address = crowd_of(address);
        let mut guessers = self.guessers.borrow_mut();
        let at = guessers.iter().position(|guesser| guesser.address == address);
        let at = at.unwrap_or_else(|| {
            let mut wrong = 0;
            if guessers.len() == GUESSERS_MAX {
                let soonest = (0..guessers.len()).min_by_key(|at| guessers[*at].next);
                wrong = guessers.swap_remove(soonest.unwrap_or(0)).wrong;
            }
            guessers.push(Guesser { address, wrong, next: now });
            guessers.len() - 1
        });
        let guesser = &mut guessers[at];
        guesser.wrong += 1;
        let late_ms = match guesser.wrong {
            ..FREE_GUESSES => 0,
            wrong => 1_000 << (wrong - FREE_GUESSES).min(DOUBLINGS_MAX),
        };
        guesser.next = now.after(late_ms);
    }

    /// A secret was right.
    pub fn note_right(&self, address: IpAddr) {
        let address = crowd_of(address);
        self.guessers.borrow_mut().retain(|guesser| guesser.address != address);
    }
}

/// Whether a browser says that a page of ours has sent this; what is no browser says nothing.
fn comes_from_here(head: &Head) -> bool {
    let same = |origin: &str| {
        let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        bare.is_some_and(|bare| bare.eq_ignore_ascii_case(&head.host))
    };
    let is_same_site = |site: &str| matches!(site, "same-origin" | "none");
    head.origin.as_deref().is_none_or(same) && head.site.as_deref().is_none_or(is_same_site)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((front, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!front.contains(':') || front.ends_with(']')) =>
        {
            front
        }
        _ => host,
    }
}

/// The name of this machine.
pub fn machine_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.split('.').next().unwrap_or("perennial").to_string()
}

/// Addresses that are remembered for wrong secrets.
const GUESSERS_MAX: usize = 64;

/// Somebody may mistype so often.
const FREE_GUESSES: u32 = 3;

/// Then it is waited for a second, two, four, and so on to eight minutes.
const DOUBLINGS_MAX: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::head;
    use std::format;

    fn gate(options: WebOptions) -> Gate {
        Gate::new(&options, "Attic")
    }

    fn head(lines: &str) -> Head {
        let text = format!("POST /add HTTP/1.1\r\nHost: attic.local:8080\r\n{lines}\r\n");
        head::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn visitor(in_house: bool, token: Option<&str>) -> Visitor {
        let address = IpAddr::from([192, 168, 1, 7]);
        Visitor { address, in_house, token: token.map(str::to_string), is_program: false }
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_answered() {
        let names = std::vec!["films.example.org".to_string()];
        let gate = gate(WebOptions { names, ..WebOptions::default() });
        for ours in [
            "attic",
            "attic-2.local",
            "ATTIC.local:8080",
            "attic.local.",
            "localhost",
            "127.0.0.1:8080",
            "[::1]:80",
            "[fe80::1]",
            "192.0.2.7",
            "films.example.org:80",
            "",
        ] {
            assert!(gate.is_ours(ours, "attic-2"), "{ours}");
        }
        for other in [
            "evil.example",
            "attic.evil.example",
            "attic.local.evil",
            "127.0.0.1.evil.example",
            "[evil]",
            "films.example.org.evil",
            "0x7f.1",
            "attic:evil",
        ] {
            assert!(!gate.is_ours(other, "attic-2"), "{other}");
        }
    }

    #[test]
    fn a_change_needs_its_owner_a_page_of_ours_and_the_house() {
        let gate = gate(WebOptions::default());
        let status = |reply: Option<Reply>| reply.map(|reply| reply.status.code());
        let (owner, page) = (visitor(true, Some("t")), form_token("t"));
        let (page, none) = (Some(page.as_str()), head(""));
        assert_eq!(status(gate.bars_change(&owner, &none, page)), None);
        assert_eq!(status(gate.bars_change(&visitor(true, None), &none, page)), Some(401));
        assert_eq!(status(gate.bars_change(&visitor(false, Some("t")), &none, page)), Some(403));
        assert_eq!(status(gate.bars_change(&owner, &none, None)), Some(403));
        assert_eq!(status(gate.bars_change(&owner, &none, Some("t"))), Some(403));
        for (line, status_wanted) in [
            ("Origin: http://attic.local:8080", None),
            ("Origin: http://evil.example", Some(403)),
            ("Origin: null", Some(403)),
            ("Origin: http://attic.local:8081", Some(403)),
            ("Sec-Fetch-Site: same-origin", None),
            ("Sec-Fetch-Site: cross-site", Some(403)),
            ("Sec-Fetch-Site: same-site", Some(403)),
        ] {
            let head = head(&format!("{line}\r\n"));
            assert_eq!(status(gate.bars_change(&owner, &head, page)), status_wanted, "{line}");
        }
    }

    #[test]
    fn who_may_look_is_the_owners_to_say() {
        let (inside, outside) = (visitor(true, None), visitor(false, None));
        let owner = visitor(false, Some("t"));
        for (readers, wanted) in [
            (Readers::House, (false, true)),
            (Readers::Everybody, (false, false)),
            (Readers::Owner, (true, true)),
        ] {
            let gate = gate(WebOptions { readers, ..WebOptions::default() });
            let barred = |visitor| gate.bars_reading(visitor).is_some();
            assert_eq!((barred(&inside), barred(&outside)), wanted, "{readers:?}");
            assert!(!barred(&owner));
        }
    }

    #[test]
    fn wrong_secrets_are_heard_ever_later() {
        let (gate, at) = (gate(WebOptions::default()), Instant::from_millis);
        let address = "2001:db8::1".parse().unwrap();
        let mut waits = Vec::new();
        for _ in 0..15 {
            gate.note_wrong(address, at(0));
            waits.push(gate.wait_ms("2001:db8::2".parse().unwrap(), at(0)) / 1_000);
        }
        assert_eq!(waits[..6], [0, 0, 1, 2, 4, 8]);
        assert_eq!(waits[14], 512);
        assert_eq!(gate.wait_ms("2001:db8:0:1::1".parse().unwrap(), at(0)), 0);
        gate.note_right(address);
        assert_eq!(gate.wait_ms(address, at(0)), 0);
        for number in 0..200_u8 {
            for _ in 0..5 {
                gate.note_wrong(IpAddr::from([10, 0, 0, number]), at(0));
            }
        }
        assert_eq!(gate.guessers.borrow().len(), GUESSERS_MAX);
        assert!(gate.wait_ms(IpAddr::from([10, 0, 0, 199]), at(0)) > 4_000, "all wait longer then");
    }
}
