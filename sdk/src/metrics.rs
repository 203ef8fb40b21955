//! Metrics of the filter's own, on the gateway's `/metrics` under the plugin's name and theirs, summed over workers and
//! routes.
//!
//! A name is a lower-case letter and then at most 63 lower-case letters, digits and underscores. What has another name, or is
//! over the gateway's limit on their number, counts nothing. Make them in `Filter::new`, not for each exchange.
//!
//! ```
//! # use tidegate_sdk::{*, metrics::{Counter, Histogram}, testing::Driver};
//! struct Sizes {
//!     requests: Counter,
//!     paths: Histogram,
//! }
//!
//! impl Filter for Sizes {
//!     type Config = ();
//!     type State = ();
//!
//!     fn new((): ()) -> Result<Self, ConfigError> {
//!         Ok(Self { requests: Counter::new("requests"), paths: Histogram::new("path_bytes") })
//!     }
//!
//!     fn on_request(&self, _: &mut Exchange<()>, _: &mut Headers<'_>, _end: bool) -> Flow {
//!         self.requests.add(1);
//!         self.paths.observe(attributes::text("request.path").map_or(0, |path| path.len() as u64));
//!         Flow::Done
//!     }
//! }
//! # let driver = Driver::<Sizes>::new(serde_json::json!(null)).unwrap();
//! let exchange = driver.exchange().attribute("request.path", "/v1/orders").request([]);
//! assert_eq!((driver.counter("requests"), driver.histogram("path_bytes")), (1, vec![10]));
//! ```

use crate::host;

/// What only grows.
#[derive(Debug)]
pub struct Counter(host::Counter);

impl Counter {
    /// The counter of this name.
    pub fn new(name: &str) -> Self {
        Self(host::Counter::new(name))
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.add(amount);
    }
}

/// A value that is set, by whoever comes last, or moved up and down.
#[derive(Debug)]
pub struct Gauge(host::Gauge);

impl Gauge {
    /// The gauge of this name.
    pub fn new(name: &str) -> Self {
        Self(host::Gauge::new(name))
    }

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Moves it.
    pub fn add(&self, amount: i64) {
        self.0.add(amount);
    }
}

/// A distribution, in buckets of powers of two.
#[derive(Debug)]
pub struct Histogram(host::Histogram);

impl Histogram {
    /// The histogram of this name.
    pub fn new(name: &str) -> Self {
        Self(host::Histogram::new(name))
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        self.0.observe(value);
    }
}
