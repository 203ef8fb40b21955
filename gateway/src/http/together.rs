//! Writing together: what the tasks of a worker have to write goes out in one row.
//!
//! A write wakes its reader unless that is at work already. Where tasks write as soon as they have something, readers on the same
//! machine come to their end in between and are woken again. And one row of the same has its code in the processor's cache, wherever
//! its readers are.

use std::{future::poll_fn, mem, task::Poll};

/// Lets the tasks go on that can, each as far as it comes; where there are none it costs another turn of this one, well below a
/// microsecond.
pub(super) async fn together() {
    let mut put_off = false;
    poll_fn(|cx| {
        if mem::replace(&mut put_off, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};

    #[test]
    fn whoever_can_go_on_does_before_anybody_writes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let done = Rc::new(RefCell::new(Vec::new()));
        let tasks = tokio::task::LocalSet::new();
        for task in 0..3 {
            let done = Rc::clone(&done);
            tasks.spawn_local(async move {
                done.borrow_mut().push(("ready", task));
                together().await;
                done.borrow_mut().push(("write", task));
            });
        }
        runtime.block_on(tasks);
        let row = |what| (0..3).map(move |task| (what, task));
        assert_eq!(*done.borrow(), row("ready").chain(row("write")).collect::<Vec<_>>());
    }
}
