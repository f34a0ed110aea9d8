//! Slots as systemd-boot has them: an entry each, whose name counts the starts of a trial.
//!
//! ```text
//! loader/entries/perennial-a.conf        version 0.1.0     good
//! loader/entries/perennial-b+3.conf      version 0.2.0     on trial, three starts are left
//! loader/entries/perennial-b+2-1.conf                      the same, after one start
//! loader/entries/perennial-b+0-3.conf                      not started any more while there is another
//! ```
//!
//! systemd-boot takes the entry of the highest version that has starts left, and counts by renaming
//! it (Boot Loader Specification, boot counting). One without a count is good. An entry that is new
//! is made of that of the slot that runs, so that what the owner has put on its command line stays.

use super::{Files, ON_COMMAND_LINE, Slot, Standing, TRIES, fat, while_writable};
use std::io;
use std::string::String;
use std::vec::Vec;

/// An entry of ours.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: String,
    /// Starts it has left; none when it is not counted.
    left: Option<u32>,
}

pub(super) fn begin(files: &mut dyn Files, slot: Slot) -> io::Result<Standing> {
    let (own, others) = (entries(files, slot)?, entries(files, slot.other())?);
    let is_counted = |entry: &Entry| entry.left.is_some();
    if !own.is_empty() && own.iter().all(is_counted) {
        return Ok(Standing::Trial);
    }
    let was_left = others.iter().any(|entry| entry.left == Some(0));
    let is_good = others.iter().any(|entry| entry.left.is_none());
    Ok(if was_left && !is_good { Standing::Returned } else { Standing::Good })
}

pub(super) fn good(files: &mut dyn Files, slot: Slot) -> io::Result<()> {
    let own = entries(files, slot)?;
    let (counted, plain): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|entry| entry.left.is_some());
    let Some(first) = counted.first() else { return Ok(()) };
    while_writable(files, |files| {
        if plain.is_empty() {
            let text = fat::read_small(files, &first.path)?;
            fat::write_small(files, &path(slot, ""), 0, &text)?;
        }
        counted.iter().try_for_each(|entry| files.remove(&entry.path))?;
        files.sync_folder(FOLDER)
    })
}

pub(super) fn retire(files: &mut dyn Files, slot: Slot) -> io::Result<()> {
    let entries = entries(files, slot)?;
    entries.iter().try_for_each(|entry| files.remove(&entry.path))?;
    files.sync_folder(FOLDER)
}

pub(super) fn try_other(files: &mut dyn Files, running: Slot, version: &str) -> io::Result<()> {
    let own = entries(files, running)?;
    let none = || io::Error::other(std::format!("{FOLDER} has no entry for slot {running}"));
    let mut text = fat::read_small(files, &own.first().ok_or_else(none)?.path)?;
    make_other(&mut text, running, version);
    fat::write_small(files, &path(running.other(), &std::format!("+{TRIES}")), 0, &text)
}

/// Makes the entry of the slot that runs that of the other one.
fn make_other(text: &mut Vec<u8>, running: Slot, version: &str) {
    let [from, to] = [running, running.other()].map(|slot| slot.letter().as_bytes()[0]);
    for at in 0..text.len() {
        let (front, rest) = text.split_at_mut(at);
        let in_path = front.ends_with(b"/") && rest.get(1) == Some(&b'/');
        if rest[0] == from && (in_path || front.ends_with(ON_COMMAND_LINE.as_bytes())) {
            rest[0] = to;
        }
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut kept = lines.filter(|line| !line.starts_with(b"version")).collect::<Vec<_>>().concat();
    kept.extend_from_slice(b"version ");
    kept.extend_from_slice(version.as_bytes());
    kept.push(b'\n');
    *text = kept;
}

/// The entries of a slot: one, or two when the power was cut while it became good.
fn entries(files: &dyn Files, slot: Slot) -> io::Result<Vec<Entry>> {
    let (front, mut found) = (std::format!("{PREFIX}{slot}"), Vec::new());
    for (name, _) in files.list(FOLDER)? {
        let count = name.strip_prefix(&front).and_then(|rest| rest.strip_suffix(END));
        if let Some(left) = count.and_then(left) {
            found.push(Entry { path: std::format!("{FOLDER}/{name}"), left });
        }
    }
    Ok(found)
}

/// What a name counts, `+LEFT` or `+LEFT-DONE`: starts that are left, if it counts.
fn left(count: &str) -> Option<Option<u32>> {
    let Some(count) = count.strip_prefix('+') else { return count.is_empty().then_some(None) };
    let left = count.split_once('-').map_or(count, |(left, _)| left);
    left.parse().ok().map(Some)
}

fn path(slot: Slot, count: &str) -> String {
    std::format!("{FOLDER}/{PREFIX}{slot}{count}{END}")
}

/// Where systemd-boot looks for entries.
pub const FOLDER: &str = "loader/entries";

const PREFIX: &str = "perennial-";
const END: &str = ".conf";
