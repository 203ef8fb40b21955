//! What filters may call at any time: the gateway's log, its configuration, clocks and random numbers.

use super::{
    bindings::tidegate::filter::{host, telemetry::Level},
    limits::Metrics,
    state::{LogBudget, State},
};
use std::time::SystemTime;
use wasmtime::{
    StoreContextMut, bail,
    component::{HasSelf, Linker},
};

/// Most random bytes in one call.
const RANDOM_BYTES: u32 = 4096;

/// Offers the interfaces `telemetry` and `host`.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut telemetry = linker.instance("tidegate:filter/telemetry@0.1.0")?;
    telemetry.func_wrap("enabled", |_: StoreContextMut<'_, State>, (level,): (Level,)| Ok((enabled(level),)))?;
    telemetry.func_wrap("log", |mut call: StoreContextMut<'_, State>, (level, message): (Level, String)| {
        log(call.data_mut(), level, message);
        Ok(())
    })?;
    host::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

pub(super) fn enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: "tidegate::filter", tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: "tidegate::filter", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "tidegate::filter", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "tidegate::filter", tracing::Level::WARN),
        Level::Error | Level::Critical => tracing::enabled!(target: "tidegate::filter", tracing::Level::ERROR),
    }
}

fn log(state: &mut State, level: Level, message: String) {
    let State { plugin, log, metrics, limits, .. } = state;
    Log { plugin, budget: log, metrics, limit: limits.log_bytes }.write(level, message);
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
    pub(super) fn write(self, level: Level, message: String) {
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
fn loggable(mut message: String, limit: usize) -> String {
    if message.len() > limit {
        message.truncate(message.floor_char_boundary(limit));
        message.push('…');
    }
    if message.chars().any(char::is_control) {
        message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    message
}

impl host::Host for State {
    fn config(&mut self) -> wasmtime::Result<Vec<u8>> {
        Ok(self.config.to_vec())
    }

    fn now_ns(&mut self) -> wasmtime::Result<u64> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn random(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_BYTES {
            bail!("{len} random bytes were asked for in one call; at most {RANDOM_BYTES} are given");
        }
        let mut bytes = vec![0; len as usize];
        match aws_lc_rs::rand::fill(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(_) => bail!("the system's random number generator failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_pass_for_two() {
        assert_eq!(loggable("a\nERROR b\u{1b}[0m".to_owned(), 100), "a ERROR b [0m");
        assert_eq!(loggable("äää".to_owned(), 3), "ä…");
    }
}
