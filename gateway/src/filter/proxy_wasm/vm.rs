//! A VM: one running module on one worker, its root contexts, and what becomes of it when it fails.

mod standing;

use self::standing::Standing;
use super::{
    abi::Version,
    callouts::Callouts,
    contexts::Contexts,
    guest::{self, Guest},
    inspect::Ready,
    metrics::Metrics as Defined,
    queues::Commons,
    setup::{Key, Setup},
    state::{Context, Outside, Root, State, Surroundings},
    stream::{End, Stream},
};
use crate::filter::{
    chain::Filter,
    engine::Shared,
    holdings::Holding,
    instance::Bound,
    slot::Failures,
    state::{Guard, LogBudget},
    time::Allowance,
};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};
use tidegate_policy::{exchange::AuditEvent, grants::Grants};
use tokio::sync::Notify;
use wasmtime::{Result, Store};

/// One VM of a worker, and its successors after failures.
pub(in crate::filter) struct Vm {
    key: Arc<Key>,
    version: Version,
    shared: Arc<Shared>,
    holding: Arc<Holding>,
    commons: Arc<Commons>,
    open_calls: Arc<AtomicUsize>,
    /// Where calls go and jobs are done; nowhere on the control plane.
    worker: Option<Surroundings>,
    this: Weak<Vm>,
    inner: RefCell<Inner>,
    /// Rung when a timer was set.
    pub(super) timers: Rc<Notify>,
    /// Whether there is a job that keeps them.
    pub(super) has_timekeeper: Cell<bool>,
}

#[derive(Default)]
struct Inner {
    machine: Option<Machine>,
    /// Counts machines, so that an exchange knows whether the one it began on is still there.
    number: u64,
    failures: Failures,
    /// What is to run although no exchange has come.
    standing: Standing,
    /// Exchanges whose messages were in a machine that failed. They fetch these, or drop them when they close: so there are no more
    /// than exchanges that are open, however many machines fail meanwhile.
    lost: HashMap<(u64, u32), Box<Stream>>,
}

/// A store and what its instance exports.
pub(super) struct Machine {
    pub(super) store: Store<State>,
    pub(super) guest: Guest,
    /// The root context of each place, or why there is none.
    roots: HashMap<u64, std::result::Result<u32, Arc<str>>>,
    _counted: Counted,
}

/// A machine as it is counted for as long as it lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.instances.add(-1);
    }
}

/// A place on a route, as its root context has it.
pub(super) struct Settled<'a> {
    pub(super) id: u64,
    pub(super) setup: &'a Arc<Setup>,
    pub(super) grants: &'a Arc<Grants>,
    pub(super) ready: &'a Ready,
}

/// Whether a VM can be entered, and why not.
pub(super) type Entered<T> = std::result::Result<T, Arc<str>>;

impl Vm {
    /// A VM for `filter`. Nothing runs yet.
    pub(super) fn new(filter: &Filter, key: Arc<Key>, version: Version, worker: Option<Surroundings>) -> Rc<Self> {
        let commons = filter.shared.holdings.commons(&key.machine.vm_id, &filter.holding);
        Rc::new_cyclic(|this| Self {
            key,
            version,
            shared: Arc::clone(&filter.shared),
            holding: Arc::clone(&filter.holding),
            commons,
            open_calls: Arc::clone(&filter.open_calls),
            worker,
            this: Weak::clone(this),
            inner: RefCell::default(),
            timers: Rc::default(),
            has_timekeeper: Cell::new(false),
        })
    }

    /// The number of the machine that runs, and the root context of a place on it; started where that is to be done first.
    pub(super) fn root(&self, place: &Settled<'_>) -> Entered<(u64, u32)> {
        let inner = &mut *self.inner.borrow_mut();
        let unavailable = |reason: String| {
            self.shared.metrics.unavailable.add(1);
            Err(Arc::from(reason))
        };
        if inner.machine.is_none() {
            if let Some(wait) = inner.failures.wait(self.shared.limits.back_off) {
                let reason = &inner.failures.reason;
                return unavailable(format!("it is started again in {} ms after it failed: {reason}", wait.as_millis()));
            }
            match self.start(place.ready, inner.number + 1) {
                Ok(machine) => {
                    inner.number += 1;
                    inner.machine = Some(machine);
                }
                Err(reason) => return Err(inner.failures.fail(reason.into())),
            }
        }
        let number = inner.number;
        let Some(machine) = inner.machine.as_mut() else { return unavailable("it is not running".to_owned()) };
        if let Some(root) = machine.roots.get(&place.id) {
            return root.clone().map(|root| (number, root));
        }
        match machine.create_root(place, self.shared.limits.configure) {
            Ok(root) => {
                machine.roots.insert(place.id, root.clone());
                inner.standing.made(place.id);
                root.map(|root| (number, root))
            }
            Err(error) => Err(self.fail(inner, &error, Some(place.id))),
        }
    }

    /// Calls into the machine of this number, about `context`. A failure ends the machine.
    pub(super) fn enter<R>(&self, (number, context): (u64, u32), call: impl FnOnce(&mut Machine) -> Result<R>) -> Entered<R> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let Some(machine) = inner.machine.as_mut().filter(|_| inner.number == number) else {
            self.shared.metrics.unavailable.add(1);
            return Err(format!("its VM was lost in another exchange: {}", inner.failures.reason).into());
        };
        machine.arm(context, self.shared.limits.callback);
        match call(machine).and_then(|called| machine.finish_ended().map(|()| called)) {
            Ok(called) => Ok(called),
            Err(error) => Err(self.fail(inner, &error, None)),
        }
    }

    /// As `enter`, for whatever machine runs now; none where none does.
    pub(super) fn enter_now<R>(&self, context: u32, call: impl FnOnce(&mut Machine) -> Result<R>) -> Option<Entered<R>> {
        let number = {
            let inner = self.inner.borrow();
            inner.machine.as_ref().map(|_| inner.number)?
        };
        Some(self.enter((number, context), call))
    }

    /// Looks at an exchange without calling anything; none where its machine is not there any more.
    pub(super) fn look<R>(&self, (number, context): (u64, u32), look: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let machine = inner.machine.as_mut().filter(|_| inner.number == number)?;
        machine.store.data_mut().stream_of(context).map(look)
    }

    /// An exchange whose machine failed while it had messages of it.
    pub(super) fn lost<R>(&self, of: (u64, u32), look: impl FnOnce(Option<&mut Stream>) -> R) -> R {
        let mut inner = self.inner.borrow_mut();
        let looked = look(inner.lost.get_mut(&of).map(|stream| &mut **stream));
        if inner.lost.get(&of).is_some_and(|stream| !stream.is_lent()) {
            inner.lost.remove(&of);
        }
        looked
    }

    /// Why the last machine failed.
    pub(super) fn reason(&self) -> Arc<str> {
        Arc::clone(&self.inner.borrow().failures.reason)
    }

    /// The number of the machine that runs.
    pub(super) fn number(&self) -> Option<u64> {
        let inner = self.inner.borrow();
        inner.machine.as_ref().map(|_| inner.number)
    }

    /// Lets the root context of a place go that is no more. The guest may put that off.
    pub(super) fn retire(&self, place: u64) {
        self.inner.borrow_mut().standing.forget(place);
        let Some(root) = self.inner.borrow_mut().machine.as_mut().and_then(|machine| machine.roots.remove(&place)) else {
            return;
        };
        if let Ok(root) = root {
            // What fails here is counted and logged with the machine.
            let _failed = self.enter_now(root, |machine| machine.end_root(root));
        }
    }

    /// When its next timer is due.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.inner.borrow_mut().machine.as_mut()?.next_tick()
    }

    /// Calls every root context whose time has come.
    pub(super) fn tick(&self, now: Instant) {
        let due = || self.inner.borrow_mut().machine.as_mut()?.due(now);
        while let Some(root) = due() {
            let ticked = self.enter_now(root, |machine| match &machine.guest.tick {
                Some(tick) => tick.call(&mut machine.store, root),
                None => Ok(()),
            });
            if !matches!(ticked, Some(Ok(()))) {
                return;
            }
        }
    }

    /// Calls into the machine about a call of its own; none where that was given up, or the machine is another one.
    pub(super) fn call(&self, id: u32, call: impl FnOnce(&mut Machine) -> Result<()>) -> Option<Entered<()>> {
        let root = self.inner.borrow_mut().machine.as_mut()?.store.data_mut().callouts.get_mut(id)?.root;
        self.enter_now(root, call)
    }

    /// Counts a call that got no answer.
    pub(super) fn call_failed(&self) {
        self.shared.metrics.calls_failed.add(1);
    }

    /// Most bytes of a message that a call brings.
    pub(super) fn call_bytes(&self) -> usize {
        self.shared.limits.call_bytes
    }

    /// A machine has failed, as it was called or as the root context of a place was made.
    fn fail(&self, inner: &mut Inner, error: &wasmtime::Error, making: Option<u64>) -> Arc<str> {
        let reason = inner.failures.fail(self.shared.failed(error, &Bound::of_callback(&self.shared.limits)).into());
        tracing::warn!(
            plugin = &*self.key.plugin,
            reason = &*reason,
            "a Proxy-Wasm VM failed and is started again when it is needed"
        );
        if let Some(machine) = inner.machine.take() {
            let number = inner.number;
            inner.standing.fell(&machine, making, self.shared.limits.back_off);
            let mut state = machine.store.into_data();
            let contexts: Vec<u32> = state.contexts.iter_mut().map(|(context, _)| context).collect();
            for context in contexts {
                if let Some(Context::Stream(stream)) = state.contexts.remove(context) {
                    stream.ring();
                    if stream.is_lent() {
                        inner.lost.insert((number, context), stream);
                    }
                }
            }
        }
        reason
    }

    /// Starts a machine. The error is a sentence for the operator.
    fn start(&self, ready: &Ready, number: u64) -> std::result::Result<Machine, String> {
        let (shared, limits) = (&self.shared, self.shared.limits);
        let mut store = Store::new(&shared.engine, self.state(number));
        store.limiter(|state| &mut state.guard);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().allowance.met()));
        arm(&mut store, limits.configure);
        let started = ready.pre.instantiate(&mut store).and_then(|instance| {
            let guest = Guest::of(&mut store, &instance);
            guest::initialize(&mut store, &instance)?;
            Ok(guest)
        });
        match started {
            Ok(guest) => {
                shared.metrics.starts.add(1);
                shared.metrics.instances.add(1);
                let counted = Counted(Arc::clone(shared));
                Ok(Machine { store, guest, roots: HashMap::default(), _counted: counted })
            }
            Err(error) => Err(format!("it failed while it started: {}", shared.failed(&error, &Bound::of_start(&limits)))),
        }
    }

    fn state(&self, number: u64) -> State {
        let (shared, limits) = (&self.shared, self.shared.limits);
        let outside =
            self.worker.as_ref().map(|worker| Outside { worker: worker.clone(), vm: Weak::clone(&self.this), number });
        State {
            plugin: Arc::clone(&self.key.plugin),
            key: Arc::clone(&self.key),
            version: self.version,
            limits,
            metrics: Arc::clone(&shared.metrics),
            shared: Arc::clone(shared),
            guard: Guard::new(&limits, Arc::clone(&shared.metrics)),
            allowance: Allowance::default(),
            log: LogBudget::new(limits.log_rate),
            holding: Arc::clone(&self.holding),
            commons: Arc::clone(&self.commons),
            queues: HashMap::default(),
            defined: Defined::default(),
            memory: None,
            allocator: None,
            allocating: false,
            contexts: Contexts::new(limits.exchanges),
            current: 0,
            names: RefCell::default(),
            callouts: Callouts::default(),
            foreign: bytes::Bytes::new(),
            outside,
            open_calls: Arc::clone(&self.open_calls),
            started: Instant::now(),
            ended: Vec::new(),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Whoever keeps its timers looks whether it is still there.
        self.timers.notify_one();
    }
}

impl Machine {
    /// Gives the next call `time`, and makes it be about `context`.
    fn arm(&mut self, context: u32, time: Duration) {
        self.store.data_mut().current = context;
        arm(&mut self.store, time);
    }

    /// Makes a place's root context, and has it read its configuration; why it does not take it.
    fn create_root(&mut self, place: &Settled<'_>, time: Duration) -> Result<Entered<u32>> {
        let (setup, grants) = (Arc::clone(place.setup), Arc::clone(place.grants));
        let root = Root { setup, grants, timer: None, listens: false, ending: false };
        let (vm_bytes, bytes) = (place.setup.machine.vm_config.len(), place.setup.config.len());
        let Some(context) = self.store.data_mut().contexts.insert(Context::Root(root)) else {
            return Ok(Err("it has too many contexts (setting filter_exchanges)".into()));
        };
        self.arm(context, time);
        let Self { store, guest, .. } = self;
        if let Some(create) = &guest.context_create {
            create.call(&mut *store, (context, 0))?;
        }
        let asked = [
            (&guest.vm_start, vm_bytes, "it refuses to start with its vm_config; its log says why"),
            (&guest.validate_configuration, bytes, "it finds its configuration not valid; its log says why"),
            (&guest.configure, bytes, "it refuses its configuration; its log says why"),
        ];
        for (function, size, refusal) in asked {
            let Some(function) = function else { continue };
            store.data_mut().current = context;
            if function.call(&mut *store, (context, u32::try_from(size).unwrap_or(u32::MAX)))? == 0 {
                store.data_mut().contexts.remove(context);
                return Ok(Err(refusal.into()));
            }
        }
        Ok(Ok(context))
    }

    fn end_root(&mut self, context: u32) -> Result<()> {
        if let Some(Context::Root(root)) = self.store.data_mut().contexts.get_mut(context) {
            (root.ending, root.timer, root.listens) = (true, None, false);
        }
        if self.ask_done(context)? { self.delete(context) } else { Ok(()) }
    }

    /// Ends an exchange's context, unless the guest puts that off; what it leaves behind.
    pub(super) fn end_stream(&mut self, context: u32) -> Result<Vec<AuditEvent>> {
        let is_done = self.ask_done(context)?;
        if is_done {
            self.last_calls(context)?;
        }
        let Some(stream) = self.store.data_mut().stream_of(context) else { return Ok(Vec::new()) };
        let events = std::mem::take(&mut stream.events);
        stream.end = End::PutOff;
        if is_done {
            self.store.data_mut().contexts.remove(context);
        }
        Ok(events)
    }

    fn ask_done(&mut self, context: u32) -> Result<bool> {
        match &self.guest.done {
            Some(done) => Ok(done.call(&mut self.store, context)? != 0),
            None => Ok(true),
        }
    }

    fn delete(&mut self, context: u32) -> Result<()> {
        self.last_calls(context)?;
        self.store.data_mut().contexts.remove(context);
        Ok(())
    }

    /// The last calls about a context.
    fn last_calls(&mut self, context: u32) -> Result<()> {
        let is_stream = self.store.data_mut().stream_of(context).is_some();
        self.store.data_mut().current = context;
        if let Some(log) = self.guest.log.as_ref().filter(|_| is_stream) {
            log.call(&mut self.store, context)?;
        }
        if let Some(delete) = &self.guest.delete {
            delete.call(&mut self.store, context)?;
        }
        Ok(())
    }

    /// Ends what guests had put off and have let go of in this call.
    fn finish_ended(&mut self) -> Result<()> {
        while let Some(context) = self.store.data_mut().ended.pop() {
            self.delete(context)?;
        }
        Ok(())
    }

    /// When the next timer is due.
    pub(super) fn next_tick(&mut self) -> Option<Instant> {
        let roots = self.store.data_mut().contexts.iter_mut();
        let timers = roots.filter_map(|(_, context)| match context {
            Context::Root(root) => root.timer.map(|timer| timer.next),
            Context::Stream(_) => None,
        });
        timers.min()
    }

    /// A timer that is due now; it is set again.
    pub(super) fn due(&mut self, now: Instant) -> Option<u32> {
        let roots = self.store.data_mut().contexts.iter_mut();
        let mut timers = roots.filter_map(|(context, kept)| match kept {
            Context::Root(root) => root.timer.as_mut().map(|timer| (context, timer)),
            Context::Stream(_) => None,
        });
        let (context, timer) = timers.find(|(_, timer)| timer.next <= now)?;
        timer.next = now + timer.period;
        Some(context)
    }
}

/// Gives the next call `time`.
fn arm(store: &mut Store<State>, time: Duration) {
    let allowance = Allowance::new(time);
    let ticks = allowance.ticks();
    store.data_mut().allowance = allowance;
    store.set_epoch_deadline(ticks);
}

/// Starts a filter to see whether it does.
pub(in crate::filter) fn try_start(filter: &Filter, ready: &Ready) -> std::result::Result<(), String> {
    let place = super::place::Place::new(filter, ready);
    place.root().map(drop).map_err(|reason| reason.to_string())
}
