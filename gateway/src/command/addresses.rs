//! Where a running gateway listens: printed for people, and kept in `DIR/addresses.json` for programs.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Addresses {
    /// The plaintext proxy.
    pub(super) proxy: SocketAddr,
    /// The mutual TLS proxy, where it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mtls: Option<SocketAddr>,
    /// The REST API.
    pub(super) admin: SocketAddr,
    /// Metrics and health.
    pub(super) metrics: SocketAddr,
}

impl Addresses {
    /// The lines that people read.
    pub(super) fn lines(&self) -> String {
        let mutual = self.mtls.map(|address| format!("mutual TLS proxy on {address}\n")).unwrap_or_default();
        format!(
            "proxy on {}\n{mutual}REST API on http://{}\nmetrics on http://{}/metrics",
            self.proxy, self.admin, self.metrics
        )
    }

    /// Writes the file whole or not at all.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let whole = file(data_dir);
        let partial = whole.with_extension("json.new");
        std::fs::write(&partial, serde_json::to_vec(self)?)?;
        std::fs::rename(partial, whole)
    }

    /// Reads the file of the gateway that was started last in `data_dir`.
    pub(super) fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file(data_dir)).ok()?).ok()
    }

    /// Removes the file: nothing listens there any more.
    pub(super) fn remove(data_dir: &Path) {
        // What cannot be removed is overwritten by the next start.
        let _ = std::fs::remove_file(file(data_dir));
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("addresses.json")
}
