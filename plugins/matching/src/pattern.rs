//! The patterns of selectors: the same as those of the gateway's own rules.

use crate::path;
use serde::Deserialize;

/// Text that is exact, or ends in `*` and is a prefix, or begins with `*` and is a suffix, or is `*` and is anything that is
/// present.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TextPattern {
    /// Exactly this.
    Exact(String),
    /// Anything that begins with this.
    Prefix(String),
    /// Anything that ends with this.
    Suffix(String),
    /// Anything that is present.
    Any,
}

/// A host that is exact, or `*.suffix` for every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// Exactly this host.
    Exact(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
}

/// A path that is exact, or ends in `*` and is a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Every path that begins with this.
    Prefix(String),
}

impl TextPattern {
    /// Whether the text is meant.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Any => true,
        }
    }
}

impl HostPattern {
    /// Whether the host, in canonical form, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == exact,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl PathPattern {
    /// Whether the path is meant, however it is spelled.
    pub fn matches(&self, path: &str) -> bool {
        let path = path::normal(path);
        match self {
            Self::Exact(exact) => path == *exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

impl TryFrom<String> for TextPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let stars = text.matches('*').count();
        match (stars, text.strip_suffix('*'), text.strip_prefix('*')) {
            _ if text.is_empty() => Err("an empty pattern matches nothing".to_owned()),
            (0, ..) => Ok(Self::Exact(text)),
            (1, Some(""), _) => Ok(Self::Any),
            (1, Some(prefix), _) => Ok(Self::Prefix(prefix.to_owned())),
            (1, _, Some(suffix)) => Ok(Self::Suffix(suffix.to_owned())),
            _ => Err(format!("{text:?}: one '*' may stand at the beginning or at the end")),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(&text);
        if name.is_empty() || name.contains(['*', '/', ' ']) || name.ends_with('.') || name.chars().any(char::is_uppercase) {
            return Err(format!("{text:?} is not a host: a lower-case name or an address, or \"*.\" and a name"));
        }
        Ok(match text.strip_prefix('*') {
            Some(suffix) => Self::Below(suffix.to_owned()),
            None => Self::Exact(text),
        })
    }
}

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = text.strip_suffix('*').unwrap_or(&text);
        if !path.starts_with('/') || path.contains(['*', '?', '#']) {
            return Err(format!("{text:?} is not a path: it begins with '/', and only its last character may be '*'"));
        }
        if path::normal(path) != path {
            return Err(format!("{text:?} is matched as {:?}: write it like that", path::normal(path)));
        }
        Ok(if path.len() < text.len() { Self::Prefix(path.to_owned()) } else { Self::Exact(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str) -> TextPattern {
        TextPattern::try_from(pattern.to_owned()).unwrap()
    }

    #[test]
    fn texts_match() {
        assert!(text("blue").matches("blue") && !text("blue").matches("blues"));
        assert!(text("spiffe://a/ns/shop/*").matches("spiffe://a/ns/shop/sa/x") && !text("b*").matches("ab"));
        assert!(text("*-prod").matches("shop-prod") && !text("*-prod").matches("shop-prod-2"));
        assert!(text("*").matches(""));
        for wrong in ["", "a*b", "**", "*a*"] {
            TextPattern::try_from(wrong.to_owned()).unwrap_err();
        }
    }

    #[test]
    fn hosts_match() {
        let host = |pattern: &str| HostPattern::try_from(pattern.to_owned());
        assert!(host("api.example.com").unwrap().matches("api.example.com"));
        let below = host("*.example.com").unwrap();
        assert!(below.matches("a.b.example.com") && !below.matches("example.com") && !below.matches("notexample.com"));
        for wrong in ["", "*", "*.", "API.example.com", "a*.example.com", "example.com.", "http://x"] {
            host(wrong).unwrap_err();
        }
    }

    #[test]
    fn paths_match() {
        let path = |pattern: &str| PathPattern::try_from(pattern.to_owned());
        let charges = path("/v1/charges/*").unwrap();
        assert!(charges.matches("/v1/charges/7") && charges.matches("/%761//charges/./7") && !charges.matches("/v1/charges"));
        assert!(path("/v1").unwrap().matches("/v1") && !path("/v1").unwrap().matches("/v1/"));
        assert!(path("/*").unwrap().matches("/"));
        for wrong in ["", "v1", "/a*b", "/a/../b", "/a//b", "/%61", "/a?x"] {
            path(wrong).unwrap_err();
        }
    }
}
