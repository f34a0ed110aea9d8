//! The table of volumes against a world that is made up and can be made to fail.

use super::look::Probe;
use super::*;
use identity::Space;
use rustix::io::Errno;

const GIB: u64 = 1 << 30;
const ONE: Reserve = Reserve::Bytes(GIB);

/// What is plugged in where, and what it answers with.
#[derive(Default)]
struct World {
    mounts: Vec<(Mount, Answer)>,
    fails: bool,
    looks: usize,
}

#[derive(Clone, Copy)]
enum Answer {
    Marked(u8, Space),
    Unmarked(Kind, u8, Space),
    Fails(Errno),
    Hidden,
}

fn id(number: u8) -> VolumeId {
    VolumeId::of(&[&[number]])
}

fn room(free_bytes: u64) -> Space {
    Space { total_bytes: 100 * GIB, free_bytes, read_only: false }
}

impl World {
    /// Mounts a disk, of which the number is that of its device, its id and its UUID.
    fn plug(&mut self, number: u8, at: &str) {
        self.mount(number, at, Answer::Marked(number, room(50 * GIB)));
    }

    fn mount(&mut self, device: u8, at: &str, answer: Answer) {
        let mount = Mount {
            id: self.mounts.len() as u64 + 100,
            device: (8, device.into()),
            root: "/".into(),
            at: at.into(),
            fs: "ext4".into(),
            source: "/dev/sd".into(),
        };
        self.mounts.push((mount, answer));
    }

    fn unplug(&mut self, at: &str) {
        self.mounts.retain(|(mount, _)| mount.at != Path::new(at));
    }

    fn answers(&mut self, at: &str, answer: Answer) {
        let mount = self.mounts.iter_mut().find(|(mount, _)| mount.at == Path::new(at));
        mount.unwrap().1 = answer;
    }

    fn found(&mut self, at: &str) -> Found {
        let mount = self.mounts.iter().find(|(mount, _)| mount.at == Path::new(at));
        let mount = mount.unwrap().0.clone();
        self.look_at(&mount).unwrap().unwrap()
    }

    fn look(&mut self, volumes: &mut Volumes, now: u64) -> Vec<(u64, What)> {
        let sight = volumes.query().run(self, Whose::Ours).unwrap();
        told(volumes.handle_sight(&sight, at(now)))
    }

    fn ask_others(&mut self, volumes: &mut Volumes, now: u64) -> Vec<(u64, What)> {
        let sight = volumes.query().run(self, Whose::Others).unwrap();
        told(volumes.handle_sight(&sight, at(now)))
    }
}

impl Probe for World {
    fn mounts(&mut self) -> io::Result<Vec<Mount>> {
        if self.fails {
            Err(Errno::IO.into())
        } else {
            Ok(self.mounts.iter().map(|m| m.0.clone()).collect())
        }
    }

    fn look_at(&mut self, mount: &Mount) -> io::Result<Option<Found>> {
        self.looks += 1;
        let answer = self.mounts.iter().find(|(known, _)| known == mount).unwrap().1;
        let unmarked_id = id(100 + mount.device.1 as u8);
        let (id, kind, unmarked_id, space) = match answer {
            Answer::Marked(number, space) => (id(number), Kind::File, unmarked_id, space),
            Answer::Unmarked(kind, number, space) => (id(number), kind, id(number), space),
            Answer::Fails(errno) => return Err(errno.into()),
            Answer::Hidden => return Ok(None),
        };
        let device = u64::from(mount.device.1);
        let standing = Standing { mount: Some(mount.id), device };
        Ok(Some(Found { id, kind, unmarked_id, mount: mount.clone(), standing, space }))
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn told(changes: Vec<Change>) -> Vec<(u64, What)> {
    changes.into_iter().map(|change| (change.volume, change.what)).collect()
}

fn is(number: u8, state: State) -> Vec<(u64, What)> {
    std::vec![(id(number).front(), What::Is(state))]
}

fn back(number: u8, at: &str) -> Vec<(u64, What)> {
    std::vec![(id(number).front(), What::Back(at.into()))]
}

/// Disk 1 at `/mnt/a`, known.
fn one_disk() -> (World, Volumes, u64) {
    let (mut world, mut volumes) = (World::default(), Volumes::new(4, ONE));
    world.plug(1, "/mnt/a");
    assert_eq!(volumes.note(&world.found("/mnt/a")).unwrap(), []);
    (world, volumes, id(1).front())
}

#[test]
fn a_disk_that_is_unplugged_sleeps_and_wakes_wherever_it_comes_back() {
    let (mut world, mut volumes, disk) = one_disk();
    let film = Path::new("/mnt/a/films/one");
    assert_eq!(world.look(&mut volumes, 0), []);
    assert_eq!(volumes.path_now(disk, film).unwrap(), film);
    world.unplug("/mnt/a");
    assert_eq!(world.look(&mut volumes, 1), is(1, State::Away));
    // Said once.
    assert_eq!(world.look(&mut volumes, 2), []);
    assert_eq!((volumes.path_now(disk, film), volumes.may_fetch(disk, at(2))), (None, false));
    assert!(volumes.anchor(disk).is_none());
    // Another one in its place is not it.
    world.plug(2, "/mnt/a");
    assert_eq!(world.look(&mut volumes, 3), []);
    world.plug(1, "/media/b");
    assert_eq!(world.look(&mut volumes, 4), back(1, "/media/b"));
    assert_eq!(volumes.path_now(disk, film).unwrap(), Path::new("/media/b/films/one"));
    assert!(volumes.may_fetch(disk, at(4)));
    // What is taken up there is recorded as if it still were at home, and found again.
    let found = world.found("/media/b");
    assert_eq!(volumes.note(&found).unwrap(), []);
    let new = volumes.path_to_store(&found, Path::new("/media/b/new"));
    assert_eq!(new, Path::new("/mnt/a/new"));
    world.unplug("/media/b");
    world.unplug("/mnt/a");
    world.plug(1, "/mnt/a");
    assert_eq!(world.look(&mut volumes, 5), back(1, "/mnt/a"));
    assert_eq!(volumes.path_now(disk, &new).unwrap(), new);
}

#[test]
fn a_disk_that_is_moved_between_two_looks_is_only_told_to_be_elsewhere() {
    let (mut world, mut volumes, _) = one_disk();
    world.unplug("/mnt/a");
    world.plug(1, "/mnt/b");
    assert_eq!(world.look(&mut volumes, 0), back(1, "/mnt/b"));
}

#[test]
fn what_was_known_is_looked_for_after_a_start_and_each_is_told_once() {
    let (mut world, mut volumes, disk) = one_disk();
    world.plug(2, "/mnt/my %disk\n2");
    volumes.note(&world.found("/mnt/my %disk\n2")).unwrap();
    let text = volumes.to_text();
    let mut again = Volumes::new(4, ONE);
    assert_eq!(again.deadline(true, false).at, Instant::NEVER);
    assert_eq!(again.read(&text), 0);
    assert_eq!(again.to_text(), text);
    assert!(again.path_now(disk, Path::new("/mnt/a/x")).is_none() && again.knows(disk));
    assert_eq!(again.deadline(false, true).at, at(0));
    world.unplug("/mnt/a");
    let home = "/mnt/my %disk\n2";
    assert_eq!(world.look(&mut again, 0), [is(1, State::Away), back(2, home)].concat());
    assert_eq!(world.look(&mut again, 1), []);
    // Every damage costs its own line, and no more.
    let damaged = text.replacen(' ', "x", 1);
    let mut third = Volumes::new(4, ONE);
    assert_eq!((third.read(&damaged), third.knows(disk)), (1, false));
    assert_eq!((third.read(&text), third.knows(disk)), (1, true));
    assert_eq!(Volumes::new(1, ONE).read(&text), 1);
    for end in 0..text.len() {
        Volumes::new(4, ONE).read(&text[..end]);
    }
}

#[test]
fn a_copy_of_a_disk_is_refused_and_the_first_goes_on() {
    let (mut world, mut volumes, disk) = one_disk();
    world.mount(2, "/mnt/copy", Answer::Marked(1, room(GIB * 9)));
    let refusal = volumes.note(&world.found("/mnt/copy")).unwrap_err().to_string();
    assert!(refusal.contains("/mnt/copy") && refusal.contains("/mnt/a"), "{refusal}");
    assert_eq!(world.look(&mut volumes, 0), is(1, State::Twice));
    let text = volumes.status(disk).unwrap().to_string();
    assert!(text.contains("at /mnt/a and at /mnt/copy: /mnt/a goes on"), "{text}");
    assert_eq!(volumes.path_now(disk, Path::new("/mnt/a/x")).unwrap(), Path::new("/mnt/a/x"));
    assert!(volumes.may_fetch(disk, at(0)));
    assert_eq!(world.look(&mut volumes, 1), []);
    // Taken away, it is as if it had never been.
    world.unplug("/mnt/copy");
    assert_eq!(world.look(&mut volumes, 2), is(1, State::Well));
    // Where nobody knows which was first, neither is used, unless one is at home.
    let text = volumes.to_text();
    world.mount(2, "/mnt/copy", Answer::Marked(1, room(GIB * 9)));
    let mut again = Volumes::new(4, ONE);
    again.read(&text);
    assert_eq!(world.look(&mut again, 0), [back(1, "/mnt/a"), is(1, State::Twice)].concat());
    world.unplug("/mnt/a");
    world.plug(1, "/mnt/b");
    let mut again = Volumes::new(4, ONE);
    again.read(&text);
    assert_eq!(world.look(&mut again, 0), is(1, State::Twice));
    assert!(again.path_now(disk, Path::new("/mnt/a/x")).is_none());
    let text = again.status(disk).unwrap().to_string();
    assert!(text.contains("/mnt/copy") && text.contains("/mnt/b") && text.contains("sleep"));
    world.unplug("/mnt/copy");
    assert_eq!(world.look(&mut again, 1), back(1, "/mnt/b"));
}

#[test]
fn a_folder_that_is_mounted_at_two_places_is_there_once() {
    let (mut world, mut volumes, disk) = one_disk();
    let (mut bound, answer) = world.mounts[0].clone();
    (bound.id, bound.at) = (999, "/srv".into());
    world.mounts.insert(0, (bound, answer));
    assert_eq!(world.look(&mut volumes, 0), []);
    let found = world.found("/srv");
    assert_eq!(volumes.note(&found).unwrap(), []);
    assert_eq!(volumes.path_to_store(&found, Path::new("/srv/x")), Path::new("/mnt/a/x"));
    // The place that was used goes, the other stays.
    world.unplug("/mnt/a");
    assert_eq!(world.look(&mut volumes, 1), back(1, "/srv"));
    assert_eq!(volumes.path_now(disk, Path::new("/mnt/a")).unwrap(), Path::new("/srv"));
}

#[test]
fn a_disk_whose_file_was_deleted_is_known_by_its_uuid_and_one_without_a_uuid_is_not() {
    let (mut world, mut volumes, _) = one_disk();
    world.answers("/mnt/a", Answer::Unmarked(Kind::Uuid, 101, room(GIB * 9)));
    assert_eq!(world.look(&mut volumes, 0), []);
    let taken = volumes.query();
    assert_eq!(taken.volumes[0].known.kind, Kind::File);
    // Nothing of it but its place is the same: it could be any.
    world.answers("/mnt/a", Answer::Unmarked(Kind::Weak, 101, room(GIB * 9)));
    assert_eq!(world.look(&mut volumes, 1), is(1, State::Away));
    // A file that names another disk names another disk.
    world.answers("/mnt/a", Answer::Marked(7, room(GIB * 9)));
    assert_eq!(world.look(&mut volumes, 2), []);
}

#[test]
fn a_disk_known_by_its_uuid_is_known_with_a_file_too() {
    let (mut world, mut volumes) = (World::default(), Volumes::new(4, ONE));
    let read_only = Space { read_only: true, ..room(GIB * 9) };
    world.mount(1, "/mnt/a", Answer::Unmarked(Kind::Uuid, 101, read_only));
    volumes.note(&world.found("/mnt/a")).unwrap();
    let disk = id(101).front();
    assert!(!volumes.may_fetch(disk, at(0)));
    assert_eq!(volumes.status(disk).unwrap().state, State::ReadOnly);
    world.answers("/mnt/a", Answer::Marked(1, room(GIB * 9)));
    assert_eq!(world.look(&mut volumes, 0), is(101, State::Well));
    assert!(volumes.may_fetch(disk, at(0)) && volumes.path_now(disk, Path::new("/x")).is_some());
}

#[test]
fn each_trouble_is_told_once_however_many_errors_there_are() {
    let (mut world, mut volumes, disk) = one_disk();
    world.look(&mut volumes, 0);
    assert_eq!(volumes.deadline(false, true).at, Instant::NEVER);
    let full = Errno::NOSPC.into();
    assert_eq!(told(volumes.note_error(disk, Deed::Write, &full, at(1))), is(1, State::Full));
    for now in 2..100 {
        assert_eq!(volumes.note_error(disk, Deed::Write, &full, at(now)), []);
    }
    // It is looked at soon, but not for each of them.
    assert_eq!(volumes.deadline(false, true).at, at(LOOK_PAUSE_MS));
    world.answers("/mnt/a", Answer::Marked(1, room(5 << 20)));
    assert_eq!(world.look(&mut volumes, LOOK_PAUSE_MS), []);
    let text = volumes.status(disk).unwrap().to_string();
    assert!(
        text.contains("full, 5.00 MiB left: fetching pauses until 1.25 GiB are free"),
        "{text}"
    );
    assert_eq!(volumes.deadline(false, true).at, Instant::NEVER);
    assert_eq!(volumes.deadline(true, true).at, at(LOOK_PAUSE_MS + LOOK_MS));
    assert!(!volumes.may_fetch(disk, at(LOOK_PAUSE_MS)));
    world.answers("/mnt/a", Answer::Marked(1, room(GIB)));
    assert_eq!(world.look(&mut volumes, 20_000), []);
    world.answers("/mnt/a", Answer::Marked(1, room(2 * GIB)));
    assert_eq!(world.look(&mut volumes, 30_000), is(1, State::Well));
    // Worse troubles stand before lesser ones, and let them show again when they have passed.
    let (read_only, broken) = (Errno::ROFS.into(), Errno::IO.into());
    let now = at(40_000);
    assert_eq!(told(volumes.note_error(disk, Deed::Write, &full, now)), is(1, State::Full));
    assert_eq!(told(volumes.note_error(disk, Deed::Read, &broken, now)), is(1, State::Failing));
    assert_eq!(volumes.note_error(disk, Deed::Write, &read_only, now), []);
    world.answers("/mnt/a", Answer::Marked(1, room(5 * GIB)));
    assert_eq!(world.look(&mut volumes, 41_000), []);
    assert_eq!(volumes.deadline(false, true).at, now.after(health::QUIET_MS));
    assert_eq!(world.look(&mut volumes, 40_000 + health::QUIET_MS), is(1, State::ReadOnly));
    let later = at(50_000 + health::QUIET_MS);
    assert_eq!(told(volumes.note_written(disk, later)), is(1, State::Well));
    assert_eq!(volumes.note_written(disk, later), []);
}

#[test]
fn an_error_of_a_file_or_of_an_unknown_disk_changes_nothing() {
    let (_, mut volumes, disk) = one_disk();
    assert_eq!(volumes.note_error(disk, Deed::Read, &Errno::NOENT.into(), at(0)), []);
    assert_eq!(volumes.note_error(disk + 1, Deed::Read, &Errno::IO.into(), at(0)), []);
    assert!(
        volumes.note_written(disk + 1, at(0)).is_empty() && !volumes.may_fetch(disk + 1, at(0))
    );
}

#[test]
fn a_disk_that_answers_with_errors_is_there_and_fails() {
    let (mut world, mut volumes, disk) = one_disk();
    world.answers("/mnt/a", Answer::Fails(Errno::IO));
    assert_eq!(world.look(&mut volumes, 0), is(1, State::Failing));
    assert!(volumes.path_now(disk, Path::new("/mnt/a/x")).is_some());
    assert!(!volumes.may_fetch(disk, at(0)));
    // Pulled out without a word, or hidden by another mount, it is not there.
    world.answers("/mnt/a", Answer::Hidden);
    assert_eq!(world.look(&mut volumes, 1), is(1, State::Away));
    world.answers("/mnt/a", Answer::Fails(Errno::IO));
    assert_eq!(world.look(&mut volumes, 2), []);
}

#[test]
fn a_disk_that_says_it_is_gone_is_not_believed_to_be_there_for_a_while() {
    let (mut world, mut volumes, disk) = one_disk();
    world.look(&mut volumes, 0);
    let gone = Errno::NODEV.into();
    assert_eq!(told(volumes.note_error(disk, Deed::Read, &gone, at(5))), is(1, State::Away));
    assert_eq!(world.look(&mut volumes, 1_000), []);
    let until = volumes.deadline(false, true).at;
    assert_eq!(until, at(5 + health::TRIAL_MS));
    // Plugged in anew it is another mount, and believed at once.
    let (mut later, _) = (World::default(), world.mounts.clone());
    later.mount(9, "/", Answer::Marked(9, room(GIB * 9)));
    later.plug(1, "/mnt/a");
    let sight = volumes.query().run(&mut later, Whose::Ours).unwrap();
    let mut other = Volumes::new(4, ONE);
    other.note(&world.found("/mnt/a")).unwrap();
    other.note_error(disk, Deed::Read, &gone, at(5));
    assert_eq!(told(other.handle_sight(&sight, at(1_000))), back(1, "/mnt/a"));
    assert_eq!(world.look(&mut volumes, until.as_millis()), back(1, "/mnt/a"));
    assert_eq!(volumes.deadline(false, true).at, Instant::NEVER);
}

#[test]
fn servers_that_may_never_answer_are_asked_only_where_a_volume_was() {
    let (mut world, mut volumes, _) = one_disk();
    world.mount(7, "/net/a", Answer::Fails(Errno::STALE));
    world.mount(8, "/net/b", Answer::Marked(8, room(GIB * 9)));
    world.mount(9, "/proc", Answer::Hidden);
    for ((mount, _), fs) in world.mounts.iter_mut().skip(1).zip(["nfs4", "cifs", "proc"]) {
        mount.fs = fs.into();
    }
    world.looks = 0;
    assert_eq!((world.look(&mut volumes, 0), world.looks), (Vec::new(), 1));
    assert_eq!((world.ask_others(&mut volumes, 0), world.looks), (Vec::new(), 1));
    volumes.note(&world.found("/net/b")).unwrap();
    world.looks = 0;
    // Each look leaves alone what is the other's to see.
    assert_eq!((world.look(&mut volumes, 1), world.looks), (Vec::new(), 1));
    assert_eq!((world.ask_others(&mut volumes, 1), world.looks), (Vec::new(), 2));
    world.unplug("/mnt/a");
    assert_eq!(world.look(&mut volumes, 2), is(1, State::Away));
    world.unplug("/net/b");
    assert_eq!(world.ask_others(&mut volumes, 2), is(8, State::Away));
    world.fails = true;
    assert!(volumes.query().run(&mut world, Whose::Ours).is_err());
}

#[test]
fn one_disk_more_than_there_is_room_for_is_refused() {
    let (mut world, mut volumes) = (World::default(), Volumes::new(2, ONE));
    for (number, at) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        world.plug(number, at);
    }
    assert!(volumes.note(&world.found("/a")).is_ok() && volumes.note(&world.found("/b")).is_ok());
    let refusal = volumes.note(&world.found("/c")).unwrap_err().to_string();
    assert!(refusal.contains("/c: is one disk more than the 2 there is room for"), "{refusal}");
    volumes.forget_all_but(&[id(2).front()]);
    assert!(volumes.note(&world.found("/c")).is_ok());
    assert_eq!(volumes.statuses().map(|status| status.id).collect::<Vec<_>>(), [id(2), id(3)]);
}

#[test]
fn a_path_follows_its_disk_and_one_elsewhere_stays() {
    let path =
        |from: &str, to: &str, path: &str| relocate(from.as_ref(), to.as_ref(), path.as_ref());
    assert_eq!(path("/mnt/a", "/b", "/mnt/a/c/d"), Path::new("/b/c/d"));
    assert_eq!(path("/mnt/a", "/b", "/mnt/a").as_os_str(), "/b");
    assert_eq!(path("/", "/mnt/old", "/home/x"), Path::new("/mnt/old/home/x"));
    assert_eq!(path("/mnt/old", "/", "/mnt/old/home/x"), Path::new("/home/x"));
    assert_eq!(path("/mnt/a", "/b", "/mnt/ab/c"), Path::new("/mnt/ab/c"));
}
