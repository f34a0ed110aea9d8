//! The page, over real sockets: HTTP as other people's programs speak it, and as attackers do.
//!
//! | what | where |
//! | --- | --- |
//! | files and parts of them, by `curl` and `wget` | [`ranges`] |
//! | requests cut anywhere, in a row, malformed, two in one | [`requests`] |
//! | `.zip`, `.torrent`, `.magnet` and so on | [`ends`] |
//! | other people's BitTorrent programs, with nothing but the web seed | [`seeds`] |
//! | pages elsewhere, visitors, names with markup, paths that lead outside | [`attacks`] |
//! | the box's secret and the tokens given for it | [`secrets`] |
//! | what the owner says of how it is to be | [`settings`] |
//! | files dropped into a browser | [`uploads`] |
//! | a flashed box that becomes a newer one | [`updates`] |
//! | what `openapi.json` says, and what is answered | [`api`] |
//!
//! What the page costs is in `tests/cost`. Everything stays on loopback.

#![cfg(feature = "std")]

#[path = "../support/author.rs"]
mod author;
#[path = "../support/leecher.rs"]
mod leecher;
#[path = "../support/prng.rs"]
mod prng;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/torrent.rs"]
mod torrent;
#[cfg(feature = "tls")]
#[path = "../support/update.rs"]
mod update_file;

mod api;
mod attacks;
mod client;
mod ends;
mod ranges;
mod requests;
mod secrets;
mod seeds;
mod settings;
#[cfg(feature = "tls")]
mod updates;
mod uploads;

use client::{Answer, Connection, request};
use program::{Call, Folder, Program, Share, digits};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A box with a page, and the folder each entry of which it shares.
struct Site {
    program: Program,
    page: SocketAddr,
    secret: String,
    home: Folder,
}

impl Site {
    /// Starts one whose folder `fill` has filled.
    fn start(name: &str, fill: impl FnOnce(&Folder)) -> Site {
        Site::start_as(name, "", |call| call, fill)
    }

    /// The same with more lines of configuration, otherwise called.
    fn start_as(
        name: &str,
        more: &str,
        change: impl FnOnce(Call) -> Call,
        fill: impl FnOnce(&Folder),
    ) -> Site {
        let home = Folder::new(name);
        let shared = home.path().join("shared");
        let fetched = home.path().join("fetched");
        std::fs::create_dir(&shared).unwrap();
        std::fs::create_dir(&fetched).unwrap();
        fill(&home);
        let config = format!(
            "[network]\ndht = \"off\"\nmap-port = false\n\
             [fetch]\nreserve = \"1MB\"\ninto = \"{}\"\n[[share]]\nfolder = \"{}\"\n{more}",
            fetched.display(),
            shared.display()
        );
        let call = change(Call::run_box(&home, &config).with_page());
        let (program, page, secret) = Site::run(call);
        Site { program, page, secret: secret.expect("it is new, and tells its secret"), home }
    }

    /// Starts a box; where its page is, and the secret if it tells one.
    fn run(call: Call) -> (Program, SocketAddr, Option<String>) {
        let program = call.start();
        let page = program.page.clone();
        let at = page["pages"][0].as_str().expect("it says where its page is");
        let at = at.trim_start_matches("http://").trim_end_matches('/').parse().expect("so it is");
        (program, at, page["secret"].as_str().map(Into::into))
    }

    /// Asks on a connection of its own.
    fn ask(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Answer {
        self.try_to_ask(method, path, lines, body).expect("it is answered")
    }

    /// The same, when the answer may be cut off.
    fn try_to_ask(
        &self,
        method: &str,
        path: &str,
        lines: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut connection = Connection::to(self.page);
        connection.send(request(self.page, method, path, lines, body));
        connection.receive(method == "HEAD")
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    /// A form as a browser of the owner's sends it.
    fn post(&self, owner: &Owner, path: &str, form: &str) -> Answer {
        let body = format!("token={}&{form}", owner.form_token);
        self.ask("POST", path, &owner.cookie_line(), body.as_bytes())
    }

    /// Brings the secret, as a browser does.
    fn claim(&self) -> Owner {
        let form = format!("secret={}&device=test", self.secret);
        let claimed = self.ask("POST", "/claim", "", form.as_bytes()).is(303);
        let cookie = claimed.header("Set-Cookie").expect("there is a cookie");
        let token = cookie.split(['=', ';']).nth(1).expect("it has a value").to_owned();
        let line = format!("Cookie: perennial={token}\r\n");
        let page = self.ask("GET", "/box", &line, b"").is(200).text();
        let behind =
            page.split("name=\"token\" content=\"").nth(1).expect("its pages have a token");
        let form_token = behind.split('"').next().expect("it ends").to_owned();
        Owner { token, form_token }
    }

    /// What a share is called in addresses, once it has been hashed.
    fn hash_of(&self, name: &str) -> String {
        digits(&self.share(name).info_hash)
    }

    fn share(&self, name: &str) -> Share {
        self.program.wait_for_share(name)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.page)
    }

    /// A path in its folder.
    fn shared(&self, name: &str) -> PathBuf {
        self.home.path().join("shared").join(name)
    }
}

/// A browser that has brought the secret.
struct Owner {
    token: String,
    /// What stands in the forms of its pages.
    form_token: String,
}

impl Owner {
    fn cookie_line(&self) -> String {
        format!("Cookie: perennial={}\r\n", self.token)
    }

    /// As a program brings it.
    fn bearer_line(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }
}

/// Bytes that are like no others.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    prng::Prng::new(seed).fill(&mut bytes);
    bytes
}

/// Runs another program to its end.
fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The same, when it has to succeed; what it said.
#[track_caller]
fn run_well(command: &mut Command) -> Vec<u8> {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output.stdout
}
