//! Everything that is refused: a clear sentence, a status that is not 0, and nothing half-done.

use crate::changes::WITHOUT_PRIVILEGES;
use crate::leecher::MODERN;
use crate::program::{Call, Folder};
use crate::{assert_arrives, bytes, film, lacks_root, names_under};
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Checks that a call is refused with these words and leaves no trace of a torrent.
#[track_caller]
fn assert_refused(home: &Folder, call: Call, words: &[&str]) {
    let line = call.refusal();
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert_eq!(names_under(&home.path().join("state/torrents")), [""; 0], "{line}");
}

#[test]
fn a_path_that_does_not_exist() {
    let home = Folder::new("missing");
    let path = home.path().join("nowhere.mkv");
    assert_refused(&home, Call::share(&home, &[&path]), &["nowhere.mkv", "spelling"]);
    symlink("nothing", &path).unwrap();
    assert_refused(&home, Call::share(&home, &[&path]), &["nowhere.mkv"]);
}

#[test]
fn a_path_with_nothing_in_it() {
    let home = Folder::new("empty");
    let file = home.write("empty.mkv", b"");
    assert_refused(&home, Call::share(&home, &[&file]), &["empty.mkv: is empty"]);
    let folder = home.path().join("folder");
    fs::create_dir_all(folder.join("deeper/still")).unwrap();
    assert_refused(&home, Call::share(&home, &[&folder]), &["folder: holds no file"]);
    home.write("folder/deeper/empty", b"");
    home.write("folder/film.part", b"half");
    assert_refused(&home, Call::share(&home, &[&folder]), &["folder: holds no file"]);
}

#[test]
fn one_path_that_cannot_be_shared_among_others_that_can() {
    let home = Folder::new("one-of-three");
    let film = film(&home, 300_000);
    let missing = home.path().join("missing");
    let call = Call::share(&home, &[&film, &missing]);
    let line = call.refusal();
    assert!(line.contains("missing: "), "{line}");
    let program = Call::share(&home, &[&film]).start();
    assert_arrives(&program, &program.shares[0], &film, MODERN, 64);
    program.stop();
}

#[test]
fn what_may_not_be_read() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("forbidden");
    let file = home.write("tree/folder/secret", b"secret");
    let root = home.path().join("tree");
    let call = |path: &Path| Call::share(&home, &[path]).under(WITHOUT_PRIVILEGES);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    assert_refused(&home, call(&file), &["secret: ", "readable"]);
    assert_refused(&home, call(&root), &["folder/secret: ", "readable"]);
    fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_refused(&home, call(&root), &["tree/folder", "readable"]);
    assert_refused(&home, call(&file), &["readable"]);
    fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_name_that_is_no_text() {
    let home = Folder::new("no-utf-8");
    let name = OsStr::from_bytes(b"caf\xe9.mkv");
    let file = home.write(Path::new("tree").join(name), &bytes(1, 1_000));
    assert_refused(&home, Call::share(&home, &[&file]), &["UTF-8", "rename"]);
    // In a folder it is passed over, so that one old name costs nobody the rest.
    home.write("tree/film", &bytes(2, 1_000));
    let program = Call::share(&home, &[&home.path().join("tree")]).start();
    assert_eq!(program.shares[0].files, 1);
    program.stop();
    let folder = home.path().join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("film"), b"film").unwrap();
    let _ = fs::remove_dir_all(home.path().join("state"));
    assert_refused(&home, Call::share(&home, &[&folder]), &["UTF-8", "rename"]);
}

#[test]
fn what_is_neither_file_nor_folder() {
    let home = Folder::new("special");
    let pipe = home.path().join("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let special = "neither a file nor a folder";
    assert_refused(&home, Call::share(&home, &[&pipe]), &["pipe: ", special]);
    let null = Path::new("/dev/null");
    assert_refused(&home, Call::share(&home, &[null]), &["/dev/null: ", special]);
    // In a folder it is passed over.
    let tree = home.path().join("tree");
    home.write("tree/film", &bytes(2, 1_000));
    fs::rename(&pipe, tree.join("pipe")).unwrap();
    let program = Call::share(&home, &[&tree]).start();
    assert_eq!(program.shares[0].files, 1);
    program.stop();
}

#[test]
fn a_folder_of_nothing_but_links_out_of_it() {
    let home = Folder::new("links");
    let outside = home.write("outside/secret", b"secret");
    let root = home.path().join("tree");
    fs::create_dir(&root).unwrap();
    symlink(&outside, root.join("file")).unwrap();
    symlink(outside.parent().unwrap(), root.join("folder")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    assert_refused(&home, Call::share(&home, &[&root]), &["holds no file"]);
}

#[test]
fn the_root_of_everything() {
    let home = Folder::new("root");
    assert_refused(&home, Call::share(&home, &[Path::new("/")]), &["/: ", "share"]);
}

#[test]
fn an_address_that_is_taken_or_not_ours() {
    let home = Folder::new("listen");
    let film = film(&home, 100_000);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let call = Call::share(&home, &[&film]).listen(Some(&address));
    assert_refused(&home, call, &["--listen", &address, "in use", "another address"]);
    let call = Call::share(&home, &[&film]).listen(Some("192.0.2.77:7000"));
    assert_refused(&home, call, &["--listen 192.0.2.77:7000: "]);
}

#[test]
fn a_state_folder_that_is_in_use() {
    let home = Folder::new("in-use");
    let film = film(&home, 100_000);
    let program = Call::share(&home, &[&film]).start();
    let line = Call::share(&home, &[&film]).refusal();
    let owner = format!("in use by process {}", program.id());
    assert!(line.contains("state: ") && line.contains(&owner), "{line}");
    assert_arrives(&program, &program.shares[0], &film, MODERN, 64);
    program.stop();
}

#[test]
fn a_state_folder_that_cannot_be_written_to() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("unwritable");
    let film = film(&home, 100_000);
    let locked = home.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    for state in [locked.clone(), locked.join("deeper")] {
        let call = Call::share(&home, &[&film]).state(&state).under(WITHOUT_PRIVILEGES);
        let line = call.refusal();
        assert!(line.contains("locked") && line.contains("--state"), "{line}");
        assert_eq!(names_under(&locked), [""; 0]);
    }
    // A folder that has served before and no longer may.
    let state = home.path().join("state");
    Call::share(&home, &[&film]).start().stop();
    fs::set_permissions(state.join("journal"), fs::Permissions::from_mode(0o400)).unwrap();
    let line = Call::share(&home, &[&film]).under(WITHOUT_PRIVILEGES).refusal();
    assert!(line.contains("journal: ") && line.contains("--state"), "{line}");
    fs::set_permissions(state.join("journal"), fs::Permissions::from_mode(0o600)).unwrap();
    let program = Call::share(&home, &[&film]).start();
    assert!(!program.log().contains("hashing"), "{}", program.log());
    program.stop();
}

#[test]
fn a_state_folder_that_is_a_file_or_read_only() {
    let home = Folder::new("no-folder");
    let film = film(&home, 100_000);
    let file = home.write("file", b"");
    let line = Call::share(&home, &[&film]).state(&file).refusal();
    assert!(line.contains("file: ") && line.contains("--state"), "{line}");
    if !lacks_root() {
        let mount = "mkdir -p ro && mount -t tmpfs -o ro none ro && exec \"$@\"";
        let state = home.path().join("ro");
        let script = format!("cd '{}' && {mount}", home.path().display());
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let line = Call::share(&home, &[&film]).state(&state).under(&wrapper).refusal();
        assert!(line.contains("ro") && line.contains("--state"), "{line}");
    }
}

#[test]
fn a_disk_that_is_full() {
    if lacks_root() {
        return;
    }
    let home = Folder::new("full");
    // 1,000 names make a metainfo that the larger of the disks has no room for either.
    for number in 0..1_000 {
        home.write(format!("tree/{:0200}", number), b"x");
    }
    let tree = home.path().join("tree");
    let state = home.path().join("full");
    let left = home.path().join("left");
    fs::create_dir(&state).unwrap();
    // The board's journal takes 512 KiB: no room for it, room for it alone, room for both.
    let mount = |kib| format!("mount -t tmpfs -o size={kib}k none '{}'", state.display());
    let call = |script: &str| {
        let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
        Call::share(&home, &[&tree]).state(&state).under(&wrapper)
    };
    for kib in [64, 600] {
        let find =
            format!("find '{}/torrents' -mindepth 1 > '{}'", state.display(), left.display());
        let line = call(&format!("{}; \"$@\"; code=$?; {find}; exit $code", mount(kib))).refusal();
        assert!(line.contains("make room"), "{line}");
        assert_eq!(fs::read_to_string(&left).unwrap(), "", "{kib} KiB: nothing half-done");
    }
    let program = call(&format!("{} && exec \"$@\"", mount(4_096))).start();
    assert_eq!(program.shares[0].files, 1_000);
    program.stop();
}

#[test]
fn a_board_nobody_knows() {
    let home = Folder::new("board");
    let film = film(&home, 1_000);
    let call = Call::share(&home, &[&film]).board(Some("toaster"));
    let line = call.refusal();
    for board in ["toaster", "tiny", "small", "pi-4", "nas"] {
        assert!(line.contains(board), "{board}: {line}");
    }
    assert!(!home.path().join("state").exists());
}

#[test]
fn a_tracker_that_is_none() {
    let home = Folder::new("tracker");
    let film = film(&home, 1_000);
    for url in ["nonsense", "ftp://t.example/a", "udp://t.example", "http://", ""] {
        let call = Call::share(&home, &[&film]).with(&["--tracker", url]);
        let line = call.refusal();
        assert!(line.contains(&format!("--tracker {url}")) && line.contains("URL"), "{line}");
        assert!(!home.path().join("state").exists());
    }
}

#[test]
fn options_that_make_no_sense() {
    let home = Folder::new("options");
    let (film, other) = (film(&home, 1_000), home.write("other", b"other"));
    let torrent = home.write("x.torrent", b"de");
    let call = Call::share(&home, &[&film, &other]).with(&[Path::new("--torrent"), &torrent]);
    assert_refused(&home, call, &["--torrent", "one"]);
    let call = Call::share(&home, &[&film]).with(&["--lan", "--tracker", "http://t.example/a"]);
    let ended = call.run();
    assert!(!ended.status.success() && ended.stderr.contains("--tracker"), "{ended:?}");
    for size in ["0", "1K", "17K", "32M", "-1", "many", "99999999999M"] {
        let option = format!("--piece-size={size}");
        let ended = Call::share(&home, &[&film]).with(&[option]).run();
        assert!(!ended.status.success(), "{size}: {ended:?}");
        assert_eq!(ended.stdout, "", "{size}");
        assert!(ended.stderr.contains("--piece-size"), "{size}: {}", ended.stderr);
    }
    let ended = Call::share(&home, &[]).run();
    assert!(!ended.status.success() && ended.stderr.contains("PATH"), "{ended:?}");
    assert_eq!(names_under(&home.path().join("state/torrents")), [""; 0]);
}

#[test]
fn a_refusal_costs_no_share_that_was_there_before() {
    let home = Folder::new("unharmed");
    let film = film(&home, 2_000_000);
    Call::share(&home, &[&film]).start().stop();
    let empty = home.write("empty", b"");
    Call::share(&home, &[&empty]).refusal();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let taken = TcpListener::bind(&listen).unwrap();
    Call::share(&home, &[&film]).listen(Some(&listen)).refusal();
    drop(taken);
    let program = Call::share(&home, &[&film]).start();
    assert!(!program.log().contains("hashing"), "{}", program.log());
    assert_arrives(&program, &program.shares[0], &film, MODERN, 64);
    program.stop();
}
