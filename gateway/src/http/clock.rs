//! The one timer of a downstream connection, or of a stream of an HTTP/2 one. A new deadline costs a timer operation
//! only where it comes before the one that is set; a later one is looked at when that fires.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// A deadline that moves. Phases of an exchange follow each other, so there is one at a time; the exchange's total limit
/// caps each.
#[derive(Debug, Default)]
pub struct Clock {
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
    deadline: Cell<Option<Instant>>,
    limit: Cell<Option<Instant>>,
}

impl Clock {
    /// Expires `after` from now, or at the limit where that is sooner.
    pub fn arm(&self, after: Duration) {
        let deadline = Instant::now() + after;
        self.deadline.set(Some(self.limit.get().map_or(deadline, |limit| limit.min(deadline))));
    }

    /// Expires only at the limit, if there is one.
    pub fn disarm(&self) {
        self.deadline.set(self.limit.get());
    }

    /// Sets the limit for everything until the next call of this: `after` from now, or none.
    pub fn limit(&self, after: Option<Duration>) {
        self.limit.set(after.map(|after| Instant::now() + after));
        self.disarm();
    }

    /// Whether the limit has passed, so that nothing new is worth beginning.
    pub fn spent(&self) -> bool {
        self.limit.get().is_some_and(|limit| limit <= Instant::now())
    }

    /// Ready once the deadline has passed; otherwise the task is woken when it does.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline.get() else { return Poll::Pending };
        let mut slot = self.sleep.borrow_mut();
        let sleep = slot.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn a_deadline_can_be_moved_both_ways() {
        let clock = Clock::default();
        clock.arm(Duration::from_secs(3600));
        assert!(poll_fn(|cx| Poll::Ready(clock.poll_expired(cx).is_pending())).await);
        let begun = Instant::now();
        clock.arm(Duration::from_millis(5));
        assert!(poll_fn(|cx| Poll::Ready(clock.poll_expired(cx).is_pending())).await);
        clock.arm(Duration::from_millis(30));
        poll_fn(|cx| clock.poll_expired(cx)).await;
        assert!(begun.elapsed() >= Duration::from_millis(30));
        clock.limit(Some(Duration::from_millis(5)));
        clock.arm(Duration::from_secs(3600));
        poll_fn(|cx| clock.poll_expired(cx)).await;
    }
}
