//! Whom an entry of a filter's configuration is about: callers, hosts, paths and headers.
//!
//! It owns the selector and how it is checked and matched; what is done with a match is the filter's own. Identity comes from
//! the gateway alone; headers are the caller's word, and the configuration reference of a filter has to say so.

mod facts;
mod path;
mod pattern;
mod selector;

pub use facts::{Facts, Seen};
pub use pattern::{HostPattern, PathPattern, TextPattern};
pub use selector::Selector;

/// Whether this is a header's name (RFC 9110 section 5.1).
pub fn is_header_name(name: &str) -> bool {
    const OTHER: &[u8] = b"!#$%&'*+-.^_`|~";
    !name.is_empty() && name.len() <= 256 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || OTHER.contains(&byte))
}
