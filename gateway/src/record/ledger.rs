//! A worker's records: counted, written into the worker's own buffer, and handed over in batches.

use super::{Facts, Outcome, clock, line};
use crate::telemetry::{
    Counter, Gauge,
    exchanges::{Counted, Tally},
    page::Page,
    spans,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::exchange::Batch;
use tokio::sync::{Notify, mpsc};

/// A batch is handed over when its lines reach this: some 400 records, so that the price of the hand-over (waking another
/// thread, above all) is spread thin and a queue of batches stays small in memory.
pub const BATCH_BYTES: usize = 256 * 1024;
/// A batch is handed over when it has this many lines.
pub const BATCH_LINES: u32 = 1024;
/// A batch is handed over when its first line is this old: soon enough for those who follow the records live.
pub const BATCH_AGE: Duration = Duration::from_millis(20);

/// What happens when records come faster than they are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The batch is dropped and counted; exchanges go on.
    #[default]
    Drop,
    /// New exchanges wait until there is room again ([`Ledger::room`]); no record is lost.
    Wait,
}

/// What is counted of the records, all workers together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records handed over.
    pub queued: Counter,
    /// Records dropped because the queue to the recorder was full.
    pub dropped: Counter,
    /// Times that a worker began to hold new exchanges back because the queue was full.
    pub waits: Counter,
    /// Exchanges under way.
    pub open: Gauge,
}

/// One worker's records.
#[derive(Debug)]
pub struct Ledger {
    clock: clock::Clock,
    pending: RefCell<Pending>,
    outbox: mpsc::Sender<Batch>,
    when_full: WhenFull,
    full: Cell<bool>,
    cut: Cell<bool>,
    written: Notify,
    emptied: Notify,
    tally: Tally,
    spans: Option<spans::Outbox>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    count: u32,
    /// The earliest and the latest beginning of its exchanges.
    span: (u64, u64),
    scratch: String,
}

/// What a ledger is made of.
#[derive(Debug)]
pub struct Parts {
    /// The worker's number.
    pub worker: u32,
    /// Where batches go.
    pub outbox: mpsc::Sender<Batch>,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Where exchanges are counted.
    pub tally: Tally,
    /// Where spans go, where they are exported.
    pub spans: Option<spans::Outbox>,
    /// Where records are counted.
    pub metrics: Arc<Metrics>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(parts: Parts) -> Rc<Self> {
        Rc::new(Self {
            clock: clock::Clock::new(parts.worker),
            pending: RefCell::default(),
            outbox: parts.outbox,
            when_full: parts.when_full,
            full: Cell::new(false),
            cut: Cell::new(false),
            written: Notify::new(),
            emptied: Notify::new(),
            tally: parts.tally,
            spans: parts.spans,
            metrics: parts.metrics,
        })
    }

    /// Waits while records are held up and must not be lost ([`WhenFull::Wait`]). Call it before an exchange begins.
    pub async fn room(&self) {
        while self.full.get() {
            self.emptied.notified().await;
        }
    }

    /// Hands batches over when they are old enough. Runs as a task of the worker for as long as it lives.
    pub async fn keep(self: Rc<Self>) {
        loop {
            self.written.notified().await;
            tokio::time::sleep(BATCH_AGE).await;
            if self.full.get() {
                self.finish().await;
            } else {
                self.flush();
            }
        }
    }

    /// Hands over what is pending, whatever its age, if there is a place for it.
    pub fn flush(&self) {
        let mut pending = self.pending.borrow_mut();
        if pending.count == 0 {
            return;
        }
        match self.outbox.try_reserve() {
            Ok(place) => place.send(pending.take(&self.metrics.queued)),
            Err(mpsc::error::TrySendError::Full(())) if self.when_full == WhenFull::Wait => {
                if !self.full.replace(true) {
                    self.metrics.waits.add(1);
                }
                self.written.notify_one();
            }
            Err(_) => {
                self.metrics.dropped.add(pending.count.into());
                pending.lines.clear();
                pending.count = 0;
            }
        }
    }

    /// Hands over what is pending and waits for a place for it as long as it takes.
    pub async fn finish(&self) {
        if let Ok(place) = self.outbox.reserve().await {
            let mut pending = self.pending.borrow_mut();
            if pending.count > 0 {
                place.send(pending.take(&self.metrics.queued));
            }
        }
        self.full.set(false);
        self.emptied.notify_waiters();
    }

    /// Exchanges that end from here on were cut off by the gateway, and not left by their callers.
    pub fn cut(&self) {
        self.cut.set(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    pub(super) fn stamp(&self) -> clock::Stamp {
        self.clock.stamp()
    }

    pub(super) fn opened(&self) {
        self.metrics.open.add(1);
    }

    /// Counts the exchange and writes its line.
    pub(super) fn close(&self, facts: &mut Facts) {
        let closed = facts.closed.unwrap_or_else(Instant::now);
        let durations = facts.durations(closed);
        self.metrics.open.add(-1);
        self.tally.count(&Counted {
            service: facts.service(),
            verdict: facts.verdict(),
            reason: facts.reason(),
            status: facts.status.map(|status| status.as_u16()),
            request_bytes: facts.request_bytes,
            response_bytes: facts.response_bytes,
            durations,
        });
        if let Some(outbox) = self.spans.as_ref().filter(|_| facts.trace.sampled) {
            outbox.send(|| span(facts, durations));
        }
        let mut pending = self.pending.borrow_mut();
        let began = facts.id.micros;
        pending.span = if pending.count == 0 { (began, began) } else { (pending.span.0.min(began), pending.span.1.max(began)) };
        let Pending { lines, count, scratch, .. } = &mut *pending;
        if lines.capacity() == 0 {
            lines.reserve(BATCH_BYTES + BATCH_BYTES / 16);
        }
        line::write(facts, durations, &self.clock, scratch, lines);
        *count += 1;
        let (first, whole) = (*count == 1, *count >= BATCH_LINES || lines.len() >= BATCH_BYTES);
        drop(pending);
        if whole && !self.full.get() {
            self.flush();
        } else if first {
            self.written.notify_one();
        }
    }
}

impl Drop for Ledger {
    /// Tasks that a cut-off worker had besides its connections, such as HTTP/2 streams, end after [`Ledger::finish`].
    fn drop(&mut self) {
        // Nobody is left who could wait.
        self.when_full = WhenFull::Drop;
        self.flush();
    }
}

impl Pending {
    fn take(&mut self, queued: &Counter) -> Batch {
        queued.add(self.count.into());
        let (first_us, last_us) = self.span;
        Batch { count: std::mem::take(&mut self.count), first_us, last_us, lines: std::mem::take(&mut self.lines) }
    }
}

/// What the span of a closed exchange says.
fn span(facts: &Facts, durations: tidegate_policy::exchange::Durations) -> spans::Finished {
    let mut target = String::new();
    line::push_target(&mut target, facts);
    let mut address = String::new();
    if let Some(dialled) = facts.address() {
        line::push_address(&mut address, dialled);
    }
    spans::Finished {
        context: facts.trace,
        began: facts.id.time(),
        durations,
        sent_us: facts.upstream().map(|(_, sent)| super::micros(sent.saturating_duration_since(facts.opened))),
        method: facts.method.clone(),
        target,
        address,
        protocol: facts.protocol,
        service: facts.service().map(tidegate_policy::Name::shared),
        rule: match &facts.outcome {
            Outcome::Permitted(permit) => permit.rule().map(tidegate_policy::Name::shared),
            Outcome::Denied(denial) => denial.rule.as_ref().map(tidegate_policy::Name::shared),
            Outcome::Undecided => None,
        },
        reason: facts.reason(),
        verdict: facts.verdict(),
        status: facts.status.map(|status| status.as_u16()),
        fault: facts.fault.as_ref().map(|fault| fault.detail().to_owned()),
    }
}

impl Metrics {
    /// Writes the numbers to `page`; `waiting` and `capacity` are the queue's.
    pub fn write(&self, page: &mut Page, waiting: usize, capacity: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        page.gauge("tidegate_exchanges_open", "Exchanges under way.", self.open.value());
        page.counter("tidegate_records_queued_total", "Records handed over to the recorder.", self.queued.value());
        page.counter(
            "tidegate_records_dropped_total",
            "Records dropped because the queue to the recorder was full; see record_queue_batches and records_when_full.",
            self.dropped.value(),
        );
        page.counter(
            "tidegate_records_waits_total",
            "Times a worker held new exchanges back because the queue to the recorder was full.",
            self.waits.value(),
        );
        page.gauge("tidegate_record_queue_batches", "Batches of records that wait for the recorder.", number(waiting));
        page.gauge("tidegate_record_queue_limit_batches", "Batches of records that may wait.", number(capacity));
    }
}
