//! Calls into the gateway that concern no exchange: log, metrics, shared values, clocks.

use crate::{
    bindings::tidegate::filter::{host, kv, telemetry},
    kv::{Entry, KvError},
    log::Level,
};

pub(crate) use telemetry::{Counter, Gauge, Histogram};

pub(crate) fn log_enabled(level: Level) -> bool {
    telemetry::enabled(wire(level))
}

pub(crate) fn log(level: Level, message: &str) {
    telemetry::log(wire(level), message);
}

fn wire(level: Level) -> telemetry::Level {
    match level {
        Level::Trace => telemetry::Level::Trace,
        Level::Debug => telemetry::Level::Debug,
        Level::Info => telemetry::Level::Info,
        Level::Warn => telemetry::Level::Warn,
        Level::Error => telemetry::Level::Error,
        Level::Critical => telemetry::Level::Critical,
    }
}

pub(crate) fn kv_get(key: &str) -> Option<Entry> {
    kv::get(key).map(|entry| Entry { value: entry.value, version: entry.version })
}

pub(crate) fn kv_set(key: &str, value: &[u8], ttl_ms: Option<u32>) -> Result<u64, KvError> {
    kv::set(key, value, ttl_ms).map_err(kv_error)
}

pub(crate) fn kv_compare_and_set(key: &str, value: &[u8], expect: u64, ttl_ms: Option<u32>) -> Result<u64, KvError> {
    kv::compare_and_set(key, value, expect, ttl_ms).map_err(kv_error)
}

pub(crate) fn kv_increment(key: &str, delta: i64, ttl_ms: Option<u32>) -> Result<i64, KvError> {
    kv::increment(key, delta, ttl_ms).map_err(kv_error)
}

pub(crate) fn kv_remove(key: &str) {
    kv::remove(key);
}

fn kv_error(error: kv::KvError) -> KvError {
    match error {
        kv::KvError::TooLarge => KvError::TooLarge,
        kv::KvError::Full => KvError::Full,
        kv::KvError::Mismatch => KvError::Mismatch,
    }
}

pub(crate) fn config() -> Vec<u8> {
    host::config()
}

pub(crate) fn now_ns() -> u64 {
    host::now_ns()
}

pub(crate) fn monotonic_ns() -> u64 {
    host::monotonic_ns()
}

pub(crate) fn random(count: u32) -> Vec<u8> {
    host::random(count)
}
