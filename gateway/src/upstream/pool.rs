//! The connections of one worker that wait for their next exchange. HTTP/1.1 connections are handed out one by one, the
//! freshest first; HTTP/2 ones are shared. A connection is found again only for the same service, requested host and TLS
//! profile, at an address that the guard has just passed again.

use super::{
    Facts,
    guard::Checked,
    http1::{Exchanger, Recycle},
    http2::{Place, Shared},
    load::Lease,
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
use tokio::sync::Notify;

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
}

/// All of one worker's waiting connections.
pub(super) struct Pools {
    slots: RefCell<HashMap<Key, Slot>>,
    idle: Cell<usize>,
    most_idle: usize,
    streams: u32,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Slot {
    idle: Vec<Idle>,
    shared: Vec<Rc<Multiplexed>>,
    /// That the upstream agreed on HTTP/2 the last time, so one new connection at a time suffices.
    speaks_h2: bool,
    dialling: Option<Rc<Notify>>,
}

struct Idle {
    exchanger: Exchanger,
    line: Rc<Line>,
    until: Instant,
}

/// What goes with an HTTP/1.1 connection for all its life.
pub(super) struct Line {
    me: Weak<Self>,
    pools: Weak<Pools>,
    key: Key,
    pub(super) facts: Facts,
    lease: Lease,
    limits: ConnectionLimits,
    /// Whether its server asked for a client certificate and got none.
    pub(super) certificate_wanting: bool,
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
    /// Another exchange is dialling a connection that this one can share: wait, and look again.
    Soon(Rc<Notify>),
    Nothing,
}

/// That this exchange is dialling; tells those who wait when dropped.
pub(super) struct Dialling {
    pools: Rc<Pools>,
    key: Key,
    notify: Rc<Notify>,
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

    /// A connection for one exchange, at one of `addresses`. `h2_only` says that the port speaks nothing but HTTP/2.
    pub(super) fn find(&self, key: &Key, addresses: &[Checked], h2_only: bool) -> Found {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Found::Nothing };
        let permitted = |address: SocketAddr| addresses.iter().any(|checked| checked.address() == address);
        let room = slot.shared.iter().find(|one| permitted(one.facts.address) && one.shared.has_room(self.streams));
        if let Some(one) = room {
            self.metrics.reused.add(1);
            return Found::Http2(Rc::clone(one), one.shared.place());
        }
        let now = Instant::now();
        let mut at = slot.idle.len();
        while at > 0 {
            at -= 1;
            if !permitted(slot.idle[at].line.facts.address) {
                continue;
            }
            let idle = slot.idle.remove(at);
            self.count_idle(-1);
            if idle.until > now && idle.exchanger.is_open() {
                self.metrics.reused.add(1);
                return Found::Http1(idle.exchanger, idle.line);
            }
        }
        match &slot.dialling {
            Some(dialling) if h2_only || slot.speaks_h2 => Found::Soon(Rc::clone(dialling)),
            _ => Found::Nothing,
        }
    }

    /// Notes that a connection for `key` is being dialled.
    pub(super) fn dialling(self: &Rc<Self>, key: &Key) -> Dialling {
        let notify = Rc::new(Notify::new());
        self.slots.borrow_mut().entry(key.clone()).or_default().dialling = Some(Rc::clone(&notify));
        Dialling { pools: Rc::clone(self), key: key.clone(), notify }
    }

    /// Makes an HTTP/2 connection available to all.
    pub(super) fn share(&self, key: &Key, facts: Facts, shared: Shared, idle_timeout: Duration) -> (Rc<Multiplexed>, Place) {
        let one = Rc::new(Multiplexed { facts, shared: Rc::new(shared), idle_timeout });
        let place = one.shared.place();
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key.clone()).or_default();
        slot.speaks_h2 = true;
        slot.shared.push(Rc::clone(&one));
        (one, place)
    }

    /// Notes that the upstream did not agree on HTTP/2, so that exchanges no longer wait for each other's connections.
    pub(super) fn agreed_on_http1(&self, key: &Key) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(key) {
            slot.speaks_h2 = false;
        }
    }

    /// Lets go of an idle connection of `service` to make place for another one. Whether there was any.
    pub(super) fn give_up_one(&self, service: Option<&Name>) -> bool {
        let mut slots = self.slots.borrow_mut();
        let oldest = slots
            .iter_mut()
            .filter(|(key, slot)| key.service.as_ref() == service && !slot.idle.is_empty())
            .min_by_key(|(_, slot)| slot.idle[0].until);
        let Some((_, slot)) = oldest else { return give_up_shared(&mut slots, service) };
        let given_up = slot.idle.remove(0);
        self.count_idle(-1);
        drop(slots);
        drop(given_up);
        true
    }

    /// Lets go of what has expired, was closed by its peer, or is wanted by another worker.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        self.slots.borrow_mut().retain(|_, slot| {
            let stays =
                |idle: &mut Idle| idle.until <= now || !idle.exchanger.is_open() || idle.line.lease.load().take_pressed();
            gone.extend(slot.idle.extract_if(.., stays));
            slot.shared.retain(|one| !one.shared.is_over(now, one.idle_timeout) && !one.shared.is_wanted());
            !slot.idle.is_empty() || !slot.shared.is_empty() || slot.dialling.is_some()
        });
        self.count_idle(-(gone.len() as i64));
    }

    fn give_back(&self, idle: Idle) {
        let most = idle.line.limits.max_idle as usize;
        if most == 0 || self.idle.get() >= self.most_idle || idle.line.lease.load().take_pressed() || !idle.exchanger.is_open()
        {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        // The slot may have been swept away while its only connection was busy.
        let key = &idle.line.key;
        if !slots.contains_key(key) {
            slots.insert(key.clone(), Slot::default());
        }
        let Some(slot) = slots.get_mut(key) else { return };
        let oldest = (slot.idle.len() >= most).then(|| slot.idle.remove(0));
        slot.idle.push(idle);
        self.count_idle(1 - i64::from(oldest.is_some()));
        drop(slots);
        drop(oldest);
    }

    fn count_idle(&self, change: i64) {
        self.idle.set(self.idle.get().saturating_add_signed(change as isize));
        self.metrics.connections_idle.add(change);
    }
}

/// The same among HTTP/2 connections: one that carries nothing.
fn give_up_shared(slots: &mut HashMap<Key, Slot>, service: Option<&Name>) -> bool {
    let of_service = slots.iter_mut().filter(|(key, _)| key.service.as_ref() == service);
    for (_, slot) in of_service {
        if let Some(at) = slot.shared.iter().position(|one| one.shared.idle_since().is_some()) {
            slot.shared.remove(at).shared.give_up();
            return true;
        }
    }
    false
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.metrics.connections_idle.add(-(self.idle.get() as i64));
    }
}

impl Line {
    pub(super) fn new(
        pools: &Rc<Pools>,
        key: Key,
        facts: Facts,
        lease: Lease,
        limits: ConnectionLimits,
        certificate_wanting: bool,
    ) -> Rc<Self> {
        let pools = Rc::downgrade(pools);
        Rc::new_cyclic(|me| Self { me: Weak::clone(me), pools, key, facts, lease, limits, certificate_wanting })
    }
}

impl Recycle for Line {
    fn recycle(&self, exchanger: Exchanger) {
        let (Some(pools), Some(line)) = (self.pools.upgrade(), self.me.upgrade()) else { return };
        let until = Instant::now() + self.limits.idle_timeout.length();
        pools.give_back(Idle { exchanger, line, until });
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(slot) = self.pools.slots.borrow_mut().get_mut(&self.key)
            && slot.dialling.as_ref().is_some_and(|current| Rc::ptr_eq(current, &self.notify))
        {
            slot.dialling = None;
        }
        self.notify.notify_waiters();
    }
}
