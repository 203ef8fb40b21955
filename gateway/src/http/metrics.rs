//! What HTTP counts beside the exchanges themselves, all workers together.

use crate::telemetry::{Counter, Gauge};
use std::sync::Arc;
use tidegate_policy::Reason;

/// What HTTP counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Request heads that broke the framing rules.
    pub heads_malformed: Counter,
    /// Request heads larger than `http_head_bytes`.
    pub heads_too_large: Counter,
    /// Request heads that were not complete within `http_head_timeout`.
    pub heads_late: Counter,
    /// Callers' connections that were told to close because the worker drains.
    pub drained: Counter,
    /// `100 Continue` answers sent to callers.
    pub continues: Counter,
    /// HTTP/2 streams that callers opened.
    pub streams: Counter,
    /// HTTP/2 streams of callers whose exchange has not been answered.
    pub streams_open: Gauge,
    /// Connections that switched protocols (101).
    pub upgrades: Counter,
    /// CONNECT tunnels opened.
    pub tunnels: Counter,
    /// Tunnels and switched connections open now.
    pub tunnels_open: Gauge,
    /// Bytes of tunnels that never left the kernel.
    pub tunnel_bytes_spliced: Counter,
    /// Pipes open for them.
    pub tunnel_pipes: Gauge,
    /// Exchanges refused by a route's `limits.rate`.
    pub limited_rate: Counter,
    /// Exchanges refused by a route's `limits.concurrent`.
    pub limited_concurrent: Counter,
    /// Attempts made again because a route's `retries` ask for it.
    pub retries: Counter,
    /// Attempts made again because a pooled connection had been closed, or the upstream said it had not begun.
    pub retries_stale: Counter,
}

/// One more of what a gauge counts, until it is dropped.
#[derive(Debug)]
pub struct Open {
    metrics: Arc<Metrics>,
    gauge: fn(&Metrics) -> &Gauge,
}

impl Metrics {
    /// Counts a head that was refused.
    pub fn head_refused(&self, reason: Reason) {
        match reason {
            Reason::HeaderTooLarge => self.heads_too_large.add(1),
            Reason::DownstreamTimeout => self.heads_late.add(1),
            _ => self.heads_malformed.add(1),
        }
    }

    /// Counts an exchange that a route's limits refused.
    pub fn limited(&self, reason: Reason) {
        match reason {
            Reason::RateLimited => self.limited_rate.add(1),
            _ => self.limited_concurrent.add(1),
        }
    }
}

impl Open {
    /// Adds one to `gauge`.
    pub fn one(metrics: &Arc<Metrics>, gauge: fn(&Metrics) -> &Gauge) -> Self {
        gauge(metrics).add(1);
        Self { metrics: Arc::clone(metrics), gauge }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).add(-1);
    }
}
