//! The configuration, and what is made of it once it holds.

use crate::{
    body::BodySelection,
    redaction::Redaction,
    selection::{Sample, Selection},
};
use detection::{Mistake, Setting};

/// The configuration. Every field has a default.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    kind: String,
    request_headers: Vec<String>,
    response_headers: Vec<String>,
    request_pointers: Vec<String>,
    response_pointers: Vec<String>,
    digests: Vec<Direction>,
    redact: Setting,
    sample: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Request,
    Response,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: "exchange".to_owned(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            request_pointers: Vec::new(),
            response_pointers: Vec::new(),
            digests: Vec::new(),
            redact: Setting::all(),
            sample: 100,
        }
    }
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) kind: String,
    pub(crate) request: Message,
    pub(crate) response: Message,
    pub(crate) redaction: Redaction,
    pub(crate) sample: Sample,
}

/// What is remembered of one direction.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) headers: Selection,
    pub(crate) body: BodySelection,
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, Mistake> {
        let mistake = |pointer: &str, detail: String| Err(Mistake { pointer: pointer.to_owned(), detail });
        if self.kind.is_empty() || self.kind.len() > 64 {
            return mistake("/kind", "a kind has 1 to 64 bytes".to_owned());
        }
        if !(1..=100).contains(&self.sample) {
            return mistake("/sample", format!("{} is not a percentage from 1 to 100", self.sample));
        }
        let digested = |direction| self.digests.contains(&direction);
        let (request, response) = (digested(Direction::Request), digested(Direction::Response));
        Ok(Checked {
            kind: self.kind,
            request: Message {
                headers: Selection::new("request", "/request_headers", self.request_headers)?,
                body: BodySelection::new("request", "/request_pointers", self.request_pointers, request)?,
            },
            response: Message {
                headers: Selection::new("response", "/response_headers", self.response_headers)?,
                body: BodySelection::new("response", "/response_pointers", self.response_pointers, response)?,
            },
            redaction: Redaction::new(self.redact.check("/redact")?),
            sample: Sample(self.sample),
        })
    }
}
