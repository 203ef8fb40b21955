//! Audit events: what should be remembered of the exchange, in its record.

use crate::{attributes::Value, host};

/// How the exchange stands, as the filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It may go on.
    Allowed,
    /// It may not.
    Denied,
    /// It was changed.
    Modified,
    /// Something went wrong.
    Error,
}

/// An event in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is recorded before `emit`"]
pub struct Event {
    kind: String,
    outcome: Outcome,
    fields: Vec<(String, Value)>,
}

impl Event {
    /// An event of this kind: the filter's own word for it.
    pub fn new(kind: impl Into<String>, outcome: Outcome) -> Self {
        Self { kind: kind.into(), outcome, fields: Vec::new() }
    }

    /// Adds a field. The host keeps the names `at` and `phase` to itself.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds it to the exchange's record. False when the gateway's limit on events is reached and it was dropped.
    pub fn emit(self) -> bool {
        host::emit(self.kind, self.outcome, self.fields)
    }
}
