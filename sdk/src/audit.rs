//! Audit events: what should be remembered of the exchange, in its record.

use crate::{attributes::Value, host};
use std::borrow::Cow;

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
pub struct Event<'a> {
    pub(crate) kind: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) known: &'a [(&'a str, &'a str)],
    pub(crate) fields: Vec<(Cow<'a, str>, Value)>,
}

impl<'a> Event<'a> {
    /// An event of this kind: the filter's own word for it.
    pub fn new(kind: &'a str, outcome: Outcome) -> Self {
        Self { kind, outcome, known: &[], fields: Vec::new() }
    }

    /// Fields that the gateway fills with attributes, as pairs of field and attribute. Those that are not known are left
    /// out. Cheaper than fetching the attributes to hand them back.
    pub fn known(mut self, known: &'a [(&'a str, &'a str)]) -> Self {
        self.known = known;
        self
    }

    /// Adds a field. The host keeps the names `at` and `phase` to itself.
    pub fn field(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Adds it to the exchange's record. False when the gateway's limit on events is reached and it was dropped.
    pub fn emit(self) -> bool {
        host::emit(&self)
    }
}
