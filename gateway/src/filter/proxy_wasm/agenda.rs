//! What VMs have under way beside exchanges: timers, calls and messages in queues. Polled beside a worker's connections, on
//! its own thread.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// The jobs of one worker.
#[derive(Default)]
pub(in crate::filter) struct Agenda {
    arrived: RefCell<Vec<Job>>,
    running: RefCell<FuturesUnordered<Job>>,
    waker: RefCell<Option<Waker>>,
}

impl Agenda {
    /// Adds a job. It begins when `keep` is polled next.
    pub(super) fn add(&self, job: impl Future<Output = ()> + 'static) {
        self.arrived.borrow_mut().push(Box::pin(job));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Does the jobs for as long as it is polled.
    pub(in crate::filter) async fn keep(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.replace(Some(cx.waker().clone()));
        let mut running = self.running.borrow_mut();
        loop {
            // A job that runs may add others.
            running.extend(self.arrived.take());
            match running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.arrived.borrow().is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
    }
}

impl fmt::Debug for Agenda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agenda").field("running", &self.running.borrow().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::{cell::Cell, rc::Rc};

    #[test]
    fn jobs_may_add_jobs() {
        let (agenda, done) = (Rc::new(Agenda::default()), Rc::new(Cell::new(0)));
        let (inner, counted) = (Rc::clone(&agenda), Rc::clone(&done));
        agenda.add(async move {
            counted.set(counted.get() + 1);
            let counted = Rc::clone(&counted);
            inner.add(async move { counted.set(counted.get() + 10) });
        });
        assert!(agenda.keep().now_or_never().is_none(), "there may always be more");
        assert_eq!(done.get(), 11);
    }
}
