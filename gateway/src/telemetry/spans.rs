//! Spans: built from an exchange's record when it closes, queued, and handed to the exporter in batches.
//!
//! One server span for the exchange, whose id the upstream was given as its parent, with children for the phases that
//! happened. A span that finds the queue full is dropped and counted; no exchange ever waits for it.

use super::{Counter, page::Page, trace::TraceContext};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate_policy::{
    Reason,
    exchange::{Durations, Verdict},
};
use tokio::sync::mpsc;

/// Exchanges that may wait for export: a second's worth at full load of a few workers, some 20 MiB at most.
pub const QUEUE: usize = 16_384;
/// Exchanges exported with one request, and how long the first of them waits for company.
const BATCH: usize = 512;
const BATCH_AGE: Duration = Duration::from_secs(1);

/// What is counted of spans, all workers together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Exchanges whose spans were exported.
    pub exported: Counter,
    /// Exchanges whose spans were dropped because the queue was full.
    pub dropped: Counter,
    /// Exchanges whose spans the receiver did not take.
    pub failed: Counter,
}

/// A worker's way to the exporter.
#[derive(Debug, Clone)]
pub struct Outbox {
    sender: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
}

/// A sampled exchange that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Where it stands in its trace.
    pub context: TraceContext,
    /// When it began.
    pub began: SystemTime,
    /// How long its phases took.
    pub durations: Durations,
    /// When the request was sent upstream, in microseconds after it began.
    pub sent_us: Option<u64>,
    /// Request method.
    pub method: ::http::Method,
    /// What was asked for, as in the record.
    pub target: String,
    /// The upstream address dialled; empty where none was.
    pub address: String,
    /// Request protocol.
    pub protocol: &'static str,
    /// The service.
    pub service: Option<Arc<str>>,
    /// The deciding rule.
    pub rule: Option<Arc<str>>,
    /// Why it ended so.
    pub reason: Reason,
    /// What became of it.
    pub verdict: Verdict,
    /// Status sent to the caller.
    pub status: Option<u16>,
    /// What went wrong.
    pub fault: Option<String>,
}

/// A queue of finished exchanges: its sending end, to be cloned for every worker, and its receiving end.
pub fn queue(metrics: Arc<Metrics>) -> (Outbox, mpsc::Receiver<Finished>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Outbox { sender, metrics }, receiver)
}

impl Outbox {
    /// Queues what `finished` makes, if there is room for it.
    pub fn send(&self, finished: impl FnOnce() -> Finished) {
        match self.sender.try_reserve() {
            Ok(place) => place.send(finished()),
            Err(_) => self.metrics.dropped.add(1),
        }
    }
}

/// Exports what `finished` brings until its senders are gone. Runs on the control runtime.
pub async fn export(exporter: impl SpanExporter, mut finished: mpsc::Receiver<Finished>, metrics: Arc<Metrics>) {
    let scope = InstrumentationScope::builder("tidegate").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut exchanges = Vec::with_capacity(BATCH);
    let mut failing = false;
    while let Some(first) = finished.recv().await {
        exchanges.push(first);
        let full = async { while exchanges.len() < BATCH && finished.recv_many(&mut exchanges, BATCH).await > 0 {} };
        // What has arrived when the time is up is exported; receiving is cancel-safe.
        let _ = tokio::time::timeout(BATCH_AGE, full).await;
        let count = exchanges.len() as u64;
        let spans = exchanges.drain(..).flat_map(|exchange| exchange.spans(&scope)).collect();
        match exporter.export(spans).await {
            Ok(()) => {
                metrics.exported.add(count);
                failing = false;
            }
            Err(error) => {
                metrics.failed.add(count);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = %error, "spans cannot be exported; check otlp_endpoint and its receiver");
                }
            }
        }
    }
}

impl Finished {
    fn spans(self, scope: &InstrumentationScope) -> Vec<SpanData> {
        let mut spans = Vec::with_capacity(6);
        let Durations { total_us, resolve_us, connect_us, tls_us, filters_us, first_byte_us } = self.durations;
        // The phases before sending follow each other and end when the request is sent, or with the exchange where one
        // of them failed.
        let setup = [("resolve", resolve_us), ("connect", connect_us), ("tls", tls_us)];
        let ready = self.sent_us.unwrap_or(total_us);
        let mut at = ready.saturating_sub(setup.iter().filter_map(|(_, taken)| *taken).sum());
        for (name, taken) in setup {
            if let Some(taken) = taken {
                spans.push(self.child(scope, name, at, taken));
                at += taken;
            }
        }
        if let Some(sent_us) = self.sent_us {
            let upstream = first_byte_us.unwrap_or(total_us.saturating_sub(sent_us));
            spans.push(self.child(scope, "upstream", sent_us, upstream));
        }
        if let Some(filters_us) = filters_us {
            spans.push(self.child(scope, "filters", 0, filters_us));
        }
        spans.push(self.server(scope));
        spans
    }

    fn child(&self, scope: &InstrumentationScope, name: &'static str, at_us: u64, taken_us: u64) -> SpanData {
        let kind = if name == "upstream" { SpanKind::Client } else { SpanKind::Internal };
        let attributes = match name {
            "upstream" | "connect" => vec![KeyValue::new("network.peer.address", self.address.clone())],
            _ => Vec::new(),
        };
        let began = self.began + Duration::from_micros(at_us);
        SpanData {
            span_context: self.span_context(SpanId::from_bytes(super::trace::random_span())),
            parent_span_id: SpanId::from_bytes(self.context.span_id),
            parent_span_is_remote: false,
            span_kind: kind,
            name: Cow::Borrowed(name),
            start_time: began,
            end_time: began + Duration::from_micros(taken_us),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        }
    }

    fn server(self, scope: &InstrumentationScope) -> SpanData {
        let verdict = match self.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::Invalid => "invalid",
        };
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.as_str().to_owned()),
            KeyValue::new("url.full", self.target.clone()),
            KeyValue::new("network.protocol.version", self.protocol.trim_start_matches("HTTP/")),
            KeyValue::new("tidegate.verdict", verdict),
            KeyValue::new("tidegate.reason", self.reason.as_str()),
        ];
        attributes.extend(self.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        attributes.extend(self.service.clone().map(|service| KeyValue::new("tidegate.service", service)));
        attributes.extend(self.rule.clone().map(|rule| KeyValue::new("tidegate.rule", rule)));
        let failed = self.fault.is_some() || self.status.is_none_or(|status| status >= 500);
        if failed {
            attributes.push(KeyValue::new("error.type", self.reason.as_str()));
        }
        SpanData {
            span_context: self.span_context(SpanId::from_bytes(self.context.span_id)),
            parent_span_id: self.context.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: self.context.parent.is_some(),
            span_kind: SpanKind::Server,
            name: Cow::Owned(match &self.service {
                Some(service) => format!("{} {service}", self.method),
                None => self.method.to_string(),
            }),
            start_time: self.began,
            end_time: self.began + Duration::from_micros(self.durations.total_us),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error(self.fault.unwrap_or_default()) } else { Status::Unset },
            instrumentation_scope: scope.clone(),
        }
    }

    fn span_context(&self, span: SpanId) -> SpanContext {
        SpanContext::new(TraceId::from_bytes(self.context.trace_id), span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }
}

impl Metrics {
    /// Writes the numbers to `page`.
    pub fn write(&self, page: &mut Page) {
        let help = "Exchanges that were sampled, by what became of their spans.";
        let family = page.family(super::page::Kind::Counter, "tidegate_traced_exchanges_total", help);
        family.add(&[("outcome", "exported")], self.exported.value());
        family.add(&[("outcome", "dropped")], self.dropped.value());
        family.add(&[("outcome", "failed")], self.failed.value());
    }
}
