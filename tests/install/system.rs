//! A copy of this system that may be changed: what is written goes into memory, the rest is what
//! lies on its disk. In it are no processes but those of the test, and no network but loopback.

use crate::program::Folder;
use crate::{done, root};
use std::process::Command;

/// Runs a shell script as root of such a copy, and gives what it said. In it `$REPO` is the
/// repository, and `left` prints whatever has been written whose name has a word in it.
pub fn changed_by(script: &str) -> String {
    let folder = Folder::new("system");
    // `/run/systemd/system` is not there: nothing is started by installing it.
    let whole = format!(
        r#"mount -t tmpfs none "$0"
        cd "$0"
        mkdir upper work root
        mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root
        mount -t proc none root/proc
        mount -t tmpfs none root/run
        mount --rbind /dev root/dev
        mkdir -p "root$REPO" root/upper
        mount --bind "$REPO" "root$REPO"
        mount --bind upper root/upper
        ip link set lo up
        exec chroot root sh -euc '
            left() {{ (cd /upper && find . -name "*$1*" -not -type c | sort); }}
            cd /
            {script}' 2>&1"#
    );
    assert!(!script.contains('\''), "it is quoted");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-euc", &whole]);
    done(command.arg(folder.path()).env("REPO", root()).env("LC_ALL", "C.UTF-8"))
}
