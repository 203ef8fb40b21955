//! How many connections are open to each service, all workers together. Atomics only.

use super::settings::Metrics;
use foldhash::HashMap;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use tidegate_policy::{Name, Snapshot};

/// The open connections of every service. Shared from publication to publication, so that counts live on.
#[derive(Debug, Default)]
pub struct Loads {
    services: HashMap<Name, Arc<Load>>,
    unregistered: Arc<Load>,
}

/// The open connections of one service.
#[derive(Debug, Default)]
pub(super) struct Load {
    open: AtomicU32,
    /// That a worker was refused one: whichever worker has an idle one next gives it up.
    pressed: AtomicBool,
}

/// One open connection, counted until dropped.
#[derive(Debug)]
pub struct Lease {
    load: Arc<Load>,
    metrics: Arc<Metrics>,
}

impl Loads {
    /// Counts for every service of `snapshot`; those that `before` has go on.
    pub fn prepare(snapshot: &Snapshot, before: &Self) -> Self {
        let services = snapshot
            .services()
            .map(|service| (service.name.clone(), before.services.get(&service.name).cloned().unwrap_or_default()))
            .collect();
        Self { services, unregistered: Arc::clone(&before.unregistered) }
    }

    /// The count of `service`; of all unregistered hosts together where there is none.
    pub(super) fn of(&self, service: Option<&Name>) -> &Arc<Load> {
        service.and_then(|service| self.services.get(service)).unwrap_or(&self.unregistered)
    }
}

impl Load {
    /// Counts one more, unless there are `most` already.
    pub(super) fn lease(self: &Arc<Self>, most: u32, metrics: &Arc<Metrics>) -> Option<Lease> {
        let one_more = |open: u32| (open < most).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.pressed.store(true, Ordering::Relaxed);
            return None;
        }
        metrics.connections_open.add(1);
        Some(Lease { load: Arc::clone(self), metrics: Arc::clone(metrics) })
    }

    /// Whether somebody was refused a connection since this was last asked.
    pub(super) fn take_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) && self.pressed.swap(false, Ordering::Relaxed)
    }
}

impl Lease {
    /// The count it belongs to.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.load.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections_open.add(-1);
    }
}
