//! Shutting down: idle connections are told to close, busy ones close after the answer under way.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Whether one worker is shutting down. Cloning is cheap; a connection registers once and looks at a flag after that.
#[derive(Debug, Clone, Default)]
pub struct Drain(Rc<State>);

#[derive(Debug, Default)]
struct State {
    begun: Cell<bool>,
    /// The tasks to wake, by place; empty places are used again.
    tasks: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// A task that will be woken; dropping it ends that.
#[derive(Debug)]
pub struct Registered {
    state: Rc<State>,
    place: usize,
}

impl Drain {
    /// Begins to drain: wakes every registered task.
    pub fn begin(&self) {
        self.0.begun.set(true);
        for waker in self.0.tasks.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        self.0.begun.get()
    }

    /// Connections that are registered now.
    pub fn registered(&self) -> usize {
        self.0.tasks.borrow().len() - self.0.free.borrow().len()
    }

    /// Registers the current task, to be woken when it begins.
    pub async fn register(&self) -> Registered {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let free = self.0.free.borrow_mut().pop();
        let mut tasks = self.0.tasks.borrow_mut();
        let place = free.unwrap_or_else(|| {
            tasks.push(None);
            tasks.len() - 1
        });
        tasks[place] = Some(waker);
        Registered { state: Rc::clone(&self.0), place }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.state.tasks.borrow_mut()[self.place] = None;
        self.state.free.borrow_mut().push(self.place);
    }
}
