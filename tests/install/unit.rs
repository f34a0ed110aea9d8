//! The unit for systemd: sound, narrow, and with the memory that the boards say.

use crate::program::Folder;
use crate::{done, own, root};
use perennial::service::board::Board;
use std::fs;
use std::process::Command;

/// `systemd-analyze security` at most, times ten.
const EXPOSURE_MAX: u32 = 15;

#[test]
fn it_is_sound_and_narrow() {
    let folder = Folder::new("unit");
    let unit = folder.path().join("perennial.service");
    let text = fs::read_to_string(root().join("scripts/package/perennial.service")).unwrap();
    // The program has to be where the unit says.
    fs::write(&unit, text.replace("/usr/bin/perennial", own().to_str().unwrap())).unwrap();
    let analyze = || {
        let mut command = Command::new("systemd-analyze");
        command.env("SYSTEMD_LOG_LEVEL", "warning").arg("--no-pager");
        command
    };
    let mut verify = analyze();
    let said = verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit).output();
    let said = said.unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let security = ["security", "--offline=true", &threshold];
    let said = done(analyze().args(security).arg(&unit));
    println!("{}", said.lines().last().unwrap_or_default());
}

#[test]
fn its_memory_is_that_of_the_largest_board_and_room_for_the_page_cache() {
    let contract = |board: &Board| {
        let contract = board.contract();
        contract.resident_bytes() + contract.kernel_bytes() + board.ram_kib * 1024 / 2
    };
    let boards = Board::all().into_iter().filter(|board| !board.is_firmware());
    let most = boards.map(|board| contract(&board)).max().unwrap();
    let text = fs::read_to_string(root().join("scripts/package/perennial.service")).unwrap();
    let figure = text.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M'));
    let bytes = figure.unwrap().parse::<u64>().unwrap() << 20;
    assert!((most..most + (64 << 20)).contains(&bytes), "{bytes}, not {most} or a little more");
}
