//! The package on a system that is started with it: systemd as the first process of a container.

use crate::program::Folder;
use crate::{done, package, root};
use std::fs;
use std::process::Command;

/// With the drop-in that the package has an example of: content below a home that is shut, content
/// of a group, a disk that comes later, and a folder to fetch into; and with everything that the unit forbids.
#[test]
fn it_reads_and_writes_where_its_drop_in_says_and_nowhere_else() {
    let (_folder, package) = package("amd64");
    let folder = Folder::new("booted");
    let (before, look) =
        (folder.write("before.sh", BEFORE.as_bytes()), folder.write("look.sh", LOOK.as_bytes()));
    let script = format!(
        r#"mount -t tmpfs none "$0"
        cd "$0"
        mkdir upper work root
        mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root
        # What this system starts, and what forbids packages to start anything.
        rm -rf root/etc/systemd/system/*.wants root/usr/sbin/policy-rc.d
        mount --bind /proc root/proc
        chroot root dpkg --no-triggers -i "{package}" >/dev/null
        umount root/proc
        cp "{look}" root/look.sh
        cp "{package}" root/perennial.deb
        sh -eu "{before}" "{repository}/scripts/package/content.conf"
        timeout --foreground 90 systemd-nspawn --quiet -D root --private-network --boot \
            --register=no --keep-unit systemd.unit=multi-user.target \
            </dev/null >boot.log 2>&1 || cat boot.log
        cat root/said"#,
        package = package.display(),
        look = look.display(),
        before = before.display(),
        repository = root().display(),
    );
    let mount = Folder::new("booted-system");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", &script]);
    let said = done(command.arg(mount.path()).env("LC_ALL", "C.UTF-8"));
    println!("{said}");
    let drop_in = fs::read_to_string(root().join("scripts/package/content.conf")).unwrap();
    assert!(drop_in.contains("#ReadWritePaths=/srv/fetched"), "it is the example that was tried");
    for expected in [
        "is active, running: on the air",
        "shares: film group.mkv home.mkv",
        "rights: 0000000000000000, no new ones: 1",
        "memory is that of 10-board.conf",
        "reloaded",
        "shares: film group.mkv home.mkv new",
        "fetched",
        "a home that was not named: refused",
        "and where that is said",
        "what is mounted later arrives",
        "killed, it is back: disk.mkv film group.mkv home.mkv new song",
        "installed again: active, disk.mkv film group.mkv home.mkv new song",
        "removed: inactive",
    ] {
        assert!(said.lines().any(|line| line == expected), "{expected}: {said}");
    }
}

/// What is there before it is started. Its argument is the example of a drop-in.
const BEFORE: &str = r#"
mkdir -p root/mnt/disk root/srv/share root/srv/group root/srv/fetched root/home/me/Videos root/home/you
echo film >root/srv/share/film
echo home >root/home/me/Videos/home.mkv
echo you >root/home/you/secret
chmod 700 root/home/me
echo group >root/srv/group/group.mkv
chgrp -R audio root/srv/group root/srv/fetched
chmod 750 root/srv/group
chmod 640 root/srv/group/group.mkv
chmod 2775 root/srv/fetched
cat >root/etc/perennial/perennial.toml <<TOML
[network]
dht = "off"
map-port = false
[web]
listen = "off"
[[share]]
folder = "/srv/share"
[[share]]
folder = "/srv/group"
[[share]]
folder = "/home/me/Videos"
[[share]]
folder = "/mnt/disk"
[fetch]
into = "/srv/fetched"
TOML
sed 's/^#\([A-Z]\)/\1/; s/=media$/=audio/' "$1" \
    >root/etc/systemd/system/perennial.service.d/content.conf
cat >root/etc/systemd/system/look.service <<UNIT
[Unit]
After=perennial.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c "timeout 60 sh -u /look.sh; exec systemctl poweroff --force"
StandardOutput=file:/said
StandardError=file:/said
UNIT
wanted=root/etc/systemd/system/multi-user.target.wants
ln -s /etc/systemd/system/look.service $wanted/
"#;

/// What is done in it.
const LOOK: &str = r#"
show() { systemctl show -P "$1" perennial; }
names() { perennial list 2>/dev/null | sed 1d | awk '{print $2}' | sort | tr '\n' ' ' | sed 's/ $//'; }
# Waits until as many torrents are listed as there are to be.
shares() {
    for i in $(seq 100); do
        [ "$(names | wc -w)" = "$1" ] && break
        sleep 0.1
    done
    names
}
echo "shares: $(shares 3)"
echo "is $(show ActiveState), $(show SubState): $(show StatusText)"
status=/proc/$(show MainPID)/status
echo "rights: $(awk '/^CapEff/ {print $2}' $status), no new ones: $(awk '/^NoNewPrivs/ {print $2}' $status)"
conf=/etc/systemd/system/perennial.service.d/10-board.conf
[ "$(sed -n 's/MemoryMax=//p' $conf)" -ge "$(show MemoryMax)" ] && echo "memory is that of 10-board.conf"
systemctl reload perennial && echo reloaded
echo new >/srv/share/new
echo "shares: $(shares 4)"

head -c 100000 /dev/urandom >/tmp/song
perennial share /tmp/song --state /tmp/giver --listen 127.0.0.1:7000 --web off --lan --json \
    >/tmp/giver.log 2>/tmp/giver.err &
for i in $(seq 100); do
    grep -qs '"ready"' /tmp/giver.log && break
    sleep 0.1
done
# It has a /tmp of its own.
cp /tmp/giver/torrents/*/*.torrent /srv/song.torrent
chmod 644 /srv/song.torrent
perennial add /srv/song.torrent --peer 127.0.0.1:7000
for i in $(seq 100); do
    cmp -s /tmp/song /srv/fetched/song && break
    sleep 0.1
done
cmp /tmp/song /srv/fetched/song && echo fetched
mount -t tmpfs none /mnt/disk
echo disk >/mnt/disk/disk.mkv
for i in $(seq 50); do
    perennial stats | grep -q "something that was mounted" && break
    sleep 0.1
done
perennial stats | grep -q "something that was mounted" && echo "what is mounted later arrives"
perennial add /home/you/secret 2>/add.said || echo "a home that was not named: refused"
grep -q content.conf /add.said && echo "and where that is said"

kill -9 "$(show MainPID)"
sleep 1
echo "killed, it is back: $(shares 6)"
before=$(show MainPID)
dpkg --no-triggers -i /perennial.deb >/dev/null </dev/null
[ "$(show MainPID)" != "$before" ] && echo "installed again: $(show ActiveState), $(shares 6)"
dpkg --no-triggers -r perennial >/dev/null
echo "removed: $(show ActiveState)"
"#;
