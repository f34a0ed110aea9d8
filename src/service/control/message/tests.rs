//! Requests as lines, right ones and wrong ones.

use super::*;
use crate::service::options::FetchOptions;
use std::vec;

fn what(text: &str) -> What {
    What::new(text)
}

#[test]
fn every_request_survives_its_line() {
    let add = Add {
        paths: vec!["/srv/film.mkv".into(), "/srv/caf\u{e9} \"x\"\n".into()],
        links: vec!["magnet:?xt=urn:btih:00".into(), "/tmp/a.torrent".into()],
        into: Some("/srv/in".into()),
        files: vec!["*.mkv".into()],
        sequential: true,
        force: true,
        peers: vec!["[::1]:6881".parse().unwrap()],
        web_seeds: vec!["https://example.org/".into()],
        torrent: None,
        piece_bytes: Some(1 << 20),
        trackers: vec!["udp://example.org:6969".into()],
    };
    let adopted = Add {
        paths: vec!["/srv/film.mkv".into()],
        torrent: Some("/srv/film.torrent".into()),
        ..Add::default()
    };
    let (film, to) = (what("film.mkv"), PathBuf::from("/mnt/other"));
    let requests = [
        Request::Add(add),
        Request::Add(adopted),
        Request::Remove(Remove { what: film.clone(), delete: true }),
        Request::Pause(Which { what: what("all") }),
        Request::Resume(Which { what: what("0a1b2c") }),
        Request::List(List::default()),
        Request::List(List { filter: "film".into(), after: Some(u64::MAX), max: 1 }),
        Request::Show(Show { what: film.clone(), after: Some(3), max: 7 }),
        Request::Move(Move { what: film, to }),
        Request::Stats,
        Request::Stop,
        Request::Reload,
    ];
    for request in requests {
        let line = request.write().unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Request::parse(&line), Ok(request));
    }
}

#[test]
fn requests_look_as_they_are_documented() {
    let line = |request: Request| String::from_utf8(request.write().unwrap()).unwrap();
    assert_eq!(line(Request::Stats), "{\"v\":1,\"do\":\"stats\"}\n");
    let list = line(Request::List(List::default()));
    assert_eq!(list, "{\"v\":1,\"do\":{\"list\":{\"max\":500}}}\n");
    // What can be left out is.
    let short: [(&str, Request); 4] = [
        (r#"{"list":{}}"#, Request::List(List::default())),
        (
            r#"{"show":{"what":"x"}}"#,
            Request::Show(Show { what: what("x"), after: None, max: PAGE_MAX }),
        ),
        (r#"{"remove":{"what":"x"}}"#, Request::Remove(Remove { what: what("x"), delete: false })),
        (
            r#"{"add":{"paths":["/x"]}}"#,
            Request::Add(Add { paths: vec!["/x".into()], ..Add::default() }),
        ),
    ];
    for (text, wanted) in short {
        let line = std::format!(r#"{{"do":{text},"v":1}}"#);
        assert_eq!(Request::parse(line.as_bytes()), Ok(wanted), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_line_is_said() {
    let table = [
        ("", "EOF while parsing"),
        ("list", "expected value"),
        ("{}", "asks in version none, this box speaks 1; use the same version"),
        (r#"{"v":2,"do":"dance"}"#, "asks in version 2, this box speaks 1"),
        (r#"{"v":"1","do":"stats"}"#, "invalid type: string"),
        (r#"{"v":1}"#, "missing field `do`"),
        (r#"{"v":1,"do":"stats","for":"x"}"#, "unknown field `for`"),
        (r#"{"v":1,"do":"dance"}"#, "unknown variant `dance`, expected one of `add`, `remove`"),
        (r#"{"v":1,"do":{"list":{"most":5}}}"#, "unknown field `most`"),
        (r#"{"v":1,"do":{"list":{},"show":{}}}"#, "expected"),
        (r#"{"v":1,"do":{"show":{}}}"#, "missing field `what`"),
        (r#"{"v":1,"do":{"list":{"max":0}}}"#, "max: 0 is not from 1 to 500"),
        (r#"{"v":1,"do":{"list":{"max":501}}}"#, "max: 501 is not from 1 to 500"),
        (r#"{"v":1,"do":{"list":{"max":-1}}}"#, "invalid value: integer `-1`"),
        (r#"{"v":1,"do":{"list":{"after":1.5}}}"#, "invalid type: floating point"),
        (r#"{"v":1,"do":{"remove":{"what":"all"}}}"#, "all: is understood by pause and resume"),
        (r#"{"v":1,"do":{"show":{"what":"all"}}}"#, "all: is understood by pause and resume"),
        (r#"{"v":1,"do":{"move":{"what":"x","to":"y"}}}"#, "y: the box is elsewhere"),
        (r#"{"v":1,"do":{"add":{}}}"#, "add: names nothing"),
        (r#"{"v":1,"do":{"add":{"paths":["x"]}}}"#, "x: the box is elsewhere; name it by its"),
        (r#"{"v":1,"do":{"add":{"links":["x.torrent"]}}}"#, "x.torrent: the box is elsewhere"),
        (r#"{"v":1,"do":{"add":{"links":["/x"],"into":"in"}}}"#, "in: the box is elsewhere"),
        (r#"{"v":1,"do":{"add":{"links":["/x"],"torrent":"/t"}}}"#, "torrent: describes one path"),
        (r#"{"v":1,"do":{"add":{"paths":["/x"],"piece_bytes":17}}}"#, "17 is no power of two"),
        (r#"{"v":1,"do":{"add":{"links":["/x"],"files":["[a"]}}}"#, "--files [a: "),
        (r#"{"v":1,"do":{"add":{"links":["/x"],"web_seeds":["x"]}}}"#, "--web-seed x: "),
        (r#"{"v":1,"do":{"add":{"paths":["/x"],"trackers":["x"]}}}"#, "give an http, https or udp"),
        (r#"{"v":1,"do":{"add":{"links":["/x"],"peers":["x"]}}}"#, "invalid socket address"),
    ];
    for (line, words) in table {
        let refusal = Request::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains(words), "{line}: {refusal}");
    }
}

#[test]
fn a_line_cannot_make_itself_large() {
    let many = std::vec!["\"/\""; LIST_MAX + 1].join(",");
    let line = |paths: &str| std::format!(r#"{{"v":1,"do":{{"add":{{"paths":[{paths}]}}}}}}"#);
    let refusal = Request::parse(line(&many).as_bytes()).unwrap_err().to_string();
    assert!(refusal.contains("a list is longer than 256"), "{refusal}");
    let (_, fewer) = many.split_once(',').unwrap();
    assert!(Request::parse(line(fewer).as_bytes()).is_ok());
    // Nor does what is said of it.
    let line = std::format!(r#"{{"v":1,"do":"{}"}}"#, "x".repeat(60_000));
    assert!(Request::parse(line.as_bytes()).unwrap_err().to_string().len() < 300);
    let deep = std::format!(r#"{{"v":1,"do":{}"#, "[".repeat(60_000));
    assert!(Request::parse(deep.as_bytes()).is_err());
    let far = Request::Show(Show { what: what(&"x".repeat(70_000)), after: None, max: 1 });
    assert!(far.write().unwrap_err().to_string().contains("longer than 65536 bytes"));
}

#[test]
fn no_line_at_all_makes_it_panic() {
    let line = br#"{"v":1,"do":{"add":{"paths":["/x","/y"],"into":null,"files":["a*"]}}}"#;
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize
    };
    for _ in 0..20_000 {
        let mut line = line.to_vec();
        let at = next() % line.len();
        line[at] = next() as u8;
        line.truncate(line.len() - next() % 8);
        let _ = Request::parse(&line);
    }
}

#[test]
fn many_paths_are_told_in_parts_that_fit() {
    let path = |number: usize| PathBuf::from(std::format!("/{}/{number}", "d".repeat(400)));
    let add = Add {
        paths: (0..300).map(path).collect(),
        links: (300..1_000).map(path).collect(),
        sequential: true,
        ..Add::default()
    };
    let (paths, links) = (add.paths.clone(), add.links.clone());
    let parts = add.split();
    let heard: Vec<Add> = parts
        .into_iter()
        .map(|part| match Request::parse(&Request::Add(part).write().unwrap()) {
            Ok(Request::Add(add)) => add,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!((7..12).contains(&heard.len()), "{}", heard.len());
    assert!(heard.iter().all(|part| part.sequential));
    assert_eq!(heard.iter().flat_map(|part| part.paths.clone()).collect::<Vec<_>>(), paths);
    assert_eq!(heard.iter().flat_map(|part| part.links.clone()).collect::<Vec<_>>(), links);
}

#[test]
fn what_share_and_get_are_asked_is_told_with_absolute_paths() {
    let options = Options {
        paths: vec!["film.mkv".into()],
        fetch: FetchOptions {
            links: vec!["magnet:?x".into(), "http://a/b".into(), "c.torrent".into()],
            output: ".".into(),
            sequential: true,
            ..FetchOptions::default()
        },
        torrent: Some("film.torrent".into()),
        trackers: vec!["udp://a:1".into()],
        ..Options::new(crate::service::Board::named("tiny").unwrap(), "/state".into())
    };
    let here = |name: &str| std::env::current_dir().unwrap().join(name);
    let add = Add::of(&options).unwrap();
    assert_eq!(add.paths, [here("film.mkv")]);
    assert_eq!(add.links, [PathBuf::from("magnet:?x"), "http://a/b".into(), here("c.torrent")]);
    assert_eq!(add.torrent, Some(here("film.torrent")));
    assert_eq!(add.into.as_deref(), Some(here("").components().as_path()));
    assert!(add.sequential && add.trackers == options.trackers);
}
