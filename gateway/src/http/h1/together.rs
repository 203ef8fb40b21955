//! Writing together: what the tasks of a worker have to write goes out in one row.
//!
//! A write wakes whoever reads it, unless they are at work already, and on the machine they share with the gateway that is a tenth of
//! what a request costs. Tasks that each write as soon as they have something let readers come to their end in between, to be woken
//! again.

use std::{future::poll_fn, mem, task::Poll};

/// Lets the tasks go on that can, each up to its own first write; where there are none it costs another turn of this one, well below
/// a microsecond.
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
