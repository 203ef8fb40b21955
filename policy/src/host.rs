//! Host names and the patterns that match them, in the one canonical form that every comparison uses.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

/// A host in canonical form: a lower-case ASCII name without a trailing dot, or an IP address. Cloning is cheap.
///
/// Parsing refuses, rather than interprets: user information, brackets around anything but an IPv6 address, octal,
/// hexadecimal, decimal and short forms of IPv4 (whatever `inet_aton` would read), zone identifiers, empty labels and
/// labels over 63 bytes, names over 253 bytes, and what IDNA (UTS 46, non-transitional) refuses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A DNS name.
    Name(Arc<str>),
    /// An address.
    Address(IpAddr),
}

/// The hosts a service registers or a rule names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Exactly this host.
    Exact(Host),
    /// Every name below this one, at any depth, but not the name itself (`*.example.com` holds `example.com`).
    Suffix(Arc<str>),
}

impl HostPattern {
    /// Whether `host` is meant.
    pub fn matches(&self, _host: &Host) -> bool {
        unimplemented!()
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(_text: &str) -> Result<Self, String> {
        unimplemented!()
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    /// The name, or the address without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => fmt::Display::fmt(address, f),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(_text: &str) -> Result<Self, String> {
        unimplemented!()
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => fmt::Display::fmt(host, f),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
