//! The evaluation board, as the firmware sees it.

use crate::clock::Clock;
use crate::console::{self, Console};
use crate::end::{STACK_OVERRUN, end};
use crate::nic::{self, Phy};
use crate::stack::Stack;
use crate::watchdog;
use perennial::engine::units::Instant;
use perennial::firmware;

/// All of the board but its network interface and its card.
pub struct Board {
    clock: Clock,
    console: Console,
    stack: Stack,
    phy: Phy,
    carrier: bool,
    /// When to ask the PHY again.
    ask_phy: Instant,
}

impl Board {
    /// Arms the watchdog: from now on [`firmware::Board::pet`] is to be called.
    pub fn start(clock: Clock, console: Console, stack: Stack) -> Board {
        watchdog::arm();
        let ask_phy = Instant::default();
        Board { clock, console, stack, phy: Phy::find(), carrier: false, ask_phy }
    }
}

impl firmware::Board for Board {
    const NAME: &'static str = "mcu-lm3s6965";

    fn now(&mut self) -> Instant {
        self.clock.now()
    }

    fn sleep(&mut self, until: Instant) {
        let until = until.min(self.clock.now().after(SLEEP_MAX_MS));
        self.clock.sleep(until, || nic::frame_waits() || console::key_waits());
    }

    fn hardware_address(&self) -> [u8; 6] {
        nic::address()
    }

    fn carrier(&mut self) -> bool {
        let now = self.clock.now();
        if now >= self.ask_phy {
            self.carrier = self.phy.link();
            self.ask_phy = now.after(ASK_PHY_MS);
        }
        self.carrier
    }

    fn print(&mut self, text: &str) {
        self.console.print(text);
    }

    fn key(&mut self) -> Option<u8> {
        self.console.key()
    }

    fn pet(&mut self) {
        if self.stack.overrun() {
            self.console.print("stack overrun\n");
            end(STACK_OVERRUN)
        }
        watchdog::pet();
    }

    fn stack(&self) -> (usize, usize) {
        self.stack.depth()
    }
}

/// Half of what the watchdog gives.
const SLEEP_MAX_MS: u64 = 4_000;
/// How soon a cable is noticed.
const ASK_PHY_MS: u64 = 500;
