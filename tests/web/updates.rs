//! A box that was flashed, updated from its page and on the command line, as its owner would.
//!
//! It runs in a process of its own, which is this test once more, with a folder for its boot
//! partition; whoever started that sees whether the machine is to start anew.

use crate::client::{Answer, Connection, request};
use crate::program::{Folder, Program, binary, wait_until};
use crate::update_file::{public, update};
use crate::{bytes, run_well};
use perennial::init::fat::Mounted;
use perennial::init::slots::{self, Slot};
use perennial::init::update::{Appliance, Machine};
use perennial::service::config::Config;
use perennial::service::life::{self, End, Host};
use perennial::service::report::Report;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A flashed box, and its owner.
struct Flashed {
    home: Folder,
    child: Child,
    page: SocketAddr,
    bearer: String,
}

impl Flashed {
    /// One that runs slot a, version 0.1.0, good or on trial.
    fn start(name: &str, entry: &str) -> Flashed {
        let home = Folder::new(name);
        home.write("boot/a/version", b"uefi-arm64 0.1.0\n");
        home.write("boot/b/kernel", b"some older one");
        let text = b"version 0.1.0\nlinux /a/kernel\noptions perennial.slot=a\n";
        home.write(format!("boot/loader/entries/{entry}"), text);
        home.write("shared/film.mkv", &bytes(1, 100_000));
        let config = format!(
            "board = \"small\"\nstate = \"{0}/state\"\n[network]\nlisten = \"127.0.0.1:0\"\n\
             dht = \"off\"\nmap-port = false\n[web]\nlisten = \"127.0.0.1:0\"\n\
             [[share]]\nfolder = \"{0}/shared\"\n",
            home.path().display()
        );
        home.write("box.toml", config.as_bytes());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "updates::a_flashed_box_in_a_process_of_its_own"])
            .env(HOME, home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut flashed =
            Flashed { home, child, page: ([0, 0, 0, 0], 0).into(), bearer: String::new() };
        let claim = flashed.wait("the box tells its secret", || {
            let output = flashed.tell(&["claim", "--json"]);
            let line = String::from_utf8(output.stdout).unwrap();
            let claim: serde_json::Value = serde_json::from_str(line.lines().next()?).ok()?;
            claim["claim"]["pages"][0].is_string().then(|| claim["claim"].clone())
        });
        let page = claim["pages"][0].as_str().unwrap();
        flashed.page = page.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let secret = format!("{{\"secret\":{}}}", claim["secret"]);
        let token = flashed.post("/api/v1/claim", secret.as_bytes()).is(201).json();
        flashed.bearer = format!("Authorization: Bearer {}\r\n", token["token"].as_str().unwrap());
        flashed
    }

    fn wait<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        wait_until(what, Duration::from_secs(30), probe, String::new)
    }

    fn boot(&self, path: &str) -> PathBuf {
        self.home.path().join("boot").join(path)
    }

    fn tell(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--state").arg(self.home.path().join("state"));
        command.stdin(Stdio::null()).output().expect("the program can be run")
    }

    fn ask(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Answer {
        let mut connection = Connection::to(self.page);
        connection.send(request(self.page, method, path, lines, body));
        connection.receive(false).expect("it is answered")
    }

    fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.ask("POST", path, &self.bearer, body)
    }

    /// It ends, for the machine to start anew.
    fn starts_anew(&mut self) {
        let ended = self.home.path().join("ended");
        let end = self.wait("the box ends", || fs::read_to_string(&ended).ok());
        assert_eq!(end, "Ok(Restart)");
        assert!(self.child.wait().unwrap().success());
        let entry = fs::read_to_string(self.boot("loader/entries/perennial-b+3.conf")).unwrap();
        assert_eq!(entry, "linux /b/kernel\noptions perennial.slot=b\nversion 0.2.0\n");
        assert!(fs::read(self.boot("b/kernel")).unwrap() == kernel());
    }
}

impl Drop for Flashed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kernel() -> Vec<u8> {
    bytes(9, 3_000_000)
}

fn update_to(version: &str) -> Vec<u8> {
    update(1, "uefi-arm64", version, &[("kernel", &kernel()), ("initrd", b"init")])
}

#[test]
fn the_owner_updates_it_from_the_page_and_nobody_else() {
    let mut flashed = Flashed::start("web-update", "perennial-a.conf");
    let good = update_to("0.2.0");
    flashed.ask("POST", "/api/v1/update", "", &good).is(401);
    let token = flashed.bearer.split(' ').nth(2).unwrap().trim().to_owned();
    // A page elsewhere has the browser's cookie, but not what stands in our pages.
    let cookie = format!("Cookie: perennial={token}\r\n");
    flashed.ask("POST", "/api/v1/update", &cookie, &good).is(403);
    let other = update(2, "uefi-arm64", "0.2.0", &[("kernel", b"k"), ("initrd", b"i")]);
    for (whole, words) in [
        (&b"<html>"[..], "the update: is no update of perennial"),
        (&other, "the update: is garbled, or signed with another key"),
        (&update_to("0.1.0"), "the update: is version 0.1.0, and 0.1.0 runs already"),
        (&good[..good.len() - 1], "the update: is cut off after"),
    ] {
        let said = flashed.post("/api/v1/update", whole).is(422).text();
        assert!(said.starts_with(words), "{said}");
    }
    let page = flashed.ask("GET", "/box", &cookie, b"").is(200).text();
    assert!(page.contains("data-update"), "its page has a form for it");
    assert!(!flashed.ask("GET", "/box", "", b"").text().contains("data-update"));
    let said = flashed.post("/api/v1/update", &good).is(200).text();
    assert!(said.starts_with("version 0.2.0 is on the card"), "{said}");
    flashed.starts_anew();
}

#[test]
fn it_is_switched_off_from_its_page() {
    let mut flashed = Flashed::start("web-off", "perennial-a.conf");
    flashed.ask("POST", "/api/v1/stop", "", b"").is(401);
    let token = flashed.bearer.split(' ').nth(2).unwrap().trim().to_owned();
    let page = flashed.ask("GET", "/box", &format!("Cookie: perennial={token}\r\n"), b"").is(200);
    assert!(page.text().contains("Switch it off"), "its page has a button for it");
    flashed.post("/api/v1/stop", b"").is(200);
    let ended = flashed.home.path().join("ended");
    let end = flashed.wait("the box ends", || fs::read_to_string(&ended).ok());
    assert_eq!(end, "Ok(Stopped)");
    assert!(flashed.child.wait().unwrap().success());
}

#[test]
fn it_is_updated_on_the_command_line() {
    let mut flashed = Flashed::start("command-update", "perennial-a.conf");
    let file = flashed.home.write("next.update", &update_to("0.2.0"));
    let old = flashed.home.write("old.update", &update_to("0.0.9"));
    let refused = |file: &Path| {
        let output = flashed.tell(&["update", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&old);
    assert!(said.contains("the update: is version 0.0.9, and 0.1.0 runs already;"), "{said}");
    let said = refused(Path::new("/nowhere/at/all"));
    assert!(said.contains("/nowhere/at/all: No such file or directory"), "{said}");
    let output = flashed.tell(&["update", file.to_str().unwrap(), "--json"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"done\":{}}\n");
    flashed.starts_anew();
}

#[test]
fn one_update_comes_at_a_time_and_one_that_is_left_is_in_nobodys_way() {
    let mut flashed = Flashed::start("two-updates", "perennial-a.conf");
    let (good, file) = (update_to("0.2.0"), flashed.home.write("next.update", &update_to("0.2.0")));
    let file = file.to_str().unwrap().to_owned();
    let mut connection = Connection::to(flashed.page);
    let whole = request(flashed.page, "POST", "/api/v1/update", &flashed.bearer, &good);
    connection.send(&whole[..whole.len() / 2]);
    flashed.wait("it is being written", || fs::metadata(flashed.boot("b/kernel")).ok());
    let output = flashed.tell(&["update", &file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the update: another comes just now; wait until that has ended"),
        "{said}"
    );
    // Meanwhile everybody else is served.
    flashed.ask("GET", "/api/v1/pulse", "", b"").is(200);
    assert!(!flashed.boot("loader/entries/perennial-b+3.conf").exists());
    drop(connection);
    flashed.wait("the other has gone", || {
        flashed.tell(&["update", &file]).status.success().then_some(())
    });
    flashed.starts_anew();
}

#[test]
fn a_version_on_trial_is_good_once_it_has_served() {
    let flashed = Flashed::start("trial", "perennial-a+2-1.conf");
    let good = flashed.boot("loader/entries/perennial-a.conf");
    let said = flashed.post("/api/v1/update", &update_to("0.2.0")).is(422).text();
    assert!(said.starts_with("the box: is trying its last update just now"), "{said}");
    std::thread::sleep(Duration::from_secs(6));
    assert!(!good.exists(), "it has served nobody");
    let film = flashed.wait("the film is shared", || {
        let torrents = flashed.ask("GET", "/api/v1/torrents", "", b"").json();
        torrents["torrents"][0]["info_hash"].as_str().map(str::to_owned)
    });
    flashed.ask("GET", &format!("/s/{film}/film.mkv"), "", b"").is(200);
    let counted = flashed.boot("loader/entries/perennial-a+2-1.conf");
    flashed.wait("it is good", || (good.exists() && !counted.exists()).then_some(()));
}

#[test]
fn the_script_makes_what_the_box_takes() {
    let mut flashed = Flashed::start("script-update", "perennial-a.conf");
    let home = flashed.home.path();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/make-update");
    fs::create_dir(home.join("slot")).unwrap();
    fs::write(home.join("slot/kernel"), kernel()).unwrap();
    fs::write(home.join("slot/initrd"), b"init").unwrap();
    fs::write(home.join("slot/version"), b"uefi-arm64 0.2.0\n").unwrap();
    // The key of the tests, as openssl keeps it (RFC 8410, with an empty seed of 32 times 1).
    let der =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[1; 32]];
    fs::write(home.join("key.der"), der.concat()).unwrap();
    let mut openssl = Command::new("openssl");
    run_well(
        openssl.args(["pkey", "-inform", "DER", "-in", "key.der", "-out", "key"]).current_dir(home),
    );
    let make =
        |arguments: &[&str]| run_well(Command::new(script).args(arguments).current_dir(home));
    let line = String::from_utf8(make(&["--key", "key", "--public"])).unwrap();
    assert_eq!(perennial::init::update::parse_key(&line), Some(public(1)));
    let board = ["--key", "key", "--board", "uefi-arm64", "--version", "0.2.0"];
    make(&[&board[..], &["-o", "next.update", "slot"]].concat());
    let made = fs::read(home.join("next.update")).unwrap();
    let initrd: &[u8] = b"init";
    let ours = update(1, "uefi-arm64", "0.2.0", &[("initrd", initrd), ("kernel", &kernel())]);
    assert!(made == ours, "to the byte");
    // A key it makes is one, is nobody else's to read, and is never made in place of another.
    make(&["--new-key", "mine"]);
    let line = fs::read_to_string(home.join("mine.pub")).unwrap();
    assert!(perennial::init::update::parse_key(&line).is_some_and(|key| key != public(1)));
    assert_eq!(make(&["--key", "mine", "--public"]), line.as_bytes());
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(home.join("mine")).unwrap().permissions().mode() & 0o077, 0);
    fs::create_dir(home.join("slot/overlays")).unwrap();
    for (arguments, words) in [
        (&["--new-key", "mine"][..], "mine: is there already"),
        (&["--board", "x", "--version", "1", "slot"], "--key: is needed"),
        (&["--key", "mine.pub", "--public"], "openssl pkey: "),
        (
            &[&board[..4], &["--version", "1.0-rc1", "slot"]].concat(),
            "--version 1.0-rc1: is no version",
        ),
        (&[&board[..4], &["--version", "0.3.0", "slot"]].concat(), "slot/overlays: is no file"),
        (&[&board[..], &["nowhere"]].concat(), "nowhere: is no folder"),
    ] {
        let output = Command::new(script).args(arguments).current_dir(home).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
    flashed.post("/api/v1/update", &made).is(200);
    flashed.starts_anew();
}

#[test]
fn a_box_that_was_installed_says_how_it_is_updated() {
    let home = Folder::new("installed-update");
    let program: Program =
        crate::Call::run_box(&home, "[network]\ndht = \"off\"\nmap-port = false\n").start();
    let output = Command::new(binary())
        .args(["update", "/nowhere", "--state"])
        .arg(home.path().join("state"))
        .output()
        .unwrap();
    drop(program);
    let wanted = "perennial: this box: was installed, and has no slots to update; update it as it was \
                  installed: install the newer package over it\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), wanted);
    assert_eq!(output.status.code(), Some(1));
}

/// What [`Flashed::start`] starts; by itself it is nothing.
#[test]
fn a_flashed_box_in_a_process_of_its_own() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let mut boot = Mounted::writable(&home.join("boot"));
    let standing = slots::begin(&mut boot, Slot::A).unwrap();
    let machine = Machine { running: Slot::A, board: "uefi-arm64".into(), key: Some(public(1)) };
    let appliance = Appliance::new(boot, machine, standing);
    let config = Config::read(&home.join("box.toml")).unwrap();
    let again = || Config::read(&home.join("box.toml"));
    let report = &mut Report::new(true);
    let web = &perennial::web::run;
    let host = Host { slots: Some(Arc::new(appliance)), ..Host::default() };
    let end: Result<End, _> = life::run(config, &again, host, report, web);
    fs::write(home.join("ended.new"), format!("{end:?}")).unwrap();
    fs::rename(home.join("ended.new"), home.join("ended")).unwrap();
}

/// Where that box is.
const HOME: &str = "PERENNIAL_TEST_FLASHED";
