//! What an exchange waits for: it is the filter's fault, and not the upstream's or the caller's, where a callback is under way as
//! the exchange's time is up.

use super::{Run, Steps};
use crate::fault::Fault;
use ::http::StatusCode;
use std::cell::Cell;
use tidegate_policy::Reason;

/// A callback under way, counted: it may have suspended itself, or the filter has stopped what it is about.
pub(super) struct UnderWay<'a>(&'a Cell<u32>);

impl<'a> UnderWay<'a> {
    pub(super) fn begin(calls: &'a Cell<u32>) -> Self {
        calls.set(calls.get() + 1);
        Self(calls)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Run {
    /// What it means for the exchange that its time is up: the fault of the filter that it waits for; none where it waits for none.
    pub fn overdue(&self) -> Option<Fault> {
        let Steps { chain, each, .. } = &*self.0;
        let (link, _) = chain.links.iter().zip(each).find(|(_, step)| step.calls.get() > 0)?;
        let detail = format!(
            "the filter {} kept the exchange waiting until its time was up: see timeouts.idle, timeouts.first_byte and timeouts.total of the route, or else http_body_timeout and http_first_byte_timeout",
            link.plugin
        );
        Some(Fault::new(Reason::FilterFailed, detail).answered_with(StatusCode::GATEWAY_TIMEOUT))
    }
}
