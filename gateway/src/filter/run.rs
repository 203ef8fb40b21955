//! One exchange's way through its route's chain: the filters' order, and what their failures mean for the exchange.

use super::{
    Facts, Flow,
    attributes::Known,
    bindings::tidegate::filter::types,
    chain::{Chain, Filter, Link},
    instance::{Slot, Trail, Visit},
    reply,
    state::Phase,
};
use crate::{fault::Fault, record::OpenRecord};
use http::{HeaderMap, StatusCode};
use std::{
    borrow::Cow,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{Reason, exchange::FilterFacts, route::OnError};
use wasmtime::component::Resource;

/// One exchange on its way through a route's chain. Dropping it ends the filters' own exchange resources.
#[derive(Debug)]
pub struct Run {
    chain: Arc<Chain>,
    known: Rc<Known>,
    steps: Vec<Step>,
}

/// One filter's part in it.
#[derive(Debug)]
struct Step {
    /// Where its instance is; none where it cannot be run.
    slot: Option<Rc<Slot>>,
    trail: Trail,
    fate: Fate,
    error: Option<Arc<str>>,
    time: Duration,
}

/// What became of a filter in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has not been called yet.
    Waiting,
    Continued,
    Replied,
    Failed,
    Skipped,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting | Self::Continued => "continued",
            Self::Replied => "replied",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether it is still called.
    const fn takes_part(self) -> bool {
        matches!(self, Self::Waiting | Self::Continued)
    }
}

impl Run {
    pub(super) fn begin(chain: &Arc<Chain>, facts: Facts<'_>, slot: impl Fn(&Arc<Filter>) -> Rc<Slot>) -> Result<Self, Fault> {
        if let Some(link) = chain.links.iter().find(|link| link.filter.is_err() && link.on_error == OnError::Deny) {
            return Err(refused(link));
        }
        let step = |link: &Link| Step {
            slot: link.filter.as_ref().ok().map(&slot),
            trail: Trail::default(),
            fate: if link.filter.is_ok() { Fate::Waiting } else { Fate::Skipped },
            error: link.filter.as_ref().err().cloned(),
            time: Duration::ZERO,
        };
        let steps = chain.links.iter().map(step).collect();
        Ok(Self { chain: Arc::clone(chain), known: Rc::new(Known::new(facts)), steps })
    }

    /// Shows the request's head to every filter in order. `end` says that no body follows.
    pub fn on_request(&mut self, head: &mut ::http::request::Parts, end: bool) -> Result<Flow, Fault> {
        self.known.requested(head);
        self.headers(Phase::RequestHeaders, StatusCode::OK, &mut head.headers, end)
    }

    /// Shows the response's head to every filter in reverse order.
    pub fn on_response(&mut self, head: &mut ::http::response::Parts, end: bool) -> Result<Flow, Fault> {
        self.known.responded(head.status);
        self.headers(Phase::ResponseHeaders, head.status, &mut head.headers, end)
    }

    /// Runs `on-log` and writes what each filter did into the record.
    pub fn finish(self, record: &mut OpenRecord) {
        record.filtered(self.close());
    }

    /// Runs `on-log` on every filter that took part, and says what each did.
    pub fn close(mut self) -> Vec<FilterFacts<'static>> {
        let mut facts = Vec::with_capacity(self.steps.len());
        let mut clock = Instant::now();
        for (link, step) in self.chain.links.iter().zip(&mut self.steps) {
            if step.fate == Fate::Waiting {
                // A filter before it answered, so the exchange never reached it.
                continue;
            }
            step.log(link, &self.known);
            step.time += lap(&mut clock);
            facts.push(FilterFacts {
                plugin: Cow::Owned(link.plugin.as_str().to_owned()),
                outcome: Cow::Borrowed(step.fate.as_str()),
                time_us: u64::try_from(step.time.as_micros()).unwrap_or(u64::MAX),
                error: step.error.take().map(|error| Cow::Owned(error.to_string())),
                silent: link.required && step.trail.events.is_empty(),
                events: std::mem::take(&mut step.trail.events),
            });
        }
        facts
    }

    fn headers(&mut self, phase: Phase, status: StatusCode, headers: &mut HeaderMap, end: bool) -> Result<Flow, Fault> {
        let mut clock = Instant::now();
        let count = self.steps.len();
        for position in 0..count {
            let index = if phase == Phase::RequestHeaders { position } else { count - 1 - position };
            let (link, step) = (&self.chain.links[index], &mut self.steps[index]);
            // A filter that never saw the request, since one before it was asked first, does not see its answer either.
            if !step.fate.takes_part() || (phase == Phase::ResponseHeaders && step.fate == Fate::Waiting) {
                continue;
            }
            let answer = step.show(link, &self.known, Shown { phase, status, headers, end });
            step.time += lap(&mut clock);
            match answer {
                Ok(Flow::Continue) => step.fate = Fate::Continued,
                Ok(reply) => {
                    step.fate = Fate::Replied;
                    return Ok(reply);
                }
                Err(error) => {
                    step.error = Some(error);
                    if link.on_error == OnError::Deny {
                        step.fate = Fate::Failed;
                        return Err(refused(link));
                    }
                    step.fate = Fate::Skipped;
                }
            }
        }
        Ok(Flow::Continue)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for step in &mut self.steps {
            if let (Some(slot), Some(open)) = (&step.slot, step.trail.open.take()) {
                slot.end(open);
            }
        }
    }
}

/// A message's head to show.
struct Shown<'a> {
    phase: Phase,
    status: StatusCode,
    headers: &'a mut HeaderMap,
    end: bool,
}

impl Step {
    fn show(&mut self, link: &Link, known: &Rc<Known>, shown: Shown<'_>) -> Result<Flow, Arc<str>> {
        let (Some(slot), Ok(filter)) = (&self.slot, &link.filter) else {
            return Err(Arc::from("it cannot be run"));
        };
        let Shown { phase, status, headers, end } = shown;
        let visit = Visit { phase, known, headers: Some(headers), undoable: link.on_error == OnError::Skip };
        let flow = slot.visit(filter, &mut self.trail, visit, |guest, store, exchange, lent| {
            let handler = guest.tidegate_filter_handler();
            let handle = Resource::new_borrow(lent);
            match phase {
                Phase::ResponseHeaders => {
                    handler.exchange().call_on_response_headers(store, exchange, status.as_u16(), handle, end)
                }
                _ => handler.exchange().call_on_request_headers(store, exchange, handle, end),
            }
        })?;
        match flow {
            types::Flow::Proceed => Ok(Flow::Continue),
            types::Flow::Reply(local) => {
                let metrics = &filter.shared.metrics;
                let details = Some(Arc::<str>::from(local.details.as_str())).filter(|details| !details.is_empty());
                let reply = reply::checked(local, &filter.shared.limits).inspect_err(|_| metrics.failures.add(1))?;
                metrics.replies.add(1);
                self.error = details;
                Ok(Flow::Reply(reply))
            }
        }
    }

    /// The last call. A failure in it is recorded; there is nothing left to refuse.
    fn log(&mut self, link: &Link, known: &Rc<Known>) {
        let (Some(slot), Ok(filter), Fate::Continued | Fate::Replied) = (&self.slot, &link.filter, self.fate) else {
            return;
        };
        let visit = Visit { phase: Phase::Log, known, headers: None, undoable: false };
        let logged = slot.visit(filter, &mut self.trail, visit, |guest, store, exchange, _| {
            guest.tidegate_filter_handler().exchange().call_on_log(store, exchange)
        });
        if let Err(error) = logged {
            self.fate = Fate::Failed;
            self.error = Some(error);
        }
    }
}

/// The time since the last lap.
fn lap(clock: &mut Instant) -> Duration {
    let now = Instant::now();
    now.duration_since(std::mem::replace(clock, now))
}

/// What the caller is told: which filter, and not what of it.
fn refused(link: &Link) -> Fault {
    Fault::new(Reason::FilterFailed, format!("the filter {} failed; the exchange's record says how", link.plugin))
}
