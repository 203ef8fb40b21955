//! Which addresses may be dialled: the address guard.

use ipnet::IpNet;
use std::net::IpAddr;

/// What an address is, by the IANA special-purpose address registries (RFC 6890) and by what it embeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Globally reachable unicast.
    Global,
    /// Anything else; the word says which kind.
    Refused(&'static str),
}

/// What `address` is. An IPv6 address that embeds an IPv4 one (mapped, compatible, translated, NAT64 well-known and
/// local-use, 6to4, Teredo, ISATAP) is what the embedded address is, and is never better than that.
pub fn classify(_address: IpAddr) -> Class {
    unimplemented!()
}

/// Whether `address` may be dialled for a service that lists `networks`. The error says what the address is.
///
/// A refused address is permitted if it, or the IPv4 address it embeds, lies in one of `networks`.
pub fn guard(_address: IpAddr, _networks: &[IpNet]) -> Result<(), &'static str> {
    unimplemented!()
}
