//! One connection as the fetcher sees it: what the peer has, what it was asked for, how fast it is.
//!
//! Requests of ours stand in one place, the link's [`Asks`], from the moment they are to be written
//! until the block's first byte comes, the peer rejects them or they are given up. How many there
//! may be follows the peer: one more for each block that comes, so that the number doubles with
//! each round trip, and each second no more than twice what came in that second. So a fast peer far
//! away is kept busy and a slow one holds two seconds of work at most.

use crate::engine::limits::{ASKS_MIN, SNUB_MS};
use crate::engine::swarm::pool::{Pool, Span};
use crate::engine::units::{Instant, TorrentSlot};

/// A request of ours: 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Which piece.
    pub piece: u32,
    /// Which block of it, counted in blocks of 16 KiB.
    pub block: u16,
    /// What is to be said, or has been.
    pub state: AskState,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskState {
    /// It has been written.
    #[default]
    Said,
    /// Somebody else has sent the block: it is to be taken back.
    Over,
}

/// What a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// Nothing, as far as it has said.
    Nothing,
    /// The pieces whose bit is set.
    Some(Span),
    /// Everything.
    All,
    /// The pool has no room for what it has: it is asked for nothing until it has one piece more,
    /// and there is room, or everything.
    Untold,
}

impl Has {
    /// Whether it has `piece`.
    pub fn contains(self, pool: &Pool<'_>, piece: u32) -> bool {
        match self {
            Has::All => true,
            Has::Some(span) => pool.get(span, piece),
            Has::Nothing | Has::Untold => false,
        }
    }
}

/// A connection that may give us something.
#[derive(Clone, Debug)]
pub struct Link {
    /// For which torrent.
    pub torrent: TorrentSlot,
    /// The torrent's place among those being fetched.
    pub fetch: u16,
    /// What the peer has.
    pub has: Has,
    /// How many pieces it has that we lack: it is of interest while there are some.
    pub useful: u32,
    /// It has been told so.
    pub told_interested: bool,
    /// When it is to be told that it no longer is.
    pub bored_at: Instant,
    /// It lets us ask.
    pub unchoked: bool,
    /// Since when.
    pub unchoked_at: Instant,
    /// Requests it keeps (`reqq`, BEP 10).
    pub reqq: u16,
    /// Bytes of metadata it has to give; 0 when it has none.
    pub metadata_bytes: u32,
    /// Where the piece is under way that it works on.
    pub working_on: Option<u16>,
    /// Nothing more of the open pieces is to be had from it.
    pub dry: bool,
    /// It had a part in a piece that failed: until one it sends alone is good, it works alone.
    pub on_parole: bool,
    /// The block it is sending.
    pub receiving: Option<Ask>,
    /// Bytes of it that have come, and how many of them had when the clock was last looked at.
    pub received: [u32; 2],
    /// That block is wanted; else it is read and dropped.
    pub receiving_wanted: bool,
    /// Blocks it may still send although we no longer ask for them.
    pub forgiven: u16,
    /// How many of our verified pieces it has been told of.
    pub told_verified: u32,
    /// No `have` before.
    pub have_after: Instant,
    /// No request before: it has just rejected one, or was late.
    pub ask_after: Instant,
    /// Not before is it looked again whether it can relieve another.
    pub relieve_after: Instant,
    /// When a block last began to come, or when it was first asked after having nothing to send.
    pub block_at: Instant,
    /// When it last sent of a block, or was first asked after having nothing to send.
    pub last_block: Instant,
    /// It had its time and sent nothing.
    pub snubbed: bool,
    /// Something has changed that it has to look at.
    pub nudge: bool,
    /// Requests it may have at a time.
    pub asks_max: u16,
    /// It is being asked until it has so many; then again once half of them are answered.
    pub filling: bool,
    /// Blocks that came in the second under way, and in the one before.
    blocks: [u16; 2],
    second: u64,
    /// Blocks it sends in sixteen seconds, as far as is known; 0 when nothing is.
    pace: u16,
    /// Requests it has.
    asks_count: u16,
}

impl Link {
    /// A link to a peer that has just shaken hands.
    pub fn new(torrent: TorrentSlot, fetch: u16, now: Instant) -> Link {
        Link {
            torrent,
            fetch,
            has: Has::Nothing,
            useful: 0,
            told_interested: false,
            bored_at: Instant::NEVER,
            unchoked: false,
            unchoked_at: now,
            reqq: REQQ_UNTOLD,
            metadata_bytes: 0,
            working_on: None,
            dry: false,
            on_parole: false,
            receiving: None,
            received: [0; 2],
            receiving_wanted: false,
            forgiven: 0,
            told_verified: 0,
            have_after: Instant::default(),
            ask_after: Instant::default(),
            relieve_after: Instant::default(),
            block_at: now,
            last_block: now,
            snubbed: false,
            nudge: false,
            asks_max: ASKS_MIN,
            filling: false,
            blocks: [0; 2],
            second: 0,
            pace: 0,
            asks_count: 0,
        }
    }

    /// What the peer is to be told of our interest now. Interest that is lost while something is
    /// lacking is kept for a while: the next piece is often not far, and whoever says no is choked.
    pub fn change_of_interest(&mut self, over: bool, now: Instant) -> Option<bool> {
        let interesting = self.useful > 0;
        if interesting || !self.told_interested {
            self.bored_at = Instant::NEVER;
            return (interesting && !self.told_interested).then_some(true);
        }
        if self.bored_at == Instant::NEVER {
            self.bored_at = now.after(BORED_MS);
        }
        if !over && now < self.bored_at {
            return None;
        }
        self.bored_at = Instant::NEVER;
        Some(false)
    }

    /// A block begins to come.
    pub fn count_block(&mut self, now: Instant, most: u16) {
        self.roll(now);
        self.blocks[0] = self.blocks[0].saturating_add(1);
        self.expect(now);
        self.snubbed = false;
        self.asks_max = (self.asks_max + 1).min(most);
    }

    /// Blocks of the last whole second.
    pub fn blocks_a_second(&mut self, now: Instant) -> u16 {
        self.roll(now);
        self.blocks[1]
    }

    /// No block that it was asked for has begun to come for long: others get them.
    pub fn is_late(&self, now: Instant) -> bool {
        self.asks_count > 0 && now >= self.block_at.after(SNUB_MS)
    }

    /// It has stopped in the middle of a block: another gets that one too. Of who works alone, and
    /// holds up a piece, a byte now and then is not enough.
    pub fn is_stuck(&self, now: Instant) -> bool {
        let since = if self.on_parole { self.block_at } else { self.last_block };
        self.receiving.is_some() && now >= since.after(SNUB_MS)
    }

    /// It has been asked for something that has not come.
    pub fn is_due_something(&self) -> bool {
        self.asks_count > 0 || self.receiving.is_some()
    }

    /// A block begins to come, or is to from now on.
    pub fn expect(&mut self, now: Instant) {
        (self.block_at, self.last_block) = (now, now);
    }

    /// Looks whether more of a block has come.
    pub fn look(&mut self, now: Instant) {
        if self.received[0] != self.received[1] {
            self.received[1] = self.received[0];
            self.last_block = now;
        }
    }

    /// When the block behind so many others is likely to be here. A peer that is behind its own
    /// pace is expected to stay so for as long again.
    pub fn arrives_in_ms(&self, behind: u16, now: Instant) -> u64 {
        if !self.unchoked || self.snubbed {
            return UNLIKELY_MS;
        }
        let block_ms = 16_000 / u64::from(if self.pace == 0 { PACE_UNKNOWN } else { self.pace });
        let waited_ms = if self.is_due_something() { now.since(self.block_at) } else { 0 };
        let delay_ms = if waited_ms > 2 * block_ms + DELAY_MS { waited_ms } else { 0 };
        delay_ms + (u64::from(behind) + 1) * block_ms
    }

    /// When it will be late, or be known to be stuck.
    pub fn late_at(&self) -> Instant {
        let since = match (self.asks_count, self.receiving) {
            (0, None) => return Instant::NEVER,
            (0, Some(_)) if !self.on_parole => self.last_block,
            // It cannot be later than that of the block under way.
            _ => self.block_at,
        };
        since.after(SNUB_MS)
    }

    /// How many requests it has.
    pub fn asks_count(&self) -> u16 {
        self.asks_count
    }

    fn roll(&mut self, now: Instant) {
        let second = now.as_millis() / 1_000;
        if second == self.second {
            return;
        }
        let busy = self.blocks[0] > 0 || self.asks_count > 0;
        let blocks = self.blocks[0].saturating_mul(16);
        self.pace = match self.pace {
            pace if !busy => pace,
            0 => blocks,
            pace => (pace / 2 + blocks / 2).max(1),
        };
        self.blocks = [0, if second == self.second + 1 { self.blocks[0] } else { 0 }];
        self.second = second;
        let twice = self.blocks[1].saturating_mul(2);
        self.asks_max = self.asks_max.min(twice.max(ASKS_MIN));
    }
}

/// The requests of one link, in the order in which they were made.
pub struct Asks<'a> {
    link: &'a mut Link,
    room: &'a mut [Ask],
}

impl<'a> Asks<'a> {
    /// The requests of `link` in the room that is its own.
    pub fn new(link: &'a mut Link, room: &'a mut [Ask]) -> Asks<'a> {
        Asks { link, room }
    }

    /// All of them.
    pub fn all(&self) -> &[Ask] {
        &self.room[..usize::from(self.link.asks_count)]
    }

    /// One more.
    ///
    /// # When full
    /// `false`. Callers keep below [`Link::asks_max`].
    pub fn push(&mut self, ask: Ask) -> bool {
        let Some(place) = self.room.get_mut(usize::from(self.link.asks_count)) else {
            return false;
        };
        *place = ask;
        self.link.asks_count += 1;
        true
    }

    /// Where a block stands among them.
    pub fn find(&self, piece: u32, block: u16) -> Option<usize> {
        self.all().iter().position(|ask| ask.piece == piece && ask.block == block)
    }

    /// Takes one off.
    pub fn remove(&mut self, at: usize) -> Ask {
        let count = usize::from(self.link.asks_count);
        let ask = self.room[at];
        self.room.copy_within(at + 1..count, at);
        self.link.asks_count -= 1;
        ask
    }

    /// One that is to be taken back: it is taken off.
    pub fn take_over(&mut self) -> Option<Ask> {
        let at = self.all().iter().position(|ask| ask.state == AskState::Over)?;
        self.link.forgiven = self.link.forgiven.saturating_add(1);
        Some(self.remove(at))
    }

    /// Notes that a block is to be taken back.
    pub fn call_off(&mut self, piece: u32, block: u16) -> bool {
        let Some(at) = self.find(piece, block) else { return false };
        self.room[at].state = AskState::Over;
        true
    }

    /// Notes that all of them are to be taken back.
    pub fn call_off_all(&mut self) {
        let count = usize::from(self.link.asks_count);
        self.room[..count].iter_mut().for_each(|ask| ask.state = AskState::Over);
    }

    /// Notes that those for a piece are to be taken back; whether there was one.
    pub fn call_off_piece(&mut self, piece: u32) -> bool {
        let count = usize::from(self.link.asks_count);
        let of = self.room[..count].iter_mut().filter(|ask| ask.piece == piece);
        of.map(|ask| ask.state = AskState::Over).count() > 0
    }

    /// Takes the last one off; the peer may send it all the same.
    pub fn give_up_last(&mut self) -> Option<Ask> {
        let last = usize::from(self.link.asks_count).checked_sub(1)?;
        self.link.forgiven = self.link.forgiven.saturating_add(1);
        Some(self.remove(last))
    }
}

/// A peer that has had nothing we lack for so long is told that we want nothing.
const BORED_MS: u64 = 10_000;

/// What is expected of a peer that has sent nothing yet: four blocks a second.
const PACE_UNKNOWN: u16 = 64;

/// Blocks do not come as regularly as that.
const DELAY_MS: u64 = 500;

/// When a block is here that a peer was asked for which lets nobody ask, or was late before.
const UNLIKELY_MS: u64 = 3_600_000;

/// Requests a peer keeps when it has not said how many: everybody keeps at least so many.
const REQQ_UNTOLD: u16 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_doubles_each_round_and_follows_what_comes() {
        let mut link = Link::new(TorrentSlot(0), 0, Instant::from_millis(0));
        (0..100).for_each(|_| link.count_block(Instant::from_millis(500), 256));
        assert_eq!(link.asks_max, ASKS_MIN + 100);
        // A second in which little comes.
        (0..8).for_each(|_| link.count_block(Instant::from_millis(1_500), 256));
        assert_eq!(link.blocks_a_second(Instant::from_millis(2_100)), 8);
        assert_eq!(link.asks_max, 16);
        // And one in which nothing does.
        link.count_block(Instant::from_millis(5_000), 256);
        assert_eq!(link.asks_max, ASKS_MIN + 1);
        assert_eq!(link.blocks_a_second(Instant::from_millis(5_000)), 0);
    }

    #[test]
    fn a_request_stands_in_one_place_until_it_is_over() {
        let (mut room, now) = ([Ask::default(); 3], Instant::default());
        let mut link = Link::new(TorrentSlot(0), 0, now);
        let ask = |block| Ask { piece: 7, block, state: AskState::Said };
        let mut asks = Asks::new(&mut link, &mut room);
        assert!((0..3).all(|block| asks.push(ask(block))) && !asks.push(ask(3)));
        assert!(asks.call_off(7, 1) && !asks.call_off(8, 1));
        assert_eq!(asks.take_over().map(|ask| ask.block), Some(1));
        assert_eq!(asks.take_over(), None);
        assert_eq!(asks.find(7, 2), Some(1));
        assert_eq!(asks.remove(0), ask(0));
        assert_eq!(asks.give_up_last(), Some(ask(2)));
        assert_eq!(asks.give_up_last(), None);
        assert_eq!(link.forgiven, 2);
        assert!(!link.is_late(Instant::from_millis(SNUB_MS)));
    }
}
