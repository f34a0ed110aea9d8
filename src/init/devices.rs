//! Devices that come and go while the box runs: modules for them, disks with content, the button.
//!
//! A thread of its own, since a failing disk can hold up whoever mounts it. What has become of disks is
//! told to the life as a signal to read its configuration again, and that it is to stop as another.

use super::card::Places;
use super::modules::Modules;
use super::mounts;
use super::network::wait;
use super::uevent::{Ear, Uevent};
use super::{names_in, read};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// See the module.
pub struct Devices {
    /// Hears of them.
    pub ear: Ear,
    /// Loaded when something comes that they are for.
    pub modules: Modules,
    /// The disk we start from, which is left alone.
    pub own: Option<String>,
    /// Where disks go.
    pub places: Places,
}

impl Devices {
    /// Looks after them, for ever.
    pub fn run(mut self) {
        let mut buttons = Vec::new();
        for name in names_in(Path::new("/sys/class/input")) {
            buttons.extend(open_button(&name));
        }
        let mut any = false;
        for name in names_in(Path::new("/sys/class/block")) {
            any |= self.take_up(&name);
        }
        if any {
            tell(Signal::HUP);
        }
        let mut is_pressed = false;
        loop {
            let mut ears = Vec::with_capacity(1 + buttons.len());
            ears.push(PollFd::from_borrowed_fd(self.ear.fd(), PollFlags::IN));
            ears.extend(buttons.iter().map(|button| PollFd::new(button, PollFlags::IN)));
            // Said again: the life may not have listened yet.
            wait(&mut ears, if is_pressed { PRESSED_MS } else { u64::MAX });
            drop(ears);
            buttons.retain_mut(|button| match read_button(button) {
                Ok(pressed) => {
                    is_pressed |= pressed;
                    true
                }
                Err(()) => false,
            });
            if is_pressed {
                info!("the button has been pressed");
                tell(Signal::TERM);
            }
            self.heed(&mut buttons);
        }
    }

    fn heed(&mut self, buttons: &mut Vec<File>) {
        let (mut come, mut gone, mut aliases) = (Vec::new(), Vec::new(), Vec::new());
        self.ear.drain(|event: Uevent<'_>| {
            match (event.action, event.subsystem) {
                ("remove", "block") => gone.push(String::from(event.name)),
                ("add" | "change", "block") => come.push(String::from(event.name)),
                ("add", "input") if !event.name.is_empty() && buttons.len() < BUTTONS_MAX => {
                    buttons.extend(open_button(event.name.trim_start_matches("input/")));
                }
                _ => {}
            }
            if event.action == "add" && !event.alias.is_empty() {
                aliases.push(String::from(event.alias));
            }
        });
        aliases.iter().for_each(|alias| self.modules.load_for(alias));
        gone.iter().for_each(|name| mounts::lose(name));
        let mut any = false;
        for name in come {
            any |= self.take_up(&name);
        }
        if any {
            tell(Signal::HUP);
        }
    }

    /// A disk that is there is mounted, if it is to be; whether it is new.
    fn take_up(&self, name: &str) -> bool {
        let is_own = self.own.as_deref().is_some_and(|own| mounts::is_of(name, own));
        !is_own && mounts::disk(name, &self.places.media).is_some()
    }
}

/// Tells the life, which is this process too.
fn tell(signal: Signal) {
    let _ = kill_process(Pid::INIT, signal);
}

/// Opens an input device that has a button to switch the machine off.
fn open_button(name: &str) -> Option<File> {
    let keys = Path::new("/sys/class/input").join(name).join("device/capabilities/key");
    if !has_power_key(&read(&keys)) {
        return None;
    }
    let flags = OFlags::NONBLOCK.bits() as i32;
    File::options().read(true).custom_flags(flags).open(Path::new("/dev/input").join(name)).ok()
}

/// Whether the power key is in a set of keys: words of 64 bits, the highest first.
fn has_power_key(keys: &str) -> bool {
    let (word, bit) = (POWER_KEY / 64, POWER_KEY % 64);
    let words: Vec<&str> = keys.split_whitespace().collect();
    let at = words.len().checked_sub(1 + usize::from(word));
    let word = at.and_then(|at| u64::from_str_radix(words[at], 16).ok());
    word.is_some_and(|word| word >> bit & 1 == 1)
}

/// Whether it has been pressed; an error when it is there no more.
fn read_button(button: &mut File) -> Result<bool, ()> {
    let (mut buffer, mut pressed) = ([0; 64 * EVENT_BYTES], false);
    loop {
        match button.read(&mut buffer) {
            Ok(0) => return Err(()),
            Ok(length) => pressed |= is_pressed(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(pressed),
            Err(_) => return Err(()),
        }
    }
}

/// Whether the power key goes down in some events (`struct input_event`).
fn is_pressed(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_BYTES).any(|event| {
        let of_event = &event[EVENT_BYTES - 8..];
        let number = |at: usize| u16::from_ne_bytes([of_event[at], of_event[at + 1]]);
        let value = i32::from_ne_bytes([of_event[4], of_event[5], of_event[6], of_event[7]]);
        (number(0), number(2), value) == (KEY, POWER_KEY, 1)
    })
}

/// Two words of time, then kind, code and value.
const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;

// linux/input-event-codes.h
const KEY: u16 = 1;
const POWER_KEY: u16 = 116;

/// More buttons than a machine has.
const BUTTONS_MAX: usize = 8;

/// Before it is said again that the button was pressed.
const PRESSED_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_power_key_is_a_button() {
        assert!(has_power_key("10000000000000 0\n"));
        assert!(has_power_key("1 ffff 10000000000000 0\n"));
        for keys in ["", "0\n", "10000000000000", "10000000000000 0 0", "zz 0"] {
            assert!(!has_power_key(keys), "{keys}");
        }
    }

    #[test]
    fn a_press_is_told_from_a_release_and_other_keys() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut event = std::vec![7; EVENT_BYTES - 8];
            event.extend(kind.to_ne_bytes());
            event.extend(code.to_ne_bytes());
            event.extend(value.to_ne_bytes());
            event
        };
        let press = event(KEY, POWER_KEY, 1);
        assert!(is_pressed(&press));
        assert!(is_pressed(&[event(0, 0, 0), press.clone()].concat()));
        assert!(!is_pressed(&event(KEY, POWER_KEY, 0)));
        assert!(!is_pressed(&event(KEY, 30, 1)));
        (0..EVENT_BYTES).for_each(|length| assert!(!is_pressed(&press[..length])));
    }
}
