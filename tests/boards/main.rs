//! Firmware in QEMU, with images made by the program itself and clients of other people.
//!
//! | what | where |
//! | --- | --- |
//! | libtorrent, aria2, four at once, a fifth | [`serving`] |
//! | peers that stall, lie, drip or vanish | [`hostile`] |
//! | power cuts, and what is counted over them | [`cuts`] |
//! | images that are damaged, foreign or missing | [`refusals`] |
//! | DHCP, the cable, local discovery, trackers | [`network`] |
//!
//! Every scenario runs on every board. Needs `qemu-system-arm`, `qemu-system-riscv32`, `aria2c` and
//! `python3-libtorrent`; the firmware is built by these tests. A board waits more than it works, so
//! run as many tests at once as there are cores, or two more: `-- --test-threads=4`.
//!
//! ```text
//! share::Image (perennial share --for-board) -> machine::Setting -> scripts/qemu-run -> Machine
//! ```

#![cfg(feature = "std")]

mod cable;
mod clients;
mod cuts;
mod hostile;
mod machine;
mod network;
mod refusals;
mod serving;
mod share;

#[path = "../support/leecher.rs"]
mod leecher;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/torrent.rs"]
mod torrent;
#[allow(dead_code, reason = "each test crate uses what it needs")]
#[path = "../support/tracker.rs"]
mod tracker;

/// A test of each scenario on each board.
macro_rules! on_every_board {
    ($($module:ident: $($scenario:ident)*;)*) => {
        mod mcu_lm3s6965 {
            $($(#[test] fn $scenario() {
                crate::$module::$scenario(crate::machine::Board::Lm3s6965);
            })*)*
        }
        mod mcu_rv32 {
            $($(#[test] fn $scenario() {
                crate::$module::$scenario(crate::machine::Board::Rv32);
            })*)*
        }
    };
}

on_every_board! {
    serving:
        four_clients_fetch_everything_at_once
        a_fifth_is_told_to_go_and_the_four_do_not_notice;
    hostile:
        those_who_stall_lie_drip_or_vanish_harm_nobody;
    cuts:
        twenty_power_cuts_lose_nothing_that_was_recorded;
    refusals:
        a_bit_that_changed_in_head_or_metainfo_is_found
        a_piece_that_changed_is_not_offered_and_the_others_are
        an_image_for_another_board_and_an_empty_card_are_refused;
    network:
        without_an_answer_to_dhcp_it_goes_on
        after_a_cable_was_pulled_and_put_back_it_serves_on
        it_is_found_by_local_discovery
        a_tracker_is_told_over_http
        a_tracker_is_told_over_udp;
}
