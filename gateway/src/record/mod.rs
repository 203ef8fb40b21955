//! One record per exchange: opened with the request, closed with the response's last byte or by being dropped.
//!
//! An open record holds shared facts and copies no text; `line` writes its one JSON line when it closes, `ledger`
//! gathers a worker's lines into batches, `recorder` takes the batches to the record log and to the control plane.

pub mod clock;
mod json;
pub mod ledger;
mod line;
pub mod recorder;
#[cfg(test)]
mod tests;

pub use ledger::Ledger;

use crate::{
    fault::Fault,
    filter::{Closing, Run},
    http::Request,
    listen::Peer,
    telemetry::trace::{self, TraceContext},
    upstream,
};
use futures_util::future::Either;
use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration, time::Instant};
use tidegate_policy::{
    Denial, Identity, Permit, Reason, Target,
    exchange::{Durations, FilterFacts, Verdict},
    identity::Caller,
};

/// Knobs of the records.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the JSON lines go besides the control plane.
    pub log: recorder::Log,
    /// What happens when records come faster than they are taken away.
    pub when_full: ledger::WhenFull,
    /// Batches, of at most 256 KiB each, that may wait for the recorder. 256 of them are 64 MiB, and at 20,000
    /// exchanges a second they bridge some five seconds of a stalled disk.
    pub queue_batches: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { log: recorder::Log::Stdout, when_full: ledger::WhenFull::Drop, queue_batches: 256 }
    }
}

/// The record of an exchange under way. Written exactly once, when it is dropped; drop it when the response's last byte
/// has gone. Where filters' last calls suspend, that is when they have ended.
pub struct OpenRecord {
    ledger: Rc<Ledger>,
    /// In a box, since a record goes from hand to hand on its way to the response's end.
    facts: Box<Facts>,
    /// The filters that the exchange goes through; their part ends with it.
    run: Option<Run>,
}

/// What is known of an exchange so far.
struct Facts {
    id: clock::Stamp,
    opened: Instant,
    source: SocketAddr,
    method: ::http::Method,
    uri: ::http::Uri,
    protocol: &'static str,
    trace: TraceContext,
    target: Option<Target>,
    caller: Option<Arc<Caller>>,
    outcome: Outcome,
    upstream: Option<(upstream::Facts, Instant)>,
    filters: Vec<FilterFacts<'static>>,
    status: Option<::http::StatusCode>,
    head_came: Option<Instant>,
    closed: Option<Instant>,
    fault: Option<Fault>,
    request_bytes: u64,
    response_bytes: u64,
}

enum Outcome {
    Undecided,
    Permitted(Arc<Permit>),
    Denied(Denial),
}

impl OpenRecord {
    /// Opens the record of `request`, whose head is complete now.
    pub fn open(ledger: &Rc<Ledger>, peer: &Peer, request: &Request) -> Self {
        let protocol = match request.version() {
            ::http::Version::HTTP_2 => "HTTP/2",
            ::http::Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let mut facts = Box::new(Facts::of(ledger.stamp(), peer.address, trace::context(request.headers())));
        (facts.method, facts.uri, facts.protocol) = (request.method().clone(), request.uri().clone(), protocol);
        ledger.opened();
        Self { ledger: Rc::clone(ledger), facts, run: None }
    }

    /// The exchange's number: unique within one worker, ascending with time (microseconds since 1970).
    pub fn id(&self) -> u64 {
        self.facts.id.micros
    }

    /// The exchange's id as it is recorded: 24 hexadecimal digits.
    pub fn id_text(&self) -> String {
        String::from_utf8_lossy(&self.facts.id.digits()).into_owned()
    }

    /// The trace the exchange is part of, refused or not: what the caller named, else one begun here.
    pub fn trace(&self) -> &TraceContext {
        &self.facts.trace
    }

    /// What was asked for, in canonical form.
    pub fn targeted(&mut self, target: &Target) {
        self.facts.target = Some(target.clone());
    }

    /// Who called.
    pub fn identified(&mut self, identity: &Identity) {
        self.facts.caller = Some(Arc::clone(&identity.caller));
    }

    /// That it was permitted.
    pub fn permitted(&mut self, permit: &Arc<Permit>) {
        self.facts.outcome = Outcome::Permitted(Arc::clone(permit));
    }

    /// That it was denied.
    pub fn denied(&mut self, denial: &Denial) {
        self.facts.outcome = Outcome::Denied(denial.clone());
    }

    /// Where it goes; called right before the request is sent there, for every attempt.
    pub fn connected(&mut self, facts: &upstream::Facts) {
        self.facts.upstream = Some((facts.clone(), Instant::now()));
    }

    /// The filters that it goes through: what they did is a part of it.
    pub fn filtered_by(&mut self, run: Option<&Run>) {
        self.run = run.cloned();
    }

    /// The fault of the filter that the exchange waits for, as its time is up; none where it waits for none.
    pub fn overdue(&self) -> Option<Fault> {
        self.run.as_ref()?.overdue()
    }

    /// That the response's head came at `came`. What filters take before it goes back is no part of how long that took.
    pub fn head_came(&mut self, came: Instant) {
        self.facts.head_came = Some(came);
    }

    /// Tells the filters what is known of the connection that the response's head came by at `came`.
    pub fn tell(&self, run: &Run, came: Instant) {
        if let Some((facts, sent)) = self.facts.upstream() {
            run.connected(facts, self.facts.service(), came.saturating_duration_since(*sent));
        }
    }

    /// The status that goes back. A later call corrects it.
    pub fn answered(&mut self, status: ::http::StatusCode) {
        self.facts.status = Some(status);
    }

    /// What went wrong. The first fault is the one that is recorded: what follows is its consequence.
    pub fn failed(&mut self, fault: &Fault) {
        self.facts.fault.get_or_insert_with(|| fault.clone());
    }

    /// Body bytes that came from the caller.
    pub fn request_bytes(&mut self, count: u64) {
        self.facts.request_bytes += count;
    }

    /// Body bytes that went to the caller.
    pub fn response_bytes(&mut self, count: u64) {
        self.facts.response_bytes += count;
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let left = |fault: &Fault| fault.reason() == Reason::DownstreamClosed;
        if self.ledger.is_cut() && self.facts.closed.is_none() && self.facts.fault.as_ref().is_none_or(left) {
            let detail = "the gateway stopped before the exchange had ended (drain_timeout, or a second signal)";
            self.facts.fault = Some(Fault::new(Reason::Draining, detail));
        }
        // The exchange has ended, whatever filters do yet.
        let closed = *self.facts.closed.get_or_insert_with(Instant::now);
        let Some(run) = self.run.take() else { return self.ledger.close(&mut self.facts) };
        let closing = self.facts.closing(closed);
        match run.close(closing) {
            Either::Left(told) => {
                self.facts.filters = told.into_inner();
                self.ledger.close(&mut self.facts);
            }
            Either::Right(told) => {
                let blank = Box::new(Facts::of(self.facts.id, self.facts.source, self.facts.trace));
                let facts = std::mem::replace(&mut self.facts, blank);
                let rest = Self { ledger: Rc::clone(&self.ledger), facts, run: None };
                tokio::task::spawn_local(async move {
                    // All of it, so that it is written even where the worker ends before the calls do.
                    let mut record = rest;
                    record.facts.filters = told.await;
                });
            }
        }
    }
}

impl std::fmt::Debug for OpenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenRecord({})", self.id_text())
    }
}

impl Facts {
    /// Of an exchange that begins now; nothing is known yet of what it asks for.
    fn of(id: clock::Stamp, source: SocketAddr, trace: TraceContext) -> Self {
        Self {
            id,
            opened: Instant::now(),
            source,
            method: ::http::Method::default(),
            uri: ::http::Uri::default(),
            protocol: "",
            trace,
            target: None,
            caller: None,
            outcome: Outcome::Undecided,
            upstream: None,
            filters: Vec::new(),
            status: None,
            head_came: None,
            closed: None,
            fault: None,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    /// Why the exchange ended as it did. One that was dropped without an answer and without a fault lost its caller.
    fn reason(&self) -> Reason {
        match (&self.fault, &self.outcome) {
            (Some(fault), _) => fault.reason(),
            (None, Outcome::Denied(denial)) => denial.reason,
            (None, _) if self.status.is_none() => Reason::DownstreamClosed,
            (None, Outcome::Permitted(permit)) => permit.reason(),
            (None, Outcome::Undecided) => Reason::Internal,
        }
    }

    /// What became of it: what its reason says, else what was decided.
    fn verdict(&self) -> Verdict {
        self.reason().verdict().unwrap_or(match &self.outcome {
            Outcome::Permitted(_) => Verdict::Allowed,
            Outcome::Denied(_) => Verdict::Denied,
            Outcome::Undecided => Verdict::Invalid,
        })
    }

    fn service(&self) -> Option<&tidegate_policy::Name> {
        let service = match &self.outcome {
            Outcome::Permitted(permit) => permit.service(),
            Outcome::Denied(denial) => denial.service.as_ref(),
            Outcome::Undecided => None,
        };
        service.map(|service| &service.name)
    }

    /// How far the last attempt got, where it failed before its request was sent.
    fn reached(&self) -> Option<&upstream::Reached> {
        self.fault.as_ref().and_then(Fault::reached)
    }

    /// The connection the request was sent on, and when; none where a later attempt failed to get one.
    fn upstream(&self) -> Option<&(upstream::Facts, Instant)> {
        self.upstream.as_ref().filter(|_| self.reached().is_none())
    }

    /// The address dialled last.
    fn address(&self) -> Option<SocketAddr> {
        self.upstream().map_or(self.reached().and_then(|way| way.address), |(facts, _)| Some(facts.address))
    }

    /// What filters may know when it ends.
    fn closing(&self, closed: Instant) -> Closing {
        Closing {
            verdict: self.verdict(),
            reason: self.reason(),
            fault: self.fault.as_ref().map(|fault| fault.detail().to_owned()),
            total: closed.saturating_duration_since(self.opened),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        }
    }

    fn durations(&self, closed: Instant) -> Durations {
        let upstream = self.upstream();
        let reached = self.reached();
        let filters: u64 = self.filters.iter().map(|filter| filter.time_us).sum();
        Durations {
            total_us: micros(closed.saturating_duration_since(self.opened)),
            resolve_us: upstream.map_or(reached.and_then(|way| way.resolve), |(facts, _)| facts.resolve).map(micros),
            connect_us: upstream.map_or(reached.and_then(|way| way.connect), |(facts, _)| facts.connect).map(micros),
            tls_us: upstream.map_or(reached.and_then(|way| way.handshake), |(facts, _)| facts.handshake).map(micros),
            filters_us: (!self.filters.is_empty()).then_some(filters),
            first_byte_us: upstream
                .zip(self.head_came)
                .and_then(|((_, sent), came)| came.checked_duration_since(*sent))
                .map(micros),
        }
    }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
