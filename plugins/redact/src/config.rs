//! The configuration, and what is made of it once it holds.

use detection::{Detectors, Mask, Setting};
use tidegate_sdk::ConfigError;

/// Content types that are looked at unless told otherwise: what APIs and forms send as text.
const CONTENT_TYPES: [&str; 14] = [
    "application/json",
    "application/*+json",
    "application/json-seq",
    "application/*+json-seq",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/xml",
    "application/*+xml",
    "application/x-www-form-urlencoded",
    "application/graphql",
    "multipart/form-data",
    "text/*",
];
/// Most content types.
const MOST_CONTENT_TYPES: usize = 64;
/// Longest mask, in bytes.
const MASK_BYTES: usize = 256;

/// The configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    detectors: Setting,
    #[serde(default)]
    request: Action,
    #[serde(default)]
    response: Action,
    #[serde(default = "mask")]
    mask: String,
    #[serde(default = "status")]
    status: u16,
    #[serde(default = "content_types")]
    content_types: Vec<String>,
    #[serde(default)]
    unreadable: Unreadable,
}

/// What becomes of a body in which something is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// It goes on with the mask in its place.
    #[default]
    Mask,
    /// It does not go on.
    Refuse,
    /// It is not looked at.
    Pass,
}

/// What becomes of a body that cannot be looked at, though it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unreadable {
    /// It does not go on.
    #[default]
    Refuse,
    /// It goes on unseen, and an event says so.
    Pass,
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) detectors: Detectors,
    pub(crate) mask: Mask,
    pub(crate) request: Action,
    pub(crate) response: Action,
    /// What a refused request is answered with.
    pub(crate) status: u16,
    pub(crate) content_types: Vec<MediaRange>,
    pub(crate) unreadable: Unreadable,
}

/// A pattern for content types: exact, or with one `*` in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MediaRange {
    before: String,
    /// What follows the star.
    behind: Option<String>,
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, ConfigError> {
        let mistake = |pointer: &str, detail: &str| Err(ConfigError::new(pointer, detail));
        let detectors = self.detectors.check("/detectors")?;
        if detectors.is_empty() {
            return mistake("/detectors", "name at least one detector, or leave the filter out");
        }
        if self.request == Action::Pass && self.response == Action::Pass {
            return mistake(
                "/response",
                "neither direction is looked at: mask or refuse in one of them, or leave the filter out",
            );
        }
        if !matches!(self.status, 403 | 422) {
            return mistake("/status", "a refused request is answered with 403 or 422");
        }
        if self.mask.len() > MASK_BYTES || self.mask.chars().any(char::is_control) {
            return mistake("/mask", "a mask has at most 256 bytes and no control characters");
        }
        if let Some(index) = detectors.names().iter().position(|name| found_again(&detectors, &self.mask, name)) {
            let detail =
                format!("detector {:?} finds its own mask: it would be counted wherever it passes", detectors.names()[index]);
            return mistake("/mask", &detail);
        }
        if self.content_types.is_empty() || self.content_types.len() > MOST_CONTENT_TYPES {
            return mistake("/content_types", "give 1 to 64 content types; \"*/*\" is all of them");
        }
        let content_types = self.content_types.iter().enumerate().map(|(index, range)| {
            MediaRange::new(range).map_err(|detail| ConfigError::new(format!("/content_types/{index}"), detail))
        });
        let content_types = content_types.collect::<Result<_, _>>()?;
        let mask = Mask::new(&self.mask, &detectors);
        let Self { request, response, status, unreadable, .. } = self;
        Ok(Checked { detectors, mask, request, response, status, content_types, unreadable })
    }
}

/// Whether a detector finds something in what would stand in the place of what it found.
fn found_again(detectors: &Detectors, mask: &str, name: &str) -> bool {
    detectors.first(&mask.replace("{detector}", name)).is_some()
}

impl MediaRange {
    fn new(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&^_.+-*".contains(&byte);
        let holds = parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(fits));
        match (holds, text.matches('*').count(), text.split_once('*')) {
            (true, 2, _) if text == "*/*" => Ok(Self { before: String::new(), behind: Some(String::new()) }),
            (true, 1, Some((before, behind))) if before.contains('/') => {
                Ok(Self { before: before.to_owned(), behind: Some(behind.to_owned()) })
            }
            (true, 0, _) => Ok(Self { before: text.to_owned(), behind: None }),
            _ => Err(format!("{text:?} is not a content type in lower case, such as \"text/*\" or \"application/*+json\"")),
        }
    }

    /// Whether a media type, in lower case and without parameters, is meant.
    pub(crate) fn matches(&self, media_type: &str) -> bool {
        match (media_type.strip_prefix(self.before.as_str()), &self.behind) {
            (Some(rest), Some(behind)) => rest.ends_with(behind.as_str()),
            (Some(rest), None) => rest.is_empty(),
            (None, _) => false,
        }
    }
}

fn mask() -> String {
    "(redacted)".to_owned()
}

fn status() -> u16 {
    403
}

fn content_types() -> Vec<String> {
    CONTENT_TYPES.iter().map(|&range| range.to_owned()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn checked(config: Value) -> Checked {
        serde_json::from_value::<Config>(config).unwrap().check().unwrap()
    }

    #[test]
    fn content_types_match() {
        for (range, media_type, wanted) in [
            ("text/*", "text/html", true),
            ("text/*", "texts/html", false),
            ("application/*+json", "application/problem+json", true),
            ("application/*+json", "application/json", false),
            ("application/json", "application/json", true),
            ("application/json", "application/json5", false),
            ("*/*", "image/png", true),
        ] {
            assert_eq!(MediaRange::new(range).unwrap().matches(media_type), wanted, "{range} {media_type}");
        }
        for wrong in ["", "text", "*", "*/json", "Text/html", "text/html; charset=utf-8", "a/b/c", "te*t/*"] {
            MediaRange::new(wrong).unwrap_err();
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (config, pointer) in [
            (json!({"detectors": []}), "/detectors"),
            (json!({"detectors": ["cards"]}), "/detectors/0"),
            (json!({"detectors": ["card"], "request": "pass", "response": "pass"}), "/response"),
            (json!({"detectors": ["card"], "status": 400}), "/status"),
            (json!({"detectors": ["card"], "mask": "a\nb"}), "/mask"),
            (json!({"detectors": ["card", "email"], "mask": "mail privacy@example.com"}), "/mask"),
            (json!({"detectors": [{"name": "bracket", "pattern": r"\[bracket\]"}], "mask": "[{detector}]"}), "/mask"),
            (json!({"detectors": ["card"], "content_types": []}), "/content_types"),
            (json!({"detectors": ["card"], "content_types": ["text/*", "json"]}), "/content_types/1"),
        ] {
            let mistake = serde_json::from_value::<Config>(config.clone()).unwrap().check().unwrap_err();
            assert_eq!(mistake.pointer(), pointer, "{config}");
        }
        let unread = |config: Value| serde_json::from_value::<Config>(config).unwrap_err().to_string();
        assert!(unread(json!({})).contains("detectors"));
        assert!(unread(json!({"detectors": ["card"], "action": "mask"})).contains("action"));
    }
}
