//! Man pages and completions, as they were made from the command line's own definition.

use crate::{done, ended, own, root, text};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn manual() -> PathBuf {
    let manual = root().join("target/manual");
    assert!(manual.exists(), "first: scripts/make-deb amd64 arm64");
    manual
}

#[test]
fn man_pages_render_without_a_warning_and_there_is_one_for_every_command() {
    let mut rendered = 0;
    for entry in fs::read_dir(manual().join("man")).unwrap() {
        let page = entry.unwrap().path();
        let mut command = Command::new("groff");
        let output = ended(command.args(["-man", "-Tutf8", "-Kutf8", "-ww", "-P-cbou"]).arg(&page));
        let warnings = text(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", page.display());
        assert!(text(&output.stdout).contains("SYNOPSIS"), "{}", page.display());
        rendered += 1;
    }
    let help = done(Command::new(own()).arg("help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.split_whitespace().next());
    let mut known = 0;
    for command in commands.filter(|command| *command != "help") {
        let page = manual().join("man").join(format!("perennial-{command}.1"));
        assert!(page.exists(), "{}", page.display());
        known += 1;
    }
    assert_eq!(rendered, known + 1, "and one for all of them");
}

#[test]
fn completions_are_scripts_and_complete() {
    let bash = manual().join("completions/perennial.bash");
    done(Command::new("bash").arg("-n").arg(&bash));
    let line = r#". "$0"; COMP_WORDS=(perennial sh) COMP_CWORD=1
        _perennial perennial sh perennial; echo "${COMPREPLY[@]}""#;
    let completed = done(Command::new("bash").args(["-c", line]).arg(&bash));
    assert_eq!(completed, "share show\n");
    for name in ["_perennial", "perennial.fish"] {
        let script = fs::read_to_string(manual().join("completions").join(name)).unwrap();
        assert!(script.contains("--piece-size") || script.contains("-l piece-size"), "{name}");
    }
}
