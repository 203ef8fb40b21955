//! Verbs about what outlives an exchange: shared data and queues, metrics, properties, foreign functions, the clock and the log.

use crate::{exchange::Exchange, raw, script::Step};
use proxy_wasm::{
    hostcalls,
    types::{LogLevel, MetricType},
};
use std::time::{Duration, UNIX_EPOCH};

/// Whether the step's verb is one of these; it is done then.
pub(crate) fn act(exchange: &mut Exchange, step: &Step) -> bool {
    let (first, second) = (step.word(0), step.word(1));
    match step.verb.as_str() {
        "share" => exchange.note(format!("share: {:?}", hostcalls::set_shared_data(first, Some(second.as_bytes()), None))),
        "share-stale" => exchange.note(format!("share-stale: {:?}", stale(first, second))),
        "share-fresh" => exchange.note(format!("share-fresh: {:?}", fresh(first, second))),
        "shared" => {
            let (value, version) = hostcalls::get_shared_data(first).unwrap_or_default();
            let version = version.map(|version| version > 0);
            exchange.note(format!(
                "shared {first}: {:?} {version:?}",
                value.map(|value| String::from_utf8_lossy(&value).into_owned())
            ));
        }
        "queue" => queue(exchange, first, second),
        "metric" => metric(exchange, first, second, step.number(2)),
        "property" => {
            let value = hostcalls::get_property(first.split('.').collect());
            exchange.note(format!(
                "{first}: {}",
                value.map_or_else(|status| format!("{status:?}"), |value| bytes(value.as_deref()))
            ));
        }
        "set-property" => {
            let done = hostcalls::set_property(first.split('.').collect(), Some(second.as_bytes()));
            exchange.note(format!("set {first}: {done:?}"));
        }
        "foreign" => {
            let answer = hostcalls::call_foreign_function(first, Some(second.as_bytes()));
            exchange.note(format!("{first}: {:?}", answer.map(|answer| bytes(answer.as_deref()))));
        }
        "clock" => {
            let since = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
            exchange.note(format!("the clock is set: {}", since.is_some_and(|since| since.as_secs() > 1_700_000_000)));
        }
        "level" => exchange.note(format!("level: {:?}", hostcalls::get_log_level())),
        "log" => exchange.note(format!("log: {:?}", hostcalls::log(LogLevel::Info, first))),
        "tick" => {
            exchange.note(format!("tick: {:?}", hostcalls::set_tick_period(Duration::from_millis(step.number(0) as u64))))
        }
        _ => return false,
    }
    true
}

/// As the ABI has it, whatever the status.
pub(crate) fn attempt(exchange: &mut Exchange, verb: &str, step: &Step) -> Option<u32> {
    let path = step.word(0).replace('.', "\0");
    Some(match verb {
        "property" => {
            let (status, value) = raw::property(path.as_bytes());
            exchange.note(format!("property {}: {}", step.word(0), bytes(value.as_deref())));
            status
        }
        "set-property" => raw::set_property(path.as_bytes(), step.word(1).as_bytes()),
        "done" => raw::done(),
        "metric" => raw::metric(step.number(0) as u32).0,
        "increment" => raw::increment(step.number(0) as u32, 1),
        "record" => raw::record(step.number(0) as u32, 1),
        "enqueue" => raw::enqueue(step.number(0) as u32, step.word(1).as_bytes()),
        _ => return None,
    })
}

/// Writes with a version that was never given out.
fn stale(key: &str, value: &str) -> Result<(), proxy_wasm::types::Status> {
    hostcalls::set_shared_data(key, Some(value.as_bytes()), Some(u32::MAX))
}

/// Writes with the version that was read.
fn fresh(key: &str, value: &str) -> Result<(), proxy_wasm::types::Status> {
    let (_, version) = hostcalls::get_shared_data(key)?;
    hostcalls::set_shared_data(key, Some(value.as_bytes()), version)
}

/// A queue from its registration to its emptiness.
fn queue(exchange: &Exchange, name: &str, value: &str) {
    let registered = hostcalls::register_shared_queue(name);
    let again = hostcalls::register_shared_queue(name);
    exchange.note(format!("queue: the same twice {}", registered == again));
    let Ok(queue) = registered else { return };
    let missing = hostcalls::resolve_shared_queue("nobody", name);
    exchange.note(format!(
        "queue: of nobody {missing:?}, enqueue {:?}",
        hostcalls::enqueue_shared_queue(queue, Some(value.as_bytes()))
    ));
    for _ in 0..2 {
        let item = hostcalls::dequeue_shared_queue(queue);
        exchange.note(format!("queue: {:?}", item.map(|item| bytes(item.as_deref()))));
    }
}

/// A metric from its definition to its value.
fn metric(exchange: &Exchange, kind: &str, name: &str, by: usize) {
    let kind = match kind {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        _ => MetricType::Histogram,
    };
    let id = hostcalls::define_metric(kind, name).unwrap_or_default();
    let (increment, record) = (raw::increment(id, by as i64), raw::record(id, by as u64 + 1));
    // By its second number, where it has another one.
    let again = hostcalls::define_metric(kind, name).unwrap_or_default();
    let (status, value) = raw::metric(again);
    exchange.note(format!("{name}: increment {increment}, record {record}, get {status}: {value}"));
    exchange.note(format!("{name}: down {}, get {:?}", raw::increment(id, -1), raw::metric(id)));
}

/// Bytes as text where they are that, else in hexadecimal digits.
fn bytes(value: Option<&[u8]>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && text.chars().all(|letter| !letter.is_control()) => format!("{text:?}"),
        _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
