//! What the owner says on the page of how the box is to be: kept, heeded at once, and heeded again
//! after a restart.

use crate::program::Call;
use crate::{Owner, Site, bytes};
use std::time::{Duration, Instant};

const CAPPED: &str = "[caps]\nlan = true\n";

fn site(name: &str) -> (Site, Owner) {
    let site = Site::start_as(
        name,
        CAPPED,
        |call| call,
        |home| {
            home.write("shared/slow.bin", &bytes(1, 2_000_000));
            home.write("shared/free.bin", &bytes(2, 2_000_000));
        },
    );
    let owner = site.claim();
    (site, owner)
}

/// How long a share takes.
fn fetch(site: &Site, name: &str) -> Duration {
    let path = format!("/s/{}/{name}", site.hash_of(name));
    let begun = Instant::now();
    assert_eq!(site.get(&path).is(200).body.len(), 2_000_000);
    begun.elapsed()
}

fn told(site: &Site, owner: &Owner) -> serde_json::Value {
    site.ask("GET", "/api/v1/settings", &owner.bearer_line(), b"").is(200).json()
}

#[test]
fn a_share_alone_is_held_to_its_limit_also_after_a_restart() {
    let (site, owner) = site("web-limit");
    let slow = site.hash_of("slow.bin");
    assert!(fetch(&site, "slow.bin") < Duration::from_secs(1));
    site.post(&owner, &format!("/s/{slow}/limit"), "up=1MB/s&down=").is(303);
    // A second's worth may go at once.
    let is_slow = |site: &Site| {
        assert!(fetch(site, "slow.bin") > Duration::from_millis(700));
        assert!(fetch(site, "free.bin") < Duration::from_millis(700));
    };
    is_slow(&site);
    let page = site.ask("GET", &format!("/s/{slow}/"), &owner.cookie_line(), b"").is(200).text();
    assert!(page.contains("value=\"1MB/s\""), "{page}");
    let Site { program, home, .. } = site;
    program.stop();
    let config = std::fs::read_to_string(home.path().join("box.toml")).unwrap();
    let (program, page, secret) = Site::run(Call::run_box(&home, &config).with_page());
    assert_eq!(secret, None, "it is claimed");
    let site = Site { program, page, secret: String::new(), home };
    is_slow(&site);
    site.post(&owner, &format!("/s/{slow}/limit"), "up=&down=").is(303);
    assert!(fetch(&site, "slow.bin") < Duration::from_millis(700));
    assert_eq!(told(&site, &owner)["limits"], serde_json::Value::Null);
    // That of a torrent that has gone is gone.
    site.post(&owner, &format!("/s/{slow}/limit"), "up=1MB/s&down=").is(303);
    site.post(&owner, &format!("/s/{slow}/remove"), "").is(303);
    site.post(&owner, "/settings", "up=&down=").is(303);
    assert_eq!(told(&site, &owner)["limits"], serde_json::Value::Null);
}

#[test]
fn what_is_said_goes_before_the_configuration_until_it_is_taken_back() {
    let (site, owner) = site("web-settings");
    site.ask("GET", "/api/v1/settings", "", b"").is(401);
    let form = "up=1MB/s&down=off&readers=owner&owner-outside=yes";
    site.post(&owner, "/settings", form).is(303);
    let said = serde_json::json!(
        {"up": 1_000_000, "down": 0, "readers": "owner", "owner_outside": true}
    );
    assert_eq!(told(&site, &owner), said);
    site.get("/").is(403);
    let kept = std::fs::read(site.program.state().join("settings.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&kept).unwrap(), said);
    let box_page = site.ask("GET", "/box", &owner.cookie_line(), b"").is(200).text();
    assert!(box_page.contains("value=\"1MB/s\"") && box_page.contains("value=\"off\""));
    site.post(&owner, "/settings", "up=&down=&readers=house").is(303);
    assert_eq!(told(&site, &owner)["up"], serde_json::Value::Null);
    assert!(fetch(&site, "free.bin") < Duration::from_millis(700));
    for wrong in ["up=fast", "readers=nobody", "down=-1"] {
        let refused = site.post(&owner, "/settings", wrong).is(422).text();
        assert!(refused.contains("That did not work"), "{wrong}: {refused}");
    }
}
