//! A bencode reader for files larger than memory: tokens through a window of a few KiB.
//!
//! [`Scanner`] refills its window from a [`Source`] as it goes. Strings are given whole only when
//! they fit [`SHORT_STRING_MAX`]; longer ones (`pieces`) are passed over and only their place is
//! told, so the cost in memory is the window whatever the file says. Nesting is counted, not
//! recursed into.

use super::super::bencode::{parse_integer, string_head};
use super::super::limits::{BENCODE_DEPTH_MAX, NAME_BYTES_MAX};
use super::super::units::Span;
use super::{MetainfoError, wrong};

/// Bytes at rest that can be read anywhere: a file, a card, flash.
pub trait Source {
    /// What may go wrong.
    type Error;

    /// Reads at `at` as much as there is and fits; 0 only at the end.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error>;
}

/// Bytes in memory are a source too.
impl Source for &[u8] {
    type Error = core::convert::Infallible;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// One step through the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// An integer.
    Integer(i64),
    /// A byte string: where its bytes stand.
    String(Span),
    /// A list opens.
    List,
    /// A dictionary opens.
    Dictionary,
    /// The innermost list or dictionary closes.
    End,
}

/// A place in a bencoded file, and a window on what follows it.
pub struct Scanner<'s, S> {
    source: &'s mut S,
    window: &'s mut [u8],
    /// Offset of the window's first byte in the file.
    base: u64,
    /// How much of the window is filled, and where in it we stand.
    filled: usize,
    at: usize,
}

impl<'s, S: Source> Scanner<'s, S> {
    /// A scanner at the front of `source`. The window must hold a short string twice over.
    pub fn new(source: &'s mut S, window: &'s mut [u8]) -> Self {
        assert!(window.len() >= SHORT_STRING_MAX + DIGITS_MAX, "the window is too small");
        Scanner { source, window, base: 0, filled: 0, at: 0 }
    }

    /// Where the next token stands.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Goes to another place.
    pub fn seek(&mut self, at: u64) {
        let inside = at.checked_sub(self.base).filter(|ahead| *ahead <= self.filled as u64);
        match inside {
            Some(ahead) => self.at = ahead as usize,
            None => (self.base, self.filled, self.at) = (at, 0, 0),
        }
    }

    /// The next token; a string is passed over.
    pub fn token(&mut self, key: &'static str) -> Result<Token, MetainfoError<S::Error>> {
        let at = self.offset();
        let ahead = self.ahead(DIGITS_MAX)?;
        let token = match ahead.first() {
            None => return wrong(at, key, "the file ends in the middle of a value"),
            Some(b'l') => Token::List,
            Some(b'd') => Token::Dictionary,
            Some(b'e') => Token::End,
            Some(b'i') => {
                let Some(digits) = ahead.iter().position(|byte| *byte == b'e') else {
                    return wrong(at, key, "an integer without its end");
                };
                let number = parse_integer(&ahead[1..digits]);
                self.at += digits + 1;
                return number.map(Token::Integer).or_else(|what| wrong(at, key, what));
            }
            Some(_) => {
                let (head, length) = match string_head(ahead) {
                    Ok((head, length)) => (head as u64, length),
                    Err(what) => return wrong(at, key, what),
                };
                let span = Span { at: at + head, length };
                if length > i64::MAX as u64 - at - head {
                    return wrong(at, key, "a string longer than any file");
                }
                self.seek(span.end());
                return Ok(Token::String(span));
            }
        };
        self.at += 1;
        Ok(token)
    }

    /// A string given whole: at most [`SHORT_STRING_MAX`] bytes.
    pub fn short_string(&mut self, key: &'static str) -> Result<&[u8], MetainfoError<S::Error>> {
        let at = self.offset();
        let Token::String(span) = self.token(key)? else { return wrong(at, key, "is no string") };
        if span.length > SHORT_STRING_MAX as u64 {
            return wrong(at, key, "is too long");
        }
        self.seek(span.at);
        let length = span.length as usize;
        if self.ahead(length)?.len() < length {
            return wrong(at, key, "is longer than the file");
        }
        self.at += length;
        Ok(&self.window[self.at - length..self.at])
    }

    /// Where a string of any length stands, checked to lie inside the file.
    pub fn string_span(&mut self, key: &'static str) -> Result<Span, MetainfoError<S::Error>> {
        let at = self.offset();
        let Token::String(span) = self.token(key)? else { return wrong(at, key, "is no string") };
        if span.length > 0 {
            self.seek(span.end() - 1);
            if self.ahead(1)?.is_empty() {
                return wrong(at, key, "is longer than the file");
            }
            self.at += 1;
        }
        Ok(span)
    }

    /// Fills `into` with what stands at `at`, and goes on behind it.
    pub fn copy(
        &mut self,
        at: u64,
        into: &mut [u8],
        key: &'static str,
    ) -> Result<(), MetainfoError<S::Error>> {
        self.seek(at);
        for part in into.chunks_mut(SHORT_STRING_MAX) {
            let ahead = self.ahead(part.len())?;
            let Some(whole) = ahead.get(..part.len()) else {
                return wrong(at, key, "is longer than the file");
            };
            part.copy_from_slice(whole);
            self.at += part.len();
        }
        Ok(())
    }

    /// Opens a dictionary.
    pub fn expect_dictionary(&mut self, key: &'static str) -> Result<(), MetainfoError<S::Error>> {
        let at = self.offset();
        match self.token(key)? {
            Token::Dictionary => Ok(()),
            _ => wrong(at, key, "is not a dictionary"),
        }
    }

    /// Opens a list.
    pub fn expect_list(&mut self, key: &'static str) -> Result<(), MetainfoError<S::Error>> {
        let at = self.offset();
        match self.token(key)? {
            Token::List => Ok(()),
            _ => wrong(at, key, "is not a list"),
        }
    }

    /// The next key of the dictionary we are in, `None` once it has closed. A key too long to be
    /// one that matters comes as an empty one.
    pub fn next_key(
        &mut self,
        key: &'static str,
    ) -> Result<Option<&[u8]>, MetainfoError<S::Error>> {
        let at = self.offset();
        match self.token(key)? {
            Token::End => Ok(None),
            Token::String(span) if span.length <= KEY_BYTES_MAX => {
                self.seek(at);
                self.short_string(key).map(Some)
            }
            Token::String(_) => Ok(Some(b"")),
            _ => wrong(at, key, "holds a dictionary key that is no string"),
        }
    }

    /// Where the next value of the list we are in stands, `None` once the list has closed.
    pub fn next_item(&mut self) -> Result<Option<u64>, MetainfoError<S::Error>> {
        let at = self.offset();
        if self.ahead(1)?.first() == Some(&b'e') {
            self.at += 1;
            return Ok(None);
        }
        Ok(Some(at))
    }

    /// Whether a list opens here.
    pub fn at_list_start(&mut self) -> bool {
        matches!(self.ahead(1), Ok([b'l', ..]))
    }

    /// Passes over one value, whatever it holds.
    pub fn skip_value(&mut self, key: &'static str) -> Result<(), MetainfoError<S::Error>> {
        let mut depth = 0;
        loop {
            let at = self.offset();
            match self.token(key)? {
                Token::List | Token::Dictionary => depth += 1,
                Token::End if depth == 0 => return wrong(at, key, "an end that closes nothing"),
                Token::End => depth -= 1,
                Token::Integer(_) | Token::String(_) => {}
            }
            if depth > BENCODE_DEPTH_MAX {
                return wrong(at, key, "nested too deeply");
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Checks that nothing follows, but for the newline some programs leave.
    pub fn expect_end_of_file(&mut self) -> Result<(), MetainfoError<S::Error>> {
        let at = self.offset();
        match self.ahead(3)? {
            b"" | b"\n" | b"\r\n" => Ok(()),
            _ => wrong(at, "the file", "goes on after its end"),
        }
    }

    /// At least `length` bytes from here on, fewer only at the end of the file.
    fn ahead(&mut self, length: usize) -> Result<&[u8], MetainfoError<S::Error>> {
        if self.filled - self.at < length {
            self.window.copy_within(self.at..self.filled, 0);
            self.base += self.at as u64;
            self.filled -= self.at;
            self.at = 0;
            while self.filled < length {
                let read = self
                    .source
                    .read_at(self.base + self.filled as u64, &mut self.window[self.filled..])
                    .map_err(MetainfoError::Read)?;
                if read == 0 {
                    break;
                }
                self.filled += read;
            }
        }
        Ok(&self.window[self.at..self.filled])
    }
}

/// A string longer than this is not given whole: no name is.
pub const SHORT_STRING_MAX: usize = NAME_BYTES_MAX;

/// `i`, a sign, 20 digits and the end.
const DIGITS_MAX: usize = 24;

/// The longest key we know is `piece length`.
const KEY_BYTES_MAX: u64 = 32;
