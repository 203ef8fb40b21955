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
    pub(super) fn record(self, kind: String, outcome: &str, Fields { all: fields, .. }: Fields) -> bool {
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

/// The fields of an event while they are gathered: no more of them than it takes to be too large. A filter can name one long
/// attribute in some ten thousand fields. There is no other way to an event.
pub(super) struct Fields {
    all: Vec<(String, Attr)>,
    bytes: usize,
    most: usize,
}

impl Fields {
    pub(super) fn within(limits: &Limits) -> Self {
        Self { all: Vec::new(), bytes: 0, most: limits.event_bytes }
    }

    /// Adds a field, unless the event is too large already.
    pub(super) fn add(&mut self, name: impl Into<String>, value: impl FnOnce() -> Option<Attr>) {
        if self.bytes > self.most {
            return;
        }
        if let Some(value) = value() {
            let name = name.into();
            self.bytes += name.len() + value.size();
            self.all.push((name, value));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_gathered_than_is_too_large() {
        let limits = Limits { event_bytes: 10, ..Limits::default() };
        let mut fields = Fields::within(&limits);
        fields.add("none", || None);
        for _ in 0..1000 {
            fields.add("name", || Some(Attr::Text("text".to_owned())));
        }
        fields.add("name", || panic!("it is not looked at any more"));
        assert_eq!(fields.all.len(), 2);
        let (mut events, mut bytes, mut count, metrics) = (Vec::new(), 0, 0, Metrics::default());
        let (events, bytes, count) = (&mut events, &mut bytes, &mut count);
        let budget = Budget { events, bytes, count, limits: &limits, metrics: &metrics, phase: Phase::Log };
        assert!(!budget.record(String::new(), "allowed", fields), "what was gathered is too large still");
    }
}
