//! What is taken, and every refusal; what a power cut leaves is in `tests/powerfail`.

use super::*;
use crate::service::test_folder::TestFolder;
use std::fs;
use std::sync::atomic::AtomicU32;

#[cfg(feature = "tls")]
#[path = "../../../tests/support/update.rs"]
mod update_file;

const BOARD: &str = "uefi-arm64";

/// A box that runs `version` of slot a, started by systemd-boot.
fn boot(name: &str, version: &str) -> TestFolder {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = TestFolder::new(&std::format!("{name}-{number}"));
    for below in ["a", "b", "loader/entries"] {
        fs::create_dir_all(folder.path().join(below)).unwrap();
    }
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    write("a/version", &std::format!("{BOARD} {version}\n"));
    write("a/kernel", "the old kernel");
    write("b/kernel", "one that is older still");
    write("b/left-over", "");
    let entry = std::format!("version {version}\nlinux /a/kernel\noptions perennial.slot=a\n");
    write("loader/entries/perennial-a.conf", &entry);
    write("loader/entries/perennial-b.conf", &entry.replace('a', "b"));
    folder
}

fn update_of(folder: &TestFolder, key: Option<[u8; 32]>) -> Update {
    let machine = Machine { running: Slot::A, board: BOARD.into(), key };
    Update::new(Box::new(Mounted::writable(folder.path())), machine)
}

/// Takes an update in slices of that length.
fn take(mut update: Update, whole: &[u8], slice: usize) -> Result<String, Refusal> {
    whole.chunks(slice).try_for_each(|slice| update.take(slice))?;
    let mut buffer = [0; 5];
    loop {
        if let Some(ready) = update.settle(&mut buffer)? {
            return Ok(ready);
        }
    }
}

#[test]
fn a_key_is_a_line_of_base64() {
    let line = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    assert_eq!(parse_key(line), Some([7; 32]));
    for wrong in
        ["", "BwcH", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n", "?", &"A".repeat(400)]
    {
        assert_eq!(parse_key(wrong), None, "{wrong}");
    }
}

#[test]
fn versions_are_numbers_in_a_row() {
    let version = numbers;
    let order = ["0.1", "0.1.1", "0.2", "0.10", "1", "1.0.0.1", "2024.11.26"];
    for pair in order.windows(2) {
        assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
    }
    assert!(version("1.0") == version("1"));
    for wrong in ["", ".", "1.", "1.0.0.0.0", "1.0-rc1", "+1", "v1", "1.99999999999"] {
        assert!(version(wrong).is_none(), "{wrong}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn without_tls_no_signature_can_be_checked() {
    let folder = boot("update-bare", "0.1.0");
    let mut whole = b"perennial update\x01\0\0\0\x04\0\0\0abcd".to_vec();
    whole.extend([1; 64]);
    let refusal = take(update_of(&folder, Some([1; 32])), &whole, 10).unwrap_err().to_string();
    assert!(refusal.starts_with("the box: cannot check who signed an update"), "{refusal}");
}

#[cfg(feature = "tls")]
mod signed {
    use super::update_file::{front, manifest, public, signed, update};
    use super::*;

    const FILES: [(&str, &[u8]); 3] = [
        ("kernel", b"the new kernel"),
        ("initrd", b""),
        ("cmdline.txt", b"quiet perennial.slot=a x\n"),
    ];

    fn good() -> Vec<u8> {
        update(1, BOARD, "0.2.0", &FILES)
    }

    /// What is said of a file, and that nothing on the boot partition has changed.
    #[track_caller]
    fn refused(whole: &[u8]) -> String {
        let folder = boot("update-refused", "0.1.9");
        let refusal = take(update_of(&folder, Some(public(1))), whole, 64).unwrap_err();
        let left = fs::read_to_string(folder.path().join("b/kernel")).unwrap();
        assert_eq!(left, "one that is older still", "{refusal}");
        assert!(folder.path().join("loader/entries/perennial-b.conf").exists(), "{refusal}");
        refusal.to_string()
    }

    #[test]
    fn an_update_becomes_the_other_slot_whatever_its_slices_are() {
        for slice in [1, 7, 64, 100_000] {
            let folder = boot("update-good", "0.1.9");
            let ready = take(update_of(&folder, Some(public(1))), &good(), slice).unwrap();
            assert_eq!(ready, "0.2.0");
            let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
            assert_eq!(text("b/kernel"), "the new kernel");
            assert_eq!(text("b/initrd"), "");
            assert_eq!(text("b/cmdline.txt"), "quiet perennial.slot=b x\n");
            assert_eq!(text("b/version"), "uefi-arm64 0.2.0\n");
            assert_eq!(fs::read_dir(folder.path().join("b")).unwrap().count(), 4, "nothing else");
            assert!(text("loader/entries/perennial-b+3.conf").contains("linux /b/kernel\n"));
            assert!(!folder.path().join("loader/entries/perennial-b.conf").exists());
            assert_eq!(text("a/kernel"), "the old kernel");
        }
    }

    #[test]
    fn a_file_longer_than_is_synced_at_a_time_comes_whole() {
        let kernel: Vec<u8> = (0..SYNCED_BYTES * 2 + 12_345).map(|at| (at % 253) as u8).collect();
        let files = [("kernel", &kernel[..]), ("initrd", &b"x"[..])];
        let whole = update(1, BOARD, "0.2.0", &files);
        let folder = boot("update-long", "0.1.9");
        let mut update = update_of(&folder, Some(public(1)));
        whole.chunks(65_536).for_each(|slice| update.take(slice).unwrap());
        while update.settle(&mut std::vec![0; 65_536]).unwrap().is_none() {}
        assert!(fs::read(folder.path().join("b/kernel")).unwrap() == kernel);
    }

    #[test]
    fn what_is_no_update_is_refused_by_its_first_bytes() {
        let mut newer = good();
        newer[16] = 2;
        let mut huge = good();
        huge[22] = 1;
        for (whole, wanted) in [
            (
                &b"\x1f\x8b\x08 gzip"[..],
                "the update: is no update of perennial; name the file that",
            ),
            (b"perennial updates and more", "is of format"),
            (
                &newer,
                "is of format 2 with a manifest of 275 bytes, and this box reads format 1 with one of at most",
            ),
            (&huge, "with a manifest of 65811 bytes, and this"),
        ] {
            let said = refused(whole);
            assert!(said.contains(wanted), "{said}");
        }
    }

    #[test]
    fn only_whoever_has_the_key_makes_an_update() {
        let manifest = manifest(BOARD, "0.2.0", &FILES);
        let mut unsigned = front(&manifest);
        unsigned.extend([0; 64]);
        assert!(refused(&unsigned).starts_with("the update: is not signed; make it with"));
        let other = "the update: is garbled, or signed with another key; take one signed with the key \
                     of this image";
        assert_eq!(refused(&signed(2, &manifest, &FILES)), other);
        // Every byte that is signed matters, and of the signature too.
        for at in (20..front(&manifest).len() + 64).filter(|at| at % 13 == 0 || *at > 90) {
            let mut garbled = good();
            garbled[at] ^= 1;
            let said = refused(&garbled);
            assert!(
                said == other || said.contains("cut off") || said.contains("with one of at most"),
                "{at}: {said}"
            );
        }
        let folder = boot("update-keyless", "0.1.9");
        let said = take(update_of(&folder, None), &good(), 64).unwrap_err().to_string();
        assert!(said.starts_with("this image: has no key to check updates with; flash"), "{said}");
    }

    #[test]
    fn what_is_not_for_this_box_or_not_newer_is_refused() {
        for (board, version, wanted) in [
            (
                "rpi-arm64",
                "0.2.0",
                "the update: is for the board rpi-arm64, and this is uefi-arm64; take",
            ),
            (BOARD, "0.1.9", "the update: is version 0.1.9, and 0.1.9 runs already; take a"),
            (BOARD, "0.1.8", "the update: is version 0.1.8, and 0.1.9 runs already; take a newer"),
        ] {
            let said = refused(&update(1, board, version, &FILES));
            assert!(said.starts_with(wanted), "{said}");
        }
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused_even_when_it_is_signed() {
        let hash = "0".repeat(64);
        for manifest in [
            "",
            "version 0.2.0\n",
            "board uefi-arm64\n",
            "board uefi-arm64\nversion x\n",
            "board uefi/arm64\nversion 0.2.0\n",
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile ../a/kernel 1 {hash}\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile .hidden 1 {hash}\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile version 1 {hash}\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile kernel -1 {hash}\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile kernel 1 {hash} x\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile kernel 1 {hash}0\n"),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile kernel 1 {}\u{e9}\n", &hash[..62]),
            &std::format!("board uefi-arm64\nversion 0.2.0\nfile a 1 {hash}\nfile A 1 {hash}\n"),
            "board uefi-arm64\nversion 0.2.0\nlink kernel\n",
        ] {
            let said = refused(&signed(1, manifest, &[]));
            assert!(said.starts_with("the update: has a manifest that makes no sense"), "{said}");
        }
        let kernel = [("kernel", &b"x"[..])];
        let said = refused(&update(1, BOARD, "0.2.0", &kernel));
        assert!(
            said.starts_with("the update: lacks one of kernel, initrd and, on a Pi, cmdline.txt;"),
            "{said}"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_cleared() {
        let hash = "0".repeat(64);
        for bytes in [1_u64 << 60, u64::MAX] {
            let manifest = std::format!(
                "board {BOARD}\nversion 0.2.0\nfile kernel {bytes} {hash}\nfile initrd {bytes} {hash}\n"
            );
            let said = refused(&signed(1, &manifest, &[]));
            assert!(said.contains("bytes of /boot, which has room for"), "{said}");
        }
    }

    #[test]
    fn what_is_cut_off_garbled_or_too_long_is_never_started() {
        let whole = good();
        let files_at = whole.len() - FILES.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut cases: Vec<(Vec<u8>, String)> = (0..whole.len())
            .map(|at| {
                (whole[..at].to_vec(), std::format!("the update: is cut off after {at} bytes;"))
            })
            .collect();
        for at in files_at..whole.len() {
            let mut garbled = whole.clone();
            garbled[at] ^= 0x20;
            cases.push((garbled, "the update: is garbled in b/".into()));
        }
        cases.push(([&whole[..], b"x"].concat(), "the update: goes on after its end;".into()));
        for (bytes, wanted) in cases {
            let folder = boot("update-cut", "0.1.9");
            let said =
                take(update_of(&folder, Some(public(1))), &bytes, 50).unwrap_err().to_string();
            assert!(said.starts_with(&wanted), "{said}, not {wanted}");
            let entries = folder.path().join("loader/entries");
            assert!(!entries.join("perennial-b+3.conf").exists(), "{said}");
            assert!(entries.join("perennial-a.conf").exists());
            assert_eq!(fs::read(folder.path().join("a/kernel")).unwrap(), b"the old kernel");
        }
    }

    #[test]
    fn a_card_that_does_not_keep_what_was_written_is_found_out() {
        let folder = boot("update-rot", "0.1.9");
        let mut update = update_of(&folder, Some(public(1)));
        update.take(&good()).unwrap();
        fs::write(folder.path().join("b/kernel"), "the new kerneX").unwrap();
        let said = update.settle(&mut [0; 100]).unwrap_err().to_string();
        let wanted =
            "the boot partition: does not give back what was written to b/kernel; use another";
        assert!(said.starts_with(wanted), "{said}");
        assert!(!folder.path().join("loader/entries/perennial-b+3.conf").exists());
    }

    #[test]
    fn a_box_whose_start_is_nobodys_is_refused() {
        let folder = boot("update-none", "0.1.9");
        fs::remove_dir_all(folder.path().join("loader")).unwrap();
        let said = take(update_of(&folder, Some(public(1))), &good(), 64).unwrap_err().to_string();
        let wanted =
            "the boot partition: has neither loader/entries nor config.txt; flash the card anew";
        assert_eq!(said, wanted);
        // On a Pi the command line lies in the slot.
        fs::write(folder.path().join("config.txt"), "os_prefix=a/\n").unwrap();
        let bare = update(1, BOARD, "0.2.0", &FILES[..2]);
        let said = take(update_of(&folder, Some(public(1))), &bare, 64).unwrap_err().to_string();
        assert_eq!(
            said,
            "the update: lacks one of kernel, initrd and, on a Pi, cmdline.txt; make it of a whole slot"
        );
        let slotless = [FILES[0], FILES[1], ("cmdline.txt", &b"quiet\n"[..])];
        let slotless = update(1, BOARD, "0.2.0", &slotless);
        let said =
            take(update_of(&folder, Some(public(1))), &slotless, 64).unwrap_err().to_string();
        assert!(
            said.contains("the update: does not say perennial.slot=a in its cmdline.txt"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(folder.path().join("config.txt")).unwrap(), "os_prefix=a/\n");
    }

    #[test]
    fn while_a_version_is_on_trial_there_is_no_other() {
        let folder = boot("update-trial", "0.1.9");
        let machine = Machine { running: Slot::A, board: BOARD.into(), key: Some(public(1)) };
        let boot = Mounted::writable(folder.path());
        let appliance = Appliance::new(boot, machine, Standing::Trial);
        let said = appliance.update().err().expect("it is refused").to_string();
        assert!(said.starts_with("the box: is trying its last update just now; wait"), "{said}");
        appliance.good().unwrap();
        assert!(!appliance.on_trial());
        assert!(appliance.update().is_ok());
    }
}
