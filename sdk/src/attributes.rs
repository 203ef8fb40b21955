//! What the gateway knows of the exchange that is not in its headers. The names are listed in `wit/filter.wit`.

use crate::host;

/// A typed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// Yes or no.
    Flag(bool),
    /// Bytes.
    Blob(Vec<u8>),
    /// Nanoseconds since 1970.
    Time(u64),
}

/// The attribute of this name, if it is known in this phase.
pub fn get(name: &str) -> Option<Value> {
    host::attribute(name)
}

/// Sets a `state.<name>` attribute, for the other filters of this exchange and later callbacks of this one. False when the
/// name is another one, or the gateway's limit on their number or size is reached.
pub fn set(name: &str, value: impl Into<Value>) -> bool {
    host::set_attribute(name, &value.into())
}

/// The attribute of this name, if it is known and text.
pub fn text(name: &str) -> Option<String> {
    match get(name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// The attribute of this name, if it is known and an unsigned number.
pub fn number(name: &str) -> Option<u64> {
    match get(name) {
        Some(Value::Uint(number)) => Some(number),
        _ => None,
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Uint(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}
