//! What a filter writes to the gateway's log, kept in memory.

use super::report::Logged;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines of JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Keeps what filters log while `work` runs, on this thread.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let lines = tracing_subscriber::fmt().json().with_env_filter(EnvFilter::new("tidegate::filter=trace"));
        tracing::subscriber::with_default(lines.with_writer(self.clone()).finish(), work)
    }

    /// The messages, in order.
    pub(super) fn messages(&self) -> Vec<Logged> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = kept.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .map(|line| Logged { level: text(&line["level"]).to_lowercase(), message: text(&line["fields"]["message"]) })
            .collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
