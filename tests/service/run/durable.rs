//! What makes a torrent exist reaches the disk in an order that a power cut cannot hurt, as far as
//! the calls of the program show; and files that a cut or decay has spoiled cost their torrent alone.
//!
//! ```text
//! files of new/N written -> each synced -> new/N synced -> renamed -> torrents synced
//!                        -> the journal written -> synced: from here on it exists
//! ```

use super::{ALONE, Home, answers, assert_served, content_of, foreign};
use crate::bytes;
use crate::program::{Call, PATIENCE, Program, Share, digits, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Calls of a program, in the order of their beginnings.
struct Trace(Vec<Done>);

/// A call that has succeeded.
#[derive(Clone, Debug)]
struct Done {
    name: String,
    /// Paths in its arguments, of descriptors too.
    paths: Vec<String>,
    /// The lines at which it began and ended.
    begun: usize,
    ended: usize,
    makes: bool,
}

const TRACED: &str = "trace=?open,openat,write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,\
                      ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2";

impl Trace {
    fn read(path: &Path) -> Trace {
        let text = fs::read_to_string(path).expect("strace has written its trace");
        let (mut begun, mut all) = (BTreeMap::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            let (thread, rest) = line.split_once(' ').expect("a line begins with a thread");
            let rest = rest.trim_start();
            if let Some(front) = rest.strip_suffix("<unfinished ...>") {
                begun.insert(thread, (at, front.to_string()));
                continue;
            }
            let whole =
                match rest.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
                    None => Some((at, rest.to_string())),
                    Some((_, rest)) => begun.remove(thread).map(|(at, front)| (at, front + rest)),
                };
            all.extend(whole.and_then(|(begun, call)| Done::read(&call, begun, at)));
        }
        all.sort_by_key(|done| done.begun);
        Trace(all)
    }

    /// The last call of that kind, or of those kinds, on a path, begun before a line.
    fn last(&self, names: &[&str], path: &str, before: usize) -> Option<&Done> {
        let is_meant = |done: &&Done| {
            names.iter().any(|name| done.name.starts_with(name))
                && done.paths.first().is_some_and(|found| found == path)
        };
        self.0.iter().rev().filter(|done| done.begun < before).find(is_meant)
    }

    /// That path was synced from after one line to before another.
    #[track_caller]
    fn assert_synced(&self, path: &str, after: usize, before: usize) -> usize {
        let sync = self.last(SYNCS, path, before).filter(|sync| sync.begun > after);
        let sync = sync.unwrap_or_else(|| panic!("{path} is not synced in {after}..{before}"));
        assert!(sync.ended < before, "{path}: {sync:?} is not awaited");
        sync.ended
    }

    /// Follows every folder that was put in its place, and gives back their names.
    fn assert_durable(&self, state: &Path) -> Vec<String> {
        let at = |name: &str| state.join(name).display().to_string();
        let (torrents, journal) = (at("torrents"), at("journal"));
        let renames = self.0.iter().filter(|done| {
            let to = done.paths.get(1).map_or("", String::as_str);
            done.name.starts_with("rename") && to.starts_with(&format!("{torrents}/"))
        });
        let mut names = Vec::new();
        for rename in renames {
            let (from, to) = (&rename.paths[0], &rename.paths[1]);
            let files: Vec<&Done> = self.0[..].iter().filter(|done| done.makes).collect();
            let mut made: Vec<&String> = files
                .iter()
                .filter(|done| done.begun < rename.begun)
                .filter_map(|done| done.paths.last())
                .filter(|path| path.starts_with(&format!("{from}/")))
                .collect();
            made.sort();
            made.dedup();
            assert!(made.len() >= 3, "metainfo, extents and facts: {made:?}");
            let mut last_made = 0;
            for path in made {
                let write = self.last(WRITES, path, rename.begun);
                let write = write.unwrap_or_else(|| panic!("{path} is never written"));
                self.assert_synced(path, write.begun, rename.begun);
                let making = files.iter().rev().find(|done| done.paths.last() == Some(path));
                last_made = last_made.max(making.map_or(0, |making| making.begun));
            }
            self.assert_synced(from, last_made, rename.begun);
            let record = self.0.iter().find(|done| {
                done.begun > rename.ended
                    && WRITES.iter().any(|name| done.name.starts_with(name))
                    && done.paths.first() == Some(&journal)
            });
            let record = record.expect("it is recorded");
            self.assert_synced(&torrents, rename.ended, record.begun);
            let synced = self.0.iter().find(|done| {
                done.begun > record.ended
                    && SYNCS.contains(&done.name.as_str())
                    && done.paths.first() == Some(&journal)
            });
            let synced = synced.expect("the record is synced");
            let late = self.0.iter().find(|done| {
                (rename.begun..synced.ended).contains(&done.begun)
                    && WRITES.iter().any(|name| done.name.starts_with(name))
                    && done.paths.first().is_some_and(|path| path.starts_with(&format!("{to}/")))
            });
            assert!(late.is_none(), "written before it exists, and not synced: {late:?}");
            names.push(to.rsplit('/').next().expect("it has a name").to_string());
        }
        names
    }
}

impl Done {
    fn read(call: &str, begun: usize, ended: usize) -> Option<Done> {
        let (name, rest) = call.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        if result.starts_with('-') {
            return None;
        }
        let mut paths = Vec::new();
        let is_open = name.starts_with("open");
        if name.starts_with("rename") || is_open {
            paths.extend(arguments.split('"').skip(1).step_by(2).map(String::from));
        } else {
            // A descriptor stands with its path behind it.
            paths.extend(
                arguments
                    .split('<')
                    .skip(1)
                    .filter_map(|part| part.split_once('>').map(|(path, _)| path.to_string())),
            );
            if name == "copy_file_range" || name == "sendfile" {
                let to = if name == "sendfile" { 0 } else { 1 };
                paths = paths.get(to).cloned().into_iter().collect();
            }
        }
        let makes = is_open && arguments.contains("O_CREAT");
        Some(Done { name: name.into(), paths, begun, ended, makes })
    }
}

const SYNCS: &[&str] = &["fsync", "fdatasync"];
const WRITES: &[&str] = &["write", "pwrite", "copy_file_range", "sendfile", "ftruncate"];

#[test]
fn a_torrent_exists_only_once_all_of_its_files_are_on_the_disk() {
    let home = Home::new("run-durable");
    let trace = home.at("trace");
    let text = trace.to_string_lossy().into_owned();
    let call = Call::run_box(&home.0, &home.config(""));
    let strace = ["strace", "-f", "-qq", "-y", "-s", "0", "-e", TRACED, "-o", &text];
    let program = call.under(&strace).start();
    // Shared by command, a folder of several, by a folder that is watched, fetched, and moved.
    let film = home.drop_file("film.mkv", &bytes(1, 300_000));
    for number in 0..40 {
        home.drop_file(&format!("season/episode {number}"), &bytes(number, 3_000));
    }
    let season = home.at("season");
    program.ask(&[Path::new("add"), &film, &season]);
    home.drop_file("shared/song.ogg", &bytes(2, 100_000));
    program.wait_for_share("song.ogg");
    let torrent = foreign("fetched.mkv", 3, 400_000);
    let seeder = crate::seeder::Seeder::start(&torrent, crate::seeder::Habits::default());
    let link = torrent.write(home.0.path(), "fetched.torrent");
    let peer = seeder.as_peer();
    program.ask(&["add", link.to_str().unwrap(), &peer[0], &peer[1]]);
    program.wait_for_share("fetched.mkv");
    home.drop_file("shared/song.ogg", &bytes(4, 100_001));
    let changed = |detail: &serde_json::Value| detail["torrent"]["bytes"] == 100_001;
    program.wait_for("song.ogg", changed);
    fs::rename(home.at("shared/song.ogg"), home.at("shared/hymn.ogg")).unwrap();
    let renamed = |detail: &serde_json::Value| {
        detail["torrent"]["path"].as_str().is_some_and(|path| path.ends_with("hymn.ogg"))
    };
    program.wait_for("song.ogg", renamed);
    let known: Vec<String> =
        program.list().iter().map(|item| item["info_hash"].as_str().unwrap().to_string()).collect();
    let own = Pid::from_raw(program.own_id() as i32).unwrap();
    kill_process(own, Signal::TERM).unwrap();
    program.ended();
    let placed = Trace::read(&trace).assert_durable(&home.at("state"));
    // Film, season, song, what is fetched as it is begun and as it is whole, the song as it changed
    // and as it was renamed.
    assert_eq!(placed.len(), 7, "{placed:?}");
    for info_hash in known {
        assert!(placed.iter().any(|name| name.starts_with(&info_hash)), "{info_hash}: {placed:?}");
    }
}

#[test]
fn files_of_a_torrent_without_a_record_are_cleared_away_at_the_start() {
    let home = Home::new("run-no-record");
    let call = || Call::run_box(&home.0, ALONE);
    let film = home.drop_file("film.mkv", &bytes(1, 50_000));
    let program = call().start();
    let share = add(&program, &film);
    program.end();
    let folder = share.torrent.parent().unwrap().to_path_buf();
    // As a cut leaves it: renamed but not recorded, and still being made.
    let name = format!("{:08x}{}", 0, &folder.file_name().unwrap().to_str().unwrap()[8..]);
    copy(&folder, &home.at("state/torrents").join(&name));
    copy(&folder, &home.at("state/new/7"));
    let program = call().start();
    let gone =
        || !home.at("state/torrents").join(&name).exists() && !home.at("state/new/7").exists();
    wait_until("they are gone", 3 * PATIENCE, || gone().then_some(()), || program.log());
    assert!(content_of(&program, &share) == bytes(1, 50_000));
    assert_eq!(program.list().len(), 1);
    program.end();
}

#[test]
fn files_cut_off_anywhere_or_spoiled_cost_their_torrent_alone() {
    let home = Home::new("run-spoiled");
    let call = || Call::run_box(&home.0, ALONE);
    let (film, song) =
        (home.drop_file("film.mkv", &bytes(1, 50_000)), home.drop_file("song", &bytes(2, 50_000)));
    let program = call().start();
    let (share, other) = (add(&program, &film), add(&program, &song));
    program.end();
    let folder = share.torrent.parent().unwrap().to_path_buf();
    let whole: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    assert_eq!(whole.len(), 3, "facts, extents and metainfo: {whole:?}");
    let name = digits(&share.info_hash);
    for (path, bytes_before) in &whole {
        let length = bytes_before.len();
        let mut damages: Vec<Option<Vec<u8>>> =
            [0, 1, length / 2, length - 2].map(|cut| Some(bytes_before[..cut].to_vec())).into();
        let garbage = bytes(9, length);
        let torn = [&bytes_before[..length / 2], &garbage[length / 2..]].concat();
        damages.extend([None, Some(garbage), Some(torn), Some(vec![0; length])]);
        for damage in damages {
            match &damage {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let words = || format!("{}: {damage:?}", path.display());
            let program = call().start();
            assert!(!answers(&program, share.info_hash), "{}", words());
            assert!(content_of(&program, &other) == bytes(2, 50_000), "{}", words());
            // Known by somebody who asked for it, and said: in the log once, to those who ask.
            program.wait_for_words("damaged: add it anew");
            let item = program.list().into_iter().find(|item| item["info_hash"] == name.as_str());
            let item = item.unwrap_or_else(|| panic!("{}: it is listed", words()));
            assert_eq!(item["state"], "trouble", "{}: {item}", words());
            let shown = program.tell(&["show", &name]).stderr;
            assert!(shown.contains("damaged") && shown.contains("anew"), "{}: {shown}", words());
            let said = program.log().matches("damaged: add it anew").count();
            assert_eq!(said, 1, "{}: {}", words(), program.log());
            // It stays as it is for whoever wants to look at it.
            assert_eq!(fs::read(path).ok(), damage, "{}", words());
            program.end();
            fs::write(path, bytes_before).unwrap();
        }
    }
    // Added anew it is as before.
    fs::write(&share.torrent, b"nothing").unwrap();
    let program = call().start();
    let again = add(&program, &film);
    assert_eq!(again.info_hash, share.info_hash);
    assert_served(&program, "film.mkv", &film);
    program.end();
}

fn add(program: &Program, path: &Path) -> Share {
    let answered = program.ask(&[Path::new("add"), path]);
    Share::of(&answered.last().unwrap()["detail"])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
