//! Exact texts.

use super::*;
use crate::engine::units::InfoHash;
use crate::service::control::answer::{Announces, Memory, Moving, Peers, Reach, Written};
use std::boxed::Box;

/// A torrent that is half here.
pub fn sample() -> Item {
    Item {
        info_hash: InfoHash::V1([0xa5; 20]),
        name: "Night of the Living Dead (1968)".into(),
        bytes: 3 << 29,
        state: State::Fetching,
        trouble: None,
        wanted_bytes: 1 << 30,
        here_bytes: 1 << 29,
        sent_bytes: 3_456,
        peers: 12,
        added_s: 1_772_236_800,
        path: "/srv/in/Night of the Living Dead (1968)".into(),
    }
}

/// All that is known of it.
pub fn sample_detail() -> Detail {
    Detail {
        torrent: sample(),
        files: 3,
        wanted_files: 2,
        piece_bytes: 1 << 20,
        pieces: 1_536,
        pieces_here: 512,
        complete_peers: 2,
        verified_s: Some(1_772_323_200),
        limit_up: Some(1 << 20),
        limit_down: None,
        sequential: true,
        private: false,
        magnet: "magnet:?xt=urn:btih:a5a5".into(),
        torrent_file: Some("/state/torrents/a5/night.torrent".into()),
        volume: Some("disk1".into()),
        moving: Some(Moving { to: "/mnt/other".into(), copied_bytes: 1 << 28 }),
    }
}

fn with_state(state: State, trouble: Option<&str>) -> Item {
    Item { state, trouble: trouble.map(Into::into), ..sample() }
}

#[test]
fn a_table_fits_its_terminal() {
    let table = Table::fitted(Some(80));
    let items = [
        sample(),
        Item { name: "film.mkv".into(), peers: 0, ..with_state(State::Resting, None) },
        Item {
            name: "七人の侍 Seven Samurai 1954 720p".into(), ..with_state(State::Asleep, None)
        },
        Item { name: "e\u{301}te\u{301}\u{1b}[31m\n".into(), ..with_state(State::Trouble, None) },
    ];
    let text: String = table.head() + &items.each_ref().map(|item| table.row(item)).concat();
    assert!(text.lines().all(|line| line.width() == 80), "{text}");
    assert_eq!(text, TABLE);
}

#[test]
fn without_a_terminal_or_with_a_narrow_one_nothing_is_lost_but_alignment() {
    let row = Table::fitted(None).row(&sample());
    assert!(row.contains("Night of the Living Dead (1968)  1.50 GiB  fetching 50%"), "{row}");
    let row = Table::fitted(Some(20)).row(&sample());
    assert!(row.starts_with("a5a5a5a5  Night of the Li\u{2026}  1.50 GiB"), "{row}");
}

#[test]
fn a_torrent_is_shown_in_words() {
    let tracker = TrackerItem {
        url: "udp://tracker.example.org:6969".into(),
        error: None,
        answered_ago_s: Some(300),
        seeds: Some(1),
        leechers: Some(3),
    };
    let silent =
        TrackerItem { answered_ago_s: None, seeds: None, leechers: None, ..tracker.clone() };
    let failed = TrackerItem { error: Some("connection refused".into()), ..silent.clone() };
    let file = |path: &str, here_bytes, wanted| {
        Answer::File(FileItem { path: path.into(), bytes: 1 << 29, here_bytes, wanted })
    };
    let answers = [
        Answer::Detail(Box::new(sample_detail())),
        Answer::Tracker(tracker),
        Answer::Tracker(silent),
        Answer::Tracker(failed),
        file("one.mkv", 1 << 29, true),
        file("sub/two.mkv", 1 << 27, true),
        file("sub/three.mkv", 0, false),
    ];
    assert_eq!(all_words(&answers), SHOWN);
}

#[test]
fn states_are_said_in_a_word_and_in_a_sentence() {
    let whole = |state| Item { here_bytes: 1 << 30, ..with_state(state, None) };
    let table = [
        (whole(State::Serving), "serving", "serving"),
        (whole(State::Resting), "resting", "resting, nobody asks for it"),
        (sample(), "fetching 50%", "fetching, 512 MiB of 1.00 GiB here (50 %)"),
        (
            Item { here_bytes: (1 << 30) - 1, ..sample() },
            "fetching 99%",
            "fetching, 1.00 GiB of 1.00 GiB here (99 %)",
        ),
        (
            Item { bytes: 0, wanted_bytes: 0, here_bytes: 0, ..sample() },
            "fetching 0%",
            "fetching, only its name is known yet",
        ),
        (whole(State::Paused), "paused", "paused"),
        (with_state(State::Paused, None), "paused", "paused, 512 MiB of 1.00 GiB here"),
        (whole(State::Asleep), "asleep", "asleep, its volume is away"),
        (with_state(State::Trouble, Some("disk full")), "trouble", "in trouble: disk full"),
    ];
    for (item, word, sentence) in table {
        assert_eq!(state_word(&item), word);
        assert_eq!(state_words(&item), sentence);
        let name = &item.name;
        let said = words(&Answer::Torrent(item.clone()), None);
        assert_eq!(said, format!("{name}: {sentence}\n"));
    }
}

#[test]
fn what_was_added_comes_with_its_link() {
    let whole = Item { here_bytes: 1 << 30, ..with_state(State::Resting, None) };
    let detail = Detail { torrent: whole, ..sample_detail() };
    let wanted = "\
Night of the Living Dead (1968)
  1.50 GiB, 3 files, resting, nobody asks for it
  info-hash  a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5
  magnet     magnet:?xt=urn:btih:a5a5
  torrent    /state/torrents/a5/night.torrent
";
    assert_eq!(added(&detail), wanted);
}

#[test]
fn the_box_is_shown_in_words() {
    let stats = Stats {
        version: "0.1.0".into(),
        board: "small".into(),
        state: "/var/lib/perennial".into(),
        uptime_s: 3 * 86_400,
        memory: Memory { resident_bytes: 11_500_000, contract_bytes: 16 << 20 },
        peers: Peers { connected: 7, max: 200, up_rate: 2_000_000, down_rate: 1_023 },
        torrents: Torrents {
            all: 100_000,
            resting: 99_990,
            serving: 7,
            asleep: 3,
            ..Torrents::default()
        },
        written: Written { journal_bytes: 1 << 20, checkpoints: 1 },
        announces: Announces { begun_ago_s: 600, told: 41_000, all: 100_000, pass_s: Some(1_500) },
        reach: Reach {
            port: 6_881,
            outside: Some("203.0.113.7:6881".parse().unwrap()),
            router: Some("forwarded by PCP".into()),
        },
        kept_to: ["/srv".into(), "/media".into()].to_vec(),
        dht_nodes: Some(208),
        pages: ["http://192.0.2.7:8080/".into()].to_vec(),
        sent_bytes: 5 << 40,
        received_bytes: 1 << 30,
    };
    let volume = |name: &str, state: &str, free_bytes| {
        let (path, state) = (format!("/mnt/{name}"), state.into());
        Answer::Volume(VolumeItem { name: name.into(), path, state, free_bytes, torrents: 1 })
    };
    let woken = |why: &str, count| Answer::WakeUps(WakeUps { why: why.into(), count });
    let answers = [
        Answer::Stats(Box::new(stats)),
        volume("disk1", "here", Some(77 << 30)),
        volume("stick", "away", None),
        woken("the DHT", 42),
        woken("an announce", 3),
    ];
    assert_eq!(all_words(&answers), BOX);
    let nothing = words(&Answer::Stats(Box::default()), None);
    assert!(nothing.contains("  torrents   0\n") && nothing.ends_with("  DHT        off\n"));
}

#[test]
fn sizes_have_three_digits_or_four() {
    let table = [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.00 KiB"),
        (10_234, "9.99 KiB"),
        (10_239, "10.0 KiB"),
        (102_399, "100 KiB"),
        (1_048_000, "1023 KiB"),
        (1_048_575, "1.00 MiB"),
        (u64::MAX, "16.0 EiB"),
    ];
    for (bytes, text) in table {
        assert_eq!(size(bytes), text, "{bytes}");
    }
    for shift in 0..64 {
        for bytes in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + (1 << shift) / 1_000] {
            assert!(size(bytes).len() <= 8, "{bytes}: {}", size(bytes));
        }
    }
}

#[test]
fn days_are_those_of_the_calendar() {
    let table = [
        (0, "1970-01-01"),
        (68_169_599, "1972-02-28"),
        (68_169_600, "1972-02-29"),
        (951_782_400, "2000-02-29"),
        (951_868_800, "2000-03-01"),
        (1_772_236_800, "2026-02-28"),
        (1_772_323_199, "2026-02-28"),
        (4_107_542_400, "2100-03-01"),
    ];
    for (seconds, day) in table {
        assert_eq!(date(seconds), day);
    }
    assert!(!date(u64::MAX).is_empty());
}

#[test]
fn nothing_a_name_holds_steers_the_terminal() {
    let evil = "a\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}gpj.exe\u{2066}\u{200f}\u{2028}\u{7f}z";
    let cleaned = clean(evil);
    assert!(!cleaned.chars().any(char::is_control), "{cleaned}");
    assert_eq!(cleaned.chars().filter(|char| *char == '\u{fffd}').count(), 10);
    assert_eq!(clean("caf\u{e9} \u{5e9}\u{5dc}"), "caf\u{e9} \u{5e9}\u{5dc}", "letters stay");
}

fn all_words(answers: &[Answer]) -> String {
    let before = std::iter::once(None).chain(answers.iter().map(Some));
    answers.iter().zip(before).map(|(answer, before)| words(answer, before)).collect()
}

const TABLE: &str = "\
HASH      NAME                               SIZE  STATE             SENT  PEERS
a5a5a5a5  Night of the Living Dead (19…  1.50 GiB  fetching 50%  3.38 KiB     12
a5a5a5a5  film.mkv                       1.50 GiB  resting       3.38 KiB      0
a5a5a5a5  七人の侍 Seven Samurai 1954 …  1.50 GiB  asleep        3.38 KiB     12
a5a5a5a5  e\u{301}te\u{301}\u{fffd}[31m\u{fffd}                      1.50 GiB  trouble       3.38 KiB     12
";

const SHOWN: &str = "\
Night of the Living Dead (1968)
  info-hash  a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5
  size       1.50 GiB in 3 files, 1536 pieces of 1.00 MiB
  state      fetching, 512 MiB of 1.00 GiB here (50 %), from front to back
  wanted     2 of 3, 1.00 GiB
  sent       3.38 KiB
  peers      12
  lies in    /srv/in/Night of the Living Dead (1968), on disk1
  moves to   /mnt/other, 256 MiB of 512 MiB copied
  added      2026-02-28
  verified   2026-03-01
  limit      sent at no more than 1.00 MiB/s
  magnet     magnet:?xt=urn:btih:a5a5
  torrent    /state/torrents/a5/night.torrent
  tracker    udp://tracker.example.org:6969: answered 5 minutes ago, 1 seed, 3 leechers
  tracker    udp://tracker.example.org:6969: not asked yet
  tracker    udp://tracker.example.org:6969: connection refused
  files
     512 MiB      here  one.mkv
     512 MiB      25 %  sub/two.mkv
     512 MiB  unwanted  sub/three.mkv
";

const BOX: &str = "\
perennial 0.1.0 on /var/lib/perennial, up 3 days
  memory     11.0 MiB of at most 16.0 MiB, board small
  torrents   100000: 7 serving, 99990 resting, 3 asleep
  peers      7 of at most 200, sending 1.91 MiB/s, reading 1023 B/s
  content    5.00 TiB sent, 1.00 GiB received
  written    1.00 MiB to the journal since the start, 1 checkpoint
  announces  41000 of 100000 told in 10 minutes, a pass takes 25 minutes
  reached    port 6881, others see 203.0.113.7:6881, forwarded by PCP
  kept to    /srv, /media, by the kernel
  page       http://192.0.2.7:8080/
  DHT        208 nodes
  volumes
    disk1: here, 77.0 GiB free, 1 torrent, /mnt/disk1
    stick: away, 1 torrent, /mnt/stick
  woken
          42  the DHT
           3  an announce
";
