//! Letting instances go that nobody needs: those of filters that no route has any more, and those that have served nothing
//! for a while. Runs beside a worker's connections, so that no exchange has to come for it.

use super::slot::{Instances, Slot};
use std::{rc::Rc, time::Duration};
use tokio::task::yield_now;

/// How often a worker that has instances looks at them.
const EVERY: Duration = Duration::from_secs(1);
/// How many are dropped before connections get their turn again: each costs some ten microseconds.
const AT_ONCE: usize = 32;

impl Instances {
    /// Looks after the instances, and does what VMs have to do between callbacks, for as long as it is polled.
    pub async fn keep(&self) {
        tokio::join!(self.look_after(), self.machines.agenda.keep());
    }

    async fn look_after(&self) {
        loop {
            if self.slots.borrow().is_empty() {
                self.arrived.notified().await;
            }
            tokio::time::sleep(EVERY).await;
            self.slots.borrow().values().for_each(|slot| slot.age());
            while self.drop_some() == AT_ONCE {
                yield_now().await;
            }
            self.raise_fallen().await;
        }
    }

    /// Drops some of those that nobody needs; how many.
    pub(super) fn drop_some(&self) -> usize {
        let unneeded = |slot: &Rc<Slot>| !slot.is_on_a_route() || slot.is_idle();
        let found: Vec<_> = self.slots.borrow_mut().extract_if(|_, slot| unneeded(slot)).take(AT_ONCE).collect();
        found.len()
    }
}

impl Slot {
    /// Whether a route has its filter. Exchanges under way keep it beyond that.
    pub(super) fn is_on_a_route(&self) -> bool {
        self.filter.strong_count() > 0
    }

    /// Another look at it has passed.
    fn age(self: &Rc<Self>) {
        let is_visited = Rc::strong_count(self) > 1;
        self.unused.set(if is_visited { 0 } else { self.unused.get().saturating_add(1) });
    }

    /// Whether it has served nothing for as long as it may.
    fn is_idle(self: &Rc<Self>) -> bool {
        let Some(filter) = self.filter.upgrade() else { return true };
        let is_idle = EVERY.saturating_mul(self.unused.get()) > filter.shared.limits.idle
            && Rc::strong_count(self) == 1
            && !self.proxy.as_ref().is_some_and(|place| place.is_at_work());
        if is_idle {
            filter.shared.metrics.idle_dropped.add(1);
        }
        is_idle
    }
}
