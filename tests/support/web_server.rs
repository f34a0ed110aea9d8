//! A web server that follows a script: it gives files, whole and in parts, or fails at it in the
//! way it was told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How a server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manners {
    /// As servers do.
    Good,
    /// It gives so many bytes of each answer and hangs up.
    Cut(usize),
    /// It sends 16 KiB, and rests so long.
    Slow(Duration),
    /// One byte in each KiB is another one.
    Corrupt,
    /// It has never heard of ranges.
    Whole,
    /// It says that each file is so many bytes longer than it is.
    Longer(u64),
    /// It gives the part behind the one it was asked for.
    Beside,
    /// It answers that, and nothing else.
    Status(u16),
    /// It sends everybody on to another server.
    Elsewhere(String),
}

/// One request, as it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The target, percent-encoded.
    pub target: String,
    /// First and last byte asked for.
    pub range: Option<(u64, u64)>,
}

/// A server on a port of loopback, for as long as the test runs.
pub struct WebServer {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicU32>,
}

impl WebServer {
    /// Serves `files`, each under its path on the web.
    pub fn start(files: BTreeMap<String, Vec<u8>>, manners: Manners) -> WebServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it listens");
        let server = WebServer { address, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (Arc::clone(&server.heard), Arc::clone(&server.connections));
        let (files, manners) = (Arc::new(files), Arc::new(manners));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (files, manners) = (Arc::clone(&files), Arc::clone(&manners));
                let heard = Arc::clone(&heard);
                // Whoever is served may hang up at any time.
                thread::spawn(move || serve(&stream, &files, &manners, &heard));
            }
        });
        server
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no thread panics with it").clone()
    }

    /// How many connections it was asked over.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(
    stream: &TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    manners: &Manners,
    heard: &Mutex<Vec<Heard>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let request = read_request(&mut reader)?;
        heard.lock().ok()?.push(request.clone());
        let mut out = stream;
        match manners {
            Manners::Status(status) => {
                let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno");
                out.write_all(head.as_bytes()).ok()?;
                continue;
            }
            Manners::Elsewhere(base) => {
                let location = format!("{base}{}", request.target);
                let head = format!(
                    "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                );
                out.write_all(head.as_bytes()).ok()?;
                continue;
            }
            _ => {}
        }
        let Some(file) = files.get(&request.target) else {
            out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        give(out, file, &request, manners)?;
        if matches!(manners, Manners::Cut(_)) {
            return None;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Heard> {
    let (mut target, mut range) = (None, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some(Heard { target: target?, range });
        }
        if target.is_none() {
            target = line.split(' ').nth(1).map(String::from);
        } else if let Some(bytes) = line.strip_prefix("Range: bytes=") {
            let (first, last) = bytes.split_once('-')?;
            range = Some((first.parse().ok()?, last.parse().ok()?));
        }
    }
}

fn give(mut out: &TcpStream, file: &[u8], request: &Heard, manners: &Manners) -> Option<()> {
    let mut whole = file.len() as u64;
    let (mut first, mut last) = (0, whole - 1);
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    if let Some(range) = request.range.filter(|_| *manners != Manners::Whole) {
        (first, last) = range;
        if *manners == Manners::Beside {
            (first, last) = (first + 1, (last + 1).min(whole - 1));
        }
        if let Manners::Longer(bytes) = manners {
            whole += bytes;
        }
        head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}\r\n"
        );
    }
    let mut body = file[first as usize..=last as usize].to_vec();
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    out.write_all(head.as_bytes()).ok()?;
    match manners {
        Manners::Corrupt => body.iter_mut().step_by(1024).for_each(|byte| *byte ^= 0x55),
        Manners::Cut(bytes) => body.truncate(*bytes),
        _ => {}
    }
    match manners {
        Manners::Slow(rest) => {
            for part in body.chunks(16_384) {
                out.write_all(part).ok()?;
                thread::sleep(*rest);
            }
            Some(())
        }
        _ => out.write_all(&body).ok(),
    }
}
