//! What filters want to be remembered: events in the exchange's record.

use super::{
    bindings::tidegate::filter::{audit::Outcome, types::Attr},
    limits::{Limits, Metrics},
    state::Phase,
};
use std::time::SystemTime;
use tidegate_policy::exchange::AuditEvent;

/// What a filter may leave of events in one exchange, and has.
pub(super) struct Budget<'a> {
    pub(super) events: &'a mut Vec<AuditEvent>,
    pub(super) bytes: &'a mut usize,
    pub(super) count: &'a mut usize,
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a Metrics,
    pub(super) phase: Phase,
}

impl Budget<'_> {
    /// Keeps an event, unless the exchange has had its share.
    pub(super) fn record(self, kind: String, outcome: &str, fields: Vec<(String, Attr)>) -> bool {
        let bytes = 64 + kind.len() + fields.iter().map(|(name, attr)| name.len() + attr.size()).sum::<usize>();
        if *self.count >= self.limits.event_count || *self.bytes + bytes > self.limits.event_bytes {
            self.metrics.events_dropped.add(1);
            return false;
        }
        *self.count += 1;
        *self.bytes += bytes;
        let mut fields: serde_json::Map<_, _> = fields.into_iter().map(|(name, attr)| (name, json(attr))).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        fields.insert("at".to_owned(), u64::try_from(now.as_micros()).unwrap_or(u64::MAX).into());
        fields.insert("phase".to_owned(), self.phase.as_str().into());
        self.events.push(AuditEvent { kind, outcome: outcome.to_owned(), fields });
        true
    }
}

fn json(attr: Attr) -> serde_json::Value {
    match attr {
        Attr::Text(text) => text.into(),
        Attr::Int(number) => number.into(),
        Attr::Uint(number) | Attr::TimeNs(number) => number.into(),
        Attr::Flag(flag) => flag.into(),
        Attr::Blob(bytes) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
    }
}

pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::Modified => "modified",
        Outcome::Error => "error",
    }
}
