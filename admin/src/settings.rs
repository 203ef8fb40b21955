//! What an operator can set about the control plane, and what it is unless set.

use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tidegate_policy::{credential::Secret, snapshot::Mode};

/// Settings of the control plane. Every limit's reason stands beside its default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the databases, keys and the first token live. Made if absent.
    pub data_dir: PathBuf,
    /// Where the API listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What becomes of exchanges that no rule matches.
    pub mode: Mode,
    /// The key that credentials are sealed with, base64 of 32 bytes (`TIDEGATE_KEY`); absent, `DIR/tidegate.key`.
    pub key: Option<Secret>,
    /// Called on threads whose work nobody waits for, before they begin it.
    pub give_way: fn(),
    /// Largest JSON document accepted, in bytes (`document_bytes`).
    pub document_bytes: usize,
    /// Largest plugin accepted, in bytes (`filter_module_bytes`).
    pub module_bytes: usize,
    /// Bytes of requests' bodies in memory at once, all connections together, but always one of the largest (`api_body_bytes`).
    pub api_body_bytes: usize,
    /// API connections open at once (`api_connections`).
    pub api_connections: usize,
    /// How long a caller may take to send a request's head (`api_header_timeout`).
    pub api_header_timeout: Duration,
    /// How long a caller may take to send a request's body, or to take a part of an answer (`api_body_timeout`).
    pub api_body_timeout: Duration,
    /// How long open requests and queued records may take to finish at a stop (`api_drain_timeout`).
    pub api_drain_timeout: Duration,
    /// Records waiting to be stored, in bytes; more are dropped and counted (`exchange_queue_bytes`).
    pub exchange_queue_bytes: usize,
    /// How long records are kept (`exchange_max_age`).
    pub exchange_max_age: Duration,
    /// How much of them is kept, in bytes as they are packed (`exchange_max_bytes`).
    pub exchange_max_bytes: u64,
    /// Callers that may follow the records at once (`exchange_followers`).
    pub exchange_followers: usize,
}

impl Settings {
    /// Bytes that bodies may take together.
    pub(crate) fn largest_bodies(&self) -> usize {
        self.api_body_bytes.max(self.module_bytes).max(self.document_bytes)
    }

    /// The defaults, with data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            // Loopback: whoever wants the API reachable has to say so.
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            mode: Mode::default(),
            key: None,
            give_way: || {},
            // A rule with thousands of entries fits; a body that costs noticeable memory does not.
            document_bytes: 1 << 20,
            // Filters of garbage-collected languages bring their runtime: some 10 MiB.
            module_bytes: 32 << 20,
            // Four plugins of the largest kind, or a document for half of all connections.
            api_body_bytes: 128 << 20,
            // Operators, dashboards and scrapers, not traffic.
            api_connections: 256,
            api_header_timeout: Duration::from_secs(10),
            // 16 MiB over a poor line still fits.
            api_body_timeout: Duration::from_secs(60),
            // Below the 30 s that orchestrators grant between SIGTERM and SIGKILL.
            api_drain_timeout: Duration::from_secs(10),
            // Some 100,000 records: a stall of the disk of a few seconds at full load.
            exchange_queue_bytes: 64 << 20,
            exchange_max_age: Duration::from_secs(7 * 24 * 3600),
            exchange_max_bytes: 1 << 30,
            exchange_followers: 32,
        }
    }
}
