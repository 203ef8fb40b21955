//! Settings: flags over environment over file over defaults, every mistake reported with its setting and its source.
//!
//! `table` lists every knob once: name, default, meaning, and where its value goes. Flags, environment variables, keys of
//! the file and `docs/settings.md` all come from that table.

mod control;
mod layers;
mod range;
mod table;
mod value;

pub use control::Control;
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
    /// Limits of the REST API and of what it keeps.
    pub control: Control,
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
            otlp: telemetry::otlp::Settings::default(),
            filter: filter::Limits::default(),
            upstream: upstream::Settings::default(),
            http: http::Settings::default(),
            pseudonym: None,
            identity: identity::Settings::default(),
            control: Control::default(),
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
        found.extend(range::leaves(self));
        found
    }
}
