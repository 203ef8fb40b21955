//! Attempts at connections that exchanges may come to share. Whoever leads one tells those who wait how it ended,
//! whichever way it ends: by success, by failure, or because its own caller has gone.

use super::pool::Slot;
use crate::fault::Fault;
use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    time::Duration,
};
use tokio::sync::Notify;

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Attempt {
    over: Notify,
    ended: Cell<bool>,
    waiting: Cell<u32>,
    /// Why it failed, if it has.
    failure: OnceCell<Fault>,
    /// The longest it may take.
    limit: Duration,
}

/// An exchange's part in making a connection; the attempt is over when this is dropped.
pub(super) struct Leading {
    slot: Rc<Slot>,
    attempt: Rc<Attempt>,
}

/// An exchange's place among those who wait.
pub(super) struct Waiting(Rc<Attempt>);

impl Attempt {
    /// A place among those who wait, as long as one connection of `streams` streams would carry them and the leader.
    pub(super) fn join(self: &Rc<Self>, streams: u32) -> Option<Waiting> {
        let others = self.waiting.get() + 1;
        (others < streams).then(|| {
            self.waiting.set(others);
            Waiting(Rc::clone(self))
        })
    }
}

impl Leading {
    /// Begins an attempt that takes `limit` at most.
    pub(super) fn begin(slot: &Rc<Slot>, limit: Duration) -> Self {
        let attempt = Rc::new(Attempt {
            over: Notify::new(),
            ended: Cell::new(false),
            waiting: Cell::new(0),
            failure: OnceCell::new(),
            limit,
        });
        slot.attempts.borrow_mut().push(Rc::clone(&attempt));
        Self { slot: Rc::clone(slot), attempt }
    }

    /// Ends the attempt. Those who wait share its failure: one after the other would fail as it did.
    pub(super) fn end<T>(self, outcome: &Result<T, Fault>) {
        if let Err(fault) = outcome {
            self.attempt.failure.get_or_init(|| fault.clone());
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.slot.attempts.borrow_mut().retain(|attempt| !Rc::ptr_eq(attempt, &self.attempt));
        self.attempt.ended.set(true);
        self.attempt.over.notify_waiters();
    }
}

impl Waiting {
    /// Waits until the attempt is over. Its failure is this exchange's too, unless this one would have tried for longer;
    /// otherwise there is something to be shared, or another attempt to be made.
    pub(super) async fn over(&self, limit: Duration) -> Result<(), Fault> {
        let over = self.0.over.notified();
        if !self.0.ended.get() {
            over.await;
        }
        match self.0.failure.get() {
            Some(fault) if fault.reason() != tidegate_policy::Reason::Timeout || self.0.limit >= limit => Err(fault.clone()),
            _ => Ok(()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}
