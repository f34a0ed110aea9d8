//! What a configuration file means, and what is wrong with it.

use super::*;
use std::collections::BTreeSet;

/// A machine that is large enough for every board.
const RAM_KIB: u64 = 64 << 20;

fn parse(text: &str) -> Result<Config, Refusal> {
    Config::parse_for(text, "box.toml", RAM_KIB)
}

#[track_caller]
fn parsed(text: &str) -> Config {
    parse(text).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The commented file with every example in use.
fn uncommented() -> String {
    let lines = commented().lines().map(|line| match line.strip_prefix('#') {
        Some(used) if !used.is_empty() && !used.starts_with(' ') => format!("{used}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn the_commented_file_is_what_nothing_at_all_means() {
    assert_eq!(parsed(commented()), Config::default());
    assert_eq!(parsed(""), Config::default());
    assert_eq!(parsed("\u{feff}# nothing\r\n[network]\r\n"), Config::default());
}

#[test]
fn every_example_of_the_commented_file_can_be_used() {
    let config = parsed(&uncommented());
    assert_eq!(config.name.as_deref(), Some("attic"));
    assert_eq!(config.state.as_deref(), Some(Path::new("/var/lib/perennial")));
    let sources: Vec<_> = config.shares.iter().map(|share| share.source.clone()).collect();
    let film = Source::Whole("/srv/films/holiday.mkv".into());
    assert_eq!(sources, [Source::Entries("/srv/share".into()), film]);
    assert_eq!(config.fetch.into.as_deref(), Some(Path::new("/srv/fetched")));
    assert_eq!(config.fetch.watch.as_deref(), Some(Path::new("/srv/wanted")));
}

#[test]
fn every_key_stands_in_the_commented_file_with_its_meaning() {
    let mut section = "";
    let mut found = BTreeSet::new();
    let text = uncommented();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.extend((!line.starts_with('#')).then_some((section, key)));
        }
    }
    let sections = ["network", "web", "caps", "share", "fetch", "log"];
    let known =
        KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
    let known: BTreeSet<_> = known.filter(|(_, key)| !sections.contains(key)).collect();
    assert_eq!(found, known);
    let commented: Vec<&str> = commented().lines().collect();
    for (number, line) in commented.iter().enumerate() {
        assert!(line.len() <= 100, "line {}", number + 1);
        // Keys of a kind stand together under one comment.
        let is_said = number == 0 || !commented[number - 1].is_empty();
        assert!(is_said || !line.contains(" = ") || line.starts_with("# "), "{line}");
    }
}

#[test]
fn a_file_means_what_it_says() {
    let config = parsed(
        r#"
        name = " attic "
        board = "nas"
        state = "/var//lib/./perennial/"
        keep-to = ["/srv"]
        network.listen = "[::1]:0"
        network.dht = "read-only"
        network.dht-nodes = ["[2001:db8::1]:6881", "router.example.org:1"]
        network.trackers = ["udp://tracker.example.org:6969"]
        network.map-port = false
        caps = { up = "2MB/s", torrent-down = "8 mbit", lan = true }
        web.listen = "[::1]:80"
        web.readers = "everybody"
        web.owner-outside = true
        web.hidden = true
        web.names = ["films.example.org"]
        [[share]]
        path = "/srv/film.mkv"
        piece-size = "1M"
        trackers = ["http://t.example.org/announce"]
        [fetch]
        into = "/srv/got"
        sequential = true
        reserve = "12%"
        [log]
        level = "debug"
        "#,
    );
    let expected = Config {
        name: Some("attic".into()),
        board: Some("nas".into()),
        state: Some("/var/lib/perennial".into()),
        keep_to: ["/srv".into()].to_vec(),
        network: Network {
            listen: Some("[::1]:0".parse().unwrap()),
            lan_only: false,
            dht: DhtOptions {
                off: false,
                read_only: true,
                entries: [("2001:db8::1", 6881), ("router.example.org", 1)]
                    .map(|(host, port)| (host.to_string(), port))
                    .to_vec(),
            },
            trackers: [String::from("udp://tracker.example.org:6969")].to_vec(),
            map_port: false,
        },
        web: WebOptions {
            at: WebAt::Here("[::1]:80".parse().unwrap()),
            readers: Readers::Everybody,
            owner_outside: true,
            hidden: true,
            names: [String::from("films.example.org")].to_vec(),
            ..WebOptions::default()
        },
        caps: CapOptions {
            up: Rates { all: Some(2_000_000), each: None },
            down: Rates { all: None, each: Some(1_000_000) },
            lan: true,
        },
        shares: std::vec![Shared {
            source: Source::Whole("/srv/film.mkv".into()),
            piece_bytes: Some(1 << 20),
            trackers: [String::from("http://t.example.org/announce")].to_vec(),
        }],
        fetch: Fetching {
            into: Some("/srv/got".into()),
            watch: None,
            sequential: true,
            reserve: Reserve::Percent(12),
        },
        level: LevelFilter::Debug,
        file: None,
    };
    assert_eq!(config, expected);
    let options = config.options().unwrap();
    assert_eq!((options.board.name, options.caps), ("nas", config.caps));
    assert_eq!((options.listen, options.dht), (config.network.listen, config.network.dht));
    assert_eq!(
        (options.state, options.fetch.output),
        ("/var/lib/perennial".into(), "/srv/got".into())
    );
    assert_eq!(options.trackers, config.network.trackers);
    assert!(options.fetch.sequential && options.paths.is_empty());
}

/// A file, the line it is refused at, and what has to be said of it.
type Wrong = (&'static str, usize, &'static [&'static str]);

#[track_caller]
fn assert_refused(table: &[Wrong]) {
    for (text, line, words) in table {
        let said = match parse(text) {
            Ok(config) => panic!("{text}\nis taken for {config:?}"),
            Err(refusal) => refusal.to_string(),
        };
        assert!(said.starts_with(&format!("box.toml, line {line}: ")), "{text}\n{said}");
        assert!(!said.contains('\n') && said.contains("; "), "{text}\n{said}");
        for word in *words {
            assert!(said.contains(word), "{text}\n{said}\nlacks {word}");
        }
    }
}

#[test]
fn a_key_nobody_knows_is_told_with_the_nearest_that_somebody_does() {
    assert_refused(&[
        ("nane = \"attic\"", 1, &["`nane`: is no key outside of sections; write `name`"]),
        (
            "\n[network]\nlan_only = true",
            3,
            &["`lan_only`: is no key of [network]; write `lan-only`"],
        ),
        ("[network]\nListen = \"auto\"", 2, &["write `listen`"]),
        ("[network]\ntracker = []", 2, &["write `trackers`"]),
        ("[network]\nlan = true", 2, &["write `lan-only`"]),
        ("[network]\n\nport = 6881", 3, &["`port`", "perennial config"]),
        ("[netwrok]\nlisten = \"auto\"", 1, &["[netwrok]: is no section; write [network]"]),
        ("[shares]\n", 1, &["[shares]: is no section; write [[share]]"]),
        ("[[shares]]\nfolder = \"/x\"", 1, &["[shares]: is no section; write [[share]]"]),
        ("trackers = []", 1, &["`trackers`: ", "move it to below [network]"]),
        ("[log]\nlevel = \"info\"\nup = \"1MB/s\"", 3, &["`up`", "move it to below [caps]"]),
        ("[[share]]\nfolder = \"/a\"\n[[share]]\nfile = \"/b\"", 4, &["`file`", "[[share]]"]),
        ("\"\" = 1", 1, &["``: "]),
        ("\"a\\nb\" = 1", 1, &["`a b`: "]),
        ("[caps.up]\nx = 1", 1, &["`up`: is a section, and has to be text in quotes"]),
    ]);
}

#[test]
fn a_value_of_another_kind_or_without_a_meaning_is_told_with_an_example() {
    assert_refused(&[
        ("[caps]\nup = 2", 2, &["`up`: is a number", "text in quotes; write up = \"2MB/s\""]),
        ("[caps]\nup = \"2 parsecs\"", 2, &["`up`: `parsecs` is no unit of a rate; write 2MB/s"]),
        ("[caps]\ndown = \"\"", 2, &["`down`: there is no number; write"]),
        (
            "[caps]\nlan = \"yes\"",
            2,
            &["`lan`: is text, and has to be true or false; write lan = true"],
        ),
        ("name = [\"a\"]", 1, &["`name`: is a list"]),
        ("name = \"  \"", 1, &["`name`: is empty; write name = \"attic\""]),
        ("name = \"a\\tb\"", 1, &["`name`: has control characters"]),
        ("board = \"toaster\"", 1, &["toaster: is no board; known are tiny, small, pi-4, nas"]),
        (
            "state = \"var/lib\"",
            1,
            &["`state`: `var/lib` does not begin with /; write the whole path"],
        ),
        ("state = \"~/state\"", 1, &["`~/state` does not begin with /"]),
        ("state = \"/var/../lib\"", 1, &["`..`; write the path without it"]),
        ("state = \"/\"", 1, &["`state`: is all there is; name a folder in it"]),
        ("state = \"/a\\u0000b\"", 1, &["`state`: has a zero byte"]),
        ("[network]\nlisten = \"6881\"", 2, &["`6881` is no address with a port; write listen = "]),
        ("[network]\ndht = true", 2, &["`dht`: is true or false", "write dht = \"on\""]),
        ("[network]\ndht = \"maybe\"", 2, &["`maybe`", "write \"on\", \"off\" or \"read-only\""]),
        ("[network]\ndht-nodes = [\n\"a:1\",\n\"b\"]", 4, &["`b` is no host and port"]),
        ("[network]\ntrackers = [\n\n\"ftp://t.example\"\n]", 4, &["`trackers`: "]),
        (
            "[network]\ntrackers = \"udp://t.example:1\"",
            2,
            &["is text, and has to be a list in [ ]"],
        ),
        ("[network]\ntrackers = [1]", 2, &["`trackers`: is a number"]),
        (
            "[[share]]\nfolder = \"/a\"\npiece-size = \"3M\"",
            3,
            &["`3M` is not a power of two", "auto"],
        ),
        ("[fetch]\nreserve = \"91%\"", 2, &["`91%` is no part of a disk; write a whole number"]),
        (
            "[fetch]\nreserve = \"much\"",
            2,
            &["`reserve`: `much` does not begin with a number; write"],
        ),
        ("[fetch]\nreserve = \"99999999999999TB\"", 2, &["2^64 bytes; write reserve = \"1GiB\""]),
        ("[log]\nlevel = \"loud\"", 2, &["`loud` is no level; write \"error\", \"warn\""]),
        ("[log]\nlevel = \"off\"", 2, &["`off` is no level"]),
        ("network = 1", 1, &["`network`: is a number, and has to begin with [network]"]),
        (
            "[share]\nfolder = \"/a\"",
            1,
            &["`share`: is a section, and has to begin with [[share]]"],
        ),
        ("keep-to = [\"srv\"]", 1, &["`keep-to`: `srv` does not begin with /"]),
        (
            "keep-to = [\"/srv\"]\n[[share]]\nfolder = \"/srv/a\"\n[[share]]\npath = \"/srvice/b\"",
            5,
            &["`share`: /srvice/b lies beneath nothing that is kept to; name a folder above it"],
        ),
        (
            "keep-to = [\"/srv\"]\n[fetch]\ninto = \"/got\"",
            3,
            &["`into`: /got lies beneath nothing"],
        ),
        ("share = [1]", 1, &["`share`: is a number, and has to begin with [[share]]"]),
    ]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    assert_refused(&[
        ("name = \"a\"\nname = \"b\"", 2, &["`name = \"b\"`: duplicate key; mend that line"]),
        ("[caps]\nup = \"1MB/s\"\n[caps]\ndown = \"1MB/s\"", 3, &["`[caps]`: duplicate key"]),
        ("\n[caps]\nup = 2MB/s\n", 3, &["`up = 2MB/s`: ", "mend that line"]),
        ("name = \"attic\nboard = \"auto\"", 1, &["`name = \"attic`: "]),
        ("[network\n", 1, &["`[network`: "]),
        ("name \"attic\"\n", 1, &["`name \"attic\"`: "]),
        ("[network]\ntrackers = [\"udp://t.example:1\"", 2, &[]),
        ("lan-only = yes", 1, &["`lan-only = yes`: "]),
    ]);
}

#[test]
fn what_does_not_go_together_is_told() {
    let share = "[[share]]\nfolder = \"/srv\"\n";
    assert!(parse(share).is_ok());
    assert_refused(&[
        ("[[share]]\n\n", 1, &["[[share]]: has neither `folder` nor `path`; write folder = "]),
        (
            "[[share]]\npath = \"/a\"\nfolder = \"/b\"",
            3,
            &["has both", "make two [[share]] of them"],
        ),
        (
            "[[share]]\npath = \"/a\"\n[[share]]\npath = \"/b\"\n[[share]]\nfolder = \"/a/\"",
            6,
            &["/a: is shared already by line 2; take one of the two out"],
        ),
        (
            "[network]\nlan-only = true\ntrackers = [\"udp://t.example:1\"]",
            3,
            &["`trackers`: ", "lan-only = false"],
        ),
        (
            "[[share]]\npath = \"/a\"\ntrackers = [\"udp://t.example:1\"]\n[network]\nlan-only = true",
            3,
            &["`trackers`: "],
        ),
        ("[fetch]\nwatch = \"/a\"", 2, &["`watch`: needs `into`; write into = "]),
        (
            "state = \"/srv/state\"\n[[share]]\nfolder = \"/srv\"",
            1,
            &["`state`: lies in /srv, which is shared; name a folder outside of it"],
        ),
        (
            "state = \"/srv\"\n[[share]]\npath = \"/srv/journal\"",
            3,
            &["`share`: lies in /srv, where the box keeps"],
        ),
        ("[fetch]\ninto = \"/a/b\"\n[[share]]\npath = \"/a\"", 2, &["`into`: lies in /a, which"]),
        (
            "[[share]]\npath = \"/a\"\n[fetch]\ninto = \"/b\"\nwatch = \"/a\"",
            5,
            &["`watch`: lies in /a, which is shared"],
        ),
        (
            "[fetch]\ninto = \"/a\"\nwatch = \"/a/b\"",
            3,
            &["`watch`: lies in /a, where a .torrent that was"],
        ),
    ]);
    // A neighbour whose name begins in the same way, and what was fetched being shared.
    assert!(parse("[fetch]\ninto = \"/a/bc\"\n[[share]]\npath = \"/a/b\"").is_ok());
    assert!(parse("[fetch]\ninto = \"/a\"\n[[share]]\npath = \"/a/b\"").is_ok());
}

#[test]
fn of_all_that_is_wrong_the_first_line_is_told() {
    assert_refused(&[
        ("nane = \"a\"\n[caps]\nup = 1\n[netwrok]", 1, &["nane"]),
        ("[log]\nlevel = \"loud\"\n[caps]\nup = 1", 2, &["loud"]),
        ("[[share]]\npath = \"a\"\n[network]\nlisten = 1", 2, &["`path`"]),
    ]);
}

#[test]
fn a_board_that_needs_more_memory_than_the_machine_has_is_refused_by_its_name() {
    let on = |ram_mib: u64, board: &str| {
        let text = format!("\nboard = \"{board}\"");
        Config::parse_for(&text, "box.toml", ram_mib << 10).map_err(|refusal| refusal.to_string())
    };
    let said = on(64, "nas").unwrap_err();
    for words in ["box.toml, line 2: memory: board nas asks for", "machine has 64 MiB"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(said.ends_with("; choose a smaller board"), "{said}");
    for board in Board::all().iter().filter(|board| !board.is_firmware()) {
        // Seven eighths of what is built in are reported.
        assert_eq!(on((board.ram_kib >> 10) * 7 / 8, board.name).map(|_| ()), Ok(()));
    }
    let said = on(64, "mcu-rv32").unwrap_err();
    assert!(said.contains("mcu-rv32: runs firmware"), "{said}");
    assert_eq!(on(1, "auto").map(|config| config.board), Ok(None));
}

#[test]
fn a_reserve_is_a_size_a_part_or_the_lesser_of_both() {
    let reserve = |text: &str| values::parse_reserve(text).unwrap();
    assert_eq!(reserve("1GiB"), Reserve::Bytes(1 << 30));
    assert_eq!(reserve("5%").bytes_of(1_000_000), 50_000);
    assert_eq!(reserve("0%").bytes_of(u64::MAX), 0);
    assert_eq!(reserve("auto").bytes_of(2_000_000_000), 100_000_000);
    assert_eq!(reserve("auto").bytes_of(u64::MAX), 1 << 30);
    assert_eq!(reserve("90%").bytes_of(u64::MAX), u64::MAX / 100 * 90);
}

#[test]
fn a_running_box_takes_over_what_it_can_and_names_what_has_to_wait() {
    let old =
        parsed("[[share]]\nfolder = \"/a\"\n[[share]]\npath = \"/b\"\n[[share]]\npath = \"/c\"");
    assert!(old.changes(&old.clone()).is_empty());
    let new = parsed(
        "[[share]]\npath = \"/c\"\n[[share]]\npath = \"/a\"\n\
         [[share]]\npath = \"/b\"\npiece-size = \"1M\"\n\
         [caps]\nup = \"1MB/s\"\n[network]\ntrackers = [\"udp://t.example:1\"]\n\
         [fetch]\nreserve = \"2%\"\n[log]\nlevel = \"warn\"",
    );
    let changes = old.changes(&new);
    assert_eq!(changes.caps, Some(new.caps));
    assert_eq!(changes.trackers, Some(new.network.trackers.clone()));
    assert_eq!(changes.fetch, Some(new.fetch.clone()));
    assert_eq!(changes.level, Some(LevelFilter::Warn));
    assert_eq!(changes.waiting, [""; 0]);
    // What was shared entry by entry is shared as a whole now: that is another share.
    let places = |shares: &[Shared]| -> Vec<Source> {
        shares.iter().map(|share| share.source.clone()).collect()
    };
    assert_eq!(places(&changes.shares.come), [Source::Whole("/a".into())]);
    assert_eq!(places(&changes.shares.gone), [Source::Entries("/a".into())]);
    assert_eq!(changes.shares.altered, new.shares[2..]);

    let other = "name = \"x\"\nboard = \"tiny\"\nstate = \"/s\"\nkeep-to = [\"/k\"]\n[network]\nlisten = \"[::]:1\"\n\
                 lan-only = true\ndht = \"off\"\ndht-nodes = [\"a:1\"]\nmap-port = false";
    let changes = Config::default().changes(&parsed(other));
    let waiting = ["name", "board", "state", "keep-to"].into_iter().map(String::from);
    let network = ["listen", "lan-only", "dht", "dht-nodes", "map-port"];
    let network = network.iter().map(|key| format!("[network] {key}"));
    assert_eq!(changes.waiting, waiting.chain(network).collect::<Vec<_>>());
    assert_eq!(Changes { waiting: Vec::new(), ..changes }, Changes::default());
}

#[test]
fn no_text_at_all_makes_it_panic() {
    let mut state = 7u64;
    let mut below = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % bound
    };
    let whole = uncommented();
    let pieces: Vec<&str> = whole.split_inclusive([' ', '\n', '"', '=', '[']).collect();
    for _ in 0..3_000 {
        // Its own words in another order, and bytes changed, put in and left out.
        let picked = (0..below(40)).map(|_| pieces[below(pieces.len())]);
        let mut bytes = picked.collect::<String>().into_bytes();
        for _ in 0..below(4) {
            let at = below(bytes.len() + 1);
            match below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, below(256) as u8),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
            }
        }
        if let Err(refusal) = parse(&String::from_utf8_lossy(&bytes)) {
            let said = refusal.to_string();
            assert!(said.starts_with("box.toml, line ") && !said.contains('\n'), "{said}");
        }
    }
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _ = parse(&whole[..end]);
    }
    for deep in ["[", "{a=", "a.", "[a.", "[[a"] {
        let _ = parse(&deep.repeat(10_000));
        let _ = parse(&format!("name = {}", deep.repeat(10_000)));
    }
}

#[test]
fn a_file_that_is_missing_too_long_or_no_text_is_refused_by_its_name() {
    let folder = std::env::temp_dir().join(format!("perennial-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.canonicalize().unwrap().join("box.toml");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Config::read(&path).map_err(|refusal| refusal.to_string())
    };
    let read = Config { file: Some(path.clone()), ..Config::default() };
    assert_eq!(said(commented().as_bytes()), Ok(read));
    let no_text = said(b"# one\n# two\nname = \"\xff\"\n").unwrap_err();
    assert!(no_text.contains("box.toml, line 3: is no text in UTF-8; "), "{no_text}");
    let longest = "#".repeat(FILE_BYTES_MAX);
    assert!(said(longest.as_bytes()).is_ok());
    let long = said(format!("{longest}#").as_bytes()).unwrap_err();
    assert!(long.contains("box.toml: is longer than 64 KiB; "), "{long}");
    let refused = |path: &Path| Config::read(path).unwrap_err().to_string();
    assert!(refused(&folder).contains("; name a configuration file"));
    assert!(refused(&folder.join("none.toml")).contains("none.toml: "));
    std::fs::remove_dir_all(&folder).unwrap();
}
