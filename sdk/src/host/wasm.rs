//! Calls into the gateway.

use crate::{
    HeaderError, Headers,
    attributes::Value,
    audit::{Event, Outcome},
    bindings::tidegate::filter::{attributes, audit, host, telemetry, types},
    headers::Change,
    log::Level,
};

/// A header map of the gateway, valid in the callback it was passed to. `wit-bindgen` lends handles by reference;
/// keeping the number instead lets [`Headers`] have one shape on every target, and its lifetime guards the rest.
#[derive(Debug)]
pub(crate) struct RawHeaders(std::mem::ManuallyDrop<types::Headers>);

impl<'a> Headers<'a> {
    #[expect(unsafe_code, reason = "a second view of a handle that is lent for 'a; never dropped, so never given back twice")]
    pub(crate) fn over(lent: &'a types::Headers) -> Self {
        // SAFETY: `lent` outlives the view, by its lifetime, and ManuallyDrop leaves returning the handle to its lender.
        let view = unsafe { types::Headers::from_handle(lent.handle()) };
        Self::new(RawHeaders(std::mem::ManuallyDrop::new(view)))
    }
}

impl RawHeaders {
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name)
    }

    pub(crate) fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.get_all(name)
    }

    pub(crate) fn get_many(&self, names: &[String]) -> Vec<Option<Vec<u8>>> {
        self.0.get_many(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn entries(&self) -> Vec<(String, Vec<u8>)> {
        self.0.entries()
    }

    pub(crate) fn apply(&self, changes: &[Change<'_>]) -> Result<(), HeaderError> {
        let applied = match *changes {
            // One change needs no list on the heap.
            [change] => self.0.apply(&[operation(change)]),
            _ => self.0.apply(&changes.iter().copied().map(operation).collect::<Vec<_>>()),
        };
        applied.map_err(|error| match error {
            types::HeaderError::Invalid => HeaderError::Invalid,
            types::HeaderError::Immutable => HeaderError::Immutable,
            types::HeaderError::TooLarge => HeaderError::TooLarge,
            types::HeaderError::TooMany => HeaderError::TooMany,
        })
    }
}

fn operation(change: Change<'_>) -> types::HeaderOp<'_> {
    match change {
        Change::Set(name, value) => types::HeaderOp::Set((name, value)),
        Change::Append(name, value) => types::HeaderOp::Append((name, value)),
        Change::Remove(name) => types::HeaderOp::Remove(name),
    }
}

pub(crate) fn attribute(name: &str) -> Option<Value> {
    attributes::get(name).map(|attr| match attr {
        types::AttrResult::Text(text) => Value::Text(text),
        types::AttrResult::Int(number) => Value::Int(number),
        types::AttrResult::Uint(number) => Value::Uint(number),
        types::AttrResult::Flag(flag) => Value::Flag(flag),
        types::AttrResult::Blob(bytes) => Value::Blob(bytes),
        types::AttrResult::TimeNs(nanoseconds) => Value::Time(nanoseconds),
    })
}

pub(crate) fn emit(event: &Event<'_>) -> bool {
    let outcome = match event.outcome {
        Outcome::Allowed => audit::Outcome::Allowed,
        Outcome::Denied => audit::Outcome::Denied,
        Outcome::Modified => audit::Outcome::Modified,
        Outcome::Error => audit::Outcome::Error,
    };
    let fields: Vec<_> = event.fields.iter().map(|(name, value)| (&**name, attr(value))).collect();
    audit::emit(event.kind, outcome, event.known, &fields)
}

fn attr(value: &Value) -> types::AttrParam<'_> {
    match value {
        Value::Text(text) => types::AttrParam::Text(text),
        Value::Int(number) => types::AttrParam::Int(*number),
        Value::Uint(number) => types::AttrParam::Uint(*number),
        Value::Flag(flag) => types::AttrParam::Flag(*flag),
        Value::Blob(bytes) => types::AttrParam::Blob(bytes),
        Value::Time(nanoseconds) => types::AttrParam::TimeNs(*nanoseconds),
    }
}

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
