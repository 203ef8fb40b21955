//! Time, as the gateway sees it.

use crate::host;
use std::time::Duration;

/// The time since 1970.
pub fn since_epoch() -> Duration {
    Duration::from_nanos(host::now_ns())
}

/// A clock that never goes back, from an arbitrary start.
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::monotonic_ns())
}
