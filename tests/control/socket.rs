//! What the socket holds against clients.

use crate::fake::FakeBox;
use crate::program::{Folder, is_root};
use crate::wait_until;
use perennial::service::control::answer::Answer;
use perennial::service::control::message::{Add, List, Move, Which};
use perennial::service::control::server::{LONG_MAX, PLACES};
use perennial::service::control::what::What;
use perennial::service::control::{Client, FILE, LINE_BYTES_MAX, Request, Socket};
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Sends bytes, and reads all that is answered.
fn exchange(state: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(state.join(FILE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn which(what: &str) -> Which {
    Which { what: What::new(what) }
}

#[test]
fn wrong_lines_are_answered_and_closed() {
    let home = Folder::new("wrong");
    let fake = FakeBox::start(home.path(), 1, 0, 300);
    let long = vec![b'x'; LINE_BYTES_MAX];
    let table: [(&[u8], &str); 6] = [
        (b"hello\n", "expected value"),
        (b"\n", "EOF while parsing"),
        (b"{\"v\":9,\"do\":\"stats\"}\n", "asks in version 9, this box speaks 1"),
        (b"{\"v\":1,\"do\":{\"move\":{\"what\":\"x\"}}}\n", "missing field `to`"),
        (b"\xff\xfe\n", "expected value"),
        (&long, "is longer than 65536 bytes"),
    ];
    for (line, words) in table {
        let answer = exchange(home.path(), line);
        assert!(answer.starts_with("{\"error\":{\"thing\":\"request\",\"problem\":\""), "{answer}");
        assert!(answer.contains(words) && answer.ends_with("}}\n"), "{answer}");
    }
    // A refusal of the service's own comes as it was made.
    let refusal = fake.client().page(&Request::Reload).unwrap_err().to_string();
    assert_eq!(refusal, "line 7: `lanse` is no key; see `perennial config`");
    assert!(fake.client().page(&Request::Stats).is_ok());
}

#[test]
fn half_a_line_is_waited_for_and_not_for_ever() {
    let home = Folder::new("half");
    let _fake = FakeBox::start(home.path(), 1, 0, 200);
    let begun = Instant::now();
    let answer = exchange(home.path(), b"{\"v\":1,");
    assert!(answer.contains("did not come in time"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let mut stream = UnixStream::connect(home.path().join(FILE)).unwrap();
    stream.write_all(b"{\"v\":1,").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("ends in the middle of its line"), "{answer}");
    // A line may come in pieces.
    let mut stream = UnixStream::connect(home.path().join(FILE)).unwrap();
    for part in ["{\"v\":1,", "\"do\":\"st", "ats\"}", "\n"] {
        stream.write_all(part.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    answer.clear();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("{\"stats\":{") && answer.ends_with("\n{\"done\":{}}\n"),
        "{answer}"
    );
}

#[test]
fn two_are_answered_at_once() {
    let home = Folder::new("two");
    let fake = FakeBox::start(home.path(), 1, 0, 10_000);
    let client = fake.client();
    let waiting = thread::spawn(move || client.page(&Request::Pause(which("me"))));
    // The first is answered by what the second does.
    wait_until("the first is answered", || {
        fake.client().page(&Request::Resume(which("me"))).unwrap();
        waiting.is_finished()
    });
    assert!(waiting.join().unwrap().is_ok());
}

#[test]
fn a_fifth_waits_for_a_place() {
    let home = Folder::new("fifth");
    let fake = FakeBox::start(home.path(), 1, 0, 60_000);
    let connect = || UnixStream::connect(home.path().join(FILE)).unwrap();
    let mut silent: Vec<UnixStream> = (0..PLACES).map(|_| connect()).collect();
    let client = fake.client();
    let fifth = thread::spawn(move || client.page(&Request::Stats).map(|(page, _)| page.len()));
    thread::sleep(Duration::from_millis(200));
    assert!(!fifth.is_finished());
    silent.pop();
    assert_eq!(fifth.join().unwrap(), Ok(1));
}

#[test]
fn who_takes_nothing_is_let_go_and_holds_up_nobody() {
    let home = Folder::new("stuck");
    let fake = FakeBox::start(home.path(), 500, 20_000, 200);
    let line = Request::List(List::default()).write().unwrap();
    let stuck: Vec<UnixStream> = (0..PLACES)
        .map(|_| {
            let mut stream = UnixStream::connect(home.path().join(FILE)).unwrap();
            stream.write_all(&line).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    assert!(fake.client().page(&Request::Stats).is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(100), "all places were taken");
    wait_until("all are let go", || fake.seen.gone.load(Ordering::Relaxed) == PLACES as u32);
    drop(stuck);
}

#[test]
fn who_hangs_up_ends_an_answer() {
    let home = Folder::new("hung-up");
    let fake = FakeBox::start(home.path(), 500, 20_000, 60_000);
    let mut stream = UnixStream::connect(home.path().join(FILE)).unwrap();
    stream.write_all(&Request::List(List::default()).write().unwrap()).unwrap();
    let mut some = [0; 1_000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    wait_until("it is noticed", || fake.seen.gone.load(Ordering::Relaxed) == 1);
}

#[test]
fn additions_leave_a_place_for_others() {
    let home = Folder::new("additions");
    let fake = FakeBox::start(home.path(), 1, 0, 10_000);
    let add = || {
        let (paths, sequential) = (vec!["/srv/film".into()], true);
        Request::Add(Add { paths, sequential, ..Add::default() })
    };
    // Each says how far it is, and then takes its time.
    let mut under_way: Vec<_> =
        (0..LONG_MAX).map(|_| fake.client().request(&add()).unwrap()).collect();
    for answers in &mut under_way {
        let first = answers.next().unwrap().unwrap().answer;
        assert!(matches!(first, Answer::Progress(_)), "{first:?}");
    }
    let refusal = fake.client().page(&add()).unwrap_err().to_string();
    assert_eq!(refusal, "add: 3 others are under way; ask again when one of them is done");
    assert!(fake.client().page(&Request::Stats).is_ok());
    fake.client().page(&Request::Resume(which("hashing"))).unwrap();
    for answers in under_way {
        assert_eq!(answers.map(Result::unwrap).count(), 2);
    }
}

#[test]
fn a_line_longer_than_a_line_may_be_is_our_mistake() {
    let home = Folder::new("too-long");
    let fake = FakeBox::start(home.path(), 1, 0, 10_000);
    let wish = Move { what: What::new("film 0"), to: "/mnt".into() };
    let refusal = fake.client().page(&Request::Move(wish)).unwrap_err().to_string();
    assert!(refusal.contains("a line of more than 65536 bytes"), "{refusal}");
}

#[test]
fn the_socket_is_its_owners_replaces_a_dead_one_and_goes_with_its_box() {
    let home = Folder::new("file");
    let path = home.path().join(FILE);
    let connect = || Client::connect(home.path()).unwrap();
    assert!(connect().is_none(), "there is no socket");
    assert!(Client::connect(&home.path().join("none")).unwrap().is_none(), "nor a folder");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists() && connect().is_none(), "nobody is behind it");
    // Also one that was not yet in its place when the power went.
    fs::write(home.path().join("control.new"), b"").unwrap();
    let mut fake = FakeBox::start(home.path(), 1, 0, 10_000);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(connect().is_some());
    fake.stop();
    assert!(!path.exists() && connect().is_none());
    let error = Client::connect_to_running(home.path()).err().unwrap().to_string();
    let wanted = "no box is running on it; start it with `perennial run`";
    assert_eq!(error, format!("{}: {wanted}", home.path().display()));
    let error = Socket::open(&home.path().join("none"), 1).err().unwrap().to_string();
    assert!(error.contains("none/control: No such file"), "{error}");
}

#[test]
fn a_folder_as_deep_as_they_come_has_a_socket_too() {
    let home = Folder::new("deep");
    let deep = home.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let mut fake = FakeBox::start(&deep, 1, 0, 10_000);
    assert!(fake.client().page(&Request::Stats).is_ok());
    fake.stop();
    assert!(Client::connect(&deep).unwrap().is_none());
}

#[test]
fn strangers_are_not_heard_whatever_the_permissions_say() {
    if !is_root() {
        eprintln!("not run: it needs root");
        return;
    }
    // Where a stranger can get to.
    let home = Folder::within(&std::env::temp_dir(), "stranger");
    let fake = FakeBox::start(home.path(), 1, 0, 10_000);
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let state = home.path().to_owned();
    let as_stranger = move || {
        let stranger = Uid::from_raw(65_534);
        let state = state.clone();
        thread::spawn(move || {
            set_thread_res_uid(stranger, stranger, stranger).unwrap();
            assert_eq!(geteuid(), stranger);
            let client = Client::connect(&state)?.expect("it is there");
            client.page(&Request::Stats).map(drop)
        })
    };
    let refusal = as_stranger().join().unwrap().unwrap_err().to_string();
    let wanted =
        "control: Permission denied (os error 13); ask as the user the box runs as, or as root";
    assert!(refusal.ends_with(wanted), "{refusal}");
    fs::set_permissions(home.path().join(FILE), Permissions::from_mode(0o666)).unwrap();
    let refusal = as_stranger().join().unwrap().unwrap_err().to_string();
    let wanted = "the box: belongs to user 0, not to user 65534; ask as that user, or as root";
    assert_eq!(refusal, wanted);
    assert!(fake.client().page(&Request::Stats).is_ok());
}
