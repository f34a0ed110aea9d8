//! A `.torrent` brought from where the owner says it is on the web.
//!
//! It goes into a file in parts, as it comes, and is read from there like any other; what the
//! owner is told when it does not come says what would help.
//!
//! Journey 3 begins here when a link is a URL: `main` -> here -> [`open`](super::open).

use crate::service::Refusal;
use crate::service::http::HttpError;
use crate::service::http::follow::parse_http_url;
use crate::service::http::follow::{Errand, FollowError, HttpUrl, Visitor, Ways, within};
use crate::service::lanes::{Done, Job, Lanes};
use crate::service::state::refused;
use async_io::Timer;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

/// Whether a link is the URL of something on the web.
pub fn is_url(link: &str) -> bool {
    let begins =
        |scheme: &str| link.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    begins("http://") || begins("https://")
}

/// Brings the `.torrent` at `link`, which the owner gave, into the file at `path`. What lay there is
/// written over; what could not be brought whole is removed.
pub async fn download(lanes: &Lanes, link: &str, path: &Path) -> Result<(), Refusal> {
    let url = parse_http_url(link);
    let url = url.map_err(|what| Refusal::new(link, what, "check the address"))?;
    let ways = BeforeService { lanes };
    let late = async {
        ways.sleep(WHOLE_MS).await;
        Err(not_brought(&url, &FollowError::TimedOut))
    };
    let outcome = smol::future::or(bring(&ways, &url, path), late).await;
    if outcome.is_err() {
        // There is none, or it is written over next time.
        let _ = std::fs::remove_file(path);
    }
    outcome
}

async fn bring<W: Ways>(ways: &W, url: &HttpUrl, path: &Path) -> Result<(), Refusal> {
    let (mut visitor, failed) = (Visitor::default(), |error| not_brought(url, &error));
    let errand =
        Errand { from_owner: true, range: None, bytes_max: TORRENT_BYTES_MAX, window_bytes: None };
    let answer = visitor.open(ways, url, &errand).await.map_err(failed)?;
    if answer.status != 200 {
        let problem = std::format!("answers {}", answer.status);
        let remedy = match answer.status {
            401 | 403 => "fetch it with a browser that is logged in, and give the file",
            429 | 500.. => "try again later",
            _ => "check the address",
        };
        return Err(Refusal::new(url, problem, remedy));
    }
    let not_written = |error| refused(path, error);
    let mut file = File::create(path).map_err(not_written)?;
    let (mut part, mut is_first) = (std::vec![0; PART_BYTES], true);
    loop {
        let read = visitor.client.read(&mut part);
        let read = async { read.await.map_err(FollowError::Http) };
        let read = within(ways, SILENCE_MS, read).await.map_err(failed)?;
        // Every `.torrent` is a dictionary; a page about one is not.
        if is_first && part.first().filter(|_| read > 0) != Some(&b'd') {
            let remedy = "check the address: it may be that of a page about the torrent";
            return Err(Refusal::new(url, "is no .torrent", remedy));
        }
        if read == 0 {
            return file.flush().map_err(not_written);
        }
        file.write_all(&part[..read]).map_err(not_written)?;
        is_first = false;
    }
}

/// Why it was not brought, as the owner is told.
fn not_brought(url: &HttpUrl, error: &FollowError) -> Refusal {
    let remedy = match error {
        FollowError::Http(HttpError::TooLong(_)) => "no .torrent is that long: check the address",
        FollowError::Http(HttpError::Foreign(_)) => "check the address and its port",
        FollowError::Http(HttpError::TlsNotBuilt) => "give an http address, or the file itself",
        FollowError::Http(HttpError::Tls(_)) => "check the address and this machine's clock",
        FollowError::LookUp(_) => "check the spelling and this machine's name server",
        FollowError::NoAddress | FollowError::Redirect(_) => {
            "fetch it with a browser and give the file"
        }
        FollowError::TimedOut | FollowError::Http(_) => "try again later, or check the address",
    };
    Refusal::new(url, error.to_string(), remedy)
}

/// All of a `.torrent` comes within this, or is not waited for.
const WHOLE_MS: u64 = 300_000;

/// Names and time before serving begins: there is no one clock yet.
struct BeforeService<'l> {
    lanes: &'l Lanes,
}

impl Ways for BeforeService<'_> {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.lanes.run(Job::Resolve { host: host.to_string(), port }).await {
            Some(Done::Resolve(found)) => found,
            _ => Err(io::Error::other("every lane is taken")),
        }
    }

    async fn sleep(&self, ms: u64) {
        Timer::after(Duration::from_millis(ms)).await;
    }

    fn admits(&self, _: IpAddr) -> bool {
        true
    }
}

/// The largest known are a few MiB: four million pieces and a million names would be 120.
pub const TORRENT_BYTES_MAX: u64 = 64 << 20;

/// What is read and written at a time.
const PART_BYTES: usize = 16 * 1024;

/// Silence after which it is given up.
const SILENCE_MS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::lanes::LaneSizes;
    use std::format;
    use std::io::Read;
    use std::net::TcpListener;
    use std::string::String;
    use std::thread;

    /// Serves each connection one of these answers; `PORT` in one is the server's own. What it was
    /// asked comes back.
    fn served(answers: &[&str]) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port().to_string();
        let answers: Vec<String> =
            answers.iter().map(|answer| answer.replace("PORT", &port)).collect();
        let thread = thread::spawn(move || {
            let serve = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut asked, mut room) = (Vec::new(), [0; 1024]);
                while !asked.ends_with(b"\r\n\r\n") {
                    let read = stream.read(&mut room).unwrap();
                    asked.extend_from_slice(&room[..read]);
                }
                // It may have heard enough already.
                let _ = stream.write_all(answer.as_bytes());
                String::from_utf8_lossy(&asked).into_owned()
            };
            answers.into_iter().map(serve).collect()
        });
        (address, thread)
    }

    fn outcome(answers: &[&str]) -> (Result<Vec<u8>, String>, Vec<String>) {
        let sizes = LaneSizes {
            lanes: 1,
            stack_bytes: 256 * 1024,
            scratch_bytes: 0,
            buffers: 0,
            buffer_bytes: 0,
            jobs_max: 1,
        };
        let (lanes, (address, thread)) = (Lanes::start(sizes).unwrap(), served(answers));
        let name = format!("perennial-download-{}-{}", std::process::id(), address.port());
        let path = std::env::temp_dir().join(name);
        let link = format!("http://127.0.0.1:{}/x.torrent?key", address.port());
        let outcome = smol::block_on(download(&lanes, &link, &path));
        let asked = thread.join().unwrap();
        let brought = outcome.map(|()| std::fs::read(&path).unwrap());
        assert_eq!(path.exists(), brought.is_ok(), "what is not whole is removed");
        let _ = std::fs::remove_file(&path);
        let said = |error: Refusal| error.to_string().replace(&address.to_string(), "HERE");
        (brought.map_err(said), asked)
    }

    #[test]
    fn a_torrent_arrives_whatever_way_it_is_sent() {
        let long = format!("d{}e", "x".repeat(300_000));
        for answer in [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
            format!("HTTP/1.0 200 OK\r\n\r\n{long}"),
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
                long.len()
            ),
        ] {
            let (brought, asked) = outcome(&[&answer]);
            assert!(brought.unwrap() == long.as_bytes());
            assert!(asked[0].starts_with("GET /x.torrent?key HTTP/1.1\r\n"), "{asked:?}");
        }
    }

    #[test]
    fn redirects_are_followed_and_counted() {
        let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:PORT/y\r\n\r\n";
        let (brought, asked) = outcome(&[moved, moved, "HTTP/1.1 200 OK\r\n\r\nde"]);
        assert_eq!(brought.unwrap(), b"de");
        assert!(asked[2].starts_with("GET /y "));
        let (refused, _) = outcome(&[moved; 6]);
        let words = "http://HERE/x.torrent: redirects again and again; fetch it with a browser";
        assert!(refused.clone().unwrap_err().starts_with(words), "{refused:?}");
    }

    #[test]
    fn what_is_no_torrent_is_refused_in_plain_words() {
        let answers = [
            ("HTTP/1.1 404 No\r\n\r\n", "answers 404; check the address"),
            ("HTTP/1.1 403 No\r\n\r\n", "answers 403; fetch it with a browser that"),
            ("HTTP/1.1 503 No\r\n\r\n", "answers 503; try again later"),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", "is no .torrent; check the address: it may be"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "is no .torrent; check the address"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\nd",
                "its answer is longer than the 67108864 bytes we take; no .torrent is that long",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndx",
                "hung up in the middle of its answer; try again later",
            ),
            ("SSH-2.0-x\r\n\r\n", "does not answer in HTTP: its first lines are something else"),
        ];
        for (answer, words) in answers {
            let said = outcome(&[answer]).0.unwrap_err();
            assert!(said.starts_with(&format!("http://HERE/x.torrent: {words}")), "{said}");
        }
    }

    #[test]
    fn links_on_the_web_are_told_from_files() {
        assert!(is_url("http://a/b") && is_url("HTTPS://a/b"));
        assert!(!is_url("http.torrent") && !is_url("magnet:?xt=x") && !is_url("é"));
    }
}
