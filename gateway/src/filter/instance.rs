//! A worker's instances: started when first needed, kept for many exchanges, replaced after a failure.

use super::{
    Facts, Run,
    attributes::Known,
    bindings::Filter as Guest,
    chain::{Chains, Filter},
    engine::Shared,
    state::{Phase, State},
    time::Allowance,
};
use crate::fault::Fault;
use foldhash::HashMap;
use http::HeaderMap;
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tidegate_policy::exchange::AuditEvent;
use tokio::sync::Notify;
use wasmtime::{Store, Trap, component::ResourceAny};

/// The wait after the first failure; it doubles with each that follows.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
/// After this long without a failure the last one is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// The per-worker half: live instances.
#[derive(Default)]
pub struct Instances {
    pub(super) slots: RefCell<HashMap<u64, Rc<Slot>>>,
    /// Rung when there is another slot.
    pub(super) arrived: Notify,
    /// The generation of chains that was seen last.
    generation: Cell<u64>,
}

/// The place of one filter's instance on one worker.
pub(super) struct Slot {
    /// Weak, so that a filter that no route has any more is let go.
    pub(super) filter: Weak<Filter>,
    /// How often it was looked at since an exchange used it last.
    pub(super) unused: Cell<u32>,
    health: RefCell<Health>,
}

#[derive(Default)]
struct Health {
    instance: Option<Instance>,
    /// Counts instances, so that an exchange knows whether the one it began on is still there.
    number: u64,
    failures: u32,
    failed: Option<Instant>,
    /// Why the last instance failed.
    reason: Arc<str>,
}

/// One running module.
pub(super) struct Instance {
    store: Store<State>,
    guest: Guest,
    shared: Arc<Shared>,
    lent: u32,
}

/// An exchange that has begun on an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    number: u64,
    exchange: ResourceAny,
}

/// What one filter did in one exchange so far.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) open: Option<Open>,
    pub(super) events: Vec<AuditEvent>,
    event_bytes: usize,
    event_count: usize,
}

/// One callback to make.
pub(super) struct Visit<'a> {
    pub(super) phase: Phase,
    pub(super) known: &'a Rc<Known>,
    pub(super) headers: Option<&'a mut HeaderMap>,
    /// Whether a failure must leave the headers as they were.
    pub(super) undoable: bool,
}

impl Instances {
    /// Begins a run of the permit's route's chain; `None` where it has no filters. Nothing is called yet, so this fails
    /// only when a filter that its route insists on cannot be run at all.
    pub fn begin(&self, chains: &Chains, facts: Facts<'_>) -> Option<Result<Run, Fault>> {
        if self.generation.replace(chains.generation) != chains.generation {
            self.sweep();
        }
        let route = facts.permit.route().filter(|route| !route.document.filters.is_empty())?;
        let chain = chains.of(route.name.as_str())?;
        Some(Run::begin(chain, facts, |filter| self.slot(filter)))
    }

    fn slot(&self, filter: &Arc<Filter>) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(filter.id).or_insert_with(|| {
            self.arrived.notify_one();
            Rc::new(Slot { filter: Arc::downgrade(filter), unused: Cell::default(), health: RefCell::default() })
        });
        slot.unused.set(0);
        Rc::clone(slot)
    }

    /// Lets instances go whose filter no chain has any more. Open exchanges keep theirs until they end.
    fn sweep(&self) {
        self.slots.borrow_mut().retain(|_, slot| slot.is_on_a_route());
    }
}

impl Slot {
    /// Makes one callback, on the instance that the exchange began on or on the current one where it begins.
    pub(super) fn visit<R>(
        &self,
        filter: &Filter,
        trail: &mut Trail,
        visit: Visit<'_>,
        call: impl FnOnce(&Guest, &mut Store<State>, ResourceAny, u32) -> wasmtime::Result<R>,
    ) -> Result<R, Arc<str>> {
        let mut health = self.health.borrow_mut();
        let unavailable = |reason: String| {
            filter.shared.metrics.unavailable.add(1);
            Err(Arc::from(reason))
        };
        if trail.open.is_some_and(|open| open.number != health.number || health.instance.is_none()) {
            return unavailable(format!("its instance was lost in another exchange: {}", health.reason));
        }
        if health.instance.is_none() {
            if let Some(wait) = health.wait(filter.shared.limits.back_off) {
                let wait = wait.as_millis();
                return unavailable(format!("it is started again in {wait} ms after it failed: {}", health.reason));
            }
            match Instance::start(filter) {
                Ok(instance) => health.started(instance),
                Err(reason) => return Err(health.fail(reason.into())),
            }
        }
        let number = health.number;
        let Some(instance) = health.instance.as_mut() else {
            return unavailable("it is not running".to_owned());
        };
        match instance.serve(trail, number, visit, call) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let reason = filter.shared.describe(&error);
                Err(health.fail(reason.into()))
            }
        }
    }

    /// Ends an exchange on the instance it began on, if that is still there.
    pub(super) fn end(&self, open: Open) {
        let mut health = self.health.borrow_mut();
        if open.number != health.number {
            return;
        }
        if let Some(instance) = health.instance.as_mut()
            && let Err(error) = instance.end(open.exchange)
        {
            let reason = instance.shared.describe(&error);
            health.fail(reason.into());
        }
    }
}

impl Health {
    fn started(&mut self, instance: Instance) {
        self.number += 1;
        self.instance = Some(instance);
    }

    fn fail(&mut self, reason: Arc<str>) -> Arc<str> {
        self.instance = None;
        if self.failed.is_some_and(|failed| failed.elapsed() > FORGIVEN_AFTER) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(Instant::now());
        self.reason = Arc::clone(&reason);
        reason
    }

    /// How long until another start may be tried; none when it may be now.
    fn wait(&self, longest: Duration) -> Option<Duration> {
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = FIRST_BACK_OFF.saturating_mul(1 << doublings).min(longest);
        pause.checked_sub(self.failed?.elapsed()).filter(|wait| !wait.is_zero())
    }
}

impl Instance {
    /// Starts `filter` and lets it read its configuration. The error is a sentence for the operator.
    pub(super) fn start(filter: &Filter) -> Result<Self, String> {
        let shared = &filter.shared;
        let limits = shared.limits;
        let state =
            State::new(Arc::clone(&filter.plugin), Arc::clone(&filter.made.config), limits, Arc::clone(&shared.metrics));
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| &mut state.guard);
        store.set_hostcall_fuel(limits.hostcall_bytes);
        store.set_max_component_handles(limits.handles);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().allowance.met()));
        arm(&mut store, limits.configure);
        let started = filter.compiled.ready.instantiate(&mut store).and_then(|guest| {
            let configured = guest.tidegate_filter_handler().call_configure(&mut store)?;
            Ok((guest, configured))
        });
        match started {
            Ok((guest, Ok(()))) => {
                shared.metrics.starts.add(1);
                shared.metrics.instances.add(1);
                Ok(Self { store, guest, shared: Arc::clone(shared), lent: 0 })
            }
            Ok((_, Err(refusal))) => Err(refusal),
            Err(error) => Err(format!("it failed while it started: {}", shared.describe(&error))),
        }
    }

    fn serve<R>(
        &mut self,
        trail: &mut Trail,
        number: u64,
        visit: Visit<'_>,
        call: impl FnOnce(&Guest, &mut Store<State>, ResourceAny, u32) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        let Visit { phase, known, mut headers, undoable } = visit;
        self.lent = self.lent.wrapping_add(1);
        let state = self.store.data_mut();
        state.phase = phase;
        state.known = Some(Rc::clone(known));
        state.undoable = undoable;
        state.event_bytes = trail.event_bytes;
        state.event_count = trail.event_count;
        if let Some(headers) = headers.as_deref_mut() {
            state.headers = std::mem::take(headers);
            state.lent = Some(self.lent);
        }
        arm(&mut self.store, self.shared.limits.callback);
        let answer = self.call(trail, number, known.id(), call);
        let state = self.store.data_mut();
        state.lent = None;
        state.known = None;
        let before = state.before.take();
        if let Some(headers) = headers {
            *headers = std::mem::take(&mut state.headers);
            if let (Some(before), true) = (before, answer.is_err()) {
                *headers = before;
            }
        }
        trail.event_bytes = state.event_bytes;
        trail.event_count = state.event_count;
        trail.events.append(&mut state.events);
        answer
    }

    fn call<R>(
        &mut self,
        trail: &mut Trail,
        number: u64,
        id: u64,
        call: impl FnOnce(&Guest, &mut Store<State>, ResourceAny, u32) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        let exchange = match trail.open {
            Some(open) => open.exchange,
            None => {
                let exchange = self.guest.tidegate_filter_handler().exchange().call_constructor(&mut self.store, id)?;
                trail.open = Some(Open { number, exchange });
                exchange
            }
        };
        call(&self.guest, &mut self.store, exchange, self.lent)
    }

    fn end(&mut self, exchange: ResourceAny) -> wasmtime::Result<()> {
        arm(&mut self.store, self.shared.limits.callback);
        exchange.resource_drop(&mut self.store)
    }
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
    fn describe(&self, error: &wasmtime::Error) -> String {
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

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("slots", &self.slots.borrow().len()).finish()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
