//! What `openapi.json` says: each address of it answers as it says, and there is none beside.

use crate::client::{Connection, request};
use crate::{Site, bytes};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read as _;

fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, 100_003));
        home.write("shared/folder/one", &bytes(2, 1_000));
        home.write("shared/folder/two", &bytes(3, 1_000));
    })
}

#[test]
fn every_address_answers_as_it_is_described() {
    let site = site("web-api");
    let api = site.get("/api/v1/openapi.json").is(200).json();
    let (film, folder) = (site.hash_of("film.mkv"), site.hash_of("folder"));
    let owner = site.claim();
    let mut walked = 0;
    for (path, methods) in api["paths"].as_object().expect("it has paths") {
        for (method, told) in methods.as_object().expect("they have methods") {
            // What removes it comes last and takes the other.
            let hash = if path.ends_with("/remove") { &folder } else { &film };
            let (method, at) = (method.to_uppercase(), path.replace("{hash}", hash));
            let body = match &*path.replace("/api/v1", "") {
                "/torrents" if method == "POST" => {
                    format!(r#"{{"links":["magnet:?xt=urn:btih:{}"]}}"#, "ab".repeat(20))
                }
                "/torrents/{hash}/move" => {
                    let to = site.home.path().join("fetched/moved");
                    std::fs::create_dir_all(&to).unwrap();
                    format!(r#"{{"to":"{}"}}"#, to.display())
                }
                "/torrents/{hash}/remove" => r#"{"delete":false}"#.into(),
                "/torrents/{hash}/limit" => r#"{"up":"2MB/s","down":""}"#.into(),
                "/settings" if method == "POST" => r#"{"up":"2MB/s","readers":"house"}"#.into(),
                // This box was not flashed.
                "/update" => "no update".into(),
                "/claim" => format!(r#"{{"secret":"{}","device":"it"}}"#, site.secret),
                _ => String::new(),
            };
            assert_eq!(told["requestBody"].is_object(), !body.is_empty(), "{method} {path}");
            if told["responses"]["401"].is_object() {
                site.ask(&method, &at, "", body.as_bytes()).is(401);
                let from_elsewhere = if method == "GET" { 200 } else { 403 };
                site.ask(&method, &at, &owner.cookie_line(), body.as_bytes()).is(from_elsewhere);
            } else {
                assert!(method == "GET" || path.ends_with("/claim"), "{path} has no guard");
            }
            if path.ends_with("/events") {
                walk_events(&site, &api);
                walked += 1;
                continue;
            }
            let answer = site.ask(&method, &at, &owner.bearer_line(), body.as_bytes());
            if path.ends_with("/update") {
                let words = "this box: was installed, and has no slots to update; update it as it was \
                             installed: install the newer package over it\n";
                assert_eq!(answer.is(422).text(), words);
                walked += 1;
                continue;
            }
            if path.ends_with("/stop") {
                let refused = answer.is(422).text();
                assert!(refused.contains("is not switched off from its page"), "{refused}");
                walked += 1;
                continue;
            }
            let response = &told["responses"][answer.status.to_string()];
            assert!(
                answer.status < 300 && response.is_object(),
                "{method} {path}: {}",
                answer.head
            );
            let schema = &response["content"]["application/json"]["schema"];
            if schema.is_object() {
                assert_eq!(answer.header("Content-Type"), Some("application/json"));
                assert_described(&api, schema, &answer.json(), path);
            }
            walked += 1;
        }
    }
    assert!(walked >= 14, "{walked}");
    // What is moved meanwhile is described too.
    let answer = site.ask("GET", &format!("/api/v1/torrents/{film}"), &owner.bearer_line(), b"");
    assert_described(&api, &api["components"]["schemas"]["Answered"], &answer.json(), "moved");
    let answer = site.get(&format!("/api/v1/torrents/{folder}"));
    let told = &api["paths"]["/api/v1/torrents/{hash}"]["get"]["responses"];
    assert!(told[answer.status.to_string()].is_object(), "not described: {}", answer.head);
}

fn walk_events(site: &Site, api: &Value) {
    let mut connection = Connection::to(site.page);
    connection.send(request(site.page, "GET", "/api/v1/events", "", b""));
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains("event: pulse\ndata: ") || !text.ends_with("\n\n") {
        let length = connection.stream.read(&mut buffer).expect("events come");
        assert!(length > 0, "it ends: {text}");
        text += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    let data = text.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let pulse = serde_json::from_str(data).expect("data is JSON");
    assert_described(api, &api["components"]["schemas"]["Pulse"], &pulse, "events");
}

/// Everything that is answered is described, and of that kind.
fn assert_described(api: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(named) => api.pointer(named.trim_start_matches('#')).expect("it is described"),
        None => schema,
    };
    let kind = match value {
        Value::Null => return,
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| assert_described(api, &schema["items"], item, at));
            "array"
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                let known = &schema["properties"][name];
                assert!(known.is_object(), "not described: {at} = {field}");
                assert_described(api, known, field, &at);
            }
            "object"
        }
    };
    assert_eq!(schema["type"], kind, "{at}: {value}");
}

/// Words in quotes that stand in the arms of a function that tells addresses apart.
fn words_of(source: &str, function: &str) -> BTreeSet<String> {
    let from = source.find(&format!("fn {function}(")).expect("there is such a function");
    let body = &source[from..];
    let body = &body[..body.find("\n    }\n").expect("it ends")];
    let arms = body.lines().filter(|line| line.contains("=>") || line.contains("*parts =="));
    let quoted = arms.flat_map(|line| line.split('"').skip(1).step_by(2));
    quoted.map(Into::into).collect()
}

#[test]
fn every_route_of_the_api_is_described() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/api.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let mut routes = words_of(&source, "api_look");
    routes.extend(words_of(&source, "api_change"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/assets/openapi.json");
    let api: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let paths = api["paths"].as_object().expect("it has paths").keys();
    let described: BTreeSet<String> = paths
        .flat_map(|path| path.trim_start_matches("/api/v1/").split('/'))
        .filter(|part| !part.starts_with('{'))
        .map(Into::into)
        .collect();
    assert_eq!(routes, described);
    assert!(routes.len() > 8, "{routes:?}");
}

#[test]
fn what_is_not_understood_says_what_is() {
    let site = site("web-api-wrong");
    let owner = site.claim();
    for (path, body, status) in [
        ("/api/v1/torrents", "", 400),
        ("/api/v1/torrents", "{", 400),
        ("/api/v1/torrents", r#"{"links":"x"}"#, 400),
        ("/api/v1/torrents", r#"{"links":[],"more":1}"#, 400),
        ("/api/v1/torrents", r#"{"links":["/etc/passwd"]}"#, 422),
        ("/api/v1/torrents", r#"{"links":["file:///etc/passwd"]}"#, 422),
        ("/api/v1/settings", r#"{"up":"fast"}"#, 400),
        ("/api/v1/settings", r#"{"readers":"nobody"}"#, 400),
        ("/api/v1/settings", r#"{"colour":"red"}"#, 400),
        (&format!("/api/v1/torrents/{}/limit", "0".repeat(40)), r#"{"up":"fast","down":""}"#, 400),
        (&format!("/api/v1/torrents/{}/limit", "0".repeat(40)), r#"{"up":"1MB/s","down":""}"#, 422),
        ("/api/v1/stats", "{}", 405),
        ("/api/v1/nothing", "{}", 404),
        ("/api/v1/torrents/xyz/pause", "", 404),
        (&format!("/api/v1/torrents/{}/pause", "0".repeat(40)), "", 422),
        (&format!("/api/v1/torrents/{}/fly", "0".repeat(40)), "", 404),
    ] {
        let answer = site.ask("POST", path, &owner.bearer_line(), body.as_bytes());
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{path}");
    }
    let deep = format!(r#"{{"links":{}"#, "[".repeat(30_000));
    site.ask("POST", "/api/v1/torrents", &owner.bearer_line(), deep.as_bytes()).is(400);
    let long = "x".repeat(70_000);
    site.ask("POST", "/api/v1/torrents", &owner.bearer_line(), long.as_bytes()).is(413);
}

#[test]
fn pages_of_the_library_are_as_long_as_they_are_asked_for() {
    let site = Site::start("web-api-pages", |home| {
        for number in 0..7 {
            home.write(format!("shared/file-{number}"), &bytes(number, 100));
        }
    });
    (0..7).for_each(|number| drop(site.share(&format!("file-{number}"))));
    let (mut names, mut after) = (BTreeSet::new(), None);
    for page in 0.. {
        assert!(page < 5, "it does not end");
        let path = match after {
            None => "/api/v1/torrents?max=3".into(),
            Some(after) => format!("/api/v1/torrents?max=3&after={after}"),
        };
        let told = site.get(&path).is(200).json();
        let torrents = told["torrents"].as_array().cloned().unwrap_or_default();
        assert!(torrents.len() <= 3);
        names.extend(torrents.iter().map(|one| one["name"].to_string()));
        match told["next"].as_u64() {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(names.len(), 7);
}
