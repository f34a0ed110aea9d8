//! The box's secret, and the tokens that are given for it.

use crate::client::find;
use crate::program::{Call, PATIENCE, wait_until};
use crate::{Site, bytes};
use std::os::unix::fs::PermissionsExt as _;

fn site(name: &str) -> Site {
    Site::start(name, |home| {
        home.write("shared/film.mkv", &bytes(1, 100_003));
    })
}

#[test]
fn wrong_secrets_slow_an_address_down_and_the_right_one_works_afterwards() {
    let site = site("web-guessed");
    let claim = |secret: &str| {
        let form = format!("secret={secret}&device=x");
        site.ask("POST", "/claim", "", form.as_bytes())
    };
    let wrong = "00000000000000000000000000000000";
    let mut refused = 0;
    while claim(wrong).status == 403 {
        refused += 1;
        assert!(refused < 10, "it can be guessed at for ever");
    }
    assert!(refused >= 2, "nobody may mistype");
    // While it waits nothing is heard from there, the right one neither, nor over the other way in.
    let barred = claim(&site.secret).is(429);
    let seconds: u64 = barred.header("Retry-After").expect("it says how long").parse().unwrap();
    assert!((1..=4).contains(&seconds), "{seconds} s");
    let json = format!(r#"{{"secret":"{}"}}"#, site.secret);
    site.ask("POST", "/api/v1/claim", "", json.as_bytes()).is(429);
    let right = || (claim(&site.secret).status == 303).then_some(());
    wait_until("the right one works again", PATIENCE, right, || site.program.log());
    // Another wrong one is the first again.
    claim(wrong).is(403);
    claim(&site.secret).is(303);
}

#[test]
fn secrets_and_tokens_are_in_no_log_no_page_and_no_file_that_others_read() {
    let site = site("web-kept");
    let owner = site.claim();
    let json = format!(r#"{{"secret":"{}","device":"zebra"}}"#, site.secret);
    let claimed = site.ask("POST", "/api/v1/claim", "", json.as_bytes()).is(201).json();
    let program = claimed["token"].as_str().expect("it has a token").to_owned();
    let hash = site.hash_of("film.mkv");
    // Some mistakes, which are said in the log if anything is.
    site.ask("POST", "/claim", "", format!("secret={}0", site.secret).as_bytes());
    site.ask("GET", "/box", "Cookie: perennial=nonsense\r\n", b"");
    site.post(&owner, "/add", "link=/etc/passwd");
    let fours: Vec<&str> = (0..8).map(|at| &site.secret[4 * at..4 * at + 4]).collect();
    let secrets = [&site.secret, &owner.token, &program, &fours.join(" ")];
    let mut said = vec![("log".to_owned(), site.program.log().into_bytes())];
    for line in ["".to_owned(), owner.cookie_line(), format!("Authorization: Bearer {program}\r\n")]
    {
        for path in
            ["/", "/box", "/claim", "/api/v1/stats", "/api/v1/torrents", &*format!("/s/{hash}/")]
        {
            let answer = site.ask("GET", path, &line, b"").is(200);
            let all = [answer.head.into_bytes(), answer.body].concat();
            said.push((format!("{path} {line}"), all));
        }
    }
    let path = site.program.state().join("owner.json");
    let kept = std::fs::read(&path).unwrap();
    for (what, text) in &said {
        for secret in secrets {
            assert!(find(text, secret.as_bytes()).is_none(), "{secret} in {what}");
        }
    }
    for token in [&owner.token, &program] {
        assert!(find(&kept, token.as_bytes()).is_none(), "a token is kept as it is");
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let visitor = site.get("/box").text();
    assert!(!visitor.contains("zebra") && !visitor.contains("name=\"token\""));
}

#[test]
fn a_cookie_stays_with_the_browser_and_a_token_of_one_works_for_no_other() {
    let site = site("web-cookie");
    let form = format!("secret={}&device=x", site.secret);
    let claimed = site.ask("POST", "/claim", "", form.as_bytes()).is(303);
    let cookie = claimed.header("Set-Cookie").expect("there is one");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let (one, two) = (site.claim(), site.claim());
    let hash = site.hash_of("film.mkv");
    let form = format!("token={}", two.form_token);
    site.ask("POST", &format!("/s/{hash}/pause"), &one.cookie_line(), form.as_bytes()).is(403);
    // Who leaves is nobody from then on; the other stays.
    site.post(&one, "/leave", "").is(303);
    site.post(&one, &format!("/s/{hash}/pause"), "").is(401);
    site.post(&two, &format!("/s/{hash}/pause"), "").is(303);
}

#[test]
fn the_owner_asks_for_the_secret_on_the_box_and_a_new_one_lets_every_browser_go() {
    let site = site("web-claim");
    let owner = site.claim();
    let secret_of = |arguments: &[&str]| {
        let told = site.program.ask(arguments).swap_remove(0);
        told["claim"]["secret"].as_str().expect("it tells the secret").to_owned()
    };
    assert_eq!(secret_of(&["claim"]), site.secret);
    let words = site.program.tell(&["claim"]).stdout;
    let squeezed: String = words.chars().filter(|char| !char.is_whitespace()).collect();
    assert!(squeezed.contains(&site.secret), "{words}");
    assert!(words.contains("test"), "it says who has claimed it: {words}");
    let new = secret_of(&["claim", "--reset"]);
    assert_ne!(new, site.secret);
    site.post(&owner, "/add", "link=x").is(401);
    site.ask("POST", "/claim", "", format!("secret={}", site.secret).as_bytes()).is(403);
    site.ask("POST", "/claim", "", format!("secret={new}").as_bytes()).is(303);
}

#[test]
fn a_box_that_starts_again_knows_its_browsers_and_tells_no_secret() {
    let Site { program, secret, home, page } = site("web-again");
    let before = Site { program, secret, home, page };
    let owner = before.claim();
    let Site { program, home, secret, .. } = before;
    program.end();
    let config = std::fs::read_to_string(home.path().join("box.toml")).unwrap();
    let (program, page, told) = Site::run(Call::run_box(&home, &config).with_page());
    assert_eq!(told, None, "it is told once");
    let site = Site { program, page, secret, home };
    let hash = site.hash_of("film.mkv");
    site.post(&owner, &format!("/s/{hash}/pause"), "").is(303);
    assert_eq!(site.program.find(&hash).unwrap()["torrent"]["state"], "paused");
}
