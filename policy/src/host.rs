//! Host names and the patterns that match them, in the one canonical form that every comparison uses.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// A host in canonical form: a lower-case ASCII name without a trailing dot, or an IP address. Cloning is cheap.
///
/// Parsing refuses, rather than interprets: user information, brackets around anything but an IPv6 address, octal,
/// hexadecimal, decimal and short forms of IPv4 (whatever `inet_aton` would read), zone identifiers, empty labels and
/// labels over 63 bytes, names over 253 bytes, and what IDNA (UTS 46, non-transitional) refuses. An IPv4-mapped IPv6
/// address is the IPv4 address it maps; the underscore is let through, since real names have it.
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

/// Longest name accepted, in bytes and without a trailing dot (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;
/// Longest label accepted, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;
/// Most labels that a name of that length can have, and so many a little more than that.
pub(crate) const MAX_LABELS: usize = 127;
/// Longest text looked at: names in other scripts shrink when they are encoded, though never below a quarter.
const MAX_INPUT_BYTES: usize = 4 * MAX_HOST_BYTES;

/// Reads `host[:port]` (RFC 3986 section 3.2, without user information) as it stands in a Host header, a CONNECT line or
/// a URL. An absent or empty port is `default_port`; an IPv6 address needs its brackets; port 0 is refused.
pub fn authority(text: &str, default_port: u16) -> Result<(Host, u16), String> {
    if text.contains('@') {
        return Err("an authority must not carry user information: leave out everything up to '@'".to_owned());
    }
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return Err(format!("{text:?} opens a bracket and never closes it")),
        Some(Some((inside, rest))) => match rest.strip_prefix(':') {
            Some(port) => (ipv6(inside)?, port),
            None if rest.is_empty() => (ipv6(inside)?, ""),
            None => return Err(format!("{text:?}: only a port may follow the bracket")),
        },
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(format!("{text:?} has several colons: write an IPv6 address in brackets"));
            }
            Some((host, port)) => (host.parse()?, port),
            None => (text.parse()?, ""),
        },
    };
    Ok((host, port_number(port, default_port)?))
}

fn port_number(text: &str, default_port: u16) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(default_port);
    }
    // Checked by hand because the standard parser takes a leading '+'.
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(format!("{text:?} is not a port: write a number from 1 to 65535")),
    }
}

fn ipv6(text: &str) -> Result<Host, String> {
    if text.contains('%') {
        return Err(format!("{text:?}: zone identifiers mean nothing beyond one machine; leave the zone out"));
    }
    let address = text.parse::<Ipv6Addr>();
    // A mapped address is dialled as the IPv4 address it maps, so it is that host.
    address.map(|address| Host::Address(address.to_canonical())).map_err(|_| format!("{text:?} is not an IPv6 address"))
}

/// What one pass over an ASCII name found.
enum Shape {
    /// It is canonical as it stands.
    Canonical,
    /// Canonical, but a label begins with `xn--`, which only IDNA can judge.
    Encoded,
    /// Its last label is a number, so it is an IPv4 address or nothing.
    Numeric,
    /// It is not a name, for this reason.
    Refused(&'static str),
}

/// Looks at `name`, which has no trailing dot, in one pass. Only lower-case ASCII is canonical.
fn shape(name: &str) -> Shape {
    if name.is_empty() {
        return Shape::Refused("it is empty");
    }
    if name.len() > MAX_HOST_BYTES {
        return Shape::Refused("it is longer than 253 bytes");
    }
    let mut encoded = false;
    let mut last = "";
    for label in name.split('.') {
        if let Err(why) = label_shape(label) {
            return Shape::Refused(why);
        }
        encoded |= label.starts_with("xn--");
        last = label;
    }
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Shape::Numeric;
    }
    if encoded { Shape::Encoded } else { Shape::Canonical }
}

fn label_shape(label: &str) -> Result<(), &'static str> {
    let bytes = label.as_bytes();
    match bytes {
        [] => return Err("a label is empty"),
        [b'-', ..] | [.., b'-'] => return Err("a label begins or ends with '-'"),
        _ if bytes.len() > MAX_LABEL_BYTES => return Err("a label is longer than 63 bytes"),
        _ => {}
    }
    // The underscore is not in RFC 1123, but it is in names that people must reach.
    let known = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if bytes.iter().all(known) { Ok(()) } else { Err("it holds a character that no host name has") }
}

/// A name, lower-cased and encoded as IDNA says, or a dotted IPv4 address.
fn name_or_ipv4(text: &str) -> Result<Host, String> {
    let refuse = |why: &str| Err(format!("{text:?} is not a host: {why}"));
    let bare = text.strip_suffix('.').unwrap_or(text);
    let ascii = bare.is_ascii();
    let lower = if ascii && bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    };
    let shape_of_ascii = if ascii { shape(&lower) } else { Shape::Encoded };
    match shape_of_ascii {
        Shape::Canonical => Ok(Host::Name(Arc::from(lower.as_ref()))),
        Shape::Refused(why) => refuse(why),
        Shape::Numeric => match lower.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Host::Address(address.into())),
            Err(_) => refuse("it ends in a number, and only four decimal numbers without leading zeros are an IPv4 address"),
        },
        Shape::Encoded => {
            let encoded = Uts46::new().to_ascii(lower.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Verify);
            match encoded.as_deref().map(|name| (name, shape(name))) {
                Ok((name, Shape::Canonical | Shape::Encoded)) => Ok(Host::Name(Arc::from(name))),
                Ok((_, Shape::Numeric)) => refuse("an address is written in ASCII digits"),
                Ok((_, Shape::Refused(why))) => refuse(why),
                Err(_) => refuse("it is not a valid internationalised name (UTS 46)"),
            }
        }
    }
}

impl Host {
    /// Its name; none for an address.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

/// Every name above `name`, the nearest first, each with its number of labels: `b.c` and `c` for `a.b.c`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = (usize, &str)> {
    let labels = name.bytes().filter(|&byte| byte == b'.').count();
    let starts = name.bytes().enumerate().filter(|&(_, byte)| byte == b'.').map(|(at, _)| at + 1);
    starts.enumerate().map(move |(nth, start)| (labels - nth, &name[start..]))
}

impl HostPattern {
    /// Whether `host` is meant.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Suffix(suffix), Host::Name(name)) => {
                name.strip_suffix(suffix.as_ref()).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
            }
            (Self::Suffix(_), Host::Address(_)) => false,
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Most requests name their host as it is registered, and end here.
        if matches!(shape(text), Shape::Canonical) {
            return Ok(Self::Name(Arc::from(text)));
        }
        if text.len() > MAX_INPUT_BYTES {
            return Err("the host is far longer than the 253 bytes that a name may have".to_owned());
        }
        if let Some(rest) = text.strip_prefix('[') {
            return match rest.strip_suffix(']') {
                Some(inside) => ipv6(inside),
                None => Err(format!("{text:?} opens a bracket and never closes it")),
            };
        }
        if text.contains('@') {
            return Err("a host must not carry user information: leave out everything up to '@'".to_owned());
        }
        if text.contains(':') {
            return ipv6(text);
        }
        name_or_ipv4(text)
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

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('*') else {
            return text.parse().map(Self::Exact);
        };
        let suffix = rest
            .strip_prefix('.')
            .ok_or_else(|| format!("{text:?}: a '*' stands for whole labels at the beginning, as in \"*.example.com\""))?;
        match suffix.parse()? {
            Host::Name(name) => Ok(Self::Suffix(name)),
            Host::Address(_) => Err(format!("{text:?}: nothing is below an address; write the address alone")),
        }
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
