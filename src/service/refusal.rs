//! A refusal: what cannot be done, why, and what would help, in one sentence.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::format;
use std::string::{String, ToString};

/// Said to the owner before anything has been changed; also through `control`, by a box that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The file, address or option it is about.
    thing: String,
    /// What is wrong with it.
    problem: String,
    /// What the owner can do.
    remedy: Cow<'static, str>,
}

impl Refusal {
    /// A refusal about `thing`.
    pub fn new(
        thing: impl fmt::Display,
        problem: impl fmt::Display,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Refusal { thing: thing.to_string(), problem: problem.to_string(), remedy: remedy.into() }
    }

    /// The same, saying where the thing stands.
    pub fn found_at(self, place: impl fmt::Display) -> Self {
        Refusal { thing: format!("{place}: {}", self.thing), ..self }
    }

    /// The same in other words.
    pub fn map(self, word: impl Fn(&str) -> String) -> Refusal {
        let remedy = Cow::Owned(word(&self.remedy));
        Refusal { thing: word(&self.thing), problem: word(&self.problem), remedy }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.thing, self.problem, self.remedy)
    }
}

impl std::error::Error for Refusal {}
