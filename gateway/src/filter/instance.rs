//! One running module: a store, its exports, and what it takes to serve a callback.

use super::{
    attributes::Known,
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    chain::Filter,
    engine::Shared,
    guest::{Calls, Guest, Handed},
    inspect::Code,
    lent::Shown,
    limits::Limits,
    outbound::Errands,
    state::{Phase, State},
    time::Allowance,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::{sync::Arc, time::Duration};
use tidegate_policy::exchange::AuditEvent;
use tokio::sync::watch;
use wasmtime::{Store, Trap};

/// One running module.
pub(super) struct Instance {
    store: Store<State>,
    guest: Guest,
    calls: Calls,
    numbers: Numbers,
    /// What each callback may take.
    allowance: Allowance,
    shared: Arc<Shared>,
}

/// An exchange that has begun on an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Which of its place's instances it is.
    pub(super) number: u64,
    /// Which of the instance's exchanges, or which context of a Proxy-Wasm VM.
    pub(super) exchange: u32,
}

impl Open {
    /// The number of the VM's machine and the context, where it is on one.
    pub(super) fn context(self) -> (u64, u32) {
        (self.number, self.exchange)
    }
}

/// The numbers that exchanges have on an instance: small, and given out again.
#[derive(Debug, Default)]
struct Numbers {
    free: Vec<u32>,
    next: u32,
}

/// What one filter did in one exchange so far.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) open: Option<Open>,
    /// Where it was in a VM that is lost, which may still have something of the message that it was not called about.
    pub(super) lost: Option<Open>,
    pub(super) events: Vec<AuditEvent>,
    pub(super) event_bytes: usize,
    pub(super) event_count: usize,
    calls: u32,
}

/// One callback to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callback {
    Open { end: bool },
    RequestBody { end: bool },
    RequestTrailers,
    ResponseHeaders { status: u16, end: bool },
    ResponseBody { end: bool },
    ResponseTrailers,
    Close,
}

/// What a callback answered.
#[derive(Debug)]
pub(super) enum Answer {
    Head(Flow),
    Body(BodyFlow),
    Trailers(TrailerFlow),
    Closed,
    /// It was to hold what it was shown, and too much is held already.
    NoRoom,
    /// Instances that exchanges have to themselves have as much memory as they may, and there is none for this one.
    NoMemory,
}

/// Whom an instance serves.
pub(super) enum Serves {
    All,
    /// One exchange at a time. Its own calls go there.
    One(Option<Errands>),
}

/// Why there is no instance.
pub(super) enum NotStarted {
    /// Instances that exchanges have to themselves have as much memory as they may; so many bytes would be needed beyond.
    NoMemory { lacking: i64 },
    /// A sentence for the operator.
    Failed(Arc<str>),
}

impl NotStarted {
    pub(super) fn no_memory() -> Arc<str> {
        "there was no memory for an instance of it (setting filter_own_memory_bytes)".into()
    }

    pub(super) fn reason(&self) -> Arc<str> {
        match self {
            Self::NoMemory { .. } => Self::no_memory(),
            Self::Failed(reason) => Arc::clone(reason),
        }
    }
}

impl From<String> for NotStarted {
    fn from(reason: String) -> Self {
        Self::Failed(reason.into())
    }
}

/// What a callback is made with.
pub(super) struct Visit<'a> {
    pub(super) callback: Callback,
    pub(super) known: &'a Arc<Known>,
    /// What of the message is shown; it is changed in place.
    pub(super) shown: Option<&'a mut Box<Shown>>,
    /// Whether a failure must leave the message as it was.
    pub(super) undoable: bool,
}

impl Callback {
    pub(super) fn phase(self) -> Phase {
        match self {
            Self::Open { .. } => Phase::RequestHeaders,
            Self::RequestBody { .. } => Phase::RequestBody,
            Self::RequestTrailers => Phase::RequestTrailers,
            Self::ResponseHeaders { .. } => Phase::ResponseHeaders,
            Self::ResponseBody { .. } => Phase::ResponseBody,
            Self::ResponseTrailers => Phase::ResponseTrailers,
            Self::Close => Phase::Log,
        }
    }
}

impl Instance {
    /// Starts `filter` and lets it read its configuration.
    pub(super) async fn start(filter: &Filter, serves: Serves) -> Result<Self, NotStarted> {
        let shared = &filter.shared;
        let limits = shared.limits;
        let state = match serves {
            Serves::All => State::of(filter, None),
            Serves::One(errands) => {
                let mut state = State::of(filter, errands);
                state.guard.share(limits.own_memory_bytes);
                state
            }
        };
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| &mut state.guard);
        store.set_hostcall_fuel(limits.hostcall_bytes);
        store.set_max_component_handles(limits.handles);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().allowance.met()));
        arm(&mut store, Allowance::new(limits.configure));
        let Code::Typed(ready) = &filter.compiled.code else {
            return Err("it is a Proxy-Wasm module, and runs in a VM of its own kind".to_owned().into());
        };
        let started = ready.start(&mut store).await;
        let lacked = store.data_mut().guard.lacked();
        match (started, lacked) {
            (Ok((guest, Ok(()))), _) => {
                shared.metrics.starts.add(1);
                shared.metrics.instances.add(1);
                let (calls, numbers, allowance) = (ready.calls(), Numbers::default(), Allowance::new(limits.callback));
                Ok(Self { store, guest, calls, numbers, allowance, shared: Arc::clone(shared) })
            }
            (Ok((_, Err(refusal))), _) => Err(refusal.into()),
            (Err(_), Some(lacking)) => Err(NotStarted::NoMemory { lacking }),
            (Err(error), None) => {
                Err(format!("it failed while it started: {}", shared.failed(&error, &Bound::of_start(&limits))).into())
            }
        }
    }

    /// How many exchanges are open on it.
    pub(super) fn open(&self) -> usize {
        self.numbers.in_use()
    }

    /// Bytes of its linear memory.
    pub(super) fn memory_bytes(&self) -> i64 {
        self.store.data().guard.granted()
    }

    /// How many bytes were lacking, where it did not get memory in the last call since there was no more for instances like it.
    pub(super) fn lacked(&mut self) -> Option<i64> {
        self.store.data_mut().guard.lacked()
    }

    /// What tells the call that it is in that nobody waits for it any more.
    pub(super) fn given_up(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.store.data().given_up)
    }

    /// Makes one callback. After a failure what was shown is as it was, where the message is to go on without the filter.
    pub(super) async fn serve(&mut self, trail: &mut Trail, number: u64, mut visit: Visit<'_>) -> wasmtime::Result<Answer> {
        let body = self.lend(trail, &mut visit);
        let answered = match self.handed(trail, &visit) {
            Ok(handed) => {
                self.guest.call(&mut self.store, &handed, visit.callback).await.map(|answer| (handed.exchange, answer))
            }
            Err(error) => Err(error),
        };
        self.take_back((trail, number), visit, body, answered)
    }

    /// The same, on an instance whose calls never suspend: a future would cost as much as the call.
    pub(super) fn serve_at_once(&mut self, trail: &mut Trail, number: u64, mut visit: Visit<'_>) -> wasmtime::Result<Answer> {
        let body = self.lend(trail, &mut visit);
        let answered = self.handed(trail, &visit).and_then(|handed| {
            let answer = self.guest.call_at_once(&mut self.store, &handed, visit.callback)?;
            Ok((handed.exchange, answer))
        });
        self.take_back((trail, number), visit, body, answered)
    }

    /// Readies the store for a callback; the body as it was, where a failure must leave it so.
    fn lend(&mut self, trail: &Trail, visit: &mut Visit<'_>) -> Option<Bytes> {
        let state = self.store.data_mut();
        if self.calls == Calls::Suspending {
            state.given_up.send_replace(false);
        }
        state.phase = visit.callback.phase();
        state.known = Some(Arc::clone(visit.known));
        state.event_bytes = trail.event_bytes;
        state.event_count = trail.event_count;
        state.calls = trail.calls;
        let body = visit.shown.as_deref().filter(|_| visit.undoable).and_then(|shown| shown.body.clone());
        state.lent.begin(visit.shown.as_deref_mut(), visit.undoable);
        arm(&mut self.store, self.allowance);
        body
    }

    /// What the callback is handed.
    fn handed(&mut self, trail: &Trail, visit: &Visit<'_>) -> wasmtime::Result<Handed> {
        let exchange = match (visit.callback, trail.open) {
            (Callback::Open { .. }, _) => self.numbers.take(),
            (_, Some(open)) => open.exchange,
            (_, None) => wasmtime::bail!("it was called for an exchange that it does not have open"),
        };
        Ok(Handed::of(&self.store.data().lent, exchange, visit.known.id()))
    }

    /// What the callback left behind, and what its answer means for the exchange.
    fn take_back(
        &mut self,
        (trail, number): (&mut Trail, u64),
        visit: Visit<'_>,
        body: Option<Bytes>,
        answered: wasmtime::Result<(u32, Answer)>,
    ) -> wasmtime::Result<Answer> {
        let Visit { callback, mut shown, undoable, .. } = visit;
        let state = self.store.data_mut();
        state.known = None;
        trail.event_bytes = state.event_bytes;
        trail.event_count = state.event_count;
        trail.calls = state.calls;
        trail.events.append(&mut state.events);
        let (exchange, answer) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                if undoable {
                    state.lent.undo(shown.as_deref_mut());
                    if let Some(shown) = shown {
                        shown.body = body;
                    }
                } else {
                    state.lent.end(shown);
                }
                return Err(error);
            }
        };
        state.lent.end(shown);
        if matches!(callback, Callback::Open { .. }) {
            trail.open = Some(Open { number, exchange });
        }
        // After a head's answer that says so it has nothing more to do with the exchange.
        if matches!(answer, Answer::Head(Flow::Done) | Answer::Closed) {
            self.numbers.close(trail);
        }
        Ok(answer)
    }
}

impl Numbers {
    fn in_use(&self) -> usize {
        self.next as usize - self.free.len()
    }

    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let next = self.next;
            self.next += 1;
            next
        })
    }

    fn close(&mut self, trail: &mut Trail) {
        self.free.extend(trail.open.take().map(|open| open.exchange));
    }
}

/// Starts a filter to see whether it does. Runs on the control plane; a store that may suspend does not while it starts,
/// since a filter's own calls are refused before its first exchange.
pub(super) fn try_start(filter: &Filter) -> Result<(), String> {
    let started = Instance::start(filter, Serves::All).now_or_never();
    let waits = || Err("it waits for something while it starts".to_owned().into());
    started.unwrap_or_else(waits).map(drop).map_err(|not_started| not_started.reason().to_string())
}

/// Gives the next call this time.
fn arm(store: &mut Store<State>, allowance: Allowance) {
    let ticks = allowance.ticks();
    store.data_mut().allowance = allowance;
    store.set_epoch_deadline(ticks);
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shared.metrics.instances.add(-1);
    }
}

/// How long a call may take, and which setting says so.
pub(super) struct Bound {
    time: Duration,
    setting: &'static str,
}

impl Bound {
    pub(super) fn of_start(limits: &Limits) -> Self {
        Self { time: limits.configure, setting: "filter_configure_timeout" }
    }

    pub(super) fn of_callback(limits: &Limits) -> Self {
        Self { time: limits.callback, setting: "filter_callback_timeout" }
    }
}

impl Shared {
    /// Counts a failure of a call and says what it was, without what the filter itself could have written into it.
    pub(super) fn failed(&self, error: &wasmtime::Error, bound: &Bound) -> String {
        self.metrics.failures.add(1);
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                self.metrics.timeouts.add(1);
                format!("it ran for longer than {} ms (setting {})", bound.time.as_millis(), bound.setting)
            }
            Some(Trap::UnreachableCodeReached) => "it trapped: a panic, or memory it could not get".to_owned(),
            Some(Trap::StackOverflow) => "it trapped: its stack overflowed".to_owned(),
            Some(trap) => format!("it trapped: {trap}"),
            None => format!("it was stopped: {}", error.root_cause()),
        }
    }
}
