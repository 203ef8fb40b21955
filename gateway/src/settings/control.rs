//! The knobs of the control plane as the table of settings holds them. What they mean, and why they are what they are
//! unless set, is the control plane's to say; a test of the joining code keeps the two alike.

use std::time::Duration;

/// Limits of the REST API and of the records that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Largest JSON document accepted, in bytes.
    pub document_bytes: usize,
    /// Bytes of requests' bodies in memory at once, all connections together.
    pub body_bytes: usize,
    /// API connections open at once.
    pub connections: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for a request's body, and for a caller to take a part of its answer.
    pub body_timeout: Duration,
    /// Time for open requests, and then for queued records, at a stop.
    pub drain_timeout: Duration,
    /// Records waiting to be stored, in bytes.
    pub queue_bytes: usize,
    /// How long records are kept.
    pub max_age: Duration,
    /// How much of them is kept, in bytes.
    pub max_bytes: u64,
    /// Callers that may follow the records at once.
    pub followers: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            document_bytes: 1 << 20,
            body_bytes: 128 << 20,
            connections: 256,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            queue_bytes: 64 << 20,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
            followers: 32,
        }
    }
}
