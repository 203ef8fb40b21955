//! Settings: flags over environment over file over defaults, every mistake reported with its setting and its source.
//!
//! `table` lists every knob once: name, default, meaning, and where its value goes. Flags, environment variables, keys of
//! the file and `docs/settings.md` all come from that table.

mod layers;
mod table;
mod value;

pub use layers::{Mistakes, Sources, read};
pub use table::{DEFINITIONS, Definition, document};

use crate::{filter, http, http::forward::Pseudonym, identity, listen, record, telemetry, upstream, worker};
use std::{net::SocketAddr, path::PathBuf};
use tidegate_policy::snapshot::Mode;

/// Everything that can be set about a gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where databases, keys and the first token live.
    pub data_dir: PathBuf,
    /// Where the REST API listens.
    pub admin_listen: SocketAddr,
    /// Where metrics and health are served.
    pub metrics_listen: SocketAddr,
    /// What becomes of exchanges that no rule matches.
    pub mode: Mode,
    /// The mutual TLS listener's key material; it is off without.
    pub mutual: MutualFiles,
    /// Services with metric series of their own.
    pub service_series: usize,
    /// What is logged about the gateway itself.
    pub log: String,
    /// How those lines are written.
    pub log_format: LogFormat,
    /// The listeners.
    pub listen: listen::Settings,
    /// The workers.
    pub workers: worker::Settings,
    /// The records.
    pub record: record::Settings,
    /// Limits of the control plane.
    pub control: Control,
    /// The export of telemetry.
    pub otlp: telemetry::otlp::Settings,
    /// Limits on filters.
    pub filter: filter::Limits,
    /// The way out.
    pub upstream: upstream::Settings,
    /// HTTP on both sides, and tunnels.
    pub http: http::Settings,
    /// How the gateway calls itself in `Via`; one that is kept in the data directory where it is not set.
    pub pseudonym: Option<Pseudonym>,
    /// Tokens that callers bring.
    pub identity: identity::Settings,
}

/// The mutual TLS listener's key material, PEM files all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MutualFiles {
    /// The gateway's certificate chain.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Whose client certificates are believed.
    pub client_ca: Option<PathBuf>,
}

/// Limits of the control plane; what each is for stands beside the control plane's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Records waiting to be stored, in bytes.
    pub exchange_queue_bytes: usize,
    /// How long records are kept.
    pub exchange_max_age: std::time::Duration,
    /// How much of them is kept, in bytes.
    pub exchange_max_bytes: u64,
    /// Callers that may follow the records at once.
    pub exchange_followers: usize,
    /// Largest document, in bytes.
    pub document_bytes: usize,
    /// Connections to the API open at once.
    pub api_connections: usize,
    /// Time for a request's head.
    pub api_header_timeout: std::time::Duration,
    /// Time for a request's body.
    pub api_body_timeout: std::time::Duration,
    /// Time for open requests and queued records at a stop.
    pub api_drain_timeout: std::time::Duration,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            // Some 100,000 records: a stall of the disk of a few seconds at full load.
            exchange_queue_bytes: 64 << 20,
            // A week, unless a GiB is full before.
            exchange_max_age: std::time::Duration::from_secs(7 * 24 * 3600),
            exchange_max_bytes: 1 << 30,
            exchange_followers: 32,
            // A rule with thousands of entries fits; a body that costs noticeable memory does not.
            document_bytes: 1 << 20,
            // Operators, dashboards and scrapers, not traffic.
            api_connections: 256,
            api_header_timeout: std::time::Duration::from_secs(10),
            // A module of 16 MiB over a poor line still fits.
            api_body_timeout: std::time::Duration::from_secs(60),
            // Below the 30 s that orchestrators grant between SIGTERM and SIGKILL.
            api_drain_timeout: std::time::Duration::from_secs(10),
        }
    }
}

/// How the gateway's own log is written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            // Loopback: whoever wants the API reachable has to say so.
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            // Scrapers and the kubelet come from elsewhere, and what they read is not secret.
            metrics_listen: SocketAddr::from(([0, 0, 0, 0], 7071)),
            mode: Mode::default(),
            mutual: MutualFiles::default(),
            service_series: telemetry::exchanges::DEFAULT_SERVICE_SERIES,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            listen: listen::Settings::default(),
            workers: worker::Settings::default(),
            record: record::Settings::default(),
            control: Control::default(),
            otlp: telemetry::otlp::Settings::default(),
            filter: filter::Limits::default(),
            upstream: upstream::Settings::default(),
            http: http::Settings::default(),
            pseudonym: None,
            identity: identity::Settings::default(),
        }
    }
}

impl Settings {
    /// Whether the mutual TLS listener is on.
    pub fn has_mutual(&self) -> bool {
        self.mutual != MutualFiles::default()
    }

    /// What is wrong with the settings taken together: the setting's name and a sentence.
    fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let MutualFiles { certificate, key, client_ca } = &self.mutual;
        if self.has_mutual() {
            for (name, file) in [("mtls_certificate", certificate), ("mtls_key", key), ("mtls_client_ca", client_ca)] {
                if file.is_none() {
                    found.push((
                        name,
                        "is needed too: mutual TLS takes mtls_certificate, mtls_key and mtls_client_ca".to_owned(),
                    ));
                }
            }
        }
        if !(1..=256).contains(&self.workers.workers) {
            found.push(("workers", format!("{} is out of range: give 1 to 256", self.workers.workers)));
        }
        let positive = [
            ("max_connections", self.listen.max_connections),
            ("record_queue_batches", self.record.queue_batches),
            ("filter_memory_bytes", self.filter.memory_bytes),
            ("http_head_bytes", self.http.h1.head_bytes),
            ("http2_streams", self.http.h2.streams as usize),
            ("http2_head_bytes", self.http.h2.head_bytes as usize),
            ("streams_per_connection", self.upstream.streams_per_connection as usize),
        ];
        for (name, _) in positive.iter().filter(|(_, value)| *value == 0) {
            found.push((name, "0 would let nothing through: give 1 or more".to_owned()));
        }
        // The bound is the semaphore's and the queue's own.
        let bounded = [("max_connections", self.listen.max_connections), ("record_queue_batches", self.record.queue_batches)];
        for (name, _) in bounded.iter().filter(|(_, value)| *value > 10_000_000) {
            found.push((name, "is more than any machine can hold: give at most 10000000".to_owned()));
        }
        let h2 = &self.http.h2;
        let windows = [
            ("http2_stream_window_bytes", h2.stream_window_bytes),
            ("http2_connection_window_bytes", h2.connection_window_bytes),
        ];
        for (name, window) in windows {
            // RFC 9113 sections 6.5.2 and 6.9.1; below the protocol's own first window a connection only gets slower.
            if !(65_535..=(1 << 31) - 1).contains(&window) {
                found.push((name, format!("{window} is out of range: give 65535 to 2147483647")));
            }
        }
        if !(0.0..=1.0).contains(&self.otlp.sample_ratio) {
            found.push(("trace_sample_ratio", format!("{} is out of range: give 0 to 1", self.otlp.sample_ratio)));
        }
        if let Some(endpoint) = &self.otlp.endpoint
            && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        {
            found.push(("otlp_endpoint", format!("{endpoint:?} is not a URL: give http://HOST:PORT or https://HOST:PORT")));
        }
        found
    }
}
