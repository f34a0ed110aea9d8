//! `kill -9` in the middle of everything: after it the library is as before or as after, what was
//! recorded is not hashed again, and nothing half-done stays.

use super::{Home, content_of, foreign, hashed, strays};
use crate::bytes;
use crate::prng::Prng;
use crate::program::{PATIENCE, Program, Share, digits, tell, wait_until};
use crate::seeder::{Habits, Seeder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// What there is in the watched folder: name and seed of its bytes; info-hash, once it is known.
type Files = BTreeMap<String, (u64, Option<String>)>;

#[test]
fn killed_in_the_middle_of_anything_it_is_as_before_or_as_after() {
    let full = std::env::var_os("PERENNIAL_FULL").is_some_and(|value| value == "1");
    let seed = std::process::id().into();
    println!("seed {seed}");
    let (mut random, home) = (Prng::new(seed), Home::new("run-killed"));
    let mut files: Files = BTreeMap::new();
    let (mut number, mut outside) = (0, Vec::new());
    let torrent = foreign("fetched.mkv", 99, 4_000_000);
    let link = torrent.write(home.0.path(), "fetched.torrent");
    let seeder = Seeder::start(&torrent, Habits { rate: Some(50_000), ..Habits::default() });
    for round in 0..if full { 200 } else { 20 } {
        let program = home.start();
        look(&program, &home, &mut files, round);
        if round == 0 {
            let peer = seeder.as_peer();
            program.ask(&["add", link.to_str().unwrap(), &peer[0], &peer[1]]);
        }
        assert!(program.find(&digits(&torrent.info_hash)).is_some(), "what is fetched is known");
        let names: Vec<String> = files.keys().cloned().collect();
        let pick = |random: &mut Prng| names[random.below(names.len() as u32) as usize].clone();
        match random.below(if names.len() < 3 { 2 } else { 5 }) {
            0 | 1 => {
                number += 1;
                let name = format!("file-{number}");
                home.drop_file(&format!("shared/{name}"), &content(number));
                files.insert(name, (number, None));
            }
            2 => {
                let (from, to) = (pick(&mut random), format!("renamed-{round}"));
                fs::rename(home.at("shared").join(&from), home.at("shared").join(&to)).unwrap();
                let known = files.remove(&from).unwrap();
                files.insert(to, known);
            }
            3 => {
                let name = pick(&mut random);
                fs::remove_file(home.at("shared").join(&name)).unwrap();
                files.remove(&name);
            }
            _ => {
                let name = pick(&mut random);
                number += 1;
                fs::write(home.at("shared").join(&name), content(number)).unwrap();
                files.insert(name, (number, None));
            }
        }
        // A command beside it.
        let state = program.state().to_path_buf();
        number += 1;
        let path = home.drop_file(&format!("outside/{number}"), &content(number));
        let removed = outside.last().cloned().filter(|_| random.one_in(2));
        outside.push(number.to_string());
        let told = thread::spawn(move || match removed {
            Some(name) => tell(&state, &["remove", &name]),
            None => tell(&state, &[Path::new("add"), &path]),
        });
        // An entry is noticed when it has rested for half a second.
        thread::sleep(Duration::from_millis(if random.one_in(3) {
            random.below(100).into()
        } else {
            u64::from(random.below(300)) + 480
        }));
        program.kill();
        told.join().unwrap();
    }
    let program = home.start();
    look(&program, &home, &mut files, u32::MAX);
    seeder.behave(Habits::default());
    program.wait_for_share(&digits(&torrent.info_hash));
    // What was left behind is looked for some time after the start.
    let tidy = || strays(&program).is_empty().then_some(());
    wait_until("nothing half-done stays", 2 * PATIENCE, tidy, || format!("{:?}", strays(&program)));
    assert!(fs::read(home.at("fetched/fetched.mkv")).unwrap() == torrent.content.all());
    program.end();
}

fn content(number: u64) -> Vec<u8> {
    bytes(number, 30_000 + number as usize)
}

/// Waits until the box shares what there is and nothing else, and checks that it hashed no more than
/// it had to.
fn look(program: &Program, home: &Home, files: &mut Files, round: u32) {
    let shared = home.at("shared");
    let listed = || {
        let mut listed: BTreeMap<String, Value> = BTreeMap::new();
        for item in program.list() {
            let path = Path::new(item["path"].as_str().unwrap()).to_path_buf();
            if path.parent() == Some(&shared) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(listed.insert(name, item).is_none(), "twice: {:?}", program.list());
            }
        }
        listed
    };
    let evidence = || format!("round {round}: {:?}\n{files:?}\n{}", listed(), program.log());
    // Each as it is now: of what has changed another torrent than before.
    let as_it_is = || {
        let listed = listed();
        let right = files.iter().all(|(name, (number, hash))| {
            let item = listed.get(name);
            item.is_some_and(|item| match hash {
                Some(hash) => item["info_hash"] == hash.as_str(),
                None => item["bytes"] == content(*number).len(),
            })
        });
        (right && listed.len() == files.len()).then_some(listed)
    };
    let listed = wait_until("the library is what there is", PATIENCE, as_it_is, evidence);
    let unknown = files.values().filter(|(_, hash)| hash.is_none()).count();
    let outside = program.log().matches("/outside/").count();
    assert!(hashed(program) <= unknown + outside, "{}", evidence());
    for (name, (number, hash)) in files.iter_mut() {
        *hash = Some(listed[name]["info_hash"].as_str().unwrap().to_string());
        let detail = program.find(hash.as_ref().unwrap()).unwrap();
        assert!(
            content_of(program, &Share::of(&detail)) == content(*number),
            "round {round}: {name}"
        );
    }
}
