//! What routers write in XML, as far as it is read: elements with text in them.
//!
//! A scan from front to back, without a tree. Routers send XML with unclosed elements, stray `&`s
//! and wrong encodings, which a strict reader refuses and nobody else minds; all that is looked for
//! are a few elements whose content is one piece of text. So names lose their prefix, attributes,
//! comments, declarations and empty elements are passed over, and nothing has to be closed.
//!
//! # Work
//! Each step takes at least one byte: a scan is over after as many steps as there are bytes, and
//! nothing nests.

use std::string::String;

/// What a scan comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'x> {
    /// An element begins; its name without a prefix.
    Open(&'x [u8]),
    /// It ends.
    Close(&'x [u8]),
    /// Text between two of these, without blanks around it, never empty.
    Text(&'x [u8]),
}

/// A scan over bytes that should be XML.
#[derive(Clone, Debug)]
pub struct Scan<'x> {
    rest: &'x [u8],
}

impl<'x> Scan<'x> {
    /// From the front.
    pub fn new(bytes: &'x [u8]) -> Scan<'x> {
        Scan { rest: bytes }
    }

    /// The text of the first element of that name that has any.
    pub fn text_of(mut self, name: &str) -> Option<String> {
        let mut is_inside = false;
        self.find_map(|event| match event {
            Event::Text(text) if is_inside => value(text),
            Event::Text(_) => None,
            Event::Open(found) => {
                is_inside = found == name.as_bytes();
                None
            }
            Event::Close(_) => {
                is_inside = false;
                None
            }
        })
    }

    /// Splits the rest behind the first `end`; without one, all of it is taken.
    fn take_through(&mut self, end: &[u8]) -> &'x [u8] {
        let at = self.rest.windows(end.len()).position(|bytes| bytes == end);
        let (taken, rest) = match at {
            Some(at) => (&self.rest[..at], &self.rest[at + end.len()..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        taken
    }

    /// The same behind a tag's `>`: one in quotes belongs to an attribute.
    fn take_tag(&mut self) -> &'x [u8] {
        let mut quote = None;
        let end = self.rest.iter().position(|byte| match (quote, byte) {
            (None, b'>') => true,
            (None, b'"' | b'\'') => {
                quote = Some(*byte);
                false
            }
            (Some(open), byte) if open == *byte => {
                quote = None;
                false
            }
            _ => false,
        });
        let end = end.unwrap_or(self.rest.len());
        let tag = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or(&[]);
        tag
    }
}

impl<'x> Iterator for Scan<'x> {
    type Item = Event<'x>;

    fn next(&mut self) -> Option<Event<'x>> {
        while !self.rest.is_empty() {
            if let Some(rest) = self.rest.strip_prefix(b"<!--") {
                self.rest = rest;
                self.take_through(b"-->");
            } else if let Some(rest) = self.rest.strip_prefix(b"<![CDATA[") {
                self.rest = rest;
                let text = self.take_through(b"]]>").trim_ascii();
                if !text.is_empty() {
                    return Some(Event::Text(text));
                }
            } else if let Some(rest) = self.rest.strip_prefix(b"<") {
                self.rest = rest;
                let tag = self.take_tag();
                match tag {
                    [b'?' | b'!', ..] | [.., b'/'] => {}
                    [b'/', name @ ..] => return Some(Event::Close(local(name))),
                    name => return Some(Event::Open(local(name))),
                }
            } else {
                let end = self.rest.iter().position(|byte| *byte == b'<');
                let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                if !text.trim_ascii().is_empty() {
                    return Some(Event::Text(text.trim_ascii()));
                }
            }
        }
        None
    }
}

/// Text as it is meant; none that is longer than anything we look for, or no UTF-8.
pub fn value(text: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(text).ok().filter(|text| text.len() <= VALUE_BYTES_MAX)?;
    let mut meant = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        meant.push_str(before);
        let entity =
            ENTITIES.iter().find_map(|(name, char)| Some((after.strip_prefix(name)?, char)));
        let (after, char) = entity.unwrap_or((after, &'&'));
        meant.push(*char);
        rest = after;
    }
    meant.push_str(rest);
    Some(meant)
}

/// The name a tag begins with, without its prefix.
fn local(tag: &[u8]) -> &[u8] {
    let name = tag.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    name.rsplit(|byte| *byte == b':').next().unwrap_or_default()
}

/// The five that XML knows without being told, behind their `&`.
const ENTITIES: [(&str, char); 5] =
    [("amp;", '&'), ("lt;", '<'), ("gt;", '>'), ("quot;", '"'), ("apos;", '\'')];

/// No URL or type of a service is longer.
const VALUE_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn elements_and_their_text_are_found_and_the_rest_is_passed_over() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!DOCTYPE x [ <!ENTITY y 'z'> ]>\n\
            <s:a x=\"1>2\" y='\"'> <!-- <no> --> <b/> <c d='/'>one &amp; two</c>\
            <![CDATA[ <raw> ]]></s:a >";
        let events: Vec<Event<'_>> = Scan::new(xml).collect();
        let wanted = [
            Event::Text(b"\xef\xbb\xbf"),
            // What a document type declares is not understood, and does no harm.
            Event::Text(b"]>"),
            Event::Open(b"a"),
            Event::Open(b"c"),
            Event::Text(b"one &amp; two"),
            Event::Close(b"c"),
            Event::Text(b"<raw>"),
            Event::Close(b"a"),
        ];
        assert_eq!(events, wanted);
        assert_eq!(Scan::new(xml).text_of("c").as_deref(), Some("one & two"));
        assert_eq!(Scan::new(xml).text_of("a"), None);
    }

    #[test]
    fn values_are_unescaped_and_bounded() {
        assert_eq!(value(b"&lt;a&gt; &quot;&apos; &amp;lt; & &x;").unwrap(), "<a> \"' &lt; & &x;");
        assert!(value(&[b'x'; VALUE_BYTES_MAX]).is_some());
        assert!(value(&[b'x'; VALUE_BYTES_MAX + 1]).is_none());
        assert!(value(b"\xff").is_none());
    }

    #[test]
    fn what_is_cut_off_ends_the_scan() {
        let xml = b"<a b='c'>d<!-- e --><![CDATA[ f ]]></a>";
        for length in 0..xml.len() {
            assert!(Scan::new(&xml[..length]).count() <= 4, "{length} bytes");
        }
    }
}
