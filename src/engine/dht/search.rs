//! A search: from node to node towards a name, and what is done when the closest are found.
//!
//! Candidates stand in the order of their distance. The nearest that has not been asked is asked
//! next, [`ALPHA`] at a time; each answer names nodes nearer still. The search is through when the
//! eight nearest have answered, or nobody is left to ask. Then those are told that we are a peer
//! too, with the token each gave, if that is wanted.
//!
//! ```text
//! distance  0 ------------------------------------------------------------> far
//!           told  told  silent  told ... (8 told)   answered   asked   new
//! ```
//!
//! A node that takes longer than a second no longer counts as one of the three, so that one that
//! is away costs a second and not four. A node whose name does not suit its address (BEP 42) is
//! asked, for it may know peers, but does not count towards the eight, and holds half of the
//! places at most: nobody ends or fills a search with names made up for it. Since others search
//! without that rule, the eight nearest of any name are told as well.
//!
//! Who names nodes that do not answer is soon believed no more: once four of them were silent, the
//! rest of what it named is asked only if somebody else names it too.
//!
//! Every search ends: after eighty questions or a minute, whatever its nodes do.

use super::endpoint::Endpoint;
use super::id::NodeId;
use crate::engine::units::Instant;

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    /// Its number, for whoever started it.
    pub id: SearchId,
    /// What is looked for.
    pub target: NodeId,
    /// What for.
    pub goal: Goal,
    /// Peers that were named to us; the same one may have come from several nodes.
    pub found: u32,
    /// Nodes that took note of us.
    pub announced_to: u8,
    candidates: heapless::Vec<Candidate, CANDIDATES_MAX>,
    begun: Instant,
    asked: u16,
    announcing: bool,
    /// How many of the nodes that each namer named were silent.
    silent_of: [u8; NAMERS],
}

/// The number of a search; none comes twice while we run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchId(pub u32);

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The nodes next to us: to be known to them and to know them.
    Neighbours,
    /// The peers of a torrent, and with a port to be one of them.
    Peers {
        /// Where peers reach us.
        announce: Option<u16>,
    },
}

/// What a search wants done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this node.
    Ask(Endpoint),
    /// Tell this node that we are a peer; [`Search::token`] has its token.
    Tell(Endpoint),
    /// Nothing before an answer or that moment.
    Wait(Instant),
    /// It is over.
    Over,
}

#[derive(Clone, Debug)]
struct Candidate {
    id: NodeId,
    endpoint: Endpoint,
    /// Its name suits its address.
    compliant: bool,
    /// Who named it, as a place in `silent_of`; the first place is our own table's.
    namer: u8,
    state: State,
    token: Token,
}

/// What a node wants to see again when we announce; empty when it wants nothing of us.
type Token = heapless::Vec<u8, TOKEN_BYTES_MAX, u8>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked(Instant),
    Answered,
    /// Chosen to be told.
    Chosen,
    Told,
    /// The first word was not answered: it is told again.
    ChosenAgain,
    ToldAgain,
    /// It has answered all we ask of it, or none of it.
    Done,
    Silent,
}

impl Search {
    /// A search that knows nobody yet.
    pub fn new(id: SearchId, target: NodeId, goal: Goal, now: Instant) -> Search {
        Search {
            id,
            target,
            goal,
            found: 0,
            announced_to: 0,
            candidates: heapless::Vec::new(),
            begun: now,
            asked: 0,
            announcing: false,
            silent_of: [0; NAMERS],
        }
    }

    /// Takes note of a node that was in our table or was named by `namer`.
    ///
    /// # When full
    /// A silent one gives way, then the farthest; of those whose name does not suit their address
    /// the farthest when they hold more than half.
    pub fn note(&mut self, id: NodeId, endpoint: Endpoint, namer: Option<Endpoint>) {
        let namer = namer.map_or(0, |namer| 1 + (namer.crowd() % (NAMERS as u64 - 1)) as u8);
        let same = |known: &Candidate| known.id == id || known.endpoint.crowd() == endpoint.crowd();
        if let Some(known) = self.candidates.iter_mut().find(|known| same(known)) {
            if known.id == id
                && known.endpoint == endpoint
                && self.silent_of[usize::from(known.namer)] > 0
            {
                known.namer = namer;
            }
            return;
        }
        if self.announcing {
            return;
        }
        let compliant = endpoint.may_bear(&id);
        let state = State::New;
        let newcomer = Candidate { id, endpoint, compliant, namer, state, token: Token::new() };
        let distance = id.distance(&self.target);
        if !self.make_room(&newcomer, &distance) {
            return;
        }
        let at = self.candidates.partition_point(|c| c.id.distance(&self.target) < distance);
        // There is room: it was made.
        let _ = self.candidates.insert(at, newcomer);
    }

    fn make_room(&mut self, newcomer: &Candidate, distance: &[u8; 20]) -> bool {
        let strangers = self.candidates.iter().filter(|known| !known.compliant).count();
        let crowded = !newcomer.compliant && strangers >= STRANGERS_MAX;
        if !self.candidates.is_full() && !crowded {
            return true;
        }
        let is_silent = |known: &Candidate| known.state == State::Silent;
        let may_go = |known: &Candidate| !crowded || !known.compliant;
        let silent = self.candidates.iter().rposition(|known| is_silent(known) && may_go(known));
        let farther = |known: &Candidate| known.id.distance(&self.target) > *distance;
        let place = silent.or_else(|| {
            let last = self.candidates.iter().rposition(may_go)?;
            farther(&self.candidates[last]).then_some(last)
        });
        place.map(|place| self.candidates.remove(place)).is_some()
    }

    /// What to do now. An [`Step::Ask`] or [`Step::Tell`] counts as done.
    pub fn step(&mut self, now: Instant) -> Step {
        if now.since(self.begun) >= SEARCH_MS_MAX {
            return Step::Over;
        }
        if !self.announcing {
            match self.look_on(now) {
                Step::Over => self.choose(),
                step => return step,
            }
        }
        self.announce()
    }

    fn look_on(&mut self, now: Instant) -> Step {
        let quick =
            |known: &Candidate| matches!(known.state, State::Asked(at) if now.since(at) < SLOW_MS);
        let under_way = self.candidates.iter().filter(|known| quick(known)).count();
        let slow_at = self.candidates.iter().filter(|known| quick(known));
        let slow_at = slow_at.filter_map(|known| known.state.sent_at()).min();
        let (silent_of, mut answered, mut waiting) = (self.silent_of, 0, false);
        for known in &mut self.candidates {
            match known.state {
                State::New if self.asked >= ASKED_MAX => {}
                State::New if silent_of[usize::from(known.namer)] >= SILENT_OF_MAX => {}
                State::New if under_way >= ALPHA => {
                    return Step::Wait(slow_at.map_or(Instant::NEVER, |at| at.after(SLOW_MS)));
                }
                State::New => {
                    known.state = State::Asked(now);
                    self.asked += 1;
                    return Step::Ask(known.endpoint);
                }
                State::Asked(_) => waiting = true,
                State::Answered => answered += u8::from(known.compliant),
                _ => {}
            }
            if answered >= CLOSEST {
                break;
            }
        }
        if waiting { Step::Wait(Instant::NEVER) } else { Step::Over }
    }

    /// The looking is over: those who answered and are nearest are to be told.
    fn choose(&mut self) {
        self.announcing = true;
        let (mut any, mut compliant) = (0, 0);
        for known in &mut self.candidates {
            if known.state != State::Answered || known.token.is_empty() {
                known.state = State::Done;
            } else if any < CLOSEST || known.compliant && compliant < CLOSEST {
                known.state = State::Chosen;
                any += 1;
                compliant += u8::from(known.compliant);
            }
        }
        if !matches!(self.goal, Goal::Peers { announce: Some(_) }) {
            self.candidates.clear();
        }
    }

    fn announce(&mut self) -> Step {
        for known in &mut self.candidates {
            known.state = match known.state {
                State::Chosen => State::Told,
                State::ChosenAgain => State::ToldAgain,
                _ => continue,
            };
            return Step::Tell(known.endpoint);
        }
        let is_told = |known: &Candidate| matches!(known.state, State::Told | State::ToldAgain);
        let waiting = self.candidates.iter().any(is_told);
        if waiting { Step::Wait(Instant::NEVER) } else { Step::Over }
    }

    /// A node answered the question, as `id`; one that now has another name has answered for nobody.
    pub fn handle_answer(&mut self, id: NodeId, endpoint: Endpoint, token: Option<&[u8]>) {
        let Some(known) = self.candidate(endpoint) else { return };
        match known.state {
            State::Asked(_) if known.id == id => {
                known.state = State::Answered;
                // A part of a token opens nothing.
                known.token =
                    token.and_then(|token| Token::from_slice(token).ok()).unwrap_or_default();
            }
            State::Told | State::ToldAgain => {
                known.state = State::Done;
                self.announced_to += 1;
            }
            State::Asked(_) => self.handle_silence(endpoint),
            _ => {}
        }
    }

    /// A node did not answer, or refused.
    pub fn handle_silence(&mut self, endpoint: Endpoint) {
        let Some(known) = self.candidate(endpoint) else { return };
        let namer = usize::from(known.namer);
        known.state = match known.state {
            State::Asked(_) | State::ToldAgain => State::Silent,
            State::Told => State::ChosenAgain,
            other => other,
        };
        // What our own table holds has answered once: it is not held against it.
        if known.state == State::Silent && namer > 0 {
            self.silent_of[namer] = self.silent_of[namer].saturating_add(1);
        }
    }

    /// What the node at that address wants to see again.
    pub fn token(&self, endpoint: Endpoint) -> &[u8] {
        let known = self.candidates.iter().find(|known| known.endpoint == endpoint);
        known.map_or(&[], |known| &known.token)
    }

    fn candidate(&mut self, endpoint: Endpoint) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|known| known.endpoint == endpoint)
    }
}

impl State {
    fn sent_at(self) -> Option<Instant> {
        match self {
            State::Asked(at) => Some(at),
            _ => None,
        }
    }
}

/// Nodes asked at a time (Kademlia, section 2.3).
pub const ALPHA: usize = 3;

/// A node that takes longer does not hold up others.
const SLOW_MS: u64 = 1_000;

/// Questions of one search: three or four rounds find the closest nodes of ten millions.
const ASKED_MAX: u16 = 80;

/// The longest search.
const SEARCH_MS_MAX: u64 = 60_000;

/// Nodes kept in view.
const CANDIDATES_MAX: usize = 32;

/// Of these, nodes whose name does not suit their address.
const STRANGERS_MAX: usize = CANDIDATES_MAX / 2;

/// Namers told apart, and silent nodes of one after which it is believed no more.
const NAMERS: usize = 64;
const SILENT_OF_MAX: u8 = 4;

/// Nodes that must have answered, and that are told (BEP 5: K).
const CLOSEST: u8 = 8;

/// A token of others at most; 4, 8 and 20 bytes are seen.
pub const TOKEN_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    const START: Instant = Instant::from_millis(1_000);
    const TARGET: NodeId = NodeId([0; 20]);
    const GOAL: Goal = Goal::Peers { announce: Some(1) };

    fn search() -> Search {
        Search::new(SearchId(1), TARGET, GOAL, START)
    }

    /// A node so far away that its name suits its address, or does not.
    fn node(bits: u32, last: u8, compliant: bool) -> (NodeId, Endpoint) {
        let ip: IpAddr = [203, last, bits as u8, last].into();
        let mut id = TARGET.sharing(bits, [last; 20]);
        if compliant {
            id = NodeId::for_address(ip, [last; 20]);
        }
        (id, Endpoint::of((ip, 6881).into()))
    }

    /// Lets every node answer at once, with a token and nobody nearer.
    fn run(search: &mut Search) -> (heapless::Vec<Endpoint, 64>, heapless::Vec<Endpoint, 64>) {
        let (mut asked, mut told) = (heapless::Vec::new(), heapless::Vec::new());
        loop {
            match search.step(START) {
                Step::Ask(endpoint) => {
                    asked.push(endpoint).unwrap();
                    let id = search.candidate(endpoint).unwrap().id;
                    search.handle_answer(id, endpoint, Some(b"open"));
                }
                Step::Tell(endpoint) => {
                    assert_eq!(search.token(endpoint), b"open");
                    told.push(endpoint).unwrap();
                    search.handle_answer(TARGET, endpoint, None);
                }
                Step::Wait(at) => panic!("waits until {at:?}"),
                Step::Over => return (asked, told),
            }
        }
    }

    #[test]
    fn the_eight_nearest_are_asked_and_told() {
        let mut search = search();
        (1..30).for_each(|last| {
            let (id, endpoint) = node(0, last, true);
            search.note(id, endpoint, None);
        });
        let nearest: heapless::Vec<Endpoint, 32> =
            search.candidates.iter().map(|known| known.endpoint).collect();
        let (asked, told) = run(&mut search);
        assert_eq!((&asked[..], &told[..]), (&nearest[..8], &nearest[..8]));
        assert_eq!(search.announced_to, 8);
    }

    #[test]
    fn names_that_suit_no_address_neither_end_a_search_nor_fill_it() {
        let mut search = search();
        for last in 1..=24 {
            let (id, endpoint) = node(0, last, true);
            search.note(id, endpoint, None);
        }
        for last in 1..=60 {
            let (id, endpoint) = node(100, last, false);
            search.note(id, endpoint, None);
        }
        let strangers = search.candidates.iter().filter(|known| !known.compliant).count();
        assert_eq!((strangers, search.candidates.len()), (STRANGERS_MAX, CANDIDATES_MAX));
        let (asked, told) = run(&mut search);
        assert_eq!(asked.len(), STRANGERS_MAX + 8);
        assert_eq!(told.len(), 16, "the nearest of any name, and the nearest that suit");
    }

    #[test]
    fn three_are_asked_at_a_time_and_a_slow_one_makes_room_after_a_second() {
        let mut search = search();
        for last in 1..10 {
            let (id, endpoint) = node(0, last, true);
            search.note(id, endpoint, None);
        }
        for _ in 0..ALPHA {
            assert!(matches!(search.step(START), Step::Ask(_)));
        }
        assert_eq!(search.step(START), Step::Wait(START.after(SLOW_MS)));
        assert!(matches!(search.step(START.after(SLOW_MS)), Step::Ask(_)));
    }

    #[test]
    fn a_search_ends_whatever_its_nodes_do() {
        let mut search = search();
        let (id, endpoint) = node(0, 1, true);
        search.note(id, endpoint, None);
        assert!(matches!(search.step(START), Step::Ask(_)));
        assert_eq!(search.step(START.after(SEARCH_MS_MAX)), Step::Over);
        // Each node that is asked names one that is nearer still.
        let mut search = self::search();
        search.note(id, endpoint, None);
        let mut asked = 0;
        while let Step::Ask(endpoint) = search.step(START) {
            asked += 1;
            let id = search.candidate(endpoint).unwrap().id;
            search.handle_answer(id, endpoint, None);
            let nearer = Endpoint::of(([204, 1, asked, 1], 1).into());
            search.note(TARGET.sharing(asked.into(), [1; 20]), nearer, Some(endpoint));
        }
        assert_eq!(u16::from(asked), ASKED_MAX);
    }

    #[test]
    fn who_names_nodes_that_are_not_there_is_believed_no_more() {
        let mut search = search();
        let (honest, liar) = (node(0, 1, true).1, node(0, 2, true).1);
        for last in 1..=10 {
            let (id, endpoint) = node(100, last, false);
            search.note(id, endpoint, Some(liar));
        }
        for last in 11..=12 {
            let (id, endpoint) = node(50, last, false);
            search.note(id, endpoint, Some(honest));
        }
        let mut asked = 0;
        while let Step::Ask(endpoint) = search.step(START) {
            asked += 1;
            search.handle_silence(endpoint);
            let (id, vouched_for) = node(100, 9, false);
            search.note(id, vouched_for, Some(honest));
        }
        assert_eq!(asked, u32::from(SILENT_OF_MAX) + 3);
    }

    #[test]
    fn who_answers_under_another_name_has_not_answered() {
        let mut search = search();
        let (id, endpoint) = node(0, 1, true);
        search.note(id, endpoint, None);
        assert_eq!(search.step(START), Step::Ask(endpoint));
        search.handle_answer(NodeId([9; 20]), endpoint, Some(b"open"));
        assert_eq!(search.step(START), Step::Over);
    }
}
