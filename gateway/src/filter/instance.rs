//! One running module: a store, its exports, and what it takes to serve a callback.

use super::{
    attributes::Known,
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    chain::Filter,
    engine::Shared,
    guest::{Calls, Guest},
    inspect::Code,
    lent::{Part, Shown},
    outbound::Errands,
    state::{Phase, State},
    time::Allowance,
};
use futures_util::FutureExt as _;
use std::{sync::Arc, time::Duration};
use tidegate_policy::exchange::AuditEvent;
use wasmtime::{
    Store, Trap,
    component::{Resource, ResourceAny},
};

/// One running module.
pub(super) struct Instance {
    store: Store<State>,
    guest: Guest,
    calls: Calls,
    shared: Arc<Shared>,
}

/// An exchange that has begun on an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Which of its place's instances it is.
    pub(super) number: u64,
    pub(super) handle: Handle,
}

/// What an exchange is to the instance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handle {
    /// A resource that the filter made.
    Exchange(ResourceAny),
    /// A context of a Proxy-Wasm VM.
    Context(u32),
}

impl Open {
    /// The VM's number and the context, where it is on one.
    pub(super) fn context(self) -> Option<(u64, u32)> {
        match self.handle {
            Handle::Context(context) => Some((self.number, context)),
            Handle::Exchange(_) => None,
        }
    }
}

/// What one filter did in one exchange so far.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) open: Option<Open>,
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
}

/// What a callback is made with.
pub(super) struct Visit<'a> {
    pub(super) callback: Callback,
    pub(super) known: &'a Arc<Known>,
    pub(super) shown: Shown,
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
    /// Starts `filter` and lets it read its configuration. The error is a sentence for the operator.
    pub(super) async fn start(filter: &Filter, errands: Option<Errands>) -> Result<Self, String> {
        let shared = &filter.shared;
        let limits = shared.limits;
        let mut store = Store::new(&shared.engine, State::of(filter, errands));
        store.limiter(|state| &mut state.guard);
        store.set_hostcall_fuel(limits.hostcall_bytes);
        store.set_max_component_handles(limits.handles);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().allowance.met()));
        arm(&mut store, limits.configure);
        let Code::Typed(compiled) = &filter.compiled.code else {
            return Err("it is a Proxy-Wasm module, and runs in a VM of its own kind".to_owned());
        };
        let started = async {
            let instance = match compiled.calls {
                Calls::Plain => compiled.ready.instantiate(&mut store)?,
                Calls::Suspending => compiled.ready.instantiate_async(&mut store).await?,
            };
            let guest = Guest::of(&mut store, &instance, &compiled.exports)?;
            let (configured,) = compiled.calls.enter(&mut store, &guest.configure, ()).await?;
            Ok::<_, wasmtime::Error>((guest, configured))
        };
        match started.await {
            Ok((guest, Ok(()))) => {
                shared.metrics.starts.add(1);
                shared.metrics.instances.add(1);
                Ok(Self { store, guest, calls: compiled.calls, shared: Arc::clone(shared) })
            }
            Ok((_, Err(refusal))) => Err(refusal),
            Err(error) => Err(format!("it failed while it started: {}", shared.describe(&error))),
        }
    }

    /// Makes one callback. What was shown comes back, with the filter's changes or as it was.
    pub(super) async fn serve(
        &mut self,
        trail: &mut Trail,
        number: u64,
        visit: Visit<'_>,
    ) -> (Result<Answer, wasmtime::Error>, Shown) {
        let Visit { callback, known, shown, undoable } = visit;
        let body = shown.body.clone().filter(|_| undoable);
        let state = self.store.data_mut();
        state.phase = callback.phase();
        state.known = Some(Arc::clone(known));
        state.event_bytes = trail.event_bytes;
        state.event_count = trail.event_count;
        state.calls = trail.calls;
        state.lent.begin(shown, undoable);
        arm(&mut self.store, self.shared.limits.callback);
        let answer = self.call(trail, number, known.id(), callback).await;
        let state = self.store.data_mut();
        state.known = None;
        trail.event_bytes = state.event_bytes;
        trail.event_count = state.event_count;
        trail.calls = state.calls;
        trail.events.append(&mut state.events);
        let shown = match &answer {
            Ok(_) => state.lent.end(),
            Err(_) if undoable => Shown { body, ..state.lent.undo() },
            Err(_) => state.lent.end(),
        };
        (answer, shown)
    }

    async fn call(&mut self, trail: &mut Trail, number: u64, id: u64, callback: Callback) -> wasmtime::Result<Answer> {
        let Self { store, guest, calls, .. } = self;
        let lent = &store.data().lent;
        let head = || Resource::new_borrow(lent.handle(Part::Head));
        let held = || lent.shown.head.is_some().then(head);
        let body = || Resource::new_borrow(lent.handle(Part::Body));
        let trailers = || Resource::new_borrow(lent.handle(Part::Trailers));
        let exchange = match (callback, trail.open) {
            (Callback::Open { end }, _) => {
                let with = (id, head(), end);
                let ((exchange, flow),) = calls.enter(store, &guest.open, with).await?;
                trail.open = exchange.map(|exchange| Open { number, handle: Handle::Exchange(exchange) });
                return Ok(Answer::Head(flow));
            }
            (_, Some(Open { handle: Handle::Exchange(exchange), .. })) => exchange,
            (_, _) => wasmtime::bail!("it was called for an exchange that it does not have open"),
        };
        Ok(match callback {
            Callback::RequestBody { end } => {
                let with = (exchange, held(), body(), end);
                Answer::Body(calls.enter(store, &guest.request_body, with).await?.0)
            }
            Callback::RequestTrailers => {
                let with = (exchange, held(), body(), trailers());
                Answer::Trailers(calls.enter(store, &guest.request_trailers, with).await?.0)
            }
            Callback::ResponseHeaders { status, end } => {
                let with = (exchange, status, head(), end);
                Answer::Head(calls.enter(store, &guest.response_headers, with).await?.0)
            }
            Callback::ResponseBody { end } => {
                let with = (exchange, held(), body(), end);
                Answer::Body(calls.enter(store, &guest.response_body, with).await?.0)
            }
            Callback::ResponseTrailers => {
                let with = (exchange, held(), body(), trailers());
                Answer::Trailers(calls.enter(store, &guest.response_trailers, with).await?.0)
            }
            Callback::Open { .. } | Callback::Close => {
                trail.open = None;
                calls.enter(store, &guest.close, (exchange,)).await?;
                Answer::Closed
            }
        })
    }
}

/// Starts a filter to see whether it does. Runs on the control plane; a store that may suspend does not while it starts,
/// since a filter's own calls are refused before its first exchange.
pub(super) fn try_start(filter: &Filter) -> Result<(), String> {
    let started = Instance::start(filter, None).now_or_never();
    started.unwrap_or_else(|| Err("it waits for something while it starts".to_owned())).map(drop)
}

/// Gives the next call `time`.
fn arm(store: &mut Store<State>, time: Duration) {
    let allowance = Allowance::new(time);
    let ticks = allowance.ticks();
    store.data_mut().allowance = allowance;
    store.set_epoch_deadline(ticks);
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shared.metrics.instances.add(-1);
    }
}

impl Shared {
    /// Counts a failure and says what it was, without what the filter itself could have written into it.
    pub(super) fn describe(&self, error: &wasmtime::Error) -> String {
        self.metrics.failures.add(1);
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                self.metrics.timeouts.add(1);
                let limit = self.limits.callback.as_millis();
                format!("it ran for longer than {limit} ms (setting filter_callback_timeout)")
            }
            Some(Trap::UnreachableCodeReached) => "it trapped: a panic, or memory it could not get".to_owned(),
            Some(Trap::StackOverflow) => "it trapped: its stack overflowed".to_owned(),
            Some(trap) => format!("it trapped: {trap}"),
            None => format!("it was stopped: {}", error.root_cause()),
        }
    }
}
