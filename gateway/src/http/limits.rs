//! Limits on a route's exchanges, all workers together: a rate and a number open at once. Atomics shared by route name;
//! they live on when a route is changed.

use crate::fault::Fault;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tidegate_policy::{Name, Reason, route};

/// The limits of every route, shared by all workers.
#[derive(Debug)]
pub struct Limiters {
    /// What times are counted from.
    begun: Instant,
    // Locked only when a worker meets a route that has a limit for the first time: see `Known`.
    routes: Mutex<HashMap<Name, Arc<Limiter>, foldhash::fast::RandomState>>,
}

/// The limiters that one worker has met, so that it need not lock again.
#[derive(Debug, Default)]
pub struct Known(std::cell::RefCell<HashMap<Name, Arc<Limiter>, foldhash::fast::RandomState>>);

/// One route's counts.
#[derive(Debug, Default)]
struct Limiter {
    open: AtomicU32,
    /// When the next exchange would be due at the configured rate, in nanoseconds (a virtual schedule: GCRA, which is a
    /// token bucket in one number).
    due: AtomicU64,
}

/// A place among the exchanges open at once; dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<Limiter>);

impl Default for Limiters {
    fn default() -> Self {
        Self { begun: Instant::now(), routes: Mutex::default() }
    }
}

impl Limiters {
    /// Admits one exchange under `limits` of the route `name`, or refuses it as `rate_limited` or `overloaded`.
    pub fn admit(&self, known: &Known, name: &Name, limits: &route::Limits) -> Result<Option<Place>, Fault> {
        if limits.rate.is_none() && limits.concurrent.is_none() {
            return Ok(None);
        }
        let limiter = self.limiter(known, name);
        if let Some(rate) = limits.rate {
            limiter.take(rate, self.begun.elapsed())?;
        }
        let Some(most) = limits.concurrent else { return Ok(None) };
        if limiter.open.fetch_add(1, Ordering::Relaxed) >= most {
            limiter.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Fault::new(Reason::Overloaded, "as many exchanges are open as the route's limits.concurrent allows"));
        }
        Ok(Some(Place(limiter)))
    }

    fn limiter(&self, known: &Known, name: &Name) -> Arc<Limiter> {
        if let Some(limiter) = known.0.borrow().get(name) {
            return Arc::clone(limiter);
        }
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter = Arc::clone(routes.entry(name.clone()).or_default());
        drop(routes);
        known.0.borrow_mut().insert(name.clone(), Arc::clone(&limiter));
        limiter
    }
}

impl Limiter {
    fn take(&self, rate: route::Rate, now: Duration) -> Result<(), Fault> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let interval = 1_000_000_000 / u64::from(rate.per_second.max(1));
        let burst = u64::from(rate.burst.unwrap_or(rate.per_second).max(1));
        let advance = |due: u64| {
            let due = due.max(now);
            (due - now <= interval * (burst - 1)).then_some(due + interval)
        };
        self.due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance)
            .map(drop)
            .map_err(|_| Fault::new(Reason::RateLimited, "the route's limits.rate is spent for now"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limiter = Limiter::default();
        let rate = route::Rate { per_second: 10, burst: Some(3) };
        let at = |ms| limiter.take(rate, Duration::from_millis(ms)).is_ok();
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(99), at(100), at(100)], [false, true, false]);
        assert_eq!([at(1000), at(1000), at(1000), at(1000)], [true, true, true, false]);
    }

    #[test]
    fn a_place_is_given_back() {
        let (limiters, known) = (Limiters::default(), Known::default());
        let name: Name = "route".parse().unwrap();
        let limits = route::Limits { concurrent: Some(1), ..route::Limits::default() };
        let first = limiters.admit(&known, &name, &limits).unwrap();
        assert_eq!(limiters.admit(&known, &name, &limits).unwrap_err().reason(), Reason::Overloaded);
        drop(first);
        assert!(limiters.admit(&known, &name, &limits).unwrap().is_some());
    }
}
