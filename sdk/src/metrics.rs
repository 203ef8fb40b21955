//! Metrics of the filter's own, on the gateway's `/metrics` under the plugin's name and theirs, summed over workers and
//! routes.
//!
//! A name is a lower-case letter and then at most 63 lower-case letters, digits and underscores. What has another name, or is
//! over the gateway's limit on their number, counts nothing. Make them in `Filter::new`, not for each exchange.

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
