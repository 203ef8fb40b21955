//! Values that the plugin's instances on all workers and routes share, in the gateway's memory: a restart empties it. No
//! other plugin sees them.
//!
//! ```
//! # use tidegate_sdk::{*, testing::{Driver, Message}};
//! # struct Example;
//! # impl Filter for Example {
//! #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
//! fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
//!     let team = head.text("x-team").unwrap_or_default();
//!     // Ten requests in a minute, of all instances together.
//!     match kv::increment(team, 1, Some(std::time::Duration::from_secs(60))) {
//!         Ok(count) if count <= 10 => Flow::Proceed,
//!         Ok(_) => Flow::Reply(Reply::new(StatusCode::TOO_MANY_REQUESTS).details("over ten in a minute")),
//!         Err(error) => Flow::Reply(Reply::new(StatusCode::SERVICE_UNAVAILABLE).details(error.to_string())),
//!     }
//! }
//! # }
//! # let driver = Driver::<Example>::new(serde_json::json!(null)).unwrap();
//! let answered = || driver.exchange().request([("x-team", "checkout")]).replied().is_some();
//! assert!((0..10).all(|_| !answered()) && answered());
//! driver.advance(std::time::Duration::from_secs(60));
//! assert!(!answered());
//! ```

use crate::host;
use std::{fmt, time::Duration};

/// A value, and the version that [`compare_and_set`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Changes whenever the value is set. Never 0.
    pub version: u64,
}

/// Why a value was not set. It is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvError {
    /// The key or value is larger than the gateway's limit.
    TooLarge,
    /// The gateway's limit on entries or bytes is reached.
    Full,
    /// The value is not of the version that was expected, or no number where one is incremented.
    Mismatch,
}

/// The value of `key` and its version.
pub fn get(key: impl AsRef<str>) -> Option<Entry> {
    host::kv_get(key.as_ref())
}

/// Sets the value, whatever it was; answers its version. It is forgotten after `ttl`, which counts in milliseconds.
pub fn set(key: impl AsRef<str>, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<u64, KvError> {
    host::kv_set(key.as_ref(), value.as_ref(), ttl.map(milliseconds))
}

/// Sets the value if it has the version `expect` still; 0 means that there is none. Answers its new version.
pub fn compare_and_set(
    key: impl AsRef<str>,
    value: impl AsRef<[u8]>,
    expect: u64,
    ttl: Option<Duration>,
) -> Result<u64, KvError> {
    host::kv_compare_and_set(key.as_ref(), value.as_ref(), expect, ttl.map(milliseconds))
}

/// Adds to a value that is a number (a signed one of 8 bytes, little-endian), 0 where there is none; answers the sum, which
/// stops at the ends of the range. `ttl` counts from the first.
pub fn increment(key: impl AsRef<str>, delta: i64, ttl: Option<Duration>) -> Result<i64, KvError> {
    host::kv_increment(key.as_ref(), delta, ttl.map(milliseconds))
}

/// Forgets the value.
pub fn remove(key: impl AsRef<str>) {
    host::kv_remove(key.as_ref());
}

/// Rounded up, so that a short time does not become none; what is too long for the contract (49 days) is cut to it.
pub(crate) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the key or value is too large (settings filter_kv_key_bytes and filter_kv_value_bytes)",
            Self::Full => "no room for more shared values (settings filter_kv_entries and filter_kv_bytes)",
            Self::Mismatch => "the value is not what was expected",
        })
    }
}

impl std::error::Error for KvError {}
