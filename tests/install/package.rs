//! The Debian packages: what is in them, and how they come and go.

use crate::program::Folder;
use crate::system::changed_by;
use crate::{done, package, script};
use std::fs;
use std::process::Command;

#[test]
fn two_builds_of_a_package_are_the_same_bytes() {
    let folder = Folder::new("packages");
    let packed = |name: &str, umask: &str, zone: &str| {
        let output = folder.path().join(name);
        let line = format!("umask {umask}; exec \"$0\" --built amd64 arm64 -o \"$1\"");
        let script = script("make-deb").get_program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(script).arg(&output);
        done(command.env("SOURCE_DATE_EPOCH", "1700000000").env("TZ", zone));
        let mut packages: Vec<_> =
            fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path()).collect();
        packages.sort();
        assert_eq!(packages.len(), 2);
        packages.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    assert!(packed("one", "022", "UTC") == packed("two", "077", "Asia/Tokyo"));
}

#[test]
fn everything_in_it_is_roots_and_is_written_by_nobody_else() {
    let (_folder, package) = package("arm64");
    let listed = done(Command::new("dpkg-deb").arg("-c").arg(&package));
    for line in listed.lines() {
        let (mode, owner) = line.split_once(' ').unwrap();
        assert!(owner.trim_start().starts_with("root/root "), "{line}");
        assert!(&mode[5..6] == "-" && &mode[8..9] == "-" && &mode[7..8] == "r", "{line}");
    }
    for place in [
        "./usr/bin/perennial",
        "./lib/systemd/system/perennial.service",
        "./etc/perennial/perennial.toml",
        "./usr/share/man/man1/perennial-share.1.gz",
        "./usr/share/bash-completion/completions/perennial",
        "./usr/share/doc/perennial/examples/content.conf",
        "./usr/share/doc/perennial/copyright",
    ] {
        assert!(listed.contains(&format!(" {place}\n")), "{place}: {listed}");
    }
}

#[test]
fn the_one_for_arm_unpacks_and_its_program_runs() {
    let (folder, package) = package("arm64");
    let root = folder.path().join("root");
    done(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root));
    let run = |arguments: &[&str]| {
        let mut command = Command::new("qemu-aarch64");
        done(command.arg(root.join("usr/bin/perennial")).args(arguments))
    };
    assert_eq!(run(&["--version"]), format!("perennial {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&["board", "small"]).contains("together"));
    let configuration = fs::read_to_string(root.join("etc/perennial/perennial.toml")).unwrap();
    assert_eq!(run(&["config"]), configuration, "what is in it is what its program prints");
}

/// Enabled, the machine's memory limit; a configuration that was changed stays when it is
/// removed; purged, nothing stays but content, also where it does not belong.
#[test]
fn it_comes_and_goes_and_content_stays() {
    let (_folder, package) = package("amd64");
    let said = changed_by(&format!(
        r#"
        dpkg --no-triggers -i {package} >/dev/null
        test -L /etc/systemd/system/multi-user.target.wants/perennial.service
        grep -q "^MemoryMax=[1-9][0-9]*$" /etc/systemd/system/perennial.service.d/10-board.conf
        perennial config --check /etc/perennial/perennial.toml
        test "$(stat -c %a /usr/bin/perennial)" = 755

        # The box as systemd would run it, with content in its state folder and elsewhere.
        state=/var/lib/private/perennial
        mkdir -p $state/films /srv/share
        ln -s private/perennial /var/lib/perennial
        echo film >$state/films/film; echo song >/srv/share/song; echo photo >/srv/share/photo
        cat >/etc/perennial/perennial.toml <<TOML
[[share]]
folder = "/srv/share"
[web]
listen = "127.0.0.1:8080"
TOML
        STATE_DIRECTORY=$state perennial run 2>/dev/null &
        box=$!
        for i in $(seq 100); do
            perennial list 2>/dev/null | grep -q song && break
            sleep 0.1
        done
        perennial list
        perennial pause song >/dev/null
        perennial stop; wait $box

        # The same again, as an upgrade: what was changed and disabled stays so.
        systemctl disable perennial.service 2>/dev/null
        dpkg --no-triggers --force-confold -i {package} >/dev/null
        test ! -e /etc/systemd/system/multi-user.target.wants/perennial.service
        grep -q /srv/share /etc/perennial/perennial.toml

        dpkg --no-triggers -r perennial >/dev/null
        test -f /etc/perennial/perennial.toml; test -f $state/journal
        test ! -e /usr/bin/perennial
        dpkg --no-triggers -P perennial
        echo ==
        find $state /srv/share -type f | sort
        echo ==
        left perennial
        "#,
        package = package.display()
    ));
    let parts: Vec<&str> = said.split("==\n").collect();
    assert_eq!(parts.len(), 3, "{said}");
    assert!(parts[0].contains("song") && parts[0].contains("is kept"), "{said}");
    let content = "/srv/share/photo\n/srv/share/song\n/var/lib/private/perennial/films/film\n";
    assert_eq!(parts[1], content, "{said}");
    let left = "./var/lib/perennial\n./var/lib/private/perennial\n";
    let left_of_this_test = parts[2].lines().filter(|line| !line.starts_with("./tmp/"));
    assert_eq!(left_of_this_test.collect::<Vec<_>>().join("\n") + "\n", left, "{said}");
}

/// Its build takes minutes: with `scripts/test --full` only.
#[test]
fn the_one_for_32_bit_arm_runs() {
    if std::env::var_os("PERENNIAL_FULL").is_none() {
        return;
    }
    let (folder, package) = package("armhf");
    let root = folder.path().join("root");
    done(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root));
    let mut command = Command::new("qemu-arm");
    let said = done(command.arg(root.join("usr/bin/perennial")).args(["board", "small"]));
    assert!(said.contains("together"), "{said}");
}
