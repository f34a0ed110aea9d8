//! `perennial config`: what it prints it takes, and what it does not take it says why.

use crate::program::{Folder, binary};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn config(arguments: &[&Path]) -> Command {
    let mut command = Command::new(binary());
    command.arg("config").args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn check(file: &Path) -> Output {
    config(&[Path::new("--check"), file]).output().unwrap()
}

#[test]
fn what_is_printed_is_right_with_and_without_its_examples() {
    let home = Folder::new("config");
    let printed = config(&[]).output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    let used = text.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
        _ => line,
    });
    let used: Vec<&str> = used.collect();
    assert!(used.contains(&"folder = \"/srv/share\"") && used.contains(&"[[share]]"), "{used:?}");
    for (name, text) in [("printed.toml", text.clone()), ("used.toml", used.join("\n"))] {
        let checked = check(&home.write(name, text.as_bytes()));
        assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(said.ends_with(&format!("{name}: nothing is wrong with it\n")), "{said}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_file_its_line_and_what_would_help() {
    let home = Folder::new("config-wrong");
    let table = [
        (
            "[network]\nlan_only = true",
            "line 2: `lan_only`: is no key of [network]; write `lan-only`",
        ),
        (
            "[caps]\n\nup = 2",
            "line 3: `up`: is a number, and has to be text in quotes; write up = ",
        ),
        ("name = \"a\"\nname = \"b\"", "line 2: `name = \"b\"`: duplicate key; mend that line"),
        ("state = \"var\"", "line 1: `state`: `var` does not begin with /; write the whole path"),
        ("board = \"toaster\"", "line 1: toaster: is no board; known are tiny, small"),
        ("[[share]]\n", "line 1: [[share]]: has neither `folder` nor `path`; write folder = "),
    ];
    for (text, expected) in table {
        let file = home.write("wrong.toml", text.as_bytes());
        let checked = check(&file);
        let said = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(1), "{text}: {said}");
        assert!(checked.stdout.is_empty(), "{text}");
        let expected = format!("perennial: {}, {expected}", file.display()).replacen("; ", "\n", 1);
        let (problem, remedy) = expected.split_once('\n').unwrap();
        assert!(said.starts_with(problem) && said.contains(remedy), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let missing = check(&home.path().join("missing.toml"));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(said.contains("missing.toml: ") && said.contains("; check its spelling"), "{said}");
}

#[test]
fn a_log_that_the_journal_reads_has_priorities() {
    let home = Folder::new("config-journal");
    let (wrong, log) = (home.write("wrong.toml", b"x = 1"), home.path().join("log"));
    let stderr = File::create(&log).unwrap();
    let stream = stderr.metadata().unwrap();
    let mut command = config(&[Path::new("--check"), &wrong]);
    command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()));
    assert_eq!(command.stderr(stderr).status().unwrap().code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.starts_with("<3>/") && said.contains("wrong.toml, line 1: `x`"), "{said}");
    // Stderr went elsewhere since.
    let elsewhere = command.stderr(Stdio::piped()).output().unwrap();
    assert!(elsewhere.stderr.starts_with(b"perennial: "), "{elsewhere:?}");
}
