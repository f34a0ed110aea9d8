//! Everything the firmware's loop turns, and the turn.

use super::check::{Check, Step};
use super::counter::{Counter, CounterError};
use super::line::Line;
use super::link::{Link, News};
use super::local::Local;
use super::share::Share;
use super::tracker::{Told, Tracker};
use super::{Board, PORT, Verdict, say};
use crate::engine::swarm::Swarm;
use crate::engine::units::{Deadline, Instant, TorrentSlot};
use embedded_storage::nor_flash::NorFlash;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::Device;
use smoltcp::socket::{tcp, udp};

/// See the module. The large parts stand where they were made: moving them in would take their
/// room on the stack twice.
pub struct Works<'w, 'f, B, N, F: NorFlash> {
    pub board: &'w mut B,
    pub share: &'w Share<'f, F>,
    /// Nothing is counted without one.
    pub counter: &'w mut Option<Counter<'f, F>>,
    pub link: &'w mut Link<'f, N>,
    pub swarm: &'w mut Swarm<'static>,
    pub torrent: TorrentSlot,
    pub lines: &'static mut [Option<Line>],
    pub scratch: &'static mut [u8],
    /// There is more to do in another turn.
    pub again: bool,
    /// Until every piece has been hashed.
    pub check: Option<Check>,
    /// Peers may come: it is known which pieces are good, or was at the last start.
    pub open: bool,
    pub local: Local,
    pub local_socket: SocketHandle,
    pub tracker: &'w mut Option<Tracker<'f>>,
    pub said: Said,
}

/// What the console was last told, so that it is told what is new.
#[derive(Default)]
pub struct Said {
    /// Peers, bytes sent, bytes recorded.
    status: (u16, u64, u64),
    /// Not again before.
    status_at: Instant,
    listening: bool,
    /// Who looks for the share is not said again before.
    found_at: Instant,
    /// Nor that the card cannot be read.
    unreadable_at: Instant,
    /// A journal that fails is complained of once.
    not_recorded: bool,
}

impl<B: Board, N: Device, F: NorFlash> Works<'_, '_, B, N, F> {
    /// Turns until the console says stop.
    pub fn run(&mut self) -> Verdict {
        loop {
            self.board.pet();
            let now = self.board.now();
            self.turn(now);
            match self.board.key() {
                Some(b'q') => return self.stop(now),
                Some(b's') => self.tell_status(now),
                _ => {}
            }
            let deadline = self.deadline(now);
            if deadline.at > now {
                self.board.sleep(deadline.at);
            }
        }
    }

    fn turn(&mut self, now: Instant) {
        let carrier = self.board.carrier();
        if let Some(news) = self.link.turn(carrier, now) {
            self.handle_news(news, now);
        }
        self.turn_lines(now);
        if self.open && self.link.address().is_some() {
            self.be_found(now);
        }
        self.check(now);
        if let Some(kind) = self.share.take_failure()
            && now >= self.said.unreadable_at
        {
            self.said.unreadable_at = now.after(UNREADABLE_MS);
            say(self.board, format_args!("card: cannot be read: {kind}; it is tried again"));
        }
        let counted = self.swarm.sent_bytes;
        let recorded = self.counter.as_mut().map_or(Ok(()), |counter| counter.count(counted, now));
        self.complain(recorded);
        if now >= self.said.status_at && self.status() != self.said.status {
            self.tell_status(now);
        }
    }

    #[inline(never)]
    fn turn_lines(&mut self, now: Instant) {
        let port = (self.open && self.link.address().is_some()).then_some(PORT);
        for line in self.lines.iter_mut().flatten() {
            let socket = self.link.sockets.get_mut::<tcp::Socket<'_>>(line.socket);
            line.turn(socket, self.swarm, self.share, port, now);
        }
        if self.swarm.deadline().at <= now {
            self.swarm.handle_time(now);
        }
        // Whoever is rung is looked at in the next turn, like everybody: it comes at once.
        self.again = false;
        while self.swarm.take_nudged().is_some() {
            self.again = true;
        }
        if self.give_up_at().is_some_and(|at| at <= now) {
            self.make_room(now);
        }
    }

    /// When somebody who has not shaken hands has to make room: every line is taken, and nobody else
    /// could be heard.
    fn give_up_at(&self) -> Option<Instant> {
        let mut lines = self.lines.iter().flatten();
        if lines.clone().any(Line::is_free) {
            return None;
        }
        Some(lines.by_ref().filter_map(Line::greeting_since).min()?.after(GREETING_MS))
    }

    #[inline(never)]
    fn make_room(&mut self, now: Instant) {
        let greeting = self.lines.iter_mut().flatten().filter(|l| l.greeting_since().is_some());
        if let Some(line) = greeting.min_by_key(|line| line.greeting_since()) {
            line.give_up(self.link.sockets.get_mut(line.socket), now);
            self.again = true;
        }
    }

    #[inline(never)]
    fn be_found(&mut self, now: Instant) {
        let Link { interface, sockets, .. } = &mut *self.link;
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.local_socket);
        // A private torrent is its trackers' alone (BEP 27).
        if !self.share.head.private
            && let Some(newcomer) = self.local.turn(interface, socket, now)
            && now >= self.said.found_at
        {
            self.said.found_at = now.after(FOUND_MS);
            say(self.board, format_args!("found: {newcomer} looks for it"));
        }
        let Some(tracker) = self.tracker else { return };
        let sent = self.swarm.sent_bytes;
        match tracker.turn(interface.context(), sockets, sent, now) {
            None => {}
            Some(Told::Answered) => say(self.board, format_args!("tracker: it knows of the share")),
            Some(Told::Refused) => say(self.board, format_args!("tracker: it refused the share")),
            Some(Told::Failed) => say(self.board, format_args!("tracker: no answer; tried again")),
        }
    }

    #[inline(never)]
    fn check(&mut self, now: Instant) {
        let Some(check) = &mut self.check else { return };
        match check.step(self.share, self.scratch) {
            Step::More => {}
            Step::Bad(piece) => {
                let what = "does not match its hash: not offered";
                say(self.board, format_args!("check: piece {} {what}", piece.0));
                self.swarm.withhold(self.torrent, piece.0..piece.0 + 1);
            }
            Step::Done => {
                let head = &self.share.head;
                let good = head.layout.piece_count() - check.bad;
                let found = if check.bad == 0 { head.metainfo_crc } else { 0 };
                say(self.board, format_args!("check: {good} pieces are good"));
                let mut noted = Ok(());
                if let Some(counter) = self.counter
                    // What could not be read may have been good all the same.
                    && !(check.is_in_doubt() && counter.was_whole(head.metainfo_crc))
                {
                    noted = counter.note_check(found);
                }
                self.complain(noted);
                self.check = None;
                self.open_up(now);
            }
        }
    }

    /// Lets peers come, when there is an address they can come to.
    fn open_up(&mut self, now: Instant) {
        self.open = true;
        let Some(address) = self.link.address() else { return };
        if !core::mem::replace(&mut self.said.listening, true) {
            say(self.board, format_args!("listening on {}:{PORT}", address.address()));
            say(self.board, format_args!("keys: `s` says how it is doing, `q` records and stops"));
        }
        self.local.begin(now);
    }

    #[inline(never)]
    fn handle_news(&mut self, news: News, now: Instant) {
        match news {
            News::Up => say(self.board, format_args!("link: up")),
            News::Down => say(self.board, format_args!("link: down")),
            News::Silent => say(self.board, format_args!("dhcp: no answer yet")),
            News::Lost => say(self.board, format_args!("dhcp: the lease is over")),
            News::Address(address) => {
                say(self.board, format_args!("dhcp: {address}"));
                self.said.listening = false;
                if self.open {
                    self.open_up(now);
                }
            }
        }
    }

    /// When the next turn is due. While pieces are being hashed that is now.
    fn deadline(&mut self, now: Instant) -> Deadline {
        if self.check.is_some() || self.again {
            return Deadline { at: now, why: "more to do" };
        }
        let mut due = self.link.deadline(now).or(self.swarm.deadline());
        for line in self.lines.iter().flatten() {
            due = due.or(line.deadline(self.swarm));
        }
        if let Some(at) = self.give_up_at() {
            due = due.or(Deadline { at, why: "a handshake" });
        }
        if let Some(counter) = self.counter {
            due = due.or(counter.deadline());
        }
        if self.open && self.link.address().is_some() {
            due = due.or(self.local.deadline());
            due = self.tracker.as_ref().map_or(due, |tracker| due.or(tracker.deadline()));
        }
        if self.status() != self.said.status {
            due = due.or(Deadline { at: self.said.status_at, why: "the console" });
        }
        due
    }

    fn status(&self) -> (u16, u64, u64) {
        let before = self.counter.as_ref().map_or(0, Counter::before);
        let recorded = self.counter.as_ref().map_or(0, Counter::recorded);
        (self.swarm.member_count(), before.saturating_add(self.swarm.sent_bytes), recorded)
    }

    #[inline(never)]
    fn tell_status(&mut self, now: Instant) {
        let (peers, sent, recorded) = self.status();
        self.said.status = (peers, sent, recorded);
        self.said.status_at = now.after(STATUS_MS);
        let what = format_args!("status: {peers} peers, {sent} bytes sent, {recorded} recorded");
        say(self.board, what);
    }

    /// Says once what keeps the count from being recorded.
    #[inline(never)]
    fn complain(&mut self, recorded: Result<(), CounterError>) {
        let Err(why) = recorded else { return };
        if !core::mem::replace(&mut self.said.not_recorded, true) {
            say(self.board, format_args!("journal: {why}"));
        }
    }

    /// Records what was counted and lets everybody go.
    #[inline(never)]
    fn stop(&mut self, now: Instant) -> Verdict {
        let sent = self.swarm.sent_bytes;
        let recorded = self.counter.as_mut().map(|counter| counter.record(sent));
        self.swarm.close();
        // Each turn closes what it can and sends what there is.
        for _ in 0..GOODBYE_TURNS {
            self.turn(now);
        }
        let (_, sent, _) = self.status();
        let (deepest, size) = self.board.stack();
        say(self.board, format_args!("stopped: {sent} bytes sent, stack {deepest} of {size}"));
        match recorded {
            Some(Ok(())) => Verdict::Stopped,
            Some(Err(_)) | None => Verdict::NotRecorded,
        }
    }
}

/// Who has not shaken hands by then makes room when every line is taken.
const GREETING_MS: u64 = 1_000;

/// The console is told what has changed this often at most.
const STATUS_MS: u64 = 10_000;

/// Who looks for the share is said this often at most.
const FOUND_MS: u64 = 1_000;

/// That the card cannot be read, this often.
const UNREADABLE_MS: u64 = 60_000;

/// Turns in which connections can close before the end.
const GOODBYE_TURNS: u32 = 4;
