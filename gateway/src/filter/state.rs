//! What an instance's store holds: the message at hand, what is known of its exchange, and what the filter left behind.

use super::{
    attributes::Known,
    audit::{Budget, Fields},
    chain::Filter,
    core::abi::Abi,
    headers::Room,
    holdings::Holding,
    lent::Lent,
    limits::{Limits, Metrics},
    names::Names,
    outbound::Errands,
    shared::Instrument,
    time::Allowance,
};
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};
use tidegate_policy::{exchange::AuditEvent, grants::Grants};
use tokio::sync::watch;
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

/// When a filter is being called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Configure,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Log,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::RequestHeaders => "request-headers",
            Self::RequestBody => "request-body",
            Self::RequestTrailers => "request-trailers",
            Self::ResponseHeaders => "response-headers",
            Self::ResponseBody => "response-body",
            Self::ResponseTrailers => "response-trailers",
            Self::Log => "log",
        }
    }
}

/// What a store holds.
#[derive(Debug)]
pub(super) struct State {
    pub(super) plugin: Arc<str>,
    pub(super) config: Arc<[u8]>,
    pub(super) grants: Arc<Grants>,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) guard: Guard,
    pub(super) phase: Phase,
    /// The exchange that is being served.
    pub(super) known: Option<Arc<Known>>,
    /// The names of fields that the filter uses.
    pub(super) names: Names,
    /// The message at hand.
    pub(super) lent: Lent,
    /// What host functions need of a core module's instance.
    pub(super) abi: Abi,
    pub(super) events: Vec<AuditEvent>,
    pub(super) event_bytes: usize,
    pub(super) event_count: usize,
    pub(super) log: LogBudget,
    /// What its plugin's instances share.
    pub(super) holding: Arc<Holding>,
    /// The metrics that it has handles to, by their numbers.
    pub(super) instruments: Vec<Option<Instrument>>,
    /// Where calls of its own go; nowhere outside of a worker.
    pub(super) errands: Option<Errands>,
    /// Calls that the filter has open, all workers together.
    pub(super) open_calls: Arc<AtomicUsize>,
    /// Calls made in the exchange that is being served.
    pub(super) calls: u32,
    /// Whether nobody waits any more for the call that the filter is in.
    pub(super) given_up: Arc<watch::Sender<bool>>,
    pub(super) started: Instant,
    /// What is left of the call's time.
    pub(super) allowance: Allowance,
}

impl State {
    pub(super) fn of(filter: &Filter, errands: Option<Errands>) -> Self {
        let (limits, metrics) = (filter.shared.limits, &filter.shared.metrics);
        Self {
            plugin: Arc::clone(&filter.plugin),
            config: Arc::clone(&filter.made.config),
            grants: Arc::clone(&filter.place.grants),
            limits,
            guard: Guard::new(&limits, Arc::clone(metrics)),
            metrics: Arc::clone(metrics),
            phase: Phase::Configure,
            known: None,
            names: Names::default(),
            lent: Lent::default(),
            abi: Abi::default(),
            events: Vec::new(),
            event_bytes: 0,
            event_count: 0,
            log: LogBudget::new(limits.log_rate),
            holding: Arc::clone(&filter.holding),
            instruments: Vec::new(),
            errands,
            open_calls: Arc::clone(&filter.open_calls),
            calls: 0,
            given_up: Arc::new(watch::Sender::new(false)),
            started: Instant::now(),
            allowance: Allowance::default(),
        }
    }

    /// Of a filter that is nowhere: for tests that need no more than a store.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        let (limits, metrics) = (Limits::default(), Arc::<Metrics>::default());
        Self {
            plugin: "alone".into(),
            config: Arc::default(),
            grants: Arc::default(),
            limits,
            guard: Guard::new(&limits, Arc::clone(&metrics)),
            holding: super::holdings::Holdings::new(limits, Arc::clone(&metrics)).detached(),
            metrics,
            phase: Phase::Configure,
            known: None,
            names: Names::default(),
            lent: Lent::default(),
            abi: Abi::default(),
            events: Vec::new(),
            event_bytes: 0,
            event_count: 0,
            log: LogBudget::new(limits.log_rate),
            instruments: Vec::new(),
            errands: None,
            open_calls: Arc::default(),
            calls: 0,
            given_up: Arc::new(watch::Sender::new(false)),
            started: Instant::now(),
            allowance: Allowance::default(),
        }
    }

    pub(super) fn room(&self) -> Room {
        Room { count: self.limits.header_count, bytes: self.limits.header_bytes }
    }

    /// Keeps an event, unless the exchange has had its share.
    pub(super) fn record(&mut self, kind: String, outcome: &str, fields: Fields) -> bool {
        let Self { known, events, event_bytes: bytes, event_count: count, limits, metrics, phase, .. } = self;
        if known.is_none() {
            metrics.events_dropped.add(1);
            return false;
        }
        Budget { events, bytes, count, limits, metrics, phase: *phase }.record(kind, outcome, fields)
    }
}

/// How many messages an instance may still log: a token bucket of one second.
#[derive(Debug)]
pub(super) struct LogBudget {
    rate: u32,
    tokens: f64,
    filled: Instant,
}

impl LogBudget {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, tokens: rate.into(), filled: Instant::now() }
    }

    pub(super) fn take(&mut self) -> bool {
        if self.tokens < 1.0 {
            let now = Instant::now();
            let full = now.duration_since(self.filled).min(Duration::from_secs(1)).as_secs_f64();
            self.tokens = (self.tokens + full * f64::from(self.rate)).min(self.rate.into());
            self.filled = now;
        }
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// Bounds an instance's memory and tables, and counts what it refuses.
#[derive(Debug)]
pub(super) struct Guard {
    limits: StoreLimits,
    metrics: Arc<Metrics>,
    /// Bytes of memory that were granted.
    granted: i64,
    /// How many bytes all instances that serve one exchange each may have together, where it belongs to one.
    common: Option<i64>,
    /// How many bytes those lacked when they had no more for it; none where they had.
    lacking: Option<i64>,
}

impl Guard {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let limits = StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .table_elements(limits.table_elements)
            // A component in Rust is a handful of core instances: its module, and the adapters for its imports. One with an
            // interpreter has one for each of its libraries and each interface it stubs: in Python, 38. None takes memory of
            // its own but what is counted here as memory and tables.
            .instances(64)
            .memories(4)
            .tables(8)
            // Growth that is refused is an answer that allocators know how to take.
            .trap_on_grow_failure(false)
            .build();
        Self { limits, metrics, granted: 0, common: None, lacking: None }
    }

    /// Makes it that of an instance that serves one exchange, before there is any memory.
    pub(super) fn share(&mut self, own_memory_bytes: usize) {
        self.common = Some(i64::try_from(own_memory_bytes).unwrap_or(i64::MAX));
    }

    /// How many bytes were lacking, where memory was refused since this was asked last because all such instances together have as
    /// much as they may.
    pub(super) fn lacked(&mut self) -> Option<i64> {
        self.lacking.take()
    }

    /// Bytes of memory that were granted.
    pub(super) fn granted(&self) -> i64 {
        self.granted
    }

    /// Takes so much of what is there for all.
    fn takes(&mut self, bytes: i64) -> bool {
        let own = &self.metrics.own_memory_bytes;
        if let Some(most) = self.common.filter(|most| !own.add_within(bytes, *most)) {
            self.metrics.own_memory_refused.add(1);
            self.lacking = Some(own.value().saturating_add(bytes).saturating_sub(most));
            return false;
        }
        self.granted = self.granted.saturating_add(bytes);
        self.metrics.memory_bytes.add(bytes);
        true
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.metrics.memory_bytes.add(-self.granted);
        if self.common.is_some() {
            self.metrics.own_memory_bytes.add(-self.granted);
        }
    }
}

impl ResourceLimiter for Guard {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if !self.limits.memory_growing(current, desired, maximum)? {
            self.metrics.memory_refused.add(1);
            return Ok(false);
        }
        Ok(self.takes(i64::try_from(desired.saturating_sub(current)).unwrap_or(i64::MAX)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let granted = self.limits.table_growing(current, desired, maximum)?;
        if !granted {
            self.metrics.tables_refused.add(1);
        }
        Ok(granted)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}
