//! An exchange's own instance: its two directions use it in turn. A call that the exchange gives up is cut short and brought to
//! its end, so that the filter can still be told that the exchange is over.

use super::{Slot, Visited};
use crate::filter::{
    chain::Filter,
    engine::Shared,
    guest::Calls,
    instance::{Answer, Bound, Callback, Instance, NotStarted, Trail, Visit},
    lent::Shown,
};
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{Notify, watch};
use wasmtime::Trap;

/// An exchange's own instance.
pub(in crate::filter) struct Own {
    slot: Rc<Slot>,
    tenure: RefCell<Tenure>,
    /// What the filter did in a call that was given up.
    left: RefCell<Option<Trail>>,
    /// Rung when the other direction is done with it.
    free: Notify,
}

/// What has become of it.
enum Tenure {
    Unstarted,
    Here(Box<Instance>),
    /// In a call of the other direction, or in one that was given up.
    Away,
    /// The filter has nothing more to do with the exchange.
    Over,
    Lost(Arc<str>),
}

/// What is left of a call.
struct Done {
    instance: Box<Instance>,
    trail: Trail,
    shown: Option<Box<Shown>>,
    answer: wasmtime::Result<Answer>,
}

/// A call under way that may suspend.
struct SuspendingCall {
    own: Rc<Own>,
    shared: Arc<Shared>,
    closes: bool,
    /// Tells the call that nobody waits for it any more.
    given_up: Arc<watch::Sender<bool>>,
    /// None once it has ended.
    call: Option<Pin<Box<dyn Future<Output = Done>>>>,
}

impl Own {
    /// None is started before the first call.
    pub(super) fn unstarted(slot: Rc<Slot>) -> Rc<Self> {
        Rc::new(Self { slot, tenure: RefCell::new(Tenure::Unstarted), left: RefCell::default(), free: Notify::new() })
    }

    /// Whether it is in a call, or has been in one that was given up.
    pub(super) fn is_away(&self) -> bool {
        matches!(&*self.tenure.borrow(), Tenure::Away) || self.left.borrow().is_some()
    }

    fn is_over(&self) -> bool {
        matches!(&*self.tenure.borrow(), Tenure::Over)
    }

    pub(super) async fn visit(self: &Rc<Self>, filter: &Filter, trail: &RefCell<Trail>, visit: Visit<'_>) -> Visited {
        let closes = visit.callback == Callback::Close;
        let claimed = self.claim(filter).await;
        if let Some(left) = self.left.take() {
            trail.replace(left);
        }
        if closes && self.is_over() {
            return Ok(Answer::Closed);
        }
        let mut instance = match claimed {
            Ok(instance) => instance,
            Err(NotStarted::NoMemory { .. }) => return Ok(Answer::NoMemory),
            Err(NotStarted::Failed(reason)) => return Err(reason),
        };
        let mut taken = trail.take();
        let answer = if filter.calls() == Calls::Suspending {
            let done = self.suspending(filter, (instance, taken), visit).await;
            (instance, taken) = (done.instance, done.trail);
            done.answer
        } else {
            instance.serve(&mut taken, 0, visit).await
        };
        let visited = self.settled(&filter.shared, (instance, &mut taken), closes, answer);
        trail.replace(taken);
        visited
    }

    /// Makes a call with all that it needs in its own hands: it may outlive the exchange's interest in it.
    async fn suspending(
        self: &Rc<Self>,
        filter: &Filter,
        (mut instance, mut trail): (Box<Instance>, Trail),
        visit: Visit<'_>,
    ) -> Done {
        let Visit { callback, known, shown: mut lent, undoable } = visit;
        let (known, mut shown) = (Arc::clone(known), lent.as_deref_mut().map(std::mem::take));
        let given_up = instance.given_up();
        let call = async move {
            let visit = Visit { callback, known: &known, shown: shown.as_mut(), undoable };
            let answer = instance.serve(&mut trail, 0, visit).await;
            Done { instance, trail, shown, answer }
        };
        let mut call_made = SuspendingCall {
            own: Rc::clone(self),
            shared: Arc::clone(&filter.shared),
            closes: callback == Callback::Close,
            given_up,
            call: Some(Box::pin(call)),
        };
        let mut done = poll_fn(|cx| call_made.poll(cx)).await;
        if let (Some(shown), Some(lent)) = (done.shown.take(), lent) {
            *lent = shown;
        }
        done
    }

    /// Takes it back from a call, unless its part in the exchange is over.
    fn settled(
        &self,
        shared: &Shared,
        (mut instance, trail): (Box<Instance>, &mut Trail),
        closes: bool,
        answer: wasmtime::Result<Answer>,
    ) -> Visited {
        let was_short = instance.lacked().is_some();
        let visited = answer.or_else(|error| {
            trail.open = None;
            // At the end there is nothing left to refuse: that is a failure as any other. So is one that has time to blame.
            let overran = error.downcast_ref::<Trap>() == Some(&Trap::Interrupt);
            if was_short && !closes && !overran {
                return Ok(Answer::NoMemory);
            }
            Err(Arc::from(shared.failed(&error, &Bound::of_callback(&shared.limits))))
        });
        let next = match &visited {
            Ok(Answer::NoMemory) => {
                self.slot.own.set(self.slot.own.get().saturating_sub(1));
                Tenure::Lost(NotStarted::no_memory())
            }
            Err(reason) => {
                self.slot.own.set(self.slot.own.get().saturating_sub(1));
                self.slot.health.borrow_mut().fail(Arc::clone(reason));
                Tenure::Lost(Arc::clone(reason))
            }
            Ok(_) if closes || trail.open.is_none() => {
                self.slot.give_back(*instance);
                Tenure::Over
            }
            Ok(_) => Tenure::Here(instance),
        };
        self.tenure.replace(next);
        self.free.notify_waiters();
        visited
    }

    /// The instance, as soon as the other direction does not use it.
    async fn claim(&self, filter: &Filter) -> Result<Box<Instance>, NotStarted> {
        loop {
            let free = self.free.notified();
            let tenure = self.tenure.replace(Tenure::Away);
            match tenure {
                Tenure::Here(instance) => return Ok(instance),
                Tenure::Unstarted => {
                    let started = self.slot.instance(filter).await;
                    if let Err(not_started) = &started {
                        self.tenure.replace(Tenure::Lost(not_started.reason()));
                        self.free.notify_waiters();
                    }
                    return started.map(Box::new);
                }
                Tenure::Over => {
                    self.tenure.replace(Tenure::Over);
                    return Err("its part in the exchange is over".to_owned().into());
                }
                Tenure::Lost(reason) => {
                    self.tenure.replace(Tenure::Lost(Arc::clone(&reason)));
                    return Err(NotStarted::Failed(reason));
                }
                Tenure::Away => free.await,
            }
        }
    }
}

impl SuspendingCall {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let polled = call.as_mut().poll(cx);
        if polled.is_ready() {
            self.call = None;
        }
        polled
    }
}

impl Drop for SuspendingCall {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        self.given_up.send_replace(true);
        let (own, shared, closes) = (Rc::clone(&self.own), Arc::clone(&self.shared), self.closes);
        tokio::task::spawn_local(async move {
            let Done { instance, mut trail, answer, .. } = call.await;
            // Whoever closes the exchange finds out what came of it.
            let _visited = own.settled(&shared, (instance, &mut trail), closes, answer);
            own.left.replace(Some(trail));
        });
    }
}

impl Drop for Own {
    /// What is here was not closed, or is in a call that was given up: it is not used again.
    fn drop(&mut self) {
        if matches!(self.tenure.get_mut(), Tenure::Here(_) | Tenure::Away) {
            self.slot.own.set(self.slot.own.get().saturating_sub(1));
        }
    }
}
