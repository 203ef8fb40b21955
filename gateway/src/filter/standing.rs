//! Proxy-Wasm filters that run although no exchange has come: they may have a timer, or wait for messages in a queue. Started on
//! every worker as soon as a route has them, and again after they failed while they were at work.

use super::{
    chain::Filter,
    slot::{Instances, Slot},
};
use crate::live::Live;
use std::{rc::Rc, sync::Arc};
use tokio::task::yield_now;

/// How many filters that run already are passed over before connections get their turn again.
const AT_ONCE: usize = 1024;

impl Instances {
    /// Starts the VMs that came with what is in force now. Connections get their turn after each.
    pub async fn attend(&self, live: Arc<Live>) {
        let filters: Arc<[Arc<Filter>]> = Arc::clone(&live.chains.standing);
        self.machines.put_in_force(Arc::clone(&live.snapshot));
        // What was in force is let go of as soon as exchanges have done so.
        drop(live);
        // Filters are numbered in the order in which they are made.
        let (before, mut newest) = (self.attended.get(), self.attended.get());
        for (number, filter) in filters.iter().enumerate() {
            if filter.id > before {
                newest = newest.max(filter.id);
                self.slot(filter).stand_up();
                yield_now().await;
            } else if number % AT_ONCE == 0 {
                yield_now().await;
            }
        }
        self.attended.set(newest);
    }

    /// Starts again what has failed while it was at work, or did not start, and has waited for long enough.
    pub(super) async fn raise_fallen(&self) {
        let down: Vec<_> = self.slots.borrow().values().filter(|slot| slot.is_down()).map(Rc::clone).collect();
        for slot in down {
            // Another place of the same VM may have failed just now.
            if slot.is_down() {
                slot.stand();
            }
            yield_now().await;
        }
    }
}

impl Slot {
    /// Has it run from now on.
    fn stand_up(&self) {
        if let Some(place) = &self.proxy {
            place.is_to_stand();
        }
        if self.is_down() {
            self.stand();
        }
    }

    fn is_down(&self) -> bool {
        self.is_on_a_route() && self.proxy.as_ref().is_some_and(|place| place.is_down())
    }

    fn stand(&self) {
        if let Some(place) = &self.proxy {
            place.stand();
        }
    }
}
