//! One port asked for in PCP or else in NAT-PMP, and kept.
//!
//! A [`Mapper`] asks one router for one port, TCP and UDP, and keeps it for as long as it is
//! polled. It is handed datagrams and `now`, and answers with what to send and when to look again.
//!
//! ```text
//!  PCP ------- silence, or NAT-PMP spoken -----> NAT-PMP ---- silence -----> Failed
//!   | granted                                     | granted           (each: no -> Failed)
//!   +-----------------> Mapped <------------------+
//!                      | half the lifetime is over, or the router has restarted: asked again
//!                      | no answer: again at half of what is left, down to 30 s, then Failed
//!                      + stop: given back, twice if nobody says yes, 450 ms at most
//! ```
//!
//! A router is a stranger. What it grants for ever is asked for again every hour, what it grants
//! for no time is a no, and one whose clock jumps is believed to have restarted once a minute at
//! most. It forwards nothing but the port handed in. TCP decides: a router that refuses UDP alone
//! is asked for it again when TCP is renewed.
//!
//! Over IPv6 there is nothing to translate; the same question (PCP only) opens the router's
//! firewall for the one address it is asked from.

use super::pcp::{self, Nonce};
use super::{Answer, Failure, Granted, Mapping, Protocol, Refusal, Transport, natpmp};
use crate::engine::units::{Deadline, Instant};
use core::net::IpAddr;

/// What a mapper wants done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'o> {
    /// This datagram goes to the router's port [`ROUTER_PORT`](super::ROUTER_PORT).
    Send(&'o [u8]),
    /// This is what the router forwards from now on.
    Mapped(Mapping),
    /// It forwards nothing, and this mapper is over.
    Failed(Failure),
    /// Nothing until a datagram comes or the moment has.
    Wait(Deadline),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The router.
    pub gateway: IpAddr,
    /// Our own address, as the router sees it.
    pub client: IpAddr,
    /// The port we listen on, and would like outside.
    pub port: u16,
    /// What makes it ours; the same after a restart, or PCP takes us for somebody else until what
    /// was granted before has run out.
    pub nonce: Nonce,
}

/// See the module.
pub struct Mapper {
    wish: Wish,
    protocol: Protocol,
    /// The router has said yes in this protocol.
    is_spoken: bool,
    stage: Stage,
    asked: Option<Asked>,
    /// When each question is due, by its index.
    due: [Instant; QUESTIONS],
    /// What is held, by its transport's index.
    leases: [Option<Lease>; 2],
    external_ip: Option<IpAddr>,
    /// The router's time, and when it said it.
    epoch: Option<(u32, Instant)>,
    /// Before this another restart is not believed.
    restart_after: Instant,
    said: Option<Mapping>,
    failure: Option<Failure>,
    datagram: heapless::Vec<u8, { pcp::MAP_BYTES }>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Keeping,
    /// Since when, and how often each transport's port has been given back.
    GivingBack(Instant, [u8; 2]),
    Over,
}

/// The question in the air.
#[derive(Clone, Copy)]
struct Asked {
    question: Question,
    tries: u32,
    again: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Port(Transport),
    /// Only NAT-PMP needs it: PCP says the address with the port.
    Address,
}

#[derive(Clone, Copy)]
struct Lease {
    external_port: u16,
    ends: Instant,
}

impl Mapper {
    /// A mapper that asks at once.
    pub fn new(wish: Wish, now: Instant) -> Mapper {
        let mut mapper = Mapper {
            wish,
            protocol: Protocol::Pcp,
            is_spoken: false,
            stage: Stage::Keeping,
            asked: None,
            due: [Instant::NEVER; QUESTIONS],
            leases: [None; 2],
            external_ip: None,
            epoch: None,
            restart_after: now,
            said: None,
            failure: None,
            datagram: heapless::Vec::new(),
        };
        mapper.ask_everything(now);
        mapper
    }

    /// What to do now.
    ///
    /// # Work
    /// Writes one datagram at most; a silence takes a turn, and there are no more than there are
    /// questions.
    pub fn poll_output(&mut self, now: Instant) -> Output<'_> {
        loop {
            if let Some(failure) = self.failure.take() {
                self.stage = Stage::Over;
                return Output::Failed(failure);
            }
            match self.stage {
                Stage::Keeping => {}
                Stage::GivingBack(..) => return self.poll_give_back(now),
                Stage::Over => return Output::Wait(Deadline::NONE),
            }
            match self.asked {
                Some(asked) if now < asked.again => {
                    return Output::Wait(Deadline { at: asked.again, why: "the router's answer" });
                }
                Some(asked) if asked.tries >= self.tries_max() => {
                    self.handle_silence(asked.question, now);
                }
                Some(asked) => return self.ask(asked, now),
                None => match self.next_due(now) {
                    Some(question) => {
                        self.asked = Some(Asked { question, tries: 0, again: now });
                    }
                    None => return self.poll_news(),
                },
            }
        }
    }

    /// Takes a datagram. Whoever is not the router is not heard.
    pub fn handle_datagram(&mut self, from: IpAddr, bytes: &[u8], now: Instant) {
        if from != self.wish.gateway {
            return;
        }
        if let Stage::GivingBack(..) = self.stage {
            for transport in Transport::BOTH {
                if self.parse(Question::Port(transport), 0, bytes).is_some() {
                    self.leases[transport.index()] = None;
                }
            }
            return;
        }
        let Some(Asked { question, .. }) = self.asked else { return };
        let Some(answer) = self.parse(question, LIFETIME_S, bytes) else {
            let is_older = self.protocol == Protocol::Pcp && natpmp::epoch_s(bytes).is_some();
            if is_older && !self.is_spoken {
                self.fall_back(Some(Refusal::Version), now);
            }
            return;
        };
        self.asked = None;
        match answer.outcome {
            Err(refusal) => self.handle_refusal(question, refusal, answer.hold_off_s, now),
            Ok(granted) => {
                self.is_spoken = true;
                self.note_epoch(answer.epoch_s, now);
                self.accept(question, granted, now);
            }
        }
    }

    /// Takes what the router tells everybody (to port [`ANNOUNCE_PORT`](super::ANNOUNCE_PORT)) when it has restarted.
    /// Only its time is believed.
    pub fn handle_announcement(&mut self, from: IpAddr, bytes: &[u8], now: Instant) {
        let is_asking = self.stage != Stage::Keeping || self.asked.is_some();
        if from != self.wish.gateway || is_asking {
            return;
        }
        let epoch_s = match self.protocol {
            Protocol::Pcp => pcp::epoch_s(bytes),
            Protocol::NatPmp => natpmp::epoch_s(bytes),
        };
        if let Some(epoch_s) = epoch_s {
            self.note_epoch(epoch_s, now);
        }
    }

    /// The last datagram could not be delivered: nobody listens there.
    pub fn handle_unreachable(&mut self, now: Instant) {
        match self.asked {
            // Both protocols have one port.
            Some(_) if !self.is_spoken => self.fail(None, 0),
            Some(asked) => self.handle_silence(asked.question, now),
            None => {}
        }
    }

    /// Gives back what is held; [`is_over`](Self::is_over) in 450 ms at the latest.
    pub fn stop(&mut self, now: Instant) {
        if self.stage != Stage::Keeping {
            return;
        }
        // What has been asked for may be ours by now.
        if let Some(Asked { question: Question::Port(transport), tries: 1.., .. }) = self.asked {
            let lease = Lease { external_port: 0, ends: Instant::NEVER };
            self.leases[transport.index()].get_or_insert(lease);
        }
        self.asked = None;
        self.stage = Stage::GivingBack(now, [0; 2]);
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.failure.is_none()
    }

    fn ask_everything(&mut self, at: Instant) {
        self.due = [at; QUESTIONS];
        if self.protocol == Protocol::Pcp {
            self.due[Question::Address.index()] = Instant::NEVER;
        }
    }

    fn next_due(&self, now: Instant) -> Option<Question> {
        let order = [Question::Address, Question::Port(Transport::Tcp)];
        let mut order = order.into_iter().chain([Question::Port(Transport::Udp)]);
        order.find(|question| self.due[question.index()] <= now)
    }

    /// Nothing is to be asked: says what is new, or when something is.
    fn poll_news(&mut self) -> Output<'_> {
        let mapping = self.mapping();
        if let Some(mapping) = mapping.filter(|_| mapping != self.said) {
            self.said = Some(mapping);
            return Output::Mapped(mapping);
        }
        let at = self.due.iter().copied().min().unwrap_or(Instant::NEVER);
        Output::Wait(Deadline { at, why: "the forwarded port" })
    }

    fn mapping(&self) -> Option<Mapping> {
        let port = |transport: Transport| Some(self.leases[transport.index()]?.external_port);
        Some(Mapping {
            protocol: self.protocol,
            external_ip: self.external_ip,
            tcp_port: port(Transport::Tcp)?,
            udp_port: port(Transport::Udp),
        })
    }

    fn ask(&mut self, asked: Asked, now: Instant) -> Output<'_> {
        let again = now.after(self.pause_ms(asked.tries));
        self.asked = Some(Asked { tries: asked.tries + 1, again, ..asked });
        self.write(asked.question, LIFETIME_S)
    }

    fn write(&mut self, question: Question, lifetime_s: u32) -> Output<'_> {
        self.datagram.clear();
        let fits = match (question, self.protocol) {
            (Question::Address, _) => self.datagram.extend_from_slice(&natpmp::ADDRESS_QUESTION),
            (Question::Port(transport), Protocol::Pcp) => {
                let bytes = pcp::write(&self.pcp_question(transport, lifetime_s));
                self.datagram.extend_from_slice(&bytes)
            }
            (Question::Port(transport), Protocol::NatPmp) => {
                let bytes = natpmp::write(&self.natpmp_question(transport, lifetime_s));
                self.datagram.extend_from_slice(&bytes)
            }
        };
        fits.expect("the longest question has room");
        Output::Send(&self.datagram)
    }

    fn parse(&self, question: Question, lifetime_s: u32, bytes: &[u8]) -> Option<Answer> {
        match (question, self.protocol) {
            (Question::Address, _) => natpmp::parse_address(bytes),
            (Question::Port(transport), Protocol::Pcp) => {
                pcp::parse(bytes, &self.pcp_question(transport, lifetime_s))
            }
            (Question::Port(transport), Protocol::NatPmp) => {
                natpmp::parse_port(bytes, &self.natpmp_question(transport, lifetime_s))
            }
        }
    }

    fn pcp_question(&self, transport: Transport, lifetime_s: u32) -> pcp::Question {
        let Wish { client, nonce, port, .. } = self.wish;
        let external_port = self.wanted_port(transport, lifetime_s);
        let external_ip = self.external_ip.filter(|_| lifetime_s > 0);
        pcp::Question { client, nonce, transport, port, external_port, external_ip, lifetime_s }
    }

    fn natpmp_question(&self, transport: Transport, lifetime_s: u32) -> natpmp::Question {
        let external_port = self.wanted_port(transport, lifetime_s);
        natpmp::Question { transport, port: self.wish.port, external_port, lifetime_s }
    }

    /// What we have outside, else what TCP has there, else our own; nothing when it is given back.
    fn wanted_port(&self, transport: Transport, lifetime_s: u32) -> u16 {
        let [tcp, _] = &self.leases;
        let lease = self.leases[transport.index()].as_ref().or(tcp.as_ref());
        match lifetime_s {
            0 => 0,
            _ => lease.map_or(self.wish.port, |lease| lease.external_port),
        }
    }

    fn accept(&mut self, question: Question, granted: Granted, now: Instant) {
        match (question, granted) {
            (Question::Address, Granted::Address(ip)) => {
                self.external_ip = ip;
                let pause_ms = if ip.is_some() { RENEW_MS_MAX } else { NO_ADDRESS_MS };
                self.due[question.index()] = now.after(pause_ms);
            }
            (
                Question::Port(transport),
                Granted::Port { external_port: external_port @ 1.., lifetime_s: 1.., .. },
            ) => self.accept_port(transport, external_port, granted, now),
            _ => self.handle_refusal(question, Refusal::Nothing, 0, now),
        }
    }

    fn accept_port(&mut self, transport: Transport, port: u16, granted: Granted, now: Instant) {
        let Granted::Port { lifetime_s, external_ip, .. } = granted else { return };
        let lifetime_ms = u64::from(lifetime_s.min(LIFETIME_S)) * 1_000;
        let lease = Lease { external_port: port, ends: now.after(lifetime_ms) };
        self.leases[transport.index()] = Some(lease);
        let mut renew_at = now.after((lifetime_ms / 2).max(RENEW_MS_MIN));
        match transport {
            Transport::Tcp => {
                self.external_ip = external_ip.or(self.external_ip);
                let address_due = &mut self.due[Question::Address.index()];
                if self.protocol == Protocol::NatPmp {
                    *address_due = renew_at.min(*address_due);
                }
            }
            // One waking for both.
            Transport::Udp => renew_at = renew_at.min(self.due[Transport::Tcp.index()]),
        }
        self.due[transport.index()] = renew_at;
    }

    fn handle_refusal(
        &mut self,
        question: Question,
        refusal: Refusal,
        hold_off_s: u32,
        now: Instant,
    ) {
        match question {
            _ if !self.is_spoken && matches!(refusal, Refusal::Version | Refusal::NotOffered) => {
                self.fall_back(Some(refusal), now);
            }
            Question::Port(Transport::Udp) => self.lose_datagrams(now),
            Question::Address if self.leases[Transport::Tcp.index()].is_some() => {
                self.due[question.index()] = now.after(RENEW_MS_MAX);
            }
            Question::Address | Question::Port(Transport::Tcp) => {
                self.fail(Some(refusal), hold_off_s);
            }
        }
    }

    /// A question has been asked often enough.
    fn handle_silence(&mut self, question: Question, now: Instant) {
        self.asked = None;
        if !self.is_spoken {
            return self.fall_back(None, now);
        }
        let lease = match question {
            Question::Port(transport) => self.leases[transport.index()],
            Question::Address => self.leases[Transport::Tcp.index()],
        };
        match (question, lease) {
            (_, Some(lease)) if now < lease.ends => {
                let pause_ms = (lease.ends.since(now) / 2).max(RENEW_MS_MIN);
                self.due[question.index()] = now.after(pause_ms);
            }
            (Question::Port(Transport::Udp), _) => self.lose_datagrams(now),
            _ => self.fail(None, 0),
        }
    }

    /// Only connections are forwarded: that may change when they are asked for again.
    fn lose_datagrams(&mut self, now: Instant) {
        self.leases[Transport::Udp.index()] = None;
        let renew_at = self.due[Transport::Tcp.index()].max(now.after(RENEW_MS_MIN));
        self.due[Transport::Udp.index()] = renew_at;
    }

    /// From PCP to NAT-PMP, which knows IPv4 only; from there nowhere.
    fn fall_back(&mut self, refusal: Option<Refusal>, now: Instant) {
        if self.protocol == Protocol::NatPmp || self.wish.client.is_ipv6() {
            return self.fail(refusal, 0);
        }
        self.protocol = Protocol::NatPmp;
        self.asked = None;
        self.ask_everything(now);
    }

    fn fail(&mut self, refusal: Option<Refusal>, hold_off_s: u32) {
        self.asked = None;
        let hold_off_ms = u64::from(hold_off_s) * 1_000;
        self.failure = Some(Failure { refusal, hold_off_ms });
    }

    /// Sees from the router's time whether it has forgotten what it granted.
    fn note_epoch(&mut self, epoch_s: u32, now: Instant) {
        let remembers = self.epoch.is_none_or(|(before_s, at)| match self.protocol {
            Protocol::Pcp => pcp::remembers(before_s, epoch_s, now.since(at)),
            Protocol::NatPmp => natpmp::remembers(before_s, epoch_s, now.since(at)),
        });
        self.epoch = Some((epoch_s, now));
        if !remembers && now >= self.restart_after {
            self.restart_after = now.after(RESTART_MS_MIN);
            // Not all who have heard it at the same instant (RFC 6887, section 8.5: up to 5 s).
            let pause_ms = RESTART_PAUSE_MS * u64::from(self.wish.nonce.0[0]) / 255;
            self.ask_everything(now.after(pause_ms));
        }
    }

    fn poll_give_back(&mut self, now: Instant) -> Output<'_> {
        let Stage::GivingBack(since, mut told) = self.stage else {
            return Output::Wait(Deadline::NONE);
        };
        let ask_at = |told: u8| since.after(u64::from(told) * GIVE_BACK_AGAIN_MS);
        let mut next = Instant::NEVER;
        for transport in Transport::BOTH {
            let at = transport.index();
            if self.leases[at].is_none() {
                continue;
            }
            if told[at] < GIVE_BACK_TRIES && ask_at(told[at]) <= now {
                told[at] += 1;
                self.stage = Stage::GivingBack(since, told);
                return self.write(Question::Port(transport), 0);
            }
            next = next.min(ask_at(told[at]));
        }
        if next <= now || next == Instant::NEVER {
            self.stage = Stage::Over;
            return Output::Wait(Deadline::NONE);
        }
        Output::Wait(Deadline { at: next, why: "giving the port back" })
    }

    const fn tries_max(&self) -> u32 {
        match self.protocol {
            Protocol::Pcp => PCP_TRIES,
            Protocol::NatPmp => NATPMP_TRIES,
        }
    }

    /// How long an answer may take to the question asked so often before.
    fn pause_ms(&self, tries: u32) -> u64 {
        match self.protocol {
            Protocol::NatPmp => NATPMP_RETRY_MS << tries,
            // A tenth more or less, by chance (RFC 6887, section 8.1.1).
            Protocol::Pcp => {
                let chance = u64::from(self.wish.nonce.0[1 + tries as usize % 11]);
                (PCP_RETRY_MS << tries) * (900 + 200 * chance / 255) / 1_000
            }
        }
    }
}

impl Question {
    const fn index(self) -> usize {
        match self {
            Question::Port(transport) => transport.index(),
            Question::Address => 2,
        }
    }
}

const QUESTIONS: usize = 3;

/// What is asked for (RFC 6886, section 3.3, recommends it).
const LIFETIME_S: u32 = 7_200;

/// Nothing is asked for again sooner, whatever was granted.
const RENEW_MS_MIN: u64 = 30_000;

/// Half of what is asked for.
const RENEW_MS_MAX: u64 = LIFETIME_S as u64 * 500;

/// A router without an address of its own is asked for it again so soon.
const NO_ADDRESS_MS: u64 = 300_000;

/// The first answer in NAT-PMP may take so long, each after it twice that (RFC 6886, section 3.1).
const NATPMP_RETRY_MS: u64 = 250;

/// The RFC asks nine times, over two minutes. On a LAN the sixth answer does not come either, and
/// UPnP waits for its turn: 7.75 s.
const NATPMP_TRIES: u32 = 5;

/// The same in PCP (RFC 6887, section 8.1.1).
const PCP_RETRY_MS: u64 = 3_000;

/// The RFC would go on for ever: 9 s.
const PCP_TRIES: u32 = 2;

/// How often a restart of the router is believed.
const RESTART_MS_MIN: u64 = 60_000;

/// After a restart it is asked within this.
const RESTART_PAUSE_MS: u64 = 5_000;

/// A port is given back so often at most.
const GIVE_BACK_TRIES: u8 = 2;

/// What an answer to that may take.
const GIVE_BACK_AGAIN_MS: u64 = 225;

#[cfg(test)]
mod tests;
