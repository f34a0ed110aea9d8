//! How a volume is: one condition, fed by what reads and writes end with.
//!
//! | condition | begins with | ends with | fetching |
//! | --- | --- | --- | --- |
//! | full | less free than the reserve; `ENOSPC`, `EDQUOT` | a quarter more free than the reserve; a write that succeeds | pauses |
//! | read-only | the mount says so; `EROFS` | the mount says so no more; a write that succeeds | pauses |
//! | failing | `EIO` | ten minutes without | pauses at first, and after each write that fails |
//!
//! A reserve in bytes is never more than a sixteenth of the volume. Where the kernel says that nothing
//! stands in the way and yet a write was refused (a quota, no room for more names), a write is tried
//! every ten seconds. Serving goes on through all of it. Reads that fail again while it is known to be
//! failing do not pause fetching anew: peers choose what is read.

use super::identity::Space;
use crate::engine::units::Instant;
use crate::service::config::Reserve;
use rustix::io::Errno;
use std::io;

/// What somebody did to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Read from it, opened or looked at something on it.
    Read,
    /// Wrote, synced, made or removed something.
    Write,
}

/// What an error says of the whole volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no more room.
    Full,
    /// It cannot be written to.
    ReadOnly,
    /// It does not do its work.
    Failing,
    /// It is not there.
    Away,
}

impl Trouble {
    /// What an error says; nothing where it is about a file, not about what it lies on.
    pub fn of(error: &io::Error) -> Option<Trouble> {
        const AWAY: [Errno; 5] =
            [Errno::NODEV, Errno::NXIO, Errno::STALE, Errno::NOTCONN, Errno::NOMEDIUM];
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if errno.is_some_and(|errno| AWAY.contains(&errno)) {
            return Some(Trouble::Away);
        }
        if errno.is_some_and(|errno| [Errno::IO, Errno::UCLEAN].contains(&errno)) {
            return Some(Trouble::Failing);
        }
        // The number is lost where a path has been put in front of an error.
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Trouble::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Trouble::ReadOnly),
            io::ErrorKind::StaleNetworkFileHandle => Some(Trouble::Away),
            _ => None,
        }
    }
}

/// What there is to say of a volume that is there; the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Well,
    /// It has less room than is kept free.
    Full,
    /// It cannot be written to.
    ReadOnly,
    /// It does not do its work.
    Failing,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Health {
    space: Space,
    /// There is less room than the reserve.
    low: bool,
    /// A write found no room; when the next may be tried.
    no_room: Option<Instant>,
    /// A write found it read-only; when the next may be tried.
    no_right: Option<Instant>,
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    /// It is well if nothing fails until then.
    well_at: Instant,
    /// Nothing is written before.
    write_at: Instant,
}

impl Health {
    /// What there was room for, at the last look.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Takes what a look has shown.
    pub fn note_space(&mut self, space: Space, wanted: Reserve) {
        let reserve = reserve(space.total_bytes, wanted);
        let wanted = if self.low { reserve + reserve / 4 } else { reserve };
        self.low = space.free_bytes < wanted;
        if self.low {
            // From here on the room that is free decides.
            self.no_room = None;
        }
        if space.read_only || self.space.read_only {
            self.no_right = None;
        }
        self.space = space;
    }

    /// Takes what somebody's deed ended with.
    pub fn note_error(&mut self, trouble: Trouble, deed: Deed, now: Instant) {
        match trouble {
            // Where there is no room to be seen, the room that is free decides.
            Trouble::Full if self.low => {}
            Trouble::Full => self.no_room = Some(now.after(TRIAL_MS)),
            Trouble::ReadOnly => self.no_right = Some(now.after(TRIAL_MS)),
            Trouble::Failing => {
                let write_at = match self.failing {
                    Some(failing) if deed == Deed::Read => failing.write_at,
                    _ => now.after(TRIAL_MS),
                };
                self.failing = Some(Failing { well_at: now.after(QUIET_MS), write_at });
            }
            Trouble::Away => {}
        }
    }

    /// Something has been written and nothing stood in the way. What was under way when another
    /// write was refused proves nothing: only what was tried after the pause does.
    pub fn note_written(&mut self, now: Instant) {
        let stands = |again: &Instant| now < *again;
        self.no_room = self.no_room.filter(stands);
        self.no_right = self.no_right.filter(stands);
    }

    /// What has passed by itself is over.
    pub fn handle_time(&mut self, now: Instant) {
        self.failing = self.failing.filter(|failing| now < failing.well_at);
    }

    /// The worst there is to say.
    pub fn condition(&self) -> Condition {
        if self.failing.is_some() {
            Condition::Failing
        } else if self.space.read_only || self.no_right.is_some() {
            Condition::ReadOnly
        } else if self.low || self.no_room.is_some() {
            Condition::Full
        } else {
            Condition::Well
        }
    }

    /// Whether a write was refused although there seemed to be room.
    pub fn is_refused_room(&self) -> bool {
        self.no_room.is_some() && !self.low
    }

    /// Whether what is fetched may be written there now.
    pub fn may_write(&self, now: Instant) -> bool {
        let is_tried = |again: Option<Instant>| again.is_none_or(|at| at <= now);
        let failing = self.failing.map(|failing| failing.write_at);
        !self.low
            && !self.space.read_only
            && is_tried(self.no_room)
            && is_tried(self.no_right)
            && is_tried(failing)
    }

    /// When something passes by itself.
    pub fn passes_at(&self) -> Instant {
        self.failing.map_or(Instant::NEVER, |failing| failing.well_at)
    }
}

/// What is kept free of a volume of that size. What the owner says in bytes is meant for a large
/// one: of a small one it would leave nothing.
pub fn reserve(total_bytes: u64, wanted: Reserve) -> u64 {
    let least = RESERVE_BYTES_MIN.min(total_bytes / 16);
    match wanted {
        Reserve::Bytes(bytes) => bytes.min(total_bytes / 16).max(least),
        Reserve::Auto | Reserve::Percent(_) => wanted.bytes_of(total_bytes).max(least),
    }
}

/// A write that was refused is tried again after this.
pub const TRIAL_MS: u64 = 10_000;

/// A volume that fails is well again after so long without an error.
pub const QUIET_MS: u64 = 600_000;

/// What is kept free when the owner wants nothing kept free: what a file needs to be closed well.
const RESERVE_BYTES_MIN: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const ONE: Reserve = Reserve::Bytes(GIB);

    fn space(free_bytes: u64) -> Space {
        Space { total_bytes: 100 * GIB, free_bytes, read_only: false }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_full_volume_is_full_until_there_is_clearly_room() {
        let mut health = Health::default();
        let steps = [
            (GIB, Condition::Well),
            (GIB - 1, Condition::Full),
            (GIB, Condition::Full),
            (GIB + GIB / 4 - 1, Condition::Full),
            (GIB + GIB / 4, Condition::Well),
            (GIB, Condition::Well),
        ];
        for (free_bytes, condition) in steps {
            health.note_space(space(free_bytes), ONE);
            assert_eq!(health.condition(), condition, "{free_bytes}");
            assert_eq!(health.may_write(at(0)), condition == Condition::Well);
        }
        // Of a small one no more than a sixteenth is kept, and of one without a size nothing.
        assert_eq!(
            (reserve(16 << 20, ONE), reserve(GIB, Reserve::Bytes(0)), reserve(0, ONE)),
            (1 << 20, 256 << 10, 0)
        );
        assert_eq!(reserve(10 * GIB, Reserve::Percent(50)) / GIB, 4);
        assert_eq!(reserve(100 * GIB, Reserve::Auto), GIB);
    }

    #[test]
    fn a_quota_is_tried_again_each_minute_and_over_when_a_write_succeeds() {
        let mut health = Health::default();
        health.note_space(space(50 * GIB), ONE);
        health.note_error(Trouble::Full, Deed::Write, at(0));
        health.note_space(space(50 * GIB), ONE);
        assert!(health.condition() == Condition::Full && health.is_refused_room());
        assert!(!health.may_write(at(TRIAL_MS - 1)) && health.may_write(at(TRIAL_MS)));
        health.note_error(Trouble::Full, Deed::Write, at(TRIAL_MS));
        assert!(!health.may_write(at(TRIAL_MS)));
        // It was under way when the other was refused.
        health.note_written(at(2 * TRIAL_MS - 1));
        assert_eq!(health.condition(), Condition::Full);
        health.note_written(at(2 * TRIAL_MS));
        assert!(health.condition() == Condition::Well && health.may_write(at(2 * TRIAL_MS)));
        // Where there is no room to be seen, the room that is free decides, not the minute.
        health.note_error(Trouble::Full, Deed::Write, at(TRIAL_MS));
        health.note_space(space(0), ONE);
        health.note_error(Trouble::Full, Deed::Write, at(TRIAL_MS));
        assert!(!health.is_refused_room() && !health.may_write(at(9 * TRIAL_MS)));
        health.note_space(space(2 * GIB), ONE);
        assert_eq!(health.condition(), Condition::Well);
    }

    #[test]
    fn a_read_only_volume_is_so_until_its_mount_says_otherwise() {
        let mut health = Health::default();
        health.note_space(Space { read_only: true, ..space(GIB * 9) }, ONE);
        health.note_error(Trouble::ReadOnly, Deed::Write, at(0));
        assert!(health.condition() == Condition::ReadOnly && !health.may_write(at(9 * TRIAL_MS)));
        health.note_space(space(GIB * 9), ONE);
        assert!(health.condition() == Condition::Well && health.may_write(at(0)));
        // One that says it can be written to and refuses.
        health.note_error(Trouble::ReadOnly, Deed::Write, at(0));
        health.note_space(space(GIB * 9), ONE);
        assert!(health.condition() == Condition::ReadOnly && health.may_write(at(TRIAL_MS)));
    }

    #[test]
    fn peers_who_read_what_cannot_be_read_do_not_stop_what_is_fetched() {
        let mut health = Health::default();
        health.note_space(space(GIB * 9), ONE);
        health.note_error(Trouble::Failing, Deed::Read, at(0));
        assert!(!health.may_write(at(TRIAL_MS - 1)));
        (0..10)
            .for_each(|n| health.note_error(Trouble::Failing, Deed::Read, at(n * TRIAL_MS / 10)));
        assert!(health.may_write(at(TRIAL_MS)) && health.condition() == Condition::Failing);
        health.note_error(Trouble::Failing, Deed::Write, at(TRIAL_MS));
        assert!(!health.may_write(at(TRIAL_MS)));
        assert!(health.may_write(at(2 * TRIAL_MS)) && health.condition() == Condition::Failing);
        health.handle_time(at(TRIAL_MS + QUIET_MS - 1));
        assert_eq!(health.condition(), Condition::Failing);
        assert_eq!(health.passes_at(), at(TRIAL_MS + QUIET_MS));
        health.handle_time(health.passes_at());
        assert_eq!(health.condition(), Condition::Well);
    }

    #[test]
    fn an_error_of_a_file_says_nothing_of_its_volume() {
        let of = |errno: Errno| Trouble::of(&errno.into());
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::MFILE, Errno::LOOP, Errno::AGAIN] {
            assert_eq!(of(errno), None);
        }
        assert_eq!(of(Errno::NOSPC), Some(Trouble::Full));
        assert_eq!(of(Errno::DQUOT), Some(Trouble::Full));
        assert_eq!(of(Errno::ROFS), Some(Trouble::ReadOnly));
        assert_eq!(of(Errno::IO), Some(Trouble::Failing));
        assert_eq!([Errno::NODEV, Errno::NXIO, Errno::STALE].map(of), [Some(Trouble::Away); 3]);
        // A path in front of it takes the number away, but not the kind.
        let named = io::Error::new(io::ErrorKind::StorageFull, "film.mkv: no room");
        assert_eq!(Trouble::of(&named), Some(Trouble::Full));
    }
}
