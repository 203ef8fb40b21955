//! The configuration, and what is made of it once it holds.

use crate::{
    body::BodySelection,
    following::UnderWay,
    pointers::Pointers,
    redaction::Redaction,
    selection::{Sample, Selection},
};
use detection::Setting;
use std::rc::Rc;
use tidegate_sdk::ConfigError;

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
    pub(crate) redaction: Rc<Redaction>,
    pub(crate) sample: Sample,
}

/// What is remembered of one direction.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) headers: Selection,
    pub(crate) body: BodySelection,
    pub(crate) redaction: Rc<Redaction>,
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, ConfigError> {
        if self.kind.is_empty() || self.kind.len() > 64 {
            return Err(ConfigError::new("/kind", "a kind has 1 to 64 bytes"));
        }
        if !(1..=100).contains(&self.sample) {
            return Err(ConfigError::new("/sample", format!("{} is not a percentage from 1 to 100", self.sample)));
        }
        let digested = |direction| self.digests.contains(&direction);
        let (request, response) = (digested(Direction::Request), digested(Direction::Response));
        let redaction = Rc::new(Redaction::new(self.redact.check("/redact")?));
        let under_way = UnderWay::default();
        let body = |prefix, at, pointers, digest| {
            Pointers::new(prefix, at, pointers).map(|pointers| BodySelection::new(prefix, pointers, digest, &under_way))
        };
        Ok(Checked {
            kind: self.kind,
            request: Message {
                headers: Selection::new("request", "/request_headers", self.request_headers)?,
                body: body("request", "/request_pointers", self.request_pointers, request)?,
                redaction: Rc::clone(&redaction),
            },
            response: Message {
                headers: Selection::new("response", "/response_headers", self.response_headers)?,
                body: body("response", "/response_pointers", self.response_pointers, response)?,
                redaction: Rc::clone(&redaction),
            },
            redaction,
            sample: Sample(self.sample),
        })
    }
}
