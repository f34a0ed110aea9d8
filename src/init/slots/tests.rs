//! Names, lines and letters; what a power cut leaves of them is in `tests/powerfail`.

use super::*;
use crate::init::fat::Mounted;
use crate::service::test_folder::TestFolder;
use std::fs;

/// A boot partition with these files.
fn boot(name: &str, files: &[(&str, &str)]) -> (TestFolder, Mounted) {
    let folder = TestFolder::new(name);
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let boot = Mounted::writable(folder.path());
    (folder, boot)
}

fn names(folder: &TestFolder) -> std::vec::Vec<String> {
    let entries = fs::read_dir(folder.path().join(entries::FOLDER)).unwrap();
    let mut names: std::vec::Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_kernels_command_line_says_which_slot_runs() {
    let slot = |line: &str| Slot::of_command_line(line);
    assert_eq!(slot("console=ttyS1 perennial.slot=b panic=10\n"), Some(Slot::B));
    assert_eq!(slot("perennial.slot=a"), Some(Slot::A));
    for none in ["", "quiet", "perennial.slot=", "perennial.slot=c", "x.perennial.slot=a"] {
        assert_eq!(slot(none), None, "{none}");
    }
    assert_eq!(letter_at(b"quiet perennial.slot=a\n"), Some(21));
    assert_eq!(letter_at(b"quiet perennial.slot=\n"), None);
}

#[test]
fn a_box_that_neither_starts_is_good_as_it_is() {
    let (_folder, mut boot) = boot("slots-neither", &[("a/kernel", "")]);
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Good);
    good(&mut boot, Slot::A).unwrap();
    assert_eq!(loader(&boot), Loader::Unknown);
}

#[test]
fn an_entry_of_the_other_slot_keeps_what_the_owner_has_changed() {
    let text = "# mine\ntitle perennial\nsort-key perennial\nversion 0.1.0\nlinux /a/kernel\n\
                initrd /a/initrd\noptions console=ttyS7 perennial.slot=a panic=10\n";
    let (folder, mut boot) = boot("slots-entry", &[("loader/entries/perennial-a.conf", text)]);
    try_other(&mut boot, Slot::A, "0.2.0").unwrap();
    assert_eq!(names(&folder), ["perennial-a.conf", "perennial-b+3.conf"]);
    let made = fs::read_to_string(folder.path().join("loader/entries/perennial-b+3.conf")).unwrap();
    let wanted = "# mine\ntitle perennial\nsort-key perennial\nlinux /b/kernel\ninitrd /b/initrd\n\
                  options console=ttyS7 perennial.slot=b panic=10\nversion 0.2.0\n";
    assert_eq!(made, wanted);
}

#[test]
fn a_count_in_a_name_is_a_trial_and_goes_when_it_is_good() {
    for (name, standing) in [
        ("perennial-b.conf", Standing::Good),
        ("perennial-b+3.conf", Standing::Trial),
        ("perennial-b+2-1.conf", Standing::Trial),
        ("perennial-b+0-3.conf", Standing::Trial),
    ] {
        let path = std::format!("loader/entries/{name}");
        let files = [("loader/entries/perennial-a.conf", "version 1"), (&path, "version 2\n")];
        let (folder, mut boot) = boot("slots-count", &files);
        assert_eq!(begin(&mut boot, Slot::B).unwrap(), standing, "{name}");
        good(&mut boot, Slot::B).unwrap();
        assert_eq!(names(&folder), ["perennial-a.conf", "perennial-b.conf"]);
        let text = fs::read_to_string(folder.path().join("loader/entries/perennial-b.conf"));
        assert_eq!(text.unwrap(), "version 2\n");
    }
    // Seen from the other one, a trial that used up its starts was left.
    let used_up = "loader/entries/perennial-b+0-3.conf";
    let files = [("loader/entries/perennial-a.conf", ""), (used_up, "")];
    let (folder, mut boot) = boot("slots-left", &files);
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Returned);
    retire(&mut boot, Slot::A).unwrap();
    assert_eq!(names(&folder), ["perennial-a.conf"]);
}

#[test]
fn only_entries_of_ours_are_touched() {
    let others = ["other.conf", "perennial-b.conf.bak", "perennial-b+x.conf", "perennial-bb.conf"];
    let mut files = std::vec![("loader/entries/perennial-a.conf".into(), "")];
    files.extend(others.map(|name| (std::format!("loader/entries/{name}"), "")));
    let files: std::vec::Vec<(&str, &str)> =
        files.iter().map(|(name, text): &(String, &str)| (&**name, *text)).collect();
    let (folder, mut boot) = boot("slots-others", &files);
    retire(&mut boot, Slot::A).unwrap();
    assert_eq!(names(&folder).len(), files.len());
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Good);
}

#[test]
fn a_pi_counts_where_it_lies() {
    let config = "# ours\narm_64bit=1\nos_prefix=a/\nkernel=kernel\n";
    let (folder, mut boot) = boot("slots-pi", &[("config.txt", config)]);
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Good);
    assert!(!folder.path().join("slots").exists(), "nothing is written for nothing");
    try_other(&mut boot, Slot::A, "2").unwrap();
    assert_eq!(text("slots"), "good=a\ntrial=b\ntries=3\n");
    assert_eq!(text("config.txt"), config.replace("=a/", "=b/"));
    for left in (0..TRIES).rev() {
        assert_eq!(begin(&mut boot, Slot::B).unwrap(), Standing::Trial);
        assert_eq!(text("slots"), std::format!("good=a\ntrial=b\ntries={left}\n"));
    }
    assert_eq!(begin(&mut boot, Slot::B).unwrap(), Standing::Restart);
    assert_eq!(text("config.txt"), config);
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Returned);
    assert_eq!(text("slots"), "good=a\ntrial=-\ntries=0\n");
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Good);
}

#[test]
fn what_a_pi_counts_is_read_however_it_was_cut() {
    use config::State;
    let parse = |text: &str| State::parse(text);
    // As an image may have it, and as it is when its new length or its new bytes are not there yet.
    let trial = parse("good=a\ntrial=b\ntries=3\n");
    assert!(trial.is_some());
    assert_eq!(parse("good=a\ntrial=b\ntries=3"), trial);
    let none = parse("good=a\ntrial=\ntries=0\n");
    assert!(none.is_some());
    assert_eq!(parse("good=a\ntrial=\ntries=0\n\0"), none);
    assert_eq!(parse("good=a\ntrial=-\ntries=0\n"), none);
    for wrong in ["", "good=c\ntrial=b\ntries=1\n", "good=a\ntries=1\n", "good=a\ntrial=b\ntries=9"]
    {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    // There would be nothing to return to.
    assert_eq!(parse("good=a\ntrial=a\ntries=0\n"), none);
    // What makes no sense is as good as nothing.
    let files = [("config.txt", "os_prefix=a/\n"), ("slots", "\0\0\0")];
    let (_folder, mut boot) = boot("slots-garbled", &files);
    assert_eq!(begin(&mut boot, Slot::A).unwrap(), Standing::Good);
}

#[test]
fn a_config_that_names_no_slot_is_refused_before_anything_starts_otherwise() {
    for config in
        ["kernel=kernel\n", "os_prefix=a/\nos_prefix=a/\n", "#os_prefix=a/\n", "os_prefix=a"]
    {
        let (folder, mut boot) = boot("slots-config", &[("config.txt", config)]);
        let error = retire(&mut boot, Slot::A).unwrap_err();
        assert!(std::format!("{error}").contains("has not one line os_prefix=a/"), "{error}");
        assert!(!folder.path().join("slots").exists());
    }
}
