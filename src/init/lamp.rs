//! The board's lamp, where it has one: it beats while the box starts, is on while it serves, and
//! blinks fast when something is wrong.
//!
//! Boards call theirs what they like; the one for the disk's or the system's doings is taken, and no
//! other is touched. Where the kernel lacks a way to blink the lamp stays on.

use super::{names_in, read};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The box starts, or stops.
    Busy,
    /// It serves.
    Serving,
    /// It serves what it can, or nothing: the console says why.
    Trouble,
}

/// A lamp, or none.
pub struct Lamp(Option<PathBuf>);

impl Lamp {
    /// The board's.
    pub fn of_the_board() -> Lamp {
        Lamp::find(Path::new("/sys/class/leds"))
    }

    fn find(class: &Path) -> Lamp {
        let all = names_in(class);
        let is = |name: &str, wanted: &str| name.to_ascii_lowercase().contains(wanted);
        let best = NAMES.iter().find_map(|wanted| all.iter().find(|name| is(name, wanted)));
        Lamp(best.map(|name| class.join(name)))
    }

    /// Shows that; a lamp that cannot is dark.
    pub fn show(&self, sign: Sign) {
        let Some(folder) = &self.0 else { return };
        let write = |file: &str, text: &str| fs::write(folder.join(file), text);
        let steady = || -> io::Result<()> {
            write("trigger", "none")?;
            write("brightness", &read(&folder.join("max_brightness")))
        };
        let blink = || -> io::Result<()> {
            write("trigger", "timer")?;
            write("delay_on", FAST_MS)?;
            write("delay_off", FAST_MS)
        };
        let shown = match sign {
            Sign::Busy => write("trigger", "heartbeat").or_else(|_| steady()),
            Sign::Serving => steady(),
            Sign::Trouble => blink().or_else(|_| steady()),
        };
        if let Err(error) = shown {
            debug!("{}: {error}", folder.display());
        }
    }
}

/// Parts of the names of such lamps, the best first.
const NAMES: [&str; 5] = ["act", "status", "led0", "power", "user"];

/// Ten times a second, on and off.
const FAST_MS: &str = "50";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;

    #[test]
    fn the_lamp_for_doings_is_taken_and_shows_how_the_box_is() {
        let folder = TestFolder::new("lamp");
        for name in ["PWR", "ACT", "input0::capslock"] {
            let place = folder.path().join(name);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("max_brightness"), "255\n").unwrap();
        }
        let lamp = Lamp::find(folder.path());
        let read = |file: &str| fs::read_to_string(folder.path().join("ACT").join(file)).unwrap();
        lamp.show(Sign::Busy);
        assert_eq!(read("trigger"), "heartbeat");
        lamp.show(Sign::Serving);
        assert_eq!((read("trigger"), read("brightness")), ("none".into(), "255".into()));
        lamp.show(Sign::Trouble);
        assert_eq!((read("trigger"), read("delay_on")), ("timer".into(), "50".into()));
        assert!(!folder.path().join("PWR/trigger").exists());
    }

    #[test]
    fn a_board_without_a_lamp_shows_nothing() {
        let folder = TestFolder::new("no-lamp");
        fs::create_dir(folder.path().join("input0::capslock")).unwrap();
        Lamp::find(folder.path()).show(Sign::Serving);
        assert!(!folder.path().join("input0::capslock/trigger").exists());
    }
}
