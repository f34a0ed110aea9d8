//! The power cut between every two changes of an update: whatever is left, the box starts from a slot
//! that is whole, ends on one that does, and can be updated again.
//!
//! What starts the box is modelled here from what its makers say of it: systemd-boot with its counts
//! (Boot Loader Specification), and the firmware of a Raspberry Pi, which knows `os_prefix`.

use crate::mock_fat::MockFat;
use crate::prng::Prng;
use crate::update_file::{public, update};
use perennial::init::slots::{self, Slot, Standing, TRIES};
use perennial::init::update::{Machine, Update};
use perennial::service::Refusal;
use perennial::service::update::Incoming as _;

const BOARD: &str = "uefi-arm64";

/// What starts the box.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Firmware {
    SystemdBoot,
    RaspberryPi,
}

/// What is in a slot of that version.
fn files(version: u8) -> Vec<(&'static str, Vec<u8>)> {
    let kernel: Vec<u8> = (0..3_000_u16).map(|at| (at % 251) as u8 ^ version).collect();
    let command_line = format!("console=tty1 perennial.slot=a n={version}\n");
    vec![
        ("kernel", kernel),
        ("empty", Vec::new()),
        ("initrd", vec![version; 1_100]),
        ("cmdline.txt", command_line.into_bytes()),
    ]
}

fn update_to(version: u8) -> Vec<u8> {
    let files = files(version);
    let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    update(1, BOARD, &format!("0.{version}"), &files)
}

fn put_slot(fat: &MockFat, slot: Slot, version: u8) {
    let letter = slot.letter();
    for (name, bytes) in files(version) {
        let bytes = match name {
            "cmdline.txt" => String::from_utf8(bytes)
                .unwrap()
                .replace("slot=a", &format!("slot={letter}"))
                .into_bytes(),
            _ => bytes,
        };
        fat.put(&format!("{letter}/{name}"), &bytes);
    }
    fat.put(&format!("{letter}/version"), format!("{BOARD} 0.{version}\n").as_bytes());
}

fn put_entry(fat: &MockFat, slot: Slot, version: u8) {
    let text = format!(
        "title perennial\nsort-key perennial\nversion 0.{version}\nlinux /{slot}/kernel\n\
         initrd /{slot}/initrd\noptions quiet perennial.slot={slot} panic=10\n"
    );
    fat.put(&format!("loader/entries/perennial-{slot}.conf"), text.as_bytes());
}

/// A card on which `running` is good, with `version`; below 2 the other slot is empty.
fn card(firmware: Firmware, running: Slot, version: u8) -> MockFat {
    let fat = MockFat::default();
    put_slot(&fat, running, version);
    let both = version > 1;
    if both {
        put_slot(&fat, running.other(), version - 1);
    }
    match firmware {
        Firmware::SystemdBoot => {
            fat.put("loader/loader.conf", b"timeout 0\n");
            put_entry(&fat, running, version);
            if both {
                put_entry(&fat, running.other(), version - 1);
            }
        }
        Firmware::RaspberryPi => {
            let config =
                format!("# made by perennial\narm_64bit=1\nos_prefix={running}/\nkernel=kernel\n");
            fat.put("config.txt", config.as_bytes());
            if both {
                fat.put("slots", format!("good={running}\ntrial=\ntries=0\n").as_bytes());
            }
        }
    }
    fat
}

/// Starts the box as its firmware does: which slot.
fn start(fat: &MockFat, firmware: Firmware) -> Slot {
    let slot = |letter: &str| if letter == "a" { Slot::A } else { Slot::B };
    match firmware {
        Firmware::RaspberryPi => {
            let config = String::from_utf8(fat.get("config.txt").unwrap()).unwrap();
            let prefix = config.lines().find_map(|line| line.strip_prefix("os_prefix="));
            let letter = prefix.unwrap().trim_end_matches('/');
            let line =
                String::from_utf8(fat.get(&format!("{letter}/cmdline.txt")).unwrap()).unwrap();
            assert_eq!(Slot::of_command_line(&line), Some(slot(letter)), "{line}");
            slot(letter)
        }
        Firmware::SystemdBoot => {
            let (name, letter) = best_entry(fat).expect("there is an entry to start");
            // It counts before it starts the kernel.
            if let Some((front, count)) = name.trim_end_matches(".conf").split_once('+') {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                let (left, done) = (left.parse::<u32>().unwrap(), done.parse::<u32>().unwrap());
                let entry = fat.take(&format!("loader/entries/{name}")).unwrap();
                let name = format!("{front}+{}-{}.conf", left.saturating_sub(1), done + 1);
                fat.put(&format!("loader/entries/{name}"), &entry);
            }
            slot(&letter)
        }
    }
}

/// Name and slot of the entry that systemd-boot takes.
fn best_entry(fat: &MockFat) -> Option<(String, String)> {
    use perennial::init::fat::Files as _;
    let mut best: Option<((bool, Vec<u32>), String, String)> = None;
    for (name, _) in fat.list("loader/entries").unwrap() {
        let Some(bare) = name.strip_suffix(".conf") else { continue };
        let text = fat.get(&format!("loader/entries/{name}")).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        // One that names no kernel which is there is passed over.
        let Some(kernel) = value("linux") else { continue };
        if fat.get(kernel.trim_start_matches('/')).is_none() {
            continue;
        }
        let has_starts = !bare.contains("+0");
        let version = value("version").unwrap_or_default();
        let version = version.split('.').filter_map(|number| number.parse().ok()).collect();
        let letter = value("options").unwrap().split("perennial.slot=").nth(1).unwrap()[..1].into();
        assert_eq!(kernel, format!("/{letter}/kernel"));
        let order = (has_starts, version);
        if best.as_ref().is_none_or(|(other, ..)| order > *other) {
            best = Some((order, name, letter));
        }
    }
    best.map(|(_, name, letter)| (name, letter))
}

/// The version in a slot, all of whose files are as they are to be.
#[track_caller]
fn whole_version(fat: &MockFat, slot: Slot) -> u8 {
    let letter = slot.letter();
    let text = fat.get(&format!("{letter}/version")).expect("it has a version");
    let text = String::from_utf8(text).unwrap();
    let version =
        text.trim_end().strip_prefix("uefi-arm64 0.").expect("it is ours").parse().unwrap();
    for (name, bytes) in files(version) {
        let there = fat.get(&format!("{letter}/{name}"));
        match name {
            "cmdline.txt" => {
                let text = String::from_utf8(there.unwrap()).unwrap();
                assert_eq!(text, format!("console=tty1 perennial.slot={letter} n={version}\n"));
            }
            _ => assert!(there.as_ref() == Some(&bytes), "{letter}/{name} is not whole"),
        }
    }
    version
}

/// Updates the box that runs from `running`, in slices of no length in particular.
fn take_update(fat: &MockFat, running: Slot, version: u8) -> Result<(), Refusal> {
    let machine = Machine { running, board: BOARD.into(), key: Some(public(1)) };
    let mut update = Update::new(Box::new(fat.clone()), machine);
    update_to(version).chunks(701).try_for_each(|slice| update.take(slice))?;
    while update.settle(&mut [0; 900])?.is_none() {}
    Ok(())
}

/// Starts the box until a version does; `works` says which do. That one, where it lies, and how many
/// starts it took.
fn start_until_well(
    fat: &MockFat,
    firmware: Firmware,
    works: impl Fn(u8) -> bool,
) -> Result<(Slot, u8, u32), Refusal> {
    for starts in 1..=TRIES + 3 {
        let slot = start(fat, firmware);
        let version = whole_version(fat, slot);
        let files = &mut fat.clone();
        if slots::begin(files, slot)? != Standing::Restart && works(version) {
            slots::good(files, slot)?;
            return Ok((slot, version, starts));
        }
    }
    panic!("it starts again and again");
}

/// Cuts the power after each change of an update from `version` in `running` and what follows it. Of
/// two updates `in_a_row` the first is whole, and was not started.
fn cut_everywhere(
    firmware: Firmware,
    running: Slot,
    version: u8,
    (new_works, in_a_row): (bool, bool),
) -> usize {
    let new = version + 1 + u8::from(in_a_row);
    let works = |started| started <= version || new_works;
    for cut in 0.. {
        let mut was_cut = false;
        for seed in 0..24 {
            let at = format!(
                "{firmware:?}, {running}, {version}, {new_works}, {in_a_row}: {cut}, {seed}"
            );
            let fat = card(firmware, running, version);
            if in_a_row {
                take_update(&fat, running, version + 1).expect(&at);
            }
            fat.cut_after(cut);
            let done = take_update(&fat, running, new)
                .and_then(|()| start_until_well(&fat, firmware, works));
            was_cut = done.is_err();
            let fat = fat.restart(&mut Prng::new(seed ^ (cut as u64) << 8));
            let (slot, found, _) = start_until_well(&fat, firmware, works).expect(&at);
            let is_new = found > version && found <= new;
            assert!(found == version || (new_works && is_new), "{at}: {found}");
            assert_eq!(slot == running, found == version, "{at}");
            // What has been cut off can be done once more.
            if found == version {
                let next = new + u8::from(!new_works);
                take_update(&fat, slot, next).expect(&at);
                let works = |_| true;
                let well = start_until_well(&fat, firmware, works).expect(&at);
                assert_eq!(well, (running.other(), next, 1), "{at}");
            }
        }
        if !was_cut {
            return cut;
        }
    }
    unreachable!("an update has an end")
}

#[test]
fn a_power_cut_at_any_change_of_an_update_leaves_a_box_that_starts() {
    for firmware in [Firmware::SystemdBoot, Firmware::RaspberryPi] {
        for (running, version) in [(Slot::A, 1), (Slot::A, 3), (Slot::B, 2)] {
            for how in [(true, false), (false, false), (true, true), (false, true)] {
                let cuts = cut_everywhere(firmware, running, version, how);
                assert!(cuts > 25, "{cuts}");
            }
        }
    }
}

#[test]
fn a_version_that_does_not_do_is_left_after_its_tries() {
    for firmware in [Firmware::SystemdBoot, Firmware::RaspberryPi] {
        let fat = card(firmware, Slot::A, 1);
        take_update(&fat, Slot::A, 2).unwrap();
        let well = start_until_well(&fat, firmware, |version| version == 1).unwrap();
        // The Pi's last one only finds that its starts are used up.
        let starts = TRIES + if firmware == Firmware::RaspberryPi { 2 } else { 1 };
        assert_eq!(well, (Slot::A, 1, starts));
        // It stays so, and that it was left is known on the next start at the latest.
        assert_eq!(start(&fat, firmware), Slot::A);
        let again = slots::begin(&mut fat.clone(), Slot::A).unwrap();
        assert_ne!(again, Standing::Trial);
    }
}

#[test]
fn a_version_on_trial_stays_so_until_it_is_good() {
    for firmware in [Firmware::SystemdBoot, Firmware::RaspberryPi] {
        let fat = card(firmware, Slot::B, 1);
        take_update(&fat, Slot::B, 2).unwrap();
        for _ in 0..TRIES {
            assert_eq!(start(&fat, firmware), Slot::A);
            assert_eq!(slots::begin(&mut fat.clone(), Slot::A).unwrap(), Standing::Trial);
        }
        slots::good(&mut fat.clone(), Slot::A).unwrap();
        let done = fat.done();
        for _ in 0..2 * TRIES {
            assert_eq!(start(&fat, firmware), Slot::A);
            assert_eq!(slots::begin(&mut fat.clone(), Slot::A).unwrap(), Standing::Good);
            slots::good(&mut fat.clone(), Slot::A).unwrap();
        }
        assert_eq!(fat.done(), done, "what is good is not written again");
    }
}
