//! Watched folders, with the kernel and its file systems telling what happens.

use crate::program::Folder;
use crate::{lacks_root, prng};
use perennial::engine::units::{Deadline, Instant};
use perennial::service::watch::{Change, Counts, Identity, Key, Limits, Watch, Why};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A watch, the time since it began, and what it has told.
struct Stage {
    watch: Box<Watch>,
    started: std::time::Instant,
    told: Vec<(Change, Instant)>,
    /// Time spent in turns.
    spent: Duration,
}

/// As much as the tests need.
const LIMITS: Limits = Limits {
    entries_max: 20_000,
    observed_max: 256,
    watches_max: 1_000,
    poll_ms: 200,
    listens: true,
};

impl Stage {
    fn new(folder: &Path, limits: Limits) -> Stage {
        let watch = Box::new(Watch::open(folder, limits).unwrap());
        Stage { watch, started: std::time::Instant::now(), told: Vec::new(), spent: Duration::ZERO }
    }

    /// One that has told all there is, and idles.
    fn idle(folder: &Path, limits: Limits) -> Stage {
        let mut stage = Stage::new(folder, limits);
        stage.wait(700);
        stage.told.clear();
        stage
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.started.elapsed().as_millis() as u64)
    }

    /// Does what the owner of a watch does until `is_enough`, or for so long.
    fn run(&mut self, ms: u64, is_enough: impl Fn(&[(Change, Instant)]) -> bool) {
        let until = self.now().after(ms);
        while self.now() < until && !is_enough(&self.told) {
            let due = self.watch.deadline().at.min(until);
            let wait = Duration::from_millis(due.since(self.now()));
            let timer = async {
                smol::Timer::after(wait).await;
            };
            smol::block_on(smol::future::or(self.watch.news(), timer));
            let now = self.now();
            let began = std::time::Instant::now();
            self.watch.turn(now);
            self.spent += began.elapsed();
            while let Some(change) = self.watch.take_change() {
                self.told.push((change, self.now()));
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.run(ms, |_| false);
    }

    /// Waits for so many changes, then a while for one too many, and takes them.
    fn take(&mut self, count: usize) -> Vec<Change> {
        self.run(10_000, |told| told.len() >= count);
        self.wait(300);
        std::mem::take(&mut self.told).into_iter().map(|(change, _)| change).collect()
    }

    /// Waits for long enough that something would have been told.
    fn assert_silent(&mut self, why: &str) {
        self.wait(900);
        assert_eq!(self.told, [], "{why}");
    }

    fn counts(&self) -> Counts {
        self.watch.counts()
    }

    /// What an entry that has just been told of is.
    fn identity_of(&mut self, name: &str) -> Identity {
        match &self.take(1)[..] {
            [Change::Rests { name: told, identity }] if told == name => *identity,
            told => panic!("{name} is at rest, not {told:?}"),
        }
    }
}

fn gone(folder: &Path, name: &str) -> Change {
    Change::Gone { key: Key::of(folder, name) }
}

#[test]
fn a_dropped_file_is_told_of_within_a_second_and_an_idle_watch_never_wakes() {
    let home = Folder::new("watch-drop");
    let mut stage = Stage::idle(home.path(), LIMITS);
    home.write("film.mkv", &vec![7; 1 << 20]);
    let written = stage.now();
    stage.run(5_000, |told| !told.is_empty());
    let (change, at) = stage.told.remove(0);
    assert!(matches!(change, Change::Rests { name, .. } if name == "film.mkv"));
    eprintln!("told {} ms after the last byte", at.since(written));
    assert!(at.since(written) < 1_000);
    assert_eq!(stage.counts().looks, 1);
    stage.wait(200);
    let turns = stage.counts().turns;
    assert_eq!(stage.watch.deadline().at, Instant::NEVER);
    stage.wait(1_000);
    assert!(stage.counts().turns <= turns + 1, "only the end of the wait is a turn");
    // Reading it wakes nobody.
    fs::read(home.path().join("film.mkv")).unwrap();
    let silence = async {
        smol::Timer::after(Duration::from_millis(100)).await;
        false
    };
    let news = async {
        stage.watch.news().await;
        true
    };
    assert!(!smol::block_on(smol::future::or(news, silence)));
}

#[test]
fn a_file_copied_in_steps_is_told_of_when_it_is_closed() {
    let home = Folder::new("watch-slow");
    let mut stage = Stage::idle(home.path(), LIMITS);
    let mut file = File::create(home.path().join("film")).unwrap();
    for _ in 0..3 {
        file.write_all(&[7; 1_000]).unwrap();
        stage.wait(700);
    }
    assert_eq!((stage.told.len(), stage.counts().looks), (0, 0));
    drop(file);
    stage.identity_of("film");
    assert_eq!(stage.counts().looks, 1);
    // Half-copied by others.
    for name in ["a.part", "b.crdownload", "c.tmp", ".syncthing.d.tmp", "~e", ".hidden"] {
        home.write(name, b"half");
    }
    stage.wait(700);
    assert_eq!((stage.told.len(), stage.counts().looks), (0, 1));
    fs::rename(home.path().join("a.part"), home.path().join("a")).unwrap();
    stage.identity_of("a");
    assert_eq!(stage.counts().looks, 2);
}

#[test]
fn a_renamed_file_and_a_renamed_folder_keep_their_identities_and_are_not_looked_at() {
    let home = Folder::new("watch-rename");
    let elsewhere = Folder::new("watch-elsewhere");
    let mut stage = Stage::idle(home.path(), LIMITS);
    home.write("film", b"film");
    let film = stage.identity_of("film");
    home.write("season/one/a", b"one");
    let season = stage.identity_of("season");
    let looks = stage.counts().looks;
    let renamed = |from, to: &str, identity| {
        let (from, to) = (Key::of(home.path(), from), to.to_string());
        Change::Renamed { from, to, identity }
    };
    let rename = |from: &str, to: &Path| fs::rename(home.path().join(from), to).unwrap();
    rename("film", &home.path().join("movie"));
    assert_eq!(stage.take(1), [renamed("film", "movie", film)]);
    rename("season", &home.path().join("series"));
    assert_eq!(stage.take(1), [renamed("season", "series", season)]);
    assert_eq!(stage.counts().looks, looks);
    // It is still listened to under its new name.
    home.write("series/one/b", b"two");
    assert_ne!(stage.identity_of("series"), season);
    rename("series", &elsewhere.path().join("series"));
    assert_eq!(stage.take(1), [gone(home.path(), "series")]);
    fs::write(elsewhere.path().join("series/one/c"), b"not ours").unwrap();
    stage.assert_silent("what has gone elsewhere is not listened to");
    fs::remove_file(home.path().join("movie")).unwrap();
    assert_eq!(stage.take(1), [gone(home.path(), "movie")]);
}

#[test]
fn a_change_below_a_folder_is_a_change_of_the_folder() {
    let home = Folder::new("watch-below");
    for name in ["season/one/a", "season/two/b", "other"] {
        home.write(name, name.as_bytes());
    }
    let mut stage = Stage::new(home.path(), LIMITS);
    assert_eq!(stage.take(2).len(), 2);
    assert_eq!(
        (stage.counts().looks, stage.counts().watches),
        (4, 1 + 3),
        "each twice: all is new"
    );
    let mut last = None;
    let change = |stage: &mut Stage, looks: u64, change: &dyn Fn(&Path)| {
        let before = stage.counts().looks;
        change(&home.path().join("season"));
        let identity = stage.identity_of("season");
        assert_ne!(last.replace(identity), Some(identity));
        assert_eq!(stage.counts().looks - before, looks);
    };
    let mut change = change;
    change(&mut stage, 1, &|season| fs::write(season.join("one/a"), b"longer").unwrap());
    change(&mut stage, 1, &|season| fs::rename(season.join("one/a"), season.join("c")).unwrap());
    change(&mut stage, 1, &|season| fs::remove_file(season.join("two/b")).unwrap());
    // What is in a new folder is heard after the first look at it.
    change(&mut stage, 2, &|season| {
        fs::create_dir_all(season.join("three/deep")).unwrap();
        fs::write(season.join("three/deep/d"), b"d").unwrap();
    });
    change(&mut stage, 1, &|season| fs::write(season.join("three/deep/e"), b"e").unwrap());
    // Nothing has changed when its rights have.
    let before = stage.counts().looks;
    let path = home.path().join("season/c");
    let rights = fs::metadata(&path).unwrap().permissions();
    fs::set_permissions(&path, rights).unwrap();
    stage.assert_silent("its rights are not what it is");
    assert_eq!(stage.counts().looks - before, 1);
    fs::remove_dir_all(home.path().join("season")).unwrap();
    assert_eq!(stage.take(1), [gone(home.path(), "season")]);
    assert_eq!(stage.counts().watches, 1);
}

#[test]
fn a_folder_that_is_removed_and_put_back_is_away_meanwhile() {
    let home = Folder::new("watch-away");
    home.write("shares/a", b"a");
    home.write("shares/b", b"b");
    let (folder, aside) = (home.path().join("shares"), home.path().join("aside"));
    let mut stage = Stage::new(&folder, LIMITS);
    assert_eq!(stage.take(2).len(), 2);
    fs::rename(&folder, &aside).unwrap();
    assert_eq!(stage.take(1), [Change::Away]);
    assert_eq!(stage.watch.deadline().why, "a watched folder that is away");
    fs::write(aside.join("b"), b"changed").unwrap();
    fs::rename(&aside, &folder).unwrap();
    // Somebody knows that the volume is back; without a word it takes five seconds.
    stage.watch.doubt();
    let told = stage.take(2);
    assert_eq!(told[0], Change::Back);
    assert!(matches!(&told[1..], [Change::Rests { name, .. }] if name == "b"), "{told:?}");
    // Deleted with all that is in it, and made again.
    fs::remove_dir_all(&folder).unwrap();
    let told = stage.take(3);
    assert_eq!(told.len(), 3);
    assert!(
        [gone(&folder, "a"), gone(&folder, "b"), Change::Away]
            .iter()
            .all(|change| told.contains(change))
    );
    home.write("shares/c", b"c");
    stage.watch.doubt();
    assert!(matches!(&stage.take(2)[..], [Change::Back, Change::Rests { .. }]));
    // One that is not there yet is away from the start.
    let mut early = Stage::new(&home.path().join("later"), LIMITS);
    assert_eq!(early.take(1), [Change::Away]);
    assert!(Watch::open(&folder.join("c"), LIMITS).is_err());
}

#[test]
fn ten_thousand_files_dropped_at_once_are_looked_at_once_each() {
    let home = Folder::within(Path::new("/dev/shm"), "watch-many");
    let mut stage = Stage::idle(home.path(), LIMITS);
    for batch in 0..10 {
        for file in 0..1_000 {
            home.write(format!("{batch}-{file}"), b"something");
        }
        // They are read as they come: the kernel keeps no more than 16,384 events.
        stage.wait(1);
    }
    let written = stage.now();
    stage.run(20_000, |told| told.len() == 10_000);
    let took = stage.now().since(written);
    eprintln!("all told {took} ms after the last, {:?} in all turns", stage.spent);
    stage.wait(300);
    assert_eq!((stage.told.len(), stage.counts().entries), (10_000, 10_000));
    eprintln!("{:?}", stage.counts());
    assert_eq!(stage.counts().looks, 10_000);
    assert!(took < 5_000);
}

#[test]
fn events_that_the_kernel_has_lost_cost_a_look_and_no_entry() {
    let home = Folder::within(Path::new("/dev/shm"), "watch-lost");
    home.write("was there", b"x");
    let mut stage = Stage::new(home.path(), LIMITS);
    stage.take(1);
    // Three events each, 16,384 are kept.
    for file in 0..8_000 {
        home.write(file.to_string(), b"something");
    }
    fs::write(home.path().join("was there"), b"and has changed").unwrap();
    stage.run(20_000, |told| told.len() == 8_001);
    stage.wait(700);
    eprintln!("{:?}", stage.counts());
    assert_eq!((stage.told.len(), stage.counts().observed), (8_001, 0));
    assert!(stage.counts().looks <= 2 + 2 * 8_001);
}

#[test]
fn what_the_kernel_does_not_tell_is_noticed_by_looking() {
    assert_noticed(Limits { listens: false, ..LIMITS }, Why::Asked);
}

#[test]
fn a_kernel_without_inotify_or_without_watches_is_helped_by_looking() {
    let test = "watch::a_kernel_without_inotify_or_without_watches_is_helped_by_looking";
    match &std::env::var(AGAIN).unwrap_or_default()[..] {
        "0 > inotify_instances" => assert_noticed(LIMITS, Why::NoInotify),
        "1 > inotify_watches" => assert_noticed(LIMITS, Why::WatchesOfKernel),
        _ if lacks_root() => {}
        _ => {
            for limit in ["0 > inotify_instances", "1 > inotify_watches"] {
                let set = format!("echo {}", limit.replace("> ", "> /proc/sys/user/max_"));
                again_in(&["--user", "--map-root-user"], &set, test, limit);
            }
        }
    }
}

#[test]
fn a_volume_that_is_unmounted_is_away_and_its_bare_mount_point_is_not_it() {
    let test = "watch::a_volume_that_is_unmounted_is_away_and_its_bare_mount_point_is_not_it";
    if lacks_root() {
        return;
    }
    if std::env::var(AGAIN).is_err() {
        return again_in(&["--mount"], "true", test, "mounts");
    }
    let home = Folder::new("watch-mount");
    let (folder, aside) = (home.path().join("volume"), home.path().join("aside"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&aside).unwrap();
    let run = |words: &[&Path]| {
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    };
    let path = Path::new;
    run(&[path("mount"), path("-t"), path("tmpfs"), path("none"), &folder]);
    home.write("volume/shares/a", b"a");
    let shares = folder.join("shares");
    let mut stage = Stage::new(&shares, LIMITS);
    let mut whole = Stage::new(&folder, LIMITS);
    assert_eq!((stage.take(1).len(), whole.take(1).len()), (1, 1));
    // Nobody hears of this.
    run(&[path("mount"), path("--move"), &folder, &aside]);
    for stage in [&mut stage, &mut whole] {
        stage.watch.doubt();
        assert_eq!(stage.take(1), [Change::Away]);
        stage.watch.doubt();
        stage.assert_silent("the bare mount point is empty, and says nothing of the volume");
    }
    run(&[path("mount"), path("--move"), &aside, &folder]);
    for stage in [&mut stage, &mut whole] {
        stage.watch.doubt();
        assert_eq!(stage.take(1), [Change::Back]);
        assert_eq!(stage.counts().looks, 3, "nothing has changed");
    }
    // The kernel tells of this.
    run(&[path("umount"), &folder]);
    assert_eq!(stage.take(1), [Change::Away]);
    assert_eq!(whole.take(1), [Change::Away]);
}

#[test]
fn with_too_few_watches_it_listens_where_it_can_and_looks_elsewhere() {
    let home = Folder::new("watch-few");
    for name in ["one/a", "two/b", "three/c"] {
        home.write(name, b"x");
    }
    let mut stage = Stage::new(home.path(), Limits { watches_max: 2, ..LIMITS });
    let told = stage.take(4);
    assert_eq!(told.len(), 4);
    assert!(told.contains(&Change::Polling { why: Why::WatchesOfBoard }));
    for name in ["one", "two", "three"] {
        home.write(format!("{name}/new"), b"x");
        stage.identity_of(name);
    }
}

#[test]
fn after_whatever_was_done_to_a_folder_its_watch_knows_what_a_new_one_finds() {
    for seed in 1..=2 {
        let home = Folder::within(Path::new("/dev/shm"), "watch-chance");
        let mut stage = Stage::new(home.path(), LIMITS);
        let (mut chance, stop) = (prng::Prng::new(seed), Instant::from_millis(30_000));
        for step in 0..150_usize {
            change_something(home.path(), &mut chance, step);
            if chance.below(4) == 0 {
                let ms = if chance.below(20) == 0 { 600 } else { chance.below(20) };
                stage.wait(ms.into());
            }
        }
        stage.wait(1_000);
        while stage.watch.deadline() != Deadline::NONE && stage.now() < stop {
            stage.wait(100);
        }
        let mut belief = BTreeMap::new();
        for (change, _) in std::mem::take(&mut stage.told) {
            match change {
                Change::Rests { name, identity } => {
                    belief.insert(Key::of(home.path(), &name), identity);
                }
                Change::Gone { key } => assert!(belief.remove(&key).is_some()),
                Change::Renamed { from, to, identity } => {
                    assert_eq!(belief.remove(&from), Some(identity), "{to}");
                    belief.insert(Key::of(home.path(), &to), identity);
                }
                other => panic!("{other:?}"),
            }
        }
        let mut fresh = Stage::new(home.path(), LIMITS);
        fresh.wait(1_300);
        let found = fresh.told.into_iter().map(|(change, _)| match change {
            Change::Rests { name, identity } => (Key::of(home.path(), &name), identity),
            other => panic!("{other:?}"),
        });
        assert_eq!(belief, found.collect(), "seed {seed}");
    }
}

/// Does one of the things that people do with files, if there is something to do it to.
fn change_something(folder: &Path, chance: &mut prng::Prng, step: usize) {
    let mut pick = |below: bool| {
        let name = chance.below(8).to_string();
        let inner = ["a", "b", "c/d", "c"][chance.below(4) as usize];
        if below { folder.join(name).join(inner) } else { folder.join(name) }
    };
    let (file, folder, other, inner, elsewhere) =
        (pick(false), pick(false), pick(false), pick(true), pick(true));
    // Much of this cannot be done at a time, and then is not.
    let _ = match chance.below(9) {
        0 => fs::write(file, vec![1; step + 1]),
        1 => fs::create_dir_all(folder.join("c")),
        2 | 3 => fs::write(inner, vec![1; step + 1]),
        4 => fs::rename(file, other),
        5 => fs::rename(inner, elsewhere),
        6 => fs::rename(inner, other),
        7 => fs::remove_file(inner),
        _ if step.is_multiple_of(3) => fs::remove_dir_all(folder),
        _ => fs::remove_file(file),
    };
}

#[test]
fn what_was_known_before_is_not_told_again() {
    let home = Folder::new("watch-known");
    for name in ["same", "renamed", "gone", "changed"] {
        home.write(name, name.as_bytes());
    }
    home.write("season/a", b"a");
    let mut stage = Stage::new(home.path(), LIMITS);
    let known = stage.take(5);
    drop(stage);
    let path = |name| home.path().join(name);
    fs::rename(path("renamed"), path("new name")).unwrap();
    fs::remove_file(path("gone")).unwrap();
    fs::write(path("changed"), b"longer than before").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path("link")).unwrap();
    let mut stage = Stage::new(home.path(), LIMITS);
    for change in known {
        let Change::Rests { name, identity } = change else { panic!("{change:?}") };
        stage.watch.know(Key::of(home.path(), &name), identity).unwrap();
    }
    let told = stage.take(4);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.contains(&gone(home.path(), "gone")));
    for told in told {
        match told {
            Change::Renamed { from, to, .. } => {
                assert_eq!((from, &to[..]), (Key::of(home.path(), "renamed"), "new name"));
            }
            Change::Rests { name, .. } => assert_eq!(name, "changed"),
            Change::LeftOut { name, .. } => assert_eq!(name, "link"),
            other => assert_eq!(other, gone(home.path(), "gone")),
        }
    }
}

/// Notices everything although the kernel does not tell.
fn assert_noticed(limits: Limits, why: Why) {
    let home = Folder::new("watch-poll");
    home.write("a", b"a");
    home.write("season/b", b"b");
    let mut stage = Stage::new(home.path(), limits);
    let told = stage.take(3);
    assert_eq!(told.len(), 3);
    assert!(told.contains(&Change::Polling { why }), "{told:?}");
    stage.wait(500);
    assert_eq!(stage.watch.deadline().why, "a watched folder that does not tell");
    fs::rename(home.path().join("a"), home.path().join("c")).unwrap();
    assert!(matches!(&stage.take(1)[..], [Change::Renamed { to, .. }] if to == "c"));
    home.write("season/b", b"longer");
    stage.identity_of("season");
    fs::remove_file(home.path().join("c")).unwrap();
    assert_eq!(stage.take(1), [gone(home.path(), "c")]);
    let counts = stage.counts();
    stage.wait(1_000);
    let (looks, readings) =
        (stage.counts().looks - counts.looks, stage.counts().readings - counts.readings);
    // Each period one look at the one entry, and two readings: what is there, what to look at.
    assert!(looks <= 5 && readings <= 10, "{looks} looks, {readings} readings");
}

/// Runs a test of this program once more, in namespaces of its own, after a shell command.
fn again_in(namespaces: &[&str], set_up: &str, test: &str, word: &str) {
    let script = format!("set -e; {set_up}; exec \"$@\"");
    let mut again = Command::new("unshare");
    again.args(namespaces).args(["sh", "-c", &script, "sh"]);
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = again.env(AGAIN, word).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{word}: {out}\n{err}");
}

/// Says to a test that it runs once more, and as what.
const AGAIN: &str = "PERENNIAL_TEST_AGAIN";
