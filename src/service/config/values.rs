//! Values in a configuration file, as people write them.
//!
//! Each function says what is wrong in one sentence, with a remedy behind a semicolon where an
//! example of the key would not be enough.

use super::Reserve;
use crate::service::options::DhtOptions;
use crate::service::units;
use log::LevelFilter;
use std::format;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};
use std::string::{String, ToString};

/// A name for people, which other boxes can be told too: a label of DNS-SD holds 63 bytes (RFC 6763,
/// section 4.1.1).
pub fn parse_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("is empty".to_string()),
        name if name.len() > NAME_BYTES_MAX => {
            Err(format!("has more than {NAME_BYTES_MAX} bytes; write a shorter one"))
        }
        name if name.contains(char::is_control) => Err("has control characters".to_string()),
        name => Ok(name.to_string()),
    }
}

/// What a machine is called on the network (RFC 1123, 2.1).
pub fn parse_host(text: &str) -> Result<String, String> {
    let host = text.trim().trim_end_matches('.');
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_plain)
    };
    if host.len() <= 253 && host.split('.').all(is_label) {
        return Ok(host.to_string());
    }
    let remedy = "write one like films.example.org, without http:// before and a port behind it";
    Err(format!("`{text}` is no name of a machine; {remedy}"))
}

/// A path that leads to the same place from everywhere, in its shortest form.
pub fn parse_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if text.contains('\0') {
        return Err("has a zero byte in it".to_string());
    }
    if !path.is_absolute() {
        return Err(format!("`{text}` does not begin with /; write the whole path, from / on"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("`{text}` goes up again with `..`; write the path without it"));
    }
    let path: PathBuf = path.components().collect();
    match path.parent() {
        None => Err("is all there is; name a folder in it".to_string()),
        Some(_) => Ok(path),
    }
}

/// Where to listen; nothing when it is left to us.
pub fn parse_listen(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "auto" => Ok(None),
        text => {
            let address = text.parse().map(Some);
            address.map_err(|_| format!("`{text}` is no address with a port"))
        }
    }
}

/// How to take part in the DHT, with no entries yet.
pub fn parse_dht(text: &str) -> Result<DhtOptions, String> {
    let (off, read_only) = match text {
        "on" => (false, false),
        "off" => (true, false),
        "read-only" => (false, true),
        _ => {
            let problem = format!("`{text}` is no way to take part in it");
            return Err(format!("{problem}; write \"on\", \"off\" or \"read-only\""));
        }
    };
    Ok(DhtOptions { off, read_only, entries: Default::default() })
}

/// A piece length; nothing when it is left to us.
pub fn parse_piece_bytes(text: &str) -> Result<Option<u32>, String> {
    match text {
        "auto" => Ok(None),
        text => units::parse_piece_bytes(text).map(Some).map_err(|problem| {
            format!("`{text}` is {problem}; write \"auto\", or a length such as \"256K\"")
        }),
    }
}

/// Room to leave free.
pub fn parse_reserve(text: &str) -> Result<Reserve, String> {
    if text == "auto" {
        return Ok(Reserve::Auto);
    }
    let Some(percent) = text.strip_suffix('%') else {
        return units::parse_size(text).map(Reserve::Bytes);
    };
    let percent = percent.trim().parse().ok().filter(|percent| *percent <= PERCENT_MAX);
    percent.map(Reserve::Percent).ok_or_else(|| {
        format!("`{text}` is no part of a disk; write a whole number from 0% to {PERCENT_MAX}%")
    })
}

/// How much to say.
pub fn parse_level(text: &str) -> Result<LevelFilter, String> {
    let levels = LevelFilter::iter().filter(|level| *level != LevelFilter::Off);
    let mut named = levels.filter(|level| level.as_str().to_lowercase() == text);
    named.next().ok_or_else(|| {
        let problem = format!("`{text}` is no level");
        format!("{problem}; write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"")
    })
}

/// A label of DNS-SD.
const NAME_BYTES_MAX: usize = 63;

/// With more left free nothing would ever be fetched.
const PERCENT_MAX: u8 = 90;
