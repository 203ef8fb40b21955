//! Configuration: JSON from the route into the filter's own type, with errors that point.

use crate::Filter;
use std::fmt;

/// What is wrong with a filter's configuration: a JSON pointer (RFC 6901) and a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pointer: String,
    detail: String,
}

impl ConfigError {
    /// The value at `pointer` (such as `/rules/0/name`; empty for the whole) is wrong as `detail` says.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }

    /// The same mistake, of a configuration in which what was checked lies at `pointer`: for checks that do not know where
    /// they are.
    ///
    /// ```
    /// # use tidegate_sdk::ConfigError;
    /// let error = ConfigError::new("/name", "a rule has a name").within("/rules/2");
    /// assert_eq!(error.to_string(), "/rules/2/name: a rule has a name");
    /// ```
    #[must_use]
    pub fn within(self, pointer: impl AsRef<str>) -> Self {
        Self { pointer: format!("{}{}", pointer.as_ref(), self.pointer), detail: self.detail }
    }

    /// Where.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// What.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// One step of a JSON pointer (RFC 6901 section 3): a slash, and the name with its own written otherwise.
///
/// ```
/// assert_eq!(tidegate_sdk::pointer_step("a/b~c"), "/a~1b~0c");
/// ```
pub fn pointer_step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.detail),
            pointer => write!(f, "{pointer}: {}", self.detail),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Makes a filter of its configuration's bytes. No bytes count as `null`, and `null` also as an empty object, so that a
/// filter all of whose fields have defaults needs no configuration.
pub(crate) fn start<F: Filter>(bytes: &[u8]) -> Result<F, ConfigError> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    let config = read(bytes).or_else(|error| if bytes == b"null" { read(b"{}") } else { Err(error) })?;
    F::new(config)
}

fn read<C: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<C, ConfigError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ConfigError::new(pointer(error.path()), without_position(&error.into_inner().to_string())))
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&pointer_step(key)),
            Segment::Enum { variant } => pointer.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
    }
    pointer
}

/// The operator wrote a JSON value, not these bytes: a line and a column of them would mislead.
fn without_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(before, _)| before).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        #[expect(dead_code, reason = "only read into")]
        name: String,
    }

    #[derive(Debug)]
    struct Nothing;

    impl Filter for Nothing {
        type Config = Config;
        type State = ();

        fn new(_: Config) -> Result<Self, ConfigError> {
            Ok(Self)
        }
    }

    #[test]
    fn a_mistake_is_pointed_at() {
        let error = start::<Nothing>(br#"{"rules": [{"name": "a"}, {"name": 7}]}"#).unwrap_err();
        assert_eq!(error.pointer(), "/rules/1/name");
        assert_eq!(error.detail(), "invalid type: integer `7`, expected a string");
        let error = start::<Nothing>(br#"{"rules": [{"name": "a"}, {}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "/rules/1: missing field `name`");
        let error = start::<Nothing>(b"7").unwrap_err();
        assert_eq!(error.to_string(), "invalid type: integer `7`, expected struct Config");
        let error = start::<Nothing>(br#"{"rulez": []}"#).unwrap_err();
        assert_eq!(error.to_string(), "/rulez: unknown field `rulez`, expected `rules`");
    }

    #[test]
    fn no_configuration_is_an_empty_one() {
        start::<Nothing>(b"").unwrap();
        start::<Nothing>(b"null").unwrap();
    }
}
