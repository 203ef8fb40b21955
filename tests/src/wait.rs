//! Waiting for a condition. The one place in the tests that lets time pass.

use std::time::{Duration, Instant};

/// Far longer than anything takes on a loaded machine; only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How often a condition is looked at. Short against every limit that is tested, long against a look.
const EVERY: Duration = Duration::from_millis(5);

/// Looks until `condition` yields something, and says `what` it waited for when that takes longer than [`LIMIT`].
pub async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(LIMIT, what, condition).await
}

/// As [`until`], with a limit of the caller's own.
pub async fn within<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(EVERY).await;
    }
}

/// The output of `future`, which must come within [`LIMIT`].
pub async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {LIMIT:?} in vain for {what}"),
    }
}
