//! Who attacks the page, and how: one test each.

use crate::author::Torrent;
use crate::client::{Answer, find};
use crate::{Owner, Site, bytes};

fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, 100_003));
        home.write("shared/folder/inner/file.bin", &bytes(2, 1_000));
        home.write("outside", b"of the folder");
    })
}

/// Everything that changes something, as forms send it.
fn changes(hash: &str) -> Vec<String> {
    let wishes = ["pause", "resume", "move", "limit", "remove"];
    let of_share = wishes.iter().map(|wish| format!("/s/{hash}/{wish}"));
    ["/add", "/settings", "/leave", "/stop"].map(Into::into).into_iter().chain(of_share).collect()
}

/// The same as programs send it, with a body that is understood.
fn api_changes(hash: &str) -> Vec<(String, String)> {
    let of_share = |wish: &str| format!("/api/v1/torrents/{hash}/{wish}");
    vec![
        ("/api/v1/torrents".into(), r#"{"links":["magnet:?xt=urn:btih:ab"]}"#.into()),
        ("/api/v1/settings".into(), r#"{"up":"1MB/s","readers":"everybody"}"#.into()),
        ("/api/v1/stop".into(), String::new()),
        (of_share("limit"), r#"{"up":"1MB/s","down":"off"}"#.into()),
        (of_share("pause"), String::new()),
        (of_share("resume"), String::new()),
        (of_share("move"), r#"{"to":"/tmp"}"#.into()),
        (of_share("remove"), r#"{"delete":true}"#.into()),
    ]
}

/// Nothing has been done to the box.
fn assert_untouched(site: &Site) {
    for name in ["film.mkv", "folder"] {
        site.share(name);
    }
    let torrents = site.program.list();
    assert_eq!(torrents.len(), 2, "{torrents:?}");
    assert!(torrents.iter().all(|torrent| torrent["state"] != "paused"), "{torrents:?}");
    assert!(site.shared("film.mkv").exists() && site.shared("folder").exists());
}

#[test]
fn a_name_that_is_not_the_boxs_is_answered_with_nothing() {
    let site = site("web-rebinding");
    let hash = site.hash_of("film.mkv");
    let owner = site.claim();
    let port = site.page.port();
    for host in
        [&*format!("evil.example:{port}"), "evil.example", "localhost.evil.example", "0x7f000001"]
    {
        let lines = format!("Host: {host}\r\n{}", owner.cookie_line());
        for path in ["/", "/box", "/claim", &format!("/s/{hash}/film.mkv"), "/api/v1/torrents"] {
            let answer = site.ask("GET", path, &lines, b"").is(421);
            assert!(!answer.text().contains("film"), "{host} {path}");
        }
        let form = format!("token={}", owner.form_token);
        site.ask("POST", &format!("/s/{hash}/pause"), &lines, form.as_bytes()).is(421);
        let claim = format!("secret={}", site.secret);
        site.ask("POST", "/claim", &format!("Host: {host}\r\n"), claim.as_bytes()).is(421);
        site.ask("PUT", "/upload/x?at=0&of=1", &lines, b"x").is(421);
    }
    assert_untouched(&site);
}

#[test]
fn a_page_elsewhere_changes_nothing_in_its_visitors_name() {
    let site = site("web-csrf");
    let hash = site.hash_of("film.mkv");
    let owner = site.claim();
    let foreign = [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:1\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ];
    for lines in foreign {
        let lines = format!("{lines}{}", owner.cookie_line());
        let form = format!("token={}", owner.form_token);
        for path in changes(&hash) {
            assert_eq!(site.ask("POST", &path, &lines, form.as_bytes()).status, 403, "{path}");
        }
        let lines = format!("{lines}X-Token: {}\r\n", owner.form_token);
        for (path, body) in api_changes(&hash) {
            assert_eq!(site.ask("POST", &path, &lines, body.as_bytes()).status, 403, "{path}");
        }
        site.ask("PUT", "/upload/x?at=0&of=1", &lines, b"x").is(403);
        let claim = format!("secret={}&device=x", site.secret);
        site.ask("POST", "/claim", &lines, claim.as_bytes()).is(403);
    }
    assert_untouched(&site);
}

#[test]
fn a_form_without_its_pages_token_changes_nothing() {
    let site = site("web-token");
    let hash = site.hash_of("film.mkv");
    let owner = site.claim();
    for form in ["", "token=", "token=0123456789abcdef0123456789abcdef", &{
        format!("token={}", owner.token)
    }] {
        for path in changes(&hash) {
            let answer = site.ask("POST", &path, &owner.cookie_line(), form.as_bytes());
            assert_eq!(answer.status, 403, "{path} {form}");
        }
    }
    for (path, body) in api_changes(&hash) {
        let answer = site.ask("POST", &path, &owner.cookie_line(), body.as_bytes());
        assert_eq!(answer.status, 403, "{path}");
    }
    site.ask("PUT", "/upload/x?at=0&of=1", &owner.cookie_line(), b"x").is(403);
    assert_untouched(&site);
}

#[test]
fn a_visitor_changes_nothing() {
    let site = site("web-visitor");
    let hash = site.hash_of("film.mkv");
    for line in ["", "Cookie: perennial=0\r\n", "Authorization: Bearer 0\r\n", &{
        format!("Authorization: Bearer {}\r\n", site.secret)
    }] {
        for path in changes(&hash) {
            assert_eq!(site.ask("POST", &path, line, b"token=").status, 401, "{path}");
        }
        for (path, body) in api_changes(&hash) {
            assert_eq!(site.ask("POST", &path, line, body.as_bytes()).status, 401, "{path}");
        }
        site.ask("PUT", "/upload/x?at=0&of=1", line, b"x").is(401);
        site.ask("GET", "/upload/x", line, b"").is(401);
    }
    assert_untouched(&site);
}

#[test]
fn nothing_that_changes_anything_answers_a_get() {
    let site = site("web-get");
    let owner = site.claim();
    for name in ["film.mkv", "folder"] {
        let hash = site.hash_of(name);
        let query = format!("token={}&delete=yes&link=magnet:&up=1MB/s", owner.form_token);
        let api = api_changes(&hash).into_iter().map(|(path, _)| path);
        let all = changes(&hash).into_iter().chain(api).chain(["/api/v1/claim".into()]);
        for path in all {
            for method in ["GET", "HEAD"] {
                let lines = format!("X-Token: {}\r\n{}", owner.form_token, owner.cookie_line());
                let answer = site.ask(method, &format!("{path}?{query}"), &lines, b"");
                // Some are looked at under the address that something new is sent to.
                let is_seen = ["/api/v1/torrents", "/api/v1/settings"].contains(&&*path);
                let wanted: &[u16] = if is_seen { &[200] } else { &[404, 405] };
                assert!(wanted.contains(&answer.status), "{method} {path}: {}", answer.head);
            }
        }
    }
    assert_untouched(&site);
    site.ask("GET", "/", &owner.cookie_line(), b"").is(200);
    let settings = site.ask("GET", "/api/v1/settings", &owner.bearer_line(), b"").is(200);
    assert_eq!(settings.text(), "{}");
}

/// Names that would be markup, or lines of a head.
const NAMES: [&str; 6] = [
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(1)<!--.mp4",
    "' onmouseover='alert(1).mp3",
    "x\r\nSet-Cookie: perennial=evil\r\n\r\nevil.mkv",
    "javascript:alert(1).mp4",
    "&lt;b&gt;.txt",
];

#[test]
fn a_name_with_markup_or_line_ends_stays_a_name() {
    let site = Site::start("web-markup", |_| {});
    let owner = site.claim();
    let mut hashes = Vec::new();
    for (number, name) in NAMES.iter().enumerate() {
        // Once as a single file, once as a folder with a file of that name, made by others.
        let single = Torrent::single(name, 16 << 10, bytes(number as u64, 20_000));
        let path = [b"inner".as_slice(), name.as_bytes()];
        let file = [(path.to_vec(), bytes(number as u64, 20_000))];
        let folder = Torrent::of_any_names(name.as_bytes(), 16 << 10, &file);
        for (torrent, kind) in [(single, "single"), (folder, "folder")] {
            let path = torrent.write(site.home.path(), &format!("{kind}-{number}.torrent"));
            let into = site.home.path().join(format!("{kind}-{number}"));
            let into = into.to_str().unwrap();
            let told = site.program.tell(&["add", path.to_str().unwrap(), "--into", into]);
            assert!(told.status.success(), "{}", told.stderr);
            hashes.push(crate::program::digits(&torrent.info_hash));
        }
    }
    let (mut seen, mut all_markup) = (0, Vec::new());
    let cookies = [String::new(), owner.cookie_line()];
    for cookie in &cookies {
        let mut pages = vec!["/".to_owned(), "/box".into(), "/claim".into()];
        pages.extend(NAMES.iter().flat_map(|name| {
            let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            [format!("/?q={encoded}"), format!("/{encoded}"), format!("/?after={encoded}")]
        }));
        for hash in &hashes {
            let ends = ["/", "/?play=0", ".m3u8", ".magnet", ".json", ".torrent", ".svg", ".zip"];
            pages.extend(ends.map(|end| format!("/s/{hash}{end}")));
        }
        for page in pages {
            let answer = site.ask("GET", &page, cookie, b"");
            assert_harmless(&page, &answer);
            if answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")) {
                all_markup.extend_from_slice(&answer.body);
            }
            seen += usize::from(answer.text_or_nothing().contains("onerror"));
        }
    }
    assert!(seen > 0, "the names are on no page");
    // With a browser's eyes: no element and no attribute has come from a name.
    let path = site.home.write("all.html", &all_markup);
    let found =
        crate::run_well(std::process::Command::new("python3").args(["-c", READER]).arg(path));
    assert_eq!(String::from_utf8(found).unwrap(), "");
    // What a form brings is said back by the page that refuses it.
    for name in NAMES {
        let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        for (path, field) in
            [("/add", "link"), ("/settings", "up"), (&*format!("/s/{}/move", hashes[0]), "to")]
        {
            let answer = site.post(&owner, path, &format!("{field}={encoded}"));
            assert_harmless(path, &answer);
        }
        let claim = format!("secret={encoded}&device={encoded}");
        assert_harmless("/claim", &site.ask("POST", "/claim", "", claim.as_bytes()));
    }
    assert_harmless("/box", &site.ask("GET", "/box", &owner.cookie_line(), b""));
}

/// Says what of the markup would run.
const READER: &str = r#"
import sys, html.parser
class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        runs = [name for name in values if name.startswith("on")]
        if values.get("src") == "x" or runs:
            print(tag, values)
        if tag == "script" and values.get("src") != "/script.js":
            print(tag, values)
        if any((value or "").startswith("javascript:") for value in values.values()):
            if tag not in ("input", "img"):
                print(tag, values)
Reader().feed(open(sys.argv[1], encoding="utf-8").read())
"#;

fn assert_harmless(what: &str, answer: &Answer) {
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{what}");
    let policy = answer.header("Content-Security-Policy").expect("everything has a policy");
    assert!(policy.contains("default-src 'none'"), "{what}: {policy}");
    // A line of its own that nobody but the box writes.
    let is_evil = |line: &str| line.starts_with("evil") || line.contains("perennial=evil");
    assert!(!answer.head.lines().any(is_evil), "{what}: {}", answer.head);
    let text = answer.text_or_nothing();
    if answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")) {
        for markup in ["<img src=x", "<script>alert", "&lt;b&gt;.txt<"] {
            assert!(!text.contains(markup), "{what}: {markup} in {text}");
        }
        assert!(!text.contains("href=\"javascript:"), "{what}");
        assert_eq!(text.matches("<script").count(), 1, "{what}: our own script and no other");
    }
    let is_list = answer.header("Content-Type") == Some("application/vnd.apple.mpegurl");
    assert!(!is_list || text.lines().all(|line| !line.starts_with("Set-Cookie")), "{text}");
}

impl Answer {
    fn text_or_nothing(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[test]
fn a_page_among_the_files_runs_nothing_in_our_name() {
    let markup = b"<script>alert(1)</script>";
    let site = Site::start("web-sandbox", |home| {
        for name in ["a.html", "a.svg", "a.htm", "a.xhtml", "a.xml", "a.pdf", "a"] {
            home.write(format!("shared/site/{name}"), markup);
        }
        home.write("shared/alone.html", markup);
    });
    let (folder, alone) = (site.hash_of("site"), site.hash_of("alone.html"));
    let names = ["a.html", "a.svg", "a.htm", "a.xhtml", "a.xml", "a.pdf", "a"];
    let mut paths: Vec<String> =
        names.iter().map(|name| format!("/s/{folder}/site/{name}")).collect();
    paths.push(format!("/s/{alone}/alone.html"));
    for path in paths {
        for end in ["", "?download"] {
            let answer = site.get(&format!("{path}{end}")).is(200);
            let policy = answer.header("Content-Security-Policy").unwrap_or_default();
            assert!(policy.starts_with("sandbox;"), "{path}: {policy}");
            assert!(!policy.contains("allow-scripts") && policy.contains("default-src 'none'"));
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
            let way = answer.header("Content-Disposition").expect("it has a name");
            assert_eq!(way.starts_with("attachment"), !end.is_empty());
        }
    }
}

#[test]
fn whoever_asks_does_not_say_of_what_kind_a_file_is() {
    let site = site("web-kind");
    let hash = site.hash_of("film.mkv");
    let film = site.get(&format!("/s/{hash}/film.mkv")).is(200);
    for name in ["film.html", "x.svg", "film.mkv%0d%0aX:%20y", "pause.html"] {
        let answer = site.get(&format!("/s/{hash}/{name}")).is(200);
        assert_eq!(answer.header("Content-Type"), film.header("Content-Type"), "{name}");
        assert_eq!(answer.header("X"), None);
    }
}

#[test]
fn no_path_leads_outside() {
    let site = site("web-outside");
    let hash = site.hash_of("folder");
    let root = format!("/s/{hash}/folder");
    for path in [
        "../../outside",
        "..%2f..%2foutside",
        "%2e%2e/%2e%2e/outside",
        "inner/../../../outside",
        "inner/%2e%2e/inner/file.bin",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "inner/file.bin%00.html",
        "%00",
        "..\\..\\outside",
        "....//outside",
        "inner/./file.bin",
        "inner/",
        ".",
        "..",
        "",
        "%ff%fe",
        "inner/file.bin/",
    ] {
        let answer = site.get(&format!("{root}/{path}"));
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.head);
        assert!(find(&answer.body, b"of the folder").is_none(), "{path}");
    }
    for path in ["/../outside", "/style.css/../../outside", "/s/../outside", "//outside", "/%2e%2e"]
    {
        assert!([400, 404].contains(&site.get(path).status), "{path}");
    }
    site.get(&format!("{root}/inner/file.bin")).is(200);
}

#[test]
fn a_visitor_is_not_told_where_things_lie() {
    let site = site("web-where");
    let (film, folder) = (site.hash_of("film.mkv"), site.hash_of("folder"));
    // One of them is in trouble, and says why.
    std::fs::write(site.shared("film.mkv"), bytes(7, 100_003)).unwrap();
    site.get(&format!("/s/{film}/film.mkv"));
    let owner: Owner = site.claim();
    let mut paths: Vec<String> =
        ["/", "/box", "/claim", "/no", "/api/v1/pulse", "/api/v1/stats", "/api/v1/torrents"]
            .map(Into::into)
            .into();
    for hash in [&film, &folder, &"0".repeat(40)] {
        let ends =
            ["/", ".json", ".m3u8", ".magnet", ".torrent", ".zip", "/x", "/film.mkv", "/folder/no"];
        paths.extend(ends.map(|end| format!("/s/{hash}{end}")));
        paths.push(format!("/api/v1/torrents/{hash}"));
    }
    let place = site.home.path().to_str().unwrap().to_owned();
    let look = |line: &str| {
        let told = paths.iter().filter(|path| {
            // What has changed is cut off.
            let Ok(answer) = site.try_to_ask("GET", path, line, b"") else { return false };
            find(&answer.body, place.as_bytes()).is_some()
                || find(&answer.body, b"CARGO_TARGET").is_some()
        });
        told.cloned().collect::<Vec<_>>()
    };
    assert_eq!(look(""), [""; 0], "told to a visitor");
    assert!(!look(&owner.bearer_line()).is_empty(), "the owner is told");
    // Trouble and moves, as they are said in lists.
    site.program.wait_for("film.mkv", |_| true);
    assert_eq!(look(""), [""; 0], "told to a visitor");
}

#[test]
fn a_visitor_is_not_told_in_which_folder_something_is_wrong() {
    let site = Site::start("web-trouble", |_| {});
    let torrent = Torrent::single("film.mkv", 16 << 10, bytes(1, 200_000));
    let path = torrent.write(site.home.path(), "film.torrent");
    let told = site.program.tell(&["add", path.to_str().unwrap()]);
    assert!(told.status.success(), "{}", told.stderr);
    let Site { program, secret, home, .. } = site;
    program.end();
    // What it wrote to is a file now.
    let fetched = home.path().join("fetched");
    std::fs::remove_dir_all(&fetched).unwrap();
    std::fs::write(&fetched, b"").unwrap();
    let config = std::fs::read_to_string(home.path().join("box.toml")).unwrap();
    let (program, page, _) = Site::run(crate::Call::run_box(&home, &config).with_page());
    let site = Site { program, page, secret, home };
    let hash = crate::program::digits(&torrent.info_hash);
    let detail = site.program.wait_for(&hash, |detail| detail["torrent"]["state"] != "resting");
    let trouble = detail["torrent"]["trouble"].as_str().unwrap_or_default();
    println!("the owner is told: {trouble}");
    let place = site.home.path().to_str().unwrap();
    for path in ["/", "/api/v1/torrents", &format!("/s/{hash}/"), &format!("/s/{hash}.json"), &{
        format!("/api/v1/torrents/{hash}")
    }] {
        let answer = site.get(path).is(200);
        assert!(find(&answer.body, place.as_bytes()).is_none(), "{path}: {}", answer.text());
    }
}

#[test]
fn a_token_puts_no_file_where_content_does_not_belong() {
    let site = Site::start("web-elsewhere", |home| {
        home.write("shared/film.mkv", &bytes(1, 10_000));
    });
    let (hash, owner) = (site.hash_of("film.mkv"), site.claim());
    let elsewhere = site.home.path().join("cron.d");
    std::fs::create_dir(&elsewhere).unwrap();
    let out = format!("{}/../cron.d", site.shared("").display());
    for to in [elsewhere.to_str().unwrap(), &out, "/etc/cron.d", ""] {
        let body = format!(r#"{{"to":"{to}"}}"#);
        let path = format!("/api/v1/torrents/{hash}/move");
        site.ask("POST", &path, &owner.bearer_line(), body.as_bytes()).is(422);
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn readers_are_whom_the_owner_lets() {
    let more = "[web]\nreaders = \"owner\"\n";
    let site = Site::start_as(
        "web-readers",
        more,
        |call| call,
        |home| {
            home.write("shared/film.mkv", &bytes(1, 100_003));
        },
    );
    let hash = site.hash_of("film.mkv");
    let owner = site.claim();
    for path in ["/", "/box", "/api/v1/torrents", "/api/v1/events", "/api/v1/openapi.json"] {
        site.get(path).is(403);
    }
    for end in ["/", ".torrent", ".zip", ".json", ".svg", ".magnet", ".m3u8", "/film.mkv", ""] {
        let path = format!("/s/{hash}{end}");
        assert!(!site.get(&path).is(403).text().contains("film"), "{path}");
        let answer = site.ask("GET", &path, &owner.cookie_line(), b"");
        assert!([200, 308].contains(&answer.status), "{path}");
    }
    site.get("/claim").is(200);
}
