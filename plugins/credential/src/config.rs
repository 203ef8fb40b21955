//! The configuration, and whose credential a request gets. Pure.

use matching::{Facts, Selector};
use std::collections::BTreeSet;
use tidegate_sdk::{ConfigError, HeaderError, Headers};

/// Most entries: they are gone through one by one.
const ENTRIES: usize = 1024;
/// Longest prefix, in bytes.
const PREFIX_BYTES: usize = 64;

/// The configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    entries: Vec<Entry>,
    #[serde(default)]
    otherwise: Otherwise,
    #[serde(default)]
    strip: Vec<String>,
}

/// What a caller gets that it is about.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    when: Selector,
    /// The credential's name.
    pub(crate) credential: String,
    #[serde(default = "authorization")]
    pub(crate) header: String,
    /// What stands before it, in the header: `Bearer ` where that is `authorization`, else nothing.
    prefix: Option<String>,
}

/// What becomes of a caller for which there is no entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Otherwise {
    /// It is refused.
    #[default]
    Refuse,
    /// Its request goes on without a credential.
    Pass,
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    entries: Vec<Entry>,
    pub(crate) otherwise: Otherwise,
    /// Headers that are taken away from every caller.
    pub(crate) strip: Vec<String>,
}

impl Entry {
    pub(crate) fn prefix(&self) -> &str {
        match &self.prefix {
            Some(prefix) => prefix,
            None if self.header.eq_ignore_ascii_case("authorization") => "Bearer ",
            None => "",
        }
    }

    fn check(&self, at: &str) -> Result<(), ConfigError> {
        let mistake = |field: &str, detail: String| Err(ConfigError::new(format!("{at}{field}"), detail));
        if !self.when.asks_who() {
            let detail = "say who gets it: principals (\"*\" is every caller that is known), namespaces, service_accounts or \
                          labels; headers, hosts and paths are the caller's choice and only narrow it down";
            return mistake("/when", detail.to_owned());
        }
        self.when.check(&format!("{at}/when"))?;
        if self.credential.is_empty() {
            return mistake("/credential", "name a credential of kind secret".to_owned());
        }
        check_header(&self.header).or_else(|detail| mistake("/header", detail))?;
        let prefix = self.prefix();
        if prefix.len() > PREFIX_BYTES || !prefix.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return mistake("/prefix", format!("a prefix is at most {PREFIX_BYTES} visible ASCII characters and blanks"));
        }
        Ok(())
    }
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, ConfigError> {
        if self.entries.is_empty() || self.entries.len() > ENTRIES {
            return Err(ConfigError::new("/entries", format!("give 1 to {ENTRIES} entries")));
        }
        for (index, entry) in self.entries.iter().enumerate() {
            entry.check(&format!("/entries/{index}"))?;
        }
        for (index, header) in self.strip.iter().enumerate() {
            check_header(header).map_err(|detail| ConfigError::new(format!("/strip/{index}"), detail))?;
        }
        let targets = self.entries.iter().map(|entry| entry.header.as_str());
        let strip: BTreeSet<_> = targets.chain(self.strip.iter().map(String::as_str)).chain(["authorization"]).collect();
        let strip = strip.into_iter().map(str::to_ascii_lowercase).collect();
        Ok(Checked { entries: self.entries, otherwise: self.otherwise, strip })
    }
}

impl Checked {
    /// The first entry that is about the exchange.
    pub(crate) fn entry(&self, facts: &impl Facts) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.when.matches(facts))
    }
}

fn authorization() -> String {
    "authorization".to_owned()
}

fn check_header(name: &str) -> Result<(), String> {
    match Headers::writable(name) {
        Ok(_) => Ok(()),
        Err(HeaderError::Immutable) => Err(format!("{name:?} is a header that filters never write")),
        Err(_) => Err(format!("{name:?} is not a header name (RFC 9110 section 5.1)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Caller(&'static str);

    impl Facts for Caller {
        fn attribute(&self, name: &str) -> Option<String> {
            (name == "caller.namespace").then(|| self.0.to_owned())
        }

        fn header(&self, _: &str) -> Vec<Vec<u8>> {
            Vec::new()
        }
    }

    fn entry(namespace: &str, credential: &str) -> Value {
        json!({"when": {"namespaces": [namespace]}, "credential": credential})
    }

    fn check(config: Value) -> Result<Checked, String> {
        let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_entry_that_matches_wins() {
        let checked = check(json!({"entries": [entry("blue", "a"), entry("b*", "b"), entry("blue", "c")]})).unwrap();
        let credential = |namespace| checked.entry(&Caller(namespace)).map(|entry| entry.credential.as_str());
        assert_eq!((credential("blue"), credential("black"), credential("green")), (Some("a"), Some("b"), None));
        assert_eq!(checked.otherwise, Otherwise::Refuse);
    }

    #[test]
    fn the_prefix_is_bearer_only_for_authorization() {
        for (fields, wanted) in [
            (json!({}), "Bearer "),
            (json!({"header": "Authorization"}), "Bearer "),
            (json!({"header": "x-api-key"}), ""),
            (json!({"header": "x-api-key", "prefix": "key="}), "key="),
            (json!({"prefix": ""}), ""),
        ] {
            let mut document = entry("blue", "a");
            document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let checked = check(json!({"entries": [document]})).unwrap();
            assert_eq!(checked.entry(&Caller("blue")).unwrap().prefix(), wanted, "{fields}");
        }
    }

    #[test]
    fn every_header_that_could_carry_a_credential_is_stripped() {
        let mut named = entry("blue", "a");
        named["header"] = json!("X-Api-Key");
        let checked = check(json!({"entries": [named, entry("green", "b")], "strip": ["x-token"]})).unwrap();
        assert_eq!(checked.strip, ["x-api-key", "authorization", "x-token"]);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let with = |field: &str, value: Value| {
            let mut document = entry("blue", "a");
            document[field] = value;
            json!({"entries": [document]})
        };
        for (config, wanted) in [
            (json!({"entries": []}), "/entries: "),
            (with("when", json!({})), "/entries/0/when: say who"),
            (with("when", json!({"headers": {"x-tenant": "blue"}})), "/entries/0/when: say who"),
            (with("when", json!({"namespaces": ["a"], "headers": {"a b": "c"}})), "/entries/0/when/headers/a b: "),
            (with("credential", json!("")), "/entries/0/credential: "),
            (with("header", json!("a b")), "/entries/0/header: "),
            (with("header", json!("Host")), "/entries/0/header: "),
            (with("prefix", json!("a\nb")), "/entries/0/prefix: "),
            (with("secret", json!("x")), "unknown field `secret`"),
            (json!({"entries": [entry("a", "b")], "strip": ["content-length"]}), "/strip/0: "),
            (json!({"entries": [{"credential": "a"}]}), "missing field `when`"),
            (json!({"entries": [entry("a", "b")], "otherwise": "allow"}), "unknown variant `allow`"),
        ] {
            let mistake = check(config.clone()).unwrap_err();
            assert!(mistake.contains(wanted), "{config}: {mistake}");
        }
    }
}
