//! What filters may call at any time: the gateway's log, its configuration, clocks and random numbers.

use super::{
    bindings::tidegate::filter::telemetry::Level,
    limits::Metrics,
    state::{LogBudget, State},
};
use std::{borrow::Cow, time::SystemTime};
use wasmtime::{Result, bail};

/// Most random bytes in one call.
const RANDOM_BYTES: u32 = 4096;

/// Whether a message of this level would be written.
pub(super) fn enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: "tidegate::filter", tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: "tidegate::filter", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "tidegate::filter", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "tidegate::filter", tracing::Level::WARN),
        Level::Error | Level::Critical => tracing::enabled!(target: "tidegate::filter", tracing::Level::ERROR),
    }
}

impl State {
    /// Writes to the gateway's log.
    pub(super) fn log(&mut self, level: Level, message: &str) {
        let Self { plugin, log, metrics, limits, .. } = self;
        Log { plugin, budget: log, metrics, limit: limits.log_bytes }.write(level, message);
    }

    /// Nanoseconds of a clock that never goes back.
    pub(super) fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes of the system's random number generator.
pub(super) fn random(length: u32) -> Result<Vec<u8>> {
    if length > RANDOM_BYTES {
        bail!("{length} random bytes were asked for in one call; at most {RANDOM_BYTES} are given");
    }
    let mut bytes = vec![0; length as usize];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => bail!("the system's random number generator failed"),
    }
}

/// The gateway's log as a filter has it.
pub(super) struct Log<'a> {
    pub(super) plugin: &'a str,
    pub(super) budget: &'a mut LogBudget,
    pub(super) metrics: &'a Metrics,
    /// Bytes of one message.
    pub(super) limit: usize,
}

impl Log<'_> {
    /// Writes a message, unless the filter has had its share.
    pub(super) fn write(self, level: Level, message: &str) {
        let Self { plugin, budget, metrics, limit } = self;
        if !budget.take() {
            metrics.logs_dropped.add(1);
            return;
        }
        let message = loggable(message, limit);
        match level {
            Level::Trace => tracing::trace!(target: "tidegate::filter", plugin, "{message}"),
            Level::Debug => tracing::debug!(target: "tidegate::filter", plugin, "{message}"),
            Level::Info => tracing::info!(target: "tidegate::filter", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "tidegate::filter", plugin, "{message}"),
            Level::Error | Level::Critical => tracing::error!(target: "tidegate::filter", plugin, "{message}"),
        }
    }
}

/// The message cut to size and without control characters, which could pass for other lines of the log.
fn loggable(message: &str, limit: usize) -> Cow<'_, str> {
    let cut = &message[..message.floor_char_boundary(limit)];
    let is_whole = cut.len() == message.len();
    if is_whole && !message.chars().any(char::is_control) {
        return Cow::Borrowed(message);
    }
    let clean = cut.chars().map(|c| if c.is_control() { ' ' } else { c });
    Cow::Owned(clean.chain((!is_whole).then_some('…')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_pass_for_two() {
        assert_eq!(loggable("a\nERROR b\u{1b}[0m", 100), "a ERROR b [0m");
        assert_eq!(loggable("äää", 3), "ä…");
    }
}
