//! What a TOML file holds, taken out key by key.
//!
//! The `toml` crate reads the grammar and says where each key and value stands; here it is held
//! against what is known: a key nobody takes, a value of another kind, a value that means nothing.
//! Reading goes on after what is wrong, and of all that is wrong the first in the file is told:
//! people mend from the top.

use crate::service::Refusal;
use std::borrow::Cow;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Sections as they are written, the one without a name first, and the keys of each.
pub type Keys = &'static [(&'static str, &'static [&'static str])];

/// A file being read.
pub struct Reader<'t> {
    text: &'t str,
    keys: Keys,
    /// What is wrong first, and where: an offset into the text.
    wrong: Option<(usize, Refusal)>,
    /// How much is wrong.
    wrong_count: usize,
}

/// A section of it: what has not been taken out yet.
pub struct Section<'r, 't> {
    reader: &'r mut Reader<'t>,
    /// As it is written, in its brackets.
    name: &'static str,
    /// Where it begins.
    pub at: usize,
    /// How much was wrong before it.
    wrong_before: usize,
    entries: Vec<(Spanned<DeString<'t>>, Spanned<DeValue<'t>>)>,
}

/// A value and where its key stands.
pub type Placed<T> = (usize, T);

impl<'t> Reader<'t> {
    /// Nothing is wrong with `text` yet.
    pub fn new(text: &'t str, keys: Keys) -> Reader<'t> {
        Reader { text, keys, wrong: None, wrong_count: 0 }
    }

    /// The whole file, empty when its grammar is wrong.
    pub fn top(&mut self) -> Section<'_, 't> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = self.text.lines().nth(self.line(at) - 1).unwrap_or_default();
            let line = format!("`{}`", line.trim());
            let remedy = "mend that line: `perennial config` prints how each key is written";
            self.note(at, Refusal::new(shown(&line), shown(error.message()), remedy));
        });
        let table = table.map(Spanned::into_inner).unwrap_or_default();
        Section::new(self, "", 0, table)
    }

    /// Something is wrong there.
    pub fn note(&mut self, at: usize, refusal: Refusal) {
        self.wrong_count += 1;
        if self.wrong.as_ref().is_none_or(|(first, _)| at < *first) {
            self.wrong = Some((at, refusal));
        }
    }

    /// The line on which an offset lies, from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// What is wrong first in the file of that name, if anything is.
    pub fn refusal(self, name: &str) -> Option<Refusal> {
        let (at, refusal) = self.wrong.as_ref()?;
        Some(refusal.clone().found_at(format!("{name}, line {}", self.line(*at))))
    }

    /// A value that is text in quotes and that `parse` understands.
    fn read_text<T>(
        &mut self,
        key: &str,
        at: usize,
        value: &DeValue<'_>,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.note(at, wrong_kind(key, value, "text in quotes", example));
            return None;
        };
        let parsed = parse(text).map_err(|problem| {
            // Some problems bring their own remedy.
            let (problem, remedy) = match problem.rsplit_once("; ") {
                Some((problem, remedy)) => (problem, shown(remedy)),
                None => (problem.as_str(), written(key, example)),
            };
            self.note(at, Refusal::new(format!("`{key}`"), shown(problem), remedy));
        });
        parsed.ok()
    }

    /// A key of a section that nobody knows, or a section.
    fn note_unknown(&mut self, section: &str, at: usize, key: &str, is_section: bool) {
        let own = self.keys.iter().find(|(name, _)| *name == section);
        let own = own.map_or(&[][..], |(_, keys)| keys);
        let elsewhere = || {
            let mut others = self.keys.iter().filter(|(name, _)| !name.is_empty());
            others.find(|(_, keys)| keys.contains(&key)).map(|(name, _)| name)
        };
        let known = match nearest(own, key) {
            Some(Near::Beginning(known)) => Some(known),
            Some(Near::Spelling(known)) if elsewhere().is_none() => Some(known),
            _ => None,
        };
        let remedy: Cow<'static, str> = match (known, elsewhere()) {
            (Some(known), _) => format!("write {}", self.heading(known)).into(),
            (None, Some(name)) => format!("move it to below {name}").into(),
            (None, None) => {
                "take it out, or look for its name in what `perennial config` prints".into()
            }
        };
        let problem = match section {
            "" if is_section => "is no section".to_string(),
            "" => "is no key outside of sections".to_string(),
            section => format!("is no key of {section}"),
        };
        let key = shown(key);
        let thing = if is_section { format!("[{key}]") } else { format!("`{key}`") };
        self.note(at, Refusal::new(thing, problem, remedy));
    }

    /// A known key as it is written: a section in its brackets.
    fn heading(&self, key: &str) -> String {
        let mut names = self.keys.iter().map(|(name, _)| name);
        let name = names.find(|name| name.trim_matches(BRACKETS) == key);
        name.map_or_else(|| format!("`{key}`"), ToString::to_string)
    }
}

/// What somebody may have meant.
enum Near {
    /// It begins like this.
    Beginning(&'static str),
    /// It is spelled almost like this.
    Spelling(&'static str),
}

/// The known key that is nearest to one that is not, if one is near at all.
fn nearest(known: &[&'static str], key: &str) -> Option<Near> {
    let (lower, letters) = (key.to_lowercase(), key.chars().count());
    if let Some(longer) = known.iter().find(|known| letters > 2 && known.starts_with(&lower)) {
        return Some(Near::Beginning(longer));
    }
    let far = known.iter().map(|known| (strsim::osa_distance(known, &lower), known));
    let near = far.filter(|(distance, _)| *distance <= (letters / 3).max(1));
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| Near::Spelling(known))
}

impl<'r, 't> Section<'r, 't> {
    fn new(
        reader: &'r mut Reader<'t>,
        name: &'static str,
        at: usize,
        table: DeTable<'t>,
    ) -> Section<'r, 't> {
        let wrong_before = reader.wrong_count;
        Section { reader, name, at, wrong_before, entries: table.into_iter().collect() }
    }

    /// Whose problem it is.
    pub fn reader(&mut self) -> &mut Reader<'t> {
        self.reader
    }

    /// A text that `parse` understands; its problem is one sentence and may bring its remedy behind
    /// a semicolon. Otherwise the remedy is to write `example`.
    pub fn text<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.placed(key, example, parse).map(|(_, value)| value)
    }

    /// The same, with its place.
    pub fn placed<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let (at, value) = self.take(key)?;
        let value = self.reader.read_text(key, at, value.get_ref(), example, parse)?;
        Some((at, value))
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let (at, value) = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let refusal = wrong_kind(key, value.get_ref(), "true or false", "true");
            self.reader.note(at, refusal);
        }
        flag
    }

    /// Texts, each of which `parse` understands.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Placed<Vec<T>>> {
        let (at, value) = self.take(key)?;
        let Some(values) = value.get_ref().as_array() else {
            let refusal = wrong_kind(key, value.get_ref(), "a list in [ ]", example);
            self.reader.note(at, refusal);
            return None;
        };
        let mut read = |value: &Spanned<DeValue<'_>>| {
            self.reader.read_text(key, value.span().start, value.get_ref(), example, &parse)
        };
        Some((at, values.iter().filter_map(&mut read).collect()))
    }

    /// A section of its own; empty when there is none.
    pub fn section(&mut self, name: &'static str) -> Section<'_, 't> {
        let key = name.trim_matches(BRACKETS);
        let taken = self.take(key);
        let at = taken.as_ref().map_or(0, |(at, _)| *at);
        let table = match taken.map(|(_, value)| value.into_inner()) {
            None => DeTable::default(),
            Some(DeValue::Table(table)) => table,
            Some(other) => {
                self.reader.note(at, not_a_section(key, &other, name));
                DeTable::default()
            }
        };
        Section::new(self.reader, name, at, table)
    }

    /// As many sections of one name as there are, each handed to `read`.
    pub fn sections<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(Section<'_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let key = name.trim_matches(BRACKETS);
        let Some((at, value)) = self.take(key) else { return Vec::new() };
        let tables = match value.into_inner() {
            DeValue::Array(tables) => tables,
            other => {
                self.reader.note(at, not_a_section(key, &other, name));
                return Vec::new();
            }
        };
        let mut all = Vec::new();
        for table in tables {
            let at = table.span().start;
            match table.into_inner() {
                DeValue::Table(table) => {
                    all.extend(read(Section::new(self.reader, name, at, table)));
                }
                other => self.reader.note(at, not_a_section(key, &other, name)),
            }
        }
        all
    }

    /// All that is known has been taken out: what is left is wrong. Gives whether all was right.
    pub fn end(&mut self) -> bool {
        for (key, value) in std::mem::take(&mut self.entries) {
            let is_section = self.name.is_empty() && !is_plain(value.get_ref());
            self.reader.note_unknown(self.name, key.span().start, key.get_ref(), is_section);
        }
        self.reader.wrong_count == self.wrong_before
    }

    fn take(&mut self, key: &str) -> Option<Placed<Spanned<DeValue<'t>>>> {
        let index = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.entries.swap_remove(index);
        Some((name.span().start, value))
    }
}

/// Whether a value is none of sections.
fn is_plain(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => false,
        DeValue::Array(values) => !values.iter().any(|value| value.get_ref().is_table()),
        _ => true,
    }
}

fn wrong_kind(key: &str, value: &DeValue<'_>, wanted: &str, example: &str) -> Refusal {
    let problem = format!("is {}, and has to be {wanted}", kind(value));
    Refusal::new(format!("`{key}`"), problem, written(key, example))
}

fn not_a_section(key: &str, value: &DeValue<'_>, name: &'static str) -> Refusal {
    let problem = format!("is {}, and has to begin with {name}", kind(value));
    Refusal::new(format!("`{key}`"), problem, format!("write {name}, and its keys below"))
}

fn written(key: &str, example: &str) -> String {
    format!("write {key} = {example}")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// Text of the file on one line that is not too long.
fn shown(text: &str) -> String {
    let line = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    line.take(SHOWN_MAX).collect()
}

const BRACKETS: [char; 2] = ['[', ']'];

/// So much of what stands in the file is shown.
const SHOWN_MAX: usize = 160;
