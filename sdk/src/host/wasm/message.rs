//! Calls into the gateway that concern the message at hand.

use crate::{
    BodyError, HeaderError,
    attributes::Value,
    audit::{Event, Outcome},
    bindings::tidegate::filter::{attributes, audit, message, types},
    message::LineError,
};

/// One change to headers.
pub(crate) use types::HeaderOp as Change;

/// A header map of the gateway, lent for a callback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawHeaders<'a>(pub(crate) &'a types::Headers);

/// A body of the gateway, lent for a callback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawBody<'a>(pub(crate) &'a types::Body);

impl RawHeaders<'_> {
    pub(crate) fn get(self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name)
    }

    pub(crate) fn get_all(self, name: &str) -> Vec<Vec<u8>> {
        self.0.get_all(name)
    }

    pub(crate) fn get_many(self, names: &[&str]) -> Vec<Option<Vec<u8>>> {
        self.0.get_many(names)
    }

    pub(crate) fn entries(self) -> Vec<(String, Vec<u8>)> {
        self.0.entries()
    }

    pub(crate) fn apply(self, changes: &[Change<'_>]) -> Result<(), HeaderError> {
        self.0.apply(changes).map_err(header_error)
    }

    pub(crate) fn set(self, name: &str, value: &[u8]) -> Result<(), HeaderError> {
        self.0.set(name, value).map_err(header_error)
    }
}

fn header_error(error: types::HeaderError) -> HeaderError {
    match error {
        types::HeaderError::Invalid => HeaderError::Invalid,
        types::HeaderError::Immutable => HeaderError::Immutable,
        types::HeaderError::TooLarge => HeaderError::TooLarge,
        types::HeaderError::TooMany => HeaderError::TooMany,
    }
}

impl RawBody<'_> {
    pub(crate) fn len(self) -> u64 {
        self.0.len()
    }

    pub(crate) fn read(self, offset: u64, len: u32) -> Vec<u8> {
        self.0.read(offset, len)
    }

    pub(crate) fn take(self) -> Vec<u8> {
        self.0.take()
    }

    pub(crate) fn splice(self, offset: u64, len: u64, data: &[u8]) -> Result<(), BodyError> {
        self.0.splice(offset, len, data).map_err(|error| match error {
            types::BodyError::TooLarge => BodyError::TooLarge,
            types::BodyError::OutOfRange => BodyError::OutOfRange,
        })
    }
}

pub(crate) fn rewrite(method: &str, path: &str) -> Result<(), LineError> {
    message::rewrite(method, path).map_err(line_error)
}

pub(crate) fn set_status(status: u16) -> Result<(), LineError> {
    message::set_status(status).map_err(line_error)
}

fn line_error(error: message::LineError) -> LineError {
    match error {
        message::LineError::Invalid => LineError::Invalid,
        message::LineError::NotPermitted => LineError::NotPermitted,
        message::LineError::TooLate => LineError::TooLate,
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

pub(crate) fn set_attribute(name: &str, value: &Value) -> bool {
    attributes::set(name, attr(value))
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
