//! An address from the house's router (DHCP, RFC 2131): packets, and when which of them is sent.
//!
//! Values only, with time and chance as arguments; `network` has the socket and the interface.
//!
//! ```text
//! Selecting -DISCOVER-> .. <-OFFER- Requesting -REQUEST-> .. <-ACK- Bound
//!     ^                                  |                            | half of the time: REQUEST to
//!     +------- NAK, nobody answers ------+                            | the server, 7/8: to everybody
//!     +----------------- NAK, or the time is over: the address is dropped
//! ```
//!
//! Everything asks for answers by broadcast, which need no address of ours. Who never answers is
//! asked for ever, at most every [`PAUSE_MAX_MS`].

use heapless::Vec;
use std::net::Ipv4Addr;

/// What was given, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's, 1 to 32.
    pub prefix: u8,
    /// Who leads to other networks.
    pub router: Option<Ipv4Addr>,
    /// Who knows names.
    pub names: Vec<Ipv4Addr, SERVERS_MAX>,
    /// Who knows the time.
    pub clocks: Vec<Ipv4Addr, SERVERS_MAX>,
    server: Ipv4Addr,
    /// How long it holds, and when it is asked for again: of the server, then of everybody.
    holds_ms: u64,
    renews_ms: u64,
    rebinds_ms: u64,
}

/// What has become of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is ours from here on, or for longer.
    Given(Lease),
    /// It is ours no more.
    Lost,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A packet for one server, or for everybody.
    Send(Option<Ipv4Addr>, Packet),
    /// The address is to be dropped.
    Lost,
}

/// What is sent.
pub type Packet = std::vec::Vec<u8>;

/// Asks for an address, and keeps it.
pub struct Client {
    hardware: [u8; 6],
    /// What the box is called, for the router's list.
    name: Vec<u8, NAME_BYTES_MAX>,
    transaction: u32,
    state: State,
    /// When the next step is due.
    due_ms: u64,
    tries: u32,
}

enum State {
    Selecting,
    Requesting(Lease),
    Bound { lease: Lease, since_ms: u64 },
}

impl Client {
    /// One that has to ask at once.
    pub fn new(hardware: [u8; 6], name: &str, chance: u32) -> Client {
        let name = name.bytes().take(NAME_BYTES_MAX).collect();
        let (state, due_ms) = (State::Selecting, 0);
        Client { hardware, name, transaction: chance, state, due_ms, tries: 0 }
    }

    /// When [`step`](Client::step) has something to do.
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// The cable is back in, perhaps of another network.
    pub fn handle_cable(&mut self, now_ms: u64) {
        (self.due_ms, self.tries) = (now_ms, 0);
    }

    /// What is to be done when it is due, if it is. `chance` keeps boxes that start together apart.
    pub fn step(&mut self, now_ms: u64, chance: u32) -> Option<Step> {
        if now_ms < self.due_ms {
            return None;
        }
        if let State::Bound { lease, since_ms } = &self.state {
            let age_ms = now_ms - since_ms;
            if age_ms >= lease.holds_ms {
                self.start_again(now_ms, chance);
                return Some(Step::Lost);
            }
            // A half of what is left until the next stage, so that a busy server is not hurried.
            let is_late = age_ms >= lease.rebinds_ms || age_ms < lease.renews_ms;
            let until_ms = if is_late { lease.holds_ms } else { lease.rebinds_ms };
            let pause_ms = (until_ms - age_ms.min(until_ms)) / 2;
            self.due_ms = (now_ms + pause_ms.max(RENEW_PAUSE_MS)).min(since_ms + lease.holds_ms);
            let to = (!is_late).then_some(lease.server);
            return Some(Step::Send(to, self.packet(REQUEST, Some(lease.address), None)));
        }
        if matches!(self.state, State::Requesting(_)) && self.tries >= REQUESTS_MAX {
            self.start_again(now_ms, chance);
        }
        let pause_ms = (PAUSE_MS << self.tries.min(4)).min(PAUSE_MAX_MS);
        self.due_ms = now_ms + pause_ms + u64::from(chance) % (pause_ms / 4);
        self.tries += 1;
        let packet = match &self.state {
            State::Requesting(offer) => self.packet(REQUEST, None, Some(offer)),
            _ => self.packet(DISCOVER, None, None),
        };
        Some(Step::Send(None, packet))
    }

    /// Takes a packet that came to our port; what is not for us changes nothing.
    pub fn handle(&mut self, packet: &[u8], now_ms: u64) -> Option<News> {
        let (kind, lease) = self.read(packet)?;
        match (&self.state, kind) {
            (State::Selecting, OFFER) => {
                (self.state, self.due_ms, self.tries) = (State::Requesting(lease?), now_ms, 0);
                None
            }
            (State::Requesting(_) | State::Bound { .. }, ACK) => {
                let lease = lease.filter(|lease| self.wants(lease.address))?;
                self.due_ms = now_ms + lease.renews_ms;
                self.state = State::Bound { lease: lease.clone(), since_ms: now_ms };
                Some(News::Given(lease))
            }
            (State::Requesting(_), NAK) => {
                self.start_again(now_ms + PAUSE_MS, self.transaction);
                None
            }
            (State::Bound { .. }, NAK) => {
                self.start_again(now_ms, self.transaction);
                Some(News::Lost)
            }
            _ => None,
        }
    }

    /// Whether it has been asked for that address.
    fn wants(&self, address: Ipv4Addr) -> bool {
        match &self.state {
            State::Selecting => false,
            State::Requesting(lease) | State::Bound { lease, .. } => lease.address == address,
        }
    }

    fn start_again(&mut self, now_ms: u64, chance: u32) {
        self.transaction = self.transaction.wrapping_add(chance | 1);
        (self.state, self.due_ms, self.tries) = (State::Selecting, now_ms, 0);
    }

    /// A packet of ours (RFC 2131, section 2; options of RFC 2132).
    fn packet(&self, kind: u8, ours: Option<Ipv4Addr>, offer: Option<&Lease>) -> Packet {
        let mut packet = Packet::with_capacity(PACKET_BYTES);
        let broadcast = [0x80, 0];
        let mut put = |bytes: &[u8]| packet.extend_from_slice(bytes);
        put(&[FROM_CLIENT, ETHERNET, 6, 0]);
        put(&self.transaction.to_be_bytes());
        put(&[0, 0]);
        put(&broadcast);
        put(&ours.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        put(&[0; 12]);
        put(&self.hardware);
        put(&[0; 10 + 64 + 128]);
        put(&COOKIE);
        put(&[KIND, 1, kind, CLIENT, 7, ETHERNET]);
        put(&self.hardware);
        put(&[WISHES, 8, MASK, ROUTER, NAMES, CLOCKS, LEASE_TIME, RENEWS, REBINDS, BROADCAST]);
        if let Some(offer) = offer {
            put(&[ADDRESS, 4]);
            put(&offer.address.octets());
            put(&[SERVER, 4]);
            put(&offer.server.octets());
        }
        if !self.name.is_empty() {
            put(&[NAME, self.name.len() as u8]);
            put(&self.name);
        }
        put(&[END]);
        // Some servers ignore what is shorter than BOOTP's (RFC 1542, section 2.1).
        let length = packet.len().max(SHORTEST);
        packet.resize(length, 0);
        packet
    }

    /// The kind of an answer to us, and what it gives when that can be used.
    fn read(&self, packet: &[u8]) -> Option<(u8, Option<Lease>)> {
        let head = packet.get(..OPTIONS_AT)?;
        let is_ours = head[0] == FROM_SERVER
            && head[4..8] == self.transaction.to_be_bytes()
            && head[28..34] == self.hardware
            && head[236..] == COOKIE;
        if !is_ours {
            return None;
        }
        let options = Options(&packet[OPTIONS_AT..]);
        let kind = *options.find(KIND)?.first()?;
        Some((kind, read_lease(address(&head[16..])?, &options)))
    }
}

fn read_lease(ours: Ipv4Addr, options: &Options<'_>) -> Option<Lease> {
    let number = |code| Some(u32::from_be_bytes(*options.find(code)?.first_chunk()?));
    let server = address(options.find(SERVER)?)?;
    let mask = number(MASK).unwrap_or(0xffff_ff00);
    let prefix = mask.leading_ones() as u8;
    let is_usable = !ours.is_unspecified()
        && !ours.is_loopback()
        && !ours.is_multicast()
        && !ours.is_broadcast()
        && prefix > 0
        && mask.count_ones() == u32::from(prefix);
    let holds_s = u64::from(number(LEASE_TIME)?).max(LEASE_MIN_S);
    let within = |code, usual: u64| match number(code).map(u64::from) {
        Some(told) if (1..holds_s).contains(&told) => told,
        _ => usual,
    };
    let rebinds_s = within(REBINDS, holds_s * 7 / 8);
    let renews_s = within(RENEWS, holds_s / 2).min(rebinds_s);
    let all = |code| {
        let bytes = options.find(code).unwrap_or_default();
        let all = bytes.chunks_exact(4).filter_map(address).filter(|one| !one.is_unspecified());
        all.take(SERVERS_MAX).collect()
    };
    let routers: Vec<Ipv4Addr, SERVERS_MAX> = all(ROUTER);
    is_usable.then(|| Lease {
        address: ours,
        prefix,
        router: routers.first().copied(),
        names: all(NAMES),
        clocks: all(CLOCKS),
        server,
        holds_ms: holds_s * 1_000,
        renews_ms: renews_s * 1_000,
        rebinds_ms: rebinds_s * 1_000,
    })
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
}

/// Code, length and bytes, one after the other.
struct Options<'p>(&'p [u8]);

impl<'p> Options<'p> {
    /// The first of that code that is whole.
    fn find(&self, wanted: u8) -> Option<&'p [u8]> {
        let mut rest = self.0;
        loop {
            let (&code, after) = rest.split_first()?;
            rest = after;
            match code {
                PAD => continue,
                END => return None,
                _ => {}
            }
            let (&length, after) = rest.split_first()?;
            let bytes = after.get(..usize::from(length))?;
            if code == wanted {
                return Some(bytes);
            }
            rest = &after[usize::from(length)..];
        }
    }
}

/// Servers of a kind that are kept.
const SERVERS_MAX: usize = 3;

/// The longest name that is told.
const NAME_BYTES_MAX: usize = 63;

/// Our longest packet: head, options, name.
const PACKET_BYTES: usize = 400;

const SHORTEST: usize = 300;

/// Before a question is repeated first, and at most (RFC 2131, section 4.1).
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 16_000;

/// An offer is asked for so often, then any other will do.
const REQUESTS_MAX: u32 = 4;

/// Between two questions for the address we have (RFC 2131, section 4.4.5).
const RENEW_PAUSE_MS: u64 = 60_000;

/// A shorter lease is taken for this long.
const LEASE_MIN_S: u64 = 60;

const FROM_CLIENT: u8 = 1;
const FROM_SERVER: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTIONS_AT: usize = 240;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAMES: u8 = 6;
const NAME: u8 = 12;
const BROADCAST: u8 = 28;
const CLOCKS: u8 = 42;
const ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const WISHES: u8 = 55;
const RENEWS: u8 = 58;
const REBINDS: u8 = 59;
const CLIENT: u8 = 61;
const END: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const ROUTERS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    fn answer(asked: &[u8], kind: u8, more: &[u8]) -> std::vec::Vec<u8> {
        let mut packet = vec![0; OPTIONS_AT];
        packet[0] = FROM_SERVER;
        packet[4..8].copy_from_slice(&asked[4..8]);
        packet[16..20].copy_from_slice(&OURS.octets());
        packet[28..34].copy_from_slice(&HARDWARE);
        packet[236..].copy_from_slice(&COOKIE);
        packet.extend([KIND, 1, kind, SERVER, 4]);
        packet.extend(ROUTERS.octets());
        packet.extend(more);
        packet.push(END);
        packet
    }

    /// A mask, a router, two servers of names, and an hour.
    fn usual() -> std::vec::Vec<u8> {
        let mut options = vec![MASK, 4, 255, 255, 255, 0, PAD, ROUTER, 4];
        options.extend(ROUTERS.octets());
        options.extend([NAMES, 8, 10, 0, 2, 3, 10, 0, 2, 4]);
        options.extend([LEASE_TIME, 4, 0, 0, 0x0e, 0x10]);
        options
    }

    fn sent(step: Option<Step>) -> (Option<Ipv4Addr>, Packet) {
        match step {
            Some(Step::Send(to, packet)) => (to, packet),
            other => panic!("nothing is sent: {other:?}"),
        }
    }

    fn kind_of(packet: &[u8]) -> u8 {
        Options(&packet[OPTIONS_AT..]).find(KIND).expect("each says what it is")[0]
    }

    fn bound(now_ms: u64) -> (Client, Packet) {
        let mut client = Client::new(HARDWARE, "attic", 4711);
        let (to, discover) = sent(client.step(now_ms, 0));
        assert_eq!((to, kind_of(&discover)), (None, DISCOVER));
        assert_eq!(client.handle(&answer(&discover, OFFER, &usual()), now_ms), None);
        let (to, request) = sent(client.step(now_ms, 0));
        assert_eq!((to, kind_of(&request)), (None, REQUEST));
        let options = Options(&request[OPTIONS_AT..]);
        assert_eq!(options.find(ADDRESS), Some(&OURS.octets()[..]));
        assert_eq!(options.find(NAME), Some(&b"attic"[..]));
        let news = client.handle(&answer(&request, ACK, &usual()), now_ms);
        let Some(News::Given(lease)) = news else { panic!("no address: {news:?}") };
        assert_eq!((lease.address, lease.prefix, lease.router), (OURS, 24, Some(ROUTERS)));
        assert_eq!(lease.names[..], [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)]);
        (client, request)
    }

    #[test]
    fn an_address_is_got_renewed_asked_of_everybody_and_dropped_when_its_time_is_over() {
        let (mut client, _) = bound(1_000);
        assert_eq!(client.step(1_800_999, 0), None, "half of an hour is not over");
        let (to, request) = sent(client.step(1_801_000, 0));
        assert_eq!((to, &request[12..16]), (Some(ROUTERS), &OURS.octets()[..]));
        assert!(Options(&request[OPTIONS_AT..]).find(SERVER).is_none(), "RFC 2131, table 5");
        let news = client.handle(&answer(&request, ACK, &usual()), 1_801_000);
        assert!(matches!(news, Some(News::Given(_))));
        // From here on nobody answers.
        let (mut asked, mut now_ms) = (vec![], 1_801_000);
        let lost_ms = loop {
            now_ms = client.due_ms().max(now_ms);
            match client.step(now_ms, 0) {
                Some(Step::Send(to, _)) => asked.push(to),
                Some(Step::Lost) => break now_ms,
                None => panic!("it was due"),
            }
        };
        assert_eq!(lost_ms, 1_801_000 + 3_600_000);
        assert_eq!(asked.first(), Some(&Some(ROUTERS)));
        assert_eq!(asked.last(), Some(&None));
        assert!(asked.len() < 16, "{} questions", asked.len());
        assert_eq!(kind_of(&sent(client.step(now_ms, 0)).1), DISCOVER);
    }

    #[test]
    fn a_server_that_says_no_is_believed() {
        let (mut client, request) = bound(0);
        assert_eq!(client.handle(&answer(&request, NAK, &[]), 5), Some(News::Lost));
        assert_eq!(kind_of(&sent(client.step(5, 9)).1), DISCOVER);
        // What still comes for the last transaction is for nobody.
        assert_eq!(client.handle(&answer(&request, ACK, &usual()), 6), None);
    }

    #[test]
    fn where_nobody_answers_it_is_asked_for_ever_but_seldom() {
        let mut client = Client::new(HARDWARE, "", 1);
        let mut now_ms = 0;
        for _ in 0..100 {
            now_ms = client.due_ms().max(now_ms);
            assert_eq!(kind_of(&sent(client.step(now_ms, u32::MAX)).1), DISCOVER);
        }
        assert!((1_500_000..2_100_000).contains(&now_ms), "{now_ms}");
    }

    #[test]
    fn an_offer_that_is_not_kept_is_given_up() {
        let mut client = Client::new(HARDWARE, "attic", 4711);
        let (_, discover) = sent(client.step(0, 0));
        client.handle(&answer(&discover, OFFER, &usual()), 0);
        let mut kinds = vec![];
        for _ in 0..6 {
            kinds.push(kind_of(&sent(client.step(client.due_ms(), 0)).1));
        }
        assert_eq!(kinds, [REQUEST, REQUEST, REQUEST, REQUEST, DISCOVER, DISCOVER]);
    }

    #[test]
    fn a_cable_that_is_back_has_the_address_asked_for_at_once() {
        let (mut client, _) = bound(0);
        client.handle_cable(10_000);
        let (to, request) = sent(client.step(10_000, 0));
        assert_eq!((to, kind_of(&request)), (None, REQUEST));
        assert!(matches!(
            client.handle(&answer(&request, ACK, &usual()), 10_001),
            Some(News::Given(_))
        ));
    }

    #[test]
    fn what_cannot_be_an_address_is_not_taken() {
        let cases: [(&str, std::vec::Vec<u8>); 4] = [
            ("no time", vec![MASK, 4, 255, 255, 255, 0]),
            ("a mask with holes", vec![MASK, 4, 255, 0, 255, 0, LEASE_TIME, 4, 0, 0, 14, 16]),
            ("no mask at all", vec![MASK, 4, 0, 0, 0, 0, LEASE_TIME, 4, 0, 0, 14, 16]),
            ("cut off", vec![LEASE_TIME, 4, 0, 0]),
        ];
        for (what, options) in cases {
            let mut client = Client::new(HARDWARE, "attic", 4711);
            let (_, discover) = sent(client.step(0, 0));
            client.handle(&answer(&discover, OFFER, &options), 0);
            assert_eq!(kind_of(&sent(client.step(client.due_ms(), 0)).1), DISCOVER, "{what}");
        }
    }

    #[test]
    fn hostile_bytes_change_nothing_and_never_panic() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let (mut client, request) = bound(0);
        let whole = answer(&request, ACK, &usual());
        for length in 0..whole.len() - usual().len() - 1 {
            assert_eq!(client.handle(&whole[..length], 1), None, "{length} bytes");
        }
        for _ in 0..20_000 {
            let mut packet = whole.clone();
            for _ in 0..random() % 8 {
                let at = OPTIONS_AT + random() as usize % (packet.len() - OPTIONS_AT);
                packet[at] = random() as u8;
            }
            packet.truncate(OPTIONS_AT + random() as usize % 64);
            let mut client = Client::new(HARDWARE, "attic", 0);
            client.transaction = u32::from_be_bytes(*whole[4..].first_chunk().unwrap());
            for state in [State::Selecting, State::Requesting(bound_lease())] {
                client.state = state;
                if let Some(News::Given(lease)) = client.handle(&packet, 1) {
                    assert!((1..=32).contains(&lease.prefix));
                    assert!(lease.renews_ms <= lease.rebinds_ms);
                    assert!(lease.rebinds_ms < lease.holds_ms);
                }
            }
        }
    }

    fn bound_lease() -> Lease {
        match bound(0).0.state {
            State::Bound { lease, .. } => lease,
            _ => panic!("it has an address"),
        }
    }
}
