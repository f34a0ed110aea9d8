//! `scripts/install`, for systems without packages of ours.

use crate::program::Folder;
use crate::system::changed_by;
use crate::{done, ended, own, root, script, text};
use std::fs;
use std::path::Path;
use std::process::Command;

fn install(below: &Path, arguments: &[&str]) -> String {
    let mut command = script("install");
    done(command.arg("--root").arg(below).arg("--binary").arg(own()).args(arguments))
}

/// Files and folders below a folder.
fn all_below(folder: &Path) -> String {
    done(Command::new("find").arg(folder).args(["-mindepth", "1", "-printf", "%M %P\\n"]))
}

#[test]
fn it_brings_everything_once_and_takes_all_of_it_away_again() {
    for (service, file) in [
        ("systemd", "etc/systemd/system/perennial.service"),
        ("openrc", "etc/init.d/perennial"),
        ("sysv", "etc/init.d/perennial"),
        ("none", "opt/box/bin/perennial"),
    ] {
        let folder = Folder::new("prefix");
        let below = folder.path();
        let arguments = ["--prefix", "/opt/box", "--service", service];
        let said = install(below, &arguments);
        for place in [file, "opt/box/bin/perennial", "etc/perennial/perennial.toml"] {
            assert!(said.contains(below.join(place).to_str().unwrap()), "{place}: {said}");
        }
        let text = String::from_utf8_lossy(&fs::read(below.join(file)).unwrap()).into_owned();
        assert!(service == "none" || text.contains("/opt/box/bin/perennial"), "{text}");
        if file.contains("init.d") {
            done(Command::new("sh").arg("-n").arg(below.join(file)));
        }
        let before = all_below(below);
        assert!(before.contains("opt/box/share/man/man1/perennial-share.1"), "{before}");

        let again = install(below, &arguments);
        assert!(!again.contains(below.to_str().unwrap()), "done again it does nothing: {again}");
        assert_eq!(all_below(below), before);

        install(below, &["--uninstall", "--prefix", "/opt/box"]);
        assert_eq!(all_below(below), "", "{service}");
    }
}

/// The unit forbids to run anything but the program, which one that is not static is not alone.
#[test]
fn a_program_with_libraries_may_load_them() {
    let folder = Folder::new("libraries");
    let line = |binary: &Path| {
        let mut command = script("install");
        command.arg("--root").arg(folder.path()).args(["--service", "systemd", "--binary"]);
        done(command.arg(binary));
        let unit = folder.path().join("etc/systemd/system/perennial.service");
        let text = fs::read_to_string(unit).unwrap();
        text.lines().find(|line| line.starts_with("ExecPaths=")).unwrap().to_string()
    };
    assert_eq!(line(&own()), "ExecPaths=/usr/local/bin/perennial");
    let linked = line(Path::new(env!("CARGO_BIN_EXE_perennial")));
    assert_eq!(linked, "ExecPaths=/usr/local/bin/perennial -/lib -/lib64 -/usr/lib -/usr/lib64");
}

#[test]
fn a_configuration_that_was_changed_and_what_the_box_remembers_stay() {
    let folder = Folder::new("kept");
    let below = folder.path();
    install(below, &["--service", "systemd"]);
    let config = folder.write("etc/perennial/perennial.toml", b"name = \"attic\"\n");
    let journal = folder.write("var/lib/perennial/journal", b"");
    let said = install(below, &["--service", "systemd"]);
    assert!(said.contains("kept"), "{said}");
    let said = install(below, &["--uninstall"]);
    assert!(said.contains(&format!("kept {}", config.display())), "{said}");
    assert!(config.exists() && journal.exists());
    assert_eq!(fs::read_to_string(config).unwrap(), "name = \"attic\"\n");
}

#[test]
fn what_cannot_be_done_is_refused_and_nothing_is_written() {
    let folder = Folder::new("refused");
    let foreign = folder.write("foreign", b"#!/bin/false\n");
    let below = folder.path().join("root");
    for arguments in [
        &["--binary", foreign.to_str().unwrap()][..],
        &["--binary", own().to_str().unwrap(), "--prefix", "opt"],
        &["--binary", own().to_str().unwrap(), "--service", "cron"],
        &["--prefix"],
        &["--now"],
    ] {
        let output = ended(script("install").arg("--root").arg(&below).args(arguments));
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty() && !below.exists(), "{}", text(&output.stderr));
    }
}

/// In a copy of this system, with its own `start-stop-daemon`.
#[test]
fn without_systemd_a_start_script_runs_it_as_somebody_who_owns_nothing_else() {
    let said = changed_by(&format!(
        r#"
        mkdir -p /srv/share; echo film >/srv/share/film
        {root}/scripts/install --service sysv --binary {own} >/dev/null
        printf "[[share]]\nfolder = \"/srv/share\"\n" >/etc/perennial/perennial.toml
        /etc/init.d/perennial restart
        for i in $(seq 100); do
            perennial list 2>/dev/null | grep -q film && break
            sleep 0.1
        done
        perennial list
        /etc/init.d/perennial status
        stat -c %U /var/lib/perennial /var/lib/perennial/journal
        /etc/init.d/perennial reload
        kill -0 $(cat /run/perennial.pid)
        {root}/scripts/install --uninstall
        /etc/init.d/perennial status 2>&1 || true
        left init.d/perennial; left bin/perennial
        "#,
        root = root().display(),
        own = own().display(),
    ));
    for expected in ["film", "perennial runs", "perennial\nperennial\n", "kept /var/lib/perennial"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
