//! Where a worker keeps its instances: started when first needed, kept for many exchanges, replaced after a failure.

mod idle;
mod own;

pub(super) use self::idle::Slots;

use self::{idle::Idle, own::Own};
use super::{
    Facts, Run,
    chain::{Chains, Filter},
    guest::Calls,
    inspect::Code,
    instance::{Answer, Bound, Instance, NotStarted, Serves, Trail, Visit},
    lent::Spare,
    outbound::Errands,
    proxy_wasm::{self, Called},
};
use crate::fault::Fault;
use futures_util::FutureExt as _;
use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tidegate_policy::{
    route::{Isolation, Traffic},
    target::Form,
};
use tokio::sync::Notify;

/// The wait after the first failure; it doubles with each that follows.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
/// After this long without a failure the last one is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// The per-worker half: live instances.
#[derive(Default)]
pub struct Instances {
    pub(super) slots: Rc<Slots>,
    /// Rung when there is another slot.
    pub(super) arrived: Notify,
    /// The generation of chains that was seen last.
    generation: Cell<u64>,
    /// The newest filter that was started without an exchange.
    pub(super) attended: Cell<u64>,
    /// Where filters' own calls go.
    errands: Option<Errands>,
    /// The VMs of Proxy-Wasm filters.
    pub(super) machines: proxy_wasm::Machines,
    spare: Rc<Spare>,
}

/// The place of one filter on one worker.
pub(super) struct Slot {
    /// Weak, so that a filter that no route has any more is let go.
    pub(super) filter: Weak<Filter>,
    /// How often it was looked at since an exchange used it last.
    pub(super) unused: Cell<u32>,
    health: RefCell<Health>,
    /// Instances that serve one exchange at a time, and wait for the next.
    idle: Idle,
    /// Those that exist, idle or not.
    own: Cell<usize>,
    errands: Option<Errands>,
    /// Where a Proxy-Wasm filter runs, which has no instances here.
    pub(super) proxy: Option<Rc<proxy_wasm::Place>>,
}

/// Where an exchange finds its instance of a filter.
pub(super) enum Seat {
    /// One that other exchanges use as well. Its calls never suspend, so it is free whenever it is looked for.
    Shared(Rc<Slot>),
    /// One of its own.
    Own(Rc<Own>),
    /// A VM of a Proxy-Wasm filter; the slot is kept as one that is in use.
    Proxy(Rc<proxy_wasm::Place>, #[expect(dead_code, reason = "kept so that its sweep sees it in use")] Rc<Slot>),
}

#[derive(Default)]
struct Health {
    instance: Option<Instance>,
    /// Counts instances, so that an exchange knows whether the one it began on is still there.
    number: u64,
    failures: Failures,
}

/// How often something failed of late, and how long it waits for that.
#[derive(Default)]
pub(super) struct Failures {
    count: u32,
    failed: Option<Instant>,
    /// Why it failed last.
    pub(super) reason: Arc<str>,
}

/// What came of a visit, or why there was none or it failed.
pub(super) type Visited = Result<Answer, Arc<str>>;

impl Instances {
    /// None yet. Calls of filters' own go to `errands`.
    pub fn new(errands: Errands) -> Self {
        Self { errands: Some(errands), ..Self::default() }
    }

    /// Begins a run of the permit's route's chain; `None` where it has no filters for such traffic. Nothing is called yet, so this fails
    /// only when a filter that its route insists on cannot be run at all.
    pub fn begin(&self, chains: &Chains, facts: Facts<'_>) -> Option<Result<Run, Fault>> {
        if self.generation.replace(chains.generation) != chains.generation {
            self.drop_some();
        }
        let route = facts.permit.route().filter(|route| !route.document.filters.is_empty())?;
        let chain = chains.of(route.name.as_str())?;
        let traffic = if facts.permit.target().form == Form::Tunnel { Traffic::Tunnels } else { Traffic::Requests };
        if !chain.links.iter().any(|link| link.traffic.covers(traffic)) {
            return None;
        }
        Some(Run::begin(chain, (facts, traffic), &self.spare, |filter| self.slot(filter)))
    }

    pub(super) fn slot(&self, filter: &Arc<Filter>) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(filter.id).or_insert_with(|| {
            self.arrived.notify_one();
            Rc::new(Slot {
                filter: Arc::downgrade(filter),
                unused: Cell::default(),
                health: RefCell::default(),
                idle: Idle::new(&self.slots),
                own: Cell::new(0),
                errands: self.errands.clone(),
                proxy: match &filter.compiled.code {
                    Code::Proxy(ready) => Some(self.machines.place(filter, ready, self.errands.as_ref())),
                    Code::Typed(_) => None,
                },
            })
        });
        slot.unused.set(0);
        Rc::clone(slot)
    }
}

impl Seat {
    /// The seat that an exchange takes with `filter`.
    pub(super) fn take(filter: &Filter, slot: Rc<Slot>) -> Self {
        if let Some(place) = &slot.proxy {
            return Self::Proxy(Rc::clone(place), slot);
        }
        match (filter.calls(), filter.place.isolation) {
            (Calls::Plain, Isolation::Shared) => Self::Shared(slot),
            _ => Self::Own(Own::unstarted(slot)),
        }
    }

    /// Whether calls may suspend.
    pub(super) fn suspends(filter: &Filter) -> bool {
        filter.calls() == Calls::Suspending
    }

    /// Makes one callback, on the instance that the exchange began on or on the current one where it begins.
    pub(super) async fn visit(&self, filter: &Filter, trail: &RefCell<Trail>, visit: Visit<'_>) -> Visited {
        match self {
            Self::Shared(slot) => slot.visit(filter, &mut trail.borrow_mut(), visit),
            // What may suspend is large; in a box, exchanges without it are no larger for it.
            Self::Own(own) => Box::pin(own.visit(filter, trail, visit)).await,
            Self::Proxy(place, _) => place.visit(trail, visit).await,
        }
    }

    /// The same without a wait; none where there may be one, and it was not made.
    pub(super) fn visit_at_once(&self, filter: &Filter, trail: &RefCell<Trail>, visit: Visit<'_>) -> Option<Called> {
        match self {
            Self::Shared(slot) => Some(Called::Done(slot.visit(filter, &mut trail.borrow_mut(), visit))),
            Self::Proxy(place, _) => Some(place.visit_at_once(trail, visit)),
            Self::Own(_) if Self::suspends(filter) => None,
            Self::Own(own) => {
                let visited = Box::pin(own.visit(filter, trail, visit)).now_or_never();
                // A plain call has come to its end, or it never will.
                let lost = || Err(Arc::from("its instance was lost when the gateway panicked in a call of it"));
                Some(Called::Done(visited.unwrap_or_else(lost)))
            }
        }
    }

    /// Whether it has an exchange open: it may have one although its trail is away, with a call that was given up.
    pub(super) fn is_open(&self, trail: &RefCell<Trail>) -> bool {
        trail.borrow().open.is_some() || matches!(self, Self::Own(own) if own.is_away())
    }

    /// Drops what is left of an exchange that is over where its filter failed.
    pub(super) fn forget(&self, trail: &RefCell<Trail>) {
        if let Self::Proxy(place, _) = self {
            place.forget(trail);
        }
    }

    /// The VM that may hold something of an exchange between two pieces of its body.
    pub(super) fn vm(&self) -> Option<&proxy_wasm::Place> {
        match self {
            Self::Proxy(place, _) => Some(place),
            Self::Shared(_) | Self::Own(_) => None,
        }
    }
}

impl Slot {
    /// Makes one callback on the instance that exchanges share.
    pub(super) fn visit(&self, filter: &Filter, trail: &mut Trail, visit: Visit<'_>) -> Visited {
        let mut health = self.health.borrow_mut();
        let unavailable = |reason: String| {
            filter.shared.metrics.unavailable.add(1);
            Err(Arc::from(reason))
        };
        if trail.open.is_some_and(|open| open.number != health.number || health.instance.is_none()) {
            trail.open = None;
            return unavailable(format!("its instance was lost in another exchange: {}", health.failures.reason));
        }
        if health.instance.is_none() {
            if let Some(wait) = health.failures.wait(filter.shared.limits.back_off) {
                let wait = wait.as_millis();
                let reason = &health.failures.reason;
                return unavailable(format!("it is started again in {wait} ms after it failed: {reason}"));
            }
            match at_once(pin!(Instance::start(filter, Serves::All))) {
                Ok(instance) => health.started(instance),
                Err(not_started) => return Err(health.fail(not_started.reason())),
            }
        }
        let number = health.number;
        let Some(instance) = health.instance.as_mut() else {
            return unavailable("it is not running".to_owned());
        };
        let limit = filter.shared.limits.exchanges;
        if trail.open.is_none() && instance.open() >= limit {
            return unavailable(format!("{limit} exchanges are open on its instance, the limit (setting filter_exchanges)"));
        }
        match instance.serve_at_once(trail, number, visit) {
            Ok(answer) => {
                if trail.open.is_none() {
                    health.failures.forgive();
                }
                Ok(answer)
            }
            Err(error) => {
                trail.open = None;
                Err(health.fail(filter.shared.failed(&error, &Bound::of_callback(&filter.shared.limits)).into()))
            }
        }
    }

    /// An instance for one exchange: one that waits, or a new one.
    async fn instance(&self, filter: &Filter) -> Result<Instance, NotStarted> {
        if let Some(instance) = self.idle.take() {
            return Ok(instance);
        }
        let limit = filter.shared.limits.own_instances;
        if self.own.get() >= limit {
            filter.shared.metrics.unavailable.add(1);
            return Err(format!(
                "{limit} exchanges of this worker have an instance of it, the limit (setting filter_own_instances)"
            )
            .into());
        }
        if let Some(wait) = self.health.borrow().failures.wait(filter.shared.limits.back_off) {
            filter.shared.metrics.unavailable.add(1);
            return Err(format!(
                "it is started again in {} ms after it failed: {}",
                wait.as_millis(),
                self.health.borrow().failures.reason
            )
            .into());
        }
        self.own.set(self.own.get() + 1);
        let start = || Instance::start(filter, Serves::One(self.errands.clone()));
        let (mut started, mut wanted) = (start().await, 0);
        while let Err(NotStarted::NoMemory { lacking }) = started {
            // One that asks for its memory bit by bit has soon asked for all of it.
            wanted = lacking.max(wanted * 2);
            if !self.idle.make_room(lacking, wanted) {
                break;
            }
            started = start().await;
        }
        started.inspect_err(|not_started| {
            self.own.set(self.own.get().saturating_sub(1));
            // Where there is no memory the next one need not wait.
            if let NotStarted::Failed(reason) = not_started {
                self.health.borrow_mut().fail(Arc::clone(reason));
            }
        })
    }

    /// Takes an instance back whose exchange is over.
    fn give_back(&self, instance: Instance) {
        let filter = self.filter.upgrade().filter(|filter| filter.place.isolation == Isolation::Shared);
        if !filter.is_some_and(|filter| self.idle.keep(&filter, instance)) {
            self.own.set(self.own.get().saturating_sub(1));
        }
    }

    /// Drops the instance that has waited longest; how many bytes it had.
    fn drop_waiting(&self) -> i64 {
        let Some(bytes) = self.idle.drop_first() else { return 0 };
        self.own.set(self.own.get().saturating_sub(1));
        bytes
    }
}

impl Health {
    fn started(&mut self, instance: Instance) {
        self.number += 1;
        self.instance = Some(instance);
    }

    fn fail(&mut self, reason: Arc<str>) -> Arc<str> {
        self.instance = None;
        self.failures.fail(reason)
    }
}

impl Failures {
    /// An exchange has ended well. Waits are for what cannot serve any: a caller whose exchanges fail must not make the others
    /// wait for longer and longer.
    fn forgive(&mut self) {
        self.count = 0;
    }

    /// Notes another.
    pub(super) fn fail(&mut self, reason: Arc<str>) -> Arc<str> {
        if self.failed.is_some_and(|failed| failed.elapsed() > FORGIVEN_AFTER) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.failed = Some(Instant::now());
        self.reason = Arc::clone(&reason);
        reason
    }

    /// How long until another start may be tried; none when it may be now.
    pub(super) fn wait(&self, longest: Duration) -> Option<Duration> {
        let doublings = self.count.saturating_sub(1).min(16);
        let pause = FIRST_BACK_OFF.saturating_mul(1 << doublings).min(longest);
        pause.checked_sub(self.failed?.elapsed()).filter(|wait| !wait.is_zero())
    }
}

/// Runs work that never waits: that of a store whose calls do not suspend. It is large, and stays where it is.
pub(super) fn at_once<T>(work: Pin<&mut impl Future<Output = T>>) -> T {
    match work.now_or_never() {
        Some(done) => done,
        None => unreachable!("wasmtime refuses plain calls into a store that may suspend"),
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("slots", &self.slots.borrow().len()).finish()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "Shared",
            Self::Own(_) => "Own",
            Self::Proxy(..) => "Proxy",
        })
    }
}
