//! Responses over HTTP/2 that their caller does not take. hyper asks a body for nothing while the caller's flow-control
//! window is shut, so what would time the wait never runs: each connection looks after its own responses instead.

use super::body::Body;
use crate::fault::Fault;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_policy::Reason;
use tokio::time::{Instant, Sleep};

/// The responses under way on one connection.
pub(super) struct Watch {
    patience: Duration,
    watched: RefCell<Vec<Weak<Held>>>,
    sleep: RefCell<Pin<Box<Sleep>>>,
}

/// A response's body that can be ended from outside.
pub(super) struct Watched(Rc<Held>);

struct Held {
    body: RefCell<Body>,
    patience: Duration,
    /// Longest pause of the body's own, which it ends by itself as long as it is asked.
    idle: Duration,
    /// When the body is given up unless it is asked again.
    due: Cell<Instant>,
    gone: Cell<bool>,
}

impl Watch {
    /// Nothing under way yet; a response that is not taken for `patience` is given up.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, watched: RefCell::default(), sleep: RefCell::new(Box::pin(tokio::time::sleep(patience))) }
    }

    /// Looks after `body` from now on.
    pub(super) fn over(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let (patience, idle) = (self.patience, body.idle().unwrap_or_default());
        let due = Cell::new(Instant::now() + patience);
        let held = Rc::new(Held { body: RefCell::new(body), patience, idle, due, gone: Cell::new(false) });
        self.watch(Rc::downgrade(&held));
        Body::watched(Watched(held))
    }

    /// Before the list grows, what has ended goes: it stays in proportion to the streams that are open, however many a
    /// connection has carried.
    fn watch(&self, held: Weak<Held>) {
        let mut watched = self.watched.borrow_mut();
        if watched.len() == watched.capacity() {
            watched.retain(|held| held.strong_count() > 0);
            // Room for as many again, so that what it costs to look through them is spread over those.
            let open = watched.len();
            watched.reserve(open.max(8));
        }
        watched.push(held);
    }

    /// Gives up what was not taken in time. To be polled with the connection.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let mut sleep = self.sleep.borrow_mut();
        while sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let mut late = Vec::new();
            self.watched.borrow_mut().retain(|held| {
                let Some(held) = held.upgrade() else { return false };
                let is_late = held.due.get() <= now;
                if is_late {
                    late.push(held);
                }
                !is_late
            });
            for held in late {
                held.give_up();
            }
            // A quarter: what is late is noticed soon after, and a connection at rest is hardly ever woken.
            sleep.as_mut().reset(now + self.patience / 4);
        }
    }
}

impl Held {
    fn give_up(&self) {
        let detail = "the caller did not take the response within http_write_timeout";
        let mut body = self.body.take();
        body.fail(Fault::new(Reason::DownstreamTimeout, detail));
        self.gone.set(true);
    }
}

impl Watched {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.0.gone.get() {
            let detail = "the response was given up: its caller did not take it";
            return Poll::Ready(Some(Err(Fault::new(Reason::DownstreamTimeout, detail))));
        }
        // The window may be shut while the body has nothing to give: then nothing asks it again, its own timer included.
        self.0.due.set(Instant::now() + self.0.idle + self.0.patience);
        let frame = ready!(Pin::new(&mut *self.0.body.borrow_mut()).poll_frame(cx));
        self.0.due.set(Instant::now() + self.0.patience);
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        !self.0.gone.get() && self.0.body.borrow().is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().size_hint()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_that_have_ended_are_not_kept() {
        let watch = Watch::new(Duration::from_secs(60));
        let open = watch.over(Body::full(Bytes::from_static(b"open")));
        for _ in 0..10_000 {
            drop(watch.over(Body::full(Bytes::from_static(b"over"))));
        }
        let kept = watch.watched.borrow().len();
        assert!(kept < 100, "{kept} are kept for one that is open");
        let watched = watch.watched.borrow();
        assert!(watched.iter().any(|held| held.strong_count() > 0), "the open one must stay under watch");
        drop(open);
    }
}
