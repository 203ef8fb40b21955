//! The selector: fields are ANDed, the values of one field are ORed, and a field that is not given is not asked.

use crate::{Facts, HostPattern, PathPattern, TextPattern, is_header_name};
use serde::Deserialize;
use std::collections::BTreeMap;
use tidegate_sdk::{ConfigError, pointer_step};

/// Whom an entry is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// The caller's principal.
    pub principals: Vec<TextPattern>,
    /// The caller's namespace.
    pub namespaces: Vec<TextPattern>,
    /// The caller's service account.
    pub service_accounts: Vec<TextPattern>,
    /// The caller's labels, all of which it has to have.
    pub labels: BTreeMap<String, TextPattern>,
    /// The request's headers, all of which it has to have; every value of one has to match.
    pub headers: BTreeMap<String, TextPattern>,
    /// The host that was asked for.
    pub hosts: Vec<HostPattern>,
    /// The path that was asked for.
    pub paths: Vec<PathPattern>,
}

impl Selector {
    /// Whether it asks nothing, and so is about everyone and everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks who the caller is, which the caller cannot choose as it can choose headers, hosts and paths.
    pub fn asks_who(&self) -> bool {
        !(self.principals.is_empty()
            && self.namespaces.is_empty()
            && self.service_accounts.is_empty()
            && self.labels.is_empty())
    }

    /// What is wrong with it beyond its syntax. `pointer` says where it stands.
    pub fn check(&self, pointer: &str) -> Result<(), ConfigError> {
        match self.headers.keys().find(|name| !is_header_name(name)) {
            Some(name) => {
                let at = format!("{pointer}/headers{}", pointer_step(name));
                Err(ConfigError::new(at, format!("{name:?} is not a header name")))
            }
            None => Ok(()),
        }
    }

    /// Whether the exchange is meant.
    pub fn matches(&self, facts: &impl Facts) -> bool {
        let known = |patterns: &[TextPattern], name: &str| {
            patterns.is_empty()
                || facts.attribute(name).is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(&text)))
        };
        known(&self.principals, "caller.principal")
            && known(&self.namespaces, "caller.namespace")
            && known(&self.service_accounts, "caller.service-account")
            && self.labels.iter().all(|(name, pattern)| {
                facts.attribute(&format!("caller.label.{name}")).is_some_and(|value| pattern.matches(&value))
            })
            && self.headers.iter().all(|(name, pattern)| every_value(&facts.header(name), pattern))
            && (self.hosts.is_empty()
                || facts.attribute("target.host").is_some_and(|host| self.hosts.iter().any(|pattern| pattern.matches(&host))))
            && (self.paths.is_empty()
                || facts.attribute("request.path").is_some_and(|path| self.paths.iter().any(|pattern| pattern.matches(&path))))
    }
}

/// A header that is there twice with different values means different things to different readers: it has to match in all.
fn every_value(values: &[Vec<u8>], pattern: &TextPattern) -> bool {
    !values.is_empty() && values.iter().all(|value| std::str::from_utf8(value).is_ok_and(|value| pattern.matches(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Exchange {
        attributes: Value,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl Facts for Exchange {
        fn attribute(&self, name: &str) -> Option<String> {
            self.attributes[name].as_str().map(str::to_owned)
        }

        fn header(&self, name: &str) -> Vec<Vec<u8>> {
            let values = self.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
            values.map(|(_, value)| value.as_bytes().to_vec()).collect()
        }
    }

    fn matches(selector: Value) -> bool {
        let exchange = Exchange {
            attributes: json!({
                "caller.principal": "spiffe://cluster.local/ns/shop/sa/checkout", "caller.namespace": "shop",
                "caller.service-account": "checkout", "caller.label.tenant": "blue",
                "target.host": "api.example.com", "request.path": "/v1//charges",
            }),
            headers: vec![("x-region", "eu"), ("x-twice", "a1"), ("x-twice", "b1")],
        };
        let selector: Selector = serde_json::from_value(selector).unwrap();
        selector.check("").unwrap();
        selector.matches(&exchange)
    }

    #[test]
    fn fields_are_anded_and_values_ored() {
        for selector in [
            json!({}),
            json!({"principals": ["spiffe://other", "spiffe://cluster.local/ns/shop/*"]}),
            json!({"namespaces": ["shop"], "service_accounts": ["*"], "labels": {"tenant": "blue"}}),
            json!({"headers": {"X-Region": "e*"}}),
            json!({"headers": {"x-twice": "*1"}}),
            json!({"hosts": ["*.example.com"], "paths": ["/v1/charges"]}),
        ] {
            assert!(matches(selector.clone()), "{selector}");
        }
        for selector in [
            json!({"namespaces": ["shop"], "service_accounts": ["cart"]}),
            json!({"labels": {"tenant": "blue", "tier": "*"}}),
            json!({"headers": {"x-region": "us"}}),
            json!({"headers": {"x-twice": "a1"}}),
            json!({"headers": {"x-absent": "*"}}),
            json!({"hosts": ["example.com"]}),
            json!({"hosts": ["api.example.com"], "paths": ["/v2/*"]}),
        ] {
            assert!(!matches(selector.clone()), "{selector}");
        }
    }

    #[test]
    fn a_selector_says_whether_it_asks_who() {
        let selector = |value: Value| serde_json::from_value::<Selector>(value).unwrap();
        assert!(selector(json!({"labels": {"a": "b"}})).asks_who());
        assert!(!selector(json!({"headers": {"a": "b"}, "hosts": ["x.example"]})).asks_who());
        assert!(selector(json!({"principals": []})).is_empty());
        let error = selector(json!({"headers": {"a b": "c"}})).check("/entries/0/when").unwrap_err();
        assert_eq!(error.pointer(), "/entries/0/when/headers/a b");
    }
}
