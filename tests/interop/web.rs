//! Debian's nginx as a web seed (BEP 19), for our own program.
//!
//! Its addresses are public ones as far as anybody here can tell, so that the URL may stand in a
//! torrent. It logs each request, and may be told to be slow.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::hosts::Host;
use crate::process::{Process, program};

/// A running nginx.
pub struct Nginx {
    pub process: Process,
    requests: PathBuf,
}

impl Nginx {
    /// Serves `folder` under `/pub/`, and sends whoever asks under `/away/` on to `away`.
    pub fn start(host: &Host, folder: &Path, rate: &str, away: &str) -> Nginx {
        let listen: String = host
            .addresses()
            .into_iter()
            .map(|ip| format!("listen {};\n", SocketAddr::new(ip, PORT)))
            .collect();
        let (home, folder) = (host.home().display(), folder.display());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .into_iter()
            .map(|what| format!("{what}_temp_path \"{home}/{what}\";\n"))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid \"{home}/nginx.pid\";\n\
             error_log \"{home}/nginx.errors\";\nevents {{ worker_connections 64; }}\n\
             http {{\nlog_format range '$status $request_uri $http_range';\n\
             access_log \"{home}/requests\" range;\n{temporary}sendfile on;\n\
             server {{\n{listen}limit_rate {rate};\n\
             location /pub/ {{ alias \"{folder}/\"; }}\n\
             location /away/ {{ return 302 {away}; }}\n}}\n}}\n"
        );
        let path = host.home().join("nginx.conf");
        fs::write(&path, config).expect("the test's own folder is writable");
        let mut command = program("nginx");
        command.arg("-c").arg(path).arg("-e").arg(host.home().join("nginx.errors"));
        let process = Process::start(host, &mut command);
        let process = process.also_logs_to(host.home().join("nginx.errors"));
        Nginx { process, requests: host.home().join("requests") }
    }

    /// Its URLs below `path`, one for each address of `host`.
    pub fn urls(host: &Host, path: &str) -> Vec<String> {
        let url = |ip| format!("http://{}{path}", SocketAddr::new(ip, PORT));
        host.addresses().into_iter().map(url).collect()
    }

    /// The requests it has answered: status, target and range.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.requests).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

/// A copy of a torrent, in the home of `host`, that names web seeds.
pub fn naming(host: &Host, torrent: &Path, urls: &[String]) -> PathBuf {
    let mut bytes = fs::read(torrent).expect("our program has written it");
    assert_eq!(bytes.pop(), Some(b'e'), "a torrent is a dictionary");
    let list: String = urls.iter().map(|url| format!("{}:{url}", url.len())).collect();
    // Sorted: it comes behind `info`.
    bytes.extend_from_slice(format!("8:url-listl{list}ee").as_bytes());
    let path = host.home().join("naming.torrent");
    fs::write(&path, bytes).expect("the test's own folder is writable");
    path
}

/// Our program, fetching a torrent into a folder of `host` until all of it is there.
pub fn get(host: &Host, torrent: &Path, options: &[&str]) -> (Process, PathBuf) {
    let downloads = host.home().join("downloads");
    let mut command = program(env!("CARGO_BIN_EXE_perennial"));
    command.arg("get").arg(torrent).arg("-o").arg(&downloads).arg("--exit").args(options);
    command.arg("--state").arg(host.home().join("state"));
    (Process::start(host, &mut command), downloads)
}

/// Where nginx listens.
const PORT: u16 = 8080;
