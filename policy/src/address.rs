//! Which addresses may be dialled: the address guard. It classifies what it is given and decodes what that embeds; it
//! never resolves a name, and knows nothing of the gateway's own listeners, which whoever dials must refuse besides.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, by the IANA special-purpose address registries (RFC 6890) and by what it embeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Globally reachable unicast.
    Global,
    /// Anything else; the word says which kind.
    Refused(&'static str),
}

impl Class {
    /// The class in words, fit to follow "the address is".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "globally reachable",
            Self::Refused(word) => word,
        }
    }

    /// The stricter of the two: whatever is refused stays refused.
    const fn and(self, other: Self) -> Self {
        match self {
            Self::Refused(_) => self,
            Self::Global => other,
        }
    }
}

/// What `address` is. An IPv6 address that embeds an IPv4 one (mapped, compatible, translated, NAT64 well-known,
/// 6to4, Teredo, ISATAP) is what the embedded address is, and is never better than that. Local-use NAT64 addresses
/// (RFC 8215) are refused whatever they embed, since where they embed it is each network's own choice (RFC 6052).
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => {
            embedded(address).into_iter().flatten().fold(classify_v6(address), |class, inner| class.and(classify_v4(inner)))
        }
    }
}

/// Whether `address` may be dialled for a service that lists `networks`. The error says what the address is.
///
/// A refused address is permitted if it, or the IPv4 address it embeds, lies in one of `networks`. Where it embeds two
/// (Teredo), each must be global or listed.
pub fn guard(address: IpAddr, networks: &[IpNet]) -> Result<(), &'static str> {
    let Class::Refused(word) = classify(address) else { return Ok(()) };
    let listed = |address: IpAddr| networks.iter().any(|network| network.contains(&address));
    if listed(address) {
        return Ok(());
    }
    let IpAddr::V6(outer) = address else { return Err(word) };
    let inner = embedded(outer);
    let embeds = inner.iter().any(Option::is_some);
    let passable = |inner: Ipv4Addr| classify_v4(inner) == Class::Global || listed(inner.into());
    if embeds && classify_v6(outer) == Class::Global && inner.into_iter().flatten().all(passable) { Ok(()) } else { Err(word) }
}

/// What `address` is, in a sentence: `::ffff:127.0.0.1 is loopback, since it embeds 127.0.0.1`.
pub fn describe(address: IpAddr) -> String {
    let word = classify(address).as_str();
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(outer) => embedded(outer).into_iter().flatten().find(|inner| classify_v4(*inner).as_str() == word),
    };
    match inner {
        Some(inner) => format!("{address} is {word}, since it embeds {inner}"),
        None => format!("{address} is {word}"),
    }
}

/// IPv4, by <https://www.iana.org/assignments/iana-ipv4-special-registry>.
const fn classify_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, 0, 0, 0] => Class::Refused("unspecified"),
        [0, ..] => Class::Refused("of this network (0.0.0.0/8)"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Refused("private"),
        [100, 64..=127, ..] => Class::Refused("shared by carriers (100.64.0.0/10)"),
        [127, ..] => Class::Refused("loopback"),
        [169, 254, ..] => Class::Refused("link-local"),
        // Port Control Protocol and TURN anycast: the two of this block that the registry calls globally reachable.
        [192, 0, 0, 9 | 10] => Class::Global,
        [192, 0, 0, _] => Class::Refused("reserved for protocols (192.0.0.0/24)"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Refused("for documentation"),
        [192, 88, 99, _] => Class::Refused("a deprecated 6to4 relay (192.88.99.0/24)"),
        [198, 18..=19, ..] => Class::Refused("for benchmarking"),
        [224..=239, ..] => Class::Refused("multicast"),
        [255, 255, 255, 255] => Class::Refused("broadcast"),
        [240..=255, ..] => Class::Refused("reserved"),
        _ => Class::Global,
    }
}

/// IPv6, by <https://www.iana.org/assignments/iana-ipv6-special-registry>, without what it embeds: forms that exist to
/// embed an IPv4 address are called global here, and the embedded address decides.
const fn classify_v6(address: Ipv6Addr) -> Class {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Refused("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Refused("loopback"),
        // Compatible, mapped, translated, NAT64, 6to4 and Teredo: the embedded address decides.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Class::Global,
        [0x2002, ..] | [0x2001, 0, ..] => Class::Global,
        [0x64, 0xff9b, 1, ..] => Class::Refused("translated by the local network (64:ff9b:1::/48)"),
        [0x100, 0, 0, 0, ..] => Class::Refused("discarded (100::/64)"),
        [0x100, 0, 0, 1, ..] => Class::Refused("a dummy prefix (100:0:0:1::/64)"),
        // The parts of 2001::/23 that the registry calls globally reachable: three anycast services, AMT, AS112,
        // ORCHIDv2 and DRIP.
        [0x2001, 1, 0, 0, 0, 0, 0, 1..=3] | [0x2001, 3, ..] | [0x2001, 4, 0x112, ..] | [0x2001, 0x20..=0x3f, ..] => {
            Class::Global
        }
        [0x2001, 2, 0, ..] => Class::Refused("for benchmarking"),
        [0x2001, 0x10..=0x1f, ..] => Class::Refused("a deprecated ORCHID (2001:10::/28)"),
        [0x2001, 0..=0x1ff, ..] => Class::Refused("reserved for protocols (2001::/23)"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Refused("for documentation"),
        [0x5f00, ..] => Class::Refused("a segment routing identifier (5f00::/16)"),
        [0xfc00..=0xfdff, ..] => Class::Refused("unique-local"),
        [0xfe80..=0xfebf, ..] => Class::Refused("link-local"),
        [0xfec0..=0xfeff, ..] => Class::Refused("site-local"),
        [0xff00..=0xffff, ..] => Class::Refused("multicast"),
        [0x2000..=0x3fff, ..] => Class::Global,
        _ => Class::Refused("reserved"),
    }
}

/// The IPv4 addresses that `address` embeds: that of its prefix's form, Teredo's server, and ISATAP's.
const fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 3] {
    let segments = address.segments();
    let isatap = match segments {
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(join(high, low)),
        _ => None,
    };
    let (form, server) = match segments {
        // `::` and `::1` are themselves, not compatible addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => (None, None),
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => (Some(join(high, low)), None),
        // RFC 4380 section 4: the server as it is, the client with every bit turned.
        [0x2001, 0, server_high, server_low, _, _, high, low] => (Some(join(!high, !low)), Some(join(server_high, server_low))),
        _ => (None, None),
    };
    [form, server, isatap]
}

const fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((high as u32) << 16 | low as u32)
}
