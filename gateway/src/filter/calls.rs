//! The host functions: what a filter may call while it is being called.

use super::{
    bindings::tidegate::filter::{
        attributes, audit, host, telemetry,
        types::{self, Attr, HeaderError, HeaderOp},
    },
    headers::{self, Change, Refusal},
    state::{HeadersView, State},
};
use std::time::SystemTime;
use wasmtime::{bail, component::Resource};

/// Most random bytes in one call.
const RANDOM_BYTES: u32 = 4096;

impl State {
    /// The headers that `handle` was lent for. The component model already refuses handles that were given back; the
    /// number guards against a handle of another callback.
    fn lent(&self, handle: &Resource<HeadersView>) -> wasmtime::Result<&http::HeaderMap> {
        if self.lent == Some(handle.rep()) { Ok(&self.headers) } else { bail!("a headers handle was used after its callback") }
    }
}

impl types::Host for State {}

impl types::HostHeaders for State {
    fn get(&mut self, handle: Resource<HeadersView>, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(headers::get(self.lent(&handle)?, &name).map(|value| value.as_bytes().to_vec()))
    }

    fn get_all(&mut self, handle: Resource<HeadersView>, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        let lent = self.lent(&handle)?;
        if headers::get(lent, &name).is_none() {
            return Ok(Vec::new());
        }
        Ok(lent.get_all(name.as_str()).iter().map(|value| value.as_bytes().to_vec()).collect())
    }

    fn get_many(&mut self, handle: Resource<HeadersView>, names: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        let lent = self.lent(&handle)?;
        Ok(names.iter().map(|name| headers::get(lent, name).map(|value| value.as_bytes().to_vec())).collect())
    }

    fn entries(&mut self, handle: Resource<HeadersView>) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        let lent = self.lent(&handle)?.iter().filter(|(name, _)| headers::visible(name));
        Ok(lent.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn apply(&mut self, handle: Resource<HeadersView>, ops: Vec<HeaderOp>) -> wasmtime::Result<Result<(), HeaderError>> {
        self.lent(&handle)?;
        let changes: Result<Vec<_>, Refusal> = ops.into_iter().map(change).collect();
        let room = self.room();
        if self.undoable && self.before.is_none() {
            self.before = Some(self.headers.clone());
        }
        let applied = changes.and_then(|changes| headers::apply(&mut self.headers, changes, room));
        Ok(applied.map_err(|refusal| {
            self.metrics.headers_refused.add(1);
            match refusal {
                Refusal::Invalid => HeaderError::Invalid,
                Refusal::Immutable => HeaderError::Immutable,
                Refusal::TooLarge => HeaderError::TooLarge,
                Refusal::TooMany => HeaderError::TooMany,
            }
        }))
    }

    /// Handles are only ever lent, so there is nothing to drop.
    fn drop(&mut self, _handle: Resource<HeadersView>) -> wasmtime::Result<()> {
        Ok(())
    }
}

fn change(op: HeaderOp) -> Result<Change, Refusal> {
    Ok(match op {
        HeaderOp::Set((name, value)) => Change::Set(headers::writable(&name)?, headers::value(value)?),
        HeaderOp::Append((name, value)) => Change::Append(headers::writable(&name)?, headers::value(value)?),
        HeaderOp::Remove(name) => Change::Remove(headers::writable(&name)?),
    })
}

impl attributes::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Attr>> {
        Ok(self.known.as_ref().and_then(|known| known.attribute(&name)))
    }
}

impl audit::Host for State {
    fn emit(&mut self, kind: String, outcome: audit::Outcome, fields: Vec<(String, Attr)>) -> wasmtime::Result<bool> {
        let outcome = match outcome {
            audit::Outcome::Allowed => "allowed",
            audit::Outcome::Denied => "denied",
            audit::Outcome::Modified => "modified",
            audit::Outcome::Error => "error",
        };
        Ok(self.record(kind, outcome, fields))
    }
}

impl telemetry::Host for State {
    fn enabled(&mut self, level: telemetry::Level) -> wasmtime::Result<bool> {
        use telemetry::Level;
        Ok(match level {
            Level::Trace => tracing::enabled!(target: "tidegate::filter", tracing::Level::TRACE),
            Level::Debug => tracing::enabled!(target: "tidegate::filter", tracing::Level::DEBUG),
            Level::Info => tracing::enabled!(target: "tidegate::filter", tracing::Level::INFO),
            Level::Warn => tracing::enabled!(target: "tidegate::filter", tracing::Level::WARN),
            Level::Error | Level::Critical => tracing::enabled!(target: "tidegate::filter", tracing::Level::ERROR),
        })
    }

    fn log(&mut self, level: telemetry::Level, message: String) -> wasmtime::Result<()> {
        use telemetry::Level;
        if !self.log.take() {
            self.metrics.logs_dropped.add(1);
            return Ok(());
        }
        let message = loggable(message, self.limits.log_bytes);
        let plugin = &*self.plugin;
        match level {
            Level::Trace => tracing::trace!(target: "tidegate::filter", plugin, "{message}"),
            Level::Debug => tracing::debug!(target: "tidegate::filter", plugin, "{message}"),
            Level::Info => tracing::info!(target: "tidegate::filter", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "tidegate::filter", plugin, "{message}"),
            Level::Error | Level::Critical => tracing::error!(target: "tidegate::filter", plugin, "{message}"),
        }
        Ok(())
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
