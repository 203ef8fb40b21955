//! The connections of one worker that wait for their next exchange. HTTP/1.1 connections are handed out one by one, the
//! freshest first; HTTP/2 ones are shared, and so are attempts at them. A connection is found again only for the same
//! service, requested host and TLS profile, at an address that the guard has passed for it.

use super::{
    Facts,
    attempt::{Attempt, Leading, Waiting},
    guard::Checked,
    http1::{Exchanger, Recycle},
    http2::{Place, Shared},
    load::Lease,
    select,
    settings::{Metrics, Settings},
    tls::Offer,
};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{Host, Name, service::ConnectionLimits};

/// Which exchanges may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) service: Option<Name>,
    /// The requested host: a certificate was verified for it, and a wildcard service has many.
    pub(super) host: Host,
    pub(super) port: u16,
    /// The TLS profile's id; 0 without TLS.
    pub(super) profile: u64,
    pub(super) offer: Offer,
    /// Where it is dialled.
    pub(super) place: select::Place,
}

/// All of one worker's waiting connections.
pub(super) struct Pools {
    slots: RefCell<HashMap<Key, Rc<Slot>>>,
    idle: Cell<usize>,
    most_idle: usize,
    streams: u32,
    metrics: Arc<Metrics>,
}

/// The connections of one key.
pub(super) struct Slot {
    key: Key,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Multiplexed>>>,
    /// That the upstream did not agree on HTTP/2 the last time, so that exchanges do not wait for each other.
    speaks_http1: Cell<bool>,
    /// Attempts under way, whose connections may come to be shared.
    pub(super) attempts: RefCell<Vec<Rc<Attempt>>>,
    /// Exchanges under way by address.
    loads: RefCell<Vec<(SocketAddr, Busy)>>,
}

/// How many exchanges of this worker are under way at an address.
pub(super) type Busy = Rc<Cell<u32>>;

struct Idle {
    exchanger: Exchanger,
    line: Rc<Line>,
    until: Instant,
}

/// What goes with an HTTP/1.1 connection for all its life.
pub(super) struct Line {
    me: Weak<Self>,
    pools: Weak<Pools>,
    slot: Rc<Slot>,
    pub(super) facts: Facts,
    lease: Lease,
    limits: ConnectionLimits,
    /// Whether its server asked for a client certificate and got none.
    pub(super) certificate_wanting: bool,
    busy: Busy,
    in_use: Cell<bool>,
}

/// An HTTP/2 connection and what is known of it.
pub(super) struct Multiplexed {
    pub(super) facts: Facts,
    pub(super) shared: Rc<Shared>,
    idle_timeout: Duration,
}

/// What the pool has for an exchange.
pub(super) enum Found {
    Http1(Exchanger, Rc<Line>),
    Http2(Rc<Multiplexed>, Place),
    Nothing,
}

/// Whether an exchange dials, or waits for one that does.
pub(super) enum Turn {
    Lead(Option<Leading>),
    Wait(Waiting),
}

impl Pools {
    pub(super) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: RefCell::default(),
            idle: Cell::new(0),
            most_idle: settings.idle_connections,
            streams: settings.streams_per_connection,
            metrics,
        }
    }

    /// The connections of `key`.
    pub(super) fn slot(&self, key: Key) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        Rc::clone(slots.entry(key).or_insert_with_key(|key| {
            Rc::new(Slot {
                key: key.clone(),
                idle: RefCell::default(),
                shared: RefCell::default(),
                speaks_http1: Cell::new(false),
                attempts: RefCell::default(),
                loads: RefCell::default(),
            })
        }))
    }

    /// A connection for one exchange, at one of `addresses`, at the first of them if there is any.
    pub(super) fn find(&self, slot: &Slot, addresses: &[(Checked, Busy)], first: usize) -> Found {
        let at = |index: usize, address: SocketAddr| addresses[index].0.address() == address;
        let permitted = |address: SocketAddr| addresses.iter().any(|(checked, _)| checked.address() == address);
        {
            let shared = slot.shared.borrow();
            let with_room = |one: &&Rc<Multiplexed>| permitted(one.facts.address) && one.shared.has_room(self.streams);
            let preferred = shared.iter().find(|one| at(first, one.facts.address) && with_room(one));
            if let Some(one) = preferred.or_else(|| shared.iter().find(with_room)) {
                self.metrics.reused.add(1);
                return Found::Http2(Rc::clone(one), one.shared.place());
            }
        }
        let now = Instant::now();
        while let Some(idle) = slot.take_idle(|address| at(first, address), permitted) {
            self.count_idle(-1);
            if idle.until > now && idle.exchanger.is_open() {
                self.metrics.reused.add(1);
                idle.line.begin();
                return Found::Http1(idle.exchanger, idle.line);
            }
        }
        Found::Nothing
    }

    /// Whether an exchange is to dial for `slot`, or to wait for another's attempt. `limit` is the longest that this
    /// exchange would try. Where HTTP/2 is not to be had, everyone dials.
    pub(super) fn turn(&self, slot: &Rc<Slot>, h2: bool, limit: Duration) -> Turn {
        let may_share = h2 && !slot.speaks_http1.get();
        let joined = may_share.then(|| slot.attempts.borrow().iter().find_map(|attempt| attempt.join(self.streams))).flatten();
        match joined {
            Some(waiting) => Turn::Wait(waiting),
            None => Turn::Lead(may_share.then(|| Leading::begin(slot, limit))),
        }
    }

    /// Makes an HTTP/2 connection available to all.
    pub(super) fn share(&self, slot: &Slot, facts: Facts, shared: Shared, idle_timeout: Duration) -> Place {
        let one = Rc::new(Multiplexed { facts, shared: Rc::new(shared), idle_timeout });
        let place = one.shared.place();
        slot.speaks_http1.set(false);
        slot.shared.borrow_mut().push(one);
        place
    }

    /// Lets go of an idle connection of `service` to make place for another one. Whether there was any.
    pub(super) fn give_up_one(&self, service: Option<&Name>) -> bool {
        let slots = self.slots.borrow();
        let of_service = || slots.values().filter(|slot| slot.key.service.as_ref() == service);
        let until = |slot: &Slot| slot.idle.borrow().first().map(|idle| idle.until);
        let oldest = of_service().filter_map(|slot| Some((until(slot)?, slot))).min_by_key(|(until, _)| *until);
        if let Some((_, slot)) = oldest {
            let given_up = slot.idle.borrow_mut().remove(0);
            self.count_idle(-1);
            drop(given_up);
            return true;
        }
        for slot in of_service() {
            let mut shared = slot.shared.borrow_mut();
            if let Some(at) = shared.iter().position(|one| one.shared.idle_since().is_some()) {
                shared.remove(at).shared.give_up();
                return true;
            }
        }
        false
    }

    /// Lets go of what has expired, was closed by its peer, or is wanted by another worker.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        self.slots.borrow_mut().retain(|_, slot| {
            let goes =
                |idle: &mut Idle| idle.until <= now || !idle.exchanger.is_open() || idle.line.lease.load().take_pressed();
            gone.extend(slot.idle.borrow_mut().extract_if(.., goes));
            slot.shared.borrow_mut().retain(|one| !one.shared.is_over(now, one.idle_timeout) && !one.shared.is_wanted());
            slot.loads.borrow_mut().retain(|(_, busy)| Rc::strong_count(busy) > 1);
            // A slot whose connections are all busy is held by them, and one that was used lately by the worker's spots.
            Rc::strong_count(slot) > 1 || !slot.idle.borrow().is_empty() || !slot.shared.borrow().is_empty()
        });
        self.count_idle(-(gone.len() as i64));
    }

    fn give_back(&self, idle: Idle) {
        let most = idle.line.limits.max_idle as usize;
        if most == 0 || self.idle.get() >= self.most_idle || idle.line.lease.load().take_pressed() || !idle.exchanger.is_open()
        {
            return;
        }
        let slot = Rc::clone(&idle.line.slot);
        let mut waiting = slot.idle.borrow_mut();
        let oldest = (waiting.len() >= most).then(|| waiting.remove(0));
        waiting.push(idle);
        self.count_idle(1 - i64::from(oldest.is_some()));
        drop(waiting);
        drop(oldest);
    }

    fn count_idle(&self, change: i64) {
        self.idle.set(self.idle.get().saturating_add_signed(change as isize));
        self.metrics.connections_idle.add(change);
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.metrics.connections_idle.add(-(self.idle.get() as i64));
        // Idle connections hold their slot, which holds them.
        for slot in self.slots.take().into_values() {
            drop((slot.idle.take(), slot.shared.take()));
        }
    }
}

impl Slot {
    /// The count of exchanges under way at `address`.
    pub(super) fn busy(&self, address: SocketAddr) -> Busy {
        let mut loads = self.loads.borrow_mut();
        if let Some((_, busy)) = loads.iter().find(|(known, _)| *known == address) {
            return Rc::clone(busy);
        }
        let busy = Busy::default();
        loads.push((address, Rc::clone(&busy)));
        busy
    }

    /// Exchanges under way, at all addresses together.
    pub(super) fn load(&self) -> u32 {
        self.loads.borrow().iter().map(|(_, busy)| busy.get()).sum()
    }

    /// Notes that the upstream did not agree on HTTP/2, so that exchanges no longer wait for each other's connections.
    pub(super) fn agreed_on_http1(&self) {
        self.speaks_http1.set(true);
    }

    /// The freshest idle connection at a preferred address, else the freshest at a permitted one.
    fn take_idle(&self, preferred: impl Fn(SocketAddr) -> bool, permitted: impl Fn(SocketAddr) -> bool) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let at = idle
            .iter()
            .rposition(|one| preferred(one.line.facts.address))
            .or_else(|| idle.iter().rposition(|one| permitted(one.line.facts.address)))?;
        Some(idle.remove(at))
    }
}

impl Line {
    pub(super) fn new(
        pools: &Rc<Pools>,
        slot: &Rc<Slot>,
        facts: Facts,
        lease: Lease,
        limits: ConnectionLimits,
        certificate_wanting: bool,
    ) -> Rc<Self> {
        let (pools, slot, busy) = (Rc::downgrade(pools), Rc::clone(slot), slot.busy(facts.address));
        let in_use = Cell::new(false);
        let line = Rc::new_cyclic(|me| {
            let me = Weak::clone(me);
            Self { me, pools, slot, facts, lease, limits, certificate_wanting, busy, in_use }
        });
        line.begin();
        line
    }

    fn begin(&self) {
        if !self.in_use.replace(true) {
            self.busy.set(self.busy.get() + 1);
        }
    }

    fn end(&self) {
        if self.in_use.replace(false) {
            self.busy.set(self.busy.get().saturating_sub(1));
        }
    }
}

impl Recycle for Line {
    fn recycle(&self, exchanger: Exchanger) {
        let (Some(pools), Some(line)) = (self.pools.upgrade(), self.me.upgrade()) else { return };
        self.end();
        let until = Instant::now() + self.limits.idle_timeout.length();
        pools.give_back(Idle { exchanger, line, until });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}
