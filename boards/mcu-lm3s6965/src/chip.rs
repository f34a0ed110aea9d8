//! The chip's registers, by name, and how it is brought up: 50 MHz, the parts in use clocked, their
//! pins handed over.
//!
//! Addresses and bits are those of the LM3S6965 data sheet, and of the evaluation board's drawing
//! for the pins. All access to registers goes through [`Register`].

/// One register, 32 bits wide. There are no others than the constants of this module.
#[derive(Clone, Copy)]
pub struct Register(usize);

impl Register {
    /// What it holds.
    pub fn read(self) -> u32 {
        // SAFETY: the address is one of the constants below: a register of the chip, aligned to its
        // width and outside of all memory the compiler knows.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    /// Writes it.
    pub fn write(self, value: u32) {
        // SAFETY: as in `read`; no register written here lets the chip touch memory by itself.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }

    /// Clears some bits, then sets others.
    pub fn change(self, clear: u32, set: u32) {
        self.write(self.read() & !clear | set);
    }
}

/// Cycles of the processor and of all timers in a millisecond.
pub const CYCLES_PER_MS: u32 = 50_000;

/// The processor's own registers.
pub mod processor {
    use super::Register;
    /// Interrupts 0 to 31 and 32 to 63: let through, held back, no longer pending.
    pub const INTERRUPT_ON: [Register; 2] = [Register(0xE000_E100), Register(0xE000_E104)];
    pub const INTERRUPT_OFF: [Register; 2] = [Register(0xE000_E180), Register(0xE000_E184)];
    pub const INTERRUPT_CLEAR: [Register; 2] = [Register(0xE000_E280), Register(0xE000_E284)];
    /// What kind of fault it was.
    pub const FAULT_STATUS: Register = Register(0xE000_ED28);
}

/// System control.
mod system {
    use super::Register;
    pub const RAW_INTERRUPTS: Register = Register(0x400F_E050);
    pub const PLL_LOCKED: u32 = 1 << 6;
    pub const RUN_CLOCK: Register = Register(0x400F_E060);
    pub const CLOCKS: [Register; 3] =
        [Register(0x400F_E100), Register(0x400F_E104), Register(0x400F_E108)];
    pub const USER: [Register; 2] = [Register(0x400F_E1E0), Register(0x400F_E1E4)];
}
/// Three bytes each of the address the maker burnt in, all ones where there is none.
pub const BURNT_ADDRESS: [Register; 2] = system::USER;

/// The watchdog.
pub mod watchdog {
    use super::Register;
    pub const LOAD: Register = Register(0x4000_0000);
    pub const CONTROL: Register = Register(0x4000_0008);
    pub const INTERRUPT_ENABLE: u32 = 1 << 0;
    pub const RESET_ENABLE: u32 = 1 << 1;
    /// Any value: petted.
    pub const CLEAR: Register = Register(0x4000_000C);
    pub const TEST: Register = Register(0x4000_0418);
    pub const STALL: u32 = 1 << 8;
}

/// The serial line.
pub mod uart {
    use super::Register;
    pub const INTERRUPT: u32 = 5;
    pub const DATA: Register = Register(0x4000_C000);
    pub const FLAGS: Register = Register(0x4000_C018);
    pub const RECEIVE_EMPTY: u32 = 1 << 4;
    pub const TRANSMIT_FULL: u32 = 1 << 5;
    pub const BUSY: u32 = 1 << 3;
    /// A divisor of 16ths of the bit rate: whole part, and 64ths.
    pub const DIVISOR: [Register; 2] = [Register(0x4000_C024), Register(0x4000_C028)];
    pub const LINE: Register = Register(0x4000_C02C);
    pub const EIGHT_BITS_QUEUED: u32 = 0x70;
    pub const CONTROL: Register = Register(0x4000_C030);
    pub const BOTH_WAYS: u32 = 0x301;
    pub const INTERRUPT_MASK: Register = Register(0x4000_C038);
    /// Bytes have come, or a few that nobody fetched.
    pub const RECEIVED: u32 = 1 << 4 | 1 << 6;
}

/// The serial bus with the card.
pub mod spi {
    use super::Register;
    pub const FORMAT: Register = Register(0x4000_8000);
    pub const EIGHT_BITS: u32 = 7;
    pub const CONTROL: Register = Register(0x4000_8004);
    pub const ENABLE: u32 = 1 << 1;
    pub const DATA: Register = Register(0x4000_8008);
    pub const STATUS: Register = Register(0x4000_800C);
    pub const BUSY: u32 = 1 << 4;
    pub const PRESCALE: Register = Register(0x4000_8010);
    /// Bytes its queues hold, each way.
    pub const QUEUE: usize = 8;
    /// The card's select pin (PD0), low when it is meant.
    pub const SELECT: Register = Register(0x4000_7004);
}

/// The timer that ends a sleep.
pub mod timer {
    use super::Register;
    pub const INTERRUPT: u32 = 19;
    pub const CONFIGURATION: Register = Register(0x4003_0000);
    pub const WHOLE: u32 = 0;
    pub const MODE: Register = Register(0x4003_0004);
    pub const ONE_SHOT: u32 = 1;
    pub const CONTROL: Register = Register(0x4003_000C);
    pub const ENABLE: u32 = 1;
    pub const INTERRUPT_MASK: Register = Register(0x4003_0018);
    pub const CLEAR: Register = Register(0x4003_0024);
    pub const TIME_OUT: u32 = 1;
    pub const LOAD: Register = Register(0x4003_0028);
}

/// The Ethernet MAC, and through it the PHY.
pub mod ethernet {
    use super::Register;
    pub const INTERRUPT: u32 = 42;
    /// Read: what there is. Written: what was seen to.
    pub const EVENTS: Register = Register(0x4004_8000);
    pub const RECEIVED: u32 = 1 << 0;
    pub const INTERRUPT_MASK: Register = Register(0x4004_8004);
    pub const RECEIVE: Register = Register(0x4004_8008);
    pub const RECEIVE_ENABLE: u32 = 1 << 0;
    pub const MULTICAST: u32 = 1 << 1;
    pub const REJECT_DAMAGED: u32 = 1 << 3;
    pub const RESET_QUEUE: u32 = 1 << 4;
    pub const TRANSMIT: Register = Register(0x4004_800C);
    /// Enabled, short frames filled up, the CRC appended, both ways at once.
    pub const TRANSMIT_ALL: u32 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4;
    pub const DATA: Register = Register(0x4004_8010);
    pub const ADDRESS: [Register; 2] = [Register(0x4004_8014), Register(0x4004_8018)];
    pub const PHY_CONTROL: Register = Register(0x4004_8020);
    pub const PHY_START: u32 = 1 << 0;
    pub const PHY_CLOCK: Register = Register(0x4004_8024);
    pub const PHY_READ: Register = Register(0x4004_8030);
    pub const FRAMES_WAITING: Register = Register(0x4004_8034);
    pub const TRANSMIT_REQUEST: Register = Register(0x4004_8038);
}

/// Brings the chip up.
pub fn start() {
    run_at_50_mhz();
    // The watchdog; the timer, the serial bus and the serial line; ports A, D and F, MAC and PHY.
    for (clocks, parts) in
        system::CLOCKS.into_iter().zip([1 << 3, 1 << 16 | 1 << 4 | 1, 0x5000_0029])
    {
        clocks.change(0, parts);
    }
    // A part answers three cycles after its clock has started.
    cortex_m::asm::delay(16);
    // Pins 0, 1: serial line. 2, 4, 5: serial bus. 3: the display on the same bus, kept unselected.
    Pins(0x4000_4000).hand_over(0x37, 0x08);
    // Pin 0 selects the card. Pins 2 and 3 of port F are the Ethernet's lamps.
    Pins(0x4000_7000).hand_over(0, 0x01);
    Pins(0x4002_5000).hand_over(0x0C, 0);
}

/// From the crystal of 8 MHz: 200 MHz by the PLL, divided by 4.
fn run_at_50_mhz() {
    const BYPASS: u32 = 1 << 11;
    const POWER_DOWN: u32 = 1 << 13;
    const DIVIDE: u32 = 1 << 22;
    const DIVIDE_BY: u32 = 0xF << 23;
    const CRYSTAL: u32 = 0xF << 6 | 0x3 << 4 | 1;
    const CRYSTAL_8_MHZ: u32 = 0xE << 6;
    let clock = system::RUN_CLOCK;
    clock.change(DIVIDE, BYPASS);
    clock.change(CRYSTAL | POWER_DOWN, CRYSTAL_8_MHZ);
    clock.change(DIVIDE_BY, DIVIDE | 3 << 23);
    while system::RAW_INTERRUPTS.read() & system::PLL_LOCKED == 0 {}
    clock.change(BYPASS, 0);
}

/// A port of eight pins, by its address.
struct Pins(usize);

impl Pins {
    /// Gives pins to the part of the chip behind them, and makes others outputs that are high.
    fn hand_over(self, to_part: u32, high: u32) {
        let (direction, function, digital) = (0x400, 0x420, 0x51C);
        Register(self.0 + function).change(high, to_part);
        Register(self.0 + direction).change(0, high);
        Register(self.0 + digital).change(0, to_part | high);
        // The address of the data says which pins are meant.
        Register(self.0 + (high << 2) as usize).write(high);
    }
}
