//! What of a VM is to run although no exchange has come, and when that is tried again after it did not start or failed.

use super::{Machine, Settled, Vm};
use crate::filter::proxy_wasm::state::Context;
use std::time::{Duration, Instant};

/// The longest wait between two starts that nobody asked for. Each may take as much of its worker's time as a start may.
const LONGEST: Duration = Duration::from_secs(60);

/// The places of a VM whose root context is to be there, and is not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    places: Vec<u64>,
    /// Not before this; at once where it did not fail.
    again: Option<Instant>,
    wait: Duration,
}

impl Vm {
    /// Whether it has something to do without an exchange, or is to have.
    pub(in crate::filter::proxy_wasm) fn is_at_work(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.standing.places.is_empty() || inner.machine.as_ref().is_some_and(|machine| machine.at_work().next().is_some())
    }

    /// Has a place's root context be there from now on although no exchange has come.
    pub(in crate::filter::proxy_wasm) fn is_to_stand(&self, place: u64) {
        self.inner.borrow_mut().standing.await_place(place);
    }

    /// Whether a place's root context is to be there now, and is not.
    pub(in crate::filter::proxy_wasm) fn is_down(&self, place: u64, now: Instant) -> bool {
        let inner = self.inner.borrow();
        let may_start = inner.machine.is_some() || inner.failures.wait(self.shared.limits.back_off).is_none();
        may_start && inner.standing.is_due(place, now)
    }

    /// Makes the root context of a place that is down. Where that fails it is tried again, less and less often.
    pub(in crate::filter::proxy_wasm) fn stand(&self, place: &Settled<'_>) {
        let before = self.inner.borrow().number;
        let made = self.root(place);
        let inner = &mut *self.inner.borrow_mut();
        let is_known = inner.machine.as_ref().is_some_and(|machine| machine.roots.contains_key(&place.id));
        match made {
            Ok(_) => {}
            Err(reason) if is_known => {
                tracing::warn!(plugin = &*self.key.plugin, reason = &*reason, "a Proxy-Wasm filter does not run");
            }
            Err(reason) => {
                let wait = inner.standing.put_off(Duration::ZERO, self.shared.limits.back_off);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                // Of one that started and failed then, its failure was logged.
                if inner.number == before {
                    tracing::warn!(
                        plugin = &*self.key.plugin,
                        reason = &*reason,
                        wait_ms,
                        "a Proxy-Wasm VM did not start; that is tried again after the wait, or when an exchange needs it"
                    );
                }
            }
        }
    }
}

impl Machine {
    /// The places whose root context has something to do without an exchange.
    fn at_work(&self) -> impl Iterator<Item = u64> {
        let contexts = &self.store.data().contexts;
        let is_at_work = |root: u32| matches!(contexts.get(root), Some(Context::Root(root)) if root.is_at_work());
        self.roots.iter().filter(move |(_, root)| root.as_ref().is_ok_and(|root| is_at_work(*root))).map(|(place, _)| *place)
    }
}

impl Standing {
    /// A machine has failed: what it was at work for is to run again.
    pub(super) fn fell(&mut self, machine: &Machine, shortest: Duration) {
        let before = self.places.len();
        machine.at_work().for_each(|place| self.await_place(place));
        if self.places.len() > before {
            self.put_off(machine.store.data().started.elapsed(), shortest);
        }
    }

    fn await_place(&mut self, place: u64) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    pub(super) fn forget(&mut self, place: u64) {
        self.places.retain(|other| *other != place);
    }

    fn is_due(&self, place: u64, now: Instant) -> bool {
        self.places.contains(&place) && self.again.is_none_or(|again| again <= now)
    }

    /// It has failed after it ran for so long: the next start waits, and twice as long as the last time where that was short.
    fn put_off(&mut self, ran: Duration, shortest: Duration) -> Duration {
        let longer = if ran > LONGEST { Duration::ZERO } else { self.wait.saturating_mul(2).min(LONGEST) };
        self.wait = longer.max(shortest);
        self.again = Some(Instant::now() + self.wait);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_secs(1);

    #[test]
    fn a_place_waits_longer_and_longer_until_it_has_run_for_a_while() {
        let mut standing = Standing::default();
        let now = Instant::now();
        standing.await_place(1);
        assert!(standing.is_due(1, now) && !standing.is_due(2, now));
        let mut waits = || standing.put_off(Duration::ZERO, SHORTEST).as_secs();
        assert_eq!(std::array::from_fn(|_| waits()), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!standing.is_due(1, now + LONGEST / 2) && standing.is_due(1, Instant::now() + LONGEST));
        assert_eq!(standing.put_off(LONGEST * 2, SHORTEST), SHORTEST, "it has run for long");
        standing.forget(1);
        assert!(!standing.is_due(1, Instant::now() + LONGEST));
    }

    #[test]
    fn a_place_is_awaited_once() {
        let mut standing = Standing::default();
        standing.await_place(1);
        standing.await_place(1);
        standing.forget(1);
        assert!(!standing.is_due(1, Instant::now()));
    }
}
