//! What a web seed calls the files of a torrent (BEP 19).
//!
//! ```text
//! one file      http://w/film.mkv                   as it is
//!               http://w/pub/                       and the torrent's name
//! many files    http://w/pub  or  http://w/pub/     and its name, and the path in it
//! ```
//!
//! Names go into the URL as they stand in the torrent, byte by byte, not as they are on our disk.

use crate::engine::library::ExtentMap;
use crate::engine::metainfo::MetainfoError;
use crate::engine::metainfo::scan::Scanner;
use crate::engine::metainfo::web_seeds;
use crate::engine::units::Span;
use crate::service::content::{Content, FileSource};
use crate::service::http::follow::HttpUrl;
use crate::service::known::WINDOW_BYTES;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::io;
use std::string::{String, ToString};
use std::vec::Vec;

/// A file of a torrent, on the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which bytes of the content it holds.
    pub span: Span,
    /// It holds nothing but zeros, and no server has it.
    pub padding: bool,
    /// What is added to the torrent's own URL: empty when the torrent is one file.
    pub path: String,
}

impl Place {
    /// The file that holds byte `at`. Reads it from the `.torrent`: that may sleep.
    pub fn find(content: &Content, at: u64) -> io::Result<Place> {
        let mut source = FileSource(&content.extents);
        let found = ExtentMap::new(&mut source, content.file_count).find(at)?;
        let (_, extent) = found.ok_or_else(|| io::Error::other("the extent map is cut short"))?;
        let mut path = String::new();
        if extent.path_at != 0 && !extent.padding {
            write_path(content, content.info.at + extent.path_at, &mut path)?;
        }
        Ok(Place { span: extent.span, padding: extent.padding, path })
    }
}

/// Writes the names of the `path` list at `at`, each with a slash before it.
fn write_path(content: &Content, at: u64, path: &mut String) -> io::Result<()> {
    let (mut source, mut window) = (FileSource(&content.metainfo), [0; PATH_WINDOW_BYTES]);
    let mut scanner = Scanner::new(&mut source, &mut window);
    scanner.seek(at);
    scanner.expect_list("path").map_err(unreadable)?;
    while scanner.next_item().map_err(unreadable)?.is_some() {
        let name = scanner.short_string("path").map_err(unreadable)?;
        // On the web these two are no names, however they are written.
        if matches!(name, b"." | b"..") {
            return Err(io::Error::other("a file has a name that no URL can hold"));
        }
        path.push('/');
        path.extend(percent_encode(name, PLAIN));
    }
    Ok(())
}

fn unreadable(error: MetainfoError<io::Error>) -> io::Error {
    match error {
        MetainfoError::Read(error) => error,
        wrong => io::Error::other(wrong.to_string()),
    }
}

/// What a torrent says of the web.
pub struct OnTheWeb {
    /// Its name, percent-encoded.
    name: String,
    /// It is one file.
    is_file: bool,
    /// What stands under `url-list`.
    pub urls: Vec<String>,
}

impl OnTheWeb {
    /// Reads it from the `.torrent`: that may sleep.
    pub fn read(content: &Content) -> Result<OnTheWeb, MetainfoError<io::Error>> {
        let (mut source, mut window) = (FileSource(&content.metainfo), std::vec![0; WINDOW_BYTES]);
        let mut found = OnTheWeb { name: String::new(), is_file: true, urls: Vec::new() };
        let mut scanner = Scanner::new(&mut source, &mut window);
        scanner.seek(content.info.at);
        scanner.expect_dictionary("info")?;
        while let Some(key) = scanner.next_key("info")? {
            match key {
                // Keys are sorted: the name known to be UTF-8 is the later one.
                b"name" | b"name.utf-8" => {
                    let name = scanner.short_string("name")?;
                    found.name = percent_encode(name, PLAIN).to_string();
                }
                b"files" => {
                    found.is_file = false;
                    scanner.skip_value("files")?;
                }
                _ => scanner.skip_value("info")?,
            }
        }
        let mut visit = |url: &[u8]| {
            found.urls.extend(core::str::from_utf8(url).map(ToString::to_string));
        };
        web_seeds::read(&mut source, &mut window, &mut visit)?;
        Ok(found)
    }

    /// The torrent's own URL at a web seed: what a [`Place`]'s path is added to. `None` when there
    /// is no such.
    pub fn at(&self, seed: &HttpUrl) -> Option<HttpUrl> {
        let path = seed.path();
        let is_folder = path.ends_with('/');
        if self.is_file && !is_folder {
            return Some(seed.clone());
        }
        if matches!(self.name.as_str(), "" | "." | "..") {
            return None;
        }
        let slash = if is_folder { "" } else { "/" };
        seed.with_path(&std::format!("{path}{slash}{}", self.name))
    }
}

/// What may stand in a path as it is (RFC 3986, section 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a path is read through.
const PATH_WINDOW_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::follow::parse_http_url;

    #[test]
    fn the_name_is_added_where_bep_19_says_so() {
        let at = |name: &str, is_file, seed: &str| {
            let torrent = OnTheWeb { name: name.into(), is_file, urls: Vec::new() };
            torrent.at(&parse_http_url(seed).unwrap()).map(|url| url.as_str().to_string())
        };
        let table = [
            ("film.mkv", true, "http://w/other?k=v", Some("http://w/other?k=v")),
            ("film.mkv", true, "http://w", Some("http://w/film.mkv")),
            ("a%20b", true, "http://w/pub/", Some("http://w/pub/a%20b")),
            ("series", false, "http://w/pub/", Some("http://w/pub/series")),
            ("series", false, "http://w/pub", Some("http://w/pub/series")),
            ("a%2Fb%23", false, "http://w/%C3%A4/", Some("http://w/%C3%A4/a%2Fb%23")),
            ("..", false, "http://w/pub/", None),
            ("", true, "http://w/pub/", None),
        ];
        for (name, is_file, seed, wanted) in table {
            assert_eq!(at(name, is_file, seed).as_deref(), wanted, "{name} at {seed}");
        }
    }
}
