//! A mapper and a router that follows a script, on a clock that only the test moves.

use super::*;
use std::vec::Vec;

const GATEWAY: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 1, 1));
const OUTSIDE: [u8; 4] = [203, 0, 113, 7];
const START: Instant = Instant::from_millis(1_000);

fn wish() -> Wish {
    let client = "192.168.1.5".parse().unwrap();
    // Of these the first says how long to wait after a restart, the others nothing less nor more.
    Wish {
        gateway: GATEWAY,
        client,
        port: 6881,
        nonce: Nonce([0, 127, 127, 127, 0, 0, 0, 0, 0, 0, 0, 0]),
    }
}

/// What a router does with what it is asked.
#[derive(Clone, Copy)]
struct Router {
    pcp: Manner,
    natpmp: Manner,
    /// Its time at [`START`], in seconds; negative when it has started later.
    epoch_s: i64,
    lifetime_s: u32,
    external_port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Silent,
    Grants,
    Says(u8),
    /// As a router that knows only NAT-PMP answers PCP.
    OldVersion,
    GrantsConnectionsOnly,
}

const ROUTER: Router = Router {
    pcp: Manner::Grants,
    natpmp: Manner::Grants,
    epoch_s: 10_000,
    lifetime_s: 7_200,
    external_port: 6881,
};

impl Router {
    fn answer(&self, asked: &[u8], now: Instant) -> Option<Vec<u8>> {
        let is_pcp = asked[0] == 2;
        let manner = if is_pcp { self.pcp } else { self.natpmp };
        let is_datagrams = if is_pcp { asked[36] == 17 } else { asked[1] == 1 };
        let result = match manner {
            Manner::Silent => return None,
            Manner::Says(result) => result,
            Manner::OldVersion => return Some([&[0, 0x81, 0, 1], &[0; 4][..]].concat()),
            Manner::GrantsConnectionsOnly if is_datagrams => 4,
            Manner::Grants | Manner::GrantsConnectionsOnly => 0,
        };
        let epoch_s = (self.epoch_s + now.since(START) as i64 / 1_000) as u32;
        let mut bytes = asked.to_vec();
        bytes[1] |= 0x80;
        if is_pcp {
            bytes[3] = result;
            bytes[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
            bytes[8..12].copy_from_slice(&epoch_s.to_be_bytes());
            bytes[12..24].fill(0);
            bytes[42..44].copy_from_slice(&self.external_port.to_be_bytes());
            bytes[44..60]
                .copy_from_slice(&core::net::Ipv4Addr::from(OUTSIDE).to_ipv6_mapped().octets());
            return Some(bytes);
        }
        let head = [&[0, bytes[1], 0, result], &epoch_s.to_be_bytes()[..]].concat();
        Some(match asked[1] {
            0 => [&head, &OUTSIDE[..]].concat(),
            _ => {
                let port = self.external_port.to_be_bytes();
                [&head, &asked[4..6], &port, &self.lifetime_s.to_be_bytes()].concat()
            }
        })
    }
}

/// What a mapper did, and when, in milliseconds after [`START`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Asked(u64, Vec<u8>),
    Mapped(u64, Mapping),
    Failed(u64, Option<Refusal>),
}

struct Story {
    mapper: Mapper,
    now: Instant,
    did: Vec<Did>,
}

impl Story {
    fn new() -> Story {
        Story { mapper: Mapper::new(wish(), START), now: START, did: Vec::new() }
    }

    fn at(&self) -> u64 {
        self.now.since(START)
    }

    /// Runs for so long with a router at the other end; time stands still between its answers.
    fn run(&mut self, router: &Router, ms: u64) -> &mut Story {
        let until = self.now.after(ms);
        for _ in 0..STEPS_MAX {
            let at = self.at();
            match self.mapper.poll_output(self.now) {
                Output::Send(bytes) => {
                    let bytes = bytes.to_vec();
                    if let Some(answer) = router.answer(&bytes, self.now) {
                        self.mapper.handle_datagram(GATEWAY, &answer, self.now);
                    }
                    self.did.push(Did::Asked(at, bytes));
                }
                Output::Mapped(mapping) => self.did.push(Did::Mapped(at, mapping)),
                Output::Failed(failure) => self.did.push(Did::Failed(at, failure.refusal)),
                Output::Wait(deadline) if deadline.at > until => {
                    self.now = until;
                    return self;
                }
                Output::Wait(deadline) => self.now = deadline.at,
            }
        }
        panic!("it goes on and on: {:?}", &self.did[self.did.len() - 9..]);
    }

    /// When it asked.
    fn asked_at(&self) -> Vec<u64> {
        let at = |did: &Did| if let Did::Asked(at, _) = did { Some(*at) } else { None };
        self.did.iter().filter_map(at).collect()
    }

    fn mapped(&self) -> Vec<(u64, Mapping)> {
        let mapped =
            |did: &Did| if let Did::Mapped(at, to) = did { Some((*at, *to)) } else { None };
        self.did.iter().filter_map(mapped).collect()
    }

    fn forget(&mut self) {
        self.did.clear();
    }
}

fn mapping(protocol: Protocol, tcp_port: u16, udp_port: Option<u16>) -> Mapping {
    Mapping { protocol, external_ip: Some(OUTSIDE.into()), tcp_port, udp_port }
}

#[test]
fn a_router_that_speaks_pcp_is_asked_for_both_transports_and_again_at_half_the_lifetime() {
    let mut story = Story::new();
    story.run(&Router { lifetime_s: 1_000, external_port: 40_000, ..ROUTER }, 1_100_000);
    assert_eq!(story.asked_at(), [0, 0, 500_000, 500_000, 1_000_000, 1_000_000]);
    let mapped = mapping(Protocol::Pcp, 40_000, Some(40_000));
    assert_eq!(story.mapped(), [(0, mapped)], "said once");
    // The first question names our own port; later ones the one we have.
    let Did::Asked(_, first) = &story.did[0] else { panic!() };
    let Did::Asked(_, again) = &story.did[3] else { panic!() };
    assert_eq!((&first[42..44], &again[42..44]), (&[0x1a, 0xe1][..], &[0x9c, 0x40][..]));
    assert_eq!(first[24..36], wish().nonce.0);
    assert_eq!(again[24..36], wish().nonce.0);
}

#[test]
fn a_router_that_knows_only_natpmp_is_asked_in_it() {
    for pcp in [Manner::OldVersion, Manner::Says(1), Manner::Silent] {
        let mut story = Story::new();
        story.run(&Router { pcp, lifetime_s: 3_600, ..ROUTER }, 1_810_000);
        let first = if pcp == Manner::Silent { 9_000 } else { 0 };
        let mapped = story.mapped();
        assert_eq!(mapped, [(mapped[0].0, mapping(Protocol::NatPmp, 6881, Some(6881)))]);
        assert!(mapped[0].0.abs_diff(first) <= first / 10, "{mapped:?}");
        // Address, TCP, UDP; and all three again.
        let asked = story.asked_at();
        let renewed = &asked[asked.len() - 3..];
        assert_eq!(renewed, [mapped[0].0 + 1_800_000; 3], "{asked:?}");
    }
}

#[test]
fn a_silent_router_is_asked_as_the_rfcs_say_and_given_up() {
    let mut story = Story::new();
    story.run(&Router { pcp: Manner::Silent, natpmp: Manner::Silent, ..ROUTER }, 3_600_000);
    let asked = story.asked_at();
    let (pcp, natpmp) = asked.split_at(PCP_TRIES as usize);
    assert_eq!(pcp[0], 0);
    assert!((2_700..=3_300).contains(&pcp[1]), "{pcp:?}");
    assert!((8_100..=9_900).contains(&natpmp[0]), "{natpmp:?}");
    let pauses: Vec<u64> = natpmp.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [250, 500, 1_000, 2_000]);
    assert_eq!(story.did.last(), Some(&Did::Failed(natpmp[4] + 4_000, None)));
    assert!(story.mapper.is_over());
}

#[test]
fn where_nobody_listens_is_known_at_once() {
    let mut mapper = Mapper::new(wish(), START);
    assert!(matches!(mapper.poll_output(START), Output::Send(_)));
    mapper.handle_unreachable(START);
    let failure = Failure { refusal: None, hold_off_ms: 0 };
    assert_eq!(mapper.poll_output(START), Output::Failed(failure));
    assert_eq!(mapper.poll_output(START), Output::Wait(Deadline::NONE));
}

#[test]
fn a_no_is_a_no_and_says_for_how_long() {
    for (manner, refusal) in [(2, Refusal::NotAuthorised), (8, Refusal::NoRoom)] {
        let mut mapper = Mapper::new(wish(), START);
        let Output::Send(asked) = mapper.poll_output(START) else { panic!("nothing asked") };
        let router = Router { pcp: Manner::Says(manner), lifetime_s: 1_800, ..ROUTER };
        let answer = router.answer(asked, START).unwrap();
        mapper.handle_datagram(GATEWAY, &answer, START);
        let failure = Failure { refusal: Some(refusal), hold_off_ms: 1_800_000 };
        assert_eq!(mapper.poll_output(START), Output::Failed(failure));
    }
    let mut story = Story::new();
    story.run(&Router { pcp: Manner::OldVersion, natpmp: Manner::Says(3), ..ROUTER }, 60_000);
    assert_eq!(story.did.last(), Some(&Did::Failed(0, Some(Refusal::NoConnection))));
}

#[test]
fn a_router_that_forwards_only_connections_is_enough() {
    let mut story = Story::new();
    let router = Router { pcp: Manner::GrantsConnectionsOnly, lifetime_s: 600, ..ROUTER };
    story.run(&router, 310_000);
    assert_eq!(story.mapped(), [(0, mapping(Protocol::Pcp, 6881, None))]);
    assert_eq!(story.asked_at(), [0, 0, 300_000, 300_000]);
    story.run(&Router { lifetime_s: 600, ..ROUTER }, 300_000);
    assert_eq!(story.mapped()[1], (600_000, mapping(Protocol::Pcp, 6881, Some(6881))));
}

#[test]
fn lifetimes_that_are_lies_neither_keep_us_awake_nor_let_us_sleep() {
    for (lifetime_s, again_at) in [(u32::MAX, 3_600_000), (7_200, 3_600_000), (1, 30_000)] {
        for pcp in [Manner::Grants, Manner::OldVersion] {
            let mut story = Story::new();
            story.run(&Router { pcp, lifetime_s, ..ROUTER }, again_at);
            let asked = story.asked_at();
            assert_eq!(asked.iter().find(|at| **at > 0), Some(&again_at), "{asked:?}");
            assert_eq!(story.mapped().len(), 1);
        }
    }
    for pcp in [Manner::Grants, Manner::OldVersion] {
        let mut story = Story::new();
        story.run(&Router { pcp, lifetime_s: 0, ..ROUTER }, 3_600_000);
        assert_eq!(story.did.last(), Some(&Did::Failed(0, Some(Refusal::Nothing))));
        assert!(story.mapped().is_empty());
        let mut story = Story::new();
        story.run(&Router { pcp, external_port: 0, ..ROUTER }, 3_600_000);
        assert_eq!(story.did.last(), Some(&Did::Failed(0, Some(Refusal::Nothing))));
    }
}

#[test]
fn a_router_that_falls_silent_is_asked_again_and_again_until_its_lifetime_ends() {
    let mut story = Story::new();
    story.run(&Router { lifetime_s: 1_600, ..ROUTER }, 1);
    story.forget();
    let silent = Router { pcp: Manner::Silent, natpmp: Manner::Silent, ..ROUTER };
    story.run(&silent, 10_000_000);
    let Some(Did::Failed(at, None)) = story.did.last() else { panic!("{:?}", story.did) };
    assert!((1_600_000..1_660_000).contains(at), "{at}");
    let asked = story.asked_at();
    assert!(asked.len() < 40, "{asked:?}");
    assert_eq!(asked[0], 800_000);

    // One that comes back meanwhile has lost nothing.
    let mut story = Story::new();
    story.run(&Router { lifetime_s: 1_600, ..ROUTER }, 1);
    story.run(&silent, 900_000).run(&Router { lifetime_s: 1_600, ..ROUTER }, 2_000_000);
    assert_eq!(story.mapped().len(), 1);
}

#[test]
fn a_router_that_has_restarted_is_asked_for_everything_again() {
    for pcp in [Manner::Grants, Manner::OldVersion] {
        let mut story = Story::new();
        let router = Router { pcp, lifetime_s: 7_200, ..ROUTER };
        story.run(&router, 600_000);
        story.forget();
        // It tells everybody; its time begins again.
        let restarted = Router { epoch_s: -600, external_port: 50_000, ..router };
        let mut announcement = [0; 24];
        match pcp {
            Manner::Grants => announcement[..2].copy_from_slice(&[2, 0x80]),
            _ => announcement[..2].copy_from_slice(&[0, 0x80]),
        }
        let bytes = if pcp == Manner::Grants { &announcement[..] } else { &announcement[..12] };
        story.mapper.handle_announcement("192.168.1.9".parse().unwrap(), bytes, story.now);
        story.run(&restarted, 1);
        assert!(story.did.is_empty(), "not the router's word");
        story.mapper.handle_announcement(GATEWAY, bytes, story.now);
        story.run(&restarted, 1);
        let [(_, mapped)] = story.mapped()[..] else { panic!("{:?}", story.did) };
        assert_eq!((mapped.tcp_port, mapped.udp_port), (50_000, Some(50_000)));

        // Without a word it is seen at the next renewal: what was not asked for is, then.
        let mut story = Story::new();
        story.run(&router, 1);
        story.forget();
        story.run(&Router { epoch_s: -3_000, ..router }, 3_700_000);
        let asked = story.asked_at().len();
        assert!((2..=5).contains(&asked), "{:?}", story.asked_at());
    }
}

#[test]
fn a_router_whose_clock_jumps_is_not_asked_without_end() {
    let mut story = Story::new();
    let mut epoch_s = 10_000_000;
    for _ in 0..3_600 {
        epoch_s -= 2_000;
        story.run(&Router { epoch_s, ..ROUTER }, 1_000);
        let mut announcement = [0; 24];
        announcement[..2].copy_from_slice(&[2, 0x80]);
        announcement[8..12].copy_from_slice(&(epoch_s as u32).to_be_bytes());
        story.mapper.handle_announcement(GATEWAY, &announcement, story.now);
    }
    assert!(story.asked_at().len() <= 3 * 61, "{} in an hour", story.asked_at().len());
}

#[test]
fn what_is_held_is_given_back_at_the_end_within_half_a_second() {
    for pcp in [Manner::Grants, Manner::OldVersion] {
        let mut story = Story::new();
        let router = Router { pcp, ..ROUTER };
        story.run(&router, 10_000);
        story.forget();
        story.mapper.stop(story.now);
        story.run(&router, 1);
        assert!(story.mapper.is_over());
        let [Did::Asked(_, tcp), Did::Asked(_, udp)] = &story.did[..] else {
            panic!("{:?}", story.did)
        };
        for (bytes, protocol, opcode) in [(tcp, 6, 2), (udp, 17, 1)] {
            match pcp {
                Manner::Grants => {
                    assert_eq!((&bytes[4..8], bytes[36]), (&[0; 4][..], protocol));
                    assert_eq!((&bytes[40..42], &bytes[42..44]), (&[0x1a, 0xe1][..], &[0; 2][..]));
                    assert_eq!(bytes[24..36], wish().nonce.0);
                }
                _ => assert_eq!(bytes[..], [0, opcode, 0, 0, 0x1a, 0xe1, 0, 0, 0, 0, 0, 0]),
            }
        }
    }
    // Nobody says yes, or nothing was held, or the question is still in the air.
    let silent = Router { pcp: Manner::Silent, natpmp: Manner::Silent, ..ROUTER };
    let mut story = Story::new();
    story.run(&ROUTER, 10_000);
    story.forget();
    story.mapper.stop(story.now);
    story.run(&silent, 500);
    assert!(story.mapper.is_over());
    assert_eq!(story.asked_at(), [10_000, 10_000, 10_225, 10_225]);

    let mut story = Story::new();
    story.run(&silent, 1_000);
    story.mapper.stop(story.now);
    story.run(&silent, 500);
    assert!(story.mapper.is_over());
    assert_eq!(story.asked_at(), [0, 1_000, 1_225]);

    let mut mapper = Mapper::new(wish(), START);
    mapper.stop(START);
    assert_eq!(mapper.poll_output(START), Output::Wait(Deadline::NONE));
    assert!(mapper.is_over());
}

#[test]
fn only_the_router_is_heard() {
    let mut mapper = Mapper::new(wish(), START);
    let Output::Send(asked) = mapper.poll_output(START) else { panic!("nothing asked") };
    let answer = ROUTER.answer(asked, START).unwrap();
    mapper.handle_datagram("192.168.1.66".parse().unwrap(), &answer, START);
    mapper.handle_datagram("192.168.1.66".parse().unwrap(), &[0, 0x81, 0, 1, 0, 0, 0, 0], START);
    let Output::Wait(deadline) = mapper.poll_output(START) else { panic!("it listened") };
    assert!(deadline.at > START);
    mapper.handle_datagram(GATEWAY, &answer, START);
    assert!(matches!(mapper.poll_output(START), Output::Send(_)), "now for UDP");
}

#[test]
fn a_pinhole_is_asked_for_in_pcp_only() {
    let client: IpAddr = "2001:db8::5".parse().unwrap();
    let gateway: IpAddr = "fe80::1".parse().unwrap();
    let wish = Wish { gateway, client, ..wish() };
    let mut mapper = Mapper::new(wish, START);
    let Output::Send(asked) = mapper.poll_output(START) else { panic!("nothing asked") };
    assert_eq!(asked[8..24], "2001:db8::5".parse::<core::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(asked[44..60], [0; 16]);
    mapper.handle_datagram(gateway, &[0, 0x81, 0, 1, 0, 0, 0, 0], START);
    let failure = Failure { refusal: Some(Refusal::Version), hold_off_ms: 0 };
    assert_eq!(mapper.poll_output(START), Output::Failed(failure));
}

#[test]
fn bytes_that_are_none_of_it_never_panic_and_never_loop() {
    let mut state = 7u64;
    let mut chance = move |below: usize| {
        // Knuth's generator; its high bits are the better ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut heard = 0;
    for round in 0..MUTATED {
        let pcp = [Manner::Grants, Manner::OldVersion, Manner::Says(2)][round % 3];
        let router =
            Router { pcp, epoch_s: 1 << chance(32), lifetime_s: chance(20) as u32, ..ROUTER };
        let mut mapper = Mapper::new(wish(), START);
        let mut now = START;
        for _ in 0..6 {
            let (asked, is_failed) = match mapper.poll_output(now) {
                Output::Send(bytes) => (bytes.to_vec(), false),
                Output::Failed(_) => (Vec::new(), true),
                Output::Mapped(_) => continue,
                Output::Wait(deadline) if deadline.at == Instant::NEVER => break,
                Output::Wait(deadline) => {
                    now = deadline.at;
                    continue;
                }
            };
            if is_failed {
                break;
            }
            let Some(mut answer) = router.answer(&asked, now) else { continue };
            for _ in 0..chance(4) {
                let at = chance(answer.len());
                match chance(8) {
                    0 => answer.truncate(at + 1),
                    1 => answer.resize(answer.len() + 4 * chance(8), chance(256) as u8),
                    _ => answer[at] = chance(256) as u8,
                }
            }
            mapper.handle_datagram(GATEWAY, &answer, now);
            mapper.handle_announcement(GATEWAY, &answer, now);
            heard += 1;
        }
        mapper.stop(now);
        for _ in 0..8 {
            if let Output::Wait(deadline) = mapper.poll_output(now) {
                now = deadline.at;
            }
        }
        assert!(mapper.is_over(), "round {round}");
    }
    assert!(heard >= MUTATED, "{heard} were heard");
}

/// More than any of these stories takes.
const STEPS_MAX: usize = 10_000;

const MUTATED: usize = 100_000;
