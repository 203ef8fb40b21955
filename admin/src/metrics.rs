//! What the control plane counts, in the Prometheus text format.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// What the control plane counts. Shared by all of it; read by scrapes.
#[derive(Debug, Default)]
pub struct Metrics {
    /// API requests answered.
    pub requests: Counter,
    /// API connections refused because `api_connections` were open.
    pub connections_refused: Counter,
    /// API requests refused because `api_body_bytes` of bodies were in memory.
    pub bodies_refused: Counter,
    /// Changes committed.
    pub writes: Counter,
    /// Records stored.
    pub records_stored: Counter,
    /// Records dropped because `exchange_queue_bytes` were waiting, or the store failed.
    pub records_dropped: Counter,
    /// Records that followers missed because they read too slowly.
    pub records_missed: Counter,
    /// Batches of stored records that were asked for and are damaged.
    pub batches_unreadable: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// All of them in the Prometheus text format.
    pub fn text(&self) -> String {
        let all = [
            ("tidegate_api_requests_total", "API requests answered.", &self.requests),
            ("tidegate_api_connections_refused_total", "API connections refused at the limit.", &self.connections_refused),
            (
                "tidegate_api_bodies_refused_total",
                "API requests refused since as many bytes of bodies were in memory as may be.",
                &self.bodies_refused,
            ),
            ("tidegate_api_writes_total", "Changes committed.", &self.writes),
            ("tidegate_exchange_records_stored_total", "Exchange records stored.", &self.records_stored),
            (
                "tidegate_exchange_records_dropped_total",
                "Exchange records dropped before they were stored.",
                &self.records_dropped,
            ),
            ("tidegate_exchange_records_missed_total", "Exchange records that slow followers missed.", &self.records_missed),
            (
                "tidegate_exchange_batches_unreadable_total",
                "Batches of stored exchange records that were asked for, and left out since they are damaged.",
                &self.batches_unreadable,
            ),
        ];
        all.iter().fold(String::new(), |mut text, (name, help, counter)| {
            // Writing to a string cannot fail.
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", counter.value()).ok();
            text
        })
    }
}
