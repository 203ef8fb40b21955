//! Selectors: the parts of rules and routes that say which callers and which requests are meant.

use crate::{
    HostPattern, Identity, Mistake, Name,
    identity::{Caller, claim},
    mistake::step,
    path,
    snapshot::Rows,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

/// Callers. Every field that is given must match; within a field any one value suffices.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct From {
    /// Principals, each exact or ending in `*` (`spiffe://cluster.local/ns/shop/*`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<TextPattern>,
    /// Namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<TextPattern>,
    /// Service accounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<TextPattern>,
    /// Labels, all of which the caller must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, TextPattern>,
    /// Networks of which one must hold the caller's address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: Vec<IpNet>,
    /// Claims of the caller's token, by name, all of which must match one of their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Vec<TextPattern>>,
}

/// Requests. Every field that is given must match; within a field any one value suffices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct To {
    /// Services by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Name>,
    /// Hosts, registered or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Ports: the one that was asked for, or the service's own that it maps to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Methods, in capitals. A tunnel has the method `CONNECT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodName>,
    /// Paths, each exact or ending in `*`. A tunnel has no path, so no path selector matches it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
}

/// Text that is exact, or ends in `*` and is a prefix, or begins with `*` and is a suffix, or is `*` and is anything
/// that is present.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
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

/// A request method (RFC 9110 section 9), in capitals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodName(http::Method);

/// A path that is exact, or ends in `*` and is a prefix. Matched on the path with dot segments removed and needless
/// percent-encoding undone (RFC 3986 section 6.2.2), so that no other spelling slips past a rule. Where servers read a
/// path differently (see [`crate::path`]), a deny or report rule matches when any reading is meant, an allow rule only
/// when all of them are. Case matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Every path that begins with this.
    Prefix(String),
}

impl From {
    /// Whether `identity` is meant.
    pub fn matches(&self, identity: &Identity) -> bool {
        let Caller { principal, namespace, service_account, labels, claims, .. } = identity.caller.as_ref();
        let one_of = |patterns: &[TextPattern], text: Option<&str>| {
            patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        one_of(&self.principals, principal.as_deref())
            && one_of(&self.namespaces, namespace.as_deref())
            && one_of(&self.service_accounts, service_account.as_deref())
            && self.labels.iter().all(|(name, pattern)| labels.get(name).is_some_and(|value| pattern.matches(value)))
            && (self.networks.is_empty() || self.holds(identity.source))
            && self.claims.iter().all(|(name, patterns)| {
                claim(claims, name).is_some_and(|value| patterns.iter().any(|pattern| pattern.matches_value(value)))
            })
    }

    /// What is wrong with it.
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = check_networks("networks", &self.networks);
        if *self == Self::default() {
            mistakes.push(Mistake::at("", "an empty entry matches every caller: say whom it is about, or leave it out"));
        }
        let unmet = self.claims.iter().filter(|(_, patterns)| patterns.is_empty());
        mistakes.extend(unmet.map(|(name, _)| {
            Mistake::at(format!("/claims/{}", step(name)), "an empty list matches nothing: give at least one value, or \"*\"")
        }));
        mistakes
    }

    fn holds(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.networks.iter().any(|network| network.contains(&source))
    }

    /// Whether it says anything that credentials could prove: anything but networks.
    pub(crate) fn asks_who(&self) -> bool {
        let Self { principals, namespaces, service_accounts, labels, networks: _, claims } = self;
        !(principals.is_empty()
            && namespaces.is_empty()
            && service_accounts.is_empty()
            && labels.is_empty()
            && claims.is_empty())
    }
}

impl To {
    /// What is wrong with it, by itself and beside `rows`.
    pub(crate) fn check(&self, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if *self == Self::default() {
            mistakes.push(Mistake::at("", "an empty entry matches every request: say what it is about, or leave it out"));
        }
        for (at, service) in self.services.iter().enumerate() {
            if !rows.services.contains_key(service) {
                mistakes
                    .push(Mistake::at(format!("/services/{at}"), format!("there is no service {service}: register it first")));
            }
        }
        if let Some(at) = self.ports.iter().position(|port| *port == 0) {
            mistakes.push(Mistake::at(format!("/ports/{at}"), "a port is a number from 1 to 65535"));
        }
        mistakes
    }
}

/// What is wrong with the networks in `field`: bits that are set beyond the prefix, which say that it was meant otherwise.
pub(crate) fn check_networks(field: &str, networks: &[IpNet]) -> Vec<Mistake> {
    let crooked = networks.iter().enumerate().filter(|(_, network)| network.trunc() != **network);
    crooked
        .map(|(at, network)| {
            let (straight, host) = (network.trunc(), network.addr());
            let detail = format!("{network} has bits set beyond its prefix: write {straight} for the network, or {host} with a full prefix for one address");
            Mistake::at(format!("/{field}/{at}"), detail)
        })
        .collect()
}

impl TextPattern {
    /// Whether `value` is meant: text as it is, numbers and booleans as they are written, an array when one of its
    /// elements is, and an object or null never.
    fn matches_value(&self, value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => self.matches(text),
            serde_json::Value::Number(number) => self.matches(&number.to_string()),
            serde_json::Value::Bool(truth) => self.matches(if *truth { "true" } else { "false" }),
            serde_json::Value::Array(values) => values.iter().any(|value| !value.is_array() && self.matches_value(value)),
            serde_json::Value::Object(_) | serde_json::Value::Null => false,
        }
    }

    /// Whether `text` is meant.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// Whether `bytes` are meant: header and query values need not be text.
    pub fn matches_bytes(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Exact(whole) => whole.as_bytes() == bytes,
            Self::Prefix(start) => bytes.starts_with(start.as_bytes()),
            Self::Suffix(end) => bytes.ends_with(end.as_bytes()),
            Self::Any => true,
        }
    }
}

impl TryFrom<String> for TextPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let starred = text.matches('*').count();
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text.is_empty() => Err("an empty pattern matches nothing: give a value, or \"*\" for any".to_owned()),
            (Some(""), _) => Ok(Self::Any),
            (Some(end), None) if starred == 1 => Ok(Self::Suffix(end.to_owned())),
            (None, Some(start)) if starred == 1 => Ok(Self::Prefix(start.to_owned())),
            (None, None) if starred == 0 => Ok(Self::Exact(text)),
            _ => Err(format!("{text:?}: one '*' is understood, at the beginning or at the end")),
        }
    }
}

impl std::convert::From<TextPattern> for String {
    fn from(pattern: TextPattern) -> Self {
        match pattern {
            TextPattern::Exact(whole) => whole,
            TextPattern::Prefix(start) => start + "*",
            TextPattern::Suffix(end) => format!("*{end}"),
            TextPattern::Any => "*".to_owned(),
        }
    }
}

impl MethodName {
    /// Whether `method` is meant.
    pub fn matches(&self, method: &http::Method) -> bool {
        self.0 == *method
    }
}

impl TryFrom<String> for MethodName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!("{text:?}: methods are case-sensitive; write it in capitals"));
        }
        http::Method::from_bytes(text.as_bytes()).map(Self).map_err(|_| format!("{text:?} is not a method"))
    }
}

impl std::convert::From<MethodName> for String {
    fn from(method: MethodName) -> Self {
        method.0.as_str().to_owned()
    }
}

impl PathPattern {
    /// Whether the normalised `path` is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(whole) => whole == path,
            Self::Prefix(start) => path.starts_with(start.as_str()),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is not a path: begin it with '/'"));
        }
        if text.contains(['?', '#']) {
            return Err(format!("{text:?}: a path has no query and no fragment"));
        }
        let pattern = match (text.strip_suffix('*'), text.matches('*').count()) {
            (_, 0) => Self::Exact(text),
            (Some(start), 1) => Self::Prefix(start.to_owned()),
            _ => return Err(format!("{text:?}: one '*' is understood, at the end")),
        };
        // A pattern in another spelling than the paths it is compared with would never match.
        let (Self::Exact(written) | Self::Prefix(written)) = &pattern;
        let whole = match &pattern {
            Self::Exact(path) => path,
            // What is begun of the last segment is no segment yet: "/.w*" is about "/.well-known".
            Self::Prefix(start) => &start[..=start.rfind('/').unwrap_or(0)],
        };
        match (path::normal(whole), path::normal(&format!("{written}x"))) {
            (Some(normal), Some(begun)) if normal == *whole && begun.strip_suffix('x') == Some(written) => Ok(pattern),
            (Some(normal), Some(_)) => Err(format!("{written:?} is not how paths are compared: the nearest is {normal:?}")),
            _ => Err(format!("{written:?} holds encoding that no path is compared with")),
        }
    }
}

impl std::convert::From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        match pattern {
            PathPattern::Exact(whole) => whole,
            PathPattern::Prefix(start) => start + "*",
        }
    }
}
