//! What of a VM is to run although no exchange has come, and when that is tried again after it did not start or failed.

use super::{Machine, Settled, Vm};
use crate::filter::proxy_wasm::state::Context;
use foldhash::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The longest wait between two starts that nobody asked for. Each may take as much of its worker's time as a start may.
const LONGEST: Duration = Duration::from_secs(60);

/// The places of a VM whose root context is to be there, and is not. One that fails waits by itself: the others keep their VM
/// until it is tried again, and have another one soon after.
#[derive(Debug, Default)]
pub(super) struct Standing {
    down: HashSet<u64>,
    /// Of those that have failed, down or not.
    waits: HashMap<u64, Wait>,
    /// Of the machine itself, which no place's root context is to blame for.
    start: Wait,
}

/// How long something waits that fails again and again.
#[derive(Debug, Default)]
struct Wait {
    /// Not before this; at once where it did not fail.
    again: Option<Instant>,
    length: Duration,
}

impl Vm {
    /// Whether it has something to do without an exchange, or is to have.
    pub(in crate::filter::proxy_wasm) fn is_at_work(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.standing.down.is_empty() || inner.machine.as_ref().is_some_and(|machine| machine.at_work().next().is_some())
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
        let before = self.started();
        let made = self.root(place);
        let has_started = before.0 || self.started() != before;
        let inner = &mut *self.inner.borrow_mut();
        let is_known = inner.machine.as_ref().is_some_and(|machine| machine.roots.contains_key(&place.id));
        match made {
            Ok(_) => inner.standing.start = Wait::default(),
            Err(reason) if is_known => {
                tracing::warn!(plugin = &*self.key.plugin, reason = &*reason, "a Proxy-Wasm filter does not run");
            }
            // Its failure was logged, and has put off the place.
            Err(_) if has_started => {}
            Err(reason) => {
                let wait = inner.standing.start.put_off(Duration::ZERO, self.shared.limits.back_off);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    plugin = &*self.key.plugin,
                    reason = &*reason,
                    wait_ms,
                    "a Proxy-Wasm VM did not start; that is tried again after the wait, or when an exchange needs it"
                );
            }
        }
    }

    /// Whether a machine runs, and how many have been started.
    fn started(&self) -> (bool, u64) {
        let inner = self.inner.borrow();
        (inner.machine.is_some(), inner.number)
    }
}

impl Machine {
    /// The places whose root context has something to do without an exchange.
    fn at_work(&self) -> impl Iterator<Item = u64> {
        let contexts = &self.store.data().contexts;
        let is_at_work = |root: u32| matches!(contexts.get(root), Some(Context::Root(root)) if root.is_at_work());
        self.roots.iter().filter(move |(_, root)| root.as_ref().is_ok_and(|root| is_at_work(*root))).map(|(place, _)| *place)
    }

    /// The place that the last call was about.
    fn called(&self) -> Option<u64> {
        let called = self.store.data().root_id()?;
        self.roots.iter().find(|(_, root)| **root == Ok(called)).map(|(place, _)| *place)
    }
}

impl Standing {
    /// A machine has failed: what it was at work for is to run again. Only the place whose fault that is waits: the one whose root
    /// context was being made, else the one that was called.
    pub(super) fn fell(&mut self, machine: &Machine, making: Option<u64>, shortest: Duration) {
        machine.at_work().for_each(|place| self.await_place(place));
        let ran = machine.store.data().started.elapsed();
        let at_fault = making.map(|place| (place, Duration::ZERO)).or_else(|| Some((machine.called()?, ran)));
        if let Some((place, ran)) = at_fault.filter(|(place, _)| self.down.contains(place)) {
            self.put_off(place, ran, shortest);
        }
    }

    fn await_place(&mut self, place: u64) {
        self.down.insert(place);
    }

    /// The root context of a place has been made, or does not want to be.
    pub(super) fn made(&mut self, place: u64) {
        self.down.remove(&place);
    }

    /// A place is no more.
    pub(super) fn forget(&mut self, place: u64) {
        self.down.remove(&place);
        self.waits.remove(&place);
    }

    fn is_due(&self, place: u64, now: Instant) -> bool {
        self.down.contains(&place) && self.start.is_over(now) && self.waits.get(&place).is_none_or(|wait| wait.is_over(now))
    }

    fn put_off(&mut self, place: u64, ran: Duration, shortest: Duration) {
        self.waits.entry(place).or_default().put_off(ran, shortest);
    }
}

impl Wait {
    fn is_over(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }

    /// It has failed after it ran for so long: the next start waits, and twice as long as the last time where that was short.
    fn put_off(&mut self, ran: Duration, shortest: Duration) -> Duration {
        let longer = if ran > LONGEST { Duration::ZERO } else { self.length.saturating_mul(2).min(LONGEST) };
        self.length = longer.max(shortest);
        self.again = Some(Instant::now() + self.length);
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_secs(1);

    #[test]
    fn what_fails_waits_longer_and_longer_until_it_has_run_for_a_while() {
        let mut wait = Wait::default();
        assert!(wait.is_over(Instant::now()));
        let mut waits = || wait.put_off(Duration::ZERO, SHORTEST).as_secs();
        assert_eq!(std::array::from_fn(|_| waits()), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!wait.is_over(Instant::now() + LONGEST / 2) && wait.is_over(Instant::now() + LONGEST));
        assert_eq!(wait.put_off(LONGEST * 2, SHORTEST), SHORTEST, "it has run for long");
    }

    #[test]
    fn a_place_waits_by_itself_and_as_long_again_when_it_was_made_meanwhile() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        standing.await_place(1);
        standing.await_place(2);
        assert!(standing.is_due(1, now) && standing.is_due(2, now) && !standing.is_due(3, now));
        standing.put_off(1, Duration::ZERO, SHORTEST);
        assert!(!standing.is_due(1, now) && standing.is_due(2, now), "the other is not put off with it");
        standing.made(1);
        standing.await_place(1);
        standing.put_off(1, Duration::ZERO, SHORTEST);
        assert!(!standing.is_due(1, now + SHORTEST) && standing.is_due(1, Instant::now() + SHORTEST * 2), "it is not forgiven");
        standing.start.put_off(Duration::ZERO, SHORTEST);
        assert!(!standing.is_due(2, now) && standing.is_due(2, Instant::now() + SHORTEST), "without a machine nothing stands");
    }

    #[test]
    fn a_place_that_is_no_more_is_forgotten() {
        let mut standing = Standing::default();
        standing.await_place(1);
        standing.await_place(1);
        standing.put_off(1, Duration::ZERO, SHORTEST);
        standing.forget(1);
        assert!(!standing.is_due(1, Instant::now() + LONGEST));
        assert!(standing.down.is_empty() && standing.waits.is_empty());
    }
}
