//! Disks that are plugged in, pulled out, copied, filled and locked, as the kernel shows them.
//!
//! What is mounted lies in a folder of the test's own, and is unmounted when the test ends, however
//! it ends. Disks are images of ext4 on loop devices; where the first of them cannot be made or
//! mounted, a test says so and passes.

use crate::lacks_root;
use crate::program::Folder;
use perennial::engine::units::Instant;
use perennial::service::config::Reserve;
use perennial::service::volume::{
    Change, Deed, Found, Kind, MARKER, State, System, Volumes, Watch, What, Whose, identify,
    superblock,
};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs a command and gives what it says, or nothing when it fails.
pub fn run(words: &[&str]) -> Option<String> {
    let done = Command::new(words[0]).args(&words[1..]).output().ok()?;
    if !done.status.success() {
        eprintln!("{words:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
        return None;
    }
    Some(String::from_utf8_lossy(&done.stdout).trim().to_string())
}

/// Something mounted, until it is dropped.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn mount(at: &Path, words: &[&str]) -> Option<Mounted> {
        fs::create_dir_all(at).unwrap();
        run(&[&["mount"], words, &[at.to_str().unwrap()]].concat())?;
        Some(Mounted(at.to_owned()))
    }

    /// A disk in memory.
    pub fn memory(at: &Path, size: &str) -> Option<Mounted> {
        Mounted::mount(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.0.to_str().unwrap();
        run(&["umount", at]).or_else(|| run(&["umount", "-l", at]));
    }
}

/// A loop device with an image behind it, until it is dropped.
pub struct Disk(String);

impl Disk {
    pub fn attach(image: &Path) -> Option<Disk> {
        Some(Disk(run(&["losetup", "--find", "--show", image.to_str().unwrap()])?))
    }

    pub fn plug(&self, at: &Path) -> Option<Mounted> {
        Mounted::mount(at, &["-t", "ext4", &self.0])
    }

    pub fn plug_read_only(&self, at: &Path) -> Option<Mounted> {
        Mounted::mount(at, &["-t", "ext4", "-o", "ro", &self.0])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(&["losetup", "--detach", &self.0]);
    }
}

/// An image of an empty file system.
pub fn image(home: &Folder, name: &str) -> Option<PathBuf> {
    let path = home.path().join(name);
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    run(&["mkfs.ext4", "-q", "-F", path.to_str().unwrap()])?;
    Some(path)
}

/// Says that a test cannot be run here.
pub fn not_run<T>(what: Option<T>) -> Option<T> {
    if what.is_none() {
        eprintln!("not run: it needs mkfs.ext4, a loop device and the right to mount");
    }
    what
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn look(volumes: &mut Volumes, now: u64) -> Vec<What> {
    let sight = volumes.query().run(&mut System, Whose::Ours).unwrap();
    volumes.handle_sight(&sight, at(now)).into_iter().map(|change: Change| change.what).collect()
}

fn front(found: &Found) -> u64 {
    found.id.front()
}

#[test]
fn a_disk_that_comes_back_elsewhere_is_known_and_another_in_its_place_is_not() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-replugged");
    let (mine, other) = (home.path().join("mine \\ here"), home.path().join("other"));
    let test = || {
        let disk = Disk::attach(&image(&home, "disk.img")?)?;
        let another = Disk::attach(&image(&home, "another.img")?)?;
        let mounted = disk.plug(&mine)?;
        let film = mine.join("films/one");
        let found = identify(&film, true).unwrap();
        assert_eq!((found.kind, &found.mount.at), (Kind::File, &mine));
        assert_eq!(found.mount.fs, "ext4");
        let mut volumes = Volumes::new(4, Reserve::Bytes(0));
        volumes.note(&found).unwrap();
        let volume = front(&found);
        assert_eq!(look(&mut volumes, 0), []);
        // What was never there is believed to be gone only while the disk is there.
        assert!(volumes.is_there(volume, &film) && !volumes.is_there(volume, home.path()));
        let anchor = volumes.anchor(volume).unwrap();
        drop(mounted);
        assert!(!anchor.holds(&film), "an empty mount point is no disk, before any look");
        // The other takes its place under the same number, most likely.
        let stranger = another.plug(&mine).unwrap();
        fs::create_dir_all(&film).unwrap();
        assert!(!anchor.holds(&film));
        assert_eq!(look(&mut volumes, 1), [What::Is(State::Away)]);
        assert!(!volumes.is_there(volume, &film) && !mine.join(MARKER).exists());
        let mounted = disk.plug(&other).unwrap();
        assert_eq!(look(&mut volumes, 2), [What::Back(other.clone())]);
        assert_eq!(volumes.path_now(volume, &film).unwrap(), other.join("films/one"));
        assert!(volumes.is_there(volume, &other.join("films/one")));
        assert!(!volumes.is_there(volume, &film) && !anchor.holds(&film));
        drop((mounted, stranger));
        let _mounted = disk.plug(&mine).unwrap();
        assert_eq!(look(&mut volumes, 3), [What::Back(mine.clone())]);
        assert!(volumes.is_there(volume, &film) && anchor.holds(&film));
        Some(())
    };
    not_run(test());
}

#[test]
fn a_copy_of_a_disk_is_seen_and_the_first_goes_on() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-twice");
    let test = || {
        let original = image(&home, "disk.img")?;
        let disk = Disk::attach(&original)?;
        let (first, second) = (home.path().join("first"), home.path().join("second"));
        let mounted = disk.plug(&first)?;
        let found = identify(&first, true).unwrap();
        drop(mounted);
        fs::copy(&original, home.path().join("copy.img")).unwrap();
        let copy = Disk::attach(&home.path().join("copy.img")).unwrap();
        let mounted = disk.plug(&first).unwrap();
        let mut volumes = Volumes::new(4, Reserve::Bytes(0));
        volumes.note(&found).unwrap();
        assert_eq!(look(&mut volumes, 0), []);
        let copied = copy.plug(&second).unwrap();
        assert_eq!(look(&mut volumes, 1), [What::Is(State::Twice)]);
        let refusal = volumes.note(&identify(&second, true).unwrap()).unwrap_err().to_string();
        for path in [&first, &second] {
            assert!(refusal.contains(path.to_str().unwrap()), "{refusal}");
            let status = volumes.status(front(&found)).unwrap().to_string();
            assert!(status.contains(path.to_str().unwrap()), "{status}");
        }
        assert!(volumes.is_there(front(&found), &first.join("film")));
        assert!(!volumes.is_there(front(&found), &second.join("film")));
        // Without our file the copy is a disk of its own, though it has the UUID of the other.
        fs::remove_file(second.join(MARKER)).unwrap();
        assert_eq!(look(&mut volumes, 2), [What::Is(State::Well)]);
        let taken = volumes.query().take_up(&second, true).unwrap();
        assert_ne!(taken.id, found.id);
        volumes.note(&taken).unwrap();
        drop((mounted, copied));
        assert_eq!(look(&mut volumes, 3), [What::Is(State::Away), What::Is(State::Away)]);
        Some(())
    };
    not_run(test());
}

#[test]
fn a_disk_that_cannot_be_written_to_is_known_by_its_uuid_and_later_by_a_file_too() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-read-only");
    let test = || {
        let image = image(&home, "disk.img")?;
        let told = run(&["blkid", "-o", "value", "-s", "UUID", image.to_str().unwrap()])?;
        let read = superblock::uuid(&File::open(&image).unwrap());
        assert_eq!(read, Some(told.replace('-', "")));
        let disk = Disk::attach(&image)?;
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        let mounted = disk.plug_read_only(&one)?;
        let found = identify(&one, true).unwrap();
        assert_eq!((found.kind, found.space.read_only), (Kind::Uuid, true));
        let mut volumes = Volumes::new(4, Reserve::Bytes(0));
        volumes.note(&found).unwrap();
        let volume = front(&found);
        assert_eq!(volumes.status(volume).unwrap().state, State::ReadOnly);
        assert_eq!(look(&mut volumes, 0), []);
        drop(mounted);
        assert_eq!(look(&mut volumes, 1), [What::Is(State::Away)]);
        let mounted = disk.plug_read_only(&two).unwrap();
        assert_eq!(identify(&two, true).unwrap().id, found.id);
        assert_eq!(look(&mut volumes, 2), [What::Back(two.clone()), What::Is(State::ReadOnly)]);
        assert!(!volumes.may_fetch(volume, at(2)) && volumes.is_there(volume, &two.join("film")));
        run(&["mount", "-o", "remount,rw", two.to_str().unwrap()]).unwrap();
        assert_eq!(look(&mut volumes, 3), [What::Is(State::Well)]);
        assert!(volumes.may_fetch(volume, at(3)));
        // Now it can have a file; its name stays.
        let taken = volumes.query().take_up(&two, true).unwrap();
        assert_eq!((taken.id, taken.kind), (found.id, Kind::File));
        assert!(fs::read_to_string(two.join(MARKER)).unwrap().contains(&found.id.to_string()));
        assert_eq!(volumes.note(&taken).unwrap(), []);
        // And should somebody delete it, it is known all the same, and written again.
        fs::remove_file(two.join(MARKER)).unwrap();
        assert_eq!(look(&mut volumes, 4), []);
        assert!(volumes.is_there(volume, &two));
        assert_eq!(volumes.query().take_up(&two, true).unwrap().id, found.id);
        assert!(two.join(MARKER).exists());
        drop(mounted);
        Some(())
    };
    not_run(test());
}

#[test]
fn a_disk_that_is_filled_is_full_until_there_is_room_again() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-full");
    let disk = home.path().join("disk");
    let Some(_mounted) = not_run(Mounted::memory(&disk, "16m")) else { return };
    let found = identify(&disk.join("not/yet/there"), true).unwrap();
    assert_eq!((found.kind, found.space.total_bytes), (Kind::File, 16 << 20));
    // A sixteenth of it is kept free: 1 MiB.
    let mut volumes = Volumes::new(4, Reserve::Bytes(1 << 30));
    volumes.note(&found).unwrap();
    let volume = front(&found);
    assert_eq!(look(&mut volumes, 0), []);
    let mut film = File::create(disk.join("film")).unwrap();
    let error =
        std::iter::repeat_with(|| film.write_all(&[1; 4096])).find_map(Result::err).unwrap();
    let told = volumes.note_error(volume, Deed::Write, &error, at(1));
    assert_eq!(told[0].what, What::Is(State::Full));
    assert_eq!((look(&mut volumes, 2), volumes.may_fetch(volume, at(2))), (Vec::new(), false));
    let status = volumes.status(volume).unwrap().to_string();
    assert!(status.contains("full, 0 B left: fetching pauses until 1.25 MiB are free"), "{status}");
    // Enough for the reserve, and not enough to begin anew.
    film.set_len((16 << 20) - (1_100 << 10)).unwrap();
    assert_eq!(look(&mut volumes, 3), []);
    film.set_len(8 << 20).unwrap();
    assert_eq!(look(&mut volumes, 4), [What::Is(State::Well)]);
    assert!(volumes.may_fetch(volume, at(4)));
    film.set_len(14 << 20).unwrap();
    film.write_all(&[1; 1]).unwrap();
    assert_eq!(look(&mut volumes, 5), []);
}

#[test]
fn a_full_disk_without_our_file_is_shared_from_all_the_same() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-full-unmarked");
    let disk = home.path().join("disk");
    let Some(_mounted) = not_run(Mounted::memory(&disk, "1m")) else { return };
    let mut film = File::create(disk.join("film")).unwrap();
    while film.write_all(&[1; 4096]).is_ok() {}
    let found = identify(&disk, true).unwrap();
    assert_eq!((found.kind, fs::read_dir(&disk).unwrap().count()), (Kind::Weak, 1));
    // It is known for as long as it is mounted there, and no other.
    assert_eq!(identify(&disk, false).unwrap().id, found.id);
    assert_ne!(identify(home.path(), false).unwrap().id, found.id);
}

#[test]
fn a_bound_folder_is_a_volume_of_its_own_and_one_that_is_hidden_is_away() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-bound");
    let (disk, bound) = (home.path().join("disk"), home.path().join("bound"));
    let Some(mounted) = not_run(Mounted::memory(&disk, "4m")) else { return };
    fs::create_dir_all(disk.join("films")).unwrap();
    let films = disk.join("films");
    let bind = Mounted::mount(&bound, &["--bind", films.to_str().unwrap()]).unwrap();
    let (whole, part) = (identify(&films, true).unwrap(), identify(&bound, true).unwrap());
    assert_eq!((&whole.mount.at, &part.mount.at), (&disk, &bound));
    assert_ne!(whole.id, part.id);
    let mut volumes = Volumes::new(4, Reserve::Bytes(0));
    assert!(volumes.note(&whole).is_ok() && volumes.note(&part).is_ok());
    assert_eq!(look(&mut volumes, 0), []);
    assert!(volumes.is_there(front(&part), &bound.join("x")));
    assert!(!volumes.is_there(front(&part), &films.join("x")));
    // The same folder once more is no second disk.
    let again = home.path().join("again");
    let twin = Mounted::mount(&again, &["--bind", disk.to_str().unwrap()]).unwrap();
    assert_eq!(look(&mut volumes, 1), []);
    let found = identify(&again, true).unwrap();
    assert!(volumes.note(&found).is_ok());
    assert_eq!(volumes.path_to_store(&found, &again.join("x")), disk.join("x"));
    drop(twin);
    let cover = Mounted::memory(&disk, "1m").unwrap();
    assert_eq!(look(&mut volumes, 2), [What::Is(State::Away)]);
    assert!(!volumes.is_there(front(&whole), &films));
    drop(cover);
    assert_eq!(look(&mut volumes, 3), [What::Back(disk.clone())]);
    drop((bind, mounted));
    assert_eq!(look(&mut volumes, 4), [What::Is(State::Away), What::Is(State::Away)]);
}

#[test]
fn what_is_mounted_wakes_who_watches_and_nothing_else_does() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("volumes-watch");
    let disk = home.path().join("disk");
    let watch = Watch::new().unwrap();
    let heard = |limit_ms| {
        let pause = async {
            smol::Timer::after(Duration::from_millis(limit_ms)).await;
            false
        };
        let word = async {
            watch.changed().await.unwrap();
            true
        };
        smol::block_on(smol::future::or(word, pause))
    };
    // Other tests mount too, so that silence is heard only between their words.
    let is_silent = || (0..100).any(|_| !heard(50));
    assert!(is_silent());
    for _ in 0..3 {
        let Some(mounted) = not_run(Mounted::memory(&disk, "1m")) else { return };
        assert!(heard(5_000));
        assert!(is_silent());
        drop(mounted);
        assert!(heard(5_000));
        assert!(is_silent());
    }
}
