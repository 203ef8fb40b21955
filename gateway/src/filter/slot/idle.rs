//! Instances that wait for their next exchange. They make room for one that is needed now.

use super::Slot;
use crate::filter::{chain::Filter, instance::Instance, limits::Metrics};
use foldhash::HashMap;
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

/// The slots of one worker, by the filter's id.
pub(in crate::filter) type Slots = RefCell<HashMap<u64, Rc<Slot>>>;

/// Those of one filter on one worker.
pub(super) struct Idle {
    /// The one that has waited longest is the first, and the last one is used next.
    waiting: RefCell<VecDeque<Waiting>>,
    /// All slots of the worker.
    slots: Weak<Slots>,
}

struct Waiting {
    share: Share,
    instance: Instance,
    since: Instant,
}

/// What an instance takes of the memory that its like have together, while it waits.
struct Share {
    bytes: i64,
    metrics: Arc<Metrics>,
}

impl Idle {
    pub(super) fn new(slots: &Rc<Slots>) -> Self {
        Self { waiting: RefCell::default(), slots: Rc::downgrade(slots) }
    }

    pub(super) fn take(&self) -> Option<Instance> {
        self.waiting.borrow_mut().pop_back().map(|waiting| waiting.instance)
    }

    /// Keeps an instance, unless as much waits already as may: what nobody uses just now must leave memory to others.
    pub(super) fn keep(&self, filter: &Filter, instance: Instance) -> bool {
        let share = Share::of(filter, instance.memory_bytes());
        let kept = share.is_some();
        self.waiting.borrow_mut().extend(share.map(|share| Waiting { share, instance, since: Instant::now() }));
        kept
    }

    /// Drops what has waited longest on this worker, whosesoever it is, until there are as many bytes more as are wanted, or all that
    /// waits is gone; whether there are as many as are lacking. Where there would not be nothing is dropped.
    pub(super) fn make_room(&self, lacking: i64, wanted: i64) -> bool {
        let Some(slots) = self.slots.upgrade() else { return false };
        let slots = slots.borrow();
        let all: i64 = slots.values().map(|slot| slot.idle.bytes()).sum();
        if all < lacking {
            return false;
        }
        let mut room = 0;
        while room < wanted.min(all) {
            let waiting = slots.values().filter_map(|slot| Some((slot.idle.since()?, slot)));
            let Some((_, slot)) = waiting.min_by_key(|(since, _)| *since) else { return false };
            room += slot.drop_waiting();
        }
        true
    }

    /// Bytes of the memory of these.
    fn bytes(&self) -> i64 {
        self.waiting.borrow().iter().map(|waiting| waiting.share.bytes).sum()
    }

    /// Since when the first of these waits.
    fn since(&self) -> Option<Instant> {
        self.waiting.borrow().front().map(|waiting| waiting.since)
    }

    /// Drops the one that has waited longest, where there is one; how many bytes it had.
    pub(super) fn drop_first(&self) -> Option<i64> {
        let first = self.waiting.borrow_mut().pop_front();
        first.map(|first| first.share.bytes)
    }
}

impl Share {
    fn of(filter: &Filter, bytes: i64) -> Option<Self> {
        let metrics = &filter.shared.metrics;
        let half = i64::try_from(filter.shared.limits.own_memory_bytes / 2).unwrap_or(i64::MAX);
        metrics.own_memory_idle_bytes.add_within(bytes, half).then(|| Self { bytes, metrics: Arc::clone(metrics) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.metrics.own_memory_idle_bytes.add(-self.bytes);
    }
}
