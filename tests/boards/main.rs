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
//! `python3-libtorrent`; the firmware is built by these tests. One of them waits a whole minute,
//! so run two more at once than there are cores: `cargo test --test boards -- --test-threads=4`
//! takes two minutes on two cores. No test needs root, and nothing leaves 127.0.0.0/8.
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
#[expect(dead_code, reason = "each test crate uses what it needs")]
#[path = "../support/tracker.rs"]
mod tracker;

/// A test of each scenario on each board. They run in the order of their names.
macro_rules! on_every_board {
    ($($module:ident::$scenario:ident)*) => {$(
        mod $scenario {
            use crate::machine::Board;

            #[test]
            fn mcu_lm3s6965() {
                crate::$module::$scenario(Board::Lm3s6965);
            }

            #[test]
            fn mcu_rv32() {
                crate::$module::$scenario(Board::Rv32);
            }
        }
    )*};
}

on_every_board! {
    serving::four_clients_fetch_everything_at_once
    serving::a_fifth_is_told_to_go_and_the_four_do_not_notice
    hostile::those_who_stall_lie_drip_or_vanish_harm_nobody
    cuts::cut_off_twenty_times_it_loses_nothing_that_was_recorded
    refusals::a_bit_that_changed_in_head_or_metainfo_is_found
    refusals::a_piece_that_changed_is_not_offered_and_the_others_are
    refusals::a_piece_that_rots_after_a_good_start_is_found_by_the_next
    refusals::an_image_for_another_board_and_an_empty_card_are_refused
    network::without_an_answer_to_dhcp_it_goes_on
    network::a_cable_pulled_and_put_back_costs_nobody_their_connection
    network::a_search_on_the_lan_is_answered
    network::a_tracker_is_told_over_http
    network::a_tracker_is_told_over_udp
}
